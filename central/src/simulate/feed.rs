//! A simulated chain as text: a JSON object per line and per site, series and interval, and the truth beside it.
//!
//! In: a world. Out: lines, oldest first: quarters of the past, then minutes in the order in which they arrive.

use super::{Lost, World, signals};
use crate::decode::{Observation, SeriesInfo};
use crate::rollup::{Rollup, SLOT_MS};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// One series of one site in one interval.
#[derive(Debug, Serialize)]
struct Line<'a> {
    site: &'a str,
    region: &'a str,
    metric: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    start_ms: u64,
    length_ms: u64,
    count: u64,
    sum: i64,
    min: i64,
    max: i64,
    decimals: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(flatten)]
    score: Option<Scored>,
}

/// What the store itself says of an interval.
#[derive(Debug, Serialize)]
struct Scored {
    expected: i64,
    p: f64,
    effect: f32,
    finding: bool,
}

/// What an event was, and what it cost.
#[derive(Debug, Serialize)]
pub struct Truth {
    pub event: usize,
    pub start_ms: u64,
    pub end_ms: u64,
    pub cause: Option<String>,
    pub sites: Vec<String>,
    pub lost: Lost,
}

/// Writes the whole feed.
///
/// # Errors
/// When `into` cannot be written.
pub fn write(world: &mut World, into: &mut impl Write) -> io::Result<()> {
    let mut past = world.history();
    past.sort_by_key(|rollup| rollup.slot_ms);
    for rollup in &past {
        past_line(world, rollup, into)?;
    }
    let (from_ms, to_ms) = world.span_ms();
    for minute_ms in (from_ms..to_ms).step_by(60_000) {
        for observation in world.arrive(minute_ms) {
            minute_line(world, &observation, into)?;
        }
    }
    Ok(())
}

/// What each event was, in their order.
pub fn truth(world: &World) -> Vec<Truth> {
    let truth = |(event, lost): (usize, &Lost)| {
        let (start_ms, end_ms) = world.event_ms(event);
        Truth {
            event,
            start_ms,
            end_ms,
            cause: world.scenario.events[event].blamed().map(str::to_owned),
            sites: world.hit(event),
            lost: *lost,
        }
    };
    world.lost().iter().enumerate().map(truth).collect()
}

fn past_line(world: &World, rollup: &Rollup, into: &mut impl Write) -> io::Result<()> {
    let region = world.region_of(&rollup.site);
    let line = Line {
        length_ms: SLOT_MS,
        sum: rollup.sum,
        min: rollup.sum,
        max: rollup.sum,
        count: rollup.count,
        ..line(rollup.site.as_str(), &region, &rollup.series, rollup.slot_ms)
    };
    put(&line, into)
}

fn minute_line(world: &World, observation: &Observation, into: &mut impl Write) -> io::Result<()> {
    let region = world.region_of(&observation.site);
    let scored = observation.score.map(|score| Scored {
        expected: signals::USUAL,
        p: 10_f64.powf(f64::from(score.log10_p)),
        effect: score.effect,
        finding: score.alarm,
    });
    let summary = &observation.summary;
    let line = Line {
        length_ms: u64::from(observation.length_ms),
        count: summary.count,
        sum: summary.sum,
        min: summary.min,
        max: summary.max,
        score: scored,
        ..line(
            observation.site.as_str(),
            &region,
            &observation.series,
            observation.start_ms,
        )
    };
    put(&line, into)
}

fn line<'a>(site: &'a str, region: &'a str, series: &'a SeriesInfo, start_ms: u64) -> Line<'a> {
    Line {
        site,
        region,
        metric: &series.metric,
        labels: series
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
        start_ms,
        length_ms: 0,
        count: 0,
        sum: 0,
        min: 0,
        max: 0,
        decimals: series.decimals,
        currency: series.currency.as_deref(),
        score: None,
    }
}

fn put(line: &Line<'_>, into: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *into, line)?;
    into.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    #[test]
    fn each_line_is_an_object_with_the_documented_keys() {
        let text = "about = \"t\"\nfrom = \"10:00\"\nminutes = 2\n[chain]\nregions = [1, 1]\n";
        let mut world = World::new(&Scenario::parse(text).unwrap(), 1);
        let mut feed = Vec::new();
        write(&mut world, &mut feed).unwrap();
        let lines: Vec<serde_json::Value> = feed
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let last = lines.last().unwrap();
        for key in [
            "site",
            "region",
            "metric",
            "labels",
            "start_ms",
            "length_ms",
            "count",
            "sum",
            "min",
            "max",
            "expected",
            "p",
            "effect",
            "finding",
        ] {
            assert!(last.get(key).is_some(), "{key} in {last}");
        }
        let sales: Vec<_> = lines
            .iter()
            .filter(|line| line["metric"] == "sales.amount" && line["length_ms"] == 60_000)
            .collect();
        assert_eq!(
            (sales.len(), &sales[0]["currency"], sales[0].get("p")),
            (4, &serde_json::json!("EUR"), None)
        );
    }
}
