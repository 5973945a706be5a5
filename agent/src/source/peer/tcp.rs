//! One bounded exchange over a connection of its own: connect, log in, send, read to an end, hang up.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tillwatch_border::{PeerFault, TcpRequest, TcpResponse};

use super::place::Place;
use super::{PeerError, conceals, micros, secret};

pub const SEND_BYTES_MAX: u64 = 4 << 10;
pub const RECEIVE_BYTES_MAX: u64 = 64 << 10;
/// Where the secret stands in what the agent says first.
pub const SECRET_MARK: &str = "{secret}";

/// A peer that the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpGrant {
    pub place: Place,
    /// Said before the plugin's bytes.
    pub login: Option<Login>,
    pub timeout: Duration,
    pub send_bytes_max: usize,
    pub receive_bytes_max: usize,
    pub asks_per_minute_max: u32,
}

/// What the agent says with a secret that no plugin sees, and what the peer must answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Holds [`SECRET_MARK`].
    pub say: String,
    pub answer: String,
    pub file: PathBuf,
}

/// # Errors
/// Why there is no answer.
pub fn exchange(grant: &TcpGrant, request: &TcpRequest, within: Duration) -> Result<TcpResponse, PeerError> {
    if request.bytes.len() > grant.send_bytes_max {
        return Err(PeerError::denied(format!(
            "plugin wants to send {} bytes, agent.toml grants send_max = {}B",
            request.bytes.len(),
            grant.send_bytes_max
        )));
    }
    let secret = grant.login.as_ref().map(|login| secret(&login.file)).transpose()?;
    let deadline = Deadline::new(grant.timeout.min(within));
    let addresses = grant.place.resolve(deadline.left()?)?;
    let mut stream = connect(&addresses, &deadline)?;
    let connect_us = micros(deadline.begun.elapsed());
    if let Some((login, secret)) = grant.login.as_ref().zip(secret.as_deref()) {
        log_in(&mut stream, login, secret, &deadline)?;
    }
    send(&mut stream, &request.bytes, &deadline)?;
    let bytes = receive(&mut stream, request, grant.receive_bytes_max, &deadline)?;
    conceals(&bytes, secret.as_deref())?;
    Ok(TcpResponse {
        bytes,
        connect_us,
        elapsed_us: 0,
    })
}

/// Reads as much as the right answer has, and tells nothing of another one.
fn log_in(stream: &mut TcpStream, login: &Login, secret: &str, deadline: &Deadline) -> Result<(), PeerError> {
    send(stream, login.say.replace(SECRET_MARK, secret).as_bytes(), deadline)?;
    let mut right = login.answer.as_bytes();
    while !right.is_empty() {
        let mut piece = [0; 64];
        let most = piece.len().min(right.len());
        let count = read(stream, &mut piece[..most], deadline)?;
        right = right
            .strip_prefix(&piece[..count])
            .filter(|_rest| count > 0)
            .ok_or_else(|| PeerError::new(PeerFault::Malformed, "its answer to the login is not login_answer"))?;
    }
    Ok(())
}

/// When an exchange must be over.
pub(super) struct Deadline {
    begun: Instant,
    allowed: Duration,
}

impl Deadline {
    pub(super) fn new(allowed: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, allowed }
    }

    pub(super) fn left(&self) -> Result<Duration, PeerError> {
        let left = self.allowed.saturating_sub(self.begun.elapsed());
        if left.is_zero() {
            let allowed_ms = self.allowed.as_millis();
            return Err(PeerError::new(
                PeerFault::Timeout,
                format!("it took longer than {allowed_ms} ms"),
            ));
        }
        Ok(left)
    }
}

