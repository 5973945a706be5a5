//! Which record goes over the wire next, and which may be forgotten: a pure machine, told the time.

use tillwatch_feed::message::{Ack, GapReason, RecordId};
use tillwatch_feed::topic::ArchiveId;

use crate::record::{HeldGap, RecordKind, Run};

/// What the operator decides of delivery.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// Whose acknowledgement is required before a record is deleted. Empty: nothing is ever deleted.
    pub archives: Vec<ArchiveId>,
    /// Records sent beyond the acknowledgement.
    pub in_flight_max: u64,
    /// Not acknowledged for so long: sent again. Doubled up to 16 times of it while no acknowledgement comes.
    pub ack_timeout_ms: u64,
    /// Consecutive records of one schema in one message.
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
            in_flight_max: 50,
            ack_timeout_ms: 60_000,
            join_max: 60,
            rewind_jitter_ms: 60_000,
            seed,
        }
    }
}

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Findings.
    Urgent,
    /// What came up since the connection stands.
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

/// Why the broker did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Larger than the broker takes.
    TooLarge,
    /// Not authorized, over quota, or another reason of the broker's.
    Denied,
}

/// What an acknowledgement brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Everything up to and including this record, in the order of the spool, may be deleted.
    pub release: Option<RecordId>,
    /// Births that the archive asked for and that `poll` will give.
    pub resend_births: Vec<u64>,
    pub problems: Vec<AckProblem>,
}

/// What is wrong with an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckProblem {
    /// None of the required archives: ignored.
    UnknownArchive { archive: ArchiveId },
    /// It acknowledges records that were never written here: the spool is older than what was sent. Not obeyed.
    SpoolRewound {
        archive: ArchiveId,
        generation: u64,
        acknowledged: u64,
        last: u64,
    },
    /// The archive was restored; what it lost and is still held is sent again.
    Restarted { archive: ArchiveId },
}

/// The rules of delivery for one site.
#[derive(Debug)]
pub struct Delivery {
    settings: DeliverySettings,
}

impl Delivery {
    /// Nothing held yet.
    pub fn new(settings: DeliverySettings) -> Delivery {
        Delivery { settings }
    }

    /// Records are durable in the spool. Runs come in the order of the spool.
    pub fn on_held(&mut self, _run: Run) {}

    /// The spool dropped records.
    pub fn on_gap(&mut self, _gap: HeldGap) {}

    /// The connection stands and the acknowledgements are subscribed.
    pub fn on_connected(&mut self, _now_ms: u64) {}

    /// What was in flight may be lost.
    pub fn on_disconnected(&mut self) {}

    /// An archive says what it has.
    pub fn on_ack(&mut self, _now_ms: u64, _ack: &Ack) -> AckOutcome {
        AckOutcome::default()
    }

    /// The broker, or the codec, did not take what `poll` gave.
    pub fn on_refused(&mut self, _now_ms: u64, _send: &Send, _refusal: Refusal) {}

    /// What to send now; call until `None`.
    pub fn poll(&mut self, _now_ms: u64) -> Option<Send> {
        None
    }

    /// When `poll` may have something new without another event; `u64::MAX` for never.
    pub fn next_wake(&self, _now_ms: u64) -> u64 {
        u64::MAX
    }

    /// Smallest seq of this generation that is held or accounted for by a gap, for the message.
    pub fn oldest_held(&self, _generation: u64) -> Option<u64> {
        None
    }

    /// Records beyond the acknowledgement on the wire now.
    pub fn in_flight(&self) -> u64 {
        0
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &DeliverySettings {
        &self.settings
    }
}
