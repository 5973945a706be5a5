//! Granted files and folders: whether they are there, may be read, hold lines or files, and still grow.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use super::finding::{Finding, Part, size, span};
use crate::platform::{open_document, open_log, read_at};
use crate::plugin::grant::Grant;
use crate::source::folder::Folder;
use crate::source::{NAMES_MAX, NamePattern, machine_now_ms, modified_ms};

/// A log that nobody wrote to for so long may be another one than the server's.
const QUIET_MS: u64 = 3_600_000;

/// What was seen, and when the newest file was last written.
pub(super) struct Look {
    pub(super) finding: Finding,
    pub(super) written_ms: Option<u64>,
}

impl From<Finding> for Look {
    fn from(finding: Finding) -> Self {
        let written_ms = None;
        Self { finding, written_ms }
    }
}

pub(super) fn examine(part: Part, grant: &Grant) -> Look {
    match grant {
        Grant::Lines { file, line_bytes_max } => log(part, file, *line_bytes_max, ""),
        Grant::Logs {
            folder,
            pattern,
            line_bytes_max,
            ..
        } => logs(part, folder, pattern, *line_bytes_max),
        Grant::Documents {
            folder,
            pattern,
            document_bytes_max,
            ..
        } => documents(part, folder, pattern, *document_bytes_max),
        Grant::Folder { folder, pattern } => listed(part, folder, pattern),
        Grant::Peer(_) => Finding::good(part, "a peer").into(),
    }
}

fn log(part: Part, file: &Path, line_bytes_max: usize, among: &str) -> Look {
    let shown = file.display();
    let opened = open_log(file).and_then(|opened| Ok((opened.metadata()?, opened)));
    let (metadata, opened) = match opened {
        Ok(opened) => opened,
        Err(error) => return refused(part, file, &error, 'r').into(),
    };
    let written_ms = modified_ms(&metadata);
    let age_ms = machine_now_ms().saturating_sub(written_ms);
    let what = format!(
        "{shown}: {}{among}, last written {} ago",
        size(metadata.len()),
        span(age_ms)
    );
    let finding = if metadata.len() == 0 {
        let hint = "when the server writes, it writes elsewhere: compare `file` with its settings";
        Finding::note(part, format!("{shown}: is empty{among}"), hint)
    } else if !has_line_end(&opened, &metadata, line_bytes_max) {
        let hint = "raise line_max, or read it as documents: longer lines are skipped";
        let what = format!("{shown}: its last {line_bytes_max} bytes hold no line end");
        Finding::bad(part, what, hint)
    } else if age_ms > QUIET_MS {
        let hint = "if the server wrote since, it writes elsewhere: compare `file` with its settings";
        Finding::note(part, what, hint)
    } else {
        Finding::good(part, what)
    };
    Look {
        finding,
        written_ms: (metadata.len() > 0).then_some(written_ms),
    }
}

/// A line that is still being written may be the only one.
fn has_line_end(file: &File, metadata: &Metadata, line_bytes_max: usize) -> bool {
    let most = u64::try_from(line_bytes_max).unwrap_or(u64::MAX);
    if metadata.len() <= most {
        return true;
    }
    let mut last = vec![0; line_bytes_max];
    match read_at(file, &mut last, metadata.len() - most) {
        Ok(read) => last[..read].contains(&b'\n'),
        Err(_unreadable) => false,
    }
}

/// Each log is read; what is said is said of the one that was written last.
fn logs(part: Part, folder: &Path, pattern: &str, line_bytes_max: usize) -> Look {
    let listing = match list(folder, pattern) {
        Ok(listing) => listing,
        Err(error) => return refused(part, folder, &error, 'r').into(),
    };
    match listing.entries.last() {
        None => empty(part, folder, pattern),
        Some(newest) => {
            let among = format!(", the newest of {} that match {pattern}", listing.count);
            log(part, &folder.join(&newest.name), line_bytes_max, &among)
        }
    }
}

fn documents(part: Part, folder: &Path, pattern: &str, document_bytes_max: u64) -> Look {
    let listing = match list(folder, pattern) {
        Ok(listing) => listing,
        Err(error) => return refused(part, folder, &error, 'r').into(),
    };
    let Some(newest) = listing.entries.last() else {
        return empty(part, folder, pattern);
    };
    let path = folder.join(&newest.name);
    if let Err(error) = open_document(&path) {
        return refused(part, &path, &error, 'r').into();
    }
    let age_ms = machine_now_ms().saturating_sub(newest.modified_ms);
    let what = format!(
        "{}: {} files match {pattern}, the newest {} old",
        folder.display(),
        listing.count,
        span(age_ms)
    );
    let too_large = listing.entries.iter().filter(|entry| entry.size > document_bytes_max);
    let finding = match too_large.count() {
        0 => Finding::good(part, what),
        count => {
            let what = format!("{what}; {count} are larger than {}", size(document_bytes_max));
            Finding::bad(part, what, "raise document_max: larger files are skipped")
        }
    };
    Look {
        finding,
        written_ms: Some(newest.modified_ms),
    }
}

/// That it is empty is what is measured.
fn listed(part: Part, folder: &Path, pattern: &str) -> Look {
    match list(folder, pattern) {
        Err(error) => refused(part, folder, &error, 'r').into(),
        Ok(listing) => {
            let count = listing.count;
            Finding::good(part, format!("{}: {count} files match {pattern}", folder.display())).into()
        }
    }
}

