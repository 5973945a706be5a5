//! Which record goes over the wire next, and which may be forgotten: a pure machine, told the time.
//!
//! In: what the spool holds and lost, connections, acknowledgements, refusals.
//! Out: what to send, in three lanes, and through which record the spool may delete.
//! It never counts what the broker took as delivered: only what every required archive acknowledged is.

mod archives;
mod held;
mod pace;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;

use tillwatch_feed::message::{Ack, GapReason, RecordId};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::ArchiveId;

use crate::record::{HeldGap, RecordKind, Run};
use archives::Archives;
use held::{Held, HeldGeneration};
use pace::Pace;
pub use pace::QUEUE_MS_MAX;

/// After connecting, sending waits so long for the retained acknowledgements, which save sending again.
pub const ACK_GRACE_MS: u64 = 1_000;

/// What was sent on a connection that ended may still be acknowledged for so long: an archive speaks once a second.
pub const ACK_DOUBT_MS: u64 = 2_500;

/// What the broker denied is tried again after this.
pub const DENIED_PAUSE_MS: u64 = 60_000;

/// The wait for an acknowledgement is doubled at most so often while none comes.
pub const TIMEOUT_DOUBLINGS_MAX: u32 = 4;

/// Records sent beyond the acknowledgement: fifty messages of sixty joined blocks.
pub const IN_FLIGHT_MAX: u64 = 3_000;

/// What the operator decides of delivery.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// Whose acknowledgement is required before a record is deleted. Empty: nothing is ever deleted.
    pub archives: Vec<ArchiveId>,
    /// Records sent beyond the acknowledgement; a tenth of it is kept free of backlog.
    pub in_flight_max: u64,
    /// Not acknowledged for so long: sent again. Doubled up to [`TIMEOUT_DOUBLINGS_MAX`] times while none comes.
    pub ack_timeout_ms: u64,
    /// Consecutive blocks of one schema in one message.
    pub join_max: u64,
    /// After an archive was restored, sending again starts within this time.
    pub rewind_jitter_ms: u64,
    /// For the jitter.
    pub seed: u64,
}

impl DeliverySettings {
    /// The defaults for these archives.
    pub fn new(archives: Vec<ArchiveId>, seed: u64) -> DeliverySettings {
        DeliverySettings {
            archives,
            in_flight_max: IN_FLIGHT_MAX,
            ack_timeout_ms: 60_000,
            join_max: 60,
            rewind_jitter_ms: 60_000,
            seed,
        }
    }

    fn backlog_max(&self) -> u64 {
        if self.in_flight_max < 2 {
            self.in_flight_max
        } else {
            self.in_flight_max - (self.in_flight_max / 10).max(1)
        }
    }
}

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Findings.
    Urgent,
    /// The newest record when the connection came to stand, and all since.
    Live,
    /// What waited.
    Backlog,
}

/// What goes over the wire next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// The birth of this schema, from the spool's copy, under its own record id.
    Births { schema: u64 },
    /// These records as one message: more than one only for blocks.
    Records {
        lane: Lane,
        kind: RecordKind,
        schema: u64,
        generation: u64,
        seq_first: u64,
        seq_last: u64,
    },
    /// A gap message for these records.
    Gap {
        generation: u64,
        seq_first: u64,
        seq_last: u64,
        reason: GapReason,
    },
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Larger than the broker takes: sent in halves; a single record waits for the next connection, and is given up there.
    TooLarge,
    /// Not authorized, over quota, or another reason of the broker's: its topic pauses.
    Denied,
}

/// What an acknowledgement brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Everything up to and including this record, in the order of the spool, may be deleted.
    pub release: Option<RecordId>,
    /// Births that the archive asked for and that `poll` will give.
    pub resend_births: Vec<u64>,
    /// What is wrong with it, each told once.
    pub problems: Vec<AckProblem>,
}

/// What is wrong with an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckProblem {
    /// None of the required archives: ignored.
    UnknownArchive { archive: ArchiveId },
    /// It acknowledges records that were never written here: this spool is older than what was sent.
    /// Not obeyed for this generation; the agent should begin a new one.
    SpoolRewound {
        archive: ArchiveId,
        generation: u64,
        acknowledged: u64,
        last: u64,
    },
    /// The archive was restored; what it lost and is still held is sent again.
    Restarted { archive: ArchiveId },
}

/// A message on the wire; gaps count as one record.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    generation: u64,
    seq_first: u64,
    seq_last: u64,
    sent_ms: u64,
    lane: Option<Lane>,
    /// Its connection ended: it may have arrived.
    is_doubtful: bool,
}

