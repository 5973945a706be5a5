//! What happens to a message between its arrival and its acknowledgement, on one thread.
//!
//! In: messages as they came. Out: one durable commit for a batch of them, then what they say to whoever reckons with
//! it, then acknowledgements.
//! It never acknowledges before the commit, never counts a record twice, and never lets one bad payload stop its store.
//!
//! ```text
//!  arrived ─► cursor: fresh? ─► decode ─► batch ═commit═► reckoner (observations, findings, central's time)
//!                                            │      └───► acknowledgements, at most one per site and second
//!                       birth missing: stored as it came, asked for, read when the birth is there
//! ```

mod news;

pub use news::Reckoner;

use crate::archive::{
    Archive, ArchiveError, Batch, BirthKey, BirthRow, Lost, Payload, PurgeTimes, Retention, SiteState, Tally, Undecoded,
};
use crate::cursor::{Arrival, Brings, Cursor, CursorLimits, Numbers};
use crate::decode::{self, Dictionaries, Dictionary};
use crate::expect::QUARTERS_KEPT;
use crate::health::{Board, Counts};
use crate::rollup::{Rollups, SLOT_MS};
use crate::watermark::{LATENESS_MS, Watermark};
use news::{News, dictionary, news_again, read, tell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tillwatch_feed::codec;
use tillwatch_feed::message::{Body, Config, GapReason, Message};
use tillwatch_feed::topic::{ArchiveId, Leaf, Shard, SiteId, topic};
use tracing::{debug, info, warn};

/// Messages in one commit at most.
pub const BATCH_MESSAGES_MAX: usize = 256;
/// Payload bytes in one commit at most (one message more may come on top).
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Payloads that are read in one commit when their birth came late.
pub const LATE_PAYLOADS_MAX: u32 = 256;
/// Acknowledgements handed out at a time.
pub const ACKS_PER_TURN_MAX: usize = 512;
/// Event time that is read again at a start.
pub const REPLAY_MS: u64 = 26 * 60 * 60 * 1_000;
/// How far the sums go back that a start reads, and of what; more is kept for people, but nothing is reckoned from it.
pub const PAST_MS: u64 = QUARTERS_KEPT * SLOT_MS;
pub const PAST_ROLES: [&str; 2] = ["sales.count", "sales.amount"];
/// Rows removed at a time when they are older than the retention.
pub const PURGE_ROWS_MAX: u32 = 4_096;
/// Event time between two removals.
pub const PURGE_EVERY_MS: u64 = 10 * 60 * 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What comes from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// Subscribed anew: what was sent in between may be lost, so agents are told a new start number.
    Connected { start: u64 },
    Message {
        shard: Shard,
        site: SiteId,
        leaf: Leaf,
        payload: Vec<u8>,
    },
}

/// An acknowledgement on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingAck {
    pub site: SiteId,
    pub topic: String,
    pub payload: Vec<u8>,
}

/// What was seen; each limit that was hit has its own number.
#[derive(Debug, Default)]
pub struct Counters {
    pub messages: AtomicU64,
    pub records_fresh: AtomicU64,
    pub messages_duplicate: AtomicU64,
    pub messages_refused: AtomicU64,
    pub messages_undecoded: AtomicU64,
    pub messages_waiting_for_birth: AtomicU64,
    /// Dated too far ahead to be believed: they age from their arrival on.
    pub messages_ahead: AtomicU64,
    /// Beyond what is kept of one site.
    pub births_displaced: AtomicU64,
    /// Blocks refused as their site has [`crate::cursor::BIRTHS_WANTED_MAX`] births to send first.
    pub births_missing_refused: AtomicU64,
    /// Asked for [`crate::cursor::BIRTH_ASKS_MAX`] times in vain: what waits for them is not read.
    pub births_given_up: AtomicU64,
    pub rows_purged: AtomicU64,
    pub records_lost: AtomicU64,
    pub commits: AtomicU64,
    pub acks: AtomicU64,
    pub acks_held_back: AtomicU64,
}

impl Counters {
    fn add(number: &AtomicU64, by: u64) {
        number.fetch_add(by, Ordering::Relaxed);
    }

