//! Counts alarms: windows at or beyond a threshold that are close together are one episode.
//!
//! In: the score of each window, in order. Out: episodes per threshold, and the lowest threshold within a budget.
//! A threshold that alarms more than 2 % of the time is refused: its few long episodes would look like few alarms.

/// Windows at or beyond the threshold with less than so many between them are one episode.
pub(crate) const APART: u64 = 180;

/// Share of the windows that a threshold may alarm in.
const ALARMED_MAX: f64 = 0.02;

/// Thresholds that are tried: each 4 % above the one before.
const THRESHOLDS: usize = 140;
const LOWEST: f64 = 0.3;
const RATIO: f64 = 1.04;

/// What one or many series did at each threshold.
#[derive(Clone, Debug)]
pub(crate) struct Episodes {
    thresholds: Vec<f32>,
    episodes: Vec<u64>,
    alarmed: Vec<u64>,
    last: Vec<Option<u64>>,
    pub(crate) windows: u64,
}

impl Episodes {
    pub(crate) fn new() -> Episodes {
        let mut threshold = LOWEST;
        let next = |_| {
            threshold *= RATIO;
            threshold as f32
        };
        Episodes {
            thresholds: (0..THRESHOLDS).map(next).collect(),
            episodes: vec![0; THRESHOLDS],
            alarmed: vec![0; THRESHOLDS],
            last: vec![None; THRESHOLDS],
            windows: 0,
        }
    }

    /// A window that was judged.
    pub(crate) fn add(&mut self, window: u64, score: f32) {
        self.windows += 1;
        for at in 0..self.thresholds.partition_point(|threshold| *threshold <= score) {
            self.alarmed[at] += 1;
            if self.last[at].is_none_or(|last| window - last > APART) {
                self.episodes[at] += 1;
            }
            self.last[at] = Some(window);
        }
    }

    /// Adds what another series did.
    pub(crate) fn merge(&mut self, other: &Episodes) {
        let add = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.episodes, &other.episodes);
        add(&mut self.alarmed, &other.alarmed);
        self.windows += other.windows;
    }

    /// The lowest threshold with at most so many episodes in so many windows, from where on all higher ones keep to it.
    pub(crate) fn threshold(&self, episodes: f64, windows: f64) -> Option<f32> {
        let budget = episodes * self.windows as f64 / windows;
        let kept = |at: &usize| {
            self.episodes[*at] as f64 <= budget && self.alarmed[*at] as f64 <= ALARMED_MAX * self.windows as f64
        };
        let first = (0..THRESHOLDS).rev().take_while(kept).last()?;
        Some(self.thresholds[first])
    }
}

/// Episodes of alarms that are either on or off.
pub(crate) fn count(alarms: impl Iterator<Item = (u64, bool)>) -> u64 {
    let mut last: Option<u64> = None;
    let mut episodes = 0;
    for (window, _) in alarms.filter(|(_, on)| *on) {
        episodes += u64::from(last.is_none_or(|last| window - last > APART));
        last = Some(window);
    }
    episodes
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// Each alarm begins an episode unless any window shortly before it alarmed.
    fn by_hand(scores: &[(u64, f32)], threshold: f32) -> u64 {
        let alarms: Vec<u64> = scores
            .iter()
            .filter(|(_, score)| *score >= threshold)
            .map(|(at, _)| *at)
            .collect();
        let begins = |at: &&u64| !alarms.iter().any(|other| other < at && **at - other <= APART);
        alarms.iter().filter(begins).count() as u64
    }

    fn wild(seed: u64) -> Vec<(u64, f32)> {
        let mut random = Random::new(seed);
        let mut at = 0;
        (0..3_000)
            .map(|_| {
                at += 1 + if random.uniform() < 0.01 { 200 } else { 0 };
                let score = 0.3 / random.uniform().sqrt();
                (at, score as f32)
            })
            .collect()
    }

    #[test]
    fn episodes_are_those_that_are_counted_by_hand() {
        for seed in 1..=20 {
            let scores = wild(seed);
            let mut episodes = Episodes::new();
            scores.iter().for_each(|(at, score)| episodes.add(*at, *score));
            for at in 0..THRESHOLDS {
                let threshold = episodes.thresholds[at];
                assert_eq!(
                    episodes.episodes[at],
                    by_hand(&scores, threshold),
                    "seed {seed}, {threshold}"
                );
                let on = count(scores.iter().map(|(at, score)| (*at, *score >= threshold)));
                assert_eq!(episodes.episodes[at], on, "seed {seed}, {threshold}");
            }
        }
    }

    #[test]
    fn the_threshold_keeps_to_the_budget_and_a_lower_one_does_not() {
        for seed in 1..=20 {
            let scores = wild(seed);
            let mut episodes = Episodes::new();
            scores.iter().for_each(|(at, score)| episodes.add(*at, *score));
            let threshold = episodes.threshold(4.0, 3_000.0).unwrap();
            assert!(by_hand(&scores, threshold) <= 4);
            let lower = threshold / RATIO as f32 * 0.999;
            let alarmed = scores.iter().filter(|(_, score)| *score >= lower).count();
            assert!(by_hand(&scores, lower) > 4 || alarmed > 60, "seed {seed}");
        }
    }

    #[test]
    fn a_threshold_that_always_alarms_is_refused() {
        let mut episodes = Episodes::new();
        (0..1_000).for_each(|at| episodes.add(at, 2.0));
        assert!(episodes.threshold(10.0, 1_000.0).unwrap() > 2.0);
    }
}
