//! From code that the agent checked to a plugin that can be instantiated.

use std::os::fd::{AsFd, AsRawFd};

use tillwatch_border::artifact::WASM_STACK_BYTES_MAX;
use tillwatch_border::wire::Refusal;
use tillwatch_border::{CallError, Host, Limits, cut};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::REASON_BYTES_MAX;
use crate::contract::{Prober, ProberPre};
use crate::engine;
use crate::imports::Guest;
use crate::instance::Instance;

/// The engine that all plugins of a process share.
pub struct Sandbox {
    engine: Engine,
    is_metered: bool,
    linker: Linker<Guest>,
}

/// A loaded plugin; instances of it share its code.
pub struct Plugin {
    pre: ProberPre<Guest>,
    is_metered: bool,
}

/// The engine did not start: this machine cannot run plugins.
#[derive(Debug, thiserror::Error)]
#[error("starting the plugin engine: {reason}")]
pub struct EngineError {
    reason: String,
}

impl Sandbox {
    /// Starts the engine, for metered code or for code as stores run it.
    ///
    /// # Errors
    /// When this machine cannot run plugins.
    pub fn new(is_metered: bool) -> Result<Self, EngineError> {
        let reason = |error: wasmtime::Error| EngineError {
            reason: format!("{error:#}"),
        };
        let engine = Engine::new(&engine::config(WASM_STACK_BYTES_MAX, is_metered)).map_err(reason)?;
        let mut linker = Linker::new(&engine);
        Prober::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest).map_err(reason)?;
        Ok(Self {
            engine,
            is_metered,
            linker,
        })
    }

    /// Maps a plugin's code, whole and without a copy; after that it needs no file and no further mapping of code.
    ///
    /// # Errors
    /// When the engine does not take the code, or it does not fit the contract.
    pub fn load(&self, code: impl AsFd) -> Result<Plugin, Refusal> {
        let reason = |error: wasmtime::Error| cut(&format!("{error:#}"), REASON_BYTES_MAX).to_owned();
        let refused = |error| Refusal::Engine(reason(error));
        let component = self.component(code).map_err(refused)?;
        component.initialize_copy_on_write_image().map_err(refused)?;
        let pre = self.linker.instantiate_pre(&component).and_then(ProberPre::new);
        match pre {
            Ok(pre) => Ok(Plugin {
                pre,
                is_metered: self.is_metered,
            }),
            Err(error) => Err(Refusal::Contract(reason(error))),
        }
    }

    #[expect(
        unsafe_code,
        reason = "mapping compiled code is why the sandbox is a crate of its own"
    )]
    fn component(&self, code: impl AsFd) -> wasmtime::Result<Component> {
        let path = format!("/proc/self/fd/{}", code.as_fd().as_raw_fd());
        // SAFETY: `deserialize_file` trusts that the file holds what `precompile_component` returned and never changes.
        // The agent hands over what `tillwatch-compile` wrote for this version and these settings, which only its own
        // user could have written, in memory that is sealed against writing.
        unsafe { Component::deserialize_file(&self.engine, path) }
    }
}

impl Plugin {
    /// Makes an instance with its own memory. Costs microseconds.
    ///
    /// # Errors
    /// When the plugin wants more than its limits at the start already.
    pub fn instantiate(&self, limits: Limits, host: Box<dyn Host>) -> Result<Instance, CallError> {
        Instance::new(&self.pre, self.is_metered, Guest::new(limits, host))
    }
}
