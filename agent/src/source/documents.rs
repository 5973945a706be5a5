//! The new files of a folder, whole, oldest first, each once.
//!
//! A file is complete when it has not changed for `settle_ms`; one that is written elsewhere and renamed in is taken
//! as soon as its content is that old. A file that was read is known by its name, size, time and inode until its name
//! vanishes from the folder, so one that comes with an old time is read as well.
//! Across a restart the newest `remembered_max` are known; a file with an older time than these that comes while the
//! agent does not run is counted and left, so nothing is read twice.
//! With more than `names_max` names some are not looked at, and the source is not up: they are read when others are
//! removed, or counted when nobody can tell any more whether they were read.
//! A file whose name ends with `.gz` is read decompressed, under its name without that ending; its size is that of its
//! content. One that is damaged is counted and left.
//! Links are never followed. Too large files are counted and left.
//! One that cannot be looked at or opened is counted, and the source is not up, as long as it lies there: it is tried
//! again, and the others are read.

mod memory;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::{DirEntry, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tillwatch_border::{Document, Fault};
use tracing::warn;

use super::gzip::{is_damage, is_gzip, unzip};
use super::progress::ProgressError;
use super::{NAMES_MAX, NamePattern, Start, machine_now_ms, regular_file};
use crate::platform::{FileId, changed_ms, file_id, open_document};
use crate::rate::PerMinute;
use memory::{Changes, Mark, Memory};

/// The default of [`DocumentsSettings::settle_ms`].
pub const SETTLE_MS: u64 = 2_000;
/// The default of [`DocumentsSettings::document_bytes_max`].
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The default of [`DocumentsSettings::remembered_max`]: 16 bytes each, in every checkpoint.
pub const REMEMBERED_MAX: usize = 4_096;

/// What is read and within which bounds.
#[derive(Clone, Debug)]
pub struct DocumentsSettings {
    pub folder: PathBuf,
    pub pattern: NamePattern,
    pub settle_ms: u64,
    pub document_bytes_max: u64,
    pub remembered_max: usize,
    /// Names that one listing looks at.
    pub names_max: usize,
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
            names_max: NAMES_MAX,
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
    /// What the last listing found that was not read before.
    unread: Changes,
    waiting: VecDeque<Candidate>,
    is_listed: bool,
    /// When a file whose time lies in the future was first seen as it is now.
    unsettled: HashMap<Mark, u64>,
    /// Are there and could not be opened when they were last tried.
    unreadable: BTreeSet<Mark>,
    /// Names of the last listing of which nothing can be known.
    unseen: u64,
    said_unreadable: PerMinute,
    said_unseen: PerMinute,
    said_cut: PerMinute,
    look_at: fn(&DirEntry) -> io::Result<Option<Metadata>>,
    open_file: fn(&Path) -> io::Result<File>,
    /// The folder as it was when it last held files.
    home: Option<FileId>,
    up: bool,
    refused: u64,
    /// Too large or damaged, since the last commit.
    unusable: u64,
    late: u64,
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
            unread: Changes::new(),
            waiting: VecDeque::new(),
            is_listed: false,
            unsettled: HashMap::new(),
            unreadable: BTreeSet::new(),
            unseen: 0,
            said_unreadable: PerMinute::new(1),
            said_unseen: PerMinute::new(1),
            said_cut: PerMinute::new(1),
            look_at: regular_file,
            open_file: open_document,
            home: None,
            up: false,
            refused: 0,
            unusable: 0,
            late: 0,
        })
    }

    /// The next complete file; none when all are read.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the folder is missing or cannot be read.
    pub fn read(&mut self) -> Result<Option<Document>, Fault> {
        if self.waiting.is_empty() && !self.is_listed {
            let listed = self.list(machine_now_ms());
            self.up = listed.as_ref().is_ok_and(|is_whole| *is_whole);
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

    /// Whether the last listing found the folder and saw all of it, and all files that were tried could be opened. An
    /// empty folder in the place of one that held files is none: its share is not mounted.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up && self.unreadable.is_empty()
    }

    /// Files that are there and cannot be looked at or opened.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.len() as u64 + self.unseen
    }

    /// Files that were left because they are larger than `document_bytes_max` or damaged, or came too late to be told from those
    /// that were read before a restart.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused + self.late
    }

    /// What was read counts as used.
    pub fn commit(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.unread.retain(|mark, _changed_ms| !taken.contains(mark));
        self.memory.remember(taken, self.settings.remembered_max);
        self.refused += std::mem::take(&mut self.unusable);
        self.is_listed = false;
    }

    /// What was read since the last commit comes again.
    pub fn rollback(&mut self) {
        self.taken.clear();
        self.unusable = 0;
        self.waiting.clear();
        self.is_listed = false;
    }

    /// The memory that a commit would make permanent.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        self.memory
            .encode(&self.taken, &self.unread, self.settings.remembered_max)
    }

    /// Whether all of the folder was looked at, and it is no empty one in the place of another.
    fn list(&mut self, now_ms: u64) -> io::Result<bool> {
        let (mut present, mut fresh) = (Changes::new(), Vec::new());
        let mut entries = std::fs::read_dir(&self.settings.folder)?;
        self.unseen = 0;
        for entry in entries.by_ref().take(self.settings.names_max) {
            let candidate = self.candidate(&entry?);
            let Some((candidate, changed_ms)) = candidate.unwrap_or_else(|error| self.on_unseen(&error, now_ms)) else {
                continue;
            };
            present.insert(candidate.mark, changed_ms);
            if !self.memory.has(candidate.mark) && !self.taken.contains(&candidate.mark) {
                fresh.push(candidate);
            }
        }
        let is_cut = entries.next().is_some();
        let is_whole = !is_cut && self.unseen == 0;
        self.on_listed(&present, is_whole);
        if is_cut {
            self.say_cut(now_ms);
        }
        let home = Some(file_id(&std::fs::metadata(&self.settings.folder)?));
        // A folder that is empty for a moment has forgotten nothing.
        if !present.is_empty() {
            self.home = home;
            let times = fresh.iter().map(|candidate| (candidate.mark, present[&candidate.mark]));
            self.unread = times.collect();
        }
        self.is_listed = true;
        if std::mem::replace(&mut self.settings.start, Start::Live) == Start::End && self.memory.is_empty() {
            self.taken.extend(fresh.drain(..).map(|candidate| candidate.mark));
        }
        fresh.retain(|candidate| self.is_settled(candidate, now_ms));
        fresh.sort_by(|a, b| (a.mark.modified_ms, &a.name).cmp(&(b.mark.modified_ms, &b.name)));
        self.waiting = fresh.into();
        let is_there = self.home.is_none() || self.home == home;
        Ok(is_whole && is_there)
    }

    fn on_listed(&mut self, present: &Changes, is_whole: bool) {
        // Also those beyond the limit are tried again.
        self.unreadable.retain(|mark| present.contains_key(mark));
        self.unsettled.retain(|mark, _since_ms| present.contains_key(mark));
        if !is_whole {
            self.memory.on_listed_in_part(present, self.settings.names_max);
            return;
        }
        let folder = self.settings.folder.display();
        let late = self.memory.on_listed(present);
        self.late += late;
        if late > 0 {
            warn!(%folder, late, "documents came too late and are left");
        }
    }

    fn say_cut(&mut self, now_ms: u64) {
        if self.said_cut.admits(now_ms) {
            let folder = self.settings.folder.display();
            warn!(%folder, names_max = self.settings.names_max, "a folder holds more files than are looked at");
        }
    }

    fn on_unseen<T>(&mut self, error: &io::Error, now_ms: u64) -> Option<T> {
        self.unseen += 1;
        if self.said_unseen.admits(now_ms) {
            let folder = self.settings.folder.display();
            warn!(%folder, %error, "a file of a folder cannot be looked at");
        }
        None
    }

    /// With the time of its last change. None for what does not match, is no regular file, or vanished meanwhile.
    fn candidate(&self, entry: &DirEntry) -> io::Result<Option<(Candidate, u64)>> {
        let name = entry.file_name();
        if !self.settings.pattern.matches(&name.to_string_lossy()) {
            return Ok(None);
        }
        let candidate = (self.look_at)(entry)?.map(|metadata| {
            let mark = Mark::of(name.as_encoded_bytes(), &metadata);
            (Candidate { name, mark }, changed_ms(&metadata))
        });
        Ok(candidate)
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
        if is_new && self.said_unreadable.admits(machine_now_ms()) {
            let folder = self.settings.folder.display();
            warn!(%folder, %error, "a document cannot be opened");
        }
    }

    /// Reads a file, unless it changed since it was listed or is too large.
    fn take(&mut self, candidate: &Candidate) -> io::Result<Option<Document>> {
        let file = (self.open_file)(&self.settings.folder.join(&candidate.name))?;
        self.unreadable.remove(&candidate.mark);
        let metadata = file.metadata()?;
        if Mark::of(candidate.name.as_encoded_bytes(), &metadata) != candidate.mark {
            return Ok(None);
        }
        let name = candidate.name.to_string_lossy().into_owned();
        let Some(bytes) = self.content(file, &metadata, is_gzip(&name))? else {
            self.unusable += 1;
            self.taken.insert(candidate.mark);
            return Ok(None);
        };
        if !is_gzip(&name) && bytes.len() as u64 != metadata.len() {
            return Ok(None);
        }
        self.taken.insert(candidate.mark);
        Ok(Some(Document {
            name: name.strip_suffix(".gz").map_or(name.clone(), str::to_owned),
            modified_ms: candidate.mark.modified_ms,
            bytes,
        }))
    }

    /// None when it is too large or damaged.
    fn content(&self, file: File, metadata: &Metadata, is_gzip: bool) -> io::Result<Option<Vec<u8>>> {
        let bytes_max = self.settings.document_bytes_max;
        if metadata.len() > bytes_max {
            return Ok(None);
        }
        if is_gzip {
            return unzip(file, bytes_max).or_else(|error| if is_damage(&error) { Ok(None) } else { Err(error) });
        }
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

#[derive(Debug)]
struct Candidate {
    name: OsString,
    mark: Mark,
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

        /// So late that the system's own time of its change is behind that of another file.
        fn write_later(&self, name: &str, modified_s: u64, other: &str) {
            let changed = |name: &str| changed_ms(&self.folder.path().join(name).metadata().unwrap());
            while self.folder.path().join(name).metadata().is_err() || changed(name) <= changed(other) {
                self.write(name, "x", modified_s);
            }
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
        for _ in 0..2 {
            documents.rollback();
            assert_eq!(read_all(&mut documents), ["small.xml"]);
        }
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
        assert_eq!(documents.refused(), 1, "once, however often it was read");
    }

    /// A share of the store's network was away for a moment: all its sales were read again when it came back.
    #[test]
    fn files_of_a_folder_that_is_empty_for_a_moment_come_once() {
        let place = tempfile::tempdir().unwrap();
        let [folder, away] = ["sales", "away"].map(|name| place.path().join(name));
        std::fs::create_dir(&folder).unwrap();
        for number in 0..5 {
            std::fs::write(folder.join(format!("{number}.xml")), "x").unwrap();
        }
        let settings = DocumentsSettings {
            settle_ms: 0,
            remembered_max: 2,
            ..DocumentsSettings::new(folder.clone(), NamePattern::new("*.xml"))
        };
        let mut documents = Documents::open(settings.clone(), None).unwrap();
        assert_eq!(read_all(&mut documents).len(), 5);
        documents.commit();
        let unmount = || {
            std::fs::rename(&folder, &away).unwrap();
            std::fs::create_dir(&folder).unwrap();
        };
        let mount = || {
            std::fs::remove_dir(&folder).unwrap();
            std::fs::rename(&away, &folder).unwrap();
        };
        unmount();
        let progress = read_through(&mut documents);
        assert!(!documents.is_up());
        mount();
        documents.commit();
        assert_eq!((read_all(&mut documents), documents.is_up()), (vec![], true));
        // The same across a restart without the share.
        unmount();
        let mut again = Documents::open(settings, Some(&progress)).unwrap();
        read_through(&mut again);
        mount();
        again.commit();
        assert_eq!(read_all(&mut again), [""; 0]);
        std::fs::write(folder.join("new.xml"), "x").unwrap();
        again.commit();
        assert_eq!(read_all(&mut again), ["new.xml"]);
        assert_eq!(again.refused(), 0);
    }

    /// One entry of a share that cannot be looked at kept all files of its folder from being read.
    #[test]
    fn a_file_that_cannot_be_looked_at_costs_only_itself_and_is_never_read_twice() {
        let drop = Drop::new();
        for name in ["a.xml", "b.xml"] {
            drop.write(name, "x", 10);
        }
        let look_at: fn(&DirEntry) -> io::Result<Option<Metadata>> = |entry| match entry.file_name() == "a.xml" {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => regular_file(entry),
        };
        let mut documents = drop.open(None);
        documents.look_at = look_at;
        assert_eq!(read_all(&mut documents), ["b.xml"]);
        assert_eq!((documents.is_up(), documents.unreadable()), (false, 1));
        for (look_at, expected) in [
            (regular_file as fn(&DirEntry) -> _, &["a.xml"][..]),
            (look_at, &[]),
            (regular_file, &[]),
        ] {
            documents.commit();
            documents.look_at = look_at;
            assert_eq!(read_all(&mut documents), expected);
        }
        assert_eq!((documents.is_up(), documents.unreadable()), (true, 0));
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
    fn compressed_documents_come_decompressed_within_the_same_limit() {
        let drop = Drop::new();
        let compressed = |name: &str, content: &[u8], keep: usize| {
            let bytes = crate::source::gzip::zip(content);
            std::fs::write(drop.folder.path().join(name), &bytes[..bytes.len() - keep]).unwrap();
            let file = std::fs::File::options()
                .write(true)
                .open(drop.folder.path().join(name))
                .unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(10)).unwrap();
        };
        compressed("a.xml.gz", b"<a/>", 0);
        compressed("bomb.xml.gz", &[b'x'; 100_000], 0);
        compressed("cut.xml.gz", b"<a/>", 4);
        drop.write("no.xml.gz", "<a/>", 10);
        drop.write("plain.xml", "<b/>", 20);
        let settings = DocumentsSettings {
            pattern: NamePattern::new("*.xml*"),
            document_bytes_max: 1_000,
            ..drop.settings()
        };
        let mut documents = Documents::open(settings, None).unwrap();
        let read: Vec<(String, Vec<u8>)> = std::iter::from_fn(|| documents.read().unwrap())
            .map(|document| (document.name, document.bytes))
            .collect();
        let expected = [
            ("a.xml".to_owned(), b"<a/>".to_vec()),
            ("plain.xml".to_owned(), b"<b/>".to_vec()),
        ];
        assert_eq!(read, expected);
        for _ in 0..2 {
            documents.commit();
            assert_eq!(documents.refused(), 3);
            assert!(read_all(&mut documents).is_empty());
        }
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
        assert_eq!(documents.progress().len(), 1 + 8 + 16 * (4 + 1));
        assert!(
            read_all(&mut documents).is_empty(),
            "what is forgotten is not read again"
        );
        for number in 0..10 {
            std::fs::remove_file(drop.folder.path().join(format!("{number}.xml"))).unwrap();
        }
        drop.write("new.xml", "x", 30);
        documents.commit();
        assert_eq!(read_all(&mut documents), ["new.xml"]);
        documents.commit();
        assert_eq!(documents.memory.len(), 1);
    }

    fn small(drop: &Drop) -> DocumentsSettings {
        for number in 0..5 {
            drop.write(&format!("{number}.xml"), "x", 10 + number);
        }
        DocumentsSettings {
            remembered_max: 2,
            ..drop.settings()
        }
    }

    /// A till was offline for a day: its files came when newer ones had pushed theirs out of the memory.
    #[test]
    fn a_file_that_comes_late_is_read_once_while_the_agent_runs() {
        let drop = Drop::new();
        let mut documents = Documents::open(small(&drop), None).unwrap();
        assert_eq!(read_all(&mut documents).len(), 5);
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
        drop.write("late.xml", "x", 11);
        documents.commit();
        assert_eq!(read_all(&mut documents), ["late.xml"]);
        documents.rollback();
        assert_eq!(read_all(&mut documents), ["late.xml"]);
        for _ in 0..2 {
            documents.commit();
            assert!(read_all(&mut documents).is_empty());
        }
        assert_eq!(documents.refused(), 0);
    }

    /// Reads all and settles the memory, then says where a restart would begin.
    fn read_through(documents: &mut Documents) -> Vec<u8> {
        read_all(documents);
        documents.commit();
        read_all(documents);
        documents.progress()
    }

    #[test]
    fn a_file_that_comes_late_while_the_agent_does_not_run_is_counted_once_and_nothing_is_read_twice() {
        let drop = Drop::new();
        let settings = small(&drop);
        let progress = read_through(&mut Documents::open(settings.clone(), None).unwrap());
        drop.write_later("late.xml", 11, "4.xml");
        drop.write("new.xml", "x", 30);
        let mut again = Documents::open(settings.clone(), Some(&progress)).unwrap();
        assert_eq!(read_all(&mut again), ["new.xml"]);
        let progress = read_through(&mut again);
        assert_eq!(again.refused(), 1);
        let mut last = Documents::open(settings, Some(&progress)).unwrap();
        assert!(read_all(&mut last).is_empty());
        assert_eq!(last.refused(), 0);
    }

    /// Its time was already passed over when the agent was restarted.
    #[test]
    fn a_file_that_waited_to_be_opened_until_a_restart_is_counted() {
        let drop = Drop::new();
        let settings = small(&drop);
        let mut documents = Documents::open(settings.clone(), None).unwrap();
        documents.open_file = |path| match path.ends_with("1.xml") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => open_document(path),
        };
        drop.write_later("1.xml", 11, "4.xml");
        let progress = read_through(&mut documents);
        let mut again = Documents::open(settings, Some(&progress)).unwrap();
        assert!(read_all(&mut again).is_empty());
        assert_eq!(again.refused(), 1);
        documents.open_file = open_document;
        documents.commit();
        assert_eq!(read_all(&mut documents), ["1.xml"], "without the restart it is read");
    }

    #[test]
    fn a_folder_with_more_names_than_are_looked_at_is_not_up() {
        let drop = Drop::new();
        let settings = DocumentsSettings {
            names_max: 4,
            ..small(&drop)
        };
        let mut documents = Documents::open(settings, None).unwrap();
        let read = read_all(&mut documents);
        assert_eq!((read.len(), documents.is_up()), (4, false));
        documents.commit();
        assert!(read_all(&mut documents).is_empty());
        std::fs::remove_file(drop.folder.path().join(&read[0])).unwrap();
        documents.commit();
        assert_eq!((read_all(&mut documents).len(), documents.is_up()), (1, true));
    }

    fn crowded(drop: &Drop, names_max: usize) -> DocumentsSettings {
        for number in 0..10 {
            drop.write(&format!("{number}.xml"), "x", 10 + number);
        }
        DocumentsSettings {
            remembered_max: 2,
            names_max,
            ..drop.settings()
        }
    }

    /// Reads, and removes what was read, until nothing more comes.
    fn read_and_remove(drop: &Drop, documents: &mut Documents) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let read = read_all(documents);
            if read.is_empty() {
                return all;
            }
            for name in &read {
                std::fs::remove_file(drop.folder.path().join(name)).unwrap();
            }
            documents.commit();
            all.extend(read);
        }
    }

    /// They had older times than those that were read, and counted as read without ever being looked at.
    #[test]
    fn files_beyond_the_limit_of_names_are_read_when_others_are_removed() {
        let drop = Drop::new();
        let mut documents = Documents::open(crowded(&drop, 4), None).unwrap();
        let mut read = read_and_remove(&drop, &mut documents);
        read.sort();
        let all: Vec<String> = (0..10).map(|number| format!("{number}.xml")).collect();
        assert_eq!((read, documents.refused()), (all, 0));
        assert!(documents.is_up());
    }

    #[test]
    fn files_beyond_the_limit_of_names_that_may_have_been_read_before_a_restart_are_counted() {
        let drop = Drop::new();
        let settings = crowded(&drop, 4);
        let progress = read_through(&mut Documents::open(settings.clone(), None).unwrap());
        let settings = DocumentsSettings {
            names_max: 100,
            ..settings
        };
        let mut again = Documents::open(settings, Some(&progress)).unwrap();
        let read = read_all(&mut again).len() as u64;
        assert_eq!(read + again.refused(), 10 - 2, "but for the two that are known by name");
        assert!(again.refused() >= 2);
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
