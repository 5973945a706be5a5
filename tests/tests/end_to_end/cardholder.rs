//! No card number leaves a plugin, however it is dressed: not into the spool, not onto the wire, not into a log.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tillwatch_agent::spool::{Spool, SpoolSettings};
use tillwatch_core::guard::Guard;
use tillwatch_feed::codec;
use tillwatch_tests::cards::{Search, carrier};
use tillwatch_tests::central::{Broker, Central};
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tillwatch_tests::process::{plugin_dir, program};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::world::{MODEL, SITE};
use tillwatch_tests::client::Client;

/// Lines of a log in which every line holds another card number.
const CARRIERS: usize = 1_000_000;
/// A line now and then that may pass, to see that lines arrive at all.
const HARMLESS_EVERY: usize = 10_000;
/// When nothing came for so long, all has come.
const QUIET: Duration = Duration::from_millis(500);
/// A batch has at most 1,000 series, and each line is one.
const LINES_PER_BATCH_MAX: usize = 1_000;
const SEED: u64 = 20_260_302;

/// A plugin that gives everything away, in an agent, at a real broker, with an archive that acknowledges.
struct Place {
    folder: tempfile::TempDir,
    authority: Authority,
    mosquitto: Mosquitto,
    _central: Central,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(&folder.path().join("pki"))?;
        let mut mosquitto = Mosquitto::start(&folder.path().join("mosquitto"), &authority.server()?)?;
        let mut rights = File::options().append(true).open(folder.path().join("mosquitto/acl"))?;
        writeln!(rights, "\nuser spy\ntopic read tw1/#")?;
        mosquitto.restart()?;
        let archive = authority.client("main")?;
        let broker = Broker::External(mosquitto.port);
        let central = Central::start(&folder.path().join("central"), MODEL, &archive, &broker)?;
        let plugin = folder.path().join("plugins/hostile");
        std::fs::create_dir_all(&plugin)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/sandbox/tests/hostile");
        std::fs::copy(source.join("plugin.toml"), plugin.join("plugin.toml"))?;
        let built = plugin_dir()?.join("../guests/hostile.wasm");
        std::fs::copy(&built, plugin.join("hostile.wasm")).with_context(|| built.display().to_string())?;
        Ok(Self {
            folder,
            authority,
            mosquitto,
            _central: central,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_settings(&self, identity: &Identity) -> Result<()> {
        let mut text = format!(
            "site = \"{SITE}\"\ntime_zone = \"UTC\"\nstate_dir = \"state\"\nplugin_dir = \"plugins\"\n\
             [broker]\nurl = \"mqtts://127.0.0.1:{}\"\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\
             [system]\nenabled = false\n",
            self.mosquitto.port, identity.ca, identity.certificate, identity.key
        );
        for behavior in ["leak", "leak-error"] {
            write!(
                text,
                "[[plugin]]\nname = \"{behavior}\"\nuse = \"hostile\"\n\
                 [plugin.sources.input]\nfile = \"input.log\"\n[plugin.settings]\nbehavior = \"{behavior}\"\n"
            )?;
        }
        Ok(std::fs::write(self.path("agent.toml"), text)?)
    }

    /// Writes the log and returns what must not be found.
    fn write_input(&self, random: &mut fastrand::Rng) -> Result<Search> {
        let mut search = Search::default();
        let mut log = BufWriter::new(File::create(self.path("input.log"))?);
        for line in 0..CARRIERS {
            let carrier = carrier(random);
            search.add(&carrier.number);
            writeln!(log, "{}", carrier.text)?;
            if line % HARMLESS_EVERY == 0 {
                writeln!(log, "till-7")?;
            }
        }
        log.flush()?;
        Ok(search)
    }
}

/// Everything that is published until it is told to stop and nothing more comes, as text.
async fn capture(mut spy: Client, mut stop: oneshot::Receiver<()>) -> Result<String> {
    let mut published = String::new();
    loop {
        let next = timeout(QUIET, spy.arrived.recv()).await;
        match next {
            Ok(Some((topic, payload))) => {
                write!(published, "{topic} ")?;
                match codec::decode(&payload) {
                    Ok(message) => writeln!(published, "{message:?}")?,
                    Err(_no_message) => writeln!(published, "{}", String::from_utf8_lossy(&payload))?,
                }
            }
            Ok(None) => bail!("the broker is gone"),
            Err(_quiet) if stop.try_recv().is_ok() => return Ok(published),
            Err(_quiet) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_card_number_of_a_million_reaches_spool_wire_or_log() -> Result<()> {
    println!("seed {SEED}");
    let place = Place::new()?;
    place.write_settings(&place.authority.client(SITE)?)?;
    let search = place.write_input(&mut fastrand::Rng::with_seed(SEED))?;
    let spy = Client::connect(place.mosquitto.port, "spy", &place.authority.client("spy")?).await?;
    spy.subscribe("tw1/#").await?;
    let mut backfill = Command::new(program("tillwatch")?);
    backfill
        .current_dir(place.folder.path())
        .args(["backfill", "--config", "agent.toml", "--log", "debug"]);
    let (stop, stopped) = oneshot::channel();
    let capturing = tokio::spawn(capture(spy, stopped));
    let output = tokio::task::spawn_blocking(move || backfill.output()).await??;
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let told = String::from_utf8_lossy(&said);
    ensure!(output.status.success(), "{told}");
    ensure!(told.contains("cannot read <"), "no error was seen: {told}");
    let refused = told
        .lines()
        .filter(|line| line.contains("values of a plugin are refused"));
    let cards = refused.filter(|line| line.contains("plugin=\"leak\"") && line.contains("kind=\"card\""));
    ensure!(cards.count() == 1, "one warning for each plugin and reason: {told}");
    let batches = told.split("batches=").nth(1).and_then(|rest| rest.split(' ').next());
    let batches: usize = batches.context("the number of batches")?.parse()?;
    ensure!(
        batches >= CARRIERS / LINES_PER_BATCH_MAX,
        "{batches} batches cannot hold the whole log"
    );

    stop.send(()).ok().context("nobody listens")?;
    let published = capturing.await??;
    ensure!(published.contains("till-7"), "nothing arrived: {published}\n{told}");
    let (spool, recovery) = Spool::open(&place.path("state/spool"), &SpoolSettings::default(), 1, 1)?;
    drop(spool);
    let checkpoint = recovery.checkpoint.context("a checkpoint")?;
    for (place, bytes) in [
        ("what is printed", said.as_slice()),
        ("what is published", published.as_bytes()),
        ("the checkpoint", &checkpoint),
    ] {
        let found = search.first_in(bytes);
        ensure!(found.is_none(), "{found:?} is in {place}");
    }
    for file in std::fs::read_dir(place.path("state/spool"))? {
        let path = file?.path();
        let found = search.first_in(&std::fs::read(&path)?);
        ensure!(found.is_none(), "{found:?} is in {}", path.display());
    }
    Ok(())
}

#[test]
fn no_card_number_of_a_million_is_left_in_a_text() -> Result<()> {
    println!("seed {SEED}");
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..CARRIERS {
        let carrier = carrier(&mut random);
        let mut search = Search::default();
        search.add(&carrier.number);
        let text = format!("till 3: cannot read <{}> at noon", carrier.text);
        let told = Guard.text(&text);
        let found = search.first_in(told.as_bytes());
        ensure!(found.is_none(), "{text} became {told}");
        // What follows the number on a magnetic stripe goes, too.
        let is_track = carrier.text.contains(['^', '=']);
        ensure!(
            told.starts_with("till 3: cannot read <") && (is_track || told.ends_with("> at noon")),
            "{text} became {told}"
        );
    }
    Ok(())
}
