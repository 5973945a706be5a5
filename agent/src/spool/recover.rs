//! Opening: what the folder still holds, made into an index.
//!
//! In: the files as a crash, a full disk or a failing one left them. Out: segments with their frames, the cursor, the
//! newest checkpoint, and notes of what was wrong. What is damaged is given up, by checksum and format alone; when the
//! system cannot read a file that is needed, opening fails and nothing was changed, as the next try may read it: all is
//! read first, and what has to change on the disk is done afterwards.

use std::collections::VecDeque;
use std::io;

use super::compaction::remove_unfinished;
use super::cursor::{Cursor, CursorFile, PlacedGap};
use super::disk::{Disk, WriteFault, not_read};
use super::log::{Entry, Segment};
use super::segment::{Frame, FrameHead, SEGMENT_HEAD_BYTES, decode_frame, scan};
use super::{GapReason, HeldGap, NO_RECORD, Note, Record, RecordId, Run};

pub(super) const SEGMENT_ENDING: &str = ".seg";

/// The log as it was found.
pub(super) struct Found {
    pub(super) segments: VecDeque<Segment>,
    pub(super) cursor: Cursor,
    pub(super) cursor_file: CursorFile,
    is_cursor_lost: bool,
    /// The bytes of the newest segment.
    pub(super) newest: Vec<u8>,
    changes: Vec<Change>,
    /// Of the newest frame; zero when there is none.
    pub(super) position: u64,
    pub(super) last: RecordId,
    /// The record that must stand before the next frame; unknown at first when the cursor is lost.
    expected: Option<RecordId>,
    pub(super) checkpoint: Option<Vec<u8>>,
    /// Whether the newest frame has a checkpoint.
    has_newest_checkpoint: bool,
    pub(super) runs: Vec<Run>,
    pub(super) notes: Vec<Note>,
    pub(super) records_corrupt: u64,
}

/// What has to be done to a file, once all of them were read.
enum Change {
    PutAside(String),
    Remove(String),
    Truncate(String, u64),
}

pub(super) fn segment_name(position: u64) -> String {
    format!("{position:020}{SEGMENT_ENDING}")
}

fn position_of(name: &str) -> Option<u64> {
    name.strip_suffix(SEGMENT_ENDING)?.parse().ok()
}

pub(super) fn recover(disk: &dyn Disk, files: &[(String, u64)]) -> io::Result<Found> {
    let mut found = read(disk, files)?;
    found.change(disk, files)?;
    Ok(found)
}

