//! The wish to end, seen by threads that wait and by tasks.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Once set it stays set; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most so long; true when it is time to end.
    #[must_use]
    pub fn wait(&self, duration: Duration) -> bool {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _timeout) = self
            .0
            .1
            .wait_timeout_while(guard, duration, |is_set| !*is_set)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_thread_is_woken() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::from_millis(1)));
        let waiter = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::from_secs(600))
        });
        stop.set();
        assert!(waiter.join().unwrap());
        assert!(stop.is_set());
    }
}
