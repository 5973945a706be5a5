//! `[plugin.sources.*]` of a peer over the network: where it is, what it may be asked, which secret the agent adds.
//!
//! In: a section of agent.toml. Out: a grant, or the problems with their places. It resolves and connects to nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tillwatch_border::{Cursor, Method};
use toml::Spanned;

use crate::config::units::{duration_ms, size_bytes};
use crate::config::written::{Mistake, Section};
use crate::source::peer::ASKS_PER_MINUTE_MAX;
use crate::source::peer::http::{BODY_BYTES_MAX, HttpGrant, Secret};
use crate::source::peer::place::{Network, Place};
use crate::source::peer::sql::{
    ColumnType, CursorGrant, Database, INTERVAL_MIN, ROWS_MAX, Server, SqlGrant, TABLE_BYTES_MAX,
};
use crate::source::peer::tcp::{Login, RECEIVE_BYTES_MAX, SECRET_MARK, SEND_BYTES_MAX, TcpGrant};

/// How long a peer may take.
const TIMEOUT_MS: u64 = 5_000;
const TIMEOUT_RANGE_MS: (u64, u64) = (10, 10_000);
const INTERVAL_RANGE_MS: (u64, u64) = (1, 86_400_000);
/// What one answer may hold at most.
const ANSWER_CEILING: u64 = 4 << 20;
const SEND_CEILING: u64 = 64 << 10;
const ROWS_CEILING: i64 = 100_000;
const ASKS_PER_MINUTE_CEILING: u32 = 6_000;

pub(super) fn http(section: &Section<'_>, base: &Path) -> Option<HttpGrant> {
    let url = section.required("url", "\"https://pos.store.example/health\"", parse_url);
    let addresses = addresses(section);
    let methods = methods(section);
    let headers = headers(section);
    let secret = secret(section, base);
    let ca = file(section, "ca", base);
    let timeout = timeout(section);
    let body_bytes_max = size(section, "body_max", BODY_BYTES_MAX, ANSWER_CEILING);
    let asks_per_minute_max = asks_per_minute(section);
    let url = url?;
    let place = Place {
        host: url.host,
        port: url.port,
        addresses,
    };
    if !url.is_secure && ca.is_some() {
        let what = "`ca` means nothing where no certificate is asked for";
        section.report_at("ca", what, "write https:// in url, or leave out ca");
    }
    if matches!(secret, Some(Secret::Body { .. })) && methods != [Method::Post] {
        let what = "`secret_pointer` means nothing to a GET, which has no body";
        section.report_at("secret_pointer", what, "write methods = [\"POST\"]");
    }
    if !url.is_secure && secret.is_some() && !place.is_loopback() {
        let what = "the secret would go in the clear to another machine";
        section.report_at("url", what, "write https://, or leave out secret_file");
    }
    Some(HttpGrant {
        place,
        is_secure: url.is_secure,
        path: url.path,
        methods,
        headers,
        secret,
        ca,
        timeout,
        body_bytes_max,
        asks_per_minute_max,
    })
}

pub(super) fn tcp(section: &Section<'_>, base: &Path) -> Option<TcpGrant> {
    let example = "\"printer.store.example:9100\"";
    let peer = section.required("peer", example, |text| {
        host_and_port(text, None)
            .ok_or_else(|| Mistake::new("names no host and port", format!("write peer = {example}")))
    });
    let addresses = addresses(section);
    let login = login(section, base);
    let timeout = timeout(section);
    let send = size(section, "send_max", SEND_BYTES_MAX, SEND_CEILING);
    let receive = size(section, "receive_max", RECEIVE_BYTES_MAX, ANSWER_CEILING);
    let asks_per_minute_max = asks_per_minute(section);
    let (host, port) = peer?;
    let place = Place { host, port, addresses };
    if login.is_some() && !place.is_loopback() {
        let what = "the secret would go in the clear to another machine";
        section.report_at("peer", what, "leave out login and secret_file");
    }
    Some(TcpGrant {
        place,
        login,
        timeout,
        send_bytes_max: to_usize(send),
        receive_bytes_max: to_usize(receive),
        asks_per_minute_max,
    })
}

