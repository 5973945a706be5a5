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
    settings: &'static str,
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
}

fn parsers() -> Result<Vec<Parser>> {
    Ok(vec![Parser {
        name: "poslog",
        plugin: "sales",
        settings: r#"{"currency": "USD"}"#,
        input: poslog()?,
        host: MemoryHost::with_document,
        native: native::<sales::Sales>,
        peer_name: "quick-xml",
        peer: quick_xml_alone,
        limit: b'>',
    }])
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
            let (native, samples) = (self.native)(self.settings, (self.host)(&self.input))?;
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
        plugin.configure(self.settings, &mut MemoryHost::default())?;
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
