//! A broker inside central, so that a small chain needs nothing else: MQTT 5, QoS 0 and 1, retained messages, wills.
//!
//! In: TLS connections of stores and other archives, each with a certificate; streams of this process.
//! Out: the feed's topics between them, as [`rights`] allows.
//! It never stores anything on disk, since agents keep what is not acknowledged; it keeps no session of a client that is
//! gone, and nothing in it grows without a bound. `docs/adr/0001-embedded-broker.md` says why it is our own.
//!
//! ```text
//!  store ═TLS═► listener: certificate ─► session ─┐            ┌─► session ─duplex─► intake (central itself)
//!  store ═TLS═► listener: certificate ─► session ─┴─► hub ─────┼─► session ═TLS═► another archive
//!                                                  retained    └─► sessions of stores: acks, commands
//!                                                  wills
//! ```
//! A store waits while a reader of its messages is slow; a store that does not read what is said to it loses it.

mod rights;
mod wire;
mod hub;
mod session;

use crate::config::EmbeddedBrokerConfig;
use crate::health::Counts;
use crate::tls;
use hub::Hub;
use session::Peer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

/// A handshake may take this long.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes at a time. They have places of their own, so that whoever has no certificate takes none of a store.
const HANDSHAKES_MAX: usize = 256;
/// Pause after the system refused to accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes under way in each direction of a stream inside this process.
const STREAM_BYTES: usize = 64 * 1024;

/// What happened; each bound that was hit has its own number.
#[derive(Debug, Default)]
pub struct BrokerCounters {
    pub connections: AtomicU64,
    pub connections_refused: AtomicU64,
    pub handshakes_refused: AtomicU64,
    pub publications: AtomicU64,
    pub publications_refused: AtomicU64,
    pub subscriptions_refused: AtomicU64,
    /// For a store that did not read what was said to it.
    pub publications_dropped: AtomicU64,
    /// For a reader that takes smaller packets only.
    pub publications_too_large: AtomicU64,
    pub retained_refused: AtomicU64,
    /// Told before their time, since as many waited as may.
    pub wills_early: AtomicU64,
    pub slow_readers: AtomicU64,
}

impl BrokerCounters {
    fn count(number: &AtomicU64) {
        number.fetch_add(1, Ordering::Relaxed);
    }

    /// Each with its name.
    pub fn all(&self) -> Counts {
        let all = [
            ("connections", &self.connections),
            ("connections_refused", &self.connections_refused),
            ("handshakes_refused", &self.handshakes_refused),
            ("publications", &self.publications),
            ("publications_refused", &self.publications_refused),
            ("subscriptions_refused", &self.subscriptions_refused),
            ("publications_dropped", &self.publications_dropped),
            ("publications_too_large", &self.publications_too_large),
            ("retained_refused", &self.retained_refused),
            ("wills_early", &self.wills_early),
            ("slow_readers", &self.slow_readers),
        ];
        all.map(|(name, number)| (name, number.load(Ordering::Relaxed))).into()
    }
}

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// A running broker; its tasks end with the runtime.
pub struct Broker {
    hub: Arc<Hub>,
    /// Where it listens with TLS, with the port that the system chose.
    pub address: Option<SocketAddr>,
    pub address_plain: Option<SocketAddr>,
}

impl Broker {
    /// Starts listening.
    ///
    /// # Errors
    /// When an address is taken or a certificate cannot be used.
    pub async fn start(config: &EmbeddedBrokerConfig) -> Result<Self, BrokerError> {
        let hub = Arc::new(Hub::new(config.archives.clone(), config.connections_max));
        let room = Arc::new(Semaphore::new(config.connections_max));
        let mut broker = Self {
            hub: Arc::clone(&hub),
            address: None,
            address_plain: None,
        };
        if let Some((address, files)) = &config.listen {
            let acceptor = TlsAcceptor::from(tls::server(files)?);
            let (listener, address) = bind(*address).await?;
            broker.address = Some(address);
            tokio::spawn(accept(listener, Some(acceptor), Arc::clone(&hub), Arc::clone(&room)));
        }
        if let Some(address) = config.listen_plain {
            let (listener, address) = bind(address).await?;
            broker.address_plain = Some(address);
            tokio::spawn(accept(listener, None, hub, room));
        }
        info!(address = ?broker.address, address_plain = ?broker.address_plain, "broker listens");
        Ok(broker)
    }

    /// A connection for central itself, with central's rights.
    ///
    /// # Errors
    /// When it is called outside of a runtime.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        runtime.spawn(session::serve(theirs, Peer::Central, Arc::clone(&self.hub)));
        Ok(ours)
    }

    pub fn counters(&self) -> &BrokerCounters {
        &self.hub.counters
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let failed = |source| BrokerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, hub: Arc<Hub>, room: Arc<Semaphore>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
            BrokerCounters::count(&hub.counters.handshakes_refused);
            warn!(%from, "more handshakes at a time than allowed");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%from, %error, "socket option not set");
        }
        let (acceptor, hub, room) = (acceptor.clone(), Arc::clone(&hub), Arc::clone(&room));
        tokio::spawn(async move {
            let Some(acceptor) = acceptor else {
                drop(handshake);
                return seat(stream, Peer::Claimed, from, hub, room).await;
            };
            let secured = secure(stream, from, &acceptor, &hub).await;
            drop(handshake);
            if let Some((stream, peer)) = secured {
                seat(stream, peer, from, hub, room).await;
            }
        });
    }
}

/// The stream with TLS, and whom its certificate names.
async fn secure(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: &TlsAcceptor,
    hub: &Hub,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let name = chain.and_then(|chain| chain.first()).and_then(tls::common_name);
            return Some((stream, Peer::Certified(name.unwrap_or_default())));
        }
        Ok(Err(error)) => warn!(%from, %error, "no secure connection"),
        Err(_elapsed) => {}
    }
    BrokerCounters::count(&hub.counters.connections_refused);
    None
}

/// Serves a connection when there is a place.
async fn seat<S: AsyncRead + AsyncWrite + Send>(
    stream: S,
    peer: Peer,
    from: SocketAddr,
    hub: Arc<Hub>,
    room: Arc<Semaphore>,
) {
    let Ok(_place) = room.try_acquire_owned() else {
        BrokerCounters::count(&hub.counters.connections_refused);
        warn!(%from, "more connections than allowed");
        return;
    };
    session::serve(stream, peer, hub).await;
}
