//! What one reading of a broker says, queue by queue, added up under the names that may be reported.
//!
//! In: values of a queue as far as they are known. Out: samples, and what has come in and gone out since the reading
//! before. What is not known stays unknown: it is never a zero.

use std::collections::{BTreeMap, BTreeSet};

use tillwatch_sdk::Batch;

use crate::metric;
use crate::queues::{OTHER, QUEUES_MAX, Queues};

/// Queues whose totals are kept between two readings; 26 bytes of the state each.
const TRACKED_MAX: usize = 1_500;
/// The year 2000: before it there were no such brokers.
const FIRST_TIME_MS: i64 = 946_684_800_000;
/// Another machine's clock may be ahead.
const AHEAD_MS_MAX: i64 = 86_400_000;
/// The layout of the state.
const STATE_VERSION: u8 = 1;
const ENTRY_BYTES: usize = 26;

/// What is known of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) depth: Option<i64>,
    pub(crate) unacked: Option<i64>,
    pub(crate) consumers: Option<i64>,
    pub(crate) oldest_age_ms: Option<i64>,
    /// All that ever came in and went out, as the broker counts.
    pub(crate) moved: [Option<i64>; 2],
}

/// What waits in one queue, or in all that share a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    /// Nobody spoke of it.
    #[default]
    Untold,
    /// It was to be told, and was not.
    Unknown,
    Known(i64),
}

/// Depth, oldest age, unacknowledged, consumers.
pub(crate) type Levels = [Level; 4];

/// How the levels of two queues with one name go together.
const TOGETHER: [fn(i64, i64) -> i64; 4] = [i64::saturating_add, i64::max, i64::saturating_add, i64::saturating_add];

/// All that is told of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    levels: Levels,
    moved: [Option<i64>; 2],
}

/// Totals of queues at the reading before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted(BTreeMap<u64, [Option<i64>; 2]>);

/// One reading.
pub(crate) struct Sheet<'q> {
    queues: &'q Queues,
    rows: BTreeMap<String, Row>,
    before: Counted,
    now: Counted,
    /// A total that was missing and is there now has begun at 0.
    begins_at_zero: bool,
    told: usize,
    missing: BTreeSet<&'q str>,
}

impl<'q> Sheet<'q> {
    pub(crate) fn new(queues: &'q Queues, before: Counted, begins_at_zero: bool) -> Self {
        Self {
            queues,
            rows: BTreeMap::new(),
            before,
            now: Counted::default(),
            begins_at_zero,
            told: 0,
            missing: queues.exact().map(|(name, _shown)| name).collect(),
        }
    }

    /// Adds what is known of a queue; `key` tells it from all others of the broker.
    pub(crate) fn add(&mut self, queue: Option<&str>, key: u64, reading: &Reading) {
        self.add_part(queue, key, reading.levels(), reading.moved);
    }

    /// Adds one part of what is known of a queue; others may come as parts of their own.
    pub(crate) fn add_part(&mut self, queue: Option<&str>, key: u64, levels: Levels, moved: [Option<i64>; 2]) {
        self.told = self.told.saturating_add(1);
        if let Some(queue) = queue {
            self.missing.remove(queue);
        }
        let moved = self.count(key, moved);
        let row = self.add_levels(queue, levels);
        for (total, moved) in row.moved.iter_mut().zip(moved) {
            *total = sum(*total, moved);
        }
    }

    /// A queue of which nothing but its name is told: it is not among those that were told of.
    pub(crate) fn add_unknown(&mut self, queue: &str) {
        self.add_levels(Some(queue), [Level::Unknown; 4]);
    }

    fn add_levels(&mut self, queue: Option<&str>, levels: Levels) -> &mut Row {
        let name = self.queues.name_of(queue);
        let is_room = self.rows.len() < QUEUES_MAX || self.rows.contains_key(&*name);
        let name = if is_room { &name } else { OTHER };
        let row = self.rows.entry(name.to_owned()).or_default();
        for ((total, level), together) in row.levels.iter_mut().zip(levels).zip(TOGETHER) {
            *total = total.with(level, together, name == OTHER);
        }
        row
    }

