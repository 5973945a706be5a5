//! F1: how many findings does a store make in which nothing is wrong? A sample is a window of ten seconds.
//!
//! In: stores over weeks, from their first window on, with the change to daylight saving, holidays, a week of promotion,
//! a nightly job, an update, a series that starts late and missing windows. Out: findings a store and day by kind, and
//! the upper end of a 95 % interval over the stores.

use super::detectors::{Detector, Make};
use super::store::{Calendar, KINDS, SPECS, Scene, Series, series};
use super::{DAY, Options, Row, Section, WINDOW_MS, episodes, in_parallel};

pub(crate) fn measure(options: &Options) -> Section {
    let (stores, weeks, seeds) = if options.quick {
        (4, 12, 1)
    } else {
        (20, 12, options.seeds)
    };
    let jobs: Vec<u64> = (1..=stores * seeds).collect();
    let days = (weeks * 7) as f64;
    let mut rows = Vec::new();
    for make in Make::chosen(options.alone) {
        let found = in_parallel(&jobs, |seed| findings(*make, *seed, weeks));
        let a_day = |count: &dyn Fn(&[u64]) -> u64| {
            found
                .iter()
                .map(|found| count(found) as f64 / days)
                .collect::<Vec<f64>>()
        };
        let all = a_day(&|found| found.iter().sum());
        rows.push(Row::new(
            make.name(),
            "all",
            &[("a_store_day", mean(&all)), ("upper_95", upper(&all))],
        ));
        for kind in KINDS {
            let of_kind = a_day(&|found| {
                let specs = SPECS.iter().zip(found);
                specs
                    .filter(|(spec, _)| spec.kind() == kind)
                    .map(|(_, found)| found)
                    .sum()
            });
            let case = format!("{kind:?}").to_lowercase();
            rows.push(Row::new(make.name(), &case, &[("a_store_day", mean(&of_kind))]));
        }
        for (at, spec) in SPECS.iter().enumerate().filter(|_| options.alone) {
            let of_spec = a_day(&|found| found[at]);
            rows.push(Row::new(
                make.name(),
                &format!("{spec:?}"),
                &[("a_store_day", mean(&of_spec))],
            ));
        }
    }
    Section {
        name: "false_alarms",
        goal: "at most 1 finding a store and day, upper end of 95 %",
        how: format!(
            "{stores} stores of 30 series, {weeks} weeks, {seeds} seeds each (1 to {}), cold start",
            stores * seeds
        ),
        rows,
    }
}

/// By series.
fn findings(make: Make, seed: u64, weeks: u64) -> Vec<u64> {
    let mut calendar = Calendar::new(seed, true);
    let scenes: Vec<Scene> = (0..weeks * 7 * DAY).map(|_| calendar.next()).collect();
    series(seed)
        .into_iter()
        .map(|series| {
            let detector = make.detector(series.spec.shape(), WINDOW_MS);
            of_series(series, detector, &scenes)
        })
        .collect()
}

fn of_series(mut series: Series, mut detector: Detector, scenes: &[Scene]) -> u64 {
    let alarms = scenes.iter().map(|scene| {
        let value = series.value(scene, 1.0);
        let value = if series.missing(scene) { None } else { value };
        let said = detector.step(scene.slot, scene.start_ms, value);
        (scene.window, said.is_some_and(|said| said.alarm))
    });
    episodes::count(alarms)
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / (values.len() as f64).max(1.0)
}

/// Of the mean, by the normal distribution.
fn upper(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = mean(values);
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (n - 1.0).max(1.0);
    mean + 1.96 * (variance / n).sqrt()
}
