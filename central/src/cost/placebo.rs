//! How wrong the reckoning of expected sales usually is, found by asking it about windows in which nothing was wrong.
//!
//! In: quarters of the group and of unaffected sites. Out: the error's quantiles and what corrects its bias.
//! Source: conformal prediction intervals with placebo windows as the calibration set.

use super::Question;
use crate::expect::columns::{Columns, DAYS_TABLED};
use crate::expect::{QUARTER_MS, Tally};
use crate::incident::CONFIDENCE;

/// Fewer placebos than this give no interval.
pub const PLACEBOS_MIN: usize = 20;
/// Placebos around the same time of day, in steps of the window's length.
const STEPS: [i64; 7] = [-3, -2, -1, 0, 1, 2, 3];
/// A placebo's usual sales, relative to the window's.
const SIZE_MIN: f64 = 0.4;
/// Spans before a window, in quarters: two hours, and the day so far.
const SPANS: [u64; 2] = [8, 48];
/// What a deviation just before the window is worth before placebos have been seen.
const WEIGHTS_BEFORE: [f64; 2] = [0.3, 0.4];
/// How many placebos that belief is worth, at the usual size of a deviation (5 %).
const BELIEF: f64 = 20.0 * 0.05 * 0.05;
/// Transactions that pull a ratio towards where it is thought to be.
const PULL: f64 = 50.0;
/// Days elsewhere: the error of today may be this many times the usual.
const TODAY_MAX: f64 = 3.0;
/// Windows of today that are looked at elsewhere.
const TODAY_WINDOWS: u64 = 4;
/// How many such errors the belief is worth that today is a day like any other.
const TODAY_BELIEF: f64 = 10.0;

/// One window: log of actual to expected, log-ratios before it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    log_ratio: f64,
    before: [f64; 2],
}

/// The usual errors, as logarithms of actual to expected.
#[derive(Clone, Debug)]
pub struct Errors {
    weights: [f64; 2],
    bias: f64,
    /// Ascending.
    sorted: Vec<f64>,
    /// How the window differs from the placebos: its length, and how unusual today is.
    scale: f64,
    pub basket_minor: f64,
    /// Relative, of the mean of one window.
    pub basket_error: f64,
}

/// Ratio of actual to usual, pulled towards `prior` when there is little.
pub fn ratio(tally: Tally, prior: f64) -> f64 {
    (tally.actual + PULL * prior) / (tally.baseline + PULL)
}

/// What the group did differently from the unaffected sites before a quarter.
pub fn before(group: &Columns, control: Option<&Columns>, quarter: u64) -> [f64; 2] {
    SPANS.map(|span| {
        let tally = group.tally(quarter.saturating_sub(span), span);
        let today = control.map_or(1.0, |control| {
            ratio(control.tally(quarter.saturating_sub(span), span), 1.0)
        });
        ((tally.actual + PULL) / (tally.baseline * today + PULL)).ln()
    })
}

fn sample(group: &Columns, control: Option<&Columns>, quarter: u64, quarters: u64) -> Sample {
    let tally = group.tally(quarter, quarters);
    let today = control.map_or(1.0, |control| {
        let recent = ratio(control.tally(quarter.saturating_sub(8), 8), 1.0);
        ratio(control.tally(quarter, quarters), recent)
    });
    // Half a transaction keeps the logarithm finite.
    let log_ratio = ((tally.actual + 0.5) / (tally.baseline * today + 0.5)).ln();
    Sample {
        log_ratio,
        before: before(group, control, quarter),
    }
}

/// Quarters of a window, and where past windows like it begin.
struct Windows {
    quarter: u64,
    quarters: u64,
}

impl Windows {
    fn of(question: &Question<'_>) -> Windows {
        let minutes = question.minutes();
        Windows {
            quarter: question.start_ms / QUARTER_MS,
            quarters: ((minutes + 7) / 15).clamp(1, 32),
        }
    }

    fn past(&self) -> impl Iterator<Item = u64> {
        let steps = STEPS.into_iter().map(|step| step * self.quarters.cast_signed().min(4));
        steps
            .flat_map(|step| (1..=DAYS_TABLED).map(move |day| (step, day)))
            .filter_map(|(step, day)| self.quarter.checked_add_signed(step)?.checked_sub(day * 96))
    }
}

