//! What a plugin gets when it asks: its granted sources, its state, the agent's clock, a bounded log.
//!
//! In: calls of the sandbox. Out: lines, documents and listings of granted sources and of nothing else.
//! Reads and state writes are one transaction with the batch: `commit` after it was handed on, `rollback` after a trap.
//! What a plugin fails at again and again is skipped and counted.
//! `progress` is what the checkpoint keeps: the position of each source and the plugin's state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Duration;

use tillwatch_border::{Document, Fault, Host, Level, Lines, Listing, PeerFailure, PeerFault, Question, Reply};
use tillwatch_core::guard::Guard;
use tracing::{debug, error, info, warn};

use super::caution::{CallRead, Caution, Verdict};
use super::grant::{Grant, denial};
use super::manifest::{SOURCES_MAX, SourceKind};
use crate::clock::Clock;
use crate::health::{Limit, PluginHealth};
use crate::rate::{PerMinute, Said};
use crate::source::documents::{Documents, DocumentsSettings};
use crate::source::folder::{ENTRIES_MAX, Folder};
use crate::source::logs::{Logs, LogsSettings};
use crate::source::peer::{Peer, Speech};
use crate::source::progress::{ProgressError, Reader, Writer};
use crate::source::tail::{Tail, TailSettings};
use crate::source::{NamePattern, Start};

/// Log lines of one plugin in a minute; the rest is counted.
const LOG_LINES_PER_MINUTE_MAX: u32 = 20;

/// How the sources of a plugin are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub start: Start,
    /// A call gets at most so many bytes of lines, and so many documents: replays keep their steps small.
    pub line_bytes_max: usize,
    pub documents_max: u32,
    /// What lies in a folder now, or a peer says, says nothing about the past.
    pub has_now: bool,
    /// Plugins keep to their share of the processor, also while they catch up.
    pub holds_share: bool,
}

impl Reading {
    /// As it comes.
    pub const LIVE: Self = Self {
        start: Start::Live,
        line_bytes_max: usize::MAX,
        documents_max: u32::MAX,
        has_now: true,
        holds_share: true,
    };
    /// In small steps from the oldest rotated file on.
    pub const BACKFILL: Self = Self {
        start: Start::Oldest,
        line_bytes_max: 64 << 10,
        documents_max: 16,
        has_now: false,
        // A person runs it, and waits for it.
        holds_share: false,
    };
    /// Once, for a person who waits for it.
    pub const ONCE: Self = Self {
        holds_share: false,
        ..Self::LIVE
    };
    /// From now on, leaving what is there.
    pub const TAP: Self = Self {
        start: Start::End,
        ..Self::LIVE
    };
}

/// A plugin's host; clones share everything, so that a new instance goes on where a trapped one was.
#[derive(Clone)]
pub struct GrantedHost(Arc<Mutex<Granted>>);

struct Granted {
    plugin: String,
    sources: BTreeMap<String, Source>,
    state: Vec<u8>,
    state_committed: Vec<u8>,
    reading: Reading,
    documents_left: u32,
    clock: Clock,
    logs: PerMinute,
    /// What the plugin warned of last.
    warning: Option<String>,
    refusals: Said,
    /// What was asked for and is not granted, as it was said.
    denied: BTreeSet<String>,
    /// What the open call read, and from which source last.
    call: CallRead,
    skipped_bytes: u64,
    source: String,
    /// The open call was given less than is there.
    withheld: bool,
    caution: Caution,
    /// The open call is made to see how it ends: it asks nobody.
    is_trial: bool,
    /// Documents and lines that were skipped because the plugin fails at them.
    skipped: u64,
    /// Of each source that was tried: whether the last try could read it.
    tried: BTreeMap<String, bool>,
    /// The open call was not given what it asked of a peer that is read.
    is_missing: bool,
    health: Arc<PluginHealth>,
}

enum Source {
    Lines(Box<Tail>),
    Logs(Box<Logs>),
    Documents(Box<Documents>),
    Folder(Folder),
    Peer(Peer),
}

