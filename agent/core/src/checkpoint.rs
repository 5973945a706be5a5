//! The memory across a kill: everything that decides what the same input would add next.
//!
//! In: the state machine's parts. Out: bytes, and the parts again, to the bit.
//! What the detectors have learned is a snapshot of its own, written rarely: losing an hour of it costs little.

mod convert;
mod learned;

use crate::settings::RestoreError;

pub(crate) use convert::{checkpoint_of, parts_from};
#[cfg(test)]
pub(crate) use learned::{detector_from, detector_proto};
pub(crate) use learned::{detectors_from, detectors_of, judge_from, judge_to};

/// The version of the checkpoint. Another version is refused: these bytes never leave the machine.
pub(crate) const VERSION: u32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CheckpointProto {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, optional, tag = "2")]
    judged_through_ms: Option<u64>,
    #[prost(uint64, tag = "3")]
    next_flush_ms: u64,
    #[prost(uint32, tag = "4")]
    next_metric: u32,
    #[prost(uint32, tag = "5")]
    next_series: u32,
    #[prost(message, repeated, tag = "6")]
    sources: Vec<SourceProto>,
    #[prost(message, repeated, tag = "7")]
    metrics: Vec<MetricProto>,
    #[prost(message, repeated, tag = "8")]
    series: Vec<SeriesProto>,
    #[prost(message, repeated, tag = "9")]
    stretches: Vec<StretchProto>,
    #[prost(message, repeated, tag = "10")]
    alarms: Vec<AlarmProto>,
    #[prost(uint32, tag = "11")]
    window_ms: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SourceProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bytes = "vec", optional, tag = "3")]
    progress: Option<Vec<u8>>,
    #[prost(uint64, tag = "4")]
    read_through_ms: u64,
    #[prost(uint64, optional, tag = "5")]
    read_from_ms: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetricProto {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint32, tag = "2")]
    source: u32,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    unit: String,
    #[prost(uint32, tag = "5")]
    kind: u32,
    #[prost(string, tag = "6")]
    help: String,
    #[prost(string, repeated, tag = "7")]
    label_keys: Vec<String>,
    #[prost(string, tag = "8")]
    role: String,
    #[prost(uint32, tag = "9")]
    decimals: u32,
    #[prost(string, optional, tag = "10")]
    currency: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeriesProto {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint32, tag = "2")]
    metric: u32,
    #[prost(string, repeated, tag = "3")]
    labels: Vec<String>,
    #[prost(uint64, tag = "4")]
    last_ms: u64,
    #[prost(uint64, optional, tag = "5")]
    reading_ms: Option<u64>,
    #[prost(sint64, tag = "6")]
    reading: i64,
}

/// An open window (`interval` false) or interval.
#[derive(Clone, PartialEq, prost::Message)]
struct StretchProto {
    #[prost(bool, tag = "1")]
    interval: bool,
    #[prost(uint64, tag = "2")]
    start_ms: u64,
    #[prost(uint32, tag = "3")]
    length_ms: u32,
    #[prost(message, repeated, tag = "4")]
    rows: Vec<RowProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RowProto {
    #[prost(uint32, tag = "1")]
    series: u32,
    #[prost(uint64, tag = "2")]
    count: u64,
    #[prost(sint64, tag = "3")]
    sum: i64,
    #[prost(sint64, tag = "4")]
    min: i64,
    #[prost(sint64, tag = "5")]
    max: i64,
    #[prost(message, optional, tag = "6")]
    histogram: Option<HistogramProto>,
    #[prost(message, optional, tag = "7")]
    score: Option<ScoreProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HistogramProto {
    #[prost(sint32, tag = "1")]
    scale: i32,
    #[prost(uint64, tag = "2")]
    zero_count: u64,
    #[prost(sint32, tag = "3")]
    positive_offset: i32,
    #[prost(uint64, repeated, tag = "4")]
    positive: Vec<u64>,
    #[prost(sint32, tag = "5")]
    negative_offset: i32,
    #[prost(uint64, repeated, tag = "6")]
    negative: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScoreProto {
    #[prost(uint32, tag = "1")]
    state: u32,
    #[prost(bool, tag = "2")]
    alarm: bool,
    #[prost(float, tag = "3")]
    log10_p: f32,
    #[prost(float, tag = "4")]
    effect: f32,
    #[prost(double, tag = "5")]
    missing: f64,
    #[prost(uint32, tag = "6")]
    windows: u32,
    #[prost(bool, tag = "7")]
    level: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AlarmProto {
    #[prost(uint32, tag = "1")]
    series: u32,
    #[prost(float, tag = "2")]
    habituation: f32,
    #[prost(uint32, tag = "3")]
    hot: u32,
    #[prost(uint32, tag = "4")]
    cool: u32,
    #[prost(uint64, tag = "5")]
    hot_from_ms: u64,
    #[prost(message, optional, tag = "6")]
    open: Option<OpenProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OpenProto {
    #[prost(uint32, tag = "1")]
    revision: u32,
    #[prost(uint64, tag = "2")]
    start_ms: u64,
    #[prost(uint64, tag = "3")]
    last_ms: u64,
    #[prost(float, tag = "4")]
    told: f32,
    #[prost(uint64, tag = "5")]
    peak_ms: u64,
    #[prost(uint32, tag = "6")]
    window_ms: u32,
    #[prost(float, tag = "7")]
    severity: f32,
    #[prost(float, tag = "8")]
    p: f32,
    #[prost(float, tag = "9")]
    effect: f32,
    #[prost(double, tag = "10")]
    expected: f64,
    #[prost(double, tag = "11")]
    actual: f64,
}

fn decode<M: prost::Message + Default>(
    bytes: &[u8],
    known: u32,
    version: impl Fn(&M) -> u32,
) -> Result<M, RestoreError> {
    let message = M::decode(bytes).map_err(|error| RestoreError::Malformed {
        reason: error.to_string(),
    })?;
    let found = version(&message);
    if found == known {
        Ok(message)
    } else {
        Err(RestoreError::Version { found, known })
    }
}

fn encode(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn malformed(reason: &str) -> RestoreError {
    RestoreError::Malformed {
        reason: reason.to_owned(),
    }
}

impl CheckpointProto {
    fn read(bytes: &[u8]) -> Result<CheckpointProto, RestoreError> {
        decode(bytes, VERSION, |checkpoint: &CheckpointProto| checkpoint.version)
    }

    fn write(&self) -> Vec<u8> {
        encode(self)
    }
}
