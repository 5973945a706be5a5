//! The OpenTelemetry exponential histogram at a fixed scale, so that merging is vector addition.
//!
//! In: finite values in the metric's unit. Out: counts per bucket and quantiles within [`RELATIVE_ERROR_MAX`].
//! It never loses a value by merging, and merging in any order gives the same bits: scale and counts depend only on
//! the values that went in. Source: OpenTelemetry metrics data model, "ExponentialHistogram".
//!
//! At scale `s` bucket `i` holds `base^i < |value| <= base^(i + 1)` with `base = 2^(2^-s)`.

/// Why parts are no histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// The scale is outside [`SCALE_MIN`] to [`SCALE_DEFAULT`].
    #[error("histogram scale {0} is outside {SCALE_MIN}..={SCALE_DEFAULT}")]
    Scale(i32),
    /// There are more than [`BUCKETS_MAX`] buckets of one sign.
    #[error("{0} buckets are more than {BUCKETS_MAX}")]
    Buckets(usize),
    /// A bucket lies outside the range of finite numbers.
    #[error("bucket offset {0} is outside the range of finite numbers")]
    Offset(i32),
}

/// The scale that every histogram starts at: 16 buckets for each power of two.
pub const SCALE_DEFAULT: i32 = 4;

/// The smallest scale: one bucket for each sign and side of 1.
pub const SCALE_MIN: i32 = -10;

/// Most buckets of one sign, holes included; 20 powers of two at the default scale. Beyond, the scale goes down.
pub const BUCKETS_MAX: usize = 320;

/// Largest relative error of a quantile at the default scale: `(base - 1) / (base + 1)`.
pub const RELATIVE_ERROR_MAX: f64 = 0.02167;

/// Index of the buckets that hold the smallest and the largest normal number, at the default scale.
const INDEX_MIN: i32 = -1022 * 16 - 1;
const INDEX_MAX: i32 = 1024 * 16 - 1;

/// `2^(k / 16)`, rounded to the nearest double. This table, not a logarithm, decides where a value belongs, so that
/// all machines agree.
const BOUNDS: [f64; 16] = [
    1.0,
    1.0442737824274138,
    1.0905077326652577,
    1.1387886347566916,
    1.189207115002721,
    1.241857812073484,
    1.2968395546510096,
    1.3542555469368927,
    std::f64::consts::SQRT_2,
    1.4768261459394993,
    1.5422108254079407,
    1.6104903319492543,
    1.681792830507429,
    1.7562521603732995,
    1.8340080864093424,
    1.9152065613971474,
];

/// The buckets of one sign: `counts[k]` belongs to bucket `offset + k`. First and last count are never 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    offset: i32,
    counts: Vec<u64>,
}

/// Counts of values by magnitude. The default is empty, at [`SCALE_DEFAULT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    scale: i32,
    zero_count: u64,
    positive: Buckets,
    negative: Buckets,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            scale: SCALE_DEFAULT,
            zero_count: 0,
            positive: Buckets::default(),
            negative: Buckets::default(),
        }
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Puts a histogram together from what another program sent.
    ///
    /// # Errors
    /// When scale, number or position of the buckets are outside what this version can hold.
    pub fn from_parts(
        scale: i32,
        zero_count: u64,
        positive: Buckets,
        negative: Buckets,
    ) -> Result<Histogram, HistogramError> {
        if !(SCALE_MIN..=SCALE_DEFAULT).contains(&scale) {
            return Err(HistogramError::Scale(scale));
        }
        positive.check(scale)?;
        negative.check(scale)?;
        Ok(Histogram {
            scale,
            zero_count,
            positive,
            negative,
        })
    }

    /// Counts one value; false when it is not finite and was left out.
    pub fn record(&mut self, value: f64) -> bool {
        self.record_n(value, 1)
    }

    /// Counts one value `n` times; false when it is not finite and was left out.
    pub fn record_n(&mut self, value: f64, n: u64) -> bool {
        if !value.is_finite() {
            return false;
        }
        let magnitude = value.abs();
        if magnitude < f64::MIN_POSITIVE {
            self.zero_count = self.zero_count.saturating_add(n);
        } else if n > 0 {
            let one = Buckets {
                offset: index_of(magnitude) >> (SCALE_DEFAULT - self.scale),
                counts: vec![n],
            };
            let nothing = Buckets::default();
            let (positive, negative) = if value > 0.0 {
                (&one, &nothing)
            } else {
                (&nothing, &one)
            };
            self.add(self.scale, positive, negative);
        }
        true
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.add(other.scale, &other.positive, &other.negative);
    }

    /// The value below or at which the share `q` of all values lies, within [`RELATIVE_ERROR_MAX`] at the default
    /// scale; `None` when the histogram is empty or `q` is not within 0 to 1.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let mut left = rank(q, count);
        for (index, n) in self.negative.iter().rev() {
            if left <= n {
                return Some(-middle(index, self.scale));
            }
            left -= n;
        }
        if left <= self.zero_count {
            return Some(0.0);
        }
        left -= self.zero_count;
        for (index, n) in self.positive.iter() {
            if left <= n {
                return Some(middle(index, self.scale));
            }
            left -= n;
        }
        // Only counts that were cut to u64::MAX lead here.
        None
    }

    /// How many values were counted; cut to `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.zero_count
            .saturating_add(self.positive.count())
            .saturating_add(self.negative.count())
    }

    /// The scale: [`SCALE_DEFAULT`] unless the values span too many powers of two.
    pub fn scale(&self) -> i32 {
        self.scale
    }

    /// How many values were 0, or too small for a normal number.
    pub fn zero_count(&self) -> u64 {
        self.zero_count
    }

    /// The buckets of values above 0.
    pub fn positive(&self) -> &Buckets {
        &self.positive
    }

    /// The buckets of values below 0, by magnitude.
    pub fn negative(&self) -> &Buckets {
        &self.negative
    }

    /// Was nothing counted?
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn add(&mut self, scale: i32, positive: &Buckets, negative: &Buckets) {
        let common = self.scale.min(scale);
        let (mine, theirs) = (self.scale - common, scale - common);
        let excess = excess(&self.positive, mine, positive, theirs).max(excess(&self.negative, mine, negative, theirs));
        self.scale = common - excess;
        self.positive.downscale(mine + excess);
        self.negative.downscale(mine + excess);
        self.positive.add(positive, theirs + excess);
        self.negative.add(negative, theirs + excess);
    }
}

