//! The cursor file: how far the spool was released, and the gaps that were left.
//!
//! In: a cursor to keep. Out: the newest one that was kept, or none.
//! Two slots are written in turn into a file that was allocated at its full size, so that a torn write leaves the
//! other slot, and a full disk does not stop acknowledgements.

use std::io;

use super::disk::{Disk, WriteFault, is_damage, not_read};
use super::{HeldGap, NO_RECORD, RecordId, reason_from_byte, reason_to_byte};

pub(super) const CURSOR_FILE: &str = "cursor";
const MAGIC: &[u8; 8] = b"TWCURSR1";
const SLOT_BYTES: usize = 4096;
const HEAD_BYTES: usize = 60;
const GAP_BYTES: usize = 33;
/// More gaps than this are joined, or the oldest is forgotten and counted.
pub(super) const GAPS_MAX: usize = 100;

/// A gap and the place where it would stand in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlacedGap {
    pub(super) gap: HeldGap,
    /// The position of the first frame that was lost.
    pub(super) position: u64,
}

impl PlacedGap {
    /// Whether it lies in the frame at `position`, and not after this record of that frame.
    pub(super) fn ends_by(&self, position: u64, through: RecordId) -> bool {
        self.position == position && self.gap.generation == through.generation && self.gap.seq_last <= through.seq
    }
}

/// All records before the first `index` of the frame at `position` were acknowledged or are in `gaps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) position: u64,
    pub(super) index: u32,
    /// The last record before that place; generation 0 when there is none.
    pub(super) through: RecordId,
    /// In the order of the log.
    pub(super) gaps: Vec<PlacedGap>,
    /// Gaps that found no room in the file.
    pub(super) gaps_forgotten: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            position: 0,
            index: 0,
            through: NO_RECORD,
            gaps: Vec::new(),
            gaps_forgotten: 0,
        }
    }
}

impl Cursor {
    /// Whether the record at this place is still held.
    pub(super) fn is_before(&self, position: u64, index: u32) -> bool {
        (self.position, self.index) <= (position, index)
    }

    /// Notes a gap, joined to a neighbor where that says the same.
    pub(super) fn add_gap(&mut self, new: PlacedGap) {
        let at = self.gaps.partition_point(|held| held.position <= new.position);
        if let Some(held) = at.checked_sub(1).and_then(|before| self.gaps.get_mut(before))
            && held.gap.generation == new.gap.generation
            && held.gap.reason == new.gap.reason
            && held.gap.seq_last.checked_add(1) == Some(new.gap.seq_first)
        {
            held.gap.seq_last = new.gap.seq_last;
            return;
        }
        self.gaps.insert(at, new);
        if self.gaps.len() > GAPS_MAX {
            self.shrink_gaps();
        }
    }

    /// One gap less: two of one generation become one, which may claim what was received between them (a received
    /// record counts more than a gap); else the oldest is forgotten.
    fn shrink_gaps(&mut self) {
        let pair = self
            .gaps
            .windows(2)
            .position(|pair| pair[0].gap.generation == pair[1].gap.generation);
        let removed = self.gaps.remove(pair.map_or(0, |at| at + 1));
        match pair {
            Some(at) => self.gaps[at].gap.seq_last = removed.gap.seq_last,
            None => self.gaps_forgotten = self.gaps_forgotten.saturating_add(1),
        }
    }
}

/// The file with its two slots.
#[derive(Debug)]
pub(super) struct CursorFile {
    /// Of the newest slot; the next write goes to the other one.
    serial: u64,
}

impl CursorFile {
    /// Reads the newest valid slot; none when the file is missing, too short or damaged: then it is to be made.
    ///
    /// # Errors
    /// When it cannot be read for now.
    pub(super) fn read(disk: &dyn Disk) -> io::Result<(Self, Option<Cursor>)> {
        let file = match disk.read(CURSOR_FILE, 0, 2 * SLOT_BYTES) {
            Err(error) if !is_damage(&error) => return Err(not_read(CURSOR_FILE, &error)),
            read => read.unwrap_or_default(),
        };
        let slots = file.chunks_exact(SLOT_BYTES).filter_map(decode_slot);
        let newest = slots.max_by_key(|(serial, _)| *serial);
        let (serial, cursor) = newest.map_or((0, None), |(serial, cursor)| (serial, Some(cursor)));
        Ok((Self { serial }, cursor))
    }

    /// Slots that were written and cannot be read; with one of two the other one is used.
    ///
    /// # Errors
    /// When the file cannot be read for now.
    pub(super) fn damaged_slots(disk: &dyn Disk) -> io::Result<usize> {
        let file = match disk.read(CURSOR_FILE, 0, 2 * SLOT_BYTES) {
            Err(error) if !is_damage(&error) => return Err(not_read(CURSOR_FILE, &error)),
            read => read.unwrap_or_default(),
        };
        let is_damaged = |slot: &&[u8]| decode_slot(slot).is_none() && slot.iter().any(|byte| *byte != 0);
        Ok(file.chunks_exact(SLOT_BYTES).filter(is_damaged).count())
    }

    /// Makes the file anew at its full size, with this cursor.
    pub(super) fn make(&mut self, disk: &dyn Disk, cursor: &Cursor) -> Result<(), WriteFault> {
        disk.write(CURSOR_FILE, 0, &vec![0; 2 * SLOT_BYTES])?;
        disk.sync_names().map_err(WriteFault::Sync)?;
        self.serial = 0;
        self.keep(disk, cursor)
    }

