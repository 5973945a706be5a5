//! Bytes into each parser of the shipped plugins; the first one says into which.
#![no_main]

#[path = "../../src/parsers.rs"]
#[expect(dead_code, reason = "the table is the only door to it")]
mod parsers;

/// As in the tests' own crate, of which only this is needed.
mod doors {
    pub type Door = fn(&[u8]) -> bool;
}

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let (_name, parser) = parsers::PARSERS[usize::from(*which) % parsers::PARSERS.len()];
    parser(bytes);
});
