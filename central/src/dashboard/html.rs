//! Text for HTML: escaped, and numbers as people write them.

use crate::currency;

/// Text from outside, harmless between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Whole units with thousands marked, the sign first: a price of tens of thousands needs no cents.
pub(super) fn money(minor: i64, currency: &str) -> String {
    let unit = 10_u64.pow(u32::from(currency::decimals(currency)));
    let units = minor.unsigned_abs().saturating_add(unit / 2) / unit;
    let sign = if minor < 0 && units > 0 { "−" } else { "" };
    format!("{sign}{}\u{a0}{}", grouped(units), escape(currency))
}

/// Thousands marked by a thin space.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `1 store`, `2 stores`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_name_cannot_become_markup() {
        assert_eq!(
            escape("<img src=x onerror='1'>"),
            "&lt;img src=x onerror=&#39;1&#39;&gt;"
        );
    }

    #[test]
    fn money_is_rounded_and_grouped() {
        assert_eq!(money(2_431_049, "EUR"), "24\u{202f}310\u{a0}EUR");
        assert_eq!(money(-99_951, "EUR"), "−1\u{202f}000\u{a0}EUR");
        assert_eq!(money(2_431_049, "JPY"), "2\u{202f}431\u{202f}049\u{a0}JPY");
        assert_eq!(money(2_431_500, "KWD"), "2\u{202f}432\u{a0}KWD");
        assert_eq!(money(12, "EUR"), "0\u{a0}EUR");
    }
}
