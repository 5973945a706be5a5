//! Novelty of a level: was the series ever here, did it ever come here like this, was it here at this hour?
//!
//! In: the values of a level in order, each with its hour; the range that was declared for it, if there is one.
//! Out: a surprise in nats, small while the series is young and after it was surprising. It never looks ahead: without a
//! declared range the eight levels are of the range so far, and what was seen moves with them when it grows.
//!
//! What is new counts `ln(n / news)`: the less often something new comes, the more it says (Good 1953, "The population
//! frequencies of species": the share of what is new is about the share of what was). Beside it stand, with less weight,
//! the ranks of a residual against the last minutes and of how far the values have been from their mean for a while.

use super::{single, to_f32};

const LEVELS: usize = 8;
const HOURS: usize = 24;

/// Where in `seen` each kind of novelty begins: a level; after the one before; after the two before; at an hour.
const KINDS: [usize; 4] = [0, LEVELS, LEVELS + LEVELS * LEVELS, LEVELS + 64 + 512];
pub(crate) const SEEN_BYTES: usize = (KINDS[3] + HOURS * LEVELS) / 8;

/// What each kind counts. The hour is of another sort than the three together, and counts as two of them.
const WEIGHTS: [f32; 4] = [1.0, 1.0, 1.0, 2.0];
/// What the two ranks count: they are surprised a little all the time.
const RANK_WEIGHT: f32 = 0.3;

/// A range that was left grows beyond the value that left it by this share.
const ROOM: f32 = 0.3;

/// Weights of the newest value: in mean and variance, in what the next is compared with, in what is sustained.
const MEAN_RATE: f32 = 0.01;
const LAST_RATE: f32 = 0.1;
const SUSTAINED_RATE: f32 = 0.1;

/// The first values teach the variance unclipped.
const UNCLIPPED: u32 = 50;
/// So much more than the variance at most teaches it.
const LEARN_CLIP: f32 = 16.0;
const SUSTAINED_CLIP: f32 = 8.0;
const VARIANCE_MIN: f32 = 1e-12;

/// A surprise makes the next ones smaller; half of it is left after 140 windows.
const HOLD: f32 = 0.995;

/// The more values there were, the more often the rarest of them comes by chance.
const AGE: f32 = 0.5;

/// Larger values are taken for these: their squares must be finite.
const LARGEST: f32 = 1e15;

/// What was learned of a level.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Novelty {
    /// A bit for each level, pair, triple, and level at an hour.
    pub(crate) seen: [u8; SEEN_BYTES],
    /// How often each kind was new.
    pub(crate) news: [u16; 4],
    pub(crate) n: u32,
    pub(crate) low: f32,
    pub(crate) high: f32,
    /// The range does not follow the values.
    pub(crate) declared: bool,
    /// The two levels before.
    pub(crate) before: [u8; 2],
    pub(crate) mean: f32,
    pub(crate) last: f32,
    pub(crate) variance: f32,
    pub(crate) sustained: f32,
    pub(crate) hold: f32,
    pub(crate) ranks: [Ranks; 2],
}

impl Novelty {
    pub(crate) fn new(range: Option<(f64, f64)>) -> Novelty {
        let (low, high) = range.map_or((0.0, 0.0), |(low, high)| (sound(low), sound(high)));
        Novelty {
            seen: [0; SEEN_BYTES],
            news: [0; 4],
            n: 0,
            low,
            high,
            declared: low < high,
            before: [0; 2],
            mean: 0.0,
            last: 0.0,
            variance: 0.0,
            sustained: 0.0,
            hold: 0.0,
            ranks: [const { Ranks::new() }; 2],
        }
    }

    /// How surprising the value is, in nats beyond what just was; then it is no news any more.
    pub(crate) fn step(&mut self, hour: usize, value: f64) -> f32 {
        let value = sound(value);
        if self.n == 0 {
            (self.mean, self.last) = (value, value);
            if !self.declared {
                (self.low, self.high) = (value, value);
            }
        }
        self.n = self.n.saturating_add(1);
        if !self.declared && !(self.low..=self.high).contains(&value) {
            self.widen(value);
        }
        let news = self.meet(hour, value);
        let surprise = (news + RANK_WEIGHT * self.rank(value)) / (1.0 + AGE * ln(to_f32(self.n)));
        let beyond = (surprise - self.hold).max(0.0);
        self.hold = (self.hold * HOLD).max(surprise);
        beyond
    }

