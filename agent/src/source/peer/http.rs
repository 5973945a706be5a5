//! GET and POST to an endpoint that the operator granted, over HTTP/1.1, with the operator's secret and no redirect.
//!
//! In: method, path, a few headers and a body from the plugin. Out: status, headers, body, each bounded.
//! A connection serves one request, so what is measured includes name, connection and TLS, as for a till's first request.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tillwatch_border::{HttpRequest, HttpResponse, Method, PeerFault};
use ureq::config::Config;
use ureq::http::{self, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{AsSendBody, Body};

use super::place::Place;
use super::{PeerError, conceals, secret};

pub const BODY_BYTES_MAX: u64 = 256 << 10;
/// All headers of an answer.
const HEADERS_BYTES_MAX: usize = 16 << 10;
/// Headers of an answer that the plugin gets.
const HEADERS_MAX: usize = 64;
/// The authorities of the system, when the grant names none.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What a plugin may say itself: nothing that frames the request, names a host or is a secret.
const PLUGIN_HEADERS: [&str; 5] = [
    "accept",
    "accept-language",
    "content-type",
    "if-none-match",
    "soapaction",
];

/// An endpoint that the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    pub place: Place,
    pub is_secure: bool,
    /// Begins with `/`; what ends with `/` may be followed by more.
    pub path: String,
    pub methods: Vec<Method>,
    /// Sent with each request.
    pub headers: Vec<(String, String)>,
    pub secret: Option<Secret>,
    /// Instead of the system's authorities.
    pub ca: Option<PathBuf>,
    pub timeout: Duration,
    pub body_bytes_max: u64,
    pub asks_per_minute_max: u32,
}

/// What the agent adds from a file that no plugin sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Header {
        name: String,
        file: PathBuf,
    },
    Basic {
        user: String,
        file: PathBuf,
    },
    /// In the plugin's JSON, at this pointer (RFC 6901), where the plugin says `null`.
    Body {
        pointer: String,
        file: PathBuf,
    },
}

impl Secret {
    fn file(&self) -> &Path {
        match self {
            Self::Header { file, .. } | Self::Basic { file, .. } | Self::Body { file, .. } => file,
        }
    }
}

/// A granted endpoint; what it needs of TLS is read at the first request, and again when its file is another.
pub struct Endpoint {
    grant: HttpGrant,
    client: Option<Client>,
}

struct Client {
    agent: ureq::Agent,
    /// When the file of authorities was changed, if there is one.
    authorities_changed: Option<SystemTime>,
}

impl Endpoint {
    #[must_use]
    pub fn new(grant: HttpGrant) -> Self {
        Self { grant, client: None }
    }

    /// # Errors
    /// Why there is no answer.
    pub fn send(&mut self, request: HttpRequest, within: Duration) -> Result<HttpResponse, PeerError> {
        let method = request.method;
        let file = self.grant.secret.as_ref().map(Secret::file);
        let secret = file.map(secret).transpose()?;
        let request = self.checked(request, secret.as_deref())?;
        let agent = self.agent()?;
        let within = within.min(self.grant.timeout);
        let answered = match method {
            Method::Get => run(&agent, request.map(drop), within),
            Method::Post => run(&agent, request, within),
        };
        let mut response = answered.map_err(|error| failed(error, &self.grant))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(self.grant.body_bytes_max);
        let body = match body.read_to_vec() {
            // Nobody reads an error's page, and its status says what matters.
            Err(ureq::Error::BodyExceedsLimit(_)) if status.as_u16() >= 400 => Vec::new(),
            body => body.map_err(|error| failed(error, &self.grant))?,
        };
        let headers = headers(response.headers());
        for said in headers.iter().map(|(_name, value)| value.as_bytes()).chain([&*body]) {
            conceals(said, secret.as_deref())?;
        }
        Ok(HttpResponse {
            status: status.as_u16(),
            headers,
            body,
            elapsed_us: 0,
        })
    }

