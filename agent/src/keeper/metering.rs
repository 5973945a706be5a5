//! The bytes of the connection against those of the day, remembered across restarts.
//!
//! In: the connection's counters, the machine's time. Out: what may be sent now, and how coarse the feed is.
//! ```text
//!  the file: day bytes step      days since 1970, bytes of that day, step of the resolution; one line
//! ```
//! It is written at an orderly stop, and with a limit every five minutes: a kill forgets what was counted since.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tillwatch_core::budget::{Budget, Resolution, Spent};
use tillwatch_core::delivery::Lane;
use tracing::{info, warn};

use crate::uplink::Traffic;
use crate::whole::read_bounded;

const FILE_BYTES_MAX: u64 = 128;

pub(super) struct Metering {
    budget: Budget,
    traffic: Arc<Traffic>,
    /// Of the traffic, so far.
    counted: u64,
    file: Option<PathBuf>,
    is_saved: Spent,
    last_lane: Lane,
}

impl Metering {
    pub(super) fn open(
        bytes_per_day: Option<u64>,
        traffic: Arc<Traffic>,
        file: Option<PathBuf>,
        now_ms: u64,
    ) -> Metering {
        let spent = file.as_deref().and_then(read).unwrap_or_default();
        Metering {
            budget: Budget::new(bytes_per_day, spent, now_ms),
            traffic,
            counted: 0,
            file,
            is_saved: spent,
            last_lane: Lane::Backlog,
        }
    }

    /// Counts what has gone over the connection since it was asked last; what may be sent now.
    pub(super) fn last_lane(&mut self, now_ms: u64) -> Lane {
        let all = self.traffic.sent().saturating_add(self.traffic.received());
        let before = self.budget.spent();
        self.budget.on_bytes(now_ms, all.saturating_sub(self.counted));
        self.counted = all;
        let lane = self.budget.last_lane(now_ms);
        self.tell(before, lane);
        self.last_lane = lane;
        lane
    }

    pub(super) fn on_sent(&mut self, lane: Lane, bytes: usize) {
        if lane == Lane::Backlog {
            self.budget.on_backlog(bytes as u64);
        }
    }

    pub(super) fn on_disconnected(&mut self) {
        self.budget.on_disconnected();
    }

    pub(super) fn spent(&self) -> Spent {
        self.budget.spent()
    }

    pub(super) fn bytes_per_day(&self) -> Option<u64> {
        self.budget.bytes_per_day()
    }

    /// Of the connection since the start.
    pub(super) fn traffic_bytes(&self) -> u64 {
        self.counted
    }

    /// Whether something waits for nothing but time.
    pub(super) fn is_holding(&self) -> bool {
        self.last_lane < Lane::Backlog
    }

    pub(super) fn save(&mut self, is_stopping: bool) -> io::Result<()> {
        let spent = self.budget.spent();
        let is_due = (is_stopping || self.bytes_per_day().is_some()) && spent != self.is_saved;
        let Some(file) = self.file.as_deref().filter(|_file| is_due) else {
            return Ok(());
        };
        write(file, spent)?;
        self.is_saved = spent;
        Ok(())
    }

    fn tell(&self, before: Spent, lane: Lane) {
        let Spent { bytes, resolution, .. } = self.budget.spent();
        let Some(bytes_per_day) = self.budget.bytes_per_day() else {
            return;
        };
        if resolution != before.resolution {
            info!(bytes, bytes_per_day, ?resolution, "the feed's resolution changes");
        }
        if lane == Lane::Urgent && self.last_lane > lane {
            warn!(
                bytes,
                bytes_per_day, "the day's bytes are spent, all but findings waits"
            );
        }
    }
}

fn read(file: &Path) -> Option<Spent> {
    let text = String::from_utf8(read_bounded(file, FILE_BYTES_MAX).ok()?).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(Spent {
        day: next()?,
        bytes: next()?,
        resolution: Resolution::of_step(u8::try_from(next()?).ok()?),
    })
}

fn write(file: &Path, spent: Spent) -> io::Result<()> {
    let Spent { day, bytes, resolution } = spent;
    let temporary = file.with_extension("tmp");
    fs::write(&temporary, format!("{day} {bytes} {}\n", resolution.step()))?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_core::budget::DAY_MS;

    #[test]
    fn what_was_spent_outlives_a_restart_and_a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("traffic");
        let spent = Spent {
            day: 20_000,
            bytes: 123_456,
            resolution: Resolution::Fifteenth,
        };
        write(&file, spent).unwrap();
        let now_ms = 20_000 * DAY_MS + 5;
        let open = |limit| Metering::open(limit, Arc::default(), Some(file.clone()), now_ms);
        let mut metering = open(Some(100_000));
        assert_eq!(metering.spent(), spent);
        assert_eq!(metering.last_lane(now_ms), Lane::Urgent);
        assert!(metering.is_holding());
        metering.save(false).unwrap();
        assert_eq!(open(None).spent().bytes, 123_456, "counted without a limit, too");
        for damaged in ["", "20000", "20000 x 1", "-1 2 3", "20000 1 999"] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(open(Some(100_000)).spent().bytes, 0, "{damaged}");
        }
    }
}
