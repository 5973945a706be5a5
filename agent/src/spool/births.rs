//! Dictionaries beside the log, one small file for each schema, kept while any held record needs it.
//!
//! In: a schema, the record that carried the dictionary, its bytes. Out: the same, or nothing when the file is damaged.
//! The file is drawn in the module's documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::disk::{Disk, WriteFault, is_damage, not_read};
use super::{Record, RecordId, RecordKind};

const PREFIX: &str = "birth-";
const TEMPORARY: &str = "birth.tmp";
const HEAD_BYTES: usize = 20;

/// Which schemas are there, with the sizes of their files.
#[derive(Debug, Default)]
pub(super) struct Births {
    sizes: BTreeMap<u64, u64>,
}

fn file_name(schema: u64) -> String {
    format!("{PREFIX}{schema:016x}")
}

fn schema_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

fn decode(schema: u64, bytes: &[u8]) -> Option<Record> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let sum = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let id = RecordId {
        generation: number(4)?,
        seq: number(12)?,
    };
    let payload = bytes.get(HEAD_BYTES..)?.to_vec();
    (crc32c::crc32c(bytes.get(4..)?) == sum).then_some(Record {
        id,
        kind: RecordKind::Birth,
        schema,
        payload,
    })
}

impl Births {
    pub(super) fn find(files: &[(String, u64)]) -> Self {
        Self {
            sizes: files
                .iter()
                .filter_map(|(name, size)| Some((schema_of(name)?, *size)))
                .collect(),
        }
    }

    pub(super) fn schemas(&self) -> impl Iterator<Item = u64> + '_ {
        self.sizes.keys().copied()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sizes.values().sum()
    }

    /// Replaces what was kept for the schema, whole or not at all.
    pub(super) fn put(&mut self, disk: &dyn Disk, schema: u64, id: RecordId, payload: &[u8]) -> Result<(), WriteFault> {
        let mut bytes = vec![0; 4];
        bytes.extend(id.generation.to_le_bytes());
        bytes.extend(id.seq.to_le_bytes());
        bytes.extend(payload);
        let sum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        // What an earlier attempt left must not stay behind a shorter content.
        match disk.remove(TEMPORARY) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(WriteFault::Write(error)),
            _ => disk.write(TEMPORARY, 0, &bytes)?,
        }
        disk.rename(TEMPORARY, &file_name(schema)).map_err(WriteFault::Write)?;
        disk.sync_names().map_err(WriteFault::Write)?;
        self.sizes.insert(schema, bytes.len() as u64);
        Ok(())
    }

    pub(super) fn get(&self, disk: &dyn Disk, schema: u64) -> io::Result<Option<Record>> {
        let Some(size) = self.sizes.get(&schema) else {
            return Ok(None);
        };
        let length = usize::try_from(*size).map_err(io::Error::other)?;
        match disk.read(&file_name(schema), 0, length) {
            Ok(bytes) => Ok(decode(schema, &bytes)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(not_read(&file_name(schema), &error)),
        }
    }

    /// Removes what nothing needs; a file that cannot be removed is tried again the next time.
    pub(super) fn keep_only(&mut self, disk: &dyn Disk, needed: &BTreeSet<u64>) {
        self.sizes
            .retain(|schema, _| needed.contains(schema) || disk.remove(&file_name(*schema)).is_err());
    }
}
