//! IIS's W3C extended log format, whose `#Fields:` say what the columns are and may change inside a file.
//!
//! ```text
//! #Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) sc-status time-taken
//! 2026-11-23 06:38:47 10.0.0.1 POST /pay card=1 443 - 10.0.0.7 Mozilla/5.0+(till-02) 200 15
//! ```
//! Source: W3C Working Draft WD-logfile-960323; times are in UTC.

use memchr::{memchr, memchr2};
use tillwatch_sdk::parse::Wrong;

use crate::Settings;
use crate::latency::{LatencyUnit, latency_us};
use crate::line::{Request, status_or_none, unless_out_of_range};
use crate::times::Times;

const FIELDS_BYTES_MAX: usize = 4096;
const DATE_BYTES: usize = 10;
/// `2026-11-23 06:38:47.123`; a longer one is none.
const CLOCK_BYTES_MAX: usize = 13;
const DAY_MS: i64 = 86_400_000;
/// A clock that goes back by more is one behind midnight.
const BACK_MINUTES: u16 = 12 * 60;
/// A clock that goes forward by more is that of a line before midnight which came late.
const LATE_MINUTES: u16 = 24 * 60 - 4;
/// Windows' `ERROR_NETNAME_DELETED`: the client closed the connection before it had the answer.
const CLIENT_CLOSED: &[u8] = b"64";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Skip,
    Date,
    Clock,
    Target,
    Status,
    Windows,
    Latency,
}

/// Reads W3C lines.
#[derive(Debug)]
pub(crate) struct W3c {
    /// The name of the duration's column, in lower case.
    latency: String,
    unit: LatencyUnit,
    /// As last written in the log.
    fields: String,
    columns: Vec<Column>,
    day: Day,
}

/// The day of lines without a date: that of the last `#Date:`, and how often midnight passed since.
#[derive(Debug)]
struct Day {
    /// As `#Date:` has it.
    date: [u8; DATE_BYTES],
    midnights: i64,
    /// The minute of the day of the last line, or of `#Date:`.
    minute: Option<u16>,
}

impl W3c {
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let latency = match settings.field_latency.as_str() {
            "" => "time-taken",
            field => field,
        };
        let mut w3c = Self {
            latency: latency.to_ascii_lowercase(),
            unit: settings.latency_unit,
            fields: String::new(),
            columns: Vec::new(),
            day: Day {
                date: *b"0000-00-00",
                midnights: 0,
                minute: None,
            },
        };
        let fields = settings.log_format.trim();
        let fields = fields.strip_prefix("#Fields:").unwrap_or(fields).trim();
        if !fields.is_empty() && !w3c.set_fields(fields) {
            return Err("log_format: is no list of fields that holds a time".to_owned());
        }
        Ok(w3c)
    }

    /// What lines that follow need; empty before the first `#Fields:`.
    pub(crate) fn fields(&self) -> &str {
        &self.fields
    }

    /// The day of the next line as text.
    pub(crate) fn day(&self) -> String {
        let Day {
            date,
            midnights,
            minute,
        } = &self.day;
        let minute = minute.map_or("-".to_owned(), |minute| minute.to_string());
        format!("{} {midnights} {minute}", String::from_utf8_lossy(date))
    }

    /// Takes what `day` gave; anything else is as none.
    pub(crate) fn set_day(&mut self, day: &str) {
        let mut parts = day.split(' ');
        let mut next = || parts.next().unwrap_or_default();
        if let (Ok(date), Ok(midnights)) = (next().as_bytes().try_into(), next().parse()) {
            let minute = next().parse().ok();
            self.day = Day {
                date,
                midnights,
                minute,
            };
        }
    }

    /// Takes a `#Fields:` line of this log; false when it holds no time or is too long.
    pub(crate) fn set_fields(&mut self, fields: &str) -> bool {
        if fields.len() > FIELDS_BYTES_MAX {
            return false;
        }
        let column = |name: &str| match name.to_ascii_lowercase().as_str() {
            name if name == self.latency => Column::Latency,
            "date" => Column::Date,
            "time" => Column::Clock,
            "cs-uri-stem" | "cs-uri" => Column::Target,
            "sc-status" => Column::Status,
            "sc-win32-status" => Column::Windows,
            _ => Column::Skip,
        };
        let columns: Vec<Column> = fields.split_ascii_whitespace().map(column).collect();
        let has_time = columns.contains(&Column::Clock);
        (self.fields, self.columns) = if has_time {
            (fields.to_owned(), columns)
        } else {
            Default::default()
        };
        has_time
    }

    /// None for lines that begin with `#`.
    pub(crate) fn read<'a>(&mut self, line: &'a [u8], times: &mut Times) -> Result<Option<Request<'a>>, Wrong> {
        if let [b'#', comment @ ..] = line {
            return self.comment(comment).map(|()| None);
        }
        if self.columns.is_empty() {
            return Err(Wrong::Missing);
        }
        let mut request = Request::default();
        let mut time = [b' '; DATE_BYTES + 1 + CLOCK_BYTES_MAX];
        let (mut time_bytes, mut has_date) = (0, false);
        let mut values = Values::of(line);
        for column in &self.columns {
            let value = values.next().ok_or(Wrong::Syntax)?;
            match column {
                Column::Skip => {}
                _ if value == b"-" => {}
                Column::Date => {
                    let date = time.get_mut(..DATE_BYTES).filter(|date| date.len() == value.len());
                    date.ok_or(Wrong::Time)?.copy_from_slice(value);
                    has_date = true;
                }
                Column::Clock => {
                    time_bytes = DATE_BYTES.saturating_add(1).saturating_add(value.len());
                    let clock = time.get_mut(DATE_BYTES.saturating_add(1)..time_bytes);
                    clock.ok_or(Wrong::Time)?.copy_from_slice(value);
                }
                Column::Target => request.target = value.into(),
                Column::Status => {
                    request.status = unless_out_of_range(status_or_none(value), &mut request.is_out_of_range)?;
                }
                Column::Windows => request.is_aborted = value == CLIENT_CLOSED,
                Column::Latency => {
                    let us = latency_us(value, self.unit_of(value)).map(Some);
                    request.latency_us = unless_out_of_range(us, &mut request.is_out_of_range)?;
                }
            }
        }
        if values.next().is_some() {
            return Err(Wrong::Syntax);
        }
        if !has_date && let Some(date) = time.get_mut(..DATE_BYTES) {
            date.copy_from_slice(&self.day.date);
        }
        let time = time.get(..time_bytes).unwrap_or_default();
        request.time_ms = times.read(time)?;
        if !has_date {
            let later_ms = self.day.midnights_at(time).saturating_mul(DAY_MS);
            request.time_ms = request.time_ms.saturating_add_signed(later_ms);
        }
        Ok(Some(request))
    }

    /// IIS writes whole milliseconds; the standard, and servers that keep to it, seconds with a point.
    fn unit_of(&self, value: &[u8]) -> LatencyUnit {
        let own = match value.contains(&b'.') {
            true => LatencyUnit::S,
            false => LatencyUnit::Ms,
        };
        self.unit.or(own)
    }

    fn comment(&mut self, comment: &[u8]) -> Result<(), Wrong> {
        let after = |name: &str| {
            let (head, after) = comment.split_at_checked(name.len())?;
            head.eq_ignore_ascii_case(name.as_bytes()).then(|| after.trim_ascii())
        };
        if let Some(fields) = after("Fields:") {
            let fields = std::str::from_utf8(fields).or(Err(Wrong::Encoding))?;
            return if self.set_fields(fields) {
                Ok(())
            } else {
                Err(Wrong::Missing)
            };
        }
        if let Some(date) = after("Date:") {
            self.day.begin(date);
        }
        Ok(())
    }
}

