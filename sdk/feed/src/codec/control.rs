//! State, acknowledgement and settings to protobuf and back, checked.
//!
//! In: what either side says about itself. Out: the same. An encoder that has more to say than the limits allow says
//! less: an acknowledgement of less is always true.

use super::birth::text;
use super::error::{ACK_BIRTHS_MAX, ACK_GENERATIONS_MAX, ACK_RANGES_MAX, DecodeError};
use super::header::limit;
use crate::message::{Ack, Body, ClockReading, Config, GenerationAck, Message, State};
use crate::proto;

pub(super) fn encode_clock(clock: ClockReading) -> proto::ClockReading {
    proto::ClockReading {
        wall_ms: clock.wall_ms,
        monotonic_ms: clock.monotonic_ms,
        boot_id: clock.boot_id,
        after_ms: 0,
    }
}

/// The same in a message: from the end of its block, and without the boot id when it is the generation.
pub(super) fn encode_message_clock(message: &Message) -> Option<proto::ClockReading> {
    if message.clock == ClockReading::default() {
        return None;
    }
    let mut clock = encode_clock(message.clock);
    if clock.boot_id == message.generation {
        clock.boot_id = 0;
    }
    if let Some(end_ms) = end_of(&message.body) {
        clock.after_ms = clock.wall_ms.wrapping_sub(end_ms).cast_signed();
        clock.wall_ms = 0;
    }
    Some(clock)
}

pub(super) fn decode_message_clock(clock: Option<proto::ClockReading>, generation: u64, body: &Body) -> ClockReading {
    let Some(clock) = clock else {
        return ClockReading::default();
    };
    let after_end = || end_of(body).map_or(0, |end_ms| end_ms.wrapping_add(clock.after_ms.cast_unsigned()));
    ClockReading {
        wall_ms: if clock.wall_ms == 0 { after_end() } else { clock.wall_ms },
        monotonic_ms: clock.monotonic_ms,
        boot_id: if clock.boot_id == 0 { generation } else { clock.boot_id },
    }
}

/// The end of a block's last interval.
fn end_of(body: &Body) -> Option<u64> {
    let Body::Block(block) = body else {
        return None;
    };
    let last = block.intervals.last()?;
    Some(last.start_ms.wrapping_add(u64::from(last.length_ms)))
}

pub(super) fn decode_clock(clock: Option<proto::ClockReading>) -> ClockReading {
    clock.map_or_else(ClockReading::default, |clock| ClockReading {
        wall_ms: clock.wall_ms,
        monotonic_ms: clock.monotonic_ms,
        boot_id: clock.boot_id,
    })
}

pub(super) fn encode_state(state: &State) -> proto::State {
    proto::State {
        online: state.online,
        generation: state.generation,
        birth_number: state.birth_number,
        agent_version: state.agent_version.clone(),
        clock: Some(encode_clock(state.clock)),
        spool_records: state.spool_records,
        spool_bytes: state.spool_bytes,
        refused: state.refused,
        parked: state.parked,
        bytes_today: state.bytes_today,
        bytes_per_day: state.bytes_per_day,
        intervals: state.intervals,
    }
}

pub(super) fn decode_state(state: proto::State) -> Result<State, DecodeError> {
    Ok(State {
        online: state.online,
        generation: state.generation,
        birth_number: state.birth_number,
        agent_version: text("agent_version", state.agent_version)?,
        clock: decode_clock(state.clock),
        spool_records: state.spool_records,
        spool_bytes: state.spool_bytes,
        refused: state.refused,
        parked: state.parked,
        bytes_today: state.bytes_today,
        bytes_per_day: state.bytes_per_day,
        intervals: state.intervals,
    })
}

pub(super) fn encode_ack(ack: &Ack) -> proto::Ack {
    proto::Ack {
        archive: ack.archive.to_string(),
        start: ack.start,
        generations: ack
            .generations
            .iter()
            .take(ACK_GENERATIONS_MAX)
            .map(encode_generation)
            .collect(),
        births_wanted: ack.births_wanted.iter().take(ACK_BIRTHS_MAX).copied().collect(),
    }
}

pub(super) fn decode_ack(ack: proto::Ack) -> Result<Ack, DecodeError> {
    limit("generations", ack.generations.len(), ACK_GENERATIONS_MAX)?;
    limit("births wanted", ack.births_wanted.len(), ACK_BIRTHS_MAX)?;
    Ok(Ack {
        archive: ack.archive.parse().map_err(DecodeError::Archive)?,
        start: ack.start,
        generations: ack
            .generations
            .into_iter()
            .map(decode_generation)
            .collect::<Result<_, _>>()?,
        births_wanted: ack.births_wanted,
    })
}

pub(super) fn encode_config(config: &Config) -> proto::Config {
    proto::Config {
        spread_window_s: config.spread_window_s,
    }
}

pub(super) fn decode_config(config: &proto::Config) -> Config {
    Config {
        spread_window_s: config.spread_window_s,
    }
}

fn encode_generation(ack: &GenerationAck) -> proto::GenerationAck {
    let ranges = ack.ranges.iter().take(ACK_RANGES_MAX);
    proto::GenerationAck {
        generation: ack.generation,
        through_seq: ack.through_seq,
        ranges: ranges
            .map(|(first, last)| proto::Range {
                first: *first,
                last: *last,
            })
            .collect(),
    }
}

fn decode_generation(ack: proto::GenerationAck) -> Result<GenerationAck, DecodeError> {
    limit("ranges", ack.ranges.len(), ACK_RANGES_MAX)?;
    let mut before = ack.through_seq;
    let mut ranges = Vec::with_capacity(ack.ranges.len());
    for proto::Range { first, last } in ack.ranges {
        if first <= before || last < first {
            return Err(DecodeError::Order {
                what: "acknowledged records",
                first,
                last,
            });
        }
        before = last;
        ranges.push((first, last));
    }
    Ok(GenerationAck {
        generation: ack.generation,
        through_seq: ack.through_seq,
        ranges,
    })
}
