//! What each store made on each day, and what became of it: received + accounted for = produced.
//!
//! In: the tallies of the days and the marks of the generations, which are counted apart. Out: a line for each store and
//! day, and where the two counts contradict each other.
//! It never guesses: a record of which nobody knows more than its number is missing until it comes or is accounted for.
//!
//! A missing record has no day of its own. It counts on the day of the next record of its generation that came, which
//! is when it became known; a store that catches up on yesterday has it missing today, until it is there.

use crate::archive::{self, Archive as _, ArchiveError, Tally};
use crate::cursor::Mark;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tillwatch_feed::topic::SiteId;

/// Generations of a store that the API looks at, those heard last; what older ones still miss shows `reconcile` alone.
const GENERATIONS_READ: u32 = 64;

/// One store on one day (UTC, days since 1970).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Records that the store must have made, by their numbers.
    pub produced: u64,
    pub received: u64,
    /// Lost, and known to be: by a gap of the store, or at the center.
    pub accounted: u64,
    /// Produced, and neither received nor accounted for: on its way, or lost without a word.
    pub missing: u64,
}

/// A store and a day with its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub site: String,
    pub day: u32,
    #[serde(flatten)]
    pub figures: Day,
}

/// What the API reads them with, from a day on.
pub type Reader = Arc<dyn Fn(u32) -> Result<Books, ArchiveError> + Send + Sync>;

/// Reads them from an archive that is being written.
pub fn reader(path: &Path) -> Reader {
    let path = path.to_path_buf();
    Arc::new(move |from_day| {
        let archive = archive::open_to_read(&path)?;
        let (tallies, marks) = (archive.tallies(from_day)?, archive.marks(GENERATIONS_READ)?);
        Ok(balance(&tallies, &marks))
    })
}

/// All lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// By store, then day.
    pub lines: Vec<Line>,
    /// Stores whose days add up to something else than their numbers: a fault of the center.
    pub contradictions: Vec<String>,
}

impl Books {
    /// Lines in which something is missing.
    pub fn open(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.figures.missing > 0)
    }
}

type Days<'a> = BTreeMap<u32, &'a Tally>;

/// Balances all days of these tallies. A generation whose oldest days are not among them is not compared with its mark,
/// and what it misses of before is left out.
pub fn balance(tallies: &[Tally], marks: &[Mark]) -> Books {
    let mut generations: BTreeMap<(&SiteId, u64), Days<'_>> = BTreeMap::new();
    for tally in tallies {
        let days = generations.entry((&tally.site, tally.generation)).or_default();
        days.insert(tally.day, tally);
    }
    let mut lines: BTreeMap<(&SiteId, u32), Day> = BTreeMap::new();
    for ((site, _), days) in &generations {
        for (day, tally) in days {
            let line = lines.entry((site, *day)).or_default();
            line.received = line.received.saturating_add(tally.received);
            line.accounted = line.accounted.saturating_add(tally.accounted);
        }
    }
    let mut contradictions = Vec::new();
    for mark in marks {
        let Some(days) = generations.get(&(&mark.site, mark.generation)) else {
            continue;
        };
        let oldest = days.values().map(|tally| tally.seq_first).min();
        let holes = mark.settled.missing_in(1, mark.produced());
        let is_told = |hole: &(u64, u64)| oldest <= mark.settled.first() || Some(hole.1) > oldest;
        for (first, last) in holes.into_iter().filter(is_told) {
            let line = lines.entry((&mark.site, day_of(days, last))).or_default();
            line.missing = line.missing.saturating_add(last - first + 1);
        }
        if contradicts(mark, days) {
            contradictions.push(mark.site.to_string());
        }
    }
    contradictions.sort();
    contradictions.dedup();
    let lines = lines.into_iter().map(|((site, day), mut figures)| {
        figures.produced = figures.received + figures.accounted + figures.missing;
        let site = site.to_string();
        Line { site, day, figures }
    });
    Books {
        lines: lines.collect(),
        contradictions,
    }
}

