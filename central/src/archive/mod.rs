//! What central knows for certain: one door to durable storage.
//!
//! In: batches of what came, each to be written whole or not at all. Out: the same after a restart.
//! SQL never leaves this folder; nothing here understands a payload.

mod schema;
mod read;
mod write;

use crate::cursor::Mark;
use crate::rollup::Rollup;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tillwatch_feed::topic::SiteId;

pub use write::Sqlite;

/// Undecodable payloads kept of one site; the oldest go first.
pub const UNDECODED_PER_SITE_MAX: u32 = 256;
/// Births kept of one site; those that no kept payload names go first, then those that came longest ago.
pub const BIRTHS_PER_SITE_MAX: u32 = 128;
/// Sums of a day or quarter that lies farther ahead of central's time and of the wall clock come from a wrong clock.
pub const SUMS_AHEAD_MS_MAX: u64 = 400 * 24 * 60 * 60 * 1_000;
/// Generations of one site whose marks are kept; those heard longest ago go first.
pub const GENERATIONS_PER_SITE_MAX: u32 = 4_096;

/// Why the archive did not do as told. After any error of [`Archive::commit`] nothing of the batch is stored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("opening archive {path}")]
    Open { path: String, source: rusqlite::Error },
    #[error(
        "archive {path} has layout {found}, this program reads {known}\n  hint: use the program that wrote it, or a new file"
    )]
    Layout { path: String, found: i64, known: i64 },
    #[error(
        "archive {path} belongs to archive id {found:?}, not {wanted:?}\n  hint: each archive id needs a file of its own"
    )]
    Identity {
        path: String,
        found: String,
        wanted: String,
    },
    #[error("the disk under the archive is full")]
    Full { source: rusqlite::Error },
    #[error("the archive failed")]
    Sql(#[source] rusqlite::Error),
    #[error("row {row} of table {table} cannot be read: {what}")]
    Row {
        table: &'static str,
        row: i64,
        what: String,
    },
}

/// A message as it came, of which at least one record was fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub site: SiteId,
    pub generation: u64,
    pub seq_first: u64,
    pub seq_last: u64,
    /// The records of it that count; the others had come before.
    pub fresh: Vec<(u64, u64)>,
    /// Event time that it covers, UTC milliseconds.
    pub start_ms: u64,
    pub end_ms: u64,
    /// Event time from which on it ages: `end_ms`, unless that is too far ahead to be believed; while it waits for a
    /// birth, its arrival at the earliest.
    pub ages_ms: u64,
    /// Central's wall clock when it came, UTC milliseconds; 0 when nobody told it.
    pub arrived_ms: u64,
    /// The schema that it names; a finding names none.
    pub schema: Option<u64>,
    /// That schema's birth has not come yet.
    pub is_waiting: bool,
    pub bytes: Vec<u8>,
}

/// A payload with its number in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: i64,
    pub payload: Payload,
}

/// A message with the dictionary of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirthRow {
    pub site: SiteId,
    pub schema: u64,
    /// Event time when it came, UTC milliseconds.
    pub came_ms: u64,
    pub bytes: Vec<u8>,
}

/// A birth by its name: site and schema.
pub type BirthKey = (SiteId, u64);

/// Bytes that could not be read, for a person to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecoded {
    pub site: SiteId,
    pub leaf: String,
    pub reason: String,
    pub bytes: Vec<u8>,
}

/// Records that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub site: SiteId,
    pub generation: u64,
    pub seq_first: u64,
    pub seq_last: u64,
    /// As [`Payload::ages_ms`].
    pub ages_ms: u64,
    pub reason: String,
}

/// Additions to what a generation of a site sent and lost on one day (UTC, days since 1970).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub site: SiteId,
    pub generation: u64,
    pub day: u32,
    /// Smallest and largest number among them.
    pub seq_first: u64,
    pub seq_last: u64,
    pub received: u64,
    pub accounted: u64,
}

/// The latest state payload of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteState {
    pub site: SiteId,
    pub bytes: Vec<u8>,
}

/// One incident as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentRow {
    pub id: String,
    pub json: String,
}

/// What became of the incidents since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncidentChanges {
    pub told: Vec<IncidentRow>,
    /// Ids of those that became part of another one: nothing of their own is left.
    pub absorbed: Vec<String>,
}

impl IncidentChanges {
    /// Adds what came later, when what came before is not written yet.
    pub fn add(&mut self, later: IncidentChanges) {
        self.told.retain(|row| !later.absorbed.contains(&row.id));
        self.told.extend(later.told);
        self.absorbed.extend(later.absorbed);
    }
}

