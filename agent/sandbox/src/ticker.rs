//! The clock that stops plugins: it advances the engine's epoch while a call runs, and is parked while none does.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// A call is stopped within two ticks of its deadline.
pub(crate) const TICK_MS: u64 = 10;

/// The ticking thread; it ends with this.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: usize,
    closing: bool,
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || theirs.run(|| engine.increment_epoch()))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The epochs after which a call that starts now has surely had its time.
    pub(crate) fn epochs(call_ms_max: u64) -> u64 {
        // One more, because the current tick has begun already.
        call_ms_max.div_ceil(TICK_MS) + 1
    }

    /// Ticks until the guard is dropped.
    pub(crate) fn run(&self) -> Running {
        self.shared.lock().calls += 1;
        self.shared.changed.notify_all();
        Running {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A call is running.
pub(crate) struct Running {
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.lock().calls -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, tick: impl Fn()) {
        let mut state = self.lock();
        while !state.closing {
            if state.calls == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(TICK_MS));
            tick();
            state = self.lock();
        }
    }
}
