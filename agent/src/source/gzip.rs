//! What a gzip file holds, from any offset on.
//!
//! In: an open file. Out: its decompressed bytes. Memory is what one call asks for; going back begins at the front.
//! Damage, and what lies beyond `UNZIPPED_BYTES_MAX`, is the end of the file, and told.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use crate::platform::read_at;

/// What one compressed file may hold: a small file can claim to be endless.
pub(super) const UNZIPPED_BYTES_MAX: u64 = 4 << 30;
const STEP_BYTES: usize = 64 << 10;

/// Whether a file of this name is read as a compressed one.
pub(super) fn is_gzip(name: &str) -> bool {
    name.ends_with(".gz")
}

/// The content of a compressed file.
#[derive(Debug)]
pub(super) struct Unzipped {
    decoder: MultiGzDecoder<FromStart>,
    file: Arc<File>,
    /// Decompressed and not yet left behind.
    window: Vec<u8>,
    /// Where the window begins.
    begin: u64,
    bytes_max: u64,
    is_over: bool,
    is_damaged: bool,
}

impl Unzipped {
    pub(super) fn new(file: Arc<File>, bytes_max: u64) -> Self {
        Self {
            decoder: MultiGzDecoder::new(FromStart {
                file: Arc::clone(&file),
                offset: 0,
            }),
            file,
            window: Vec::new(),
            begin: 0,
            bytes_max,
            is_over: false,
            is_damaged: false,
        }
    }

    /// Decompresses at most `bytes_max` bytes on the way to `offset`; whether it, or the end, is reached.
    pub(super) fn approach(&mut self, offset: u64, bytes_max: usize) -> io::Result<bool> {
        if offset < self.begin {
            *self = Self::new(Arc::clone(&self.file), self.bytes_max);
        }
        let mut left = bytes_max;
        while offset > self.end() && !self.is_over {
            if left == 0 {
                return Ok(false);
            }
            self.begin = self.end();
            self.window.clear();
            self.fill(STEP_BYTES.min(left))?;
            left -= self.window.len().min(left);
        }
        Ok(true)
    }

    /// Fills `buffer` from an `offset` that was approached, as far as the file reaches.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let before = usize::try_from(offset.saturating_sub(self.begin)).unwrap_or(usize::MAX);
        let before = before.min(self.window.len());
        self.window.drain(..before);
        self.begin += before as u64;
        while self.window.len() < buffer.len() && !self.is_over {
            self.fill(buffer.len() - self.window.len())?;
        }
        if offset != self.begin {
            return Ok(0);
        }
        let count = buffer.len().min(self.window.len());
        buffer[..count].copy_from_slice(&self.window[..count]);
        Ok(count)
    }

    /// Whether it ended before its end.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn end(&self) -> u64 {
        self.begin + self.window.len() as u64
    }

    /// Up to `count` bytes more.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        let filled = self.window.len();
        self.window.resize(filled + count, 0);
        let read = self.decoder.read(&mut self.window[filled..]);
        self.window.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.is_over = true,
            Ok(_) if self.end() > self.bytes_max => (self.is_over, self.is_damaged) = (true, true),
            Err(error) if is_damage(&error) => (self.is_over, self.is_damaged) = (true, true),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }
}

/// What the file says, in distinction from what the disk says.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Reads a file that others read at the same time.
#[derive(Debug)]
struct FromStart {
    file: Arc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = read_at(&self.file, buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The content of a whole file of at most `bytes_max` bytes; none when it holds more.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub(crate) fn unzip(file: File, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(file).take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}

/// The first bytes of a file, decompressed when its name says that it is a compressed one.
///
/// # Errors
/// When it cannot be read, or is damaged there.
pub(crate) fn begin_of(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    let file = File::open(path)?;
    if is_compressed(path) {
        MultiGzDecoder::new(file).take(bytes_max).read_to_end(&mut begin)?;
    } else {
        file.take(bytes_max).read_to_end(&mut begin)?;
    }
    Ok(begin)
}

/// The last byte of what a compressed file holds; none when it is empty.
///
/// # Errors
/// When it cannot be read, is damaged, or holds more than is read of one.
pub(crate) fn last_byte(file: File) -> io::Result<Option<u8>> {
    let mut decoder = MultiGzDecoder::new(file).take(UNZIPPED_BYTES_MAX + 1);
    let (mut last, mut step) = (None, vec![0; STEP_BYTES]);
    loop {
        let count = decoder.read(&mut step)?;
        let Some(end) = count.checked_sub(1) else { break };
        last = Some(step[end]);
    }
    match decoder.limit() {
        0 => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds more than 4 GiB")),
        _ => Ok(last),
    }
}

pub(crate) fn is_compressed(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_gzip)
}

#[cfg(test)]
pub(crate) fn zip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        Arc::new(file)
    }

    fn content() -> Vec<u8> {
        let numbers: String = (0..100_000).map(|number| format!("{number} ")).collect();
        numbers.into_bytes()
    }

    #[test]
    fn any_part_comes_in_any_order_in_bounded_steps() {
        let content = content();
        let (first, second) = content.split_at(content.len() / 3);
        let mut unzipped = Unzipped::new(file_of(&[zip(first), zip(second)].concat()), u64::MAX);
        let length = content.len() as u64;
        for offset in [0, 500_000, 7, 200_000, 200_001, length - 3, length] {
            let mut steps = 0;
            while !unzipped.approach(offset, 100_000).unwrap() {
                steps += 1;
            }
            assert!(steps <= 5, "{steps}");
            let mut buffer = [0; 1_000];
            let count = unzipped.read_at(&mut buffer, offset).unwrap();
            let begin = usize::try_from(offset).unwrap();
            let end = content.len().min(begin + 1_000);
            assert_eq!(buffer[..count], content[begin..end]);
            assert!(unzipped.window.len() < 300_000);
        }
        assert!(!unzipped.is_damaged());
    }

    #[test]
    fn what_is_cut_off_changed_or_no_gzip_ends_there_and_is_told() {
        let whole = zip(&content());
        let mut changed = whole.clone();
        let at = changed.len() - 8;
        changed[at] ^= 1;
        for (damaged, is_some) in [
            (&whole[..whole.len() / 2], true),
            (&changed, true),
            (&b"no gzip"[..], false),
        ] {
            let mut unzipped = Unzipped::new(file_of(damaged), u64::MAX);
            let mut buffer = vec![0; 1 << 20];
            let count = unzipped.read_at(&mut buffer, 0).unwrap();
            assert_eq!(count > 0, is_some);
            assert!(buffer[..count] == content()[..count]);
            assert!(unzipped.is_damaged());
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let bomb = zip(&vec![b'x'; 10 << 20]);
        assert!(bomb.len() < 100_000);
        let mut unzipped = Unzipped::new(file_of(&bomb), 1 << 20);
        assert!(unzipped.approach(u64::MAX, 20 << 20).unwrap());
        assert!(unzipped.is_damaged() && unzipped.end() < 2 << 20);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bomb).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(unzip(file, 1 << 20).unwrap(), None);
    }
}
