//! From records in the spool to a payload: read, join, say when and what else is held.
//!
//! In: what delivery wants to send. Out: a payload with its topic's leaf, or why there is none.
//! It changes nothing but the spool's own notes of damage.

use tokio::time::Instant;

use tillwatch_core::delivery::Send as ToSend;
use tillwatch_core::{HeldGap, RecordKind};
use tillwatch_feed::codec::{DecodeError, PAYLOAD_BYTES_MAX, decode_body, encode};
use tillwatch_feed::message::{Block, Body, ClockReading, GapReason, JoinError, Message, RecordId};
use tillwatch_feed::topic::Leaf;

use super::Keeper;
use crate::spool::{Record, SpoolError};

/// A payload that is ready to go.
pub(super) struct Payload {
    pub(super) leaf: Leaf,
    pub(super) bytes: Vec<u8>,
}

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The records are lost; the gap says which.
    #[error("records cannot be read back")]
    Lost { gap: HeldGap },
    /// They may be read later.
    #[error("records cannot be read now")]
    NotRead(#[source] std::io::Error),
    #[error("no dictionary of schema {schema:016x}")]
    NoBirth { schema: u64 },
    #[error("records were not written by this version")]
    Undecodable(#[from] DecodeError),
    #[error("records do not join")]
    NotJoined(#[from] JoinError),
    /// One message per finding and birth; more than one block only.
    #[error("{count} records that do not join")]
    NotBlocks { count: usize },
    #[error("a payload of {bytes} bytes is too large")]
    TooLarge { bytes: usize },
}

impl Keeper {
    pub(super) fn payload(&mut self, what: &ToSend) -> Result<Payload, WireError> {
        let message = match *what {
            ToSend::Births { schema } => self.birth(schema)?,
            ToSend::Records {
                generation,
                seq_first,
                seq_last,
                ..
            } => self.records(generation, seq_first, seq_last)?,
            ToSend::Gap {
                generation,
                seq_first,
                seq_last,
                reason,
            } => self.message(generation, seq_first, seq_last, Body::Gap(reason)),
        };
        let (leaf, bytes) = (message.body.leaf(), encode(&message));
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(WireError::TooLarge { bytes: bytes.len() });
        }
        Ok(Payload { leaf, bytes })
    }

    fn birth(&self, schema: u64) -> Result<Message, WireError> {
        let found = self.spool.birth(schema).map_err(WireError::NotRead)?;
        let Record { id, payload, .. } = found.ok_or(WireError::NoBirth { schema })?;
        Ok(self.message(id.generation, id.seq, id.seq, decode_body(&payload)?))
    }

    fn records(&mut self, generation: u64, seq_first: u64, seq_last: u64) -> Result<Message, WireError> {
        let count = u32::try_from(seq_last - seq_first + 1).unwrap_or(u32::MAX);
        let records = self
            .spool
            .read(
                RecordId {
                    generation,
                    seq: seq_first,
                },
                count,
            )
            .map_err(|error| match error {
                SpoolError::Corrupt { gap } => WireError::Lost { gap },
                SpoolError::NotRead(error) => WireError::NotRead(error),
                _ => WireError::Lost {
                    gap: HeldGap {
                        generation,
                        seq_first,
                        seq_last,
                        reason: GapReason::Corrupt,
                    },
                },
            })?;
        // Fewer than asked when damage follows: the rest is asked for again.
        let seq_last = seq_first + records.len() as u64 - 1;
        Ok(self.message(generation, seq_first, seq_last, join(&records)?))
    }

    fn message(&self, generation: u64, seq_first: u64, seq_last: u64, body: Body) -> Message {
        let oldest_seq_held = self.delivery.oldest_held(generation).unwrap_or(seq_first);
        Message {
            generation,
            seq_first,
            seq_last,
            oldest_seq_held,
            clock: self.clock_reading(),
            body,
        }
    }

    pub(super) fn clock_reading(&self) -> ClockReading {
        ClockReading {
            wall_ms: self.clock.now_ms(),
            monotonic_ms: monotonic_ms(self.started),
            boot_id: self.boot_id,
        }
    }
}

fn join(records: &[Record]) -> Result<Body, WireError> {
    if let [record] = records {
        return Ok(decode_body(&record.payload)?);
    }
    let mut blocks: Vec<Block> = Vec::with_capacity(records.len());
    for record in records.iter().filter(|record| record.kind == RecordKind::Block) {
        if let Body::Block(block) = decode_body(&record.payload)? {
            blocks.push(block);
        }
    }
    if blocks.len() == records.len() {
        Ok(Body::Block(Block::join(blocks)?))
    } else {
        Err(WireError::NotBlocks { count: records.len() })
    }
}

/// Real milliseconds since the start.
pub(super) fn monotonic_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
