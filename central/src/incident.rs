//! What people are told: an incident, its cause with evidence for and against, its price or why it has none, its rank.
//!
//! In: groups of anomalies with their cost, minute by minute. Out: incidents with stable ids, ranked by price.
//! It never reckons a cost or a likelihood itself, and never asks for the time.

pub mod book;

use serde::{Deserialize, Serialize};

/// Share of cases in which the interval of a cost is meant to hold the truth.
pub const CONFIDENCE: f64 = 0.9;

/// How far a cause reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    Site,
    Region,
    Chain,
}

/// What is thought to have gone wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cause {
    /// Id of a service of the model, or the name of a metric that the model does not place; `None` when only sales moved.
    pub service: Option<String>,
    /// The service's name for people.
    pub name: Option<String>,
    pub scope: Reach,
    /// Set when `scope` is `region` or `site`.
    pub region: Option<String>,
    /// Set when `scope` is `site`.
    pub site: Option<String>,
}

/// A cause with its log-likelihood against "no common cause", and what speaks for and against it, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    pub cause: Cause,
    pub log_likelihood: f64,
    pub evidence_for: Vec<String>,
    pub evidence_against: Vec<String>,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Open,
    Closed,
}

/// What is known of the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceState {
    /// The affected sites have too little history; no price is given.
    Learning,
    /// The affected sites are silent; their sales are unknown, not zero.
    Dark,
    /// The affected sites report no sales, such as a depot.
    NoSales,
    /// Technical only: the loss cannot be told from noise, so no figure is shown.
    NotDistinguishable,
    /// A loss with an interval whose lower bound is above zero.
    Costed,
    /// The same, but hardly any site was unaffected: expected sales come from the past alone and the interval is wider.
    CostedWithoutUnaffectedSites,
    /// Sales fell without a technical cause.
    BusinessOnly,
}

impl PriceState {
    /// True when the incident carries a [`Cost`].
    pub fn is_costed(self) -> bool {
        matches!(
            self,
            Self::Costed | Self::CostedWithoutUnaffectedSites | Self::BusinessOnly
        )
    }
}

/// Lost sales, tax as in the reported amounts, in minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub estimate_minor: i64,
    pub lower_minor: i64,
    pub upper_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// [`CONFIDENCE`].
    pub confidence: f64,
}

/// One incident, complete in itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Stable from the first report on, also when the cause is seen differently later.
    pub id: String,
    /// 1 is what to look at first.
    pub rank: u32,
    pub status: Status,
    pub price_state: PriceState,
    pub cause: Cause,
    pub log_likelihood: f64,
    pub evidence_for: Vec<String>,
    pub evidence_against: Vec<String>,
    /// Other causes, best first.
    pub alternatives: Vec<Alternative>,
    /// Affected sites, sorted; all sites within the cause's scope once most of them show it.
    pub sites: Vec<String>,
    /// Services with anomalies, the cause first.
    pub services: Vec<String>,
    pub start_ms: u64,
    /// Set when closed: the end of the last anomaly.
    pub end_ms: Option<u64>,
    /// Event time up to which this is reckoned.
    pub updated_ms: u64,
    /// Present exactly when [`PriceState::is_costed`].
    pub cost: Option<Cost>,
    /// Expected minus actual transactions; present with `cost`.
    pub lost_transactions: Option<i64>,
    /// How many unaffected sites the expected sales were set against.
    pub unaffected_sites_used: u32,
    /// Affected sites that are silent: exposure unknown.
    pub dark_sites: u32,
    /// In words, for people.
    pub notes: Vec<String>,
}
