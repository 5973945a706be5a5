//! The shipped prober, compiled and sandboxed as in a store, against real peers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tillwatch_border::{Code, Host, HttpRequest, Limits, Load, Method, PeerFault, Plugin, Question, TcpRequest, start};
use tillwatch_core::sample::{Batch, Values};

use super::collector::{PluginCollector, check_description};
use super::grant::Grant;
use super::host::{GrantedHost, Reading};
use super::manifest::{Manifest, World};
use super::restraint::Restraint;
use crate::clock::Clock;
use crate::config::PluginConfig;
use crate::config::written::Problem;
use crate::health::{Limit, PluginHealth};
use crate::source::peer::PeerGrant;
use crate::source::peer::http::HttpGrant;
use crate::source::peer::place::Place;
use crate::source::peer::sql::{ColumnType, Database, SqlGrant};
use crate::source::peer::tcp::TcpGrant;

/// What `cargo xtask plugins` built, compiled anew; it may ask so often in one call.
fn probe(peer_asks_max: usize) -> Plugin {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let programs = std::env::var_os("TILLWATCH_PROGRAMS").map_or_else(beside, PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let compiled = folder.path().join("probe.cwasm");
    let status = std::process::Command::new(programs.join("tillwatch-compile"))
        .arg(programs.parent().unwrap().join("plugins/probe/probe.wasm"))
        .arg(&compiled)
        .status();
    assert!(status.unwrap().success(), "hint: cargo xtask plugins");
    let limits = Limits {
        call_ms_max: 60_000,
        peer_asks_max,
        ..Limits::default()
    };
    let code = Arc::new(Code::open(&compiled).unwrap());
    let name = "probe".to_owned();
    let load = Load { name, code, limits };
    let started = start(programs.join("tillwatch-sandbox"), vec![load]).unwrap();
    started.into_iter().next().unwrap().unwrap()
}

fn place(port: u16) -> Place {
    Place {
        host: "127.0.0.1".to_owned(),
        port,
        addresses: Vec::new(),
    }
}

fn http(port: u16) -> Grant {
    Grant::Peer(Box::new(PeerGrant::Http(HttpGrant {
        place: place(port),
        is_secure: false,
        path: "/health".to_owned(),
        methods: vec![Method::Get],
        headers: Vec::new(),
        secret: None,
        ca: None,
        timeout: Duration::from_millis(300),
        body_bytes_max: 1_000,
        asks_per_minute_max: 3,
    })))
}

fn tcp(port: u16) -> Grant {
    Grant::Peer(Box::new(PeerGrant::Tcp(TcpGrant {
        place: place(port),
        login: None,
        timeout: Duration::from_secs(10),
        send_bytes_max: 1,
        receive_bytes_max: 1,
        asks_per_minute_max: 3,
    })))
}

/// A server that answers each request with this status, or with none at all.
fn serve(status: Option<u16>) -> u16 {
    serve_text(status.map(|status| format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")))
}

fn serve_body(body: &str) -> u16 {
    let head = format!(
        "HTTP/1.1 200 X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    serve_text(Some(head + body))
}

fn serve_text(answer: Option<String>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if let Some(answer) = &answer {
                drop(stream.write_all(answer.as_bytes()));
            }
            open.push(stream);
        }
    });
    port
}

fn host(grants: &[(&str, Grant)], reading: Reading) -> (GrantedHost, Arc<PluginHealth>) {
    let health = Arc::new(PluginHealth::default());
    let grants: BTreeMap<String, Grant> = grants
        .iter()
        .map(|(name, grant)| ((*name).to_owned(), grant.clone()))
        .collect();
    let clock = Clock::told(60_000);
    let host = GrantedHost::new("probe", &grants, None, reading, clock, Arc::clone(&health));
    (host.unwrap(), health)
}

fn collect(host: &mut GrantedHost) -> Batch {
    let mut plugin = probe(16);
    plugin.renew();
    plugin.configure("{}", host).unwrap();
    let batch = plugin.collect(host).unwrap();
    host.commit();
    batch
}

/// Metric, protocol and value of each series.
fn shown(batch: &Batch) -> Vec<(u16, String, i64)> {
    let value = |values: &Values| match values {
        Values::Integers(integers) => integers[0],
        Values::Reals(reals) => panic!("{reals:?}"),
    };
    let series = batch.series.iter();
    series
        .map(|series| (series.metric, series.labels[1].clone(), value(&series.values)))
        .collect()
}

const DURATION: u16 = 0;
const SUCCESS: u16 = 1;

#[test]
fn a_probe_reports_what_answers_and_what_does_not() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (well, ill) = (serve(Some(200)), serve(Some(503)));
    for (port, expected) in [(well, 1), (ill, 0)] {
        let (mut host, health) = host(&[("endpoint", http(port)), ("peer", tcp(nobody))], Reading::LIVE);
        let shown = shown(&collect(&mut host));
        assert_eq!(shown[0], (SUCCESS, "http".to_owned(), expected));
        assert!(shown[1].0 == DURATION && shown[1].2 > 0, "{shown:?}");
        assert_eq!(shown[2..], [(SUCCESS, "tcp".to_owned(), 0)]);
        assert_eq!(
            health.sources(),
            [("endpoint".to_owned(), true), ("peer".to_owned(), false)]
        );
        assert!(!host.is_partial(), "that a peer is down is no lack of data");
    }
}

