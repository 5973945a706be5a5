//! Event times as logs and documents write them, to UTC milliseconds.
//!
//! [`time_ms`] lists the forms.
//! A time without a zone is taken at a fixed [`Offset`], or at a [`Zone`] whose rule knows summer time: a plugin has no
//! time zone database.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::Deserialize;

use super::{Decimal, Wrong};

/// 2000-01-01: earlier is a clock that was never set.
const TIME_MS_MIN: i64 = 946_684_800_000;
/// 2100-01-01.
const TIME_MS_MAX: i64 = 4_102_444_800_000;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

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
    /// ```
    /// use tillwatch_sdk::parse::{Offset, Wrong};
    ///
    /// assert_eq!(Offset::parse("+0100"), Offset::parse("+01:00"));
    /// assert_eq!(Offset::parse("CET"), Err(Wrong::Time));
    /// ```
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

/// The zone of local times without one, as settings have it: a fixed [`Offset`], a rule of POSIX such as
/// `CET-1CEST,M3.5.0,M10.5.0/3`, or one of the better known names, such as `Europe/Berlin`.
///
/// A rule holds for all years: what was before a law changed is not known.
///
/// ```
/// use tillwatch_sdk::parse::{Wrong, Zone, time_ms};
///
/// let berlin = Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3")?;
/// assert_eq!(Zone::parse("Europe/Berlin"), Ok(berlin));
/// assert_eq!(time_ms("2026-07-02T12:30:00", berlin), time_ms("2026-07-02T10:30:00Z", berlin));
/// assert_eq!(time_ms("2026-03-02T12:30:00", berlin), time_ms("2026-03-02T11:30:00Z", berlin));
/// assert_eq!(Zone::parse("Mars/Olympus"), Err(Wrong::Time));
/// # Ok::<(), Wrong>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone {
    standard: Offset,
    summer: Option<Summer>,
}

/// When clocks go to another offset, and when back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    offset: Offset,
    start: Change,
    end: Change,
}

/// A weekday of a month, Sunday being 0; the fifth week is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    month: i64,
    week: i64,
    weekday: i64,
    /// After the day's midnight, on the clock before the change.
    day_ms: i64,
}

