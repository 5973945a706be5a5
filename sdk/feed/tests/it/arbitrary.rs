//! Any message that an agent or an archive may make, for the property tests.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use tillwatch_feed::message::{
    Ack, Birth, Block, Body, ClockReading, Config, Finding, GapReason, GenerationAck, Interval, Kind, Message, Metric,
    Plugin, RecordId, Row, Series, State,
};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;

/// All blocks have this schema, so that they join.
const SCHEMA: u64 = 0x0102_0304_0506_0708;
const DAY_MS: u64 = 86_400_000;

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let seq = 1..u64::MAX / 2;
    (body(), any::<u64>(), seq, any::<u64>(), clock(), 0..1_000_000_u64).prop_map(
        |(body, generation, seq_first, oldest_seq_held, clock, lost)| {
            let more = match &body {
                Body::Block(block) => u64::try_from(block.records.len()).unwrap() - 1,
                Body::Gap(_) => lost,
                Body::Birth(_) | Body::Finding(_) => 0,
            };
            Message {
                generation,
                seq_first,
                seq_last: seq_first + more,
                oldest_seq_held,
                clock,
                body,
            }
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        4 => block().prop_map(Body::Block),
        2 => birth().prop_map(Body::Birth),
        1 => gap_reason().prop_map(Body::Gap),
        1 => finding().prop_map(Body::Finding),
    ]
}

/// At least one record, each with no, one or two intervals.
pub(crate) fn block() -> impl Strategy<Value = Block> {
    vec(vec(interval(), 0..3), 1..4).prop_map(|records| Block {
        schema: SCHEMA,
        records: records
            .iter()
            .map(|intervals| u32::try_from(intervals.len()).unwrap())
            .collect(),
        intervals: records.concat(),
    })
}

fn interval() -> impl Strategy<Value = Interval> {
    let length = prop_oneof![Just(60_000_u32), 1..=tillwatch_feed::codec::INTERVAL_MS_MAX];
    (
        0..20_000 * DAY_MS,
        length,
        btree_set(0..50_u32, 0..6),
        vec((summary(), option::of(score())), 6),
    )
        .prop_map(|(start_ms, length_ms, ids, rows)| {
            let rows = ids.into_iter().zip(rows);
            let rows = rows
                .map(|(series, (summary, score))| Row { series, summary, score })
                .collect();
            Interval {
                start_ms,
                length_ms,
                rows,
            }
        })
}

fn summary() -> impl Strategy<Value = Summary> {
    let value = prop_oneof![
        3 => 0..500_000_i64,
        1 => -300..300_i64,
        1 => Just(7),
        1 => any::<i64>(),
    ];
    (any::<bool>(), 0..=9_i32, vec(value, 0..20)).prop_map(|(distribution, decimals, values)| {
        let mut summary = if distribution {
            Summary::with_histogram()
        } else {
            Summary::default()
        };
        for value in values {
            summary.record(value, value as f64 / 10_f64.powi(decimals));
        }
        summary
    })
}

fn score() -> impl Strategy<Value = Score> {
    let state = prop_oneof![Just(ScoreState::Warming), Just(ScoreState::Ok), Just(ScoreState::Stale)];
    (state, any::<bool>(), -30.0..=0.0_f32, -4000.0..4000.0_f32, any::<i64>()).prop_map(
        |(state, alarm, log10_p, effect, missing)| {
            Score {
                state,
                alarm,
                log10_p,
                effect,
                missing,
            }
            .quantized()
        },
    )
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9._/-]{1,20}"
}

fn birth() -> impl Strategy<Value = Birth> {
    let plugins = vec(
        (text(), text()).prop_map(|(name, version)| Plugin { name, version }),
        1..4,
    );
    (
        plugins,
        vec(metric(), 1..5),
        btree_set(any::<u32>(), 0..20),
        text(),
        option::of(record()),
        1..100_000_u32,
    )
        .prop_map(|(plugins, metrics, ids, agent_version, previous, window_ms)| {
            let series: Vec<Series> = ids.into_iter().map(|id| series(id, &metrics)).collect();
            let schema = Birth::schema_hash(window_ms, &plugins, &metrics, &series);
            Birth {
                schema,
                agent_version,
                previous,
                metrics,
                series,
                plugins,
                window_ms,
            }
        })
}

