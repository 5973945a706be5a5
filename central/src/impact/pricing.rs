//! Asks for the price of each incident: which sites are affected, which are not, and which window counts.

use super::{FALL_PAUSE_MS, Impact};
use crate::correlate::anomaly::HOLD_MS;
use crate::cost::{self, Answer, Question};
use crate::expect::columns::Columns;
use crate::expect::{MINUTE_MS, MINUTES_KEPT};
use crate::incident::book::{Book, Tracked};
use crate::topology::{Extent, Site, Topology};
use std::collections::BTreeSet;

/// Sales are lost before the detectors are sure.
pub(super) const ONSET_LEAD_MS: u64 = 2 * MINUTE_MS;
/// Prices look back this far at most, less than minutes are kept.
const WINDOW_MAX_MS: u64 = (MINUTES_KEPT - 6 * 60) * MINUTE_MS;
/// A loss of so many usual errors makes a site unfit for comparisons, though it is no price yet.
const SUSPECT_MIN: f64 = 1.5;
/// Currency when neither site nor model knows one.
/// Source: ISO 4217, "no currency".
const CURRENCY_UNKNOWN: &str = "XXX";

/// Late sales of a site: what covers them must be priced again.
pub(super) fn mark_stale(book: &mut Book, site: Site, start_ms: u64) {
    for tracked in &mut book.tracked {
        let covers = tracked.start_ms <= start_ms + ONSET_LEAD_MS && start_ms < tracked.until_ms;
        tracked.stale |= covers && tracked.sites.binary_search(&site).is_ok();
    }
}

/// Prices what goes on or has changed.
pub(super) fn price_all(impact: &mut Impact) {
    if !impact
        .book
        .tracked
        .iter()
        .any(|tracked| tracked.is_open() || tracked.stale)
    {
        return;
    }
    update_regions(impact);
    let now_ms = impact.now_ms;
    for index in 0..impact.book.tracked.len() {
        let tracked = &impact.book.tracked[index];
        if tracked.is_open() || tracked.stale {
            update_columns(impact, index);
            let answer = price(impact, &impact.book.tracked[index]);
            let tracked = &mut impact.book.tracked[index];
            tracked.answer = Some(answer);
            tracked.priced_ms = now_ms;
            tracked.stale = false;
        }
    }
}

/// Sales of a region are down without a technical cause: an incident of its own, if the price can be told from noise.
pub(super) fn fall(impact: &mut Impact, region: usize, start_ms: u64) {
    let (now_ms, extent) = (impact.now_ms, Extent::Region(region));
    let own = |tracked: &Tracked| tracked.service.is_none() && tracked.extent == extent && tracked.is_open();
    if let Some(tracked) = impact.book.tracked.iter_mut().find(|tracked| own(tracked)) {
        tracked.until_ms = now_ms;
        return;
    }
    if is_explained(impact, region, now_ms) {
        return;
    }
    let index = impact.book.open(None, extent, start_ms, &impact.topology);
    impact.book.tracked[index].sites = impact.topology.sites(extent).to_vec();
    impact.book.tracked[index].until_ms = now_ms;
    update_regions(impact);
    update_columns(impact, index);
    let answer = price(impact, &impact.book.tracked[index]);
    if answer.state.is_costed() {
        impact.book.tracked[index].answer = Some(answer);
        impact.book.tracked[index].priced_ms = now_ms;
    } else {
        impact.book.tracked.remove(index);
    }
}

/// A wide incident there explains it, or one with lost sales that has only just ended.
fn is_explained(impact: &Impact, region: usize, now_ms: u64) -> bool {
    let sites = impact.topology.sites(Extent::Region(region));
    impact.book.tracked.iter().any(|tracked| {
        let here = sites
            .iter()
            .filter(|site| tracked.sites.binary_search(site).is_ok())
            .count();
        let recent = tracked.is_open() || (tracked.is_costed() && tracked.until_ms + FALL_PAUSE_MS > now_ms);
        recent && 2 * here >= sites.len()
    })
}

