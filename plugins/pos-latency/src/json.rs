//! JSON lines: the settings name the fields.

use std::borrow::Cow;

use tillwatch_sdk::parse::{FieldMap, Offset, Value, Wrong};

use crate::line::{Request, latency_us, status};
use crate::{LatencyUnit, Settings};

/// Reads JSON lines.
pub(crate) struct Json {
    /// Time, target, status, latency.
    fields: FieldMap<4>,
    unit: LatencyUnit,
    local: Offset,
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
            unit: settings.latency_unit,
            local: settings.time_zone,
        }
    }

    pub(crate) fn read<'a>(&self, line: &'a [u8]) -> Result<Request<'a>, Wrong> {
        let [time, target, code, latency] = self.fields.read(line)?;
        Ok(Request {
            time_ms: time.ok_or(Wrong::Missing)?.time_ms(self.local)?,
            target: match target {
                Some(Value::Text(target)) => target,
                _ => Cow::Borrowed(""),
            },
            status: code.map(|code| status(code.decimal()?.whole()?)).transpose()?,
            latency_us: latency
                .map(|latency| latency_us(latency.decimal()?, self.unit))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(settings: &Settings, line: &'a str) -> Result<Request<'a>, Wrong> {
        Json::new(settings).read(line.as_bytes())
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
            target: "/pay".into(),
            status: Some(503),
            latency_us: Some(12_300),
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
    fn a_line_may_lack_all_but_the_time() {
        let request = read(&settings(), r#"{"time":1795415927,"req":null,"status":null}"#).unwrap();
        assert_eq!((&*request.target, request.status, request.latency_us), ("", None, None));
        assert_eq!(read(&settings(), r#"{"latency":0.5}"#), Err(Wrong::Missing));
    }

    #[test]
    fn wrong_values_say_what_is_wrong() {
        for (line, wrong) in [
            (r#"{"time":"noon","latency":1}"#, Wrong::Time),
            (r#"{"time":1795415927,"latency":-1}"#, Wrong::Number),
            (r#"{"time":1795415927,"latency":86401}"#, Wrong::Number),
            (r#"{"time":1795415927,"latency":true}"#, Wrong::Number),
            (r#"{"time":1795415927,"status":20}"#, Wrong::Number),
            (r#"{"time":1795415927"#, Wrong::Syntax),
        ] {
            assert_eq!(read(&settings(), line), Err(wrong), "{line}");
        }
    }
}
