//! The open and the recent incidents: which group of anomalies continues which incident, when one ends, what comes first.
//!
//! In: groups of anomalies, minute by minute, and prices. Out: incidents that keep their id while their cause, their sites
//! and their price become clearer, through flapping too.
//! It never scores a cause and never reckons a price.

use super::PriceState;
use crate::correlate::Group;
use crate::correlate::likelihood::Scored;
use crate::cost::Answer;
use crate::expect::columns::Columns;
use crate::topology::{Candidate, Extent, Service, Site, Topology};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const MINUTE_MS: u64 = 60_000;

/// An incident closes when nothing was seen of it for this long, or for twice the median gap of a flapping one.
pub const CLOSE_AFTER_MS: u64 = 10 * MINUTE_MS;
/// However rarely it flaps.
pub const CLOSE_AFTER_MAX_MS: u64 = 30 * MINUTE_MS;
/// What comes back within this keeps its id.
pub const REOPEN_WITHIN_MS: u64 = 30 * MINUTE_MS;
/// Closed incidents stay this long, and late data corrects their price.
pub const CLOSED_KEPT_MS: u64 = 24 * 60 * MINUTE_MS;
/// Most incidents at a time; the oldest closed ones go first.
pub const INCIDENTS_MAX: usize = 500;
/// Past windows with lost sales that are kept out of placebos.
pub const SPOILED_MAX: usize = 1_000;
const GAPS_MAX: usize = 16;
/// What is seen of an incident counts while it is this part of its most.
const PART_SEEN_MIN: f64 = 0.3;
/// Nobody knows how long it will go on: as long again as so far, and at least this.
const REMAINING_MIN_MS: u64 = 30 * MINUTE_MS;

/// An incident as it is kept.
#[derive(Clone, Debug)]
pub struct Tracked {
    pub id: String,
    /// `None`: sales fell without a technical cause.
    pub service: Option<Service>,
    pub extent: Extent,
    pub scored: Option<Scored>,
    pub alternatives: Vec<(Candidate, Scored)>,
    /// All anomalies that ever belonged to it.
    pub nodes: BTreeSet<(Site, Service)>,
    nodes_most: usize,
    /// Affected sites, sorted; they only become more.
    pub sites: Vec<Site>,
    pub start_ms: u64,
    /// End of the last anomaly.
    pub until_ms: u64,
    pub closed_ms: Option<u64>,
    gaps_ms: Vec<u64>,
    pub answer: Option<Answer>,
    /// When that was reckoned; 0 when it was not since the start.
    pub priced_ms: u64,
    /// Raised by whatever changes its picture.
    pub revision: u64,
    /// The sites' sales by quarter, and of how many sites.
    pub columns: Columns,
    pub columns_sites: usize,
    /// The price must be reckoned again.
    pub stale: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Book {
    pub tracked: Vec<Tracked>,
    /// Where and when sales were lost: extent, from, to.
    pub spoiled: VecDeque<(Extent, u64, u64)>,
    /// Ids of incidents that became part of another one; whoever keeps incidents takes them out.
    pub absorbed: BTreeSet<String>,
    /// Closed incidents forgotten early because of [`INCIDENTS_MAX`].
    pub forgotten: u64,
}

impl Tracked {
    fn new(id: String, service: Option<Service>, extent: Extent, start_ms: u64) -> Tracked {
        Tracked {
            id,
            service,
            extent,
            scored: None,
            alternatives: Vec::new(),
            nodes: BTreeSet::new(),
            nodes_most: 0,
            sites: Vec::new(),
            start_ms,
            until_ms: start_ms,
            closed_ms: None,
            gaps_ms: Vec::new(),
            answer: None,
            priced_ms: 0,
            revision: 0,
            columns: Columns::default(),
            columns_sites: 0,
            stale: true,
        }
    }

    pub fn is_open(&self) -> bool {
        self.closed_ms.is_none()
    }

    pub fn is_costed(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.state.is_costed())
    }

