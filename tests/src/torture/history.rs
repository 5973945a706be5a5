//! What each part wrote, held against each other: the promises of delivery as a pure check.
//!
//! In: every record that the spool took, every record that the archive holds, every acknowledgement, what was produced.
//! Out: each promise that was broken. It never asks a program for its opinion of itself.

use std::collections::{BTreeMap, BTreeSet};

use tillwatch_feed::message::{Ack, RecordId};
use tillwatch_feed::ranges::RangeSet;

use crate::central::Sold;

/// What was sold in each interval, by its start.
pub type Values = BTreeMap<u64, Sold>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Birth,
    Block,
    Finding,
}

/// A record in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub kind: Kind,
    pub schema: u64,
    pub values: Values,
}

/// Records that the archive has written off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub generation: u64,
    pub seq_first: u64,
    pub seq_last: u64,
    /// By a gap record of the agent.
    pub is_told: bool,
}

/// Everything that one lane's parts wrote.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub produced: Values,
    pub kept: BTreeMap<RecordId, Kept>,
    /// In the order of arrival.
    pub archived: Vec<(RecordId, Values)>,
    /// Schemas whose birth the archive has.
    pub births: BTreeSet<u64>,
    pub lost: Vec<Lost>,
    /// In the order in which they were heard.
    pub acks: Vec<Ack>,
    /// What central reckons with.
    pub reckoned: Sold,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    AckedNotReceived(RecordId),
    AckWentBack {
        generation: u64,
        from: u64,
        to: u64,
    },
    ArchivedTwice(RecordId),
    /// Neither in the archive nor in a gap record.
    Unaccounted(RecordId),
    /// Written off without the agent's word.
    WrittenOff(RecordId),
    Altered(RecordId),
    Values {
        start_ms: u64,
        produced: Sold,
        found: Sold,
    },
    Sums {
        archived: Sold,
        reckoned: Sold,
    },
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub produced: u64,
    pub archived: u64,
    /// In records for which a gap stands.
    pub accounted: u64,
    pub lost: u64,
    pub duplicates_archived: u64,
    pub gaps_unaccounted: u64,
    pub broken: Vec<Broken>,
}

/// Checks a history whose records have all arrived.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let view = View::of(history);
    verdict.broken.extend(acked_not_received(history, &view));
    verdict.broken.extend(acks_that_went_back(history));
    verdict.broken.extend(archived_twice(history));
    verdict.duplicates_archived = verdict
        .broken
        .iter()
        .filter(|broken| matches!(broken, Broken::ArchivedTwice(_)))
        .count() as u64;
    let missing = unaccounted(history, &view);
    verdict.gaps_unaccounted = missing.len() as u64;
    verdict.broken.extend(missing);
    verdict.broken.extend(altered(history));
    values(history, &view, &mut verdict);
    verdict
}

/// What the archive has of each generation.
struct View {
    received: BTreeMap<u64, RangeSet>,
    accounted: BTreeMap<u64, RangeSet>,
    /// Of these, what the agent told.
    told: BTreeMap<u64, RangeSet>,
}

impl View {
    fn of(history: &History) -> Self {
        let mut received: BTreeMap<u64, RangeSet> = BTreeMap::new();
        let births = history
            .kept
            .iter()
            .filter(|(_, kept)| kept.kind == Kind::Birth && history.births.contains(&kept.schema));
        for id in births
            .map(|(id, _)| id)
            .chain(history.archived.iter().map(|(id, _)| id))
        {
            received.entry(id.generation).or_default().insert(id.seq, id.seq);
        }
        Self {
            received,
            accounted: ranges(history.lost.iter()),
            told: ranges(history.lost.iter().filter(|lost| lost.is_told)),
        }
    }

    fn has(&self, id: &RecordId) -> bool {
        let contains =
            |sets: &BTreeMap<u64, RangeSet>| sets.get(&id.generation).is_some_and(|set| set.contains(id.seq));
        contains(&self.received) || contains(&self.accounted)
    }

    fn is_accounted(&self, id: &RecordId) -> bool {
        self.accounted
            .get(&id.generation)
            .is_some_and(|set| set.contains(id.seq))
    }

    fn is_told(&self, id: &RecordId) -> bool {
        self.told.get(&id.generation).is_some_and(|set| set.contains(id.seq))
    }
}

fn ranges<'a>(all: impl Iterator<Item = &'a Lost>) -> BTreeMap<u64, RangeSet> {
    let mut sets: BTreeMap<u64, RangeSet> = BTreeMap::new();
    for lost in all {
        sets.entry(lost.generation)
            .or_default()
            .insert(lost.seq_first, lost.seq_last);
    }
    sets
}

