//! The functions that a plugin may call: bounded and counted here, answered by the [`Host`].

use tillwatch_border::{Budget, Counters, Fault, Host, Limits};
use wasmtime::ResourceLimiter;

use crate::contract::tillwatch::collector::{clock, log, source, state, types};
use crate::convert;

/// Tables of functions; Rust plugins have a few hundred entries.
const TABLE_ELEMENTS_MAX: usize = 20_000;
/// A component made by `wasm-component-ld` has 3 core instances; one with Python inside has 64.
const CORE_INSTANCES_MAX: usize = 128;
const TABLES_MAX: usize = 8;
/// More than one would multiply `memory_bytes_max`.
const MEMORIES_MAX: usize = 1;

/// What belongs to one instance besides its memory.
pub(crate) struct Guest {
    pub(crate) limits: Limits,
    pub(crate) host: Box<dyn Host>,
    pub(crate) counters: Counters,
    pub(crate) budget: Budget,
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
            budget: Budget::new(limits),
        }
    }

    /// The bounds of one call begin anew.
    pub(crate) fn begin_call(&mut self) {
        self.budget = Budget::new(self.limits);
    }

    /// No source has so long a name, and a message with it could be larger than the agent takes.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), source::Fault> {
        if name.len() > self.limits.text_bytes_max {
            return Err(convert::fault(Fault::Unknown));
        }
        Ok(())
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) {
        if let Some(text) = self.budget.log(&message, &mut self.counters) {
            self.host.log(convert::level(level), text);
        }
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
        self.budget.state(value.len(), &mut self.counters)?;
        self.host.state_set(value)
    }
}

impl source::Host for Guest {
    fn read_lines(&mut self, name: String, max_bytes: u32) -> Result<source::Lines, source::Fault> {
        let left = self.budget.read(&mut self.counters).map_err(convert::fault)?;
        self.check_name(&name)?;
        let lines = self
            .host
            .read_lines(&name, max_bytes.min(left))
            .map_err(convert::fault)?;
        self.budget.on_read(lines.bytes.len());
        Ok(convert::lines(lines))
    }

    fn next_document(&mut self, name: String) -> Result<Option<source::Document>, source::Fault> {
        self.budget.read(&mut self.counters).map_err(convert::fault)?;
        self.check_name(&name)?;
        let document = self.host.next_document(&name).map_err(convert::fault)?;
        self.budget
            .on_read(document.as_ref().map_or(0, |document| document.bytes.len()));
        Ok(document.map(convert::document))
    }

    fn list_folder(&mut self, name: String) -> Result<source::Listing, source::Fault> {
        self.budget.ask(&mut self.counters).map_err(convert::fault)?;
        self.check_name(&name)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tillwatch_border::{Document, Level, Lines, Listing, PeerFailure, Question, Reply};

    use crate::contract::tillwatch::collector::{http, peer, sql, tcp};

    /// Whoever asks it has gone too far.
    struct NeverAsked;

    impl Host for NeverAsked {
        fn log(&mut self, _level: Level, _message: &str) {}

        fn now_ms(&mut self) -> u64 {
            0
        }

        fn state_get(&mut self) -> Vec<u8> {
            Vec::new()
        }

        fn state_set(&mut self, _value: Vec<u8>) -> Result<(), String> {
            Ok(())
        }

        fn read_lines(&mut self, source: &str, _bytes_max: u32) -> Result<Lines, Fault> {
            panic!("asked for {} bytes", source.len())
        }

        fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
            panic!("asked for {} bytes", source.len())
        }

        fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
            panic!("asked for {} bytes", source.len())
        }

        fn ask_peer(&mut self, peer: &str, _question: Question, _within: Duration) -> Result<Reply, PeerFailure> {
            panic!("asked for {} bytes", peer.len())
        }
    }

    /// A name of 8 MiB became a message that the agent does not take, and all plugins lost their process.
    #[test]
    fn a_source_whose_name_is_too_long_is_unknown_without_asking() {
        let limits = Limits::default();
        let mut guest = Guest::new(limits, Box::new(NeverAsked));
        let name = "x".repeat(limits.text_bytes_max + 1);
        let read = source::Host::read_lines(&mut guest, name.clone(), 10).unwrap_err();
        let document = source::Host::next_document(&mut guest, name.clone()).unwrap_err();
        let listed = source::Host::list_folder(&mut guest, name).unwrap_err();
        for fault in [read, document, listed] {
            assert_eq!(fault, source::Fault::Unknown);
        }
    }

    /// The same with the name of a peer.
    #[test]
    fn a_peer_whose_name_is_too_long_is_unknown_without_asking() {
        let limits = Limits::default();
        let mut guest = Guest::new(limits, Box::new(NeverAsked));
        let name = "x".repeat(limits.text_bytes_max + 1);
        let get = http::Request {
            method: http::Method::Get,
            path: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let connect = tcp::Request {
            bytes: Vec::new(),
            until: None,
            max_bytes: 0,
        };
        let sent = http::Host::send(&mut guest, name.clone(), get).unwrap_err();
        let exchanged = tcp::Host::exchange(&mut guest, name.clone(), connect).unwrap_err();
        let queried = sql::Host::run(&mut guest, name, None).unwrap_err();
        for failure in [sent, exchanged, queried] {
            assert_eq!(failure.fault, peer::Fault::Unknown);
        }
    }
}
