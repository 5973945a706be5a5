//! The lines of all logs of a folder whose names match a pattern, each file read as [`Tail`] reads one.
//!
//! A log keeps its offset as long as it or an earlier part of it is there, also under another name that matches: a name
//! that rotation made of another one's (`access.log.1` of `access.log`) is its earlier part and no log of its own, and a
//! file that was renamed or copied keeps the offset of what it was. Compressed files are parts of logs only, and links
//! are never followed.
//! Calls begin with the next log in turn, so that none waits for one with more to say.
//! At most `files_max` logs are read: a new one takes the place of one that has not changed for an hour. When there is
//! none it waits, and the source is not up; what itself has not changed for an hour is left for good. Both are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use tillwatch_border::{Fault, Lines};
use tracing::warn;

use super::gzip::is_gzip;
use super::progress::{ProgressError, Reader, Writer};
use super::tail::{ROTATION_SETTLE_MS, Tail, TailSettings, unrotated};
use super::{NamePattern, Start, machine_now_ms, modified_ms, regular_file};
use crate::platform::{FileId, file_id};
use crate::rate::PerMinute;

/// The default of [`LogsSettings::files_max`]: about 100 bytes each, in every checkpoint.
pub const FILES_MAX: usize = 64;
/// Names of a folder that one listing looks at.
const NAMES_MAX: usize = 10_000;
/// A log of which no file is left is forgotten after this.
const FORGOTTEN_AFTER_MS: u64 = 60_000;
/// A log that has not changed for this long may give its place to a new one.
const IDLE_AFTER_MS: u64 = 3_600_000;
/// What did not change for so long is finished before others go on: with dated logs a new one begins where it ends.
const QUIET_AFTER_MS: u64 = 60_000;
/// Where the progress of one file alone has its device.
const MANY: u64 = u64::MAX;

/// What is read and within which bounds.
#[derive(Clone, Debug)]
pub struct LogsSettings {
    pub folder: PathBuf,
    pub pattern: NamePattern,
    pub files_max: usize,
    pub line_bytes_max: usize,
    pub rotation_settle_ms: u64,
    /// Of what is there at the first listing; later logs are read from their first line.
    pub start: Start,
}

impl LogsSettings {
    #[must_use]
    pub fn new(folder: PathBuf, pattern: NamePattern) -> Self {
        Self {
            folder,
            pattern,
            files_max: FILES_MAX,
            line_bytes_max: super::tail::LINE_BYTES_MAX,
            rotation_settle_ms: ROTATION_SETTLE_MS,
            start: Start::Live,
        }
    }
}

/// All logs of a pattern.
#[derive(Debug)]
pub struct Logs {
    settings: LogsSettings,
    /// By file name.
    logs: BTreeMap<String, Log>,
    /// What is not among the logs and has not changed since is left.
    left_through_ms: u64,
    /// Gave their places away and are still there: nobody knows any more how far they were read.
    evicted: BTreeSet<String>,
    /// Served last, and as of the last commit.
    turn: String,
    turn_committed: String,
    /// Since the last commit.
    is_listed: bool,
    waiting: usize,
    left: u64,
    /// Of logs that are gone.
    rotations_lost: u64,
    /// One for all: only one log is read at a time.
    buffer: Vec<u8>,
    up: bool,
    said_waiting: PerMinute,
    said_cut: PerMinute,
}

#[derive(Debug)]
struct Log {
    tail: Tail,
    /// No file of that name is there.
    gone_since_ms: Option<u64>,
    changed_ms: u64,
    is_behind: bool,
    is_unreadable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    id: FileId,
    modified_ms: u64,
}

