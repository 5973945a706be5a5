//! Response times of the store's web services, from an access log.
//!
//! Lines of an access log come in; durations, requests and errors by route go out.
//! No URL leaves this plugin: a route is a name that the operator gave, everything else is `other_route`.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod line;
mod combined;
mod json;
mod routes;

use serde::Deserialize;
use tillwatch_sdk::parse::{Offset, Problems, Wrong};
use tillwatch_sdk::{Batch, Collector, Error, Fault, Host};

use line::Reader;
use routes::{Routes, Rule};

tillwatch_sdk::plugin!();

const SOURCE: &str = "access_log";
/// Bytes that one call asks for; the host may give less.
const READ_BYTES_MAX: u32 = 256 * 1024;

/// How a line is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// nginx's and Apache's combined format.
    Combined,
    /// The combined format with `name=value` fields behind it.
    Timed,
    /// One JSON object a line.
    Json,
}

/// The unit of durations in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

/// What the operator decides; see `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    format: Format,
    routes: Vec<Rule>,
    other_route: String,
    error_status_min: u16,
    latency_unit: LatencyUnit,
    field_latency: String,
    field_time: String,
    field_route: String,
    field_status: String,
    time_zone: Offset,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Timed,
            routes: Vec::new(),
            other_route: "_other".to_owned(),
            error_status_min: 500,
            latency_unit: LatencyUnit::S,
            field_latency: String::new(),
            field_time: "time".to_owned(),
            field_route: String::new(),
            field_status: String::new(),
            time_zone: Offset::default(),
        }
    }
}

/// The collector.
pub struct PosLatency {
    reader: Reader,
    routes: Routes,
    error_status_min: u16,
    problems: Problems,
}

impl Collector for PosLatency {
    type Settings = Settings;

    fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
        let reader = Reader::new(&settings);
        let routes = Routes::new(settings.routes, settings.other_route).map_err(Error::config)?;
        Ok(Self {
            reader,
            routes,
            error_status_min: settings.error_status_min,
            problems: Problems::default(),
        })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let lines = match host.read_lines(SOURCE, READ_BYTES_MAX) {
            Ok(lines) => lines,
            // The agent reports a missing file as `source.up`.
            Err(Fault::Unavailable) => return Ok(batch),
            Err(fault) => return Err(fault.into()),
        };
        for line in lines.iter().filter(|line| !line.is_empty()) {
            if let Err(wrong) = self.push_line(line, &mut batch) {
                self.problems.count(wrong);
            }
        }
        if lines.skipped_bytes > 0 {
            self.problems.count(Wrong::Limit);
        }
        self.problems.report(metric::SOURCE_PARSE_ERRORS, &mut batch, host);
        batch.more = lines.more;
        Ok(batch)
    }
}

impl PosLatency {
    fn push_line(&self, line: &[u8], batch: &mut Batch) -> Result<(), Wrong> {
        let request = self.reader.read(line)?;
        let labels = [self.routes.of(&request.target)];
        match request.latency_us {
            Some(us) => batch.push_integer(metric::HTTP_SERVER_REQUEST_DURATION, &labels, us, request.time_ms),
            None => batch.push_integer(metric::HTTP_SERVER_REQUESTS, &labels, 1, request.time_ms),
        }
        if request.status.is_some_and(|status| status >= self.error_status_min) {
            batch.push_integer(metric::HTTP_SERVER_ERRORS, &labels, 1, request.time_ms);
        }
        Ok(())
    }
}

tillwatch_sdk::export!(PosLatency);

#[cfg(test)]
mod tests;
