//! `tillwatch backfill`: what rotated logs and folders still hold, through the normal way, in the order of event time.
//!
//! ```text
//!  plugin `sales`  ─ one batch ahead ┐
//!  plugin `queue`  ─ one batch ahead ├─ earliest first ─► keeper (told the time) ─► spool ─► uplink
//!  ...                               ┘
//! ```
//! Each plugin reads in small steps and is at most one batch ahead, so memory is bounded and a step is as far out of
//! order as one batch is long. Progress goes into the same checkpoint that `run` uses: what was backfilled is not read
//! again, and what was not is left to `run`. Without delivery it ends when the spool is nearly full.

use anyhow::{Context, Result, bail};
use tillwatch_core::sample::Batch;
use tillwatch_core::{Limits, SourceKey};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::collectors::{self, Source};
use crate::config::Config;
use crate::keeper::{FromSource, Keeper, Status};
use crate::plugin::collector::Collected;
use crate::plugin::host::Reading;
use crate::run::{FROM_SOURCES_MAX, accept_bundles, declare, deliver, keeper_settings, runtime, spool_folder};

/// Event time between two frames of the spool.
const STEP_MS: u64 = 30 * 60_000;
/// Batches may reach so far beyond the time that was told: all of history.
const AHEAD_MAX_MS: u64 = 100 * 365 * 86_400_000;
/// One batch may span a day of windows; all are judged.
const WINDOWS_OPEN_MAX: usize = 8_640;
/// Nights and closed days are judged too; longer pauses are not.
const JUDGED_LATE_MAX: u64 = 30_000;
/// Records that wait for central before reading goes on.
const WAITING_RECORDS_MAX: u64 = 20_000;
/// Failed calls in a row after which a plugin's past is left alone.
const FAILURES_MAX: u32 = 256;

/// Reads everything before `until_ms` into the spool, and delivers it when asked to.
///
/// # Errors
/// Whatever keeps the agent from starting whole, and a spool that is in use by a running agent.
pub fn run(config: &Config, until_ms: u64, is_delivering: bool) -> Result<()> {
    runtime()?.block_on(Box::pin(backfill(config, until_ms, is_delivering)))
}

/// Those of a store, but for how far batches reach.
pub(crate) fn limits() -> Limits {
    Limits {
        ahead_max_ms: AHEAD_MAX_MS,
        windows_open_max: WINDOWS_OPEN_MAX,
        open_intervals_max: WINDOWS_OPEN_MAX,
        judged_late_max: JUDGED_LATE_MAX,
        ..Limits::default()
    }
}

async fn backfill(config: &Config, until_ms: u64, is_delivering: bool) -> Result<()> {
    let mut settings = keeper_settings(config);
    settings.core.limits = limits();
    // History stays in its files rather than push itself out of the spool; the rest of the room is for what is on its way.
    settings.wait_at_bytes = Some(settings.spool.bytes_max / 4 * 3);
    settings.wait_at_records = is_delivering.then_some(WAITING_RECORDS_MAX);
    settings.uplink = settings.uplink.filter(|_uplink| is_delivering);
    let mut keeper = Keeper::open(settings, &spool_folder(config)?, Clock::told(0))?;

    let progress = |source: &str| keeper.progress(source).map(<[u8]>::to_vec);
    let clock = Clock::told(until_ms);
    let started = collectors::start(
        config,
        &collectors::Start {
            clock: &clock,
            reading: Reading::BACKFILL,
            progress: &progress,
            clears_cache: false,
            status: None,
        },
    );
    let declared = declare(config, &mut keeper, started)?;
    accept_bundles(config)?;
    let with_past = declared.into_iter().filter(|(source, _key)| source.has_past());
    let lanes: Vec<Lane> = with_past.map(Lane::new).collect();
    for Lane { source, .. } in &lanes {
        if keeper.progress(&source.name).is_some() {
            let plugin = source.name.as_str();
            info!(
                plugin,
                "goes on where it was read last: what is older in its files counts as read"
            );
        }
    }

    let mut status = keeper.status();
    let (sender, from_sources) = mpsc::channel(FROM_SOURCES_MAX);
    let keeper = tokio::spawn(Box::pin(keeper.run(from_sources)));
    let merged = {
        let sender = sender.clone();
        tokio::task::spawn_blocking(move || merge(lanes, until_ms, &sender))
    };
    let batches = tokio::select! {
        biased;
        merged = merged => merged.context("reading broke")??,
        // Nobody is there who could make room; the reader ends with the keeper.
        Ok(status) = full(&mut status), if !is_delivering => bail!(
            "the spool is full with {} records of history; the rest stays in its files\nhint: deliver it with `tillwatch run`, \
             or raise bytes_max of [spool], and start `tillwatch backfill` again",
            status.records_held
        ),
    };
    sender
        .send(FromSource::Clock(Clock::wall()))
        .await
        .context("the keeper is gone")?;
    if is_delivering {
        deliver(&sender, status).await?;
    }
    drop(sender);
    let last = keeper.await.context("the keeper broke")?;
    info!(
        batches,
        samples = last.core.samples,
        records = last.records_kept,
        records_held = last.records_held,
        "backfilled"
    );
    Ok(())
}

