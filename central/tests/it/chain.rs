//! A chain of 60 stores in six regions with a known truth: five weeks of history, then minutes.
//!
//! Sales are Poisson with the shape of a day and a week, good and bad days of all, of a region and of a store, and
//! lognormal baskets. A fault thins the same customers, so that what was lost is known to the cent.
//! Detectors are simulated: they notice two minutes late, and now and then cry for nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use tillwatch_central::decode::{Observation, SeriesInfo};
use tillwatch_central::impact::{Impact, ImpactSettings};
use tillwatch_central::model::Model;
use tillwatch_central::rollup::Rollup;
use tillwatch_feed::histogram::Histogram;
use tillwatch_feed::message::{Finding, Kind};
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::SiteId;

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const QUARTER_MS: u64 = 15 * MINUTE_MS;
const WEEK_MS: u64 = 672 * QUARTER_MS;
/// Monday, 19 January 2026, 00:00 UTC.
const HISTORY_START_MS: u64 = 1_768_780_800_000;
/// The Monday after five weeks.
const TODAY_MS: u64 = HISTORY_START_MS + 5 * WEEK_MS;
pub(crate) const REGIONS: [(&str, usize); 6] = [
    ("north", 30),
    ("south", 6),
    ("east", 6),
    ("west", 6),
    ("central", 6),
    ("coast", 6),
];

