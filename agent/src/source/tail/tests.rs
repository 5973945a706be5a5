//! No line is lost and none comes twice, whatever a server and an operator do to a log.

use super::*;
use crate::source::gzip::zip;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, SystemTime};

/// A log in a folder, written and rotated as servers do.
struct Log {
    folder: tempfile::TempDir,
    lines_written: Vec<String>,
    /// Of the last change, a minute ago: the system's own times are the same for all that happens within some milliseconds.
    changed: Cell<SystemTime>,
    /// Of a compressed file, as some versions of gzip and logrotate write it.
    has_whole_seconds: bool,
}

impl Log {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            lines_written: Vec::new(),
            changed: Cell::new(whole_second(SystemTime::now()) - Duration::from_mins(1)),
            has_whole_seconds: false,
        }
    }

    /// Some changes fall into one second, and some on its very beginning.
    fn touch(&self, ending: &str) {
        self.changed.set(self.changed.get() + Duration::from_millis(250));
        let file = File::options().write(true).open(self.path(ending)).unwrap();
        file.set_modified(self.changed.get()).unwrap();
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.folder.path().join(format!("access.log{ending}"))
    }

    fn append(&mut self, line: &str) {
        self.append_raw(&format!("{line}\n"));
        self.lines_written.push(line.to_owned());
    }

    fn append_raw(&self, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.path("")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.touch("");
    }

    /// Makes room for a new `.1`.
    fn shift(&self) {
        for (number, compressed) in (1..70).rev().flat_map(|number| [(number, ""), (number, ".gz")]) {
            let from = self.path(&format!(".{number}{compressed}"));
            if from.exists() {
                std::fs::rename(from, self.path(&format!(".{}{compressed}", number + 1))).unwrap();
            }
        }
    }

    /// The compressed file has the time of the plain one.
    fn compress(&self, number: usize) {
        let (from, to) = (format!(".{number}"), format!(".{number}.gz"));
        let Ok(bytes) = std::fs::read(self.path(&from)) else {
            return;
        };
        let modified = self.path(&from).metadata().unwrap().modified().unwrap();
        std::fs::write(self.path(&to), zip(&bytes)).unwrap();
        let file = File::options().write(true).open(self.path(&to)).unwrap();
        let modified = if self.has_whole_seconds {
            whole_second(modified)
        } else {
            modified
        };
        file.set_modified(modified).unwrap();
        std::fs::remove_file(self.path(&from)).unwrap();
    }

    fn rotate_by_rename(&self) {
        if self.path("").exists() {
            self.shift();
            std::fs::rename(self.path(""), self.path(".1")).unwrap();
        }
    }

    fn rotate_by_copy(&self) {
        if self.path("").exists() {
            self.shift();
            std::fs::copy(self.path(""), self.path(".1")).unwrap();
            self.touch(".1");
            File::options()
                .write(true)
                .open(self.path(""))
                .unwrap()
                .set_len(0)
                .unwrap();
            self.touch("");
        }
    }

    fn settings(&self) -> TailSettings {
        TailSettings {
            rotation_settle_ms: 0,
            ..TailSettings::new(self.path(""))
        }
    }

    fn open(&self, progress: &[u8]) -> Tail {
        Tail::open(self.settings(), Some(progress).filter(|progress| !progress.is_empty())).unwrap()
    }
}

fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn texts(lines: &Lines) -> Vec<String> {
    let text = String::from_utf8(lines.bytes.clone()).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

/// Reads until nothing comes any more, committing each time.
fn read_all(tail: &mut Tail, bytes_max: usize) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let Ok(lines) = tail.read(bytes_max) else { return found };
        tail.commit();
        if lines.bytes.is_empty() {
            return found;
        }
        found.extend(texts(&lines));
    }
}

