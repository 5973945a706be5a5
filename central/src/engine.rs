//! Between what is durable and what is shown: keeps the impact up to date and makes the picture that the faces show.
//!
//! In: observations, findings and central's time, each once. Out: incidents for the archive and a
//! [`View`](crate::view::View) for everybody.
//! It never reads the archive and never reckons anything itself.

use crate::archive::{IncidentChanges, IncidentRow};
use crate::decode::Observation;
use crate::impact::Impact;
use crate::incident::{Incident, Status};
use crate::receive::Reckoner;
use crate::rollup::Rollup;
use crate::view::{SiteState, SiteView, View};
use jiff::tz::TimeZone;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tillwatch_feed::message::Finding;
use tillwatch_feed::topic::SiteId;
use tokio::sync::watch;
use tracing::warn;

/// Incidents whose chart is drawn, the first by rank.
pub const CHARTS_MAX: usize = 30;

/// The impact and its audience.
pub struct Engine {
    impact: Impact,
    view: watch::Sender<Arc<View>>,
    /// A site that is this far behind central's time is silent.
    silent_after_ms: u64,
    zone: TimeZone,
    /// The model's sites, sorted by region, then id.
    sites: Vec<SiteView>,
    heard_ms: HashMap<SiteId, u64>,
    now_ms: u64,
    /// JSON of each incident as it was handed out last.
    handed_out: HashMap<String, String>,
    is_changed: bool,
}

impl Engine {
    /// `sites` are the model's; `zone` is that in which people are shown times.
    pub fn new(
        impact: Impact,
        silent_after_ms: u64,
        mut sites: Vec<SiteView>,
        zone: TimeZone,
        view: watch::Sender<Arc<View>>,
    ) -> Self {
        sites.sort_by(|a, b| (&a.region, &a.id).cmp(&(&b.region, &b.id)));
        Self {
            impact,
            view,
            silent_after_ms,
            zone,
            sites,
            heard_ms: HashMap::new(),
            now_ms: 0,
            handed_out: HashMap::new(),
            is_changed: true,
        }
    }

    fn publish(&mut self, incidents: &[Incident]) {
        let view = View {
            now_ms: self.now_ms,
            incidents: incidents.to_vec(),
            charts: self.impact.charts(CHARTS_MAX),
            sites: self.site_views(incidents),
            zone: self.zone.clone(),
            counters: self.impact.counters(),
        };
        self.view.send_replace(Arc::new(view));
    }

    fn site_views(&self, incidents: &[Incident]) -> Vec<SiteView> {
        let open = || incidents.iter().filter(|incident| incident.status == Status::Open);
        let sites_of = |incident: &Incident| incident.sites.clone();
        let unusual: HashSet<String> = open().flat_map(sites_of).collect();
        let costing: HashSet<String> = open()
            .filter(|i| i.price_state.is_costed())
            .flat_map(sites_of)
            .collect();
        let state = |id: &str, anomalies: u32, last_ms: Option<u64>| match last_ms {
            None => SiteState::Never,
            Some(last_ms) if last_ms + self.silent_after_ms < self.now_ms => SiteState::Silent,
            Some(_) if costing.contains(id) => SiteState::Costing,
            Some(_) if anomalies > 0 || unusual.contains(id) => SiteState::Unusual,
            Some(_) => SiteState::Quiet,
        };
        let views = self.sites.iter().map(|site| {
            let id: Option<SiteId> = site.id.parse().ok();
            let last_ms = id.as_ref().and_then(|id| self.heard_ms.get(id).copied());
            let anomalies = id.map_or(0, |id| self.impact.anomalies_at(&id));
            SiteView {
                state: state(&site.id, anomalies, last_ms),
                anomalies,
                last_ms,
                ..site.clone()
            }
        });
        views.collect()
    }
}

impl Reckoner for Engine {
    fn restore(&mut self, rollup: &Rollup) {
        self.impact.restore(std::slice::from_ref(rollup));
    }

    fn resume(&mut self, incidents: &[IncidentRow]) {
        let mut known = Vec::new();
        for IncidentRow { id, json } in incidents {
            match serde_json::from_str(json) {
                Ok(incident) => known.push(incident),
                Err(error) => warn!(id, %error, "incident in the archive is of another version, left alone"),
            }
        }
        self.impact.resume(&known);
    }

    fn on_observations(&mut self, observations: &[Observation]) {
        for observation in observations {
            let end_ms = observation.start_ms.saturating_add(u64::from(observation.length_ms));
            match self.heard_ms.get_mut(&observation.site) {
                Some(heard_ms) => *heard_ms = end_ms.max(*heard_ms),
                None => {
                    self.heard_ms.insert(observation.site.clone(), end_ms);
                }
            }
        }
        self.impact.on_observations(observations);
    }

    fn on_finding(&mut self, site: &SiteId, finding: &Finding) {
        self.impact.on_finding(site, finding);
    }

    fn on_clock(&mut self, watermark_ms: u64) {
        self.now_ms = watermark_ms;
        self.impact.on_clock(watermark_ms);
        self.is_changed = true;
    }

    fn changed_incidents(&mut self) -> IncidentChanges {
        if !std::mem::take(&mut self.is_changed) {
            return IncidentChanges::default();
        }
        let incidents = self.impact.incidents();
        self.publish(&incidents);
        let (mut told, absorbed) = (Vec::new(), self.impact.absorbed());
        let mut handed_out = HashMap::with_capacity(incidents.len());
        for incident in incidents {
            let Ok(json) = serde_json::to_string(&incident) else {
                continue;
            }; // strings and numbers always are
            if self.handed_out.get(&incident.id) != Some(&json) {
                told.push(IncidentRow {
                    id: incident.id.clone(),
                    json: json.clone(),
                });
            }
            handed_out.insert(incident.id, json);
        }
        self.handed_out = handed_out;
        IncidentChanges { told, absorbed }
    }
}
