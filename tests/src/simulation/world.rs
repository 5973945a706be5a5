//! What is between a store and its archives, and what goes wrong there and at both ends.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use tillwatch_core::delivery::{Refusal, Send};
use tillwatch_feed::message::{Ack, GenerationAck, RecordId};
use tillwatch_feed::topic::ArchiveId;

use super::center::Archive;
use super::disk::NextWrite;
use super::site::{Message, Site};
use super::{Tally, Variant};

const HOSTILE_STEPS: u32 = 700;
/// When faults have ended, everything has arrived within this: the longest wait for an acknowledgement is 16 minutes.
const CALM_MS_MAX: u64 = 2 * 3_600_000;
/// Acknowledgements that a broker may have kept from before.
const OLD_ACKS_MAX: usize = 8;

/// A message with the time at which it gets there.
#[derive(Debug)]
struct Late<T> {
    at_ms: u64,
    what: T,
}

pub(super) struct World {
    variant: Variant,
    random: fastrand::Rng,
    now_ms: u64,
    is_hostile: bool,
    site: Site,
    /// The required ones, and then a stranger.
    archives: Vec<Archive>,
    is_connected: bool,
    to_broker: Vec<Late<Message>>,
    to_archive: Vec<Late<(usize, Message)>>,
    to_site: Vec<Late<Ack>>,
    /// What the broker keeps for the store, by archive.
    retained: Vec<Option<Ack>>,
    old_acks: VecDeque<Ack>,
    /// An archive that is not running, or whose disk is slow, does nothing before this.
    idle_until_ms: Vec<u64>,
    next_commit_fails: Vec<bool>,
    was_claimed_too_much: bool,
    tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64, variant: Variant) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let required = random.usize(1..=3);
        let names = ["main", "second", "third"][..required].iter().chain(&["stranger"]);
        let mut archives = Vec::new();
        for name in names {
            archives.push(Archive::new(name, random.u64(1..), variant)?);
        }
        let ids: Vec<ArchiveId> = archives[..required].iter().map(|archive| archive.id.clone()).collect();
        let site = Site::new(seed, &ids, variant)?;
        Ok(Self {
            variant,
            random,
            now_ms: 1_000,
            is_hostile: true,
            site,
            is_connected: false,
            to_broker: Vec::new(),
            to_archive: Vec::new(),
            to_site: Vec::new(),
            retained: archives.iter().map(|_| None).collect(),
            old_acks: VecDeque::new(),
            idle_until_ms: vec![0; archives.len()],
            next_commit_fails: vec![false; archives.len()],
            was_claimed_too_much: false,
            archives,
            tally: Tally {
                worlds: 1,
                ..Tally::default()
            },
        })
    }

    pub(super) fn run(mut self) -> Result<Tally> {
        for _ in 0..HOSTILE_STEPS {
            self.now_ms += self.random.u64(0..800);
            if self.percent(30) {
                let count = self.random.usize(1..5);
                self.site.produce(self.now_ms, count)?;
            }
            if self.percent(35) {
                self.harm()?;
            }
            self.pass_on()?;
        }
        self.calm_down()?;
        self.restore_in_peace()?;
        self.check_end()?;
        let truth = &self.site.truth;
        self.tally.generations = truth.generations;
        self.tally.produced = truth.produced.len() as u64;
        self.tally.dropped = truth.dropped.len() as u64;
        self.tally.gone_with_the_image = truth.gone_with_the_image.len() as u64;
        self.tally.disputes = truth.disputes;
        self.tally.records_sent = truth.records_sent;
        self.tally.records_sent_again = truth.records_sent_again;
        Ok(self.tally)
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.random.u32(0..100) < chance
    }

    fn required(&self) -> usize {
        self.archives.len() - 1
    }

    fn any_archive(&mut self) -> usize {
        self.random.usize(0..self.archives.len())
    }

    /// Whether a kill or a cut there costs a message: one on its way, or one that is not acknowledged.
    fn is_wire_busy(&self) -> bool {
        !self.to_broker.is_empty() || self.site.delivery.in_flight() > 0
    }

    fn is_archive_busy(&self, at: usize) -> bool {
        self.archives[at].is_busy() || self.to_archive.iter().any(|late| late.what.0 == at)
    }

    fn harm(&mut self) -> Result<()> {
        match self.random.u32(0..100) {
            0..14 => self.kill_site()?,
            14..26 => self.kill_archive(),
            26..32 => self.kill_broker(),
            32..42 => self.cut_site(),
            42..48 => self.cut_archive(),
            48..56 => self.stall(),
            56..66 => self.fail_commit(),
            66..74 => self.fail_append()?,
            74 => self.restore_site()?,
            75..79 => self.site.take_image()?,
            79 => self.restore_archive(),
            80..84 => {
                let at = self.any_archive();
                self.archives[at].back_up();
            }
            84..87 => self.claim_too_much(),
            _ => self.connect(),
        }
        Ok(())
    }

    fn kill_site(&mut self) -> Result<()> {
        let hits = self.is_wire_busy();
        self.lose_connection();
        self.site.restart(self.now_ms)?;
        self.tally.kills += u64::from(hits);
        self.tally.faults += u64::from(hits);
        Ok(())
    }

    fn kill_archive(&mut self) {
        let at = self.any_archive();
        let hits = self.is_archive_busy(at);
        let (start, keeps_queue) = (self.random.u64(1..), self.random.bool());
        self.archives[at].restart(start, keeps_queue);
        self.idle_until_ms[at] = self.now_ms + self.random.u64(0..20_000);
        self.tally.kills += u64::from(hits);
        self.tally.faults += u64::from(hits);
    }

    /// With or without what it had taken and what it keeps.
    fn kill_broker(&mut self) {
        let hits = self.is_wire_busy() || !self.to_archive.is_empty();
        if self.random.bool() {
            self.to_archive.clear();
            self.retained.iter_mut().for_each(|ack| *ack = None);
        }
        self.lose_connection();
        for at in 0..self.archives.len() {
            let start = self.random.u64(1..);
            self.archives[at].reconnected(start);
        }
        self.tally.kills += u64::from(hits);
        self.tally.faults += u64::from(hits);
    }

    fn cut_site(&mut self) {
        let hits = self.is_connected && self.is_wire_busy();
        self.lose_connection();
        self.tally.cuts += u64::from(hits);
        self.tally.faults += u64::from(hits);
    }

    /// Some of what was on its way still gets there.
    fn lose_connection(&mut self) {
        self.is_connected = false;
        self.site.delivery.on_disconnected();
        let random = &mut self.random;
        self.to_broker.retain(|_| random.bool());
        self.to_site.clear();
    }

    fn cut_archive(&mut self) {
        let at = self.any_archive();
        let hits = self.is_archive_busy(at);
        if self.random.bool() {
            self.to_archive.retain(|late| late.what.0 != at);
        }
        let start = self.random.u64(1..);
        self.archives[at].reconnected(start);
        self.tally.cuts += u64::from(hits);
        self.tally.faults += u64::from(hits);
    }

    /// A slow or half-open link, or an archive that hangs: all comes late, some of it after the wait for it.
    fn stall(&mut self) {
        let for_ms = self.random.u64(1_000..150_000);
        if self.random.bool() {
            let hits = self.is_wire_busy();
            let up = self.to_broker.iter_mut().map(|late| &mut late.at_ms);
            let down = self.to_site.iter_mut().map(|late| &mut late.at_ms);
            up.chain(down).for_each(|at_ms| *at_ms += for_ms);
            self.tally.stalls += u64::from(hits);
            self.tally.faults += u64::from(hits);
        } else {
            let at = self.any_archive();
            let hits = self.is_archive_busy(at);
            self.idle_until_ms[at] = self.now_ms + for_ms;
            self.tally.stalls += u64::from(hits);
            self.tally.faults += u64::from(hits);
        }
    }

    fn fail_commit(&mut self) {
        let at = self.any_archive();
        self.archives[at].take();
        let hits = self.archives[at].has_unwritten();
        self.next_commit_fails[at] = true;
        self.tally.failed_writes += u64::from(hits);
        self.tally.faults += u64::from(hits);
    }

    fn fail_append(&mut self) -> Result<()> {
        let hits = self.is_wire_busy();
        let fault = match self.random.u32(0..3) {
            0 => NextWrite::Full,
            1 => NextWrite::SyncFails,
            _ => NextWrite::SyncFailsForGood,
        };
        self.site.disk().fail_next(fault);
        self.site.produce(self.now_ms, 2)?;
        self.tally.failed_writes += u64::from(hits);
        self.tally.faults += u64::from(hits);
        Ok(())
    }

    fn restore_site(&mut self) -> Result<()> {
        if self.site.restore_image(self.now_ms)? {
            self.lose_connection();
            self.tally.images_restored += 1;
        }
        Ok(())
    }

    fn restore_archive(&mut self) {
        let at = self.random.usize(0..self.required());
        let start = self.random.u64(1..);
        self.archives[at].restore(start);
        self.to_archive.retain(|late| late.what.0 != at);
        self.tally.archives_restored += 1;
    }

    /// Archives that are not what they say they are.
    fn claim_too_much(&mut self) {
        let generation = self.site.generation();
        let through_seq = self.site.last_seq(generation) + self.random.u64(1..5);
        for last in self.retained[..self.archives.len() - 1].iter().flatten() {
            let claim = GenerationAck {
                generation,
                through_seq,
                ranges: Vec::new(),
            };
            let what = Ack {
                generations: vec![claim],
                ..last.clone()
            };
            self.to_site.push(Late {
                at_ms: self.now_ms,
                what,
            });
        }
        self.was_claimed_too_much = true;
    }

    fn connect(&mut self) {
        if self.is_connected {
            return;
        }
        self.is_connected = true;
        self.to_broker.retain(|late| late.at_ms < self.now_ms + 1_000);
        self.site.connected(self.now_ms);
        for at in 0..self.retained.len() {
            if let Some(ack) = self.retained[at].clone() {
                self.send_ack(ack);
            }
        }
        if self.is_hostile && self.percent(10) && !self.old_acks.is_empty() {
            let old = self.random.usize(0..self.old_acks.len());
            self.send_ack(self.old_acks[old].clone());
        }
    }

    fn send_ack(&mut self, ack: Ack) {
        let mut at_ms = self.now_ms + self.random.u64(0..1_500);
        if !self.is_hostile {
            // As MQTT promises for a topic.
            at_ms = self.to_site.iter().map(|late| late.at_ms).max().unwrap_or(0).max(at_ms);
        }
        self.to_site.push(Late { at_ms, what: ack });
    }

    /// One step of all that works.
    fn pass_on(&mut self) -> Result<()> {
        self.send()?;
        self.reach_broker()?;
        self.reach_archives();
        for at in 0..self.archives.len() {
            self.work(at)?;
        }
        self.reach_site()
    }

    fn send(&mut self) -> Result<()> {
        while let Some(message) = self.site.next_message(self.now_ms)? {
            ensure!(self.is_connected, "sent without a connection");
            self.tally.messages += 1;
            if self.is_hostile && self.percent(2) {
                let refusal = if self.random.bool() {
                    Refusal::Denied
                } else {
                    Refusal::TooLarge
                };
                self.site.refuse(self.now_ms, &message.send, refusal);
                continue;
            }
            if self.variant == Variant::DeletesWhenPublished {
                self.count_as_delivered(&message)?;
            }
            let is_told = self.variant != Variant::TellsNoGap || !matches!(message.send, Send::Gap { .. });
            let copies = match self.random.u32(0..100) {
                _ if !is_told => 0,
                0..5 if self.is_hostile => 0,
                5..9 if self.is_hostile => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let at_ms = self.now_ms + self.random.u64(0..2_000);
                self.to_broker.push(Late {
                    at_ms,
                    what: message.clone(),
                });
            }
        }
        Ok(())
    }

    fn count_as_delivered(&mut self, message: &Message) -> Result<()> {
        let archives = &self.archives;
        self.site
            .count_as_delivered(self.now_ms, message, &|id, record| ever(archives, id, record))
    }

    fn reach_broker(&mut self) -> Result<()> {
        for message in due(&mut self.to_broker, self.now_ms) {
            if self.variant == Variant::DeletesOnPuback && self.is_connected {
                self.count_as_delivered(&message)?;
            }
            for at in 0..self.archives.len() {
                let at_ms = self.now_ms + self.random.u64(0..1_000);
                self.to_archive.push(Late {
                    at_ms,
                    what: (at, message.clone()),
                });
            }
        }
        Ok(())
    }

    fn reach_archives(&mut self) {
        for (at, message) in due(&mut self.to_archive, self.now_ms) {
            self.archives[at].arriving.push_back(message);
        }
    }

    /// An archive takes, writes and acknowledges; it may be killed between any two of these.
    fn work(&mut self, at: usize) -> Result<()> {
        if self.now_ms < self.idle_until_ms[at] {
            return Ok(());
        }
        if self.percent(70) {
            self.archives[at].take();
        }
        let fails = std::mem::take(&mut self.next_commit_fails[at]);
        if self.percent(70) && !fails {
            self.archives[at].commit()?;
        }
        if self.percent(70)
            && let Some(ack) = self.archives[at].acknowledge(self.now_ms)?
        {
            self.publish(at, ack);
        }
        Ok(())
    }

    /// Retained at the broker, and passed on to the store, unless it gets lost.
    fn publish(&mut self, at: usize, ack: Ack) {
        if let Some(before) = self.retained[at].replace(ack.clone()) {
            self.old_acks.push_back(before);
            if self.old_acks.len() > OLD_ACKS_MAX {
                self.old_acks.pop_front();
            }
        }
        let copies = if self.is_hostile {
            self.random.u32(0..12).min(1) + u32::from(self.percent(5))
        } else {
            1
        };
        for _ in 0..copies {
            if self.is_connected {
                self.send_ack(ack.clone());
            }
        }
    }

    fn reach_site(&mut self) -> Result<()> {
        for ack in due(&mut self.to_site, self.now_ms) {
            let archives = &self.archives;
            self.site
                .acked(self.now_ms, &ack, &|id, record| ever(archives, id, record))?;
        }
        Ok(())
    }

    /// Faults end: all that is held arrives.
    fn calm_down(&mut self) -> Result<()> {
        self.is_hostile = false;
        self.lose_connection();
        if self.was_claimed_too_much {
            // A generation that is disputed is obeyed again after a restart.
            self.site.restart(self.now_ms)?;
        }
        self.site.disk().heal();
        self.site.produce(self.now_ms, 3)?;
        self.idle_until_ms.fill(0);
        self.next_commit_fails.fill(false);
        self.connect();
        self.drain()
    }

    /// The archive's disk is replaced by its image while the store still holds what another archive has not: the store
    /// sends it again, and what it does not hold any more counts as lost.
    fn restore_in_peace(&mut self) -> Result<()> {
        self.archives[0].back_up();
        self.site.produce(self.now_ms, 12)?;
        if self.required() > 1 {
            self.idle_until_ms[1] = self.now_ms + 40_000;
        }
        self.pass_on_for(20_000)?;
        let held: Vec<RecordId> = self.site.held().collect();
        let start = self.random.u64(1..);
        self.archives[0].restore(start);
        self.to_archive.retain(|late| late.what.0 != 0);
        self.tally.archives_restored += 1;
        self.pass_on_for(5_000)?;
        self.site.produce(self.now_ms, 2)?;
        self.drain()?;
        for id in held {
            ensure!(
                self.archives[0].settled(id),
                "{id:?} was held when its archive was restored, and is not there"
            );
        }
        Ok(())
    }

    fn pass_on_for(&mut self, time_ms: u64) -> Result<()> {
        let end_ms = self.now_ms + time_ms;
        while self.now_ms < end_ms {
            self.now_ms += self.random.u64(0..800);
            self.pass_on()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let end_ms = self.now_ms + CALM_MS_MAX;
        while !self.is_done() {
            self.pass_on_for(1)?;
            ensure!(
                self.now_ms < end_ms,
                "{} records are still held when no more faults come",
                self.site.records_held()
            );
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let is_idle = self.to_broker.is_empty() && self.to_archive.is_empty();
        let required = &self.archives[..self.required()];
        if !is_idle || required.iter().any(Archive::is_busy) {
            return false;
        }
        // A generation of which an archive claims more than its disk knows is never obeyed, and what is behind it waits.
        let mut is_behind_a_dispute = false;
        self.site.held().all(|id| {
            let last = self.site.last_seq(id.generation);
            is_behind_a_dispute |= required.iter().any(|archive| archive.last(id.generation) > last);
            is_behind_a_dispute && required.iter().all(|archive| archive.settled(id))
        })
    }

    fn check_end(&mut self) -> Result<()> {
        for archive in &self.archives[..self.required()] {
            archive.check_books()?;
            for (id, content) in &self.site.truth.produced {
                let is_unnamed = self.check_record(archive, *id, *content)?;
                self.tally.unnamed_after_restore += u64::from(is_unnamed);
            }
        }
        Ok(())
    }

    /// True when the archive lost it with its disk, and no message will ever name it again.
    fn check_record(&self, archive: &Archive, id: RecordId, content: u64) -> Result<bool> {
        let truth = &self.site.truth;
        let was_here = archive.ever_stored(id);
        let is_gone = truth.gone_with_the_image.contains(&id);
        if let Some(stored) = archive.stored(id) {
            ensure!(stored == content, "{}: {id:?} says {stored}, not {content}", archive.id);
            return Ok(false);
        }
        if archive.lost(id) {
            let was_lost = was_here || is_gone || truth.dropped.contains(&id);
            ensure!(was_lost, "{}: {id:?} counts as lost, and nobody lost it", archive.id);
            return Ok(false);
        }
        if is_gone {
            return Ok(false);
        }
        // The store deleted it, as it was there once; it still holds nothing behind it that would name it.
        let is_known = id.seq <= self.site.last_seq(id.generation);
        let is_held = self.site.delivery.oldest_held(id.generation).is_some();
        let will_be_named = is_known && (is_held || id.generation == self.site.generation());
        let is_unnamed = archive.ever_had(id) && !will_be_named;
        ensure!(
            is_unnamed,
            "{}: {id:?} neither arrived nor was it told as lost",
            archive.id
        );
        Ok(true)
    }
}

fn ever(archives: &[Archive], id: &ArchiveId, record: RecordId) -> bool {
    archives
        .iter()
        .any(|archive| archive.id == *id && archive.ever_had(record))
}

/// What has got there by now.
fn due<T>(late: &mut Vec<Late<T>>, now_ms: u64) -> Vec<T> {
    late.extract_if(.., |late| late.at_ms <= now_ms)
        .map(|late| late.what)
        .collect()
}
