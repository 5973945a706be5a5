//! The command line: what can be typed, and which module does it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tillwatch_log::Sparing;

use crate::bundle::commands as bundle;
use crate::clock::Clock;
use crate::config::Config;
use crate::inspect;
use crate::output;
use crate::plugin::host::Reading;
use crate::plugin::manifest::Manifest;
use crate::plugin::{self, bench, build, docs, golden, list, new, record};
use crate::preview::{self, Preview};
use crate::stop::Stop;
use crate::{backfill, backtest, check, doctor, findings, init, run};

/// Watches what a store's tills, queues and sales do, and tells central.
#[derive(Debug, Parser)]
#[command(name = "tillwatch", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    log: tracing::Level,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented agent.toml for this host.
    Init(init::Init),
    /// Say everything that is wrong with agent.toml, and what to do.
    Check(Settings),
    /// Look at each source, peer and clock as the agent would, and say what to mend.
    Doctor(Doctor),
    /// Collect, summarize, score and deliver until stopped.
    Run(Run),
    /// Print samples, summaries and findings as JSON lines while they happen; neither spool nor broker is touched.
    Tap(Settings),
    /// Read what rotated logs and folders still hold, oldest first, into the spool, and deliver it.
    Backfill(Backfill),
    /// Print what a plugin would have emitted for files of the past, window by window.
    Backtest(backtest::Backtest),
    /// Say what was found in this store and what it cost, also while the center is away.
    Findings(Doctor),
    /// Work with plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look into the spool, also beside a running agent; nothing in it changes.
    #[command(subcommand)]
    Spool(SpoolCommand),
}

#[derive(Debug, Args)]
struct Settings {
    /// The settings.
    #[arg(long, default_value = "/etc/tillwatch/agent.toml", value_name = "FILE")]
    config: PathBuf,
    /// Replayed time: START@SPEED, such as 2026-03-02T11:00:00Z@20.
    #[arg(long, hide = true, value_name = "START@SPEED", value_parser = parse_clock)]
    clock: Option<Clock>,
}

