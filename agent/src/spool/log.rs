//! The spool itself: appends, reads and releases over an index of what is on disk.
//!
//! In: records, acknowledgements. Out: records, gaps.
//! The index has one small entry for each frame that is held (see `index`), not one for each record.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tillwatch_feed::topic::ArchiveId;

use super::births::Births;
use super::compaction::{CompactionError, SEGMENTS_WHOLE, compact};
use super::cursor::CURSOR_FILE;
use super::cursor::{Cursor, CursorFile, PlacedGap};
use super::disk::{Disk, FileDisk, WriteFault};
use super::index::Index;
use super::recover::{put_aside, recover, segment_name};
use super::segment::{FrameHead, SEGMENT_HEAD_BYTES, decode_frame, encode_frame, segment_head};
use super::{
    AGE_STEP_MS_MAX, FRAME_BYTES_MAX, GapReason, HeldGap, NO_RECORD, NewRecord, READ_TRIES_MAX, Record, RecordId,
    Recovery, Run, SpoolCounters, SpoolError, SpoolSettings,
};

/// Frames that cannot be read and whose tries are counted; beyond it the oldest begins anew.
const UNREAD_MAX: usize = 64;

/// A frame that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: u64,
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) first: RecordId,
    pub(super) records: u32,
    pub(super) time_ms: u64,
}

impl Entry {
    pub(super) fn new(head: &FrameHead, offset: u64, length: usize) -> Self {
        Self {
            position: head.position,
            offset,
            length,
            first: head.first,
            records: head.records,
            time_ms: head.time_ms,
        }
    }

    fn seq_end(&self) -> u64 {
        self.first.seq.saturating_add(u64::from(self.records))
    }

    fn last(&self) -> Option<RecordId> {
        let seq = self.seq_end() - 1;
        (self.records > 0).then_some(RecordId {
            generation: self.first.generation,
            seq,
        })
    }

    /// The record's place in this frame.
    fn index_of(&self, id: RecordId) -> Option<u32> {
        let is_here = id.generation == self.first.generation && (self.first.seq..self.seq_end()).contains(&id.seq);
        if is_here {
            u32::try_from(id.seq - self.first.seq).ok()
        } else {
            None
        }
    }

    fn gap_from(&self, index: u32, reason: GapReason) -> Option<HeldGap> {
        let seq_first = self.first.seq + u64::from(index);
        let gap = HeldGap {
            generation: self.first.generation,
            seq_first,
            seq_last: self.seq_end() - 1,
            reason,
        };
        (index < self.records).then_some(gap)
    }
}

/// A file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    first_position: u64,
    pub(super) bytes: u64,
    pub(super) index: Index,
    pub(super) schemas: BTreeSet<u64>,
    /// Leaving them out makes it smaller.
    pub(super) has_checkpoints: bool,
    pub(super) is_damaged: bool,
}

impl Segment {
    pub(super) fn new(first_position: u64, is_damaged: bool) -> Self {
        Self {
            first_position,
            bytes: 0,
            index: Index::default(),
            schemas: BTreeSet::new(),
            has_checkpoints: false,
            is_damaged,
        }
    }

    pub(super) fn name(&self) -> String {
        segment_name(self.first_position)
    }

    pub(super) fn first_position(&self) -> u64 {
        self.first_position
    }
}

/// See the module's promises.
pub struct Spool {
    disk: Arc<dyn Disk>,
    settings: SpoolSettings,
    generation: u64,
    next_seq: u64,
    /// Of the newest frame.
    position: u64,
    last: RecordId,
    /// Never empty of the newest frame once there is one.
    segments: VecDeque<Segment>,
    cursor: Cursor,
    cursor_file: CursorFile,
    /// Whether the file says the same as `cursor`.
    is_cursor_kept: bool,
    births: Births,
    /// Of the newest dictionary, which the next records may need.
    schema_newest: Option<u64>,
    /// What each archive asked for with its last acknowledgement.
    births_wanted: BTreeMap<ArchiveId, Vec<u64>>,
    has_failed: bool,
    /// Records that are not released.
    records_held: u64,
    /// Dropped and not yet taken by the owner.
    dropped: Vec<HeldGap>,
    /// The positions of frames that could not be read, and how often in a row.
    unread: BTreeMap<u64, u32>,
    counters: SpoolCounters,
}

