//! Torture: real agents, brokers and centrals are killed, cut off and starved while a history of what each wrote is taken.
//!
//! In: how many cycles, a seed, how many lanes at once. Out: what was produced, archived, lost and doubled. A lane checks
//! its whole history every [`LEG`] cycles, after everything had its time to arrive.
//!
//! ```text
//!  numbered log ─► agent ─► fault proxy ─► mosquitto ─► fault proxy ─► central ─► archive ┐
//!                    └ spool ─► reader ┐       └─► recorder (every ack) ────────────────► history ─► check
//!                                      └──────────────────────────────────────────────────┘
//! ```
//! Only processes are killed here: what the kernel has taken it keeps.

pub mod disk;
pub mod history;
pub mod lane;
pub mod naive;
pub mod producer;
pub mod recorder;
pub mod schedule;
pub mod segments;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use history::Verdict;
use lane::Lane;

/// Cycles between two checks.
pub const LEG: u64 = 25;
/// Broken promises that are shown.
const SHOWN_MAX: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of all lanes together.
    pub cycles: u64,
    pub seed: u64,
    pub lanes: u32,
    /// No cycle begins later.
    pub time_max: Duration,
    /// Where a run is written down after each leg, and taken up again.
    pub progress: Option<PathBuf>,
}

/// What was found, summed over the lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub cycles: u64,
    pub produced: u64,
    pub archived: u64,
    /// In records for which the agent told a gap.
    pub accounted: u64,
    pub lost: u64,
    pub duplicates_archived: u64,
    pub gaps_unaccounted: u64,
    /// All other broken promises.
    pub other_faults: u64,
    /// Copies of records at the broker; beyond the first; after the archive had the record.
    pub wire_copies: u64,
    pub wire_resent: u64,
    pub wire_duplicates: u64,
    pub naive_made: u64,
    pub naive_lost: u64,
    /// Processes killed with -9, and disks filled.
    pub kills: u64,
    pub disks_filled: u64,
}

impl Report {
    fn of(lane: &Lane, verdict: &Verdict) -> Self {
        let counts = lane.counts();
        let counted = verdict.gaps_unaccounted + u64::from(verdict.lost > 0) + verdict.duplicates_archived;
        let other = (verdict.broken.len() as u64).saturating_sub(counted);
        Self {
            cycles: counts.cycles,
            produced: verdict.produced,
            archived: verdict.archived,
            accounted: verdict.accounted,
            lost: verdict.lost,
            duplicates_archived: verdict.duplicates_archived,
            gaps_unaccounted: verdict.gaps_unaccounted,
            other_faults: if verdict.broken.is_empty() { 0 } else { other.max(1) },
            wire_copies: counts.wire_copies,
            wire_resent: counts.wire_resent,
            wire_duplicates: counts.wire_duplicates,
            naive_made: counts.naive_made,
            naive_lost: counts.naive_lost,
            kills: counts.kills,
            disks_filled: counts.disks_filled,
        }
    }

    fn add(&mut self, other: &Self) {
        let mine = self.numbers();
        for (mine, other) in mine.into_iter().zip(other.clone().numbers()) {
            *mine += *other;
        }
    }

    fn numbers(&mut self) -> [&mut u64; 15] {
        [
            &mut self.cycles,
            &mut self.produced,
            &mut self.archived,
            &mut self.accounted,
            &mut self.lost,
            &mut self.duplicates_archived,
            &mut self.gaps_unaccounted,
            &mut self.other_faults,
            &mut self.wire_copies,
            &mut self.wire_resent,
            &mut self.wire_duplicates,
            &mut self.naive_made,
            &mut self.naive_lost,
            &mut self.kills,
            &mut self.disks_filled,
        ]
    }

    /// Of all copies of records on the wire.
    pub fn wire_duplicates_percent(&self) -> f64 {
        100.0 * self.wire_duplicates as f64 / self.wire_copies.max(1) as f64
    }

    /// Was every promise kept?
    pub fn is_good(&self) -> bool {
        self.lost + self.duplicates_archived + self.gaps_unaccounted + self.other_faults == 0
    }
}

/// What is written down after each leg.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    seed: u64,
    lanes: Vec<Report>,
}

impl Progress {
    fn load(settings: &Settings) -> Result<Self> {
        let new = Self {
            seed: settings.seed,
            lanes: vec![Report::default(); usize::try_from(settings.lanes)?],
        };
        let Some(text) = settings
            .progress
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
        else {
            return Ok(new);
        };
        let old: Self = serde_json::from_str(&text).context("reading the progress of an earlier run")?;
        let fits = old.seed == new.seed && old.lanes.len() == new.lanes.len();
        ensure!(
            fits,
            "the progress is of seed {} with {} lanes",
            old.seed,
            old.lanes.len()
        );
        Ok(old)
    }
}

