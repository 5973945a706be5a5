//! Recorded answers of peers, `peers.toml` of a test case, as the SDK reads them.
//!
//! Each question to a peer takes its next answer; after the last it is asked too soon.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tillwatch_border::{
    Column, ColumnValues, HttpResponse, PeerFailure, PeerFault, Question, Reply, Table, TcpResponse,
};

/// By peer, in the order in which they are given.
pub(super) type Answers = BTreeMap<String, VecDeque<Result<Reply, PeerFailure>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    answer: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    peer: String,
    #[serde(default)]
    elapsed_us: u64,
    fault: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    bytes: Option<String>,
    #[serde(default)]
    connect_us: u64,
    columns: Option<Vec<WrittenColumn>>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenColumn {
    name: String,
    integers: Option<Vec<i64>>,
    reals: Option<Vec<f64>>,
    texts: Option<Vec<String>>,
}

pub(super) fn parse(text: &str) -> Result<Answers> {
    let file: File = toml::from_str(text)?;
    let mut answers = Answers::new();
    for written in file.answer {
        let peer = written.peer.clone();
        answers.entry(peer).or_default().push_back(answer(written)?);
    }
    Ok(answers)
}

/// The next answer to a question of this kind.
pub(super) fn next(answers: &mut Answers, peer: &str, question: &Question) -> Result<Reply, PeerFailure> {
    let answers = answers.get_mut(peer).ok_or(PeerFault::Unknown.at_once())?;
    let reply = answers.pop_front().ok_or(PeerFault::TooSoon.at_once())??;
    match (&reply, question) {
        (Reply::Http(_), Question::Http(_))
        | (Reply::Tcp(_), Question::Tcp(_))
        | (Reply::Sql(_), Question::Sql { .. }) => Ok(reply),
        _ => Err(PeerFault::Unknown.at_once()),
    }
}

fn answer(written: Written) -> Result<Result<Reply, PeerFailure>> {
    let Written { peer, elapsed_us, .. } = written;
    Ok(match (written.fault, written.status, written.bytes, written.columns) {
        (Some(name), None, None, None) => Err(PeerFailure {
            fault: fault(&name).with_context(|| format!("peer {peer} has no fault {name:?}"))?,
            elapsed_us,
        }),
        (None, Some(status), None, None) => Ok(Reply::Http(HttpResponse {
            status,
            headers: written.headers.into_iter().collect(),
            body: written.body.into_bytes(),
            elapsed_us,
        })),
        (None, None, Some(bytes), None) => Ok(Reply::Tcp(TcpResponse {
            bytes: bytes.into_bytes(),
            connect_us: written.connect_us,
            elapsed_us,
        })),
        (None, None, None, Some(columns)) => Ok(Reply::Sql(Table {
            columns: columns.into_iter().map(column).collect::<Result<_>>()?,
            more: written.more,
            elapsed_us,
        })),
        _ => bail!("an answer of peer {peer} has one of fault, status, bytes and columns"),
    })
}

fn column(written: WrittenColumn) -> Result<Column> {
    let WrittenColumn { name, .. } = written;
    let values = match (written.integers, written.reals, written.texts) {
        (Some(values), None, None) => ColumnValues::Integers(values.into_iter().map(Some).collect()),
        (None, Some(values), None) => ColumnValues::Reals(values.into_iter().map(Some).collect()),
        (None, None, Some(values)) => ColumnValues::Texts(values.into_iter().map(Some).collect()),
        _ => bail!("column {name} has one of integers, reals and texts"),
    };
    Ok(Column { name, values })
}

fn fault(name: &str) -> Option<PeerFault> {
    Some(match name {
        "unknown" => PeerFault::Unknown,
        "denied" => PeerFault::Denied,
        "unreachable" => PeerFault::Unreachable,
        "untrusted" => PeerFault::Untrusted,
        "timeout" => PeerFault::Timeout,
        "too-large" => PeerFault::TooLarge,
        "malformed" => PeerFault::Malformed,
        "exhausted" => PeerFault::Exhausted,
        "too-soon" => PeerFault::TooSoon,
        _ => return None,
    })
}
