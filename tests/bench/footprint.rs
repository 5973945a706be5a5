//! What one agent costs a store server.
//!
//! Three plugins and the host's own metrics on one log of a point of sale with 100 JSON lines a second, over TLS to a real
//! mosquitto, acknowledged by a real central. Sums run over the agent and all its children.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{Process, plugin_dir, program, wait_until};
use tillwatch_tests::proxy::Proxy;
use tillwatch_tests::story::timestamp;
use tillwatch_tests::usage;

pub(crate) const SITE: &str = "store-0412";
const LINES_PER_SECOND: u64 = 100;
/// Compiling the plugins and connecting are over by then.
const SETTLE: Duration = Duration::from_secs(15);
/// The part of the lines that must have arrived at the end: the last summary is not due yet.
const DELIVERED_MIN: f64 = 0.6;
pub(crate) const MODEL: &str = "[[region]]\nid = \"north\"\nname = \"North\"\n\n[[site]]\nid = \"store-0412\"\nregion = \"north\"\ntime_zone = \"UTC\"\n";

#[derive(Serialize)]
struct Report {
    tillwatch: Footprint,
}

#[derive(Serialize)]
struct Footprint {
    binary_bytes: u64,
    rss_kib: u64,
    pss_kib: u64,
    cpu_s_per_min: f64,
    wire_bytes_per_min: f64,
    first_summary_s: f64,
}

/// Measures and prints.
pub(crate) fn run(json: bool, seconds: u64) -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mut mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let archive = authority.client("main")?;
    let mut central = Central::start(
        &place.path().join("central"),
        MODEL,
        &archive,
        &Broker::External(mosquitto.port),
    )?;
    let identity = authority.client(SITE)?;
    let first_summary_s = first_summary(&place.path().join("quick"), mosquitto.port, &identity, &central)?;
    let time = Duration::from_secs(seconds);
    let measured = measure(&place.path().join("steady"), mosquitto.port, &identity, &central, time)?;
    let report = Report {
        tillwatch: Footprint {
            binary_bytes: binary_bytes()?,
            first_summary_s,
            ..measured
        },
    };
    central.kill()?;
    mosquitto.kill()?;
    print(&report, json)
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let found = &report.tillwatch;
    println!(
        "{:<22} {:>12}",
        "installed programs",
        format!("{:.2} MB", found.binary_bytes as f64 / 1e6)
    );
    println!(
        "{:<22} {:>12}",
        "resident memory",
        format!("{:.2} MB", found.rss_kib as f64 / 1024.0)
    );
    println!(
        "{:<22} {:>12}",
        "proportional memory",
        format!("{:.2} MB", found.pss_kib as f64 / 1024.0)
    );
    println!(
        "{:<22} {:>12}",
        "processor",
        format!("{:.3} s/min", found.cpu_s_per_min)
    );
    println!(
        "{:<22} {:>12}",
        "wire, both ways",
        format!("{:.0} B/min", found.wire_bytes_per_min)
    );
    println!(
        "{:<22} {:>12}",
        "first summary",
        format!("{:.1} s", found.first_summary_s)
    );
    Ok(())
}

fn binary_bytes() -> Result<u64> {
    ["tillwatch", "tillwatch-sandbox", "tillwatch-compile"]
        .iter()
        .try_fold(0, |sum, name| Ok(sum + std::fs::metadata(program(name)?)?.len()))
}