    /// Each with its name.
    pub fn all(&self) -> Counts {
        let all = [
            ("messages", &self.messages),
            ("records_fresh", &self.records_fresh),
            ("messages_duplicate", &self.messages_duplicate),
            ("messages_refused", &self.messages_refused),
            ("messages_undecoded", &self.messages_undecoded),
            ("messages_waiting_for_birth", &self.messages_waiting_for_birth),
            ("messages_ahead", &self.messages_ahead),
            ("births_displaced", &self.births_displaced),
            ("births_missing_refused", &self.births_missing_refused),
            ("births_given_up", &self.births_given_up),
            ("rows_purged", &self.rows_purged),
            ("records_lost", &self.records_lost),
            ("commits", &self.commits),
            ("acks", &self.acks),
            ("acks_held_back", &self.acks_held_back),
        ];
        all.map(|(name, number)| (name, number.load(Ordering::Relaxed))).into()
    }
}

/// The thread's state.
pub struct Receiver {
    id: ArchiveId,
    archive: Box<dyn Archive>,
    reckoner: Box<dyn Reckoner>,
    retention: Retention,
    cursor: Cursor,
    dictionaries: Dictionaries,
    /// Births that came since the last commit; payloads may wait for them.
    came: Vec<BirthKey>,
    watermark: Watermark,
    purged_ms: u64,
    batch: Batch,
    batch_messages: usize,
    batch_bytes: usize,
    rollups: Rollups,
    news: Vec<News>,
    pub counters: Arc<Counters>,
    /// Told what the stores' states and clocks say.
    pub board: Arc<Board>,
    /// What every store is told once on each connection of ours; none tells them nothing.
    pub announces: Option<Config>,
    /// Under which shard each store was told.
    announced_to: HashMap<SiteId, Shard>,
}

impl Receiver {
    pub fn new(
        id: ArchiveId,
        start: u64,
        archive: Box<dyn Archive>,
        reckoner: Box<dyn Reckoner>,
        retention: Retention,
    ) -> Self {
        Self {
            cursor: Cursor::new(id.clone(), start, CursorLimits::default()),
            id,
            archive,
            reckoner,
            retention,
            dictionaries: Dictionaries::default(),
            came: Vec::new(),
            watermark: Watermark::default(),
            purged_ms: 0,
            batch: Batch::default(),
            batch_messages: 0,
            batch_bytes: 0,
            rollups: Rollups::default(),
            news: Vec::new(),
            counters: Arc::new(Counters::default()),
            board: Arc::default(),
            announces: None,
            announced_to: HashMap::new(),
        }
    }

