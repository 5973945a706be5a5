//! What the packaged unit gives the agent of a machine that belongs to the till: its processor weight and quota, and its
//! niceness. Its weight on the disk is left out, as only some schedulers of disks know one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

const UNIT: &str = include_str!("../../packaging/systemd/tillwatch.service");
const GROUPS: &str = "/sys/fs/cgroup";
const PERIOD_US: u64 = 100_000;

/// A control group with the unit's numbers, where this machine lets us make one, and its niceness.
pub(crate) struct Unit {
    group: Option<PathBuf>,
    nice: u64,
}

impl Unit {
    pub(crate) fn new() -> Result<Self> {
        let group = make_group(number("CPUWeight")?, number("CPUQuota")?);
        if let Err(error) = &group {
            eprintln!("the agent runs without the unit's weight and quota: {error:#}");
        }
        Ok(Self {
            group: group.ok(),
            nice: number("Nice")?,
        })
    }

    /// Runs the program as the service does, and all that it starts.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let enter = match &self.group {
            Some(group) => format!("echo $$ > {}/cgroup.procs && ", group.display()),
            None => String::new(),
        };
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("{enter}exec nice -n {} \"$0\" \"$@\"", self.nice));
        command.arg(program);
        command
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // It goes when what ran in it has ended; one that is left takes nothing.
        self.group.take().map(fs::remove_dir);
    }
}

/// `50` of `CPUQuota=50%`.
fn number(key: &str) -> Result<u64> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let text = line.with_context(|| format!("the unit has no {key}"))?;
    text.trim_end_matches('%')
        .parse()
        .with_context(|| format!("{key}={text}"))
}

fn make_group(weight: u64, quota_percent: u64) -> Result<PathBuf> {
    let name = format!("tillwatch-bench-{}", std::process::id());
    let quota_us = PERIOD_US * quota_percent / 100;
    let first = Path::new(GROUPS).join("cpu");
    let (group, settings) = if first.is_dir() {
        let settings = [
            ("cpu.shares", format!("{}", weight * 1024 / 100)),
            ("cpu.cfs_period_us", format!("{PERIOD_US}")),
            ("cpu.cfs_quota_us", format!("{quota_us}")),
        ];
        (first.join(name), settings.to_vec())
    } else {
        fs::write(Path::new(GROUPS).join("cgroup.subtree_control"), "+cpu").context("asking for control groups")?;
        let settings = [
            ("cpu.weight", format!("{weight}")),
            ("cpu.max", format!("{quota_us} {PERIOD_US}")),
        ];
        (Path::new(GROUPS).join(name), settings.to_vec())
    };
    fs::create_dir(&group).with_context(|| format!("making {}", group.display()))?;
    for (setting, value) in settings {
        fs::write(group.join(setting), value).with_context(|| format!("setting {setting}"))?;
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_unit_gives_is_read_from_the_unit() {
        let given = ["Nice", "CPUWeight", "CPUQuota"].map(|key| number(key).unwrap());
        assert!(given.iter().all(|number| (1..100).contains(number)), "{given:?}");
        assert!(number("Weight").is_err(), "a part of a key is none");
    }
}