    /// True when its loss is this many usual errors, or it is wide and not reckoned yet.
    pub fn may_have_lost(&self, errors: f64) -> bool {
        match &self.answer {
            None => matches!(self.extent, Extent::Region(_)),
            Some(answer) => answer.estimate.is_some_and(|estimate| estimate.distinctness >= errors),
        }
    }

    fn currency(&self) -> Option<&str> {
        Some(self.answer.as_ref()?.cost.as_ref()?.currency.as_str())
    }

    pub fn lower_minor(&self) -> i64 {
        self.answer
            .as_ref()
            .and_then(|answer| answer.cost.as_ref())
            .map_or(0, |cost| cost.lower_minor)
    }

    /// Cost rate times the time that it is likely to go on; 0 when closed.
    #[expect(clippy::cast_precision_loss, reason = "an order, not a price")]
    fn looming_minor(&self, now_ms: u64) -> f64 {
        let cost = self.answer.as_ref().and_then(|answer| answer.cost.as_ref());
        let (Some(cost), true) = (cost, self.is_open()) else {
            return 0.0;
        };
        let age_ms = now_ms.saturating_sub(self.start_ms).max(MINUTE_MS);
        cost.estimate_minor as f64 / age_ms as f64 * age_ms.max(REMAINING_MIN_MS) as f64
    }

    /// In a replay incidents are known that the group cannot belong to yet.
    fn has_begun(&self, group: &Group) -> bool {
        self.start_ms <= group.until_ms
    }

    fn close_after_ms(&self) -> u64 {
        let mut gaps = self.gaps_ms.clone();
        gaps.sort_unstable();
        let median = gaps.get(gaps.len() / 2).copied().unwrap_or(0);
        (2 * median).clamp(CLOSE_AFTER_MS, CLOSE_AFTER_MAX_MS)
    }

    /// Takes in what was seen of it now.
    fn take(&mut self, group: &Group, topology: &Topology) {
        if group.start_ms > self.until_ms + MINUTE_MS && !self.nodes.is_empty() {
            self.gaps_ms.push(group.start_ms - self.until_ms);
            self.gaps_ms.drain(..self.gaps_ms.len().saturating_sub(GAPS_MAX));
        }
        let grown = group.nodes.len() >= self.nodes_most;
        self.nodes_most = self.nodes_most.max(group.nodes.len());
        if part(group.nodes.len(), self.nodes_most) >= PART_SEEN_MIN {
            self.until_ms = self.until_ms.max(group.until_ms);
        }
        // A cause is judged by what was seen of it at its worst, not by the last stragglers.
        if grown || 2 * group.nodes.len() >= self.nodes_most || self.service.is_none() {
            self.service = Some(group.cause.service);
            self.extent = group.cause.extent;
            self.scored = Some(group.scored.clone());
            self.alternatives = group.alternatives.clone();
        }
        self.start_ms = self.start_ms.min(group.start_ms);
        self.nodes.extend(group.nodes.iter().copied());
        self.widen(topology);
        self.closed_ms = None;
        self.stale = true;
    }

    /// The sites with anomalies; all within the extent once they are half of them.
    fn widen(&mut self, topology: &Topology) {
        let mut sites: BTreeSet<Site> = self.sites.iter().copied().collect();
        sites.extend(self.nodes.iter().map(|&(site, _)| site));
        let within = topology.sites(self.extent);
        if 2 * within.iter().filter(|site| sites.contains(site)).count() >= within.len() {
            sites.extend(within);
        }
        self.sites = sites.into_iter().collect();
    }
}

impl Book {
    /// Continues, opens, merges and closes.
    pub fn update(&mut self, groups: &[Group], topology: &Topology, now_ms: u64) {
        let mut taken = BTreeSet::new();
        for group in groups {
            let found = self.find(group, topology, &taken, now_ms);
            let index = found
                .unwrap_or_else(|| self.open(Some(group.cause.service), group.cause.extent, group.start_ms, topology));
            self.tracked[index].take(group, topology);
            taken.insert(self.tracked[index].id.clone());
            self.merge_into(index, group, &mut taken);
        }
        self.close(now_ms);
    }

