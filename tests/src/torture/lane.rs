//! One lane: a store, a broker and a central with files of their own, a naive store beside ours, and faults one after the
//! other.
//!
//! In: the schedule. Out: a history of everything that they wrote, and what was counted. Each fault waits until something
//! is in flight: kept by the spool, not acknowledged, and on its way.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tillwatch_central::archive::{self, Archive as _};
use tillwatch_central::receive::PAST_ROLES;
use tillwatch_feed::codec::decode;
use tillwatch_feed::message::{Birth, Body, RecordId};
use tillwatch_feed::ranges::RangeSet;
use tokio::runtime::Handle;

use super::disk::SmallDisk;
use super::history::{self, History, Kept, Kind, Lost, Values, Verdict};
use super::naive;
use super::producer::{Producer, ROUTES};
use super::recorder::{self, Recorder};
use super::schedule::{End, Fault, LinkFault, Part, Strike, strike};
use super::segments::{self, SpoolReader};
use crate::agent::Agent;
use crate::central::{Broker, Central, Sold};
use crate::mosquitto::Mosquitto;
use crate::pki::{Authority, Identity};
use crate::process::{Process, plugin_dir, program};
use crate::proxy::{Cut, Flow, Link, Proxy};

const SITE: &str = "store-0412";
const MODEL: &str = "[[region]]\nid = \"north\"\nname = \"North\"\n\n\
                     [[site]]\nid = \"store-0412\"\nregion = \"north\"\ntime_zone = \"UTC\"\n";
const SUMMARY_MS: u64 = 250;
/// Both links in peace.
const CALM: Link = Link {
    delay: Duration::from_millis(15),
    bytes_per_second: None,
    up: Flow::Forwarded,
    down: Flow::Forwarded,
};
const DELAYED: Duration = Duration::from_millis(400);
const SLOW_BYTES_PER_SECOND: u32 = 4_000;
const AGENT_DISK_MIB: u32 = 16;
const CENTRAL_DISK_MIB: u32 = 96;
const LOOK: Duration = Duration::from_millis(5);
/// Reconnecting, doubled retries of both sides, a full disk.
const SENDING_PATIENCE: Duration = Duration::from_secs(120);
/// What an archive lost is sent again within a minute, and what is not acknowledged after one or two.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(300);
/// Of central and of what has just been published.
const NAIVE_PATIENCE: Duration = Duration::from_secs(3);

/// Why central writes off what no gap record stands for.
const LOST_AT_THE_CENTER: &str = "lost at the center";
/// One lane in so many measures so much that its spool overflows while nothing can be sent.
const CRAMPED_LANES: u32 = 3;
/// In such a lane, each with its routes.
const LATENCY_PLUGINS: u32 = 4;

/// What a lane counted besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub cycles: u64,
    pub kills: u64,
    pub disks_filled: u64,
    pub wire_copies: u64,
    pub wire_resent: u64,
    pub wire_duplicates: u64,
    pub naive_made: u64,
    pub naive_lost: u64,
}

