//! The 4 bytes before each body, and compression.
//!
//! In: a protobuf body, or a payload from anybody. Out: a payload, or a body of bounded size.

use std::borrow::Cow;

use zstd::zstd_safe::get_frame_content_size;

use super::dictionary::{self, Dictionary};
use super::error::{DecodeError, PAYLOAD_BYTES_MAX};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 1;

/// Length of the header: version, flags, dictionary id (little endian).
pub const HEADER_BYTES: usize = 4;

const FLAG_ZSTD: u8 = 1;
const DICTIONARY_NONE: u16 = 0;
const ZSTD_LEVEL: i32 = 3;

/// Larger bodies have their own statistics, and a dictionary's would be in their way.
const DICTIONARY_BODY_BYTES_MAX: usize = 4 << 10;

/// Body to payload; compressed when that is smaller.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    // Compression into memory fails only for want of memory; the body as it is says the same.
    let compressed = zstd::bulk::compress(body, ZSTD_LEVEL)
        .ok()
        .filter(|compressed| compressed.len() < body.len());
    match &compressed {
        Some(compressed) => payload_of(FLAG_ZSTD, DICTIONARY_NONE, compressed),
        None => payload_of(0, DICTIONARY_NONE, body),
    }
}

/// The same with a dictionary, where that helps.
pub(super) fn seal_with(dictionary: &Dictionary, body: &[u8]) -> Vec<u8> {
    if body.len() > DICTIONARY_BODY_BYTES_MAX {
        return seal(body);
    }
    match dictionary
        .compress(body)
        .ok()
        .filter(|compressed| compressed.len() < body.len())
    {
        Some(compressed) => payload_of(FLAG_ZSTD, dictionary.id, &compressed),
        None => payload_of(0, DICTIONARY_NONE, body),
    }
}

fn payload_of(flags: u8, dictionary: u16, body: &[u8]) -> Vec<u8> {
    let [low, high] = dictionary.to_le_bytes();
    let mut payload = Vec::with_capacity(HEADER_BYTES.saturating_add(body.len()));
    payload.extend([FORMAT_VERSION, flags, low, high]);
    payload.extend_from_slice(body);
    payload
}

/// Payload to body of at most `bytes_max`.
pub(super) fn open(payload: &[u8], bytes_max: usize) -> Result<Cow<'_, [u8]>, DecodeError> {
    limit("payload bytes", payload.len(), PAYLOAD_BYTES_MAX)?;
    let Some((&[version, flags, low, high], body)) = payload.split_first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::NoHeader(payload.len()));
    };
    if version != FORMAT_VERSION {
        return Err(DecodeError::Version(version));
    }
    if flags & !FLAG_ZSTD != 0 {
        return Err(DecodeError::Flags(flags));
    }
    let dictionary = match u16::from_le_bytes([low, high]) {
        DICTIONARY_NONE => None,
        id => Some(dictionary::by_id(id).ok_or(DecodeError::Dictionary(id))?),
    };
    if flags & FLAG_ZSTD == 0 {
        limit("body bytes", body.len(), bytes_max)?;
        return Ok(Cow::Borrowed(body));
    }
    inflate(body, dictionary, bytes_max).map(Cow::Owned)
}

/// An error when `found` is more than `max`.
pub(super) fn limit(what: &'static str, found: usize, max: usize) -> Result<(), DecodeError> {
    if found > max {
        Err(DecodeError::Limit { what, found, max })
    } else {
        Ok(())
    }
}

fn inflate(body: &[u8], dictionary: Option<&'static Dictionary>, bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let size = get_frame_content_size(body).map_err(|error| DecodeError::Inflate(error.to_string()))?;
    let size = size.map_or(bytes_max, |size| usize::try_from(size).unwrap_or(usize::MAX));
    limit("body bytes", size, bytes_max)?;
    dictionary::decompress(dictionary, body, size).map_err(|error| DecodeError::Inflate(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bodies_stay_as_they_are_and_repetitive_ones_shrink() {
        assert_eq!(seal(b"ab"), [1, 0, 0, 0, b'a', b'b']);
        let long = vec![7; 5000];
        let payload = seal(&long);
        assert_eq!(payload.get(..4), Some(&[1, 1, 0, 0][..]));
        assert!(payload.len() < 50);
        assert_eq!(open(&payload, 5000).unwrap().as_ref(), long);
    }

    #[test]
    fn headers_of_other_versions_are_told_apart() {
        assert_eq!(open(&[1, 0, 0], 9), Err(DecodeError::NoHeader(3)));
        assert_eq!(open(&[2, 0, 0, 0], 9), Err(DecodeError::Version(2)));
        assert_eq!(open(&[1, 2, 0, 0], 9), Err(DecodeError::Flags(2)));
        assert_eq!(open(&[1, 0, 1, 2], 9), Err(DecodeError::Dictionary(513)));
        assert!(matches!(open(&[1, 1, 0, 0, 9, 9], 9), Err(DecodeError::Inflate(_))));
    }

    #[test]
    fn a_dictionary_goes_by_its_id_and_an_unknown_one_is_refused() {
        let body = [1, 2, 3, 4].repeat(100);
        let mut payload = seal_with(dictionary::WRITTEN, &body);
        assert_eq!(payload.get(..4), Some(&[1, 1, 1, 0][..]));
        assert_eq!(open(&payload, 400).unwrap().as_ref(), body);
        assert!(matches!(open(&payload, 399), Err(DecodeError::Limit { .. })));
        // A reader of yesterday: it has not heard of the dictionary, says so, and takes nothing of it.
        *payload.get_mut(2).unwrap() = 2;
        assert_eq!(open(&payload, 400), Err(DecodeError::Dictionary(2)));
        // A writer of yesterday knows none.
        assert_eq!(open(&seal(&body), 400).unwrap().as_ref(), body);
    }

    #[test]
    fn a_bomb_with_a_dictionary_is_refused_too() {
        let bomb = dictionary::WRITTEN.compress(&vec![0; 100_000]).unwrap();
        let payload = payload_of(FLAG_ZSTD, dictionary::WRITTEN.id, &bomb);
        assert!(payload.len() < 100, "{}", payload.len());
        assert!(matches!(open(&payload, 99_999), Err(DecodeError::Limit { .. })));
    }

    #[test]
    fn a_bomb_is_refused_before_it_grows() {
        let bomb = seal(&vec![0; 100_000]);
        let refused = Err(DecodeError::Limit {
            what: "body bytes",
            found: 100_000,
            max: 99_999,
        });
        assert_eq!(open(&bomb, 99_999), refused);
        assert!(matches!(
            open(&vec![1; PAYLOAD_BYTES_MAX + 1], 9),
            Err(DecodeError::Limit { .. })
        ));
    }

    #[test]
    fn a_frame_that_lies_about_its_size_is_refused() {
        let mut lie = seal(&vec![0; 100_000]);
        // Byte 4 of the frame is its descriptor, then comes the content size: 4 bytes for this length.
        let size = lie.get_mut(9..13).unwrap();
        assert_eq!(size, 100_000_u32.to_le_bytes());
        size.copy_from_slice(&10_u32.to_le_bytes());
        assert!(matches!(open(&lie, 1000), Err(DecodeError::Inflate(_))));
    }
}
