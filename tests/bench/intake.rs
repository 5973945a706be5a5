//! What central takes: payloads decoded and deduplicated on one core, and payloads made durable, by its own modules in
//! this process, beside the limits of the parts alone: inflating, adding rows to the archive, appending to a file.
//!
//! A payload is one store's minute: a live block of 30 series, 16 of them distributions, all scored. Every twentieth
//! comes twice. What only computes is measured in processor time, so that a busy machine changes little; what waits for
//! a disk, in real time.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde::Serialize;
use tillwatch_central::archive::{self, Archive as _, Batch, IncidentChanges, IncidentRow, Payload, Retention};
use tillwatch_central::cursor::{Brings, Cursor, CursorLimits, Numbers};
use tillwatch_central::decode::{Dictionaries, Observation, observations};
use tillwatch_central::receive::{Arrived, BATCH_MESSAGES_MAX, Receiver, Reckoner};
use tillwatch_central::rollup::Rollup;
use tillwatch_feed::codec;
use tillwatch_feed::message::{
    Birth, Block, Body, ClockReading, Finding, Interval, Kind, Message, Metric, Plugin, Row, Series,
};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::{Leaf, Shard, SiteId};

const SEED: u64 = 7;
const STORES: u64 = 1_000;
/// Of each store.
const MINUTES: u64 = 20;
const SERIES: u32 = 30;
const DISTRIBUTIONS: u32 = 16;
const SCHEMA: u64 = 0x1234_5678_9abc_def0;
const GENERATION: u64 = 0xfedc_ba98_7654_3210;
const START_MS: u64 = 1_780_306_200_000;
const TWICE_EVERY: usize = 20;
const ROUNDS: usize = 5;
/// The only one that is written.
const DICTIONARY: &[u8] = include_bytes!("../../sdk/feed/dictionaries/1.zdict");

#[derive(Serialize)]
struct Figures {
    payload_bytes: f64,
    /// Read, checked and told apart from what was there, a second of one core.
    decoded_per_s: f64,
    /// The same, and turned into what central reckons with.
    observed_per_s: f64,
    /// Inflating alone, with a decompressor that is kept.
    inflated_per_s: f64,
    /// Committed by the real receiver, everything but the reckoning of incidents.
    durable_per_s: f64,
    /// The archive alone: one row for each payload, as many a commit.
    archive_rows_per_s: f64,
    /// Appended to a file and synced, as many at a time.
    appended_per_s: f64,
    /// Of one core, for a disk that takes no time.
    durable_per_core_s: f64,
}

/// Measures and prints.
pub(crate) fn run(json: bool) -> Result<()> {
    let payloads = payloads()?;
    let place = tempfile::tempdir()?;
    let bytes: usize = payloads.iter().map(|(_, payload)| payload.len()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    let payload_bytes = bytes as f64 / payloads.len() as f64;
    let mut figures = Figures {
        payload_bytes,
        decoded_per_s: 0.0,
        observed_per_s: 0.0,
        inflated_per_s: 0.0,
        durable_per_s: 0.0,
        archive_rows_per_s: 0.0,
        appended_per_s: 0.0,
        durable_per_core_s: 0.0,
    };
    // In turn, so that what else the machine does falls on all alike; the best of each.
    for round in 0..ROUNDS {
        let file = |name: &str| place.path().join(format!("{name}-{round}"));
        best(&mut figures.inflated_per_s, &payloads, || inflate(&payloads))?;
        best(&mut figures.decoded_per_s, &payloads, || decode(&payloads, false))?;
        best(&mut figures.observed_per_s, &payloads, || decode(&payloads, true))?;
        best(&mut figures.appended_per_s, &payloads, || {
            append(&payloads, &file("file"))
        })?;
        best(&mut figures.archive_rows_per_s, &payloads, || {
            rows(&payloads, &file("rows"))
        })?;
        let (took, busy) = receive(&payloads, &file("archive"))?;
        best(&mut figures.durable_per_s, &payloads, || Ok(took))?;
        best(&mut figures.durable_per_core_s, &payloads, || Ok(busy))?;
    }
    print(&figures, json)
}

/// Keeps the better figure.
fn best(figure: &mut f64, payloads: &[(SiteId, Vec<u8>)], measured: impl FnOnce() -> Result<Duration>) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = payloads.len() as f64 / measured()?.as_secs_f64();
    *figure = figure.max(rate);
    Ok(())
}

