//! The real agent as a child process that may be killed at any time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Process, program, wait_until};

/// A running agent with its settings in one folder.
pub struct Agent {
    settings: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Writes its settings into `folder` and starts it.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(folder: &Path, settings_text: &str) -> Result<Self> {
        let settings = folder.join("agent.toml");
        std::fs::write(&settings, settings_text)?;
        let mut agent = Self {
            settings,
            log: folder.join("agent.log"),
            process: None,
        };
        agent.restart()?;
        Ok(agent)
    }

    /// Kills it, if it runs, and starts it again.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with(&[])
    }

    /// As `restart`, with more arguments.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn restart_with(&mut self, arguments: &[String]) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(program("tillwatch")?);
        command.arg("run").arg("--config").arg(&self.settings).args(arguments);
        self.process = Some(Process::start("tillwatch", &mut command, &self.log)?);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Stops it, writes `to` where `from` stands in agent.toml, and starts it again.
    ///
    /// # Errors
    /// When `from` stands nowhere, or it cannot start.
    pub fn change(&mut self, from: &str, to: &str) -> Result<()> {
        self.stop()?;
        let text = std::fs::read_to_string(&self.settings)?;
        ensure!(text.contains(from), "agent.toml has no {from:?}");
        std::fs::write(&self.settings, text.replacen(from, to, 1))?;
        self.restart()
    }

    /// Waits until it has said so, `times` times.
    ///
    /// # Errors
    /// When it has ended, or says nothing of it in a minute.
    pub fn wait_for(&mut self, said: &str, times: usize) -> Result<()> {
        let waited = wait_until(&format!("the agent says {said:?}"), Duration::from_secs(60), || {
            self.check()?;
            Ok(self.log()?.matches(said).count() >= times)
        });
        waited.with_context(|| self.log_end())
    }

    /// Tells it to look at its settings and certificates again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hang_up(&self) -> Result<()> {
        let process = self.process.as_ref().context("the agent does not run")?;
        process.hang_up()
    }

    /// Where agent.toml stands.
    pub fn settings(&self) -> &Path {
        &self.settings
    }

    /// Everything that it said.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("reading the agent's log")
    }

    /// Its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
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

    /// Stops it, and counts the records that its spool still holds.
    ///
    /// # Errors
    /// When it had to be killed, or its spool cannot be read.
    pub fn held(&mut self) -> Result<usize> {
        self.stop()?;
        let mut export = Command::new(program("tillwatch")?);
        let output = export
            .args(["spool", "export", "--config"])
            .arg(&self.settings)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n');
        Ok(lines.filter(|line| !line.is_empty()).count())
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// When it has ended; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        self.process.as_ref().map(Process::log_end).unwrap_or_default()
    }
}
