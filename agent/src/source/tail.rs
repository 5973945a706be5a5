//! The whole lines of a growing file, each once, across rotations and restarts.
//!
//! In: a path and a position. Out: whole lines, oldest first, and the next position.
//! A position is (device, inode, checksum of the first bytes, offset), so it follows the file and not its name:
//! - rotation by rename: the old file is found in the folder by its inode and finished before the new one begins;
//! - copy and truncate: the copy is found by the checksum of its first bytes and finished, then the file begins anew;
//! - compression: first bytes and offsets are those of the lines, so the compressed file is the same one;
//! - several rotations while nobody read: the files between are read in order.
//!
//! While nothing was read of a log, a rotated file that changed later and holds what the log does not is its copy.
//! Limits: a log that is truncated and begins again with the very lines of its copy cannot be told from one that goes
//! on; what is deleted before it was read is lost, and so is the rest of a compressed file that is damaged:
//! `rotations_lost` counts both.
//! A line longer than `line_bytes_max` is skipped; its bytes are told with its end, of one such line in a call.

mod part;
mod position;
mod siblings;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tillwatch_border::{Fault, Lines};

use super::logs::position_of;
use super::progress::ProgressError;
use super::{Start, machine_now_ms, modified_ms};
use crate::platform::{FileId, changed_ms, file_id, open_log};
use part::{FINGERPRINT_BYTES_MAX, Part};
use position::Position;
use siblings::{Sibling, Siblings, folder_of};

pub(super) use siblings::unrotated;

/// Bytes that one call looks at beyond what it returns, so that a huge line or a compressed file does not block.
const SKIP_BYTES_MAX: usize = 8 << 20;
/// A folder that changed less than this ago may change again without a later time of its own.
const FOLDER_TICK_MS: u64 = 1_000;
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
    /// No other log of its folder is read as the same source.
    pub is_alone: bool,
}

impl TailSettings {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            line_bytes_max: LINE_BYTES_MAX,
            rotation_settle_ms: ROTATION_SETTLE_MS,
            start: Start::Live,
            is_alone: true,
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
    siblings: Siblings,
    /// When the folder had last changed, and no copy of what was not read was in it.
    has_no_copy_ms: Option<u64>,
    open_file: fn(&Path) -> io::Result<File>,
}

