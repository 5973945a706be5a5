//! A CSV file, line by line: time, value, and to which series it belongs.
//!
//! In: text with commas, semicolons or tabs, with a head or without. Out: points in the order of the file, or what is wrong
//! with which line and what to do. Nothing is guessed from lines that come later.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use anyhow::{Context, Result, anyhow, bail};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// Longest line.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines of a file: a year of minutes of nine series.
pub(super) const LINES_MAX: usize = 5_000_000;
/// Series of a file, as an agent has at most.
const SERIES_MAX: usize = 1_000;

const TIMES: [&str; 5] = ["timestamp", "time", "datetime", "date", "ts"];
const VALUES: [&str; 3] = ["value", "count", "y"];
const LABELS: [&str; 3] = ["label", "series", "name"];
const TIME_HINT: &str =
    "write 2026-03-02T11:00:00Z, \"2026-03-02 11:00:00\" in the time of --time-zone, or seconds since 1970";

/// One line of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) line: usize,
    pub(super) time_ms: u64,
    /// As it is written.
    pub(super) time: String,
    /// None when the field is empty, or says that nothing is known.
    pub(super) value: Option<f64>,
    /// Position in the labels.
    pub(super) series: usize,
}

/// A file that was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Points {
    pub(super) points: Vec<Point>,
    /// In the order of their first line; one without a name when the file has no labels.
    pub(super) labels: Vec<String>,
    pub(super) has_labels: bool,
}

/// Where in a line what is.
#[derive(Clone, Copy, Debug)]
struct Columns {
    separator: char,
    time: usize,
    value: usize,
    label: Option<usize>,
}

/// Reads all lines.
///
/// # Errors
/// The first line that cannot be meant.
pub(super) fn read(mut file: impl BufRead, zone: &TimeZone) -> Result<Points> {
    let mut reading = Reading {
        zone,
        columns: None,
        points: Points::default(),
        known: BTreeMap::new(),
        newest: Vec::new(),
    };
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        file.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            break;
        }
        reading.line(line, &bytes).with_context(|| format!("line {line}"))?;
    }
    if reading.points.points.is_empty() {
        bail!("there are no values\nhint: the file needs lines such as 2026-03-02 11:00:00,42");
    }
    Ok(reading.points)
}

struct Reading<'a> {
    zone: &'a TimeZone,
    columns: Option<Columns>,
    points: Points,
    known: BTreeMap<String, usize>,
    /// Of each series.
    newest: Vec<u64>,
}

impl Reading<'_> {
    fn line(&mut self, line: usize, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > LINE_BYTES_MAX || line > LINES_MAX {
            bail!("it is longer than {LINE_BYTES_MAX} bytes, or one of more than {LINES_MAX}\nhint: split the file");
        }
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let text = std::str::from_utf8(bytes)
            .map_err(|error| anyhow!("it is not UTF-8: {error}\nhint: iconv -t UTF-8 makes it so"))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            return Ok(());
        }
        let Some(columns) = self.columns else {
            return self.first(line, text);
        };
        self.point(line, columns, &fields(text, columns.separator))
    }

    /// Names of columns, or the first values.
    fn first(&mut self, line: usize, text: &str) -> Result<()> {
        let separator = [';', '\t'].into_iter().find(|character| text.contains(*character));
        let separator = separator.unwrap_or(',');
        let names = fields(text, separator);
        let is_head =
            time(&names[0], self.zone, None).is_err() && !names[0].starts_with(|first: char| first.is_ascii_digit());
        let of = |known: &[&str], or: usize| {
            let is_known = |name: &String| is_head && known.contains(&name.trim().to_lowercase().as_str());
            names.iter().position(is_known).or((or < names.len()).then_some(or))
        };
        let columns = Columns {
            separator,
            time: of(&TIMES, 0).unwrap_or(0),
            value: of(&VALUES, 1).context("it has one column\nhint: separate time and value with a comma")?,
            label: of(&LABELS, 2),
        };
        self.columns = Some(columns);
        self.points.has_labels = columns.label.is_some();
        if is_head {
            Ok(())
        } else {
            self.point(line, columns, &names)
        }
    }

    fn point(&mut self, line: usize, columns: Columns, fields: &[String]) -> Result<()> {
        let field = |at: usize| fields.get(at).map(|field| field.trim());
        let label = match columns.label {
            Some(at) => field(at).with_context(|| format!("it has no column {} for the label", at + 1))?,
            None => "",
        };
        let series = self.series(label)?;
        let text = field(columns.time).unwrap_or_default();
        let newest_ms = self.newest.get(series).copied().filter(|newest| *newest > 0);
        let time_ms = time(text, self.zone, newest_ms)?;
        if newest_ms.is_some_and(|newest_ms| time_ms < newest_ms) {
            bail!("{text} is before the line above\nhint: sort the file by time; what is judged never looks ahead");
        }
        let value =
            field(columns.value).with_context(|| format!("it has no column {} for the value", columns.value + 1))?;
        let value = number(value, columns.separator)?;
        self.newest[series] = time_ms;
        self.points.points.push(Point {
            line,
            time_ms,
            time: text.to_owned(),
            value,
            series,
        });
        Ok(())
    }

    fn series(&mut self, label: &str) -> Result<usize> {
        if let Some(series) = self.known.get(label) {
            return Ok(*series);
        }
        let series = self.points.labels.len();
        if series >= SERIES_MAX {
            bail!("{label:?} is one label too many: at most {SERIES_MAX} series are judged\nhint: split the file");
        }
        self.known.insert(label.to_owned(), series);
        self.points.labels.push(label.to_owned());
        self.newest.push(0);
        Ok(series)
    }
}

