//! What the store itself is told, with or without a center: findings that belong together as one episode, each metric once
//! with its evidence, and what they did to the sales.
//!
//! In: findings of the series, and expected and actual sales of each window. Out: episodes, the newest last, for a file on
//! the store's disk. What is learned of the sales' errors stands beside them.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Episodes that are kept; the oldest are forgotten.
pub const EPISODES_MAX: usize = 100;
/// Metrics of one episode; the least severe are counted only.
pub const METRICS_MAX: usize = 16;
/// Series whose sales are added up.
pub const SALES_MAX: usize = 8;

/// A finding so soon after the last one of an episode belongs to it.
const APART_MS: u64 = 600_000;

/// Errors of sums are learned for 5 minutes, and for twice as long each, up to 2 hours 40.
const SHORTEST_MS: u64 = 300_000;
const LENGTHS: usize = 6;

/// Nine of ten sums lie within so many roots of what was expected, before anything is learned.
const FIRST_REACH: f32 = 1.645;
/// How fast the reach follows what is seen.
const REACH_RATE: f64 = 0.05;
const OUTSIDE: f64 = 0.1;

/// One series' part of an episode, in the metric's unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The metric.
    pub metric: String,
    /// As of OpenTelemetry, or the currency.
    pub unit: String,
    /// Of the most severe series.
    pub labels: Vec<(String, String)>,
    /// When it began.
    pub start_ms: u64,
    /// Its worst window.
    pub peak_ms: u64,
    /// `None` while it is open.
    pub end_ms: Option<u64>,
    /// In the worst window.
    pub expected: f64,
    /// In the worst window.
    pub actual: f64,
    /// Nine of ten windows like it lie above.
    pub lower: f64,
    /// Nine of ten windows like it lie below.
    pub upper: f64,
    /// In standard deviations.
    pub effect: f32,
    /// 1 = at the bar.
    pub severity: f32,
    /// Further series of the same metric.
    pub also: u32,
    /// Of the series; the open ones are known again by it.
    pub series: u32,
    /// 1 when it opened.
    pub revision: u32,
}

/// What was sold during an episode, in the metric's unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sold {
    /// The metric.
    pub metric: String,
    /// Its unit, or the currency.
    pub unit: String,
    /// Of the series.
    pub labels: Vec<(String, String)>,
    /// Without the episode.
    pub expected: f64,
    /// With it.
    pub actual: f64,
    /// Nine of ten sums without an episode lie within so much of what was expected.
    pub reach: f64,
}

/// Findings that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Of its first finding.
    pub start_ms: u64,
    /// Of its last finding; `None` while one is open.
    pub end_ms: Option<u64>,
    /// One for each metric, the most severe first.
    pub told: Vec<Told>,
    /// Metrics beyond the bound.
    pub left_out: u32,
    /// Of each series of sales.
    pub sold: BTreeMap<u32, Sold>,
}

/// One sum that is being checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Check {
    block: u64,
    expected: f64,
    actual: f64,
    /// In roots of what was expected.
    reach: f32,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Local {
    episodes: VecDeque<Episode>,
    checks: BTreeMap<u32, [Check; LENGTHS]>,
    /// Of each baseline, before what is open.
    levels: BTreeMap<u32, f32>,
    /// Grows with each change that is worth writing.
    #[serde(skip)]
    revision: u64,
}

/// Sales of a window, in the metric's unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sale<'a> {
    pub(crate) series: u32,
    /// Of its baseline.
    pub(crate) level: f32,
    pub(crate) metric: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) expected: f64,
    pub(crate) actual: f64,
}

impl Local {
    /// The oldest first.
    pub fn episodes(&self) -> impl DoubleEndedIterator<Item = &Episode> {
        self.episodes.iter()
    }

    /// Grows with each change that is worth writing.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Of a series' baseline before the open episode: what is missing does not lower what was expected.
    pub(crate) fn usual_level(&self, series: u32) -> Option<f32> {
        let is_open = self.episodes.back().is_some_and(|episode| episode.end_ms.is_none());
        self.levels.get(&series).copied().filter(|_level| is_open)
    }

    /// News of a finding.
    pub(crate) fn hear(&mut self, told: Told) {
        self.revision += 1;
        let known = self.episodes.back_mut().filter(|last| last.holds(&told));
        let episode = match known {
            Some(episode) => episode,
            None => {
                let start_ms = told.start_ms;
                self.episodes.push_back(Episode {
                    start_ms,
                    ..Episode::default()
                });
                if self.episodes.len() > EPISODES_MAX {
                    self.episodes.pop_front();
                }
                let Some(new) = self.episodes.back_mut() else { return };
                new
            }
        };
        episode.hear(told);
    }

