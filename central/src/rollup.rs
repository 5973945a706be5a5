//! Quarter-hour sums of what was sold: small enough to keep for years, and all that expected sales are learned from.
//!
//! In: observations, once each, in any order. Out: additions for the archive, which adds them to what it has.
//! It never sees anything but roles that start with `sales.`, and never divides: an interval counts where it starts.

use crate::decode::{Observation, SeriesInfo};
use std::collections::BTreeMap;
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
    sums: BTreeMap<(SiteId, Arc<SeriesInfo>, u64), Rollup>,
}

impl Rollups {
    pub fn add(&mut self, observation: &Observation) {
        let Observation { site, series, start_ms, length_ms, summary, .. } = observation;
        if !series.role.starts_with(ROLE_PREFIX) {
            return;
        }
        let slot_ms = start_ms - start_ms % SLOT_MS;
        let fresh = || {
            let (site, series) = (site.clone(), Arc::clone(series));
            Rollup { site, series, slot_ms, covered_ms: 0, count: 0, sum: 0 }
        };
        let entry = self.sums.entry((site.clone(), Arc::clone(series), slot_ms)).or_insert_with(fresh);
        entry.covered_ms = entry.covered_ms.saturating_add(u64::from(*length_ms));
        entry.count = entry.count.saturating_add(summary.count);
        entry.sum = entry.sum.saturating_add(summary.sum);
    }

    /// What was added since the last time, ordered by site, series and slot.
    pub fn take(&mut self) -> Vec<Rollup> {
        std::mem::take(&mut self.sums).into_values().collect()
    }
}
