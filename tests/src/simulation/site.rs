//! One store: the real spool and the real delivery, joined as the agent's keeper joins them.
//!
//! In: new records, kills, failing writes, restored images, acknowledgements, refusals. Out: messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tillwatch_agent::spool::{HeldGap, NewRecord, RecordKind, Run, Spool, SpoolError, SpoolSettings};
use tillwatch_core::delivery::{AckProblem, Delivery, DeliverySettings, Refusal, Send};
use tillwatch_feed::message::{Ack, GenerationAck, RecordId};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::ArchiveId;

use super::Variant;
use super::disk::FaultyDisk;

pub(super) const IN_FLIGHT_MAX: u64 = 20;
const JOIN_MAX: u64 = 8;
const PAYLOAD_BYTES: usize = 64;

/// A site on the wire: what one MQTT message says.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) generation: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) oldest: u64,
    /// What each record says; none for a gap.
    pub(super) contents: Vec<u64>,
    /// What delivery called it.
    pub(super) send: Send,
}

impl Message {
    pub(super) fn is_gap(&self) -> bool {
        self.contents.is_empty()
    }
}

/// What the spool must hold, kept by hand.
#[derive(Clone, Debug, Default)]
struct Held {
    records: VecDeque<RecordId>,
    last_seq: BTreeMap<u64, u64>,
}

/// What the store heard of one archive since its start.
#[derive(Debug, Default)]
struct Heard {
    start: u64,
    acked: BTreeMap<u64, RangeSet>,
}

/// What the world must know of all that ever was.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) produced: BTreeMap<RecordId, u64>,
    what: BTreeMap<RecordId, (RecordKind, u64)>,
    pub(super) dropped: BTreeSet<RecordId>,
    pub(super) gone_with_the_image: BTreeSet<RecordId>,
    pub(super) generations: u64,
    pub(super) disputes: u64,
    pub(super) records_sent: u64,
    pub(super) records_sent_again: u64,
}

pub(super) struct Site {
    variant: Variant,
    archives: Vec<ArchiveId>,
    random: fastrand::Rng,
    spool_settings: SpoolSettings,
    disk: Arc<FaultyDisk>,
    image: Option<(FaultyDisk, Held)>,
    spool: Spool,
    pub(super) delivery: Delivery,
    generation: u64,
    held: Held,
    unsaved: Vec<NewRecord>,
    schema: u64,
    contents: u64,
    heard: BTreeMap<ArchiveId, Heard>,
    disputed: BTreeSet<u64>,
    births_on_connection: BTreeSet<u64>,
    sent: BTreeMap<u64, RangeSet>,
    pub(super) truth: Truth,
}