impl Errors {
    /// `None` when there are too few placebos.
    pub fn of(question: &Question<'_>, control: Option<&Columns>) -> Option<Errors> {
        let windows = Windows::of(question);
        let usual = usual_size(question.group_columns, &windows);
        let fits = |quarter: &u64| fits(question, *quarter, windows.quarters, usual);
        let starts: Vec<u64> = windows.past().filter(fits).collect();
        if starts.len() < PLACEBOS_MIN {
            return None;
        }
        let samples: Vec<Sample> = starts
            .iter()
            .map(|&start| sample(question.group_columns, control, start, windows.quarters))
            .collect();
        let mut errors = fit(&samples);
        (errors.basket_minor, errors.basket_error) = basket(question.group_columns, &starts, windows.quarters);
        errors.scale = length_scale(question, &windows);
        Some(errors)
    }

    /// Widens the interval when today is unusual elsewhere, too.
    pub fn scale_to_today(&mut self, question: &Question<'_>) {
        self.scale *= today(question, &Windows::of(question), self);
    }

    /// The factor by which the group deviates, going by what it did before.
    pub fn correction(&self, before: [f64; 2]) -> f64 {
        (self.log_correction(before) + self.bias).exp()
    }

    /// Logarithms of true to expected sales that bound [`CONFIDENCE`].
    pub fn interval(&self, wide: f64) -> (f64, f64) {
        let tail = (1.0 - CONFIDENCE) / 2.0;
        let (low, high) = (self.quantile(tail, true), self.quantile(1.0 - tail, false));
        (low * self.scale * wide, high * self.scale * wide)
    }

    /// One usual error; heavy tails make it larger.
    pub fn usual(&self) -> f64 {
        let (low, high) = self.interval(1.0);
        let far = self.sorted.iter().fold(0.0_f64, |far, error| far.max(error.abs()));
        ((high - low) / 2.0 / 1.645).max(far * self.scale / 3.0)
    }

    fn log_correction(&self, before: [f64; 2]) -> f64 {
        self.weights[0] * before[0] + self.weights[1] * before[1]
    }

    /// Conformal: of n placebos the (n+1)p-th.
    fn quantile(&self, p: f64, down: bool) -> f64 {
        let at = p * (self.sorted.len() as f64 + 1.0);
        let at = if down { at.floor() } else { at.ceil() };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the length"
        )]
        let index = (at as usize).clamp(1, self.sorted.len()) - 1;
        self.sorted[index]
    }
}

fn usual_size(group: &Columns, windows: &Windows) -> f64 {
    let yesterdays = (1..=DAYS_TABLED).filter_map(|day| windows.quarter.checked_sub(day * 96));
    let mut sizes: Vec<f64> = yesterdays
        .map(|quarter| group.tally(quarter, windows.quarters).baseline)
        .collect();
    median(&mut sizes)
}

fn fits(question: &Question<'_>, quarter: u64, quarters: u64, usual: f64) -> bool {
    let (from_ms, to_ms) = (quarter * QUARTER_MS, (quarter + quarters) * QUARTER_MS);
    let spoiled = question.spoiled.iter().any(|&(from, to)| from < to_ms && from_ms < to);
    let size = question.group_columns.tally(quarter, quarters).baseline;
    !spoiled && question.group_columns.holds(quarter, quarters) && size > SIZE_MIN * usual && size > 0.0
}

