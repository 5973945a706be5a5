//! Who is measured: the store's judge, and three detectors that others use.
//!
//! In: a window's value or none. Out: a score, 1 = the detector's own threshold, and whether its alarm is on.
//! The baselines alarm, like the judge, on the second window in a row beyond their threshold.

use tillwatch_core::detect::{Judge, Shape, Slot};
use tillwatch_feed::score::ScoreState;

/// A detector of one series.
#[derive(Clone)]
pub(crate) enum Detector {
    Tillwatch(Box<Judge>),
    Fixed(Fixed),
    Ewma(Ewma),
    Means(Box<Means>),
}

/// What it says of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    /// It knows enough to alarm.
    pub(crate) ready: bool,
    pub(crate) score: f32,
    pub(crate) alarm: bool,
    /// Of detectors that have one.
    pub(crate) log10_p: f32,
    /// To compare windows by, from 0 to 1.
    pub(crate) anomaly_score: f32,
}

/// How detectors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Tillwatch,
    Fixed,
    Ewma,
    Means,
}

pub(crate) const ALL: [Make; 4] = [Make::Tillwatch, Make::Fixed, Make::Ewma, Make::Means];

impl Make {
    /// Ours, or all.
    pub(crate) fn chosen(alone: bool) -> &'static [Make] {
        if alone { &ALL[..1] } else { &ALL }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Make::Tillwatch => "tillwatch",
            Make::Fixed => "fixed",
            Make::Ewma => "ewma",
            Make::Means => "k-means",
        }
    }

    pub(crate) fn detector(self, shape: Shape, window_ms: u32) -> Detector {
        let day = 86_400_000 / window_ms;
        match self {
            Make::Tillwatch => Detector::Tillwatch(Box::new(Judge::new(shape, window_ms))),
            Make::Fixed => Detector::Fixed(Fixed::new(7 * day)),
            Make::Ewma => Detector::Ewma(Ewma::new(day)),
            Make::Means => Detector::Means(Box::new(Means::new(day / 4))),
        }
    }
}

impl Detector {
    pub(crate) fn step(&mut self, slot: Slot, start_ms: u64, value: Option<f64>) -> Option<Said> {
        match self {
            Detector::Tillwatch(judge) => {
                let verdict = judge.step(slot, start_ms, value)?;
                judge.take_finding();
                Some(Said {
                    ready: verdict.state == ScoreState::Ok,
                    score: verdict.severity,
                    alarm: verdict.alarm,
                    log10_p: verdict.log10_p,
                    anomaly_score: verdict.anomaly_score,
                })
            }
            Detector::Fixed(fixed) => value.map(|value| fixed.step(value)),
            Detector::Ewma(ewma) => value.map(|value| ewma.step(value)),
            Detector::Means(means) => value.map(|value| means.step(value)),
        }
    }
}

/// The alarm of the baselines.
#[derive(Clone, Debug, Default)]
struct Twice(bool);

impl Twice {
    fn say(&mut self, ready: bool, score: f64) -> Said {
        let beyond = ready && score >= 1.0;
        let alarm = beyond && self.0;
        self.0 = beyond;
        Said {
            ready,
            score: score as f32,
            alarm,
            log10_p: 0.0,
            anomaly_score: (score.max(0.0) / (1.0 + score.max(0.0))) as f32,
        }
    }
}

/// What an operator writes after a look at the first week: four standard deviations around its mean.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    left: u32,
    n: f64,
    mean: f64,
    squares: f64,
    twice: Twice,
}

impl Fixed {
    fn new(windows: u32) -> Fixed {
        Fixed {
            left: windows,
            n: 0.0,
            mean: 0.0,
            squares: 0.0,
            twice: Twice::default(),
        }
    }

    fn step(&mut self, value: f64) -> Said {
        if self.left > 0 {
            self.left -= 1;
            self.n += 1.0;
            let off = value - self.mean;
            self.mean += off / self.n;
            self.squares += off * (value - self.mean);
        }
        let sd = (self.squares / self.n).sqrt().max(1e-9);
        self.twice.say(self.left == 0, (value - self.mean).abs() / sd / 4.0)
    }
}

/// A z-score against mean and variance that forget within two hours, at five.
#[derive(Clone, Debug)]
pub(crate) struct Ewma {
    left: u32,
    rate: f64,
    mean: f64,
    variance: f64,
    twice: Twice,
}

impl Ewma {
    fn new(day: u32) -> Ewma {
        Ewma {
            left: day,
            rate: 12.0 / f64::from(day).max(24.0),
            mean: f64::NAN,
            variance: 0.0,
            twice: Twice::default(),
        }
    }

    fn step(&mut self, value: f64) -> Said {
        if self.mean.is_nan() {
            self.mean = value;
        }
        let off = value - self.mean;
        let sd = self.variance.sqrt();
        let z = off.abs() / sd.max(1e-9);
        // What is beyond the bar teaches no more than what is at it, or no second window would be beyond it.
        let taught = if self.left > 0 {
            off
        } else {
            off.clamp(-5.0 * sd, 5.0 * sd)
        };
        self.mean += self.rate * taught;
        self.variance = (1.0 - self.rate) * (self.variance + self.rate * taught * taught);
        self.left = self.left.saturating_sub(1);
        self.twice
            .say(self.left == 0, if off == 0.0 { 0.0 } else { z.min(1e6) / 5.0 })
    }
}

