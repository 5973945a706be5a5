//! The keeper of one site: the only owner of its state machine, its spool and its delivery.
//!
//! In: batches of the sources with how far each has come, reports of the uplink, time. Out: records on disk, payloads
//! to the uplink, and what an observer wants to see. It never reads a source and never opens a socket.
//!
//! ```text
//!  sources ──Batch──► ┌ core ─records + checkpoint─► spool ┐
//!                     │                                runs│       ┌────────┐
//!  clock ───tick────► │         delivery ◄─────────────────┘  ───► │ uplink │ ══► broker
//!                     └ acknowledgement ─► delivery ─► spool  ◄─── └────────┘
//! ```
//! A batch counts once: its values and how far its source has come are in the same checkpoint, and that is written in
//! one frame with the records that came of it. While the disk refuses to write, nothing is taken from the sources.

mod flow;
mod delivering;
mod metering;
mod snapshot;
mod wire;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use tokio::time::Instant;

use metering::Metering;
use tillwatch_border::wire::PLUGINS_MAX;
use tillwatch_core::budget::Spent;
use tillwatch_core::core::Counters as CoreCounters;
use tillwatch_core::delivery::{Delivery, DeliverySettings, Send as ToSend};
use tillwatch_core::local::Local;
use tillwatch_core::sample::{Batch, Metric};
use tillwatch_core::tally::Tally;
use tillwatch_core::{Accepted, Core, DeclareError, LabelPolicy, NewRecord, RestoreError, SourceKey};
use tillwatch_feed::message::{Ack, RecordId, State};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tracing::{error, warn};

use crate::clock::Clock;
use crate::collectors::Declaration;
use crate::rate::SaidByKind;
use crate::spool::{
    Disk, FRAME_BYTES_MAX, MemoryDisk, Note, Recovery, Spool, SpoolCounters, SpoolError, SpoolSettings,
};
use crate::uplink::UplinkSettings;

/// Of a plugin's progress: its state, and the marks of the documents that it has read.
const PROGRESS_BYTES: usize = 128 << 10;

const _: () = {
    let limits = &tillwatch_core::Limits::DEFAULT;
    let progress_bytes = PLUGINS_MAX * PROGRESS_BYTES;
    assert!(
        limits.checkpoint_bytes_max() + progress_bytes <= FRAME_BYTES_MAX,
        "a checkpoint that no frame holds would stop the agent"
    );
    assert!(
        limits.records_bytes_max() <= FRAME_BYTES_MAX,
        "records that no frame holds are lost, with those of other sources"
    );
};

/// What the keeper is made of.
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    pub core: tillwatch_core::Settings,
    pub spool: SpoolSettings,
    pub delivery: DeliverySettings,
    /// Without one everything stays in the spool.
    pub uplink: Option<UplinkSettings>,
    /// Of the connection, both ways; none is no limit.
    pub bytes_per_day: Option<u64>,
    /// Where they are counted across restarts.
    pub traffic_file: Option<PathBuf>,
    /// Where the detectors' memory is kept across restarts.
    pub detectors_file: Option<PathBuf>,
    /// With so many records held, nothing more is taken from the sources until the center has acknowledged some: for
    /// history that can wait. Without it the spool's own bounds drop the oldest.
    pub wait_at_records: Option<u64>,
    /// The same by the bytes of the spool.
    pub wait_at_bytes: Option<u64>,
}

/// Beside the detectors' memory.
pub const LOCAL_FILE: &str = "findings";

impl KeeperSettings {
    /// Where stands what the store itself is told.
    fn local_file(&self) -> Option<PathBuf> {
        Some(self.detectors_file.as_ref()?.with_file_name(LOCAL_FILE))
    }
}

/// What the store was told; none when there is no file, or it is damaged: that costs history, and no data.
#[must_use]
pub fn read_local(file: &Path) -> Option<Local> {
    serde_json::from_slice(&snapshot::read(file)?).ok()
}

/// What a source, or the driver of a replay, has to say. The channel's end is an orderly stop.
#[derive(Debug)]
pub enum FromSource {
    /// Values, and how far the source has come with them.
    Batch {
        source: SourceKey,
        batch: Batch,
        progress: Vec<u8>,
        /// Its bytes among those on their way, given back once it was taken.
        room: Option<OwnedSemaphorePermit>,
    },
    /// From its next batch on a source measures something else.
    Declare {
        source: String,
        declaration: Declaration,
        answer: SyncSender<Result<SourceKey, DeclareError>>,
    },
    /// For a told clock: it is now so late. Everything that has closed by then becomes one frame.
    Tick { now_ms: u64 },
    /// History is over: go on with this clock.
    Clock(Clock),
    /// Answered once everything before it was taken: whether what has closed is on disk.
    Flush(oneshot::Sender<bool>),
}

