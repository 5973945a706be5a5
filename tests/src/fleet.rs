//! Simulated stores: the agent's own keeper, spool, delivery and uplink for each, without plugins, all in one process.
//!
//! In: the story. Out: the same bytes on the same wire as a real agent's.
//! What stands in for a plugin is here alone: batches are made of the story's minutes, and declared by the shipped
//! `plugin.toml` files, so that a simulated store reports what a real one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tillwatch_agent::clock::Clock;
use tillwatch_agent::keeper::{FromSource, Keeper, KeeperSettings, Status};
use tillwatch_agent::plugin::manifest::Manifest;
use tillwatch_agent::spool::SpoolSettings;
use tillwatch_agent::tls;
use tillwatch_agent::uplink::{BrokerAddress, UplinkSettings};
use tillwatch_core::delivery::DeliverySettings;
use tillwatch_core::sample::{Batch, Series, Values};
use tillwatch_core::{Limits, Settings, SourceKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::pki::Identity;
use crate::story::{Chain, MINUTE_MS, Minute, Store};

/// Event time between two frames of history.
const HISTORY_STEP_MINUTES: usize = 20;
/// Summaries of history are longer, so that five weeks travel in seconds.
const HISTORY_SUMMARY_MS: u32 = 300_000;
const LIVE_SUMMARY_MS: u32 = 60_000;
const WINDOW_MS: u32 = 60_000;
/// The story's minutes come right after their end.
const CLOSE_DELAY_MS: u64 = 5_000;
/// Records of history that wait for central before the next ones are made.
const WAITING_RECORDS_MAX: u64 = 5_000;
const BATCHES_MAX: usize = 16;

/// Where the stores connect, and as whom.
pub struct FleetSettings {
    pub broker_port: u16,
    /// Holds a folder for each store.
    pub folder: PathBuf,
    /// Holds the shipped plugins, each with its plugin.toml.
    pub plugin_dir: PathBuf,
}

/// A store whose keeper can be started.
#[derive(Clone)]
pub struct SimulatedStore {
    pub store: Store,
    pub identity: Identity,
}

/// A store whose keeper runs.
struct Running {
    store: Store,
    sources: Sources,
    to_keeper: mpsc::Sender<FromSource>,
    status: watch::Receiver<Status>,
    keeper: JoinHandle<Status>,
}

/// The plugins that the batches stand in for.
#[derive(Clone, Copy)]
struct Sources {
    latency: SourceKey,
    queue: SourceKey,
    sales: SourceKey,
}

/// Tells the past of all stores, as fast as central takes it, and returns once central has acknowledged everything.
///
/// # Errors
/// When a keeper cannot start, or ends with records that nobody acknowledged.
pub async fn tell_history(settings: &FleetSettings, chain: &Arc<Chain>, stores: &[SimulatedStore]) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for simulated in stores {
        let running = start(
            settings,
            chain,
            simulated,
            HISTORY_SUMMARY_MS,
            &Clock::told(chain.history_start_ms),
        )?;
        tasks.spawn(history_of(running, chain.clone()));
    }
    while let Some(told) = tasks.join_next().await {
        told.context("telling history broke")??;
    }
    Ok(())
}

/// Lives through the story's live part by `clock`, and returns once central has acknowledged everything.
///
/// # Errors
/// When a keeper cannot start, or ends with records that nobody acknowledged.
pub async fn live(
    settings: &FleetSettings,
    chain: &Arc<Chain>,
    stores: &[SimulatedStore],
    clock: &Clock,
) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for simulated in stores {
        let running = start(settings, chain, simulated, LIVE_SUMMARY_MS, clock)?;
        tasks.spawn(live_of(running, chain.clone(), clock.clone()));
    }
    while let Some(lived) = tasks.join_next().await {
        lived.context("living through the story broke")??;
    }
    Ok(())
}

