//! A recorded feed through the same reckoning as live, at full speed.
//!
//! In: a model and a recording, oldest lines first. Out: every incident as it was told last.
//! It runs on event time alone, so that the same recording gives the same incidents to the bit. It never asks a clock.

use crate::decode::Observation;
use crate::impact::{Impact, ImpactCounters, ImpactSettings};
use crate::incident::Incident;
use crate::model::Model;
use crate::recording::{BadLine, Recording};
use crate::rollup::{ROLE_PREFIX, Rollup, SLOT_MS};
use crate::watermark::Watermark;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

/// Sums of sales of whole quarters of an hour are the past, as a start reads them from the archive.
fn past(observation: &Observation) -> Option<Rollup> {
    let Observation {
        site,
        series,
        start_ms,
        length_ms,
        summary,
        ..
    } = observation;
    let is_past =
        u64::from(*length_ms) == SLOT_MS && start_ms.is_multiple_of(SLOT_MS) && series.role.starts_with(ROLE_PREFIX);
    is_past.then(|| Rollup {
        site: site.clone(),
        series: Arc::clone(series),
        slot_ms: *start_ms,
        covered_ms: SLOT_MS,
        count: summary.count,
        sum: summary.sum,
    })
}

/// The reckoning with all that it told.
pub struct Replay {
    impact: Impact,
    watermark: Watermark,
    /// Lines of one site and interval are one payload.
    payload: Vec<Observation>,
    told: BTreeMap<String, Incident>,
}

impl Replay {
    pub fn new(model: Model) -> Self {
        Replay {
            impact: Impact::new(model, ImpactSettings::default()),
            watermark: Watermark::default(),
            payload: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Takes a whole recording; several follow each other.
    ///
    /// # Errors
    /// At the first bad line.
    pub fn take(&mut self, from: impl BufRead) -> Result<(), BadLine> {
        let mut recording = Recording::new(from);
        while let Some(observation) = recording.read_next()? {
            if let Some(rollup) = past(&observation) {
                self.impact.restore(&[rollup]);
                continue;
            }
            if self
                .payload
                .first()
                .is_some_and(|first| !is_of_one_payload(first, &observation))
            {
                self.tell();
            }
            self.payload.push(observation);
        }
        self.tell();
        Ok(())
    }

    /// As the center does with a payload that came.
    fn tell(&mut self) {
        let Some(first) = self.payload.first() else { return };
        let end_ms = first.start_ms + u64::from(first.length_ms);
        if !self.watermark.is_ahead(end_ms) {
            self.impact.on_observations(&self.payload);
        }
        let now_ms = self.watermark.heard(&first.site, end_ms);
        self.payload.clear();
        let Some(now_ms) = now_ms else { return };
        self.impact.on_clock(now_ms);
        for id in self.impact.absorbed() {
            self.told.remove(&id);
        }
        for incident in self.impact.incidents() {
            self.told.insert(incident.id.clone(), incident);
        }
    }

    /// Those told last first, by rank.
    pub fn incidents(&self) -> Vec<&Incident> {
        let mut incidents: Vec<_> = self.told.values().collect();
        incidents.sort_by_key(|incident| (std::cmp::Reverse(incident.updated_ms), incident.rank));
        incidents
    }

    /// What was left out.
    pub fn counters(&self) -> ImpactCounters {
        self.impact.counters()
    }
}

fn is_of_one_payload(a: &Observation, b: &Observation) -> bool {
    (&a.site, a.start_ms, a.length_ms) == (&b.site, b.start_ms, b.length_ms)
}
