//! The files beside a log, and which of them are its earlier parts, in what order.
//!
//! `log.3.gz` < `log.2.gz` < `log.1` < `log-20260107.gz` < `log-20260108` < `log`; what has no number is ordered by time.

use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::platform::{FileId, changed_ms, file_id};
use crate::rate::PerMinute;
use crate::source::gzip::is_gzip;
use crate::source::{machine_now_ms, modified_ms};

/// Names of a folder that a search for a rotated file looks at.
const SIBLINGS_MAX: usize = 10_000;
const SECOND_MS: u64 = 1_000;

/// A file beside the log, perhaps one of its earlier parts.
#[derive(Debug)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) modified_ms: u64,
    /// The end of that time: a compressed file may have whole seconds only.
    pub(super) modified_until_ms: u64,
    /// Of content, name or rights.
    pub(super) changed_ms: u64,
    pub(super) is_gzip: bool,
    /// Its place among the parts of the log, oldest first; none when its name is not the log's with an ending.
    pub(super) rank: Option<Rank>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Numbered { newness: i64 },
    Dated { modified_ms: u64, name: String },
    Live,
}

impl Sibling {
    fn of(path: &Path, live: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let live_name = live.file_name()?.to_str()?;
        // A link is followed for the log itself only.
        let metadata = if name == live_name {
            std::fs::metadata(live)
        } else {
            std::fs::symlink_metadata(path)
        }
        .ok()?;
        if !metadata.is_file() {
            return None;
        }
        let is_live = name == live_name;
        let is_gzip = is_gzip(name);
        let modified_ms = modified_ms(&metadata);
        let is_rounded = is_gzip && modified_ms.is_multiple_of(SECOND_MS);
        let rank = name
            .strip_prefix(live_name)
            .and_then(|ending| rank(ending, modified_ms));
        let path = if is_live { live } else { path };
        Some(Self {
            path: path.to_owned(),
            id: file_id(&metadata),
            modified_ms,
            modified_until_ms: modified_ms + if is_rounded { SECOND_MS - 1 } else { 0 },
            changed_ms: changed_ms(&metadata),
            is_gzip,
            rank,
        })
    }

    /// Whether it was last written at this time.
    pub(super) fn is_of(&self, modified_ms: u64) -> bool {
        (self.modified_ms..=self.modified_until_ms).contains(&modified_ms)
    }

    pub(super) fn is_live(&self) -> bool {
        self.rank == Some(Rank::Live)
    }
}

fn rank(ending: &str, modified_ms: u64) -> Option<Rank> {
    if ending.is_empty() {
        return Some(Rank::Live);
    }
    let dated = |name: &str| Rank::Dated {
        modified_ms,
        name: name.to_owned(),
    };
    if ending == ".gz" {
        return Some(dated(""));
    }
    let ending = ending.strip_suffix(".gz").unwrap_or(ending);
    let rest = ending.strip_prefix(['.', '-', '_'])?;
    if rest.len() <= 4
        && let Ok(number) = rest.parse::<i64>()
    {
        return Some(Rank::Numbered { newness: -number });
    }
    is_date(rest).then(|| dated(ending))
}

fn is_date(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || b"-_.T:".contains(&byte))
}

/// The name that a log had before its rotation gave it this one.
pub(in crate::source) fn unrotated(name: &str) -> Option<&str> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let is_ending = |rest: &str| rest.bytes().any(|byte| byte.is_ascii_digit()) && is_date(rest);
    // The longest ending that rotations make: `-2026-01-08` as well as `.1`.
    let base = plain
        .match_indices(['.', '-', '_'])
        .find(|(at, _separator)| is_ending(&plain[at + 1..]))
        .map(|(at, _separator)| &plain[..at]);
    base.or((plain != name).then_some(plain))
        .filter(|base| !base.is_empty())
}

/// What lies beside a log, and how often that too much is there was said.
#[derive(Debug)]
pub(super) struct Siblings {
    said_cut: PerMinute,
}

impl Siblings {
    pub(super) fn new() -> Self {
        Self {
            said_cut: PerMinute::new(1),
        }
    }

    /// The rotated files that carry the log's name, oldest first, then the log itself.
    pub(super) fn chain(&mut self, live: &Path) -> io::Result<Vec<Sibling>> {
        let mut chain = self.all(live)?;
        chain.retain(|sibling| sibling.rank.is_some());
        // Plain before compressed: while a part is compressed both are there, and only the plain one is whole.
        chain.sort_by(|a, b| (&a.rank, a.is_gzip, &a.path).cmp(&(&b.rank, b.is_gzip, &b.path)));
        let plain: Vec<PathBuf> = chain
            .iter()
            .filter(|part| !part.is_gzip)
            .map(|part| part.path.clone())
            .collect();
        chain.retain(|part| !part.is_gzip || !plain.contains(&part.path.with_extension("")));
        Ok(chain)
    }

    pub(super) fn all(&mut self, live: &Path) -> io::Result<Vec<Sibling>> {
        let folder = folder_of(live);
        let mut entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let siblings = entries
            .by_ref()
            .take(SIBLINGS_MAX)
            .filter_map(|entry| Sibling::of(&entry.ok()?.path(), live))
            .collect();
        if entries.next().is_some() && self.said_cut.admits(machine_now_ms()) {
            let folder = folder.display();
            warn!(%folder, names_max = SIBLINGS_MAX, "a folder holds more files than are looked at");
        }
        Ok(siblings)
    }
}

pub(super) fn folder_of(live: &Path) -> &Path {
    live.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_before_a_rotation_is_found() {
        for (name, expected) in [
            ("access.log", None),
            ("access.log.1", Some("access.log")),
            ("access.log.2.gz", Some("access.log")),
            ("access.log-20260107", Some("access.log")),
            ("access.log-2026-01-07T10:00.gz", Some("access.log")),
            ("access.log.gz", Some("access.log")),
            ("access-20260107.log", None),
            ("access-20260107.log.gz", Some("access-20260107.log")),
            ("till7", None),
            ("7", None),
            (".gz", None),
        ] {
            assert_eq!(unrotated(name), expected, "{name}");
        }
    }

    #[test]
    fn parts_are_ordered_and_one_that_is_being_compressed_comes_once() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "log",
            "log.1",
            "log.1.gz",
            "log.2.gz",
            "log.10.gz",
            "log.gz",
            "log.bak",
            "other.1",
        ];
        for name in names {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let chain = Siblings::new().chain(&folder.path().join("log")).unwrap();
        let found: Vec<String> = chain
            .iter()
            .map(|part| part.path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, ["log.10.gz", "log.2.gz", "log.1", "log"]);
    }
}