    /// Takes up where the archive stands: cursors, sums, and the last [`REPLAY_MS`] of payloads.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn restore(&mut self) -> Result<(), ArchiveError> {
        let per_site_max = u32::try_from(CursorLimits::default().generations_max).unwrap_or(u32::MAX);
        for mark in self.archive.marks(per_site_max)? {
            self.cursor.load(mark);
        }
        for (site, schema) in self.archive.births_missing()? {
            self.cursor.want_birth(&site, schema);
        }
        for SiteState { site, bytes } in self.archive.states()? {
            if let Ok(state) = codec::decode_state(&bytes) {
                self.board.state_restored(&site, state);
            }
        }
        self.watermark.set(self.archive.latest()?);
        self.watermark.resume(self.archive.watermark_ms()?.unwrap_or(0));
        let from_ms = self.watermark.now_ms().saturating_sub(REPLAY_MS);
        let from_ms = from_ms - from_ms % SLOT_MS;
        let past_ms = from_ms.saturating_sub(PAST_MS)..from_ms;
        let (archive, reckoner) = (&self.archive, &mut self.reckoner);
        archive.rollups(PAST_ROLES, past_ms, &mut |rollup| reckoner.restore(&rollup))?;
        reckoner.resume(&archive.incidents()?);
        self.replay(from_ms)?;
        info!(
            sites = self.cursor.sites(),
            now_ms = self.watermark.now_ms(),
            "archive read"
        );
        self.read_births_that_are_there()
    }

    /// Central's clocks, for what arrives next: the wall's is a ceiling for what stores say, and never event time itself;
    /// the other one, which nobody sets, measures silence.
    pub fn tell_time(&mut self, wall_ms: u64, monotonic_ms: u64) {
        self.board.tell_time(wall_ms);
        self.watermark.tell_time(wall_ms, monotonic_ms);
    }

    /// Takes one arrival into the batch.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn take(&mut self, arrived: Arrived) -> Result<(), ArchiveError> {
        match arrived {
            Arrived::Connected { start } => {
                self.cursor.restarted(start);
                // A broker may have lost what it retained.
                self.announced_to.clear();
                Ok(())
            }
            Arrived::Message {
                shard,
                site,
                leaf,
                payload,
            } => {
                Counters::add(&self.counters.messages, 1);
                self.batch_messages += 1;
                self.batch_bytes += payload.len();
                match leaf {
                    Leaf::State => self.take_state(site, payload),
                    _ => self.take_payload(&shard, site, &leaf, payload)?,
                }
                Ok(())
            }
        }
    }

    /// Must the batch be committed before the next message?
    pub fn is_full(&self) -> bool {
        self.batch_messages >= BATCH_MESSAGES_MAX || self.batch_bytes >= BATCH_BYTES_MAX
    }

    /// Makes the batch durable, then says what is in it.
    ///
    /// # Errors
    /// When the archive failed. The batch is still there: the caller may try again, and nothing is acknowledged until then.
    pub fn commit(&mut self) -> Result<(), ArchiveError> {
        self.write()?;
        while let Some((site, schema)) = self.came.last().cloned() {
            self.read_waiting(&site, schema)?;
            self.came.pop();
        }
        self.purge()
    }

    /// The acknowledgements that may go now.
    pub fn acks(&mut self, now_ms: u64) -> Vec<OutgoingAck> {
        let id = &self.id;
        let due = self.cursor.acks_due(now_ms, ACKS_PER_TURN_MAX);
        Counters::add(&self.counters.acks, u64::try_from(due.len()).unwrap_or(0));
        for (site, schema) in self.cursor.births_given_up() {
            Counters::add(&self.counters.births_given_up, 1);
            warn!(%site, schema, "birth not asked for any more");
        }
        let mut outgoing = Vec::with_capacity(due.len());
        for (shard, site, ack) in due {
            if let Some(config) = &self.announces
                && self.announced_to.insert(site.clone(), shard.clone()).as_ref() != Some(&shard)
            {
                outgoing.push(OutgoingAck {
                    site: site.clone(),
                    topic: topic(&shard, &site, &Leaf::Cfg),
                    payload: codec::encode_config(config),
                });
            }
            let topic = topic(&shard, &site, &Leaf::Ack(id.clone()));
            let payload = codec::encode_ack(&ack);
            outgoing.push(OutgoingAck { site, topic, payload });
        }
        outgoing
    }

    /// The way out was full: the site's acknowledgement is due again.
    pub fn ack_not_sent(&mut self, ack: &OutgoingAck) {
        Counters::add(&self.counters.acks_held_back, 1);
        self.cursor.ack_not_sent(&ack.site);
        self.announced_to.remove(&ack.site);
    }

    /// Central's time.
    pub fn now_ms(&self) -> u64 {
        self.watermark.now_ms()
    }

    fn take_state(&mut self, site: SiteId, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return; // a retained state that was cleared
        }
        match codec::decode_state(&bytes) {
            Ok(state) => self.board.state_came(&site, state),
            Err(error) => return self.undecoded(site, &Leaf::State, error.to_string(), bytes),
        }
        self.batch.states.retain(|state| state.site != site);
        self.batch.states.push(SiteState { site, bytes });
    }

    fn take_payload(&mut self, shard: &Shard, site: SiteId, leaf: &Leaf, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let message = match codec::decode(&bytes) {
            Ok(message) => message,
            Err(error) => {
                self.undecoded(site, leaf, error.to_string(), bytes);
                return Ok(());
            }
        };
        self.board.heard(&site, &message.clock);
        if !self.may_wait(&site, &message.body)? {
            Counters::add(&self.counters.births_missing_refused, 1);
            let refusal = "its birth is missing, as too many others are";
            warn!(%site, refusal, "message refused");
            return Ok(());
        }
        let Some(arrival) = self.settle(shard, &site, &message)? else {
            return Ok(());
        };
        self.count(&site, &message, &arrival);
        match &message.body {
            Body::Birth(birth) => {
                if let Err(reason) = self.dictionaries.learn(&site, birth) {
                    self.undecoded(site, leaf, reason.to_string(), bytes);
                } else {
                    let came_ms = self.ages_ms(&message, true);
                    self.take_birth(BirthRow {
                        site,
                        schema: birth.schema,
                        came_ms,
                        bytes,
                    });
                }
            }
            Body::Gap(_) => {}
            _ if arrival.fresh.is_empty() => {}
            Body::Finding(finding) => {
                let finding = finding.clone();
                self.store(&site, &message, arrival, false, bytes);
                self.news.push(News::Finding { site, finding });
            }
            Body::Block(block) => match self.dictionary(&site, block.schema)? {
                Some(dictionary) => self.take_block(site, &message, arrival, &dictionary, bytes),
                None => self.keep_for_later(&site, &message, arrival, block.schema, bytes),
            },
        }
        Ok(())
    }

    /// False for a block whose birth is one more than its site may leave out; it is not acknowledged, so it comes again.
    fn may_wait(&mut self, site: &SiteId, body: &Body) -> Result<bool, ArchiveError> {
        let Body::Block(block) = body else {
            return Ok(true);
        };
        Ok(self.cursor.may_want(site, block.schema) || self.dictionary(site, block.schema)?.is_some())
    }

    /// From when on a message ages: its own time, or central's when it is dated too far ahead; what has to stay for a
    /// while whatever its date, from its arrival on at the earliest.
    fn ages_ms(&self, message: &Message, stays: bool) -> u64 {
        let ages_ms = self.watermark.ages_ms(decode::covers(message).1);
        let least_ms = if stays { self.watermark.now_ms() } else { 0 };
        ages_ms.max(least_ms)
    }

    /// What the message brings, or `None` when a limit refused it; it will come again then.
    fn settle(&mut self, shard: &Shard, site: &SiteId, message: &Message) -> Result<Option<Arrival>, ArchiveError> {
        let Message {
            generation,
            seq_first,
            seq_last,
            oldest_seq_held,
            ..
        } = *message;
        if !self.cursor.knows(site, generation)
            && let Some(mark) = self.archive.mark(site, generation)?
        {
            self.cursor.load(mark);
        }
        let numbers = Numbers {
            generation,
            seq_first,
            seq_last,
            oldest_seq_held,
        };
        let brings = if matches!(message.body, Body::Gap(_)) {
            Brings::Gap
        } else {
            Brings::Records
        };
        match self.cursor.arrived(shard, site, numbers, brings) {
            Ok(arrival) => Ok(Some(arrival)),
            Err(refusal) => {
                Counters::add(&self.counters.messages_refused, 1);
                warn!(%site, %refusal, "message refused");
                Ok(None)
            }
        }
    }

    /// Writes down what is fresh and what is lost, so that received + accounted for = produced can be checked by day.
    fn count(&mut self, site: &SiteId, message: &Message, arrival: &Arrival) {
        let ages_ms = self.ages_ms(message, false);
        let end_ms = decode::covers(message).1;
        let day = u32::try_from(end_ms / DAY_MS).unwrap_or(u32::MAX);
        let generation = message.generation;
        let (mut received, mut accounted) = (0, total(&arrival.lost));
        self.lose(site, generation, &arrival.lost, ages_ms, "lost at the center");
        if let Body::Gap(reason) = message.body {
            accounted += total(&arrival.fresh);
            self.lose(site, generation, &arrival.fresh, ages_ms, gap_text(reason));
        } else {
            received = total(&arrival.fresh);
            Counters::add(&self.counters.records_fresh, received);
        }
        if arrival.fresh.is_empty() {
            Counters::add(&self.counters.messages_duplicate, 1);
        }
        if ages_ms < end_ms {
            Counters::add(&self.counters.messages_ahead, 1);
        }
        let numbers = || arrival.lost.iter().chain(&arrival.fresh);
        let (seq_first, seq_last) = (numbers().map(|part| part.0).min(), numbers().map(|part| part.1).max());
        if let (Some(seq_first), Some(seq_last)) = (seq_first, seq_last) {
            self.batch.tallies.push(Tally {
                site: site.clone(),
                generation,
                day,
                seq_first,
                seq_last,
                received,
                accounted,
            });
        }
    }

    fn lose(&mut self, site: &SiteId, generation: u64, ranges: &[(u64, u64)], ages_ms: u64, reason: &str) {
        for &(seq_first, seq_last) in ranges {
            warn!(%site, generation, seq_first, seq_last, reason, "records lost");
            let reason = reason.to_owned();
            self.batch.lost.push(Lost {
                site: site.clone(),
                generation,
                seq_first,
                seq_last,
                ages_ms,
                reason,
            });
        }
        Counters::add(&self.counters.records_lost, total(ranges));
    }

    fn take_birth(&mut self, birth: BirthRow) {
        self.cursor.birth_came(&birth.site, birth.schema);
        self.came.push((birth.site.clone(), birth.schema));
        self.batch.births.push(birth);
    }

    fn take_block(
        &mut self,
        site: SiteId,
        message: &Message,
        arrival: Arrival,
        dictionary: &Dictionary,
        bytes: Vec<u8>,
    ) {
        match read(&site, message, dictionary, &arrival.fresh) {
            Ok(observations) => {
                observations
                    .iter()
                    .for_each(|observation| self.rollups.add(observation));
                let end_ms = decode::covers(message).1;
                self.store(&site, message, arrival, false, bytes);
                self.news.push(News::Observations {
                    site,
                    end_ms,
                    observations,
                });
            }
            Err(reason) => self.undecoded(site, &Leaf::Sum, reason.to_string(), bytes),
        }
    }

    fn keep_for_later(&mut self, site: &SiteId, message: &Message, arrival: Arrival, schema: u64, bytes: Vec<u8>) {
        Counters::add(&self.counters.messages_waiting_for_birth, 1);
        debug!(%site, schema, "block waits for its birth");
        self.store(site, message, arrival, true, bytes);
        self.cursor.want_birth(site, schema);
    }

    fn store(&mut self, site: &SiteId, message: &Message, arrival: Arrival, is_waiting: bool, bytes: Vec<u8>) {
        let (start_ms, end_ms) = decode::covers(message);
        let ages_ms = self.ages_ms(message, is_waiting);
        let schema = match &message.body {
            Body::Block(block) => Some(block.schema),
            _ => None,
        };
        let Message {
            generation,
            seq_first,
            seq_last,
            ..
        } = *message;
        let (site, fresh) = (site.clone(), arrival.fresh);
        self.batch.payloads.push(Payload {
            site,
            generation,
            seq_first,
            seq_last,
            fresh,
            start_ms,
            end_ms,
            ages_ms,
            arrived_ms: self.watermark.wall_ms(),
            schema,
            is_waiting,
            bytes,
        });
    }

    fn undecoded(&mut self, site: SiteId, leaf: &Leaf, reason: String, bytes: Vec<u8>) {
        Counters::add(&self.counters.messages_undecoded, 1);
        warn!(%site, %leaf, reason, bytes = bytes.len(), "payload cannot be read, kept as it came");
        self.batch.undecoded.push(Undecoded {
            site,
            leaf: leaf.to_string(),
            reason,
            bytes,
        });
    }

    /// From memory, else from the archive.
    fn dictionary(&mut self, site: &SiteId, schema: u64) -> Result<Option<Arc<Dictionary>>, ArchiveError> {
        dictionary(&mut self.dictionaries, &*self.archive, site, schema)
    }

    fn write(&mut self) -> Result<(), ArchiveError> {
        self.batch.marks = self.cursor.changed();
        self.batch.rollups.extend(self.rollups.take());
        self.batch.incidents.add(self.reckoner.changed_incidents());
        if !self.batch.is_empty() {
            self.batch.watermark_ms = Some(self.watermark.now_ms()).filter(|now_ms| *now_ms > 0);
            let displaced = self.archive.commit(&self.batch)?;
            Counters::add(&self.counters.commits, 1);
            Counters::add(
                &self.counters.births_displaced,
                u64::try_from(displaced.len()).unwrap_or(u64::MAX),
            );
            self.forget(&displaced);
        }
        self.cursor.committed();
        self.batch = Batch::default();
        self.batch_messages = 0;
        self.batch_bytes = 0;
        for news in std::mem::take(&mut self.news) {
            tell(&mut *self.reckoner, &mut self.watermark, news);
        }
        Ok(())
    }

    /// Reads the payloads that waited for a birth which is in the archive now.
    fn read_waiting(&mut self, site: &SiteId, schema: u64) -> Result<(), ArchiveError> {
        let Some(dictionary) = self.dictionary(site, schema)? else {
            // Displaced as soon as it came: what waits goes on waiting.
            if !self.archive.waiting(site, schema, 1)?.is_empty() {
                self.cursor.want_birth(site, schema);
            }
            return Ok(());
        };
        loop {
            let waiting = self.archive.waiting(site, schema, LATE_PAYLOADS_MAX)?;
            if waiting.is_empty() {
                return Ok(());
            }
            for stored in waiting {
                self.batch.read_late.push(stored.id);
                self.read_late(site, stored.payload, &dictionary);
            }
            self.write()?;
        }
    }

    fn read_late(&mut self, site: &SiteId, payload: Payload, dictionary: &Dictionary) {
        let Ok(message) = codec::decode(&payload.bytes) else {
            return;
        }; // it was readable when it came
        match read(site, &message, dictionary, &payload.fresh) {
            Ok(observations) => {
                observations
                    .iter()
                    .for_each(|observation| self.rollups.add(observation));
                self.news.push(News::Observations {
                    site: site.clone(),
                    end_ms: payload.end_ms,
                    observations,
                });
            }
            Err(reason) => self.undecoded(site.clone(), &Leaf::Sum, reason.to_string(), payload.bytes),
        }
    }

    /// After a kill between a birth's commit and the reading of what waited for it.
    fn read_births_that_are_there(&mut self) -> Result<(), ArchiveError> {
        for (site, schema) in self.archive.births_missing()? {
            if self.dictionary(&site, schema)?.is_some() {
                self.cursor.birth_came(&site, schema);
                self.read_waiting(&site, schema)?;
            }
        }
        Ok(())
    }

    fn replay(&mut self, from_ms: u64) -> Result<(), ArchiveError> {
        let Self {
            archive,
            reckoner,
            dictionaries,
            watermark,
            ..
        } = self;
        // Time passes again as it did, but not beyond where all sites together say that it is.
        let mut again = Watermark::up_to(watermark.believed_ms().max(watermark.now_ms() + LATENESS_MS));
        let mut failed = None;
        archive.payloads_since(from_ms, &mut |stored| {
            let arrived_ms = stored.payload.arrived_ms;
            again.tell_time(arrived_ms, arrived_ms);
            match news_again(dictionaries, &**archive, from_ms, stored.payload) {
                Ok(Some(news)) => tell(&mut **reckoner, &mut again, news),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        })?;
        if watermark.now_ms() > again.now_ms() {
            reckoner.on_clock(watermark.now_ms());
        }
        failed.map_or(Ok(()), Err)
    }

    fn purge(&mut self) -> Result<(), ArchiveError> {
        let now_ms = self.watermark.now_ms();
        if now_ms < self.purged_ms + PURGE_EVERY_MS {
            return Ok(());
        }
        let times = PurgeTimes {
            most_ms: self.watermark.most_ms(),
            latest_ms: self.watermark.latest_ms(),
        };
        let purged = self.archive.purge(times, self.retention, PURGE_ROWS_MAX)?;
        Counters::add(&self.counters.rows_purged, u64::try_from(purged.rows).unwrap_or(0));
        self.forget(&purged.births);
        if purged.rows > 0 {
            self.wait_for_what_is_left()?;
        }
        // As long as there is more to remove, the next commit goes on.
        if purged.rows < usize::try_from(PURGE_ROWS_MAX).unwrap_or(usize::MAX) {
            self.purged_ms = now_ms;
        }
        Ok(())
    }

    fn forget(&mut self, births: &[BirthKey]) {
        for (site, schema) in births {
            self.dictionaries.forget(site, *schema);
        }
    }

    /// Nobody waits any more for the births of payloads that are gone.
    fn wait_for_what_is_left(&mut self) -> Result<(), ArchiveError> {
        let wanted = self.cursor.births_wanted();
        let wanted: Vec<_> = wanted.map(|(site, schema)| (site.clone(), schema)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let left: BTreeSet<_> = self.archive.births_missing()?.into_iter().collect();
        for (site, schema) in wanted.iter().filter(|key| !left.contains(key)) {
            self.cursor.birth_came(site, *schema);
        }
        Ok(())
    }
}

fn total(ranges: &[(u64, u64)]) -> u64 {
    ranges
        .iter()
        .fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
}

fn gap_text(reason: GapReason) -> &'static str {
    match reason {
        GapReason::QuotaBytes => "spool full",
        GapReason::QuotaAge => "older than the spool keeps",
        GapReason::Corrupt => "corrupt in the spool",
        GapReason::Refused => "refused by the broker",
        GapReason::Unknown => "for a reason of a later version",
    }
}
