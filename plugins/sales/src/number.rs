//! Amounts as people and mainframes write them: `1.234,50`, `12.50-`, `000001999` with two decimals implied.

use serde::Deserialize;
use tillwatch_sdk::parse::{Decimal, Wrong};

/// What stands before the decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum DecimalMark {
    #[default]
    #[serde(rename = ".")]
    Point,
    #[serde(rename = ",")]
    Comma,
}

/// A number; marks of thousands are only taken where thousands are.
///
/// # Errors
/// [`Wrong::Number`] when it is none.
pub(crate) fn parse(text: &str, mark: DecimalMark) -> Result<Decimal, Wrong> {
    let text = text.trim_matches(|char: char| char.is_ascii_whitespace() || char == '\u{a0}');
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'+'))
        && !text.ends_with('-');
    if mark == DecimalMark::Point && is_plain {
        return Decimal::parse(text);
    }
    let (is_negative, text) = match text.strip_suffix('-') {
        Some(text) => (true, text),
        None => (false, text),
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
