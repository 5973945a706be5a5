//! Whether a till notices the agent: a stand-in for one, with and without the agent on the same processors, in turn.
//!
//! Every 20 ms it parses a basket, computes its total and writes a receipt that must be on the disk before the drawer
//! opens. Blocks alternate, so that what else the machine does falls on all sides alike. The agent has of the machine what
//! its unit gives it, and so has the compiler that it would start.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{Process, plugin_dir, program};

use crate::footprint::{self, PointOfSaleLog, SITE};
use crate::heartbeat;
use crate::hostile;
use crate::unit::Unit;

/// More often than any till, so that a hundredth of them is more than a few.
const RECEIPT_EVERY: Duration = Duration::from_millis(20);
/// One side's turn.
const BLOCK: Duration = Duration::from_secs(10);
/// Until an agent has started; of all sides, so that they differ in nothing else.
const SETTLE: Duration = Duration::from_secs(3);
const STOP: Duration = Duration::from_secs(10);

/// What the till and the broker notice.
#[derive(Serialize)]
pub(crate) struct Noticed {
    /// The slowest hundredth of the receipts with the agent, by that without.
    till_p99_ratio: f64,
    till_p99_ratio_hostile: f64,
    /// One half of the receipts without an agent by the other, in turn: what is measured of the machine alone.
    till_p99_ratio_alone: f64,
    /// The slowest hundredth without an agent.
    till_p99_ms: f64,
    /// How much later than the earliest beat a beat comes, beside healthy plugins and while others run away.
    heartbeat_jitter_quiet_ms: f64,
    heartbeat_jitter_ms: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Alone,
    Healthy,
    Hostile,
}

/// Measures for so long, and prints.
pub(crate) fn print(seconds: u64) -> Result<()> {
    println!(
        "{}",
        serde_json::to_string_pretty(&measure(Duration::from_secs(seconds))?)?
    );
    Ok(())
}

/// Measures so long for each side.
pub(crate) fn measure(time: Duration) -> Result<Noticed> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mut mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let identity = authority.client(SITE)?;
    let unit = Unit::new()?;
    let beats = |name: &str, has_runaways| {
        let folder = place.path().join(name);
        heartbeat::measure(&folder, &mosquitto, &identity, &unit, time, has_runaways)
    };
    let (quiet, beside) = (beats("quiet", false)?, beats("beside", true)?);
    let till = place.path().join("till");
    std::fs::create_dir(&till)?;
    let agent = place.path().join("agent");
    let log = PointOfSaleLog::start(&agent)?;
    let mut took = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let block = BLOCK.min(time);
    for _round in 0..time.as_secs().div_ceil(block.as_secs().max(1)) {
        let sides = [Side::Alone, Side::Healthy, Side::Alone, Side::Hostile];
        for (side, took) in sides.into_iter().zip(&mut took) {
            let load = Load::start(side, &agent, mosquitto.port, &identity, &unit)?;
            std::thread::sleep(SETTLE);
            took.append(&mut receipts(&till, block)?);
            load.stop()?;
        }
    }
    drop(log);
    mosquitto.kill()?;
    let [first, healthy, second, hostile] = took;
    let ratio = |with: Vec<Duration>, without: Vec<Duration>| Ok::<_, anyhow::Error>(p99(with)? / p99(without)?);
    let alone = [first.clone(), second.clone()].concat();
    Ok(Noticed {
        till_p99_ratio: ratio(healthy, alone.clone())?,
        till_p99_ratio_hostile: ratio(hostile, alone.clone())?,
        till_p99_ratio_alone: ratio(first, second)?,
        till_p99_ms: p99(alone)? * 1_000.0,
        heartbeat_jitter_quiet_ms: quiet.as_secs_f64() * 1_000.0,
        heartbeat_jitter_ms: beside.as_secs_f64() * 1_000.0,
    })
}

/// The agent of one side, and somebody who has plugins compiled.
struct Load {
    agent: Option<Process>,
    compiling: Option<(Arc<AtomicBool>, JoinHandle<Result<()>>)>,
}

