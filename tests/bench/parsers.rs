//! How fast the shipped plugins read: whole calls, from the source's bytes to the batch of samples.
//!
//! Per parser: natively in this process, as wasm in the real sandbox and so over the border, the fastest maintained parser
//! of the kind alone (it finds the tokens and knows nothing), and memchr over the same bytes as the limit.
//! A parser is one entry of [`parsers`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Serialize;
use serde::de::IgnoredAny;
use tillwatch_agent::config::COMPILER_BYTES_MAX;
use tillwatch_agent::plugin::compile::Loader;
use tillwatch_border::{Limits, Load, Plugin, start};
use tillwatch_sdk::Collector;
use tillwatch_tests::process::{plugin_dir, program};

use crate::memory::MemoryHost;

/// A call reads at most 4 MiB.
const INPUT_BYTES: usize = 3 << 20;
const TURNS: usize = 15;
/// A loaded machine is slow, and nothing here runs away.
const PATIENT_MS: u64 = 60_000;

/// What is measured of one parser.
struct Parser {
    name: &'static str,
    plugin: &'static str,
    settings: String,
    input: Vec<u8>,
    /// The input as the source that the plugin reads.
    host: fn(&[u8]) -> MemoryHost,
    /// One native instance from its settings; returns how long it read and how many samples came out.
    native: fn(&str, MemoryHost) -> Result<(Duration, usize)>,
    peer_name: &'static str,
    peer: fn(&[u8]) -> Result<usize>,
    /// What memchr looks for: the byte that ends a unit.
    limit: u8,
}

#[derive(Serialize)]
struct Figures {
    mb_per_s_native: f64,
    mb_per_s_wasm: f64,
    mb_per_s_peer: f64,
    peer: &'static str,
    mb_per_s_limit: f64,
    /// The most linear memory of the sandbox's instance.
    memory_bytes: usize,
}

fn parsers() -> Result<Vec<Parser>> {
    let of_access_log = |name: &'static str, case: &str| -> Result<Parser> {
        let (settings, log) = access_log(case)?;
        let is_json = log.starts_with(b"{");
        Ok(Parser {
            name,
            plugin: "pos-latency",
            settings,
            input: repeated(&log),
            host: MemoryHost::with_lines,
            native: native::<pos_latency::PosLatency>,
            peer_name: if is_json {
                "serde_json"
            } else {
                "memchr of each field's end"
            },
            peer: if is_json { serde_json_alone } else { field_ends },
            limit: b'\n',
        })
    };
    let of_lines = |name: &'static str, settings: &str, line: fn(usize) -> String, peer_name, peer| Parser {
        name,
        plugin: "sales",
        settings: settings.to_owned(),
        input: numbered(line),
        host: MemoryHost::with_lines,
        native: native::<sales::Sales>,
        peer_name,
        peer,
        limit: b'\n',
    };
    Ok(vec![
        Parser {
            name: "poslog",
            plugin: "sales",
            settings: r#"{"currency": "USD"}"#.to_owned(),
            input: poslog()?,
            host: MemoryHost::with_document,
            native: native::<sales::Sales>,
            peer_name: "quick-xml",
            peer: quick_xml_alone,
            limit: b'>',
        },
        of_lines("sales_json", NUMBERED, json_sale, "serde_json", serde_json_alone),
        of_lines(
            "sales_csv",
            NUMBERED,
            csv_sale,
            "memchr of each field's end",
            comma_ends,
        ),
        of_access_log("access_log_combined", "nginx_combined")?,
        of_access_log("access_log_nginx", "nginx_log_format")?,
        of_access_log("access_log_apache", "apache_log_format")?,
        of_access_log("access_log_iis", "iis")?,
        of_access_log("access_log_json", "json_lines")?,
    ])
}

