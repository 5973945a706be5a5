//! One configured plugin in its sandbox: called, committed, rolled back, made anew after a trap.
//! A call that another plugin ended, with the process of all, is repeated at once from the last commit.
//!
//! In: a plugin's settings and loaded code. Out: batches with the progress that belongs to them, or counted failures.
//! A failing plugin costs its own values, never the agent: what it had read comes again with its next instance, and what
//! stops it again and again is skipped.

use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tillwatch_border::{CallError, Counters, Host, Plugin};
use tillwatch_core::guard::Guard;
use tillwatch_core::sample::{Batch, Descriptor, Metric};
use tillwatch_core::tally::Reason;
use tokio::sync::watch;
use tracing::warn;

use super::grant::Grant;
use super::history::history_bytes;
use super::host::{GrantedHost, Reading};
use super::manifest::Manifest;
use super::range::{Ranges, keep_within};
use super::refusal::{self, Refusals};
use super::restraint::{Fault, Held, QUARANTINE, Restraint};
use crate::clock::Clock;
use crate::config::PluginConfig;
use crate::health::{Failure, Limit, PluginHealth};
use crate::keeper::Status;
use crate::platform::thread_time;

/// Linear memory never shrinks, so an instance that came so near to its limit is replaced between calls.
const RECYCLE_SHARE: usize = 2;
/// So often a call is repeated because the process ended: each other plugin may end it once before it is called alone.
const REPEATS_MAX: u32 = 40;

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
    host: GrantedHost,
    name: String,
    settings: String,
    /// The instance has its settings.
    is_configured: bool,
    descriptor: Descriptor,
    ranges: Ranges,
    restraint: Restraint,
    /// The last call was put off for the plugin's share of the processor, so long.
    put_off: Option<Duration>,
    health: Arc<PluginHealth>,
    /// Why the last call failed.
    failure: Option<String>,
    /// Where the keeper counts what it dropped, and how much of that might have been card numbers when we looked last.
    kept: Option<watch::Receiver<Status>>,
    cards_refused: u64,
}

impl PluginCollector {
    /// Makes the first instance: its description must be that of `plugin.toml`, and it must take its settings.
    ///
    /// # Errors
    /// When it does not; the agent then does not start.
    pub fn start(
        mut plugin: Plugin,
        config: &PluginConfig,
        host: GrantedHost,
        restraint: Restraint,
        health: Arc<PluginHealth>,
    ) -> Result<Self> {
        let settings = config.settings.to_string();
        let mut introduced = introduce(&mut plugin, config, &settings, &mut host.clone());
        for _ in 0..REPEATS_MAX {
            if !introduced.as_ref().is_err_and(is_gone) {
                break;
            }
            host.rollback();
            introduced = introduce(&mut plugin, config, &settings, &mut host.clone());
        }
        let descriptor = introduced.map_err(|error| {
            let ask = |settings: &str| {
                host.rollback();
                plugin.renew();
                plugin.configure(settings, &mut host.clone())
            };
            let error = refusal::find_all(error, config, ask);
            if error.is::<Refusals>() { error } else { told(&error) }
        })?;
        Ok(Self {
            plugin,
            host,
            name: config.name.clone(),
            settings,
            is_configured: true,
            descriptor,
            ranges: config.manifest.ranges.clone(),
            restraint,
            put_off: None,
            health,
            failure: None,
            kept: None,
            cards_refused: 0,
        })
    }

    /// From now on it hears what the keeper dropped of its values.
    pub fn heed(&mut self, kept: watch::Receiver<Status>) {
        self.kept = Some(kept);
    }

    /// Takes over from one that is between two calls: its place in the sources, opened anew when the grants are others,
    /// and its counts.
    ///
    /// # Errors
    /// When its place in the sources is not understood.
    pub fn go_on_from(&mut self, old: &Self, grants: Option<&BTreeMap<String, Grant>>, clock: &Clock) -> Result<()> {
        self.health = Arc::clone(&old.health);
        (self.kept, self.cards_refused) = (old.kept.clone(), old.cards_refused);
        self.host = match grants {
            None => old.host.clone(),
            Some(grants) => {
                self.health.forget_sources();
                let (progress, health) = (old.host.progress(), Arc::clone(&old.health));
                GrantedHost::new(
                    &self.name,
                    grants,
                    Some(&progress),
                    Reading::LIVE,
                    clock.clone(),
                    health,
                )?
            }
        };
        // It was tried with another host, and knows nothing of the old one's state.
        self.is_configured = false;
        Ok(())
    }

