//! What happens to a simulated chain: the text of a `scenario.toml`, checked.
//!
//! ```toml
//! about = "a region's queue to the mainframe is slow and three customers in ten leave"
//! from = "10:30"
//! minutes = 130
//! mechanism = "statistical"
//!
//! [chain]
//! regions = [30, 6, 6, 6, 6, 6]
//!
//! [[event]]
//! regions = [0]
//! from = "11:30"
//! minutes = 45
//! slow = ["loyalty", "mainframe-link"]
//! loss = 0.3
//! ```

use super::signals;
use jiff::tz::TimeZone;
use serde::Deserialize;

/// Most stores of one scenario.
pub const STORES_MAX: usize = 3_000;

/// Why a scenario cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    #[error("event {event}: unknown service {service:?}\n  hint: checkout, loyalty, mainframe-link, payment, printer")]
    Service { event: usize, service: String },
    #[error("{stores} stores; a scenario has 1 to {STORES_MAX}")]
    Stores { stores: usize },
    #[error("event {event}: loss {loss} is no share between 0 and 1")]
    Loss { event: usize, loss: f64 },
    #[error("unknown time zone {0:?}")]
    Zone(String),
}

/// A day of a chain.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// In a sentence.
    pub about: String,
    /// When the minutes begin, `HH:MM` UTC of the day after the history.
    #[serde(rename = "from", deserialize_with = "minute_of_day")]
    pub from_minute: u32,
    pub minutes: u32,
    #[serde(default)]
    pub mechanism: Mechanism,
    /// Today: 0 is the weekday on which the history began.
    #[serde(default)]
    pub weekday: u32,
    /// How many times as far from usual today's levels are as other days'.
    #[serde(default = "one")]
    pub oddness: f64,
    pub chain: ChainShape,
    #[serde(default, rename = "event")]
    pub events: Vec<Event>,
    /// What must be told of it; for whoever judges, unused here.
    #[serde(default)]
    pub must: Must,
}

/// What makes the sales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A share of customers leaves.
    #[default]
    Statistical,
    /// Tills are slower, queues grow, and who waits too long leaves.
    Queuing,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainShape {
    /// Stores of each region.
    pub regions: Vec<usize>,
    /// Customers of a store in a usual open minute.
    #[serde(default = "per_minute")]
    pub per_minute: f64,
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Days after Monday, 19 January 2026, on which the history begins.
    #[serde(default)]
    pub first_day: u32,
    /// Stores, by their place, that sell nothing.
    #[serde(default)]
    pub depots: Vec<usize>,
    /// Stores, by their place, whose clocks are wrong by so many minutes.
    #[serde(default)]
    pub skewed: Vec<(usize, i64)>,
}

/// Something that happens to some stores for some time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// By their place; all stores when neither these nor `stores` are named.
    #[serde(default)]
    pub regions: Vec<usize>,
    #[serde(default)]
    pub stores: Vec<usize>,
    #[serde(rename = "from", deserialize_with = "minute_of_day")]
    pub from_minute: u32,
    pub minutes: u32,
    /// On for so many minutes, off for as many.
    #[serde(default)]
    pub flaps: Option<u32>,
    /// Services that are slower.
    #[serde(default)]
    pub slow: Vec<String>,
    /// How many times slower.
    #[serde(default = "factor")]
    pub factor: f64,
    /// Slower by so much more every ten minutes, instead of at once.
    #[serde(default)]
    pub leak: Option<f64>,
    /// Share of the customers who leave.
    #[serde(default)]
    pub loss: f64,
    /// Nothing reaches the center until the end.
    #[serde(default)]
    pub dark: bool,
    /// So many times the usual customers come.
    #[serde(default)]
    pub lift: Option<f64>,
    /// The service that is to blame, when it is another than the last one in `slow`.
    #[serde(default)]
    pub cause: Option<String>,
}

