//! What a plugin asks of a peer over the network, by way of the agent, and what came of it.
//!
//! The sandbox has no network: it sends the question, and the agent holds it against what the operator granted.

use serde::{Deserialize, Deserializer, Serialize};

use crate::wire::Bounded;

/// Headers that a plugin may give to one request.
pub const HEADERS_MAX: usize = 16;
/// Of one question: a path, headers and a body, or what is sent to a peer.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;

/// One question, to what was granted under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    Http(HttpRequest),
    Tcp(TcpRequest),
    Sql { after: Option<Cursor> },
}

/// The answer of the same kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Http(HttpResponse),
    Tcp(TcpResponse),
    Sql(Table),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFailure {
    pub fault: PeerFault,
    pub elapsed_us: u64,
}

/// As `peer.fault` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerFault {
    Unknown,
    Denied,
    Unreachable,
    Untrusted,
    Timeout,
    TooLarge,
    Malformed,
    Exhausted,
    TooSoon,
}

impl PeerFault {
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Denied,
        Self::Unreachable,
        Self::Untrusted,
        Self::Timeout,
        Self::TooLarge,
        Self::Malformed,
        Self::Exhausted,
        Self::TooSoon,
    ];

    /// As in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Timeout => "timeout",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Exhausted => "exhausted",
            Self::TooSoon => "too-soon",
        }
    }

    /// Whether it says something about the peer, in distinction from the plugin, its grant and this agent.
    #[must_use]
    pub fn is_peers(self) -> bool {
        match self {
            Self::Unreachable | Self::Untrusted | Self::Timeout | Self::TooLarge | Self::Malformed => true,
            Self::Unknown | Self::Denied | Self::Exhausted | Self::TooSoon => false,
        }
    }

    /// A failure before anything was tried.
    #[must_use]
    pub fn at_once(self) -> PeerFailure {
        PeerFailure {
            fault: self,
            elapsed_us: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    Get,
    Post,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    pub method: Method,
    /// With its query; empty for the granted path itself.
    pub path: String,
    #[serde(deserialize_with = "headers")]
    pub headers: Vec<(String, String)>,
    #[serde(with = "crate::bytes")]
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    #[serde(with = "crate::bytes")]
    pub body: Vec<u8>,
    pub elapsed_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRequest {
    #[serde(with = "crate::bytes")]
    pub bytes: Vec<u8>,
    /// Not empty when the answer ends with it.
    #[serde(with = "crate::bytes")]
    pub until: Vec<u8>,
    pub bytes_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpResponse {
    #[serde(with = "crate::bytes")]
    pub bytes: Vec<u8>,
    pub connect_us: u64,
    pub elapsed_us: u64,
}

/// Where a query goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cursor {
    Integer(i64),
    Text(String),
}

/// The rows of a query, by columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub columns: Vec<Column>,
    /// A bound ended it.
    pub more: bool,
    pub elapsed_us: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub values: ColumnValues,
}

/// As many in each column as there are rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ColumnValues {
    Integers(Vec<Option<i64>>),
    Reals(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
}

impl Question {
    /// What it holds, for its bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Http(request) => {
                let headers = request.headers.iter().map(|(name, value)| name.len() + value.len());
                request.path.len() + request.body.len() + headers.sum::<usize>()
            }
            Self::Tcp(request) => request.bytes.len() + request.until.len(),
            Self::Sql {
                after: Some(Cursor::Text(text)),
            } => text.len(),
            Self::Sql { .. } => 0,
        }
    }

    /// Whether the agent takes it at all.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let headers = match self {
            Self::Http(request) => request.headers.len(),
            Self::Tcp(_) | Self::Sql { .. } => 0,
        };
        headers <= HEADERS_MAX && self.bytes() <= QUESTION_BYTES_MAX
    }
}

impl Reply {
    /// What was read for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Http(response) => response.body.len(),
            Self::Tcp(response) => response.bytes.len(),
            Self::Sql(table) => table.columns.iter().map(|column| column.values.bytes()).sum(),
        }
    }
}

impl ColumnValues {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Reals(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Integers(values) => values.len() * 8,
            Self::Reals(values) => values.len() * 8,
            Self::Texts(values) => values.iter().flatten().map(String::len).sum(),
        }
    }
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    Ok(Bounded::<_, HEADERS_MAX>::deserialize(deserializer)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;

    /// Each header takes twenty times its bytes on the wire.
    #[test]
    fn a_request_with_too_many_headers_is_no_message() {
        let request = |count| {
            Question::Http(HttpRequest {
                method: Method::Get,
                path: String::new(),
                headers: vec![(String::new(), String::new()); count],
                body: Vec::new(),
            })
        };
        let sent = |question: &Question| decode::<Question>(&postcard::to_allocvec(question).unwrap());
        assert_eq!(sent(&request(HEADERS_MAX)), Ok(request(HEADERS_MAX)));
        assert!(sent(&request(HEADERS_MAX + 1)).is_err());
        assert!(request(HEADERS_MAX).is_bounded() && !request(HEADERS_MAX + 1).is_bounded());
    }
}
