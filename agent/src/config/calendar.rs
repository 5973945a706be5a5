//! `[calendar]`: when the store is open, which days are not as their weekday, and when more is expected.
//!
//! In: what is written. Out: a [`Calendar`], with a problem at each entry that cannot be meant.

use std::collections::BTreeMap;

use jiff::civil::Date;
use tillwatch_core::detect::calendar::{Calendar, DAYS_MAX, Hours, SpecialDay};
use toml::Spanned;

use super::written::{Mistake, Section};

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MIN: u16 = 1_440;
const PROMOTION_DAYS_MAX: i32 = 62;

/// Reads all of it, so that all problems are found.
pub(super) fn calendar(root: &Section<'_>) -> Calendar {
    let Some(section) = root.table("calendar") else {
        return Calendar::default();
    };
    let calendar = Calendar {
        week: week(&section),
        days: days(&section),
        promotions: entries(&section, "promotions", promotion)
            .into_iter()
            .map(Spanned::into_inner)
            .collect(),
    };
    section.report_unknown();
    calendar
}

/// A list of texts; one that cannot be meant is reported where it stands.
fn entries<T>(section: &Section<'_>, key: &str, read: impl Fn(&str) -> Result<T, Mistake>) -> Vec<Spanned<T>> {
    let texts = section.strings(key).map(Spanned::into_inner).unwrap_or_default();
    if texts.len() > DAYS_MAX {
        section.report_at(
            key,
            format!("`{key}` has more than {DAYS_MAX} entries"),
            "leave out what is long ago",
        );
    }
    let one = |text: Spanned<String>| match read(text.get_ref()) {
        Ok(value) => Some(Spanned::new(text.span(), value)),
        Err(mistake) => {
            section.report(text.span(), format!("`{key}` {}", mistake.what), mistake.hint);
            None
        }
    };
    texts.into_iter().take(DAYS_MAX).filter_map(one).collect()
}

fn week(section: &Section<'_>) -> Option<[Vec<Hours>; 7]> {
    section.value("open")?;
    let mut week: [Vec<Hours>; 7] = Default::default();
    for entry in entries(section, "open", open) {
        let span = entry.span();
        let (days, hours) = entry.into_inner();
        for day in days {
            let overlaps = |other: &Hours| other.from_min < hours.to_min && hours.from_min < other.to_min;
            if week[day].iter().any(overlaps) {
                let what = format!("`open` says two things of {}", WEEKDAYS[day]);
                section.report(span.clone(), what, "let each hour of a weekday stand once");
            }
            week[day].push(hours);
        }
    }
    Some(week)
}

fn days(section: &Section<'_>) -> BTreeMap<Date, SpecialDay> {
    let plain = |key: &str, day: SpecialDay| {
        let days = entries(section, key, date);
        days.into_iter().map(move |date| (date.span(), date.into_inner(), day))
    };
    let special = entries(section, "special_hours", special).into_iter();
    let special = special.map(|entry| {
        let span = entry.span();
        let (date, hours) = entry.into_inner();
        (span, date, SpecialDay::Open(hours))
    });
    let mut days = BTreeMap::new();
    for (span, date, day) in plain("closed", SpecialDay::Closed)
        .chain(plain("like_sunday", SpecialDay::Sunday))
        .chain(special)
    {
        if days.insert(date, day).is_some() {
            section.report(
                span,
                format!("{date} stands twice in `[calendar]`"),
                "let each day stand once",
            );
        }
    }
    days
}

/// `mon-fri 07:00-21:00`
fn open(text: &str) -> Result<(Vec<usize>, Hours), Mistake> {
    let wrong = || {
        Mistake::new(
            format!("is not days and hours: {text:?}"),
            "write weekdays and times, such as \"mon-fri 07:00-21:00\" or \"sat 08:00-22:00\"",
        )
    };
    let (days, hours_text) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let of = |name: &str| {
        let name = name.to_lowercase();
        WEEKDAYS
            .iter()
            .position(|day| name.len() >= 3 && name.starts_with(day))
            .ok_or_else(wrong)
    };
    let (first, last) = (of(first)?, of(last)?);
    let count = (last + 7 - first) % 7;
    Ok(((first..=first + count).map(|day| day % 7).collect(), hours(hours_text)?))
}

