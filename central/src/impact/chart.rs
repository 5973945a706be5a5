//! One picture of an incident: sales against what was expected, and how slow the services were.

use super::{Impact, pricing, tell};
use crate::cost::BaselineLine;
use crate::expect::{MINUTE_MS, Tally};
use crate::incident::book::Tracked;
use serde::{Deserialize, Serialize};

/// Series over a common time axis; all lists are as long as `times_ms`, and `None` is unknown, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// Id of the incident.
    pub incident: String,
    /// Starts of the steps, UTC.
    pub times_ms: Vec<u64>,
    /// One or five minutes.
    pub step_ms: u64,
    /// When the incident began and ended, to be marked on the axis.
    pub start_ms: u64,
    pub end_ms: Option<u64>,
    pub sales: SalesChart,
    /// Latency and queues of the cause and of what it affects, the cause first.
    pub services: Vec<ServiceChart>,
}

/// Transactions per step of the affected sites that reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SalesChart {
    pub actual: Vec<Option<f64>>,
    pub expected: Vec<Option<f64>>,
    /// The band that holds the transactions of nine steps in ten when nothing is wrong.
    pub lower: Vec<Option<f64>>,
    pub upper: Vec<Option<f64>>,
    /// Affected sites that reported in the step.
    pub sites_reporting: Vec<u32>,
}

/// One metric of one service, over the affected sites.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceChart {
    /// Id of the service, or the name of a metric that the model does not place.
    pub service: String,
    pub name: String,
    pub metric: String,
    /// UCUM.
    pub unit: String,
    /// `latency`, `queue`, ...
    pub role: String,
    /// Mean over the sites: of the 95th percentile for distributions, of the mean for others.
    pub values: Vec<Option<f64>>,
}

/// Steps of a chart at most.
const STEPS_MAX: u64 = 360;
/// What is shown before and after the incident.
const BEFORE_MS: u64 = 60 * MINUTE_MS;
const AFTER_MS: u64 = 30 * MINUTE_MS;
/// From this many expected transactions a minute on, single minutes are shown.
const MINUTE_STEPS_FROM: f64 = 40.0;
/// The ratio of unaffected sites is taken from so many minutes before and after.
const RATIO_MINUTES: usize = 15;
const RATIO_PULL: f64 = 50.0;
/// Expected sales are never surer than this.
const ERROR_MIN: f64 = 0.02;
/// Of nine in ten values of a normal distribution none is farther off, in standard deviations.
const NINE_IN_TEN: f64 = 1.645;

/// Minutes of the affected and of the unaffected sites.
struct Minutes {
    first: u64,
    group: Vec<(Tally, u32)>,
    unaffected: Vec<Tally>,
}

/// Draws an incident as it stands.
pub(super) fn draw(impact: &Impact, tracked: &Tracked) -> Chart {
    let (start_ms, end_ms) = pricing::window(tracked, impact.now_ms);
    let from_ms = start_ms.saturating_sub(BEFORE_MS);
    let to_ms = (end_ms + AFTER_MS)
        .min(impact.now_ms / MINUTE_MS * MINUTE_MS)
        .max(from_ms + MINUTE_MS);
    let minutes = minutes(impact, tracked, from_ms, to_ms);
    let step_ms = step_ms(&minutes, to_ms - from_ms);
    let times_ms: Vec<u64> = (from_ms / step_ms..to_ms.div_ceil(step_ms))
        .map(|step| step * step_ms)
        .collect();
    let services = tell::services(&impact.topology, tracked);
    Chart {
        incident: tracked.id.clone(),
        sales: sales(tracked, &minutes, &times_ms, step_ms),
        services: impact
            .gauges
            .charts(&impact.topology, &services, &tracked.sites, &times_ms, step_ms),
        times_ms,
        step_ms,
        start_ms: tracked.start_ms,
        end_ms: tracked.closed_ms.map(|_| tracked.until_ms),
    }
}

