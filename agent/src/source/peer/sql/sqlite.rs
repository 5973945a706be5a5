//! A SQLite file, opened read-only: nothing but reading is authorized, and a query that takes too long is interrupted.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSql, ValueRef};
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags, Row};
use tillwatch_border::{Cursor, PeerFault, Table};

use super::super::PeerError;
use super::SqlGrant;
use super::rows::{Rows, Value};

/// A value may be so much larger than a table: the cursor and the query are values, too.
const VALUE_SLACK_BYTES: usize = 128 << 10;
/// An interrupt that comes between two statements is lost, so it comes again.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(5);
const TIMER_STACK_BYTES: usize = 64 << 10;

/// The one connection to a file, while it is good.
#[derive(Default)]
pub(super) struct Sqlite(Option<Opened>);

struct Opened {
    connection: Connection,
    /// A database that is put in its place is another file.
    identity: (u64, u64),
}

impl Sqlite {
    /// # Errors
    /// Why there are no rows.
    pub(super) fn query(
        &mut self,
        file: &Path,
        grant: &SqlGrant,
        cursor: Option<Cursor>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        let opened = match self.0.take().filter(|opened| is_of(opened, file)) {
            Some(opened) => opened,
            None => open(file, grant)?,
        };
        let table = by(deadline, opened.connection.get_interrupt_handle(), || {
            rows(&opened.connection, grant, cursor.as_ref(), deadline)
        })?;
        // After an error the next query begins with a new one.
        self.0 = Some(opened);
        Ok(table)
    }
}

fn is_of(opened: &Opened, file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|now| identity(&now) == opened.identity)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn open(file: &Path, grant: &SqlGrant) -> Result<Opened, PeerError> {
    let unreachable = |error: std::io::Error| PeerError::new(PeerFault::Unreachable, error.to_string());
    // Before it is opened: what is put in its place in between is opened anew at the next run.
    let identity = identity(&std::fs::metadata(file).map_err(unreachable)?);
    if is_left_alone(file).map_err(unreachable)? {
        let why =
            "it is in WAL mode and no program has it open, so its log would be made anew, as the agent's own file";
        return Err(PeerError::new(PeerFault::Unreachable, why));
    }
    let connection = connect(file).map_err(|error| failed(&error))?;
    guard(&connection, grant).map_err(|error| failed(&error))?;
    Ok(Opened { connection, identity })
}

/// What the connection may do and hold from now on.
fn guard(connection: &Connection, grant: &SqlGrant) -> rusqlite::Result<()> {
    connection.authorizer(Some(authorize));
    let value_bytes_max = i32::try_from(grant.table_bytes_max + VALUE_SLACK_BYTES).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, value_bytes_max)?;
    Ok(())
}

/// A database in WAL mode without its log, which SQLite makes even for those who only read: the till could then not open
/// it. Source: SQLite's documentation, file format, section 1.3.
fn is_left_alone(file: &Path) -> std::io::Result<bool> {
    let mut header = [0; 20];
    let count = std::fs::File::open(file)?.read(&mut header)?;
    let is_wal = count == header.len() && header[19] == 2;
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    Ok(is_wal && !Path::new(&log).exists())
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.pragma_update(None, "query_only", true)?;
    // Views and triggers of the file may call only functions without side effects.
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Does the work, and interrupts it at the deadline.
fn by<T>(
    deadline: Instant,
    handle: InterruptHandle,
    work: impl FnOnce() -> Result<T, PeerError>,
) -> Result<T, PeerError> {
    let (done, waits) = channel::<()>();
    std::thread::scope(|scope| {
        let timer = std::thread::Builder::new().stack_size(TIMER_STACK_BYTES);
        if let Err(error) = timer.spawn_scoped(scope, move || interrupt(deadline, &handle, &waits)) {
            return Err(PeerError::new(PeerFault::Unreachable, error.to_string()));
        }
        let result = work();
        drop(done);
        result
    })
}

/// Until the other end is dropped.
fn interrupt(deadline: Instant, handle: &InterruptHandle, done: &Receiver<()>) {
    let mut wait = deadline.saturating_duration_since(Instant::now());
    while done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        handle.interrupt();
        wait = INTERRUPT_AGAIN;
    }
}

fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Deny
        }
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn rows(
    connection: &Connection,
    grant: &SqlGrant,
    cursor: Option<&Cursor>,
    deadline: Instant,
) -> Result<Table, PeerError> {
    wait_for_locks(connection, deadline)?;
    let mut statement = connection.prepare(&grant.query).map_err(|error| failed(&error))?;
    let (columns, parameters) = (statement.column_count(), statement.parameter_count());
    let (granted, wanted) = (grant.columns.len(), usize::from(cursor.is_some()));
    if columns != granted || parameters != wanted {
        let why = format!(
            "the query has {columns} columns and {parameters} parameters, agent.toml names {granted} columns and {wanted} cursor"
        );
        return Err(PeerError::new(PeerFault::Malformed, why));
    }
    let parameter: Option<&dyn ToSql> = cursor.map(|cursor| match cursor {
        Cursor::Integer(integer) => integer as &dyn ToSql,
        Cursor::Text(text) => text as &dyn ToSql,
    });
    wait_for_locks(connection, deadline)?;
    let mut found = statement
        .query(rusqlite::params_from_iter(parameter))
        .map_err(|error| failed(&error))?;
    let mut rows = Rows::new(grant);
    while let Some(row) = found.next().map_err(|error| failed(&error))? {
        if !rows.push(values(row, columns)?)? {
            break;
        }
    }
    Ok(rows.table)
}

/// How long somebody else's lock is waited for; an interrupt does not end that.
fn wait_for_locks(connection: &Connection, deadline: Instant) -> Result<(), PeerError> {
    let left = deadline.saturating_duration_since(Instant::now());
    connection.busy_timeout(left).map_err(|error| failed(&error))
}

fn values(row: &Row<'_>, columns: usize) -> Result<Vec<Value>, PeerError> {
    let value = |index| {
        let value = row.get_ref(index).map_err(|error| failed(&error))?;
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) | ValueRef::Blob(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        })
    };
    (0..columns).map(value).collect()
}

/// The text is of the library and the query, and holds no value of a row.
fn failed(error: &rusqlite::Error) -> PeerError {
    let code = match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        other => other.sqlite_error_code(),
    };
    let fault = match code {
        // Of a function it is an error in the text.
        _ if error.to_string().starts_with("not authorized") => PeerFault::Denied,
        Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            PeerFault::Timeout
        }
        Some(ErrorCode::TooBig) => PeerFault::TooLarge,
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => PeerFault::Denied,
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure) => {
            PeerFault::Unreachable
        }
        _ => PeerFault::Malformed,
    };
    PeerError::new(fault, error.to_string())
}

/// A database as somebody else made it.
#[cfg(test)]
pub(crate) fn made(file: &Path, statements: &str) {
    let database = Connection::open(file).unwrap();
    database.execute_batch(statements).unwrap();
}

#[cfg(test)]
mod tests {
    use super::super::{ColumnType, CursorGrant, Database, Query};
    use super::*;
    use std::fs::Permissions;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    use tillwatch_border::ColumnValues;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const NOBODY: u32 = 65_534;

    fn till(folder: &Path) -> SqlGrant {
        let file = folder.join("pos.db");
        let database = Connection::open(&file).unwrap();
        let made = "CREATE TABLE IF NOT EXISTS sale (id INTEGER PRIMARY KEY, total INTEGER, till TEXT);
            INSERT OR IGNORE INTO sale VALUES (1, 1995, 'till-1'), (2, NULL, 'till-2'), (3, 500, 'till-1');";
        database.execute_batch(made).unwrap();
        granted(folder)
    }

    fn granted(folder: &Path) -> SqlGrant {
        SqlGrant {
            database: Database::Sqlite(folder.join("pos.db")),
            query: "SELECT id, total, till FROM sale WHERE id > ?1 ORDER BY id".to_owned(),
            columns: vec![
                ("id".to_owned(), ColumnType::Integer),
                ("total".to_owned(), ColumnType::Integer),
                ("till".to_owned(), ColumnType::Text),
            ],
            cursor: Some(CursorGrant {
                column: "id".to_owned(),
                start: Cursor::Integer(0),
            }),
            rows_max: 1_000,
            table_bytes_max: 1_000,
            timeout: TIMEOUT,
            interval_min: Duration::ZERO,
        }
    }

