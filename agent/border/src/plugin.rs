//! A plugin as the agent has it: called like a function, run in the process of all plugins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tillwatch_core::sample::{Batch, Descriptor};

use crate::exchange::{Brought, Connection, Lost, STARVED_MAX};
use crate::process::{CallTurn, Shared, Spec, Verdict};
use crate::wire::{Call, PLUGINS_MAX};
use crate::{CallError, Code, Counters, Host, Limits, LoadError, StartError};

/// A plugin that is to run.
pub struct Load {
    /// Equal code is the same `Arc`: it is then mapped once.
    pub code: Arc<Code>,
    pub limits: Limits,
    /// Where it must be told which plugin it was.
    pub name: String,
}

/// A loaded plugin, called by one thread at a time, never by one that must not wait. The process ends with the last one.
pub struct Plugin {
    shared: Arc<Shared>,
    index: usize,
    connection: Option<(u64, Connection)>,
    instance: Instance,
    counters: Counters,
}

/// A plugin's memory, in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instance {
    /// The next call makes one.
    Wanted,
    /// It is there in this generation of the process.
    There(u64),
    /// It is not called again.
    Spent,
}

/// Starts `program` as the process of these plugins.
///
/// # Errors
/// When the process does not start; inside, for each plugin, why it was not loaded.
pub fn start(program: PathBuf, loads: Vec<Load>) -> Result<Vec<Result<Plugin, LoadError>>, StartError> {
    if loads.len() > PLUGINS_MAX {
        return Err(StartError::Machine {
            reason: format!("{} plugins, at most {PLUGINS_MAX}", loads.len()),
        });
    }
    let codes: Vec<Arc<Code>> = loads.iter().map(|load| Arc::clone(&load.code)).collect();
    let (shared, loaded) = Shared::start(Spec {
        program,
        plugins: loads,
    })?;
    let shared = Arc::new(shared);
    let plugin = |(index, (loaded, code)): (usize, (Result<(), crate::wire::Refusal>, Arc<Code>))| match loaded {
        Ok(()) => Ok(Plugin {
            shared: Arc::clone(&shared),
            index,
            connection: None,
            instance: Instance::Wanted,
            counters: Counters::default(),
        }),
        Err(refusal) => Err(code.refused(refusal)),
    };
    Ok(loaded.into_iter().zip(codes).enumerate().map(plugin).collect())
}

impl Plugin {
    /// Where its code was taken from.
    #[must_use]
    pub fn code_path(&self) -> Option<&Path> {
        self.shared.code_path(self.index)
    }

    /// The next call gets a new instance with its own memory. Costs microseconds.
    pub fn renew(&mut self) {
        self.instance = Instance::Wanted;
    }

    /// What the plugin may report; after `configure` by its settings.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn describe(&mut self, host: &mut dyn Host) -> Result<Descriptor, CallError> {
        match self.call(Call::Describe, host)? {
            Brought::Descriptor(descriptor) => Ok(descriptor),
            Brought::Configured | Brought::Batch(_) => Err(ANSWERS_ANOTHER),
        }
    }

    /// Gives the settings, a JSON object, once before the first `collect` of an instance.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn configure(&mut self, settings: &str, host: &mut dyn Host) -> Result<(), CallError> {
        match self.call(Call::Configure(settings.to_owned()), host)? {
            Brought::Configured => Ok(()),
            Brought::Descriptor(_) | Brought::Batch(_) => Err(ANSWERS_ANOTHER),
        }
    }

    /// Lets the plugin read and report.
    ///
    /// # Errors
    /// See [`CallError`]; what the call read and kept must be rolled back.
    pub fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, CallError> {
        match self.call(Call::Collect, host)? {
            Brought::Batch(batch) => Ok(batch),
            Brought::Configured | Brought::Descriptor(_) => Err(ANSWERS_ANOTHER),
        }
    }

    /// Whether a call ended in the middle, so that it must be renewed.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.instance == Instance::Spent
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.shared.limits(self.index)
    }

    /// What it did since its counters were taken last.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The same, and counting begins anew; the memory stays.
    pub fn take_counters(&mut self) -> Counters {
        let anew = Counters {
            memory_bytes: self.counters.memory_bytes,
            ..Counters::default()
        };
        std::mem::replace(&mut self.counters, anew)
    }

    /// Of the running process, for those who look at it from outside.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.shared.process_id()
    }

    /// How often the process of all plugins was started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.restarts()
    }

    /// Why the process of all plugins had to be started again since anybody asked last.
    #[must_use]
    pub fn take_restart(&self) -> Option<String> {
        self.shared.take_restart()
    }

    fn call(&mut self, call: Call, host: &mut dyn Host) -> Result<Brought, CallError> {
        if self.is_spent() {
            return Err(CallError::Spent);
        }
        let mut counters = Counters::default();
        let result = self.call_once(call, host, &mut counters);
        if result.as_ref().is_err_and(CallError::spends_the_instance) {
            self.instance = Instance::Spent;
        }
        self.counters.add(&counters);
        result
    }

    fn call_once(&mut self, call: Call, host: &mut dyn Host, counters: &mut Counters) -> Result<Brought, CallError> {
        let shared = Arc::clone(&self.shared);
        let kind = std::mem::discriminant(&call);
        let mut turn = CallTurn::new(&shared, self.index)?;
        let (generation, connection) = turn.enter(kind)?;
        if let Some(connection) = connection {
            self.connection = Some((generation, connection));
        }
        let is_fresh = self.instance == Instance::Wanted;
        let is_there = is_fresh || self.instance == Instance::There(generation);
        let connection = self.connection.as_mut().filter(|(of, _connection)| *of == generation);
        let (Some((_of, connection)), true) = (connection, is_there) else {
            shared.withdraw(self.index);
            return Err(CallError::Gone);
        };
        self.instance = Instance::There(generation);
        let limits = shared.limits(self.index);
        let mut outside = |wait: &mut dyn FnMut()| turn.outside(wait);
        let lost = match connection.call(call, is_fresh, host, limits, &mut outside, counters) {
            Ok(result) => {
                shared.leave(self.index, kind);
                return result;
            }
            Err(lost) => lost,
        };
        // What half came over it may be megabytes.
        self.connection = None;
        match lost {
            Lost::Deadline => {
                let Limits { call_ms_max, .. } = *limits;
                shared.end(
                    self.index,
                    generation,
                    &format!("took more than {call_ms_max} ms of a processor"),
                );
                Err(CallError::Deadline { call_ms_max })
            }
            Lost::Starved => {
                let reason = format!("got no processor for {} s", STARVED_MAX.as_secs());
                shared.end(self.index, generation, &reason);
                Err(CallError::Unavailable {
                    reason: format!("the plugin {reason}\nhint: the machine is overloaded"),
                })
            }
            Lost::Broken => match shared.broke(self.index, generation) {
                Verdict::Guilty => Err(CallError::Crash),
                Verdict::Repeat => Err(CallError::Gone),
            },
        }
    }
}

const ANSWERS_ANOTHER: CallError = CallError::Malformed {
    reason: "an answer to another call",
};