impl GrantedHost {
    /// Opens the granted sources where `progress` says.
    ///
    /// # Errors
    /// When the progress cannot be read.
    pub fn new(
        plugin: &str,
        grants: &BTreeMap<String, Grant>,
        progress: Option<&[u8]>,
        reading: Reading,
        clock: Clock,
        health: Arc<PluginHealth>,
    ) -> Result<Self, ProgressError> {
        let progress = progress
            .filter(|progress| !progress.is_empty())
            .map(Progress::decode)
            .transpose()?
            .unwrap_or_default();
        let mut sources = BTreeMap::new();
        for (name, grant) in grants {
            let position = progress
                .sources
                .get(name.as_str())
                .copied()
                .filter(|position| !position.is_empty());
            sources.insert(name.clone(), Source::open(grant, position, reading)?);
        }
        let granted = Granted {
            plugin: plugin.to_owned(),
            sources,
            state: progress.state.to_vec(),
            state_committed: progress.state.to_vec(),
            reading,
            documents_left: reading.documents_max,
            clock,
            logs: PerMinute::new(LOG_LINES_PER_MINUTE_MAX),
            warning: None,
            refusals: Said::default(),
            denied: BTreeSet::new(),
            call: CallRead::default(),
            skipped_bytes: 0,
            source: String::new(),
            withheld: false,
            caution: Caution::default(),
            is_trial: false,
            skipped: 0,
            tried: BTreeMap::new(),
            is_missing: false,
            health,
        };
        Ok(Self(Arc::new(Mutex::new(granted))))
    }