/// Seconds from the agent's first start, plugins not yet compiled, to its first summary at central, with a short interval.
fn first_summary(folder: &Path, port: u16, identity: &Identity, central: &Central) -> Result<f64> {
    let log = PointOfSaleLog::start(folder)?;
    let begun = Instant::now();
    let text = settings_text(folder, port, identity, "1s", "2s")?;
    let mut agent = start_agent(folder, &text, Command::new(program("tillwatch")?))?;
    wait_until("central has a summary", Duration::from_secs(60), || {
        agent.check()?;
        let sites = central.get("/api/v1/sites")?;
        Ok(sites["sites"]
            .as_array()
            .is_some_and(|sites| sites.iter().any(|site| site["last_ms"].is_u64())))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    agent.kill()?;
    drop(log);
    Ok(seconds)
}

fn measure(folder: &Path, port: u16, identity: &Identity, central: &Central, time: Duration) -> Result<Footprint> {
    let proxy = Proxy::start(port)?;
    let log = PointOfSaleLog::start(folder)?;
    let text = settings_text(folder, proxy.port, identity, "10s", "60s")?;
    let mut agent = start_agent(folder, &text, Command::new(program("tillwatch")?))?;
    std::thread::sleep(SETTLE);
    agent.check()?;
    let sold = central.received()?.transactions;
    let (before, bytes, begun) = (usage::of(agent.id())?, proxy.bytes(), Instant::now());
    let (mut rss_kib, mut pss_kib) = (0, 0);
    while begun.elapsed() < time {
        std::thread::sleep(Duration::from_secs(1).min(time.saturating_sub(begun.elapsed())));
        let now = usage::of(agent.id())?;
        (rss_kib, pss_kib) = (rss_kib.max(now.rss_kib), pss_kib.max(now.pss_kib));
    }
    agent.check()?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let after = usage::of(agent.id())?;
    drop(log);
    let sold = (central.received()?.transactions - sold) as f64;
    ensure!(
        sold >= time.as_secs_f64() * LINES_PER_SECOND as f64 * DELIVERED_MIN,
        "central received {sold} transactions only: the figures are of an agent that does not work\n{}",
        agent.log_end()
    );
    Ok(Footprint {
        binary_bytes: 0,
        rss_kib,
        pss_kib,
        cpu_s_per_min: (after.cpu_s - before.cpu_s) / minutes,
        wire_bytes_per_min: (proxy.bytes() - bytes) as f64 / minutes,
        first_summary_s: 0.0,
    })
}

pub(crate) fn start_agent(folder: &Path, text: &str, mut command: Command) -> Result<Process> {
    let settings = folder.join("agent.toml");
    std::fs::write(&settings, text)?;
    command.arg("run").arg("--config").arg(&settings);
    Process::start("tillwatch", &mut command, &folder.join("agent.log"))
}

/// With the three shipped plugins.
pub(crate) fn settings_text(
    folder: &Path,
    port: u16,
    identity: &Identity,
    window: &str,
    summary: &str,
) -> Result<String> {
    let plugins = plugin_dir()?;
    let log = folder.join("pos.jsonl");
    let plugin = |name: &str, source: &str, settings: &str| {
        format!(
            "\n[[plugin]]\nname = \"{name}\"\ninterval = \"{window}\"\n[plugin.sources.{source}]\nfile = \"{}\"\n[plugin.settings]\n{settings}\n",
            log.display()
        )
    };
    Ok(format!(
        "site = \"{SITE}\"\ntime_zone = \"UTC\"\nstate_dir = \"{}/state\"\nplugin_dir = \"{}\"\nwindow = \"{window}\"\nsummary = \"{summary}\"\n\n\
         [broker]\nurl = \"mqtts://127.0.0.1:{port}\"\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n{}{}{}",
        folder.display(),
        plugins.display(),
        identity.ca.display(),
        identity.certificate.display(),
        identity.key.display(),
        plugin(
            "pos-latency",
            "access_log",
            "format = \"json\"\nfield_latency = \"latency\"\nother_route = \"/checkout\""
        ),
        plugin(
            "queue-depth",
            "events",
            "queue = \"mainframe\"\nfield_queue = \"\"\nfield_depth = \"queue\""
        ),
        plugin(
            "sales",
            "lines",
            "currency = \"EUR\"\nfield_time = \"time\"\nfield_total = \"total\"\nfield_items = \"items\"\nfield_tender = \"tender\""
        ),
    ))
}

/// A thread that appends to a log as a point of sale would.
pub(crate) struct PointOfSaleLog {
    is_over: Arc<AtomicBool>,
    writer: Option<JoinHandle<std::io::Result<()>>>,
}

impl PointOfSaleLog {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = File::create(folder.join("pos.jsonl"))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = is_over.clone();
        let writer = std::thread::spawn(move || write_lines(file, &flag));
        Ok(Self {
            is_over,
            writer: Some(writer),
        })
    }
}

impl Drop for PointOfSaleLog {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.writer.take().map(JoinHandle::join) {
            eprintln!("the log could not be written: {error}");
        }
    }
}

fn write_lines(mut file: File, is_over: &AtomicBool) -> std::io::Result<()> {
    let begun = Instant::now();
    let mut written = 0;
    while !is_over.load(Ordering::Relaxed) {
        let due = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) * LINES_PER_SECOND / 1000;
        let mut text = String::new();
        for number in written..due {
            text += &line(number);
        }
        written = due;
        file.write_all(text.as_bytes())?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// 133 or 134 bytes.
fn line(number: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    line_at(number, u64::try_from(now.as_millis()).unwrap_or(0))
}

pub(crate) fn line_at(number: u64, time_ms: u64) -> String {
    let time = timestamp(time_ms).strftime("%Y-%m-%dT%H:%M:%SZ");
    format!(
        "{{\"time\":\"{time}\",\"store\":\"412\",\"lane\":{},\"txn\":{},\"items\":{},\"total\":{}.{:02},\"latency\":0.{:03},\"queue\":{},\"tender\":\"{}\"}}\n",
        number % 6 + 1,
        number % 900_000 + 100_000,
        number % 9 + 1,
        number * 7 % 90 + 10,
        number * 13 % 100,
        number * 37 % 400 + 80,
        number % 5,
        if number.is_multiple_of(3) { "cash" } else { "card" },
    )
}