fn print(figures: &Figures, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(figures)?);
        return Ok(());
    }
    println!("payload: {:.0} B, {SERIES} series", figures.payload_bytes);
    for (what, rate, beside, limit) in [
        (
            "decoded and deduplicated",
            figures.decoded_per_s,
            "inflating alone",
            figures.inflated_per_s,
        ),
        (
            "and observed",
            figures.observed_per_s,
            "inflating alone",
            figures.inflated_per_s,
        ),
        (
            "made durable",
            figures.durable_per_s,
            "rows of the archive alone",
            figures.archive_rows_per_s,
        ),
        (
            "made durable",
            figures.durable_per_s,
            "appended to a file",
            figures.appended_per_s,
        ),
    ] {
        println!("{what:26} {rate:>9.0}/s   {beside}: {limit:.0}/s");
    }
    Ok(())
}

fn inflate(payloads: &[(SiteId, Vec<u8>)]) -> Result<Duration> {
    let mut plain = zstd::bulk::Decompressor::new()?;
    let mut trained = zstd::bulk::Decompressor::with_dictionary(DICTIONARY)?;
    let begun = Processor::now()?;
    for (_, payload) in payloads {
        let (header, body) = payload.split_at(codec::HEADER_BYTES);
        let decompressor = if header[2..] == [0, 0] {
            &mut plain
        } else {
            &mut trained
        };
        if header[1] != 0 {
            black_box(decompressor.decompress(body, codec::INFLATED_BYTES_MAX)?);
        }
    }
    begun.elapsed()
}

/// As the receiver does, without anything that waits or writes.
fn decode(payloads: &[(SiteId, Vec<u8>)], is_observed: bool) -> Result<Duration> {
    let mut cursor = Cursor::new("main".parse()?, 1, CursorLimits::default());
    let mut dictionaries = Dictionaries::default();
    let birth = birth();
    for site in sites()? {
        dictionaries.learn(&site, &birth)?;
    }
    let (shard, mut fresh, begun): (Shard, usize, _) = ("a".parse()?, 0, Processor::now()?);
    for (site, payload) in payloads {
        let message = codec::decode(payload)?;
        let numbers = Numbers {
            generation: message.generation,
            seq_first: message.seq_first,
            seq_last: message.seq_last,
            oldest_seq_held: message.oldest_seq_held,
        };
        let arrival = cursor.arrived(&shard, site, numbers, Brings::Records)?;
        fresh += usize::from(!arrival.fresh.is_empty());
        if is_observed && let Body::Block(block) = &message.body {
            let dictionary = dictionaries.get(site, block.schema).context("a dictionary")?;
            let fresh: RangeSet = arrival.fresh.iter().copied().collect();
            let numbers = (message.seq_first, message.seq_last);
            black_box(observations(site, &dictionary, block, numbers, &fresh)?);
        } else {
            black_box(message);
        }
    }
    let took = begun.elapsed()?;
    ensure!(
        fresh == payloads.len() - payloads.len() / TWICE_EVERY,
        "{fresh} are fresh"
    );
    Ok(took)
}

/// What this thread had of the processor.
struct Processor(Duration);

impl Processor {
    fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("asking for processor time")?;
        let ns = text.split_whitespace().next().context("no processor time")?;
        Ok(Self(Duration::from_nanos(ns.parse()?)))
    }

    fn elapsed(&self) -> Result<Duration> {
        Ok(Self::now()?.0 - self.0)
    }
}

