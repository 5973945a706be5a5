//! Asking a broker, and why that may give nothing.

use tillwatch_sdk::parse::Wrong;
use tillwatch_sdk::{Host, HttpRequest, PeerFailure};

/// The source of kind `http`.
pub(crate) const BROKER: &str = "broker";

/// Why there is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no answer.
    Peer(PeerFailure),
    /// An answer without what was asked for, with its status.
    Status(i64),
    /// An answer that cannot be read.
    Wrong(Wrong),
    /// An answer that says nothing, and what to look at.
    Blind(&'static str),
}

impl From<PeerFailure> for Trouble {
    fn from(failure: PeerFailure) -> Self {
        Self::Peer(failure)
    }
}

impl From<Wrong> for Trouble {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// The body of a good answer.
pub(crate) fn ask(host: &mut dyn Host, request: HttpRequest) -> Result<String, Trouble> {
    let response = host.http(BROKER, request)?;
    if !response.is_success() {
        return Err(Trouble::Status(i64::from(response.status)));
    }
    String::from_utf8(response.body).or(Err(Trouble::Wrong(Wrong::Encoding)))
}