impl Day {
    /// Takes `2026-11-23 06:38:47` of a `#Date:`.
    fn begin(&mut self, time: &[u8]) {
        if let Some(date) = time.get(..DATE_BYTES).and_then(|date| date.try_into().ok()) {
            let minute = minute_of(time);
            *self = Self {
                date,
                midnights: 0,
                minute,
            };
        }
    }

    /// How many midnights a line lies behind the date.
    fn midnights_at(&mut self, time: &[u8]) -> i64 {
        let minute = minute_of(time).unwrap_or_default();
        let last = self.minute.unwrap_or(minute);
        if minute > last.saturating_add(LATE_MINUTES) {
            return self.midnights.saturating_sub(1);
        }
        if minute.saturating_add(BACK_MINUTES) < last {
            self.midnights = self.midnights.saturating_add(1);
        }
        self.minute = Some(minute);
        self.midnights
    }
}

/// The minute of the day of `2026-11-23 06:38:47`.
fn minute_of(time: &[u8]) -> Option<u16> {
    let [h, hh, b':', m, mm, ..] = time.get(DATE_BYTES.checked_add(1)?..)? else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte & 0x0f);
    let [hours, minutes] =
        [(h, hh), (m, mm)].map(|(tens, ones)| digit(tens).saturating_mul(10).saturating_add(digit(ones)));
    Some(hours.saturating_mul(60).saturating_add(minutes))
}