impl InFlight {
    fn records(&self) -> u64 {
        if self.lane.is_some() {
            self.seq_last - self.seq_first + 1
        } else {
            1
        }
    }
}

/// An archive began anew: what was sent before that was heard, and is not acknowledged when it is due, goes again.
#[derive(Clone, Copy, Debug)]
struct Rewind {
    heard_ms: u64,
    due_ms: u64,
}

/// Topics that the broker can deny one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Birth,
    Sum,
    Evt,
}

/// The rules of delivery for one site.
#[derive(Debug)]
pub struct Delivery {
    settings: DeliverySettings,
    held: Held,
    archives: Archives,
    random: u64,
    /// Since when the connection stands.
    connected_ms: Option<u64>,
    in_flight: Vec<InFlight>,
    /// Not sent again on this connection: too large, or of a disputed generation.
    parked: BTreeMap<u64, RangeSet>,
    /// Single records that were too large on this or an earlier connection.
    too_large: BTreeMap<u64, RangeSet>,
    /// When the birth of a schema was sent on this connection.
    births_sent: BTreeMap<u64, u64>,
    births_due: Vec<u64>,
    /// The newest record when the connection came to stand.
    live_from: Option<RecordId>,
    join_limit: u64,
    pace: Pace,
    doublings: u32,
    rewind: Option<Rewind>,
    paused_until_ms: [u64; 3],
}

impl Delivery {
    /// Nothing held yet.
    pub fn new(settings: DeliverySettings) -> Delivery {
        Delivery {
            held: Held::default(),
            archives: Archives::new(&settings.archives),
            random: settings.seed | 1,
            connected_ms: None,
            in_flight: Vec::new(),
            parked: BTreeMap::new(),
            too_large: BTreeMap::new(),
            births_sent: BTreeMap::new(),
            births_due: Vec::new(),
            live_from: None,
            join_limit: settings.join_max.max(1),
            pace: Pace::default(),
            doublings: 0,
            rewind: None,
            paused_until_ms: [0; 3],
            settings,
        }
    }

    /// Records are durable in the spool. Runs come in the order of the spool.
    pub fn on_held(&mut self, run: Run) {
        if run.seq_first <= run.seq_last {
            self.held.push(run);
        }
    }

    /// The spool dropped records. A generation that is lost as a whole counts as the oldest.
    ///
    /// What of them is in flight may still arrive; the gap is told as soon as that is not acknowledged in time.
    pub fn on_gap(&mut self, gap: HeldGap) {
        if gap.seq_first <= gap.seq_last {
            self.held.lose(gap);
        }
    }

    /// The connection stands and the acknowledgements are subscribed.
    pub fn on_connected(&mut self, now_ms: u64) {
        self.on_disconnected();
        self.connected_ms = Some(now_ms);
        self.archives.on_connected();
        self.live_from = self.held.newest();
        self.join_limit = self.settings.join_max.max(1);
        self.paused_until_ms = [0; 3];
    }

    /// What was in flight may be lost, or may have arrived.
    pub fn on_disconnected(&mut self) {
        self.connected_ms = None;
        self.in_flight.iter_mut().for_each(|sent| sent.is_doubtful = true);
        self.parked.clear();
        self.births_sent.clear();
        self.births_due.clear();
        self.rewind = None;
        self.pace = Pace::default();
    }

    /// What `poll` gave was handed to the connection as a message of so many bytes.
    pub fn on_handed_over(&mut self, now_ms: u64, send: &Send, bytes: u64) {
        self.pace.on_handed_over(now_ms, send, bytes);
    }

    /// The broker has it, which says how fast the link is, and nothing about the archive.
    pub fn on_published(&mut self, now_ms: u64, send: &Send) {
        self.pace.on_published(now_ms, send);
    }

    /// An archive says what it has.
    pub fn on_ack(&mut self, now_ms: u64, ack: &Ack) -> AckOutcome {
        let heard = self.archives.on_ack(ack, &self.held);
        if !heard.required {
            return AckOutcome {
                problems: heard.problems,
                ..AckOutcome::default()
            };
        }
        if heard.progress {
            self.doublings = 0;
        }
        if heard.restarted {
            // It may have lost the dictionaries with the records.
            self.births_sent.clear();
            self.begin_rewind(now_ms);
        }
        self.forget_acknowledged_in_flight();
        let archives = &self.archives;
        let release = self.held.release(|generation| archives.acked(generation));
        self.archives.forget_all_but(&self.held);
        let held = &self.held;
        self.too_large
            .retain(|generation, _records| held.generation(*generation).is_some());
        let resend_births = self.births_to_repeat(now_ms, &ack.births_wanted);
        AckOutcome {
            release,
            resend_births,
            problems: heard.problems,
        }
    }

