//! Through a proxy of the store's network: HTTP CONNECT or SOCKS5.
//!
//! In: a connection to the proxy, the broker's name and port, which the proxy resolves. Out: the same connection, on which
//! the broker is spoken to next, or why not, with what to do.
//! An answer is read to its bound and not a byte beyond its end: what follows is the broker's. A password is read for each
//! connection and is in no message.
//! Sources: RFC 9110, section 9.3.6; RFC 7617; RFC 1928; RFC 1929.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::address::{ProxyAddress, ProxyKind};
use crate::source::peer::http::base64;
use crate::whole::read_line;

/// Of an HTTP proxy's answer.
const ANSWER_BYTES_MAX: usize = 8 << 10;
const SECRET_BYTES_MAX: u64 = 4 << 10;
/// Of SOCKS.
const VERSION: u8 = 5;

/// How to reach the broker through a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub address: ProxyAddress,
    pub login: Option<ProxyLogin>,
}

/// Whom the proxy knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyLogin {
    pub user: String,
    /// One line, the password.
    pub secret_file: PathBuf,
}

/// Why there is no way through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the proxy's password in {} cannot be read", file.display())]
    Secret {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to the proxy broke")]
    Broken(#[from] io::Error),
    #[error("the proxy wants a login: set proxy_user and proxy_secret_file")]
    LoginMissing,
    #[error("the proxy refuses the login: compare proxy_user and what is in proxy_secret_file")]
    LoginRefused,
    #[error("the proxy refuses the way to the broker: {0}; its rules must allow the broker's name and port")]
    Refused(String),
    #[error("the proxy answers in another language: write its kind, http:// or socks5://, in `proxy`")]
    Malformed,
    #[error("the proxy's answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("SOCKS5 takes names and passwords of 1 to 255 bytes")]
    LoginLength,
}

impl Proxy {
    /// Has the proxy open the way.
    pub(super) async fn open<S>(&self, stream: &mut S, host: &str, port: u16) -> Result<(), ProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let secret = |login: &ProxyLogin| {
            read_line(&login.secret_file, SECRET_BYTES_MAX).map_err(|source| ProxyError::Secret {
                file: login.secret_file.clone(),
                source,
            })
        };
        let login = self.login.as_ref();
        let password = login.map(secret).transpose()?;
        let login = login.map(|login| login.user.as_str()).zip(password.as_deref());
        match self.address.kind {
            ProxyKind::Http => connect(stream, host, port, login).await,
            ProxyKind::Socks5 => socks5(stream, host, port, login).await,
        }
    }
}

async fn connect<S>(stream: &mut S, host: &str, port: u16, login: Option<(&str, &str)>) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some((user, password)) = login {
        let pair = base64(format!("{user}:{password}").as_bytes());
        request += &format!("Proxy-Authorization: Basic {pair}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    match status(&answer(stream).await?)? {
        (200..=299, _) => Ok(()),
        (407, _) if login.is_some() => Err(ProxyError::LoginRefused),
        (407, _) => Err(ProxyError::LoginMissing),
        (_, line) => Err(ProxyError::Refused(line)),
    }
}

/// The head of the answer. It is short and comes once: byte by byte, since nothing says where it ends before it does.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ProxyError> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(ProxyError::TooLarge);
        }
        answer.push(stream.read_u8().await?);
        let wanted = b"HTTP/1.";
        if answer.len() == wanted.len() && answer != wanted {
            return Err(ProxyError::Malformed);
        }
    }
    Ok(answer)
}

/// The status and what may be said of its line: letters and digits, at most so many.
fn status(answer: &[u8]) -> Result<(u16, String), ProxyError> {
    const SAID_MAX: usize = 64;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (_version, rest) = line.split_at_checked(9).ok_or(ProxyError::Malformed)?;
    let code = rest.get(..3).and_then(|code| std::str::from_utf8(code).ok());
    let code = code.and_then(|code| code.parse().ok()).ok_or(ProxyError::Malformed)?;
    let shown = rest.iter().take(SAID_MAX).map(|byte| char::from(*byte));
    Ok((code, shown.filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect()))
}

async fn socks5<S>(stream: &mut S, host: &str, port: u16, login: Option<(&str, &str)>) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    greet(stream, login).await?;
    stream.write_all(&socks5_request(host, port)?).await?;
    stream.flush().await?;
    let [version, reply, _reserved, kind] = read(stream).await?;
    match (version, reply) {
        (VERSION, 0) => bound_address(stream, kind).await,
        (VERSION, reply) => Err(ProxyError::Refused(reply_text(reply).to_owned())),
        _ => Err(ProxyError::Malformed),
    }
}

async fn greet<S>(stream: &mut S, login: Option<(&str, &str)>) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const NO_LOGIN: u8 = 0;
    const LOGIN: u8 = 2;
    let methods: &[u8] = if login.is_some() {
        &[VERSION, 2, NO_LOGIN, LOGIN]
    } else {
        &[VERSION, 1, NO_LOGIN]
    };
    stream.write_all(methods).await?;
    stream.flush().await?;
    match (read(stream).await?, login) {
        ([VERSION, NO_LOGIN], _) => Ok(()),
        ([VERSION, LOGIN], Some((user, password))) => log_in(stream, user, password).await,
        ([VERSION, _], None) => Err(ProxyError::LoginMissing),
        ([VERSION, _], Some(_)) => Err(ProxyError::LoginRefused),
        _ => Err(ProxyError::Malformed),
    }
}