    /// Between two calls: from now on it reads what is granted here, from its start.
    ///
    /// # Errors
    /// When that cannot be opened.
    pub fn read_from(&mut self, grants: &BTreeMap<String, Grant>) -> Result<()> {
        Ok(self.host.read_from(grants)?)
    }

    /// One call that changes nothing: what it reads and keeps is rolled back, and peers are not asked. What a plugin says
    /// of itself may come of that, and is no reason against it.
    ///
    /// # Errors
    /// When it breaks a bound.
    pub fn try_once(&mut self) -> Result<()> {
        self.host.set_trial(true);
        let result = self.call_repeated();
        self.host.rollback();
        self.host.set_trial(false);
        // Its memory holds what was rolled back.
        self.is_configured = false;
        match result {
            Err(error) if fault_of(&error) == Fault::Offense => {
                Err(anyhow!(guarded(error).to_string())).context("its first call fails")
            }
            _ => Ok(()),
        }
    }

    /// As configured: currency and decimals of money may differ from `plugin.toml`.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Calls the plugin; none when it failed or is not called now. What it read is neither committed nor lost.
    pub fn collect(&mut self) -> Option<Collected> {
        self.heed_refusals();
        if self.is_held(Instant::now()) {
            return None;
        }
        match self.call() {
            Ok(mut batch) => {
                self.restraint.on_success();
                self.failure = None;
                let outside = keep_within(&self.ranges, &self.descriptor.metrics, &mut batch);
                self.health.on_beyond(Limit::ValueRange, outside);
                let history = history_bytes(&batch, &self.descriptor.metrics, self.host.now_ms());
                self.restraint.on_history(history, Instant::now());
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

    /// How long the plugin still waits for its share of the processor, when its last call was put off.
    #[must_use]
    pub fn put_off(&self) -> Option<Duration> {
        self.put_off
    }

    /// Since the start, with what was skipped.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        let (read, skipped) = self.health.read();
        read + skipped
    }

    /// Why the last call failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What the plugin itself warned of last.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.host.warning()
    }

    /// A round ended by a limit though the plugin says that there is more.
    pub fn on_round_cut(&self, limit: Limit) {
        self.health.on_beyond(limit, 1);
    }

    /// Card numbers that the guard dropped are an offense for each look at them.
    fn heed_refusals(&mut self) {
        let Some(kept) = &self.kept else { return };
        let refused = kept.borrow().refused.get(&self.name).copied().unwrap_or_default();
        let cards = refused.of(Reason::Card);
        let is_more = cards > std::mem::replace(&mut self.cards_refused, cards);
        if is_more && self.restraint.on_offense(Instant::now()) {
            self.tell_quarantine();
        }
    }

    fn tell_quarantine(&self) {
        self.health.set_quarantined(true);
        let (failures, hours) = (self.restraint.failures(), QUARANTINE.as_secs() / 3600);
        warn!(plugin = self.name, failures, hours, "a plugin is in quarantine");
    }

    fn is_held(&mut self, now: Instant) -> bool {
        let held = self.restraint.held(now);
        self.health.set_quarantined(held == Some(Held::Quarantine));
        self.put_off = None;
        match held {
            Some(Held::Share(wait)) => {
                self.health.on_beyond(Limit::CpuShare, 1);
                self.put_off = Some(wait);
            }
            Some(Held::History(wait)) => {
                self.health.on_beyond(Limit::History, 1);
                self.put_off = Some(wait);
            }
            Some(Held::Pause | Held::Quarantine) => self.health.forget_sources(),
            None => {}
        }
        held.is_some()
    }

    fn call(&mut self) -> Result<Batch, CallError> {
        let own = thread_time();
        let result = self.call_repeated();
        let counters = self.plugin.take_counters();
        self.health.on_call(counters.busy_us);
        // What the agent does for the plugin is its work, too.
        let own_us = u64::try_from(thread_time().saturating_sub(own).as_micros()).unwrap_or(u64::MAX);
        self.restraint
            .on_busy(counters.busy_us.saturating_add(own_us), Instant::now());
        report_limits(&self.health, counters);
        if counters.peers_refused > 0 {
            self.host.on_peer_refused();
        }
        if let Some(cause) = self.plugin.take_restart() {
            self.health.on_restart();
            warn!(%cause, "the plugins' process was started again");
        }
        result
    }

    /// Until it is not the process that ended.
    fn call_repeated(&mut self) -> Result<Batch, CallError> {
        let mut result = self.call_once();
        for _ in 0..REPEATS_MAX {
            if !matches!(result, Err(CallError::Gone)) {
                break;
            }
            self.host.rollback();
            self.is_configured = false;
            result = self.call_once();
        }
        result
    }

    fn call_once(&mut self) -> Result<Batch, CallError> {
        if !self.is_configured {
            self.plugin.renew();
            self.plugin.configure(&self.settings, &mut self.host)?;
            self.is_configured = true;
        }
        self.plugin.collect(&mut self.host)
    }

    fn on_error(&mut self, error: CallError) {
        let fault = fault_of(&error);
        match fault {
            // It may wait for something, or was not to blame: that says nothing about what it read.
            Fault::Told => self.host.rollback(),
            Fault::Offense => self.host.fail(),
        }
        self.health.on_failure(kind_of(&error));
        // Its memory still holds what was rolled back, such as the numbers of sales that come again.
        self.is_configured = false;
        let is_enough = self.restraint.on_failure(fault, Instant::now());
        let (failures, pause_calls) = (self.restraint.failures(), self.restraint.pause_calls());
        // As a text it is quoted: it may hold line ends, and would then be lines of ours.
        let error = guarded(error).to_string();
        warn!(plugin = self.name, failures, pause_calls, error, "collector failed");
        self.failure = Some(error);
        if is_enough {
            self.tell_quarantine();
        }
    }

    /// A used-up instance is replaced while nothing is open; the plugin's own state is in the host.
    fn recycle(&mut self) {
        let memory_bytes = self.plugin.counters().memory_bytes;
        if memory_bytes > self.plugin.limits().memory_bytes_max / RECYCLE_SHARE {
            self.is_configured = false;
        }
    }
}

/// Makes the first instance, and has it describe itself and take its settings.
fn introduce(plugin: &mut Plugin, config: &PluginConfig, settings: &str, host: &mut GrantedHost) -> Result<Descriptor> {
    plugin.renew();
    let described = plugin.describe(host).context("calling describe")?;
    check_description(&described, &config.manifest)?;
    plugin
        .configure(settings, host)
        .map_err(guarded)
        .context("its settings are refused")?;
    let descriptor = plugin.describe(host).context("calling describe")?;
    check_configured(&described, &descriptor)?;
    Ok(descriptor)
}

/// Problems quote a plugin's own words, which may quote what it read.
fn told(error: &anyhow::Error) -> anyhow::Error {
    anyhow!("{}", Guard.text(&format!("{error:#}")))
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CallError::Gone))
}

