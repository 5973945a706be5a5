//! Payloads: 4 bytes of header, then protobuf, compressed when that is smaller.
//!
//! In: messages, and bytes from anybody. Out: bytes, and checked messages.
//! Foreign bytes cost an error and a bounded amount of memory, never more.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod error;
mod dictionary;
mod header;
mod scan;
mod predict;
mod block_encode;
mod block_decode;
mod birth;
mod control;

pub use error::*;
pub use header::{FORMAT_VERSION, HEADER_BYTES};

use prost::Message as _;

use crate::message::{Ack, Birth, Block, Body, Config, GapReason, Message, State};
use crate::proto;
use crate::proto::message::Body as ProtoBody;

/// The content of a record as the spool keeps it: protobuf without header, uncompressed.
pub fn encode_body(body: &Body) -> Vec<u8> {
    proto::Message {
        body: Some(to_proto(body)),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Reads what [`encode_body`] wrote.
///
/// # Errors
/// When the bytes are damaged or break a limit.
pub fn decode_body(bytes: &[u8]) -> Result<Body, DecodeError> {
    header::limit("body bytes", bytes.len(), INFLATED_BYTES_MAX)?;
    from_proto(read_message(bytes)?.body)
}

/// The payload of `birth`, `sum` and `evt`. Compare its length with [`PAYLOAD_BYTES_MAX`] before sending.
pub fn encode(message: &Message) -> Vec<u8> {
    // What is as most often is left out.
    let unless_first = |seq: u64| if seq == message.seq_first { 0 } else { seq };
    let body = proto::Message {
        body: Some(to_proto(&message.body)),
        generation: message.generation,
        seq_first: message.seq_first,
        seq_last: unless_first(message.seq_last),
        oldest_seq_held: unless_first(message.oldest_seq_held),
        clock: control::encode_message_clock(message),
    }
    .encode_to_vec();
    match message.body {
        Body::Block(_) => header::seal_with(dictionary::WRITTEN, &body),
        _ => header::seal(&body),
    }
}

/// Reads the payload of `birth`, `sum` and `evt`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode(payload: &[u8]) -> Result<Message, DecodeError> {
    let message = read_message(&header::open(payload, INFLATED_BYTES_MAX)?)?;
    let or_first = |seq: u64| if seq == 0 { message.seq_first } else { seq };
    let body = from_proto(message.body)?;
    let message = Message {
        generation: message.generation,
        seq_first: message.seq_first,
        seq_last: or_first(message.seq_last),
        oldest_seq_held: or_first(message.oldest_seq_held),
        clock: control::decode_message_clock(message.clock, message.generation, &body),
        body,
    };
    check_seqs(&message)?;
    Ok(message)
}

/// The protobuf in a payload of any topic, inflated; for tools that show or convert it with feed.proto.
///
/// # Errors
/// When the payload is of another version, damaged, or too large.
pub fn protobuf(payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
    header::open(payload, INFLATED_BYTES_MAX).map(std::borrow::Cow::into_owned)
}

/// The payload of `state`.
pub fn encode_state(state: &State) -> Vec<u8> {
    header::seal(&control::encode_state(state).encode_to_vec())
}

/// Reads the payload of `state`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode_state(payload: &[u8]) -> Result<State, DecodeError> {
    control::decode_state(read_control(payload)?)
}

/// The payload of `ack/<archive>`. What goes beyond the limits for acknowledgements is left out.
pub fn encode_ack(ack: &Ack) -> Vec<u8> {
    header::seal(&control::encode_ack(ack).encode_to_vec())
}

/// Reads the payload of `ack/<archive>`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode_ack(payload: &[u8]) -> Result<Ack, DecodeError> {
    control::decode_ack(read_control(payload)?)
}

/// The payload of `cfg`.
pub fn encode_config(config: &Config) -> Vec<u8> {
    header::seal(&control::encode_config(config).encode_to_vec())
}

/// Reads the payload of `cfg`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode_config(payload: &[u8]) -> Result<Config, DecodeError> {
    Ok(control::decode_config(&read_control(payload)?))
}

fn read_message(body: &[u8]) -> Result<proto::Message, DecodeError> {
    scan::message(body)?;
    proto::Message::decode(body).map_err(DecodeError::Protobuf)
}

fn read_control<M: prost::Message + Default>(payload: &[u8]) -> Result<M, DecodeError> {
    let body = header::open(payload, CONTROL_BYTES_MAX)?;
    M::decode(body.as_ref()).map_err(DecodeError::Protobuf)
}

fn to_proto(body: &Body) -> ProtoBody {
    match body {
        Body::Birth(birth) => ProtoBody::Birth(birth::encode_birth(birth)),
        Body::Block(block) => ProtoBody::Block(block_encode::encode(block)),
        Body::Gap(reason) => ProtoBody::Gap(proto::Gap {
            reason: i32::from(gap_to_proto(*reason)),
        }),
        Body::Finding(finding) => ProtoBody::Finding(birth::encode_finding(finding)),
    }
}

fn from_proto(body: Option<ProtoBody>) -> Result<Body, DecodeError> {
    Ok(match body.ok_or(DecodeError::Missing("body"))? {
        ProtoBody::Birth(birth) => Body::Birth(birth::decode_birth(birth)?),
        ProtoBody::Block(block) => Body::Block(block_decode::decode(block)?),
        ProtoBody::Gap(gap) => Body::Gap(gap_from_proto(gap.reason)),
        ProtoBody::Finding(finding) => Body::Finding(birth::decode_finding(finding)?),
    })
}

fn gap_to_proto(reason: GapReason) -> proto::GapReason {
    match reason {
        GapReason::QuotaBytes => proto::GapReason::QuotaBytes,
        GapReason::QuotaAge => proto::GapReason::QuotaAge,
        GapReason::Corrupt => proto::GapReason::Corrupt,
        GapReason::Refused => proto::GapReason::Refused,
        GapReason::Unknown => proto::GapReason::Unspecified,
    }
}

fn gap_from_proto(reason: i32) -> GapReason {
    match proto::GapReason::try_from(reason) {
        Ok(proto::GapReason::QuotaBytes) => GapReason::QuotaBytes,
        Ok(proto::GapReason::QuotaAge) => GapReason::QuotaAge,
        Ok(proto::GapReason::Corrupt) => GapReason::Corrupt,
        Ok(proto::GapReason::Refused) => GapReason::Refused,
        Ok(proto::GapReason::Unspecified) | Err(_) => GapReason::Unknown,
    }
}

/// Do the numbers of the records fit what is in the message?
fn check_seqs(message: &Message) -> Result<(), DecodeError> {
    let Message {
        seq_first, seq_last, ..
    } = *message;
    let wrong = DecodeError::Order {
        what: "records",
        first: seq_first,
        last: seq_last,
    };
    if seq_first == 0 || seq_last < seq_first {
        return Err(wrong);
    }
    let records = seq_last.wrapping_sub(seq_first).saturating_add(1);
    let expected = match &message.body {
        Body::Birth(Birth { .. }) | Body::Finding(_) => 1,
        Body::Block(Block { records, .. }) => u64::try_from(records.len()).unwrap_or(u64::MAX),
        Body::Gap(_) => records,
    };
    if records == expected { Ok(()) } else { Err(wrong) }
}
