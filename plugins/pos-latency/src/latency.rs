//! Durations as logs write them, to whole microseconds.

use serde::Deserialize;
use tillwatch_sdk::parse::{Decimal, Wrong, text};

/// A request that took longer than a day is a broken line.
const LATENCY_US_MAX: i64 = 86_400_000_000;
/// Upstreams that one request asks, one after the other.
const UPSTREAMS_MAX: usize = 64;
/// More digits go the slow way.
const FAST_BYTES_MAX: usize = 16;

/// The unit of durations in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyUnit {
    /// What the format says; seconds where it says nothing.
    Auto,
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl LatencyUnit {
    /// The operator's unit, or the format's own.
    pub(crate) fn or(self, own: Self) -> Self {
        if self == Self::Auto { own } else { self }
    }

    /// How many decimals of this unit make a microsecond.
    fn decimals(self) -> usize {
        match self {
            Self::Auto | Self::S => 6,
            Self::Ms => 3,
            Self::Us | Self::Ns => 0,
        }
    }
}

/// Microseconds of a number in this unit: `syntax` when it is none, `number` when it is out of range.
pub(crate) fn latency_us(number: &[u8], unit: LatencyUnit) -> Result<i64, Wrong> {
    let us = match fast_us(number, unit) {
        Some(us) => us,
        None => {
            let number = text(number).and_then(Decimal::parse).or(Err(Wrong::Syntax))?;
            exact_us(number, unit)?
        }
    };
    if (0..=LATENCY_US_MAX).contains(&us) {
        Ok(us)
    } else {
        Err(Wrong::Number)
    }
}

fn exact_us(number: Decimal, unit: LatencyUnit) -> Result<i64, Wrong> {
    let decimals = u8::try_from(unit.decimals()).or(Err(Wrong::Number))?;
    let us = number.units(decimals)?;
    Ok(if unit == LatencyUnit::Ns { us / 1000 } else { us })
}

/// Plain digits with no more decimals than count; none for all else.
fn fast_us(number: &[u8], unit: LatencyUnit) -> Option<i64> {
    if number.is_empty() || number.len() > FAST_BYTES_MAX || unit == LatencyUnit::Ns {
        return None;
    }
    let (mut sum, mut point) = (0_i64, None);
    for (at, byte) in number.iter().enumerate() {
        match byte {
            b'0'..=b'9' => sum = sum.wrapping_mul(10).wrapping_add(i64::from(byte & 0x0f)),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let decimals = match point {
        Some(at) => number.len().checked_sub(at)?.checked_sub(1)?,
        None => 0,
    };
    let digits = number.len().checked_sub(usize::from(point.is_some()))?;
    if digits == 0 {
        return None;
    }
    let shift = unit.decimals().checked_sub(decimals)?;
    const POWERS: [i64; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    sum.checked_mul(*POWERS.get(shift)?)
}

/// A whole value, see [`list_us`].
pub(crate) fn sum_us(value: &[u8], unit: LatencyUnit) -> Result<Option<i64>, Wrong> {
    let is_list = value.iter().any(|byte| matches!(byte, b' ' | b','));
    match value {
        b"" | b"-" => Ok(None),
        _ if is_list => list_us(value, unit, <[u8]>::is_empty)?.0,
        _ => latency_us(value, unit).map(Some),
    }
}

/// What a list comes to; the error is that of a number out of range.
type Sum = Result<Option<i64>, Wrong>;

/// `0.100, 2.200 : 0.050` is what three upstreams took one after the other, `-` is one that was not asked.
///
/// The longest such list behind which the value can end, and how many bytes it has.
pub(crate) fn list_us(rest: &[u8], unit: LatencyUnit, is_end: impl Fn(&[u8]) -> bool) -> Result<(Sum, usize), Wrong> {
    let (mut sum, mut from, mut longest) = (Ok(None), 0_usize, None);
    for _upstream in 0..UPSTREAMS_MAX {
        let part = rest.get(from..).unwrap_or_default();
        let (number, behind) = part.split_at_checked(number_bytes(part)).unwrap_or_default();
        sum = match number {
            b"" | b"-" => sum,
            number => match latency_us(number, unit) {
                Err(Wrong::Syntax) => break,
                us => sum.and_then(|sum: Option<i64>| Ok(Some(sum.unwrap_or(0).saturating_add(us?)))),
            },
        };
        let end = from.saturating_add(number.len());
        if is_end(behind) {
            longest = Some((sum, end));
        }
        from = match behind {
            [b',', b' ', ..] => end.saturating_add(2),
            [b' ', b':', b' ', ..] => end.saturating_add(3),
            _ => break,
        };
    }
    longest.ok_or(Wrong::Syntax)
}

/// How many bytes could be a number.
fn number_bytes(part: &[u8]) -> usize {
    let sign = usize::from(part.first() == Some(&b'-'));
    let digits = part
        .iter()
        .skip(sign)
        .take_while(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    sign.saturating_add(digits.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use LatencyUnit::{Ms, Ns, S, Us};

    #[test]
    fn each_unit_comes_to_microseconds() {
        for (number, unit, us) in [
            ("0.213", S, 213_000),
            ("16", S, 16_000_000),
            ("0.0000004", S, 0),
            ("0.0000005", S, 1),
            ("1e-3", S, 1_000),
            ("212.5", Ms, 212_500),
            ("15", Ms, 15_000),
            ("2309", Us, 2_309),
            ("2309.6", Us, 2_310),
            ("1327000", Ns, 1_327),
            (".5", S, 500_000),
            ("5.", S, 5_000_000),
            ("86400", S, 86_400_000_000),
        ] {
            assert_eq!(latency_us(number.as_bytes(), unit), Ok(us), "{number}");
        }
        for number in ["-1", "86401", "99999999999999999999"] {
            assert_eq!(latency_us(number.as_bytes(), S), Err(Wrong::Number), "{number}");
        }
        for number in ["", "-", ".", "fast", "1.2.3", "\u{ff11}"] {
            assert_eq!(latency_us(number.as_bytes(), S), Err(Wrong::Syntax), "{number}");
        }
    }

    #[test]
    fn upstreams_are_added_up() {
        for (value, us) in [
            ("0.100, 2.200 : 0.009", Some(2_309_000)),
            ("-, 0.5", Some(500_000)),
            ("- : -", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(sum_us(value.as_bytes(), S), Ok(us), "{value}");
        }
        assert_eq!(sum_us(b"0.1, slow", S), Err(Wrong::Syntax));
        assert_eq!(sum_us(b"0.1 0.2", S), Err(Wrong::Syntax));
        assert_eq!(sum_us(b"0.1, 90000", S), Err(Wrong::Number));
    }

    #[test]
    fn a_list_ends_where_the_next_value_begins() {
        let list = |rest: &[u8]| list_us(rest, S, |behind| behind.starts_with(b" ") || behind.is_empty());
        for (rest, us, bytes) in [
            ("0.213 512 51200", Some(213_000), 5),
            ("0.1, 0.2 : 0.3 9", Some(600_000), 14),
            ("0.1 : - 9", Some(100_000), 7),
            ("0.1 :  9", Some(100_000), 6),
            ("0.5 : up", Some(500_000), 3),
        ] {
            assert_eq!(list(rest.as_bytes()), Ok((Ok(us), bytes)), "{rest}");
        }
        assert_eq!(list(b"0.1s"), Err(Wrong::Syntax));
        assert_eq!(list("1, ".repeat(100_000).as_bytes()), Err(Wrong::Syntax));
    }
}
