//! The engine's settings and the artifact's header: what the compiler writes is what the sandbox takes.
//!
//! `agent/compiler` includes this very file, so that both sides cannot differ.
//!
//! ```text
//! offset  bytes
//!      0      8  "TILLWASM"
//!      8      4  length n of the fingerprint, little endian
//!     12      n  fingerprint, UTF-8: engine version, processor, system, settings
//!   12+n     32  SHA-256 of the code
//!   44+n         code, as wasmtime serializes it
//! ```

use sha2::{Digest, Sha256};
use wasmtime::Config;

/// The version in both lock files; a test compares.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";
/// A deeper recursion is a trap.
pub(crate) const WASM_STACK_BYTES_MAX: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"TILLWASM";
const DIGEST_BYTES: usize = 32;

/// The settings of every engine. Linear memories keep wasmtime's 4 GiB reservation with guard pages:
/// virtual memory only, and it makes bounds checks free.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES_MAX)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_component_model(true)
        .wasm_backtrace_max_frames(None);
    config
}

/// Names everything that makes compiled code unfit for another engine.
pub(crate) fn fingerprint() -> String {
    let (processor, system) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("wasmtime {WASMTIME_VERSION}; {processor}-{system}; epochs; stack {WASM_STACK_BYTES_MAX}; settings 1")
}

/// Why bytes are not an artifact of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Too short or without the magic.
    NotAnArtifact,
    /// Compiled for another engine; what for.
    Other(String),
    /// The code is not what was written.
    Damaged,
}

/// Puts the header before the code.
pub(crate) fn with_header(code: &[u8]) -> Vec<u8> {
    let fingerprint = fingerprint();
    let length = u32::try_from(fingerprint.len()).expect("a fingerprint is short");
    let mut artifact = Vec::with_capacity(code.len() + fingerprint.len() + 12 + DIGEST_BYTES);
    artifact.extend_from_slice(MAGIC);
    artifact.extend_from_slice(&length.to_le_bytes());
    artifact.extend_from_slice(fingerprint.as_bytes());
    artifact.extend_from_slice(&digest(code));
    artifact.extend_from_slice(code);
    artifact
}

/// The code behind a header that is ours.
pub(crate) fn without_header(artifact: &[u8]) -> Result<&[u8], HeaderError> {
    let (found, rest) = split(artifact).ok_or(HeaderError::NotAnArtifact)?;
    if found != fingerprint().as_bytes() {
        return Err(HeaderError::Other(String::from_utf8_lossy(found).into_owned()));
    }
    let (found, code) = rest.split_first_chunk().ok_or(HeaderError::Damaged)?;
    if *found == digest(code) {
        Ok(code)
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

/// It finds torn and exchanged bytes; who may write a whole artifact is decided by the folder's permissions.
fn digest(code: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::digest(code).into()
}
