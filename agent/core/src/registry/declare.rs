//! A source says what it measures: everything is checked before anything is taken.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;

use super::{LABEL_VALUES_DEFAULT, LabelPolicy, MetricEntry, Policy, Registry, Source, SourceKey};
use crate::guard::Guard;
use crate::sample::Metric;
use crate::value::DECIMALS_MAX;

/// Longest name of a source, metric, label key or role.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Labels of one metric.
pub(crate) const LABEL_KEYS_MAX: usize = 8;

/// Longest pattern of a label.
pub(crate) const PATTERN_BYTES_MAX: usize = 256;

/// Values in one closed list.
pub(crate) const LIST_VALUES_MAX: usize = 1_000;

/// Why a source's declaration is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// The limit on sources.
    #[error("more than {max} sources")]
    SourcesFull { max: usize },
    /// The limit on metrics over all sources.
    #[error("more than {max} metrics")]
    MetricsFull { max: usize },
    /// A name, unit, version or role is empty, too long, or has other characters than it may.
    #[error("{what} {name:?} is not acceptable")]
    Name { what: &'static str, name: String },
    /// The same metric twice in one source.
    #[error("metric {metric} is declared twice")]
    MetricTwice { metric: String },
    /// More than nine.
    #[error("metric {metric} has {decimals} decimals, the most is 9")]
    Decimals { metric: String, decimals: u8 },
    /// Not three capital letters.
    #[error("metric {metric} has currency {currency:?}, which is no ISO 4217 code")]
    Currency { metric: String, currency: String },
    /// Too many label keys, or one twice.
    #[error("metric {metric} has too many label keys, or one of them twice")]
    LabelKeys { metric: String },
    /// Nobody said what values the label may take.
    #[error("metric {metric} has label {key} without a pattern or a list of values")]
    LabelWithoutPolicy { metric: String, key: String },
    /// The pattern cannot be used.
    #[error("pattern of label {key} cannot be used: {reason}")]
    Pattern { key: String, reason: String },
    /// The list is empty or too long, or a value of it would not pass the guard.
    #[error("list of values of label {key} cannot be used")]
    Values { key: String },
}

impl Registry {
    pub(crate) fn declare(
        &mut self,
        name: &str,
        version: &str,
        metrics: Vec<Metric>,
        labels: BTreeMap<String, LabelPolicy>,
    ) -> Result<SourceKey, DeclareError> {
        check_name("source", name)?;
        check_text("version", version, 1)?;
        let policies = compile_all(labels)?;
        check_metrics(&metrics, &policies)?;
        let at = self
            .sources
            .iter()
            .position(|source| source.name == name)
            .unwrap_or(self.sources.len());
        if at >= self.bounds.sources_max {
            return Err(DeclareError::SourcesFull {
                max: self.bounds.sources_max,
            });
        }
        let key = SourceKey(u32::try_from(at).unwrap_or(u32::MAX));
        let known = |metric: &Metric| self.known_metric(key, metric);
        let new = metrics.iter().filter(|metric| known(metric).is_none()).count();
        if self.metrics.len() + new > self.bounds.metrics_max {
            return Err(DeclareError::MetricsFull {
                max: self.bounds.metrics_max,
            });
        }
        let ids = metrics.into_iter().map(|metric| self.metric_id(key, metric)).collect();
        if at == self.sources.len() {
            self.sources.push(Source {
                name: name.to_owned(),
                ..Source::default()
            });
        }
        let source = &mut self.sources[at];
        source.version = version.to_owned();
        source.metrics = ids;
        source.policies = policies;
        self.revision += 1;
        Ok(key)
    }

    /// The same declaration as before keeps its series.
    fn known_metric(&self, key: SourceKey, metric: &Metric) -> Option<u32> {
        let same = |entry: &MetricEntry| {
            let help = metric.help.clone();
            entry.source == key.0
                && Metric {
                    help,
                    ..entry.metric.clone()
                } == *metric
        };
        self.metrics.iter().find(|(_, entry)| same(entry)).map(|(id, _)| *id)
    }

