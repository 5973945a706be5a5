//! The programs that come with the agent and that it starts.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Compiles plugins.
pub const COMPILER: &str = "tillwatch-compile";
/// Runs them.
pub const SANDBOX: &str = "tillwatch-sandbox";

/// Beside our own program, else on the PATH.
///
/// # Errors
/// When it is at neither place.
pub fn find(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = beside.into_iter().chain(on_path).find(|candidate| candidate.is_file());
    found.with_context(|| {
        format!("{name} is neither beside this program nor on the PATH\nhint: install the whole package")
    })
}
