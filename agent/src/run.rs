//! All wiring: every thread, task and bounded channel is made here.
//!
//! ```text
//!  a thread each                                            one thread, tokio
//!  ┌────────────────────┐  FromSource, 64   ┌─────────────────────────────┐  8 ►   ┌────────┐
//!  │ plugin `sales`     │ ────────────────► │ keeper                      │ ─────► │ uplink │ ══ MQTT 5 ═► broker
//!  │ plugin `queue`     │  (waits when full)│  core ─► spool ─► delivery  │ ◄───── │        │
//!  │ system, agent      │                   └─────────────────────────────┘  ◄ 64  └────────┘
//!  └────────────────────┘                     ▲ SIGTERM, SIGINT: the threads end, the channel closes,
//!        ▲ files, /proc                         the keeper writes its last frame and says goodbye
//!        │ Exchange, 1                        ▲ SIGHUP: reload tries other plugins beside these, and each thread takes
//!        └─────────────────── reload            the one that follows it between two calls
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tillwatch_core::delivery::DeliverySettings;
use tillwatch_core::{Limits, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::bundle::commands::today;
use crate::bundle::ledger::{Ledger, Taken};
use crate::clock::Clock;
use crate::collectors::{self, Source, Started};
use crate::config::found::InstalledBundle;
use crate::config::written::Problems;
use crate::config::{Config, PluginConfig, SpoolConfig};
use crate::keeper::{FromSource, Keeper, KeeperSettings, Status};
use crate::platform::{is_own, notify_service_manager};
use crate::plugin::host::Reading;
use crate::reload::Reloader;
use crate::runner::{self, Runner};
use crate::spool::SpoolSettings;
use crate::stop::Stop;
use crate::uplink::UplinkSettings;

/// Batches on their way to the keeper; a full channel makes collectors wait, and so do their bytes (see `runner.rs`).
pub const FROM_SOURCES_MAX: usize = 64;
/// `run --once` waits so long for a connection, and so long for each further acknowledgement.
const ONCE_CONNECT_MAX: Duration = Duration::from_secs(10);
const ONCE_DELIVERY_MAX: Duration = Duration::from_secs(30);
/// `run --once` waits so long for a disk that refuses; the keeper tries it every five seconds.
const ONCE_STORAGE_MAX: Duration = Duration::from_secs(30);
/// Where the spool lives below the state folder.
pub const SPOOL_DIR: &str = "spool";
const DETECTORS_FILE: &str = "detectors";
const TRAFFIC_FILE: &str = "traffic";
const SHARD_FILE: &str = "shard";

/// What the state machine is told of agent.toml.
#[must_use]
pub fn core_settings(config: &Config) -> Settings {
    Settings {
        window_ms: config.window_ms,
        summary_ms: config.summary_ms,
        time_zone: config.time_zone.clone(),
        calendar: config.calendar.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: Limits::default(),
    }
}

/// What the keeper is told of agent.toml.
#[must_use]
pub fn keeper_settings(config: &Config) -> KeeperSettings {
    let broker = &config.broker;
    let tls = broker.tls.clone();
    let SpoolConfig { bytes_max, age_max_ms } = config.spool;
    let spool = SpoolSettings {
        bytes_max,
        age_max_ms,
        ..SpoolSettings::default()
    };
    let mut uplink = UplinkSettings::new(broker.address.clone(), tls, config.site.clone(), broker.shard.clone());
    uplink.proxy.clone_from(&broker.proxy);
    uplink.shard_file = Some(config.state_dir.join(SHARD_FILE));
    uplink.first_retry_ms_max = broker.reconnect_within_ms;
    KeeperSettings {
        core: core_settings(config),
        spool,
        delivery: DeliverySettings {
            is_broker_enough: broker.is_broker_enough,
            ..DeliverySettings::new(broker.archives.clone(), fastrand::u64(..))
        },
        uplink: Some(uplink),
        bytes_per_day: broker.bytes_per_day,
        traffic_file: Some(config.state_dir.join(TRAFFIC_FILE)),
        detectors_file: Some(config.state_dir.join(DETECTORS_FILE)),
        wait_at_records: None,
        wait_at_bytes: None,
    }
}

/// The folder of the spool, made when it is missing.
///
/// # Errors
/// When it cannot be made, or belongs to another user: what root writes there the service could never change again.
pub fn spool_folder(config: &Config) -> Result<PathBuf> {
    let folder = config.state_dir.join(SPOOL_DIR);
    check_owner(&folder)?;
    check_owner(&config.state_dir)?;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(&folder)
        .with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A folder that is still missing is made as our own.
fn check_owner(folder: &Path) -> Result<()> {
    if folder.metadata().is_ok_and(|found| !is_own(&found)) {
        bail!(
            "{} belongs to another user\nhint: run this command as that user; beside the packaged service with \
             `systemd-run`, as packaging/README.md shows",
            folder.display()
        );
    }
    Ok(())
}

/// A runtime on this thread alone.
///
/// # Errors
/// When the operating system has no event queue for it.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// Runs the agent until SIGTERM or SIGINT, or for one round; `path` is where the settings stand, for SIGHUP.
///
/// # Errors
/// Whatever keeps it from starting whole.
pub fn run(path: &Path, config: &Config, clock: &Clock, is_once: bool) -> Result<()> {
    runtime()?.block_on(Box::pin(run_agent(path, config, clock, is_once)))
}

async fn run_agent(path: &Path, config: &Config, clock: &Clock, is_once: bool) -> Result<()> {
    let reload = signal(SignalKind::hangup())?;
    let folder = spool_folder(config)?;
    let settings = keeper_settings(config);
    let certificates = settings.uplink.as_ref().map(|uplink| Arc::clone(&uplink.renew));
    let mut keeper = Keeper::open(settings, &folder, clock.clone())?;
    let started = start_sources(config, clock, Reading::LIVE, &keeper);
    let declared = declare(config, &mut keeper, started)?;
    accept_bundles(config)?;
    let status = keeper.status();

    let (sender, from_sources) = mpsc::channel(FROM_SOURCES_MAX);
    let keeper = tokio::spawn(Box::pin(keeper.run(from_sources)));
    let stop = Stop::default();
    let runner = Runner {
        clock: clock.clone(),
        stop: stop.clone(),
        keeper: sender.clone(),
        room: runner::room(),
        is_once,
    };
    let versions = declared
        .iter()
        .map(|(source, _key)| (source.name.clone(), source.version.clone()));
    let versions = versions.collect();
    let (mut threads, mut orders) = (Vec::new(), BTreeMap::new());
    for (source, key) in declared {
        let (exchange, exchanges) = sync_channel(1);
        orders.insert(source.name.clone(), exchange);
        threads.push(
            runner
                .clone()
                .start(source, key, exchanges)
                .context("starting a collector's thread")?,
        );
    }
    drop(runner);
    info!(site = %config.site, plugins = config.plugins.len(), "started");
    notify("READY=1");

    if is_once {
        let mut faults = status.clone();
        let round = async {
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await?;
            deliver(&sender, status).await
        };
        tokio::select! {
            done = round => done?,
            // What it would wait for may never come: the disk is somebody else's to mend.
            Some(fault) = lasting_fault(&mut faults) => {
                stop.set();
                bail!("nothing could be kept for {} s: {fault}", ONCE_STORAGE_MAX.as_secs());
            }
        }
    } else {
        let reloader = Reloader::new(path, config, clock, orders, versions, certificates.unwrap_or_default());
        let reloading = tokio::spawn(reloader.run(reload));
        until_signal().await?;
        notify("STOPPING=1");
        stop.set();
        // With it the threads lose whom they wait for.
        reloading.abort();
    }
    // The channel ends with its last sender; then the keeper writes what it has and returns.
    drop(sender);
    let last = keeper.await.context("the keeper broke")?;
    if let (true, Some(fault)) = (is_once, &last.storage_fault) {
        bail!("what was collected is not kept: {fault}\nhint: nothing is lost, as the next run reads it again");
    }
    info!(records_held = last.records_held, "stopped");
    Ok(())
}

/// What runs now is the oldest that may run from now on.
///
/// # Errors
/// When that cannot be remembered.
pub fn accept_bundles(config: &Config) -> Result<()> {
    let installed = |plugin: &'_ PluginConfig| {
        plugin
            .bundle
            .clone()
            .map(|bundle| (plugin.manifest.name.clone(), bundle))
    };
    let bundles: Vec<(String, InstalledBundle)> = config.plugins.iter().filter_map(installed).collect();
    let Some(keys) = bundles.iter().map(|(_plugin, bundle)| bundle.keys_sequence).max() else {
        return Ok(());
    };
    for (plugin, _bundle) in bundles.iter().filter(|(_plugin, bundle)| bundle.is_expired) {
        warn!(%plugin, "a bundle is over its time: it runs on, and no store takes it for the first time");
    }
    let taken: Vec<Taken> = bundles
        .into_iter()
        .map(|(plugin, bundle)| Taken {
            plugin,
            sequence: bundle.sequence,
            sha256: bundle.sha256,
        })
        .collect();
    Ledger::open(&config.state_dir)?.accept(keys, &taken, today())?;
    Ok(())
}

fn start_sources(config: &Config, clock: &Clock, reading: Reading, keeper: &Keeper) -> Started {
    let progress = |source: &str| keeper.progress(source).map(<[u8]>::to_vec);
    collectors::start(
        config,
        &collectors::Start {
            clock,
            reading,
            progress: &progress,
            clears_cache: true,
            status: Some(keeper.status()),
        },
    )
}

/// Tells the keeper what each source may report.
///
/// # Errors
/// What did not start, and every source whose metrics or labels are not acceptable.
pub fn declare(
    config: &Config,
    keeper: &mut Keeper,
    started: Started,
) -> Result<Vec<(Source, tillwatch_core::SourceKey)>, Problems> {
    started.declare(config, |source, what| {
        keeper.declare(source, &what.version, what.metrics, what.labels)
    })
}

/// Waits until everything is acknowledged, or nobody is there who could: what is left goes with the next run.
///
/// # Errors
/// When the keeper is gone.
pub async fn deliver(keeper: &mpsc::Sender<FromSource>, mut status: watch::Receiver<Status>) -> Result<()> {
    let (done, flushed) = oneshot::channel();
    keeper
        .send(FromSource::Flush(done))
        .await
        .context("the keeper is gone")?;
    flushed.await.context("the keeper is gone")?;
    if !changes_within(ONCE_CONNECT_MAX, &mut status, |status| status.connected).await {
        warn!("not connected to the broker: what was collected stays in the spool");
        return Ok(());
    }
    loop {
        let held = status.borrow().records_held;
        if held == 0 {
            break;
        }
        if !changes_within(ONCE_DELIVERY_MAX, &mut status, |status| status.records_held < held).await {
            warn!(
                records_held = held,
                "not everything was acknowledged: the rest stays in the spool"
            );
            break;
        }
    }
    Ok(())
}

/// Why nothing is kept, once that has lasted for [`ONCE_STORAGE_MAX`]; none when the keeper is gone.
async fn lasting_fault(status: &mut watch::Receiver<Status>) -> Option<String> {
    loop {
        let fault = status.wait_for(|status| status.storage_fault.is_some()).await;
        let fault = fault.ok()?.storage_fault.clone();
        if !changes_within(ONCE_STORAGE_MAX, status, |status| status.storage_fault.is_none()).await {
            return fault;
        }
    }
}

async fn changes_within(
    time: Duration,
    status: &mut watch::Receiver<Status>,
    is_so: impl FnMut(&Status) -> bool,
) -> bool {
    matches!(
        tokio::time::timeout(time, status.wait_for(is_so)).await,
        Ok(Ok(_status))
    )
}

/// Meanwhile the service manager hears that this thread still turns.
async fn until_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut watchdog = watchdog_period().map(tokio::time::interval);
    loop {
        let tick = async {
            match &mut watchdog {
                Some(watchdog) => drop(watchdog.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = tick => notify("WATCHDOG=1"),
        }
    }
}

/// Half of what systemd asks for, as sd_watchdog_enabled(3) advises.
fn watchdog_period() -> Option<Duration> {
    let microseconds: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (microseconds > 1).then(|| Duration::from_micros(microseconds / 2))
}

fn notify(state: &str) {
    if let Err(error) = notify_service_manager(state) {
        warn!(%error, state, "the service manager was not told");
    }
}

/// Lets `SIGINT` and `SIGTERM` set `stop`, for commands without a runtime of their own.
///
/// # Errors
/// When no thread can be started.
pub fn stop_at_signal(stop: &Stop) -> Result<()> {
    let stop = stop.clone();
    let wait = move || {
        let waited = runtime().and_then(|runtime| runtime.block_on(until_signal()));
        if let Err(error) = waited {
            warn!(error = format!("{error:#}"), "signals end the program at once");
        }
        stop.set();
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("starting a thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One failed write ended the run, though the next try five seconds later would have kept everything.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_refuses_for_a_moment_does_not_end_a_single_run_and_one_that_stays_does() {
        let (sender, mut status) = watch::channel(Status::default());
        let set = |fault: Option<&str>| sender.send_modify(|status| status.storage_fault = fault.map(str::to_owned));
        let begun = tokio::time::Instant::now();
        let disk = async {
            set(Some("input/output error"));
            tokio::time::sleep(Duration::from_secs(10)).await;
            set(None);
            tokio::time::sleep(Duration::from_secs(100)).await;
            set(Some("no room"));
            std::future::pending::<()>().await;
        };
        let fault = tokio::select! {
            fault = lasting_fault(&mut status) => fault,
            () = disk => None,
        };
        assert_eq!(fault.as_deref(), Some("no room"));
        assert_eq!(begun.elapsed().as_secs(), 110 + ONCE_STORAGE_MAX.as_secs());
    }

    /// With all plugins that an agent takes, the service had no thread left to start them.
    #[test]
    fn the_service_may_have_the_threads_of_all_plugins_also_while_they_are_loaded_again() {
        const UNIT: &str = include_str!("../../packaging/systemd/tillwatch.service");
        const OTHERS: usize = 32;
        let tasks_max: usize = UNIT
            .lines()
            .find_map(|line| line.strip_prefix("TasksMax="))
            .unwrap()
            .parse()
            .unwrap();
        // One each here, and one each in their process and in the next.
        assert!(
            tasks_max >= 3 * tillwatch_border::wire::PLUGINS_MAX + OTHERS,
            "{tasks_max}"
        );
    }

    #[test]
    fn a_folder_of_another_user_is_left_alone() {
        // Root ran a command beside the service, and the service could not write to its own spool any more.
        let own = tempfile::tempdir().unwrap();
        assert!(check_owner(&own.path().join("missing")).is_ok());
        assert!(check_owner(own.path()).is_ok());
        let may_give_away = std::os::unix::fs::chown(own.path(), Some(12_345), None).is_ok();
        let foreign = if may_give_away { own.path() } else { Path::new("/") };
        assert!(check_owner(foreign).is_err());
    }
}
