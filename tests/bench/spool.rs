//! What the spool costs a store server: memory over days without a center, and bytes written to its disk.
//!
//! Offline is a real agent whose clock runs fast, with the three shipped plugins, the host's metrics and 12 sales a minute;
//! online is the one of `footprint`, in real time, acknowledged by a real central. Sums run over all its processes.
//! Alone are spool and delivery in this process, a frame a minute of the size that an agent writes, on told time.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tillwatch_agent::spool::{NewRecord, RecordKind, Run, Spool, SpoolSettings};
use tillwatch_core::delivery::{Delivery, DeliverySettings};
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{Process, program};
use tillwatch_tests::story::timestamp;
use tillwatch_tests::usage;

use crate::footprint::{self, MODEL, PointOfSaleLog, SITE};

const OFFLINE_HOURS: u64 = 72;
/// By the fast clock: plugins are compiled and every series is there.
const WARM_HOURS: u64 = 3;
const SALE_EVERY_MS: u64 = 5_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_S: f64 = 86_400.0;
const SETTLE: Duration = Duration::from_secs(15);
/// Readings of the memory that a figure is the median of.
const READINGS: usize = 9;
/// A minute that is durable dirties one block of the file system at least.
const LIMIT_MB_PER_DAY: f64 = 1_440.0 * 4_096.0 / 1e6;

/// A minute's frame of the agent with 12 sales a minute: records, and a checkpoint after compression.
const RECORD_BYTES: usize = 460;
const CHECKPOINT_BYTES: usize = 2_800;
const MINUTES: u64 = 72 * 60;
/// Every buffer that is needed now and then was needed once.
const WARM_MINUTES: u64 = 24 * 60;

#[derive(Serialize)]
struct Report {
    spool: Figures,
    alone: Alone,
}

#[derive(Serialize)]
struct Alone {
    rss_growth_kib_72h_offline: i64,
    write_mb_per_day_offline: f64,
    write_mb_per_day_online: f64,
    limit_mb_per_day: f64,
}

#[derive(Serialize)]
struct Figures {
    rss_growth_kib_72h_offline: i64,
    rss_kib_offline: i64,
    write_mb_per_day_offline: f64,
    write_mb_per_day_online: f64,
    /// One block of 4 KiB a minute.
    limit_mb_per_day: f64,
    spool_bytes_72h_offline: u64,
}

/// Measures and prints.
pub(crate) fn run(json: bool, seconds: u64, speed: u64) -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let identity = authority.client(SITE)?;
    let mut figures = offline(&place.path().join("offline"), &identity, speed)?;
    figures.write_mb_per_day_online = online(&place.path().join("online"), &authority, &identity, seconds)?;
    let report = Report {
        spool: figures,
        alone: alone(place.path())?,
    };
    let text = if json {
        serde_json::to_string(&report)?
    } else {
        serde_json::to_string_pretty(&report)?
    };
    println!("{text}");
    Ok(())
}

/// Only spool and delivery, in seconds.
pub(crate) fn run_alone() -> Result<()> {
    let place = tempfile::tempdir()?;
    println!("{}", serde_json::to_string_pretty(&alone(place.path())?)?);
    Ok(())
}

fn alone(folder: &Path) -> Result<Alone> {
    let (rss_growth_kib_72h_offline, write_mb_per_day_offline) = minutes(&folder.join("alone-offline"), false)?;
    let (_, write_mb_per_day_online) = minutes(&folder.join("alone-online"), true)?;
    Ok(Alone {
        rss_growth_kib_72h_offline,
        write_mb_per_day_offline,
        write_mb_per_day_online,
        limit_mb_per_day: LIMIT_MB_PER_DAY,
    })
}

/// The growth of this process, and what it wrote in a day.
fn minutes(folder: &Path, is_online: bool) -> Result<(i64, f64)> {
    let (mut spool, _) = Spool::open(folder, &SpoolSettings::default(), 1, 0)?;
    let mut delivery = Delivery::new(DeliverySettings::new(vec!["main".parse()?], 1));
    let mut random = fastrand::Rng::with_seed(1);
    let (process, mut before) = (std::process::id(), (0, 0));
    for minute in 0..WARM_MINUTES + MINUTES {
        if minute == WARM_MINUTES {
            before = (rss_kib(process)?, usage::written_bytes(process)?);
        }
        let mut noise = |bytes: usize| -> Vec<u8> { std::iter::repeat_with(|| random.u8(..)).take(bytes).collect() };
        let (payload, checkpoint) = (noise(RECORD_BYTES), noise(CHECKPOINT_BYTES));
        let (kind, schema) = (RecordKind::Block, 1);
        let record = NewRecord { kind, schema, payload };
        let ids = spool.append(&[record], &checkpoint, minute * 60_000)?;
        let id = ids.first().context("a record that is kept has a number")?;
        let (generation, seq_first, seq_last) = (id.generation, id.seq, id.seq);
        delivery.on_held(Run {
            generation,
            seq_first,
            seq_last,
            kind,
            schema,
        });
        if is_online {
            spool.release(*id);
        }
    }
    let written = usage::written_bytes(process)? - before.1;
    let days = MINUTES as f64 * 60.0 / DAY_S;
    Ok((rss_kib(process)? - before.0, written as f64 / 1e6 / days))
}