/// Ridge regression of the log-ratio on what was before, towards [`WEIGHTS_BEFORE`].
fn fit(samples: &[Sample]) -> Errors {
    let belief = WEIGHTS_BEFORE;
    let mut logs: Vec<f64> = samples
        .iter()
        .map(|s| s.log_ratio - belief[0] * s.before[0] - belief[1] * s.before[1])
        .collect();
    let middle = median(&mut logs);
    let (mut a, mut b, mut d, mut x, mut y) = (BELIEF, 0.0, BELIEF, 0.0, 0.0);
    for sample in samples {
        let [u, v] = sample.before;
        // A placebo far off (a forgotten incident) shall not bend the weights.
        let rest = (sample.log_ratio - belief[0] * u - belief[1] * v - middle).clamp(-0.3, 0.3);
        (a, b, d) = (a + u * u, b + u * v, d + v * v);
        (x, y) = (x + u * rest, y + v * rest);
    }
    let det = a * d - b * b;
    let weights = [belief[0] + (d * x - b * y) / det, belief[1] + (a * y - b * x) / det];
    let mut errors = Errors {
        weights,
        bias: 0.0,
        sorted: Vec::new(),
        scale: 1.0,
        basket_minor: 0.0,
        basket_error: 0.0,
    };
    let mut rest: Vec<f64> = samples
        .iter()
        .map(|s| s.log_ratio - errors.log_correction(s.before))
        .collect();
    errors.bias = median(&mut rest);
    errors.sorted = rest.iter().map(|error| error - errors.bias).collect();
    errors
}

/// Short windows are noisier than the quarter that stands for them.
#[expect(clippy::cast_precision_loss, reason = "minutes of a day")]
fn length_scale(question: &Question<'_>, windows: &Windows) -> f64 {
    (windows.quarters as f64 * 15.0 / question.minutes().max(1) as f64)
        .max(0.7)
        .sqrt()
}

/// How unusual today is: errors of other regions today against theirs in the past; never below 1.
fn today(question: &Question<'_>, windows: &Windows, errors: &Errors) -> f64 {
    let regions = question.unaffected_columns;
    if regions.len() < 3 {
        return 1.0;
    }
    let all = Columns::sum(regions.iter().copied(), None);
    let (mut now, mut past) = (Vec::new(), Vec::new());
    for region in regions {
        let control = Columns::sum([&all].into_iter(), Some(region));
        let error = |quarter: u64, into: &mut Vec<f64>| {
            if region.tally(quarter, windows.quarters).baseline > 0.0 && region.holds(quarter, windows.quarters) {
                let sample = sample(region, Some(&control), quarter, windows.quarters);
                into.push((sample.log_ratio - errors.log_correction(sample.before)).abs());
            }
        };
        // The same times of day in the past: an error is larger where less is sold.
        for start in (0..TODAY_WINDOWS).map(|back| windows.quarter.saturating_sub(back * windows.quarters)) {
            error(start, &mut now);
            (1..=DAYS_TABLED)
                .step_by(2)
                .for_each(|day| error(start.saturating_sub(day * 96), &mut past));
        }
    }
    if now.len() < 8 || past.len() < PLACEBOS_MIN {
        return 1.0;
    }
    let weight = f64::from(u32::try_from(now.len()).unwrap_or(u32::MAX)) / TODAY_BELIEF;
    let ratio = median(&mut now) / median(&mut past).max(1e-6);
    ((ratio * weight + 1.0) / (weight + 1.0)).clamp(1.0, TODAY_MAX)
}

/// Mean basket over the placebo windows, and the relative error of one window's mean.
fn basket(group: &Columns, starts: &[u64], quarters: u64) -> (f64, f64) {
    let of = |start: &u64| {
        (
            group.tally(*start, quarters).actual,
            group.amount_minor(*start, quarters),
        )
    };
    let windows: Vec<(f64, f64)> = starts.iter().map(of).filter(|(count, _)| *count > 0.0).collect();
    let (count, amount) = windows.iter().fold((0.0, 0.0), |sum, w| (sum.0 + w.0, sum.1 + w.1));
    if count <= 0.0 || amount <= 0.0 {
        return (0.0, 0.0);
    }
    let mean = amount / count;
    let spread: f64 = windows
        .iter()
        .map(|(count, amount)| (amount / count / mean - 1.0).powi(2))
        .sum();
    (mean, (spread / windows.len() as f64).sqrt())
}

/// Sorts; 0 for nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(&upper) = values.get(values.len() / 2) else {
        return 0.0;
    };
    if values.len() % 2 == 1 {
        upper
    } else {
        (upper + values[values.len() / 2 - 1]) / 2.0
    }
}
