//! `tillwatch-bench NAME`: one benchmark, as a table or as one JSON object.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints what it measured"
)]

mod access;
mod bundles;
mod delivery;
mod footprint;
mod heartbeat;
mod hostile;
mod links;
mod intake;
mod memory;
mod parsers;
mod reconnect;
mod sandbox;
mod spool;
mod scoring;
mod impact;
mod till;
mod unit;
mod wire;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Counts for the benchmark of scoring; what it adds to the others is one addition an allocation.
#[global_allocator]
static ALLOCATOR: scoring::Counting = scoring::Counting;

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What one agent costs a store server: program size, memory, processor time, bytes on the wire
    Footprint {
        /// One JSON object in place of the table
        #[arg(long)]
        json: bool,
        /// How long to measure
        #[arg(long, default_value_t = 180)]
        seconds: u64,
    },
    /// What plugins in a process of their own cost, what bad ones cost the others, and whether a till notices
    Sandbox {
        /// One JSON object in place of the lines
        #[arg(long)]
        json: bool,
        /// Calls of the soak
        #[arg(long, default_value_t = 1_000_000)]
        calls: u64,
        /// How long a till is measured without an agent, with one, and with a hostile one
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// How fast the shipped plugins read, natively and in the sandbox, beside the fastest parser of the kind
    Parsers {
        /// One JSON object in place of the lines
        #[arg(long)]
        json: bool,
    },
    /// How many bytes a store's minute costs on the wire, beside other formats and an arithmetic coder
    Wire {
        /// One JSON object on one line
        #[arg(long)]
        json: bool,
        /// How long a real agent's quiet link is counted, before it is cut a few times; 0 for payloads alone
        #[arg(long, default_value_t = 10)]
        minutes: u32,
    },
    /// Write what a dictionary of the feed learns from into a folder, a file for each message
    #[command(hide = true)]
    Samples { folder: PathBuf },
    /// The part of it that looks at the till, and at the agent's heartbeat beside runaway plugins
    Till {
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Both delivery machines through kills, cuts, stalls and failed writes, from one seed on
    Delivery {
        /// One JSON object on one line
        #[arg(long)]
        json: bool,
        /// That hit a message in flight
        #[arg(long, default_value_t = 1_000_000)]
        faults: u64,
        /// Of the first world; the others follow
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What the spool costs: memory over 72 hours offline on a fast clock, bytes written to disk in a day
    Spool {
        /// One JSON object on one line
        #[arg(long)]
        json: bool,
        /// How long to measure online
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// How many times faster the clock runs offline
        #[arg(long, default_value_t = 720)]
        speed: u64,
        /// Only spool and delivery in this process, in a minute
        #[arg(long)]
        alone: bool,
    },
    /// How a store catches up after eight hours offline, over a fast link and over slow ones
    Links {
        /// One JSON object in place of the lines
        #[arg(long)]
        json: bool,
    },
    /// How many payloads central decodes and makes durable a second, beside what their parts cost alone
    Intake {
        /// One JSON object in place of the lines
        #[arg(long)]
        json: bool,
    },
    /// How well series are judged: calibration, recall, delay, false alarms, NAB, cost
    Scoring(scoring::Options),
    /// How well incidents are found, priced and ranked, beside simpler methods
    Impact(impact::Options),
    /// What the others wait when one store sends 1,000 times as much as each of them, over a real mosquitto
    Access {
        /// One JSON object in one line
        #[arg(long)]
        json: bool,
        #[arg(long, default_value_t = 200)]
        stores: u32,
        /// Time between two messages of a store
        #[arg(long, default_value_t = 1_000)]
        every_ms: u64,
        /// Four turns of ten seconds each
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// How long a chain takes to come back after an outage, with the embedded broker and with mosquitto
    Reconnect {
        /// One JSON list in one line
        #[arg(long)]
        json: bool,
        #[arg(long, default_value_t = 10_000)]
        stores: usize,
        /// How long the broker was away
        #[arg(long, default_value_t = 60)]
        outage_s: u64,
        /// The announced window; 0 when there is none
        #[arg(long, default_value_t = 0)]
        window_s: u64,
    },
    /// Run the hostile corpus: how much of it was contained, and what it cost the others
    Hostile,
    /// Write the bad components of the corpus into a folder
    #[command(hide = true)]
    Components { folder: PathBuf },
}

fn main() -> Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Footprint { json, seconds } => footprint::run(json, seconds),
        Benchmark::Sandbox { json, calls, seconds } => sandbox::run(json, calls, seconds),
        Benchmark::Parsers { json } => parsers::run(json),
        Benchmark::Wire { json, minutes } => wire::run(json, minutes),
        Benchmark::Samples { folder } => wire::write_samples(&folder),
        Benchmark::Till { seconds } => till::print(seconds),
        Benchmark::Delivery { json, faults, seed } => delivery::run(json, faults, seed),
        Benchmark::Spool { alone: true, .. } => spool::run_alone(),
        Benchmark::Spool {
            json, seconds, speed, ..
        } => spool::run(json, seconds, speed),
        Benchmark::Links { json } => links::run(json),
        Benchmark::Scoring(options) => scoring::run(&options),
        Benchmark::Impact(options) => impact::run(&options),
        Benchmark::Intake { json } => intake::run(json),
        Benchmark::Access {
            json,
            stores,
            every_ms,
            rounds,
        } => access::run(json, stores, every_ms, rounds),
        Benchmark::Reconnect {
            json,
            stores,
            outage_s,
            window_s,
        } => reconnect::run(json, stores, outage_s, window_s),
        Benchmark::Hostile => hostile::print(),
        Benchmark::Components { folder } => hostile::write_components(&folder),
    }
}
