//! What may be reported: declared metrics, policies for their labels, and the bounded set of series.
//!
//! In: declarations and labels as collectors report them. Out: the id of a series, or the reason for none.
//! It never lets through a label value that was not declared, by list or by pattern, and that the guard does not pass.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::guard::{Guard, Refusal};
use crate::room::{Full, Room};
use crate::sample::Metric;
use crate::tally::{Reason, Tally};

mod declare;

pub use declare::DeclareError;

/// How many values a label may take when its policy gives a pattern and no number.
pub const LABEL_VALUES_DEFAULT: u32 = 50;

/// A series without values for so long is forgotten; its id is never used again.
pub const SERIES_IDLE_MS: u64 = 14 * 24 * 3_600_000;

/// What values a label may take; `pattern` or `values` must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelPolicy {
    /// A regular expression (the syntax of `regex-lite`) that the whole value must match.
    pub pattern: Option<String>,
    /// A closed list.
    pub values: Option<Vec<String>>,
    /// How many different values are let through; 0 = all of a list, [`LABEL_VALUES_DEFAULT`] of a pattern.
    pub values_max: u32,
}

impl LabelPolicy {
    /// Whether a value is on the list or matches the pattern, whatever the guard says of it.
    ///
    /// # Errors
    /// When no agent would take the policy.
    pub fn allows(&self, value: &str) -> Result<bool, DeclareError> {
        Ok(declare::compile("label", self.clone())?.allows(value))
    }
}

/// A declared source, such as one configured plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey(pub(crate) u32);

/// Bounds of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) sources_max: usize,
    pub(crate) metrics_max: usize,
    pub(crate) series_max: usize,
    pub(crate) source_series_max: usize,
}

/// A source with what it declared and how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Opaque: file offsets and the plugin's state.
    pub(crate) progress: Option<Vec<u8>>,
    /// It was first read at this time: of before, nothing is known.
    pub(crate) read_from_ms: Option<u64>,
    /// It had nothing more to read at this time.
    pub(crate) read_through_ms: u64,
    /// When it was last asked, not all of it could be read.
    pub(crate) is_partial: bool,
    /// Ids of its metrics by their index in its descriptor; empty until it is declared in this life.
    pub(crate) metrics: Vec<u32>,
    pub(crate) policies: BTreeMap<String, Policy>,
    /// Its values that were dropped since the start.
    pub(crate) refused: Tally,
}

/// A label policy, ready for use.
#[derive(Debug)]
pub(crate) struct Policy {
    values: Option<Vec<String>>,
    pattern: Option<Regex>,
    values_max: usize,
}

/// A metric of a source.
#[derive(Clone, Debug)]
pub(crate) struct MetricEntry {
    pub(crate) source: u32,
    pub(crate) metric: Metric,
}

/// A series of a metric.
#[derive(Clone, Debug)]
pub(crate) struct SeriesEntry {
    pub(crate) metric: u32,
    pub(crate) labels: Vec<String>,
    /// When its last value was taken.
    pub(crate) last_ms: u64,
    /// Of a counter: time and value of the last reading.
    pub(crate) reading: Option<(u64, i64)>,
}

/// All sources, metrics and series. Ids are never used twice.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) bounds: Bounds,
    pub(crate) sources: Vec<Source>,
    pub(crate) metrics: BTreeMap<u32, MetricEntry>,
    pub(crate) series: BTreeMap<u32, SeriesEntry>,
    pub(crate) next_metric: u32,
    pub(crate) next_series: u32,
    ids: BTreeMap<u32, BTreeMap<Vec<String>, u32>>,
    /// Of each metric and label: its values, with how many series have each.
    label_values: BTreeMap<(u32, usize), BTreeMap<String, usize>>,
    /// Of the series.
    room: Room,
    /// Counts changes of what a birth says.
    pub(crate) revision: u64,
}

impl Registry {
    pub(crate) fn new(bounds: Bounds) -> Registry {
        Registry {
            bounds,
            sources: Vec::new(),
            metrics: BTreeMap::new(),
            series: BTreeMap::new(),
            next_metric: 1,
            next_series: 1,
            ids: BTreeMap::new(),
            label_values: BTreeMap::new(),
            room: Room::new(bounds.series_max, bounds.source_series_max),
            revision: 1,
        }
    }