    /// A query without a cursor, of one column of integers.
    fn counting(folder: &Path, query: &str) -> SqlGrant {
        drop(till(folder));
        counting_of(folder, query)
    }

    /// The same, of a database that is there.
    fn counting_of(folder: &Path, query: &str) -> SqlGrant {
        SqlGrant {
            query: query.to_owned(),
            columns: vec![("n".to_owned(), ColumnType::Integer)],
            cursor: None,
            ..granted(folder)
        }
    }

    fn integers(table: &Table, column: usize) -> Vec<Option<i64>> {
        match &table.columns[column].values {
            ColumnValues::Integers(values) => values.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn fault(grant: SqlGrant) -> PeerFault {
        Query::new(grant).run(None, TIMEOUT).unwrap_err().fault
    }

    #[test]
    fn rows_come_typed_and_go_on_after_a_cursor() {
        let folder = tempfile::tempdir().unwrap();
        let mut query = Query::new(SqlGrant {
            rows_max: 2,
            ..till(folder.path())
        });
        let first = query.run(None, TIMEOUT).unwrap();
        assert_eq!((integers(&first, 0), first.more), (vec![Some(1), Some(2)], true));
        assert_eq!(integers(&first, 1), [Some(1995), None]);
        let texts = vec![Some("till-1".to_owned()), Some("till-2".to_owned())];
        assert_eq!(first.columns[2].values, ColumnValues::Texts(texts));
        let rest = query.run(Some(Cursor::Integer(2)), TIMEOUT).unwrap();
        assert_eq!((integers(&rest, 0), rest.more), (vec![Some(3)], false));
        let text = query.run(Some(Cursor::Text("2".to_owned())), TIMEOUT).unwrap_err();
        assert_eq!(text.fault, PeerFault::Denied);
    }

    #[test]
    fn what_was_written_since_is_read_with_the_same_connection() {
        let folder = tempfile::tempdir().unwrap();
        let grant = counting(folder.path(), "SELECT count(*) FROM sale");
        let Database::Sqlite(file) = &grant.database else {
            panic!("it is a file")
        };
        let till = Connection::open(file).unwrap();
        let mut query = Query::new(grant);
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(3)]);
        till.execute("INSERT INTO sale VALUES (4, 1, 'till-3')", []).unwrap();
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(4)]);
    }

    const WRITES: [&str; 8] = [
        "INSERT INTO sale VALUES (9, 9, 'x') RETURNING id",
        "DELETE FROM sale RETURNING id",
        "ATTACH 'other.db' AS other",
        "PRAGMA user_version = 3",
        "PRAGMA query_only = 0",
        "SELECT load_extension('x')",
        "CREATE TABLE other (n)",
        "VACUUM INTO 'copy.db'",
    ];

    /// The list of what is wrong was only ever tried on a connection that could not write anyway.
    #[test]
    fn reading_alone_is_authorized_even_on_a_connection_that_could_write() {
        let folder = tempfile::tempdir().unwrap();
        let grant = till(folder.path());
        let connection = Connection::open(folder.path().join("pos.db")).unwrap();
        guard(&connection, &grant).unwrap();
        for wrong in WRITES {
            let error = connection.execute(wrong, []).unwrap_err().to_string();
            assert!(error.contains("authoriz"), "{wrong}: {error}");
        }
        assert!(connection.prepare("SELECT max(id) FROM sale").is_ok());
    }

    #[test]
    fn a_query_that_writes_is_denied_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in WRITES {
            let error = Query::new(counting(folder.path(), wrong))
                .run(None, TIMEOUT)
                .unwrap_err();
            let is_no_query = wrong.starts_with("VACUUM") && error.fault == PeerFault::Malformed;
            assert!(error.fault == PeerFault::Denied || is_no_query, "{wrong}: {error}");
        }
        let count = counting(folder.path(), "SELECT count(*) FROM sale");
        assert_eq!(integers(&Query::new(count).run(None, TIMEOUT).unwrap(), 0), [Some(3)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// One value of a query could take a gigabyte before anybody looked at its size.
    #[test]
    fn a_value_that_is_larger_than_a_table_is_never_made() {
        let folder = tempfile::tempdir().unwrap();
        for wide in [
            "SELECT zeroblob(1000000)",
            // Nobody sees it, and yet it would be made.
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100000) SELECT length(group_concat(n)) FROM c",
        ] {
            assert_eq!(fault(counting(folder.path(), wide)), PeerFault::TooLarge, "{wide}");
        }
    }

    /// Counting rows asked nobody for the time.
    #[test]
    fn a_count_over_a_large_table_is_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let counts = vec!["(SELECT count(*) FROM large)"; 100].join(" + ");
        let mut grant = counting(folder.path(), &format!("SELECT {counts}"));
        let database = Connection::open(folder.path().join("pos.db")).unwrap();
        let made = "CREATE TABLE large AS WITH RECURSIVE c(n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 10000) SELECT n, zeroblob(1000) FROM c";
        database.execute_batch(made).unwrap();
        grant.timeout = Duration::from_millis(20);
        assert_eq!(fault(grant), PeerFault::Timeout);
    }

    /// The file was restored from a copy, and the agent went on reading the one that was gone.
    #[test]
    fn a_file_that_was_put_in_its_place_is_read() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut query = Query::new(counting(folder.path(), "SELECT count(*) FROM sale"));
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(3)]);
        drop(till(other.path()));
        let restored = Connection::open(other.path().join("pos.db")).unwrap();
        restored.execute("DELETE FROM sale WHERE id > 1", []).unwrap();
        drop(restored);
        std::fs::copy(other.path().join("pos.db"), folder.path().join("new.db")).unwrap();
        std::fs::rename(folder.path().join("new.db"), folder.path().join("pos.db")).unwrap();
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(1)]);
    }

    /// The till's connection, with its log open.
    fn in_wal_mode(folder: &Path) -> Connection {
        drop(till(folder));
        let open = Connection::open(folder.join("pos.db")).unwrap();
        let mode: String = open
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
        open.execute("INSERT INTO sale VALUES (4, 1, 'till-3')", []).unwrap();
        open
    }

    #[test]
    fn a_live_till_in_wal_mode_is_read_while_it_writes() {
        let folder = tempfile::tempdir().unwrap();
        let till = in_wal_mode(folder.path());
        let grant = SqlGrant {
            timeout: Duration::from_millis(500),
            ..counting_of(folder.path(), "SELECT count(*) FROM sale")
        };
        let mut query = Query::new(grant);
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(4)]);
        till.execute_batch("BEGIN IMMEDIATE; INSERT INTO sale VALUES (5, 1, 'till-3')")
            .unwrap();
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(4)]);
        till.execute_batch("COMMIT").unwrap();
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(5)]);
    }

    /// SQLite made the log of a till that was closed, for the agent's user: the till could not open its database.
    #[test]
    fn of_a_till_in_wal_mode_that_is_closed_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        drop(in_wal_mode(folder.path()));
        let grant = counting_of(folder.path(), "SELECT count(*) FROM sale");
        assert_eq!(fault(grant), PeerFault::Unreachable);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// As the packaged unit sees the folder of a till, which is another process.
    #[test]
    fn a_live_till_in_wal_mode_is_read_from_a_folder_that_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        drop(till(folder.path()));
        let program = "import sqlite3, sys
