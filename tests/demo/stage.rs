//! The stage: certificates, central with its broker, three real agents with their files, and the simulated stores.
//!
//! A stage can be forked after history: the copy starts from the same disks with another chain.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tillwatch_agent::clock::Clock;
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::fleet::{self, FleetSettings, SimulatedStore};
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{Process, plugin_dir, program, wait_until};
use tillwatch_tests::real_store::RealStore;
use tillwatch_tests::story::{Chain, MINUTE_MS, Store, timestamp};

use crate::verdict::{Told, told};
use crate::watch::Watch;

/// The stores that are real agents: two where the fault hits, one elsewhere.
const REAL: [&str; 3] = ["north-01", "north-02", "south-01"];
/// Story time between two writes of the real stores' files.
const SLICE_MS: u64 = 5_000;
/// The access logs rotate so often while the story is live.
const ROTATE_MINUTES: u64 = 20;
/// How long central may take to reckon what it was sent last.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) chain: Arc<Chain>,
    folder: TempDir,
    authority: Arc<Authority>,
    /// Of the certificates: forks share it.
    pki: Arc<TempDir>,
    central: Central,
    real: Vec<RealStore>,
    simulated: Vec<SimulatedStore>,
    agents: Vec<Process>,
    /// Ids of the incidents that had a price in any minute.
    pub(crate) ever_costed: BTreeSet<String>,
}