#[test]
fn a_missing_file_is_a_state_and_is_read_from_its_start_once_it_appears() {
    let mut log = Log::new();
    let mut tail = log.open(&[]);
    assert_eq!(tail.read(1000).unwrap_err(), Fault::Unavailable);
    assert!(!tail.is_up());
    log.append("first");
    assert_eq!(read_all(&mut tail, 1000), ["first"]);
    assert!(tail.is_up());
}

#[test]
fn a_line_without_its_end_waits_for_it() {
    let log = Log::new();
    let mut tail = log.open(&[]);
    log.append_raw("whole\nhal");
    assert_eq!(read_all(&mut tail, 1000), ["whole"]);
    log.append_raw("f\n");
    assert_eq!(read_all(&mut tail, 1000), ["half"]);
}

#[test]
fn after_a_rename_the_old_file_is_finished_first_even_by_a_new_process() {
    let mut log = Log::new();
    log.append("a");
    let mut tail = log.open(&[]);
    assert_eq!(read_all(&mut tail, 1000), ["a"]);
    let progress = tail.progress();
    log.append("b");
    log.rotate_by_rename();
    log.append("c");
    log.rotate_by_rename();
    log.append("d");
    assert_eq!(read_all(&mut log.open(&progress), 1000), ["b", "c", "d"]);
    assert_eq!(read_all(&mut tail, 1000), ["b", "c", "d"]);
    assert_eq!(tail.rotations_lost(), 0);
}

#[test]
fn after_copy_and_truncate_the_copy_is_finished_first() {
    let mut log = Log::new();
    log.append("the first line");
    let mut tail = log.open(&[]);
    read_all(&mut tail, 1000);
    let progress = tail.progress();
    log.append("second");
    log.rotate_by_copy();
    log.append("third, longer than before, so that the size alone shows nothing");
    let expected = [
        "second",
        "third, longer than before, so that the size alone shows nothing",
    ];
    assert_eq!(read_all(&mut log.open(&progress), 1000), expected);
    assert_eq!(read_all(&mut tail, 1000), expected);
}

#[test]
fn a_file_that_was_deleted_after_rotation_is_still_finished_through_the_open_handle() {
    let mut log = Log::new();
    log.append("a");
    let mut tail = log.open(&[]);
    read_all(&mut tail, 1000);
    log.append("b");
    std::fs::remove_file(log.path("")).unwrap();
    log.append("c");
    assert_eq!(read_all(&mut tail, 1000), ["b", "c"]);
    assert_eq!(tail.rotations_lost(), 0);
}

#[test]
fn what_was_deleted_unread_is_counted_and_the_new_file_is_read() {
    let mut log = Log::new();
    log.append("a");
    let progress = {
        let mut tail = log.open(&[]);
        read_all(&mut tail, 1000);
        tail.progress()
    };
    std::fs::remove_file(log.path("")).unwrap();
    log.append("b is another file");
    let mut tail = log.open(&progress);
    assert_eq!(read_all(&mut tail, 1000), ["b is another file"]);
    assert_eq!(tail.rotations_lost(), 1);
}

/// Each call that was repeated counted the same loss once more.
#[test]
fn a_loss_that_is_met_again_after_a_rollback_counts_once() {
    let mut log = Log::new();
    log.append("a");
    let progress = {
        let mut tail = log.open(&[]);
        read_all(&mut tail, 1000);
        tail.progress()
    };
    std::fs::remove_file(log.path("")).unwrap();
    log.append("b is another file");
    let mut tail = log.open(&progress);
    for _ in 0..3 {
        tail.rollback();
        assert_eq!(texts(&tail.read(1000).unwrap()), ["b is another file"]);
        assert_eq!(tail.rotations_lost(), 0);
    }
    tail.commit();
    assert_eq!(tail.rotations_lost(), 1);
}

