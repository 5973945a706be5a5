//! How many bytes a store's minute costs on the wire, beside other formats and beside how small it could be.
//!
//! One store of 30 series, 16 of them distributions, over two days; the dictionary has learned from two others.
//! A series-minute is one of 30 in each minute; a few have no row at night.
//! Then a real agent goes on in real time, with every byte of its link counted.

mod day;
mod limit;
mod peers;
mod recording;

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tillwatch_feed::codec;
use tillwatch_feed::message::{Birth, Block, Body, ClockReading, Message};

use day::Day;
use limit::Limit;
use recording::Recording;

const SEED: u64 = 7;
const SERIES: f64 = 30.0;
/// Intervals of one message when a store catches up.
const CATCH_UP: usize = 60;
const ZSTD_LEVEL: i32 = 19;
const DICTIONARY_BYTES: usize = 8 << 10;

#[derive(Serialize)]
struct Report {
    seed: u64,
    minutes: usize,
    bytes_per_series_minute_live: f64,
    bytes_per_series_minute_catchup: f64,
    ratio_to_limit_live: f64,
    ratio_to_limit_catchup: f64,
    arithmetic_coder: Size,
    without_dictionary: Size,
    json_zstd: Size,
    otlp_gzip: Size,
    sparkplug_dictionary: Size,
    /// Of a real agent, when that was asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    day: Option<Day>,
}

/// Bytes per series and minute.
#[derive(Clone, Copy, Serialize)]
struct Size {
    live: f64,
    catchup: f64,
}

/// Measures and prints.
pub(crate) fn run(json: bool, minutes: u32) -> Result<()> {
    let recording = recording::make(SEED)?;
    let mut report = measure(&recording)?;
    if minutes > 0 {
        report.day = Some(day::measure(&recording.learned, minutes)?);
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// The bodies that a dictionary learns from, one file for each.
pub(crate) fn write_samples(folder: &Path) -> Result<()> {
    let recording = recording::make(SEED)?;
    std::fs::create_dir_all(folder)?;
    let mut rng = fastrand::Rng::with_seed(SEED);
    for (at, block) in recording.training.iter().enumerate() {
        let mut message = message(block.clone(), at);
        message.generation = rng.u64(..);
        message.clock.boot_id = message.generation;
        if let Body::Block(block) = &mut message.body {
            block.schema = rng.u64(..);
        }
        let body = codec::protobuf(&codec::encode(&message))?;
        std::fs::write(folder.join(format!("{at:05}")), body)?;
    }
    Ok(())
}

fn measure(recording: &Recording) -> Result<Report> {
    let ours = size(recording, &|block, at| {
        Ok(codec::encode(&message(block.clone(), at)).len())
    })?;
    let limit = Size {
        live: limit(&recording.measured)?,
        catchup: limit(&joined(&recording.measured)?)?,
    };
    Ok(Report {
        seed: SEED,
        minutes: recording.measured.len(),
        bytes_per_series_minute_live: ours.live,
        bytes_per_series_minute_catchup: ours.catchup,
        ratio_to_limit_live: ours.live / limit.live,
        ratio_to_limit_catchup: ours.catchup / limit.catchup,
        arithmetic_coder: limit,
        without_dictionary: size(recording, &|block, at| {
            let body = codec::protobuf(&codec::encode(&message(block.clone(), at)))?;
            Ok(zstd::bulk::compress(&body, ZSTD_LEVEL)?.len() + codec::HEADER_BYTES)
        })?,
        json_zstd: size(recording, &|block, _| {
            let said = peers::json(block, birth(recording)?);
            Ok(zstd::bulk::compress(&said, ZSTD_LEVEL)?.len())
        })?,
        otlp_gzip: size(recording, &|block, _| gzip(&peers::otlp(block, birth(recording)?)))?,
        sparkplug_dictionary: sparkplug(recording)?,
        day: None,
    })
}

/// With a dictionary of its own, made as ours is.
fn sparkplug(recording: &Recording) -> Result<Size> {
    let birth = birth(recording)?;
    let samples: Vec<Vec<u8>> = recording
        .training
        .iter()
        .map(|block| peers::sparkplug(block, birth))
        .collect();
    let dictionary = zstd::dict::from_samples(&samples, DICTIONARY_BYTES)?;
    size(recording, &|block, _| {
        let mut compressor = zstd::bulk::Compressor::with_dictionary(ZSTD_LEVEL, &dictionary)?;
        Ok(compressor.compress(&peers::sparkplug(block, birth))?.len())
    })
}

fn limit(blocks: &[Block]) -> Result<f64> {
    let mut limit = Limit::default();
    let mut minutes = 0;
    for block in blocks {
        minutes += block.intervals.len();
        let body = codec::encode_body(&Body::Block(block.clone()));
        let (_, columns) = body.split_first().context("a body")?;
        let mut columns = columns;
        limit::varint(&mut columns).context("the length of a block")?;
        limit.code(columns)?;
    }
    Ok(limit.bytes() as f64 / minutes as f64 / SERIES)
}

/// Of each minute alone, and of an hour together.
fn size(recording: &Recording, bytes: &dyn Fn(&Block, usize) -> Result<usize>) -> Result<Size> {
    let per_series_minute = |blocks: &[Block]| -> Result<f64> {
        let (mut all, mut minutes) = (0, 0);
        for block in blocks {
            all += bytes(block, minutes)?;
            minutes += block.intervals.len();
        }
        Ok(all as f64 / minutes as f64 / SERIES)
    };
    Ok(Size {
        live: per_series_minute(&recording.measured)?,
        catchup: per_series_minute(&joined(&recording.measured)?)?,
    })
}

fn joined(blocks: &[Block]) -> Result<Vec<Block>> {
    blocks
        .chunks(CATCH_UP)
        .map(|chunk| Ok(Block::join(chunk.to_vec())?))
        .collect()
}

fn birth(recording: &Recording) -> Result<&Birth> {
    recording.births.last().context("a birth")
}

/// As the agent sends it a little after the minute's end.
fn message(block: Block, minute: usize) -> Message {
    let minute = minute as u64;
    let seq_first = 1000 + minute;
    let end_ms = block
        .intervals
        .last()
        .map_or(0, |last| last.start_ms + 72_013 + minute % 7);
    Message {
        generation: 0xfedc_ba98_7654_3210,
        seq_first,
        seq_last: seq_first + (block.records.len() as u64).saturating_sub(1),
        oldest_seq_held: seq_first,
        clock: ClockReading {
            wall_ms: end_ms,
            monotonic_ms: 123_456_789 + minute * 60_000 + minute % 7,
            boot_id: 0xfedc_ba98_7654_3210,
        },
        body: Body::Block(block),
    }
}

fn gzip(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}
