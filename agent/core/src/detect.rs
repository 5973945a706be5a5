//! The first judge: how unlikely is what a series did in one window, seen from the store itself?
//!
//! In: one value a window, in order, or that it is missing; the half-hour of the site's local week.
//! Out: a p-value, an effect, what was expected, and whether the alarm is on.
//! It never looks ahead, never judges a window twice, and allocates nothing after it is made.
//!
//! Steps: [`transform`] makes the noise even, [`baseline`] forecasts, the residual feeds a point and three sustained
//! statistics, and for events [`runs`] of windows; [`calibrate`] ranks each among the series' own past, and [`alarm`] opens
//! and closes findings. Of levels, [`novelty`] says besides how surprising a value is; no finding follows from it alone.
//! All transcendental functions are libm's, so that every machine computes the same bits.

pub(crate) mod after_hours;
pub(crate) mod alarm;
mod band;
pub mod calendar;
pub(crate) mod baseline;
pub(crate) mod calibrate;
pub(crate) mod novelty;
pub(crate) mod runs;
pub(crate) mod slot;
pub(crate) mod transform;
mod judge;
#[cfg(test)]
mod occasions;
#[cfg(test)]
mod simulation;

use tillwatch_feed::score::ScoreState;

pub use judge::{Finding, Judge};
pub use slot::Slot;
pub use transform::Shape;

use after_hours::AfterHours;
use alarm::{Alarm, Evidence};
use baseline::{Baseline, Forecast};
use calendar::Occasion;
use calibrate::{Calibration, Placed};
use novelty::Novelty;
use runs::Runs;
use slot::Pace;

/// Weights of the newest window in the sustained statistics: a memory of 4, of 16 and of 64 windows.
const RATES: [f32; 3] = [0.25, 0.0625, 0.015_625];

/// A single window counts at most so many standard deviations in the sustained statistics: alone it opens nothing.
const SUSTAINED_CLIP: f32 = 6.0;

/// Ranks are collected in half-hours of the week that were seen before, and a series is judged when so many days of
/// them are collected: on the ninth day when it always has values.
const DAYS_BEFORE_JUDGING: f32 = 1.0;

/// So much more likely, as a logarithm, that the windows are as usual again than that the anomaly goes on, and the
/// sustained statistics forget it.
const RELIEF_BAR: f32 = 10.0;

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
    /// What was expected and how much it varies, on the scale on which noise is even.
    pub mean: f32,
    pub sd: f32,
    /// From 0 to 1, to compare windows by: of a level how novel it is, from its first value on, of others the severity.
    pub anomaly_score: f32,
}

/// What one series has taught so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Detector {
    pub(crate) shape: Shape,
    pub(crate) baseline: Baseline,
    /// Of the point and of each sustained statistic.
    pub(crate) calibrations: [Calibration; 4],
    pub(crate) sustained: [f32; 3],
    /// While the alarm is on: the evidence that it is over.
    pub(crate) relief: f32,
    pub(crate) runs: Runs,
    pub(crate) after_hours: AfterHours,
    /// Of a level.
    pub(crate) novelty: Novelty,
    /// Windows with a value.
    pub(crate) seen: u32,
    /// Windows without one since.
    pub(crate) missing: u32,
    /// Windows left until the sustained statistics are full again.
    pub(crate) stale: u32,
}

impl Detector {
    /// `range` is what the values of a level lie in, when it was declared.
    pub(crate) fn new(shape: Shape, range: Option<(f64, f64)>) -> Detector {
        Detector {
            shape,
            baseline: Baseline::new(),
            calibrations: [const { Calibration::new() }; 4],
            sustained: [0.0; 3],
            relief: 0.0,
            runs: Runs::default(),
            after_hours: AfterHours::default(),
            novelty: Novelty::new(range),
            seen: 0,
            missing: 0,
            stale: 0,
        }
    }

    /// The window had no value.
    pub(crate) fn skip(&mut self, alarm: &mut Alarm) {
        self.missing = self.missing.saturating_add(1);
        if self.missing == STALE_AFTER {
            self.sustained = [0.0; 3];
            self.runs.start_anew();
            self.stale = STALE_FOR;
            alarm.give_up();
        }
    }

    /// Judges the window's value, then learns from it.
    #[cfg(test)]
    pub(crate) fn step(&mut self, pace: &Pace, slot: Slot, start_ms: u64, actual: f64, alarm: &mut Alarm) -> Verdict {
        self.step_on(pace, (slot, Occasion::Usual), start_ms, actual, alarm)
    }

