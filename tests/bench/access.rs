//! Whether one store that sends 1,000 times as much as each other one makes the others wait: the time from a store's
//! publication to an archive's receipt, over a real mosquitto with the shipped settings, in turn with and without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, PublishOptions, QoS, TlsConfiguration, Transport};
use serde::Serialize;
use tillwatch_agent::tls::client_config;
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// A minute of 30 series.
const PAYLOAD_BYTES: usize = 700;
/// One side's turn.
const TURN: Duration = Duration::from_secs(10);
/// At the beginning of a turn, left out.
const SETTLE: Duration = Duration::from_secs(1);
const TIMES_ITS_RATE: u32 = 1_000;
/// What an agent has under way at most.
const WINDOW: u16 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Figures {
    stores: u32,
    store_messages_per_s: f64,
    wild_messages_per_s: f64,
    p99_ms_without: f64,
    p99_ms_with: f64,
    /// The goal is 1.2.
    p99_ratio: f64,
    /// One half of the turns without it by the other: what the machine itself does.
    p99_ratio_alone: f64,
}

/// Measures so many rounds of four turns, and prints.
pub(crate) fn run(json: bool, stores: u32, every_ms: u64, rounds: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(Box::pin(measure(stores, Duration::from_millis(every_ms), rounds)))?;
    if json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    Ok(())
}

async fn measure(stores: u32, every: Duration, rounds: u32) -> Result<Figures> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let port = mosquitto.port;
    let begun = Instant::now();
    let mut arrived = archive(port, &authority.client("main")?, begun).await?;
    let wild = Arc::new(Wild::default());
    for number in 0..stores {
        let name = format!("store-{number}");
        let client = connect(port, &name, &authority.client(&name)?).await?;
        tokio::spawn(store(client, name, begun, every, every * number / stores));
    }
    let client = connect(port, "wild", &authority.client("wild")?).await?;
    tokio::spawn(go_wild(client, Arc::clone(&wild), every / TIMES_ITS_RATE));
    // Without, with, without again.
    let mut took: [Vec<u64>; 3] = Default::default();
    for _round in 0..rounds {
        for (turn, is_wild) in [false, true, false, true].into_iter().enumerate() {
            wild.is_on.store(is_wild, Ordering::Relaxed);
            sleep(SETTLE).await;
            while arrived.try_recv().is_ok() {}
            sleep(TURN).await;
            let side = if is_wild { 1 } else { turn };
            while let Ok(us) = arrived.try_recv() {
                took[side].push(us);
            }
        }
    }
    let [first, with, second] = took;
    let alone = [first.clone(), second.clone()].concat();
    let turns = f64::from(2 * rounds) * (TURN + SETTLE).as_secs_f64();
    Ok(Figures {
        stores,
        store_messages_per_s: 1.0 / every.as_secs_f64(),
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        wild_messages_per_s: wild.sent.load(Ordering::Relaxed) as f64 / turns,
        p99_ms_without: p99_ms(alone.clone())?,
        p99_ms_with: p99_ms(with.clone())?,
        p99_ratio: p99_ms(with)? / p99_ms(alone)?,
        p99_ratio_alone: p99_ms(first)? / p99_ms(second)?,
    })
}

#[derive(Default)]
struct Wild {
    is_on: AtomicBool,
    sent: AtomicU64,
}

fn p99_ms(mut took_us: Vec<u64>) -> Result<f64> {
    ensure!(took_us.len() >= 100, "{} messages arrived", took_us.len());
    took_us.sort_unstable();
    let us = took_us[took_us.len() * 99 / 100];
    #[expect(clippy::cast_precision_loss, reason = "microseconds of seconds")]
    Ok(us as f64 / 1_000.0)
}

/// Connected; its events are still to be polled.
async fn connect(port: u16, name: &str, identity: &Identity) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new(name, ("127.0.0.1", port));
    let tls = client_config(&identity.ca, &identity.certificate, &identity.key)?;
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    options.set_outgoing_inflight_upper_limit(WINDOW);
    let (client, mut events) = AsyncClient::builder(options).capacity(usize::from(WINDOW)).build();
    let connected = async {
        loop {
            if matches!(events.poll().await?, Event::Incoming(Incoming::ConnAck(_))) {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, connected).await.context("connecting")??;
    Ok((client, events))
}

async fn poll_for_ever(mut events: EventLoop) {
    while events.poll().await.is_ok() {}
}

/// Microseconds from each store's publication to here; the wild one's are left out.
async fn archive(port: u16, identity: &Identity, begun: Instant) -> Result<mpsc::UnboundedReceiver<u64>> {
    let (client, mut events) = connect(port, "main", identity).await?;
    client.subscribe("tw1/+/+/sum", QoS::AtLeastOnce).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let _kept = client;
        while let Ok(event) = events.poll().await {
            let Event::Incoming(Incoming::Publish(publish)) = event else {
                continue;
            };
            let Some(sent_us) = publish.payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
                continue;
            };
            if sent_us > 0 && sender.send(now_us(begun).saturating_sub(sent_us)).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn now_us(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn store(
    (client, events): (AsyncClient, EventLoop),
    name: String,
    begun: Instant,
    every: Duration,
    offset: Duration,
) {
    tokio::spawn(poll_for_ever(events));
    sleep(offset).await;
    let mut turns = interval(every);
    loop {
        turns.tick().await;
        let mut payload = vec![0x5a; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&now_us(begun).max(1).to_le_bytes());
        let sent = client.publish(format!("tw1/a/{name}/sum"), payload, PublishOptions::at_least_once());
        if sent.await.is_err() {
            return;
        }
    }
}

async fn go_wild((client, events): (AsyncClient, EventLoop), wild: Arc<Wild>, every: Duration) {
    tokio::spawn(poll_for_ever(events));
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        turns.tick().await;
        if !wild.is_on.load(Ordering::Relaxed) {
            continue;
        }
        let payload = vec![0; PAYLOAD_BYTES];
        let sent = client.publish("tw1/a/wild/sum", payload, PublishOptions::at_least_once());
        if sent.await.is_err() {
            return;
        }
        wild.sent.fetch_add(1, Ordering::Relaxed);
    }
}
