//! Builds the shipped plugins, and the hostile one of the sandbox's tests, to components.
//!
//! The sources come in, `target/plugins/<name>/{plugin.toml,<name>.wasm}` and `target/guests/hostile.wasm` go out.
//! How a component is built stands in the agent's own `toolchain.rs`, for `tillwatch plugin build`; here what is missing
//! is installed first. Nothing of the agent has to be built before.

#[path = "../../../agent/src/plugin/toolchain.rs"]
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, target};
use crate::tools;
use toolchain::{DEBIAN_PACKAGES, FLAGS, FLAGS_VARIABLE, TARGET, Toolchain};

const PLUGINS: [&str; 4] = ["pos-latency", "probe", "queue-depth", "sales"];
/// Misbehaves on demand; never packed.
const HOSTILE: &str = "hostile";

/// Builds all plugins; returns their folders.
///
/// # Errors
/// When there is no toolchain for the target, or a plugin does not build to a component.
pub(crate) fn build(root: &Path) -> Result<Vec<PathBuf>> {
    let target_dir = target(root).join("wasm");
    run(&mut command(root, &target_dir)?).context("building the plugins")?;
    copy_component(&target_dir, HOSTILE, &target(root).join("guests"))?;
    PLUGINS.iter().map(|name| install(root, &target_dir, name)).collect()
}

/// The folder of one plugin, as `plugin_dir` of an agent has it.
fn install(root: &Path, target_dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = target(root).join("plugins").join(name);
    copy_component(target_dir, name, &folder)?;
    let source = root.join("plugins").join(name);
    for file in ["plugin.toml", "README.md", "sample.toml"] {
        copy(&source.join(file), &folder.join(file))?;
    }
    Ok(folder)
}

fn copy_component(target_dir: &Path, name: &str, folder: &Path) -> Result<()> {
    let component = toolchain::component(target_dir, name)?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let wasm = folder.join(format!("{name}.wasm"));
    fs::write(&wasm, component).with_context(|| format!("writing {}", wasm.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The cargo command for all plugins at once.
fn command(root: &Path, target_dir: &Path) -> Result<Command> {
    let mut command = toolchain::cargo_build(root, toolchain(root)?)?;
    command
        .args(["--quiet", "--locked", "--package", HOSTILE])
        .args(PLUGINS.iter().flat_map(|name| ["--package", name]))
        .arg("--target-dir")
        .arg(target_dir)
        // The standard library is built with them: a fifth more lines a second for a tenth more code.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env(FLAGS_VARIABLE, rust_flags(root));
    Ok(command)
}

/// The texts of panics name files; without this they would name a developer's folders.
fn rust_flags(root: &Path) -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let mut flags = format!("{FLAGS} --remap-path-prefix={}/=", root.display());
    if let Some(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={}/registry/src/=", home.display()));
    }
    flags
}

/// Finds what is installed; else installs what can be installed; else names the commands.
fn toolchain(root: &Path) -> Result<Toolchain> {
    if let Some(found) = toolchain::find(root)? {
        return Ok(found);
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if added.is_ok_and(|status| status.success())
        && let Some(found) = toolchain::find(root)?
    {
        return Ok(found);
    }
    tools::apt_install(&DEBIAN_PACKAGES)
        .with_context(|| format!("no toolchain builds {TARGET}\nhint: rustup target add {TARGET}"))?;
    toolchain::find(root)?.with_context(|| {
        format!("the packages {DEBIAN_PACKAGES:?} are installed, but /usr/bin/cargo or its sources are missing")
    })
}
