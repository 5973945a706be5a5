//! Tells an incident in the words of the model, and takes one back that was told before a restart.

use crate::correlate::evidence;
use crate::cost::Answer;
use crate::incident::book::{Book, Tracked};
use crate::incident::{Alternative, Incident, PriceState, Reach, Status};
use crate::topology::{Candidate, Extent, Service, Site, Topology};
use std::collections::BTreeSet;
use tillwatch_feed::topic::SiteId;

/// Notes that are told at most.
const NOTES_MAX: usize = 8;

pub(super) fn incident(topology: &Topology, tracked: &Tracked, rank: u32, now_ms: u64) -> Incident {
    let chosen = chosen(topology, tracked);
    let answer = tracked.answer.as_ref();
    let cost = answer.and_then(|answer| answer.cost.clone());
    let lost = answer.and_then(|answer| answer.lost_transactions);
    let mut notes = answer.map_or_else(Vec::new, |answer| answer.notes.clone());
    notes.truncate(NOTES_MAX);
    let words = |(candidate, scored): &(Candidate, _)| evidence::in_words(topology, *candidate, scored);
    Incident {
        id: tracked.id.clone(),
        rank,
        status: if tracked.is_open() {
            Status::Open
        } else {
            Status::Closed
        },
        price_state: price_state(topology, tracked),
        cause: chosen.cause,
        log_likelihood: chosen.log_likelihood,
        evidence_for: chosen.evidence_for,
        evidence_against: chosen.evidence_against,
        alternatives: tracked.alternatives.iter().map(words).collect(),
        sites: sites(topology, tracked),
        services: services(topology, tracked)
            .into_iter()
            .map(|service| topology.service_id(service).to_owned())
            .collect(),
        start_ms: tracked.start_ms,
        end_ms: tracked.closed_ms.map(|_| tracked.until_ms),
        updated_ms: now_ms,
        cost,
        lost_transactions: lost,
        unaffected_sites_used: answer.map_or(0, |answer| answer.unaffected_sites_used),
        dark_sites: answer.map_or(0, |answer| answer.dark_sites),
        notes,
    }
}

/// The cause's service first, then those with anomalies, nearest first.
pub(super) fn services(topology: &Topology, tracked: &Tracked) -> Vec<Service> {
    let anomalous: BTreeSet<Service> = tracked.nodes.iter().map(|&(_, service)| service).collect();
    let Some(cause) = tracked.service else {
        return anomalous.into_iter().collect();
    };
    let others = topology.dependents(cause).iter().map(|&(service, _)| service);
    let others = others.filter(|service| *service != cause && anomalous.contains(service));
    std::iter::once(cause).chain(others).collect()
}

fn chosen(topology: &Topology, tracked: &Tracked) -> Alternative {
    match (tracked.service, &tracked.scored) {
        (Some(service), Some(scored)) => evidence::in_words(
            topology,
            Candidate {
                service,
                extent: tracked.extent,
            },
            scored,
        ),
        (service, _) => Alternative {
            cause: topology.cause(service, tracked.extent),
            log_likelihood: 0.0,
            evidence_for: Vec::new(),
            evidence_against: Vec::new(),
        },
    }
}

/// Silence is all that is known of a dark site, whatever little it sold before.
fn price_state(topology: &Topology, tracked: &Tracked) -> PriceState {
    let state = tracked
        .answer
        .as_ref()
        .map_or(PriceState::Learning, |answer| answer.state);
    let silent = tracked.service == Some(topology.reporting()) && tracked.is_open();
    if silent
        && !state.is_costed()
        && tracked
            .answer
            .as_ref()
            .is_some_and(|a| 2 * a.dark_sites as usize > tracked.sites.len())
    {
        return PriceState::Dark;
    }
    state
}

fn sites(topology: &Topology, tracked: &Tracked) -> Vec<String> {
    let mut sites: Vec<String> = tracked
        .sites
        .iter()
        .map(|&site| topology.site_id(site).to_string())
        .collect();
    sites.sort_unstable();
    sites
}

/// An incident of the past goes on under its id when its sites are still in the model.
///
/// Which site had which anomaly was not told: each may have had each, so that whatever comes again finds its incident.
pub(super) fn resume(topology: &mut Topology, book: &mut Book, incident: &Incident) {
    let cause = incident.cause.service.as_deref();
    let service = cause.and_then(|id| topology.service(id));
    if service.is_none() && cause.is_some() {
        return; // no room for its metric: it is told anew, if it still goes on
    }
    let services: Vec<Service> = incident.services.iter().filter_map(|id| topology.service(id)).collect();
    let topology = &*topology;
    let model = topology.model();
    let site = |id: &str| id.parse::<SiteId>().ok().and_then(|id| topology.site(&id));
    let extent = match incident.cause.scope {
        Reach::Chain => Some(Extent::Chain),
        Reach::Region => incident
            .cause
            .region
            .as_deref()
            .and_then(|id| model.region(id))
            .map(Extent::Region),
        Reach::Site => incident.cause.site.as_deref().and_then(site).map(Extent::Site),
    };
    let Some(extent) = extent else { return };
    let index = book.open(service, extent, incident.start_ms, topology);
    let tracked = &mut book.tracked[index];
    tracked.id.clone_from(&incident.id);
    tracked.sites = incident.sites.iter().filter_map(|id| site(id)).collect();
    tracked.sites.sort_unstable();
    let each = |&site: &Site| services.iter().map(move |&service| (site, service));
    tracked.nodes = tracked.sites.iter().flat_map(each).collect();
    tracked.until_ms = incident.end_ms.unwrap_or(incident.updated_ms);
    tracked.closed_ms = incident.end_ms;
    // Its price holds until it goes on or late data comes.
    tracked.stale = false;
    tracked.answer = Some(Answer {
        state: incident.price_state,
        cost: incident.cost.clone(),
        lost_transactions: incident.lost_transactions,
        estimate: None,
        unaffected_sites_used: incident.unaffected_sites_used,
        dark_sites: incident.dark_sites,
        notes: incident.notes.clone(),
    });
}
