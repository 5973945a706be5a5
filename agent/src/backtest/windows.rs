//! What came out of a replay, each window and series once.
//!
//! What came late is a record of its own on the wire and adds to what came before; here it is in its window.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tillwatch_feed::message::{Birth, Block, Body, Finding, Interval, Metric, Row};

use crate::preview::json::{finding_line, summary};

/// A week of 1,000 series each minute is ten times as many: read the week in parts.
const ROWS_MAX: usize = 1_000_000;
/// Beside those of the label columns, as in JSON.
const COLUMNS: [&str; 18] = [
    "start",
    "start_ms",
    "length_ms",
    "metric",
    "unit",
    "labels",
    "count",
    "sum",
    "min",
    "max",
    "p50",
    "p95",
    "p99",
    "state",
    "alarm",
    "log10_p",
    "effect",
    "missing",
];

#[derive(Debug, Default)]
pub(super) struct Windows {
    births: BTreeMap<u64, Birth>,
    rows: BTreeMap<Key, (Metric, u32, Row)>,
    /// The last revision of each.
    findings: BTreeMap<(u64, u64), Finding>,
}

/// Start, metric, label values.
type Key = (u64, String, Vec<String>);

impl Windows {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// # Errors
    /// When there are more than are kept.
    pub(super) fn take(&mut self, body: Body) -> Result<()> {
        match body {
            Body::Birth(birth) => {
                self.births.insert(birth.schema, birth);
            }
            Body::Block(block) => self.block(block)?,
            Body::Finding(finding) => {
                self.findings.insert((finding.start_ms, finding.id), finding);
            }
            Body::Gap(_) => {}
        }
        Ok(())
    }

    fn block(&mut self, block: Block) -> Result<()> {
        let Some(birth) = self.births.get(&block.schema) else {
            return Ok(());
        };
        for Interval {
            start_ms,
            length_ms,
            rows,
        } in block.intervals
        {
            for row in rows {
                let series = birth.series.iter().find(|series| series.id == row.series);
                let metric = |index: u32| birth.metrics.get(usize::try_from(index).ok()?);
                let Some((series, metric)) = series.and_then(|series| Some((series, metric(series.metric)?))) else {
                    continue;
                };
                let key = (start_ms, metric.name.clone(), series.label_values.clone());
                match self.rows.get_mut(&key) {
                    Some((_metric, _length_ms, before)) => {
                        before.summary.merge(&row.summary);
                        before.score = row.score.or(before.score.take());
                    }
                    None => drop(self.rows.insert(key, (metric.clone(), length_ms, row))),
                }
            }
        }
        ensure!(
            self.rows.len() <= ROWS_MAX,
            "more than {ROWS_MAX} windows and series\nhint: read the files in several parts"
        );
        Ok(())
    }

    /// All of them, with a header where it is CSV.
    pub(super) fn lines(&self, has_json: bool) -> impl Iterator<Item = String> {
        let header = (!has_json).then(|| COLUMNS.join(","));
        let rows = self
            .rows
            .iter()
            .map(move |((start_ms, _metric, labels), (metric, length_ms, row))| {
                let value = summary(metric, labels, (*start_ms, *length_ms), row);
                if has_json { value.to_string() } else { csv(&value) }
            });
        let findings = self
            .findings
            .values()
            .filter(move |_finding| has_json)
            .map(finding_line);
        header.into_iter().chain(rows).chain(findings)
    }
}

fn csv(row: &Value) -> String {
    let score = &row["score"];
    let cell = |column: &&str| match *column {
        "start" => {
            let start_ms = row["start_ms"].as_i64().unwrap_or_default();
            Timestamp::from_millisecond(start_ms).map_or_else(|_beyond| String::new(), |time| time.to_string())
        }
        "labels" => labels(&row["labels"]),
        "state" | "alarm" | "log10_p" | "effect" | "missing" => text(&score[*column]),
        column => text(&row[column]),
    };
    let cells: Vec<String> = COLUMNS.iter().map(cell).map(|cell| quoted(&cell)).collect();
    cells.join(",")
}

fn labels(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.join(";")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tillwatch_feed::message::{Kind, Series};
    use tillwatch_feed::summary::Summary;

    fn birth() -> Birth {
        let metric = Metric {
            name: "sales.amount".to_owned(),
            unit: "{currency}".to_owned(),
            kind: Kind::Sum,
            role: String::new(),
            decimals: 2,
            currency: Some("EUR".to_owned()),
            plugin: 0,
            label_keys: vec!["lane".to_owned()],
        };
        let series = Series {
            id: 7,
            metric: 0,
            label_values: vec!["a,\"b".to_owned()],
        };
        Birth {
            schema: 1,
            metrics: vec![metric],
            series: vec![series],
            ..Birth::default()
        }
    }

    fn block(start_ms: u64, sum: i64) -> Body {
        let summary = Summary {
            count: 1,
            sum,
            min: sum,
            max: sum,
            histogram: None,
        };
        let row = Row {
            series: 7,
            summary,
            score: None,
        };
        let interval = Interval {
            start_ms,
            length_ms: 60_000,
            rows: vec![row],
        };
        Body::Block(Block {
            schema: 1,
            records: vec![1],
            intervals: vec![interval],
        })
    }

    #[test]
    fn what_came_late_is_in_its_window_and_windows_come_in_the_order_of_time() {
        let mut windows = Windows::default();
        for body in [
            Body::Birth(birth()),
            block(120_000, 100),
            block(60_000, 1_999),
            block(120_000, 250),
        ] {
            windows.take(body).unwrap();
        }
        let lines: Vec<String> = windows.lines(false).collect();
        assert_eq!(
            lines[1..],
            [
                "1970-01-01T00:01:00Z,60000,60000,sales.amount,{currency},\"lane=a,\"\"b\",1,19.99,19.99,19.99,,,,,,,,",
                "1970-01-01T00:02:00Z,120000,60000,sales.amount,{currency},\"lane=a,\"\"b\",2,3.5,1.0,2.5,,,,,,,,",
            ]
        );
        let last: Value = serde_json::from_str(&windows.lines(true).last().unwrap()).unwrap();
        assert_eq!(last["sum"], json!(3.5));
        assert_eq!(windows.lines(true).count(), 2);
    }
}
