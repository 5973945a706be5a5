//! One thread per collector: waits until it is due, collects, hands on, commits; between calls another source may take
//! its place.
//!
//! In: a source, the clock, exchanges. Out: batches with their progress to the keeper, through a bounded channel: when the keeper
//! does not keep up, or the disk refuses, the thread waits until it is told to end, and what it would read stays in its
//! file.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use tillwatch_core::sample::{Batch, Series};
use tillwatch_core::{DeclareError, SourceKey};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::clock::Clock;
use crate::collectors::{Source, wait_for};
use crate::keeper::FromSource;
use crate::reload::Exchange;
use crate::stop::Stop;

/// A plugin's own stack is bounded by the sandbox at a quarter of this.
const STACK_BYTES: usize = 1 << 20;

/// Batches on their way to the keeper, all together: the largest that a plugin may make is a third of it.
const BYTES_MAX: usize = 16 << 20;
const ROOM_UNIT: usize = 1 << 10;

/// A full channel is tried again after this.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// How a source is run.
#[derive(Clone)]
pub struct Runner {
    pub clock: Clock,
    pub stop: Stop,
    pub keeper: mpsc::Sender<FromSource>,
    /// Of the batches on their way, in units.
    pub room: Arc<Semaphore>,
    /// One round, then the thread ends.
    pub is_once: bool,
}

/// Room for all batches on their way.
#[must_use]
pub fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BYTES_MAX / ROOM_UNIT))
}

/// In memory, about.
fn bytes_of(batch: &Batch, progress: &[u8]) -> usize {
    let of_series = |series: &Series| {
        let labels: usize = series
            .labels
            .iter()
            .map(|label| size_of::<String>() + label.len())
            .sum();
        size_of::<Series>() + labels + series.times_ms.len() * 2 * size_of::<u64>()
    };
    batch.series.iter().map(of_series).sum::<usize>() + progress.len()
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
                    Ok(exchange) => {
                        self.exchange(&mut source, &mut key, exchange);
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

    /// What is new waits for all else that is new, as all of it runs or none.
    fn exchange(&self, source: &mut Source, key: &mut SourceKey, exchange: Exchange) {
        let Exchange {
            next,
            is_new,
            ready,
            go,
            done,
        } = exchange;
        if ready.is_closed() {
            // Whoever ordered it has stopped waiting.
            return;
        }
        let prepared = source.prepare_exchange(next, is_new, &self.clock);
        // The keeper hears of it behind the last batch of the old source, whose metrics it may number otherwise.
        match prepared.and_then(|next| Ok((self.declare(&next)?, next))) {
            Err(error) => ready.send(Err(error)).unwrap_or_default(),
            Ok((new_key, next)) => {
                if ready.send(Ok(())).is_ok() && go.blocking_recv().is_ok() {
                    *key = new_key;
                    source.exchange(next);
                    done.send(()).unwrap_or_default();
                } else {
                    self.take_back(source, key);
                }
            }
        }
    }

    /// What was declared before is known, and refused only when the agent stops.
    fn take_back(&self, source: &Source, key: &mut SourceKey) {
        match self.declare(source) {
            Ok(old_key) => *key = old_key,
            Err(error) => debug!(source = source.name, %error, "not declared again"),
        }
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
            let Some(room) = self.wait_for_room(bytes_of(&collected.batch, &collected.progress)) else {
                return false;
            };
            let message = FromSource::Batch {
                source: key,
                batch: collected.batch,
                progress: collected.progress,
                room: Some(room),
            };
            self.hand_on(message)
        });
        is_taken && !self.stop.is_set()
    }

    /// None when it is time to end. What is larger than the whole room waits until it is the only one.
    fn wait_for_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(ROOM_UNIT).min(BYTES_MAX / ROOM_UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        while !self.stop.is_set() {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
                return Some(room);
            }
            if self.stop.wait(ROOM_WAIT) {
                break;
            }
        }
        None
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
            room: room(),
            is_once: false,
        };
        assert!(runner.hand_on(FromSource::Tick { now_ms: 1 }));
        let waiting = std::thread::spawn(move || runner.hand_on(FromSource::Tick { now_ms: 2 }));
        stop.set();
        assert!(!waiting.join().unwrap());
        assert!(taken.try_recv().is_ok());
        assert!(taken.is_closed());
    }

    /// 64 batches may be on their way, and each may have 6 MB: together more than the service may use.
    #[test]
    fn large_batches_wait_until_others_were_taken() {
        let (keeper, _taken) = mpsc::channel(1);
        let runner = Runner {
            clock: Clock::told(0),
            stop: Stop::default(),
            keeper,
            room: room(),
            is_once: false,
        };
        let series = Series {
            metric: 0,
            labels: vec!["x".repeat(256)],
            values: tillwatch_core::sample::Values::Integers(vec![0; 100_000]),
            times_ms: vec![0; 100_000],
        };
        let largest = Batch {
            series: vec![series; 4],
            ..Batch::default()
        };
        let bytes = bytes_of(&largest, &[]);
        assert!((6_400_000..6_500_000).contains(&bytes), "{bytes}");
        let kept: Vec<_> = (0..2).map(|_batch| runner.wait_for_room(bytes).unwrap()).collect();
        let waiting = {
            let runner = runner.clone();
            std::thread::spawn(move || runner.wait_for_room(bytes).is_some())
        };
        assert!(runner.wait_for_room(1_000).is_some(), "a small one has room");
        assert!(!waiting.is_finished());
        drop(kept);
        assert!(waiting.join().unwrap());
        assert!(
            runner.wait_for_room(usize::MAX).is_some(),
            "what is too large goes alone"
        );
        runner.stop.set();
        assert!(runner.wait_for_room(1).is_none());
    }
}
