//! `tillwatch plugin build`: a plugin's crate to a component beside its plugin.toml.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::manifest::Manifest;
use super::toolchain::{self, DEBIAN_PACKAGES, TARGET};
use crate::output;

/// Builds the crate in `folder`.
///
/// # Errors
/// When plugin.toml is wrong, no toolchain builds the target, or the crate does not build to a component.
pub fn run(folder: &Path) -> Result<()> {
    let manifest = Manifest::load(folder)?;
    let toolchain = toolchain::find(folder)?.with_context(|| {
        let packages = DEBIAN_PACKAGES.join(" ");
        format!(
            "no toolchain builds {TARGET}\nhint: rustup target add {TARGET}; where rustup cannot get it, apt-get install {packages}, beside a toolchain of rustup for its wasm-component-ld"
        )
    })?;
    let target_dir = std::path::absolute(folder.join("target/plugin"))?;
    // What an earlier build left under this name must not pass for what is built now.
    forget(&toolchain::component_path(&target_dir, &manifest.name))?;
    let mut cargo = toolchain::cargo_build(folder, toolchain)?;
    let status = cargo.arg("--target-dir").arg(&target_dir).status();
    let status = status.context("starting cargo")?;
    ensure!(status.success(), "cargo did not build {}", folder.display());
    let component = toolchain::component(&target_dir, &manifest.name)?;
    let wasm = folder.join(format!("{}.wasm", manifest.name));
    std::fs::write(&wasm, &component).with_context(|| format!("writing {}", wasm.display()))?;
    output::line(&format!("built {}: {} bytes", wasm.display(), component.len()))?;
    Ok(())
}

fn forget(built: &Path) -> Result<()> {
    match std::fs::remove_file(built) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", built.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_build_left_is_forgotten_and_its_absence_is_explained() {
        let target = tempfile::tempdir().unwrap();
        let built = toolchain::component_path(target.path(), "till-times");
        std::fs::create_dir_all(built.parent().unwrap()).unwrap();
        std::fs::write(&built, b"\0asm\x0d\0\x01\0 of yesterday").unwrap();
        toolchain::component(target.path(), "till-times").unwrap();
        forget(&built).unwrap();
        forget(&built).unwrap();
        let error = toolchain::component(target.path(), "till-times").unwrap_err();
        assert!(error.to_string().contains("crate-type hold cdylib"), "{error}");
    }
}