/// A folder in the log's place: the part before it was read again and again, in a loop that never ended.
#[test]
fn what_is_no_file_in_the_place_of_a_log_is_not_up_and_neither_hangs_nor_doubles() {
    for put in [
        (|path| std::fs::create_dir(path).unwrap()) as fn(&Path),
        |path| {
            assert!(
                std::process::Command::new("mkfifo")
                    .arg(path)
                    .status()
                    .unwrap()
                    .success()
            )
        },
        |path| std::os::unix::fs::symlink("missing", path).unwrap(),
    ] {
        let mut log = Log::new();
        put(&log.path(""));
        let mut fresh = log.open(&[]);
        assert_eq!(fresh.read(1000).unwrap_err(), Fault::Unavailable);
        std::fs::rename(log.path(""), log.path("-aside")).unwrap();

        log.append("a");
        log.append_raw("unfinished");
        let mut tail = log.open(&[]);
        assert_eq!(read_all(&mut tail, 1000), ["a"]);
        log.rotate_by_rename();
        std::fs::rename(log.path("-aside"), log.path("")).unwrap();
        let progress = tail.progress();
        for tail in [&mut tail, &mut log.open(&progress)] {
            assert_eq!(tail.read(1000).unwrap_err(), Fault::Unavailable);
            assert!(!tail.is_up());
        }
        std::fs::rename(log.path(""), log.path("-aside")).unwrap();
        log.append("b");
        for tail in [&mut tail, &mut log.open(&progress), &mut fresh] {
            let lines = read_all(tail, 1000);
            assert_eq!(lines.last().map(String::as_str), Some("b"));
            assert!(lines.len() == 1 || lines == ["unfinished", "b"], "{lines:?}");
            assert_eq!((tail.is_up(), tail.rotations_lost()), (true, 0));
        }
    }
}

#[test]
fn an_older_part_is_not_read_again_when_the_log_vanished() {
    let mut log = Log::new();
    log.append("a");
    let mut tail = log.open(&[]);
    read_all(&mut tail, 1000);
    log.rotate_by_rename();
    log.append("b");
    assert_eq!(read_all(&mut tail, 1000), ["b"]);
    let progress = tail.progress();
    std::fs::remove_file(log.path("")).unwrap();
    let mut again = log.open(&progress);
    for _ in 0..2 {
        assert_eq!(again.read(1000).unwrap_err(), Fault::Unavailable);
    }
    log.append("c");
    assert_eq!(read_all(&mut again, 1000), ["c"]);
    assert_eq!(again.rotations_lost(), 1);
}

#[test]
fn a_rotated_file_that_may_still_be_written_is_waited_for() {
    let mut log = Log::new();
    log.append("a");
    let settings = TailSettings {
        rotation_settle_ms: 3_600_000,
        ..log.settings()
    };
    let mut tail = Tail::open(settings, None).unwrap();
    read_all(&mut tail, 1000);
    log.rotate_by_rename();
    log.append("b");
    let an_age_ago = SystemTime::now() - Duration::from_hours(2);
    let rotated = File::options().write(true).open(log.path(".1")).unwrap();
    rotated.set_modified(an_age_ago).unwrap();
    assert!(read_all(&mut tail, 1000).is_empty(), "it was renamed just now");
    assert_eq!(read_all(&mut log.open(&tail.progress()), 1000), ["b"]);
}

#[test]
fn a_line_that_is_too_long_is_skipped_and_counted_with_any_file_around_it() {
    let log = Log::new();
    let long = "x".repeat(1000);
    log.append_raw(&format!("a\n{long}\nb\n{}\n{}\n", "y".repeat(99), "z".repeat(100)));
    let mut tail = Tail::open(
        TailSettings {
            line_bytes_max: 100,
            ..log.settings()
        },
        None,
    )
    .unwrap();
    let (mut found, mut skipped) = (Vec::new(), 0);
    loop {
        let lines = tail.read(150).unwrap();
        skipped += lines.skipped_bytes;
        found.extend(texts(&lines));
        if !lines.more {
            break;
        }
    }
    assert_eq!(found, ["a".to_owned(), "b".to_owned(), "y".repeat(99)]);
    assert_eq!(skipped, 1001 + 101);
}

