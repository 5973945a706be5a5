//! A TCP proxy on loopback: it counts the bytes of both directions, as the wire would carry them above TCP, knows when the
//! client spoke after a silence, and does to connections what bad links do.
//!
//! In: connections to its port, and what is wrong with the link now. Out: the same bytes at the other port, late, slowly,
//! or not at all. It never changes a byte and never reorders two.

use std::future::Future;
use std::io::{ErrorKind, Result as IoResult};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What comes after so long a silence is a burst of its own.
const SILENCE: Duration = Duration::from_millis(500);
/// Read at once from a fast link, and from one with a rate, where pieces must be short beside each other.
const PIECE_BYTES: usize = 16 << 10;
const SLOW_PIECE_BYTES: usize = 512;
/// Pieces on their way through the link; the sender waits when there are as many.
const PIECES_MAX: usize = 256;
/// The same on a link that began with a rate: 8 KiB, as a modem keeps; more stays at the sender.
const SLOW_PIECES_MAX: usize = 16;
const RECEIVE_BUFFER_BYTES: usize = 4 << 10;

/// What is wrong with the link; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// Of each direction.
    pub bytes_per_second: Option<u32>,
    pub up: Flow,
    pub down: Flow,
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Forwarded,
    /// Nothing gets through; TCP holds it back and goes on later.
    Held,
    /// Nothing gets through, ever.
    Swallowed,
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both ends are told by a reset.
    Reset,
    /// The client's direction is closed in good order, the other one lives on.
    HalfClose,
    /// The server's end is reset; the client is told nothing until [`Proxy::heal`].
    ClientHalfOpen,
    /// The client's end is reset; the server is told nothing until [`Proxy::heal`].
    ServerHalfOpen,
}

/// Forwards connections to a port of this machine until it is dropped.
pub struct Proxy {
    pub port: u16,
    seen: Arc<Seen>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    link: Link,
    /// Connections that began before this many cuts end by `cut`.
    cuts: u64,
    cut: Option<Cut>,
    heals: u64,
    is_over: bool,
}

