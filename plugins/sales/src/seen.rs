//! Which transactions were counted already, within a bound: lanes number their transactions one by one, so a day of a lane
//! is a few runs of numbers.
//!
//! Kept behind what [`crate::kept`] writes, little-endian:
//! ```text
//! 1 byte   version, 1
//! per lane and day
//!   4      day, as days since 1970 (before: or as yyyymmdd)
//!   8      hash of store and workstation
//!   2      runs
//!   16     per run: first and last number
//! ```

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// Beyond these the oldest day's lanes and lowest numbers are forgotten: they count again when they come again.
const LANES_MAX: usize = 512;
const RUNS_MAX: usize = 2048;

/// What tells a transaction from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    lane: Lane,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Lane {
    day: u32,
    hash: u64,
}

impl Key {
    /// One number for it, to tell whether the next row goes on with the same transaction.
    pub(crate) fn mark(self) -> i64 {
        let parts = [u64::from(self.lane.day), self.lane.hash, self.number].map(|part| part.to_string());
        hash(&parts.each_ref().map(String::as_str)).cast_signed()
    }

    /// `day` is yyyymmdd or days since 1970, `lane` are the parts that name a lane; a number that is none is hashed.
    pub(crate) fn new(day: u32, lane: &[&str], number: &str) -> Self {
        let number = number.parse().unwrap_or_else(|_| hash(&[number]));
        Self {
            lane: Lane {
                day: days_since_1970(day),
                hash: hash(lane),
            },
            number,
        }
    }
}

/// The transactions that were counted.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Runs of numbers, inclusive, ordered and apart.
    lanes: BTreeMap<Lane, VecDeque<(u64, u64)>>,
    runs: usize,
    changed: bool,
}

impl Seen {
    /// False when it was seen before.
    pub(crate) fn insert(&mut self, key: Key) -> bool {
        let runs = self.lanes.entry(key.lane).or_default();
        let before = runs.len();
        if !insert(runs, key.number) {
            return false;
        }
        self.runs = self.runs.saturating_sub(before).saturating_add(runs.len());
        self.changed = true;
        self.forget();
        true
    }

    /// Whether it was seen before.
    pub(crate) fn contains(&self, key: Key) -> bool {
        let runs = self.lanes.get(&key.lane);
        runs.is_some_and(|runs| runs.iter().any(|(first, last)| (*first..=*last).contains(&key.number)))
    }

    /// No more than the bounds ask for: a lane whose numbers are scattered must not lose all of them at once.
    fn forget(&mut self) {
        while self.lanes.len() > LANES_MAX {
            let forgotten = self.lanes.pop_first().map_or(0, |(_lane, runs)| runs.len());
            self.runs = self.runs.saturating_sub(forgotten);
        }
        while self.runs > RUNS_MAX {
            let Some(mut oldest) = self.lanes.first_entry() else {
                break;
            };
            oldest.get_mut().pop_front();
            self.runs = self.runs.saturating_sub(1);
            if oldest.get().is_empty() {
                oldest.remove();
            }
        }
    }

    /// Whether there is something new since the last time.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for (lane, runs) in &self.lanes {
            bytes.extend_from_slice(&lane.day.to_le_bytes());
            bytes.extend_from_slice(&lane.hash.to_le_bytes());
            let count = u16::try_from(runs.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&count.to_le_bytes());
            for (first, last) in runs.iter().take(usize::from(count)) {
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend_from_slice(&last.to_le_bytes());
            }
        }
        bytes
    }

    /// What was kept; none when it is of another version or damaged.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut seen = Self::default();
        if bytes.is_empty() {
            return Some(seen);
        }
        if take(&mut bytes)? != [VERSION] {
            return None;
        }
        while !bytes.is_empty() {
            let lane = Lane {
                day: days_since_1970(u32::from_le_bytes(take(&mut bytes)?)),
                hash: u64::from_le_bytes(take(&mut bytes)?),
            };
            let count = u16::from_le_bytes(take(&mut bytes)?);
            let runs = (0..count).map(|_| {
                let (first, last) = (
                    u64::from_le_bytes(take(&mut bytes)?),
                    u64::from_le_bytes(take(&mut bytes)?),
                );
                (first <= last).then_some((first, last))
            });
            let runs: VecDeque<_> = runs.collect::<Option<_>>()?;
            seen.runs = seen.runs.saturating_add(runs.len());
            seen.lanes.insert(lane, runs);
        }
        Some(seen)
    }
}

