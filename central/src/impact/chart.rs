//! One picture of an incident: sales against what was expected, and how slow the services were.
//!
//! In: incidents by rank, and the sales of all sites. Out: a chart for each, drawn anew when its price was reckoned anew
//! or, at most once a minute of event time, when something that it shows has changed, however late that came. The sums of
//! whole regions are shared by all that are drawn together.

use super::{Impact, pricing, tell};
use crate::cost::BaselineLine;
use crate::expect::{MINUTE_MS, Tally};
use crate::incident::Incident;
use crate::incident::book::{Book, Tracked};
use crate::topology::{Extent, Site};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

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

/// A chart with the state of its incident when it was drawn.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    state: State,
    /// Minute of event time.
    at: u64,
    pub(super) chart: Arc<Chart>,
}

/// While it is equal, a chart stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Whole minutes.
    from: u64,
    to: u64,
    /// When its price was reckoned last.
    priced_ms: u64,
    /// Of what it shows; minutes that have just begun change often, so this alone counts once a minute.
    revision: u64,
}

impl Drawn {
    fn is_current(&self, state: State, at: u64) -> bool {
        let same = State {
            revision: self.state.revision,
            ..state
        };
        self.state == same && (self.state.revision == state.revision || self.at == at)
    }
}

/// An interval came that the pictures of these incidents show: of any site, since the unaffected are in them, too.
pub(super) fn mark_revised(book: &mut Book, start_ms: u64, end_ms: u64) {
    for tracked in &mut book.tracked {
        let shows_from_ms = tracked
            .start_ms
            .saturating_sub(pricing::ONSET_LEAD_MS + BEFORE_MS + MINUTE_MS);
        let is_shown = end_ms > shows_from_ms && (tracked.is_open() || start_ms < tracked.until_ms + AFTER_MS);
        tracked.revision += u64::from(is_shown);
    }
}

impl State {
    fn of(impact: &Impact, tracked: &Tracked) -> State {
        let (start_ms, end_ms) = pricing::window(tracked, impact.now_ms);
        let from = start_ms.saturating_sub(BEFORE_MS) / MINUTE_MS;
        State {
            from,
            to: ((end_ms + AFTER_MS).min(impact.now_ms) / MINUTE_MS).max(from + 1),
            priced_ms: tracked.priced_ms,
            revision: tracked.revision,
        }
    }
}

/// The charts of these incidents, those of `impact.drawn` where nothing has changed.
pub(super) fn draw_changed(impact: &Impact, incidents: &[Incident]) -> BTreeMap<String, Drawn> {
    let tracked = |incident: &Incident| impact.book.tracked.iter().find(|tracked| tracked.id == incident.id);
    let all: Vec<(&Tracked, State)> = incidents
        .iter()
        .filter_map(tracked)
        .map(|tracked| (tracked, State::of(impact, tracked)))
        .collect();
    let at = impact.now_ms / MINUTE_MS;
    let known = |tracked: &Tracked, state: State| {
        let drawn = impact.drawn.get(&tracked.id);
        drawn.filter(|drawn| drawn.is_current(state, at))
    };
    let changed = || all.iter().filter(|(tracked, state)| known(tracked, *state).is_none());
    let from = changed().map(|(_, state)| state.from).min().unwrap_or(0);
    let to = changed().map(|(_, state)| state.to).max().unwrap_or(0);
    let mut regions = RegionMinutes::new(impact, from..to);
    let drawn = all.iter().map(|&(tracked, state)| {
        let drawn = known(tracked, state).cloned().unwrap_or_else(|| Drawn {
            state,
            at,
            chart: Arc::new(draw(impact, tracked, state, &mut regions)),
        });
        (tracked.id.clone(), drawn)
    });
    drawn.collect()
}

