//! What a store's day costs on the wire: every byte of both ways, the heads of TCP and IP with it.
//!
//! In: what the recording's core had learned. Out: bytes of a quiet minute and of a reconnect, and their day.
//! A real agent with the default settings, three plugins and the host's metrics goes on with it in real time, over TLS to
//! a real mosquitto, acknowledged by a real central. The proxy counts what TCP carries; packets are those that the
//! kernel says it sent and took for the agent's sockets (`ss -ti`), each with the heads of IPv4 and of TCP with time
//! stamps.

use std::collections::BTreeMap;
use std::fs::{File, create_dir_all};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tillwatch_agent::spool::{NewRecord, RecordKind, Spool, SpoolSettings};
use tillwatch_feed::codec::{decode, encode_body};
use tillwatch_feed::message::{Body, Message};
use tillwatch_feed::score::ScoreState;
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::client::Client;
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{Process, plugin_dir, program};
use tillwatch_tests::proxy::{Cut, Proxy};
use tillwatch_tests::story::timestamp;
use tillwatch_tests::torture::recorder;
use tokio::runtime::Runtime;

use super::recording::{LIVE_MS, Learned, QUEUES, READ_MS, Scribe, routes};
use crate::footprint::{MODEL, SITE};

/// IPv4 and TCP with its time stamps; the first of each direction have eight bytes more.
const PACKET_BYTES: u64 = 20 + 32;
/// Of a connection that nobody counts: both ends are told that it is over.
const CLOSING_PACKETS: u64 = 4;
const MINUTE: Duration = Duration::from_secs(60);
/// Plugins are compiled, everything is connected, and the first summaries are acknowledged.
const SETTLE: Duration = Duration::from_secs(90);
const RECONNECTS: u32 = 4;
const MINUTES_PER_DAY: f64 = 1_440.0;
const RECONNECTS_PER_DAY: f64 = 24.0;

#[derive(Serialize)]
pub(super) struct Day {
    mb_per_store_day: f64,
    /// How long a quiet connection was measured; then came as many minutes as reconnects.
    minutes: u32,
    reconnects: u32,
    bytes_per_minute: f64,
    packets_per_minute: f64,
    bytes_per_reconnect: f64,
    packets_per_reconnect: f64,
    /// Of one minute's blocks, and the scored rows of the last one.
    payload_bytes_per_minute: f64,
    rows: usize,
    scored_rows: usize,
}

/// A quiet connection for `minutes`, then a reconnect in each of a few more.
pub(super) fn measure(learned: &Learned, minutes: u32) -> Result<Day> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let server = authority.server()?;
    let mosquitto = Mosquitto::start_with(&place.path().join("mosquitto"), &server, recorder::RIGHTS)?;
    let (archive, broker) = (authority.client("main")?, Broker::External(mosquitto.port));
    let _central = Central::start(&place.path().join("central"), MODEL, &archive, &broker)?;
    let proxy = Proxy::start(mosquitto.port)?;
    let folder = place.path().join("store");
    let scribe = Scribing::start(&folder)?;
    go_on_from(&folder.join("state"), learned)?;
    let mut agent = start_agent(&folder, proxy.port, &authority.client(SITE)?)?;
    std::thread::sleep(SETTLE);
    agent.check()?;
    let listening = Listening::start(mosquitto.port, &authority.client(recorder::NAME)?)?;
    let mut meter = Meter::new(&proxy);
    let quiet = meter.run(MINUTE * minutes, |_second| {})?;
    let heard = listening.finish()?;
    let restless = meter.run(MINUTE * RECONNECTS, |second| {
        if second % 60 == 20 {
            proxy.cut(Cut::Reset);
        }
    })?;
    agent.check()?;
    agent.kill()?;
    drop(scribe);
    ensure!(
        heard.payloads >= minutes as usize - 1 && heard.scored_rows > 0,
        "{} blocks came, {} rows of the last are scored\n{}",
        heard.payloads,
        heard.scored_rows,
        agent.log_end()
    );
    ensure!(
        restless.connections >= u64::from(RECONNECTS),
        "{} connections",
        restless.connections
    );
    Ok(day(minutes, &quiet, &restless, &heard))
}