/// What opening would find, without a change.
pub(super) fn read(disk: &dyn Disk, files: &[(String, u64)]) -> io::Result<Found> {
    let (cursor_file, cursor) = CursorFile::read(disk)?;
    let names: Vec<(u64, &(String, u64))> = files
        .iter()
        .filter_map(|file| Some((position_of(&file.0)?, file)))
        .collect();
    let mut found = Found {
        segments: VecDeque::new(),
        cursor_file,
        is_cursor_lost: cursor.is_none(),
        newest: Vec::new(),
        changes: Vec::new(),
        position: 0,
        last: NO_RECORD,
        expected: None,
        checkpoint: None,
        has_newest_checkpoint: true,
        runs: Vec::new(),
        notes: Vec::new(),
        records_corrupt: 0,
        cursor: Cursor::default(),
    };
    if cursor.is_none() && !names.is_empty() {
        found.notes.push(Note::LostCursor);
    }
    found.expected = cursor.as_ref().map(|cursor| cursor.through);
    found.last = found.expected.unwrap_or(NO_RECORD);
    found.cursor = cursor.unwrap_or_default();
    for (index, (first_position, (name, size))) in names.iter().enumerate() {
        let next = names.get(index + 1).map(|(first_position, _)| *first_position);
        if found.add_segment(disk, *first_position, name, *size, next)? == Content::Useless {
            found.notes.push(Note::UnreadableSegment { name: name.clone() });
            found.changes.push(Change::PutAside(name.clone()));
            // The newest checkpoint was in the newest segment.
            found.has_newest_checkpoint &= next.is_some();
        }
    }
    let is_newest_lost = found.is_newest_lost();
    if is_newest_lost || !found.has_newest_checkpoint {
        found.notes.push(Note::LostCheckpoint);
    }
    if is_newest_lost {
        // It goes on behind the cursor, so that no position is used twice.
        found.position = found.position.max(found.cursor.position);
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Usable,
    /// Nothing of it can be understood.
    Useless,
}

impl Found {
    fn add_segment(
        &mut self,
        disk: &dyn Disk,
        first: u64,
        name: &str,
        size: u64,
        next: Option<u64>,
    ) -> io::Result<Content> {
        let is_last = next.is_none();
        // What was released is not needed: the log begins behind it.
        let is_released = next.is_some_and(|next| next <= self.cursor.position);
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let bytes = match disk.read(name, 0, length) {
            Ok(bytes) => bytes,
            Err(_not_needed) if is_released => return Ok(Content::Useless),
            Err(error) => return Err(not_read(name, &error)),
        };
        let scanned = scan(&bytes, first);
        let damaged = scanned.damaged || (scanned.torn_at.is_some() && !is_last);
        let mut length = bytes.len();
        if scanned.frames.is_empty() {
            let is_begun = !scanned.damaged || bytes.iter().take(SEGMENT_HEAD_BYTES).all(|byte| *byte == 0);
            let is_torn = is_last && (is_begun || bytes.len() < SEGMENT_HEAD_BYTES);
            return Ok(self.drop_frameless(name, size, is_torn));
        }
        if let (Some(end), true) = (scanned.torn_at, is_last) {
            self.notes.push(Note::TornTail {
                bytes: (length - end) as u64,
            });
            length = end;
            self.changes.push(Change::Truncate(name.to_owned(), end as u64));
        }
        if damaged {
            self.notes.push(Note::DamagedSegment { name: name.to_owned() });
        }
        let mut segment = Segment::new(first, damaged);
        segment.bytes = length as u64;
        for frame in &scanned.frames {
            self.add_frame(&mut segment, frame, &bytes);
        }
        if !segment.index.is_empty() {
            self.segments.push_back(segment);
            self.newest = bytes;
            self.newest.truncate(length);
        }
        Ok(Content::Usable)
    }

    /// A newest segment without a frame is a write that never finished; any other one was damaged.
    fn drop_frameless(&mut self, name: &str, size: u64, is_torn: bool) -> Content {
        if !is_torn {
            return Content::Useless;
        }
        self.notes.push(Note::TornTail { bytes: size });
        self.changes.push(Change::Remove(name.to_owned()));
        Content::Usable
    }

    /// Whether the cursor tells of a frame behind all that are left, or of any when none is left.
    fn is_newest_lost(&self) -> bool {
        let Cursor { position, index, .. } = self.cursor;
        let newest_told = if index > 0 {
            position
        } else {
            position.saturating_sub(1)
        };
        self.position < newest_told || (self.segments.is_empty() && position > 0)
    }

    /// All that opening does to the disk but for the writes that make it durable.
    fn change(&mut self, disk: &dyn Disk, files: &[(String, u64)]) -> io::Result<()> {
        remove_unfinished(disk, files);
        if self.is_cursor_lost {
            let made = self.cursor_file.make(disk, &self.cursor);
            made.map_err(WriteFault::into_io)?;
        }
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::PutAside(name) => put_aside(disk, &name),
                Change::Remove(name) => disk.remove(&name)?,
                Change::Truncate(name, length) => self.truncate(disk, &name, length),
            }
        }
        Ok(())
    }

    /// A segment with an end that cannot be cut is not written to again.
    fn truncate(&mut self, disk: &dyn Disk, name: &str, length: u64) {
        if disk.truncate(name, length).is_ok() {
            return;
        }
        self.notes.push(Note::DamagedSegment { name: name.to_owned() });
        if let Some(segment) = self.segments.back_mut().filter(|segment| segment.name() == name) {
            segment.is_damaged = true;
        }
    }

    fn add_frame(&mut self, segment: &mut Segment, frame: &Frame, file: &[u8]) {
        let Some((records, packed)) = decode_frame(&file[frame.offset..frame.offset + frame.length]) else {
            return;
        };
        let checkpoint = packed.and_then(|packed| packed.unpack());
        if checkpoint.is_none() && frame.has_checkpoint() {
            return;
        }
        if frame.head.position <= self.position {
            return;
        }
        self.note_loss_before(&frame.head);
        self.begin_cursor(&frame.head);
        self.position = frame.head.position;
        self.last = frame.head.last();
        self.expected = Some(self.last);
        self.has_newest_checkpoint = checkpoint.is_some();
        segment.has_checkpoints |= checkpoint.is_some();
        // An older one than the newest frame's is still better than none.
        self.checkpoint = checkpoint.or(self.checkpoint.take());
        for (index, record) in (0u32..).zip(&records) {
            segment.schemas.insert(record.schema);
            if self.cursor.is_before(frame.head.position, index) {
                add_to_runs(&mut self.runs, record);
            }
        }
        segment
            .index
            .push(Entry::new(&frame.head, frame.offset as u64, frame.length));
    }

    /// Without its cursor the log begins with the first frame that is left: nobody knows what was before it, but what is
    /// lost behind it, now or before the first release, is known.
    fn begin_cursor(&mut self, head: &FrameHead) {
        if self.is_cursor_lost && self.position == 0 {
            self.cursor.position = head.position;
            self.cursor.through = head.previous;
        }
    }

    /// Each frame names the record before it: when that is not the last one seen, something between is missing.
    fn note_loss_before(&mut self, head: &FrameHead) {
        let is_released = head.position < self.cursor.position;
        if is_released || (head.position == self.cursor.position && self.cursor.index > 0) {
            return;
        }
        let is_first_held = self.position < self.cursor.position;
        let Some(seen) = (if is_first_held {
            Some(self.cursor.through)
        } else {
            self.expected
        }) else {
            return;
        };
        let before = head.previous;
        let after = if before.generation == seen.generation {
            seen.seq
        } else {
            0
        };
        if before != NO_RECORD && before.seq > after {
            let gap = HeldGap {
                generation: before.generation,
                seq_first: after + 1,
                seq_last: before.seq,
                reason: GapReason::Corrupt,
            };
            self.note_gap(gap, self.cursor.position.max(self.position + 1));
        }
    }

    fn note_gap(&mut self, gap: HeldGap, position: u64) {
        let known = self.cursor.gaps.iter().any(|held| {
            held.gap.generation == gap.generation
                && held.gap.seq_first <= gap.seq_first
                && held.gap.seq_last >= gap.seq_last
        });
        if !known {
            self.records_corrupt += gap.seq_last - gap.seq_first + 1;
            self.cursor.add_gap(PlacedGap { gap, position });
        }
    }
}

/// Renames a damaged segment for a person to look at; when even that fails it stays, and is found again.
pub(super) fn put_aside(disk: &dyn Disk, name: &str) {
    if disk.rename(name, &name.replace(SEGMENT_ENDING, ".bad")).is_err() {
        return;
    }
    let Ok(files) = disk.list() else { return };
    let bad: Vec<String> = files
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(".bad"))
        .collect();
    for old in bad.iter().rev().skip(super::BAD_SEGMENTS_MAX) {
        if disk.remove(old).is_err() {
            return;
        }
    }
}

fn add_to_runs(runs: &mut Vec<Run>, record: &Record) {
    if let Some(run) = runs.last_mut()
        && (run.generation, run.kind, run.schema) == (record.id.generation, record.kind, record.schema)
        && run.seq_last.checked_add(1) == Some(record.id.seq)
    {
        run.seq_last = record.id.seq;
        return;
    }
    let RecordId { generation, seq } = record.id;
    runs.push(Run {
        generation,
        seq_first: seq,
        seq_last: seq,
        kind: record.kind,
        schema: record.schema,
    });
}
