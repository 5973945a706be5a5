//! How a store catches up over bad links: the agent's own keeper and uplink, a link with a rate and a delay, a real
//! mosquitto and a real central.
//!
//! A store of 30 series, 16 of them distributions, was offline for eight hours. Measured is how long its backlog takes
//! until it is in the archive, and how far what is live stays behind meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tillwatch_agent::clock::Clock;
use tillwatch_agent::keeper::{FromSource, Keeper, KeeperSettings, Observation, Status};
use tillwatch_agent::spool::SpoolSettings;
use tillwatch_agent::tls;
use tillwatch_agent::uplink::{BrokerAddress, UplinkSettings};
use tillwatch_central::archive::{self, Archive as _};
use tillwatch_core::delivery::DeliverySettings;
use tillwatch_core::sample::{Batch, Kind, Metric, Series, Values};
use tillwatch_core::{LabelPolicy, Limits, SourceKey};
use tillwatch_feed::codec::decode;
use tillwatch_feed::message::{Body, RecordId};
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::client::Client;
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::proxy::{Link, Proxy};
use tillwatch_tests::torture::recorder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::footprint::MODEL;

const SITE: &str = "store-0412";
const OFFLINE_MINUTES: u64 = 8 * 60;
const MINUTE_MS: u64 = 60_000;
/// While it catches up, so that there are enough of them.
const LIVE_MS: u64 = 2_000;
const DISTRIBUTIONS: usize = 16;
const GAUGES: usize = 7;
const SUMS: usize = 7;
/// Of a gauge or a sum in an interval.
const READINGS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(5);
const BATCHES_MAX: usize = 16;

/// A link with its name.
struct Road {
    name: &'static str,
    bytes_per_second: Option<u32>,
    round_trip: Duration,
}

const ROADS: [Road; 3] = [
    Road {
        name: "fast",
        bytes_per_second: None,
        round_trip: Duration::from_millis(10),
    },
    Road {
        name: "256 kbit/s, 100 ms",
        bytes_per_second: Some(32_000),
        round_trip: Duration::from_millis(100),
    },
    Road {
        name: "64 kbit/s, 600 ms",
        bytes_per_second: Some(8_000),
        round_trip: Duration::from_millis(600),
    },
];

#[derive(Serialize)]
struct Report {
    links: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    link: &'static str,
    /// From the connection until the archive has the last record of the backlog.
    backlog_s: f64,
    backlog_records: u64,
    backlog_bytes: u64,
    live_records: usize,
    /// From the disk of the store to the broker.
    live_behind_s_max: f64,
}

/// Measures and prints.
pub(crate) fn run(json: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let links = ROADS
        .iter()
        .map(|road| runtime.block_on(measure(road)))
        .collect::<Result<_>>()?;
    let report = Report { links };
    if json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    for found in &report.links {
        println!(
            "{:<20} {:>4} records in {:>5.1} s, {:>7} B; live at most {:.1} s behind ({} records)",
            found.link,
            found.backlog_records,
            found.backlog_s,
            found.backlog_bytes,
            found.live_behind_s_max,
            found.live_records
        );
    }
    Ok(())
}

async fn measure(road: &Road) -> Result<Found> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start_with(&place.path().join("mosquitto"), &authority.server()?, recorder::RIGHTS)?;
    let (archive, broker) = (authority.client("main")?, Broker::External(mosquitto.port));
    let central = Central::start(&place.path().join("central"), MODEL, &archive, &broker)?;
    let spool = place.path().join("spool");
    let identity = authority.client(SITE)?;
    let now_ms = Clock::wall().now_ms();
    let start_ms = now_ms - now_ms % MINUTE_MS - OFFLINE_MINUTES * MINUTE_MS;
    // It was there before, so that the broker keeps an acknowledgement for it.
    let clock = Clock::told(start_ms - MINUTE_MS);
    let mut before = Store::open(&spool, Some((mosquitto.port, &identity)), MINUTE_MS, clock, None)?;
    before.tell(start_ms - MINUTE_MS).await?;
    before.finish(true).await?;
    let mut offline = Store::open(&spool, None, MINUTE_MS, Clock::told(start_ms), None)?;
    for minute in 0..OFFLINE_MINUTES {
        offline.tell(start_ms + minute * MINUTE_MS).await?;
    }
    let held = offline.finish(false).await?;
    let link = Link {
        delay: road.round_trip / 2,
        bytes_per_second: road.bytes_per_second,
        ..Link::default()
    };
    let proxy = Proxy::start_with(mosquitto.port, link)?;
    let catching_up = CatchingUp {
        road,
        spool: &spool,
        proxy: &proxy,
        identity: &identity,
        central: &central,
        held,
    };
    catching_up
        .measure(mosquitto.port, &authority.client(recorder::NAME)?)
        .await
}

