//! From an artifact of the compiler to a plugin that can be instantiated.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::contract::{Collector, CollectorPre};
use crate::engine;
use crate::imports::Guest;
use crate::ticker::Ticker;
use crate::{CallError, Host, Instance, Limits, LoadError};

/// The engine that all plugins of an agent share.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
}

/// A loaded plugin; instances of it share its code.
pub struct Plugin {
    pre: CollectorPre<Guest>,
    ticker: Arc<Ticker>,
}

/// The engine did not start: this machine cannot run plugins.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine refuses its settings on this machine.
    #[error("starting the plugin engine: {reason}")]
    Engine { reason: String },
    /// No thread for the deadline clock.
    #[error("starting the deadline clock")]
    Thread(#[source] std::io::Error),
}

impl Sandbox {
    /// Starts the engine and its parked deadline clock.
    ///
    /// # Errors
    /// When this machine cannot run plugins.
    pub fn new() -> Result<Self, StartError> {
        let reason = |error: wasmtime::Error| StartError::Engine {
            reason: format!("{error:#}"),
        };
        let engine = Engine::new(&engine::config()).map_err(reason)?;
        let mut linker = Linker::new(&engine);
        Collector::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest).map_err(reason)?;
        let ticker = Arc::new(Ticker::start(engine.clone()).map_err(StartError::Thread)?);
        Ok(Self { engine, linker, ticker })
    }

    /// Loads what `tillwatch-compile` wrote into a file that nobody but this user (or root) may write.
    ///
    /// # Errors
    /// When the file is not an intact artifact for this engine, or others could have written it.
    pub fn load(&self, path: &Path) -> Result<Plugin, LoadError> {
        let component = self.component(path)?;
        let contract = |error: wasmtime::Error| LoadError::Contract {
            path: path.to_owned(),
            reason: format!("{error:#}"),
        };
        let pre = self
            .linker
            .instantiate_pre(&component)
            .and_then(CollectorPre::new)
            .map_err(contract)?;
        Ok(Plugin {
            pre,
            ticker: Arc::clone(&self.ticker),
        })
    }

    #[expect(
        unsafe_code,
        reason = "mapping compiled code is why the sandbox is a crate of its own"
    )]
    fn component(&self, path: &Path) -> Result<Component, LoadError> {
        let read = |source| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        if !written_by_us(path).map_err(read)? {
            return Err(LoadError::Untrusted { path: path.to_owned() });
        }
        let artifact = fs::read(path).map_err(read)?;
        let code = engine::without_header(&artifact).map_err(|error| LoadError::header(path.to_owned(), error))?;
        // SAFETY: `deserialize` trusts that the bytes are what `precompile_component` returned.
        // Only our user or root could have written this file; our header says that `tillwatch-compile` did,
        // for this version and these settings, and its digest that the bytes are still those.
        let component = unsafe { Component::deserialize(&self.engine, code) };
        component.map_err(|error| LoadError::Engine {
            path: path.to_owned(),
            reason: format!("{error:#}"),
        })
    }
}

impl Plugin {
    /// Makes an instance with its own memory. Costs microseconds.
    ///
    /// # Errors
    /// When the plugin wants more than its limits at the start already.
    pub fn instantiate(&self, limits: Limits, host: Box<dyn Host>) -> Result<Instance, CallError> {
        Instance::new(&self.pre, Arc::clone(&self.ticker), Guest::new(limits, host))
    }
}

/// Whether nobody but this process' user and root can have written the file: neither the file itself,
/// nor by exchanging it in its folder.
#[cfg(unix)]
fn written_by_us(path: &Path) -> std::io::Result<bool> {
    let folder = path.canonicalize()?.parent().map(Path::to_owned).unwrap_or_default();
    let ours = effective_user()?;
    Ok(owner_writes_alone(&fs::metadata(path)?, ours) && owner_writes_alone(&fs::metadata(folder)?, ours))
}

#[cfg(unix)]
fn owner_writes_alone(metadata: &fs::Metadata, ours: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    (owner == ours || owner == 0) && mode & 0o022 == 0
}

/// The owner of this process' entry in `/proc`.
#[cfg(unix)]
fn effective_user() -> std::io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Elsewhere the access list of the cache's folder decides, which the installer sets.
#[cfg(not(unix))]
fn written_by_us(_path: &Path) -> std::io::Result<bool> {
    Ok(true)
}
