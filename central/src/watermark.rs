//! Central's time: event time that the sites have reached.
//!
//! In: the end of each interval that a site sent. Out: one time that never goes back.
//! It never asks a clock, so that live operation, a backlog and a replay are the same to it.
//!
//! Sites run ahead, fall silent and have wrong clocks. So central's time is that which a small share of the sites has
//! reached, less the lateness that is waited for: neither one fast clock nor any number of silent sites moves or stops it.
//! What comes later than that still adds to its own interval; it only no longer delays anybody.
//! While fewer than three sites have ever been heard, the foremost is believed; a restart looks at all sites of the
//! archive at once, so that it mends what one fast clock did before there were others.

use std::collections::{BTreeMap, HashMap};
use tillwatch_feed::topic::SiteId;

/// How long an interval is waited for after it ended.
pub const LATENESS_MS: u64 = 30_000;
/// One site in this many may run ahead without being believed.
pub const AHEAD_ONE_IN: usize = 20;
/// Time advances in steps of this, so that a replay takes the same steps.
pub const STEP_MS: u64 = 10_000;

/// How far every site is.
#[derive(Debug)]
pub struct Watermark {
    sites: HashMap<SiteId, u64>,
    /// How many sites are at each time.
    counts: BTreeMap<u64, usize>,
    now_ms: u64,
    /// What ends later is not believed.
    limit_ms: u64,
}

impl Default for Watermark {
    fn default() -> Self {
        Self::up_to(u64::MAX)
    }
}

impl Watermark {
    /// For a replay: what ends after `limit_ms` says nothing.
    pub fn up_to(limit_ms: u64) -> Self {
        let (sites, counts) = Default::default();
        Self {
            sites,
            counts,
            now_ms: 0,
            limit_ms,
        }
    }

    /// The site sent something that ended at `end_ms`; central's new time, if this moved it by a step or more.
    pub fn heard(&mut self, site: &SiteId, end_ms: u64) -> Option<u64> {
        if end_ms > self.limit_ms {
            return None;
        }
        let reached = self.reaches(site, end_ms)?.saturating_sub(LATENESS_MS);
        let step = reached - reached % STEP_MS;
        (step > self.now_ms).then(|| {
            self.now_ms = step;
            step
        })
    }

    /// How far all sites are, told at once and in any order: a single one that is heard first is not believed.
    pub fn set(&mut self, sites: impl IntoIterator<Item = (SiteId, u64)>) {
        let reached = sites
            .into_iter()
            .filter_map(|(site, end_ms)| self.reaches(&site, end_ms))
            .last();
        let reached = reached.unwrap_or(0).saturating_sub(LATENESS_MS);
        self.now_ms = self.now_ms.max(reached - reached % STEP_MS);
    }

    /// Moves one site, without moving central's time; how far the sites are then, if it was news.
    fn reaches(&mut self, site: &SiteId, end_ms: u64) -> Option<u64> {
        match self.sites.get_mut(site) {
            Some(before) if *before >= end_ms => return None,
            Some(before) => {
                let old = std::mem::replace(before, end_ms);
                self.leave(old);
            }
            None => {
                self.sites.insert(site.clone(), end_ms);
            }
        }
        *self.counts.entry(end_ms).or_default() += 1;
        self.reached_ms()
    }

    /// Central's time, UTC milliseconds; 0 when nothing has been heard.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// How far one site is.
    pub fn site_ms(&self, site: &SiteId) -> Option<u64> {
        self.sites.get(site).copied()
    }

    fn leave(&mut self, at_ms: u64) {
        if let Some(count) = self.counts.get_mut(&at_ms) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&at_ms);
            }
        }
    }

    /// The time that all but the foremost sites' share has reached; with three sites or more, one is never enough.
    pub fn reached_ms(&self) -> Option<u64> {
        let sites = self.sites.len();
        let ahead = if sites < 3 { 0 } else { sites.div_ceil(AHEAD_ONE_IN) };
        self.behind(ahead)
    }

    /// The time that half of the sites have reached: nothing is removed that is not old to most of them.
    pub fn most_ms(&self) -> u64 {
        self.behind(self.sites.len() / 2).unwrap_or(0).min(self.now_ms)
    }

    /// The time of the foremost site but so many.
    fn behind(&self, ahead: usize) -> Option<u64> {
        let mut passed = 0;
        self.counts.iter().rev().find_map(|(at_ms, count)| {
            passed += count;
            (passed > ahead).then_some(*at_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_700_000_000_000;

    fn site(number: usize) -> SiteId {
        format!("store-{number}").parse().unwrap()
    }

    #[test]
    fn one_site_alone_sets_the_time_less_lateness() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.heard(&site(1), T), Some(T - LATENESS_MS));
        assert_eq!(watermark.heard(&site(1), T + 1), None);
        assert_eq!(watermark.heard(&site(1), T + 60_000), Some(T + 60_000 - LATENESS_MS));
    }

    #[test]
    fn one_fast_clock_among_three_moves_nothing() {
        let mut watermark = Watermark::default();
        for number in 1..=3 {
            watermark.heard(&site(number), T);
        }
        let before = watermark.now_ms();
        assert_eq!(watermark.heard(&site(2), T + 1_200_000), None);
        assert_eq!(watermark.now_ms(), before);
    }

    #[test]
    fn silent_sites_hold_nobody_back() {
        let mut watermark = Watermark::default();
        for number in 0..60 {
            watermark.heard(&site(number), T);
        }
        for minute in 1..=30 {
            for number in 40..60 {
                watermark.heard(&site(number), T + minute * 60_000);
            }
        }
        assert_eq!(watermark.now_ms(), T + 30 * 60_000 - LATENESS_MS);
    }

    #[test]
    fn sites_that_are_set_at_once_are_judged_together_and_most_of_them_must_agree_on_what_is_old() {
        let mut watermark = Watermark::default();
        watermark.set([(site(1), 2 * T), (site(2), T), (site(3), T), (site(4), T)]);
        assert_eq!(
            (watermark.now_ms(), watermark.most_ms()),
            (T - LATENESS_MS, T - LATENESS_MS)
        );
        let mut two = Watermark::default();
        two.heard(&site(1), 2 * T);
        two.heard(&site(2), T);
        assert_eq!((two.now_ms(), two.most_ms()), (2 * T - LATENESS_MS, T));
        let mut replay = Watermark::up_to(T);
        assert_eq!((replay.heard(&site(1), T + 1), replay.site_ms(&site(1))), (None, None));
        assert_eq!(replay.heard(&site(2), T), Some(T - LATENESS_MS));
    }

    #[test]
    fn a_backlog_does_not_turn_time_back() {
        let mut watermark = Watermark::default();
        watermark.heard(&site(1), T);
        assert_eq!(watermark.heard(&site(1), T - 3_600_000), None);
        assert_eq!(watermark.now_ms(), T - LATENESS_MS);
        assert_eq!(watermark.site_ms(&site(1)), Some(T));
    }
}
