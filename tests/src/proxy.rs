//! A TCP proxy on loopback that counts the bytes of both directions, as the wire would carry them above TCP, and knows
//! when the client spoke after a silence.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// What comes after so long a silence is a burst of its own.
const SILENCE: Duration = Duration::from_millis(500);

/// Forwards connections to a port of this machine until the process ends.
pub struct CountingProxy {
    pub port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    /// When the client began to speak.
    bursts: Mutex<Vec<SystemTime>>,
}

impl CountingProxy {
    /// Listens on a free port and forwards to `target_port`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(target_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding the proxy")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target_port)) {
                    forward_both_ways(&client, &server, &noted);
                }
            }
        });
        Ok(Self { port, seen })
    }

    /// Bytes of both directions since the start.
    pub fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }

    /// When the client spoke after a silence, since they were taken last.
    pub fn take_bursts(&self) -> Vec<SystemTime> {
        std::mem::take(&mut *self.seen.bursts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn forward_both_ways(client: &TcpStream, server: &TcpStream, seen: &Arc<Seen>) {
    for (from, to, is_client) in [(client, server, true), (server, client, false)] {
        if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
            let seen = Arc::clone(seen);
            std::thread::spawn(move || forward(from, to, is_client, &seen));
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_client: bool, seen: &Seen) {
    let mut buffer = [0; 16 << 10];
    let mut last = SystemTime::UNIX_EPOCH;
    while let Ok(read) = from.read(&mut buffer) {
        let now = SystemTime::now();
        if is_client && now.duration_since(last).is_ok_and(|silent| silent > SILENCE) {
            seen.bursts.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        }
        last = now;
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        seen.bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
    for stream in [&from, &to] {
        drop(stream.shutdown(Shutdown::Both)); // it may be closed already
    }
}
