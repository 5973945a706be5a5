//! Why a plugin could not be loaded, its process not started, or a call of it brought nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::artifact::HeaderError;

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
    /// The system gives no memory that can be sealed.
    #[error("keeping {path} in memory")]
    Memory {
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
    /// The engine refuses it, such as for another processor; compile the plugin again.
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

/// Why the plugins' process is not there.
#[derive(Debug, Error)]
pub enum StartError {
    /// The operating system refuses a process, a socket or memory for it.
    #[error("starting {program}: {error}")]
    Spawn { program: PathBuf, error: std::io::Error },
    /// It ended, hung or said something else before it was ready.
    #[error("{program} did not become ready: {reason}")]
    NotReady { program: PathBuf, reason: String },
    /// This machine has no engine for plugins, or no seal for their process.
    #[error("this machine cannot run plugins: {reason}")]
    Machine { reason: String },
}

/// A bound of [`Limits`](crate::Limits) that an answer passed; shown by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Bound {
    #[error("series_max")]
    Series,
    #[error("samples_max")]
    Samples,
    #[error("labels_max")]
    Labels,
    #[error("label_bytes_max")]
    LabelBytes,
    #[error("metrics_max")]
    Metrics,
    #[error("text_bytes_max")]
    TextBytes,
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
    /// The call was stopped, and the process of all plugins with it.
    #[error("the plugin took more than {call_ms_max} ms of a processor")]
    Deadline { call_ms_max: u64 },
    /// The plugin wanted more memory than it may have.
    #[error("the plugin wanted {wanted} bytes of memory, at most {memory_bytes_max}")]
    Memory { wanted: usize, memory_bytes_max: usize },
    /// More bytes came across the border than may.
    #[error("the plugin said more than {output_bytes_max} bytes at once")]
    OutputBytes { output_bytes_max: usize },
    /// The answer is beyond a bound of [`Limits`](crate::Limits), named here.
    #[error("the plugin's answer has {found} where {bound} is {limit}")]
    Oversized { bound: Bound, found: usize, limit: usize },
    /// The answer contradicts itself.
    #[error("the plugin's answer makes no sense: {reason}")]
    Malformed { reason: &'static str },
    /// The plugin says itself what is wrong.
    #[error("{0}")]
    Plugin(PluginError),
    /// The plugins' process ended while this plugin alone was called, and again when the call was repeated.
    #[error("the plugin ended its process")]
    Crash,
    /// The plugins' process ended, by another plugin's fault or nobody's: the call is to be repeated at once.
    #[error("the plugins' process ended")]
    Gone,
    /// The plugins' process cannot be started.
    #[error("{reason}")]
    Unavailable { reason: String },
    /// An earlier call ended in the middle: this instance is not called again.
    #[error("the plugin's instance is spent")]
    Spent,
}

impl CallError {
    /// Whether the instance is spent and another must be made.
    #[must_use]
    pub fn spends_the_instance(&self) -> bool {
        !matches!(self, Self::Oversized { .. } | Self::Malformed { .. } | Self::Plugin(_))
    }
}

/// What a plugin says of its own failure.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("{message}")]
pub struct PluginError {
    pub kind: ErrorKind,
    /// Within `text_bytes_max`, but not yet guarded against cardholder data.
    pub message: String,
}

/// What the plugin says about another try. After the start the agent tries all alike, after a pause that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The settings are wrong: the agent does not start with them.
    Config,
    /// It may work next time.
    Transient,
    /// It will not work again in this instance.
    Permanent,
}
