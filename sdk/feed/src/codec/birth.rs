//! Births and findings to protobuf and back, checked.
//!
//! In: dictionaries and findings. Out: the same, with every index, length and code checked when it came from outside.

use std::collections::BTreeSet;

use super::block_decode::{tenths_effect, tenths_p};
use super::error::{DECIMALS_MAX, DecodeError, TEXT_BYTES_MAX, TIME_MS_MAX};
use super::header::limit;
use crate::message::{Birth, Finding, Kind, Metric, Plugin, RecordId, Series};
use crate::proto;
use crate::score::{effect, log10_p, tenths_of_effect, tenths_of_p};

pub(super) fn encode_birth(birth: &Birth) -> proto::Birth {
    let plugins = birth.plugins.iter();
    proto::Birth {
        schema: birth.schema,
        agent_version: birth.agent_version.clone(),
        previous_generation: birth.previous.map_or(0, |previous| previous.generation),
        previous_seq_last: birth.previous.map_or(0, |previous| previous.seq),
        metrics: birth.metrics.iter().map(encode_metric).collect(),
        series: birth.series.iter().map(encode_series).collect(),
        plugins: plugins
            .map(|p| proto::Plugin {
                name: p.name.clone(),
                version: p.version.clone(),
            })
            .collect(),
        window_ms: birth.window_ms,
    }
}

pub(super) fn decode_birth(birth: proto::Birth) -> Result<Birth, DecodeError> {
    let plugins: Vec<Plugin> = birth.plugins.into_iter().map(decode_plugin).collect::<Result<_, _>>()?;
    let metrics: Vec<Metric> = birth
        .metrics
        .into_iter()
        .map(|metric| decode_metric(metric, plugins.len()))
        .collect::<Result<_, _>>()?;
    let series: Vec<Series> = birth
        .series
        .into_iter()
        .map(|series| decode_series(series, &metrics))
        .collect::<Result<_, _>>()?;
    check_ids(&series)?;
    let previous = RecordId {
        generation: birth.previous_generation,
        seq: birth.previous_seq_last,
    };
    Ok(Birth {
        schema: birth.schema,
        agent_version: text("agent_version", birth.agent_version)?,
        previous: (previous.seq > 0).then_some(previous),
        metrics,
        series,
        plugins,
        window_ms: birth.window_ms,
    })
}

