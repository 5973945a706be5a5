//! Quarter-hour sums of what was sold: small enough to keep for years, and all that expected sales are learned from.
//!
//! In: observations, once each, in any order. Out: additions for the archive, which adds them to what it has.
//! It never sees anything but roles that start with `sales.`, and never divides: an interval counts where it starts.

use crate::decode::{Observation, SeriesInfo};
use std::collections::HashMap;
use std::sync::Arc;
use tillwatch_feed::topic::SiteId;

/// Length of a slot; 672 make a week.
pub const SLOT_MS: u64 = 15 * 60 * 1_000;
/// Roles that are rolled up.
pub const ROLE_PREFIX: &str = "sales.";

/// One series of one site in one quarter of an hour.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollup {
    pub site: SiteId,
    pub series: Arc<SeriesInfo>,
    /// UTC, a multiple of [`SLOT_MS`].
    pub slot_ms: u64,
    /// How much of the slot was reported; a slot that nobody reported has no row at all.
    pub covered_ms: u64,
    pub count: u64,
    /// In the metric's whole numbers.
    pub sum: i64,
}

/// Additions that no transaction holds yet.
#[derive(Debug, Default)]
pub struct Rollups {
    sums: HashMap<(SiteId, Arc<SeriesInfo>, u64), Rollup>,
}

impl Rollups {
    pub fn add(&mut self, observation: &Observation) {
        let Observation {
            site,
            series,
            start_ms,
            length_ms,
            summary,
            ..
        } = observation;
        if !series.role.starts_with(ROLE_PREFIX) {
            return;
        }
        let slot_ms = start_ms - start_ms % SLOT_MS;
        let fresh = || {
            let (site, series) = (site.clone(), Arc::clone(series));
            Rollup {
                site,
                series,
                slot_ms,
                covered_ms: 0,
                count: 0,
                sum: 0,
            }
        };
        let entry = self
            .sums
            .entry((site.clone(), Arc::clone(series), slot_ms))
            .or_insert_with(fresh);
        entry.covered_ms = entry.covered_ms.saturating_add(u64::from(*length_ms));
        entry.count = entry.count.saturating_add(summary.count);
        entry.sum = entry.sum.saturating_add(summary.sum);
    }

    /// What was added since the last time, in no order.
    pub fn take(&mut self) -> Vec<Rollup> {
        std::mem::take(&mut self.sums).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_feed::message::Kind;
    use tillwatch_feed::summary::Summary;

    fn observation(role: &str, start_ms: u64, sum: i64) -> Observation {
        let series = SeriesInfo {
            metric: "sales.amount".into(),
            unit: "1".into(),
            kind: Kind::Sum,
            role: role.into(),
            decimals: 2,
            currency: Some("EUR".into()),
            plugin: "sales".into(),
            labels: Vec::new(),
        };
        let summary = Summary {
            count: 2,
            sum,
            min: 0,
            max: sum,
            histogram: None,
        };
        let site = "store-1".parse().unwrap();
        Observation {
            site,
            series: Arc::new(series),
            start_ms,
            length_ms: 60_000,
            summary,
            score: None,
        }
    }

    #[test]
    fn intervals_add_up_in_the_quarter_hour_in_which_they_start() {
        let mut rollups = Rollups::default();
        for (start_ms, sum) in [(SLOT_MS, 500), (2 * SLOT_MS - 60_000, 20), (2 * SLOT_MS, 1)] {
            rollups.add(&observation("sales.amount", start_ms, sum));
        }
        let mut taken: Vec<_> = rollups
            .take()
            .iter()
            .map(|r| (r.slot_ms, r.covered_ms, r.count, r.sum))
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, [(SLOT_MS, 120_000, 4, 520), (2 * SLOT_MS, 60_000, 2, 1)]);
        assert!(rollups.take().is_empty());
    }

    #[test]
    fn only_sales_are_rolled_up() {
        let mut rollups = Rollups::default();
        rollups.add(&observation("latency", 0, 1));
        assert!(rollups.take().is_empty());
    }
}
