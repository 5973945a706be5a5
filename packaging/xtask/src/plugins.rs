//! Builds the shipped plugins, and the hostile one of the sandbox's tests, to components.
//!
//! The sources come in, `target/plugins/<name>/{plugin.toml,<name>.wasm}` and `target/guests/hostile.wasm` go out.
//! The target wasm32-unknown-unknown links to a component directly when `wasm-component-ld`, which every rustup
//! toolchain ships, is the linker. The target's standard library comes from rustup, or is built from Debian's sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{cargo, output, run, target};
use crate::tools;

const PLUGINS: [&str; 3] = ["pos-latency", "queue-depth", "sales"];
/// Misbehaves on demand; never packed.
const HOSTILE: &str = "hostile";

const TARGET: &str = "wasm32-unknown-unknown";
/// The newer compiler that Debian has for its browsers, and its standard library's sources.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// `\0asm`, version 13, layer 1: a component. A core module has version 1, layer 0.
const COMPONENT_HEAD: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Where the target's standard library comes from.
enum Toolchain {
    /// The toolchain in use has it.
    Rustup,
    /// Debian's compiler builds it from Debian's sources.
    Debian,
}

/// Builds all plugins; returns their folders.
///
/// # Errors
/// When there is no toolchain for the target, or a plugin does not build to a component.
pub(crate) fn build(root: &Path) -> Result<Vec<PathBuf>> {
    let target_dir = target(root).join("wasm");
    run(&mut command(root, &toolchain(root)?, &target_dir)?).context("building the plugins")?;
    let built = target_dir.join(TARGET).join("release");
    let guests = target(root).join("guests");
    copy_component(&built, HOSTILE, &guests)?;
    PLUGINS.iter().map(|name| install(root, &built, name)).collect()
}

/// The folder of one plugin, as `plugin_dir` of an agent has it.
fn install(root: &Path, built: &Path, name: &str) -> Result<PathBuf> {
    let folder = target(root).join("plugins").join(name);
    copy_component(built, name, &folder)?;
    let source = root.join("plugins").join(name);
    for file in ["plugin.toml", "README.md", "sample.toml"] {
        copy(&source.join(file), &folder.join(file))?;
    }
    Ok(folder)
}

fn copy_component(built: &Path, name: &str, folder: &Path) -> Result<()> {
    let wasm = built.join(format!("{}.wasm", name.replace('-', "_")));
    let bytes = fs::read(&wasm).with_context(|| format!("reading {}", wasm.display()))?;
    ensure!(
        bytes.starts_with(&COMPONENT_HEAD),
        "{} is not a component: the linker was not wasm-component-ld",
        wasm.display()
    );
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    copy(&wasm, &folder.join(format!("{name}.wasm")))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The cargo command for all plugins at once.
fn command(root: &Path, toolchain: &Toolchain, target_dir: &Path) -> Result<Command> {
    let linkers = linkers(root)?;
    let mut command = match toolchain {
        Toolchain::Rustup => cargo(root, &[]),
        Toolchain::Debian => debian_cargo(),
    };
    command
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "--package",
            HOSTILE,
        ])
        .args(PLUGINS.iter().flat_map(|name| ["--package", name]))
        .arg("--target-dir")
        .arg(target_dir)
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            linkers.join("wasm-component-ld"),
        )
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", rust_flags(root))
        .env("PATH", path_with(&linkers.join("gcc-ld"))?);
    if matches!(toolchain, Toolchain::Debian) {
        command.args(["-Z", "build-std=std,panic_abort"]);
    }
    Ok(command)
}

/// Debian's cargo and compiler, undisturbed by the toolchain that runs this command.
fn debian_cargo() -> Command {
    let mut command = Command::new("/usr/bin/cargo");
    for variable in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        command.env_remove(variable);
    }
    // This compiler is a stable one; building the standard library counts as unstable.
    command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    command
}

/// The texts of panics name files; without this they would name a developer's folders.
fn rust_flags(root: &Path) -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let mut flags = format!("--remap-path-prefix={}/=", root.display());
    if let Some(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={}/registry/src/=", home.display()));
    }
    flags
}

/// The folder with wasm-component-ld, of the toolchain that runs this command.
fn linkers(root: &Path) -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").current_dir(root).args(["--print", "sysroot"]))?;
    let host = output(Command::new("rustc").current_dir(root).args(["--print", "host-tuple"]))?;
    let folder = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host.trim())
        .join("bin");
    let linker = folder.join("wasm-component-ld");
    ensure!(
        linker.is_file(),
        "{} is missing\nhint: a toolchain of rustup has it",
        linker.display()
    );
    Ok(folder)
}

fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_path_buf()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("joining PATH")
}

/// Finds what is installed; else installs what can be installed; else names the commands.
fn toolchain(root: &Path) -> Result<Toolchain> {
    if has_rustup_target(root)? {
        return Ok(Toolchain::Rustup);
    }
    if has_debian() {
        return Ok(Toolchain::Debian);
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if added.is_ok_and(|status| status.success()) && has_rustup_target(root)? {
        return Ok(Toolchain::Rustup);
    }
    tools::apt_install(&DEBIAN_PACKAGES)
        .with_context(|| format!("no toolchain builds {TARGET}\nhint: rustup target add {TARGET}"))?;
    ensure!(
        has_debian(),
        "the packages {DEBIAN_PACKAGES:?} are installed, but /usr/bin/cargo or its sources are missing"
    );
    Ok(Toolchain::Debian)
}

fn has_rustup_target(root: &Path) -> Result<bool> {
    let libraries = ["--print", "target-libdir", "--target", TARGET];
    let folder = output(Command::new("rustc").current_dir(root).args(libraries))?;
    Ok(Path::new(folder.trim()).is_dir())
}

fn has_debian() -> bool {
    let files = [
        "/usr/bin/cargo",
        "/usr/bin/rustc",
        "/usr/lib/rustlib/src/rust/library/std/Cargo.toml",
    ];
    files.iter().all(|file| Path::new(file).is_file())
}
