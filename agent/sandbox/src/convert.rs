//! Between the contract's types and ours.

use tillwatch_border::{Document, Entry, ErrorKind, Fault, Level, Lines, Listing, PluginError, cut};
use tillwatch_core::sample::{Batch, Descriptor, Kind, Metric, Series, Values};

use crate::contract::tillwatch::collector::{log, source, types};

pub(crate) fn batch(batch: types::Batch) -> Batch {
    Batch {
        series: batch.series.into_iter().map(series).collect(),
        more: batch.more,
        is_partial: false,
    }
}

fn series(series: types::Series) -> Series {
    Series {
        metric: series.metric,
        labels: series.labels,
        values: match series.values {
            types::Values::Reals(reals) => Values::Reals(reals),
            types::Values::Integers(integers) => Values::Integers(integers),
        },
        times_ms: series.times_ms,
    }
}

pub(crate) fn descriptor(descriptor: types::Descriptor) -> Descriptor {
    Descriptor {
        name: descriptor.name,
        version: descriptor.version,
        metrics: descriptor.metrics.into_iter().map(metric).collect(),
        min_interval_ms: descriptor.min_interval_ms,
        attrs: descriptor.attrs,
    }
}

fn metric(metric: types::Metric) -> Metric {
    Metric {
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
    }
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
