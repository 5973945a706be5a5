//! The door of the page and the API: how many may come in, how long they may take, and under which name.
//!
//! In: TCP connections, and the answers of [`crate::api`]. Out: HTTP/1.1.
//! It never holds more connections than [`Limits`] says and the one that waits for a place, so that it takes no file handles of the stores, and it answers no
//! request for a host that it is not: a foreign website whose name points here reads nothing.

use crate::health::Counts;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

/// Pause after the system refused to accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the door allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open at a time, each page's stream of events among them; one more waits at the door, and the rest outside.
    pub connections_max: usize,
    /// Streams of events among them, so that pages which are left open keep nobody from asking.
    pub streams_max: usize,
    /// From the opening or the last answer to the end of the next request's head.
    pub head_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            streams_max: 128,
            head_max: Duration::from_secs(10),
        }
    }
}

/// Places, and what happened at the door; each bound that was hit has its own number.
#[derive(Debug)]
pub struct Door {
    limits: Limits,
    /// Hosts under which it is reached, besides addresses and `localhost`.
    names: Vec<String>,
    room: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    connections: AtomicU64,
    /// Connections that waited since all places were taken.
    connections_held_back: AtomicU64,
    /// Connections closed since no request came in time.
    heads_late: AtomicU64,
    /// Connections closed since no other request came in time: so a browser leaves.
    connections_idle: AtomicU64,
    hosts_refused: AtomicU64,
    streams_refused: AtomicU64,
}

impl Door {
    pub fn new(limits: Limits, names: Vec<String>) -> Self {
        Self {
            limits,
            names,
            room: Arc::new(Semaphore::new(limits.connections_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            connections: AtomicU64::default(),
            connections_held_back: AtomicU64::default(),
            heads_late: AtomicU64::default(),
            connections_idle: AtomicU64::default(),
            hosts_refused: AtomicU64::default(),
            streams_refused: AtomicU64::default(),
        }
    }

    /// A place for a stream of events, for as long as it is held; `None` when all are taken.
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.streams).try_acquire_owned().ok();
        if place.is_none() {
            count(&self.streams_refused);
        }
        place
    }

    /// Each counter with its name.
    pub fn counts(&self) -> Counts {
        let all = [
            ("connections", &self.connections),
            ("connections_held_back", &self.connections_held_back),
            ("heads_late", &self.heads_late),
            ("connections_idle", &self.connections_idle),
            ("hosts_refused", &self.hosts_refused),
            ("streams_refused", &self.streams_refused),
        ];
        all.map(|(name, number)| (name, number.load(Ordering::Relaxed))).into()
    }

    /// Waits for a place. `None` never comes, since nobody closes the semaphore.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(place);
        }
        count(&self.connections_held_back);
        Arc::clone(&self.room).acquire_owned().await.ok()
    }
}

fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, router: Router, door: Arc<Door>) {
    let service = TowerToHyperService::new(router.layer(from_fn_with_state(Arc::clone(&door), only_ours)));
    loop {
        let stream = accept(&listener).await;
        let Some(place) = door.place().await else { return };
        count(&door.connections);
        let has_asked = Arc::new(AtomicBool::new(false));
        let (asks, service) = (Arc::clone(&has_asked), service.clone());
        let service = service_fn(move |request| {
            asks.store(true, Ordering::Relaxed);
            service.call(request)
        });
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(door.limits.head_max);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let door = Arc::clone(&door);
        tokio::spawn(async move {
            let ended = connection.await;
            drop(place);
            if let Err(error) = ended {
                match (error.is_timeout(), has_asked.load(Ordering::Relaxed)) {
                    (true, false) => count(&door.heads_late),
                    (true, true) => count(&door.connections_idle),
                    (false, _) => {}
                }
                debug!(%error, "HTTP connection ended");
            }
        });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn only_ours(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    if is_ours(request.headers(), &door.names) {
        next.run(request).await
    } else {
        count(&door.hosts_refused);
        let text = "this host name is none of the center's\nhint: add it to names in [http] of the settings\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    }
}

/// A website can make its own name point to this machine, but not make a browser name an address instead.
fn is_ours(headers: &HeaderMap, names: &[String]) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_name = |wanted: &str| wanted.eq_ignore_ascii_case(name);
    address.parse::<IpAddr>().is_ok() || is_name("localhost") || names.iter().any(|wanted| is_name(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn open(limits: Limits) -> (std::net::SocketAddr, Arc<Door>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "sold" }));
        let door = Arc::new(Door::new(limits, vec!["till.example.com".to_owned()]));
        tokio::spawn(serve(listener, router, Arc::clone(&door)));
        (address, door)
    }

    fn counted(door: &Door, name: &str) -> u64 {
        door.counts().into_iter().find(|(found, _)| *found == name).unwrap().1
    }

    async fn answer(address: std::net::SocketAddr, host: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// A website could make its own name point to 127.0.0.1 and read what a chain loses in a visitor's browser.
    #[tokio::test]
    async fn a_request_for_a_foreign_host_reads_nothing() {
        let (address, door) = open(Limits::default()).await;
        for (host, is_good) in [
            ("127.0.0.1:8480", true),
            ("[::1]:8480", true),
            ("10.1.2.3", true),
            ("localhost:8480", true),
            ("Till.Example.com", true),
            ("evil.example.com:8480", false),
            ("127.0.0.1.evil.example.com", false),
            ("", false),
        ] {
            let text = answer(address, host).await;
            assert_eq!(text.starts_with("HTTP/1.1 200"), is_good, "{host}: {text}");
            assert_eq!(text.contains("sold"), is_good, "{host}: {text}");
        }
        assert_eq!((counted(&door, "connections"), counted(&door, "hosts_refused")), (8, 3));
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_is_closed_and_gives_its_place_to_the_next() {
        let limits = Limits {
            connections_max: 1,
            head_max: Duration::from_millis(50),
            ..Limits::default()
        };
        let (address, door) = open(limits).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HT").await.unwrap();
        assert!(answer(address, "localhost").await.contains("sold"));
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(!String::from_utf8(rest).unwrap().contains("sold"));
        assert_eq!(counted(&door, "heads_late"), 1);
        assert_eq!(counted(&door, "connections_held_back"), 1);
    }

    /// Both counters went up while nobody waited and nobody was late.
    #[tokio::test]
    async fn the_last_place_and_a_browser_that_stays_connected_are_no_trouble() {
        let limits = Limits {
            connections_max: 1,
            head_max: Duration::from_millis(50),
            ..Limits::default()
        };
        let (address, door) = open(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("sold"));
        // When it is counted its place is free.
        while counted(&door, "connections_idle") == 0 {
            tokio::task::yield_now().await;
        }
        assert!(answer(address, "localhost").await.contains("sold"));
        let counts = ["connections", "connections_held_back", "heads_late", "connections_idle"];
        assert_eq!(counts.map(|name| counted(&door, name)), [2, 0, 0, 1]);
    }
}
