//! What builds a plugin's crate to a component: cargo for wasm32-unknown-unknown, with `wasm-component-ld` as the linker.
//!
//! Every rustup toolchain ships that linker; the default one gives a core module, which agents refuse. The target's
//! standard library comes from rustup, or is built from Debian's sources. `cargo xtask plugins` includes this very file,
//! so that both build alike.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// The compiler's own flags for that target.
pub(crate) const FLAGS_VARIABLE: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS";
/// Every engine has 128-bit vectors: the search for a line's end takes 16 bytes at once.
pub(crate) const FLAGS: &str = "-C target-feature=+simd128";
/// The newer compiler that Debian has for its browsers, and its standard library's sources.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_FILES: [&str; 3] = [
    "/usr/bin/cargo",
    "/usr/bin/rustc",
    "/usr/lib/rustlib/src/rust/library/std/Cargo.toml",
];
/// `\0asm`, version 13, layer 1: a component. A core module has version 1, layer 0.
const COMPONENT_HEAD: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Where the target's standard library comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The toolchain in use has it.
    Rustup,
    /// Debian's compiler builds it from Debian's sources.
    Debian,
}

/// What is installed, as seen from a crate's folder.
///
/// # Errors
/// When there is no compiler at all.
pub(crate) fn find(folder: &Path) -> Result<Option<Toolchain>> {
    let libraries = rustc(folder, &["--print", "target-libdir", "--target", TARGET])?;
    let is_rustup = Path::new(&libraries).is_dir();
    let is_debian = DEBIAN_FILES.iter().all(|file| Path::new(file).is_file());
    Ok(match (is_rustup, is_debian) {
        (true, _) => Some(Toolchain::Rustup),
        (false, true) => Some(Toolchain::Debian),
        (false, false) => None,
    })
}

/// `cargo build` for the target in a crate's folder; the caller adds what to build, and where to.
///
/// # Errors
/// When the linker is missing.
pub(crate) fn cargo_build(folder: &Path, toolchain: Toolchain) -> Result<Command> {
    let linkers = linkers(folder)?;
    let mut command = match toolchain {
        Toolchain::Rustup => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
        Toolchain::Debian => debian_cargo(),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(linkers.join("gcc-ld")).chain(std::env::split_paths(&path));
    command
        .current_dir(folder)
        .args(["build", "--release", "--target", TARGET])
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            linkers.join("wasm-component-ld"),
        )
        .env("PATH", std::env::join_paths(folders).context("joining PATH")?);
    // An author's own flags stay.
    if std::env::var_os(FLAGS_VARIABLE).is_none() {
        command.env(FLAGS_VARIABLE, FLAGS);
    }
    if toolchain == Toolchain::Debian {
        command.args(["-Z", "build-std=std,panic_abort"]);
    }
    Ok(command)
}

/// Where cargo puts a plugin's component, below a target directory.
pub(crate) fn component_path(target_dir: &Path, name: &str) -> PathBuf {
    let folder = target_dir.join(TARGET).join("release");
    folder.join(format!("{}.wasm", name.replace('-', "_")))
}

/// The component of a crate that was built, below a target directory.
///
/// # Errors
/// When it is not there, or is no component.
pub(crate) fn component(target_dir: &Path, name: &str) -> Result<Vec<u8>> {
    let built = component_path(target_dir, name);
    let bytes = std::fs::read(&built).with_context(|| {
        format!(
            "reading {}\nhint: `name` in Cargo.toml and plugin.toml must be the same, and crate-type hold cdylib",
            built.display()
        )
    })?;
    ensure!(
        bytes.starts_with(&COMPONENT_HEAD),
        "{} is no component: the linker was not wasm-component-ld",
        built.display()
    );
    Ok(bytes)
}

/// Debian's cargo and compiler, undisturbed by the toolchain in use.
fn debian_cargo() -> Command {
    let [cargo, rustc, _std] = DEBIAN_FILES;
    let mut command = Command::new(cargo);
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
    command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// The folder with wasm-component-ld, of the toolchain in use.
fn linkers(folder: &Path) -> Result<PathBuf> {
    let sysroot = rustc(folder, &["--print", "sysroot"])?;
    let host = rustc(folder, &["--print", "host-tuple"])?;
    let linkers = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin");
    let linker = linkers.join("wasm-component-ld");
    ensure!(
        linker.is_file(),
        "{} is missing\nhint: a toolchain of rustup has it",
        linker.display()
    );
    Ok(linkers)
}

fn rustc(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc")
        .current_dir(folder)
        .args(arguments)
        .output()
        .context("starting rustc\nhint: install Rust with rustup, which brings the compiler, cargo and the linker")?;
    ensure!(output.status.success(), "rustc {} failed", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
