//! What plugins in a process of their own cost, and what a bad one costs the others.
//!
//! Real components in the real process, called as the agent calls them; the same collector natively, in this process.
//! Every call here crosses the border between the processes, but those that are named `inside`: the same engine and code
//! without a process of its own, a deadline and a seal.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use tillwatch_agent::config::COMPILER_BYTES_MAX;
use tillwatch_agent::plugin::compile::Loader;
use tillwatch_border::{CallError, Code, Limits, Load, Plugin, start};
use tillwatch_core::sample::Batch;
use tillwatch_sandbox::{Instance, Sandbox};
use tillwatch_sdk::Collector;
use tillwatch_tests::process::{plugin_dir, program};
use tillwatch_tests::usage;

use crate::bundles::{BUNDLES, Store};
use crate::hostile;
use crate::memory::MemoryHost;
use crate::till;

const LINES: usize = 10_000;
const MANY: usize = BUNDLES;
/// A loaded machine is slow; only the runaway is to meet its deadline.
const PATIENT_MS: u64 = 60_000;
const DEADLINE_MS: u64 = 100;
const CALLS: usize = 5_001;
const CALL_PAUSE: Duration = Duration::from_millis(1);
/// Points of the line through the memory of a soak.
const SOAK_POINTS: u64 = 100;
/// Caches and pools are full by then.
const SOAK_WARM_POINTS: u64 = 10;

#[derive(Serialize)]
struct Report {
    tillwatch: Figures,
}

#[derive(Serialize)]
struct Figures {
    hostile_total: usize,
    hostile_contained: usize,
    healthy_intervals_lost: u64,
    rss_growth_kib: i64,
    wasm_native_ratio: f64,
    inside_wasm_native_ratio: f64,
    inside_empty_call_ns: u64,
    inside_idle_collect_ns: u64,
    empty_call_ns: u64,
    idle_collect_ns: u64,
    rss_kib_per_plugin: u64,
    ten_plugins_ready_ms: f64,
    runaway_stop_ms: f64,
    trap_recovery_ms: f64,
    soak_rss_slope_kib_per_million_calls: f64,
    #[serde(flatten)]
    till: till::Noticed,
}

/// Measures and prints. So many calls for the soak, so many seconds for each side of the till.
pub(crate) fn run(json: bool, calls: u64, seconds: u64) -> Result<()> {
    let corpus = hostile::run()?;
    for escaped in &corpus.escaped {
        eprintln!("not contained: {escaped}");
    }
    let bench = Bench::new()?;
    let (wasm_native_ratio, inside_wasm_native_ratio) = bench.ratios()?;
    let (inside_empty_call, inside_idle_collect) = bench.inside_calls()?;
    let empty_call_ns = nanoseconds(bench.empty_call()?);
    let idle_collect_ns = nanoseconds(bench.idle_collect()?);
    let rss_kib_per_plugin = bench.memory()?;
    let ten_plugins_ready_ms = milliseconds(Bench::ready()?);
    let runaway_stop_ms = milliseconds(bench.runaway()?);
    let trap_recovery_ms = milliseconds(bench.trap_recovery()?);
    let soak_rss_slope_kib_per_million_calls = bench.soak(calls)?;
    let till = till::measure(Duration::from_secs(seconds))?;
    let report = Report {
        tillwatch: Figures {
            hostile_total: corpus.hostile_total,
            hostile_contained: corpus.hostile_contained,
            healthy_intervals_lost: corpus.healthy_intervals_lost,
            rss_growth_kib: corpus.rss_growth_kib,
            wasm_native_ratio,
            inside_wasm_native_ratio,
            inside_empty_call_ns: nanoseconds(inside_empty_call),
            inside_idle_collect_ns: nanoseconds(inside_idle_collect),
            empty_call_ns,
            idle_collect_ns,
            rss_kib_per_plugin,
            ten_plugins_ready_ms,
            runaway_stop_ms,
            trap_recovery_ms,
            soak_rss_slope_kib_per_million_calls,
            till,
        },
    };
    let text = if json {
        serde_json::to_string(&report)?
    } else {
        serde_json::to_string_pretty(&report.tillwatch)?
    };
    println!("{text}");
    Ok(())
}

/// The code that is measured.
struct Bench {
    latency: Arc<Code>,
    hostile: Arc<Code>,
    /// Real lines of an access log, and the settings that they need.
    lines: Vec<u8>,
    settings: String,
}

