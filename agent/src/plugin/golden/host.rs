//! The host of a test case: its files in memory, at the case's time, as the SDK's `FileHost` gives them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::time::Duration;

use tillwatch_border::{Document, Entry, Fault, Host, Level, Lines, Listing, PeerFailure, PeerFault, Question, Reply};

use tillwatch_core::guard::Guard;

use super::answers::{self, Answers};
use super::{file_name, marks, sorted};
use crate::config::written::unknown_hint;
use crate::plugin::manifest::{AskedSource, SourceKind};

/// So small that cases take several calls, as in the SDK.
const CHUNK_BYTES: usize = 4096;
/// A longer line is skipped and its bytes are told.
const LINE_BYTES_MAX: usize = 64 * 1024;
const ENTRIES_MAX: usize = 1000;
/// Copies of a folder's files.
const FILES_MAX: usize = 2000;
/// Different reads of undeclared sources that are told.
const MISREADS_MAX: usize = 10;
/// Files that are not input.
const OTHER_FILES: [&str; 5] = [
    "settings.toml",
    "clock.toml",
    "peers.toml",
    "expected.jsonl",
    "README.md",
];
const NOW_DEFAULT: &str = "2026-03-02T12:00:00Z";

/// Clones share everything: one is in the sandbox, one reads the logs.
#[derive(Clone)]
pub(in crate::plugin) struct CaseHost(Arc<Mutex<Case>>);

#[derive(Default)]
struct Case {
    now_ms: u64,
    state: Vec<u8>,
    /// Bytes that are left of a tailed file.
    lines: BTreeMap<String, Vec<u8>>,
    folders: BTreeMap<String, Folder>,
    answers: Answers,
    /// What plugin.toml asks for: nothing else is given.
    asked: BTreeMap<String, SourceKind>,
    /// Reads of what plugin.toml does not ask for, or not in that way.
    misreads: BTreeSet<String>,
    logs: Vec<(Level, String)>,
    /// How much a read of lines gives at most; none is as in the SDK.
    piece_bytes: Option<usize>,
    /// Of lines and documents that were read.
    given_bytes: u64,
    /// What every source answers instead.
    fault: Option<Fault>,
    /// What every peer answers instead.
    peer_fault: Option<PeerFault>,
}

/// Oldest first; the first `given` were given as documents.
#[derive(Default)]
struct Folder {
    files: Vec<Document>,
    given: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    now: toml::value::Datetime,
    #[serde(default)]
    age_s: BTreeMap<String, u64>,
}