    fn agent(&mut self) -> Result<ureq::Agent, PeerError> {
        let authorities_changed = match authorities_file(&self.grant) {
            Some(file) => std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok(),
            None => None,
        };
        let known = self.client.as_ref();
        if let Some(client) = known.filter(|client| client.authorities_changed == authorities_changed) {
            return Ok(client.agent.clone());
        }
        let agent = agent(&self.grant)?;
        self.client = Some(Client {
            agent: agent.clone(),
            authorities_changed,
        });
        Ok(agent)
    }

    /// The request as it is sent, if the grant goes so far.
    fn checked(&self, request: HttpRequest, secret: Option<&str>) -> Result<http::Request<Vec<u8>>, PeerError> {
        let grant = &self.grant;
        if !grant.methods.contains(&request.method) {
            let (asked, granted) = (name_of(request.method), grant.methods.iter().copied().map(name_of));
            let granted: Vec<&str> = granted.collect();
            return Err(PeerError::denied(format!(
                "plugin asks for {asked}, agent.toml grants {granted:?}"
            )));
        }
        if request.method == Method::Get && !request.body.is_empty() {
            return Err(PeerError::denied("plugin gives a body to a GET, which has none"));
        }
        let path = checked_path(&request.path, &grant.path)?;
        let scheme = if grant.is_secure { "https" } else { "http" };
        let mut built = http::Request::builder()
            .method(name_of(request.method))
            .uri(format!("{scheme}://{}{path}", grant.place));
        for (name, value) in &request.headers {
            if !PLUGIN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                let granted = PLUGIN_HEADERS.join(", ");
                let asked = name.escape_debug();
                let why = format!("plugin gives header {asked}, which may only be {granted}");
                return Err(PeerError::denied(why));
            }
            built = built.header(name, value);
        }
        for (name, value) in &grant.headers {
            built = built.header(name, value);
        }
        let mut body = request.body;
        if let Some((place, secret)) = grant.secret.as_ref().zip(secret) {
            match place {
                Secret::Header { name, file } => built = built.header(name, secret_value(secret, file)?),
                Secret::Basic { user, file } => {
                    let value = format!("Basic {}", base64(format!("{user}:{secret}").as_bytes()));
                    built = built.header(http::header::AUTHORIZATION, secret_value(&value, file)?);
                }
                Secret::Body { pointer, .. } => body = with_secret(&body, pointer, secret)?,
            }
        }
        // The error is left out: it may quote a value.
        built
            .body(body)
            .map_err(|_refused| PeerError::denied("the request has characters that none may have"))
    }
}

fn run(
    agent: &ureq::Agent,
    request: http::Request<impl AsSendBody>,
    within: Duration,
) -> Result<http::Response<Body>, ureq::Error> {
    agent.run(agent.configure_request(request).timeout_global(Some(within)).build())
}

/// Below the granted path and not out of it again, whatever the server makes of dots and escapes.
fn checked_path(asked: &str, granted: &str) -> Result<String, PeerError> {
    if asked.is_empty() || asked == granted {
        return Ok(granted.to_owned());
    }
    let path = asked.split_once('?').map_or(asked, |(path, _query)| path);
    let below = path.strip_prefix(granted).filter(|_below| granted.ends_with('/'));
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\\#\"<>^`{|}".contains(&byte);
    if below.is_some_and(is_straight) && asked.bytes().all(is_plain) {
        return Ok(asked.to_owned());
    }
    let asked = asked.escape_debug();
    let why = format!("plugin asks for path {asked}, agent.toml grants {granted}");
    Err(PeerError::denied(why))
}

fn is_straight(below: &str) -> bool {
    let has_detour = below.starts_with('/') || below.contains("//") || below.contains(';');
    let is_dots = |segment: &str| segment == "." || segment == "..";
    // RabbitMQ names its virtual host so: nothing but a slash leads nowhere else.
    let is_slash = |segment: &str| segment.eq_ignore_ascii_case("%2F");
    let is_plain = |segment: &str| is_slash(segment) || has_plain_escapes(segment);
    !has_detour && !below.split('/').any(is_dots) && below.split('/').all(is_plain)
}