/// The day of the first record behind `seq` that came.
fn day_of(days: &Days<'_>, seq: u64) -> u32 {
    let behind = days.iter().filter(|(_, tally)| tally.seq_last > seq);
    let next = behind.min_by_key(|(day, tally)| (tally.seq_last, **day));
    next.or_else(|| days.iter().next_back()).map_or(0, |(day, _)| *day)
}

/// Days and mark were counted apart, so that each is a check of the other.
fn contradicts(mark: &Mark, days: &Days<'_>) -> bool {
    let (first, oldest) = (mark.settled.first(), days.values().map(|tally| tally.seq_first).min());
    if oldest > first {
        return false; // older days are gone
    }
    let sum = |of: fn(&Tally) -> u64| days.values().map(|tally| of(tally)).sum::<u64>();
    let (received, accounted) = (sum(|tally| tally.received), sum(|tally| tally.accounted));
    (received, accounted) != (mark.received, mark.accounted) || received + accounted != mark.settled.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(generation: u64, day: u32, (seq_first, seq_last): (u64, u64), received: u64, accounted: u64) -> Tally {
        Tally {
            site: "a".parse().unwrap(),
            generation,
            day,
            seq_first,
            seq_last,
            received,
            accounted,
        }
    }

    fn mark(generation: u64, settled: &[(u64, u64)], accounted: u64) -> Mark {
        let settled: tillwatch_feed::ranges::RangeSet = settled.iter().copied().collect();
        Mark {
            site: "a".parse().unwrap(),
            shard: "a".parse().unwrap(),
            generation,
            received: settled.count() - accounted,
            settled,
            accounted,
            heard: 1,
        }
    }

    fn figures(books: &Books) -> Vec<(u32, u64, u64, u64, u64)> {
        let of = |line: &Line| {
            let Day {
                produced,
                received,
                accounted,
                missing,
            } = line.figures;
            (line.day, produced, received, accounted, missing)
        };
        books.lines.iter().map(of).collect()
    }

    #[test]
    fn a_day_is_balanced_over_all_generations_of_its_store() {
        let tallies = [
            tally(1, 5, (1, 100), 90, 10),
            tally(1, 6, (101, 120), 20, 0),
            tally(2, 6, (1, 30), 30, 0),
        ];
        let books = balance(&tallies, &[mark(1, &[(1, 120)], 10), mark(2, &[(1, 30)], 0)]);
        assert_eq!(figures(&books), [(5, 100, 90, 10, 0), (6, 50, 50, 0, 0)]);
        assert!(books.contradictions.is_empty() && books.open().next().is_none());
    }

    /// Live data goes before the backlog, so that a day's hole stands open until it is filled.
    #[test]
    fn what_is_missing_counts_on_the_day_that_made_it_known() {
        let tallies = [tally(1, 5, (1, 100), 100, 0), tally(1, 6, (340, 340), 1, 0)];
        let books = balance(&tallies, &[mark(1, &[(1, 100), (340, 340)], 0)]);
        assert_eq!(figures(&books), [(5, 100, 100, 0, 0), (6, 240, 1, 0, 239)]);
        assert_eq!(books.open().map(|line| line.day).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn days_and_marks_that_contradict_each_other_are_named() {
        let good = tally(1, 5, (1, 100), 100, 0);
        let off_by_one = Tally {
            received: 99,
            ..good.clone()
        };
        let marks = [mark(1, &[(1, 100)], 0)];
        assert!(balance(&[good], &marks).contradictions.is_empty());
        assert_eq!(balance(&[off_by_one], &marks).contradictions, ["a"]);
    }

    #[test]
    fn a_generation_whose_oldest_days_are_gone_is_no_contradiction() {
        let books = balance(&[tally(1, 9, (50, 100), 51, 0)], &[mark(1, &[(1, 10), (20, 100)], 0)]);
        assert!(books.contradictions.is_empty());
        assert_eq!(figures(&books), [(9, 51, 51, 0, 0)]);
    }
}
