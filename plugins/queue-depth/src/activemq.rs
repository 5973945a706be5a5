//! ActiveMQ Classic by Jolokia: one POST reads all queues of the broker.
//!
//! Each part of an answer has a status of its own, while that of HTTP is 200.
//! Source: jolokia.org "Reference Documentation", protocol; ActiveMQ's `QueueViewMBean`.

use std::borrow::Cow;

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Host, HttpRequest};

use crate::broker::{Trouble, ask};
use crate::json::{Pointer, each, find, pointers, text, whole};
use crate::queues::key;
use crate::sheet::{Reading, Sheet};

const QUESTION: &str = "[{\"type\":\"read\",\
    \"mbean\":\"org.apache.activemq:type=Broker,brokerName=*,destinationType=Queue,destinationName=*\",\
    \"attribute\":[\"Name\",\"QueueSize\",\"InFlightCount\",\"ConsumerCount\",\"EnqueueCount\",\"DequeueCount\"]}]";
const GOOD: i64 = 200;

pub(crate) fn read(host: &mut dyn Host, sheet: &mut Sheet<'_>, problems: &mut Problems) -> Result<(), Trouble> {
    let request = HttpRequest::post(QUESTION.as_bytes()).header("content-type", "application/json");
    let body = ask(host, request)?;
    let [status, of_one] = find(&body, &pointers(["/status", "/request"]))?;
    let mut parts = Parts {
        queue: queue_pointers(),
        sheet,
        problems,
        bad_status: None,
    };
    if status.or(of_one).is_some() {
        parts.take(&body);
    } else {
        each(&body, |_key, part| parts.take(part))?;
    }
    match parts.bad_status {
        Some(status) if parts.sheet.told() == 0 => Err(Trouble::Status(status)),
        _ => Ok(()),
    }
}

fn queue_pointers() -> [Pointer; 6] {
    pointers([
        "/Name",
        "/QueueSize",
        "/InFlightCount",
        "/ConsumerCount",
        "/EnqueueCount",
        "/DequeueCount",
    ])
}

/// The parts of an answer.
struct Parts<'p, 'q> {
    queue: [Pointer; 6],
    sheet: &'p mut Sheet<'q>,
    problems: &'p mut Problems,
    bad_status: Option<i64>,
}

impl Parts<'_, '_> {
    fn take(&mut self, part: &str) {
        if let Err(wrong) = self.try_take(part) {
            self.problems.count(wrong);
        }
    }

    fn try_take(&mut self, part: &str) -> Result<(), Wrong> {
        let part_pointers = pointers(["/status", "/value", "/request/mbean", "/request/attribute"]);
        let [status, value, bean, attribute] = find(part, &part_pointers)?;
        let status = whole(status)?.ok_or(Wrong::Missing)?;
        if status != GOOD {
            self.bad_status = Some(status);
            return Err(Wrong::Missing);
        }
        let value = value.ok_or(Wrong::Missing)?;
        if let Some(attribute) = attribute.filter(|attribute| attribute.starts_with('"')) {
            // One attribute was asked for: its value stands alone.
            let queue = format!("{{{attribute}:{value}}}");
            return self.add(bean.and_then(text).as_deref(), &queue);
        }
        let [_name, size, ..] = find(value, &self.queue)?;
        if size.is_some() {
            return self.add(bean.and_then(text).as_deref(), value);
        }
        each(value, |bean, queue| {
            if let Err(wrong) = self.add(bean, queue) {
                self.problems.count(wrong);
            }
        })
    }

    fn add(&mut self, bean: Option<&str>, queue: &str) -> Result<(), Wrong> {
        let [name, size, in_flight, consumers, came, went] = find(queue, &self.queue)?;
        let name = match name.and_then(text) {
            Some(name) => name,
            None => Cow::Borrowed(bean.and_then(destination).ok_or(Wrong::Missing)?),
        };
        let reading = Reading {
            depth: whole(size)?,
            unacked: whole(in_flight)?,
            consumers: whole(consumers)?,
            oldest_age_ms: None,
            moved: [whole(came)?, whole(went)?],
        };
        self.sheet.add(Some(&name), key(&[bean.unwrap_or(&name)]), &reading);
        Ok(())
    }
}

/// The queue's name of `org.apache.activemq:brokerName=b,destinationName=q,…`.
fn destination(bean: &str) -> Option<&str> {
    let (_domain, keys) = bean.split_once(':')?;
    let (before, name) = keys.split_once("destinationName=")?;
    if !before.is_empty() && !before.ends_with(',') {
        return None;
    }
    match name.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => name.split(',').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bean_without_a_name_attribute_has_it_in_its_own() {
        for (bean, name) in [
            (
                "org.apache.activemq:brokerName=b,destinationName=A.B,type=Broker",
                Some("A.B"),
            ),
            ("org.apache.activemq:destinationName=\"a,b\",type=Broker", Some("a,b")),
            ("org.apache.activemq:destinationName=last", Some("last")),
            ("org.apache.activemq:xdestinationName=a", None),
            ("org.apache.activemq:type=Broker", None),
            ("", None),
        ] {
            assert_eq!(destination(bean), name, "{bean}");
        }
    }
}
