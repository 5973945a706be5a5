//! `tillwatch plugin build`: a plugin's crate to a component beside its plugin.toml.
//!
//! It calls cargo for wasm32-unknown-unknown with `wasm-component-ld`, which every rustup toolchain ships, as the linker,
//! since the default linker gives a core module, which agents refuse.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::manifest::Manifest;
use crate::output;

const TARGET: &str = "wasm32-unknown-unknown";
/// `\0asm`, version 13, layer 1: a component. A core module has version 1, layer 0.
const COMPONENT_HEAD: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// A compiler and its standard library's sources, for machines without rustup's target.
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Builds the crate in `folder`.
///
/// # Errors
/// When plugin.toml is wrong, no toolchain builds the target, or the crate does not build to a component.
pub fn run(folder: &Path) -> Result<()> {
    let manifest = Manifest::load(folder)?;
    let linkers = linkers(folder)?;
    let target_dir = folder.join("target/plugin");
    let status = command(folder, &linkers, &target_dir)?
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "cargo did not build {}", folder.display());
    let built = target_dir
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", manifest.name.replace('-', "_")));
    let wasm = folder.join(format!("{}.wasm", manifest.name));
    let bytes = std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    ensure!(
        bytes.starts_with(&COMPONENT_HEAD),
        "{} is no component: the linker was not wasm-component-ld",
        built.display()
    );
    std::fs::write(&wasm, &bytes).with_context(|| format!("writing {}", wasm.display()))?;
    output::line(&format!("built {}: {} bytes", wasm.display(), bytes.len()))?;
    Ok(())
}

fn command(folder: &Path, linkers: &Path, target_dir: &Path) -> Result<Command> {
    let is_rustup = has_rustup_target(folder)?;
    let mut command = if is_rustup {
        Command::new("cargo")
    } else {
        debian_cargo()?
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(linkers.join("gcc-ld")).chain(std::env::split_paths(&path));
    let target_dir = std::path::absolute(target_dir)?;
    command
        .current_dir(folder)
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            linkers.join("wasm-component-ld"),
        )
        .env("PATH", std::env::join_paths(folders).context("joining PATH")?);
    if !is_rustup {
        command.args(["-Z", "build-std=std,panic_abort"]);
    }
    Ok(command)
}

fn has_rustup_target(folder: &Path) -> Result<bool> {
    let libraries = rustc(folder, &["--print", "target-libdir", "--target", TARGET])?;
    Ok(Path::new(libraries.trim()).is_dir())
}

/// Debian's packages for its browsers, undisturbed by the toolchain in use.
fn debian_cargo() -> Result<Command> {
    let is_there = Path::new(DEBIAN_CARGO).is_file() && Path::new(DEBIAN_STD).is_file();
    ensure!(
        is_there,
        "no toolchain builds {TARGET}\nhint: rustup target add {TARGET}, or apt-get install rustc-web cargo-web rust-web-src"
    );
    let mut command = Command::new(DEBIAN_CARGO);
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
    Ok(command)
}

/// The folder with wasm-component-ld.
fn linkers(folder: &Path) -> Result<PathBuf> {
    let sysroot = rustc(folder, &["--print", "sysroot"])?;
    let host = rustc(folder, &["--print", "host-tuple"])?;
    let linkers = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host.trim())
        .join("bin");
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
        .context("starting rustc")?;
    ensure!(output.status.success(), "rustc {} failed", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
