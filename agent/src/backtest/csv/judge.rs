//! The points of a file as windows, and what the detector says of each: as the agent would have, never looking ahead.
//!
//! In: points in order. Out: a row for each window that has a point, and the findings. A row depends on what is above it.

use anyhow::{Result, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tillwatch_core::detect::calendar::{Calendar, Occasion};
use tillwatch_core::detect::{Finding, Judge, Shape, Slot, Verdict};
use tillwatch_feed::score::ScoreState;

use super::Kind;
use super::read::{LINES_MAX, Point, Points};

/// Lines that decide which interval a file has, when nobody says it.
const FIRST_LINES: usize = 24;
/// Windows without a point that are told to the judge: it knows no more after that.
const MISSING_MAX: u64 = 64;
/// Windows longer than this begin with the local day.
const HOUR_MS: u64 = 3_600_000;

/// How a file is judged.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) window_ms: u32,
    /// Declared ends of the values.
    pub(super) range: Option<(f64, f64)>,
    pub(super) zone: TimeZone,
    pub(super) calendar: Calendar,
    /// A window without a point had none of what is counted.
    pub(super) gaps_are_zero: bool,
    /// Each line has a row, and lines that share a window share what is said of it; else each window has one.
    pub(super) is_by_line: bool,
}

/// One window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Of its first point.
    pub(super) line: usize,
    pub(super) time_ms: u64,
    pub(super) time: String,
    pub(super) series: usize,
    /// None when no point of the window has a value.
    pub(super) value: Option<f64>,
    /// With a value.
    pub(super) judged: Option<Judged>,
}

/// What was said of a window, in the unit of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) is_warming: bool,
    pub(super) expected: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) p: f64,
    pub(super) effect: f64,
    /// 0 to 1: of levels how novel it is, else the severity, whose bar is 0.5.
    pub(super) score: f64,
    /// Number of the finding of this series that is open.
    pub(super) finding: Option<usize>,
}

/// A finding of the file, in its unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// Within its series.
    pub(super) number: usize,
    pub(super) series: usize,
    pub(super) start_ms: u64,
    /// End of its last window.
    pub(super) end_ms: u64,
    pub(super) peak_ms: u64,
    /// When it was known.
    pub(super) told_ms: u64,
    pub(super) severity: f64,
    pub(super) effect: f64,
    pub(super) expected: f64,
    pub(super) actual: f64,
    pub(super) is_closed: bool,
}

/// What came out of a file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) rows: Vec<Row>,
    pub(super) findings: Vec<Found>,
    /// Values beyond the declared range, cut to it.
    pub(super) cut: usize,
}

/// The shortest step between two of the first lines of a series.
///
/// # Errors
/// When there are no two times.
pub(super) fn interval_of(points: &[Point]) -> Result<u32> {
    let first = points.iter().take(FIRST_LINES);
    let mut times: Vec<(usize, u64)> = first.map(|point| (point.series, point.time_ms)).collect();
    times.sort_unstable();
    let steps = times.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    let step = steps.map(|pair| pair[1].1 - pair[0].1).filter(|step| *step > 0).min();
    match step.and_then(|step| u32::try_from(step).ok()) {
        Some(step) => Ok(step),
        None => bail!("the first lines do not say how often there is a value\nhint: say it, such as --interval 5m"),
    }
}

/// Judges all series of a file.
///
/// # Errors
/// When there would be too many windows.
pub(super) fn judge(points: &Points, plan: &Plan) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut of_series: Vec<Vec<&Point>> = vec![Vec::new(); points.labels.len()];
    for point in &points.points {
        of_series[point.series].push(point);
    }
    for (series, own) in of_series.iter().enumerate() {
        let mut told = SeriesJudge::new(series, plan);
        for window in own.chunk_by(|one, next| plan.window(one.time_ms) == plan.window(next.time_ms)) {
            told.window(window, &mut outcome)?;
        }
    }
    outcome.rows.sort_by_key(|row| (row.line, row.time_ms));
    Ok(outcome)
}