impl Buckets {
    /// Buckets from `offset` on; empty ones at both ends are cut off.
    pub fn new(offset: i32, mut counts: Vec<u64>) -> Buckets {
        let empty = counts.iter().take_while(|n| **n == 0).count();
        if empty == counts.len() {
            return Buckets::default();
        }
        counts.drain(..empty);
        while counts.last() == Some(&0) {
            counts.pop();
        }
        Buckets {
            offset: offset.saturating_add(i32::try_from(empty).unwrap_or(i32::MAX)),
            counts,
        }
    }

    /// Index of the first bucket; 0 when there is none.
    pub fn offset(&self) -> i32 {
        self.offset
    }

    /// Counts from the first bucket that is not empty to the last.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Index and count of each bucket, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, u64)> + ExactSizeIterator + '_ {
        self.counts
            .iter()
            .enumerate()
            .map(|(at, n)| (self.offset + small(at), *n))
    }

    fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    fn last(&self) -> i32 {
        self.offset + small(self.counts.len()) - 1
    }

    fn check(&self, scale: i32) -> Result<(), HistogramError> {
        if self.counts.len() > BUCKETS_MAX {
            return Err(HistogramError::Buckets(self.counts.len()));
        }
        let finite = (INDEX_MIN >> (SCALE_DEFAULT - scale))..=(INDEX_MAX >> (SCALE_DEFAULT - scale));
        let inside = finite.contains(&self.offset) && finite.contains(&self.last());
        if self.counts.is_empty() || inside {
            Ok(())
        } else {
            Err(HistogramError::Offset(self.offset))
        }
    }

    fn downscale(&mut self, by: i32) {
        if by > 0 && !self.counts.is_empty() {
            let mut coarse = Buckets::default();
            coarse.add(self, by);
            *self = coarse;
        }
    }

    /// Adds buckets whose scale is `by` steps finer. The caller has made sure that the result is small enough.
    fn add(&mut self, other: &Buckets, by: i32) {
        if other.counts.is_empty() {
            return;
        }
        let (first, last) = (other.offset >> by, other.last() >> by);
        if self.counts.is_empty() {
            self.offset = first;
        }
        if first < self.offset {
            let missing = size(self.offset - first);
            self.counts.splice(..0, std::iter::repeat_n(0, missing));
            self.offset = first;
        }
        let needed = size(last - self.offset + 1);
        if self.counts.len() < needed {
            self.counts.resize(needed, 0);
        }
        for (index, n) in other.iter() {
            let count = &mut self.counts[size((index >> by) - self.offset)];
            *count = count.saturating_add(n);
        }
    }
}

/// By how many steps both must be coarser, beyond the given ones, to have at most [`BUCKETS_MAX`] buckets together.
fn excess(a: &Buckets, a_by: i32, b: &Buckets, b_by: i32) -> i32 {
    let ends =
        |buckets: &Buckets, by: i32| (!buckets.counts.is_empty()).then(|| (buckets.offset >> by, buckets.last() >> by));
    let (first, last) = match (ends(a, a_by), ends(b, b_by)) {
        (Some(a), Some(b)) => (a.0.min(b.0), a.1.max(b.1)),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => return 0,
    };
    (0..)
        .find(|by| size((last >> by) - (first >> by)) < BUCKETS_MAX)
        .unwrap_or(0)
}

/// The bucket of a positive normal number at the default scale.
fn index_of(magnitude: f64) -> i32 {
    let bits = magnitude.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    exponent * 16 + small(BOUNDS.partition_point(|bound| *bound < mantissa)) - 1
}

