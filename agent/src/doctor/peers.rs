//! Granted peers: each is asked once, as its plugin would be answered.
//!
//! An endpoint is asked for its granted path; where only POST is granted, and of a TCP peer, no more than a connection is
//! made; a query runs once from its start.

use jiff::fmt::rfc2822;
use tillwatch_border::{HttpRequest, HttpResponse, Method, PeerFault, Question, Reply, TcpRequest, TcpResponse};

use super::clocks::AHEAD_MS;
use super::finding::{Finding, Part, span};
use crate::config::written::split_hint;
use crate::source::machine_now_ms;
use crate::source::peer::http::HttpGrant;
use crate::source::peer::sql::{Database, SqlGrant};
use crate::source::peer::tcp::TcpGrant;
use crate::source::peer::{Peer, PeerError, PeerGrant};

pub(super) fn examine(part: Part, grant: &PeerGrant) -> Finding {
    let (asked, question) = question(grant);
    let timeout = asked.timeout();
    match Peer::open(&asked).ask(question, timeout) {
        Ok(reply) => answered(part, grant, &reply),
        Err((_failure, error)) => failed(part, grant, &error),
    }
}

/// What is asked, of an endpoint whose plugin only sends of the connection alone.
fn question(grant: &PeerGrant) -> (PeerGrant, Question) {
    let connection = || {
        Question::Tcp(TcpRequest {
            bytes: Vec::new(),
            until: Vec::new(),
            bytes_max: 0,
        })
    };
    match grant {
        PeerGrant::Http(http) if !http.methods.contains(&Method::Get) => {
            let place = TcpGrant {
                place: http.place.clone(),
                login: None,
                timeout: http.timeout,
                send_bytes_max: 0,
                receive_bytes_max: 0,
                asks_per_minute_max: http.asks_per_minute_max,
            };
            (PeerGrant::Tcp(place), connection())
        }
        PeerGrant::Http(_) => {
            let request = HttpRequest {
                method: Method::Get,
                path: String::new(),
                headers: Vec::new(),
                body: Vec::new(),
            };
            (grant.clone(), Question::Http(request))
        }
        PeerGrant::Tcp(_) => (grant.clone(), connection()),
        PeerGrant::Sql(_) => (grant.clone(), Question::Sql { after: None }),
    }
}

fn answered(part: Part, grant: &PeerGrant, reply: &Reply) -> Finding {
    let name = name_of(grant);
    match (grant, reply) {
        (PeerGrant::Http(http), Reply::Http(response)) => endpoint(part, &name, http, response),
        (_, Reply::Http(_)) => Finding::good(part, name),
        (_, Reply::Tcp(TcpResponse { connect_us, .. })) => {
            let took = ms(*connect_us);
            Finding::good(part, format!("{name}: takes a connection in {took}"))
        }
        (_, Reply::Sql(table)) => {
            let rows = table.columns.first().map_or(0, |column| column.values.len());
            let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            let took = ms(table.elapsed_us);
            Finding::good(
                part,
                format!("{name}: {rows} rows with {} in {took}", columns.join(", ")),
            )
        }
    }
}

fn endpoint(part: Part, name: &str, grant: &HttpGrant, response: &HttpResponse) -> Finding {
    let what = format!("{name}: answers {} in {}", response.status, ms(response.elapsed_us));
    let hint = match response.status {
        200..=299 => return clock_of(part, what, response),
        300..=399 => "redirects are not followed: write the url that it leads to",
        401 => "it does not know the account: compare basic_user or secret_header, and what is in secret_file",
        403 => "it knows the account, which may not read this: give it the right that the plugin's README names",
        404 | 405 if grant.path.ends_with('/') => {
            let hint = "the plugin asks below it: what it reports is said below";
            return Finding::note(part, what, hint);
        }
        404 | 405 => "nothing is there for GET: compare url with what the server offers",
        429 => "it is asked too often: raise `interval`, or lower asks_per_minute_max",
        500..=599 => "the server itself fails: read its log",
        _ => "compare url and headers with what the server expects",
    };
    Finding::bad(part, what, hint)
}