fn day(minutes: u32, quiet: &Counted, restless: &Counted, heard: &Heard) -> Day {
    let of_minute = |count: u64| count as f64 / f64::from(minutes);
    let of_reconnect = |count: u64, minute: f64| count as f64 / f64::from(RECONNECTS) - minute;
    let (bytes, packets) = (of_minute(quiet.bytes), of_minute(quiet.packets));
    let bytes_more = of_reconnect(restless.bytes, bytes);
    let packets_more = of_reconnect(restless.packets, packets) + CLOSING_PACKETS as f64;
    let all = |bytes: f64, packets: f64| bytes + packets * PACKET_BYTES as f64;
    let of_day = MINUTES_PER_DAY * all(bytes, packets) + RECONNECTS_PER_DAY * all(bytes_more, packets_more);
    Day {
        mb_per_store_day: of_day / 1e6,
        minutes,
        reconnects: RECONNECTS,
        bytes_per_minute: bytes,
        packets_per_minute: packets,
        bytes_per_reconnect: bytes_more,
        packets_per_reconnect: packets_more,
        payload_bytes_per_minute: of_minute(heard.bytes),
        rows: heard.rows,
        scored_rows: heard.scored_rows,
    }
}

/// The spool and the detectors' file of an agent that learned all this.
fn go_on_from(state: &Path, learned: &Learned) -> Result<()> {
    create_dir_all(state)?;
    let (mut spool, _) = Spool::open(&state.join("spool"), &SpoolSettings::default(), 1, LIVE_MS)?;
    let record = NewRecord {
        kind: RecordKind::Birth,
        schema: learned.birth.schema,
        payload: encode_body(&Body::Birth(learned.birth.clone())),
    };
    for id in spool.append(&[record], &learned.checkpoint, LIVE_MS)? {
        spool.release(id);
    }
    let mut detectors = crc32c::crc32c(&learned.detectors).to_le_bytes().to_vec();
    detectors.extend(&learned.detectors);
    Ok(std::fs::write(state.join("detectors"), detectors)?)
}

fn start_agent(folder: &Path, port: u16, identity: &Identity) -> Result<Process> {
    let settings = folder.join("agent.toml");
    std::fs::write(&settings, settings_text(folder, port, identity)?)?;
    let mut command = Command::new(program("tillwatch")?);
    let clock = format!("{}@1", timestamp(LIVE_MS));
    command.args(["run", "--clock", &clock, "--config"]).arg(&settings);
    Process::start("tillwatch", &mut command, &folder.join("agent.log"))
}

/// Defaults all through, but that a lost connection is taken up at once, and not within a minute.
fn settings_text(folder: &Path, port: u16, identity: &Identity) -> Result<String> {
    let routes: Vec<String> = routes()
        .map(|route| format!("{{ exact = \"{route}\", route = \"{route}\" }}"))
        .collect();
    let plugin = |name: &str, source: &str, settings: &str| {
        let file = folder.join(source);
        format!(
            "\n[[plugin]]\nname = \"{name}\"\n[plugin.sources.{source}]\nfile = \"{}\"\n[plugin.settings]\n{settings}\n",
            file.display()
        )
    };
    Ok(format!(
        "site = \"{SITE}\"\ntime_zone = \"UTC\"\nstate_dir = \"{}/state\"\nplugin_dir = \"{}\"\n\n[broker]\n\
         url = \"mqtts://127.0.0.1:{port}\"\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
         reconnect_within = \"1s\"\n{}{}{}",
        folder.display(),
        plugin_dir()?.display(),
        identity.ca.display(),
        identity.certificate.display(),
        identity.key.display(),
        plugin(
            "pos-latency",
            "access_log",
            &format!("routes = [{}]", routes.join(", "))
        ),
        plugin(
            "queue-depth",
            "events",
            &format!("queues = {QUEUES:?}\nfield_oldest_age = \"oldest\"")
        ),
        plugin("sales", "lines", ""),
    ))
}

/// What happened in the store, written in real time.
struct Scribing(Arc<AtomicBool>);

