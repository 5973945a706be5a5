//! The one door for JSON lines: bytes in, a reading of a queue or what is wrong with the line out.

use tillwatch_sdk::parse::{FieldMap, Offset, Value, Wrong};

use crate::{AgeUnit, Settings};

/// A message that waited longer than a year is a broken line.
const AGE_MS_MAX: i64 = 365 * 86_400_000;

/// Reads the lines.
pub(crate) struct Events {
    /// Time, queue, depth, oldest age.
    fields: FieldMap<4>,
    age_unit: AgeUnit,
    local: Offset,
}

/// What a line says of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) time_ms: u64,
    /// As the line has it: any text.
    pub(crate) queue: Option<String>,
    pub(crate) depth: i64,
    pub(crate) oldest_age_ms: Option<i64>,
}

impl Events {
    pub(crate) fn new(settings: &Settings) -> Self {
        let paths = [
            &settings.field_time,
            &settings.field_queue,
            &settings.field_depth,
            &settings.field_oldest_age,
        ];
        Self {
            fields: FieldMap::new(paths.map(String::as_str)),
            age_unit: settings.age_unit,
            local: settings.time_zone,
        }
    }

    /// Reads one line without its end.
    pub(crate) fn read(&self, line: &[u8]) -> Result<Reading, Wrong> {
        let [time, queue, depth, oldest_age] = self.fields.read(line)?;
        Ok(Reading {
            time_ms: time.ok_or(Wrong::Missing)?.time_ms(self.local)?,
            queue: queue.as_ref().and_then(Value::as_text).map(str::to_owned),
            depth: in_range(depth.ok_or(Wrong::Missing)?.decimal()?.whole()?, i64::MAX)?,
            oldest_age_ms: oldest_age.map(|age| self.age_ms(&age)).transpose()?,
        })
    }

    fn age_ms(&self, age: &Value<'_>) -> Result<i64, Wrong> {
        let age = age.decimal()?;
        let age_ms = match self.age_unit {
            AgeUnit::S => age.units(3)?,
            AgeUnit::Ms => age.units(0)?,
        };
        in_range(age_ms, AGE_MS_MAX)
    }
}

fn in_range(value: i64, most: i64) -> Result<i64, Wrong> {
    if (0..=most).contains(&value) {
        Ok(value)
    } else {
        Err(Wrong::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Reading, Wrong> {
        let settings = Settings {
            field_oldest_age: "age".to_owned(),
            ..Settings::default()
        };
        Events::new(&settings).read(line.as_bytes())
    }

    #[test]
    fn a_reading_has_time_queue_depth_and_age() {
        let expected = Reading {
            time_ms: 1_795_415_927_000,
            queue: Some("mainframe".to_owned()),
            depth: 12,
            oldest_age_ms: Some(90_500),
        };
        assert_eq!(
            read(r#"{"time":1795415927,"queue":"mainframe","depth":12,"age":90.5}"#),
            Ok(expected)
        );
    }

    #[test]
    fn a_line_may_lack_queue_and_age() {
        let reading = read(r#"{"time":1795415927,"depth":"3.0"}"#).unwrap();
        assert_eq!((reading.queue, reading.depth, reading.oldest_age_ms), (None, 3, None));
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, wrong) in [
            (r#"{"queue":"a","depth":1}"#, Wrong::Missing),
            (r#"{"time":1795415927,"queue":"a"}"#, Wrong::Missing),
            (r#"{"time":"soon","depth":1}"#, Wrong::Time),
            (r#"{"time":1795415927,"depth":-1}"#, Wrong::Number),
            (r#"{"time":1795415927,"depth":1.5}"#, Wrong::Number),
            (r#"{"time":1795415927,"depth":1,"age":-1}"#, Wrong::Number),
            (r#"{"time":1795415927,"depth":1,"age":31536001}"#, Wrong::Number),
            ("depth=1", Wrong::Syntax),
        ] {
            assert_eq!(read(line), Err(wrong), "{line}");
        }
    }
}
