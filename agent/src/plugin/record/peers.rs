//! What peers say to one call of the plugin, redacted: `peers.toml` of a test case.
//!
//! In: a plugin with its grants. Out: the answers in the order in which it asked, at most those of one call.
//! Peers are asked as in a store, with the operator's secrets and bounds; a plugin that writes to a peer does so here, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tillwatch_border::{
    Column, ColumnValues, Document, Fault, Host, Level, Lines, Listing, PeerFailure, PeerFault, Question, Reply,
};
use toml::{Table, Value};

use super::redact::Redactor;
use crate::config::PluginConfig;
use crate::plugin::golden::host::CaseHost;
use crate::plugin::grant::Grant;
use crate::plugin::outside::{Code, patient_limits};
use crate::source::peer::Peer;

/// Headers of an answer that say nothing of the store.
const HEADERS: [&str; 2] = ["content-type", "retry-after"];

/// What came of asking.
pub(super) struct Answers {
    /// For the person who recorded it.
    pub told: String,
    /// `peers.toml`; none when nobody was asked.
    pub text: Option<String>,
}

/// None when the plugin has no peer.
///
/// # Errors
/// When the plugin does not start.
pub(super) fn record(plugin: &PluginConfig, code: &Code, redactor: &Redactor, now_ms: u64) -> Result<Option<Answers>> {
    let peers: BTreeMap<String, Peer> = plugin.grants.iter().filter_map(peer).collect();
    if peers.is_empty() {
        return Ok(None);
    }
    let asking = Asking {
        case: CaseHost::empty(&plugin.manifest.sources, now_ms),
        asked: Arc::new(Mutex::new(Asked {
            peers,
            answers: Vec::new(),
        })),
    };
    let asked = Arc::clone(&asking.asked);
    let mut instance = code.instantiate(patient_limits(), Box::new(asking))?;
    instance.configure(&plugin.settings.to_string())?;
    let ended = instance.collect().err();
    let answers: Vec<Value> = lock(&asked)
        .answers
        .drain(..)
        .map(|(peer, answer)| written(&peer, answer, redactor).into())
        .collect();
    let mut told = format!("{} answers of its peers", answers.len());
    if let Some(error) = ended {
        told.push_str(&format!(", and then it ended: {error}"));
    }
    let text = match answers.is_empty() {
        true => None,
        false => Some(toml::to_string(&Table::from_iter([(
            "answer".to_owned(),
            answers.into(),
        )]))?),
    };
    Ok(Some(Answers { told, text }))
}

fn peer((name, grant): (&String, &Grant)) -> Option<(String, Peer)> {
    match grant {
        Grant::Peer(grant) => Some((name.clone(), Peer::open(grant))),
        _ => None,
    }
}

/// A host without files whose peers are the store's.
struct Asking {
    case: CaseHost,
    asked: Arc<Mutex<Asked>>,
}

struct Asked {
    peers: BTreeMap<String, Peer>,
    answers: Vec<(String, Result<Reply, PeerFailure>)>,
}

impl Host for Asking {
    fn log(&mut self, level: Level, message: &str) {
        self.case.log(level, message);
    }

    fn now_ms(&mut self) -> u64 {
        self.case.now_ms()
    }

    fn state_get(&mut self) -> Vec<u8> {
        self.case.state_get()
    }

    fn state_set(&mut self, value: Vec<u8>) -> Result<(), String> {
        self.case.state_set(value)
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        self.case.read_lines(source, bytes_max)
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        self.case.next_document(source)
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        self.case.list_folder(source)
    }

