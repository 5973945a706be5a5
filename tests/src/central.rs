//! The real `tillwatch-central` as a child process, and what it answers over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tillwatch_central::archive::{self, Archive as _};
use tillwatch_central::receive::PAST_ROLES;

use crate::pki::Identity;
use crate::process::{Process, free_port, program, wait_for_port};

/// An answer larger than this is an error.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A running central with its settings and archive below one folder.
pub struct Central {
    /// Where the stores connect.
    pub broker_port: u16,
    /// Where the page is.
    pub http_port: u16,
    settings: PathBuf,
    storage: PathBuf,
    log: PathBuf,
    embedded: bool,
    process: Option<Process>,
}

/// What a store sold, or what central has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sold {
    pub transactions: i64,
    pub amount_minor: i64,
}

/// What central listens to.
pub enum Broker<'a> {
    /// Its own, with this server certificate.
    Embedded(&'a Identity),
    /// One that runs already on this port.
    External(u16),
}

impl Central {
    /// Writes settings and model into `folder` and starts it.
    ///
    /// # Errors
    /// When it does not listen within twenty seconds.
    pub fn start(folder: &Path, model: &str, archive: &Identity, broker: &Broker<'_>) -> Result<Self> {
        Self::start_with_storage(folder, folder, model, archive, broker)
    }

    /// As [`Central::start`], with its archive in another folder.
    ///
    /// # Errors
    /// When it does not listen within twenty seconds.
    pub fn start_with_storage(
        folder: &Path,
        storage: &Path,
        model: &str,
        archive: &Identity,
        broker: &Broker<'_>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let storage = storage.join("archive.sqlite");
        let http_port = free_port()?;
        let (broker_port, embedded) = match broker {
            Broker::Embedded(_) => (free_port()?, true),
            Broker::External(port) => (*port, false),
        };
        std::fs::write(folder.join("model.toml"), model)?;
        let settings = folder.join("central.toml");
        std::fs::write(
            &settings,
            settings_text(folder, &storage, archive, broker, broker_port, http_port),
        )?;
        let log = folder.join("central.log");
        let mut central = Self {
            broker_port,
            http_port,
            settings,
            storage,
            log,
            embedded,
            process: None,
        };
        central.restart()?;
        Ok(central)
    }

    /// Kills it, if it runs, and starts it again.
    ///
    /// # Errors
    /// When it does not listen within twenty seconds.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(program("tillwatch-central")?);
        command.arg("serve").arg("--config").arg(&self.settings);
        if self.embedded {
            command.arg("--embedded-broker");
        }
        self.process = Some(Process::start("tillwatch-central", &mut command, &self.log)?);
        let listening = wait_for_port(self.http_port, Duration::from_secs(20));
        listening.with_context(|| self.process.as_ref().map(Process::log_end).unwrap_or_default())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Asks it to stop.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.process
            .take()
            .map_or(Ok(()), |mut process| process.stop(Duration::from_secs(15)))
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// When it has ended; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// The JSON at a path of its API.
    ///
    /// # Errors
    /// When it does not answer 200 with JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        get(self.http_port, path)
    }

    /// What central has written durably.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn received(&self) -> Result<Sold> {
        let archive = archive::open_to_read(&self.archive_path())?;
        let mut received = Sold::default();
        archive.rollups(
            PAST_ROLES,
            0..u64::MAX / 2,
            &mut |rollup| match rollup.series.role.as_str() {
                "sales.count" => received.transactions += rollup.sum,
                _ => received.amount_minor += rollup.sum,
            },
        )?;
        Ok(received)
    }

    /// Its archive, which may be read while it runs.
    pub fn archive_path(&self) -> PathBuf {
        self.storage.clone()
    }

    /// Where to look.
    pub fn page(&self) -> String {
        format!("http://127.0.0.1:{}/", self.http_port)
    }
}

fn settings_text(
    folder: &Path,
    storage: &Path,
    archive: &Identity,
    broker: &Broker<'_>,
    broker_port: u16,
    http_port: u16,
) -> String {
    let files = |ca: &str, identity: &Identity| {
        let (issuer, certificate, key) = (
            identity.ca.display(),
            identity.certificate.display(),
            identity.key.display(),
        );
        format!("{ca} = \"{issuer}\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
    };
    let broker = match broker {
        Broker::Embedded(server) => {
            format!(
                "[embedded_broker]\nlisten = \"127.0.0.1:{broker_port}\"\n{}",
                files("client_ca", server)
            )
        }
        Broker::External(_) => format!(
            "[broker]\nurl = \"mqtts://127.0.0.1:{broker_port}\"\n{}",
            files("ca", archive)
        ),
    };
    let (folder, storage) = (folder.display(), storage.display());
    format!(
        "archive = \"main\"\n\n{broker}\n[storage]\npath = \"{storage}\"\n\n[model]\npath = \"{folder}/model.toml\"\n\n\
         [http]\nlisten = \"127.0.0.1:{http_port}\"\n"
    )
}

/// `GET` on loopback.
fn get(port: u16, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connecting to central")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("reading central's answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("central's answer has no body")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "{path}: {}",
        head.lines().next().unwrap_or_default()
    );
    serde_json::from_str(body).with_context(|| format!("reading the JSON of {path}"))
}
