//! What came out of a file, for programs (rows) and for people (a summary).
//!
//! In: rows and findings. Out: CSV or JSON lines; text.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::judge::{Found, Judged, Outcome, Plan, Row};
use super::read::Points;
use crate::evidence::{Evidence, difference, local, short};
use crate::output::clean;

/// Findings that the summary lists; the rows have all of them.
const LISTED_MAX: usize = 20;
const WEEK_MS: f64 = 7.0 * 86_400_000.0;
/// A p-value this small is asked of the rows outside of findings.
const LEVELS: [f64; 3] = [0.05, 0.01, 0.001];

/// What came out, with what it is about.
pub(super) struct Report<'a> {
    pub(super) points: &'a Points,
    pub(super) plan: &'a Plan,
    pub(super) outcome: &'a Outcome,
}

/// What share of the rows outside of findings is as rare as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Calibration {
    judged: u32,
    beyond: [u32; 3],
    inside_band: u32,
}

impl<'a> Report<'a> {
    pub(super) fn new(points: &'a Points, plan: &'a Plan, outcome: &'a Outcome) -> Self {
        Self { points, plan, outcome }
    }

    pub(super) fn lines(&self, is_json: bool) -> Vec<String> {
        let rows = self.outcome.rows.iter();
        if !is_json {
            return std::iter::once(self.head())
                .chain(rows.map(|row| self.csv(row)))
                .collect();
        }
        let findings = self
            .outcome
            .findings
            .iter()
            .map(|found| self.json_finding(found).to_string());
        let rows = rows.map(|row| self.json_row(row).to_string());
        rows.chain(findings).chain([self.json_summary().to_string()]).collect()
    }

    fn head(&self) -> String {
        let label = if self.points.has_labels { ",label" } else { "" };
        format!("timestamp,value{label},expected,lower,upper,p,effect,anomaly_score,finding")
    }

    fn csv(&self, row: &Row) -> String {
        let mut fields = vec![quoted(&row.time), row.value.map(number).unwrap_or_default()];
        if self.points.has_labels {
            fields.push(quoted(self.label(row.series)));
        }
        fields.extend(columns(row.judged.as_ref()));
        fields.join(",")
    }

    fn label(&self, series: usize) -> &str {
        self.points.labels.get(series).map_or("", String::as_str)
    }

    fn json_row(&self, row: &Row) -> Value {
        let judged = row.judged.filter(|judged| !judged.is_warming);
        json!({
            "type": "row",
            "timestamp": row.time,
            "time_ms": row.time_ms,
            "value": row.value,
            "label": self.points.has_labels.then(|| self.label(row.series)),
            "expected": row.judged.map(|judged| judged.expected),
            "lower": row.judged.map(|judged| judged.lower),
            "upper": row.judged.map(|judged| judged.upper),
            "p": judged.map(|judged| judged.p),
            "effect": judged.map(|judged| judged.effect),
            "anomaly_score": row.judged.map(|judged| judged.score),
            "finding": judged.and_then(|judged| judged.finding),
        })
    }

    fn json_finding(&self, found: &Found) -> Value {
        json!({
            "type": "finding",
            "finding": found.number,
            "label": self.points.has_labels.then(|| self.label(found.series)),
            "start": shown(found.start_ms, &self.plan.zone),
            "end": shown(found.end_ms, &self.plan.zone),
            "told": shown(found.told_ms, &self.plan.zone),
            "peak": shown(found.peak_ms, &self.plan.zone),
            "open": !found.is_closed,
            "severity": found.severity,
            "effect": found.effect,
            "expected": found.expected,
            "actual": found.actual,
            "evidence": self.evidence(found),
        })
    }

    fn json_summary(&self) -> Value {
        let calibration = self.calibration();
        let rate = |count: u32| share(count, calibration.judged);
        json!({
            "type": "summary",
            "rows": self.outcome.rows.len(),
            "series": self.points.labels.len(),
            "window_ms": self.plan.window_ms,
            "judged": self.judged_rows(),
            "findings": self.outcome.findings.len(),
            "findings_per_week": self.findings_per_week(),
            "calibration": {
                "rows": calibration.judged,
                "p_0.05": rate(calibration.beyond[0]),
                "p_0.01": rate(calibration.beyond[1]),
                "p_0.001": rate(calibration.beyond[2]),
                "band_90": rate(calibration.inside_band),
            },
            "cut_to_range": self.outcome.cut,
        })
    }

    /// For people, on standard error.
    pub(super) fn summary(&self) -> String {
        let mut lines = vec![self.scope()];
        let findings = &self.outcome.findings;
        lines.push(match self.findings_per_week() {
            Some(rate) => format!(
                "{}, {} a week and series",
                counted(findings.len(), "finding"),
                short(rate)
            ),
            None => "nothing was judged: a series is learned for eight days before its ninth is judged\n\
                     hint: give a longer file"
                .to_owned(),
        });
        lines.extend(
            findings
                .iter()
                .take(LISTED_MAX)
                .map(|found| format!("  {}", self.listed(found))),
        );
        if findings.len() > LISTED_MAX {
            lines.push(format!(
                "  and {} more, in the column `finding`",
                findings.len() - LISTED_MAX
            ));
        }
        lines.extend(self.calibrated());
        if self.outcome.cut > 0 {
            lines.push(format!(
                "{} beyond --range, cut to it",
                counted(self.outcome.cut, "value")
            ));
        }
        lines.join("\n")
    }

