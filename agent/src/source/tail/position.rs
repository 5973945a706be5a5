//! How far a log was read: which part by its identity and first bytes, the offset, and what came before.

use std::io;

use super::part::{FINGERPRINT_BYTES_MAX, Fingerprint, Part};
use crate::platform::{FileId, file_id};
use crate::source::modified_ms;
use crate::source::progress::{ProgressError, Reader, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) id: FileId,
    /// When the file had last changed as we read it: orders it among its followers.
    pub(super) modified_ms: u64,
    pub(super) fingerprint: Fingerprint,
    pub(super) offset: u64,
    /// Inside a line that is too long.
    pub(super) skipping: bool,
    /// Bytes of that line which were left out so far: they are told with its end.
    pub(super) skipped: u64,
    /// Parts up to this time were read, or left because they were there before us.
    pub(super) before_ms: u64,
    /// The last of these: its time may yet change.
    pub(super) before: Fingerprint,
}

impl Position {
    pub(super) fn begin_of(part: &Part) -> io::Result<Self> {
        let metadata = part.metadata()?;
        Ok(Self {
            id: file_id(&metadata),
            modified_ms: modified_ms(&metadata),
            fingerprint: Fingerprint::default(),
            offset: 0,
            skipping: false,
            skipped: 0,
            before_ms: 0,
            before: Fingerprint::default(),
        })
    }

    /// What is compressed does not grow: whoever names it wants it read.
    pub(super) fn go_to_end(&mut self, part: &Part) -> io::Result<()> {
        if part.is_gzip() {
            return Ok(());
        }
        self.offset = part.metadata()?.len();
        self.fingerprint = part.head(self.offset)?;
        let mut last = [b'\n'];
        part.read_at(&mut last, self.offset.saturating_sub(1))?;
        self.skipping = last != *b"\n";
        Ok(())
    }

    /// The fingerprint always covers the first min(offset, FINGERPRINT_BYTES_MAX) bytes.
    pub(super) fn advance(&mut self, data: &[u8]) {
        self.fingerprint.extend(data);
        self.offset += data.len() as u64;
    }

    /// Whether `part` is the one that was read up to this position; false when it was truncated or replaced.
    pub(super) fn is_in(&self, part: &Part) -> io::Result<bool> {
        if self.offset == 0 {
            return self.may_begin(part);
        }
        Ok(!part.is_shorter_than(self.offset)? && part.begins_with(self.fingerprint)?)
    }

    /// Nothing was read, so only its inode tells, which an older part may have by now: it was compressed meanwhile.
    fn may_begin(&self, part: &Part) -> io::Result<bool> {
        let metadata = part.metadata()?;
        let is_same = file_id(&metadata).inode == self.id.inode && modified_ms(&metadata) >= self.modified_ms;
        Ok(is_same && !self.was_before(part)?)
    }

    /// Whether so little was read that another file may begin with the same.
    pub(super) fn is_weak(&self) -> bool {
        self.fingerprint.length < FINGERPRINT_BYTES_MAX
    }

    /// What changed later was not read.
    pub(super) fn read_through_ms(&self) -> u64 {
        self.modified_ms.max(self.before_ms)
    }

    /// Whether `part` is the last of those that came before.
    pub(super) fn was_before(&self, part: &Part) -> io::Result<bool> {
        Ok(self.before.length > 0 && part.begins_with(self.before)?)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .number(self.id.device)
            .number(self.id.inode)
            .number(self.modified_ms);
        writer
            .number(self.fingerprint.length)
            .number(u64::from(self.fingerprint.crc32c));
        let skipping = if self.skipping { self.skipped + 1 } else { 0 };
        writer.number(self.offset).number(skipping);
        writer
            .number(self.before_ms)
            .number(self.before.length)
            .number(u64::from(self.before.crc32c));
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ProgressError> {
        let mut reader = Reader::new(bytes)?;
        let mut position = Self {
            id: FileId {
                device: reader.number()?,
                inode: reader.number()?,
            },
            modified_ms: reader.number()?,
            fingerprint: fingerprint(&mut reader)?,
            offset: reader.number()?,
            skipping: false,
            skipped: 0,
            before_ms: 0,
            before: Fingerprint::default(),
        };
        if let Some(skipped) = reader.number()?.checked_sub(1) {
            (position.skipping, position.skipped) = (true, skipped);
        }
        // An earlier agent did not write down what came before.
        if !reader.is_empty() {
            position.before_ms = reader.number()?;
            position.before = fingerprint(&mut reader)?;
        }
        reader.finish()?;
        Ok(position)
    }
}

fn fingerprint(reader: &mut Reader<'_>) -> Result<Fingerprint, ProgressError> {
    Ok(Fingerprint {
        length: reader.number()?.min(FINGERPRINT_BYTES_MAX),
        crc32c: u32::try_from(reader.number()?).unwrap_or(0),
    })
}
