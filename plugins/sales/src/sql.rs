//! The rows of the operator's query: one page after the other, from the largest key that was read.
//!
//! A watermark stands on the key, never on a date: tills that were offline send late.
//! Rows that are committed out of the order of their keys are found by asking for the newest again, `cursor_overlap` of them.

use tillwatch_sdk::parse::Value;
use tillwatch_sdk::{Column, ColumnValues, Table};

use crate::kept::{At, CURSOR_BYTES_MAX};
use crate::row::{FIELDS, Row};

/// Pages that one call asks for; the agent allows 16 questions.
pub(crate) const PAGES_MAX: usize = 8;
/// 2^53: below it a real holds every whole number.
const REAL_MAX: f64 = 9_007_199_254_740_992.0;

/// Where the wanted fields stand in a table.
pub(crate) struct Page<'a> {
    table: &'a Table,
    columns: [Option<&'a Column>; FIELDS],
    cursor: Option<&'a Column>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(table: &'a Table, names: &[String; FIELDS], cursor: &str) -> Self {
        let column = |name: &str| {
            table
                .columns
                .iter()
                .find(|column| !name.is_empty() && column.name == name)
        };
        Self {
            table,
            columns: std::array::from_fn(|field| column(names.get(field)?)),
            cursor: column(cursor),
        }
    }

    /// Without its cursor a query would begin anew each time.
    pub(crate) fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.rows()
    }

    pub(crate) fn row(&self, index: usize) -> Row<'a> {
        self.columns.map(|column| value(&column?.values, index))
    }

    /// The text of a row's key.
    pub(crate) fn key(&self, index: usize) -> Option<String> {
        let value = value(&self.cursor?.values, index)?;
        value.as_text().map(str::to_owned)
    }

    /// The key from which the next page goes on: of numbers the largest, of texts the last, as only the database knows
    /// how it orders them.
    pub(crate) fn last(&self) -> Option<At> {
        match &self.cursor?.values {
            ColumnValues::Integers(values) => values.iter().flatten().max().copied().map(At::Integer),
            ColumnValues::Texts(values) => {
                let last = values.iter().flatten().next_back()?;
                (last.len() <= CURSOR_BYTES_MAX).then(|| At::Text(last.clone()))
            }
            ColumnValues::Reals(_) => None,
        }
    }
}

impl At {
    /// Whether it is no further than another one.
    pub(crate) fn is_behind(&self, at: &Self) -> bool {
        matches!((self, at), (Self::Integer(key), Self::Integer(at)) if key <= at)
    }

    /// A little before, for keys that are numbers.
    pub(crate) fn before(self, overlap: u32) -> Self {
        match self {
            Self::Integer(key) => Self::Integer(key.saturating_sub(i64::from(overlap))),
            text @ Self::Text(_) => text,
        }
    }
}

fn value(values: &ColumnValues, row: usize) -> Option<Value<'_>> {
    match values {
        ColumnValues::Integers(values) => Some(Value::Text(values.get(row)?.as_ref()?.to_string().into())),
        ColumnValues::Reals(values) => Some(Value::Text(decimal(values.get(row).copied()??)?.into())),
        ColumnValues::Texts(values) => Some(Value::Text(values.get(row)?.as_deref()?.into())),
    }
}

/// To the millionth, in a form that no decimal mark changes; none when it is no amount.
#[expect(clippy::cast_possible_truncation, reason = "checked to be below 2^53")]
fn decimal(real: f64) -> Option<String> {
    let millionths = (real * 1e6).round();
    if real.fract() == 0.0 && real.abs() < REAL_MAX {
        Some((real as i64).to_string())
    } else if millionths.abs() < REAL_MAX {
        Some(format!("{}e-6", millionths as i64))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::{self, DecimalMark};

    #[test]
    fn reals_are_exact_to_the_cent_with_either_mark() {
        for cents in [0_i64, 1, -1, 10, 1999, -505, 30, 101, 123_456_789, -99_999_999_999] {
            let text = decimal(cents as f64 / 100.0).unwrap();
            for mark in [DecimalMark::Point, DecimalMark::Comma] {
                let read = number::parse(&text, mark).and_then(|number| number.units(2));
                assert_eq!(read, Ok(cents), "{text} {mark:?}");
            }
        }
        assert_eq!(decimal(0.1 + 0.2).as_deref(), Some("300000e-6"));
        assert_eq!(
            (decimal(7.0).as_deref(), decimal(f64::NAN), decimal(1e300)),
            (Some("7"), None, None)
        );
    }
}
