//! A block to its columns.
//!
//! In: intervals of rows, as the agent made them. Out: the protobuf `Block`, without what follows from other columns.
//! Differences wrap around, so that every value of a consistent summary survives.

use super::predict::{Prediction, exponent_of, plain_sum, power_of_ten};
use crate::histogram::{Buckets, Histogram};
use crate::message::{Block, Row};
use crate::proto;
use crate::score::{Score, ScoreState, code_of_missing, tenths_of_effect, tenths_of_p};
use crate::summary::Summary;

pub(super) const FLAG_ALARM: u32 = 4;

/// A count from here on takes a number of its own beside its bucket's.
pub(super) const BUCKET_COUNT_MAX: u64 = 8;

/// What may be divided out of a row's numbers: seconds are measured in thousandths, millionths, or finer.
const ZEROS: [u32; 3] = [9, 6, 3];

/// Indexes of the first buckets, by place: of this interval and of the one before.
#[derive(Default)]
struct Offsets {
    before: Vec<i32>,
    now: Vec<i32>,
}

pub(super) fn encode(block: &Block) -> proto::Block {
    let mut columns = proto::Block {
        schema: block.schema,
        ..Default::default()
    };
    let mut previous_start = 0;
    let mut offsets = Offsets::default();
    for interval in &block.intervals {
        columns
            .start_ms
            .push(interval.start_ms.wrapping_sub(previous_start).cast_signed());
        previous_start = interval.start_ms;
        columns.length_ms.push(interval.length_ms);
        columns
            .rows
            .push(u32::try_from(interval.rows.len()).unwrap_or(u32::MAX));
        let mut next_series = 0_u32;
        for row in &interval.rows {
            columns.series.push(row.series.wrapping_sub(next_series));
            next_series = row.series.wrapping_add(1);
            push_row(&mut columns, &mut offsets, row);
        }
        offsets.next_interval();
    }
    if block.records.iter().any(|intervals| *intervals != 1) {
        columns.intervals_per_record.clone_from(&block.records);
    }
    shorten(&mut columns);
    columns
}

fn push_row(columns: &mut proto::Block, offsets: &mut Offsets, row: &Row) {
    let summary = &row.summary;
    columns.has_histogram.push(summary.histogram.is_some());
    let counted = summary.histogram.as_ref().map_or(0, Histogram::count);
    columns.count.push(summary.count.wrapping_sub(counted).cast_signed());
    let prediction = summary
        .histogram
        .as_ref()
        .map(|histogram| push_histogram(columns, offsets, histogram, summary));
    push_numbers(columns, summary, prediction);
    push_score(columns, row.score);
}

fn push_histogram(
    columns: &mut proto::Block,
    offsets: &mut Offsets,
    histogram: &Histogram,
    summary: &Summary,
) -> (Prediction, u32) {
    let decimals = exponent_of(histogram, summary.min, summary.max);
    let zeros = zeros_of(summary, decimals).unwrap_or_else(|| columns.zeros.last().copied().unwrap_or(0));
    let exponent = decimals.saturating_sub(zeros);
    columns.zeros.push(zeros);
    columns.exponent.push(exponent);
    columns.zero_count.push(histogram.zero_count());
    columns.scale.push(histogram.scale());
    let (positive, negative) = (histogram.positive(), histogram.negative());
    columns.positive_offset.push(offsets.difference(positive.offset()));
    columns
        .positive_length
        .push(push_buckets(&mut columns.positive_bucket, positive));
    columns.negative_offset.push(negative.offset());
    columns
        .negative_length
        .push(push_buckets(&mut columns.negative_bucket, negative));
    (Prediction::of(histogram, exponent), zeros)
}

/// How many zeros all of its numbers end with, as far as they are looked for; `None` when they are all 0.
fn zeros_of(summary: &Summary, decimals: u32) -> Option<u32> {
    let numbers = [summary.min, summary.max, summary.sum];
    if numbers == [0; 3] {
        return None;
    }
    let ends_with = |zeros: &u32| numbers.iter().all(|n| n.checked_rem(power_of_ten(*zeros)) == Some(0));
    let zeros = ZEROS.into_iter().find(|zeros| *zeros <= decimals && ends_with(zeros));
    Some(zeros.unwrap_or(0))
}

