//! Columns to a block.
//!
//! In: the protobuf `Block` of anybody, already within the limits of `scan`. Out: intervals of rows, or the first
//! column that does not fit. FORMAT.md, "Block", has the rules in words.

use super::block_encode::{BUCKET_COUNT_MAX, FLAG_ALARM};
use super::error::{BLOCK_BUCKETS_MAX, DecodeError, INTERVAL_MS_MAX, TIME_MS_MAX};
use super::header::limit;
use super::predict::{EXPONENT_MAX, Prediction, equal_sum, plain_sum, power_of_ten};
use crate::histogram::{BUCKETS_MAX, Buckets, Histogram, HistogramError};
use crate::message::{Block, Interval, Row};
use crate::proto;
use crate::score::{Score, ScoreState, effect, log10_p, missing};
use crate::summary::Summary;

/// One column, read from front to back.
struct Column<T> {
    name: &'static str,
    values: std::vec::IntoIter<T>,
    /// The value of all rows, instead of one each.
    all: Option<T>,
}

impl<T: Copy> Column<T> {
    /// One value for each row.
    fn each(name: &'static str, values: Vec<T>) -> Column<T> {
        Column {
            name,
            values: values.into_iter(),
            all: None,
        }
    }

    /// One value for each row, or one for all.
    fn alike(name: &'static str, values: Vec<T>) -> Column<T> {
        let all = if values.len() == 1 {
            values.first().copied()
        } else {
            None
        };
        Column {
            name,
            values: values.into_iter(),
            all,
        }
    }

    /// Every row has `value` when the column is empty.
    fn or(self, value: T) -> Column<T> {
        let all = if self.values.len() == 0 { Some(value) } else { self.all };
        Column { all, ..self }
    }

    fn next(&mut self) -> Result<T, DecodeError> {
        // The error is made only where it is one: this runs for each number of a payload.
        match self.all.or_else(|| self.values.next()) {
            Some(value) => Ok(value),
            None => Err(DecodeError::Column(self.name)),
        }
    }

    fn end(self) -> Result<(), DecodeError> {
        if self.all.is_none() && self.values.len() > 0 {
            Err(DecodeError::Column(self.name))
        } else {
            Ok(())
        }
    }
}

struct Columns {
    start_ms: Column<i64>,
    length_ms: Column<u32>,
    rows: Column<u32>,
    series: Column<u32>,
    has_histogram: Column<bool>,
    count: Column<i64>,
    zero_count: Column<u64>,
    scale: Column<i32>,
    positive: BucketColumns,
    negative: BucketColumns,
    exponent: Column<u32>,
    zeros: Column<u32>,
    min: Column<i64>,
    max: Column<i64>,
    sum: Column<i64>,
    score_flags: Column<u32>,
    score_p: Column<u32>,
    score_effect: Column<i32>,
    score_missing: Column<i64>,
}

struct BucketColumns {
    offset: Column<i32>,
    length: Column<u32>,
    bucket: Column<u64>,
    what: &'static str,
    /// How many buckets all histograms may still have, empty ones included.
    left: usize,
    /// Offsets by place, of the interval before and of this one; they stay empty when offsets are not differences.
    before: Vec<i32>,
    now: Vec<i32>,
    is_difference: bool,
}

pub(super) fn decode(block: proto::Block) -> Result<Block, DecodeError> {
    let intervals = block.start_ms.len();
    let records = records(&block.intervals_per_record, intervals)?;
    let schema = block.schema;
    let mut columns = Columns::of(block);
    let mut decoded = Vec::with_capacity(intervals);
    let mut start_ms = 0_u64;
    for _ in 0..intervals {
        start_ms = start_ms.wrapping_add(columns.start_ms.next()?.cast_unsigned());
        decoded.push(interval(&mut columns, start_ms)?);
    }
    columns.end()?;
    Ok(Block {
        schema,
        records,
        intervals: decoded,
    })
}

fn records(per_record: &[u32], intervals: usize) -> Result<Vec<u32>, DecodeError> {
    if per_record.is_empty() {
        return Ok(vec![1; intervals]);
    }
    let sum: u64 = per_record.iter().map(|n| u64::from(*n)).sum();
    if usize::try_from(sum) == Ok(intervals) {
        return Ok(per_record.to_vec());
    }
    Err(DecodeError::Column("intervals_per_record"))
}

