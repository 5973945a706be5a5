//! What the agent's spool takes, read from its files while it runs: by the drawing in `agent/src/spool/mod.rs` and by no
//! code of the agent.
//!
//! In: the folder of the spool. Out: each record that stood in a valid frame, once. It writes nothing, and an open file
//! stays readable when the spool deletes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tillwatch_feed::codec::decode_body;
use tillwatch_feed::message::{Birth, Body, Interval, RecordId};

use super::history::{Kept, Kind, Values};

const HEAD_BYTES: u64 = 16;
const FRAME_HEAD_BYTES: usize = 8;
const BODY_HEAD_BYTES: usize = 56;
const RECORD_HEAD_BYTES: usize = 13;
/// Larger ones are not read in one piece; the spool's own bound.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// A segment that was seen.
struct Segment {
    file: File,
    inode: u64,
    /// What comes behind was not read yet.
    read: u64,
}

/// Follows a spool.
pub struct SpoolReader {
    folder: PathBuf,
    segments: BTreeMap<PathBuf, Segment>,
    births: BTreeMap<u64, Birth>,
    pub kept: BTreeMap<RecordId, Kept>,
    /// What was kept last.
    pub newest: Option<RecordId>,
}

impl SpoolReader {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            segments: BTreeMap::new(),
            births: BTreeMap::new(),
            kept: BTreeMap::new(),
            newest: None,
        }
    }

    /// Reads on, in all segments that are there and in those that were.
    ///
    /// # Errors
    /// When a record says something else than before, or cannot be understood.
    pub fn read(&mut self) -> Result<()> {
        self.find()?;
        let mut segments = std::mem::take(&mut self.segments);
        for segment in segments.values_mut() {
            self.read_segment(segment)?;
        }
        segments.retain(|path, segment| std::fs::metadata(path).is_ok_and(|found| found.ino() == segment.inode));
        self.segments = segments;
        Ok(())
    }

    fn find(&mut self) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Ok(()); // it was not started yet
        };
        for path in entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()? {
            if path.extension().is_none_or(|extension| extension != "seg") {
                continue;
            }
            // It may be gone again.
            let Ok(file) = File::open(&path) else { continue };
            let inode = file.metadata()?.ino();
            let is_known = self.segments.get(&path).is_some_and(|known| known.inode == inode);
            if !is_known {
                let segment = Segment {
                    file,
                    inode,
                    read: HEAD_BYTES,
                };
                if let Some(mut old) = self.segments.insert(path, segment) {
                    self.read_segment(&mut old)?;
                }
            }
        }
        Ok(())
    }

    fn read_segment(&mut self, segment: &mut Segment) -> Result<()> {
        let length = segment.file.metadata()?.len();
        if length <= segment.read {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(length - segment.read)?];
        let Ok(()) = segment.file.read_exact_at(&mut bytes, segment.read) else {
            return Ok(()); // an unfinished write was cut off
        };
        let mut rest = bytes.as_slice();
        while let Some((body, after)) = frame(rest) {
            self.take(body)?;
            segment.read += (rest.len() - after.len()) as u64;
            rest = after;
        }
        Ok(())
    }

    fn take(&mut self, body: &[u8]) -> Result<()> {
        let (head, records) = body
            .split_at_checked(BODY_HEAD_BYTES)
            .context("a frame without a head")?;
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let count = usize::try_from(u32::from_le_bytes(head[48..52].try_into()?))?;
        let (generation, first) = (number(32), number(40));
        let (heads, mut payloads) = records
            .split_at_checked(count * RECORD_HEAD_BYTES)
            .context("a frame without its records' heads")?;
        for (seq, head) in (first..).zip(heads.chunks_exact(RECORD_HEAD_BYTES)) {
            let schema = u64::from_le_bytes(head[..8].try_into()?);
            let length = usize::try_from(u32::from_le_bytes(head[9..13].try_into()?))?;
            let (payload, after) = payloads
                .split_at_checked(length)
                .context("a frame without its payloads")?;
            payloads = after;
            let kept = self.record(schema, head[8], payload)?;
            let id = RecordId { generation, seq };
            match self.kept.insert(id, kept.clone()) {
                Some(before) => ensure!(before == kept, "{id:?} was {before:?} and became {kept:?}"),
                None => self.newest = Some(id),
            }
        }
        Ok(())
    }

    fn record(&mut self, schema: u64, said: u8, payload: &[u8]) -> Result<Kept> {
        let body = decode_body(payload).context("a record of the spool")?;
        let (kind, values) = match body {
            Body::Birth(birth) => {
                self.births.insert(birth.schema, birth);
                (Kind::Birth, Values::new())
            }
            Body::Block(block) => {
                let birth = self.births.get(&schema).context("a block before its birth")?;
                (Kind::Block, sold(birth, &block.intervals))
            }
            Body::Finding(_) => (Kind::Finding, Values::new()),
            Body::Gap(_) => bail!("a gap among the records of the spool"),
        };
        ensure!(kind_byte(kind) == said, "a record of another kind than its head says");
        Ok(Kept { kind, schema, values })
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Birth => 1,
        Kind::Block => 2,
        Kind::Finding => 3,
    }
}

/// The body of the first frame, and what comes behind it; none while it is not whole.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD_BYTES)?;
    let length = usize::try_from(u32::from_le_bytes(head[..4].try_into().ok()?)).ok()?;
    let sum = u32::from_le_bytes(head[4..].try_into().ok()?);
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let (body, after) = rest.split_at_checked(length)?;
    (crc32c::crc32c(body) == sum).then_some((body, after))
}

/// What these intervals say of the numbered sales.
pub fn sold(birth: &Birth, intervals: &[Interval]) -> Values {
    let role = |series: u32| {
        let series = birth.series.iter().find(|known| known.id == series)?;
        let metric = birth.metrics.get(usize::try_from(series.metric).ok()?)?;
        Some(metric.role.as_str())
    };
    let mut values = Values::new();
    for interval in intervals {
        for row in &interval.rows {
            let sold = match role(row.series) {
                Some("sales.count") => &mut values.entry(interval.start_ms).or_default().transactions,
                Some("sales.amount") => &mut values.entry(interval.start_ms).or_default().amount_minor,
                _ => continue,
            };
            *sold += row.summary.sum;
        }
    }
    values
}
