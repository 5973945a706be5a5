//! The commands of `tillwatch-central` and what they print.
//!
//! In: arguments. Out: text for people, JSON for programs, and an exit code.
//! It never prints a control character that came from outside.

use crate::archive::{self, Archive};
use crate::books::{Day, Line, balance};
use crate::config::Config;
use crate::incident::book::CLOSED_KEPT_MS;
use crate::model::Model;
use crate::replay::Replay;
use crate::simulate::scenario::Scenario;
use crate::simulate::{World, feed};
use crate::{json, run};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const CONFIG_DEFAULT: &str = "/etc/tillwatch-central/central.toml";

/// Receives the feeds of stores, prices incidents and ranks them.
#[derive(Debug, Parser)]
#[command(name = "tillwatch-central", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive, keep, reckon, and show the page.
    Serve(Serve),
    /// Say everything that is wrong with the settings and the model, and do nothing.
    Check(Settings),
    /// Show a payload of the feed as JSON.
    Decode(Decode),
    /// List the open and recent incidents in the archive.
    Incidents(Incidents),
    /// Run a recorded feed through the same reckoning at full speed, and list its incidents.
    Replay(ReplayArguments),
    /// Show what each site sent and lost, by day.
    Reconcile(Reconcile),
    /// Write the feed of a simulated chain, its model and what its faults truly cost.
    Simulate(Simulate),
}

#[derive(Debug, Args)]
struct Settings {
    /// The settings file.
    #[arg(long, default_value = CONFIG_DEFAULT)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// Be the broker too, as [embedded_broker] says, and connect to no other.
    #[arg(long)]
    embedded_broker: bool,
}

#[derive(Debug, Args)]
struct Decode {
    /// The payload; `-` reads it from the input.
    file: PathBuf,
    /// What it is, when its topic is known: message, state, ack or cfg.
    #[arg(long, default_value = "message")]
    kind: json::PayloadKind,
}

#[derive(Debug, Args)]
struct Incidents {
    #[command(flatten)]
    settings: Settings,
    /// One JSON list.
    #[arg(long)]
    json: bool,
    /// Those of long ago, too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct ReplayArguments {
    /// The service model.
    #[arg(long)]
    model: PathBuf,
    /// Recordings of JSON lines, oldest first; `-` reads the input.
    #[arg(required = true)]
    feeds: Vec<PathBuf>,
    /// One JSON list.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Reconcile {
    #[command(flatten)]
    settings: Settings,
    /// Days since 1970-01-01 to begin with.
    #[arg(long, default_value_t = 0)]
    from_day: u32,
}

#[derive(Debug, Args)]
struct Simulate {
    /// What happens, see tests/scenarios.
    scenario: PathBuf,
    /// Gets feed.ndjson, model.toml and truth.json.
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Does what the arguments say.
///
/// # Errors
/// Whatever a person must be told; the caller prints it.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Serve(serve) => {
            let (config, model) = Config::load(&serve.settings.config)?;
            run::serve(&config, model, serve.embedded_broker)
        }
        Command::Check(settings) => check(settings),
        Command::Decode(decode) => print(&json::decode(&read_input(&decode.file)?, decode.kind)?),
        Command::Incidents(incidents) => list_incidents(incidents),
        Command::Replay(arguments) => replay(arguments),
        Command::Reconcile(reconcile) => list_tallies(reconcile),
        Command::Simulate(options) => write_simulated(options),
    }
}

fn check(settings: &Settings) -> anyhow::Result<()> {
    let (_config, model) = Config::load(&settings.config)?;
    let (regions, sites, services) = (model.regions.len(), model.sites.len(), model.services.len());
    print(&format!(
        "settings and model are good: {regions} regions, {sites} sites, {services} services"
    ))
}

fn write_simulated(options: &Simulate) -> anyhow::Result<()> {
    let name = options.scenario.display();
    let text = std::fs::read_to_string(&options.scenario).with_context(|| format!("reading {name}"))?;
    let scenario = Scenario::parse(&text).with_context(|| format!("in {name}"))?;
    let mut world = World::new(&scenario, options.seed);
    let folder = &options.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    std::fs::write(folder.join("model.toml"), world.model())?;
    std::fs::write(
        folder.join("truth.json"),
        serde_json::to_vec_pretty(&feed::truth(&world))?,
    )?;
    let mut lines = std::io::BufWriter::new(std::fs::File::create(folder.join("feed.ndjson"))?);
    feed::write(&mut world, &mut lines)?;
    lines.flush()?;
    print(&format!(
        "written to {}: seed {}, {}",
        folder.display(),
        options.seed,
        scenario.about
    ))
}

fn read_input(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .context("reading the input")?;
    Ok(bytes)
}

