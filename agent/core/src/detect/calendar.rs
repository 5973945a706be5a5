//! What the operator knows of the site's days: when it is open, which days are not as usual, when more is expected.
//!
//! In: a moment. Out: its half-hour of the week, and what is special about it. All of it is local time, so a day of 23 or
//! 25 hours is open as long as its clock says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::slot::{DAY_SLOTS, WEEK_SLOTS};
use super::{Shape, Slot};

/// Around opening hours so many minutes are judged by what is usual: customers of the last minute pay after closing.
const GRACE_MIN: u16 = 30;

/// Days that are not as their weekday, and promotions, of one calendar.
pub const DAYS_MAX: usize = 400;

const SUNDAY: usize = 6;

/// What is special about a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occasion {
    /// Nothing.
    #[default]
    Usual,
    /// Outside of the opening hours: no sales are expected.
    Closed,
    /// The same on a day that would else be open: it teaches nothing of its weekday.
    Holiday,
    /// More is expected than usual, nobody knows how much: more is no news, and nothing is learned.
    Promotion,
}

impl Occasion {
    /// Of a series that goes on when the store is closed.
    #[must_use]
    pub fn without_hours(self) -> Occasion {
        match self {
            Occasion::Closed | Occasion::Holiday => Occasion::Usual,
            other => other,
        }
    }

    pub(crate) fn is_closed(self) -> bool {
        matches!(self, Occasion::Closed | Occasion::Holiday)
    }

    pub(crate) fn teaches(self) -> bool {
        matches!(self, Occasion::Usual | Occasion::Closed)
    }

    /// Of events and queues more than expected is no news in a promotion; slow tills are.
    pub(crate) fn expects_more(self, shape: Shape) -> bool {
        self == Occasion::Promotion && matches!(shape, Shape::Count | Shape::Depth)
    }
}

/// From a minute of the day to before another one, up to 1,440.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// The first minute.
    pub from_min: u16,
    /// The first minute after it.
    pub to_min: u16,
}

impl Hours {
    fn hold(self, minute: u16) -> bool {
        (self.from_min.saturating_sub(GRACE_MIN)..self.to_min.saturating_add(GRACE_MIN)).contains(&minute)
    }
}

/// A day that is not as its weekday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialDay {
    /// The store is closed.
    Closed,
    /// It goes as on a Sunday.
    Sunday,
    /// It has other opening hours.
    Open(Hours),
}

/// Opening hours and special days; without any the store is always open, and each day is as its weekday.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// From Monday; `None` = always open.
    pub week: Option<[Vec<Hours>; 7]>,
    /// Days that are not as their weekday.
    pub days: BTreeMap<Date, SpecialDay>,
    /// First and last day of each.
    pub promotions: Vec<(Date, Date)>,
}

impl Calendar {
    /// Half-hour of the week of a moment, and what is special about it.
    #[must_use]
    pub fn at(&self, time_ms: u64, zone: &TimeZone) -> (Slot, Occasion) {
        let slot = Slot::at(time_ms, zone);
        let time = i64::try_from(time_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default();
        let local = zone.to_datetime(time);
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let (date, special) = (local.date(), self.days.get(&local.date()));
        let day = match special {
            Some(SpecialDay::Closed | SpecialDay::Sunday) => SUNDAY,
            _ => (slot.week / DAY_SLOTS).min(SUNDAY),
        };
        let slot = Slot {
            week: (day * DAY_SLOTS + slot.day).min(WEEK_SLOTS - 1),
            ..slot
        };
        let is_open = match (special, &self.week) {
            (Some(SpecialDay::Open(hours)), _) => hours.hold(minute),
            (_, Some(week)) => week[day].iter().any(|hours| hours.hold(minute)),
            (_, None) => true,
        };
        (slot, self.occasion(date, special, is_open))
    }

    fn occasion(&self, date: Date, special: Option<&SpecialDay>, is_open: bool) -> Occasion {
        match special {
            Some(SpecialDay::Closed) => Occasion::Holiday,
            Some(_) if !is_open => Occasion::Holiday,
            _ if !is_open => Occasion::Closed,
            _ if self
                .promotions
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&date)) =>
            {
                Occasion::Promotion
            }
            _ => Occasion::Usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// Open on weekdays from 8 to 20.
    fn calendar() -> Calendar {
        let hours = vec![Hours {
            from_min: 480,
            to_min: 1_200,
        }];
        let day = |day: usize| if day < 5 { hours.clone() } else { Vec::new() };
        Calendar {
            week: Some(std::array::from_fn(day)),
            days: BTreeMap::from([
                (date(2026, 12, 25), SpecialDay::Closed),
                (date(2026, 12, 23), SpecialDay::Sunday),
                (
                    date(2026, 12, 24),
                    SpecialDay::Open(Hours {
                        from_min: 480,
                        to_min: 840,
                    }),
                ),
            ]),
            promotions: vec![(date(2026, 11, 27), date(2026, 11, 30))],
        }
    }

    fn at(time: &str) -> (usize, Occasion) {
        let time: Timestamp = time.parse().unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let (slot, occasion) = calendar().at(u64::try_from(time.as_millisecond()).unwrap(), &zone);
        (slot.week / DAY_SLOTS, occasion)
    }

    #[test]
    fn opening_hours_are_local_and_leave_room_for_the_last_customers() {
        assert_eq!(at("2026-11-23T18:59:00Z"), (0, Occasion::Usual));
        assert_eq!(at("2026-11-23T19:29:00Z"), (0, Occasion::Usual));
        assert_eq!(at("2026-11-23T19:30:00Z"), (0, Occasion::Closed));
        // The clock went forward on 29 March: 7:30 is an hour earlier in Greenwich than on Friday.
        assert_eq!(at("2026-03-27T06:30:00Z").1, Occasion::Usual);
        assert_eq!(at("2026-03-30T05:30:00Z").1, Occasion::Usual);
        assert_eq!(at("2026-03-30T05:29:00Z").1, Occasion::Closed);
    }

    #[test]
    fn holidays_are_sundays_and_promotions_are_told_when_the_store_is_open() {
        assert_eq!(at("2026-12-25T11:00:00Z"), (6, Occasion::Holiday));
        assert_eq!(at("2026-12-23T11:00:00Z"), (6, Occasion::Holiday));
        assert_eq!(at("2026-12-24T11:00:00Z"), (3, Occasion::Usual));
        assert_eq!(at("2026-12-24T15:00:00Z"), (3, Occasion::Holiday));
        assert_eq!(at("2026-11-27T11:00:00Z"), (4, Occasion::Promotion));
        assert_eq!(at("2026-11-29T11:00:00Z"), (6, Occasion::Closed));
        assert_eq!(at("2026-11-30T11:00:00Z"), (0, Occasion::Promotion));
        assert_eq!(at("2026-12-01T11:00:00Z"), (1, Occasion::Usual));
        assert_eq!(Calendar::default().at(0, &TimeZone::UTC).1, Occasion::Usual);
    }
}
