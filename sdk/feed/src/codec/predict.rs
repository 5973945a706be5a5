//! What a histogram says about minimum, maximum and sum, so that only the difference travels.
//!
//! In: a histogram in the metric's unit and the power of ten between unit and whole numbers. Out: predictions that are
//! the same on every machine: additions, multiplications and one rounding of doubles, in the order given here.

use crate::histogram::{Buckets, Histogram, lower_bound};

/// Largest power of ten between a metric's unit and its whole numbers.
pub(super) const EXPONENT_MAX: u32 = 9;

const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Predictions of one row in whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prediction {
    /// The lower edge of the lowest bucket.
    pub(super) min: i64,
    /// The upper edge of the highest bucket.
    pub(super) max: i64,
    /// The values between the smallest and the largest, as if each were in the middle of its bucket.
    between: i64,
}

impl Prediction {
    pub(super) fn of(histogram: &Histogram, exponent: u32) -> Prediction {
        let power = usize::try_from(exponent)
            .ok()
            .and_then(|at| POWERS.get(at))
            .copied()
            .unwrap_or(1.0);
        let (low, high) = (lowest(histogram), highest(histogram));
        let scale = histogram.scale();
        let sum = sum_of_middles(histogram.positive(), scale) - sum_of_middles(histogram.negative(), scale);
        let between = sum - (low.0 + low.1) / 2.0 - (high.0 + high.1) / 2.0;
        Prediction {
            min: whole((low.0 * power).floor()),
            max: whole((high.1 * power).ceil()),
            between: whole((between * power).floor()),
        }
    }

    /// The sum of a row whose smallest and largest value are known.
    pub(super) fn sum(self, min: i64, max: i64) -> i64 {
        self.between.wrapping_add(min).wrapping_add(max)
    }
}

/// `10^zeros`, for at most [`EXPONENT_MAX`] zeros.
pub(super) fn power_of_ten(zeros: u32) -> i64 {
    10_i64.saturating_pow(zeros.min(EXPONENT_MAX))
}

/// The sum of a row without a histogram: as if all values were halfway between the smallest and the largest.
pub(super) fn plain_sum(count: u64, min: i64, max: i64) -> i64 {
    let twice_middle = i128::from(min).wrapping_add(i128::from(max));
    cut(i128::from(count).saturating_mul(twice_middle) >> 1_u32)
}

/// The sum of `count` equal values, cut to an `i64`.
pub(super) fn equal_sum(count: u64, value: i64) -> i64 {
    cut(i128::from(count).saturating_mul(i128::from(value)))
}

/// The power of ten between unit and whole numbers that fits best; a wrong one costs bytes, not values.
pub(super) fn exponent_of(histogram: &Histogram, min: i64, max: i64) -> u32 {
    let real = lowest(histogram).0.abs().max(highest(histogram).1.abs());
    let whole = min.unsigned_abs().max(max.unsigned_abs());
    if real <= 0.0 || whole == 0 {
        return 0;
    }
    #[expect(clippy::cast_precision_loss, reason = "only the order of magnitude is used")]
    let decimals = libm::round(libm::log10(whole as f64 / real));
    (0..=EXPONENT_MAX)
        .find(|exponent| f64::from(*exponent) >= decimals)
        .unwrap_or(EXPONENT_MAX)
}

/// Both edges of the bucket with the lowest values, ascending.
fn lowest(histogram: &Histogram) -> (f64, f64) {
    if let Some((index, _)) = histogram.negative().iter().next_back() {
        let (low, high) = edges(index, histogram.scale());
        return (-high, -low);
    }
    if histogram.zero_count() > 0 {
        return (0.0, 0.0);
    }
    histogram
        .positive()
        .iter()
        .next()
        .map_or((0.0, 0.0), |(index, _)| edges(index, histogram.scale()))
}

/// Both edges of the bucket with the highest values, ascending.
fn highest(histogram: &Histogram) -> (f64, f64) {
    if let Some((index, _)) = histogram.positive().iter().next_back() {
        return edges(index, histogram.scale());
    }
    if histogram.zero_count() > 0 {
        return (0.0, 0.0);
    }
    histogram.negative().iter().next().map_or((0.0, 0.0), |(index, _)| {
        let (low, high) = edges(index, histogram.scale());
        (-high, -low)
    })
}

#[expect(clippy::cast_precision_loss, reason = "a prediction")]
fn sum_of_middles(buckets: &Buckets, scale: i32) -> f64 {
    buckets.iter().fold(0.0, |sum, (index, n)| {
        let (low, high) = edges(index, scale);
        sum + n as f64 * ((low + high) / 2.0)
    })
}

fn edges(index: i32, scale: i32) -> (f64, f64) {
    (lower_bound(index, scale), lower_bound(index.saturating_add(1), scale))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the cast saturates and gives 0 for what is no number"
)]
fn whole(real: f64) -> i64 {
    real as i64
}

fn cut(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_bracket_what_was_recorded() {
        let mut histogram = Histogram::new();
        let values = [0.210_000, 0.215_000, 0.230_000, 0.480_000];
        for value in values {
            histogram.record(value);
        }
        let prediction = Prediction::of(&histogram, 6);
        assert!((201_000..=210_000).contains(&prediction.min), "{prediction:?}");
        assert!((480_000..=502_000).contains(&prediction.max), "{prediction:?}");
        let sum = prediction.sum(210_000, 480_000);
        assert!((sum - 1_135_000_i64).abs() < 20_000, "{sum}");
        assert_eq!(exponent_of(&histogram, 210_000, 480_000), 6);
    }

    #[test]
    fn negative_values_mirror_positive_ones() {
        let (mut up, mut down) = (Histogram::new(), Histogram::new());
        for value in [1.1, 3.3, 9.9] {
            up.record(value);
            down.record(-value);
        }
        let (up, down) = (Prediction::of(&up, 0), Prediction::of(&down, 0));
        assert_eq!((up.min, up.max), (-down.max, -down.min));
    }

    #[test]
    fn sums_of_plain_rows_do_not_overflow() {
        assert_eq!(plain_sum(4, 1, 4), 10);
        assert_eq!(plain_sum(3, -2, 1), -2);
        assert_eq!(plain_sum(u64::MAX, i64::MAX, i64::MAX), i64::MAX);
        assert_eq!(equal_sum(u64::MAX, i64::MIN), i64::MIN);
        assert_eq!(equal_sum(3, -7), -21);
    }
}