    /// Between two calls: other sources in place of those that are open; what the plugin keeps stays.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn read_from(&self, grants: &BTreeMap<String, Grant>) -> Result<(), ProgressError> {
        let mut granted = self.lock();
        let mut sources = BTreeMap::new();
        for (name, grant) in grants {
            sources.insert(name.clone(), Source::open(grant, None, granted.reading)?);
        }
        granted.sources = sources;
        granted.tried.clear();
        Ok(())
    }

    /// What was read and kept since the last commit is used.
    pub fn commit(&self) {
        let mut granted = self.lock();
        let state = granted.state.clone();
        granted.state_committed = state;
        let read = granted.call;
        granted.caution.on_success(read);
        granted.commit_sources();
    }

    /// What was read and kept since the last commit comes again.
    pub fn rollback(&self) {
        let mut granted = self.lock();
        let state = granted.state_committed.clone();
        granted.state = state;
        granted.sources.values_mut().for_each(Source::rollback);
        granted.end_call();
    }

    /// What was read made the plugin fail: it comes again in smaller parts, and the part that always fails is skipped.
    pub fn fail(&self) {
        let mut granted = self.lock();
        let read = granted.call;
        if granted.caution.on_failure(read) == Verdict::Again {
            drop(granted);
            return self.rollback();
        }
        let (plugin, source) = (granted.plugin.as_str(), granted.source.as_str());
        error!(
            plugin,
            source,
            bytes = read.bytes,
            "what the plugin fails at is skipped"
        );
        let state = granted.state_committed.clone();
        granted.state = state;
        granted.skipped += 1;
        granted.commit_sources();
    }

    /// Peers are not asked until it is over.
    pub fn set_trial(&self, is_trial: bool) {
        self.lock().is_trial = is_trial;
    }

    /// Whether the open call was given less than is there, so that another should follow at once.
    #[must_use]
    pub fn has_withheld(&self) -> bool {
        self.lock().withheld
    }

    /// What a commit would make permanent.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        let granted = self.lock();
        let mut writer = Writer::default();
        writer.bytes(&granted.state);
        for (name, source) in &granted.sources {
            writer.bytes(name.as_bytes()).bytes(&source.progress());
        }
        writer.finish()
    }

    /// Whether a source that was tried could not be read, or not whole: what is missing then is not known.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        let granted = self.lock();
        let is_missing = |(name, is_up): (&String, &bool)| {
            // That an endpoint is down is what a probe reports, and nothing of it is missing.
            let is_probed = matches!(granted.sources.get(name), Some(Source::Peer(peer)) if !peer.is_read());
            !is_up && !is_probed
        };
        granted.is_missing || granted.tried.iter().any(is_missing)
    }

    /// What the plugin warned of last.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.lock().warning.clone()
    }

    /// The open call was refused a question before the host heard of it: nobody knows to which peer.
    pub fn on_peer_refused(&self) {
        let mut granted = self.lock();
        let is_read = |source: &Source| matches!(source, Source::Peer(peer) if peer.is_read());
        granted.is_missing |= granted.sources.values().any(is_read);
    }

    fn lock(&self) -> MutexGuard<'_, Granted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for GrantedHost {
    fn log(&mut self, level: Level, message: &str) {
        self.lock().log(level, message);
    }

    fn now_ms(&mut self) -> u64 {
        self.lock().clock.now_ms()
    }

    fn state_get(&mut self) -> Vec<u8> {
        self.lock().state.clone()
    }

    /// A state that might hold a card number is not kept: it would lie in the spool. The one before stays, so that the
    /// plugin goes on.
    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String> {
        let mut granted = self.lock();
        if Guard.bytes(&value).is_err() {
            granted.health.on_beyond(Limit::StateCards, 1);
        } else {
            granted.state = value;
        }
        Ok(())
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let mut granted = self.lock();
        let cautious_max = granted.caution.line_bytes_max();
        let bytes_max = usize::try_from(bytes_max)
            .unwrap_or(usize::MAX)
            .min(granted.reading.line_bytes_max)
            .min(cautious_max.unwrap_or(usize::MAX));
        let is_enough = granted.has_enough();
        let Some(read) = granted.sources.get_mut(source).and_then(Source::lines) else {
            granted.on_denied(SourceKind::Lines, source);
            return Err(Fault::Unknown);
        };
        if is_enough {
            granted.withheld = true;
            let more = true;
            return Ok(Lines {
                more,
                ..Lines::default()
            });
        }
        let (lines, is_up) = read.read(bytes_max);
        granted.on_tried(source, is_up);
        let lines = lines?;
        let items = memchr::memchr_iter(b'\n', &lines.bytes).count() as u64;
        granted.on_read(source, lines.bytes.len() as u64, items);
        granted.skipped_bytes += lines.skipped_bytes;
        Ok(lines)
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        let mut granted = self.lock();
        let (is_enough, is_withheld) = (granted.documents_left == 0, granted.has_enough());
        let Some(Source::Documents(documents)) = granted.sources.get_mut(source) else {
            granted.on_denied(SourceKind::Documents, source);
            return Err(Fault::Unknown);
        };
        if is_enough || is_withheld {
            granted.withheld |= is_withheld;
            return Ok(None);
        }
        let document = documents.read();
        let is_up = documents.is_up();
        granted.on_tried(source, is_up);
        let document = document?;
        if let Some(document) = &document {
            granted.documents_left -= 1;
            granted.on_read(source, document.bytes.len() as u64, 1);
        }
        Ok(document)
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        let mut granted = self.lock();
        let has_now = granted.reading.has_now;
        let Some(Source::Folder(folder)) = granted.sources.get_mut(source) else {
            granted.on_denied(SourceKind::Folder, source);
            return Err(Fault::Unknown);
        };
        if !has_now {
            return Err(Fault::Unavailable);
        }
        let listing = folder.list();
        let is_up = folder.is_up();
        granted.on_tried(source, is_up);
        listing
    }

    fn ask_peer(&mut self, name: &str, question: Question, within: Duration) -> Result<Reply, PeerFailure> {
        let mut granted = self.lock();
        let has_now = granted.reading.has_now && !granted.is_trial;
        let asked = match &question {
            Question::Http(_) => SourceKind::Http,
            Question::Tcp(_) => SourceKind::Tcp,
            Question::Sql { .. } => SourceKind::Sql,
        };
        let Some(Source::Peer(peer)) = granted.sources.get_mut(name).filter(|source| source.kind() == asked) else {
            granted.on_denied(asked, name);
            return Err(PeerFault::Unknown.at_once());
        };
        let is_read = peer.is_read();
        if !has_now {
            granted.is_missing |= is_read;
            return Err(PeerFault::TooSoon.at_once());
        }
        match peer.ask(question, within) {
            Ok(reply) => {
                granted.on_answered(name);
                granted.health.on_read(reply.bytes() as u64, 0);
                Ok(reply)
            }
            Err((failure, error)) => {
                granted.is_missing |= is_read;
                granted.on_failed(name, failure.fault, &error.to_string());
                Err(failure)
            }
        }
    }
}

impl Granted {
    fn log(&mut self, level: Level, message: &str) {
        if !self.logs.admits(self.clock.now_ms()) {
            self.health.on_beyond(Limit::LogRate, 1);
            return;
        }
        let plugin = self.plugin.as_str();
        // As a text it is quoted: a line end in it begins no line that looks like ours.
        let said: &str = &Guard.text(message);
        if matches!(level, Level::Warn | Level::Error) {
            self.warning = Some(said.to_owned());
        }
        match level {
            Level::Debug => debug!(plugin, said, "plugin"),
            Level::Info => info!(plugin, said, "plugin"),
            Level::Warn => warn!(plugin, said, "plugin"),
            Level::Error => error!(plugin, said, "plugin"),
        }
    }