    fn scope(&self) -> String {
        let rows = &self.outcome.rows;
        let day = |row: Option<&Row>| {
            row.map_or(String::new(), |row| {
                local(row.time_ms, &self.plan.zone).date().to_string()
            })
        };
        format!(
            "{} of {} in {} series, {} to {}; {} judged after learning",
            counted(rows.len(), "window"),
            length(u64::from(self.plan.window_ms)),
            self.points.labels.len(),
            day(rows.first()),
            day(rows.last()),
            self.judged_rows(),
        )
    }

    fn calibrated(&self) -> Option<String> {
        let calibration = self.calibration();
        if calibration.judged == 0 {
            return None;
        }
        let percent = |count: u32| short(share(count, calibration.judged).unwrap_or_default() * 100.0);
        let [five, one, tenth] = calibration.beyond.map(percent);
        Some(format!(
            "outside of findings p is at most 0.05 in {five} %, 0.01 in {one} %, 0.001 in {tenth} % of the windows, \
             and {} % lie within the 90 % band",
            percent(calibration.inside_band)
        ))
    }

    /// `#2 checkout 2026-03-30 11:35, known after 10 min, for 45 min: 12, expected 60 …`
    fn listed(&self, found: &Found) -> String {
        let start = local(found.start_ms, &self.plan.zone).strftime("%Y-%m-%d %H:%M");
        let known = length(found.told_ms.saturating_sub(found.start_ms));
        let long = length(found.end_ms.saturating_sub(found.start_ms));
        let open = if found.is_closed { "" } else { ", still open" };
        format!(
            "#{} {start}, known after {known}, for {long}{open}: {}",
            found.number,
            self.evidence(found)
        )
    }

    /// The worst window, and of what is counted how much more or less it was in all.
    pub(super) fn evidence(&self, found: &Found) -> String {
        let rows = self.rows_of(found);
        let peak = rows.iter().find(|(row, _judged)| row.time_ms == found.peak_ms);
        let label = clean(self.label(found.series));
        let worst = Evidence {
            what: &label,
            unit: "",
            actual: found.actual,
            expected: found.expected,
            band: peak.map(|(_row, judged)| (judged.lower, judged.upper)),
            time_ms: found.peak_ms,
        };
        let sentence = worst.sentence(&self.plan.zone);
        if self.plan.kind != super::Kind::Count {
            return sentence;
        }
        let actual = rows.iter().filter_map(|(row, _judged)| row.value).sum();
        let expected = rows.iter().map(|(_row, judged)| judged.expected).sum();
        match difference(actual, expected) {
            Some(difference) => format!("{sentence}; {difference} in all"),
            None => sentence,
        }
    }

    fn rows_of(&self, found: &Found) -> Vec<(&Row, Judged)> {
        let range = found.start_ms..found.end_ms;
        let rows = self.outcome.rows.iter();
        let own = rows.filter(|row| row.series == found.series && range.contains(&row.time_ms));
        own.filter_map(|row| Some((row, row.judged?))).collect()
    }

    fn judged(&self) -> impl Iterator<Item = (&Row, Judged)> {
        let judged = self.outcome.rows.iter().filter_map(|row| Some((row, row.judged?)));
        judged.filter(|(_row, judged)| !judged.is_warming)
    }

    fn judged_rows(&self) -> usize {
        self.judged().count()
    }

    fn findings_per_week(&self) -> Option<f64> {
        let weeks = f64::from(u32::try_from(self.judged_rows()).ok()?) * f64::from(self.plan.window_ms) / WEEK_MS;
        let findings = u32::try_from(self.outcome.findings.len()).ok()?;
        (weeks > 0.0).then(|| f64::from(findings) / weeks)
    }

    fn calibration(&self) -> Calibration {
        let mut all = Calibration::default();
        for (row, judged) in self.judged().filter(|(_row, judged)| judged.finding.is_none()) {
            all.judged += 1;
            for (beyond, level) in all.beyond.iter_mut().zip(LEVELS) {
                *beyond += u32::from(judged.p <= level);
            }
            let is_inside = row
                .value
                .is_some_and(|value| (judged.lower..=judged.upper).contains(&value));
            all.inside_band += u32::from(is_inside);
        }
        all
    }
}

fn columns(judged: Option<&Judged>) -> [String; 7] {
    let Some(judged) = judged else {
        return Default::default();
    };
    let known = |value: f64| {
        if judged.is_warming {
            String::new()
        } else {
            number(value)
        }
    };
    [
        number(judged.expected),
        number(judged.lower),
        number(judged.upper),
        known(judged.p),
        known(judged.effect),
        number(judged.score),
        judged.finding.map(|finding| finding.to_string()).unwrap_or_default(),
    ]
}

fn share(count: u32, of: u32) -> Option<f64> {
    (of > 0).then(|| f64::from(count) / f64::from(of))
}

/// Six digits that matter.
fn number(value: f64) -> String {
    if value.abs() >= 1e6 {
        return format!("{value}");
    }
    let decimals = if value.abs() >= 1.0 { 4 } else { 7 };
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// `1 finding`, `2 findings`
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// With its zone.
pub(super) fn shown(time_ms: u64, zone: &TimeZone) -> String {
    local(time_ms, zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// `45 min`
pub(crate) fn length(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let exact = units
        .iter()
        .find(|(unit, _name)| ms >= *unit && ms.is_multiple_of(*unit));
    exact.map_or(format!("{ms} ms"), |(unit, name)| format!("{} {name}", ms / unit))
}