/// Each address gets its share of what is left, so that a silent one does not hide the next.
pub(super) fn connect(addresses: &[SocketAddr], deadline: &Deadline) -> Result<TcpStream, PeerError> {
    let mut last = PeerError::new(PeerFault::Unreachable, "its name has no address");
    let mut addresses_left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let share = deadline.left()? / addresses_left;
        addresses_left -= 1;
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

fn send(stream: &mut TcpStream, mut bytes: &[u8], deadline: &Deadline) -> Result<(), PeerError> {
    while !bytes.is_empty() {
        stream
            .set_write_timeout(Some(deadline.left()?))
            .map_err(|error| failed(&error))?;
        let sent = stream.write(bytes).map_err(|error| failed(&error))?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

fn receive(
    stream: &mut TcpStream,
    request: &TcpRequest,
    granted_max: usize,
    deadline: &Deadline,
) -> Result<Vec<u8>, PeerError> {
    let wanted = usize::try_from(request.bytes_max).unwrap_or(usize::MAX);
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while answer.len() < wanted {
        if answer.len() >= granted_max {
            let why = format!("it says more than receive_max = {granted_max}B");
            return Err(PeerError::new(PeerFault::TooLarge, why));
        }
        let most = piece.len().min(wanted.min(granted_max) - answer.len());
        let count = read(stream, &mut piece[..most], deadline)?;
        if count == 0 && request.until.is_empty() {
            break;
        }
        if count == 0 {
            return Err(PeerError::new(
                PeerFault::Unreachable,
                "it hung up before its answer was whole",
            ));
        }
        // Only here may the end lie that was not seen before.
        let from = answer.len().saturating_sub(request.until.len());
        answer.extend_from_slice(&piece[..count]);
        if let Some(at) = memchr::memmem::find(&answer[from..], &request.until).filter(|_at| !request.until.is_empty())
        {
            answer.truncate(from + at + request.until.len());
            break;
        }
    }
    Ok(answer)
}

fn read(stream: &mut TcpStream, piece: &mut [u8], deadline: &Deadline) -> Result<usize, PeerError> {
    stream
        .set_read_timeout(Some(deadline.left()?))
        .map_err(|error| failed(&error))?;
    stream.read(piece).map_err(|error| failed(&error))
}

fn failed(error: &std::io::Error) -> PeerError {
    let fault = match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => PeerFault::Timeout,
        _ => PeerFault::Unreachable,
    };
    PeerError::new(fault, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A peer that takes one connection and does this with it.
    fn peer(serve: impl FnOnce(TcpStream) + Send + 'static) -> TcpGrant {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || serve(listener.accept().unwrap().0));
        TcpGrant {
            place: Place {
                host: "127.0.0.1".to_owned(),
                port,
                addresses: Vec::new(),
            },
            login: None,
            timeout: TIMEOUT,
            send_bytes_max: 16,
            receive_bytes_max: 64,
            asks_per_minute_max: 60,
        }
    }

    fn request(bytes: &[u8], until: &[u8], bytes_max: u32) -> TcpRequest {
        TcpRequest {
            bytes: bytes.to_vec(),
            until: until.to_vec(),
            bytes_max,
        }
    }

    fn fault(grant: &TcpGrant, request: &TcpRequest) -> PeerFault {
        exchange(grant, request, TIMEOUT).unwrap_err().fault
    }

    #[test]
    fn an_answer_ends_at_its_delimiter_its_size_or_when_the_peer_hangs_up() {
        let pong = |mut stream: TcpStream| {
            let mut asked = [0; 6];
            stream.read_exact(&mut asked).unwrap();
            // The delimiter comes in two pieces.
            for piece in [&b"+PONG\r"[..], b"\n+MORE"] {
                stream.write_all(piece).unwrap();
                stream.flush().unwrap();
            }
            // Until the other side has read what it wants.
            drop(stream.read(&mut asked));
        };
        let answer = |request: &TcpRequest| exchange(&peer(pong), request, TIMEOUT).unwrap().bytes;
        assert_eq!(answer(&request(b"PING\r\n", b"\r\n", 64)), b"+PONG\r\n");
        assert_eq!(answer(&request(b"PING\r\n", b"", 3)), b"+PO");
        let hangs_up = peer(|mut stream| stream.write_all(b"220 ready").unwrap());
        assert_eq!(
            exchange(&hangs_up, &request(b"", b"", 64), TIMEOUT).unwrap().bytes,
            b"220 ready"
        );
    }

    /// Asks a peer that says these two pieces to whoever logs in, after a login that wants `+OK`.
    fn log_in_and_ask(first: &'static [u8], then: &'static [u8]) -> (Result<TcpResponse, PeerError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "open sesame\n").unwrap();
        let (tell, asked) = std::sync::mpsc::channel();
        let mut grant = peer(move |mut stream| {
            let mut said = [0; 64];
            let mut count = stream.read(&mut said).unwrap();
            stream.write_all(first).unwrap();
            count += stream.read(&mut said[count..]).unwrap_or(0);
            drop(stream.write_all(then));
            tell.send(String::from_utf8_lossy(&said[..count]).into_owned()).unwrap();
        });
        grant.login = Some(Login {
            say: "AUTH till {secret}\r\n".to_owned(),
            answer: "+OK\r\n".to_owned(),
            file,
        });
        let answer = exchange(&grant, &request(b"PING\r\n", b"", 64), TIMEOUT);
        (answer, asked.recv().unwrap())
    }

    #[test]
    fn the_agent_logs_in_before_the_plugin_speaks_and_shows_it_nothing_of_that() {
        let (answer, asked) = log_in_and_ask(b"+OK\r\n", b"+PONG\r\n");
        assert_eq!(answer.unwrap().bytes, b"+PONG\r\n");
        assert_eq!(asked, "AUTH till open sesame\r\nPING\r\n");
        let (answer, asked) = log_in_and_ask(b"-WRONGPASS\r\n", b"");
        assert_eq!(answer.unwrap_err().fault, PeerFault::Malformed);
        assert_eq!(asked, "AUTH till open sesame\r\n");
        let (answer, _asked) = log_in_and_ask(b"+OK\r\n", b"-ERR unknown 'open sesame'\r\n");
        assert_eq!(answer.unwrap_err().fault, PeerFault::Denied);
    }

    #[test]
    fn nothing_is_read_when_only_the_connection_is_asked_for() {
        let response = exchange(&peer(drop), &request(b"", b"", 0), TIMEOUT).unwrap();
        assert_eq!(response.bytes, b"");
        assert!(response.connect_us > 0);
    }

    #[test]
    fn a_peer_that_never_answers_costs_its_timeout() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let mut silent = peer(move |stream| {
            assert!(held.recv().is_err());
            drop(stream);
        });
        silent.timeout = Duration::from_millis(50);
        let begun = Instant::now();
        assert_eq!(fault(&silent, &request(b"PING", b"\n", 64)), PeerFault::Timeout);
        assert!(begun.elapsed() >= Duration::from_millis(50));
        drop(hold);
    }

    /// Each byte comes in time, the whole answer never.
    #[test]
    fn a_peer_that_drips_costs_its_timeout_too() {
        let mut dripping = peer(|mut stream| while stream.write_all(b".").is_ok() {});
        dripping.timeout = Duration::from_millis(50);
        dripping.receive_bytes_max = usize::MAX;
        assert_eq!(fault(&dripping, &request(b"", b"\n", u32::MAX)), PeerFault::Timeout);
    }

    #[test]
    fn more_than_is_granted_is_neither_sent_nor_read() {
        assert_eq!(fault(&peer(drop), &request(&[0; 17], b"", 64)), PeerFault::Denied);
        let talks = || peer(|mut stream| drop(stream.write_all(&[b'x'; 1_000])));
        assert_eq!(fault(&talks(), &request(b"", b"\n", 1_000)), PeerFault::TooLarge);
        assert_eq!(
            exchange(&talks(), &request(b"", b"", 64), TIMEOUT).unwrap().bytes.len(),
            64
        );
        let cut = peer(|mut stream| stream.write_all(b"+PO").unwrap());
        assert_eq!(fault(&cut, &request(b"", b"\r\n", 64)), PeerFault::Unreachable);
    }

    /// The first address of a name took all the time there was, and the peer behind the second was down for ever.
    #[test]
    fn a_silent_address_leaves_time_for_the_next() {
        let full = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Once its queue is full the system answers nobody.
        while let Ok(stream) = TcpStream::connect_timeout(&silent, Duration::from_millis(100)) {
            waiting.push(stream);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let deadline = Deadline::new(Duration::from_millis(400));
        let stream = connect(&[silent, silent, there], &deadline).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        let deadline = Deadline::new(Duration::from_millis(50));
        assert_eq!(
            connect(&[silent, silent], &deadline).unwrap_err().fault,
            PeerFault::Timeout
        );
    }

    #[test]
    fn a_peer_that_is_not_there_is_unreachable() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut gone = peer(drop);
        gone.place.port = port;
        assert_eq!(fault(&gone, &request(b"", b"", 0)), PeerFault::Unreachable);
    }
}
