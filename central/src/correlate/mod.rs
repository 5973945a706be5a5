//! Which anomalies belong together, and what is their most likely cause.
//!
//! In: anomalies per (site, service), from scored summaries or from findings, and how far sales are off per extent.
//! Out: groups of anomalies, each with its cause, other causes, and evidence for and against.
//! Taking the best cause, removing what it explains and starting again is grouping, deduplication and the split of
//! overlapping incidents in one. It never prices anything and remembers nothing of earlier groups (see `incident`).

pub mod anomaly;
pub mod evidence;
pub mod likelihood;
pub mod sales;

use crate::topology::{Candidate, Extent, Service, Site, Topology};
use anomaly::Anomalies;
use likelihood::{Context, Scored};
use std::collections::{BTreeMap, BTreeSet};

/// A cause below this log-likelihood ratio is no better than chance.
pub const LOG_LIKELIHOOD_MIN: f64 = 3.0;
/// Most groups of one look; what is left over waits.
pub const GROUPS_MAX: usize = 200;
/// Other causes that are told.
pub const ALTERNATIVES_MAX: usize = 3;

/// Anomalies with one cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub cause: Candidate,
    pub scored: Scored,
    /// The anomalies that the cause explains, sorted.
    pub nodes: Vec<(Site, Service)>,
    pub alternatives: Vec<(Candidate, Scored)>,
    /// When a fifth of the anomalies had begun: one that happened to be there before does no harm.
    pub start_ms: u64,
    /// The median end of the anomalies so far.
    pub until_ms: u64,
}

/// Groups the anomalies of this moment. `sales_term` is the log-likelihood that an extent's sales speak for a cause there.
pub fn group(
    topology: &Topology,
    anomalies: &Anomalies,
    now_ms: u64,
    sales_term: impl Fn(Extent) -> f64,
) -> Vec<Group> {
    let mut open: BTreeSet<(Site, Service)> = anomalies.active(now_ms).collect();
    let mut explained = BTreeSet::new();
    let mut groups = Vec::new();
    while !open.is_empty() && groups.len() < GROUPS_MAX {
        let context = Context {
            topology,
            anomalies,
            now_ms,
            explained: &explained,
            sales_term: &sales_term,
        };
        let scored = score_all(&context, &open);
        let Some(group) = best(&context, &open, scored) else {
            break;
        };
        for node in &group.nodes {
            open.remove(node);
            explained.insert(*node);
        }
        groups.push(group);
    }
    groups
}

fn score_all(context: &Context<'_>, open: &BTreeSet<(Site, Service)>) -> BTreeMap<Candidate, Scored> {
    let mut candidates = BTreeSet::new();
    for &(site, service) in open {
        context.topology.candidates(site, service, &mut candidates);
    }
    candidates
        .into_iter()
        .filter_map(|candidate| Some((candidate, likelihood::score(context, candidate)?)))
        .collect()
}

fn best(context: &Context<'_>, open: &BTreeSet<(Site, Service)>, scored: BTreeMap<Candidate, Scored>) -> Option<Group> {
    let (&cause, chosen) = scored
        .iter()
        .filter(|(candidate, whole)| whole.by_counts > regions_apart(context, candidate))
        .max_by(|a, b| a.1.log_likelihood.total_cmp(&b.1.log_likelihood))?;
    if chosen.log_likelihood <= LOG_LIKELIHOOD_MIN {
        return None;
    }
    let nodes = explained_by(context.topology, open, cause);
    let alternatives = alternatives(context.topology, &scored, cause, &nodes);
    let (start_ms, until_ms) = span(context.anomalies, &nodes);
    Some(Group {
        cause,
        scored: chosen.clone(),
        nodes,
        alternatives,
        start_ms,
        until_ms,
    })
}

/// What the same failure in single regions would explain together; a cause of the whole chain must do better. Asked of
/// the same service, though there may be one of it only: a farther or nearer one would explain more or less by itself.
fn regions_apart(context: &Context<'_>, candidate: &Candidate) -> f64 {
    if candidate.extent != Extent::Chain {
        return f64::NEG_INFINITY;
    }
    let region = |region| Candidate {
        service: candidate.service,
        extent: Extent::Region(region),
    };
    let regions = 0..context.topology.regions_len();
    let parts = regions.filter_map(|number| likelihood::score(context, region(number)));
    parts.map(|part| part.by_counts.max(0.0)).sum()
}

fn explained_by(topology: &Topology, open: &BTreeSet<(Site, Service)>, cause: Candidate) -> Vec<(Site, Service)> {
    let dependents = topology.dependents(cause.service);
    let within = |site: &Site| match cause.extent {
        Extent::Site(only) => *site == only,
        Extent::Region(region) => topology.region_of(*site) == region,
        Extent::Chain => true,
    };
    let explains = |(site, service): &&(Site, Service)| {
        within(site) && dependents.iter().any(|(dependent, _)| dependent == service)
    };
    open.iter().filter(explains).copied().collect()
}

/// The next best causes that would explain some of the same anomalies.
fn alternatives(
    topology: &Topology,
    scored: &BTreeMap<Candidate, Scored>,
    cause: Candidate,
    nodes: &[(Site, Service)],
) -> Vec<(Candidate, Scored)> {
    let nodes: BTreeSet<(Site, Service)> = nodes.iter().copied().collect();
    let mut others: Vec<(Candidate, Scored)> = scored
        .iter()
        .filter(|(other, _)| **other != cause && !explained_by(topology, &nodes, **other).is_empty())
        .map(|(other, scored)| (*other, scored.clone()))
        .collect();
    others.sort_by(|a, b| b.1.log_likelihood.total_cmp(&a.1.log_likelihood));
    others.truncate(ALTERNATIVES_MAX);
    others
}

fn span(anomalies: &Anomalies, nodes: &[(Site, Service)]) -> (u64, u64) {
    let of = |pick: fn(&anomaly::Node) -> u64| {
        let mut times: Vec<u64> = nodes
            .iter()
            .map(|&(site, service)| pick(anomalies.node(site, service)))
            .collect();
        times.sort_unstable();
        times
    };
    let (starts, ends) = (of(|node| node.from_ms), of(|node| node.until_ms));
    (starts[(starts.len() - 1) / 5], ends[ends.len() / 2])
}