/// What a scenario asks of whoever judges it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Must {
    /// The cause of the costliest event comes first.
    pub cause_first: bool,
    /// No incident has a price.
    pub no_price: bool,
    /// Relative error of the costliest event's price.
    pub cost_error_max: Option<f64>,
    /// Incidents that reach over more than one store.
    pub incidents_max: Option<usize>,
    /// `price_state` of the first incident.
    pub price_state: Option<crate::incident::PriceState>,
    /// Minutes from the event to the first incident with its cause.
    pub detected_within_minutes: Option<u32>,
    /// No incident that has a price names a service.
    pub no_cause: bool,
}

/// By its name, or by its rules in the form of POSIX.
pub(super) fn zone(text: &str) -> Option<TimeZone> {
    TimeZone::get(text).or_else(|_| TimeZone::posix(text)).ok()
}

impl Scenario {
    /// # Errors
    /// The first fault of the text.
    pub fn parse(text: &str) -> Result<Scenario, Fault> {
        let scenario: Scenario = toml::from_str(text)?;
        let stores = scenario.chain.regions.iter().sum();
        if stores == 0 || stores > STORES_MAX {
            return Err(Fault::Stores { stores });
        }
        if zone(&scenario.chain.time_zone).is_none() {
            return Err(Fault::Zone(scenario.chain.time_zone));
        }
        for (event, known) in scenario.events.iter().enumerate() {
            if !(0.0..=1.0).contains(&known.loss) {
                return Err(Fault::Loss {
                    event,
                    loss: known.loss,
                });
            }
            if let Some(service) = known.slow.iter().find(|service| signals::service(service).is_none()) {
                let service = service.clone();
                return Err(Fault::Service { event, service });
            }
        }
        Ok(scenario)
    }

    pub(super) fn is_depot(&self, store: usize) -> bool {
        self.chain.depots.contains(&store)
    }

    /// How far a store's clock is ahead.
    pub(super) fn skew_ms(&self, store: usize) -> i64 {
        let skewed = self.chain.skewed.iter().find(|(at, _)| *at == store);
        skewed.map_or(0, |(_, minutes)| minutes * 60_000)
    }

    /// How many times slower than usual a service is.
    pub(super) fn slowness(&self, service: usize, store: usize, region: usize, minute: u32) -> f64 {
        let id = signals::SERVICES[service].id;
        let here = |event: &&Event| {
            event.is_at(store, region) && event.strikes(minute) && event.slow.iter().any(|slow| slow == id)
        };
        self.events
            .iter()
            .filter(here)
            .map(|event| event.slowness(minute))
            .product()
    }
}

impl Event {
    pub fn is_at(&self, store: usize, region: usize) -> bool {
        let all = self.regions.is_empty() && self.stores.is_empty();
        all || self.regions.contains(&region) || self.stores.contains(&store)
    }

    /// The service that is to blame.
    pub fn blamed(&self) -> Option<&str> {
        self.cause.as_deref().or(self.slow.last().map(String::as_str))
    }

    pub(super) fn lasts(&self, minute: u32) -> bool {
        (self.from_minute..self.from_minute + self.minutes).contains(&minute)
    }

    /// It lasts, and does not pause.
    pub(super) fn strikes(&self, minute: u32) -> bool {
        let on = |length: u32| ((minute - self.from_minute) / length.max(1)).is_multiple_of(2);
        self.lasts(minute) && self.flaps.is_none_or(on)
    }

    fn slowness(&self, minute: u32) -> f64 {
        let since = f64::from(minute.saturating_sub(self.from_minute));
        self.leak.map_or(self.factor, |leak| (1.0 + leak).powf(since / 10.0))
    }
}

fn minute_of_day<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parts = text
        .split_once(':')
        .and_then(|(hour, minute)| Some((hour.parse::<u32>().ok()?, minute.parse::<u32>().ok()?)));
    match parts {
        Some((hour, minute)) if hour < 24 && minute < 60 => Ok(hour * 60 + minute),
        _ => Err(serde::de::Error::custom(format!(
            "{text:?} is no time of day of the form HH:MM"
        ))),
    }
}

fn one() -> f64 {
    1.0
}

fn per_minute() -> f64 {
    1.6
}

fn factor() -> f64 {
    6.0
}

fn utc() -> String {
    "UTC".to_owned()
}