/// A line of 100 MB was told by thirteen calls, and five long lines by one: plugins count the calls that tell of any.
#[test]
fn a_call_tells_of_one_line_that_was_too_long() {
    let mut log = Log::new();
    let long = "x".repeat(150);
    log.append_raw(&format!("{long}\n{long}\na\n{}\n{long}\nb\n{long}", "y".repeat(100)));
    let settings = TailSettings {
        line_bytes_max: 100,
        ..log.settings()
    };
    let (mut told, mut found) = (Vec::new(), Vec::new());
    let mut tail = Tail::open(settings.clone(), None).unwrap();
    for _call in 0..20 {
        let lines = tail.read(1000).unwrap();
        told.extend(Some(lines.skipped_bytes).filter(|skipped| *skipped > 0));
        found.extend(texts(&lines));
        tail.commit();
        // What was left out so far is not forgotten.
        tail = Tail::open(settings.clone(), Some(&tail.progress())).unwrap();
    }
    assert_eq!(found, ["a", "b"]);
    assert_eq!(told, [151, 151, 101, 151]);
    log.rotate_by_rename();
    log.append("c");
    let mut tail = Tail::open(settings.clone(), Some(&tail.progress())).unwrap();
    let lines = tail.read(1000).unwrap();
    assert_eq!((texts(&lines), lines.skipped_bytes), (vec!["c".to_owned()], 150));
}

/// A file that was compressed long ago was read as it lies there, and gave one long line of nonsense.
#[test]
fn a_log_that_is_compressed_itself_is_read_decompressed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log.2.gz");
    std::fs::write(&path, zip(b"a\nb\n")).unwrap();
    for start in [Start::Live, Start::Oldest, Start::End] {
        let settings = TailSettings {
            start,
            ..TailSettings::new(path.clone())
        };
        let mut tail = Tail::open(settings, None).unwrap();
        assert_eq!(read_all(&mut tail, 1000), ["a", "b"]);
        assert!(read_all(&mut tail, 1000).is_empty());
    }
}

#[test]
fn a_call_returns_about_as_much_as_asked_and_says_that_there_is_more() {
    let log = Log::new();
    log.append_raw("aaaa\nbbbb\ncccc\n");
    let mut tail = log.open(&[]);
    let lines = tail.read(11).unwrap();
    assert_eq!(
        (texts(&lines), lines.more),
        (vec!["aaaa".to_owned(), "bbbb".to_owned()], true)
    );
    let lines = tail.read(1).unwrap();
    assert_eq!((texts(&lines), lines.more), (vec!["cccc".to_owned()], false));
}

#[test]
fn after_a_rollback_the_same_lines_come_again_across_a_rotation() {
    let mut log = Log::new();
    log.append("a");
    let mut tail = log.open(&[]);
    read_all(&mut tail, 1000);
    log.append("b");
    log.rotate_by_rename();
    log.append("c");
    assert_eq!(texts(&tail.read(1000).unwrap()), ["b", "c"]);
    tail.rollback();
    assert_eq!(texts(&tail.read(1000).unwrap()), ["b", "c"]);
}

#[test]
fn backfill_begins_with_the_oldest_file_and_the_end_with_the_next_line() {
    let mut log = Log::new();
    for line in ["a", "b", "c"] {
        log.append(line);
        log.rotate_by_rename();
    }
    log.append("d");
    log.compress(2);
    std::fs::write(log.path(".9.gz"), "no gzip\n").unwrap();
    std::fs::write(log.folder.path().join("other.log"), "not read\n").unwrap();
    let mut oldest = Tail::open(
        TailSettings {
            start: Start::Oldest,
            ..log.settings()
        },
        None,
    )
    .unwrap();
    assert_eq!(read_all(&mut oldest, 1000), ["a", "b", "c", "d"]);
    assert_eq!(oldest.rotations_lost(), 1, "the one that is no gzip");
    let mut end = Tail::open(
        TailSettings {
            start: Start::End,
            ..log.settings()
        },
        None,
    )
    .unwrap();
    assert!(read_all(&mut end, 1000).is_empty());
    log.append("e");
    assert_eq!(read_all(&mut end, 1000), ["e"]);
}