pub(super) fn encode_finding(finding: &Finding) -> proto::Finding {
    let labels = finding.labels.iter();
    proto::Finding {
        id: finding.id,
        revision: finding.revision,
        metric: finding.metric.clone(),
        unit: finding.unit.clone(),
        role: finding.role.clone(),
        decimals: u32::from(finding.decimals),
        plugin: finding.plugin.clone(),
        labels: labels
            .map(|(key, value)| proto::Label {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        start_ms: finding.start_ms,
        peak_ms: finding.peak_ms,
        end_ms: finding.end_ms.unwrap_or(0),
        p: u32::from(tenths_of_p(finding.log10_p)),
        effect: i32::from(tenths_of_effect(finding.effect)),
        expected: finding.expected,
        actual: finding.actual,
        currency: finding.currency.clone().unwrap_or_default(),
        window_ms: finding.window_ms,
    }
}

pub(super) fn decode_finding(finding: proto::Finding) -> Result<Finding, DecodeError> {
    let labels = finding.labels.into_iter();
    Ok(Finding {
        id: finding.id,
        revision: finding.revision,
        metric: named("metric of a finding", finding.metric)?,
        unit: text("unit", finding.unit)?,
        role: text("role", finding.role)?,
        decimals: decimals(finding.decimals)?,
        currency: currency(finding.currency)?,
        plugin: text("plugin", finding.plugin)?,
        labels: labels.map(decode_label).collect::<Result<_, _>>()?,
        start_ms: time("start_ms", finding.start_ms)?,
        peak_ms: time("peak_ms", finding.peak_ms)?,
        end_ms: Some(time("end_ms", finding.end_ms)?).filter(|end_ms| *end_ms > 0),
        window_ms: finding.window_ms,
        log10_p: log10_p(tenths_p(finding.p)?),
        effect: effect(tenths_effect(finding.effect)?),
        expected: finding.expected,
        actual: finding.actual,
    })
}

/// A text of bounded length.
pub(super) fn text(what: &'static str, text: String) -> Result<String, DecodeError> {
    limit(what, text.len(), TEXT_BYTES_MAX)?;
    Ok(text)
}

fn named(what: &'static str, name: String) -> Result<String, DecodeError> {
    if name.is_empty() {
        Err(DecodeError::Missing(what))
    } else {
        text(what, name)
    }
}

fn encode_metric(metric: &Metric) -> proto::Metric {
    proto::Metric {
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        kind: i32::from(match metric.kind {
            Kind::Gauge => proto::Kind::Gauge,
            Kind::Counter => proto::Kind::Counter,
            Kind::Sum => proto::Kind::Sum,
            Kind::Distribution => proto::Kind::Distribution,
        }),
        role: metric.role.clone(),
        decimals: u32::from(metric.decimals),
        currency: metric.currency.clone().unwrap_or_default(),
        plugin: metric.plugin,
        label_keys: metric.label_keys.clone(),
    }
}

fn decode_metric(metric: proto::Metric, plugins: usize) -> Result<Metric, DecodeError> {
    let kind = match proto::Kind::try_from(metric.kind) {
        Ok(proto::Kind::Gauge) => Kind::Gauge,
        Ok(proto::Kind::Counter) => Kind::Counter,
        Ok(proto::Kind::Sum) => Kind::Sum,
        Ok(proto::Kind::Distribution) => Kind::Distribution,
        Ok(proto::Kind::Unspecified) | Err(_) => {
            return Err(DecodeError::Unknown {
                what: "kind",
                value: i64::from(metric.kind),
            });
        }
    };
    exists("plugin", metric.plugin, plugins)?;
    Ok(Metric {
        name: named("metric", metric.name)?,
        unit: text("unit", metric.unit)?,
        kind,
        role: text("role", metric.role)?,
        decimals: decimals(metric.decimals)?,
        currency: currency(metric.currency)?,
        plugin: metric.plugin,
        label_keys: metric
            .label_keys
            .into_iter()
            .map(|key| named("label key", key))
            .collect::<Result<_, _>>()?,
    })
}

fn encode_series(series: &Series) -> proto::Series {
    proto::Series {
        id: series.id,
        metric: series.metric,
        label_values: series.label_values.clone(),
    }
}

fn decode_series(series: proto::Series, metrics: &[Metric]) -> Result<Series, DecodeError> {
    exists("metric", series.metric, metrics.len())?;
    let metric = usize::try_from(series.metric).ok().and_then(|at| metrics.get(at));
    if metric.is_some_and(|metric| metric.label_keys.len() != series.label_values.len()) {
        return Err(DecodeError::Column("label_values"));
    }
    let label_values = series.label_values.into_iter().map(|value| text("label value", value));
    Ok(Series {
        id: series.id,
        metric: series.metric,
        label_values: label_values.collect::<Result<_, _>>()?,
    })
}

fn decode_plugin(plugin: proto::Plugin) -> Result<Plugin, DecodeError> {
    Ok(Plugin {
        name: named("plugin", plugin.name)?,
        version: text("plugin version", plugin.version)?,
    })
}

fn decode_label(label: proto::Label) -> Result<(String, String), DecodeError> {
    Ok((named("label key", label.key)?, text("label value", label.value)?))
}

fn check_ids(series: &[Series]) -> Result<(), DecodeError> {
    let mut seen = BTreeSet::new();
    match series.iter().find(|series| !seen.insert(series.id)) {
        Some(twice) => Err(DecodeError::Twice {
            what: "series",
            value: u64::from(twice.id),
        }),
        None => Ok(()),
    }
}

fn exists(what: &'static str, index: u32, length: usize) -> Result<(), DecodeError> {
    let inside = usize::try_from(index).is_ok_and(|index| index < length);
    if inside {
        Ok(())
    } else {
        Err(DecodeError::Index { what, index })
    }
}

fn decimals(decimals: u32) -> Result<u8, DecodeError> {
    let checked = u8::try_from(decimals).ok().filter(|decimals| *decimals <= DECIMALS_MAX);
    checked.ok_or(DecodeError::OutOfRange {
        what: "decimals",
        value: u64::from(decimals),
    })
}

fn currency(currency: String) -> Result<Option<String>, DecodeError> {
    limit("currency", currency.len(), 3)?;
    Ok(Some(currency).filter(|currency| !currency.is_empty()))
}

fn time(what: &'static str, time_ms: u64) -> Result<u64, DecodeError> {
    if time_ms > TIME_MS_MAX {
        Err(DecodeError::OutOfRange { what, value: time_ms })
    } else {
        Ok(time_ms)
    }
}
