//! `tillwatch plugin record`: a test case from a live store's input, redacted.
//!
//! In: agent.toml and a plugin's name in it. Out: a folder like those in `testcases/`, for its owner only.
//! It reads the granted files as they are now, newest first, and neither the agent's offsets nor its spool: the agent
//! may run meanwhile and misses nothing. Granted peers are asked as one call of the plugin asks them.
//! What stays and what goes is decided in `redact`.

mod made;
mod redact;
mod structure;
mod sources;
mod peers;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::golden;
use super::golden::admission::Admission;
use super::golden::host::CaseHost;
use super::manifest::Manifest;
use super::outside::{Code, Outside};
use crate::config::{Config, PluginConfig};
use crate::output;
use made::Made;
use peers::Answers;
use redact::Redactor;
use sources::Recorded;

const WARNING: &str = "Before it leaves the store a person must read each of its files: words and numbers were replaced by rule, and no rule knows every name.";

/// Arguments of `plugin record`.
#[derive(Debug, Args)]
pub struct Record {
    /// The plugin's name in agent.toml.
    name: String,
    /// The agent's settings.
    #[arg(long, default_value = "/etc/tillwatch/agent.toml", value_name = "FILE")]
    config: PathBuf,
    /// The case's folder, such as testcases/till-hangs; it must not be there yet.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// At most so many lines of each log, and so many files of each folder up to 20, the newest.
    #[arg(long, value_name = "N", default_value_t = 200)]
    lines: usize,
}

/// Writes the case.
///
/// # Errors
/// When the settings are wrong, the plugin is not in them, the folder exists, or no source can be read.
pub fn run(arguments: &Record) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    let names: Vec<&str> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let plugin = config.plugins.iter().find(|plugin| plugin.name == arguments.name);
    let plugin = plugin.with_context(|| {
        let (name, config) = (&arguments.name, arguments.config.display());
        format!(
            "{config} has no plugin named {name:?}\nhint: it has {}",
            names.join(", ")
        )
    })?;
    let out = &arguments.out;
    ensure!(
        !out.exists(),
        "{} is there already\nhint: choose another --out",
        out.display()
    );
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let code = Code::load(
        &plugin.wasm,
        plugin.bundle.as_ref().map(|bundle| bundle.sha256.as_str()),
    )?;
    let redactor = redactor(plugin, now)?;
    let sources = plugin.grants.iter();
    let recorded: Vec<Recorded> = sources
        .filter_map(|(name, grant)| sources::record(name, grant, &redactor, now, arguments.lines))
        .collect();
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let answers = peers::record(plugin, &code, &redactor, now_ms)?;
    let told = recorded.iter().map(|source| source.told.clone());
    let told: Vec<String> = told.chain(answers.iter().map(|answers| answers.told.clone())).collect();
    let has_answers = answers.iter().any(|answers| answers.text.is_some());
    ensure!(
        has_answers || recorded.iter().any(|source| !source.files.is_empty()),
        "nothing to record: {}",
        told.join("; ")
    );
    let manifest = plugin.manifest.clone();
    let written = write_case(out, plugin, now, &recorded, answers);
    let made = written.and_then(|()| write_expected(out, &Outside { manifest, code }));
    if out.exists() {
        let (how, made_of_it) = match &made {
            Ok(made) => ("recorded", made.to_string()),
            Err(_told_below) => ("recorded in part", String::new()),
        };
        let told = told.join("; ");
        output::line(&format!("{how} {}: {told}\n{made_of_it}{WARNING}", out.display()))?;
    }
    made.map(drop)
}

fn redactor(plugin: &PluginConfig, now: Timestamp) -> Result<Redactor> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("the system gives no random bytes")?;
    let kept = kept_texts(plugin);
    let year = u16::try_from(now.to_zoned(TimeZone::UTC).year()).unwrap_or_default();
    Ok(Redactor::new(kept.iter().map(String::as_str), year, &secret))
}

/// What the plugin's author and the operator wrote themselves.
fn kept_texts(plugin: &PluginConfig) -> Vec<String> {
    let Manifest {
        sources,
        settings,
        metrics,
        labels,
        ..
    } = &plugin.manifest;
    let mut texts: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    for setting in settings {
        texts.push(setting.name.clone());
        push_strings(setting.default.as_ref(), &mut texts);
    }
    // Formats, fields and keywords stand in backticks: `rt`.
    let helps = sources.iter().map(|source| &source.help);
    for help in helps.chain(settings.iter().map(|setting| &setting.help)) {
        texts.extend(help.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    texts.extend(metrics.iter().map(|metric| metric.name.clone()));
    texts.extend(
        labels
            .values()
            .flat_map(|label| label.values.clone().unwrap_or_default()),
    );
    push_strings(Some(&plugin.settings), &mut texts);
    texts
}

/// Keys and strings of a value.
fn push_strings(value: Option<&Value>, texts: &mut Vec<String>) {
    match value {
        Some(Value::String(text)) => texts.push(text.clone()),
        Some(Value::Array(values)) => values.iter().for_each(|value| push_strings(Some(value), texts)),
        Some(Value::Object(values)) => {
            for (key, value) in values {
                texts.push(key.clone());
                push_strings(Some(value), texts);
            }
        }
        _ => {}
    }
}

fn write_case(
    out: &Path,
    plugin: &PluginConfig,
    now: Timestamp,
    recorded: &[Recorded],
    answers: Option<Answers>,
) -> Result<()> {
    make_folder(out)?;
    if let Some(text) = answers.and_then(|answers| answers.text) {
        write(&out.join("peers.toml"), text.as_bytes())?;
    }
    let settings: toml::Table = serde_json::from_value(plugin.settings.clone()).context("the plugin's settings")?;
    write(&out.join("settings.toml"), toml::to_string(&settings)?.as_bytes())?;
    let mut clock = format!("now = {now}\n\n[age_s]\n");
    for source in recorded {
        if let Some(folder) = &source.folder {
            make_folder(&out.join(folder))?;
        }
        for file in &source.files {
            write(&out.join(&file.path), &file.bytes)?;
            if let Some(age_s) = file.age_s {
                clock.push_str(&format!("{:?} = {age_s}\n", file.path));
            }
        }
    }
    write(&out.join("clock.toml"), clock.as_bytes())
}

/// What comes out of the case now; whether that is right the reader decides.
fn write_expected(out: &Path, plugin: &Outside) -> Result<Made> {
    let settings = golden::read_settings(out, &plugin.manifest)?;
    let mut admission = Admission::of(&plugin.manifest);
    let host = CaseHost::read(out, &plugin.manifest.sources)?;
    let expected = golden::collect(plugin, &host, &settings, &mut admission)?;
    write(&out.join("expected.jsonl"), expected.as_bytes())?;
    Ok(Made::of(&expected))
}

/// For its owner only: it is not read by a person yet.
fn make_folder(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
