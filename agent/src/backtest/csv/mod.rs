//! `tillwatch backtest FILE`: what the detector would have said of any file of times and values, without a plugin.
//!
//! ```text
//!  CSV ─► points ─► windows ─► detector ─► rows with expected, lower, upper, p, effect, anomaly_score, finding
//!                                      └─► findings ─► summary, picture
//! ```
//! In: a CSV file, or standard input. Out: the rows on standard output, the summary on standard error, a picture on demand.
//! The detector is the agent's own, and causal: the first lines of a file give the first lines of the output.

mod judge;
mod plot;
mod read;
mod report;

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use flate2::read::MultiGzDecoder;
use jiff::tz::TimeZone;

use crate::config::calendar_of;
use crate::config::units::duration_ms;
use crate::output;
use crate::source::gzip;
use judge::{Plan, interval_of, judge};
use read::{Points, read};
use report::Report;
pub(crate) use report::length;

/// Windows of the detector.
const WINDOW_RANGE_MS: (u32, u32) = (1_000, 86_400_000);

/// What the values of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// What happens in the time: sales, requests, amounts of money. Rows of one window are added.
    Count,
    /// A level: temperature, memory, stock. Rows of one window are averaged.
    Gauge,
    /// A duration. Of the rows of one window the 95th percentile is taken.
    Latency,
    /// A share between 0 and 1, or within --range.
    Ratio,
    /// Things that wait: fewer are better.
    Queue,
}

/// How a CSV file is read, judged and drawn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a CSV file")]
pub(super) struct Options {
    /// What the values are.
    #[arg(long, value_enum, conflicts_with = "plugin", required_unless_present = "plugin")]
    kind: Option<Kind>,
    /// Length of a window, such as 5m; by default the shortest step in the first 24 lines.
    #[arg(long, value_name = "TIME", conflicts_with = "plugin")]
    interval: Option<String>,
    /// Ends of the values that are known beforehand, such as 0..100.
    #[arg(
        long,
        value_name = "LOW..HIGH",
        conflicts_with = "plugin",
        allow_hyphen_values = true
    )]
    range: Option<String>,
    /// Whose days and weeks the values follow, and the zone of times without one.
    #[arg(long, value_name = "ZONE", default_value = "UTC", conflicts_with = "plugin")]
    time_zone: String,
    /// An agent.toml, or a file with its [calendar]: opening hours, holidays and promotions.
    #[arg(long, value_name = "FILE", conflicts_with = "plugin")]
    calendar: Option<PathBuf>,
    /// What a window without a line means; by default that nothing is known of it.
    #[arg(long, value_enum, default_value = "missing", conflicts_with = "plugin")]
    gaps: Gaps,
    /// Draw the values, what was expected, and the findings.
    #[arg(long, value_name = "FILE.svg", conflicts_with = "plugin")]
    plot: Option<PathBuf>,
}

/// What a window without a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Gaps {
    /// Nothing is known of it.
    Missing,
    /// There was none: as in a file with a line for each sale.
    Zero,
}

