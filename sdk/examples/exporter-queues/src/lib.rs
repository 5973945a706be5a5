//! Queues of a broker: an exporter's Prometheus text comes in over HTTP, depth and consumers of each queue go out.
//!
//! It reports nothing when the exporter does not answer: the agent itself says that a source is not up.

mod exposition;

use std::collections::BTreeMap;

use serde::Deserialize;
use tillwatch_sdk::{Batch, Collector, Error, Host, HttpRequest, MetricId};

use exposition::Sample;

tillwatch_sdk::plugin!();
tillwatch_sdk::export_prober!(Queues);

/// Queues whose names are no label come together here.
const OTHER: &str = "_other";
const NAME_BYTES_MAX: usize = 40;
/// Of gauges that are exact as whole numbers in both formats.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    depth: String,
    consumers: String,
    label: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            depth: "rabbitmq_detailed_queue_messages".to_owned(),
            consumers: "rabbitmq_detailed_queue_consumers".to_owned(),
            label: "queue".to_owned(),
        }
    }
}

struct Queues(Settings);

impl Collector for Queues {
    type Settings = Settings;

    fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
        if settings.depth == settings.consumers {
            return Err(Error::config("depth and consumers are the same metric"));
        }
        Ok(Self(settings))
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let now_ms = host.now_ms();
        let mut batch = Batch::default();
        let Ok(response) = host.http("exporter", HttpRequest::get()) else {
            return Ok(batch);
        };
        if !response.is_success() {
            return Err(Error::transient(format!("the exporter answers {}", response.status)));
        }
        let text = String::from_utf8_lossy(&response.body);
        let (samples, wrong) = exposition::parse(&text);
        for (metric, name) in [
            (metric::QUEUE_DEPTH, &self.0.depth),
            (metric::QUEUE_CONSUMERS, &self.0.consumers),
        ] {
            self.report(&mut batch, metric, name, &samples, now_ms);
        }
        if wrong > 0 {
            batch.push_integer(metric::SOURCE_PARSE_ERRORS, &[], wrong, now_ms);
        }
        Ok(batch)
    }
}

impl Queues {
    fn report(&self, batch: &mut Batch, metric: MetricId, name: &str, samples: &[Sample<'_>], now_ms: u64) {
        let mut queues = BTreeMap::<String, i64>::new();
        for sample in samples.iter().filter(|sample| sample.name == name) {
            let queue = sample.labels.iter().find(|(label, _value)| *label == self.0.label);
            if let (Some((_label, queue)), Some(count)) = (queue, whole(sample.value)) {
                *queues.entry(label_of(queue)).or_default() += count;
            }
        }
        for (queue, count) in queues {
            batch.push_integer(metric, &[&queue], count, now_ms);
        }
    }
}

/// Such as `NaN` of a queue that is being made, which is nothing to report.
fn whole(value: f64) -> Option<i64> {
    let is_count = (0.0..=COUNT_MAX).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "its range was checked")]
    is_count.then_some(value as i64)
}

fn label_of(queue: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_label = (1..=NAME_BYTES_MAX).contains(&queue.len()) && queue.bytes().all(is_plain);
    if is_label { queue } else { OTHER }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_sdk::testing::{golden, shown_settings};

    #[test]
    fn the_settings_shown_are_the_settings_taken() {
        let default = Settings::default();
        assert_eq!(shown_settings::<Settings>("."), [default.clone(), default]);
    }

    #[test]
    fn golden_cases_come_out_as_written() {
        golden::<Queues>(&descriptor(), "testcases");
    }
}
