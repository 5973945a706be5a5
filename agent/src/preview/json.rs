//! Records and samples as JSON lines, for people and their tools.
//!
//! ```text
//! {"type":"sample","source":"sales","metric":"sales.amount","labels":{},"time_ms":1,"value":1999}
//! {"type":"birth","schema":"00..","metrics":4,"series":9}
//! {"type":"summary","metric":"sales.amount","labels":{},"start_ms":0,"length_ms":60000,"count":2,"sum":39.98,..}
//! {"type":"finding","metric":"sales.amount",..}
//! ```
//! Values are in the metric's unit; whole numbers of a sample are as the plugin reported them.
//! A sample that does not count has `refused` with the reason in place of its value.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tillwatch_core::guard::Guard;
use tillwatch_core::sample::{self, Batch, Values};
use tillwatch_core::value::value_at;
use tillwatch_feed::message::{Birth, Block, Body, Finding, Interval, Metric, Row};
use tillwatch_feed::score::ScoreState;

/// Quantiles of a distribution that are printed.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// Remembers the births, without which blocks cannot be read.
#[derive(Debug, Default)]
pub struct Writer {
    births: BTreeMap<u64, Birth>,
}

impl Writer {
    /// The lines of one record.
    pub fn lines(&mut self, body: &Body) -> Vec<String> {
        match body {
            Body::Birth(birth) => {
                self.births.insert(birth.schema, birth.clone());
                let schema = format!("{:016x}", birth.schema);
                let (metrics, series) = (birth.metrics.len(), birth.series.len());
                vec![json!({"type": "birth", "schema": schema, "metrics": metrics, "series": series}).to_string()]
            }
            Body::Block(block) => self.block(block),
            Body::Finding(finding) => vec![finding_line(finding)],
            Body::Gap(reason) => vec![json!({"type": "gap", "reason": format!("{reason:?}")}).to_string()],
        }
    }

    fn block(&self, block: &Block) -> Vec<String> {
        let Some(birth) = self.births.get(&block.schema) else {
            return Vec::new();
        };
        let rows = block
            .intervals
            .iter()
            .flat_map(|interval| interval.rows.iter().map(move |row| (interval, row)));
        rows.filter_map(|(interval, row)| summary_line(birth, interval, row))
            .collect()
    }
}

fn summary_line(birth: &Birth, interval: &Interval, row: &Row) -> Option<String> {
    let series = birth.series.iter().find(|series| series.id == row.series)?;
    let metric = birth.metrics.get(usize::try_from(series.metric).ok()?)?;
    let window = (interval.start_ms, interval.length_ms);
    Some(summary(metric, &series.label_values, window, row).to_string())
}

/// One series in one window, of which start and length are given.
pub(crate) fn summary(metric: &Metric, label_values: &[String], window: (u64, u32), row: &Row) -> Value {
    let unit = |value: i64| real(value, metric.decimals);
    let mut line = json!({
        "type": "summary",
        "metric": metric.name,
        "unit": metric.unit,
        "labels": labels(&metric.label_keys, label_values),
        "start_ms": window.0,
        "length_ms": window.1,
        "count": row.summary.count,
        "sum": unit(row.summary.sum),
        "min": unit(row.summary.min),
        "max": unit(row.summary.max),
    });
    if let Some(histogram) = &row.summary.histogram {
        for (name, quantile) in QUANTILES {
            line[name] = json!(histogram.quantile(quantile).map(|value| within(value, &line)));
        }
    }
    if let Some(score) = &row.score {
        let state = match score.state {
            ScoreState::Warming => "warming",
            ScoreState::Ok => "ok",
            ScoreState::Stale => "stale",
        };
        line["score"] = json!({"state": state, "alarm": score.alarm, "log10_p": score.log10_p, "effect": score.effect, "missing": unit(score.missing)});
    }
    line
}

/// A quantile is the middle of a bucket, which may lie beyond the ends that are known exactly.
fn within(quantile: f64, line: &Value) -> f64 {
    let end = |name: &str, open: f64| line[name].as_f64().unwrap_or(open);
    quantile
        .max(end("min", f64::NEG_INFINITY))
        .min(end("max", f64::INFINITY))
}

pub(crate) fn finding_line(finding: &Finding) -> String {
    let labels: serde_json::Map<String, Value> = finding
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let unit = |value: i64| real(value, finding.decimals);
    json!({
        "type": "finding",
        "id": format!("{:016x}", finding.id),
        "revision": finding.revision,
        "metric": finding.metric,
        "unit": finding.unit,
        "labels": labels,
        "start_ms": finding.start_ms,
        "peak_ms": finding.peak_ms,
        "end_ms": finding.end_ms,
        "log10_p": finding.log10_p,
        "effect": finding.effect,
        "expected": unit(finding.expected),
        "actual": unit(finding.actual),
    })
    .to_string()
}

