//! Looking into a spool from outside: what it holds and what is damaged, beside an agent that may be writing.
//!
//! In: a folder. Out: runs with their ages and sizes, gaps, damage, records. It takes no lock and changes nothing.
//! What changes while it is read is read once more; a write that never ends looks like a torn tail.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::births::Births;
use super::cursor::CursorFile;
use super::disk::{Disk, FileDisk};
use super::log::Segment;
use super::recover::{Found, read};
use super::segment::decode_frame;
use super::{HeldGap, Note, Record, RecordKind, SpoolError};

/// A folder that changes while it is read is read so often.
const LOOKS_MAX: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const BAD_ENDING: &str = ".bad";

/// Consecutive held records of one generation, kind and schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRun {
    pub generation: u64,
    pub seq_first: u64,
    /// Inclusive.
    pub seq_last: u64,
    pub kind: RecordKind,
    pub schema: u64,
    /// When the first and the last of them were written, by the machine's clock.
    pub first_ms: u64,
    pub last_ms: u64,
    /// Of the payloads.
    pub bytes: u64,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// What the next start would say.
    AtStart(Note),
    /// An earlier start put it aside, and told its records as lost.
    PutAside { name: String },
    /// Blocks wait that nobody can read without it.
    NoBirth { schema: u64 },
    /// One of the cursor's two slots; the other one is used.
    CursorSlot,
    /// Gaps for which the cursor had no room: nobody is told which records they were.
    GapsForgotten { count: u32 },
}

/// A spool as it stood at one moment.
pub struct Look {
    disk: FileDisk,
    files: Vec<(String, u64)>,
    found: Found,
    births: Births,
    damaged_slots: usize,
}

impl Look {
    /// Reads the folder's index.
    ///
    /// # Errors
    /// `Unusable` when the folder or a file in it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let mut left = LOOKS_MAX;
        loop {
            left -= 1;
            match Self::once(dir) {
                Ok(look) if look.found.notes.is_empty() || left == 0 => return Ok(look),
                Err(source) if left == 0 => {
                    let dir = dir.to_owned();
                    return Err(SpoolError::Unusable { dir, source });
                }
                _ => std::thread::sleep(BETWEEN_LOOKS),
            }
        }
    }

    fn once(dir: &Path) -> io::Result<Self> {
        let disk = FileDisk::to_look_at(dir);
        let files = disk.list()?;
        Ok(Self {
            found: read(&disk, &files)?,
            births: Births::find(&files),
            damaged_slots: CursorFile::damaged_slots(&disk)?,
            disk,
            files,
        })
    }

    /// All segments and dictionaries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.found.segments.iter().map(|segment| segment.bytes).sum::<u64>() + self.births.bytes()
    }

    /// What was lost and is not acknowledged as such.
    pub fn gaps(&self) -> impl Iterator<Item = HeldGap> + '_ {
        self.found.cursor.gaps.iter().map(|placed| placed.gap)
    }

    /// Everything that is not as it was written; `held` is what `held` returned.
    ///
    /// # Errors
    /// When a dictionary cannot be read for now.
    pub fn damage(&self, held: &[HeldRun]) -> io::Result<Vec<Damage>> {
        let mut damage: Vec<Damage> = self.found.notes.iter().cloned().map(Damage::AtStart).collect();
        let bad = self.files.iter().filter(|(name, _)| name.ends_with(BAD_ENDING));
        damage.extend(bad.map(|(name, _)| Damage::PutAside { name: name.clone() }));
        // With both gone the cursor is lost, which is told.
        damage.extend((self.damaged_slots == 1).then_some(Damage::CursorSlot));
        let count = self.found.cursor.gaps_forgotten;
        damage.extend((count > 0).then_some(Damage::GapsForgotten { count }));
        let of_blocks = held.iter().filter(|run| run.kind == RecordKind::Block);
        let mut schemas: Vec<u64> = of_blocks.map(|run| run.schema).chain(self.births.schemas()).collect();
        schemas.sort_unstable();
        schemas.dedup();
        for schema in schemas {
            if self.birth(schema)?.is_none() {
                damage.push(Damage::NoBirth { schema });
            }
        }
        Ok(damage)
    }

    /// What is held, in the order of the log.
    ///
    /// # Errors
    /// When a segment cannot be read for now.
    pub fn held(&self) -> io::Result<Vec<HeldRun>> {
        let mut runs: Vec<HeldRun> = Vec::new();
        self.each_record(&mut |record, time_ms| {
            add_to_runs(&mut runs, &record, time_ms);
            Ok(())
        })?;
        Ok(runs)
    }

    /// Shows each held record, in the order of the log, with the time at which it was written.
    ///
    /// # Errors
    /// When a segment cannot be read for now, and what `show` returns.
    pub fn each_record(&self, show: &mut dyn FnMut(Record, u64) -> io::Result<()>) -> io::Result<()> {
        for segment in &self.found.segments {
            self.show_segment(segment, show)?;
        }
        Ok(())
    }

    fn show_segment(&self, segment: &Segment, show: &mut dyn FnMut(Record, u64) -> io::Result<()>) -> io::Result<()> {
        for entry in segment.index.entries().iter() {
            let bytes = match self.disk.read(&segment.name(), entry.offset, entry.length) {
                Ok(bytes) => bytes,
                // The agent has removed or rewritten it since: it was acknowledged, or is read by the next look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let records = decode_frame(&bytes).map(|(records, _checkpoint)| records);
            for (index, record) in (0u32..).zip(records.unwrap_or_default()) {
                if self.found.cursor.is_before(entry.position, index) {
                    show(record, entry.time_ms)?;
                }
            }
        }
        Ok(())
    }

    /// The dictionary with this schema; none when it is damaged or missing.
    ///
    /// # Errors
    /// When it cannot be read for now.
    pub fn birth(&self, schema: u64) -> io::Result<Option<Record>> {
        self.births.get(&self.disk, schema)
    }

    /// Smallest seq of this generation that is held or in a gap.
    #[must_use]
    pub fn oldest(&self, generation: u64) -> Option<u64> {
        let runs = self.found.runs.iter().filter(|run| run.generation == generation);
        let gaps = self.gaps().filter(|gap| gap.generation == generation);
        runs.map(|run| run.seq_first).chain(gaps.map(|gap| gap.seq_first)).min()
    }
}

fn add_to_runs(runs: &mut Vec<HeldRun>, record: &Record, time_ms: u64) {
    let bytes = record.payload.len() as u64;
    let (generation, seq) = (record.id.generation, record.id.seq);
    if let Some(run) = runs.last_mut()
        && (run.generation, run.kind, run.schema) == (generation, record.kind, record.schema)
        && run.seq_last.checked_add(1) == Some(seq)
    {
        run.seq_last = seq;
        run.last_ms = time_ms;
        run.bytes += bytes;
        return;
    }
    runs.push(HeldRun {
        generation,
        seq_first: seq,
        seq_last: seq,
        kind: record.kind,
        schema: record.schema,
        first_ms: time_ms,
        last_ms: time_ms,
        bytes,
    });
}
