//! What honest plugins report of real points of sale passes the agent's one choke point whole.

use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use tillwatch_agent::clock::Clock;
use tillwatch_agent::config;
use tillwatch_agent::plugin::collector::PluginCollector;
use tillwatch_agent::plugin::host::{GrantedHost, Reading};
use tillwatch_agent::plugin::manifest::{Manifest, SourceKind};
use tillwatch_agent::plugin::restraint::Restraint;
use tillwatch_agent::source::Start;
use tillwatch_border::{Code, Limits, Load, start};
use tillwatch_core::guard::Guard;
use tillwatch_core::{Core, Settings};
use tillwatch_tests::process::{plugin_dir, program};

const PLUGINS: [&str; 3] = ["pos-latency", "queue-depth", "sales"];
/// A loaded machine is slow.
const CALL_MS_MAX: u64 = 20_000;

/// Values that count, and the others by reason.
type Became = (u64, Vec<(&'static str, u64)>);

#[test]
fn no_value_of_any_plugins_test_cases_is_refused() -> Result<()> {
    let place = Place::new()?;
    let mut samples = 0;
    for name in PLUGINS {
        for case in folders(&root().join("plugins").join(name).join("testcases"))? {
            // What has no good settings reports nothing.
            if case.ends_with("bad_settings") {
                continue;
            }
            let (counted, refused) = place.run(&plugin_dir()?.join(name), &case)?;
            ensure!(refused.is_empty(), "{}: {refused:?}", case.display());
            samples += counted;
        }
    }
    ensure!(samples > 100, "{samples} samples only: the cases were not read");
    Ok(())
}

/// Without this the test above could not fail.
#[test]
fn a_card_number_is_refused_at_the_same_place() -> Result<()> {
    let place = Place::new()?;
    let plugin = place.0.path().join("hostile");
    std::fs::create_dir(&plugin)?;
    std::fs::copy(
        root().join("agent/sandbox/tests/hostile/plugin.toml"),
        plugin.join("plugin.toml"),
    )?;
    std::fs::copy(
        plugin_dir()?.join("../guests/hostile.wasm"),
        plugin.join("hostile.wasm"),
    )?;
    let case = place.0.path().join("case");
    std::fs::create_dir(&case)?;
    std::fs::write(case.join("input.log"), "4111111111111111\n")?;
    std::fs::write(case.join("settings.toml"), "behavior = \"leak\"\n")?;
    let (_counted, refused) = place.run(&plugin, &case)?;
    ensure!(refused.iter().any(|(reason, _count)| *reason == "card"), "{refused:?}");
    Ok(())
}

/// Of queues, brokers, tills and web servers as they run in stores: identifiers, counts, sizes, times in nanoseconds.
#[test]
fn no_number_of_any_capture_of_a_store_is_taken_for_a_card_number() -> Result<()> {
    let mut files = Vec::new();
    files_below(&root().join("tests/testdata/captures"), &mut files)?;
    let captured = files.len();
    for name in PLUGINS {
        files_below(&root().join("plugins").join(name).join("testcases"), &mut files)?;
    }
    let mut numbers = 0;
    for file in &files {
        let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
        for number in text.split(|letter: char| !letter.is_ascii_digit()) {
            let Ok(number) = number.parse() else { continue };
            ensure!(Guard.number(number).is_ok(), "{}: {number}", file.display());
            numbers += 1;
        }
    }
    ensure!(
        captured > 10 && numbers > 5_000,
        "{captured} captures, {numbers} numbers"
    );
    ensure!(Guard.number(4_111_111_111_111_111).is_err());
    Ok(())
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

/// With the cache of compiled plugins.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(folder.path().join("state"))?;
        Ok(Self(folder))
    }

    fn compiled(&self, wasm: &Path) -> Result<PathBuf> {
        let name = wasm.file_stem().context("a name")?;
        let compiled = self.0.path().join("state").join(name).with_extension("cwasm");
        if !compiled.exists() {
            let status = Command::new(program("tillwatch-compile")?)
                .arg(wasm)
                .arg(&compiled)
                .status()?;
            ensure!(status.success(), "{} does not compile", wasm.display());
        }
        Ok(compiled)
    }

    /// A case's whole input through the plugin's process, its batches through registry and guard.
    fn run(&self, plugin: &Path, case: &Path) -> Result<Became> {
        let settings = self.0.path().join("case.toml");
        std::fs::write(&settings, settings_text(plugin, case)?)?;
        let config = config::one_plugin(&settings).map_err(|problems| anyhow!("{}: {problems:?}", case.display()))?;
        let code = Arc::new(Code::open(&self.compiled(&config.wasm)?)?);
        let limits = Limits {
            call_ms_max: CALL_MS_MAX,
            ..Limits::default()
        };
        let name = config.name.clone();
        let loaded = start(program("tillwatch-sandbox")?, vec![Load { code, limits, name }])?;
        let loaded = loaded.into_iter().next().context("a plugin")??;
        let reading = Reading {
            start: Start::Oldest,
            ..Reading::LIVE
        };
        let host = GrantedHost::new("case", &config.grants, None, reading, Clock::wall(), Arc::default())?;
        let mut collector = PluginCollector::start(loaded, &config, host, Restraint::default(), Arc::default())?;
        let mut core = core();
        let metrics = collector.descriptor().metrics.clone();
        let key = core.declare("case", "0.1.0", metrics, config.manifest.labels.clone())?;
        // Some cases expect an error, such as the one that has no source.
        while let Some(collected) = collector.collect() {
            let more = collected.batch.more;
            core.on_batch(Clock::wall().now_ms(), key, collected.batch, collected.progress);
            collector.commit();
            if !more {
                break;
            }
        }
        let refused = core.counters().refused.iter().filter(|(_reason, count)| *count > 0);
        Ok((core.counters().samples, refused.collect()))
    }
}

/// The cases are of years ago, and of years to come.
fn core() -> Core {
    Core::new(Settings {
        window_ms: 10_000,
        summary_ms: 60_000,
        time_zone: jiff::tz::TimeZone::UTC,
        calendar: Default::default(),
        agent_version: "0.1.0".to_owned(),
        limits: tillwatch_core::Limits {
            lateness_max_ms: u64::MAX,
            ahead_max_ms: 1 << 40,
            ..tillwatch_core::Limits::default()
        },
    })
}

/// Everything in the folder that the plugin asks for.
fn settings_text(plugin: &Path, case: &Path) -> Result<String> {
    let manifest = Manifest::load(plugin).map_err(|problems| anyhow!("{problems:?}"))?;
    let mut text = format!("[[plugin]]\nname = \"case\"\nuse = {plugin:?}\n");
    for entry in std::fs::read_dir(case)? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        let Some(source) = manifest.source(&name) else {
            continue;
        };
        let granted = match source.kind {
            SourceKind::Lines => format!("file = {path:?}\n"),
            SourceKind::Documents => format!("folder = {path:?}\npattern = \"*\"\nsettle = \"0s\"\n"),
            SourceKind::Folder => format!("folder = {path:?}\npattern = \"*\"\n"),
            // No case of public data asks over the network.
            SourceKind::Http | SourceKind::Tcp | SourceKind::Sql => continue,
        };
        write!(text, "[plugin.sources.{name}]\n{granted}")?;
    }
    text += "[plugin.settings]\n";
    let settings = std::fs::read_to_string(case.join("settings.toml"))?;
    text += &settings.replace("\n[", "\n[plugin.settings.");
    Ok(text)
}
