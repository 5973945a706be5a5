//! Columns to a block.
//!
//! In: the protobuf `Block` of anybody, already within the limits of `scan`. Out: intervals of rows, or the first
//! column that does not fit. FORMAT.md, "Block", has the rules in words.

use super::block_encode::FLAG_ALARM;
use super::error::{DecodeError, INTERVAL_MS_MAX, TIME_MS_MAX};
use super::header::limit;
use super::predict::{EXPONENT_MAX, Prediction, equal_sum, plain_sum};
use crate::histogram::{BUCKETS_MAX, Buckets, Histogram, HistogramError};
use crate::message::{Block, Interval, Row};
use crate::proto;
use crate::score::{Score, ScoreState, effect, log10_p};
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
        let name = self.name;
        self.all
            .or_else(|| self.values.next())
            .ok_or_else(|| DecodeError::Column(name))
    }

    /// The next `n` of a column with one value each.
    fn take(&mut self, n: usize) -> Result<Vec<T>, DecodeError> {
        let rest = self.values.as_slice();
        let taken = rest.get(..n).ok_or(DecodeError::Column(self.name))?.to_vec();
        if let Some(last) = n.checked_sub(1) {
            self.values.nth(last);
        }
        Ok(taken)
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
    count: Column<u64>,
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
    Ok(Interval {
        start_ms,
        length_ms,
        rows: decoded,
    })
}

fn row(columns: &mut Columns, series: u32) -> Result<Row, DecodeError> {
    let has_histogram = columns.has_histogram.next()?;
    let count = columns.count.next()?.cast_unsigned();
    let (histogram, exponent) = if has_histogram {
        (Some(histogram(columns, series)?), exponent(columns)?)
    } else {
        (None, 0)
    };
    let count = count.wrapping_add(histogram.as_ref().map_or(0, Histogram::count));
    if i64::try_from(count).is_err() {
        return Err(DecodeError::OutOfRange {
            what: "count",
            value: count,
        });
    }
    let prediction = histogram.as_ref().map(|histogram| Prediction::of(histogram, exponent));
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

fn exponent(columns: &mut Columns) -> Result<u32, DecodeError> {
    let exponent = columns.exponent.next()?;
    if exponent > EXPONENT_MAX {
        return Err(DecodeError::OutOfRange {
            what: "exponent",
            value: u64::from(exponent),
        });
    }
    Ok(exponent)
}

/// Minimum, maximum and sum.
fn numbers(columns: &mut Columns, count: u64, prediction: Option<Prediction>) -> Result<(i64, i64, i64), DecodeError> {
    if count == 0 {
        return Ok((0, 0, 0));
    }
    let min = columns
        .min
        .next()?
        .wrapping_add(prediction.map_or(0, |prediction| prediction.min));
    if count == 1 {
        return Ok((min, min, min));
    }
    let max = columns
        .max
        .next()?
        .wrapping_add(prediction.map_or(min, |prediction| prediction.max));
    if max < min {
        return Err(DecodeError::Order {
            what: "values",
            first: min.cast_unsigned(),
            last: max.cast_unsigned(),
        });
    }
    if max == min {
        return Ok((min, max, equal_sum(count, min)));
    }
    if count == 2 {
        return Ok((min, max, min.saturating_add(max)));
    }
    let predicted = prediction.map_or_else(|| plain_sum(count, min, max), |prediction| prediction.sum(min, max));
    Ok((min, max, columns.sum.next()?.wrapping_add(predicted)))
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
    let missing = columns.score_missing.next()?;
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
        let offset = self.offset.next().map_err(BucketsError::Column)?;
        let length = self.length.next().map_err(BucketsError::Column)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > BUCKETS_MAX {
            return Err(BucketsError::TooMany(length));
        }
        let counts = self.count.take(length).map_err(BucketsError::Column)?;
        Ok(Buckets::new(offset, counts))
    }

    fn end(self) -> Result<(), DecodeError> {
        self.offset.end()?;
        self.length.end()?;
        self.count.end()
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
                count: Column::each("positive_count", block.positive_count),
            },
            negative: BucketColumns {
                offset: Column::each("negative_offset", block.negative_offset).or(0),
                length: Column::each("negative_length", block.negative_length).or(0),
                count: Column::each("negative_count", block.negative_count),
            },
            exponent: Column::alike("exponent", block.exponent),
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
        self.min.end()?;
        self.max.end()?;
        self.sum.end()?;
        self.score_flags.end()?;
        self.score_p.end()?;
        self.score_effect.end()?;
        self.score_missing.end()
    }
}
