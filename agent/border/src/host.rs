//! What the sandbox asks of the agent on a plugin's behalf; everything is owned and serializable.

use std::any::Any;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{PeerFailure, PeerFault, Question, Reply};

/// The agent's side of a plugin's calls. None but `ask_peer` may block longer than a local read.
pub trait Host: Any + Send {
    /// A log line, already cut and counted by the sandbox, but not yet guarded against cardholder data.
    fn log(&mut self, level: Level, message: &str);
    /// UTC milliseconds of the time that the agent lives in; the same during one call.
    fn now_ms(&mut self) -> u64;
    /// What the last committed `state_set` left.
    fn state_get(&mut self) -> Vec<u8>;
    /// Keeps a value, already within bounds, until the batch is committed or rolled back.
    ///
    /// # Errors
    /// The text is given to the plugin.
    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String>;
    /// The next whole lines of a granted source, at most so many bytes.
    ///
    /// # Errors
    /// Why there are none.
    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault>;
    /// The next new file of a granted folder.
    ///
    /// # Errors
    /// Why there is none.
    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault>;
    /// What lies in a granted folder.
    ///
    /// # Errors
    /// Why nothing is known of it.
    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault>;
    /// Asks a granted peer over the network, and waits for it no longer than `within`.
    ///
    /// # Errors
    /// Why there is no answer.
    fn ask_peer(&mut self, _name: &str, _question: Question, _within: Duration) -> Result<Reply, PeerFailure> {
        Err(PeerFault::Unknown.at_once())
    }
}

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Whole lines of a tailed file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// Each line with its `\n`.
    #[serde(with = "crate::bytes")]
    pub bytes: Vec<u8>,
    /// More is there already.
    pub more: bool,
    /// Bytes of a line that was longer than the limit and has ended: of one at most in a call.
    pub skipped_bytes: u64,
}

/// A whole file of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Without its folder.
    pub name: String,
    pub modified_ms: u64,
    #[serde(with = "crate::bytes")]
    pub bytes: Vec<u8>,
}

/// A file of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Without its folder.
    pub name: String,
    pub size: u64,
    pub modified_ms: u64,
}

/// What lies in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// All files that match, also those beyond the limit of `entries`.
    pub count: u64,
    pub bytes: u64,
    pub oldest_modified_ms: Option<u64>,
    pub entries: Vec<Entry>,
}

/// Why a source gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// No source of that name, or not of that kind.
    Unknown,
    /// The file or folder is missing or cannot be read.
    Unavailable,
    /// The plugin read more than it may in one call.
    Exhausted,
}