till = sqlite3.connect(sys.argv[1])
till.execute('PRAGMA journal_mode = WAL')
till.execute('INSERT INTO sale VALUES (4, 1, NULL)')
till.commit()
print('open', flush=True)
sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", program]).arg(folder.path().join("pos.db"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut till = command.spawn().expect("hint: apt-get install -y python3");
        let mut line = String::new();
        BufReader::new(till.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "open\n");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for name in ["pos.db", "pos.db-wal", "pos.db-shm"] {
            mode(&folder.path().join(name), 0o444);
        }
        mode(folder.path(), 0o555);
        let grant = counting_of(folder.path(), "SELECT count(*) FROM sale");
        let read = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
            }
            let Database::Sqlite(file) = &grant.database else {
                panic!("it is a file")
            };
            assert!(std::fs::File::create(file.with_file_name("other")).is_err());
            integers(&Query::new(grant).run(None, TIMEOUT).unwrap(), 0)
        });
        let read = read.join().unwrap();
        mode(folder.path(), 0o755);
        drop(till.stdin.take());
        assert!(till.wait().unwrap().success());
        assert_eq!(read, [Some(4)]);
    }

    #[test]
    fn an_endless_query_is_interrupted_and_the_next_one_answered() {
        let folder = tempfile::tempdir().unwrap();
        let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
        let mut grant = counting(folder.path(), endless);
        grant.timeout = Duration::from_millis(50);
        let begun = Instant::now();
        let mut query = Query::new(grant);
        assert_eq!(query.run(None, TIMEOUT).unwrap_err().fault, PeerFault::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(5));
        query.grant.query = "SELECT 7".to_owned();
        assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(7)]);
    }

    #[test]
    fn a_till_that_holds_its_lock_costs_the_timeout() {
        let folder = tempfile::tempdir().unwrap();
        let mut grant = counting(folder.path(), "SELECT count(*) FROM sale");
        grant.timeout = Duration::from_millis(50);
        let Database::Sqlite(file) = &grant.database else {
            panic!("it is a file")
        };
        let till = Connection::open(file).unwrap();
        till.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert_eq!(fault(grant.clone()), PeerFault::Timeout);
        till.execute_batch("ROLLBACK").unwrap();
        assert!(Query::new(grant).run(None, TIMEOUT).is_ok());
    }

    #[test]
    fn rows_and_bytes_are_bounded_and_another_type_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c";
        let table = Query::new(counting(folder.path(), many)).run(None, TIMEOUT).unwrap();
        assert_eq!(
            (integers(&table, 0).len(), table.more),
            (125, true),
            "1,000 bytes of 8 each"
        );
        let mut text = counting(folder.path(), "SELECT printf('%.*c', 2000, 'x')");
        text.columns[0].1 = ColumnType::Text;
        assert_eq!(fault(text), PeerFault::TooLarge);
        let typed = counting(folder.path(), "SELECT till FROM sale");
        let error = Query::new(typed).run(None, TIMEOUT).unwrap_err();
        assert_eq!(error.why, "column n holds a value that is no integer");
        assert_eq!(fault(counting(folder.path(), "SELECT 1, 2")), PeerFault::Malformed);
        assert_eq!(
            fault(counting(folder.path(), "SELECT id FROM sale WHERE id > ?1")),
            PeerFault::Malformed
        );
        assert_eq!(fault(counting(folder.path(), "GIVE 1")), PeerFault::Malformed);
    }

    #[test]
    fn it_is_not_asked_again_before_the_operators_interval() {
        let folder = tempfile::tempdir().unwrap();
        let mut grant = till(folder.path());
        (grant.interval_min, grant.rows_max) = (Duration::from_secs(3_600), 2);
        let mut query = Query::new(grant);
        assert!(query.run(None, TIMEOUT).unwrap().more, "and then at once");
        let next = || Some(Cursor::Integer(2));
        assert!(!query.run(next(), TIMEOUT).unwrap().more);
        let too_soon = |query: &mut Query, cursor| query.run(cursor, TIMEOUT).unwrap_err().fault == PeerFault::TooSoon;
        assert!(too_soon(&mut query, next()));
        query.rollback();
        assert!(query.run(next(), TIMEOUT).is_ok(), "the call is repeated");
        query.commit();
        query.rollback();
        assert!(too_soon(&mut query, next()));
    }

    #[test]
    fn a_file_that_is_not_there_is_unreachable_and_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut grant = counting(folder.path(), "SELECT 1");
        let missing = folder.path().join("missing.db");
        grant.database = Database::Sqlite(missing.clone());
        assert_eq!(fault(grant), PeerFault::Unreachable);
        assert!(!missing.exists());
    }
}
