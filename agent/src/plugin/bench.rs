//! `tillwatch plugin bench`: what a plugin costs on its own test cases' input, repeated.
//!
//! In: a plugin's folder. Out: times and memory for each case that collects without an error.
//! Keys of `--json`, one object for each case: `plugin`, `version`, `case`, `instantiate_us` (with its process) and `idle_call_us` (medians),
//! `call_us` (median) and `call_us_max` of calls that read, `input_bytes`, `calls`, `samples`, `ms_per_mb` (10^6 bytes of
//! input), `memory_bytes`, the most of linear memory, and `fuel_per_call` and `fuel_per_byte`: what was executed, in the
//! engine's fuel, about one for each instruction. Fuel is the same on every machine and at every load; it is counted in a
//! run of its own, over code that was compiled to count, and the times are of code as stores run it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tillwatch_border::{CallError, Limits};

use super::golden::host::CaseHost;
use super::golden::{cases, file_name, read_settings};
use super::outside::{Code, Instance, Outside, component_of, patient_limits};
use crate::output;

/// Of each source that has any input: seconds of work for a slow plugin.
const INPUT_BYTES: usize = 8 << 20;
/// A store gives as much as is asked for.
const PIECE_BYTES: usize = 16 << 20;
const CALLS_MAX: usize = 20_000;
/// Of what takes microseconds, so many are timed.
const REPEATS: usize = 50;

/// Arguments of `plugin bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// The folder with plugin.toml, the .wasm and testcases/.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The component, when it is elsewhere.
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// One JSON object a case.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Figures {
    plugin: String,
    version: String,
    case: String,
    instantiate_us: u64,
    idle_call_us: u64,
    call_us: u64,
    call_us_max: u64,
    input_bytes: u64,
    calls: usize,
    samples: usize,
    ms_per_mb: f64,
    memory_bytes: usize,
    fuel_per_call: u64,
    fuel_per_byte: f64,
}

/// # Errors
/// When the plugin does not load, a case cannot be read, or none collects without an error.
pub fn run(arguments: &Bench) -> Result<()> {
    let plugin = Outside::open(&arguments.folder, arguments.wasm.as_deref())?;
    let wasm = component_of(&arguments.folder, &plugin.manifest, arguments.wasm.as_deref());
    let metered = Code::load_metered(&wasm)?;
    let mut measured = 0;
    for case in cases(&arguments.folder.join("testcases"))? {
        let name = file_name(&case);
        let Some(figures) = measure(&plugin, &metered, &case).with_context(|| format!("case {name}"))? else {
            continue;
        };
        measured += 1;
        output::line(&if arguments.json {
            serde_json::to_string(&figures)?
        } else {
            shown(&figures)
        })?;
    }
    ensure!(
        measured > 0,
        "no case reads lines or documents without an error\nhint: add one with input; listing a folder reads nothing that could be measured"
    );
    Ok(())
}

/// None when the case ends with the plugin's own error, or has no input.
fn measure(plugin: &Outside, metered: &Code, case: &Path) -> Result<Option<Figures>> {
    let settings = read_settings(case, &plugin.manifest)?;
    let host = input_of(plugin, case)?;
    let mut instance = plugin.instantiate(patient_limits(), Box::new(host.clone()))?;
    let Some(mut read) = read_all(&mut instance, &settings)? else {
        return Ok(None);
    };
    let input_bytes = host.given_bytes();
    if input_bytes == 0 {
        return Ok(None);
    }
    let fuel = fuel(plugin, metered, case, &settings)?;
    let busy: Duration = read.times.iter().sum();
    Ok(Some(Figures {
        plugin: plugin.manifest.name.clone(),
        version: plugin.manifest.version.clone(),
        case: file_name(case),
        instantiate_us: instantiate_us(plugin, &host)?,
        idle_call_us: idle_call_us(&mut instance)?,
        call_us_max: micros(read.times.iter().max().copied().unwrap_or_default()),
        calls: read.times.len(),
        call_us: micros(median(&mut read.times)),
        input_bytes,
        samples: read.samples,
        ms_per_mb: ms_per_mb(busy, input_bytes),
        memory_bytes: instance.counters().memory_bytes,
        fuel_per_call: fuel / read.times.len() as u64,
        fuel_per_byte: per_byte(fuel, input_bytes),
    }))
}

