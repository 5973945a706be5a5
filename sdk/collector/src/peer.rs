//! What a prober asks over the network, through the agent, and what comes back.
//!
//! The agent connects only to what the operator granted under a name; a plugin never sees an address or a secret.

use std::fmt;

use crate::Error;

/// A request to an endpoint that the operator granted.
///
/// ```
/// use tillwatch_sdk::HttpRequest;
///
/// let health = HttpRequest::get();
/// assert!(health.path.is_empty(), "the granted path itself");
/// let query = HttpRequest::post(br#"{"type":"read"}"#).path("/jolokia/").header("content-type", "application/json");
/// assert_eq!(query.headers.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// GET or POST, if the operator granted it.
    pub method: Method,
    /// With its query; empty for the granted path itself. Below a granted path that ends in `/` it may be longer.
    pub path: String,
    /// Of `accept`, `accept-language`, `content-type`, `if-none-match` and `soapaction`.
    pub headers: Vec<(String, String)>,
    /// What a POST sends.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// A GET of the granted path.
    ///
    /// ```
    /// use tillwatch_sdk::{HttpRequest, Method};
    ///
    /// let health = HttpRequest::get();
    /// assert_eq!((health.method, health.body.len()), (Method::Get, 0));
    /// ```
    pub fn get() -> Self {
        Self {
            method: Method::Get,
            path: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A POST to the granted path.
    ///
    /// ```
    /// use tillwatch_sdk::HttpRequest;
    ///
    /// let query = HttpRequest::post(br#"{"type":"read"}"#);
    /// assert_eq!(query.body, br#"{"type":"read"}"#);
    /// ```
    pub fn post(body: &[u8]) -> Self {
        Self {
            method: Method::Post,
            body: body.to_vec(),
            ..Self::get()
        }
    }

    /// Of another path, with its query.
    ///
    /// ```
    /// use tillwatch_sdk::HttpRequest;
    ///
    /// assert_eq!(HttpRequest::get().path("/api/queues?page=2").path, "/api/queues?page=2");
    /// ```
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// With one more header.
    ///
    /// ```
    /// use tillwatch_sdk::HttpRequest;
    ///
    /// let request = HttpRequest::get().header("accept", "text/plain");
    /// assert_eq!(request.headers, [("accept".to_owned(), "text/plain".to_owned())]);
    /// ```
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How an endpoint is asked.
///
/// ```
/// use tillwatch_sdk::{HttpRequest, Method};
///
/// assert_eq!(HttpRequest::post(b"").method, Method::Post);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Without a body.
    Get,
    /// With a body.
    Post,
}

/// What an endpoint answered, whatever its status.
///
/// ```
/// use tillwatch_sdk::HttpResponse;
///
/// let (headers, body) = (vec![("retry-after".to_owned(), "30".to_owned())], Vec::new());
/// let busy = HttpResponse { status: 503, headers, body, elapsed_us: 2_100 };
/// assert!(!busy.is_success());
/// assert_eq!(busy.header("Retry-After"), Some("30"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Such as 200, or 302: redirects are not followed.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whole, or the request fails with [`PeerFault::TooLarge`].
    pub body: Vec<u8>,
    /// From the question to the last byte of the answer, in microseconds.
    pub elapsed_us: u64,
}

impl HttpResponse {
    /// A status from 200 to 299.
    ///
    /// ```
    /// use tillwatch_sdk::HttpResponse;
    ///
    /// let mut response = HttpResponse { status: 204, headers: vec![], body: vec![], elapsed_us: 900 };
    /// assert!(response.is_success());
    /// response.status = 302;
    /// assert!(!response.is_success(), "redirects are not followed");
    /// ```
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of that name.
    ///
    /// ```
    /// use tillwatch_sdk::HttpResponse;
    ///
    /// let headers = vec![("etag".to_owned(), "7".to_owned())];
    /// let response = HttpResponse { status: 200, headers, body: vec![], elapsed_us: 900 };
    /// assert_eq!((response.header("ETag"), response.header("date")), (Some("7"), None));
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_name, value) = headers.find(|(known, _value)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// One exchange with a peer, over a connection of its own.
///
/// ```
/// use tillwatch_sdk::TcpRequest;
///
/// let ping = TcpRequest { bytes: b"PING\r\n".to_vec(), until: Some(b"\r\n".to_vec()), bytes_max: 64 };
/// let is_there = TcpRequest { bytes: Vec::new(), until: None, bytes_max: 0 };
/// assert_ne!(ping, is_there);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRequest {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// The answer ends with these; without them when the peer hangs up or `bytes_max` are there.
    pub until: Option<Vec<u8>>,
    /// More is not read; with 0 the connection is all that is asked for.
    pub bytes_max: u32,
}

