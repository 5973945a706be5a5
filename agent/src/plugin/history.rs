//! How much a batch tells of the past: what comes late opens its intervals anew, and fills the spool that all share.
//!
//! In: a batch as the plugin reported it. Out: about how many bytes of records it becomes. What is of now is not counted:
//! the series of a source bound it.

use tillwatch_core::sample::{Batch, Kind, Metric, Series, Values};
use tillwatch_feed::histogram::BUCKETS_MAX;

/// Whatever is younger shares its interval with the live values.
const PAST_MS: u64 = 300_000;
const INTERVAL_MS: u64 = 60_000;
const ROW_BYTES: u64 = 32;
const BUCKETS_PER_DOUBLING: u64 = 16;

/// About how many bytes of records the values of the past become.
#[must_use]
pub(super) fn history_bytes(batch: &Batch, metrics: &[Metric], now_ms: u64) -> u64 {
    let of_series = |series: &Series| {
        let metric = metrics.get(usize::from(series.metric));
        let is_wide = metric.is_some_and(|metric| metric.kind == Kind::Distribution);
        series_bytes(series, is_wide, now_ms)
    };
    batch.series.iter().map(of_series).sum()
}

fn series_bytes(series: &Series, is_wide: bool, now_ms: u64) -> u64 {
    let mut bytes = 0;
    let mut row: Option<(u64, Row)> = None;
    for (at, time_ms) in series.times_ms.iter().enumerate() {
        if time_ms.saturating_add(PAST_MS) >= now_ms {
            continue;
        }
        let interval = time_ms / INTERVAL_MS;
        let begun = row.take_if(|(of, _row)| *of != interval);
        bytes += begun.map_or(0, |(_of, row)| row.bytes());
        let (_of, row) = row.get_or_insert_with(|| (interval, Row::default()));
        if is_wide {
            row.add(value(&series.values, at));
        }
    }
    bytes + row.map_or(0, |(_of, row)| row.bytes())
}

#[expect(clippy::cast_precision_loss, reason = "only its magnitude matters")]
fn value(values: &Values, at: usize) -> f64 {
    match values {
        Values::Reals(reals) => reals.get(at).copied().unwrap_or(0.0),
        Values::Integers(integers) => integers.get(at).copied().unwrap_or(0) as f64,
    }
}

/// The powers of two that the positive and the negative values of one interval span.
#[derive(Default)]
struct Row {
    positive: Option<(u64, u64)>,
    negative: Option<(u64, u64)>,
}

impl Row {
    fn add(&mut self, value: f64) {
        let exponent = value.abs().to_bits() >> (f64::MANTISSA_DIGITS - 1);
        let span = if value > 0.0 {
            &mut self.positive
        } else if value < 0.0 {
            &mut self.negative
        } else {
            return;
        };
        let (first, last) = span.get_or_insert((exponent, exponent));
        *first = exponent.min(*first);
        *last = exponent.max(*last);
    }

    fn bytes(&self) -> u64 {
        let buckets = |span: &(u64, u64)| (span.1 - span.0 + 1) * BUCKETS_PER_DOUBLING;
        let spans = [&self.positive, &self.negative].into_iter().flatten();
        ROW_BYTES + spans.map(|span| buckets(span).min(BUCKETS_MAX as u64)).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::system::metric;

    const NOW_MS: u64 = 1_772_451_000_000;

    fn bytes(kind: Kind, values: Values, times_ms: Vec<u64>) -> u64 {
        let metrics = [metric("x", "1", kind, 3, &[], "")];
        let series = Series {
            metric: 0,
            labels: Vec::new(),
            values,
            times_ms,
        };
        let batch = Batch {
            series: vec![series],
            ..Batch::default()
        };
        history_bytes(&batch, &metrics, NOW_MS)
    }

    #[test]
    fn each_minute_of_the_past_counts_once_and_what_is_of_now_does_not() {
        let past = NOW_MS - 86_400_000;
        let times = vec![past, past + 1, past + 60_000, NOW_MS, NOW_MS - 200_000];
        let values = Values::Integers(vec![1; 5]);
        assert_eq!(bytes(Kind::Sum, values, times), 2 * ROW_BYTES);
    }

    #[test]
    fn a_distribution_counts_by_the_buckets_that_its_values_span() {
        let past = vec![NOW_MS - 86_400_000; 4];
        let narrow = Values::Reals(vec![1.0, 1.5, 0.0, 1.9]);
        assert_eq!(bytes(Kind::Distribution, narrow, past.clone()), ROW_BYTES + 16);
        let wide = Values::Reals(vec![1e-9, 1e9, -1e-9, -1e9]);
        assert_eq!(bytes(Kind::Distribution, wide.clone(), past.clone()), ROW_BYTES + 640);
        assert_eq!(bytes(Kind::Gauge, wide, past), ROW_BYTES);
    }
}
