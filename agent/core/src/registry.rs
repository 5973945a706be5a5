//! Declared metrics and the bounded set of series.

/// What values a label may take; one of `pattern` and `values` must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LabelPolicy {
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// A closed list.
    pub values: Option<Vec<String>>,
    /// How many different values are let through.
    pub values_max: u32,
}

/// A declared source, such as one configured plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey(pub(crate) u32);

/// Why a source's declaration is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// The limit on sources.
    #[error("more than {max} sources")]
    SourcesFull { max: usize },
}
