//! A PostgreSQL server: a read-only transaction for each run, over one connection to a checked address.
//!
//! Rows come in portions, so that a table of any size costs only what is kept of it, and what a server sends in one run
//! is counted on the wire.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use tillwatch_border::{Cursor, PeerFault, Table};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, Error, NoTls, Row, Statement, Transaction};

use super::super::PeerError;
use super::rows::{Rows, Value};
use super::{Server, SqlGrant, server};

/// Rows that are fetched at once.
const PORTION_ROWS: usize = 64;
/// Of login and descriptions, beside the rows.
const OVERHEAD_BYTES: usize = 1 << 20;
/// `SSLRequest` of the protocol, version 3. Source: PostgreSQL documentation, section 55.7.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The one connection to a server, while it is good.
#[derive(Default)]
pub(super) struct Postgres(Option<Connected>);

struct Connected {
    client: Client,
    meter: Arc<Meter>,
    runtime: Runtime,
}

impl Postgres {
    /// Blocks the thread, which must be no runtime's.
    ///
    /// # Errors
    /// Why there are no rows.
    pub(super) fn query(
        &mut self,
        server: &Server,
        grant: &SqlGrant,
        cursor: Option<Cursor>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        let parameter = cursor.map(Parameter);
        let kept = self.0.take();
        let ask = |connected| self.ask(connected, grant, parameter.as_ref(), deadline);
        server::ask_kept_or_new(kept, || connect(server, grant, deadline), ask)
    }

    /// Keeps the connection when it is still good.
    fn ask(
        &mut self,
        mut connected: Connected,
        grant: &SqlGrant,
        cursor: Option<&Parameter>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        let meter = Arc::clone(&connected.meter);
        meter.left.store(grant.table_bytes_max + OVERHEAD_BYTES, Relaxed);
        let table = within(
            &connected.runtime,
            deadline,
            rows(&mut connected.client, grant, cursor, &meter),
        )?;
        if !meter.is_beyond() {
            self.0 = Some(connected);
        }
        Ok(table)
    }
}

