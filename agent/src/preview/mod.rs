//! `run --dry-run` and `tap`: the whole way of a datum up to the spool, printed as JSON lines.
//!
//! In: the configured collectors. Out: lines on standard output. It opens neither spool nor broker and keeps no progress.

pub mod json;

use anyhow::{Context, Result};
use tillwatch_core::sample::{Batch, Metric};
use tillwatch_core::{Core, SourceKey};
use tillwatch_feed::codec::decode_body;

use crate::clock::Clock;
use crate::collectors::{self, Source, Started, wait_for};
use crate::config::Config;
use crate::output;
use crate::plugin::host::Reading;
use crate::run::core_settings;
use crate::stop::Stop;

/// What is printed, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Each collected value, too.
    pub has_samples: bool,
    /// Collect once, close all windows, end.
    pub is_once: bool,
    pub reading: Reading,
}

/// Collects and prints until it is stopped.
///
/// # Errors
/// When a collector cannot start, or nobody reads the output.
pub fn run(config: &Config, clock: &Clock, stop: &Stop, preview: Preview) -> Result<()> {
    let how = collectors::Start {
        clock,
        reading: preview.reading,
        progress: &|_source| None,
        clears_cache: false,
        status: None,
    };
    let mut printer = Printer::new(config, collectors::start(config, &how), preview)?;
    let mut due = vec![clock.now_ms(); printer.sources.len()];
    loop {
        let now_ms = clock.now_ms();
        for (index, due_ms) in due.iter_mut().enumerate() {
            if *due_ms <= now_ms {
                printer.collect(index, clock)?;
                *due_ms = printer.sources[index].0.schedule.next_after(now_ms);
            }
        }
        if preview.is_once {
            return printer.tick(now_ms + 2 * u64::from(config.summary_ms));
        }
        printer.tick(clock.now_ms())?;
        let next_ms = due
            .iter()
            .copied()
            .min()
            .unwrap_or(u64::MAX)
            .min(printer.core.next_wake());
        if stop.wait(wait_for(clock, next_ms)) {
            return Ok(());
        }
    }
}

struct Printer {
    core: Core,
    sources: Vec<(Source, SourceKey)>,
    json: json::Writer,
    has_samples: bool,
}

impl Printer {
    fn new(config: &Config, started: Started, preview: Preview) -> Result<Self> {
        let mut core = Core::new(core_settings(config));
        core.begin_generation(None);
        let sources = started.declare(config, |source, what| {
            core.declare(source, &what.version, what.metrics, what.labels)
        })?;
        Ok(Self {
            core,
            sources,
            json: json::Writer::default(),
            has_samples: preview.has_samples,
        })
    }

    fn collect(&mut self, index: usize, clock: &Clock) -> Result<()> {
        let (core, has_samples) = (&mut self.core, self.has_samples);
        let (source, key) = &mut self.sources[index];
        let (metrics, mut printed) = (source.declaration.metrics.clone(), Ok(()));
        source.collect_round(clock, |name, collected| {
            if has_samples {
                printed = print_samples(name, &metrics, &collected.batch);
            }
            core.on_batch(clock.now_ms(), *key, collected.batch, collected.progress);
            printed.is_ok()
        });
        printed
    }

    fn tick(&mut self, now_ms: u64) -> Result<()> {
        self.core.on_tick(now_ms);
        for record in self.core.take_records() {
            let body = decode_body(&record.payload).context("reading a record of our own")?;
            for line in self.json.lines(&body) {
                output::line(&line)?;
            }
        }
        Ok(())
    }
}

fn print_samples(source: &str, metrics: &[Metric], batch: &Batch) -> Result<()> {
    for line in json::samples(source, metrics, batch) {
        output::line(&line)?;
    }
    Ok(())
}
