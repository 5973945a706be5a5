//! All wiring of central: every task, thread and channel is made here, and every channel is bounded.
//!
//! ```text
//!                       tasks of the runtime                            thread "archive"            anyone
//!  stores ═TLS═► broker ─duplex─► intake ──arrivals (512)──► receive: cursor, decode, commit, engine ──view (1)──► HTTP
//!  (or another broker ═══════════►   ▲                             │
//!                                    └────────acks (1024)──────────┘
//! ```
//! Back-pressure goes left: a slow archive fills `arrivals`, the intake stops reading its socket, the broker stops
//! reading the stores, and these keep what they have.

use crate::archive::{self, ArchiveError};
use crate::config::{Config, EmbeddedBrokerConfig};
use crate::engine::Engine;
use crate::health::Board;
use crate::impact::{Impact, ImpactSettings};
use crate::intake::{self, IntakeSettings, Way};
use crate::model::Model;
use crate::receive::{Arrived, OutgoingAck, Receiver};
use crate::view::{SiteState, SiteView, View};
use crate::{api, books, http, tls, view};
use anyhow::{Context, anyhow};
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tillwatch_feed::message::Config as Announcement;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

/// Messages between intake and archive.
const ARRIVALS_MAX: usize = 512;
/// Acknowledgements between archive and intake.
const ACKS_MAX: usize = 1_024;
/// A batch is committed this often, or earlier when it is full.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// Pause before a commit is tried again on a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);
/// Worker threads for sockets and HTTP; the work itself is on the archive's thread.
const WORKERS: usize = 2;
/// How long a stop may take.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Serves until the process is told to stop.
///
/// # Errors
/// When something cannot be started, or the archive failed for good.
pub fn serve(config: &Config, model: Model, is_broker: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;
    let served = runtime.block_on(Box::pin(serve_until_told(config, model, is_broker)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve_until_told(config: &Config, model: Model, is_broker: bool) -> anyhow::Result<()> {
    // Whoever is answered finds an archive.
    let archive = archive::open(&config.storage.path, &config.archive)?;
    let listener = tokio::net::TcpListener::bind(config.http_listen).await;
    let listener = listener.with_context(|| format!("listening for HTTP on {}", config.http_listen))?;
    let (view_in, view_out) = view::channel();
    let board = Arc::new(Board::new(model.sites.iter().map(|site| site.id.clone()).collect()));
    let stores = model.sites.len();
    let engine = engine(model, view_in);
    let start = getrandom::u64().context("the system gives no random numbers")?;
    let retention = config.storage.retention();
    let mut receiver = Receiver::new(
        config.archive.clone(),
        start,
        Box::new(archive),
        Box::new(engine),
        retention,
    );
    receiver.board = Arc::clone(&board);
    let per_second = config.reconnects_per_second;
    receiver.announces = per_second.map(|per_second| Announcement::for_fleet(stores, per_second));
    let counters = Arc::clone(&receiver.counters);
    board.count("receive", move || counters.all());
    board.count("log", || vec![("lines_left_out", tillwatch_log::lines_left_out())]);

    let (arrivals_in, arrivals_out) = mpsc::channel(ARRIVALS_MAX);
    let (acks_in, acks_out) = mpsc::channel(ACKS_MAX);
    let (ready_in, ready_out) = oneshot::channel();
    let (ended_in, mut ended_out) = oneshot::channel();
    let archive_thread = std::thread::Builder::new().name("archive".into());
    archive_thread.spawn(move || {
        let ended = archive_thread_main(receiver, arrivals_out, acks_in, ready_in);
        drop(ended_in.send(ended)); // when nobody listens any more, the process is at its end
    })?;

    let door = Arc::new(http::Door::new(http::Limits::default(), config.http_names.clone()));
    let counted = Arc::clone(&door);
    board.count("http", move || counted.counts());
    let books = books::reader(&config.storage.path);
    let router = api::router(view_out, Arc::clone(&board), Arc::clone(&door), books);
    let http = tokio::spawn(http::serve(listener, router, door));
    if !config.http_listen.ip().is_loopback() {
        warn!(address = %config.http_listen, "page and API can be reached from other machines and have no login");
    }
    info!(address = %config.http_listen, "page and API");
    if ready_out.await.is_err() {
        return ended_out
            .await
            .unwrap_or_else(|_| Err(anyhow!("the archive's thread ended")));
    }
    let way = way(config, is_broker, &board).await?;
    let client_id = config
        .broker
        .as_ref()
        .map_or_else(|| config.archive.to_string(), |broker| broker.client_id.clone());
    let intake = tokio::spawn(intake::run(IntakeSettings { client_id, way }, arrivals_in, acks_out));
    info!(archive = %config.archive, "ready");

    let told = tokio::select! {
        signal = told_to_stop() => signal.map(Some),
        ended = &mut ended_out => return ended.unwrap_or_else(|_| Err(anyhow!("the archive's thread ended"))),
    };
    info!("stopping");
    intake.abort();
    http.abort();
    // With the intake gone the archive's thread commits what it has and ends.
    let ended = tokio::time::timeout(STOP_MAX, ended_out).await;
    ended.context("the archive took too long to stop")?.unwrap_or(Ok(()))?;
    told.map(|_: Option<()>| ())
}

fn engine(model: Model, view: watch::Sender<Arc<View>>) -> Engine {
    let site_view = |site: &crate::model::Site| SiteView {
        id: site.id.to_string(),
        region: model
            .regions
            .get(site.region)
            .map_or_else(String::new, |region| region.id.clone()),
        state: SiteState::Never,
        anomalies: 0,
        last_ms: None,
    };
    let sites = model.sites.iter().map(site_view).collect();
    let zone = model.sites.first().map_or(TimeZone::UTC, |site| site.time_zone.clone());
    let settings = ImpactSettings::default();
    Engine::new(
        Impact::new(model, settings),
        settings.silent_after_ms,
        sites,
        zone,
        view,
    )
}

async fn told_to_stop() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// To the broker in this process, or to the one that is configured.
async fn way(config: &Config, is_broker: bool, board: &Board) -> anyhow::Result<Way> {
    if is_broker {
        let embedded = config.embedded_broker.as_ref();
        let embedded = embedded.context("--embedded-broker needs [embedded_broker] in the settings")?;
        return start_broker(embedded, board).await;
    }
    let broker = config
        .broker
        .as_ref()
        .context("no [broker] in the settings\n  hint: or use --embedded-broker")?;
    let tls = broker.tls.as_ref().map(tls::client).transpose().context("[broker]")?;
    Ok(Way::Network {
        host: broker.host.clone(),
        port: broker.port,
        tls,
    })
}

#[cfg(feature = "embedded-broker")]
async fn start_broker(embedded: &EmbeddedBrokerConfig, board: &Board) -> anyhow::Result<Way> {
    let broker = crate::broker::Broker::start(embedded)
        .await
        .context("[embedded_broker]")?;
    let broker = Arc::new(broker);
    let counted = Arc::clone(&broker);
    board.count("broker", move || counted.counters().all());
    Ok(Way::InProcess(Arc::new(move || broker.connect())))
}

#[cfg(not(feature = "embedded-broker"))]
async fn start_broker(_: &EmbeddedBrokerConfig, _: &Board) -> anyhow::Result<Way> {
    anyhow::bail!("this program was built without the feature embedded-broker")
}

fn archive_thread_main(
    mut receiver: Receiver,
    arrivals: mpsc::Receiver<Arrived>,
    acks: mpsc::Sender<OutgoingAck>,
    ready: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    receiver.tell_time(wall_ms(), 0);
    receiver.restore().context("reading the archive")?;
    if ready.send(()).is_err() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    Ok(runtime.block_on(receive(receiver, arrivals, acks))?)
}

/// Takes, commits and acknowledges until nobody sends any more.
///
/// # Errors
/// When the archive failed for another reason than a full disk; nothing uncommitted has been acknowledged.
pub async fn receive(
    mut receiver: Receiver,
    mut arrivals: mpsc::Receiver<Arrived>,
    acks: mpsc::Sender<OutgoingAck>,
) -> Result<(), ArchiveError> {
    let began = Instant::now();
    let mut turns = tokio::time::interval(COMMIT_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_open = true;
    while is_open {
        let is_turn = tokio::select! {
            arrived = arrivals.recv() => {
                match arrived {
                    Some(arrived) => {
                        receiver.tell_time(wall_ms(), millis(began));
                        receiver.take(arrived)?;
                    }
                    None => is_open = false,
                }
                !is_open
            }
            _ = turns.tick() => true,
        };
        if is_turn || receiver.is_full() {
            commit(&mut receiver).await?;
            send_acks(&mut receiver, &acks, millis(began));
        }
    }
    Ok(())
}

/// For the stores' clocks, and as a ceiling where few of them are left; everything else runs on event time.
fn wall_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// For pauses, which no setting of the wall clock changes.
fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A full disk is waited for, with everything else standing still; the stores keep what is not acknowledged.
async fn commit(receiver: &mut Receiver) -> Result<(), ArchiveError> {
    loop {
        match receiver.commit() {
            Err(failed @ ArchiveError::Full { .. }) => {
                error!(
                    error = &failed as &dyn std::error::Error,
                    "nothing is received until there is room"
                );
                tokio::time::sleep(FULL_DISK_PAUSE).await;
            }
            done => return done,
        }
    }
}

fn send_acks(receiver: &mut Receiver, acks: &mpsc::Sender<OutgoingAck>, now_ms: u64) {
    for ack in receiver.acks(now_ms) {
        if let Err(full) = acks.try_send(ack) {
            receiver.ack_not_sent(&full.into_inner());
        }
    }
}
