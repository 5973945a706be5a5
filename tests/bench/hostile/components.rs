//! What a `.wasm` may be that is no good plugin: made here, so that the repository holds none.

use std::fmt::Write as _;

use anyhow::{Context, Result};

/// One bad component with the words of its refusal.
pub(super) struct Component {
    pub(super) name: &'static str,
    /// From the component of the hostile plugin.
    pub(super) bytes: fn(&[u8]) -> Result<Vec<u8>>,
    becomes: &'static [&'static str],
}

impl Component {
    /// By one of the words.
    pub(super) fn is_contained(&self, became: &str) -> bool {
        self.becomes.iter().any(|words| became.contains(words))
    }
}

const LIMITS: &str = "the compiler was stopped by its limits of time and memory";
const CONTRACT: &str = "does not fit the contract";
/// A bomb may burn out within the limits.
const BURNT: &[&str] = &[LIMITS, CONTRACT];

pub(super) fn components() -> Vec<Component> {
    let component = |name, becomes, bytes| Component { name, bytes, becomes };
    vec![
        component("an empty file", &["it is not WebAssembly"], |_good| Ok(Vec::new())),
        component("a text", &["it is not WebAssembly"], |_good| {
            Ok(b"#!/bin/sh\nreboot\n".to_vec())
        }),
        component("a program", &["it is not WebAssembly"], |_good| {
            Ok(std::fs::read("/proc/self/exe")?[..4096].to_vec())
        }),
        component(
            "a file that is too large",
            &["it is larger than 33554432 bytes"],
            |_good| Ok(vec![0; (32 << 20) + 1]),
        ),
        component("a core module", &["it is a core module"], |_good| text("(module)")),
        component("half a component", &["it is not a valid component"], |good| {
            Ok(good[..good.len() / 2].to_vec())
        }),
        component(
            "a component without its last byte",
            &["it is not a valid component"],
            |good| Ok(good[..good.len() - 1].to_vec()),
        ),
        component("a length that lies", &["it is not a valid component"], |good| {
            Ok([&good[..8], &[1, 0xff, 0xff, 0xff, 0x7f], &good[8..]].concat())
        }),
        component("a length without an end", &["it is not a valid component"], |good| {
            Ok([&good[..8], &[0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]].concat())
        }),
        component("a section that nobody knows", &["malformed section id"], |good| {
            Ok([good, &[0x7e, 1, 0]].concat())
        }),
        component(
            "another component within",
            &["it contains another component with code"],
            |_good| text("(component (component (core module)))"),
        ),
        component("65 core modules", &["it has 65 core modules, at most 64"], |_good| {
            text(&format!("(component {})", "(core module)".repeat(65)))
        }),
        component(
            "a hundred thousand core modules",
            &["core modules, at most 64"],
            |_good| text(&format!("(component {})", "(core module)".repeat(100_000))),
        ),
        component(
            "the file system",
            &["it wants wasi:filesystem/types@0.2.0, but"],
            |_good| import("wasi:filesystem/types@0.2.0"),
        ),
        component("the network", &["it wants wasi:sockets/tcp@0.2.0, but"], |_good| {
            import("wasi:sockets/tcp@0.2.0")
        }),
        component(
            "the environment",
            &["it wants wasi:cli/environment@0.2.0, but"],
            |_good| import("wasi:cli/environment@0.2.0"),
        ),
        component("a contract to come", &["plugin wants 9.0.0"], |_good| {
            import("tillwatch:collector/log@9.0.0")
        }),
        component(
            "an interface that nobody has",
            &["it wants tillwatch:collector/exec@0.1.0, but"],
            |_good| import("tillwatch:collector/exec@0.1.0"),
        ),
        component("a name of a terminal's commands", &["it wants "], |_good| {
            import(&format!("tillwatch:{}/x@0.1.0", "a".repeat(90_000)))
        }),
        component("nothing that is exported", &[CONTRACT], |_good| text("(component)")),
        component("an export of another type", &[CONTRACT], |_good| {
            text(
                "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
                 (func $f (canon lift (core func $i \"f\")))
                 (export \"collect\" (func $f)) (export \"configure\" (func $f)) (export \"describe\" (func $f)))",
            )
        }),
        component("64-bit memory", &["memory64 must be enabled"], |_good| {
            module("(memory i64 1)")
        }),
        component("shared memory", &["threads must be enabled"], |_good| {
            module("(memory 1 1 shared)")
        }),
        component(
            "code of a later WebAssembly",
            &["tail calls support is not enabled"],
            |_good| module("(func $f return_call $f drop)"),
        ),
        component("bytes changed at random", &[""], |good| Ok(mutated(good))),
        component("bomb: one function of a million instructions", BURNT, |_good| {
            function("i32", &"local.get 0 i32.const 3 i32.mul local.set 0 ".repeat(250_000))
        }),
        component("bomb: a function of a hundred thousand branches", BURNT, |_good| {
            function("i32", &"local.get 0 if call $f end ".repeat(100_000))
        }),
        component("bomb: blocks in blocks", BURNT, |_good| {
            function(
                "i32",
                &format!(
                    "{}{}",
                    "block local.get 0 br_if 0 ".repeat(60_000),
                    "end ".repeat(60_000)
                ),
            )
        }),
        component("bomb: a table of branches", BURNT, |_good| {
            let body = format!("block local.get 0 br_table {} end ", "0 ".repeat(5_000));
            function("i32", &body.repeat(100))
        }),
        component("bomb: more locals than may be", &["too many locals"], |_good| {
            function(&"i64 ".repeat(60_000), "")
        }),
        component("bomb: functions with all locals that may be", BURNT, |_good| {
            let body = "local.get 0 local.set 1 ".repeat(2_000);
            let function = format!("(func (local {}) {body})", "i64 ".repeat(49_000));
            module(&function.repeat(20))
        }),
        component(
            "bomb: more parameters than may be",
            &["function params size is out of bounds"],
            |_good| module(&format!("(func (param {}))", "i32 ".repeat(1_001))),
        ),
        component("bomb: functions without an end", BURNT, |_good| {
            module(&"(func (param i32) local.get 0 drop)".repeat(300_000))
        }),
        component("bomb: types without an end", &["types count"], |_good| {
            module(&"(type (func))".repeat(1_000_001))
        }),
        component("bomb: exports without an end", &["exports count"], |_good| {
            let mut exports = String::from("(func $f)");
            (0..1_000_001).try_for_each(|index| write!(exports, "(export \"{index}\" (func $f))"))?;
            module(&exports)
        }),
        component("a table of ten million places", &["trapped"], |good| {
            with_table(good, 10_000_000)
        }),
        component("a table of four billion places", &[""], |good| {
            with_table(good, u32::MAX)
        }),
        component("a memory of four gigabytes", &["bytes of memory, at most"], |good| {
            with_memory(good, 65_536)
        }),
        component(
            "a memory beyond what there may be",
            &["memory size must be at most"],
            |good| with_memory(good, 65_537),
        ),
        component("code that starts by itself and never ends", &[CONTRACT], |_good| {
            module("(func $f (loop br 0)) (start $f)")
        }),
    ]
}

fn text(text: &str) -> Result<Vec<u8>> {
    Ok(wat::parse_str(text)?)
}

fn import(name: &str) -> Result<Vec<u8>> {
    text(&format!("(component (import {name:?} (instance)))"))
}

/// A component with one core module.
fn module(fields: &str) -> Result<Vec<u8>> {
    text(&format!("(component (core module {fields}))"))
}

fn function(locals: &str, body: &str) -> Result<Vec<u8>> {
    module(&format!("(func $f (local {locals}) {body})"))
}

/// Whatever becomes of it: it neither ends the agent nor its neighbors.
fn mutated(good: &[u8]) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(20_261_123);
    let mut bytes = good.to_vec();
    for _change in 0..20 {
        let at = random.usize(8..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes
}

const MODULE_SECTION: u8 = 1;
const TABLE_SECTION: u8 = 4;
const MEMORY_SECTION: u8 = 5;

/// The hostile plugin with a larger table: its type and limits stand first in the section.
fn with_table(good: &[u8], places: u32) -> Result<Vec<u8>> {
    with_core_section(good, TABLE_SECTION, &[&[1, 0x70, 0][..], &leb128(places)].concat())
}

fn with_memory(good: &[u8], pages: u32) -> Result<Vec<u8>> {
    with_core_section(good, MEMORY_SECTION, &[&[1, 0][..], &leb128(pages)].concat())
}

/// The component with another section in its first, largest core module.
fn with_core_section(component: &[u8], id: u8, body: &[u8]) -> Result<Vec<u8>> {
    replaced(component, MODULE_SECTION, |module| {
        replaced(module, id, |_section| Ok(body.to_vec()))
    })
}

/// The bytes with the first section of this id changed.
fn replaced(bytes: &[u8], id: u8, change: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let mut at = 8;
    loop {
        let found = *bytes.get(at).context("no such section")?;
        let (length, start) = read_leb128(bytes, at + 1).context("a length")?;
        let end = start + length;
        if found == id {
            let body = change(bytes.get(start..end).context("a section")?)?;
            let length = leb128(u32::try_from(body.len())?);
            return Ok([&bytes[..=at], &length, &body, &bytes[end..]].concat());
        }
        at = end;
    }
}

/// The number and where it ends.
fn read_leb128(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
}

fn leb128(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
