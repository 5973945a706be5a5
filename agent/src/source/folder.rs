//! What lies in a folder now: how many files, how large, how old, and the first few by name and age.
//!
//! It never opens a file and never looks into folders below.

use std::io;
use std::path::PathBuf;

use tillwatch_sandbox::{Entry, Fault, Listing};

use super::{NamePattern, modified_ms};

/// Names that one listing looks at.
const NAMES_MAX: usize = 100_000;
/// The default of [`Folder::entries_max`].
pub const ENTRIES_MAX: usize = 1_000;

/// A granted folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    pattern: NamePattern,
    /// Entries that a listing carries, oldest first; the counts are of all.
    entries_max: usize,
    up: bool,
}

impl Folder {
    #[must_use]
    pub fn new(path: PathBuf, pattern: NamePattern, entries_max: usize) -> Self {
        Self {
            path,
            pattern,
            entries_max,
            up: false,
        }
    }

    /// Lists the folder.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when it is missing or cannot be read.
    pub fn list(&mut self) -> Result<Listing, Fault> {
        let listing = self.scan();
        self.up = listing.is_ok();
        listing.map_err(|_unreadable| Fault::Unavailable)
    }

    /// Whether the last call found the folder.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    fn scan(&self) -> io::Result<Listing> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.path)?.take(NAMES_MAX) {
            entries.extend(self.entry(&entry?));
        }
        entries.sort_by(|a, b| (a.modified_ms, &a.name).cmp(&(b.modified_ms, &b.name)));
        let listing = Listing {
            count: entries.len() as u64,
            bytes: entries.iter().map(|entry| entry.size).sum(),
            oldest_modified_ms: entries.first().map(|entry| entry.modified_ms),
            entries: Vec::new(),
        };
        entries.truncate(self.entries_max);
        Ok(Listing { entries, ..listing })
    }

    /// None for what does not match, is no regular file, or vanished meanwhile.
    fn entry(&self, entry: &std::fs::DirEntry) -> Option<Entry> {
        let name = entry.file_name().into_string().ok()?;
        if !self.pattern.matches(&name) {
            return None;
        }
        let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Entry {
            name,
            size: metadata.len(),
            modified_ms: modified_ms(&metadata),
        })
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
    fn a_missing_folder_is_a_state_of_the_source() {
        let mut source = Folder::new(PathBuf::from("/nonexistent/folder"), NamePattern::new("*"), 2);
        assert_eq!(source.list().unwrap_err(), Fault::Unavailable);
        assert!(!source.is_up());
    }
}
