//! A chain of stores with a known truth, for whoever wants to judge the prices: five weeks of sales, then one day by minutes.
//!
//! In: a [`Scenario`] and a seed. Out: the feed that its stores send, and what each of its events truly cost.
//! Two mechanisms make the sales: customers drawn from the shape of a day, of whom a fault drives a share away; and tills
//! with queues, where a fault makes each sale slower and who waits too long leaves. Neither knows how `expect`, `correlate`
//! or `cost` reckon, and none of these is used here. The truth of an event is the same day, with the same customers, lived
//! twice: with the event and without it. It opens no file and asks for no time.

mod calendar;
pub mod feed;
mod random;
pub mod scenario;
mod signals;
mod tills;

use crate::decode::{Observation, SeriesInfo};
use crate::rollup::{Rollup, SLOT_MS};
use calendar::Calendar;
use random::Random;
use scenario::{Event, Mechanism, Scenario};
use signals::Signals;
use std::sync::Arc;
use tillwatch_feed::message::Kind;
use tillwatch_feed::score::Score;
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::SiteId;

pub const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Relative spread of what one customer pays.
const BASKET_SIGMA: f64 = 0.7;

/// What an event truly cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    pub transactions: i64,
    pub amount_minor: i64,
}

/// One store.
#[derive(Debug)]
struct Store {
    id: SiteId,
    region: usize,
    basket_minor: f64,
}

/// What one store sold, minute by minute of the day.
#[derive(Clone, Debug, Default)]
struct Day {
    sold: Vec<(u32, i64)>,
}

/// What a store sold, minute by minute, and what each event took from it.
type Lived = (Vec<(u32, i64)>, Vec<(usize, Lost)>);

/// A chain on one day, with its past.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    stores: Vec<Store>,
    calendar: Calendar,
    days: Vec<Day>,
    signals: Vec<Signals>,
    transactions: Arc<SeriesInfo>,
    amount: Arc<SeriesInfo>,
    health: Vec<Arc<SeriesInfo>>,
    lost: Vec<Lost>,
    seed: u64,
}

impl World {
    pub fn new(scenario: &Scenario, seed: u64) -> World {
        let stores = stores(scenario, seed);
        let regions: Vec<usize> = stores.iter().map(|store| store.region).collect();
        let mut world = World {
            calendar: Calendar::new(scenario, &regions, seed),
            days: Vec::new(),
            signals: stores
                .iter()
                .enumerate()
                .map(|(at, _)| Signals::new(seed, at))
                .collect(),
            transactions: series("sales.transactions", "sales.count", Kind::Sum, 0, &[]),
            amount: series("sales.amount", "sales.amount", Kind::Sum, 2, &[]),
            health: signals::SERVICES.iter().map(health).collect(),
            lost: vec![Lost::default(); scenario.events.len()],
            scenario: scenario.clone(),
            stores,
            seed,
        };
        world.days = (0..world.stores.len()).map(|store| world.live(store)).collect();
        world
    }

    /// Text of a `model.toml` that fits.
    pub fn model(&self) -> String {
        let mut text = String::new();
        for region in 0..self.scenario.chain.regions.len() {
            text += &format!("[[region]]\nid = \"{}\"\n", region_id(region));
        }
        for store in &self.stores {
            text += &format!(
                "[[site]]\nid = \"{}\"\nregion = \"{}\"\ntime_zone = \"{}\"\ncurrency = \"EUR\"\n",
                store.id,
                region_id(store.region),
                self.scenario.chain.time_zone
            );
        }
        text + signals::MODEL
    }

    /// UTC: when the minutes begin, and when they end.
    pub fn span_ms(&self) -> (u64, u64) {
        let from_ms = self.calendar.today_ms + u64::from(self.scenario.from_minute) * MINUTE_MS;
        (from_ms, from_ms + u64::from(self.scenario.minutes) * MINUTE_MS)
    }

    /// UTC: when an event begins and ends.
    pub fn event_ms(&self, event: usize) -> (u64, u64) {
        let event = &self.scenario.events[event];
        let from_ms = self.calendar.today_ms + u64::from(event.from_minute) * MINUTE_MS;
        (from_ms, from_ms + u64::from(event.minutes) * MINUTE_MS)
    }

    /// What each event cost, in their order.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// The sites that an event hits.
    pub fn hit(&self, event: usize) -> Vec<String> {
        let event = &self.scenario.events[event];
        let hit = self.stores.iter().enumerate();
        hit.filter(|(at, store)| event.is_at(*at, store.region))
            .map(|(_, store)| store.id.to_string())
            .collect()
    }

