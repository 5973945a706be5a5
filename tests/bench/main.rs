//! `tillwatch-bench NAME`: one benchmark, as a table or as one JSON object.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints what it measured"
)]

mod bundles;
mod footprint;
mod heartbeat;
mod hostile;
mod memory;
mod parsers;
mod sandbox;
mod till;
mod unit;
mod wire;

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
    /// How many bytes a store's minute costs on the wire, beside other formats and an arithmetic coder
    Wire {
        /// One JSON object on one line
        #[arg(long)]
        json: bool,
    },
    /// Write what a dictionary of the feed learns from into a folder, a file for each message
    #[command(hide = true)]
    Samples { folder: PathBuf },
    /// The part of it that looks at the till, and at the agent's heartbeat beside runaway plugins
    Till {
        #[arg(long, default_value_t = 120)]
        seconds: u64,
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
        Benchmark::Wire { json } => wire::run(json),
        Benchmark::Samples { folder } => wire::write_samples(&folder),
        Benchmark::Till { seconds } => till::print(seconds),
        Benchmark::Hostile => hostile::print(),
        Benchmark::Components { folder } => hostile::write_components(&folder),
    }
}
