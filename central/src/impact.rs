//! What an incident costs: the door to expectation, correlation, price and rank.
//!
//! In: a checked model, the roll-ups of the past, observations and findings by event time, and how late it is in event time.
//! Out: incidents ranked by price, each with a chart. Everything adds: late data corrects what was reckoned before.
//! Whoever calls has dropped duplicates already. It never asks for the time, opens a file or a socket.
//!
//! ```no_run
//! # use tillwatch_central::{impact::{Impact, ImpactSettings}, model::Model};
//! # fn run(text: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let mut impact = Impact::new(Model::parse("model.toml", text)?, ImpactSettings::default());
//! impact.restore(&[]);          // sums of past quarters from the archive, before the intervals that follow
//! impact.on_observations(&[]);  // fresh intervals, as they arrive
//! impact.on_clock(1_767_571_200_000);
//! let charts = impact.charts(30);
//! for incident in impact.incidents() {
//!     let chart = charts.get(&incident.id);
//! }
//! # Ok(())
//! # }
//! ```

pub mod chart;
mod gauges;
mod mapping;
mod pricing;
mod tell;

use crate::correlate::anomaly::{Alarm, Anomalies};
use crate::correlate::{self, sales};
use crate::decode::Observation;
use crate::expect::columns::Columns;
use crate::expect::{MINUTE_MS, SiteSales};
use crate::incident::Incident;
use crate::incident::book::Book;
use crate::model::Model;
use crate::rollup::Rollup;
use crate::topology::{Extent, Site, Topology};
use chart::{Chart, Drawn};
use gauges::Gauges;
use mapping::{Purpose, Purposes};
use std::collections::BTreeMap;
use std::sync::Arc;
use tillwatch_feed::message::Finding;
use tillwatch_feed::score::ScoreState;
use tillwatch_feed::topic::SiteId;

/// An interval that begins this long after event time comes from a wrong clock and is left out.
pub const FUTURE_MAX_MS: u64 = 24 * 60 * MINUTE_MS;
/// Silence is judged only after event time has gone on in smaller steps for long enough to see it: in a replay, time
/// jumps and sites come one after the other.
const PACE_MAX_MS: u64 = 5 * MINUTE_MS;
/// An interval this long before event time is late and makes prices stale.
const LATE_MS: u64 = 3 * MINUTE_MS;
/// A fall of sales without a technical cause: so unlikely, so deep, for so long.
const FALL_SIGMAS: f64 = 5.0;
const FALL_SHARE: f64 = 0.15;
const FALL_LASTS_MS: u64 = 10 * MINUTE_MS;
/// It goes on above this.
const FALL_SIGMAS_KEEP: f64 = 2.0;
/// After lost sales in a region its recent past is no measure.
const FALL_PAUSE_MS: u64 = 150 * MINUTE_MS;

/// What an operator may want otherwise.
#[derive(Clone, Copy, Debug)]
pub struct ImpactSettings {
    /// A site that is silent for longer, while others report, is dark.
    pub silent_after_ms: u64,
}

impl Default for ImpactSettings {
    fn default() -> Self {
        ImpactSettings {
            silent_after_ms: 10 * MINUTE_MS,
        }
    }
}

/// What was left out, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImpactCounters {
    pub observations: u64,
    pub findings: u64,
    /// From sites that the model does not have.
    pub unknown_sites: u64,
    /// Beyond [`FUTURE_MAX_MS`].
    pub from_the_future: u64,
    /// Older than what is kept.
    pub too_old: u64,
    /// Negative or absurd counts of transactions.
    pub odd_counts: u64,
    /// Sums of sales in other units than transactions or the currency's minor unit.
    pub odd_decimals: u64,
    /// Metrics without room: as services, or in charts.
    pub metrics_refused: u64,
    /// Closed incidents forgotten early.
    pub incidents_forgotten: u64,
    pub charts_drawn: u64,
}

impl ImpactCounters {
    /// Each with its name.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("observations", self.observations),
            ("findings", self.findings),
            ("unknown_sites", self.unknown_sites),
            ("from_the_future", self.from_the_future),
            ("too_old", self.too_old),
            ("odd_counts", self.odd_counts),
            ("metrics_refused", self.metrics_refused),
            ("incidents_forgotten", self.incidents_forgotten),
            ("charts_drawn", self.charts_drawn),
        ]
    }
}

