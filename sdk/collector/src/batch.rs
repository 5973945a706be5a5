//! Samples on their way to the host, kept in columns: a series' labels cross the border once, not once a sample.

use std::collections::BTreeMap;

/// One of the plugin's metrics: its place in `plugin.toml`.
///
/// ```
/// use tillwatch_sdk::MetricId;
///
/// // As `plugin!` makes it for the second metric of plugin.toml.
/// const QUEUE_BYTES: MetricId = MetricId::new(1);
/// assert_eq!(QUEUE_BYTES.index(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricId(u16);

impl MetricId {
    /// The metric at this place of the descriptor; `plugin!` makes these constants.
    ///
    /// ```
    /// use tillwatch_sdk::MetricId;
    ///
    /// const QUEUE_BYTES: MetricId = MetricId::new(1);
    /// assert_ne!(QUEUE_BYTES, MetricId::new(0));
    /// ```
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// The place in the descriptor's metrics.
    ///
    /// ```
    /// use tillwatch_sdk::MetricId;
    ///
    /// assert_eq!(MetricId::new(1).index(), 1);
    /// ```
    pub const fn index(self) -> u16 {
        self.0
    }
}

/// Values of one series.
///
/// ```
/// use tillwatch_sdk::{Batch, MetricId, Values};
///
/// let mut batch = Batch::default();
/// batch.push_real(MetricId::new(0), &[], 0.25, 1_772_451_000_000);
/// assert_eq!(batch.series()[0].values, Values::Reals(vec![0.25]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// In the metric's unit.
    Reals(Vec<f64>),
    /// Whole multiples of 10^-decimals of the metric's unit.
    Integers(Vec<i64>),
}

/// Samples of one metric with the same labels: as many times as values.
///
/// ```
/// use tillwatch_sdk::{Batch, MetricId};
///
/// let mut batch = Batch::default();
/// batch.push_integer(MetricId::new(0), &["till-1"], 120, 1_000);
/// batch.push_integer(MetricId::new(0), &["till-1"], 80, 2_000);
/// let [series] = batch.series() else { panic!("one metric with the same labels is one series") };
/// assert_eq!((series.labels[0].as_str(), series.times_ms.as_slice()), ("till-1", &[1_000, 2_000][..]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Which metric.
    pub metric: MetricId,
    /// In the order of the metric's label keys.
    pub labels: Vec<String>,
    /// In the order they were pushed.
    pub values: Values,
    /// UTC milliseconds of the events themselves.
    pub times_ms: Vec<u64>,
}

/// What one call of `collect` found.
///
/// ```
/// use tillwatch_sdk::{Batch, MetricId};
///
/// const SALES_AMOUNT: MetricId = MetricId::new(0);
/// const RESPONSE_TIME: MetricId = MetricId::new(1);
///
/// let mut batch = Batch::default();
/// // Money in whole minor units: 19.99 EUR with `decimals = 2`.
/// batch.push_integer(SALES_AMOUNT, &[], 1_999, 1_772_451_000_000);
/// batch.push_real(RESPONSE_TIME, &["/pay"], 0.120, 1_772_451_000_000);
/// batch.more = true;
/// assert_eq!((batch.samples(), batch.into_series().len()), (2, 2));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    series: Vec<Series>,
    /// By metric, the place in `series` that was pushed to last: often the next one's, too.
    recent: Vec<usize>,
    /// From a hash of metric, labels and form to the place in `series`.
    places: BTreeMap<u64, usize>,
    /// There is more to read at once: the host calls `collect` again, within its bounds.
    pub more: bool,
}

/// In which form a series holds its values.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Real,
    Integer,
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        (&self.series, self.more) == (&other.series, other.more)
    }
}

