//! A chain of stores with a known truth: who sells what and when, what is slow, and what a fault costs.
//!
//! Everything follows from one seed and can be asked for any store and minute in any order, so that history and live time,
//! simulated stores and stores made of real files tell the same story.
//! The same seed without the fault draws the same customers: what differs is what the fault cost.

use fastrand::Rng;
use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

/// One minute, the grain of the story.
pub const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// The share of customers who leave while the fault lasts.
const LOST_SHARE: f64 = 0.30;
/// Requests to the loyalty service per sale.
const LOYALTY_SHARE: f64 = 0.6;
/// The loyalty service's response time while the fault lasts, against its usual one.
const FAULT_SLOWDOWN: f64 = 18.0;
/// Messages per minute by which the queue to the mainframe grows while the fault lasts.
const FAULT_QUEUE_GROWTH: f64 = 9.0;

/// The regions, the one that is hit first, with their stores.
const REGIONS: [(&str, &str, usize); 6] = [
    ("north", "North", 30),
    ("south", "South", 6),
    ("east", "East", 6),
    ("west", "West", 6),
    ("central", "Central", 6),
    ("coast", "Coast", 6),
];
/// Anomalies that cost nothing, all outside the region that is hit.
const HARMLESS: usize = 26;

/// The chain and its truth.
#[derive(Clone, Debug)]
pub struct Chain {
    pub seed: u64,
    pub zone: TimeZone,
    pub stores: Vec<Store>,
    pub history_start_ms: u64,
    pub live_start_ms: u64,
    pub live_end_ms: u64,
    /// None when the same day passes without the fault.
    pub fault: Option<Fault>,
    pub harmless: Vec<Harmless>,
}

/// A shop.
#[derive(Clone, Debug)]
pub struct Store {
    pub id: String,
    pub region: &'static str,
    index: u64,
    sales_per_minute: f64,
    basket_log_mean: f64,
    checkout_s: f64,
    loyalty_s: f64,
}

/// The founding story: the region's queue to the mainframe is slow, and with it the loyalty service.
#[derive(Clone, Debug)]
pub struct Fault {
    pub region: &'static str,
    pub cause: &'static str,
    pub start_ms: u64,
    pub end_ms: u64,
}

/// Something unusual at one store that does not touch its sales.
#[derive(Clone, Debug)]
pub struct Harmless {
    pub store: usize,
    pub what: Disturbance,
    pub start_ms: u64,
    pub end_ms: u64,
}

/// What is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    SlowCheckout,
    SlowLoyalty,
    FullQueue,
}

/// What happens at one store in one minute.
#[derive(Clone, Debug, Default)]
pub struct Minute {
    pub sales: Vec<Sale>,
    /// Sales that the fault prevented: the truth, seen by nobody in the story.
    pub lost: Vec<Sale>,
    pub requests: Vec<Request>,
    pub queue_depth: u64,
    pub queue_oldest_age_s: u64,
}

/// A sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    pub time_ms: u64,
    pub amount_minor: i64,
    pub items: u32,
    pub lane: u32,
    pub card: bool,
}

/// A request to a service of the store.
#[derive(Clone, Debug)]
pub struct Request {
    pub time_ms: u64,
    pub route: &'static str,
    pub seconds: f64,
}

impl Chain {
    /// The chain of `seed`: five weeks of history before Monday 2026-11-23 11:25, the fault at 11:30 for 45 minutes.
    ///
    /// # Panics
    /// When the machine has no time zone data for Europe/Berlin.
    pub fn new(seed: u64) -> Self {
        let zone = TimeZone::get("Europe/Berlin").expect("time zone data is installed (package tzdata)");
        let minute = |hour: i8, minute: i8| {
            let civil = jiff::civil::date(2026, 11, 23).at(hour, minute, 0, 0);
            millis(civil.to_zoned(zone.clone()).expect("a plain Monday").timestamp())
        };
        let history_start = jiff::civil::date(2026, 10, 19).at(0, 0, 0, 0);
        let history_start_ms = millis(
            history_start
                .to_zoned(zone.clone())
                .expect("a plain Monday")
                .timestamp(),
        );
        let mut rng = Rng::with_seed(seed ^ 0x7111_4a7c);
        let stores = stores(&mut rng);
        let fault = Fault {
            region: "north",
            cause: "mainframe-link",
            start_ms: minute(11, 30),
            end_ms: minute(12, 15),
        };
        let harmless = (0..HARMLESS)
            .map(|number| harmless(&mut rng, number, &stores, minute(11, 26)))
            .collect();
        Self {
            seed,
            stores,
            history_start_ms,
            live_start_ms: minute(11, 25),
            live_end_ms: minute(12, 20),
            fault: Some(fault),
            harmless,
            zone,
        }
    }

