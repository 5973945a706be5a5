//! A real PostgreSQL and a real MariaDB: an outbox that fills and empties, sales by their keys, by an account that may only look.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{Process, free_port, wait_until};

use super::queues::{PATIENCE, Watch, sum};

/// The servers refuse to run as root.
const NOBODY: u32 = 65_534;
const PASSWORD: &str = "open sesame";

/// Which server, with what differs between them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Maria,
}

/// A running server with an administrator `till`.
struct Database {
    kind: Kind,
    port: u16,
    place: PathBuf,
    process: Process,
}

impl Database {
    fn start(kind: Kind, place: &Path) -> Result<Self> {
        own(place)?;
        std::fs::write(place.join("secret"), PASSWORD)?;
        let accounts = format!(
            "CREATE DATABASE postgres;\nCREATE USER 'till'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL PRIVILEGES ON *.* TO 'till'@'127.0.0.1' WITH GRANT OPTION;\n"
        );
        std::fs::write(place.join("accounts.sql"), accounts)?;
        let data = place.join("data").display().to_string();
        let (port, socket) = (free_port()?, place.join("socket").display().to_string());
        let (mut install, mut serve) = match kind {
            Kind::Postgres => {
                let (mut install, mut serve) = (postgres("initdb")?, postgres("postgres")?);
                install.args([
                    "-D",
                    &data,
                    "-U",
                    "till",
                    "-A",
                    "scram-sha-256",
                    "--no-sync",
                    "--pwfile=secret",
                ]);
                serve.args(["-D", &data, "-F", "-h", "127.0.0.1", "-p", &port.to_string(), "-k"]);
                serve.arg(place);
                (install, serve)
            }
            Kind::Maria => {
                let (mut install, mut serve) = (Command::new("mariadb-install-db"), Command::new("/usr/sbin/mariadbd"));
                for command in [&mut install, &mut serve] {
                    command.args([
                        "--no-defaults",
                        &format!("--datadir={data}"),
                        "--innodb-log-file-size=4M",
                    ]);
                    command.args(["--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0"]);
                }
                install.args(["--skip-test-db", "--auth-root-authentication-method=normal"]);
                serve.args([
                    "--bind-address=127.0.0.1",
                    "--skip-name-resolve",
                    &format!("--port={port}"),
                ]);
                serve.args([
                    format!("--socket={socket}"),
                    format!("--init-file={}", place.join("accounts.sql").display()),
                ]);
                (install, serve)
            }
        };
        let installed = as_nobody(install.current_dir(place)).stdout(Stdio::null()).output();
        let installed = installed.context("hint: cargo xtask test installs the servers")?;
        ensure!(
            installed.status.success(),
            "{}",
            String::from_utf8_lossy(&installed.stderr)
        );
        let process = Process::start(
            "database",
            as_nobody(serve.current_dir(place)),
            &place.join("server.log"),
        )?;
        let (place, kind) = (place.to_owned(), kind);
        let mut database = Self {
            kind,
            port,
            place,
            process,
        };
        wait_until("the database answers", PATIENCE, || {
            database.process.check()?;
            Ok(database.ask("SELECT 1").is_ok())
        })?;
        Ok(database)
    }

    /// Statements of the administrator.
    fn ask(&self, sql: &str) -> Result<()> {
        let port = self.port.to_string();
        let mut client = match self.kind {
            Kind::Postgres => {
                let mut client = postgres("psql")?;
                client.args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "till",
                    "-d",
                    "postgres",
                    "-c",
                    sql,
                ]);
                client.args(["-v", "ON_ERROR_STOP=1"]).env("PGPASSWORD", PASSWORD);
                client
            }
            Kind::Maria => {
                let mut client = Command::new("mariadb");
                client.args([
                    "--no-defaults",
                    "-h",
                    "127.0.0.1",
                    "-P",
                    &port,
                    "-u",
                    "till",
                    "postgres",
                    "-e",
                    sql,
                ]);
                client.env("MYSQL_PWD", PASSWORD);
                client
            }
        };
        let done = client.current_dir(&self.place).output()?;
        ensure!(
            done.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }

    /// A source's address and secret for the account that may only look.
    fn grant(&self) -> String {
        let kind = if self.kind == Kind::Postgres {
            "postgres"
        } else {
            "mysql"
        };
        let secret = self.place.join("secret");
        format!(
            "database = \"{kind}://tillwatch@127.0.0.1:{}/postgres\"\nsecret_file = {secret:?}\ninterval_min = \"1s\"\n",
            self.port
        )
    }
}

/// Of the newest server that is installed.
fn postgres(name: &str) -> Result<Command> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.map(|version| version.path().join("bin").join(name)).max();
    Ok(Command::new(
        newest.context("hint: cargo xtask test installs postgresql")?,
    ))
}

fn as_nobody(command: &mut Command) -> &mut Command {
    match rustix::process::geteuid().is_root() {
        true => command.uid(NOBODY).gid(NOBODY),
        false => command,
    }
}

