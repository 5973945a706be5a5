//! `tillwatch plugin run`: one plugin without an agent, on the sources that its settings file grants.
//!
//! In: a file with one `[[plugin]]` block, such as a plugin's `sample.toml`. Out: its samples as lines, through the same
//! guard as in a store. No progress is kept: each run begins at the first line of the granted files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use tillwatch_core::sample::{Batch, Metric};

use super::collector::PluginCollector;
use super::golden::admission::Admission;
use super::host::{GrantedHost, Reading};
use super::load::limits;
use super::outside::Code;
use super::restraint::Restraint;
use crate::clock::Clock;
use crate::collectors::wait_for;
use crate::config::{PluginConfig, one_plugin};
use crate::health::Health;
use crate::output;
use crate::preview::json;
use crate::run::stop_at_signal;
use crate::schedule::Schedule;
use crate::stop::Stop;

/// Calls in a row while the plugin says that there is more, as in the agent; reaching it is told.
const CALLS_PER_ROUND_MAX: u32 = 256;

/// Arguments of `plugin run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The file with one [[plugin]] block, in the plugin's folder; paths in it begin there.
    #[arg(long, value_name = "FILE", default_value = "sample.toml")]
    settings: PathBuf,
    /// Read what is there, print it, end.
    #[arg(long)]
    once: bool,
    /// JSON lines, as `tap` prints them.
    #[arg(long)]
    json: bool,
}

/// Collects and prints until it is stopped.
///
/// # Errors
/// When the settings are wrong, or the plugin does not start.
pub fn run(arguments: &Run) -> Result<ExitCode> {
    let config = one_plugin(&arguments.settings)?;
    let stop = Stop::default();
    stop_at_signal(&stop)?;
    let clock = Clock::wall();
    let mut running = Running::start(&config, &clock, arguments.json)?;
    let schedule = Schedule::new(config.interval_ms, "", &config.name);
    loop {
        let is_good = running.round(&clock)?;
        if arguments.once {
            running.tell_refused();
            return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let due_ms = schedule.next_after(clock.now_ms());
        while clock.now_ms() < due_ms {
            if stop.wait(wait_for(&clock, due_ms)) {
                running.tell_refused();
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

struct Running {
    collector: PluginCollector,
    admission: Admission,
    has_json: bool,
    name: String,
}

impl Running {
    fn start(config: &PluginConfig, clock: &Clock, has_json: bool) -> Result<Self> {
        let health = Health::default().plugin(&config.name);
        let host = GrantedHost::new(
            &config.name,
            &config.grants,
            None,
            Reading::LIVE,
            clock.clone(),
            health.clone(),
        )?;
        let code = Code::load(&config.wasm, None)?;
        let collector = PluginCollector::start(code.start(limits(config))?, config, host, Restraint::default(), health)
            .with_context(|| format!("{} cannot run", config.place.what))?;
        let mut admission = Admission::of(&config.manifest);
        admission.declare(collector.descriptor())?;
        Ok(Self {
            collector,
            admission,
            has_json,
            name: config.name.clone(),
        })
    }

    /// Calls until nothing more is there; false when a call failed.
    fn round(&mut self, clock: &Clock) -> Result<bool> {
        for _ in 0..CALLS_PER_ROUND_MAX {
            let Some(collected) = self.collector.collect() else {
                return Ok(false);
            };
            self.print(&collected.batch)?;
            self.admission
                .offer(clock.now_ms(), self.collector.descriptor(), &collected.batch);
            self.collector.commit();
            if !collected.batch.more {
                return Ok(true);
            }
        }
        output::error(&format!(
            "it still says that there is more after {CALLS_PER_ROUND_MAX} calls"
        ));
        Ok(true)
    }

    fn print(&self, batch: &Batch) -> Result<()> {
        let metrics = &self.collector.descriptor().metrics;
        for line in json::samples(&self.name, metrics, batch) {
            let text = if self.has_json { line } else { readable(&line, metrics)? };
            output::line(&text)?;
        }
        Ok(())
    }

    /// Not on standard output, which holds samples.
    fn tell_refused(&self) {
        for line in self.admission.refused() {
            output::error(line.trim());
        }
    }
}

/// `2026-03-02T11:30:00Z  sales.amount{lane=3}  19.99 EUR` from a JSON line of `tap`.
fn readable(line: &str, metrics: &[Metric]) -> Result<String> {
    let sample: Value = serde_json::from_str(line)?;
    let name = sample["metric"].as_str().unwrap_or_default();
    let time = Timestamp::from_millisecond(sample["time_ms"].as_i64().unwrap_or_default())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = sample["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
    let metric = metrics.iter().find(|metric| metric.name == name);
    let value = match &sample["value"] {
        Value::Null => format!("refused: {}", text(&sample["refused"])),
        value => metric.map_or_else(|| value.to_string(), |metric| with_unit(value, metric)),
    };
    let line = format!("{time}  {name}{{{}}}  {value}", labels.join(","));
    Ok(line.replace(char::is_control, "\u{fffd}"))
}

/// A whole number is of 10^-decimals of the unit.
fn with_unit(value: &Value, metric: &Metric) -> String {
    let unit = metric.currency.as_ref().unwrap_or(&metric.unit);
    let Some(whole) = value.as_i64() else {
        return format!("{value} {unit}");
    };
    let decimals = usize::from(metric.decimals);
    let digits = format!("{:0width$}", whole.unsigned_abs(), width = decimals + 1);
    let (front, back) = digits.split_at(digits.len() - decimals);
    let sign = if whole < 0 { "-" } else { "" };
    let point = if back.is_empty() { "" } else { "." };
    format!("{sign}{front}{point}{back} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_core::sample::Kind;

    #[test]
    fn a_sample_is_readable_with_its_unit_and_never_moves_the_cursor() {
        let mut metric = crate::source::system::metric("sales.amount", "{currency}", Kind::Sum, 2, &["lane"], "");
        metric.currency = Some("EUR".to_owned());
        let line = |value: &str| {
            let labels = r#"{"lane":"a\u001b[2J"}"#;
            format!(r#"{{"metric":"sales.amount","labels":{labels},"time_ms":1772451000000,{value}}}"#)
        };
        let shown = |value: &str| readable(&line(value), std::slice::from_ref(&metric)).unwrap();
        let expected = "2026-03-02T11:30:00Z  sales.amount{lane=a\u{fffd}[2J}  -0.05 EUR";
        assert_eq!(shown(r#""value":-5"#), expected);
        assert!(shown(r#""value":1999"#).ends_with("  19.99 EUR"));
        assert!(shown(r#""value":1.5"#).ends_with("  1.5 EUR"));
        assert!(shown(r#""refused":"card""#).ends_with("  refused: card"));
    }
}
