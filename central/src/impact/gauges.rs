//! The last hours of latencies and queues, minute by minute, for the picture of an incident.

use super::chart::ServiceChart;
use crate::decode::Observation;
use crate::topology::{Service, Site, Topology};
use std::collections::BTreeMap;

const MINUTE_MS: u64 = 60_000;
/// How long minutes are kept.
const KEPT: usize = 360;
/// Most metrics per site that are kept.
pub(super) const METRICS_MAX: usize = 24;
/// Most pictures per incident.
const CHARTS_MAX: usize = 8;

/// What a line shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    service: Service,
    metric: String,
    unit: String,
    role: String,
}

/// A ring of minutes; not-a-number is unknown.
#[derive(Debug)]
struct Ring {
    newest: u64,
    values: Vec<f32>,
}

#[derive(Debug)]
pub(super) struct Gauges {
    sites: Vec<Vec<(Line, Ring)>>,
    /// Metrics that found no room at a site.
    pub(super) refused: u64,
}

impl Gauges {
    pub(super) fn new(sites: usize) -> Gauges {
        Gauges {
            sites: (0..sites).map(|_| Vec::new()).collect(),
            refused: 0,
        }
    }

    /// Keeps the interval when it is a latency or a queue; of several series of a minute the worst stays.
    pub(super) fn add(&mut self, site: Site, service: Service, observation: &Observation) {
        let series = &observation.series;
        if !matches!(series.role.as_str(), "latency" | "queue") {
            return;
        }
        let Some(value) = value(observation) else { return };
        let lines = &mut self.sites[site];
        let same = |line: &Line| line.service == service && line.metric == series.metric;
        let found = lines.iter().position(|(line, _)| same(line));
        let index = found.unwrap_or_else(|| {
            let (metric, unit, role) = (series.metric.clone(), series.unit.clone(), series.role.clone());
            lines.push((
                Line {
                    service,
                    metric,
                    unit,
                    role,
                },
                Ring {
                    newest: 0,
                    values: Vec::new(),
                },
            ));
            lines.len() - 1
        });
        if found.is_none() && lines.len() > METRICS_MAX {
            lines.pop();
            self.refused += 1;
            return;
        }
        let end_ms = observation.start_ms + u64::from(observation.length_ms.max(1));
        for minute in observation.start_ms / MINUTE_MS..end_ms.div_ceil(MINUTE_MS) {
            lines[index].1.put(minute, value);
        }
    }

    /// Lines of these services over these sites, as means of steps.
    pub(super) fn charts(
        &self,
        topology: &Topology,
        services: &[Service],
        sites: &[Site],
        times_ms: &[u64],
        step_ms: u64,
    ) -> Vec<ServiceChart> {
        let mut sums: BTreeMap<(usize, &Line), Vec<(f64, f64)>> = BTreeMap::new();
        for (line, ring) in sites.iter().flat_map(|&site| &self.sites[site]) {
            let Some(place) = services.iter().position(|service| *service == line.service) else {
                continue;
            };
            let steps = sums
                .entry((place, line))
                .or_insert_with(|| vec![(0.0, 0.0); times_ms.len()]);
            for (step, &start_ms) in steps.iter_mut().zip(times_ms) {
                for value in
                    (start_ms / MINUTE_MS..(start_ms + step_ms) / MINUTE_MS).filter_map(|minute| ring.get(minute))
                {
                    *step = (step.0 + f64::from(value), step.1 + 1.0);
                }
            }
        }
        sums.into_iter()
            .take(CHARTS_MAX)
            .map(|((_, line), steps)| chart(topology, line, &steps))
            .collect()
    }
}

fn chart(topology: &Topology, line: &Line, steps: &[(f64, f64)]) -> ServiceChart {
    ServiceChart {
        service: topology.service_id(line.service).to_owned(),
        name: topology.service_name(line.service).to_owned(),
        metric: line.metric.clone(),
        unit: line.unit.clone(),
        role: line.role.clone(),
        values: steps
            .iter()
            .map(|(sum, count)| (*count > 0.0).then(|| sum / count))
            .collect(),
    }
}

/// In the metric's unit: the 95th percentile of a distribution, the mean of anything else.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a picture needs no more than seven digits"
)]
fn value(observation: &Observation) -> Option<f32> {
    let summary = &observation.summary;
    if let Some(quantile) = summary
        .histogram
        .as_ref()
        .and_then(|histogram| histogram.quantile(0.95))
    {
        return Some(quantile as f32);
    }
    let mean = summary.mean()?;
    Some((mean / 10f64.powi(i32::from(observation.series.decimals))) as f32)
}

impl Ring {
    fn put(&mut self, minute: u64, value: f32) {
        if self.values.is_empty() {
            self.values = vec![f32::NAN; KEPT];
            self.newest = minute;
        }
        for fresh in (self.newest + 1..=minute).take(KEPT) {
            self.values[slot(fresh)] = f32::NAN;
        }
        if minute > self.newest + KEPT as u64 {
            self.values.fill(f32::NAN);
        }
        self.newest = self.newest.max(minute);
        if minute + KEPT as u64 > self.newest {
            let kept = &mut self.values[slot(minute)];
            *kept = kept.max(value);
        }
    }

    fn get(&self, minute: u64) -> Option<f32> {
        let kept = minute <= self.newest && minute + KEPT as u64 > self.newest && !self.values.is_empty();
        kept.then(|| self.values[slot(minute)]).filter(|value| !value.is_nan())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "smaller than KEPT")]
fn slot(minute: u64) -> usize {
    (minute % KEPT as u64) as usize
}
