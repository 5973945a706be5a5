//! What a plugin says, held against its bounds: by the sandbox before it is sent, by the agent after it came.

use tillwatch_core::sample::{Batch, Descriptor, Metric, Series, Values};

use crate::{Bound, CallError, Limits};

/// Fails when a bound is passed.
fn within(bound: Bound, found: usize, limit: usize) -> Result<(), CallError> {
    if found > limit {
        Err(CallError::Oversized { bound, found, limit })
    } else {
        Ok(())
    }
}

/// # Errors
/// When a batch is larger than allowed, or contradicts itself.
pub fn check_batch(batch: &Batch, limits: &Limits) -> Result<(), CallError> {
    within(Bound::Series, batch.series.len(), limits.series_max)?;
    let samples = batch.series.iter().map(|series| series.times_ms.len()).sum();
    within(Bound::Samples, samples, limits.samples_max)?;
    batch.series.iter().try_for_each(|series| check_series(series, limits))
}

fn check_series(series: &Series, limits: &Limits) -> Result<(), CallError> {
    within(Bound::Labels, series.labels.len(), limits.labels_max)?;
    for label in &series.labels {
        within(Bound::LabelBytes, label.len(), limits.label_bytes_max)?;
    }
    let count = match &series.values {
        Values::Reals(reals) => reals.len(),
        Values::Integers(integers) => integers.len(),
    };
    if count == series.times_ms.len() {
        Ok(())
    } else {
        Err(CallError::Malformed {
            reason: "a series has not as many times as values",
        })
    }
}

/// # Errors
/// When a descriptor is larger than allowed.
pub fn check_descriptor(descriptor: &Descriptor, limits: &Limits) -> Result<(), CallError> {
    within(Bound::Metrics, descriptor.metrics.len(), limits.metrics_max)?;
    within(Bound::Labels, descriptor.attrs.len(), limits.labels_max)?;
    let attrs = descriptor.attrs.iter().flat_map(|(key, value)| [key, value]);
    check_texts([&descriptor.name, &descriptor.version].into_iter().chain(attrs), limits)?;
    descriptor
        .metrics
        .iter()
        .try_for_each(|metric| check_metric(metric, limits))
}

fn check_metric(metric: &Metric, limits: &Limits) -> Result<(), CallError> {
    within(Bound::Labels, metric.label_keys.len(), limits.labels_max)?;
    let own = [&metric.name, &metric.unit, &metric.help, &metric.role];
    check_texts(
        own.into_iter().chain(&metric.label_keys).chain(&metric.currency),
        limits,
    )
}

fn check_texts<'a>(mut texts: impl Iterator<Item = &'a String>, limits: &Limits) -> Result<(), CallError> {
    texts.try_for_each(|text| within(Bound::TextBytes, text.len(), limits.text_bytes_max))
}

/// The first bytes of a text, never half a character.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_series(labels: Vec<String>, values: Vec<f64>, times_ms: Vec<u64>) -> Batch {
        let series = Series {
            metric: 0,
            labels,
            values: Values::Reals(values),
            times_ms,
        };
        Batch {
            series: vec![series],
            ..Batch::default()
        }
    }

    #[test]
    fn each_bound_of_a_batch_is_named() {
        let limits = Limits::default();
        let series_max = Limits {
            series_max: 0,
            ..limits
        };
        let samples_max = Limits {
            samples_max: 1,
            ..limits
        };
        let labels_max = Limits {
            labels_max: 0,
            ..limits
        };
        let label_bytes_max = Limits {
            label_bytes_max: 4,
            ..limits
        };
        for (limits, expected) in [
            (series_max, "series_max"),
            (samples_max, "samples_max"),
            (labels_max, "labels_max"),
            (label_bytes_max, "label_bytes_max"),
        ] {
            let batch = one_series(vec!["label".to_owned()], vec![1.0, 2.0], vec![1, 2]);
            let Err(CallError::Oversized { bound, .. }) = check_batch(&batch, &limits) else {
                panic!("{expected}")
            };
            assert_eq!(bound.to_string(), expected);
        }
    }

    #[test]
    fn a_series_needs_as_many_times_as_values() {
        let batch = one_series(Vec::new(), vec![1.0], vec![1, 2]);
        let result = check_batch(&batch, &Limits::default());
        assert!(matches!(result, Err(CallError::Malformed { .. })), "{result:?}");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