/// Draws an incident as it stands.
fn draw(impact: &Impact, tracked: &Tracked, state: State, regions: &mut RegionMinutes<'_>) -> Chart {
    let (from_ms, to_ms) = (state.from * MINUTE_MS, state.to * MINUTE_MS);
    let minutes = minutes(impact, tracked, state, regions);
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

fn minutes(impact: &Impact, tracked: &Tracked, state: State, regions: &mut RegionMinutes<'_>) -> Minutes {
    let length = usize::try_from(state.to - state.from).unwrap_or(0);
    let mut group: Vec<(Tally, u32)> = vec![Default::default(); length];
    for &site in &tracked.sites {
        each_minute(impact, site, state.from..state.to, tracked.start_ms, |at, tally| {
            group[at].0 += tally;
            group[at].1 += 1;
        });
    }
    Minutes {
        first: state.from,
        group,
        unaffected: unaffected(impact, tracked, state, regions),
    }
}

/// Whole regions, less those of their sites that are no measure.
fn unaffected(impact: &Impact, tracked: &Tracked, state: State, regions: &mut RegionMinutes<'_>) -> Vec<Tally> {
    let mut sums = vec![Tally::default(); usize::try_from(state.to - state.from).unwrap_or(0)];
    for (region, left_out) in pricing::outside(impact, tracked) {
        let whole = regions.of(region, state.from);
        sums.iter_mut().zip(whole).for_each(|(sum, tally)| *sum += *tally);
        for site in left_out {
            each_minute(impact, site, state.from..state.to, impact.now_ms, |at, tally| {
                sums[at] += Tally {
                    actual: -tally.actual,
                    baseline: -tally.baseline,
                };
            });
        }
    }
    sums
}

/// Minutes in which a site's sales and what was to be expected are known.
fn each_minute(impact: &Impact, site: Site, within: Range<u64>, before_ms: u64, mut add: impl FnMut(usize, Tally)) {
    let sales = &impact.sales[site];
    let mut line = BaselineLine::default();
    for (at, minute) in within.enumerate() {
        if let (Some(actual), Some(baseline)) = (sales.minute(minute), line.at(sales, minute, before_ms)) {
            let actual = f64::from(actual);
            add(at, Tally { actual, baseline });
        }
    }
}

/// Minutes of whole regions, each summed once and only when it is asked for.
struct RegionMinutes<'a> {
    impact: &'a Impact,
    within: Range<u64>,
    regions: Vec<Option<Vec<Tally>>>,
}

impl<'a> RegionMinutes<'a> {
    fn new(impact: &'a Impact, within: Range<u64>) -> Self {
        let regions = vec![None; impact.topology.regions_len()];
        RegionMinutes {
            impact,
            within,
            regions,
        }
    }

    /// From a minute on. All charts look back less than a week, where what is expected depends on no incident's start.
    fn of(&mut self, region: usize, from: u64) -> &[Tally] {
        let (impact, within) = (self.impact, self.within.clone());
        let skipped = usize::try_from(from - within.start).unwrap_or(usize::MAX);
        let sums = self.regions[region].get_or_insert_with(|| region_minutes(impact, region, within));
        sums.get(skipped..).unwrap_or_default()
    }
}

