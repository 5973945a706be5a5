//! One store, one broker, one central on this machine, each a process of its own that may be killed at any time.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tillwatch_central::archive::{self, Archive as _};
use tillwatch_tests::agent::Agent;
use tillwatch_tests::central::{Broker, Central, Sold};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{plugin_dir, wait_until};
use tillwatch_tests::story::timestamp;

pub(crate) const SITE: &str = "store-0412";
pub(crate) const MODEL: &str = "[[region]]\nid = \"north\"\nname = \"North\"\n\n\
                     [[site]]\nid = \"store-0412\"\nregion = \"north\"\ntime_zone = \"UTC\"\n";

pub(crate) struct World {
    /// None: central's own broker.
    mosquitto: Option<Mosquitto>,
    pub(crate) central: Central,
    pub(crate) agent: Agent,
    pub(crate) sold: Sold,
    /// Of its certificates.
    pub(crate) authority: Authority,
    sales: File,
    /// How far the points of sale are from real time, as the agent's clock must be then.
    pub(crate) skew_ms: i64,
    /// Removed with the world.
    place: TempDir,
}

impl World {
    /// Starts all three.
    pub(crate) fn start() -> Result<Self> {
        Self::start_on(false)
    }

    /// Starts agent and central with its own broker.
    pub(crate) fn start_embedded() -> Result<Self> {
        Self::start_on(true)
    }

    fn start_on(is_embedded: bool) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let authority = Authority::new(&place.path().join("pki"))?;
        let server = authority.server()?;
        let mosquitto = match is_embedded {
            true => None,
            false => Some(Mosquitto::start(&place.path().join("mosquitto"), &server)?),
        };
        let archive = authority.client("main")?;
        let broker = match &mosquitto {
            Some(mosquitto) => Broker::External(mosquitto.port),
            None => Broker::Embedded(&server),
        };
        let central = Central::start(&place.path().join("central"), MODEL, &archive, &broker)?;
        let sales_file = place.path().join("sales.jsonl");
        let sales = OpenOptions::new().create(true).append(true).open(&sales_file)?;
        let identity = authority.client(SITE)?;
        let text = settings_text(
            place.path(),
            &plugin_dir()?,
            central.broker_port,
            &identity,
            &sales_file,
        );
        let agent = Agent::start(place.path(), &text)?;
        Ok(Self {
            mosquitto,
            central,
            agent,
            sold: Sold::default(),
            authority,
            sales,
            skew_ms: 0,
            place,
        })
    }

    /// Its files.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    /// Makes all certificates anew, of another authority, in the files that are in use.
    pub(crate) fn new_certificates(&self) -> Result<()> {
        let authority = Authority::new(&self.place().join("pki"))?;
        authority.server()?;
        authority.client("main")?;
        authority.client(SITE)?;
        Ok(())
    }

    /// The mosquitto of a world that has one.
    pub(crate) fn mosquitto(&mut self) -> Result<&mut Mosquitto> {
        self.mosquitto.as_mut().context("this world's broker is central's")
    }

    /// Kills the broker, if it is no part of central.
    pub(crate) fn kill_broker(&mut self) -> Result<()> {
        self.mosquitto.as_mut().map_or(Ok(()), Mosquitto::kill)
    }

    /// Kills it, if it runs and is no part of central, and starts it again.
    pub(crate) fn restart_broker(&mut self) -> Result<()> {
        self.mosquitto.as_mut().map_or(Ok(()), Mosquitto::restart)
    }

    /// Central has everything, and never more than that.
    pub(crate) fn wait_for_everything(&mut self, patience: Duration) -> Result<()> {
        let sold = self.sold;
        let arrived = wait_until("central has every sale", patience, || {
            self.check()?;
            let received = self.central.received()?;
            ensure!(
                received.transactions <= sold.transactions && received.amount_minor <= sold.amount_minor,
                "{received:?} of {sold:?}: something counts twice"
            );
            Ok(received == sold)
        });
        arrived.with_context(|| {
            format!(
                "{:?} of {sold:?} received; the agent's log ends\n{}",
                self.central.received(),
                self.agent.log_end()
            )
        })
    }

    /// Appends sales to the point of sale's log, in one write or torn in two as programs do it.
    pub(crate) fn sell(&mut self, random: &mut fastrand::Rng, count: u32) -> Result<()> {
        let mut lines = String::new();
        for _ in 0..count {
            let amount_minor = random.i64(1..20_000);
            let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
            let time = timestamp(now_ms.saturating_add_signed(self.skew_ms));
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
