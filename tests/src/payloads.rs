//! The payloads of the feed as doors: what central, an archive or an agent reads of whoever may write to its broker.
//!
//! Each is one plain function. What it looks at: nothing panics, what is taken is within the limits of the format, and it
//! is the same after it was written and read again.

use std::fmt::Debug;

use tillwatch_central::decode::{Dictionaries, covers, observations};
use tillwatch_feed::codec::{
    self, ACK_GENERATIONS_MAX, DecodeError, METRICS_MAX, PAYLOAD_BYTES_MAX, ROWS_MAX, SERIES_MAX,
};
use tillwatch_feed::message::{Birth, Block, Body, Message};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::SiteId;

use crate::doors::Door;

/// All kinds of payloads by name, each with its corpus in `fuzz/corpus`.
pub const PAYLOADS: [(&str, Door); 4] = [("message", message), ("state", state), ("ack", ack), ("config", config)];

/// Names the series of the corpus' blocks.
const BIRTH: &[u8] = include_bytes!("../fuzz/corpus/message/birth.bin");

/// `birth`, `sum` and `evt`, and what central makes of them.
///
/// # Panics
/// When a bound is passed, or another message is read again than was written.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = codec::decode(bytes) else {
        return false;
    };
    assert!(message.seq_first <= message.seq_last, "{message:?}");
    let (start_ms, end_ms) = covers(&message);
    assert!(start_ms <= end_ms, "{message:?}");
    match &message.body {
        Body::Birth(birth) => learn(birth),
        Body::Block(block) => observe(&message, block),
        Body::Gap(_) | Body::Finding(_) => {}
    }
    is_written_alike(&message, codec::encode, codec::decode);
    true
}

/// The broker's retained `state`, and the last will.
///
/// # Panics
/// When another state is read again than was written.
pub fn state(bytes: &[u8]) -> bool {
    let Ok(state) = codec::decode_state(bytes) else {
        return false;
    };
    is_written_alike(&state, codec::encode_state, codec::decode_state);
    true
}

/// What an agent deletes by.
///
/// # Panics
/// When a bound is passed, or another acknowledgement is read again than was written.
pub fn ack(bytes: &[u8]) -> bool {
    let Ok(ack) = codec::decode_ack(bytes) else {
        return false;
    };
    assert!(ack.generations.len() <= ACK_GENERATIONS_MAX);
    is_written_alike(&ack, codec::encode_ack, codec::decode_ack);
    true
}

/// What a center announces.
///
/// # Panics
/// When other settings are read again than were written.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(config) = codec::decode_config(bytes) else {
        return false;
    };
    is_written_alike(&config, codec::encode_config, codec::decode_config);
    true
}

fn is_written_alike<T: PartialEq + Debug>(
    read: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let written = encode(read);
    // What a foreign writer said in fewer bytes than ours is too large for it alone.
    if written.len() <= PAYLOAD_BYTES_MAX {
        assert_eq!(decode(&written).as_ref(), Ok(read));
    }
}

fn learn(birth: &Birth) {
    assert!(birth.metrics.len() <= METRICS_MAX && birth.series.len() <= SERIES_MAX);
    // One that contradicts itself is refused.
    drop(Dictionaries::default().learn(&site(), birth));
}

fn observe(message: &Message, block: &Block) {
    assert!(block.row_count() <= ROWS_MAX, "{} rows", block.row_count());
    let of_corpus = codec::decode(BIRTH).expect("a good payload").body;
    let Body::Birth(birth) = of_corpus else {
        unreachable!("the corpus has a birth")
    };
    let dictionary = Dictionaries::default().learn(&site(), &birth).expect("a good birth");
    let seqs = (message.seq_first, message.seq_last);
    let mut all = RangeSet::new();
    all.insert(seqs.0, seqs.1);
    if let Ok(observed) = observations(&site(), &dictionary, block, seqs, &all) {
        assert_eq!(observed.len(), block.row_count());
    }
}

fn site() -> SiteId {
    "store-0412".parse().expect("a name of letters")
}