    /// While something is suspect a call gets one thing.
    fn has_enough(&self) -> bool {
        self.caution.line_bytes_max().is_some() && self.call.items > 0
    }

    fn on_read(&mut self, source: &str, bytes: u64, items: u64) {
        self.call.bytes += bytes;
        self.call.items += items;
        if items > 0 && self.source != source {
            source.clone_into(&mut self.source);
        }
    }

    /// What was read does not come again, and counts.
    fn commit_sources(&mut self) {
        self.health.on_read(self.call.bytes, self.skipped_bytes);
        self.sources.values_mut().for_each(Source::commit);
        self.end_call();
    }

    fn end_call(&mut self) {
        self.documents_left = self.reading.documents_max;
        self.call = CallRead::default();
        self.skipped_bytes = 0;
        self.withheld = false;
        self.is_missing = false;
        self.report();
    }

    fn on_tried(&mut self, source: &str, is_up: bool) {
        match self.tried.get_mut(source) {
            Some(known) => *known = is_up,
            None => drop(self.tried.insert(source.to_owned(), is_up)),
        }
    }

    fn on_answered(&mut self, peer: &str) {
        if self.tried.get(peer) == Some(&false) {
            let plugin = self.plugin.as_str();
            info!(plugin, source = peer, "a peer answers again");
        }
        self.on_tried(peer, true);
    }

    fn on_failed(&mut self, peer: &str, fault: PeerFault, why: &str) {
        let limit = match fault {
            PeerFault::Denied | PeerFault::Unknown => Some(Limit::PeerGrant),
            PeerFault::TooSoon => Some(Limit::PeerRate),
            PeerFault::TooLarge => Some(Limit::PeerBytes),
            PeerFault::Timeout => Some(Limit::PeerTime),
            PeerFault::Exhausted | PeerFault::Unreachable | PeerFault::Untrusted | PeerFault::Malformed => None,
        };
        if let Some(limit) = limit {
            self.health.on_beyond(limit, 1);
        }
        if fault.is_peers() {
            self.on_down(peer, fault, why);
        } else if limit == Some(Limit::PeerGrant) {
            self.on_tried(peer, false);
            self.on_refused(peer, why);
        }
    }

    /// Said once for each time that it goes down.
    fn on_down(&mut self, peer: &str, fault: PeerFault, why: &str) {
        self.health.on_source_failure(peer, fault.name());
        if self.tried.get(peer) != Some(&false) {
            let (plugin, fault, why) = (self.plugin.as_str(), fault.name(), Guard.text(why));
            warn!(plugin, source = peer, fault, %why, "a peer is down");
        }
        self.on_tried(peer, false);
    }

    /// Each is said once. One of another kind is a mistake; one that is not granted at all may be meant: a plugin asks for
    /// what it can do without.
    fn on_denied(&mut self, asked: SourceKind, name: &str) {
        let granted = self.sources.get(name).map(Source::kind);
        if asked.is_peer() && granted.is_some() {
            self.health.on_beyond(Limit::PeerGrant, 1);
        }
        let why = denial(&self.plugin, asked, &Guard.text(name), granted);
        if self.denied.len() >= SOURCES_MAX || !self.denied.insert(why.clone()) {
            return;
        }
        let (plugin, why): (&str, &str) = (&self.plugin, &why);
        if granted.is_some() {
            warn!(plugin, why, "a source is of another kind");
        } else {
            info!(plugin, why, "a source is not granted");
        }
    }

    /// What a person must mend.
    fn on_refused(&mut self, peer: &str, why: &str) {
        if let Some(times) = self.refusals.count(self.clock.now_ms()) {
            let plugin = self.plugin.as_str();
            let (peer, why): (&str, &str) = (&Guard.text(peer), &Guard.text(why));
            warn!(plugin, peer, why, times, "a peer gives no answer");
        }
    }

    fn report(&mut self) {
        let left = self.sources.values_mut().map(Source::take_left).sum();
        self.health.on_beyond(Limit::Files, left);
        for (name, is_up) in &self.tried {
            self.health.set_source(name, *is_up);
        }
        self.health
            .set_unreadable(self.sources.values().map(Source::unreadable).sum());
        let lost: u64 = self.sources.values().map(Source::lost).sum();
        self.health.set_lost(lost + self.skipped);
    }
}

