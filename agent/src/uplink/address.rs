//! The addresses of broker and proxy as the operator writes them.
//!
//! In: a URL. Out: host, port, and whether TLS is used, or of what kind the proxy is; or what to write instead. It
//! resolves nothing.

use std::net::IpAddr;

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    pub host: String,
    pub port: u16,
    /// `mqtts`; without it only a broker on the same machine is accepted.
    pub is_secure: bool,
}

/// Where the proxy is, which resolves the broker's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAddress {
    pub kind: ProxyKind,
    pub host: String,
    pub port: u16,
}

/// How the proxy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// By CONNECT.
    Http,
    Socks5,
}

/// What is wrong with the address of a broker or proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{url:?} begins with neither mqtts:// nor mqtt://\nhint: mqtts://central.example.com:8883")]
    Scheme { url: String },
    #[error("{url:?} names no host, or no valid port\nhint: mqtts://central.example.com:8883")]
    Host { url: String },
    #[error("{url:?} would send without TLS to another machine\nhint: use mqtts://, or a loopback address for tests")]
    Unencrypted { url: String },
    #[error("{url:?} is no address of a proxy\nhint: http://proxy.example.com:3128 or socks5://proxy.example.com:1080")]
    Proxy { url: String },
    /// It is not repeated: it holds a password.
    #[error("it holds a name or password\nhint: write proxy_user and proxy_secret_file instead")]
    ProxyLogin,
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
    let (host, port) = host_and_port(rest, if is_secure { 8883 } else { 1883 }).ok_or_else(bad_host)?;
    if !is_secure && !is_loopback(&host) {
        return Err(UrlError::Unencrypted { url: url.to_owned() });
    }
    Ok(BrokerAddress { host, port, is_secure })
}

/// Reads `http://host[:port]` and `socks5://host[:port]`.
///
/// # Errors
/// See `UrlError`.
pub fn parse_proxy(url: &str) -> Result<ProxyAddress, UrlError> {
    if url.contains('@') {
        return Err(UrlError::ProxyLogin);
    }
    let wrong = || UrlError::Proxy { url: url.to_owned() };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (kind, port) = match scheme {
        "http" => (ProxyKind::Http, 3128),
        "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
        _ => return Err(wrong()),
    };
    let (host, port) = host_and_port(rest, port).ok_or_else(wrong)?;
    Ok(ProxyAddress { kind, host, port })
}

fn host_and_port(text: &str, port: u16) -> Option<(String, u16)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // What a proxy is told must not hold another line.
    let is_one_word = host.bytes().all(|byte| byte.is_ascii_graphic());
    (is_one_word && !host.is_empty() && !host.contains(['/', '@', '?', '#']) && port != 0)
        .then(|| (host.to_owned(), port))
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
            "mqtts://a b",
            "mqtts://a\r\nb",
        ] {
            assert!(matches!(parse_url(url), Err(UrlError::Host { .. })), "{url}");
        }
    }

    #[test]
    fn a_proxy_is_one_of_two_kinds_and_its_password_is_never_repeated() {
        let proxy = |kind, host: &str, port| {
            let host = host.to_owned();
            Ok(ProxyAddress { kind, host, port })
        };
        assert_eq!(parse_proxy("http://proxy:8080"), proxy(ProxyKind::Http, "proxy", 8080));
        assert_eq!(parse_proxy("http://[::1]/"), proxy(ProxyKind::Http, "::1", 3128));
        assert_eq!(
            parse_proxy("socks5://10.0.0.1"),
            proxy(ProxyKind::Socks5, "10.0.0.1", 1080)
        );
        for url in ["proxy:3128", "https://proxy", "http://", "socks5://a/b", "http://a:0"] {
            assert!(matches!(parse_proxy(url), Err(UrlError::Proxy { .. })), "{url}");
        }
        let told = parse_proxy("http://till:open-sesame@proxy").unwrap_err().to_string();
        assert!(told.contains("proxy_secret_file") && !told.contains("sesame"), "{told}");
    }
}
