//! Packets of the MySQL protocol over one connection: whole, in order, within a deadline and a number of bytes.
//!
//! ```text
//! | length, 3 bytes | sequence | payload                  little endian, all of them
//! ```
//! Source: MySQL internals, "MySQL Packets". What a packet says it holds is looked at before anything is allocated.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use tillwatch_border::PeerFault;

use super::super::super::PeerError;
use super::super::server;

/// A packet of this length is followed by the rest of it; nothing that is granted is so large.
const LENGTH_MAX: usize = 0xff_ffff;

/// See the module.
pub(super) struct Wire {
    stream: Stream,
    sequence: u8,
    /// Of what the server may still send in this run.
    left: usize,
}

enum Stream {
    Plain(Timed),
    Secure(Box<StreamOwned<ClientConnection, Timed>>),
}

/// Ends every wait at the deadline.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        let deadline = Instant::now();
        Self {
            stream: Stream::Plain(Timed { stream, deadline }),
            sequence: 0,
            left: 0,
        }
    }

    /// From now on, so long and so many bytes.
    pub(super) fn allow(&mut self, deadline: Instant, bytes_max: usize) {
        self.left = bytes_max;
        match &mut self.stream {
            Stream::Plain(timed) => timed.deadline = deadline,
            Stream::Secure(secure) => secure.sock.deadline = deadline,
        }
    }

    /// TLS from here on.
    ///
    /// # Errors
    /// When the server is not the one that it should be.
    pub(super) fn secure(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, PeerError> {
        let Stream::Plain(timed) = self.stream else {
            return Ok(self);
        };
        let untrusted = |error: rustls::Error| PeerError::new(PeerFault::Untrusted, error.to_string());
        let connection = ClientConnection::new(config, name).map_err(untrusted)?;
        let mut secure = StreamOwned::new(connection, timed);
        while secure.conn.is_handshaking() {
            secure
                .conn
                .complete_io(&mut secure.sock)
                .map_err(|error| server::failed(&error))?;
        }
        let stream = Stream::Secure(Box::new(secure));
        Ok(Self { stream, ..self })
    }

    pub(super) fn is_secure(&self) -> bool {
        matches!(self.stream, Stream::Secure(_))
    }

    /// Begins a command.
    ///
    /// # Errors
    /// When the server does not take it.
    pub(super) fn command(&mut self, payload: &[u8]) -> Result<(), PeerError> {
        self.sequence = 0;
        self.send(payload)
    }

    /// # Errors
    /// When the server does not take it.
    pub(super) fn send(&mut self, payload: &[u8]) -> Result<(), PeerError> {
        if payload.len() >= LENGTH_MAX {
            return Err(PeerError::denied("the query is too large"));
        }
        let [a, b, c, _] = u32::try_from(payload.len()).unwrap_or(0).to_le_bytes();
        let mut packet = vec![a, b, c, self.sequence];
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        let sent = self.stream.write_all(&packet).and_then(|()| self.stream.flush());
        sent.map_err(|error| server::failed(&error))
    }

    /// The next packet's payload, none when it would be more than the server may send.
    ///
    /// # Errors
    /// When nothing comes in time, or not in order.
    pub(super) fn receive(&mut self) -> Result<Option<Vec<u8>>, PeerError> {
        let mut header = [0; 4];
        self.read(&mut header)?;
        let [a, b, c, sequence] = header;
        if sequence != self.sequence {
            return Err(malformed("a packet is out of order"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(LENGTH_MAX);
        let whole = length + header.len();
        if length >= LENGTH_MAX || whole > self.left {
            return Ok(None);
        }
        self.left -= whole;
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        Ok(Some(payload))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), PeerError> {
        self.stream.read_exact(buffer).map_err(|error| server::failed(&error))
    }
}

pub(super) fn malformed(why: &str) -> PeerError {
    PeerError::new(PeerFault::Malformed, why)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(bytes),
            Self::Secure(secure) => secure.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Secure(secure) => secure.flush(),
        }
    }
}

impl Timed {
    fn left(&self) -> io::Result<Option<std::time::Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
