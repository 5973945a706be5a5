//! SIGHUP: the `[[plugin]]` blocks of agent.toml and the installed plugins are read again while the agent runs, and the
//! uplink looks at its certificates.
//!
//! In: the settings that run, and where they stand. Out: for each plugin that changed another one that takes its place
//! between two calls, all of them or none, or one warning why nothing changes. It never ends what runs.
//!
//! ```text
//!  read ─► compile ─► a second process, each plugin described and configured
//!    │        │                 ├─► each that changed, between two calls: opened where the old one is, called once on trial, declared
//!    │        │                 │        └─► all are ready: their bundles are remembered as the oldest that may run ─► exchange
//!    │        │                 │                 └─► the others move, each between two of its calls; nobody waits for anybody
//!    └────────┴─────────────────┴────────┴─ a fault, or no answer in time ─► the old go on
//! ```
//! The second process runs all plugins: the first is sealed and takes no code. It ends when the last has moved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::collectors::{self, Source, Version};
use crate::config::Config;
use crate::run::accept_bundles;

/// So long all that changed together have to come between two calls and to try what follows, and then all others to move.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(60);

/// A source that takes the place of the one that runs, if all others can, too.
pub struct Exchange {
    pub next: Source,
    /// Something of it changed.
    pub is_new: bool,
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
    /// Of each source that runs.
    versions: Versions,
    /// The uplink's; it waits for nothing that is said of plugins.
    certificates: Arc<Notify>,
}

/// None of what is no plugin: it never changes while the agent runs.
type Versions = BTreeMap<String, Option<Version>>;

impl Reloader {
    #[must_use]
    pub fn new(
        path: &Path,
        config: &Config,
        clock: &Clock,
        orders: BTreeMap<String, SyncSender<Exchange>>,
        versions: Versions,
        certificates: Arc<Notify>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            config: Arc::new(config.clone()),
            rest: rest_of(path),
            clock: clock.clone(),
            orders,
            versions,
            certificates,
        }
    }

    /// Reloads with each signal, until the task is ended.
    pub async fn run(mut self, mut signals: Signal) {
        let mut orders: u64 = 0;
        while signals.recv().await.is_some() {
            orders += 1;
            self.certificates.notify_one();
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

    /// `accept` comes when all that is new is ready, and before any of it runs.
    async fn exchange(&mut self, sources: Vec<Source>, accept: impl FnOnce() -> Result<()>) -> Result<()> {
        let versions = sources.iter().map(|next| (next.name.clone(), next.version.clone()));
        let versions: Versions = versions.collect();
        let (new, same): (Vec<_>, Vec<_>) = sources.into_iter().partition(|next| self.is_new(next));
        let new = new.into_iter().filter_map(|next| self.order(next, true));
        let new = new.collect::<Result<Vec<Ordered>>>()?;
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        let mut moves = Vec::new();
        for ordered in new {
            moves.push(ordered.ready(deadline).await?);
        }
        accept()?;
        for (start, is_done) in moves {
            // A thread that ended has nothing to exchange any more.
            start.send(()).unwrap_or_default();
            is_done.await.unwrap_or_default();
        }
        self.versions = versions;
        self.follow(same).await;
        Ok(())
    }

    fn is_new(&self, next: &Source) -> bool {
        match (self.versions.get(&next.name), &next.version) {
            (Some(Some(runs)), Some(next)) => !runs.is_same(next),
            (Some(None), None) => false,
            _ => true,
        }
    }

    /// What has not changed moves to the process of what has; each for itself, and nobody waits for it.
    async fn follow(&self, same: Vec<Source>) {
        let deadline = Instant::now() + EXCHANGE_TIME_MAX;
        let ordered: Vec<_> = same.into_iter().filter_map(|next| self.order(next, false)).collect();
        let mut started = Vec::new();
        for ordered in ordered {
            match ordered.map(Ordered::start_at_once) {
                Ok(ordered) => started.push(ordered),
                Err(error) => stays(&error),
            }
        }
        for (name, is_ready) in started {
            if let Err(error) = answered(&name, is_ready, deadline).await {
                stays(&error);
            }
        }
    }

    /// None when nobody runs it.
    fn order(&self, next: Source, is_new: bool) -> Option<Result<Ordered>> {
        let name = next.name.clone();
        let orders = self.orders.get(&name)?;
        let (ready, is_ready) = oneshot::channel();
        let (start, go) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let exchange = Exchange {
            next,
            is_new,
            ready,
            go,
            done,
        };
        if orders.try_send(exchange).is_err() {
            return Some(Err(anyhow!("source {name} does not answer")));
        }
        Some(Ok(Ordered {
            name,
            is_ready,
            start,
            is_done,
        }))
    }
}

/// An exchange that a source was told of.
struct Ordered {
    name: String,
    is_ready: oneshot::Receiver<Result<()>>,
    start: oneshot::Sender<()>,
    is_done: oneshot::Receiver<()>,
}

impl Ordered {
    /// Waits until it is between two calls; there it stays until it is told.
    async fn ready(self, deadline: Instant) -> Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
        answered(&self.name, self.is_ready, deadline).await?;
        Ok((self.start, self.is_done))
    }

    fn start_at_once(self) -> (String, oneshot::Receiver<Result<()>>) {
        self.start.send(()).unwrap_or_default();
        (self.name, self.is_ready)
    }
}

