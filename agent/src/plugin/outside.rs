//! A plugin outside the agent: opened for an author's commands, not for a store.
//!
//! In: a plugin's folder, or the `.wasm` of a bundle or a component. Out: its code, ready to be called.
//! Compiled code lies in a folder of this process alone and is gone with it: no agent's cache is touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tillwatch_border::{self as border, CallError, Counters, Host, Limits, Load, Plugin};
use tillwatch_core::sample::{Batch, Descriptor};

use super::collector::check_description;
use super::compile::{self, Loader, Names};
use super::golden::host::CaseHost;
use super::manifest::{Manifest, World};
use super::program;

/// A loaded test machine is no store: what takes longer than a store allows is for `plugin bench` to say.
const CALL_MS_MAX: u64 = 10_000;
/// Enough for the runtime of any language that there is.
const COMPILER_BYTES_MAX: u64 = 2 << 30;

/// What only a prober imports.
const OF_PROBERS: [&str; 3] = ["http", "tcp", "sql"];

/// A plugin of which everything is there.
pub struct Outside {
    pub manifest: Manifest,
    pub code: Code,
}

impl Outside {
    /// Compiles and loads the plugin of a folder; `wasm` when its component is elsewhere.
    ///
    /// # Errors
    /// When plugin.toml is wrong, or the component is missing or no plugin.
    pub fn open(folder: &Path, wasm: Option<&Path>) -> Result<Self> {
        let manifest = Manifest::load(folder)?;
        let wasm = component_of(folder, &manifest, wasm);
        let code = Code::load(&wasm, None)?;
        check_world(manifest.world, &compile::names(&wasm)?)?;
        Ok(Self { manifest, code })
    }

    /// Whether the code is what its plugin.toml says: a component of an earlier build is not.
    ///
    /// # Errors
    /// When it cannot be called, or describes itself otherwise.
    pub fn check_description(&self) -> Result<()> {
        let host = Box::new(CaseHost::empty(&self.manifest.sources, 0));
        let described = self.instantiate(patient_limits(), host)?.describe()?;
        check_description(&described, &self.manifest)
    }

    /// # Errors
    /// When its process does not start, or its code was compiled for another machine.
    pub fn instantiate(&self, limits: Limits, host: Box<dyn Host>) -> Result<Instance, CallError> {
        self.code.instantiate(limits, host)
    }
}

/// The component of a plugin's folder, unless it is elsewhere.
pub fn component_of(folder: &Path, manifest: &Manifest, wasm: Option<&Path>) -> PathBuf {
    let built = || folder.join(format!("{}.wasm", manifest.name));
    wasm.map_or_else(built, Path::to_owned)
}

/// Whoever reads in plugin.toml that it is a collector may rely on it: it asks nobody over the network.
fn check_world(world: World, names: &Names) -> Result<()> {
    let is_of_probers = |import: &&String| {
        let interface = import.strip_prefix("tillwatch:collector/");
        let interface = interface.and_then(|interface| interface.split('@').next());
        interface.is_some_and(|interface| OF_PROBERS.contains(&interface))
    };
    match names.imports.iter().find(is_of_probers) {
        Some(import) if world == World::Collector => bail!(
            "plugin.toml says world = \"collector\", and the component imports {import}\nhint: write world = \"prober\", or export it with `export!`"
        ),
        _ => Ok(()),
    }
}

/// An instance in a process of its own, with its host.
pub struct Instance {
    plugin: Plugin,
    host: Box<dyn Host>,
}

impl Instance {
    /// # Errors
    /// See [`CallError`].
    pub fn describe(&mut self) -> Result<Descriptor, CallError> {
        self.plugin.describe(&mut *self.host)
    }

    /// # Errors
    /// See [`CallError`].
    pub fn configure(&mut self, settings: &str) -> Result<(), CallError> {
        self.plugin.configure(settings, &mut *self.host)
    }

    /// # Errors
    /// See [`CallError`].
    pub fn collect(&mut self) -> Result<Batch, CallError> {
        self.plugin.collect(&mut *self.host)
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.plugin.counters()
    }
}

/// A component's code, in the sandbox that stores have.
pub struct Code {
    code: Arc<border::Code>,
    cache: PrivateFolder,
}

impl Code {
    /// Compiles and loads a component; of a bundle only the bytes that were `verified`, named by their sha256.
    /// Every command that calls a plugin outside the agent comes through here.
    ///
    /// # Errors
    /// When it is missing or no plugin.
    pub fn load(wasm: &Path, verified: Option<&str>) -> Result<Self> {
        Self::load_with(wasm, verified, |loader| loader)
    }

    /// The same, compiled so that it counts what it executes.
    ///
    /// # Errors
    /// When it is missing or no plugin.
    pub fn load_metered(wasm: &Path) -> Result<Self> {
        Self::load_with(wasm, None, Loader::metered)
    }

    fn load_with(wasm: &Path, verified: Option<&str>, how: impl FnOnce(Loader) -> Loader) -> Result<Self> {
        let cache = PrivateFolder::new()?;
        let code = how(Loader::new(&cache.0, COMPILER_BYTES_MAX)?).load(wasm, verified)?;
        Ok(Self { code, cache })
    }

    /// # Errors
    /// See `start`.
    pub fn instantiate(&self, limits: Limits, host: Box<dyn Host>) -> Result<Instance, CallError> {
        let plugin = self.start(limits)?;
        Ok(Instance { plugin, host })
    }

    /// Starts a process for this plugin alone.
    ///
    /// # Errors
    /// When it does not start, or the code was compiled for another machine.
    pub fn start(&self, limits: Limits) -> Result<Plugin, CallError> {
        let unavailable = |reason: String| CallError::Unavailable { reason };
        let program = program::find(program::SANDBOX).map_err(|error| unavailable(format!("{error:#}")))?;
        let load = Load {
            code: Arc::clone(&self.code),
            limits,
            name: "the plugin".to_owned(),
        };
        let started = border::start(program, vec![load]).map_err(|error| unavailable(error.to_string()))?;
        match started.into_iter().next() {
            Some(Ok(plugin)) => Ok(plugin),
            Some(Err(error)) => Err(unavailable(error.to_string())),
            None => Err(CallError::Spent),
        }
    }

    /// Of the machine code that was compiled from the component.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn compiled_bytes(&self) -> Result<u64> {
        let files = std::fs::read_dir(self.cache.0.join("cache")).context("reading the compiled code")?;
        let sizes = files.map(|file| Ok(file?.metadata()?.len()));
        sizes.sum::<std::io::Result<u64>>().context("reading the compiled code")
    }
}

/// The limits of a store that sets nothing, except for the time.
#[must_use]
pub fn patient_limits() -> Limits {
    Limits {
        call_ms_max: CALL_MS_MAX,
        ..Limits::default()
    }
}

/// A folder for compiled code that nobody else can write, gone at the end.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn new() -> Result<Self> {
        let name = format!("tillwatch-test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().join(name);
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // What is left in the system's folder for temporary files is cleared by the system.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
