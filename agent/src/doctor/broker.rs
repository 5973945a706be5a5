//! The way to the broker: name, connection, TLS with both certificates, and how long these are good.
//!
//! It says nothing in MQTT: a second client of the site's name would end the connection of the agent that runs.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::{CertificateDer, ServerName};

use super::finding::{Finding, Part};
use crate::config::Broker;
use crate::tls::{DAY_MS, DAYS_LEFT_MIN, ends_ms};
use crate::uplink::connect;

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A broker that does not like our certificate says so a moment after the handshake.
const REFUSAL_MAX: Duration = Duration::from_millis(500);
/// Tickets of the session come in the meantime.
const READS_MAX: usize = 8;

pub(super) fn examine(broker: &Broker, now_ms: u64) -> Vec<Finding> {
    let (host, port) = (&broker.address.host, broker.address.port);
    let stream = match dial(broker) {
        Ok(stream) => stream,
        Err(error) => {
            let hint = match broker.proxy {
                Some(_) => "correct proxy and its login, or have the proxy allow the broker's name and port",
                None => "correct url, or open the way: name server, firewall, and whether the broker runs",
            };
            return vec![Finding::bad(Part::Broker, format!("{host}:{port}: {error:#}"), hint)];
        }
    };
    let Some(tls) = &broker.tls else {
        let what = format!("{host}:{port}: takes a connection");
        return vec![Finding::good(Part::Broker, what)];
    };
    let mut found = Vec::new();
    match handshake(host, stream, tls.config()) {
        Ok(certificate) => {
            let what = format!("{host}:{port}: takes a connection and both certificates");
            found.push(Finding::good(Part::Broker, what));
            found.extend(certificate.map(|theirs| days("the broker's certificate", &theirs, now_ms)));
        }
        Err(error) => {
            let text = error.to_string();
            found.push(Finding::bad(
                Part::Broker,
                format!("{host}:{port}: {text}"),
                hint(&text),
            ));
        }
    }
    found.extend(
        tls.certificate()
            .map(|ours| days("this site's certificate", &ours, now_ms)),
    );
    found
}

/// As the uplink connects, also through its proxy.
fn dial(broker: &Broker) -> anyhow::Result<TcpStream> {
    let runtime = crate::run::runtime()?;
    let stream = runtime.block_on(connect(&broker.address, broker.proxy.as_ref(), Arc::default()))?;
    let stream = stream.into_inner().into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The broker's certificate, once it has taken ours.
fn handshake(
    host: &str,
    mut stream: TcpStream,
    tls: &Arc<ClientConfig>,
) -> io::Result<Option<CertificateDer<'static>>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    stream.set_read_timeout(Some(CONNECT_MAX))?;
    stream.set_write_timeout(Some(CONNECT_MAX))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    stream.set_read_timeout(Some(REFUSAL_MAX))?;
    for _read in 0..READS_MAX {
        match connection.complete_io(&mut stream) {
            Ok((0, _written)) => return Err(io::Error::other("it hung up once it saw this site's certificate")),
            Ok(_more) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        }
    }
    let theirs = connection.peer_certificates().and_then(<[_]>::first);
    Ok(theirs.map(|theirs| theirs.clone().into_owned()))
}

fn hint(error: &str) -> &'static str {
    for (said, hint) in [
        ("UnknownIssuer", "`ca` must be the certificate that signed the broker's"),
        // Of an authority that has the name of ours.
        ("BadSignature", "`ca` must be the certificate that signed the broker's"),
        (
            "NotValidForName",
            "write the name that is in the broker's certificate in `url`",
        ),
        (
            "not valid for name",
            "write the name that is in the broker's certificate in `url`",
        ),
        (
            "xpired",
            "renew the certificate that is meant, or set the clock of this machine",
        ),
        ("NotValidYet", "set the clock of this machine"),
    ] {
        if error.contains(said) {
            return hint;
        }
    }
    "the broker must trust the authority of `certificate`, and the port must be the one with TLS"
}

