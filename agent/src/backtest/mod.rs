//! `tillwatch backtest`: what a plugin would have emitted for files of the past, window by window; without a plugin, what
//! the detector says of any CSV file, in [`csv`].
//!
//! ```text
//!  FILES ─► plugin in its sandbox ─► core, told the time of the events ─► windows, merged ─► CSV or JSON lines
//! ```
//! In: a plugin, its settings and files, which are read in the given order. Out: each window and series once, in the order
//! of time; with `--json` also what was found. The plugin's clock shows the newest event so far, so that the same files
//! give the same output on any day. Neither spool nor broker nor the progress of an agent is touched.

mod csv;
mod inputs;
mod windows;

pub(crate) use csv::length;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use tillwatch_core::sample::{Batch, Kind, Metric, Values};
use tillwatch_core::tally::Tally;
use tillwatch_core::{Core, Settings, SourceKey};
use tillwatch_feed::codec::decode_body;
use tracing::subscriber::{NoSubscriber, with_default};

use crate::backfill;
use crate::clock::Clock;
use crate::config::{Replayed, replayed};
use crate::health::Health;
use crate::output;
use crate::plugin::collector::PluginCollector;
use crate::plugin::host::{GrantedHost, Reading};
use crate::plugin::load::limits;
use crate::plugin::outside::Code;
use crate::plugin::restraint::Restraint;
use crate::source::Start;
use inputs::{Input, inputs};
use windows::Windows;

/// Failed calls in a row after which it is given up; before that what the plugin fails at is skipped, as in the agent.
const FAILURES_MAX: u32 = 256;
/// The clock until the first event is known: no event is of this millisecond.
const UNSET_MS: u64 = 946_684_800_000;
/// Nobody else waits for the memory of one replay.
const OPEN_BYTES_MAX: usize = 256 << 20;
const PARSE_ERRORS: &str = "source.parse_errors";

/// In steps as of backfill, and each file alone: what is rotated away is named, too, or not meant.
const READING: Reading = Reading {
    start: Start::Live,
    ..Reading::BACKFILL
};

/// Arguments of `backtest`.
#[derive(Debug, Args)]
pub struct Backtest {
    /// The plugin: its name, or that of its [[plugin]] block in the settings file.
    /// Without one, FILES is one CSV file of times and values.
    #[arg(long, value_name = "NAME", requires = "settings")]
    plugin: Option<String>,
    /// An agent.toml, a file with [[plugin]] blocks, or one with the plugin's settings alone.
    #[arg(long, value_name = "FILE", requires = "plugin")]
    settings: Option<PathBuf>,
    /// Where plugins are installed, if not where the settings say.
    #[arg(long, value_name = "FOLDER", requires = "plugin")]
    plugin_dir: Option<PathBuf>,
    /// The plugin's source that the files stand for; by default documents for XML and folders, lines for all else.
    #[arg(long, value_name = "NAME", requires = "plugin")]
    source: Option<String>,
    /// JSON lines in place of CSV, with what was found.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    csv: csv::Options,
    /// Logs, documents, and folders of documents, in the order in which they are read.
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
}

/// Reads, and prints what came out.
///
/// # Errors
/// When the settings are wrong, the plugin does not run, or a file cannot be read.
pub fn run(arguments: &Backtest) -> Result<ExitCode> {
    match (&arguments.plugin, &arguments.settings) {
        (Some(plugin), Some(settings)) => replay(plugin, settings, arguments),
        _ => csv::run(&arguments.csv, &arguments.files, arguments.json),
    }
}