async fn full(status: &mut watch::Receiver<Status>) -> Result<Status> {
    Ok(status.wait_for(|status| status.is_waiting).await?.clone())
}

/// A source and the batch that it is ahead.
struct Lane {
    source: Source,
    key: SourceKey,
    progress: Vec<u8>,
    ahead: Option<(u64, Collected)>,
    is_done: bool,
}

impl Lane {
    fn new((source, key): (Source, SourceKey)) -> Self {
        Self {
            source,
            key,
            progress: Vec::new(),
            ahead: None,
            is_done: false,
        }
    }

    /// Reads the next batch that says anything; done when nothing is left to read.
    fn read_ahead(&mut self, now_ms: u64) {
        let mut failures = 0;
        while self.ahead.is_none() && !self.is_done {
            let Some(collected) = self.source.collect(now_ms) else {
                failures += 1;
                self.is_done = failures > FAILURES_MAX;
                if self.is_done {
                    warn!(
                        plugin = self.source.name,
                        "its past is left to `run`, as it keeps failing"
                    );
                }
                continue;
            };
            failures = 0;
            match first_ms(&collected.batch) {
                Some(head_ms) => self.ahead = Some((head_ms, collected)),
                // Nothing but, say, wrong lines: gone on from, but not from the end.
                None if collected.progress != self.progress => {
                    self.progress = collected.progress;
                    self.source.commit();
                }
                None => self.is_done = true,
            }
        }
    }
}

fn first_ms(batch: &Batch) -> Option<u64> {
    batch
        .series
        .iter()
        .flat_map(|series| series.times_ms.iter().copied())
        .min()
}

/// Hands on the earliest batch of all lanes until they are done or beyond `until_ms`; how many batches there were.
fn merge(mut lanes: Vec<Lane>, until_ms: u64, keeper: &mpsc::Sender<FromSource>) -> Result<u64> {
    let (mut batches, mut told_ms) = (0, 0);
    loop {
        lanes.iter_mut().for_each(|lane| lane.read_ahead(until_ms));
        let heads = lanes.iter_mut().filter_map(|lane| Some((lane.ahead.as_ref()?.0, lane)));
        let Some((head_ms, lane)) = heads
            .min_by_key(|(head_ms, _lane)| *head_ms)
            .filter(|(head_ms, _lane)| *head_ms < until_ms)
        else {
            break;
        };
        if head_ms >= told_ms + STEP_MS {
            told_ms = head_ms;
            send(keeper, FromSource::Tick { now_ms: head_ms })?;
        }
        if let Some((_head_ms, Collected { batch, progress })) = lane.ahead.take() {
            lane.progress.clone_from(&progress);
            send(
                keeper,
                FromSource::Batch {
                    source: lane.key,
                    batch,
                    progress,
                    room: None,
                },
            )?;
            lane.source.commit();
            batches += 1;
        }
    }
    send(keeper, FromSource::Tick { now_ms: until_ms })?;
    Ok(batches)
}

fn send(keeper: &mpsc::Sender<FromSource>, message: FromSource) -> Result<()> {
    keeper.blocking_send(message).ok().context("the keeper is gone")
}