/// After a failed sync the system may show what the disk never got, and call the next sync a success without writing it.
/// So the newest segment, the only one that can hold such a write, is written once more before anything relies on it.
fn make_durable(disk: &dyn Disk, newest: Option<&Segment>, bytes: &[u8]) -> Result<(), WriteFault> {
    if let Some(segment) = newest {
        disk.write(&segment.name(), 0, bytes)?;
    }
    disk.sync_names().map_err(WriteFault::Sync)
}

impl Spool {
    /// Opens the spool in a folder of its own.
    ///
    /// # Errors
    /// `Locked` when another agent has it, `Unusable` when the folder cannot be used.
    pub fn open(
        dir: &Path,
        settings: &SpoolSettings,
        generation: u64,
        now_ms: u64,
    ) -> Result<(Self, Recovery), SpoolError> {
        let disk = Arc::new(FileDisk::open(dir)?);
        Self::open_on(disk, settings, generation, now_ms).map_err(|source| SpoolError::Unusable {
            dir: dir.to_owned(),
            source,
        })
    }

    /// Opens the spool that `disk` holds.
    ///
    /// # Errors
    /// When the folder cannot be listed, a file that is needed cannot be read, or the disk refuses to write: the same
    /// call may succeed later, and nothing is given up.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        settings: &SpoolSettings,
        generation: u64,
        now_ms: u64,
    ) -> io::Result<(Self, Recovery)> {
        let files = disk.list()?;
        let found = recover(&*disk, &files)?;
        make_durable(&*disk, found.segments.back(), &found.newest).map_err(WriteFault::into_io)?;
        let segment_bytes = settings.segment_bytes.min(settings.bytes_max / 4);
        let mut spool = Self {
            disk,
            settings: SpoolSettings {
                segment_bytes,
                ..settings.clone()
            },
            generation,
            next_seq: 1,
            position: found.position,
            last: found.last,
            segments: found.segments,
            cursor: found.cursor,
            cursor_file: found.cursor_file,
            is_cursor_kept: false,
            births: Births::find(&files),
            schema_newest: None,
            births_wanted: BTreeMap::new(),
            has_failed: false,
            records_held: 0,
            dropped: Vec::new(),
            unread: BTreeMap::new(),
            counters: SpoolCounters {
                records_corrupt: found.records_corrupt,
                ..SpoolCounters::default()
            },
        };
        // Births that nothing held needs stay until archives have said what they still ask for.
        spool.remove_released();
        spool.count_held();
        let mut recovery = Recovery {
            runs: found.runs,
            gaps: Vec::new(),
            checkpoint: found.checkpoint,
            previous: (found.last != NO_RECORD).then_some(found.last),
            notes: found.notes,
        };
        spool.drop_aged(now_ms);
        let dropped = spool.take_dropped();
        recovery.runs.retain_mut(|run| trim_run(run, &dropped));
        recovery.gaps = spool.cursor.gaps.iter().map(|placed| placed.gap).collect();
        Ok((spool, recovery))
    }

    /// The name that the next record will get.
    #[must_use]
    pub fn next_id(&self) -> RecordId {
        RecordId {
            generation: self.generation,
            seq: self.next_seq,
        }
    }

    /// Bytes of all segments and dictionaries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + self.births.bytes()
    }

    /// Records that are held.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records_held
    }

    fn count_held(&mut self) {
        let entries = self.segments.iter().map(|segment| segment.index.entries());
        let held = entries
            .flat_map(Cow::into_owned)
            .filter(|entry| entry.position >= self.cursor.position)
            .map(|entry| {
                let released = if entry.position == self.cursor.position {
                    self.cursor.index
                } else {
                    0
                };
                u64::from(entry.records.saturating_sub(released))
            });
        self.records_held = held.sum();
    }

    #[must_use]
    pub fn counters(&self) -> SpoolCounters {
        SpoolCounters {
            gaps_forgotten: u64::from(self.cursor.gaps_forgotten),
            ..self.counters
        }
    }

    /// Whether it must be opened again under a new generation.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The disk, to open the spool again.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// Keeps the records and the checkpoint: all or nothing, durable when it returns.
    ///
    /// # Errors
    /// `Full` and `NotWritten` leave everything as it was, but for what was beyond the bounds; after `Failed` the spool
    /// must be opened again.
    pub fn append(
        &mut self,
        records: &[NewRecord],
        checkpoint: &[u8],
        now_ms: u64,
    ) -> Result<Vec<RecordId>, SpoolError> {
        let (previous, first) = (self.last, self.next_id());
        self.append_frame(previous, first, records, checkpoint, now_ms)?;
        let seqs = first.seq..self.next_seq;
        Ok(seqs.map(|seq| RecordId { seq, ..first }).collect())
    }

    /// Keeps the checkpoint of records that are too many for a frame. They get their numbers, so that the gap which
    /// stands for them can be told; the frame names the last of them as the one before it, so that a crash tells it too.
    ///
    /// # Errors
    /// As of `append`.
    pub fn append_without(&mut self, records: u64, checkpoint: &[u8], now_ms: u64) -> Result<HeldGap, SpoolError> {
        let first = self.next_id();
        let gap = HeldGap {
            generation: first.generation,
            seq_first: first.seq,
            seq_last: first.seq + records - 1,
            reason: GapReason::Refused,
        };
        let id = |seq| RecordId { seq, ..first };
        self.append_frame(id(gap.seq_last), id(gap.seq_last + 1), &[], checkpoint, now_ms)?;
        let position = self.position;
        self.cursor.add_gap(PlacedGap { gap, position });
        self.is_cursor_kept = false;
        self.keep_cursor();
        Ok(gap)
    }

    fn append_frame(
        &mut self,
        previous: RecordId,
        first: RecordId,
        records: &[NewRecord],
        checkpoint: &[u8],
        now_ms: u64,
    ) -> Result<(), SpoolError> {
        if self.has_failed {
            return Err(SpoolError::Failed);
        }
        let too_large = |bytes| SpoolError::TooLarge { bytes };
        let head = FrameHead {
            position: self.position + 1,
            time_ms: now_ms,
            previous,
            first,
            records: u32::try_from(records.len()).map_err(|_too_many| too_large(records.len()))?,
        };
        let bytes = encode_frame(&head, records, checkpoint).ok_or(too_large(usize::MAX))?;
        let largest = bytes.len().max(checkpoint.len());
        if largest > FRAME_BYTES_MAX {
            return Err(too_large(largest));
        }
        self.drop_aged(now_ms);
        self.compact_oldest();
        self.drop_beyond_quota(bytes.len() as u64);
        self.write_frame(&head, &bytes, records)?;
        self.position = head.position;
        self.next_seq = first.seq + records.len() as u64;
        self.last = head.last();
        self.records_held += records.len() as u64;
        self.remove_released();
        Ok(())
    }

    /// A full disk costs nothing that is held: the bounds alone drop records, and the owner tries again.
    fn write_frame(&mut self, head: &FrameHead, bytes: &[u8], records: &[NewRecord]) -> Result<(), SpoolError> {
        self.try_write_frame(head, bytes, records).map_err(|fault| match fault {
            WriteFault::Sync(_) => {
                self.has_failed = true;
                SpoolError::Failed
            }
            fault if fault.is_full() => {
                self.counters.disk_full += 1;
                SpoolError::Full
            }
            WriteFault::Write(error) => SpoolError::NotWritten(error),
        })
    }

    fn try_write_frame(&mut self, head: &FrameHead, frame: &[u8], records: &[NewRecord]) -> Result<(), WriteFault> {
        let bytes_max = self.settings.segment_bytes;
        // In one file the positions have no hole: the next start would take it for damage.
        let is_next = |entry: &Entry| entry.position + 1 == head.position;
        let has_room = |segment: &&mut Segment| {
            let fits = segment.bytes + frame.len() as u64 <= bytes_max;
            fits && !segment.is_damaged && segment.index.entries().last().is_some_and(is_next)
        };
        if let Some(segment) = self.segments.back_mut().filter(has_room) {
            extend_segment(&*self.disk, segment, frame)?;
        } else {
            self.segments
                .push_back(begin_segment(&*self.disk, head.position, frame)?);
        }
        let segment = self.segments.back_mut().expect("there is one in both branches");
        segment
            .index
            .push(Entry::new(head, segment.bytes - frame.len() as u64, frame.len()));
        segment.schemas.extend(records.iter().map(|record| record.schema));
        segment.has_checkpoints = true;
        self.counters.frames_written += 1;
        self.counters.bytes_written += frame.len() as u64;
        Ok(())
    }

    /// Leaves checkpoints out before anything is dropped.
    fn drop_beyond_quota(&mut self, more: u64) {
        while self.bytes() + more > self.settings.bytes_max
            && (self.compact_oldest() || self.drop_oldest(GapReason::QuotaBytes))
        {}
    }

    /// Makes one closed segment smaller; false when there is none, or when that failed and is tried again later.
    fn compact_oldest(&mut self) -> bool {
        let closed = self.segments.len().saturating_sub(SEGMENTS_WHOLE);
        let is_due = |segment: &&mut Segment| segment.has_checkpoints && !segment.is_damaged;
        let Some(segment) = self.segments.iter_mut().take(closed).find(is_due) else {
            return false;
        };
        let compacted = compact(&*self.disk, segment);
        match &compacted {
            Ok(bytes) => {
                self.counters.segments_compacted += 1;
                self.counters.bytes_written += bytes;
            }
            Err(error) => {
                self.counters.compactions_failed += 1;
                // What cannot be read is left to reading: it stays as it is, and does not keep the next one waiting.
                segment.has_checkpoints = !matches!(error, CompactionError::Unreadable);
            }
        }
        !matches!(compacted, Err(CompactionError::NotWritten))
    }

    /// Drops segments whose newest frame is too old; `append` does so by itself.
    pub fn drop_aged(&mut self, now_ms: u64) {
        let kept_from = self.oldest_within_age(now_ms);
        let is_aged = |segment: &Segment| {
            let entries = segment.index.entries();
            entries.iter().all(|entry| entry.position < kept_from)
        };
        while self.segments.front().is_some_and(is_aged) && self.drop_oldest(GapReason::QuotaAge) {}
    }

    /// The position of the oldest frame that is young enough. Age is added up from frame to frame, so that a clock that
    /// was set does not make a whole backlog old at once.
    fn oldest_within_age(&self, now_ms: u64) -> u64 {
        let (mut oldest, mut age_ms, mut later_ms) = (self.position + 1, 0u64, now_ms);
        let newest_first = |segment: &Segment| segment.index.entries().into_owned().into_iter().rev();
        let entries = self.segments.iter().rev().flat_map(newest_first);
        for entry in entries {
            age_ms = age_ms.saturating_add(later_ms.saturating_sub(entry.time_ms).min(AGE_STEP_MS_MAX));
            if age_ms > self.settings.age_max_ms {
                break;
            }
            (oldest, later_ms) = (entry.position, entry.time_ms);
        }
        oldest
    }

    /// What was dropped by bytes or by age since the last call.
    pub fn take_dropped(&mut self) -> Vec<HeldGap> {
        std::mem::take(&mut self.dropped)
    }

    /// False when only the segment with the newest frame is left, or the loss cannot be written down first.
    fn drop_oldest(&mut self, reason: GapReason) -> bool {
        let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) else {
            return false;
        };
        let mut cursor = self.cursor.clone();
        let mut gaps: Vec<HeldGap> = Vec::new();
        let entries = oldest.index.entries();
        for entry in entries.iter().filter(|entry| entry.position >= self.cursor.position) {
            let released = if entry.position == self.cursor.position {
                self.cursor.index
            } else {
                0
            };
            if let Some(gap) = entry.gap_from(released, reason) {
                gaps.push(gap);
                // What was refused of this frame is part of the loss.
                let is_part = |placed: &PlacedGap| {
                    placed.position == entry.position
                        && placed.gap.generation == gap.generation
                        && placed.gap.seq_first >= gap.seq_first
                };
                cursor.gaps.retain(|placed| !is_part(placed));
                cursor.add_gap(PlacedGap {
                    gap,
                    position: entry.position,
                });
            }
        }
        if next.first_position > cursor.position {
            (cursor.position, cursor.index) = (next.first_position, 0);
            let last = entries.iter().rev().find_map(Entry::last);
            cursor.through = last.unwrap_or(cursor.through);
        }
        if self.cursor_file.keep(&*self.disk, &cursor).is_err() {
            self.counters.cursor_failures += 1;
            return false;
        }
        self.cursor = cursor;
        self.is_cursor_kept = true;
        self.count_dropped(gaps, reason);
        self.count_held();
        self.remove_released();
        true
    }

    fn count_dropped(&mut self, gaps: Vec<HeldGap>, reason: GapReason) {
        let lost: u64 = gaps.iter().map(|gap| gap.seq_last - gap.seq_first + 1).sum();
        match reason {
            GapReason::QuotaAge => self.counters.records_dropped_age += lost,
            _ => self.counters.records_dropped_bytes += lost,
        }
        for gap in gaps {
            match self.dropped.last_mut() {
                Some(last) if last.generation == gap.generation && last.seq_last + 1 == gap.seq_first => {
                    last.seq_last = gap.seq_last;
                }
                _ => self.dropped.push(gap),
            }
        }
    }

    /// Records from `first` on, at most `count`, all of one generation and without a hole.
    ///
    /// # Errors
    /// `NotHeld`; `Corrupt` when the disk gives back something else than was written, or nothing for
    /// [`READ_TRIES_MAX`] times although it reads other files: its records are a gap from then on; `NotRead` when it
    /// gives back nothing now.
    pub fn read(&mut self, first: RecordId, count: u32) -> Result<Vec<Record>, SpoolError> {
        let mut records: Vec<Record> = Vec::new();
        let mut next = first;
        while (records.len() as u64) < u64::from(count) {
            let Some((segment, at)) = self.find(next) else { break };
            match self.read_frame(segment, at) {
                Ok(Some(frame)) => {
                    self.unread.remove(&self.entry(segment, at).position);
                    records.extend(frame.into_iter().filter(|record| record.id.seq >= next.seq));
                }
                Ok(None) if records.is_empty() => return Err(self.give_up(segment, at)),
                Err(error) if records.is_empty() => return Err(self.on_not_read(segment, at, error)),
                Ok(None) | Err(_) => break,
            }
            next.seq = records.last().map_or(next.seq, |record| record.id.seq + 1);
        }
        records.truncate(count as usize);
        if records.is_empty() {
            Err(SpoolError::NotHeld { id: first })
        } else {
            Ok(records)
        }
    }

    fn find(&self, id: RecordId) -> Option<(usize, usize)> {
        self.segments.iter().enumerate().find_map(|(index, segment)| {
            let entries = segment.index.entries();
            let at = entries.iter().position(|entry| {
                entry
                    .index_of(id)
                    .is_some_and(|record| self.cursor.is_before(entry.position, record))
            });
            at.map(|at| (index, at))
        })
    }

    fn entry(&self, segment: usize, at: usize) -> Entry {
        self.segments[segment].index.entries()[at]
    }

    /// What the disk alone cannot read, and not for want of files or memory, is given up at the last try.
    fn on_not_read(&mut self, segment: usize, at: usize, error: io::Error) -> SpoolError {
        self.counters.not_read += 1;
        let position = self.entry(segment, at).position;
        let tries = self.unread.entry(position).or_default();
        *tries = tries.saturating_add(1);
        let is_last_try = *tries >= READ_TRIES_MAX;
        if self.unread.len() > UNREAD_MAX {
            self.unread.pop_first();
        }
        if is_last_try && self.disk.read(CURSOR_FILE, 0, 1).is_ok() {
            self.unread.remove(&position);
            self.give_up(segment, at)
        } else {
            SpoolError::NotRead(error)
        }
    }

    /// None when what was written is not there any more.
    fn read_frame(&self, segment: usize, at: usize) -> io::Result<Option<Vec<Record>>> {
        let entry = self.entry(segment, at);
        let segment = &self.segments[segment];
        let bytes = match self.disk.read(&segment.name(), entry.offset, entry.length) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let records = decode_frame(&bytes).map(|(records, _packed)| records);
        Ok(records.filter(|records| records.first().is_some_and(|first| first.id == entry.first)))
    }

    /// Records that will never be taken count as lost from now on; their place is free once what is around them is.
    pub fn refuse(&mut self, gap: HeldGap) {
        let first = RecordId {
            generation: gap.generation,
            seq: gap.seq_first,
        };
        let Some((segment, at)) = self.find(first) else { return };
        let position = self.entry(segment, at).position;
        self.cursor.add_gap(PlacedGap { gap, position });
        self.is_cursor_kept = false;
        self.keep_cursor();
    }

    fn give_up(&mut self, segment: usize, at: usize) -> SpoolError {
        let segment = &mut self.segments[segment];
        segment.is_damaged = true;
        let entry = segment.index.remove(at);
        let index = if entry.position == self.cursor.position {
            self.cursor.index
        } else {
            0
        };
        let Some(gap) = entry.gap_from(index, GapReason::Corrupt) else {
            return SpoolError::NotHeld { id: entry.first };
        };
        self.counters.records_corrupt += gap.seq_last - gap.seq_first + 1;
        self.cursor.add_gap(PlacedGap {
            gap,
            position: entry.position,
        });
        self.is_cursor_kept = false;
        self.count_held();
        self.keep_cursor();
        SpoolError::Corrupt { gap }
    }

    /// Everything through this record, in the order of the log, is not needed any more; gaps before it neither.
    /// An id that is neither held nor in a gap changes nothing.
    pub fn release(&mut self, through: RecordId) {
        let held = self.find(through).and_then(|(segment, at)| {
            let entry = self.entry(segment, at);
            Some((entry.position, entry.index_of(through)? + 1, entry.records))
        });
        let mut cursor = self.cursor.clone();
        match held {
            Some((position, index, records)) => {
                let is_whole = index == records;
                (cursor.position, cursor.index) = if is_whole { (position + 1, 0) } else { (position, index) };
                cursor.through = through;
                cursor
                    .gaps
                    .retain(|placed| placed.position >= position && !placed.ends_by(position, through));
            }
            None if release_gap(&mut cursor, through) => {}
            None => return,
        }
        self.cursor = cursor;
        self.is_cursor_kept = false;
        self.count_held();
        self.remove_released();
    }

    /// Whether the cursor is on disk; when it is not, the next release or append tries again.
    fn keep_cursor(&mut self) -> bool {
        if !self.is_cursor_kept {
            self.is_cursor_kept = self.cursor_file.keep(&*self.disk, &self.cursor).is_ok();
            self.counters.cursor_failures += u64::from(!self.is_cursor_kept);
        }
        self.is_cursor_kept
    }

    /// Removes segments that hold nothing any more, but never the one with the newest frame.
    fn remove_released(&mut self) {
        while self.keep_cursor() && self.segments.len() > 1 {
            let is_released = |entry: &Entry| {
                entry.position < self.cursor.position
                    || (entry.position == self.cursor.position && self.cursor.index >= entry.records)
                    || (entry.records == 0)
            };
            let Some(oldest) = self
                .segments
                .pop_front_if(|oldest| oldest.index.entries().iter().all(is_released))
            else {
                break;
            };
            if oldest.is_damaged {
                put_aside(&*self.disk, &oldest.name());
            } else if self.disk.remove(&oldest.name()).is_err() {
                // It is before the cursor: the next start finds and removes it.
                self.counters.cursor_failures += 1;
            }
            self.remove_unneeded_births();
        }
    }

    /// What an archive asks for with its acknowledgement stays until it asks no more, though no held record needs it: the
    /// archive has records that it cannot read without.
    pub fn keep_births_for(&mut self, archive: &ArchiveId, schemas: &[u64]) {
        if self.births_wanted.get(archive).map_or(&[][..], Vec::as_slice) == schemas {
            return;
        }
        self.births_wanted.insert(archive.clone(), schemas.to_vec());
        self.remove_unneeded_births();
    }

    fn remove_unneeded_births(&mut self) {
        let mut needed: BTreeSet<u64> = self
            .segments
            .iter()
            .flat_map(|segment| segment.schemas.iter().copied())
            .collect();
        needed.extend(self.schema_newest);
        needed.extend(self.births_wanted.values().flatten());
        self.births.keep_only(&*self.disk, &needed);
    }

    /// Keeps the dictionary that records with `schema` need; call it before they are appended.
    ///
    /// # Errors
    /// `Full` and `NotWritten` leave everything as it was, also when the sync of its file failed, as the dictionary is
    /// written whole again the next time; `Failed` when the log failed before.
    pub fn put_birth(&mut self, schema: u64, id: RecordId, payload: &[u8]) -> Result<(), SpoolError> {
        if self.has_failed {
            return Err(SpoolError::Failed);
        }
        match self.births.put(&*self.disk, schema, id, payload) {
            Ok(()) => {
                self.schema_newest = Some(schema);
                Ok(())
            }
            Err(fault) if fault.is_full() => {
                self.counters.disk_full += 1;
                Err(SpoolError::Full)
            }
            Err(fault) => Err(SpoolError::NotWritten(fault.into_io())),
        }
    }

    /// The dictionary with this schema; none when it is damaged or missing.
    ///
    /// # Errors
    /// When the disk refuses to read it for now.
    pub fn birth(&self, schema: u64) -> io::Result<Option<Record>> {
        self.births.get(&*self.disk, schema)
    }
}