fn list_incidents(incidents: &Incidents) -> anyhow::Result<()> {
    let config = Config::load_alone(&incidents.settings.config)?;
    let archive = archive::open_to_read(&config.storage.path)?;
    let (rows, now_ms) = (archive.incidents()?, archive.watermark_ms()?.unwrap_or(0));
    let parsed: Result<Vec<serde_json::Value>, _> = rows.iter().map(|row| serde_json::from_str(&row.json)).collect();
    let mut parsed = parsed.context("an incident in the archive is no JSON")?;
    parsed.retain(|incident| incidents.all || is_recent(incident, now_ms));
    parsed.sort_by_key(|incident| incident["rank"].as_u64().unwrap_or(u64::MAX));
    if incidents.json {
        return print(&serde_json::to_string_pretty(&parsed)?);
    }
    parsed
        .iter()
        .try_for_each(|incident| print(&json::incident_line(incident)))
}

fn replay(arguments: &ReplayArguments) -> anyhow::Result<()> {
    let name = arguments.model.display().to_string();
    let text = std::fs::read_to_string(&arguments.model).with_context(|| format!("reading {name}"))?;
    let mut replay = Replay::new(Model::parse(&name, &text)?);
    for feed in &arguments.feeds {
        let taken = if feed == Path::new("-") {
            replay.take(std::io::stdin().lock())
        } else {
            let file = std::fs::File::open(feed).with_context(|| format!("opening {}", feed.display()))?;
            replay.take(std::io::BufReader::new(file))
        };
        taken.with_context(|| format!("reading {}", feed.display()))?;
    }
    let counters = replay.counters();
    if counters.observations > 0 && counters.unknown_sites == counters.observations {
        anyhow::bail!("none of the recorded sites is in {name}");
    }
    let incidents = replay.incidents();
    if arguments.json {
        return print(&serde_json::to_string_pretty(&incidents)?);
    }
    for incident in incidents {
        print(&json::incident_line(&serde_json::to_value(incident)?))?;
    }
    Ok(())
}

/// Is it what the page shows, too? One that is open is told anew all the time.
fn is_recent(incident: &serde_json::Value, now_ms: u64) -> bool {
    let last_ms = incident["end_ms"].as_u64().or(incident["updated_ms"].as_u64());
    last_ms.is_none_or(|last_ms| last_ms + CLOSED_KEPT_MS >= now_ms)
}

fn list_tallies(reconcile: &Reconcile) -> anyhow::Result<()> {
    let config = Config::load_alone(&reconcile.settings.config)?;
    let archive = archive::open_to_read(&config.storage.path)?;
    let marks = archive.marks(archive::GENERATIONS_PER_SITE_MAX)?;
    let books = balance(&archive.tallies(reconcile.from_day)?, &marks);
    print("site\tday\tproduced\treceived\taccounted for as lost\tmissing\tproduced = received + accounted for")?;
    books.lines.iter().try_for_each(|line| print(&line_text(line)))?;
    for site in &books.contradictions {
        print(&format!(
            "{site}\tits days and its generations were counted differently: report this"
        ))?;
    }
    print("site\tgeneration\tproduced\treceived\taccounted\tmissing")?;
    for mark in marks {
        let missing = mark
            .produced()
            .saturating_sub(mark.received)
            .saturating_sub(mark.accounted);
        let (produced, received, accounted) = (mark.produced(), mark.received, mark.accounted);
        print(&format!(
            "{}\t{:016x}\t{produced}\t{received}\t{accounted}\t{missing}",
            mark.site, mark.generation
        ))?;
    }
    Ok(())
}

fn line_text(line: &Line) -> String {
    let Day {
        produced,
        received,
        accounted,
        missing,
    } = line.figures;
    let holds = if missing == 0 { "yes" } else { "NO" };
    let (site, day) = (&line.site, line.day);
    format!("{site}\t{day}\t{produced}\t{received}\t{accounted}\t{missing}\t{holds}")
}

/// One line to the output; a reader that closed it is no error.
fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing the output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_incident_of_last_week_is_not_recent_nor_is_one_that_nobody_tells_any_more() {
        let now_ms = 10 * CLOSED_KEPT_MS;
        let ended = |end_ms: u64| json!({"end_ms": end_ms, "updated_ms": now_ms});
        assert!(is_recent(&ended(now_ms - CLOSED_KEPT_MS), now_ms));
        assert!(!is_recent(&ended(now_ms - CLOSED_KEPT_MS - 1), now_ms));
        assert!(is_recent(&json!({"end_ms": null, "updated_ms": now_ms - 1}), now_ms));
        assert!(!is_recent(
            &json!({"end_ms": null, "updated_ms": now_ms - 2 * CLOSED_KEPT_MS}),
            now_ms
        ));
    }
}
