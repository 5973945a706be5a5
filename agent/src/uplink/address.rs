//! The broker's address as the operator writes it.
//!
//! In: a URL. Out: host, port, and whether TLS is used; or what to write instead. It resolves nothing.

use std::net::IpAddr;

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    pub host: String,
    pub port: u16,
    /// `mqtts`; without it only a broker on the same machine is accepted.
    pub is_secure: bool,
}

/// What is wrong with a broker's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{url:?} begins with neither mqtts:// nor mqtt://\nhint: mqtts://central.example.com:8883")]
    Scheme { url: String },
    #[error("{url:?} names no host, or no valid port\nhint: mqtts://central.example.com:8883")]
    Host { url: String },
    #[error("{url:?} would send without TLS to another machine\nhint: use mqtts://, or a loopback address for tests")]
    Unencrypted { url: String },
}

/// Reads `mqtts://host[:port]`, and `mqtt://` for loopback.
///
/// # Errors
/// See `UrlError`.
pub fn parse_url(url: &str) -> Result<BrokerAddress, UrlError> {
    let scheme = |prefix| url.strip_prefix(prefix);
    let (rest, is_secure) = match (scheme("mqtts://"), scheme("mqtt://")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return Err(UrlError::Scheme { url: url.to_owned() }),
    };
    let bad_host = || UrlError::Host { url: url.to_owned() };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_not_a_port| bad_host())?),
        _ => (rest, if is_secure { 8883 } else { 1883 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) || port == 0 {
        return Err(bad_host());
    }
    if !is_secure && !is_loopback(host) {
        return Err(UrlError::Unencrypted { url: url.to_owned() });
    }
    Ok(BrokerAddress {
        host: host.to_owned(),
        port,
        is_secure,
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16, is_secure: bool) -> BrokerAddress {
        BrokerAddress {
            host: host.to_owned(),
            port,
            is_secure,
        }
    }

    #[test]
    fn an_address_without_tls_is_accepted_for_loopback_alone() {
        assert_eq!(
            parse_url("mqtts://a.example:8884"),
            Ok(address("a.example", 8884, true))
        );
        assert_eq!(parse_url("mqtts://a.example"), Ok(address("a.example", 8883, true)));
        assert_eq!(
            parse_url("mqtt://127.0.0.1:1884"),
            Ok(address("127.0.0.1", 1884, false))
        );
        assert_eq!(parse_url("mqtt://[::1]"), Ok(address("::1", 1883, false)));
        assert!(matches!(
            parse_url("mqtt://a.example"),
            Err(UrlError::Unencrypted { .. })
        ));
        assert!(matches!(
            parse_url("mqtt://localhost.example"),
            Err(UrlError::Unencrypted { .. })
        ));
        assert!(matches!(parse_url("tcp://a.example"), Err(UrlError::Scheme { .. })));
        for url in [
            "mqtts://",
            "mqtts://:1",
            "mqtts://a:0",
            "mqtts://a:b",
            "mqtts://a/b",
            "mqtts://u:p@a",
        ] {
            assert!(matches!(parse_url(url), Err(UrlError::Host { .. })), "{url}");
        }
    }
}
