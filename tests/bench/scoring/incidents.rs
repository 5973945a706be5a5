//! S1 and D1: which incidents of 45 minutes are found, and after how many windows.
//!
//! A slot of the measure is a window of ten seconds; for rare events their rate is told per five minutes and judged in
//! windows of ten seconds all the same. In: series of an eventless store; from the fourth week on incidents at open hours,
//! each on a copy of series and detector, so that they teach nothing. Out: the share that was found by the deployed alarm,
//! and by a threshold on the score that makes 0.5 episodes a series and week on the clean series; the median delay; the
//! share of an incident's loss that was lost by then.

use super::detectors::{Detector, Make, Said};
use super::episodes::Episodes;
use super::store::{Calendar, Scene, Series, Spec};
use super::{DAY, Options, Row, Section, WINDOW_MS, in_parallel};

/// Windows of an incident.
const LENGTH: usize = 270;
/// Clean from here on until the incidents.
const JUDGED_FROM: u64 = 10 * DAY;
const INCIDENTS_FROM: u64 = 21 * DAY;
const END: u64 = 28 * DAY;
/// Hours of the day at which incidents start.
const HOURS: [f64; 3] = [9.5, 13.25, 18.0];
/// Of false alarms, a series and week.
const BUDGET: f64 = 0.5;

struct Case {
    name: &'static str,
    spec: Spec,
    incidents: &'static [(&'static str, f64)],
}

const SALES: &[(&str, f64)] = &[("stop", 0.0), ("-70%", 0.3), ("x2", 2.0)];
const UP: &[(&str, f64)] = &[("x2", 2.0)];

const CASES: [Case; 6] = [
    Case {
        name: "count, 12 a window",
        spec: Spec::Events {
            rate: 12.0,
            wander: 0.1,
        },
        incidents: SALES,
    },
    Case {
        name: "count, 3 a window",
        spec: Spec::Events { rate: 3.0, wander: 0.1 },
        incidents: SALES,
    },
    Case {
        name: "count, 12 in 5 min",
        spec: Spec::Events { rate: 0.4, wander: 0.1 },
        incidents: SALES,
    },
    Case {
        name: "count, 3 in 5 min",
        spec: Spec::Events { rate: 0.1, wander: 0.1 },
        incidents: SALES,
    },
    Case {
        name: "latency",
        spec: Spec::Latency {
            us: 80_000.0,
            calls: 3.0,
            prober: false,
        },
        incidents: UP,
    },
    Case {
        name: "queue",
        spec: Spec::Queue { mean: 4.0, wander: 0.3 },
        incidents: UP,
    },
];

/// What one series gave.
struct Run {
    clean: Episodes,
    /// Of the deployed alarm.
    alarms: u64,
    /// By incident of the case: what was said in each of its windows.
    incidents: Vec<Vec<Vec<Option<Said>>>>,
}

pub(crate) fn measure(options: &Options) -> Vec<Section> {
    let seeds = if options.quick { 6 } else { 4 * options.seeds };
    let mut recall = Vec::new();
    let mut delay = Vec::new();
    for case in &CASES {
        for make in Make::chosen(options.alone) {
            let seeds: Vec<u64> = (101..=100 + seeds).collect();
            let runs = in_parallel(&seeds, |seed| run(case, *make, *seed));
            let (recalls, delays) = rows(case, *make, &runs);
            recall.extend(recalls);
            delay.extend(delays);
        }
    }
    let how = format!(
        "45 minutes, 18 starts a series, seeds 101 to {}, windows of 10 s",
        100 + seeds
    );
    vec![
        Section {
            name: "recall",
            goal: ".95 from 12 a slot on; .85 at 3 a slot, for latency and for queues",
            how: how.clone(),
            rows: recall,
        },
        Section {
            name: "delay",
            goal: "a median of 3 samples",
            how,
            rows: delay,
        },
    ]
}

fn run(case: &Case, make: Make, seed: u64) -> Run {
    let mut calendar = Calendar::new(seed, false);
    let mut series = Series::exact(case.spec, seed);
    let mut detector = make.detector(case.spec.shape(), WINDOW_MS);
    let mut run = Run {
        clean: Episodes::new(),
        alarms: 0,
        incidents: vec![Vec::new(); case.incidents.len()],
    };
    let mut last: Option<u64> = None;
    while let Some(scene) = Some(calendar.next()).filter(|scene| scene.window < END) {
        if scene.window >= INCIDENTS_FROM && starts(&scene) {
            for (at, (_, factor)) in case.incidents.iter().enumerate() {
                let mut calendar = calendar.clone();
                let scenes = std::iter::once(scene).chain((1..LENGTH).map(|_| calendar.next()));
                run.incidents[at].push(suffer(&series, &detector, scenes, *factor));
            }
        }
        let value = series.value(&scene, 1.0);
        if let Some(said) = detector.step(scene.slot, scene.start_ms, value)
            && scene.window >= JUDGED_FROM
        {
            run.clean.add(scene.window, said.score);
            if said.alarm {
                run.alarms += u64::from(last.is_none_or(|last| scene.window - last > super::episodes::APART));
                last = Some(scene.window);
            }
        }
    }
    run
}

