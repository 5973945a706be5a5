//! What is said over the feed: births, blocks, gaps, findings, states, acknowledgements.
//!
//! These are the working types; their bytes are the business of [`crate::codec`].
//! All times are UTC milliseconds. A *whole number* is a multiple of `10^-decimals` of the metric's unit.

use crate::score::Score;
use crate::summary::Summary;
use crate::topic::{ArchiveId, Leaf};

/// The name of a record, together with its site: where it stands in which life of the agent's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// One life of the numbering: a random number, new at each start of the agent.
    pub generation: u64,
    /// From 1 on in each generation.
    pub seq: u64,
}

/// One or more records of one generation on their way to an archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The life of the numbering under which the records were written.
    pub generation: u64,
    /// First record in this message.
    pub seq_first: u64,
    /// Last record in this message; all between are in it.
    pub seq_last: u64,
    /// Smallest seq of this generation that the agent still holds or accounts for by a gap.
    pub oldest_seq_held: u64,
    /// When this message was made.
    pub clock: ClockReading,
    /// What it says.
    pub body: Body,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A dictionary of series.
    Birth(Birth),
    /// Intervals of summaries.
    Block(Block),
    /// Records that no longer exist.
    Gap(GapReason),
    /// An anomaly of one series.
    Finding(Finding),
}

impl Body {
    /// The leaf of the topic on which this body travels.
    pub fn leaf(&self) -> Leaf {
        match self {
            Body::Birth(_) => Leaf::Birth,
            Body::Block(_) | Body::Gap(_) => Leaf::Sum,
            Body::Finding(_) => Leaf::Evt,
        }
    }
}

/// The agent's clocks at one moment, for the center to measure their offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    /// UTC milliseconds.
    pub wall_ms: u64,
    /// Milliseconds since an arbitrary point of this boot.
    pub monotonic_ms: u64,
    /// Changes when the machine restarts.
    pub boot_id: u64,
}

/// The dictionary without which a block cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Birth {
    /// [`Birth::schema_hash`] of the rest.
    pub schema: u64,
    /// Of the agent that wrote it.
    pub agent_version: String,
    /// Last record of the generation before this one, in the first record of a generation.
    pub previous: Option<RecordId>,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// Of which labels; blocks name these by id.
    pub series: Vec<Series>,
    /// By what code.
    pub plugins: Vec<Plugin>,
    /// Length of the windows that were scored.
    pub window_ms: u32,
}

/// A plugin that declared metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name in plugin.toml.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// How values of a metric relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A reading of a level, such as a queue's depth.
    Gauge,
    /// Increases of a running total, such as packets sent.
    Counter,
    /// Increments: each value is what was added, such as one sale.
    Sum,
    /// Single observations whose spread matters, such as a response time.
    Distribution,
}

/// A metric of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Such as `http.server.request.duration`.
    pub name: String,
    /// UCUM, such as `s`, `By`, `{message}`.
    pub unit: String,
    /// How its values relate to each other.
    pub kind: Kind,
    /// What the center builds its model on, such as `latency`; an open list, may be empty.
    pub role: String,
    /// Values are whole multiples of `10^-decimals` of the unit; 0 to 9.
    pub decimals: u8,
    /// ISO 4217 when the metric is money.
    pub currency: Option<String>,
    /// Index into [`Birth::plugins`].
    pub plugin: u32,
    /// Keys of the labels of its series.
    pub label_keys: Vec<String>,
}

/// A series: a metric with values for all of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// How blocks name it; never given to another series of the same site while a block that uses it is held.
    pub id: u32,
    /// Index into [`Birth::metrics`].
    pub metric: u32,
    /// In the order of the metric's label keys.
    pub label_values: Vec<String>,
}

/// One or more intervals of summaries, from one or more consecutive records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// Of the birth that explains it.
    pub schema: u64,
    /// How many of the intervals each record brought, in the order of the records.
    pub records: Vec<u32>,
    /// What they say.
    pub intervals: Vec<Interval>,
}

/// What an agent adds to one stretch of event time; the same stretch may come more than once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// Start in event time.
    pub start_ms: u64,
    /// Length.
    pub length_ms: u32,
    /// Strictly ascending by series.
    pub rows: Vec<Row>,
}

/// One series in one interval.
///
/// The summary must be that of real values: one value is minimum, maximum and sum; the sum of equal values is their
/// product. The wire leaves out what follows from this.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Id of the series in the birth of the block's schema.
    pub series: u32,
    /// What was measured; it adds to what came before.
    pub summary: Summary,
    /// What the edge thinks of it; `None` when it was not judged.
    pub score: Option<Score>,
}

