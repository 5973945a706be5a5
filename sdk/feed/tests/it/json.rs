//! The JSON twins of the golden payloads: what a consumer in another language should have read.
//!
//! Identities are 16 hexadecimal digits, since they do not fit a double; all other numbers are numbers.

use serde_json::{Value, json};
use tillwatch_feed::histogram::{Buckets, Histogram};
use tillwatch_feed::message::{Ack, Birth, Block, Body, ClockReading, Finding, Kind, Message, Row, State};
use tillwatch_feed::score::{Score, ScoreState};

use crate::cases::Payload;

pub(crate) fn of(payload: &Payload) -> Value {
    match payload {
        Payload::Message(message) => of_message(message),
        Payload::State(state) => of_state(state),
        Payload::Ack(ack) => of_ack(ack),
        Payload::Config(config) => json!({ "spread_window_s": config.spread_window_s }),
    }
}

fn hex(identity: u64) -> String {
    format!("{identity:016x}")
}

fn of_clock(clock: ClockReading) -> Value {
    json!({ "wall_ms": clock.wall_ms, "monotonic_ms": clock.monotonic_ms, "boot_id": hex(clock.boot_id) })
}

fn of_message(message: &Message) -> Value {
    let (kind, body) = match &message.body {
        Body::Birth(birth) => ("birth", of_birth(birth)),
        Body::Block(block) => ("block", of_block(block)),
        Body::Gap(reason) => ("gap", json!({ "reason": format!("{reason:?}") })),
        Body::Finding(finding) => ("finding", of_finding(finding)),
    };
    json!({
        "generation": hex(message.generation),
        "seq_first": message.seq_first,
        "seq_last": message.seq_last,
        "oldest_seq_held": message.oldest_seq_held,
        "clock": of_clock(message.clock),
        kind: body,
    })
}

fn of_birth(birth: &Birth) -> Value {
    let kind = |kind| match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Sum => "sum",
        Kind::Distribution => "distribution",
    };
    let metrics = birth.metrics.iter().map(|metric| {
        json!({
            "name": metric.name, "unit": metric.unit, "kind": kind(metric.kind), "role": metric.role,
            "decimals": metric.decimals, "currency": metric.currency, "plugin": metric.plugin,
            "label_keys": metric.label_keys,
        })
    });
    let series = birth.series.iter();
    let plugins = birth.plugins.iter();
    json!({
        "schema": hex(birth.schema),
        "agent_version": birth.agent_version,
        "previous": birth.previous.map(|record| json!({ "generation": hex(record.generation), "seq": record.seq })),
        "metrics": metrics.collect::<Vec<_>>(),
        "series": series.map(|s| json!({ "id": s.id, "metric": s.metric, "label_values": s.label_values }))
            .collect::<Vec<_>>(),
        "plugins": plugins.map(|p| json!({ "name": p.name, "version": p.version })).collect::<Vec<_>>(),
        "window_ms": birth.window_ms,
    })
}

fn of_block(block: &Block) -> Value {
    let intervals = block.intervals.iter().map(|interval| {
        let rows: Vec<Value> = interval.rows.iter().map(of_row).collect();
        json!({ "start_ms": interval.start_ms, "length_ms": interval.length_ms, "rows": rows })
    });
    json!({
        "schema": hex(block.schema),
        "records": block.records,
        "intervals": intervals.collect::<Vec<_>>(),
    })
}

fn of_row(row: &Row) -> Value {
    let summary = &row.summary;
    json!({
        "series": row.series, "count": summary.count, "sum": summary.sum, "min": summary.min, "max": summary.max,
        "histogram": summary.histogram.as_ref().map(of_histogram),
        "score": row.score.map(of_score),
    })
}

fn of_histogram(histogram: &Histogram) -> Value {
    let buckets = |buckets: &Buckets| json!({ "offset": buckets.offset(), "counts": buckets.counts() });
    json!({
        "scale": histogram.scale(),
        "zero_count": histogram.zero_count(),
        "positive": buckets(histogram.positive()),
        "negative": buckets(histogram.negative()),
    })
}

fn of_score(score: Score) -> Value {
    let state = match score.state {
        ScoreState::Warming => "warming",
        ScoreState::Ok => "ok",
        ScoreState::Stale => "stale",
    };
    json!({
        "state": state, "alarm": score.alarm, "log10_p": tenths(score.log10_p), "effect": tenths(score.effect),
        "missing": score.missing,
    })
}

fn of_finding(finding: &Finding) -> Value {
    let labels = finding.labels.iter();
    json!({
        "id": hex(finding.id), "revision": finding.revision, "metric": finding.metric, "unit": finding.unit,
        "role": finding.role, "decimals": finding.decimals, "currency": finding.currency, "plugin": finding.plugin,
        "labels": labels.map(|(key, value)| json!([key, value])).collect::<Vec<_>>(),
        "start_ms": finding.start_ms, "peak_ms": finding.peak_ms, "end_ms": finding.end_ms,
        "window_ms": finding.window_ms, "log10_p": tenths(finding.log10_p), "effect": tenths(finding.effect),
        "expected": finding.expected, "actual": finding.actual,
    })
}

fn of_state(state: &State) -> Value {
    json!({
        "online": state.online, "generation": hex(state.generation), "birth_number": state.birth_number,
        "agent_version": state.agent_version, "clock": of_clock(state.clock), "spool_records": state.spool_records,
        "spool_bytes": state.spool_bytes, "refused": state.refused, "parked": state.parked,
        "bytes_today": state.bytes_today, "bytes_per_day": state.bytes_per_day, "intervals": state.intervals,
    })
}

fn of_ack(ack: &Ack) -> Value {
    let generations = ack.generations.iter().map(|generation| {
        json!({
            "generation": hex(generation.generation), "through_seq": generation.through_seq,
            "ranges": generation.ranges.iter().map(|(first, last)| json!([first, last])).collect::<Vec<_>>(),
        })
    });
    json!({
        "archive": ack.archive.as_str(),
        "start": hex(ack.start),
        "generations": generations.collect::<Vec<_>>(),
        "births_wanted": ack.births_wanted.iter().map(|schema| hex(*schema)).collect::<Vec<_>>(),
    })
}

/// Tenths as a double that prints with one decimal.
fn tenths(value: f32) -> f64 {
    (f64::from(value) * 10.0).round() / 10.0
}