impl CaseHost {
    /// # Errors
    /// When it cannot be read, or has input of a source that plugin.toml does not declare, or of another kind.
    pub(in crate::plugin) fn read(folder: &Path, sources: &[AskedSource]) -> Result<Self> {
        let clock = read_clock(folder)?;
        let now: jiff::Timestamp = clock
            .now
            .to_string()
            .parse()
            .context("clock.toml: now must be in UTC, ending in Z")?;
        let mut case = Case {
            now_ms: u64::try_from(now.as_millisecond())?,
            asked: kinds(sources),
            ..Case::default()
        };
        let peers = folder.join("peers.toml");
        if peers.exists() {
            let text = String::from_utf8(read_file(&peers)?)?;
            case.answers = answers::parse(&text).with_context(|| format!("reading {}", peers.display()))?;
            if let Some(peer) = case.answers.keys().find(|peer| !case.asked.contains_key(*peer)) {
                let hint = unknown_hint(peer, case.asked.keys().map(String::as_str));
                bail!("peers.toml: plugin.toml declares no source `{peer}`; {hint}");
            }
        }
        for path in sorted(folder)? {
            let name = file_name(&path);
            // Such as an editor's.
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                check_declared(&case.asked, &name, &name, true)?;
                let folder = read_folder(&path, &name, case.now_ms, &clock.age_s)?;
                case.folders.insert(name, folder);
            } else if !OTHER_FILES.contains(&name.as_str()) {
                let source = name.split('.').next().unwrap_or_default().to_owned();
                check_declared(&case.asked, &name, &source, false)?;
                case.lines.entry(source).or_default().extend(read_file(&path)?);
            }
        }
        Ok(Self(Arc::new(Mutex::new(case))))
    }

    /// Sources of an asked kind without anything in them.
    pub(in crate::plugin) fn empty(sources: &[AskedSource], now_ms: u64) -> Self {
        let mut case = Case {
            now_ms,
            asked: kinds(sources),
            ..Case::default()
        };
        for source in sources {
            match source.kind {
                SourceKind::Lines => drop(case.lines.insert(source.name.clone(), Vec::new())),
                SourceKind::Documents | SourceKind::Folder => {
                    drop(case.folders.insert(source.name.clone(), Folder::default()));
                }
                SourceKind::Http | SourceKind::Tcp | SourceKind::Sql => {
                    case.answers.entry(source.name.clone()).or_default();
                }
            }
        }
        Self(Arc::new(Mutex::new(case)))
    }

    pub(in crate::plugin) fn set_fault(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    pub(in crate::plugin) fn set_peer_fault(&self, fault: PeerFault) {
        self.lock().peer_fault = Some(fault);
    }

    pub(in crate::plugin) fn set_piece_bytes(&self, bytes: usize) {
        self.lock().piece_bytes = Some(bytes);
    }

    pub(in crate::plugin) fn set_now(&self, now_ms: u64) {
        self.lock().now_ms = now_ms;
    }

    pub(in crate::plugin) fn now(&self) -> u64 {
        self.lock().now_ms
    }

    pub(in crate::plugin) fn set_state(&self, state: &[u8]) {
        self.lock().state = state.to_vec();
    }

    pub(in crate::plugin) fn state(&self) -> Vec<u8> {
        self.lock().state.clone()
    }

    /// Repeats lines and documents until each source has so many bytes.
    pub(in crate::plugin) fn repeat(&self, bytes_min: usize) {
        let mut case = self.lock();
        for lines in case.lines.values_mut() {
            end_last_line(lines);
            *lines = lines.repeat(times(lines.len(), bytes_min));
        }
        for folder in case.folders.values_mut() {
            let bytes = folder.files.iter().map(|file| file.bytes.len()).sum();
            let files = std::mem::take(&mut folder.files);
            let copy = |at: usize, file: &Document| Document {
                name: format!("{at}-{}", file.name),
                ..file.clone()
            };
            let copies = (0..times(bytes, bytes_min)).flat_map(|at| files.iter().map(move |file| copy(at, file)));
            folder.files = copies.take(FILES_MAX).collect();
        }
    }

    /// All lines and documents, one after the other.
    pub(in crate::plugin) fn input(&self) -> Vec<u8> {
        let case = self.lock();
        let documents = case.folders.values().flat_map(|folder| &folder.files);
        let documents = documents.map(|file| file.bytes.as_slice());
        let lines = case.lines.values().map(Vec::as_slice);
        lines.chain(documents).collect::<Vec<_>>().concat()
    }

    /// Lines and documents come once more for each of their words, with the mark in its place.
    pub(in crate::plugin) fn mark(&self, mark: &str) {
        let mut case = self.lock();
        for lines in case.lines.values_mut() {
            end_last_line(lines);
            *lines = marks::lines(lines, mark.as_bytes());
        }
        for folder in case.folders.values_mut() {
            let modified_ms = folder.files.first().map_or(0, |file| file.modified_ms);
            let texts = folder.files.iter().map(|file| file.bytes.as_slice());
            let copies = marks::documents(texts, mark.as_bytes()).into_iter().enumerate();
            let copies = copies.map(|(at, bytes)| Document {
                name: format!("{at}-marked"),
                modified_ms,
                bytes,
            });
            folder.files.splice(0..0, copies.collect::<Vec<_>>());
        }
    }

    pub(in crate::plugin) fn has_answers(&self) -> bool {
        !self.lock().answers.is_empty()
    }

    /// The mark stands in each answer of a peer for one word, another one in each turn.
    pub(in crate::plugin) fn mark_answers(&self, mark: &str, turn: usize, turns: usize) {
        answers::mark(&mut self.lock().answers, mark, turn, turns);
    }

    /// Whole lines and documents that nobody has read.
    pub(in crate::plugin) fn unread(&self) -> (usize, usize) {
        let case = self.lock();
        let lines = case
            .lines
            .values()
            .map(|lines| memchr::memchr_iter(b'\n', lines).count());
        let is_read = |name: &String| case.asked.get(name) == Some(&SourceKind::Documents);
        let folders = case.folders.iter().filter(|(name, _folder)| is_read(name));
        let documents = folders.map(|(_name, folder)| folder.files.len() - folder.given);
        (lines.sum(), documents.sum())
    }

    /// What the plugin read that its plugin.toml does not ask for: a store gives it nothing.
    pub(in crate::plugin) fn misreads(&self) -> Vec<String> {
        self.lock().misreads.iter().cloned().collect()
    }

    pub(in crate::plugin) fn given_bytes(&self) -> u64 {
        self.lock().given_bytes
    }

    pub(in crate::plugin) fn take_logs(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.lock().logs)
    }

    /// As in a store: what plugin.toml does not ask for in this way is unknown.
    fn open_source(&self, source: &str, kind: SourceKind) -> Result<MutexGuard<'_, Case>, Fault> {
        let mut case = self.lock();
        if case.asked.get(source) != Some(&kind) {
            if case.misreads.len() < MISREADS_MAX {
                let told = misread(&case.asked, source, kind);
                case.misreads.insert(told);
            }
            return Err(Fault::Unknown);
        }
        match case.fault {
            Some(fault) => Err(fault),
            None => Ok(case),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Case> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kinds(sources: &[AskedSource]) -> BTreeMap<String, SourceKind> {
    let kind = |source: &AskedSource| (source.name.clone(), source.kind);
    sources.iter().map(kind).collect()
}

/// Input that no store would give is a mistake of the case.
fn check_declared(asked: &BTreeMap<String, SourceKind>, path: &str, source: &str, is_folder: bool) -> Result<()> {
    match asked.get(source) {
        None => {
            let hint = unknown_hint(source, asked.keys().map(String::as_str));
            bail!("{path}: plugin.toml declares no source `{source}`; {hint}")
        }
        Some(kind) if kind.is_peer() => {
            bail!(
                "{path}: source `{source}` is a {} in plugin.toml: write its answers into peers.toml",
                kind.name()
            )
        }
        Some(kind) if is_folder == (*kind == SourceKind::Lines) => {
            bail!(
                "{path}: source `{source}` is of kind {:?} in plugin.toml: {}",
                kind.name(),
                if is_folder {
                    "put a file there"
                } else {
                    "put a folder there"
                }
            )
        }
        Some(_kind) => Ok(()),
    }
}

fn misread(asked: &BTreeMap<String, SourceKind>, source: &str, kind: SourceKind) -> String {
    let kind = kind.name();
    let source = source.replace(char::is_control, "\u{fffd}");
    match asked.get(&source) {
        Some(declared) => format!(
            "it reads source `{source}` as {kind}, and plugin.toml declares it as {}",
            declared.name()
        ),
        None => {
            let hint = unknown_hint(&source, asked.keys().map(String::as_str));
            format!("it reads source `{source}`, which plugin.toml does not declare; {hint}")
        }
    }
}

fn end_last_line(lines: &mut Vec<u8>) {
    if lines.last().is_some_and(|last| *last != b'\n') {
        lines.push(b'\n');
    }
}

/// How often so many bytes must be there to be at least as many as wanted.
fn times(bytes: usize, bytes_min: usize) -> usize {
    bytes_min.checked_div(bytes).map_or(1, |times| times + 1)
}

fn read_clock(folder: &Path) -> Result<Clock> {
    let path = folder.join("clock.toml");
    let text = if path.exists() {
        String::from_utf8(read_file(&path)?)?
    } else {
        format!("now = {NOW_DEFAULT}")
    };
    toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

fn read_folder(folder: &Path, source: &str, now_ms: u64, age_s: &BTreeMap<String, u64>) -> Result<Folder> {
    let mut files = Vec::new();
    for path in sorted(folder)? {
        let name = file_name(&path);
        // Git keeps no empty folders; this file makes one.
        if name == ".gitkeep" {
            continue;
        }
        let age_ms = age_s
            .get(&format!("{source}/{name}"))
            .copied()
            .unwrap_or(0)
            .saturating_mul(1000);
        files.push(Document {
            name,
            modified_ms: now_ms.saturating_sub(age_ms),
            bytes: read_file(&path)?,
        });
    }
    files.sort_by(|a, b| (a.modified_ms, &a.name).cmp(&(b.modified_ms, &b.name)));
    Ok(Folder { files, given: 0 })
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

impl Host for CaseHost {
    fn log(&mut self, level: Level, message: &str) {
        self.lock().logs.push((level, message.to_owned()));
    }

    fn now_ms(&mut self) -> u64 {
        self.lock().now_ms
    }

    fn state_get(&mut self) -> Vec<u8> {
        self.lock().state.clone()
    }

    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String> {
        let mut case = self.lock();
        if Guard.bytes(&value).is_err() {
            let told = "its state holds what looks like a card number: a store keeps the state before".to_owned();
            case.misreads.insert(told);
        } else {
            case.state = value;
        }
        Ok(())
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let mut case = self.open_source(source, SourceKind::Lines)?;
        let piece = case.piece_bytes.unwrap_or(CHUNK_BYTES);
        let bytes = case.lines.get_mut(source).ok_or(Fault::Unknown)?;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(piece);
        let lines = next_lines(bytes, bytes_max);
        case.given_bytes += lines.bytes.len() as u64;
        Ok(lines)
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        let mut case = self.open_source(source, SourceKind::Documents)?;
        let folder = case.folders.get_mut(source).ok_or(Fault::Unknown)?;
        let document = folder.files.get(folder.given).cloned();
        folder.given += usize::from(document.is_some());
        case.given_bytes += document.iter().map(|document| document.bytes.len() as u64).sum::<u64>();
        Ok(document)
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        let case = self.open_source(source, SourceKind::Folder)?;
        let files = &case.folders.get(source).ok_or(Fault::Unknown)?.files;
        let entry = |file: &Document| Entry {
            name: file.name.clone(),
            size: file.bytes.len() as u64,
            modified_ms: file.modified_ms,
        };
        Ok(Listing {
            count: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes.len() as u64).sum(),
            oldest_modified_ms: files.first().map(|file| file.modified_ms),
            entries: files.iter().take(ENTRIES_MAX).map(entry).collect(),
        })
    }

    fn ask_peer(&mut self, name: &str, question: Question, _within: Duration) -> Result<Reply, PeerFailure> {
        let kind = match question {
            Question::Http(_) => SourceKind::Http,
            Question::Tcp(_) => SourceKind::Tcp,
            Question::Sql { .. } => SourceKind::Sql,
        };
        match self.open_source(name, kind) {
            Ok(mut case) => match case.peer_fault {
                Some(fault) => Err(fault.at_once()),
                None => answers::next(&mut case.answers, name, &question),
            },
            Err(Fault::Unknown) => Err(PeerFault::Unknown.at_once()),
            Err(_a_source_is_down) => Err(PeerFault::TooSoon.at_once()),
        }
    }
}

/// Takes whole lines of at most `bytes_max` together, but at least one.
fn next_lines(bytes: &mut Vec<u8>, bytes_max: usize) -> Lines {
    let (mut lines, mut taken) = (Lines::default(), 0);
    while let Some(end) = memchr::memchr(b'\n', &bytes[taken..]) {
        let line = &bytes[taken..=taken + end];
        let (is_long, is_told) = (line.len() > LINE_BYTES_MAX, lines.skipped_bytes > 0);
        let has_room = lines.bytes.is_empty() || lines.bytes.len() + line.len() <= bytes_max;
        match is_long {
            // As in the agent, one in a call.
            true if !is_told => lines.skipped_bytes = line.len() as u64,
            false if has_room => lines.bytes.extend_from_slice(line),
            _ => {
                lines.more = true;
                break;
            }
        }
        taken += line.len();
    }
    bytes.drain(..taken);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_its_files_at_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("drop")).unwrap();
        write("clock.toml", "now = 2026-03-02T11:30:00Z\n[age_s]\n\"drop/b\" = 60\n");
        write("log.jsonl", "1\n2\n3");
        write("drop/a", "aa");
        write("drop/b", "b");
        let sources = [
            asked("log", SourceKind::Lines),
            asked("drop", SourceKind::Documents),
            asked("spool", SourceKind::Folder),
        ];
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        write("spool/c", "c");
        let mut host = CaseHost::read(folder.path(), &sources).unwrap();
        assert_eq!(host.now_ms(), 1_772_451_000_000);
        assert_eq!(
            host.read_lines("log", 2).unwrap(),
            Lines {
                bytes: b"1\n".to_vec(),
                more: true,
                skipped_bytes: 0
            }
        );
        assert_eq!(
            host.read_lines("log", 9).unwrap(),
            Lines {
                bytes: b"2\n".to_vec(),
                more: false,
                skipped_bytes: 0
            }
        );
        assert_eq!(
            host.list_folder("spool").unwrap().oldest_modified_ms,
            Some(1_772_451_000_000)
        );
        assert_eq!(host.unread(), (0, 2));
        assert_eq!(host.next_document("drop").unwrap().unwrap().name, "b");
        assert_eq!(host.next_document("drop").unwrap().unwrap().name, "a");
        assert_eq!(host.next_document("drop").unwrap(), None);
        assert_eq!(host.unread(), (0, 0));
        assert_eq!(host.misreads(), Vec::<String>::new());
        assert_eq!(host.read_lines("drop", 9).unwrap_err(), Fault::Unknown);
        assert_eq!(host.list_folder("drop").unwrap_err(), Fault::Unknown);
        assert_eq!(host.next_document("spool").unwrap_err(), Fault::Unknown);
        assert_eq!(host.read_lines("logs", 9).unwrap_err(), Fault::Unknown);
        assert_eq!(host.misreads().len(), 4);
        let told = host.misreads().join("\n");
        assert!(
            told.contains("`logs`, which plugin.toml does not declare; did you mean `log`?"),
            "{told}"
        );
        assert!(
            told.contains("`spool` as files of a folder, and plugin.toml declares it as listing"),
            "{told}"
        );
    }

    fn asked(name: &str, kind: SourceKind) -> AskedSource {
        let (name, help) = (name.to_owned(), String::new());
        let required = false;
        AskedSource {
            name,
            kind,
            required,
            help,
        }
    }

    /// A case passed with a file that no store would give.
    #[test]
    fn input_that_plugin_toml_does_not_declare_is_a_mistake_of_the_case() {
        for (path, expected) in [
            ("logs.txt", "declares no source `logs`; did you mean `log`?"),
            ("drop.txt", "put a folder there"),
            ("log/a", "put a file there"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
            let sources = [asked("log", SourceKind::Lines), asked("drop", SourceKind::Documents)];
            let error = CaseHost::read(folder.path(), &sources).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
