//! A short torture: what `cargo xtask torture` does for hours by hand.

use std::time::Duration;

use anyhow::{Result, ensure};
use tillwatch_tests::torture::{Settings, run};

const CYCLES: u64 = 10;

#[test]
fn nothing_is_lost_or_doubled_by_faults_that_hit_something_in_flight() -> Result<()> {
    let seed = match std::env::var("TILLWATCH_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => fastrand::u64(1..1_000_000),
    };
    println!("TILLWATCH_SEED={seed}");
    let settings = Settings {
        cycles: CYCLES,
        seed,
        lanes: 2,
        time_max: Duration::from_secs(600),
        progress: None,
    };
    let report = run(&settings)?;
    println!("{report:?}");
    ensure!(report.cycles == CYCLES && report.produced > 0, "{report:?}");
    ensure!(report.is_good(), "{report:?}");
    Ok(())
}