    fn metric_id(&mut self, key: SourceKey, metric: Metric) -> u32 {
        if let Some(id) = self.known_metric(key, &metric) {
            return id;
        }
        let id = self.next_metric;
        self.next_metric += 1;
        self.metrics.insert(id, MetricEntry { source: key.0, metric });
        id
    }
}

fn compile_all(labels: BTreeMap<String, LabelPolicy>) -> Result<BTreeMap<String, Policy>, DeclareError> {
    labels
        .into_iter()
        .map(|(key, policy)| compile(&key, policy).map(|policy| (key, policy)))
        .collect()
}

pub(super) fn compile(key: &str, policy: LabelPolicy) -> Result<Policy, DeclareError> {
    check_name("label key", key)?;
    let pattern = policy
        .pattern
        .map(|pattern| compile_pattern(key, &pattern))
        .transpose()?;
    let values = policy.values;
    if let Some(values) = &values {
        let sized = (1..=LIST_VALUES_MAX).contains(&values.len());
        if !sized || values.iter().any(|value| Guard.label(value).is_err()) {
            return Err(DeclareError::Values { key: key.to_owned() });
        }
    }
    let values_max = match (policy.values_max, &values) {
        (0, Some(values)) => values.len(),
        (0, None) => LABEL_VALUES_DEFAULT as usize,
        (max, _) => usize::try_from(max).unwrap_or(usize::MAX),
    };
    Ok(Policy {
        values,
        pattern,
        values_max,
    })
}

fn compile_pattern(key: &str, pattern: &str) -> Result<Regex, DeclareError> {
    let refuse = |reason: String| DeclareError::Pattern {
        key: key.to_owned(),
        reason,
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(refuse(format!("longer than {PATTERN_BYTES_MAX} bytes")));
    }
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| refuse(error.to_string()))
}

fn check_metrics(metrics: &[Metric], policies: &BTreeMap<String, Policy>) -> Result<(), DeclareError> {
    let mut names = BTreeSet::new();
    for metric in metrics {
        check_metric(metric, policies)?;
        if !names.insert(&metric.name) {
            return Err(DeclareError::MetricTwice {
                metric: metric.name.clone(),
            });
        }
    }
    Ok(())
}

fn check_metric(metric: &Metric, policies: &BTreeMap<String, Policy>) -> Result<(), DeclareError> {
    let name = || metric.name.clone();
    check_name("metric", &metric.name)?;
    check_text("unit", &metric.unit, 1)?;
    check_text("role", &metric.role, 0)?;
    if metric.decimals > DECIMALS_MAX {
        return Err(DeclareError::Decimals {
            metric: name(),
            decimals: metric.decimals,
        });
    }
    if let Some(currency) = &metric.currency
        && (currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()))
    {
        return Err(DeclareError::Currency {
            metric: name(),
            currency: cut(currency),
        });
    }
    let keys: BTreeSet<&String> = metric.label_keys.iter().collect();
    if keys.len() != metric.label_keys.len() || keys.len() > LABEL_KEYS_MAX {
        return Err(DeclareError::LabelKeys { metric: name() });
    }
    for key in keys {
        let policy = policies
            .get(key)
            .filter(|policy| policy.pattern.is_some() || policy.values.is_some());
        if policy.is_none() {
            return Err(DeclareError::LabelWithoutPolicy {
                metric: name(),
                key: cut(key),
            });
        }
    }
    Ok(())
}

fn check_name(what: &'static str, name: &str) -> Result<(), DeclareError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if starts && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed) && Guard.label(name).is_ok() {
        return Ok(());
    }
    Err(DeclareError::Name { what, name: cut(name) })
}

fn check_text(what: &'static str, text: &str, bytes_min: usize) -> Result<(), DeclareError> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if printable && (bytes_min..=NAME_BYTES_MAX).contains(&text.len()) {
        return Ok(());
    }
    Err(DeclareError::Name { what, name: cut(text) })
}

