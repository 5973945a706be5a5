//! One thread per collector: waits until it is due, collects, hands on, commits.
//!
//! In: a source and the clock. Out: batches with their progress to the keeper, through a bounded channel: when the keeper
//! does not keep up, or the disk refuses, the thread waits, and what it would read stays in its file.

use std::io;
use std::thread::JoinHandle;

use tillwatch_core::SourceKey;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::collectors::{Source, wait_for};
use crate::keeper::FromSource;
use crate::stop::Stop;

/// A plugin's own stack is bounded by the sandbox at a quarter of this.
const STACK_BYTES: usize = 1 << 20;

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
            let due_ms = source.schedule.next_after(self.clock.now_ms());
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
            !self.stop.is_set() && self.keeper.blocking_send(message).is_ok()
        });
        is_taken && !self.stop.is_set()
    }
}
