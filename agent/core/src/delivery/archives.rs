//! What the required archives say they have.
//!
//! In: acknowledgements. Out: what all of them have, and what is wrong with an acknowledgement.
//! An acknowledgement of something that was never written is not obeyed, now or later.

use std::collections::{BTreeMap, BTreeSet};

use tillwatch_feed::message::{Ack, GenerationAck};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::ArchiveId;

use super::AckProblem;
use super::held::Held;

/// Archives outside of the settings that are reported, once each and connection.
const UNKNOWN_REPORTED_MAX: usize = 8;

/// What one archive has.
#[derive(Clone, Debug, Default)]
struct Archive {
    /// Its start number, once heard.
    start: Option<u64>,
    /// It spoke since the connection stands.
    heard: bool,
    acked: BTreeMap<u64, RangeSet>,
    /// Generations of which it claims more than was written.
    disputed: BTreeSet<u64>,
    /// What it says of those that were not being written then: nothing is deleted for it, but what is not held any more
    /// need not be told again.
    claimed: BTreeMap<u64, RangeSet>,
}

/// The required archives.
#[derive(Clone, Debug)]
pub(super) struct Archives {
    required: BTreeMap<ArchiveId, Archive>,
    /// What the broker took, where that is enough; no archive is required then, and none is listened to.
    broker: Option<BTreeMap<u64, RangeSet>>,
    unknown: BTreeSet<ArchiveId>,
}

/// What changed by an acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) problems: Vec<AckProblem>,
    /// It acknowledges something for the first time.
    pub(super) progress: bool,
    /// It was restored.
    pub(super) restarted: bool,
    /// It is one of the required ones.
    pub(super) required: bool,
}

impl Archives {
    pub(super) fn new(archives: &[ArchiveId], is_broker_enough: bool) -> Archives {
        let archives = if is_broker_enough { &[] } else { archives };
        let required = archives.iter().map(|id| (id.clone(), Archive::default())).collect();
        Archives {
            required,
            broker: is_broker_enough.then(BTreeMap::new),
            unknown: BTreeSet::new(),
        }
    }

    pub(super) fn on_connected(&mut self) {
        self.unknown.clear();
        for archive in self.required.values_mut() {
            archive.heard = false;
        }
    }

    /// Did all of them speak since the connection stands?
    pub(super) fn all_heard(&self) -> bool {
        self.required.values().all(|archive| archive.heard)
    }

    /// What all of them have of a generation; nothing when none is required.
    pub(super) fn acked(&self, generation: u64) -> RangeSet {
        if let Some(broker) = &self.broker {
            return broker.get(&generation).cloned().unwrap_or_default();
        }
        let mut all = self
            .required
            .values()
            .map(|archive| archive.acked.get(&generation).cloned().unwrap_or_default());
        let first = all.next().unwrap_or_default();
        all.fold(first, |both, other| both.intersect(&other))
    }

    /// What all of them have or claim to have, of a generation that is disputed; nothing of any other.
    pub(super) fn claimed(&self, generation: u64) -> RangeSet {
        if !self.disputed(generation) {
            return RangeSet::new();
        }
        let of = |archive: &Archive| {
            let claimed = archive.claimed.get(&generation);
            claimed.or(archive.acked.get(&generation)).cloned().unwrap_or_default()
        };
        let mut all = self.required.values().map(of);
        let first = all.next().unwrap_or_default();
        all.fold(first, |both, other| both.intersect(&other))
    }

    /// Does one of them claim more of this generation than was written?
    pub(super) fn disputed(&self, generation: u64) -> bool {
        self.required
            .values()
            .any(|archive| archive.disputed.contains(&generation))
    }

    /// The broker took these records; does that count?
    pub(super) fn on_published(&mut self, generation: u64, seq_first: u64, seq_last: u64) -> bool {
        let Some(broker) = &mut self.broker else {
            return false;
        };
        broker.entry(generation).or_default().insert(seq_first, seq_last);
        true
    }

    pub(super) fn forget_all_but(&mut self, held: &Held) {
        if let Some(broker) = &mut self.broker {
            broker.retain(|generation, _| held.generation(*generation).is_some());
        }
        for archive in self.required.values_mut() {
            archive
                .acked
                .retain(|generation, _| held.generation(*generation).is_some());
            archive
                .claimed
                .retain(|generation, _| held.generation(*generation).is_some());
        }
    }

    pub(super) fn on_ack(&mut self, ack: &Ack, held: &Held) -> Heard {
        let Some(archive) = self.required.get_mut(&ack.archive) else {
            return self.on_unknown(&ack.archive);
        };
        let mut heard = Heard {
            required: true,
            ..Heard::default()
        };
        if archive.start.is_some_and(|start| start != ack.start) {
            *archive = Archive::default();
            heard.restarted = true;
            heard.problems.push(AckProblem::Restarted {
                archive: ack.archive.clone(),
            });
        }
        archive.start = Some(ack.start);
        archive.heard = true;
        for claim in &ack.generations {
            archive.on_claim(&ack.archive, claim, held, &mut heard);
        }
        heard
    }

    fn on_unknown(&mut self, id: &ArchiveId) -> Heard {
        let mut heard = Heard::default();
        if self.broker.is_none() && self.unknown.len() < UNKNOWN_REPORTED_MAX && self.unknown.insert(id.clone()) {
            heard.problems.push(AckProblem::UnknownArchive { archive: id.clone() });
        }
        heard
    }
}

impl Archive {
    fn on_claim(&mut self, id: &ArchiveId, claim: &GenerationAck, held: &Held, heard: &mut Heard) {
        // Of generations that are no longer held there is nothing left to delete.
        let Some(generation) = held.generation(claim.generation) else {
            return;
        };
        let last = generation.seq_last;
        let acknowledged = claim
            .ranges
            .iter()
            .map(|range| range.1)
            .max()
            .unwrap_or(0)
            .max(claim.through_seq);
        if acknowledged > last && self.disputed.insert(claim.generation) {
            let (archive, generation) = (id.clone(), claim.generation);
            heard.problems.push(AckProblem::SpoolRewound {
                archive,
                generation,
                acknowledged,
                last,
            });
        }
        let is_disputed = self.disputed.contains(&claim.generation);
        // Of a generation that is being written nobody can know more than we do.
        if is_disputed && held.newest_generation() == Some(claim.generation) {
            return;
        }
        let known = if is_disputed {
            &mut self.claimed
        } else {
            &mut self.acked
        };
        let set = known.entry(claim.generation).or_default();
        let before = set.count();
        set.insert(1, claim.through_seq);
        for (first, last) in &claim.ranges {
            set.insert(*first, *last);
        }
        heard.progress |= !is_disputed && set.count() > before;
    }
}