/// Whether its escapes stand for letters, digits and spaces, as one would read them and no server otherwise.
fn has_plain_escapes(path: &str) -> bool {
    let mut pieces = path.split('%');
    let mut escaped = Vec::new();
    pieces.next();
    for piece in pieces {
        let byte = piece
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return false;
        };
        escaped.push(byte);
        // The parts of one letter stand side by side.
        if piece.len() > 2 && !is_text(&std::mem::take(&mut escaped)) {
            return false;
        }
    }
    is_text(&escaped)
}

fn is_text(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    text.is_ok_and(|text| {
        text.chars()
            .all(|character| character.is_alphanumeric() || character == ' ')
    })
}

fn secret_value(value: &str, file: &Path) -> Result<http::HeaderValue, PeerError> {
    let refused = |_quotes_it| PeerError::denied(format!("the secret in {} cannot be in a header", file.display()));
    let mut value = http::HeaderValue::from_str(value).map_err(refused)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where the operator says and the plugin left room: neither of them alone decides what a secret becomes.
fn with_secret(body: &[u8], pointer: &str, secret: &str) -> Result<Vec<u8>, PeerError> {
    let mut body: Value = serde_json::from_slice(body)
        .map_err(|_quotes| PeerError::denied(format!("plugin gives no JSON, and the secret belongs at {pointer}")))?;
    let place = body.pointer_mut(pointer).filter(|place| place.is_null());
    let place =
        place.ok_or_else(|| PeerError::denied(format!("plugin has no null at {pointer}, where the secret belongs")))?;
    *place = Value::from(secret);
    Ok(body.to_string().into_bytes())
}

/// Source: RFC 4648, section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let sextet = usize::try_from(group >> (18 - 6 * digit) & 63).unwrap_or(0);
            out.push(if digit <= chunk.len() {
                char::from(ALPHABET[sextet])
            } else {
                '='
            });
        }
    }
    out
}

fn name_of(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Post => "POST",
    }
}

fn headers(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    // A session's cookie is a secret of the agent and the peer.
    let shown = headers
        .iter()
        .filter(|(name, _value)| *name != http::header::SET_COOKIE);
    shown.filter_map(text).take(HEADERS_MAX).collect()
}

