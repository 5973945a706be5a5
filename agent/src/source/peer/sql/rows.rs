//! The rows of a query as they come, typed and within the bounds of its grant.

use tillwatch_border::{Column, ColumnValues, PeerFault, Table};

use super::super::PeerError;
use super::{ColumnType, SqlGrant};

/// Each value costs so much beside its text.
const VALUE_BYTES: usize = 8;

/// One value of a row.
pub(super) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
}

/// Rows as they come, within the bounds of a grant.
pub(super) struct Rows<'a> {
    grant: &'a SqlGrant,
    pub(super) table: Table,
    rows: usize,
    bytes: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(grant: &'a SqlGrant) -> Self {
        let column = |(name, kind): &(String, ColumnType)| Column {
            name: name.clone(),
            values: match kind {
                ColumnType::Integer => ColumnValues::Integers(Vec::new()),
                ColumnType::Real => ColumnValues::Reals(Vec::new()),
                ColumnType::Text => ColumnValues::Texts(Vec::new()),
            },
        };
        let table = Table {
            columns: grant.columns.iter().map(column).collect(),
            more: false,
            elapsed_us: 0,
        };
        Self {
            grant,
            table,
            rows: 0,
            bytes: 0,
        }
    }

    /// How many rows to ask for: as many as there is room for, by those that came so far; one beyond tells that there are
    /// more.
    #[cfg(feature = "postgres")]
    pub(super) fn wanted(&self) -> usize {
        let bytes_left = self.grant.table_bytes_max.saturating_sub(self.bytes);
        let fitting = (bytes_left * self.rows).checked_div(self.bytes).unwrap_or(0);
        fitting.min(self.grant.rows_max - self.rows) + 1
    }

    /// What was taken stays, and is not all.
    pub(super) fn cut(&mut self) -> Result<(), PeerError> {
        if self.rows == 0 {
            let why = format!("one row is larger than bytes_max = {}B", self.grant.table_bytes_max);
            return Err(PeerError::new(PeerFault::TooLarge, why));
        }
        self.table.more = true;
        Ok(())
    }

    /// Takes a row; false when it is beyond a bound, and with it all that follow.
    pub(super) fn push(&mut self, row: Vec<Value>) -> Result<bool, PeerError> {
        let bytes: usize = row.iter().map(Value::bytes).sum();
        if self.rows >= self.grant.rows_max || self.bytes + bytes > self.grant.table_bytes_max {
            self.cut()?;
            return Ok(false);
        }
        for (column, value) in self.table.columns.iter_mut().zip(row) {
            push(column, value)?;
        }
        self.rows += 1;
        self.bytes += bytes;
        Ok(true)
    }
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => VALUE_BYTES + text.len(),
            Self::Null | Self::Integer(_) | Self::Real(_) => VALUE_BYTES,
        }
    }
}

fn push(column: &mut Column, value: Value) -> Result<(), PeerError> {
    let kind = match (&mut column.values, value) {
        (ColumnValues::Integers(values), Value::Null) => return append(values, None),
        (ColumnValues::Integers(values), Value::Integer(value)) => return append(values, Some(value)),
        (ColumnValues::Reals(values), Value::Null) => return append(values, None),
        (ColumnValues::Reals(values), Value::Real(value)) => return append(values, Some(value)),
        #[expect(clippy::cast_precision_loss, reason = "the operator typed it as a real")]
        (ColumnValues::Reals(values), Value::Integer(value)) => return append(values, Some(value as f64)),
        (ColumnValues::Texts(values), Value::Null) => return append(values, None),
        (ColumnValues::Texts(values), Value::Text(value)) => return append(values, Some(value)),
        (ColumnValues::Integers(_), _) => ColumnType::Integer,
        (ColumnValues::Reals(_), _) => ColumnType::Real,
        (ColumnValues::Texts(_), _) => ColumnType::Text,
    };
    let why = format!("column {} holds a value that is no {}", column.name, kind.name());
    Err(PeerError::new(PeerFault::Malformed, why))
}

fn append<T>(values: &mut Vec<T>, value: T) -> Result<(), PeerError> {
    values.push(value);
    Ok(())
}
