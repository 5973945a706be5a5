//! The hostile corpus through the real compiler and the real process of plugins, beside healthy ones.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

const HOSTILE_MIN: u64 = 60;
/// Of the agent's side, whose caches and pools the first half of the corpus has filled.
const RSS_GROWTH_KIB_MAX: i64 = 1_024;
const UNIT: &str = include_str!("../../../packaging/systemd/tillwatch.service");
/// A quiet machine takes a quarter of it.
const TIME_MAX: Duration = Duration::from_secs(240);

/// In a process of its own, whose memory no other test's is mixed with.
#[test]
fn no_plugin_of_the_hostile_corpus_harms_the_agent_or_its_neighbors() -> Result<()> {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_tillwatch-bench"))
        .arg("hostile")
        .envs(service_environment())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let became: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(became["escaped"].as_array().is_some_and(Vec::is_empty), "{became}");
    let count = |key: &str| became[key].as_u64().unwrap_or(0);
    let total = count("hostile_total");
    ensure!(total >= HOSTILE_MIN && count("hostile_contained") == total, "{became}");
    ensure!(
        count("healthy_intervals") > total,
        "the healthy plugins were hardly called: {became}"
    );
    ensure!(became["healthy_intervals_lost"] == 0, "{became}");
    let growth_kib = became["rss_growth_kib"].as_i64();
    ensure!(growth_kib.is_some_and(|kib| kib <= RSS_GROWTH_KIB_MAX), "{became}");
    let took = begun.elapsed();
    ensure!(took < TIME_MAX, "it took {took:?}");
    Ok(())
}

/// Which memory the allocator gives back is set by the service.
fn service_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = UNIT.lines().filter_map(|line| line.strip_prefix("Environment="));
    lines.filter_map(|set| set.split_once('='))
}