    /// Sales by the quarter of an hour, up to the first minute.
    pub fn history(&self) -> Vec<Rollup> {
        let mut rollups = Vec::new();
        for store in 0..self.stores.len() {
            if self.scenario.is_depot(store) {
                continue;
            }
            let skew_ms = self.scenario.skew_ms(store);
            for (slot_ms, count, amount) in self.past(store) {
                let slot_ms = slot_ms.saturating_add_signed(skew_ms) / SLOT_MS * SLOT_MS;
                rollups.push(self.rollup(store, &self.transactions, slot_ms, i64::from(count)));
                rollups.push(self.rollup(store, &self.amount, slot_ms, amount));
            }
        }
        rollups
    }

    fn rollup(&self, store: usize, series: &Arc<SeriesInfo>, slot_ms: u64, sum: i64) -> Rollup {
        Rollup {
            site: self.stores[store].id.clone(),
            series: Arc::clone(series),
            slot_ms,
            covered_ms: SLOT_MS,
            count: 1,
            sum,
        }
    }

    /// Quarters of the past, oldest first: start, transactions, money.
    fn past(&self, store: usize) -> Vec<(u64, u32, i64)> {
        let from_ms = self.calendar.history_start_ms;
        let to_ms = self.span_ms().0;
        let mut quarters = Vec::new();
        for day_ms in (from_ms..to_ms).step_by(usize::try_from(DAY_MS).unwrap_or(usize::MAX)) {
            let minutes = match self.scenario.mechanism {
                Mechanism::Statistical => None,
                Mechanism::Queuing if day_ms == self.calendar.today_ms => None,
                Mechanism::Queuing => Some(self.queue_day(store, day_ms, &[]).0),
            };
            for slot_ms in (day_ms..(day_ms + DAY_MS).min(to_ms)).step_by(900_000) {
                let (count, amount) = match &minutes {
                    Some(minutes) => sum(minutes, slot_ms - day_ms),
                    None if day_ms == self.calendar.today_ms => sum(&self.days[store].sold, slot_ms - day_ms),
                    None => self.drawn_quarter(store, slot_ms),
                };
                quarters.push((slot_ms, count, amount));
            }
        }
        quarters
    }

    fn drawn_quarter(&self, store: usize, slot_ms: u64) -> (u32, i64) {
        let mut random = Random::new(self.seed ^ (slot_ms << 6), 10_000 + as_u64(store));
        let count = random.poisson(15.0 * self.calendar.rate(store, slot_ms + SLOT_MS / 2));
        (count, self.many(store, count, &mut random))
    }

    /// The sum of many baskets is close to normal; exp(0.7²) - 1 is the square of their relative spread.
    fn many(&self, store: usize, count: u32, random: &mut Random) -> i64 {
        let spread = (BASKET_SIGMA * BASKET_SIGMA).exp_m1().sqrt();
        let basket = self.stores[store].basket_minor;
        let sum = f64::from(count) + spread * f64::from(count).sqrt() * random.normal();
        whole((basket * sum).max(0.0))
    }

    fn basket(&self, store: usize, random: &mut Random) -> i64 {
        let factor = (BASKET_SIGMA * random.normal() - BASKET_SIGMA * BASKET_SIGMA / 2.0).exp();
        whole(self.stores[store].basket_minor * factor)
    }

    /// Lives through today, and books what was lost.
    fn live(&mut self, store: usize) -> Day {
        if self.scenario.is_depot(store) {
            return Day {
                sold: vec![(0, 0); 1_440],
            };
        }
        let region = self.stores[store].region;
        let events = self.scenario.events.iter().enumerate();
        let here: Vec<(usize, Event)> = events
            .filter(|(_, event)| event.loss > 0.0 && event.is_at(store, region))
            .map(|(at, event)| (at, event.clone()))
            .collect();
        let (sold, lost) = match self.scenario.mechanism {
            Mechanism::Statistical => self.drawn_day(store, &here),
            Mechanism::Queuing => self.queue_day(store, self.calendar.today_ms, &here),
        };
        for (event, lost) in lost {
            self.lost[event].transactions += lost.transactions;
            self.lost[event].amount_minor += lost.amount_minor;
        }
        Day { sold }
    }

    /// Customers minute by minute, of whom a share leaves while a fault lasts.
    fn drawn_day(&self, store: usize, events: &[(usize, Event)]) -> Lived {
        let mut random = Random::new(self.seed, 20_000 + as_u64(store));
        let (mut sold, mut lost) = (Vec::with_capacity(1_440), Vec::new());
        for minute in 0..1_440_u32 {
            let at_ms = self.calendar.today_ms + u64::from(minute) * MINUTE_MS;
            let (mut count, mut amount) = (0, 0);
            for _ in 0..random.poisson(self.calendar.rate(store, at_ms)) {
                let (leaves, basket) = (random.unit(), self.basket(store, &mut random));
                let event = events
                    .iter()
                    .find(|(_, event)| event.strikes(minute) && leaves < event.loss);
                if let Some((event, _)) = event {
                    let one = Lost {
                        transactions: 1,
                        amount_minor: basket,
                    };
                    lost.push((*event, one));
                } else {
                    (count, amount) = (count + 1, amount + basket);
                }
            }
            sold.push((count, amount));
        }
        (sold, lost)
    }