impl Plan {
    fn shape(&self) -> Shape {
        match self.kind {
            Kind::Count => Shape::Count,
            Kind::Gauge | Kind::Ratio => Shape::Level,
            Kind::Latency => Shape::Latency,
            Kind::Queue => Shape::Depth,
        }
    }

    fn judge(&self) -> Judge {
        match (self.shape(), self.range) {
            (Shape::Level, Some((low, high))) => Judge::of_range(self.inward(low), self.inward(high), self.window_ms),
            (shape, _) => Judge::new(shape, self.window_ms),
        }
    }

    /// Number of the window; beyond an hour windows begin with the local day, below with the hour.
    fn window(&self, time_ms: u64) -> u64 {
        let window_ms = u64::from(self.window_ms);
        if window_ms <= HOUR_MS {
            return time_ms / window_ms;
        }
        let time = i64::try_from(time_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let ahead_s = time.map_or(0, |time| self.zone.to_offset(time).seconds());
        time_ms.saturating_add_signed(i64::from(ahead_s) * 1_000) / window_ms
    }

    /// Only what is counted ends with the opening hours.
    fn place(&self, time_ms: u64) -> (Slot, Occasion) {
        let (slot, occasion) = self.calendar.at(time_ms, &self.zone);
        match self.kind {
            Kind::Count => (slot, occasion),
            _ => (slot, occasion.without_hours()),
        }
    }

    /// The judge has no unit: levels are told in ten-thousandths of their range or unit, durations in millionths.
    fn inward(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Count | Kind::Queue => value,
            Kind::Latency => value * 1e6,
            Kind::Gauge | Kind::Ratio => {
                let (low, high) = self.range.unwrap_or((0.0, 1.0));
                (value - low) / (high - low) * 1e4
            }
        }
    }

    fn outward(&self, value: f64) -> f64 {
        let value = match self.kind {
            Kind::Count | Kind::Queue => value,
            Kind::Latency => value / 1e6,
            Kind::Gauge | Kind::Ratio => {
                let (low, high) = self.range.unwrap_or((0.0, 1.0));
                low + value / 1e4 * (high - low)
            }
        };
        self.range.map_or(value, |(low, high)| value.clamp(low, high))
    }

    /// Of what is counted the sum, of durations the 95th percentile, of all else the mean.
    fn value(&self, mut values: Vec<f64>) -> Option<f64> {
        let count = u32::try_from(values.len()).ok().filter(|count| *count > 0)?;
        match self.kind {
            Kind::Count => Some(values.iter().sum()),
            Kind::Latency => {
                values.sort_unstable_by(f64::total_cmp);
                values.get((values.len() * 95).div_ceil(100).saturating_sub(1)).copied()
            }
            Kind::Gauge | Kind::Ratio | Kind::Queue => Some(values.iter().sum::<f64>() / f64::from(count)),
        }
    }
}

/// The last row is that of all these lines: each gets one with its own value.
fn share_among(points: &[&Point], rows: &mut Vec<Row>) {
    let Some(shared) = rows.pop() else { return };
    rows.extend(points.iter().map(|point| Row {
        line: point.line,
        time_ms: point.time_ms,
        time: point.time.clone(),
        value: point.value,
        ..shared.clone()
    }));
}

/// A series on its way through the file.
struct SeriesJudge<'a> {
    plan: &'a Plan,
    series: usize,
    judge: Judge,
    next_window: Option<u64>,
    /// Findings so far.
    count: usize,
    /// Where the open one stands in the outcome.
    open: Option<usize>,
}

impl<'a> SeriesJudge<'a> {
    fn new(series: usize, plan: &'a Plan) -> Self {
        Self {
            plan,
            series,
            judge: plan.judge(),
            next_window: None,
            count: 0,
            open: None,
        }
    }

