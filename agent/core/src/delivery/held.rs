//! What the spool holds, as delivery sees it: runs of records and gaps, by generation, in the order of the spool.
//!
//! In: new runs, gaps, what is acknowledged. Out: the oldest record that is still needed.
//! It never keeps an entry per record: a backlog of a month is a few runs.

use std::collections::VecDeque;

use tillwatch_feed::message::RecordId;
use tillwatch_feed::ranges::RangeSet;

use crate::record::{HeldGap, Run};

/// What is held of one life of the numbering.
#[derive(Clone, Debug)]
pub(super) struct HeldGeneration {
    pub(super) generation: u64,
    /// The newest record that was ever held or lost.
    pub(super) seq_last: u64,
    /// Ascending, disjoint.
    pub(super) runs: VecDeque<Run>,
    /// Ascending, disjoint.
    pub(super) gaps: Vec<HeldGap>,
}

/// All that is held, oldest generation first.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) generations: Vec<HeldGeneration>,
}

impl Held {
    pub(super) fn generation(&self, generation: u64) -> Option<&HeldGeneration> {
        self.generations.iter().find(|held| held.generation == generation)
    }

    pub(super) fn newest_generation(&self) -> Option<u64> {
        self.generations.last().map(|held| held.generation)
    }

    /// The newest record that is held.
    pub(super) fn newest(&self) -> Option<RecordId> {
        self.generations
            .iter()
            .rev()
            .find_map(|held| held.runs.back().map(Run::last))
    }

    pub(super) fn push(&mut self, run: Run) {
        let at = match self
            .generations
            .iter()
            .position(|held| held.generation == run.generation)
        {
            Some(at) => at,
            None => {
                self.generations.push(HeldGeneration::new(run.generation));
                self.generations.len() - 1
            }
        };
        self.generations[at].push(run);
    }

    /// The records of the gap are no longer held; what is left of them is to be told.
    pub(super) fn lose(&mut self, gap: HeldGap) {
        let at = match self
            .generations
            .iter()
            .position(|held| held.generation == gap.generation)
        {
            Some(at) => at,
            None => {
                // Only what is older than everything held is lost as a whole.
                let at = self.generations.iter().take_while(|held| held.runs.is_empty()).count();
                self.generations.insert(at, HeldGeneration::new(gap.generation));
                at
            }
        };
        self.generations[at].lose(gap);
    }

    /// Forgets the gaps that need not be told.
    pub(super) fn forget_gaps(&mut self, told: impl Fn(u64) -> RangeSet) {
        for held in self.generations.iter_mut().filter(|held| !held.gaps.is_empty()) {
            let told = told(held.generation);
            held.gaps.retain(|gap| !told.contains_all(gap.seq_first, gap.seq_last));
        }
    }

    /// Forgets the longest run from the oldest on that is acknowledged; the newest record that may be deleted.
    pub(super) fn release(&mut self, acked: impl Fn(u64) -> RangeSet) -> Option<RecordId> {
        let mut released = None;
        for held in &mut self.generations {
            let acked = acked(held.generation);
            let (through, complete) = held.release(&acked);
            released = through.or(released);
            if !complete {
                break;
            }
        }
        let newest = self.generations.last().map(|held| held.generation);
        self.generations
            .retain(|held| !held.is_empty() || Some(held.generation) == newest);
        released
    }
}

