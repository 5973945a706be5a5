//! Loads plugins into the one process that runs them all.
//!
//! In: components with their limits. Out: plugins that can be called, or why one of them cannot be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use tillwatch_border::{Code, Limits, Load, LoadError, Plugin, StartError, start};

use super::compile::Loader;
use super::program;
use crate::config::PluginConfig;

/// A component that is to run.
pub struct Wanted<'a> {
    pub wasm: &'a Path,
    /// The sha256 of the bytes of a bundle that was verified.
    pub verified: Option<&'a str>,
    pub limits: Limits,
    /// As the operator calls it.
    pub name: &'a str,
}

/// As the operator set them.
#[must_use]
pub fn limits(plugin: &PluginConfig) -> Limits {
    Limits {
        memory_bytes_max: usize::try_from(plugin.memory_bytes_max).unwrap_or(usize::MAX),
        call_ms_max: plugin.deadline_ms,
        ..Limits::default()
    }
}

/// Compiles what is not in the cache and starts the process; the results are in the order of what is wanted.
///
/// # Errors
/// When the process does not start. Inside, why a single plugin does not run.
pub fn load(loader: &mut Loader, wanted: &[Wanted<'_>]) -> Result<Vec<Result<Plugin>>> {
    let program = program::find(program::SANDBOX)?;
    let mut codes: Vec<Result<Arc<Code>>> = wanted
        .iter()
        .map(|wanted| loader.load(wanted.wasm, wanted.verified))
        .collect();
    let mut plugins = start_all(&program, wanted, &codes)?;
    let mut is_compiled_anew = false;
    for (index, plugin) in plugins.iter().enumerate() {
        // Compiled by the same engine, but for the processor of another machine.
        if matches!(plugin, Some(Err(LoadError::Engine { .. }))) {
            codes[index] = loader.load_anew(wanted[index].wasm, wanted[index].verified);
            is_compiled_anew = true;
        }
    }
    if is_compiled_anew {
        plugins = start_all(&program, wanted, &codes)?;
    }
    let result = |(code, plugin): (Result<Arc<Code>>, Option<Result<Plugin, LoadError>>)| match (code, plugin) {
        (Err(error), _) => Err(error),
        (Ok(_code), Some(plugin)) => Ok(plugin?),
        (Ok(_code), None) => Err(anyhow!("the plugins' process does not know it")),
    };
    Ok(codes.into_iter().zip(plugins).map(result).collect())
}

/// None where there is no code.
fn start_all(
    program: &Path,
    wanted: &[Wanted<'_>],
    codes: &[Result<Arc<Code>>],
) -> Result<Vec<Option<Result<Plugin, LoadError>>>> {
    let load = |(wanted, code): (&Wanted<'_>, &Result<Arc<Code>>)| {
        let code = Arc::clone(code.as_ref().ok()?);
        let limits = wanted.limits;
        let name = wanted.name.to_owned();
        Some(Load { code, limits, name })
    };
    let loads: Vec<Load> = wanted.iter().zip(codes).filter_map(load).collect();
    if loads.is_empty() {
        return Ok(codes.iter().map(|_code| None).collect());
    }
    let started: Result<_, StartError> = start(PathBuf::from(program), loads);
    let mut started = started.context("the plugins cannot run")?.into_iter();
    let plugin = |code: &Result<Arc<Code>>| if code.is_ok() { started.next() } else { None };
    Ok(codes.iter().map(plugin).collect())
}
