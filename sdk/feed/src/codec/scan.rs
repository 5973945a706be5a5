//! Counts what a protobuf body would make a decoder allocate, before it does.
//!
//! In: bytes from anybody. Out: an error when there is more of something than its limit. Two bytes of protobuf can
//! become a string or message of dozens in memory; this keeps a small payload from costing much memory.

use super::error::{
    BLOCK_BUCKETS_MAX, DecodeError, INTERVALS_MAX, LABELS_MAX, METRICS_MAX, PLUGINS_MAX, RECORDS_MAX, ROWS_MAX,
    SERIES_MAX,
};

/// How often a field of a message may occur, or how many values it may have when it is packed, and what is in it.
struct Rule {
    field: u32,
    what: &'static str,
    max: usize,
    inner: Inner,
}

enum Inner {
    Nothing,
    Numbers,
    Message(&'static [Rule]),
}

const fn numbers(field: u32, what: &'static str, max: usize) -> Rule {
    Rule {
        field,
        what,
        max,
        inner: Inner::Numbers,
    }
}

const fn messages(field: u32, what: &'static str, max: usize, rules: &'static [Rule]) -> Rule {
    Rule {
        field,
        what,
        max,
        inner: Inner::Message(rules),
    }
}

const fn texts(field: u32, what: &'static str, max: usize) -> Rule {
    Rule {
        field,
        what,
        max,
        inner: Inner::Nothing,
    }
}

/// The rules of `Message` in feed.proto.
const MESSAGE: &[Rule] = &[
    messages(1, "births", 1, BIRTH),
    messages(2, "blocks", 1, BLOCK),
    messages(3, "gaps", 1, &[]),
    messages(4, "findings", 1, FINDING),
];

const BIRTH: &[Rule] = &[
    messages(5, "metrics", METRICS_MAX, &[texts(8, "label keys", LABELS_MAX)]),
    messages(6, "series", SERIES_MAX, &[texts(3, "label values", LABELS_MAX)]),
    messages(7, "plugins", PLUGINS_MAX, &[]),
];

const FINDING: &[Rule] = &[messages(8, "labels", LABELS_MAX, &[])];

const BLOCK: &[Rule] = &[
    numbers(2, "records", RECORDS_MAX),
    numbers(3, "intervals", INTERVALS_MAX),
    numbers(4, "interval lengths", INTERVALS_MAX),
    numbers(5, "row counts", INTERVALS_MAX),
    numbers(6, "rows", ROWS_MAX),
    numbers(7, "histogram flags", ROWS_MAX),
    numbers(8, "counts", ROWS_MAX),
    numbers(9, "zero counts", ROWS_MAX),
    numbers(10, "scales", ROWS_MAX),
    numbers(11, "positive offsets", ROWS_MAX),
    numbers(12, "positive lengths", ROWS_MAX),
    numbers(13, "positive bucket codes", BLOCK_BUCKETS_MAX),
    numbers(14, "negative offsets", ROWS_MAX),
    numbers(15, "negative lengths", ROWS_MAX),
    numbers(16, "negative bucket codes", BLOCK_BUCKETS_MAX),
    numbers(17, "exponents", ROWS_MAX),
    numbers(18, "minima", ROWS_MAX),
    numbers(19, "maxima", ROWS_MAX),
    numbers(20, "sums", ROWS_MAX),
    numbers(21, "score flags", ROWS_MAX),
    numbers(22, "score p-values", ROWS_MAX),
    numbers(23, "score effects", ROWS_MAX),
    numbers(24, "score differences", ROWS_MAX),
    numbers(25, "zeros", ROWS_MAX),
];

/// Checks a body of `Message`.
pub(super) fn message(body: &[u8]) -> Result<(), DecodeError> {
    check(body, MESSAGE)
}

/// Of one message: none has more fields that are counted than a block.
const RULES_MAX: usize = BLOCK.len();

fn check(body: &[u8], rules: &'static [Rule]) -> Result<(), DecodeError> {
    let mut counts = [0_usize; RULES_MAX];
    let mut rest = body;
    while !rest.is_empty() {
        let field = next_field(&mut rest).ok_or(DecodeError::Truncated)?;
        let Some((rule, count)) = rules
            .iter()
            .zip(&mut counts)
            .find(|(rule, _)| rule.field == field.number)
        else {
            continue;
        };
        let values = match (&rule.inner, field.bytes) {
            (Inner::Numbers, Some(packed)) => count_varints(packed),
            (Inner::Message(rules), Some(message)) => {
                check(message, rules)?;
                1
            }
            _ => 1,
        };
        *count = count.saturating_add(values);
        super::header::limit(rule.what, *count, rule.max)?;
    }
    Ok(())
}

struct Field<'a> {
    number: u32,
    /// The content, when the field has a length.
    bytes: Option<&'a [u8]>,
}

/// Takes one field off; `None` when it is cut short or of a kind that this format does not use.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let key = next_varint(rest)?;
    let number = u32::try_from(key >> 3).ok()?;
    let bytes = match key & 7 {
        0 => next_varint(rest).map(|_| None)?,
        1 => take(rest, 8).map(|_| None)?,
        2 => {
            let length = usize::try_from(next_varint(rest)?).ok()?;
            Some(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| None)?,
        _ => return None,
    };
    Some(Field { number, bytes })
}

fn next_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn count_varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_of_anything_is_refused_by_name() {
        // A block (field 2) whose field 3 holds one packed number too many.
        let mut block = vec![0x1a];
        let values = INTERVALS_MAX + 1;
        block.extend([
            u8::try_from(values & 0x7f).unwrap() | 0x80,
            u8::try_from(values >> 7).unwrap(),
        ]);
        block.extend(vec![0; values]);
        let length = block.len();
        let mut body = vec![
            0x12,
            u8::try_from(length & 0x7f).unwrap() | 0x80,
            u8::try_from(length >> 7).unwrap(),
        ];
        body.extend(block);
        let limit = DecodeError::Limit {
            what: "intervals",
            found: values,
            max: INTERVALS_MAX,
        };
        assert_eq!(message(&body), Err(limit));
    }

    #[test]
    fn a_message_has_one_body_of_a_kind() {
        let twice = [0x1a, 0, 0x1a, 0];
        assert_eq!(
            message(&twice),
            Err(DecodeError::Limit {
                what: "gaps",
                found: 2,
                max: 1
            })
        );
    }

    #[test]
    fn unknown_fields_are_passed_over_and_cut_ones_refused() {
        assert_eq!(message(&[0xf8, 0x3f, 1, 0xfa, 0x3f, 2, 9, 9]), Ok(()));
        for cut in [
            &[0x12_u8][..],
            &[0x12, 5, 0],
            &[0x80],
            &[0x29, 1, 2],
            &[0x0b],
            &[0xff; 12],
        ] {
            assert_eq!(message(cut), Err(DecodeError::Truncated), "{cut:?}");
        }
    }
}