pub(super) fn sql(section: &Section<'_>, base: &Path) -> Option<SqlGrant> {
    let database = database(section, base);
    let query = section.required("query", "\"SELECT count(*) FROM outbox\"", |text| {
        let hint = "write what the database is to be asked";
        match text.trim().is_empty() {
            true => Err(Mistake::new("is empty", hint)),
            false => Ok(text.to_owned()),
        }
    });
    let columns = columns(section);
    let cursor = cursor(section, &columns);
    let rows_max = section.integer("rows_max").map(|rows| {
        if !(1..=ROWS_CEILING).contains(rows.get_ref()) {
            section.report(
                rows.span(),
                "`rows_max` is out of range",
                format!("write 1 to {ROWS_CEILING}"),
            );
        }
        u64::try_from(rows.into_inner()).unwrap_or(ROWS_MAX)
    });
    let table_bytes_max = size(section, "bytes_max", TABLE_BYTES_MAX, ANSWER_CEILING);
    let timeout = timeout(section);
    let default = u64::try_from(INTERVAL_MIN.as_millis()).unwrap_or(u64::MAX);
    let interval_min = duration(section, "interval_min", default, INTERVAL_RANGE_MS);
    Some(SqlGrant {
        database: database?,
        query: query?,
        columns,
        cursor,
        rows_max: to_usize(rows_max.unwrap_or(ROWS_MAX)),
        table_bytes_max: to_usize(table_bytes_max),
        timeout,
        interval_min,
    })
}

struct Url {
    is_secure: bool,
    host: String,
    port: u16,
    path: String,
}

fn parse_url(text: &str) -> Result<Url, Mistake> {
    let example = "write \"https://pos.store.example:8443/health\"; what ends with / may be followed by more";
    let (rest, is_secure) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return Err(Mistake::new("begins with neither https:// nor http://", example)),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => {
            let hint = "write the path, such as https://pos.store.example/health; / alone grants all of them";
            return Err(Mistake::new("has no path", hint));
        }
    };
    if authority.contains('@') {
        return Err(Mistake::new(
            "holds a name or password",
            "write basic_user and secret_file instead",
        ));
    }
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let (host, port) = host_and_port(authority, Some(if is_secure { 443 } else { 80 }))
        .filter(|_place| is_plain)
        .ok_or_else(|| Mistake::new("names no host, or no valid port or path", example))?;
    let path = path.to_owned();
    Ok(Url {
        is_secure,
        host,
        port,
        path,
    })
}

/// `host:port`, `host` when there is a port to fall back to, `[::1]:port`.
fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, default?),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let host = if is_bracketed { &host[1..host.len() - 1] } else { host };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || (is_bracketed && byte == b':');
    (!host.is_empty() && port != 0 && host.bytes().all(is_host)).then(|| (host.to_owned(), port))
}

fn addresses(section: &Section<'_>) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in section
        .strings("addresses")
        .map(Spanned::into_inner)
        .unwrap_or_default()
    {
        match text.get_ref().parse() {
            Ok(network) => networks.push(network),
            Err(()) => section.report(
                text.span(),
                format!("{:?} is no address and no network", text.get_ref()),
                "write \"10.20.0.5\" or \"10.20.0.0/16\"",
            ),
        }
    }
    networks
}

fn methods(section: &Section<'_>) -> Vec<Method> {
    let Some(methods) = section.strings("methods") else {
        return vec![Method::Get];
    };
    if methods.get_ref().is_empty() {
        section.report(
            methods.span(),
            "`methods` grants none",
            "write [\"GET\"], or leave it out",
        );
    }
    let mut granted = Vec::new();
    for method in methods.into_inner() {
        match method.get_ref().as_str() {
            "GET" => granted.push(Method::Get),
            "POST" => granted.push(Method::Post),
            other => section.report(
                method.span(),
                format!("method {other:?} cannot be granted"),
                "write \"GET\" or \"POST\"",
            ),
        }
    }
    granted
}

