//! `tillwatch check`: everything that would keep the agent from starting, without starting it.
//!
//! After the settings it does what a start does: compiles, describes and configures each plugin, and asks the registry.
//! All faults are told at once, those of the file, of its certificates and of what a plugin or the registry refuses; only
//! what needs a value that is wrong is left out. A source that is not there is told, but it is a state and no mistake.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::clock::Clock;
use crate::collectors;
use crate::config::written::Problems;
use crate::config::{Config, Draft, PluginConfig};
use crate::output;
use crate::plugin::grant::Grant;
use crate::source::peer::PeerGrant;

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
    for note in missing_sources(&config.plugins)
        .iter()
        .chain(&hasty_plugins(&config.plugins))
    {
        output::line(note)?;
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
    collectors::try_out(config, &Clock::wall()).map(drop)
}

fn missing_sources(plugins: &[PluginConfig]) -> Vec<String> {
    let mut missing = Vec::new();
    for (plugin, name, grant) in grants(plugins) {
        let path = match grant {
            Grant::Lines { file, .. } => file,
            Grant::Logs { folder, .. } | Grant::Documents { folder, .. } | Grant::Folder { folder, .. } => folder,
            // Checking asks nobody.
            Grant::Peer(_) => continue,
        };
        if let Err(error) = std::fs::metadata(path) {
            let path = path.display();
            missing.push(note(plugin, name, &format!("is not there yet: {path}: {error}")));
        }
    }
    missing
}

/// Some of their calls would always come too soon for a query, and leave open what was sold.
fn hasty_plugins(plugins: &[PluginConfig]) -> Vec<String> {
    let mut hasty = Vec::new();
    for (plugin, name, grant) in grants(plugins) {
        let Grant::Peer(peer) = grant else { continue };
        let PeerGrant::Sql(query) = &**peer else { continue };
        let min_ms = query.interval_min.as_millis();
        if u128::from(plugin.interval_ms) < min_ms {
            let what = format!(
                "is asked every {} ms, more often than its interval_min\n  hint: write interval = \"{min_ms}ms\" or a shorter interval_min",
                plugin.interval_ms
            );
            hasty.push(note(plugin, name, &what));
        }
    }
    hasty
}

fn grants(plugins: &[PluginConfig]) -> impl Iterator<Item = (&PluginConfig, &str, &Grant)> {
    plugins.iter().flat_map(|plugin| {
        let grants = plugin.grants.iter();
        grants.map(move |(name, grant)| (plugin, name.as_str(), grant))
    })
}

fn note(plugin: &PluginConfig, source: &str, what: &str) -> String {
    let (place, name) = (&plugin.place, &plugin.name);
    let (file, line, column) = (place.path.display(), place.line, place.column);
    format!("{file}:{line}:{column}: note: source `{source}` of plugin `{name}` {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::probing_tests::{config, database};
    use std::time::Duration;

    /// Both were ten seconds by default, and the plugin's calls came too soon for its query again and again.
    #[test]
    fn a_plugin_that_is_called_more_often_than_its_query_may_run_is_told() {
        let mut plugin = config();
        let notes = |plugin: &PluginConfig| hasty_plugins(std::slice::from_ref(plugin));
        plugin
            .grants
            .insert("sales".to_owned(), database(Duration::from_secs(10)));
        plugin.interval_ms = 10_000;
        assert_eq!(notes(&plugin), Vec::<String>::new());
        plugin.interval_ms = 5_000;
        let notes = notes(&plugin);
        assert!(
            notes[0].contains("source `sales` of plugin `probe` is asked every 5000 ms")
                && notes[0].contains("hint: write interval = \"10000ms\""),
            "{notes:?}"
        );
    }
}
