//! nginx's and Apache's common and combined formats, and the same with `name=value` fields behind.
//!
//! ```text
//! 10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] "POST /pay HTTP/1.1" 200 1401 "-" "till-02" rt=2.321 urt=0.1, 2.2
//! ```
//! Quoted parts may hold anything, also brackets, `rt=` and escaped quotes.

use memchr::{memchr, memchr2};
use tillwatch_sdk::parse::Wrong;

use crate::Settings;
use crate::directives;
use crate::latency::{LatencyUnit, list_us};
use crate::layout::Layout;
use crate::line::{Request, unless_out_of_range};
use crate::times::Times;

/// What all of them have; whatever stands before the time is passed over.
const HEAD: &str = "$remote[$time_local] \"$request\" $status$rest";

/// Reads combined lines.
#[derive(Debug)]
pub(crate) struct Combined {
    head: Layout,
    /// The field that holds the duration and its unit.
    latency: Option<(Vec<u8>, LatencyUnit)>,
}

impl Combined {
    pub(crate) fn without_latency() -> Result<Self, String> {
        let mut head = directives::nginx_layout(HEAD, "", LatencyUnit::Auto)?;
        // What follows the status is read here, or not at all.
        head.steps.pop();
        Ok(Self { head, latency: None })
    }

    pub(crate) fn timed(settings: &Settings) -> Result<Self, String> {
        let field = match settings.field_latency.as_str() {
            "" => "rt",
            field => field,
        };
        Ok(Self {
            latency: Some((
                format!("{field}=").into_bytes(),
                settings.latency_unit.or(LatencyUnit::S),
            )),
            ..Self::without_latency()?
        })
    }

    pub(crate) fn read<'a>(&self, line: &'a [u8], times: &mut Times) -> Result<Request<'a>, Wrong> {
        let (mut request, rest) = self.head.read(line, times)?;
        if let Some((name, unit)) = &self.latency {
            let value = field(rest, name)?.ok_or(Wrong::Missing)?;
            let (us, _) = match value {
                [b'"', value @ ..] => list_us(value, *unit, |behind| behind.starts_with(b"\""))?,
                value => list_us(value, *unit, is_end_of_field)?,
            };
            request.latency_us = unless_out_of_range(us, &mut request.is_out_of_range)?;
        }
        Ok(request)
    }
}

/// Where the value of a field outside quotes begins. `name` ends in `=`.
fn field<'a>(mut rest: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, Wrong> {
    loop {
        match rest {
            [] => return Ok(None),
            [b' ', after @ ..] => rest = after,
            [b'"', inside @ ..] => rest = behind_quote(inside).ok_or(Wrong::Syntax)?,
            _ => match rest.strip_prefix(name) {
                Some(value) => return Ok(Some(value)),
                None => {
                    rest = memchr(b' ', rest)
                        .and_then(|blank| rest.get(blank..))
                        .unwrap_or_default()
                }
            },
        }
    }
}

/// What follows the closing quote. A backslash escapes the next byte.
fn behind_quote(mut inside: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr2(b'"', b'\\', inside)?;
        let is_end = inside.get(at) == Some(&b'"');
        inside = inside.get(at.checked_add(if is_end { 1 } else { 2 })?..)?;
        if is_end {
            return Some(inside);
        }
    }
}

