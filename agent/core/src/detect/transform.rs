//! Makes the noise of a value about equally large wherever the value lies.

use super::single;
use crate::sample::Kind;

/// Levels beyond are taken for this: their squares must be finite in single precision.
const LARGEST: f64 = 1e19;

/// What kind of number a series is for the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Events and amounts in a window: noise grows with the root, and nothing at all is news.
    Count,
    /// Things in a queue: noise as of events, but an empty queue is a good one.
    Depth,
    /// A level such as a temperature or a share: noise is even.
    Level,
    /// A duration: noise grows with the value.
    Latency,
}

impl Shape {
    pub(crate) fn of(kind: Kind, role: &str) -> Shape {
        match kind {
            Kind::Counter | Kind::Sum => Shape::Count,
            Kind::Gauge if role.starts_with("queue") => Shape::Depth,
            Kind::Gauge => Shape::Level,
            Kind::Distribution => Shape::Latency,
        }
    }

    /// Source of the root: Anscombe 1948, "The transformation of Poisson, binomial and negative-binomial data".
    pub(crate) fn forward(self, value: f64) -> f32 {
        single(match self {
            Shape::Level => value.clamp(-LARGEST, LARGEST),
            Shape::Latency => libm::asinh(value),
            Shape::Count | Shape::Depth if value >= 0.0 => 2.0 * (value + 0.375).sqrt(),
            Shape::Count | Shape::Depth => 4.0 * 0.375_f64.sqrt() - 2.0 * (0.375 - value).sqrt(),
        })
    }

    /// The value whose transformed mean and variance these are; for latencies the median.
    pub(crate) fn inverse(self, mean: f32, variance: f32) -> f64 {
        let (mean, variance) = (f64::from(mean), f64::from(variance));
        match self {
            Shape::Level => mean,
            Shape::Latency => libm::sinh(mean.clamp(-100.0, 100.0)),
            Shape::Count | Shape::Depth if mean <= 0.0 => 0.0,
            Shape::Count | Shape::Depth => ((mean * mean + variance) / 4.0 - 0.375).max(0.0),
        }
    }

    /// Noise below this is taken for this: one event, a twentieth, a thousandth.
    pub(crate) fn sd_min(self, y: f32) -> f32 {
        match self {
            Shape::Count | Shape::Depth => 0.3,
            Shape::Latency => 0.05,
            Shape::Level => (y.abs() * 0.001).max(0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_transformed_comes_back() {
        for shape in [Shape::Count, Shape::Depth, Shape::Level, Shape::Latency] {
            for value in [0.0, 1.0, 3.0, 250.0, 1e6] {
                let back = shape.inverse(shape.forward(value), 0.0);
                assert!((back - value).abs() <= value * 1e-4 + 1e-4, "{shape:?} {value} {back}");
            }
        }
    }

    #[test]
    fn refunds_are_below_nothing() {
        let y: Vec<f32> = [-500.0, -1.0, 0.0, 1.0]
            .iter()
            .map(|value| Shape::Count.forward(*value))
            .collect();
        assert!(y.is_sorted(), "{y:?}");
    }
}