fn headers(section: &Section<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for header in section.strings("headers").map(Spanned::into_inner).unwrap_or_default() {
        match header.get_ref().split_once(": ") {
            Some((name, value)) if is_header_name(name) && !value.contains(char::is_control) => {
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
            _ => section.report(
                header.span(),
                "it is no header that may be added",
                "write \"name: value\"; secrets belong into secret_file",
            ),
        }
    }
    headers
}

/// Headers that frame a request are the library's.
fn is_header_name(name: &str) -> bool {
    const FRAMING: [&str; 6] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "expect",
    ];
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token) && !FRAMING.contains(&name.to_ascii_lowercase().as_str())
}

fn secret(section: &Section<'_>, base: &Path) -> Option<Secret> {
    let text = |key| section.string(key).map(Spanned::into_inner);
    let places = (text("basic_user"), text("secret_header"), text("secret_pointer"));
    match (places, file(section, "secret_file", base)) {
        ((None, None, None), None) => None,
        ((Some(user), None, None), Some(file)) if !user.contains(':') => Some(Secret::Basic { user, file }),
        ((None, Some(name), None), Some(file)) if is_header_name(&name) => Some(Secret::Header {
            name: name.to_ascii_lowercase(),
            file,
        }),
        ((None, None, Some(pointer)), Some(file)) if pointer.starts_with('/') => Some(Secret::Body { pointer, file }),
        _ => {
            let what =
                "`secret_file` needs one of `basic_user`, `secret_header` and `secret_pointer`, and they need it";
            let hint = "write secret_header = \"authorization\", the name of the user, or a JSON pointer into the body";
            section.report(section.span(), what, hint);
            None
        }
    }
}

fn login(section: &Section<'_>, base: &Path) -> Option<Login> {
    let text = |key| section.string(key).map(Spanned::into_inner);
    match (text("login"), text("login_answer"), file(section, "secret_file", base)) {
        (None, None, None) => None,
        (Some(say), Some(answer), Some(file)) if say.matches(SECRET_MARK).count() == 1 && !answer.is_empty() => {
            Some(Login { say, answer, file })
        }
        _ => {
            let what = "`login`, `login_answer` and `secret_file` need each other, and `login` a place for the secret";
            let hint = "write login = \"AUTH tillwatch {secret}\\r\\n\" and login_answer = \"+OK\\r\\n\"";
            section.report(section.span(), what, hint);
            None
        }
    }
}

fn database(section: &Section<'_>, base: &Path) -> Option<Database> {
    let database = section.required("database", "\"sqlite:/var/pos/pos.db\"", |text| {
        let (database, is_built_in) = parse_database(text, base).ok_or_else(|| {
            let example =
                "write \"sqlite:/var/pos/pos.db\", \"postgres://user@host/name\" or \"mysql://user@host/name\"";
            Mistake::new("is no database that can be asked", example)
        })?;
        if !is_built_in {
            let hint = "install a tillwatch that was built with the feature of its name";
            return Err(Mistake::new("is of a kind that this tillwatch was built without", hint));
        }
        Ok(database)
    })?;
    Some(match database {
        Database::Sqlite(file) => Database::Sqlite(file),
        Database::Postgres(server) => Database::Postgres(trusted(section, base, server)?),
        Database::Mysql(server) => Database::Mysql(trusted(section, base, server)?),
    })
}

