//! What central said, set beside what was true.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use tillwatch_tests::story::Chain;

/// The largest relative error of the cost with which the story still counts as told.
pub(crate) const COST_ERROR_MAX: f64 = 0.25;

/// The last object that `--json` prints with `--seeds`, as `coverage`.
#[derive(Serialize)]
pub(crate) struct Coverage {
    pub(crate) seeds: u64,
    /// How often the 90 % interval held what the fault cost.
    pub(crate) interval_held_the_truth: u64,
    /// How often the demo passed.
    pub(crate) story_told: u64,
}

/// The one object that `--json` prints for a seed.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) passed: bool,
    pub(crate) seed: u64,
    pub(crate) stores: Stores,
    pub(crate) truth: Truth,
    pub(crate) story: Story,
    pub(crate) incidents: Vec<Told>,
    /// The same seed without the fault.
    pub(crate) without_fault: Calm,
}

/// Which stores are what.
#[derive(Debug, Serialize)]
pub(crate) struct Stores {
    /// Real agents with real plugins on real files.
    pub(crate) real_agents: Vec<String>,
    /// The store's mind in one process, over the same wire.
    pub(crate) simulated: usize,
}

/// What happened.
#[derive(Debug, Serialize)]
pub(crate) struct Truth {
    pub(crate) cause: String,
    pub(crate) region: String,
    pub(crate) sites: usize,
    pub(crate) cost_minor: i64,
    pub(crate) currency: &'static str,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    pub(crate) harmless_anomalies: usize,
}

/// Whether the incident in the first place is the story's.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Story {
    pub(crate) cause_is_right: bool,
    pub(crate) region_is_right: bool,
    pub(crate) lower_is_above_zero: bool,
    pub(crate) cost_error: Option<f64>,
    pub(crate) interval_held_the_truth: bool,
}

/// An incident as central tells it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) rank: u64,
    pub(crate) cause: String,
    pub(crate) region: Option<String>,
    pub(crate) site: Option<String>,
    pub(crate) sites: usize,
    pub(crate) price_state: String,
    pub(crate) cost_minor: Option<i64>,
    pub(crate) lower_minor: Option<i64>,
    pub(crate) upper_minor: Option<i64>,
    pub(crate) currency: Option<String>,
}

/// What central said of the day without the fault.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Calm {
    /// At the end.
    pub(crate) incidents: usize,
    /// In any minute, also when the price was withdrawn later.
    pub(crate) costed_incidents: usize,
}

impl Truth {
    /// Of a chain with a fault.
    ///
    /// # Errors
    /// When the chain has none.
    pub(crate) fn of(chain: &Chain) -> Result<Self> {
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
    pub(crate) fn of(truth: &Truth, incidents: &[Told]) -> Self {
        let Some(first) = incidents.first() else {
            return Self::default();
        };
        Self {
            cause_is_right: first.cause == truth.cause,
            region_is_right: first.region.as_deref() == Some(&truth.region),
            lower_is_above_zero: first.lower_minor.is_some_and(|lower| lower > 0),
            cost_error: first
                .cost_minor
                .map(|cost| (cost - truth.cost_minor).abs() as f64 / truth.cost_minor as f64),
            interval_held_the_truth: first
                .lower_minor
                .zip(first.upper_minor)
                .is_some_and(|(lower, upper)| (lower..=upper).contains(&truth.cost_minor)),
        }
    }

    /// Told: the right incident first, with a price near the truth.
    pub(crate) fn is_told(&self) -> bool {
        let priced = self.cost_error.is_some_and(|error| error <= COST_ERROR_MAX);
        self.cause_is_right && self.region_is_right && self.lower_is_above_zero && priced
    }
}

/// The incidents of central's answer, ranked.
///
/// # Errors
/// When the answer is not as described.
pub(crate) fn told(answer: &Value) -> Result<Vec<Told>> {
    let incidents = answer["incidents"].as_array().context("no incidents in the answer")?;
    incidents
        .iter()
        .map(|incident| one(incident).context("an incident is not as described"))
        .collect()
}

fn one(incident: &Value) -> Option<Told> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (cause, cost) = (&incident["cause"], &incident["cost"]);
    Some(Told {
        id: text(&incident["id"])?,
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
