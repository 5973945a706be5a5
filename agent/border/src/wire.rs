//! What agent and sandbox say to each other, in postcard.
//!
//! ```text
//! agent ─► sandbox                        sandbox ─► agent
//! control  descriptors, Start             Ready
//! plugin   Request                        Log, Ask*, Done
//!          Answer, one for each Ask
//! ```
//! A request brings time and state along and `Done` takes the state back, so that only sources are asked for on the way.
//! The agent decodes what native code of any kind may have sent: each list has its bound here, so that memory stays
//! within a small multiple of the frame, and [`check`](crate::check_batch) looks at the rest.

use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use tillwatch_core::sample;

use crate::{
    Bound, Counters, Document, ErrorKind, Fault, Level, Limits, Lines, Listing, PeerFailure, PluginError, Question,
    artifact,
};

/// A frame to the sandbox: a document of the largest size that can be granted.
pub const TO_SANDBOX_BYTES_MAX: usize = 17 << 20;
/// A frame to the agent: a batch at all of its default bounds.
pub const TO_AGENT_BYTES_MAX: usize = 8 << 20;
/// Plugins of one agent.
pub const PLUGINS_MAX: usize = 32;

// At least the defaults of `Limits`, as a test makes sure.
const SERIES_MAX: usize = 1_000;
const SAMPLES_MAX: usize = 100_000;
const LABELS_MAX: usize = 16;
const METRICS_MAX: usize = 256;

/// What the process is made of; the descriptors came before, first of the codes, then of the plugins' sockets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// What the agent was built as; see [`build`]. It comes first, as what follows may change.
    pub build: String,
    pub codes: usize,
    /// All codes count what they execute, or none does.
    pub is_metered: bool,
    pub plugins: Vec<StartPlugin>,
}

/// Names everything in which an agent and a sandbox must agree: they are installed together, and while one is exchanged
/// the other may still run.
#[must_use]
pub fn build() -> String {
    format!(
        "tillwatch {}; {}",
        env!("CARGO_PKG_VERSION"),
        artifact::fingerprint(false)
    )
}

/// One plugin of the process.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartPlugin {
    /// Which of the codes.
    pub code: usize,
    pub limits: Limits,
}

/// Sealed and waiting for requests, or why the machine cannot.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ready {
    /// For each plugin whether it was loaded.
    Sealed(Bounded<Result<(), Refusal>, PLUGINS_MAX>),
    Failed(String),
}

/// Why code was not loaded.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("its code is not taken any more: {0}")]
    Engine(String),
    #[error("its code does not fit the contract any more: {0}")]
    Contract(String),
}

/// One call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// In a new instance.
    pub is_fresh: bool,
    pub call: Call,
    pub now_ms: u64,
    #[serde(with = "crate::bytes")]
    pub state: Vec<u8>,
}

/// The contract's exports.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    Describe,
    Configure(String),
    Collect,
}

/// What comes back for a request: logs and questions, then the end.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Log(Level, String),
    Ask(Ask),
    Done(Box<Done>),
}

/// A question to a source.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    ReadLines { source: String, bytes_max: u32 },
    NextDocument { source: String },
    ListFolder { source: String },
    Peer { name: String, question: Question },
}

/// The answer of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    ReadLines(Result<Lines, Fault>),
    NextDocument(Result<Option<Document>, Fault>),
    ListFolder(Result<Listing, Fault>),
    Peer(Result<crate::Reply, PeerFailure>),
}

/// The end of a call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    pub result: Result<Output, Failure>,
    /// What the plugin wants kept, if it said so.
    pub state: Option<State>,
    /// Of this call.
    pub counters: Counters,
}

/// A plugin's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct State(#[serde(with = "crate::bytes")] pub Vec<u8>);

/// What a call brought.
#[derive(Debug, Serialize, Deserialize)]
pub enum Output {
    Descriptor(Descriptor),
    Configured,
    Batch(Batch),
}

