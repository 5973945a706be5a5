//! `tillwatch plugin inspect`: what a file or folder is, before anybody trusts it.
//!
//! In: a component, a bundle, or a plugin's folder. Out: the contract that it was built for, what it asks for and what
//! it measures. A component of another contract is described as far as its names go, and is not run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tillwatch_border::Host;
use tillwatch_border::artifact::WASM_BYTES_MAX;
use tillwatch_core::sample::{Descriptor, Metric};

use super::compile::{self, Names};
use super::golden::host::CaseHost;
use super::manifest::Manifest;
use super::outside::{Code, Outside, patient_limits};
use crate::bundle::{self, BundleError};
use crate::output;
use crate::whole::read_bounded;

/// Arguments of `plugin inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A component, a bundle, or the folder with plugin.toml and the .wasm.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// One JSON object for programs.
    #[arg(long)]
    json: bool,
}

/// What is known of a plugin; also the keys of `--json`.
#[derive(Debug, Serialize)]
struct Inspected {
    file: String,
    name: Option<String>,
    version: Option<String>,
    /// Imports, exports and the contract.
    #[serde(flatten)]
    names: Names,
    wasm_bytes: u64,
    /// None when this agent cannot run it.
    compiled_bytes: Option<u64>,
    bundle: Option<InBundle>,
    /// None without a plugin.toml.
    asks: Option<Asks>,
    metrics: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct InBundle {
    sequence: u64,
    expires: String,
    agent_min: String,
}

#[derive(Debug, Serialize)]
struct Asks {
    world: &'static str,
    sources: Vec<Asked>,
    settings: Vec<Asked>,
    labels: Vec<Label>,
}

/// What values a label may take.
#[derive(Debug, Serialize)]
struct Label {
    name: String,
    pattern: Option<String>,
    values: Option<Vec<String>>,
    values_max: u32,
}

#[derive(Debug, Serialize)]
struct Asked {
    name: String,
    kind: &'static str,
    required: bool,
    help: String,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    unit: String,
    kind: &'static str,
    labels: Vec<String>,
    currency: Option<String>,
    decimals: u8,
    help: String,
}

/// Prints what it is; fails when this agent cannot run it.
///
/// # Errors
/// When it is no plugin at all.
pub fn run(arguments: &Inspect) -> Result<ExitCode> {
    let (mut inspected, manifest) = read(&arguments.path)?;
    let loaded = load(&mut inspected, manifest);
    let text = if arguments.json {
        serde_json::to_string(&inspected)?
    } else {
        shown(&inspected)
    };
    output::line(&text)?;
    match loaded {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            output::error(&format!("it cannot run here: {}", output::told(&error)));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What can be known without running anything of it.
fn read(path: &Path) -> Result<(Inspected, Option<Manifest>)> {
    let (wasm, manifest) = if path.is_dir() {
        let manifest = Manifest::load(path)?;
        (path.join(format!("{}.wasm", manifest.name)), Some(manifest))
    } else {
        (path.to_owned(), None)
    };
    let bytes = read_bounded(&wasm, WASM_BYTES_MAX).with_context(|| format!("reading {}", wasm.display()))?;
    let (manifest, about) = match bundle::parse(&bytes) {
        Ok(bundle) => (Some(bundle.manifest), Some(bundle.about)),
        Err(BundleError::NoBundle) => (manifest, None),
        Err(error) => return Err(error).with_context(|| wasm.display().to_string()),
    };
    let inspected = Inspected {
        file: wasm.display().to_string(),
        name: manifest.as_ref().map(|manifest| manifest.name.clone()),
        version: manifest.as_ref().map(|manifest| manifest.version.clone()),
        names: compile::names(&wasm)?,
        wasm_bytes: bytes.len() as u64,
        compiled_bytes: None,
        bundle: about.map(|about| InBundle {
            sequence: about.sequence,
            expires: about.expires.to_string(),
            agent_min: about.agent_min,
        }),
        metrics: manifest
            .iter()
            .flat_map(|manifest| &manifest.metrics)
            .map(measured)
            .collect(),
        asks: manifest.as_ref().map(asks),
    };
    Ok((inspected, manifest))
}

/// What the code itself says: its size on this machine, and its description, which must be that of its plugin.toml.
fn load(inspected: &mut Inspected, manifest: Option<Manifest>) -> Result<()> {
    let code = Code::load(Path::new(&inspected.file), None)?;
    inspected.compiled_bytes = Some(code.compiled_bytes()?);
    if let Some(manifest) = manifest {
        return Outside { manifest, code }.check_description();
    }
    let host: Box<dyn Host> = Box::new(CaseHost::empty(&[], 0));
    let descriptor: Descriptor = code.instantiate(patient_limits(), host)?.describe()?;
    inspected.name = Some(descriptor.name);
    inspected.version = Some(descriptor.version);
    inspected.metrics = descriptor.metrics.iter().map(measured).collect();
    Ok(())
}

fn asks(manifest: &Manifest) -> Asks {
    let sources = manifest.sources.iter().map(|source| Asked {
        name: source.name.clone(),
        kind: source.kind.name(),
        required: source.required,
        help: source.help.clone(),
    });
    let settings = manifest.settings.iter().map(|setting| Asked {
        name: setting.name.clone(),
        kind: setting.kind.name(),
        required: setting.required,
        help: setting.help.clone(),
    });
    let labels = manifest.labels.iter().map(|(name, policy)| Label {
        name: name.clone(),
        pattern: policy.pattern.clone(),
        values: policy.values.clone(),
        values_max: policy.values_max,
    });
    Asks {
        world: manifest.world.name(),
        sources: sources.collect(),
        settings: settings.collect(),
        labels: labels.collect(),
    }
}

fn measured(metric: &Metric) -> Measured {
    Measured {
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        kind: super::kind_name(metric.kind),
        labels: metric.label_keys.clone(),
        currency: metric.currency.clone(),
        decimals: metric.decimals,
        help: metric.help.clone(),
    }
}

fn shown(inspected: &Inspected) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let mut lines = vec![format!(
        "{} {}  {}",
        of(&inspected.name),
        of(&inspected.version),
        inspected.file
    )];
    lines.push(contract(&inspected.names));
    let compiled = inspected.compiled_bytes;
    let compiled = compiled.map_or_else(String::new, |bytes| format!(", {bytes} bytes after compilation"));
    lines.push(format!("size      {} bytes{compiled}", inspected.wasm_bytes));
    if let Some(bundle) = &inspected.bundle {
        let InBundle {
            sequence,
            expires,
            agent_min,
        } = bundle;
        lines.push(format!(
            "bundle    sequence {sequence}, to be taken until {expires}, for tillwatch {agent_min} and later"
        ));
    }
    lines.extend(inspected.names.imports.iter().map(|name| format!("import    {name}")));
    lines.extend(inspected.names.exports.iter().map(|name| format!("export    {name}")));
    match &inspected.asks {
        None => lines.push("asks for  unknown without its plugin.toml".to_owned()),
        Some(asks) => {
            lines.push(format!("world     {}", asks.world));
            lines.extend(asks.sources.iter().map(|source| asked("source ", source)));
            lines.extend(asks.settings.iter().map(|setting| asked("setting", setting)));
        }
    }
    lines.extend(inspected.metrics.iter().map(metric));
    let labels = inspected.asks.iter().flat_map(|asks| &asks.labels);
    lines.extend(labels.map(label));
    lines
        .iter()
        .map(|line| output::clean(line))
        .collect::<Vec<_>>()
        .join("\n")
}

fn contract(names: &Names) -> String {
    match (&names.contract, &names.supported_until) {
        (None, _) => "contract  none: it imports nothing of tillwatch:collector".to_owned(),
        (Some(version), Some(until)) => format!("contract  {version}, supported until {until}"),
        (Some(version), None) => format!("contract  {version}; this tillwatch has {}", names.agent),
    }
}

fn asked(what: &str, asked: &Asked) -> String {
    let needed = if asked.required { ", required" } else { "" };
    format!("{what}   {} ({}{needed})  {}", asked.name, asked.kind, asked.help)
}

/// What an operator lets out of the store: `.*` would be anything.
fn label(label: &Label) -> String {
    let (name, most) = (&label.name, label.values_max);
    match (&label.values, &label.pattern) {
        (Some(values), _) => format!("label     {name}: one of {}", values.join(", ")),
        (None, Some(pattern)) => format!("label     {name}: pattern {pattern}, at most {most} values"),
        (None, None) => format!("label     {name}"),
    }
}

fn metric(metric: &Measured) -> String {
    let labels = match metric.labels.as_slice() {
        [] => String::new(),
        labels => format!(" by {}", labels.join(", ")),
    };
    let unit = metric.currency.as_ref().unwrap_or(&metric.unit);
    format!(
        "metric    {} [{unit}, {}]{labels}  {}",
        metric.name, metric.kind, metric.help
    )
}