    /// What is new of the level, and it is noted.
    fn meet(&mut self, hour: usize, value: f32) -> f32 {
        let level = level(value, self.low, self.high);
        let [last, first] = self.before.map(|level| usize::from(level) % LEVELS);
        let at = [
            level,
            last * 8 + level,
            first * 64 + last * 8 + level,
            hour.min(HOURS - 1) * 8 + level,
        ];
        self.before = [index(level), self.before[0]];
        let mut surprise = 0.0;
        for (kind, at) in at.into_iter().enumerate() {
            if !take(&mut self.seen, KINDS[kind] + at) {
                self.news[kind] = self.news[kind].saturating_add(1);
                surprise += WEIGHTS[kind] * ln((to_f32(self.n) + 1.0) / f32::from(self.news[kind]));
            }
        }
        surprise
    }

    /// How rare the residual and the sustained distance from the mean are, in nats; then they are learned.
    fn rank(&mut self, value: f32) -> f32 {
        let sd = self.variance.max(VARIANCE_MIN).sqrt();
        let (residual, off) = (value - self.last, value - self.mean);
        let z = (off / sd).clamp(-SUSTAINED_CLIP, SUSTAINED_CLIP);
        self.sustained += SUSTAINED_RATE * (z - self.sustained);
        let rare = self.ranks[0].step((residual / sd).abs()) + self.ranks[1].step(3.0 * self.sustained.abs());
        let rate = MEAN_RATE.max(1.0 / to_f32(self.n));
        let clip = if self.n <= UNCLIPPED {
            f32::INFINITY
        } else {
            LEARN_CLIP * sd * sd
        };
        self.mean += rate * off;
        self.variance += rate * (residual * residual - self.variance).min(clip);
        self.last += LAST_RATE * residual;
        rare
    }

    /// The range grows to hold the value, and what was seen moves to where its levels lie now.
    fn widen(&mut self, value: f32) {
        let (low, high) = (self.low, self.high);
        if value < low {
            self.low = value - ROOM * (high - value);
        } else {
            self.high = value + ROOM * (value - low);
        }
        if low >= high {
            return;
        }
        let center = |old: u8| low + (f32::from(old) + 0.5) / 8.0 * (high - low);
        let moved: [usize; LEVELS] = std::array::from_fn(|old| level(center(index(old)), self.low, self.high));
        let old = std::mem::replace(&mut self.seen, [0; SEEN_BYTES]);
        for at in (0..SEEN_BYTES * 8).filter(|at| old[at / 8] >> (at % 8) & 1 == 1) {
            take(&mut self.seen, place(at, &moved));
        }
        self.before = self.before.map(|old| index(moved[usize::from(old) % LEVELS]));
    }
}

/// Where a bit of `seen` lies after its levels moved; of an hour only the level is one.
fn place(at: usize, moved: &[usize; LEVELS]) -> usize {
    let kind = KINDS.iter().rposition(|from| at >= *from).unwrap_or(0);
    let [first, last, level] = [
        (at - KINDS[kind]) / 64,
        (at - KINDS[kind]) / 8 % 8,
        (at - KINDS[kind]) % 8,
    ];
    KINDS[kind]
        + match kind {
            0 => moved[level],
            1 => moved[last] * 8 + moved[level],
            2 => moved[first] * 64 + moved[last] * 8 + moved[level],
            _ => (at - KINDS[3]) / 8 * 8 + moved[level],
        }
}

/// Sets a bit; true if it was set.
fn take(seen: &mut [u8; SEEN_BYTES], at: usize) -> bool {
    let (byte, bit) = (&mut seen[at / 8], 1 << (at % 8));
    let was = *byte & bit != 0;
    *byte |= bit;
    was
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the levels"
)]
fn level(value: f32, low: f32, high: f32) -> usize {
    if high <= low {
        return 0;
    }
    ((value - low) / (high - low) * 8.0).clamp(0.0, 7.0) as usize
}

fn index(level: usize) -> u8 {
    u8::try_from(level).unwrap_or(0)
}

fn sound(value: f64) -> f32 {
    if value.is_nan() {
        0.0
    } else {
        single(value).clamp(-LARGEST, LARGEST)
    }
}

/// Bins of a magnitude, each a third wider than the one before.
pub(crate) const RANKS: usize = 32;
const LOWEST: f32 = 0.05;
const LOG_RATIO: f32 = 0.3;

/// A magnitude among its past.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranks {
    pub(crate) mass: [u16; RANKS],
    pub(crate) total: u32,
}

