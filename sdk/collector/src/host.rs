//! What a plugin may ask of its host, and nothing else.

use std::fmt;

use crate::{Cursor, Error, HttpRequest, HttpResponse, PeerFailure, PeerFault, Table, TcpRequest, TcpResponse};

/// The agent, seen from a plugin. In a `.wasm` these are the host's functions, in tests a folder of files.
///
/// ```
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::{Error, Host, Level};
///
/// /// Lines that were read since the plugin was installed.
/// fn lines_so_far(host: &mut dyn Host) -> Result<u64, Error> {
///     let kept = host.state().try_into().map(u64::from_le_bytes).unwrap_or(0);
///     let lines = host.read_lines("requests", 256 * 1024)?;
///     let total = kept + lines.iter().count() as u64;
///     host.set_state(&total.to_le_bytes())?;
///     host.log(Level::Debug, "counted");
///     Ok(total)
/// }
///
/// let mut host = FileHost::new(1_772_451_000_000);
/// host.append_lines("requests", b"one\ntwo\n");
/// assert_eq!(lines_so_far(&mut host), Ok(2));
/// assert_eq!(host.now_ms(), 1_772_451_000_000);
/// ```
pub trait Host {
    /// Now, in UTC milliseconds, of the time that the agent lives in: it may be replayed.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let host: &mut dyn Host = &mut FileHost::new(1_772_451_000_000);
    /// assert_eq!(host.now_ms(), 1_772_451_000_000);
    /// ```
    fn now_ms(&mut self) -> u64;

    /// A line in the agent's log: cut at 1 KiB, rate-limited, guarded against cardholder data.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, Level};
    ///
    /// let mut host = FileHost::new(0);
    /// host.log(Level::Warn, "3 lines have no time");
    /// assert_eq!(host.take_logs(), [(Level::Warn, "3 lines have no time".to_owned())]);
    /// ```
    fn log(&mut self, level: Level, message: &str);

    /// What the last committed [`Host::set_state`] left, empty at first.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// let last_receipt = host.state().try_into().map(u64::from_le_bytes).ok();
    /// assert_eq!(last_receipt, None, "it runs for the first time");
    /// ```
    fn state(&mut self) -> Vec<u8>;

    /// Keeps a value, at most 64 KiB, durable together with the batch that `collect` returns.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// host.set_state(&41_u64.to_le_bytes())?;
    /// assert_eq!(host.state(), 41_u64.to_le_bytes());
    /// assert!(host.set_state(&vec![0; 64 * 1024 + 1]).is_err());
    /// # Ok::<(), tillwatch_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::permanent`] when the value is too large.
    fn set_state(&mut self, value: &[u8]) -> Result<(), Error>;

    /// The next whole lines of a source of kind `lines`, across rotations of the file.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(0);
    /// host.append_lines("requests", b"one\ntwo\nthr");
    /// let lines = host.read_lines("requests", 256 * 1024)?;
    /// assert_eq!(lines.iter().count(), 2, "the third is not written to its end");
    /// # Ok::<(), tillwatch_sdk::Fault>(())
    /// ```
    ///
    /// # Errors
    /// A [`Fault`] when the source gives nothing.
    fn read_lines(&mut self, source: &str, bytes_max: u32) -> Result<Lines, Fault>;

    /// The next new file of a source of kind `documents`, whole, oldest first; `None` when all are read.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(9_000);
    /// host.add_file("transactions", "2.xml", 2_000, b"<POSLog/>");
    /// host.add_file("transactions", "1.xml", 1_000, b"<POSLog/>");
    /// let mut names = Vec::new();
    /// while let Some(document) = host.next_document("transactions")? {
    ///     names.push(document.name);
    /// }
    /// assert_eq!(names, ["1.xml", "2.xml"]);
    /// # Ok::<(), tillwatch_sdk::Fault>(())
    /// ```
    ///
    /// # Errors
    /// A [`Fault`] when the source gives nothing.
    fn next_document(&mut self, source: &str) -> Result<Option<Document>, Fault>;