/// Judges the file, and prints what came out.
///
/// # Errors
/// When an option or a line of the file cannot be meant.
pub(super) fn run(options: &Options, files: &[PathBuf], is_json: bool) -> Result<ExitCode> {
    let [file] = files else {
        bail!(
            "without --plugin one CSV file is judged, not {}\nhint: name them one after another",
            files.len()
        );
    };
    let zone = zone(&options.time_zone)?;
    let points = points(file, &zone).with_context(|| file.display().to_string())?;
    let plan = plan(options, zone, &points)?;
    let outcome = judge(&points, &plan)?;
    let report = Report::new(&points, &plan, &outcome);
    for line in report.lines(is_json) {
        output::line(&line)?;
    }
    if !is_json {
        output::error(&report.summary());
    }
    if let Some(path) = &options.plot {
        std::fs::write(path, plot::svg(&report)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn points(file: &Path, zone: &TimeZone) -> Result<Points> {
    if file.as_os_str() == "-" {
        return read(stdin().lock(), zone);
    }
    let opened = File::open(file).context("cannot be opened")?;
    let lines: Box<dyn BufRead> = if gzip::is_compressed(file) {
        Box::new(BufReader::new(MultiGzDecoder::new(opened)))
    } else {
        Box::new(BufReader::new(opened))
    };
    let mut points = read(lines, zone)?;
    if !points.has_labels {
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        points.labels = vec![name.split('.').next().unwrap_or_default().to_owned()];
    }
    Ok(points)
}

fn zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_unknown| {
        anyhow!("--time-zone: this machine knows no {name:?}\nhint: write a name such as Europe/Berlin")
    })
}

fn plan(options: &Options, zone: TimeZone, points: &Points) -> Result<Plan> {
    let kind = options.kind.context("--kind is missing")?;
    let window_ms = match &options.interval {
        Some(text) => {
            let ms =
                duration_ms(text).map_err(|mistake| anyhow!("--interval {}\nhint: {}", mistake.what, mistake.hint))?;
            u32::try_from(ms).unwrap_or(u32::MAX)
        }
        None => interval_of(&points.points)?,
    };
    let (least, most) = WINDOW_RANGE_MS;
    ensure!(
        (least..=most).contains(&window_ms),
        "windows of {window_ms} ms cannot be judged\nhint: --interval takes 1s to 1d"
    );
    let declared = options.range.as_deref().map(range).transpose()?;
    Ok(Plan {
        kind,
        window_ms,
        range: declared.or((kind == Kind::Ratio).then_some((0.0, 1.0))),
        zone,
        calendar: options
            .calendar
            .as_deref()
            .map(calendar_of)
            .transpose()?
            .unwrap_or_default(),
        gaps_are_zero: options.gaps == Gaps::Zero,
        is_by_line: options.interval.is_none(),
    })
}

fn range(text: &str) -> Result<(f64, f64)> {
    let ends = text.split_once("..").and_then(|(low, high)| {
        let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
        (low < high && low.is_finite() && high.is_finite()).then_some((low, high))
    });
    ends.with_context(|| format!("--range {text} is no range\nhint: write the lower end first, such as 0..100"))
}

#[cfg(test)]
mod tests {
    use super::judge::Outcome;
    use super::*;

    const WINDOW_MS: u64 = 900_000;
    /// Monday, 16 February 2026, midnight in Berlin.
    const START_MS: u64 = 1_771_196_400_000;

    /// Four weeks of a store in quarter-hours, from 8 to 20 h, with an hour and a half of a fourth of its sales.
    fn sales() -> String {
        let mut state = 11_u32;
        let mut text = "timestamp,value\n".to_owned();
        for window in 0..28 * 96_u64 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 24) / 8;
            let is_open = (32..80).contains(&(window % 96));
            let usual = if is_open { 84 + noise } else { 0 };
            let is_incident = (23 * 96 + 40..23 * 96 + 46).contains(&window);
            let value = if is_incident { usual / 4 } else { usual };
            text += &format!("{},{value}\n", (START_MS + window * WINDOW_MS) / 1_000);
        }
        text
    }

    fn plan_of(kind: Kind, zone: &str) -> Plan {
        Plan {
            kind,
            window_ms: u32::try_from(WINDOW_MS).unwrap(),
            range: None,
            zone: TimeZone::get(zone).unwrap(),
            calendar: Default::default(),
            gaps_are_zero: false,
            is_by_line: false,
        }
    }

    fn lines_and_outcome(text: &str, plan: &Plan) -> (Vec<String>, Outcome, String, String) {
        let points = read(text.as_bytes(), &plan.zone).unwrap();
        let outcome = judge(&points, plan).unwrap();
        let report = Report::new(&points, plan, &outcome);
        let (lines, summary, picture) = (report.lines(false), report.summary(), plot::svg(&report));
        (lines, outcome, summary, picture)
    }

    /// Where a clock stumbles, two lines fall into one window.
    #[test]
    fn each_line_has_its_row_where_nobody_asks_for_an_interval() {
        let text = "timestamp,value\n2026-03-02T10:00:00Z,5\n2026-03-02T10:15:00Z,6\n2026-03-02T10:15:00Z,8\n";
        for (is_by_line, values) in [(true, vec!["5", "6", "8"]), (false, vec!["5", "7"])] {
            let plan = Plan {
                is_by_line,
                ..plan_of(Kind::Gauge, "UTC")
            };
            let (lines, outcome, ..) = lines_and_outcome(text, &plan);
            let told: Vec<_> = lines[1..].iter().filter_map(|line| line.split(',').nth(1)).collect();
            assert_eq!(told, values);
            let judged = |row: usize| outcome.rows[row].judged;
            assert_eq!(judged(1), judged(values.len() - 1), "they share a window");
        }
    }

    #[test]
    fn an_hour_and_a_half_of_lost_sales_is_the_one_finding_of_four_weeks() {
        let plan = plan_of(Kind::Count, "Europe/Berlin");
        let (lines, outcome, summary, picture) = lines_and_outcome(&sales(), &plan);
        assert_eq!(lines.len(), 28 * 96 + 1);
        assert_eq!(outcome.findings.len(), 1, "{summary}");
        let found = &outcome.findings[0];
        let incident_ms = START_MS + (23 * 96 + 40) * WINDOW_MS;
        assert!(
            (incident_ms..incident_ms + 3 * WINDOW_MS).contains(&found.start_ms),
            "{summary}"
        );
        assert!(
            found.is_closed && found.effect < 0.0 && found.told_ms <= incident_ms + 4 * WINDOW_MS,
            "{summary}"
        );
        assert!(
            summary.contains("fewer than expected in all") && summary.contains("for Wednesday"),
            "{summary}"
        );
        assert!(
            picture.starts_with("<svg") && picture.contains("Finding 1: "),
            "{picture}"
        );
        assert_eq!(picture.matches("class=\"finding\" x=").count(), 2, "above and close up");
        let with_finding = lines.iter().filter(|line| line.ends_with(",1")).count();
        assert!((3..12).contains(&with_finding), "{with_finding}");
    }

    #[test]
    fn the_first_lines_of_a_file_give_the_first_lines_of_the_output() {
        let labeled = |text: &str| -> String {
            let lines = text.lines().skip(1).map(|line| format!("{line},one\n{line},two\n"));
            std::iter::once("timestamp,value,label\n".to_owned())
                .chain(lines)
                .collect()
        };
        let text = labeled(&sales());
        let plan = plan_of(Kind::Count, "Europe/Berlin");
        let (all, ..) = lines_and_outcome(&text, &plan);
        for kept in [25, 1_000, 4_500, 4_512] {
            let beginning: String = text.lines().take(kept).map(|line| format!("{line}\n")).collect();
            let points = read(beginning.as_bytes(), &plan.zone).unwrap();
            assert_eq!(interval_of(&points.points).unwrap(), plan.window_ms);
            let (lines, ..) = lines_and_outcome(&beginning, &plan);
            assert_eq!(lines, all[..kept], "{kept}");
        }
    }

    #[test]
    fn rows_of_one_window_are_one_row_and_what_is_missing_is_no_zero_unless_said() {
        let text = "1772406000,4\n1772406060,2\n1772410000,6\n";
        let of = |kind: Kind, gaps_are_zero: bool| -> Vec<Option<f64>> {
            let plan = Plan {
                gaps_are_zero,
                ..plan_of(kind, "UTC")
            };
            let points = read(text.as_bytes(), &plan.zone).unwrap();
            judge(&points, &plan)
                .unwrap()
                .rows
                .into_iter()
                .map(|row| row.value)
                .collect()
        };
        assert_eq!(of(Kind::Count, false), [Some(6.0), Some(6.0)]);
        assert_eq!(of(Kind::Gauge, false), [Some(3.0), Some(6.0)]);
        assert_eq!(of(Kind::Latency, false), [Some(4.0), Some(6.0)]);
        assert_eq!(
            of(Kind::Count, true),
            [Some(6.0), Some(0.0), Some(0.0), Some(0.0), Some(6.0)]
        );
    }

    #[test]
    fn days_begin_at_local_midnight_also_when_the_clock_is_changed() {
        let days: String = (0..30)
            .map(|day| format!("2026-03-{:02},{}\n", day + 1, 100 + day))
            .collect();
        let plan = Plan {
            window_ms: 86_400_000,
            ..plan_of(Kind::Count, "Europe/Berlin")
        };
        let (lines, ..) = lines_and_outcome(&days, &plan);
        assert_eq!(lines.len(), 31);
    }

    #[test]
    fn what_is_beyond_the_declared_range_is_cut_and_told() {
        assert_eq!(range("-5..100").unwrap(), (-5.0, 100.0));
        for wrong in ["5", "5..1", "a..b", "0..inf"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        let plan = Plan {
            range: Some((0.0, 100.0)),
            ..plan_of(Kind::Gauge, "UTC")
        };
        let (_lines, outcome, summary, _picture) = lines_and_outcome("1772406000,40\n1772406900,140\n", &plan);
        assert_eq!(outcome.rows[1].value, Some(100.0));
        assert!(summary.contains("1 value beyond --range"), "{summary}");
    }
}