impl Ranks {
    const fn new() -> Ranks {
        Ranks {
            mass: [0; RANKS],
            total: 0,
        }
    }

    /// `-ln p`, and how far the magnitude is beyond all of the past; then it is learned.
    fn step(&mut self, magnitude: f32) -> f32 {
        let at = (ln((magnitude / LOWEST).max(1e-9)) / LOG_RATIO + 1.0).clamp(0.0, to_f32(31));
        let bin = bin(at);
        let beyond: u32 = self.mass[bin + 1..].iter().map(|mass| u32::from(*mass)).sum();
        let above = to_f32(beyond) + f32::from(self.mass[bin]) * (1.0 - (at - at.floor()));
        let mut surprise = ln((to_f32(self.total) + 1.0) / (above + 0.5));
        if above <= 0.0 {
            let top = self.mass.iter().rposition(|mass| *mass > 0).unwrap_or(0);
            surprise += LOG_RATIO * (at - f32::from(index(top))).max(0.0);
        }
        self.learn(bin);
        surprise
    }

    fn learn(&mut self, bin: usize) {
        if self.mass[bin] == u16::MAX {
            self.mass.iter_mut().for_each(|mass| *mass /= 2);
            self.total = self.mass.iter().map(|mass| u32::from(*mass)).sum();
        }
        self.mass[bin] += 1;
        self.total += 1;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the bins"
)]
fn bin(at: f32) -> usize {
    (at as usize).min(RANKS - 1)
}

/// The natural logarithm of a positive normal number to about 1e-4, from sums and products only: the same bits everywhere.
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = f32::from(u8::try_from(bits >> 23 & 0xff).unwrap_or(0)) - 127.0;
    let m = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let mantissa = -1.741_793_9 + (2.821_202_6 + (-1.469_956_8 + (0.447_179_55 - 0.056_570_85 * m) * m) * m) * m;
    exponent * std::f32::consts::LN_2 + mantissa
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level that goes up and down by the hour; `at` counts windows of five minutes.
    fn usual(at: usize) -> f64 {
        let hour = at / 12 % 24;
        let tide: u8 = if (8..20).contains(&hour) { 60 } else { 20 };
        f64::from(tide) + f64::from(u8::try_from(at * 7_919 % 11).unwrap())
    }

    fn learned(range: Option<(f64, f64)>) -> Novelty {
        let mut novelty = Novelty::new(range);
        for at in 0..288 * 7 {
            novelty.step(at / 12 % 24, usual(at));
        }
        novelty
    }

    #[test]
    fn a_level_never_seen_and_one_at_the_wrong_hour_surprise_and_the_usual_one_does_not() {
        for range in [None, Some((0.0, 100.0))] {
            let usual = learned(range).step(3, usual(3 * 12));
            let high = learned(range).step(3, 99.0);
            let wrong_hour = learned(range).step(3, 65.0);
            println!("{range:?}: usual {usual}, high {high}, at the wrong hour {wrong_hour}");
            assert!(usual < 0.1 && high > 3.0 && wrong_hour > 0.5);
        }
    }

    #[test]
    fn what_surprised_once_surprises_less_soon_after() {
        let mut novelty = learned(None);
        let first = novelty.step(3, 99.0);
        assert!(novelty.step(3, 99.0) < first / 2.0);
    }

    #[test]
    fn what_was_seen_moves_with_the_range() {
        let mut novelty = Novelty::new(None);
        for at in 0..400_u16 {
            novelty.step(0, f64::from(at % 2) * 80.0);
        }
        let (low, high) = (novelty.low, novelty.high);
        novelty.step(0, 1_000.0);
        assert!(low >= novelty.low && high < novelty.high);
        let news = novelty.news;
        // Both old levels, low ones now, are known at this hour; to come down from so high is new once.
        novelty.step(0, 0.0);
        assert_eq!((novelty.news[0], novelty.news[3]), (news[0], news[3]));
    }

    #[test]
    fn a_declared_range_stays() {
        let mut novelty = learned(Some((0.0, 100.0)));
        novelty.step(0, 1e9);
        novelty.step(0, f64::NAN);
        assert!((novelty.low, novelty.high) == (0.0, 100.0) && novelty.hold.is_finite());
    }

    #[test]
    fn the_logarithm_is_close() {
        for x in [1e-9_f32, 0.3, 1.0, 1.5, 2.0, 12_345.0, 1e15] {
            assert!((ln(x) - x.ln()).abs() < 5e-4, "{x}: {} {}", ln(x), x.ln());
        }
    }
}
