//! A TCP proxy on loopback that counts the bytes of both directions, as the wire would carry them above TCP.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// Forwards connections to a port of this machine until the process ends.
pub struct CountingProxy {
    pub port: u16,
    bytes: Arc<AtomicU64>,
}

impl CountingProxy {
    /// Listens on a free port and forwards to `target_port`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(target_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding the proxy")?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = bytes.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target_port)) {
                    forward_both_ways(&client, &server, &counted);
                }
            }
        });
        Ok(Self { port, bytes })
    }

    /// Bytes of both directions since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn forward_both_ways(client: &TcpStream, server: &TcpStream, counted: &Arc<AtomicU64>) {
    for (from, to) in [(client, server), (server, client)] {
        if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
            let counted = counted.clone();
            std::thread::spawn(move || forward(from, to, &counted));
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        counted.fetch_add(read as u64, Ordering::Relaxed);
    }
    for stream in [&from, &to] {
        drop(stream.shutdown(Shutdown::Both)); // it may be closed already
    }
}