/// The whole of it; memory is bounded by the model's size.
#[derive(Debug)]
pub struct Impact {
    topology: Topology,
    settings: ImpactSettings,
    sales: Vec<SiteSales>,
    anomalies: Anomalies,
    purposes: Purposes,
    gauges: Gauges,
    book: Book,
    /// Sales by quarter, per region.
    regions: Vec<Columns>,
    /// Since when the sales of a region are down.
    fallen_since_ms: Vec<Option<u64>>,
    now_ms: u64,
    looked_ms: u64,
    /// Since when event time has gone on without jumps.
    steady_since_ms: u64,
    /// A finding came: do not wait for the next minute.
    urgent: bool,
    counters: ImpactCounters,
    incidents: Vec<Incident>,
    /// Charts as drawn last.
    drawn: BTreeMap<String, Drawn>,
}

impl Impact {
    pub fn new(model: Model, settings: ImpactSettings) -> Impact {
        let sales: Vec<SiteSales> = model
            .sites
            .iter()
            .map(|site| SiteSales::new(site.time_zone.clone()))
            .collect();
        let topology = Topology::new(model);
        Impact {
            anomalies: Anomalies::new(&topology, settings.silent_after_ms),
            gauges: Gauges::new(sales.len()),
            regions: vec![Columns::default(); topology.regions_len()],
            fallen_since_ms: vec![None; topology.regions_len()],
            topology,
            settings,
            sales,
            purposes: Purposes::default(),
            book: Book::default(),
            now_ms: 0,
            looked_ms: 0,
            steady_since_ms: 0,
            urgent: false,
            counters: ImpactCounters::default(),
            incidents: Vec::new(),
            drawn: BTreeMap::new(),
        }
    }

    /// Sums of the past, once, before any observation that is not in them.
    ///
    /// They are known by the quarter of an hour only: to go on with the price of an incident, pass the intervals of the last
    /// two days to [`Impact::on_observations`] instead, and only what is older here.
    pub fn restore(&mut self, rollups: &[Rollup]) {
        for rollup in rollups {
            let Some(site) = self.topology.site(&rollup.site) else {
                continue;
            };
            let sales = &mut self.sales[site];
            match mapping::sales_purpose(&rollup.series) {
                Some(Purpose::Misfit) => self.counters.odd_decimals += 1,
                Some(Purpose::Transactions) => match u32::try_from(rollup.sum) {
                    Ok(transactions) => sales.restore(rollup.slot_ms, transactions, rollup.covered_ms),
                    Err(_) => self.counters.odd_counts += 1,
                },
                Some(Purpose::Amount) => {
                    let kept = sales.add_amount(rollup.slot_ms, rollup.sum, rollup.series.currency.as_deref());
                    self.counters.too_old += u64::from(!kept);
                }
                _ => {}
            }
        }
    }

    /// Incidents as last told, so that they keep their ids over a restart.
    pub fn resume(&mut self, incidents: &[Incident]) {
        for incident in incidents {
            tell::resume(&mut self.topology, &mut self.book, incident);
        }
        self.tell();
    }

    /// Fresh intervals; each adds to its own time, however late it comes.
    pub fn on_observations(&mut self, observations: &[Observation]) {
        for observation in observations {
            self.counters.observations += 1;
            let Some(site) = self.topology.site(&observation.site) else {
                self.counters.unknown_sites += 1;
                continue;
            };
            if self.now_ms != 0 && observation.start_ms > self.now_ms + FUTURE_MAX_MS {
                self.counters.from_the_future += 1;
                continue;
            }
            self.observe(site, observation);
        }
    }

    fn observe(&mut self, site: Site, observation: &Observation) {
        let (start_ms, series) = (observation.start_ms, &observation.series);
        let end_ms = start_ms + u64::from(observation.length_ms);
        self.sales[site].hear(end_ms);
        chart::mark_revised(&mut self.book, start_ms, end_ms);
        match self.purposes.of(&mut self.topology, series) {
            Purpose::Transactions => {
                self.add_transactions(site, start_ms, observation.length_ms, observation.summary.sum);
            }
            Purpose::Amount => {
                let kept = self.sales[site].add_amount(start_ms, observation.summary.sum, series.currency.as_deref());
                self.counters.too_old += u64::from(!kept);
            }
            Purpose::Health { service, bad } => {
                self.gauges.add(site, service, observation);
                let Some(score) = observation.score.filter(|score| score.state == ScoreState::Ok) else {
                    return;
                };
                let alarm = Alarm {
                    effect: score.effect,
                    log10_p: score.log10_p,
                };
                let alarm = (score.alarm && bad.is(score.effect)).then_some(alarm);
                self.anomalies.observe(site, service, start_ms, end_ms, alarm);
            }
            Purpose::Misfit => self.counters.odd_decimals += 1,
            Purpose::None => {}
        }
    }

