//! What the agent reports of itself: what it dropped and why; calls, failures, bytes and sources of each plugin.
//!
//! In: counts from the plugins' threads and the keeper's status. Out: a batch like any collector's, so the agent's own metrics take the same way.
//! Nothing is logged here, and nothing is read but these counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tillwatch_border::PeerFault;
use tillwatch_core::LabelPolicy;
use tillwatch_core::sample::{Batch, Descriptor, Kind, Series, Values};
use tillwatch_core::tally::REASONS;
use tokio::sync::watch;

use crate::keeper::Status;
use crate::source::system::{NAME as SYSTEM_NAME, metric};

/// The name of this source.
pub const NAME: &str = "agent";

const REFUSED: u16 = 0;
const EVENTS: u16 = 1;
/// Metrics that need no plugin; they come first.
const AGENT_METRICS: usize = 3;
const TRAFFIC: u16 = 2;
const CALLS: u16 = 3;
const FAILURES: u16 = 4;
const TIME: u16 = 5;
const READ: u16 = 6;
const SKIPPED: u16 = 7;
const LOST: u16 = 8;
const BEYOND: u16 = 9;
const SOURCE_UP: u16 = 10;
const UNREADABLE: u16 = 11;
const RESTARTS: u16 = 12;
const QUARANTINED: u16 = 13;
const SOURCE_FAILURES: u16 = 14;

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
    /// It ended the process of all plugins.
    Crash,
    /// The process of all plugins could not be started.
    Process,
}

impl Failure {
    const ALL: [Self; 7] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Error,
        Self::Refused,
        Self::Crash,
        Self::Process,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Error => "error",
            Self::Refused => "refused",
            Self::Crash => "crash",
            Self::Process => "process",
        }
    }
}

/// What a plugin can want too much of, without failing for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Log lines of one call.
    LogLines,
    /// Log lines of a minute.
    LogRate,
    /// A log line that was cut.
    LogBytes,
    /// Bytes read in one call.
    ReadBytes,
    /// Questions to sources in one call.
    Asks,
    /// The agent's own time for one call.
    HostTime,
    /// A state that was not kept.
    StateBytes,
    /// Questions to peers, and waiting for them, in one call.
    PeerAsks,
    /// An answer of a peer that was too large.
    PeerBytes,
    /// A peer that took too long.
    PeerTime,
    /// A question to a peer that was not granted.
    PeerGrant,
    /// A question to a peer that came too soon after the last ones.
    PeerRate,
    /// Calls that were put off until its share of the processor came.
    CpuShare,
    /// Calls that were put off because it had told much of the past.
    History,
    /// Rounds that ended though there was more.
    RoundCalls,
    /// States that might hold a card number, and were not kept.
    StateCards,
    /// Values outside of the range that plugin.toml declares.
    ValueRange,
    /// Rounds that ended for the bytes that they had read.
    RoundBytes,
    /// Logs that match a pattern and were not read for want of a place.
    Files,
}

/// One counter each.
const LIMITS: usize = Limit::ALL.len();

impl Limit {
    pub(crate) const ALL: &[Self] = &[
        Self::LogLines,
        Self::LogRate,
        Self::LogBytes,
        Self::ReadBytes,
        Self::Asks,
        Self::HostTime,
        Self::StateBytes,
        Self::PeerAsks,
        Self::PeerBytes,
        Self::PeerTime,
        Self::PeerGrant,
        Self::PeerRate,
        Self::CpuShare,
        Self::History,
        Self::RoundCalls,
        Self::StateCards,
        Self::ValueRange,
        Self::RoundBytes,
        Self::Files,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LogLines => "log_lines",
            Self::LogRate => "log_rate",
            Self::LogBytes => "log_bytes",
            Self::ReadBytes => "read_bytes",
            Self::Asks => "asks",
            Self::HostTime => "host_time",
            Self::StateBytes => "state_bytes",
            Self::PeerAsks => "peer_asks",
            Self::PeerBytes => "peer_bytes",
            Self::PeerTime => "peer_time",
            Self::PeerGrant => "peer_grant",
            Self::PeerRate => "peer_rate",
            Self::CpuShare => "cpu_share",
            Self::History => "history",
            Self::RoundCalls => "round_calls",
            Self::StateCards => "state_cards",
            Self::ValueRange => "value_range",
            Self::RoundBytes => "round_bytes",
            Self::Files => "files",
        }
    }
}