async fn history_of(running: Running, chain: Arc<Chain>) -> Result<()> {
    let minutes: Vec<u64> = (chain.history_start_ms..chain.live_start_ms).step_by(60_000).collect();
    for step in minutes.chunks(HISTORY_STEP_MINUTES) {
        let (happened, end_ms) = happened(&chain, &running.store, step);
        running.report(&happened).await?;
        running
            .send(FromSource::Tick {
                now_ms: end_ms + CLOSE_DELAY_MS,
            })
            .await?;
        tokio::task::yield_now().await;
    }
    running.finish().await
}

async fn live_of(running: Running, chain: Arc<Chain>, clock: Clock) -> Result<()> {
    for start_ms in (chain.live_start_ms..chain.live_end_ms).step_by(60_000) {
        clock.sleep_until(start_ms + MINUTE_MS).await;
        let (happened, _) = happened(&chain, &running.store, &[start_ms]);
        running.report(&happened).await?;
    }
    clock.sleep_until(chain.live_end_ms + MINUTE_MS + CLOSE_DELAY_MS).await;
    running.finish().await
}

fn happened(chain: &Chain, store: &Store, starts: &[u64]) -> (Vec<(u64, Minute)>, u64) {
    let minutes = starts
        .iter()
        .map(|start_ms| (*start_ms, chain.minute(store, *start_ms)))
        .collect();
    (minutes, starts.last().map_or(0, |start_ms| start_ms + MINUTE_MS))
}

impl Running {
    async fn report(&self, minutes: &[(u64, Minute)]) -> Result<()> {
        let batches = [
            (self.sources.latency, latency(minutes)),
            (self.sources.queue, queue(minutes)),
            (self.sources.sales, sales(minutes)),
        ];
        for (source, batch) in batches {
            self.send(FromSource::Batch {
                source,
                batch,
                progress: Vec::new(),
                room: None,
            })
            .await?;
        }
        Ok(())
    }

    async fn send(&self, message: FromSource) -> Result<()> {
        self.to_keeper.send(message).await.context("the keeper is gone")
    }

    /// Waits until everything is acknowledged, then stops in good order.
    async fn finish(mut self) -> Result<()> {
        let (done, flushed) = tokio::sync::oneshot::channel();
        self.send(FromSource::Flush(done)).await?;
        ensure!(
            flushed.await.context("the keeper is gone")?,
            "the spool of {} did not take its last records",
            self.store.id
        );
        self.status
            .wait_for(|status| status.records_held == 0)
            .await
            .context("the keeper is gone")?;
        drop(self.to_keeper);
        self.keeper.await.context("the keeper broke")?;
        Ok(())
    }
}

