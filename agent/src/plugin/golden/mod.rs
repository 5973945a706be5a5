//! `tillwatch plugin test`: a plugin's test cases on its built `.wasm`, in the same sandbox as in a store.
//!
//! ```text
//! testcases/<case>/
//!   settings.toml      settings other than plugin.toml's defaults; may be missing
//!   clock.toml         now = 2026-03-02T11:30:00Z, and under [age_s] how old each input file is
//!   <source>.<any>     a source of kind lines
//!   <source>/          a source of kind documents or folder
//!   peers.toml         what peers over the network answer; may be missing
//!   expected.jsonl     one line per sample, per log line above debug, and for the error that ended the run
//! ```
//! The SDK runs the very same cases natively; both must come out the same, byte by byte.
//! What comes out is also given to an agent's registry and guard, so that an author learns here what a store would
//! refuse. Then the same input shows whether the plugin keeps the contract, in `contract`.

pub(super) mod admission;
pub(super) mod answers;
pub(super) mod host;
mod marks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use tillwatch_border::{CallError, ErrorKind, Level};
use tillwatch_core::sample::{Batch, Descriptor, Values};

use super::contract;
use super::manifest::Manifest;
use super::outside::{Outside, patient_limits};
use crate::output;
use admission::Admission;
use host::CaseHost;

/// A collector that still says `more` after so many calls is taken for an endless one, as in the SDK.
const CALLS_MAX: usize = 1000;
/// The last log lines of a plugin that trapped.
const LOGS_MAX: usize = 20;
/// Lines of a difference that are shown.
const DIFFERENCE_LINES_MAX: usize = 40;

/// Runs all cases and prints which came out otherwise; with `update`, what came out is what is expected from now on.
///
/// # Errors
/// When the plugin does not load or there is no case.
pub fn run(folder: &Path, wasm: Option<&Path>, update: bool) -> Result<ExitCode> {
    let plugin = Outside::open(folder, wasm)?;
    let cases = cases(&folder.join("testcases"))?;
    let mut failed = 0;
    for case in &cases {
        let name = file_name(case);
        // What cannot be run is told as well, and the next case comes.
        let told = check(&plugin, case, update).unwrap_or_else(|error| Some(format!("  {}", output::told(&error))));
        match told {
            None => output::line(&format!("ok      {name}"))?,
            Some(told) => {
                failed += 1;
                output::line(&format!("FAILED  {name}\n{told}"))?;
            }
        }
    }
    output::line(&format!(
        "{} of {} cases came out as expected",
        cases.len() - failed,
        cases.len()
    ))?;
    let has_kept = contract::check(&plugin, &cases)?;
    Ok(if failed == 0 && has_kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) fn cases(folder: &Path) -> Result<Vec<PathBuf>> {
    let cases: Vec<PathBuf> = sorted(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    ensure!(!cases.is_empty(), "no test case in {}", folder.display());
    Ok(cases)
}

/// The difference to what is expected, and what an agent refuses, when there is any.
fn check(plugin: &Outside, folder: &Path, update: bool) -> Result<Option<String>> {
    let host = CaseHost::read(folder, &plugin.manifest.sources)?;
    let mut admission = Admission::of(&plugin.manifest);
    let actual = collect(plugin, &host, &read_settings(folder, &plugin.manifest)?, &mut admission)?;
    let path = folder.join("expected.jsonl");
    if update {
        std::fs::write(&path, &actual).with_context(|| format!("writing {}", path.display()))?;
    }
    let expected = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "reading {}\nhint: `tillwatch plugin test --update` writes what came out; read it before you keep it",
            path.display()
        )
    })?;
    let mut faults = admission.refused();
    faults.extend(host.misreads().into_iter().map(|misread| format!("  {misread}")));
    if expected != actual {
        faults.push(difference(&expected, &actual));
    }
    Ok((!faults.is_empty()).then(|| faults.join("\n")))
}

/// Over the defaults of plugin.toml, as in a store.
pub(super) fn read_settings(folder: &Path, manifest: &Manifest) -> Result<String> {
    let defaults = manifest.settings.iter();
    let defaults = defaults.filter_map(|setting| Some((setting.name.clone(), setting.default.clone()?)));
    let mut settings: serde_json::Map<_, _> = defaults.collect();
    let path = folder.join("settings.toml");
    if path.exists() {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let given: serde_json::Map<_, _> =
            toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        settings.extend(given);
    }
    Ok(serde_json::to_string(&settings)?)
}

/// The lines that come out of a case; what ends the plugin comes with what it logged before, such as its panic's text.
pub(super) fn collect(plugin: &Outside, host: &CaseHost, settings: &str, admission: &mut Admission) -> Result<String> {
    let collected = collect_lines(plugin, host, settings, admission);
    collected.map_err(|error| {
        let logs = host.take_logs().into_iter().rev().take(LOGS_MAX);
        let logs: Vec<String> = logs.map(|(_level, message)| message).collect();
        let said: String = logs
            .iter()
            .rev()
            .map(|message| format!("\n  it logged: {message}"))
            .collect();
        anyhow!("{error:#}{said}")
    })
}

