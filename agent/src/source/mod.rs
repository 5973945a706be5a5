//! What the host reads for plugins: one file for each kind of source.
//!
//! A source is named by the plugin and granted a path or a peer by the operator; nothing else is ever opened.
//! Reading is a transaction: what was read counts once `commit` is called, and comes again after `rollback`.
//! The progress that goes into the checkpoint is what `commit` would make permanent.
//! Only this folder asks the machine's clock about the age of files; the times of events come from the plugins.

pub mod documents;
pub mod folder;
pub(crate) mod gzip;
pub mod logs;
pub mod peer;
pub mod progress;
pub mod system;
pub mod tail;

use std::fs::{DirEntry, Metadata};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Names of a folder that one listing looks at; whether there is one more is seen, but not what it is.
pub(crate) const NAMES_MAX: usize = 100_000;

/// Where a source begins that was never read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first line of the current file: rotated files are left alone.
    Live,
    /// At the first line of the oldest rotated file that is still there.
    Oldest,
    /// After what is there now.
    End,
}

/// A name pattern with `*` and `?`, for file names of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Hidden files match only a pattern that begins with a dot.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if name.starts_with('.') && !self.0.starts_with('.') {
            return false;
        }
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// Greedy matching with one step back: linear for our patterns, never exponential.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            p = star_p + 1;
            n = star_n + 1;
            star = Some((star_p, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// None for a link, a folder, and what vanished since it was listed.
fn regular_file(entry: &DirEntry) -> io::Result<Option<Metadata>> {
    match entry.metadata() {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn modified_ms(metadata: &Metadata) -> u64 {
    metadata.modified().map_or(0, to_ms)
}

/// By the machine's own time.
pub(crate) fn is_older_than(metadata: &Metadata, age_ms: u64) -> bool {
    machine_now_ms().saturating_sub(modified_ms(metadata)) > age_ms
}

/// The machine's own time: file times are never replayed.
pub(crate) fn machine_now_ms() -> u64 {
    to_ms(SystemTime::now())
}

fn to_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("*.xml", "a.xml", true),
            ("*.xml", "a.xml.tmp", false),
            ("*.xml", ".a.xml", false),
            (".*", ".a", true),
            ("*", "anything", true),
            ("tlog-??.csv", "tlog-07.csv", true),
            ("tlog-??.csv", "tlog-7.csv", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a", "", false),
            ("", "", true),
        ] {
            assert_eq!(NamePattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
