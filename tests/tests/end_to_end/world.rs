//! One store, one broker, one central on this machine, each a process of its own that may be killed at any time.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tillwatch_central::archive::{self, Archive as _};
use tillwatch_tests::central::{Broker, Central, Sold};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{Process, plugin_dir, program};
use tillwatch_tests::story::timestamp;

pub(crate) const SITE: &str = "store-0412";
pub(crate) const MODEL: &str = "[[region]]\nid = \"north\"\nname = \"North\"\n\n\
                     [[site]]\nid = \"store-0412\"\nregion = \"north\"\ntime_zone = \"UTC\"\n";

pub(crate) struct World {
    pub(crate) mosquitto: Mosquitto,
    pub(crate) central: Central,
    pub(crate) agent: Agent,
    pub(crate) sold: Sold,
    /// Of its certificates.
    pub(crate) authority: Authority,
    sales: File,
    /// Removed with the world.
    place: TempDir,
}

impl World {
    /// Starts all three.
    pub(crate) fn start() -> Result<Self> {
        let place = tempfile::tempdir()?;
        let authority = Authority::new(&place.path().join("pki"))?;
        let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
        let archive = authority.client("main")?;
        let broker = Broker::External(mosquitto.port);
        let central = Central::start(&place.path().join("central"), MODEL, &archive, &broker)?;
        let sales_file = place.path().join("sales.jsonl");
        let sales = OpenOptions::new().create(true).append(true).open(&sales_file)?;
        let agent = Agent::start(place.path(), mosquitto.port, &authority.client(SITE)?, &sales_file)?;
        Ok(Self {
            mosquitto,
            central,
            agent,
            sold: Sold::default(),
            authority,
            sales,
            place,
        })
    }

    /// A folder that is removed with it.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    /// Appends sales to the point of sale's log, in one write or torn in two as programs do it.
    pub(crate) fn sell(&mut self, random: &mut fastrand::Rng, count: u32) -> Result<()> {
        let mut lines = String::new();
        for _ in 0..count {
            let amount_minor = random.i64(1..20_000);
            let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
            let time = timestamp(now_ms);
            let (major, minor) = (amount_minor / 100, amount_minor % 100);
            lines += &format!("{{\"time\":\"{time}\",\"total\":{major}.{minor:02},\"items\":1,\"tender\":\"cash\"}}\n");
            self.sold.transactions += 1;
            self.sold.amount_minor += amount_minor;
        }
        let (first, rest) = lines.as_bytes().split_at(random.usize(0..=lines.len()));
        self.sales.write_all(first)?;
        self.sales
            .write_all(rest)
            .context("writing the log of the point of sale")
    }

    /// Records that central knows of and neither has nor accounts for.
    pub(crate) fn missing_records(&self) -> Result<u64> {
        let archive = archive::open_to_read(&self.central.archive_path())?;
        let marks = archive.marks(archive::GENERATIONS_PER_SITE_MAX)?;
        let missing = marks.iter().map(|mark| {
            mark.produced()
                .saturating_sub(mark.received)
                .saturating_sub(mark.accounted)
        });
        Ok(missing.sum())
    }

    /// Fails when the agent ended by itself.
    pub(crate) fn agent_runs(&mut self) -> Result<()> {
        self.agent.check()
    }

    /// Fails when one of the three ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.central.check()?;
        self.agent.check()
    }
}

/// The real agent with the `sales` plugin on one log.
pub(crate) struct Agent {
    settings: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    fn start(place: &Path, port: u16, identity: &Identity, sales: &Path) -> Result<Self> {
        let plugins = plugin_dir()?;
        let settings = place.join("agent.toml");
        std::fs::write(&settings, settings_text(place, &plugins, port, identity, sales))?;
        let mut agent = Self {
            settings,
            log: place.join("agent.log"),
            process: None,
        };
        agent.restart()?;
        Ok(agent)
    }

    /// Kills it, if it runs, and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(program("tillwatch")?);
        command.arg("run").arg("--config").arg(&self.settings);
        self.process = Some(Process::start("tillwatch", &mut command, &self.log)?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Where agent.toml stands.
    pub(crate) fn settings(&self) -> &Path {
        &self.settings
    }

    /// Replaces a part of agent.toml, and starts it anew.
    pub(crate) fn change(&mut self, from: &str, to: &str) -> Result<()> {
        let before = std::fs::read_to_string(&self.settings)?;
        std::fs::write(&self.settings, before.replacen(from, to, 1))?;
        self.restart()
    }

    /// Stops it, and counts the records that its spool still holds.
    pub(crate) fn held(&mut self) -> Result<usize> {
        self.stop()?;
        let mut export = Command::new(program("tillwatch")?);
        let output = export
            .args(["spool", "export", "--config"])
            .arg(&self.settings)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count())
    }

    /// Everything that it said.
    pub(crate) fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("reading the agent's log")
    }

    /// Its process, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Asks it to stop.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process
            .take()
            .map_or(Ok(()), |mut process| process.stop(Duration::from_secs(15)))
    }

    fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    pub(crate) fn log_end(&self) -> String {
        self.process.as_ref().map(Process::log_end).unwrap_or_default()
    }
}

fn settings_text(place: &Path, plugins: &Path, port: u16, identity: &Identity, sales: &Path) -> String {
    format!(
        r#"site = "{SITE}"
time_zone = "UTC"
state_dir = "{state}"
plugin_dir = "{plugins}"
window = "500ms"
summary = "1s"

[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
certificate = "{certificate}"
key = "{key}"
reconnect_within = "500ms"

[system]
enabled = false

[[plugin]]
name = "sales"
use = "sales"
interval = "1s"
[plugin.sources.lines]
file = "{sales}"
"#,
        state = place.join("state").display(),
        plugins = plugins.display(),
        ca = identity.ca.display(),
        certificate = identity.certificate.display(),
        key = identity.key.display(),
        sales = sales.display(),
    )
}