/// A file with its head and first frame, in one write.
fn begin_segment(disk: &dyn Disk, position: u64, frame: &[u8]) -> Result<Segment, WriteFault> {
    let name = segment_name(position);
    let written = disk.write(&name, 0, &[&segment_head(position), frame].concat());
    let named = written.and_then(|()| disk.sync_names().map_err(WriteFault::Sync));
    named.map_err(|fault| undone(fault, disk.remove(&name)))?;
    let mut segment = Segment::new(position, false);
    segment.bytes = (SEGMENT_HEAD_BYTES + frame.len()) as u64;
    Ok(segment)
}

fn extend_segment(disk: &dyn Disk, segment: &mut Segment, frame: &[u8]) -> Result<(), WriteFault> {
    let name = segment.name();
    let written = disk.write(&name, segment.bytes, frame);
    written.map_err(|fault| undone(fault, disk.truncate(&name, segment.bytes)))?;
    segment.bytes += frame.len() as u64;
    Ok(())
}

/// A write that failed and was undone is a failed write; one that could not be undone, or a failed sync, is worse.
fn undone(fault: WriteFault, undo: io::Result<()>) -> WriteFault {
    match (fault, undo) {
        (WriteFault::Write(_), Err(error)) if error.kind() != io::ErrorKind::NotFound => WriteFault::Sync(error),
        (fault, _) => fault,
    }
}

/// Whether the record was in a gap.
fn release_gap(cursor: &mut Cursor, through: RecordId) -> bool {
    let is_in = |placed: &PlacedGap| {
        placed.gap.generation == through.generation
            && (placed.gap.seq_first..=placed.gap.seq_last).contains(&through.seq)
    };
    let Some(at) = cursor.gaps.iter().position(is_in) else {
        return false;
    };
    let position = cursor.gaps[at].position;
    if cursor.gaps[at].gap.seq_last == through.seq {
        cursor.gaps.drain(..=at);
    } else {
        cursor.gaps[at].gap.seq_first = through.seq + 1;
        cursor.gaps.drain(..at);
    }
    if position > cursor.position {
        (cursor.position, cursor.index, cursor.through) = (position, 0, through);
    }
    true
}

/// Cuts what was dropped off a run's beginning; false when nothing is left.
fn trim_run(run: &mut Run, dropped: &[HeldGap]) -> bool {
    for gap in dropped.iter().filter(|gap| gap.generation == run.generation) {
        if gap.seq_first <= run.seq_first && gap.seq_last >= run.seq_first {
            run.seq_first = gap.seq_last + 1;
        }
    }
    run.seq_first <= run.seq_last
}
