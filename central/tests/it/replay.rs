//! A recording must tell what the center told live: the founding story, as text and as it came.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use crate::chain::{Chain, Event, MINUTE_MS, model, today};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tillwatch_central::decode::{Observation, SeriesInfo};
use tillwatch_central::engine::Engine;
use tillwatch_central::impact::{Impact, ImpactSettings};
use tillwatch_central::model::Model;
use tillwatch_central::receive::Reckoner;
use tillwatch_central::replay::Replay;
use tillwatch_central::rollup::Rollup;
use tillwatch_central::view;
use tillwatch_central::watermark::Watermark;

fn story() -> Chain {
    let event = Event {
        slow: vec!["loyalty", "mainframe-link"],
        loss: 0.3,
        ..Event::new(Chain::region("north"), today(11, 0), 20)
    };
    Chain::without_history(1, vec![event])
}

fn line(text: &mut String, site: &str, series: &SeriesInfo, span: (u64, u64), sum: i64, rest: &str) {
    let labels: BTreeMap<_, _> = series.labels.iter().cloned().collect();
    let labels = serde_json::to_string(&labels).unwrap();
    let (metric, role, (start_ms, length_ms)) = (&series.metric, &series.role, span);
    let currency = serde_json::to_string(&series.currency).unwrap();
    writeln!(
        text,
        r#"{{"site":"{site}","region":"-","metric":"{metric}","role":"{role}","labels":{labels},"start_ms":{start_ms},"length_ms":{length_ms},"count":1,"sum":{sum},"min":{sum},"max":{sum},"decimals":{},"currency":{currency}{rest}}}"#,
        series.decimals
    )
    .unwrap();
}

fn text(history: &[Rollup], minutes: &[Vec<Observation>]) -> String {
    let mut text = String::new();
    for past in history {
        line(
            &mut text,
            past.site.as_str(),
            &past.series,
            (past.slot_ms, 900_000),
            past.sum,
            "",
        );
    }
    for told in minutes.iter().flatten() {
        let rest = told.score.map_or_else(String::new, |score| {
            let p = 10_f64.powf(f64::from(score.log10_p));
            format!(
                r#","expected":0,"p":{p},"effect":{},"finding":{}"#,
                score.effect, score.alarm
            )
        });
        let span = (told.start_ms, u64::from(told.length_ms));
        line(
            &mut text,
            told.site.as_str(),
            &told.series,
            span,
            told.summary.sum,
            &rest,
        );
    }
    text
}

fn replayed(text: &str) -> BTreeMap<String, String> {
    let mut replay = Replay::new(Model::parse("model.toml", &model()).unwrap());
    replay.take(text.as_bytes()).unwrap();
    let json = |incident| serde_json::to_string(incident).unwrap();
    replay
        .incidents()
        .into_iter()
        .map(|i| (i.id.clone(), json(i)))
        .collect()
}

/// As `receive` tells the engine of payloads that came.
fn live(history: &[Rollup], minutes: &[Vec<Observation>]) -> BTreeMap<String, String> {
    let impact = Impact::new(Model::parse("model.toml", &model()).unwrap(), ImpactSettings::default());
    let (view, _reader) = view::channel();
    let mut engine = Engine::new(impact, 600_000, Vec::new(), jiff::tz::TimeZone::UTC, view);
    history.iter().for_each(|past| engine.restore(past));
    let (mut watermark, mut told) = (Watermark::default(), BTreeMap::new());
    for minute in minutes {
        for payload in minute.chunk_by(|a, b| a.site == b.site) {
            engine.on_observations(payload);
            let Some(now_ms) = watermark.heard(&payload[0].site, payload[0].start_ms + MINUTE_MS) else {
                continue;
            };
            engine.on_clock(now_ms);
        }
        let changes = engine.changed_incidents();
        changes.absorbed.iter().for_each(|id| drop(told.remove(id)));
        told.extend(changes.told.into_iter().map(|row| (row.id, row.json)));
    }
    told
}

#[test]
fn a_recording_tells_to_the_bit_what_the_center_told_live() {
    let mut chain = story();
    let mut history = chain.history();
    // Four weeks are enough for a price.
    history.retain(|past| past.slot_ms >= today(0, 0) - 28 * 24 * 60 * MINUTE_MS);
    let minutes: Vec<_> = (today(10, 30)..today(11, 18))
        .step_by(60_000)
        .map(|minute_ms| chain.fresh(minute_ms))
        .collect();
    let text = text(&history, &minutes);
    let first = replayed(&text);
    assert_eq!(first, replayed(&text), "two runs");
    assert_eq!(first, live(&history, &minutes), "live");
    assert!(
        first
            .values()
            .any(|json| json.contains("mainframe-link") && json.contains("\"costed\"")),
        "{first:#?}"
    );
}
