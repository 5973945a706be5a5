//! The hostile corpus: what a bad plugin or a bad `.wasm` may try, each with what must become of it.
//!
//! In: a component that misbehaves on demand, and components made here. They run in the real process of plugins, beside
//! healthy ones, called and compiled as the agent does. Out: how many were contained, what the healthy ones lost
//! meanwhile, and how much memory the agent's side kept.

mod attacks;
mod components;
mod neighbors;
mod swap;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use tillwatch_agent::clock::Clock;
use tillwatch_agent::config::COMPILER_BYTES_MAX;
use tillwatch_agent::config::{self, PluginConfig};
use tillwatch_agent::health::PluginHealth;
use tillwatch_agent::plugin::collector::PluginCollector;
use tillwatch_agent::plugin::compile::Loader;
use tillwatch_agent::plugin::host::{GrantedHost, Reading};
use tillwatch_agent::plugin::restraint::Restraint;
use tillwatch_agent::spool::FRAME_BYTES_MAX;
use tillwatch_border::wire::PLUGINS_MAX;
use tillwatch_border::{CallError, Code, Host, Limits, Load, Plugin, start};
use tillwatch_core::{Core, Settings, SourceKey};
use tillwatch_tests::process::{plugin_dir, program};

use attacks::{ATTACKS, Attack, QUARANTINED};
use components::{Component, components};
use neighbors::Neighbors;
use swap::Swapper;

/// Healthy plugins that run all the time beside the bad ones.
const NEIGHBORS: usize = 2;
/// A loaded machine is slow; only what never ends is to meet its deadline.
const PATIENT_MS: u64 = 20_000;
const DEADLINE_MS: u64 = 100;
/// The compiler gives up after 30 s of a processor, which others use as well.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(120);
/// As the agent repeats a call.
const REPEATS_MAX: u32 = 40;
/// A bad plugin is called so often in a row.
const CALLS: u32 = 3;
/// Far more than an offender has until it comes into quarantine.
const RESTRAINED_CALLS: u32 = 200;
/// And when it races against somebody who exchanges files.
const RACING_CALLS: u32 = 500;

/// What the corpus did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) hostile_total: usize,
    pub(crate) hostile_contained: usize,
    pub(crate) healthy_intervals: u64,
    pub(crate) healthy_intervals_lost: u64,
    pub(crate) rss_growth_kib: i64,
    /// What was not contained, and what it did.
    pub(crate) escaped: Vec<String>,
}

/// Prints what became of the whole corpus, as one JSON object.
pub(crate) fn print() -> Result<()> {
    println!("{}", serde_json::to_string(&run()?)?);
    Ok(())
}

/// Writes the bad components, each to a file of its number: in a process of its own, whose memory is not the agent's.
pub(crate) fn write_components(folder: &Path) -> Result<()> {
    let hostile = std::fs::read(plugin_dir()?.join("../guests/hostile.wasm"))?;
    for (index, component) in components().iter().enumerate() {
        std::fs::write(place(folder, index), (component.bytes)(&hostile)?)?;
    }
    Ok(())
}

fn place(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("component-{index}.wasm"))
}

/// Runs the whole corpus, plugins and components beside each other. The first part fills caches and pools; the memory
/// is that of the second.
pub(crate) fn run() -> Result<Outcome> {
    let arena = Arena::new()?;
    let mut writing = Command::new(std::env::current_exe()?);
    let written = writing.arg("components").arg(arena.folder.path()).status()?;
    ensure!(written.success(), "writing the bad components ended with {written}");
    let components: Vec<_> = components().into_iter().enumerate().collect();
    let (first, second) = ATTACKS.split_at(ATTACKS.len() / 2);
    let (broken, bombs) = components.split_at(components.len() / 2);
    let mut outcome = Outcome::default();
    arena.round(first, broken, &mut outcome)?;
    let before = rss_kib()?;
    arena.round(second, bombs, &mut outcome)?;
    outcome.rss_growth_kib = rss_kib()? - before;
    outcome.hostile_contained = outcome.hostile_total - outcome.escaped.len();
    Ok(outcome)
}