fn replay(plugin: &str, settings: &Path, arguments: &Backtest) -> Result<ExitCode> {
    let replayed = replayed(settings, plugin, arguments.plugin_dir.as_deref())?;
    let inputs = inputs(&arguments.files, arguments.source.as_deref(), &replayed.plugin.manifest)?;
    let bundle = replayed.plugin.bundle.as_ref();
    let code = Code::load(&replayed.plugin.wasm, bundle.map(|bundle| bundle.sha256.as_str()))?;
    // What this pass would say, the second says.
    let start_ms = with_default(NoSubscriber::new(), || first_event_ms(&replayed, &code, &inputs))?;

    let mut reader = Reader::start(&replayed, &code, Clock::told(start_ms))?;
    let mut replay = Replay::new(&replayed, &reader)?;
    for input in &inputs {
        reader.read(input, |clock, batch| replay.hear(clock, batch))?;
    }
    replay.end()?;
    for line in replay.windows.lines(arguments.json) {
        output::line(&line)?;
    }
    replay.tell_lost(reader.failures);
    let has_any = !replay.windows.is_empty();
    if !has_any {
        output::error("nothing came out\nhint: compare format and fields of the settings with what the files hold");
    }
    Ok(if has_any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plugin is started for it on its own: what it remembers of this is gone.
fn first_event_ms(replayed: &Replayed, code: &Code, inputs: &[Input]) -> Result<u64> {
    let mut reader = Reader::start(replayed, code, Clock::told(UNSET_MS))?;
    let metrics = reader.metrics().to_vec();
    let mut first_ms = None;
    for input in inputs {
        reader.read(input, |_clock, batch| {
            let series = batch.series.iter().filter(|series| {
                let metric = metrics.get(usize::from(series.metric));
                metric.is_some_and(|metric| metric.kind != Kind::Gauge)
            });
            let times = series.flat_map(|series| series.times_ms.iter().copied());
            first_ms = times.filter(|time_ms| *time_ms != UNSET_MS).min();
            Ok(first_ms.is_none())
        })?;
        if let Some(first_ms) = first_ms {
            return Ok(first_ms);
        }
    }
    Ok(inputs.first().map_or(UNSET_MS, |input| input.written_ms))
}

/// The plugin, which goes from file to file.
struct Reader {
    collector: PluginCollector,
    clock: Clock,
    failures: u32,
}

impl Reader {
    fn start(replayed: &Replayed, code: &Code, clock: Clock) -> Result<Self> {
        let config = &replayed.plugin;
        let health = Health::default().plugin(&config.name);
        let host = GrantedHost::new(
            &config.name,
            &BTreeMap::new(),
            None,
            READING,
            clock.clone(),
            health.clone(),
        )?;
        let collector = PluginCollector::start(code.start(limits(config))?, config, host, Restraint::default(), health)
            .with_context(|| format!("{} cannot run", config.place.what))?;
        Ok(Self {
            collector,
            clock,
            failures: 0,
        })
    }

    fn metrics(&self) -> &[Metric] {
        &self.collector.descriptor().metrics
    }

    /// Calls until the file holds nothing more, or `hand_on` says that it is enough.
    fn read(&mut self, input: &Input, mut hand_on: impl FnMut(&Clock, Batch) -> Result<bool>) -> Result<()> {
        let grants = BTreeMap::from([(input.source.clone(), input.grant.clone())]);
        self.collector.read_from(&grants)?;
        let mut in_a_row = 0;
        loop {
            let Some(collected) = self.collector.collect() else {
                (in_a_row, self.failures) = (in_a_row + 1, self.failures + 1);
                if in_a_row > FAILURES_MAX {
                    let why = self.collector.failure().unwrap_or("it is not called").to_owned();
                    bail!("{}: the plugin keeps failing: {why}", input.path.display());
                }
                continue;
            };
            in_a_row = 0;
            let more = collected.batch.more;
            let goes_on = hand_on(&self.clock, collected.batch)?;
            self.collector.commit();
            if !more || !goes_on {
                return Ok(());
            }
        }
    }
}

/// The core, told the time of the events, and what came out of it.
struct Replay {
    core: Core,
    source: SourceKey,
    metrics: Vec<Metric>,
    told_ms: u64,
    newest_ms: u64,
    summary_ms: u64,
    refused: Tally,
    parse_errors: i64,
    windows: Windows,
}

impl Replay {
    fn new(replayed: &Replayed, reader: &Reader) -> Result<Self> {
        let Replayed { plugin, .. } = replayed;
        let mut core = Core::new(core_settings(replayed));
        core.begin_generation(None);
        let descriptor = reader.collector.descriptor();
        let metrics = descriptor.metrics.clone();
        let labels = plugin.manifest.labels.clone();
        let source = core
            .declare(&plugin.name, &descriptor.version, metrics.clone(), labels)
            .context("an agent refuses what it measures")?;
        Ok(Self {
            core,
            source,
            metrics,
            told_ms: 0,
            newest_ms: 0,
            summary_ms: u64::from(replayed.summary_ms),
            refused: Tally::default(),
            parse_errors: 0,
            windows: Windows::default(),
        })
    }

    fn hear(&mut self, clock: &Clock, batch: Batch) -> Result<bool> {
        let times = || batch.series.iter().flat_map(|series| series.times_ms.iter().copied());
        let (first_ms, newest_ms) = (times().min(), times().max());
        self.count_parse_errors(&batch);
        if let Some(first_ms) = first_ms.filter(|first_ms| *first_ms > self.told_ms) {
            self.told_ms = first_ms;
            self.core.on_read(first_ms);
            self.core.on_tick(first_ms);
        }
        let accepted = self.core.on_batch(self.told_ms, self.source, batch, Vec::new());
        self.refused.add_all(&accepted.refused);
        self.newest_ms = self.newest_ms.max(newest_ms.unwrap_or_default());
        clock.tell(self.newest_ms);
        self.take_records()?;
        Ok(true)
    }

    /// Closes what is open; that nothing came after the newest event is nobody's fault.
    fn end(&mut self) -> Result<()> {
        self.core.on_read(self.newest_ms);
        self.core.on_tick(self.newest_ms + 3 * self.summary_ms);
        self.core.flush_open();
        self.take_records()
    }

    fn take_records(&mut self) -> Result<()> {
        for record in self.core.take_records() {
            let body = decode_body(&record.payload).context("reading a record of our own")?;
            self.windows.take(body)?;
        }
        Ok(())
    }

    fn count_parse_errors(&mut self, batch: &Batch) {
        for series in &batch.series {
            let metric = self.metrics.get(usize::from(series.metric));
            if let (true, Values::Integers(values)) =
                (metric.is_some_and(|metric| metric.name == PARSE_ERRORS), &series.values)
            {
                self.parse_errors = values
                    .iter()
                    .fold(self.parse_errors, |sum, value| sum.saturating_add(*value));
            }
        }
    }

    /// Not on standard output, which holds windows.
    fn tell_lost(&self, failures: u32) {
        for (reason, count) in self.refused.iter().filter(|(_reason, count)| *count > 0) {
            output::error(&format!("{count} values are dropped: {reason}"));
        }
        if self.parse_errors > 0 {
            output::error(&format!("{} parse errors", self.parse_errors));
        }
        if failures > 0 {
            output::error(&format!(
                "{failures} calls failed, and what the plugin fails at is skipped"
            ));
        }
    }
}

/// As of backfill: all of history counts.
fn core_settings(replayed: &Replayed) -> Settings {
    let mut limits = backfill::limits();
    limits.lateness_max_ms = limits.ahead_max_ms;
    limits.open_bytes_max = OPEN_BYTES_MAX;
    limits.source_open_bytes_max = OPEN_BYTES_MAX;
    limits.batch_record_bytes_max = OPEN_BYTES_MAX;
    Settings {
        window_ms: replayed.window_ms,
        summary_ms: replayed.summary_ms,
        time_zone: replayed.time_zone.clone(),
        calendar: replayed.calendar.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        limits,
    }
}
