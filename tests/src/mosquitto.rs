//! A real mosquitto on loopback, over TLS, with the settings that the package ships.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::pki::Identity;
use crate::process::{Process, free_port, wait_for_port};

const RIGHTS: &str = "acl";

/// Mosquitto with its own data folder; the same port after each restart.
pub struct Mosquitto {
    pub port: u16,
    settings: PathBuf,
    rights: PathBuf,
    log: PathBuf,
    /// What its OpenSSL is told.
    openssl: Option<PathBuf>,
    process: Option<Process>,
}

impl Mosquitto {
    /// Writes its settings into `folder` and starts it.
    ///
    /// # Errors
    /// When it is not installed or does not listen within ten seconds.
    pub fn start(folder: &Path, server: &Identity) -> Result<Self> {
        Self::start_with(folder, server, "")
    }

    /// As [`Mosquitto::start`], with these rights beside the shipped ones.
    ///
    /// # Errors
    /// When it is not installed or does not listen within ten seconds.
    pub fn start_with(folder: &Path, server: &Identity, rights: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let settings = folder.join("mosquitto.conf");
        std::fs::write(&settings, settings_text(port, folder, server)?)?;
        let mut acl = File::options().append(true).open(folder.join("acl"))?;
        acl.write_all(rights.as_bytes())?;
        let mut broker = Self {
            port,
            settings,
            rights: folder.join(RIGHTS),
            log: folder.join("mosquitto.log"),
            openssl: None,
            process: None,
        };
        broker.restart()?;
        Ok(broker)
    }

    /// Kills it, if it runs, and starts it again.
    ///
    /// # Errors
    /// When it does not listen within ten seconds.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(installed()?);
        command.arg("-c").arg(&self.settings);
        if let Some(openssl) = &self.openssl {
            command.env("OPENSSL_CONF", openssl);
        }
        self.process = Some(Process::start("mosquitto", &mut command, &self.log)?);
        wait_for_port(self.port, Duration::from_secs(10))
            .with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Starts it again so that it speaks this version alone, such as `TLSv1.2`.
    ///
    /// # Errors
    /// When it does not listen within ten seconds.
    pub fn restart_with_tls(&mut self, version: &str) -> Result<()> {
        let path = self.settings.with_file_name("openssl.cnf");
        let text = format!(
            "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = versions\n\
             [versions]\nMinProtocol = {version}\nMaxProtocol = {version}\n"
        );
        std::fs::write(&path, text)?;
        self.openssl = Some(path);
        self.restart()
    }

    /// Changes who may do what, and starts it again.
    ///
    /// # Errors
    /// When it does not listen within ten seconds.
    pub fn restart_with_rights(&mut self, change: impl FnOnce(&str) -> String) -> Result<()> {
        let path = self.settings.with_file_name("acl");
        let changed = change(&std::fs::read_to_string(&path)?);
        std::fs::write(&path, changed)?;
        self.restart()
    }

    /// Reads rights, certificates and the list of revoked ones again.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn reload(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), Process::hang_up)
    }

    /// Gives an archive its rights, as the shipped file says for further ones. It holds after the next start.
    ///
    /// # Errors
    /// When the file of rights cannot be written.
    pub fn allow_archive(&self, name: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.rights)?;
        let (_before, block) = text.split_once("user main\n").context("rights of an archive")?;
        let more = format!("user {name}\n{}", block.replace("ack/main", &format!("ack/{name}")));
        std::fs::write(&self.rights, format!("{text}\n{more}")).context("writing the rights")
    }

    /// Takes all rights from a store, as the README says, at once.
    ///
    /// # Errors
    /// When the file of rights cannot be written, or the system refuses the signal.
    pub fn shut_out(&self, site: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.rights)?;
        let rights = format!("{text}\nuser {site}\ntopic deny tw1/+/{site}/#\n");
        std::fs::write(&self.rights, rights).context("writing the rights")?;
        self.reload()
    }

    /// Its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }
}

/// The shipped settings with this run's paths and port.
fn settings_text(port: u16, folder: &Path, server: &Identity) -> Result<String> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/mosquitto");
    let text = std::fs::read_to_string(shipped.join("mosquitto.conf"))
        .with_context(|| format!("reading {}", shipped.join("mosquitto.conf").display()))?;
    let acl = folder.join(RIGHTS);
    std::fs::copy(shipped.join("acl"), &acl).context("copying the shipped acl")?;
    let replaced = text.lines().map(|line| match line.split_whitespace().next() {
        Some("listener") => format!("listener {port} 127.0.0.1"),
        Some("cafile") => format!("cafile {}", server.ca.display()),
        Some("certfile") => format!("certfile {}", server.certificate.display()),
        Some("crlfile") => format!("crlfile {}", server.revoked.display()),
        Some("keyfile") => format!("keyfile {}", server.key.display()),
        Some("acl_file") => format!("acl_file {}", acl.display()),
        Some("persistence_location") => format!("persistence_location {}/", folder.display()),
        Some("user") => "user root".to_owned(),
        _ => line.to_owned(),
    });
    Ok(replaced.collect::<Vec<_>>().join("\n") + "\n")
}

fn installed() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("mosquitto"))
        .find(|candidate| candidate.is_file());
    match found {
        Some(found) => Ok(found),
        None => bail!("mosquitto is not installed\nhint: sudo apt-get install -y mosquitto"),
    }
}
