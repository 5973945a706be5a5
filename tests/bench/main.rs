//! `tillwatch-bench NAME`: one benchmark, as a table or as one JSON object.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints what it measured"
)]

mod footprint;

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
}

fn main() -> Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Footprint { json, seconds } => footprint::run(json, seconds),
    }
}
