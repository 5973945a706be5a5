//! What commands print: the only place that writes to standard output.

use std::io::{self, Write};

use anyhow::Error;

/// Prints a line; a reader that went away, such as `head`, ends the output and not the program with a panic.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(printable(text).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Tells a person at the terminal what went wrong.
pub(crate) fn error(text: &str) {
    // With standard error gone nobody can be told.
    drop(writeln!(io::stderr().lock(), "{}", printable(text)));
}

/// An error with its causes, and after them what to do.
#[must_use]
pub(crate) fn told(error: &Error) -> String {
    let (mut whats, mut hints) = (Vec::new(), String::new());
    for cause in error.chain().map(ToString::to_string) {
        let (what, hint) = cause.split_once("\nhint: ").unwrap_or((&cause, ""));
        whats.push(what.to_owned());
        if !hint.is_empty() {
            hints.push_str(&format!("\nhint: {hint}"));
        }
    }
    whats.join(": ") + &hints
}

/// One line of a text of unknown origin: it must not write to the terminal what only looks like ours.
#[must_use]
pub(crate) fn clean(line: &str) -> String {
    line.replace(char::is_control, "\u{fffd}")
}

/// Lines may be several; nothing moves the cursor or changes colors.
fn printable(text: &str) -> String {
    text.replace(
        |character: char| character.is_control() && !"\n\t".contains(character),
        "\u{fffd}",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn what_to_do_comes_after_the_causes() {
        let error: Error = Err::<(), _>(anyhow!("no such file\nhint: copy it"))
            .context("reading x.wasm\nhint: build it")
            .context("case one")
            .unwrap_err();
        assert_eq!(
            told(&error),
            "case one: reading x.wasm: no such file\nhint: build it\nhint: copy it"
        );
    }

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2J\tb\r\nc"), "a\u{fffd}[2J\tb\u{fffd}\nc");
        assert_eq!(clean("a\nok  b"), "a\u{fffd}ok  b");
    }
}
