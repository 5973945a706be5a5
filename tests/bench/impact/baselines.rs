//! Simpler ways to price and to rank, on the same cases.
//!
//! In: what the stores sent. They are told which stores are hit and when it began and ended, which ours must find out.

use std::collections::{BTreeMap, HashMap, HashSet};

use tillwatch_central::rollup::SLOT_MS;
use tillwatch_central::simulate::MINUTE_MS;
use tillwatch_tests::judge::{Judged, real};

/// In the order of [`Window::errors`].
pub(crate) const NAMES: [&str; 4] = [
    "pre_period_mean",
    "seasonal_only",
    "difference_in_differences",
    "seasonal_times_others_today",
];
const WEEK_MS: u64 = 672 * SLOT_MS;
/// Minutes before the event that are compared.
const BEFORE_MS: u64 = 60 * MINUTE_MS;

/// Sales of the hit stores and of the others, before and in the event, beside the mean of past weeks.
#[derive(Debug, Default)]
pub(crate) struct Window {
    minutes: f64,
    hit: Sums,
    others: Sums,
    basket_minor: f64,
    amount_minor: f64,
}

#[derive(Debug, Default)]
struct Sums {
    before: f64,
    within: f64,
    usual_within: f64,
}

impl Window {
    pub(crate) fn of(judged: &Judged, event: usize) -> Window {
        let (from_ms, to_ms) = judged.world.event_ms(event);
        let hit: HashSet<String> = judged.world.hit(event).into_iter().collect();
        let mut window = Window {
            minutes: real(((to_ms - from_ms) / MINUTE_MS).cast_signed()),
            ..Window::default()
        };
        window.add_today(judged, &hit, from_ms, to_ms);
        window.add_past(judged, &hit, from_ms, to_ms);
        window
    }

    fn side(&mut self, is_hit: bool) -> &mut Sums {
        if is_hit { &mut self.hit } else { &mut self.others }
    }

    fn add_today(&mut self, judged: &Judged, hit: &HashSet<String>, from_ms: u64, to_ms: u64) {
        for observation in &judged.arrived {
            let (at, sum) = (observation.start_ms, real(observation.summary.sum));
            let is_hit = hit.contains(observation.site.as_str());
            match observation.series.role.as_str() {
                "sales.count" if (from_ms..to_ms).contains(&at) => self.side(is_hit).within += sum,
                "sales.count" if (from_ms - BEFORE_MS..from_ms).contains(&at) => self.side(is_hit).before += sum,
                "sales.amount" if is_hit && (from_ms..to_ms).contains(&at) => self.amount_minor += sum,
                _ => {}
            }
        }
    }

    /// The mean of the same times of the weeks before, each quarter by the part of it that lies within.
    fn add_past(&mut self, judged: &Judged, hit: &HashSet<String>, from_ms: u64, to_ms: u64) {
        let weeks = 5.0;
        let (mut count, mut amount) = (0.0, 0.0);
        for rollup in &judged.history {
            let is_hit = hit.contains(rollup.site.as_str());
            let sum = real(rollup.sum);
            if rollup.series.role == "sales.amount" {
                amount += if is_hit { sum } else { 0.0 };
                continue;
            }
            count += if is_hit { sum } else { 0.0 };
            for week in 1..=5 {
                let slot_ms = rollup.slot_ms + week * WEEK_MS;
                let shared = (slot_ms + SLOT_MS).min(to_ms).saturating_sub(slot_ms.max(from_ms));
                let part = real(shared.cast_signed()) / real(SLOT_MS.cast_signed());
                self.side(is_hit).usual_within += sum * part / weeks;
            }
        }
        self.basket_minor = amount / f64::max(count, 1.0);
    }

    /// What the hit stores would have made.
    pub(crate) fn usual_minor(&self, lost_minor: i64) -> f64 {
        self.amount_minor + real(lost_minor)
    }

    /// Relative errors of the simpler prices.
    pub(crate) fn errors(&self, lost_minor: i64) -> [f64; NAMES.len()] {
        let per_window = self.minutes * real(MINUTE_MS.cast_signed()) / real(BEFORE_MS.cast_signed());
        let before = self.hit.before * per_window;
        let grown = self.others.within / f64::max(self.others.before * per_window, 1.0);
        let today = self.others.within / f64::max(self.others.usual_within, 1.0);
        let expected = [
            before,
            self.hit.usual_within,
            before * grown,
            self.hit.usual_within * today,
        ];
        expected.map(|expected| ((expected - self.hit.within) * self.basket_minor / real(lost_minor) - 1.0).abs())
    }
}

/// Is the event first by the largest deviation, by anomalous stores, by usual sales of its stores?
pub(crate) fn ranked_first(judged: &Judged, events: &[usize], costliest: usize) -> [bool; 3] {
    let mut worst: HashMap<&str, f64> = HashMap::new();
    for observation in &judged.arrived {
        if let Some(score) = observation.score.filter(|score| score.alarm) {
            let effect = worst.entry(observation.site.as_str()).or_insert(0.0);
            *effect = effect.max(f64::from(score.effect));
        }
    }
    let mut figures: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
    for event in events {
        let hit = judged.world.hit(*event);
        let anomalous: Vec<f64> = hit
            .iter()
            .filter_map(|site| worst.get(site.as_str()).copied())
            .collect();
        let most = anomalous.iter().copied().fold(0.0, f64::max);
        let stores = f64::from(u32::try_from(anomalous.len()).unwrap_or(0));
        figures.insert(*event, [most, stores, Window::of(judged, *event).hit.usual_within]);
    }
    [0, 1, 2].map(|by| {
        let first = figures.iter().max_by(|a, b| a.1[by].total_cmp(&b.1[by]));
        first.is_some_and(|(event, _)| *event == costliest)
    })
}
