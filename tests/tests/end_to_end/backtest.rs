//! `tillwatch backtest` over the plugins' own cases, and `tillwatch doctor` over a store, as an operator types them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tillwatch_agent::plugin::manifest::Manifest;
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::Authority;
use tillwatch_tests::process::{plugin_dir, program};
use tillwatch_tests::story::timestamp;

/// By metric and labels, in the metric's whole numbers.
type Sums = BTreeMap<(String, String), i64>;

/// Plugin, case, source, file or folder of it.
const CASES: [(&str, &str, &str, &str); 8] = [
    ("sales", "json_lines", "lines", "lines.jsonl"),
    ("sales", "csv_tail", "lines", "lines.csv"),
    ("sales", "csv_items", "transactions", "transactions"),
    ("sales", "dsfinvk", "transactions", "transactions"),
    ("sales", "poslog_reality", "transactions", "transactions"),
    ("pos-latency", "nginx_timed", "access_log", "access_log.log"),
    ("pos-latency", "poslog_phases", "transactions", "transactions"),
    ("queue-depth", "event_lines", "events", "events.jsonl"),
];

fn case_of(plugin: &str, case: &str) -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    plugins.join(plugin).join("testcases").join(case)
}

fn backtest(plugin: &str, settings: &Path, options: &[&str], files: &Path) -> Result<Output> {
    let mut command = Command::new(program("tillwatch")?);
    command
        .args(["--log", "info", "backtest", "--plugin", plugin])
        .args(options);
    command
        .arg("--plugin-dir")
        .arg(plugin_dir()?)
        .arg("--settings")
        .arg(settings);
    command.arg(files).output().context("starting tillwatch")
}

/// How old the last sale is depends on the clock, and each case has its own.
fn add(sums: &mut Sums, line: &Value, value: i64) -> Result<()> {
    let metric = line["metric"].as_str().context("a metric")?;
    if !metric.ends_with(".age") {
        *sums.entry((metric.to_owned(), line["labels"].to_string())).or_default() += value;
    }
    Ok(())
}

fn golden(case: &Path) -> Result<Sums> {
    let mut sums = Sums::new();
    for line in std::fs::read_to_string(case.join("expected.jsonl"))?.lines() {
        let line: Value = serde_json::from_str(line)?;
        if let Some(value) = line["value"].as_i64() {
            add(&mut sums, &line, value)?;
        }
    }
    Ok(sums)
}

#[expect(clippy::cast_possible_truncation, reason = "rounded whole numbers of a small case")]
fn emitted(output: &Output, decimals: &BTreeMap<String, u8>) -> Result<Sums> {
    let mut sums = Sums::new();
    for line in String::from_utf8(output.stdout.clone())?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let decimals = decimals.get(line["metric"].as_str().unwrap_or_default());
        let scale = 10_f64.powi(i32::from(*decimals.context("a metric of the plugin")?));
        add(
            &mut sums,
            &line,
            (line["sum"].as_f64().context("a sum")? * scale).round() as i64,
        )?;
    }
    sums.retain(|_series, sum| *sum != 0);
    Ok(sums)
}

#[test]
fn windows_of_a_backtest_add_up_to_what_the_plugins_cases_say() -> Result<()> {
    let mut sources_not_granted = 0;
    for (plugin, name, source, files) in CASES {
        let case = case_of(plugin, name);
        let manifest = Manifest::load(&plugin_dir()?.join(plugin)).context("the manifest")?;
        let metrics = manifest
            .metrics
            .iter()
            .map(|metric| (metric.name.clone(), metric.decimals));
        let options = ["--json", "--source", source];
        let output = backtest(plugin, &case.join("settings.toml"), &options, &case.join(files))?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{plugin} {name}: {told}");
        let mut expected = golden(&case)?;
        expected.retain(|_series, sum| *sum != 0);
        ensure!(!expected.is_empty(), "{plugin} {name} says nothing");
        assert_eq!(emitted(&output, &metrics.collect())?, expected, "{plugin} {name}");
        // The files are read twice: the first time, to find when they begin, without a word.
        let said = told.lines().filter(|line| line.contains("a source is not granted"));
        let said: Vec<&str> = said
            .filter_map(|line| line.split_once("why="))
            .map(|(_, why)| why)
            .collect();
        let different: BTreeSet<&&str> = said.iter().collect();
        ensure!(different.len() == said.len(), "{plugin} {name}: {told}");
        sources_not_granted += said.len();
    }
    ensure!(sources_not_granted > 0, "no plugin asked for more than its files");
    Ok(())
}