/// The counts of one plugin since the start.
#[derive(Debug, Default)]
pub struct PluginHealth {
    calls: AtomicU64,
    failures: [AtomicU64; 7],
    time_us: AtomicU64,
    read_bytes: AtomicU64,
    skipped_bytes: AtomicU64,
    lost: AtomicU64,
    beyond: [AtomicU64; LIMITS],
    unreadable: AtomicU64,
    is_quarantined: AtomicBool,
    restarts: AtomicU64,
    sources_up: Mutex<BTreeMap<String, bool>>,
    /// By source and reason; as many as there are grants and faults.
    source_failures: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl PluginHealth {
    pub fn on_call(&self, time_us: u64) {
        self.calls.fetch_add(1, Relaxed);
        self.time_us.fetch_add(time_us, Relaxed);
    }

    /// It found the process of all plugins started again; each restart is found once.
    pub fn on_restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    pub fn on_failure(&self, failure: Failure) {
        self.failures[failure as usize].fetch_add(1, Relaxed);
    }

    pub fn on_read(&self, bytes: u64, skipped_bytes: u64) {
        self.read_bytes.fetch_add(bytes, Relaxed);
        self.skipped_bytes.fetch_add(skipped_bytes, Relaxed);
    }

    /// So many times it wanted more than a limit allows.
    pub fn on_beyond(&self, limit: Limit, times: u64) {
        self.beyond[limit as usize].fetch_add(times, Relaxed);
    }

    /// Files that vanished unread, documents that were too large or came too late, what the plugin fails at; over all sources.
    pub fn set_lost(&self, lost: u64) {
        self.lost.store(lost, Relaxed);
    }

    /// Files that are there and cannot be opened now, over all sources.
    pub fn set_unreadable(&self, unreadable: u64) {
        self.unreadable.store(unreadable, Relaxed);
    }

    /// Whether it is not called at all.
    pub fn set_quarantined(&self, is_quarantined: bool) {
        self.is_quarantined.store(is_quarantined, Relaxed);
    }

    pub fn set_source(&self, source: &str, is_up: bool) {
        let mut sources = self.sources_up.lock().unwrap_or_else(PoisonError::into_inner);
        match sources.get_mut(source) {
            Some(known) => *known = is_up,
            None => drop(sources.insert(source.to_owned(), is_up)),
        }
    }

    /// A peer did not answer, for this reason.
    pub fn on_source_failure(&self, source: &str, fault: &'static str) {
        let mut failures = self.source_failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry((source.to_owned(), fault)).or_default() += 1;
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

    /// Bytes that it was given, and that were skipped.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.read_bytes.load(Relaxed), self.skipped_bytes.load(Relaxed))
    }

    #[cfg(test)]
    pub(crate) fn time_us(&self) -> u64 {
        self.time_us.load(Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn beyond(&self) -> Vec<(&'static str, u64)> {
        let counts = Limit::ALL.iter().map(|limit| (limit.name(), self.beyond_of(*limit)));
        counts.filter(|(_name, count)| *count > 0).collect()
    }

    #[cfg(test)]
    pub(crate) fn source_failures(&self) -> Vec<((String, &'static str), u64)> {
        let failures = self.source_failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|(what, count)| (what.clone(), *count)).collect()
    }

    #[cfg(test)]
    pub(crate) fn beyond_of(&self, limit: Limit) -> u64 {
        self.beyond[limit as usize].load(Relaxed)
    }

    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.iter().map(|count| count.load(Relaxed)).sum()
    }
}

/// The counts of all plugins by instance name, and of core, spool and keeper.
#[derive(Clone, Debug, Default)]
pub struct Health {
    plugins: BTreeMap<String, Arc<PluginHealth>>,
    status: Option<watch::Receiver<Status>>,
    /// By metric, source and reason: what was reported so far.
    told: BTreeMap<(u16, String, &'static str), u64>,
}

impl Health {
    /// The counts of a plugin, made at the first call.
    pub fn plugin(&mut self, name: &str) -> Arc<PluginHealth> {
        Arc::clone(self.plugins.entry(name.to_owned()).or_default())
    }

    /// Where core, spool and keeper count.
    pub fn watch(&mut self, status: watch::Receiver<Status>) {
        self.status = Some(status);
    }

    /// What it may report: without plugins nothing of plugins.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = descriptor();
        if self.plugins.is_empty() {
            descriptor.metrics.truncate(AGENT_METRICS);
        }
        descriptor
    }

    /// Counts since the last call that are not 0, and how each plugin stands.
    #[must_use]
    pub fn collect(&mut self, now_ms: u64) -> Batch {
        let mut series = self.increments(now_ms);
        for (name, health) in &self.plugins {
            let mut push = |metric: u16, labels: &[&str], value: u64| {
                let labels = std::iter::once(name.as_str())
                    .chain(labels.iter().copied())
                    .map(str::to_owned)
                    .collect();
                series.push(one(metric, labels, value, now_ms));
            };
            push(CALLS, &[], health.calls.load(Relaxed));
            push(TIME, &[], health.time_us.load(Relaxed));
            push(READ, &[], health.read_bytes.load(Relaxed));
            push(SKIPPED, &[], health.skipped_bytes.load(Relaxed));
            push(LOST, &[], health.lost.load(Relaxed));
            push(UNREADABLE, &[], health.unreadable.load(Relaxed));
            push(QUARANTINED, &[], u64::from(health.is_quarantined.load(Relaxed)));
            for failure in Failure::ALL {
                let count = health.failures[failure as usize].load(Relaxed);
                // A kind of failure that never happened costs no series.
                if count > 0 {
                    push(FAILURES, &[failure.name()], count);
                }
            }
            for limit in Limit::ALL {
                let count = health.beyond[*limit as usize].load(Relaxed);
                if count > 0 {
                    push(BEYOND, &[limit.name()], count);
                }
            }
            for (source, is_up) in &*health.sources_up.lock().unwrap_or_else(PoisonError::into_inner) {
                push(SOURCE_UP, &[source], u64::from(*is_up));
            }
            let failures = health.source_failures.lock().unwrap_or_else(PoisonError::into_inner);
            for ((source, fault), count) in &*failures {
                push(SOURCE_FAILURES, &[source, fault], *count);
            }
        }
        let restarts = self.plugins.values().map(|plugin| plugin.restarts.load(Relaxed)).sum();
        if restarts > 0 {
            series.push(one(RESTARTS, Vec::new(), restarts, now_ms));
        }
        Batch {
            series,
            ..Batch::default()
        }
    }

    fn increments(&mut self, now_ms: u64) -> Vec<Series> {
        let Some(status) = self.status.as_ref().map(|status| status.borrow().clone()) else {
            return Vec::new();
        };
        let refused = status.refused.iter().flat_map(|(source, refused)| {
            let by_reason = refused.iter().filter(|(_name, count)| *count > 0);
            by_reason.map(|(name, count)| (REFUSED, source.clone(), name, count))
        });
        let events = events(&status)
            .into_iter()
            .map(|(name, count)| (EVENTS, String::new(), name, count));
        // Where nobody limits them they are not worth their own.
        let traffic = status
            .bytes_per_day
            .map(|_limit| (TRAFFIC, String::new(), "", status.traffic_bytes));
        let mut series = Vec::new();
        for (metric, source, name, count) in refused.chain(events).chain(traffic) {
            let told = self.told.insert((metric, source.clone(), name), count).unwrap_or(0);
            let increment = count.saturating_sub(told);
            if increment > 0 {
                let source = Some(source).filter(|source| !source.is_empty());
                let name = Some(name.to_owned()).filter(|name| !name.is_empty());
                let labels = source.into_iter().chain(name).collect();
                series.push(one(metric, labels, increment, now_ms));
            }
        }
        series
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
        let of_calls = Failure::ALL.iter().map(|failure| failure.name());
        let of_peers = PeerFault::ALL.iter().map(|fault| fault.name());
        let failures = of_calls.chain(of_peers).map(str::to_owned).collect();
        let limits = Limit::ALL.iter().map(|limit| limit.name().to_owned()).collect();
        let reasons = REASONS.iter().map(|(_reason, name)| (*name).to_owned()).collect();
        let events = events(&Status::default())
            .map(|(name, _count)| name.to_owned())
            .to_vec();
        let built_in = [NAME, SYSTEM_NAME].map(str::to_owned);
        let names = self.plugins.keys().cloned().chain(built_in).collect();
        let own = [
            ("tillwatch.plugin".to_owned(), list(names)),
            ("tillwatch.reason".to_owned(), list(reasons)),
            ("tillwatch.event".to_owned(), list(events)),
        ];
        if self.plugins.is_empty() {
            return BTreeMap::from(own);
        }
        let plugins = [
            ("tillwatch.source".to_owned(), list(sources)),
            ("error.type".to_owned(), list(failures)),
            ("tillwatch.limit".to_owned(), list(limits)),
        ];
        own.into_iter().chain(plugins).collect()
    }
}

fn one(metric: u16, labels: Vec<String>, value: u64, now_ms: u64) -> Series {
    Series {
        metric,
        labels,
        values: Values::Integers(vec![i64::try_from(value).unwrap_or(i64::MAX)]),
        times_ms: vec![now_ms],
    }
}

/// Limits that were hit and faults that were met, with the names that they have in the agent's own metrics.
fn events(status: &Status) -> [(&'static str, u64); 26] {
    let Status {
        core, spool, counters, ..
    } = status;
    [
        ("values_late", core.late),
        ("windows_not_judged", core.windows_not_judged),
        ("intervals_flushed_early", core.intervals_flushed_early),
        ("sums_cut", core.sums_cut),
        ("clock_back", core.clock_back),
        ("detectors_refused", core.detectors_refused),
        ("rows_left_out", core.rows_left_out),
        ("records_dropped_bytes", spool.records_dropped_bytes),
        ("records_dropped_age", spool.records_dropped_age),
        ("records_corrupt", spool.records_corrupt),
        ("gaps_forgotten", spool.gaps_forgotten),
        ("cursor_failures", spool.cursor_failures),
        ("spool_not_read", spool.not_read),
        ("disk_full", spool.disk_full),
        ("compactions_failed", spool.compactions_failed),
        ("payloads_refused", counters.refused),
        ("messages_ignored", counters.ignored),
        ("records_too_large", counters.records_too_large),
        ("records_unreadable", counters.records_unreadable),
        ("records_given_up", counters.records_given_up),
        ("births_unreadable", counters.births_unreadable),
        ("spool_rewound", counters.spool_rewound),
        ("acks_unknown", counters.acks_unknown),
        ("archive_restarts", counters.archive_restarts),
        ("spool_reopened", counters.spool_reopened),
        ("snapshots_failed", counters.snapshots_failed),
    ]
}

/// What the agent says of itself.
fn descriptor() -> Descriptor {
    let plugin = ["tillwatch.plugin"];
    let metrics = vec![
        metric(
            "tillwatch.agent.refused",
            "{value}",
            Kind::Sum,
            0,
            &["tillwatch.plugin", "tillwatch.reason"],
            "Values that do not count, by plugin or built-in source and reason.",
        ),
        metric(
            "tillwatch.agent.events",
            "{event}",
            Kind::Sum,
            0,
            &["tillwatch.event"],
            "Limits that were hit and faults that were met.",
        ),
        metric(
            "tillwatch.agent.traffic",
            "By",
            Kind::Sum,
            0,
            &[],
            "Bytes of the connection to the broker, both ways, where a day's bytes are limited.",
        ),
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
            "Time spent in calls of the plugin, without what the agent does for it.",
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
            "Files that vanished unread, were too large or came too late, documents and lines at which the plugin fails.",
        ),
        metric(
            "tillwatch.plugin.beyond",
            "{event}",
            Kind::Counter,
            0,
            &["tillwatch.plugin", "tillwatch.limit"],
            "What the plugin wanted beyond a limit and was not given: log lines, reads, files, state, peers, processor time.",
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
        metric(
            "tillwatch.plugin.process.restarts",
            "{restart}",
            Kind::Counter,
            0,
            &[],
            "How often the process of all plugins was started again.",
        ),
        metric(
            "tillwatch.plugin.quarantined",
            "1",
            Kind::Gauge,
            0,
            &plugin,
            "1 while the plugin is not called because it broke its bounds too often in a row, else 0.",
        ),
        metric(
            "source.failures",
            "{question}",
            Kind::Counter,
            0,
            &["tillwatch.plugin", "tillwatch.source", "error.type"],
            "Questions that a peer over the network did not answer, by reason.",
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

    /// A label missed its pattern, and all of a plugin's values vanished without a trace.
    #[test]
    fn what_was_dropped_is_told_once_by_reason_even_without_plugins() {
        let (sender, status) = watch::channel(Status::default());
        let mut health = Health::default();
        health.watch(status);
        assert_eq!(health.collect(1).series, []);
        sender.send_modify(|status| {
            let mut refused = tillwatch_core::tally::Tally::default();
            refused.add(tillwatch_core::tally::Reason::Label, 7);
            status.refused.insert(SYSTEM_NAME.to_owned(), refused);
            status.spool.disk_full = 2;
            status.counters.ignored = 3;
            status.bytes_per_day = Some(1 << 20);
            status.traffic_bytes = 4_096;
        });
        let told = health.collect(2).series;
        assert_eq!(health.collect(3).series, []);
        let (metrics, policies) = (health.descriptor().metrics, health.labels(Vec::new()));
        let found: Vec<(&str, String, &Values)> = told
            .iter()
            .map(|series| {
                let metric = &metrics[usize::from(series.metric)];
                assert_eq!(series.labels.len(), metric.label_keys.len());
                for (key, value) in metric.label_keys.iter().zip(&series.labels) {
                    assert!(policies[key].values.as_ref().unwrap().contains(value));
                }
                (metric.name.as_str(), series.labels.join(" "), &series.values)
            })
            .collect();
        assert_eq!(
            found,
            [
                (
                    "tillwatch.agent.refused",
                    "system label".to_owned(),
                    &Values::Integers(vec![7])
                ),
                (
                    "tillwatch.agent.events",
                    "disk_full".to_owned(),
                    &Values::Integers(vec![2])
                ),
                (
                    "tillwatch.agent.events",
                    "messages_ignored".to_owned(),
                    &Values::Integers(vec![3])
                ),
                ("tillwatch.agent.traffic", String::new(), &Values::Integers(vec![4_096])),
            ]
        );
        let mut core = tillwatch_core::Core::new(tillwatch_core::Settings {
            window_ms: 10_000,
            summary_ms: 60_000,
            time_zone: jiff::tz::TimeZone::UTC,
            calendar: Default::default(),
            agent_version: String::new(),
            limits: tillwatch_core::Limits::default(),
        });
        core.declare(NAME, "1", metrics, policies).unwrap();
    }

    #[test]
    fn counts_come_out_as_series_of_declared_metrics() {
        let mut health = Health::default();
        let sales = health.plugin("sales");
        sales.on_call(1_500);
        sales.on_failure(Failure::Deadline);
        sales.on_beyond(Limit::StateBytes, 3);
        sales.on_restart();
        sales.set_quarantined(true);
        health.plugin("queues").on_restart();
        sales.set_source("lines", false);
        sales.on_source_failure("lines", "timeout");
        sales.on_source_failure("lines", "timeout");
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
            ("tillwatch.plugin.beyond", "sales state_bytes", 3),
            ("tillwatch.plugin.time", "sales", 1_500),
            ("source.up", "sales lines", 0),
            ("source.failures", "sales lines timeout", 2),
            ("tillwatch.plugin.process.restarts", "", 2),
            ("tillwatch.plugin.quarantined", "sales", 1),
            ("tillwatch.plugin.quarantined", "queues", 0),
        ] {
            assert!(
                found.contains(&(name, labels.to_owned(), Values::Integers(vec![value]))),
                "{name}: {found:?}"
            );
        }
    }
}
