//! All that collects on this host: the configured plugins, the host's own metrics, the agent's view of itself.
//!
//! In: the configuration and what the last checkpoint says of each source. Out: collectors that are compiled, described
//! and configured, or every problem that keeps the agent from starting. `run`, `check`, `tap` and `backfill` share this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use tillwatch_border::Plugin;
use tillwatch_core::guard::Guard;
use tillwatch_core::sample::{Descriptor, Metric};
use tillwatch_core::{Core, DeclareError, LabelPolicy};
use tokio::sync::watch;
use tracing::warn;

use crate::clock::Clock;
use crate::config::written::{Problem, Problems, split_hint};
use crate::config::{Config, PluginConfig};
use crate::health::{self, Health, Limit};
use crate::keeper::Status;
use crate::plugin::collector::{Collected, PluginCollector};
use crate::plugin::compile::Loader;
use crate::plugin::grant::Grant;
use crate::plugin::host::{GrantedHost, Reading};
use crate::plugin::load::{Wanted, limits, load};
use crate::plugin::refusal::Refusals;
use crate::plugin::restraint::Restraint;
use crate::run::core_settings;
use crate::schedule::Schedule;
use crate::source::system::{self, SystemCollector};

/// How far one collector goes on while it says that there is more.
#[derive(Clone, Copy, Debug)]
pub struct RoundBounds {
    pub calls_max: u32,
    /// Read in calls that were committed; the call that reaches it is the last.
    pub bytes_max: u64,
}

impl Default for RoundBounds {
    fn default() -> Self {
        Self {
            calls_max: 256,
            bytes_max: 64 << 20,
        }
    }
}

/// What of a plugin runs: its settings, and the file of its compiled code, which is named by its content.
#[derive(Clone)]
pub struct Version {
    config: PluginConfig,
    code: Option<PathBuf>,
}

impl Version {
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.code == other.code && self.config.says_what(&other.config)
    }
}

/// A collector with its place in the day.
pub struct Source {
    /// In the checkpoint, and of the plugin's instance.
    pub name: String,
    /// Of a plugin.
    pub version: Option<Version>,
    pub schedule: Schedule,
    /// What it may report, as the registry needs it.
    pub declaration: Declaration,
    /// Of a plugin.
    grants: BTreeMap<String, Grant>,
    bounds: RoundBounds,
    collector: Collector,
}

/// What a source may report.
#[derive(Clone, Debug)]
pub struct Declaration {
    pub version: String,
    pub metrics: Vec<Metric>,
    pub labels: BTreeMap<String, LabelPolicy>,
}

enum Collector {
    Plugin(Box<PluginCollector>),
    System(Box<SystemCollector>),
    Agent(Health),
}

impl Source {
    fn of_plugin(self, version: Version) -> Self {
        Self {
            grants: version.config.grants.clone(),
            version: Some(version),
            ..self
        }
    }

    /// One call; none when the plugin failed, which is counted there.
    pub fn collect(&mut self, now_ms: u64) -> Option<Collected> {
        match &mut self.collector {
            Collector::Plugin(plugin) => plugin.collect(),
            Collector::System(system) => Some(Collected {
                batch: system.collect(now_ms),
                progress: Vec::new(),
            }),
            Collector::Agent(health) => Some(Collected {
                batch: health.collect(now_ms),
                progress: Vec::new(),
            }),
        }
    }

    /// Between calls: what `next` needs to go on where this one is; what is new is called once on trial.
    ///
    /// # Errors
    /// When its sources cannot be opened at the place of ours, or its first call there breaks a bound.
    pub fn prepare_exchange(&self, mut next: Self, is_new: bool, clock: &Clock) -> Result<Self> {
        if let (Collector::Plugin(old), Collector::Plugin(new)) = (&self.collector, &mut next.collector) {
            let grants = (self.grants != next.grants).then_some(&next.grants);
            new.go_on_from(old, grants, clock)?;
            if is_new {
                new.try_once()?;
            }
        }
        Ok(next)
    }

