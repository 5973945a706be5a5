//! A SQLite file, opened read-only: nothing but reading is authorized, and a query that takes too long is interrupted.

use std::path::Path;
use std::time::Instant;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{ToSql, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use tillwatch_border::{Cursor, PeerFault, Table};

use super::super::PeerError;
use super::SqlGrant;
use super::rows::{Rows, Value};

/// The clock is looked at after so many of the virtual machine's instructions: some microseconds.
const INSTRUCTIONS: i32 = 1_000;

/// The one connection to a file, while it is good.
#[derive(Default)]
pub(super) struct Sqlite(Option<Connection>);

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
        let connection = match self.0.take() {
            Some(connection) => connection,
            None => open(file)?,
        };
        let table = rows(&connection, grant, cursor.as_ref(), deadline)?;
        // After an error the next query begins with a new one.
        self.0 = Some(connection);
        Ok(table)
    }
}

fn open(file: &Path) -> Result<Connection, PeerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(|error| failed(&error))?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(|error| failed(&error))?;
    // Views and triggers of the file may call only functions without side effects.
    connection
        .pragma_update(None, "trusted_schema", false)
        .map_err(|error| failed(&error))?;
    connection.authorizer(Some(authorize));
    Ok(connection)
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
    let left = deadline.saturating_duration_since(Instant::now());
    // How long somebody else's lock is waited for.
    connection.busy_timeout(left).map_err(|error| failed(&error))?;
    connection.progress_handler(INSTRUCTIONS, Some(move || Instant::now() >= deadline));
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
    let fault = match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            PeerFault::Timeout
        }
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => PeerFault::Denied,
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure) => {
            PeerFault::Unreachable
        }
        _ => PeerFault::Malformed,
    };
    PeerError::new(fault, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{ColumnType, CursorGrant, Database, Query};
    use super::*;
    use std::time::Duration;
    use tillwatch_border::ColumnValues;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn till(folder: &Path) -> SqlGrant {
        let file = folder.join("pos.db");
        let database = Connection::open(&file).unwrap();
        let made = "CREATE TABLE IF NOT EXISTS sale (id INTEGER PRIMARY KEY, total INTEGER, till TEXT);
            INSERT OR IGNORE INTO sale VALUES (1, 1995, 'till-1'), (2, NULL, 'till-2'), (3, 500, 'till-1');";
        database.execute_batch(made).unwrap();
        SqlGrant {
            database: Database::Sqlite(file),
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
        SqlGrant {
            query: query.to_owned(),
            columns: vec![("n".to_owned(), ColumnType::Integer)],
            cursor: None,
            ..till(folder)
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

    #[test]
    fn nothing_but_reading_is_possible() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in [
            "INSERT INTO sale VALUES (9, 9, 'x') RETURNING id",
            "DELETE FROM sale RETURNING id",
            "ATTACH 'other.db' AS other",
            "PRAGMA user_version = 3",
            "PRAGMA query_only = 0",
            "SELECT load_extension('x')",
            "CREATE TABLE other (n)",
            "VACUUM INTO 'copy.db'",
        ] {
            let grant = counting(folder.path(), wrong);
            let error = Query::new(grant).run(None, TIMEOUT).unwrap_err();
            assert!(
                matches!(error.fault, PeerFault::Denied | PeerFault::Malformed),
                "{wrong}: {error}"
            );
        }
        let count = counting(folder.path(), "SELECT count(*) FROM sale");
        assert_eq!(integers(&Query::new(count).run(None, TIMEOUT).unwrap(), 0), [Some(3)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
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
        assert!(!query.run(Some(Cursor::Integer(2)), TIMEOUT).unwrap().more);
        let error = query.run(Some(Cursor::Integer(3)), TIMEOUT).unwrap_err();
        assert_eq!(error.fault, PeerFault::TooSoon);
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
