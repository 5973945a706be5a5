//! Whole files, of a bounded size.
//!
//! In: a path. Out: bytes or a line, never more than was asked for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A whole file of at most so many bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

/// The one line of a file: a secret's, read each time so that it may be replaced while the agent runs.
pub(crate) fn read_line(path: &Path, bytes_max: u64) -> io::Result<String> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let bytes = read_bounded(path, bytes_max)?;
    let text = String::from_utf8(bytes).map_err(|_binary| wrong("it is not text"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(char::is_control) {
        return Err(wrong("it is not one line"));
    }
    Ok(text.to_owned())
}