#[test]
fn damaged_progress_is_an_error_and_never_a_panic() {
    let mut log = Log::new();
    log.append("a");
    let mut tail = log.open(&[]);
    read_all(&mut tail, 1000);
    let progress = tail.progress();
    // Where an earlier agent ended.
    const EARLIER: usize = 1 + 7 * 8;
    for length in 1..progress.len() {
        let opened = Tail::open(log.settings(), Some(&progress[..length]));
        assert_eq!(opened.is_ok(), length == EARLIER);
    }
    assert!(
        read_all(&mut log.open(&progress[..EARLIER]), 1000).is_empty(),
        "nothing comes twice"
    );
}

/// What a server and an operator do to a log, and what the reader does.
#[derive(Clone, Debug)]
enum Step {
    Write { length: usize },
    Rename,
    CopyAndTruncate,
    Gzip { number: usize },
    Read { bytes_max: usize },
    ReadAndFail { bytes_max: usize },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..80).prop_map(|length| Step::Write { length }),
        2 => Just(Step::Rename),
        1 => Just(Step::CopyAndTruncate),
        2 => (1usize..4).prop_map(|number| Step::Gzip { number }),
        4 => (1usize..300).prop_map(|bytes_max| Step::Read { bytes_max }),
        2 => (1usize..300).prop_map(|bytes_max| Step::ReadAndFail { bytes_max }),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

fn check(steps: &[Step], has_whole_seconds: bool) {
    let mut log = Log {
        has_whole_seconds,
        ..Log::new()
    };
    // At the first start older files are left alone, so the reader has begun before.
    log.append_raw("");
    let mut tail = log.open(&[]);
    tail.read(1).unwrap();
    tail.commit();
    let mut progress = tail.progress();
    let mut found: VecDeque<String> = VecDeque::new();
    let read = |tail: &mut Tail, bytes_max: usize, found: &mut VecDeque<String>| {
        if let Ok(lines) = tail.read(bytes_max) {
            found.extend(texts(&lines));
        }
        let progress = tail.progress();
        tail.commit();
        progress
    };
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Write { length } => log.append(&format!("line {number} {}", "x".repeat(*length))),
            Step::Rename => log.rotate_by_rename(),
            Step::CopyAndTruncate => log.rotate_by_copy(),
            Step::Gzip { number } => log.compress(*number),
            Step::Read { bytes_max } => progress = read(&mut tail, *bytes_max, &mut found),
            Step::ReadAndFail { bytes_max } => {
                drop(tail.read(*bytes_max));
                tail.rollback();
            }
            Step::Restart => tail = log.open(&progress),
        }
    }
    for line in read_all(&mut tail, 1_000) {
        found.push_back(line);
    }
    assert_eq!(Vec::from(found), log.lines_written);
    assert_eq!(tail.rotations_lost(), 0);
}

/// How a log is rotated.
#[derive(Clone, Copy, Debug)]
enum Rotation {
    Rename,
    RenameAndGzip,
    Copy,
    CopyAndGzip,
}

const ROTATIONS: [Rotation; 4] = [
    Rotation::Rename,
    Rotation::RenameAndGzip,
    Rotation::Copy,
    Rotation::CopyAndGzip,
];

impl Log {
    fn rotate(&self, rotation: Rotation) {
        match rotation {
            Rotation::Rename | Rotation::RenameAndGzip => self.rotate_by_rename(),
            Rotation::Copy | Rotation::CopyAndGzip => self.rotate_by_copy(),
        }
        if matches!(rotation, Rotation::RenameAndGzip | Rotation::CopyAndGzip) {
            self.compress(1);
        }
    }
}

proptest! {
    #[test]
    fn no_line_is_lost_or_doubled_by_rotations_restarts_and_failures(steps in steps(), has_whole_seconds: bool) {
        check(&steps, has_whole_seconds);
    }
}