/// Rules and the names that they have. Source: the IANA time zone database, 2025b, as of 2025.
const NAMED: [(&str, &[&str]); 30] = [
    (
        "CET-1CEST,M3.5.0,M10.5.0/3",
        &[
            "Europe/Amsterdam",
            "Europe/Belgrade",
            "Europe/Berlin",
            "Europe/Bratislava",
            "Europe/Brussels",
            "Europe/Budapest",
            "Europe/Copenhagen",
            "Europe/Ljubljana",
            "Europe/Luxembourg",
            "Europe/Madrid",
            "Europe/Oslo",
            "Europe/Paris",
            "Europe/Prague",
            "Europe/Rome",
            "Europe/Stockholm",
            "Europe/Vienna",
            "Europe/Warsaw",
            "Europe/Zagreb",
            "Europe/Zurich",
        ],
    ),
    (
        "EET-2EEST,M3.5.0/3,M10.5.0/4",
        &[
            "Europe/Athens",
            "Europe/Bucharest",
            "Europe/Helsinki",
            "Europe/Kyiv",
            "Europe/Riga",
            "Europe/Sofia",
            "Europe/Tallinn",
            "Europe/Vilnius",
        ],
    ),
    (
        "GMT0BST,M3.5.0/1,M10.5.0",
        &["Europe/London", "Europe/Dublin", "Europe/Lisbon"],
    ),
    ("<+03>-3", &["Europe/Istanbul", "Europe/Moscow", "Asia/Riyadh"]),
    ("NST3:30NDT,M3.2.0,M11.1.0", &["America/St_Johns"]),
    ("AST4ADT,M3.2.0,M11.1.0", &["America/Halifax"]),
    (
        "EST5EDT,M3.2.0,M11.1.0",
        &["America/New_York", "America/Toronto", "America/Detroit"],
    ),
    ("CST6CDT,M3.2.0,M11.1.0", &["America/Chicago", "America/Winnipeg"]),
    ("MST7MDT,M3.2.0,M11.1.0", &["America/Denver", "America/Edmonton"]),
    ("PST8PDT,M3.2.0,M11.1.0", &["America/Los_Angeles", "America/Vancouver"]),
    ("AKST9AKDT,M3.2.0,M11.1.0", &["America/Anchorage"]),
    ("MST7", &["America/Phoenix"]),
    ("HST10", &["Pacific/Honolulu"]),
    ("CST6", &["America/Mexico_City"]),
    ("<-05>5", &["America/Bogota", "America/Lima"]),
    ("<-03>3", &["America/Sao_Paulo", "America/Argentina/Buenos_Aires"]),
    ("<-04>4<-03>,M9.1.6/24,M4.1.6/24", &["America/Santiago"]),
    ("EET-2EEST,M4.5.5/0,M10.5.4/24", &["Africa/Cairo"]),
    ("SAST-2", &["Africa/Johannesburg"]),
    ("<+04>-4", &["Asia/Dubai"]),
    ("IST-2IDT,M3.4.4/26,M10.5.0", &["Asia/Jerusalem"]),
    ("IST-5:30", &["Asia/Kolkata"]),
    ("<+07>-7", &["Asia/Bangkok", "Asia/Jakarta"]),
    (
        "CST-8",
        &[
            "Asia/Shanghai",
            "Asia/Hong_Kong",
            "Asia/Singapore",
            "Asia/Manila",
            "Australia/Perth",
        ],
    ),
    ("JST-9", &["Asia/Tokyo", "Asia/Seoul"]),
    ("AEST-10", &["Australia/Brisbane"]),
    (
        "AEST-10AEDT,M10.1.0,M4.1.0/3",
        &["Australia/Sydney", "Australia/Melbourne", "Australia/Hobart"],
    ),
    ("ACST-9:30ACDT,M10.1.0,M4.1.0/3", &["Australia/Adelaide"]),
    ("ACST-9:30", &["Australia/Darwin"]),
    ("NZST-12NZDT,M9.5.0,M4.1.0/3", &["Pacific/Auckland"]),
];

impl Zone {
    /// Reads what [`Offset::parse`] reads, a rule of POSIX, or a name.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Wrong, Zone, time_ms};
    ///
    /// let berlin = Zone::parse("Europe/Berlin")?;
    /// assert_eq!(time_ms("2026-07-02 12:30", berlin), time_ms("2026-07-02T10:30Z", berlin));
    /// # Ok::<(), Wrong>(())
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Time`] when it is none of these.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        if let Ok(offset) = Offset::parse(text) {
            return Ok(offset.into());
        }
        let named = NAMED.iter().find(|(_, names)| names.contains(&text));
        let mut cursor = Cursor(named.map_or(text, |(rule, _)| rule).as_bytes());
        let zone = cursor.rule().ok_or(Wrong::Time)?;
        cursor.end().map(|()| zone).ok_or(Wrong::Time)
    }

    /// How far local times are ahead of UTC at a UTC time, in milliseconds; below zero in the west.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Wrong, Zone};
    ///
    /// let berlin = Zone::parse("Europe/Berlin")?;
    /// assert_eq!(berlin.ahead_ms(1_772_451_005_000), 3_600_000);
    /// assert_eq!(berlin.ahead_ms(1_782_988_200_000), 7_200_000);
    /// # Ok::<(), Wrong>(())
    /// ```
    pub fn ahead_ms(self, utc_ms: u64) -> i64 {
        self.offset_at(i64::try_from(utc_ms).unwrap_or(i64::MAX)).ahead_ms()
    }

    fn offset_at(self, utc_ms: i64) -> Offset {
        match self
            .summer
            .filter(|summer| summer.holds(utc_ms, self.standard) == Some(true))
        {
            Some(summer) => summer.offset,
            None => self.standard,
        }
    }

