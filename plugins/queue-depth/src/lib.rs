//! How much waits in the store's queues and drop folders.
//!
//! A listing of a drop folder, or JSON lines with readings, come in; depth, oldest age and bytes by queue go out.
//! No file is opened, and no name leaves this plugin that the operator did not give.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod folder;
mod event;
mod queues;

use serde::Deserialize;
use tillwatch_sdk::parse::{Offset, Problems, Wrong};
use tillwatch_sdk::{Batch, Collector, Error, Fault, Host};

use event::Events;
use queues::Queues;

tillwatch_sdk::plugin!();

const FOLDER: &str = "folder";
const EVENTS: &str = "events";
/// Bytes that one call asks for; the host may give less.
const READ_BYTES_MAX: u32 = 256 * 1024;

/// The unit of ages in the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

/// What the operator decides; see `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    queue: String,
    queues: Vec<String>,
    field_time: String,
    field_queue: String,
    field_depth: String,
    field_oldest_age: String,
    age_unit: AgeUnit,
    time_zone: Offset,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: queues::OTHER.to_owned(),
            queues: Vec::new(),
            field_time: "time".to_owned(),
            field_queue: "queue".to_owned(),
            field_depth: "depth".to_owned(),
            field_oldest_age: String::new(),
            age_unit: AgeUnit::S,
            time_zone: Offset::default(),
        }
    }
}

/// The collector.
pub struct QueueDepth {
    events: Events,
    queues: Queues,
    problems: Problems,
}

impl Collector for QueueDepth {
    type Settings = Settings;

    fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
        let events = Events::new(&settings);
        let queues = Queues::new(settings.queue, settings.queues).map_err(Error::config)?;
        Ok(Self {
            events,
            queues,
            problems: Problems::default(),
        })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let folder = self.collect_folder(&mut batch, host)?;
        let events = self.collect_events(&mut batch, host)?;
        if !folder && !events {
            return Err(Error::config(
                "neither the source folder nor the source events is granted",
            ));
        }
        self.problems.report(metric::SOURCE_PARSE_ERRORS, &mut batch, host);
        Ok(batch)
    }
}

impl QueueDepth {
    /// False when no folder is granted.
    fn collect_folder(&self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        match host.list_folder(FOLDER) {
            Ok(listing) => folder::push(&listing, self.queues.default_name(), host.now_ms(), batch),
            Err(Fault::Unknown) => return Ok(false),
            // The agent reports a missing folder as `source.up`.
            Err(Fault::Unavailable) => {}
            Err(fault) => return Err(fault.into()),
        }
        Ok(true)
    }

    /// False when no events are granted.
    fn collect_events(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        let lines = match host.read_lines(EVENTS, READ_BYTES_MAX) {
            Ok(lines) => lines,
            Err(Fault::Unknown) => return Ok(false),
            Err(Fault::Unavailable) => return Ok(true),
            Err(fault) => return Err(fault.into()),
        };
        for line in lines.iter().filter(|line| !line.is_empty()) {
            if let Err(wrong) = self.push_line(line, batch) {
                self.problems.count(wrong);
            }
        }
        if lines.skipped_bytes > 0 {
            self.problems.count(Wrong::Limit);
        }
        batch.more = lines.more;
        Ok(true)
    }

    fn push_line(&self, line: &[u8], batch: &mut Batch) -> Result<(), Wrong> {
        let reading = self.events.read(line)?;
        let labels = [self.queues.name_of(reading.queue.as_deref())];
        batch.push_integer(metric::QUEUE_DEPTH, &labels, reading.depth, reading.time_ms);
        if let Some(age_ms) = reading.oldest_age_ms {
            batch.push_integer(metric::QUEUE_OLDEST_AGE, &labels, age_ms, reading.time_ms);
        }
        Ok(())
    }
}

tillwatch_sdk::export!(QueueDepth);

#[cfg(test)]
mod tests;
