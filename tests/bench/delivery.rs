//! Both delivery machines through so many faults: how many promises held, and what it cost on the wire.

use anyhow::Result;
use serde::Serialize;
use tillwatch_tests::simulation::{self, Tally};

#[derive(Serialize)]
struct Report {
    first_seed: u64,
    next_seed: u64,
    seconds: f64,
    #[serde(flatten)]
    tally: Tally,
    broken_promises: u64,
}

/// Runs and prints; the first broken promise ends it, with its seed.
pub(crate) fn run(json: bool, faults: u64, first_seed: u64) -> Result<()> {
    let begun = std::time::Instant::now();
    let tally = simulation::run(first_seed, faults)?;
    let report = Report {
        first_seed,
        next_seed: first_seed + tally.worlds,
        seconds: begun.elapsed().as_secs_f64(),
        tally,
        broken_promises: 0,
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}
