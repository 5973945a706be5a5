//! NATS JetStream by the server's monitor: each stream is a queue, as far as its consumers have not acknowledged it.
//!
//! A stream that keeps what was consumed (`limits`) is as deep as its slowest consumer is behind; one that gives
//! messages away (`workqueue`, `interest`) is as deep as it is long. Source: docs.nats.io "Monitoring JetStream", `/jsz`.

use tillwatch_sdk::parse::{Offset, Problems, Wrong, time_ms};
use tillwatch_sdk::{Host, HttpRequest};

use crate::broker::{Trouble, ask};
use crate::json::{Pointer, each, find, pointers, text, whole};
use crate::queues::key;
use crate::sheet::{Reading, Sheet};

const NO_STREAMS: &str = "the monitor tells of no account: JetStream is off, or the URL lacks \
                          jsz?accounts=true&streams=true&consumers=true&config=true";

pub(crate) fn read(host: &mut dyn Host, sheet: &mut Sheet<'_>, problems: &mut Problems) -> Result<(), Trouble> {
    let body = ask(host, HttpRequest::get())?;
    let [now, accounts] = find(&body, &pointers(["/now", "/account_details"]))?;
    let monitor = Monitor {
        // The server's own clock, so that ages are right whatever ours says.
        now_ms: now.and_then(text).and_then(|now| time_ms(&now, Offset::default()).ok()),
        stream: pointers([
            "/name",
            "/state/messages",
            "/state/first_seq",
            "/state/last_seq",
            "/state/first_ts",
            "/state/consumer_count",
            "/config/retention",
            "/consumer_detail",
        ]),
        consumer: pointers(["/num_pending", "/num_ack_pending", "/ack_floor/stream_seq"]),
    };
    let account = pointers(["/name", "/stream_detail"]);
    each(accounts.ok_or(Trouble::Blind(NO_STREAMS))?, |_key, json| {
        if let Err(wrong) = monitor.add_account(json, &account, sheet, problems) {
            problems.count(wrong);
        }
    })?;
    Ok(())
}

struct Monitor {
    now_ms: Option<u64>,
    stream: [Pointer; 8],
    consumer: [Pointer; 3],
}

/// What all consumers of a stream say together.
#[derive(Default)]
struct Consumers {
    count: i64,
    unacked: i64,
    /// Messages that the slowest has not acknowledged.
    behind: i64,
    /// Up to where the slowest has acknowledged.
    floor: Option<i64>,
}

impl Monitor {
    fn add_account(
        &self,
        json: &str,
        account: &[Pointer; 2],
        sheet: &mut Sheet<'_>,
        problems: &mut Problems,
    ) -> Result<(), Wrong> {
        let [name, streams] = find(json, account)?;
        let name = name.and_then(text).unwrap_or_default();
        let Some(streams) = streams else { return Ok(()) };
        each(streams, |_key, stream| {
            if let Err(wrong) = self.add_stream(stream, &name, sheet) {
                problems.count(wrong);
            }
        })
    }

    fn add_stream(&self, json: &str, account: &str, sheet: &mut Sheet<'_>) -> Result<(), Wrong> {
        let [name, messages, first, last, first_time, count, retention, details] = find(json, &self.stream)?;
        let name = text(name.ok_or(Wrong::Missing)?).ok_or(Wrong::Syntax)?;
        let messages = whole(messages)?;
        let last = whole(last)?;
        let details = details.map(|details| self.consumers(details)).transpose()?;
        let count = whole(count)?;
        let gives_away = retention.is_some_and(|retention| retention != "\"limits\"");
        // Consumers that nobody was asked about may be anywhere.
        let consumers = match details {
            None if count == Some(0) => Some(Consumers::default()),
            details => details,
        };
        let depth = match &consumers {
            _ if gives_away => messages,
            Some(consumers) if consumers.count == 0 => messages,
            Some(consumers) => Some(consumers.behind),
            None => None,
        };
        let gone = messages
            .zip(last)
            .map(|(messages, last)| last.saturating_sub(messages).max(0));
        let floor = consumers.as_ref().and_then(|consumers| consumers.floor);
        let first_waits = gives_away || floor.is_none_or(|floor| whole(first).ok().flatten() > Some(floor));
        let reading = Reading {
            depth,
            unacked: consumers.as_ref().map(|consumers| consumers.unacked),
            consumers: count.or(consumers.as_ref().map(|consumers| consumers.count)),
            oldest_age_ms: match depth {
                Some(0) => Some(0),
                Some(_) if first_waits => self.age_ms(first_time),
                _ => None,
            },
            moved: [last, if gives_away { gone } else { floor }],
        };
        sheet.add(Some(&name), key(&[account, &name]), &reading);
        Ok(())
    }

    fn consumers(&self, json: &str) -> Result<Consumers, Wrong> {
        let mut all = Ok(Consumers::default());
        each(json, |_key, consumer| {
            if let Ok(so_far) = &mut all
                && let Err(wrong) = self.add_consumer(consumer, so_far)
            {
                all = Err(wrong);
            }
        })?;
        all
    }

    fn add_consumer(&self, json: &str, all: &mut Consumers) -> Result<(), Wrong> {
        let [pending, unacked, floor] = find(json, &self.consumer)?;
        let pending = whole(pending)?.ok_or(Wrong::Missing)?;
        let unacked = whole(unacked)?.unwrap_or(0);
        let floor = whole(floor)?.unwrap_or(0);
        all.count = all.count.saturating_add(1);
        all.unacked = all.unacked.saturating_add(unacked);
        all.behind = all.behind.max(pending.saturating_add(unacked));
        all.floor = Some(all.floor.map_or(floor, |slowest| slowest.min(floor)));
        Ok(())
    }

    fn age_ms(&self, first_time: Option<&str>) -> Option<i64> {
        let first_ms = time_ms(&text(first_time?)?, Offset::default()).ok()?;
        i64::try_from(self.now_ms?.saturating_sub(first_ms)).ok()
    }
}