fn minutes(impact: &Impact, tracked: &Tracked, from_ms: u64, to_ms: u64) -> Minutes {
    let unaffected = pricing::unaffected_of(impact, tracked);
    let (first, end) = (from_ms / MINUTE_MS, to_ms / MINUTE_MS);
    let length = usize::try_from(end - first).unwrap_or(0);
    let mut minutes = Minutes {
        first,
        group: vec![Default::default(); length],
        unaffected: vec![Tally::default(); length],
    };
    let each = |site: usize, mut add: Box<dyn FnMut(usize, Tally) + '_>| {
        let mut line = BaselineLine::default();
        for minute in first..end {
            let sales = &impact.sales[site];
            let (Some(actual), Some(baseline)) = (sales.minute(minute), line.at(sales, minute, tracked.start_ms))
            else {
                continue;
            };
            add(
                usize::try_from(minute - first).unwrap_or(0),
                Tally {
                    actual: f64::from(actual),
                    baseline,
                },
            );
        }
    };
    for &site in &tracked.sites {
        each(
            site,
            Box::new(|at, tally| {
                minutes.group[at].0 += tally;
                minutes.group[at].1 += 1;
            }),
        );
    }
    for &site in &unaffected {
        each(site, Box::new(|at, tally| minutes.unaffected[at] += tally));
    }
    minutes
}

fn step_ms(minutes: &Minutes, length_ms: u64) -> u64 {
    let sum: f64 = minutes.group.iter().map(|(tally, _)| tally.baseline).sum();
    let per_minute = sum / f64::from(u32::try_from(minutes.group.len().max(1)).unwrap_or(u32::MAX));
    if per_minute >= MINUTE_STEPS_FROM && length_ms / MINUTE_MS <= STEPS_MAX {
        return MINUTE_MS;
    }
    // The finest of these that fits; incidents are priced over less than two days.
    [5, 15, 30]
        .into_iter()
        .map(|step| step * MINUTE_MS)
        .find(|step| length_ms / step <= STEPS_MAX)
        .unwrap_or(60 * MINUTE_MS)
}

fn sales(tracked: &Tracked, minutes: &Minutes, times_ms: &[u64], step_ms: u64) -> SalesChart {
    let estimate = tracked.answer.as_ref().and_then(|answer| answer.estimate);
    let mut chart = SalesChart::default();
    for &time_ms in times_ms {
        let step = minutes.step(time_ms, step_ms);
        chart.actual.push((step.sites > 0).then_some(step.actual));
        chart.sites_reporting.push(step.sites);
        let expected = estimate.map(|estimate| (step.usual * estimate.own_ratio, estimate.error, estimate.expected));
        let expected = expected.filter(|_| step.sites > 0);
        chart.expected.push(expected.map(|(expected, _, _)| expected));
        let band = expected.map(|(expected, error, of_window)| (expected, band(expected, error, of_window)));
        chart.lower.push(band.map(|(expected, band)| expected * (-band).exp()));
        chart.upper.push(band.map(|(expected, band)| expected * band.exp()));
    }
    chart
}

/// Half the band of a step as a logarithm: what the window's error has beyond counting noise, and the step's own noise.
fn band(expected: f64, error: f64, of_window: f64) -> f64 {
    let steady = (error * error - 1.0 / of_window.max(1.0)).max(ERROR_MIN * ERROR_MIN);
    NINE_IN_TEN * (steady + 1.0 / expected.max(1.0)).sqrt()
}

struct Step {
    actual: f64,
    /// Baseline times the ratio of unaffected sites.
    usual: f64,
    sites: u32,
}

impl Minutes {
    fn step(&self, time_ms: u64, step_ms: u64) -> Step {
        let mut step = Step {
            actual: 0.0,
            usual: 0.0,
            sites: 0,
        };
        for minute in time_ms / MINUTE_MS..(time_ms + step_ms) / MINUTE_MS {
            let Some(at) = minute.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else {
                continue;
            };
            let Some(&(tally, sites)) = self.group.get(at) else {
                continue;
            };
            step.actual += tally.actual;
            step.usual += tally.baseline * self.ratio(at);
            step.sites = step.sites.max(sites);
        }
        step
    }

    fn ratio(&self, at: usize) -> f64 {
        let to = (at + RATIO_MINUTES + 1).min(self.unaffected.len());
        let mut sum = Tally::default();
        self.unaffected[at.saturating_sub(RATIO_MINUTES)..to]
            .iter()
            .for_each(|tally| sum += *tally);
        (sum.actual + RATIO_PULL) / (sum.baseline + RATIO_PULL)
    }
}