/// Restart after every read, with every chunk size from one byte on, across two rotations of each kind.
#[test]
fn a_restart_at_every_offset_loses_and_doubles_nothing() {
    let sizes = || (1..40).chain((40..200).step_by(17));
    for (rotation, bytes_max) in ROTATIONS
        .iter()
        .flat_map(|rotation| sizes().map(move |max| (*rotation, max)))
    {
        let mut log = Log::new();
        for number in 0..30 {
            log.append(&format!("line {number}"));
        }
        let (mut found, mut progress) = (Vec::new(), Vec::new());
        let mut round = 0;
        let mut is_quiet = false;
        while !is_quiet || round <= 9 {
            let mut tail = log.open(&progress);
            let read = tail.read(bytes_max).map(|lines| texts(&lines)).unwrap_or_default();
            is_quiet = read.is_empty();
            found.extend(read);
            progress = tail.progress();
            if round == 3 || round == 8 {
                log.rotate(rotation);
                for number in 0..20 {
                    log.append(&format!("line {number} of the file after round {round}"));
                }
            }
            round += 1;
        }
        assert_eq!(found, log.lines_written, "{rotation:?} {bytes_max}");
    }
}

/// The log was empty when it was opened: nothing told that it was truncated, and what its copy held was lost.
#[test]
fn what_was_copied_away_before_its_first_line_was_read_is_read() {
    for (rotation, is_restarted, head) in [
        (Rotation::Copy, false, ""),
        (Rotation::Copy, true, ""),
        (Rotation::CopyAndGzip, false, ""),
        (Rotation::CopyAndGzip, true, "hal"),
        (Rotation::RenameAndGzip, false, ""),
        (Rotation::RenameAndGzip, true, "hal"),
    ] {
        let mut log = Log::new();
        log.append_raw(head);
        let mut tail = log.open(&[]);
        assert!(read_all(&mut tail, 1000).is_empty());
        let progress = tail.progress();
        log.append_raw("first\n");
        log.rotate(rotation);
        log.append("second");
        log.rotate(rotation);
        log.append("third");
        if is_restarted {
            tail = log.open(&progress);
        }
        let first = format!("{head}first");
        assert_eq!(read_all(&mut tail, 1000), [&first, "second", "third"], "{rotation:?}");
        assert_eq!(tail.rotations_lost(), 0);
    }
}

#[test]
fn a_copy_of_a_log_that_goes_on_is_not_read_beside_it() {
    let mut log = Log::new();
    log.append_raw("");
    let mut tail = log.open(&[]);
    read_all(&mut tail, 1000);
    for line in ["a", "b", "c"] {
        log.append(line);
        std::fs::copy(log.path(""), log.path(".1")).unwrap();
        log.touch(".1");
        assert_eq!(read_all(&mut tail, 1000), [line]);
    }
}

#[test]
fn a_read_that_fails_at_the_first_lines_finds_them_again_after_a_rotation() {
    for start in [Start::Live, Start::Oldest] {
        let mut log = Log::new();
        log.append("a");
        log.rotate_by_rename();
        log.append("b");
        let settings = TailSettings {
            start,
            ..log.settings()
        };
        let mut tail = Tail::open(settings, None).unwrap();
        tail.read(1).unwrap();
        tail.rollback();
        log.rotate_by_rename();
        log.append("c");
        let expected: &[&str] = if start == Start::Live {
            &["b", "c"]
        } else {
            &["a", "b", "c"]
        };
        assert_eq!(read_all(&mut tail, 1000), expected);
    }
}

