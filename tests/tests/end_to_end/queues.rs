//! A plugin, mostly `queue-depth`, on one source of a real system, in the agent's sandbox, as `tillwatch plugin run` has it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tillwatch_tests::process::{Process, plugin_dir, program, wait_until};

/// A broker on a loaded machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The plugin, asking once a second.
pub(crate) struct Watch(Process);

impl Watch {
    /// `sources` and `settings` are sections of agent.toml.
    pub(crate) fn start(place: &Path, name: &str, sources: &str, settings: &str) -> Result<Self> {
        Self::start_plugin("queue-depth", place, name, sources, settings)
    }

    /// As `start`, of any plugin.
    pub(crate) fn start_plugin(plugin: &str, place: &Path, name: &str, sources: &str, settings: &str) -> Result<Self> {
        let plugin = plugin_dir()?.join(plugin);
        let file = place.join(format!("{name}.toml"));
        let text = format!(
            "[[plugin]]\nname = {name:?}\nuse = {plugin:?}\ninterval = \"1s\"\n{sources}\n[plugin.settings]\n{settings}\n"
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(program("tillwatch")?);
        command
            .args(["--log", "warn", "plugin", "run", "--json", "--settings"])
            .arg(file);
        let log = place.join(format!("{name}.jsonl"));
        Ok(Self(Process::start("tillwatch", &mut command, &log)?))
    }

    /// Waits until the newest value is this one.
    pub(crate) fn wait_for(&mut self, metric: &str, queue: &str, expected: f64) -> Result<()> {
        self.wait(&format!("{metric} of {queue} is {expected}"), |values| {
            let newest = values.iter().rev().find(|(of, at, _value)| of == metric && at == queue);
            newest.is_some_and(|(_metric, _queue, value)| (value - expected).abs() < 1e-9)
        })
    }

    /// Waits until all values of a sum come to this.
    pub(crate) fn wait_for_sum(&mut self, metric: &str, queue: &str, expected: f64) -> Result<()> {
        self.wait(&format!("{metric} of {queue} sums to {expected}"), |values| {
            (sum(values, metric, queue) - expected).abs() < 1e-9
        })
    }

    /// Everything that was reported: metric, queue or route, value.
    pub(crate) fn values(&self) -> Result<Vec<(String, String, f64)>> {
        let text = std::fs::read_to_string(&self.0.log).context("reading the samples")?;
        Ok(text.lines().filter_map(value).collect())
    }

    /// What it said beside samples.
    pub(crate) fn warnings(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.0.log).context("reading the log")?;
        Ok(text
            .lines()
            .filter(|line| value(line).is_none())
            .collect::<Vec<_>>()
            .join("\n"))
    }

    pub(crate) fn wait(&mut self, what: &str, is_true: impl Fn(&[(String, String, f64)]) -> bool) -> Result<()> {
        let waited = wait_until(what, PATIENCE, || {
            self.0.check()?;
            Ok(is_true(&self.values()?))
        });
        waited.with_context(|| format!("{}\n{}", self.warnings().unwrap_or_default(), self.0.log_end()))
    }
}

pub(crate) fn sum(values: &[(String, String, f64)], metric: &str, queue: &str) -> f64 {
    let of = values.iter().filter(|(of, at, _value)| of == metric && at == queue);
    of.map(|(_metric, _queue, value)| value).sum()
}

/// A sample; a line of the log is none.
fn value(line: &str) -> Option<(String, String, f64)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let label = ["messaging.destination.name", "http.route"].map(|label| line["labels"][label].as_str());
    let queue = label.into_iter().flatten().next().unwrap_or_default();
    Some((
        line["metric"].as_str()?.to_owned(),
        queue.to_owned(),
        line["value"].as_f64()?,
    ))
}