    /// What lies now in the folder of a source of kind `folder`.
    ///
    /// ```
    /// use tillwatch_sdk::Host;
    /// use tillwatch_sdk::testing::FileHost;
    ///
    /// let mut host = FileHost::new(9_000);
    /// host.add_file("spool", "a", 4_000, b"12");
    /// let oldest_ms = host.list_folder("spool")?.oldest_modified_ms;
    /// assert_eq!(oldest_ms.map(|oldest_ms| host.now_ms() - oldest_ms), Some(5_000));
    /// # Ok::<(), tillwatch_sdk::Fault>(())
    /// ```
    ///
    /// # Errors
    /// A [`Fault`] when the source gives nothing.
    fn list_folder(&mut self, source: &str) -> Result<Listing, Fault>;

    /// Asks an endpoint of kind `http`, in `collect` only, and only in a plugin of world `prober`, which [`export_prober!`](crate::export_prober)
    /// makes; the call's deadline does not run meanwhile.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, HttpRequest, HttpResponse};
    ///
    /// let mut host = FileHost::new(0);
    /// let body = b"ready".to_vec();
    /// host.answer_http("checkout", Ok(HttpResponse { status: 200, headers: vec![], body, elapsed_us: 900 }));
    /// let response = host.http("checkout", HttpRequest::get().path("/health"))?;
    /// assert!(response.is_success() && response.body == b"ready");
    /// # Ok::<(), tillwatch_sdk::PeerFailure>(())
    /// ```
    ///
    /// # Errors
    /// Why there is no answer.
    fn http(&mut self, _endpoint: &str, _request: HttpRequest) -> Result<HttpResponse, PeerFailure> {
        Err(NOT_GRANTED)
    }

    /// One exchange with a peer of kind `tcp`, in a prober only.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Host, TcpRequest, TcpResponse};
    ///
    /// let mut host = FileHost::new(0);
    /// host.answer_tcp("redis", Ok(TcpResponse { bytes: b"+PONG\r\n".to_vec(), connect_us: 80, elapsed_us: 200 }));
    /// let ping = TcpRequest { bytes: b"PING\r\n".to_vec(), until: Some(b"\r\n".to_vec()), bytes_max: 64 };
    /// assert_eq!(host.tcp("redis", ping)?.bytes, b"+PONG\r\n");
    /// # Ok::<(), tillwatch_sdk::PeerFailure>(())
    /// ```
    ///
    /// # Errors
    /// Why there is no answer.
    fn tcp(&mut self, _peer: &str, _request: TcpRequest) -> Result<TcpResponse, PeerFailure> {
        Err(NOT_GRANTED)
    }

    /// The rows of a query of kind `sql`, after a cursor or from where the operator says, in a prober only.
    ///
    /// ```
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Column, ColumnValues, Cursor, Host, Table};
    ///
    /// let mut host = FileHost::new(0);
    /// let id = Column { name: "id".to_owned(), values: ColumnValues::Integers(vec![Some(42), Some(43)]) };
    /// host.answer_sql("sales", Ok(Table { columns: vec![id], more: false, elapsed_us: 900 }));
    /// let rows = host.sql("sales", Some(Cursor::Integer(41)))?;
    /// let last = rows.integers("id").and_then(|ids| ids.iter().flatten().max());
    /// assert_eq!(last, Some(&43), "what goes into the state");
    /// # Ok::<(), tillwatch_sdk::PeerFailure>(())
    /// ```
    ///
    /// # Errors
    /// Why there are none.
    fn sql(&mut self, _query: &str, _after: Option<Cursor>) -> Result<Table, PeerFailure> {
        Err(NOT_GRANTED)
    }
}

/// What a plugin hears that is no prober.
pub(crate) const NOT_GRANTED: PeerFailure = PeerFailure {
    fault: PeerFault::Unknown,
    elapsed_us: 0,
};

/// How serious a log line is.
///
/// ```
/// use tillwatch_sdk::Level;
///
/// assert!(Level::Error > Level::Debug);
/// assert_eq!(Level::Warn.name(), "warn");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever writes the plugin.
    Debug,
    /// Started, stopped, changed.
    Info,
    /// It went wrong and the plugin recovered.
    Warn,
    /// Data was lost or a person is needed.
    Error,
}