    /// `next` was prepared and declared.
    pub fn exchange(&mut self, mut next: Self) {
        if !matches!(self.collector, Collector::Plugin(_)) {
            // What it counts goes on; only what it may say of the plugins is new.
            std::mem::swap(&mut self.collector, &mut next.collector);
        }
        *self = next;
    }

    /// The batch of the last call was handed on.
    pub fn commit(&mut self) {
        if let Collector::Plugin(plugin) = &mut self.collector {
            plugin.commit();
        }
    }

    /// Calls until nothing more is there. `hand_on` says false when nobody takes batches any more.
    pub fn collect_round(&mut self, clock: &Clock, mut hand_on: impl FnMut(&str, Collected) -> bool) -> bool {
        let bytes_end = self.bytes_read().saturating_add(self.bounds.bytes_max);
        for _ in 0..self.bounds.calls_max {
            let Some(collected) = self.collect(clock.now_ms()) else {
                return true;
            };
            let more = collected.batch.more;
            if !hand_on(&self.name, collected) {
                return false;
            }
            self.commit();
            if !more {
                return true;
            }
            if self.bytes_read() >= bytes_end {
                self.on_round_cut(Limit::RoundBytes);
                return true;
            }
        }
        self.on_round_cut(Limit::RoundCalls);
        true
    }

    /// Why the last call failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.collector {
            Collector::Plugin(plugin) => plugin.failure(),
            Collector::System(_) | Collector::Agent(_) => None,
        }
    }

    /// What a plugin itself warned of last.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match &self.collector {
            Collector::Plugin(plugin) => plugin.warning(),
            Collector::System(_) | Collector::Agent(_) => None,
        }
    }

    fn bytes_read(&self) -> u64 {
        match &self.collector {
            Collector::Plugin(plugin) => plugin.bytes_read(),
            Collector::System(_) | Collector::Agent(_) => 0,
        }
    }

    fn on_round_cut(&self, limit: Limit) {
        if let Collector::Plugin(plugin) = &self.collector {
            plugin.on_round_cut(limit);
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(collector: PluginCollector, bounds: RoundBounds) -> Self {
        let declaration = declaration(collector.descriptor().clone(), BTreeMap::new());
        Self {
            name: "test".to_owned(),
            version: None,
            schedule: Schedule::new(1_000, "site", "test"),
            declaration,
            grants: BTreeMap::new(),
            bounds,
            collector: Collector::Plugin(Box::new(collector)),
        }
    }

    /// When it is to be called next: as scheduled, or sooner when it was put off in the middle of its work.
    #[must_use]
    pub fn next_due(&self, now_ms: u64) -> u64 {
        let scheduled = self.schedule.next_after(now_ms);
        let put_off = match &self.collector {
            Collector::Plugin(plugin) => plugin.put_off(),
            Collector::System(_) | Collector::Agent(_) => None,
        };
        put_off.map_or(scheduled, |wait| {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            scheduled.min(now_ms.saturating_add(wait_ms))
        })
    }

    /// Whether its past can be read again: files keep it, the host's state does not.
    #[must_use]
    pub fn has_past(&self) -> bool {
        matches!(self.collector, Collector::Plugin(_))
    }
}

/// How the collectors are started.
pub struct Start<'a> {
    pub clock: &'a Clock,
    pub reading: Reading,
    /// What the checkpoint says of a source.
    pub progress: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// Removes compiled code that no plugin needs; other commands may run beside an agent, with other plugins.
    pub clears_cache: bool,
    /// Where the keeper counts what is dropped, if there is one.
    pub status: Option<watch::Receiver<Status>>,
}

/// What started, and what did not.
pub struct Started {
    sources: Vec<Source>,
    /// Every plugin that cannot be loaded, is not what its plugin.toml says, or refuses its settings.
    problems: Vec<Problem>,
}