    fn window(&mut self, points: &[&Point], outcome: &mut Outcome) -> Result<()> {
        let Some(first) = points.first() else { return Ok(()) };
        let window = self.plan.window(first.time_ms);
        let missing = self.next_window.map_or(0, |next| window.saturating_sub(next));
        self.next_window = Some(window + 1);
        let told = if self.plan.gaps_are_zero {
            missing
        } else {
            missing.min(MISSING_MAX)
        };
        for back in (1..=told).rev() {
            let time_ms = first.time_ms.saturating_sub(back * u64::from(self.plan.window_ms));
            self.empty(first.line, time_ms, outcome);
            if outcome.rows.len() > LINES_MAX {
                bail!("more than {LINES_MAX} windows\nhint: a longer --interval makes fewer");
            }
        }
        let values = points.iter().filter_map(|point| point.value);
        let value = self.plan.value(values.collect()).map(|value| self.cut(value, outcome));
        self.row(first.line, first.time_ms, first.time.clone(), value, outcome);
        if self.plan.is_by_line {
            share_among(points, &mut outcome.rows);
        }
        Ok(())
    }

    fn cut(&self, value: f64, outcome: &mut Outcome) -> f64 {
        let inside = self.plan.range.map_or(value, |(low, high)| value.clamp(low, high));
        outcome.cut += usize::from((inside - value).abs() > 0.0);
        inside
    }

    /// A window without a point.
    fn empty(&mut self, line: usize, time_ms: u64, outcome: &mut Outcome) {
        if self.plan.gaps_are_zero {
            self.row(
                line,
                time_ms,
                super::report::shown(time_ms, &self.plan.zone),
                Some(0.0),
                outcome,
            );
        } else {
            self.step(time_ms, None, outcome);
        }
    }

    fn row(&mut self, line: usize, time_ms: u64, time: String, value: Option<f64>, outcome: &mut Outcome) {
        let judged = self.step(time_ms, value, outcome);
        outcome.rows.push(Row {
            line,
            time_ms,
            time,
            series: self.series,
            value,
            judged,
        });
    }

    fn step(&mut self, time_ms: u64, value: Option<f64>, outcome: &mut Outcome) -> Option<Judged> {
        let place = self.plan.place(time_ms);
        let verdict = self
            .judge
            .step_on(place, time_ms, value.map(|value| self.plan.inward(value)));
        if let Some(finding) = self.judge.take_finding() {
            self.take(&finding, time_ms, outcome);
        }
        verdict.map(|verdict| self.judged(&verdict))
    }

    fn take(&mut self, finding: &Finding, now_ms: u64, outcome: &mut Outcome) {
        let at = match self.open {
            Some(at) => at,
            None => {
                self.count += 1;
                outcome.findings.push(self.found(finding, self.count, now_ms));
                outcome.findings.len() - 1
            }
        };
        let before = &outcome.findings[at];
        outcome.findings[at] = Found {
            told_ms: before.told_ms,
            ..self.found(finding, before.number, now_ms)
        };
        self.open = (!finding.closed).then_some(at);
    }

    fn found(&self, finding: &Finding, number: usize, now_ms: u64) -> Found {
        let window_ms = u64::from(self.plan.window_ms);
        Found {
            number,
            series: self.series,
            start_ms: finding.start_ms,
            end_ms: finding.last_ms + window_ms,
            peak_ms: finding.peak_ms,
            told_ms: now_ms + window_ms,
            severity: f64::from(finding.severity),
            effect: f64::from(finding.effect),
            expected: self.plan.outward(finding.expected),
            actual: self.plan.outward(finding.actual),
            is_closed: finding.closed,
        }
    }

    fn judged(&self, verdict: &Verdict) -> Judged {
        let (lower, upper) = self.judge.band(verdict);
        Judged {
            is_warming: verdict.state == ScoreState::Warming,
            expected: self.plan.outward(verdict.expected),
            lower: self.plan.outward(lower),
            upper: self.plan.outward(upper),
            p: 10_f64.powf(f64::from(verdict.log10_p)),
            effect: f64::from(verdict.effect),
            score: f64::from(verdict.anomaly_score),
            finding: self.open.map(|_at| self.count),
        }
    }
}