#[test]
fn a_backtest_gives_the_same_windows_whenever_it_runs_and_takes_a_block_of_agent_toml() -> Result<()> {
    let place = tempfile::tempdir()?;
    let case = case_of("sales", "json_lines");
    let (settings, lines) = (case.join("settings.toml"), case.join("lines.jsonl"));
    let first = backtest("sales", &settings, &[], &lines)?;
    let text = String::from_utf8(first.stdout.clone())?;
    let mut rows = text.lines();
    ensure!(
        rows.next()
            .is_some_and(|header| header.starts_with("start,start_ms,length_ms,metric,unit,labels,count,sum,"))
    );
    let amount = "2026-03-02T11:30:00Z,1772451000000,60000,sales.amount,{currency},,2,17.49,2.99,14.5,";
    ensure!(rows.any(|row| row.starts_with(amount)), "{text}");

    // A store's own settings, and files that are younger.
    let block = std::fs::read_to_string(&settings)?;
    let whole = place.path().join("agent.toml");
    std::fs::write(
        &whole,
        format!(
            "site = \"store-0412\"\n[[plugin]]\nname = \"tills\"\nuse = \"sales\"\n[plugin.sources.lines]\nfile = \"gone\"\n[plugin.settings]\n{block}"
        ),
    )?;
    let copy = place.path().join("other.jsonl");
    std::fs::copy(&lines, &copy)?;
    let second = backtest("tills", &whole, &[], &copy)?;
    assert_eq!(
        String::from_utf8(second.stdout)?,
        text,
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );

    std::fs::write(&whole, block.replace("EUR", "EURO"))?;
    let refused = backtest("sales", &whole, &[], &copy)?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && told.contains("currency") && refused.stdout.is_empty(),
        "{told}"
    );
    Ok(())
}

/// Exit code, and state, what and hint by plugin and source.
fn doctor(settings: &Path) -> Result<(bool, Vec<Value>)> {
    let mut command = Command::new(program("tillwatch")?);
    command
        .args(["--log", "error", "doctor", "--json", "--config"])
        .arg(settings);
    let output = command.output()?;
    let lines = String::from_utf8(output.stdout)?;
    let findings: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
    Ok((output.status.success(), findings?))
}

#[test]
fn a_doctor_finds_a_store_well_and_says_what_to_mend_when_it_is_not() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let identity = authority.client("store-0412")?;
    let (settings, sales) = (place.path().join("agent.toml"), place.path().join("sales.jsonl"));
    let text = format!(
        "site = \"store-0412\"\ntime_zone = \"UTC\"\nstate_dir = {:?}\nplugin_dir = {:?}\n\
         [broker]\nurl = \"mqtts://localhost:{}\"\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\
         [[plugin]]\nuse = \"sales\"\n[plugin.sources.lines]\nfile = {sales:?}\n",
        place.path().join("state"),
        plugin_dir()?,
        mosquitto.port,
        identity.ca,
        identity.certificate,
        identity.key,
    );
    std::fs::write(&settings, &text)?;
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let sold = |time_ms: u64| {
        format!(
            "{{\"time\":\"{}\",\"total\":19.99,\"items\":1,\"tender\":\"cash\"}}\n",
            timestamp(time_ms)
        )
    };
    let of = |findings: &[Value], part: &str, what: &str| {
        let is_it = |finding: &&Value| {
            finding["part"] == part && finding["what"].as_str().is_some_and(|said| said.contains(what))
        };
        findings.iter().find(is_it).cloned().unwrap_or_default()
    };

    std::fs::write(&sales, sold(now_ms - 5_000))?;
    let (is_well, findings) = doctor(&settings)?;
    ensure!(is_well, "{findings:?}");
    for (part, what) in [
        ("broker", "takes a connection and both certificates"),
        ("broker", "this site's certificate is good for"),
        ("source", "last written"),
        ("plugin", "5 values"),
        ("plugin", "its newest event is"),
    ] {
        ensure!(
            of(&findings, part, what)["state"] == "good",
            "{part} {what}: {findings:?}"
        );
    }

    for (lines, part, what, hint) in [
        (sold(now_ms + 3_600_000), "plugin", "ahead of this machine", "time_zone"),
        (
            "no sale\n".repeat(3),
            "plugin",
            "it understood nothing, 3 parse errors",
            "format",
        ),
        (String::new(), "source", "No such file", "correct the path"),
    ] {
        if lines.is_empty() {
            std::fs::remove_file(&sales)?;
        } else {
            std::fs::write(&sales, &lines)?;
        }
        let (is_well, findings) = doctor(&settings)?;
        let bad = of(&findings, part, what);
        ensure!(!is_well && bad["state"] == "bad", "{what}: {findings:?}");
        ensure!(bad["hint"].as_str().is_some_and(|said| said.contains(hint)), "{bad}");
    }
    ensure!(!place.path().join("state/spool").exists(), "it keeps nothing");
    Ok(())
}