    /// Customers queue at tills; the same customers queue once more without the faults, to tell what was lost.
    fn queue_day(&self, store: usize, day_ms: u64, events: &[(usize, Event)]) -> Lived {
        let mut random = Random::new(self.seed ^ day_ms, 30_000 + as_u64(store));
        let rates = (0..1_440).map(|minute| self.calendar.rate(store, day_ms + minute * MINUTE_MS));
        let rates: Vec<f64> = rates.collect();
        let mut customers = tills::arrivals(&rates, &mut random);
        for customer in &mut customers {
            customer.basket_minor = self.basket(store, &mut random);
        }
        let tills = tills::count(self.calendar.busiest(store));
        let slow = |event: &Event| tills::slowdown(event.loss, tills, &rates, event.from_minute);
        let slower: Vec<(&Event, f64)> = events.iter().map(|(_, event)| (event, slow(event))).collect();
        let faulty = tills::serve(&customers, tills, &slower);
        let mut lost = Vec::new();
        if !events.is_empty() {
            let healthy = tills::serve(&customers, tills, &[]);
            lost = tills::lost(&customers, &healthy, &faulty, events);
        }
        (tills::by_minute(&customers, &faulty), lost)
    }

    /// What arrives in this minute of today: its sales and health, and what a dark store had kept, once it is back.
    pub fn arrive(&mut self, minute_ms: u64) -> Vec<Observation> {
        let mut arrived = Vec::new();
        let minute = self.minute_of(minute_ms);
        for store in 0..self.stores.len() {
            if self.is_dark(store, minute) {
                continue;
            }
            let first_ms = self.span_ms().0;
            let mut from = minute;
            while from > self.minute_of(first_ms) && self.is_dark(store, from - 1) {
                from -= 1;
            }
            (from..=minute).for_each(|minute| self.tell(store, minute, &mut arrived));
        }
        arrived
    }

    fn minute_of(&self, at_ms: u64) -> u32 {
        u32::try_from((at_ms - self.calendar.today_ms) / MINUTE_MS).unwrap_or(u32::MAX)
    }

    fn is_dark(&self, store: usize, minute: u32) -> bool {
        let region = self.stores[store].region;
        let dark = |event: &Event| event.dark && event.is_at(store, region) && event.lasts(minute);
        self.scenario.events.iter().any(dark)
    }

    fn tell(&mut self, store: usize, minute: u32, into: &mut Vec<Observation>) {
        let at_ms = self.calendar.today_ms + u64::from(minute) * MINUTE_MS;
        let start_ms = at_ms.saturating_add_signed(self.scenario.skew_ms(store));
        let region = self.stores[store].region;
        if !self.scenario.is_depot(store) {
            let (count, amount) = self.days[store].sold.get(minute as usize).copied().unwrap_or_default();
            into.push(self.observation(store, &self.transactions, start_ms, plain(i64::from(count)), None));
            into.push(self.observation(store, &self.amount, start_ms, plain(amount), None));
        }
        for service in 0..signals::SERVICES.len() {
            let factor = self.scenario.slowness(service, store, region, minute);
            let (summary, score) = self.signals[store].minute(service, factor);
            into.push(self.observation(store, &self.health[service], start_ms, summary, Some(score)));
        }
    }

    fn observation(
        &self,
        store: usize,
        series: &Arc<SeriesInfo>,
        start_ms: u64,
        summary: Summary,
        score: Option<Score>,
    ) -> Observation {
        Observation {
            site: self.stores[store].id.clone(),
            series: Arc::clone(series),
            start_ms,
            length_ms: 60_000,
            summary,
            score,
        }
    }

    /// The region's id of a site, by its place in the scenario.
    pub(crate) fn region_of(&self, site: &SiteId) -> String {
        let store = self.stores.iter().find(|store| store.id == *site);
        store.map_or_else(String::new, |store| region_id(store.region))
    }
}

/// Id of a region by its place in the scenario.
pub fn region_id(region: usize) -> String {
    format!("region-{:02}", region + 1)
}

fn stores(scenario: &Scenario, seed: u64) -> Vec<Store> {
    let mut random = Random::new(seed, 1);
    let regions = scenario.chain.regions.iter().enumerate();
    let places = regions.flat_map(|(region, count)| (1..=*count).map(move |number| (region, number)));
    places
        .map(|(region, number)| Store {
            id: format!("{}-store-{number:03}", region_id(region))
                .parse()
                .expect("letters, digits and hyphens"),
            region,
            basket_minor: 2_900.0 * (0.15 * random.normal()).exp(),
        })
        .collect()
}

