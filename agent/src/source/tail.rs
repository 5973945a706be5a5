//! The whole lines of a growing file, each once, across rotations and restarts.
//!
//! In: a path and a position. Out: whole lines, oldest first, and the next position.
//! A position is (device, inode, checksum of the first bytes, offset), so it follows the file and not its name:
//! - rotation by rename: the old file is found in the folder by its inode and finished before the new one begins;
//! - copy and truncate: the copy is found by the checksum of its first bytes and finished, then the file begins anew;
//! - several rotations while nobody read: the files between are read in order.
//!
//! Limits: compressed files are not read; a file that is copied and truncated before its first line was read cannot
//! be told from a fresh one; what is deleted before it was read is lost, and `rotations_lost` counts it.
//! A line longer than `line_bytes_max` is skipped and its bytes are counted.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tillwatch_border::{Fault, Lines};
use tracing::warn;

use super::progress::{ProgressError, Reader, Writer};
use super::{Start, machine_now_ms, modified_ms};
use crate::platform::{FileId, file_id, open_log, read_at};
use crate::rate::PerMinute;

/// How much of the beginning of a file identifies it: enough for the date in an IIS header.
const FINGERPRINT_BYTES_MAX: u64 = 1024;
/// Bytes that one call looks at beyond what it returns, so that skipping a huge line does not block.
const SKIP_BYTES_MAX: usize = 8 << 20;
/// Names of a folder that a search for a rotated file looks at.
const SIBLINGS_MAX: usize = 10_000;
/// The default of [`TailSettings::line_bytes_max`].
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// The default of [`TailSettings::rotation_settle_ms`].
pub const ROTATION_SETTLE_MS: u64 = 2_000;

/// What is read and within which bounds.
#[derive(Clone, Debug)]
pub struct TailSettings {
    pub path: PathBuf,
    pub line_bytes_max: usize,
    /// How long a rotated file must be unchanged before it counts as finished: writers hold it open for a moment.
    pub rotation_settle_ms: u64,
    pub start: Start,
}

impl TailSettings {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            line_bytes_max: LINE_BYTES_MAX,
            rotation_settle_ms: ROTATION_SETTLE_MS,
            start: Start::Live,
        }
    }
}

/// One tailed file.
#[derive(Debug)]
pub struct Tail {
    settings: TailSettings,
    committed: Cursor,
    current: Cursor,
    buffer: Vec<u8>,
    up: bool,
    rotations_lost: u64,
    /// Since the last commit.
    rotations_lost_now: u64,
    said_cut: PerMinute,
    open_file: fn(&Path) -> io::Result<File>,
}

impl Tail {
    /// Goes on from `progress`, or begins as the settings say when there is none.
    ///
    /// # Errors
    /// When the progress cannot be read.
    pub fn open(settings: TailSettings, progress: Option<&[u8]>) -> Result<Self, ProgressError> {
        let position = progress.map(Position::decode).transpose()?;
        let cursor = Cursor { position, file: None };
        Ok(Self {
            settings,
            committed: cursor.clone(),
            current: cursor,
            buffer: Vec::new(),
            up: false,
            rotations_lost: 0,
            rotations_lost_now: 0,
            said_cut: PerMinute::new(1),
            open_file: open_log,
        })
    }

    /// The next whole lines: about `bytes_max`, but always at least one line when there is one.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the file is missing, is no regular file or cannot be read, and nothing was left of an
    /// older one.
    pub fn read(&mut self, bytes_max: usize) -> Result<Lines, Fault> {
        let mut lines = Lines {
            bytes: Vec::new(),
            more: false,
            skipped_bytes: 0,
        };
        let outcome = self.read_files(&mut lines, bytes_max);
        self.up = outcome.is_ok() && self.settings.path.is_file();
        if self.up || !lines.bytes.is_empty() {
            Ok(lines)
        } else {
            Err(Fault::Unavailable)
        }
    }

    /// Whether the last call found the file.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// How often the file that was being read had vanished before its end was reached.
    #[must_use]
    pub fn rotations_lost(&self) -> u64 {
        self.rotations_lost
    }

    /// What was read counts as used.
    pub fn commit(&mut self) {
        self.committed = self.current.clone();
        self.rotations_lost += std::mem::take(&mut self.rotations_lost_now);
    }

    /// What was read since the last commit comes again.
    pub fn rollback(&mut self) {
        self.current = self.committed.clone();
        self.rotations_lost_now = 0;
    }