/// An answer says what the server takes for now.
fn clock_of(part: Part, what: String, response: &HttpResponse) -> Finding {
    let date = response.headers.iter().find(|(name, _value)| name == "date");
    let theirs = date.and_then(|(_name, value)| rfc2822::parse(value).ok());
    let theirs_ms = theirs.and_then(|time| u64::try_from(time.timestamp().as_millisecond()).ok());
    let off_ms = theirs_ms.map_or(0, |theirs_ms| theirs_ms.abs_diff(machine_now_ms()));
    if off_ms <= AHEAD_MS {
        return Finding::good(part, what);
    }
    let what = format!("{what}; its clock and this one differ by {}", span(off_ms));
    Finding::note(part, what, "set the wrong one, and have both follow a time server")
}

fn failed(part: Part, grant: &PeerGrant, error: &PeerError) -> Finding {
    let (why, told) = split_hint(&error.why);
    let hint = told.unwrap_or_else(|| hint(grant, error.fault).to_owned());
    Finding::bad(part, format!("{}: {}: {why}", name_of(grant), error.fault.name()), hint)
}

fn hint(grant: &PeerGrant, fault: PeerFault) -> &'static str {
    match (fault, grant) {
        (PeerFault::Unreachable, PeerGrant::Sql(_)) => {
            "start it, or correct `database`; if it refuses the login, compare its user and secret_file"
        }
        (PeerFault::Unreachable, _) => "start it, or correct its host and port",
        (PeerFault::Untrusted, _) => {
            "write ca = the certificate that signed the server's, and the host name that is in it"
        }
        (PeerFault::Timeout, _) => {
            "it may be down, or a firewall drops what is sent; raise `timeout` when it is only slow"
        }
        (PeerFault::TooLarge, PeerGrant::Sql(_)) => "raise bytes_max, or ask for less",
        (PeerFault::TooLarge, _) => "raise body_max or receive_max, or grant a narrower path",
        (PeerFault::Malformed, PeerGrant::Sql(_)) => {
            "compare the query and its columns with the tables, and the account's rights: SELECT on them is enough"
        }
        (PeerFault::Malformed, _) => "it does not speak what was granted: compare scheme and port",
        (PeerFault::Denied | PeerFault::Unknown, _) => "change [plugin.sources.NAME], or the file that it names",
        (PeerFault::TooSoon | PeerFault::Exhausted, _) => "try again in a minute",
    }
}

fn name_of(grant: &PeerGrant) -> String {
    match grant {
        PeerGrant::Http(HttpGrant {
            place, is_secure, path, ..
        }) => {
            let scheme = if *is_secure { "https" } else { "http" };
            format!("{scheme}://{place}{path}")
        }
        PeerGrant::Tcp(TcpGrant { place, .. }) => place.to_string(),
        PeerGrant::Sql(SqlGrant { database, .. }) => match database {
            Database::Sqlite(file) => format!("sqlite:{}", file.display()),
            Database::Postgres(server) => format!("postgres://{}@{}/{}", server.user, server.place, server.name),
            Database::Mysql(server) => format!("mysql://{}@{}/{}", server.user, server.place, server.name),
        },
    }
}