/// Puts the hostile plugin into a folder, as `use` takes it.
pub(crate) fn install(folder: &Path) -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/sandbox/tests/hostile/plugin.toml");
    std::fs::copy(manifest, folder.join("plugin.toml"))?;
    let wasm = plugin_dir()?.join("../guests/hostile.wasm");
    std::fs::copy(&wasm, folder.join("hostile.wasm")).with_context(|| wasm.display().to_string())?;
    Ok(())
}

/// Behaviors of plugins that start well, as many as an agent takes beside its own three.
pub(crate) fn while_running() -> impl Iterator<Item = &'static str> {
    let attacks = ATTACKS
        .iter()
        .filter(|attack| !attack.is_at_start() && attack.behavior != "refuse");
    attacks.map(|attack| attack.behavior).take(PLUGINS_MAX - 3)
}

/// The hostile plugin with what it is granted; the folder goes with it.
struct Arena {
    folder: tempfile::TempDir,
    config: PluginConfig,
    code: Arc<Code>,
}

impl Arena {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let plugin = folder.path().join("plugin");
        std::fs::create_dir(&plugin)?;
        install(&plugin)?;
        for name in ["documents", "folder"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        std::fs::write(folder.path().join("input.log"), "till-1\n")?;
        std::fs::write(folder.path().join("secret"), SECRET)?;
        let settings = plugin.join("sample.toml");
        std::fs::write(&settings, SAMPLE)?;
        let config = config::one_plugin(&settings).map_err(|problems| anyhow!("{problems:?}"))?;
        let code = loader(folder.path())?.load(&plugin.join("hostile.wasm"), None)?;
        Ok(Self { folder, config, code })
    }

    fn round(&self, attacks: &[Attack], components: &[(usize, Component)], outcome: &mut Outcome) -> Result<()> {
        let compiled = std::thread::scope(|scope| -> Result<_> {
            let compiling = scope.spawn(|| self.compile(components));
            self.attack(attacks, outcome)?;
            compiling
                .join()
                .map_err(|_panic| anyhow!("the compiling thread panicked"))?
        })?;
        outcome.hostile_total += components.len();
        outcome.escaped.extend(compiled);
        Ok(())
    }

    /// Each attack once, in processes of as many plugins as an agent may have.
    fn attack(&self, attacks: &[Attack], outcome: &mut Outcome) -> Result<()> {
        for attacks in attacks.chunks(PLUGINS_MAX - NEIGHBORS) {
            let neighbors = [Limits::DEFAULT.call_ms_max; NEIGHBORS];
            let deadlines = attacks.iter().map(|attack| attack.call_ms_max());
            let mut plugins = self.start(neighbors.into_iter().chain(deadlines))?;
            let bad = plugins.split_off(NEIGHBORS);
            let neighbors = Neighbors::start(self, plugins)?;
            for (attack, plugin) in attacks.iter().zip(bad) {
                let begun = Instant::now();
                let became = self.become_of(attack, plugin)?;
                let took = begun.elapsed();
                outcome.hostile_total += 1;
                if !attack.is_contained(&became) || took > Duration::from_millis(PATIENT_MS) {
                    outcome
                        .escaped
                        .push(format!("{}: {became:.200} after {took:?}", attack.behavior));
                }
            }
            let (intervals, lost) = neighbors.stop()?;
            outcome.healthy_intervals += intervals;
            outcome.healthy_intervals_lost += lost;
        }
        Ok(())
    }

    fn start(&self, deadlines_ms: impl Iterator<Item = u64>) -> Result<Vec<Plugin>> {
        let load = |(index, call_ms_max): (usize, u64)| Load {
            code: Arc::clone(&self.code),
            limits: Limits {
                call_ms_max,
                ..Limits::default()
            },
            name: format!("plugin {index}"),
        };
        let loads = deadlines_ms.enumerate().map(load).collect();
        let started = start(program("tillwatch-sandbox")?, loads)?;
        Ok(started.into_iter().collect::<Result<_, _>>()?)
    }

