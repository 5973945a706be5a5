//! What commands print: the only place that writes to standard output.

use std::io::{self, Write};

/// Prints a line; a reader that went away, such as `head`, ends the output and not the program with a panic.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Tells a person at the terminal what went wrong.
pub(crate) fn error(text: &str) {
    // With standard error gone nobody can be told.
    drop(writeln!(io::stderr().lock(), "{text}"));
}
