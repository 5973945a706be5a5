//! A real MariaDB server, and servers that say what they should not: what is read of them, and what they never get.

use super::super::super::place::Place;
use super::super::{ColumnType, CursorGrant, Database, Query};
use super::*;
use std::io::{Read, Write};
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

/// A real server with an administrator `till`, a reader `tillwatch` and TLS, gone at the end.
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

/// As nobody when this is root; Debian keeps servers beside the PATH of those who are not.
fn program(name: &str, folder: &Path) -> Command {
    let server = Path::new("/usr/sbin").join(name);
    let mut command = Command::new(if server.is_file() { server } else { name.into() });
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

/// With the rights that OPERATIONS.md names.
const ACCOUNTS: &str = "CREATE DATABASE pos;
CREATE USER 'till'@'127.0.0.1' IDENTIFIED BY 'open sesame';
GRANT ALL PRIVILEGES ON *.* TO 'till'@'127.0.0.1' WITH GRANT OPTION;
CREATE USER 'tillwatch'@'127.0.0.1' IDENTIFIED BY 'open sesame' REQUIRE SSL WITH MAX_USER_CONNECTIONS 4;
";

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
    write("accounts.sql", ACCOUNTS);
    let mut install = program("mariadb-install-db", folder.path());
    install.args([
        "--no-defaults",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]);
    install.arg(format!("--datadir={}", folder.path().join("data").display()));
    install.args(SMALL);
    let installed = install.status().expect("hint: apt-get install -y mariadb-server");
    assert!(installed.success());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut running = Running {
        child: serve(folder.path(), port),
        folder,
        port,
    };
    running.wait();
    running
}

const SMALL: [&str; 4] = [
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
];

fn serve(folder: &Path, port: u16) -> Child {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut mariadbd = program("mariadbd", folder);
    mariadbd.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    mariadbd.args(SMALL);
    mariadbd.args([
        format!("--datadir={}", file("data")),
        format!("--socket={}", file("socket")),
        format!("--port={port}"),
        format!("--ssl-cert={}", file("server.pem")),
        format!("--ssl-key={}", file("server.key")),
        "--secure-file-priv=".to_owned(),
    ]);
    if folder.join("accounts.sql").exists() {
        mariadbd.arg(format!("--init-file={}", file("accounts.sql")));
    }
    mariadbd.spawn().expect("hint: apt-get install -y mariadb-server")
}

