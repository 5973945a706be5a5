//! The names that the spool, delivery and the state machine share: records, runs of records, gaps.
//!
//! A record is one numbered unit of what a site says. Payloads are opaque here.

use tillwatch_feed::message::{GapReason, RecordId};

/// What a record says; the spool writes this beside the opaque payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A dictionary of series: blocks of its schema cannot be read without it.
    Birth,
    /// Intervals of summaries.
    Block,
    /// An anomaly of one series; complete in itself.
    Finding,
}

impl RecordKind {
    /// The kind as the spool writes it.
    pub fn to_byte(self) -> u8 {
        match self {
            RecordKind::Birth => 1,
            RecordKind::Block => 2,
            RecordKind::Finding => 3,
        }
    }

    /// The kind that `to_byte` made this of; `None` for any other byte.
    pub fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Birth),
            2 => Some(RecordKind::Block),
            3 => Some(RecordKind::Finding),
            _ => None,
        }
    }
}

/// A record that has no number yet: the spool gives it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub kind: RecordKind,
    /// Of the birth that explains it: its own for a birth, 0 for a finding.
    pub schema: u64,
    /// `tillwatch_feed::codec::encode_body`.
    pub payload: Vec<u8>,
}

/// Consecutive held records of one generation, kind and schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub generation: u64,
    pub seq_first: u64,
    /// Inclusive.
    pub seq_last: u64,
    pub kind: RecordKind,
    pub schema: u64,
}

impl Run {
    /// The newest record of the run.
    pub fn last(&self) -> RecordId {
        RecordId {
            generation: self.generation,
            seq: self.seq_last,
        }
    }
}

/// Consecutive records that are no longer held and that no archive was seen to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldGap {
    pub generation: u64,
    pub seq_first: u64,
    /// Inclusive.
    pub seq_last: u64,
    pub reason: GapReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_byte() {
        for kind in [RecordKind::Birth, RecordKind::Block, RecordKind::Finding] {
            assert_eq!(RecordKind::from_byte(kind.to_byte()), Some(kind));
        }
        assert_eq!(RecordKind::from_byte(0), None);
        assert_eq!(RecordKind::from_byte(4), None);
    }
}
