//! A plugin called on a case's input until nothing is left, in a given manner; and what came out of it.
//!
//! Values of kind sum are added up, since a plugin may report them in one piece or in many; those of a distribution are
//! counted one by one; readings of gauges and counters may be repeated.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tillwatch_border::{CallError, Limits, PluginError};
use tillwatch_core::sample::{Batch, Descriptor, Kind, Values};

use crate::plugin::golden::host::CaseHost;
use crate::plugin::outside::{Instance, Outside, patient_limits};

/// A collector that still says `more` after so many calls is taken for an endless one.
const CALLS_MAX: usize = 20_000;
/// Sums of real numbers depend on their order.
const SUM_TOLERANCE: f64 = 1e-9;

/// How a plugin is played with.
pub(super) struct Manner {
    pub limits: Limits,
    /// Each call is one of a new instance with the state that the last one left.
    pub has_restarts: bool,
    /// The clock after the first call.
    pub jump_to_ms: Option<u64>,
    /// Further calls after the plugin has said that there is no more.
    pub calls_after: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            limits: patient_limits(),
            has_restarts: false,
            jump_to_ms: None,
            calls_after: 0,
        }
    }
}

/// What came out of all calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Played {
    pub(super) sums: BTreeMap<Series, f64>,
    pub(super) observations: BTreeMap<Reading, u64>,
    pub(super) readings: BTreeMap<Reading, u64>,
    /// What the plugin itself said at the end.
    pub error: Option<PluginError>,
    /// The longest call of `collect`.
    pub longest: Duration,
    pub has_negative: bool,
    pub has_nonzero: bool,
}

/// Metric and labels.
pub(super) type Series = (String, Vec<String>);
/// A series, its time and the bits of its value.
pub(super) type Reading = (Series, u64, u64);

/// The end of a run that did not trap.
pub(super) struct End {
    pub collected: Played,
    /// The plugin's last words were in `configure`.
    pub is_refused: bool,
}

/// Configures the plugin and calls it until it no longer says `more`.
///
/// # Errors
/// What no plugin may end with: a trap, or an answer beyond a limit.
pub(super) fn play(plugin: &Outside, settings: &str, host: &CaseHost, manner: &Manner) -> Result<End, CallError> {
    let mut collected = Played::default();
    let (mut calls, mut calls_after) = (0, 0);
    let mut configured: Option<(Instance, Descriptor)> = None;
    while calls < CALLS_MAX {
        if manner.has_restarts || configured.is_none() {
            match configure(plugin, settings, host, manner) {
                Err(CallError::Plugin(error)) => {
                    collected.error = Some(error);
                    let is_refused = true;
                    return Ok(End { collected, is_refused });
                }
                result => configured = Some(result?),
            }
        }
        let Some((instance, descriptor)) = &mut configured else {
            break;
        };
        let begun = Instant::now();
        let answer = instance.collect();
        collected.longest = collected.longest.max(begun.elapsed());
        match answer {
            Err(CallError::Plugin(error)) => {
                collected.error = Some(error);
                break;
            }
            result => {
                let batch = result?;
                collected.add(descriptor, &batch)?;
                calls_after += usize::from(!batch.more);
            }
        }
        if calls_after > manner.calls_after {
            break;
        }
        if let (0, Some(now_ms)) = (calls, manner.jump_to_ms) {
            host.set_now(now_ms);
        }
        calls += 1;
    }
    if calls == CALLS_MAX {
        let reason = "collect still says more after the last of its calls";
        return Err(CallError::Malformed { reason });
    }
    let is_refused = false;
    Ok(End { collected, is_refused })
}

fn configure(
    plugin: &Outside,
    settings: &str,
    host: &CaseHost,
    manner: &Manner,
) -> Result<(Instance, Descriptor), CallError> {
    let mut instance = plugin.instantiate(manner.limits, Box::new(host.clone()))?;
    instance.configure(settings)?;
    let descriptor = instance.describe()?;
    Ok((instance, descriptor))
}

impl Played {
    fn add(&mut self, descriptor: &Descriptor, batch: &Batch) -> Result<(), CallError> {
        for series in &batch.series {
            let reason = "a metric that was not described";
            let metric = descriptor.metrics.get(usize::from(series.metric));
            let metric = metric.ok_or(CallError::Malformed { reason })?;
            let key = (metric.name.clone(), series.labels.clone());
            for (value, time_ms) in numbers(&series.values).into_iter().zip(&series.times_ms) {
                self.has_negative |= value < 0.0;
                self.has_nonzero |= value != 0.0;
                let reading = || (key.clone(), *time_ms, value.to_bits());
                match metric.kind {
                    Kind::Sum => *self.sums.entry(key.clone()).or_default() += value,
                    Kind::Distribution => *self.observations.entry(reading()).or_default() += 1,
                    Kind::Gauge | Kind::Counter => *self.readings.entry(reading()).or_default() += 1,
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty() && self.observations.is_empty() && self.readings.is_empty()
    }

    /// Whether something was counted, in distinction from a level that was read.
    pub(super) fn has_counted(&self) -> bool {
        !self.observations.is_empty() || self.sums.values().any(|sum| *sum != 0.0)
    }

    /// The metrics whose values are other ones, and how.
    pub(super) fn differences(&self, plain: &Self) -> Vec<String> {
        let mut told = Vec::new();
        let keys: std::collections::BTreeSet<&Series> = self.sums.keys().chain(plain.sums.keys()).collect();
        for key in keys {
            let of = |played: &Self| played.sums.get(key).copied().unwrap_or(0.0);
            let (found, wanted) = (of(self), of(plain));
            if (found - wanted).abs() > SUM_TOLERANCE * wanted.abs().max(1.0) {
                told.push(format!("{}{:?} adds up to {found}, not to {wanted}", key.0, key.1));
            }
        }
        let by_metric = |readings: &BTreeMap<Reading, u64>| {
            let mut counts = BTreeMap::<String, u64>::new();
            for (((metric, _labels), ..), count) in readings {
                *counts.entry(metric.clone()).or_default() += count;
            }
            counts
        };
        if self.observations != plain.observations {
            let (found, wanted) = (by_metric(&self.observations), by_metric(&plain.observations));
            told.push(format!("observations are {found:?}, not {wanted:?}"));
        }
        if !self.readings.keys().eq(plain.readings.keys()) {
            let distinct = |played: &Self| played.readings.len();
            told.push(format!(
                "{} different readings, not {}",
                distinct(self),
                distinct(plain)
            ));
        }
        told
    }
}

/// For comparing: what is exact as an integer is exact here up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "for comparing only")]
fn numbers(values: &Values) -> Vec<f64> {
    match values {
        Values::Reals(reals) => reals.clone(),
        Values::Integers(integers) => integers.iter().map(|integer| *integer as f64).collect(),
    }
}
