//! How well incidents are found, priced and ranked: `cargo xtask bench impact`.
//!
//! In: simulated chains from printed seeds, one chain for each incident that is counted. Out: one row per measure, with
//! the goal, the number of independent cases, the bounds of the rate at 95 %, and simpler methods on the same cases.
//! Two chains of three draw customers, one lets them queue at tills. A rate is met only when its lower bound is.

mod baselines;
mod bounds;
mod cases;

use anyhow::Result;
use baselines::Window;
use bounds::Rate;
use cases::Case;
use serde_json::{Value, json};
use tillwatch_central::simulate::scenario::Mechanism;
use tillwatch_tests::judge::{self, Judged, real};

use crate::scoring::in_parallel;

const HISTORY_DAYS: u64 = 42;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// One JSON object on one line
    #[arg(long)]
    pub(crate) json: bool,
    /// Chains of each measure
    #[arg(long, default_value_t = 420)]
    pub(crate) chains: u64,
    /// Of the first chain; the others follow
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only these measures: cost, holiday, eight, overlap, chain, noise, age, scenarios
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    if wanted("cost") {
        for loss in [0.2, 0.35, 0.6] {
            rows.push(cost("cost", options, HISTORY_DAYS, |seed| cases::one(seed, loss, 1.0))?);
        }
    }
    if wanted("holiday") {
        rows.push(cost("holiday", options, HISTORY_DAYS, |seed| {
            cases::one(seed, 0.35, 3.0)
        })?);
    }
    if wanted("age") {
        for days in [1, 7, 14, 28] {
            rows.push(cost("age", options, days, |seed| cases::one(seed, 0.35, 1.0))?);
        }
    }
    for (name, case) in [
        ("eight", cases::eight as fn(u64) -> Case),
        ("overlap", cases::overlap),
        ("chain", cases::chain),
    ] {
        if wanted(name) {
            rows.push(ranks(name, options, case)?);
        }
    }
    if wanted("noise") {
        rows.push(noise(options)?);
    }
    if wanted("scenarios") {
        rows.extend(scenarios(options)?);
    }
    print(&rows, options);
    Ok(())
}

fn print(rows: &[Value], options: &Options) {
    if options.json {
        println!("{}", json!({ "impact": rows }));
    } else {
        rows.iter().for_each(|row| println!("{row}"));
    }
}

/// One case per seed, in their order.
fn lived(options: &Options, days: u64, case: impl Fn(u64) -> Case + Sync) -> Result<Vec<(u64, Outcome)>> {
    let seeds: Vec<u64> = (options.seed..options.seed + options.chains).collect();
    let outcomes = in_parallel(&seeds, |seed| {
        let case = case(*seed);
        let judged = judge::live(&case.scenario, *seed, days)?;
        Ok((*seed, Outcome::of(&judged)))
    });
    outcomes.into_iter().collect()
}

/// What is kept of a chain.
struct Outcome {
    queuing: bool,
    /// Per event.
    events: Vec<EventOutcome>,
    first_is_costliest: bool,
    all_named: bool,
    by_rank: [bool; 3],
    priced: usize,
    wide: usize,
    all: usize,
    site_days: f64,
}

struct EventOutcome {
    error: Option<f64>,
    held: bool,
    half_width: f64,
    named: bool,
    detected: Option<u64>,
    /// Errors of the simpler methods, as [`baselines::NAMES`].
    simpler: [f64; baselines::NAMES.len()],
}

impl Outcome {
    fn of(judged: &Judged) -> Outcome {
        let events = 0..judged.scenario.events.len();
        let losing = events.filter(|event| judged.world.lost()[*event].amount_minor > 0);
        let costliest = judged.costliest();
        let first = judged.incidents.first();
        let losing: Vec<usize> = losing.collect();
        let stores: usize = judged.scenario.chain.regions.iter().sum();
        Outcome {
            queuing: judged.scenario.mechanism == Mechanism::Queuing,
            events: losing.iter().map(|event| EventOutcome::of(judged, *event)).collect(),
            first_is_costliest: costliest
                .zip(first)
                .is_some_and(|(event, first)| judged.is_cause(event, first)),
            all_named: losing.iter().all(|event| {
                judged
                    .incidents
                    .iter()
                    .take(losing.len())
                    .any(|i| judged.is_cause(*event, i))
            }),
            by_rank: costliest.map_or([false; 3], |event| baselines::ranked_first(judged, &losing, event)),
            priced: judged.ever_priced.len(),
            wide: judged.ever_wide.len(),
            all: judged.ever.len(),
            site_days: f64::from(u32::try_from(stores).unwrap_or(0)) * f64::from(judged.scenario.minutes) / 1_440.0,
        }
    }
}

impl EventOutcome {
    fn of(judged: &Judged, event: usize) -> EventOutcome {
        let truth = judged.world.lost()[event].amount_minor;
        let incident = judged.incident_of(event);
        let cost = incident.and_then(|incident| incident.cost.as_ref());
        let window = Window::of(judged, event);
        EventOutcome {
            error: cost.map(|cost| (real(cost.estimate_minor) / real(truth) - 1.0).abs()),
            held: cost.is_some_and(|cost| (cost.lower_minor..=cost.upper_minor).contains(&truth)),
            half_width: cost.map_or(f64::NAN, |cost| {
                real(cost.upper_minor - cost.lower_minor) / 2.0 / window.usual_minor(truth)
            }),
            named: judged.incidents.iter().any(|incident| judged.is_cause(event, incident)),
            detected: judged.detected_minutes[event],
            simpler: window.errors(truth),
        }
    }
}

