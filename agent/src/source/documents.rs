//! The new files of a folder, whole, oldest first, each once.
//!
//! A file is complete when it has not changed for `settle_ms`; one that is written elsewhere and renamed in is taken
//! as soon as its content is that old. A file that was read is remembered by its name, size, time and inode in a set of
//! at most `remembered_max`; names that vanished from the folder are forgotten. Beyond that bound the oldest are
//! forgotten together with everything before them, so nothing is read twice.
//! Links are never followed. Too large files are counted and left.
//! One that cannot be opened is counted, and the source is not up, as long as it lies there: it is tried again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tillwatch_sandbox::{Document, Fault};
use tracing::warn;

use super::progress::{ProgressError, Reader, Writer};
use super::{NamePattern, Start, machine_now_ms, modified_ms};
use crate::platform::{file_id, open_document};
use crate::rate::PerMinute;

/// The default of [`DocumentsSettings::settle_ms`].
pub const SETTLE_MS: u64 = 2_000;
/// The default of [`DocumentsSettings::document_bytes_max`].
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The default of [`DocumentsSettings::remembered_max`]: 16 bytes each, in every checkpoint.
pub const REMEMBERED_MAX: usize = 4_096;
/// Names that one listing looks at.
const NAMES_MAX: usize = 100_000;

/// What is read and within which bounds.
#[derive(Clone, Debug)]
pub struct DocumentsSettings {
    pub folder: PathBuf,
    pub pattern: NamePattern,
    pub settle_ms: u64,
    pub document_bytes_max: u64,
    pub remembered_max: usize,
    /// [`Start::End`] leaves what is there at the first listing.
    pub start: Start,
}

impl DocumentsSettings {
    #[must_use]
    pub fn new(folder: PathBuf, pattern: NamePattern) -> Self {
        Self {
            folder,
            pattern,
            settle_ms: SETTLE_MS,
            document_bytes_max: DOCUMENT_BYTES_MAX,
            remembered_max: REMEMBERED_MAX,
            start: Start::Live,
        }
    }
}

/// One folder of documents.
#[derive(Debug)]
pub struct Documents {
    settings: DocumentsSettings,
    memory: Memory,
    /// Read since the last commit.
    taken: BTreeSet<Mark>,
    waiting: VecDeque<Candidate>,
    is_listed: bool,
    /// When a file whose time lies in the future was first seen as it is now.
    unsettled: HashMap<Mark, u64>,
    /// Are there and could not be opened when they were last tried.
    unreadable: BTreeSet<Mark>,
    said: PerMinute,
    open_file: fn(&Path) -> io::Result<File>,
    up: bool,
    refused: u64,
}

impl Documents {
    /// Goes on from `progress`, or with all files of the folder when there is none.
    ///
    /// # Errors
    /// When the progress cannot be read.
    pub fn open(settings: DocumentsSettings, progress: Option<&[u8]>) -> Result<Self, ProgressError> {
        let memory = progress.map(Memory::decode).transpose()?.unwrap_or_default();
        Ok(Self {
            settings,
            memory,
            taken: BTreeSet::new(),
            waiting: VecDeque::new(),
            is_listed: false,
            unsettled: HashMap::new(),
            unreadable: BTreeSet::new(),
            said: PerMinute::new(1),
            open_file: open_document,
            up: false,
            refused: 0,
        })
    }

    /// The next complete file; none when all are read.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the folder is missing or cannot be read.
    pub fn read(&mut self) -> Result<Option<Document>, Fault> {
        if self.waiting.is_empty() && !self.is_listed {
            let listed = self.list(machine_now_ms());
            self.up = listed.is_ok();
            listed.map_err(|_unreadable| Fault::Unavailable)?;
        }
        while let Some(candidate) = self.waiting.pop_front() {
            match self.take(&candidate) {
                Ok(Some(document)) => return Ok(Some(document)),
                Ok(None) => {}
                Err(error) => self.on_unreadable(&candidate, &error),
            }
        }
        Ok(None)
    }

