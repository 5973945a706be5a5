//! `tillwatch doctor`: looks at each source, peer and clock as the agent would, and says what to mend.
//!
//! ```text
//! good  plugin `sales`, source `lines`: /var/log/pos/sales.jsonl: 1.2 MiB, last written 3 s ago
//! bad   plugin `queue-depth`, source `broker`: answers 401 in 4 ms
//!   hint: it does not know the account: compare basic_user and what is in secret_file
//! ```
//! In: agent.toml. Out: a line for each thing that was looked at; the exit code says whether anything is bad.
//! It reads as the agent reads, from the start of what is there, and keeps no progress; spool and feed are not touched.

mod broker;
mod clocks;
mod files;
mod finding;
mod peers;
mod trial;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::clock::Clock;
use crate::config::{Draft, PluginConfig};
use crate::output;
use crate::plugin::grant::Grant;
use files::Look;
use finding::{Finding, Part};

/// Prints what it finds while it looks.
///
/// # Errors
/// When the output cannot be written.
pub fn run(path: &Path, clock: &Clock, json: bool) -> Result<ExitCode> {
    let mut report = Report {
        json,
        looked_at: 0,
        bad: 0,
    };
    report.examine(path, clock)?;
    if !json {
        let Report { looked_at, bad, .. } = report;
        output::line(&format!("{bad} of {looked_at} are bad"))?;
    }
    Ok(if report.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Report {
    json: bool,
    looked_at: usize,
    bad: usize,
}

impl Report {
    fn tell(&mut self, finding: &Finding) -> io::Result<()> {
        self.looked_at += 1;
        self.bad += usize::from(finding.is_bad());
        output::line(&finding.text(self.json))
    }

    /// What agent.toml says wrong is told, and the rest is looked at as far as it can be read.
    fn examine(&mut self, path: &Path, clock: &Clock) -> Result<()> {
        let draft = match Draft::load(path) {
            Ok(draft) => draft,
            Err(problems) => {
                for problem in problems.0 {
                    self.tell(&finding::of_problem(Part::Settings, &problem))?;
                }
                return Ok(());
            }
        };
        for problem in &draft.problems.0 {
            self.tell(&finding::of_problem(Part::Settings, problem))?;
        }
        for finding in clocks::machine() {
            self.tell(&finding)?;
        }
        if !draft.config.broker.address.host.is_empty() {
            for finding in broker::examine(&draft.config.broker, clock.now_ms()) {
                self.tell(&finding)?;
            }
        }
        for plugin in &draft.config.plugins {
            let written_ms = self.sources(plugin)?;
            for finding in trial::examine(&draft.config, plugin, clock, written_ms) {
                self.tell(&finding)?;
            }
        }
        Ok(())
    }

    /// When the newest of its files was written, if there is one.
    fn sources(&mut self, plugin: &PluginConfig) -> Result<Option<u64>> {
        let mut newest_ms = None;
        for (name, grant) in &plugin.grants {
            let part = || Part::Source(plugin.name.clone(), name.clone());
            if let Grant::Peer(peer) = grant {
                self.tell(&peers::examine(part(), peer))?;
                continue;
            }
            let Look { finding, written_ms } = files::examine(part(), grant);
            self.tell(&finding)?;
            newest_ms = newest_ms.max(written_ms);
        }
        Ok(newest_ms)
    }
}
