//! How many customers want to buy, per store and minute: the shape of the day and the week, good and bad days, holidays.
//!
//! In: the scenario and a seed. Out: customers per minute. Hours are local. It never knows what is lost.

use super::random::Random;
use super::scenario::{self, Event, Scenario};
use super::{DAY_MS, MINUTE_MS, as_u64};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Monday, 19 January 2026, 00:00 UTC.
const FIRST_MONDAY_MS: u64 = 1_768_780_800_000;
/// Weeks of history before today.
const WEEKS: u64 = 5;
const WEEK: [f64; 7] = [1.0, 0.95, 1.0, 1.05, 1.25, 1.4, 0.5];
/// Spread of a day's level: of the chain, a region, a store.
const CHAIN_SIGMA: f64 = 0.06;
const REGION_SIGMA: f64 = 0.03;
const STORE_SIGMA: f64 = 0.03;
/// The busiest minute against a store's mean one.
const PEAK: f64 = 1.9;

#[derive(Debug)]
pub(super) struct Calendar {
    pub(super) history_start_ms: u64,
    pub(super) today_ms: u64,
    first_day: u64,
    zone: TimeZone,
    per_minute: Vec<f64>,
    /// By store and day since the first one.
    levels: Vec<Vec<f64>>,
    lifts: Vec<Vec<Event>>,
}

impl Calendar {
    pub(super) fn new(scenario: &Scenario, regions: &[usize], seed: u64) -> Calendar {
        let chain = &scenario.chain;
        let history_start_ms = FIRST_MONDAY_MS + u64::from(chain.first_day) * DAY_MS;
        let today_ms = history_start_ms + (7 * WEEKS + u64::from(scenario.weekday)) * DAY_MS;
        let mut random = Random::new(seed, 2);
        let days = (today_ms - history_start_ms) / DAY_MS + 2;
        let level = |key: u64, day: u64, sigma: f64| sigma * Random::new(seed ^ (day << 20), key).normal();
        let of_day = |store: usize, day: u64| {
            let own = level(2_000 + as_u64(store), day, STORE_SIGMA);
            let region = level(1_001 + as_u64(regions[store]), day, REGION_SIGMA);
            let spread = if day + 2 == days { scenario.oddness } else { 1.0 };
            (spread * (level(1_000, day, CHAIN_SIGMA) + region + own)).exp()
        };
        let here = |store: usize| {
            let lifts = scenario.events.iter().filter(|event| event.lift.is_some());
            lifts
                .filter(|event| event.is_at(store, regions[store]))
                .cloned()
                .collect()
        };
        Calendar {
            history_start_ms,
            today_ms,
            first_day: u64::from(chain.first_day),
            zone: scenario::zone(&chain.time_zone).unwrap_or(TimeZone::UTC),
            per_minute: regions
                .iter()
                .map(|_| chain.per_minute * (0.35 * random.normal()).exp())
                .collect(),
            levels: (0..regions.len())
                .map(|store| (0..days).map(|day| of_day(store, day)).collect())
                .collect(),
            lifts: (0..regions.len()).map(here).collect(),
        }
    }

    /// Customers per minute who want to buy then.
    pub(super) fn rate(&self, store: usize, at_ms: u64) -> f64 {
        let local_ms = at_ms.saturating_add_signed(self.offset_ms(at_ms)) - self.history_start_ms;
        let (day, minute) = (local_ms / DAY_MS, local_ms % DAY_MS / MINUTE_MS);
        let hour = f64::from(u32::try_from(minute).unwrap_or(0)) / 60.0;
        if !(8.0..20.0).contains(&hour) {
            return 0.0;
        }
        let hill = |at: f64, width: f64| (-((hour - at) / width).powi(2)).exp();
        let shape = 0.5 + 0.6 * hill(12.0, 1.8) + 0.8 * hill(17.5, 2.0);
        let week = WEEK[usize::try_from((day + self.first_day) % 7).unwrap_or(0)];
        let level = self.levels[store]
            .get(usize::try_from(day).unwrap_or(0))
            .copied()
            .unwrap_or(1.0);
        self.per_minute[store] * shape * week * level * self.lift(store, at_ms)
    }

    /// The busiest rate that a store is staffed for.
    pub(super) fn busiest(&self, store: usize) -> f64 {
        PEAK * self.per_minute[store]
    }

    fn lift(&self, store: usize, at_ms: u64) -> f64 {
        let Some(minute) = at_ms.checked_sub(self.today_ms) else {
            return 1.0;
        };
        let minute = u32::try_from(minute / MINUTE_MS).unwrap_or(u32::MAX);
        let lasting = self.lifts[store].iter().filter(|event| event.lasts(minute));
        lasting.filter_map(|event| event.lift).product()
    }

    fn offset_ms(&self, at_ms: u64) -> i64 {
        let at = i64::try_from(at_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.map_or(0, |at| i64::from(self.zone.to_offset(at).seconds()) * 1_000)
    }
}