impl Batch {
    /// Adds a value in the metric's unit, at the UTC millisecond of its event.
    /// `labels` are in the order of the metric's label keys. Not for money: see [`Batch::push_integer`].
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, MetricId, Values};
    ///
    /// let mut batch = Batch::default();
    /// batch.push_real(MetricId::new(0), &["/pay"], 0.120, 1_772_451_000_000);
    /// assert_eq!(batch.series()[0].values, Values::Reals(vec![0.120]));
    /// ```
    pub fn push_real(&mut self, metric: MetricId, labels: &[&str], value: f64, time_ms: u64) {
        let series = self.series_of(metric, labels, Form::Real);
        if let Values::Reals(reals) = &mut series.values {
            reals.push(value);
            series.times_ms.push(time_ms);
        }
    }

    /// Adds a value as a whole number of 10^-decimals of the metric's unit, such as cents of euros.
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, MetricId, Values};
    ///
    /// let mut batch = Batch::default();
    /// // 19.99 EUR of a metric with `decimals = 2` and `currency = "EUR"`.
    /// batch.push_integer(MetricId::new(0), &[], 1_999, 1_772_451_000_000);
    /// assert_eq!(batch.series()[0].values, Values::Integers(vec![1_999]));
    /// ```
    pub fn push_integer(&mut self, metric: MetricId, labels: &[&str], value: i64, time_ms: u64) {
        let series = self.series_of(metric, labels, Form::Integer);
        if let Values::Integers(integers) = &mut series.values {
            integers.push(value);
            series.times_ms.push(time_ms);
        }
    }

    /// Adds whole numbers of one series at once, each with its time: for what is read in bulk, where finding the series
    /// for each value would cost more than reading it. Beyond the shorter of both nothing is taken.
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, MetricId};
    ///
    /// let mut batch = Batch::default();
    /// batch.push_integers(MetricId::new(0), &["till-1"], vec![120, 80], vec![1_000, 2_000]);
    /// assert_eq!((batch.samples(), batch.series().len()), (2, 1));
    /// ```
    pub fn push_integers(&mut self, metric: MetricId, labels: &[&str], mut values: Vec<i64>, mut times_ms: Vec<u64>) {
        values.truncate(times_ms.len());
        times_ms.truncate(values.len());
        let series = self.series_of(metric, labels, Form::Integer);
        match &mut series.values {
            Values::Integers(integers) if integers.is_empty() => {
                *integers = values;
                series.times_ms = times_ms;
            }
            Values::Integers(integers) => {
                integers.append(&mut values);
                series.times_ms.append(&mut times_ms);
            }
            Values::Reals(_) => {}
        }
    }

    /// The series in the order of their first sample.
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, MetricId};
    ///
    /// let mut batch = Batch::default();
    /// batch.push_integer(MetricId::new(3), &["till-1"], 120, 1_000);
    /// assert_eq!(batch.series()[0].metric, MetricId::new(3));
    /// ```
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// The series, for the host.
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, MetricId};
    ///
    /// let mut batch = Batch::default();
    /// batch.push_integer(MetricId::new(0), &["till-1"], 120, 1_000);
    /// let times: Vec<u64> = batch.into_series().into_iter().flat_map(|series| series.times_ms).collect();
    /// assert_eq!(times, [1_000]);
    /// ```
    pub fn into_series(self) -> Vec<Series> {
        self.series
    }

    /// Samples of all series.
    ///
    /// ```
    /// use tillwatch_sdk::{Batch, MetricId};
    ///
    /// let mut batch = Batch::default();
    /// batch.push_integer(MetricId::new(0), &["till-1"], 120, 1_000);
    /// batch.push_integer(MetricId::new(0), &["till-2"], 80, 2_000);
    /// assert_eq!(batch.samples(), 2);
    /// ```
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.times_ms.len()).sum()
    }

    fn series_of(&mut self, metric: MetricId, labels: &[&str], form: Form) -> &mut Series {
        let place = self.place_of(metric, labels, form);
        &mut self.series[place]
    }

    fn place_of(&mut self, metric: MetricId, labels: &[&str], form: Form) -> usize {
        let recent = usize::from(metric.index());
        if let Some(place) = self.recent.get(recent).copied()
            && let Some(series) = self.series.get(place)
            && is_series(series, metric, labels, form)
        {
            return place;
        }
        let place = self.find_or_begin(metric, labels, form);
        if self.recent.len() <= recent {
            self.recent.resize(recent + 1, 0);
        }
        self.recent[recent] = place;
        place
    }

    fn find_or_begin(&mut self, metric: MetricId, labels: &[&str], form: Form) -> usize {
        let mut key = hash(metric, labels, form);
        // Two series with one hash lie at neighboring keys.
        while let Some(place) = self.places.get(&key).copied() {
            if is_series(&self.series[place], metric, labels, form) {
                return place;
            }
            key = key.wrapping_add(1);
        }
        self.places.insert(key, self.series.len());
        self.series.push(Series {
            metric,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            values: match form {
                Form::Real => Values::Reals(Vec::new()),
                Form::Integer => Values::Integers(Vec::new()),
            },
            times_ms: Vec::new(),
        });
        self.series.len() - 1
    }
}

