//! A block to its columns.
//!
//! In: intervals of rows, as the agent made them. Out: the protobuf `Block`, without what follows from other columns.
//! Differences wrap around, so that every value of a consistent summary survives.

use super::predict::{Prediction, exponent_of, plain_sum};
use crate::histogram::{Buckets, Histogram};
use crate::message::{Block, Row};
use crate::proto;
use crate::score::{Score, ScoreState, tenths_of_effect, tenths_of_p};
use crate::summary::Summary;

pub(super) const FLAG_ALARM: u32 = 4;

pub(super) fn encode(block: &Block) -> proto::Block {
    let mut columns = proto::Block {
        schema: block.schema,
        ..Default::default()
    };
    let mut previous_start = 0;
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
            push_row(&mut columns, row);
        }
    }
    if block.records.iter().any(|intervals| *intervals != 1) {
        columns.intervals_per_record.clone_from(&block.records);
    }
    shorten(&mut columns);
    columns
}

fn push_row(columns: &mut proto::Block, row: &Row) {
    let summary = &row.summary;
    columns.has_histogram.push(summary.histogram.is_some());
    let counted = summary.histogram.as_ref().map_or(0, Histogram::count);
    columns.count.push(summary.count.wrapping_sub(counted).cast_signed());
    let prediction = summary
        .histogram
        .as_ref()
        .map(|histogram| push_histogram(columns, histogram, summary));
    push_numbers(columns, summary, prediction);
    push_score(columns, row.score);
}

fn push_histogram(columns: &mut proto::Block, histogram: &Histogram, summary: &Summary) -> Prediction {
    let exponent = exponent_of(histogram, summary.min, summary.max);
    columns.exponent.push(exponent);
    columns.zero_count.push(histogram.zero_count());
    columns.scale.push(histogram.scale());
    let (positive, negative) = (histogram.positive(), histogram.negative());
    columns.positive_offset.push(positive.offset());
    columns.positive_length.push(length(positive));
    columns.positive_count.extend(positive.counts());
    columns.negative_offset.push(negative.offset());
    columns.negative_length.push(length(negative));
    columns.negative_count.extend(negative.counts());
    Prediction::of(histogram, exponent)
}

fn push_numbers(columns: &mut proto::Block, summary: &Summary, prediction: Option<Prediction>) {
    let Summary {
        count, sum, min, max, ..
    } = *summary;
    if count >= 1 {
        columns
            .min
            .push(min.wrapping_sub(prediction.map_or(0, |prediction| prediction.min)));
    }
    if count >= 2 {
        columns
            .max
            .push(max.wrapping_sub(prediction.map_or(min, |prediction| prediction.max)));
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
        columns.score_missing.push(score.missing);
    }
}

fn state_code(state: ScoreState) -> u32 {
    match state {
        ScoreState::Warming => 1,
        ScoreState::Ok => 2,
        ScoreState::Stale => 3,
    }
}

fn length(buckets: &Buckets) -> u32 {
    u32::try_from(buckets.counts().len()).unwrap_or(u32::MAX)
}

/// Columns of one value, and those that say nothing.
fn shorten(columns: &mut proto::Block) {
    alike(&mut columns.length_ms);
    alike(&mut columns.rows);
    alike(&mut columns.has_histogram);
    alike(&mut columns.scale);
    alike(&mut columns.exponent);
    alike(&mut columns.score_flags);
    drop_if(&mut columns.has_histogram, |has| !has);
    drop_if(&mut columns.zero_count, |n| n == 0);
    drop_if(&mut columns.score_flags, |flags| flags == 0);
    if columns.negative_count.is_empty() {
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