    /// Only counted transactions make sales known; what an interval of several minutes sold is spread evenly over them.
    fn add_transactions(&mut self, site: Site, start_ms: u64, length_ms: u32, sum: i64) {
        let Ok(transactions) = u32::try_from(sum) else {
            self.counters.odd_counts += 1;
            return;
        };
        self.sales[site].cover(start_ms, u64::from(length_ms));
        let minutes = u64::from(length_ms).div_ceil(MINUTE_MS).max(1);
        let until = |minute: u64| u64::from(transactions) * minute / minutes;
        for minute in 0..minutes {
            let part = u32::try_from(until(minute + 1) - until(minute)).unwrap_or(transactions);
            let kept = self.sales[site].add_transactions(start_ms + minute * MINUTE_MS, part);
            self.counters.too_old += u64::from(!kept);
        }
        if start_ms + LATE_MS < self.now_ms {
            pricing::mark_stale(&mut self.book, site, start_ms);
        }
    }

    /// An anomaly of one series, in any revision and as often as it comes; it only speeds up what summaries tell anyway.
    pub fn on_finding(&mut self, site: &SiteId, finding: &Finding) {
        self.counters.findings += 1;
        let Some(site) = self.topology.site(site) else {
            self.counters.unknown_sites += 1;
            return;
        };
        let purpose = mapping::purpose(&mut self.topology, &finding.metric, &finding.role, &finding.labels);
        let Purpose::Health { service, bad } = purpose else {
            return;
        };
        let end_ms = finding.end_ms.unwrap_or(finding.peak_ms + u64::from(finding.window_ms));
        if !bad.is(finding.effect) || (self.now_ms != 0 && end_ms > self.now_ms + FUTURE_MAX_MS) {
            return;
        }
        // In whole minutes, as the intervals that tell the same.
        let start_ms = finding.start_ms - finding.start_ms % MINUTE_MS;
        let end_ms = end_ms.max(finding.start_ms + 1).next_multiple_of(MINUTE_MS);
        self.anomalies.find(
            site,
            service,
            start_ms,
            end_ms,
            Alarm {
                effect: finding.effect,
                log10_p: finding.log10_p,
            },
        );
        self.urgent = true;
    }

    /// How late it is in event time. Looks at everything anew when a minute has passed or a finding came.
    pub fn on_clock(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.now_ms / MINUTE_MS == self.looked_ms / MINUTE_MS && !self.urgent {
            return;
        }
        let pace_ms = self.now_ms - self.looked_ms;
        (self.looked_ms, self.urgent) = (self.now_ms, false);
        if pace_ms > PACE_MAX_MS {
            self.steady_since_ms = self.now_ms;
        }
        if self.steady_since_ms + self.settings.silent_after_ms < self.now_ms {
            self.look_for_silence();
        }
        self.look();
        self.tell();
    }

    /// A site is dark when it is silent while a fifth of the others report; less, and central itself is cut off.
    fn look_for_silence(&mut self) {
        let mut heard: Vec<u64> = self
            .sales
            .iter()
            .map(SiteSales::heard_ms)
            .filter(|heard| *heard != 0)
            .collect();
        heard.sort_unstable();
        let Some(fresh_ms) = heard.get(heard.len() * 4 / 5).copied() else {
            return;
        };
        if fresh_ms + self.settings.silent_after_ms / 2 < self.now_ms {
            return;
        }
        for (site, sales) in self.sales.iter().enumerate().filter(|(_, sales)| sales.heard_ms() != 0) {
            self.anomalies
                .heard(site, sales.heard_ms().max(self.steady_since_ms), self.now_ms);
        }
    }

