//! Compaction: a closed segment is rewritten without its checkpoints, which are most of its bytes.
//!
//! In: a segment that nothing is written to any more. Out: the same frames in less room.
//! The new file is written and synced beside the old one and takes its name in one step: before it, after it, and when
//! a power cut takes the step back, the name stands for a whole file with all records. What cannot be written, for want
//! of room or otherwise, leaves the old file as it is.

use std::io;

use super::disk::Disk;
use super::index::Index;
use super::log::{Entry, Segment};
use super::segment::{Scan, scan, segment_head, without_checkpoint};

/// The newest segments keep their checkpoints: the newest of all is needed, and the others when it is damaged.
pub(super) const SEGMENTS_WHOLE: usize = 2;
const TEMPORARY: &str = "compaction.tmp";

/// Why a segment stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompactionError {
    /// The file is not what was written, or cannot be read.
    Unreadable,
    /// The disk did not take the new file; the next time it may.
    NotWritten,
}

/// Returns how many bytes were written.
pub(super) fn compact(disk: &dyn Disk, segment: &mut Segment) -> Result<u64, CompactionError> {
    let file = read_whole(disk, segment).ok_or(CompactionError::Unreadable)?;
    let (bytes, entries) = rewritten(&file, segment).ok_or(CompactionError::Unreadable)?;
    replace(disk, &segment.name(), &bytes).map_err(|_kept_as_it_was| CompactionError::NotWritten)?;
    segment.bytes = bytes.len() as u64;
    segment.index = Index::packed(&entries);
    segment.has_checkpoints = false;
    Ok(segment.bytes)
}

fn read_whole(disk: &dyn Disk, segment: &Segment) -> Option<Vec<u8>> {
    disk.read(&segment.name(), 0, usize::try_from(segment.bytes).ok()?).ok()
}

/// The new file, and where its frames are; `None` when not all of the segment's frames are there and valid.
fn rewritten(file: &[u8], segment: &Segment) -> Option<(Vec<u8>, Vec<Entry>)> {
    let Scan {
        frames,
        damaged: false,
        torn_at: None,
    } = scan(file, segment.first_position())
    else {
        return None;
    };
    let mut bytes = segment_head(segment.first_position()).to_vec();
    let mut entries = Vec::with_capacity(frames.len());
    for frame in &frames {
        let smaller = without_checkpoint(file, frame)?;
        entries.push(Entry::new(&frame.head, bytes.len() as u64, smaller.len()));
        bytes.extend(smaller);
    }
    let is_same = entries.len() == segment.index.entries().len();
    is_same.then_some((bytes, entries))
}

fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    // What an earlier attempt left is never written to: its file may have got the segment's name.
    match disk.remove(TEMPORARY) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = disk.write(TEMPORARY, 0, bytes).map_err(|fault| fault.into_io());
    if let Err(error) = written.and_then(|()| disk.rename(TEMPORARY, name)) {
        // The room is needed, and the next attempt removes it, too.
        disk.remove(TEMPORARY).unwrap_or_default();
        return Err(error);
    }
    // Without this the old file may come back with its name: that is as good.
    disk.sync_names().unwrap_or_default();
    Ok(())
}

/// Removes what a crash left.
pub(super) fn remove_unfinished(disk: &dyn Disk, files: &[(String, u64)]) {
    if files.iter().any(|(name, _)| name == TEMPORARY) {
        // The next compaction removes it, too.
        disk.remove(TEMPORARY).unwrap_or_default();
    }
}