fn socks5_request(host: &str, port: u16) -> Result<Vec<u8>, ProxyError> {
    let mut request = vec![VERSION, 1, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_name) => {
            let length =
                u8::try_from(host.len()).map_err(|_too_long| ProxyError::Refused("name too long".to_owned()))?;
            request.extend([3, length]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

async fn log_in<S>(stream: &mut S, user: &str, password: &str) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![1];
    for text in [user, password] {
        let length = u8::try_from(text.len()).map_err(|_too_long| ProxyError::LoginLength)?;
        if length == 0 {
            return Err(ProxyError::LoginLength);
        }
        request.push(length);
        request.extend(text.as_bytes());
    }
    stream.write_all(&request).await?;
    stream.flush().await?;
    match read(stream).await? {
        [_, 0] => Ok(()),
        _ => Err(ProxyError::LoginRefused),
    }
}

/// Of no use to us, but it stands before what the broker says.
async fn bound_address<S: AsyncRead + Unpin>(stream: &mut S, kind: u8) -> Result<(), ProxyError> {
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(ProxyError::Malformed),
    };
    let mut rest = vec![0; length + 2];
    stream.read_exact(&mut rest).await?;
    Ok(())
}

fn reply_text(reply: u8) -> &'static str {
    match reply {
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable, or a name that it does not know",
        5 => "connection refused",
        6 => "it took too long",
        7 | 8 => "it does not do this",
        _ => "it failed",
    }
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Says `answer` whatever it is asked, then what the broker would say; what it heard, and what came of it.
    async fn ask(kind: ProxyKind, login: Option<(&str, &str)>, answer: &[u8]) -> (Vec<u8>, Result<u8, ProxyError>) {
        let folder = tempfile::tempdir().unwrap();
        let secret_file = folder.path().join("secret");
        let login = login.map(|(user, password)| {
            std::fs::write(&secret_file, format!("{password}\n")).unwrap();
            let user = user.to_owned();
            let secret_file = secret_file.clone();
            ProxyLogin { user, secret_file }
        });
        let (host, port) = ("proxy".to_owned(), 1);
        let address = ProxyAddress { kind, host, port };
        let proxy = Proxy { address, login };
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(answer).await.unwrap();
        far.write_all(b"B").await.unwrap();
        let opened = proxy.open(&mut near, "broker.example.com", 8883);
        let opened = tokio::time::timeout(Duration::from_secs(5), opened).await.unwrap();
        let next = match opened {
            Ok(()) => Ok(near.read_u8().await.unwrap()),
            Err(error) => Err(error),
        };
        drop(near);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        (heard, next)
    }

    fn text(result: Result<u8, ProxyError>) -> String {
        result.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn an_http_proxy_is_asked_for_the_name_and_nothing_beyond_its_answer_is_taken() {
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
        let (heard, next) = ask(ProxyKind::Http, Some(("till", "open sesame")), answer).await;
        assert_eq!(
            String::from_utf8(heard).unwrap(),
            "CONNECT broker.example.com:8883 HTTP/1.1\r\nHost: broker.example.com:8883\r\n\
             Proxy-Authorization: Basic dGlsbDpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        assert_eq!(next.unwrap(), b'B');
    }

    #[tokio::test]
    async fn what_an_http_proxy_refuses_is_said_with_what_to_do_and_no_password() {
        let login = Some(("till", "open sesame"));
        for (login, answer, said) in [
            (
                None,
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                "set proxy_user",
            ),
            (
                login,
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                "refuses the login",
            ),
            (login, "HTTP/1.0 403 Forbidden \x1b[2J\r\n\r\n", "403 Forbidden 2J;"),
            (login, "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "another language"),
            (login, "HTTP/1.1 tea\r\n\r\n", "another language"),
        ] {
            let told = text(ask(ProxyKind::Http, login, answer.as_bytes()).await.1);
            assert!(told.contains(said) && !told.contains("sesame"), "{told}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(4_000));
        let told = text(ask(ProxyKind::Http, None, endless.as_bytes()).await.1);
        assert!(told.contains("larger than 8192"), "{told}");
    }

    #[tokio::test]
    async fn a_socks_proxy_is_asked_for_the_name_with_and_without_a_login() {
        let request = [
            b"\x05\x01\x00\x03\x12broker.example.com".as_slice(),
            &8883_u16.to_be_bytes(),
        ]
        .concat();
        let bound = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50";
        let (heard, next) = ask(ProxyKind::Socks5, None, &[b"\x05\x00".as_slice(), bound].concat()).await;
        assert_eq!(heard, [b"\x05\x01\x00".as_slice(), &request].concat());
        assert_eq!(next.unwrap(), b'B');
        let named = b"\x05\x00\x00\x03\x05proxy\x00\x50";
        let answer = [b"\x05\x02\x01\x00".as_slice(), named].concat();
        let (heard, next) = ask(ProxyKind::Socks5, Some(("till", "sesame")), &answer).await;
        let login = b"\x05\x02\x00\x02\x01\x04till\x06sesame";
        assert_eq!(heard, [login.as_slice(), &request].concat());
        assert_eq!(next.unwrap(), b'B');
    }

    #[tokio::test]
    async fn what_a_socks_proxy_refuses_is_said_with_what_to_do() {
        let login = Some(("till", "sesame"));
        for (login, answer, said) in [
            (None, b"\x05\xff".as_slice(), "set proxy_user"),
            (login, b"\x05\xff", "refuses the login"),
            (login, b"\x05\x02\x01\x01", "refuses the login"),
            (None, b"\x05\x00\x05\x02\x00\x01", "not allowed by its rules"),
            (None, b"HTTP/1.1 400 Bad Request\r\n\r\n", "another language"),
            (Some(("", "x")), b"\x05\x02", "1 to 255"),
        ] {
            let told = text(ask(ProxyKind::Socks5, login, answer).await.1);
            assert!(told.contains(said) && !told.contains("sesame"), "{told}");
        }
    }
}