#[test]
fn an_endpoint_that_hangs_is_reported_as_down_and_counted() {
    let (mut host, health) = host(&[("endpoint", http(serve(None)))], Reading::LIVE);
    assert_eq!(shown(&collect(&mut host)), [(SUCCESS, "http".to_owned(), 0)]);
    assert_eq!(health.beyond_of(Limit::PeerTime), 1);
    assert_eq!(health.beyond_of(Limit::PeerGrant), 0);
}

/// A round of 256 calls could put 4,096 questions to one endpoint.
#[test]
fn an_endpoint_is_asked_so_often_in_a_minute_and_then_not_said_to_be_down() {
    let (mut host, health) = host(&[("endpoint", http(serve(Some(200))))], Reading::LIVE);
    let mut plugin = probe(16);
    plugin.renew();
    plugin.configure("{}", &mut host).unwrap();
    let mut answered = Vec::new();
    for _ in 0..5 {
        answered.push(shown(&plugin.collect(&mut host).unwrap()).len());
        host.commit();
    }
    assert_eq!(answered, [2, 2, 2, 0, 0]);
    assert_eq!(health.sources(), [("endpoint".to_owned(), true)]);
    assert_eq!(health.beyond_of(Limit::PeerRate), 2);
}

/// A service with a page of more than `body_max` was reported as down.
#[test]
fn an_endpoint_that_says_too_much_has_answered() {
    let (mut host, health) = host(&[("endpoint", http(serve_body(&"x".repeat(1_001))))], Reading::LIVE);
    let shown = shown(&collect(&mut host));
    assert_eq!(shown[0], (SUCCESS, "http".to_owned(), 1));
    assert!(shown[1].0 == DURATION && shown[1].2 > 0, "{shown:?}");
    assert_eq!(health.beyond_of(Limit::PeerBytes), 1);
}

/// Nobody learned why a peer was down, and with each question anew it would have been too often.
#[test]
fn why_a_peer_is_down_is_said_once_and_each_failure_is_counted() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(log.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mut host, health) = host(&[("peer", tcp(port))], Reading::LIVE);
    tracing::subscriber::with_default(subscriber, || {
        let mut connect = || host.ask_peer("peer", Question::Tcp(nothing()), Duration::from_secs(10));
        for _ in 0..2 {
            assert_eq!(connect().unwrap_err().fault, PeerFault::Unreachable);
        }
        let _there = TcpListener::bind(("127.0.0.1", port)).unwrap();
        connect().unwrap();
    });
    let said = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(said.matches("a peer is down").count(), 1, "{said}");
    assert!(said.contains("unreachable") && said.contains("refused"), "{said}");
    assert!(said.contains("a peer answers again"), "{said}");
    assert_eq!(health.source_failures(), [(("peer".to_owned(), "unreachable"), 2)]);
}

