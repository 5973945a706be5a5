//! From the bytes of a document to text, whatever the point of sale was written in.
//!
//! UTF-8 with or without a mark, UTF-16 of either order, and else a single-byte encoding: of those only ASCII matters to us,
//! so all are taken as Latin-1.

use std::borrow::Cow;

/// The text of a whole document; never fails.
///
/// ```
/// use tillwatch_sdk::parse::document_text;
///
/// assert_eq!(document_text(b"\xff\xfe<\0a\0/\0>\0"), "<a/>");
/// assert_eq!(document_text(b"<a>K\xe4se</a>"), "<a>K\u{e4}se</a>");
/// ```
pub fn document_text(bytes: &[u8]) -> Cow<'_, str> {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => eight_bit(rest),
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf_16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(utf_16(rest, u16::from_be_bytes)),
        // XML and JSON begin with an ASCII sign.
        [first, 0, ..] if *first != 0 => Cow::Owned(utf_16(bytes, u16::from_le_bytes)),
        [0, second, ..] if *second != 0 => Cow::Owned(utf_16(bytes, u16::from_be_bytes)),
        _ => eight_bit(bytes),
    }
}

fn eight_bit(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_single_bytes) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (pairs, _half) = bytes.as_chunks::<2>();
    let units = pairs.iter().copied().map(unit);
    char::decode_utf16(units)
        .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_gives_the_same_text() {
        let expected = "<a>Käse 1,99</a>";
        let utf_16 = |bytes: fn(u16) -> [u8; 2]| expected.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let latin_1: Vec<u8> = expected.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        for bytes in [
            expected.as_bytes().to_vec(),
            [&[0xef, 0xbb, 0xbf], expected.as_bytes()].concat(),
            latin_1,
            utf_16(u16::to_le_bytes),
            utf_16(u16::to_be_bytes),
            [vec![0xff, 0xfe], utf_16(u16::to_le_bytes)].concat(),
            [vec![0xfe, 0xff], utf_16(u16::to_be_bytes)].concat(),
        ] {
            assert_eq!(document_text(&bytes), expected, "{bytes:?}");
        }
        assert_eq!(document_text(b""), "");
    }
}