/// Why a call brought nothing, as far as the sandbox can tell.
#[derive(Debug, Serialize, Deserialize)]
pub enum Failure {
    Trap(String),
    Stack,
    Memory { wanted: usize },
    OutputBytes,
    Oversized { bound: Bound, found: usize, limit: usize },
    Malformed,
    Plugin { kind: ErrorKind, message: String },
    Spent,
}

/// A batch in columns over all series: each series takes its count from the front of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    series: Bounded<SeriesHead, SERIES_MAX>,
    reals: Bounded<f64, SAMPLES_MAX>,
    integers: Bounded<i64, SAMPLES_MAX>,
    times_ms: Bounded<u64, SAMPLES_MAX>,
    more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct SeriesHead {
    metric: u16,
    labels: Bounded<String, LABELS_MAX>,
    count: usize,
    is_real: bool,
}

/// As [`sample::Descriptor`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    name: String,
    version: String,
    metrics: Bounded<Metric, METRICS_MAX>,
    min_interval_ms: u32,
    attrs: Bounded<(String, String), LABELS_MAX>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Metric {
    name: String,
    unit: String,
    kind: sample::Kind,
    help: String,
    label_keys: Bounded<String, LABELS_MAX>,
    role: String,
    decimals: u8,
    currency: Option<String>,
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message that makes no sense")]
pub struct DecodeError;

/// Reads one whole message.
///
/// # Errors
/// When the bytes are no such message, or more than one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(DecodeError),
    }
}

impl From<sample::Batch> for Batch {
    /// Each series must have as many times as values.
    fn from(batch: sample::Batch) -> Self {
        let mut wire = Self {
            more: batch.more,
            ..Self::default()
        };
        for series in batch.series {
            wire.series.0.push(SeriesHead {
                metric: series.metric,
                labels: Bounded(series.labels),
                count: series.times_ms.len(),
                is_real: matches!(series.values, sample::Values::Reals(_)),
            });
            wire.times_ms.0.extend(series.times_ms);
            match series.values {
                sample::Values::Reals(reals) => wire.reals.0.extend(reals),
                sample::Values::Integers(integers) => wire.integers.0.extend(integers),
            }
        }
        wire
    }
}

impl TryFrom<Batch> for sample::Batch {
    type Error = DecodeError;

    fn try_from(wire: Batch) -> Result<Self, DecodeError> {
        let mut reals = wire.reals.0.into_iter();
        let mut integers = wire.integers.0.into_iter();
        let mut times_ms = wire.times_ms.0.into_iter();
        let mut series = Vec::with_capacity(wire.series.0.len());
        for head in wire.series.0 {
            let values = if head.is_real {
                sample::Values::Reals(take(&mut reals, head.count)?)
            } else {
                sample::Values::Integers(take(&mut integers, head.count)?)
            };
            series.push(sample::Series {
                metric: head.metric,
                labels: head.labels.0,
                values,
                times_ms: take(&mut times_ms, head.count)?,
            });
        }
        if reals.len() + integers.len() + times_ms.len() > 0 {
            return Err(DecodeError);
        }
        Ok(Self {
            series,
            more: wire.more,
            is_partial: false,
        })
    }
}

fn take<T>(column: &mut std::vec::IntoIter<T>, count: usize) -> Result<Vec<T>, DecodeError> {
    if count > column.len() {
        return Err(DecodeError);
    }
    Ok(column.by_ref().take(count).collect())
}

impl From<sample::Descriptor> for Descriptor {
    fn from(descriptor: sample::Descriptor) -> Self {
        let metric = |metric: sample::Metric| Metric {
            name: metric.name,
            unit: metric.unit,
            kind: metric.kind,
            help: metric.help,
            label_keys: Bounded(metric.label_keys),
            role: metric.role,
            decimals: metric.decimals,
            currency: metric.currency,
        };
        Self {
            name: descriptor.name,
            version: descriptor.version,
            metrics: Bounded(descriptor.metrics.into_iter().map(metric).collect()),
            min_interval_ms: descriptor.min_interval_ms,
            attrs: Bounded(descriptor.attrs),
        }
    }
}

