//! Recorded answers of peers, `peers.toml` of a test case, as the SDK reads them.
//!
//! Each question to a peer takes its next answer; after the last it is asked too soon.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tillwatch_border::{
    Column, ColumnValues, HttpResponse, PeerFailure, PeerFault, Question, Reply, Table, TcpResponse,
};

use super::marks;

/// By peer, in the order in which they are given.
pub(in crate::plugin) type Answers = BTreeMap<String, VecDeque<Result<Reply, PeerFailure>>>;

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

pub(in crate::plugin) fn parse(text: &str) -> Result<Answers> {
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

/// One word of each answer is the mark, another one in each turn; each text of a table.
pub(super) fn mark(answers: &mut Answers, mark: &str, turn: usize, turns: usize) {
    let marked = |text: &mut Vec<u8>| {
        let copies: Vec<Vec<u8>> = marks::copies(text, mark.as_bytes()).collect();
        if let Some(copy) = copies.get(copies.len() * turn / turns) {
            copy.clone_into(text);
        }
    };
    for reply in answers.values_mut().flatten().flatten() {
        match reply {
            Reply::Http(response) => marked(&mut response.body),
            Reply::Tcp(response) => marked(&mut response.bytes),
            Reply::Sql(table) => {
                for column in &mut table.columns {
                    if let ColumnValues::Texts(texts) = &mut column.values {
                        texts.iter_mut().flatten().for_each(|text| mark.clone_into(text));
                    }
                }
            }
        }
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
            headers: lowered(written.headers),
            body: written.body.into_bytes(),
            elapsed_us,
        })),
        (None, None, Some(bytes), None) => Ok(Reply::Tcp(TcpResponse {
            bytes: bytes.into_bytes(),
            connect_us: written.connect_us,
            elapsed_us,
        })),
        (None, None, None, Some(columns)) => Ok(Reply::Sql(Table {
            columns: table(&peer, columns)?,
            more: written.more,
            elapsed_us,
        })),
        _ => bail!("an answer of peer {peer} has one of fault, status, bytes and columns"),
    })
}

fn table(peer: &str, written: Vec<WrittenColumn>) -> Result<Vec<Column>> {
    let columns: Vec<Column> = written.into_iter().map(column).collect::<Result<_>>()?;
    let mut rows = columns.iter().map(|column| column.values.len());
    let first = rows.next();
    ensure!(
        rows.all(|rows| Some(rows) == first),
        "columns of peer {peer} have not as many values as each other"
    );
    Ok(columns)
}

fn column(written: WrittenColumn) -> Result<Column> {
    let WrittenColumn { name, .. } = written;
    let values = match (written.integers, written.reals, written.texts) {
        (Some(values), None, None) => ColumnValues::Integers(values.into_iter().map(value).collect()),
        (None, Some(values), None) => ColumnValues::Reals(values.into_iter().map(value).collect()),
        (None, None, Some(values)) => ColumnValues::Texts(values.into_iter().map(value).collect()),
        _ => bail!("column {name} has one of integers, reals and texts"),
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
    PeerFault::ALL.into_iter().find(|fault| fault.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::path::Path;

    /// What the SDK's tests hold their own reader against, too: an author's cases come out the same natively and here.
    #[test]
    fn answers_are_read_as_the_sdk_reads_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/collector/src/testing/peers");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(shown(&parse(&read("peers.toml")).unwrap()), read("shown.txt"));
        let refused = read("refused.toml");
        let refused = refused.split("# ----\n").skip(1);
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

    fn shown_answer(answer: &Result<Reply, PeerFailure>) -> String {
        match answer {
            Err(failure) => format!("{} {}", failure.fault.name(), failure.elapsed_us),
            Ok(Reply::Http(response)) => {
                let body = String::from_utf8_lossy(&response.body);
                format!(
                    "{} {:?} {body:?} {}",
                    response.status, response.headers, response.elapsed_us
                )
            }
            Ok(Reply::Tcp(response)) => {
                let bytes = String::from_utf8_lossy(&response.bytes);
                format!("{bytes:?} {} {}", response.connect_us, response.elapsed_us)
            }
            Ok(Reply::Sql(table)) => {
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
