//! One archive: the center's real cursor, and tables that are as durable as a database's.
//!
//! In: messages, kills, failed commits, restored images. Out: acknowledgements, and what was stored or is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Result, ensure};
use tillwatch_central::cursor::{Brings, Cursor, CursorLimits, Mark, Numbers};
use tillwatch_feed::message::{Ack, RecordId};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::{ArchiveId, Shard, SiteId};

use super::Variant;
use super::site::Message;

/// Small, so that they are hit.
const LIMITS: CursorLimits = CursorLimits {
    sites_max: 4,
    generations_max: 6,
    ranges_max: 24,
};

/// What is on the archive's disk.
#[derive(Clone, Debug, Default)]
struct Tables {
    marks: BTreeMap<u64, Mark>,
    /// What each record says.
    stored: BTreeMap<RecordId, u64>,
    /// All that is stored, by what it says.
    contents: BTreeSet<u64>,
    /// By generation.
    lost: BTreeMap<u64, RangeSet>,
}

/// What one commit brings.
#[derive(Debug, Default)]
struct Batch {
    stored: Vec<(RecordId, u64)>,
    lost: Vec<(u64, u64, u64)>,
}

pub(super) struct Archive {
    pub(super) id: ArchiveId,
    variant: Variant,
    shard: Shard,
    site: SiteId,
    start: u64,
    cursor: Cursor,
    batch: Batch,
    tables: Tables,
    backup: Tables,
    /// All that was ever durable here, by generation; what a restored image lost stays in it.
    ever: BTreeMap<u64, RangeSet>,
    ever_stored: BTreeSet<RecordId>,
    /// The largest `through_seq` that was acknowledged, while the archive lives.
    through: BTreeMap<u64, u64>,
    /// What waits at its door.
    pub(super) arriving: VecDeque<Message>,
    pub(super) is_connected: bool,
}

impl Archive {
    pub(super) fn new(name: &str, start: u64, variant: Variant) -> Result<Self> {
        let id: ArchiveId = name.parse()?;
        Ok(Self {
            cursor: Cursor::new(id.clone(), start, LIMITS),
            id,
            variant,
            shard: "a".parse()?,
            site: "store-1".parse()?,
            start,
            batch: Batch::default(),
            tables: Tables::default(),
            backup: Tables::default(),
            ever: BTreeMap::new(),
            ever_stored: BTreeSet::new(),
            through: BTreeMap::new(),
            arriving: VecDeque::new(),
            is_connected: true,
        })
    }

    /// Something would be lost with its memory.
    pub(super) fn is_busy(&self) -> bool {
        !self.batch.stored.is_empty() || !self.batch.lost.is_empty() || !self.arriving.is_empty()
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.batch.stored.is_empty() || !self.batch.lost.is_empty()
    }

    /// Takes what arrived into the batch, as the product's receiver does.
    pub(super) fn take(&mut self) {
        while let Some(message) = self.arriving.pop_front() {
            if !self.cursor.knows(&self.site, message.generation)
                && let Some(mark) = self.tables.marks.get(&message.generation)
            {
                self.cursor.load(mark.clone());
            }
            let oldest_seq_held = if self.variant == Variant::IgnoresOldestHeld {
                1
            } else {
                message.oldest
            };
            let numbers = Numbers {
                generation: message.generation,
                seq_first: message.first,
                seq_last: message.last,
                oldest_seq_held,
            };
            let brings = if message.is_gap() { Brings::Gap } else { Brings::Records };
            // What is refused is not acknowledged and comes again.
            if let Ok(arrival) = self.cursor.arrived(&self.shard, &self.site, numbers, brings) {
                let lost = |(first, last): &(u64, u64)| (message.generation, *first, *last);
                self.batch.lost.extend(arrival.lost.iter().map(lost));
                let is_all = self.variant == Variant::StoresDuplicates;
                let fresh = if is_all {
                    vec![(message.first, message.last)]
                } else {
                    arrival.fresh
                };
                self.keep(&message, &fresh);
            }
        }
    }

    fn keep(&mut self, message: &Message, fresh: &[(u64, u64)]) {
        if message.is_gap() {
            let lost = fresh.iter().map(|(first, last)| (message.generation, *first, *last));
            self.batch.lost.extend(lost);
            return;
        }
        for (seq, content) in (message.first..).zip(&message.contents) {
            if fresh.iter().any(|(first, last)| (*first..=*last).contains(&seq)) {
                let generation = message.generation;
                self.batch.stored.push((RecordId { generation, seq }, *content));
            }
        }
    }

