//! SIGHUP: the `[[plugin]]` blocks of agent.toml and the installed plugins are read again while the agent runs.
//!
//! In: the settings that run, and where they stand. Out: for each source another one that takes its place between two
//! calls, or one warning why nothing changes. It never ends or pauses what runs.
//!
//! ```text
//!  read ─► compile ─► a second process, each plugin described and configured ─► the registry asked ─► exchange
//!    └──────────┴───────────────────────┴──────────────── a fault ───────────────────────┴─► the old go on
//! ```
//! The second process runs all plugins: the first is sealed and takes no code. It ends when the last has moved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use anyhow::{Context, Result, bail, ensure};
use tillwatch_core::Core;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::collectors::{self, Source};
use crate::config::Config;
use crate::plugin::host::Reading;
use crate::run::{accept_bundles, core_settings};

/// A source that takes the place of the one that runs.
pub struct Exchange {
    pub next: Source,
    /// Whether it did; else the old one goes on, for this reason.
    pub done: oneshot::Sender<Result<()>>,
}

/// Reads the settings again, when it is told.
pub struct Reloader {
    path: PathBuf,
    config: Arc<Config>,
    /// Of agent.toml, without its plugins.
    rest: Option<toml::Table>,
    clock: Clock,
    /// To each source's thread; at most one exchange is on its way.
    orders: BTreeMap<String, SyncSender<Exchange>>,
}

impl Reloader {
    #[must_use]
    pub fn new(path: &Path, config: &Config, clock: &Clock, orders: BTreeMap<String, SyncSender<Exchange>>) -> Self {
        Self {
            path: path.to_owned(),
            config: Arc::new(config.clone()),
            rest: rest_of(path),
            clock: clock.clone(),
            orders,
        }
    }

    /// Reloads with each signal, until the task is ended.
    pub async fn run(mut self, mut signals: Signal) {
        let mut orders: u64 = 0;
        while signals.recv().await.is_some() {
            orders += 1;
            match self.reload().await {
                Ok(()) => info!(plugins = self.config.plugins.len(), "the plugins were loaded again"),
                Err(error) => {
                    // Each order is answered, also the second within a minute: it is of a kind of its own.
                    warn!(
                        kind = orders,
                        error = format!("{error:#}"),
                        "the plugins were not loaded again"
                    );
                }
            }
        }
    }

    async fn reload(&mut self) -> Result<()> {
        let (path, old, clock) = (self.path.clone(), Arc::clone(&self.config), self.clock.clone());
        let (sender, prepared) = oneshot::channel();
        // A thread that nobody waits for at the end: compiling takes its time.
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || drop(sender.send(prepare(&path, &old, &clock))))
            .context("starting a thread")?;
        let (config, sources) = prepared.await.context("the thread ended")??;
        let rest = rest_of(&self.path);
        if rest != self.rest {
            warn!("settings beside the plugins have changed, they are taken with the next start");
            self.rest = rest;
        }
        self.exchange(sources).await?;
        self.config = Arc::new(config);
        accept_bundles(&self.config).context("they were, but which bundles were accepted is not remembered")
    }

    async fn exchange(&self, sources: Vec<Source>) -> Result<()> {
        let mut waiting = Vec::new();
        for next in sources {
            let name = next.name.clone();
            let Some(orders) = self.orders.get(&name) else {
                continue;
            };
            let (done, exchanged) = oneshot::channel();
            if orders.try_send(Exchange { next, done }).is_err() {
                bail!("source {name} does not answer");
            }
            waiting.push((name, exchanged));
        }
        for (name, exchanged) in waiting {
            let result = exchanged.await.context("its thread ended").flatten();
            result.with_context(|| format!("source {name} goes on as it was"))?;
        }
        Ok(())
    }
}

/// Everything that can be refused is tried here, beside what runs.
fn prepare(path: &Path, old: &Config, clock: &Clock) -> Result<(Config, Vec<Source>)> {
    let config = Config {
        plugins: Config::load(path)?.plugins,
        ..old.clone()
    };
    let names = |config: &Config| -> Vec<String> {
        let mut names: Vec<String> = config.plugins.iter().map(|plugin| plugin.name.clone()).collect();
        names.sort_unstable();
        names
    };
    let (before, after) = (names(old), names(&config));
    ensure!(
        before == after,
        "plugins were added or removed: {} before, {} now\nhint: restart the agent",
        before.join(", "),
        after.join(", ")
    );
    let started = collectors::start(
        &config,
        &collectors::Start {
            clock,
            // Only to be tried: the sources go on where the running ones are.
            reading: Reading::TAP,
            progress: &|_source| None,
            clears_cache: false,
            status: None,
        },
    );
    let mut registry = Core::new(core_settings(&config));
    let declared = started.declare(&config, |source, what| {
        registry.declare(source, &what.version, what.metrics, what.labels)
    })?;
    let sources = declared.into_iter().map(|(source, _key)| source).collect();
    Ok((config, sources))
}

/// None when it cannot be read, which whoever reads the whole is told.
fn rest_of(path: &Path) -> Option<toml::Table> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut table: toml::Table = text.parse().ok()?;
    table.remove("plugin");
    Some(table)
}
