//! Recorded answers of peers: `peers.toml` of a golden case.
//!
//! ```text
//! [[answer]]                  each question to a peer takes its next answer; after the last it is too soon
//! peer = "checkout"
//! status = 200                an http endpoint; headers = { .. } and body = "..." may follow, names become lower case
//! elapsed_us = 2100
//! [[answer]]
//! peer = "printer"
//! bytes = "+PONG\r\n"         a tcp peer; connect_us = 300 may follow
//! [[answer]]
//! peer = "sales"
//! columns = [{ name = "id", integers = [1, 2] }, { name = "till", texts = ["a", {}] }]
//!                             as many in each; {} is NULL; integers, reals or texts; more = true may follow
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
    integers: Option<Vec<Cell<i64>>>,
    reals: Option<Vec<Cell<f64>>>,
    texts: Option<Vec<Cell<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Cell<T> {
    Value(T),
    Null(Null),
}

/// `{}`, since TOML has no word for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Null {}

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
            headers: lowered(written.headers),
            body: written.body.into_bytes(),
            elapsed_us,
        })),
        (None, None, Some(bytes), None) => Ok(Answer::Tcp(TcpResponse {
            bytes: bytes.into_bytes(),
            connect_us: written.connect_us,
            elapsed_us,
        })),
        (None, None, None, Some(columns)) => Ok(Answer::Sql(Table {
            columns: table(&peer, columns)?,
            more: written.more,
            elapsed_us,
        })),
        _ => Err(format!(
            "an answer of peer {peer} has one of fault, status, bytes and columns"
        )),
    }
}

fn table(peer: &str, written: Vec<WrittenColumn>) -> Result<Vec<Column>, String> {
    let columns: Vec<Column> = written.into_iter().map(column).collect::<Result<_, _>>()?;
    let mut rows = columns.iter().map(|column| column.values.len());
    let first = rows.next();
    if rows.any(|rows| Some(rows) != first) {
        return Err(format!("columns of peer {peer} have not as many values as each other"));
    }
    Ok(columns)
}

fn column(written: WrittenColumn) -> Result<Column, String> {
    let WrittenColumn { name, .. } = written;
    let values = match (written.integers, written.reals, written.texts) {
        (Some(values), None, None) => ColumnValues::Integers(values.into_iter().map(value).collect()),
        (None, Some(values), None) => ColumnValues::Reals(values.into_iter().map(value).collect()),
        (None, None, Some(values)) => ColumnValues::Texts(values.into_iter().map(value).collect()),
        _ => return Err(format!("column {name} has one of integers, reals and texts")),
    };
    Ok(Column { name, values })
}

fn value<T>(cell: Cell<T>) -> Option<T> {
    match cell {
        Cell::Value(value) => Some(value),
        Cell::Null(Null {}) => None,
    }
}

fn lowered(headers: BTreeMap<String, String>) -> Vec<(String, String)> {
    let headers = headers.into_iter();
    headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
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
    use std::fmt::Write as _;

    /// `tillwatch plugin test` holds its own reader against the same files: a case comes out the same there and here.
    #[test]
    fn each_kind_of_answer_is_read_and_a_mixed_one_refused() {
        let answers = parse(include_str!("peers/peers.toml")).unwrap();
        assert_eq!(shown(&answers), include_str!("peers/shown.txt"));
        let refused = include_str!("peers/refused.toml").split("# ----\n").skip(1);
        assert!(refused.clone().count() > 5);
        for text in refused {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    fn shown(answers: &Answers) -> String {
        let mut out = String::new();
        for (peer, answers) in answers {
            for answer in answers {
                writeln!(out, "{peer} {}", shown_answer(answer)).unwrap();
            }
        }
        out
    }

    fn shown_answer(answer: &Answer) -> String {
        match answer {
            Answer::Failure(failure) => format!("{} {}", failure.fault.name(), failure.elapsed_us),
            Answer::Http(response) => {
                let body = String::from_utf8_lossy(&response.body);
                format!(
                    "{} {:?} {body:?} {}",
                    response.status, response.headers, response.elapsed_us
                )
            }
            Answer::Tcp(response) => {
                let bytes = String::from_utf8_lossy(&response.bytes);
                format!("{bytes:?} {} {}", response.connect_us, response.elapsed_us)
            }
            Answer::Sql(table) => {
                let columns: Vec<String> = table.columns.iter().map(shown_column).collect();
                format!("{} {} {}", columns.join(" "), table.more, table.elapsed_us)
            }
        }
    }

    fn shown_column(column: &Column) -> String {
        match &column.values {
            ColumnValues::Integers(values) => format!("{} {values:?}", column.name),
            ColumnValues::Reals(values) => format!("{} {values:?}", column.name),
            ColumnValues::Texts(values) => format!("{} {values:?}", column.name),
        }
    }
}
