//! What an agent would refuse of a plugin: its metrics and labels at the start, its values later.
//!
//! In: a descriptor with the label policies of `plugin.toml`, and batches. Out: how many values of which metric are
//! refused, and why. How old a value is within a century, and how a counter goes on, is the case's matter and not judged.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tillwatch_core::guard::Guard;
use tillwatch_core::sample::{Batch, Descriptor, Metric, Series};
use tillwatch_core::tally::REASONS;
use tillwatch_core::{Core, LabelPolicy, Limits, Settings, SourceKey};

use crate::plugin::manifest::Manifest;
use crate::plugin::range::{Ranges, keep_within};

/// From 2000 to 2100: other times are no milliseconds since 1970.
const TIMES_MS: std::ops::Range<u64> = 946_684_800_000..4_102_444_800_000;
const NO_TIME: &str = "a time before 2000 or after 2100; times are milliseconds since 1970";
const NOT_WITHIN: &str = "outside of the range that plugin.toml declares";
/// As in a store that sets nothing else.
const WINDOW_MS: u32 = 10_000;
const SUMMARY_MS: u32 = 60_000;

/// An agent's registry and guard, for one case.
pub(in crate::plugin) struct Admission {
    core: Core,
    labels: BTreeMap<String, LabelPolicy>,
    ranges: Ranges,
    source: Option<SourceKey>,
    /// By metric and reason.
    refused: BTreeMap<(String, String), u64>,
}

impl Admission {
    pub(in crate::plugin) fn of(manifest: &Manifest) -> Self {
        Self {
            ranges: manifest.ranges.clone(),
            ..Self::new(&manifest.labels)
        }
    }

    fn new(labels: &BTreeMap<String, LabelPolicy>) -> Self {
        let settings = Settings {
            window_ms: WINDOW_MS,
            summary_ms: SUMMARY_MS,
            time_zone: jiff::tz::TimeZone::UTC,
            calendar: Default::default(),
            agent_version: String::new(),
            limits: Limits::default(),
        };
        Self {
            core: Core::new(settings),
            labels: labels.clone(),
            ranges: Ranges::new(),
            source: None,
            refused: BTreeMap::new(),
        }
    }

    /// # Errors
    /// When an agent with this plugin would not start.
    pub(in crate::plugin) fn declare(&mut self, descriptor: &Descriptor) -> Result<()> {
        let metrics = descriptor.metrics.clone();
        let declared = self
            .core
            .declare(&descriptor.name, &descriptor.version, metrics, self.labels.clone());
        self.source = Some(declared.context("an agent refuses what it measures")?);
        Ok(())
    }

    pub(in crate::plugin) fn offer(&mut self, now_ms: u64, descriptor: &Descriptor, batch: &Batch) {
        let Some(source) = self.source else { return };
        for series in &batch.series {
            let metric = descriptor.metrics.get(usize::from(series.metric));
            let name = metric.map(|metric| metric.name.clone()).unwrap_or_default();
            let strange = series
                .times_ms
                .iter()
                .filter(|time_ms| !TIMES_MS.contains(*time_ms))
                .count();
            if strange > 0 {
                *self.refused.entry((name.clone(), NO_TIME.to_owned())).or_default() += strange as u64;
            }
            let mut one = Batch {
                series: vec![series.clone()],
                ..Batch::default()
            };
            let outside = keep_within(&self.ranges, &descriptor.metrics, &mut one);
            if outside > 0 {
                *self.refused.entry((name.clone(), NOT_WITHIN.to_owned())).or_default() += outside;
            }
            let accepted = self.core.on_batch(now_ms, source, one, Vec::new());
            for (reason, text) in REASONS.into_iter().filter(|(reason, _)| reason.is_of_plugin()) {
                let count = accepted.refused.of(reason);
                if count > 0 {
                    let labels = metric.map(|metric| self.refused_labels(metric, series));
                    let text = format!("{text}{}", labels.unwrap_or_default());
                    *self.refused.entry((name.clone(), text)).or_default() += count;
                }
            }
        }
    }

