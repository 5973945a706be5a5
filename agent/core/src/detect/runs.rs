//! Events too rare for one window: what a run of windows says of them together.
//!
//! In: the expected and the actual count of each window. Out: how much likelier the run is, as a logarithm, if there are
//! no events any more, fewer of them, or more of them than expected, beside the bar for each.

/// Nothing any more is an alarm from here on; fewer and more need more, as they are measured from the best of all moments
/// to have begun.
const BARS: [f32; 3] = [ZERO_BAR, RATIO_BAR, RATIO_BAR];
const ZERO_BAR: f32 = 16.0;
const RATIO_BAR: f32 = 18.0;

/// Fewer and more are so many times the expected events; the logarithms beside them.
const FEWER: f32 = 0.4;
const FEWER_LN: f32 = -0.916_290_7;
const MORE: f32 = 1.7;
const MORE_LN: f32 = 0.530_628_3;

/// What a store differs from its expectation lasts for many windows: fewer and more weigh their variance as if it grew by
/// this share of the expected count. Of many events a window the sustained statistics say more than a run does.
const LASTING: f32 = 0.4;

/// From here on the noise is that of amounts, which the root does not even out while they are rare: it counts double.
const AMOUNTS: f32 = 4.0;

/// Beyond the largest run that ended by itself by so much.
const MARGIN: f32 = 1.15;

/// A run counts at most so many times its bar: it must be able to end.
const MOST: f32 = 2.0;

/// Halves in about sixteen days of windows of ten seconds.
const HIGH_DECAY: f32 = 0.999_995;

/// One logarithm of a likelihood ratio, summed since the best moment to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Run {
    pub(crate) now: f32,
    /// The largest since it began.
    pub(crate) peak: f32,
    /// The largest that ended by itself, slowly forgotten.
    pub(crate) high: f32,
}

/// Of nothing, of fewer events and of more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Runs(pub(crate) [Run; 3]);

impl Run {
    fn step(&mut self, gain: f32, most: f32) {
        self.high *= HIGH_DECAY;
        self.now = (self.now + gain).clamp(0.0, most);
        self.peak = self.peak.max(self.now);
        if self.now <= 0.0 {
            self.high = self.high.max(self.peak);
            self.peak = 0.0;
        }
    }
}

impl Runs {
    /// Source: of a Poisson count with mean `n`, the logarithm of the likelihood of `x` at `r` times the mean, against
    /// that at the mean, is `n(1 - r) + x ln r`; summed and never below 0 it is Page's cumulative sum (Biometrika 41,
    /// 1954). Noise beyond Poisson's makes fewer independent events of both, by its variance on the transformed scale.
    pub(crate) fn step(&mut self, actual: f32, expected: f32, variance: f32) {
        let (actual, expected) = (actual.max(0.0), expected.max(0.0));
        let amounts = if variance > AMOUNTS { 2.0 } else { 1.0 };
        let noise = (amounts * variance).max(1.0);
        let nothing = if actual > 0.0 {
            f32::NEG_INFINITY
        } else {
            expected / noise
        };
        let noise = noise + LASTING * expected;
        let fewer = (expected * (1.0 - FEWER) + actual * FEWER_LN) / noise;
        let more = (expected * (1.0 - MORE) + actual * MORE_LN) / noise;
        for ((run, gain), bar) in self.0.iter_mut().zip([nothing, fewer, more]).zip(BARS) {
            run.step(gain, MOST * bar.max(MARGIN * run.high));
        }
    }

    /// Nothing is known of what was before.
    pub(crate) fn start_anew(&mut self) {
        self.0.iter_mut().for_each(|run| (run.now, run.peak) = (0.0, 0.0));
    }

    /// What is under alarm does not become the measure of alarms.
    pub(crate) fn forgive(&mut self) {
        self.0.iter_mut().for_each(|run| run.peak = 0.0);
    }

    /// 1 = at the bar.
    pub(crate) fn severity(&self) -> f32 {
        let severities = self
            .0
            .iter()
            .zip(BARS)
            .map(|(run, bar)| run.now / bar.max(MARGIN * run.high));
        severities.fold(0.0, f32::max)
    }

    /// The logarithm of the probability of no event in this run of zeros.
    pub(crate) fn zeros(&self) -> f32 {
        self.0[0].now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows_until_alarm(actual: [f32; 10], expected: f32) -> Option<usize> {
        let mut runs = Runs::default();
        (0..400).find(|at| {
            runs.step(actual[at % 10], expected, 1.0);
            runs.severity() >= 1.0
        })
    }

    #[test]
    fn nothing_fewer_and_more_events_are_each_found_and_the_expected_ones_are_not() {
        let some = |n: usize| std::array::from_fn(|at| if at < n { 1.0 } else { 0.0 });
        assert!((38..41).contains(&windows_until_alarm(some(0), 0.4).unwrap()));
        assert!((40..200).contains(&windows_until_alarm(some(1), 0.4).unwrap()));
        assert!((40..200).contains(&windows_until_alarm(some(8), 0.4).unwrap()));
        assert_eq!(windows_until_alarm(some(4), 0.4), None);
    }

    #[test]
    fn a_run_that_ended_by_itself_raises_the_bar_unless_it_was_an_alarm() {
        let mut runs = Runs::default();
        let quiet = |runs: &mut Runs, forgiven: bool| {
            (0..100).for_each(|_| runs.step(0.0, 0.3, 1.0));
            if forgiven {
                runs.forgive();
            }
            (0..100).for_each(|_| runs.step(1.0, 1.0, 1.0));
        };
        quiet(&mut runs, true);
        assert!(runs.0[0].high < 1.0, "{runs:?}");
        quiet(&mut runs, false);
        assert!(runs.0[0].high > 25.0 && runs.0[1].high > 10.0, "{runs:?}");
    }

    #[test]
    fn much_noise_makes_few_events_of_many() {
        let (mut cents, mut sales) = (Runs::default(), Runs::default());
        for _ in 0..20 {
            cents.step(0.0, 5_000.0, 2_500.0);
            sales.step(0.0, 1.0, 0.5);
        }
        assert!(
            (cents.severity() - sales.severity()).abs() < 1e-4,
            "{cents:?} {sales:?}"
        );
    }
}