/// The spool's reader in a thread of its own.
struct Watch {
    reader: Arc<Mutex<SpoolReader>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// See the module.
pub struct Lane {
    number: u32,
    seed: u64,
    place: PathBuf,
    counts: Counts,
    mosquitto: Mosquitto,
    agent_link: Proxy,
    central_link: Proxy,
    central: Central,
    agent: Agent,
    naive: Naive,
    producer: Producer,
    watch: Watch,
    recorder: Recorder,
    /// Last, as everything that writes to them must be gone before.
    agent_disk: Option<SmallDisk>,
    central_disk: Option<SmallDisk>,
}

impl Lane {
    /// Starts everything in a folder of its own.
    ///
    /// # Errors
    /// When a program does not start.
    pub fn start(place: &Path, number: u32, seed: u64, runtime: &Handle) -> Result<Self> {
        let certificates = place.join("pki");
        let authority = Authority::new(&certificates)?;
        let mosquitto = Mosquitto::start_with(&place.join("mosquitto"), &authority.server()?, recorder::RIGHTS)?;
        let agent_link = Proxy::start_with(mosquitto.port, CALM)?;
        let central_link = Proxy::start_with(mosquitto.port, CALM)?;
        let (state, storage) = (place.join("state"), place.join("storage"));
        let agent_disk = SmallDisk::mount(&state, AGENT_DISK_MIB)?;
        let central_disk = SmallDisk::mount(&storage, CENTRAL_DISK_MIB)?;
        let recorder = Recorder::start(runtime, mosquitto.port, authority.client(recorder::NAME)?, SITE);
        let (archive, broker) = (authority.client("main")?, Broker::External(central_link.port));
        let central = Central::start_with_storage(&place.join("central"), &storage, MODEL, &archive, &broker)?;
        let sales = place.join("sales.jsonl");
        let is_cramped = number % CRAMPED_LANES == CRAMPED_LANES - 1;
        let producer = Producer::start(&sales, SUMMARY_MS, seed, is_cramped)?;
        let text = settings_text(&state, agent_link.port, &authority.client(SITE)?, &sales, is_cramped)?;
        let agent = Agent::start(place, &text)?;
        authority.client(naive::SITE)?;
        let naive = Naive::start(place, agent_link.port, certificates)?;
        let watch = Watch::start(&state.join("spool"));
        Ok(Self {
            number,
            seed,
            place: place.to_owned(),
            counts: Counts::default(),
            mosquitto,
            agent_link,
            central_link,
            central,
            agent,
            naive,
            producer,
            watch,
            recorder,
            agent_disk,
            central_disk,
        })
    }

