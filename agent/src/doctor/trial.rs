//! One plugin, started and called as in the agent, on what its sources hold: what it understands of it.
//!
//! Nothing that it says is kept. It is called until nothing more is there, or for a bounded time.

use std::time::{Duration, Instant};

use tillwatch_core::sample::{Batch, Kind, Metric, Values};
use tillwatch_core::tally::Tally;
use tillwatch_core::{Core, SourceKey};

use super::clocks;
use super::finding::{Finding, Part, of_problem};
use crate::clock::Clock;
use crate::collectors::{self, Source, Start};
use crate::config::written::Problems;
use crate::config::{Config, PluginConfig};
use crate::plugin::host::Reading;
use crate::run::core_settings;

/// A large log is read so far; what comes after is not known then.
const READING_MAX: Duration = Duration::from_secs(20);
/// What plugins say of their sources begins so, and has the time of the call.
const OF_SOURCES: &str = "source.";
const PARSE_ERRORS: &str = "source.parse_errors";

/// `written_ms` is when the newest file of its sources was written.
pub(super) fn examine(config: &Config, plugin: &PluginConfig, clock: &Clock, written_ms: Option<u64>) -> Vec<Finding> {
    let part = || Part::Plugin(plugin.name.clone());
    let (core, source, key) = match start(config, plugin, clock) {
        Ok(started) => started,
        Err(Problems(problems)) => return problems.iter().map(|problem| of_problem(part(), problem)).collect(),
    };
    let mut trial = Trial {
        core,
        source,
        key,
        heard: Heard::default(),
    };
    trial.run(clock);
    let warning = trial.source.warning();
    let mut found = vec![trial.heard.finding(part(), warning.as_deref())];
    if let (Some(newest_ms), true) = (trial.heard.newest_ms, trial.heard.is_whole) {
        found.push(clocks::events(part(), newest_ms, clock.now_ms(), written_ms));
    }
    found
}

/// Alone: what is wrong with another plugin is said of that.
fn start(config: &Config, plugin: &PluginConfig, clock: &Clock) -> Result<(Core, Source, SourceKey), Problems> {
    let alone = Config {
        plugins: vec![plugin.clone()],
        ..config.clone()
    };
    let how = Start {
        clock,
        reading: Reading::ONCE,
        progress: &|_source| None,
        clears_cache: false,
        status: None,
    };
    let mut core = Core::new(core_settings(&alone));
    let declared = collectors::start(&alone, &how).declare(&alone, |source, what| {
        core.declare(source, &what.version, what.metrics, what.labels)
    })?;
    let found = declared.into_iter().find(|(source, _key)| source.has_past());
    let (source, key) = found.ok_or_else(|| Problems(vec![plugin.place.clone()]))?;
    Ok((core, source, key))
}

struct Trial {
    core: Core,
    source: Source,
    key: SourceKey,
    heard: Heard,
}

impl Trial {
    fn run(&mut self, clock: &Clock) {
        let begun = Instant::now();
        while begun.elapsed() < READING_MAX {
            let Some(collected) = self.source.collect(clock.now_ms()) else {
                self.heard.failure = Some(self.source.failure().unwrap_or("it is not called").to_owned());
                return;
            };
            let more = collected.batch.more;
            self.heard.hear(&self.source.declaration.metrics, &collected.batch);
            let accepted = self
                .core
                .on_batch(clock.now_ms(), self.key, collected.batch, Vec::new());
            self.heard.refused.add_all(&accepted.refused);
            drop(self.core.take_records());
            self.source.commit();
            if !more {
                self.heard.is_whole = true;
                return;
            }
        }
    }
}

/// What one plugin said.
#[derive(Debug, Default)]
struct Heard {
    samples: usize,
    refused: Tally,
    parse_errors: i64,
    /// Of events; levels have the time of the call.
    newest_ms: Option<u64>,
    is_whole: bool,
    failure: Option<String>,
}

impl Heard {
    fn hear(&mut self, metrics: &[Metric], batch: &Batch) {
        for series in &batch.series {
            let Some(metric) = metrics.get(usize::from(series.metric)) else {
                continue;
            };
            if metric.name == PARSE_ERRORS {
                self.parse_errors += total(&series.values);
            }
            if metric.name.starts_with(OF_SOURCES) {
                continue;
            }
            self.samples += series.times_ms.len();
            if metric.kind != Kind::Gauge {
                self.newest_ms = self.newest_ms.max(series.times_ms.iter().copied().max());
            }
        }
    }

    fn finding(&self, part: Part, warning: Option<&str>) -> Finding {
        let said = warning.map(|said| format!("; it says: {said}")).unwrap_or_default();
        let Self {
            samples, parse_errors, ..
        } = self;
        let refused: Vec<String> = self
            .refused
            .iter()
            .filter(|(_reason, count)| *count > 0)
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        if let Some(failure) = &self.failure {
            let hint = "mend what it says; `tillwatch plugin test` tries it on its own cases";
            return Finding::bad(part, format!("its call failed: {failure}{said}"), hint);
        }
        if *parse_errors > 0 && *samples == 0 {
            let what = format!("it understood nothing, {parse_errors} parse errors{said}");
            let hint = "compare the plugin's settings for format and fields with what the source holds";
            return Finding::bad(part, what, hint);
        }
        if !refused.is_empty() {
            let what = format!("{samples} values, of which are dropped: {}{said}", refused.join(", "));
            let hint = "docs/OPERATIONS.md says what each reason means; labels and ranges are set in plugin.toml";
            return Finding::note(part, what, hint);
        }
        if *parse_errors > 0 {
            let what = format!("{samples} values, and {parse_errors} parse errors{said}");
            return Finding::note(
                part,
                what,
                "compare what it did not understand with the plugin's README",
            );
        }
        let what = format!("{samples} values{said}");
        match (samples, self.is_whole, said.is_empty()) {
            (0, true, _) => Finding::note(part, what, "nothing was there to be understood yet"),
            (_, false, _) => {
                let seconds = READING_MAX.as_secs();
                Finding::note(
                    part,
                    format!("{what} in {seconds} s, and more is there"),
                    "none: an agent goes on",
                )
            }
            (_, true, false) => Finding::note(part, what, "ask the plugin's README"),
            (_, true, true) => Finding::good(part, what),
        }
    }
}

fn total(values: &Values) -> i64 {
    match values {
        Values::Integers(values) => values.iter().fold(0, |sum, value| sum.saturating_add(*value)),
        Values::Reals(values) => i64::try_from(values.len()).unwrap_or(i64::MAX),
    }
}
