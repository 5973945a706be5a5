//! Golden cases: folders of input with the lines that must come out.
//!
//! `UPDATE=1 cargo test` writes what came out as the new expectation; read the difference before you commit it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::case::{self, Case};
use super::{CALLS_MAX, FileHost};
use crate::{Batch, Collector, Descriptor, Error, Level, Series, Values};

/// Lines of a difference that are shown.
const DIFFERENCE_LINES_MAX: usize = 40;

/// One line of `expected.jsonl`.
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

/// Runs every case below `folder` (relative to the crate) and compares with its `expected.jsonl`:
/// one line per sample in the order of the batch, per log line above debug, and for the error that ended the run.
/// With the environment's `UPDATE=1` the files are written instead.
///
/// ```no_run
/// use tillwatch_sdk::{Collector, Descriptor, testing};
///
/// /// In a plugin's tests: `cases::<Requests>(descriptor())`.
/// fn cases<C: Collector>(descriptor: Descriptor) {
///     testing::golden::<C>(&descriptor, "testcases");
/// }
/// ```
///
/// # Panics
/// When a case cannot be read or comes out otherwise, with the difference; when there is no case at all.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn golden<C: Collector>(descriptor: &Descriptor, folder: impl AsRef<Path>) {
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    if let Err(message) = check_all::<C>(descriptor, folder.as_ref(), update) {
        panic!("{message}");
    }
}

fn check_all<C: Collector>(descriptor: &Descriptor, folder: &Path, update: bool) -> Result<(), String> {
    let cases: Vec<_> = case::sorted(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    if cases.is_empty() {
        return Err(format!("no test case in {}", folder.display()));
    }
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|path| check::<C>(descriptor, path, update).err())
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}

fn check<C: Collector>(descriptor: &Descriptor, folder: &Path, update: bool) -> Result<(), String> {
    let actual = run::<C>(descriptor, case::read(folder)?)
        .map_err(|message| format!("case {}: {message}", case::file_name(folder)))?;
    let path = folder.join("expected.jsonl");
    if update {
        return fs::write(&path, actual).map_err(|error| format!("{}: {error}", path.display()));
    }
    let expected = fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}\nhint: UPDATE=1 cargo test writes it", path.display()))?;
    if expected == actual {
        return Ok(());
    }
    Err(format!(
        "case {} came out otherwise:\n{}",
        case::file_name(folder),
        difference(&expected, &actual)
    ))
}

/// All lines of a case; an `Err` is a fault of the plugin that no expectation may hold.
fn run<C: Collector>(descriptor: &Descriptor, case: Case) -> Result<String, String> {
    let mut out = String::new();
    let Case { settings, mut host } = case;
    collect::<C>(descriptor, &settings, &mut host, &mut out)?;
    match host.misreads().next() {
        Some(misread) => Err(format!("{misread}: a store gives it nothing")),
        None => Ok(out),
    }
}

fn collect<C: Collector>(
    descriptor: &Descriptor,
    settings: &str,
    host: &mut FileHost,
    out: &mut String,
) -> Result<(), String> {
    let settings = match serde_json::from_str(settings) {
        Ok(settings) => settings,
        Err(error) => return end_with(out, &Error::config(error.to_string())),
    };
    let mut collector = match C::new(settings, host) {
        Ok(collector) => collector,
        Err(error) => return end_with(out, &error),
    };
    let mut descriptor = descriptor.clone();
    collector.describe(&mut descriptor);
    host.commit();
    for _ in 0..CALLS_MAX {
        let result = collector.collect(host);
        write_logs(out, host);
        match result {
            Err(error) => return end_with(out, &error),
            Ok(batch) => {
                host.commit();
                write_batch(out, &descriptor, &batch)?;
                if !batch.more {
                    return Ok(());
                }
            }
        }
    }
    Err(format!("collect still says more after {CALLS_MAX} calls"))
}

fn write_batch(out: &mut String, descriptor: &Descriptor, batch: &Batch) -> Result<(), String> {
    for series in batch.series() {
        let index = usize::from(series.metric.index());
        let metric = descriptor
            .metrics
            .get(index)
            .ok_or_else(|| format!("the plugin has no metric {index}"))?;
        if metric.label_keys.len() != series.labels.len() {
            let (asked, given) = (&metric.label_keys, &series.labels);
            return Err(format!(
                "{} has the labels {asked:?}, a sample came with {given:?}",
                metric.name
            ));
        }
        if metric.currency.is_some() && matches!(series.values, Values::Reals(_)) {
            return Err(format!("{} is money: push_integer, not push_real", metric.name));
        }
        for (at, time_ms) in series.times_ms.iter().enumerate() {
            let labels = metric
                .label_keys
                .iter()
                .map(String::as_str)
                .zip(series.labels.iter().map(String::as_str));
            let value = value_at(series, at);
            push_line(
                out,
                &Line::Sample {
                    metric: &metric.name,
                    labels: labels.collect(),
                    value,
                    time_ms: *time_ms,
                },
            );
        }
    }
    Ok(())
}

fn value_at(series: &Series, at: usize) -> Value {
    match &series.values {
        Values::Reals(reals) => Value::Real(reals[at]),
        Values::Integers(integers) => Value::Integer(integers[at]),
    }
}

fn write_logs(out: &mut String, host: &mut FileHost) {
    for (level, message) in host.take_logs() {
        if level > Level::Debug {
            push_line(
                out,
                &Line::Log {
                    log: level.name(),
                    message: &message,
                },
            );
        }
    }
}

/// The plugin's own error is the last line.
fn end_with(out: &mut String, error: &Error) -> Result<(), String> {
    push_line(
        out,
        &Line::Error {
            error: error.kind.name(),
            message: &error.message,
        },
    );
    Ok(())
}

fn push_line(out: &mut String, line: &Line<'_>) {
    out.push_str(&serde_json::to_string(line).expect("strings and numbers always serialize"));
    out.push('\n');
}

/// The lines between the common head and tail of two texts, `-` expected and `+` actual.
fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let head = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let (expected, actual) = (&expected[head..], &actual[head..]);
    let tail = expected
        .iter()
        .rev()
        .zip(actual.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (expected, actual) = (&expected[..expected.len() - tail], &actual[..actual.len() - tail]);
    let mut out = format!("  from line {} ({tail} equal lines follow)\n", head + 1);
    let marked = expected
        .iter()
        .map(|line| ("-", line))
        .chain(actual.iter().map(|line| ("+", line)));
    for (mark, line) in marked.take(DIFFERENCE_LINES_MAX) {
        writeln!(out, "{mark} {line}").expect("writing to a string cannot fail");
    }
    if expected.len() + actual.len() > DIFFERENCE_LINES_MAX {
        out.push_str("  ...\n");
    }
    out
}
