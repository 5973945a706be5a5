//! How many bytes a store costs: a synthetic one of 30 series, 16 of them distributions.

use fastrand::Rng;
use tillwatch_feed::codec;
use tillwatch_feed::message::{Block, Body, ClockReading, Interval, Message, Row};
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;

const SEED: u64 = 7;
const SERIES: u32 = 30;
const DISTRIBUTIONS: u32 = 16;
const START_MS: u64 = 1_780_306_200_000;

/// A standard normal value, nearly: the sum of twelve uniform ones.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}

#[expect(clippy::cast_possible_truncation, reason = "test values are small")]
fn row(rng: &mut Rng, series: u32) -> Row {
    let mut summary = Summary::default();
    if series < DISTRIBUTIONS {
        summary = Summary::with_histogram();
        let (median, values) = (0.02 * f64::from(1 + series), 4 + 12 * rng.u32(0..=series));
        for _ in 0..values {
            let micros = (median * (0.35 * normal(rng)).exp() * 1e6).round();
            summary.record(micros as i64, micros / 1e6);
        }
    } else {
        let level = i64::from(series - DISTRIBUTIONS) * 150;
        for _ in 0..6 {
            summary.record(level + (normal(rng) * level as f64 / 10.0) as i64, 0.0);
        }
    }
    let log10_p = (rng.f32().max(1e-6)).log10();
    let missing = (normal(rng) * 40.0) as i64;
    let score = Score {
        state: ScoreState::Ok,
        alarm: false,
        log10_p,
        effect: normal(rng) as f32,
        missing,
    };
    Row {
        series,
        summary,
        score: Some(score),
    }
}

fn block(rng: &mut Rng, minute: u64) -> Block {
    let rows = (0..SERIES).map(|series| row(rng, series)).collect();
    let interval = Interval {
        start_ms: START_MS + minute * 60_000,
        length_ms: 60_000,
        rows,
    };
    Block {
        schema: 0x1234_5678_9abc_def0,
        records: vec![1],
        intervals: vec![interval],
    }
}

fn bytes_per_series_minute(block: Block) -> f64 {
    let minutes = block.intervals.len() as f64;
    let seq_last = 1000 + u64::try_from(block.records.len()).unwrap() - 1;
    let clock = ClockReading {
        wall_ms: START_MS,
        monotonic_ms: 123_456_789,
        boot_id: 0x9e37_79b9_7f4a_7c15,
    };
    let body = Body::Block(block);
    let message = Message {
        generation: 0xfedc_ba98_7654_3210,
        seq_first: 1000,
        seq_last,
        oldest_seq_held: 1000,
        clock,
        body,
    };
    codec::encode(&message).len() as f64 / minutes / f64::from(SERIES)
}

#[test]
fn a_store_costs_few_bytes() {
    println!("seed {SEED}");
    let mut rng = Rng::with_seed(SEED);
    let blocks: Vec<Block> = (0..60).map(|minute| block(&mut rng, minute)).collect();
    let live: f64 = blocks.iter().cloned().map(bytes_per_series_minute).sum::<f64>() / 60.0;
    let joined = bytes_per_series_minute(Block::join(blocks).unwrap());
    println!("bytes per series-minute: live {live:.1}, joined {joined:.1}");
    assert!(live < 26.0 && joined < 20.0, "live {live:.1}, joined {joined:.1}");
}