    /// What came in and went out since the reading before.
    fn count(&mut self, key: u64, totals: [Option<i64>; 2]) -> [Option<i64>; 2] {
        let begins_at_zero = self.begins_at_zero;
        let before = self.before.0.get(&key).copied();
        let is_known = totals != [None; 2] || begins_at_zero || before.is_some();
        let is_room = self.now.0.len() < TRACKED_MAX || self.now.0.contains_key(&key);
        if !is_room || !is_known {
            return [None; 2];
        }
        // In and out may come apart, as on two lines, and a broker may leave out what it told before.
        let kept = self.now.0.entry(key).or_insert(before.unwrap_or_default());
        let [came, _went] = totals;
        let came_before = before.and_then(|[came, _went]| came);
        let goes_on = came.zip(came_before).map(|(came, before)| came >= before);
        let mut moved = [None; 2];
        for (((moved, kept), total), before_all) in
            moved.iter_mut().zip(kept).zip(totals).zip(before.unwrap_or_default())
        {
            let Some(total) = total else {
                if goes_on == Some(false) && *kept == before_all {
                    *kept = None;
                }
                continue;
            };
            *moved = match before_all {
                Some(before) if total >= before => Some(total.saturating_sub(before)),
                // A new consumer that begins at the front: what went out before does not go out again.
                Some(_) if goes_on == Some(true) => {
                    *moved = Some(0);
                    continue;
                }
                // The broker, or only its statistics, began anew.
                Some(_) => Some(total),
                None if begins_at_zero && before.is_some() => Some(total),
                None => None,
            };
            *kept = Some(total);
        }
        moved
    }

    /// How many queues the broker told of.
    pub(crate) fn told(&self) -> usize {
        self.told
    }

    /// Whether it told anything of one of them.
    pub(crate) fn knows_anything(&self) -> bool {
        let is_counted = self.now.0.values().flatten().any(Option::is_some);
        let mut levels = self.rows.values().flat_map(|row| row.levels);
        is_counted || levels.any(|level| level.known().is_some())
    }

    /// How many of the named queues it did not tell of.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Pushes what is known; gives the totals to keep.
    pub(crate) fn push(self, system: &str, now_ms: u64, batch: &mut Batch) -> Counted {
        for (name, row) in &self.rows {
            let [depth, oldest_age_ms, unacked, consumers] = row.levels.map(Level::known);
            let [came, went] = row.moved;
            let values = [
                (metric::QUEUE_DEPTH, depth),
                (metric::QUEUE_OLDEST_AGE, oldest_age_ms),
                (metric::QUEUE_UNACKED, unacked),
                (metric::QUEUE_CONSUMERS, consumers),
                (metric::QUEUE_IN, came),
                (metric::QUEUE_OUT, went),
            ];
            for (metric, value) in values {
                if let Some(value) = value {
                    batch.push_integer(metric, &[system, name], value, now_ms);
                }
            }
        }
        self.now
    }
}

impl Reading {
    /// What does not wait has no age.
    fn levels(&self) -> Levels {
        let age = match (self.depth, self.oldest_age_ms) {
            (Some(0), None) => Level::Untold,
            (_, age_ms) => age_ms.into(),
        };
        [self.depth.into(), age, self.unacked.into(), self.consumers.into()]
    }
}

impl Level {
    fn known(self) -> Option<i64> {
        match self {
            Self::Known(value) => Some(value),
            Self::Untold | Self::Unknown => None,
        }
    }

    /// Of queues that nobody named, what is known of some counts; else one that is unknown makes the whole unknown.
    fn with(self, other: Self, together: fn(i64, i64) -> i64, is_partial: bool) -> Self {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => Self::Known(together(one, other)),
            (Self::Untold, level) | (level, Self::Untold) => level,
            (Self::Known(value), Self::Unknown) | (Self::Unknown, Self::Known(value)) if is_partial => {
                Self::Known(value)
            }
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
        }
    }
}

impl From<Option<i64>> for Level {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Self::Unknown, Self::Known)
    }
}

/// Of what has this time; none when that cannot be one.
pub(crate) fn age_ms(now_ms: i64, at_ms: i64) -> Option<i64> {
    let is_time = (FIRST_TIME_MS..=now_ms.saturating_add(AHEAD_MS_MAX)).contains(&at_ms);
    is_time.then(|| now_ms.saturating_sub(at_ms).max(0))
}

