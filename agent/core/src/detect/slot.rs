//! Where in the site's local day and week a window lies, and how many windows make one.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Half-hours of a day and of a week.
pub(crate) const DAY_SLOTS: usize = 48;
pub(crate) const WEEK_SLOTS: usize = 336;

/// A half-hour of the local week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 0 to 47 from midnight.
    pub day: usize,
    /// 0 to 335 from Monday's midnight.
    pub week: usize,
}

impl Slot {
    /// The slot of a moment; days with a change of the clock skip or repeat slots.
    #[must_use]
    pub fn at(time_ms: u64, zone: &TimeZone) -> Slot {
        let time = i64::try_from(time_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default();
        let local = zone.to_datetime(time);
        let half_hours = i32::from(local.hour()) * 2 + i32::from(local.minute()) / 30;
        let day = usize::try_from(half_hours).unwrap_or(0).min(DAY_SLOTS - 1);
        let weekday = usize::try_from(local.weekday().to_monday_zero_offset()).unwrap_or(0);
        Slot {
            day,
            week: (weekday * DAY_SLOTS + day).min(WEEK_SLOTS - 1),
        }
    }
}

/// How fast windows come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) window_ms: u32,
    pub(crate) windows_per_slot: f32,
    pub(crate) windows_per_day: f32,
    /// Weight of one window in the level: a memory of two hours.
    pub(crate) level_rate: f32,
    /// Windows after which ranks count half: three weeks.
    pub(crate) rank_memory: f32,
}

impl Pace {
    pub(crate) fn new(window_ms: u32) -> Pace {
        let windows_in = |ms: u32| super::to_f32(ms / window_ms.max(1)).max(1.0);
        let windows_per_slot = windows_in(1_800_000);
        Pace {
            window_ms,
            windows_per_slot,
            windows_per_day: windows_per_slot * 48.0,
            level_rate: (0.25 / windows_per_slot).min(0.1),
            rank_memory: windows_per_slot * 48.0 * 21.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(time: &str) -> Slot {
        let time: Timestamp = time.parse().unwrap();
        Slot::at(
            u64::try_from(time.as_millisecond()).unwrap(),
            &TimeZone::get("Europe/Berlin").unwrap(),
        )
    }

    #[test]
    fn slots_follow_the_local_clock_across_daylight_saving() {
        // A Monday, 08:30 local in winter and in summer.
        assert_eq!(slot("2026-11-23T07:30:00Z"), Slot { day: 17, week: 17 });
        assert_eq!(slot("2026-07-06T06:45:00Z"), Slot { day: 17, week: 17 });
        assert_eq!(slot("2026-07-05T21:59:59Z"), Slot { day: 47, week: 335 });
        // The hour that comes twice.
        assert_eq!(slot("2026-10-25T00:30:00Z"), slot("2026-10-25T01:30:00Z"));
    }
}