    /// The position that a commit would make permanent; empty before the first byte.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        self.current.position.as_ref().map(Position::encode).unwrap_or_default()
    }

    fn read_files(&mut self, lines: &mut Lines, bytes_max: usize) -> io::Result<()> {
        let mut skip_left = SKIP_BYTES_MAX;
        while let Some(file) = self.open_current()? {
            match self.read_file(&file, lines, bytes_max, &mut skip_left)? {
                Step::Full => {
                    lines.more = true;
                    break;
                }
                Step::End if self.go_to_next_file(&file, lines)? => {}
                Step::End => break,
            }
        }
        Ok(())
    }

    /// The file of the current position, opened; none when there is nothing to read yet.
    fn open_current(&mut self) -> io::Result<Option<Arc<File>>> {
        let Some(position) = self.current.position.clone() else {
            return self.begin();
        };
        if let Some(file) = &self.current.file
            && position.is_in(file)?
        {
            return Ok(Some(Arc::clone(file)));
        }
        if let Some(file) = self.find(&position)? {
            return Ok(Some(self.continue_in(file)));
        }
        let after_ms = position.modified_ms;
        let chain = self.chain()?;
        let next = self.begin_after(&chain, after_ms)?;
        self.rotations_lost_now += u64::from(next.is_some());
        Ok(next)
    }

    fn begin(&mut self) -> io::Result<Option<Arc<File>>> {
        let chain = self.chain()?;
        let first = match self.settings.start {
            Start::Oldest => chain.first(),
            Start::Live | Start::End => chain.last().filter(|sibling| sibling.path == self.settings.path),
        };
        let at_end = self.settings.start == Start::End;
        // A file that appears later is read from its first line.
        self.settings.start = Start::Live;
        let Some(first) = first else { return Ok(None) };
        let file = self.begin_at(&first.path)?;
        if at_end && let Some(position) = &mut self.current.position {
            position.go_to_end(&file)?;
        }
        Ok(Some(file))
    }

    /// The oldest part that is newer, else the log itself: older parts were read.
    fn begin_after(&mut self, chain: &[Sibling], after_ms: u64) -> io::Result<Option<Arc<File>>> {
        let next = chain
            .iter()
            .find(|sibling| sibling.modified_ms > after_ms)
            .or(chain.last().filter(|last| last.rank == Some(Rank::Live)));
        next.map(|sibling| self.begin_at(&sibling.path)).transpose()
    }

    fn begin_at(&mut self, path: &Path) -> io::Result<Arc<File>> {
        let file = Arc::new((self.open_file)(path)?);
        self.current = Cursor {
            position: Some(Position::begin_of(&file)?),
            file: Some(Arc::clone(&file)),
        };
        Ok(file)
    }

    fn continue_in(&mut self, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.current.file = Some(Arc::clone(&file));
        file
    }

    /// Reads until `bytes_max` or the last whole line.
    fn read_file(
        &mut self,
        file: &File,
        lines: &mut Lines,
        bytes_max: usize,
        skip_left: &mut usize,
    ) -> io::Result<Step> {
        let Some(position) = &mut self.current.position else {
            return Ok(Step::End);
        };
        position.modified_ms = modified_ms(&file.metadata()?);
        self.buffer.resize(self.settings.line_bytes_max + 1, 0);
        loop {
            let count = read_at(file, &mut self.buffer, position.offset)?;
            let data = &self.buffer[..count];
            let is_full_buffer = count == self.buffer.len();
            let taken = if position.skipping {
                skip_line(data)
            } else {
                take_lines(data, lines, bytes_max, is_full_buffer)
            };
            position.advance(&data[..taken.bytes]);
            position.skipping = taken.skipping;
            lines.skipped_bytes += taken.skipped as u64;
            *skip_left = skip_left.saturating_sub(taken.skipped);
            if taken.is_full || *skip_left == 0 {
                return Ok(Step::Full);
            }
            if taken.bytes == 0 {
                return Ok(Step::End);
            }
        }
    }

    /// At the end of a file: true when another one follows it and is now the current one.
    fn go_to_next_file(&mut self, file: &File, lines: &mut Lines) -> io::Result<bool> {
        // A folder or a pipe in its place is no log that could have begun.
        let live = std::fs::metadata(&self.settings.path)
            .ok()
            .filter(std::fs::Metadata::is_file);
        let metadata = file.metadata()?;
        let id = file_id(&metadata);
        if live.as_ref().map(file_id) == Some(id) {
            return Ok(false);
        }
        let old_ms = modified_ms(&metadata);
        if machine_now_ms().saturating_sub(old_ms) < self.settings.rotation_settle_ms {
            return Ok(false);
        }
        let chain = self.chain()?;
        let follower = chain
            .iter()
            .position(|sibling| sibling.id == id)
            .and_then(|index| chain.get(index + 1));
        if live.is_none() && follower.is_none() {
            // The newest part; its writer has not begun the next one yet.
            return Ok(false);
        }
        let unfinished = self.unfinished_line(file)?;
        // Only what the position has left behind is handed out: else it would come again with the next call.
        let is_next = match follower {
            Some(sibling) => self.begin_at(&sibling.path).map(|_file| true)?,
            None => self.begin_after(&chain, old_ms)?.is_some(),
        };
        if is_next && !unfinished.is_empty() {
            lines.bytes.extend_from_slice(&unfinished);
            lines.bytes.push(b'\n');
        }
        Ok(is_next)
    }

    /// The end of a finished file is a line even without its newline.
    fn unfinished_line(&mut self, file: &File) -> io::Result<Vec<u8>> {
        let Some(position) = self.current.position.as_ref().filter(|position| !position.skipping) else {
            return Ok(Vec::new());
        };
        let count = read_at(file, &mut self.buffer, position.offset)?;
        Ok(self.buffer[..count].to_vec())
    }

    /// The file that a position belongs to: under its own name, then by inode, then by its first bytes.
    fn find(&mut self, position: &Position) -> io::Result<Option<File>> {
        let siblings = self.siblings()?;
        let same_file = siblings.iter().filter(|sibling| sibling.id == position.id);
        let same_inode = siblings.iter().filter(|sibling| sibling.id.inode == position.id.inode);
        let mut same_bytes: Vec<&Sibling> = siblings.iter().filter(|_| position.fingerprint.length > 0).collect();
        same_bytes.sort_by_key(|sibling| (sibling.path != self.settings.path, u64::MAX - sibling.modified_ms));
        for sibling in same_file.chain(same_inode).chain(same_bytes) {
            if let Ok(file) = open_log(&sibling.path)
                && position.is_in(&file)?
            {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The rotated files that carry the log's name, oldest first, then the log itself.
    fn chain(&mut self) -> io::Result<Vec<Sibling>> {
        let mut chain: Vec<Sibling> = self
            .siblings()?
            .into_iter()
            .filter(|sibling| sibling.rank.is_some())
            .collect();
        chain.sort_by(|a, b| a.rank.cmp(&b.rank));
        Ok(chain)
    }

    fn siblings(&mut self) -> io::Result<Vec<Sibling>> {
        let folder = self
            .settings
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let siblings = entries
            .by_ref()
            .take(SIBLINGS_MAX)
            .filter_map(|entry| Sibling::of(&entry.ok()?.path(), &self.settings.path))
            .collect();
        if entries.next().is_some() && self.said_cut.admits(machine_now_ms()) {
            let folder = folder.display();
            warn!(%folder, names_max = SIBLINGS_MAX, "a folder holds more files than are looked at");
        }
        Ok(siblings)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Full,
    End,
}

/// What was done with the bytes at the position.
#[derive(Default)]
struct Taken {
    bytes: usize,
    skipped: usize,
    skipping: bool,
    is_full: bool,
}

/// Goes to the end of a line that was too long.
fn skip_line(data: &[u8]) -> Taken {
    match memchr::memchr(b'\n', data) {
        Some(end) => Taken {
            bytes: end + 1,
            skipped: end + 1,
            ..Taken::default()
        },
        None => Taken {
            bytes: data.len(),
            skipped: data.len(),
            skipping: true,
            is_full: false,
        },
    }
}

/// Appends whole lines of `data`, which is one byte longer than the longest line when it is full.
fn take_lines(data: &[u8], lines: &mut Lines, bytes_max: usize, is_full_buffer: bool) -> Taken {
    let mut taken = Taken::default();
    for end in memchr::memchr_iter(b'\n', data) {
        let line = &data[taken.bytes..=end];
        if is_full_buffer && line.len() == data.len() {
            taken.skipped += line.len();
        } else if !lines.bytes.is_empty() && lines.bytes.len() + line.len() > bytes_max {
            taken.is_full = true;
            return taken;
        } else {
            lines.bytes.extend_from_slice(line);
        }
        taken.bytes = end + 1;
    }
    if taken.bytes == 0 && is_full_buffer {
        return Taken {
            bytes: data.len(),
            skipped: data.len(),
            skipping: true,
            is_full: false,
        };
    }
    taken
}

#[derive(Clone, Debug)]
struct Cursor {
    position: Option<Position>,
    /// Held open, so that a file that was renamed and deleted can still be finished.
    file: Option<Arc<File>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    id: FileId,
    /// When the file had last changed as we read it: orders it among its followers.
    modified_ms: u64,
    fingerprint: Fingerprint,
    offset: u64,
    /// Inside a line that is too long.
    skipping: bool,
}

/// Checksum of the first bytes that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    length: u64,
    crc32c: u32,
}

impl Fingerprint {
    fn extend(&mut self, data: &[u8]) {
        let room = usize::try_from(FINGERPRINT_BYTES_MAX - self.length)
            .unwrap_or(0)
            .min(data.len());
        self.crc32c = crc32c::crc32c_append(self.crc32c, &data[..room]);
        self.length += room as u64;
    }

    fn of(file: &File, length: u64) -> io::Result<Self> {
        let mut head = vec![0; usize::try_from(length.min(FINGERPRINT_BYTES_MAX)).unwrap_or(0)];
        let count = read_at(file, &mut head, 0)?;
        let mut fingerprint = Self::default();
        fingerprint.extend(&head[..count]);
        Ok(fingerprint)
    }
}

impl Position {
    fn begin_of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            id: file_id(&metadata),
            modified_ms: modified_ms(&metadata),
            fingerprint: Fingerprint::default(),
            offset: 0,
            skipping: false,
        })
    }

    fn go_to_end(&mut self, file: &File) -> io::Result<()> {
        self.offset = file.metadata()?.len();
        self.fingerprint = Fingerprint::of(file, self.offset)?;
        let mut last = [b'\n'];
        read_at(file, &mut last, self.offset.saturating_sub(1))?;
        self.skipping = last != *b"\n";
        Ok(())
    }

    /// The fingerprint always covers the first min(offset, FINGERPRINT_BYTES_MAX) bytes.
    fn advance(&mut self, data: &[u8]) {
        self.fingerprint.extend(data);
        self.offset += data.len() as u64;
    }

    /// Whether `file` is the one that was read up to this position; false when it was truncated or replaced.
    fn is_in(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        if metadata.len() < self.offset || (self.offset == 0 && file_id(&metadata).inode != self.id.inode) {
            return Ok(false);
        }
        Ok(Fingerprint::of(file, self.fingerprint.length)? == self.fingerprint)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .number(self.id.device)
            .number(self.id.inode)
            .number(self.modified_ms);
        writer
            .number(self.fingerprint.length)
            .number(u64::from(self.fingerprint.crc32c));
        writer.number(self.offset).number(u64::from(self.skipping));
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, ProgressError> {
        let mut reader = Reader::new(bytes)?;
        let position = Self {
            id: FileId {
                device: reader.number()?,
                inode: reader.number()?,
            },
            modified_ms: reader.number()?,
            fingerprint: Fingerprint {
                length: reader.number()?.min(FINGERPRINT_BYTES_MAX),
                crc32c: u32::try_from(reader.number()?).unwrap_or(0),
            },
            offset: reader.number()?,
            skipping: reader.number()? != 0,
        };
        reader.finish()?;
        Ok(position)
    }
}

