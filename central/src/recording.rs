//! A recorded feed as text: one JSON object per line for each site, series and interval.
//!
//! In: bytes of anybody. Out: observations in the order of the lines, or the number of the first bad line and its fault.
//! It never holds more than one line, and never orders or drops anything. `docs/OPERATIONS.md` describes the keys.

use crate::decode::{Observation, SeriesInfo};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, Read as _};
use std::sync::Arc;
use tillwatch_feed::message::Kind;
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::SiteId;

/// A longer line is a fault.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Different series of one recording, over all sites.
pub const SERIES_MAX: usize = 100_000;
/// A longer interval is a fault.
pub const LENGTH_MS_MAX: u32 = 24 * 60 * 60 * 1_000;
/// A later interval is a fault: UTC milliseconds of the year 9999.
pub const START_MS_MAX: u64 = 253_402_300_799_000;
/// More decimals are a fault.
const DECIMALS_MAX: u8 = 9;

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// From 1.
    pub line: u64,
    pub what: What,
}

/// The fault itself.
#[derive(Debug, thiserror::Error)]
pub enum What {
    #[error("cannot be read")]
    Io(#[source] std::io::Error),
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    Long,
    #[error("no object with the keys of a recording: {0}")]
    Json(#[source] serde_json::Error),
    #[error("site {0:?} is no name of a site\n  hint: a-z, 0-9 and -, at most 64")]
    Site(String),
    #[error("{key} is out of its range: {range}")]
    Range { key: &'static str, range: String },
    #[error("more than {SERIES_MAX} different series")]
    Series,
}

/// One line; keys that it does not name are left alone.
#[derive(Debug, Deserialize)]
struct Line {
    site: String,
    metric: String,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    start_ms: u64,
    length_ms: u32,
    count: u64,
    sum: i64,
    min: i64,
    max: i64,
    #[serde(default)]
    decimals: u8,
    #[serde(default)]
    currency: Option<String>,
    #[serde(default)]
    expected: Option<i64>,
    #[serde(default)]
    p: Option<f64>,
    #[serde(default)]
    effect: Option<f64>,
    #[serde(default)]
    finding: Option<bool>,
}

/// Reads a recording line by line.
#[derive(Debug)]
pub struct Recording<R> {
    from: R,
    line: u64,
    bytes: Vec<u8>,
    series: HashSet<Arc<SeriesInfo>>,
}

impl<R: BufRead> Recording<R> {
    pub fn new(from: R) -> Self {
        Recording {
            from,
            line: 0,
            bytes: Vec::new(),
            series: HashSet::new(),
        }
    }

    /// The next observation; empty lines are skipped.
    ///
    /// # Errors
    /// When a line is none; what follows it can still be read.
    pub fn read_next(&mut self) -> Result<Option<Observation>, BadLine> {
        while self.read_line()? {
            if !self.bytes.trim_ascii().is_empty() {
                return self.observation().map(Some).map_err(|what| self.bad(what));
            }
        }
        Ok(None)
    }

    fn bad(&self, what: What) -> BadLine {
        BadLine { line: self.line, what }
    }

    /// False at the end.
    fn read_line(&mut self) -> Result<bool, BadLine> {
        self.bytes.clear();
        self.line += 1;
        let most = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
        let read = self.from.by_ref().take(most).read_until(b'\n', &mut self.bytes);
        let read = read.map_err(|error| self.bad(What::Io(error)))?;
        if read > LINE_BYTES_MAX && self.bytes.last() != Some(&b'\n') {
            let skipped = self.from.skip_until(b'\n');
            skipped.map_err(|error| self.bad(What::Io(error)))?;
            return Err(self.bad(What::Long));
        }
        Ok(read > 0)
    }

    fn observation(&mut self) -> Result<Observation, What> {
        let line: Line = serde_json::from_slice(&self.bytes).map_err(What::Json)?;
        check(&line)?;
        let site: Result<SiteId, _> = line.site.parse();
        let site = site.map_err(|_invalid| What::Site(line.site.clone()))?;
        let score = score(&line);
        let summary = Summary {
            count: line.count,
            sum: line.sum,
            min: line.min,
            max: line.max,
            histogram: None,
        };
        let (start_ms, length_ms) = (line.start_ms, line.length_ms);
        Ok(Observation {
            site,
            series: self.intern(line)?,
            start_ms,
            length_ms,
            summary,
            score,
        })
    }

    /// Equal series are one allocation.
    fn intern(&mut self, line: Line) -> Result<Arc<SeriesInfo>, What> {
        let info = SeriesInfo {
            role: line.role.unwrap_or_else(|| role_of(&line.metric).to_owned()),
            metric: line.metric,
            unit: String::new(),
            kind: Kind::Sum,
            decimals: line.decimals,
            currency: line.currency,
            plugin: String::new(),
            labels: line.labels.into_iter().collect(),
        };
        if let Some(known) = self.series.get(&info) {
            return Ok(Arc::clone(known));
        }
        if self.series.len() >= SERIES_MAX {
            return Err(What::Series);
        }
        let info = Arc::new(info);
        self.series.insert(Arc::clone(&info));
        Ok(info)
    }
}

fn check(line: &Line) -> Result<(), What> {
    let range = |key, is_good: bool, range: String| is_good.then_some(()).ok_or(What::Range { key, range });
    range(
        "start_ms",
        line.start_ms <= START_MS_MAX,
        format!("0 to {START_MS_MAX}"),
    )?;
    let length = 1..=LENGTH_MS_MAX;
    range(
        "length_ms",
        length.contains(&line.length_ms),
        format!("1 to {LENGTH_MS_MAX}"),
    )?;
    range(
        "decimals",
        line.decimals <= DECIMALS_MAX,
        format!("0 to {DECIMALS_MAX}"),
    )?;
    let p = line.p.is_none_or(|p| (0.0..=1.0).contains(&p));
    range("p", p, "0 to 1".to_owned())?;
    range("metric", !line.metric.is_empty(), "a name".to_owned())
}

/// Of a line with `p`: a series that is not judged yet has none.
fn score(line: &Line) -> Option<Score> {
    let p = line.p?;
    #[expect(clippy::cast_possible_truncation, reason = "cut to what the wire can say")]
    let (log10_p, effect) = (p.log10() as f32, line.effect.unwrap_or(0.0) as f32);
    let missing = line.expected.map_or(0, |expected| expected.saturating_sub(line.sum));
    let score = Score {
        state: ScoreState::Ok,
        alarm: line.finding.unwrap_or(false),
        log10_p,
        effect,
        missing,
    };
    Some(score.quantized())
}

/// What a metric is for when its line does not say; the names are those of the plugins in this repository.
fn role_of(metric: &str) -> &'static str {
    match metric {
        "sales.transactions" => "sales.count",
        "sales.amount" => "sales.amount",
        _ if metric.starts_with("sales.") => "sales.other",
        _ if metric.ends_with(".duration") || metric.ends_with(".latency") => "latency",
        _ if metric.starts_with("queue.") || metric.starts_with("messaging.") => "queue",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"site":"n-1","region":"north","metric":"sales.transactions","labels":{},"start_ms":60000,"length_ms":60000,"count":1,"sum":7,"min":7,"max":7}"#;

    fn fault(text: &str) -> String {
        let mut recording = Recording::new(text.as_bytes());
        loop {
            match recording.read_next() {
                Ok(Some(_)) => {}
                Ok(None) => return String::new(),
                Err(bad) => return bad.to_string(),
            }
        }
    }

    #[test]
    fn a_line_without_a_score_is_a_summary_alone() {
        let read = Recording::new(GOOD.as_bytes()).read_next().unwrap().unwrap();
        assert_eq!((read.site.as_str(), read.summary.sum, read.score), ("n-1", 7, None));
        assert_eq!(read.series.role, "sales.count");
    }

    #[test]
    fn a_score_is_as_the_wire_would_bring_it() {
        let text = GOOD.replace(
            "\"count\"",
            "\"expected\":9,\"p\":0.001,\"effect\":4.04,\"finding\":true,\"count\"",
        );
        let score = Recording::new(text.as_bytes())
            .read_next()
            .unwrap()
            .unwrap()
            .score
            .unwrap();
        assert_eq!(
            (score.log10_p, score.effect, score.missing, score.alarm),
            (-3.0, 4.0, 2, true)
        );
    }

    #[test]
    fn a_fault_names_its_line_and_what_follows_is_read() {
        let long = format!("{GOOD}\n\n{}\n{GOOD}\n", "x".repeat(LINE_BYTES_MAX + 1));
        assert!(fault(&long).starts_with("line 3: longer than"), "{}", fault(&long));
        let mut recording = Recording::new(long.as_bytes());
        assert!(recording.read_next().is_ok() && recording.read_next().is_err());
        assert!(recording.read_next().unwrap().is_some());
        for (from, to, what) in [
            ("n-1", "N 1", "line 2: site \"N 1\""),
            (
                "\"length_ms\":60000",
                "\"length_ms\":0",
                "line 2: length_ms is out of its range",
            ),
            ("\"sum\":7", "\"sum\":0.5", "line 2: no object with the keys"),
            ("\"count\"", "\"p\":1.5,\"count\"", "line 2: p is out of its range"),
        ] {
            let text = format!("{GOOD}\n{}", GOOD.replace(from, to));
            assert!(fault(&text).starts_with(what), "{}", fault(&text));
        }
    }
}