impl Running {
    fn wait(&mut self) {
        let begun = Instant::now();
        while Query::new(self.grant("SELECT 1")).run(None, TIMEOUT).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(std::fs::remove_file(self.file("accounts.sql")));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A query without a cursor, of one column of integers.
    fn grant(&self, query: &str) -> SqlGrant {
        SqlGrant {
            database: Database::Mysql(Server {
                place: Place {
                    host: "127.0.0.1".to_owned(),
                    port: self.port,
                    addresses: Vec::new(),
                },
                user: "till".to_owned(),
                name: "pos".to_owned(),
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

    /// As somebody else.
    fn as_user(&self, user: &str, grant: SqlGrant) -> Result<Table, PeerError> {
        let mut grant = grant;
        if let Database::Mysql(server) = &mut grant.database {
            user.clone_into(&mut server.user);
        }
        Query::new(grant).run(None, TIMEOUT)
    }

    fn integers(&self, query: &str) -> Vec<Option<i64>> {
        integers(&Query::new(self.grant(query)).run(None, TIMEOUT).unwrap(), 0)
    }

    fn error(&self, query: &str) -> PeerError {
        Query::new(self.grant(query)).run(None, TIMEOUT).unwrap_err()
    }

    /// As the till does, by the server's own client.
    fn write(&self, sql: &str) {
        let mut client = program("mariadb", self.folder.path());
        client.args(["--no-defaults", "--user=root", "--socket=socket", "pos", "-e", sql]);
        assert!(client.status().unwrap().success(), "{sql}");
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
    let mut server = start();
    server.write(
        "CREATE TABLE sale (id int PRIMARY KEY, total bigint, till varchar(40), weight double, at datetime, sum decimal(10, 2));
        INSERT INTO sale VALUES (1, 1995, 'till-1', 0.5, now(), 1), (2, NULL, 'till-2', 1, now(), 1), (3, 5, NULL, 2, now(), 1);",
    );
    types_and_cursor(&server);
    numbers(&server);
    writes(&server);
    bounds(&server);
    least_rights(&server);
    login(&server);
    restart(&mut server);
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
        ..server.grant("SELECT id, total, till, weight FROM sale WHERE id > ? ORDER BY id")
    };
    let mut query = Query::new(grant);
    let first = query.run(None, TIMEOUT).unwrap();
    assert_eq!((integers(&first, 0), first.more), (vec![Some(1), Some(2)], true));
    assert_eq!(integers(&first, 1), [Some(1995), None]);
    assert_eq!(first.columns[3].values, ColumnValues::Reals(vec![Some(0.5), Some(1.0)]));
    let rest = query.run(Some(Cursor::Integer(2)), TIMEOUT).unwrap();
    assert_eq!((integers(&rest, 0), rest.more), (vec![Some(3)], false));
    assert_eq!(rest.columns[2].values, ColumnValues::Texts(vec![None]));
    let by_text = SqlGrant {
        cursor: Some(CursorGrant {
            column: "n".to_owned(),
            start: Cursor::Text(String::new()),
        }),
        ..server.texts("SELECT till FROM sale WHERE till > ? ORDER BY till")
    };
    let after = Some(Cursor::Text("till-1".to_owned()));
    let table = Query::new(by_text).run(after, TIMEOUT).unwrap();
    assert_eq!(
        table.columns[0].values,
        ColumnValues::Texts(vec![Some("till-2".to_owned())])
    );
    for column in ["sum", "at"] {
        let cast = server.error(&format!("SELECT {column} FROM sale"));
        assert!(cast.why.contains(&format!("CAST({column} AS CHAR)")), "{cast}");
    }
    let typed = server.error("SELECT till FROM sale");
    assert!(typed.why.contains("holds a value that is no integer"), "{typed}");
    assert_eq!(
        server.error("SELECT id FROM sale WHERE id > ?").fault,
        PeerFault::Malformed
    );
}

/// Each type at its ends.
fn numbers(server: &Running) {
    server.write(
        "CREATE TABLE number (a tinyint, b tinyint unsigned, c smallint, d smallint unsigned, e mediumint,
            f mediumint unsigned, g int, h int unsigned, i bigint, j bigint unsigned, k year, l bool);
        INSERT INTO number VALUES (-128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295,
            -9223372036854775808, 9223372036854775807, 2026, true);",
    );
    for (column, expected) in [
        ("a", -128),
        ("b", 255),
        ("c", -32_768),
        ("d", 65_535),
        ("e", -8_388_608),
        ("f", 16_777_215),
        ("g", -2_147_483_648),
        ("h", 4_294_967_295),
        ("i", i64::MIN),
        ("j", i64::MAX),
        ("k", 2026),
        ("l", 1),
    ] {
        let query = format!("SELECT {column} FROM number");
        assert_eq!(server.integers(&query), [Some(expected)], "{column}");
    }
    let large = server.error("SELECT CAST(18446744073709551615 AS UNSIGNED)");
    assert!(large.why.contains("too large for an integer"), "{large}");
}

fn writes(server: &Running) {
    for wrong in [
        "INSERT INTO sale (id) VALUES (9) RETURNING id",
        "DELETE FROM sale RETURNING id",
    ] {
        assert_eq!(server.error(wrong).fault, PeerFault::Denied, "{wrong}");
    }
    let copied = server.file("data/copied");
    for wrong in [
        "CREATE TABLE other (n int)",
        "DROP TABLE sale",
        "UPDATE sale SET total = 0",
        "SET GLOBAL read_only = 1",
        "SET SESSION TRANSACTION READ WRITE",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE sale",
        &format!("SELECT 1 INTO OUTFILE '{}'", copied.display()),
        "SELECT 1; DELETE FROM sale",
        "CALL nothing()",
    ] {
        let fault = server.error(wrong).fault;
        assert!(
            matches!(fault, PeerFault::Denied | PeerFault::Malformed),
            "{wrong}: {fault:?}"
        );
    }
    assert_eq!(server.integers("SELECT count(*) FROM sale WHERE id < 9"), [Some(3)]);
    assert_eq!(server.integers("SELECT @@GLOBAL.read_only"), [Some(0)]);
    assert!(!copied.exists());
}

fn bounds(server: &Running) {
    let mut slow = server.grant("SELECT sleep(60)");
    slow.timeout = Duration::from_millis(200);
    let begun = Instant::now();
    assert_eq!(
        Query::new(slow).run(None, TIMEOUT).unwrap_err().fault,
        PeerFault::Timeout
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    let many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c";
    let many = Query::new(server.grant(many)).run(None, TIMEOUT).unwrap();
    assert_eq!((integers(&many, 0).len(), many.more), (1_000, true));
    let wide = server.texts("SELECT repeat('x', 40000) FROM sale");
    let table = Query::new(wide).run(None, TIMEOUT).unwrap();
    let ColumnValues::Texts(texts) = &table.columns[0].values else {
        panic!("it is text")
    };
    assert_eq!((texts.len(), table.more), (2, true));
    for bytes in [200_000, 10_000_000] {
        let huge = server.texts(&format!("SELECT repeat('x', {bytes})"));
        assert_eq!(
            Query::new(huge).run(None, TIMEOUT).unwrap_err().fault,
            PeerFault::TooLarge
        );
    }
    assert_eq!(server.error("GIVE 1").fault, PeerFault::Malformed);
}

/// As OPERATIONS.md says, word by word.
fn least_rights(server: &Running) {
    let query = || server.grant("SELECT count(id) FROM sale");
    assert_eq!(
        server.as_user("tillwatch", query()).unwrap_err().fault,
        PeerFault::Denied
    );
    server.write("GRANT SELECT (id, total) ON pos.sale TO 'tillwatch'@'127.0.0.1'");
    assert_eq!(integers(&server.as_user("tillwatch", query()).unwrap(), 0), [Some(3)]);
    let other = server.texts("SELECT till FROM sale");
    assert_eq!(server.as_user("tillwatch", other).unwrap_err().fault, PeerFault::Denied);
    server.write("REVOKE SELECT (id, total) ON pos.sale FROM 'tillwatch'@'127.0.0.1'");
    assert_eq!(
        server.as_user("tillwatch", query()).unwrap_err().fault,
        PeerFault::Denied
    );
}

fn login(server: &Running) {
    let with = |change: &dyn Fn(&mut Server)| {
        let mut grant = server.grant("SELECT 1");
        if let Database::Mysql(server) = &mut grant.database {
            change(server);
        }
        Query::new(grant).run(None, TIMEOUT).map(|table| integers(&table, 0))
    };
    let wrong = server.file("wrong");
    std::fs::write(&wrong, "close sesame").unwrap();
    let error = with(&|server| server.secret_file = Some(wrong.clone())).unwrap_err();
    assert!(
        error.fault == PeerFault::Denied && !error.why.contains("sesame"),
        "{error}"
    );
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    let error = with(&|server| server.ca = Some(wrong.clone())).unwrap_err();
    assert_eq!(error.fault, PeerFault::Untrusted, "{error}");
    assert_eq!(with(&|server| server.ca = None).unwrap(), [Some(1)]);
    let error = with(&|server| server.place.host = "LocalHost".to_owned()).unwrap_err();
    assert_eq!(error.fault, PeerFault::Denied, "{error}");
    let error = with(&|server| server.place.port = 1).unwrap_err();
    assert_eq!(error.fault, PeerFault::Unreachable);
}

/// A connection that the server had closed cost the next run.
fn restart(server: &mut Running) {
    let mut query = Query::new(server.grant("SELECT count(*) FROM sale WHERE id < 9"));
    assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(3)]);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    server.child = serve(server.folder.path(), server.port);
    server.wait();
    assert_eq!(integers(&query.run(None, TIMEOUT).unwrap(), 0), [Some(3)]);
}

/// A server that says these packets, one after each that it is told, and the bytes that it was told.
fn said(packets: Vec<Vec<u8>>) -> (PeerError, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let talking = std::thread::spawn(move || {
        let (mut stream, _client) = listener.accept().unwrap();
        let mut told = Vec::new();
        for packet in packets {
            stream.write_all(&packet).unwrap();
            let mut piece = [0; 4_096];
            match stream.read(&mut piece) {
                Ok(count) if count > 0 => told.extend_from_slice(&piece[..count]),
                _ => break,
            }
        }
        told
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "open sesame").unwrap();
    let server = Server {
        place: Place {
            host: "127.0.0.1".to_owned(),
            port,
            addresses: Vec::new(),
        },
        user: "till".to_owned(),
        name: "pos".to_owned(),
        secret_file: Some(folder.path().join("secret")),
        ca: None,
    };
    let grant = SqlGrant {
        database: Database::Mysql(server),
        query: "SELECT 1".to_owned(),
        columns: vec![("n".to_owned(), ColumnType::Integer)],
        cursor: None,
        rows_max: 1,
        table_bytes_max: 1_000,
        timeout: TIMEOUT,
        interval_min: Duration::ZERO,
    };
    let error = Query::new(grant).run(None, TIMEOUT).unwrap_err();
    (error, talking.join().unwrap())
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..3], &[sequence], payload].concat()
}

fn greeting(method: &str) -> Vec<u8> {
    let scramble = [b'x'; 20];
    let payload = [
        b"\x0a8.0.40\0",
        &[0; 4][..],
        &scramble[..8],
        &[0],
        &0xffff_u16.to_le_bytes(),
        &[45, 2, 0],
        &0xffff_u16.to_le_bytes(),
        &[21],
        &[0; 10],
        &scramble[8..],
        &[0],
        method.as_bytes(),
        &[0],
    ];
    packet(0, &payload.concat())
}

const OK: [u8; 7] = [0; 7];

/// In the clear nobody gets the password, whoever asks and however.
#[test]
fn a_server_that_asks_for_the_password_itself_does_not_get_it() {
    let asks: [Vec<Vec<u8>>; 4] = [
        vec![
            greeting("mysql_native_password"),
            packet(2, b"\xfemysql_clear_password\0"),
        ],
        vec![greeting("mysql_native_password"), packet(2, b"\xfedialog\0")],
        vec![greeting("mysql_native_password"), packet(2, b"\xfe")],
        vec![greeting("caching_sha2_password"), packet(2, &[1, 4])],
    ];
    for packets in asks {
        let (error, told) = said(packets);
        assert_eq!(error.fault, PeerFault::Denied, "{error}");
        assert!(memchr::memmem::find(&told, b"till\0").is_some());
        assert!(memchr::memmem::find(&told, b"open sesame").is_none());
    }
}

/// After the login, of which the session's three commands are part.
fn session() -> Vec<Vec<u8>> {
    let answers = [packet(2, &OK), packet(1, &OK), packet(1, &OK), packet(1, &OK)];
    [vec![greeting("mysql_native_password")], answers.to_vec()].concat()
}

/// The method of MySQL 8; MariaDB, which is the real server of these tests, has another one.
/// The proof was reckoned apart: SHA-256(password) XOR SHA-256(SHA-256(SHA-256(password)), scramble).
#[test]
fn a_login_by_caching_sha2_password_proves_the_password_and_goes_on() {
    const PROOF: &str = "7d6fcdd98337dbff75f8a47f40984b743313fc866b20bc57b3d18b36920ccb4b";
    let mut packets = session();
    let proved = [packet(2, &[1, 3]), packet(3, &OK)].concat();
    packets.splice(..2, [greeting("caching_sha2_password"), proved]);
    let (_cut_off, told) = said(packets);
    let told_hex: String = told.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(told_hex.contains(PROOF), "{told_hex}");
    assert!(memchr::memmem::find(&told, b"SELECT 1").is_some());
}

#[test]
fn what_a_server_says_is_bounded_before_it_is_read_and_no_file_is_ever_sent() {
    let (error, _told) = said(vec![vec![0xfe, 0xff, 0xff, 0]]);
    assert_eq!(error.fault, PeerFault::TooLarge, "{error}");
    let (error, _told) = said(vec![vec![0xff, 0xff, 0xff, 0]]);
    assert_eq!(error.fault, PeerFault::TooLarge, "{error}");
    let prepared = packet(1, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let described = [prepared, packet(2, b"x"), packet(3, b"\xfe")].concat();
    let mut packets = session();
    packets.extend([described, packet(1, b"\xfb/etc/passwd")]);
    let (error, told) = said(packets);
    assert_eq!(error.fault, PeerFault::Denied, "{error}");
    assert!(memchr::memmem::find(&told, b"SELECT 1").is_some());
    assert!(memchr::memmem::find(&told, b"root:").is_none());
}

/// Packets cut short and out of order are an error, and never a panic.
#[test]
fn no_bytes_break_what_reads_a_packet() {
    let whole = greeting("mysql_native_password");
    for cut in 0..whole.len() - 4 {
        let (error, _told) = said(vec![packet(0, &whole[4..4 + cut])]);
        assert!(
            matches!(error.fault, PeerFault::Malformed | PeerFault::Unreachable),
            "{cut}: {error}"
        );
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
        let columns = [
            column(&bytes),
            Ok(Column {
                kind: random.u8(..),
                is_unsigned: random.bool(),
            }),
        ];
        let columns: Vec<Column> = columns.into_iter().flatten().collect();
        drop(row(&bytes, &columns));
        drop(error_of(&bytes));
    }
    let (error, _told) = said(vec![packet(1, b"\x0a")]);
    assert_eq!(error.fault, PeerFault::Malformed, "{error}");
}