#[test]
fn the_rest_of_a_damaged_part_is_lost_and_counted_once_and_the_log_goes_on() {
    let mut log = Log::new();
    log.append("a");
    let mut tail = log.open(&[]);
    assert_eq!(read_all(&mut tail, 1000), ["a"]);
    let progress = tail.progress();
    for number in 0..20_000 {
        log.append_raw(&format!("{number} {}\n", number * 7_919 % 10_007));
    }
    log.rotate_by_rename();
    log.compress(1);
    let compressed = std::fs::read(log.path(".1.gz")).unwrap();
    std::fs::write(log.path(".1.gz"), &compressed[..compressed.len() / 2]).unwrap();
    log.append("after");
    let mut tail = log.open(&progress);
    let lines = read_all(&mut tail, 1000);
    assert!(lines.len() > 5_000 && lines.len() < 15_000, "{}", lines.len());
    assert_eq!(lines.last().map(String::as_str), Some("after"));
    assert_eq!(tail.rotations_lost(), 1);
}

/// Text in which every letter takes another number of bytes, written and read in pieces that cut them.
#[test]
fn letters_that_are_cut_in_two_come_whole_whatever_the_size_of_the_pieces() {
    let text = "aä€𝄞 Müller\n日本語\nx\n".repeat(20);
    for size in 1..9 {
        let log = Log::new();
        log.append_raw("");
        let (mut found, mut progress) = (String::new(), Vec::new());
        for (number, piece) in text.as_bytes().chunks(size).enumerate() {
            let mut file = File::options().append(true).open(log.path("")).unwrap();
            file.write_all(piece).unwrap();
            let mut tail = log.open(&progress);
            found += std::str::from_utf8(&tail.read(1 + number % 7).unwrap().bytes).unwrap();
            progress = tail.progress();
        }
        found += &read_all(&mut log.open(&progress), 10)
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        assert_eq!(found, text);
    }
}

#[test]
fn a_line_of_100_mb_is_skipped_in_bounded_memory_across_restarts_and_compression() {
    const LENGTH: u64 = 100_000_000;
    for is_gzip in [false, true] {
        let mut log = Log::new();
        log.append("a");
        log.append_raw("");
        let progress = {
            let mut tail = log.open(&[]);
            assert_eq!(read_all(&mut tail, 1000), ["a"]);
            tail.progress()
        };
        // Holes of a file are read as bytes, and take no room on the disk.
        let file = File::options().append(true).open(log.path("")).unwrap();
        file.set_len(2 + LENGTH).unwrap();
        log.append_raw("\n");
        log.append("b");
        if is_gzip {
            log.rotate_by_rename();
            log.compress(1);
            log.append("c");
        }
        let offset = |progress: &[u8]| Position::decode(progress).unwrap().offset;
        let (mut progress, mut skipped, mut found) = (progress, Vec::new(), Vec::new());
        let mut tail = log.open(&progress);
        for call in 0..100 {
            // Of a compressed one each restart begins at the front.
            if !is_gzip || call == 5 {
                tail = log.open(&progress);
            }
            let lines = tail.read(1000).unwrap();
            let before = offset(&progress);
            progress = tail.progress();
            tail.commit();
            assert!(tail.buffer.capacity() <= 2 * LINE_BYTES_MAX);
            let looked_at = offset(&progress).saturating_sub(before);
            assert!(
                looked_at <= SKIP_BYTES_MAX as u64 + LINE_BYTES_MAX as u64 + 1,
                "{looked_at}"
            );
            skipped.extend(Some(lines.skipped_bytes).filter(|skipped| *skipped > 0));
            found.extend(texts(&lines));
            if !lines.more {
                break;
            }
        }
        // Once, whatever of it each call passed over.
        assert_eq!(skipped, [LENGTH + 1]);
        assert_eq!(found, if is_gzip { vec!["b", "c"] } else { vec!["b"] });
    }
}

/// A log's last line had no newline, and its follower could not be opened: the line counted again with each call.
#[test]
fn an_unfinished_last_line_counts_once_however_late_the_next_file_can_be_opened() {
    let mut log = Log::new();
    log.append("a");
    log.append_raw("b");
    let mut tail = log.open(&[]);
    assert_eq!(read_all(&mut tail, 1000), ["a"]);
    log.rotate_by_rename();
    log.append_raw("c\n");
    tail.open_file = |_path| Err(io::ErrorKind::PermissionDenied.into());
    for _ in 0..3 {
        assert_eq!(tail.read(1000).unwrap_err(), Fault::Unavailable);
        tail.commit();
    }
    tail.open_file = open_log;
    assert_eq!(read_all(&mut tail, 1000), ["b", "c"]);
}

