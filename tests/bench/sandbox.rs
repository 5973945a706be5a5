//! What plugins in a process of their own cost, and what they cost each other.
//!
//! Real components in the real process, called as the agent calls them; the same collector natively, in this process.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tillwatch_border::{CallError, Code, Document, Fault, Host, Level, Limits, Lines, Listing, Load, Plugin, start};
use tillwatch_sdk::Collector;
use tillwatch_sdk::testing::FileHost;
use tillwatch_tests::process::{plugin_dir, program};
use tillwatch_tests::usage;

use crate::footprint::line;

const LINES: u64 = 10_000;
const LATENCY: &str = "{\"format\":\"json\",\"field_latency\":\"latency\",\"other_route\":\"/checkout\"}";
const MANY: usize = 10;
/// A loaded machine is slow; only the runaway is to meet its deadline.
const PATIENT_MS: u64 = 60_000;
const DEADLINE_MS: u64 = 100;
/// What the hostile plugin does, and the process must outlive or be started again after.
const HOSTILE: [&str; 10] = [
    "loop",
    "memory",
    "recursion",
    "panic",
    "huge-label",
    "many-series",
    "logs",
    "huge-state",
    "reads",
    "fail",
];

#[derive(Serialize)]
struct Report {
    tillwatch: Figures,
}

#[derive(Serialize)]
struct Figures {
    wasm_native_ratio: f64,
    empty_call_ns: u64,
    idle_collect_ns: u64,
    rss_kib_first_plugin: u64,
    rss_kib_per_plugin: u64,
    pss_kib_per_plugin_in_own_process: u64,
    ten_plugins_ready_ms: f64,
    runaway_stop_ms: f64,
    trap_recovery_ms: f64,
    restart_ms: f64,
    hostile_total: usize,
    hostile_contained: usize,
    healthy_intervals_lost: u64,
}

/// Measures and prints.
pub(crate) fn run(json: bool) -> Result<()> {
    let bench = Bench::new()?;
    let (hostile_contained, healthy_intervals_lost) = bench.hostile()?;
    let (first, further, alone) = bench.memory()?;
    let figures = Figures {
        wasm_native_ratio: bench.ratio()?,
        empty_call_ns: nanoseconds(bench.empty_call()?),
        idle_collect_ns: nanoseconds(bench.idle_collect()?),
        rss_kib_first_plugin: first,
        rss_kib_per_plugin: further,
        pss_kib_per_plugin_in_own_process: alone,
        ten_plugins_ready_ms: milliseconds(bench.ready()?),
        runaway_stop_ms: milliseconds(bench.runaway()?),
        trap_recovery_ms: milliseconds(bench.trap_recovery()?),
        restart_ms: milliseconds(bench.restart()?),
        hostile_total: HOSTILE.len(),
        hostile_contained,
        healthy_intervals_lost,
    };
    let report = Report { tillwatch: figures };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", serde_json::to_string_pretty(&report.tillwatch)?);
    }
    Ok(())
}