impl Scribing {
    fn start(folder: &Path) -> Result<Self> {
        create_dir_all(folder)?;
        let file = |name: &str| File::create(folder.join(name));
        let (mut requests, mut sales, mut readings) = (file("access_log")?, file("lines")?, file("events")?);
        let mut scribe = Scribe::new(super::SEED + 1)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (flag, begun) = (Arc::clone(&is_over), Instant::now());
        std::thread::spawn(move || -> Result<()> {
            let mut told_ms = 0;
            while !flag.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                while u128::from(told_ms + READ_MS) <= begun.elapsed().as_millis() {
                    let written = scribe.write(LIVE_MS + told_ms)?;
                    requests.write_all(written.requests.as_bytes())?;
                    sales.write_all(written.sales.as_bytes())?;
                    readings.write_all(written.readings.as_bytes())?;
                    told_ms += READ_MS;
                }
            }
            Ok(())
        });
        Ok(Self(is_over))
    }
}

impl Drop for Scribing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The blocks that came, heard at the broker.
#[derive(Default)]
struct Heard {
    payloads: usize,
    bytes: u64,
    rows: usize,
    scored_rows: usize,
}

struct Listening {
    runtime: Runtime,
    client: Client,
}

impl Listening {
    fn start(port: u16, identity: &Identity) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = runtime.block_on(Client::connect(port, recorder::NAME, identity))?;
        runtime.block_on(client.subscribe("tw1/+/+/sum"))?;
        Ok(Self { runtime, client })
    }

    /// What waits was kept: fewer than the client's channel holds.
    fn finish(mut self) -> Result<Heard> {
        let _entered = self.runtime.enter();
        let mut heard = Heard::default();
        while let Ok((_topic, payload)) = self.client.arrived.try_recv() {
            let message: Message = decode(&payload)?;
            heard.payloads += 1;
            heard.bytes += payload.len() as u64;
            if let Body::Block(block) = message.body {
                let rows = || block.intervals.iter().flat_map(|interval| &interval.rows);
                heard.rows = rows().count();
                heard.scored_rows = rows()
                    .filter(|row| row.score.is_some_and(|score| score.state != ScoreState::Warming))
                    .count();
            }
        }
        Ok(heard)
    }
}

#[derive(Clone, Copy, Default)]
struct Counted {
    bytes: u64,
    packets: u64,
    connections: u64,
}

/// Counts what the agent's sockets carry.
struct Meter<'a> {
    proxy: &'a Proxy,
    /// Packets of both ways, by the port of the agent's socket.
    sockets: BTreeMap<String, u64>,
}

impl<'a> Meter<'a> {
    fn new(proxy: &'a Proxy) -> Self {
        Self {
            proxy,
            sockets: BTreeMap::new(),
        }
    }

    /// Looks each second, as a socket's count ends with it.
    fn run(&mut self, time: Duration, mut each_second: impl FnMut(u64)) -> Result<Counted> {
        let (begun, before) = (Instant::now(), self.now()?);
        let mut second = 0;
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_secs(second + 1).saturating_sub(begun.elapsed()));
            second += 1;
            self.look()?;
            each_second(second);
        }
        let after = self.now()?;
        Ok(Counted {
            bytes: after.bytes - before.bytes,
            packets: after.packets - before.packets,
            connections: after.connections - before.connections,
        })
    }

    fn now(&mut self) -> Result<Counted> {
        self.look()?;
        Ok(Counted {
            bytes: self.proxy.bytes(),
            packets: self.sockets.values().sum(),
            connections: self.sockets.len() as u64,
        })
    }

    fn look(&mut self) -> Result<()> {
        let to = format!("dport = :{}", self.proxy.port);
        let output = Command::new("ss").args(["-tinHO", &to]).output();
        let output = output.context("starting ss\nhint: sudo apt-get install -y iproute2")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let socket = line.split_whitespace().nth(3).context("a socket's address")?;
            let packets = count(line, "segs_out:") + count(line, "segs_in:");
            self.sockets.insert(socket.to_owned(), packets);
        }
        Ok(())
    }
}

/// 0 when nothing came yet.
fn count(line: &str, name: &str) -> u64 {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.parse().ok())
        .unwrap_or(0)
}
