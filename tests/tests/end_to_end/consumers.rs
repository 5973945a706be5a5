//! The sample consumer in Python beside a real agent and a real mosquitto: as an archive of its own, and reading along.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tillwatch_tests::central::Sold;
use tillwatch_tests::pki::Identity;
use tillwatch_tests::process::{Process, wait_until};

use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(90);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/consumers/python")
}

fn python() -> Result<Command> {
    let python = std::env::var_os("TILLWATCH_CONSUMER_PYTHON")
        .context("no Python\nhint: cargo xtask test installs it; its interpreter is TILLWATCH_CONSUMER_PYTHON")?;
    let mut command = Command::new(python);
    command.current_dir(folder()).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// `consumer.py` with its database, which outlives it.
struct Consumer {
    process: Option<Process>,
    command: Vec<String>,
    database: PathBuf,
}

impl Consumer {
    fn new(place: &Path, port: u16, name: &str, identity: &Identity, more: &[&str]) -> Self {
        let database = place.join(format!("{name}.sqlite"));
        let text = |path: &Path| path.display().to_string();
        let mut command = vec!["consumer.py".to_owned()];
        for (key, value) in [
            ("--broker", format!("localhost:{port}")),
            ("--ca", text(&identity.ca)),
            ("--certificate", text(&identity.certificate)),
            ("--key", text(&identity.key)),
            ("--archive", name.to_owned()),
            ("--database", text(&database)),
        ] {
            command.extend([key.to_owned(), value]);
        }
        command.extend(more.iter().map(|&argument| argument.to_owned()));
        Self {
            process: None,
            command,
            database,
        }
    }

    fn start(&mut self) -> Result<()> {
        let log = self.database.with_extension("log");
        let ready = || {
            std::fs::read_to_string(&log)
                .unwrap_or_default()
                .matches("ready")
                .count()
        };
        let before = ready();
        self.process = Some(Process::start("consumer", python()?.args(&self.command), &log)?);
        wait_until("the consumer is ready", PATIENCE, || Ok(ready() > before))
    }

    /// `kill -9`.
    fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// What is in its database; the plugin's amounts are in cents.
    fn received(&self) -> Result<Sold> {
        let script = "import sqlite3, sys\n\
             sql = sqlite3.connect(sys.argv[1])\n\
             for metric in ('sales.transactions', 'sales.amount'):\n\
             \x20 print(sql.execute('SELECT coalesce(sum(sum), 0) FROM figures WHERE metric = ?', (metric,)).fetchone()[0])";
        let output = python()?.args(["-c", script]).arg(&self.database).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let mut numbers = text.lines().map(str::parse);
        let mut next = || numbers.next().context("a number")?.context("no number");
        Ok(Sold {
            transactions: next()?,
            amount_minor: next()?,
        })
    }

    fn log_end(&self) -> String {
        self.process.as_ref().map(Process::log_end).unwrap_or_default()
    }
}

/// Never more than that, at any time.
fn wait_for(consumer: &Consumer, world: &mut World, sold: Sold) -> Result<()> {
    let arrived = wait_until("the consumer has every sale", PATIENCE, || {
        world.agent_runs()?;
        let received = consumer.received()?;
        ensure!(received.transactions <= sold.transactions, "{received:?} of {sold:?}");
        Ok(received == sold)
    });
    arrived.with_context(|| {
        let (received, log) = (consumer.received(), consumer.log_end());
        format!("{received:?} of {sold:?}\n{log}\n{}", world.agent.log_end())
    })
}

#[test]
fn the_sample_consumer_reads_the_golden_payloads_and_keeps_an_archives_rules() -> Result<()> {
    let output = python()?.args(["-m", "unittest", "-q"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Both are required: what one of them has and the other has not stays at the store, whoever is killed.
#[test]
fn a_store_with_two_archives_waits_for_both_and_the_consumer_gets_everything_once() -> Result<()> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut world = World::start()?;
    let place = world.place().to_path_buf();
    world.mosquitto()?.allow_archive("lake")?;
    world.mosquitto()?.reload()?;
    world
        .agent
        .change("reconnect_within", "archives = [\"main\", \"lake\"]\nreconnect_within")?;
    let lake = world.authority.client("lake")?;
    let mut consumer = Consumer::new(&place, world.central.broker_port, "lake", &lake, &[]);
    // Central has it; the consumer has not begun.
    world.sell(&mut random, 40)?;
    let sold = world.sold;
    wait_until("central has every sale", PATIENCE, || {
        Ok(world.central.received()? == sold)
    })?;
    ensure!(world.agent.held()? > 0, "the store did not wait for the second archive");
    world.agent.restart()?;
    consumer.start()?;
    wait_for(&consumer, &mut world, sold)?;
    for _ in 0..3 {
        world.sell(&mut random, 20)?;
        consumer.kill()?;
        world.sell(&mut random, 20)?;
        world.mosquitto()?.restart()?;
        consumer.start()?;
    }
    let sold = world.sold;
    wait_for(&consumer, &mut world, sold)?;
    wait_until("central has every sale", PATIENCE, || {
        Ok(world.central.received()? == sold)
    })
}

/// `delivery = "broker"`: nobody acknowledges, and the store deletes what the broker took, whoever was there to read it.
#[test]
fn where_the_broker_is_enough_a_store_keeps_nothing_and_a_reader_that_was_away_misses_it() -> Result<()> {
    let mut random = fastrand::Rng::with_seed(12);
    let mut world = World::start()?;
    world.central.kill()?;
    let place = world.place().to_path_buf();
    world.mosquitto()?.allow_archive("lake")?;
    world.mosquitto()?.reload()?;
    let reader = |world: &World, name: &str| {
        let identity = world.authority.client(name)?;
        let mut reader = Consumer::new(&place, world.central.broker_port, name, &identity, &["--no-ack"]);
        reader.start().map(|()| reader)
    };
    let (witness, mut away) = (reader(&world, "main")?, reader(&world, "lake")?);
    world
        .agent
        .change("reconnect_within", "delivery = \"broker\"\nreconnect_within")?;
    world.sell(&mut random, 40)?;
    let first = world.sold;
    wait_for(&witness, &mut world, first)?;
    wait_for(&away, &mut world, first)?;
    away.kill()?;
    world.sell(&mut random, 10)?;
    let missed = world.sold;
    wait_for(&witness, &mut world, missed)?;
    let held = world.agent.held()?;
    ensure!(held == 0, "{held} records are held\n{}", world.agent.log()?);
    away.start()?;
    world.agent.restart()?;
    world.sell(&mut random, 5)?;
    let all = world.sold;
    wait_for(&witness, &mut world, all)?;
    let rest = Sold {
        transactions: first.transactions + all.transactions - missed.transactions,
        amount_minor: first.amount_minor + all.amount_minor - missed.amount_minor,
    };
    wait_for(&away, &mut world, rest)
}
