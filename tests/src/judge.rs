//! How well incidents are priced: a simulated chain goes through the pure modules of the center, minute by minute.
//!
//! In: a scenario and a seed. Out: the incidents as told at the end, what was told on the way, and the truth beside it.
//! Nothing is sent, stored or waited for: what a store sends in a minute is there in the next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tillwatch_central::decode::Observation;
use tillwatch_central::impact::{Impact, ImpactSettings};
use tillwatch_central::incident::{Incident, PriceState, Reach};
use tillwatch_central::model::Model;
use tillwatch_central::rollup::Rollup;
use tillwatch_central::simulate::scenario::{Event, Scenario};
use tillwatch_central::simulate::{MINUTE_MS, World};

/// A chain that has lived its day.
pub struct Judged {
    pub scenario: Scenario,
    pub world: World,
    pub history: Vec<Rollup>,
    /// Everything that arrived, in that order.
    pub arrived: Vec<Observation>,
    /// As told at the end, best first.
    pub incidents: Vec<Incident>,
    /// Per event: minutes from its begin to the first incident with its cause.
    pub detected_minutes: Vec<Option<u64>>,
    /// Ids of incidents that had a price at any time.
    pub ever_priced: Vec<String>,
    /// Ids of incidents that reached over more than one site at any time.
    pub ever_wide: Vec<String>,
    /// Ids of all.
    pub ever: Vec<String>,
}

/// The folder of the scenarios.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// All of them by name, in order.
///
/// # Errors
/// When one cannot be read.
pub fn scenarios() -> Result<BTreeMap<String, Scenario>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        let text =
            std::fs::read_to_string(path.join("scenario.toml")).with_context(|| format!("in {}", path.display()))?;
        let scenario = Scenario::parse(&text).with_context(|| format!("in {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.insert(name, scenario);
    }
    Ok(all)
}

/// Lives through a scenario, with only so many days of history.
///
/// # Errors
/// When the generator's model is none.
pub fn live(scenario: &Scenario, seed: u64, history_days: u64) -> Result<Judged> {
    let world = World::new(scenario, seed);
    let (from_ms, to_ms) = world.span_ms();
    let mut history = world.history();
    history.retain(|rollup| rollup.slot_ms + history_days * 1_440 * MINUTE_MS >= from_ms);
    let mut impact = Impact::new(model(&world)?, ImpactSettings::default());
    impact.restore(&history);
    let mut judged = Judged {
        scenario: scenario.clone(),
        detected_minutes: vec![None; scenario.events.len()],
        history,
        arrived: Vec::new(),
        incidents: Vec::new(),
        ever_priced: Vec::new(),
        ever_wide: Vec::new(),
        ever: Vec::new(),
        world,
    };
    for minute_ms in (from_ms..to_ms).step_by(60_000) {
        let arrived = judged.world.arrive(minute_ms);
        impact.on_observations(&arrived);
        impact.on_clock(minute_ms + MINUTE_MS);
        judged.arrived.extend(arrived);
        judged.note(impact.incidents(), minute_ms + MINUTE_MS);
    }
    Ok(judged)
}

/// The same, but the center is killed halfway and hears all of the day again; only its incidents were kept.
///
/// # Errors
/// When the generator's model is none.
pub fn live_with_restart(scenario: &Scenario, seed: u64) -> Result<Vec<Incident>> {
    let mut world = World::new(scenario, seed);
    let (from_ms, to_ms) = world.span_ms();
    let mut impact = Impact::new(model(&world)?, ImpactSettings::default());
    impact.restore(&world.history());
    let half_ms = from_ms + (to_ms - from_ms) / MINUTE_MS / 2 * MINUTE_MS;
    let mut arrived = Vec::new();
    for minute_ms in (from_ms..to_ms).step_by(60_000) {
        if minute_ms == half_ms {
            let told = impact.incidents();
            impact = Impact::new(model(&world)?, ImpactSettings::default());
            impact.restore(&world.history());
            impact.resume(&told);
            impact.on_observations(&arrived);
        }
        let fresh = world.arrive(minute_ms);
        impact.on_observations(&fresh);
        impact.on_clock(minute_ms + MINUTE_MS);
        arrived.extend(fresh);
    }
    Ok(impact.incidents())
}

fn model(world: &World) -> Result<Model> {
    Model::parse("model.toml", &world.model()).map_err(|faults| anyhow!("{faults:?}"))
}

impl Judged {
    fn note(&mut self, incidents: Vec<Incident>, now_ms: u64) {
        let mut add = |to: fn(&mut Judged) -> &mut Vec<String>, id: &String| {
            let list = to(self);
            if !list.contains(id) {
                list.push(id.clone());
            }
        };
        for incident in &incidents {
            add(|judged| &mut judged.ever, &incident.id);
            if incident.cost.is_some() {
                add(|judged| &mut judged.ever_priced, &incident.id);
            }
            if incident.sites.len() > 1 {
                add(|judged| &mut judged.ever_wide, &incident.id);
            }
        }
        for event in 0..self.scenario.events.len() {
            let (start_ms, _) = self.world.event_ms(event);
            let seen = incidents.iter().any(|incident| self.is_cause(event, incident));
            if seen && self.detected_minutes[event].is_none() {
                self.detected_minutes[event] = Some(now_ms.saturating_sub(start_ms) / MINUTE_MS);
            }
        }
        self.incidents = incidents;
    }

