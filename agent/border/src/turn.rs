//! Whose call may run: those of all plugins together, a suspect's alone.
//!
//! Nobody waits for ever: a call that hangs in a source costs the others calls, and stops none of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longer than calls last, the longest of them left out.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(crate) struct Turns {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    together: usize,
    is_alone: bool,
    /// They go before those who call together.
    waiting_alone: usize,
    /// All who wait.
    waiting: usize,
}

/// The right to make one call.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    is_alone: bool,
}

impl Turns {
    /// None when a call that runs alone does not end.
    pub(crate) fn together(&self, wait_max: Duration) -> Option<Turn<'_>> {
        let mut held = self.wait(self.lock(), wait_max, |held| held.is_alone || held.waiting_alone > 0)?;
        held.together += 1;
        Some(self.turn(false))
    }

    /// None when another call does not end.
    pub(crate) fn alone(&self, wait_max: Duration) -> Option<Turn<'_>> {
        let mut held = self.lock();
        held.waiting_alone += 1;
        let waited = self.wait(held, wait_max, |held| held.is_alone || held.together > 0);
        let is_turn = waited.is_some();
        let mut held = waited.unwrap_or_else(|| self.lock());
        held.waiting_alone -= 1;
        held.is_alone |= is_turn;
        drop(held);
        if is_turn {
            return Some(self.turn(true));
        }
        self.changed.notify_all();
        None
    }

    fn turn(&self, is_alone: bool) -> Turn<'_> {
        Turn { turns: self, is_alone }
    }

    fn wait<'a>(
        &self,
        mut held: MutexGuard<'a, Held>,
        wait_max: Duration,
        is_taken: impl Fn(&Held) -> bool,
    ) -> Option<MutexGuard<'a, Held>> {
        held.waiting += 1;
        let waited = self.changed.wait_timeout_while(held, wait_max, |held| is_taken(held));
        let (mut held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        held.waiting -= 1;
        (!timeout.timed_out()).then_some(held)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut held = self.turns.lock();
        if self.is_alone {
            held.is_alone = false;
        } else {
            held.together -= 1;
        }
        let is_waited_for = held.waiting > 0;
        drop(held);
        if is_waited_for {
            self.turns.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn a_call_alone_excludes_all_others_and_nobody_waits_for_ever() {
        let turns = Turns::default();
        let (first, second) = (turns.together(SOON), turns.together(SOON));
        assert!(first.is_some() && second.is_some());
        assert!(turns.alone(SOON).is_none());
        drop(first);
        assert!(turns.together(SOON).is_some(), "who gave up holds up nobody");
        drop(second);
        let alone = turns.alone(SOON);
        assert!(alone.is_some());
        assert!(turns.together(SOON).is_none() && turns.alone(SOON).is_none());
        drop(alone);
        assert!(turns.together(SOON).is_some() && turns.alone(SOON).is_some());
    }

    #[test]
    fn who_waits_to_be_alone_goes_before_those_who_call_together() {
        let turns = Turns::default();
        let first = turns.together(SOON);
        std::thread::scope(|scope| {
            let alone = scope.spawn(|| turns.alone(WAIT_MAX).is_some());
            while turns.lock().waiting_alone == 0 {
                std::thread::yield_now();
            }
            assert!(turns.together(SOON).is_none());
            drop(first);
            assert!(alone.join().unwrap());
        });
    }
}