    fn ask_peer(&mut self, name: &str, question: Question, within: Duration) -> Result<Reply, PeerFailure> {
        let mut asked = lock(&self.asked);
        let peer = asked.peers.get_mut(name).ok_or(PeerFault::Unknown.at_once())?;
        let answer = peer.ask(question, within).map_err(|(failure, _why)| failure);
        asked.answers.push((name.to_owned(), answer.clone()));
        answer
    }
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

fn written(peer: &str, answer: Result<Reply, PeerFailure>, redactor: &Redactor) -> Table {
    let mut table = Table::new();
    let mut put = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
    put("peer", peer.into());
    let redacted = |bytes: &[u8]| Value::from(redactor.redact(&String::from_utf8_lossy(bytes)));
    let elapsed_us = match answer {
        Err(failure) => {
            put("fault", failure.fault.name().into());
            failure.elapsed_us
        }
        Ok(Reply::Http(response)) => {
            put("status", i64::from(response.status).into());
            let shown = response.headers.into_iter();
            let shown = shown.filter(|(name, _value)| HEADERS.contains(&name.as_str()));
            let shown = shown.map(|(name, value)| (name, Value::from(value)));
            put("headers", Table::from_iter(shown).into());
            put("body", redacted(&response.body));
            response.elapsed_us
        }
        Ok(Reply::Tcp(response)) => {
            put("bytes", redacted(&response.bytes));
            put("connect_us", whole(response.connect_us));
            response.elapsed_us
        }
        Ok(Reply::Sql(rows)) => {
            let columns = rows.columns.iter().map(|column| written_column(column, redactor));
            put("columns", columns.map(Value::from).collect::<Vec<_>>().into());
            put("more", rows.more.into());
            rows.elapsed_us
        }
    };
    put("elapsed_us", whole(elapsed_us));
    table
}

fn whole(value: u64) -> Value {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}

fn written_column(column: &Column, redactor: &Redactor) -> Table {
    let (key, values): (&str, Vec<Value>) = match &column.values {
        ColumnValues::Integers(values) => {
            let other = |value: &i64| number(&value.to_string(), redactor).unwrap_or(0).into();
            ("integers", cells(values, other))
        }
        ColumnValues::Reals(values) => {
            let other = |value: &f64| number(&value.to_string(), redactor).unwrap_or(0.0).into();
            ("reals", cells(values, other))
        }
        ColumnValues::Texts(values) => ("texts", cells(values, |value| redactor.redact(value).into())),
    };
    Table::from_iter([
        ("name".to_owned(), column.name.as_str().into()),
        (key.to_owned(), values.into()),
    ])
}

fn number<T: std::str::FromStr>(text: &str, redactor: &Redactor) -> Option<T> {
    redactor.redact(text).parse().ok()
}

/// `{}` is NULL.
fn cells<T>(values: &[Option<T>], other: impl Fn(&T) -> Value) -> Vec<Value> {
    let cell = |value: &Option<T>| value.as_ref().map_or_else(|| Table::new().into(), &other);
    values.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_border::{HttpResponse, TcpResponse};

    #[test]
    fn what_peers_say_is_redacted_and_can_be_read_back() {
        let redactor = Redactor::new(["total"].into_iter(), 2026, &[7; 32]);
        let headers = [("content-type", "application/json"), ("x-clerk", "schmidt")];
        let response = HttpResponse {
            status: 200,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body: br#"{"total":12345,"clerk":"schmidt"}"#.to_vec(),
            elapsed_us: 2_100,
        };
        let exchanged = TcpResponse {
            bytes: b"hello schmidt\r\n".to_vec(),
            connect_us: 300,
            elapsed_us: 900,
        };
        let column = |name: &str, values| Column {
            name: name.to_owned(),
            values,
        };
        let rows = tillwatch_border::Table {
            columns: vec![
                column("id", ColumnValues::Integers(vec![Some(-98_765), None])),
                column("share", ColumnValues::Reals(vec![None, Some(98_765.25)])),
                column("clerk", ColumnValues::Texts(vec![Some("schmidt".to_owned()), None])),
            ],
            more: true,
            elapsed_us: 40,
        };
        let failure = PeerFailure {
            fault: PeerFault::TooLarge,
            elapsed_us: 7,
        };
        let answers = [
            Ok(Reply::Http(response)),
            Ok(Reply::Tcp(exchanged)),
            Ok(Reply::Sql(rows)),
            Err(failure),
        ];
        let answers = answers.map(|answer| Value::from(written("peer", answer, &redactor)));
        let text = toml::to_string(&Table::from_iter([("answer".to_owned(), answers.to_vec().into())])).unwrap();
        for secret in ["schmidt", "12345", "98765", "x-clerk"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        let read = crate::plugin::golden::answers::parse(&text).unwrap();
        let read: Vec<_> = read["peer"].iter().collect();
        let Ok(Reply::Http(response)) = read[0] else {
            panic!("{text}")
        };
        assert_eq!((response.status, response.elapsed_us), (200, 2_100));
        assert!(response.body.starts_with(b"{\"total\":"), "{text}");
        assert!(
            matches!(read[1], Ok(Reply::Tcp(response)) if response.connect_us == 300),
            "{text}"
        );
        let Ok(Reply::Sql(rows)) = read[2] else {
            panic!("{text}")
        };
        let nulls = |values: &ColumnValues| match values {
            ColumnValues::Integers(values) => values.iter().map(Option::is_none).collect::<Vec<_>>(),
            ColumnValues::Reals(values) => values.iter().map(Option::is_none).collect(),
            ColumnValues::Texts(values) => values.iter().map(Option::is_none).collect(),
        };
        let nulls: Vec<_> = rows.columns.iter().map(|column| nulls(&column.values)).collect();
        assert_eq!(nulls, [[false, true], [true, false], [false, true]], "{text}");
        assert_eq!(*read[3], Err(failure), "{text}");
    }
}
