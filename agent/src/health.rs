//! What the agent reports of itself: calls, failures, bytes and sources of each plugin.
//!
//! In: counts from the plugins' threads. Out: a batch like any collector's, so the agent's own metrics take the same way.
//! Nothing is logged here, and nothing is read but these counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tillwatch_core::LabelPolicy;
use tillwatch_core::sample::{Batch, Descriptor, Kind, Series, Values};

use crate::source::system::metric;

/// The name of this source.
pub const NAME: &str = "agent";

const CALLS: u16 = 0;
const FAILURES: u16 = 1;
const TIME: u16 = 2;
const READ: u16 = 3;
const SKIPPED: u16 = 4;
const LOST: u16 = 5;
const LOGS_DROPPED: u16 = 6;
const SOURCE_UP: u16 = 7;
const UNREADABLE: u16 = 8;

/// How a call of a plugin can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A panic, a recursion too deep, a wrong import.
    Trap,
    Deadline,
    Memory,
    /// The plugin itself returned an error.
    Error,
    /// Its values or its description were refused.
    Refused,
}

impl Failure {
    const ALL: [Self; 5] = [Self::Trap, Self::Deadline, Self::Memory, Self::Error, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Error => "error",
            Self::Refused => "refused",
        }
    }
}

/// The counts of one plugin since the start.
#[derive(Debug, Default)]
pub struct PluginHealth {
    calls: AtomicU64,
    failures: [AtomicU64; 5],
    time_us: AtomicU64,
    read_bytes: AtomicU64,
    skipped_bytes: AtomicU64,
    lost: AtomicU64,
    logs_dropped: AtomicU64,
    unreadable: AtomicU64,
    sources_up: Mutex<BTreeMap<String, bool>>,
}

impl PluginHealth {
    pub fn on_call(&self, time_us: u64) {
        self.calls.fetch_add(1, Relaxed);
        self.time_us.fetch_add(time_us, Relaxed);
    }

    pub fn on_failure(&self, failure: Failure) {
        self.failures[failure as usize].fetch_add(1, Relaxed);
    }

    pub fn on_read(&self, bytes: u64, skipped_bytes: u64) {
        self.read_bytes.fetch_add(bytes, Relaxed);
        self.skipped_bytes.fetch_add(skipped_bytes, Relaxed);
    }

    pub fn on_log_dropped(&self) {
        self.logs_dropped.fetch_add(1, Relaxed);
    }

    /// Files that vanished unread, documents that were too large, what the plugin fails at; over all sources.
    pub fn set_lost(&self, lost: u64) {
        self.lost.store(lost, Relaxed);
    }

    /// Files that are there and cannot be opened now, over all sources.
    pub fn set_unreadable(&self, unreadable: u64) {
        self.unreadable.store(unreadable, Relaxed);
    }

    pub fn set_source(&self, source: &str, is_up: bool) {
        let mut sources = self.sources_up.lock().unwrap_or_else(PoisonError::into_inner);
        match sources.get_mut(source) {
            Some(known) => *known = is_up,
            None => drop(sources.insert(source.to_owned(), is_up)),
        }
    }

    /// While a plugin pauses, nobody knows of its sources.
    pub fn forget_sources(&self) {
        self.sources_up.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    #[cfg(test)]
    pub(crate) fn sources(&self) -> Vec<(String, bool)> {
        let sources = self.sources_up.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().map(|(name, is_up)| (name.clone(), *is_up)).collect()
    }

    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.iter().map(|count| count.load(Relaxed)).sum()
    }
}

/// The counts of all plugins by instance name.
#[derive(Clone, Debug, Default)]
pub struct Health(BTreeMap<String, Arc<PluginHealth>>);

impl Health {
    /// The counts of a plugin, made at the first call.
    pub fn plugin(&mut self, name: &str) -> Arc<PluginHealth> {
        Arc::clone(self.0.entry(name.to_owned()).or_default())
    }

