//! From the wire's blocks to what central reckons with.
//!
//! In: a block, the birth that names its series, and which records of it are fresh.
//! Out: one [`Observation`] per row of a fresh record.
//! It never touches the archive, never asks for a birth (it says which one it lacks) and never rescales a number.

use std::sync::Arc;
use tillwatch_feed::message::Kind;
use tillwatch_feed::score::Score;
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::SiteId;

/// What a birth says about one series; shared by all observations of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesInfo {
    pub metric: String,
    /// UCUM.
    pub unit: String,
    pub kind: Kind,
    /// What the metric is for: `latency`, `queue`, `sales.count`, `sales.amount`, ... an open list.
    pub role: String,
    /// Whole numbers of the metric are multiples of 10^-decimals of its unit.
    pub decimals: u8,
    /// ISO 4217, when the metric is money.
    pub currency: Option<String>,
    /// Name of the plugin that declared the metric.
    pub plugin: String,
    /// In the order in which the metric declares its keys.
    pub labels: Vec<(String, String)>,
}

/// One series of one site in one interval. Observations of the same interval add up.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub site: SiteId,
    pub series: Arc<SeriesInfo>,
    /// UTC milliseconds at the site's clock.
    pub start_ms: u64,
    pub length_ms: u32,
    pub summary: Summary,
    pub score: Option<Score>,
}
