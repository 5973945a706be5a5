//! `tillwatch-bench NAME`: one benchmark, as a table or as one JSON object.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints what it measured"
)]

mod access;
mod bundles;
mod footprint;
mod heartbeat;
mod hostile;
mod intake;
mod memory;
mod parsers;
mod reconnect;
mod sandbox;
mod till;
mod unit;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    /// The part of it that looks at the till, and at the agent's heartbeat beside runaway plugins
    Till {
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// How many payloads central decodes and makes durable a second, beside what their parts cost alone
    Intake {
        /// One JSON object in place of the lines
        #[arg(long)]
        json: bool,
    },
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
        Benchmark::Till { seconds } => till::print(seconds),
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
