//! The tables of the READMEs of this repository's plugins, written and compared.
//!
//! How they look stands in the agent's own `docs.rs`, for `tillwatch plugin docs`.

#[path = "../../../agent/src/plugin/docs.rs"]
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Plugins that stand beside the shipped ones.
const OTHERS: [&str; 2] = ["sdk/template", "sdk/examples"];

/// Rewrites every plugin's README.
pub(crate) fn write(root: &Path) -> Result<()> {
    for folder in documented(root)? {
        tables::write(&folder)?;
    }
    Ok(())
}

/// The READMEs that are not in step with plugin.toml.
pub(crate) fn stale(root: &Path) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for folder in documented(root)? {
        let (path, is, wanted) = tables::readme(&folder)?;
        if is != wanted {
            stale.push(path);
        }
    }
    Ok(stale)
}

/// The shipped plugins.
pub(crate) fn plugin_folders(root: &Path) -> Result<Vec<PathBuf>> {
    folders(&root.join("plugins"))
}

/// All that have a plugin.toml.
fn documented(root: &Path) -> Result<Vec<PathBuf>> {
    let mut documented = plugin_folders(root)?;
    for other in OTHERS.map(|other| root.join(other)) {
        documented.extend(folders(&other)?);
        documented.push(other);
    }
    documented.retain(|folder| folder.join("plugin.toml").is_file());
    Ok(documented)
}

fn folders(of: &Path) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(of)
        .with_context(|| format!("reading {}", of.display()))?
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}
