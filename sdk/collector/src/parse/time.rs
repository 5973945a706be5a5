//! Event times as logs and documents write them, to UTC milliseconds.
//!
//! Known forms: RFC 3339 (`2026-11-23T06:38:47.250Z`, with a space for the `T`, a comma for the point), the same without
//! a zone, the common log format (`23/Nov/2026:06:38:47 +0000`, with a fraction, without a zone), and epoch numbers in seconds, milliseconds, microseconds or
//! nanoseconds, told apart by their size.
//! A time without a zone is taken at a fixed [`Offset`]: a plugin has no time zone database, so summer time is the
//! operator's to set.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::Deserialize;

use super::{Decimal, Wrong};

/// 2000-01-01: earlier is a clock that was never set.
const TIME_MS_MIN: i64 = 946_684_800_000;
/// 2100-01-01.
const TIME_MS_MAX: i64 = 4_102_444_800_000;
const MINUTE_MS: i64 = 60_000;

/// What local times without a zone are ahead of UTC: `UTC`, `+01:00`, `-05:30` in settings.
///
/// ```
/// use tillwatch_sdk::parse::{Offset, Wrong};
///
/// assert_eq!(Offset::parse("UTC"), Ok(Offset::default()));
/// assert!(Offset::parse("+01:00").is_ok());
/// assert_eq!(Offset::parse("Europe/Berlin"), Err(Wrong::Time));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Offset {
    minutes: i64,
}

impl Offset {
    /// Reads `UTC`, `Z`, `+01:00`, `+0100`, `-05`.
    ///
    /// # Errors
    /// [`Wrong::Time`] when it is none of these.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "UTC" {
            return Ok(Self::default());
        }
        let mut cursor = Cursor(text.as_bytes());
        let offset = cursor.offset().ok_or(Wrong::Time)?;
        if cursor.0.is_empty() {
            Ok(offset)
        } else {
            Err(Wrong::Time)
        }
    }
}

impl Offset {
    /// How far local times are ahead of UTC, in milliseconds; below zero in the west.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Offset, Wrong};
    ///
    /// assert_eq!(Offset::parse("-05:30")?.ahead_ms(), -19_800_000);
    /// # Ok::<(), Wrong>(())
    /// ```
    pub fn ahead_ms(self) -> i64 {
        self.minutes.saturating_mul(MINUTE_MS)
    }
}

impl TryFrom<String> for Offset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).or(Err("expected a fixed offset such as \"UTC\" or \"+01:00\"".to_owned()))
    }
}

/// The time in UTC milliseconds; `local` is for times without a zone.
///
/// ```
/// use tillwatch_sdk::parse::{Offset, Wrong, time_ms};
///
/// let berlin = Offset::parse("+01:00")?;
/// assert_eq!(time_ms("2026-03-02T12:30:05", berlin), Ok(1_772_451_005_000));
/// assert_eq!(time_ms("2026-03-02T11:30:05Z", berlin), Ok(1_772_451_005_000));
/// assert_eq!(time_ms("yesterday", berlin), Err(Wrong::Time));
/// # Ok::<(), Wrong>(())
/// ```
///
/// # Errors
/// [`Wrong::Time`] when it is in none of the known forms, or before 2000 or after 2099.
pub fn time_ms(text: &str, local: Offset) -> Result<u64, Wrong> {
    let text = text.trim_ascii();
    let time_ms = match text.as_bytes() {
        [_, _, _, _, b'-', ..] => rfc_3339(text, local),
        [_, _, b'/', ..] => common_log(text, local),
        _ => epoch(text),
    };
    let time_ms = time_ms
        .filter(|ms| (TIME_MS_MIN..TIME_MS_MAX).contains(ms))
        .ok_or(Wrong::Time)?;
    u64::try_from(time_ms).or(Err(Wrong::Time))
}