    fn look(&mut self) {
        let now_ms = self.now_ms;
        self.sales.iter_mut().for_each(|sales| sales.prepare(now_ms));
        let spared: Vec<bool> = (0..self.topology.regions_len())
            .map(|region| self.is_spoiled(region))
            .collect();
        let drops = sales::drops(&self.topology, &self.sales, &spared, self.now_ms);
        let term = |extent: Extent| sales::term(&drops, extent);
        let groups = correlate::group(&self.topology, &self.anomalies, self.now_ms, term);
        self.book.update(&groups, &self.topology, self.now_ms);
        self.look_for_falls(&drops);
        pricing::price_all(self);
    }

    /// Lost sales in a region now or a short while ago make it no measure for others.
    fn is_spoiled(&self, region: usize) -> bool {
        let here = |extent: Extent| match extent {
            Extent::Site(_) => false,
            Extent::Region(other) => other == region,
            Extent::Chain => true,
        };
        let recent = |tracked: &&crate::incident::book::Tracked| tracked.until_ms + FALL_PAUSE_MS > self.now_ms;
        self.book
            .tracked
            .iter()
            .filter(recent)
            .any(|tracked| tracked.is_costed() && here(tracked.extent))
    }

    /// Opens and continues incidents of business alone.
    fn look_for_falls(&mut self, drops: &[sales::Drop]) {
        for (region, drop) in drops.iter().enumerate() {
            if drop.sigmas < FALL_SIGMAS_KEEP {
                self.fallen_since_ms[region] = None;
                continue;
            }
            if drop.sigmas >= FALL_SIGMAS && drop.share >= FALL_SHARE && self.fallen_since_ms[region].is_none() {
                self.fallen_since_ms[region] = Some(self.now_ms);
            }
            let since_ms = self.fallen_since_ms[region].filter(|since| since + FALL_LASTS_MS <= self.now_ms);
            if let Some(since_ms) = since_ms {
                pricing::fall(self, region, since_ms.saturating_sub(FALL_LASTS_MS));
            }
        }
    }

    fn tell(&mut self) {
        self.counters.metrics_refused = self.topology.unplaced_refused + self.gauges.refused;
        self.counters.incidents_forgotten = self.book.forgotten;
        let ranked = self.book.ranked(self.now_ms).into_iter();
        let told = ranked
            .zip(1..)
            .map(|(tracked, rank)| tell::incident(&self.topology, tracked, rank, self.now_ms));
        self.incidents = told.collect();
    }

    /// Open and recent incidents, what to look at first first.
    pub fn incidents(&self) -> Vec<Incident> {
        self.incidents.clone()
    }

    /// Incidents told before that turned out to be part of another one, each once.
    pub fn absorbed(&mut self) -> Vec<String> {
        let mut absorbed = std::mem::take(&mut self.book.absorbed);
        // What was told again since, under the id that follows from its place and start, is there.
        absorbed.retain(|id| self.incidents.iter().all(|incident| incident.id != *id));
        absorbed.into_iter().collect()
    }

    /// The pictures of the first `max` incidents, by id. What has not changed since the last time is not drawn again.
    pub fn charts(&mut self, max: usize) -> BTreeMap<String, Arc<Chart>> {
        let first = self.incidents.get(..max).unwrap_or(&self.incidents);
        let drawn = chart::draw_changed(self, first);
        let charts: BTreeMap<_, _> = drawn
            .iter()
            .map(|(id, drawn)| (id.clone(), Arc::clone(&drawn.chart)))
            .collect();
        let is_fresh = |(id, chart): &(&String, &Arc<Chart>)| {
            let before = self.drawn.get(*id);
            before.is_none_or(|before| !Arc::ptr_eq(&before.chart, chart))
        };
        let fresh = charts.iter().filter(is_fresh).count();
        self.counters.charts_drawn += u64::try_from(fresh).unwrap_or(u64::MAX);
        self.drawn = drawn;
        charts
    }

    /// Services that are anomalous at a site now.
    pub fn anomalies_at(&self, site: &SiteId) -> u32 {
        let Some(site) = self.topology.site(site) else { return 0 };
        let anomalous = (0..self.topology.services_len())
            .filter(|service| self.anomalies.state(site, *service, self.now_ms) == Some(true));
        u32::try_from(anomalous.count()).unwrap_or(u32::MAX)
    }

    pub fn counters(&self) -> ImpactCounters {
        self.counters
    }
}
