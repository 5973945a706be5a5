//! Reading what foreign programs wrote: times, exact decimals, JSON lines by a field map.
//!
//! Bytes come in, checked values or one word of what is wrong go out.
//! Nothing here panics, loops or allocates by what the input says, and no error holds any of the input.
//!
//! A line `02.03.26 12:30:05;SCO1;1600` of a log in local time, whose zone is a setting:
//!
//! ```
//! use tillwatch_sdk::parse::{Decimal, Problems, Wrong, Zone, time_ms};
//! use tillwatch_sdk::testing::FileHost;
//! use tillwatch_sdk::{Batch, Error, Host, MetricId};
//!
//! const HOST_DURATION: MetricId = MetricId::new(0);
//! /// In plugin.toml with `labels = ["error.type"]`, and `values` that name each [`Wrong`].
//! const PARSE_ERRORS: MetricId = MetricId::new(1);
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     /// `"Europe/Berlin"` in plugin.toml.
//!     time_zone: Zone,
//! }
//!
//! fn collect(settings: &Settings, problems: &mut Problems, host: &mut dyn Host) -> Result<Batch, Error> {
//!     let mut batch = Batch::default();
//!     for line in host.read_lines("events", 256 * 1024)?.iter() {
//!         match read(line, settings.time_zone) {
//!             Ok((time_ms, terminal, took_ms)) => batch.push_integer(HOST_DURATION, &[terminal], took_ms, time_ms),
//!             Err(wrong) => problems.count(wrong),
//!         }
//!     }
//!     problems.report(PARSE_ERRORS, &mut batch, host);
//!     Ok(batch)
//! }
//!
//! fn read(line: &[u8], zone: Zone) -> Result<(u64, &str, i64), Wrong> {
//!     let line = str::from_utf8(line).or(Err(Wrong::Encoding))?;
//!     let mut fields = line.split(';');
//!     let mut next = || fields.next().ok_or(Wrong::Missing);
//!     Ok((time_ms(next()?, zone)?, next()?, Decimal::parse(next()?)?.whole()?))
//! }
//!
//! let settings = Settings { time_zone: Zone::parse("Europe/Berlin").unwrap() };
//! let mut host = FileHost::new(0);
//! host.append_lines("events", b"02.03.26 12:30:05;SCO1;1600\nnoon;SCO1;1600\n");
//! let batch = collect(&settings, &mut Problems::default(), &mut host)?;
//! assert_eq!(batch.series()[0].times_ms, [1_772_451_005_000]);
//! assert_eq!(batch.series()[1].labels, ["time"]);
//! # Ok::<(), Error>(())
//! ```

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
    ///
    /// ```
    /// use tillwatch_sdk::parse::Wrong;
    ///
    /// // What `values` of a label `error.type` may list.
    /// assert_eq!(Wrong::ALL.map(Wrong::name)[..3], ["encoding", "syntax", "missing"]);
    /// ```
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
