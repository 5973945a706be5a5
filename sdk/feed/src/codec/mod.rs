//! Payloads: 4 bytes of header, then protobuf, compressed when that is smaller.
//!
//! In: messages, and bytes from anybody. Out: bytes, and checked messages.
//! Foreign bytes cost an error and a bounded amount of memory, never more.

mod error;

pub use error::*;

use crate::message::{Ack, Body, Config, Message, State};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 1;

/// The content of a record as the spool keeps it: protobuf without header, uncompressed.
pub fn encode_body(_body: &Body) -> Vec<u8> {
    Vec::new()
}

/// Reads what [`encode_body`] wrote.
///
/// # Errors
/// When the bytes are damaged or break a limit.
pub fn decode_body(_bytes: &[u8]) -> Result<Body, DecodeError> {
    Err(DecodeError::Missing("body"))
}

/// The payload of `birth`, `sum` and `evt`. Compare its length with [`PAYLOAD_BYTES_MAX`] before sending.
pub fn encode(_message: &Message) -> Vec<u8> {
    Vec::new()
}

/// Reads the payload of `birth`, `sum` and `evt`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode(_payload: &[u8]) -> Result<Message, DecodeError> {
    Err(DecodeError::Missing("body"))
}

/// The payload of `state`.
pub fn encode_state(_state: &State) -> Vec<u8> {
    Vec::new()
}

/// Reads the payload of `state`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode_state(_payload: &[u8]) -> Result<State, DecodeError> {
    Err(DecodeError::Missing("state"))
}

/// The payload of `ack/<archive>`.
pub fn encode_ack(_ack: &Ack) -> Vec<u8> {
    Vec::new()
}

/// Reads the payload of `ack/<archive>`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode_ack(_payload: &[u8]) -> Result<Ack, DecodeError> {
    Err(DecodeError::Missing("ack"))
}

/// The payload of `cfg`.
pub fn encode_config(_config: &Config) -> Vec<u8> {
    Vec::new()
}

/// Reads the payload of `cfg`.
///
/// # Errors
/// When the bytes are of another version, damaged, or break a limit.
pub fn decode_config(_payload: &[u8]) -> Result<Config, DecodeError> {
    Err(DecodeError::Missing("config"))
}
