//! What a plugin says of itself: made from `plugin.toml` by [`plugin!`](crate::plugin).

/// How values of a metric relate to each other.
///
/// ```
/// use tillwatch_sdk::Kind;
///
/// // In plugin.toml: kind = "sum"
/// assert_ne!(Kind::Sum, Kind::Counter);
/// ```
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
///
/// ```
/// use tillwatch_sdk::{Kind, Metric};
///
/// // As `plugin!` makes it from a [[metric]] of plugin.toml.
/// let depth = Metric {
///     name: "queue.depth".to_owned(),
///     unit: "{message}".to_owned(),
///     kind: Kind::Gauge,
///     help: "Messages that wait.".to_owned(),
///     label_keys: vec!["messaging.destination.name".to_owned()],
///     role: "queue".to_owned(),
///     decimals: 0,
///     currency: None,
/// };
/// assert!(depth.currency.is_none());
/// ```
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
    /// What the center builds its model on: `latency`, `queue`, `sales.count`, `sales.amount`, ...; may be empty.
    pub role: String,
    /// Values are kept as whole multiples of 10^-decimals of the unit, 0 to 9.
    pub decimals: u8,
    /// ISO 4217 when the metric is money; money is reported by `push_integer`.
    pub currency: Option<String>,
}

/// What a plugin says of itself.
///
/// ```
/// use tillwatch_sdk::Descriptor;
///
/// /// What `Collector::describe` may do: the store pays in another currency.
/// fn in_currency(descriptor: &mut Descriptor, code: &str, decimals: u8) {
///     for metric in descriptor.metrics.iter_mut().filter(|metric| metric.currency.is_some()) {
///         metric.currency = Some(code.to_owned());
///         metric.decimals = decimals;
///     }
/// }
/// ```
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
