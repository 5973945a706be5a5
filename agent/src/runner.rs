//! One thread per collector: waits until it is due, collects, hands on, commits; between calls another source may take
//! its place.
//!
//! In: a source, the clock, exchanges. Out: batches with their progress to the keeper, through a bounded channel: when the keeper
//! does not keep up, or the disk refuses, the thread waits until it is told to end, and what it would read stays in its
//! file.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use tillwatch_core::{DeclareError, SourceKey};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::clock::Clock;
use crate::collectors::{Source, wait_for};
use crate::keeper::FromSource;
use crate::reload::Exchange;
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
    /// Starts the thread of a source, which waits for its rounds and for exchanges; it drops its end of the channel when
    /// it ends. Without anybody who could order an exchange it ends as well.
    ///
    /// # Errors
    /// When the operating system has no thread for it.
    pub fn start(self, source: Source, key: SourceKey, orders: Receiver<Exchange>) -> io::Result<JoinHandle<()>> {
        let builder = std::thread::Builder::new()
            .name(source.name.clone())
            .stack_size(STACK_BYTES);
        builder.spawn(move || self.run(source, key, &orders))
    }

    fn run(self, mut source: Source, mut key: SourceKey, orders: &Receiver<Exchange>) {
        // The first round comes at once, so that a started agent shows something soon.
        while self.round(&mut source, key) && !self.is_once {
            let mut due_ms = source.next_due(self.clock.now_ms());
            while self.clock.now_ms() < due_ms {
                match orders.recv_timeout(wait_for(&self.clock, due_ms)) {
                    Ok(Exchange { next, done }) => {
                        let exchanged = self.exchange(&mut source, &mut key, next);
                        // Whoever ordered it may have stopped waiting.
                        done.send(exchanged).unwrap_or_default();
                        due_ms = source.next_due(self.clock.now_ms());
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if self.stop.is_set() {
                    return;
                }
            }
        }
    }

    /// The keeper hears of it behind the last batch of the old source, whose metrics it may number otherwise.
    fn exchange(&self, source: &mut Source, key: &mut SourceKey, next: Source) -> Result<()> {
        let next = source.prepare_exchange(next, &self.clock)?;
        *key = self.declare(&next)?;
        source.exchange(next);
        Ok(())
    }

    fn declare(&self, source: &Source) -> Result<SourceKey> {
        let (answer, answered) = sync_channel::<Result<SourceKey, DeclareError>>(1);
        let message = FromSource::Declare {
            source: source.name.clone(),
            declaration: source.declaration.clone(),
            answer,
        };
        if self.hand_on(message) {
            while !self.stop.is_set() {
                match answered.recv_timeout(ROOM_WAIT) {
                    Ok(declared) => return Ok(declared?),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
        bail!("the agent stops")
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
