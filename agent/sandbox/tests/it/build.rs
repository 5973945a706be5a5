//! Finds what `cargo xtask plugins` built, compiles it once per run, and starts processes of it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};

use tillwatch_border::{CallError, Code, Limits, Load, Plugin, start};
use tillwatch_core::sample::Batch;

use crate::host::TestHost;

/// The hostile plugin.
pub(crate) static HOSTILE: LazyLock<Arc<Code>> = LazyLock::new(|| {
    let artifact = compile(&target().join("guests/hostile.wasm"), "hostile");
    Arc::new(Code::open(&artifact).expect("the hostile plugin is a good component"))
});

/// A plugin with its settings and its host, called as the agent calls it.
pub(crate) struct Caller {
    pub(crate) plugin: Plugin,
    pub(crate) host: TestHost,
    pub(crate) settings: String,
    /// Calls that were repeated because the process was gone.
    pub(crate) repeated: u32,
}

impl Caller {
    pub(crate) fn new(plugin: Plugin, settings: &str, host: TestHost) -> Self {
        Self {
            plugin,
            host,
            settings: settings.to_owned(),
            repeated: 0,
        }
    }

    pub(crate) fn configure(&mut self) -> Result<(), CallError> {
        self.plugin.renew();
        self.plugin.configure(&self.settings, &mut self.host)
    }

    /// One call, in the instance that is there.
    pub(crate) fn collect(&mut self) -> Result<Batch, CallError> {
        self.plugin.collect(&mut self.host)
    }

    /// In a new instance, again and again while it is others that end the process.
    pub(crate) fn collect_anew(&mut self) -> Result<Batch, CallError> {
        loop {
            match self.configure().and_then(|()| self.collect()) {
                Err(CallError::Gone) => self.repeated += 1,
                result => return result,
            }
        }
    }
}

/// The program under test.
pub(crate) fn sandbox() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tillwatch-sandbox"))
}

/// Native code in its place.
pub(crate) fn stub() -> PathBuf {
    let stub = programs().join("examples/stub");
    assert!(stub.is_file(), "{stub:?} is missing\nhint: cargo build --examples");
    stub
}

/// Puts the stub at `path`, by another program: what this one holds open for writing while a test beside starts a
/// process cannot be started itself.
pub(crate) fn copy_stub(path: &Path) {
    let copied = Command::new("cp").arg(stub()).arg(path).status();
    assert!(copied.expect("cp starts").success(), "{}", path.display());
}

/// One process of plugins of the hostile code.
pub(crate) fn start_hostile<const COUNT: usize>(program: PathBuf, limits: [Limits; COUNT]) -> [Plugin; COUNT] {
    let code = &*HOSTILE;
    let loads = limits.map(|limits| Load {
        code: Arc::clone(code),
        limits,
        name: "hostile".to_owned(),
    });
    let plugins = start(program, loads.into()).expect("the process starts");
    let plugins: Vec<Plugin> = plugins.into_iter().map(|plugin| plugin.expect("it loads")).collect();
    plugins.try_into().ok().expect("a plugin for each limit")
}

/// A configured hostile plugin in a process of its own.
pub(crate) fn hostile(behavior: &str, limits: Limits, host: TestHost) -> Caller {
    let [plugin] = start_hostile(sandbox(), [limits]);
    let mut caller = Caller::new(plugin, &settings(behavior), host);
    caller.configure().expect(behavior);
    caller
}

pub(crate) fn settings(behavior: &str) -> String {
    format!("{{\"behavior\": \"{behavior}\"}}")
}

/// Compiles a component to an artifact of this name.
pub(crate) fn compile(wasm: &Path, name: &str) -> PathBuf {
    let artifact = folder().join(format!("{name}-{}.cwasm", std::process::id()));
    let output = run_compiler(wasm, &artifact);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    artifact
}

pub(crate) fn run_compiler(wasm: &Path, artifact: &Path) -> Output {
    assert!(wasm.is_file(), "{wasm:?} is missing\nhint: cargo xtask plugins");
    compiler(wasm, artifact).output().expect("the compiler starts")
}

pub(crate) fn compiler(wasm: &Path, artifact: &Path) -> Command {
    let beside = || programs().join("tillwatch-compile");
    let program = std::env::var_os("TILLWATCH_COMPILE").map_or_else(beside, PathBuf::from);
    assert!(program.is_file(), "{program:?} is missing\nhint: cargo xtask plugins");
    let mut command = Command::new(program);
    command.arg(wasm).arg(artifact);
    command
}

/// A folder that only this user may write, as the sandbox asks for.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("artifacts");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .expect("a folder below target");
    folder
}

/// The target directory with `plugins/` and `guests/`.
pub(crate) fn target() -> PathBuf {
    programs().parent().expect("target/debug has a parent").to_owned()
}

/// Where cargo puts programs: the parent of `deps`, which holds this test.
fn programs() -> PathBuf {
    let here = || {
        let test = std::env::current_exe().expect("a test has a path");
        test.ancestors().nth(2).expect("target/debug/deps/test").to_owned()
    };
    std::env::var_os("TILLWATCH_PROGRAMS").map_or_else(here, PathBuf::from)
}