fn is_end_of_field(behind: &[u8]) -> bool {
    matches!(behind, [] | [b' ' | b',', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        r#"10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] "POST /pay?card=1 HTTP/1.1" 200 1401 "-" "till-02""#;

    fn read(line: &str) -> Result<Request<'_>, Wrong> {
        let mut times = Times::new(Settings::default().time_zone);
        Combined::without_latency().unwrap().read(line.as_bytes(), &mut times)
    }

    fn timed(field_latency: &str, line: &str) -> Result<Option<i64>, Wrong> {
        let settings = Settings {
            field_latency: field_latency.to_owned(),
            ..Settings::default()
        };
        let mut times = Times::new(settings.time_zone);
        let request = Combined::timed(&settings).unwrap().read(line.as_bytes(), &mut times)?;
        Ok(request.latency_us)
    }

    #[test]
    fn a_combined_line_has_time_target_and_status() {
        let expected = Request {
            time_ms: 1_795_415_927_000,
            target: b"/pay?card=1".into(),
            status: Some(200),
            ..Request::default()
        };
        assert_eq!(read(HEAD), Ok(expected));
    }

    #[test]
    fn a_timed_line_has_the_duration_of_the_named_field() {
        let line = format!("{HEAD} rt=2.321 uct=0.000 uht=2.309 urt=0.100, 2.200 : 0.009");
        assert_eq!(timed("", &line), Ok(Some(2_321_000)));
        assert_eq!(timed("urt", &line), Ok(Some(2_309_000)));
        assert_eq!(timed("nothing", &line), Err(Wrong::Missing));
        assert_eq!(timed("", &format!("{HEAD} rt=\"0.5\"")), Ok(Some(500_000)));
        assert_eq!(timed("urt", &format!("{HEAD} rt=0.000 urt=-")), Ok(None));
        assert_eq!(timed("", &format!("{HEAD} rt=-0.1")), Ok(None));
        assert_eq!(timed("", &format!("{HEAD} rt=fast")), Err(Wrong::Syntax));
    }

    #[test]
    fn what_stands_behind_the_duration_is_not_part_of_it() {
        for behind in ["512 51200", "\"Mozilla/5.0 (till-02)\"", "a till", "urt=9"] {
            let line = format!("{HEAD} rt=0.213 {behind}");
            assert_eq!(timed("", &line), Ok(Some(213_000)), "{line}");
            let line = format!("{HEAD} rt=\"0.113, 0.1\" {behind}");
            assert_eq!(timed("", &line), Ok(Some(213_000)), "{line}");
        }
        assert_eq!(timed("", &format!("{HEAD} rt=0.213, urt=9")), Ok(Some(213_000)));
    }

    #[test]
    fn quoted_parts_may_hold_what_looks_like_fields() {
        let line = r#"10.0.0.7 - a[b] c] [23/Nov/2026:06:38:47 +0000] "GET /x\" HTTP/1.1" 502 0 "rt=9" "a \" rt=8 \\ rt=7 b" rt=0.25"#;
        assert_eq!(timed("", line), Ok(Some(250_000)));
        let request = read(line).unwrap();
        assert_eq!((&*request.target, request.status), (&b"/x\\\""[..], Some(502)));
    }

    #[test]
    fn a_request_that_is_none_has_no_target() {
        for (request, target) in [
            ("-", ""),
            ("", ""),
            (r"\x16\x03\x01\x02", ""),
            ("GET /", "/"),
            ("GET /a b HTTP/1.1", "/a b"),
            ("GET / HTTP/2.0", "/"),
            (r#"GET /\" 200 7 HTTP/1.1"#, r#"/\" 200 7"#),
        ] {
            let line = format!("::1 - - [23/Nov/2026:06:38:47 +0000] \"{request}\" 400 0 \"-\" \"-\"");
            assert_eq!(read(&line).unwrap().target, target.as_bytes(), "{request}");
        }
    }

    #[test]
    fn common_lines_and_lines_of_virtual_hosts_are_read_too() {
        for line in [
            r#"fe80::1%eth0 - frank [23/Nov/2026:06:38:47 +0000] "GET /pay HTTP/1.0" 200 2326"#,
            r#"till.store.example:443 10.0.0.7 - - [23/Nov/2026:06:38:47 +0000] "GET /pay HTTP/1.0" 200 2326 "-" "-""#,
            r#"- - - [23/Nov/2026:06:38:47 +0000] "GET /pay HTTP/1.0" 200 -"#,
        ] {
            assert_eq!(read(line).unwrap().target, b"/pay".as_slice(), "{line}");
        }
        let line = r#"- - - [23/Nov/2026:06:38:47 +0000] "GET /pay" 009 0 "-" "-""#;
        assert_eq!(read(line).unwrap().status, None);
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, wrong) in [
            ("", Wrong::Syntax),
            ("hello", Wrong::Syntax),
            ("- [23/Now/2026:06:38:47 +0000] \"GET / HTTP/1.1\" 200 1", Wrong::Time),
            ("- [23/Nov/2026:06:38:47 +0000] \"GET /", Wrong::Syntax),
            ("- [23/Nov/2026:06:38:47 +0000] GET / 200", Wrong::Syntax),
            ("- [23/Nov/2026:06:38:47 +0000] \"GET / HTTP/1.1\" OK 1", Wrong::Syntax),
            (
                "- [23/Nov/2026:06:38:47 +0000] \"GET / HTTP/1.1\" 9999 1",
                Wrong::Syntax,
            ),
        ] {
            assert_eq!(read(line), Err(wrong), "{line}");
        }
    }

    #[test]
    fn a_status_out_of_range_costs_itself_alone() {
        let request = read("- [23/Nov/2026:06:38:47 +0000] \"GET /pay HTTP/1.1\" 999 1").unwrap();
        assert_eq!((&*request.target, request.status), (&b"/pay"[..], None));
        assert!(request.is_out_of_range);
    }
}
