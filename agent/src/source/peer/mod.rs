//! Peers over the network that the operator granted: an HTTP endpoint, a TCP peer, a query of a database.
//!
//! In: a plugin's question and how long it may be waited for. Out: a bounded answer, or why there is none.
//! A peer is asked on its plugin's own thread; every wait in here ends by a deadline, so no peer holds up anything else.

pub mod place;
pub mod http;
pub mod tcp;
pub mod sql;

use std::path::Path;
use std::time::{Duration, Instant};

use tillwatch_border::{PeerFailure, PeerFault, Question, Reply};

/// A key or password is a line; a file with more is another file.
const SECRET_BYTES_MAX: u64 = 4 << 10;

/// What the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerGrant {
    Http(http::HttpGrant),
    Tcp(tcp::TcpGrant),
    Sql(sql::SqlGrant),
}

/// A granted peer, connected to when it is asked.
pub enum Peer {
    Http(Box<http::Endpoint>),
    Tcp(tcp::TcpGrant),
    Sql(Box<sql::Query>),
}

/// Why a peer gave nothing; the text is for the operator and holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct PeerError {
    pub fault: PeerFault,
    pub why: String,
}

impl PeerError {
    pub(crate) fn new(fault: PeerFault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into() }
    }

    pub(crate) fn denied(why: impl Into<String>) -> Self {
        Self::new(PeerFault::Denied, why)
    }
}

impl Peer {
    #[must_use]
    pub fn open(grant: &PeerGrant) -> Self {
        match grant.clone() {
            PeerGrant::Http(grant) => Self::Http(Box::new(http::Endpoint::new(grant))),
            PeerGrant::Tcp(grant) => Self::Tcp(grant),
            PeerGrant::Sql(grant) => Self::Sql(Box::new(sql::Query::new(grant))),
        }
    }

    /// Whether no answer is a lack of data, in distinction from an answer that a probe reports.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Sql(_))
    }

    /// Asks it, and waits no longer than `within` nor than the operator allows.
    ///
    /// # Errors
    /// Why there is no answer, with the time that it took.
    pub fn ask(&mut self, question: Question, within: Duration) -> Result<Reply, (PeerFailure, PeerError)> {
        let begun = Instant::now();
        let result = match (self, question) {
            (Self::Http(endpoint), Question::Http(request)) => endpoint.send(request, within).map(Reply::Http),
            (Self::Tcp(grant), Question::Tcp(request)) => tcp::exchange(grant, &request, within).map(Reply::Tcp),
            (Self::Sql(query), Question::Sql { after }) => query.run(after, within).map(Reply::Sql),
            _ => Err(PeerError::new(PeerFault::Unknown, "it is of another kind")),
        };
        let elapsed_us = micros(begun.elapsed());
        match result {
            Ok(mut reply) => {
                match &mut reply {
                    Reply::Http(response) => response.elapsed_us = elapsed_us,
                    Reply::Tcp(response) => response.elapsed_us = elapsed_us,
                    Reply::Sql(table) => table.elapsed_us = elapsed_us,
                }
                Ok(reply)
            }
            Err(error) => {
                let fault = error.fault;
                Err((PeerFailure { fault, elapsed_us }, error))
            }
        }
    }
}

/// The line in a secret's file, read each time so that it may be replaced while the agent runs.
fn secret(file: &Path) -> Result<String, PeerError> {
    let refused = |why: String| PeerError::denied(format!("its secret in {}: {why}", file.display()));
    let bytes = crate::whole::read_bounded(file, SECRET_BYTES_MAX).map_err(|error| refused(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_binary| refused("it is not text".to_owned()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(char::is_control) {
        return Err(refused("it is not one line".to_owned()));
    }
    Ok(text.to_owned())
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