impl Bench {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let plugins = plugin_dir()?;
        let mut loader = Loader::new(folder.path(), COMPILER_BYTES_MAX)?;
        let latency = loader.load(&plugins.join("pos-latency/pos-latency.wasm"), None)?;
        let hostile = loader.load(&plugins.join("../guests/hostile.wasm"), None)?;
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/pos-latency/testcases/nginx_timed");
        let text = std::fs::read_to_string(case.join("access_log.log"))?;
        let lines: Vec<&str> = text.lines().cycle().take(LINES).collect();
        let settings: toml::Table = toml::from_str(&std::fs::read_to_string(case.join("settings.toml"))?)?;
        Ok(Self {
            latency,
            hostile,
            lines: (lines.join("\n") + "\n").into_bytes(),
            settings: serde_json::to_string(&settings)?,
        })
    }

    fn start(&self, code: &Arc<Code>, count: usize, call_ms_max: u64) -> Result<Vec<Plugin>> {
        let load = |index| Load {
            code: Arc::clone(code),
            limits: Limits {
                call_ms_max,
                ..Limits::default()
            },
            name: format!("plugin {index}"),
        };
        let started = start(program("tillwatch-sandbox")?, (0..count).map(load).collect())?;
        Ok(started.into_iter().collect::<Result<_, _>>()?)
    }

    fn one(&self, code: &Arc<Code>, call_ms_max: u64, settings: &str) -> Result<Plugin> {
        let mut plugin = self.start(code, 1, call_ms_max)?.remove(0);
        plugin.configure(settings, &mut MemoryHost::default())?;
        Ok(plugin)
    }

    /// The same lines over the border, in this process and natively, in turn: both by the last.
    fn ratios(&self) -> Result<(f64, f64)> {
        let mut plugin = self.one(&self.latency, PATIENT_MS, &self.settings)?;
        let mut inside = self.inside(&self.latency, &self.settings)?;
        let settings = serde_json::from_str(&self.settings)?;
        let mut native =
            pos_latency::PosLatency::new(settings, &mut MemoryHost::default()).map_err(|error| anyhow!("{error}"))?;
        let (mut bordered, mut insides, mut natively) = (Vec::new(), Vec::new(), Vec::new());
        for _turn in 0..41 {
            let mut host = MemoryHost::with_lines(&self.lines);
            let over = drained(&mut bordered, || {
                let batch = plugin.collect(&mut host)?;
                Ok((samples(&batch), batch.more))
            })?;
            *inside.host_as::<MemoryHost>().context("another host")? = MemoryHost::with_lines(&self.lines);
            let within = drained(&mut insides, || {
                let batch = inside.collect()?;
                Ok((samples(&batch), batch.more))
            })?;
            let mut host = MemoryHost::with_lines(&self.lines);
            let natives = drained(&mut natively, || {
                let batch = native.collect(&mut host).map_err(|error| anyhow!("{error}"))?;
                Ok((batch.samples(), batch.more))
            })?;
            ensure!(
                over == natives && within == natives && natives > 0,
                "{over} and {within} samples, natively {natives}"
            );
        }
        let natively = median(natively)?.as_secs_f64();
        let by = |took| Ok::<_, anyhow::Error>(median(took)?.as_secs_f64() / natively);
        Ok((by(bordered)?, by(insides)?))
    }

    /// A plugin in this process, as the sandbox has it in its own.
    fn inside(&self, code: &Arc<Code>, settings: &str) -> Result<Instance> {
        let plugin = Sandbox::new(false)?.load(&**code)?;
        let mut instance = plugin.instantiate(Limits::default(), Box::<MemoryHost>::default())?;
        instance.configure(settings)?;
        Ok(instance)
    }

    /// Empty, and with a question to a source that has nothing new, both in this process.
    fn inside_calls(&self) -> Result<(Duration, Duration)> {
        let mut idle = self.inside(&self.hostile, &behavior("idle"))?;
        let mut latency = self.inside(&self.latency, &self.settings)?;
        Ok((
            calls(CALLS, || Ok(idle.collect().map(drop)?))?,
            calls(CALLS, || Ok(latency.collect().map(drop)?))?,
        ))
    }

    fn empty_call(&self) -> Result<Duration> {
        let mut plugin = self.one(&self.hostile, PATIENT_MS, &behavior("idle"))?;
        let mut host = MemoryHost::default();
        calls(CALLS, || Ok(plugin.collect(&mut host).map(drop)?))
    }

    /// One question to a source that has nothing new.
    fn idle_collect(&self) -> Result<Duration> {
        let mut plugin = self.one(&self.latency, PATIENT_MS, &self.settings)?;
        let mut host = MemoryHost::default();
        calls(CALLS, || Ok(plugin.collect(&mut host).map(drop)?))
    }

    /// Of each further plugin in the process.
    fn memory(&self) -> Result<u64> {
        let resident = |count: usize| -> Result<u64> {
            let mut plugins = self.start(&self.latency, count, PATIENT_MS)?;
            for plugin in &mut plugins {
                plugin.configure(&self.settings, &mut MemoryHost::default())?;
                plugin.collect(&mut MemoryHost::default())?;
            }
            Ok(usage::of(plugins[0].process_id().context("no process")?)?.rss_kib)
        };
        let (one, many) = (resident(1)?, resident(1 + MANY)?);
        Ok(many.saturating_sub(one) / u64::try_from(MANY)?)
    }

    /// From the settings of a store to ten signed bundles that can be called, as the agent starts them.
    fn ready() -> Result<Duration> {
        let store = Store::new()?;
        store.start().context("filling the cache")?;
        ensure!(store.compiled()? == MANY, "a bundle was not compiled");
        median((0..21).map(|_turn| timed(|| store.start())).collect::<Result<_>>()?)
    }

    /// The longest that one ran beyond its deadline, its process ended.
    fn runaway(&self) -> Result<Duration> {
        let mut worst = Duration::ZERO;
        for _turn in 0..11 {
            let mut plugin = self.one(&self.hostile, DEADLINE_MS, &behavior("loop"))?;
            let begun = Instant::now();
            let result = plugin.collect(&mut MemoryHost::default());
            let took = begun.elapsed();
            ensure!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}");
            worst = worst.max(took.saturating_sub(Duration::from_millis(DEADLINE_MS)));
        }
        Ok(worst)
    }

    /// From the panic's call to the end of the next good one.
    fn trap_recovery(&self) -> Result<Duration> {
        let mut plugin = self.start(&self.hostile, 1, PATIENT_MS)?.remove(0);
        let mut host = MemoryHost::default();
        let mut took = Vec::new();
        for _turn in 0..101 {
            plugin.renew();
            plugin.configure(&behavior("panic"), &mut host)?;
            took.push(timed(|| {
                ensure!(plugin.collect(&mut host).is_err(), "a panic is an error");
                plugin.renew();
                plugin.configure(&behavior("idle"), &mut host)?;
                Ok(plugin.collect(&mut host).map(drop)?)
            })?);
        }
        median(took)
    }

    /// Of this process and the plugins', by calls that read, keep a state and report.
    fn soak(&self, calls: u64) -> Result<f64> {
        let mut plugin = self.one(&self.hostile, PATIENT_MS, &behavior("report"))?;
        let step = (calls / SOAK_POINTS).max(1);
        let mut points = Vec::new();
        for point in 0..SOAK_POINTS {
            for _call in 0..step {
                let mut host = MemoryHost::with_lines(b"till-1\n");
                ensure!(!plugin.collect(&mut host)?.series.is_empty(), "a report is empty");
            }
            if point >= SOAK_WARM_POINTS {
                let millions = (point * step) as f64 / 1e6;
                points.push((millions, usage::of(std::process::id())?.rss_kib as f64));
            }
        }
        Ok(slope(&points))
    }
}