    /// The same customers on the same day without the fault.
    pub fn without_fault(&self) -> Self {
        Self {
            fault: None,
            ..self.clone()
        }
    }

    /// What happens at a store in the minute that begins at `start_ms`.
    pub fn minute(&self, store: &Store, start_ms: u64) -> Minute {
        let local = timestamp(start_ms).to_zoned(self.zone.clone());
        let hour = f64::from(local.hour()) + f64::from(local.minute()) / 60.0;
        let day = start_ms / (24 * HOUR_MS);
        let mut rng = self.rng(store.index, start_ms / MINUTE_MS);
        let rate = store.sales_per_minute * open_shape(hour) * week_shape(local.weekday()) * self.day_level(store, day);
        let all = self.sales(store, rate, start_ms, &mut rng);
        let mut minute = Minute::default();
        let hit = self.fault_minutes(store, start_ms);
        for sale in all {
            let leaves = rng.f64() < LOST_SHARE;
            if hit.is_some() && leaves {
                minute.lost.push(sale)
            } else {
                minute.sales.push(sale)
            }
        }
        minute.requests = self.requests(store, &minute.sales, start_ms, &mut rng);
        let level = if rate > 0.0 { 2.0 + 2.0 * rate } else { 0.0 };
        let backlog = hit.map_or(0.0, |minutes| FAULT_QUEUE_GROWTH * (minutes + 1.0));
        let bump = if self.disturbed(store, start_ms, Disturbance::FullQueue) {
            40.0
        } else {
            0.0
        };
        minute.queue_depth = poisson(&mut rng, level) + round(backlog + bump);
        minute.queue_oldest_age_s = round(2.0 + backlog * 6.0 + bump * 1.5) + rng.u64(0..4);
        minute
    }

    /// What the fault costs, summed over its stores and minutes: the truth.
    pub fn lost_minor(&self) -> i64 {
        let Some(fault) = &self.fault else { return 0 };
        let minutes = (fault.start_ms..fault.end_ms).step_by(60_000);
        self.hit_stores()
            .flat_map(|store| minutes.clone().map(move |start_ms| self.minute(store, start_ms)))
            .flat_map(|minute| minute.lost)
            .map(|sale| sale.amount_minor)
            .sum()
    }

    /// The stores that the fault hits.
    pub fn hit_stores(&self) -> impl Iterator<Item = &Store> {
        let region = self.fault.as_ref().map(|fault| fault.region);
        self.stores.iter().filter(move |store| Some(store.region) == region)
    }

    /// The center's model of this chain.
    pub fn model_toml(&self) -> String {
        let mut text = String::new();
        for (id, name, _) in REGIONS {
            text += &format!("[[region]]\nid = \"{id}\"\nname = \"{name}\"\n\n");
        }
        for store in &self.stores {
            text += &format!(
                "[[site]]\nid = \"{}\"\nregion = \"{}\"\ntime_zone = \"Europe/Berlin\"\ncurrency = \"EUR\"\n\n",
                store.id, store.region
            );
        }
        text + SERVICES
    }

    fn sales(&self, store: &Store, rate: f64, start_ms: u64, rng: &mut Rng) -> Vec<Sale> {
        let count = poisson(rng, rate);
        let mut sales: Vec<Sale> = (0..count)
            .map(|_| {
                let basket = libm::exp(store.basket_log_mean + 0.7 * normal(rng));
                Sale {
                    time_ms: start_ms + rng.u64(0..MINUTE_MS),
                    amount_minor: i64::try_from(round(basket * 100.0).max(19)).unwrap_or(i64::MAX),
                    items: 1 + u32::try_from(poisson(rng, basket / 4.0)).unwrap_or(0),
                    lane: rng.u32(1..5),
                    card: rng.f64() < 0.7,
                }
            })
            .collect();
        sales.sort_by_key(|sale| sale.time_ms);
        sales
    }