    /// As agent.toml would configure it.
    fn config_of(&self, behavior: &str) -> PluginConfig {
        PluginConfig {
            name: behavior.to_owned(),
            settings: serde_json::json!({ "behavior": behavior }),
            ..self.config.clone()
        }
    }

    fn host(&self, config: &PluginConfig) -> Result<GrantedHost> {
        let clock = Clock::wall();
        Ok(GrantedHost::new(
            &config.name,
            &config.grants,
            None,
            Reading::LIVE,
            clock,
            Arc::default(),
        )?)
    }

    /// What became of it, in words.
    fn become_of(&self, attack: &Attack, plugin: Plugin) -> Result<String> {
        let config = self.config_of(attack.behavior);
        let host = self.host(&config)?;
        if attack.is_at_start() {
            let started = PluginCollector::start(plugin, &config, host, Restraint::default(), Arc::default());
            return Ok(started.map_or_else(|error| format!("{error:#}"), |_collector| "started".to_owned()));
        }
        if attack.is_restrained {
            return restrained(plugin, &config, host);
        }
        let _swapper = attack.swaps.then(|| Swapper::start(self.folder.path())).transpose()?;
        let calls = if attack.swaps { RACING_CALLS } else { CALLS };
        Ok(Attacker::new(plugin, host, &config)?.run(calls))
    }

    /// Each bad component through the compiler, and what comes out into a process: what was not contained.
    fn compile(&self, components: &[(usize, Component)]) -> Result<Vec<String>> {
        let mut escaped = Vec::new();
        for (index, component) in components {
            let begun = Instant::now();
            let became = self.compiled(&place(self.folder.path(), *index), component.call_ms_max())?;
            let took = begun.elapsed();
            if !component.is_contained(&became) || took > COMPILE_TIME_MAX {
                escaped.push(format!("{}: {became:.300} after {took:?}", component.name));
            }
        }
        Ok(escaped)
    }

    fn compiled(&self, wasm: &Path, call_ms_max: u64) -> Result<String> {
        let code = match loader(self.folder.path())?.load(wasm, None) {
            Ok(code) => code,
            Err(error) => return Ok(format!("{error:#}")),
        };
        let load = Load {
            code,
            limits: Limits {
                call_ms_max,
                ..Limits::default()
            },
            name: "bad".to_owned(),
        };
        let loaded = start(program("tillwatch-sandbox")?, vec![load])?
            .pop()
            .context("a result")?;
        let plugin = match loaded {
            Ok(plugin) => plugin,
            Err(error) => return Ok(error.to_string()),
        };
        let config = self.config_of("report");
        let host = self.host(&config)?;
        let started = PluginCollector::start(plugin, &config, host, Restraint::default(), Arc::default());
        Ok(started.map_or_else(|error| format!("{error:#}"), |_collector| "started".to_owned()))
    }
}

/// Called with nothing but its own restraint in the way.
fn restrained(plugin: Plugin, config: &PluginConfig, host: GrantedHost) -> Result<String> {
    let health = Arc::new(PluginHealth::default());
    let mut collector = PluginCollector::start(plugin, config, host, Restraint::default(), Arc::clone(&health))?;
    for _call in 0..RESTRAINED_CALLS {
        if collector.collect().is_some() {
            collector.commit();
        }
        if health.is_quarantined() {
            return Ok(QUARANTINED.to_owned());
        }
    }
    Ok(format!("it failed {} times", health.failures()))
}

/// Where no plugin may read.
const SECRET: &str = "the secret of the host";

const SAMPLE: &str = "[[plugin]]\nname = \"hostile\"\nuse = \"hostile\"\n\
    [plugin.sources.input]\nfile = \"../input.log\"\n\
    [plugin.sources.documents]\nfolder = \"../documents\"\npattern = \"*.xml\"\nsettle = \"0s\"\n\
    [plugin.sources.folder]\nfolder = \"../folder\"\npattern = \"*\"\n";

fn loader(folder: &Path) -> Result<Loader> {
    let state = folder.join("state");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
    Loader::new(&state, COMPILER_BYTES_MAX)
}