fn days(whose: &str, certificate: &CertificateDer<'_>, now_ms: u64) -> Finding {
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let Some(end_ms) = ends_ms(certificate) else {
        let hint = "look with openssl x509 -noout -enddate";
        return Finding::note(Part::Broker, format!("{whose}: its end is not understood"), hint);
    };
    let left = (end_ms - now_ms) / DAY_MS;
    let what = format!("{whose} is good for {left} days");
    match left {
        _ if end_ms <= now_ms => Finding::bad(Part::Broker, format!("{whose} has expired"), "renew it"),
        0..DAYS_LEFT_MIN => Finding::note(Part::Broker, what, "renew it before that"),
        _ => Finding::good(Part::Broker, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;
    use crate::tls::{Tls, of_read};
    use rcgen::{CertificateParams, CertifiedIssuer, Issuer, KeyPair, date_time_ymd};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, ServerConnection};
    use rustls_pki_types::PrivateKeyDer;
    use std::net::TcpListener;

    /// 2026-03-02
    const NOW_MS: u64 = 1_772_409_600_000;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn roots(&self) -> RootCertStore {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            roots
        }

        fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, issuer(&self.0)).unwrap();
            (
                certificate.der().clone(),
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
        }
    }

    fn issuer<'a>(issuer: &'a CertifiedIssuer<'static, KeyPair>) -> &'a Issuer<'static, KeyPair> {
        issuer
    }

    /// A broker that asks for a certificate of `clients`; it holds the connection until the other side ends it.
    fn listen(server: &Authority, clients: &Authority, name: &str) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), Arc::clone(&provider)).build();
        let (certificate, key) = server.issue(name);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _from) = listener.accept().unwrap();
            let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
            while matches!(connection.complete_io(&mut stream), Ok((read, written)) if read + written > 0) {}
        });
        port
    }

    fn broker(port: u16, trusted: &Authority, own: &Authority) -> Broker {
        let (certificate, key) = own.issue("store-0412");
        Broker {
            address: crate::uplink::BrokerAddress {
                host: "localhost".to_owned(),
                port,
                is_secure: true,
            },
            tls: Some(Tls::of(of_read(trusted.roots(), vec![certificate], key).unwrap())),
            proxy: None,
            bytes_per_day: None,
            shard: "a".parse().unwrap(),
            archives: Vec::new(),
            is_broker_enough: false,
            reconnect_within_ms: 0,
        }
    }

    #[test]
    fn a_broker_that_takes_both_certificates_is_good_and_one_that_does_not_says_which_is_wrong() {
        let (own, other) = (Authority::new(), Authority::new());
        for (server, clients, name, is_good, hint) in [
            (&own, &own, "localhost", true, ""),
            (&other, &own, "localhost", false, "`ca` must be"),
            (&own, &own, "elsewhere", false, "in `url`"),
            (&own, &other, "localhost", false, "must trust"),
        ] {
            let found = examine(&broker(listen(server, clients, name), &own, &own), NOW_MS);
            let first = &found[0];
            assert_eq!(first.state == State::Good, is_good, "{found:?}");
            assert!(first.hint.contains(hint), "{found:?}");
            assert_eq!(found.len(), if is_good { 3 } else { 2 }, "{found:?}");
        }
        let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(examine(&broker(down, &own, &own), NOW_MS)[0].is_bad());
    }

    #[test]
    fn a_certificate_is_told_before_it_ends() {
        for (year, month, day, state, what) in [
            (2027, 3, 2, State::Good, "good for 365 days"),
            (2026, 3, 12, State::Note, "good for 10 days"),
            (2026, 3, 1, State::Bad, "has expired"),
            (2060, 3, 2, State::Good, "good for 12419 days"),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, month, day);
            let certificate = params.self_signed(&key).unwrap();
            let found = days("it", certificate.der(), NOW_MS);
            assert!(found.state == state && found.what.contains(what), "{found:?}");
        }
        let nonsense = days("it", &CertificateDer::from(vec![0x30, 0x84, 0xff]), NOW_MS);
        assert_eq!(nonsense.state, State::Note);
    }
}