fn start(
    settings: &FleetSettings,
    chain: &Chain,
    simulated: &SimulatedStore,
    summary_ms: u32,
    clock: &Clock,
) -> Result<Running> {
    let SimulatedStore { store, identity } = simulated;
    let folder = settings.folder.join(&store.id);
    std::fs::create_dir_all(folder.join("spool"))?;
    let limits = Limits {
        close_delay_ms: CLOSE_DELAY_MS,
        ahead_max_ms: 3_600_000,
        ..Limits::default()
    };
    let tls = tls::client_config(&identity.ca, &identity.certificate, &identity.key)?;
    let broker = BrokerAddress {
        host: "127.0.0.1".to_owned(),
        port: settings.broker_port,
        is_secure: true,
    };
    let mut uplink = UplinkSettings::new(broker, Some(tls::Tls::of(tls)), store.id.parse()?, "a".parse()?);
    uplink.first_retry_ms_max = 1_000;
    let keeper_settings = KeeperSettings {
        core: Settings {
            window_ms: WINDOW_MS,
            summary_ms,
            time_zone: chain.zone.clone(),
            calendar: Default::default(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            limits,
        },
        spool: SpoolSettings::default(),
        delivery: DeliverySettings::new(vec!["main".parse()?], chain.seed),
        uplink: Some(uplink),
        bytes_per_day: None,
        traffic_file: None,
        detectors_file: Some(folder.join("detectors")),
        wait_at_records: Some(WAITING_RECORDS_MAX),
        wait_at_bytes: None,
    };
    let mut keeper = Keeper::open(keeper_settings, &folder.join("spool"), clock.clone())?;
    let sources = declare(&mut keeper, &settings.plugin_dir)?;
    let status = keeper.status();
    let (to_keeper, from_sources) = mpsc::channel(BATCHES_MAX);
    let keeper = tokio::spawn(Box::pin(keeper.run(from_sources)));
    Ok(Running {
        store: store.clone(),
        sources,
        to_keeper,
        status,
        keeper,
    })
}

/// By the order in which `declare` keeps the metrics of the shipped plugins.
const LATENCY: u16 = 0;
const DEPTH: u16 = 0;
const OLDEST_AGE: u16 = 1;
const TRANSACTIONS: u16 = 0;
const AMOUNT: u16 = 1;

fn declare(keeper: &mut Keeper, plugin_dir: &Path) -> Result<Sources> {
    let mut source = |plugin: &str, metrics: &[&str]| -> Result<SourceKey> {
        let manifest = Manifest::load(&plugin_dir.join(plugin)).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let wanted = |name: &&str| {
            let metric = manifest.metrics.iter().find(|metric| metric.name == **name);
            metric.cloned().with_context(|| format!("{plugin} declares no {name}"))
        };
        let metrics = metrics.iter().map(wanted).collect::<Result<Vec<_>>>()?;
        let used = |label: &str| {
            metrics
                .iter()
                .any(|metric| metric.label_keys.iter().any(|key| key == label))
        };
        let labels = manifest
            .labels
            .iter()
            .filter(|(label, _)| used(label))
            .map(|(key, policy)| (key.clone(), policy.clone()));
        Ok(keeper.declare(plugin, &manifest.version, metrics.clone(), labels.collect())?)
    };
    Ok(Sources {
        latency: source("pos-latency", &["http.server.request.duration"])?,
        queue: source("queue-depth", &["queue.depth", "queue.oldest_age"])?,
        sales: source("sales", &["sales.transactions", "sales.amount"])?,
    })
}

fn latency(minutes: &[(u64, Minute)]) -> Batch {
    let of = |route: &str| -> Vec<_> {
        let requests = minutes
            .iter()
            .flat_map(|(_, minute)| &minute.requests)
            .filter(|request| request.route == route);
        requests.map(|request| (request.time_ms, request.seconds)).collect()
    };
    let routes = ["/checkout", "/loyalty"];
    batch(routes.map(|route| series(LATENCY, &[route], of(route), Values::Reals)))
}

fn queue(minutes: &[(u64, Minute)]) -> Batch {
    let of = |value: fn(&Minute) -> u64| -> Vec<_> {
        minutes
            .iter()
            .map(|(start_ms, minute)| (start_ms + MINUTE_MS / 2, value(minute) as f64))
            .collect()
    };
    let labels = ["files", "mainframe"];
    batch([
        series(DEPTH, &labels, of(|minute| minute.queue_depth), Values::Reals),
        series(
            OLDEST_AGE,
            &labels,
            of(|minute| minute.queue_oldest_age_s),
            Values::Reals,
        ),
    ])
}

fn sales(minutes: &[(u64, Minute)]) -> Batch {
    let all = || minutes.iter().flat_map(|(_, minute)| &minute.sales);
    batch([
        series(
            TRANSACTIONS,
            &[],
            all().map(|sale| (sale.time_ms, 1)).collect(),
            Values::Integers,
        ),
        series(
            AMOUNT,
            &[],
            all().map(|sale| (sale.time_ms, sale.amount_minor)).collect(),
            Values::Integers,
        ),
    ])
}

fn series<V>(metric: u16, labels: &[&str], values: Vec<(u64, V)>, kind: fn(Vec<V>) -> Values) -> Series {
    let (times_ms, values) = values.into_iter().unzip();
    Series {
        metric,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        values: kind(values),
        times_ms,
    }
}

fn batch(series: [Series; 2]) -> Batch {
    Batch {
        series: series
            .into_iter()
            .filter(|series| !series.times_ms.is_empty())
            .collect(),
        ..Batch::default()
    }
}
