//! How much of the day's bytes is left, how coarse the feed gets for it, and what has to wait: pure, told time and counts.
//!
//! In: bytes as they are counted on the connection, which of them were backlog, the machine's time. Out: the resolution of
//! what is summed up from now on, and the last lane that may be sent.
//! It never drops: what has to wait stays in the spool, whose own bounds say what is lost.
//!
//! ```text
//!  every quarter of an hour: what the last one took × the quarters left of the day > what is left of the bytes?
//!    yes: one step coarser      full ─► fifth ─► fifteenth ─► essential      no, not even at the finer one: one step back
//!  at any time:  the day's bytes spent: findings and losses alone    more spent than the share of the day: no backlog
//! ```
//! A day is that of UTC. Findings, losses, and the connection itself are counted and never wait.

use crate::delivery::Lane;

pub const DAY_MS: u64 = 86_400_000;
pub const QUARTER_MS: u64 = 900_000;

/// How coarse the sums are, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// As the settings say.
    #[default]
    Full,
    /// Five intervals are one.
    Fifth,
    /// Fifteen are one: a quarter of an hour at the default of a minute.
    Fifteenth,
    /// The same, and only of metrics with a role, on which the center's model is built.
    Essential,
}

impl Resolution {
    const ALL: [Resolution; 4] = [
        Resolution::Full,
        Resolution::Fifth,
        Resolution::Fifteenth,
        Resolution::Essential,
    ];

    /// So many intervals of the settings are one.
    #[must_use]
    pub fn intervals(self) -> u32 {
        match self {
            Resolution::Full => 1,
            Resolution::Fifth => 5,
            Resolution::Fifteenth | Resolution::Essential => 15,
        }
    }

    /// From 0, full, on.
    #[must_use]
    pub fn step(self) -> u8 {
        self as u8
    }

    /// The coarsest for what is none.
    #[must_use]
    pub fn of_step(step: u8) -> Resolution {
        let known = Resolution::ALL.get(usize::from(step)).copied();
        known.unwrap_or(Resolution::Essential)
    }

    fn coarser(self) -> Resolution {
        Resolution::of_step(self.step().saturating_add(1))
    }

    /// The finer one, and how many times the bytes it takes at most.
    fn finer(self) -> Option<(Resolution, u64)> {
        match self {
            Resolution::Full => None,
            Resolution::Fifth => Some((Resolution::Full, 5)),
            Resolution::Fifteenth => Some((Resolution::Fifth, 3)),
            // Nobody knows how much the rest is.
            Resolution::Essential => Some((Resolution::Fifteenth, 4)),
        }
    }
}

/// What outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Days since 1970.
    pub day: u64,
    pub bytes: u64,
    pub resolution: Resolution,
}

/// The bytes of a day; without a limit they are counted and nothing changes.
#[derive(Debug)]
pub struct Budget {
    bytes_per_day: Option<u64>,
    spent: Spent,
    quarter: u64,
    quarter_bytes: u64,
    backlog_bytes: u64,
    /// The connection stood all of the quarter, so that its bytes say what one takes.
    is_whole: bool,
}

impl Budget {
    /// Goes on with what was spent before; of an earlier day only the resolution is left.
    #[must_use]
    pub fn new(bytes_per_day: Option<u64>, spent: Spent, now_ms: u64) -> Budget {
        let mut budget = Budget {
            bytes_per_day,
            spent,
            quarter: now_ms / QUARTER_MS,
            quarter_bytes: 0,
            backlog_bytes: 0,
            is_whole: false,
        };
        if bytes_per_day.is_none() {
            budget.spent.resolution = Resolution::Full;
        }
        budget.turn_day(now_ms);
        budget
    }

    /// So many bytes went over the connection, both ways.
    pub fn on_bytes(&mut self, now_ms: u64, bytes: u64) {
        self.on_time(now_ms);
        self.spent.bytes = self.spent.bytes.saturating_add(bytes);
        self.quarter_bytes = self.quarter_bytes.saturating_add(bytes);
    }

