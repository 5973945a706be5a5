//! The host of a test case: its files in memory, at the case's time, as the SDK's `FileHost` gives them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde::Deserialize;
use tillwatch_border::{Document, Entry, Fault, Host, Level, Lines, Listing};

use super::{file_name, sorted};

/// So small that cases take several calls, as in the SDK.
const CHUNK_BYTES: usize = 4096;
/// A longer line is skipped and its bytes are told.
const LINE_BYTES_MAX: usize = 64 * 1024;
const ENTRIES_MAX: usize = 1000;
/// Files that are not input.
const OTHER_FILES: [&str; 4] = ["settings.toml", "clock.toml", "expected.jsonl", "README.md"];
const NOW_DEFAULT: &str = "2026-03-02T12:00:00Z";

/// Clones share everything: one is in the sandbox, one reads the logs.
#[derive(Clone)]
pub(super) struct CaseHost(Arc<Mutex<Case>>);

#[derive(Default)]
struct Case {
    now_ms: u64,
    state: Vec<u8>,
    /// Bytes that are left of a tailed file.
    lines: BTreeMap<String, Vec<u8>>,
    folders: BTreeMap<String, Folder>,
    logs: Vec<(Level, String)>,
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
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let clock = read_clock(folder)?;
        let now: jiff::Timestamp = clock
            .now
            .to_string()
            .parse()
            .context("clock.toml: now must be in UTC, ending in Z")?;
        let mut case = Case {
            now_ms: u64::try_from(now.as_millisecond())?,
            ..Case::default()
        };
        for path in sorted(folder)? {
            let name = file_name(&path);
            if path.is_dir() {
                let folder = read_folder(&path, &name, case.now_ms, &clock.age_s)?;
                case.folders.insert(name, folder);
            } else if !OTHER_FILES.contains(&name.as_str()) {
                let source = name.split('.').next().unwrap_or_default().to_owned();
                case.lines.entry(source).or_default().extend(read_file(&path)?);
            }
        }
        Ok(Self(Arc::new(Mutex::new(case))))
    }

    pub(super) fn take_logs(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.lock().logs)
    }

    fn lock(&self) -> MutexGuard<'_, Case> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        self.lock().state = value;
        Ok(())
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let mut case = self.lock();
        let bytes = case.lines.get_mut(source).ok_or(Fault::Unknown)?;
        Ok(next_lines(
            bytes,
            usize::try_from(bytes_max).unwrap_or(usize::MAX).min(CHUNK_BYTES),
        ))
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        let mut case = self.lock();
        let folder = case.folders.get_mut(source).ok_or(Fault::Unknown)?;
        let document = folder.files.get(folder.given).cloned();
        folder.given += usize::from(document.is_some());
        Ok(document)
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        let case = self.lock();
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
}

/// Takes whole lines of at most `bytes_max` together, but at least one.
fn next_lines(bytes: &mut Vec<u8>, bytes_max: usize) -> Lines {
    let (mut lines, mut taken) = (Lines::default(), 0);
    while let Some(end) = memchr::memchr(b'\n', &bytes[taken..]) {
        let line = &bytes[taken..=taken + end];
        if line.len() > LINE_BYTES_MAX {
            lines.skipped_bytes += line.len() as u64;
        } else if lines.bytes.is_empty() || lines.bytes.len() + line.len() <= bytes_max {
            lines.bytes.extend_from_slice(line);
        } else {
            lines.more = true;
            break;
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
        let mut host = CaseHost::read(folder.path()).unwrap();
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
            host.list_folder("drop").unwrap().oldest_modified_ms,
            Some(1_772_450_940_000)
        );
        assert_eq!(host.next_document("drop").unwrap().unwrap().name, "b");
        assert_eq!(host.next_document("drop").unwrap().unwrap().name, "a");
        assert_eq!(host.next_document("drop").unwrap(), None);
        assert_eq!(host.read_lines("drop", 9).unwrap_err(), Fault::Unknown);
    }
}
