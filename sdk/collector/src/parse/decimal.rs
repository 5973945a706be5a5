//! Decimal numbers as written, without `f64` in between: `19.99` is 1999 hundredths, not 1998.9999.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Wrong;

/// Digits that a number may have, leading zeros not counted; more are refused.
const DIGITS_MAX: u32 = 30;
/// So many digits fit into 64 bits.
const NARROW_DIGITS_MAX: usize = 19;
/// The largest exponent that a number may have.
const EXPONENT_MAX: i32 = 30;

/// A decimal number, exact: mantissa × 10^-scale.
///
/// ```
/// use tillwatch_sdk::parse::{Decimal, Wrong};
///
/// let price = Decimal::parse("19.99")?;
/// assert_eq!(price.units(2), Ok(1_999));
/// assert_eq!(price.whole(), Err(Wrong::Number));
/// assert_eq!(Decimal::parse("1.5e3")?.whole(), Ok(1_500));
/// # Ok::<(), Wrong>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    mantissa: i128,
    scale: i32,
}

impl Decimal {
    /// Reads a number as XML and JSON write it: `-12.50`, `1.2e3`, `+7`, `.5`.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Decimal, Wrong};
    ///
    /// assert_eq!(Decimal::parse("-12.50"), Decimal::parse("-12.50e0"));
    /// assert_eq!(Decimal::parse("12,50"), Err(Wrong::Number));
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Number`] when it is none, or has more than 30 digits.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.trim_ascii();
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..)),
            Some(b'+') => (false, text.get(1..)),
            _ => (false, Some(text)),
        };
        let (number, exponent) = split_exponent(unsigned.ok_or(Wrong::Number)?)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let magnitude = digits(whole, fraction)?;
        let scale = i32::try_from(fraction.len())
            .or(Err(Wrong::Number))?
            .saturating_sub(exponent);
        Ok(Self {
            mantissa: if negative {
                magnitude.saturating_neg()
            } else {
                magnitude
            },
            scale,
        })
    }

    /// The number as a whole count of 10^-decimals: `1.07` is 107 at two decimals.
    /// What lies beyond is rounded half away from zero, as cash registers do.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Decimal, Wrong};
    ///
    /// assert_eq!(Decimal::parse("1.07")?.units(2), Ok(107));
    /// assert_eq!(Decimal::parse("-0.005")?.units(2), Ok(-1));
    /// # Ok::<(), Wrong>(())
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Number`] when the count is beyond 64 bits.
    pub fn units(self, decimals: u8) -> Result<i64, Wrong> {
        let shift = i32::from(decimals).saturating_sub(self.scale);
        // As it is written; wide numbers cost a plugin most of its time.
        if shift == 0 {
            return i64::try_from(self.mantissa).or(Err(Wrong::Number));
        }
        let power = power_of_ten(shift.unsigned_abs());
        let units = if shift >= 0 {
            power.and_then(|power| self.mantissa.checked_mul(power))
        } else {
            // A divisor beyond i128 is far above any mantissa of 30 digits.
            power.map_or(Some(0), |power| divide_rounding(self.mantissa, power))
        };
        units.and_then(|units| i64::try_from(units).ok()).ok_or(Wrong::Number)
    }

    /// The whole number that this is.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Decimal, Wrong};
    ///
    /// assert_eq!(Decimal::parse("1600")?.whole(), Ok(1_600));
    /// assert_eq!(Decimal::parse("1600.5")?.whole(), Err(Wrong::Number));
    /// # Ok::<(), Wrong>(())
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Number`] when it has a fraction or is beyond 64 bits.
    pub fn whole(self) -> Result<i64, Wrong> {
        let units = self.units(0)?;
        if self.scale <= 0 {
            return Ok(units);
        }
        let exact = match power_of_ten(self.scale.unsigned_abs()) {
            Some(power) => self.mantissa.checked_rem(power) == Some(0),
            None => self.mantissa == 0,
        };
        if exact { Ok(units) } else { Err(Wrong::Number) }
    }
}

fn split_exponent(text: &str) -> Result<(&str, i32), Wrong> {
    let Some((number, exponent)) = text.split_once(['e', 'E']) else {
        return Ok((text, 0));
    };
    let exponent: i32 = exponent.parse().or(Err(Wrong::Number))?;
    if exponent.abs() > EXPONENT_MAX {
        Err(Wrong::Number)
    } else {
        Ok((number, exponent))
    }
}

/// All digits of both parts as one number.
fn digits(whole: &str, fraction: &str) -> Result<i128, Wrong> {
    if whole.is_empty() && fraction.is_empty() {
        return Err(Wrong::Number);
    }
    let mut bytes = whole.bytes().chain(fraction.bytes());
    if whole.len().saturating_add(fraction.len()) <= NARROW_DIGITS_MAX {
        let narrow = bytes.try_fold(0_u64, |sum, byte| {
            sum.checked_mul(10)?.checked_add(u64::from(digit(byte)?))
        });
        return narrow.map(i128::from).ok_or(Wrong::Number);
    }
    let limit = power_of_ten(DIGITS_MAX).ok_or(Wrong::Number)?;
    bytes.try_fold(0_i128, |sum, byte| {
        let digit = i128::from(digit(byte).ok_or(Wrong::Number)?);
        let sum = sum
            .checked_mul(10)
            .and_then(|sum| sum.checked_add(digit))
            .ok_or(Wrong::Number)?;
        if sum < limit { Ok(sum) } else { Err(Wrong::Number) }
    })
}

fn digit(byte: u8) -> Option<u8> {
    byte.checked_sub(b'0').filter(|digit| *digit <= 9)
}

fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

fn divide_rounding(mantissa: i128, divisor: i128) -> Option<i128> {
    let quotient = mantissa.checked_div(divisor)?;
    let rest = mantissa.checked_rem(divisor)?.unsigned_abs();
    let half_or_more = rest >= divisor.unsigned_abs().div_ceil(2);
    if half_or_more {
        quotient.checked_add(mantissa.signum())
    } else {
        Some(quotient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str, decimals: u8) -> Result<i64, Wrong> {
        Decimal::parse(text)?.units(decimals)
    }

    #[test]
    fn money_is_exact() {
        for (text, cents) in [
            ("19.99", 1999),
            ("1.07", 107),
            ("-0.19", -19),
            ("25.00000", 2500),
            ("+7", 700),
            (".5", 50),
            ("5.", 500),
            ("0", 0),
            ("1.2e3", 120_000),
            ("1250E-2", 1250),
            (" 3.10\n", 310),
            ("92233720368547758.07", i64::MAX),
        ] {
            assert_eq!(units(text, 2), Ok(cents), "{text}");
        }
    }

    #[test]
    fn more_decimals_round_half_away_from_zero() {
        for (text, cents) in [
            ("1.005", 101),
            ("-1.005", -101),
            ("1.0049999", 100),
            ("12.340000000000002", 1234),
            ("0.004", 0),
            ("1e-30", 0),
        ] {
            assert_eq!(units(text, 2), Ok(cents), "{text}");
        }
        assert_eq!(units("999.5", 0), Ok(1000));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let long = "1".repeat(31);
        for text in [
            "",
            "-",
            ".",
            "1,5",
            "1.2.3",
            "0x10",
            "NaN",
            "1e31",
            "1e",
            "--1",
            "1 2",
            "٣",
            long.as_str(),
        ] {
            assert_eq!(units(text, 2), Err(Wrong::Number), "{text}");
        }
        assert_eq!(units("92233720368547758.08", 2), Err(Wrong::Number));
    }

    #[test]
    fn a_whole_number_has_no_fraction() {
        let whole = |text| Decimal::parse(text).and_then(Decimal::whole);
        assert_eq!(whole("3"), Ok(3));
        assert_eq!(whole("3.000"), Ok(3));
        assert_eq!(whole("3e2"), Ok(300));
        assert_eq!(whole("0.42"), Err(Wrong::Number));
        assert_eq!(whole("1e-30"), Err(Wrong::Number));
    }
}