    pub(super) fn keep(&mut self, disk: &dyn Disk, cursor: &Cursor) -> Result<(), WriteFault> {
        let serial = self.serial + 1;
        let offset = if serial.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        disk.write(CURSOR_FILE, offset, &encode_slot(serial, cursor))?;
        self.serial = serial;
        Ok(())
    }
}

/// As drawn in the module's documentation.
fn encode_slot(serial: u64, cursor: &Cursor) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend(MAGIC);
    slot.extend([0; 4]);
    let gaps = u32::try_from(cursor.gaps.len()).unwrap_or(u32::MAX);
    slot.extend(gaps.to_le_bytes());
    slot.extend(serial.to_le_bytes());
    slot.extend(cursor.position.to_le_bytes());
    slot.extend(cursor.index.to_le_bytes());
    slot.extend(cursor.through.generation.to_le_bytes());
    slot.extend(cursor.through.seq.to_le_bytes());
    slot.extend(cursor.gaps_forgotten.to_le_bytes());
    slot.extend([0; 4]);
    for placed in &cursor.gaps {
        for field in [
            placed.gap.generation,
            placed.gap.seq_first,
            placed.gap.seq_last,
            placed.position,
        ] {
            slot.extend(field.to_le_bytes());
        }
        slot.push(reason_to_byte(placed.gap.reason));
    }
    let sum = crc32c::crc32c(&slot[12..]);
    slot[8..12].copy_from_slice(&sum.to_le_bytes());
    slot.resize(SLOT_BYTES, 0);
    slot
}

fn decode_slot(slot: &[u8]) -> Option<(u64, Cursor)> {
    let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_le_bytes(slot.get(at..at + 4)?.try_into().ok()?));
    let count = short(12)? as usize;
    if slot.get(..8)? != MAGIC || count > GAPS_MAX {
        return None;
    }
    if crc32c::crc32c(slot.get(12..HEAD_BYTES + count * GAP_BYTES)?) != short(8)? {
        return None;
    }
    let mut gaps = Vec::with_capacity(count);
    for at in (0..count).map(|index| HEAD_BYTES + index * GAP_BYTES) {
        let gap = HeldGap {
            generation: number(at)?,
            seq_first: number(at + 8)?,
            seq_last: number(at + 16)?,
            reason: reason_from_byte(*slot.get(at + 32)?)?,
        };
        gaps.push(PlacedGap {
            gap,
            position: number(at + 24)?,
        });
    }
    let cursor = Cursor {
        position: number(24)?,
        index: short(32)?,
        through: RecordId {
            generation: number(36)?,
            seq: number(44)?,
        },
        gaps,
        gaps_forgotten: short(52)?,
    };
    Some((number(16)?, cursor))
}

#[cfg(test)]
mod tests {
    use super::super::GapReason;
    use super::super::disk::MemoryDisk;
    use super::*;

    fn gap(generation: u64, first: u64, last: u64, position: u64) -> PlacedGap {
        let gap = HeldGap {
            generation,
            seq_first: first,
            seq_last: last,
            reason: GapReason::QuotaBytes,
        };
        PlacedGap { gap, position }
    }

    #[test]
    fn the_newest_of_two_slots_is_read_and_the_other_survives_a_torn_write() {
        let disk = MemoryDisk::default();
        let (mut file, none) = CursorFile::read(&disk).unwrap();
        assert_eq!(none, None);
        file.make(&disk, &Cursor::default()).unwrap();
        let cursors: Vec<Cursor> = (1..=3)
            .map(|n| Cursor {
                position: n,
                ..Cursor::default()
            })
            .collect();
        for cursor in &cursors {
            file.keep(&disk, cursor).unwrap();
        }
        assert_eq!(CursorFile::read(&disk).unwrap().1.unwrap().position, 3);
        // The third write, after the one that made the file, went to the first slot: tear it.
        disk.write(CURSOR_FILE, 20, &[0xff; 100]).unwrap();
        assert_eq!(CursorFile::read(&disk).unwrap().1.unwrap().position, 2);
    }

    #[test]
    fn gaps_come_back_and_neighbors_are_joined() {
        let mut cursor = Cursor::default();
        for new in [gap(5, 1, 4, 1), gap(5, 5, 9, 2), gap(6, 1, 1, 3), gap(6, 3, 3, 4)] {
            cursor.add_gap(new);
        }
        assert_eq!(cursor.gaps, [gap(5, 1, 9, 1), gap(6, 1, 1, 3), gap(6, 3, 3, 4)]);
        let (_, read) = decode_slot(&encode_slot(1, &cursor)).unwrap();
        assert_eq!(read, cursor);
    }

    #[test]
    fn more_gaps_than_fit_are_joined_or_forgotten_and_counted() {
        let mut cursor = Cursor::default();
        for generation in 0..=GAPS_MAX as u64 {
            cursor.add_gap(gap(generation, 1, 1, generation));
        }
        assert_eq!((cursor.gaps.len(), cursor.gaps_forgotten), (GAPS_MAX, 1));
        cursor.add_gap(gap(GAPS_MAX as u64, 5, 5, 200));
        assert_eq!((cursor.gaps.len(), cursor.gaps_forgotten), (GAPS_MAX, 1));
        assert_eq!(cursor.gaps.last(), Some(&gap(GAPS_MAX as u64, 1, 5, GAPS_MAX as u64)));
        assert_eq!(encode_slot(1, &cursor).len(), SLOT_BYTES);
    }
}