    /// Can disks be filled here?
    pub fn has_disks(&self) -> bool {
        self.agent_disk.is_some() && self.central_disk.is_some()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// One fault while something is in flight.
    ///
    /// # Errors
    /// When a part ended by itself, or nothing is sent any more.
    pub fn cycle(&mut self, cycle: u64) -> Result<()> {
        let strike = strike(self.seed, self.number, cycle, self.has_disks());
        self.wait_for_flight(strike.is_eager)
            .with_context(|| format!("before {strike:?}"))?;
        std::thread::sleep(strike.after);
        self.strike(&strike).with_context(|| format!("{strike:?}"))?;
        self.counts.cycles += 1;
        Ok(())
    }

    /// Until a record was kept that nobody acknowledged, on a connection over which records are sent.
    fn wait_for_flight(&mut self, is_eager: bool) -> Result<()> {
        let messages = self.recorder.heard().messages;
        let mut since = None;
        let begun = Instant::now();
        while begun.elapsed() < SENDING_PATIENCE {
            let newest = self.watch.newest()?;
            let heard = self.recorder.heard();
            let is_sending = heard.messages > messages;
            let in_flight = newest.filter(|id| !heard.is_acked(*id));
            drop(heard);
            if is_sending && since.is_none() {
                since = Some(newest);
            }
            let is_due = is_eager || since.is_some_and(|since| in_flight != since);
            if is_sending && is_due && in_flight.is_some() {
                return Ok(());
            }
            self.check()?;
            std::thread::sleep(LOOK);
        }
        bail!(
            "nothing was sent for {SENDING_PATIENCE:?}; the agent's log ends\n{}",
            self.agent.log_end()
        )
    }

    fn strike(&mut self, strike: &Strike) -> Result<()> {
        match strike.fault {
            Fault::Kill(part) => self.kill(&[part], strike.pause),
            Fault::KillBoth(first, second) => self.kill(&[first, second], strike.pause),
            Fault::Link(end, fault, part) => self.harm_link(end, fault, part, strike.pause),
            Fault::DiskFull(end) => self.fill(end, strike.pause),
        }
    }

    fn kill(&mut self, parts: &[Part], pause: Duration) -> Result<()> {
        for part in parts {
            self.counts.kills += 1;
            match part {
                Part::Agent => {
                    self.agent.kill()?;
                    self.naive.kill()?;
                }
                Part::Broker => self.mosquitto.kill()?,
                Part::Central => self.central.kill()?,
            }
        }
        std::thread::sleep(pause);
        if parts.contains(&Part::Broker) {
            self.mosquitto.restart()?;
        }
        if parts.contains(&Part::Central) {
            self.central.restart()?;
        }
        if parts.contains(&Part::Agent) {
            self.agent.restart()?;
            self.naive.restart()?;
        }
        Ok(())
    }

    fn harm_link(&mut self, end: End, fault: LinkFault, part: Option<Part>, pause: Duration) -> Result<()> {
        begin(self.link(end), fault);
        match part {
            Some(part) => self.kill(&[part], pause)?,
            None => std::thread::sleep(pause),
        }
        let link = self.link(end);
        if matches!(fault, LinkFault::UpBlackhole | LinkFault::DownBlackhole) {
            link.cut(Cut::Reset);
        }
        link.set(CALM);
        link.heal();
        Ok(())
    }

    fn link(&self, end: End) -> &Proxy {
        match end {
            End::Agent => &self.agent_link,
            End::Central => &self.central_link,
        }
    }

    fn fill(&mut self, end: End, pause: Duration) -> Result<()> {
        let disk = match end {
            End::Agent => &self.agent_disk,
            End::Central => &self.central_disk,
        };
        let disk = disk.as_ref().context("no disk to fill")?;
        self.counts.disks_filled += 1;
        disk.fill()?;
        // At least one interval must find no room.
        std::thread::sleep(pause + Duration::from_secs(1));
        disk.free()
    }

    /// Lets everything arrive and holds what was written against each other.
    ///
    /// # Errors
    /// When a part ended by itself; what did not arrive in time is in the verdict.
    pub fn settle(&mut self, is_restarting: bool) -> Result<Verdict> {
        self.producer.pause(true);
        if is_restarting {
            // A new connection does not wait for its turn after an archive that began anew.
            self.kill(&[Part::Agent], Duration::ZERO)?;
        }
        let begun = Instant::now();
        let mut verdict = self.verdict()?;
        while !verdict.broken.is_empty() && begun.elapsed() < ARRIVAL_PATIENCE {
            self.check()?;
            std::thread::sleep(Duration::from_millis(250));
            verdict = self.verdict()?;
        }
        self.count_naive()?;
        self.count_copies()?;
        self.producer.pause(false);
        Ok(verdict)
    }

    fn verdict(&self) -> Result<Verdict> {
        self.watch.check()?;
        Ok(history::check(&self.history()?))
    }

    /// A copy that came after its record was archived was sent in vain; one before was lost on the way, or with central.
    fn count_copies(&mut self) -> Result<()> {
        let archived_ms = archived_ms(&self.central)?;
        let heard = self.recorder.heard();
        let (mut all, mut in_vain) = (0, 0);
        for (id, copies) in &heard.copies {
            let since = archived_ms.get(id).copied().unwrap_or(u64::MAX);
            all += copies.len() as u64;
            in_vain += copies.iter().filter(|came_ms| **came_ms > since).count() as u64;
        }
        self.counts.wire_copies = all;
        self.counts.wire_resent = all - heard.copies.len() as u64;
        self.counts.wire_duplicates = in_vain;
        Ok(())
    }

    /// Nothing more is made, and what was published has its time to arrive.
    fn count_naive(&mut self) -> Result<()> {
        self.naive.kill()?;
        let made = self.naive.made()?;
        let begun = Instant::now();
        let mut received = self.naive_received()?;
        while received < made && begun.elapsed() < NAIVE_PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            received = self.naive_received()?;
        }
        ensure!(
            received <= made,
            "central has {received} records of {made} that the naive store made"
        );
        (self.counts.naive_made, self.counts.naive_lost) = (made, made - received);
        self.naive.restart()
    }

    fn naive_received(&self) -> Result<u64> {
        let archive = archive::open_to_read(&self.central.archive_path())?;
        let marks = archive.marks(archive::GENERATIONS_PER_SITE_MAX)?;
        let naive = marks.iter().filter(|mark| mark.site.as_str() == naive::SITE);
        Ok(naive.map(|mark| mark.received).sum())
    }

    fn history(&self) -> Result<History> {
        let produced = self.producer.values();
        let kept = self.watch.reader().kept.clone();
        let mut history = archived(&self.central, kept)?;
        let heard = self.recorder.heard();
        history.acks.clone_from(&heard.acks);
        history.produced = produced;
        Ok(history)
    }

    fn check(&mut self) -> Result<()> {
        self.central.check()?;
        self.agent.check()?;
        self.producer.check()?;
        self.watch.check()
    }

    /// Keeps what is on the disks that vanish with this lane.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn save(&mut self) -> Result<()> {
        self.agent.kill()?;
        self.central.kill()?;
        for (disk, name) in [(&self.agent_disk, "state.saved"), (&self.central_disk, "storage.saved")] {
            if let Some(disk) = disk {
                disk.save(&self.place.join(name))?;
            }
        }
        Ok(())
    }
}

