//! One part of a log: a file as it grows, or one that was compressed after its rotation.
//!
//! Offsets and first bytes are those of the lines, whatever the file looks like on the disk.

use std::fs::{File, Metadata};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::platform::{FileId, file_id, read_at};
use crate::source::gzip::{UNZIPPED_BYTES_MAX, Unzipped};

/// How much of the beginning of a file identifies it: enough for the date in an IIS header.
pub(super) const FINGERPRINT_BYTES_MAX: u64 = 1024;

/// An open part.
#[derive(Debug)]
pub(super) struct Part {
    file: Arc<File>,
    unzipped: Option<Mutex<Unzipped>>,
}

impl Part {
    pub(super) fn new(file: File, is_gzip: bool) -> Self {
        let file = Arc::new(file);
        let unzipped = is_gzip.then(|| Mutex::new(Unzipped::new(Arc::clone(&file), UNZIPPED_BYTES_MAX)));
        Self { file, unzipped }
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    pub(super) fn is_gzip(&self) -> bool {
        self.unzipped.is_some()
    }

    pub(super) fn id(&self) -> io::Result<FileId> {
        self.file.metadata().map(|metadata| file_id(&metadata))
    }

    /// How many bytes of lines it surely holds not; of a compressed part nobody knows without reading it.
    pub(super) fn is_shorter_than(&self, offset: u64) -> io::Result<bool> {
        Ok(self.unzipped.is_none() && self.file.metadata()?.len() < offset)
    }

    /// Decompresses at most `bytes_max` bytes on the way to `offset`; whether it can be read from there.
    pub(super) fn approach(&self, offset: u64, bytes_max: usize) -> io::Result<bool> {
        match &self.unzipped {
            Some(unzipped) => lock(unzipped).approach(offset, bytes_max),
            None => Ok(true),
        }
    }

    /// Fills `buffer` from an `offset` that was approached, as far as the part reaches.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.unzipped {
            Some(unzipped) => lock(unzipped).read_at(buffer, offset),
            None => read_at(&self.file, buffer, offset),
        }
    }

    /// Whether the rest of it cannot be decompressed.
    pub(super) fn is_damaged(&self) -> bool {
        self.unzipped
            .as_ref()
            .is_some_and(|unzipped| lock(unzipped).is_damaged())
    }

    /// Of the first `length` bytes, or of all when there are fewer.
    pub(super) fn head(&self, length: u64) -> io::Result<Fingerprint> {
        let mut head = vec![0; usize::try_from(length.min(FINGERPRINT_BYTES_MAX)).unwrap_or(0)];
        let count = match &self.unzipped {
            // Beside the reader, whose place in the file stays.
            Some(_) => Unzipped::new(Arc::clone(&self.file), UNZIPPED_BYTES_MAX).read_at(&mut head, 0)?,
            None => read_at(&self.file, &mut head, 0)?,
        };
        let mut fingerprint = Fingerprint::default();
        fingerprint.extend(&head[..count]);
        Ok(fingerprint)
    }

    /// Whether it begins with these bytes.
    pub(super) fn begins_with(&self, head: Fingerprint) -> io::Result<bool> {
        Ok(self.head(head.length)? == head)
    }
}

fn lock(unzipped: &Mutex<Unzipped>) -> std::sync::MutexGuard<'_, Unzipped> {
    unzipped.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checksum of first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) length: u64,
    pub(super) crc32c: u32,
}

impl Fingerprint {
    pub(super) fn extend(&mut self, data: &[u8]) {
        let room = usize::try_from(FINGERPRINT_BYTES_MAX - self.length)
            .unwrap_or(0)
            .min(data.len());
        self.crc32c = crc32c::crc32c_append(self.crc32c, &data[..room]);
        self.length += room as u64;
    }
}
