//! A store that says known things, and a reckoner that writes down what it is told.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tillwatch_central::archive::{self, Archive, IncidentChanges, IncidentRow, Retention};
use tillwatch_central::decode::Observation;
use tillwatch_central::receive::{Arrived, PAST_ROLES, Receiver, Reckoner};
use tillwatch_central::rollup::Rollup;
use tillwatch_feed::codec;
use tillwatch_feed::message::{
    Birth, Block, Body, ClockReading, Finding, GapReason, Interval, Kind, Message, Metric, Plugin, Row, Series,
};
use tillwatch_feed::summary::Summary;
use tillwatch_feed::topic::{Leaf, SiteId};

pub(crate) const START_MS: u64 = 1_767_225_600_000;
pub(crate) const MINUTE_MS: u64 = 60_000;

/// What the reckoner was told: sums by site and minute, so that nothing can count twice unnoticed.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) sums: BTreeMap<(SiteId, u64), i64>,
    pub(crate) findings: Vec<u64>,
    pub(crate) clock_ms: Vec<u64>,
    pub(crate) rollups: i64,
}

#[derive(Clone, Default)]
pub(crate) struct Listener(pub(crate) Arc<Mutex<Told>>);

impl Reckoner for Listener {
    fn restore(&mut self, rollup: &Rollup) {
        self.0.lock().unwrap().rollups += rollup.sum;
    }

    fn resume(&mut self, _: &[IncidentRow]) {}

    fn on_observations(&mut self, observations: &[Observation]) {
        let mut told = self.0.lock().unwrap();
        for observation in observations {
            *told
                .sums
                .entry((observation.site.clone(), observation.start_ms))
                .or_default() += observation.summary.sum;
        }
    }

    fn on_finding(&mut self, _: &SiteId, finding: &Finding) {
        self.0.lock().unwrap().findings.push(finding.id);
    }

    fn on_clock(&mut self, watermark_ms: u64) {
        self.0.lock().unwrap().clock_ms.push(watermark_ms);
    }

    fn changed_incidents(&mut self) -> IncidentChanges {
        IncidentChanges::default()
    }
}

impl Listener {
    pub(crate) fn told(&self) -> Told {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

pub(crate) fn birth() -> Birth {
    let plugins = vec![Plugin {
        name: "sales".into(),
        version: "0.1.0".into(),
    }];
    let metrics = vec![Metric {
        name: "sales.amount".into(),
        unit: "1".into(),
        kind: Kind::Sum,
        role: "sales.amount".into(),
        decimals: 2,
        currency: Some("EUR".into()),
        plugin: 0,
        label_keys: vec!["lane".into()],
    }];
    let series = vec![Series {
        id: 7,
        metric: 0,
        label_values: vec!["1".into()],
    }];
    let schema = Birth::schema_hash(10_000, &plugins, &metrics, &series);
    Birth {
        schema,
        agent_version: "0.1.0".into(),
        previous: None,
        metrics,
        series,
        plugins,
        window_ms: 10_000,
    }
}

/// The block record with this number: one minute in which exactly `seq` was sold.
pub(crate) fn block(seqs: std::ops::RangeInclusive<u64>) -> Block {
    let interval = |seq: u64| {
        let sum = i64::try_from(seq).unwrap();
        let summary = Summary {
            count: 1,
            sum,
            min: sum,
            max: sum,
            histogram: None,
        };
        let rows = vec![Row {
            series: 7,
            summary,
            score: None,
        }];
        Interval {
            start_ms: START_MS + seq * MINUTE_MS,
            length_ms: 60_000,
            rows,
        }
    };
    let intervals: Vec<_> = seqs.map(interval).collect();
    Block {
        schema: birth().schema,
        records: vec![1; intervals.len()],
        intervals,
    }
}

/// The same at a store whose clock is ahead.
pub(crate) fn blocks_ahead(generation: u64, seqs: std::ops::RangeInclusive<u64>, ahead_ms: u64) -> Message {
    let mut block = block(seqs.clone());
    block
        .intervals
        .iter_mut()
        .for_each(|interval| interval.start_ms += ahead_ms);
    message(generation, seqs, Body::Block(block))
}

pub(crate) fn message(generation: u64, seqs: std::ops::RangeInclusive<u64>, body: Body) -> Message {
    let clock = ClockReading {
        wall_ms: START_MS + seqs.end() * MINUTE_MS,
        monotonic_ms: 0,
        boot_id: 1,
    };
    Message {
        generation,
        seq_first: *seqs.start(),
        seq_last: *seqs.end(),
        oldest_seq_held: 1,
        clock,
        body,
    }
}

pub(crate) fn blocks(generation: u64, seqs: std::ops::RangeInclusive<u64>) -> Message {
    message(generation, seqs.clone(), Body::Block(block(seqs)))
}

pub(crate) fn born(generation: u64) -> Message {
    message(generation, 1..=1, Body::Birth(birth()))
}

pub(crate) fn gap(generation: u64, seqs: std::ops::RangeInclusive<u64>) -> Message {
    message(generation, seqs, Body::Gap(GapReason::QuotaBytes))
}

pub(crate) fn arrives(site: &SiteId, message: &Message) -> Arrived {
    raw(site, message.body.leaf(), codec::encode(message))
}

pub(crate) fn raw(site: &SiteId, leaf: Leaf, payload: Vec<u8>) -> Arrived {
    Arrived::Message {
        shard: "a".parse().unwrap(),
        site: site.clone(),
        leaf,
        payload,
    }
}

/// What all of `1..=last` sold, less the birth with number 1.
pub(crate) fn sold_through(site: &SiteId, last: u64) -> BTreeMap<(SiteId, u64), i64> {
    (2..=last)
        .map(|seq| ((site.clone(), START_MS + seq * MINUTE_MS), i64::try_from(seq).unwrap()))
        .collect()
}

/// All quarter-hour sums that start before a time.
pub(crate) fn rollups(archive: &dyn Archive, within_ms: std::ops::Range<u64>) -> Vec<Rollup> {
    let mut found = Vec::new();
    archive
        .rollups(PAST_ROLES, within_ms, &mut |rollup| found.push(rollup))
        .unwrap();
    found
}

/// A receiver over a file, and what its reckoner hears.
pub(crate) fn open(path: &std::path::Path) -> (Receiver, Listener) {
    let listener = Listener::default();
    let archive = archive::open(path, &"main".parse().unwrap()).unwrap();
    (receiver(Box::new(archive), listener.clone()), listener)
}

/// The same with central's wall clock told before anything is read.
pub(crate) fn open_at(path: &std::path::Path, wall_ms: u64) -> (Receiver, Listener) {
    let listener = Listener::default();
    let archive = archive::open(path, &"main".parse().unwrap()).unwrap();
    let mut receiver = unread(Box::new(archive), listener.clone());
    receiver.tell_time(wall_ms, 0);
    receiver.restore().unwrap();
    (receiver, listener)
}

pub(crate) fn receiver(archive: Box<dyn Archive>, listener: Listener) -> Receiver {
    let mut receiver = unread(archive, listener);
    receiver.restore().unwrap();
    receiver
}

fn unread(archive: Box<dyn Archive>, listener: Listener) -> Receiver {
    let retention = Retention {
        payloads_ms: 2 * 24 * 3_600_000,
        rollups_ms: 30 * 24 * 3_600_000,
    };
    Receiver::new("main".parse().unwrap(), 1, archive, Box::new(listener), retention)
}