impl Started {
    /// Has the registry accept what each source may report.
    ///
    /// # Errors
    /// What did not start, and every source whose metrics or labels are not acceptable.
    pub fn declare<K>(
        self,
        config: &Config,
        mut declare: impl FnMut(&str, Declaration) -> Result<K, DeclareError>,
    ) -> Result<Vec<(Source, K)>, Problems> {
        let Self { sources, mut problems } = self;
        let mut declared = Vec::new();
        for source in sources {
            match declare(&source.name, source.declaration.clone()) {
                Ok(key) => declared.push((source, key)),
                Err(error) => problems.push(refused(config, &source.name, &error)),
            }
        }
        if problems.is_empty() {
            Ok(declared)
        } else {
            Err(Problems(problems))
        }
    }
}

/// Starts everything beside what may run, only to be tried: nothing is read, and the registry that is asked is new.
///
/// # Errors
/// Everything that keeps it from starting.
pub fn try_out(config: &Config, clock: &Clock) -> Result<Vec<Source>, Problems> {
    let how = Start {
        clock,
        reading: Reading::TAP,
        progress: &|_source| None,
        clears_cache: false,
        status: None,
    };
    let mut core = Core::new(core_settings(config));
    let declared = start(config, &how).declare(config, |source, what| {
        core.declare(source, &what.version, what.metrics, what.labels)
    })?;
    Ok(declared.into_iter().map(|(source, _key)| source).collect())
}

/// Starts everything that agent.toml names.
#[must_use]
pub fn start(config: &Config, how: &Start<'_>) -> Started {
    let mut health = Health::default();
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    if !config.plugins.is_empty() {
        match start_plugins(config, how, &mut health) {
            Ok(started) => {
                for result in started {
                    match result {
                        Ok(source) => sources.push(source),
                        Err(mut found) => problems.append(&mut found),
                    }
                }
            }
            Err(error) => problems.push(problem(&config.plugins[0], &error)),
        }
    }
    let interval_ms = config.system.interval_ms;
    if config.system.enabled {
        match SystemCollector::new() {
            Ok(system) => {
                let declaration = declaration(system::descriptor(), system::labels());
                sources.push(source(
                    config,
                    system::NAME,
                    interval_ms,
                    declaration,
                    Collector::System(Box::new(system)),
                ));
            }
            // The host's own metrics are no reason not to watch its tills.
            Err(error) => warn!(%error, "the host's own metrics are left out"),
        }
    }
    if let Some(status) = &how.status {
        health.watch(status.clone());
    }
    let names = config
        .plugins
        .iter()
        .flat_map(|plugin| plugin.grants.keys().cloned())
        .collect();
    let declaration = declaration(health.descriptor(), health.labels(names));
    sources.push(source(
        config,
        health::NAME,
        interval_ms,
        declaration,
        Collector::Agent(health),
    ));
    Started { sources, problems }
}

/// One result for each plugin, so that all problems are told.
fn start_plugins(config: &Config, how: &Start<'_>, health: &mut Health) -> Result<Vec<Result<Source, Vec<Problem>>>> {
    let mut loader = Loader::new(&config.state_dir, config.compiler_bytes_max)?;
    let wanted: Vec<Wanted<'_>> = config.plugins.iter().map(wanted).collect();
    let loaded = load(&mut loader, &wanted)?;
    let mut started = Vec::new();
    for (plugin, loaded) in config.plugins.iter().zip(loaded) {
        let source = loaded.and_then(|loaded| start_plugin(config, plugin, how, loaded, health));
        started.push(source.map_err(|error| problems(plugin, &error)));
    }
    if how.clears_cache
        && started.iter().all(Result::is_ok)
        && let Err(error) = loader.remove_unused()
    {
        warn!(
            error = format!("{error:#}"),
            "the cache of compiled plugins was not cleared"
        );
    }
    Ok(started)
}

fn wanted(plugin: &PluginConfig) -> Wanted<'_> {
    Wanted {
        wasm: &plugin.wasm,
        verified: verified(plugin),
        limits: limits(plugin),
        name: &plugin.name,
    }
}