fn health(service: &signals::Service) -> Arc<SeriesInfo> {
    series(service.metric, service.role, Kind::Gauge, 3, service.labels)
}

fn series(metric: &str, role: &str, kind: Kind, decimals: u8, labels: &[(&str, &str)]) -> Arc<SeriesInfo> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Arc::new(SeriesInfo {
        metric: metric.to_owned(),
        unit: if role.starts_with("sales.") { "1" } else { "s" }.to_owned(),
        kind,
        role: role.to_owned(),
        decimals,
        currency: (role == "sales.amount").then(|| "EUR".to_owned()),
        plugin: "simulated".to_owned(),
        labels: labels.iter().map(owned).collect(),
    })
}

fn plain(sum: i64) -> Summary {
    Summary {
        count: 1,
        sum,
        min: sum,
        max: sum,
        histogram: None,
    }
}

/// The sum of the quarter that begins so long after midnight.
fn sum(minutes: &[(u32, i64)], after_ms: u64) -> (u32, i64) {
    let from = usize::try_from(after_ms / MINUTE_MS).unwrap_or(usize::MAX);
    let quarter = minutes.iter().skip(from).take(15);
    quarter.fold((0, 0), |sum, minute| (sum.0 + minute.0, sum.1 + minute.1))
}

fn as_u64(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "money of one store and minute")]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: &str = "about = \"t\"\nfrom = \"10:00\"\nminutes = 90\nMECHANISM\n[chain]\nregions = [4, 2]\n\
        [[event]]\nregions = [0]\nfrom = \"10:30\"\nminutes = 30\nslow = [\"loyalty\"]\nloss = 0.4\n";

    fn scenario(mechanism: &str) -> Scenario {
        let line = format!("mechanism = \"{mechanism}\"");
        Scenario::parse(&FAULT.replace("MECHANISM", &line)).unwrap()
    }

    fn sold(world: &World) -> i64 {
        let all = world.days.iter().flat_map(|day| &day.sold);
        all.map(|(_, amount)| amount).sum()
    }

    #[test]
    fn the_truth_is_what_the_same_customers_pay_without_the_event() {
        for mechanism in ["statistical", "queuing"] {
            let with = scenario(mechanism);
            let mut without = with.clone();
            without.events[0].loss = 0.0;
            let (with, without) = (World::new(&with, 3), World::new(&without, 3));
            let lost = with.lost()[0];
            assert!(lost.transactions > 20, "{mechanism}: {lost:?}");
            assert_eq!(sold(&without) - sold(&with), lost.amount_minor, "{mechanism}");
        }
    }

    #[test]
    fn a_loss_is_about_as_large_as_asked_for() {
        for mechanism in ["statistical", "queuing"] {
            let (mut lost, mut usual) = (0, 0);
            for seed in 1..=8 {
                let world = World::new(&scenario(mechanism), seed);
                lost += world.lost()[0].transactions;
                usual += world.days[..4]
                    .iter()
                    .flat_map(|day| &day.sold[630..660])
                    .map(|sold| i64::from(sold.0))
                    .sum::<i64>();
            }
            let share = lost as f64 / (lost + usual) as f64;
            println!("{mechanism}: lost {:.0} %", 100.0 * share);
            assert!((0.25..0.55).contains(&share), "{mechanism}: {share}");
        }
    }

    #[test]
    fn what_a_dark_store_kept_arrives_when_it_is_back() {
        let mut scenario = scenario("statistical");
        (scenario.events[0].dark, scenario.events[0].loss) = (true, 0.0);
        let mut world = World::new(&scenario, 1);
        let (from_ms, to_ms) = world.span_ms();
        let (dark_ms, back_ms) = world.event_ms(0);
        let mut counts = std::collections::BTreeMap::new();
        for minute_ms in (from_ms..to_ms).step_by(60_000) {
            counts.insert(minute_ms, world.arrive(minute_ms).len());
        }
        let each = 2 + signals::SERVICES.len();
        assert_eq!(
            (counts[&from_ms], counts[&dark_ms], counts[&back_ms]),
            (6 * each, 2 * each, (4 * 31 + 2) * each)
        );
        assert_eq!(counts.values().sum::<usize>(), 90 * 6 * each);
    }

    #[test]
    fn the_same_seed_tells_the_same_and_another_does_not() {
        let feed = |seed| World::new(&scenario("queuing"), seed).history();
        assert_eq!(feed(5), feed(5));
        assert_ne!(feed(5), feed(6));
    }
}
