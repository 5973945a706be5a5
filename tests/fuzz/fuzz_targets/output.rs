//! Bytes through the door `output`.
#![no_main]

#[path = "../../src/doors.rs"]
#[expect(dead_code, reason = "each target is one door")]
mod doors;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    doors::output(bytes);
});