    /// Of the hour that comes twice the first is taken; in the one that is left out, the clock was not set yet.
    fn utc_ms(self, local_ms: i64) -> Option<i64> {
        let standard_ms = local_ms.checked_sub(self.standard.ahead_ms())?;
        let Some(summer) = self.summer else {
            return Some(standard_ms);
        };
        let summer_ms = local_ms.checked_sub(summer.offset.ahead_ms())?;
        let (first_ms, second_ms) = (standard_ms.min(summer_ms), standard_ms.max(summer_ms));
        let is_right = local_ms.checked_sub(self.offset_at(first_ms).ahead_ms()) == Some(first_ms);
        Some(if is_right { first_ms } else { second_ms })
    }
}

impl Summer {
    /// Whether it is summer time at a UTC time; in the south the summer lies over the turn of the year.
    fn holds(&self, utc_ms: i64, standard: Offset) -> Option<bool> {
        let year = year_of(utc_ms.checked_add(standard.ahead_ms())?)?;
        let start_ms = self.start.utc_ms(year, standard)?;
        let end_ms = self.end.utc_ms(year, self.offset)?;
        Some(if start_ms < end_ms {
            (start_ms..end_ms).contains(&utc_ms)
        } else {
            !(end_ms..start_ms).contains(&utc_ms)
        })
    }
}

impl Change {
    fn utc_ms(&self, year: i64, before: Offset) -> Option<i64> {
        let month = self.month;
        let day = |day: i64| days_since_epoch(&Date { year, month, day });
        // 1970-01-01 was a Thursday.
        let first_weekday = day(1)?.checked_add(4)?.rem_euclid(7);
        let first = self.weekday.checked_sub(first_weekday)?.rem_euclid(7).checked_add(1)?;
        let of_week = first.checked_add(self.week.checked_sub(1)?.checked_mul(7)?)?;
        let days = day(of_week).or_else(|| day(of_week.checked_sub(7)?))?;
        let local_ms = days.checked_mul(DAY_MS)?.checked_add(self.day_ms)?;
        local_ms.checked_sub(before.ahead_ms())
    }
}

/// The year of the Gregorian calendar.
fn year_of(time_ms: i64) -> Option<i64> {
    let days = time_ms.div_euclid(DAY_MS);
    // 400 years are 146,097 days; the first guess is no more than a year off.
    let guess = days.checked_mul(400)?.div_euclid(146_097).checked_add(1970)?;
    let begins = |year: i64| days_since_epoch(&Date { year, month: 1, day: 1 });
    if begins(guess)? > days {
        guess.checked_sub(1)
    } else if begins(guess.checked_add(1)?)? <= days {
        guess.checked_add(1)
    } else {
        Some(guess)
    }
}

impl From<Offset> for Zone {
    fn from(standard: Offset) -> Self {
        Self { standard, summer: None }
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).or(Err(
            "expected \"UTC\", an offset such as \"+01:00\", a rule such as \"CET-1CEST,M3.5.0,M10.5.0/3\" or a name such as \"Europe/Berlin\""
                .to_owned(),
        ))
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

/// The time in UTC milliseconds; `local`, an [`Offset`] or a [`Zone`], is for times without a zone.
///
/// These forms are read, and no others; rearrange what comes otherwise to the first.
///
/// | form | such as | and |
/// | --- | --- | --- |
/// | RFC 3339 | `2026-11-23T06:38:47.250Z` | a space for the `T`, a comma for the point; no seconds, no fraction; `+01:00`, `+0100`, `+01`, also after a space; no zone |
/// | common log format | `23/Nov/2026:06:38:47 +0000` | a space for the first colon; a fraction; no zone |
/// | day first | `23.11.2026 06:38:47` | `23.11.26`, of this century; a `T` or `, ` for the space; no seconds; a fraction; a zone as in RFC 3339 |
/// | seconds, ms, µs or ns since 1970 | `1795415927.25`, `1795415927250` | told apart by their size |
///
/// ```
/// use tillwatch_sdk::parse::{Offset, Wrong, time_ms};
///
/// let berlin = Offset::parse("+01:00")?;
/// assert_eq!(time_ms("2026-03-02T12:30:05", berlin), Ok(1_772_451_005_000));
/// assert_eq!(time_ms("2026-03-02T11:30:05Z", berlin), Ok(1_772_451_005_000));
/// assert_eq!(time_ms("02.03.26 12:30:05", berlin), Ok(1_772_451_005_000));
/// assert_eq!(time_ms("yesterday", berlin), Err(Wrong::Time));
/// # Ok::<(), Wrong>(())
/// ```
///
/// # Errors
/// [`Wrong::Time`] when it is in none of the known forms, or before 2000 or after 2099.
pub fn time_ms(text: &str, local: impl Into<Zone>) -> Result<u64, Wrong> {
    let (text, local) = (text.trim_ascii(), local.into());
    let time_ms = match text.as_bytes() {
        [_, _, _, _, b'-', ..] => rfc_3339(text, local),
        [_, _, b'/', ..] => common_log(text, local),
        [_, _, b'.', _, _, b'.', ..] => day_first(text, local),
        _ => epoch(text),
    };
    let time_ms = time_ms
        .filter(|ms| (TIME_MS_MIN..TIME_MS_MAX).contains(ms))
        .ok_or(Wrong::Time)?;
    u64::try_from(time_ms).or(Err(Wrong::Time))
}

fn rfc_3339(text: &str, local: Zone) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let year = cursor.digits(4)?;
    cursor.byte(b"-")?;
    let month = cursor.digits(2)?;
    cursor.byte(b"-")?;
    let day = cursor.digits(2)?;
    cursor.byte(b"Tt ")?;
    cursor.clock_and_zone(Date { year, month, day }, local)
}

