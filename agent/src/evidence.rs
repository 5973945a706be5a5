//! What a person needs to believe a finding, in one line: what was seen, what was expected, between which values, and for
//! which hour of the week.
//!
//! In: numbers in the unit of the metric. Out: text in plain English, the numbers with two or three digits that matter.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A value beside what was expected of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Evidence<'a> {
    /// What is measured, such as `checkout p95`.
    pub(crate) what: &'a str,
    /// As of OpenTelemetry, such as `ms` or `{transaction}`.
    pub(crate) unit: &'a str,
    pub(crate) actual: f64,
    pub(crate) expected: f64,
    /// Where nine of ten windows are.
    pub(crate) band: Option<(f64, f64)>,
    pub(crate) time_ms: u64,
}

impl Evidence<'_> {
    /// `checkout p95 7.1 s, expected 1.3 s (90 % between 1.1 and 1.6) for Monday 11:30`
    pub(crate) fn sentence(&self, zone: &TimeZone) -> String {
        let unit = shown_unit(self.unit);
        let what = if self.what.is_empty() {
            String::new()
        } else {
            format!("{} ", self.what)
        };
        let (actual, expected) = (short(self.actual), short(self.expected));
        let band = self.band.map_or(String::new(), |(lower, upper)| {
            format!(" (90 % between {} and {})", short(lower), short(upper))
        });
        let when = hour_of_week(self.time_ms, zone);
        format!("{what}{actual}{unit}, expected {expected}{unit}{band} for {when}")
    }
}

/// `38 fewer than expected`; nothing when it would be none.
pub(crate) fn difference(actual: f64, expected: f64) -> Option<String> {
    let missing = expected - actual;
    let text = short(missing.abs());
    (text != "0").then(|| format!("{text} {} than expected", if missing > 0.0 { "fewer" } else { "more" }))
}

/// `Monday 11:30`
pub(crate) fn hour_of_week(time_ms: u64, zone: &TimeZone) -> String {
    local(time_ms, zone).strftime("%A %H:%M").to_string()
}

pub(crate) fn local(time_ms: u64, zone: &TimeZone) -> jiff::Zoned {
    let time = i64::try_from(time_ms).ok();
    let time = time
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default();
    time.to_zoned(zone.clone())
}

/// Three digits that matter, and whole numbers whole: 7.1, 0.0312, 48, 12345.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if !(1e-9..100.0).contains(&size) => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 6,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Units in braces are words for people who know the metric: its name says them already.
fn shown_unit(unit: &str) -> String {
    match unit {
        "" | "1" => String::new(),
        _ if unit.starts_with('{') => String::new(),
        _ => format!(" {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_was_seen_and_what_was_expected_for_which_hour() {
        let evidence = Evidence {
            what: "checkout p95",
            unit: "s",
            actual: 7.1,
            expected: 1.301,
            band: Some((1.1, 1.6)),
            time_ms: 1_772_447_400_000,
        };
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(
            evidence.sentence(&zone),
            "checkout p95 7.1 s, expected 1.3 s (90 % between 1.1 and 1.6) for Monday 11:30"
        );
        let sales = Evidence {
            unit: "{transaction}",
            band: None,
            ..evidence
        };
        assert!(sales.sentence(&zone).starts_with("checkout p95 7.1, expected 1.3 for"));
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        let cases = [
            (0.0, "0"),
            (-0.0001, "-0.0001"),
            (12_345.6, "12346"),
            (48.04, "48"),
            (0.5, "0.5"),
            (1.25, "1.25"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!(difference(2.0, 40.0).as_deref(), Some("38 fewer than expected"));
        assert_eq!(difference(40.0, 2.0).as_deref(), Some("38 more than expected"));
        assert_eq!(difference(2.0, 2.0), None);
    }
}