impl Load {
    fn start(side: Side, folder: &Path, port: u16, identity: &Identity, unit: &Unit) -> Result<Self> {
        if side == Side::Alone {
            return Ok(Self {
                agent: None,
                compiling: None,
            });
        }
        let mut text = footprint::settings_text(folder, port, identity, "10s", "60s")?;
        if side == Side::Hostile {
            text += &hostile_plugins(folder)?;
        }
        let agent = footprint::start_agent(folder, &text, unit.command(&program("tillwatch")?))?;
        let compiling = if side == Side::Hostile {
            let is_over = Arc::new(AtomicBool::new(false));
            let (flag, mut compiler) = (Arc::clone(&is_over), unit.command(&program("tillwatch-compile")?));
            compiler
                .arg(plugin_dir()?.join("sales/sales.wasm"))
                .arg(folder.join("compiled.cwasm"));
            Some((is_over, std::thread::spawn(move || compile(compiler, &flag))))
        } else {
            None
        };
        Ok(Self {
            agent: Some(agent),
            compiling,
        })
    }

    fn stop(self) -> Result<()> {
        if let Some((is_over, thread)) = self.compiling {
            is_over.store(true, Ordering::Relaxed);
            thread
                .join()
                .map_err(|_panic| anyhow!("the compiling thread panicked"))??;
        }
        if let Some(mut agent) = self.agent {
            agent
                .check()
                .context("the figures are of an agent that does not work")?;
            agent.stop(STOP)?;
        }
        Ok(())
    }
}

/// As many bad plugins as fit beside the healthy ones, each called every second.
fn hostile_plugins(folder: &Path) -> Result<String> {
    let plugin = folder.join("hostile");
    std::fs::create_dir_all(&plugin)?;
    hostile::install(&plugin)?;
    std::fs::write(folder.join("input.log"), "till-1\n")?;
    let mut text = String::new();
    for behavior in hostile::while_running() {
        write!(
            text,
            "\n[[plugin]]\nname = \"{behavior}\"\nuse = {plugin:?}\ninterval = \"1s\"\ndeadline = \"100ms\"\n\
             [plugin.sources.input]\nfile = \"{}/input.log\"\n[plugin.settings]\nbehavior = \"{behavior}\"\n",
            folder.display()
        )?;
    }
    Ok(text)
}

/// One plugin after the other.
fn compile(mut compiler: Command, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        let status = compiler.status()?;
        ensure!(status.success(), "{compiler:?} ended with {status}");
    }
    Ok(())
}

#[derive(Deserialize)]
struct Item {
    price_minor: u64,
    quantity: u64,
    tax_percent: u64,
}

fn receipts(folder: &Path, time: Duration) -> Result<Vec<Duration>> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(folder.join("receipts"))?;
    let basket = format!(
        "[{}]",
        vec!["{\"price_minor\":1999,\"quantity\":3,\"tax_percent\":19,\"name\":\"coffee\"}"; 20].join(",")
    );
    let begun = Instant::now();
    let mut due = begun;
    let mut took = Vec::new();
    while begun.elapsed() < time {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // From when it was due: a till that gets no processor is late, too.
        write_one(&mut file, &basket)?;
        took.push(due.elapsed());
        due += RECEIPT_EVERY;
    }
    Ok(took)
}

fn write_one(file: &mut File, basket: &str) -> Result<()> {
    let items: Vec<Item> = serde_json::from_str(basket)?;
    let mut receipt = String::new();
    let mut total_minor = 0;
    for item in &items {
        let sum_minor = item.price_minor * item.quantity;
        let tax_minor = sum_minor * item.tax_percent / (100 + item.tax_percent);
        total_minor += sum_minor;
        writeln!(
            receipt,
            "{} x {} = {sum_minor} ({tax_minor})",
            item.quantity, item.price_minor
        )?;
    }
    writeln!(receipt, "{total_minor}")?;
    file.write_all(receipt.as_bytes())?;
    Ok(file.sync_data()?)
}

/// In seconds.
fn p99(mut took: Vec<Duration>) -> Result<f64> {
    took.sort_unstable();
    let slow = took.get(took.len() * 99 / 100).context("no receipt was written")?;
    Ok(slow.as_secs_f64())
}
