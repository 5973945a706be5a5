//! The newest input of a granted source, redacted.
//!
//! In: a grant. Out: the files of a test case. Sources are opened as the agent opens them: no pipe, no link in a folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;

use super::redact::Redactor;
use crate::platform::{open_document, open_log, read_at};
use crate::plugin::grant::Grant;
use crate::source::NamePattern;
use crate::source::gzip::unzip;

/// Of the end of a log.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Of a folder, the newest.
const FILES_MAX: usize = 20;
/// Names of a folder that are looked at.
const NAMES_MAX: usize = 10_000;
/// A file of a listing stands for its size only, up to this.
const LISTED_BYTES_MAX: u64 = 4 << 10;

/// What came of one source.
pub(super) struct Recorded {
    /// For the person who recorded it.
    pub told: String,
    pub folder: Option<String>,
    pub files: Vec<RecordedFile>,
}

pub(super) struct RecordedFile {
    /// In the case's folder.
    pub path: String,
    pub bytes: Vec<u8>,
    /// None for a log.
    pub age_s: Option<u64>,
}

/// A source that cannot be read is told and left out; none for a peer, which has no files.
pub(super) fn record(
    name: &str,
    grant: &Grant,
    redactor: &Redactor,
    now: Timestamp,
    lines_max: usize,
) -> Option<Recorded> {
    let files_max = lines_max.min(FILES_MAX);
    let (folder, files) = match grant {
        Grant::Lines { file, .. } => (None, log(name, file, redactor, lines_max)),
        Grant::Logs { folder, pattern, .. } => {
            let newest = newest(folder, pattern, 1, now);
            let log = |found: Vec<Found>| match found.first() {
                Some((path, _age_s)) => log(name, path, redactor, lines_max),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            (None, newest.and_then(log))
        }
        Grant::Documents {
            folder,
            pattern,
            document_bytes_max,
            ..
        } => {
            let bytes_of = |path: &Path| Ok(document(path, *document_bytes_max)?.map(|text| redactor.redact(&text)));
            let files = newest(folder, pattern, files_max, now);
            (
                Some(name),
                files.and_then(|files| case_files(name, files, redactor, unzipped, bytes_of)),
            )
        }
        Grant::Peer(_) => return None,
        Grant::Folder { folder, pattern } => {
            let bytes_of = |path: &Path| {
                let size = path.metadata()?.len().min(LISTED_BYTES_MAX);
                Ok(Some("x".repeat(usize::try_from(size).unwrap_or_default())))
            };
            let files = newest(folder, pattern, files_max, now);
            (
                Some(name),
                files.and_then(|files| case_files(name, files, redactor, |name| name, bytes_of)),
            )
        }
    };
    let folder = folder.map(str::to_owned);
    Some(match files {
        Err(error) => Recorded {
            told: format!("source {name} cannot be read: {error}"),
            folder: None,
            files: Vec::new(),
        },
        Ok(files) => Recorded {
            told: format!("{} of source {name}", count(grant, &files)),
            folder,
            files,
        },
    })
}

fn count(grant: &Grant, files: &[RecordedFile]) -> String {
    match grant {
        Grant::Lines { .. } | Grant::Logs { .. } => {
            let lines = files.iter().map(|file| memchr::memchr_iter(b'\n', &file.bytes).count());
            format!("{} lines", lines.sum::<usize>())
        }
        Grant::Documents { .. } | Grant::Folder { .. } | Grant::Peer(_) => format!("{} files", files.len()),
    }
}

/// The last whole lines.
fn log(name: &str, path: &Path, redactor: &Redactor, lines_max: usize) -> io::Result<Vec<RecordedFile>> {
    let file = open_log(path)?;
    let size = file.metadata()?.len();
    let begin = size.saturating_sub(LOG_BYTES_MAX);
    let bytes = read_from(&file, begin, size)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    if begin > 0 && !lines.is_empty() {
        // It begins somewhere in the middle.
        lines.remove(0);
    }
    let newest = &lines[lines.len().saturating_sub(lines_max)..];
    let redacted: String = newest.iter().map(|line| redactor.redact(line)).collect();
    Ok(vec![RecordedFile {
        path: format!("{name}.log"),
        bytes: redacted.into_bytes(),
        age_s: None,
    }])
}

fn read_from(file: &File, begin: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or_default()];
    let mut filled = 0;
    while filled < bytes.len() {
        let count = read_at(file, &mut bytes[filled..], begin + filled as u64)?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// None when it is larger than the plugin may read.
fn document(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let file = open_document(path)?;
    let bytes = if path.extension().is_some_and(|extension| extension == "gz") {
        unzip(file, bytes_max)?
    } else {
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        Some(bytes).filter(|bytes| bytes.len() as u64 <= bytes_max)
    };
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A file of a folder, and its age in seconds.
type Found = (std::path::PathBuf, u64);

fn newest(folder: &Path, pattern: &str, files_max: usize, now: Timestamp) -> io::Result<Vec<Found>> {
    let pattern = NamePattern::new(pattern);
    let now_s = u64::try_from(now.as_second()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(NAMES_MAX) {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let is_named = entry.file_name().to_str().is_some_and(|name| pattern.matches(name));
        if is_named && metadata.is_file() {
            let since = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH);
            let modified_s = since.map_or(0, |since| since.as_secs());
            found.push((entry.path(), now_s.saturating_sub(modified_s)));
        }
    }
    found.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    found.truncate(files_max);
    Ok(found)
}

fn case_files(
    source: &str,
    found: Vec<Found>,
    redactor: &Redactor,
    name_of: fn(&str) -> &str,
    bytes_of: impl Fn(&Path) -> io::Result<Option<String>>,
) -> io::Result<Vec<RecordedFile>> {
    let (mut files, mut names) = (Vec::new(), BTreeSet::new());
    for (path, age_s) in found {
        let Some(text) = bytes_of(&path)? else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut name = file_name(name_of(&name), redactor);
        while !names.insert(name.clone()) {
            name.insert(0, '_');
        }
        files.push(RecordedFile {
            path: format!("{source}/{name}"),
            bytes: text.into_bytes(),
            age_s: Some(age_s),
        });
    }
    Ok(files)
}

/// As a plugin gets it.
fn unzipped(name: &str) -> &str {
    name.strip_suffix(".gz").unwrap_or(name)
}

/// Redacted but for what stands behind its last point.
fn file_name(name: &str, redactor: &Redactor) -> String {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let point = if extension.is_empty() { "" } else { "." };
    let is_plain = extension.len() <= 4 && extension.bytes().all(|byte| byte.is_ascii_alphabetic());
    let extension = if is_plain {
        extension.to_owned()
    } else {
        redactor.redact(extension)
    };
    let name = format!("{}{point}{extension}", redactor.redact(stem));
    name.replace(['/', '\\', '"'], "_").replace(char::is_control, "_")
}
