//! Evidence for and against a cause, in words.

use super::likelihood::Scored;
use crate::incident::Alternative;
use crate::topology::{Candidate, Topology};

/// Sales that speak less than this are not worth a sentence.
const SALES_TERM_TOLD: f64 = 0.5;
/// A cause that hits less of its sites than this has that held against it.
const FRACTION_TOLD: f64 = 0.6;

/// A candidate with its likelihood in words.
pub fn in_words(topology: &Topology, candidate: Candidate, scored: &Scored) -> Alternative {
    Alternative {
        cause: topology.cause(Some(candidate.service), candidate.extent),
        log_likelihood: (scored.log_likelihood * 100.0).round() / 100.0,
        evidence_for: speaks_for(topology, scored),
        evidence_against: speaks_against(topology, candidate, scored),
    }
}

fn speaks_for(topology: &Topology, scored: &Scored) -> Vec<String> {
    let mut told = Vec::new();
    for count in scored.counts.iter().filter(|count| count.anomalous > 0) {
        let name = topology.service_name(count.service);
        let role = if count.distance == 0 {
            "itself"
        } else {
            "which depends on it"
        };
        told.push(format!(
            "{name}, {role}, is anomalous at {} of {} sites",
            count.anomalous, count.reporting
        ));
    }
    if let Some(lead_ms) = scored.lead_ms.filter(|lead| *lead > 0) {
        told.push(format!("it began {} before what depends on it", minutes(lead_ms)));
    }
    if scored.sales_term > SALES_TERM_TOLD {
        told.push("sales fell there and not elsewhere".to_owned());
    }
    told
}

fn speaks_against(topology: &Topology, candidate: Candidate, scored: &Scored) -> Vec<String> {
    let mut told = Vec::new();
    for count in &scored.counts {
        let fine = count.reporting - count.anomalous;
        let name = topology.service_name(count.service);
        if fine > 0 {
            told.push(format!(
                "{name} is fine at {fine} of {} reporting sites",
                count.reporting
            ));
        } else if count.reporting == 0 && count.service == candidate.service {
            told.push(format!("{name} itself is not measured there"));
        }
    }
    if let Some(lead_ms) = scored.lead_ms.filter(|lead| *lead < 0) {
        told.push(format!("it began {} after what depends on it", minutes(-lead_ms)));
    }
    if scored.sales_term < -SALES_TERM_TOLD {
        told.push("sales there are as expected".to_owned());
    }
    if scored.fraction < FRACTION_TOLD {
        told.push(format!(
            "it would hit only about {:.0} % of the sites",
            scored.fraction * 100.0
        ));
    }
    told
}

fn minutes(ms: i64) -> String {
    match ms / 60_000 {
        0 => "less than a minute".to_owned(),
        1 => "1 minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}
