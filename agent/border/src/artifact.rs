//! The artifact's header: what the compiler writes before the code is what the agent looks for.
//!
//! `agent/compiler` includes this very file, so that both sides cannot differ.
//!
//! ```text
//! offset  bytes
//!      0      8  "TILLWASM"
//!      8      4  length n of the fingerprint, little endian
//!     12      n  fingerprint, UTF-8: engine version, processor, system, settings, whether it is metered
//!   12+n     32  SHA-256 of the code
//!   44+n         code, as wasmtime serializes it
//! ```

use sha2::{Digest, Sha256};

/// The version in both lock files; a test compares.
pub const WASMTIME_VERSION: &str = "48.0.8";
/// Of a component, packed or not; one of a language with its own runtime has about 20 MB. A larger one is refused unread.
pub const WASM_BYTES_MAX: u64 = 32 << 20;
/// A deeper recursion is a trap.
pub const WASM_STACK_BYTES_MAX: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"TILLWASM";
const DIGEST_BYTES: usize = 32;

/// Names everything that makes compiled code unfit for another engine.
#[must_use]
pub fn fingerprint(is_metered: bool) -> String {
    let (processor, system) = (std::env::consts::ARCH, std::env::consts::OS);
    let metered = if is_metered { "; metered" } else { "" };
    format!("wasmtime {WASMTIME_VERSION}; {processor}-{system}; stack {WASM_STACK_BYTES_MAX}; settings 2{metered}")
}

/// Why bytes are not an artifact of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Too short or without the magic.
    NotAnArtifact,
    /// Compiled for another engine; what for.
    Other(String),
    /// The code is not what was written.
    Damaged,
}

/// Puts the header before the code.
#[must_use]
pub fn with_header(code: &[u8], is_metered: bool) -> Vec<u8> {
    let fingerprint = fingerprint(is_metered);
    let length = u32::try_from(fingerprint.len()).expect("a fingerprint is short");
    let mut artifact = Vec::with_capacity(code.len() + fingerprint.len() + 12 + DIGEST_BYTES);
    artifact.extend_from_slice(MAGIC);
    artifact.extend_from_slice(&length.to_le_bytes());
    artifact.extend_from_slice(fingerprint.as_bytes());
    artifact.extend_from_slice(&digest(code));
    artifact.extend_from_slice(code);
    artifact
}

/// The code behind a header that is ours, and whether it is metered.
///
/// # Errors
/// When the header is not ours, or the code not what was written.
pub fn without_header(artifact: &[u8]) -> Result<(&[u8], bool), HeaderError> {
    let (found, rest) = split(artifact).ok_or(HeaderError::NotAnArtifact)?;
    let is_one = |is_metered: &bool| found == fingerprint(*is_metered).as_bytes();
    let Some(is_metered) = [false, true].into_iter().find(is_one) else {
        return Err(HeaderError::Other(String::from_utf8_lossy(found).into_owned()));
    };
    let (found, code) = rest.split_first_chunk().ok_or(HeaderError::Damaged)?;
    if *found == digest(code) {
        Ok((code, is_metered))
    } else {
        Err(HeaderError::Damaged)
    }
}

/// The fingerprint and what follows it.
fn split(artifact: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = artifact.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// In lower-case hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// It finds torn and exchanged bytes; who may write a whole artifact is decided by the folder's permissions.
fn digest(code: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::digest(code).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_as_everybody_writes_it() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