    /// So many of them were what waited before.
    pub fn on_backlog(&mut self, bytes: u64) {
        self.backlog_bytes = self.backlog_bytes.saturating_add(bytes);
    }

    /// No connection stands, or did all of the time.
    pub fn on_disconnected(&mut self) {
        self.is_whole = false;
    }

    /// Turns quarters and days. A clock that was set back turns nothing until it is where it was, but for a day.
    pub fn on_time(&mut self, now_ms: u64) {
        self.turn_day(now_ms);
        let quarter = now_ms / QUARTER_MS;
        if quarter > self.quarter || quarter + DAY_MS / QUARTER_MS < self.quarter {
            self.decide(now_ms);
            self.quarter = quarter;
            (self.quarter_bytes, self.backlog_bytes, self.is_whole) = (0, 0, true);
        }
    }

    /// What was spent of this day.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// What may be spent of each day.
    #[must_use]
    pub fn bytes_per_day(&self) -> Option<u64> {
        self.bytes_per_day
    }

    /// What may be sent now: this lane and all before it.
    #[must_use]
    pub fn last_lane(&self, now_ms: u64) -> Lane {
        let Some(bytes_per_day) = self.bytes_per_day else {
            return Lane::Backlog;
        };
        let share = u128::from(bytes_per_day) * u128::from(now_ms % DAY_MS) / u128::from(DAY_MS);
        if self.spent.bytes >= bytes_per_day {
            Lane::Urgent
        } else if u128::from(self.spent.bytes) >= share {
            Lane::Live
        } else {
            Lane::Backlog
        }
    }

    fn turn_day(&mut self, now_ms: u64) {
        let day = now_ms / DAY_MS;
        // Back by a day is a clock that was wrong; by less it is one that was set.
        if day > self.spent.day || day + 1 < self.spent.day {
            (self.spent.day, self.spent.bytes) = (day, 0);
        }
    }