fn update_regions(impact: &mut Impact) {
    for (region, columns) in impact.regions.iter_mut().enumerate() {
        columns.update(
            &impact.sales,
            impact.topology.sites(Extent::Region(region)),
            impact.now_ms,
        );
    }
}

fn update_columns(impact: &mut Impact, index: usize) {
    let (group, _) = one_currency(impact, &impact.book.tracked[index]);
    let tracked = &mut impact.book.tracked[index];
    if tracked.columns_sites != group.len() {
        tracked.columns = Columns::default();
        tracked.columns_sites = group.len();
    }
    tracked.columns.update(&impact.sales, &group, impact.now_ms);
}

/// The whole minutes that count, UTC.
pub(super) fn window(tracked: &Tracked, now_ms: u64) -> (u64, u64) {
    let goes_on = tracked.is_open() && tracked.until_ms + HOLD_MS >= now_ms;
    let end_ms = if goes_on { now_ms } else { tracked.until_ms.min(now_ms) };
    let end_ms = end_ms.max(tracked.start_ms + MINUTE_MS) / MINUTE_MS * MINUTE_MS;
    let start_ms = tracked
        .start_ms
        .saturating_sub(ONSET_LEAD_MS)
        .max(end_ms.saturating_sub(WINDOW_MAX_MS));
    (start_ms / MINUTE_MS * MINUTE_MS, end_ms)
}

fn price(impact: &Impact, tracked: &Tracked) -> Answer {
    let (start_ms, end_ms) = window(tracked, impact.now_ms);
    let touched = touched(impact, tracked, start_ms);
    let unaffected = unaffected(impact, tracked, &touched);
    let own_region = own_region_without(impact, tracked);
    let unaffected_columns = unaffected_columns(impact, tracked, &touched, own_region.as_ref());
    let spoiled = spoiled(impact, tracked);
    let (group, currency) = one_currency(impact, tracked);
    let question = Question {
        sales: &impact.sales,
        group: &group,
        group_columns: &tracked.columns,
        unaffected: &unaffected,
        unaffected_columns: &unaffected_columns,
        start_ms,
        end_ms,
        spoiled: &spoiled,
        was_distinct: tracked.is_costed(),
        currency: &currency,
    };
    let mut answer = cost::price(&question);
    if tracked.service.is_none() {
        answer.state = answer.state.without_cause();
    }
    let others = tracked.sites.len() - group.len();
    if others > 0 {
        answer.notes.push(format!(
            "{others} affected sites do not sell in {currency} and are not in this price"
        ));
    }
    answer
}

/// Sites that other incidents of that time affect.
fn touched(impact: &Impact, own: &Tracked, start_ms: u64) -> BTreeSet<Site> {
    let disturbs = |other: &&Tracked| {
        let meets = other.id != own.id && (other.is_open() || other.until_ms > start_ms);
        // Harmless anomalies do not spoil a comparison; leaving them all out would leave nobody to compare with.
        meets && other.may_have_lost(SUSPECT_MIN)
    };
    impact
        .book
        .tracked
        .iter()
        .filter(disturbs)
        .flat_map(|other| other.sites.iter().copied())
        .collect()
}

/// Is the region off the incident? One of a single site is set against its own region, too.
fn is_outside(tracked: &Tracked, topology: &Topology, region: usize) -> bool {
    match tracked.extent {
        Extent::Site(_) => {
            tracked.sites.iter().all(|&site| topology.region_of(site) != region) || tracked.sites.len() == 1
        }
        Extent::Region(own) => own != region && tracked.sites.iter().all(|&site| topology.region_of(site) != region),
        Extent::Chain => false,
    }
}

/// The regions that an incident is set against, each with those of its sites that are no measure.
pub(super) fn outside(impact: &Impact, tracked: &Tracked) -> Vec<(usize, Vec<Site>)> {
    let (start_ms, _) = window(tracked, impact.now_ms);
    outside_but(impact, tracked, &touched(impact, tracked, start_ms))
}