fn rfc_3339(text: &str, local: Offset) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let year = cursor.digits(4)?;
    cursor.byte(b"-")?;
    let month = cursor.digits(2)?;
    cursor.byte(b"-")?;
    let day = cursor.digits(2)?;
    cursor.byte(b"Tt ")?;
    let mut day_ms = cursor.clock()?;
    if cursor.byte(b".,").is_some() {
        day_ms = day_ms.checked_add(cursor.fraction_ms()?)?;
    }
    let gap = cursor.byte(b" ").is_some();
    let offset = if cursor.0.is_empty() && !gap {
        local
    } else {
        cursor.offset()?
    };
    cursor.end()?;
    utc_ms(Date { year, month, day }, day_ms, offset)
}

/// Apache's `%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t` comes to this, too.
fn common_log(text: &str, local: Offset) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let day = cursor.digits(2)?;
    cursor.byte(b"/")?;
    let month = cursor.month()?;
    cursor.byte(b"/")?;
    let year = cursor.digits(4)?;
    cursor.byte(b": ")?;
    let mut day_ms = cursor.clock()?;
    if cursor.byte(b".,").is_some() {
        day_ms = day_ms.checked_add(cursor.fraction_ms()?)?;
    }
    let offset = match cursor.byte(b" ") {
        Some(_) => cursor.offset()?,
        None => local,
    };
    cursor.end()?;
    utc_ms(Date { year, month, day }, day_ms, offset)
}

/// Seconds lie below 10^11 until the year 5138, milliseconds below 10^14, microseconds below 10^17.
fn epoch(text: &str) -> Option<i64> {
    let number = Decimal::parse(text).ok()?;
    match number.units(0).ok()? {
        seconds if seconds < 100_000_000_000 => number.units(3).ok(),
        ms if ms < 100_000_000_000_000 => Some(ms),
        us if us < 100_000_000_000_000_000 => us.checked_div(1000),
        ns => ns.checked_div(1_000_000),
    }
}

/// A day of the Gregorian calendar.
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

fn utc_ms(date: Date, day_ms: i64, offset: Offset) -> Option<i64> {
    let days = days_since_epoch(&date)?;
    let local_ms = days.checked_mul(86_400_000)?.checked_add(day_ms)?;
    local_ms.checked_sub(offset.minutes.checked_mul(MINUTE_MS)?)
}