    /// The broker, or the codec, did not take what `poll` gave. A single record that was too large on two connections is
    /// given up, so that it does not hold the spool for ever: the gap is to be kept, and then told by `on_gap`.
    #[must_use]
    pub fn on_refused(&mut self, now_ms: u64, send: &Send, refusal: Refusal) -> Option<HeldGap> {
        self.pace.forget(send);
        match *send {
            Send::Births { schema } => {
                if refusal == Refusal::Denied {
                    self.births_sent.remove(&schema);
                    self.pause(now_ms, Topic::Birth);
                }
            }
            Send::Records {
                kind,
                schema,
                generation,
                seq_first,
                seq_last,
                ..
            } => {
                self.in_flight
                    .retain(|sent| sent.generation != generation || sent.seq_first != seq_first);
                if refusal == Refusal::Denied {
                    if kind == RecordKind::Birth {
                        self.births_sent.remove(&schema);
                    }
                    self.pause(now_ms, topic_of(kind));
                } else if seq_first < seq_last {
                    self.join_limit = (seq_last - seq_first).div_ceil(2).max(1);
                } else {
                    return self.on_too_large(generation, seq_first);
                }
            }
            Send::Gap {
                generation, seq_first, ..
            } => {
                self.in_flight
                    .retain(|sent| sent.generation != generation || sent.seq_first != seq_first);
                self.pause(now_ms, Topic::Sum);
            }
        }
        None
    }

    /// Not before what arrived was acknowledged, and not all sites at once.
    fn begin_rewind(&mut self, now_ms: u64) {
        let most_ms = self.settings.rewind_jitter_ms;
        let least_ms = ACK_DOUBT_MS.min(most_ms);
        let wait_ms = least_ms + self.jitter((most_ms - least_ms).saturating_add(1));
        self.rewind = Some(Rewind {
            heard_ms: now_ms,
            due_ms: now_ms.saturating_add(wait_ms),
        });
    }

    fn on_too_large(&mut self, generation: u64, seq: u64) -> Option<HeldGap> {
        let before = self.too_large.entry(generation).or_default();
        if before.contains_all(seq, seq) {
            return Some(HeldGap {
                generation,
                seq_first: seq,
                seq_last: seq,
                reason: GapReason::Refused,
            });
        }
        before.insert(seq, seq);
        self.parked.entry(generation).or_default().insert(seq, seq);
        None
    }

    /// What to send now; call until `None`.
    pub fn poll(&mut self, now_ms: u64) -> Option<Send> {
        if now_ms < self.sending_from()? {
            return None;
        }
        self.expire(now_ms);
        if let Some(schema) = self.next_birth_due(now_ms) {
            return Some(self.send_birth(now_ms, schema));
        }
        let rewinding = self.rewind.is_some();
        if !rewinding && let Some(gap) = self.next_gap(now_ms) {
            return Some(self.send_gap(now_ms, gap));
        }
        for lane in [Lane::Urgent, Lane::Live, Lane::Backlog] {
            if lane == Lane::Backlog && rewinding {
                continue;
            }
            if let Some(run) = self.next_run(now_ms, lane) {
                return Some(self.send_run(now_ms, lane, run));
            }
        }
        None
    }

    /// When `poll` may have something new without another event; `u64::MAX` for never.
    pub fn next_wake(&self, now_ms: u64) -> u64 {
        let Some(from) = self.sending_from() else {
            return u64::MAX;
        };
        if now_ms < from {
            return from;
        }
        let timeouts = self.in_flight.iter().map(|sent| self.expires_ms(sent));
        let pauses = self.paused_until_ms.into_iter().filter(|until| *until > now_ms);
        let rewind = self.rewind.map(|rewind| rewind.due_ms);
        timeouts.chain(pauses).chain(rewind).min().unwrap_or(u64::MAX)
    }

    /// Smallest seq of this generation that is held or accounted for by a gap, for the message.
    pub fn oldest_held(&self, generation: u64) -> Option<u64> {
        self.held.generation(generation).and_then(HeldGeneration::oldest)
    }