/// Differences, smoothed, of which so many in a row are one point.
const LAGS: usize = 6;
const SMOOTHED: usize = 3;
const MODELS: usize = 18;
type Point = [f64; LAGS];

/// As Netdata does it: two means of the points of some hours, eighteen models of the last days, and a window is unusual
/// when it is further from the means of every model than 99 % of what the model saw.
///
/// Source: Netdata's documentation, "Machine learning and anomaly detection", with its defaults.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    training: usize,
    values: Vec<f64>,
    smooth: Vec<f64>,
    points: Vec<Point>,
    models: Vec<Model>,
    twice: Twice,
}

#[derive(Clone, Debug)]
struct Model {
    means: [Point; 2],
    nearest: f64,
    furthest: f64,
}

impl Means {
    fn new(training: u32) -> Means {
        Means {
            training: usize::try_from(training).unwrap_or(1).max(2 * LAGS),
            values: Vec::new(),
            smooth: Vec::new(),
            points: Vec::new(),
            models: Vec::new(),
            twice: Twice::default(),
        }
    }

    fn step(&mut self, value: f64) -> Said {
        let Some(point) = self.point(value) else {
            return self.twice.say(false, 0.0);
        };
        let scores = self.models.iter().map(|model| model.score(&point));
        let score = scores.fold(f64::INFINITY, f64::min);
        self.points.push(point);
        if self.points.len() >= self.training {
            if self.models.len() == MODELS {
                self.models.remove(0);
            }
            self.models.push(Model::of(&self.points));
            self.points.drain(..self.training / 2);
        }
        let ready = score.is_finite();
        self.twice.say(ready, if ready { score / 0.99 } else { 0.0 })
    }

    fn point(&mut self, value: f64) -> Option<Point> {
        keep_last(&mut self.values, value, SMOOTHED + 1);
        if self.values.len() <= SMOOTHED {
            return None;
        }
        let difference = (self.values[SMOOTHED] - self.values[0]) / SMOOTHED as f64;
        keep_last(&mut self.smooth, difference, LAGS);
        self.smooth.as_slice().try_into().ok()
    }
}

fn keep_last(values: &mut Vec<f64>, value: f64, n: usize) {
    if values.len() == n {
        values.remove(0);
    }
    values.push(value);
}

impl Model {
    fn of(points: &[Point]) -> Model {
        let norm = |point: &&Point| distance(point, &[0.0; LAGS]);
        let order = |a: &&Point, b: &&Point| norm(a).total_cmp(&norm(b));
        let (least, most) = (points.iter().min_by(order), points.iter().max_by(order));
        let mut means = [least, most].map(|point| point.copied().unwrap_or_default());
        for _ in 0..10 {
            means = improve(points, &means);
        }
        let distances = points.iter().map(|point| both(point, &means));
        let (nearest, furthest) = distances.fold((f64::INFINITY, 0.0_f64), |(near, far), one| {
            (near.min(one), far.max(one))
        });
        Model {
            means,
            nearest,
            furthest,
        }
    }

    fn score(&self, point: &Point) -> f64 {
        let range = (self.furthest - self.nearest).max(1e-9);
        ((both(point, &self.means) - self.nearest) / range).max(0.0)
    }
}

/// One step of Lloyd's algorithm.
fn improve(points: &[Point], means: &[Point; 2]) -> [Point; 2] {
    let mut sums = [[0.0; LAGS]; 2];
    let mut counts = [0.0; 2];
    for point in points {
        let nearer = usize::from(distance(point, &means[1]) < distance(point, &means[0]));
        counts[nearer] += 1.0;
        sums[nearer]
            .iter_mut()
            .zip(point)
            .for_each(|(sum, value)| *sum += value);
    }
    let mean = |at: usize| {
        if counts[at] > 0.0 {
            sums[at].map(|sum| sum / counts[at])
        } else {
            means[at]
        }
    };
    [mean(0), mean(1)]
}

fn distance(a: &Point, b: &Point) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

fn both(point: &Point, means: &[Point; 2]) -> f64 {
    (distance(point, &means[0]) + distance(point, &means[1])) / 2.0
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn each_baseline_is_quiet_on_noise_and_sees_a_level_that_no_value_had() {
        for make in ALL {
            let mut detector = make.detector(Shape::Level, 300_000);
            let mut random = Random::new(11);
            let mut step = |window: u64, extra: f64| {
                let value = (1_000.0 + 30.0 * random.normal() + extra).round();
                let start_ms = window * 300_000;
                let slot = Slot::at(start_ms, &jiff::tz::TimeZone::UTC);
                detector.step(slot, start_ms, Some(value)).unwrap()
            };
            let before: Vec<Said> = (0..5_000).map(|window| step(window, 0.0)).collect();
            // One in two hundred: k-means in their published form are not quieter.
            let alarms = before.iter().filter(|said| said.alarm).count();
            assert!(alarms <= 25, "{make:?} {alarms}");
            assert!(before[4_999].ready, "{make:?}");
            let after: Vec<Said> = (5_000..5_006).map(|window| step(window, 2_000.0)).collect();
            assert!(after.iter().any(|said| said.alarm), "{make:?} {after:?}");
        }
    }
}
