//! How a chain comes back after an outage: each store waits as the agent does, then makes a TLS connection of its own to a
//! real broker, says CONNECT and subscribes; with the embedded broker and with mosquitto.
//!
//! The waits of the outage itself are the agent's, but nobody waits for them; from the broker's return on time is real.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tillwatch_agent::tls::client_config;
use tillwatch_agent::uplink::{UplinkSettings, parse_url, retry_waits};
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// As the agent's.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE_S: u16 = 120;
/// After this a store that is not online is a failure of the benchmark.
const PATIENCE: Duration = Duration::from_secs(600);
const MODEL: &str = "[[region]]\nid = \"north\"\nname = \"North\"\n\n[[site]]\nid = \"store-0\"\nregion = \"north\"\ntime_zone = \"UTC\"\n";

#[derive(Serialize)]
struct Figures {
    broker: &'static str,
    stores: usize,
    outage_s: u64,
    /// From the broker's return until all are online and subscribed.
    all_online_s: f64,
    half_online_s: f64,
    p99_online_s: f64,
    /// Stores that came online in the fullest second.
    peak_per_s: usize,
    failed_attempts: u64,
    /// The longest that an attempt took which succeeded.
    longest_attempt_s: f64,
}

/// Measures both brokers, and prints.
pub(crate) fn run(json: bool, stores: usize, outage_s: u64, window_s: u64) -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let names = (0..stores).map(|number| authority.client(&format!("store-{number}")));
    let identities = names.collect::<Result<Vec<Identity>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = Vec::new();
    for broker in ["embedded", "mosquitto"] {
        let (port, _kept) = start(broker, &place.path().join(broker), &authority)?;
        let figures = runtime.block_on(Box::pin(come_back(broker, port, &identities, outage_s, window_s)))?;
        eprintln!("{}", serde_json::to_string_pretty(&figures)?);
        all.push(figures);
    }
    if json {
        println!("{}", serde_json::to_string(&all)?);
    }
    Ok(())
}

/// Either of them, which ends when it is dropped.
#[expect(dead_code, reason = "it is only kept")]
enum Running {
    Embedded(Central),
    Mosquitto(Mosquitto),
}

fn start(broker: &str, folder: &Path, authority: &Authority) -> Result<(u16, Running)> {
    let server = authority.server()?;
    if broker == "mosquitto" {
        let mosquitto = Mosquitto::start(folder, &server)?;
        return Ok((mosquitto.port, Running::Mosquitto(mosquitto)));
    }
    let central = Central::start(folder, MODEL, &authority.client("main")?, &Broker::Embedded(&server))?;
    Ok((central.broker_port, Running::Embedded(central)))
}

async fn come_back(
    broker: &'static str,
    port: u16,
    identities: &[Identity],
    outage_s: u64,
    window_s: u64,
) -> Result<Figures> {
    let (begun, failed) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut coming = JoinSet::new();
    for (seed, identity) in (1..).zip(identities) {
        let waits = waits(seed, window_s * 1_000)?;
        let failed = Arc::clone(&failed);
        coming.spawn(store(
            port,
            identity.clone(),
            waits,
            Duration::from_secs(outage_s),
            failed,
            begun,
        ));
    }
    let (mut online, mut longest, mut kept) = (Vec::new(), Duration::ZERO, Vec::new());
    let all = async {
        while let Some(came) = coming.join_next().await {
            let Online { at, took, stream } = came??;
            longest = longest.max(took);
            online.push(at);
            kept.push(stream);
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all).await.context("stores are still offline")??;
    online.sort_unstable();
    let at = |share: usize| {
        online
            .get(online.len().saturating_sub(1) * share / 100)
            .map_or(0.0, Duration::as_secs_f64)
    };
    let mut fullest = 0;
    for (first, time) in online.iter().enumerate() {
        let within = online[first..].partition_point(|other| *other < *time + Duration::from_secs(1));
        fullest = fullest.max(within);
    }
    Ok(Figures {
        broker,
        stores: online.len(),
        outage_s,
        all_online_s: at(100),
        half_online_s: at(50),
        p99_online_s: at(99),
        peak_per_s: fullest,
        failed_attempts: failed.load(Ordering::Relaxed),
        longest_attempt_s: longest.as_secs_f64(),
    })
}

/// What the agent waits after each failure, within an announced window when there is one.
fn waits(seed: u64, window_ms: u64) -> Result<impl Iterator<Item = Duration> + Send> {
    let mut settings = UplinkSettings::new(parse_url("mqtt://localhost:1883")?, None, "s".parse()?, "a".parse()?);
    settings.seed = seed;
    if window_ms > 0 {
        settings.first_retry_ms_max = window_ms.min(settings.retry_ms_max);
    }
    Ok(retry_waits(&settings))
}

struct Online {
    at: Duration,
    took: Duration,
    stream: TlsStream<TcpStream>,
}

/// From the loss of its connection, `outage` before the broker's return, until it is online.
async fn store(
    port: u16,
    identity: Identity,
    mut waits: impl Iterator<Item = Duration> + Send,
    outage: Duration,
    failed: Arc<AtomicU64>,
    begun: Instant,
) -> Result<Online> {
    let mut lost_for = Duration::ZERO;
    while lost_for <= outage {
        lost_for += waits.next().context("the agent waits for ever")?;
    }
    sleep((lost_for - outage).saturating_sub(begun.elapsed())).await;
    loop {
        let attempt = Instant::now();
        if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, connect(port, &identity)).await {
            return Ok(Online {
                at: begun.elapsed(),
                took: attempt.elapsed(),
                stream,
            });
        }
        failed.fetch_add(1, Ordering::Relaxed);
        sleep(waits.next().context("the agent waits for ever")?).await;
    }
}

/// Online is who has subscribed to its acknowledgements.
async fn connect(port: u16, identity: &Identity) -> Result<TlsStream<TcpStream>> {
    let site = site_of(&identity.certificate)?;
    let tls = client_config(&identity.ca, &identity.certificate, &identity.key)?;
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut stream = TlsConnector::from(tls).connect("127.0.0.1".try_into()?, socket).await?;
    let [high, low] = KEEP_ALIVE_S.to_be_bytes();
    let head = [0, 4, b'M', b'Q', b'T', b'T', 5, 2, high, low, 0];
    stream.write_all(&packet(0x10, &[&head, &text(&site)?])?).await?;
    ensure!(next(&mut stream).await? == 0x20, "no CONNACK");
    let filter = text(&format!("tw1/a/{site}/ack/+"))?;
    stream.write_all(&packet(0x82, &[&[0, 1, 0], &filter, &[1]])?).await?;
    ensure!(next(&mut stream).await? == 0x90, "no SUBACK");
    Ok(stream)
}

fn site_of(certificate: &Path) -> Result<String> {
    let stem = certificate.file_stem().and_then(|stem| stem.to_str());
    stem.map(str::to_owned).context("a certificate without a name")
}

fn text(text: &str) -> Result<Vec<u8>> {
    Ok([&u16::try_from(text.len())?.to_be_bytes(), text.as_bytes()].concat())
}

fn packet(kind: u8, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let body = parts.concat();
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 128);
    Ok([&[kind, length.context("a longer packet")?], body.as_slice()].concat())
}

/// Reads one short packet; its kind.
async fn next(stream: &mut TlsStream<TcpStream>) -> Result<u8> {
    let (kind, length) = (stream.read_u8().await?, stream.read_u8().await?);
    ensure!(length < 128, "a longer packet");
    let mut body = vec![0; usize::from(length)];
    stream.read_exact(&mut body).await?;
    Ok(kind)
}
