//! The golden cases: one of everything that travels, with the corners that another implementation may get wrong.

use tillwatch_feed::codec::{self, DecodeError};
use tillwatch_feed::message::{
    Ack, Birth, Block, Body, ClockReading, Config, Finding, GapReason, GenerationAck, Interval, Kind, Message, Metric,
    Plugin, RecordId, Row, Series, State,
};
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;

/// Monday, 2026-06-01 11:30:00 in Berlin.
const START_MS: u64 = 1_780_306_200_000;
const GENERATION: u64 = 0x5eed_0000_0000_0001;
const CLOCK: ClockReading = ClockReading {
    wall_ms: START_MS + 61_000,
    monotonic_ms: 3_661_000,
    boot_id: 0xb007_0000_0000_0001,
};

/// What one payload says, whatever its topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    Message(Message),
    State(State),
    Ack(Ack),
    Config(Config),
}

impl Payload {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Payload::Message(message) => codec::encode(message),
            Payload::State(state) => codec::encode_state(state),
            Payload::Ack(ack) => codec::encode_ack(ack),
            Payload::Config(config) => codec::encode_config(config),
        }
    }

    /// Reads a payload; which leaf it belongs to is known by the first word of its file's name.
    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Payload, DecodeError> {
        match name.split('_').next().unwrap_or_default() {
            "state" => codec::decode_state(bytes).map(Payload::State),
            "ack" => codec::decode_ack(bytes).map(Payload::Ack),
            "cfg" => codec::decode_config(bytes).map(Payload::Config),
            _ => codec::decode(bytes).map(Payload::Message),
        }
    }
}

pub(crate) fn all() -> Vec<(&'static str, Payload)> {
    let birth = birth();
    let schema = birth.schema;
    let joined = (0..5).map(|minute| live(schema, minute)).collect();
    let joined = Block::join(joined).unwrap();
    vec![
        ("birth", message(1, 1, Body::Birth(birth))),
        ("gap_quota", message(2, 40, Body::Gap(GapReason::QuotaBytes))),
        (
            "sum_worked_example",
            message(41, 41, Body::Block(worked_example(schema))),
        ),
        ("sum_live", message(42, 42, Body::Block(live(schema, 0)))),
        ("sum_joined", message(43, 47, Body::Block(joined))),
        ("sum_late", message(48, 50, Body::Block(late(schema)))),
        ("sum_corners", message(51, 51, Body::Block(corners(schema)))),
        ("evt_open", message(52, 52, Body::Finding(finding(None)))),
        (
            "evt_closed",
            message(53, 53, Body::Finding(finding(Some(START_MS + 2_700_000)))),
        ),
        ("state_online", Payload::State(state(true))),
        ("state_will", Payload::State(state(false))),
        ("ack_ranges", Payload::Ack(ack())),
        ("cfg_spread", Payload::Config(Config { spread_window_s: 600 })),
    ]
}

fn message(seq_first: u64, seq_last: u64, body: Body) -> Payload {
    let oldest_seq_held = 2;
    Payload::Message(Message {
        generation: GENERATION,
        seq_first,
        seq_last,
        oldest_seq_held,
        clock: CLOCK,
        body,
    })
}

