//! Which files of a folder were read: all of them while the agent runs, the newest of them across a restart.
//!
//! ```text
//! progress   forgotten_through_ms | marks, each time + hash | end
//! end        u64::MAX + changed_through_ms, only when something is forgotten; an agent that does not know it
//!            takes it for a file that vanished
//! ```
//! A restart knows the marks alone: what has an older time then counts as read, so nothing is read twice.
//! Of these, those whose content, name or rights changed after `changed_through_ms` came while nobody looked: they are
//! counted. When no listing since was whole, those that were read meanwhile count with them: the count is the most that
//! can be missing.
//! An empty folder may be one that is not mounted: nothing is forgotten until it holds files again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;

use crate::platform::file_id;
use crate::source::modified_ms;
use crate::source::progress::{ProgressError, Reader, Writer};

/// What tells one version of one file from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    pub(super) modified_ms: u64,
    /// FNV-1a over name, size and inode.
    hash: u64,
}

impl Mark {
    pub(super) fn of(name: &[u8], metadata: &Metadata) -> Self {
        let size = metadata.len().to_le_bytes();
        let inode = file_id(metadata).inode.to_le_bytes();
        let bytes = name.iter().copied().chain(size).chain(inode);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self {
            modified_ms: modified_ms(metadata),
            hash,
        }
    }
}

/// Files with the time of their last change, be it of their name or rights.
pub(super) type Changes = BTreeMap<Mark, u64>;

#[derive(Debug)]
pub(super) struct Memory {
    /// Were read, and were there at the last whole listing that found any.
    read: BTreeSet<Mark>,
    /// Unless `is_whole`, everything up to this time counts as read.
    forgotten_through_ms: u64,
    /// Of all files of the last whole listing that found any; none when an earlier agent did not write it down.
    changed_through_ms: Option<u64>,
    /// `read` holds every file that was read and is still there.
    is_whole: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            read: BTreeSet::new(),
            forgotten_through_ms: 0,
            changed_through_ms: Some(0),
            is_whole: true,
        }
    }
}

impl Memory {
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.read.contains(&mark) || (!self.is_whole && mark.modified_ms <= self.forgotten_through_ms)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty() && self.forgotten_through_ms == 0
    }

    /// What lies in the folder. Returns how many files count as read and yet came after the last listing.
    pub(super) fn on_listed(&mut self, present: &Changes) -> u64 {
        let Some(newest_ms) = present.values().copied().max() else {
            return 0;
        };
        let mut late = 0;
        if !self.is_whole {
            let counted = present
                .iter()
                .filter(|(mark, _)| self.has(**mark) && !self.read.contains(mark));
            let (counted, changed_ms): (Vec<Mark>, Vec<u64>) = counted.unzip();
            let is_late = |changed_ms: &&u64| {
                self.changed_through_ms
                    .is_some_and(|through_ms| **changed_ms > through_ms)
            };
            late = changed_ms.iter().filter(is_late).count() as u64;
            self.read.extend(counted);
            self.is_whole = true;
        }
        self.read.retain(|mark| present.contains_key(mark));
        self.changed_through_ms = Some(newest_ms);
        late
    }

    /// A part of what lies in the folder: whatever is not in it may be there all the same. When more than `read_max` are
    /// known by name, those that are not in it are forgotten, and what has an older time counts as read.
    pub(super) fn on_listed_in_part(&mut self, present: &Changes, read_max: usize) {
        if self.read.len() <= read_max {
            return;
        }
        let is_seen = |mark: &Mark| present.contains_key(mark);
        let (seen, forgotten): (BTreeSet<Mark>, BTreeSet<Mark>) = self.read.iter().copied().partition(is_seen);
        self.read = seen;
        if let Some(newest) = forgotten.last() {
            self.forgotten_through_ms = self.forgotten_through_ms.max(newest.modified_ms);
            self.is_whole = false;
        }
    }

    pub(super) fn remember(&mut self, marks: BTreeSet<Mark>, remembered_max: usize) {
        self.read.extend(marks);
        if let Some(forgotten) = self.read.iter().rev().nth(remembered_max) {
            self.forgotten_through_ms = self.forgotten_through_ms.max(forgotten.modified_ms);
        }
    }

    /// With `taken` also read; `unread` is what else lies there.
    pub(super) fn encode(&self, taken: &BTreeSet<Mark>, unread: &Changes, remembered_max: usize) -> Vec<u8> {
        let newest = self.read.iter().rev().take(remembered_max).chain(taken);
        let mut marks: BTreeSet<Mark> = newest.copied().collect();
        let mut forgotten_through_ms = self.forgotten_through_ms;
        while marks.len() > remembered_max {
            let oldest = marks.pop_first();
            forgotten_through_ms = oldest.map_or(0, |mark| mark.modified_ms).max(forgotten_through_ms);
        }
        let mut writer = Writer::default();
        writer.number(forgotten_through_ms);
        for mark in &marks {
            writer.number(mark.modified_ms).number(mark.hash);
        }
        if let (1.., Some(changed_through_ms)) = (forgotten_through_ms, self.changed_through_ms) {
            // A restart will count these as read, so it must also count them as late.
            let would_be_lost = unread
                .iter()
                .filter(|(mark, _)| mark.modified_ms <= forgotten_through_ms && !taken.contains(mark));
            let first_lost_ms = would_be_lost.map(|(_, changed_ms)| changed_ms.saturating_sub(1)).min();
            let through_ms = first_lost_ms.unwrap_or(u64::MAX).min(changed_through_ms);
            writer.number(u64::MAX).number(through_ms);
        }
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ProgressError> {
        let mut reader = Reader::new(bytes)?;
        let forgotten_through_ms = reader.number()?;
        let mut memory = Self {
            read: BTreeSet::new(),
            forgotten_through_ms,
            changed_through_ms: None,
            is_whole: forgotten_through_ms == 0,
        };
        while !reader.is_empty() {
            let (modified_ms, hash) = (reader.number()?, reader.number()?);
            if modified_ms == u64::MAX {
                memory.changed_through_ms = Some(hash);
            } else {
                memory.read.insert(Mark { modified_ms, hash });
            }
        }
        Ok(memory)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.read.len()
    }
}