/// Why records no longer exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The spool was full.
    QuotaBytes,
    /// They were older than the spool's age limit.
    QuotaAge,
    /// The disk gave back other bytes than were written.
    Corrupt,
    /// The broker or the codec refuses them for good.
    Refused,
    /// A reason that this version does not know.
    Unknown,
}

/// An anomaly of one series at one site: an upsert, complete in itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The same in all revisions.
    pub id: u64,
    /// The largest revision holds.
    pub revision: u32,
    /// The metric's name.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Its role.
    pub role: String,
    /// Its decimals.
    pub decimals: u8,
    /// ISO 4217 when it is money.
    pub currency: Option<String>,
    /// The plugin's name.
    pub plugin: String,
    /// Keys and values of the series.
    pub labels: Vec<(String, String)>,
    /// Start of the first anomalous window.
    pub start_ms: u64,
    /// Start of the most anomalous window.
    pub peak_ms: u64,
    /// End of the last anomalous window; `None` while it goes on.
    pub end_ms: Option<u64>,
    /// Length of the windows.
    pub window_ms: u32,
    /// At the peak, as in [`Score::log10_p`].
    pub log10_p: f32,
    /// At the peak, as in [`Score::effect`].
    pub effect: f32,
    /// At the peak, in one window, in whole numbers.
    pub expected: i64,
    /// At the peak, in one window, in whole numbers.
    pub actual: i64,
}

/// Retained on `state`, and the last will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// False in the will and after an orderly stop.
    pub online: bool,
    /// The generation that is being written.
    pub generation: u64,
    /// Counts connections; the larger one holds, since arrival order proves nothing.
    pub birth_number: u64,
    /// Of the agent.
    pub agent_version: String,
    /// When this was made.
    pub clock: ClockReading,
    /// Records in the spool.
    pub spool_records: u64,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// Payloads that the broker refused since the agent's start; each is sent again later.
    pub refused: u64,
    /// Records that wait for the next connection, as this one refused them.
    pub parked: u64,
    /// Of all connections, both ways, by the agent's UTC day.
    pub bytes_today: u64,
    /// What may be spent of a day; 0 is no limit.
    pub bytes_per_day: u64,
    /// How many intervals of the settings are one now, to stay within the limit; 0 is 1.
    pub intervals: u32,
}

/// Retained on `ack/<archive>`: what an archive has written durably of one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Who says so; the same as in the topic.
    pub archive: ArchiveId,
    /// Another number than before: the archive was restored, agents rewind.
    pub start: u64,
    /// What it has, by generation.
    pub generations: Vec<GenerationAck>,
    /// Schemas of blocks that it cannot decode.
    pub births_wanted: Vec<u64>,
}

/// What an archive has of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationAck {
    /// Which one.
    pub generation: u64,
    /// All of `1..=through_seq` is durable.
    pub through_seq: u64,
    /// What is durable beyond that: ascending, inclusive, at most [`crate::codec::ACK_RANGES_MAX`].
    pub ranges: Vec<(u64, u64)>,
}

/// Retained on `cfg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Reconnects are spread over this many seconds; 0 = the agent's own default.
    pub spread_window_s: u32,
}

/// Why blocks do not go into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// There is none.
    #[error("no block to join")]
    Empty,
    /// They are explained by different births.
    #[error("blocks of schemas {first:016x} and {other:016x} do not join")]
    Schemas {
        /// Of the first block.
        first: u64,
        /// Of the first one that differs.
        other: u64,
    },
}

impl Config {
    /// The window over which so many stores come back, for a broker that takes so many connections a second.
    #[must_use]
    pub fn for_fleet(stores: usize, per_second: u32) -> Config {
        let stores = u32::try_from(stores).unwrap_or(u32::MAX);
        Config {
            spread_window_s: stores.div_ceil(per_second.max(1)),
        }
    }
}

impl Block {
    /// The blocks of consecutive records as one, in their order.
    ///
    /// # Errors
    /// When there is none, or they have different schemas.
    pub fn join(blocks: Vec<Block>) -> Result<Block, JoinError> {
        let mut blocks = blocks.into_iter();
        let mut joined = blocks.next().ok_or(JoinError::Empty)?;
        for block in blocks {
            if block.schema != joined.schema {
                return Err(JoinError::Schemas {
                    first: joined.schema,
                    other: block.schema,
                });
            }
            joined.records.extend(block.records);
            joined.intervals.extend(block.intervals);
        }
        Ok(joined)
    }

    /// How many rows all intervals have.
    pub fn row_count(&self) -> usize {
        self.intervals.iter().map(|interval| interval.rows.len()).sum()
    }
}
