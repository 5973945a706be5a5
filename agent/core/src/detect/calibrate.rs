//! How rare is a statistic among the series' own past: a decayed histogram of its magnitude.
//!
//! In: magnitudes. Out: rank p-values, never smaller than the past can show; the bar for alarms; a combined p-value.
//! There is no extrapolated tail: on tied data it would be wrong by far.

use super::alarm::MARGIN;
use super::single;

/// Bins: the first for next to nothing, then each 16 % wider than the one before.
pub(crate) const BINS: usize = 48;
const LOWEST: f32 = 0.05;
const LOG_RATIO: f64 = 0.15;

/// Halves in about sixteen days of windows of ten seconds.
const HIGH_DECAY: f32 = 0.999_995;

/// The bar of a statistic is never below this.
const BAR_MIN: f32 = 4.5;

/// The rate that the bar is derived from, and the factor from there to one false alarm in months for even noise.
const BAR_RATE: f32 = 1e-3;
const BAR_FACTOR: f32 = 1.45;

/// The past of one statistic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calibration {
    pub(crate) mass: [f32; BINS],
    pub(crate) total: f32,
    /// The largest that was no alarm, slowly forgotten.
    pub(crate) high: f32,
    /// The largest of this half-hour and of the one before: an incident must be found before it becomes the measure.
    pub(crate) waiting: [f32; 2],
    /// What the statistic must exceed for an alarm, as of the last half-hour.
    pub(crate) bar: f32,
}

impl Calibration {
    pub(crate) const fn new() -> Calibration {
        Calibration {
            mass: [0.0; BINS],
            total: 0.0,
            high: 0.0,
            waiting: [0.0; 2],
            bar: BAR_MIN,
        }
    }

    /// Notes a magnitude for the bar; it counts after a half-hour or two.
    pub(crate) fn note(&mut self, magnitude: f32) {
        self.high *= HIGH_DECAY;
        self.waiting[0] = self.waiting[0].max(magnitude);
    }

    /// A half-hour is over.
    pub(crate) fn settle(&mut self) {
        self.high = self.high.max(self.waiting[1]);
        self.waiting = [0.0, self.waiting[0]];
        self.bar = self.find_bar();
    }

    /// What is under alarm never counts.
    pub(crate) fn forgive(&mut self) {
        self.waiting = [0.0; 2];
    }

    pub(crate) fn learn(&mut self, statistic: &Placed, memory: f32) {
        self.mass[statistic.bin] += 1.0;
        self.total += 1.0;
        if self.total >= memory {
            self.mass.iter_mut().for_each(|mass| *mass *= 0.5);
            self.total *= 0.5;
        }
    }

    /// The share of the past that was at least as large; within a bin it is taken as even, in the lowest as tied.
    pub(crate) fn p(&self, statistic: &Placed) -> f32 {
        let Placed { bin, inside, .. } = *statistic;
        let above: f32 = self.mass[bin + 1..].iter().sum();
        ((above + self.mass[bin] * (1.0 - inside) + 0.5) / (self.total + 1.0)).min(1.0)
    }

    /// What the statistic must exceed for an alarm: well beyond what it does once in a thousand windows, and beyond all
    /// that is remembered.
    fn find_bar(&self) -> f32 {
        BAR_MIN
            .max(BAR_FACTOR * self.exceeded_by(BAR_RATE))
            .max(MARGIN * self.high)
    }

    /// What this share of the past was beyond.
    pub(crate) fn exceeded_by(&self, share: f32) -> f32 {
        let (wanted, mut above) = (share * self.total, 0.0);
        for bin in (0..BINS).rev() {
            let mass = self.mass[bin];
            if mass > 0.0 && above + mass >= wanted {
                return upper(bin, ((wanted - above) / mass).max(0.0));
            }
            above += mass;
        }
        0.0
    }
}

/// A magnitude, its bin, and how far inside of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) magnitude: f32,
    bin: usize,
    inside: f32,
}