/// And whether this program can ask it.
fn parse_database(text: &str, base: &Path) -> Option<(Database, bool)> {
    let (kind, rest) = text.split_once(':')?;
    Some(match (kind, rest.strip_prefix("//")) {
        ("sqlite", _) if !rest.is_empty() => (Database::Sqlite(base.join(rest)), cfg!(feature = "sqlite")),
        ("postgres", Some(rest)) => (Database::Postgres(server(rest, 5432)?), cfg!(feature = "postgres")),
        ("mysql", Some(rest)) => (Database::Mysql(server(rest, 3306)?), cfg!(feature = "mysql")),
        _ => return None,
    })
}

/// With its secret and the authority that it is known by.
fn trusted(section: &Section<'_>, base: &Path, mut server: Server) -> Option<Server> {
    server.secret_file = file(section, "secret_file", base);
    server.ca = file(section, "ca", base);
    server.place.addresses = addresses(section);
    if server.ca.is_none() && !server.place.is_loopback() {
        let what = "`database` would send store data without TLS to another machine";
        section.report(section.span(), what, "add ca = \"/etc/tillwatch/database-ca.pem\"");
        return None;
    }
    Some(server)
}

/// `user@host:port/name`; a password is no part of it.
fn server(text: &str, port: u16) -> Option<Server> {
    let (user, rest) = text.split_once('@')?;
    let (authority, name) = rest.split_once('/')?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let (host, port) = host_and_port(authority, Some(port)).filter(|_place| is_name(user) && is_name(name))?;
    Some(Server {
        place: Place {
            host,
            port,
            addresses: Vec::new(),
        },
        user: user.to_owned(),
        name: name.to_owned(),
        secret_file: None,
        ca: None,
    })
}

fn columns(section: &Section<'_>) -> Vec<(String, ColumnType)> {
    let Some(written) = section.strings("columns") else {
        if section.value("columns").is_none() {
            section.report_missing("columns", "[\"id integer\", \"till text\"]");
        }
        return Vec::new();
    };
    if written.get_ref().is_empty() {
        section.report(
            written.span(),
            "`columns` names none",
            "write [\"id integer\", \"till text\"]",
        );
    }
    let mut columns: Vec<(String, ColumnType)> = Vec::new();
    for column in written.into_inner() {
        let (name, kind) = column.get_ref().split_once(' ').unwrap_or((column.get_ref(), ""));
        let kind = match kind {
            "integer" => ColumnType::Integer,
            "real" => ColumnType::Real,
            "text" => ColumnType::Text,
            _ => {
                let hint = "write its name and integer, real or text, such as \"total integer\"";
                section.report(column.span(), format!("{:?} is no column", column.get_ref()), hint);
                continue;
            }
        };
        if columns.iter().any(|(known, _kind)| known == name) {
            section.report(
                column.span(),
                format!("column {name:?} is there twice"),
                "name each once",
            );
        }
        columns.push((name.to_owned(), kind));
    }
    columns
}

fn cursor(section: &Section<'_>, columns: &[(String, ColumnType)]) -> Option<CursorGrant> {
    let start = section.string("cursor_start");
    if start.is_some() && section.value("cursor").is_none() {
        let what = "`cursor_start` means nothing without `cursor`";
        section.report_at("cursor_start", what, "add cursor with the name of the column");
    }
    let column = section.string("cursor")?;
    let kind = columns
        .iter()
        .find(|(name, _kind)| name == column.get_ref())
        .map(|(_name, kind)| *kind);
    let start = start.as_ref().map(|start| start.get_ref().as_str());
    let start = match kind {
        Some(ColumnType::Integer) => start.unwrap_or("0").parse().ok().map(Cursor::Integer),
        Some(ColumnType::Text) => Some(Cursor::Text(start.unwrap_or_default().to_owned())),
        Some(ColumnType::Real) | None => None,
    };
    let Some(start) = start else {
        let hint = "name a column of integers or text, and where it begins as text: cursor_start = \"0\"";
        section.report(
            column.span(),
            "`cursor` is none of the columns, or does not begin so",
            hint,
        );
        return None;
    };
    Some(CursorGrant {
        column: column.into_inner(),
        start,
    })
}

