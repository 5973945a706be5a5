//! Finds what `cargo xtask plugins` built, and compiles it once per run.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tillwatch_sandbox::{Instance, Limits, Plugin, Sandbox};

use crate::host::TestHost;

/// The engine of all tests.
pub(crate) static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::new().expect("the engine starts"));

/// The hostile plugin.
pub(crate) static HOSTILE: LazyLock<Plugin> = LazyLock::new(|| {
    let artifact = compile(&target().join("guests/hostile.wasm"), "hostile");
    SANDBOX.load(&artifact).expect("the hostile plugin is a good component")
});

/// A configured instance of the hostile plugin.
pub(crate) fn hostile(behavior: &str, limits: Limits, host: TestHost) -> Instance {
    let mut instance = HOSTILE.instantiate(limits, Box::new(host)).expect(behavior);
    instance.configure(&settings(behavior)).expect(behavior);
    instance
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
