//! What one plugin may use, and how often it wanted more.

use serde::{Deserialize, Serialize};

/// Bounds of one instance; the operator sets the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memory. It never shrinks: recycle the instance to give it back.
    pub memory_bytes_max: usize,
    /// A processor's time for one call of `describe`, `configure` or `collect`; it may wait 10 s longer for one.
    pub call_ms_max: u64,
    /// The agent's own time for one call, such as a slow disk's; beyond it sources are exhausted, too.
    pub host_ms_max: u64,
    /// Read from all sources in one call; beyond it a source is [`Fault::Exhausted`](crate::Fault::Exhausted).
    pub read_bytes_max: usize,
    /// Questions to sources in one call; beyond it they are exhausted, too.
    pub asks_max: usize,
    /// Questions to peers over the network in one call; beyond it they are exhausted.
    pub peer_asks_max: usize,
    /// Waiting for peers in one call, none of which counts as the call's own time; beyond it they are exhausted.
    pub peer_ms_max: u64,
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

impl Limits {
    /// Those of a plugin whose operator set none.
    pub const DEFAULT: Self = Self {
        memory_bytes_max: 32 * 1024 * 1024,
        call_ms_max: 250,
        host_ms_max: 5_000,
        read_bytes_max: 4 * 1024 * 1024,
        asks_max: 4_096,
        peer_asks_max: 16,
        peer_ms_max: 10_000,
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
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a plugin did since its counters were taken last, for its own metrics. Most of it is the sandbox's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// A processor's time in calls, by the kernel's count, which is some milliseconds old while a thread runs.
    pub busy_us: u64,
    /// Linear memory now, which is also the most it ever was.
    pub memory_bytes: usize,
    /// What was executed, in the engine's fuel, about one for each instruction; 0 when the code is not metered.
    pub fuel: u64,
    /// Reads beyond `read_bytes_max`.
    pub reads_refused: u64,
    /// Questions beyond `asks_max`.
    pub asks_refused: u64,
    /// Questions beyond `host_ms_max`.
    pub host_refused: u64,
    /// Questions beyond `peer_asks_max` and `peer_ms_max`.
    pub peers_refused: u64,
    /// Values beyond `state_bytes_max`.
    pub states_refused: u64,
    /// Log lines beyond `log_lines_max`.
    pub log_lines_dropped: u64,
    /// Log lines beyond `log_bytes_max`.
    pub log_lines_cut: u64,
}

impl Counters {
    /// The memory is as it was last, all else sums up.
    pub(crate) fn add(&mut self, other: &Self) {
        self.memory_bytes = other.memory_bytes;
        for (sum, other) in [
            (&mut self.busy_us, other.busy_us),
            (&mut self.fuel, other.fuel),
            (&mut self.reads_refused, other.reads_refused),
            (&mut self.asks_refused, other.asks_refused),
            (&mut self.host_refused, other.host_refused),
            (&mut self.peers_refused, other.peers_refused),
            (&mut self.states_refused, other.states_refused),
            (&mut self.log_lines_dropped, other.log_lines_dropped),
            (&mut self.log_lines_cut, other.log_lines_cut),
        ] {
            *sum = sum.saturating_add(other);
        }
    }
}
