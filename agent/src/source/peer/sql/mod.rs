//! Queries that the operator wrote: read-only, with typed columns, bounded in rows, bytes, time and how often.
//!
//! In: a cursor, if the operator declared one. Out: the rows by columns. The plugin never writes SQL.
//! The real lock is an account or file that the agent may only read; what is done here keeps a mistake from becoming a
//! write.

mod pace;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod rows;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod server;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tillwatch_border::{Cursor, PeerFault, Table};

use self::pace::Pace;
use super::PeerError;
use super::place::Place;

pub const ROWS_MAX: u64 = 1_000;
pub const TABLE_BYTES_MAX: u64 = 256 << 10;
pub const INTERVAL_MIN: Duration = Duration::from_secs(10);

/// A query that the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlGrant {
    pub database: Database,
    /// With one parameter for the cursor, if there is one.
    pub query: String,
    pub columns: Vec<(String, ColumnType)>,
    pub cursor: Option<CursorGrant>,
    pub rows_max: usize,
    pub table_bytes_max: usize,
    pub timeout: Duration,
    /// A table that says `more` may be followed at once by the next, from another cursor.
    pub interval_min: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(Server),
    /// Also MariaDB.
    Mysql(Server),
}

/// A database that is asked over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub place: Place,
    pub user: String,
    pub name: String,
    /// With the password.
    pub secret_file: Option<PathBuf>,
    /// None only for a server on this machine, which is talked to in the clear.
    pub ca: Option<PathBuf>,
}

/// The column whose largest value the plugin gives back, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorGrant {
    pub column: String,
    pub start: Cursor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Integer,
    Real,
    Text,
}

impl ColumnType {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
        }
    }
}

/// A granted query with its one connection.
pub struct Query {
    grant: SqlGrant,
    pace: Pace,
    #[cfg(feature = "sqlite")]
    sqlite: sqlite::Sqlite,
    #[cfg(feature = "postgres")]
    postgres: postgres::Postgres,
    #[cfg(feature = "mysql")]
    mysql: mysql::Mysql,
}

impl Query {
    #[must_use]
    pub fn new(grant: SqlGrant) -> Self {
        Self {
            pace: Pace::new(grant.interval_min),
            grant,
            #[cfg(feature = "sqlite")]
            sqlite: sqlite::Sqlite::default(),
            #[cfg(feature = "postgres")]
            postgres: postgres::Postgres::default(),
            #[cfg(feature = "mysql")]
            mysql: mysql::Mysql::default(),
        }
    }

    /// # Errors
    /// Why there are no rows.
    pub fn run(&mut self, after: Option<Cursor>, within: Duration) -> Result<Table, PeerError> {
        let begun = Instant::now();
        let cursor = cursor(&self.grant, after)?;
        self.pace
            .admit(begun, cursor.as_ref())
            .map_err(|why| PeerError::new(PeerFault::TooSoon, why))?;
        let deadline = begun + self.grant.timeout.min(within);
        let result = self.query(cursor.clone(), deadline);
        match &result {
            Ok(table) => self.pace.on_table(begun, cursor, table.more),
            Err(_error) => self.pace.on_failure(),
        }
        result
    }

    /// What was read since the last commit is used.
    pub fn commit(&mut self) {
        self.pace.commit();
    }

    /// What was read since the last commit is asked for again.
    pub fn rollback(&mut self) {
        self.pace.rollback();
    }

    #[cfg_attr(
        not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
        expect(unused_variables, reason = "there is no database to ask")
    )]
    fn query(&mut self, cursor: Option<Cursor>, deadline: Instant) -> Result<Table, PeerError> {
        match &self.grant.database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(file) => self.sqlite.query(file, &self.grant, cursor, deadline),
            #[cfg(feature = "postgres")]
            Database::Postgres(server) => self.postgres.query(server, &self.grant, cursor, deadline),
            #[cfg(feature = "mysql")]
            Database::Mysql(server) => self.mysql.query(server, &self.grant, cursor, deadline),
            #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")))]
            _ => Err(PeerError::denied("this tillwatch was built without that database")),
        }
    }
}

/// What the query's parameter gets: what the plugin gives, else where the operator says.
fn cursor(grant: &SqlGrant, after: Option<Cursor>) -> Result<Option<Cursor>, PeerError> {
    match (&grant.cursor, after) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(PeerError::denied(
            "plugin gives a cursor, agent.toml grants none: add cursor",
        )),
        (Some(granted), None) => Ok(Some(granted.start.clone())),
        (Some(granted), Some(after)) => {
            if std::mem::discriminant(&granted.start) == std::mem::discriminant(&after) {
                return Ok(Some(after));
            }
            let why = format!("plugin gives a cursor of another type than column {}", granted.column);
            Err(PeerError::denied(why))
        }
    }
}
