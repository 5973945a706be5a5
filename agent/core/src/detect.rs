//! The first judge: how unlikely is what a series did in one window, seen from the store itself?
//!
//! In: one value a window, in order, or that it is missing; the half-hour of the site's local week.
//! Out: a p-value, an effect, what was expected, and whether the alarm is on.
//! It never looks ahead, never judges a window twice, and allocates nothing after it is made.
//!
//! Steps: [`transform`] makes the noise even, [`baseline`] forecasts, the residual feeds a point and two sustained
//! statistics and a test for zeros in a row, [`calibrate`] ranks each among the series' own past, and [`alarm`] opens
//! and closes findings. All transcendental functions are libm's, so that every machine computes the same bits.

pub(crate) mod alarm;
pub(crate) mod baseline;
pub(crate) mod calibrate;
pub(crate) mod slot;
pub(crate) mod transform;
mod judge;
#[cfg(test)]
mod simulation;

use tillwatch_feed::score::ScoreState;

pub use judge::{Finding, Judge};
pub use slot::Slot;
pub use transform::Shape;

use alarm::{Alarm, Evidence};
use baseline::{Baseline, Forecast};
use calibrate::Calibration;
use slot::Pace;

/// Weights of the newest window in the sustained statistics: a memory of 4 and of 16 windows.
const FAST: f32 = 0.25;
const SLOW: f32 = 0.0625;

/// A single window counts at most so many standard deviations in the sustained statistics: alone it opens nothing.
const SUSTAINED_CLIP: f32 = 6.0;

/// Ranks are collected in half-hours of the week that were seen before, and a series is judged when so many days of
/// them are collected: on the ninth day when it always has values.
const DAYS_BEFORE_JUDGING: f32 = 1.0;

/// So much more likely, as a logarithm, that the windows are as usual again than that the anomaly goes on, and the
/// sustained statistics forget it.
const RELIEF_BAR: f32 = 10.0;

/// From this share of the bar on, a window is no measure for the next ones.
const NEARLY: f32 = 0.8;

/// Zeros in a row are weighed from this expected count on.
const ZERO_RUN_MIN: f32 = 3.0;

/// After so many windows without a value the sustained statistics start anew and the state is stale for as long as
/// they need to fill.
const STALE_AFTER: u32 = 30;
const STALE_FOR: u32 = 16;

/// What the judge says of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// How much the judge knows.
    pub state: ScoreState,
    /// Of the p-value; 0 while the judge is warming.
    pub log10_p: f32,
    /// In standard deviations, of the statistic that is least likely.
    pub effect: f32,
    /// In the metric's whole numbers.
    pub expected: f64,
    /// In the metric's whole numbers.
    pub actual: f64,
    /// What the alarm weighs: 1 = at the bar of a series without findings.
    pub severity: f32,
    /// A finding is open.
    pub alarm: bool,
}

/// What one series has taught so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Detector {
    pub(crate) shape: Shape,
    pub(crate) baseline: Baseline,
    /// Of the point, the fast and the slow statistic.
    pub(crate) calibrations: [Calibration; 3],
    pub(crate) fast: f32,
    pub(crate) slow: f32,
    /// While the alarm is on: the evidence that it is over.
    pub(crate) relief: f32,
    /// Expected count, in units of its noise, since the last value that was not zero.
    pub(crate) zero_run: f32,
    /// The largest such run that ended by itself, slowly forgotten.
    pub(crate) zero_run_high: f32,
    /// Windows with a value.
    pub(crate) seen: u32,
    /// Windows without one since.
    pub(crate) missing: u32,
    /// Windows left until the sustained statistics are full again.
    pub(crate) stale: u32,
}

impl Detector {
    pub(crate) fn new(shape: Shape) -> Detector {
        Detector {
            shape,
            baseline: Baseline::new(),
            calibrations: [Calibration::new(), Calibration::new(), Calibration::new()],
            fast: 0.0,
            slow: 0.0,
            relief: 0.0,
            zero_run: 0.0,
            zero_run_high: 0.0,
            seen: 0,
            missing: 0,
            stale: 0,
        }
    }

    /// The window had no value.
    pub(crate) fn skip(&mut self, alarm: &mut Alarm) {
        self.missing = self.missing.saturating_add(1);
        if self.missing == STALE_AFTER {
            self.fast = 0.0;
            self.slow = 0.0;
            self.zero_run = 0.0;
            self.stale = STALE_FOR;
            alarm.give_up();
        }
    }

    /// Judges the window's value, then learns from it.
    pub(crate) fn step(&mut self, pace: &Pace, slot: Slot, start_ms: u64, actual: f64, alarm: &mut Alarm) -> Verdict {
        self.missing = 0;
        let y = self.shape.forward(actual);
        if self.baseline.enter(pace, slot) {
            self.calibrations.iter_mut().for_each(Calibration::settle);
        }
        let forecast = self.forecast(pace, slot, y);
        let expected = self.shape.inverse(forecast.mean, forecast.variance);
        self.baseline.busy |= actual.abs() > 0.0;
        let z = (y - forecast.mean) / forecast.sd;
        self.sustain(z);
        self.count_zeros(actual, expected, forecast.sd);
        let state = self.state(pace);
        let (p, effect) = self.rank(z);
        let evidence = self.evidence(pace, start_ms, p, effect, expected, actual);
        if state == ScoreState::Ok {
            alarm.step(&evidence);
            self.relieve(z, alarm);
        }
        self.baseline
            .learn(pace, slot, y - forecast.mean, forecast.sd, alarm.is_open());
        self.seen = self.seen.saturating_add(1);
        self.stale = self.stale.saturating_sub(1);
        self.learn_ranks(pace, z, evidence.severity, alarm.is_open());
        let log10_p = if state == ScoreState::Warming {
            0.0
        } else {
            single(libm::log10(f64::from(p)))
        };
        Verdict {
            state,
            log10_p,
            effect,
            expected,
            actual,
            severity: evidence.severity,
            alarm: alarm.is_open(),
        }
    }

