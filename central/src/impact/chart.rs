//! One picture of an incident: sales against what was expected, and how slow the services were.

use serde::{Deserialize, Serialize};

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
