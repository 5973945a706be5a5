//! Times and days as tills and their databases write them, besides those that the SDK knows.
//!
//! `02.03.2026 12:30`, `3/2/2026, 1:30:05 PM`, `20260302123005`, a day and a clock in two columns.

use serde::Deserialize;
use tillwatch_sdk::parse::{Wrong, Zone, time_ms};

const MINUTE_MS: u64 = 60_000;
pub(crate) const DAY_MS: u64 = 86_400_000;

/// What comes first in `02/03/2026`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DateOrder {
    #[default]
    Dmy,
    Mdy,
}

/// The time of a transaction; `clock` is empty when the day's text holds it.
///
/// # Errors
/// [`Wrong::Time`] when it is none.
pub(crate) fn parse(day: &str, clock: &str, order: DateOrder, zone: Zone) -> Result<u64, Wrong> {
    let day = day.trim_ascii();
    if let (true, Ok(ms)) = (clock.is_empty(), time_ms(day, zone)) {
        return Ok(ms);
    }
    let (day, clock) = (tidy(day), tidy(clock));
    let day = day.trim_ascii();
    if clock.is_empty() {
        let whole = compact(day);
        if let Ok(ms) = time_ms(whole.as_deref().unwrap_or(day), zone) {
            return Ok(ms);
        }
        let (day, clock) = day.split_once([' ', 'T']).ok_or(Wrong::Time)?;
        return join(day, clock, order, zone);
    }
    // A column of days may hold an idle clock: `2026-03-02 00:00:00`.
    let day = day.split([' ', 'T']).next().unwrap_or_default();
    join(day, &clock, order, zone)
}

/// The day as yyyymmdd.
pub(crate) fn day(text: &str, order: DateOrder) -> Option<u32> {
    let text = text.trim_ascii().split([' ', 'T', '+', 'Z']).next()?;
    let [year, month, day] = date(text, order)?;
    year.checked_mul(10_000)?
        .checked_add(month.checked_mul(100)?)?
        .checked_add(day)
}

fn join(day: &str, clock: &str, order: DateOrder, zone: Zone) -> Result<u64, Wrong> {
    let [year, month, day] = date(day, order).ok_or(Wrong::Time)?;
    let clock = plain_clock(clock.trim_ascii()).ok_or(Wrong::Time)?;
    time_ms(&format!("{year:04}-{month:02}-{day:02}T{clock}"), zone)
}

/// `20260302123005` or `202603021230` in the form of RFC 3339.
fn compact(text: &str) -> Option<String> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits || !matches!(text.len(), 12 | 14) {
        return None;
    }
    let (day, clock) = text.split_at_checked(8)?;
    let [year, month, day] = date(day, DateOrder::Dmy)?;
    Some(format!("{year:04}-{month:02}-{day:02}T{}", plain_clock(clock)?))
}

/// Without the narrow blanks and the comma of browsers, and with `Z` for the names of UTC.
fn tidy(text: &str) -> String {
    let text = text.replace(['\u{a0}', '\u{202f}'], " ").replace(',', "");
    match text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")) {
        Some(time) => format!("{time}Z"),
        None => text,
    }
}

/// Year, month and day; whether there is such a day is asked later.
fn date(text: &str, order: DateOrder) -> Option<[u32; 3]> {
    if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some([text.get(..4)?, text.get(4..6)?, text.get(6..)?].map(|part| part.parse().unwrap_or(0)));
    }
    let separator = text.chars().find(|char| ['-', '/', '.'].contains(char))?;
    let mut parts = text.splitn(3, separator);
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| part.len() <= 4);
    if first.len() == 4 {
        return Some([number(first)?, number(second)?, number(third)?]);
    }
    let year = match (third.len(), number(third)?) {
        (4, year) => year,
        (2, year) => year.checked_add(2000)?,
        _ => return None,
    };
    let (first, second) = (number(first)?, number(second)?);
    // Nobody writes the month first with dots.
    Some(match order {
        DateOrder::Mdy if separator != '.' => [year, first, second],
        _ => [year, second, first],
    })
}