#[derive(Default)]
struct Seen {
    up: AtomicU64,
    down: AtomicU64,
    /// When the client began to speak.
    bursts: Mutex<Vec<SystemTime>>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target_port`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(target_port: u16) -> Result<Self> {
        Self::start_with(target_port, Link::default())
    }

    /// As [`Proxy::start`], over this link. One with a rate takes little from its senders ahead of time.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start_with(target_port: u16, link: Link) -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("binding the proxy")?;
        if link.bytes_per_second.is_some() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_BYTES)?;
        }
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen::default());
        let state = watch::Sender::new(State {
            link,
            ..State::default()
        });
        let (noted, states) = (Arc::clone(&seen), state.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(accept(listener, target_port, states, noted)));
        Ok(Self { port, seen, state })
    }

    /// Bytes of both directions since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes_up() + self.seen.down.load(Ordering::Relaxed)
    }

    /// Bytes that clients said since the start.
    pub fn bytes_up(&self) -> u64 {
        self.seen.up.load(Ordering::Relaxed)
    }

    /// When the client spoke after a silence, since they were taken last.
    pub fn take_bursts(&self) -> Vec<SystemTime> {
        std::mem::take(&mut *self.seen.bursts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on the link is so, for what is under way too.
    pub fn set(&self, link: Link) {
        self.state.send_modify(|state| state.link = link);
    }

    /// All connections of this moment end so; new ones are taken.
    pub fn cut(&self, cut: Cut) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.cut = Some(cut);
        });
    }

    /// The ends of cut connections that were told nothing are reset.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.heals += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.is_over = true);
    }
}

async fn accept(listener: std::net::TcpListener, target_port: u16, states: watch::Receiver<State>, seen: Arc<Seen>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut over = states.clone();
    let is_over = over.wait_for(|state| state.is_over);
    tokio::pin!(is_over);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut is_over => return,
        };
        if let Ok((client, _)) = accepted {
            tokio::spawn(connection(client, target_port, states.clone(), Arc::clone(&seen)));
        }
    }
}

/// One connection from its beginning to its end, or to its cut.
async fn connection(client: TcpStream, target_port: u16, states: watch::Receiver<State>, seen: Arc<Seen>) {
    let born = states.borrow().cuts;
    let Ok(server) = TcpStream::connect(("127.0.0.1", target_port)).await else {
        return;
    };
    let no_delay = client.set_nodelay(true).and(server.set_nodelay(true));
    if no_delay.is_err() {
        return; // it is gone already
    }
    let state = {
        let pumps = async {
            let up = pump(&client, &server, Direction::Up, states.clone(), &seen);
            let down = pump(&server, &client, Direction::Down, states.clone(), &seen);
            tokio::join!(up, down);
        };
        let mut cut = states.clone();
        tokio::select! {
            () = pumps => return,
            cut = cut.wait_for(|state| state.cuts > born || state.is_over) => match cut {
                Ok(state) => *state,
                Err(_) => return,
            },
        }
    };
    end(client, server, state, states, &seen).await;
}

/// Ends a connection as it was asked for.
async fn end(client: TcpStream, server: TcpStream, state: State, mut states: watch::Receiver<State>, seen: &Seen) {
    match state.cut {
        None => {}
        Some(Cut::Reset) => {
            reset(client);
            reset(server);
        }
        Some(Cut::HalfClose) => {
            close(&server);
            pump(&server, &client, Direction::Down, states, seen).await;
        }
        Some(Cut::ClientHalfOpen) => {
            reset(server);
            healed(&mut states, state.heals).await;
            reset(client);
        }
        Some(Cut::ServerHalfOpen) => {
            reset(client);
            healed(&mut states, state.heals).await;
            reset(server);
        }
    }
}

async fn healed(states: &mut watch::Receiver<State>, heals: u64) {
    drop(states.wait_for(|state| state.heals > heals || state.is_over).await);
}

/// Says that nothing more comes.
fn close(stream: &TcpStream) {
    // When it is gone already there is nobody to tell.
    rustix::net::shutdown(stream, rustix::net::Shutdown::Write).unwrap_or_default();
}

/// Ends with a reset instead of a goodbye.
fn reset(stream: TcpStream) {
    // When it is gone already there is nothing to tell.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap_or_default();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

type Piece = (Instant, Vec<u8>);

/// One direction until its sender closes it, which is told to the other end.
async fn pump(from: &TcpStream, to: &TcpStream, direction: Direction, states: watch::Receiver<State>, seen: &Seen) {
    let link = || states.borrow().link;
    let is_slow = link().bytes_per_second.is_some();
    let (sender, pieces) = mpsc::channel(if is_slow { SLOW_PIECES_MAX } else { PIECES_MAX });
    let ended = tokio::join!(
        read_pieces(from, sender, direction, &link, seen),
        write_pieces(to, pieces, direction, states.clone()),
    );
    if ended.1.is_ok() {
        close(to);
    }
}

async fn read_pieces(
    from: &TcpStream,
    pieces: mpsc::Sender<Piece>,
    direction: Direction,
    link: &impl Fn() -> Link,
    seen: &Seen,
) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut last = SystemTime::UNIX_EPOCH;
    loop {
        let link = link();
        let most = if link.bytes_per_second.is_some() {
            SLOW_PIECE_BYTES
        } else {
            PIECE_BYTES
        };
        let read = retried(|| from.readable(), || from.try_read(&mut buffer[..most])).await;
        let Ok(read @ 1..) = read else { return };
        if direction == Direction::Up {
            seen.on_up(&mut last);
        }
        let counter = if direction == Direction::Up {
            &seen.up
        } else {
            &seen.down
        };
        counter.fetch_add(read as u64, Ordering::Relaxed);
        if pieces
            .send((Instant::now() + link.delay, buffer[..read].to_vec()))
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Seen {
    fn on_up(&self, last: &mut SystemTime) {
        let now = SystemTime::now();
        if now.duration_since(*last).is_ok_and(|silent| silent > SILENCE) {
            self.bursts.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        }
        *last = now;
    }
}

async fn write_pieces(
    to: &TcpStream,
    mut pieces: mpsc::Receiver<Piece>,
    direction: Direction,
    mut states: watch::Receiver<State>,
) -> IoResult<()> {
    let flow = |state: &State| {
        if direction == Direction::Up {
            state.link.up
        } else {
            state.link.down
        }
    };
    let mut busy_until = Instant::now();
    while let Some((due, bytes)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        let state = match states.wait_for(|state| flow(state) != Flow::Held).await {
            Ok(state) => *state,
            Err(_) => return Ok(()),
        };
        if let Some(rate) = state.link.bytes_per_second {
            let time = Duration::from_secs(1).mul_f64(bytes.len() as f64 / f64::from(rate.max(1)));
            busy_until = busy_until.max(Instant::now()) + time;
            tokio::time::sleep_until(busy_until).await;
        }
        if flow(&state) == Flow::Swallowed {
            continue;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let written = retried(|| to.writable(), || to.try_write(rest)).await?;
            rest = &rest[written..];
        }
    }
    Ok(())
}

/// Tries again whenever the socket says that it is worth it.
async fn retried<F: Future<Output = IoResult<()>>>(
    ready: impl Fn() -> F,
    mut attempt: impl FnMut() -> IoResult<usize>,
) -> IoResult<usize> {
    loop {
        ready().await?;
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Instant;

    use super::{Cut, Duration, ErrorKind, Flow, Link, Proxy};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A client and the server's end behind a proxy.
    struct Ends {
        proxy: Proxy,
        client: std::net::TcpStream,
        server: std::net::TcpStream,
    }

    fn ends(link: Link) -> Ends {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::start_with(listener.local_addr().unwrap().port(), link).unwrap();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        // Both directions are under way.
        client.write_all(b"a").unwrap();
        server.read_exact(&mut [0]).unwrap();
        Ends { proxy, client, server }
    }

    fn end_of(stream: &mut std::net::TcpStream) -> std::io::Result<usize> {
        stream.read(&mut [0])
    }

    fn is_reset(ended: &std::io::Result<usize>) -> bool {
        ended
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    fn is_silent(stream: &mut std::net::TcpStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let silent = end_of(stream).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    #[test]
    fn bytes_are_counted_late_and_slow_as_the_link_says() {
        let link = Link {
            delay: Duration::from_millis(80),
            bytes_per_second: Some(10_000),
            ..Link::default()
        };
        let mut ends = ends(link);
        let begun = Instant::now();
        ends.client.write_all(&[7; 2_000]).unwrap();
        let mut got = [0; 2_000];
        ends.server.read_exact(&mut got).unwrap();
        let took = begun.elapsed();
        assert_eq!(got, [7; 2_000]);
        assert_eq!((ends.proxy.bytes(), ends.proxy.bytes_up()), (2_001, 2_001));
        assert!(took >= Duration::from_millis(270), "{took:?} for 80 ms and 200 ms");
    }

    #[test]
    fn a_partition_loses_nothing_and_a_black_hole_everything() {
        let held = Link {
            up: Flow::Held,
            down: Flow::Held,
            ..Link::default()
        };
        let mut ends = ends(Link::default());
        ends.proxy.set(held);
        ends.client.write_all(b"b").unwrap();
        assert!(is_silent(&mut ends.server));
        ends.proxy.set(Link::default());
        let mut got = [0];
        ends.server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"b");
        ends.proxy.set(Link {
            down: Flow::Swallowed,
            ..Link::default()
        });
        ends.server.write_all(b"c").unwrap();
        assert!(is_silent(&mut ends.client));
        ends.proxy.set(Link::default());
        ends.server.write_all(b"d").unwrap();
        ends.client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"d");
    }

    #[test]
    fn a_reset_is_told_to_both_and_a_half_open_connection_to_one_until_the_link_heals() {
        let mut both = ends(Link::default());
        both.proxy.cut(Cut::Reset);
        assert!(is_reset(&end_of(&mut both.client)) && is_reset(&end_of(&mut both.server)));
        let mut ends = ends(Link::default());
        ends.proxy.cut(Cut::ClientHalfOpen);
        assert!(is_reset(&end_of(&mut ends.server)));
        ends.client.write_all(b"nobody hears it").unwrap();
        assert!(is_silent(&mut ends.client));
        ends.proxy.heal();
        assert!(is_reset(&end_of(&mut ends.client)));
    }

    #[test]
    fn a_half_closed_connection_goes_on_in_the_other_direction() {
        let mut ends = ends(Link::default());
        ends.proxy.cut(Cut::HalfClose);
        assert_eq!(end_of(&mut ends.server).unwrap(), 0);
        ends.server.write_all(b"e").unwrap();
        let mut got = [0];
        ends.client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"e");
    }
}