fn report_limits(health: &PluginHealth, counters: Counters) {
    health.on_beyond(Limit::LogLines, counters.log_lines_dropped);
    health.on_beyond(Limit::LogBytes, counters.log_lines_cut);
    health.on_beyond(Limit::ReadBytes, counters.reads_refused);
    health.on_beyond(Limit::Asks, counters.asks_refused);
    health.on_beyond(Limit::HostTime, counters.host_refused);
    health.on_beyond(Limit::StateBytes, counters.states_refused);
    health.on_beyond(Limit::PeerAsks, counters.peers_refused);
}

/// A plugin's own words may quote what it read.
pub(super) fn guarded(error: CallError) -> CallError {
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

fn fault_of(error: &CallError) -> Fault {
    match error {
        CallError::Plugin(_) | CallError::Spent | CallError::Gone | CallError::Unavailable { .. } => Fault::Told,
        _ => Fault::Offense,
    }
}

fn kind_of(error: &CallError) -> Failure {
    match error {
        CallError::Trap { .. } | CallError::Stack | CallError::Spent => Failure::Trap,
        CallError::Deadline { .. } => Failure::Deadline,
        CallError::Memory { .. } => Failure::Memory,
        CallError::Plugin(_) => Failure::Error,
        CallError::OutputBytes { .. } | CallError::Oversized { .. } | CallError::Malformed { .. } => Failure::Refused,
        CallError::Crash => Failure::Crash,
        CallError::Gone | CallError::Unavailable { .. } => Failure::Process,
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
    use crate::collectors::{RoundBounds, Source};
    use crate::plugin::manifest::tests::GOOD;
    use crate::plugin::range::Range;
    use crate::plugin::restraint::OFFENSES_MAX;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tillwatch_border::{Code, Limits, Load, start};
    use tillwatch_core::sample::Values;

    const PATIENT_MS: u64 = 60_000;

    /// What `cargo xtask plugins` built, compiled anew: one of it in one process for each deadline.
    fn hostile(calls_ms_max: &[u64]) -> Vec<Plugin> {
        let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let programs = std::env::var_os("TILLWATCH_PROGRAMS").map_or_else(beside, PathBuf::from);
        let folder = tempfile::tempdir().unwrap();
        let compiled = folder.path().join("hostile.cwasm");
        let status = std::process::Command::new(programs.join("tillwatch-compile"))
            .arg(programs.parent().unwrap().join("guests/hostile.wasm"))
            .arg(&compiled)
            .status();
        assert!(status.unwrap().success(), "hint: cargo xtask plugins");
        let code = Arc::new(Code::open(&compiled).unwrap());
        let load = |call_ms_max: &u64| Load {
            name: format!("{call_ms_max} ms"),
            code: Arc::clone(&code),
            limits: Limits {
                call_ms_max: *call_ms_max,
                ..Limits::default()
            },
        };
        let loads = calls_ms_max.iter().map(load).collect();
        let started = start(programs.join("tillwatch-sandbox"), loads).unwrap();
        started.into_iter().map(Result::unwrap).collect()
    }

    fn collector(plugin: Plugin, behavior: &str, grants: &BTreeMap<String, Grant>) -> PluginCollector {
        let health = Arc::new(PluginHealth::default());
        let host = GrantedHost::new(
            "hostile",
            grants,
            None,
            Reading::LIVE,
            Clock::told(0),
            Arc::clone(&health),
        );
        PluginCollector {
            plugin,
            host: host.unwrap(),
            name: "hostile".to_owned(),
            settings: format!("{{\"behavior\": \"{behavior}\"}}"),
            is_configured: false,
            descriptor: described(|_same| {}).0,
            ranges: Ranges::from([("hostile.lines".to_owned(), Range { min: 0.0, max: 100.0 })]),
            restraint: Restraint::default(),
            put_off: None,
            health,
            failure: None,
            kept: None,
            cards_refused: 0,
        }
    }

    /// The sandbox counted what it dropped, and nobody asked it.
    #[test]
    fn what_a_plugin_wanted_beyond_its_limits_is_counted_also_when_it_fails_for_it() {
        for (behavior, failures, beyond) in [
            ("logs", 0, vec![("log_lines", 968), ("log_rate", 12), ("log_bytes", 32)]),
            ("huge-state", 1, vec![("state_bytes", 1)]),
        ] {
            let mut collector = collector(hostile(&[PATIENT_MS]).remove(0), behavior, &BTreeMap::new());
            collector.collect();
            let health = &collector.health;
            assert_eq!((health.failures(), health.beyond()), (failures, beyond), "{behavior}");
        }
    }

    #[test]
    fn values_outside_of_their_declared_range_are_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (lines, values, beyond) in [(100, 1, 0), (101, 0, 1)] {
            let grants = log(folder.path(), 0, lines);
            let mut collector = collector(hostile(&[PATIENT_MS]).remove(0), "count", &grants);
            collector.descriptor = collector.plugin.describe(&mut collector.host).unwrap();
            let batch = collector.collect().unwrap().batch;
            assert_eq!(batch.series[0].times_ms.len(), values, "{lines}");
            assert_eq!(collector.health.beyond_of(Limit::ValueRange), beyond, "{lines}");
        }
    }

    #[test]
    fn an_offender_comes_into_quarantine_and_its_neighbor_works_on() {
        let mut plugins = hostile(&[PATIENT_MS; 2]);
        let mut offender = collector(plugins.remove(0), "panic", &BTreeMap::new());
        let folder = tempfile::tempdir().unwrap();
        let mut neighbor = collector(plugins.remove(0), "report", &log(folder.path(), 0, 1));
        let mut calls = 0;
        while !offender.health.is_quarantined() {
            assert!(offender.collect().is_none());
            calls += 1;
            assert!(calls < 10_000);
        }
        assert_eq!(offender.health.failures(), u64::from(OFFENSES_MAX));
        for _ in 0..100 {
            assert!(offender.collect().is_none());
            assert!(neighbor.collect().is_some());
            neighbor.commit();
        }
        assert_eq!(offender.health.failures(), u64::from(OFFENSES_MAX), "it was not called");
        assert!(offender.health.is_quarantined());
        assert_eq!(neighbor.health.failures(), 0);
    }

    #[test]
    fn who_had_its_share_of_the_processor_is_put_off_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let grants = log(folder.path(), 0, 10);
        let mut collector = collector(hostile(&[PATIENT_MS]).remove(0), "report", &grants);
        collector.restraint = Restraint::new(Some(1), Instant::now());
        collector.restraint.on_busy(10_000_000, Instant::now());
        assert!(collector.collect().is_none());
        assert!(collector.put_off().unwrap() > Duration::from_secs(900));
        assert_eq!(collector.health.beyond(), [("cpu_share", 1)]);
        collector.restraint = Restraint::new(Some(1), Instant::now());
        let lines = collect_all(&mut collector, 10, &AtomicUsize::new(0));
        assert_eq!((lines.len(), collector.put_off()), (10, None));
        collector.restraint.on_busy(10_000_000, Instant::now());
        assert!(collector.collect().is_none(), "what its calls took counts");
    }

    #[test]
    fn a_round_ends_with_the_bytes_that_it_may_read_and_the_next_one_goes_on() {
        const LINES: usize = 2_000;
        let folder = tempfile::tempdir().unwrap();
        let grants = log(folder.path(), 0, LINES);
        let collector = collector(hostile(&[PATIENT_MS]).remove(0), "report", &grants);
        let health = Arc::clone(&collector.health);
        let bounds = RoundBounds {
            bytes_max: 5_000,
            ..RoundBounds::default()
        };
        let mut source = Source::for_test(collector, bounds);
        let (mut lines, mut rounds) = (0, 0);
        while lines < LINES {
            let before = health.read().0;
            source.collect_round(&Clock::told(0), |_name, collected| {
                let whole = collected.batch.series.iter();
                lines += whole
                    .filter(|series| matches!(series.values, Values::Integers(_)))
                    .count();
                true
            });
            rounds += 1;
            assert!(health.read().0 < before + 5_000 + 2_000, "one call more at most");
        }
        assert_eq!(lines, LINES);
        assert!(rounds >= 3, "{rounds}");
        let cut = health.beyond_of(Limit::RoundBytes);
        assert!(cut == rounds || cut + 1 == rounds, "{cut} of {rounds}");
    }

    const LINES: usize = 20_000;
    const KILLS: usize = 20;
    /// More than two calls read.
    const LINES_BETWEEN: usize = 500;

    /// A log of its own for each plugin.
    fn log(folder: &Path, plugin: usize, lines: usize) -> BTreeMap<String, Grant> {
        let file = folder.join(format!("{plugin}.log"));
        let lines: String = (0..lines).map(|line| format!("{plugin}.{line}\n")).collect();
        std::fs::write(&file, lines).unwrap();
        let grant = Grant::Lines {
            file,
            line_bytes_max: 1_000,
        };
        BTreeMap::from([("input".to_owned(), grant)])
    }

    /// Each line is in one batch, and no call is without one.
    fn collect_all(collector: &mut PluginCollector, count: usize, collected: &AtomicUsize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let Collected { batch, .. } = collector.collect().expect("no interval is lost");
            let whole = batch
                .series
                .iter()
                .filter(|series| matches!(series.values, Values::Integers(_)));
            lines.extend(whole.map(|series| series.labels[0].clone()));
            collector.commit();
            collected.store(lines.len(), Ordering::Relaxed);
        }
        lines
    }

    #[test]
    fn a_process_that_is_killed_again_and_again_costs_no_plugin_a_line_or_a_call() {
        let folder = tempfile::tempdir().unwrap();
        let mut plugins = hostile(&[PATIENT_MS; 3]);
        let watch = plugins.pop().unwrap();
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let failures = Mutex::new(0);
        std::thread::scope(|scope| {
            let collect = |(index, plugin): (usize, Plugin)| {
                let (grants, counts, failures) = (log(folder.path(), index, LINES), &counts, &failures);
                scope.spawn(move || {
                    let mut collector = collector(plugin, "report", &grants);
                    let lines = collect_all(&mut collector, LINES, &counts[index]);
                    assert_eq!(lines.len(), LINES);
                    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), LINES);
                    *failures.lock().unwrap() += collector.health.failures();
                })
            };
            let threads: Vec<_> = plugins.into_iter().enumerate().map(collect).collect();
            let mut before = [0; 2];
            for _kill in 0..KILLS {
                // A second kill in the same call is what a plugin that crashes looks like: some calls lie between.
                let is_behind =
                    |(count, before): (&AtomicUsize, &usize)| count.load(Ordering::Relaxed) < before + LINES_BETWEEN;
                while counts.iter().zip(&before).any(is_behind) && !threads.iter().any(|thread| thread.is_finished()) {
                    std::thread::yield_now();
                }
                before = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
                if threads.iter().any(|thread| thread.is_finished()) {
                    break;
                }
                if let Some(process) = watch.process_id() {
                    let process = rustix::process::Pid::from_raw(process.cast_signed()).unwrap();
                    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
                }
            }
        });
        assert_eq!(failures.into_inner().unwrap(), 0);
        assert!(watch.restarts() > 10, "{}", watch.restarts());
    }

    /// The plugin that loops ends the process in the middle of its neighbors' calls.
    #[test]
    fn a_plugin_beyond_its_deadline_costs_its_neighbors_no_line_and_no_call() {
        const STRIKES: usize = 3;
        const LOOP_MS: u64 = 20;
        /// More than they read meanwhile.
        const MANY: usize = 200_000;
        let folder = tempfile::tempdir().unwrap();
        let mut plugins = hostile(&[PATIENT_MS, PATIENT_MS, LOOP_MS]);
        let mut endless = collector(plugins.pop().unwrap(), "loop", &BTreeMap::new());
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        std::thread::scope(|scope| {
            let collect = |(index, plugin): (usize, Plugin)| {
                let (grants, count) = (log(folder.path(), index, MANY), &counts[index]);
                scope.spawn(move || {
                    let mut collector = collector(plugin, "report", &grants);
                    let lines = collect_all(&mut collector, MANY, count);
                    assert_eq!((lines.len(), collector.health.failures()), (MANY, 0));
                    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), MANY);
                    collector.health.restarts()
                })
            };
            let threads: Vec<_> = plugins.into_iter().enumerate().map(collect).collect();
            let is_collecting = |count: &AtomicUsize| (1..MANY).contains(&count.load(Ordering::Relaxed));
            while !counts.iter().all(is_collecting) {
                std::thread::yield_now();
            }
            for _strike in 0..STRIKES {
                endless.restraint.pardon();
                assert!(endless.collect().is_none());
            }
            assert!(
                threads.iter().all(|thread| !thread.is_finished()),
                "they were ready before"
            );
            let found: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(found + endless.health.restarts(), STRIKES as u64);
        });
        assert_eq!(endless.health.failures(), STRIKES as u64);
    }

    /// A new version whose first call panicked took the place of one that worked.
    #[test]
    fn what_breaks_a_bound_with_its_first_call_is_told_and_nothing_is_read_away() {
        let folder = tempfile::tempdir().unwrap();
        let grants = log(folder.path(), 0, 10);
        let mut plugins = hostile(&[PATIENT_MS; 4]);
        let mut old = collector(plugins.remove(0), "report", &grants);
        for (behavior, told) in [
            ("panic", Some("its first call fails")),
            ("report", None),
            ("fail", None),
        ] {
            let mut next = collector(plugins.remove(0), behavior, &grants);
            next.go_on_from(&old, None, &Clock::told(0)).unwrap();
            let tried = next.try_once().err().map(|error| format!("{error:#}"));
            assert_eq!(tried.is_some(), told.is_some(), "{tried:?}");
            assert!(tried.unwrap_or_default().starts_with(told.unwrap_or("")), "{behavior}");
        }
        assert_eq!(old.host.clone().state_get(), [] as [u8; 0]);
        assert_eq!(collect_all(&mut old, 10, &AtomicUsize::new(0)).len(), 10);
    }

    /// Two of them could have been exchanged, and nothing would have said so.
    #[test]
    fn each_bound_of_a_call_is_counted_under_its_own_name() {
        let health = PluginHealth::default();
        let counters = Counters {
            log_lines_dropped: 1,
            log_lines_cut: 2,
            reads_refused: 3,
            asks_refused: 4,
            host_refused: 5,
            states_refused: 6,
            peers_refused: 7,
            ..Counters::default()
        };
        report_limits(&health, counters);
        let counted = Limit::ALL.iter().map(|limit| (limit.name(), health.beyond_of(*limit)));
        let counted: Vec<_> = counted.filter(|(_name, count)| *count > 0).collect();
        let expected = [
            ("log_lines", 1),
            ("log_bytes", 2),
            ("read_bytes", 3),
            ("asks", 4),
            ("host_time", 5),
            ("state_bytes", 6),
            ("peer_asks", 7),
        ];
        assert_eq!(counted, expected);
    }

    /// The guard dropped them one by one, for ever, and nobody was told.
    #[test]
    fn whose_values_may_be_card_numbers_again_and_again_comes_into_quarantine() {
        let (kept, status) = watch::channel(Status::default());
        let mut collector = collector(hostile(&[PATIENT_MS]).remove(0), "idle", &BTreeMap::new());
        collector.heed(status);
        let mut calls = 0;
        while !collector.health.is_quarantined() {
            kept.send_modify(|status| {
                status
                    .refused
                    .entry("hostile".to_owned())
                    .or_default()
                    .add(Reason::Card, 3)
            });
            for _call_without_news in 0..2 {
                if collector.collect().is_some() {
                    collector.commit();
                }
            }
            calls += 1;
            assert!(calls <= OFFENSES_MAX);
        }
        assert_eq!((calls, collector.health.failures()), (OFFENSES_MAX, 0));
        assert!(collector.collect().is_none());
    }

    /// The agent reads, checks and decodes what a plugin asks for: that took none of the plugin's share.
    #[test]
    fn what_the_agent_does_for_a_plugin_counts_to_its_share() {
        let mut collector = collector(hostile(&[PATIENT_MS]).remove(0), "idle", &BTreeMap::new());
        collector.collect().unwrap();
        collector.restraint = Restraint::new(Some(1), Instant::now());
        let (left_us, busy_us) = (collector.restraint.share_left_us(), collector.health.time_us());
        let own = thread_time();
        (0..100).for_each(|_call| drop(collector.call().unwrap()));
        let own_us = i64::try_from(thread_time().saturating_sub(own).as_micros()).unwrap();
        let busy_us = i64::try_from(collector.health.time_us() - busy_us).unwrap();
        let taken_us = left_us - collector.restraint.share_left_us();
        // The share fills meanwhile, with a hundredth of the time.
        assert!(taken_us > busy_us + own_us / 2, "{taken_us} of {busy_us} and {own_us}");
    }

    /// A plugin that always has more would keep its thread from every order.
    #[test]
    fn a_round_ends_though_the_plugin_always_says_that_there_is_more() {
        let collector = collector(hostile(&[PATIENT_MS]).remove(0), "collect-more", &BTreeMap::new());
        let health = Arc::clone(&collector.health);
        let mut source = Source::for_test(collector, RoundBounds::default());
        let mut handed_on = 0;
        let is_taken = source.collect_round(&Clock::told(0), |_name, _collected| {
            handed_on += 1;
            true
        });
        assert!(is_taken);
        let calls_max = RoundBounds::default().calls_max;
        assert_eq!((handed_on, health.beyond_of(Limit::RoundCalls)), (calls_max, 1));
    }

    /// A description went to the screen and into the journal as it was.
    #[test]
    fn what_is_told_of_a_description_is_guarded() {
        let (mut descriptor, manifest) = described(|_same| {});
        descriptor.name = "4111111111111111".to_owned();
        let error = told(&check_description(&descriptor, &manifest).unwrap_err()).to_string();
        assert!(
            error.starts_with("it calls itself") && !error.contains("4111111111111111"),
            "{error}"
        );
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