fn acked_not_received(history: &History, view: &View) -> Vec<Broken> {
    let mut acked: BTreeMap<u64, RangeSet> = BTreeMap::new();
    for claim in history.acks.iter().flat_map(|ack| &ack.generations) {
        let acked = acked.entry(claim.generation).or_default();
        acked.insert(1, claim.through_seq);
        claim
            .ranges
            .iter()
            .for_each(|(first, last)| acked.insert(*first, *last));
    }
    let ids = acked.iter().flat_map(|(generation, set)| {
        let generation = *generation;
        set.iter()
            .flat_map(move |(first, last)| (first..=last).map(move |seq| RecordId { generation, seq }))
    });
    ids.filter(|id| !view.has(id)).map(Broken::AckedNotReceived).collect()
}

fn acks_that_went_back(history: &History) -> Vec<Broken> {
    let mut through: BTreeMap<u64, u64> = BTreeMap::new();
    let mut broken = Vec::new();
    for claim in history.acks.iter().flat_map(|ack| &ack.generations) {
        let before = through.entry(claim.generation).or_default();
        if claim.through_seq < *before {
            let (generation, from, to) = (claim.generation, *before, claim.through_seq);
            broken.push(Broken::AckWentBack { generation, from, to });
        }
        *before = (*before).max(claim.through_seq);
    }
    broken
}

fn archived_twice(history: &History) -> Vec<Broken> {
    let mut seen = BTreeSet::new();
    let again = history.archived.iter().filter(|(id, _)| !seen.insert(*id));
    again.map(|(id, _)| Broken::ArchivedTwice(*id)).collect()
}

/// Numbers count up from 1 in each generation, so that a hole is one whether its record was seen or not.
fn unaccounted(history: &History, view: &View) -> Vec<Broken> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let ids = history.kept.keys().chain(history.archived.iter().map(|(id, _)| id));
    for id in ids {
        let last = last.entry(id.generation).or_default();
        *last = (*last).max(id.seq);
    }
    let all = last.iter().flat_map(|(generation, last)| {
        let generation = *generation;
        (1..=*last).map(move |seq| RecordId { generation, seq })
    });
    all.filter_map(|id| {
        if !view.has(&id) {
            Some(Broken::Unaccounted(id))
        } else {
            (view.is_accounted(&id) && !view.is_told(&id)).then_some(Broken::WrittenOff(id))
        }
    })
    .collect()
}

fn altered(history: &History) -> Vec<Broken> {
    let differs = |(id, values): &&(RecordId, Values)| history.kept.get(id).is_some_and(|kept| kept.values != *values);
    history
        .archived
        .iter()
        .filter(differs)
        .map(|(id, _)| Broken::Altered(*id))
        .collect()
}

fn values(history: &History, view: &View, verdict: &mut Verdict) {
    let archived = added(history.archived.iter().map(|(_, values)| values));
    let given_up = history.kept.iter().filter(|(id, _)| view.is_accounted(id));
    let accounted = added(given_up.map(|(_, kept)| &kept.values));
    let total = |values: &Values| add(values.values());
    verdict.produced = unsigned(total(&history.produced).transactions);
    verdict.archived = unsigned(total(&archived).transactions);
    verdict.accounted = unsigned(total(&accounted).transactions);
    let found = added([&archived, &accounted]);
    let starts: BTreeSet<u64> = history.produced.keys().chain(found.keys()).copied().collect();
    for start_ms in starts {
        let of = |values: &Values| values.get(&start_ms).copied().unwrap_or_default();
        let (produced, found) = (of(&history.produced), of(&found));
        if produced != found {
            verdict.broken.push(Broken::Values {
                start_ms,
                produced,
                found,
            });
            let more = found.transactions - produced.transactions;
            verdict.lost += unsigned(-more);
            verdict.duplicates_archived += unsigned(more);
        }
    }
    let (archived, reckoned) = (total(&archived), history.reckoned);
    if archived != reckoned {
        verdict.broken.push(Broken::Sums { archived, reckoned });
    }
}

/// All of them together.
pub fn added<'a>(all: impl IntoIterator<Item = &'a Values>) -> Values {
    let mut sum = Values::new();
    for (start_ms, sold) in all.into_iter().flatten() {
        let entry = sum.entry(*start_ms).or_default();
        *entry = add([&*entry, sold]);
    }
    sum
}