/// The values of a line: parted by one blank or tab, a text in quotes as a whole.
struct Values<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Values<'a> {
    fn of(line: &'a [u8]) -> Self {
        // Some servers end a line with a blank.
        let line = line.strip_suffix(b" ").unwrap_or(line);
        Self { rest: Some(line) }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let from = match rest {
            // Two quotes are one; what is within is not needed.
            [b'"', inside @ ..] => closing_quote(inside).unwrap_or(0),
            _ => 0,
        };
        match memchr2(b' ', b'\t', rest.get(from..)?) {
            Some(at) => {
                let at = at.checked_add(from)?;
                self.rest = rest.get(at.checked_add(1)?..);
                rest.get(..at)
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

/// The first quote that is no half of two.
fn closing_quote(inside: &[u8]) -> Option<usize> {
    let mut from = 0_usize;
    loop {
        let at = memchr(b'"', inside.get(from..)?)?.checked_add(from)?;
        if inside.get(at.checked_add(1)?) != Some(&b'"') {
            return Some(at);
        }
        from = at.checked_add(2)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_sdk::parse::Offset;

    fn w3c(fields: &str) -> (W3c, Times) {
        let settings = Settings {
            log_format: fields.to_owned(),
            ..Settings::default()
        };
        (W3c::new(&settings).unwrap(), Times::new(Offset::default()))
    }

    fn told(reader: &mut (W3c, Times), line: &str) -> String {
        let (w3c, times) = reader;
        match w3c.read(line.as_bytes(), times) {
            Ok(Some(request)) => format!(
                "{} {} {:?} {:?}",
                request.time_ms,
                String::from_utf8_lossy(&request.target),
                request.status,
                request.latency_us
            ),
            Ok(None) => "none".to_owned(),
            Err(wrong) => wrong.name().to_owned(),
        }
    }

    #[test]
    fn the_columns_are_those_of_the_last_fields() {
        let mut reader = w3c("");
        for (line, expected) in [
            ("2026-11-23 06:38:47 GET /pay 200 15", "missing"),
            ("#Software: Microsoft Internet Information Services 10.0", "none"),
            ("#Fields: date time cs-method cs-uri-stem sc-status time-taken", "none"),
            (
                "2026-11-23 06:38:47 GET /a+b 200 15",
                "1795415927000 /a+b Some(200) Some(15000)",
            ),
            ("2026-11-23 06:38:47 GET /pay - -", "1795415927000 /pay None None"),
            ("2026-11-23 06:38:47 GET /pay 200", "syntax"),
            ("2026-11-23 06:38:47 GET /pay 200 15 7", "syntax"),
            (
                "2026-11-23 06:38 GET /pay 200 15",
                "1795415880000 /pay Some(200) Some(15000)",
            ),
            ("2026-11-2 06:38:47 GET /pay 200 15", "time"),
            ("2026-11-23 06:38:47.12345678 GET /pay 200 15", "time"),
            ("#Fields: time-taken\tsc-status\tcs-uri-stem\ttime\tdate", "none"),
            (
                "0.016\t404\t/pay\t06:38:47\t2026-11-23 ",
                "1795415927000 /pay Some(404) Some(16000)",
            ),
            ("#Fields: cs-uri-stem", "missing"),
            ("0.016\t404\t/pay\t06:38:47\t2026-11-23", "missing"),
            ("#Date: 2026-11-23 00:00:00", "none"),
            ("#Fields: time cs(User-Agent) cs-uri-stem", "none"),
            (r#"06:38:47 "a ""till"" one" /pay"#, "1795415927000 /pay None None"),
            (r#"06:38:47 "till /pay"#, "1795415927000 /pay None None"),
            ("", "syntax"),
            ("#", "none"),
        ] {
            assert_eq!(told(&mut reader, line), expected, "{line}");
        }
    }

    /// IIS writes the date at the head of a file alone when that column is left out; with local file names, or files that
    /// end by size, one file holds several days.
    #[test]
    fn without_a_date_the_clock_tells_when_midnight_passed() {
        let mut reader = w3c("#Fields: time sc-status");
        let monday_ms = 1_795_392_000_000_i64;
        let day_ms = 86_400_000;
        for (line, time_ms) in [
            ("#Date: 2026-11-23 22:00:00", 0),
            ("23:59:59 200", monday_ms + day_ms - 1_000),
            ("00:00:01 200", monday_ms + day_ms + 1_000),
            ("23:59:59 200", monday_ms + day_ms - 1_000),
            ("00:00:02 200", monday_ms + day_ms + 2_000),
            ("13:30:00 200", monday_ms + day_ms + 48_600_000),
            ("01:00:00 200", monday_ms + 2 * day_ms + 3_600_000),
            ("#Date: 2026-11-23 00:00:00", 0),
            ("23:59:59 200", monday_ms - 1_000),
            ("00:00:01 200", monday_ms + 1_000),
        ] {
            let expected = match time_ms {
                0 => "none".to_owned(),
                time_ms => format!("{time_ms}  Some(200) None"),
            };
            assert_eq!(told(&mut reader, line), expected, "{line}");
            // As after a restart.
            let (day, mut after) = (reader.0.day(), w3c("#Fields: time sc-status"));
            after.0.set_day(&day);
            reader = after;
        }
    }

    #[test]
    fn a_client_that_gave_up_is_told_by_windows() {
        let (mut w3c, mut times) = w3c("#Fields: date time sc-win32-status");
        let mut aborted = |line: &str| w3c.read(line.as_bytes(), &mut times).unwrap().unwrap().is_aborted;
        assert!(aborted("2026-11-23 06:38:47 64"));
        assert!(!aborted("2026-11-23 06:38:47 0"));
    }
}
