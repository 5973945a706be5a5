//! Payloads as JSON, for people and scripts.
//!
//! In: a payload of any topic. Out: the same in words and numbers, nothing left out.
//! 64-bit random numbers are written as 16 hexadecimal digits, since JSON readers round large numbers.

use anyhow::Context;
use serde_json::{Value, json};
use tillwatch_feed::codec;
use tillwatch_feed::histogram::Histogram;
use tillwatch_feed::message::{
    Ack, Birth, Block, Body, ClockReading, Finding, GapReason, Interval, Kind, Message, Row, State,
};
use tillwatch_feed::score::{Score, ScoreState};

/// Which payload it is: the bytes alone do not say, the topic does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PayloadKind {
    /// birth, sum and evt
    Message,
    State,
    Ack,
    Cfg,
}

/// The payload as indented JSON.
///
/// # Errors
/// When it cannot be read; the error says why.
pub fn decode(payload: &[u8], kind: PayloadKind) -> anyhow::Result<String> {
    let value = match kind {
        PayloadKind::Message => message(&codec::decode(payload).context("reading a message of birth, sum or evt")?),
        PayloadKind::State => state(&codec::decode_state(payload).context("reading a state")?),
        PayloadKind::Ack => ack(&codec::decode_ack(payload).context("reading an acknowledgement")?),
        PayloadKind::Cfg => {
            json!({ "spread_window_s": codec::decode_config(payload).context("reading a cfg")?.spread_window_s })
        }
    };
    Ok(serde_json::to_string_pretty(&value)?)
}

/// One incident from the archive on one line.
pub fn incident_line(incident: &Value) -> String {
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or("-")
            .chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
    };
    let cause = &incident["cause"];
    let price = match &incident["cost"] {
        Value::Null => text(&incident["price_state"]),
        cost => format!(
            "{} [{} to {}] {} minor units",
            cost["estimate_minor"],
            cost["lower_minor"],
            cost["upper_minor"],
            text(&cost["currency"])
        ),
    };
    let sites = incident["sites"].as_array().map_or(0, Vec::len);
    let (rank, id, status) = (&incident["rank"], text(&incident["id"]), text(&incident["status"]));
    let (service, region) = (text(&cause["service"]), text(&cause["region"]));
    format!("{rank}\t{id}\t{status}\t{service}\t{region}\t{sites} sites\t{price}")
}

fn hex(number: u64) -> Value {
    Value::from(format!("{number:016x}"))
}

fn message(message: &Message) -> Value {
    let (kind, body) = match &message.body {
        Body::Birth(content) => ("birth", birth(content)),
        Body::Block(content) => ("block", block(content)),
        Body::Gap(reason) => ("gap", Value::from(gap(*reason))),
        Body::Finding(content) => ("finding", finding(content)),
    };
    json!({
        "generation": hex(message.generation),
        "seq_first": message.seq_first,
        "seq_last": message.seq_last,
        "oldest_seq_held": message.oldest_seq_held,
        "clock": clock(message.clock),
        kind: body,
    })
}

fn clock(clock: ClockReading) -> Value {
    json!({ "wall_ms": clock.wall_ms, "monotonic_ms": clock.monotonic_ms, "boot_id": hex(clock.boot_id) })
}

fn gap(reason: GapReason) -> &'static str {
    match reason {
        GapReason::QuotaBytes => "quota_bytes",
        GapReason::QuotaAge => "quota_age",
        GapReason::Corrupt => "corrupt",
        GapReason::Refused => "refused",
        GapReason::Unknown => "unknown",
    }
}