/// Days from 1970-01-01; none when the month has no such day.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "year, month and day have at most four digits"
)]
pub(crate) fn days_since_epoch(date: &Date) -> Option<i64> {
    let leap = date.year % 4 == 0 && (date.year % 100 != 0 || date.year % 400 == 0);
    let days_in_month = match date.month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&date.day) {
        return None;
    }
    let year = if date.month <= 2 { date.year - 1 } else { date.year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((date.month + 9) % 12) + 2) / 5 + date.day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// What is left of a time.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// Takes one byte when it is one of these.
    fn byte(&mut self, allowed: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !allowed.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    fn digit(&mut self) -> Option<i64> {
        self.byte(b"0123456789").map(|byte| i64::from(byte & 0x0f))
    }

    /// Takes exactly this many digits, at most four.
    fn digits(&mut self, count: u8) -> Option<i64> {
        (0..count).try_fold(0_i64, |sum, _| sum.checked_mul(10)?.checked_add(self.digit()?))
    }

    /// `HH:MM` or `HH:MM:SS`, as milliseconds of the day; a leap second counts as the next second.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.digits(2).filter(|hour| *hour < 24)?;
        self.byte(b":")?;
        let minute = self.digits(2).filter(|minute| *minute < 60)?;
        let second = match self.byte(b":") {
            Some(_) => self.digits(2).filter(|second| *second <= 60)?,
            None => 0,
        };
        let minutes = hour.checked_mul(60)?.checked_add(minute)?;
        minutes.checked_mul(MINUTE_MS)?.checked_add(second.checked_mul(1000)?)
    }

    /// One digit or more; what lies below a millisecond is cut.
    fn fraction_ms(&mut self) -> Option<i64> {
        let mut ms = self.digit()?.checked_mul(100)?;
        for weight in [10, 1] {
            let Some(digit) = self.digit() else { return Some(ms) };
            ms = ms.checked_add(digit.checked_mul(weight)?)?;
        }
        while self.digit().is_some() {}
        Some(ms)
    }

    /// `Z`, `+HH:MM`, `+HHMM` or `+HH`.
    fn offset(&mut self) -> Option<Offset> {
        let sign = self.byte(b"Zz+-")?;
        if matches!(sign, b'Z' | b'z') {
            return Some(Offset::default());
        }
        let hours = self.digits(2).filter(|hours| *hours <= 14)?;
        let colon = self.byte(b":").is_some();
        let minutes = if self.0.is_empty() && !colon {
            0
        } else {
            self.digits(2).filter(|minutes| *minutes < 60)?
        };
        let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
        Some(Offset {
            minutes: if sign == b'-' { minutes.checked_neg()? } else { minutes },
        })
    }

    fn month(&mut self) -> Option<i64> {
        const MONTHS: [&[u8]; 12] = [
            b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
        ];
        let (name, rest) = self.0.split_at_checked(3)?;
        let index = MONTHS.iter().position(|month| *month == name)?;
        self.0 = rest;
        i64::try_from(index).ok()?.checked_add(1)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: Offset = Offset { minutes: 0 };
    const BERLIN_WINTER: Offset = Offset { minutes: 60 };

    #[test]
    fn known_forms_are_read() {
        for (text, ms) in [
            ("2026-11-23T06:38:47Z", 1_795_415_927_000),
            ("2026-11-23T06:38:47.25Z", 1_795_415_927_250),
            ("2026-11-23 07:38:47,250999 +01:00", 1_795_415_927_250),
            ("2026-11-23T01:38:47-0500", 1_795_415_927_000),
            ("2026-11-23T06:38:47", 1_795_415_927_000),
            ("2026-11-23T06:38", 1_795_415_880_000),
            ("23/Nov/2026:06:38:47 +0000", 1_795_415_927_000),
            ("23/Nov/2026:07:38:47 +0100", 1_795_415_927_000),
            ("23/Nov/2026:06:38:47.250999 +0000", 1_795_415_927_250),
            ("23/Nov/2026 06:38:47", 1_795_415_927_000),
            ("1795415927", 1_795_415_927_000),
            ("1795415927.25", 1_795_415_927_250),
            ("1795415927250", 1_795_415_927_250),
            ("1795415927250000", 1_795_415_927_250),
            ("1795415927250000000", 1_795_415_927_250),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("2000-01-01T00:00:00Z", 946_684_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ] {
            assert_eq!(time_ms(text, UTC), Ok(ms), "{text}");
        }
    }

    #[test]
    fn a_time_without_zone_is_taken_at_the_offset() {
        assert_eq!(time_ms("2026-11-23T07:38:47", BERLIN_WINTER), Ok(1_795_415_927_000));
        assert_eq!(time_ms("2026-11-23T06:38:47Z", BERLIN_WINTER), Ok(1_795_415_927_000));
        assert_eq!(Offset::parse("+01:00"), Ok(BERLIN_WINTER));
        assert_eq!(Offset::parse("-05:30"), Ok(Offset { minutes: -330 }));
        assert_eq!(Offset::parse("UTC"), Ok(UTC));
        assert_eq!(Offset::parse("Europe/Berlin"), Err(Wrong::Time));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "yesterday",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T06:61:00Z",
            "2026-11-23T06:38:47.Z",
            "2026-11-23T06:38:47Zx",
            "2026-11-23T06:38:47+15:00",
            "2026-11-23",
            "1999-12-31T23:59:59Z",
            "2100-01-01T00:00:00Z",
            "23/Now/2026:06:38:47 +0000",
            "23/Nov/2026:06:38:47.",
            "99999999999999999999",
            "２０２６-11-23T06:38:47Z",
        ] {
            assert_eq!(time_ms(text, UTC), Err(Wrong::Time), "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut expected = 0;
        for year in 1970..2370 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(days) = days_since_epoch(&Date { year, month, day }) {
                        assert_eq!(days, expected);
                        expected += 1;
                    }
                }
            }
        }
        assert_eq!(expected, 146_097);
    }
}
