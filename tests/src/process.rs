//! The real programs as child processes: found beside this one, killed when dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A running program whose output goes to a file.
pub struct Process {
    name: String,
    child: Child,
    pub log: PathBuf,
}

impl Process {
    /// Starts `command`, both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot start.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// SIGHUP, by which servers read their settings again.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn hang_up(&self) -> Result<()> {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).context("sending SIGHUP")
    }

    /// Asks to stop (SIGTERM) and waits; kills after `patience`.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, patience: Duration) -> Result<()> {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).context("sending SIGTERM")?;
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()?;
        bail!(
            "{} did not stop within {patience:?}; see {}",
            self.name,
            self.log.display()
        )
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not end with 0; with the end of its log.
    pub fn wait(&mut self) -> Result<()> {
        let status = self
            .child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("{} could not be killed: {error}", self.name);
        }
    }
}

/// A program of this workspace: in the folder named by `TILLWATCH_PROGRAMS`, else beside the running one.
///
/// # Errors
/// When it is not there; the message says what to type.
pub fn program(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.parent().map(|folder| {
        if folder.ends_with("deps") {
            folder.parent().unwrap_or(folder).to_path_buf()
        } else {
            folder.to_path_buf()
        }
    });
    let folder = std::env::var_os("TILLWATCH_PROGRAMS")
        .map(PathBuf::from)
        .or(beside)
        .context("no folder of programs")?;
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built\nhint: cargo xtask test builds all that the tests start",
            path.display()
        );
    }
    Ok(path)
}

/// The shipped plugins: `target/plugins`, beside the folder of the programs.
///
/// # Errors
/// When they are not built; the message says what to type.
pub fn plugin_dir() -> Result<PathBuf> {
    let programs = program("tillwatch")?;
    let target = programs
        .parent()
        .and_then(Path::parent)
        .context("the programs are in no target folder")?;
    let folder = target.join("plugins");
    ensure!(
        folder.is_dir(),
        "{} is missing\nhint: cargo xtask plugins",
        folder.display()
    );
    Ok(folder)
}

/// A port of this machine that was free a moment ago.
///
/// # Errors
/// When none can be bound.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until something listens on a port of this machine.
///
/// # Errors
/// When nothing does within `patience`.
pub fn wait_for_port(port: u16, patience: Duration) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until(&format!("something listens on {address}"), patience, || {
        Ok(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok())
    })
}

/// Looks again and again until `is_true` says so.
///
/// # Errors
/// When `is_true` fails, or stays false for `patience`.
pub fn wait_until(what: &str, patience: Duration, mut is_true: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if is_true()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("waited {patience:?} in vain until {what}")
}