struct CatchingUp<'a> {
    road: &'a Road,
    spool: &'a Path,
    proxy: &'a Proxy,
    identity: &'a Identity,
    central: &'a Central,
    held: Status,
}

impl CatchingUp<'_> {
    async fn measure(&self, broker_port: u16, recorder: &Identity) -> Result<Found> {
        let heard = Client::connect(broker_port, recorder::NAME, recorder).await?;
        heard.subscribe("tw1/+/+/sum").await?;
        let kept = Arc::new(Mutex::new(BTreeMap::new()));
        let behind = Arc::new(Mutex::new(Vec::new()));
        let listening = tokio::spawn(listen(heard, Arc::clone(&kept), Arc::clone(&behind)));
        let uplink = Some((self.proxy.port, self.identity));
        let mut live = Store::open(self.spool, uplink, LIVE_MS, Clock::wall(), Some(Arc::clone(&kept)))?;
        live.status.wait_for(|status| status.connected).await?;
        let (begun, bytes) = (Instant::now(), self.proxy.bytes_up());
        let archive = archive::open_to_read(&self.central.archive_path())?;
        let (mut backlog, mut next_ms) = (None, 0);
        while backlog.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "the backlog did not arrive in {PATIENCE:?}");
            let now_ms = Clock::wall().now_ms();
            if now_ms >= next_ms {
                live.report(now_ms).await?;
                next_ms = now_ms - now_ms % LIVE_MS + LIVE_MS;
            }
            tokio::time::sleep(LOOK).await;
            let marks = archive.marks(archive::GENERATIONS_PER_SITE_MAX)?;
            let mark = marks.iter().find(|mark| mark.generation == self.held.generation);
            if mark.is_some_and(|mark| mark.received >= self.held.records_held) {
                backlog = Some((begun.elapsed(), self.proxy.bytes_up() - bytes));
            }
        }
        live.finish(true).await?;
        listening.abort();
        let behind = behind.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, bytes) = backlog.context("no backlog")?;
        Ok(Found {
            link: self.road.name,
            backlog_s: time.as_secs_f64(),
            backlog_records: self.held.records_held,
            backlog_bytes: bytes,
            live_records: behind.len(),
            live_behind_s_max: behind.iter().max().map_or(0.0, Duration::as_secs_f64),
        })
    }
}

type KeptAt = Arc<Mutex<BTreeMap<RecordId, Instant>>>;

