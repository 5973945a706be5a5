//! Healthy plugins in the process of the bad ones, called by the agent's own collector, each on a log of its own.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tillwatch_agent::plugin::collector::PluginCollector;
use tillwatch_agent::plugin::restraint::Restraint;
use tillwatch_border::Plugin;
use tillwatch_core::sample::Values;

use super::Arena;

/// The real interval is 10 s; whoever is called more often meets more.
const PAUSE: Duration = Duration::from_millis(20);
/// What comes later than this is lost.
const LATE: Duration = Duration::from_secs(1);
const LINES_PER_CALL: u64 = 5;
const DRAIN: Duration = Duration::from_secs(10);

pub(super) struct Neighbors {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(u64, u64)>>>,
}

impl Neighbors {
    pub(super) fn start(arena: &Arena, plugins: Vec<Plugin>) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (index, plugin) in plugins.into_iter().enumerate() {
            let file = arena.folder.path().join(format!("neighbor-{index}.log"));
            let log = File::create(&file)?;
            let mut config = arena.config_of("count");
            for grant in config.grants.values_mut() {
                if let tillwatch_agent::plugin::grant::Grant::Lines { file: granted, .. } = grant {
                    granted.clone_from(&file);
                }
            }
            let host = arena.host(&config)?;
            let collector = PluginCollector::start(plugin, &config, host, Restraint::default(), Arc::default())?;
            let flag = Arc::clone(&is_over);
            threads.push(std::thread::spawn(move || live(collector, log, &flag)));
        }
        Ok(Self { is_over, threads })
    }

    /// How many intervals they had, and how many of these were lost.
    pub(super) fn stop(self) -> Result<(u64, u64)> {
        self.is_over.store(true, Ordering::Relaxed);
        let (mut intervals, mut lost) = (0, 0);
        for thread in self.threads {
            let counted = thread
                .join()
                .map_err(|_panic| anyhow!("a neighbor's thread panicked"))??;
            intervals += counted.0;
            lost += counted.1;
        }
        Ok((intervals, lost))
    }
}

/// Each line must be counted once, whatever the others do meanwhile.
fn live(mut collector: PluginCollector, mut log: File, is_over: &AtomicBool) -> Result<(u64, u64)> {
    let (mut intervals, mut lost, mut written, mut counted) = (0, 0, 0, 0);
    while !is_over.load(Ordering::Relaxed) {
        for line in 0..LINES_PER_CALL {
            writeln!(log, "line {}", written + line)?;
        }
        written += LINES_PER_CALL;
        let begun = Instant::now();
        let lines = collect(&mut collector);
        intervals += 1;
        lost += u64::from(lines.is_none() || begun.elapsed() > LATE);
        counted += lines.unwrap_or(0);
        std::thread::sleep(PAUSE);
    }
    let begun = Instant::now();
    while counted < written && begun.elapsed() < DRAIN {
        counted += collect(&mut collector).unwrap_or(0);
    }
    counted += collect(&mut collector).context("a call without new lines")?;
    ensure!(counted == written, "of {written} lines {counted} were counted");
    Ok((intervals, lost))
}

fn collect(collector: &mut PluginCollector) -> Option<u64> {
    let collected = collector.collect()?;
    collector.commit();
    let sum = |values: &Values| match values {
        Values::Integers(values) => values.iter().sum(),
        Values::Reals(_) => 0_i64,
    };
    let lines: i64 = collected.batch.series.iter().map(|series| sum(&series.values)).sum();
    u64::try_from(lines).ok()
}
