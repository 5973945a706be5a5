//! One configured plugin in its sandbox: called, committed, rolled back, made anew after a trap.
//!
//! In: a plugin's settings and loaded code. Out: batches with the progress that belongs to them, or counted failures.
//! A failing plugin costs its own values, never the agent: what it had read comes again with its next instance, and what
//! stops it again and again is skipped.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use tillwatch_core::guard::Guard;
use tillwatch_core::sample::{Batch, Descriptor, Metric};
use tillwatch_sandbox::{CallError, Counters, Instance, Limits, Plugin};
use tracing::warn;

use super::host::GrantedHost;
use super::manifest::Manifest;
use crate::config::PluginConfig;
use crate::health::{Failure, Limit, PluginHealth};

/// Calls that are left out after a failure, doubled with each further one.
const PAUSE_CALLS_MAX: u32 = 64;
/// Linear memory never shrinks, so an instance that came so near to its limit is replaced between calls.
const RECYCLE_SHARE: usize = 2;

/// What one call brought.
#[derive(Debug)]
pub struct Collected {
    pub batch: Batch,
    /// Belongs into the checkpoint together with the batch.
    pub progress: Vec<u8>,
}

/// A plugin that can be called.
pub struct PluginCollector {
    plugin: Plugin,
    limits: Limits,
    host: GrantedHost,
    name: String,
    settings: String,
    instance: Option<Instance>,
    descriptor: Descriptor,
    failures: u32,
    pause_calls: u32,
    health: Arc<PluginHealth>,
}

impl PluginCollector {
    /// Makes the first instance: its description must be that of `plugin.toml`, and it must take its settings.
    ///
    /// # Errors
    /// When it does not; the agent then does not start.
    pub fn start(plugin: Plugin, config: &PluginConfig, host: GrantedHost, health: Arc<PluginHealth>) -> Result<Self> {
        let limits = Limits {
            memory_bytes_max: usize::try_from(config.memory_bytes_max).unwrap_or(usize::MAX),
            call_ms_max: config.deadline_ms,
            ..Limits::default()
        };
        let settings = config.settings.to_string();
        let mut instance = plugin
            .instantiate(limits, Box::new(host.clone()))
            .context("instantiating it")?;
        let described = instance.describe().context("calling describe")?;
        check_description(&described, &config.manifest)?;
        instance
            .configure(&settings)
            .map_err(guarded)
            .context("its settings are refused")?;
        let descriptor = instance.describe().context("calling describe")?;
        check_configured(&described, &descriptor)?;
        host.commit();
        Ok(Self {
            plugin,
            limits,
            host,
            name: config.name.clone(),
            settings,
            instance: Some(instance),
            descriptor,
            failures: 0,
            pause_calls: 0,
            health,
        })
    }

