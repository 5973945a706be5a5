//! The way to a database server: one connection to a checked address, TLS by the operator's authority, all by a deadline.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tillwatch_border::PeerFault;

use super::super::{PeerError, secret};
use super::Server;
use crate::tls::authorities;

/// Connects to the first address that answers.
///
/// # Errors
/// When none is granted, or none answers.
pub(super) fn connect(server: &Server, deadline: Instant) -> Result<TcpStream, PeerError> {
    connect_any(&server.place.resolve(left(deadline)?)?, deadline)
}

/// Asks over the connection that was kept; a server that was started anew has closed it, and is asked over a new one.
///
/// # Errors
/// When it cannot be connected to, and what `ask` says.
pub(super) fn ask_kept_or_new<C, T>(
    kept: Option<C>,
    connect: impl Fn() -> Result<C, PeerError>,
    mut ask: impl FnMut(C) -> Result<T, PeerError>,
) -> Result<T, PeerError> {
    match kept.map(&mut ask) {
        Some(Err(error)) if error.fault != PeerFault::Unreachable => Err(error),
        Some(Ok(answer)) => Ok(answer),
        Some(Err(_)) | None => ask(connect()?),
    }
}

/// Each address has its share of the time that is left.
fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, PeerError> {
    let mut last = PeerError::new(PeerFault::Unreachable, "its name has no address");
    for (address, share) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, left(deadline)? / share) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

/// # Errors
/// When nothing is left.
pub(super) fn left(deadline: Instant) -> Result<Duration, PeerError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(PeerError::new(PeerFault::Timeout, "the server took too long"));
    }
    Ok(left)
}

/// # Errors
/// When its file is not one line of text.
pub(super) fn password(server: &Server) -> Result<Option<String>, PeerError> {
    server.secret_file.as_deref().map(secret).transpose()
}

/// TLS without a certificate of our own: the server asks for a name and password instead.
///
/// # Errors
/// When the authority's file cannot be used.
pub(super) fn trusting(ca: &Path) -> Result<Arc<rustls::ClientConfig>, PeerError> {
    let roots = authorities(ca).map_err(|error| PeerError::denied(error.to_string()))?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| PeerError::denied(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// # Errors
/// When no certificate can be for it.
pub(super) fn tls_name(server: &Server) -> Result<ServerName<'static>, PeerError> {
    ServerName::try_from(server.place.host.clone())
        .map_err(|error| PeerError::new(PeerFault::Untrusted, error.to_string()))
}

/// What went wrong with a stream; that a certificate is not trusted comes that way, too.
pub(super) fn failed(error: &io::Error) -> PeerError {
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let fault = match error.kind() {
        _ if is_tls => PeerFault::Untrusted,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => PeerFault::Timeout,
        _ => PeerFault::Unreachable,
    };
    PeerError::new(fault, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A first address that swallowed what was sent to it had all the time, and the second was never tried.
    #[test]
    fn each_address_has_its_share_of_the_time() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let silent = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket.listen(0).unwrap()
        });
        let silent_address = silent.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Once its queue is full, nobody answers.
        while let Ok(stream) = TcpStream::connect_timeout(&silent_address, Duration::from_millis(100)) {
            waiting.push(stream);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let stream = connect_any(&[silent_address, open], Instant::now() + Duration::from_secs(1)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
    }

    #[test]
    fn only_what_tls_says_is_untrusted() {
        let said = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        assert_eq!(failed(&said).fault, PeerFault::Untrusted);
        for (kind, fault) in [
            (io::ErrorKind::ConnectionReset, PeerFault::Unreachable),
            (io::ErrorKind::UnexpectedEof, PeerFault::Unreachable),
            (io::ErrorKind::WouldBlock, PeerFault::Timeout),
        ] {
            assert_eq!(failed(&kind.into()).fault, fault, "{kind}");
        }
    }
}
