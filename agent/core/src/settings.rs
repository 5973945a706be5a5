//! What the operator decides of the state machine, its bounds, and what it says of itself.

use crate::detect::calendar::Calendar;
use crate::tally::Tally;

/// Bounds, each counted when hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configured plugins and built-in collectors.
    pub sources_max: usize,
    /// Metrics over all sources.
    pub metrics_max: usize,
    /// Series over all sources.
    pub series_max: usize,
    /// Series of one source, so that none takes the room of all.
    pub source_series_max: usize,
    /// Intervals of event time that are open at once; the oldest are flushed early.
    pub open_intervals_max: usize,
    /// Bytes of all open windows and intervals in a checkpoint; beyond it intervals are flushed early, and when that
    /// does not help values are dropped. Half of it is reserved, in equal parts, for the sources that are declared.
    pub open_bytes_max: usize,
    /// The same of one source.
    pub source_open_bytes_max: usize,
    /// Bytes of records that one batch may make at once; beyond it values of the past are dropped.
    pub batch_record_bytes_max: usize,
    /// Windows of event time that wait for being judged at once; beyond it the oldest are added up without being judged.
    pub windows_open_max: usize,
    /// After a pause of more windows than this they are added up without being judged.
    pub judged_late_max: u64,
    /// Values older than this are dropped.
    pub lateness_max_ms: u64,
    /// Values further in the future than this are dropped.
    pub ahead_max_ms: u64,
    /// A window is judged so long after its end, so that its values have come; 0 = a window and a fifth.
    /// It should be more than the longest interval between two reads of a source.
    pub close_delay_ms: u64,
}

impl Limits {
    /// Those of every store.
    pub const DEFAULT: Limits = Limits {
        sources_max: 64,
        metrics_max: 512,
        series_max: 1_000,
        source_series_max: 500,
        open_intervals_max: 240,
        open_bytes_max: 4 << 20,
        source_open_bytes_max: 2 << 20,
        batch_record_bytes_max: 4 << 20,
        windows_open_max: 64,
        judged_late_max: 30,
        lateness_max_ms: 90 * 24 * 3_600_000,
        ahead_max_ms: 5 * 60_000,
        close_delay_ms: 0,
    };

    /// What a checkpoint may hold beside the progress of the sources: what is open, names and labels.
    #[must_use]
    pub const fn checkpoint_bytes_max(&self) -> usize {
        self.open_bytes_max + self.dictionary_bytes_max()
    }

    /// What the records of one frame may hold: those of a batch, all that is open, a dictionary.
    #[must_use]
    pub const fn records_bytes_max(&self) -> usize {
        self.batch_record_bytes_max + self.open_bytes_max + self.dictionary_bytes_max()
    }

    const fn dictionary_bytes_max(&self) -> usize {
        self.series_max * SERIES_BYTES_MAX + self.metrics_max * METRIC_BYTES_MAX
    }
}

/// With its 8 labels of 64 bytes, the last reading and the state of its alarm.
const SERIES_BYTES_MAX: usize = 8 * 66 + 160;
/// With its help of 1 KiB, its other texts and 8 keys of 64 bytes.
const METRIC_BYTES_MAX: usize = 1024 + 8 * 66 + 4 * 66 + 64;

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of the windows that are judged; divides `summary_ms`.
    pub window_ms: u32,
    /// Length of the intervals that are sent.
    pub summary_ms: u32,
    /// The site's, for its daily and weekly rhythm.
    pub time_zone: jiff::tz::TimeZone,
    /// Opening hours, holidays and promotions.
    pub calendar: Calendar,
    /// Goes into every birth.
    pub agent_version: String,
    /// Bounds.
    pub limits: Limits,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Values that count.
    pub samples: u64,
    /// Values that were dropped, by reason.
    pub refused: Tally,
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
    /// Values that count.
    pub samples: u64,
    /// Values that were dropped, by reason.
    pub refused: Tally,
    /// Values that came after their window was judged; they count, but were not judged.
    pub late: u64,
    /// Windows that were added up without being judged, after a pause or with too many open.
    pub windows_not_judged: u64,
    /// Intervals that were flushed before their end because too many were open.
    pub intervals_flushed_early: u64,
    /// Sums that left the range of whole numbers and were cut.
    pub sums_cut: u64,
    /// Findings that were opened.
    pub findings: u64,
    /// Times that the clock was found to have been far ahead.
    pub clock_back: u64,
    /// A snapshot of the detectors that could not be used.
    pub detectors_refused: u64,
    /// Series of intervals that the day's bytes had no room for.
    pub rows_left_out: u64,
}
