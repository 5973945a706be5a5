//! Between which values a window was expected to lie: the series' own past decides, not a normal distribution.
//!
//! In: what the judge said of a window. Out: the lower and the upper end, in the metric's whole numbers.

use super::slot::{Pace, Slot};
use super::{Detector, Judge, Verdict, to_f32};

/// Before so many ranked windows the past says nothing of the share, and noise is taken for normal.
const RANKED_MIN: u32 = 100;

/// Nine of ten normal residuals are within so many standard deviations.
const NORMAL_90: f32 = 1.645;

impl Judge {
    /// The ends between which nine of ten windows like this one lie.
    #[must_use]
    pub fn band(&self, verdict: &Verdict) -> (f64, f64) {
        self.detector.ends(verdict.mean, verdict.sd, verdict.expected)
    }
}

impl Detector {
    /// The same of a window of the past, from what was expected of it.
    pub(crate) fn band_of(&self, pace: &Pace, slot: Slot, expected: f64) -> (f64, f64) {
        let mean = self.shape.forward(expected);
        let sd = self
            .baseline
            .variance_of(pace, slot)
            .sqrt()
            .max(self.shape.sd_min(mean));
        self.ends(mean, sd, expected)
    }

    /// What would have been expected with another level.
    pub(crate) fn expected_at(&self, level: f32, slot: Slot, verdict: &Verdict) -> f64 {
        if verdict.expected <= 0.0 {
            return verdict.expected;
        }
        let mean = verdict.mean + level - self.baseline.level;
        self.shape.inverse(mean, self.baseline.variance[slot.day])
    }

    fn ends(&self, mean: f32, sd: f32, expected: f64) -> (f64, f64) {
        let reach = self.reach() * sd;
        let [lower, upper] = [mean - reach, mean + reach].map(|end| self.shape.inverse(end, 0.0));
        (lower.min(expected), upper.max(expected))
    }

    fn reach(&self) -> f32 {
        let past = &self.calibrations[0];
        if past.total < to_f32(RANKED_MIN) {
            NORMAL_90
        } else {
            past.exceeded_by(0.1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, Slot};
    use super::*;

    /// A third of the windows is twice as high: no normal distribution.
    #[test]
    fn nine_of_ten_windows_lie_between_the_ends_whatever_the_distribution() {
        let window_ms = 300_000;
        let mut judge = Judge::new(Shape::Latency, window_ms);
        let (mut inside, mut all) = (0_u32, 0_u32);
        let mut state = 7_u32;
        for window in 0..20 * 288_u64 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(state >> 20);
            let value = 50_000.0 + noise * 10.0 + if state >> 24 < 85 { 60_000.0 } else { 0.0 };
            let start_ms = window * u64::from(window_ms);
            let slot = Slot::at(start_ms, &jiff::tz::TimeZone::UTC);
            let verdict = judge.step(slot, start_ms, Some(value)).unwrap();
            let (lower, upper) = judge.band(&verdict);
            assert!(lower <= verdict.expected && verdict.expected <= upper);
            if window > 14 * 288 {
                all += 1;
                inside += u32::from((lower..=upper).contains(&value));
            }
        }
        let share = f64::from(inside) / f64::from(all);
        assert!((0.85..=0.95).contains(&share), "{share}");
    }
}
