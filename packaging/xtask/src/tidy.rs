//! `cargo xtask tidy`: the rules of the house that the compiler does not know, in about a second.
//!
//! The arrows between our crates, the doors of heavy crates, licenses, unused dependencies, complete plugin folders,
//! READMEs in step with plugin.toml, every warning explained, an example for each public item of the SDK, golden files
//! that are only added, and hollow tests.

mod crates;
mod examples;
mod files;
mod messages;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::docs;

/// Checks everything and reports all faults at once.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut faults = crates::faults(&crates::workspace(root)?);
    faults.extend(files::faults(root)?);
    faults.extend(messages::faults(root)?);
    faults.extend(examples::faults(root)?);
    for readme in docs::stale(root)? {
        faults.push(format!(
            "{} is not in step with plugin.toml\nhint: cargo xtask docs",
            readme.display()
        ));
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    ensure!(faults.is_empty(), "{} faults", faults.len());
    Ok(())
}