/// What has lines, and whether it can be read.
enum HasLines<'a> {
    One(&'a mut Tail),
    Many(&'a mut Logs),
}

impl HasLines<'_> {
    fn read(self, bytes_max: usize) -> (Result<Lines, Fault>, bool) {
        match self {
            Self::One(tail) => (tail.read(bytes_max), tail.is_up()),
            Self::Many(logs) => (logs.read(bytes_max), logs.is_up()),
        }
    }
}

impl Source {
    fn kind(&self) -> SourceKind {
        match self {
            Self::Lines(_) | Self::Logs(_) => SourceKind::Lines,
            Self::Documents(_) => SourceKind::Documents,
            Self::Folder(_) => SourceKind::Folder,
            Self::Peer(peer) => match peer.speech() {
                Speech::Http => SourceKind::Http,
                Speech::Tcp => SourceKind::Tcp,
                Speech::Sql => SourceKind::Sql,
            },
        }
    }

    fn lines(&mut self) -> Option<HasLines<'_>> {
        match self {
            Self::Lines(tail) => Some(HasLines::One(tail)),
            Self::Logs(logs) => Some(HasLines::Many(logs)),
            Self::Documents(_) | Self::Folder(_) | Self::Peer(_) => None,
        }
    }

    /// Files beyond a bound, since the last call of this.
    fn take_left(&mut self) -> u64 {
        match self {
            Self::Logs(logs) => logs.take_left(),
            Self::Lines(_) | Self::Documents(_) | Self::Folder(_) | Self::Peer(_) => 0,
        }
    }

    fn open(grant: &Grant, progress: Option<&[u8]>, reading: Reading) -> Result<Self, ProgressError> {
        Ok(match grant {
            Grant::Lines { file, line_bytes_max } => {
                let settings = TailSettings::new(file.clone());
                let settings = TailSettings {
                    line_bytes_max: *line_bytes_max,
                    start: reading.start,
                    ..settings
                };
                Self::Lines(Box::new(Tail::open(settings, progress)?))
            }
            Grant::Logs {
                folder,
                pattern,
                line_bytes_max,
                files_max,
            } => {
                let settings = LogsSettings {
                    files_max: *files_max,
                    line_bytes_max: *line_bytes_max,
                    start: reading.start,
                    ..LogsSettings::new(folder.clone(), NamePattern::new(pattern))
                };
                Self::Logs(Box::new(Logs::open(settings, progress)?))
            }
            Grant::Documents {
                folder,
                pattern,
                settle_ms,
                document_bytes_max,
            } => {
                let settings = DocumentsSettings {
                    settle_ms: *settle_ms,
                    document_bytes_max: *document_bytes_max,
                    start: reading.start,
                    ..DocumentsSettings::new(folder.clone(), NamePattern::new(pattern))
                };
                Self::Documents(Box::new(Documents::open(settings, progress)?))
            }
            Grant::Folder { folder, pattern } => {
                Self::Folder(Folder::new(folder.clone(), NamePattern::new(pattern), ENTRIES_MAX))
            }
            Grant::Peer(grant) => Self::Peer(Peer::open(grant)),
        })
    }

    fn commit(&mut self) {
        match self {
            Self::Lines(tail) => tail.commit(),
            Self::Logs(logs) => logs.commit(),
            Self::Documents(documents) => documents.commit(),
            Self::Peer(peer) => peer.commit(),
            Self::Folder(_) => {}
        }
    }

    fn rollback(&mut self) {
        match self {
            Self::Lines(tail) => tail.rollback(),
            Self::Logs(logs) => logs.rollback(),
            Self::Documents(documents) => documents.rollback(),
            Self::Peer(peer) => peer.rollback(),
            Self::Folder(_) => {}
        }
    }

    fn progress(&self) -> Vec<u8> {
        match self {
            Self::Lines(tail) => tail.progress(),
            Self::Logs(logs) => logs.progress(),
            Self::Documents(documents) => documents.progress(),
            Self::Folder(_) | Self::Peer(_) => Vec::new(),
        }
    }

    fn unreadable(&self) -> u64 {
        match self {
            Self::Logs(logs) => logs.unreadable(),
            Self::Documents(documents) => documents.unreadable(),
            Self::Folder(folder) => folder.unreadable(),
            Self::Lines(_) | Self::Peer(_) => 0,
        }
    }

    fn lost(&self) -> u64 {
        match self {
            Self::Lines(tail) => tail.rotations_lost(),
            Self::Logs(logs) => logs.rotations_lost(),
            Self::Documents(documents) => documents.refused(),
            Self::Folder(_) | Self::Peer(_) => 0,
        }
    }
}