fn interval(columns: &mut Columns, start_ms: u64) -> Result<Interval, DecodeError> {
    if start_ms > TIME_MS_MAX {
        return Err(DecodeError::OutOfRange {
            what: "start_ms",
            value: start_ms,
        });
    }
    let length_ms = columns.length_ms.next()?;
    if length_ms == 0 || length_ms > INTERVAL_MS_MAX {
        return Err(DecodeError::OutOfRange {
            what: "length_ms",
            value: u64::from(length_ms),
        });
    }
    let rows = usize::try_from(columns.rows.next()?).unwrap_or(usize::MAX);
    // Each row takes a value of this column, so that a number alone cannot ask for memory.
    limit("rows beyond column series", rows, columns.series.values.len())?;
    let mut decoded = Vec::with_capacity(rows);
    let mut next_series = Some(0_u32);
    for _ in 0..rows {
        let step = columns.series.next()?;
        let series = next_series
            .and_then(|next| next.checked_add(step))
            .ok_or(DecodeError::Column("series"))?;
        next_series = series.checked_add(1);
        decoded.push(row(columns, series)?);
    }
    columns.positive.next_interval();
    Ok(Interval {
        start_ms,
        length_ms,
        rows: decoded,
    })
}

fn row(columns: &mut Columns, series: u32) -> Result<Row, DecodeError> {
    let has_histogram = columns.has_histogram.next()?;
    let count = columns.count.next()?.cast_unsigned();
    let (histogram, prediction) = if has_histogram {
        let histogram = histogram(columns, series)?;
        let prediction = Prediction::of(&histogram, power(columns.exponent.next()?, "exponent")?);
        let unit = power_of_ten(power(columns.zeros.next()?, "zeros")?);
        (Some(histogram), Some((prediction, unit)))
    } else {
        (None, None)
    };
    let count = count.wrapping_add(histogram.as_ref().map_or(0, Histogram::count));
    if i64::try_from(count).is_err() {
        return Err(DecodeError::OutOfRange {
            what: "count",
            value: count,
        });
    }
    let (min, max, sum) = numbers(columns, count, prediction)?;
    let score = score(columns)?;
    Ok(Row {
        series,
        summary: Summary {
            count,
            sum,
            min,
            max,
            histogram,
        },
        score,
    })
}

fn histogram(columns: &mut Columns, series: u32) -> Result<Histogram, DecodeError> {
    let wrong = |source| DecodeError::Histogram { series, source };
    let zero_count = columns.zero_count.next()?;
    let scale = columns.scale.next()?;
    let positive = columns.positive.next().map_err(|error| error.named(wrong))?;
    let negative = columns.negative.next().map_err(|error| error.named(wrong))?;
    Histogram::from_parts(scale, zero_count, positive, negative).map_err(wrong)
}

fn power(exponent: u32, what: &'static str) -> Result<u32, DecodeError> {
    if exponent > EXPONENT_MAX {
        return Err(DecodeError::OutOfRange {
            what,
            value: u64::from(exponent),
        });
    }
    Ok(exponent)
}

/// Minimum, maximum and sum; a prediction is in multiples of its unit.
fn numbers(
    columns: &mut Columns,
    count: u64,
    prediction: Option<(Prediction, i64)>,
) -> Result<(i64, i64, i64), DecodeError> {
    if count == 0 {
        return Ok((0, 0, 0));
    }
    let unit = prediction.map_or(1, |(_, unit)| unit);
    let prediction = prediction.map(|(prediction, _)| prediction);
    let (min, max, sum) = multiples(columns, count, prediction)?;
    let [low, high] = [min, max].map(|n| n.checked_mul(unit).ok_or(OUT_OF_RANGE));
    let (low, high) = (low?, high?);
    let sum = match sum {
        Some(sum) => sum.checked_mul(unit).ok_or(OUT_OF_RANGE)?,
        None if low == high => equal_sum(count, low),
        None => low.saturating_add(high),
    };
    Ok((low, high, sum))
}

const OUT_OF_RANGE: DecodeError = DecodeError::Column("zeros");

