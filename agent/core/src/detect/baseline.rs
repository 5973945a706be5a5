//! Forecast: half-hour of the day, what this half-hour of the week differs from it, and a slow level.
//!
//! In: residuals in order. Out: mean and standard deviation of the next value.
//! Residuals are clipped before they teach, so that an incident does not become normal.

use super::slot::{DAY_SLOTS, Pace, Slot, WEEK_SLOTS};

/// A residual teaches at most so many standard deviations.
const LEARN_CLIP: f32 = 4.0;

/// The first values teach unclipped: their spread is not known yet.
const UNCLIPPED: f32 = 20.0;

/// What is learnt while a finding is open.
const OPEN_RATE: f32 = 0.25;

/// A slot of the day that is new starts from the one before it, which counts as so large a share of a visit.
const BORROWED: f32 = 0.05;

/// What to expect of the next value, on the transformed scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forecast {
    pub(crate) mean: f32,
    pub(crate) sd: f32,
}

/// What was learnt of a series: about 2.7 KB.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) day: [f32; DAY_SLOTS],
    pub(crate) variance: [f32; DAY_SLOTS],
    /// Windows seen in the slot of the day, up to fifty visits.
    pub(crate) day_seen: [f32; DAY_SLOTS],
    pub(crate) week: [f32; WEEK_SLOTS],
    /// Windows seen in the slot of the week.
    pub(crate) week_seen: [u16; WEEK_SLOTS],
    pub(crate) level: f32,
    pub(crate) variance_all: f32,
    pub(crate) seen: f32,
    pub(crate) last_day: u8,
}

impl Baseline {
    pub(crate) fn new() -> Baseline {
        Baseline {
            day: [0.0; DAY_SLOTS],
            variance: [0.0; DAY_SLOTS],
            day_seen: [0.0; DAY_SLOTS],
            week: [0.0; WEEK_SLOTS],
            week_seen: [0; WEEK_SLOTS],
            level: 0.0,
            variance_all: 0.0,
            seen: 0.0,
            last_day: 0,
        }
    }

    /// Has this half-hour of the week been seen, at least half of it?
    pub(crate) fn knows(&self, pace: &Pace, slot: Slot) -> bool {
        f32::from(self.week_seen[slot.week]) >= pace.windows_per_slot / 2.0
    }

    /// What to expect; `y` itself only starts the very first forecast.
    pub(crate) fn forecast(&mut self, pace: &Pace, slot: Slot, y: f32, sd_min: f32) -> Forecast {
        if self.day_seen[slot.day] <= 0.0 {
            let before = usize::from(self.last_day).min(DAY_SLOTS - 1);
            let new = self.seen <= 0.0;
            self.day[slot.day] = if new { y } else { self.day[before] };
            self.variance[slot.day] = if new { 0.0 } else { self.variance[before] };
            self.day_seen[slot.day] = BORROWED * pace.windows_per_slot;
        }
        self.last_day = u8::try_from(slot.day).unwrap_or(0);
        let week_seen = f32::from(self.week_seen[slot.week]);
        let week = self.week[slot.week] * week_seen / (week_seen + pace.windows_per_slot / 4.0);
        Forecast {
            mean: self.day[slot.day] + week + self.level,
            sd: self.variance_of(pace, slot).sqrt().max(sd_min),
        }
    }

    pub(crate) fn learn(&mut self, pace: &Pace, slot: Slot, residual: f32, sd: f32, open: bool) {
        let clip = if self.seen < UNCLIPPED {
            f32::INFINITY
        } else {
            LEARN_CLIP * sd
        };
        let residual = residual.clamp(-clip, clip);
        let pull = residual * if open { OPEN_RATE } else { 1.0 };
        let day_seen = self.day_seen[slot.day];
        let day_rate = (1.0 / (day_seen + 1.0)).max(0.02 / pace.windows_per_slot);
        let week_seen = f32::from(self.week_seen[slot.week]);
        let week_rate = 0.5 * (1.0 / (week_seen + 2.0)).max(0.1 / pace.windows_per_slot);
        // The level would take a first Sunday for a change of the whole store.
        if self.knows(pace, slot) {
            self.level += pace.level_rate * pull;
        }
        self.day[slot.day] += day_rate * pull;
        self.week[slot.week] += week_rate * pull;
        if !open {
            self.learn_variance(pace, slot, residual * residual, day_rate);
        }
        self.day_seen[slot.day] = (day_seen + 1.0).min(50.0 * pace.windows_per_slot);
        self.week_seen[slot.week] = self.week_seen[slot.week].saturating_add(1);
        self.seen += 1.0;
    }

    fn learn_variance(&mut self, pace: &Pace, slot: Slot, square: f32, day_rate: f32) {
        self.variance[slot.day] += day_rate * (square - self.variance[slot.day]);
        let rate = (1.0 / (self.seen + 1.0)).max(1.0 / (7.0 * pace.windows_per_day));
        self.variance_all += rate * (square - self.variance_all);
    }

    /// The slot's own, shrunk to that of the whole day while young.
    fn variance_of(&self, pace: &Pace, slot: Slot) -> f32 {
        let (own, prior) = (self.day_seen[slot.day], pace.windows_per_slot);
        (own * self.variance[slot.day] + prior * self.variance_all) / (own + prior)
    }
}
