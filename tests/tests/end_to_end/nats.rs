//! A real NATS with JetStream: a stream that keeps everything, read by a consumer that is behind; a restart.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{Process, free_port, wait_for_port};

use super::queues::{PATIENCE, Watch};

/// A client as far as the test needs it. Source: docs.nats.io "NATS Client Protocol".
struct Client {
    lines: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self {
            lines: BufReader::new(stream),
        };
        client.send("CONNECT {\"verbose\":false}\r\nSUB inbox 1\r\n")?;
        Ok(client)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.lines.get_mut().write_all(text.as_bytes())?)
    }

    /// Publishes, waits for the answer, and gives where to acknowledge it and what it says.
    fn ask(&mut self, subject: &str, body: &str) -> Result<(String, String)> {
        self.send(&format!("PUB {subject} inbox {}\r\n{body}\r\n", body.len()))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(String, String)> {
        loop {
            let line = self.line()?;
            ensure!(!line.starts_with("-ERR"), "{line}");
            if line.starts_with("PING") {
                self.send("PONG\r\n")?;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["MSG", _subject, _id, rest @ ..] = words.as_slice() {
                let reply = if rest.len() > 1 { rest[0] } else { "" };
                return Ok((reply.to_owned(), self.line()?));
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "the server hung up");
        Ok(line.trim_end().to_owned())
    }

    fn good(&mut self, subject: &str, body: &str) -> Result<()> {
        let (_reply, said) = self.ask(subject, body)?;
        ensure!(!said.contains("\"error\""), "{subject}: {said}");
        Ok(())
    }
}

fn start(place: &Path, port: u16, monitor: u16) -> Result<Process> {
    let mut command = Command::new("/usr/sbin/nats-server");
    command.args([
        "-a",
        "127.0.0.1",
        "-js",
        "-p",
        &port.to_string(),
        "-m",
        &monitor.to_string(),
        "-sd",
    ]);
    command.arg(place.join("jetstream"));
    let process = Process::start("nats-server", &mut command, &place.join("nats.log"))?;
    wait_for_port(port, PATIENCE)?;
    wait_for_port(monitor, PATIENCE)?;
    Ok(process)
}

#[test]
fn a_stream_of_a_real_nats_is_as_deep_as_its_consumer_is_behind() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (port, monitor) = (free_port()?, free_port()?);
    let mut server = start(place.path(), port, monitor)?;
    let mut client = Client::connect(port)?;
    client.good("$JS.API.STREAM.CREATE.TLOG", r#"{"name":"TLOG","subjects":["tlog.>"]}"#)?;
    for _message in 0..10 {
        client.good("tlog.sale", "x")?;
    }
    let consumer = r#"{"stream_name":"TLOG","config":{"durable_name":"uploader","ack_policy":"explicit","ack_wait":600000000000}}"#;
    client.good("$JS.API.CONSUMER.DURABLE.CREATE.TLOG.uploader", consumer)?;

    let source = format!(
        "[plugin.sources.broker]\nurl = \"http://127.0.0.1:{monitor}/jsz?accounts=true&streams=true&consumers=true&config=true\""
    );
    let mut watch = Watch::start(place.path(), "nats", &source, "system = \"nats\"\nqueues = [\"TLOG\"]")?;
    watch.wait_for("queue.depth", "tlog", 10.0)?;
    let mut acks = Vec::new();
    for _message in 0..5 {
        acks.push(client.ask("$JS.API.CONSUMER.MSG.NEXT.TLOG.uploader", "1")?.0);
    }
    watch.wait_for("queue.unacked", "tlog", 5.0)?;
    watch.wait_for("queue.depth", "tlog", 10.0)?;
    for ack in &acks[..2] {
        client.send(&format!("PUB {ack} 4\r\n+ACK\r\n"))?;
    }
    watch.wait_for("queue.depth", "tlog", 8.0)?;
    watch.wait_for("queue.consumers", "tlog", 1.0)?;
    watch.wait_for_sum("queue.out", "tlog", 2.0)?;
    ensure!(watch.values()?.iter().any(|(metric, ..)| metric == "queue.oldest_age"));

    server.kill()?;
    watch.wait_for("source.up", "", 0.0)?;
    let _server = start(place.path(), port, monitor)?;
    let mut client = Client::connect(port).context("after the restart")?;
    client.good("tlog.sale", "x")?;
    watch.wait_for("queue.depth", "tlog", 9.0)?;
    watch.wait_for_sum("queue.in", "tlog", 1.0)
}