fn cost(name: &str, options: &Options, days: u64, case: impl Fn(u64) -> Case + Sync) -> Result<Value> {
    let about = case(options.seed).about;
    let outcomes = lived(options, days, case)?;
    let events: Vec<&EventOutcome> = outcomes.iter().flat_map(|(_, outcome)| &outcome.events).collect();
    let costed: Vec<&&EventOutcome> = events.iter().filter(|event| event.error.is_some()).collect();
    let figure = |of: &dyn Fn(&EventOutcome) -> f64| bounds::median(costed.iter().map(|event| of(event)).collect());
    let simpler = baselines::NAMES.iter().enumerate().map(|(at, simpler)| {
        (
            (*simpler).to_owned(),
            bounds::percent(bounds::median(events.iter().map(|event| event.simpler[at]).collect())),
        )
    });
    Ok(json!({
        "measure": name, "case": about, "history_days": days,
        "seeds": [options.seed, options.seed + options.chains - 1], "incidents": events.len(),
        "queuing": outcomes.iter().filter(|(_, outcome)| outcome.queuing).count(),
        "priced": Rate::of(costed.len(), events.len()),
        "cause_named": Rate::of(events.iter().filter(|event| event.named).count(), events.len()),
        "median_error_percent": bounds::percent(figure(&|event| event.error.unwrap_or(1.0))),
        "median_error_of_simpler_percent": simpler.collect::<serde_json::Map<_, _>>(),
        "interval_held": Rate::of(costed.iter().filter(|event| event.held).count(), costed.len()),
        "half_width_percent_of_usual": bounds::percent(figure(&|event| event.half_width)),
        "median_minutes_to_detect": figure(&|event| event.detected.map_or(f64::NAN, |minutes| real(minutes.cast_signed()))),
    }))
}

fn ranks(name: &str, options: &Options, case: fn(u64) -> Case) -> Result<Value> {
    let outcomes = lived(options, HISTORY_DAYS, case)?;
    let count = |of: &dyn Fn(&Outcome) -> bool| {
        Rate::of(
            outcomes.iter().filter(|(_, outcome)| of(outcome)).count(),
            outcomes.len(),
        )
    };
    let errors = outcomes
        .iter()
        .flat_map(|(_, outcome)| outcome.events.iter().filter_map(|event| event.error));
    Ok(json!({
        "measure": name, "case": case(options.seed).about,
        "seeds": [options.seed, options.seed + options.chains - 1], "incidents": outcomes.len(),
        "queuing": outcomes.iter().filter(|(_, outcome)| outcome.queuing).count(),
        "costliest_cause_first": count(&|outcome| outcome.first_is_costliest),
        "all_causes_on_top": count(&|outcome| outcome.all_named),
        "first_by_technical_score": count(&|outcome| outcome.by_rank[0]),
        "first_by_stores_anomalous": count(&|outcome| outcome.by_rank[1]),
        "first_by_sales_at_stake": count(&|outcome| outcome.by_rank[2]),
        "median_error_percent": bounds::percent(bounds::median(errors.collect())),
    }))
}

fn noise(options: &Options) -> Result<Value> {
    let outcomes = lived(options, HISTORY_DAYS, cases::noise)?;
    let site_days: f64 = outcomes.iter().map(|(_, outcome)| outcome.site_days).sum();
    let a_day = |of: &dyn Fn(&Outcome) -> usize| {
        let found: usize = outcomes.iter().map(|(_, outcome)| of(outcome)).sum();
        let upper = bounds::poisson_upper(found) / site_days * 3_000.0;
        json!({ "found": found, "a_day_for_3000_stores_upper": bounds::rounded(upper) })
    };
    Ok(json!({
        "measure": "noise", "case": cases::noise(options.seed).about,
        "seeds": [options.seed, options.seed + options.chains - 1], "open_store_days": site_days,
        "over_several_stores": a_day(&|outcome| outcome.wide),
        "priced": a_day(&|outcome| outcome.priced),
        "of_one_store": a_day(&|outcome| outcome.all - outcome.wide.min(outcome.all)),
    }))
}

/// The folders of `tests/scenarios`, each on many seeds.
fn scenarios(options: &Options) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for (name, scenario) in judge::scenarios()? {
        let seeds: Vec<u64> = (options.seed..options.seed + options.chains).collect();
        let told = in_parallel(&seeds, |seed| {
            let judged = judge::live(&scenario, *seed, HISTORY_DAYS)?;
            let error = judged.costliest().map(|event| judged.cost_error(event).abs());
            Ok((*seed, judged.check().err().map(|error| format!("{error:#}")), error))
        });
        let told: Vec<(u64, Option<String>, Option<f64>)> = told.into_iter().collect::<Result<_>>()?;
        let good = told.iter().filter(|(_, fault, _)| fault.is_none()).count();
        let fault = told.iter().find_map(|(seed, fault, _)| {
            fault
                .as_ref()
                .map(|fault| format!("seed {seed}: {}", fault.lines().next().unwrap_or("")))
        });
        let errors: Vec<f64> = told.iter().filter_map(|(_, _, error)| *error).collect();
        rows.push(json!({
            "measure": "scenarios", "case": name, "as_it_must_be": Rate::of(good, told.len()),
            "median_error_percent": bounds::percent(bounds::median(errors)), "first_fault": fault,
        }));
    }
    Ok(rows)
}