fn starts(scene: &Scene) -> bool {
    let window = scene.window % DAY;
    scene.is_open() && HOURS.iter().any(|hour| (hour * 360.0) as u64 == window)
}

fn suffer(series: &Series, detector: &Detector, scenes: impl Iterator<Item = Scene>, factor: f64) -> Vec<Option<Said>> {
    let (mut series, mut detector) = (series.clone(), detector.clone());
    let step = |scene: Scene| detector.step(scene.slot, scene.start_ms, series.value(&scene, factor));
    scenes.map(step).collect()
}

fn rows(case: &Case, make: Make, runs: &[Run]) -> (Vec<Row>, Vec<Row>) {
    let mut clean = Episodes::new();
    runs.iter().for_each(|run| clean.merge(&run.clean));
    let threshold = clean.threshold(BUDGET, (7 * DAY) as f64);
    let series_weeks = clean.windows as f64 / (7 * DAY) as f64;
    let alarms = runs.iter().map(|run| run.alarms).sum::<u64>() as f64 / series_weeks;
    let mut rows = (Vec::new(), Vec::new());
    for (at, (incident, _)) in case.incidents.iter().enumerate() {
        let all: Vec<&Vec<Option<Said>>> = runs.iter().flat_map(|run| &run.incidents[at]).collect();
        let deployed: Vec<Option<usize>> = all.iter().map(|said| first(said, |said| said.alarm)).collect();
        let tuned = all
            .iter()
            .map(|said| first(said, |said| threshold.is_some_and(|threshold| said.score >= threshold)));
        let tuned: Vec<Option<usize>> = tuned.collect();
        let name = format!("{}: {incident}", case.name);
        rows.0.push(Row::new(
            make.name(),
            &name,
            &[
                ("deployed", share(&deployed)),
                ("alarms_a_week", alarms),
                ("at_half", share(&tuned)),
                ("threshold", f64::from(threshold.unwrap_or(f32::NAN))),
            ],
        ));
        rows.1.push(Row::new(
            make.name(),
            &name,
            &[
                ("deployed", median(&deployed)),
                ("lost_before", lost(&deployed)),
                ("at_half", median(&tuned)),
            ],
        ));
    }
    rows
}

/// The windows until the first that says so, itself among them.
fn first(said: &[Option<Said>], is: impl Fn(&Said) -> bool) -> Option<usize> {
    said.iter()
        .position(|said| said.as_ref().is_some_and(&is))
        .map(|at| at + 1)
}

fn share(found: &[Option<usize>]) -> f64 {
    found.iter().flatten().count() as f64 / (found.len() as f64).max(1.0)
}

/// Of all incidents; infinite when more than half are not found.
fn median(found: &[Option<usize>]) -> f64 {
    let mut sorted: Vec<f64> = found
        .iter()
        .map(|windows| windows.map_or(f64::INFINITY, |windows| windows as f64))
        .collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
}

/// The mean share of an incident that passed before its alarm.
fn lost(found: &[Option<usize>]) -> f64 {
    let lost = found
        .iter()
        .map(|windows| windows.map_or(1.0, |windows| windows as f64 / LENGTH as f64));
    lost.sum::<f64>() / (found.len() as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_count_the_window_of_the_alarm_and_what_is_never_found_is_lost_whole() {
        let said = |score: f32| {
            Some(Said {
                ready: true,
                score,
                alarm: score > 1.0,
                log10_p: 0.0,
                anomaly_score: score / (1.0 + score),
            })
        };
        assert_eq!(first(&[said(0.5), None, said(1.5)], |said| said.alarm), Some(3));
        let found = [Some(27), None, Some(27)];
        assert!((share(&found) - 2.0 / 3.0).abs() < 1e-9);
        assert!((median(&found) - 27.0).abs() < 1e-9);
        assert!((lost(&found) - 0.4).abs() < 1e-9);
    }
}