/// Adds a number to ordered runs; false when it is in one already.
fn insert(runs: &mut VecDeque<(u64, u64)>, number: u64) -> bool {
    let after = runs.partition_point(|(first, _)| *first <= number);
    let before = after.checked_sub(1).and_then(|before| runs.get(before)).copied();
    if before.is_some_and(|(_, last)| number <= last) {
        return false;
    }
    let joins_before = before.is_some_and(|(_, last)| last.checked_add(1) == Some(number));
    let next = runs
        .get(after)
        .copied()
        .filter(|(first, _)| number.checked_add(1) == Some(*first));
    if joins_before {
        if let Some(run) = after.checked_sub(1).and_then(|before| runs.get_mut(before)) {
            run.1 = next.map_or(number, |(_, last)| last);
        }
        if next.is_some() {
            runs.remove(after);
        }
    } else if let Some(run) = runs.get_mut(after).filter(|_| next.is_some()) {
        run.0 = number;
    } else {
        runs.insert(after, (number, number));
    }
    true
}

/// So that the first day is the oldest one, of whichever form.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
#[expect(clippy::arithmetic_side_effects, reason = "a year has six digits at most")]
fn days_since_1970(day: u32) -> u32 {
    if day < 10_000_000 {
        return day;
    }
    let (year, month, day) = (day / 10_000, day / 100 % 100, day % 100);
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day;
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).saturating_sub(719_469)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// FNV-1a with a mark between the parts. Source: RFC 9923, section 2.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(day: u32, lane: &str, number: u64) -> Key {
        Key::new(day, &["9", lane], &number.to_string())
    }

    #[test]
    fn each_number_of_a_lane_and_day_is_new_once() {
        let mut seen = Seen::default();
        for number in [160, 162, 161, 170, 1, 169, u64::MAX] {
            assert!(seen.insert(key(20_260_302, "34", number)), "{number}");
            assert!(!seen.insert(key(20_260_302, "34", number)), "{number}");
        }
        assert_eq!(
            seen.lanes.values().next().unwrap(),
            &[(1, 1), (160, 162), (169, 170), (u64::MAX, u64::MAX)]
        );
        assert!(seen.insert(key(20_260_303, "34", 160)));
        assert!(seen.insert(key(20_260_302, "35", 160)));
        assert!(seen.insert(Key::new(20_260_302, &["9", "34"], "A-160")));
        assert!(!seen.insert(Key::new(20_260_302, &["9", "34"], "A-160")));
    }

    #[test]
    fn days_of_either_form_are_the_same() {
        for (date, days) in [
            (19_700_101, 0),
            (20_000_229, 11_016),
            (20_260_302, 20_514),
            (20_261_231, 20_818),
        ] {
            assert_eq!((days_since_1970(date), days_since_1970(days)), (days, days));
        }
    }

    #[test]
    fn any_order_of_numbers_gives_the_same_runs() {
        let mut numbers: Vec<u64> = (0..400).collect();
        let mut random = 0x5eed_u64;
        for last in (1..numbers.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            numbers.swap(last, usize::try_from(random >> 33).unwrap() % (last + 1));
        }
        let mut runs = VecDeque::new();
        for number in numbers {
            assert!(insert(&mut runs, number * 2 % 401));
        }
        assert_eq!(runs, [(0, 398), (400, 400)]);
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut seen = Seen::default();
        assert!(!seen.take_changed());
        for number in [1, 2, 5] {
            seen.insert(key(20_260_302, "34", number));
        }
        assert!(seen.take_changed() && !seen.take_changed());
        let bytes = seen.encode();
        let mut again = Seen::decode(&bytes).unwrap();
        assert!(!again.insert(key(20_260_302, "34", 2)));
        assert!(again.insert(key(20_260_302, "34", 3)));
        assert_eq!(again.runs, 2);
        assert!(Seen::decode(bytes.split_last().unwrap().1).is_none());
        assert!(Seen::decode(&[2]).is_none());
        assert!(Seen::decode(&[]).is_some());
    }

    /// With numbers that are hashes each is a run of its own, and every 2,049th sale forgot the whole day.
    #[test]
    fn a_lane_of_scattered_numbers_forgets_the_lowest_of_them_only() {
        let mut seen = Seen::default();
        for number in 0..=2_048 {
            seen.insert(key(20_260_302, "34", 10 + number * 2));
        }
        assert_eq!(seen.runs, RUNS_MAX);
        assert!(!seen.insert(key(20_260_302, "34", 12)));
        assert!(!seen.insert(key(20_260_302, "34", 10 + 2_048 * 2)));
    }

    #[test]
    fn beyond_the_bounds_the_oldest_day_is_forgotten() {
        let mut seen = Seen::default();
        for day in 0..1_000 {
            for number in 0..10 {
                seen.insert(key(day, "34", number * 2));
            }
        }
        assert!(seen.runs <= RUNS_MAX && seen.lanes.len() <= LANES_MAX);
        assert!(seen.encode().len() < 48 * 1024);
        assert!(!seen.insert(key(999, "34", 18)));
        assert!(seen.insert(key(0, "34", 0)));
        for lane in 0..1_000 {
            seen.insert(key(2_000, &lane.to_string(), 1));
        }
        assert_eq!(seen.lanes.len(), LANES_MAX);
    }
}