fn agent(grant: &HttpGrant) -> Result<ureq::Agent, PeerError> {
    let mut tls =
        TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if let Some(file) = authorities_file(grant) {
        tls = tls.root_certs(authorities(file)?);
    }
    let config = Config::builder()
        .tls_config(tls.build())
        // Whatever the environment says: only granted peers are connected to.
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .max_response_header_size(HEADERS_BYTES_MAX)
        .user_agent(concat!("tillwatch/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(grant.timeout))
        .build();
    Ok(ureq::Agent::with_parts(
        config,
        DefaultConnector::new(),
        Checked(grant.place.clone()),
    ))
}

fn authorities_file(grant: &HttpGrant) -> Option<&Path> {
    let file = grant.ca.as_deref().unwrap_or(Path::new(SYSTEM_CA));
    grant.is_secure.then_some(file)
}

fn authorities(file: &Path) -> Result<RootCerts, PeerError> {
    let refused = |why: &str| PeerError::denied(format!("the authorities in {}: {why}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|_may_quote| refused("they cannot be read"))?;
    if certificates.is_empty() {
        return Err(refused("there is no certificate"));
    }
    let certificates = certificates.iter().map(|der| Certificate::from_der(der).to_owned());
    Ok(RootCerts::from(certificates))
}

/// Gives the addresses that the grant allows, for whatever is asked.
#[derive(Debug)]
struct Checked(Place);

impl Resolver for Checked {
    fn resolve(&self, _uri: &Uri, _config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.0.resolve(*timeout.after);
        let addresses = addresses.map_err(|error| ureq::Error::Other(Box::new(error)))?;
        let mut resolved = self.empty();
        addresses.into_iter().for_each(|address| resolved.push(address));
        Ok(resolved)
    }
}

fn failed(error: ureq::Error, grant: &HttpGrant) -> PeerError {
    let why = format!("{}: {}", grant.place, kind_of(&error));
    let fault = match error {
        ureq::Error::Other(error) => match error.downcast::<PeerError>() {
            Ok(error) => return *error,
            Err(_another) => PeerFault::Unreachable,
        },
        ureq::Error::Timeout(_) => PeerFault::Timeout,
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => PeerFault::TooLarge,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => PeerFault::Untrusted,
        ureq::Error::Io(error) => io_fault(&error),
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => PeerFault::Unreachable,
        _ => PeerFault::Malformed,
    };
    PeerError::new(fault, why)
}

/// In the client's words, unless they may quote what was sent or said.
fn kind_of(error: &ureq::Error) -> String {
    use ureq::Error::{
        BodyExceedsLimit, ConnectionFailed, HostNotFound, Io, LargeResponseHeader, Rustls, Timeout, Tls,
    };
    match error {
        Io(_) | Timeout(_) | Tls(_) | Rustls(_) | ConnectionFailed | HostNotFound => error.to_string(),
        BodyExceedsLimit(most) => format!("it says more than body_max = {most}B"),
        LargeResponseHeader(..) => format!("its headers have more than {HEADERS_BYTES_MAX} bytes"),
        _ => "its answer is not HTTP/1.1 as it should be".to_owned(),
    }
}

fn io_fault(error: &std::io::Error) -> PeerFault {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(_of_tls) => PeerFault::Untrusted,
        None if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => PeerFault::Timeout,
        None => PeerFault::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread::JoinHandle;
    use std::time::Instant;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn of_an_answer_with_many_headers_the_first_are_shown_and_no_cookie() {
        let mut many = http::HeaderMap::new();
        many.insert(
            http::header::SET_COOKIE,
            http::HeaderValue::from_static("session=secret"),
        );
        for number in 0..200 {
            let name = http::HeaderName::try_from(format!("x-{number:03}")).unwrap();
            many.insert(name, http::HeaderValue::from_static("1"));
        }
        let shown = headers(&many);
        assert_eq!(shown.len(), HEADERS_MAX);
        assert!(shown.iter().all(|(name, _value)| name.starts_with("x-")));
    }

    /// A server that answers each request with what it is told to, and remembers what it was asked.
    struct Server {
        port: u16,
        asked: mpsc::Receiver<String>,
    }

    /// `answer` gets the request and the connection.
    fn serve(answer: impl Fn(&str, &mut dyn Write) + Send + 'static) -> Server {
        serve_on(|stream| stream, answer)
    }

    fn serve_on<S: Read + Write>(
        accept: impl Fn(TcpStream) -> S + Send + 'static,
        answer: impl Fn(&str, &mut dyn Write) + Send + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = mpsc::channel();
        let _thread: JoinHandle<()> = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = accept(stream.unwrap());
                if let Some(request) = read_request(&mut stream) {
                    answer(&request, &mut stream);
                    drop(tell.send(request));
                }
            }
        });
        Server { port, asked }
    }

    /// Head and body as one text; none when the client went away.
    fn read_request(stream: &mut dyn Read) -> Option<String> {
        let mut reader = BufReader::new(stream);
        let (mut request, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            request.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.push_str(&String::from_utf8(body).unwrap());
        Some(request)
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nset-cookie: s=1\r\nx-till: 3\r\n\r\n{body}",
            body.len()
        )
    }

    fn say(answer: String) -> impl Fn(&str, &mut dyn Write) + Send {
        move |_request, stream| drop(stream.write_all(answer.as_bytes()))
    }

    fn grant(port: u16, path: &str) -> HttpGrant {
        HttpGrant {
            place: Place {
                host: "127.0.0.1".to_owned(),
                port,
                addresses: Vec::new(),
            },
            is_secure: false,
            path: path.to_owned(),
            methods: vec![Method::Get],
            headers: Vec::new(),
            secret: None,
            ca: None,
            timeout: TIMEOUT,
            body_bytes_max: 1_000,
            asks_per_minute_max: 60,
        }
    }

    fn request(method: Method, path: &str, body: &[u8]) -> HttpRequest {
        HttpRequest {
            method,
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.to_vec(),
        }
    }

    fn get(grant: HttpGrant) -> Result<HttpResponse, PeerError> {
        Endpoint::new(grant).send(request(Method::Get, "", b""), TIMEOUT)
    }

    fn fault(grant: HttpGrant) -> PeerFault {
        get(grant).unwrap_err().fault
    }

    #[test]
    fn a_response_comes_with_status_headers_and_body_and_without_cookies() {
        let server = serve(say(ok("fine")));
        let response = get(grant(server.port, "/health?full=1")).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, &b"fine"[..]));
        assert!(response.headers.contains(&("x-till".to_owned(), "3".to_owned())));
        assert!(!response.headers.iter().any(|(name, _value)| name == "set-cookie"));
        let asked = server.asked.recv().unwrap();
        assert!(asked.starts_with("GET /health?full=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("user-agent: tillwatch/"), "{asked}");
        assert!(
            !asked.contains("content-length"),
            "a GET has no body, not even an empty one: {asked}"
        );
    }

    #[test]
    fn an_error_status_is_a_response() {
        let server = serve(say(
            "HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n".to_owned()
        ));
        assert_eq!(get(grant(server.port, "/")).unwrap().status, 503);
    }

    /// What the agent adds for one endpoint would otherwise go to any other.
    #[test]
    fn a_redirect_is_told_and_not_followed() {
        let other = serve(say(ok("secret place")));
        let to = format!("http://127.0.0.1:{}/", other.port);
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        let server = serve(say(answer));
        let response = get(grant(server.port, "/")).unwrap();
        assert_eq!(response.status, 302);
        assert!(response.headers.contains(&("location".to_owned(), to)));
        assert!(other.asked.try_recv().is_err());
        // Wherever it points to, the granted place alone would be asked again.
        server.asked.recv().unwrap();
        assert!(server.asked.try_recv().is_err());
    }

    /// With the body that comes, which is what the plugin gives but for the secret.
    fn post_with_secret(port: u16, body: &str) -> Result<HttpResponse, PeerError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "open \"sesame\"\n").unwrap();
        let mut grant = grant(port, "/jsonrpc");
        grant.methods = vec![Method::Post];
        let pointer = "/params/args/2".to_owned();
        grant.secret = Some(Secret::Body { pointer, file });
        Endpoint::new(grant).send(request(Method::Post, "", body.as_bytes()), TIMEOUT)
    }

    #[test]
    fn a_secret_is_put_into_the_body_where_the_plugin_left_room_and_the_operator_says() {
        let server = serve(say(ok("{}")));
        let body = r#"{"params":{"args":["shop","till",null,{}]}}"#;
        assert_eq!(post_with_secret(server.port, body).unwrap().status, 200);
        let asked = server.asked.recv().unwrap();
        let expected = r#"{"params":{"args":["shop","till","open \"sesame\"",{}]}}"#;
        assert!(asked.ends_with(&format!("\r\n\r\n{expected}")), "{asked}");
        for (body, why) in [
            ("<methodCall/>", "gives no JSON"),
            (r#"{"params":{"args":[null,null]}}"#, "has no null at /params/args/2"),
            (
                r#"{"params":{"args":["a","b","mine"]}}"#,
                "has no null at /params/args/2",
            ),
        ] {
            let refused = post_with_secret(server.port, body).unwrap_err();
            assert_eq!(refused.fault, PeerFault::Denied);
            assert!(refused.why.contains(why), "{refused}");
        }
        assert!(server.asked.try_recv().is_err());
    }

    /// A plugin that has the peer repeat what it was told would know the secret.
    #[test]
    fn an_answer_that_repeats_the_secret_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "open sesame").unwrap();
        let repeats = [
            ok("who said open sesame?"),
            "HTTP/1.1 200 OK\r\nx-echo: open sesame\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ];
        for answer in repeats {
            let mut grant = grant(serve(say(answer)).port, "/");
            grant.secret = Some(Secret::Header {
                name: "x-key".to_owned(),
                file: file.clone(),
            });
            assert_eq!(fault(grant), PeerFault::Denied);
        }
    }

    #[test]
    fn a_post_brings_its_body_and_the_operators_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "open sesame\n").unwrap();
        let server = serve(say(ok("")));
        let user = "monitor".to_owned();
        for (secret, expected) in [
            (
                Secret::Basic {
                    user,
                    file: file.clone(),
                },
                "authorization: Basic bW9uaXRvcjpvcGVuIHNlc2FtZQ==\r\n",
            ),
            (
                Secret::Header {
                    name: "x-key".to_owned(),
                    file: file.clone(),
                },
                "x-key: open sesame\r\n",
            ),
        ] {
            let mut grant = grant(server.port, "/queues/");
            grant.methods = vec![Method::Post];
            grant.headers = vec![("x-site".to_owned(), "1".to_owned())];
            grant.secret = Some(secret);
            let mut post = request(Method::Post, "/queues/a?b=c", b"{}");
            post.headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            assert_eq!(Endpoint::new(grant).send(post, TIMEOUT).unwrap().status, 200);
            let asked = server.asked.recv().unwrap();
            assert!(asked.starts_with("POST /queues/a?b=c HTTP/1.1\r\n"), "{asked}");
            for part in [expected, "x-site: 1\r\n", "content-type: application/json\r\n"] {
                assert!(asked.contains(part), "{asked}");
            }
            assert!(asked.ends_with("\r\n\r\n{}"), "{asked}");
        }
    }

    #[test]
    fn an_error_never_quotes_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "open\u{1}sesame").unwrap();
        let mut grant = grant(serve(say(ok(""))).port, "/");
        grant.secret = Some(Secret::Header {
            name: "x-key".to_owned(),
            file: file.clone(),
        });
        for _ in 0..2 {
            let error = get(grant.clone()).unwrap_err();
            assert_eq!(error.fault, PeerFault::Denied);
            assert!(!error.why.contains("sesame") && error.why.contains("secret"), "{error}");
            std::fs::remove_file(&file).unwrap_or_default();
        }
    }

    #[test]
    fn what_the_grant_does_not_cover_is_never_sent() {
        let server = serve(say(ok("")));
        let mut endpoint = Endpoint::new(grant(server.port, "/api/"));
        let with_header = |name: &str| HttpRequest {
            headers: vec![(name.to_owned(), "x".to_owned())],
            ..request(Method::Get, "", b"")
        };
        for denied in [
            request(Method::Post, "", b""),
            request(Method::Get, "", b"{}"),
            request(Method::Get, "/", b""),
            request(Method::Get, "/apis", b""),
            request(Method::Get, "/api/../admin", b""),
            request(Method::Get, "/api/%2e%2e/admin", b""),
            request(Method::Get, "/api/%252e%252e/admin", b""),
            request(Method::Get, "/api/%u002e%u002e/admin", b""),
            request(Method::Get, "/api/%c0%ae%c0%ae/admin", b""),
            request(Method::Get, "/api/%EF%BC%8E%EF%BC%8E/admin", b""),
            request(Method::Get, "/api/a%2fb", b""),
            request(Method::Get, "/api/%2F%2Fb", b""),
            request(Method::Get, "/api/%2F../admin", b""),
            request(Method::Get, "/api/%2F/../admin", b""),
            request(Method::Get, "/api/a%00", b""),
            request(Method::Get, "/api/a%2", b""),
            request(Method::Get, "/api/a%", b""),
            request(Method::Get, "/api/%C3a%A9", b""),
            request(Method::Get, "/api/a;b=c", b""),
            request(Method::Get, "/api//evil.example/", b""),
            request(Method::Get, "/api/a b", b""),
            request(Method::Get, "/api/\r\nhost: b", b""),
            request(Method::Get, "@evil.example/api/", b""),
            request(Method::Get, "http://evil.example/api/", b""),
            with_header("Host"),
            with_header("Authorization"),
            with_header("Transfer-Encoding"),
        ] {
            let what = format!("{denied:?}");
            assert_eq!(
                endpoint.send(denied, TIMEOUT).unwrap_err().fault,
                PeerFault::Denied,
                "{what}"
            );
        }
        let error = endpoint.send(request(Method::Get, "/admin", b""), TIMEOUT).unwrap_err();
        assert_eq!(error.why, "plugin asks for path /admin, agent.toml grants /api/");
        assert!(server.asked.try_recv().is_err());
        assert_eq!(
            endpoint
                .send(request(Method::Get, "/api/b?c=..", b""), TIMEOUT)
                .unwrap()
                .status,
            200
        );
        for granted in [
            "/api/caf%C3%A9/Till%203",
            "/api/%E3%83%AC%E3%82%B8%31/",
            "/api/b?c=%2e%2e",
            "/api/queues/%2F?page=1",
            "/api/queues/%2f/sales",
        ] {
            let asked = request(Method::Get, granted, b"");
            assert_eq!(endpoint.send(asked, TIMEOUT).unwrap().status, 200, "{granted}");
        }
        // What the operator wrote is the operator's: the first of all virtual hosts of RabbitMQ is `/`.
        let mut queues = Endpoint::new(grant(server.port, "/api/queues/%2F/"));
        let asked = request(Method::Get, "/api/queues/%2F/sales", b"");
        assert_eq!(queues.send(asked, TIMEOUT).unwrap().status, 200);
        let mut exact = Endpoint::new(grant(server.port, "/api"));
        assert!(exact.send(request(Method::Get, "/api/b", b""), TIMEOUT).is_err());
    }

    #[test]
    fn a_name_of_this_machine_is_not_connected_to() {
        let server = serve(say(ok("")));
        let mut by_name = grant(server.port, "/");
        by_name.place.host = "LocalHost".to_owned();
        let error = get(by_name.clone()).unwrap_err();
        assert_eq!(error.fault, PeerFault::Denied);
        assert!(error.why.contains("hint: add addresses = [\""), "{error}");
        assert!(server.asked.try_recv().is_err());
        by_name.place.addresses = vec!["127.0.0.0/8".parse().unwrap()];
        assert_eq!(get(by_name).unwrap().status, 200);
    }

    #[test]
    fn an_endpoint_that_hangs_or_drips_costs_its_timeout() {
        let (hold, held) = mpsc::channel::<()>();
        let hangs = serve(move |_request, _stream| assert!(held.recv().is_err()));
        let drips = serve(|_request, stream| {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n"));
            while stream.write_all(b"x: y\r\n").is_ok() {
                // Each byte comes in time, the whole never.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for server in [hangs, drips] {
            let mut grant = grant(server.port, "/");
            grant.timeout = Duration::from_millis(100);
            let begun = Instant::now();
            assert_eq!(fault(grant), PeerFault::Timeout);
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(100) && took < TIMEOUT / 2, "{took:?}");
        }
        drop(hold);
    }

    /// One call may wait for its peers only so long, whatever each grant says.
    #[test]
    fn what_is_left_of_the_call_bounds_the_wait() {
        let (hold, held) = mpsc::channel::<()>();
        let server = serve(move |_request, stream| {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"));
            assert!(held.recv().is_err());
        });
        let within = Duration::from_millis(80);
        let mut endpoint = Endpoint::new(grant(server.port, "/"));
        let error = endpoint.send(request(Method::Get, "", b""), within).unwrap_err();
        assert_eq!(error.fault, PeerFault::Timeout);
        drop(hold);
    }

    #[test]
    fn an_answer_of_more_than_is_granted_is_too_large() {
        let body = |bytes: usize| grant(serve(say(ok(&"x".repeat(bytes)))).port, "/");
        assert_eq!(get(body(1_000)).unwrap().body.len(), 1_000);
        assert_eq!(fault(body(1_001)), PeerFault::TooLarge);
        let endless = serve(|_request, stream| {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
            while stream.write_all(&[b'x'; 512]).is_ok() {}
        });
        assert_eq!(fault(grant(endless.port, "/")), PeerFault::TooLarge);
        let header = format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n",
            "y".repeat(HEADERS_BYTES_MAX)
        );
        assert_eq!(fault(grant(serve(say(header)).port, "/")), PeerFault::TooLarge);
    }

    /// A server whose page of errors was too large was told to be well.
    #[test]
    fn of_an_error_whose_page_is_too_large_the_status_is_told() {
        let page = "x".repeat(1_001);
        for status in [404, 500, 503] {
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{page}", page.len());
            let response = get(grant(serve(say(answer)).port, "/")).unwrap();
            assert_eq!((response.status, response.body), (status, Vec::new()));
        }
    }

    #[test]
    fn what_is_no_http_is_malformed_and_what_is_not_there_unreachable() {
        assert_eq!(
            fault(grant(serve(say("SSH-2.0-x\r\n\r\n".to_owned())).port, "/")),
            PeerFault::Malformed
        );
        let short = serve(say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned()));
        assert_eq!(fault(grant(short.port, "/")), PeerFault::Unreachable);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(fault(grant(port, "/")), PeerFault::Unreachable);
    }

    /// A server with a certificate for this machine, and the file that vouches for it.
    fn serve_tls(folder: &Path) -> (Server, PathBuf) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let file = folder.join("ca.pem");
        std::fs::write(&file, made.cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let accept =
            move |stream| rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        (
            serve_on(accept, |_request, stream| {
                drop(stream.write_all(ok("over TLS").as_bytes()));
                drop(stream.flush());
            }),
            file,
        )
    }

    #[test]
    fn a_certificate_must_be_one_that_the_operator_trusts() {
        let folder = tempfile::tempdir().unwrap();
        let (server, ca) = serve_tls(folder.path());
        let mut secure = grant(server.port, "/");
        secure.is_secure = true;
        secure.ca = Some(ca);
        assert_eq!(get(secure.clone()).unwrap().body, b"over TLS");
        let (_other, ca) = serve_tls(folder.path());
        secure.ca = Some(ca);
        let error = get(secure.clone()).unwrap_err();
        assert_eq!(error.fault, PeerFault::Untrusted);
        assert!(error.why.contains("certificate"), "{error}");
        secure.ca = Some(folder.path().join("missing.pem"));
        assert_eq!(fault(secure.clone()), PeerFault::Denied);
        let mut plain = secure;
        plain.is_secure = false;
        plain.place.port = server.port;
        assert_ne!(get(plain).map(|response| response.status).unwrap_or(0), 200);
    }

    /// A renewed authority was read when the agent was started again, and the endpoint was down until then.
    #[test]
    fn a_renewed_authority_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (_server, former) = serve_tls(folder.path());
        let ca = folder.path().join("renewed.pem");
        std::fs::copy(former, &ca).unwrap();
        let (server, renewed) = serve_tls(folder.path());
        let mut secure = grant(server.port, "/");
        (secure.is_secure, secure.ca) = (true, Some(ca.clone()));
        let mut endpoint = Endpoint::new(secure);
        let mut ask = || {
            endpoint
                .send(request(Method::Get, "", b""), TIMEOUT)
                .map(|response| response.status)
        };
        assert_eq!(ask().unwrap_err().fault, PeerFault::Untrusted);
        std::fs::copy(renewed, &ca).unwrap();
        let file = std::fs::File::options().append(true).open(&ca).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(ask().unwrap(), 200);
        std::fs::write(&ca, "").unwrap();
        assert_eq!(ask().unwrap_err().fault, PeerFault::Denied);
    }

    #[test]
    fn why_there_is_no_answer_is_told_and_what_was_asked_is_not() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = get(grant(port, "/secret-path")).unwrap_err();
        assert!(refused.why.starts_with(&format!("127.0.0.1:{port}: ")), "{refused}");
        assert!(refused.why.contains("refused"), "{refused}");
        let strange = get(grant(serve(say("SSH-2.0-x\r\n\r\n".to_owned())).port, "/secret-path")).unwrap_err();
        assert!(strange.why.contains("not HTTP/1.1"), "{strange}");
        for error in [refused, strange] {
            assert!(!error.why.contains("secret-path"), "{error}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("hi", "aGk="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