async fn answered(name: &str, is_ready: oneshot::Receiver<Result<()>>, deadline: Instant) -> Result<()> {
    let Ok(answered) = timeout_at(deadline, is_ready).await else {
        bail!("source {name} does not answer within {} s", EXCHANGE_TIME_MAX.as_secs());
    };
    let result = answered.context("its thread ended").flatten();
    result.with_context(|| format!("source {name} cannot be exchanged"))
}

fn stays(error: &anyhow::Error) {
    warn!(
        error = format!("{error:#}"),
        "a source stays in the process that it is in"
    );
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
            // As if both had changed.
            Reloader::new(
                Path::new("agent.toml"),
                &config,
                &clock,
                orders,
                BTreeMap::new(),
                Arc::default(),
            ),
            sources,
            threads,
        )
    }

    /// One source had moved when another was refused, and the agent ran half of each version.
    #[tokio::test]
    async fn when_one_source_is_refused_the_other_is_told_to_go_on_as_it_was() {
        let (mut reloader, sources, threads) = two_sources();
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

    /// A neighbor stood still until the slowest of all had been tried, which may take a minute.
    #[tokio::test]
    async fn what_has_not_changed_waits_for_nobody_and_moves_when_all_else_has() {
        let (mut reloader, sources, threads) = two_sources();
        let same = sources[1].name.clone();
        reloader.versions.insert(same, None);
        let answer = async {
            tokio::task::yield_now().await;
            let new = threads[0].try_recv().unwrap();
            assert!(new.is_new && threads[1].try_recv().is_err(), "the neighbor was told");
            new.ready.send(Ok(())).unwrap();
            new.go.await.unwrap();
            assert!(threads[1].try_recv().is_err(), "the neighbor was told");
            new.done.send(()).unwrap();
            let mut same = loop {
                match threads[1].try_recv() {
                    Ok(same) => break same,
                    Err(_not_yet) => tokio::task::yield_now().await,
                }
            };
            assert!(!same.is_new && same.go.try_recv().is_ok(), "it moves at once");
            same.ready.send(Err(anyhow::anyhow!("no room"))).unwrap();
        };
        let (exchanged, ()) = tokio::join!(reloader.exchange(sources, || Ok(())), answer);
        exchanged.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_does_not_answer_is_named_and_nothing_changes() {
        let (mut reloader, sources, threads) = two_sources();
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
        let (mut reloader, sources, threads) = two_sources();
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