fn add<'a>(all: impl IntoIterator<Item = &'a Sold>) -> Sold {
    all.into_iter().fold(Sold::default(), |sum, sold| Sold {
        transactions: sum.transactions + sold.transactions,
        amount_minor: sum.amount_minor + sold.amount_minor,
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_feed::message::GenerationAck;

    const GENERATION: u64 = 9;

    fn id(seq: u64) -> RecordId {
        RecordId {
            generation: GENERATION,
            seq,
        }
    }

    fn sold(number: i64) -> Values {
        let start_ms = 1_000 * unsigned(number);
        Values::from([(
            start_ms,
            Sold {
                transactions: 1,
                amount_minor: number,
            },
        )])
    }

    fn ack(through_seq: u64, ranges: &[(u64, u64)]) -> Ack {
        Ack {
            archive: "main".parse().unwrap(),
            start: 1,
            generations: vec![GenerationAck {
                generation: GENERATION,
                through_seq,
                ranges: ranges.to_vec(),
            }],
            births_wanted: Vec::new(),
        }
    }

    /// A birth and four blocks with a sale each, of which the third was given up with a gap record.
    fn good() -> History {
        let mut history = History::default();
        history.kept.insert(
            id(1),
            Kept {
                kind: Kind::Birth,
                schema: 7,
                values: Values::new(),
            },
        );
        history.births.insert(7);
        for seq in 2..=5 {
            let values = sold(i64::try_from(seq).unwrap());
            history.produced.extend(values.clone());
            history.kept.insert(
                id(seq),
                Kept {
                    kind: Kind::Block,
                    schema: 7,
                    values: values.clone(),
                },
            );
            if seq != 4 {
                history.archived.push((id(seq), values));
            }
        }
        history.lost.push(Lost {
            generation: GENERATION,
            seq_first: 4,
            seq_last: 4,
            is_told: true,
        });
        history.acks = vec![ack(1, &[(3, 3)]), ack(5, &[])];
        history.reckoned = Sold {
            transactions: 3,
            amount_minor: 2 + 3 + 5,
        };
        history
    }

    fn broken(change: impl FnOnce(&mut History)) -> Vec<Broken> {
        let mut history = good();
        change(&mut history);
        check(&history).broken
    }

    #[test]
    fn a_good_history_breaks_nothing() {
        let verdict = check(&good());
        assert_eq!(verdict.broken, []);
        let counts = (verdict.produced, verdict.archived, verdict.accounted, verdict.lost);
        assert_eq!(counts, (4, 3, 1, 0));
    }

    #[test]
    fn a_record_that_was_acknowledged_and_never_received_is_found() {
        let found = broken(|history| drop(history.archived.remove(1)));
        assert!(found.contains(&Broken::AckedNotReceived(id(3))), "{found:?}");
        // Also when nobody kept it: the archive's word alone deletes.
        let found = broken(|history| history.acks.push(ack(5, &[(8, 8)])));
        assert_eq!(found, [Broken::AckedNotReceived(id(8))]);
        let found = broken(|history| history.births.clear());
        assert!(found.contains(&Broken::AckedNotReceived(id(1))), "{found:?}");
    }

    #[test]
    fn a_hole_without_a_gap_record_is_found() {
        let found = broken(|history| history.lost.clear());
        assert!(found.contains(&Broken::Unaccounted(id(4))), "{found:?}");
        let found = broken(|history| {
            history.lost.clear();
            history.kept.remove(&id(4));
            history.acks.clear();
        });
        assert!(found.contains(&Broken::Unaccounted(id(4))), "{found:?}");
    }

    #[test]
    fn what_the_archive_writes_off_without_the_agents_word_is_found() {
        assert_eq!(
            broken(|history| history.lost[0].is_told = false),
            [Broken::WrittenOff(id(4))]
        );
    }

    #[test]
    fn a_cursor_that_goes_back_is_found() {
        let back = Broken::AckWentBack {
            generation: GENERATION,
            from: 5,
            to: 3,
        };
        assert_eq!(broken(|history| history.acks.push(ack(3, &[(5, 5)]))), [back]);
    }

    #[test]
    fn a_record_that_is_archived_twice_is_found() {
        let mut history = good();
        let again = history.archived[0].clone();
        history.archived.push(again);
        let verdict = check(&history);
        assert!(verdict.broken.contains(&Broken::ArchivedTwice(id(2))), "{verdict:?}");
        assert_eq!(verdict.duplicates_archived, 2, "the record and its sale: {verdict:?}");
    }

    #[test]
    fn a_sale_that_no_record_holds_is_lost_and_one_too_many_is_found() {
        let mut history = good();
        history.produced.extend(sold(77));
        assert_eq!(check(&history).lost, 1);
        let mut history = good();
        history.produced.remove(&2_000);
        let verdict = check(&history);
        assert_eq!((verdict.lost, verdict.duplicates_archived), (0, 1), "{verdict:?}");
        // The count alone is not enough: an amount in another's place.
        let swapped = broken(|history| {
            let values = Values::from([(
                2_000,
                Sold {
                    transactions: 1,
                    amount_minor: 9,
                },
            )]);
            history.produced.insert(2_000, values[&2_000]);
        });
        assert_eq!(swapped.len(), 1, "{swapped:?}");
    }

    #[test]
    fn a_record_that_arrives_with_other_values_and_sums_that_differ_are_found() {
        let found = broken(|history| history.archived[0].1 = sold(3));
        assert!(found.contains(&Broken::Altered(id(2))), "{found:?}");
        let found = broken(|history| history.reckoned.amount_minor += 1);
        assert!(matches!(found[..], [Broken::Sums { .. }]), "{found:?}");
    }
}
