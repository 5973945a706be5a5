//! One plugin is changed while two others read: by its settings, by a new version, by a version that is broken, and by one
//! that traps at its first call.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tillwatch_tests::process::{plugin_dir, wait_until};
use tillwatch_tests::story::timestamp;

use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(90);
const AMOUNT_MINOR: i64 = 125;
const TAKEN: &str = "the plugins were loaded again";
const REFUSED: &str = "the plugins were not loaded again";

/// Lines that are written all the time, to the log of each plugin.
struct Tills {
    logs: Vec<PathBuf>,
    is_over: AtomicBool,
    /// The first log from now on names its totals as only the new settings read them.
    is_renamed: AtomicBool,
    sold: AtomicU64,
}

impl Tills {
    fn sell(&self) -> Result<()> {
        let open = |log: &PathBuf| OpenOptions::new().create(true).append(true).open(log);
        let mut logs: Vec<File> = self.logs.iter().map(open).collect::<std::io::Result<_>>()?;
        while !self.is_over.load(Relaxed) {
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            let time = timestamp(u64::try_from(now_ms)?);
            for (number, log) in logs.iter_mut().enumerate() {
                let total = if number == 0 && self.is_renamed.load(Relaxed) {
                    "\"amount\":1.25"
                } else {
                    "\"total\":1.25,\"amount\":1.25"
                };
                writeln!(log, "{{\"time\":\"{time}\",{total},\"items\":1,\"tender\":\"cash\"}}")?;
                self.sold.fetch_add(1, Relaxed);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// A block for each log; the first is the one that changes.
fn blocks(logs: &[PathBuf], changing: &Path, more_of_source: &str, settings: &str) -> String {
    let block = |(number, log): (usize, &PathBuf)| {
        let (used, source, settings) = match number {
            0 => (changing.to_str().unwrap_or_default(), more_of_source, settings),
            _ => ("sales", "", ""),
        };
        let log = log.display();
        format!(
            "[[plugin]]\nname = \"till-{number}\"\nuse = \"{used}\"\ninterval = \"1s\"\n\
             [plugin.sources.lines]\nfile = \"{log}\"\n{source}\n[plugin.settings]\n{settings}\n"
        )
    };
    logs.iter().enumerate().map(block).collect()
}

/// The plugin `sales` under another version; a component without `wasm` stays what it was.
fn install(folder: &Path, version: &str, has_wasm: bool) -> Result<()> {
    let installed = plugin_dir()?.join("sales");
    std::fs::create_dir_all(folder)?;
    let manifest = std::fs::read_to_string(installed.join("plugin.toml"))?;
    std::fs::write(folder.join("plugin.toml"), manifest.replacen("0.1.0", version, 1))?;
    if has_wasm {
        let mut wasm = std::fs::read(installed.join("sales.wasm"))?;
        let described = b"sales0.1.0sales.";
        let at = wasm.windows(described.len()).position(|bytes| bytes == described);
        let at = at.context("the component describes itself otherwise")? + "sales".len();
        wasm[at..at + version.len()].copy_from_slice(version.as_bytes());
        // As a package does it: the running agent never sees half a file.
        std::fs::write(folder.join("new"), wasm)?;
        std::fs::rename(folder.join("new"), folder.join("sales.wasm"))?;
    }
    Ok(())
}

fn processes_of(agent: u32) -> Result<usize> {
    let mut count = 0;
    for thread in std::fs::read_dir(format!("/proc/{agent}/task"))? {
        // A thread may end meanwhile.
        let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        count += children.split_whitespace().count();
    }
    Ok(count)
}

fn reload(world: &World, said: &str, times: usize) -> Result<()> {
    let agent = world.agent.id().context("it runs")?;
    let process = Pid::from_raw(agent.cast_signed()).context("it has a number")?;
    kill_process(process, Signal::HUP)?;
    wait_until(said, PATIENCE, || Ok(world.agent.log()?.matches(said).count() == times))
        .with_context(|| world.agent.log_end())
}

#[test]
fn a_plugin_is_changed_under_two_neighbors_and_no_line_is_lost_or_doubled() -> Result<()> {
    let mut world = World::start()?;
    let settings = world.agent.settings().to_owned();
    let place = settings.parent().context("a folder")?;
    let changing = place.join("changing");
    install(&changing, "0.1.0", true)?;
    let tills = Tills {
        logs: (0..3)
            .map(|number| place.join(format!("till-{number}.jsonl")))
            .collect(),
        is_over: AtomicBool::new(false),
        is_renamed: AtomicBool::new(false),
        sold: AtomicU64::new(0),
    };
    for log in &tills.logs {
        File::create(log)?;
    }
    let before = std::fs::read_to_string(&settings)?;
    let (rest, _plugins) = before.split_once("[[plugin]]").context("a plugin")?;
    let write =
        |more: &str, own: &str| std::fs::write(&settings, rest.to_owned() + &blocks(&tills.logs, &changing, more, own));
    write("", "")?;
    world.agent.stop()?;
    world.agent.restart()?;
    std::thread::scope(|scope| -> Result<()> {
        let seller = scope.spawn(|| tills.sell());
        let changed = change(&mut world, &tills, &changing, write);
        tills.is_over.store(true, Relaxed);
        seller.join().unwrap_or_else(|_panicked| Ok(()))?;
        changed
    })?;
    let sold = i64::try_from(tills.sold.load(Relaxed))?;
    let arrived = wait_until("central has every sale", PATIENCE, || {
        world.check()?;
        let received = world.central.received()?;
        ensure!(
            received.transactions <= sold,
            "{received:?} of {sold}: something counts twice"
        );
        Ok((received.transactions, received.amount_minor) == (sold, sold * AMOUNT_MINOR))
    });
    arrived.with_context(|| format!("{:?} of {sold}\n{}", world.central.received(), world.agent.log_end()))?;
    let log = world.agent.log()?;
    ensure!(
        !log.contains("collector failed") && !log.contains("started again"),
        "{log}"
    );
    ensure!(sold > 1_000, "{sold}");
    Ok(())
}

fn change(
    world: &mut World,
    tills: &Tills,
    changing: &Path,
    write: impl Fn(&str, &str) -> std::io::Result<()>,
) -> Result<()> {
    let some = |world: &World, more: i64| -> Result<()> {
        let before = world.central.received()?.transactions;
        wait_until("more is received", PATIENCE, || {
            Ok(world.central.received()?.transactions > before + more)
        })
        .with_context(|| world.agent.log_end())
    };
    some(world, 100)?;
    let agent = world.agent.id().context("it runs")?;
    ensure!(processes_of(agent)? == 1, "the plugins' process");
    // Other settings, and a source that is opened anew.
    write("line_max = \"32KiB\"", "field_total = \"amount\"")?;
    reload(world, TAKEN, 1)?;
    let one = |what: &str| wait_until(what, PATIENCE, || Ok(processes_of(agent)? == 1));
    one("the old process ended with its last call")?;
    tills.is_renamed.store(true, Relaxed);
    some(world, 100)?;
    install(changing, "0.1.1", true)?;
    reload(world, TAKEN, 2)?;
    some(world, 100)?;
    // A version that is not what it says: the old one goes on.
    install(changing, "0.1.2", false)?;
    reload(world, REFUSED, 1)?;
    let log = world.agent.log()?;
    ensure!(log.contains("it is version 0.1.1, plugin.toml says 0.1.2"), "{log}");
    one("the new process ended")?;
    some(world, 100)?;
    install(changing, "0.1.1", true)?;
    refuse_what_traps(world, changing)?;
    one("the new process ended")?;
    some(world, 100)
}

/// In the place of the first plugin another one that describes itself, takes its settings, and traps at its first call.
fn refuse_what_traps(world: &World, changing: &Path) -> Result<()> {
    let broken = changing.with_file_name("broken");
    std::fs::create_dir_all(&broken)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/sandbox/tests/hostile/plugin.toml");
    std::fs::copy(source, broken.join("plugin.toml"))?;
    std::fs::copy(
        plugin_dir()?.join("../guests/hostile.wasm"),
        broken.join("hostile.wasm"),
    )?;
    let settings = world.agent.settings();
    let good = std::fs::read_to_string(settings)?;
    let mut bad = good.clone();
    for (from, to) in [
        (changing.to_str().context("a path")?, broken.to_str().context("a path")?),
        ("[plugin.sources.lines]", "[plugin.sources.input]"),
        ("field_total = \"amount\"", "behavior = \"panic\""),
    ] {
        ensure!(bad.contains(from), "{bad}");
        bad = bad.replacen(from, to, 1);
    }
    std::fs::write(settings, bad)?;
    reload(world, REFUSED, 2)?;
    let log = world.agent.log()?;
    let why = "source till-0 cannot be exchanged: its first call fails: ";
    ensure!(log.contains(why), "{log}");
    Ok(std::fs::write(settings, good)?)
}
