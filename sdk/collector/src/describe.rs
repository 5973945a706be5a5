//! What a plugin says of itself: made from `plugin.toml` by [`plugin!`](crate::plugin).

/// How values of a metric relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A metric that a plugin may report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Dotted lower case, as in OpenTelemetry where a name exists there.
    pub name: String,
    /// UCUM, as in OpenTelemetry: `s`, `By`, `{transaction}`, `1`.
    pub unit: String,
    /// How values relate to each other.
    pub kind: Kind,
    /// One sentence for people.
    pub help: String,
    /// The labels that each sample carries, in this order.
    pub label_keys: Vec<String>,
    /// What the centre builds its model on: `latency`, `queue`, `sales.count`, `sales.amount`, ...; may be empty.
    pub role: String,
    /// Values are kept as whole multiples of 10^-decimals of the unit, 0 to 9.
    pub decimals: u8,
    /// ISO 4217 when the metric is money; money is reported by `push_integer`.
    pub currency: Option<String>,
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The plugin's name, `[a-z0-9-]`.
    pub name: String,
    /// The plugin's version, as semver.
    pub version: String,
    /// All that it may report; a [`MetricId`](crate::MetricId) is an index into it.
    pub metrics: Vec<Metric>,
    /// The host calls `collect` no more often than this, in milliseconds.
    pub min_interval_ms: u32,
    /// Room for later.
    pub attrs: Vec<(String, String)>,
}