    fn requests(&self, store: &Store, sales: &[Sale], start_ms: u64, rng: &mut Rng) -> Vec<Request> {
        let hit = self.fault_minutes(store, start_ms).is_some();
        let slow = |what| {
            if self.disturbed(store, start_ms, what) {
                4.0
            } else {
                1.0
            }
        };
        let loyalty_s = store.loyalty_s * if hit { FAULT_SLOWDOWN } else { 1.0 } * slow(Disturbance::SlowLoyalty);
        let waiting_s = if hit { loyalty_s * LOYALTY_SHARE * 0.5 } else { 0.0 };
        let checkout_s = (store.checkout_s + waiting_s) * slow(Disturbance::SlowCheckout);
        let mut requests = Vec::new();
        for sale in sales {
            let mut request = |route, seconds: f64, rng: &mut Rng| {
                let seconds = (seconds * libm::exp(0.35 * normal(rng))).min(59.0);
                requests.push(Request {
                    time_ms: sale.time_ms,
                    route,
                    seconds,
                });
            };
            request("/checkout", checkout_s, rng);
            if rng.f64() < LOYALTY_SHARE {
                request("/loyalty", loyalty_s, rng);
            }
        }
        requests
    }

    /// Minutes since the fault began at this store, while it lasts.
    fn fault_minutes(&self, store: &Store, now_ms: u64) -> Option<f64> {
        let fault = self.fault.as_ref()?;
        let within = fault.region == store.region && (fault.start_ms..fault.end_ms).contains(&now_ms);
        within.then(|| ((now_ms - fault.start_ms) / MINUTE_MS) as f64)
    }

    fn disturbed(&self, store: &Store, now_ms: u64, what: Disturbance) -> bool {
        self.harmless.iter().any(|harmless| {
            harmless.what == what
                && harmless.store as u64 == store.index
                && (harmless.start_ms..harmless.end_ms).contains(&now_ms)
        })
    }

    /// Good and bad days: of all, of a region, of a store.
    fn day_level(&self, store: &Store, day: u64) -> f64 {
        let region = store
            .region
            .bytes()
            .fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let draw = |key: u64, spread: f64| spread * normal(&mut self.rng(key, day ^ 0xda7));
        libm::exp(draw(1 << 40, 0.05) + draw(region, 0.02) + draw((1 << 41) + store.index, 0.04))
    }

    fn rng(&self, what: u64, when: u64) -> Rng {
        let mut rng = Rng::with_seed(
            self.seed ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ when.wrapping_mul(0xd1b5_4a32_d192_ed03),
        );
        let mixed = rng.u64(..);
        Rng::with_seed(mixed)
    }
}

