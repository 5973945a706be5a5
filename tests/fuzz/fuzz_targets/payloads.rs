//! Bytes into one kind of the feed's payloads; `TILLWATCH_PAYLOAD` names it.
#![no_main]

// The center's own file, without its archive and its servers.
extern crate self as tillwatch_central;

#[path = "../../../central/src/decode.rs"]
pub mod decode;

#[path = "../../src/payloads.rs"]
mod payloads;

/// As in the tests' own crate, of which only this is needed.
mod doors {
    pub type Door = fn(&[u8]) -> bool;
}

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static PAYLOAD: LazyLock<doors::Door> = LazyLock::new(|| {
    let wanted = std::env::var("TILLWATCH_PAYLOAD").unwrap_or_default();
    let names = payloads::PAYLOADS.map(|(name, _payload)| name);
    let found = payloads::PAYLOADS.into_iter().find(|(name, _payload)| *name == wanted);
    found
        .unwrap_or_else(|| panic!("TILLWATCH_PAYLOAD is {wanted:?}, and none of {}", names.join(" ")))
        .1
});

fuzz_target!(|bytes: &[u8]| {
    PAYLOAD(bytes);
});
