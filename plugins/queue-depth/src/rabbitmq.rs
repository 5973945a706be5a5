//! RabbitMQ by its management API: all queues that the account may see, page by page.
//!
//! An account without a permission on a virtual host is told of no queue there, with status 200.
//! Source: rabbitmq.com "HTTP API reference", `/api/queues`.

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Host, HttpRequest};

use crate::Settings;
use crate::broker::{Trouble, ask};
use crate::json::{Pointer, each, find, pointers, text, whole};
use crate::queues::key;
use crate::sheet::{Reading, Sheet, age_ms};

/// The year 5138 in seconds; in milliseconds it is 1973.
const SECONDS_MAX: i64 = 100_000_000_000;
/// The most that the API gives at once.
const PAGE_QUEUES: usize = 500;
/// One call may ask 16 times.
const PAGES_MAX: i64 = 15;
const TOTALS: &str = "disable_stats=true&enable_queue_totals=true";
const COLUMNS: &str = "columns=name,vhost,messages,messages_ready,messages_unacknowledged,consumers,head_message_timestamp,\
                       message_stats.publish,message_stats.ack,message_stats.deliver_no_ack,message_stats.get_no_ack";

pub(crate) fn read(
    settings: &Settings,
    host: &mut dyn Host,
    sheet: &mut Sheet<'_>,
    problems: &mut Problems,
) -> Result<(), Trouble> {
    let queue = Queue::new(&settings.vhost, host.now_ms());
    for page in 1..=PAGES_MAX {
        let body = ask(host, request(settings, page))?;
        let [items, pages] = find(&body, &pointers(["/items", "/page_count"]))?;
        // Without pages the answer is the list itself.
        each(items.unwrap_or(&body), |_key, json| {
            if let Err(wrong) = queue.add(json, sheet) {
                problems.count(wrong);
            }
        })?;
        if whole(pages)?.is_none_or(|pages| pages <= page) {
            return Ok(());
        }
        if settings.path.is_empty() {
            // The operator's own page would come again.
            break;
        }
    }
    problems.count(Wrong::Limit);
    Ok(())
}

fn request(settings: &Settings, page: i64) -> HttpRequest {
    let path = &settings.path;
    if path.is_empty() {
        // What the operator wrote, with its own query.
        return HttpRequest::get();
    }
    let what = if settings.totals_only { TOTALS } else { COLUMNS };
    HttpRequest::get().path(&format!("{path}?page={page}&page_size={PAGE_QUEUES}&{what}"))
}

struct Queue<'s> {
    vhost: &'s str,
    now_ms: i64,
    pointers: [Pointer; 11],
}

impl<'s> Queue<'s> {
    fn new(vhost: &'s str, now_ms: u64) -> Self {
        Self {
            vhost,
            now_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
            pointers: pointers([
                "/name",
                "/vhost",
                "/messages",
                "/messages_ready",
                "/messages_unacknowledged",
                "/consumers",
                "/head_message_timestamp",
                "/message_stats/publish",
                "/message_stats/ack",
                "/message_stats/deliver_no_ack",
                "/message_stats/get_no_ack",
            ]),
        }
    }

    fn add(&self, json: &str, sheet: &mut Sheet<'_>) -> Result<(), Wrong> {
        let [
            name,
            vhost,
            all,
            ready,
            unacked,
            consumers,
            head,
            publish,
            ack,
            no_ack,
            get_no_ack,
        ] = find(json, &self.pointers)?;
        let name = text(name.ok_or(Wrong::Missing)?).ok_or(Wrong::Syntax)?;
        let vhost = vhost.and_then(text).unwrap_or_default();
        if !self.vhost.is_empty() && self.vhost != vhost {
            return Ok(());
        }
        let unacked = whole(unacked)?;
        let parts = whole(ready)?.zip(unacked);
        let reading = Reading {
            depth: whole(all)?.or(parts.map(|(ready, unacked)| ready.saturating_add(unacked))),
            unacked,
            consumers: whole(consumers)?,
            oldest_age_ms: whole(head)?.and_then(|head| age_ms(self.now_ms, head.saturating_mul(head_unit_ms(head)))),
            moved: [whole(publish)?, sum([whole(ack)?, whole(no_ack)?, whole(get_no_ack)?])],
        };
        sheet.add(Some(&name), key(&[&vhost, &name]), &reading);
        Ok(())
    }
}

/// The publisher's own time: in seconds by the protocol, in milliseconds by many.
fn head_unit_ms(head: i64) -> i64 {
    if head < SECONDS_MAX { 1_000 } else { 1 }
}

/// Of what is there.
fn sum(values: [Option<i64>; 3]) -> Option<i64> {
    values.into_iter().flatten().reduce(i64::saturating_add)
}