/// Minimum, maximum, and the sum where it does not follow from them.
fn multiples(
    columns: &mut Columns,
    count: u64,
    prediction: Option<Prediction>,
) -> Result<(i64, i64, Option<i64>), DecodeError> {
    let min = columns
        .min
        .next()?
        .wrapping_add(prediction.map_or(0, |prediction| prediction.min));
    if count == 1 {
        return Ok((min, min, None));
    }
    let max = columns.max.next()?;
    let max = prediction.map_or_else(|| min.wrapping_add(max), |prediction| prediction.max.wrapping_sub(max));
    if max < min {
        return Err(DecodeError::Order {
            what: "values",
            first: min.cast_unsigned(),
            last: max.cast_unsigned(),
        });
    }
    if max == min || count == 2 {
        return Ok((min, max, None));
    }
    let predicted = prediction.map_or_else(|| plain_sum(count, min, max), |prediction| prediction.sum(min, max));
    Ok((min, max, Some(columns.sum.next()?.wrapping_add(predicted))))
}

fn score(columns: &mut Columns) -> Result<Option<Score>, DecodeError> {
    let flags = columns.score_flags.next()?;
    let state = match flags & !FLAG_ALARM {
        0 if flags == 0 => return Ok(None),
        1 => ScoreState::Warming,
        2 => ScoreState::Ok,
        3 => ScoreState::Stale,
        _ => {
            return Err(DecodeError::Unknown {
                what: "score_flags",
                value: i64::from(flags),
            });
        }
    };
    let alarm = flags & FLAG_ALARM != 0;
    if state == ScoreState::Warming {
        return Ok(Some(Score {
            state,
            alarm,
            ..Score::default()
        }));
    }
    let log10_p = log10_p(tenths_p(columns.score_p.next()?)?);
    let effect = effect(tenths_effect(columns.score_effect.next()?)?);
    let missing = missing(columns.score_missing.next()?);
    Ok(Some(Score {
        state,
        alarm,
        log10_p,
        effect,
        missing,
    }))
}

/// A p-value as it travels.
pub(super) fn tenths_p(value: u32) -> Result<u8, DecodeError> {
    u8::try_from(value).or(Err(DecodeError::OutOfRange {
        what: "p",
        value: u64::from(value),
    }))
}

/// An effect as it travels.
pub(super) fn tenths_effect(value: i32) -> Result<i16, DecodeError> {
    let value_u64 = u64::from(value.unsigned_abs());
    i16::try_from(value).or(Err(DecodeError::OutOfRange {
        what: "effect",
        value: value_u64,
    }))
}

/// Why buckets cannot be taken off their columns.
enum BucketsError {
    Column(DecodeError),
    TooMany(usize),
}

impl BucketsError {
    fn named(self, wrong: impl Fn(HistogramError) -> DecodeError) -> DecodeError {
        match self {
            BucketsError::Column(error) => error,
            BucketsError::TooMany(length) => wrong(HistogramError::Buckets(length)),
        }
    }
}

impl BucketColumns {
    fn next(&mut self) -> Result<Buckets, BucketsError> {
        let mut offset = self.offset.next().map_err(BucketsError::Column)?;
        if self.is_difference {
            let before = self.before.get(self.now.len()).copied().unwrap_or(0);
            offset = offset.wrapping_add(before);
            self.now.push(offset);
        }
        let length = self.length.next().map_err(BucketsError::Column)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > BUCKETS_MAX {
            return Err(BucketsError::TooMany(length));
        }
        let mut counts = Vec::with_capacity(length);
        for _ in 0..length {
            self.next_bucket(&mut counts)?;
        }
        self.left = self.left.saturating_sub(counts.len());
        Ok(Buckets::new(offset, counts))
    }

    /// The empty buckets before the next one that is not, and that one.
    fn next_bucket(&mut self, counts: &mut Vec<u64>) -> Result<(), BucketsError> {
        let code = self.bucket.next().map_err(BucketsError::Column)?;
        let empty = usize::try_from(code / BUCKET_COUNT_MAX).unwrap_or(usize::MAX);
        let length = counts.len().saturating_add(empty).saturating_add(1);
        if length > BUCKETS_MAX {
            return Err(BucketsError::TooMany(length));
        }
        limit(self.what, length, self.left).map_err(BucketsError::Column)?;
        let mut n = (code % BUCKET_COUNT_MAX).saturating_add(1);
        if n == BUCKET_COUNT_MAX {
            let more = self.bucket.next().map_err(BucketsError::Column)?;
            n = n.saturating_add(more);
        }
        counts.resize(length.saturating_sub(1), 0);
        counts.push(n);
        Ok(())
    }

    fn next_interval(&mut self) {
        std::mem::swap(&mut self.before, &mut self.now);
        self.now.clear();
    }

    fn end(self) -> Result<(), DecodeError> {
        self.offset.end()?;
        self.length.end()?;
        self.bucket.end()
    }
}

