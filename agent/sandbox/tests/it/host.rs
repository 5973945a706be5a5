//! A host that remembers what it was asked.

use std::sync::Arc;
use std::time::Duration;

use tillwatch_border::{
    Document, Fault, Host, Level, Lines, Listing, PeerFailure, PeerFault, Question, Reply, TcpResponse,
};

pub(crate) const NOW_MS: u64 = 1_772_451_000_000;

#[derive(Clone, Default)]
pub(crate) struct TestHost {
    pub(crate) input: Vec<u8>,
    pub(crate) state: Vec<u8>,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) reads: u32,
    /// What a peer, or the disk, does before it answers, if there is one.
    pub(crate) peer: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl TestHost {
    pub(crate) fn with_input(input: &[u8]) -> Self {
        Self {
            input: input.to_vec(),
            ..Self::default()
        }
    }
}

impl Host for TestHost {
    fn log(&mut self, level: Level, message: &str) {
        self.logs.push((level, message.to_owned()));
    }

    fn now_ms(&mut self) -> u64 {
        NOW_MS
    }

    fn state_get(&mut self) -> Vec<u8> {
        self.state.clone()
    }

    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String> {
        self.state = value;
        Ok(())
    }

    /// Always the same, cut to what is asked for.
    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        self.reads += 1;
        if let Some(disk) = &self.peer {
            disk();
        }
        if source != "input" {
            return Err(Fault::Unknown);
        }
        let mut bytes = self.input.clone();
        bytes.truncate(bytes_max as usize);
        Ok(Lines {
            bytes,
            ..Lines::default()
        })
    }

    fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
        Err(Fault::Unknown)
    }

    fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
        Err(Fault::Unknown)
    }

    fn ask_peer(&mut self, _name: &str, _question: Question, _within: Duration) -> Result<Reply, PeerFailure> {
        self.reads += 1;
        let peer = self.peer.as_ref().ok_or(PeerFault::Unknown.at_once())?;
        peer();
        Ok(Reply::Tcp(TcpResponse {
            bytes: Vec::new(),
            connect_us: 1,
            elapsed_us: 1,
        }))
    }
}
