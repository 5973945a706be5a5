//! How long the store's requests and transactions take.
//!
//! Lines of an access log come in; durations, requests, errors and silence by route go out. POSLog documents come in; the
//! time of transactions and of their phases goes out.
//! No URL leaves this plugin: a route is a name that the operator gave, everything else is `other_route`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod line;
mod layout;
mod directives;
mod combined;
mod w3c;
mod json;
mod times;
mod latency;
mod routes;
mod tally;
mod silence;
mod kept;
mod poslog;

use serde::Deserialize;
use tillwatch_sdk::parse::{Offset, Problems, Wrong, document_text};
use tillwatch_sdk::{Batch, Collector, Error, Fault, Host, Lines};

pub use latency::LatencyUnit;
use line::Reader;
use poslog::{PHASES, Poslog, Took};
use routes::{Routes, Rule};
use silence::{Hours, Silence};
use tally::Tally;

tillwatch_sdk::plugin!();

const ACCESS_LOG: &str = "access_log";
const TRANSACTIONS: &str = "transactions";
/// Bytes that one call asks for; the host may give less.
const READ_BYTES_MAX: u32 = 256 * 1024;
/// After so many documents or bytes a call ends, and the next goes on: a deadline holds for each call.
const DOCUMENTS_MAX: usize = 64;
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Statuses below are answers, not errors.
const ERROR_STATUSES: std::ops::RangeInclusive<u16> = 400..=600;

/// How a line is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// nginx's and Apache's common and combined formats.
    Combined,
    /// The combined format with `name=value` fields behind it.
    Timed,
    /// The `log_format` of an nginx.
    Nginx,
    /// The `LogFormat` of an Apache.
    Apache,
    /// W3C extended log format.
    Iis,
    /// One JSON object a line.
    Json,
}

/// What the operator decides; see `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    format: Format,
    log_format: String,
    routes: Vec<Rule>,
    other_route: String,
    error_status_min: u16,
    latency_unit: LatencyUnit,
    field_latency: String,
    field_time: String,
    field_route: String,
    field_status: String,
    time_zone: Offset,
    expected_hours: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Timed,
            log_format: String::new(),
            routes: Vec::new(),
            other_route: "_other".to_owned(),
            error_status_min: 500,
            latency_unit: LatencyUnit::Auto,
            field_latency: String::new(),
            field_time: "time".to_owned(),
            field_route: String::new(),
            field_status: String::new(),
            time_zone: Offset::default(),
            expected_hours: String::new(),
        }
    }
}

/// The collector.
pub struct PosLatency {
    reader: Reader,
    routes: Routes,
    tally: Tally,
    silence: Silence,
    local: Offset,
    /// Until the agent says that none are granted, which it says for good.
    may_have_documents: bool,
    problems: Problems,
    /// As last given to the host.
    kept: Vec<u8>,
}

impl Collector for PosLatency {
    type Settings = Settings;

    fn new(settings: Settings, host: &mut dyn Host) -> Result<Self, Error> {
        let mut reader = Reader::new(&settings).map_err(Error::config)?;
        let hours = Hours::parse(&settings.expected_hours, settings.time_zone).map_err(Error::config)?;
        let error_status_min = settings.error_status_min;
        if !ERROR_STATUSES.contains(&error_status_min) {
            return Err(Error::config(format!(
                "error_status_min: {error_status_min} is not within 400 and 600"
            )));
        }
        let routes = Routes::new(settings.routes, settings.other_route).map_err(Error::config)?;
        let names = routes.names().len();
        let mut silence = Silence::new(names, hours);
        let kept = host.state();
        kept::decode(&kept, &mut reader, &routes, &mut silence);
        Ok(Self {
            reader,
            tally: Tally::new(names, error_status_min),
            routes,
            silence,
            local: settings.time_zone,
            may_have_documents: true,
            problems: Problems::default(),
            kept,
        })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        if self.may_have_documents {
            self.may_have_documents = self.collect_documents(&mut batch, host)?;
        }
        let has_lines = self.collect_lines(&mut batch, host)?;
        if !self.may_have_documents && !has_lines {
            return Err(Error::config(
                "neither the source access_log nor the source transactions is granted",
            ));
        }
        self.problems.report(metric::SOURCE_PARSE_ERRORS, &mut batch, host);
        Ok(batch)
    }
}

impl PosLatency {
    /// False when no access log is granted.
    fn collect_lines(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        let lines = match host.read_lines(ACCESS_LOG, READ_BYTES_MAX) {
            Ok(lines) => lines,
            Err(Fault::Unknown) => return Ok(false),
            // The agent reports a missing file as `source.up`.
            Err(Fault::Unavailable) => return Ok(true),
            // The documents have used up what one call may read.
            Err(Fault::Exhausted) if batch.more => return Ok(true),
            Err(fault) => return Err(fault.into()),
        };
        let now_ms = host.now_ms();
        self.push_lines(&lines, now_ms);
        self.tally.report(self.routes.names(), batch);
        if !lines.more {
            self.silence.report(self.routes.names(), now_ms, batch);
        }
        batch.more |= lines.more;
        let kept = kept::encode(&self.reader, &self.routes, &self.silence);
        if !lines.bytes.is_empty() && kept != self.kept {
            host.set_state(&kept)?;
            self.kept = kept;
        }
        Ok(true)
    }

    fn push_lines(&mut self, lines: &Lines, now_ms: u64) {
        for line in lines.iter().filter(|line| !line.is_empty()) {
            match self.reader.read(line) {
                Ok(Some(request)) => {
                    let route = self.routes.of(&request.target);
                    self.tally.push(route, &request);
                    self.silence.observe(route, request.time_ms, now_ms);
                    if request.is_out_of_range {
                        self.problems.count(Wrong::Number);
                    }
                }
                Ok(None) => {}
                Err(wrong) => self.problems.count(wrong),
            }
        }
        if lines.skipped_bytes > 0 {
            self.problems.count(Wrong::Limit);
        }
    }

    /// False when no documents are granted.
    fn collect_documents(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        let mut bytes = 0_usize;
        for _ in 0..DOCUMENTS_MAX {
            let document = match host.next_document(TRANSACTIONS) {
                Ok(Some(document)) => document,
                Ok(None) | Err(Fault::Unavailable) => return Ok(true),
                Err(Fault::Unknown) => return Ok(false),
                Err(Fault::Exhausted) => break,
            };
            bytes = bytes.saturating_add(document.bytes.len());
            self.push_document(&document.bytes, batch);
            if bytes >= DOCUMENT_BYTES_MAX {
                break;
            }
        }
        batch.more = true;
        Ok(true)
    }

    /// What stands before a fault in a document counts.
    fn push_document(&mut self, document: &[u8], batch: &mut Batch) {
        for took in Poslog::new(&document_text(document), self.local) {
            match took {
                Ok(took) => {
                    push_took(&took, batch);
                    took.wrong.into_iter().for_each(|wrong| self.problems.count(wrong));
                }
                Err(wrong) => self.problems.count(wrong),
            }
        }
    }
}

fn push_took(took: &Took, batch: &mut Batch) {
    if let Some(us) = took.whole_us {
        batch.push_integer(metric::POS_TRANSACTION_DURATION, &[], us, took.end_ms);
    }
    for (phase, us) in PHASES.iter().zip(took.phases_us) {
        if let Some(us) = us {
            batch.push_integer(metric::POS_PHASE_DURATION, &[phase], us, took.end_ms);
        }
    }
}

tillwatch_sdk::export!(PosLatency);

#[cfg(test)]
mod tests;
