//! What this store has accepted before: the highest sequence of each plugin and of the key list, the file of each, and
//! the latest day.
//!
//! In: names, sequences and the SHA-256 of files. Out: a small file in the state folder, replaced as a whole and never lowered.
//! It is what a copied old bundle, or an old key list, meets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::whole::read_bounded;

/// In the state folder.
pub const FILE_NAME: &str = "accepted.toml";
/// A plugin that nobody uses any more keeps its place: removing and installing again must not lower a sequence.
const PLUGINS_MAX: usize = 1_000;
const BYTES_MAX: u64 = 256 << 10;

/// The highest sequences that were accepted.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    accepted: Accepted,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Accepted {
    /// Of the key list.
    keys: u64,
    /// The latest day on which this store started: a clock that is set back does not undo an expiry.
    latest: Option<Date>,
    plugins: BTreeMap<String, u64>,
    /// Of the bundle with that sequence; earlier agents kept none.
    sha256: BTreeMap<String, String>,
}

/// A bundle that is about to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub plugin: String,
    pub sequence: u64,
    /// Of the file, in hexadecimal digits.
    pub sha256: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{path} cannot be {what}: {error}")]
    Io {
        path: PathBuf,
        what: &'static str,
        error: io::Error,
    },
    #[error(
        "{path} is damaged: {error}\nhint: it keeps old plugins out; restore it, or delete it if every installed bundle is known to be the newest"
    )]
    Damaged { path: PathBuf, error: String },
    #[error("{path} remembers {PLUGINS_MAX} plugins already")]
    Full { path: PathBuf },
}

impl Ledger {
    /// Reads what was accepted; a missing file is an empty one.
    ///
    /// # Errors
    /// When it cannot be read: nothing is accepted on a guess.
    pub fn open(state_dir: &Path) -> Result<Self, LedgerError> {
        let path = state_dir.join(FILE_NAME);
        let text = match read_bounded(&path, BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let what = "read";
                return Err(LedgerError::Io { path, what, error });
            }
        };
        let accepted = toml::from_str(&text).map_err(|error| LedgerError::Damaged {
            path: path.clone(),
            error: error.message().to_owned(),
        })?;
        Ok(Self { path, accepted })
    }

    /// Of the key list, 0 before the first.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.accepted.keys
    }

    /// Of a plugin, if one was accepted before.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<u64> {
        self.accepted.plugins.get(name).copied()
    }

    /// Of the bundle that was accepted with that sequence, where it is known.
    #[must_use]
    pub fn sha256(&self, name: &str) -> Option<&str> {
        self.accepted.sha256.get(name).map(String::as_str)
    }

    /// Today, or the latest day that was remembered when the clock says an earlier one.
    #[must_use]
    pub fn no_earlier_than_before(&self, today: Date) -> Date {
        self.accepted.latest.map_or(today, |latest| latest.max(today))
    }

    /// Remembers what is about to run, and the day; lower sequences and earlier days change nothing.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn accept(&mut self, keys: u64, bundles: &[Taken], today: Date) -> Result<(), LedgerError> {
        let mut accepted = self.accepted.clone();
        accepted.latest = Some(self.no_earlier_than_before(today));
        accepted.keys = accepted.keys.max(keys);
        for bundle in bundles {
            let highest = accepted.plugins.entry(bundle.plugin.clone()).or_default();
            if bundle.sequence >= *highest {
                *highest = bundle.sequence;
                accepted.sha256.insert(bundle.plugin.clone(), bundle.sha256.clone());
            }
        }
        if accepted == self.accepted {
            return Ok(());
        }
        if accepted.plugins.len() > PLUGINS_MAX {
            return Err(LedgerError::Full {
                path: self.path.clone(),
            });
        }
        self.write(&accepted).map_err(|error| LedgerError::Io {
            path: self.path.clone(),
            what: "written",
            error,
        })?;
        self.accepted = accepted;
        Ok(())
    }

    /// Beside it, then over it: after a power cut it is the old one or the new one.
    fn write(&self, accepted: &Accepted) -> io::Result<()> {
        let text = toml::to_string(accepted).map_err(io::Error::other)?;
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_is_known_to_the_next_start_and_never_lowered() {
        let state = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(state.path()).unwrap();
        assert_eq!((ledger.keys(), ledger.plugin("a")), (0, None));
        ledger.accept(3, &[taken("a", 7, "aa")], day("2026-11-23")).unwrap();
        let later = [taken("a", 5, "bb"), taken("b", 1, "cc")];
        ledger.accept(2, &later, day("2026-11-24")).unwrap();
        let ledger = Ledger::open(state.path()).unwrap();
        assert_eq!(ledger.keys(), 3);
        assert_eq!((ledger.plugin("a"), ledger.plugin("b")), (Some(7), Some(1)));
        assert_eq!((ledger.sha256("a"), ledger.sha256("b")), (Some("aa"), Some("cc")));
    }

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_take_the_day_back() {
        let state = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(state.path()).unwrap();
        assert_eq!(ledger.no_earlier_than_before(day("2026-01-01")), day("2026-01-01"));
        ledger.accept(1, &[], day("2027-06-01")).unwrap();
        ledger.accept(1, &[], day("2026-01-01")).unwrap();
        let ledger = Ledger::open(state.path()).unwrap();
        assert_eq!(ledger.no_earlier_than_before(day("2026-01-01")), day("2027-06-01"));
        assert_eq!(ledger.no_earlier_than_before(day("2027-06-02")), day("2027-06-02"));
    }

    fn taken(plugin: &str, sequence: u64, sha256: &str) -> Taken {
        let (plugin, sha256) = (plugin.to_owned(), sha256.to_owned());
        Taken {
            plugin,
            sequence,
            sha256,
        }
    }

    #[test]
    fn a_file_of_an_agent_that_kept_no_hashes_is_read_and_completed() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(FILE_NAME), "keys = 1\n[plugins]\na = 7\n").unwrap();
        let mut ledger = Ledger::open(state.path()).unwrap();
        assert_eq!((ledger.plugin("a"), ledger.sha256("a")), (Some(7), None));
        ledger.accept(1, &[taken("a", 7, "aa")], day("2026-11-23")).unwrap();
        assert_eq!(Ledger::open(state.path()).unwrap().sha256("a"), Some("aa"));
    }

    #[test]
    fn a_damaged_file_accepts_nothing() {
        let state = tempfile::tempdir().unwrap();
        for text in ["keys = \"x\"", "latest = \"yesterday\""] {
            std::fs::write(state.path().join(FILE_NAME), text).unwrap();
            let error = Ledger::open(state.path()).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }
}