    /// Which labels no agent takes, by their keys: a value is never told.
    fn refused_labels(&self, metric: &Metric, series: &Series) -> String {
        let is_refused = |(key, value): &(&String, &String)| {
            let policy = self.labels.get(*key);
            Guard.label(value).is_err() || policy.is_some_and(|policy| !policy.allows(value).unwrap_or(true))
        };
        let labels = metric.label_keys.iter().zip(&series.labels).filter(is_refused);
        labels.map(|(key, _value)| format!(" `{key}`")).collect()
    }

    /// One line for each metric and reason.
    pub(in crate::plugin) fn refused(&self) -> Vec<String> {
        let line = |((metric, reason), count): (&(String, String), &u64)| {
            format!("  an agent refuses {count} values of {metric}: {reason}")
        };
        self.refused.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_core::sample::{Kind, Metric, Series, Values};

    fn descriptor() -> Descriptor {
        Descriptor {
            name: "queue".to_owned(),
            version: "1".to_owned(),
            metrics: vec![Metric {
                name: "queue.depth".to_owned(),
                unit: "{message}".to_owned(),
                kind: Kind::Gauge,
                help: "Depth.".to_owned(),
                label_keys: vec!["queue".to_owned()],
                role: String::new(),
                decimals: 0,
                currency: None,
            }],
            min_interval_ms: 0,
            attrs: Vec::new(),
        }
    }

    fn policy(pattern: &str) -> BTreeMap<String, LabelPolicy> {
        let policy = LabelPolicy {
            pattern: Some(pattern.to_owned()),
            values: None,
            values_max: 10,
        };
        BTreeMap::from([("queue".to_owned(), policy)])
    }

    fn depth_of(queue: &str) -> Batch {
        let series = Series {
            metric: 0,
            labels: vec![queue.to_owned()],
            values: Values::Integers(vec![1, 2]),
            times_ms: vec![1_772_451_000_000, 1_772_451_001_000],
        };
        Batch {
            series: vec![series],
            ..Batch::default()
        }
    }

    /// A plugin passed all of its cases, and each store refused all of its values.
    #[test]
    fn what_an_agent_refuses_is_told_by_metric_and_reason() {
        let mut admission = Admission::new(&policy("[a-z0-9]{1,40}"));
        admission.declare(&descriptor()).unwrap();
        for queue in ["mainframe", "Main Frame", "4111111111111111"] {
            // Long after the case: its age is no fault.
            admission.offer(u64::MAX / 2, &descriptor(), &depth_of(queue));
            admission.offer(1_772_451_002_000, &descriptor(), &depth_of(queue));
        }
        let refused = admission.refused();
        assert!(
            refused
                .iter()
                .any(|line| line.contains("values of queue.depth: label `queue`")),
            "{refused:?}"
        );
        assert!(
            refused
                .iter()
                .any(|line| line.contains("values of queue.depth: card `queue`")),
            "{refused:?}"
        );
        for untold in ["too_old", "Main", "4111"] {
            assert!(
                !refused.iter().any(|line| line.contains(untold)),
                "{untold}: {refused:?}"
            );
        }
    }

    /// Seconds passed every check, and each store refused all of them as too old.
    #[test]
    fn times_that_are_no_milliseconds_are_told() {
        for (time, is_told) in [
            (1_772_451_000, true),
            (1_772_451_000_000_000, true),
            (1_772_451_000_000, false),
        ] {
            let mut admission = Admission::new(&policy("[a-z]+"));
            admission.declare(&descriptor()).unwrap();
            let mut batch = depth_of("mainframe");
            batch.series[0].times_ms = vec![time, time + 1];
            admission.offer(1_772_451_002_000, &descriptor(), &batch);
            let refused = admission.refused().join("\n");
            assert_eq!(
                refused.contains("refuses 2 values of queue.depth: a time before 2000"),
                is_told,
                "{refused}"
            );
        }
    }

    #[test]
    fn a_label_policy_that_no_agent_takes_is_an_error() {
        let error = Admission::new(&policy("[")).declare(&descriptor()).unwrap_err();
        assert!(error.to_string().contains("an agent refuses"), "{error}");
        Admission::new(&BTreeMap::new()).declare(&descriptor()).unwrap_err();
    }
}
