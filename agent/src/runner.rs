//! One thread per collector: waits until it is due, collects, hands on, commits.
//!
//! In: a source and the clock. Out: batches with their progress to the keeper, through a bounded channel: when the keeper
//! does not keep up, or the disk refuses, the thread waits until it is told to end, and what it would read stays in its
//! file.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tillwatch_core::SourceKey;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::clock::Clock;
use crate::collectors::{Source, wait_for};
use crate::keeper::FromSource;
use crate::stop::Stop;

/// A plugin's own stack is bounded by the sandbox at a quarter of this.
const STACK_BYTES: usize = 1 << 20;

/// A full channel is tried again after this.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// How a source is run.
#[derive(Clone)]
pub struct Runner {
    pub clock: Clock,
    pub stop: Stop,
    pub keeper: mpsc::Sender<FromSource>,
    /// One round, then the thread ends.
    pub is_once: bool,
}

impl Runner {
    /// Starts the thread of a source; it drops its end of the channel when it ends.
    ///
    /// # Errors
    /// When the operating system has no thread for it.
    pub fn start(self, source: Source, key: SourceKey) -> io::Result<JoinHandle<()>> {
        let builder = std::thread::Builder::new()
            .name(source.name.clone())
            .stack_size(STACK_BYTES);
        builder.spawn(move || self.run(source, key))
    }

    fn run(self, mut source: Source, key: SourceKey) {
        // The first round comes at once, so that a started agent shows something soon.
        while self.round(&mut source, key) && !self.is_once {
            let due_ms = source.next_due(self.clock.now_ms());
            while self.clock.now_ms() < due_ms {
                if self.stop.wait(wait_for(&self.clock, due_ms)) {
                    return;
                }
            }
        }
    }

    /// False when it is time to end.
    fn round(&self, source: &mut Source, key: SourceKey) -> bool {
        let is_taken = source.collect_round(&self.clock, |_name, collected| {
            let message = FromSource::Batch {
                source: key,
                batch: collected.batch,
                progress: collected.progress,
            };
            self.hand_on(message)
        });
        is_taken && !self.stop.is_set()
    }

    /// Waits for room in the channel, but not beyond the wish to end: then nobody may ever make room.
    fn hand_on(&self, mut message: FromSource) -> bool {
        while !self.stop.is_set() {
            match self.keeper.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            if self.stop.wait(ROOM_WAIT) {
                break;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_waits_for_room_ends_when_it_is_told_to() {
        // The disk refuses, the keeper takes nothing, the channel is full: SIGTERM must still end the agent.
        let (keeper, mut taken) = mpsc::channel(1);
        let stop = Stop::default();
        let runner = Runner {
            clock: Clock::told(0),
            stop: stop.clone(),
            keeper,
            is_once: false,
        };
        assert!(runner.hand_on(FromSource::Tick { now_ms: 1 }));
        let waiting = std::thread::spawn(move || runner.hand_on(FromSource::Tick { now_ms: 2 }));
        stop.set();
        assert!(!waiting.join().unwrap());
        assert!(taken.try_recv().is_ok());
        assert!(taken.is_closed());
    }
}
