//! A PostgreSQL server: a read-only transaction for each run, over one connection to a checked address.
//!
//! Rows come in portions, so that a table of any size costs only what is kept of it, and what a server sends in one run
//! is counted on the wire.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
use tokio_postgres::{Client, Config, Error, NoTls, Row, Statement};

use super::super::{PeerError, secret};
use super::rows::{Rows, Value};
use super::{Server, SqlGrant};
use crate::tls::authorities;

/// Rows that are fetched at once.
const PORTION_ROWS: i32 = 64;
/// Of login and descriptions, beside the rows.
const OVERHEAD_BYTES: usize = 1 << 20;
/// `SSLRequest` of the protocol, version 3. Source: PostgreSQL documentation, section 55.7.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The one connection to a server, while it is good.
#[derive(Default)]
pub(super) struct Postgres(Option<Connected>);

struct Connected {
    client: Client,
    /// Of what the server may still send in this run.
    left: Arc<AtomicUsize>,
    runtime: Runtime,
}

impl Postgres {
    /// # Errors
    /// Why there are no rows.
    pub(super) fn query(
        &mut self,
        server: &Server,
        grant: &SqlGrant,
        cursor: Option<Cursor>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        // On a thread of its own, as whoever calls may be on a runtime already.
        let run = || self.run(server, grant, cursor, deadline);
        std::thread::scope(|scope| scope.spawn(run).join())
            .unwrap_or_else(|_panic| Err(PeerError::new(PeerFault::Malformed, "its answer cannot be read")))
    }

    fn run(
        &mut self,
        server: &Server,
        grant: &SqlGrant,
        cursor: Option<Cursor>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        let mut connected = match self.0.take() {
            Some(connected) if !connected.client.is_closed() => connected,
            _ => connect(server, grant, deadline)?,
        };
        connected.left.store(grant.table_bytes_max + OVERHEAD_BYTES, Relaxed);
        let parameter = cursor.map(Parameter);
        let rows = rows(&mut connected.client, grant, parameter.as_ref());
        let table = within(&connected.runtime, deadline, rows)?;
        // After an error the next query begins with a new one.
        self.0 = Some(connected);
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
    let unreachable = |error: io::Error| PeerError::new(PeerFault::Unreachable, error.to_string());
    let addresses = server
        .place
        .resolve(deadline.saturating_duration_since(Instant::now()))?;
    let mut config = Config::new();
    config
        .user(&server.user)
        .dbname(&server.name)
        .application_name("tillwatch")
        // TLS is ours, below: with a checked address and the operator's authority.
        .ssl_mode(SslMode::Disable)
        .options(format!(
            "-c default_transaction_read_only=on -c statement_timeout={}",
            grant.timeout.as_millis()
        ));
    if let Some(file) = &server.secret_file {
        config.password(secret(file)?);
    }
    let tls = server.ca.as_deref().map(trusting).transpose()?;
    let left = Arc::new(AtomicUsize::new(OVERHEAD_BYTES));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unreachable)?;
    let connecting = async {
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(unreachable)?;
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(secure(stream, tls, &server.place.host).await?),
            None => Box::new(stream),
        };
        let stream = Metered {
            stream,
            left: Arc::clone(&left),
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
    Ok(Connected { client, left, runtime })
}

/// TLS without a certificate of our own: the server asks for a name and password instead.
fn trusting(ca: &Path) -> Result<Arc<rustls::ClientConfig>, PeerError> {
    let roots = authorities(ca).map_err(|error| PeerError::denied(error.to_string()))?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| PeerError::denied(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Asks the server for TLS and does not go on without.
async fn secure(
    mut stream: TcpStream,
    tls: Arc<rustls::ClientConfig>,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, PeerError> {
    let unreachable = |error: io::Error| PeerError::new(PeerFault::Unreachable, error.to_string());
    let untrusted = |why: String| PeerError::new(PeerFault::Untrusted, why);
    stream.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
    if stream.read_u8().await.map_err(unreachable)? != b'S' {
        return Err(untrusted("the server has no TLS".to_owned()));
    }
    let name = rustls_pki_types::ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| untrusted(error.to_string()))?;
    let connected = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await;
    connected.map_err(|error| untrusted(error.to_string()))
}

async fn rows(client: &mut Client, grant: &SqlGrant, cursor: Option<&Parameter>) -> Result<Table, PeerError> {
    let started = client.build_transaction().read_only(true).start().await;
    let transaction = started.map_err(|error| failed(&error))?;
    let statement = transaction
        .prepare(&grant.query)
        .await
        .map_err(|error| failed(&error))?;
    check(&statement, grant, cursor)?;
    let parameter: Vec<&(dyn ToSql + Sync)> = cursor.iter().map(|cursor| *cursor as &(dyn ToSql + Sync)).collect();
    let portal = transaction
        .bind(&statement, &parameter)
        .await
        .map_err(|error| failed(&error))?;
    let mut rows = Rows::new(grant);
    loop {
        let portion = transaction
            .query_portal(&portal, PORTION_ROWS)
            .await
            .map_err(|error| failed(&error))?;
        let is_last = portion.len() < usize::try_from(PORTION_ROWS).unwrap_or(0);
        for row in &portion {
            if !rows.push(values(row)?)? {
                return Ok(rows.table);
            }
        }
        if is_last {
            transaction.rollback().await.map_err(|error| failed(&error))?;
            return Ok(rows.table);
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
        let fault = if error.is_closed() {
            PeerFault::Unreachable
        } else {
            PeerFault::Malformed
        };
        return PeerError::new(fault, error.to_string());
    };
    let code = told.code();
    let fault = match *code {
        SqlState::QUERY_CANCELED => PeerFault::Timeout,
        SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::INSUFFICIENT_PRIVILEGE => PeerFault::Denied,
        _ => PeerFault::Malformed,
    };
    let is_about_us = ["25", "28", "42"].iter().any(|class| code.code().starts_with(class));
    let message = if is_about_us { told.message() } else { "" };
    PeerError::new(fault, format!("the server refuses it, {}: {message}", code.code()))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream that gives only so many bytes.
struct Metered {
    stream: Box<dyn Stream>,
    left: Arc<AtomicUsize>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(ctx, buffer);
        let count = buffer.filled().len() - before;
        let left = self.left.load(Relaxed);
        if count > left {
            return Poll::Ready(Err(io::Error::other("the server says more than it may")));
        }
        self.left.store(left - count, Relaxed);
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
    use std::path::PathBuf;
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
        for wrong in [
            "INSERT INTO sale (id) VALUES (9) RETURNING id",
            "DELETE FROM sale RETURNING id",
            "CREATE TABLE other (n int)",
            "SELECT setval('s', 1) FROM (SELECT 1) AS x",
        ] {
            let error = server.error(wrong);
            assert!(
                matches!(error.fault, PeerFault::Denied | PeerFault::Malformed),
                "{wrong}: {error}"
            );
        }
        assert_eq!(server.error("DELETE FROM sale RETURNING id").fault, PeerFault::Denied);
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
        let mut huge = server.grant("SELECT repeat('x', 50000000)");
        huge.columns[0].1 = ColumnType::Text;
        assert!(Query::new(huge).run(None, TIMEOUT).is_err());
        assert_eq!(server.error("GIVE 1").fault, PeerFault::Malformed);
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
