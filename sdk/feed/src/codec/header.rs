//! The 4 bytes before each body, and compression.
//!
//! In: a protobuf body, or a payload from anybody. Out: a payload, or a body of bounded size.

use std::borrow::Cow;
use std::cell::RefCell;

use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

use super::error::{DecodeError, PAYLOAD_BYTES_MAX};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 1;

/// Length of the header: version, flags, dictionary id (little endian).
pub const HEADER_BYTES: usize = 4;

const FLAG_ZSTD: u8 = 1;
const DICTIONARY_NONE: u16 = 0;
const ZSTD_LEVEL: i32 = 3;

/// Body to payload; compressed when that is smaller.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    // Compression into memory fails only for want of memory; the body as it is says the same.
    let compressed = zstd::bulk::compress(body, ZSTD_LEVEL)
        .ok()
        .filter(|compressed| compressed.len() < body.len());
    let (flags, body) = match &compressed {
        Some(compressed) => (FLAG_ZSTD, compressed.as_slice()),
        None => (0, body),
    };
    let [low, high] = DICTIONARY_NONE.to_le_bytes();
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
    let dictionary = u16::from_le_bytes([low, high]);
    if dictionary != DICTIONARY_NONE {
        return Err(DecodeError::Dictionary(dictionary));
    }
    if flags & FLAG_ZSTD == 0 {
        limit("body bytes", body.len(), bytes_max)?;
        return Ok(Cow::Borrowed(body));
    }
    inflate(body, bytes_max).map(Cow::Owned)
}

/// An error when `found` is more than `max`.
pub(super) fn limit(what: &'static str, found: usize, max: usize) -> Result<(), DecodeError> {
    if found > max {
        Err(DecodeError::Limit { what, found, max })
    } else {
        Ok(())
    }
}

fn inflate(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let size = get_frame_content_size(body).map_err(|error| DecodeError::Inflate(error.to_string()))?;
    let size = size.map_or(bytes_max, |size| usize::try_from(size).unwrap_or(usize::MAX));
    limit("body bytes", size, bytes_max)?;
    let failed = |error: std::io::Error| DecodeError::Inflate(error.to_string());
    DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(Decompressor::new().map_err(failed)?);
        }
        let decompressor = kept
            .as_mut()
            .ok_or_else(|| DecodeError::Inflate("no memory".to_owned()))?;
        decompressor.decompress(body, size).map_err(failed)
    })
}

thread_local! {
    /// Kept, since to make one takes three times as long as to inflate a payload.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
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
