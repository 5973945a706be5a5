//! A host whose sources are bytes in memory, filled by hand or from a folder.
//!
//! It behaves as the agent does: whole lines in chunks, documents oldest first, and what a failed call read comes again.

use std::collections::{BTreeMap, BTreeSet};

use super::answers::{Answer, Answers};
use crate::host::NOT_GRANTED;
use crate::{
    Cursor, Document, Entry, Error, Fault, Host, HttpRequest, HttpResponse, Level, Lines, Listing, PeerFailure,
    PeerFault, Table, TcpRequest, TcpResponse,
};

/// So small that golden cases take several calls.
const CHUNK_BYTES: usize = 4096;
/// A longer line is skipped and its bytes are told.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// As in the agent.
const STATE_BYTES_MAX: usize = 64 * 1024;
/// As in the agent: a listing names at most so many files.
const ENTRIES_MAX: usize = 1000;

/// A [`Host`] for tests.
///
/// ```
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::{Fault, Host, Level};
///
/// let mut host = FileHost::new(1_000);
/// host.append_lines("log", b"one\n");
/// host.add_folder("drop");
/// assert_eq!(host.read_lines("log", 1_024)?.bytes, b"one\n");
/// host.roll_back();
/// assert_eq!(host.read_lines("log", 1_024)?.bytes, b"one\n", "what a failed call read comes again");
/// host.commit();
/// host.set_now(2_000);
/// assert_eq!((host.now_ms(), host.list_folder("drop")?.count), (2_000, 0));
/// host.log(Level::Info, "done");
/// assert_eq!(host.take_logs().len(), 1);
/// # Ok::<(), Fault>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FileHost {
    now_ms: u64,
    sources: BTreeMap<String, Source>,
    state: Vec<u8>,
    committed: Committed,
    logs: Vec<(Level, String)>,
    answers: Answers,
    http_requests: Vec<(String, HttpRequest)>,
    tcp_requests: Vec<(String, TcpRequest)>,
    sql_questions: Vec<(String, Option<Cursor>)>,
    /// What plugin.toml declares, source and kind, in golden cases: nothing else is given.
    declared: Option<BTreeMap<String, String>>,
    /// Reads of anything else.
    misreads: BTreeSet<String>,
}