impl From<Descriptor> for sample::Descriptor {
    fn from(wire: Descriptor) -> Self {
        let metric = |metric: Metric| sample::Metric {
            name: metric.name,
            unit: metric.unit,
            kind: metric.kind,
            help: metric.help,
            label_keys: metric.label_keys.0,
            role: metric.role,
            decimals: metric.decimals,
            currency: metric.currency,
        };
        Self {
            name: wire.name,
            version: wire.version,
            metrics: wire.metrics.0.into_iter().map(metric).collect(),
            min_interval_ms: wire.min_interval_ms,
            attrs: wire.attrs.0,
        }
    }
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        Self::Plugin {
            kind: error.kind,
            message: error.message,
        }
    }
}

/// A list that is not read beyond so many elements.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List::<T, MAX>(PhantomData)).map(Self)
    }
}

struct List<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let announced = elements.size_hint().unwrap_or(0);
        if announced > MAX {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut list = Vec::with_capacity(announced);
        while let Some(element) = elements.next_element()? {
            // There is no hint where more is announced than bytes are left.
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn batch() -> sample::Batch {
        let series = |label: &str, values, times_ms| sample::Series {
            metric: 3,
            labels: vec![label.to_owned()],
            values,
            times_ms,
        };
        sample::Batch {
            series: vec![
                series("a", sample::Values::Reals(vec![0.5, -1.0]), vec![1, 1_772_451_000_000]),
                series("b", sample::Values::Integers(vec![i64::MIN]), vec![7]),
                series("c", sample::Values::Reals(vec![2.0]), vec![9]),
            ],
            more: true,
            is_partial: false,
        }
    }

    fn descriptor() -> sample::Descriptor {
        let metric = sample::Metric {
            name: "sales.amount".to_owned(),
            unit: "{EUR}".to_owned(),
            kind: sample::Kind::Sum,
            help: "What was sold.".to_owned(),
            label_keys: vec!["tender".to_owned()],
            role: "sales.amount".to_owned(),
            decimals: 2,
            currency: Some("EUR".to_owned()),
        };
        sample::Descriptor {
            name: "sales".to_owned(),
            version: "0.1.0".to_owned(),
            metrics: vec![metric.clone(), metric],
            min_interval_ms: 1_000,
            attrs: vec![("a".to_owned(), "b".to_owned())],
        }
    }

    fn replies() -> Vec<Reply> {
        let done = |result| {
            Reply::Done(Box::new(Done {
                result,
                state: Some(State(vec![1, 2, 3])),
                counters: Counters::default(),
            }))
        };
        vec![
            Reply::Log(Level::Warn, "the drawer is stuck".to_owned()),
            Reply::Ask(Ask::ReadLines {
                source: "lines".to_owned(),
                bytes_max: 65_536,
            }),
            done(Ok(Output::Batch(batch().into()))),
            done(Ok(Output::Descriptor(descriptor().into()))),
            done(Err(Failure::Plugin {
                kind: ErrorKind::Transient,
                message: "the till is away".to_owned(),
            })),
        ]
    }

    /// What the agent does with a message that came.
    fn take_in(bytes: &[u8]) -> Result<(), DecodeError> {
        if let Reply::Done(done) = decode::<Reply>(bytes)?
            && let Ok(Output::Batch(batch)) = done.result
        {
            let batch = sample::Batch::try_from(batch)?;
            drop(crate::check_batch(&batch, &Limits::default()));
        }
        Ok(())
    }

    #[test]
    fn batches_and_descriptors_arrive_as_they_were_sent() {
        let bytes = postcard::to_allocvec(&Batch::from(batch())).unwrap();
        assert_eq!(
            sample::Batch::try_from(decode::<Batch>(&bytes).unwrap()).unwrap(),
            batch()
        );
        let bytes = postcard::to_allocvec(&Descriptor::from(descriptor())).unwrap();
        assert_eq!(
            sample::Descriptor::from(decode::<Descriptor>(&bytes).unwrap()),
            descriptor()
        );
    }

    #[test]
    fn a_batch_whose_columns_do_not_fit_its_series_is_refused() {
        let change = |change: fn(&mut Batch)| {
            let mut wire = Batch::from(batch());
            change(&mut wire);
            sample::Batch::try_from(wire)
        };
        change(|_same| {}).unwrap();
        for wrong in [
            (|wire| wire.series.0[0].count = 4) as fn(&mut Batch),
            |wire| wire.series.0[1].count = usize::MAX,
            |wire| wire.series.0[2].is_real = false,
            |wire| wire.times_ms.0.push(1),
        ] {
            assert_eq!(change(wrong), Err(DecodeError));
        }
    }

    thread_local! {
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how often it is read.
    #[derive(Debug)]
    struct Counted;

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            u8::deserialize(deserializer).map(|_read| Self)
        }
    }

    /// Each element of a list may take a hundred times its bytes on the wire: a frame that announced more than it
    /// brought became 200 MB.
    #[test]
    fn a_list_is_not_read_beyond_its_bound_whatever_it_announces() {
        let read = |announced: u32| {
            READ.set(0);
            let mut bytes = postcard::to_allocvec(&announced).unwrap();
            bytes.extend([1; 5_000]);
            assert!(decode::<Bounded<Counted, 16>>(&bytes).is_err(), "{announced}");
            READ.get()
        };
        assert_eq!([read(5_000), read(u32::MAX)], [0, 17]);
        let whole = postcard::to_allocvec(&[7_u8; 16].as_slice()).unwrap();
        assert_eq!(decode::<Bounded<Counted, 16>>(&whole).unwrap().0.len(), 16);
    }

    #[test]
    fn no_mutation_of_a_message_breaks_the_agent() {
        let mut random = fastrand::Rng::with_seed(0x7111);
        for reply in replies() {
            let good = postcard::to_allocvec(&reply).unwrap();
            take_in(&good).unwrap();
            for end in 0..good.len() {
                assert!(take_in(&good[..end]).is_err(), "{reply:?} cut at {end}");
            }
            let mut read = 0;
            for _ in 0..20_000 {
                let mut bytes = good.clone();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..bytes.len());
                    match random.u8(..4) {
                        0 => bytes[at] = random.u8(..),
                        1 => bytes[at] ^= 1 << random.u8(..8),
                        2 => bytes.insert(at, random.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap_or(0)),
                        _ if bytes.len() > 1 => drop(bytes.remove(at)),
                        _ => {}
                    }
                }
                read += usize::from(take_in(&bytes).is_ok());
            }
            assert!(
                read > 0,
                "the mutations of {reply:?} reach nothing behind the first byte"
            );
        }
    }

    #[test]
    fn the_bounds_of_the_wire_let_the_default_limits_through() {
        let limits = Limits::default();
        assert!(limits.series_max <= SERIES_MAX && limits.samples_max <= SAMPLES_MAX);
        assert!(limits.labels_max <= LABELS_MAX && limits.metrics_max <= METRICS_MAX);
        let labels = SERIES_MAX * LABELS_MAX * (limits.label_bytes_max + 2);
        // A time takes at most 10 bytes, and so does a value.
        assert!(labels + SAMPLES_MAX * 20 + SERIES_MAX * 10 + limits.state_bytes_max < TO_AGENT_BYTES_MAX);
        let texts = METRICS_MAX * (LABELS_MAX + 5) + LABELS_MAX * 2 + 2;
        assert!(texts * (limits.text_bytes_max + 2) < TO_AGENT_BYTES_MAX);
    }
}