/// Of a local hour that comes twice, the second one once the first has passed.
fn time(text: &str, zone: &TimeZone, newest_ms: Option<u64>) -> Result<u64> {
    let text = text.trim();
    let known = || format!("{text:?} is no time\nhint: {TIME_HINT}");
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return epoch_ms(text).with_context(known);
    }
    let unix_ms = |time: Timestamp| u64::try_from(time.as_millisecond()).ok().with_context(known);
    if let Ok(time) = text.parse::<Timestamp>() {
        return unix_ms(time);
    }
    let local: DateTime = text.parse().ok().with_context(known)?;
    let both = zone.to_ambiguous_timestamp(local);
    if matches!(both.offset(), AmbiguousOffset::Gap { .. }) {
        bail!(
            "{text} never was: clocks went forward over it in {}\n\
             hint: the times are of another zone: say it with --time-zone, or write them as 2026-03-02T11:00:00+01:00",
            zone.iana_name().unwrap_or("that zone")
        );
    }
    let first_ms = unix_ms(both.earlier()?)?;
    if newest_ms.is_some_and(|newest_ms| first_ms <= newest_ms) {
        return unix_ms(both.later()?);
    }
    Ok(first_ms)
}

/// Seconds, or milliseconds where seconds would be after the year 5000.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "digits only, and bounded"
)]
fn epoch_ms(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    let ms = if number < 1e11 { number * 1_000.0 } else { number };
    let last = Timestamp::UNIX_EPOCH.checked_add(1_000_000.hours()).ok()?;
    let is_meant = (1e8..=last.as_millisecond() as f64).contains(&ms);
    is_meant.then_some(ms.round() as u64)
}

fn number(text: &str, separator: char) -> Result<Option<f64>> {
    if ["", "na", "n/a", "nan", "null", "none", "-"].contains(&text.to_lowercase().as_str()) {
        return Ok(None);
    }
    let point = if separator == ',' {
        text.to_owned()
    } else {
        text.replace(',', ".")
    };
    let value: Option<f64> = point.parse().ok().filter(|value: &f64| value.is_finite());
    let value = value.with_context(|| {
        format!(
            "{text:?} is no number\nhint: write 1234.5, without thousands separators, or nothing when it is not known"
        )
    })?;
    Ok(Some(value))
}

/// The fields of a line; in quotes a separator is text, and two quotes are one.
fn fields(line: &str, separator: char) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let is_last = fields.len() - 1;
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields[is_last].push('"');
            }
            '"' => is_quoted = !is_quoted,
            _ if character == separator && !is_quoted => fields.push(String::new()),
            _ => fields[is_last].push(character),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin(text: &str) -> Result<Points> {
        read(text.as_bytes(), &TimeZone::get("Europe/Berlin").unwrap())
    }

    fn times(text: &str) -> Vec<u64> {
        let points = berlin(text).unwrap().points;
        points.into_iter().map(|point| point.time_ms / 1_000).collect()
    }

    #[test]
    fn times_are_read_as_people_and_machines_write_them() {
        assert_eq!(
            times("2026-03-02T11:00:00Z,1\n2026-03-02 13:00:00,1\n1772456400,1\n1772456400000,1\n"),
            [1_772_449_200, 1_772_452_800, 1_772_456_400, 1_772_456_400]
        );
        assert_eq!(
            times("2026-03-02 13:00,1\n2026-03-03,1\n"),
            [1_772_452_800, 1_772_492_400]
        );
    }

    #[test]
    fn the_hour_that_comes_twice_is_told_apart_by_its_order() {
        let times =
            times("2026-10-25 02:00:00,1\n2026-10-25 02:30:00,1\n2026-10-25 02:00:00,1\n2026-10-25 02:30:00,1\n");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1_800), "{times:?}");
    }

    #[test]
    fn columns_are_found_by_name_and_separators_by_the_first_line() {
        let points = berlin("value;time;label\n1,5;2026-03-02 13:00:00;\"a;\"\"b\"\n;2026-03-02 13:05:00;c\n").unwrap();
        assert_eq!(points.labels, ["a;\"b", "c"]);
        assert_eq!(points.points[0].value, Some(1.5));
        assert_eq!(points.points[1].value, None);
        assert!(points.has_labels && !berlin("t,v\n1772452800,1\n").unwrap().has_labels);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_to_do() {
        let cases = [
            ("time,value\nyesterday,1\n", "line 2", "is no time"),
            ("1772452800,1\n1772452800,many\n", "line 2", "is no number"),
            ("1772452800,inf\n", "line 1", "is no number"),
            ("1772452800,1\n1772452799,1\n", "line 2", "sort the file"),
            ("1772452800\n", "line 1", "one column"),
            ("1772452800,1\n1772452801\n", "line 2", "no column 2"),
            ("time,value\n", "", "no values"),
            (
                "2026-03-29 02:30:00,1\n",
                "line 1",
                "clocks went forward over it in Europe/Berlin",
            ),
        ];
        for (text, place, what) in cases {
            let error = crate::output::told(&berlin(text).unwrap_err());
            assert!(error.contains(place) && error.contains(what), "{text:?}: {error}");
        }
        assert!(berlin(&format!("1772452800,{}\n", "1".repeat(70_000))).is_err());
    }
}
