//! Reading what foreign programs wrote: times, exact decimals, JSON lines by a field map.
//!
//! Bytes come in, checked values or one word of what is wrong go out.
//! Nothing here panics, loops or allocates by what the input says, and no error holds any of the input.

mod decimal;
mod document;
mod fields;
mod problems;
pub(crate) mod time;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use decimal::Decimal;
pub use document::document_text;
pub use fields::{FieldMap, Value};
pub use problems::Problems;
pub use time::{Offset, Zone, time_ms};

/// What is wrong with a line or document; never with its content.
///
/// ```
/// use tillwatch_sdk::parse::Wrong;
///
/// assert_eq!(Wrong::Time.name(), "time");
/// assert_eq!(Wrong::ALL.len(), 7);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wrong {
    /// It is not UTF-8.
    Encoding,
    /// It is not in the expected format.
    Syntax,
    /// A field that must be there is not.
    Missing,
    /// A time cannot be read, or lies before 2000 or after 2099.
    Time,
    /// A number cannot be read or is out of range.
    Number,
    /// An amount is in another currency than the configured one.
    Currency,
    /// It is longer, deeper or holds more than is read.
    Limit,
}

impl Wrong {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Encoding,
        Self::Syntax,
        Self::Missing,
        Self::Time,
        Self::Number,
        Self::Currency,
        Self::Limit,
    ];

    /// One lower-case word, fit for a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Syntax => "syntax",
            Self::Missing => "missing",
            Self::Time => "time",
            Self::Number => "number",
            Self::Currency => "currency",
            Self::Limit => "limit",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl std::error::Error for Wrong {}

/// The text of foreign bytes.
///
/// ```
/// use tillwatch_sdk::parse::{Wrong, text};
///
/// assert_eq!(text(b"till-1"), Ok("till-1"));
/// assert_eq!(text(b"\xff"), Err(Wrong::Encoding));
/// ```
///
/// # Errors
/// [`Wrong::Encoding`] when they are not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Wrong> {
    std::str::from_utf8(bytes).or(Err(Wrong::Encoding))
}