impl Placed {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the bins; NaN becomes 0"
    )]
    pub(crate) fn of(magnitude: f32) -> Placed {
        if magnitude.is_nan() || magnitude < LOWEST {
            return Placed {
                magnitude,
                bin: 0,
                inside: 0.5,
            };
        }
        let at = libm::log(f64::from(magnitude / LOWEST)) / LOG_RATIO + 1.0;
        let bin = (at as usize).min(BINS - 1);
        Placed {
            magnitude,
            bin,
            inside: single(at - libm::floor(at)),
        }
    }
}

/// The upper edge of a bin, or so far below it.
fn upper(bin: usize, below: f32) -> f32 {
    let bin = f64::from(u32::try_from(bin).unwrap_or(0));
    LOWEST * single(libm::exp((bin - f64::from(below)) * LOG_RATIO))
}

/// One p-value from several that depend on each other.
/// Source: Liu and Xie 2020, "Cauchy combination test".
pub(crate) fn combine(p: &[f32]) -> f32 {
    use std::f64::consts::PI;
    let tangent = |p: &f32| libm::tan((0.5 - f64::from(p.clamp(1e-12, 0.99))) * PI);
    let mean = p.iter().map(tangent).sum::<f64>() / p.iter().map(|_| 1.0).sum::<f64>().max(1.0);
    single(0.5 - libm::atan(mean) / PI).clamp(1e-12, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_shares_of_the_past() {
        let mut calibration = Calibration::new();
        for n in 1..=10_000_u16 {
            calibration.learn(&Placed::of(f32::from(n) / 1_000.0), 1e9);
        }
        for (magnitude, share) in [(8.0, 0.2), (5.0, 0.5), (0.5, 0.95), (0.0, 1.0)] {
            let p = calibration.p(&Placed::of(magnitude));
            assert!(
                (p - share).abs() < share * 0.15 + 0.002,
                "{magnitude}: {p} is not {share}"
            );
        }
        assert!(
            calibration.p(&Placed::of(1e9)) > 1.0 / 25_000.0,
            "nothing is rarer than the past can show"
        );
        assert!(calibration.p(&Placed::of(f32::NAN)) > 0.9);
    }

    #[test]
    fn a_constant_series_is_neither_likely_nor_rare() {
        let mut calibration = Calibration::new();
        (0..1_000).for_each(|_| calibration.learn(&Placed::of(0.0), 1e9));
        assert!((calibration.p(&Placed::of(0.0)) - 0.5).abs() < 0.01);
        assert!((calibration.find_bar() - BAR_MIN).abs() < 1e-6);
    }

    #[test]
    fn the_past_fades() {
        let mut calibration = Calibration::new();
        (0..1_000).for_each(|_| calibration.learn(&Placed::of(20.0), 1_000.0));
        let before = calibration.find_bar();
        (0..12_000).for_each(|_| calibration.learn(&Placed::of(1.0), 1_000.0));
        assert!(before > 20.0 && calibration.find_bar() < 5.0);
    }

    #[test]
    fn a_high_raises_the_bar_after_a_half_hour_unless_it_was_an_alarm() {
        let mut calibration = Calibration::new();
        calibration.note(10.0);
        calibration.settle();
        assert!(calibration.bar < 5.0);
        calibration.settle();
        assert!(calibration.find_bar() > 11.0);
        calibration.note(50.0);
        calibration.forgive();
        calibration.settle();
        calibration.settle();
        assert!(calibration.find_bar() < 12.0);
    }

    #[test]
    fn equal_ranks_combine_to_themselves() {
        for p in [0.5, 0.05, 1e-4] {
            assert!((combine(&[p, p, p]) - p).abs() < p * 0.01);
        }
        assert!(combine(&[1.0, 1.0, 1e-6]) < 1e-5);
        assert!(combine(&[1.0, 1.0, 1.0]) > 0.9);
    }
}