/// What an observer sees.
#[derive(Debug)]
pub enum Observation<'a> {
    Accepted {
        source: SourceKey,
        batch: &'a Batch,
        accepted: Accepted,
    },
    /// Records that are now on disk.
    Kept {
        ids: &'a [RecordId],
        records: &'a [NewRecord],
    },
    Connected(bool),
    Sent {
        bytes: usize,
        what: &'a ToSend,
    },
    Acked(&'a Ack),
}

/// Sees everything as it happens, on the keeper's own task: it must be quick.
pub type Observer = Box<dyn FnMut(&Observation<'_>) + std::marker::Send>;

/// How it stands, for the health file, the service manager and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub generation: u64,
    pub connected: bool,
    /// When an archive last acknowledged something, by the clock; 0 for never.
    pub acked_ms: u64,
    /// By the clock; 0 for never.
    pub kept_ms: u64,
    pub records_kept: u64,
    pub records_held: u64,
    pub spool_bytes: u64,
    /// Nothing is taken from the sources: so much is held that they wait for the center.
    pub is_waiting: bool,
    pub in_flight: u64,
    pub parked: u64,
    /// Of the connection, today, and how coarse the feed is for it.
    pub spent: Spent,
    /// None is no limit.
    pub bytes_per_day: Option<u64>,
    /// Of the connection since the start, both ways.
    pub traffic_bytes: u64,
    pub counters: Counters,
    pub spool: SpoolCounters,
    pub core: CoreCounters,
    /// What was dropped of each source.
    pub refused: BTreeMap<String, Tally>,
    /// Why nothing is written to disk.
    pub storage_fault: Option<String>,
}

/// What the keeper counts from its start on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub published: u64,
    pub published_bytes: u64,
    /// Payloads that the broker refused; each is sent again later.
    pub refused: u64,
    /// Messages of the broker that are not for us, or not understood.
    pub ignored: u64,
    /// Records of frames that were too large to be kept; a gap stands for them.
    pub records_too_large: u64,
    /// Records that could not be read back from disk, or not be understood.
    pub records_unreadable: u64,
    /// Records that two connections refused.
    pub records_given_up: u64,
    /// Dictionaries that could not be read back.
    pub births_unreadable: u64,
    /// Times that an archive acknowledged what this spool never wrote.
    pub spool_rewound: u64,
    /// Acknowledgements of archives that are not in the settings.
    pub acks_unknown: u64,
    /// Times that an archive was restored and everything it lost is sent again.
    pub archive_restarts: u64,
    /// Times that the spool was opened again after a failed sync.
    pub spool_reopened: u64,
    pub snapshots_failed: u64,
}

/// Why a keeper does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(
        "the checkpoint of the spool is not understood\nhint: start the version that wrote it last; \
         to give up what it holds, move the spool folder away, and lines that are still there are sent again"
    )]
    Checkpoint(#[from] RestoreError),
}

/// See the module.
pub struct Keeper {
    settings: KeeperSettings,
    clock: Clock,
    core: Core,
    spool: Spool,
    delivery: Delivery,
    metering: Metering,
    generation: u64,
    /// Taken from the core and not yet on disk.
    unsaved: Vec<NewRecord>,
    /// When writing is tried again, on real time; none while writing works.
    retry_write_ms: Option<u64>,
    next_snapshot_ms: u64,
    /// Revision of what the store is told that is on disk.
    local_written: u64,
    next_state_ms: u64,
    is_state_due: bool,
    /// What each token on the uplink stands for.
    on_uplink: BTreeMap<u64, ToSend>,
    next_token: u64,
    said: SaidByKind,
    started: Instant,
    boot_id: u64,
    observer: Option<Observer>,
    status: watch::Sender<Status>,
    state: watch::Sender<State>,
}

impl Keeper {
    /// Opens what the folder holds and goes on from its newest checkpoint. Without them it does not start: the sources
    /// would be read from their start again, and what was sent before would count twice.
    ///
    /// # Errors
    /// When another agent runs with this folder, when it cannot be used, and when its checkpoint is not understood.
    pub fn open(settings: KeeperSettings, dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let generation = random_generation();
        let (spool, recovery) = Spool::open(dir, &settings.spool, generation, written_ms())?;
        let opened = Opened {
            spool,
            recovery,
            generation,
        };
        Ok(Self::with_spool(settings, clock, opened)?)
    }

    /// A site whose spool is in memory: for simulated stores.
    #[must_use]
    pub fn in_memory(settings: KeeperSettings, clock: Clock) -> Self {
        let disk = Arc::new(MemoryDisk::default());
        let opened = open_spool(disk, &settings.spool).expect("memory neither fails nor fills up");
        Self::with_spool(settings, clock, opened).expect("new memory holds no checkpoint")
    }