fn start_plugin(
    config: &Config,
    plugin: &PluginConfig,
    how: &Start<'_>,
    loaded: Plugin,
    health: &mut Health,
) -> Result<Source> {
    let counts = health.plugin(&plugin.name);
    let open = |progress: Option<&[u8]>| {
        GrantedHost::new(
            &plugin.name,
            &plugin.grants,
            progress,
            how.reading,
            how.clock.clone(),
            counts.clone(),
        )
    };
    let progress = (how.progress)(&plugin.name);
    let host = open(progress.as_deref()).or_else(|error| {
        warn!(plugin = plugin.name, %error, "its progress is left out: sources are read from their start");
        open(None)
    })?;
    let version = Version {
        config: plugin.clone(),
        code: loaded.code_path().map(Path::to_owned),
    };
    let share = how.reading.holds_share.then_some(plugin.cpu_share_percent);
    let restraint = Restraint::new(share, Instant::now());
    let mut collector = PluginCollector::start(loaded, plugin, host, restraint, counts.clone())?;
    if let Some(status) = &how.status {
        collector.heed(status.clone());
    }
    let declaration = declaration(collector.descriptor().clone(), plugin.manifest.labels.clone());
    Ok(source(
        config,
        &plugin.name,
        plugin.interval_ms,
        declaration,
        Collector::Plugin(Box::new(collector)),
    )
    .of_plugin(version))
}

/// Of the file that a bundle was when it was verified.
fn verified(plugin: &PluginConfig) -> Option<&str> {
    plugin.bundle.as_ref().map(|bundle| bundle.sha256.as_str())
}

fn declaration(descriptor: Descriptor, labels: BTreeMap<String, LabelPolicy>) -> Declaration {
    Declaration {
        version: descriptor.version,
        metrics: descriptor.metrics,
        labels,
    }
}

fn source(config: &Config, name: &str, interval_ms: u64, declaration: Declaration, collector: Collector) -> Source {
    let schedule = Schedule::new(interval_ms, config.site.as_str(), name);
    Source {
        name: name.to_owned(),
        version: None,
        schedule,
        declaration,
        grants: BTreeMap::new(),
        bounds: RoundBounds::default(),
        collector,
    }
}

/// What the plugin refuses is at the place of each setting.
fn problems(plugin: &PluginConfig, error: &anyhow::Error) -> Vec<Problem> {
    match error.downcast_ref() {
        Some(Refusals(refusals)) => refusals.iter().map(|refusal| refusal.problem(plugin)).collect(),
        None => vec![problem(plugin, error)],
    }
}

/// At the plugin's place in agent.toml.
fn problem(plugin: &PluginConfig, error: &anyhow::Error) -> Problem {
    let text = format!("{error:#}");
    let (what, hint) = split_hint(&text);
    Problem {
        what: format!("{} cannot run: {what}", plugin.place.what),
        hint,
        ..plugin.place.clone()
    }
}

/// What the registry refuses is a problem of the plugin's place, too.
fn refused(config: &Config, source: &str, error: &DeclareError) -> Problem {
    let plugin = config.plugins.iter().find(|plugin| plugin.name == source);
    let place = plugin.map_or_else(
        || Problem {
            path: "agent.toml".into(),
            line: 0,
            column: 0,
            what: String::new(),
            hint: None,
        },
        |plugin| plugin.place.clone(),
    );
    Problem {
        what: format!(
            "what source `{source}` measures is refused: {}",
            Guard.text(&error.to_string())
        ),
        ..place
    }
}

/// How long to wait in reality until `due_ms`; bounded, as clocks are set.
#[must_use]
pub fn wait_for(clock: &Clock, due_ms: u64) -> Duration {
    const WAIT_MAX: Duration = Duration::from_secs(30);
    let missing_ms = due_ms.saturating_sub(clock.now_ms());
    clock.real_duration(missing_ms).unwrap_or(WAIT_MAX).min(WAIT_MAX)
}