    /// At the end of a quarter: would the day's bytes do if all that are left were like it?
    fn decide(&mut self, now_ms: u64) {
        let Some(bytes_per_day) = self.bytes_per_day else {
            return;
        };
        let quarters_left = (DAY_MS - now_ms % DAY_MS).div_ceil(QUARTER_MS);
        let left = bytes_per_day.saturating_sub(self.spent.bytes);
        let live = self.quarter_bytes.saturating_sub(self.backlog_bytes);
        let resolution = self.spent.resolution;
        if live.saturating_mul(quarters_left) > left {
            self.spent.resolution = resolution.coarser();
        } else if let Some((finer, times)) = resolution.finer()
            && self.is_whole
            && live.saturating_mul(times).saturating_mul(quarters_left) <= left
        {
            self.spent.resolution = finer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes `full` bytes a quarter at full resolution and had `waiting` bytes of backlog, for `days`.
    struct Store {
        budget: Budget,
        full: u64,
        waiting: u64,
        now_ms: u64,
        /// Of the day at hand, by minutes of the resolution.
        minutes: [u64; 4],
        held_minutes: u64,
    }

    impl Store {
        fn new(bytes_per_day: u64, full: u64, waiting: u64) -> Store {
            let now_ms = 20_000 * DAY_MS;
            Store {
                budget: Budget::new(Some(bytes_per_day), Spent::default(), now_ms),
                full,
                waiting,
                now_ms,
                minutes: [0; 4],
                held_minutes: 0,
            }
        }

        /// What central would have by the end of a day: the most that was spent on the way.
        fn day(&mut self) -> u64 {
            (self.minutes, self.held_minutes) = ([0; 4], 0);
            let mut most = 0;
            for _minute in 0..24 * 60 {
                self.budget.on_time(self.now_ms);
                let resolution = self.budget.spent().resolution;
                self.minutes[usize::from(resolution.step())] += 1;
                // Four times as coarse is a third of the bytes, then half of that, and half of the series.
                let live = self.full / 15 / [1, 3, 6, 12][usize::from(resolution.step())];
                let lane = self.budget.last_lane(self.now_ms);
                if lane == Lane::Urgent {
                    self.held_minutes += 1;
                } else {
                    self.budget.on_bytes(self.now_ms, live);
                }
                if lane == Lane::Backlog {
                    let bytes = self.waiting.min(2_000);
                    self.waiting -= bytes;
                    self.budget.on_bytes(self.now_ms, bytes);
                    self.budget.on_backlog(bytes);
                }
                most = most.max(self.budget.spent().bytes);
                self.now_ms += 60_000;
            }
            most
        }
    }

    #[test]
    fn a_store_within_its_bytes_keeps_its_resolution() {
        let mut store = Store::new(2_000_000, 15_000, 0);
        for _day in 0..3 {
            assert!(store.day() <= 2_000_000);
            assert_eq!((store.minutes, store.held_minutes), ([1_440, 0, 0, 0], 0));
        }
    }

    /// Half, a fifth and a tenth of what full resolution takes.
    #[test]
    fn a_store_beyond_its_bytes_gets_coarser_before_anything_waits() {
        for (bytes_per_day, coarsest) in [(720_000, 1), (288_000, 2), (150_000, 3)] {
            let mut store = Store::new(bytes_per_day, 15_000, 0);
            for day in 0..4 {
                let most = store.day();
                assert!(most <= bytes_per_day + 2_000, "{most} of {bytes_per_day}");
                assert_eq!(store.held_minutes, 0, "day {day}: {:?}", store.minutes);
                assert!(store.minutes[coarsest] > 0, "day {day}: {:?}", store.minutes);
            }
        }
    }

    #[test]
    fn what_is_less_than_the_coarsest_takes_waits_for_the_next_day_and_findings_go() {
        let mut store = Store::new(60_000, 15_000, 0);
        for _day in 0..2 {
            assert!(store.day() <= 62_000);
            assert!(store.held_minutes > 0, "{:?}", store.minutes);
        }
        assert_eq!(store.budget.last_lane(store.now_ms - 1), Lane::Urgent);
    }

    #[test]
    fn the_backlog_takes_what_the_live_feed_leaves_and_never_its_resolution() {
        let mut store = Store::new(2_400_000, 15_000, 1_500_000);
        assert!(store.day() <= 2_402_000);
        assert_eq!((store.minutes, store.held_minutes), ([1_440, 0, 0, 0], 0));
        let first = 1_500_000 - store.waiting;
        assert!(
            (800_000..=960_000).contains(&first),
            "{first} bytes of it on the first day"
        );
        store.day();
        assert_eq!(store.waiting, 0);
    }

    #[test]
    fn a_quarter_without_connection_makes_nothing_finer() {
        let mut store = Store::new(288_000, 15_000, 0);
        store.day();
        store.budget.on_time(store.now_ms);
        let before = store.budget.spent().resolution;
        assert!(before > Resolution::Full);
        store.budget.on_disconnected();
        store.budget.on_time(store.now_ms + QUARTER_MS);
        assert_eq!(store.budget.spent().resolution, before);
        store.budget.on_time(store.now_ms + 2 * QUARTER_MS);
        assert!(
            store.budget.spent().resolution < before,
            "a whole one that took nothing does"
        );
    }

    #[test]
    fn a_restart_goes_on_with_what_was_spent_and_a_new_day_begins_anew() {
        let now_ms = 20_000 * DAY_MS + DAY_MS / 2;
        let spent = Spent {
            day: 20_000,
            bytes: 7,
            resolution: Resolution::Fifth,
        };
        assert_eq!(Budget::new(Some(1_000), spent, now_ms).spent(), spent);
        let next = Budget::new(Some(1_000), spent, now_ms + DAY_MS).spent();
        assert_eq!((next.day, next.bytes, next.resolution), (20_001, 0, Resolution::Fifth));
        assert_eq!(Budget::new(None, spent, now_ms).spent().resolution, Resolution::Full);
        let set_back = Budget::new(Some(1_000), spent, now_ms - DAY_MS).spent();
        assert_eq!(
            (set_back.day, set_back.bytes),
            (20_000, 7),
            "no second day's bytes for a clock"
        );
    }
}
