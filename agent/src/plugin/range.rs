//! The ranges that plugin.toml declares for the values of metrics: what lies outside is dropped and counted.
//!
//! In: a batch as the plugin said it. Out: the same without such values. A card number is no amount of a store's sales,
//! and a duration of years none of its tills.

use std::collections::BTreeMap;

use tillwatch_core::sample::{Batch, Metric, Series, Values};
use tillwatch_core::value::scale_of;

/// By the metric's name.
pub type Ranges = BTreeMap<String, Range>;

/// In the metric's unit, both ends within.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub min: f64,
    pub max: f64,
}

/// Takes out what lies outside, and says how much that was.
pub fn keep_within(ranges: &Ranges, metrics: &[Metric], batch: &mut Batch) -> u64 {
    let dropped = batch.series.iter_mut().map(|series| {
        let metric = metrics.get(usize::from(series.metric));
        let range = metric.and_then(|metric| Some((metric, ranges.get(&metric.name)?)));
        range.map_or(0, |(metric, range)| keep(series, metric, *range))
    });
    dropped.sum()
}

fn keep(series: &mut Series, metric: &Metric, range: Range) -> u64 {
    let is_within = |value: f64| (range.min..=range.max).contains(&value);
    let scale = scale_of(metric.decimals);
    #[expect(clippy::cast_precision_loss, reason = "for comparing only")]
    let kept: Vec<bool> = match &series.values {
        Values::Reals(reals) => reals.iter().map(|real| is_within(*real)).collect(),
        Values::Integers(integers) => integers.iter().map(|whole| is_within(*whole as f64 / scale)).collect(),
    };
    let dropped = kept.iter().filter(|kept| !**kept).count();
    if dropped > 0 {
        match &mut series.values {
            Values::Reals(reals) => retain(reals, &kept),
            Values::Integers(integers) => retain(integers, &kept),
        }
        retain(&mut series.times_ms, &kept);
    }
    dropped as u64
}

/// Of times without a value nothing is known: they stay, and are refused as what they are.
fn retain<T>(items: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    items.retain(|_item| kept.next().copied().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_core::sample::Kind;

    #[test]
    fn values_outside_go_with_their_times_and_the_rest_stays() {
        let metric = |name| crate::source::system::metric(name, "s", Kind::Gauge, 2, &[], "");
        let metrics = [metric("a"), metric("b")];
        let ranges = Ranges::from([("a".to_owned(), Range { min: 0.0, max: 10.0 })]);
        let series = |metric, values| Series {
            metric,
            labels: Vec::new(),
            values,
            times_ms: vec![1, 2, 3, 4],
        };
        let whole = || Values::Integers(vec![-1, 0, 1_000, 1_001]);
        let real = Values::Reals(vec![f64::NAN, 10.0, 10.1, f64::NEG_INFINITY]);
        let mut batch = Batch {
            series: vec![series(0, whole()), series(0, real), series(1, whole())],
            ..Batch::default()
        };
        assert_eq!(keep_within(&ranges, &metrics, &mut batch), 5);
        assert_eq!(batch.series[0].values, Values::Integers(vec![0, 1_000]));
        assert_eq!(batch.series[0].times_ms, [2, 3]);
        assert_eq!(batch.series[1].values, Values::Reals(vec![10.0]));
        assert_eq!(batch.series[1].times_ms, [2]);
        assert_eq!(batch.series[2].values, whole());
    }
}
