//! How fast access logs are read, natively: `cargo run --release -p pos-latency --example speed`.
//!
//! Each test case's log, repeated to some megabytes in memory, goes through the whole collector, lines to columns, as a
//! store's would in calls of 256 KiB. Beside it stand memchr's search for the ends of lines alone, the limit, and for JSON
//! serde_json alone. Medians of 15 rounds in turn, on one core.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use pos_latency::{PosLatency, Settings};
use serde::Deserialize;
use tillwatch_sdk::{Collector, Document, Error, Fault, Host, Level, Lines, Listing};

const BYTES: usize = 8 << 20;
const CALL_BYTES: usize = 256 << 10;
const ROUNDS: usize = 15;
const CASES: [&str; 7] = [
    "nginx_combined",
    "nginx_timed",
    "nginx_log_format",
    "apache_log_format",
    "iis",
    "json_lines",
    "json_nanoseconds",
];

/// A log in memory.
struct Log<'a> {
    bytes: &'a [u8],
}

impl Host for Log<'_> {
    fn now_ms(&mut self) -> u64 {
        1_795_500_000_000
    }
    fn log(&mut self, _level: Level, _message: &str) {}
    fn state(&mut self) -> Vec<u8> {
        Vec::new()
    }
    fn set_state(&mut self, _value: &[u8]) -> Result<(), Error> {
        Ok(())
    }
    fn read_lines(&mut self, _source: &str, _bytes_max: u32) -> Result<Lines, Fault> {
        let room = self.bytes.len().min(CALL_BYTES);
        let end = memchr::memrchr(b'\n', &self.bytes[..room]).map_or(0, |at| at + 1);
        let (given, rest) = self.bytes.split_at(end);
        self.bytes = rest;
        Ok(Lines {
            bytes: given.to_vec(),
            more: !rest.is_empty(),
            skipped_bytes: 0,
        })
    }
    fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
        Err(Fault::Unknown)
    }
    fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
        Err(Fault::Unknown)
    }
}

/// What an own parser for one log would take of a line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, alias = "time")]
    ts: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, alias = "RequestPath")]
    uri: Option<std::borrow::Cow<'a, str>>,
    #[serde(alias = "DownstreamStatus")]
    status: Option<u16>,
    #[serde(alias = "Duration")]
    request_time: Option<f64>,
}

fn main() -> Result<()> {
    println!("{:<20} {:>10} {:>10} {:>10}", "case", "MB/s", "peer", "limit");
    for case in CASES {
        measure(case).with_context(|| case.to_owned())?;
    }
    Ok(())
}

fn measure(case: &str) -> Result<()> {
    let folder = format!("{}/testcases/{case}", env!("CARGO_MANIFEST_DIR"));
    let settings: Settings = toml::from_str(&std::fs::read_to_string(format!("{folder}/settings.toml"))?)?;
    let is_json = std::path::Path::new(&format!("{folder}/access_log.jsonl")).exists();
    let log = std::fs::read(format!("{folder}/access_log.{}", if is_json { "jsonl" } else { "log" }))?;
    let bytes: Vec<u8> = log
        .iter()
        .copied()
        .cycle()
        .take(BYTES / log.len() * log.len())
        .collect();
    let (mut ours, mut peers, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        let mut host = Log { bytes: &bytes };
        let mut collector = PosLatency::new(settings.clone(), &mut host).map_err(|error| anyhow!("{error}"))?;
        let begun = Instant::now();
        let mut samples = 0;
        loop {
            let batch = collector.collect(&mut host).map_err(|error| anyhow!("{error}"))?;
            samples += batch.samples();
            if !black_box(batch).more {
                break;
            }
        }
        ours.push(begun.elapsed());
        ensure!(samples > bytes.len() / 500, "only {samples} samples");
        let begun = Instant::now();
        black_box(memchr::memchr_iter(b'\n', &bytes).count());
        limits.push(begun.elapsed());
        if is_json {
            let begun = Instant::now();
            black_box(peer(&bytes));
            peers.push(begun.elapsed());
        }
    }
    let speed = |mut took: Vec<std::time::Duration>| {
        took.sort_unstable();
        let median = took.get(took.len() / 2)?;
        Some(format!("{:.0}", bytes.len() as f64 / 1e6 / median.as_secs_f64()))
    };
    let show = |speed: Option<String>| speed.unwrap_or_else(|| "-".to_owned());
    println!(
        "{case:<20} {:>10} {:>10} {:>10}",
        show(speed(ours)),
        show(speed(peers)),
        show(speed(limits))
    );
    Ok(())
}

fn peer(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(line) = serde_json::from_slice::<Line<'_>>(line) {
            sum += u64::from(line.status.unwrap_or_default());
            black_box((line.ts, line.uri, line.request_time));
        }
    }
    sum
}