    /// A site on a disk that fails on purpose.
    #[cfg(test)]
    fn on_disk(settings: KeeperSettings, disk: Arc<dyn Disk>, clock: Clock) -> anyhow::Result<Self> {
        let opened = open_spool(disk, &settings.spool)?;
        Ok(Self::with_spool(settings, clock, opened)?)
    }

    fn with_spool(settings: KeeperSettings, clock: Clock, opened: Opened) -> Result<Self, RestoreError> {
        let Opened {
            spool,
            recovery,
            generation,
        } = opened;
        report_notes(&recovery.notes);
        let detectors = settings.detectors_file.as_deref().and_then(snapshot::read);
        let mut core = restore_core(&settings, &recovery, detectors.as_deref())?;
        let local = settings.local_file().and_then(|file| read_local(&file));
        core.restore_local(local.unwrap_or_default(), clock.now_ms());
        core.begin_generation(recovery.previous);
        let mut delivery = Delivery::new(settings.delivery.clone());
        recovery.runs.iter().for_each(|run| delivery.on_held(*run));
        recovery.gaps.iter().for_each(|gap| delivery.on_gap(*gap));
        let traffic = settings.uplink.as_ref().map(|uplink| Arc::clone(&uplink.traffic));
        let metering = Metering::open(
            settings.bytes_per_day,
            traffic.unwrap_or_default(),
            settings.traffic_file.clone(),
            written_ms(),
        );
        core.set_resolution(0, metering.spent().resolution);
        let agent_version = settings.core.agent_version.clone();
        let status = Status {
            generation,
            ..Status::default()
        };
        Ok(Self {
            next_snapshot_ms: clock.now_ms().saturating_add(snapshot::INTERVAL_MS),
            clock,
            core,
            spool,
            delivery,
            metering,
            generation,
            unsaved: Vec::new(),
            retry_write_ms: None,
            local_written: 0,
            next_state_ms: 0,
            is_state_due: false,
            on_uplink: BTreeMap::new(),
            next_token: 1,
            said: SaidByKind::default(),
            started: Instant::now(),
            // Clock readings count from the agent's start, as this generation does.
            boot_id: generation,
            observer: None,
            status: watch::Sender::new(status),
            state: watch::Sender::new(State {
                generation,
                agent_version,
                ..State::default()
            }),
            settings,
        })
    }

    /// A source says what it measures; before `run`, and again when that changes.
    ///
    /// # Errors
    /// When a metric or a label policy is not acceptable.
    pub fn declare(
        &mut self,
        source: &str,
        version: &str,
        metrics: Vec<Metric>,
        labels: BTreeMap<String, LabelPolicy>,
    ) -> Result<SourceKey, DeclareError> {
        self.core.declare(source, version, metrics, labels)
    }

    /// Where the source was when its last counted batch came.
    #[must_use]
    pub fn progress(&self, source: &str) -> Option<&[u8]> {
        self.core.progress(source)
    }

    /// One observer; a second call replaces the first.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Follows how it stands.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

struct Opened {
    spool: Spool,
    recovery: Recovery,
    generation: u64,
}

fn open_spool(disk: Arc<dyn Disk>, settings: &SpoolSettings) -> std::io::Result<Opened> {
    let generation = random_generation();
    let (spool, recovery) = Spool::open_on(disk, settings, generation, written_ms())?;
    Ok(Opened {
        spool,
        recovery,
        generation,
    })
}

/// The age of a record is that of its writing, on the machine's clock: history that is told weeks late has just come.
fn written_ms() -> u64 {
    Clock::wall().now_ms()
}

/// Never 0, which stands for none.
fn random_generation() -> u64 {
    getrandom::u64().unwrap_or_else(|_no_entropy| fastrand::u64(..)).max(1)
}

fn restore_core(
    settings: &KeeperSettings,
    recovery: &Recovery,
    detectors: Option<&[u8]>,
) -> Result<Core, RestoreError> {
    match recovery.checkpoint.as_deref() {
        Some(checkpoint) => Core::restore(settings.core.clone(), checkpoint, detectors),
        None => Ok(Core::new(settings.core.clone())),
    }
}

fn report_notes(notes: &[Note]) {
    for note in notes {
        match note {
            // Every kill while writing leaves one: nothing was lost.
            Note::TornTail { bytes } => warn!(bytes, "cut off an unfinished write of the spool"),
            Note::LostCursor => warn!("the spool's cursor is lost, everything held is sent again"),
            Note::LostCheckpoint => error!("the spool's newest checkpoint is lost, lines may count twice"),
            Note::DamagedSegment { name } => error!(name, "a segment of the spool is damaged"),
            Note::UnreadableSegment { name } => error!(name, "a segment of the spool cannot be read"),
        }
    }
}

/// The error with its causes, in one line and without hints.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let lines: Vec<String> = causes
        .map(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
        .collect();
    lines.join(": ")
}
