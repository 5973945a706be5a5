//! JSON lines: the settings name the fields.
//!
//! nginx writes what is no JSON: without `escape=json` a quote becomes `\x22`, and with it bytes that are no UTF-8 stay.

use std::borrow::Cow;

use tillwatch_sdk::parse::{Decimal, FieldMap, Offset, Value, Wrong};

use crate::Settings;
use crate::latency::{LatencyUnit, sum_us};
use crate::line::{Request, status_or_none, unless_out_of_range};
use crate::times::Times;

/// Reads JSON lines.
#[derive(Debug)]
pub(crate) struct Json {
    /// Time, target, status, latency.
    fields: FieldMap<4>,
    unit: LatencyUnit,
}

impl Json {
    pub(crate) fn new(settings: &Settings) -> Self {
        let latency = if settings.field_latency.is_empty() {
            "latency"
        } else {
            &settings.field_latency
        };
        Self {
            fields: FieldMap::new([
                &settings.field_time,
                &settings.field_route,
                &settings.field_status,
                latency,
            ]),
            unit: settings.latency_unit.or(LatencyUnit::S),
        }
    }

    /// None for a line that holds nothing of a request, such as a program's own message.
    pub(crate) fn read<'a>(&self, line: &'a [u8], times: &mut Times) -> Result<Option<Request<'a>>, Wrong> {
        let values = match self.fields.read(line) {
            Err(wrong) => {
                let mended = mended(line).ok_or(wrong)?;
                let values = self.fields.read(mended.as_bytes()).or(Err(wrong))?;
                return Ok(self.request(values, times)?.map(Request::into_owned));
            }
            Ok(values) => values,
        };
        self.request(values, times)
    }

    fn request<'a>(&self, values: [Option<Value<'a>>; 4], times: &mut Times) -> Result<Option<Request<'a>>, Wrong> {
        let [time, target, code, latency] = values;
        if target.is_none() && code.is_none() && latency.is_none() {
            return Ok(None);
        }
        let mut request = Request {
            time_ms: time_ms(&time.ok_or(Wrong::Missing)?, times)?,
            target: match target {
                Some(Value::Text(Cow::Borrowed(target))) => Cow::Borrowed(target.as_bytes()),
                Some(Value::Text(Cow::Owned(target))) => Cow::Owned(target.into_bytes()),
                _ => Cow::Borrowed(b""),
            },
            ..Request::default()
        };
        let code = code.map_or(Ok(None), |code| code_of(&code));
        let latency = latency.map_or(Ok(None), |latency| self.latency_us(&latency));
        request.status = unless_out_of_range(code, &mut request.is_out_of_range)?;
        request.latency_us = unless_out_of_range(latency, &mut request.is_out_of_range)?;
        Ok(Some(request))
    }

    fn latency_us(&self, latency: &Value<'_>) -> Result<Option<i64>, Wrong> {
        match latency {
            Value::Text(text) => sum_us(text.as_bytes(), self.unit),
            Value::Number(number) => sum_us(number.as_bytes(), self.unit),
            Value::Bool(_) | Value::Nested => Err(Wrong::Syntax),
        }
    }
}

/// The line as JSON when its server wrote escapes or bytes that are none of JSON's.
fn mended(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(line.len());
    let mut rest = &*text;
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        // A backslash may itself be escaped.
        let escaped = escape.chars().next()?;
        match escaped {
            'x' => out.push_str("\\u00"),
            other => out.extend(['\\', other]),
        }
        rest = escape.get(escaped.len_utf8()..)?;
    }
    out.push_str(rest);
    (out.as_bytes() != line).then_some(out)
}

fn time_ms(time: &Value<'_>, times: &mut Times) -> Result<u64, Wrong> {
    match time {
        Value::Text(text) => times.read(text.as_bytes()),
        _ => time.time_ms(Offset::default()),
    }
}

