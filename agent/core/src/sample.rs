//! What a collector reports: a descriptor once, then batches of columnar series.
//!
//! These types are owned and serializable, so that a plugin host can live behind a pipe.
//! They are as reported, not yet checked: the registry decides what is accepted.

use serde::{Deserialize, Serialize};

/// How values of a metric relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A reading of a level, such as a queue's depth.
    Gauge,
    /// A reading of a running total that only grows until it is reset.
    Counter,
    /// Increments: each value is what was added, such as one sale.
    Sum,
    /// Single observations whose spread matters, such as a response time.
    Distribution,
}

/// A metric as a collector declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    pub name: String,
    /// UCUM, as in OpenTelemetry.
    pub unit: String,
    pub kind: Kind,
    pub help: String,
    pub label_keys: Vec<String>,
    /// What the center builds its model on; may be empty.
    pub role: String,
    /// Values are kept as whole multiples of 10^-decimals of the unit, 0 to 9.
    pub decimals: u8,
    /// ISO 4217 when the metric is money.
    pub currency: Option<String>,
}

/// What a collector says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    pub name: String,
    pub version: String,
    pub metrics: Vec<Metric>,
    pub min_interval_ms: u32,
    pub attrs: Vec<(String, String)>,
}

/// Values of one series, in event order or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Values {
    /// In the metric's unit; not allowed for money.
    Reals(Vec<f64>),
    /// Whole multiples of 10^-decimals of the metric's unit.
    Integers(Vec<i64>),
}

/// One series of a batch: as many times as values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Index into the descriptor's metrics.
    pub metric: u16,
    /// In the order of the metric's label keys.
    pub labels: Vec<String>,
    pub values: Values,
    /// UTC milliseconds of the events themselves.
    pub times_ms: Vec<u64>,
}

/// What one call of `collect` returned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    pub series: Vec<Series>,
    /// There is more to read at once.
    pub more: bool,
    /// Some of what is granted could not be read, so what is not in here may have been there all the same.
    /// The host knows this, never the plugin.
    pub is_partial: bool,
}
