//! SIGHUP: the `[[plugin]]` blocks of agent.toml and the installed plugins are read again while the agent runs.
//!
//! In: the settings that run, and where they stand. Out: for each source another one that takes its place between two
//! calls, all of them or none, or one warning why nothing changes. It never ends what runs.
//!
//! ```text
//!  read ─► compile ─► a second process, each plugin described and configured
//!    │        │                 ├─► each source between two calls: opened where the old one is, called once on trial, declared
//!    │        │                 │        └─► all are ready: their bundles are remembered as the oldest that may run ─► exchange
//!    └────────┴─────────────────┴────────┴─ a fault, or no answer in time ─► the old go on
//! ```
//! The second process runs all plugins: the first is sealed and takes no code. It ends when the last has moved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::collectors::{self, Source};
use crate::config::Config;
use crate::run::accept_bundles;

/// So long all sources together have to come between two calls and to try what follows.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(60);

/// A source that takes the place of the one that runs, if all others can, too.
pub struct Exchange {
    pub next: Source,
    /// Whether it could; the old one waits between two calls.
    pub ready: oneshot::Sender<Result<()>>,
    /// Now it does. When this is gone the old one goes on.
    pub go: oneshot::Receiver<()>,
    /// It has.
    pub done: oneshot::Sender<()>,
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
        self.exchange(sources, || accept_bundles(&config)).await?;
        self.config = Arc::new(config);
        Ok(())
    }

    /// `accept` comes when all are ready, and before any of them runs.
    async fn exchange(&self, sources: Vec<Source>, accept: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut waiting = Vec::new();
        let mut moves = Vec::new();
        for next in sources {
            let name = next.name.clone();
            let Some(orders) = self.orders.get(&name) else {
                continue;
            };
            let (ready, is_ready) = oneshot::channel();
            let (start, go) = oneshot::channel();
            let (done, is_done) = oneshot::channel();
            let exchange = Exchange { next, ready, go, done };
            if orders.try_send(exchange).is_err() {
                bail!("source {name} does not answer");
            }
            waiting.push((name, is_ready));
            moves.push((start, is_done));
        }
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        for (name, is_ready) in waiting {
            let Ok(answered) = timeout_at(deadline, is_ready).await else {
                bail!("source {name} does not answer within {} s", EXCHANGE_TIME_MAX.as_secs());
            };
            let result = answered.context("its thread ended").flatten();
            result.with_context(|| format!("source {name} cannot be exchanged"))?;
        }
        accept()?;
        for (start, is_done) in moves {
            // A thread that ended has nothing to exchange any more.
            start.send(()).unwrap_or_default();
            is_done.await.unwrap_or_default();
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
    let sources = collectors::try_out(&config, clock)?;
    Ok((config, sources))
}

/// None when it cannot be read, which whoever reads the whole is told.
fn rest_of(path: &Path) -> Option<toml::Table> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut table: toml::Table = text.parse().ok()?;
    table.remove("plugin");
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Draft;
    use std::sync::mpsc::{Receiver, sync_channel};

    /// The two sources of an agent without plugins, and where their threads would wait.
    fn two_sources() -> (Reloader, Vec<Source>, Vec<Receiver<Exchange>>) {
        let config = Draft::parse(Path::new("agent.toml"), "site = \"store-1\"").config;
        let clock = Clock::told(0);
        let sources = collectors::try_out(&config, &clock).unwrap();
        let mut orders = BTreeMap::new();
        let mut threads = Vec::new();
        for source in &sources {
            let (sender, receiver) = sync_channel(1);
            orders.insert(source.name.clone(), sender);
            threads.push(receiver);
        }
        (
            Reloader::new(Path::new("agent.toml"), &config, &clock, orders),
            sources,
            threads,
        )
    }

    /// One source had moved when another was refused, and the agent ran half of each version.
    #[tokio::test]
    async fn when_one_source_is_refused_the_other_is_told_to_go_on_as_it_was() {
        let (reloader, sources, threads) = two_sources();
        let is_accepted = std::cell::Cell::new(false);
        let accept = || {
            is_accepted.set(true);
            Ok(())
        };
        let answer = async {
            tokio::task::yield_now().await;
            let [first, second] = [&threads[0], &threads[1]].map(|thread| thread.try_recv().unwrap());
            first.ready.send(Ok(())).unwrap();
            second.ready.send(Err(anyhow::anyhow!("no room"))).unwrap();
            first.go.await
        };
        let (exchanged, gone) = tokio::join!(reloader.exchange(sources, accept), answer);
        let error = format!("{:#}", exchanged.unwrap_err());
        assert!(error.contains("cannot be exchanged: no room"), "{error}");
        assert!(gone.is_err() && !is_accepted.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_does_not_answer_is_named_and_nothing_changes() {
        let (reloader, sources, threads) = two_sources();
        let answer = async {
            tokio::task::yield_now().await;
            let first = threads[0].try_recv().unwrap();
            first.ready.send(Ok(())).unwrap();
            first.go.await
        };
        let (exchanged, gone) = tokio::join!(reloader.exchange(sources, || Ok(())), answer);
        assert_eq!(
            exchanged.unwrap_err().to_string(),
            "source agent does not answer within 60 s"
        );
        assert!(gone.is_err());
    }

    /// The new code ran before anybody had remembered that no older one may.
    #[tokio::test]
    async fn what_cannot_be_remembered_as_accepted_does_not_run() {
        let (reloader, sources, threads) = two_sources();
        let answer = async {
            tokio::task::yield_now().await;
            let exchanges = [&threads[0], &threads[1]].map(|thread| thread.try_recv().unwrap());
            let [first, second] = exchanges.map(|exchange| {
                exchange.ready.send(Ok(())).unwrap();
                exchange.go
            });
            (first.await, second.await)
        };
        let accept = || Err(anyhow::anyhow!("the disk is full"));
        let (exchanged, gone) = tokio::join!(reloader.exchange(sources, accept), answer);
        assert_eq!(exchanged.unwrap_err().to_string(), "the disk is full");
        assert!(gone.0.is_err() && gone.1.is_err());
    }
}
