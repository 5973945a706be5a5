//! What one series did in one interval: count, sum, minimum, maximum, and for distributions a histogram.
//!
//! In: values in the metric's whole numbers. Out: a summary that merges with others in any order to the same bits.

use crate::histogram::Histogram;

/// One series in one interval. The default is the summary of nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// Their sum, in the metric's whole numbers.
    pub sum: i64,
    /// The smallest; 0 when there is none.
    pub min: i64,
    /// The largest; 0 when there is none.
    pub max: i64,
    /// Only for distributions: the values in the metric's unit.
    pub histogram: Option<Histogram>,
}

impl Summary {
    /// The summary of nothing, with a histogram to record into.
    pub fn with_histogram() -> Summary {
        Summary {
            histogram: Some(Histogram::default()),
            ..Summary::default()
        }
    }

    /// Adds one value: `value` in whole numbers, `real` in the metric's unit for the histogram, if there is one.
    ///
    /// True when the sum left the range of an `i64` and was cut to it; the caller counts this.
    pub fn record(&mut self, value: i64, real: f64) -> bool {
        if let Some(histogram) = &mut self.histogram {
            histogram.record(real);
        }
        self.add(1, value, value, value)
    }

    /// Adds another summary of the same series: exact and the same in any order, as long as no sum leaves an `i64`.
    ///
    /// True when the sum left the range of an `i64` and was cut to it; the caller counts this.
    pub fn merge(&mut self, other: &Summary) -> bool {
        match (&mut self.histogram, &other.histogram) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
        self.add(other.count, other.sum, other.min, other.max)
    }

    /// Sum divided by count, in whole numbers; `None` when there is no value.
    #[expect(clippy::cast_precision_loss, reason = "a mean is a measure; sums stay exact")]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    fn add(&mut self, count: u64, sum: i64, min: i64, max: i64) -> bool {
        if count == 0 {
            return false;
        }
        if self.count == 0 {
            (self.min, self.max) = (min, max);
        }
        self.count = self.count.saturating_add(count);
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        let exact = self.sum.checked_add(sum);
        self.sum = self.sum.saturating_add(sum);
        exact.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_knows_count_sum_and_extremes() {
        let mut summary = Summary::default();
        for value in [5, -3, 10] {
            assert!(!summary.record(value, 0.0));
        }
        assert_eq!(
            summary,
            Summary {
                count: 3,
                sum: 12,
                min: -3,
                max: 10,
                histogram: None
            }
        );
        assert_eq!(summary.mean(), Some(4.0));
        assert_eq!(Summary::default().mean(), None);
    }

    #[test]
    fn merging_nothing_changes_nothing() {
        let mut summary = Summary::default();
        summary.record(7, 0.0);
        let before = summary.clone();
        summary.merge(&Summary::default());
        assert_eq!(summary, before);
        let mut nothing = Summary::default();
        nothing.merge(&before);
        assert_eq!(nothing, before);
    }

    #[test]
    fn a_sum_that_overflows_is_cut_and_said() {
        let mut summary = Summary::default();
        assert!(!summary.record(i64::MAX, 0.0));
        assert!(summary.record(1, 0.0));
        assert_eq!(summary.sum, i64::MAX);
    }
}