impl HeldGeneration {
    fn new(generation: u64) -> HeldGeneration {
        HeldGeneration {
            generation,
            seq_last: 0,
            runs: VecDeque::new(),
            gaps: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.gaps.is_empty()
    }

    /// Smallest seq that is held or told as lost.
    pub(super) fn oldest(&self) -> Option<u64> {
        let run = self.runs.front().map(|run| run.seq_first);
        let gap = self.gaps.first().map(|gap| gap.seq_first);
        [run, gap].into_iter().flatten().min()
    }

    fn push(&mut self, run: Run) {
        self.seq_last = self.seq_last.max(run.seq_last);
        match self.runs.back_mut() {
            Some(last)
                if last.kind == run.kind
                    && last.schema == run.schema
                    && last.seq_last.checked_add(1) == Some(run.seq_first) =>
            {
                last.seq_last = run.seq_last;
            }
            _ => self.runs.push_back(run),
        }
    }

    fn lose(&mut self, gap: HeldGap) {
        self.seq_last = self.seq_last.max(gap.seq_last);
        self.runs = self
            .runs
            .iter()
            .flat_map(|run| without(*run, gap.seq_first, gap.seq_last))
            .collect();
        // A gap grows at its end while the spool stays full; what was known before is part of it.
        let mut gap = gap;
        self.gaps.retain(|known| {
            let joins = known.reason == gap.reason
                && known.seq_first <= gap.seq_last.saturating_add(1)
                && gap.seq_first <= known.seq_last.saturating_add(1);
            if joins {
                gap.seq_first = gap.seq_first.min(known.seq_first);
                gap.seq_last = gap.seq_last.max(known.seq_last);
            }
            !joins
        });
        let at = self.gaps.partition_point(|known| known.seq_first < gap.seq_first);
        self.gaps.insert(at, gap);
    }

    /// Forgets what is acknowledged from the front; the last record of that, and whether nothing else is left.
    fn release(&mut self, acked: &RangeSet) -> (Option<RecordId>, bool) {
        self.gaps.retain(|gap| !acked.contains_all(gap.seq_first, gap.seq_last));
        let needed = self.oldest_needed(acked);
        let mut released = None;
        while let Some(run) = self.runs.front_mut() {
            if run.seq_first >= needed {
                break;
            }
            let through = run.seq_last.min(needed - 1);
            released = Some(RecordId {
                generation: self.generation,
                seq: through,
            });
            if through < run.seq_last {
                run.seq_first = through + 1;
                break;
            }
            self.runs.pop_front();
        }
        (released, self.is_empty())
    }

    fn oldest_needed(&self, acked: &RangeSet) -> u64 {
        let runs = self.runs.iter().map(|run| (run.seq_first, run.seq_last));
        let gaps = self.gaps.iter().map(|gap| (gap.seq_first, gap.seq_last));
        let first = |(first, last)| acked.missing_in(first, last).first().map(|range| range.0);
        runs.chain(gaps).filter_map(first).min().unwrap_or(u64::MAX)
    }
}

/// The parts of a run before and after `first..=last`.
fn without(run: Run, first: u64, last: u64) -> impl Iterator<Item = Run> {
    let before = Run {
        seq_last: run.seq_last.min(first.saturating_sub(1)),
        ..run
    };
    let after = Run {
        seq_first: run.seq_first.max(last.saturating_add(1)),
        ..run
    };
    let untouched = first > run.seq_last || last < run.seq_first;
    let parts = if untouched {
        [Some(run), None]
    } else {
        [Some(before), Some(after)]
    };
    parts
        .into_iter()
        .flatten()
        .filter(|part| part.seq_first <= part.seq_last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;
    use tillwatch_feed::message::GapReason;

    fn run(generation: u64, seq_first: u64, seq_last: u64) -> Run {
        Run {
            generation,
            seq_first,
            seq_last,
            kind: RecordKind::Block,
            schema: 7,
        }
    }

    fn gap(generation: u64, seq_first: u64, seq_last: u64) -> HeldGap {
        HeldGap {
            generation,
            seq_first,
            seq_last,
            reason: GapReason::QuotaBytes,
        }
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        ranges.iter().copied().collect()
    }

    #[test]
    fn consecutive_records_of_one_kind_are_one_run() {
        let mut held = Held::default();
        held.push(run(1, 1, 1));
        held.push(run(1, 2, 5));
        held.push(Run {
            kind: RecordKind::Finding,
            ..run(1, 6, 6)
        });
        assert_eq!(held.generations[0].runs.len(), 2);
        assert_eq!(held.newest(), Some(RecordId { generation: 1, seq: 6 }));
    }

    #[test]
    fn only_what_is_acknowledged_from_the_oldest_on_is_released() {
        let mut held = Held::default();
        held.push(run(9, 1, 10));
        held.push(run(3, 1, 10));
        let some = |generation| {
            if generation == 9 {
                set(&[(1, 4), (6, 10)])
            } else {
                set(&[(1, 10)])
            }
        };
        assert_eq!(held.release(some), Some(RecordId { generation: 9, seq: 4 }));
        assert_eq!(held.release(some), None);
        assert_eq!(held.generation(9).unwrap().oldest(), Some(5));
        let all = |generation| {
            if generation == 9 {
                set(&[(1, 10)])
            } else {
                set(&[(1, 2)])
            }
        };
        assert_eq!(held.release(all), Some(RecordId { generation: 3, seq: 2 }));
        assert!(held.generation(9).is_none());
    }

    #[test]
    fn a_gap_takes_its_records_out_of_the_runs_and_grows() {
        let mut held = Held::default();
        held.push(run(1, 1, 10));
        held.lose(gap(1, 1, 3));
        held.lose(gap(1, 4, 5));
        held.lose(HeldGap {
            reason: GapReason::Corrupt,
            ..gap(1, 8, 8)
        });
        let generation = held.generation(1).unwrap();
        assert_eq!(
            generation.gaps,
            [
                gap(1, 1, 5),
                HeldGap {
                    reason: GapReason::Corrupt,
                    ..gap(1, 8, 8)
                }
            ]
        );
        assert_eq!(generation.runs, [run(1, 6, 7), run(1, 9, 10)]);
        assert_eq!(generation.oldest(), Some(1));
    }

    #[test]
    fn an_unacknowledged_gap_holds_back_the_release_and_is_never_named_by_it() {
        let mut held = Held::default();
        held.push(run(1, 1, 10));
        held.lose(gap(1, 1, 3));
        assert_eq!(held.release(|_| set(&[(4, 10)])), None);
        assert_eq!(held.release(|_| set(&[(1, 3)])), None);
        assert_eq!(held.generation(1).unwrap().oldest(), Some(4));
        assert_eq!(
            held.release(|_| set(&[(1, 10)])),
            Some(RecordId { generation: 1, seq: 10 })
        );
    }

    #[test]
    fn a_generation_that_is_lost_as_a_whole_is_the_oldest() {
        let mut held = Held::default();
        held.push(run(5, 1, 2));
        held.lose(gap(4, 1, 9));
        assert_eq!(held.generations[0].generation, 4);
        assert_eq!(held.release(|_| set(&[(1, 2)])), None);
    }
}