fn append(payloads: &[(SiteId, Vec<u8>)], path: &Path) -> Result<Duration> {
    let mut file = File::create(path)?;
    let begun = Instant::now();
    for batch in payloads.chunks(BATCH_MESSAGES_MAX) {
        let bytes: Vec<u8> = batch.iter().flat_map(|(_, payload)| payload).copied().collect();
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    let took = begun.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

fn rows(payloads: &[(SiteId, Vec<u8>)], path: &Path) -> Result<Duration> {
    let mut archive = archive::open(path, &"main".parse()?)?;
    let begun = Instant::now();
    let mut seq = 0;
    for part in payloads.chunks(BATCH_MESSAGES_MAX) {
        let mut batch = Batch::default();
        for (site, bytes) in part {
            seq += 1;
            batch.payloads.push(Payload {
                site: site.clone(),
                generation: GENERATION,
                seq_first: seq,
                seq_last: seq,
                fresh: vec![(seq, seq)],
                start_ms: START_MS,
                end_ms: START_MS,
                ages_ms: START_MS,
                arrived_ms: START_MS,
                schema: Some(SCHEMA),
                is_waiting: false,
                bytes: bytes.clone(),
            });
        }
        archive.commit(&batch)?;
    }
    let took = begun.elapsed();
    drop(archive);
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Real time and processor time.
fn receive(payloads: &[(SiteId, Vec<u8>)], path: &Path) -> Result<(Duration, Duration)> {
    let archive = archive::open(path, &"main".parse()?)?;
    let retention = Retention {
        payloads_ms: 8 * 86_400_000,
        rollups_ms: 400 * 86_400_000,
    };
    let mut receiver = Receiver::new("main".parse()?, 1, Box::new(archive), Box::new(Nobody), retention);
    receiver.restore()?;
    let shard: Shard = "a".parse()?;
    let arrived = |site: &SiteId, leaf, payload: &[u8]| Arrived::Message {
        shard: shard.clone(),
        site: site.clone(),
        leaf,
        payload: payload.to_vec(),
    };
    let born = codec::encode(&message(1, Body::Birth(birth())));
    for site in sites()? {
        receiver.take(arrived(&site, Leaf::Birth, &born))?;
    }
    receiver.commit()?;
    let (begun, processor) = (Instant::now(), Processor::now()?);
    for (site, payload) in payloads {
        receiver.tell_time(START_MS + MINUTES * 60_000, elapsed_ms(begun));
        receiver.take(arrived(site, Leaf::Sum, payload))?;
        if receiver.is_full() {
            receiver.commit()?;
            black_box(receiver.acks(elapsed_ms(begun)));
        }
    }
    receiver.commit()?;
    let took = (begun.elapsed(), processor.elapsed()?);
    drop(receiver);
    let marks = archive::open_to_read(path)?.marks(9)?;
    let received: u64 = marks.iter().map(|mark| mark.received).sum();
    ensure!(
        received == STORES * (MINUTES + 1),
        "{received} records are in the archive"
    );
    std::fs::remove_file(path)?;
    Ok(took)
}

fn elapsed_ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Hears everything and reckons nothing.
struct Nobody;

impl Reckoner for Nobody {
    fn restore(&mut self, _: &Rollup) {}
    fn resume(&mut self, _: &[IncidentRow]) {}
    fn on_observations(&mut self, observations: &[Observation]) {
        black_box(observations);
    }
    fn on_finding(&mut self, _: &SiteId, _: &Finding) {}
    fn on_clock(&mut self, _: u64) {}
    fn changed_incidents(&mut self) -> IncidentChanges {
        IncidentChanges::default()
    }
}

fn sites() -> Result<Vec<SiteId>> {
    (0..STORES).map(|n| Ok(format!("store-{n:05}").parse()?)).collect()
}

/// Minute by minute, all stores in each; every twentieth twice.
fn payloads() -> Result<Vec<(SiteId, Vec<u8>)>> {
    let (sites, mut random) = (sites()?, Rng::with_seed(SEED));
    let mut made: HashMap<u64, Block> = HashMap::new();
    let mut payloads = Vec::new();
    for minute in 0..MINUTES {
        for (number, site) in (0..).zip(&sites) {
            // A hundred different stores are enough for the compressor's and the cache's sake.
            let block = made
                .entry(number % 100 + minute * 100)
                .or_insert_with(|| block(&mut random, minute));
            payloads.push((
                site.clone(),
                codec::encode(&message(minute + 2, Body::Block(block.clone()))),
            ));
            if payloads.len() % TWICE_EVERY == TWICE_EVERY - 1 {
                payloads.extend(payloads.last().cloned());
            }
        }
    }
    Ok(payloads)
}

fn message(seq: u64, body: Body) -> Message {
    Message {
        generation: GENERATION,
        seq_first: seq,
        seq_last: seq,
        oldest_seq_held: 1,
        clock: ClockReading {
            wall_ms: START_MS + seq * 60_000,
            monotonic_ms: 123_456_789,
            boot_id: 0x9e37_79b9_7f4a_7c15,
        },
        body,
    }
}

fn birth() -> Birth {
    let metric = |name: &str, kind, role: &str, label_keys| Metric {
        name: name.to_owned(),
        unit: "s".to_owned(),
        kind,
        role: role.to_owned(),
        decimals: 6,
        currency: None,
        plugin: 0,
        label_keys,
    };
    let route = || vec!["http.route".to_owned()];
    let series = |id: u32| Series {
        id,
        metric: if id < DISTRIBUTIONS {
            0
        } else if id < SERIES - 2 {
            1
        } else {
            id + 4 - SERIES
        },
        label_values: if id < SERIES - 2 {
            vec![format!("/route/{id}")]
        } else {
            Vec::new()
        },
    };
    Birth {
        schema: SCHEMA,
        agent_version: "0.1.0".to_owned(),
        previous: None,
        metrics: vec![
            metric("http.server.request.duration", Kind::Distribution, "latency", route()),
            metric("queue.depth", Kind::Gauge, "queue", route()),
            metric("sales.transactions", Kind::Sum, "sales.count", Vec::new()),
            metric("sales.amount", Kind::Sum, "sales.amount", Vec::new()),
        ],
        series: (0..SERIES).map(series).collect(),
        plugins: vec![Plugin {
            name: "bench".to_owned(),
            version: "0.1.0".to_owned(),
        }],
        window_ms: 10_000,
    }
}

/// A standard normal value, nearly: the sum of twelve uniform ones.
fn normal(random: &mut Rng) -> f64 {
    (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
}

#[expect(clippy::cast_possible_truncation, reason = "made values are small")]
fn row(random: &mut Rng, series: u32) -> Row {
    let mut summary = Summary::default();
    if series < DISTRIBUTIONS {
        summary = Summary::with_histogram();
        let (median, values) = (0.02 * f64::from(1 + series), 4 + 12 * random.u32(0..=series));
        for _ in 0..values {
            let micros = (median * (0.35 * normal(random)).exp() * 1e6).round();
            summary.record(micros as i64, micros / 1e6);
        }
    } else {
        let level = f64::from(series - DISTRIBUTIONS + 1) * 150.0;
        for _ in 0..6 {
            summary.record((level + normal(random) * level / 10.0) as i64, 0.0);
        }
    }
    let score = Score {
        state: ScoreState::Ok,
        alarm: false,
        log10_p: random.f32().max(1e-6).log10(),
        effect: normal(random) as f32,
        missing: (normal(random) * 40.0) as i64,
    };
    Row {
        series,
        summary,
        score: Some(score),
    }
}

fn block(random: &mut Rng, minute: u64) -> Block {
    Block {
        schema: SCHEMA,
        records: vec![1],
        intervals: vec![Interval {
            start_ms: START_MS + minute * 60_000,
            length_ms: 60_000,
            rows: (0..SERIES).map(|series| row(random, series)).collect(),
        }],
    }
}