/// The services of the story: checkout needs loyalty, loyalty needs the region's link to the mainframe.
const SERVICES: &str = r#"[[service]]
id = "checkout"
name = "Checkout"
scope = "site"
depends_on = ["loyalty"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/checkout" } }]

[[service]]
id = "loyalty"
name = "Loyalty points"
scope = "site"
depends_on = ["mainframe-link"]
metrics = [{ name = "http.server.request.duration", labels = { "http.route" = "/loyalty" } }]

[[service]]
id = "mainframe-link"
name = "Queue to the mainframe"
scope = "region"
depends_on = ["mainframe"]
metrics = [
  { name = "queue.depth", labels = { "messaging.destination.name" = "mainframe" } },
  { name = "queue.oldest_age", labels = { "messaging.destination.name" = "mainframe" } },
]

[[service]]
id = "mainframe"
name = "Mainframe"
scope = "chain"
"#;

fn stores(rng: &mut Rng) -> Vec<Store> {
    let ids = REGIONS
        .iter()
        .flat_map(|(region, _, count)| (1..=*count).map(move |number| (*region, number)));
    ids.enumerate()
        .map(|(index, (region, number))| Store {
            id: format!("{region}-{number:02}"),
            region,
            index: index as u64,
            sales_per_minute: 2.6 * libm::exp(0.3 * normal(rng)),
            basket_log_mean: libm::log(24.0) + 0.15 * normal(rng),
            checkout_s: 0.5 * libm::exp(0.2 * normal(rng)),
            loyalty_s: 0.3 * libm::exp(0.2 * normal(rng)),
        })
        .collect()
}

fn harmless(rng: &mut Rng, number: usize, stores: &[Store], from_ms: u64) -> Harmless {
    let elsewhere: Vec<usize> = (0..stores.len())
        .filter(|index| stores[*index].region != REGIONS[0].0)
        .collect();
    let start_ms = from_ms + rng.u64(0..40) * MINUTE_MS;
    Harmless {
        store: elsewhere[number % elsewhere.len()],
        what: [
            Disturbance::SlowCheckout,
            Disturbance::SlowLoyalty,
            Disturbance::FullQueue,
        ][number % 3],
        start_ms,
        end_ms: start_ms + rng.u64(6..14) * MINUTE_MS,
    }
}

/// Customers through the day: closed at night, a hill at noon, a higher one after work.
fn open_shape(hour: f64) -> f64 {
    if !(8.0..21.0).contains(&hour) {
        return 0.0;
    }
    let hill = |at: f64, width: f64| libm::exp(-((hour - at) / width) * ((hour - at) / width));
    0.45 + 0.55 * hill(12.0, 2.0) + 0.8 * hill(17.5, 2.2)
}

fn week_shape(day: Weekday) -> f64 {
    match day {
        Weekday::Friday => 1.2,
        Weekday::Saturday => 1.35,
        Weekday::Sunday => 0.55,
        _ => 1.0,
    }
}

fn poisson(rng: &mut Rng, mean: f64) -> u64 {
    let limit = libm::exp(-mean);
    let mut product = rng.f64();
    let mut count = 0;
    while product > limit {
        product *= rng.f64();
        count += 1;
    }
    count
}

fn normal(rng: &mut Rng) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.f64()));
    radius * libm::cos(core::f64::consts::TAU * rng.f64())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers of a simulation"
)]
fn round(value: f64) -> u64 {
    libm::round(value.max(0.0)) as u64
}

/// As a time of the calendar.
///
/// # Panics
/// When the time is beyond the calendar.
pub fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).expect("a time of this century")
}

fn millis(timestamp: Timestamp) -> u64 {
    u64::try_from(timestamp.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_takes_customers_of_its_region_and_of_no_other() {
        let chain = Chain::new(1);
        let calm = chain.without_fault();
        let fault = chain.fault.clone().unwrap();
        let sold = |chain: &Chain, region: &str| -> usize {
            let stores = chain.stores.iter().filter(|store| store.region == region);
            stores
                .map(|store| chain.minute(store, fault.start_ms + 10 * MINUTE_MS).sales.len())
                .sum()
        };
        assert!(sold(&chain, "north") < sold(&calm, "north"));
        assert_eq!(sold(&chain, "south"), sold(&calm, "south"));
    }

    #[test]
    fn the_fault_costs_tens_of_thousands() {
        let lost = Chain::new(1).lost_minor();
        assert!((1_000_000..9_900_000).contains(&lost), "{lost}");
        assert_eq!(Chain::new(1).without_fault().lost_minor(), 0);
    }

    #[test]
    fn a_minute_can_be_asked_twice() {
        let chain = Chain::new(7);
        let minute = |chain: &Chain| format!("{:?}", chain.minute(&chain.stores[3], chain.live_start_ms));
        assert_eq!(minute(&chain), minute(&chain));
    }

    #[test]
    fn at_least_two_dozen_harmless_anomalies_happen_elsewhere() {
        let chain = Chain::new(2);
        assert!(chain.harmless.len() >= 24);
        assert!(
            chain
                .harmless
                .iter()
                .all(|harmless| chain.stores[harmless.store].region != "north")
        );
        assert!(
            chain
                .harmless
                .iter()
                .all(|harmless| harmless.end_ms <= chain.live_end_ms)
        );
    }
}