    /// A window is over: `is_usual` when the calendar says nothing special of it.
    pub(crate) fn sell(&mut self, start_ms: u64, length_ms: u32, is_usual: bool, sales: &[Sale<'_>]) {
        let (checks, levels) = (&mut self.checks, &mut self.levels);
        let Some(episode) = self.episodes.back_mut().filter(|episode| episode.end_ms.is_none()) else {
            for sale in sales {
                if levels.len() >= SALES_MAX && !levels.contains_key(&sale.series) {
                    continue;
                }
                levels.insert(sale.series, sale.level);
                if is_usual {
                    check(checks.entry(sale.series).or_insert(NEW), start_ms, sale);
                }
            }
            return;
        };
        for sale in sales {
            if episode.sold.len() < SALES_MAX || episode.sold.contains_key(&sale.series) {
                let length_ms = start_ms + u64::from(length_ms) - episode.start_ms.min(start_ms);
                episode.sell(sale, checks.get(&sale.series).unwrap_or(&NEW), length_ms);
            }
        }
        if start_ms / 60_000 != (start_ms + u64::from(length_ms)) / 60_000 {
            self.revision += 1;
        }
    }

    /// After a restart the core tells open findings again; those that it does not know any more have ended.
    pub(crate) fn end_unknown(&mut self, is_open: impl Fn(u32) -> bool, now_ms: u64) {
        let Some(episode) = self.episodes.back_mut().filter(|episode| episode.end_ms.is_none()) else {
            return;
        };
        self.revision += 1;
        let unknown = |told: &&mut Told| told.end_ms.is_none() && !is_open(told.series);
        for told in episode.told.iter_mut().filter(unknown) {
            told.end_ms = Some(now_ms.max(told.start_ms));
        }
        episode.settle();
    }
}

const NEW: [Check; LENGTHS] = [Check {
    block: 0,
    expected: 0.0,
    actual: 0.0,
    reach: FIRST_REACH,
}; LENGTHS];

impl Episode {
    fn holds(&self, told: &Told) -> bool {
        let is_known = self.told.iter().any(|known| known.is(told));
        is_known
            || self
                .end_ms
                .is_none_or(|end_ms| told.start_ms < end_ms.saturating_add(APART_MS))
    }

    /// Each metric once: its most severe series, and how many others there are.
    fn hear(&mut self, told: Told) {
        self.start_ms = self.start_ms.min(told.start_ms);
        let is_full = self.told.len() >= METRICS_MAX;
        match self.told.iter_mut().find(|known| known.metric == told.metric) {
            Some(known) if known.is(&told) => {
                *known = Told {
                    also: known.also,
                    ..told
                }
            }
            Some(known) if told.severity > known.severity => {
                *known = Told {
                    also: known.also + u32::from(told.revision == 1),
                    ..told
                }
            }
            Some(known) => known.also += u32::from(told.revision == 1),
            None if is_full => self.left_out += 1,
            None => self.told.push(told),
        }
        self.told.sort_by(|one, other| other.severity.total_cmp(&one.severity));
        self.settle();
    }

    /// It ends with the last of what it tells.
    fn settle(&mut self) {
        let ends: Option<Vec<u64>> = self.told.iter().map(|told| told.end_ms).collect();
        self.end_ms = ends.and_then(|ends| ends.into_iter().max());
    }

