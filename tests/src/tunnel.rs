//! A proxy of a store's network on loopback: HTTP CONNECT and SOCKS5 on one port, with or without a login.
//!
//! In: the names that it resolves, each to a port of this machine, and whom it knows. Out: how many ways it has opened.
//! It shares no code with the agent, which must agree with it by the standards alone.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// Whom it knows, and the same as HTTP codes it.
#[derive(Clone)]
pub struct Login {
    pub user: &'static str,
    pub password: &'static str,
    pub basic: &'static str,
}

/// Runs until the process ends.
pub struct Tunnel {
    pub port: u16,
    opened: Arc<AtomicU64>,
}

impl Tunnel {
    /// Listens on a free port; `name` is the only one that it resolves, to `target_port` of this machine.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(name: &'static str, target_port: u16, login: Option<Login>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding the proxy")?;
        let port = listener.local_addr()?.port();
        let opened = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&opened);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (login, counted) = (login.clone(), Arc::clone(&counted));
                std::thread::spawn(move || {
                    if let Err(error) = serve(client, name, target_port, login.as_ref(), &counted) {
                        eprintln!("proxy: {error:#}");
                    }
                });
            }
        });
        Ok(Self { port, opened })
    }

    /// Ways that it has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

fn serve(client: TcpStream, name: &str, target_port: u16, login: Option<&Login>, opened: &AtomicU64) -> Result<()> {
    let mut first = [0];
    client.peek(&mut first)?;
    let is_asked_for = |asked: &str, port: u16| asked == name && port == target_port;
    let is_open = if first[0] == 5 {
        socks5(&client, login, is_asked_for)?
    } else {
        http(&client, login, is_asked_for)?
    };
    if !is_open {
        return Ok(());
    }
    let target = TcpStream::connect(("127.0.0.1", target_port))?;
    opened.fetch_add(1, Ordering::Relaxed);
    let (from, to) = (client.try_clone()?, target.try_clone()?);
    std::thread::spawn(move || forward(&from, &to));
    forward(&target, &client);
    Ok(())
}

fn http(client: &TcpStream, login: Option<&Login>, is_asked_for: impl Fn(&str, u16) -> bool) -> Result<bool> {
    let mut lines = BufReader::new(client).lines();
    let request = lines.next().context("no request")??;
    let target = request.strip_prefix("CONNECT ").context("no CONNECT")?;
    let target = target.strip_suffix(" HTTP/1.1").context("no HTTP/1.1")?;
    let (host, port) = target.rsplit_once(':').context("no port")?;
    let mut is_known = login.is_none();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        is_known |= login.is_some_and(|login| line == format!("Proxy-Authorization: Basic {}", login.basic));
    }
    let (is_open, answer) = match (is_known, is_asked_for(host, port.parse()?)) {
        (false, _) => (
            false,
            "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"",
        ),
        (true, false) => (false, "403 Forbidden"),
        (true, true) => (true, "200 Connection established\r\nProxy-Agent: test"),
    };
    let mut client = client;
    write!(client, "HTTP/1.1 {answer}\r\n\r\n")?;
    Ok(is_open)
}

fn socks5(client: &TcpStream, login: Option<&Login>, is_asked_for: impl Fn(&str, u16) -> bool) -> Result<bool> {
    let mut client = client;
    let [_version, count] = bytes(client)?;
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods)?;
    let method = if login.is_some() { 2 } else { 0 };
    ensure!(methods.contains(&method), "it does not offer method {method}");
    client.write_all(&[5, method])?;
    if let Some(login) = login {
        ensure!(bytes(client)? == [1], "not RFC 1929");
        let is_known = (text(client)?.as_str(), text(client)?.as_str()) == (login.user, login.password);
        client.write_all(&[1, u8::from(!is_known)])?;
        if !is_known {
            return Ok(false);
        }
    }
    let [_version, command, _reserved, kind] = bytes(client)?;
    if command != 1 || kind != 3 {
        bail!("command {command} for an address of kind {kind}: the name must be left to the proxy");
    }
    let host = text(client)?;
    let is_open = is_asked_for(&host, u16::from_be_bytes(bytes(client)?));
    client.write_all(&[5, if is_open { 0 } else { 2 }, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok(is_open)
}

fn bytes<const N: usize>(mut client: &TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(mut client: &TcpStream) -> Result<String> {
    let [length] = bytes(client)?;
    let mut text = vec![0; usize::from(length)];
    client.read_exact(&mut text)?;
    Ok(String::from_utf8(text)?)
}

fn forward(mut from: &TcpStream, mut to: &TcpStream) {
    // It ends when either side does.
    drop(std::io::copy(&mut from, &mut to));
    for stream in [from, to] {
        drop(stream.shutdown(Shutdown::Both)); // it may be closed already
    }
}