impl Tail {
    /// Goes on from `progress`, or begins as the settings say when there is none.
    ///
    /// # Errors
    /// When the progress cannot be read.
    pub fn open(settings: TailSettings, progress: Option<&[u8]>) -> Result<Self, ProgressError> {
        let own = progress
            .map(|progress| position_of(&settings.path, progress))
            .transpose()?;
        let position = own.flatten().map(Position::decode).transpose()?;
        let cursor = Cursor { position, part: None };
        Ok(Self {
            settings,
            committed: cursor.clone(),
            current: cursor,
            buffer: Vec::new(),
            up: false,
            rotations_lost: 0,
            rotations_lost_now: 0,
            siblings: Siblings::new(),
            has_no_copy_ms: None,
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
        if self.up || lines.more || !lines.bytes.is_empty() {
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

    /// Reads into another buffer from now on, or into its own again.
    pub(super) fn lend(&mut self, buffer: &mut Vec<u8>) {
        std::mem::swap(&mut self.buffer, buffer);
    }

    /// Whether the file that is being read, or its copy, now has another name; `old_id` is what has its own.
    pub(super) fn has_moved_to(&self, path: &Path, id: FileId, modified_ms: u64, old_id: Option<FileId>) -> bool {
        let Some(position) = &self.current.position else {
            return false;
        };
        let may_be = if id == position.id {
            old_id != Some(id)
        } else {
            position.fingerprint.length > 0 && modified_ms >= position.modified_ms && self.is_replaced(position, old_id)
        };
        let is_in = |file: File| position.is_in(&Part::new(file, false));
        may_be && (self.open_file)(path).and_then(is_in).unwrap_or(false)
    }

    /// Whether what has its own name is another file, or was truncated.
    fn is_replaced(&self, position: &Position, old_id: Option<FileId>) -> bool {
        let is_in = |file: File| position.is_in(&Part::new(file, false));
        match old_id {
            Some(_) => !(self.open_file)(&self.settings.path).and_then(is_in).unwrap_or(true),
            None => !position.is_weak(),
        }
    }

    /// Goes on under another name.
    pub(super) fn rename(&mut self, path: PathBuf) {
        self.settings.path = path;
    }

    /// Whether it, or an earlier part of it, is still there.
    pub(super) fn has_parts(&mut self) -> bool {
        self.chain().map_or(true, |chain| !chain.is_empty())
    }

    #[cfg(test)]
    pub(super) fn refuse_to_open(&mut self) {
        self.open_file = |_path| Err(io::ErrorKind::PermissionDenied.into());
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
        while let Some(part) = self.open_current()? {
            match self.read_part(&part, lines, bytes_max, &mut skip_left)? {
                Step::Full => {
                    lines.more = true;
                    break;
                }
                Step::End if self.go_to_next_part(&part, lines)? => {}
                Step::End => break,
            }
        }
        Ok(())
    }

    /// The file of the current position, opened; none when there is nothing to read yet.
    fn open_current(&mut self) -> io::Result<Option<Arc<Part>>> {
        let Some(position) = self.current.position.clone() else {
            return self.begin();
        };
        let found = match self.current.part.clone() {
            Some(part) if position.is_in(&part)? => Some(part),
            _ => self.find(&position)?.map(Arc::new),
        };
        if let Some(part) = found {
            let part = self.find_copy(&position, &part)?.map_or(part, Arc::new);
            return self.continue_in(part).map(Some);
        }
        let next = self.begin_after(&position)?;
        let is_lost = match &next {
            // Nothing of it was read, and what follows is a file that it may have become.
            Some(next) if position.offset == 0 => self.is_live(next),
            next => next.is_some(),
        };
        self.rotations_lost_now += u64::from(is_lost);
        Ok(next)
    }

    fn begin(&mut self) -> io::Result<Option<Arc<Part>>> {
        let chain = self.chain()?;
        let first = match self.settings.start {
            Start::Oldest => (!chain.is_empty()).then_some(0),
            Start::Live | Start::End => chain.iter().position(Sibling::is_live),
        };
        let at_end = self.settings.start == Start::End;
        // A file that appears later is read from its first line.
        self.settings.start = Start::Live;
        let Some(first) = first else { return Ok(None) };
        let part = self.begin_at(&chain, first)?;
        if at_end && let Some(position) = &mut self.current.position {
            position.go_to_end(&part)?;
        }
        // What fails at the first lines must find them again, wherever they are then.
        self.committed = self.current.clone();
        Ok(Some(part))
    }

    /// The oldest part that is newer, else the log itself: older parts were read.
    fn begin_after(&mut self, position: &Position) -> io::Result<Option<Arc<Part>>> {
        let chain = self.chain()?;
        let next = (0..chain.len()).find(|index| chain[*index].is_live() || self.is_unread(position, &chain, *index));
        next.map(|index| self.begin_at(&chain, index)).transpose()
    }

    /// Whether a part is later than what was read; in one second of a compressed part's time its place tells.
    fn is_unread(&self, position: &Position, chain: &[Sibling], index: usize) -> bool {
        let (part, read_ms) = (&chain[index], position.read_through_ms());
        if part.modified_ms > read_ms {
            return !self.was_read(position, part);
        }
        part.modified_until_ms > read_ms && self.is_after_read(position, &chain[index..])
    }

    /// Whether none of these is the last part that was read.
    fn is_after_read(&self, position: &Position, parts: &[Sibling]) -> bool {
        !parts.iter().any(|part| self.was_read(position, part))
    }

    /// Whether it is the part before, under another name or compressed.
    fn was_read(&self, position: &Position, sibling: &Sibling) -> bool {
        let was_before = |part: Part| position.was_before(&part);
        self.open_part(sibling).and_then(was_before).unwrap_or(false)
    }

    fn begin_at(&mut self, chain: &[Sibling], index: usize) -> io::Result<Arc<Part>> {
        let part = Arc::new(self.open_part(&chain[index])?);
        let mut position = Position::begin_of(&part)?;
        let earlier = chain[..index].iter().map(|sibling| sibling.modified_ms).max();
        let left = self.current.position.as_ref();
        let left_ms = left.map_or(0, Position::read_through_ms);
        position.before_ms = left_ms.max(earlier.unwrap_or(0));
        // All that is empty begins alike; and what was deleted is known by what was read of it.
        let heads = chain[..index]
            .iter()
            .rev()
            .map(|before| self.open_part(before)?.head(FINGERPRINT_BYTES_MAX));
        let left = left.into_iter().flat_map(|left| [left.fingerprint, left.before]);
        let mut known = heads.flatten().chain(left).filter(|head| head.length > 0);
        position.before = known.next().unwrap_or_default();
        self.current = Cursor {
            position: Some(position),
            part: Some(Arc::clone(&part)),
        };
        Ok(part)
    }

    fn continue_in(&mut self, part: Arc<Part>) -> io::Result<Arc<Part>> {
        if let Some(position) = &mut self.current.position {
            position.id = part.id()?;
        }
        self.current.part = Some(Arc::clone(&part));
        Ok(part)
    }

    fn open_part(&self, sibling: &Sibling) -> io::Result<Part> {
        Ok(Part::new((self.open_file)(&sibling.path)?, sibling.is_gzip))
    }

    fn is_live(&self, part: &Part) -> bool {
        let live = std::fs::metadata(&self.settings.path);
        live.is_ok_and(|live| part.id().is_ok_and(|id| id == file_id(&live)))
    }

    /// Reads until `bytes_max` or the last whole line.
    fn read_part(
        &mut self,
        part: &Part,
        lines: &mut Lines,
        bytes_max: usize,
        skip_left: &mut usize,
    ) -> io::Result<Step> {
        let Some(position) = &mut self.current.position else {
            return Ok(Step::End);
        };
        let modified_ms = modified_ms(&part.metadata()?);
        // One that was compressed may have whole seconds only.
        let known_ms = if part.is_gzip() { position.modified_ms } else { 0 };
        position.modified_ms = modified_ms.max(known_ms);
        if !part.approach(position.offset, *skip_left)? {
            return Ok(Step::Full);
        }
        self.buffer.resize(self.settings.line_bytes_max + 1, 0);
        loop {
            let count = part.read_at(&mut self.buffer, position.offset)?;
            let data = &self.buffer[..count];
            let is_full_buffer = count == self.buffer.len();
            let taken = if position.skipping {
                skip_line(data)
            } else {
                take_lines(data, lines, bytes_max, is_full_buffer)
            };
            position.advance(&data[..taken.bytes]);
            position.skipping = taken.skipping;
            position.skipped += taken.skipped as u64;
            if !position.skipping {
                lines.skipped_bytes += std::mem::take(&mut position.skipped);
            }
            *skip_left = skip_left.saturating_sub(taken.skipped);
            if taken.is_full || *skip_left == 0 {
                return Ok(Step::Full);
            }
            if taken.bytes == 0 {
                return Ok(Step::End);
            }
        }
    }

    /// At the end of a part: true when another one follows it and is now the current one.
    fn go_to_next_part(&mut self, part: &Part, lines: &mut Lines) -> io::Result<bool> {
        // A folder or a pipe in its place is no log that could have begun.
        let live = std::fs::metadata(&self.settings.path)
            .ok()
            .filter(std::fs::Metadata::is_file);
        let metadata = part.metadata()?;
        if live.as_ref().map(file_id) == Some(file_id(&metadata)) {
            return Ok(false);
        }
        let Some(position) = self.current.position.clone() else {
            return Ok(false);
        };
        let chain = self.chain()?;
        let place = self.place_in(&position, &chain, part)?;
        let is_newest = place.is_some_and(|index| chain.get(index + 1).is_some_and(Sibling::is_live));
        // A rename changes no content, and its writer goes on for a while.
        let renamed_ms = if is_newest { changed_ms(&metadata) } else { 0 };
        let quiet_ms = machine_now_ms().saturating_sub(modified_ms(&metadata).max(renamed_ms));
        if quiet_ms < self.settings.rotation_settle_ms {
            return Ok(false);
        }
        let unfinished = self.unfinished_line(part)?;
        // Only what the position has left behind is handed out: else it would come again with the next call.
        let is_next = match place.map(|index| index + 1) {
            Some(index) if index < chain.len() => self.begin_at(&chain, index).map(|_part| true)?,
            None => self.begin_after(&position)?.is_some(),
            // The newest part; its writer has not begun the next one yet.
            Some(_) => false,
        };
        if is_next {
            self.rotations_lost_now += u64::from(part.is_damaged());
            // Its last line was too long, and has no newline.
            lines.skipped_bytes += position.skipped;
            if !unfinished.is_empty() {
                lines.bytes.extend_from_slice(&unfinished);
                lines.bytes.push(b'\n');
            }
        }
        Ok(is_next)
    }

    /// Under whatever name; when it was deleted, as the compressed file that was made of it.
    fn place_in(&self, position: &Position, chain: &[Sibling], part: &Part) -> io::Result<Option<usize>> {
        let metadata = part.metadata()?;
        let (id, modified_ms) = (file_id(&metadata), modified_ms(&metadata));
        if let Some(index) = chain.iter().position(|sibling| sibling.id == id) {
            return Ok(Some(index));
        }
        let head = part.head(FINGERPRINT_BYTES_MAX)?;
        let begins = |compressed: Part| Ok(compressed.head(FINGERPRINT_BYTES_MAX)? == head);
        // All that is empty begins alike.
        let is_time = |index: usize| match head.length {
            0 => chain[index].is_of(modified_ms) && self.is_after_read(position, &chain[index..]),
            _ => chain[index].changed_ms >= modified_ms,
        };
        let is_same = |index: &usize| {
            let sibling = &chain[*index];
            sibling.is_gzip && is_time(*index) && self.open_part(sibling).and_then(begins).unwrap_or(false)
        };
        Ok((0..chain.len()).find(is_same))
    }

    /// The end of a finished part is a line even without its newline.
    fn unfinished_line(&mut self, part: &Part) -> io::Result<Vec<u8>> {
        let Some(position) = self.current.position.as_ref().filter(|position| !position.skipping) else {
            return Ok(Vec::new());
        };
        let count = part.read_at(&mut self.buffer, position.offset)?;
        Ok(self.buffer[..count].to_vec())
    }

    /// The part that a position belongs to: under its own name, then by inode, then by its first bytes.
    fn find(&mut self, position: &Position) -> io::Result<Option<Part>> {
        let siblings = self.siblings.all(&self.settings.path)?;
        let chain = self.chain()?;
        let unread = (0..chain.len()).find(|index| self.was_compressed_unread(position, &chain[*index..]));
        let is_untouched = |sibling: &Sibling| sibling.id == position.id && sibling.modified_ms == position.modified_ms;
        if let Some(unread) = unread.filter(|_| !siblings.iter().any(is_untouched)) {
            return self.open_part(&chain[unread]).map(Some);
        }
        let same_file = siblings.iter().filter(|sibling| sibling.id == position.id);
        let same_inode = siblings.iter().filter(|sibling| sibling.id.inode == position.id.inode);
        // A part is compressed after its last change.
        let may_be = |sibling: &&Sibling| {
            let is_later = !sibling.is_gzip || sibling.changed_ms >= position.modified_ms;
            // Beside other logs, which may all begin with the same header, a few bytes say nothing.
            let is_own =
                self.settings.is_alone || sibling.rank.is_some() || (!position.is_weak() && self.has_stem_of(sibling));
            is_later && is_own
        };
        let is_known = position.fingerprint.length > 0;
        let mut same_bytes: Vec<&Sibling> = siblings.iter().filter(|_| is_known).filter(may_be).collect();
        same_bytes.sort_by_key(|sibling| (sibling.path != self.settings.path, u64::MAX - sibling.modified_ms));
        for sibling in same_file.chain(same_inode).chain(same_bytes) {
            if let Ok(part) = self.open_part(sibling)
                && position.is_in(&part)?
            {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    /// Whether its name begins as that of the log, up to the first point.
    fn has_stem_of(&self, sibling: &Sibling) -> bool {
        let stem = |path: &Path| Some(path.file_name()?.to_str()?.split(['.', '-', '_']).next()?.to_owned());
        stem(&self.settings.path) == stem(&sibling.path)
    }

    /// Without first bytes its time tells, which whoever compresses a log keeps; its inode may be another's by now.
    fn was_compressed_unread(&self, position: &Position, from: &[Sibling]) -> bool {
        let is_same_time = |part: &Sibling| part.is_gzip && part.is_of(position.modified_ms);
        position.offset == 0 && from.first().is_some_and(is_same_time) && self.is_after_read(position, from)
    }

    /// The copy of a log of which so little was read that its first bytes do not tell that it was truncated.
    fn find_copy(&mut self, position: &Position, part: &Part) -> io::Result<Option<Part>> {
        if !position.is_weak() {
            return Ok(None);
        }
        let folder_ms = modified_ms(&std::fs::metadata(folder_of(&self.settings.path))?);
        if self.has_no_copy_ms == Some(folder_ms) {
            return Ok(None);
        }
        let chain = self.chain()?;
        let own = self.place_in(position, &chain, part)?.unwrap_or(0);
        for index in (0..own).filter(|index| self.is_unread(position, &chain, *index)) {
            let Ok(copy) = self.open_part(&chain[index]) else {
                continue;
            };
            if holds_unread(position, &copy, part)? {
                return Ok(Some(copy));
            }
        }
        let is_past = machine_now_ms().saturating_sub(folder_ms) > FOLDER_TICK_MS;
        self.has_no_copy_ms = is_past.then_some(folder_ms);
        Ok(None)
    }

    fn chain(&mut self) -> io::Result<Vec<Sibling>> {
        self.siblings.chain(&self.settings.path)
    }
}

/// Whether `copy` begins as what was read, goes on with what was not, and `part` does not hold that.
fn holds_unread(position: &Position, copy: &Part, part: &Part) -> io::Result<bool> {
    let head = copy.head(FINGERPRINT_BYTES_MAX)?;
    Ok(head.length > position.offset && copy.begins_with(position.fingerprint)? && !part.begins_with(head)?)
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
            return begin_to_skip(data, lines, false);
        } else if !lines.bytes.is_empty() && lines.bytes.len() + line.len() > bytes_max {
            taken.is_full = true;
            return taken;
        } else {
            lines.bytes.extend_from_slice(line);
        }
        taken.bytes = end + 1;
    }
    if taken.bytes == 0 && is_full_buffer {
        return begin_to_skip(data, lines, true);
    }
    taken
}

/// A call that has told of one line that was too long ends before the next.
fn begin_to_skip(data: &[u8], lines: &Lines, skipping: bool) -> Taken {
    if lines.skipped_bytes > 0 {
        return Taken {
            is_full: true,
            ..Taken::default()
        };
    }
    Taken {
        bytes: data.len(),
        skipped: data.len(),
        skipping,
        is_full: false,
    }
}

#[derive(Clone, Debug)]
struct Cursor {
    position: Option<Position>,
    /// Held open, so that a file that was renamed and deleted can still be finished.
    part: Option<Arc<Part>>,
}

#[cfg(test)]
mod tests;
