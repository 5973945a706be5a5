//! What lies in a folder now: how many files, how large, how old, and the first few by name and age.
//!
//! It never opens a file and never looks into folders below.
//! With more than [`NAMES_MAX`] names some are not looked at, and the source is not up. One that cannot be looked at is
//! counted, and the source is not up.

use std::fs::{DirEntry, Metadata};
use std::io;
use std::path::PathBuf;

use tillwatch_border::{Entry, Fault, Listing};
use tracing::warn;

use super::{NAMES_MAX, NamePattern, machine_now_ms, modified_ms, regular_file};
use crate::rate::PerMinute;

/// The default of [`Folder::entries_max`].
pub const ENTRIES_MAX: usize = 1_000;

/// A granted folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    pattern: NamePattern,
    /// Entries that a listing carries, oldest first; the counts are of all.
    entries_max: usize,
    names_max: usize,
    said_cut: PerMinute,
    said_unseen: PerMinute,
    look_at: fn(&DirEntry) -> io::Result<Option<Metadata>>,
    /// Names of the last listing of which nothing can be known.
    unseen: u64,
    up: bool,
}

impl Folder {
    #[must_use]
    pub fn new(path: PathBuf, pattern: NamePattern, entries_max: usize) -> Self {
        Self {
            path,
            pattern,
            entries_max,
            names_max: NAMES_MAX,
            said_cut: PerMinute::new(1),
            said_unseen: PerMinute::new(1),
            look_at: regular_file,
            unseen: 0,
            up: false,
        }
    }

    /// Lists the folder.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when it is missing or cannot be read.
    pub fn list(&mut self) -> Result<Listing, Fault> {
        let scanned = self.scan();
        self.up = matches!(scanned, Ok((_, true))) && self.unseen == 0;
        if matches!(scanned, Ok((_, false))) && self.said_cut.admits(machine_now_ms()) {
            let folder = self.path.display();
            warn!(%folder, names_max = self.names_max, "a folder holds more files than are looked at");
        }
        scanned
            .map(|(listing, _is_whole)| listing)
            .map_err(|_unreadable| Fault::Unavailable)
    }

    /// Whether the last call found the folder and saw all of it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Files of the last listing that are there and cannot be looked at.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unseen
    }

    /// What was found, and whether these are all names.
    fn scan(&mut self) -> io::Result<(Listing, bool)> {
        let mut entries = Vec::new();
        let mut names = std::fs::read_dir(&self.path)?;
        self.unseen = 0;
        for name in names.by_ref().take(self.names_max) {
            match self.entry(&name?) {
                Ok(entry) => entries.extend(entry),
                Err(error) => self.on_unseen(&error),
            }
        }
        entries.sort_by(|a, b| (a.modified_ms, &a.name).cmp(&(b.modified_ms, &b.name)));
        let listing = Listing {
            count: entries.len() as u64,
            bytes: entries.iter().map(|entry| entry.size).sum(),
            oldest_modified_ms: entries.first().map(|entry| entry.modified_ms),
            entries: Vec::new(),
        };
        entries.truncate(self.entries_max);
        Ok((Listing { entries, ..listing }, names.next().is_none()))
    }

    fn on_unseen(&mut self, error: &io::Error) {
        self.unseen += 1;
        if self.said_unseen.admits(machine_now_ms()) {
            let folder = self.path.display();
            warn!(%folder, %error, "a file of a folder cannot be looked at");
        }
    }

    /// None for what does not match, is no regular file, or vanished meanwhile.
    fn entry(&self, entry: &DirEntry) -> io::Result<Option<Entry>> {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !self.pattern.matches(&name) {
            return Ok(None);
        }
        let found = (self.look_at)(entry)?.map(|metadata| Entry {
            name,
            size: metadata.len(),
            modified_ms: modified_ms(&metadata),
        });
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_counts_all_matching_files_and_names_the_oldest_few() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age_s) in [("b.msg", 10), ("a.msg", 20), ("c.msg", 5), ("x.tmp", 99)] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 - age_s))
                .unwrap();
        }
        std::fs::create_dir(folder.path().join("d.msg")).unwrap();
        let mut source = Folder::new(folder.path().to_owned(), NamePattern::new("*.msg"), 2);
        let listing = source.list().unwrap();
        assert_eq!(
            (listing.count, listing.bytes, listing.oldest_modified_ms),
            (3, 300, Some(980_000))
        );
        let names: Vec<&str> = listing.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a.msg", "b.msg"]);
        assert!(source.is_up());
    }

    #[test]
    fn a_folder_with_more_names_than_are_looked_at_is_not_up() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let mut source = Folder::new(folder.path().to_owned(), NamePattern::new("*"), 2);
        for (names_max, count, is_up) in [(2, 2, false), (3, 3, true)] {
            source.names_max = names_max;
            assert_eq!((source.list().unwrap().count, source.is_up()), (count, is_up));
        }
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let mut source = Folder::new(folder.path().to_owned(), NamePattern::new("*"), 2);
        source.look_at = |entry| match entry.file_name() == "a" {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => regular_file(entry),
        };
        assert_eq!(source.list().unwrap().count, 1);
        assert_eq!((source.is_up(), source.unreadable()), (false, 1));
        source.look_at = regular_file;
        assert_eq!(source.list().unwrap().count, 2);
        assert_eq!((source.is_up(), source.unreadable()), (true, 0));
    }

    #[test]
    fn a_missing_folder_is_a_state_of_the_source() {
        let mut source = Folder::new(PathBuf::from("/nonexistent/folder"), NamePattern::new("*"), 2);
        assert_eq!(source.list().unwrap_err(), Fault::Unavailable);
        assert!(!source.is_up());
    }
}