    /// One transaction: what was taken, with the marks.
    pub(super) fn commit(&mut self) -> Result<()> {
        for (id, content) in std::mem::take(&mut self.batch.stored) {
            let is_new = self.tables.stored.insert(id, content).is_none();
            ensure!(is_new, "{}: {id:?} is stored twice", self.id);
            self.ever_stored.insert(id);
            let is_new = self.tables.contents.insert(content);
            ensure!(is_new, "{}: {id:?} was stored before under another name", self.id);
        }
        for (generation, first, last) in std::mem::take(&mut self.batch.lost) {
            self.tables.lost.entry(generation).or_default().insert(first, last);
        }
        for mark in self.cursor.changed() {
            let ever = self.ever.entry(mark.generation).or_default();
            mark.settled.iter().for_each(|(first, last)| ever.insert(first, last));
            if self.variant != Variant::ForgetsItsCursor {
                self.tables.marks.insert(mark.generation, mark);
            }
        }
        self.cursor.committed();
        Ok(())
    }

    /// What goes out now.
    pub(super) fn acknowledge(&mut self, now_ms: u64) -> Result<Option<Ack>> {
        if self.variant == Variant::AcknowledgesEarly {
            self.cursor.committed();
        }
        let Some((_, _, ack)) = self.cursor.acks_due(now_ms, 1).pop() else {
            return Ok(None);
        };
        self.check(&ack)?;
        Ok(Some(ack))
    }

    fn check(&mut self, ack: &Ack) -> Result<()> {
        for claim in &ack.generations {
            let generation = claim.generation;
            let durable = self.tables.marks.get(&generation).map(|mark| &mark.settled);
            let has = |first, last| durable.is_some_and(|settled| settled.contains_all(first, last));
            let all = [(1, claim.through_seq)].into_iter().chain(claim.ranges.iter().copied());
            for (first, last) in all.filter(|(first, last)| first <= last) {
                ensure!(
                    has(first, last) || self.variant == Variant::ForgetsItsCursor,
                    "{}: {first}..={last} of {generation} is acknowledged and not durable",
                    self.id
                );
            }
            let before = self.through.insert(generation, claim.through_seq).unwrap_or(0);
            ensure!(
                before <= claim.through_seq,
                "{}: the cursor of {generation} went back from {before} to {}",
                self.id,
                claim.through_seq
            );
        }
        Ok(())
    }

    /// It starts again with what its disk holds; what was at its door is gone, or comes again from the broker.
    pub(super) fn restart(&mut self, start: u64, keeps_queue: bool) {
        self.start = start;
        self.cursor = Cursor::new(self.id.clone(), start, LIMITS);
        let mut marks: Vec<&Mark> = self.tables.marks.values().collect();
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.heard));
        marks.truncate(LIMITS.generations_max);
        marks.into_iter().for_each(|mark| self.cursor.load(mark.clone()));
        self.batch = Batch::default();
        self.is_connected = true;
        if !keeps_queue {
            self.arriving.clear();
        }
    }

    /// Its connection to the broker is new: what was sent in between may be lost.
    pub(super) fn reconnected(&mut self, start: u64) {
        self.start = start;
        self.is_connected = true;
        self.cursor.restarted(start);
    }

    pub(super) fn back_up(&mut self) {
        self.backup = self.tables.clone();
    }

    /// Its disk is replaced by an older image.
    pub(super) fn restore(&mut self, start: u64) {
        self.tables = self.backup.clone();
        self.through.clear();
        let start = if self.variant == Variant::KeepsItsStart {
            self.start
        } else {
            start
        };
        self.restart(start, false);
    }

    pub(super) fn ever_stored(&self, id: RecordId) -> bool {
        self.ever_stored.contains(&id)
    }

    /// Was it ever stored or known to be lost here?
    pub(super) fn ever_had(&self, id: RecordId) -> bool {
        self.ever.get(&id.generation).is_some_and(|set| set.contains(id.seq))
    }

    /// Is it stored, or known to be lost?
    pub(super) fn settled(&self, id: RecordId) -> bool {
        let mark = self.tables.marks.get(&id.generation);
        mark.is_some_and(|mark| mark.settled.contains(id.seq))
    }

    /// The highest number that it knows of.
    pub(super) fn last(&self, generation: u64) -> u64 {
        self.tables.marks.get(&generation).map_or(0, Mark::produced)
    }

    pub(super) fn stored(&self, id: RecordId) -> Option<u64> {
        self.tables.stored.get(&id).copied()
    }

    pub(super) fn lost(&self, id: RecordId) -> bool {
        let lost = self.tables.lost.get(&id.generation);
        lost.is_some_and(|set| set.contains(id.seq))
    }

    /// Received + accounted for = settled, as many as the tables hold.
    pub(super) fn check_books(&self) -> Result<()> {
        for (generation, mark) in &self.tables.marks {
            let of = |id: &&RecordId| id.generation == *generation;
            let stored = self.tables.stored.keys().filter(of).count() as u64;
            let lost = self.tables.lost.get(generation).map_or(0, RangeSet::count);
            let settled = mark.settled.count();
            ensure!(
                (mark.received, mark.accounted, settled) == (stored, lost, stored + lost),
                "{}: {mark:?} beside {stored} stored and {lost} lost",
                self.id
            );
        }
        Ok(())
    }
}