/// `9:05`, `090500`, `1:30:05 PM` and a zone behind them, in the form of RFC 3339.
fn plain_clock(text: &str) -> Option<String> {
    // A number has no leading zero.
    if text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return plain_clock(&format!("0{text}"));
    }
    if matches!(text.len(), 4 | 6) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let second = text.get(4..).filter(|second| !second.is_empty()).unwrap_or("00");
        return Some(format!("{}:{}:{second}", text.get(..2)?, text.get(2..4)?));
    }
    let (hour, rest) = text.split_once(':')?;
    let mut hour: u32 = hour.parse().ok().filter(|_| hour.len() <= 2)?;
    let lower = rest.to_ascii_lowercase();
    let is_afternoon = lower.ends_with("pm") || lower.ends_with("p.m.");
    let is_morning = lower.ends_with("am") || lower.ends_with("a.m.");
    let rest = if is_afternoon || is_morning {
        hour = hour.checked_rem(12)?.checked_add(if is_afternoon { 12 } else { 0 })?;
        lower.trim_end_matches(['a', 'p', 'm', '.', ' '])
    } else {
        rest
    };
    Some(format!("{hour:02}:{rest}"))
}

/// When the store's day begins and when it is open, on the store's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hours {
    zone: Zone,
    day_start_min: u64,
    /// From and to, in minutes of the day; a night goes over midnight.
    open: (u64, u64),
    /// From Monday.
    days: [bool; 7],
}

impl Hours {
    /// Checks the settings; the error says what to change.
    pub(crate) fn new(zone: Zone, day_start: &str, opening: &str, days: &[String]) -> Result<Self, String> {
        let day_start_min = minutes(day_start)
            .filter(|minutes| *minutes < 24 * 60)
            .ok_or_else(|| format!("business_day_start: {day_start:?} is no time such as \"04:00\""))?;
        let open = opening
            .split_once('-')
            .and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        let open = open.ok_or_else(|| format!("opening_hours: {opening:?} is not written as \"08:00-20:00\""))?;
        let mut known = [false; 7];
        for day in days {
            let place = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
                .iter()
                .position(|name| name == day);
            let slot = place.and_then(|place| known.get_mut(place));
            *slot.ok_or_else(|| format!("opening_days: {day:?} is none of mon, tue, wed, thu, fri, sat and sun"))? =
                true;
        }
        Ok(Self {
            zone,
            day_start_min,
            open,
            days: known,
        })
    }