impl Level {
    /// The level in lower case, as golden files write it.
    ///
    /// ```
    /// use tillwatch_sdk::Level;
    ///
    /// assert_eq!(Level::Info.name(), "info");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Whole lines of a tailed file.
///
/// ```
/// use tillwatch_sdk::Lines;
///
/// let lines = Lines { bytes: b"one\r\ntwo\n".to_vec(), ..Lines::default() };
/// assert_eq!(lines.iter().collect::<Vec<_>>(), [b"one", b"two"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Each line with its `\n`.
    pub bytes: Vec<u8>,
    /// More is there already.
    pub more: bool,
    /// Bytes of a line that was longer than the limit and has ended: of one at most in a call.
    pub skipped_bytes: u64,
}

impl Lines {
    /// The lines without their `\n` or `\r\n`.
    ///
    /// ```
    /// use tillwatch_sdk::Lines;
    ///
    /// let lines = Lines { bytes: b"one\r\n\ntwo\n".to_vec(), ..Lines::default() };
    /// let words: Vec<&str> = lines.iter().filter_map(|line| str::from_utf8(line).ok()).collect();
    /// assert_eq!(words, ["one", "", "two"]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (line, after) = match memchr::memchr(b'\n', rest) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None if rest.is_empty() => return None,
                None => (rest, &[][..]),
            };
            rest = after;
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        })
    }
}

/// A whole file of a folder.
///
/// ```
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::Host;
///
/// let mut host = FileHost::new(10_000);
/// host.add_file("transactions", "0001.xml", 4_000, b"<POSLog/>");
/// let document = host.next_document("transactions")?.expect("one is there");
/// assert_eq!((document.name.as_str(), document.modified_ms, document.bytes.len()), ("0001.xml", 4_000, 9));
/// assert_eq!(host.next_document("transactions")?, None);
/// # Ok::<(), tillwatch_sdk::Fault>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file's name without its folder.
    pub name: String,
    /// When it was last written, in UTC milliseconds.
    pub modified_ms: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A file of a listing.
///
/// ```
/// use tillwatch_sdk::Entry;
///
/// /// How long a file has waited; a clock may have gone back since.
/// fn age_ms(entry: &Entry, now_ms: u64) -> u64 {
///     now_ms.saturating_sub(entry.modified_ms)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file's name without its folder.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// When it was last written, in UTC milliseconds.
    pub modified_ms: u64,
}

/// What lies in a folder.
///
/// ```
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::Host;
///
/// let mut host = FileHost::new(10_000);
/// host.add_file("spool", "a", 4_000, b"12");
/// host.add_file("spool", "b", 6_000, b"345");
/// let listing = host.list_folder("spool")?;
/// assert_eq!((listing.count, listing.bytes, listing.oldest_modified_ms), (2, 5, Some(4_000)));
/// assert_eq!(listing.entries[0].name, "a");
/// # Ok::<(), tillwatch_sdk::Fault>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All files that match, also those beyond the limit of `entries`.
    pub count: u64,
    /// The size of all of them, in bytes.
    pub bytes: u64,
    /// When the oldest was last written, in UTC milliseconds.
    pub oldest_modified_ms: Option<u64>,
    /// The oldest of them.
    pub entries: Vec<Entry>,
}

/// Why a source gives nothing.
///
/// ```
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::{Fault, Host};
///
/// let mut host = FileHost::new(0);
/// match host.read_lines("requests", 4_096) {
///     // The agent reports a missing file as `source.up`; there is nothing to add.
///     Err(Fault::Unavailable) => {}
///     Err(fault) => assert_eq!(fault, Fault::Unknown, "nobody granted it"),
///     Ok(lines) => assert!(lines.bytes.is_empty()),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No source of that name was granted, or it is of another kind.
    Unknown,
    /// The file or folder is missing or cannot be read; the agent reports it as `source.up` 0.
    Unavailable,
    /// The plugin read more than it may in one call.
    Exhausted,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unknown => "no source of that name and kind is granted",
            Self::Unavailable => "the source is missing or cannot be read",
            Self::Exhausted => "more was read than one call may",
        })
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_without_their_ends() {
        let lines = Lines {
            bytes: b"one\r\n\ntwo\n".to_vec(),
            ..Lines::default()
        };
        assert_eq!(lines.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"two"]);
        assert_eq!(Lines::default().iter().count(), 0);
    }
}