fn ms(elapsed_us: u64) -> String {
    format!("{} ms", elapsed_us.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;
    use crate::source::peer::place::Place;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    fn part() -> Part {
        Part::Source("p".to_owned(), "s".to_owned())
    }

    fn place(host: &str, port: u16) -> Place {
        let (host, addresses) = (host.to_owned(), Vec::new());
        Place { host, port, addresses }
    }

    fn http(port: u16, path: &str, methods: &[Method]) -> PeerGrant {
        PeerGrant::Http(HttpGrant {
            place: place("127.0.0.1", port),
            is_secure: false,
            path: path.to_owned(),
            methods: methods.to_vec(),
            headers: Vec::new(),
            secret: None,
            ca: None,
            timeout: Duration::from_secs(10),
            body_bytes_max: 1_000,
            asks_per_minute_max: 3,
        })
    }

    /// A server that gives one answer to whatever it is asked.
    fn serve(head: &str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    if line.is_ok_and(|line| line.is_empty()) {
                        break;
                    }
                }
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        port
    }

    #[test]
    fn what_an_endpoint_answers_says_what_is_to_be_mended() {
        for (head, path, state, hint) in [
            ("200 OK", "/health", State::Good, ""),
            (
                "200 OK\r\ndate: Mon, 02 Mar 2020 11:00:00 GMT",
                "/health",
                State::Note,
                "time server",
            ),
            ("301 Moved", "/health", State::Bad, "redirects are not followed"),
            ("401 No", "/health", State::Bad, "secret_file"),
            ("403 No", "/health", State::Bad, "give it the right"),
            ("404 No", "/health", State::Bad, "compare url"),
            ("404 No", "/api/", State::Note, "below"),
            ("503 No", "/health", State::Bad, "read its log"),
        ] {
            let found = examine(part(), &http(serve(head), path, &[Method::Get]));
            assert_eq!(found.state, state, "{head}: {found:?}");
            assert!(found.hint.contains(hint), "{head}: {found:?}");
        }
    }

    #[test]
    fn where_only_post_is_granted_nothing_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = std::thread::spawn(move || {
            let (stream, _from) = listener.accept().unwrap();
            BufReader::new(stream).lines().count()
        });
        let found = examine(part(), &http(port, "/rest", &[Method::Post]));
        assert!(found.what.contains("takes a connection"), "{found:?}");
        assert_eq!(heard.join().unwrap(), 0);
    }

    #[test]
    fn a_peer_that_is_down_or_not_granted_is_told_with_what_to_do() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let down = examine(part(), &http(port, "/health", &[Method::Get]));
        assert!(
            down.is_bad() && down.what.contains(": unreachable: ") && down.hint.starts_with("start it"),
            "{down:?}"
        );
        let denied = PeerError::denied("pos.example is 10.0.0.9\nhint: add addresses = [\"10.0.0.9\"]");
        let elsewhere = failed(part(), &http(port, "/", &[]), &denied);
        assert_eq!(elsewhere.hint, "add addresses = [\"10.0.0.9\"]");
        assert!(
            elsewhere.what.ends_with(": denied: pos.example is 10.0.0.9"),
            "{elsewhere:?}"
        );
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_query_is_run_once_and_what_it_misses_is_told() {
        use crate::source::peer::sql::{ColumnType, sqlite};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pos.db");
        sqlite::made(
            &file,
            "CREATE TABLE sale (id INTEGER); INSERT INTO sale VALUES (1), (2)",
        );
        let grant = |query: &str, file: &std::path::Path| {
            PeerGrant::Sql(SqlGrant {
                database: Database::Sqlite(file.to_owned()),
                query: query.to_owned(),
                columns: vec![("id".to_owned(), ColumnType::Integer)],
                cursor: None,
                rows_max: 10,
                table_bytes_max: 1_000,
                timeout: Duration::from_secs(10),
                interval_min: Duration::from_secs(10),
            })
        };
        let good = examine(part(), &grant("SELECT id FROM sale", &file));
        assert!(
            good.state == State::Good && good.what.contains(": 2 rows with id in "),
            "{good:?}"
        );
        let missing = folder.path().join("missing.db");
        for (query, file) in [("SELECT number FROM sale", &file), ("SELECT id FROM sale", &missing)] {
            let bad = examine(part(), &grant(query, file));
            assert!(bad.is_bad() && !bad.hint.is_empty(), "{bad:?}");
        }
    }
}