/// `23.11.2026 06:38:47` and `23.11.26, 06:38`, as clocks in Germany and its neighbors show it.
fn day_first(text: &str, local: Zone) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let day = cursor.digits(2)?;
    cursor.byte(b".")?;
    let month = cursor.digits(2)?;
    cursor.byte(b".")?;
    let short = cursor.digits(2)?;
    let year = match cursor.digit() {
        Some(third) => short
            .checked_mul(100)?
            .checked_add(third.checked_mul(10)?)?
            .checked_add(cursor.digit()?)?,
        None => short.checked_add(2000)?,
    };
    if cursor.byte(b",").is_some() {
        cursor.byte(b" ")?;
    } else {
        cursor.byte(b"Tt ")?;
    }
    cursor.clock_and_zone(Date { year, month, day }, local)
}

/// Apache's `%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t` comes to this, too.
fn common_log(text: &str, local: Zone) -> Option<i64> {
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
        Some(_) => cursor.offset()?.into(),
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

fn utc_ms(date: Date, day_ms: i64, zone: Zone) -> Option<i64> {
    let days = days_since_epoch(&date)?;
    zone.utc_ms(days.checked_mul(DAY_MS)?.checked_add(day_ms)?)
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
        let (first, rest) = self.0.split_first()?;
        let digit = first.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        self.0 = rest;
        Some(i64::from(digit))
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

    /// The rest of a time after its date: the clock, a fraction, a zone.
    fn clock_and_zone(&mut self, date: Date, local: Zone) -> Option<i64> {
        let mut day_ms = self.clock()?;
        if self.byte(b".,").is_some() {
            day_ms = day_ms.checked_add(self.fraction_ms()?)?;
        }
        let gap = self.byte(b" ").is_some();
        let zone = if self.0.is_empty() && !gap {
            local
        } else {
            self.offset()?.into()
        };
        self.end()?;
        utc_ms(date, day_ms, zone)
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

    /// `std offset dst offset,start,end` of POSIX; only offsets of whole minutes and days of the form `Mm.w.d`.
    /// Source: IEEE Std 1003.1-2024, 8.3, "TZ".
    fn rule(&mut self) -> Option<Zone> {
        self.zone_name()?;
        let standard = self.posix_offset()?;
        if self.0.is_empty() {
            return Some(standard.into());
        }
        self.zone_name()?;
        let offset = match self.0.first() {
            Some(b',') => Offset {
                minutes: standard.minutes.checked_add(60)?,
            },
            _ => self.posix_offset()?,
        };
        let (start, end) = (self.change()?, self.change()?);
        let summer = Some(Summer { offset, start, end });
        Some(Zone { standard, summer })
    }

    /// Three letters or more, or anything in `<>`.
    fn zone_name(&mut self) -> Option<()> {
        let is_quoted = self.byte(b"<").is_some();
        let is_of_name =
            |byte: &u8| byte.is_ascii_alphabetic() || (is_quoted && (byte.is_ascii_digit() || b"+-".contains(byte)));
        let bytes = self.0.iter().take_while(|byte| is_of_name(byte)).count();
        self.0 = self.0.get(bytes..)?;
        if is_quoted {
            self.byte(b">")?;
        }
        (bytes >= 3).then_some(())
    }

    /// POSIX counts to the west.
    fn posix_offset(&mut self) -> Option<Offset> {
        let minutes = self.signed_minutes()?.checked_neg()?;
        (-15 * 60..=15 * 60).contains(&minutes).then_some(Offset { minutes })
    }

    /// `,M3.5.0` or `,M10.5.0/3`.
    fn change(&mut self) -> Option<Change> {
        self.byte(b",")?;
        self.byte(b"M")?;
        let month = self.number().filter(|month| (1..=12).contains(month))?;
        self.byte(b".")?;
        let week = self.number().filter(|week| (1..=5).contains(week))?;
        self.byte(b".")?;
        let weekday = self.number().filter(|weekday| *weekday <= 6)?;
        let minutes = match self.byte(b"/") {
            Some(_) => self.signed_minutes()?,
            None => 120,
        };
        Some(Change {
            month,
            week,
            weekday,
            day_ms: minutes.checked_mul(MINUTE_MS)?,
        })
    }

    /// `1`, `-3:30`, `+26`.
    fn signed_minutes(&mut self) -> Option<i64> {
        let is_negative = self.byte(b"+-") == Some(b'-');
        let hours = self.number().filter(|hours| *hours <= 167)?;
        let minutes = match self.byte(b":") {
            Some(_) => self.digits(2).filter(|minutes| *minutes < 60)?,
            None => 0,
        };
        let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
        Some(if is_negative { minutes.checked_neg()? } else { minutes })
    }

    /// One digit to three.
    fn number(&mut self) -> Option<i64> {
        let mut number = self.digit()?;
        for _ in 0..2 {
            let Some(digit) = self.digit() else { break };
            number = number.checked_mul(10)?.checked_add(digit)?;
        }
        Some(number)
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
            ("23.11.2026 06:38:47", 1_795_415_927_000),
            ("23.11.26 06:38:47", 1_795_415_927_000),
            ("23.11.26T06:38", 1_795_415_880_000),
            ("23.11.2026, 06:38:47", 1_795_415_927_000),
            ("23.11.26 07:38:47,250 +01:00", 1_795_415_927_250),
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
    fn what_the_tutorial_shows_is_read() {
        let (_before, table) = include_str!("../../README.md")
            .split_once("| `time_ms` reads |")
            .unwrap();
        let (table, _after) = table.split_once("\n\n").unwrap();
        let shown = table.lines().filter_map(|line| line.split('|').nth(2));
        let shown: Vec<&str> = shown.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        assert_eq!(shown.len(), 5, "{shown:?}");
        for text in shown {
            assert!(time_ms(text, UTC).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_time_without_zone_is_taken_at_the_offset() {
        assert_eq!(time_ms("2026-11-23T07:38:47", BERLIN_WINTER), Ok(1_795_415_927_000));
        assert_eq!(time_ms("2026-11-23T06:38:47Z", BERLIN_WINTER), Ok(1_795_415_927_000));
        assert_eq!(time_ms("23.11.26 07:38:47", BERLIN_WINTER), Ok(1_795_415_927_000));
        assert_eq!(Offset::parse("+01:00"), Ok(BERLIN_WINTER));
        assert_eq!(Offset::parse("-05:30"), Ok(Offset { minutes: -330 }));
        assert_eq!(Offset::parse("UTC"), Ok(UTC));
        assert_eq!(Offset::parse("Europe/Berlin"), Err(Wrong::Time));
    }

    /// Local times around the changes, against the IANA database.
    #[test]
    fn summer_time_follows_the_rule() {
        for (zone, local, utc) in [
            ("Europe/Berlin", "2026-03-28T22:59:00", "2026-03-28T21:59:00Z"),
            ("Europe/Berlin", "2026-03-29T01:59:00", "2026-03-29T00:59:00Z"),
            ("Europe/Berlin", "2026-03-29T03:00:00", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-03-29T05:01:00", "2026-03-29T03:01:00Z"),
            ("Europe/Berlin", "2026-10-24T23:59:00", "2026-10-24T21:59:00Z"),
            ("Europe/Berlin", "2026-10-25T02:59:00", "2026-10-25T00:59:00Z"),
            ("Europe/Berlin", "2026-10-25T04:01:00", "2026-10-25T03:01:00Z"),
            ("Europe/London", "2026-03-28T21:59:00", "2026-03-28T21:59:00Z"),
            ("Europe/London", "2026-03-29T00:59:00", "2026-03-29T00:59:00Z"),
            ("Europe/London", "2026-03-29T02:00:00", "2026-03-29T01:00:00Z"),
            ("Europe/London", "2026-03-29T04:01:00", "2026-03-29T03:01:00Z"),
            ("Europe/London", "2026-10-24T22:59:00", "2026-10-24T21:59:00Z"),
            ("Europe/London", "2026-10-25T01:59:00", "2026-10-25T00:59:00Z"),
            ("Europe/London", "2026-10-25T03:01:00", "2026-10-25T03:01:00Z"),
            ("America/New_York", "2026-03-07T22:59:00", "2026-03-08T03:59:00Z"),
            ("America/New_York", "2026-03-08T01:59:00", "2026-03-08T06:59:00Z"),
            ("America/New_York", "2026-03-08T03:00:00", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-03-08T05:01:00", "2026-03-08T09:01:00Z"),
            ("America/New_York", "2026-10-31T22:59:00", "2026-11-01T02:59:00Z"),
            ("America/New_York", "2026-11-01T01:59:00", "2026-11-01T05:59:00Z"),
            ("America/New_York", "2026-11-01T03:01:00", "2026-11-01T08:01:00Z"),
            ("America/St_Johns", "2026-03-07T22:59:00", "2026-03-08T02:29:00Z"),
            ("America/St_Johns", "2026-03-08T01:59:00", "2026-03-08T05:29:00Z"),
            ("America/St_Johns", "2026-03-08T03:00:00", "2026-03-08T05:30:00Z"),
            ("America/St_Johns", "2026-03-08T05:01:00", "2026-03-08T07:31:00Z"),
            ("America/St_Johns", "2026-10-31T22:59:00", "2026-11-01T01:29:00Z"),
            ("America/St_Johns", "2026-11-01T01:59:00", "2026-11-01T04:29:00Z"),
            ("America/St_Johns", "2026-11-01T03:01:00", "2026-11-01T06:31:00Z"),
            ("Australia/Sydney", "2026-04-04T23:59:00", "2026-04-04T12:59:00Z"),
            ("Australia/Sydney", "2026-04-05T02:59:00", "2026-04-04T15:59:00Z"),
            ("Australia/Sydney", "2026-04-05T04:01:00", "2026-04-04T18:01:00Z"),
            ("Australia/Sydney", "2026-10-03T22:59:00", "2026-10-03T12:59:00Z"),
            ("Australia/Sydney", "2026-10-04T01:59:00", "2026-10-03T15:59:00Z"),
            ("Australia/Sydney", "2026-10-04T03:00:00", "2026-10-03T16:00:00Z"),
            ("Australia/Sydney", "2026-10-04T05:01:00", "2026-10-03T18:01:00Z"),
            ("America/Santiago", "2026-04-04T20:59:00", "2026-04-04T23:59:00Z"),
            ("America/Santiago", "2026-04-04T23:59:00", "2026-04-05T02:59:00Z"),
            ("America/Santiago", "2026-04-05T01:01:00", "2026-04-05T05:01:00Z"),
            ("America/Santiago", "2026-09-05T20:59:00", "2026-09-06T00:59:00Z"),
            ("America/Santiago", "2026-09-05T23:59:00", "2026-09-06T03:59:00Z"),
            ("America/Santiago", "2026-09-06T01:00:00", "2026-09-06T04:00:00Z"),
            ("America/Santiago", "2026-09-06T03:01:00", "2026-09-06T06:01:00Z"),
            ("Asia/Jerusalem", "2026-03-26T22:59:00", "2026-03-26T20:59:00Z"),
            ("Asia/Jerusalem", "2026-03-27T01:59:00", "2026-03-26T23:59:00Z"),
            ("Asia/Jerusalem", "2026-03-27T03:00:00", "2026-03-27T00:00:00Z"),
            ("Asia/Jerusalem", "2026-03-27T05:01:00", "2026-03-27T02:01:00Z"),
            ("Asia/Jerusalem", "2026-10-24T22:59:00", "2026-10-24T19:59:00Z"),
            ("Asia/Jerusalem", "2026-10-25T01:59:00", "2026-10-24T22:59:00Z"),
            ("Asia/Jerusalem", "2026-10-25T03:01:00", "2026-10-25T01:01:00Z"),
            ("Africa/Cairo", "2026-04-23T20:59:00", "2026-04-23T18:59:00Z"),
            ("Africa/Cairo", "2026-04-23T23:59:00", "2026-04-23T21:59:00Z"),
            ("Africa/Cairo", "2026-04-24T01:00:00", "2026-04-23T22:00:00Z"),
            ("Africa/Cairo", "2026-04-24T03:01:00", "2026-04-24T00:01:00Z"),
            ("Africa/Cairo", "2026-10-29T20:59:00", "2026-10-29T17:59:00Z"),
            ("Africa/Cairo", "2026-10-29T23:59:00", "2026-10-29T20:59:00Z"),
            ("Africa/Cairo", "2026-10-30T01:01:00", "2026-10-29T23:01:00Z"),
            ("Asia/Kolkata", "2026-07-01T02:29:00", "2026-06-30T20:59:00Z"),
            ("Asia/Kolkata", "2026-07-01T05:29:00", "2026-06-30T23:59:00Z"),
            ("Asia/Kolkata", "2026-07-01T05:30:00", "2026-07-01T00:00:00Z"),
            ("Asia/Kolkata", "2026-07-01T07:31:00", "2026-07-01T02:01:00Z"),
            ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
            ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        ] {
            let zone = Zone::parse(zone).unwrap();
            assert_eq!(time_ms(local, zone), time_ms(utc, UTC), "{local} {zone:?}");
        }
    }

    #[test]
    fn all_named_zones_are_rules_and_what_is_none_is_refused() {
        for (rule, names) in NAMED {
            let zone = Zone::parse(rule).unwrap();
            assert!(names.iter().all(|name| Zone::parse(name) == Ok(zone)), "{rule}");
        }
        for text in [
            "",
            "CET",
            "CE-1",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.6.0,M10.5.0",
            "CET-1CEST,M3.5.7,M10.5.0",
            "CET-1CEST,J60,J300",
            "CET-1CEST,M3.5.0,M10.5.0/3x",
            "CET-16",
            "<+01-1",
            "europe/berlin",
        ] {
            assert_eq!(Zone::parse(text), Err(Wrong::Time), "{text}");
        }
        assert_eq!(Zone::parse("+01:00"), Ok(BERLIN_WINTER.into()));
    }

    #[test]
    fn the_year_of_every_day_is_found() {
        for year in 1970..2370 {
            for (month, day) in [(1, 1), (2, 28), (12, 31)] {
                let days = days_since_epoch(&Date { year, month, day }).unwrap();
                assert_eq!(year_of(days * DAY_MS), Some(year));
                assert_eq!(year_of(days * DAY_MS + DAY_MS - 1), Some(year));
            }
        }
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
            "23.11.126 06:38:47",
            "23.11.26",
            "23.13.26 06:38:47",
            "11.23.2026 06:38:47",
            "23.11.26,06:38:47",
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