    /// As configured: currency and decimals of money may differ from `plugin.toml`.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Calls the plugin; none when it failed or pauses after a failure. What it read is neither committed nor lost.
    pub fn collect(&mut self) -> Option<Collected> {
        if self.pause_calls > 0 {
            self.pause_calls -= 1;
            self.health.forget_sources();
            return None;
        }
        let begun = Instant::now();
        let result = self.call();
        self.health
            .on_call(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        match result {
            Ok(mut batch) => {
                self.failures = 0;
                batch.is_partial = self.host.is_partial();
                batch.more |= self.host.has_withheld();
                Some(Collected {
                    batch,
                    progress: self.host.progress(),
                })
            }
            Err(error) => {
                self.on_error(error);
                None
            }
        }
    }

    /// The batch of the last call was handed on.
    pub fn commit(&mut self) {
        self.host.commit();
        self.recycle();
    }

    fn call(&mut self) -> Result<Batch, CallError> {
        let Some(instance) = &mut self.instance else {
            let mut instance = self.plugin.instantiate(self.limits, Box::new(self.host.clone()))?;
            let result = instance.configure(&self.settings).and_then(|()| instance.collect());
            report_limits(&self.health, instance.take_counters());
            self.instance = Some(instance);
            return result;
        };
        let result = instance.collect();
        report_limits(&self.health, instance.take_counters());
        result
    }

    fn on_error(&mut self, error: CallError) {
        match &error {
            // It may wait for something, and says nothing about what it read.
            CallError::Plugin(_) | CallError::Spent => self.host.rollback(),
            _ => self.host.fail(),
        }
        self.health.on_failure(kind_of(&error));
        // Its memory still holds what was rolled back, such as the numbers of sales that come again.
        self.instance = None;
        self.failures = self.failures.saturating_add(1);
        // The first failure is tried again at once, at the next regular call.
        self.pause_calls = (1_u32 << (self.failures - 1).min(16)).min(PAUSE_CALLS_MAX) - 1;
        let error = guarded(error);
        warn!(plugin = self.name, failures = self.failures, pause_calls = self.pause_calls, %error, "collector failed");
    }

    /// A used-up instance is replaced while nothing is open; the plugin's own state is in the host.
    fn recycle(&mut self) {
        let is_large =
            |instance: &Instance| instance.counters().memory_bytes > self.limits.memory_bytes_max / RECYCLE_SHARE;
        if self.instance.as_ref().is_some_and(is_large) {
            self.instance = None;
        }
    }
}

fn report_limits(health: &PluginHealth, counters: Counters) {
    health.on_beyond(Limit::LogLines, counters.log_lines_dropped);
    health.on_beyond(Limit::LogBytes, counters.log_lines_cut);
    health.on_beyond(Limit::ReadBytes, counters.reads_refused);
    health.on_beyond(Limit::StateBytes, counters.states_refused);
}

/// A plugin's own words may quote what it read.
fn guarded(error: CallError) -> CallError {
    match error {
        CallError::Plugin(mut error) => {
            error.message = Guard.text(&error.message).into_owned();
            CallError::Plugin(error)
        }
        CallError::Trap { reason } => CallError::Trap {
            reason: Guard.text(&reason).into_owned(),
        },
        other => other,
    }
}

fn kind_of(error: &CallError) -> Failure {
    match error {
        CallError::Trap { .. } | CallError::Stack | CallError::Spent => Failure::Trap,
        CallError::Deadline { .. } => Failure::Deadline,
        CallError::Memory { .. } => Failure::Memory,
        CallError::Plugin(_) => Failure::Error,
        CallError::OutputBytes { .. } | CallError::Oversized { .. } | CallError::Malformed { .. } => Failure::Refused,
    }
}

/// What was granted and shown to the operator is what runs.
pub(super) fn check_description(described: &Descriptor, manifest: &Manifest) -> Result<()> {
    let hint = "hint: the .wasm was built from another plugin.toml; build or install it again";
    ensure!(
        described.name == manifest.name,
        "it calls itself {:?}, plugin.toml says {:?}\n{hint}",
        described.name,
        manifest.name
    );
    let (ours, theirs) = (&manifest.version, &described.version);
    ensure!(
        theirs == ours,
        "it is version {theirs}, plugin.toml says {ours}\n{hint}"
    );
    let count = (described.metrics.len(), manifest.metrics.len());
    ensure!(
        count.0 == count.1,
        "it describes {} metrics, plugin.toml {}\n{hint}",
        count.0,
        count.1
    );
    for (described, declared) in described.metrics.iter().zip(&manifest.metrics) {
        ensure!(
            described == declared,
            "it describes metric {} otherwise than plugin.toml\n{hint}",
            declared.name
        );
    }
    Ok(())
}

/// Settings may change the currency of money and its decimals, and nothing else.
pub(super) fn check_configured(before: &Descriptor, after: &Descriptor) -> Result<()> {
    let same = |(before, after): (&Metric, &Metric)| {
        let money = Metric {
            currency: before.currency.clone(),
            decimals: before.decimals,
            ..after.clone()
        };
        before == after || (before.currency.is_some() && after.currency.is_some() && *before == money)
    };
    let is_same = before.metrics.len() == after.metrics.len() && before.metrics.iter().zip(&after.metrics).all(same);
    ensure!(
        is_same && before.name == after.name,
        "its settings change more of its metrics than the currency"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::plugin::host::Reading;
    use crate::plugin::manifest::tests::GOOD;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use tillwatch_sandbox::Sandbox;

    /// What `cargo xtask plugins` built, compiled anew.
    fn hostile() -> Plugin {
        let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let programs = std::env::var_os("TILLWATCH_PROGRAMS").map_or_else(beside, PathBuf::from);
        let folder = tempfile::tempdir().unwrap();
        let compiled = folder.path().join("hostile.cwasm");
        let status = std::process::Command::new(programs.join("tillwatch-compile"))
            .arg(programs.parent().unwrap().join("guests/hostile.wasm"))
            .arg(&compiled)
            .status();
        assert!(status.unwrap().success(), "hint: cargo xtask plugins");
        Sandbox::new().unwrap().load(&compiled).unwrap()
    }

    /// The sandbox counted what it dropped, and nobody asked it.
    #[test]
    fn what_a_plugin_wanted_beyond_its_limits_is_counted_also_when_it_fails_for_it() {
        for (behavior, failures, beyond) in [("logs", 0, [968, 12, 32, 0, 0]), ("huge-state", 1, [0, 0, 0, 0, 1])] {
            let health = Arc::new(PluginHealth::default());
            let host = GrantedHost::new(
                "hostile",
                &BTreeMap::new(),
                None,
                Reading::LIVE,
                Clock::told(0),
                health.clone(),
            );
            let mut collector = PluginCollector {
                plugin: hostile(),
                limits: Limits {
                    call_ms_max: 60_000,
                    ..Limits::default()
                },
                host: host.unwrap(),
                name: "hostile".to_owned(),
                settings: format!("{{\"behavior\": \"{behavior}\"}}"),
                instance: None,
                descriptor: described(|_same| {}).0,
                failures: 0,
                pause_calls: 0,
                health: health.clone(),
            };
            collector.collect();
            assert_eq!((health.failures(), health.beyond()), (failures, beyond), "{behavior}");
        }
    }

    fn described(change: impl Fn(&mut Descriptor)) -> (Descriptor, Manifest) {
        let manifest = Manifest::parse(Path::new("plugin.toml"), GOOD).unwrap();
        let mut descriptor = Descriptor {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            metrics: manifest.metrics.clone(),
            min_interval_ms: manifest.min_interval_ms,
            attrs: Vec::new(),
        };
        change(&mut descriptor);
        (descriptor, manifest)
    }

    #[test]
    fn a_wasm_must_be_what_its_manifest_says() {
        let check = |change: fn(&mut Descriptor)| {
            let (descriptor, manifest) = described(change);
            check_description(&descriptor, &manifest)
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(check(|_same| {}), None);
        for (change, expected) in [
            (
                (|descriptor| descriptor.name = "x".to_owned()) as fn(&mut Descriptor),
                "calls itself \"x\"",
            ),
            (|descriptor| descriptor.version = "9.9.9".to_owned(), "is version 9.9.9"),
            (|descriptor| descriptor.metrics.clear(), "describes 0 metrics"),
            (
                |descriptor| descriptor.metrics[0].unit = "s".to_owned(),
                "describes metric queue.depth otherwise",
            ),
        ] {
            let message = check(change).unwrap();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn settings_may_change_the_currency_and_nothing_else() {
        let (mut before, _manifest) = described(|_same| {});
        before.metrics[0].currency = Some("EUR".to_owned());
        let mut after = before.clone();
        after.metrics[0].currency = Some("JPY".to_owned());
        after.metrics[0].decimals = 0;
        check_configured(&before, &after).unwrap();
        after.metrics[0].name = "other".to_owned();
        check_configured(&before, &after).unwrap_err();
        let (plain, _manifest) = described(|_same| {});
        check_configured(&plain, &before).unwrap_err();
    }
}