impl Logs {
    /// Goes on from `progress`, also that of one file alone, or begins as the settings say when there is none.
    ///
    /// # Errors
    /// When the progress cannot be read.
    pub fn open(settings: LogsSettings, progress: Option<&[u8]>) -> Result<Self, ProgressError> {
        let (left_through_ms, positions) = progress.map(decode).transpose()?.unwrap_or_default();
        let mut logs = Self {
            settings,
            logs: BTreeMap::new(),
            left_through_ms,
            evicted: BTreeSet::new(),
            turn: String::new(),
            turn_committed: String::new(),
            is_listed: false,
            waiting: 0,
            left: 0,
            rotations_lost: 0,
            buffer: Vec::new(),
            up: false,
            said_waiting: PerMinute::new(1),
            said_cut: PerMinute::new(1),
        };
        for (name, position) in positions {
            let log = logs.log(name, logs.settings.start, Some(position))?;
            logs.logs.insert(name.to_owned(), log);
        }
        Ok(logs)
    }

    /// The next whole lines: about `bytes_max`, of one log after the other.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the folder cannot be read, and when nothing matches or can be opened.
    pub fn read(&mut self, bytes_max: usize) -> Result<Lines, Fault> {
        if !self.is_listed {
            let listed = self.list(machine_now_ms());
            self.up = listed.as_ref().is_ok_and(|is_whole| *is_whole) && self.waiting == 0;
            listed.map_err(|_unreadable| Fault::Unavailable)?;
        }
        let mut lines = Lines::default();
        let mut is_any = false;
        for name in self.names_in_turn(machine_now_ms()) {
            is_any |= self.read_one(&name, bytes_max - lines.bytes.len(), &mut lines);
            self.turn = name;
            // Whoever has more did as much as one call may, and a call tells of one line that was too long.
            lines.more |= lines.bytes.len() >= bytes_max || lines.skipped_bytes > 0;
            if lines.more {
                break;
            }
        }
        if is_any { Ok(lines) } else { Err(Fault::Unavailable) }
    }