/// The lines of a collected batch, as the plugin reported it; what the guard refuses is named and not printed.
#[must_use]
pub fn samples(source: &str, metrics: &[sample::Metric], batch: &Batch) -> Vec<String> {
    let mut lines = Vec::new();
    for series in &batch.series {
        let Some(metric) = metrics.get(usize::from(series.metric)) else {
            continue;
        };
        let shown: Vec<String> = series.labels.iter().map(|label| guarded_label(label)).collect();
        let labels = labels(&metric.label_keys, &shown);
        for (index, time_ms) in series.times_ms.iter().enumerate() {
            let mut line = json!({"type": "sample", "source": source, "metric": metric.name, "labels": labels, "time_ms": time_ms});
            match value_at(&series.values, index, metric, Guard) {
                Ok(_counts) => line["value"] = reported(&series.values, index),
                Err(reason) => line["refused"] = json!(reason.name()),
            }
            lines.push(line.to_string());
        }
    }
    lines
}

/// A label that the guard does not pass may be anything, also a card number in parts.
fn guarded_label(label: &str) -> String {
    match Guard.label(label) {
        Ok(()) => label.to_owned(),
        Err(refusal) => format!("({refusal})"),
    }
}

fn reported(values: &Values, index: usize) -> Value {
    match values {
        Values::Reals(values) => json!(values.get(index)),
        Values::Integers(values) => json!(values.get(index)),
    }
}

fn labels(keys: &[String], values: &[String]) -> Value {
    keys.iter()
        .zip(values)
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A whole number of 10^-decimals as a number of the unit; JSON has no exact decimals.
#[expect(clippy::cast_precision_loss, reason = "for display only")]
fn real(value: i64, decimals: u8) -> Value {
    match decimals {
        0 => json!(value),
        _ => json!(value as f64 / 10_f64.powi(i32::from(decimals))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_feed::histogram::Histogram;
    use tillwatch_feed::message::{Kind, Series};
    use tillwatch_feed::summary::Summary;

    /// `tap` showed a card number that the agent itself would never have kept.
    #[test]
    fn what_the_guard_refuses_is_not_printed() {
        let metric = crate::source::system::metric("x", "1", sample::Kind::Gauge, 0, &["route"], "");
        let card = "4111111111111111";
        let batch = |label: &str, value: i64| Batch {
            series: vec![sample::Series {
                metric: 0,
                labels: vec![label.to_owned()],
                values: Values::Integers(vec![value]),
                times_ms: vec![1],
            }],
            ..Batch::default()
        };
        for batch in [
            batch(card, 1),
            batch("4111 1111 1111 1111", 1),
            batch("pay", card.parse().unwrap()),
        ] {
            let lines = samples("p", std::slice::from_ref(&metric), &batch);
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains("1111"), "{lines:?}");
        }
        let lines = samples("p", &[metric], &batch("pay", 7));
        assert!(
            lines[0].contains("\"value\":7") && lines[0].contains("\"pay\""),
            "{lines:?}"
        );
    }

    fn metric() -> Metric {
        Metric {
            name: "sales.amount".to_owned(),
            unit: "{currency}".to_owned(),
            kind: Kind::Sum,
            role: String::new(),
            decimals: 2,
            currency: Some("EUR".to_owned()),
            plugin: 0,
            label_keys: vec!["lane".to_owned()],
        }
    }

    /// One value of 1,600 had a median of 1,613, the middle of its bucket.
    #[test]
    fn no_quantile_lies_beyond_the_least_and_the_greatest_value() {
        let mut histogram = Histogram::new();
        histogram.record(16.0);
        let summary = Summary {
            count: 1,
            sum: 1_600,
            min: 1_600,
            max: 1_600,
            histogram: Some(histogram),
        };
        let row = Row {
            series: 7,
            summary,
            score: None,
        };
        let line = super::summary(&metric(), &["3".to_owned()], (0, 60_000), &row);
        assert_eq!((&line["p50"], &line["p99"]), (&json!(16.0), &json!(16.0)));
    }

    #[test]
    fn a_block_is_printed_in_units_with_the_names_of_its_birth() {
        let series = Series {
            id: 7,
            metric: 0,
            label_values: vec!["3".to_owned()],
        };
        let birth = Birth {
            schema: 1,
            metrics: vec![metric()],
            series: vec![series],
            ..Birth::default()
        };
        let summary = Summary {
            count: 2,
            sum: 3_998,
            min: 1_999,
            max: 1_999,
            histogram: None,
        };
        let row = Row {
            series: 7,
            summary,
            score: None,
        };
        let interval = Interval {
            start_ms: 60_000,
            length_ms: 60_000,
            rows: vec![row],
        };
        let block = Block {
            schema: 1,
            records: vec![1],
            intervals: vec![interval],
        };
        let mut writer = Writer::default();
        assert!(
            writer.lines(&Body::Block(block.clone())).is_empty(),
            "without its birth nothing is known of it"
        );
        assert_eq!(writer.lines(&Body::Birth(birth)).len(), 1);
        let lines = writer.lines(&Body::Block(block));
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["sum"], json!(39.98));
        assert_eq!(line["labels"], json!({"lane": "3"}));
    }
}