fn file(section: &Section<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    Some(base.join(section.string(key)?.into_inner()))
}

fn timeout(section: &Section<'_>) -> Duration {
    duration(section, "timeout", TIMEOUT_MS, TIMEOUT_RANGE_MS)
}

fn duration(section: &Section<'_>, key: &str, default_ms: u64, range_ms: (u64, u64)) -> Duration {
    let ms = section.in_range(key, duration_ms, default_ms, range_ms, "ms");
    Duration::from_millis(ms)
}

fn asks_per_minute(section: &Section<'_>) -> u32 {
    let Some(asks) = section.integer("asks_per_minute_max") else {
        return ASKS_PER_MINUTE_MAX;
    };
    let within = u32::try_from(*asks.get_ref()).ok();
    within
        .filter(|asks| (1..=ASKS_PER_MINUTE_CEILING).contains(asks))
        .unwrap_or_else(|| {
            let hint = format!("write 1 to {ASKS_PER_MINUTE_CEILING}");
            section.report(asks.span(), "`asks_per_minute_max` is out of range", hint);
            ASKS_PER_MINUTE_MAX
        })
}

fn size(section: &Section<'_>, key: &str, default: u64, ceiling: u64) -> u64 {
    section.in_range(key, size_bytes, default, (1, ceiling), "B")
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::written::{Reporter, parse};

    fn read<T>(text: &str, read: impl FnOnce(&Section<'_>) -> Option<T>) -> (Option<T>, Vec<String>) {
        let reporter = Reporter::new(Path::new("agent.toml"), text);
        let root = parse(text, &reporter);
        let section = Section::root(&root, &reporter);
        let grant = read(&section);
        section.finish();
        let problems = reporter.into_problems().0;
        (grant, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_endpoint_is_granted_whole_and_with_defaults() {
        let text = "url = \"https://pos.example/api/\"\nsecret_header = \"X-Key\"\nsecret_file = \"key\"\n\
                    addresses = [\"10.0.0.0/8\"]\nheaders = [\"X-Site: 1\"]";
        let (grant, problems) = read(text, |section| http(section, Path::new("/base")));
        assert_eq!(problems, Vec::<String>::new());
        let grant = grant.unwrap();
        assert_eq!(
            (grant.place.port, grant.path.as_str(), grant.methods.as_slice()),
            (443, "/api/", &[Method::Get][..])
        );
        assert_eq!(grant.timeout, Duration::from_millis(TIMEOUT_MS));
        let file = PathBuf::from("/base/key");
        assert_eq!(
            grant.secret,
            Some(Secret::Header {
                name: "x-key".to_owned(),
                file
            })
        );
        assert_eq!(grant.headers, [("x-site".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_secret_belongs_into_a_body_or_before_an_exchange_where_the_operator_says() {
        let text = "url = \"http://localhost/jsonrpc\"\nmethods = [\"POST\"]\nsecret_pointer = \"/params/args/2\"\nsecret_file = \"key\"";
        let (grant, problems) = read(text, |section| http(section, Path::new("/base")));
        assert_eq!(problems, Vec::<String>::new());
        let (pointer, file) = ("/params/args/2".to_owned(), PathBuf::from("/base/key"));
        assert_eq!(
            grant.unwrap().secret,
            Some(Secret::Body {
                pointer,
                file: file.clone()
            })
        );
        let text = "peer = \"localhost:6379\"\nlogin = \"AUTH till {secret}\\r\\n\"\nlogin_answer = \"+OK\\r\\n\"\nsecret_file = \"key\"";
        let (grant, problems) = read(text, |section| tcp(section, Path::new("/base")));
        assert_eq!(problems, Vec::<String>::new());
        let (say, answer) = ("AUTH till {secret}\r\n".to_owned(), "+OK\r\n".to_owned());
        assert_eq!(grant.unwrap().login, Some(Login { say, answer, file }));
        for (wrong, expected) in [
            (
                text.replace("localhost", "redis.example"),
                "in the clear to another machine",
            ),
            (text.replace("{secret}", "word"), "need each other"),
            (text.replace("login_answer", "#"), "need each other"),
            (text.replace("secret_file", "#"), "need each other"),
        ] {
            let (_grant, problems) = read(&wrong, |section| tcp(section, Path::new("/")));
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{wrong}: {problems:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_grant_is_told_with_what_to_write() {
        let told = |text: &str, expected: &str| {
            let kind = if text.contains("database") { "sql" } else { "http" };
            let (_grant, problems) = match kind {
                "sql" => read(text, |section| sql(section, Path::new("/")).map(drop)),
                _ => read(text, |section| http(section, Path::new("/")).map(drop)),
            };
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected}: {problems:?}"
            );
        };
        let url = "url = \"http://a.example/\"\n";
        told("", "`url` is missing");
        told("url = \"ftp://a.example\"", "begins with neither https");
        told(
            "url = \"http://user:word@a.example/\"",
            "write basic_user and secret_file",
        );
        told("url = \"http://:80/\"", "names no host");
        told("url = \"http://a.example\"", "write the path");
        told("url = \"http://a.example?x=/\"", "names no host");
        let secret = "secret_header = \"x-key\"\nsecret_file = \"key\"";
        told(&format!("{url}{secret}"), "would go in the clear to another machine");
        told(&format!("{url}ca = \"ca.pem\""), "`ca` means nothing where");
        told(&format!("{url}methods = []"), "`methods` grants none");
        told(&format!("{url}asks_per_minute_max = 0"), "write 1 to 6000");
        told(&format!("{url}asks_per_minute_max = 6001"), "write 1 to 6000");
        told(
            &format!("{url}addresses = [\"::ffff:10.0.0.0/104\"]"),
            "is no address and no network",
        );
        told(
            &format!("{url}methods = [\"DELETE\"]"),
            "method \"DELETE\" cannot be granted",
        );
        told(&format!("{url}timeout = \"1h\""), "write 10ms to 10000ms");
        told(&format!("{url}body_max = \"1GiB\""), "`body_max` is out of range");
        told(
            &format!("{url}headers = [\"Host: b\"]"),
            "it is no header that may be added",
        );
        told(&format!("{url}secret_file = \"x\""), "needs one of `basic_user`");
        told(&format!("{url}addresses = [\"store\"]"), "is no address and no network");
        let local = "url = \"http://localhost/\"\nsecret_file = \"x\"\nsecret_pointer = ";
        told(&format!("{local}\"/key\""), "means nothing to a GET");
        told(&format!("{local}\"key\""), "needs one of `basic_user`");
        let query = "query = \"SELECT 1\"\ncolumns = [\"n integer\"]\n";
        told(
            &format!("database = \"sqlite\"\n{query}"),
            "is no database that can be asked",
        );
        told(
            &format!("database = \"sqlite:x\"\ncursor = \"m\"\n{query}"),
            "`cursor` is none of the columns",
        );
        told(
            "database = \"sqlite:x\"\nquery = \"\"\ncolumns = []",
            "`columns` names none",
        );
        told(
            "database = \"sqlite:x\"\nquery = \"\"\ncolumns = [\"n number\"]",
            "\"n number\" is no column",
        );
        let sql = "database = \"sqlite:x\"\nquery = \"SELECT 1\"\n";
        told(
            "database = \"sqlite:x\"\nquery = \" \"\ncolumns = [\"n integer\"]",
            "`query` is empty",
        );
        told(&format!("{sql}columns = []"), "`columns` names none");
        told(
            &format!("{sql}columns = [\"n integer\", \"n text\"]"),
            "column \"n\" is there twice",
        );
        told(
            &format!("database = \"sqlite:x\"\ncursor_start = \"3\"\n{query}"),
            "means nothing without `cursor`",
        );
    }

    /// On its way to this machine nobody reads it.
    #[test]
    fn a_secret_goes_in_the_clear_to_this_machine_only() {
        let secret = "secret_header = \"x-key\"\nsecret_file = \"key\"";
        let problems = |url: &str| {
            read(&format!("url = {url:?}\n{secret}"), |section| {
                http(section, Path::new("/"))
            })
            .1
        };
        for url in [
            "http://localhost/a",
            "http://127.0.0.1:8080/a",
            "http://[::1]/a",
            "https://a.example/a",
        ] {
            assert_eq!(problems(url), Vec::<String>::new(), "{url}");
        }
        for url in ["http://10.0.0.1/a", "http://localhost.example/a", "http://LOCALHOST/a"] {
            assert!(problems(url)[0].contains("in the clear"), "{url}");
        }
    }

    #[cfg(all(feature = "postgres", feature = "mysql"))]
    #[test]
    fn a_server_is_granted_with_tls_and_without_a_password_in_its_address() {
        let rest = "query = \"SELECT 1\"\ncolumns = [\"n integer\"]\n";
        let read = |text: &str| read(&format!("{text}\n{rest}"), |section| sql(section, Path::new("/base")));
        let (grant, problems) =
            read("database = \"postgres://till@db.example:6432/pos\"\nca = \"ca.pem\"\nsecret_file = \"key\"");
        assert_eq!(problems, Vec::<String>::new());
        let Database::Postgres(server) = grant.unwrap().database else {
            panic!("it is one")
        };
        assert_eq!(
            (server.place.port, server.user.as_str(), server.name.as_str()),
            (6432, "till", "pos")
        );
        assert_eq!(server.ca, Some(PathBuf::from("/base/ca.pem")));
        let (grant, problems) = read("database = \"postgres://till@db.example/pos\"");
        assert!(
            grant.is_none() && problems[0].contains("without TLS to another machine"),
            "{problems:?}"
        );
        let (grant, problems) = read("database = \"postgres://till:word@localhost/pos\"");
        assert!(
            grant.is_none() && problems[0].contains("is no database that can be asked"),
            "{problems:?}"
        );
        assert!(read("database = \"postgres://till@localhost/pos\"").0.is_some());
        let (grant, problems) = read("database = \"mysql://till@db.example/pos\"\nca = \"ca.pem\"");
        assert_eq!(problems, Vec::<String>::new());
        let Database::Mysql(server) = grant.unwrap().database else {
            panic!("it is one")
        };
        assert_eq!((server.place.port, server.name.as_str()), (3306, "pos"));
        assert!(read("database = \"mysql://till@db.example/pos\"").0.is_none());
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_query_has_its_columns_in_order_and_a_cursor() {
        let text = "database = \"sqlite:pos.db\"\nquery = \"SELECT id, total FROM sale WHERE id > ?1\"\n\
                    columns = [\"id integer\", \"total real\"]\ncursor = \"id\"\ncursor_start = \"7\"";
        let (grant, problems) = read(text, |section| sql(section, Path::new("/base")));
        assert_eq!(problems, Vec::<String>::new());
        let grant = grant.unwrap();
        assert_eq!(grant.database, Database::Sqlite(PathBuf::from("/base/pos.db")));
        assert_eq!(grant.columns[1], ("total".to_owned(), ColumnType::Real));
        assert_eq!(grant.cursor.unwrap().start, Cursor::Integer(7));
    }

    #[test]
    fn hosts_and_ports_are_read_with_brackets_and_without() {
        let read = |text| host_and_port(text, Some(80));
        assert_eq!(read("a.example:81"), Some(("a.example".to_owned(), 81)));
        assert_eq!(read("[::1]:81"), Some(("::1".to_owned(), 81)));
        assert_eq!(read("[::1]"), Some(("::1".to_owned(), 80)));
        for wrong in [
            "",
            ":80",
            "a b:80",
            "a.example:0",
            "a.example:x",
            "::1:80",
            "a.example:80:80",
            "a@b:80",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
