//! From what a collector reports to whole numbers of the metric's resolution.
//!
//! In: reals or integers. Out: a whole number, and the real value for histograms. It never rounds money.

use crate::guard::Guard;
use crate::sample::{Metric, Values};
use crate::tally::Reason;

/// A value as it is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Multiples of `10^-decimals` of the unit.
    pub whole: i64,
    /// In the unit.
    pub real: f64,
}

/// The largest number of decimals a metric may have.
pub const DECIMALS_MAX: u8 = 9;

/// 10^decimals.
pub fn scale_of(decimals: u8) -> f64 {
    const SCALES: [f64; DECIMALS_MAX as usize + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
    SCALES[usize::from(decimals.min(DECIMALS_MAX))]
}

/// The value at an index of a series.
///
/// # Errors
/// When it is missing, not finite, too large, a real amount of money, or might be a card number.
pub fn value_at(values: &Values, at: usize, metric: &Metric, guard: Guard) -> Result<Value, Reason> {
    let scale = scale_of(metric.decimals);
    let value = match values {
        Values::Integers(integers) => {
            let whole = *integers.get(at).ok_or(Reason::Malformed)?;
            Value {
                whole,
                real: to_real(whole) / scale,
            }
        }
        Values::Reals(_) if metric.currency.is_some() => return Err(Reason::MoneyFraction),
        Values::Reals(reals) => from_real(*reals.get(at).ok_or(Reason::Malformed)?, scale)?,
    };
    // By mistake a card number comes as reported or in the unit, never times the resolution; both are looked at.
    let in_unit = to_whole(value.real).unwrap_or(0);
    if guard.number(value.whole).is_err() || guard.number(in_unit).is_err() {
        return Err(Reason::Card);
    }
    Ok(value)
}

fn from_real(real: f64, scale: f64) -> Result<Value, Reason> {
    if !real.is_finite() {
        return Err(Reason::NotFinite);
    }
    let whole = to_whole((real * scale).round()).ok_or(Reason::OutOfRange)?;
    Ok(Value { whole, real })
}

/// The whole part, when it fits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "checked against the range of an i64 before"
)]
pub(crate) fn to_whole(real: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (-LIMIT..LIMIT).contains(&real).then_some(real as i64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a real value is a measure; whole numbers stay exact"
)]
pub(crate) fn to_real(whole: i64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Kind;

    fn metric(decimals: u8, currency: Option<&str>) -> Metric {
        Metric {
            name: "m".to_owned(),
            unit: "1".to_owned(),
            kind: Kind::Gauge,
            help: String::new(),
            label_keys: Vec::new(),
            role: String::new(),
            decimals,
            currency: currency.map(str::to_owned),
        }
    }

    fn real(value: f64, decimals: u8) -> Result<i64, Reason> {
        value_at(&Values::Reals(vec![value]), 0, &metric(decimals, None), Guard).map(|value| value.whole)
    }

    #[test]
    fn reals_become_whole_numbers_of_the_resolution() {
        assert_eq!(real(0.0123456, 6), Ok(12_346));
        assert_eq!(real(-2.5, 0), Ok(-3));
        assert_eq!(real(f64::NAN, 0), Err(Reason::NotFinite));
        assert_eq!(real(f64::NEG_INFINITY, 0), Err(Reason::NotFinite));
        assert_eq!(real(1e19, 0), Err(Reason::OutOfRange));
        assert_eq!(real(1e12, 9), Err(Reason::OutOfRange));
        assert_eq!(real(9.3e18, 0), Err(Reason::OutOfRange));
    }

    #[test]
    fn money_is_whole_or_not_at_all() {
        let euro = metric(2, Some("EUR"));
        assert_eq!(
            value_at(&Values::Reals(vec![12.0]), 0, &euro, Guard),
            Err(Reason::MoneyFraction)
        );
        let integer = value_at(&Values::Integers(vec![1_999]), 0, &euro, Guard);
        assert_eq!(
            integer,
            Ok(Value {
                whole: 1_999,
                real: 19.99
            })
        );
    }

    #[test]
    fn a_card_number_is_no_value_whatever_the_resolution() {
        assert_eq!(real(4_111_111_111_111_111.0, 0), Err(Reason::Card));
        assert_eq!(real(4_111_111_111_111_111.0, 3), Err(Reason::Card));
        let integers = Values::Integers(vec![4_111_111_111_111_111]);
        assert_eq!(value_at(&integers, 0, &metric(2, None), Guard), Err(Reason::Card));
    }
}