/// What a failed call goes back to.
#[derive(Clone, Debug, Default)]
struct Committed {
    positions: BTreeMap<String, usize>,
    state: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Source {
    /// A tailed file, read up to `position`.
    Lines { bytes: Vec<u8>, position: usize },
    /// A folder, whose first `position` files were given as documents.
    Folder { files: Vec<Document>, position: usize },
}

impl FileHost {
    /// A host without sources at this time.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Fault, Host};
    ///
    /// let mut host = FileHost::new(1_772_451_000_000);
    /// assert_eq!(host.read_lines("log", 1_024), Err(Fault::Unknown), "a source has to be given first");
    /// ```
    pub fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            ..Self::default()
        }
    }

    /// Sets the clock.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(2_000);
    /// host.set_now(1_000);
    /// assert_eq!(host.now_ms(), 1_000, "clocks go back, too");
    /// ```
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Appends to a source of kind `lines`, which it makes when there is none.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// host.append_lines("log", b"half of a");
    /// assert!(host.read_lines("log", 1_024)?.bytes.is_empty());
    /// host.append_lines("log", b" line\n");
    /// assert_eq!(host.read_lines("log", 1_024)?.bytes, b"half of a line\n");
    /// # Ok::<(), tillwatch_sdk::Fault>(())
    /// ```
    pub fn append_lines(&mut self, source: &str, bytes: &[u8]) {
        let empty = || Source::Lines {
            bytes: Vec::new(),
            position: 0,
        };
        if let Source::Lines { bytes: all, .. } = self.sources.entry(source.to_owned()).or_insert_with(empty) {
            all.extend_from_slice(bytes);
        }
    }

    /// Makes a source of kind `documents` or `folder`; without files it is an empty folder.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// host.add_folder("drop");
    /// assert_eq!(host.next_document("drop"), Ok(None));
    /// ```
    pub fn add_folder(&mut self, source: &str) {
        let empty = || Source::Folder {
            files: Vec::new(),
            position: 0,
        };
        self.sources.entry(source.to_owned()).or_insert_with(empty);
    }

    /// Puts a file into a source of kind `documents` or `folder`, which it makes when there is none.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(9_000);
    /// host.add_file("drop", "1.xml", 4_000, b"<POSLog/>");
    /// assert_eq!(host.list_folder("drop")?.bytes, 9);
    /// # Ok::<(), tillwatch_sdk::Fault>(())
    /// ```
    pub fn add_file(&mut self, source: &str, name: &str, modified_ms: u64, bytes: &[u8]) {
        self.add_folder(source);
        if let Some(Source::Folder { files, position }) = self.sources.get_mut(source) {
            files.push(Document {
                name: name.to_owned(),
                modified_ms,
                bytes: bytes.to_vec(),
            });
            files[*position..].sort_by(|a, b| (a.modified_ms, &a.name).cmp(&(b.modified_ms, &b.name)));
        }
    }

    /// What an endpoint says to the next question; after the last of its answers it is asked too soon.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, HttpRequest, HttpResponse, PeerFailure, PeerFault};
    ///
    /// let mut host = FileHost::new(0);
    /// let timeout = PeerFailure { fault: PeerFault::Timeout, elapsed_us: 5_000_000 };
    /// host.answer_http("checkout", Ok(HttpResponse { status: 200, headers: vec![], body: vec![], elapsed_us: 900 }));
    /// host.answer_http("checkout", Err(timeout));
    /// assert!(host.http("checkout", HttpRequest::get())?.is_success());
    /// assert_eq!(host.http("checkout", HttpRequest::get()), Err(timeout));
    /// assert_eq!(host.take_http_requests().len(), 2);
    /// # Ok::<(), PeerFailure>(())
    /// ```
    pub fn answer_http(&mut self, endpoint: &str, answer: Result<HttpResponse, PeerFailure>) {
        self.answer(endpoint, answer.map_or_else(Answer::Failure, Answer::Http));
    }

    /// What a peer says to the next exchange.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, PeerFailure, PeerFault, TcpRequest};
    ///
    /// let mut host = FileHost::new(0);
    /// let gone = PeerFailure { fault: PeerFault::Unreachable, elapsed_us: 300 };
    /// host.answer_tcp("printer", Err(gone));
    /// let connect = TcpRequest { bytes: Vec::new(), until: None, bytes_max: 0 };
    /// assert_eq!(host.tcp("printer", connect), Err(gone));
    /// ```
    pub fn answer_tcp(&mut self, peer: &str, answer: Result<TcpResponse, PeerFailure>) {
        self.answer(peer, answer.map_or_else(Answer::Failure, Answer::Tcp));
    }

    /// What a query gives when it is run next.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, Table};
    ///
    /// let mut host = FileHost::new(0);
    /// host.answer_sql("sales", Ok(Table::default()));
    /// assert_eq!(host.sql("sales", None).map(|table| table.rows()), Ok(0));
    /// ```
    pub fn answer_sql(&mut self, query: &str, answer: Result<Table, PeerFailure>) {
        self.answer(query, answer.map_or_else(Answer::Failure, Answer::Sql));
    }

    /// What endpoints were asked since the last call of this, each with the endpoint's name.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, HttpRequest, PeerFault};
    ///
    /// let mut host = FileHost::new(0);
    /// let failure = host.http("checkout", HttpRequest::get()).unwrap_err();
    /// assert_eq!(failure.fault, PeerFault::Unknown, "it has no answers");
    /// assert_eq!(host.take_http_requests()[0].0, "checkout");
    /// ```
    pub fn take_http_requests(&mut self) -> Vec<(String, HttpRequest)> {
        std::mem::take(&mut self.http_requests)
    }

    /// What peers were asked since the last call of this, each with the peer's name.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, PeerFailure, TcpRequest, TcpResponse};
    ///
    /// let mut host = FileHost::new(0);
    /// let (bytes, until) = (b"PING\r\n".to_vec(), Some(b"\r\n".to_vec()));
    /// let ping = TcpRequest { bytes, until, bytes_max: 64 };
    /// host.answer_tcp("redis", Ok(TcpResponse { bytes: b"+PONG\r\n".to_vec(), connect_us: 80, elapsed_us: 200 }));
    /// host.tcp("redis", ping.clone())?;
    /// assert_eq!(host.take_tcp_requests(), [("redis".to_owned(), ping)]);
    /// # Ok::<(), PeerFailure>(())
    /// ```
    pub fn take_tcp_requests(&mut self) -> Vec<(String, TcpRequest)> {
        std::mem::take(&mut self.tcp_requests)
    }

    /// Which queries were run since the last call of this, and where each went on.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Cursor, Host, PeerFailure, Table};
    ///
    /// let mut host = FileHost::new(0);
    /// host.answer_sql("sales", Ok(Table::default()));
    /// host.sql("sales", Some(Cursor::Integer(41)))?;
    /// assert_eq!(host.take_sql_questions(), [("sales".to_owned(), Some(Cursor::Integer(41)))]);
    /// # Ok::<(), PeerFailure>(())
    /// ```
    pub fn take_sql_questions(&mut self) -> Vec<(String, Option<Cursor>)> {
        std::mem::take(&mut self.sql_questions)
    }

    pub(super) fn set_answers(&mut self, answers: Answers) {
        self.answers = answers;
    }

    fn answer(&mut self, peer: &str, answer: Answer) {
        self.answers.entry(peer.to_owned()).or_default().push_back(answer);
    }

    fn next_answer(&mut self, peer: &str) -> Result<Answer, PeerFailure> {
        let answers = self.answers.get_mut(peer).ok_or(NOT_GRANTED)?;
        match answers.pop_front() {
            Some(Answer::Failure(failure)) => Err(failure),
            Some(answer) => Ok(answer),
            None => Err(PeerFailure {
                fault: PeerFault::TooSoon,
                elapsed_us: 0,
            }),
        }
    }

    /// What was read and kept since the last commit counts as used: `collect` returned `Ok`.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// host.set_state(b"kept")?;
    /// host.commit();
    /// host.roll_back();
    /// assert_eq!(host.state(), b"kept");
    /// # Ok::<(), tillwatch_sdk::Error>(())
    /// ```
    pub fn commit(&mut self) {
        let positions = self
            .sources
            .iter()
            .map(|(name, source)| (name.clone(), source.position()))
            .collect();
        self.committed = Committed {
            positions,
            state: self.state.clone(),
        };
    }

    /// What was read since the last commit comes again: `collect` failed.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// host.set_state(b"not kept")?;
    /// host.roll_back();
    /// assert!(host.state().is_empty());
    /// # Ok::<(), tillwatch_sdk::Error>(())
    /// ```
    pub fn roll_back(&mut self) {
        self.state.clone_from(&self.committed.state);
        for (name, source) in &mut self.sources {
            *source.position_mut() = self.committed.positions.get(name).copied().unwrap_or(0);
        }
    }

    /// From now on gives only these sources, each as of its kind.
    pub(super) fn declare(&mut self, declared: BTreeMap<String, String>) {
        self.declared = Some(declared);
    }

    /// Reads of sources that are not declared, or declared as of another kind.
    pub(super) fn misreads(&self) -> impl Iterator<Item = &str> {
        self.misreads.iter().map(String::as_str)
    }

    /// As in a store: what is not declared as of this kind is unknown.
    fn check_kind(&mut self, source: &str, kind: &str) -> Result<(), Fault> {
        let Some(declared) = &self.declared else { return Ok(()) };
        let told = match declared.get(source) {
            Some(declared) if declared == kind => return Ok(()),
            Some(declared) => format!("source `{source}` is read as {kind}, and plugin.toml declares it as {declared}"),
            None => format!("source `{source}` is read, and plugin.toml does not declare it"),
        };
        self.misreads.insert(told);
        Err(Fault::Unknown)
    }

    /// The log lines since the last call of this.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, Level};
    ///
    /// let mut host = FileHost::new(0);
    /// host.log(Level::Debug, "ready");
    /// assert_eq!(host.take_logs().len(), 1);
    /// assert!(host.take_logs().is_empty());
    /// ```
    pub fn take_logs(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.logs)
    }
}

