//! The state machine of one site: batches and ticks in, records and checkpoints out.

use std::collections::BTreeMap;

use tillwatch_feed::message::RecordId;

use crate::record::NewRecord;
use crate::registry::{DeclareError, LabelPolicy, SourceKey};
use crate::sample;

/// Bounds, each counted when hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configured plugins and built-in collectors.
    pub sources_max: usize,
    /// Metrics over all sources.
    pub metrics_max: usize,
    /// Series over all sources.
    pub series_max: usize,
    /// Intervals of event time that are open at once; the oldest is flushed early.
    pub open_intervals_max: usize,
    /// Values older than this are dropped.
    pub lateness_max_ms: u64,
    /// Values further in the future than this are dropped.
    pub ahead_max_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sources_max: 64,
            metrics_max: 512,
            series_max: 1_000,
            open_intervals_max: 240,
            lateness_max_ms: 90 * 24 * 3_600_000,
            ahead_max_ms: 5 * 60_000,
        }
    }
}

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of the windows that are scored; divides `summary_ms`.
    pub window_ms: u32,
    /// Length of the intervals that are sent.
    pub summary_ms: u32,
    /// The site's, for its daily and weekly rhythm.
    pub time_zone: jiff::tz::TimeZone,
    /// Goes into every birth.
    pub agent_version: String,
    pub limits: Limits,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Values that count.
    pub samples: u64,
    /// Values that were dropped; `Core::counters` has the reasons.
    pub refused: u64,
}

/// Why a checkpoint or snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is no checkpoint of ours, or damaged.
    #[error("checkpoint cannot be read: {reason}")]
    Malformed { reason: String },
    /// Another version wrote it.
    #[error("checkpoint has version {found}, this agent reads {known}")]
    Version { found: u32, known: u32 },
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub samples: u64,
}

/// The store's mind.
#[derive(Debug)]
pub struct Core {
    records: Vec<NewRecord>,
    counters: Counters,
}

impl Core {
    /// A site that has seen nothing yet.
    pub fn new(_settings: Settings) -> Core {
        Core {
            records: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Goes on where `checkpoint` left off.
    ///
    /// # Errors
    /// When the checkpoint cannot be read. A detector snapshot that cannot be used is left out and counted.
    pub fn restore(settings: Settings, _checkpoint: &[u8], _detectors: Option<&[u8]>) -> Result<Core, RestoreError> {
        Ok(Core::new(settings))
    }

    /// From now on records are written under this generation; its first record will be a birth that names `previous`.
    pub fn begin_generation(&mut self, _generation: u64, _previous: Option<RecordId>) {}

    /// A source says what it measures. Declaring it again replaces what it declared before.
    ///
    /// # Errors
    /// When a metric or a label policy is not acceptable.
    pub fn declare(
        &mut self,
        _source: &str,
        _version: &str,
        _metrics: Vec<sample::Metric>,
        _labels: BTreeMap<String, LabelPolicy>,
    ) -> Result<SourceKey, DeclareError> {
        Ok(SourceKey(0))
    }

    /// Where the source was when its last counted batch came.
    pub fn progress(&self, _source: &str) -> Option<&[u8]> {
        None
    }

    /// Counts the values of a batch, together with how far the source has come.
    pub fn on_batch(
        &mut self,
        _now_ms: u64,
        _source: SourceKey,
        _batch: sample::Batch,
        _progress: Vec<u8>,
    ) -> Accepted {
        Accepted::default()
    }

    /// Closes windows and intervals whose time has come.
    pub fn on_tick(&mut self, _now_ms: u64) {}

    /// When `on_tick` has something to do next.
    pub fn next_wake(&self) -> u64 {
        u64::MAX
    }

    /// What is to be spooled, in this order, together with `checkpoint()`. Call it after `on_batch` and `on_tick`.
    pub fn take_records(&mut self) -> Vec<NewRecord> {
        std::mem::take(&mut self.records)
    }

    /// Registry, open windows and intervals, open findings, progress of the sources; not the detectors.
    pub fn checkpoint(&self) -> Vec<u8> {
        Vec::new()
    }

    /// What the detectors have learnt; worth a file of its own, once an hour.
    pub fn detectors(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
