//! Samples of one series and moment become one, when a batch grows beyond what the agent takes from one call.
//!
//! All samples of this plugin are sums until a call ends, so nothing is lost but the exact moment: first within a second,
//! then within as much as it needs.

use std::collections::BTreeMap;

use tillwatch_sdk::{Batch, Values};

/// The agent takes 100,000; a sale adds a few, and the end of a call some more.
const SAMPLES_MAX: usize = 90_000;
/// After folding, so that it does not happen at each sale.
const FOLDED_MAX: usize = SAMPLES_MAX / 2;
const STEPS_MS: [u64; 6] = [1_000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000];

/// Folds a batch that is near the bound.
pub(crate) fn to_fit(batch: &mut Batch) {
    if batch.samples() <= SAMPLES_MAX {
        return;
    }
    for step_ms in STEPS_MS {
        *batch = folded(std::mem::take(batch), step_ms);
        if batch.samples() <= FOLDED_MAX {
            return;
        }
    }
}

fn folded(batch: Batch, step_ms: u64) -> Batch {
    let mut folded = Batch::default();
    folded.more = batch.more;
    for series in batch.into_series() {
        let Values::Integers(values) = &series.values else {
            continue;
        };
        let mut sums: BTreeMap<u64, i64> = BTreeMap::new();
        for (time_ms, value) in series.times_ms.iter().zip(values) {
            let start_ms = time_ms.saturating_sub(time_ms.checked_rem(step_ms).unwrap_or(0));
            let sum = sums.entry(start_ms).or_default();
            *sum = sum.saturating_add(*value);
        }
        let (times_ms, values) = sums.into_iter().unzip();
        let labels: Vec<&str> = series.labels.iter().map(String::as_str).collect();
        folded.push_integers(series.metric, &labels, values, times_ms);
    }
    folded
}