    /// Whether the last listing found the folder and had room for all logs, and all of them could be opened.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up && self.unreadable() == 0 && !self.logs.is_empty()
    }

    /// Logs that are there and cannot be opened.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.logs.values().filter(|log| log.is_unreadable).count() as u64
    }

    /// How often a file that was being read had vanished before its end was reached.
    #[must_use]
    pub fn rotations_lost(&self) -> u64 {
        let lost = self.logs.values().map(|log| log.tail.rotations_lost());
        self.rotations_lost + lost.sum::<u64>()
    }

    /// Logs that found no place, since the last call of this.
    pub fn take_left(&mut self) -> u64 {
        std::mem::take(&mut self.left)
    }

    /// What was read counts as used.
    pub fn commit(&mut self) {
        self.logs.values_mut().for_each(|log| log.tail.commit());
        self.turn_committed.clone_from(&self.turn);
        self.is_listed = false;
    }

    /// What was read since the last commit comes again, in the same order.
    pub fn rollback(&mut self) {
        self.logs.values_mut().for_each(|log| log.tail.rollback());
        self.turn.clone_from(&self.turn_committed);
        self.is_listed = false;
    }

    /// The positions that a commit would make permanent.
    #[must_use]
    pub fn progress(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(MANY).number(self.left_through_ms);
        for (name, log) in &self.logs {
            let position = log.tail.progress();
            if !position.is_empty() {
                writer.bytes(name.as_bytes()).bytes(&position);
            }
        }
        writer.finish()
    }

    /// Whether there was a file to read.
    fn read_one(&mut self, name: &str, bytes_max: usize, lines: &mut Lines) -> bool {
        let Some(log) = self.logs.get_mut(name) else {
            return false;
        };
        log.tail.lend(&mut self.buffer);
        let read = log.tail.read(bytes_max);
        log.tail.lend(&mut self.buffer);
        log.is_behind = read.as_ref().is_ok_and(|read| read.more);
        log.is_unreadable = read.is_err() && log.gone_since_ms.is_none();
        match read {
            Ok(read) => {
                lines.bytes.extend_from_slice(&read.bytes);
                lines.more |= read.more;
                lines.skipped_bytes += read.skipped_bytes;
                true
            }
            Err(_unavailable) => false,
        }
    }

    /// What is quiet, oldest first, then what is written, beginning behind the one that was served last.
    fn names_in_turn(&self, now_ms: u64) -> Vec<String> {
        let is_quiet = |log: &Log| now_ms.saturating_sub(log.changed_ms) >= QUIET_AFTER_MS;
        let after = (std::ops::Bound::Excluded(self.turn.clone()), std::ops::Bound::Unbounded);
        let behind = self.logs.range(after);
        let rest = self.logs.range(..=self.turn.clone());
        let mut turns: Vec<(&String, &Log)> = behind.chain(rest).collect();
        turns.sort_by_key(|(name, log)| match is_quiet(log) {
            true => (0, log.changed_ms, name.as_str()),
            false => (1, 0, ""),
        });
        turns.into_iter().map(|(name, _log)| name.clone()).collect()
    }

    /// Whether all of the folder was looked at.
    fn list(&mut self, now_ms: u64) -> io::Result<bool> {
        let (present, is_whole) = self.present(now_ms)?;
        for (name, log) in &mut self.logs {
            match present.get(name) {
                Some(found) => (log.gone_since_ms, log.changed_ms) = (None, found.modified_ms),
                None if is_whole => log.gone_since_ms = log.gone_since_ms.or(Some(now_ms)),
                None => {}
            }
        }
        self.evicted.retain(|name| present.contains_key(name));
        self.follow_renamed(&present);
        self.forget_gone(now_ms);
        self.admit_new(&present, now_ms);
        self.settings.start = Start::Live;
        self.is_listed = true;
        Ok(is_whole)
    }

    /// The logs of the folder, without those that are earlier parts of others, and whether these are all.
    fn present(&mut self, now_ms: u64) -> io::Result<(BTreeMap<String, Found>, bool)> {
        let (mut present, mut is_whole) = (BTreeMap::new(), true);
        let mut entries = std::fs::read_dir(&self.settings.folder)?;
        for entry in entries.by_ref().take(NAMES_MAX) {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !self.settings.pattern.matches(&name) || is_gzip(&name) {
                continue;
            }
            match regular_file(&entry) {
                Ok(Some(metadata)) => drop(present.insert(name, Found::of(&metadata))),
                Ok(None) => {}
                Err(_unseen) => is_whole = false,
            }
        }
        let is_cut = entries.next().is_some();
        if is_cut && self.said_cut.admits(now_ms) {
            let folder = self.settings.folder.display();
            warn!(%folder, names_max = NAMES_MAX, "a folder holds more files than are looked at");
        }
        let is_part = |name: &String| {
            unrotated(name).is_some_and(|base| present.contains_key(base) || self.logs.contains_key(base))
        };
        let parts: Vec<String> = present.keys().filter(|name| is_part(name)).cloned().collect();
        present.retain(|name, _found| !parts.contains(name));
        // What was taken for a log before its own log came.
        self.logs.retain(|name, _log| !parts.contains(name));
        Ok((present, is_whole && !is_cut))
    }

    /// A new name of a file that is being read takes its offset along; what has the old name now begins anew.
    fn follow_renamed(&mut self, present: &BTreeMap<String, Found>) {
        for (name, found) in present {
            if self.logs.contains_key(name) {
                continue;
            }
            let path = self.settings.folder.join(name);
            let is_it = |(key, log): &(&String, &Log)| {
                let old = present.get(*key).map(|old| old.id);
                log.tail.has_moved_to(&path, found.id, found.modified_ms, old)
            };
            let Some(key) = self.logs.iter().find(is_it).map(|(key, _log)| key.clone()) else {
                continue;
            };
            if let Some(mut log) = self.logs.remove(&key) {
                log.tail.rename(path);
                (log.gone_since_ms, log.changed_ms) = (None, found.modified_ms);
                self.logs.insert(name.clone(), log);
            }
        }
        // What an earlier grant named is not granted any more.
        let pattern = &self.settings.pattern;
        self.logs.retain(|name, _log| !name.is_empty() && pattern.matches(name));
    }

    fn forget_gone(&mut self, now_ms: u64) {
        let mut lost = 0;
        self.logs.retain(|_name, log| {
            let is_over = |since_ms: u64| now_ms.saturating_sub(since_ms) >= FORGOTTEN_AFTER_MS;
            let is_kept = !log.gone_since_ms.is_some_and(is_over) || log.is_behind || log.tail.has_parts();
            lost += if is_kept { 0 } else { log.tail.rotations_lost() };
            is_kept
        });
        self.rotations_lost += lost;
    }

    /// The newest first.
    fn admit_new(&mut self, present: &BTreeMap<String, Found>, now_ms: u64) {
        let is_new = |(name, found): &(&String, &Found)| {
            !self.logs.contains_key(*name) && found.modified_ms > self.left_through_ms
        };
        let mut new: Vec<(&String, &Found)> = present.iter().filter(is_new).collect();
        new.sort_by_key(|(name, found)| (u64::MAX - found.modified_ms, *name));
        self.waiting = 0;
        for (name, found) in new {
            if self.has_room_for(found.modified_ms, now_ms) {
                self.admit(name, found.modified_ms);
            } else if is_idle(found.modified_ms, now_ms) {
                self.left += 1;
                self.left_through_ms = self.left_through_ms.max(found.modified_ms);
            } else {
                self.waiting += 1;
            }
        }
        if self.waiting > 0 {
            self.left += self.waiting as u64;
            if self.said_waiting.admits(now_ms) {
                let (folder, waiting) = (self.settings.folder.display(), self.waiting);
                warn!(%folder, files_max = self.settings.files_max, waiting, "more logs match than are read");
            }
        }
    }

    /// Makes room if it must.
    fn has_room_for(&mut self, modified_ms: u64, now_ms: u64) -> bool {
        if self.logs.len() < self.settings.files_max {
            return true;
        }
        let may_go = |log: &Log| !log.is_behind && is_idle(log.changed_ms, now_ms) && log.changed_ms < modified_ms;
        let idle = self.logs.iter().filter(|(_name, log)| may_go(log));
        let Some(name) = idle
            .min_by_key(|(_name, log)| log.changed_ms)
            .map(|(name, _log)| name.clone())
        else {
            return false;
        };
        if let Some(log) = self.logs.remove(&name) {
            self.rotations_lost += log.tail.rotations_lost();
            self.left_through_ms = self.left_through_ms.max(log.changed_ms);
            self.evicted.insert(name);
        }
        true
    }

    fn admit(&mut self, name: &str, changed_ms: u64) {
        let is_back = self.evicted.remove(name);
        self.rotations_lost += u64::from(is_back);
        let start = if is_back { Start::End } else { self.settings.start };
        // Without a position there is nothing that could be wrong.
        if let Ok(mut log) = self.log(name, start, None) {
            log.changed_ms = changed_ms;
            self.logs.insert(name.to_owned(), log);
        }
    }

    fn log(&self, name: &str, start: Start, position: Option<&[u8]>) -> Result<Log, ProgressError> {
        let settings = TailSettings {
            path: self.settings.folder.join(name),
            line_bytes_max: self.settings.line_bytes_max,
            rotation_settle_ms: self.settings.rotation_settle_ms,
            start,
            is_alone: false,
        };
        Ok(Log {
            tail: Tail::open(settings, position)?,
            gone_since_ms: None,
            changed_ms: 0,
            is_behind: false,
            is_unreadable: false,
        })
    }
}

