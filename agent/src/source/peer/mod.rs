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

use crate::rate::PerMinute;

/// How often an endpoint or a TCP peer is asked in a minute, by one plugin; queries have their own interval.
pub const ASKS_PER_MINUTE_MAX: u32 = 120;
/// A key or password is a line; a file with more is another file.
const SECRET_BYTES_MAX: u64 = 4 << 10;
/// A shorter one is found in answers by chance, so it is not looked for.
const SECRET_SOUGHT_BYTES_MIN: usize = 8;

/// What the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerGrant {
    Http(http::HttpGrant),
    Tcp(tcp::TcpGrant),
    Sql(sql::SqlGrant),
}

/// A granted peer, connected to when it is asked.
pub struct Peer {
    kind: Kind,
    rate: Option<Rate>,
}

enum Kind {
    Http(Box<http::Endpoint>),
    Tcp(tcp::TcpGrant),
    Sql(Box<sql::Query>),
}

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Http,
    Tcp,
    Sql,
}

/// How often a peer may be asked, in its own time and not in that which plugins live in.
struct Rate {
    begun: Instant,
    admitted: PerMinute,
    asks_per_minute_max: u32,
}

/// Why a peer gave nothing; the text is for the operator and holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct PeerError {
    pub fault: PeerFault,
    pub why: String,
}

impl PeerGrant {
    /// How long one question may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self {
            Self::Http(grant) => grant.timeout,
            Self::Tcp(grant) => grant.timeout,
            Self::Sql(grant) => grant.timeout,
        }
    }
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
        let rate = match grant {
            PeerGrant::Http(grant) => Some(Rate::new(grant.asks_per_minute_max)),
            PeerGrant::Tcp(grant) => Some(Rate::new(grant.asks_per_minute_max)),
            PeerGrant::Sql(_) => None,
        };
        let kind = match grant.clone() {
            PeerGrant::Http(grant) => Kind::Http(Box::new(http::Endpoint::new(grant))),
            PeerGrant::Tcp(grant) => Kind::Tcp(grant),
            PeerGrant::Sql(grant) => Kind::Sql(Box::new(sql::Query::new(grant))),
        };
        Self { kind, rate }
    }

    #[must_use]
    pub fn speech(&self) -> Speech {
        match self.kind {
            Kind::Http(_) => Speech::Http,
            Kind::Tcp(_) => Speech::Tcp,
            Kind::Sql(_) => Speech::Sql,
        }
    }

    /// Whether no answer is a lack of data, in distinction from an answer that a probe reports.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.speech() == Speech::Sql
    }

    /// What was read since the last commit is used.
    pub fn commit(&mut self) {
        if let Kind::Sql(query) = &mut self.kind {
            query.commit();
        }
    }

    /// What was read since the last commit is asked for again.
    pub fn rollback(&mut self) {
        if let Kind::Sql(query) = &mut self.kind {
            query.rollback();
        }
    }

    /// Asks it, and waits no longer than `within` nor than the operator allows.
    ///
    /// # Errors
    /// Why there is no answer, with the time that it took.
    pub fn ask(&mut self, question: Question, within: Duration) -> Result<Reply, (PeerFailure, PeerError)> {
        let begun = Instant::now();
        let result = self.answer(question, within);
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

impl Peer {
    fn answer(&mut self, question: Question, within: Duration) -> Result<Reply, PeerError> {
        self.rate.as_mut().map_or(Ok(()), Rate::admit)?;
        match (&mut self.kind, question) {
            (Kind::Http(endpoint), Question::Http(request)) => endpoint.send(request, within).map(Reply::Http),
            (Kind::Tcp(grant), Question::Tcp(request)) => tcp::exchange(grant, &request, within).map(Reply::Tcp),
            (Kind::Sql(query), Question::Sql { after }) => query.run(after, within).map(Reply::Sql),
            _ => Err(PeerError::new(
                PeerFault::Unknown,
                "the question is for another kind of peer",
            )),
        }
    }
}

impl Rate {
    fn new(asks_per_minute_max: u32) -> Self {
        Self {
            begun: Instant::now(),
            admitted: PerMinute::new(asks_per_minute_max),
            asks_per_minute_max,
        }
    }

    fn admit(&mut self) -> Result<(), PeerError> {
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.admitted.admits(now_ms) {
            return Ok(());
        }
        let most = self.asks_per_minute_max;
        let why = format!("it was asked asks_per_minute_max = {most} times in this minute");
        Err(PeerError::new(PeerFault::TooSoon, why))
    }
}

/// The line in a secret's file, read each time so that it may be replaced while the agent runs.
fn secret(file: &Path) -> Result<String, PeerError> {
    let refused = |why: String| PeerError::denied(format!("its secret in {}: {why}", file.display()));
    crate::whole::read_line(file, SECRET_BYTES_MAX).map_err(|error| refused(error.to_string()))
}

/// No plugin gets what a peer repeats of a secret.
fn conceals(said: &[u8], secret: Option<&str>) -> Result<(), PeerError> {
    match secret.filter(|secret| secret.len() >= SECRET_SOUGHT_BYTES_MIN) {
        Some(secret) if memchr::memmem::find(said, secret.as_bytes()).is_some() => {
            Err(PeerError::denied("its answer holds the secret that it was given"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
