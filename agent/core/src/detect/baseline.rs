//! Forecast: half-hour of the day, what this half-hour of the week differs from it, and a slow level.
//!
//! In: residuals in order. Out: mean and standard deviation of the next value.
//! Residuals are clipped before they teach, so that an incident does not become normal.

use super::slot::{DAY_SLOTS, Pace, Slot, WEEK_SLOTS};

/// A residual teaches at most so many standard deviations.
const LEARN_CLIP: f32 = 4.0;

/// The first values teach unclipped: their spread is not known yet.
const UNCLIPPED: f32 = 20.0;

/// What is learned while a finding is open.
const OPEN_RATE: f32 = 0.25;

/// A slot of the day that is new starts from the one before it, which counts as so large a share of a visit.
const BORROWED: f32 = 0.05;

/// What to expect of the next value, on the transformed scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forecast {
    pub(crate) mean: f32,
    pub(crate) sd: f32,
    /// The slot's own, without shrinking and without a floor.
    pub(crate) variance: f32,
}

/// Visits of each slot of the week without anything since the last with something; more than two count as three. Four
/// slots are a byte, two bits each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EmptyVisits(pub(crate) [u8; WEEK_SLOTS / 4]);

impl Default for EmptyVisits {
    fn default() -> EmptyVisits {
        EmptyVisits([0; WEEK_SLOTS / 4])
    }
}

impl EmptyVisits {
    fn of(&self, slot: usize) -> u8 {
        self.0[slot / 4] >> (slot % 4 * 2) & 3
    }

    fn end_visit(&mut self, slot: usize, busy: bool) {
        let visits = if busy { 0 } else { (self.of(slot) + 1).min(3) };
        let (byte, shift) = (&mut self.0[slot / 4], slot % 4 * 2);
        *byte = *byte & !(3 << shift) | visits << shift;
    }
}

/// What was learned of a series: about 2.5 KB.
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
    pub(crate) empty: EmptyVisits,
    pub(crate) last_week: u16,
    /// There was something in this visit.
    pub(crate) busy: bool,
    /// This half-hour of the week was seen, at least half of it, before this visit.
    pub(crate) known: bool,
    /// There was never anything in this half-hour of the week, or not in the last two.
    pub(crate) closed: bool,
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
            empty: EmptyVisits::default(),
            last_week: 0,
            busy: false,
            known: false,
            closed: false,
        }
    }

    /// A window begins; true when it is the first of its slot, which settles the one before.
    pub(crate) fn enter(&mut self, pace: &Pace, slot: Slot) -> bool {
        let last = usize::from(self.last_week).min(WEEK_SLOTS - 1);
        let first = last != slot.week || self.seen <= 0.0;
        if first {
            self.empty.end_visit(last, self.busy);
            self.busy = false;
            self.last_week = u16::try_from(slot.week).unwrap_or(0);
            let week_seen = f32::from(self.week_seen[slot.week]);
            self.known = week_seen >= pace.windows_per_slot / 2.0;
            let empty_visits = self.empty.of(slot.week);
            let young = week_seen < pace.windows_per_slot * 1.5;
            self.closed = self.known && (empty_visits >= 2 || (empty_visits == 1 && young));
        }
        first
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
        let week = self.week[slot.week] * week_seen / (week_seen + pace.windows_per_slot / 8.0);
        let sd = self.variance_of(pace, slot).sqrt().max(sd_min);
        Forecast {
            mean: self.day[slot.day] + week + self.level,
            sd,
            variance: self.variance[slot.day],
        }
    }

    /// Day and week learn the mean itself, the level what the store differs from it now: so none drifts against another.
    pub(crate) fn learn(&mut self, pace: &Pace, slot: Slot, residual: f32, sd: f32, open: bool) {
        let clip = if self.seen < UNCLIPPED {
            f32::INFINITY
        } else {
            LEARN_CLIP * sd
        };
        let residual = residual.clamp(-clip, clip);
        let rate = if open { OPEN_RATE } else { 1.0 };
        let pull = (residual + self.level) * rate;
        let day_seen = self.day_seen[slot.day];
        let day_rate = (1.0 / (day_seen + 1.0)).max(0.02 / pace.windows_per_slot);
        let week_seen = f32::from(self.week_seen[slot.week]);
        let week_rate = (1.0 / (week_seen + 2.0)).max(0.05 / pace.windows_per_slot);
        // The level would take a first Sunday for a change of the whole store.
        if self.known {
            self.level += pace.level_rate * residual * rate;
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
    pub(crate) fn variance_of(&self, pace: &Pace, slot: Slot) -> f32 {
        let (own, prior) = (self.day_seen[slot.day], pace.windows_per_slot);
        (own * self.variance[slot.day] + prior * self.variance_all) / (own + prior)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_visits_are_counted_to_three_and_apart() {
        let mut empty = EmptyVisits::default();
        for slot in [4, 6, 7, WEEK_SLOTS - 1] {
            (0..5).for_each(|_| empty.end_visit(slot, false));
        }
        empty.end_visit(5, false);
        empty.end_visit(6, true);
        assert_eq!(
            [4, 5, 6, 7, 8, WEEK_SLOTS - 1].map(|slot| empty.of(slot)),
            [3, 1, 0, 3, 0, 3]
        );
    }
}
