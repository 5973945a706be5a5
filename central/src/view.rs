//! What the faces of central show: one consistent picture, made by the engine and read by everybody.
//!
//! In: ranked incidents with their charts, and the state of the sites. Out: the same, shared.
//! It never reaches back into the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::impact::ImpactCounters;
use crate::impact::chart::Chart;
use crate::incident::Incident;

/// One consistent picture.
#[derive(Clone, Debug)]
pub struct View {
    /// Event time up to which everything is reckoned; 0 before the first payload.
    pub now_ms: u64,
    /// Ranked, the first first.
    pub incidents: Vec<Incident>,
    /// By id of the incident; not every incident has one.
    pub charts: BTreeMap<String, Arc<Chart>>,
    /// Sorted by region, then id.
    pub sites: Vec<SiteView>,
    /// In which times are shown to people.
    pub zone: TimeZone,
    /// What the impact left out so far.
    pub counters: ImpactCounters,
}

/// A site as the fleet grid shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteView {
    pub id: String,
    pub region: String,
    pub state: SiteState,
    /// Services that are anomalous there now, part of an incident or not.
    pub anomalies: u32,
    /// End of the newest interval that it sent, event time.
    pub last_ms: Option<u64>,
}

/// How a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteState {
    /// It reports, and nothing is unusual.
    Quiet,
    /// It reports, and something is unusual or belongs to an incident.
    Unusual,
    /// It belongs to an incident that costs money.
    Costing,
    /// It is silent: unknown, not zero.
    Silent,
    /// It has never reported.
    Never,
}

impl Default for View {
    fn default() -> Self {
        Self {
            now_ms: 0,
            incidents: Vec::new(),
            charts: BTreeMap::new(),
            sites: Vec::new(),
            zone: TimeZone::UTC,
            counters: ImpactCounters::default(),
        }
    }
}

/// The reading end, cheap to clone.
pub type ViewReader = watch::Receiver<Arc<View>>;

/// Both ends, with an empty picture.
pub fn channel() -> (watch::Sender<Arc<View>>, ViewReader) {
    watch::channel(Arc::new(View::default()))
}

#[cfg(test)]
pub(crate) mod examples {
    //! A picture with one costed incident.

    use super::*;
    use crate::impact::chart::{SalesChart, ServiceChart};
    use crate::incident::{Alternative, CONFIDENCE, Cause, Cost, PriceState, Reach, Status};

    /// One incident of 30 stores, with a chart, and a store whose name is hostile.
    pub(crate) fn one_incident() -> View {
        let incident = incident();
        let chart = chart(&incident);
        let site = |id: &str, state| SiteView {
            id: id.to_owned(),
            region: "north".to_owned(),
            state,
            anomalies: 2,
            last_ms: Some(3),
        };
        View {
            now_ms: 1_795_430_700_000,
            charts: BTreeMap::from([(incident.id.clone(), Arc::new(chart))]),
            incidents: vec![incident],
            sites: vec![site("north-01", SiteState::Costing), site("<b>evil", SiteState::Silent)],
            zone: TimeZone::UTC,
            counters: ImpactCounters::default(),
        }
    }

    fn cause() -> Cause {
        Cause {
            service: Some("mainframe-link".to_owned()),
            name: Some("Queue to the mainframe".to_owned()),
            scope: Reach::Region,
            region: Some("north".to_owned()),
            site: None,
        }
    }

    fn incident() -> Incident {
        let alternative = Alternative {
            cause: cause(),
            log_likelihood: 3.5,
            evidence_for: Vec::new(),
            evidence_against: vec!["27 stores are fine".to_owned()],
        };
        Incident {
            id: "i1".to_owned(),
            rank: 1,
            status: Status::Open,
            price_state: PriceState::Costed,
            cause: cause(),
            log_likelihood: 61.0,
            evidence_for: vec!["30 of 30 stores show it".to_owned()],
            evidence_against: Vec::new(),
            alternatives: vec![alternative],
            sites: vec!["north-01".to_owned()],
            services: vec!["mainframe-link".to_owned(), "loyalty".to_owned()],
            start_ms: 1_795_429_800_000,
            end_ms: None,
            updated_ms: 1_795_430_700_000,
            cost: Some(Cost {
                estimate_minor: 2_431_000,
                lower_minor: 1_800_000,
                upper_minor: 3_000_000,
                currency: "EUR".to_owned(),
                confidence: CONFIDENCE,
            }),
            lost_transactions: Some(900),
            unaffected_sites_used: 30,
            dark_sites: 0,
            notes: Vec::new(),
        }
    }

    fn chart(incident: &Incident) -> Chart {
        let values = vec![Some(1.0), None];
        Chart {
            incident: incident.id.clone(),
            times_ms: vec![incident.start_ms, incident.start_ms + 60_000],
            step_ms: 60_000,
            start_ms: incident.start_ms,
            end_ms: None,
            sales: SalesChart {
                actual: values.clone(),
                expected: values.clone(),
                lower: values.clone(),
                upper: values.clone(),
                sites_reporting: vec![30, 30],
            },
            services: vec![ServiceChart {
                service: "loyalty".to_owned(),
                name: "Loyalty points".to_owned(),
                metric: "http.server.request.duration".to_owned(),
                unit: "s".to_owned(),
                role: "latency".to_owned(),
                values,
            }],
        }
    }
}