/// Everything that one transaction writes.
#[derive(Debug, Default)]
pub struct Batch {
    pub payloads: Vec<Payload>,
    /// Stored payloads that have been read now, their birth having come.
    pub read_late: Vec<i64>,
    pub births: Vec<BirthRow>,
    pub undecoded: Vec<Undecoded>,
    pub lost: Vec<Lost>,
    pub tallies: Vec<Tally>,
    pub marks: Vec<Mark>,
    pub rollups: Vec<Rollup>,
    pub states: Vec<SiteState>,
    pub incidents: IncidentChanges,
    /// Central's event time after this batch.
    pub watermark_ms: Option<u64>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
            && self.read_late.is_empty()
            && self.births.is_empty()
            && self.undecoded.is_empty()
            && self.lost.is_empty()
            && self.marks.is_empty()
            && self.states.is_empty()
            && self.incidents == IncidentChanges::default()
    }
}

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Payloads, lost ranges and births that no payload names, by event time behind most sites.
    pub payloads_ms: u64,
    /// Quarter-hour sums, and incidents by their end. Sums that lie [`SUMS_AHEAD_MS_MAX`] ahead go, too: they would never
    /// be old.
    pub rollups_ms: u64,
}

/// What is old, and what lies ahead, is not so to the same stores when some clocks are far behind.
#[derive(Debug, Clone, Copy)]
pub struct PurgeTimes {
    /// What is older than the retention to this time goes: most stores have reached it.
    pub most_ms: u64,
    /// Sums that lie far ahead of this time go: no honest clock is later.
    pub latest_ms: u64,
}

/// What went because of its age.
#[derive(Debug, Default)]
pub struct Purged {
    pub rows: usize,
    pub births: Vec<BirthKey>,
}

/// Durable storage. A batch is there as a whole after `commit` returned, whatever happens to the machine, or not at all.
pub trait Archive: Send {
    /// Writes a batch; the births that went since their sites have more than [`BIRTHS_PER_SITE_MAX`].
    ///
    /// # Errors
    /// When the batch could not be made durable; nothing of it is stored then.
    fn commit(&mut self, batch: &Batch) -> Result<Vec<BirthKey>, ArchiveError>;

    /// Removes up to `rows_max` rows of each kind that are older than `retention` allows.
    ///
    /// # Errors
    /// When the storage fails.
    fn purge(&mut self, times: PurgeTimes, retention: Retention, rows_max: u32) -> Result<Purged, ArchiveError>;

    /// The marks of the generations heard last, up to `per_site_max` of each site.
    ///
    /// # Errors
    /// When the storage fails or holds what cannot be read; the same holds for all that follow.
    fn marks(&self, per_site_max: u32) -> Result<Vec<Mark>, ArchiveError>;

    /// # Errors
    /// See [`Archive::marks`].
    fn mark(&self, site: &SiteId, generation: u64) -> Result<Option<Mark>, ArchiveError>;

    /// # Errors
    /// See [`Archive::marks`].
    fn birth(&self, site: &SiteId, schema: u64) -> Result<Option<Vec<u8>>, ArchiveError>;

    /// The births that payloads wait for.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn births_missing(&self) -> Result<Vec<BirthKey>, ArchiveError>;

    /// Up to `max` payloads of a site that wait for a birth, oldest first.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn waiting(&self, site: &SiteId, schema: u64, max: u32) -> Result<Vec<Stored>, ArchiveError>;

    /// Quarter-hour sums of series with one of two roles, of slots that start within a time, one after the other.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn rollups(
        &self,
        roles: [&str; 2],
        within_ms: Range<u64>,
        each: &mut dyn FnMut(Rollup),
    ) -> Result<(), ArchiveError>;

    /// Payloads that reach beyond `from_ms` and wait for nothing, in the order in which they came.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn payloads_since(&self, from_ms: u64, each: &mut dyn FnMut(Stored)) -> Result<(), ArchiveError>;

    /// How far each site is: the latest end of its payloads.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn latest(&self) -> Result<Vec<(SiteId, u64)>, ArchiveError>;

    /// # Errors
    /// See [`Archive::marks`].
    fn watermark_ms(&self) -> Result<Option<u64>, ArchiveError>;

    /// # Errors
    /// See [`Archive::marks`].
    fn incidents(&self) -> Result<Vec<IncidentRow>, ArchiveError>;

    /// # Errors
    /// See [`Archive::marks`].
    fn states(&self) -> Result<Vec<SiteState>, ArchiveError>;

    /// What each generation of a site sent and lost on each day since `from_day`, by site and day.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn tallies(&self, from_day: u32) -> Result<Vec<Tally>, ArchiveError>;

    /// Records that were written off, in the order in which that was learned.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn lost(&self) -> Result<Vec<Lost>, ArchiveError>;

    /// Payloads that could not be read at all.
    ///
    /// # Errors
    /// See [`Archive::marks`].
    fn undecoded(&self) -> Result<Vec<Undecoded>, ArchiveError>;
}

/// Opens the archive in a file, making it when it is not there.
///
/// # Errors
/// When the file cannot be opened, is of another layout or belongs to another archive id.
pub fn open(path: &Path, id: &tillwatch_feed::topic::ArchiveId) -> Result<Sqlite, ArchiveError> {
    Sqlite::open(path, id)
}

/// Opens an archive that another process may be writing, to look only.
///
/// # Errors
/// As [`open`].
pub fn open_to_read(path: &Path) -> Result<Sqlite, ArchiveError> {
    Sqlite::open_to_read(path)
}

type SeriesCache = std::collections::HashMap<Arc<crate::decode::SeriesInfo>, i64>;