impl Found {
    fn of(metadata: &Metadata) -> Self {
        Self {
            id: file_id(metadata),
            modified_ms: modified_ms(metadata),
        }
    }
}

fn is_idle(modified_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(modified_ms) >= IDLE_AFTER_MS
}

type Positions<'a> = Vec<(&'a str, &'a [u8])>;

/// The progress of one file alone has no name.
fn decode(bytes: &[u8]) -> Result<(u64, Positions<'_>), ProgressError> {
    let mut reader = Reader::new(bytes)?;
    if reader.number()? != MANY {
        return Ok((0, vec![("", bytes)]));
    }
    let left_through_ms = reader.number()?;
    let mut positions = Vec::new();
    while !reader.is_empty() {
        let name = std::str::from_utf8(reader.bytes()?).map_err(|_not_utf8| ProgressError::Short)?;
        positions.push((name, reader.bytes()?));
    }
    Ok((left_through_ms, positions))
}

/// The position of one file in the progress of many, or the progress itself.
///
/// # Errors
/// When it cannot be read.
pub(super) fn position_of<'a>(path: &Path, progress: &'a [u8]) -> Result<Option<&'a [u8]>, ProgressError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let (_left_through_ms, positions) = decode(progress)?;
    let own = |(of, _position): &&(&str, &[u8])| of.is_empty() || Some(*of) == name;
    Ok(positions.iter().find(own).map(|(_name, position)| *position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::gzip::zip;
    use std::fs::File;
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = File::options().create(true).append(true).open(self.path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn age(&self, name: &str, age_s: u64) {
            let file = File::options().write(true).open(self.path(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s))
                .unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            std::fs::rename(self.path(from), self.path(to)).unwrap();
        }

        fn copy_and_truncate(&self, from: &str, to: &str) {
            std::fs::copy(self.path(from), self.path(to)).unwrap();
            File::options()
                .write(true)
                .open(self.path(from))
                .unwrap()
                .set_len(0)
                .unwrap();
        }

        fn settings(&self, pattern: &str) -> LogsSettings {
            LogsSettings {
                rotation_settle_ms: 0,
                ..LogsSettings::new(self.0.path().to_owned(), NamePattern::new(pattern))
            }
        }

        fn open(&self, pattern: &str, progress: &[u8]) -> Logs {
            Logs::open(
                self.settings(pattern),
                Some(progress).filter(|progress| !progress.is_empty()),
            )
            .unwrap()
        }
    }

    /// Sorted, and committed.
    fn read_all(logs: &mut Logs) -> Vec<String> {
        let mut found = Vec::new();
        while let Ok(lines) = logs.read(1_000) {
            logs.commit();
            if lines.bytes.is_empty() && !lines.more {
                break;
            }
            let text = String::from_utf8(lines.bytes).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            found.extend(text.lines().map(str::to_owned));
        }
        found.sort();
        found
    }

    #[test]
    fn all_logs_that_match_are_read_also_those_that_come_later_and_each_goes_on_after_a_restart() {
        let folder = Folder::new();
        let mut logs = folder.open("*.access.log", &[]);
        assert_eq!(logs.read(1_000).unwrap_err(), Fault::Unavailable);
        logs.commit();
        folder.append("a.access.log", "a1\n");
        folder.append("b.access.log", "b1\nb");
        folder.append("error.log", "no\n");
        std::os::unix::fs::symlink(folder.path("error.log"), folder.path("link.access.log")).unwrap();
        assert_eq!(read_all(&mut logs), ["a1", "b1"]);
        assert!(logs.is_up());
        let progress = logs.progress();
        folder.append("b.access.log", "2\n");
        folder.append("c.access.log", "c1\n");
        assert_eq!(read_all(&mut folder.open("*.access.log", &progress)), ["b2", "c1"]);
        assert_eq!(read_all(&mut logs), ["b2", "c1"]);
        logs.rollback();
        assert!(read_all(&mut logs).is_empty());
    }

    /// Under names that the pattern takes as well: each rotation came again as a log of its own.
    #[test]
    fn a_rotated_file_that_matches_too_is_not_read_twice() {
        type Rotate = fn(&Folder);
        let rotations: [(&str, Rotate); 6] = [
            ("access*", |folder| folder.rename("access.log", "access.log.1")),
            ("access*", |folder| {
                std::fs::write(
                    folder.path("access.log.1.gz"),
                    zip(&std::fs::read(folder.path("access.log")).unwrap()),
                )
                .unwrap();
                std::fs::remove_file(folder.path("access.log")).unwrap();
            }),
            ("access*", |folder| {
                folder.copy_and_truncate("access.log", "access.log-20260107")
            }),
            ("*.log", |folder| folder.rename("access.log", "access-20260107.log")),
            ("*.log", |folder| {
                folder.copy_and_truncate("access.log", "access-20260107.log")
            }),
            ("*.log", |folder| folder.rename("access.log", "zold.log")),
        ];
        for (number, (pattern, rotate)) in rotations.iter().enumerate() {
            for is_restarted in [false, true] {
                let folder = Folder::new();
                folder.append("access.log", "a first line\n");
                folder.append("other.log", "x\n");
                let mut logs = folder.open(pattern, &[]);
                let first = read_all(&mut logs);
                assert_eq!(first[0], "a first line");
                folder.append("access.log", "b\n");
                rotate(&folder);
                let progress = logs.progress();
                if is_restarted {
                    logs = folder.open(pattern, &progress);
                }
                assert_eq!(read_all(&mut logs), ["b"], "{number}");
                folder.append("access.log", "c, the first of the new file\n");
                assert_eq!(read_all(&mut logs), ["c, the first of the new file"], "{number}");
                logs = folder.open(pattern, &logs.progress());
                assert!(read_all(&mut logs).is_empty(), "{number}");
                assert_eq!(logs.rotations_lost(), 0, "{number}");
            }
        }
    }

    /// Files that all begin with the same header.
    #[test]
    fn daily_files_with_the_same_header_are_files_of_their_own() {
        let folder = Folder::new();
        let mut logs = folder.open("sales-*", &[]);
        for day in 1..5 {
            folder.append(&format!("sales-2026010{day}"), "time;amount\n");
            assert_eq!(read_all(&mut logs), ["time;amount"]);
            folder.append(&format!("sales-2026010{day}"), &format!("{day}\n"));
            assert_eq!(read_all(&mut logs), [day.to_string()]);
            if day > 1 {
                std::fs::remove_file(folder.path(&format!("sales-2026010{}", day - 1))).unwrap();
            }
            logs = folder.open("sales-*", &logs.progress());
        }
    }

    #[test]
    fn no_log_waits_for_one_with_more_to_say_and_a_rollback_keeps_the_order() {
        let folder = Folder::new();
        folder.append("a.log", &"busy\n".repeat(1_000));
        folder.append("b.log", "b\n");
        folder.append("c.log", "c\n");
        let mut logs = folder.open("*.log", &[]);
        let calls = |logs: &mut Logs| -> Vec<String> {
            (0..3)
                .map(|_| String::from_utf8(logs.read(10).unwrap().bytes).unwrap())
                .collect()
        };
        let found = calls(&mut logs);
        assert_eq!(found, ["busy\nbusy\n", "b\nc\nbusy\n", "busy\nbusy\n"]);
        logs.rollback();
        assert_eq!(calls(&mut logs), found);
    }

    /// Lines of one day were read with the columns that another day's file names in its head.
    #[test]
    fn of_dated_logs_each_is_read_to_its_end_before_the_next_begins() {
        let folder = Folder::new();
        let days = ["c-260107.log", "b-260108.log", "a-260109.log"];
        for (day, name) in days.iter().enumerate() {
            folder.append(name, "");
            folder.age(name, 7_200 - 1_000 * day as u64);
        }
        let mut logs = folder.open("*.log", &[]);
        read_all(&mut logs);
        for (day, name) in days.iter().enumerate() {
            folder.append(name, &format!("{day}\n").repeat(20));
            folder.age(name, 3_000 - 1_000 * day as u64);
        }
        let mut found = String::new();
        while let Ok(lines) = logs.read(10) {
            logs.commit();
            found += std::str::from_utf8(&lines.bytes).unwrap();
            if lines.bytes.is_empty() {
                break;
            }
        }
        let expected = ["0\n", "1\n", "2\n"].map(|line| line.repeat(20)).concat();
        assert_eq!(found, expected);
    }

    #[test]
    fn more_logs_than_are_read_wait_or_are_left_and_both_are_counted() {
        let folder = Folder::new();
        for (number, age_s) in [(1, 20_000), (2, 10_000), (3, 5), (4, 4), (5, 3)] {
            folder.append(&format!("{number}.log"), &format!("of {number}\n"));
            folder.age(&format!("{number}.log"), age_s);
        }
        let settings = LogsSettings {
            files_max: 2,
            ..folder.settings("*.log")
        };
        let mut logs = Logs::open(settings.clone(), None).unwrap();
        assert_eq!(read_all(&mut logs), ["of 4", "of 5"]);
        assert!(!logs.is_up(), "the third waits");
        assert!(logs.take_left() >= 3, "and two that are old are left");
        // Room comes when one has not changed for an hour.
        folder.age("4.log", 7_200);
        assert_eq!(read_all(&mut logs), ["of 3"]);
        assert!(logs.is_up());
        let mut again = Logs::open(settings, Some(&logs.progress())).unwrap();
        assert!(read_all(&mut again).is_empty(), "what was left stays left");
        // What had given its place away is read from its end on, as nobody knows its place any more.
        folder.age("5.log", 7_200);
        folder.append("4.log", "is not read\n");
        assert!(read_all(&mut logs).is_empty());
        assert_eq!(logs.rotations_lost(), 1);
        folder.append("4.log", "is read\n");
        assert_eq!(read_all(&mut logs), ["is read"]);
    }

    #[test]
    fn a_log_that_vanished_is_read_to_its_end_and_forgotten() {
        let folder = Folder::new();
        for number in 0..20 {
            folder.append(&format!("{number}.log"), "a\n");
        }
        let mut logs = folder.open("*.log", &[]);
        assert_eq!(read_all(&mut logs).len(), 20);
        folder.append("7.log", "the last\n");
        for number in 1..20 {
            std::fs::remove_file(folder.path(&format!("{number}.log"))).unwrap();
        }
        assert_eq!(read_all(&mut logs), ["the last"]);
        assert_eq!(logs.logs.len(), 20);
        logs.list(machine_now_ms() + FORGOTTEN_AFTER_MS + 1_000).unwrap();
        assert_eq!(logs.logs.keys().collect::<Vec<_>>(), ["0.log"]);
        assert!(logs.progress().len() < 150, "{}", logs.progress().len());
        folder.append("7.log", "new\n");
        logs.commit();
        assert_eq!(read_all(&mut logs), ["new"]);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_counted_and_the_others_are_read() {
        let folder = Folder::new();
        folder.append("a.log", "a\n");
        folder.append("b.log", "b\n");
        let mut logs = folder.open("*.log", &[]);
        logs.list(machine_now_ms()).unwrap();
        let a = logs.logs.get_mut("a.log").unwrap();
        a.tail.refuse_to_open();
        assert_eq!(read_all(&mut logs), ["b"]);
        assert_eq!((logs.is_up(), logs.unreadable()), (false, 1));
    }

    /// An operator writes a pattern where one file was, or one file where a pattern was.
    #[test]
    fn one_file_and_many_take_over_from_each_other() {
        let folder = Folder::new();
        folder.append("a.log", "a1\n");
        folder.append("secret", "not granted any more\n");
        let one = |progress: Option<&[u8]>| Tail::open(TailSettings::new(folder.path("a.log")), progress).unwrap();
        let mut tail = one(None);
        assert_eq!(tail.read(100).unwrap().bytes, b"a1\n");
        folder.append("a.log", "a2\n");
        folder.append("b.log", "b1\n");
        let mut logs = folder.open("*.log", &tail.progress());
        assert_eq!(read_all(&mut logs), ["a2", "b1"]);
        folder.append("a.log", "a3\n");
        assert_eq!(one(Some(&logs.progress())).read(100).unwrap().bytes, b"a3\n");
        let mut elsewhere = Tail::open(TailSettings::new(folder.path("secret")), None).unwrap();
        elsewhere.read(1).unwrap();
        folder.append("secret", "nor this\n");
        assert_eq!(
            read_all(&mut folder.open("*.log", &elsewhere.progress())),
            ["a1", "a2", "a3", "b1"]
        );
    }

    #[test]
    fn damaged_progress_is_an_error_and_never_a_panic() {
        let folder = Folder::new();
        folder.append("a.log", "a\n");
        let mut logs = folder.open("*", &[]);
        read_all(&mut logs);
        let progress = logs.progress();
        // Where the header ends nothing is remembered, and nothing wrong.
        for length in (1..progress.len()).filter(|length| *length != 17) {
            assert!(
                Logs::open(folder.settings("*"), Some(&progress[..length])).is_err(),
                "{length}"
            );
        }
    }
}