    /// The number of the store's day, such as days since 1970.
    pub(crate) fn business_day(&self, time_ms: u64) -> u32 {
        let start_ms = self.day_start_min.saturating_mul(MINUTE_MS);
        let day = self.local_ms(time_ms).saturating_sub(start_ms).checked_div(DAY_MS);
        u32::try_from(day.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// A night belongs to the day on which it begins.
    pub(crate) fn is_open(&self, now_ms: u64) -> bool {
        let local_ms = self.local_ms(now_ms);
        let day = local_ms.checked_div(DAY_MS).unwrap_or(0);
        let minute = local_ms
            .checked_rem(DAY_MS)
            .and_then(|ms| ms.checked_div(MINUTE_MS))
            .unwrap_or(0);
        let (from, to) = self.open;
        // 1970-01-01 was a Thursday.
        let opens_on = |day: u64| {
            let weekday = day
                .saturating_add(3)
                .checked_rem(7)
                .and_then(|day| usize::try_from(day).ok());
            weekday
                .and_then(|weekday| self.days.get(weekday))
                .copied()
                .unwrap_or(false)
        };
        if from < to {
            opens_on(day) && (from..to).contains(&minute)
        } else {
            (opens_on(day) && minute >= from) || (opens_on(day.saturating_sub(1)) && minute < to)
        }
    }

    fn local_ms(&self, time_ms: u64) -> u64 {
        time_ms.saturating_add_signed(self.zone.ahead_ms(time_ms))
    }
}

/// `08:30`, up to `24:00`.
fn minutes(text: &str) -> Option<u64> {
    let (hour, minute) = text.trim_ascii().split_once(':')?;
    let (hour, minute) = (hour.parse::<u64>().ok()?, minute.parse::<u64>().ok()?);
    let minutes = hour.checked_mul(60)?.checked_add(minute)?;
    (minute < 60 && minutes <= 24 * 60).then_some(minutes)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
mod tests {
    use super::*;

    const AT_MS: u64 = 1_772_451_005_000;

    #[test]
    fn times_of_tills_are_read() {
        let berlin = Zone::parse("+01:00").unwrap();
        for (day, clock, order) in [
            ("2026-03-02T11:30:05Z", "", DateOrder::Dmy),
            ("2026-03-02 12:30:05", "", DateOrder::Dmy),
            ("02.03.2026 12:30:05", "", DateOrder::Mdy),
            ("2.3.26 12:30:05", "", DateOrder::Dmy),
            ("02/03/2026 12:30:05", "", DateOrder::Dmy),
            ("3/2/2026 12:30:05 PM", "", DateOrder::Mdy),
            ("2026/03/02 12:30:05", "", DateOrder::Mdy),
            ("20260302123005", "", DateOrder::Dmy),
            ("20260302", "123005", DateOrder::Dmy),
            ("02.03.2026", "12:30:05", DateOrder::Dmy),
            ("2026-03-02 00:00:00", "12:30:05", DateOrder::Dmy),
            ("1772451005", "", DateOrder::Dmy),
        ] {
            assert_eq!(parse(day, clock, order, berlin), Ok(AT_MS), "{day} {clock}");
        }
        let midnight = parse("03/02/2026", "12:05 am", DateOrder::Mdy, berlin);
        assert_eq!(midnight, parse("2026-03-02T00:05:00", "", DateOrder::Dmy, berlin));
        for day in [
            "",
            "yesterday",
            "02.03.2026",
            "31.02.2026 10:00",
            "1.2 10:00",
            "02.03.2026 25:00",
            "é.ü.öäöä 1:00",
        ] {
            assert_eq!(parse(day, "", DateOrder::Dmy, berlin), Err(Wrong::Time), "{day}");
        }
        assert_eq!(super::day("02.03.2026", DateOrder::Dmy), Some(20_260_302));
        assert_eq!(super::day("2026-03-02+01:00", DateOrder::Dmy), Some(20_260_302));
    }

    fn hours(opening: &str, days: &[&str]) -> Hours {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        Hours::new(Zone::parse("+01:00").unwrap(), "04:00", opening, &days).unwrap()
    }

    fn at(text: &str) -> u64 {
        time_ms(text, Zone::parse("+01:00").unwrap()).unwrap()
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let shop = hours("08:00-20:00", &["mon"]);
        let bar = hours("18:00-02:00", &["mon"]);
        // 2026-03-02 is a Monday.
        for (time, shop_open, bar_open) in [
            ("2026-03-02T07:59:00", false, false),
            ("2026-03-02T08:00:00", true, false),
            ("2026-03-02T19:59:00", true, true),
            ("2026-03-02T20:00:00", false, true),
            ("2026-03-03T01:59:00", false, true),
            ("2026-03-03T02:00:00", false, false),
            ("2026-03-02T01:00:00", false, false),
        ] {
            assert_eq!(
                (shop.is_open(at(time)), bar.is_open(at(time))),
                (shop_open, bar_open),
                "{time}"
            );
        }
        let days = ["2026-03-02T04:00:00", "2026-03-03T03:59:00", "2026-03-03T04:00:00"]
            .map(|time| bar.business_day(at(time)));
        assert_eq!((days[0] == days[1], days[2] - days[1]), (true, 1));
    }

    #[test]
    fn wrong_hours_are_told() {
        for (start, opening, day) in [
            ("4", "08:00-20:00", "mon"),
            ("04:00", "8-20", "mon"),
            ("04:00", "08:00-25:00", "mon"),
            ("04:00", "08:00-20:00", "Monday"),
        ] {
            assert!(
                Hours::new(Zone::default(), start, opening, &[day.to_owned()]).is_err(),
                "{start} {opening} {day}"
            );
        }
    }
}