/// Measures and prints.
pub(crate) fn run(json: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut loader = Loader::new(folder.path(), COMPILER_BYTES_MAX)?;
    let mut report = BTreeMap::new();
    for parser in parsers()? {
        let figures = parser.measure(&mut loader).with_context(|| parser.name.to_owned())?;
        if !json {
            println!("{}: {}", parser.name, serde_json::to_string_pretty(&figures)?);
        }
        report.insert(parser.name, figures);
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

impl Parser {
    /// In turn, so that a busy moment of the machine hits all of them.
    fn measure(&self, loader: &mut Loader) -> Result<Figures> {
        let mut plugin = self.load(loader)?;
        let mut best = [Duration::MAX; 4];
        for _turn in 0..TURNS {
            let (native, samples) = (self.native)(&self.settings, (self.host)(&self.input))?;
            let (wasm, sandboxed) = self.sandboxed(&mut plugin)?;
            ensure!(
                samples == sandboxed && samples > 0,
                "{samples} samples natively, {sandboxed} in the sandbox"
            );
            let (peer, _tokens) = timed(|| (self.peer)(&self.input))?;
            let (limit, _ends) = timed(|| Ok(memchr::memchr_iter(self.limit, &self.input).count()))?;
            for (best, took) in best.iter_mut().zip([native, wasm, peer, limit]) {
                *best = took.min(*best);
            }
        }
        let [native, wasm, peer, limit] = best.map(|took| self.input.len() as f64 / 1e6 / took.as_secs_f64());
        Ok(Figures {
            mb_per_s_native: native,
            mb_per_s_wasm: wasm,
            mb_per_s_peer: peer,
            peer: self.peer_name,
            mb_per_s_limit: limit,
            memory_bytes: plugin.counters().memory_bytes,
        })
    }

    fn load(&self, loader: &mut Loader) -> Result<Plugin> {
        let wasm = plugin_dir()?.join(self.plugin).join(format!("{}.wasm", self.plugin));
        let load = Load {
            code: Arc::clone(&loader.load(&wasm, None)?),
            limits: Limits {
                call_ms_max: PATIENT_MS,
                ..Limits::default()
            },
            name: self.name.to_owned(),
        };
        let started = start(program("tillwatch-sandbox")?, vec![load])?;
        Ok(started.into_iter().next().context("no plugin was started")??)
    }

    /// A new instance each time: what was read once is known.
    fn sandboxed(&self, plugin: &mut Plugin) -> Result<(Duration, usize)> {
        plugin.renew();
        plugin.configure(&self.settings, &mut MemoryHost::default())?;
        let mut host = (self.host)(&self.input);
        timed(|| {
            let mut samples = 0;
            loop {
                let batch = plugin.collect(&mut host)?;
                samples += batch.series.iter().map(|series| series.times_ms.len()).sum::<usize>();
                if !batch.more {
                    return Ok(samples);
                }
            }
        })
    }
}

fn native<C: Collector>(settings: &str, mut host: MemoryHost) -> Result<(Duration, usize)> {
    let settings = serde_json::from_str(settings)?;
    let mut collector = C::new(settings, &mut host).map_err(|error| anyhow!("{error}"))?;
    timed(|| {
        let mut samples = 0;
        loop {
            let batch = collector.collect(&mut host).map_err(|error| anyhow!("{error}"))?;
            samples += batch.samples();
            if !batch.more {
                return Ok(samples);
            }
        }
    })
}

fn timed(run: impl FnOnce() -> Result<usize>) -> Result<(Duration, usize)> {
    let begun = Instant::now();
    let count = run()?;
    Ok((begun.elapsed(), std::hint::black_box(count)))
}

/// A real grocery basket, again and again under other numbers, without a line break.
fn poslog() -> Result<Vec<u8>> {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sales/testcases/poslog_2_1/transactions");
    let real = std::fs::read_to_string(case.join("ncr_acs_2.1_small.xml"))?;
    let (head, basket) = real.rsplit_once("<Transaction>").context("no transaction")?;
    let (basket, _end) = basket.split_once("</POSLog>").context("no end")?;
    let mut text = head.to_owned();
    for number in 1_000.. {
        let basket = basket.replacen("<SequenceNumber>161<", &format!("<SequenceNumber>{number}<"), 1);
        if text.len() + basket.len() > INPUT_BYTES {
            break;
        }
        text.push_str("<Transaction>");
        text.push_str(&basket);
    }
    text.push_str("</POSLog>");
    Ok(text.into_bytes())
}

/// Settings and lines of a test case.
fn access_log(case: &str) -> Result<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/pos-latency/testcases");
    let settings: toml::Value = toml::from_str(&std::fs::read_to_string(folder.join(case).join("settings.toml"))?)?;
    let log = ["access_log.log", "access_log.jsonl"].map(|name| folder.join(case).join(name));
    let log = log.iter().find(|log| log.is_file()).context("no log")?;
    Ok((serde_json::to_string(&settings)?, std::fs::read(log)?))
}

fn repeated(log: &[u8]) -> Vec<u8> {
    log.repeat(INPUT_BYTES / log.len())
}

const NUMBERED: &str = r#"{"field_transaction": "number", "field_lane": "lane"}"#;

fn numbered(line: fn(usize) -> String) -> Vec<u8> {
    let mut text = String::new();
    for number in 0.. {
        text.push_str(&line(number));
        if text.len() > INPUT_BYTES {
            break;
        }
    }
    text.into_bytes()
}

fn json_sale(number: usize) -> String {
    format!(
        "{{\"time\":\"2026-03-02T11:{:02}:{:02}Z\",\"lane\":\"{}\",\"number\":{number},\"total\":19.99,\"items\":3,\"tender\":\"card\"}}\n",
        number / 600 % 30,
        number / 10 % 60,
        number % 10
    )
}

fn csv_sale(number: usize) -> String {
    let header = if number == 0 {
        "time,lane,number,total,items,tender\n"
    } else {
        ""
    };
    let (minute, second, lane) = (number / 600 % 30, number / 10 % 60, number % 10);
    format!("{header}2026-03-02T11:{minute:02}:{second:02}Z,{lane},{number},19.99,3,card\n")
}

/// Where fields and lines end, and nothing else.
fn field_ends(input: &[u8]) -> Result<usize> {
    Ok(memchr::memchr2_iter(b' ', b'\n', input).count())
}

fn comma_ends(input: &[u8]) -> Result<usize> {
    Ok(memchr::memchr2_iter(b',', b'\n', input).count())
}

/// Each line is looked through whole, and nothing of it is kept; a line that is no JSON ends there.
fn serde_json_alone(input: &[u8]) -> Result<usize> {
    let lines = input.split(|byte| *byte == b'\n');
    let parsed = lines.map(serde_json::from_slice::<IgnoredAny>);
    Ok(parsed.filter(Result::is_ok).count())
}

fn quick_xml_alone(input: &[u8]) -> Result<usize> {
    let mut reader = Reader::from_str(std::str::from_utf8(input)?);
    let mut bytes = 0;
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(bytes),
            event => bytes += event.len(),
        }
    }
}