    /// Does the incident name the service of the event, and where it is?
    #[must_use]
    pub fn is_cause(&self, event: usize, incident: &Incident) -> bool {
        let truth = &self.scenario.events[event];
        let named = incident.cause.service.as_deref() == truth.blamed() && truth.blamed().is_some();
        named && self.is_place(truth, incident)
    }

    fn is_place(&self, truth: &Event, incident: &Incident) -> bool {
        match (truth.regions.as_slice(), truth.stores.as_slice()) {
            ([], []) => incident.cause.scope == Reach::Chain,
            ([region], _) => {
                incident.cause.region.as_deref() == Some(tillwatch_central::simulate::region_id(*region).as_str())
            }
            _ => true,
        }
    }

    /// The incident of an event: the one with its cause, else the one that shares the most sites.
    #[must_use]
    pub fn incident_of(&self, event: usize) -> Option<&Incident> {
        let named = self.incidents.iter().find(|incident| self.is_cause(event, incident));
        named.or_else(|| {
            let hit = self.world.hit(event);
            let shared = |incident: &&Incident| incident.sites.iter().filter(|site| hit.contains(site)).count();
            self.incidents
                .iter()
                .filter(|incident| shared(incident) > 0)
                .max_by_key(shared)
        })
    }

    /// The event that lost the most money, if any did.
    #[must_use]
    pub fn costliest(&self) -> Option<usize> {
        let lost = self.world.lost().iter().enumerate();
        let most = lost
            .filter(|(_, lost)| lost.amount_minor > 0)
            .max_by_key(|(_, lost)| lost.amount_minor);
        most.map(|(event, _)| event)
    }

    /// Relative error of an event's price; without a price it is one of nothing, -1.
    #[must_use]
    pub fn cost_error(&self, event: usize) -> f64 {
        let truth = real(self.world.lost()[event].amount_minor);
        let cost = self.incident_of(event).and_then(|incident| incident.cost.as_ref());
        cost.map_or(-1.0, |cost| real(cost.estimate_minor) / truth - 1.0)
    }

    /// Everything that the scenario asks for.
    ///
    /// # Errors
    /// The first that is not so.
    pub fn check(&self) -> Result<()> {
        let must = &self.scenario.must;
        ensure!(
            !must.no_price || self.ever_priced.is_empty(),
            "a price for nothing: {:#?}",
            self.incidents.first()
        );
        if let Some(most) = must.incidents_max {
            ensure!(
                self.ever_wide.len() <= most,
                "{} incidents: {:?}",
                self.ever_wide.len(),
                self.ever_wide
            );
        }
        let named = |incident: &&Incident| incident.cost.is_some() && incident.cause.service.is_some();
        ensure!(
            !must.no_cause || !self.incidents.iter().any(|i| named(&i)),
            "a cause where there is none"
        );
        if let Some(state) = must.price_state {
            self.check_state(state)?;
        }
        if must.cause_first {
            let Some(event) = self.costliest() else {
                bail!("nothing was lost")
            };
            let first = self.incidents.first().context("no incident")?;
            ensure!(
                self.is_cause(event, first),
                "event {event} is not first, but {:?}",
                first.cause
            );
        }
        self.check_figures()
    }

    fn check_state(&self, state: PriceState) -> Result<()> {
        let first = self.incidents.first().context("no incident")?;
        ensure!(
            first.price_state == state,
            "{:?} in place of {state:?}",
            first.price_state
        );
        Ok(())
    }

    fn check_figures(&self) -> Result<()> {
        let must = &self.scenario.must;
        let Some(event) = self.costliest() else { return Ok(()) };
        if let Some(most) = must.cost_error_max {
            let error = self.cost_error(event);
            ensure!(error.abs() <= most, "price off by {:.1} %", 100.0 * error);
        }
        if let Some(most) = must.detected_within_minutes {
            let after = self.detected_minutes[event];
            ensure!(
                after.is_some_and(|after| after <= u64::from(most)),
                "found after {after:?} minutes"
            );
        }
        Ok(())
    }
}

/// Minor units of one incident, small enough for a `f64`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
pub fn real(minor: i64) -> f64 {
    minor as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 1;
    const DAYS: u64 = 42;

    #[test]
    fn every_scenario_is_told_as_it_must_be() {
        let mut faults = Vec::new();
        for (name, scenario) in scenarios().unwrap() {
            let begun = std::time::Instant::now();
            let judged = live(&scenario, SEED, DAYS).unwrap();
            println!(
                "{name} seed {SEED}: {} incidents, {:?}, took {:?}",
                judged.ever.len(),
                judged.detected_minutes,
                begun.elapsed()
            );
            if let Err(error) = judged.check() {
                faults.push(format!("{name} seed {SEED}: {error:#}"));
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
    }

    #[test]
    fn a_restart_in_the_middle_changes_neither_the_id_nor_the_price() {
        let scenario = &scenarios().unwrap()["14-restart"];
        let told = |incidents: Vec<Incident>| {
            (
                incidents[0].id.clone(),
                incidents[0].cost.clone(),
                incidents[0].lost_transactions,
            )
        };
        let straight = told(live(scenario, SEED, DAYS).unwrap().incidents);
        assert!(straight.1.is_some());
        assert_eq!(told(live_with_restart(scenario, SEED).unwrap()), straight);
    }
}