/// Those that are not empty, with how many empty ones stand before each; how many there were.
fn push_buckets(column: &mut Vec<u64>, buckets: &Buckets) -> u32 {
    let (mut empty, mut length) = (0_u64, 0_u32);
    for n in buckets.counts() {
        let Some(more) = n.checked_sub(1) else {
            empty = empty.saturating_add(1);
            continue;
        };
        let short = more.min(BUCKET_COUNT_MAX.saturating_sub(1));
        column.push(empty.saturating_mul(BUCKET_COUNT_MAX).saturating_add(short));
        if let Some(long) = n.checked_sub(BUCKET_COUNT_MAX) {
            column.push(long);
        }
        empty = 0;
        length = length.saturating_add(1);
    }
    length
}

fn push_numbers(columns: &mut proto::Block, summary: &Summary, prediction: Option<(Prediction, u32)>) {
    let count = summary.count;
    let unit = prediction.map_or(1, |(_, zeros)| power_of_ten(zeros));
    let prediction = prediction.map(|(prediction, _)| prediction);
    let [min, max, sum] = [summary.min, summary.max, summary.sum].map(|n| n.checked_div(unit).unwrap_or(n));
    if count >= 1 {
        columns
            .min
            .push(min.wrapping_sub(prediction.map_or(0, |prediction| prediction.min)));
    }
    if count >= 2 {
        let from = prediction.map_or_else(|| max.wrapping_sub(min), |prediction| prediction.max.wrapping_sub(max));
        columns.max.push(from);
    }
    if count >= 3 && min < max {
        let predicted = prediction.map_or_else(|| plain_sum(count, min, max), |prediction| prediction.sum(min, max));
        columns.sum.push(sum.wrapping_sub(predicted));
    }
}

fn push_score(columns: &mut proto::Block, score: Option<Score>) {
    let Some(score) = score else {
        columns.score_flags.push(0);
        return;
    };
    let alarm = if score.alarm { FLAG_ALARM } else { 0 };
    columns.score_flags.push(state_code(score.state) | alarm);
    if score.state != ScoreState::Warming {
        columns.score_p.push(u32::from(tenths_of_p(score.log10_p)));
        columns.score_effect.push(i32::from(tenths_of_effect(score.effect)));
        columns.score_missing.push(code_of_missing(score.missing));
    }
}

impl Offsets {
    fn difference(&mut self, offset: i32) -> i32 {
        let before = self.before.get(self.now.len()).copied().unwrap_or(0);
        self.now.push(offset);
        offset.wrapping_sub(before)
    }

    fn next_interval(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

fn state_code(state: ScoreState) -> u32 {
    match state {
        ScoreState::Warming => 1,
        ScoreState::Ok => 2,
        ScoreState::Stale => 3,
    }
}

/// Columns of one value, and those that say nothing.
fn shorten(columns: &mut proto::Block) {
    alike(&mut columns.length_ms);
    alike(&mut columns.rows);
    alike(&mut columns.has_histogram);
    alike(&mut columns.scale);
    alike(&mut columns.exponent);
    alike(&mut columns.zeros);
    alike(&mut columns.score_flags);
    drop_if(&mut columns.has_histogram, |has| !has);
    drop_if(&mut columns.zero_count, |n| n == 0);
    drop_if(&mut columns.zeros, |n| n == 0);
    drop_if(&mut columns.score_flags, |flags| flags == 0);
    if columns.negative_bucket.is_empty() {
        columns.negative_offset.clear();
        columns.negative_length.clear();
    }
}

fn alike<T: PartialEq>(column: &mut Vec<T>) {
    if column.windows(2).all(|pair| pair.first() == pair.last()) {
        column.truncate(1);
    }
}

fn drop_if<T: Copy>(column: &mut Vec<T>, idle: impl Fn(T) -> bool) {
    if column.iter().all(|value| idle(*value)) {
        column.clear();
    }
}
