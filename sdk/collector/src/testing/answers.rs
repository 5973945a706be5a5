//! Recorded answers of peers: `peers.toml` of a golden case.
//!
//! ```text
//! [[answer]]                  each question to a peer takes its next answer; after the last it is too soon
//! peer = "checkout"
//! status = 200                an http endpoint; headers = { .. } and body = "..." may follow
//! elapsed_us = 2100
//! [[answer]]
//! peer = "printer"
//! bytes = "+PONG\r\n"         a tcp peer; connect_us = 300 may follow
//! [[answer]]
//! peer = "sales"
//! columns = [{ name = "id", integers = [1, 2] }, { name = "till", texts = ["a", "b"] }]
//! [[answer]]
//! peer = "checkout"
//! fault = "timeout"           any kind
//! ```

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::{Column, ColumnValues, HttpResponse, PeerFailure, PeerFault, Table, TcpResponse};

/// What a peer says to one question.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Http(HttpResponse),
    Tcp(TcpResponse),
    Sql(Table),
    Failure(PeerFailure),
}

/// By peer, in the order in which they are given.
pub(super) type Answers = BTreeMap<String, VecDeque<Answer>>;

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

/// Reads `peers.toml`; the error is for people.
pub(super) fn parse(text: &str) -> Result<Answers, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut answers = Answers::new();
    for written in file.answer {
        let peer = written.peer.clone();
        answers.entry(peer).or_default().push_back(answer(written)?);
    }
    Ok(answers)
}

fn answer(written: Written) -> Result<Answer, String> {
    let Written { peer, elapsed_us, .. } = written;
    match (written.fault, written.status, written.bytes, written.columns) {
        (Some(name), None, None, None) => Ok(Answer::Failure(PeerFailure {
            fault: fault(&name).ok_or_else(|| format!("peer {peer} has no fault {name:?}"))?,
            elapsed_us,
        })),
        (None, Some(status), None, None) => Ok(Answer::Http(HttpResponse {
            status,
            headers: written.headers.into_iter().collect(),
            body: written.body.into_bytes(),
            elapsed_us,
        })),
        (None, None, Some(bytes), None) => Ok(Answer::Tcp(TcpResponse {
            bytes: bytes.into_bytes(),
            connect_us: written.connect_us,
            elapsed_us,
        })),
        (None, None, None, Some(columns)) => Ok(Answer::Sql(Table {
            columns: columns.into_iter().map(column).collect::<Result<_, _>>()?,
            more: written.more,
            elapsed_us,
        })),
        _ => Err(format!(
            "an answer of peer {peer} has one of fault, status, bytes and columns"
        )),
    }
}

fn column(written: WrittenColumn) -> Result<Column, String> {
    let WrittenColumn { name, .. } = written;
    let values = match (written.integers, written.reals, written.texts) {
        (Some(values), None, None) => ColumnValues::Integers(values.into_iter().map(Some).collect()),
        (None, Some(values), None) => ColumnValues::Reals(values.into_iter().map(Some).collect()),
        (None, None, Some(values)) => ColumnValues::Texts(values.into_iter().map(Some).collect()),
        _ => return Err(format!("column {name} has one of integers, reals and texts")),
    };
    Ok(Column { name, values })
}

fn fault(name: &str) -> Option<PeerFault> {
    let all = [
        PeerFault::Unknown,
        PeerFault::Denied,
        PeerFault::Unreachable,
        PeerFault::Untrusted,
        PeerFault::Timeout,
        PeerFault::TooLarge,
        PeerFault::Malformed,
        PeerFault::Exhausted,
        PeerFault::TooSoon,
    ];
    all.into_iter().find(|fault| fault.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_is_read_and_a_mixed_one_refused() {
        let text = "[[answer]]\npeer = \"a\"\nstatus = 200\n[[answer]]\npeer = \"a\"\nfault = \"too-large\"\n\
                    [[answer]]\npeer = \"b\"\nbytes = \"+PONG\"\n\
                    [[answer]]\npeer = \"c\"\ncolumns = [{ name = \"id\", integers = [1, 2] }]\n";
        let answers = parse(text).unwrap();
        assert!(matches!(&answers["a"][0], Answer::Http(response) if response.is_success()));
        assert!(matches!(&answers["a"][1], Answer::Failure(failure) if failure.fault == PeerFault::TooLarge));
        assert!(matches!(&answers["b"][0], Answer::Tcp(response) if response.bytes == b"+PONG"));
        assert!(matches!(&answers["c"][0], Answer::Sql(table) if table.rows() == 2));
        parse("[[answer]]\npeer = \"a\"\nstatus = 200\nbytes = \"x\"\n").unwrap_err();
        parse("[[answer]]\npeer = \"a\"\nfault = \"to-large\"\n").unwrap_err();
    }
}