    /// Of events, nothing is expected where there never were any.
    fn forecast(&mut self, pace: &Pace, slot: Slot, y: f32) -> Forecast {
        let forecast = self.baseline.forecast(pace, slot, y, self.shape.sd_min(y));
        if self.shape == Shape::Count && self.baseline.closed {
            return Forecast {
                mean: self.shape.forward(0.0),
                variance: 0.0,
                ..forecast
            };
        }
        forecast
    }

    fn state(&self, pace: &Pace) -> ScoreState {
        if !self.baseline.known || self.calibrations[0].total < DAYS_BEFORE_JUDGING * pace.windows_per_day {
            ScoreState::Warming
        } else if self.stale > 0 {
            ScoreState::Stale
        } else {
            ScoreState::Ok
        }
    }

    fn sustain(&mut self, z: f32) {
        let z = z.clamp(-SUSTAINED_CLIP, SUSTAINED_CLIP);
        self.fast += FAST * (z - self.fast);
        self.slow += SLOW * (z - self.slow);
    }

    /// The sustained statistics outlast what raised them. Once the windows themselves say that it is over, they start anew.
    ///
    /// Source: Page, "Continuous inspection schemes", Biometrika 41, 1954: the cumulative log-likelihood ratio, here of a
    /// normal residual around 0 against one around the peak's effect.
    fn relieve(&mut self, z: f32, alarm: &Alarm) {
        let Some(open) = &alarm.open else {
            self.relief = 0.0;
            return;
        };
        let effect = open.peak.effect.clamp(-SUSTAINED_CLIP, SUSTAINED_CLIP);
        self.relief = (self.relief + effect * (effect / 2.0 - z)).clamp(0.0, 2.0 * RELIEF_BAR);
        if self.relief > RELIEF_BAR {
            (self.fast, self.slow) = (0.0, 0.0);
        }
    }

    /// Source: of a Poisson count, the probability of no event where `n` are expected is exp(-n); noise beyond
    /// Poisson's makes fewer independent events of it, by the variance on the transformed scale.
    fn count_zeros(&mut self, actual: f64, expected: f64, sd: f32) {
        if self.shape != Shape::Count {
            return;
        }
        self.zero_run_high *= 0.999_995;
        if !self.baseline.known {
            self.zero_run = 0.0;
        } else if actual > 0.0 {
            self.zero_run_high = self.zero_run_high.max(self.zero_run);
            self.zero_run = 0.0;
        } else {
            self.zero_run += single(expected.max(0.0)) / (sd * sd).max(1.0);
        }
    }

    /// The sustained statistics with variance 1 if windows were independent.
    fn standardized(&self) -> [f32; 2] {
        let unit = |rate: f32| (rate / (2.0 - rate)).sqrt();
        [self.fast / unit(FAST), self.slow / unit(SLOW)]
    }

    /// The combined p-value, and the effect of its least likely part.
    fn rank(&self, z: f32) -> (f32, f32) {
        let [fast, slow] = self.standardized();
        let ranks = [
            (self.calibrations[0].p(z.abs()), z),
            (self.calibrations[1].p(fast.abs()), self.fast),
            (self.calibrations[2].p(slow.abs()), self.slow),
        ];
        let effect = ranks
            .iter()
            .fold((1.0, z), |least, rank| if rank.0 < least.0 { *rank } else { least })
            .1;
        let [point, fast, slow] = ranks.map(|rank| rank.0);
        let p = if self.zero_run > ZERO_RUN_MIN {
            calibrate::combine(&[point, fast, slow, single(libm::exp(-f64::from(self.zero_run)))])
        } else {
            calibrate::combine(&[point, fast, slow])
        };
        (p, effect)
    }

    fn evidence(&self, pace: &Pace, start_ms: u64, p: f32, effect: f32, expected: f64, actual: f64) -> Evidence {
        let [fast, slow] = self.standardized();
        let zero_bar = alarm::ZERO_RUN_BAR.max(alarm::MARGIN * self.zero_run_high);
        let severities = [
            fast.abs() / self.calibrations[1].bar(),
            slow.abs() / self.calibrations[2].bar(),
            self.zero_run / zero_bar,
        ];
        let severity = severities.into_iter().fold(0.0, f32::max);
        Evidence {
            start_ms,
            window_ms: pace.window_ms,
            severity,
            p,
            effect,
            expected,
            actual,
        }
    }

    /// What is under alarm, or nearly so, must not become the measure of alarms at once.
    fn learn_ranks(&mut self, pace: &Pace, z: f32, severity: f32, open: bool) {
        let [fast, slow] = self.standardized();
        for (calibration, statistic) in self.calibrations.iter_mut().zip([z, fast, slow]) {
            if open {
                calibration.forgive();
            } else if self.baseline.known {
                calibration.note(statistic.abs());
                if severity < NEARLY {
                    calibration.learn(statistic.abs(), pace.rank_memory);
                }
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "single precision is enough for what was learned"
)]
pub(crate) fn single(value: f64) -> f32 {
    value as f32
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of windows in a slot stay far below 2^24"
)]
pub(crate) fn to_f32(count: u32) -> f32 {
    count as f32
}