fn within<T>(
    runtime: &Runtime,
    deadline: Instant,
    work: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PeerError> {
    let timed = async { tokio::time::timeout_at(deadline.into(), work).await };
    match runtime.block_on(timed) {
        Ok(result) => result,
        Err(_elapsed) => Err(PeerError::new(PeerFault::Timeout, "the server took too long")),
    }
}

fn connect(server: &Server, grant: &SqlGrant, deadline: Instant) -> Result<Connected, PeerError> {
    let broken = |error: io::Error| server::failed(&error);
    let timeout_ms = grant.timeout.as_millis();
    let mut config = Config::new();
    config
        .user(&server.user)
        .dbname(&server.name)
        .application_name("tillwatch")
        // TLS is ours, below: with a checked address and the operator's authority.
        .ssl_mode(SslMode::Disable)
        .options(format!(
            "-c default_transaction_read_only=on -c statement_timeout={timeout_ms} \
             -c idle_in_transaction_session_timeout={timeout_ms}"
        ));
    if let Some(password) = server::password(server)? {
        config.password(password);
    }
    let tls = server.ca.as_deref().map(server::trusting).transpose()?;
    let meter = Arc::new(Meter::default());
    meter.left.store(OVERHEAD_BYTES, Relaxed);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let stream = server::connect(server, deadline)?;
    stream.set_nonblocking(true).map_err(broken)?;
    let connecting = async {
        let stream = TcpStream::from_std(stream).map_err(broken)?;
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(secure(stream, tls, server).await?),
            None => Box::new(stream),
        };
        let stream = Metered {
            stream,
            meter: Arc::clone(&meter),
        };
        let (client, connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(|error| failed(&error))?;
        // It ends with the client, or says so at the next question.
        drop(tokio::spawn(connection));
        Ok(client)
    };
    let client = within(&runtime, deadline, connecting)?;
    Ok(Connected { client, meter, runtime })
}

/// Asks the server for TLS and does not go on without.
async fn secure(
    mut stream: TcpStream,
    tls: Arc<rustls::ClientConfig>,
    server: &Server,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, PeerError> {
    let broken = |error: io::Error| server::failed(&error);
    stream.write_all(&SSL_REQUEST).await.map_err(broken)?;
    if stream.read_u8().await.map_err(broken)? != b'S' {
        return Err(PeerError::new(PeerFault::Untrusted, "the server has no TLS"));
    }
    let connector = tokio_rustls::TlsConnector::from(tls);
    connector
        .connect(server::tls_name(server)?, stream)
        .await
        .map_err(broken)
}

async fn rows(
    client: &mut Client,
    grant: &SqlGrant,
    cursor: Option<&Parameter>,
    meter: &Meter,
) -> Result<Table, PeerError> {
    let started = client.build_transaction().read_only(true).start().await;
    let transaction = started.map_err(|error| failed(&error))?;
    let mut rows = Rows::new(grant);
    let read = read(&transaction, grant, cursor, &mut rows).await;
    // Until then the server keeps old rows for it.
    let ended = transaction.rollback().await;
    if meter.is_beyond() {
        rows.cut()?;
        return Ok(rows.table);
    }
    read?;
    ended.map_err(|error| failed(&error))?;
    Ok(rows.table)
}

async fn read(
    transaction: &Transaction<'_>,
    grant: &SqlGrant,
    cursor: Option<&Parameter>,
    rows: &mut Rows<'_>,
) -> Result<(), PeerError> {
    let prepared = transaction.prepare(&grant.query).await;
    let statement = prepared.map_err(|error| failed(&error))?;
    check(&statement, grant, cursor)?;
    let parameter: Vec<&(dyn ToSql + Sync)> = cursor.iter().map(|cursor| *cursor as &(dyn ToSql + Sync)).collect();
    let bound = transaction.bind(&statement, &parameter).await;
    let portal = bound.map_err(|error| failed(&error))?;
    loop {
        let wanted = rows.wanted().min(PORTION_ROWS);
        let portion = transaction
            .query_portal(&portal, i32::try_from(wanted).unwrap_or(i32::MAX))
            .await
            .map_err(|error| failed(&error))?;
        for row in &portion {
            if !rows.push(values(row)?)? {
                return Ok(());
            }
        }
        if portion.len() < wanted {
            return Ok(());
        }
    }
}

fn check(statement: &Statement, grant: &SqlGrant, cursor: Option<&Parameter>) -> Result<(), PeerError> {
    let malformed = |why: String| Err(PeerError::new(PeerFault::Malformed, why));
    let (columns, parameters) = (statement.columns().len(), statement.params().len());
    let (granted, wanted) = (grant.columns.len(), usize::from(cursor.is_some()));
    if columns != granted || parameters != wanted {
        return malformed(format!(
            "the query has {columns} columns and {parameters} parameters, agent.toml names {granted} columns and {wanted} cursor"
        ));
    }
    let unread = statement.columns().iter().find(|column| !Any::accepts(column.type_()));
    if let Some(column) = unread {
        let (name, kind) = (column.name(), column.type_());
        return malformed(format!(
            "column {name} is a {kind}: cast it in the query, such as {name}::text"
        ));
    }
    match statement.params().iter().find(|kind| !Parameter::accepts(kind)) {
        Some(kind) => malformed(format!(
            "the cursor is a {kind}: cast it in the query, such as $1::text::{kind}"
        )),
        None => Ok(()),
    }
}

fn values(row: &Row) -> Result<Vec<Value>, PeerError> {
    let value = |index| {
        row.try_get::<_, Any>(index)
            .map(|any| any.0)
            .map_err(|error| failed(&error))
    };
    (0..row.len()).map(value).collect()
}

/// A value of any type that is read as it is.
struct Any(Value);

impl<'a> FromSql<'a> for Any {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(match *kind {
            Type::BOOL => Value::Integer(i64::from(bool::from_sql(kind, raw)?)),
            Type::INT2 => Value::Integer(i16::from_sql(kind, raw)?.into()),
            Type::INT4 => Value::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT8 => Value::Integer(i64::from_sql(kind, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(kind, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(kind, raw)?),
            _ => Value::Text(String::from_utf8_lossy(raw).into_owned()),
        }))
    }

    fn from_sql_null(_kind: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(kind: &Type) -> bool {
        let numbers = [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
        ];
        numbers.contains(kind) || TEXTS.contains(kind)
    }
}

const TEXTS: [Type; 5] = [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN];

/// The cursor, as what the query compares it with.
#[derive(Debug)]
struct Parameter(Cursor);

impl ToSql for Parameter {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match (&self.0, kind) {
            (Cursor::Integer(integer), &Type::INT2) => i16::try_from(*integer)?.to_sql(kind, out),
            (Cursor::Integer(integer), &Type::INT4) => i32::try_from(*integer)?.to_sql(kind, out),
            (Cursor::Integer(integer), &Type::INT8) => integer.to_sql(kind, out),
            (Cursor::Text(text), kind) if TEXTS.contains(kind) => text.to_sql(kind, out),
            (_, kind) => Err(format!("a cursor of another type than {kind}").into()),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT2, Type::INT4, Type::INT8].contains(kind) || TEXTS.contains(kind)
    }

    to_sql_checked!();
}

/// What the server says may hold values of rows; only what is about the query or the login is shown.
fn failed(error: &Error) -> PeerError {
    let Some(told) = error.as_db_error() else {
        let is_broken = error.is_closed() || error.source().is_some_and(is_broken);
        let fault = if is_broken {
            PeerFault::Unreachable
        } else {
            PeerFault::Malformed
        };
        return PeerError::new(fault, error.to_string());
    };
    let code = told.code();
    let fault = match *code {
        SqlState::QUERY_CANCELED => PeerFault::Timeout,
        // It is ending, or starting.
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => PeerFault::Unreachable,
        SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::INSUFFICIENT_PRIVILEGE => PeerFault::Denied,
        _ => PeerFault::Malformed,
    };
    let is_about_us = ["25", "28", "42"].iter().any(|class| code.code().starts_with(class));
    let message = if is_about_us { told.message() } else { "" };
    PeerError::new(fault, format!("the server refuses it, {}: {message}", code.code()))
}

/// The stream is, and not what came over it.
fn is_broken(error: &(dyn StdError + 'static)) -> bool {
    let unread = [io::ErrorKind::InvalidInput, io::ErrorKind::InvalidData];
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| !unread.contains(&error.kind()))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What a server may still send in this run.
#[derive(Default)]
struct Meter {
    left: AtomicUsize,
    is_beyond: AtomicBool,
}

impl Meter {
    fn is_beyond(&self) -> bool {
        self.is_beyond.load(Relaxed)
    }
}

/// A stream that gives only so many bytes.
struct Metered {
    stream: Box<dyn Stream>,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(ctx, buffer);
        let count = buffer.filled().len() - before;
        let left = self.meter.left.load(Relaxed);
        if count > left {
            self.meter.is_beyond.store(true, Relaxed);
            return Poll::Ready(Err(io::Error::other("the server says more than it may")));
        }
        self.meter.left.store(left - count, Relaxed);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::place::Place;
    use super::super::{ColumnType, CursorGrant, Database, Query};
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;
    use tillwatch_border::ColumnValues;

    const TIMEOUT: Duration = Duration::from_secs(10);
    /// The server refuses to run as root.
    const NOBODY: u32 = 65_534;

    /// A real server with a user `till` and TLS, gone at the end.
    struct Running {
        folder: tempfile::TempDir,
        port: u16,
        child: Child,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }

    /// A program of the newest server that is installed, as nobody when this is root.
    fn program(name: &str, folder: &Path) -> Command {
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = installed.map(|version| version.path().join("bin").join(name)).max();
        let mut command = Command::new(newest.expect("hint: apt-get install -y postgresql"));
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn own(path: &Path) {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        own(folder.path());
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            own(&file);
        };
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        write("server.pem", &made.cert.pem());
        write("server.key", &made.signing_key.serialize_pem());
        write("secret", "open sesame\n");
        let mut initdb = program("initdb", folder.path());
        initdb.args([
            "-D",
            "data",
            "-U",
            "till",
            "-A",
            "scram-sha-256",
            "--pwfile=secret",
            "--no-sync",
        ]);
        assert!(initdb.status().unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let mut postgres = program("postgres", folder.path());
        postgres.args([
            "-D",
            "data",
            "-F",
            "-h",
            "127.0.0.1",
            "-k",
            &file(""),
            "-p",
            &port.to_string(),
        ]);
        postgres.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", file("server.pem"))]);
        postgres.args(["-c", &format!("ssl_key_file={}", file("server.key"))]);
        let child = postgres.spawn().unwrap();
        let running = Running { folder, port, child };
        let begun = Instant::now();
        while Query::new(running.grant("SELECT 1")).run(None, TIMEOUT).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    impl Running {
        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// A query without a cursor, of one column of integers.
        fn grant(&self, query: &str) -> SqlGrant {
            SqlGrant {
                database: Database::Postgres(Server {
                    place: Place {
                        host: "127.0.0.1".to_owned(),
                        port: self.port,
                        addresses: Vec::new(),
                    },
                    user: "till".to_owned(),
                    name: "postgres".to_owned(),
                    secret_file: Some(self.file("secret")),
                    ca: Some(self.file("server.pem")),
                }),
                query: query.to_owned(),
                columns: vec![("n".to_owned(), ColumnType::Integer)],
                cursor: None,
                rows_max: 1_000,
                table_bytes_max: 100_000,
                timeout: TIMEOUT,
                interval_min: Duration::ZERO,
            }
        }

        fn texts(&self, query: &str) -> SqlGrant {
            SqlGrant {
                columns: vec![("n".to_owned(), ColumnType::Text)],
                ..self.grant(query)
            }
        }

        fn integers(&self, query: &str) -> Vec<Option<i64>> {
            integers(&Query::new(self.grant(query)).run(None, TIMEOUT).unwrap(), 0)
        }

        fn error(&self, query: &str) -> PeerError {
            Query::new(self.grant(query)).run(None, TIMEOUT).unwrap_err()
        }

        /// As the till does.
        fn write(&self, sql: &str) {
            let mut config = Config::new();
            config
                .host("127.0.0.1")
                .port(self.port)
                .user("till")
                .password("open sesame")
                .dbname("postgres");
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (client, connection) = config.connect(NoTls).await.unwrap();
                drop(tokio::spawn(connection));
                client.batch_execute(sql).await.unwrap();
            });
        }
    }

    fn integers(table: &Table, column: usize) -> Vec<Option<i64>> {
        match &table.columns[column].values {
            ColumnValues::Integers(values) => values.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_real_server_is_read_typed_and_bounded_and_never_written() {
        let server = start();
        server.write("CREATE TABLE sale (id int PRIMARY KEY, total bigint, till text, weight real, at timestamptz, sum numeric);
            INSERT INTO sale VALUES (1, 1995, 'till-1', 0.5, now(), 1), (2, NULL, 'till-2', 1, now(), 1), (3, 5, NULL, 2, now(), 1);");
        types_and_cursor(&server);
        writes(&server);
        bounds(&server);
        wide_rows(&server);
        nothing_stays_open(&server);
        ended_by_the_server(&server);
        least_rights(&server);
        login(&server);
    }

    fn types_and_cursor(server: &Running) {
        let grant = SqlGrant {
            columns: vec![
                ("id".to_owned(), ColumnType::Integer),
                ("total".to_owned(), ColumnType::Integer),
                ("till".to_owned(), ColumnType::Text),
                ("weight".to_owned(), ColumnType::Real),
            ],
            cursor: Some(CursorGrant {
                column: "id".to_owned(),
                start: Cursor::Integer(0),
            }),
            rows_max: 2,
            ..server.grant("SELECT id, total, till, weight FROM sale WHERE id > $1 ORDER BY id")
        };
        let mut query = Query::new(grant);
        let first = query.run(None, TIMEOUT).unwrap();
        assert_eq!((integers(&first, 0), first.more), (vec![Some(1), Some(2)], true));
        assert_eq!(integers(&first, 1), [Some(1995), None]);
        assert_eq!(first.columns[3].values, ColumnValues::Reals(vec![Some(0.5), Some(1.0)]));
        let rest = query.run(Some(Cursor::Integer(2)), TIMEOUT).unwrap();
        assert_eq!((integers(&rest, 0), rest.more), (vec![Some(3)], false));
        assert_eq!(rest.columns[2].values, ColumnValues::Texts(vec![None]));
        let cast = server.error("SELECT sum FROM sale");
        assert!(
            cast.why.contains("column sum is a numeric: cast it in the query"),
            "{cast}"
        );
        assert!(
            server
                .error("SELECT till FROM sale")
                .why
                .contains("holds a value that is no integer")
        );
    }

    fn writes(server: &Running) {
        server.write(
            "CREATE SEQUENCE numbers;
            CREATE FUNCTION sell() RETURNS int LANGUAGE sql AS 'INSERT INTO sale (id) VALUES (9) RETURNING id';",
        );
        for wrong in [
            "INSERT INTO sale (id) VALUES (9) RETURNING id",
            "DELETE FROM sale RETURNING id",
            "WITH gone AS (DELETE FROM sale RETURNING id) SELECT id FROM gone",
            "SELECT nextval('numbers')",
            "SELECT sell()",
        ] {
            let error = server.error(wrong);
            assert_eq!(error.fault, PeerFault::Denied, "{wrong}: {error}");
        }
        for wrong in ["CREATE TABLE other (n int)", "SET default_transaction_read_only = off"] {
            let error = server.error(wrong);
            assert!(error.why.contains("has 0 columns"), "{wrong}: {error}");
        }
        assert_eq!(server.integers("SELECT count(*) FROM sale"), [Some(3)]);
    }

    fn bounds(server: &Running) {
        let mut slow = server.grant("SELECT 1 FROM pg_sleep(60)");
        slow.timeout = Duration::from_millis(200);
        let begun = Instant::now();
        assert_eq!(
            Query::new(slow).run(None, TIMEOUT).unwrap_err().fault,
            PeerFault::Timeout
        );
        assert!(begun.elapsed() < Duration::from_secs(10));
        let many = Query::new(server.grant("SELECT generate_series(1, 100000000)"))
            .run(None, TIMEOUT)
            .unwrap();
        assert_eq!((integers(&many, 0).len(), many.more), (1_000, true));
        for bytes in [200_000, 50_000_000] {
            let huge = server.texts(&format!("SELECT repeat('x', {bytes})"));
            let error = Query::new(huge).run(None, TIMEOUT).unwrap_err();
            assert_eq!(error.fault, PeerFault::TooLarge, "{error}");
        }
        assert_eq!(server.error("GIVE 1").fault, PeerFault::Malformed);
    }

    /// Rows of 20 kB were always fetched 64 at once, more than all that a run may send, and the server was unreachable.
    fn wide_rows(server: &Running) {
        let read = |query: &str| {
            let table = Query::new(server.texts(query)).run(None, TIMEOUT).unwrap();
            match &table.columns[0].values {
                ColumnValues::Texts(texts) => (texts.len(), table.more),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read("SELECT repeat('x', 40000) FROM generate_series(1, 64)"), (2, true));
        let suddenly = "SELECT repeat('x', CASE WHEN n < 100 THEN 1 ELSE 90000 END) FROM generate_series(1, 200) AS n";
        let (rows, more) = read(suddenly);
        assert!((1..100).contains(&rows) && more, "{rows}");
    }

    /// Until its next run the server kept what others had deleted since.
    fn nothing_stays_open(server: &Running) {
        let mut query = Query::new(server.grant("SELECT generate_series(1, 2000)"));
        assert!(query.run(None, TIMEOUT).unwrap().more);
        let open = "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'tillwatch' AND state LIKE 'idle in transaction%'";
        assert_eq!(server.integers(open), [Some(0)]);
        let setting = server.texts("SELECT current_setting('idle_in_transaction_session_timeout')");
        let table = Query::new(setting).run(None, TIMEOUT).unwrap();
        assert_eq!(
            table.columns[0].values,
            ColumnValues::Texts(vec![Some("10s".to_owned())])
        );
    }

    /// A connection that the server had ended cost the next run.
    fn ended_by_the_server(server: &Running) {
        let mut query = Query::new(server.grant("SELECT 7"));
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(7)]);
        server.write("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tillwatch'");
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(7)]);
    }

    /// As OPERATIONS.md says, word by word.
    fn least_rights(server: &Running) {
        let read = |query: &str| {
            let mut grant = server.grant(query);
            if let Database::Postgres(server) = &mut grant.database {
                server.user = "tillwatch".to_owned();
            }
            let table = Query::new(grant).run(None, TIMEOUT);
            table.map(|table| integers(&table, 0)).map_err(|error| error.fault)
        };
        let query = "SELECT count(total) FROM sale";
        server.write("CREATE ROLE tillwatch LOGIN CONNECTION LIMIT 4 PASSWORD 'open sesame'");
        assert_eq!(read(query), Err(PeerFault::Denied));
        server.write("GRANT CONNECT ON DATABASE postgres TO tillwatch");
        server.write("GRANT USAGE ON SCHEMA public TO tillwatch");
        server.write("GRANT SELECT (id, total) ON sale TO tillwatch");
        assert_eq!(read(query), Ok(vec![Some(2)]));
        assert_eq!(read("SELECT count(till) FROM sale"), Err(PeerFault::Denied));
        server.write("REVOKE SELECT (id, total) ON sale FROM tillwatch");
        assert_eq!(read(query), Err(PeerFault::Denied));
    }

    fn login(server: &Running) {
        let with = |change: &dyn Fn(&mut Server)| {
            let mut grant = server.grant("SELECT 1");
            if let Database::Postgres(server) = &mut grant.database {
                change(server);
            }
            Query::new(grant).run(None, TIMEOUT).map(|table| integers(&table, 0))
        };
        let wrong = server.file("wrong");
        std::fs::write(&wrong, "close sesame").unwrap();
        let error = with(&|server| server.secret_file = Some(wrong.clone())).unwrap_err();
        assert!(
            error.fault == PeerFault::Malformed && !error.why.contains("sesame"),
            "{error}"
        );
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&wrong, other.cert.pem()).unwrap();
        let error = with(&|server| server.ca = Some(wrong.clone())).unwrap_err();
        assert_eq!(error.fault, PeerFault::Untrusted, "{error}");
        assert_eq!(with(&|server| server.ca = None).unwrap(), [Some(1)]);
        let error = with(&|server| server.place.host = "LocalHost".to_owned()).unwrap_err();
        assert_eq!(error.fault, PeerFault::Denied, "{error}");
        assert_eq!(
            with(&|server| server.place.port = 1).unwrap_err().fault,
            PeerFault::Unreachable
        );
    }
}
