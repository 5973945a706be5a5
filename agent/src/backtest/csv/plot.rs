//! The picture of a backtest: all of the file above, and below it the findings that matter most, each close up.
//!
//! In: rows and findings. Out: an SVG that needs nothing else; light, and as wide as a page.
//! Of many windows in one column of pixels the least and the most are drawn, so that no peak is lost.

use std::fmt::Write as _;

use super::judge::{Found, Judged, Row};
use super::report::{Report, counted, length};
use crate::evidence::{local, short};

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const OVERVIEW_HEIGHT: f64 = 170.0;
const CLOSE_HEIGHT: f64 = 190.0;
/// Room for the title above a panel and the times below it.
const ABOVE: f64 = 34.0;
const BELOW: f64 = 26.0;
const HEAD: f64 = 62.0;
/// Series that are drawn: those with the worst findings.
const SERIES_MAX: usize = 4;
/// Findings that are drawn close up.
const CLOSE_MAX: usize = 4;
/// Columns of pixels in a panel.
const COLUMNS: usize = 920;
/// A finding is shown with at least so much around it.
const AROUND_MS: u64 = 6 * 3_600_000;

const STYLE: &str = "text{font-family:system-ui,sans-serif;font-size:12px;fill:#333}\
.title{font-size:14px;font-weight:600;fill:#111}.head{font-size:18px;font-weight:600;fill:#111}\
.band{fill:#b9d4ee;stroke:none}.expected{fill:none;stroke:#2f6fb2;stroke-width:1.2}\
.value{fill:none;stroke:#222;stroke-width:1.1;stroke-linejoin:round}.finding{fill:#e5484d;fill-opacity:.22}\
.mark{fill:#c62a2f}.learning{fill:#000;fill-opacity:.06}.grid{stroke:#ddd;stroke-width:1}.frame{fill:none;stroke:#bbb}";

/// The picture of all of it.
pub(super) fn svg(report: &Report<'_>) -> String {
    let series = shown_series(report);
    let close = worst(report, &series);
    let panels = series.len().max(1) as f64 * (OVERVIEW_HEIGHT + ABOVE + BELOW)
        + close.len() as f64 * (CLOSE_HEIGHT + ABOVE + BELOW);
    let height = HEAD + panels + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    legend(&mut out, report);
    let mut top = HEAD;
    for series in &series {
        let rows: Vec<&Row> = report.outcome.rows.iter().filter(|row| row.series == *series).collect();
        let title = overview_title(report, *series, &rows);
        panel(&mut out, report, &rows, &title, top, OVERVIEW_HEIGHT);
        top += OVERVIEW_HEIGHT + ABOVE + BELOW;
    }
    for found in close {
        let rows = around(report, found);
        let title = format!("Finding {}: {}", found.number, report.evidence(found));
        panel(&mut out, report, &rows, &title, top, CLOSE_HEIGHT);
        top += CLOSE_HEIGHT + ABOVE + BELOW;
    }
    out.push_str("</svg>\n");
    out
}

fn severity_of(report: &Report<'_>, series: usize) -> f64 {
    let own = report.outcome.findings.iter().filter(|found| found.series == series);
    own.map(|found| found.severity).fold(0.0, f64::max)
}

fn shown_series(report: &Report<'_>) -> Vec<usize> {
    let mut series: Vec<usize> = (0..report.points.labels.len()).collect();
    series.sort_by(|one, other| severity_of(report, *other).total_cmp(&severity_of(report, *one)));
    series.truncate(SERIES_MAX);
    series
}

fn worst<'a>(report: &'a Report<'_>, series: &[usize]) -> Vec<&'a Found> {
    let findings = report.outcome.findings.iter();
    let mut shown: Vec<&Found> = findings.filter(|found| series.contains(&found.series)).collect();
    shown.sort_by(|one, other| other.severity.total_cmp(&one.severity));
    shown.truncate(CLOSE_MAX);
    shown.sort_by_key(|found| found.start_ms);
    shown
}

fn around<'a>(report: &'a Report<'_>, found: &Found) -> Vec<&'a Row> {
    let long_ms = found.end_ms.saturating_sub(found.start_ms);
    let around_ms = AROUND_MS.max(long_ms).max(20 * u64::from(report.plan.window_ms));
    let range = found.start_ms.saturating_sub(around_ms)..found.end_ms + around_ms;
    let rows = report.outcome.rows.iter();
    rows.filter(|row| row.series == found.series && range.contains(&row.time_ms))
        .collect()
}

fn overview_title(report: &Report<'_>, series: usize, rows: &[&Row]) -> String {
    let name = report.points.labels.get(series).map_or("", String::as_str);
    let findings = report
        .outcome
        .findings
        .iter()
        .filter(|found| found.series == series)
        .count();
    let windows = length(u64::from(report.plan.window_ms));
    format!(
        "All of {name}: {} windows of {windows}, {}",
        rows.len(),
        counted(findings, "finding")
    )
}