/// A bad plugin that is called, and what counts of what it brings.
struct Attacker {
    plugin: Plugin,
    host: GrantedHost,
    settings: String,
    core: Core,
    key: SourceKey,
    has_stolen: bool,
}

impl Attacker {
    fn new(plugin: Plugin, host: GrantedHost, config: &PluginConfig) -> Result<Self> {
        let mut core = Core::new(Settings {
            window_ms: 10_000,
            summary_ms: 60_000,
            time_zone: jiff::tz::TimeZone::UTC,
            calendar: Default::default(),
            agent_version: "0.1.0".to_owned(),
            limits: tillwatch_core::Limits::default(),
        });
        let (metrics, labels) = (config.manifest.metrics.clone(), config.manifest.labels.clone());
        let key = core.declare("hostile", "0.1.0", metrics, labels)?;
        Ok(Self {
            plugin,
            host,
            settings: config.settings.to_string(),
            core,
            key,
            has_stolen: false,
        })
    }

    /// The last of some calls, in words.
    fn run(mut self, calls: u32) -> String {
        let mut became = String::new();
        let mut is_fresh = true;
        for _call in 0..calls {
            became = match self.call(&mut is_fresh) {
                Ok(said) => said,
                Err(error) => {
                    is_fresh = true;
                    self.host.rollback();
                    told(&error)
                }
            };
            if self.has_stolen {
                return "it has stolen".to_owned();
            }
            let memory_bytes = self.plugin.counters().memory_bytes;
            if memory_bytes > self.plugin.limits().memory_bytes_max {
                return format!("it has {memory_bytes} bytes of memory");
            }
        }
        let counters = self.plugin.take_counters();
        for (count, name) in [
            (counters.log_lines_dropped, "log lines dropped"),
            (counters.log_lines_cut, "log lines cut"),
            (counters.reads_refused, "reads refused"),
            (counters.asks_refused, "asks refused"),
            (counters.host_refused, "host time refused"),
            (counters.states_refused, "states refused"),
        ] {
            if count > 0 && write!(became, ", {name}").is_err() {
                return became;
            }
        }
        became
    }

    /// Repeated as the agent does while it is others that end the process.
    fn call(&mut self, is_fresh: &mut bool) -> Result<String, CallError> {
        let mut result = self.call_once(is_fresh);
        for _repeat in 0..REPEATS_MAX {
            if !matches!(result, Err(CallError::Gone)) {
                break;
            }
            *is_fresh = true;
            self.host.rollback();
            result = self.call_once(is_fresh);
        }
        result
    }

    fn call_once(&mut self, is_fresh: &mut bool) -> Result<String, CallError> {
        if *is_fresh {
            self.plugin.renew();
            self.plugin.configure(&self.settings, &mut self.host)?;
            *is_fresh = false;
        }
        let batch = self.plugin.collect(&mut self.host)?;
        let mut labels = batch.series.iter().flat_map(|series| &series.labels);
        self.has_stolen |= labels.any(|label| label == "stolen");
        let now_ms = self.host.now_ms();
        let accepted = self.core.on_batch(now_ms, self.key, batch, self.host.progress());
        self.host.commit();
        let record_bytes: usize = self.core.take_records().iter().map(|record| record.payload.len()).sum();
        let bytes = record_bytes.max(self.core.checkpoint().len());
        if bytes > FRAME_BYTES_MAX {
            return Ok(format!("it fills {bytes} bytes of a frame"));
        }
        let refused: BTreeMap<_, _> = accepted.refused.iter().filter(|(_reason, count)| *count > 0).collect();
        Ok(format!("{} count, refused: {refused:?}", accepted.samples))
    }
}

/// An error's kind before its text, so that a plugin's own words are not taken for ours.
fn told(error: &CallError) -> String {
    match error {
        CallError::Plugin(error) => format!("says {} bytes: {}", error.message.len(), error.message),
        other => other.to_string(),
    }
}

/// Resident memory of this process, which stands for the agent.
fn rss_kib() -> Result<i64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).context("VmRSS")?;
    Ok(kib.parse()?)
}
