//! The host's own metrics, by the names of OpenTelemetry: CPU, memory, disks, network.
//!
//! A built-in collector: what it reports takes the same way as what plugins report. It reads nothing that is per process.

use std::collections::{BTreeMap, BTreeSet};

use sysinfo::{DiskRefreshKind, Disks, Networks, System};
use thiserror::Error;
use tillwatch_core::LabelPolicy;
use tillwatch_core::sample::{Batch, Descriptor, Kind, Metric, Series, Values};

/// The name of this source.
pub const NAME: &str = "system";
/// File systems that are reported, by the order of their mount points.
const MOUNTS_MAX: usize = 16;

const CPU: u16 = 0;
const MEMORY_USED: u16 = 1;
const MEMORY_AVAILABLE: u16 = 2;
const FILESYSTEM: u16 = 3;
const NETWORK: u16 = 4;

/// Why the host cannot be measured.
#[derive(Debug, Error)]
#[error("the host's metrics cannot be read: {0}")]
pub struct SystemError(String);

/// Keeps what is needed between two readings.
#[derive(Debug)]
pub struct SystemCollector {
    system: System,
    disks: Disks,
    networks: Networks,
    /// The CPU's use is measured between two readings, so the first has none.
    has_cpu: bool,
}

impl SystemCollector {
    /// # Errors
    /// When the operating system gives nothing.
    pub fn new() -> Result<Self, SystemError> {
        let failed = |error: sysinfo::Error| SystemError(format!("{error:?}"));
        Ok(Self {
            system: System::new().map_err(failed)?,
            disks: Disks::new().map_err(failed)?,
            networks: Networks::new().map_err(failed)?,
            has_cpu: false,
        })
    }

    /// One value of each series, at `now_ms`.
    #[must_use]
    pub fn collect(&mut self, now_ms: u64) -> Batch {
        let mut series = Vec::new();
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        if std::mem::replace(&mut self.has_cpu, true) {
            let used = f64::from(self.system.global_cpu_usage()) / 100.0;
            series.push(Series {
                metric: CPU,
                labels: Vec::new(),
                values: Values::Reals(vec![used.clamp(0.0, 1.0)]),
                times_ms: vec![now_ms],
            });
        }
        series.push(reading(MEMORY_USED, &["used"], self.system.used_memory(), now_ms));
        series.push(reading(MEMORY_AVAILABLE, &[], self.system.available_memory(), now_ms));
        self.disks
            .refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
        for (mount, (used, free)) in self.filesystems() {
            series.push(reading(FILESYSTEM, &[&mount, "used"], used, now_ms));
            series.push(reading(FILESYSTEM, &[&mount, "free"], free, now_ms));
        }
        self.networks.refresh(true);
        let (received, transmitted) = self.network();
        series.push(reading(NETWORK, &["receive"], received, now_ms));
        series.push(reading(NETWORK, &["transmit"], transmitted, now_ms));
        Batch {
            series,
            ..Batch::default()
        }
    }

    /// Used and free bytes by mount point: each device once, and no virtual ones.
    fn filesystems(&self) -> BTreeMap<String, (u64, u64)> {
        let mut devices = BTreeSet::new();
        let mut disks: Vec<_> = self.disks.iter().filter(|disk| disk.total_space() > 0).collect();
        disks.sort_by_key(|disk| disk.mount_point().as_os_str().len());
        let first_of_device = disks.into_iter().filter(|disk| devices.insert(disk.name().to_owned()));
        let named = first_of_device.filter_map(|disk| {
            let mount = disk.mount_point().to_str().filter(|mount| is_label(mount))?;
            Some((
                mount.to_owned(),
                (
                    disk.total_space().saturating_sub(disk.available_space()),
                    disk.available_space(),
                ),
            ))
        });
        named.take(MOUNTS_MAX).collect()
    }