fn is_series(series: &Series, metric: MetricId, labels: &[&str], form: Form) -> bool {
    let same_form = matches!(
        (&series.values, form),
        (Values::Reals(_), Form::Real) | (Values::Integers(_), Form::Integer)
    );
    same_form && series.metric == metric && series.labels == labels
}

/// FNV-1a. Source: RFC 9923, section 2.
fn hash(metric: MetricId, labels: &[&str], form: Form) -> u64 {
    let [high, low] = metric.index().to_be_bytes();
    let head = [high, low, form as u8];
    let bytes = labels.iter().flat_map(|label| label.bytes().chain([0xff]));
    head.into_iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: MetricId = MetricId::new(0);
    const AGE: MetricId = MetricId::new(1);

    #[test]
    fn samples_of_one_series_share_a_column() {
        let mut batch = Batch::default();
        batch.push_real(DEPTH, &["a"], 1.0, 10);
        batch.push_real(DEPTH, &["b"], 2.0, 11);
        batch.push_real(DEPTH, &["a"], 3.0, 12);
        batch.push_real(AGE, &["a"], 4.0, 13);
        let columns: Vec<_> = batch
            .series()
            .iter()
            .map(|s| (s.labels[0].as_str(), s.times_ms.clone()))
            .collect();
        assert_eq!(columns, [("a", vec![10, 12]), ("b", vec![11]), ("a", vec![13])]);
        assert_eq!(batch.samples(), 4);
    }

    #[test]
    fn reals_and_integers_of_one_metric_lie_apart() {
        let mut batch = Batch::default();
        batch.push_real(DEPTH, &[], 1.5, 10);
        batch.push_integer(DEPTH, &[], 2, 11);
        assert_eq!(batch.series().len(), 2);
        assert_eq!(batch.series()[1].values, Values::Integers(vec![2]));
    }

    #[test]
    fn columns_pushed_at_once_are_as_pushed_one_by_one() {
        let (mut at_once, mut one_by_one) = (Batch::default(), Batch::default());
        for (values, times_ms) in [
            (vec![1, 2], vec![10, 11]),
            (vec![3], vec![12, 13]),
            (vec![4, 5], vec![14]),
        ] {
            for (value, time_ms) in values.iter().zip(&times_ms) {
                one_by_one.push_integer(DEPTH, &["a"], *value, *time_ms);
            }
            at_once.push_integers(DEPTH, &["a"], values, times_ms);
        }
        assert_eq!(at_once, one_by_one);
    }

    #[test]
    fn labels_that_only_concatenate_alike_are_two_series() {
        let mut batch = Batch::default();
        batch.push_integer(DEPTH, &["ab", "c"], 1, 10);
        batch.push_integer(DEPTH, &["a", "bc"], 1, 10);
        assert_eq!(batch.series().len(), 2);
    }

    #[test]
    fn series_whose_hashes_collide_stay_apart() {
        let mut batch = Batch::default();
        batch.push_integer(DEPTH, &["first"], 1, 10);
        let taken = hash(DEPTH, &["second"], Form::Integer);
        batch.places.insert(taken, 0);
        batch.push_integer(DEPTH, &["second"], 2, 11);
        batch.push_integer(DEPTH, &["second"], 3, 12);
        assert_eq!(batch.series()[1].values, Values::Integers(vec![2, 3]));
    }
}