impl Columns {
    fn of(block: proto::Block) -> Columns {
        Columns {
            start_ms: Column::each("start_ms", block.start_ms),
            length_ms: Column::alike("length_ms", block.length_ms),
            rows: Column::alike("rows", block.rows),
            series: Column::each("series", block.series),
            has_histogram: Column::alike("has_histogram", block.has_histogram).or(false),
            count: Column::each("count", block.count),
            zero_count: Column::each("zero_count", block.zero_count).or(0),
            scale: Column::alike("scale", block.scale),
            positive: BucketColumns {
                offset: Column::each("positive_offset", block.positive_offset),
                length: Column::each("positive_length", block.positive_length),
                bucket: Column::each("positive_bucket", block.positive_bucket),
                what: "positive buckets",
                left: BLOCK_BUCKETS_MAX,
                before: Vec::new(),
                now: Vec::new(),
                is_difference: true,
            },
            negative: BucketColumns {
                offset: Column::each("negative_offset", block.negative_offset).or(0),
                length: Column::each("negative_length", block.negative_length).or(0),
                bucket: Column::each("negative_bucket", block.negative_bucket),
                what: "negative buckets",
                left: BLOCK_BUCKETS_MAX,
                before: Vec::new(),
                now: Vec::new(),
                is_difference: false,
            },
            exponent: Column::alike("exponent", block.exponent),
            zeros: Column::alike("zeros", block.zeros).or(0),
            min: Column::each("min", block.min),
            max: Column::each("max", block.max),
            sum: Column::each("sum", block.sum),
            score_flags: Column::alike("score_flags", block.score_flags).or(0),
            score_p: Column::each("score_p", block.score_p),
            score_effect: Column::each("score_effect", block.score_effect),
            score_missing: Column::each("score_missing", block.score_missing),
        }
    }

    fn end(self) -> Result<(), DecodeError> {
        self.length_ms.end()?;
        self.rows.end()?;
        self.series.end()?;
        self.has_histogram.end()?;
        self.count.end()?;
        self.zero_count.end()?;
        self.scale.end()?;
        self.positive.end()?;
        self.negative.end()?;
        self.exponent.end()?;
        self.zeros.end()?;
        self.min.end()?;
        self.max.end()?;
        self.sum.end()?;
        self.score_flags.end()?;
        self.score_p.end()?;
        self.score_effect.end()?;
        self.score_missing.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one histogram each, whose two buckets stand as far apart as they may.
    fn wide(rows: usize) -> proto::Block {
        let far = u64::try_from(BUCKETS_MAX - 2).unwrap().saturating_mul(BUCKET_COUNT_MAX);
        proto::Block {
            start_ms: vec![0],
            length_ms: vec![60_000],
            rows: vec![u32::try_from(rows).unwrap()],
            series: vec![0; rows],
            has_histogram: vec![true],
            count: vec![0; rows],
            scale: vec![4],
            positive_offset: vec![0; rows],
            positive_length: vec![2; rows],
            positive_bucket: [0, far].repeat(rows),
            exponent: vec![0],
            min: vec![0; rows],
            max: vec![0; rows],
            ..proto::Block::default()
        }
    }

    #[test]
    fn empty_buckets_that_cost_nothing_to_send_are_bounded_in_memory() {
        let rows_max = BLOCK_BUCKETS_MAX / BUCKETS_MAX;
        assert_eq!(decode(wide(rows_max)).unwrap().row_count(), rows_max);
        let refused = decode(wide(rows_max + 1)).unwrap_err();
        assert!(
            matches!(
                refused,
                DecodeError::Limit {
                    what: "positive buckets",
                    ..
                }
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn a_histogram_wider_than_its_limit_is_refused() {
        let mut block = wide(1);
        *block.positive_bucket.last_mut().unwrap() += BUCKET_COUNT_MAX;
        assert!(matches!(decode(block), Err(DecodeError::Histogram { .. })));
    }

    #[test]
    fn zeros_beyond_a_number_are_refused() {
        let mut block = wide(1);
        block.zeros = vec![9];
        block.min = vec![i64::MAX / 2];
        block.max = vec![0];
        assert!(decode(block.clone()).is_err());
        block.zeros = vec![10];
        assert_eq!(
            decode(block),
            Err(DecodeError::OutOfRange {
                what: "zeros",
                value: 10
            })
        );
    }
}