    /// A new incident; its id tells when and where it began and stays.
    pub fn open(&mut self, service: Option<Service>, extent: Extent, start_ms: u64, topology: &Topology) -> usize {
        let id = self.free_id(service, extent, start_ms, topology);
        self.tracked.push(Tracked::new(id, service, extent, start_ms));
        self.tracked.len() - 1
    }

    fn free_id(&self, service: Option<Service>, extent: Extent, start_ms: u64, topology: &Topology) -> String {
        let what = service.map_or("sales", |service| topology.service_id(service));
        let cause = topology.cause(None, extent);
        let place = cause.site.or(cause.region).unwrap_or_default();
        let at = i64::try_from(start_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default();
        let day = at.strftime("%Y%m%d-%H%M").to_string();
        let name = |number: u32| format!("{day}-{:04x}", short_hash(&format!("{what}/{place}/{number}")));
        let known = |id: &String| self.tracked.iter().any(|tracked| tracked.id == *id);
        (0..1_000).map(name).find(|id| !known(id)).unwrap_or(day)
    }

    /// The incident that a group continues: the one that shares the most anomalies, or has the same cause.
    fn find(&self, group: &Group, topology: &Topology, taken: &BTreeSet<String>, now_ms: u64) -> Option<usize> {
        let recent = |tracked: &Tracked| {
            let lately = tracked
                .closed_ms
                .is_none_or(|closed| closed + REOPEN_WITHIN_MS >= now_ms);
            lately && tracked.has_begun(group)
        };
        let affinity = |tracked: &Tracked| {
            let shared = group.nodes.iter().filter(|node| tracked.nodes.contains(node)).count();
            let same_cause = tracked.service == Some(group.cause.service) && tracked.extent == group.cause.extent;
            let business = tracked.service.is_none() && overlaps(tracked, group, topology);
            // What another group has continued already takes in only what is mostly its own.
            if taken.contains(&tracked.id) && 2 * shared <= group.nodes.len() {
                return 0;
            }
            3 * shared + 2 * usize::from(same_cause) + usize::from(business)
        };
        let candidates = self.tracked.iter().enumerate().filter(|(_, tracked)| recent(tracked));
        let best = candidates
            .map(|(index, tracked)| (affinity(tracked), Reverse(index)))
            .max()?;
        (best.0 > 0).then_some(best.1.0)
    }

    /// Incidents whose anomalies one cause now explains become one.
    fn merge_into(&mut self, index: usize, group: &Group, taken: &mut BTreeSet<String>) {
        let kept = self.tracked[index].id.clone();
        let nodes: BTreeSet<(Site, Service)> = group.nodes.iter().copied().collect();
        let absorbed = |tracked: &Tracked| {
            let shared = tracked.nodes.intersection(&nodes).count();
            let lasts = tracked.is_open() && tracked.has_begun(group);
            tracked.id != kept && lasts && shared > 0 && 2 * shared >= tracked.nodes.len()
        };
        let start_ms = self.tracked.iter().filter(|t| absorbed(t)).map(|t| t.start_ms).min();
        let (gone, tracked) = std::mem::take(&mut self.tracked)
            .into_iter()
            .partition(|tracked| absorbed(tracked) && !taken.contains(&tracked.id));
        self.tracked = tracked;
        self.absorbed
            .extend(gone.into_iter().map(|tracked: Tracked| tracked.id));
        if let (Some(start_ms), Some(tracked)) = (start_ms, self.tracked.iter_mut().find(|t| t.id == kept)) {
            // A single early bird does not move the start of a wide incident.
            tracked.start_ms = tracked.start_ms.min(start_ms.max(group.start_ms));
        }
        taken.insert(kept);
    }

    fn close(&mut self, now_ms: u64) {
        for tracked in self.tracked.iter_mut().filter(|tracked| tracked.is_open()) {
            if tracked.until_ms + tracked.close_after_ms() < now_ms {
                tracked.closed_ms = Some(now_ms);
                tracked.stale = true;
            }
        }
        let kept = |tracked: &Tracked| tracked.closed_ms.is_none_or(|closed| closed + CLOSED_KEPT_MS >= now_ms);
        for gone in self
            .tracked
            .iter()
            .filter(|tracked| !kept(tracked) && tracked.is_costed())
        {
            self.spoiled.push_back((gone.extent, gone.start_ms, gone.until_ms));
        }
        self.spoiled.drain(..self.spoiled.len().saturating_sub(SPOILED_MAX));
        self.tracked.retain(kept);
        while self.tracked.len() > INCIDENTS_MAX {
            let oldest = self.tracked.iter().position(|tracked| !tracked.is_open()).unwrap_or(0);
            self.tracked.remove(oldest);
            self.forgotten += 1;
        }
    }

    /// How many incidents are priced in each currency.
    fn currencies(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for currency in self.tracked.iter().filter_map(Tracked::currency) {
            *counts.entry(currency).or_insert(0) += 1;
        }
        counts
    }

    /// Most important first: what is priced, each currency apart, the most frequent one first, since no rate is known that
    /// would compare them; there what costs most from now on, then what has surely cost most, then what reaches farthest.
    pub fn ranked(&self, now_ms: u64) -> Vec<&Tracked> {
        let currencies = self.currencies();
        let place = |tracked: &Tracked| {
            let currency = tracked.currency()?;
            Some((Reverse(*currencies.get(currency)?), currency.to_owned()))
        };
        let mut ranked: Vec<&Tracked> = self.tracked.iter().collect();
        ranked.sort_by(|a, b| {
            let costed = b.is_costed().cmp(&a.is_costed());
            let looming = b.looming_minor(now_ms).total_cmp(&a.looming_minor(now_ms));
            let rest =
                (b.lower_minor(), b.is_open(), b.sites.len()).cmp(&(a.lower_minor(), a.is_open(), a.sites.len()));
            costed
                .then(place(a).cmp(&place(b)))
                .then(looming)
                .then(rest)
                .then_with(|| a.id.cmp(&b.id))
        });
        ranked
    }
}

impl PriceState {
    /// The price of an incident without a technical cause.
    pub fn without_cause(self) -> PriceState {
        if self.is_costed() {
            PriceState::BusinessOnly
        } else {
            self
        }
    }
}

fn overlaps(tracked: &Tracked, group: &Group, topology: &Topology) -> bool {
    let within = topology.sites(tracked.extent);
    let wide = !matches!(group.cause.extent, Extent::Site(_));
    wide && group.nodes.iter().any(|(site, _)| within.contains(site))
}

fn part(some: usize, all: usize) -> f64 {
    let real = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    real(some) / real(all.max(1))
}

/// Source: FNV-1a, folded to 16 bits.
fn short_hash(text: &str) -> u16 {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_le_bytes();
    u16::from_le_bytes([a ^ c, b ^ d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{CONFIDENCE, Cost};

    fn priced(id: &str, minor: i64, currency: &str) -> Tracked {
        let cost = Cost {
            estimate_minor: minor,
            lower_minor: minor,
            upper_minor: minor,
            currency: currency.to_owned(),
            confidence: CONFIDENCE,
        };
        let answer = Answer {
            state: PriceState::Costed,
            cost: Some(cost),
            lost_transactions: Some(1),
            estimate: None,
            unaffected_sites_used: 9,
            dark_sites: 0,
            notes: Vec::new(),
        };
        Tracked {
            answer: Some(answer),
            ..Tracked::new(id.to_owned(), None, Extent::Chain, 0)
        }
    }

    /// A small loss in yen, which have no smaller unit, stood above a large one in euros.
    #[test]
    fn currencies_are_ranked_apart_the_most_frequent_one_first() {
        let book = Book {
            tracked: vec![
                Tracked::new("free".into(), None, Extent::Chain, 0),
                priced("small", 1_000, "EUR"),
                priced("yen", 50_000, "JPY"),
                priced("large", 20_000, "EUR"),
            ],
            ..Book::default()
        };
        let ids: Vec<_> = book
            .ranked(MINUTE_MS)
            .iter()
            .map(|tracked| tracked.id.as_str())
            .collect();
        assert_eq!(ids, ["large", "small", "yen", "free"]);
    }
}