/// Hour and minute of the last Monday.
pub(crate) fn today(hour: u64, minute: u64) -> u64 {
    TODAY_MS + (hour * 60 + minute) * MINUTE_MS
}

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn poisson(&mut self, mean: f64) -> u32 {
        let limit = (-mean).exp();
        let (mut product, mut count) = (self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// Something that happens to stores.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) stores: Vec<usize>,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    /// Services that are slow.
    pub(crate) slow: Vec<&'static str>,
    /// Share of customers who leave.
    pub(crate) loss: f64,
    /// Nothing reaches central until the end.
    pub(crate) dark: bool,
    /// The source of sales is dead: these never arrive, all else does.
    pub(crate) no_sales: bool,
}

impl Event {
    pub(crate) fn new(stores: Vec<usize>, from_ms: u64, minutes: u64) -> Event {
        Event {
            stores,
            from_ms,
            to_ms: from_ms + minutes * MINUTE_MS,
            slow: Vec::new(),
            loss: 0.0,
            dark: false,
            no_sales: false,
        }
    }

    fn hits(&self, store: usize, time_ms: u64) -> bool {
        (self.from_ms..self.to_ms).contains(&time_ms) && self.stores.contains(&store)
    }
}

struct Store {
    id: SiteId,
    per_minute: f64,
    basket_minor: f64,
}

pub(crate) struct Chain {
    seed: u64,
    stores: Vec<Store>,
    series: BTreeMap<&'static str, Arc<SeriesInfo>>,
    pub(crate) impact: Impact,
    pub(crate) events: Vec<Event>,
    /// Per event: transactions and money that it cost.
    pub(crate) lost: Vec<(i64, i64)>,
    held: Vec<Observation>,
    pub(crate) findings_too: bool,
}

pub(crate) const SERVICES: [&str; 4] = ["checkout", "loyalty", "mainframe-link", "printer"];

impl Chain {
    pub(crate) fn new(seed: u64, events: Vec<Event>) -> Chain {
        let mut chain = Chain::without_history(seed, events);
        chain.tell_history();
        chain
    }

    /// The model knows regions and sites, but no services.
    pub(crate) fn with_places_only(seed: u64, events: Vec<Event>) -> Chain {
        let mut chain = Chain::without_history(seed, events);
        chain.impact = Impact::new(
            Model::parse("model.toml", &places()).unwrap(),
            ImpactSettings::default(),
        );
        chain.tell_history();
        chain
    }

    /// Opened today.
    pub(crate) fn without_history(seed: u64, events: Vec<Event>) -> Chain {
        let mut random = Random::new(seed, 1);
        let regions = REGIONS
            .iter()
            .flat_map(|(region, count)| (1..=*count).map(move |n| format!("{region}-{n:02}")));
        let stores = regions.map(|id| Store {
            id: id.parse().unwrap(),
            per_minute: 1.6 * (0.35 * random.normal()).exp(),
            basket_minor: 2_900.0 * (0.15 * random.normal()).exp(),
        });
        Chain {
            seed,
            stores: stores.collect(),
            series: series(),
            impact: Impact::new(Model::parse("model.toml", &model()).unwrap(), ImpactSettings::default()),
            lost: vec![(0, 0); events.len()],
            events,
            held: Vec::new(),
            findings_too: false,
        }
    }

    /// What all stores report of a minute.
    pub(crate) fn fresh(&mut self, minute_ms: u64) -> Vec<Observation> {
        (0..self.stores.len())
            .flat_map(|store| self.minute(store, minute_ms))
            .collect()
    }

    pub(crate) fn region(name: &str) -> Vec<usize> {
        let mut first = 0;
        for (region, count) in REGIONS {
            if region == name {
                return (first..first + count).collect();
            }
            first += count;
        }
        panic!("no region {name}")
    }

    /// Expected customers per minute.
    fn rate(&self, store: usize, time_ms: u64) -> f64 {
        let day = (time_ms - HISTORY_START_MS) / (24 * 60 * MINUTE_MS);
        let hour = ((time_ms - HISTORY_START_MS) % (24 * 60 * MINUTE_MS)) as f64 / 3_600_000.0;
        if !(8.0..20.0).contains(&hour) {
            return 0.0;
        }
        let hill = |at: f64, width: f64| (-((hour - at) / width).powi(2)).exp();
        let week = [1.0, 0.95, 1.0, 1.05, 1.25, 1.4, 0.5][usize::try_from(day % 7).unwrap()];
        let shape = 0.5 + 0.6 * hill(12.0, 1.8) + 0.8 * hill(17.5, 2.0);
        let mut first = 0;
        let region = REGIONS.iter().position(|(_, count)| {
            first += count;
            store < first
        });
        let level = |key: u64, spread: f64| spread * Random::new(self.seed ^ (day << 20), key).normal();
        let levels =
            level(1_000, 0.06) + level(1_001 + region.unwrap() as u64, 0.03) + level(2_000 + store as u64, 0.03);
        self.stores[store].per_minute * shape * week * levels.exp()
    }

    fn tell_history(&mut self) {
        let rollups = self.history();
        self.impact.restore(&rollups);
    }

    /// Quarters of all stores, up to 10:30 of the last day.
    pub(crate) fn history(&self) -> Vec<Rollup> {
        let mut rollups = Vec::new();
        for store in 0..self.stores.len() {
            let mut random = Random::new(self.seed, 10_000 + store as u64);
            for slot_ms in (HISTORY_START_MS..today(10, 30)).step_by(usize::try_from(QUARTER_MS).unwrap()) {
                let mean = 15.0 * self.rate(store, slot_ms + QUARTER_MS / 2);
                let count = random.poisson(mean);
                // The sum of many baskets is close to normal; a relative spread of 0.8 is that of the lognormal above.
                let mean = f64::from(count) * self.stores[store].basket_minor;
                let amount =
                    round(mean + 0.8 * self.stores[store].basket_minor * f64::from(count).sqrt() * random.normal());
                for (name, sum) in [("transactions", i64::from(count)), ("amount", amount)] {
                    let (site, series) = (self.stores[store].id.clone(), Arc::clone(&self.series[name]));
                    rollups.push(Rollup {
                        site,
                        series,
                        slot_ms,
                        covered_ms: QUARTER_MS,
                        count: 1,
                        sum,
                    });
                }
            }
        }
        rollups
    }

    /// Money of so many baskets.
    fn amount(&self, store: usize, count: u32, random: &mut Random) -> i64 {
        let basket = |random: &mut Random| self.stores[store].basket_minor * (0.7 * random.normal() - 0.245).exp();
        (0..count).map(|_| round(basket(random))).sum()
    }

    /// Lives through these minutes; central's time follows a minute behind.
    pub(crate) fn run(&mut self, from_ms: u64, to_ms: u64, mut each: impl FnMut(&Impact, u64)) {
        for minute_ms in (from_ms..to_ms).step_by(60_000) {
            let all = self.fresh(minute_ms);
            let dark = |observation: &Observation| {
                let store = self.stores.iter().position(|store| store.id == observation.site);
                self.events
                    .iter()
                    .any(|event| event.dark && event.hits(store.unwrap(), minute_ms))
            };
            let (held, mut fresh): (Vec<_>, Vec<_>) = all.into_iter().partition(dark);
            self.held.extend(held);
            fresh.retain(|observation| !self.is_unsold(observation));
            self.impact.on_observations(&fresh);
            let ended = |event: &Event| !event.dark || event.to_ms <= minute_ms;
            if self.events.iter().all(ended) && !self.held.is_empty() {
                let held = std::mem::take(&mut self.held);
                self.impact.on_observations(&held);
            }
            if self.findings_too {
                self.tell_findings(&fresh);
            }
            self.impact.on_clock(minute_ms + MINUTE_MS);
            each(&self.impact, minute_ms + MINUTE_MS);
        }
    }

    fn is_unsold(&self, observation: &Observation) -> bool {
        let store = self.stores.iter().position(|store| store.id == observation.site);
        let hit = |event: &Event| event.no_sales && event.hits(store.unwrap(), observation.start_ms);
        observation.series.role.starts_with("sales.") && self.events.iter().any(hit)
    }

    fn minute(&mut self, store: usize, minute_ms: u64) -> Vec<Observation> {
        let mut random = Random::new(self.seed ^ (minute_ms << 8), 20_000 + store as u64);
        let customers = random.poisson(self.rate(store, minute_ms));
        let mut here = 0;
        for customer in 0..customers {
            let leaves = random.unit();
            let hit = self
                .events
                .iter()
                .position(|event| event.hits(store, minute_ms) && leaves < event.loss);
            match hit {
                None => here += 1,
                Some(event) => {
                    let mut basket = Random::new(
                        self.seed ^ (minute_ms << 8),
                        90_000 + 1_000 * store as u64 + u64::from(customer),
                    );
                    let amount = self.amount(store, 1, &mut basket);
                    self.lost[event].0 += 1;
                    self.lost[event].1 += amount;
                }
            }
        }
        let amount = self.amount(store, here, &mut random);
        let mut told = vec![
            self.observation(store, "transactions", minute_ms, i64::from(here), None),
            self.observation(store, "amount", minute_ms, amount, None),
        ];
        for service in SERVICES {
            let noticed = |event: &Event| {
                event.slow.contains(&service) && event.hits(store, minute_ms.saturating_sub(2 * MINUTE_MS))
            };
            let slow = self.events.iter().any(noticed);
            let alarm = slow || random.unit() < 0.0005;
            let value = if slow { 40.0 } else { 4.0 } * (0.3 * random.normal()).exp();
            told.push(self.health(store, service, minute_ms, value, alarm));
        }
        told
    }

    fn observation(&self, store: usize, name: &str, start_ms: u64, sum: i64, score: Option<Score>) -> Observation {
        let summary = Summary {
            count: 1,
            sum,
            min: sum,
            max: sum,
            histogram: None,
        };
        let (site, series) = (self.stores[store].id.clone(), Arc::clone(&self.series[name]));
        Observation {
            site,
            series,
            start_ms,
            length_ms: 60_000,
            summary,
            score,
        }
    }

    fn health(&self, store: usize, service: &str, start_ms: u64, value: f64, alarm: bool) -> Observation {
        let (log10_p, effect) = if alarm { (-7.0, 9.0) } else { (-0.3, 0.2) };
        let score = Score {
            state: ScoreState::Ok,
            alarm,
            log10_p,
            effect,
            missing: 0,
        };
        let mut observation = self.observation(store, service, start_ms, round(value * 1_000.0), Some(score));
        let mut histogram = Histogram::default();
        histogram.record(value);
        observation.summary.histogram = Some(histogram);
        observation
    }

    /// Each alarm as a finding of its own, before its interval is looked at.
    fn tell_findings(&mut self, observations: &[Observation]) {
        for observation in observations {
            let Some(score) = observation.score.filter(|score| score.alarm) else {
                continue;
            };
            let series = &observation.series;
            let finding = Finding {
                id: observation.start_ms,
                revision: 1,
                metric: series.metric.clone(),
                unit: series.unit.clone(),
                role: series.role.clone(),
                decimals: series.decimals,
                currency: None,
                plugin: series.plugin.clone(),
                labels: series.labels.clone(),
                start_ms: observation.start_ms,
                peak_ms: observation.start_ms,
                end_ms: None,
                window_ms: 10_000,
                log10_p: score.log10_p,
                effect: score.effect,
                expected: 0,
                actual: 0,
            };
            self.impact.on_finding(&observation.site, &finding);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "small numbers of a simulation")]
fn round(value: f64) -> i64 {
    value.round() as i64
}

/// Twenty-six anomalies of single stores outside the north that touch no sales.
pub(crate) fn harmless(seed: u64, from_ms: u64) -> Vec<Event> {
    let mut random = Random::new(seed, 77);
    let one = |number: usize| {
        let store = 30 + random.below(30);
        let start_ms = from_ms + random.below(60) as u64 * MINUTE_MS;
        let minutes = 8 + random.below(12) as u64;
        Event {
            slow: vec![SERVICES[number % 4]],
            ..Event::new(vec![store], start_ms, minutes)
        }
    };
    (0..26).map(one).collect()
}

fn series() -> BTreeMap<&'static str, Arc<SeriesInfo>> {
    let info = |metric: &str, role: &str, kind, currency: Option<&str>, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let (metric, role, currency) = (metric.to_owned(), role.to_owned(), currency.map(str::to_owned));
        let (unit, plugin) = ("s".to_owned(), "test".to_owned());
        let decimals = match role.as_str() {
            "sales.count" => 0,
            "sales.amount" => 2,
            _ => 3,
        };
        Arc::new(SeriesInfo {
            metric,
            unit,
            kind,
            role,
            decimals,
            currency,
            plugin,
            labels,
        })
    };
    let latency = |labels: &[(&str, &str)]| {
        info(
            "http.server.request.duration",
            "latency",
            Kind::Distribution,
            None,
            labels,
        )
    };
    BTreeMap::from([
        (
            "transactions",
            info("sales.transactions", "sales.count", Kind::Sum, None, &[]),
        ),
        (
            "amount",
            info("sales.amount", "sales.amount", Kind::Sum, Some("EUR"), &[]),
        ),
        ("checkout", latency(&[("http.route", "/checkout")])),
        ("loyalty", latency(&[("http.route", "/loyalty")])),
        (
            "mainframe-link",
            info(
                "queue.depth",
                "queue",
                Kind::Gauge,
                None,
                &[("messaging.destination.name", "mainframe")],
            ),
        ),
        ("printer", info("printer.errors", "", Kind::Sum, None, &[])),
    ])
}

fn places() -> String {
    let mut text = String::new();
    for (region, count) in REGIONS {
        text += &format!("[[region]]\nid = \"{region}\"\n");
        for number in 1..=count {
            text += &format!("[[site]]\nid = \"{region}-{number:02}\"\nregion = \"{region}\"\n");
        }
    }
    text
}

pub(crate) fn model() -> String {
    places()
        + r#"
[[service]]
id = "checkout"
depends_on = ["loyalty"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/checkout" } }]
[[service]]
id = "loyalty"
depends_on = ["mainframe-link"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/loyalty" } }]
[[service]]
id = "mainframe-link"
scope = "region"
depends_on = ["mainframe"]
metrics = [{ name = "queue.depth", labels = { "messaging.destination.name" = "mainframe" } }]
[[service]]
id = "mainframe"
scope = "chain"
"#
}