/// What is quoted in an error is short and holds no card number.
fn cut(text: &str) -> String {
    let short: String = text.chars().take(NAME_BYTES_MAX).collect();
    Guard.text(&short).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Bounds;
    use crate::sample::Kind;

    fn metric() -> Metric {
        Metric {
            name: "queue.depth".to_owned(),
            unit: "{message}".to_owned(),
            kind: Kind::Gauge,
            help: String::new(),
            label_keys: vec!["queue".to_owned()],
            role: "queue".to_owned(),
            decimals: 0,
            currency: None,
        }
    }

    fn declare(metrics: Vec<Metric>, policy: LabelPolicy) -> Result<SourceKey, DeclareError> {
        let mut registry = Registry::new(Bounds {
            sources_max: 1,
            metrics_max: 2,
            series_max: 1,
            source_series_max: 1_000,
        });
        registry.declare("q", "1", metrics, BTreeMap::from([("queue".to_owned(), policy)]))
    }

    fn pattern(pattern: &str) -> LabelPolicy {
        LabelPolicy {
            pattern: Some(pattern.to_owned()),
            ..LabelPolicy::default()
        }
    }

    fn list(values: &[&str]) -> LabelPolicy {
        LabelPolicy {
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            ..LabelPolicy::default()
        }
    }

    #[test]
    fn what_is_wrong_with_a_declaration_is_named() {
        let with = |change: fn(&mut Metric)| {
            let mut metric = metric();
            change(&mut metric);
            declare(vec![metric], pattern("[a-z]+")).unwrap_err()
        };
        let name = || "queue.depth".to_owned();
        assert!(matches!(
            with(|metric| metric.name = "depth of queue".to_owned()),
            DeclareError::Name { .. }
        ));
        assert!(matches!(
            with(|metric| metric.unit = String::new()),
            DeclareError::Name { what: "unit", .. }
        ));
        assert_eq!(
            with(|metric| metric.decimals = 10),
            DeclareError::Decimals {
                metric: name(),
                decimals: 10
            }
        );
        assert!(matches!(
            with(|metric| metric.currency = Some("eur".to_owned())),
            DeclareError::Currency { .. }
        ));
        assert_eq!(
            with(|metric| metric.label_keys.push("host".to_owned())),
            DeclareError::LabelWithoutPolicy {
                metric: name(),
                key: "host".to_owned()
            }
        );
        assert_eq!(
            with(|metric| metric.label_keys.push("queue".to_owned())),
            DeclareError::LabelKeys { metric: name() }
        );
        let twice = declare(vec![metric(), metric()], pattern("[a-z]+"));
        assert_eq!(twice, Err(DeclareError::MetricTwice { metric: name() }));
    }

    #[test]
    fn a_label_needs_a_usable_policy() {
        let one = |policy| declare(vec![metric()], policy);
        assert!(one(pattern("[a-z]{1,40}")).is_ok());
        assert!(one(list(&["orders"])).is_ok());
        assert!(matches!(
            one(LabelPolicy::default()),
            Err(DeclareError::LabelWithoutPolicy { .. })
        ));
        assert!(matches!(one(pattern("[a-")), Err(DeclareError::Pattern { .. })));
        assert!(matches!(one(list(&[])), Err(DeclareError::Values { .. })));
        assert!(matches!(
            one(list(&["4111111111111111"])),
            Err(DeclareError::Values { .. })
        ));
    }

    #[test]
    fn sources_and_metrics_are_bounded_and_a_refused_declaration_changes_nothing() {
        let mut registry = Registry::new(Bounds {
            sources_max: 1,
            metrics_max: 1,
            series_max: 1,
            source_series_max: 1_000,
        });
        let labels = || BTreeMap::from([("queue".to_owned(), pattern("a"))]);
        let key = registry.declare("q", "1", vec![metric()], labels()).unwrap();
        let other = || Metric {
            name: "other".to_owned(),
            ..metric()
        };
        let full = registry.declare("q", "1", vec![metric(), other()], labels());
        assert_eq!(full, Err(DeclareError::MetricsFull { max: 1 }));
        assert_eq!(
            registry.declare("p", "1", vec![], labels()),
            Err(DeclareError::SourcesFull { max: 1 })
        );
        assert_eq!(registry.metric_at(key, 0), Some(1));
        assert_eq!(registry.declare("q", "2", vec![metric()], labels()), Ok(key));
        assert_eq!(registry.metric_at(key, 0), Some(1), "the same metric keeps its series");
    }
}