/// The case's input, again and again.
fn input_of(plugin: &Outside, case: &Path) -> Result<CaseHost> {
    let host = CaseHost::read(case, &plugin.manifest.sources)?;
    host.set_piece_bytes(PIECE_BYTES);
    host.repeat(INPUT_BYTES);
    Ok(host)
}

/// What reading to the end took.
struct Read {
    times: Vec<Duration>,
    samples: usize,
}

/// None when the plugin refuses its settings, or gives up.
fn read_all(instance: &mut Instance, settings: &str) -> Result<Option<Read>> {
    match instance.configure(settings) {
        Err(CallError::Plugin(_refused)) => return Ok(None),
        configured => configured?,
    }
    let (mut times, mut samples) = (Vec::new(), 0);
    loop {
        let begun = Instant::now();
        let batch = match instance.collect() {
            Err(CallError::Plugin(_gave_up)) => return Ok(None),
            batch => batch?,
        };
        times.push(begun.elapsed());
        samples += batch.series.iter().map(|series| series.times_ms.len()).sum::<usize>();
        if !batch.more {
            return Ok(Some(Read { times, samples }));
        }
        ensure!(
            times.len() < CALLS_MAX,
            "collect still says more after {CALLS_MAX} calls"
        );
    }
}

/// What the same takes in fuel, its settings included.
fn fuel(plugin: &Outside, metered: &Code, case: &Path, settings: &str) -> Result<u64> {
    let mut instance = metered.instantiate(patient_limits(), Box::new(input_of(plugin, case)?))?;
    let read = read_all(&mut instance, settings)?;
    ensure!(read.is_some(), "it gave up where it did not before");
    Ok(instance.counters().fuel)
}

fn instantiate_us(plugin: &Outside, host: &CaseHost) -> Result<u64> {
    timed(|| plugin.instantiate(patient_limits(), Box::new(host.clone())).map(drop))
}

/// With nothing new to read.
fn idle_call_us(instance: &mut Instance) -> Result<u64> {
    timed(|| instance.collect().map(drop))
}

fn timed(mut action: impl FnMut() -> Result<(), CallError>) -> Result<u64> {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let begun = Instant::now();
        action()?;
        times.push(begun.elapsed());
    }
    Ok(micros(median(&mut times)))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a figure of three digits")]
fn ms_per_mb(busy: Duration, bytes: u64) -> f64 {
    let ms = busy.as_secs_f64() * 1e3 / (bytes as f64 / 1e6);
    (ms * 1e3).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "a figure of three digits")]
fn per_byte(fuel: u64, bytes: u64) -> f64 {
    (fuel as f64 / bytes as f64 * 10.0).round() / 10.0
}

fn shown(figures: &Figures) -> String {
    let Figures {
        case,
        instantiate_us,
        idle_call_us,
        call_us,
        call_us_max,
        input_bytes,
        calls,
        samples,
        ms_per_mb,
        memory_bytes,
        fuel_per_call,
        fuel_per_byte,
        ..
    } = figures;
    let mut text = format!(
        "{case}: {ms_per_mb} ms per MB of input; {calls} calls of {call_us} us, at most {call_us_max} us\n  idle call {idle_call_us} us, instantiate {instantiate_us} us, memory {memory_bytes} bytes, {samples} samples from {input_bytes} bytes\n  fuel {fuel_per_call} a call, {fuel_per_byte} a byte"
    );
    let deadline_ms = Limits::default().call_ms_max;
    if *call_us_max > deadline_ms * 1_000 {
        text.push_str(&format!(
            "\n  hint: a store ends a call after {deadline_ms} ms; read less in each call, or tell operators to set `deadline`"
        ));
    }
    text
}
