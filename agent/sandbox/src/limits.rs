//! What one plugin may use, and how often it wanted more.

use serde::{Deserialize, Serialize};

/// Bounds of one instance; the operator sets the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memory. It never shrinks: recycle the instance to give it back.
    pub memory_bytes_max: usize,
    /// One call of `describe`, `configure` or `collect`.
    pub call_ms_max: u64,
    /// Read from all sources in one call; beyond it a source is [`Fault::Exhausted`](crate::Fault::Exhausted).
    pub read_bytes_max: usize,
    /// Copied out of the plugin by one call across the border.
    pub output_bytes_max: usize,
    /// Series of one batch.
    pub series_max: usize,
    /// Samples of one batch.
    pub samples_max: usize,
    /// Labels of one series.
    pub labels_max: usize,
    /// One label.
    pub label_bytes_max: usize,
    /// Metrics of a descriptor.
    pub metrics_max: usize,
    /// One text of a descriptor or an error.
    pub text_bytes_max: usize,
    /// Log lines of one call; the rest is dropped.
    pub log_lines_max: usize,
    /// One log line; the rest of it is cut.
    pub log_bytes_max: usize,
    /// The plugin's durable state.
    pub state_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 32 * 1024 * 1024,
            call_ms_max: 250,
            read_bytes_max: 4 * 1024 * 1024,
            output_bytes_max: 8 * 1024 * 1024,
            series_max: 1_000,
            samples_max: 100_000,
            labels_max: 16,
            label_bytes_max: 256,
            metrics_max: 256,
            text_bytes_max: 1024,
            log_lines_max: 32,
            log_bytes_max: 1024,
            state_bytes_max: 64 * 1024,
        }
    }
}

/// What one instance did since it was made, or since its counters were taken, for the plugin's own metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls of `describe`, `configure` and `collect`.
    pub calls: u64,
    /// Time in them, waiting for the processor included.
    pub busy_us: u64,
    /// Linear memory now, which is also the most it ever was.
    pub memory_bytes: usize,
    /// Calls that ended in a trap, such as a panic.
    pub traps: u64,
    /// Calls that were stopped at their deadline.
    pub deadlines: u64,
    /// Calls that ended because more memory was refused.
    pub memory_refused: u64,
    /// Calls whose output was beyond a bound.
    pub oversized: u64,
    /// Calls whose output contradicted itself.
    pub malformed: u64,
    /// Calls that the plugin itself said had failed.
    pub failed: u64,
    /// Reads beyond `read_bytes_max`.
    pub reads_refused: u64,
    /// Values beyond `state_bytes_max`.
    pub states_refused: u64,
    /// Log lines beyond `log_lines_max`.
    pub log_lines_dropped: u64,
    /// Log lines beyond `log_bytes_max`.
    pub log_lines_cut: u64,
}