impl Source {
    fn position(&self) -> usize {
        match self {
            Self::Lines { position, .. } | Self::Folder { position, .. } => *position,
        }
    }

    fn position_mut(&mut self) -> &mut usize {
        match self {
            Self::Lines { position, .. } | Self::Folder { position, .. } => position,
        }
    }
}

impl Host for FileHost {
    fn now_ms(&mut self) -> u64 {
        self.now_ms
    }

    fn log(&mut self, level: Level, message: &str) {
        self.logs.push((level, message.to_owned()));
    }

    fn state(&mut self) -> Vec<u8> {
        self.state.clone()
    }

    fn set_state(&mut self, value: &[u8]) -> Result<(), Error> {
        if value.len() > STATE_BYTES_MAX {
            return Err(Error::permanent(format!(
                "state of {} bytes, at most {STATE_BYTES_MAX}",
                value.len()
            )));
        }
        self.state = value.to_vec();
        Ok(())
    }

    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        self.check_kind(source, "lines")?;
        match self.sources.get_mut(source) {
            Some(Source::Lines { bytes, position }) => {
                let most = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                Ok(next_lines(bytes, position, most))
            }
            _ => Err(Fault::Unknown),
        }
    }

    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault> {
        self.check_kind(source, "documents")?;
        match self.sources.get_mut(source) {
            Some(Source::Folder { files, position }) => {
                let document = files.get(*position).cloned();
                *position += usize::from(document.is_some());
                Ok(document)
            }
            _ => Err(Fault::Unknown),
        }
    }

    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault> {
        self.check_kind(source, "folder")?;
        match self.sources.get(source) {
            Some(Source::Folder { files, .. }) => Ok(listing(files)),
            _ => Err(Fault::Unknown),
        }
    }

    fn http(&mut self, endpoint: &str, request: HttpRequest) -> Result<HttpResponse, PeerFailure> {
        self.check_kind(endpoint, "http").map_err(|_undeclared| NOT_GRANTED)?;
        self.http_requests.push((endpoint.to_owned(), request));
        match self.next_answer(endpoint)? {
            Answer::Http(response) => Ok(response),
            _ => Err(NOT_GRANTED),
        }
    }

    fn tcp(&mut self, peer: &str, request: TcpRequest) -> Result<TcpResponse, PeerFailure> {
        self.check_kind(peer, "tcp").map_err(|_undeclared| NOT_GRANTED)?;
        self.tcp_requests.push((peer.to_owned(), request));
        match self.next_answer(peer)? {
            Answer::Tcp(response) => Ok(response),
            _ => Err(NOT_GRANTED),
        }
    }

    fn sql(&mut self, query: &str, after: Option<Cursor>) -> Result<Table, PeerFailure> {
        self.check_kind(query, "sql").map_err(|_undeclared| NOT_GRANTED)?;
        self.sql_questions.push((query.to_owned(), after));
        match self.next_answer(query)? {
            Answer::Sql(table) => Ok(table),
            _ => Err(NOT_GRANTED),
        }
    }
}