/// What all lanes share.
struct Run<'a> {
    settings: &'a Settings,
    begun: Instant,
    /// Since one of them failed, or somebody asked for the end.
    is_over: Arc<AtomicBool>,
    progress: Mutex<Progress>,
}

/// Runs all lanes to their end, or until one of them breaks a promise: then its folder is kept.
///
/// # Errors
/// When a lane failed; the message names seed, lane, cycle and folder.
pub fn run(settings: &Settings) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let run = Run {
        settings,
        begun: Instant::now(),
        is_over: Arc::default(),
        progress: Mutex::new(Progress::load(settings)?),
    };
    let is_over = Arc::clone(&run.is_over);
    runtime.spawn(async move {
        // Ctrl-C: each lane ends with a check of what it has.
        if tokio::signal::ctrl_c().await.is_ok() {
            is_over.store(true, Ordering::Relaxed);
        }
    });
    let failed = run.lanes(runtime.handle());
    let progress = run
        .progress
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => {
            let mut sum = Report::default();
            progress.lanes.iter().for_each(|lane| sum.add(lane));
            Ok(sum)
        }
    }
}

impl Run<'_> {
    /// All at once; why each that failed did.
    fn lanes(&self, runtime: &Handle) -> Vec<anyhow::Error> {
        std::thread::scope(|scope| {
            let lanes = (0..self.settings.lanes).map(|number| scope.spawn(move || self.lane(number, runtime)));
            let lanes: Vec<_> = lanes.collect();
            lanes
                .into_iter()
                .filter_map(|lane| match lane.join() {
                    Ok(ended) => ended.err(),
                    Err(_panic) => Some(anyhow::anyhow!("a lane broke")),
                })
                .collect()
        })
    }

    fn lane(&self, number: u32, runtime: &Handle) -> Result<()> {
        let place = tempfile::Builder::new()
            .prefix(&format!("torture-{number}-"))
            .tempdir()?;
        let ran = self.legs(number, place.path(), runtime);
        if ran.is_err() {
            self.is_over.store(true, Ordering::Relaxed);
            let kept = place.keep();
            return ran.with_context(|| format!("kept: {}", kept.display()));
        }
        ran
    }

    fn legs(&self, number: u32, place: &Path, runtime: &Handle) -> Result<()> {
        let before = self.report_of(number);
        let lanes = u64::from(self.settings.lanes);
        let cycles = self.settings.cycles / lanes + u64::from(u64::from(number) < self.settings.cycles % lanes);
        let mut lane = Lane::start(place, number, self.settings.seed, runtime)?;
        let mut cycle = before.cycles;
        while cycle < cycles && !self.is_over() {
            let end = cycles.min(cycle + LEG);
            let ended = self.leg(&mut lane, &mut cycle, end);
            let report = match ended {
                Ok(report) => report,
                Err(error) => {
                    lane.save()?;
                    let seed = self.settings.seed;
                    return Err(error.context(format!("seed {seed}, lane {number}, cycle {cycle}")));
                }
            };
            let mut sum = before.clone();
            sum.add(&report);
            self.write_down(number, sum)?;
        }
        Ok(())
    }

    fn leg(&self, lane: &mut Lane, cycle: &mut u64, end: u64) -> Result<Report> {
        while *cycle < end && !self.is_over() {
            lane.cycle(*cycle)?;
            *cycle += 1;
        }
        // Every other leg waits for all that is due by itself.
        let verdict = lane.settle(((end - 1) / LEG).is_multiple_of(2))?;
        let report = Report::of(lane, &verdict);
        if !report.is_good() {
            let shown: Vec<String> = verdict
                .broken
                .iter()
                .take(SHOWN_MAX)
                .map(|broken| format!("{broken:?}"))
                .collect();
            anyhow::bail!(
                "{} promises broken\n{}\n{report:?}",
                verdict.broken.len(),
                shown.join("\n")
            );
        }
        Ok(report)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.begun.elapsed() > self.settings.time_max
    }

    fn report_of(&self, number: u32) -> Report {
        let progress = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.lanes.get(number as usize).cloned().unwrap_or_default()
    }

    fn write_down(&self, number: u32, report: Report) -> Result<()> {
        let mut progress = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(lane) = progress.lanes.get_mut(number as usize) {
            *lane = report;
        }
        let text = serde_json::to_string(&*progress)?;
        match &self.settings.progress {
            Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display())),
            None => Ok(()),
        }
    }
}
