//! One configured plugin: its memory, its host, its counters.

use std::any::Any;

use tillwatch_border::{CallError, Counters, Host, Limits, check_batch, check_descriptor};
use tillwatch_core::sample::{Batch, Descriptor};
use wasmtime::{Store, Trap};

use crate::contract::{Prober, ProberPre, tillwatch::collector::types};
use crate::convert;
use crate::imports::{Guest, MemoryRefused};

/// A plugin with its own memory, called by one thread at a time, never by one that must not wait.
pub struct Instance {
    store: Store<Guest>,
    collector: Prober,
    /// A call ended in the middle: the memory may be in any state.
    spent: bool,
    is_metered: bool,
}

/// More than any call can use.
const FUEL: u64 = u64::MAX;

impl Instance {
    pub(crate) fn new(pre: &ProberPre<Guest>, is_metered: bool, guest: Guest) -> Result<Self, CallError> {
        let limits = guest.limits;
        let mut store = Store::new(pre.engine(), guest);
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(limits.output_bytes_max);
        if is_metered {
            store.set_fuel(FUEL).map_err(|error| call_error(&error, &limits))?;
        }
        let collector = pre
            .instantiate(&mut store)
            .map_err(|error| call_error(&error, &limits))?;
        Ok(Self {
            store,
            collector,
            spent: false,
            is_metered,
        })
    }

    /// What the plugin may report; after `configure` by its settings.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn describe(&mut self) -> Result<Descriptor, CallError> {
        let descriptor = self.call(|collector, store| collector.call_describe(store))?;
        let descriptor = convert::descriptor(descriptor);
        check_descriptor(&descriptor, self.limits())?;
        Ok(descriptor)
    }

    /// Gives the settings, a JSON object, once before the first `collect`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn configure(&mut self, settings: &str) -> Result<(), CallError> {
        let result = self.call(|collector, store| collector.call_configure(store, settings))?;
        self.plugin_result(result)
    }

    /// Lets the plugin read and report.
    ///
    /// # Errors
    /// See [`CallError`]; what the call read and kept must be rolled back.
    pub fn collect(&mut self) -> Result<Batch, CallError> {
        let result = self.call(|collector, store| collector.call_collect(store))?;
        let batch = convert::batch(self.plugin_result(result)?);
        check_batch(&batch, self.limits())?;
        Ok(batch)
    }

    /// The host that this instance was made with.
    pub fn host_mut(&mut self) -> &mut dyn Host {
        &mut *self.store.data_mut().host
    }

    /// The host as the type that it was made as.
    pub fn host_as<H: Host>(&mut self) -> Option<&mut H> {
        let host: &mut dyn Any = self.host_mut();
        host.downcast_mut()
    }

    /// What this instance did since its counters were taken last; the memory stays.
    pub fn take_counters(&mut self) -> Counters {
        let counters = &mut self.store.data_mut().counters;
        let memory_bytes = counters.memory_bytes;
        std::mem::replace(
            counters,
            Counters {
                memory_bytes,
                ..Counters::default()
            },
        )
    }

    /// Whether a call ended in the middle, so that another instance must be made.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    fn limits(&self) -> &Limits {
        &self.store.data().limits
    }

    /// One call under the limits. An error of the engine spends the instance.
    fn call<T>(
        &mut self,
        function: impl FnOnce(&Prober, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        if self.spent {
            return Err(CallError::Spent);
        }
        self.store.data_mut().begin_call();
        let result = function(&self.collector, &mut self.store);
        self.spent = result.is_err();
        self.count_fuel();
        result.map_err(|error| call_error(&error, self.limits()))
    }

    fn count_fuel(&mut self) {
        if self.is_metered
            && let Ok(left) = self.store.get_fuel()
            && self.store.set_fuel(FUEL).is_ok()
        {
            let fuel = &mut self.store.data_mut().counters.fuel;
            *fuel = fuel.saturating_add(FUEL - left);
        }
    }

    fn plugin_result<T>(&self, result: Result<T, types::Error>) -> Result<T, CallError> {
        let limit = self.limits().text_bytes_max;
        result.map_err(|error| CallError::Plugin(convert::error(error, limit)))
    }
}

/// Tells apart what the engine reports in one type.
fn call_error(error: &wasmtime::Error, limits: &Limits) -> CallError {
    if let Some(refused) = error.downcast_ref::<MemoryRefused>() {
        let Limits { memory_bytes_max, .. } = *limits;
        return CallError::Memory {
            wanted: refused.wanted,
            memory_bytes_max,
        };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => CallError::Stack,
        Some(trap) => CallError::Trap {
            reason: trap.to_string(),
        },
        // The engine's type for this is private; a test notices when the text changes.
        None if error.to_string().contains("fuel allocated for hostcalls") => CallError::OutputBytes {
            output_bytes_max: limits.output_bytes_max,
        },
        None => CallError::Trap {
            reason: error.root_cause().to_string(),
        },
    }
}
