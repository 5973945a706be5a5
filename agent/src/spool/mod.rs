//! The spool: what is on its way to the center, on disk until the center has it.
//!
//! In: records with a checkpoint, how far the center has acknowledged. Out: records again, and after a restart what is
//! still held and the newest checkpoint. Payloads and checkpoints are opaque here.
//! The spool never sends, never decides what comes next, and never asks for the time.
//!
//! # Promises
//! What `append` returned is on disk: all records of one call and their checkpoint, or none of them.
//! Nothing is deleted before it was released, except by the bounds on bytes and age, oldest first, and then a gap says
//! which records and why. A full disk deletes nothing: `append` says so, and works again when there is room.
//! A damaged part leaves a gap too, and so does what the disk alone does not read any more. Opening always succeeds on a
//! readable folder.
//! After a failed sync nothing is accepted any more: the owner opens the spool again under a new generation.
//!
//! # Files
//! ```text
//! lock                     held by the running agent
//! cursor                   how far released, and the gaps: see cursor.rs
//! 00000000000000000001.seg segments, named by the position of their first frame
//! 00000000000000000001.bad damaged segments that are no longer needed, the newest few
//! compaction.tmp           a segment that is being rewritten without its checkpoints: see compaction.rs
//! birth-0123456789abcdef   the dictionary with this schema: see births.rs
//! ```
//! A segment, numbers little-endian:
//! ```text
//!  0  8  "TWSPOOL2"
//!  8  8  position of the first frame
//! 16     frames:
//!        0  4  length of the body
//!        4  4  CRC-32C of the body
//!        8     body:
//!              0  8  position: counts frames, from 1, through all segments and generations
//!              8  8  UTC milliseconds of the machine's clock when it was written, whatever time the records tell of
//!             16  8  generation ┐ of the last record before this frame,
//!             24  8  seq        ┘ zero when there was none
//!             32  8  generation ┐ of the first record of this frame;
//!             40  8  seq        ┘ the others count on from it
//!             48  4  number of records n
//!             52  4  length of the checkpoint; bit 31 is set when it is compressed with zstd, as all new ones are;
//!                    ff ff ff ff when it was left out
//!             56  n × 13: schema 8, kind 1 (1 birth, 2 block, 3 finding), length of the payload 4
//!             ..     payloads, then the checkpoint
//! ```
//! A frame without records keeps a checkpoint alone. The newest frame is never removed: it holds the checkpoint.
//! Older checkpoints are needed only while the frames behind them may turn out to be damaged: all segments but the
//! newest two are rewritten without them.
//!
//! `cursor` is 8,192 bytes from its making on: two slots of 4,096, written in turn, of which the one with the larger
//! serial and a good sum counts:
//! ```text
//!  0  8  "TWCURSR1"
//!  8  4  CRC-32C of bytes 12 to the end of the gaps
//! 12  4  number of gaps g, at most 100
//! 16  8  serial, one more with each write
//! 24  8  position ┐ everything before
//! 32  4  index    ┘ this place is released
//! 36  8  generation ┐ of the last
//! 44  8  seq        ┘ released record
//! 52  4  gaps forgotten
//! 56  4  zero
//! 60  g × 33: generation 8, first seq 8, last seq 8, position 8, reason 1
//!        (1 bytes, 2 age, 3 corrupt, 4 refused, 0 unknown)
//! .. 4096  zero
//! ```
//! `birth-*` is written whole under another name and renamed:
//! ```text
//!  0  4  CRC-32C of the rest
//!  4  8  generation ┐ of the record that
//! 12  8  seq        ┘ carried it
//! 20     payload
//! ```
//! `compaction.tmp` is a segment; `*.bad` is one that was put aside as it was; `lock` is empty.

mod segment;
mod cursor;
mod births;
mod index;
mod recover;
mod compaction;
mod log;
mod look;
pub mod disk;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod look_tests;

use std::io;
use std::path::PathBuf;

pub use disk::{Disk, FileDisk, MemoryDisk, WriteFault};
pub use log::Spool;
pub use look::{Damage, HeldRun, Look};
pub use tillwatch_core::{HeldGap, NewRecord, RecordKind, Run};
pub use tillwatch_feed::message::{GapReason, RecordId};

