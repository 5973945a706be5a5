//! `tillwatch check`: everything that would keep the agent from starting, without starting it.
//!
//! After the settings it does what a start does: compiles, describes and configures each plugin, and asks the registry.
//! All faults are told at once, those of the file, of its certificates and of what a plugin or the registry refuses; only
//! what needs a value that is wrong is left out. A source that is not there is told, but it is a state and no mistake.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use tillwatch_core::Core;

use crate::clock::Clock;
use crate::collectors;
use crate::config::written::Problems;
use crate::config::{Config, Draft};
use crate::output;
use crate::plugin::grant::Grant;
use crate::plugin::host::Reading;
use crate::run::core_settings;

/// Prints what is wrong; the exit code says whether anything is.
///
/// # Errors
/// When the output cannot be written.
pub fn run(path: &Path) -> Result<ExitCode> {
    let checked = load(path).and_then(|config| try_plugins(&config).map(|()| config));
    let config = match checked {
        Ok(config) => config,
        Err(problems) => {
            output::line(&problems.to_string())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    for missing in missing_sources(&config) {
        output::line(&missing)?;
    }
    let (site, plugins) = (&config.site, config.plugins.len());
    output::line(&format!("{}: good: site {site}, plugins: {plugins}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// For commands that start the plugins, which then say what is wrong with a file that is good as far as it can be read.
///
/// # Errors
/// Everything that is wrong, also what its plugins refuse.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let Draft { config, mut problems } = Draft::load(path)?;
    if problems.0.is_empty() {
        return Ok(config);
    }
    if let Err(Problems(mut refused)) = try_plugins(&config) {
        problems.0.append(&mut refused);
    }
    // Those of agent.toml by their place; the files of its plugins follow.
    problems
        .0
        .sort_by_key(|problem| (problem.path != path, problem.path.clone(), problem.line, problem.column));
    Err(problems)
}

fn try_plugins(config: &Config) -> Result<(), Problems> {
    let how = collectors::Start {
        clock: &Clock::wall(),
        reading: Reading::TAP,
        progress: &|_source| None,
        clears_cache: false,
        status: None,
    };
    let mut core = Core::new(core_settings(config));
    let declared = collectors::start(config, &how).declare(config, |source, what| {
        core.declare(source, &what.version, what.metrics, what.labels)
    });
    declared.map(drop)
}

fn missing_sources(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    for plugin in &config.plugins {
        for (name, grant) in &plugin.grants {
            let path = match grant {
                Grant::Lines { file, .. } => file,
                Grant::Logs { folder, .. } | Grant::Documents { folder, .. } | Grant::Folder { folder, .. } => folder,
                // Checking asks nobody.
                Grant::Peer(_) => continue,
            };
            if let Err(error) = std::fs::metadata(path) {
                let place = &plugin.place;
                let (line, column) = (place.line, place.column);
                let file = place.path.display();
                missing.push(format!(
                    "{file}:{line}:{column}: note: source `{name}` of plugin `{}` is not there yet: {}: {error}",
                    plugin.name,
                    path.display()
                ));
            }
        }
    }
    missing
}