fn region_minutes(impact: &Impact, region: usize, within: Range<u64>) -> Vec<Tally> {
    let mut sums = vec![Tally::default(); usize::try_from(within.end - within.start).unwrap_or(0)];
    for &site in impact.topology.sites(Extent::Region(region)) {
        each_minute(impact, site, within.clone(), impact.now_ms, |at, tally| {
            sums[at] += tally
        });
    }
    sums
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{Answer, Estimate};
    use crate::decode::{Observation, SeriesInfo};
    use crate::expect::{QUARTER_MS, WEEK_QUARTERS};
    use crate::impact::ImpactSettings;
    use crate::incident::PriceState;
    use crate::model::Model;
    use tillwatch_feed::message::Kind;
    use tillwatch_feed::summary::Summary;

    const MONDAY: u64 = 1_767_571_200_000;
    /// Three regions of four sites.
    const SITES: usize = 12;

    /// Five weeks of sales in quarters and two days in minutes, other at each site and with holes.
    fn impact() -> Impact {
        let mut model = String::new();
        for region in 0..3 {
            model += &format!("[[region]]\nid = \"r{region}\"\n");
        }
        for site in 0..SITES {
            model += &format!("[[site]]\nid = \"s{site}\"\nregion = \"r{}\"\n", site / 4);
        }
        let mut impact = Impact::new(Model::parse("model", &model).unwrap(), ImpactSettings::default());
        let now = MONDAY + 5 * WEEK_QUARTERS * QUARTER_MS;
        for (site, sales) in (0_u32..).zip(&mut impact.sales) {
            for quarter in 0..(5 * WEEK_QUARTERS - 200) {
                let amount = 7 + site + u32::try_from(quarter % 11).unwrap();
                sales.restore(MONDAY + quarter * QUARTER_MS, amount, QUARTER_MS);
            }
            for minute in 0..3_000_u64 {
                let at_ms = now - (3_000 - minute) * MINUTE_MS;
                if (minute + u64::from(site)) % 17 != 0 {
                    sales.cover(at_ms, MINUTE_MS);
                    sales.add_transactions(at_ms, u32::try_from(minute * 7 % 5).unwrap() + site % 3);
                }
            }
        }
        impact.on_clock(now);
        impact
    }

    fn answer(distinctness: f64) -> Answer {
        let estimate = Estimate {
            distinctness,
            ..Estimate::default()
        };
        Answer {
            state: PriceState::Costed,
            cost: None,
            lost_transactions: None,
            estimate: Some(estimate),
            unaffected_sites_used: 0,
            dark_sites: 0,
            notes: Vec::new(),
        }
    }

    /// An open incident that began so many minutes ago.
    fn open(impact: &mut Impact, extent: Extent, minutes_ago: u64, distinctness: f64) -> usize {
        let start_ms = impact.now_ms - minutes_ago * MINUTE_MS;
        let index = impact.book.open(Some(0), extent, start_ms, &impact.topology);
        let tracked = &mut impact.book.tracked[index];
        tracked.sites = impact.topology.sites(extent).to_vec();
        tracked.until_ms = impact.now_ms;
        tracked.answer = Some(answer(distinctness));
        index
    }

    /// As it is said: minute by minute over these sites, with what is expected as of the incident's start.
    fn one_by_one(impact: &Impact, tracked: &Tracked, state: State, sites: &[Site]) -> Vec<Tally> {
        let mut sums = vec![Tally::default(); usize::try_from(state.to - state.from).unwrap()];
        for &site in sites {
            each_minute(impact, site, state.from..state.to, tracked.start_ms, |at, tally| {
                sums[at] += tally
            });
        }
        sums
    }

    #[test]
    fn sums_of_whole_regions_are_those_of_their_unaffected_sites_one_by_one() {
        let mut impact = impact();
        // A long one and a short one, set against the same regions, and a site there that is no measure.
        let long = open(&mut impact, Extent::Region(0), 2_400, 3.0);
        let short = open(&mut impact, Extent::Site(1), 40, 0.0);
        open(&mut impact, Extent::Site(6), 200, 3.0);
        let states = [long, short].map(|index| State::of(&impact, &impact.book.tracked[index]));
        let from = states.iter().map(|state| state.from).min().unwrap();
        let mut regions = RegionMinutes::new(&impact, from..states[0].to);
        // Neither the long one's region nor the site in another: the short one is in that region.
        let sites = [4, 5, 7, 8, 9, 10, 11];
        for (index, state) in [long, short].into_iter().zip(states) {
            let tracked = &impact.book.tracked[index];
            assert_eq!(pricing::unaffected_sites(&impact, tracked), sites);
            let expected = one_by_one(&impact, tracked, state, &sites);
            let found = unaffected(&impact, tracked, state, &mut regions);
            assert_eq!(found.len(), expected.len());
            assert!(expected.iter().any(|tally| tally.actual > 0.0 && tally.baseline > 0.0));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found.actual - expected.actual).abs() < 1e-9, "{found:?} {expected:?}");
                assert!(
                    (found.baseline - expected.baseline).abs() < 1e-9,
                    "{found:?} {expected:?}"
                );
            }
        }
    }

    #[test]
    fn a_chart_is_drawn_anew_once_a_minute_while_its_incident_goes_on_and_then_when_it_is_priced_again() {
        let mut impact = impact();
        let index = open(&mut impact, Extent::Region(0), 30, 3.0);
        let drawn = |impact: &mut Impact, at_ms: u64| {
            impact.now_ms = at_ms;
            impact.tell();
            let before = impact.counters.charts_drawn;
            assert_eq!(impact.charts(30).len(), 1);
            impact.counters.charts_drawn - before
        };
        let now = impact.now_ms;
        assert_eq!(drawn(&mut impact, now), 1);
        for seconds in [10, 20, 50] {
            assert_eq!(drawn(&mut impact, now + seconds * 1_000), 0);
        }
        assert_eq!(drawn(&mut impact, now + MINUTE_MS), 1);
        impact.book.tracked[index].closed_ms = Some(now + MINUTE_MS);
        impact.book.tracked[index].until_ms = now;
        assert_eq!(drawn(&mut impact, now + AFTER_MS), 1);
        assert_eq!(drawn(&mut impact, now + AFTER_MS + MINUTE_MS), 0);
        // Late sales: it is priced again.
        impact.book.tracked[index].priced_ms = now + AFTER_MS + MINUTE_MS;
        assert_eq!(drawn(&mut impact, now + AFTER_MS + MINUTE_MS), 1);
        // And again within the same minute.
        impact.book.tracked[index].priced_ms += 1;
        assert_eq!(drawn(&mut impact, now + AFTER_MS + MINUTE_MS), 1);
        assert_eq!(impact.charts(0).len(), 0);
    }

    /// Pictures of closed incidents kept the minutes that nobody had heard of when they were drawn.
    #[test]
    fn what_comes_late_is_in_the_picture_a_minute_later_whoever_sent_it_and_nothing_else_draws_it_anew() {
        let mut impact = impact();
        let index = open(&mut impact, Extent::Region(0), 60, 3.0);
        let end_ms = impact.now_ms;
        impact.book.tracked[index].closed_ms = Some(end_ms);
        impact.book.tracked[index].stale = false;
        impact.now_ms = end_ms + AFTER_MS;
        impact.tell();
        let mut minute = 0;
        let mut redrawn = |impact: &mut Impact| {
            let before = impact.counters.charts_drawn;
            impact.charts(30);
            let at_once = impact.counters.charts_drawn - before;
            minute += 1;
            impact.now_ms = end_ms + AFTER_MS + minute * MINUTE_MS;
            impact.charts(30);
            (at_once, impact.counters.charts_drawn - before - at_once)
        };
        assert_eq!(redrawn(&mut impact), (1, 0));
        let (start_ms, after_ms) = (end_ms - 30 * MINUTE_MS, end_ms + AFTER_MS - MINUTE_MS);
        for (site, metric, at_ms, is_shown) in [
            (0, "sales.transactions", start_ms, true),
            (0, "payment.latency", start_ms, true),
            (0, "sales.transactions", after_ms, true),
            (9, "sales.transactions", start_ms, true),
            (0, "sales.transactions", after_ms + MINUTE_MS, false),
            (0, "sales.transactions", start_ms - 2 * BEFORE_MS, false),
        ] {
            impact.charts(30);
            impact.on_observations(&[observation(site, metric, at_ms)]);
            let (at_once, later) = redrawn(&mut impact);
            assert_eq!(at_once + later, u64::from(is_shown), "{site} {metric} {at_ms}");
        }
    }

    fn observation(site: usize, metric: &str, start_ms: u64) -> Observation {
        let (role, kind, unit) = match metric {
            "payment.latency" => ("latency", Kind::Gauge, "ms"),
            _ => ("sales.count", Kind::Sum, "{transaction}"),
        };
        let info = SeriesInfo {
            metric: metric.into(),
            unit: unit.into(),
            kind,
            role: role.into(),
            decimals: 0,
            currency: None,
            plugin: "sales".into(),
            labels: Vec::new(),
        };
        Observation {
            site: format!("s{site}").parse().unwrap(),
            series: Arc::new(info),
            start_ms,
            length_ms: 60_000,
            summary: Summary {
                count: 1,
                sum: 3,
                min: 3,
                max: 3,
                histogram: None,
            },
            score: None,
        }
    }
}