fn birth() -> Birth {
    let metric = |name: &str, unit: &str, kind, role: &str, decimals, keys: &[&str], plugin| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        kind,
        role: role.to_owned(),
        decimals,
        currency: (role == "sales.amount").then(|| "EUR".to_owned()),
        plugin,
        label_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let series = |id, metric, labels: &[&str]| Series {
        id,
        metric,
        label_values: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    let plugin = |name: &str| Plugin {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
    };
    let plugins = vec![plugin("pos-latency"), plugin("queue-depth"), plugin("sales")];
    let metrics = vec![
        metric(
            "http.server.request.duration",
            "s",
            Kind::Distribution,
            "latency",
            6,
            &["http.route"],
            0,
        ),
        metric(
            "queue.depth",
            "{message}",
            Kind::Gauge,
            "queue",
            0,
            &["messaging.destination.name"],
            1,
        ),
        metric("sales.amount", "EUR", Kind::Sum, "sales.amount", 2, &[], 2),
    ];
    let series = vec![
        series(1, 0, &["/checkout"]),
        series(2, 0, &["/loyalty"]),
        series(3, 1, &["mainframe"]),
        series(7, 2, &[]),
    ];
    let schema = Birth::schema_hash(10_000, &plugins, &metrics, &series);
    let previous = Some(RecordId {
        generation: 0x01d0_0000_0000_0000,
        seq: 1_440,
    });
    Birth {
        schema,
        agent_version: "0.1.0".to_owned(),
        previous,
        metrics,
        series,
        plugins,
        window_ms: 10_000,
    }
}

fn distribution(micros: &[i64]) -> Summary {
    let mut summary = Summary::with_histogram();
    for value in micros {
        summary.record(*value, *value as f64 / 1e6);
    }
    summary
}

fn plain(values: &[i64]) -> Summary {
    let mut summary = Summary::default();
    for value in values {
        summary.record(*value, 0.0);
    }
    summary
}

fn score(alarm: bool, log10_p: f32, effect: f32, missing: i64) -> Option<Score> {
    Some(
        Score {
            state: ScoreState::Ok,
            alarm,
            log10_p,
            effect,
            missing,
        }
        .quantized(),
    )
}

fn row(series: u32, summary: Summary, score: Option<Score>) -> Row {
    Row { series, summary, score }
}

fn interval(minute: u64, rows: Vec<Row>) -> Interval {
    Interval {
        start_ms: START_MS + minute * 60_000,
        length_ms: 60_000,
        rows,
    }
}

/// Small enough to be taken apart byte by byte in FORMAT.md.
fn worked_example(schema: u64) -> Block {
    let rows = vec![
        row(1, distribution(&[210_000, 215_000, 480_000]), None),
        row(3, plain(&[4, 4, 4, 4, 4, 4]), score(true, -3.2, 4.5, -3)),
    ];
    Block {
        schema,
        records: vec![1],
        intervals: vec![interval(0, rows)],
    }
}

fn live(schema: u64, minute: u64) -> Block {
    let shift = i64::try_from(minute).unwrap() * 1_700;
    let latencies: Vec<i64> = (1..40).map(|k| 90_000 + shift + k * k * 610).collect();
    let slow: Vec<i64> = (1..12).map(|k| 1_800_000 + shift * 3 + k * 171_003).collect();
    let rows = vec![
        row(1, distribution(&latencies), score(false, -0.4, 0.6, 0)),
        row(2, distribution(&slow), score(true, -6.1, 8.9, -1_204_551)),
        row(3, plain(&[4, 9, 17, 23, 31, 40]), score(true, -25.5, 3_000.0, -36)),
        row(7, plain(&[1_299, 249, 8_715, 5_990]), score(false, -1.1, -1.9, 6_250)),
    ];
    Block {
        schema,
        records: vec![1],
        intervals: vec![interval(minute, rows)],
    }
}

/// Records that bring two intervals, none and one, with event times that go back.
fn late(schema: u64) -> Block {
    let intervals = vec![
        interval(3, vec![row(7, plain(&[500]), None)]),
        interval(1, vec![row(7, plain(&[250, 250]), None)]),
        interval(4, vec![row(3, plain(&[]), None), row(7, plain(&[1, 2, 4]), None)]),
    ];
    Block {
        schema,
        records: vec![2, 0, 1],
        intervals,
    }
}

/// Negative values, zeros, one value, extremes of an i64, a lower scale, every state of a score.
fn corners(schema: u64) -> Block {
    let state = |state| {
        Some(
            Score {
                state,
                alarm: true,
                log10_p: -1.5,
                effect: -2.5,
                missing: 9,
            }
            .quantized(),
        )
    };
    let rows = vec![
        row(
            1,
            distribution(&[-3_000_000, -20, 0, 0, 7, 9_000_000]),
            state(ScoreState::Warming),
        ),
        row(2, distribution(&[1, 8_000_000_000_000]), state(ScoreState::Stale)),
        row(3, distribution(&[]), None),
        row(4, distribution(&[123_456]), None),
        row(5, plain(&[i64::MIN, 0, i64::MAX]), score(false, 0.0, 0.0, i64::MIN)),
        row(u32::MAX, plain(&[-5, -5, -5]), None),
    ];
    Block {
        schema,
        records: vec![1],
        intervals: vec![interval(0, rows)],
    }
}

fn finding(end_ms: Option<u64>) -> Finding {
    Finding {
        id: 0xf1d0_0000_0000_0001,
        revision: if end_ms.is_some() { 9 } else { 0 },
        metric: "http.server.request.duration".to_owned(),
        unit: "s".to_owned(),
        role: "latency".to_owned(),
        decimals: 6,
        currency: None,
        plugin: "pos-latency".to_owned(),
        labels: vec![("http.route".to_owned(), "/loyalty".to_owned())],
        start_ms: START_MS,
        peak_ms: START_MS + 20_000,
        end_ms,
        window_ms: 10_000,
        log10_p: -6.0,
        effect: 9.5,
        expected: 412_000,
        actual: 3_910_000,
    }
}

fn state(online: bool) -> State {
    State {
        online,
        generation: GENERATION,
        birth_number: 17,
        agent_version: "0.1.0".to_owned(),
        clock: CLOCK,
        spool_records: 52,
        spool_bytes: 38_411,
        refused: 7,
        parked: 3,
        bytes_today: 1_204_551,
        bytes_per_day: 2 << 20,
        intervals: 5,
    }
}

fn ack() -> Ack {
    let generation = |generation, through_seq, ranges: &[(u64, u64)]| GenerationAck {
        generation,
        through_seq,
        ranges: ranges.to_vec(),
    };
    Ack {
        archive: "main".parse().unwrap(),
        start: 0xace0_0000_0000_0001,
        generations: vec![
            generation(0x01d0_0000_0000_0000, 1_440, &[]),
            generation(GENERATION, 41, &[(43, 47), (50, 50)]),
        ],
        births_wanted: vec![0x5c4e_0000_0000_0001],
    }
}
