//! Whether the agent keeps its beat while plugins run away: its summaries at the broker's door, beside plugins without an
//! end that are stopped again and again.
//!
//! Beats are due at the same place within their intervals, so that the earliest one tells when; whatever else the agent
//! says comes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::Identity;
use tillwatch_tests::process::program;
use tillwatch_tests::proxy::Proxy;
use tillwatch_tests::usage::with_descendants;

use crate::footprint::{self, PointOfSaleLog};
use crate::hostile;
use crate::unit::Unit;

/// The agent's shortest.
const SUMMARY: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_secs(6);
const STOP: Duration = Duration::from_secs(10);
/// Each pauses longer and longer after it was stopped, so that there are several.
const RUNAWAYS: usize = 8;

/// Often enough to see each of the processes that were ended.
const LOOK: Duration = Duration::from_millis(50);
/// Of the plugins' process; fewer say nothing.
const STOPS_MIN: usize = 5;

/// How much later than the earliest the latest of a hundred beats comes, with plugins that run away or without.
pub(crate) fn measure(
    folder: &Path,
    broker: &Mosquitto,
    identity: &Identity,
    unit: &Unit,
    time: Duration,
    has_runaways: bool,
) -> Result<Duration> {
    let proxy = Proxy::start(broker.port)?;
    let log = PointOfSaleLog::start(folder)?;
    let mut text = footprint::settings_text(folder, proxy.port, identity, "1s", "2s")?;
    if has_runaways {
        text += &runaways(folder)?;
    }
    let mut agent = footprint::start_agent(folder, &text, unit.command(&program("tillwatch")?))?;
    std::thread::sleep(SETTLE);
    proxy.take_bursts();
    let mut processes = BTreeSet::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        processes.extend(with_descendants(agent.id())?);
        std::thread::sleep(LOOK);
    }
    let beats = proxy.take_bursts();
    let working = agent.check();
    working.context("the figures are of an agent that does not work")?;
    agent.stop(STOP)?;
    drop(log);
    // The agent and the first of them are no stops.
    let stops = processes.len().saturating_sub(2);
    ensure!(
        !has_runaways || stops >= STOPS_MIN,
        "plugins were stopped {stops} times only"
    );
    let wanted = usize::try_from(time.as_secs() / SUMMARY.as_secs())?;
    jitter(&beats, wanted)
}

fn jitter(bursts: &[SystemTime], wanted: usize) -> Result<Duration> {
    let mut beats = BTreeMap::new();
    for burst in bursts {
        let time = burst.duration_since(UNIX_EPOCH)?;
        let number = time.as_secs() / SUMMARY.as_secs();
        let late = time.saturating_sub(SUMMARY * u32::try_from(number)?);
        beats.entry(number).or_insert(late);
    }
    ensure!(beats.len() + 1 >= wanted, "{} beats of {wanted}", beats.len());
    let mut late: Vec<Duration> = beats.into_values().collect();
    late.sort_unstable();
    let worst = late.get(late.len() * 99 / 100).context("no beat")?;
    Ok(worst.saturating_sub(late[0]))
}

fn runaways(folder: &Path) -> Result<String> {
    let plugin = folder.join("hostile");
    std::fs::create_dir_all(&plugin)?;
    hostile::install(&plugin)?;
    std::fs::write(folder.join("input.log"), "till-1\n")?;
    let mut text = String::new();
    for number in 0..RUNAWAYS {
        write!(
            text,
            "\n[[plugin]]\nname = \"runaway-{number}\"\nuse = {plugin:?}\ninterval = \"1s\"\ndeadline = \"100ms\"\n\
             [plugin.sources.input]\nfile = \"{}/input.log\"\n[plugin.settings]\nbehavior = \"loop\"\n",
            folder.display()
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_the_lateness_of_the_slowest_beat_in_its_interval() {
        let bursts: Vec<SystemTime> = [(2, 203), (4, 208), (5, 786), (6, 204)]
            .map(|(seconds, milliseconds)| UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + milliseconds))
            .to_vec();
        assert_eq!(jitter(&bursts, 3).unwrap(), Duration::from_millis(5));
        assert!(jitter(&bursts, 5).is_err(), "a beat is missing");
    }
}