/// The end of the second that a compressed part was given was taken for its time: it was read again.
#[test]
fn a_part_whose_time_has_whole_seconds_is_not_read_again() {
    let write = || Step::Write { length: 0 };
    let rest = [
        write(),
        Step::Read { bytes_max: 1 },
        write(),
        Step::CopyAndTruncate,
        Step::Rename,
        Step::Gzip { number: 2 },
        write(),
        Step::Read { bytes_max: 1 },
        Step::Restart,
        write(),
    ];
    // Wherever in its second that is.
    for earlier in 0..4 {
        let steps: Vec<Step> = (0..earlier).map(|_| write()).chain(rest.clone()).collect();
        check(&steps, false);
        check(&steps, true);
    }
}

#[test]
fn what_was_once_lost_or_doubled_is_not_again() {
    let write = |length| Step::Write { length };
    let read = |bytes_max| Step::Read { bytes_max };
    let read_and_fail = |bytes_max| Step::ReadAndFail { bytes_max };
    let gzip = |number| Step::Gzip { number };
    let cases = [
        vec![write(0), write(0), write(0), Step::Rename, write(0), Step::Rename],
        vec![
            write(0),
            Step::CopyAndTruncate,
            read(1),
            Step::Rename,
            write(0),
            Step::Rename,
            gzip(2),
            Step::Rename,
            Step::Rename,
        ],
        vec![
            write(14),
            write(79),
            write(65),
            write(60),
            write(56),
            read(109),
            write(16),
            write(10),
            Step::Rename,
            write(10),
            Step::Rename,
            write(0),
            Step::Rename,
            write(0),
            read(141),
            read(106),
            Step::Rename,
            gzip(3),
            Step::Restart,
            write(0),
        ],
        vec![
            write(35),
            write(45),
            write(25),
            write(28),
            Step::Rename,
            write(78),
            read(165),
            Step::CopyAndTruncate,
            Step::Rename,
            gzip(1),
        ],
        vec![
            Step::Rename,
            read(211),
            write(21),
            read_and_fail(147),
            read(97),
            write(39),
            write(2),
            gzip(3),
            gzip(3),
            write(5),
            write(40),
            read(49),
            Step::Rename,
            write(78),
            read_and_fail(77),
            read(4),
            read(221),
            read(285),
            Step::Restart,
            gzip(1),
            Step::Restart,
            read(126),
            Step::Restart,
            write(71),
            read(16),
            Step::Rename,
            write(3),
            write(11),
            write(76),
            Step::Rename,
            Step::Rename,
            read(285),
            read(130),
            write(10),
            write(27),
            Step::Restart,
            write(66),
            write(40),
            gzip(3),
            Step::CopyAndTruncate,
            read(290),
            gzip(3),
            Step::Restart,
            Step::CopyAndTruncate,
            write(19),
            write(6),
            Step::Restart,
            read(221),
            read(115),
            Step::Restart,
            Step::Rename,
            gzip(1),
            read(188),
            Step::Rename,
        ],
        vec![
            write(0),
            Step::CopyAndTruncate,
            write(0),
            write(0),
            write(0),
            write(0),
            write(0),
            write(0),
            write(0),
            Step::CopyAndTruncate,
            write(0),
            gzip(1),
            Step::CopyAndTruncate,
            Step::Rename,
            write(0),
            gzip(1),
            read(64),
            Step::CopyAndTruncate,
            Step::Rename,
            read(18),
            gzip(1),
            write(0),
        ],
    ];
    for steps in cases {
        check(&steps, false);
        check(&steps, true);
    }
}