/// Whole lines of at most `bytes_max` together, but at least one.
fn next_lines(bytes: &[u8], position: &mut usize, bytes_max: usize) -> Lines {
    let mut lines = Lines::default();
    while let Some(line) = first_line(&bytes[*position..]) {
        let (is_long, is_told) = (line.len() > LINE_BYTES_MAX, lines.skipped_bytes > 0);
        let has_room = lines.bytes.is_empty() || lines.bytes.len() + line.len() <= bytes_max;
        match is_long {
            // As in the agent, one in a call.
            true if !is_told => lines.skipped_bytes = line.len() as u64,
            false if has_room => lines.bytes.extend_from_slice(line),
            _ => {
                lines.more = true;
                break;
            }
        }
        *position += line.len();
    }
    lines
}

/// A line is whole when its `\n` is there.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(&bytes[..=end])
}

fn listing(files: &[Document]) -> Listing {
    let mut oldest_first: Vec<&Document> = files.iter().collect();
    oldest_first.sort_by(|a, b| (a.modified_ms, &a.name).cmp(&(b.modified_ms, &b.name)));
    let entry = |file: &&Document| Entry {
        name: file.name.clone(),
        size: file.bytes.len() as u64,
        modified_ms: file.modified_ms,
    };
    Listing {
        count: files.len() as u64,
        bytes: files.iter().map(|file| file.bytes.len() as u64).sum(),
        oldest_modified_ms: oldest_first.first().map(|file| file.modified_ms),
        entries: oldest_first.iter().take(ENTRIES_MAX).map(entry).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_in_chunks() {
        let mut host = FileHost::new(0);
        host.append_lines("log", b"one\ntwo\nthr");
        let first = host.read_lines("log", 5).unwrap();
        assert_eq!((first.bytes.as_slice(), first.more), (&b"one\n"[..], true));
        let second = host.read_lines("log", 5).unwrap();
        assert_eq!((second.bytes.as_slice(), second.more), (&b"two\n"[..], false));
        host.append_lines("log", b"ee\n");
        assert_eq!(host.read_lines("log", 5).unwrap().bytes, b"three\n");
    }

    #[test]
    fn a_too_long_line_is_skipped_and_told() {
        let mut host = FileHost::new(0);
        host.append_lines("log", &[b'x'; LINE_BYTES_MAX]);
        host.append_lines("log", b"\nshort\n");
        let lines = host.read_lines("log", 100).unwrap();
        assert_eq!(
            (lines.bytes.as_slice(), lines.skipped_bytes),
            (&b"short\n"[..], LINE_BYTES_MAX as u64 + 1)
        );
    }

    #[test]
    fn what_a_failed_call_read_comes_again() {
        let mut host = FileHost::new(0);
        host.append_lines("log", b"one\n");
        host.add_file("out", "a.xml", 5, b"<a/>");
        for _ in 0..2 {
            assert_eq!(host.read_lines("log", 100).unwrap().bytes, b"one\n");
            assert!(host.next_document("out").unwrap().is_some());
            host.set_state(b"half").unwrap();
            host.roll_back();
            assert_eq!(host.state(), b"");
        }
        assert_eq!(host.read_lines("log", 100).unwrap().bytes, b"one\n");
        host.commit();
        host.roll_back();
        assert_eq!(host.read_lines("log", 100).unwrap().bytes, b"");
    }

    #[test]
    fn documents_come_oldest_first_and_once() {
        let mut host = FileHost::new(0);
        host.add_file("out", "new.xml", 9, b"new");
        host.add_file("out", "old.xml", 3, b"old!");
        let names: Vec<String> = std::iter::from_fn(|| host.next_document("out").unwrap())
            .map(|document| document.name)
            .collect();
        assert_eq!(names, ["old.xml", "new.xml"]);
        let listing = host.list_folder("out").unwrap();
        assert_eq!(
            (listing.count, listing.bytes, listing.oldest_modified_ms),
            (2, 7, Some(3))
        );
    }

    #[test]
    fn what_plugin_toml_does_not_declare_is_unknown_and_told() {
        let mut host = FileHost::new(0);
        host.append_lines("log", b"one\n");
        host.add_folder("drop");
        let declared = [("log", "lines"), ("drop", "folder")];
        host.declare(declared.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into());
        assert_eq!(host.read_lines("log", 9).unwrap().bytes, b"one\n");
        assert_eq!(host.list_folder("drop").unwrap().count, 0);
        assert_eq!(host.misreads().count(), 0);
        assert_eq!(host.next_document("drop"), Err(Fault::Unknown));
        assert_eq!(host.read_lines("logs", 9), Err(Fault::Unknown));
        let told: Vec<&str> = host.misreads().collect();
        assert_eq!(
            told,
            [
                "source `drop` is read as documents, and plugin.toml declares it as folder",
                "source `logs` is read, and plugin.toml does not declare it",
            ]
        );
    }

    #[test]
    fn a_source_of_another_kind_is_unknown() {
        let mut host = FileHost::new(0);
        host.append_lines("log", b"");
        assert_eq!(host.next_document("log"), Err(Fault::Unknown));
        assert_eq!(host.list_folder("nothing"), Err(Fault::Unknown));
    }
}