/// What a peer answered.
///
/// ```
/// use tillwatch_sdk::TcpResponse;
///
/// fn is_alive(answer: &TcpResponse) -> bool {
///     answer.bytes == b"+PONG\r\n" && answer.elapsed_us < 500_000
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpResponse {
    /// With what it ends with.
    pub bytes: Vec<u8>,
    /// Until the connection was there, in microseconds.
    pub connect_us: u64,
    /// From the question to the end of the answer, in microseconds.
    pub elapsed_us: u64,
}

/// Where a query goes on: the largest value of its cursor column that was used. Keep it in the plugin's state.
///
/// ```
/// use tillwatch_sdk::Cursor;
///
/// assert_ne!(Cursor::Integer(41), Cursor::Text("41".to_owned()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Such as a receipt's number.
    Integer(i64),
    /// Such as a time.
    Text(String),
}

/// The rows of a query, by columns.
///
/// ```
/// use tillwatch_sdk::{Column, ColumnValues, Table};
///
/// let column = Column { name: "total".to_owned(), values: ColumnValues::Integers(vec![Some(1_995), None]) };
/// let sales = Table { columns: vec![column], more: false, elapsed_us: 900 };
/// assert_eq!(sales.rows(), 2);
/// let total: i64 = sales.integers("total").into_iter().flatten().flatten().sum();
/// assert_eq!(total, 1_995);
/// assert!(sales.texts("total").is_none(), "the operator typed it as an integer");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In the operator's order.
    pub columns: Vec<Column>,
    /// The operator's bound ended it: ask again with the new cursor.
    pub more: bool,
    /// In microseconds.
    pub elapsed_us: u64,
}

/// One column of a [`Table`].
///
/// ```
/// use tillwatch_sdk::{Column, ColumnValues};
///
/// let till = Column { name: "till".to_owned(), values: ColumnValues::Texts(vec![Some("till-1".to_owned())]) };
/// assert_eq!(till.values.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// As the operator wrote it.
    pub name: String,
    /// One for each row.
    pub values: ColumnValues,
}

/// Values of one type, `None` where the database has NULL.
///
/// ```
/// use tillwatch_sdk::ColumnValues;
///
/// assert!(ColumnValues::Reals(Vec::new()).is_empty());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnValues {
    /// Whole numbers.
    Integers(Vec<Option<i64>>),
    /// Numbers.
    Reals(Vec<Option<f64>>),
    /// Text.
    Texts(Vec<Option<String>>),
}

impl ColumnValues {
    /// How many rows.
    ///
    /// ```
    /// use tillwatch_sdk::ColumnValues;
    ///
    /// assert_eq!(ColumnValues::Integers(vec![Some(1), None]).len(), 2);
    /// ```
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Reals(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there is no row.
    ///
    /// ```
    /// use tillwatch_sdk::ColumnValues;
    ///
    /// assert!(!ColumnValues::Texts(vec![None]).is_empty(), "NULL is a row, too");
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// How many there are.
    ///
    /// ```
    /// use tillwatch_sdk::{Column, ColumnValues, Table};
    ///
    /// let column = Column { name: "id".to_owned(), values: ColumnValues::Integers(vec![Some(1), Some(2)]) };
    /// let table = Table { columns: vec![column], ..Table::default() };
    /// assert_eq!(table.rows(), 2);
    /// ```
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }

    /// The values of a column of whole numbers.
    ///
    /// ```
    /// use tillwatch_sdk::{Column, ColumnValues, Table};
    ///
    /// let column = Column { name: "id".to_owned(), values: ColumnValues::Integers(vec![Some(1), None]) };
    /// let table = Table { columns: vec![column], ..Table::default() };
    /// assert_eq!(table.integers("id"), Some(&[Some(1), None][..]));
    /// assert_eq!(table.integers("total"), None, "no such column");
    /// ```
    pub fn integers(&self, column: &str) -> Option<&[Option<i64>]> {
        match self.column(column)? {
            ColumnValues::Integers(values) => Some(values),
            ColumnValues::Reals(_) | ColumnValues::Texts(_) => None,
        }
    }

    /// The values of a column of numbers.
    ///
    /// ```
    /// use tillwatch_sdk::{Column, ColumnValues, Table};
    ///
    /// let column = Column { name: "load".to_owned(), values: ColumnValues::Reals(vec![Some(0.5)]) };
    /// let table = Table { columns: vec![column], ..Table::default() };
    /// assert_eq!(table.reals("load"), Some(&[Some(0.5)][..]));
    /// ```
    pub fn reals(&self, column: &str) -> Option<&[Option<f64>]> {
        match self.column(column)? {
            ColumnValues::Reals(values) => Some(values),
            ColumnValues::Integers(_) | ColumnValues::Texts(_) => None,
        }
    }

