//! Amounts as people and mainframes write them: `1.234,50`, `12.50-`, `12,-`, `($5.00)`, `000001999` with two decimals
//! implied.

use serde::Deserialize;
use tillwatch_sdk::parse::{Decimal, Wrong};

use crate::currency::Currency;

/// What stands before the decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum DecimalMark {
    #[default]
    #[serde(rename = ".")]
    Point,
    #[serde(rename = ",")]
    Comma,
}

/// The minus of typesetters, in its shapes.
const MINUSES: [char; 3] = ['\u{2212}', '\u{2013}', '\u{2014}'];
/// Signs or letters of a unit, such as `EUR`.
const UNIT_CHARS_MAX: usize = 3;

/// An amount of money, with or without its unit: `$1,234.50`, `(5.00)`, `12,50 kr.`, `12.50CR`.
///
/// # Errors
/// [`Wrong::Number`] when it is none, [`Wrong::Currency`] when its unit is of another currency.
pub(crate) fn amount(text: &str, mark: DecimalMark, currency: &Currency) -> Result<Decimal, Wrong> {
    parse(text, mark).or_else(|_| dressed(text, mark, currency))
}

fn dressed(text: &str, mark: DecimalMark, currency: &Currency) -> Result<Decimal, Wrong> {
    let plain = text.replace(MINUSES, "-");
    let text = trimmed(&plain);
    let in_brackets = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let text = in_brackets.unwrap_or(text);
    let (is_minus, text) = match text.strip_prefix('-') {
        Some(text) => (true, trimmed(text)),
        None => (false, text),
    };
    let (unit, text) = without_unit(text);
    let is_credit = unit.eq_ignore_ascii_case("cr");
    if !is_credit && !currency.has_unit(unit) {
        return Err(Wrong::Currency);
    }
    match [in_brackets.is_some(), is_minus, is_credit]
        .iter()
        .filter(|minus| **minus)
        .count()
    {
        0 => parse(text, mark),
        // With a second sign it is no number.
        1 => parse(&format!("-{text}"), mark),
        _ => Err(Wrong::Number),
    }
}

/// The unit, before or behind the digits, and what is left; no more than one.
fn without_unit(text: &str) -> (&str, &str) {
    let is_unit = |char: char| char.is_alphabetic() || "$\u{20ac}\u{a3}\u{a5}".contains(char);
    let front = text.trim_start_matches(is_unit);
    let (unit, rest) = if front.len() < text.len() {
        let (unit, _) = text.split_at(text.len().saturating_sub(front.len()));
        (unit, front.strip_prefix('.').unwrap_or(front))
    } else {
        let back = text.strip_suffix('.').unwrap_or(text);
        let rest = back.trim_end_matches(is_unit);
        (back.get(rest.len()..).unwrap_or_default(), rest)
    };
    if unit.is_empty() || unit.chars().count() > UNIT_CHARS_MAX {
        return ("", text);
    }
    (unit, trimmed(rest))
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(char::is_whitespace)
}

/// `12,-` has no cents, and a sign only in front.
fn without_dashes(text: &str, mark: DecimalMark) -> Option<&str> {
    let decimal = match mark {
        DecimalMark::Point => '.',
        DecimalMark::Comma => ',',
    };
    let whole = text.trim_end_matches('-');
    let is_dashed = whole.len() < text.len();
    whole.strip_suffix(decimal).filter(|_| is_dashed)
}

/// A number; marks of thousands are only taken where thousands are.
///
/// # Errors
/// [`Wrong::Number`] when it is none.
pub(crate) fn parse(text: &str, mark: DecimalMark) -> Result<Decimal, Wrong> {
    let text = trimmed(text);
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'+'))
        && !text.ends_with('-');
    if mark == DecimalMark::Point && is_plain {
        return Decimal::parse(text);
    }
    let (is_negative, text) = match (without_dashes(text, mark), text.strip_suffix('-')) {
        (Some(whole), _) => (false, whole),
        (None, Some(text)) => (true, text),
        (None, None) => (false, text),
    };
    let plain = without_thousands(text, mark).ok_or(Wrong::Number)?;
    if is_negative && plain.starts_with(['-', '+']) {
        return Err(Wrong::Number);
    }
    Decimal::parse(&if is_negative { format!("-{plain}") } else { plain })
}

/// The last digits of `whole` are decimals.
///
/// # Errors
/// [`Wrong::Number`] when they are too many.
pub(crate) fn implied(whole: i64, decimals: u8) -> Result<Decimal, Wrong> {
    Decimal::parse(&format!("{whole}e-{decimals}"))
}

fn without_thousands(text: &str, mark: DecimalMark) -> Option<String> {
    let (decimal, thousands) = match mark {
        DecimalMark::Point => ('.', [',', '\'', ' ', '\u{a0}', '\u{202f}']),
        DecimalMark::Comma => (',', ['.', '\'', ' ', '\u{a0}', '\u{202f}']),
    };
    let (whole, fraction) = match text.split_once(decimal) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut groups = whole.split(thousands);
    let mut plain = groups.next()?.to_owned();
    let is_grouped = whole.contains(thousands);
    if is_grouped && !(1..=3).contains(&plain.trim_start_matches(['-', '+']).len()) {
        return None;
    }
    for group in groups {
        if group.len() != 3 {
            return None;
        }
        plain.push_str(group);
    }
    if let Some(fraction) = fraction {
        plain.push('.');
        plain.push_str(fraction);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_in_either_notation() {
        for (text, mark, expected) in [
            ("19.99", DecimalMark::Point, Ok(1999)),
            ("1,234.50", DecimalMark::Point, Ok(123_450)),
            ("12.50-", DecimalMark::Point, Ok(-1250)),
            ("1,5", DecimalMark::Point, Err(Wrong::Number)),
            ("1,23,456", DecimalMark::Point, Err(Wrong::Number)),
            ("19,99", DecimalMark::Comma, Ok(1999)),
            ("1.234,50", DecimalMark::Comma, Ok(123_450)),
            ("1 234,50", DecimalMark::Comma, Ok(123_450)),
            ("1'234'567,5", DecimalMark::Comma, Ok(123_456_750)),
            ("-1.234,5", DecimalMark::Comma, Ok(-123_450)),
            ("-0,19", DecimalMark::Comma, Ok(-19)),
            ("19.99", DecimalMark::Comma, Err(Wrong::Number)),
            ("7", DecimalMark::Comma, Ok(700)),
            ("--7", DecimalMark::Comma, Err(Wrong::Number)),
            ("-7-", DecimalMark::Comma, Err(Wrong::Number)),
            ("", DecimalMark::Comma, Err(Wrong::Number)),
        ] {
            assert_eq!(
                parse(text, mark).and_then(|number| number.units(2)),
                expected,
                "{text} {mark:?}"
            );
        }
        let units = |whole, decimals| implied(whole, decimals).and_then(|number| number.units(2));
        assert_eq!(units(1999, 2), Ok(1999));
        assert_eq!(units(-19_990, 3), Ok(-1999));
    }
}
