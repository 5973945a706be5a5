//! Why bytes are no message, and how much of anything is taken from a stranger.

use crate::histogram::HistogramError;
use crate::topic::TopicError;

/// Largest payload on the wire, header included; also what an agent sends at most.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Largest body once inflated.
pub const INFLATED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest body of `state`, `ack` and `cfg` once inflated.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// Latest time that a message may speak of: beyond it, not all numbers of milliseconds are exact in a double.
pub const TIME_MS_MAX: u64 = 1 << 53;

/// Longest interval.
pub const INTERVAL_MS_MAX: u32 = 3_600_000;

/// Most records in one message.
pub const RECORDS_MAX: usize = 1_024;

/// Most intervals in one block.
pub const INTERVALS_MAX: usize = 4_096;

/// Most rows (a series in an interval) in one block.
pub const ROWS_MAX: usize = 65_536;

/// Most histogram buckets of one sign in one block.
pub const BLOCK_BUCKETS_MAX: usize = 524_288;

/// Most metrics in a birth.
pub const METRICS_MAX: usize = 1_024;

/// Most series in a birth.
pub const SERIES_MAX: usize = 16_384;

/// Most plugins in a birth.
pub const PLUGINS_MAX: usize = 256;

/// Most labels of a metric, series or finding.
pub const LABELS_MAX: usize = 16;

/// Longest name, unit, role, version, label key or label value.
pub const TEXT_BYTES_MAX: usize = 256;

/// Most decimals of a metric.
pub const DECIMALS_MAX: u8 = 9;

/// Most generations in an acknowledgement.
pub const ACK_GENERATIONS_MAX: usize = 64;

/// Most ranges beyond `through_seq` in one generation of an acknowledgement.
pub const ACK_RANGES_MAX: usize = 16;

/// Most births that an archive asks for at once.
pub const ACK_BIRTHS_MAX: usize = 64;

/// Why bytes are no message of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the header has.
    #[error("payload of {0} bytes has no header")]
    NoHeader(usize),
    /// Another version of the format.
    #[error("format version {0} is not {version}", version = super::FORMAT_VERSION)]
    Version(u8),
    /// A flag that this version does not know.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// Compressed with a dictionary that is not there.
    #[error("unknown compression dictionary {0}")]
    Dictionary(u16),
    /// The compressed body is damaged, or larger than [`INFLATED_BYTES_MAX`].
    #[error("body does not inflate: {0}")]
    Inflate(String),
    /// The body ends within a field, or has a kind of field that this format does not use.
    #[error("body is cut short or no protobuf message")]
    Truncated,
    /// The body is no protobuf of this shape.
    #[error("body is no protobuf message")]
    Protobuf(#[source] prost::DecodeError),
    /// More of something than a reader takes.
    #[error("{found} {what} are more than {max}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much, or how much at least.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A field without which the message has no meaning.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A number that stands for nothing in this version.
    #[error("{what} has the unknown value {value}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// A value outside what the field can mean.
    #[error("{what} {value} is out of range")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A column with fewer or more values than the rows of its block need.
    #[error("column {0} does not fit the block's rows")]
    Column(&'static str),
    /// First and last of a range are in the wrong order, or ranges are not ascending.
    #[error("{what} {first}..={last} is no range here")]
    Order {
        /// What the range counts.
        what: &'static str,
        /// Its first number.
        first: u64,
        /// Its last number.
        last: u64,
    },
    /// The same twice where each may be there once.
    #[error("{what} {value} is there twice")]
    Twice {
        /// What is counted.
        what: &'static str,
        /// Which one.
        value: u64,
    },
    /// An index that points at nothing.
    #[error("{what} {index} does not exist")]
    Index {
        /// What is pointed at.
        what: &'static str,
        /// The index.
        index: u32,
    },
    /// Buckets that are no histogram.
    #[error("histogram of series {series}")]
    Histogram {
        /// Whose.
        series: u32,
        /// What is wrong.
        #[source]
        source: HistogramError,
    },
    /// The archive's name.
    #[error("archive")]
    Archive(#[source] TopicError),
}