    pub(crate) fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == name)
    }

    pub(crate) fn source_mut(&mut self, key: SourceKey) -> Option<&mut Source> {
        self.sources.get_mut(usize::try_from(key.0).ok()?)
    }

    /// Puts back a series from a checkpoint.
    pub(crate) fn put_series(&mut self, id: u32, entry: SeriesEntry) {
        self.ids
            .entry(entry.metric)
            .or_default()
            .insert(entry.labels.clone(), id);
        for (at, value) in entry.labels.iter().enumerate() {
            let values = self.label_values.entry((entry.metric, at)).or_default();
            *values.entry(value.clone()).or_default() += 1;
        }
        if let Some(metric) = self.metrics.get(&entry.metric) {
            self.room.take(metric.source, 1);
        }
        self.series.insert(id, entry);
    }

    fn remove_series(&mut self, id: u32) {
        let Some(entry) = self.series.remove(&id) else {
            return;
        };
        if let Some(ids) = self.ids.get_mut(&entry.metric) {
            ids.remove(&entry.labels);
        }
        for (at, value) in entry.labels.iter().enumerate() {
            let values = self.label_values.entry((entry.metric, at)).or_default();
            let left = values.get(value).map_or(0, |series| series - 1);
            if left == 0 {
                values.remove(value);
            } else {
                values.insert(value.clone(), left);
            }
        }
        self.label_values.retain(|_label, values| !values.is_empty());
        if let Some(metric) = self.metrics.get(&entry.metric) {
            self.room.give_back(metric.source, 1);
        }
    }

    pub(crate) fn metric_of(&self, series: u32) -> Option<&MetricEntry> {
        self.metrics.get(&self.series.get(&series)?.metric)
    }

    /// The metric with this index in the source's descriptor.
    pub(crate) fn metric_at(&self, key: SourceKey, index: u16) -> Option<u32> {
        let source = self.sources.get(usize::try_from(key.0).ok()?)?;
        source.metrics.get(usize::from(index)).copied()
    }

    /// The series of a metric with these labels, when it is known.
    pub(crate) fn known(&self, metric: u32, labels: &[String]) -> Option<u32> {
        self.ids.get(&metric)?.get(labels).copied()
    }

    /// The series of a metric with these labels, made when it is new and allowed. What is cheap is asked first: a plugin
    /// may offer a thousand series with each call.
    pub(crate) fn resolve(&mut self, key: SourceKey, metric: u32, labels: &[String]) -> Result<u32, Reason> {
        if let Some(id) = self.known(metric, labels) {
            return Ok(id);
        }
        let room = self.room.check(key.0, self.sources.len(), 1);
        room.map_err(|full| match full {
            Full::Shared => Reason::SeriesFull,
            Full::Source => Reason::SourceSeriesFull,
        })?;
        self.check_labels(key, metric, labels)?;
        let id = self.next_series;
        self.next_series += 1;
        self.revision += 1;
        self.put_series(
            id,
            SeriesEntry {
                metric,
                labels: labels.to_vec(),
                last_ms: 0,
                reading: None,
            },
        );
        Ok(id)
    }

    /// Forgets series that are idle or of metrics that no source declares any more, unless `open` says they are in use.
    pub(crate) fn forget(&mut self, now_ms: u64, open: impl Fn(u32) -> bool) -> Vec<u32> {
        // As long as a source is not declared in this life nobody can say what of it is still wanted.
        let wanted: Vec<u32> = self
            .metrics
            .iter()
            .filter(|(id, entry)| {
                let source = usize::try_from(entry.source).ok().and_then(|at| self.sources.get(at));
                source.is_some_and(|source| source.metrics.is_empty() || source.metrics.contains(id))
            })
            .map(|(id, _)| *id)
            .collect();
        let wanted = |metric: u32| wanted.contains(&metric);
        let forgotten: Vec<u32> = self
            .series
            .iter()
            .filter(|(id, entry)| {
                let idle = now_ms.saturating_sub(entry.last_ms) > SERIES_IDLE_MS;
                (idle || !wanted(entry.metric)) && !open(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &forgotten {
            self.remove_series(*id);
        }
        let used: Vec<u32> = self.series.values().map(|entry| entry.metric).collect();
        let before = self.metrics.len();
        self.metrics.retain(|id, _| wanted(*id) || used.contains(id));
        if !forgotten.is_empty() || self.metrics.len() < before {
            self.revision += 1;
        }
        forgotten
    }

    fn check_labels(&self, key: SourceKey, metric: u32, labels: &[String]) -> Result<(), Reason> {
        let source = self
            .sources
            .get(usize::try_from(key.0).unwrap_or(usize::MAX))
            .ok_or(Reason::Undeclared)?;
        let entry = self.metrics.get(&metric).ok_or(Reason::Undeclared)?;
        if labels.len() != entry.metric.label_keys.len() {
            return Err(Reason::Malformed);
        }
        for (at, (label_key, value)) in entry.metric.label_keys.iter().zip(labels).enumerate() {
            Guard.label(value).map_err(|refusal| match refusal {
                Refusal::Shape => Reason::Label,
                Refusal::Card => Reason::Card,
            })?;
            let policy = source.policies.get(label_key).ok_or(Reason::Label)?;
            if !policy.allows(value) {
                return Err(Reason::Label);
            }
            self.check_values_left(metric, at, value, policy.values_max)?;
        }
        Ok(())
    }

    fn check_values_left(&self, metric: u32, at: usize, value: &str, values_max: usize) -> Result<(), Reason> {
        let known = self.label_values.get(&(metric, at));
        let is_known = known.is_some_and(|known| known.contains_key(value));
        if is_known || known.map_or(0, BTreeMap::len) < values_max {
            return Ok(());
        }
        Err(Reason::LabelValuesFull)
    }
}

impl Source {
    /// Was all of this time read, so that what was not seen was not there?
    pub(crate) fn has_read(&self, start_ms: u64, end_ms: u64) -> bool {
        self.read_from_ms.is_some_and(|from| from <= start_ms) && self.read_through_ms >= end_ms
    }
}

impl Policy {
    fn allows(&self, value: &str) -> bool {
        let listed = self
            .values
            .as_ref()
            .is_none_or(|values| values.iter().any(|listed| listed == value));
        listed && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Kind;

    fn metric(name: &str, keys: &[&str]) -> Metric {
        Metric {
            name: name.to_owned(),
            unit: "1".to_owned(),
            kind: Kind::Gauge,
            help: String::new(),
            label_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            role: String::new(),
            decimals: 0,
            currency: None,
        }
    }

    const SOURCE_SERIES_MAX: usize = 5;

    fn registry(series_max: usize) -> (Registry, SourceKey) {
        let mut registry = Registry::new(Bounds {
            sources_max: 2,
            metrics_max: 3,
            series_max,
            source_series_max: SOURCE_SERIES_MAX,
        });
        let queue = LabelPolicy {
            pattern: Some("[a-z]+|v[0-9]+".to_owned()),
            values_max: 3,
            ..LabelPolicy::default()
        };
        let state = LabelPolicy {
            values: Some(vec!["up".to_owned()]),
            ..LabelPolicy::default()
        };
        let labels = BTreeMap::from([("queue".to_owned(), queue), ("state".to_owned(), state)]);
        let metrics = vec![metric("depth", &["queue"]), metric("pair", &["queue", "state"])];
        let key = registry.declare("q", "1", metrics, labels).unwrap();
        (registry, key)
    }

    fn resolve(registry: &mut Registry, key: SourceKey, index: u16, labels: &[&str]) -> Result<u32, Reason> {
        let metric = registry.metric_at(key, index).ok_or(Reason::Undeclared)?;
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        registry.resolve(key, metric, &labels)
    }

    #[test]
    fn only_declared_label_values_make_a_series() {
        let (mut registry, key) = registry(10);
        assert_eq!(resolve(&mut registry, key, 0, &["orders"]), Ok(1));
        assert_eq!(resolve(&mut registry, key, 0, &["orders"]), Ok(1));
        assert_eq!(resolve(&mut registry, key, 1, &["orders", "up"]), Ok(2));
        assert_eq!(resolve(&mut registry, key, 1, &["orders", "down"]), Err(Reason::Label));
        assert_eq!(resolve(&mut registry, key, 0, &["John"]), Err(Reason::Label));
        assert_eq!(
            resolve(&mut registry, key, 0, &["ordersX"]),
            Err(Reason::Label),
            "the whole value must match"
        );
        assert_eq!(
            resolve(&mut registry, key, 0, &["v4111111111111111"]),
            Err(Reason::Card)
        );
        assert_eq!(resolve(&mut registry, key, 0, &[]), Err(Reason::Malformed));
        assert_eq!(resolve(&mut registry, key, 7, &["orders"]), Err(Reason::Undeclared));
    }

    #[test]
    fn values_and_series_are_bounded() {
        let (mut registry, key) = registry(4);
        for queue in ["a", "b", "c"] {
            assert!(resolve(&mut registry, key, 0, &[queue]).is_ok());
        }
        assert_eq!(resolve(&mut registry, key, 0, &["d"]), Err(Reason::LabelValuesFull));
        assert!(resolve(&mut registry, key, 1, &["a", "up"]).is_ok());
        assert_eq!(resolve(&mut registry, key, 1, &["b", "up"]), Err(Reason::SeriesFull));
    }

    /// One plugin took the room of all series, and the others had none.
    #[test]
    fn a_source_that_floods_leaves_room_for_the_others() {
        let (mut registry, flood) = registry(10);
        for (index, queue) in (0..2)
            .flat_map(|index| [(index, "a"), (index, "b"), (index, "c")])
            .take(SOURCE_SERIES_MAX)
        {
            let labels = [queue, "up"];
            assert!(resolve(&mut registry, flood, index, &labels[..=usize::from(index)]).is_ok());
        }
        let beyond = resolve(&mut registry, flood, 1, &["c", "up"]);
        assert_eq!(beyond, Err(Reason::SourceSeriesFull));
        assert!(resolve(&mut registry, flood, 0, &["a"]).is_ok(), "what it has stays");
        let other = registry
            .declare("other", "1", vec![metric("plain", &[])], BTreeMap::new())
            .unwrap();
        assert!(resolve(&mut registry, other, 0, &[]).is_ok());
    }

    /// Two plugins filled the registry at the first start, and the series of the third were dropped for good.
    #[test]
    fn two_sources_that_flood_leave_the_third_its_floor() {
        let any = || LabelPolicy {
            pattern: Some("[a-z0-9]+".to_owned()),
            values_max: 1_000,
            ..LabelPolicy::default()
        };
        let mut registry = Registry::new(Bounds {
            sources_max: 3,
            metrics_max: 3,
            series_max: 12,
            source_series_max: 8,
        });
        let fill = |registry: &mut Registry, name: &str| {
            let labels = BTreeMap::from([("queue".to_owned(), any())]);
            let key = registry.declare(name, "1", vec![metric("depth", &["queue"])], labels);
            key.unwrap()
        };
        let keys = ["a", "b", "c"].map(|name| fill(&mut registry, name));
        let room = keys.map(|key| {
            (0..20)
                .take_while(|n| resolve(&mut registry, key, 0, &[&n.to_string()]).is_ok())
                .count()
        });
        assert_eq!(room, [8, 2, 2]);
    }

    /// Whoever offers what is refused must not keep the agent busy: what is cheap to know is asked first.
    #[test]
    fn without_room_the_labels_are_not_looked_at() {
        let (mut registry, key) = registry(1);
        assert!(resolve(&mut registry, key, 0, &["a"]).is_ok());
        assert_eq!(
            resolve(&mut registry, key, 0, &["v4111111111111111"]),
            Err(Reason::SeriesFull)
        );
    }

    #[test]
    fn what_is_idle_or_no_longer_declared_makes_room() {
        let (mut registry, key) = registry(4);
        let idle = resolve(&mut registry, key, 0, &["a"]).unwrap();
        let kept = resolve(&mut registry, key, 1, &["a", "up"]).unwrap();
        registry.series.get_mut(&kept).unwrap().last_ms = SERIES_IDLE_MS;
        assert_eq!(registry.forget(SERIES_IDLE_MS + 1, |_| true), []);
        assert_eq!(registry.forget(SERIES_IDLE_MS + 1, |_| false), [idle]);
        registry
            .declare("q", "2", vec![metric("plain", &[])], BTreeMap::new())
            .unwrap();
        assert_eq!(registry.forget(SERIES_IDLE_MS + 1, |_| false), [kept]);
        assert_eq!(registry.metrics.len(), 1);
        let new = resolve(&mut registry, key, 0, &[]).unwrap();
        assert!(new > kept, "ids are never used twice");
        assert!(registry.label_values.is_empty());
        assert_eq!(registry.room.used(0), 1);
    }
}
