//! What survives a restart, in the host's state, little-endian:
//! ```text
//! 1 byte   version, 2, or 3 while an export is there in part
//! 4        length of the JSON
//!          JSON: the last sale by lane, how far each query is read, the header of the lines
//! 4        version 3: length of the export
//!          version 3: what was read of it, see `dsfinvk`
//!          the numbers that were seen, see `seen`
//! ```
//! Version 1 was the numbers alone.

use serde::{Deserialize, Serialize};
use tillwatch_sdk::Cursor;

use crate::lanes::Lanes;
use crate::seen::Seen;

const VERSION: u8 = 2;
const VERSION_WITH_SET: u8 = 3;
/// Of the 64 KiB that the host keeps, without the lengths. An export has what the others leave.
const STATE_BYTES_MAX: usize = (64 << 10) - 64;
/// A longer header is not kept.
pub(crate) const HEADER_BYTES_MAX: usize = 4096;
/// A longer text of a cursor is not kept.
pub(crate) const CURSOR_BYTES_MAX: usize = 256;

/// All but the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) lanes: Lanes,
    /// The largest key of the query's rows.
    pub(crate) query_at: Option<At>,
    /// The largest id of Odoo's orders.
    pub(crate) odoo_at: Option<i64>,
    /// Of lines that have one.
    pub(crate) header: Option<String>,
    pub(crate) open: Option<Open>,
}

/// A cursor that can be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum At {
    Integer(#[serde(with = "halves")] i64),
    Text(String),
}

impl From<At> for Cursor {
    fn from(at: At) -> Self {
        match at {
            At::Integer(integer) => Self::Integer(integer),
            At::Text(text) => Self::Text(text),
        }
    }
}

/// The transaction whose rows may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    #[serde(with = "halves")]
    pub(crate) mark: i64,
    /// False when the transaction was counted before.
    pub(crate) is_new: bool,
}

/// Long numbers in two: in one run of digits the agent would see card numbers, and refuse to keep the state.
mod halves {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Halves(i32, u32),
        /// Before.
        Signed(i64),
        Unsigned(u64),
    }

    #[expect(clippy::cast_possible_truncation, reason = "each half is cut on purpose")]
    pub(super) fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        ((number >> 32) as i32, number.cast_unsigned() as u32).serialize(serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<i64, D::Error> {
        Ok(match Number::deserialize(deserializer)? {
            Number::Halves(high, low) => i64::from(high) << 32 | i64::from(low),
            Number::Signed(number) => number,
            Number::Unsigned(number) => number.cast_signed(),
        })
    }
}

pub(crate) fn encode(kept: &Kept, set: &[u8], seen: &Seen) -> Vec<u8> {
    let json = serde_json::to_vec(kept).unwrap_or_default();
    let seen = seen.encode();
    let most = STATE_BYTES_MAX.saturating_sub(json.len()).saturating_sub(seen.len());
    if set.is_empty() || set.len() > most {
        return [&[VERSION][..], &length(&json), &json, &seen].concat();
    }
    [&[VERSION_WITH_SET][..], &length(&json), &json, &length(set), set, &seen].concat()
}

fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(0).to_le_bytes()
}

/// What was kept; none when it is of another version or damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Kept, &[u8], Seen)> {
    let (has_set, rest) = match bytes.split_first() {
        Some((&VERSION, rest)) => (false, rest),
        Some((&VERSION_WITH_SET, rest)) => (true, rest),
        _ => return Some((Kept::default(), &[], Seen::decode(bytes)?)),
    };
    let (json, rest) = part(rest)?;
    let (set, seen) = if has_set { part(rest)? } else { (&[][..], rest) };
    Some((serde_json::from_slice(json).ok()?, set, Seen::decode(seen)?))
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
mod tests {
    use super::*;
    use crate::seen::Key;

    #[test]
    fn what_is_kept_comes_back() {
        let mut seen = Seen::default();
        let key = Key::new(20_260_302, &["9", "34"], "160");
        seen.insert(key);
        let mut kept = Kept {
            query_at: Some(At::Text("a-7".to_owned())),
            odoo_at: Some(275),
            header: Some("time;total".to_owned()),
            open: Some(Open {
                mark: key.mark(),
                is_new: true,
            }),
            ..Kept::default()
        };
        kept.lanes.sold("34", 1_772_451_000_000);
        let bytes = encode(&kept, b"", &seen);
        for set in [&b""[..], b"in part"] {
            let bytes = encode(&kept, set, &seen);
            let (again, set_again, seen_again) = decode(&bytes).unwrap();
            assert_eq!((again, set_again), (kept.clone(), set));
            assert!(seen_again.contains(key));
        }
        // The version before had the numbers alone.
        let before = seen.encode();
        let (none, _set, seen_before) = decode(&before).unwrap();
        assert_eq!(none, Kept::default());
        assert!(seen_before.contains(key));
        // Long numbers stood in one.
        let before = br#"{"query_at":{"integer":-41},"open":{"mark":18446744073709551615,"is_new":true}}"#;
        let length = u32::try_from(before.len()).unwrap().to_le_bytes();
        let before = [&[VERSION][..], &length, before].concat();
        let (kept, _set, _seen) = decode(&before).unwrap();
        assert_eq!(
            (kept.query_at, kept.open.map(|open| open.mark)),
            (Some(At::Integer(-41)), Some(-1))
        );
        assert!(decode(&[]).is_some() && decode(&[9, 9]).is_none() && decode(&bytes[..20]).is_none());
    }
}