    /// Whether the last listing found the folder, and all of its files that were tried could be opened.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up && self.unreadable.is_empty()
    }

    /// Files that are there and cannot be opened.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.len() as u64
    }

    /// Files that were left because they are larger than `document_bytes_max`.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What was read counts as used.
    pub fn commit(&mut self) {
        self.memory.remember(
            std::mem::take(&mut self.taken).into_iter(),
            self.settings.remembered_max,
        );
        self.is_listed = false;
    }

    /// What was read since the last commit comes again.
    pub fn rollback(&mut self) {
        self.taken.clear();
        self.waiting.clear();
        self.is_listed = false;
    }

    /// The memory that a commit would make permanent.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        let mut memory = self.memory.clone();
        memory.remember(self.taken.iter().copied(), self.settings.remembered_max);
        memory.encode()
    }

    fn list(&mut self, now_ms: u64) -> io::Result<()> {
        let mut present = BTreeSet::new();
        let mut fresh = Vec::new();
        let mut names = 0;
        for entry in std::fs::read_dir(&self.settings.folder)?.take(NAMES_MAX) {
            names += 1;
            let Some(candidate) = self.candidate(&entry?) else {
                continue;
            };
            present.insert(candidate.mark);
            if !self.memory.has(candidate.mark) && !self.taken.contains(&candidate.mark) {
                fresh.push(candidate);
            }
        }
        // Also those beyond the limit are tried again.
        self.unreadable.retain(|mark| present.contains(mark));
        if names < NAMES_MAX {
            self.memory.marks.retain(|mark| present.contains(mark));
            self.unsettled.retain(|mark, _since_ms| present.contains(mark));
        }
        self.is_listed = true;
        if std::mem::replace(&mut self.settings.start, Start::Live) == Start::End && self.memory.is_empty() {
            self.taken.extend(fresh.drain(..).map(|candidate| candidate.mark));
        }
        fresh.retain(|candidate| self.is_settled(candidate, now_ms));
        fresh.sort_by(|a, b| (a.mark.modified_ms, &a.name).cmp(&(b.mark.modified_ms, &b.name)));
        self.waiting = fresh.into();
        Ok(())
    }

    fn candidate(&self, entry: &std::fs::DirEntry) -> Option<Candidate> {
        let name = entry
            .file_name()
            .into_string()
            .ok()
            .filter(|name| self.settings.pattern.matches(name))?;
        let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
        Some(Candidate {
            mark: Mark::of(&name, &metadata),
            name,
        })
    }

    fn is_settled(&mut self, candidate: &Candidate, now_ms: u64) -> bool {
        if candidate.mark.modified_ms <= now_ms {
            return now_ms - candidate.mark.modified_ms >= self.settings.settle_ms;
        }
        let since_ms = *self.unsettled.entry(candidate.mark).or_insert(now_ms);
        now_ms.saturating_sub(since_ms) >= self.settings.settle_ms
    }

    /// What vanished since it was listed is no failure.
    fn on_unreadable(&mut self, candidate: &Candidate, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        let is_new = self.unreadable.insert(candidate.mark);
        if is_new && self.said.admits(machine_now_ms()) {
            let folder = self.settings.folder.display();
            warn!(%folder, %error, "a document cannot be opened");
        }
    }

    /// Reads a file, unless it changed since it was listed or is too large.
    fn take(&mut self, candidate: &Candidate) -> io::Result<Option<Document>> {
        let file = (self.open_file)(&self.settings.folder.join(&candidate.name))?;
        self.unreadable.remove(&candidate.mark);
        let metadata = file.metadata()?;
        if Mark::of(&candidate.name, &metadata) != candidate.mark {
            return Ok(None);
        }
        if metadata.len() > self.settings.document_bytes_max {
            self.refused += 1;
            self.taken.insert(candidate.mark);
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(self.settings.document_bytes_max).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != metadata.len() {
            return Ok(None);
        }
        self.taken.insert(candidate.mark);
        Ok(Some(Document {
            name: candidate.name.clone(),
            modified_ms: candidate.mark.modified_ms,
            bytes,
        }))
    }
}

#[derive(Debug)]
struct Candidate {
    name: String,
    mark: Mark,
}

