//! Why a collector could not do its work, as the host tells it to the operator.

use std::fmt;

use crate::Fault;

/// What the host does after an error.
///
/// ```
/// use tillwatch_sdk::ErrorKind;
///
/// assert_eq!(ErrorKind::Transient.name(), "transient");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The settings are wrong: the agent does not start with them.
    Config,
    /// It may work next time.
    Transient,
    /// It will not work again in this instance.
    Permanent,
}

impl ErrorKind {
    /// The kind in lower case, as golden files write it.
    ///
    /// ```
    /// use tillwatch_sdk::ErrorKind;
    ///
    /// assert_eq!(ErrorKind::Permanent.name(), "permanent");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }
}

/// An error of a collector.
///
/// ```
/// use tillwatch_sdk::{Error, ErrorKind, Fault};
///
/// let error = Error::config("longest_ms must be positive, not -1");
/// assert_eq!(error.to_string(), "config: longest_ms must be positive, not -1");
/// assert_eq!(Error::permanent("the state is too large").kind, ErrorKind::Permanent);
/// // `?` turns a source's fault into an error.
/// assert_eq!(Error::from(Fault::Unavailable).kind, ErrorKind::Transient);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What the host does about it.
    pub kind: ErrorKind,
    /// Lower case, no full stop, naming the thing but no input of customers.
    pub message: String,
}

impl Error {
    /// The settings are wrong.
    ///
    /// ```
    /// use tillwatch_sdk::{Error, ErrorKind};
    ///
    /// assert_eq!(Error::config("longest_ms must be positive").kind, ErrorKind::Config);
    /// ```
    pub fn config(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Config,
            message: message.into(),
        }
    }

    /// It may work next time.
    ///
    /// ```
    /// use tillwatch_sdk::{Error, ErrorKind};
    ///
    /// assert_eq!(Error::transient("the listing changed while it was read").kind, ErrorKind::Transient);
    /// ```
    pub fn transient(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Transient,
            message: message.into(),
        }
    }

    /// It will not work again in this instance.
    ///
    /// ```
    /// use tillwatch_sdk::{Error, ErrorKind};
    ///
    /// assert_eq!(Error::permanent("the state is too large").kind, ErrorKind::Permanent);
    /// ```
    pub fn permanent(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Permanent,
            message: message.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.name(), self.message)
    }
}

impl std::error::Error for Error {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unknown => Self::config(fault.to_string()),
            Fault::Unavailable | Fault::Exhausted => Self::transient(fault.to_string()),
        }
    }
}