fn sum(total: Option<i64>, value: Option<i64>) -> Option<i64> {
    match (total, value) {
        (Some(total), Some(value)) => Some(total.saturating_add(value)),
        (total, value) => total.or(value),
    }
}

impl Counted {
    /// Of what [`Counted::encode`] made; none when that was another source's, or cannot be read.
    pub(crate) fn decode(bytes: &[u8], source: u64) -> Option<Self> {
        let (head, entries) = bytes.split_at_checked(9)?;
        let [version, fingerprint @ ..] = head else { return None };
        let fingerprint = u64::from_le_bytes(fingerprint.try_into().ok()?);
        if *version != STATE_VERSION || fingerprint != source || entries.len().checked_rem(ENTRY_BYTES)? != 0 {
            return None;
        }
        let mut counted = BTreeMap::new();
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let (key, totals) = entry.split_at_checked(8)?;
            let (came, went) = totals.split_at_checked(9)?;
            counted.insert(u64::from_le_bytes(key.try_into().ok()?), [total(came)?, total(went)?]);
        }
        Some(Self(counted))
    }

    /// For the state, with a word for what was counted.
    pub(crate) fn encode(&self, source: u64) -> Vec<u8> {
        let mut bytes = vec![STATE_VERSION];
        bytes.extend(source.to_le_bytes());
        for (key, totals) in &self.0 {
            bytes.extend(key.to_le_bytes());
            for total in totals {
                bytes.push(u8::from(total.is_some()));
                bytes.extend(total.unwrap_or_default().to_le_bytes());
            }
        }
        bytes
    }
}

