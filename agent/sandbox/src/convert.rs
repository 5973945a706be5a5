//! Between the contract's types and ours; what a plugin says is held against its bounds on the way.

use tillwatch_core::sample::{Batch, Descriptor, Kind, Metric, Series, Values};

use crate::contract::tillwatch::collector::{log, source, types};
use crate::{CallError, Document, Entry, ErrorKind, Fault, Level, Limits, Lines, Listing, PluginError};

/// Fails when a bound is passed.
fn within(bound: &'static str, found: usize, limit: usize) -> Result<(), CallError> {
    if found > limit {
        Err(CallError::Oversized { bound, found, limit })
    } else {
        Ok(())
    }
}

pub(crate) fn batch(batch: types::Batch, limits: &Limits) -> Result<Batch, CallError> {
    within("series_max", batch.series.len(), limits.series_max)?;
    let samples = batch.series.iter().map(|series| series.times_ms.len()).sum();
    within("samples_max", samples, limits.samples_max)?;
    let series: Result<Vec<Series>, CallError> = batch
        .series
        .into_iter()
        .map(|series| self::series(series, limits))
        .collect();
    Ok(Batch {
        series: series?,
        more: batch.more,
        is_partial: false,
    })
}

fn series(series: types::Series, limits: &Limits) -> Result<Series, CallError> {
    within("labels_max", series.labels.len(), limits.labels_max)?;
    for label in &series.labels {
        within("label_bytes_max", label.len(), limits.label_bytes_max)?;
    }
    let (count, values) = match series.values {
        types::Values::Reals(reals) => (reals.len(), Values::Reals(reals)),
        types::Values::Integers(integers) => (integers.len(), Values::Integers(integers)),
    };
    if count != series.times_ms.len() {
        return Err(CallError::Malformed {
            reason: "a series has not as many times as values",
        });
    }
    Ok(Series {
        metric: series.metric,
        labels: series.labels,
        values,
        times_ms: series.times_ms,
    })
}

pub(crate) fn descriptor(descriptor: types::Descriptor, limits: &Limits) -> Result<Descriptor, CallError> {
    within("metrics_max", descriptor.metrics.len(), limits.metrics_max)?;
    within("labels_max", descriptor.attrs.len(), limits.labels_max)?;
    let attrs = descriptor.attrs.iter().flat_map(|(key, value)| [key, value]);
    texts([&descriptor.name, &descriptor.version].into_iter().chain(attrs), limits)?;
    let metrics: Result<Vec<Metric>, CallError> = descriptor
        .metrics
        .into_iter()
        .map(|metric| self::metric(metric, limits))
        .collect();
    Ok(Descriptor {
        name: descriptor.name,
        version: descriptor.version,
        metrics: metrics?,
        min_interval_ms: descriptor.min_interval_ms,
        attrs: descriptor.attrs,
    })
}

fn metric(metric: types::Metric, limits: &Limits) -> Result<Metric, CallError> {
    within("labels_max", metric.label_keys.len(), limits.labels_max)?;
    let own = [&metric.name, &metric.unit, &metric.help, &metric.role];
    texts(
        own.into_iter().chain(&metric.label_keys).chain(&metric.currency),
        limits,
    )?;
    Ok(Metric {
        name: metric.name,
        unit: metric.unit,
        kind: match metric.kind {
            types::Kind::Gauge => Kind::Gauge,
            types::Kind::Counter => Kind::Counter,
            types::Kind::Sum => Kind::Sum,
            types::Kind::Distribution => Kind::Distribution,
        },
        help: metric.help,
        label_keys: metric.label_keys,
        role: metric.role,
        decimals: metric.decimals,
        currency: metric.currency,
    })
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>, limits: &Limits) -> Result<(), CallError> {
    texts
        .map(String::len)
        .try_for_each(|length| within("text_bytes_max", length, limits.text_bytes_max))
}

pub(crate) fn error(error: types::Error, text_bytes_max: usize) -> PluginError {
    let kind = match error.kind {
        types::ErrorKind::Config => ErrorKind::Config,
        types::ErrorKind::Transient => ErrorKind::Transient,
        types::ErrorKind::Permanent => ErrorKind::Permanent,
    };
    PluginError {
        kind,
        message: cut(&error.message, text_bytes_max).to_owned(),
    }
}

/// The first bytes of a text, never half a character.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

pub(crate) fn level(level: log::Level) -> Level {
    match level {
        log::Level::Debug => Level::Debug,
        log::Level::Info => Level::Info,
        log::Level::Warn => Level::Warn,
        log::Level::Error => Level::Error,
    }
}

pub(crate) fn fault(fault: Fault) -> source::Fault {
    match fault {
        Fault::Unknown => source::Fault::Unknown,
        Fault::Unavailable => source::Fault::Unavailable,
        Fault::Exhausted => source::Fault::Exhausted,
    }
}

pub(crate) fn lines(lines: Lines) -> source::Lines {
    source::Lines {
        bytes: lines.bytes,
        more: lines.more,
        skipped_bytes: lines.skipped_bytes,
    }
}

pub(crate) fn document(document: Document) -> source::Document {
    source::Document {
        name: document.name,
        modified_ms: document.modified_ms,
        bytes: document.bytes,
    }
}

pub(crate) fn listing(listing: Listing) -> source::Listing {
    let entry = |entry: Entry| source::Entry {
        name: entry.name,
        size: entry.size,
        modified_ms: entry.modified_ms,
    };
    source::Listing {
        count: listing.count,
        bytes: listing.bytes,
        oldest_modified_ms: listing.oldest_modified_ms,
        entries: listing.entries.into_iter().map(entry).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_series(labels: Vec<String>, values: Vec<f64>, times_ms: Vec<u64>) -> types::Batch {
        let series = types::Series {
            metric: 0,
            labels,
            values: types::Values::Reals(values),
            times_ms,
        };
        types::Batch {
            series: vec![series],
            more: false,
        }
    }

    fn check(limits: &Limits, expected: &str) {
        let error = batch(one_series(vec!["label".to_owned()], vec![1.0, 2.0], vec![1, 2]), limits);
        assert!(
            matches!(error, Err(CallError::Oversized { bound, .. }) if bound == expected),
            "{error:?}"
        );
    }

    #[test]
    fn each_bound_of_a_batch_is_named() {
        let limits = Limits::default();
        check(
            &Limits {
                series_max: 0,
                ..limits
            },
            "series_max",
        );
        check(
            &Limits {
                samples_max: 1,
                ..limits
            },
            "samples_max",
        );
        check(
            &Limits {
                labels_max: 0,
                ..limits
            },
            "labels_max",
        );
        check(
            &Limits {
                label_bytes_max: 4,
                ..limits
            },
            "label_bytes_max",
        );
    }

    #[test]
    fn a_series_needs_as_many_times_as_values() {
        let result = batch(one_series(Vec::new(), vec![1.0], vec![1, 2]), &Limits::default());
        assert!(matches!(result, Err(CallError::Malformed { .. })), "{result:?}");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