    /// The same of a window of which the calendar knows something.
    pub(crate) fn step_on(
        &mut self,
        pace: &Pace,
        (slot, occasion): (Slot, Occasion),
        start_ms: u64,
        actual: f64,
        alarm: &mut Alarm,
    ) -> Verdict {
        self.missing = 0;
        let y = self.shape.forward(actual);
        if self.baseline.enter(pace, slot) {
            self.calibrations.iter_mut().for_each(Calibration::settle);
        }
        let forecast = self.forecast(pace, slot, occasion, y);
        let expected = self.shape.inverse(forecast.mean, forecast.variance);
        self.baseline.busy |= actual.abs() > 0.0;
        let mut z = (y - forecast.mean) / forecast.sd;
        let mut counted = actual;
        if occasion.expects_more(self.shape) {
            (z, counted) = (z.min(0.0), actual.min(expected));
        }
        self.sustain(z);
        self.count(counted, expected, forecast.sd);
        self.after_hours.step(pace, self.shape, occasion, actual);
        let state = self.state(pace);
        let statistics = self.statistics(z);
        let (p, effect) = self.rank(z, &statistics);
        let evidence = Evidence {
            start_ms,
            window_ms: pace.window_ms,
            severity: self.severity(&statistics),
            p,
            effect,
            expected,
            actual,
        };
        if state == ScoreState::Ok {
            alarm.step(&evidence);
            self.relieve(z, alarm);
        }
        self.learn(pace, (slot, occasion), y, &forecast, alarm.is_open(), &statistics);
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
            mean: forecast.mean,
            sd: forecast.sd,
            anomaly_score: self.anomaly_score(slot, actual, evidence.severity),
        }
    }

    /// What a holiday or a promotion shows is of no usual day.
    fn learn(
        &mut self,
        pace: &Pace,
        (slot, occasion): (Slot, Occasion),
        y: f32,
        forecast: &Forecast,
        open: bool,
        statistics: &[Placed; 4],
    ) {
        self.seen = self.seen.saturating_add(1);
        self.stale = self.stale.saturating_sub(1);
        if occasion.teaches() {
            self.baseline.learn(pace, slot, y - forecast.mean, forecast.sd, open);
            self.learn_ranks(pace, statistics, open);
        } else {
            // Nor does it say that there is never anything at this time.
            self.baseline.busy |= !self.baseline.closed;
        }
    }

    fn anomaly_score(&mut self, slot: Slot, actual: f64, severity: f32) -> f32 {
        let score = match self.shape {
            Shape::Level => self.novelty.step(slot.day / 2, actual),
            Shape::Count | Shape::Depth | Shape::Latency => severity.max(0.0),
        };
        score / (1.0 + score)
    }

    /// Of events, nothing is expected where there never were any.
    fn forecast(&mut self, pace: &Pace, slot: Slot, occasion: Occasion, y: f32) -> Forecast {
        let forecast = self.baseline.forecast(pace, slot, y, self.shape.sd_min(y));
        if self.shape == Shape::Count && (self.baseline.closed || occasion.is_closed()) {
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
        for (sustained, rate) in self.sustained.iter_mut().zip(RATES) {
            *sustained += rate * (z - *sustained);
        }
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
            self.sustained = [0.0; 3];
            self.runs.start_anew();
            self.after_hours = AfterHours::default();
        }
    }

    fn count(&mut self, actual: f64, expected: f64, sd: f32) {
        if self.shape != Shape::Count {
            return;
        }
        if self.baseline.known {
            self.runs.step(single(actual), single(expected), sd * sd);
        } else {
            self.runs.start_anew();
        }
    }

    /// Point and sustained statistics, these with variance 1 if windows were independent.
    fn statistics(&self, z: f32) -> [Placed; 4] {
        let unit = |rate: f32| (rate / (2.0 - rate)).sqrt();
        let [fast, slow, long] = self.sustained;
        [z, fast / unit(RATES[0]), slow / unit(RATES[1]), long / unit(RATES[2])].map(|value| Placed::of(value.abs()))
    }

    /// The combined p-value, and the effect of its least likely part.
    fn rank(&self, z: f32, statistics: &[Placed; 4]) -> (f32, f32) {
        let [fast, slow, long] = self.sustained;
        let mut ranks = [1.0; 5];
        let mut least = (1.0, z);
        for (at, effect) in [z, fast, slow, long].into_iter().enumerate() {
            ranks[at] = self.calibrations[at].p(&statistics[at]);
            if ranks[at] < least.0 {
                least = (ranks[at], effect);
            }
        }
        let zeros = self.runs.zeros();
        let of = if zeros > ZERO_RUN_MIN {
            ranks[4] = single(libm::exp(-f64::from(zeros)));
            &ranks[..]
        } else {
            &ranks[..4]
        };
        (calibrate::combine(of), least.1)
    }

    fn severity(&self, statistics: &[Placed; 4]) -> f32 {
        let sustained = statistics.iter().zip(&self.calibrations).skip(1);
        let severities = sustained.map(|(statistic, past)| statistic.magnitude / past.bar);
        severities.fold(self.runs.severity().max(self.after_hours.severity()), f32::max)
    }

    /// What is under alarm must not become the measure of alarms.
    fn learn_ranks(&mut self, pace: &Pace, statistics: &[Placed; 4], open: bool) {
        if open {
            self.calibrations.iter_mut().for_each(Calibration::forgive);
            self.runs.forgive();
        } else if self.baseline.known {
            for (calibration, statistic) in self.calibrations.iter_mut().zip(statistics) {
                calibration.note(statistic.magnitude);
                calibration.learn(statistic, pace.rank_memory);
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