fn total(bytes: &[u8]) -> Option<Option<i64>> {
    let (known, value) = bytes.split_first()?;
    let value = i64::from_le_bytes(value.try_into().ok()?);
    match known {
        0 => Some(None),
        1 => Some(Some(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Queues {
        Queues::new("a".to_owned(), &["tlog".to_owned(), "p*".to_owned()]).unwrap()
    }

    fn moved(came: Option<i64>, went: Option<i64>) -> Reading {
        Reading {
            moved: [came, went],
            ..Reading::default()
        }
    }

    fn read(before: Counted, begins_at_zero: bool, reading: &Reading) -> ([Option<i64>; 2], Counted) {
        let queues = queues();
        let mut sheet = Sheet::new(&queues, before, begins_at_zero);
        sheet.add(Some("tlog"), 7, reading);
        let moved = sheet.rows["tlog"].moved;
        (moved, sheet.push("sql", 0, &mut Batch::default()))
    }

    #[test]
    fn totals_become_what_has_moved_since_the_reading_before() {
        let (first, kept) = read(Counted::default(), false, &moved(Some(100), Some(90)));
        assert_eq!(first, [None, None], "nobody knows since when");
        let kept = Counted::decode(&kept.encode(3), 3).unwrap();
        let (second, kept) = read(kept, false, &moved(Some(130), Some(95)));
        assert_eq!(second, [Some(30), Some(5)]);
        let (after_restart, kept) = read(kept, false, &moved(Some(4), None));
        assert_eq!(after_restart, [Some(4), None]);
        let (appeared, _kept) = read(kept, false, &moved(Some(4), Some(9)));
        assert_eq!(appeared, [Some(0), None]);
    }

    #[test]
    fn a_broker_that_leaves_out_zeros_begins_there() {
        let (first, kept) = read(Counted::default(), true, &moved(None, None));
        assert_eq!(first, [None, None]);
        let (second, _kept) = read(kept, true, &moved(Some(5), None));
        assert_eq!(second, [Some(5), None]);
    }

    /// A broker that left its totals out for once: all that had ever moved moved again.
    #[test]
    fn totals_that_are_missing_once_go_on_from_where_they_were() {
        for begins_at_zero in [false, true] {
            let (_moved, kept) = read(Counted::default(), begins_at_zero, &moved(Some(100_000), Some(90_000)));
            let (missing, kept) = read(kept, begins_at_zero, &moved(None, None));
            assert_eq!(missing, [None, None]);
            let (moved, _kept) = read(kept, begins_at_zero, &moved(Some(100_005), Some(90_003)));
            assert_eq!(moved, [Some(5), Some(3)]);
        }
    }

    /// A new consumer begins at the front of what all others have acknowledged.
    #[test]
    fn what_went_out_does_not_go_out_again_for_a_new_consumer() {
        let (_moved, kept) = read(Counted::default(), false, &moved(Some(1_000), Some(1_000)));
        let (joined, kept) = read(kept, false, &moved(Some(1_000), Some(0)));
        assert_eq!(joined, [Some(0), Some(0)]);
        let (caught_up, kept) = read(kept, false, &moved(Some(1_010), Some(1_005)));
        assert_eq!(caught_up, [Some(10), Some(5)]);
        let (began_anew, _kept) = read(kept, false, &moved(Some(3), Some(2)));
        assert_eq!(began_anew, [Some(3), Some(2)]);
    }

    #[test]
    fn an_age_is_of_what_can_be_a_time() {
        let now_ms = 1_795_415_927_250;
        assert_eq!(age_ms(now_ms, now_ms - 5_000), Some(5_000));
        assert_eq!(age_ms(now_ms, now_ms + 5_000), Some(0));
        assert_eq!(age_ms(now_ms, 1), None);
        assert_eq!(age_ms(now_ms, now_ms * 1_000), None);
    }

    #[test]
    fn unknown_values_stay_unknown_and_others_add_up() {
        let queues = queues();
        let mut sheet = Sheet::new(&queues, Counted::default(), false);
        let depth = |depth| Reading {
            depth,
            ..Reading::default()
        };
        sheet.add(Some("x"), 1, &depth(None));
        assert_eq!(sheet.rows[OTHER].levels[0], Level::Unknown);
        sheet.add(Some("y"), 2, &depth(Some(0)));
        sheet.add(Some("z"), 3, &depth(Some(4)));
        assert_eq!(sheet.rows[OTHER].levels[0], Level::Known(4));
        assert_eq!((sheet.told(), sheet.missing()), (3, 1));
    }

    /// `tlog=pos.*` over a queue with 5 messages and one without statistics was told to be 5 deep.
    #[test]
    fn a_name_that_is_shared_with_what_is_unknown_is_unknown() {
        let queues = Queues::new("a".to_owned(), &["tlog=pos.*".to_owned()]).unwrap();
        let reading = |depth, oldest_age_ms| Reading {
            depth,
            oldest_age_ms,
            consumers: Some(1),
            ..Reading::default()
        };
        let (full, empty, unknown) = (
            reading(Some(5), Some(7)),
            reading(Some(0), None),
            reading(None, Some(9)),
        );
        let levels = |readings: &[Reading]| {
            let mut sheet = Sheet::new(&queues, Counted::default(), false);
            for (reading, key) in readings.iter().zip(0..) {
                sheet.add(Some("pos.1"), key, reading);
            }
            sheet.rows["tlog"].levels.map(Level::known)
        };
        assert_eq!(levels(&[full, empty]), [Some(5), Some(7), None, Some(2)]);
        assert_eq!(levels(&[full, unknown]), [None, Some(9), None, Some(2)]);
        assert_eq!(levels(&[unknown, full]), [None, Some(9), None, Some(2)]);
        assert_eq!(levels(&[full, reading(Some(1), None)]), [Some(6), None, None, Some(2)]);
    }

    #[test]
    fn names_and_what_is_kept_are_bounded() {
        let queues = queues();
        let mut sheet = Sheet::new(&queues, Counted::default(), false);
        for number in 0..5_000_u64 {
            sheet.add(Some(&format!("p{number}")), number, &moved(Some(1), Some(1)));
        }
        assert!(sheet.rows.len() <= QUEUES_MAX + 1 && sheet.rows.contains_key(OTHER));
        let kept = sheet.push("sql", 0, &mut Batch::default()).encode(0);
        assert!(kept.len() < 64 << 10, "{} bytes", kept.len());
    }

    #[test]
    fn state_of_another_source_or_of_nobody_is_not_taken() {
        let (_moved, kept) = read(Counted::default(), false, &moved(Some(1), None));
        let bytes = kept.encode(3);
        assert_eq!(Counted::decode(&bytes, 3), Some(kept));
        assert_eq!(Counted::decode(&bytes, 4), None);
        assert_eq!(Counted::decode(b"", 3), None);
        for end in 0..bytes.len() {
            assert!(Counted::decode(&bytes[..end], 3).is_none_or(|counted| counted.0.is_empty()));
        }
    }
}