fn outside_but(impact: &Impact, tracked: &Tracked, touched: &BTreeSet<Site>) -> Vec<(usize, Vec<Site>)> {
    let own = |site: &Site| tracked.sites.binary_search(site).is_ok();
    let regions = 0..impact.topology.regions_len();
    let outside = regions.filter(|&region| is_outside(tracked, &impact.topology, region));
    let left_out = |region| {
        let sites = impact.topology.sites(Extent::Region(region)).iter().copied();
        let left_out = sites.filter(|site| own(site) || touched.contains(site));
        (region, left_out.collect())
    };
    outside.map(left_out).collect()
}

/// All others of these regions, in order.
fn unaffected(impact: &Impact, tracked: &Tracked, touched: &BTreeSet<Site>) -> Vec<Site> {
    let mut unaffected = Vec::new();
    for (region, left_out) in outside_but(impact, tracked, touched) {
        let sites = impact.topology.sites(Extent::Region(region)).iter();
        unaffected.extend(sites.filter(|site| !left_out.contains(site)));
    }
    unaffected.sort_unstable();
    unaffected
}

#[cfg(test)]
pub(super) fn unaffected_sites(impact: &Impact, tracked: &Tracked) -> Vec<Site> {
    let (start_ms, _) = window(tracked, impact.now_ms);
    unaffected(impact, tracked, &touched(impact, tracked, start_ms))
}

/// The region of a single affected site, without that site.
fn own_region_without(impact: &Impact, tracked: &Tracked) -> Option<(usize, Columns)> {
    let (Extent::Site(site), 1) = (tracked.extent, tracked.sites.len()) else {
        return None;
    };
    let region = impact.topology.region_of(site);
    Some((
        region,
        Columns::sum([&impact.regions[region]].into_iter(), Some(&tracked.columns)),
    ))
}

fn unaffected_columns<'a>(
    impact: &'a Impact,
    tracked: &Tracked,
    touched: &BTreeSet<Site>,
    own_region: Option<&'a (usize, Columns)>,
) -> Vec<&'a Columns> {
    let mut columns = Vec::new();
    for (region, of_region) in impact.regions.iter().enumerate() {
        let sites = impact.topology.sites(Extent::Region(region));
        let hit = sites.iter().filter(|site| touched.contains(site)).count();
        if !is_outside(tracked, &impact.topology, region) || 2 * hit > sites.len() {
            continue;
        }
        columns.push(match own_region {
            Some((own, without)) if *own == region => without,
            _ => of_region,
        });
    }
    columns
}

/// Windows of the past in which sales of the same regions were lost.
fn spoiled(impact: &Impact, own: &Tracked) -> Vec<(u64, u64)> {
    let regions: BTreeSet<usize> = own.sites.iter().map(|&site| impact.topology.region_of(site)).collect();
    let meets = |extent: Extent| match extent {
        Extent::Site(site) => own.sites.binary_search(&site).is_ok(),
        Extent::Region(region) => regions.contains(&region),
        Extent::Chain => true,
    };
    let recent = impact
        .book
        .tracked
        .iter()
        .filter(|other| other.id != own.id && other.is_costed());
    let recent = recent.map(|other| (other.extent, other.start_ms, other.until_ms));
    let all = impact.book.spoiled.iter().copied().chain(recent);
    all.filter(|(extent, _, _)| meets(*extent))
        .map(|(_, from, to)| (from, to))
        .collect()
}

/// The affected sites that can be priced together: those of the currency of most of them, or of none that is known.
fn one_currency(impact: &Impact, tracked: &Tracked) -> (Vec<Site>, String) {
    let model = impact.topology.model();
    let of = |site: &Site| {
        impact.sales[*site]
            .currency()
            .or(model.sites[*site].currency.as_deref())
    };
    let mut counts = std::collections::BTreeMap::new();
    for currency in tracked.sites.iter().filter_map(of) {
        *counts.entry(currency).or_insert(0_usize) += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let most = most.map_or(CURRENCY_UNKNOWN, |(currency, _)| currency);
    let priced = |site: &Site| of(site).is_none_or(|currency| currency == most);
    (tracked.sites.iter().copied().filter(priced).collect(), most.to_owned())
}
