//! The connection below TLS and MQTT: to the broker, or to the proxy that opens the way; each byte of it is counted.
//!
//! In: addresses. Out: a stream on which the broker is spoken to next, or why not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::BrokerAddress;
use super::proxy::Proxy;
use crate::platform::end_when_unheard;

/// For the connection, and as much again for the proxy's way to the broker.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What the other side's machine does not confirm in this time ends the connection.
pub(crate) const UNHEARD_MAX: Duration = Duration::from_secs(60);

/// Bytes of all connections since the start, both ways, as TCP carries them.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

/// Connects to the broker, through the proxy when there is one.
pub(crate) async fn connect(
    broker: &BrokerAddress,
    proxy: Option<&Proxy>,
    traffic: Arc<Traffic>,
) -> io::Result<Counted<TcpStream>> {
    let Some(proxy) = proxy else {
        return Ok(Counted::new(
            dial(&broker.host, broker.port, "the broker").await?,
            traffic,
        ));
    };
    let to_proxy = dial(&proxy.address.host, proxy.address.port, "the proxy").await?;
    let mut stream = Counted::new(to_proxy, traffic);
    match timeout(CONNECT_MAX, proxy.open(&mut stream, &broker.host, broker.port)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_elapsed) => Err(late("the proxy opens no way to the broker")),
    }
}

async fn dial(host: &str, port: u16, whom: &str) -> io::Result<TcpStream> {
    match timeout(CONNECT_MAX, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            end_when_unheard(&stream, UNHEARD_MAX)?;
            Ok(stream)
        }
        Ok(Err(error)) => Err(io::Error::new(
            error.kind(),
            format!("{whom} at {host}:{port}: {error}"),
        )),
        Err(_elapsed) => Err(late(&format!("{whom} at {host}:{port} does not answer"))),
    }
}

fn late(what: &str) -> io::Error {
    let message = format!("{what} within {} s", CONNECT_MAX.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S> Counted<S> {
    fn new(stream: S, traffic: Arc<Traffic>) -> Self {
        Self { stream, traffic }
    }

    /// The stream alone.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.traffic.received.fetch_add(read as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.traffic.sent.fetch_add(written as u64, Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    // `poll_write_vectored` is left as it is given: it comes back to `poll_write`, so that nothing goes uncounted.
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_nobody_hears_ends_sooner_than_tcp_would() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = dial("127.0.0.1", port, "the broker").await.unwrap();
        let unheard_ms = rustix::net::sockopt::tcp_user_timeout(&stream).unwrap();
        assert_eq!(Duration::from_millis(u64::from(unheard_ms)), UNHEARD_MAX);
    }

    #[tokio::test]
    async fn every_byte_of_both_directions_is_counted_over_all_connections() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let broker = BrokerAddress {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            is_secure: false,
        };
        let traffic = Arc::new(Traffic::default());
        for _connection in 0..2 {
            let mut near = connect(&broker, None, Arc::clone(&traffic)).await.unwrap();
            let (mut far, _from) = listener.accept().await.unwrap();
            near.write_all(&[1; 300]).await.unwrap();
            far.write_all(&[2; 70]).await.unwrap();
            near.read_exact(&mut [0; 70]).await.unwrap();
        }
        assert_eq!((traffic.sent(), traffic.received()), (600, 140));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_never_answers_is_given_up_with_words_of_its_own() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let address = super::super::address::parse_proxy(&url).unwrap();
        let proxy = Proxy { address, login: None };
        let broker = super::super::parse_url("mqtts://broker.example.com").unwrap();
        let error = connect(&broker, Some(&proxy), Arc::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the proxy opens no way to the broker within 10 s");
    }
}