/// A file beside the log, perhaps one of its earlier parts.
#[derive(Debug)]
struct Sibling {
    path: PathBuf,
    id: FileId,
    modified_ms: u64,
    /// Its place among the parts of the log, oldest first; none when its name is not the log's with an ending.
    rank: Option<Rank>,
}

/// `log.3` < `log.2` < `log-20260107` < `log-20260108` < `log`; what has no number is ordered by time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
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
        let modified_ms = modified_ms(&metadata);
        let rank = name
            .strip_prefix(live_name)
            .and_then(|ending| rank(ending, modified_ms));
        let path = if name == live_name {
            live.to_owned()
        } else {
            path.to_owned()
        };
        Some(Self {
            path,
            id: file_id(&metadata),
            modified_ms,
            rank,
        })
    }
}

fn rank(ending: &str, modified_ms: u64) -> Option<Rank> {
    if ending.is_empty() {
        return Some(Rank::Live);
    }
    let rest = ending.strip_prefix(['.', '-', '_'])?;
    if rest.len() <= 4
        && let Ok(number) = rest.parse::<i64>()
    {
        return Some(Rank::Numbered { newness: -number });
    }
    let is_dated = rest
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"-_.T:".contains(&byte));
    is_dated.then(|| Rank::Dated {
        modified_ms,
        name: ending.to_owned(),
    })
}

#[cfg(test)]
mod tests;