/// Least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean) * (x - x_mean)).sum();
    covariance / variance
}

/// With a pause before each, as an agent's calls have one: what follows at once finds both threads awake on whatever
/// processors they are.
fn calls(count: usize, mut call: impl FnMut() -> Result<()>) -> Result<Duration> {
    let took = (0..count).map(|_call| {
        std::thread::sleep(CALL_PAUSE);
        timed(&mut call)
    });
    median(took.collect::<Result<_>>()?)
}

/// Collects until there is no more, and notes the time: how many samples came.
fn drained(took: &mut Vec<Duration>, mut collect: impl FnMut() -> Result<(usize, bool)>) -> Result<usize> {
    let mut samples = 0;
    took.push(timed(|| {
        loop {
            let (more_samples, is_more) = collect()?;
            samples += more_samples;
            if !is_more {
                return Ok(());
            }
        }
    })?);
    Ok(samples)
}

fn samples(batch: &Batch) -> usize {
    batch.series.iter().map(|series| series.times_ms.len()).sum()
}

fn behavior(name: &str) -> String {
    format!("{{\"behavior\": \"{name}\"}}")
}

fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    run()?;
    Ok(begun.elapsed())
}

fn median(mut took: Vec<Duration>) -> Result<Duration> {
    took.sort_unstable();
    match took.get(took.len() / 2) {
        Some(median) => Ok(*median),
        None => bail!("nothing was measured"),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_through_noise() {
        let points = [(0.0, 1.0), (1.0, 4.0), (2.0, 4.0), (3.0, 7.0)];
        assert!((slope(&points) - 1.8).abs() < 1e-9);
    }
}