/// What tells one version of one file from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Mark {
    modified_ms: u64,
    /// FNV-1a over name, size and inode.
    hash: u64,
}

impl Mark {
    fn of(name: &str, metadata: &Metadata) -> Self {
        let size = metadata.len().to_le_bytes();
        let inode = file_id(metadata).inode.to_le_bytes();
        let bytes = name.bytes().chain(size).chain(inode);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self {
            modified_ms: modified_ms(metadata),
            hash,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Memory {
    marks: BTreeSet<Mark>,
    /// Everything up to this time counts as read.
    forgotten_through_ms: u64,
}

impl Memory {
    fn has(&self, mark: Mark) -> bool {
        mark.modified_ms <= self.forgotten_through_ms || self.marks.contains(&mark)
    }

    fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.forgotten_through_ms == 0
    }

    fn remember(&mut self, marks: impl Iterator<Item = Mark>, marks_max: usize) {
        self.marks.extend(marks);
        while self.marks.len() > marks_max {
            if let Some(oldest) = self.marks.pop_first() {
                self.forgotten_through_ms = self.forgotten_through_ms.max(oldest.modified_ms);
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(self.forgotten_through_ms);
        for mark in &self.marks {
            writer.number(mark.modified_ms).number(mark.hash);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, ProgressError> {
        let mut reader = Reader::new(bytes)?;
        let mut memory = Self {
            marks: BTreeSet::new(),
            forgotten_through_ms: reader.number()?,
        };
        while !reader.is_empty() {
            memory.marks.insert(Mark {
                modified_ms: reader.number()?,
                hash: reader.number()?,
            });
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    struct Drop {
        folder: tempfile::TempDir,
    }

    impl Drop {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
            }
        }

        fn write(&self, name: &str, content: &str, modified_s: u64) {
            let path = self.folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(modified_s)).unwrap();
        }

        fn settings(&self) -> DocumentsSettings {
            DocumentsSettings::new(self.folder.path().to_owned(), NamePattern::new("*.xml"))
        }

        fn open(&self, progress: Option<&[u8]>) -> Documents {
            Documents::open(self.settings(), progress).unwrap()
        }
    }

    fn read_all(documents: &mut Documents) -> Vec<String> {
        std::iter::from_fn(|| documents.read().unwrap())
            .map(|document| document.name)
            .collect()
    }

    #[test]
    fn files_come_oldest_first_and_once_across_a_restart() {
        let drop = Drop::new();
        drop.write("b.xml", "2", 20);
        drop.write("a.xml", "3", 30);
        drop.write("c.xml", "1", 10);
        drop.write("d.txt", "0", 5);
        let mut documents = drop.open(None);
        assert_eq!(read_all(&mut documents), ["c.xml", "b.xml", "a.xml"]);
        let progress = documents.progress();
        documents.commit();
        assert_eq!(progress, documents.progress());
        let mut again = drop.open(Some(&progress));
        assert!(read_all(&mut again).is_empty());
        drop.write("late.xml", "4", 15);
        again.commit();
        assert_eq!(read_all(&mut again), ["late.xml"]);
    }

    /// A listing in the middle of a transaction once gave the files of that transaction again.
    #[test]
    fn files_that_waited_across_a_commit_come_once() {
        let drop = Drop::new();
        for name in ["a.xml", "b.xml", "c.xml"] {
            drop.write(name, "x", 10);
        }
        let mut documents = drop.open(None);
        assert_eq!(documents.read().unwrap().unwrap().name, "a.xml");
        documents.commit();
        assert_eq!(read_all(&mut documents), ["b.xml", "c.xml"]);
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
    }

    #[test]
    fn after_a_rollback_the_same_files_come_again() {
        let drop = Drop::new();
        drop.write("a.xml", "1", 10);
        let mut documents = drop.open(None);
        assert_eq!(read_all(&mut documents), ["a.xml"]);
        documents.rollback();
        assert_eq!(read_all(&mut documents), ["a.xml"]);
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
    }

    #[test]
    fn a_file_that_still_grows_waits_until_it_has_settled() {
        let drop = Drop::new();
        drop.write("a.xml", "1", machine_now_ms() / 1000 + 3_600);
        let mut documents = drop.open(None);
        let now_ms = machine_now_ms();
        documents.list(now_ms).unwrap();
        assert!(documents.waiting.is_empty());
        documents.list(now_ms + SETTLE_MS).unwrap();
        assert_eq!(documents.waiting.len(), 1);
        std::fs::write(drop.folder.path().join("a.xml"), "longer").unwrap();
        documents.list(machine_now_ms()).unwrap();
        assert!(documents.waiting.is_empty());
    }

    #[test]
    fn a_file_that_changed_after_the_listing_waits_for_the_next_one() {
        let drop = Drop::new();
        drop.write("a.xml", "1", 10);
        let mut documents = drop.open(None);
        documents.list(machine_now_ms()).unwrap();
        drop.write("a.xml", "longer", 20);
        assert_eq!(documents.read().unwrap(), None);
        documents.commit();
        assert_eq!(documents.read().unwrap().unwrap().bytes, b"longer");
    }

    #[test]
    fn a_too_large_file_is_counted_and_costs_only_itself() {
        let drop = Drop::new();
        drop.write("big.xml", "0123456789", 10);
        drop.write("small.xml", "0", 20);
        let settings = DocumentsSettings {
            document_bytes_max: 5,
            ..drop.settings()
        };
        let mut documents = Documents::open(settings, None).unwrap();
        assert_eq!(read_all(&mut documents), ["small.xml"]);
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
        assert_eq!(documents.refused(), 1);
    }

    /// A till wrote its sales with rights for itself alone; they were passed over in silence.
    #[test]
    fn a_file_that_cannot_be_opened_is_counted_until_it_can() {
        let drop = Drop::new();
        drop.write("a.xml", "x", 10);
        drop.write("b.xml", "x", 20);
        let mut documents = drop.open(None);
        documents.open_file = |path| match path.ends_with("a.xml") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => open_document(path),
        };
        assert_eq!(read_all(&mut documents), ["b.xml"]);
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
        assert_eq!((documents.is_up(), documents.unreadable()), (false, 1));
        documents.commit();
        documents.open_file = open_document;
        assert_eq!(read_all(&mut documents), ["a.xml"]);
        assert_eq!((documents.is_up(), documents.unreadable()), (true, 0));
    }

    #[test]
    fn what_vanished_since_it_was_listed_is_no_failure() {
        let drop = Drop::new();
        drop.write("a.xml", "x", 10);
        let mut documents = drop.open(None);
        documents.open_file = |_path| Err(io::ErrorKind::NotFound.into());
        assert!(read_all(&mut documents).is_empty());
        assert!(documents.is_up());
    }

    #[test]
    fn a_link_is_never_followed() {
        let drop = Drop::new();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(secret.path(), drop.folder.path().join("a.xml")).unwrap();
        assert!(read_all(&mut drop.open(None)).is_empty());
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_names_that_vanished() {
        let drop = Drop::new();
        for number in 0..10 {
            drop.write(&format!("{number}.xml"), "x", 10 + number);
        }
        let settings = DocumentsSettings {
            remembered_max: 4,
            ..drop.settings()
        };
        let mut documents = Documents::open(settings, None).unwrap();
        assert_eq!(read_all(&mut documents).len(), 10);
        documents.commit();
        assert_eq!(documents.memory.marks.len(), 4);
        assert!(
            read_all(&mut documents).is_empty(),
            "what is forgotten is not read again"
        );
        for number in 0..10 {
            std::fs::remove_file(drop.folder.path().join(format!("{number}.xml"))).unwrap();
        }
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
        assert!(documents.memory.marks.is_empty());
    }

    #[test]
    fn starting_at_the_end_leaves_what_is_there() {
        let drop = Drop::new();
        drop.write("old.xml", "x", 10);
        let settings = DocumentsSettings {
            start: Start::End,
            ..drop.settings()
        };
        let mut documents = Documents::open(settings, None).unwrap();
        assert!(read_all(&mut documents).is_empty());
        documents.commit();
        drop.write("new.xml", "x", 20);
        assert_eq!(read_all(&mut documents), ["new.xml"]);
    }
}
