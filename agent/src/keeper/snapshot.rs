//! The detectors' memory as a file: replaced whole or not at all.
//!
//! In: opaque bytes. Out: the same, when the file is intact. A lost snapshot costs learning time, no data.
//! ```text
//!  0  4  CRC-32C of the rest, little-endian
//!  4     what the core gave
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// By the clock, so that a replay of weeks writes it now and then as well.
pub(super) const INTERVAL_MS: u64 = 3_600_000;

pub(super) fn read(file: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(file).ok()?;
    let (sum, content) = bytes.split_first_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*sum)).then(|| content.to_vec())
}

pub(super) fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = file.with_extension("tmp");
    let mut new = File::create(&temporary)?;
    new.write_all(&crc32c::crc32c(content).to_le_bytes())?;
    new.write_all(content)?;
    new.sync_all()?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_snapshot_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("detectors");
        assert_eq!(read(&file), None);
        write(&file, b"learned").unwrap();
        assert_eq!(read(&file).as_deref(), Some(b"learned".as_slice()));
        let mut bytes = fs::read(&file).unwrap();
        bytes[6] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(read(&file), None);
    }
}