fn offline(folder: &Path, identity: &Identity, speed: u64) -> Result<Figures> {
    std::fs::create_dir_all(folder)?;
    let start_ms = wall_ms()?;
    let log = FastLog::start(folder, start_ms, speed)?;
    // Nobody listens there any more.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let settings = folder.join("agent.toml");
    std::fs::write(
        &settings,
        footprint::settings_text(folder, port, identity, "10s", "60s")?,
    )?;
    let mut command = Command::new(program("tillwatch")?);
    let clock = format!("{}@{speed}", timestamp(start_ms));
    command.args(["run", "--clock", &clock, "--config"]).arg(&settings);
    let mut agent = Process::start("tillwatch", &mut command, &folder.join("agent.log"))?;
    let begun = Instant::now();
    let until = |hours: u64| begun + Duration::from_millis(hours * HOUR_MS / speed);
    sleep_until(until(WARM_HOURS));
    agent.check()?;
    let (rss_before, written_before) = (rss_kib(agent.id())?, usage::written_bytes(agent.id())?);
    sleep_until(until(WARM_HOURS + OFFLINE_HOURS));
    agent.check()?;
    let (rss_after, written_after) = (rss_kib(agent.id())?, usage::written_bytes(agent.id())?);
    let spool_bytes = segments_bytes(&folder.join("state/spool"))?;
    agent.kill()?;
    drop(log);
    ensure!(
        spool_bytes > 1 << 20,
        "the spool holds {spool_bytes} bytes only: the agent does not work"
    );
    let days = OFFLINE_HOURS as f64 * HOUR_MS as f64 / 1000.0 / DAY_S;
    Ok(Figures {
        rss_growth_kib_72h_offline: rss_after - rss_before,
        rss_kib_offline: rss_after,
        write_mb_per_day_offline: (written_after - written_before) as f64 / 1e6 / days,
        write_mb_per_day_online: 0.0,
        limit_mb_per_day: LIMIT_MB_PER_DAY,
        spool_bytes_72h_offline: spool_bytes,
    })
}

fn online(folder: &Path, authority: &Authority, identity: &Identity, seconds: u64) -> Result<f64> {
    let mut mosquitto = Mosquitto::start(&folder.join("mosquitto"), &authority.server()?)?;
    let archive = authority.client("main")?;
    let mut central = Central::start(
        &folder.join("central"),
        MODEL,
        &archive,
        &Broker::External(mosquitto.port),
    )?;
    let folder = folder.join("store");
    let log = PointOfSaleLog::start(&folder)?;
    let text = footprint::settings_text(&folder, mosquitto.port, identity, "10s", "60s")?;
    let mut agent = footprint::start_agent(&folder, &text, Command::new(program("tillwatch")?))?;
    std::thread::sleep(SETTLE);
    agent.check()?;
    let (before, begun) = (usage::written_bytes(agent.id())?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    agent.check()?;
    let written = usage::written_bytes(agent.id())? - before;
    let days = begun.elapsed().as_secs_f64() / DAY_S;
    ensure!(
        central.received()?.transactions > 0,
        "central received nothing\n{}",
        agent.log_end()
    );
    agent.kill()?;
    central.kill()?;
    mosquitto.kill()?;
    drop(log);
    Ok(written as f64 / 1e6 / days)
}

fn rss_kib(process: u32) -> Result<i64> {
    let mut readings = Vec::new();
    for _ in 0..READINGS {
        readings.push(usage::of(process)?.rss_kib);
        std::thread::sleep(Duration::from_millis(200));
    }
    readings.sort_unstable();
    Ok(i64::try_from(readings[READINGS / 2])?)
}

fn segments_bytes(folder: &Path) -> Result<u64> {
    let files = std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let sizes = files.map(|file| Ok(file?.metadata()?.len()));
    sizes.sum()
}

fn sleep_until(time: Instant) {
    std::thread::sleep(time.saturating_duration_since(Instant::now()));
}

fn wall_ms() -> Result<u64> {
    Ok(u64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis(),
    )?)
}

/// Appends sales at the pace of the fast clock.
struct FastLog(Arc<AtomicBool>);

impl FastLog {
    fn start(folder: &Path, start_ms: u64, speed: u64) -> Result<Self> {
        let mut file = File::create(folder.join("pos.jsonl"))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        std::thread::spawn(move || -> Result<()> {
            let (begun, mut number) = (Instant::now(), 0);
            while !flag.load(Ordering::Relaxed) {
                let elapsed_ms = u64::try_from(begun.elapsed().as_millis())? * speed;
                while number * SALE_EVERY_MS < elapsed_ms {
                    file.write_all(footprint::line_at(number, start_ms + number * SALE_EVERY_MS).as_bytes())?;
                    number += 1;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        Ok(Self(is_over))
    }
}

impl Drop for FastLog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