fn begin(link: &Proxy, fault: LinkFault) {
    let with = |harm: fn(&mut Link)| {
        let mut harmed = CALM;
        harm(&mut harmed);
        link.set(harmed);
    };
    match fault {
        LinkFault::Reset => link.cut(Cut::Reset),
        LinkFault::HalfClose => link.cut(Cut::HalfClose),
        LinkFault::ClientHalfOpen => link.cut(Cut::ClientHalfOpen),
        LinkFault::ServerHalfOpen => link.cut(Cut::ServerHalfOpen),
        LinkFault::Partition => with(|link| (link.up, link.down) = (Flow::Held, Flow::Held)),
        LinkFault::UpBlackhole => with(|link| link.up = Flow::Swallowed),
        LinkFault::DownBlackhole => with(|link| link.down = Flow::Swallowed),
        LinkFault::Delay => with(|link| link.delay = DELAYED),
        LinkFault::Slow => with(|link| link.bytes_per_second = Some(SLOW_BYTES_PER_SECOND)),
    }
}

/// What the archive holds of the store.
fn archived(central: &Central, kept: BTreeMap<RecordId, Kept>) -> Result<History> {
    let archive = archive::open_to_read(&central.archive_path())?;
    let mut history = History {
        kept,
        ..History::default()
    };
    let site = SITE.parse()?;
    for kept in history.kept.values().filter(|kept| kept.kind == Kind::Birth) {
        if archive.birth(&site, kept.schema)?.is_some() {
            history.births.insert(kept.schema);
        }
    }
    let mut stored = Vec::new();
    archive.payloads_since(0, &mut |found| {
        if found.payload.site.as_str() == SITE {
            stored.push(found.payload);
        }
    })?;
    let mut births = BTreeMap::new();
    for payload in stored {
        history.archived.extend(records(&archive, &mut births, &payload)?);
    }
    let lost = archive.lost()?.into_iter().filter(|lost| lost.site.as_str() == SITE);
    history.lost = lost
        .map(|lost| Lost {
            generation: lost.generation,
            seq_first: lost.seq_first,
            seq_last: lost.seq_last,
            is_told: lost.reason != LOST_AT_THE_CENTER,
        })
        .collect();
    history.reckoned = reckoned(&archive)?;
    Ok(history)
}

fn birth_of(archive: &impl archive::Archive, payload: &archive::Payload, schema: u64) -> Result<Birth> {
    let bytes = archive.birth(&payload.site, schema)?;
    match decode(&bytes.context("a block without its birth")?)?.body {
        Body::Birth(birth) => Ok(birth),
        _ => bail!("a birth that is none"),
    }
}

/// The fresh records of a payload, each with what it says of the numbered sales.
fn records(
    archive: &impl archive::Archive,
    births: &mut BTreeMap<u64, Birth>,
    payload: &archive::Payload,
) -> Result<Vec<(RecordId, Values)>> {
    let message = decode(&payload.bytes).context("a payload of the archive")?;
    let generation = message.generation;
    let fresh: RangeSet = payload.fresh.iter().copied().collect();
    let Body::Block(block) = message.body else {
        let seq = message.seq_first;
        return Ok(vec![(RecordId { generation, seq }, Values::new())]);
    };
    let birth = match births.entry(block.schema) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => place.insert(birth_of(archive, payload, block.schema)?),
    };
    let mut records = Vec::new();
    let mut intervals = block.intervals.as_slice();
    for (seq, count) in (message.seq_first..).zip(&block.records) {
        let parts = intervals.split_at_checked(usize::try_from(*count)?);
        let (mine, rest) = parts.context("a block without its intervals")?;
        intervals = rest;
        if fresh.contains(seq) {
            records.push((RecordId { generation, seq }, segments::sold(birth, mine)));
        }
    }
    Ok(records)
}

/// When each record of the store was archived.
fn archived_ms(central: &Central) -> Result<BTreeMap<RecordId, u64>> {
    let archive = archive::open_to_read(&central.archive_path())?;
    let mut archived = BTreeMap::new();
    archive.payloads_since(0, &mut |stored| {
        let payload = stored.payload;
        let generation = payload.generation;
        let seqs = payload.fresh.iter().flat_map(|(first, last)| *first..=*last);
        archived.extend(seqs.map(|seq| (RecordId { generation, seq }, payload.arrived_ms)));
    })?;
    Ok(archived)
}