fn nothing() -> TcpRequest {
    TcpRequest {
        bytes: Vec::new(),
        until: Vec::new(),
        bytes_max: 0,
    }
}

/// The sandbox refused its questions, the host never heard of them, and the batch was called whole.
#[test]
fn a_call_that_may_not_ask_is_partial_when_there_is_a_database_to_read() {
    let database = database(Duration::ZERO);
    let endpoint = || ("endpoint", http(serve(Some(200))));
    let is_partial = |grants: &[(&str, Grant)], peer_asks_max| {
        let (host, health) = host(grants, Reading::LIVE);
        let (config, restraint) = (config(), Restraint::default());
        let started = PluginCollector::start(probe(peer_asks_max), &config, host, restraint, health);
        started.unwrap().collect().unwrap().batch.is_partial
    };
    assert!(is_partial(&[endpoint(), ("sales", database.clone())], 0));
    assert!(!is_partial(&[endpoint(), ("sales", database)], 16));
    assert!(!is_partial(&[endpoint()], 0), "what a probe asks is no lack of data");
}

/// A query that nobody answers.
pub(crate) fn database(interval_min: Duration) -> Grant {
    Grant::Peer(Box::new(PeerGrant::Sql(SqlGrant {
        database: Database::Sqlite(PathBuf::from("/nowhere")),
        query: "SELECT 1".to_owned(),
        columns: vec![("n".to_owned(), ColumnType::Integer)],
        cursor: None,
        rows_max: 1,
        table_bytes_max: 1,
        timeout: Duration::from_secs(1),
        interval_min,
    })))
}

/// The shipped prober without grants.
pub(crate) fn config() -> PluginConfig {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/probe");
    let place = Problem {
        path: folder.clone(),
        line: 0,
        column: 0,
        what: String::new(),
        hint: None,
    };
    PluginConfig {
        name: "probe".to_owned(),
        wasm: PathBuf::new(),
        bundle: None,
        manifest: Manifest::load(&folder).unwrap(),
        interval_ms: 1_000,
        memory_bytes_max: 0,
        deadline_ms: 0,
        cpu_share_percent: 0,
        grants: BTreeMap::new(),
        settings: serde_json::json!({}),
        place,
        setting_places: BTreeMap::new(),
    }
}

#[test]
fn nothing_is_asked_while_the_past_is_replayed() {
    let (mut host, _health) = host(&[("endpoint", http(serve(Some(200))))], Reading::BACKFILL);
    assert_eq!(shown(&collect(&mut host)), []);
}

#[test]
fn what_was_not_granted_or_is_of_another_kind_is_unknown() {
    let (mut host, health) = host(&[("peer", tcp(1))], Reading::LIVE);
    let question = || {
        Question::Http(HttpRequest {
            method: Method::Get,
            path: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        })
    };
    for name in ["peer", "endpoint"] {
        let failure = host.ask_peer(name, question(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure.fault, PeerFault::Unknown);
    }
    assert_eq!(
        health.beyond_of(Limit::PeerGrant),
        1,
        "of another kind is a mistake, not granted may be meant"
    );
}

#[test]
fn the_shipped_probe_is_what_its_plugin_toml_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/probe");
    let manifest = Manifest::load(&folder).unwrap();
    assert_eq!(manifest.world, World::Prober);
    let (mut host, _health) = host(&[], Reading::LIVE);
    let mut plugin = probe(16);
    plugin.renew();
    check_description(&plugin.describe(&mut host).unwrap(), &manifest).unwrap();
}
