//! What central said, set beside what was true.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use tillwatch_tests::story::Chain;

/// The largest relative error of the cost with which the story still counts as told.
pub const COST_ERROR_MAX: f64 = 0.25;

/// The one object that `--json` prints.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub passed: bool,
    pub seed: u64,
    pub stores: Stores,
    pub truth: Truth,
    pub story: Story,
    pub incidents: Vec<Told>,
    /// The same seed without the fault.
    pub without_fault: Calm,
}

/// Which stores are what.
#[derive(Debug, Serialize)]
pub struct Stores {
    /// Real agents with real plugins on real files.
    pub real_agents: Vec<String>,
    /// The store's mind in one process, over the same wire.
    pub simulated: usize,
}

/// What happened.
#[derive(Debug, Serialize)]
pub struct Truth {
    pub cause: String,
    pub region: String,
    pub sites: usize,
    pub cost_minor: i64,
    pub currency: &'static str,
    pub start_ms: u64,
    pub end_ms: u64,
    pub harmless_anomalies: usize,
}

/// Whether the incident in the first place is the story's.
#[derive(Debug, Default, Serialize)]
pub struct Story {
    pub cause_is_right: bool,
    pub region_is_right: bool,
    pub lower_is_above_zero: bool,
    pub cost_error: Option<f64>,
    pub interval_held_the_truth: bool,
}

/// An incident as central tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    pub rank: u64,
    pub cause: String,
    pub region: Option<String>,
    pub site: Option<String>,
    pub sites: usize,
    pub price_state: String,
    pub cost_minor: Option<i64>,
    pub lower_minor: Option<i64>,
    pub upper_minor: Option<i64>,
    pub currency: Option<String>,
}

/// What central said of the day without the fault.
#[derive(Debug, Default, Serialize)]
pub struct Calm {
    pub incidents: usize,
    pub costed_incidents: usize,
}

impl Truth {
    /// Of a chain with a fault.
    ///
    /// # Errors
    /// When the chain has none.
    pub fn of(chain: &Chain) -> Result<Self> {
        let fault = chain.fault.as_ref().context("the chain has no fault")?;
        Ok(Self {
            cause: fault.cause.to_owned(),
            region: fault.region.to_owned(),
            sites: chain.hit_stores().count(),
            cost_minor: chain.lost_minor(),
            currency: "EUR",
            start_ms: fault.start_ms,
            end_ms: fault.end_ms,
            harmless_anomalies: chain.harmless.len(),
        })
    }
}

impl Story {
    /// Sets the incident in the first place beside the truth.
    pub fn of(truth: &Truth, incidents: &[Told]) -> Self {
        let Some(first) = incidents.first() else { return Self::default() };
        Self {
            cause_is_right: first.cause == truth.cause,
            region_is_right: first.region.as_deref() == Some(&truth.region),
            lower_is_above_zero: first.lower_minor.is_some_and(|lower| lower > 0),
            cost_error: first.cost_minor.map(|cost| (cost - truth.cost_minor).abs() as f64 / truth.cost_minor as f64),
            interval_held_the_truth: first.lower_minor.zip(first.upper_minor).is_some_and(|(lower, upper)| (lower..=upper).contains(&truth.cost_minor)),
        }
    }

    /// Told: the right incident first, with a price near the truth.
    pub fn is_told(&self) -> bool {
        let priced = self.cost_error.is_some_and(|error| error <= COST_ERROR_MAX);
        self.cause_is_right && self.region_is_right && self.lower_is_above_zero && priced
    }
}

/// The incidents of central's answer, ranked.
///
/// # Errors
/// When the answer is not as described.
pub fn told(answer: &Value) -> Result<Vec<Told>> {
    let incidents = answer["incidents"].as_array().context("no incidents in the answer")?;
    incidents.iter().map(|incident| one(incident).context("an incident is not as described")).collect()
}

/// Counts what a day without the fault must not have.
pub fn calm(incidents: &[Told]) -> Calm {
    let costed = incidents.iter().filter(|incident| incident.cost_minor.is_some()).count();
    Calm { incidents: incidents.len(), costed_incidents: costed }
}

fn one(incident: &Value) -> Option<Told> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (cause, cost) = (&incident["cause"], &incident["cost"]);
    Some(Told {
        rank: incident["rank"].as_u64()?,
        cause: text(&cause["service"]).unwrap_or_else(|| "sales".to_owned()),
        region: text(&cause["region"]),
        site: text(&cause["site"]),
        sites: incident["sites"].as_array()?.len(),
        price_state: text(&incident["price_state"])?,
        cost_minor: cost["estimate_minor"].as_i64(),
        lower_minor: cost["lower_minor"].as_i64(),
        upper_minor: cost["upper_minor"].as_i64(),
        currency: text(&cost["currency"]),
    })
}