/// A number or a text; nothing where a server has none to write.
fn code_of(code: &Value<'_>) -> Result<Option<u16>, Wrong> {
    let text = code.as_text().unwrap_or_default().as_bytes();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(status) = status_or_none(text) {
        return Ok(status);
    }
    let number = code.decimal().and_then(Decimal::whole).or(Err(Wrong::Syntax))?;
    let status = u16::try_from(number).ok().filter(|status| (100..600).contains(status));
    status.map(Some).ok_or(Wrong::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(settings: &Settings, line: &'a str) -> Result<Request<'a>, Wrong> {
        read_bytes(settings, line.as_bytes()).map(Option::unwrap_or_default)
    }

    fn read_bytes<'a>(settings: &Settings, line: &'a [u8]) -> Result<Option<Request<'a>>, Wrong> {
        Json::new(settings).read(line, &mut Times::new(settings.time_zone))
    }

    fn settings() -> Settings {
        Settings {
            field_route: "req.uri".to_owned(),
            field_status: "status".to_owned(),
            ..Settings::default()
        }
    }

    #[test]
    fn the_fields_are_where_the_settings_say() {
        let line = r#"{"time":"2026-11-23T06:38:47Z","req":{"uri":"/pay"},"status":"503","latency":0.0123}"#;
        let expected = Request {
            time_ms: 1_795_415_927_000,
            target: b"/pay".into(),
            status: Some(503),
            latency_us: Some(12_300),
            ..Request::default()
        };
        assert_eq!(read(&settings(), line), Ok(expected));
    }

    #[test]
    fn milliseconds_are_a_setting() {
        let settings = Settings {
            latency_unit: LatencyUnit::Ms,
            ..settings()
        };
        let request = read(&settings, r#"{"time":1795415927,"latency":212.5}"#).unwrap();
        assert_eq!(request.latency_us, Some(212_500));
    }

    #[test]
    fn nanoseconds_lists_and_what_a_server_leaves_empty_are_read() {
        let settings = Settings {
            latency_unit: LatencyUnit::Ns,
            ..settings()
        };
        let request = read(&settings, r#"{"time":1795415927,"latency":212500000}"#).unwrap();
        assert_eq!(request.latency_us, Some(212_500));
        let line = r#"{"time":"2026-11-23T06:38:47","status":"000","latency":"0.1, 0.2 : 0.3"}"#;
        let request = read(&super::tests::settings(), line).unwrap();
        assert_eq!((request.status, request.latency_us), (None, Some(600_000)));
        let request = read(
            &super::tests::settings(),
            r#"{"time":1795415927,"status":"","latency":"-"}"#,
        )
        .unwrap();
        assert_eq!((request.status, request.latency_us), (None, None));
    }

    #[test]
    fn a_line_may_lack_all_but_the_time_and_one_value() {
        let request = read(&settings(), r#"{"time":1795415927,"req":null,"status":200}"#).unwrap();
        assert_eq!(
            (&*request.target, request.status, request.latency_us),
            (&b""[..], Some(200), None)
        );
        assert_eq!(read(&settings(), r#"{"latency":0.5}"#), Err(Wrong::Missing));
    }

    /// A heartbeat in a till's own log once hid that no request came any more.
    #[test]
    fn a_line_with_nothing_of_a_request_is_none() {
        for line in [
            &br#"{"time":1795415927,"event":"reload"}"#[..],
            br#"{"event":"reload"}"#,
            br#"{"time":"","status":null,"text":"a \x22b"}"#,
        ] {
            assert_eq!(read_bytes(&settings(), line), Ok(None));
        }
    }

    #[test]
    fn what_nginx_escapes_or_leaves_costs_no_request() {
        for line in [
            &br#"{"time":1795415927,"ua":"a \x22b\x22 \xC3\xA9","req":{"uri":"/pay"},"latency":0.2}"#[..],
            b"{\"time\":1795415927,\"ua\":\"\xe9t\xe9\",\"req\":{\"uri\":\"/pay\"},\"latency\":0.2}",
            b"{\"time\":1795415927,\"ua\":\"\\\\x \\x5C \xff\",\"req\":{\"uri\":\"/pay\"},\"latency\":0.2}",
        ] {
            let shown = String::from_utf8_lossy(line);
            let request = read_bytes(&settings(), line).unwrap().unwrap();
            assert_eq!(
                (&*request.target, request.latency_us),
                (&b"/pay"[..], Some(200_000)),
                "{shown}"
            );
        }
        for (line, wrong) in [
            (&b"\xff\xfe"[..], Wrong::Encoding),
            (br#"{"time":1,"ua":"\x2"#, Wrong::Syntax),
            (br#"{"time":1,"ua":"\"#, Wrong::Syntax),
        ] {
            assert_eq!(read_bytes(&settings(), line), Err(wrong));
        }
    }

    #[test]
    fn wrong_values_say_what_is_wrong() {
        for (line, wrong) in [
            (r#"{"time":"noon","latency":1}"#, Wrong::Time),
            (r#"{"time":1795415927,"latency":"fast"}"#, Wrong::Syntax),
            (r#"{"time":1795415927,"latency":true}"#, Wrong::Syntax),
            (r#"{"time":1795415927,"status":"OK"}"#, Wrong::Syntax),
            (r#"{"time":1795415927"#, Wrong::Syntax),
        ] {
            assert_eq!(read(&settings(), line), Err(wrong), "{line}");
        }
    }

    #[test]
    fn a_value_out_of_range_costs_itself_alone() {
        for line in [
            r#"{"time":1795415927,"latency":-1,"status":200}"#,
            r#"{"time":1795415927,"latency":"86401","status":200}"#,
            r#"{"time":1795415927,"latency":"0.1, 90000","status":200}"#,
        ] {
            let request = read(&settings(), line).unwrap();
            assert!(request.is_out_of_range, "{line}");
            assert_eq!((request.status, request.latency_us), (Some(200), None), "{line}");
        }
        let request = read(&settings(), r#"{"time":1795415927,"latency":0.5,"status":20}"#).unwrap();
        assert!(request.is_out_of_range);
        assert_eq!((request.status, request.latency_us), (None, Some(500_000)));
    }
}