fn legend(out: &mut String, report: &Report<'_>) {
    let rate = report.summary();
    let rate = rate.lines().nth(1).unwrap_or_default();
    text(out, LEFT, 24.0, "head", "start", rate);
    let entries = [
        (
            "<rect class=\"band\" width=\"22\" height=\"10\"/>",
            "9 of 10 windows are expected here",
            265.0,
        ),
        ("<path class=\"expected\" d=\"M0 5h22\"/>", "expected", 110.0),
        ("<path class=\"value\" d=\"M0 5h22\"/>", "value", 90.0),
        ("<rect class=\"finding\" width=\"22\" height=\"10\"/>", "finding", 100.0),
        (
            "<rect class=\"learning\" width=\"22\" height=\"10\"/>",
            "still learning, not judged",
            0.0,
        ),
    ];
    let mut left = LEFT;
    for (shape, name, width) in entries {
        put(out, format_args!("<g transform=\"translate({left} 38)\">{shape}</g>"));
        text(out, left + 28.0, 47.0, "", "start", name);
        left += width;
    }
}

/// Where in the picture a time and a value are.
struct Scale {
    top: f64,
    height: f64,
    from_ms: u64,
    to_ms: u64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, time_ms: u64) -> f64 {
        let time_ms = time_ms.clamp(self.from_ms, self.to_ms);
        let share = (time_ms - self.from_ms) as f64 / (self.to_ms - self.from_ms).max(1) as f64;
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.top + self.height * (1.0 - share)
    }

    fn box_between(&self, from_ms: u64, to_ms: u64) -> String {
        let (from, to) = (self.x(from_ms), self.x(to_ms));
        let width = (to - from).max(1.5);
        format!(
            "x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"",
            self.top, self.height
        )
    }
}

fn panel(out: &mut String, report: &Report<'_>, rows: &[&Row], title: &str, top: f64, height: f64) {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return;
    };
    let window_ms = u64::from(report.plan.window_ms);
    let (low, high) = extent(report, rows);
    let scale = Scale {
        top: top + ABOVE,
        height,
        from_ms: first.time_ms,
        to_ms: last.time_ms + window_ms,
        low,
        high,
    };
    text(out, LEFT, top + ABOVE - 10.0, "title", "start", &cut(title, 130));
    grid(out, report, &scale);
    learning(out, rows, &scale, window_ms);
    let findings = report
        .outcome
        .findings
        .iter()
        .filter(|found| found.series == first.series);
    for found in findings.filter(|found| found.end_ms > scale.from_ms && found.start_ms < scale.to_ms) {
        let place = scale.box_between(found.start_ms, found.end_ms);
        put(out, format_args!("<rect class=\"finding\" {place}/>"));
        let x = scale.x(found.start_ms);
        put(
            out,
            format_args!("<path class=\"mark\" d=\"M{x:.1} {0:.1}l-5 -7h10z\"/>", scale.top),
        );
    }
    curves(out, rows, &scale, window_ms);
    put(
        out,
        format_args!(
            "<rect class=\"frame\" {}/>",
            scale.box_between(scale.from_ms, scale.to_ms)
        ),
    );
}

/// From the least to the most, of the declared range when there is one; what is counted begins at nothing.
fn extent(report: &Report<'_>, rows: &[&Row]) -> (f64, f64) {
    if let Some(range) = report.plan.range {
        return range;
    }
    let judged = rows
        .iter()
        .filter_map(|row| row.judged)
        .filter(|judged| !judged.is_warming);
    let bands = judged.flat_map(|judged| [judged.lower, judged.upper]);
    let values = rows.iter().filter_map(|row| row.value).chain(bands);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let low = if low > 0.0 && low < high * 0.6 { 0.0 } else { low };
    let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    (if low.abs() > 0.0 { low - room } else { low }, high + room)
}

fn grid(out: &mut String, report: &Report<'_>, scale: &Scale) {
    for value in steps(scale.low, scale.high) {
        let y = scale.y(value);
        put(
            out,
            format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>", WIDTH - RIGHT),
        );
        text(out, LEFT - 6.0, y + 4.0, "", "end", &short(value));
    }
    let long_ms = scale.to_ms - scale.from_ms;
    let format = match long_ms {
        _ if long_ms > 20 * 86_400_000 => "%b %-d",
        _ if long_ms > 2 * 86_400_000 => "%a %b %-d",
        _ => "%a %H:%M",
    };
    for time_ms in ticks(scale.from_ms, scale.to_ms, report) {
        let x = scale.x(time_ms);
        let bottom = scale.top + scale.height;
        put(
            out,
            format_args!("<path class=\"grid\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/>", scale.top),
        );
        let shown = local(time_ms, &report.plan.zone).strftime(format).to_string();
        if (LEFT + 20.0..WIDTH - RIGHT - 24.0).contains(&x) {
            text(out, x, bottom + 16.0, "", "middle", &shown);
        }
    }
}

