//! nginx's and Apache's combined format, and the same with `name=value` fields behind it.
//!
//! ```text
//! 10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] "POST /pay HTTP/1.1" 200 1401 "-" "till-02" rt=2.321 urt=0.1, 2.2
//! ```
//! Quoted parts may hold anything, also brackets, `rt=` and escaped quotes.

use std::borrow::Cow;

use tillwatch_sdk::parse::{Decimal, Offset, Wrong, text, time_ms};

use crate::line::{Request, latency_us, status};
use crate::{LatencyUnit, Settings};

/// `23/Nov/2026:06:38:47 +0000`.
const TIME_BYTES: usize = 26;

/// Reads combined lines.
pub(crate) struct Combined {
    /// The field that holds the duration and its unit.
    latency: Option<(String, LatencyUnit)>,
}

impl Combined {
    pub(crate) fn without_latency() -> Self {
        Self { latency: None }
    }

    pub(crate) fn timed(settings: &Settings) -> Self {
        let field = if settings.field_latency.is_empty() {
            "rt"
        } else {
            &settings.field_latency
        };
        Self {
            latency: Some((field.to_owned(), settings.latency_unit)),
        }
    }

    pub(crate) fn read<'a>(&self, line: &'a [u8]) -> Result<Request<'a>, Wrong> {
        let (time_ms, rest) = time(text(line)?)?;
        let (request, rest) = quoted(rest)?;
        let (code, rest) = token(rest);
        let code: u16 = code.parse().or(Err(Wrong::Syntax))?;
        Ok(Request {
            time_ms,
            target: Cow::Borrowed(target(request)),
            status: Some(status(i64::from(code))?),
            latency_us: self.latency_us(rest)?,
        })
    }

    /// The duration among the fields behind the status.
    fn latency_us(&self, fields: &str) -> Result<Option<i64>, Wrong> {
        let Some((name, unit)) = &self.latency else {
            return Ok(None);
        };
        let value = field(fields, name)?.ok_or(Wrong::Missing)?;
        sum_us(value, *unit)
    }
}

/// The time in brackets, and what follows it. The remote user before it may hold brackets too.
fn time(line: &str) -> Result<(u64, &str), Wrong> {
    for (at, _) in line.match_indices('[') {
        let inside = line.get(at.saturating_add(1)..).unwrap_or_default();
        let Some((time, rest)) = inside.split_at_checked(TIME_BYTES) else {
            continue;
        };
        let Some(rest) = rest.strip_prefix("] ") else { continue };
        if let Ok(time_ms) = time_ms(time, Offset::default()) {
            return Ok((time_ms, rest));
        }
    }
    // A line without any bracket is not of this format at all.
    Err(if line.contains('[') { Wrong::Time } else { Wrong::Syntax })
}

/// The quoted text at the start, and what follows it. A backslash escapes the next byte.
fn quoted(rest: &str) -> Result<(&str, &str), Wrong> {
    let inside = rest.strip_prefix('"').ok_or(Wrong::Syntax)?;
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let rest = inside.get(at.saturating_add(1)..).unwrap_or_default();
                return Ok((inside.get(..at).unwrap_or_default(), rest));
            }
            _ => {}
        }
    }
    Err(Wrong::Syntax)
}

/// The first word and what follows it.
fn token(rest: &str) -> (&str, &str) {
    let rest = rest.trim_start();
    rest.split_once(' ').unwrap_or((rest, ""))
}

/// The path of `POST /pay HTTP/1.1`; empty for what is no request, such as `-` or a TLS hello.
fn target(request: &str) -> &str {
    request.split(' ').nth(1).unwrap_or_default()
}

/// The value of a field outside quotes: up to the next field, as upstream times are lists with blanks.
fn field<'a>(mut rest: &'a str, name: &str) -> Result<Option<&'a str>, Wrong> {
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(None);
        }
        if rest.starts_with('"') {
            (_, rest) = quoted(rest)?;
            continue;
        }
        if let Some(value) = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Ok(Some(until_next_field(value)));
        }
        (_, rest) = token(rest);
    }
}