/// The code that is measured; the folder goes with it.
struct Bench {
    program: PathBuf,
    latency: Arc<Code>,
    hostile: Arc<Code>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cache = folder.path().join("cache");
        std::fs::DirBuilder::new().mode(0o700).create(&cache)?;
        let plugins = plugin_dir()?;
        let guests = plugins.parent().context("plugins are in a folder")?.join("guests");
        Ok(Self {
            program: program("tillwatch-sandbox")?,
            latency: compile(&plugins.join("pos-latency/pos-latency.wasm"), &cache)?,
            hostile: compile(&guests.join("hostile.wasm"), &cache)?,
            _folder: folder,
        })
    }

    fn start(&self, code: &Arc<Code>, count: usize, call_ms_max: u64) -> Result<Vec<Plugin>> {
        let load = |_| Load {
            code: Arc::clone(code),
            limits: Limits {
                call_ms_max,
                ..Limits::default()
            },
        };
        let started = start(self.program.clone(), (0..count).map(load).collect())?;
        Ok(started.into_iter().collect::<Result<_, _>>()?)
    }

    fn hostile_as(&self, behavior: &str) -> Result<Plugin> {
        let mut plugin = self.start(&self.hostile, 1, PATIENT_MS)?.remove(0);
        plugin.configure(&settings(behavior), &mut BenchHost::default())?;
        Ok(plugin)
    }

    /// The same lines natively and over the border, with all its copies.
    fn ratio(&self) -> Result<f64> {
        let lines: String = (0..LINES).map(line).collect();
        let mut plugin = self.start(&self.latency, 1, PATIENT_MS)?.remove(0);
        plugin.configure(LATENCY, &mut BenchHost::default())?;
        let over_the_border = median(21, || {
            let mut host = BenchHost {
                lines: lines.clone().into_bytes(),
            };
            let begun = Instant::now();
            while plugin.collect(&mut host)?.more {}
            Ok(begun.elapsed())
        })?;
        let settings = serde_json::from_str(LATENCY)?;
        let mut host = FileHost::new(NOW_MS);
        let mut native =
            pos_latency::PosLatency::new(settings, &mut host).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let natively = median(21, || {
            host.append_lines("access_log", lines.as_bytes());
            let begun = Instant::now();
            loop {
                match native.collect(&mut host) {
                    Ok(batch) if batch.more => {}
                    Ok(_last) => break,
                    Err(error) => bail!("{error:?}"),
                }
            }
            let took = begun.elapsed();
            host.commit();
            Ok(took)
        })?;
        Ok(over_the_border.as_secs_f64() / natively.as_secs_f64())
    }

    fn empty_call(&self) -> Result<Duration> {
        let mut plugin = self.hostile_as("idle")?;
        median(10_001, || {
            timed(|| Ok(plugin.collect(&mut BenchHost::default()).map(drop)?))
        })
    }

    /// One question to a source that has nothing new.
    fn idle_collect(&self) -> Result<Duration> {
        let mut plugin = self.start(&self.latency, 1, PATIENT_MS)?.remove(0);
        let mut host = BenchHost::default();
        plugin.configure(LATENCY, &mut host)?;
        median(10_001, || timed(|| Ok(plugin.collect(&mut host).map(drop)?)))
    }

    /// Of a process with one plugin; of each further one in it; and of one in a process of its own, shared pages divided.
    fn memory(&self) -> Result<(u64, u64, u64)> {
        let resident = |count: usize| -> Result<usage::Usage> {
            let mut plugins = self.start(&self.latency, count, PATIENT_MS)?;
            for plugin in &mut plugins {
                plugin.configure(LATENCY, &mut BenchHost::default())?;
                plugin.collect(&mut BenchHost::default())?;
            }
            usage::of(plugins[0].process_id().context("no process")?)
        };
        let (one, many) = (resident(1)?, resident(1 + MANY)?);
        let mut apart = Vec::new();
        for _ in 0..MANY {
            let mut plugin = self.start(&self.latency, 1, PATIENT_MS)?.remove(0);
            plugin.configure(LATENCY, &mut BenchHost::default())?;
            plugin.collect(&mut BenchHost::default())?;
            apart.push(plugin);
        }
        let mut pss_kib = 0;
        for plugin in &apart {
            pss_kib += usage::of(plugin.process_id().context("no process")?)?.pss_kib;
        }
        let count = u64::try_from(MANY)?;
        Ok((
            one.rss_kib,
            many.rss_kib.saturating_sub(one.rss_kib) / count,
            pss_kib / count,
        ))
    }

    /// Started, sealed, configured.
    fn ready(&self) -> Result<Duration> {
        median(21, || {
            timed(|| {
                for plugin in &mut self.start(&self.latency, MANY, PATIENT_MS)? {
                    plugin.configure(LATENCY, &mut BenchHost::default())?;
                }
                Ok(())
            })
        })
    }

    fn runaway(&self) -> Result<Duration> {
        median(11, || {
            let mut plugin = self.start(&self.hostile, 1, DEADLINE_MS)?.remove(0);
            plugin.configure(&settings("loop"), &mut BenchHost::default())?;
            let begun = Instant::now();
            let result = plugin.collect(&mut BenchHost::default());
            let took = begun.elapsed();
            ensure!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}");
            Ok(took.saturating_sub(Duration::from_millis(DEADLINE_MS)))
        })
    }

    /// From the panic's call to the next good one.
    fn trap_recovery(&self) -> Result<Duration> {
        let mut plugin = self.hostile_as("panic")?;
        median(101, || {
            let mut host = BenchHost::default();
            let begun = Instant::now();
            ensure!(plugin.collect(&mut host).is_err(), "a panic is an error");
            plugin.renew();
            plugin.configure(&settings("idle"), &mut host)?;
            plugin.collect(&mut host)?;
            let took = begun.elapsed();
            plugin.renew();
            plugin.configure(&settings("panic"), &mut host)?;
            Ok(took)
        })
    }

    /// From the kill to the next good call of a neighbor.
    fn restart(&self) -> Result<Duration> {
        let mut plugins = self.start(&self.latency, MANY, PATIENT_MS)?;
        let plugin = &mut plugins[0];
        median(21, || {
            let process = plugin.process_id().context("no process")?;
            let killed = Command::new("kill").args(["-9", &process.to_string()]).status()?;
            ensure!(killed.success(), "the process could not be killed");
            timed(|| {
                plugin.renew();
                let mut host = BenchHost::default();
                Ok(plugin
                    .configure(LATENCY, &mut host)
                    .and_then(|()| plugin.collect(&mut host))
                    .map(drop)?)
            })
        })
    }

    /// Each behavior beside a healthy plugin: how many were contained, and how many calls of the healthy one were lost.
    fn hostile(&self) -> Result<(usize, u64)> {
        let (mut contained, mut lost) = (0, 0);
        for behavior in HOSTILE {
            let [mut hostile, mut healthy]: [Plugin; 2] = match self.start(&self.hostile, 2, 2_000)?.try_into() {
                Ok(two) => two,
                Err(_other) => bail!("not two plugins"),
            };
            let mut host = BenchHost::default();
            hostile.configure(&settings(behavior), &mut host)?;
            drop(hostile.collect(&mut host));
            let is_healthy = (0..5).any(|_try| {
                healthy.renew();
                let configured = healthy.configure(&settings("report"), &mut host);
                configured.and_then(|()| healthy.collect(&mut host)).is_ok()
            });
            contained += usize::from(is_healthy);
            lost += u64::from(!is_healthy);
        }
        Ok((contained, lost))
    }
}