    /// Nothing to report without plugins.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn collect(&self, now_ms: u64) -> Batch {
        let mut series = Vec::new();
        for (name, health) in &self.0 {
            let mut push = |metric: u16, labels: &[&str], value: u64| {
                let labels = std::iter::once(name.as_str())
                    .chain(labels.iter().copied())
                    .map(str::to_owned)
                    .collect();
                let values = Values::Integers(vec![i64::try_from(value).unwrap_or(i64::MAX)]);
                series.push(Series {
                    metric,
                    labels,
                    values,
                    times_ms: vec![now_ms],
                });
            };
            push(CALLS, &[], health.calls.load(Relaxed));
            push(TIME, &[], health.time_us.load(Relaxed));
            push(READ, &[], health.read_bytes.load(Relaxed));
            push(SKIPPED, &[], health.skipped_bytes.load(Relaxed));
            push(LOST, &[], health.lost.load(Relaxed));
            push(UNREADABLE, &[], health.unreadable.load(Relaxed));
            push(LOGS_DROPPED, &[], health.logs_dropped.load(Relaxed));
            for failure in Failure::ALL {
                let count = health.failures[failure as usize].load(Relaxed);
                // A kind of failure that never happened costs no series.
                if count > 0 {
                    push(FAILURES, &[failure.name()], count);
                }
            }
            for (source, is_up) in &*health.sources_up.lock().unwrap_or_else(PoisonError::into_inner) {
                push(SOURCE_UP, &[source], u64::from(*is_up));
            }
        }
        Batch {
            series,
            ..Batch::default()
        }
    }

    /// The plugins' and sources' names are closed lists: they come from agent.toml and plugin.toml.
    #[must_use]
    pub fn labels(&self, sources: Vec<String>) -> BTreeMap<String, LabelPolicy> {
        let list = |values: Vec<String>| {
            let values_max = u32::try_from(values.len()).unwrap_or(u32::MAX);
            LabelPolicy {
                pattern: None,
                values: Some(values),
                values_max,
            }
        };
        let failures = Failure::ALL.iter().map(|failure| failure.name().to_owned()).collect();
        BTreeMap::from([
            ("tillwatch.plugin".to_owned(), list(self.0.keys().cloned().collect())),
            ("tillwatch.source".to_owned(), list(sources)),
            ("error.type".to_owned(), list(failures)),
        ])
    }
}

/// What the agent says of itself.
#[must_use]
pub fn descriptor() -> Descriptor {
    let plugin = ["tillwatch.plugin"];
    let metrics = vec![
        metric(
            "tillwatch.plugin.calls",
            "{call}",
            Kind::Counter,
            0,
            &plugin,
            "Calls of the plugin.",
        ),
        metric(
            "tillwatch.plugin.failures",
            "{call}",
            Kind::Counter,
            0,
            &["tillwatch.plugin", "error.type"],
            "Calls that failed.",
        ),
        metric(
            "tillwatch.plugin.time",
            "s",
            Kind::Counter,
            6,
            &plugin,
            "Time spent in calls of the plugin.",
        ),
        metric(
            "tillwatch.plugin.read",
            "By",
            Kind::Counter,
            0,
            &plugin,
            "Bytes that the plugin was given.",
        ),
        metric(
            "tillwatch.plugin.skipped",
            "By",
            Kind::Counter,
            0,
            &plugin,
            "Bytes of lines that were too long.",
        ),
        metric(
            "tillwatch.plugin.lost",
            "{file}",
            Kind::Counter,
            0,
            &plugin,
            "Files that vanished unread or were too large, documents and lines at which the plugin fails.",
        ),
        metric(
            "tillwatch.plugin.logs_dropped",
            "{line}",
            Kind::Counter,
            0,
            &plugin,
            "Log lines beyond the plugin's rate.",
        ),
        metric(
            "source.up",
            "1",
            Kind::Gauge,
            0,
            &["tillwatch.plugin", "tillwatch.source"],
            "1 when the source could be read, else 0; nothing when it was not tried.",
        ),
        metric(
            "tillwatch.plugin.unreadable",
            "{file}",
            Kind::Gauge,
            0,
            &plugin,
            "Files that are there and cannot be opened.",
        ),
    ];
    Descriptor {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        metrics,
        min_interval_ms: 1_000,
        attrs: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_out_as_series_of_declared_metrics() {
        let mut health = Health::default();
        let sales = health.plugin("sales");
        sales.on_call(1_500);
        sales.on_failure(Failure::Deadline);
        sales.set_source("lines", false);
        let batch = health.collect(1_000);
        let metrics = descriptor().metrics;
        let policies = health.labels(vec!["lines".to_owned()]);
        let mut found = Vec::new();
        for series in &batch.series {
            let metric = &metrics[usize::from(series.metric)];
            assert_eq!(series.labels.len(), metric.label_keys.len(), "{}", metric.name);
            for (key, value) in metric.label_keys.iter().zip(&series.labels) {
                assert!(policies[key].values.as_ref().unwrap().contains(value), "{key} {value}");
            }
            found.push((metric.name.as_str(), series.labels.join(" "), series.values.clone()));
        }
        for (name, labels, value) in [
            ("tillwatch.plugin.calls", "sales", 1),
            ("tillwatch.plugin.failures", "sales deadline", 1),
            ("tillwatch.plugin.time", "sales", 1_500),
            ("source.up", "sales lines", 0),
        ] {
            assert!(
                found.contains(&(name, labels.to_owned(), Values::Integers(vec![value]))),
                "{name}: {found:?}"
            );
        }
    }
}