fn until_next_field(value: &str) -> &str {
    let next = value.find('=').and_then(|equals| value.get(..equals)?.rfind(' '));
    next.and_then(|end| value.get(..end)).unwrap_or(value)
}

/// `0.100, 2.200 : 0.050` is what three upstreams took one after the other, `-` is one that was not asked.
fn sum_us(value: &str, unit: LatencyUnit) -> Result<Option<i64>, Wrong> {
    let mut sum = None;
    for part in value
        .split([' ', ',', ':', '"'])
        .filter(|part| !part.is_empty() && *part != "-")
    {
        let us = latency_us(Decimal::parse(part)?, unit)?;
        sum = Some(sum.unwrap_or(0_i64).saturating_add(us));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        r#"10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] "POST /pay?card=1 HTTP/1.1" 200 1401 "-" "till-02""#;

    fn timed(field_latency: &str, line: &str) -> Result<Option<i64>, Wrong> {
        let settings = Settings {
            field_latency: field_latency.to_owned(),
            ..Settings::default()
        };
        Combined::timed(&settings)
            .read(line.as_bytes())
            .map(|request| request.latency_us)
    }

    #[test]
    fn a_combined_line_has_time_target_and_status() {
        let request = Combined::without_latency().read(HEAD.as_bytes()).unwrap();
        let expected = Request {
            time_ms: 1_795_415_927_000,
            target: "/pay?card=1".into(),
            status: Some(200),
            latency_us: None,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_timed_line_has_the_duration_of_the_named_field() {
        let line = format!("{HEAD} rt=2.321 uct=0.000 uht=2.309 urt=0.100, 2.200 : 0.009");
        assert_eq!(timed("", &line), Ok(Some(2_321_000)));
        assert_eq!(timed("urt", &line), Ok(Some(2_309_000)));
        assert_eq!(timed("nothing", &line), Err(Wrong::Missing));
        assert_eq!(timed("", &format!("{HEAD} rt=\"0.5\"")), Ok(Some(500_000)));
        assert_eq!(timed("urt", &format!("{HEAD} rt=0.000 urt=-")), Ok(None));
        assert_eq!(timed("", &format!("{HEAD} rt=-0.1")), Err(Wrong::Number));
        assert_eq!(timed("", &format!("{HEAD} rt=fast")), Err(Wrong::Number));
    }

    #[test]
    fn quoted_parts_may_hold_what_looks_like_fields() {
        let line =
            r#"10.0.0.7 - a[b] c] [23/Nov/2026:06:38:47 +0000] "GET /x\" HTTP/1.1" 502 0 "rt=9" "a \" rt=8 b" rt=0.25"#;
        let request = Combined::timed(&Settings::default()).read(line.as_bytes()).unwrap();
        assert_eq!(
            (&*request.target, request.status, request.latency_us),
            ("/x\\\"", Some(502), Some(250_000))
        );
    }

    #[test]
    fn a_request_that_is_none_has_no_target() {
        for request in ["-", "", r"\x16\x03\x01"] {
            let line = format!("10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] \"{request}\" 400 0 \"-\" \"-\"");
            assert_eq!(Combined::without_latency().read(line.as_bytes()).unwrap().target, "");
        }
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, wrong) in [
            ("", Wrong::Syntax),
            ("hello", Wrong::Syntax),
            ("- [23/Nov/2026:06:38:47] \"GET / HTTP/1.1\" 200 1", Wrong::Time),
            ("- [23/Nov/2026:06:38:47 +0000] \"GET /", Wrong::Syntax),
            ("- [23/Nov/2026:06:38:47 +0000] GET / 200", Wrong::Syntax),
            ("- [23/Nov/2026:06:38:47 +0000] \"GET / HTTP/1.1\" OK 1", Wrong::Syntax),
            ("- [23/Nov/2026:06:38:47 +0000] \"GET / HTTP/1.1\" 999 1", Wrong::Number),
        ] {
            assert_eq!(Combined::without_latency().read(line.as_bytes()), Err(wrong), "{line}");
        }
        assert_eq!(Combined::without_latency().read(b"\xff"), Err(Wrong::Encoding));
    }
}