/// Round values, about four of them.
fn steps(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let ten = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * ten)
        .into_iter()
        .find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil() * step;
    let all = (0..8).map(|at| first + f64::from(at) * step);
    all.take_while(|value| *value <= high).collect()
}

/// Local midnights, or hours of a shorter time, at most about ten.
fn ticks(from_ms: u64, to_ms: u64, report: &Report<'_>) -> Vec<u64> {
    const STEPS_H: [u64; 11] = [1, 2, 3, 6, 12, 24, 48, 168, 336, 720, 2_160];
    let long_h = (to_ms - from_ms).div_ceil(3_600_000);
    let step_h = STEPS_H.into_iter().find(|step| long_h / step <= 10).unwrap_or(8_760);
    let ahead_ms = i64::from(local(from_ms, &report.plan.zone).offset().seconds()) * 1_000;
    let step_ms = step_h * 3_600_000;
    let first = from_ms.saturating_add_signed(ahead_ms).div_ceil(step_ms) * step_ms;
    let first = first.saturating_add_signed(-ahead_ms);
    let at = |number: u64| first + number * step_ms;
    (0..=10)
        .map(at)
        .filter(|time_ms| (from_ms..to_ms).contains(time_ms))
        .collect()
}

fn learning(out: &mut String, rows: &[&Row], scale: &Scale, window_ms: u64) {
    let warming = |row: &&&Row| row.judged.is_some_and(|judged| judged.is_warming);
    for run in rows.chunk_by(|one, next| warming(&one) == warming(&next)) {
        if let (Some(first), Some(last)) = (run.first().filter(warming), run.last()) {
            let place = scale.box_between(first.time_ms, last.time_ms + window_ms);
            put(out, format_args!("<rect class=\"learning\" {place}/>"));
        }
    }
}

/// What is drawn in one column of pixels.
#[derive(Clone, Copy)]
struct Column {
    x: f64,
    band: Option<(f64, f64)>,
    expected: Option<f64>,
    /// Least, most.
    value: Option<(f64, f64)>,
}

fn curves(out: &mut String, rows: &[&Row], scale: &Scale, window_ms: u64) {
    let columns = columns(rows, scale, window_ms);
    for run in columns.chunk_by(|one, next| one.band.is_some() == next.band.is_some()) {
        put(
            out,
            format_args!("<path class=\"band\" d=\"{}\"/>", outline(run, scale)),
        );
    }
    put(
        out,
        format_args!(
            "<path class=\"expected\" d=\"{}\"/>",
            line(&columns, scale, |column| {
                column.expected.map(|value| (value, value))
            })
        ),
    );
    put(
        out,
        format_args!(
            "<path class=\"value\" d=\"{}\"/>",
            line(&columns, scale, |column| column.value)
        ),
    );
}

fn columns(rows: &[&Row], scale: &Scale, window_ms: u64) -> Vec<Column> {
    let each = rows.len().div_ceil(COLUMNS).max(1);
    let column = |rows: &[&Row]| {
        let judged = || {
            rows.iter()
                .filter_map(|row| row.judged)
                .filter(|judged| !judged.is_warming)
        };
        let least = |of: fn(Judged) -> f64| judged().map(of).reduce(f64::min);
        let most = |of: fn(Judged) -> f64| judged().map(of).reduce(f64::max);
        let values = || rows.iter().filter_map(|row| row.value);
        let count = u32::try_from(judged().count()).unwrap_or(1).max(1);
        Column {
            x: rows.first().map_or(LEFT, |row| scale.x(row.time_ms + window_ms / 2)),
            band: least(|judged| judged.lower).zip(most(|judged| judged.upper)),
            expected: least(|judged| judged.expected)
                .map(|_some| judged().map(|judged| judged.expected).sum::<f64>() / f64::from(count)),
            value: values().reduce(f64::min).zip(values().reduce(f64::max)),
        }
    };
    rows.chunks(each).map(column).collect()
}

fn outline(run: &[Column], scale: &Scale) -> String {
    let mut path = String::new();
    let upper = run.iter().filter_map(|column| Some((column.x, column.band?.1)));
    let lower = run.iter().rev().filter_map(|column| Some((column.x, column.band?.0)));
    for (at, (x, value)) in upper.chain(lower).enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        put(&mut path, format_args!("{letter}{x:.1} {:.1}", scale.y(value)));
    }
    path
}

/// A line that is broken where nothing is known.
fn line(columns: &[Column], scale: &Scale, of: impl Fn(&Column) -> Option<(f64, f64)>) -> String {
    let mut path = String::new();
    let mut letter = 'M';
    for column in columns {
        let Some((least, most)) = of(column) else {
            letter = 'M';
            continue;
        };
        let (x, low, high) = (column.x, scale.y(least), scale.y(most));
        put(&mut path, format_args!("{letter}{x:.1} {low:.1}"));
        if (low - high).abs() > 0.5 {
            put(&mut path, format_args!("V{high:.1}"));
        }
        letter = 'L';
    }
    path
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    put(
        out,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{escaped}</text>"),
    );
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all text");
}