/// What the checkpoint kept: the plugin's state, then name and position of each source.
#[derive(Default)]
struct Progress<'a> {
    state: &'a [u8],
    sources: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Progress<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, ProgressError> {
        let mut reader = Reader::new(bytes)?;
        let mut progress = Self {
            state: reader.bytes()?,
            sources: BTreeMap::new(),
        };
        while !reader.is_empty() {
            let name = std::str::from_utf8(reader.bytes()?).map_err(|_not_utf8| ProgressError::Short)?;
            progress.sources.insert(name, reader.bytes()?);
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(folder: &Path, progress: Option<&[u8]>, reading: Reading) -> GrantedHost {
        let grants = BTreeMap::from([
            (
                "log".to_owned(),
                Grant::Lines {
                    file: folder.join("x.log"),
                    line_bytes_max: 1_000,
                },
            ),
            (
                "drop".to_owned(),
                Grant::Folder {
                    folder: folder.to_owned(),
                    pattern: "*".to_owned(),
                },
            ),
            (
                "docs".to_owned(),
                Grant::Documents {
                    folder: folder.to_owned(),
                    pattern: "*.xml".to_owned(),
                    settle_ms: 0,
                    document_bytes_max: 1_000,
                },
            ),
        ]);
        GrantedHost::new("test", &grants, progress, reading, Clock::told(60_000), Arc::default()).unwrap()
    }

    /// A plugin kept its last lines in its state, and they lay in the spool for two weeks.
    #[test]
    fn a_state_with_a_card_number_is_not_kept_and_the_one_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        host.state_set(b"till-7".to_vec()).unwrap();
        for state in ["last: 4111 1111 1111 1111", "NDExMTExMTExMTExMTExMQ=="] {
            host.state_set(state.as_bytes().to_vec()).unwrap();
            assert_eq!(host.state_get(), b"till-7");
        }
        assert_eq!(host.lock().health.beyond_of(Limit::StateCards), 2);
    }

    #[test]
    fn lines_documents_and_state_are_one_transaction_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.log"), "a\nb\n").unwrap();
        std::fs::write(folder.path().join("1.xml"), "<a/>").unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        assert_eq!(host.read_lines("log", 2).unwrap().bytes, b"a\n");
        host.state_set(vec![1]).unwrap();
        let progress = host.progress();
        host.commit();
        assert_eq!(host.read_lines("log", 2).unwrap().bytes, b"b\n");
        assert_eq!(host.next_document("docs").unwrap().unwrap().name, "1.xml");
        host.state_set(vec![2]).unwrap();
        host.rollback();
        for host in [&mut host, &mut open(folder.path(), Some(&progress), Reading::LIVE)] {
            assert_eq!(host.state_get(), [1]);
            assert_eq!(host.read_lines("log", 2).unwrap().bytes, b"b\n");
            assert_eq!(host.next_document("docs").unwrap().unwrap().name, "1.xml");
            assert_eq!(host.next_document("docs").unwrap(), None);
        }
    }

    #[test]
    fn what_was_not_granted_or_is_of_another_kind_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        assert_eq!(host.read_lines("other", 10).unwrap_err(), Fault::Unknown);
        assert_eq!(host.read_lines("drop", 10).unwrap_err(), Fault::Unknown);
        assert_eq!(host.next_document("log").unwrap_err(), Fault::Unknown);
        assert_eq!(host.list_folder("log").unwrap_err(), Fault::Unknown);
        assert_eq!(host.list_folder("drop").unwrap().count, 0);
    }

    #[test]
    fn what_is_asked_for_and_not_granted_names_both_sides_and_peers_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        for _ in 0..2 {
            host.read_lines("other", 10).unwrap_err();
            host.next_document("log").unwrap_err();
            host.list_folder("docs").unwrap_err();
            for name in ["till", "log"] {
                let asked = host.ask_peer(name, Question::Sql { after: None }, Duration::from_secs(1));
                assert_eq!(asked.unwrap_err().fault, PeerFault::Unknown);
            }
        }
        let granted = host.lock();
        assert_eq!(granted.health.beyond_of(Limit::PeerGrant), 2, "of another kind");
        let said: Vec<&str> = granted.denied.iter().map(String::as_str).collect();
        assert_eq!(
            said,
            [
                "plugin `test` asks for files of a folder `log`, agent.toml grants lines of a file",
                "plugin `test` asks for lines of a file `other`, agent.toml grants none",
                "plugin `test` asks for listing of a folder `docs`, agent.toml grants files of a folder",
                "plugin `test` asks for sql query `log`, agent.toml grants lines of a file",
                "plugin `test` asks for sql query `till`, agent.toml grants none",
            ]
        );
    }

    /// A plugin's name for a source is bytes of a stranger.
    #[test]
    fn a_plugin_that_asks_for_ever_new_sources_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        for number in 0..100 {
            host.read_lines(&number.to_string(), 10).unwrap_err();
        }
        assert_eq!(host.lock().denied.len(), SOURCES_MAX);
    }

    #[test]
    fn logs_of_a_pattern_are_one_source_across_a_restart_and_logs_without_a_place_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(format!("{name}.log")), format!("{name}\n")).unwrap();
        }
        let grants = BTreeMap::from([(
            "log".to_owned(),
            Grant::Logs {
                folder: folder.path().to_owned(),
                pattern: "*.log".to_owned(),
                line_bytes_max: 1_000,
                files_max: 2,
            },
        )]);
        let open = |progress: Option<&[u8]>| {
            let clock = Clock::told(60_000);
            GrantedHost::new("test", &grants, progress, Reading::LIVE, clock, Arc::default()).unwrap()
        };
        let mut host = open(None);
        let lines = host.read_lines("log", 100).unwrap();
        assert_eq!(lines.bytes.len(), 4);
        assert!(host.is_partial(), "one waits");
        let progress = host.progress();
        host.commit();
        assert!(host.lock().health.beyond_of(Limit::Files) > 0);
        assert_eq!(open(Some(&progress)).read_lines("log", 100).unwrap().bytes, b"");
        host.next_document("log").unwrap_err();
        assert!(
            host.lock()
                .denied
                .iter()
                .all(|said| said.ends_with("grants lines of a file"))
        );
    }

    #[test]
    fn a_replay_takes_small_steps_and_sees_no_folder_of_today() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..20 {
            std::fs::write(folder.path().join(format!("{number}.xml")), "<a/>").unwrap();
        }
        let mut host = open(folder.path(), None, Reading::BACKFILL);
        assert_eq!(host.list_folder("drop").unwrap_err(), Fault::Unavailable);
        let mut take = || {
            let count = std::iter::from_fn(|| host.next_document("docs").unwrap()).count();
            host.commit();
            count
        };
        assert_eq!([take(), take(), take()], [16, 4, 0]);
    }

    /// A plugin needed longer for one large document than a call may take: no later document was ever read.
    #[test]
    fn one_document_at_which_a_plugin_fails_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..5 {
            std::fs::write(folder.path().join(format!("{number}.xml")), "<a/>").unwrap();
        }
        std::fs::write(folder.path().join("x.log"), "a\n").unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        let (mut used, mut calls) = (Vec::new(), 0);
        while calls < 30 {
            calls += 1;
            let names: Vec<String> =
                std::iter::from_fn(|| host.next_document("docs").unwrap().map(|document| document.name)).collect();
            let lines = host.read_lines("log", 10).unwrap();
            if names.iter().any(|name| name == "2.xml") {
                host.state_set(vec![9]).unwrap();
                host.fail();
                continue;
            }
            used.extend(names);
            if !lines.bytes.is_empty() {
                used.push("a".to_owned());
            }
            assert!(!host.has_withheld() || lines.more);
            host.commit();
        }
        used.sort();
        assert_eq!(used, ["0.xml", "1.xml", "3.xml", "4.xml", "a"]);
        assert_eq!(host.state_get(), [] as [u8; 0]);
        assert_eq!(host.lock().skipped, 1);
    }

    /// Every source was down before it was read, and one that its plugin never asks for was down for ever.
    #[test]
    fn only_what_was_tried_is_up_or_down() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        let health = Arc::clone(&host.lock().health);
        host.commit();
        assert_eq!(health.sources(), []);
        host.read_lines("log", 10).unwrap_err();
        host.next_document("docs").unwrap();
        host.commit();
        assert_eq!(health.sources(), [("docs".to_owned(), true), ("log".to_owned(), false)]);
        health.forget_sources();
        assert_eq!(health.sources(), []);
    }

    /// Bytes of a line that was too long were counted with each call that was repeated.
    #[test]
    fn what_is_read_again_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(1_500);
        std::fs::write(folder.path().join("x.log"), format!("{long}\na\n")).unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        let health = Arc::clone(&host.lock().health);
        for _ in 0..3 {
            host.rollback();
            assert_eq!(host.read_lines("log", 1_000).unwrap().bytes, b"a\n");
            assert_eq!(health.read(), (0, 0));
        }
        host.commit();
        assert_eq!(health.read(), (2, 1_501));
    }

    #[test]
    fn a_missing_file_makes_the_batch_partial_until_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        assert!(!host.is_partial(), "nothing was tried yet");
        assert_eq!(host.read_lines("log", 10).unwrap_err(), Fault::Unavailable);
        host.commit();
        host.next_document("docs").unwrap();
        assert!(host.is_partial(), "as long as the log was not read again");
        std::fs::write(folder.path().join("x.log"), "a\n").unwrap();
        host.read_lines("log", 10).unwrap();
        assert!(!host.is_partial());
    }

    /// The first row is all, whatever is asked.
    fn of_a_query(folder: &Path, query: &str, reading: Reading) -> GrantedHost {
        use crate::source::peer::PeerGrant;
        use crate::source::peer::sql::{ColumnType, Database, SqlGrant};
        let file = folder.join("pos.db");
        std::fs::write(&file, "").unwrap();
        let grant = Grant::Peer(Box::new(PeerGrant::Sql(SqlGrant {
            database: Database::Sqlite(file),
            query: query.to_owned(),
            columns: vec![("n".to_owned(), ColumnType::Integer)],
            cursor: None,
            rows_max: 1,
            table_bytes_max: 1_000,
            timeout: Duration::from_secs(10),
            interval_min: Duration::from_secs(3_600),
        })));
        let grants = BTreeMap::from([("sales".to_owned(), grant)]);
        GrantedHost::new("test", &grants, None, reading, Clock::told(60_000), Arc::default()).unwrap()
    }

    fn ask(host: &mut GrantedHost) -> Option<PeerFault> {
        let question = Question::Sql { after: None };
        let answer = host.ask_peer("sales", question, Duration::from_secs(10));
        answer.err().map(|failure| failure.fault)
    }

    /// A revoked right, a secret that could not be read, and what was refused or came too soon counted as nothing sold.
    #[test]
    fn a_query_that_was_not_answered_makes_the_batch_partial() {
        let folder = tempfile::tempdir().unwrap();
        let mut denied = of_a_query(folder.path(), "PRAGMA user_version = 3", Reading::LIVE);
        assert_eq!(ask(&mut denied), Some(PeerFault::Denied));
        assert!(denied.is_partial());
        denied.commit();
        assert!(denied.is_partial(), "until it was read");
        assert_eq!(denied.lock().health.sources(), [("sales".to_owned(), false)]);
        let mut past = of_a_query(folder.path(), "SELECT 1", Reading::BACKFILL);
        assert_eq!(ask(&mut past), Some(PeerFault::TooSoon));
        assert!(past.is_partial());
        let refused = of_a_query(folder.path(), "SELECT 1", Reading::LIVE);
        refused.on_peer_refused();
        assert!(refused.is_partial());
        refused.rollback();
        assert!(!refused.is_partial(), "it was of that call");
        let files = open(folder.path(), None, Reading::LIVE);
        files.on_peer_refused();
        assert!(!files.is_partial(), "a probe's question is no lack of data");
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_query_that_was_asked_too_soon_makes_the_batch_partial_and_its_peer_stays_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = of_a_query(folder.path(), "SELECT 1", Reading::LIVE);
        assert_eq!(ask(&mut host), None);
        assert!(!host.is_partial());
        host.rollback();
        assert_eq!(ask(&mut host), None, "the call is repeated");
        host.commit();
        assert_eq!(ask(&mut host), Some(PeerFault::TooSoon));
        assert!(host.is_partial());
        host.commit();
        assert!(!host.is_partial(), "it was of that call");
        let health = Arc::clone(&host.lock().health);
        assert_eq!(health.sources(), [("sales".to_owned(), true)]);
        assert_eq!(health.beyond_of(Limit::PeerRate), 1);
    }

    #[derive(Clone, Default)]
    struct Journal(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Journal {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What followed a line end in a plugin's message looked like a line of the agent.
    #[test]
    fn a_plugins_words_are_quoted_and_begin_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = open(folder.path(), None, Reading::LIVE);
        let journal = Journal::default();
        let writer = journal.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let forged = "x\n2026-11-23T10:00:00.000Z ERROR tillwatch: records are lost\u{1b}[2J";
        tracing::subscriber::with_default(subscriber, || host.log(Level::Warn, forged));
        let said = String::from_utf8(journal.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("ERROR tillwatch") && !said.contains("\u{1b}[2J"),
            "{said}"
        );
    }
}