#[derive(Debug, Args)]
struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Collect once, deliver, end.
    #[arg(long)]
    once: bool,
    /// Print what would be sent as JSON lines; neither spool nor broker is touched.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Backfill {
    #[command(flatten)]
    settings: Settings,
    /// Leave what happened from this time on to `run`, such as 2026-03-02T11:00:00Z; by default now.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Fill the spool only; `run` delivers it.
    #[arg(long)]
    no_delivery: bool,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// List the installed plugins, what they measure and what they ask for.
    List(Settings),
    /// Make a new plugin's crate, ready to build, test and run.
    New(new::New),
    /// Build a plugin's crate to a .wasm beside its plugin.toml.
    Build {
        /// The folder of the crate.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run a plugin's test cases on its .wasm, in the sandbox.
    Test {
        /// The folder with plugin.toml, the .wasm and testcases/.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The component, when it is elsewhere.
        #[arg(long, value_name = "FILE")]
        wasm: Option<PathBuf>,
        /// Write what comes out to expected.jsonl.
        #[arg(long)]
        update: bool,
    },
    /// Write the tables of a plugin's README from its plugin.toml.
    Docs {
        /// The folder with plugin.toml and README.md.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Run one plugin without an agent, and print its samples.
    Run(plugin::run::Run),
    /// Say what a plugin costs on its test cases' input.
    Bench(bench::Bench),
    /// Make a redacted test case from what a live store's plugin reads.
    Record(record::Record),
    /// Say what a component, a bundle or a folder is: contract, imports, what it asks for and measures.
    Inspect(plugin::inspect::Inspect),
    /// Make one file of a built plugin, for stores.
    Pack(bundle::Pack),
    /// Sign a bundle, or a list of release keys.
    Sign(bundle::Sign),
    /// Say what a bundle is and who signed it.
    Verify(bundle::Verify),
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// List what is held, with its age and size.
    Ls(Settings),
    /// Read all of it, and say what is damaged and what that costs.
    Check(Settings),
    /// Print every record as JSON lines, or write the payloads into files.
    Export(Export),
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    settings: Settings,
    /// A file for each record instead, as `tillwatch-central decode` reads it.
    #[arg(long, value_name = "FOLDER")]
    payloads: Option<PathBuf>,
}

/// Runs the command; errors go to standard error in the form that `check` uses.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(cli.log)
        .event_format(Sparing::new(tracing_subscriber::fmt::format()))
        .init();
    match dispatch(cli.command) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&output::told(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(init) => init::run(&init)?,
        Command::Check(settings) => return check::run(&settings.config),
        Command::Doctor(doctor) => {
            return doctor::run(&doctor.settings.config, &doctor.settings.clock(), doctor.json);
        }
        Command::Run(run) if run.dry_run => {
            preview(
                &run.settings,
                Preview {
                    has_samples: false,
                    is_once: run.once,
                    reading: Reading::LIVE,
                },
            )?;
        }
        Command::Run(run) => run::run(
            &run.settings.config,
            &check::load(&run.settings.config)?,
            &run.settings.clock(),
            run.once,
        )?,
        Command::Tap(settings) => preview(
            &settings,
            Preview {
                has_samples: true,
                is_once: false,
                reading: Reading::TAP,
            },
        )?,
        Command::Backfill(backfill) => {
            let until_ms = backfill.until.map(unix_ms).transpose()?;
            let until_ms = until_ms.unwrap_or_else(|| backfill.settings.clock().now_ms());
            backfill::run(
                &check::load(&backfill.settings.config)?,
                until_ms,
                !backfill.no_delivery,
            )?;
        }
        Command::Backtest(arguments) => return backtest::run(&arguments),
        Command::Findings(arguments) => return findings::list(&load(&arguments.settings)?, arguments.json),
        Command::Plugin(PluginCommand::List(settings)) => list::run(&settings.config)?,
        Command::Plugin(PluginCommand::New(arguments)) => new::run(&arguments)?,
        Command::Plugin(PluginCommand::Build { folder }) => build::run(&folder)?,
        Command::Plugin(PluginCommand::Test { folder, wasm, update }) => {
            return golden::run(&folder, wasm.as_deref(), update);
        }
        Command::Plugin(PluginCommand::Docs { folder }) => write_docs(&folder)?,
        Command::Plugin(PluginCommand::Run(arguments)) => return plugin::run::run(&arguments),
        Command::Plugin(PluginCommand::Bench(arguments)) => bench::run(&arguments)?,
        Command::Plugin(PluginCommand::Record(arguments)) => record::run(&arguments)?,
        Command::Plugin(PluginCommand::Inspect(arguments)) => return plugin::inspect::run(&arguments),
        Command::Plugin(PluginCommand::Pack(arguments)) => bundle::run_pack(&arguments)?,
        Command::Plugin(PluginCommand::Sign(arguments)) => bundle::run_sign(&arguments)?,
        Command::Plugin(PluginCommand::Verify(arguments)) => bundle::run_verify(&arguments)?,
        Command::Spool(SpoolCommand::Ls(settings)) => inspect::list(&load(&settings)?)?,
        Command::Spool(SpoolCommand::Check(settings)) => return inspect::check(&load(&settings)?),
        Command::Spool(SpoolCommand::Export(export)) => {
            inspect::export(&load(&export.settings)?, export.payloads.as_deref())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The manifest is read whole first, so that a mistake is told with its place.
fn write_docs(folder: &Path) -> Result<()> {
    Manifest::load(folder)?;
    let readme = docs::write(folder)?;
    output::line(&format!("wrote {}", readme.display()))?;
    Ok(())
}

fn load(settings: &Settings) -> Result<Config> {
    Ok(Config::load(&settings.config)?)
}

fn preview(settings: &Settings, preview: Preview) -> Result<()> {
    let stop = Stop::default();
    run::stop_at_signal(&stop)?;
    preview::run(&check::load(&settings.config)?, &settings.clock(), &stop, preview)
}

impl Settings {
    fn clock(&self) -> Clock {
        self.clock.clone().unwrap_or_else(Clock::wall)
    }
}

fn parse_clock(text: &str) -> Result<Clock> {
    let (start, speed) = text.split_once('@').context("it is not START@SPEED")?;
    let start: Timestamp = start.parse()?;
    let speed: f64 = speed.parse()?;
    if !(speed.is_finite() && speed > 0.0) {
        bail!("the speed must be above 0");
    }
    Ok(Clock::scaled(unix_ms(start)?, speed))
}

fn unix_ms(time: Timestamp) -> Result<u64> {
    u64::try_from(time.as_millisecond()).context("times begin in 1970")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_replayed_clock_starts_where_it_is_told() {
        let clock = parse_clock("2026-03-02T11:00:00Z@20").unwrap();
        assert!(clock.now_ms() >= 1_772_449_200_000);
        for wrong in [
            "2026-03-02T11:00:00Z",
            "now@2",
            "2026-03-02T11:00:00Z@0",
            "2026-03-02T11:00:00Z@x",
        ] {
            assert!(parse_clock(wrong).is_err(), "{wrong}");
        }
    }
}