    /// Bytes received and transmitted over all interfaces except loopback.
    fn network(&self) -> (u64, u64) {
        let others = self.networks.iter().filter(|(name, _data)| name.as_os_str() != "lo");
        others.fold((0, 0), |(received, transmitted), (_name, data)| {
            (received + data.total_received(), transmitted + data.total_transmitted())
        })
    }
}

fn is_label(mount: &str) -> bool {
    mount.len() <= 64
        && mount
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte))
}

fn reading(metric: u16, labels: &[&str], bytes: u64, now_ms: u64) -> Series {
    Series {
        metric,
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        values: Values::Integers(vec![i64::try_from(bytes).unwrap_or(i64::MAX)]),
        times_ms: vec![now_ms],
    }
}

/// What this collector measures.
#[must_use]
pub fn descriptor() -> Descriptor {
    let metrics = vec![
        metric(
            "system.cpu.utilization",
            "1",
            Kind::Gauge,
            4,
            &[],
            "Share of all processors' time that was used.",
        ),
        metric(
            "system.memory.usage",
            "By",
            Kind::Gauge,
            0,
            &["system.memory.state"],
            "Memory in use.",
        ),
        metric(
            "system.linux.memory.available",
            "By",
            Kind::Gauge,
            0,
            &[],
            "Memory that programs can still get.",
        ),
        metric(
            "system.filesystem.usage",
            "By",
            Kind::Gauge,
            0,
            &["system.filesystem.mountpoint", "system.filesystem.state"],
            "Space of a file system, used and free.",
        ),
        metric(
            "system.network.io",
            "By",
            Kind::Counter,
            0,
            &["network.io.direction"],
            "Bytes over all interfaces but loopback.",
        ),
    ];
    Descriptor {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        metrics,
        min_interval_ms: 1_000,
        attrs: Vec::new(),
    }
}

/// What the labels may be.
#[must_use]
pub fn labels() -> BTreeMap<String, LabelPolicy> {
    let list = |values: &[&str]| LabelPolicy {
        pattern: None,
        values: Some(values.iter().map(|&value| value.to_owned()).collect()),
        values_max: u32::try_from(values.len()).unwrap_or(u32::MAX),
    };
    let mount = LabelPolicy {
        pattern: Some("/[A-Za-z0-9_./:-]{0,63}".to_owned()),
        values: None,
        values_max: 16,
    };
    BTreeMap::from([
        ("system.memory.state".to_owned(), list(&["used"])),
        ("system.filesystem.mountpoint".to_owned(), mount),
        ("system.filesystem.state".to_owned(), list(&["used", "free"])),
        ("network.io.direction".to_owned(), list(&["receive", "transmit"])),
    ])
}

pub(crate) fn metric(name: &str, unit: &str, kind: Kind, decimals: u8, label_keys: &[&str], help: &str) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        kind,
        help: help.to_owned(),
        label_keys: label_keys.iter().map(|&key| key.to_owned()).collect(),
        role: String::new(),
        decimals,
        currency: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_as_many_labels_as_its_metric_and_a_policy_for_each() {
        let mut collector = SystemCollector::new().unwrap();
        let descriptor = descriptor();
        let labels = labels();
        let first = collector.collect(1_000);
        let second = collector.collect(2_000);
        assert!(
            first.series.iter().all(|series| series.metric != CPU),
            "the first reading has no CPU use"
        );
        assert!(second.series.iter().any(|series| series.metric == CPU));
        for series in &second.series {
            let metric = &descriptor.metrics[usize::from(series.metric)];
            assert_eq!(series.labels.len(), metric.label_keys.len(), "{}", metric.name);
            assert!(
                metric.label_keys.iter().all(|key| labels.contains_key(key)),
                "{}",
                metric.name
            );
            assert_eq!(series.times_ms, [2_000]);
        }
        let memory = second
            .series
            .iter()
            .find(|series| series.metric == MEMORY_USED)
            .unwrap();
        assert!(matches!(&memory.values, Values::Integers(values) if values[0] > 0));
    }
}
