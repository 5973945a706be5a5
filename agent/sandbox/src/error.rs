//! Why a plugin could not be loaded, or a call of it brought nothing.

use std::path::PathBuf;

use thiserror::Error;

use crate::engine::HeaderError;

/// Why an artifact could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Native code is trusted, so only its owner may write it.
    #[error("{path} could have been written by another user\nhint: the cache belongs to the agent's user alone")]
    Untrusted { path: PathBuf },
    /// The file was not written by `tillwatch-compile`.
    #[error("{path} is not a compiled plugin")]
    NotAnArtifact { path: PathBuf },
    /// It was compiled for another engine or machine; compile the plugin again.
    #[error("{path} was compiled for another engine: {found}")]
    OtherEngine { path: PathBuf, found: String },
    /// The file is torn.
    #[error("{path} is damaged")]
    Damaged { path: PathBuf },
    /// The engine refuses it.
    #[error("{path} cannot be loaded: {reason}")]
    Engine { path: PathBuf, reason: String },
    /// It is a component, but not with the exports and imports of the contract.
    #[error("{path} does not fit the contract: {reason}")]
    Contract { path: PathBuf, reason: String },
}

impl LoadError {
    pub(crate) fn header(path: PathBuf, error: HeaderError) -> Self {
        match error {
            HeaderError::NotAnArtifact => Self::NotAnArtifact { path },
            HeaderError::Other(found) => Self::OtherEngine { path, found },
            HeaderError::Damaged => Self::Damaged { path },
        }
    }
}

/// Why a call brought nothing. The caller rolls back what the call read and kept.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The plugin's code gave up, such as by a panic, whose text it has logged.
    #[error("the plugin trapped: {reason}")]
    Trap { reason: String },
    /// The plugin's recursion was too deep.
    #[error("the plugin used more than its stack")]
    Stack,
    /// The call was stopped.
    #[error("the plugin took longer than {call_ms_max} ms")]
    Deadline { call_ms_max: u64 },
    /// The plugin wanted more memory than it may have.
    #[error("the plugin wanted {wanted} bytes of memory, at most {memory_bytes_max}")]
    Memory { wanted: usize, memory_bytes_max: usize },
    /// More bytes came across the border than may.
    #[error("the plugin said more than {output_bytes_max} bytes at once")]
    OutputBytes { output_bytes_max: usize },
    /// The answer is beyond a bound of [`Limits`](crate::Limits), named here.
    #[error("the plugin's answer has {found} where {bound} is {limit}")]
    Oversized {
        bound: &'static str,
        found: usize,
        limit: usize,
    },
    /// The answer contradicts itself.
    #[error("the plugin's answer makes no sense: {reason}")]
    Malformed { reason: &'static str },
    /// The plugin says itself what is wrong.
    #[error("{0}")]
    Plugin(PluginError),
    /// An earlier call ended in the middle: this instance is not called again.
    #[error("the plugin's instance is spent")]
    Spent,
}

impl CallError {
    /// Whether the instance is spent and another must be made.
    pub fn spends_the_instance(&self) -> bool {
        match self {
            Self::Trap { .. }
            | Self::Stack
            | Self::Deadline { .. }
            | Self::Memory { .. }
            | Self::OutputBytes { .. }
            | Self::Spent => true,
            Self::Oversized { .. } | Self::Malformed { .. } | Self::Plugin(_) => false,
        }
    }
}

/// What a plugin says of its own failure.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct PluginError {
    pub kind: ErrorKind,
    /// Within `text_bytes_max`, but not yet guarded against cardholder data.
    pub message: String,
}

/// What the agent does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The settings are wrong: not tried again until they change.
    Config,
    /// It may work next time.
    Transient,
    /// It will not work again in this instance.
    Permanent,
}