impl Stage {
    /// Makes certificates and starts central.
    pub(crate) fn build(chain: Arc<Chain>) -> Result<Self> {
        let folder = scratch()?;
        let pki = Arc::new(scratch()?);
        let authority = Arc::new(Authority::new(pki.path())?);
        let central = start_central(folder.path(), &chain, &authority)?;
        let (real, simulated): (Vec<&Store>, Vec<&Store>) =
            chain.stores.iter().partition(|store| REAL.contains(&store.id.as_str()));
        let real = real
            .into_iter()
            .map(|store| RealStore::new(&folder.path().join(&store.id), store))
            .collect::<Result<Vec<_>>>()?;
        let simulated = simulated
            .into_iter()
            .map(|store| simulated_store(&authority, store))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            chain,
            folder,
            authority,
            pki,
            central,
            real,
            simulated,
            agents: Vec::new(),
            ever_costed: BTreeSet::new(),
        })
    }

    /// Five weeks: the real agents read rotated logs and old documents, the others are told.
    pub(crate) async fn tell_history(&mut self, watch: &mut Watch) -> Result<()> {
        let begun = std::time::Instant::now();
        watch.say("telling five weeks of history through the same path");
        let mut backfills = Vec::new();
        for store in &mut self.real {
            store.write_history(&self.chain, self.chain.history_start_ms, self.chain.live_start_ms)?;
            write_agent_settings(store, self.central.broker_port, &self.authority)?;
            backfills.push(start_backfill(store, self.chain.live_start_ms)?);
        }
        fleet::tell_history(&self.fleet_settings()?, &self.chain, &self.simulated).await?;
        for mut backfill in backfills {
            tokio::task::spawn_blocking(move || backfill.wait()).await??;
        }
        self.central.check()?;
        watch.say(&format!("history told in {:.0} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// The live part at `speed`, to its end and until central has reckoned it.
    pub(crate) async fn live(&mut self, watch: &mut Watch, speed: f64) -> Result<()> {
        let clock = Clock::scaled(self.chain.live_start_ms, speed);
        for store in &self.real {
            self.agents.push(start_agent(store, clock.now_ms(), speed)?);
        }
        let settings = self.fleet_settings()?;
        let (chain, simulated, fleet_clock) = (self.chain.clone(), self.simulated.clone(), clock.clone());
        let fleet = tokio::spawn(async move { fleet::live(&settings, &chain, &simulated, &fleet_clock).await });
        let mut now_ms = self.chain.live_start_ms;
        while now_ms < self.chain.live_end_ms {
            let next_ms = now_ms + SLICE_MS;
            clock.sleep_until(next_ms).await;
            for store in &mut self.real {
                store.write_slice(&self.chain, now_ms, next_ms)?;
            }
            now_ms = next_ms;
            self.each_minute(watch, now_ms)?;
        }
        fleet.await.context("the fleet broke")??;
        self.wait_for_the_end(watch).await
    }

    /// A copy of all disks, with another chain and a central of its own.
    pub(crate) fn fork(&mut self, chain: Arc<Chain>) -> Result<Self> {
        self.central.stop()?;
        let folder = scratch()?;
        copy(self.folder.path(), folder.path())?;
        for store in &self.real {
            link_documents(&store.folder, &folder.path().join(store.id()))?;
        }
        self.central.restart()?;
        let central = start_central(folder.path(), &chain, &self.authority)?;
        let moved = |store: &RealStore| {
            let moved = store.moved_to(&folder.path().join(store.id()));
            write_agent_settings(&moved, central.broker_port, &self.authority)?;
            Ok(moved)
        };
        let real = self.real.iter().map(moved).collect::<Result<Vec<_>>>()?;
        let simulated = self.simulated.clone();
        Ok(Self {
            chain,
            folder,
            authority: self.authority.clone(),
            pki: self.pki.clone(),
            central,
            real,
            simulated,
            agents: Vec::new(),
            ever_costed: BTreeSet::new(),
        })
    }

    /// What central says, ranked.
    pub(crate) fn incidents(&self) -> Result<Vec<Told>> {
        told(&self.central.get("/api/v1/incidents")?)
    }

    /// How many anomalies central sees now, harmless or not.
    fn anomalies(&self) -> Result<u64> {
        let sites = self.central.get("/api/v1/sites")?;
        let each = sites["sites"].as_array().into_iter().flatten();
        Ok(each.filter_map(|site| site["anomalies"].as_u64()).sum())
    }

    /// Where to look.
    pub(crate) fn page(&self) -> String {
        self.central.page()
    }

    pub(crate) fn real_stores(&self) -> Vec<String> {
        self.real.iter().map(|store| store.id().to_owned()).collect()
    }

    pub(crate) fn simulated_stores(&self) -> usize {
        self.simulated.len()
    }

    fn fleet_settings(&self) -> Result<FleetSettings> {
        let folder = self.folder.path().join("fleet");
        Ok(FleetSettings {
            broker_port: self.central.broker_port,
            folder,
            plugin_dir: plugin_dir()?,
        })
    }

    fn each_minute(&mut self, watch: &mut Watch, now_ms: u64) -> Result<()> {
        let since_ms = now_ms - self.chain.live_start_ms;
        if !since_ms.is_multiple_of(MINUTE_MS) {
            return Ok(());
        }
        self.central.check()?;
        self.agents.iter_mut().try_for_each(Process::check)?;
        if since_ms.is_multiple_of(ROTATE_MINUTES * MINUTE_MS) {
            self.real.iter().try_for_each(RealStore::rotate)?;
        }
        self.show(watch, now_ms)
    }

    fn show(&mut self, watch: &mut Watch, now_ms: u64) -> Result<()> {
        let incidents = self.incidents()?;
        let costed = incidents.iter().filter(|incident| incident.cost_minor.is_some());
        self.ever_costed.extend(costed.map(|incident| incident.id.clone()));
        watch.draw(&self.chain, now_ms, &incidents, self.anomalies()?);
        Ok(())
    }

    /// All simulated stores are acknowledged; central's picture follows within moments.
    async fn wait_for_the_end(&mut self, watch: &mut Watch) -> Result<()> {
        let (end_ms, port) = (self.chain.live_end_ms, &self.central);
        wait_until("central has reckoned the end of the story", PATIENCE, || {
            let now_ms = port.get("/api/v1/incidents")?["now_ms"].as_u64();
            Ok(now_ms.is_some_and(|now_ms| now_ms + 2 * MINUTE_MS >= end_ms))
        })?;
        self.show(watch, end_ms)
    }
}

/// What the demo writes, twice over; a container's memory folder has 64 MB.
const SCRATCH_BYTES: u64 = 1 << 30;

/// Below memory where there is room: five weeks of sixty stores in a minute are no test of the disk.
fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = || tempfile::Builder::new().prefix("tillwatch-demo-").tempdir_in(memory);
    if free_bytes(memory).is_some_and(|free| free >= SCRATCH_BYTES) {
        builder().or_else(|_| tempfile::tempdir())
    } else {
        tempfile::tempdir()
    }
    .context("making a folder")
}

/// None where there is no such folder.
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn start_central(folder: &Path, chain: &Chain, authority: &Authority) -> Result<Central> {
    let (server, archive) = (authority.server()?, authority.client("main")?);
    Central::start(
        &folder.join("central"),
        &chain.model_toml(),
        &archive,
        &Broker::Embedded(&server),
    )
}

fn simulated_store(authority: &Authority, store: &Store) -> Result<SimulatedStore> {
    Ok(SimulatedStore {
        store: store.clone(),
        identity: authority.client(&store.id)?,
    })
}

fn write_agent_settings(store: &RealStore, port: u16, authority: &Authority) -> Result<()> {
    let identity: Identity = authority.client(store.id())?;
    let path = store.folder.join("agent.toml");
    std::fs::write(&path, store.agent_toml(port, &identity, &plugin_dir()?))
        .with_context(|| format!("writing {}", path.display()))
}

fn start_backfill(store: &RealStore, until_ms: u64) -> Result<Process> {
    let mut command = Command::new(program("tillwatch")?);
    command
        .arg("backfill")
        .arg("--config")
        .arg(store.folder.join("agent.toml"));
    command.arg("--until").arg(timestamp(until_ms).to_string());
    Process::start(
        &format!("backfill of {}", store.id()),
        &mut command,
        &store.folder.join("backfill.log"),
    )
}

fn start_agent(store: &RealStore, now_ms: u64, speed: f64) -> Result<Process> {
    let mut command = Command::new(program("tillwatch")?);
    command.arg("run").arg("--config").arg(store.folder.join("agent.toml"));
    command.arg("--clock").arg(format!("{}@{speed}", timestamp(now_ms)));
    Process::start(
        &format!("agent of {}", store.id()),
        &mut command,
        &store.folder.join("agent.log"),
    )
}

/// The same documents, not others of the same name: an agent knows them by more than their name.
fn link_documents(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from.join("pos"))? {
        let document = entry?.path();
        let copy = to.join("pos").join(document.file_name().unwrap_or_default());
        std::fs::remove_file(&copy)?;
        std::fs::hard_link(&document, &copy).with_context(|| format!("linking {}", copy.display()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()
        .context("starting cp")?;
    ensure!(status.success(), "copying {} ended with {status}", from.display());
    Ok(())
}