    fn sell(&mut self, sale: &Sale<'_>, checks: &[Check; LENGTHS], length_ms: u64) {
        let sold = self.sold.entry(sale.series).or_insert_with(|| Sold {
            metric: sale.metric.to_owned(),
            unit: sale.unit.to_owned(),
            labels: sale.labels.clone(),
            ..Sold::default()
        });
        sold.expected += sale.expected;
        sold.actual += sale.actual;
        sold.reach = reach(checks, sold.expected, length_ms);
    }
}

impl Told {
    fn is(&self, other: &Told) -> bool {
        self.series == other.series && self.start_ms == other.start_ms
    }
}

/// Source: Gibbs and Candès 2021, "Adaptive conformal inference under distribution shift": the reach grows with each sum
/// outside of it and shrinks with each inside, so that one of ten is outside whatever the sums are distributed like.
fn check(checks: &mut [Check; LENGTHS], start_ms: u64, sale: &Sale<'_>) {
    for (length, check) in checks.iter_mut().enumerate() {
        let block = start_ms / (SHORTEST_MS << length);
        if block != check.block {
            if check.expected > 0.0 {
                let error = (check.actual - check.expected).abs() / libm::sqrt(check.expected);
                let outside = if error > f64::from(check.reach) { 1.0 } else { 0.0 };
                let factor = libm::exp(REACH_RATE * (outside - OUTSIDE));
                check.reach *= crate::detect::single(factor);
            }
            (check.block, check.expected, check.actual) = (block, 0.0, 0.0);
        }
        check.expected += sale.expected;
        check.actual += sale.actual;
    }
}

/// Of a sum over so long: that of the length above it; beyond the longest, errors are taken to last.
fn reach(checks: &[Check; LENGTHS], expected: f64, length_ms: u64) -> f64 {
    let longest_ms = SHORTEST_MS << (LENGTHS - 1);
    let at = (0..LENGTHS - 1).find(|length| SHORTEST_MS << length >= length_ms);
    let reach = f64::from(checks[at.unwrap_or(LENGTHS - 1)].reach);
    let blocks = length_ms.max(longest_ms) / longest_ms;
    let lasting = libm::sqrt(f64::from(u32::try_from(blocks).unwrap_or(u32::MAX)));
    reach * lasting * libm::sqrt(expected.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(series: u32, metric: &str, start_ms: u64, end_ms: Option<u64>, severity: f32) -> Told {
        Told {
            metric: metric.to_owned(),
            start_ms,
            end_ms,
            severity,
            series,
            revision: if end_ms.is_none() { 1 } else { 2 },
            ..Told::default()
        }
    }

    fn sale(expected: f64, actual: f64) -> Sale<'static> {
        Sale {
            series: 7,
            level: 0.0,
            metric: "sales.count",
            unit: "{transaction}",
            labels: Vec::new(),
            expected,
            actual,
        }
    }

    #[test]
    fn findings_of_the_series_of_one_store_are_one_episode_and_each_metric_stands_once() {
        let mut local = Local::default();
        local.hear(told(1, "latency", 0, None, 2.0));
        local.hear(told(2, "latency", 10_000, None, 3.0));
        local.hear(told(3, "sales", 60_000, None, 1.5));
        local.hear(told(1, "latency", 0, Some(120_000), 2.0));
        local.hear(told(3, "sales", 60_000, Some(300_000), 4.0));
        local.hear(told(2, "latency", 10_000, Some(200_000), 3.0));
        let episode = local.episodes().next().unwrap().clone();
        let of: Vec<(&str, u32, u32)> = episode
            .told
            .iter()
            .map(|told| (told.metric.as_str(), told.series, told.also))
            .collect();
        assert_eq!(of, [("sales", 3, 0), ("latency", 2, 1)]);
        assert_eq!((episode.start_ms, episode.end_ms), (0, Some(300_000)));
        local.hear(told(1, "latency", 800_000, None, 2.0));
        assert_eq!(local.episodes().count(), 1, "soon after it belongs to it");
        local.hear(told(1, "latency", 800_000, Some(900_000), 2.0));
        local.hear(told(1, "latency", 1_600_000, None, 2.0));
        assert_eq!(local.episodes().count(), 2);
    }

    #[test]
    fn lost_sales_are_added_up_while_an_episode_is_open_and_only_then() {
        let mut local = Local::default();
        local.sell(0, 10_000, true, &[sale(5.0, 5.0)]);
        local.hear(told(1, "latency", 10_000, None, 2.0));
        (1..=6).for_each(|window| local.sell(window * 10_000, 10_000, true, &[sale(5.0, 1.0)]));
        local.hear(told(1, "latency", 10_000, Some(70_000), 2.0));
        local.sell(70_000, 10_000, true, &[sale(5.0, 0.0)]);
        let sold = &local.episodes().next().unwrap().sold[&7];
        assert!(
            (sold.expected - 30.0).abs() < 1e-9 && (sold.actual - 6.0).abs() < 1e-9,
            "{sold:?}"
        );
        assert!(sold.reach > 0.0 && sold.reach < 24.0, "{sold:?}");
    }

    /// Half of the error of a window lasts for hours, which no root of a sum would say.
    #[test]
    fn nine_of_ten_sums_lie_within_the_reach_of_their_length() {
        let mut local = Local::default();
        let (mut state, mut slow) = (5_u32, 0.0);
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24) - 0.5
        };
        let (mut inside, mut all) = ([0_u32; LENGTHS], [0_u32; LENGTHS]);
        let mut sums = [(0.0, 0.0); LENGTHS];
        for window in 0..60_000_u64 {
            slow = 0.98 * slow + noise();
            let sale = sale(100.0, 100.0 + 10.0 * slow + 30.0 * noise());
            for (length, (expected, actual)) in sums.iter_mut().enumerate() {
                if window.is_multiple_of(1 << length) && window > 20_000 {
                    let reach = reach(&local.checks[&7], *expected, SHORTEST_MS << length);
                    all[length] += 1;
                    inside[length] += u32::from((*actual - *expected).abs() <= reach);
                }
                if window.is_multiple_of(1 << length) {
                    (*expected, *actual) = (0.0, 0.0);
                }
                *expected += sale.expected;
                *actual += sale.actual;
            }
            local.sell(window * SHORTEST_MS, 300_000, true, &[sale]);
        }
        for length in 0..LENGTHS {
            let share = f64::from(inside[length]) / f64::from(all[length]);
            assert!((0.87..0.93).contains(&share), "{length}: {share}");
        }
    }
}
