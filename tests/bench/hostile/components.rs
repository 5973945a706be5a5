//! What a `.wasm` may be that is no good plugin: made here, so that the repository holds none.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::attacks::DEADLINE;
use super::{DEADLINE_MS, PATIENT_MS};

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

    pub(super) fn call_ms_max(&self) -> u64 {
        if self.becomes.contains(&DEADLINE) {
            DEADLINE_MS
        } else {
            PATIENT_MS
        }
    }
}

const LIMITS: &str = "the compiler was stopped by its limits of time and memory";
const CONTRACT: &str = "does not fit the contract";
/// Whatever a byte becomes, somebody refuses it in his own words.
const CHANGED: &[&str] = &[
    "it is not a valid component",
    "failed to parse WebAssembly module",
    "Invalid input WebAssembly code",
    CONTRACT,
    "plugin wants ",
    "trapped",
    "started",
];
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
        component("bytes changed at random, 1", CHANGED, |good| Ok(mutated(good, 1))),
        component("bytes changed at random, 2", CHANGED, |good| Ok(mutated(good, 2))),
        component("bytes changed at random, 3", CHANGED, |good| Ok(mutated(good, 3))),
        component("bytes changed at random, 4", CHANGED, |good| Ok(mutated(good, 4))),
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
        component("a table of four billion places", &["exceeds table limits"], |good| {
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
        component(
            "code that starts by itself and never ends",
            &[DEADLINE],
            with_endless_start,
        ),
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

fn mutated(good: &[u8], seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = good.to_vec();
    for _change in 0..20 {
        let at = random.usize(8..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes
}

const MODULE_SECTION: u8 = 1;
const TYPE_SECTION: u8 = 1;
const IMPORT_SECTION: u8 = 2;
const FUNCTION_SECTION: u8 = 3;
const START_SECTION: u8 = 8;
const CODE_SECTION: u8 = 10;
/// Without parameters and results.
const PLAIN_FUNCTION: &[u8] = &[0x60, 0, 0];
/// No locals, then `loop br 0 end`.
const ENDLESS_BODY: &[u8] = &[0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b];
const TABLE_SECTION: u8 = 4;
const MEMORY_SECTION: u8 = 5;

/// The hostile plugin with a larger table: its type and limits stand first in the section.
fn with_table(good: &[u8], places: u32) -> Result<Vec<u8>> {
    with_core_section(good, TABLE_SECTION, &[&[1, 0x70, 0][..], &leb128(places)].concat())
}

fn with_memory(good: &[u8], pages: u32) -> Result<Vec<u8>> {
    with_core_section(good, MEMORY_SECTION, &[&[1, 0][..], &leb128(pages)].concat())
}

/// The hostile plugin whose module has a function that runs as soon as there is an instance.
fn with_endless_start(good: &[u8]) -> Result<Vec<u8>> {
    replaced(good, MODULE_SECTION, |module| {
        let plain = plain_type(section(module, TYPE_SECTION)?)?;
        let functions = numbers(section(module, FUNCTION_SECTION)?)?;
        let function = functions
            .iter()
            .position(|of| *of == plain)
            .context("a plain function")?;
        // Rust's modules import functions and nothing else.
        let (imported, _end) = read_leb128(section(module, IMPORT_SECTION)?, 0).context("a count")?;
        let looping = replaced(module, CODE_SECTION, |code| endless(code, function))?;
        let at = head_of(&looping, |id| id > START_SECTION)?;
        let start = leb128(u32::try_from(imported + function)?);
        let length = leb128(u32::try_from(start.len())?);
        Ok([&looping[..at], &[START_SECTION], &length, &start, &looping[at..]].concat())
    })
}

/// Of types that are all functions with parameters and results of one byte each.
fn plain_type(types: &[u8]) -> Result<usize> {
    let (count, mut at) = read_leb128(types, 0).context("a count")?;
    for index in 0..count {
        if types.get(at..at + PLAIN_FUNCTION.len()) == Some(PLAIN_FUNCTION) {
            return Ok(index);
        }
        let (parameters, after) = read_leb128(types, at + 1).context("parameters")?;
        let (results, after) = read_leb128(types, after + parameters).context("results")?;
        at = after + results;
    }
    anyhow::bail!("no plain function")
}

fn numbers(section: &[u8]) -> Result<Vec<usize>> {
    let (count, mut at) = read_leb128(section, 0).context("a count")?;
    let mut numbers = Vec::new();
    for _number in 0..count {
        let (number, after) = read_leb128(section, at).context("a number")?;
        numbers.push(number);
        at = after;
    }
    Ok(numbers)
}

/// The code with another body of one function.
fn endless(code: &[u8], function: usize) -> Result<Vec<u8>> {
    let (_count, mut at) = read_leb128(code, 0).context("a count")?;
    for _before in 0..function {
        let (length, start) = read_leb128(code, at).context("a body")?;
        at = start + length;
    }
    let (length, start) = read_leb128(code, at).context("a body")?;
    let own = leb128(u32::try_from(ENDLESS_BODY.len())?);
    Ok([&code[..at], &own, ENDLESS_BODY, &code[start + length..]].concat())
}

fn section(bytes: &[u8], id: u8) -> Result<&[u8]> {
    let at = head_of(bytes, |found| found == id)?;
    let (length, start) = read_leb128(bytes, at + 1).context("a length")?;
    bytes.get(start..start + length).context("a section")
}

/// Where the first such section begins; custom ones are none.
fn head_of(bytes: &[u8], is_wanted: impl Fn(u8) -> bool) -> Result<usize> {
    let mut at = 8;
    loop {
        let id = *bytes.get(at).context("no such section")?;
        if id != 0 && is_wanted(id) {
            return Ok(at);
        }
        let (length, start) = read_leb128(bytes, at + 1).context("a length")?;
        at = start + length;
    }
}

/// The component with another section in its first, largest core module.
fn with_core_section(component: &[u8], id: u8, body: &[u8]) -> Result<Vec<u8>> {
    replaced(component, MODULE_SECTION, |module| {
        replaced(module, id, |_section| Ok(body.to_vec()))
    })
}

/// The bytes with the first section of this id changed.
fn replaced(bytes: &[u8], id: u8, change: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let body = change(section(bytes, id)?)?;
    let at = head_of(bytes, |found| found == id)?;
    let (old, start) = read_leb128(bytes, at + 1).context("a length")?;
    let length = leb128(u32::try_from(body.len())?);
    Ok([&bytes[..=at], &length, &body, &bytes[start + old..]].concat())
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