fn compile(wasm: &Path, cache: &Path) -> Result<Arc<Code>> {
    let name = wasm.file_stem().context("a file")?;
    let artifact = cache.join(name).with_extension("cwasm");
    let status = Command::new(program("tillwatch-compile")?)
        .arg(wasm)
        .arg(&artifact)
        .status()?;
    ensure!(status.success(), "{} does not compile", wasm.display());
    Ok(Arc::new(Code::open(&artifact)?))
}

fn settings(behavior: &str) -> String {
    format!("{{\"behavior\": \"{behavior}\"}}")
}

fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    run()?;
    Ok(begun.elapsed())
}

fn median(times: usize, mut run: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut took = (0..times).map(|_time| run()).collect::<Result<Vec<_>>>()?;
    took.sort_unstable();
    took.get(times / 2).copied().context("nothing was measured")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

const NOW_MS: u64 = 1_772_451_000_000;

/// Gives its lines once.
#[derive(Default)]
struct BenchHost {
    lines: Vec<u8>,
}

impl Host for BenchHost {
    fn log(&mut self, _level: Level, _message: &str) {}

    fn now_ms(&mut self) -> u64 {
        NOW_MS
    }

    fn state_get(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn state_set(&mut self, _value: Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn read_lines(&mut self, _source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let wanted = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(self.lines.len());
        let end = self.lines[..wanted]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let rest = self.lines.split_off(end);
        let bytes = std::mem::replace(&mut self.lines, rest);
        Ok(Lines {
            bytes,
            more: !self.lines.is_empty(),
            skipped_bytes: 0,
        })
    }

    fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
        Ok(None)
    }

    fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
        Ok(Listing::default())
    }
}
