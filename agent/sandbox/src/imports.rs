//! The functions that a plugin may call: bounded and counted here, answered by the [`Host`].

use wasmtime::ResourceLimiter;

use crate::contract::tillwatch::collector::{clock, log, source, state, types};
use crate::convert;
use crate::{Counters, Fault, Host, Limits};

/// Tables of functions; Rust plugins have a few hundred entries.
const TABLE_ELEMENTS_MAX: usize = 20_000;
/// A component made by `wasm-component-ld` has 3 core instances.
const CORE_INSTANCES_MAX: usize = 16;
const TABLES_MAX: usize = 8;
/// More than one would multiply `memory_bytes_max`.
const MEMORIES_MAX: usize = 1;

/// What belongs to one instance besides its memory.
pub(crate) struct Guest {
    pub(crate) limits: Limits,
    pub(crate) host: Box<dyn Host>,
    pub(crate) counters: Counters,
    log_lines: usize,
    bytes_read: usize,
}

/// Raised where a plugin asks for more memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("{wanted} bytes of memory are too many")]
pub(crate) struct MemoryRefused {
    pub(crate) wanted: usize,
}

impl Guest {
    pub(crate) fn new(limits: Limits, host: Box<dyn Host>) -> Self {
        Self {
            limits,
            host,
            counters: Counters::default(),
            log_lines: 0,
            bytes_read: 0,
        }
    }

    /// The bounds of one call begin anew.
    pub(crate) fn begin_call(&mut self) {
        self.counters.calls += 1;
        self.log_lines = 0;
        self.bytes_read = 0;
    }

    /// Bytes that may still be read in this call.
    fn bytes_left(&mut self) -> Result<usize, Fault> {
        match self.limits.read_bytes_max.saturating_sub(self.bytes_read) {
            0 => {
                self.counters.reads_refused += 1;
                Err(Fault::Exhausted)
            }
            left => Ok(left),
        }
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) {
        self.log_lines += 1;
        if self.log_lines > self.limits.log_lines_max {
            self.counters.log_lines_dropped += 1;
            return;
        }
        let text = convert::cut(&message, self.limits.log_bytes_max);
        self.counters.log_lines_cut += u64::from(text.len() < message.len());
        self.host.log(convert::level(level), text);
    }
}

impl clock::Host for Guest {
    fn now_ms(&mut self) -> u64 {
        self.host.now_ms()
    }
}

impl state::Host for Guest {
    fn get(&mut self) -> Vec<u8> {
        self.host.state_get()
    }

    fn set(&mut self, value: Vec<u8>) -> Result<(), String> {
        let limit = self.limits.state_bytes_max;
        if value.len() > limit {
            self.counters.states_refused += 1;
            return Err(format!("state of {} bytes, at most {limit}", value.len()));
        }
        self.host.state_set(value)
    }
}

impl source::Host for Guest {
    fn read_lines(&mut self, name: String, max_bytes: u32) -> Result<source::Lines, source::Fault> {
        let left = u32::try_from(self.bytes_left().map_err(convert::fault)?).unwrap_or(u32::MAX);
        let lines = self
            .host
            .read_lines(&name, max_bytes.min(left))
            .map_err(convert::fault)?;
        self.bytes_read += lines.bytes.len();
        Ok(convert::lines(lines))
    }

    fn next_document(&mut self, name: String) -> Result<Option<source::Document>, source::Fault> {
        self.bytes_left().map_err(convert::fault)?;
        let document = self.host.next_document(&name).map_err(convert::fault)?;
        self.bytes_read += document.as_ref().map_or(0, |document| document.bytes.len());
        Ok(document.map(convert::document))
    }

    fn list_folder(&mut self, name: String) -> Result<source::Listing, source::Fault> {
        self.host
            .list_folder(&name)
            .map(convert::listing)
            .map_err(convert::fault)
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _now: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.limits.memory_bytes_max {
            return Err(MemoryRefused { wanted: desired }.into());
        }
        self.counters.memory_bytes = desired;
        Ok(true)
    }

    fn table_growing(&mut self, _now: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