    /// Records on the wire that are not acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.iter().map(InFlight::records).sum()
    }

    /// Records that are not sent again on this connection: too large for the broker, or of a disputed generation.
    pub fn parked(&self) -> u64 {
        self.parked.values().map(RangeSet::count).sum()
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &DeliverySettings {
        &self.settings
    }

    /// From when on this connection is used; `None` without one.
    fn sending_from(&self) -> Option<u64> {
        let connected_ms = self.connected_ms?;
        Some(if self.archives.all_heard() {
            connected_ms
        } else {
            connected_ms.saturating_add(ACK_GRACE_MS)
        })
    }

    fn timeout_ms(&self) -> u64 {
        self.settings
            .ack_timeout_ms
            .saturating_mul(1 << self.doublings.min(TIMEOUT_DOUBLINGS_MAX))
    }

    fn expires_ms(&self, sent: &InFlight) -> u64 {
        let timeout_ms = if sent.is_doubtful {
            ACK_DOUBT_MS
        } else {
            self.timeout_ms()
        };
        sent.sent_ms.saturating_add(timeout_ms)
    }

    /// What waited too long for its acknowledgement counts as not sent.
    fn expire(&mut self, now_ms: u64) {
        if let Some(rewind) = self.rewind.filter(|rewind| rewind.due_ms <= now_ms) {
            self.rewind = None;
            self.in_flight.retain(|sent| sent.sent_ms > rewind.heard_ms);
        }
        let (expired, kept): (Vec<InFlight>, Vec<InFlight>) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|sent| self.expires_ms(sent) <= now_ms);
        self.in_flight = kept;
        if expired.iter().any(|sent| !sent.is_doubtful) {
            self.doublings = (self.doublings + 1).min(TIMEOUT_DOUBLINGS_MAX);
        }
        for sent in expired {
            // No acknowledgement of a disputed generation will be obeyed: it must not block the others.
            if self.archives.disputed(sent.generation) {
                self.parked
                    .entry(sent.generation)
                    .or_default()
                    .insert(sent.seq_first, sent.seq_last);
            }
        }
    }

    fn forget_acknowledged_in_flight(&mut self) {
        let mut left = Vec::with_capacity(self.in_flight.len());
        for sent in &self.in_flight {
            let missing = self
                .archives
                .acked(sent.generation)
                .missing_in(sent.seq_first, sent.seq_last);
            if sent.lane.is_none() && !missing.is_empty() {
                left.push(*sent);
            } else {
                left.extend(missing.iter().map(|(first, last)| InFlight {
                    seq_first: *first,
                    seq_last: *last,
                    ..*sent
                }));
            }
        }
        self.in_flight = left;
    }

    fn births_to_repeat(&mut self, now_ms: u64, wanted: &[u64]) -> Vec<u64> {
        let mut repeat = Vec::new();
        for schema in wanted {
            let recently = self
                .births_sent
                .get(schema)
                .is_some_and(|sent_ms| now_ms < sent_ms.saturating_add(self.settings.ack_timeout_ms));
            if !recently && self.connected_ms.is_some() && !self.births_due.contains(schema) {
                self.births_due.push(*schema);
                repeat.push(*schema);
            }
        }
        repeat
    }

    fn next_birth_due(&mut self, now_ms: u64) -> Option<u64> {
        if self.is_paused(now_ms, Topic::Birth) || self.births_due.is_empty() {
            return None;
        }
        Some(self.births_due.remove(0))
    }

    /// What of a generation must not be sent now: acknowledged, in flight, or parked.
    fn settled(&self, generation: u64) -> RangeSet {
        let mut settled = self.archives.acked(generation);
        for sent in self.in_flight.iter().filter(|sent| sent.generation == generation) {
            settled.insert(sent.seq_first, sent.seq_last);
        }
        for (first, last) in self.parked.get(&generation).into_iter().flat_map(RangeSet::iter) {
            settled.insert(first, last);
        }
        settled
    }

    fn next_gap(&self, now_ms: u64) -> Option<HeldGap> {
        if self.is_paused(now_ms, Topic::Sum) || self.in_flight() >= self.settings.in_flight_max {
            return None;
        }
        self.held.generations.iter().find_map(|held| {
            let settled = self.settled(held.generation);
            held.gaps
                .iter()
                .find(|gap| !settled.contains_all(gap.seq_first, gap.seq_last))
                .copied()
        })
    }

    /// The oldest records of this lane that may go now.
    fn next_run(&self, now_ms: u64, lane: Lane) -> Option<Run> {
        let room = self.room(lane)?;
        let live_at = self.live_from.and_then(|from| {
            self.held
                .generations
                .iter()
                .position(|held| held.generation == from.generation)
                .map(|at| (at, from.seq))
        });
        let live_at = live_at.unwrap_or((0, 0));
        for (at, held) in self.held.generations.iter().enumerate() {
            let settled = self.settled(held.generation);
            for run in &held.runs {
                if (lane == Lane::Urgent) != (run.kind == RecordKind::Finding)
                    || self.is_paused(now_ms, topic_of(run.kind))
                    || (run.kind == RecordKind::Block && self.is_paused(now_ms, Topic::Birth))
                {
                    continue;
                }
                let part = clip(*run, lane, at, live_at);
                let Some((first, last)) =
                    part.and_then(|(first, last)| settled.missing_in(first, last).first().copied())
                else {
                    continue;
                };
                return self.joined(
                    Run {
                        seq_first: first,
                        seq_last: last,
                        ..*run
                    },
                    lane,
                    room,
                );
            }
        }
        None
    }

    fn room(&self, lane: Lane) -> Option<u64> {
        let all = self.settings.in_flight_max.checked_sub(self.in_flight())?;
        if lane == Lane::Backlog && !self.pace.has_room() {
            return None;
        }
        let room = if lane == Lane::Backlog {
            let backlog = self.in_flight.iter().filter(|sent| sent.lane == Some(Lane::Backlog));
            let used: u64 = backlog.map(InFlight::records).sum();
            all.min(self.settings.backlog_max().saturating_sub(used))
        } else {
            all
        };
        (room > 0).then_some(room)
    }

    /// As much of the run as goes into one message; a backlog waits until that is worth a message.
    fn joined(&self, run: Run, lane: Lane, room: u64) -> Option<Run> {
        let available = run.seq_last - run.seq_first + 1;
        let most = if lane == Lane::Backlog {
            self.join_limit.min(self.pace.records_max())
        } else {
            self.join_limit
        };
        let wanted = if run.kind == RecordKind::Block {
            available.min(most)
        } else {
            1
        };
        let worth = wanted.min((self.settings.backlog_max() / 2).max(1));
        if lane == Lane::Backlog && room < worth {
            return None;
        }
        Some(Run {
            seq_last: run.seq_first + wanted.min(room) - 1,
            ..run
        })
    }

    fn send_birth(&mut self, now_ms: u64, schema: u64) -> Send {
        self.births_sent.insert(schema, now_ms);
        Send::Births { schema }
    }

    fn send_gap(&mut self, now_ms: u64, gap: HeldGap) -> Send {
        let HeldGap {
            generation,
            seq_first,
            seq_last,
            reason,
        } = gap;
        self.in_flight.push(InFlight {
            generation,
            seq_first,
            seq_last,
            sent_ms: now_ms,
            lane: None,
            is_doubtful: false,
        });
        Send::Gap {
            generation,
            seq_first,
            seq_last,
            reason,
        }
    }

    fn send_run(&mut self, now_ms: u64, lane: Lane, run: Run) -> Send {
        let Run {
            generation,
            seq_first,
            seq_last,
            kind,
            schema,
        } = run;
        if kind == RecordKind::Block && !self.births_sent.contains_key(&schema) {
            return self.send_birth(now_ms, schema);
        }
        if kind == RecordKind::Birth {
            self.births_sent.insert(schema, now_ms);
        }
        self.in_flight.push(InFlight {
            generation,
            seq_first,
            seq_last,
            sent_ms: now_ms,
            lane: Some(lane),
            is_doubtful: false,
        });
        Send::Records {
            lane,
            kind,
            schema,
            generation,
            seq_first,
            seq_last,
        }
    }

    fn pause(&mut self, now_ms: u64, topic: Topic) {
        self.paused_until_ms[topic as usize] = now_ms.saturating_add(DENIED_PAUSE_MS);
    }

    fn is_paused(&self, now_ms: u64, topic: Topic) -> bool {
        now_ms < self.paused_until_ms[topic as usize]
    }

    /// xorshift64*, so that a seed replays.
    fn jitter(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) % below.max(1)
    }
}

fn topic_of(kind: RecordKind) -> Topic {
    match kind {
        RecordKind::Birth => Topic::Birth,
        RecordKind::Block => Topic::Sum,
        RecordKind::Finding => Topic::Evt,
    }
}

/// The part of a run that belongs to the lane; `live_at` is the position from which on records are live.
fn clip(run: Run, lane: Lane, at: usize, live_at: (usize, u64)) -> Option<(u64, u64)> {
    let from = match at.cmp(&live_at.0) {
        std::cmp::Ordering::Less => u64::MAX,
        std::cmp::Ordering::Equal => live_at.1,
        std::cmp::Ordering::Greater => 0,
    };
    let (first, last) = match lane {
        Lane::Urgent => (run.seq_first, run.seq_last),
        Lane::Live => (run.seq_first.max(from), run.seq_last),
        Lane::Backlog => (run.seq_first, run.seq_last.min(from.checked_sub(1)?)),
    };
    (first <= last).then_some((first, last))
}