/// Stands where there is no record yet.
const NO_RECORD: RecordId = RecordId { generation: 0, seq: 0 };
/// A frame with its records may not be larger.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The time between two frames counts for at most this: a machine that is off, and a clock that is set, age nothing more.
pub const AGE_STEP_MS_MAX: u64 = 3_600_000;
/// A frame that alone cannot be read is tried so often in a row while the agent runs; then it counts as damaged.
pub const READ_TRIES_MAX: u32 = 5;
/// Damaged segments that are kept for a person to look at.
pub const BAD_SEGMENTS_MAX: usize = 4;

/// Bounds of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// All segments and dictionaries together; the newest frame is kept even beyond it.
    pub bytes_max: u64,
    /// Segments whose newest frame is older are dropped; see `AGE_STEP_MS_MAX`.
    pub age_max_ms: u64,
    /// A new segment begins when this is reached; at most a quarter of `bytes_max`.
    pub segment_bytes: u64,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
            age_max_ms: 14 * 24 * 3_600_000,
            segment_bytes: 256 << 10,
        }
    }
}

/// A record that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: RecordId,
    pub kind: RecordKind,
    pub schema: u64,
    pub payload: Vec<u8>,
}

/// Something that a person should know about the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The end of the newest segment was cut off: a write that never finished.
    TornTail { bytes: u64 },
    /// A segment has damage; what was lost became gaps.
    DamagedSegment { name: String },
    /// Nothing of a segment could be understood, and it was put aside.
    UnreadableSegment { name: String },
    /// Everything held is sent again.
    LostCursor,
    /// What came after the newest checkpoint that is left was lost but for its records.
    LostCheckpoint,
}

/// What was found at opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// What is held, oldest first.
    pub runs: Vec<Run>,
    pub gaps: Vec<HeldGap>,
    /// The newest one.
    pub checkpoint: Option<Vec<u8>>,
    /// The last record of the generation before.
    pub previous: Option<RecordId>,
    pub notes: Vec<Note>,
}

/// What the spool counts from opening on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounters {
    pub frames_written: u64,
    pub bytes_written: u64,
    pub records_dropped_bytes: u64,
    pub records_dropped_age: u64,
    pub records_corrupt: u64,
    /// Gaps that no longer fit into the cursor file, since the spool exists.
    pub gaps_forgotten: u64,
    /// Times that the cursor could not be written; it is tried again with the next release.
    pub cursor_failures: u64,
    /// Times that the disk refused to read what is held.
    pub not_read: u64,
    /// Times that there was no room on the disk.
    pub disk_full: u64,
    /// Closed segments that were rewritten without their checkpoints.
    pub segments_compacted: u64,
    /// Times that this failed: the segment stays as it was.
    pub compactions_failed: u64,
}

/// Why the spool did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{} is in use by another agent\nhint: one agent runs per state directory; stop the other one, or set another state_dir", dir.display())]
    Locked { dir: PathBuf },
    #[error("cannot use {}\nhint: the folder must exist or be creatable, and it and its files must belong to the user that runs the agent; what the disk cannot read any more may be moved away: the center is told which records are lost, and without the newest segment lines may count twice", dir.display())]
    Unusable {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Nothing was written; the same call may succeed later.
    #[error("no room on the disk of the spool")]
    Full,
    /// Nothing was written; the same call may succeed later.
    #[error("the spool could not be written")]
    NotWritten(#[source] io::Error),
    /// Nothing is accepted until the spool is opened again under a new generation.
    #[error("a sync of the spool failed")]
    Failed,
    #[error("a frame of {bytes} bytes is larger than {FRAME_BYTES_MAX}")]
    TooLarge { bytes: usize },
    /// The disk refused to read; the same call may succeed later.
    #[error("the spool could not be read")]
    NotRead(#[source] io::Error),
    /// The records are counted as lost from now on.
    #[error("records {} to {} of generation {:016x} are damaged", gap.seq_first, gap.seq_last, gap.generation)]
    Corrupt { gap: HeldGap },
    #[error("record {} of generation {:016x} is not held", id.seq, id.generation)]
    NotHeld { id: RecordId },
}

fn reason_to_byte(reason: GapReason) -> u8 {
    match reason {
        GapReason::QuotaBytes => 1,
        GapReason::QuotaAge => 2,
        GapReason::Corrupt => 3,
        GapReason::Refused => 4,
        GapReason::Unknown => 0,
    }
}

fn reason_from_byte(byte: u8) -> Option<GapReason> {
    [
        GapReason::QuotaBytes,
        GapReason::QuotaAge,
        GapReason::Corrupt,
        GapReason::Refused,
        GapReason::Unknown,
    ]
    .into_iter()
    .find(|reason| reason_to_byte(*reason) == byte)
}
