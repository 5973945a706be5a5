//! How well series are judged: `cargo xtask bench scoring`, one file per measure.
//!
//! In: simulated stores from printed seeds, and the files of the Numenta Anomaly Benchmark when a folder is named.
//! Out: one section per measure, each with our detector and three baselines in the same table.
//!
//! A *sample* is one window of ten seconds, as stores judge them, and a *slot* of the measures is that window;
//! counts so rare that their rate is told per five minutes are judged in windows of ten seconds, too.
//! The files of the benchmark are judged at their own interval.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers of a simulation are small, and none of these is negative"
)]

mod calibration;
mod cost;
mod detectors;
mod episodes;
mod false_alarms;
mod incidents;
mod nab;
mod random;
mod store;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use cost::Counting;

/// The length of the windows that a store judges.
pub(crate) const WINDOW_MS: u32 = 10_000;
pub(crate) const DAY: u64 = 8_640;

/// How much is simulated.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// One JSON object in place of the tables
    #[arg(long)]
    pub(crate) json: bool,
    /// A few stores, weeks and seeds, for everyday use: minutes instead of an hour
    #[arg(long)]
    pub(crate) quick: bool,
    /// So many seeds in place of the ten of a whole run
    #[arg(long, default_value_t = 10)]
    pub(crate) seeds: u64,
    /// Only these measures: calibration, incidents, `false_alarms`, nab, cost
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Folder with data/ and windows.json of the Numenta Anomaly Benchmark
    #[arg(long)]
    pub(crate) nab: Option<PathBuf>,
    /// Write the scores of the benchmark's files below this folder, for another scorer
    #[arg(long)]
    pub(crate) nab_scores: Option<PathBuf>,
    /// Only our own detector
    #[arg(long)]
    pub(crate) alone: bool,
}

/// One measure.
#[derive(Serialize)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) goal: &'static str,
    /// What was simulated, with its seeds.
    pub(crate) how: String,
    pub(crate) rows: Vec<Row>,
}

/// A line of a table.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) detector: &'static str,
    pub(crate) case: String,
    #[serde(flatten)]
    pub(crate) figures: Map<String, Value>,
}

impl Row {
    /// Figures are told with four digits.
    pub(crate) fn new(detector: &'static str, case: &str, figures: &[(&str, f64)]) -> Row {
        let rounded = |value: f64| {
            if value == 0.0 || !value.is_finite() {
                return value;
            }
            let unit = libm::pow(10.0, 3.0 - libm::floor(libm::log10(value.abs())));
            (value * unit).round() / unit
        };
        Row {
            detector,
            case: case.to_owned(),
            figures: figures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Value::from(rounded(*value))))
                .collect(),
        }
    }
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut sections = Vec::new();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    if wanted("calibration") {
        sections.push(calibration::measure(options));
    }
    if wanted("incidents") {
        sections.extend(incidents::measure(options));
    }
    if wanted("false_alarms") {
        sections.push(false_alarms::measure(options));
    }
    if let Some(folder) = options.nab.as_deref().filter(|_| wanted("nab")) {
        sections.push(nab::measure(folder, options)?);
    }
    if wanted("cost") {
        sections.push(cost::measure()?);
    }
    print(&sections, options.json)
}

fn print(sections: &[Section], json: bool) -> Result<()> {
    if json {
        println!(
            "{}",
            serde_json::to_string(&serde_json::json!({ "scoring": sections }))?
        );
        return Ok(());
    }
    for section in sections {
        println!("{} ({})\n  goal: {}", section.name, section.how, section.goal);
        for row in &section.rows {
            let figures: Vec<String> = row
                .figures
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            println!("  {:<10} {:<28} {}", row.detector, row.case, figures.join("  "));
        }
    }
    Ok(())
}

/// Runs a job per item, on all processors, and keeps the order.
pub(crate) fn in_parallel<I: Sync, O: Send>(items: &[I], job: impl Fn(&I) -> O + Sync) -> Vec<O> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match items.get(at) {
                Some(item) => done.push((at, job(item))),
                None => return done,
            }
        }
    };
    let mut done: Vec<(usize, O)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a job of a benchmark does not panic"))
            .collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, out)| out).collect()
}
