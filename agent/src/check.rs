//! `tillwatch check`: everything that would keep the agent from starting, without starting it.
//!
//! After the settings it does what a start does: reads the certificates, compiles, describes and configures each plugin,
//! and asks the registry. A source that is not there is told, but it is a state and no mistake.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use tillwatch_core::Core;

use crate::clock::Clock;
use crate::collectors::{self, Source};
use crate::config::Config;
use crate::config::written::Problems;
use crate::output;
use crate::plugin::grant::Grant;
use crate::plugin::host::Reading;
use crate::run::{core_settings, keeper_settings};

/// Prints what is wrong; the exit code says whether anything is.
///
/// # Errors
/// When the output cannot be written.
pub fn run(path: &Path) -> Result<ExitCode> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems.to_string()),
    };
    if let Err(problems) = check_collectors(&config) {
        return refuse(&problems.to_string());
    }
    if let Err(error) = keeper_settings(&config) {
        return refuse(&format!("{}: {error:#}", path.display()));
    }
    for missing in missing_sources(&config) {
        output::line(&missing)?;
    }
    let (site, plugins) = (&config.site, config.plugins.len());
    output::line(&format!("{}: good: site {site}, plugins: {plugins}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(problems: &str) -> Result<ExitCode> {
    output::line(problems)?;
    Ok(ExitCode::FAILURE)
}

fn check_collectors(config: &Config) -> Result<(), Problems> {
    let how = collectors::Start {
        clock: &Clock::wall(),
        reading: Reading::TAP,
        progress: &|_source| None,
        clears_cache: false,
        status: None,
    };
    let sources = collectors::start(config, &how)?;
    let mut core = Core::new(core_settings(config));
    let refused = sources
        .into_iter()
        .filter_map(|source| refused(config, &mut core, source))
        .collect::<Vec<_>>();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Problems(refused))
    }
}

fn refused(config: &Config, core: &mut Core, source: Source) -> Option<crate::config::written::Problem> {
    let what = source.declaration;
    let declared = core.declare(&source.name, &what.version, what.metrics, what.labels);
    declared
        .err()
        .map(|error| collectors::refused(config, &source.name, &error))
}

fn missing_sources(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    for plugin in &config.plugins {
        for (name, grant) in &plugin.grants {
            let path = match grant {
                Grant::Lines { file, .. } => file,
                Grant::Documents { folder, .. } | Grant::Folder { folder, .. } => folder,
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