fn series(id: u32, metrics: &[Metric]) -> Series {
    let metric = id % u32::try_from(metrics.len()).unwrap();
    let keys = &metrics[usize::try_from(metric).unwrap()].label_keys;
    Series {
        id,
        metric,
        label_values: keys.iter().map(|key| format!("{key}-{id}")).collect(),
    }
}

fn metric() -> impl Strategy<Value = Metric> {
    let kind = prop_oneof![
        Just(Kind::Gauge),
        Just(Kind::Counter),
        Just(Kind::Sum),
        Just(Kind::Distribution)
    ];
    (
        text(),
        "[{}a-zA-Z/]{0,10}",
        kind,
        "[a-z.]{0,12}",
        0..=9_u8,
        option::of("[A-Z]{3}"),
        vec(text(), 0..4),
    )
        .prop_map(|(name, unit, kind, role, decimals, currency, label_keys)| Metric {
            name,
            unit,
            kind,
            role,
            decimals,
            currency,
            plugin: 0,
            label_keys,
        })
}

fn finding() -> impl Strategy<Value = Finding> {
    let what = (
        text(),
        text(),
        text(),
        text(),
        option::of("[A-Z]{3}"),
        vec((text(), text()), 0..5),
    );
    let when = (0..20_000 * DAY_MS, 0..DAY_MS, option::of(1..DAY_MS), 1..100_000_u32);
    (any::<(u64, u32, i64, i64)>(), what, when, 0..=9_u8, score()).prop_map(
        |((id, revision, expected, actual), what, (start_ms, peak, end, window_ms), decimals, score)| Finding {
            id,
            revision,
            metric: what.0,
            unit: what.1,
            role: what.2,
            decimals,
            currency: what.4,
            plugin: what.3,
            labels: what.5,
            start_ms,
            peak_ms: start_ms + peak,
            end_ms: end.map(|end| start_ms + end),
            window_ms,
            log10_p: score.log10_p,
            effect: score.effect,
            expected,
            actual,
        },
    )
}

fn gap_reason() -> impl Strategy<Value = GapReason> {
    prop_oneof![
        Just(GapReason::QuotaBytes),
        Just(GapReason::QuotaAge),
        Just(GapReason::Corrupt),
        Just(GapReason::Refused),
        Just(GapReason::Unknown),
    ]
}

fn clock() -> impl Strategy<Value = ClockReading> {
    any::<(u64, u64, u64)>().prop_map(|(wall_ms, monotonic_ms, boot_id)| ClockReading {
        wall_ms,
        monotonic_ms,
        boot_id,
    })
}

fn record() -> impl Strategy<Value = RecordId> {
    (any::<u64>(), 1..=u64::MAX).prop_map(|(generation, seq)| RecordId { generation, seq })
}

pub(crate) fn state() -> impl Strategy<Value = State> {
    (any::<bool>(), any::<([u64; 8], u32)>(), text(), clock()).prop_map(|(online, numbers, agent_version, clock)| {
        let (numbers, intervals) = numbers;
        let [
            generation,
            birth_number,
            spool_records,
            spool_bytes,
            refused,
            parked,
            bytes_today,
            bytes_per_day,
        ] = numbers;
        State {
            online,
            generation,
            birth_number,
            agent_version,
            clock,
            spool_records,
            spool_bytes,
            refused,
            parked,
            bytes_today,
            bytes_per_day,
            intervals,
        }
    })
}

pub(crate) fn ack() -> impl Strategy<Value = Ack> {
    (
        "[a-z0-9-]{1,64}",
        any::<u64>(),
        vec(generation_ack(), 0..5),
        vec(any::<u64>(), 0..5),
    )
        .prop_map(|(archive, start, generations, births_wanted)| Ack {
            archive: archive.parse().unwrap(),
            start,
            generations,
            births_wanted,
        })
}

fn generation_ack() -> impl Strategy<Value = GenerationAck> {
    (any::<u64>(), 0..1000_u64, vec((2..1000_u64, 0..20_u64), 0..16)).prop_map(|(generation, through_seq, beyond)| {
        let ranges: RangeSet = beyond
            .iter()
            .map(|(first, length)| (through_seq + first, through_seq + first + length))
            .collect();
        GenerationAck {
            generation,
            through_seq,
            ranges: ranges.iter().collect(),
        }
    })
}

pub(crate) fn config() -> impl Strategy<Value = Config> {
    any::<u32>().prop_map(|spread_window_s| Config { spread_window_s })
}