fn own(path: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

/// `account` makes one that may look, `age` is how old the oldest message is, `after` the parameter of a query.
fn watch(kind: Kind, account: &str, age: &str, after: &str) -> Result<()> {
    let place = tempfile::tempdir()?;
    let database = Database::start(kind, place.path())?;
    database.ask("CREATE TABLE outbox (id BIGINT PRIMARY KEY, created_at TIMESTAMP NULL, sent_at TIMESTAMP NULL)")?;
    database
        .ask("CREATE TABLE sale (id BIGINT PRIMARY KEY, sold_at TIMESTAMP, total DECIMAL(12,2), till VARCHAR(9))")?;
    database.ask(account)?;
    database.ask("INSERT INTO outbox VALUES (1, now(), NULL), (2, now(), NULL), (3, now(), now())")?;
    let outbox = format!(
        "[plugin.sources.outbox]\n{}query = \"SELECT count(*), coalesce({age}, 0) FROM outbox WHERE sent_at IS NULL\"\n\
         columns = [\"depth integer\", \"age real\"]",
        database.grant()
    );
    let settings = "system = \"sql\"\nqueue = \"mainframe\"\nfield_queue = \"\"\nfield_oldest_age = \"age\"";
    let mut queue = Watch::start(place.path(), "outbox", &outbox, settings)?;
    let (time, total) = match kind {
        Kind::Postgres => ("sold_at::text", "total::text"),
        Kind::Maria => ("CAST(sold_at AS CHAR)", "CAST(total AS CHAR)"),
    };
    let query = format!(
        "[plugin.sources.query]\n{}query = \"SELECT id, {time}, {total}, till FROM sale WHERE id > {after} ORDER BY id\"\n\
         columns = [\"id integer\", \"time text\", \"total text\", \"till text\"]\ncursor = \"id\"\nrows_max = 7",
        database.grant()
    );
    let settings = "field_items = \"\"\nfield_tender = \"\"\nfield_lane = \"till\"\ncursor_overlap = 5";
    let mut sales = Watch::start_plugin("sales", place.path(), "sales", &query, settings)?;

    queue.wait_for("queue.depth", "mainframe", 2.0)?;
    database.ask("UPDATE outbox SET sent_at = now() WHERE id = 1")?;
    queue.wait_for("queue.depth", "mainframe", 1.0)?;
    database.ask("UPDATE outbox SET sent_at = now()")?;
    queue.wait_for("queue.depth", "mainframe", 0.0)?;
    queue.wait_for("queue.oldest_age", "mainframe", 0.0)?;
    queue.wait_for("source.up", "", 1.0)?;

    // More than a page, then one whose key is smaller, as of a transaction that is committed late.
    let rows: Vec<String> = (10..40)
        .map(|id| format!("({id}, now(), {id}.01, 'T{}')", id % 3))
        .collect();
    database.ask(&format!("INSERT INTO sale VALUES {}", rows.join(",")))?;
    let minor = (10..40).map(|id| f64::from(id * 100 + 1)).sum::<f64>();
    sales.wait_for_sum("sales.amount", "", minor)?;
    database.ask("INSERT INTO sale VALUES (41, now(), -3.50, 'T1')")?;
    sales.wait_for_sum("sales.amount", "", minor - 350.0)?;
    database.ask("INSERT INTO sale VALUES (40, now(), 1000000.99, 'T2')")?;
    let minor = minor - 350.0 + 100_000_099.0;
    sales.wait_for_sum("sales.amount", "", minor)?;
    database.ask("INSERT INTO sale VALUES (42, now(), 0.01, 'T2')")?;
    sales.wait_for_sum("sales.amount", "", minor + 1.0)?;
    let values = sales.values()?;
    let counts = ["sales.transactions", "sales.returns", "sales.duplicates"].map(|metric| sum(&values, metric, ""));
    ensure!(
        counts
            .iter()
            .zip([33.0, 1.0, 0.0])
            .all(|(is, should)| (is - should).abs() < 1e-9),
        "{counts:?}"
    );

    drop(database);
    queue.wait_for("source.up", "", 0.0)
}

#[test]
fn an_outbox_and_sales_in_a_real_postgresql_are_what_they_are() -> Result<()> {
    watch(
        Kind::Postgres,
        &format!(
            "CREATE ROLE tillwatch LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT (created_at, sent_at) ON outbox TO tillwatch; \
             GRANT SELECT (id, sold_at, total, till) ON sale TO tillwatch; ALTER ROLE tillwatch SET default_transaction_read_only = on"
        ),
        "extract(epoch FROM now() - min(created_at))::float8",
        "$1",
    )
}

#[test]
fn an_outbox_and_sales_in_a_real_mariadb_are_what_they_are() -> Result<()> {
    watch(
        Kind::Maria,
        &format!(
            "CREATE USER 'tillwatch'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; \
             GRANT SELECT (created_at, sent_at) ON postgres.outbox TO 'tillwatch'@'127.0.0.1'; \
             GRANT SELECT (id, sold_at, total, till) ON postgres.sale TO 'tillwatch'@'127.0.0.1'"
        ),
        "timestampdiff(SECOND, min(created_at), now())",
        "?",
    )
}
