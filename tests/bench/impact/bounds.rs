//! Rates with what they may truly be.

use serde::Serialize;
use serde_json::{Value, json};

/// Of the normal distribution, both sides at 95 %.
const Z: f64 = 1.96;

/// A share of cases with its bounds at 95 %.
#[derive(Debug, Serialize)]
pub(crate) struct Rate {
    share: Value,
    of: usize,
    lower: Value,
    upper: Value,
}

impl Rate {
    /// Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    pub(crate) fn of(hits: usize, cases: usize) -> Rate {
        let (n, p) = (real(cases).max(1.0), real(hits) / real(cases).max(1.0));
        let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        Rate {
            share: rounded(p),
            of: cases,
            lower: rounded((middle - half).max(0.0)),
            upper: rounded((middle + half).min(1.0)),
        }
    }
}

/// The largest mean that would show so few with a chance of 5 % (Garwood, by the approximation of Wilson and Hilferty).
pub(crate) fn poisson_upper(found: usize) -> f64 {
    let k = real(found) + 1.0;
    k * (1.0 - 1.0 / (9.0 * k) + 1.645 / (3.0 * k.sqrt())).powi(3)
}

/// `NaN` for nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn percent(share: f64) -> Value {
    rounded(100.0 * share)
}

/// To four digits behind the point; null for nothing.
pub(crate) fn rounded(value: f64) -> Value {
    json!((value * 10_000.0).round() / 10_000.0)
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        let rate = Rate::of(380, 400);
        assert_eq!((rate.lower, rate.upper), (json!(0.924), json!(0.9674)));
        assert!((poisson_upper(0) - 3.0).abs() < 0.1 && (poisson_upper(10) - 16.96).abs() < 0.05);
    }
}
