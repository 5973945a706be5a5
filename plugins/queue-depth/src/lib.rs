//! How much waits in the store's queues and drop folders.
//!
//! In: a listing of a drop folder and JSON lines, or what one broker, exporter or query answers.
//! Out: depth, oldest age, consumers, unacknowledged, and what came in and went out, by queue.
//! No message is read, no name leaves this plugin that the operator did not give, and what is not known is no zero.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod folder;
mod event;
mod queues;
mod sheet;
mod broker;
mod json;
mod rabbitmq;
mod activemq;
mod ibmmq;
mod nats;
mod resp;
mod redis;
mod prometheus;
mod fields;

use serde::Deserialize;
use tillwatch_sdk::parse::{Offset, Problems, Wrong};
use tillwatch_sdk::{Batch, Collector, Error, Fault, Host, Level, PeerFault};

use broker::Trouble;
use event::Events;
use fields::Fields;
use queues::Queues;
use sheet::{Counted, Sheet};

tillwatch_sdk::plugin!();

const FOLDER: &str = "folder";
const EVENTS: &str = "events";
/// Bytes that one call asks for; the host may give less.
const READ_BYTES_MAX: u32 = 256 * 1024;
/// The least time between two log lines that say the same.
const LOG_INTERVAL_MS: u64 = 60_000;

/// The unit of ages in lines, answers and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// A drop folder, JSON lines, or both.
    Files,
    /// The management API.
    Rabbitmq,
    /// ActiveMQ Classic, by Jolokia.
    Activemq,
    /// The REST API v2 or v3.
    Ibmmq,
    /// The REST API v1.
    IbmmqV1,
    /// Lists and streams.
    Redis,
    /// JetStream, by the monitor.
    Nats,
    /// Text of any exporter, or OpenMetrics.
    Prometheus,
    /// JSON of anything else.
    Json,
    /// Rows of a query.
    Sql,
}

impl System {
    /// The label `messaging.system`.
    fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Rabbitmq => "rabbitmq",
            Self::Activemq => "activemq",
            Self::Ibmmq | Self::IbmmqV1 => "ibmmq",
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Prometheus => "prometheus",
            Self::Json => "json",
            Self::Sql => "sql",
        }
    }

    /// The source that it needs.
    fn source(self) -> &'static str {
        match self {
            Self::Redis => redis::REDIS,
            Self::Sql => fields::OUTBOX,
            _ => broker::BROKER,
        }
    }

    /// Whether a queue that is named and not told of is worth a warning: a query may leave out what it finds nothing of.
    fn tells_all(self) -> bool {
        self != Self::Sql
    }
}

/// What the operator decides; see `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    system: System,
    queue: String,
    queues: Vec<String>,
    path: String,
    vhost: String,
    totals_only: bool,
    redis_user: String,
    items: String,
    #[serde(rename = "match")]
    matches: Vec<String>,
    field_time: String,
    field_queue: String,
    field_depth: String,
    field_oldest_age: String,
    field_unacked: String,
    field_consumers: String,
    field_in: String,
    field_out: String,
    age_unit: AgeUnit,
    time_zone: Offset,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            system: System::Files,
            queue: queues::OTHER.to_owned(),
            queues: Vec::new(),
            path: "/api/queues".to_owned(),
            vhost: String::new(),
            totals_only: false,
            redis_user: String::new(),
            items: String::new(),
            matches: Vec::new(),
            field_time: "time".to_owned(),
            field_queue: "queue".to_owned(),
            field_depth: "depth".to_owned(),
            field_oldest_age: String::new(),
            field_unacked: String::new(),
            field_consumers: String::new(),
            field_in: String::new(),
            field_out: String::new(),
            age_unit: AgeUnit::S,
            time_zone: Offset::default(),
        }
    }
}

impl Settings {
    /// Tells what is kept of one source from what was kept of another.
    fn fingerprint(&self) -> u64 {
        let parts = [
            self.system.name(),
            &self.path,
            &self.vhost,
            &self.items,
            &self.field_queue,
            &self.field_in,
            &self.field_out,
        ];
        queues::key(
            &parts
                .into_iter()
                .chain(self.matches.iter().map(String::as_str))
                .collect::<Vec<_>>(),
        )
    }
}

/// The collector.
pub struct QueueDepth {
    settings: Settings,
    events: Events,
    fields: Fields,
    queues: Queues,
    problems: Problems,
    /// The last warning, and when it was logged.
    warned: Option<(String, u64)>,
}

impl Collector for QueueDepth {
    type Settings = Settings;

    fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
        let events = Events::new(&settings);
        let fields = Fields::new(&settings)?;
        let queues = Queues::new(settings.queue.clone(), &settings.queues).map_err(Error::config)?;
        if settings.system == System::Redis && (settings.queues.is_empty() || !queues.are_exact()) {
            return Err(Error::config("queues: name the keys of Redis, each without *"));
        }
        Ok(Self {
            settings,
            events,
            fields,
            queues,
            problems: Problems::default(),
            warned: None,
        })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        if self.settings.system == System::Files {
            let folder = self.collect_folder(&mut batch, host)?;
            let events = self.collect_events(&mut batch, host)?;
            if !folder && !events {
                return Err(Error::config(
                    "neither the source folder nor the source events is granted",
                ));
            }
        } else {
            self.collect_broker(&mut batch, host)?;
        }
        self.problems.report(metric::SOURCE_PARSE_ERRORS, &mut batch, host);
        Ok(batch)
    }
}

impl QueueDepth {
    /// One reading of everything but files; what cannot be read costs that reading.
    fn collect_broker(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<(), Error> {
        let (system, now_ms) = (self.settings.system, host.now_ms());
        let trouble = match self.read_broker(batch, host) {
            Ok(None) => None,
            Ok(Some(told)) => Some(told),
            Err(Trouble::Peer(failure)) => match failure.fault {
                PeerFault::TooSoon => return Ok(()),
                PeerFault::Unknown => {
                    let source = system.source();
                    return Err(Error::config(format!("the source {source} is not granted")));
                }
                _ if failure.fault.is_peers() => Some(failure.to_string()),
                _ => return Err(failure.into()),
            },
            Err(Trouble::Status(status)) => Some(format!("it refuses with status {status}")),
            Err(Trouble::Wrong(wrong)) => {
                self.problems.count(wrong);
                Some(format!("its answer cannot be read: {wrong}"))
            }
            Err(Trouble::Blind(why)) => Some(why.to_owned()),
        };
        batch.push_integer(
            metric::SOURCE_UP,
            &[system.name()],
            i64::from(trouble.is_none()),
            now_ms,
        );
        self.warn(trouble, now_ms, host);
        Ok(())
    }

    /// What is wrong although there is a reading, if anything is.
    fn read_broker(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<Option<String>, Trouble> {
        let Self {
            settings,
            fields,
            queues,
            problems,
            ..
        } = self;
        let (source, kept) = (settings.fingerprint(), host.state());
        let before = Counted::decode(&kept, source).unwrap_or_default();
        let mut sheet = Sheet::new(
            queues,
            before,
            settings.system == System::Rabbitmq && !settings.totals_only,
        );
        let sheet_of = &mut sheet;
        match settings.system {
            System::Files => {}
            System::Rabbitmq => rabbitmq::read(settings, host, sheet_of, problems)?,
            System::Activemq => activemq::read(host, sheet_of, problems)?,
            System::Ibmmq => ibmmq::read(host, sheet_of, problems)?,
            System::IbmmqV1 => ibmmq::read_v1(host, sheet_of, problems)?,
            System::Redis => redis::read(settings, queues, host, sheet_of, problems)?,
            System::Nats => nats::read(host, sheet_of, problems)?,
            System::Prometheus => fields.read_prometheus(host, sheet_of, problems)?,
            System::Json => fields.read_json(host, sheet_of, problems)?,
            System::Sql => fields.read_sql(host, sheet_of, problems)?,
        }
        if sheet.told() == 0 && settings.system.tells_all() {
            return Err(Trouble::Blind(
                "it tells of no queue: there is none, or the account may see none; RabbitMQ answers so without a \
                 permission on the virtual host",
            ));
        }
        if sheet.told() > 0 && !sheet.knows_anything() {
            return Err(Trouble::Blind("it tells of queues, and nothing of how deep they are"));
        }
        let missing = sheet.missing();
        let counted = sheet.push(settings.system.name(), host.now_ms(), batch).encode(source);
        if counted != kept && host.set_state(&counted).is_err() {
            host.log(Level::Debug, "what is kept between two readings is too large");
        }
        let is_blind = missing > 0 && settings.system.tells_all();
        Ok(is_blind.then(|| format!("it does not tell of {missing} of the queues that the settings name")))
    }

    /// Once a minute while it stays the same.
    fn warn(&mut self, trouble: Option<String>, now_ms: u64, host: &mut dyn Host) {
        let Some(trouble) = trouble else {
            self.warned = None;
            return;
        };
        let is_told = self
            .warned
            .as_ref()
            .is_some_and(|(told, told_ms)| *told == trouble && now_ms.abs_diff(*told_ms) < LOG_INTERVAL_MS);
        if !is_told {
            let system = self.settings.system.name();
            host.log(Level::Warn, &format!("no depth of {system}: {trouble}"));
            self.warned = Some((trouble, now_ms));
        }
    }

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
        let name = self.queues.name_of(reading.queue.as_deref());
        let labels = [System::Files.name(), &*name];
        batch.push_integer(metric::QUEUE_DEPTH, &labels, reading.depth, reading.time_ms);
        if let Some(age_ms) = reading.oldest_age_ms {
            batch.push_integer(metric::QUEUE_OLDEST_AGE, &labels, age_ms, reading.time_ms);
        }
        Ok(())
    }
}

tillwatch_sdk::export_prober!(QueueDepth);

#[cfg(test)]
mod tests;
