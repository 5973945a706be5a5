//! P1: is a p-value what it says? A sample is a window of ten seconds that was judged after the first two weeks.
//!
//! In: stores without holidays, promotion, jobs or updates. Out: by kind, how often p was at most .05 to 1e-4, divided
//! by how often it should be. Baselines have no p-value.

use super::detectors::Make;
use super::store::{Calendar, KINDS, Kind, SPECS, Series};
use super::{DAY, Options, Row, Section, WINDOW_MS, in_parallel};

const LEVELS: [(&str, f64); 4] = [("p.05", 0.05), ("p.01", 0.01), ("p.001", 0.001), ("p1e-4", 1e-4)];

#[derive(Clone, Copy, Default)]
struct Counts {
    windows: f64,
    below: [f64; 4],
}

pub(crate) fn measure(options: &Options) -> Section {
    let (seeds, weeks) = if options.quick { (1, 4) } else { (options.seeds, 6) };
    let jobs: Vec<(u64, usize)> = (1..=seeds)
        .flat_map(|seed| (0..SPECS.len()).map(move |at| (seed, at)))
        .collect();
    let counts = in_parallel(&jobs, |(seed, at)| count(*seed, *at, weeks));
    let of_kind = |kind: Kind| {
        let mut sum = Counts::default();
        for ((_, at), counts) in jobs.iter().zip(&counts) {
            if SPECS[*at].kind() == kind {
                sum.windows += counts.windows;
                (0..4).for_each(|level| sum.below[level] += counts.below[level]);
            }
        }
        sum
    };
    let rows = KINDS
        .iter()
        .map(|kind| row(&format!("{kind:?}").to_lowercase(), &of_kind(*kind)));
    let mut rows: Vec<Row> = rows.collect();
    for (at, spec) in SPECS.iter().enumerate().filter(|_| options.alone) {
        let of_spec = jobs.iter().zip(&counts).filter(|((_, other), _)| *other == at);
        of_spec.for_each(|((seed, _), counts)| rows.push(row(&format!("{spec:?} seed {seed}"), counts)));
    }
    Section {
        name: "calibration",
        goal: "0.5 to 1.5 at .05, .01, .001; at most 2 at 1e-4",
        how: format!("30 series, weeks 3 to {weeks}, seeds 1 to {seeds}, windows of 10 s"),
        rows,
    }
}

fn row(case: &str, counts: &Counts) -> Row {
    let ratio = |at: usize| {
        (
            LEVELS[at].0,
            counts.below[at] / (LEVELS[at].1 * counts.windows.max(1.0)),
        )
    };
    let figures = [ratio(0), ratio(1), ratio(2), ratio(3), ("windows", counts.windows)];
    Row::new(Make::Tillwatch.name(), case, &figures)
}

fn count(seed: u64, at: usize, weeks: u64) -> Counts {
    let mut calendar = Calendar::new(seed, false);
    let mut series = Series::new(SPECS[at], seed * 1_000 + at as u64);
    let mut detector = Make::Tillwatch.detector(SPECS[at].shape(), WINDOW_MS);
    let mut counts = Counts::default();
    for _ in 0..weeks * 7 * DAY {
        let scene = calendar.next();
        let value = series.value(&scene, 1.0);
        let Some(said) = detector.step(scene.slot, scene.start_ms, value) else {
            continue;
        };
        if scene.window >= 14 * DAY && said.ready {
            counts.windows += 1.0;
            for (below, (_, level)) in counts.below.iter_mut().zip(LEVELS) {
                *below += f64::from(u8::from(f64::from(said.log10_p) <= libm::log10(level)));
            }
        }
    }
    counts
}
