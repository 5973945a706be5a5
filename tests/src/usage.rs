//! What processes cost: memory and processor time of a process and all its descendants, from /proc.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Clock ticks per second in /proc/PID/stat on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Summed over a process and its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub rss_kib: u64,
    pub pss_kib: u64,
    /// User and system, of waited-for children too.
    pub cpu_s: f64,
    pub processes: u64,
}

/// What `process` and its descendants use now.
///
/// # Errors
/// When /proc cannot be read.
pub fn of(process: u32) -> Result<Usage> {
    let mut usage = Usage::default();
    for id in with_descendants(process)? {
        let folder = PathBuf::from(format!("/proc/{id}"));
        let Ok(memory) = std::fs::read_to_string(folder.join("smaps_rollup")) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(folder.join("stat")) else {
            continue;
        };
        usage.rss_kib += kib(&memory, "Rss:");
        usage.pss_kib += kib(&memory, "Pss:");
        let ticks: f64 = after_name(&stat)
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        usage.cpu_s += ticks / TICKS_PER_SECOND;
        usage.processes += 1;
    }
    Ok(usage)
}

/// Bytes that `process` and its descendants had written to disk, those of processes that have ended not among them.
///
/// # Errors
/// When /proc cannot be read.
pub fn written_bytes(process: u32) -> Result<u64> {
    let mut bytes = 0;
    for id in with_descendants(process)? {
        let Ok(io) = std::fs::read_to_string(format!("/proc/{id}/io")) else {
            continue;
        };
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        bytes += line.context("write_bytes in /proc/PID/io")?.parse::<u64>()?;
    }
    Ok(bytes)
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The fields of /proc/PID/stat from `state` on: the name before them may hold spaces.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ")
        .map_or("", |(_, fields)| fields)
        .split_whitespace()
}

/// A process and all that it and its children started and that still run.
///
/// # Errors
/// When /proc cannot be read.
pub fn with_descendants(process: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let parent = after_name(&stat).nth(1).and_then(|field| field.parse::<u32>().ok());
        parents.push((id, parent.unwrap_or(0)));
    }
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    Ok(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = of(std::process::id()).unwrap();
        assert!(usage.rss_kib > 100 && usage.processes >= 1, "{usage:?}");
    }

    #[test]
    fn a_name_with_spaces_does_not_shift_the_fields() {
        assert_eq!(after_name("7 (a b) c) S 1 2").collect::<Vec<_>>(), ["S", "1", "2"]);
    }
}
