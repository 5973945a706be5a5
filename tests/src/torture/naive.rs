//! A store as it is often written: what was published is deleted. It runs beside ours, over the same links, on the same
//! schedule, to the same central, and shows that the test can fail.
//!
//! In: where to connect. Out: numbered records of the real feed, and a file with one byte for each that was made.
//! It keeps nothing on disk but that count.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rumqttc::{AsyncClient, MqttOptions, PublishOptions, TlsConfiguration, Transport};
use tillwatch_agent::tls::client_config;
use tillwatch_feed::codec::encode;
use tillwatch_feed::message::{Birth, Block, Body, ClockReading, Interval, Kind, Message, Metric, Plugin, Row, Series};
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::{Leaf, topic};

use crate::pki::Identity;

pub const SITE: &str = "naive-store";
/// As often as ours.
const INTERVAL: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_millis(100);
const REQUESTS_MAX: usize = 64;

/// Runs until it is killed.
///
/// # Errors
/// When it cannot begin, or cannot count.
pub fn run(port: u16, identity: &Identity, made: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(publish(port, identity, made))
}

async fn publish(port: u16, identity: &Identity, made: &Path) -> Result<()> {
    let mut made = OpenOptions::new().create(true).append(true).open(made)?;
    let mut options = MqttOptions::new(SITE, ("127.0.0.1", port));
    let tls = client_config(&identity.ca, &identity.certificate, &identity.key)?;
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(&tls))));
    let (client, mut event_loop) = AsyncClient::builder(options).capacity(REQUESTS_MAX).build();
    tokio::spawn(async move {
        loop {
            if event_loop.poll().await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    });
    let generation = fastrand::u64(1..);
    let birth = birth();
    for seq in 1_u64.. {
        let (leaf, body) = if seq == 1 {
            (Leaf::Birth, Body::Birth(birth.clone()))
        } else {
            (Leaf::Sum, Body::Block(block(birth.schema, now_ms()?)))
        };
        made.write_all(b".")?;
        let payload = encode(&message(generation, seq, body)?);
        let topic = topic(&"a".parse()?, &SITE.parse()?, &leaf);
        // Published: nobody keeps it from here on.
        client.publish(topic, payload, PublishOptions::at_least_once()).await?;
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

fn message(generation: u64, seq: u64, body: Body) -> Result<Message> {
    Ok(Message {
        generation,
        seq_first: seq,
        seq_last: seq,
        // It does not know what it lost, so it cannot tell.
        oldest_seq_held: 1,
        clock: ClockReading {
            wall_ms: now_ms()?,
            monotonic_ms: 0,
            boot_id: generation,
        },
        body,
    })
}

fn birth() -> Birth {
    let plugins = vec![Plugin {
        name: "naive".to_owned(),
        version: "0.1.0".to_owned(),
    }];
    let metrics = vec![Metric {
        name: "naive.count".to_owned(),
        unit: "1".to_owned(),
        kind: Kind::Sum,
        role: String::new(),
        decimals: 0,
        currency: None,
        plugin: 0,
        label_keys: Vec::new(),
    }];
    let series = vec![Series {
        id: 1,
        metric: 0,
        label_values: Vec::new(),
    }];
    Birth {
        schema: Birth::schema_hash(1_000, &plugins, &metrics, &series),
        agent_version: "naive".to_owned(),
        previous: None,
        metrics,
        series,
        plugins,
        window_ms: 1_000,
    }
}

fn block(schema: u64, now_ms: u64) -> Block {
    let summary = Summary {
        count: 1,
        sum: 1,
        min: 1,
        max: 1,
        histogram: None,
    };
    let row = Row {
        series: 1,
        summary,
        score: None,
    };
    Block {
        schema,
        records: vec![1],
        intervals: vec![Interval {
            start_ms: now_ms,
            length_ms: 1_000,
            rows: vec![row],
        }],
    }
}

fn now_ms() -> Result<u64> {
    Ok(u64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis(),
    )?)
}
