//! `tillwatch plugin list`: what is installed, what it measures, asks for and can be told.

use std::path::Path;

use anyhow::Result;
use tillwatch_border::artifact::WASM_BYTES_MAX;

use super::manifest::Manifest;
use crate::bundle::parse as parse_bundle;
use crate::config::PLUGIN_DIR;
use crate::config::found::{installed, installed_bundles};
use crate::config::written::{Reporter, Section, parse};
use crate::output;
use crate::whole::read_bounded;

/// Lists the plugins of `plugin_dir`, also when the rest of agent.toml is wrong or missing.
///
/// # Errors
/// When the output cannot be written.
pub fn run(config: &Path) -> Result<()> {
    let plugin_dir = plugin_dir(config);
    let (names, bundles) = (installed(&plugin_dir), installed_bundles(&plugin_dir));
    if names.is_empty() && bundles.is_empty() {
        output::line(&format!("no plugin in {}", plugin_dir.display()))?;
    }
    for (_plugin, path) in bundles {
        output::line(&bundle(&path))?;
    }
    for name in names {
        match Manifest::load(&plugin_dir.join(&name)) {
            Ok(manifest) => output::line(&describe(&manifest))?,
            Err(problems) => output::line(&problems.to_string())?,
        }
    }
    Ok(())
}

/// What a bundle says of itself.
fn bundle(path: &Path) -> String {
    let shown = output::clean(&path.display().to_string());
    let bytes = match read_bounded(path, WASM_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => return format!("{shown}: {error}"),
    };
    match parse_bundle(&bytes) {
        Ok(bundle) => format!(
            "{}\n  bundle   {shown}, sequence {}; `tillwatch plugin verify` says who signed it",
            describe(&bundle.manifest),
            bundle.about.sequence
        ),
        Err(error) => format!("{shown}: {error}"),
    }
}

fn plugin_dir(config: &Path) -> std::path::PathBuf {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let reporter = Reporter::new(config, &text);
    let root = parse(&text, &reporter);
    let name = Section::root(&root, &reporter).string("plugin_dir");
    let base = config.parent().unwrap_or(Path::new("."));
    base.join(name.map_or_else(|| PLUGIN_DIR.to_owned(), toml::Spanned::into_inner))
}

fn describe(manifest: &Manifest) -> String {
    let mut lines = vec![format!("{} {}  {}", manifest.name, manifest.version, manifest.summary)];
    for source in &manifest.sources {
        let kind = source.kind.name();
        let needed = if source.required { ", required" } else { "" };
        lines.push(format!("  source   {} ({kind}{needed})  {}", source.name, source.help));
    }
    lines.extend(
        manifest
            .settings
            .iter()
            .map(|setting| format!("  setting  {}  {}", setting.name, setting.help)),
    );
    lines.extend(
        manifest
            .metrics
            .iter()
            .map(|metric| format!("  metric   {} [{}]  {}", metric.name, metric.unit, metric.help)),
    );
    lines
        .iter()
        .map(|line| output::clean(line))
        .collect::<Vec<_>>()
        .join("\n")
}