/// As the agent lists it; the error is the system's.
fn list(folder: &Path, pattern: &str) -> io::Result<tillwatch_border::Listing> {
    std::fs::read_dir(folder)?;
    let mut listed = Folder::new(folder.to_owned(), NamePattern::new(pattern), NAMES_MAX);
    listed
        .list()
        .map_err(|_unavailable| io::Error::other("it cannot be listed"))
}

fn empty(part: Part, folder: &Path, pattern: &str) -> Look {
    let what = format!("{}: no file matches {pattern}", folder.display());
    let hint = "until one comes nothing is measured: compare the folder and the pattern with what the system writes";
    Finding::note(part, what, hint).into()
}

/// What of the path is missing or closed, and what to do.
pub(super) fn refused(part: Part, path: &Path, error: &io::Error, right: char) -> Finding {
    let what = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => Finding::bad(part, what, hint_missing(path)),
        io::ErrorKind::PermissionDenied => Finding::bad(part, what, hint_closed(path, right)),
        _ => Finding::bad(part, what, "name a file or folder that can be read"),
    }
}

fn hint_missing(path: &Path) -> String {
    let there = path.ancestors().skip(1).find(|ancestor| ancestor.exists());
    match there {
        Some(there) if Some(there) != path.parent() => {
            format!(
                "{} is there and nothing of it below: correct the path, or mount it",
                there.display()
            )
        }
        _ => "correct the path; when it comes later, nothing is to be done".to_owned(),
    }
}

/// The first folder of its path that may not be gone through, or it itself.
fn hint_closed(path: &Path, right: char) -> String {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let is_closed =
        |step: &&&Path| std::fs::metadata(step).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let closed = way.iter().find(is_closed).and_then(|step| step.parent());
    let user = rustix::process::geteuid().as_raw();
    match closed {
        Some(folder) => format!("let user {user} through: setfacl -m u:{user}:x {}", folder.display()),
        None if path.is_dir() => format!(
            "let user {user} list it: setfacl -m u:{user}:{right}x {}",
            path.display()
        ),
        None => format!(
            "let user {user} read it, also after its rotation: setfacl -m u:{user}:{right} {}, or make the user a member of its group",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;
    use std::time::{Duration, SystemTime};

    fn part() -> Part {
        Part::Source("p".to_owned(), "s".to_owned())
    }

    fn lines(file: &Path) -> Finding {
        let grant = Grant::Lines {
            file: file.to_owned(),
            line_bytes_max: 16,
        };
        examine(part(), &grant).finding
    }

    #[test]
    fn a_log_is_good_while_it_grows_and_each_other_state_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.log");
        let missing = lines(&file);
        assert!(
            missing.is_bad() && missing.hint.starts_with("correct the path"),
            "{missing:?}"
        );
        let far = lines(&folder.path().join("a/b/x.log"));
        assert!(
            far.hint
                .starts_with(&format!("{} is there and nothing", folder.path().display())),
            "{far:?}"
        );

        std::fs::write(&file, "").unwrap();
        assert_eq!(lines(&file).state, State::Note);
        std::fs::write(&file, "a line\n").unwrap();
        assert_eq!(lines(&file).state, State::Good);
        std::fs::write(&file, "a line\nand then no line end any more").unwrap();
        let endless = lines(&file);
        assert!(endless.is_bad() && endless.hint.contains("line_max"), "{endless:?}");

        std::fs::write(&file, "a line\n").unwrap();
        let old = SystemTime::now() - Duration::from_secs(5 * 3_600);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let quiet = lines(&file);
        assert!(
            quiet.state == State::Note && quiet.what.contains("last written 5 h ago"),
            "{quiet:?}"
        );
        assert!(lines(folder.path()).is_bad());
    }

    #[test]
    fn of_many_logs_the_newest_is_looked_at_and_a_pattern_without_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let grant = Grant::Logs {
            folder: folder.path().to_owned(),
            pattern: "*.log".to_owned(),
            line_bytes_max: 16,
            files_max: 9,
        };
        let look = examine(part(), &grant);
        assert!(look.finding.state == State::Note && look.written_ms.is_none());
        for name in ["a.log", "b.log", "c.txt"] {
            std::fs::write(folder.path().join(name), "x\n").unwrap();
        }
        let look = examine(part(), &grant);
        assert!(
            look.finding.state == State::Good && look.finding.what.contains("the newest of 2 that match"),
            "{:?}",
            look.finding
        );
        assert!(look.written_ms.is_some());
    }

    #[test]
    fn documents_that_are_larger_than_is_read_are_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.xml"), "0123456789").unwrap();
        for (document_bytes_max, state) in [(10, State::Good), (9, State::Bad)] {
            let grant = Grant::Documents {
                folder: folder.path().to_owned(),
                pattern: "*.xml".to_owned(),
                settle_ms: 0,
                document_bytes_max,
            };
            assert_eq!(examine(part(), &grant).finding.state, state, "{document_bytes_max}");
        }
    }

    /// Root may read everything, so that only what is said is looked at here.
    #[test]
    fn who_may_not_read_is_told_how_to_be_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.log");
        std::fs::write(&file, "x\n").unwrap();
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let user = rustix::process::geteuid().as_raw();
        let told = refused(part(), &file, &denied, 'r');
        assert!(
            told.hint.contains(&format!("setfacl -m u:{user}:r {}", file.display())),
            "{told:?}"
        );
        let told = refused(part(), folder.path(), &denied, 'r');
        assert!(told.hint.contains(&format!("setfacl -m u:{user}:rx")), "{told:?}");
    }
}