/// The lower bound of a bucket, within the range of normal numbers.
pub(crate) fn lower_bound(index: i32, scale: i32) -> f64 {
    let fine = i64::from(index) << (SCALE_DEFAULT - scale);
    // The power of two from its bits: below the largest, this is exact.
    let exponent = u64::try_from((fine >> 4).clamp(-1022, 1024) + 1023).unwrap_or(0);
    if exponent > 2046 {
        return f64::MAX;
    }
    BOUNDS[usize::try_from(fine & 15).unwrap_or(0)] * f64::from_bits(exponent << 52)
}

/// The value whose relative distance to both bounds of a bucket is the same: their harmonic mean.
fn middle(index: i32, scale: i32) -> f64 {
    2.0 / (1.0 / lower_bound(index, scale) + 1.0 / lower_bound(index + 1, scale))
}

/// The place, from 1 on, of the value at share `q` of `count` sorted ones.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank beyond 2^53 may be off by its last bits; casts from floats saturate"
)]
fn rank(q: f64, count: u64) -> u64 {
    ((q * count as f64).ceil() as u64).clamp(1, count)
}

/// A place among at most [`BUCKETS_MAX`] buckets.
fn small(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

fn size(distance: i32) -> usize {
    usize::try_from(distance).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::new();
        for value in values {
            assert!(histogram.record(*value));
        }
        histogram
    }

    #[test]
    fn every_edge_is_the_double_that_the_format_names() {
        for fine in 16 * -1030..=16 * 1030 {
            let exponent = (fine >> 4).clamp(-1022, 1024);
            let named = libm::ldexp(BOUNDS[usize::try_from(fine & 15).unwrap()], exponent);
            let named = named.clamp(f64::MIN_POSITIVE, f64::MAX);
            assert_eq!(lower_bound(fine, SCALE_DEFAULT).to_bits(), named.to_bits(), "{fine}");
        }
    }

    #[test]
    fn a_power_of_the_base_belongs_to_the_bucket_below_it() {
        assert_eq!(of(&[1.0]).positive().offset(), -1);
        assert_eq!(of(&[1.0000001]).positive().offset(), 0);
        assert_eq!(of(&[2.0]).positive().offset(), 15);
        assert_eq!(of(&[-0.5]).negative().offset(), -17);
    }

    #[test]
    fn the_ends_of_the_number_line_have_buckets() {
        assert_eq!(of(&[f64::MIN_POSITIVE]).positive().offset(), INDEX_MIN);
        assert_eq!(of(&[f64::MAX]).positive().offset(), INDEX_MAX);
        let both = of(&[f64::MIN_POSITIVE, f64::MAX, 0.0, -1.0]);
        assert_eq!((both.count(), both.scale()), (4, -3));
        assert!(both.quantile(1.0).is_some_and(|q| q.is_finite() && q > 1.0));
    }

    #[test]
    fn what_is_no_number_is_left_out_and_said() {
        let mut histogram = Histogram::new();
        assert!(!histogram.record(f64::NAN) && !histogram.record(f64::INFINITY));
        assert!(histogram.is_empty() && histogram.quantile(0.5).is_none());
    }

    #[test]
    fn quantiles_cross_negative_zero_and_positive() {
        let histogram = of(&[-4.0, -1.0, 0.0, 1.0, 4.0]);
        let near = |q: f64, expected: f64| {
            let got = histogram.quantile(q).unwrap();
            assert!(
                (got - expected).abs() <= expected.abs() * RELATIVE_ERROR_MAX,
                "{q}: {got} for {expected}"
            );
        };
        near(0.0, -4.0);
        near(0.4, -1.0);
        near(0.6, 0.0);
        near(0.8, 1.0);
        near(1.0, 4.0);
        assert_eq!(histogram.quantile(f64::NAN), None);
    }

    #[test]
    fn too_many_buckets_halve_the_scale_and_keep_the_count() {
        let histogram = of(&[1.5, 3e6]);
        assert_eq!((histogram.scale(), histogram.count()), (3, 2));
        let narrow = of(&[1.5, 1e6]);
        assert_eq!(narrow.scale(), SCALE_DEFAULT);
        assert!(narrow.positive().counts().len() <= BUCKETS_MAX);
    }

    #[test]
    fn foreign_parts_are_checked() {
        let parts =
            |scale, offset, counts| Histogram::from_parts(scale, 0, Buckets::new(offset, counts), Buckets::default());
        assert_eq!(parts(5, 0, vec![1]), Err(HistogramError::Scale(5)));
        assert_eq!(parts(4, 0, vec![1; 321]), Err(HistogramError::Buckets(321)));
        assert_eq!(parts(4, 16384, vec![1]), Err(HistogramError::Offset(16384)));
        assert_eq!(parts(4, i32::MAX, vec![1; 3]), Err(HistogramError::Offset(i32::MAX)));
        assert_eq!(
            parts(4, -2, vec![0, 1, 0]).unwrap().positive(),
            &Buckets {
                offset: -1,
                counts: vec![1]
            }
        );
    }
}