    /// The values of a column of text.
    ///
    /// ```
    /// use tillwatch_sdk::{Column, ColumnValues, Table};
    ///
    /// let column = Column { name: "till".to_owned(), values: ColumnValues::Texts(vec![Some("till-1".to_owned())]) };
    /// let table = Table { columns: vec![column], ..Table::default() };
    /// let tills: Vec<&String> = table.texts("till").into_iter().flatten().flatten().collect();
    /// assert_eq!(tills, ["till-1"]);
    /// ```
    pub fn texts(&self, column: &str) -> Option<&[Option<String>]> {
        match self.column(column)? {
            ColumnValues::Texts(values) => Some(values),
            ColumnValues::Integers(_) | ColumnValues::Reals(_) => None,
        }
    }

    fn column(&self, name: &str) -> Option<&ColumnValues> {
        let column = self.columns.iter().find(|column| column.name == name)?;
        Some(&column.values)
    }
}

/// Why a peer gave no answer, and how long that took.
///
/// ```
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::{Host, HttpRequest, PeerFault};
///
/// let mut host = FileHost::new(0);
/// let failure = host.http("checkout", HttpRequest::get()).unwrap_err();
/// assert_eq!(failure.fault, PeerFault::Unknown, "nobody granted it");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFailure {
    /// What went wrong.
    pub fault: PeerFault,
    /// From the question to the failure, in microseconds.
    pub elapsed_us: u64,
}

/// What went wrong with a peer.
///
/// ```
/// use tillwatch_sdk::PeerFault;
///
/// // A probe reports that a peer is down, but nothing where nothing was tried.
/// assert!(PeerFault::Timeout.is_peers());
/// assert!(!PeerFault::TooSoon.is_peers());
/// assert_eq!(PeerFault::TooLarge.name(), "too-large");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// Nothing of that name and kind was granted.
    Unknown,
    /// The grant does not go so far: another method, path, header, address or size.
    Denied,
    /// No address, no connection, or it ended early.
    Unreachable,
    /// Its certificate is not one that the operator trusts.
    Untrusted,
    /// Not done within the time that the operator allows.
    Timeout,
    /// It says more than the operator allows.
    TooLarge,
    /// What it says makes no sense, or it refuses the login or the query.
    Malformed,
    /// The plugin asked more than it may in one call.
    Exhausted,
    /// Asked again before the operator's interval is over, or while the past is replayed.
    TooSoon,
}

impl PeerFault {
    /// Whether it says something about the peer, in distinction from the plugin and its grant.
    ///
    /// ```
    /// use tillwatch_sdk::PeerFault;
    ///
    /// assert!(PeerFault::Unreachable.is_peers(), "the service is down");
    /// assert!(!PeerFault::Denied.is_peers(), "the question was never put");
    /// ```
    pub fn is_peers(self) -> bool {
        match self {
            Self::Unreachable | Self::Untrusted | Self::Timeout | Self::TooLarge | Self::Malformed => true,
            Self::Unknown | Self::Denied | Self::Exhausted | Self::TooSoon => false,
        }
    }

    /// As `peers.toml` of a test case and a label may have it.
    ///
    /// ```
    /// use tillwatch_sdk::PeerFault;
    ///
    /// assert_eq!(PeerFault::Unreachable.name(), "unreachable");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Timeout => "timeout",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Exhausted => "exhausted",
            Self::TooSoon => "too-soon",
        }
    }
}

impl fmt::Display for PeerFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.fault {
            PeerFault::Unknown => "no peer of that name and kind is granted",
            PeerFault::Denied => "the grant does not allow this question",
            PeerFault::Unreachable => "the peer cannot be reached",
            PeerFault::Untrusted => "the peer's certificate is not trusted",
            PeerFault::Timeout => "the peer did not answer in time",
            PeerFault::TooLarge => "the peer says more than is allowed",
            PeerFault::Malformed => "the peer's answer makes no sense, or it refuses",
            PeerFault::Exhausted => "more was asked than one call may",
            PeerFault::TooSoon => "it was asked again too soon",
        })
    }
}

impl std::error::Error for PeerFailure {}

impl From<PeerFailure> for Error {
    fn from(failure: PeerFailure) -> Self {
        match failure.fault {
            PeerFault::Unknown => Self::config(failure.to_string()),
            _ => Self::transient(failure.to_string()),
        }
    }
}