fn birth(birth: &Birth) -> Value {
    let metrics = birth.metrics.iter().map(|metric| {
        json!({
            "name": metric.name, "unit": metric.unit, "kind": kind(metric.kind), "role": metric.role,
            "decimals": metric.decimals, "currency": metric.currency, "plugin": metric.plugin,
            "label_keys": metric.label_keys,
        })
    });
    let series = birth.series.iter();
    let series = series.map(|s| json!({ "id": s.id, "metric": s.metric, "label_values": s.label_values }));
    let plugins = birth
        .plugins
        .iter()
        .map(|plugin| json!({ "name": plugin.name, "version": plugin.version }));
    json!({
        "schema": hex(birth.schema),
        "agent_version": birth.agent_version,
        "previous": birth.previous.map(|id| json!({ "generation": hex(id.generation), "seq": id.seq })),
        "window_ms": birth.window_ms,
        "metrics": metrics.collect::<Vec<_>>(),
        "series": series.collect::<Vec<_>>(),
        "plugins": plugins.collect::<Vec<_>>(),
    })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Sum => "sum",
        Kind::Distribution => "distribution",
    }
}

fn block(block: &Block) -> Value {
    let intervals: Vec<_> = block.intervals.iter().map(interval).collect();
    json!({ "schema": hex(block.schema), "intervals_per_record": block.records, "intervals": intervals })
}

fn interval(interval: &Interval) -> Value {
    let rows: Vec<_> = interval.rows.iter().map(row).collect();
    json!({ "start_ms": interval.start_ms, "length_ms": interval.length_ms, "rows": rows })
}

fn row(row: &Row) -> Value {
    let summary = &row.summary;
    json!({
        "series": row.series,
        "count": summary.count,
        "sum": summary.sum,
        "min": summary.min,
        "max": summary.max,
        "histogram": summary.histogram.as_ref().map(histogram),
        "score": row.score.as_ref().map(score),
    })
}

/// In a few numbers that people read; the buckets themselves are for programs.
fn histogram(histogram: &Histogram) -> Value {
    json!({
        "count": histogram.count(),
        "p50": histogram.quantile(0.5),
        "p95": histogram.quantile(0.95),
        "p99": histogram.quantile(0.99),
    })
}

fn score(score: &Score) -> Value {
    let state = match score.state {
        ScoreState::Warming => "warming",
        ScoreState::Ok => "ok",
        ScoreState::Stale => "stale",
    };
    let (log10_p, effect, missing) = (score.log10_p, score.effect, score.missing);
    json!({ "state": state, "alarm": score.alarm, "log10_p": log10_p, "effect": effect, "missing": missing })
}

fn finding(finding: &Finding) -> Value {
    let labels: serde_json::Map<_, _> = finding
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect();
    json!({
        "id": hex(finding.id), "revision": finding.revision, "metric": finding.metric, "unit": finding.unit,
        "role": finding.role, "decimals": finding.decimals, "currency": finding.currency, "plugin": finding.plugin,
        "labels": labels, "start_ms": finding.start_ms, "peak_ms": finding.peak_ms, "end_ms": finding.end_ms,
        "window_ms": finding.window_ms, "log10_p": finding.log10_p, "effect": finding.effect,
        "expected": finding.expected, "actual": finding.actual,
    })
}

fn state(state: &State) -> Value {
    json!({
        "online": state.online, "generation": hex(state.generation), "birth_number": state.birth_number,
        "agent_version": state.agent_version, "clock": clock(state.clock), "spool_records": state.spool_records,
        "spool_bytes": state.spool_bytes, "refused": state.refused, "parked": state.parked,
        "bytes_today": state.bytes_today, "bytes_per_day": state.bytes_per_day, "intervals": state.intervals,
    })
}

fn ack(ack: &Ack) -> Value {
    let generations = ack.generations.iter().map(|generation| {
        let ranges: Vec<_> = generation
            .ranges
            .iter()
            .map(|(first, last)| json!([first, last]))
            .collect();
        json!({ "generation": hex(generation.generation), "through_seq": generation.through_seq, "ranges": ranges })
    });
    json!({
        "archive": ack.archive.as_str(),
        "start": hex(ack.start),
        "generations": generations.collect::<Vec<_>>(),
        "births_wanted": ack.births_wanted.iter().map(|schema| hex(*schema)).collect::<Vec<_>>(),
    })
}