fn collect_lines(plugin: &Outside, host: &CaseHost, settings: &str, admission: &mut Admission) -> Result<String> {
    let mut out = String::new();
    let mut instance = plugin.instantiate(patient_limits(), Box::new(host.clone()))?;
    if let Some(error) = plugin_error(instance.configure(settings))? {
        return Ok(error);
    }
    let descriptor = instance.describe()?;
    admission.declare(&descriptor)?;
    for _ in 0..CALLS_MAX {
        let result = instance.collect();
        if matches!(result, Ok(_) | Err(CallError::Plugin(_))) {
            write_logs(&mut out, host)?;
        }
        match result {
            Ok(batch) => {
                write_batch(&mut out, &descriptor, &batch)?;
                admission.offer(host.now(), &descriptor, &batch);
                if !batch.more {
                    return Ok(out);
                }
            }
            Err(error) => return Ok(out + &plugin_error(Err(error))?.unwrap_or_default()),
        }
    }
    bail!("collect still says more after {CALLS_MAX} calls")
}

/// What the plugin says itself is a line; a trap or a broken limit is no outcome that a case may expect.
fn plugin_error(result: Result<(), CallError>) -> Result<Option<String>> {
    let error = match result {
        Ok(()) => return Ok(None),
        Err(CallError::Plugin(error)) => error,
        Err(other) => return Err(other.into()),
    };
    let kind = match error.kind {
        ErrorKind::Config => "config",
        ErrorKind::Transient => "transient",
        ErrorKind::Permanent => "permanent",
    };
    let mut out = String::new();
    push_line(
        &mut out,
        &Line::Error {
            error: kind,
            message: &error.message,
        },
    )?;
    Ok(Some(out))
}

/// One line of `expected.jsonl`, its fields in this order.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Sample {
        metric: &'a str,
        labels: BTreeMap<&'a str, &'a str>,
        value: Value,
        time_ms: u64,
    },
    Log {
        log: &'a str,
        message: &'a str,
    },
    Error {
        error: &'a str,
        message: &'a str,
    },
}

/// Reals are written with a decimal point, integers without.
#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Real(f64),
    Integer(i64),
}

fn write_batch(out: &mut String, descriptor: &Descriptor, batch: &Batch) -> Result<()> {
    for series in &batch.series {
        let metric = descriptor
            .metrics
            .get(usize::from(series.metric))
            .context("a metric that was not described")?;
        let labels = || {
            metric
                .label_keys
                .iter()
                .map(String::as_str)
                .zip(series.labels.iter().map(String::as_str))
        };
        ensure!(
            metric.label_keys.len() == series.labels.len(),
            "{} came with other labels",
            metric.name
        );
        for (at, time_ms) in series.times_ms.iter().enumerate() {
            let value = match &series.values {
                Values::Reals(reals) => reals.get(at).copied().map(Value::Real),
                Values::Integers(integers) => integers.get(at).copied().map(Value::Integer),
            };
            let value = value.context("fewer values than times")?;
            push_line(
                out,
                &Line::Sample {
                    metric: &metric.name,
                    labels: labels().collect(),
                    value,
                    time_ms: *time_ms,
                },
            )?;
        }
    }
    Ok(())
}

fn write_logs(out: &mut String, host: &CaseHost) -> Result<()> {
    for (level, message) in host.take_logs() {
        let log = match level {
            Level::Debug => continue,
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        push_line(out, &Line::Log { log, message: &message })?;
    }
    Ok(())
}

fn push_line(out: &mut String, line: &Line<'_>) -> Result<()> {
    out.push_str(&serde_json::to_string(line)?);
    out.push('\n');
    Ok(())
}

/// The lines from the first difference on, `-` expected and `+` actual.
fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let head = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let marked = expected[head..].iter().map(|line| format!("- {line}"));
    let marked = marked.chain(actual[head..].iter().map(|line| format!("+ {line}")));
    let lines: Vec<String> = marked.take(DIFFERENCE_LINES_MAX).collect();
    format!("  from line {}\n{}", head + 1, lines.join("\n"))
}

pub(super) fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_begins_at_the_first_line_that_differs() {
        assert_eq!(
            difference("a\nb\nc\n", "a\nx\nc\n"),
            "  from line 2\n- b\n- c\n+ x\n+ c"
        );
    }

    #[test]
    fn lines_are_written_as_the_sdk_writes_them() {
        let mut out = String::new();
        let labels = BTreeMap::from([("http.route", "/pay")]);
        push_line(
            &mut out,
            &Line::Sample {
                metric: "m",
                labels,
                value: Value::Real(1.0),
                time_ms: 5,
            },
        )
        .unwrap();
        push_line(
            &mut out,
            &Line::Sample {
                metric: "m",
                labels: BTreeMap::new(),
                value: Value::Integer(1),
                time_ms: 5,
            },
        )
        .unwrap();
        push_line(
            &mut out,
            &Line::Log {
                log: "warn",
                message: "x",
            },
        )
        .unwrap();
        push_line(
            &mut out,
            &Line::Error {
                error: "config",
                message: "y",
            },
        )
        .unwrap();
        let expected = concat!(
            "{\"metric\":\"m\",\"labels\":{\"http.route\":\"/pay\"},\"value\":1.0,\"time_ms\":5}\n",
            "{\"metric\":\"m\",\"labels\":{},\"value\":1,\"time_ms\":5}\n",
            "{\"log\":\"warn\",\"message\":\"x\"}\n",
            "{\"error\":\"config\",\"message\":\"y\"}\n",
        );
        assert_eq!(out, expected);
    }
}