/// Notes how long each live record took from the disk to the broker.
async fn listen(mut heard: Client, kept: KeptAt, behind: Arc<Mutex<Vec<Duration>>>) {
    while let Some((_, payload)) = heard.arrived.recv().await {
        let Ok(message) = decode(&payload) else { continue };
        if !matches!(message.body, Body::Block(_)) {
            continue;
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        for seq in message.seq_first..=message.seq_last {
            let id = RecordId {
                generation: message.generation,
                seq,
            };
            if let Some(since) = kept.remove(&id) {
                behind
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(since.elapsed());
            }
        }
    }
}

/// The keeper of one store, with a source that stands in for its plugins.
struct Store {
    source: SourceKey,
    random: fastrand::Rng,
    to_keeper: mpsc::Sender<FromSource>,
    status: watch::Receiver<Status>,
    keeper: JoinHandle<Status>,
}

impl Store {
    fn open(
        spool: &Path,
        uplink: Option<(u16, &Identity)>,
        summary_ms: u64,
        clock: Clock,
        kept: Option<KeptAt>,
    ) -> Result<Self> {
        let uplink = uplink
            .map(|(port, identity)| uplink_settings(port, identity))
            .transpose()?;
        let mut keeper = Keeper::open(keeper_settings(uplink, u32::try_from(summary_ms)?), spool, clock)?;
        let source = keeper.declare("bench", "0.1.0", metrics(), labels())?;
        if let Some(kept) = kept {
            keeper.observe(Box::new(move |seen| {
                if let Observation::Kept { ids, .. } = seen {
                    let now = Instant::now();
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend(ids.iter().map(|id| (*id, now)));
                }
            }));
        }
        let status = keeper.status();
        let (to_keeper, from_sources) = mpsc::channel(BATCHES_MAX);
        Ok(Self {
            source,
            random: fastrand::Rng::with_seed(7),
            to_keeper,
            status,
            keeper: tokio::spawn(Box::pin(keeper.run(from_sources))),
        })
    }

    /// What one minute of the past brought, and that it is over.
    async fn tell(&mut self, start_ms: u64) -> Result<()> {
        self.report(start_ms + MINUTE_MS / 2).await?;
        let tick = FromSource::Tick {
            now_ms: start_ms + MINUTE_MS,
        };
        self.to_keeper.send(tick).await.context("the keeper is gone")
    }

    async fn report(&mut self, time_ms: u64) -> Result<()> {
        let batch = FromSource::Batch {
            source: self.source,
            batch: batch(&mut self.random, time_ms),
            progress: Vec::new(),
            room: None,
        };
        self.to_keeper.send(batch).await.context("the keeper is gone")
    }

    /// Stops in good order, when everything was acknowledged if that is awaited.
    async fn finish(mut self, is_delivered: bool) -> Result<Status> {
        let (done, flushed) = tokio::sync::oneshot::channel();
        self.to_keeper.send(FromSource::Flush(done)).await?;
        ensure!(flushed.await?, "the spool did not take its last records");
        if is_delivered {
            let delivered = self.status.wait_for(|status| status.records_held == 0);
            tokio::time::timeout(PATIENCE, delivered)
                .await
                .context("not acknowledged")??;
        }
        drop(self.to_keeper);
        Ok(self.keeper.await?)
    }
}

fn uplink_settings(port: u16, identity: &Identity) -> Result<UplinkSettings> {
    let broker = BrokerAddress {
        host: "127.0.0.1".to_owned(),
        port,
        is_secure: true,
    };
    let tls = tls::client_config(&identity.ca, &identity.certificate, &identity.key)?;
    Ok(UplinkSettings::new(
        broker,
        Some(tls::Tls::of(tls)),
        SITE.parse()?,
        "a".parse()?,
    ))
}

fn keeper_settings(uplink: Option<UplinkSettings>, summary_ms: u32) -> KeeperSettings {
    KeeperSettings {
        core: tillwatch_core::Settings {
            window_ms: summary_ms,
            summary_ms,
            time_zone: jiff::tz::TimeZone::UTC,
            calendar: Default::default(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
        },
        spool: SpoolSettings::default(),
        delivery: DeliverySettings::new(vec!["main".parse().expect("a name of letters")], 7),
        uplink,
        bytes_per_day: None,
        traffic_file: None,
        detectors_file: None,
        wait_at_records: None,
        wait_at_bytes: None,
    }
}

fn metrics() -> Vec<Metric> {
    let metric = |name: &str, kind, unit: &str| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        kind,
        help: String::new(),
        label_keys: vec!["route".to_owned()],
        role: String::new(),
        decimals: 6,
        currency: None,
    };
    vec![
        metric("bench.duration", Kind::Distribution, "s"),
        metric("bench.depth", Kind::Gauge, "{message}"),
        metric("bench.sold", Kind::Sum, "{transaction}"),
    ]
}

fn labels() -> BTreeMap<String, LabelPolicy> {
    let policy = LabelPolicy {
        pattern: Some("r[0-9]+".to_owned()),
        values: None,
        values_max: 64,
    };
    BTreeMap::from([("route".to_owned(), policy)])
}

/// As many values, and spread so, as in the sizes that the feed's tests tell.
fn batch(random: &mut fastrand::Rng, time_ms: u64) -> Batch {
    let mut series = Vec::new();
    for (metric, count) in [(0, DISTRIBUTIONS), (1, GAUGES), (2, SUMS)] {
        for number in 0..count {
            let values = if metric == 0 {
                4 + 12 * random.usize(0..=number)
            } else {
                READINGS
            };
            let median = 0.02 * (number + 1) as f64;
            let value = |random: &mut fastrand::Rng| match metric {
                0 => median * (0.35 * normal(random)).exp(),
                _ => f64::from(random.u32(0..20)),
            };
            series.push(Series {
                metric,
                labels: vec![format!("r{number}")],
                values: Values::Reals((0..values).map(|_| value(random)).collect()),
                times_ms: vec![time_ms; values],
            });
        }
    }
    Batch {
        series,
        ..Batch::default()
    }
}

/// Nearly standard normal: the sum of twelve uniform values.
fn normal(random: &mut fastrand::Rng) -> f64 {
    (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
}