impl Site {
    pub(super) fn new(seed: u64, archives: &[ArchiveId], variant: Variant) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0005_173e);
        let disk = Arc::new(FaultyDisk::default());
        let spool_settings = SpoolSettings {
            bytes_max: random.u64(24..96) << 10,
            age_max_ms: 3 * 3_600_000,
            segment_bytes: 4 << 10,
        };
        let generation = random.u64(1..);
        let (spool, _) = Spool::open_on(disk.clone(), &spool_settings, generation, 0)?;
        let delivery = delivery(&mut random, archives);
        Ok(Self {
            variant,
            archives: archives.to_vec(),
            random,
            spool_settings,
            disk,
            image: None,
            spool,
            delivery,
            generation,
            held: Held::default(),
            unsaved: Vec::new(),
            schema: 0,
            contents: 0,
            heard: BTreeMap::new(),
            disputed: BTreeSet::new(),
            births_on_connection: BTreeSet::new(),
            sent: BTreeMap::new(),
            truth: Truth::default(),
        })
    }

    pub(super) fn disk(&self) -> &FaultyDisk {
        &self.disk
    }

    pub(super) fn records_held(&self) -> u64 {
        self.spool.records()
    }

    pub(super) fn held(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.held.records.iter().copied()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The newest record of a generation that its disk knows of.
    pub(super) fn last_seq(&self, generation: u64) -> u64 {
        self.held.last_seq.get(&generation).copied().unwrap_or(0)
    }

    /// Makes some records, and keeps them with what could not be kept before.
    pub(super) fn produce(&mut self, now_ms: u64, count: usize) -> Result<()> {
        for _ in 0..count {
            let kind = match self.random.u32(0..20) {
                0 => RecordKind::Birth,
                1..=3 => RecordKind::Finding,
                _ => RecordKind::Block,
            };
            let record = self.record(kind);
            self.unsaved.push(record);
        }
        self.keep(now_ms)
    }

    fn record(&mut self, kind: RecordKind) -> NewRecord {
        self.contents += 1;
        self.schema += u64::from(kind == RecordKind::Birth);
        let mut payload = self.contents.to_le_bytes().to_vec();
        payload.resize(PAYLOAD_BYTES, 0);
        NewRecord {
            kind,
            schema: if kind == RecordKind::Finding { 0 } else { self.schema },
            payload,
        }
    }

    pub(super) fn keep(&mut self, now_ms: u64) -> Result<()> {
        if self.spool.has_failed() {
            self.reopen(now_ms)?;
        }
        if self.spool.next_id().seq == 1 && self.unsaved.first().is_none_or(|first| first.kind != RecordKind::Birth) {
            let birth = self.record(RecordKind::Birth);
            self.unsaved.insert(0, birth);
            // As in the product, what waited belongs to the newest dictionary.
            let schema = self.schema;
            let blocks = self
                .unsaved
                .iter_mut()
                .filter(|record| record.kind == RecordKind::Block);
            blocks.for_each(|record| record.schema = schema);
        }
        let appended = self.spool.append(&self.unsaved, &self.contents.to_le_bytes(), now_ms);
        self.drop_records();
        match appended {
            Ok(ids) => {
                let records = std::mem::take(&mut self.unsaved);
                self.kept(&ids, &records)
            }
            Err(SpoolError::Full | SpoolError::Failed | SpoolError::NotWritten(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn kept(&mut self, ids: &[RecordId], records: &[NewRecord]) -> Result<()> {
        for (id, record) in ids.iter().zip(records) {
            self.truth.produced.insert(*id, content(&record.payload)?);
            self.truth.what.insert(*id, (record.kind, record.schema));
            self.held.records.push_back(*id);
            self.held.last_seq.insert(id.generation, id.seq);
            self.delivery.on_held(Run {
                generation: id.generation,
                seq_first: id.seq,
                seq_last: id.seq,
                kind: record.kind,
                schema: record.schema,
            });
        }
        Ok(())
    }

    fn drop_records(&mut self) {
        for gap in self.spool.take_dropped() {
            self.forget(&gap);
            if self.variant != Variant::TellsNoGap {
                self.delivery.on_gap(gap);
            }
        }
    }

    /// The records of the gap are not held any more.
    fn forget(&mut self, gap: &HeldGap) {
        let dropped = &mut self.truth.dropped;
        self.held.records.retain(|id| {
            let is_gone = is_in(gap, *id);
            if is_gone {
                dropped.insert(*id);
            }
            !is_gone
        });
    }

    /// After a failed sync: what is on disk is read again, and goes on under a new name; delivery knows most of it.
    fn reopen(&mut self, now_ms: u64) -> Result<()> {
        self.disk.heal();
        let in_doubt = self.spool.next_id();
        self.begin_generation();
        let (spool, recovery) = Spool::open_on(self.disk.clone(), &self.spool_settings, self.generation, now_ms)?;
        recovery.gaps.iter().for_each(|gap| self.delivery.on_gap(*gap));
        self.spool = spool;
        self.keep_what_survived(in_doubt, recovery.previous)?;
        self.check_recovered(&recovery.runs, &recovery.gaps)
    }

    fn begin_generation(&mut self) {
        self.truth.generations += 1;
        if self.variant != Variant::KeepsItsGeneration {
            self.generation = self.random.u64(1..);
        }
    }

    /// Killed, and started again from its disk.
    pub(super) fn restart(&mut self, now_ms: u64) -> Result<()> {
        self.disk.heal();
        self.begin_generation();
        let (spool, recovery) = Spool::open_on(self.disk.clone(), &self.spool_settings, self.generation, now_ms)?;
        if self.spool.has_failed() {
            self.keep_what_survived(self.spool.next_id(), recovery.previous)?;
        }
        self.spool = spool;
        self.unsaved.clear();
        self.heard.clear();
        self.disputed.clear();
        self.births_on_connection.clear();
        self.delivery = delivery(&mut self.random, &self.archives);
        recovery.runs.iter().for_each(|run| self.delivery.on_held(*run));
        let is_told = self.variant != Variant::TellsNoGap;
        let gaps = recovery.gaps.iter().filter(|_| is_told);
        gaps.for_each(|gap| self.delivery.on_gap(*gap));
        self.check_recovered(&recovery.runs, &recovery.gaps)
    }

    /// The frame that could not be synced may be there after all: then its records are kept.
    fn keep_what_survived(&mut self, in_doubt: RecordId, last: Option<RecordId>) -> Result<()> {
        let Some(last) = last.filter(|last| last.generation == in_doubt.generation && last.seq >= in_doubt.seq) else {
            return Ok(());
        };
        let ids: Vec<RecordId> = (in_doubt.seq..=last.seq).map(|seq| RecordId { seq, ..last }).collect();
        ensure!(
            ids.len() <= self.unsaved.len(),
            "a frame was found that was never written: {ids:?}"
        );
        let records: Vec<NewRecord> = self.unsaved.drain(..ids.len()).collect();
        self.kept(&ids, &records)
    }

    /// A start finds all that is held, in its order; what is missing is told.
    fn check_recovered(&mut self, runs: &[Run], gaps: &[HeldGap]) -> Result<()> {
        let found: Vec<RecordId> = runs
            .iter()
            .flat_map(|run| {
                (run.seq_first..=run.seq_last).map(|seq| RecordId {
                    seq,
                    generation: run.generation,
                })
            })
            .collect();
        let known: BTreeSet<RecordId> = found.iter().copied().collect();
        let missing: Vec<RecordId> = self.held().filter(|id| !known.contains(id)).collect();
        for id in missing {
            let gap = gaps.iter().find(|gap| is_in(gap, id)).copied();
            self.forget(&gap.with_context(|| format!("{id:?} was held, and is gone without a gap"))?);
        }
        ensure!(
            self.held().eq(found.iter().copied()),
            "what a start found is not what was held"
        );
        Ok(())
    }

    /// An image of the store's disk is made.
    pub(super) fn take_image(&mut self) -> Result<()> {
        if !self.spool.has_failed() {
            self.image = Some((self.disk.image()?, self.held.clone()));
        }
        Ok(())
    }

    /// The disk is replaced by its image. False when there is none.
    pub(super) fn restore_image(&mut self, now_ms: u64) -> Result<bool> {
        let Some((disk, held)) = &self.image else {
            return Ok(false);
        };
        if self.spool.has_failed() {
            return Ok(false);
        }
        let kept: BTreeSet<RecordId> = held.records.iter().copied().collect();
        let gone = self.held.records.iter().filter(|id| !kept.contains(id));
        // What was dropped since, and perhaps not told.
        let last = |generation| held.last_seq.get(&generation).copied().unwrap_or(0);
        let untold = self.truth.dropped.iter().filter(|id| id.seq > last(id.generation));
        self.truth.gone_with_the_image.extend(gone.chain(untold));
        self.disk = Arc::new(disk.image()?);
        self.held = held.clone();
        self.restart(now_ms)?;
        Ok(true)
    }

    pub(super) fn connected(&mut self, now_ms: u64) {
        self.births_on_connection.clear();
        self.delivery.on_connected(now_ms);
    }

    /// What goes out next; a birth from the spool's copy needs no message here.
    pub(super) fn next_message(&mut self, now_ms: u64) -> Result<Option<Message>> {
        while let Some(send) = self.delivery.poll(now_ms) {
            ensure!(self.delivery.in_flight() <= IN_FLIGHT_MAX, "too much is in flight");
            match send {
                Send::Births { schema } => drop(self.births_on_connection.insert(schema)),
                Send::Gap {
                    generation,
                    seq_first,
                    seq_last,
                    ..
                } => {
                    return self.message(send, generation, seq_first, seq_last).map(Some);
                }
                Send::Records {
                    kind,
                    schema,
                    generation,
                    seq_first,
                    seq_last,
                    ..
                } => {
                    self.check_birth(kind, schema)?;
                    self.check_again(generation, seq_first, seq_last)?;
                    return self.message(send, generation, seq_first, seq_last).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn message(&mut self, send: Send, generation: u64, first: u64, last: u64) -> Result<Message> {
        let oldest = self.delivery.oldest_held(generation).context("what is sent is held")?;
        ensure!(
            oldest <= first,
            "{first} of {generation} is older than the oldest, {oldest}"
        );
        let contents = match send {
            Send::Records { kind, schema, .. } => self.contents_of(kind, schema, generation, first, last)?,
            _ => Vec::new(),
        };
        Ok(Message {
            generation,
            first,
            last,
            oldest,
            contents,
            send,
        })
    }

    fn contents_of(
        &mut self,
        kind: RecordKind,
        schema: u64,
        generation: u64,
        first: u64,
        last: u64,
    ) -> Result<Vec<u64>> {
        let mut contents = Vec::new();
        let mut seq = first;
        while seq <= last {
            let rest = u32::try_from(last - seq + 1)?;
            for record in self.spool.read(RecordId { generation, seq }, rest)? {
                let said = content(&record.payload)?;
                let truth = &self.truth;
                let is_right = truth.produced.get(&record.id) == Some(&said)
                    && truth.what.get(&record.id) == Some(&(kind, schema));
                ensure!(is_right, "{:?} is not what was kept", record.id);
                contents.push(said);
                seq += 1;
            }
        }
        let sent = self.sent.entry(generation).or_default();
        let new: u64 = sent
            .missing_in(first, last)
            .iter()
            .map(|(first, last)| last - first + 1)
            .sum();
        sent.insert(first, last);
        self.truth.records_sent += last - first + 1;
        self.truth.records_sent_again += last - first + 1 - new;
        Ok(contents)
    }

    fn check_birth(&mut self, kind: RecordKind, schema: u64) -> Result<()> {
        if kind == RecordKind::Birth {
            self.births_on_connection.insert(schema);
        }
        let is_known = kind != RecordKind::Block || self.births_on_connection.contains(&schema);
        ensure!(is_known, "a block of {schema:x} goes before its birth");
        Ok(())
    }

    /// Nothing goes again that all required archives were heard to have.
    fn check_again(&self, generation: u64, first: u64, last: u64) -> Result<()> {
        if self.disputed.contains(&generation) {
            return Ok(());
        }
        for seq in first..=last {
            let has = |id: &ArchiveId| {
                let acked = self.heard.get(id).and_then(|heard| heard.acked.get(&generation));
                acked.is_some_and(|set| set.contains(seq))
            };
            ensure!(
                !self.archives.iter().all(has),
                "{seq} of {generation} is sent again though it was acknowledged"
            );
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, now_ms: u64, send: &Send, refusal: Refusal) {
        if let Some(gap) = self.delivery.on_refused(now_ms, send, refusal) {
            self.spool.refuse(gap);
            let ids = (gap.seq_first..=gap.seq_last).map(|seq| RecordId {
                seq,
                generation: gap.generation,
            });
            self.truth.dropped.extend(ids);
            self.delivery.on_gap(gap);
        }
    }

    /// An acknowledgement comes; `ever` says whether an archive ever had a record durably.
    pub(super) fn acked(&mut self, now_ms: u64, ack: &Ack, ever: &dyn Fn(&ArchiveId, RecordId) -> bool) -> Result<()> {
        self.note(ack);
        for ack in self.obeyed(ack) {
            let outcome = self.delivery.on_ack(now_ms, &ack);
            for problem in outcome.problems {
                if let AckProblem::SpoolRewound { generation, .. } = problem {
                    self.disputed.insert(generation);
                    self.truth.disputes += 1;
                }
            }
            if let Some(through) = outcome.release {
                self.release(through, ever)?;
            }
        }
        Ok(())
    }

    /// What a checker must remember of it; what was never written need not be believed.
    fn note(&mut self, ack: &Ack) {
        let last_seq = &self.held.last_seq;
        let heard = self.heard.entry(ack.archive.clone()).or_default();
        if heard.start != ack.start {
            *heard = Heard {
                start: ack.start,
                ..Heard::default()
            };
        }
        for claim in &ack.generations {
            let last = last_seq.get(&claim.generation).copied().unwrap_or(0);
            let highest = claim
                .ranges
                .iter()
                .map(|range| range.1)
                .fold(claim.through_seq, u64::max);
            if highest > last {
                continue;
            }
            let acked = heard.acked.entry(claim.generation).or_default();
            acked.insert(1, claim.through_seq);
            claim
                .ranges
                .iter()
                .for_each(|(first, last)| acked.insert(*first, *last));
        }
    }

    /// The acknowledgement as the variant understands it.
    fn obeyed(&self, ack: &Ack) -> Vec<Ack> {
        let mut ack = ack.clone();
        match self.variant {
            Variant::ObeysStrangers if !self.archives.contains(&ack.archive) => return self.of_all(&ack),
            Variant::OneArchiveSuffices if self.archives.contains(&ack.archive) => return self.of_all(&ack),
            Variant::IgnoresRanges => ack.generations.iter_mut().for_each(|claim| claim.ranges.clear()),
            Variant::ObeysBeyondItsLast => {
                for claim in &mut ack.generations {
                    let last = self.last_seq(claim.generation);
                    claim.through_seq = claim.through_seq.min(last);
                    claim.ranges.retain(|range| range.1 <= last);
                }
            }
            _ => {}
        }
        vec![ack]
    }

    /// The same, said by each required archive, under the start that was heard of it last.
    fn of_all(&self, ack: &Ack) -> Vec<Ack> {
        let start = |id| self.heard.get(id).map_or(ack.start, |heard| heard.start);
        let archives = self.archives.iter();
        archives
            .map(|id| Ack {
                archive: id.clone(),
                start: start(id),
                ..ack.clone()
            })
            .collect()
    }

    /// A naive client: this counts as delivered, whatever the archives say.
    pub(super) fn count_as_delivered(
        &mut self,
        now_ms: u64,
        message: &Message,
        ever: &dyn Fn(&ArchiveId, RecordId) -> bool,
    ) -> Result<()> {
        let Some(archive) = self.archives.first().cloned() else {
            bail!("a store has an archive");
        };
        let generations = vec![GenerationAck {
            generation: message.generation,
            through_seq: 0,
            ranges: vec![(message.first, message.last)],
        }];
        let forged = Ack {
            archive,
            start: 0,
            generations,
            births_wanted: Vec::new(),
        };
        for ack in self.of_all(&forged) {
            if let Some(through) = self.delivery.on_ack(now_ms, &ack).release {
                self.release(through, ever)?;
            }
        }
        Ok(())
    }

    /// The promise: what is deleted was durable at every required archive.
    fn release(&mut self, through: RecordId, ever: &dyn Fn(&ArchiveId, RecordId) -> bool) -> Result<()> {
        ensure!(
            self.held.records.contains(&through),
            "{through:?} is to be deleted, and is not held"
        );
        while let Some(id) = self.held.records.pop_front() {
            for archive in &self.archives {
                ensure!(ever(archive, id), "{id:?} was deleted before {archive} had it");
            }
            if id == through {
                break;
            }
        }
        self.spool.release(through);
        Ok(())
    }
}

fn delivery(random: &mut fastrand::Rng, archives: &[ArchiveId]) -> Delivery {
    Delivery::new(DeliverySettings {
        in_flight_max: IN_FLIGHT_MAX,
        join_max: JOIN_MAX,
        ..DeliverySettings::new(archives.to_vec(), random.u64(..))
    })
}

fn is_in(gap: &HeldGap, id: RecordId) -> bool {
    gap.generation == id.generation && (gap.seq_first..=gap.seq_last).contains(&id.seq)
}

fn content(payload: &[u8]) -> Result<u64> {
    let bytes = payload.first_chunk().context("a payload begins with what it says")?;
    Ok(u64::from_le_bytes(*bytes))
}
