//! Windows of event time that are not judged yet: a few seconds of values, by series.
//!
//! In: values. Out: the summaries of a window, once, when its time has come.

use std::collections::BTreeMap;

use tillwatch_feed::summary::Summary;

/// A row of a checkpoint without its buckets: five numbers, a score, the heads of its parts.
pub(crate) const ROW_BYTES: usize = 128;
/// A bucket of a checkpoint whose count is below 2^28.
pub(crate) const BUCKET_BYTES: usize = 4;

/// What the series did in one window.
pub(crate) type Cells = BTreeMap<u32, Summary>;

/// The open windows by their start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Windows {
    pub(crate) open: BTreeMap<u64, Cells>,
}

impl Windows {
    /// The summary of a series in the window that starts at `start_ms`.
    pub(crate) fn cell(&mut self, start_ms: u64, series: u32, histogram: bool) -> &mut Summary {
        let cells = self.open.entry(start_ms).or_default();
        cells.entry(series).or_insert_with(|| empty(histogram))
    }

    pub(crate) fn take(&mut self, start_ms: u64) -> Cells {
        self.open.remove(&start_ms).unwrap_or_default()
    }

    /// The oldest window when it starts before `before_ms`, or when more than `open_max` are open.
    pub(crate) fn take_oldest(&mut self, before_ms: u64, open_max: usize) -> Option<(u64, Cells)> {
        let start_ms = *self.open.first_key_value()?.0;
        if start_ms < before_ms || self.open.len() > open_max {
            self.open.pop_first()
        } else {
            None
        }
    }

    pub(crate) fn uses(&self, series: u32) -> bool {
        self.open.values().any(|cells| cells.contains_key(&series))
    }
}

/// Bytes that the summary takes in a checkpoint at most; none as long as nothing is in it.
pub(crate) fn cost(summary: &Summary) -> usize {
    if summary.count == 0 {
        return 0;
    }
    ROW_BYTES + BUCKET_BYTES * buckets_of(summary)
}

pub(crate) fn buckets_of(summary: &Summary) -> usize {
    let histogram = summary.histogram.as_ref();
    histogram.map_or(0, |histogram| {
        histogram.positive().counts().len() + histogram.negative().counts().len()
    })
}

pub(crate) fn empty(histogram: bool) -> Summary {
    if histogram {
        Summary::with_histogram()
    } else {
        Summary::default()
    }
}
