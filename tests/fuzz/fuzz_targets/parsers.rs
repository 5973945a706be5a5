//! Bytes into one parser of the shipped plugins; `TILLWATCH_PARSER` names it.
#![no_main]

#[path = "../../src/parsers.rs"]
#[expect(dead_code, reason = "the table is the only door to it")]
mod parsers;

/// As in the tests' own crate, of which only this is needed.
mod doors {
    pub type Door = fn(&[u8]) -> bool;
}

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static PARSER: LazyLock<doors::Door> = LazyLock::new(|| {
    let wanted = std::env::var("TILLWATCH_PARSER").unwrap_or_default();
    let names = parsers::PARSERS.map(|(name, _parser)| name);
    let found = parsers::PARSERS.into_iter().find(|(name, _parser)| *name == wanted);
    found
        .unwrap_or_else(|| panic!("TILLWATCH_PARSER is {wanted:?}, and none of {}", names.join(" ")))
        .1
});

fuzz_target!(|bytes: &[u8]| {
    PARSER(bytes);
});