/// `07:00-21:00`
fn hours(text: &str) -> Result<Hours, Mistake> {
    let wrong = || {
        Mistake::new(
            format!("is not opening hours: {text:?}"),
            "write 07:00-21:00; what goes beyond midnight are two entries, 18:00-24:00 and 00:00-02:00 of the next day",
        )
    };
    let (from, to) = text.trim().split_once('-').ok_or_else(wrong)?;
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        let all = hour.checked_mul(60)?.checked_add(minute)?;
        (minute < 60 && all <= DAY_MIN).then_some(all)
    };
    let (from_min, to_min) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
    if from_min >= to_min {
        return Err(wrong());
    }
    Ok(Hours { from_min, to_min })
}

fn date(text: &str) -> Result<Date, Mistake> {
    let mistake = |_no_date| Mistake::new(format!("is not a day: {text:?}"), "write it as \"2026-12-25\"");
    text.trim().parse().map_err(mistake)
}

/// `2026-12-24 07:00-14:00`
fn special(text: &str) -> Result<(Date, Hours), Mistake> {
    let (day, hours_text) = text.trim().split_once(' ').ok_or_else(|| {
        Mistake::new(
            format!("is not a day and its hours: {text:?}"),
            "write \"2026-12-24 07:00-14:00\"",
        )
    })?;
    Ok((date(day)?, hours(hours_text)?))
}

/// `2026-11-27` or `2026-11-27..2026-11-30`
fn promotion(text: &str) -> Result<(Date, Date), Mistake> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (date(first)?, date(last)?);
    let days = last.since(first).map_or(-1, |span| span.get_days());
    if !(0..PROMOTION_DAYS_MAX).contains(&days) {
        return Err(Mistake::new(
            format!("is no promotion: {text:?}"),
            format!("write its first and last day, at most {PROMOTION_DAYS_MAX} days: what is longer is what is usual"),
        ));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::written::{Reporter, parse};
    use super::*;

    fn read(text: &str) -> (Calendar, Vec<String>) {
        let reporter = Reporter::new(Path::new("agent.toml"), text);
        let tree = parse(text, &reporter);
        let calendar = calendar(&Section::root(&tree, &reporter));
        let problems = reporter.into_problems().0;
        (calendar, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_calendar_is_read_as_it_is_written() {
        let (calendar, problems) = read(
            "[calendar]\nopen = [\"mon-fri 07:00-21:00\", \"Saturday 08:00-12:00\", \"sat 13:00-24:00\"]\n\
             closed = [\"2026-12-25\"]\nlike_sunday = [\"2026-10-03\"]\nspecial_hours = [\"2026-12-24 07:00-14:00\"]\n\
             promotions = [\"2026-11-27..2026-11-30\", \"2026-06-01\"]\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let week = calendar.week.unwrap();
        let hours = |day: usize| {
            week[day]
                .iter()
                .map(|hours| (hours.from_min, hours.to_min))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (hours(4), hours(5), hours(6)),
            (vec![(420, 1_260)], vec![(480, 720), (780, 1_440)], vec![])
        );
        let days: Vec<String> = calendar
            .days
            .iter()
            .map(|(day, special)| format!("{day} {special:?}"))
            .collect();
        assert!(
            days[0] == "2026-10-03 Sunday" && days[1].contains("Open") && days[2] == "2026-12-25 Closed",
            "{days:?}"
        );
        assert_eq!(calendar.promotions.len(), 2);
        assert_eq!(read("site = \"a\"\n").0, Calendar::default());
    }

    #[test]
    fn each_entry_that_cannot_be_meant_is_told_with_its_line() {
        let (_calendar, problems) = read(
            "[calendar]\nopen = [\n  \"mon-fri 07:00-21:00\",\n  \"tue 20:00-22:00\",\n  \"fr 7-21\",\n  \"sun 21:00-07:00\",\n]\n\
             closed = [\"25.12.2026\", \"2026-12-26\", \"2026-12-26\"]\n\
             promotions = [\"2026-11-30..2026-11-27\", \"2026-01-01..2026-12-31\"]\nholidays = []\n",
        );
        let expected = [
            ("4:3", "two things of tue"),
            ("5:3", "not days and hours"),
            ("6:3", "not opening hours"),
            ("8:11", "not a day"),
            ("8:39", "stands twice"),
            ("9:15", "no promotion"),
            ("9:41", "at most 62 days"),
            ("10:", "holidays"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, (place, what)) in problems.iter().zip(expected) {
            assert!(
                problem.contains(&format!("agent.toml:{place}")) && problem.contains(what),
                "{problem}"
            );
        }
    }
}