fn reckoned(archive: &impl archive::Archive) -> Result<Sold> {
    let mut sold = Sold::default();
    archive.rollups(
        PAST_ROLES,
        0..u64::MAX / 2,
        &mut |rollup| match rollup.series.role.as_str() {
            "sales.count" => sold.transactions += rollup.sum,
            _ => sold.amount_minor += rollup.sum,
        },
    )?;
    Ok(sold)
}

impl Watch {
    fn start(spool: &Path) -> Self {
        let reader = Arc::new(Mutex::new(SpoolReader::new(spool)));
        let is_over = Arc::new(AtomicBool::new(false));
        let (read, over) = (Arc::clone(&reader), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                lock(&read).read()?;
                std::thread::sleep(LOOK);
            }
            Ok(())
        });
        Self {
            reader,
            is_over,
            thread: Some(thread),
        }
    }

    fn reader(&self) -> MutexGuard<'_, SpoolReader> {
        lock(&self.reader)
    }

    /// The record that was kept last.
    fn newest(&self) -> Result<Option<RecordId>> {
        self.check()?;
        Ok(self.reader().newest)
    }

    fn check(&self) -> Result<()> {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        ensure!(!ended, "a record of the spool is not what it was, or cannot be read");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the reader of the spool ended: {error:#}");
        }
    }
}

fn lock(reader: &Mutex<SpoolReader>) -> MutexGuard<'_, SpoolReader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The naive store's process.
struct Naive {
    port: u16,
    place: PathBuf,
    certificates: PathBuf,
    process: Option<Process>,
}

impl Naive {
    fn start(place: &Path, port: u16, certificates: PathBuf) -> Result<Self> {
        let mut naive = Self {
            port,
            place: place.to_owned(),
            certificates,
            process: None,
        };
        naive.restart()?;
        Ok(naive)
    }

    fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(program("tillwatch-torture")?);
        command
            .arg("naive-store")
            .arg(self.port.to_string())
            .arg(&self.certificates)
            .arg(self.made_file());
        self.process = Some(Process::start(
            "the naive store",
            &mut command,
            &self.place.join("naive.log"),
        )?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    fn made(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.made_file()).map_or(0, |file| file.len()))
    }

    fn made_file(&self) -> PathBuf {
        self.place.join("naive.made")
    }
}

fn settings_text(state: &Path, port: u16, identity: &Identity, sales: &Path, is_cramped: bool) -> Result<String> {
    let more = if is_cramped {
        latency_plugins(sales)
    } else {
        String::new()
    };
    Ok(format!(
        r#"site = "{SITE}"
time_zone = "UTC"
state_dir = "{state}"
plugin_dir = "{plugins}"
window = "{SUMMARY_MS}ms"
summary = "{SUMMARY_MS}ms"

[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
certificate = "{certificate}"
key = "{key}"
reconnect_within = "100ms"

[spool]
bytes_max = "1MiB"

[system]
enabled = false

[[plugin]]
name = "sales"
use = "sales"
interval = "1s"
# What is tortured is delivery: a call that waits for a processor is no fault of the plugin's.
[plugin.sources.lines]
file = "{sales}"
{more}"#,
        state = state.display(),
        plugins = plugin_dir()?.display(),
        ca = identity.ca.display(),
        certificate = identity.certificate.display(),
        key = identity.key.display(),
        sales = sales.display(),
    ))
}

fn latency_plugins(log: &Path) -> String {
    let routes: Vec<String> = (0..ROUTES)
        .map(|route| format!("{{ exact = \"/r{route}\", route = \"/r{route}\" }}"))
        .collect();
    let plugin = |number| {
        format!(
            r#"
[[plugin]]
name = "latency-{number}"
use = "pos-latency"
interval = "1s"
[plugin.sources.access_log]
file = "{log}"
[plugin.settings]
format = "json"
field_route = "path"
routes = [{routes}]
"#,
            log = log.display(),
            routes = routes.join(", "),
        )
    };
    (0..LATENCY_PLUGINS).map(plugin).collect()
}
