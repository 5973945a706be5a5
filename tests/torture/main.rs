//! `tillwatch-torture`: kills, cuts off and starves real agents, brokers and centrals, and says what that cost.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test by hand prints what it found"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tillwatch_tests::pki::Identity;
use tillwatch_tests::torture::{self, Report, Settings, naive};

#[derive(Parser)]
#[command(name = "cargo xtask torture", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Faults that hit something in flight, of all lanes together
    #[arg(long, default_value_t = 100)]
    cycles: u64,
    /// The same seed strikes in the same order
    #[arg(long)]
    seed: Option<u64>,
    /// At once, each with its own programs, ports and folders
    #[arg(long, default_value_t = 3)]
    lanes: u32,
    /// No cycle begins later
    #[arg(long, default_value_t = 86_400)]
    seconds: u64,
    /// Written after each leg; a run that was stopped goes on from there with the same seed
    #[arg(long)]
    progress: Option<PathBuf>,
    /// One JSON object in place of the lines
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The store that deletes what it published
    #[command(hide = true)]
    NaiveStore {
        port: u16,
        certificates: PathBuf,
        made: PathBuf,
    },
}

#[derive(Serialize)]
struct Printed {
    seed: u64,
    lanes: u32,
    seconds: u64,
    #[serde(flatten)]
    report: Report,
    wire_duplicates_percent: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::NaiveStore {
        port,
        certificates,
        made,
    }) = arguments.part
    {
        let identity = Identity::of(&certificates, naive::SITE);
        return naive::run(port, &identity, &made);
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    eprintln!("seed {seed}");
    let settings = Settings {
        cycles: arguments.cycles,
        seed,
        lanes: arguments.lanes.max(1),
        time_max: Duration::from_secs(arguments.seconds),
        progress: arguments.progress,
    };
    let begun = Instant::now();
    let report = torture::run(&settings)?;
    let wire_duplicates_percent = report.wire_duplicates_percent();
    let printed = Printed {
        seed,
        lanes: settings.lanes,
        seconds: begun.elapsed().as_secs(),
        report,
        wire_duplicates_percent,
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&printed)?);
    } else {
        println!("{}", serde_json::to_string_pretty(&printed)?);
    }
    Ok(())
}
