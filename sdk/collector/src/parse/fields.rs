//! JSON lines by a field map: which key of a line holds what.
//!
//! A line and the wanted paths come in, the values at these paths go out, borrowed from the line.
//! Numbers stay text, so that money never passes through `f64`; what is not wanted is skipped, not built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Decimal, Wrong, Zone, text, time_ms};

/// The keys of a JSON line that hold the wanted values, in the author's order.
///
/// A path is a key (`time`), or keys joined by dots for objects in objects (`http.response.status`); a key that itself
/// holds the dots is found too. An empty path is a value that the lines do not have.
///
/// ```
/// use tillwatch_sdk::parse::{FieldMap, Value, Wrong};
///
/// let map = FieldMap::new(["time", "http.status", ""]);
/// let [time, status, none] = map.read(br#"{"time":"2026-03-02T11:30:05Z","http":{"status":200}}"#)?;
/// assert_eq!(time.as_ref().and_then(Value::as_text), Some("2026-03-02T11:30:05Z"));
/// assert_eq!(status.map(|status| status.decimal()?.whole()), Some(Ok(200)));
/// assert!(none.is_none());
/// # Ok::<(), Wrong>(())
/// ```
#[derive(Clone, Debug)]
pub struct FieldMap<const N: usize> {
    paths: [String; N],
}

/// The value of a field; `null` counts as absent.
///
/// ```
/// use tillwatch_sdk::parse::{FieldMap, Offset, Value, Wrong};
///
/// let [at, paid] = FieldMap::new(["at", "paid"]).read(br#"{"at":1772451005,"paid":true}"#)?;
/// assert_eq!(at.map(|at| at.time_ms(Offset::default())), Some(Ok(1_772_451_005_000)));
/// assert_eq!(paid.as_ref().and_then(Value::as_text), Some("true"));
/// # Ok::<(), Wrong>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number as written.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// An object or an array.
    Nested,
}

impl<const N: usize> FieldMap<N> {
    /// A map of these paths.
    ///
    /// ```
    /// use tillwatch_sdk::parse::FieldMap;
    ///
    /// // Of two fields of a line, the second within an object.
    /// let map = FieldMap::new(["time", "http.status"]);
    /// assert!(map.read(b"{}").is_ok());
    /// ```
    pub fn new(paths: [&str; N]) -> Self {
        Self {
            paths: paths.map(str::to_owned),
        }
    }

    /// The values of a line, in the order of the paths. Of a repeated key the last counts.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{FieldMap, Wrong};
    ///
    /// let map = FieldMap::new(["till"]);
    /// let [till] = map.read(br#"{"till":"till-1","total":19.99}"#)?;
    /// assert_eq!(till.as_ref().and_then(|till| till.as_text()), Some("till-1"));
    /// assert_eq!(map.read(b"till-1 19.99"), Err(Wrong::Syntax));
    /// # Ok::<(), Wrong>(())
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Encoding`] when the line is not UTF-8, [`Wrong::Syntax`] when it is not one JSON object.
    pub fn read<'a>(&self, line: &'a [u8]) -> Result<[Option<Value<'a>>; N], Wrong> {
        let mut values = std::array::from_fn(|_| None);
        let wanted = std::array::from_fn(|index| {
            self.paths
                .get(index)
                .map(String::as_str)
                .filter(|path| !path.is_empty())
        });
        read_object(text(line)?, &wanted, &mut values)?;
        Ok(values)
    }
}

impl Value<'_> {
    /// The decimal number that this is, or that its text holds.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{FieldMap, Wrong};
    ///
    /// let [total] = FieldMap::new(["total"]).read(br#"{"total":"19.99"}"#)?;
    /// assert_eq!(total.ok_or(Wrong::Missing)?.decimal()?.units(2), Ok(1_999));
    /// # Ok::<(), Wrong>(())
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Number`] when it is none.
    pub fn decimal(&self) -> Result<Decimal, Wrong> {
        match self {
            Self::Number(number) => Decimal::parse(number),
            Self::Text(text) => Decimal::parse(text),
            Self::Bool(_) | Self::Nested => Err(Wrong::Number),
        }
    }

    /// The time that this is, see [`time_ms`].
    ///
    /// ```
    /// use tillwatch_sdk::parse::{FieldMap, Wrong, Zone};
    ///
    /// let [at] = FieldMap::new(["at"]).read(br#"{"at":"02.03.2026 12:30:05"}"#)?;
    /// assert_eq!(at.ok_or(Wrong::Missing)?.time_ms(Zone::parse("Europe/Berlin")?), Ok(1_772_451_005_000));
    /// # Ok::<(), Wrong>(())
    /// ```
    ///
    /// # Errors
    /// [`Wrong::Time`] when it is none.
    pub fn time_ms(&self, local: impl Into<Zone>) -> Result<u64, Wrong> {
        match self {
            Self::Number(number) => time_ms(number, local),
            Self::Text(text) => time_ms(text, local),
            Self::Bool(_) | Self::Nested => Err(Wrong::Time),
        }
    }

    /// The text of a string, number or truth value; none of an object or array.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{FieldMap, Wrong};
    ///
    /// let [paid, items] = FieldMap::new(["paid", "items"]).read(br#"{"paid":true,"items":[1]}"#)?;
    /// assert_eq!(paid.ok_or(Wrong::Missing)?.as_text(), Some("true"));
    /// assert_eq!(items.ok_or(Wrong::Missing)?.as_text(), None);
    /// # Ok::<(), Wrong>(())
    /// ```
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(number),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Nested => None,
        }
    }
}

/// Fills in what an object holds. Goes as deep as the paths do.
fn read_object<'a, const N: usize>(
    json: &'a str,
    wanted: &[Option<&str>; N],
    values: &mut [Option<Value<'a>>; N],
) -> Result<(), Wrong> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer
        .deserialize_map(ObjectVisitor { wanted, values })
        .or(Err(Wrong::Syntax))?;
    deserializer.end().or(Err(Wrong::Syntax))
}

struct ObjectVisitor<'w, 'v, 'a, const N: usize> {
    /// What is left of each path at this depth.
    wanted: &'w [Option<&'w str>; N],
    values: &'v mut [Option<Value<'a>>; N],
}

impl<'a, const N: usize> Visitor<'a> for ObjectVisitor<'_, '_, 'a, N> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let rests = self.wanted.map(|path| rest(path?, &key));
            if rests.iter().all(Option::is_none) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let json = map.next_value::<&'a RawValue>()?.get();
            for (slot, _) in self.values.iter_mut().zip(rests).filter(|(_, rest)| *rest == Some("")) {
                *slot = value(json);
            }
            let below = rests.map(|rest| rest.filter(|rest| !rest.is_empty()));
            if json.starts_with('{') && below.iter().any(Option::is_some) {
                read_object(json, &below, self.values).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// What is left of a path below a key: nothing when the key is where it ends.
fn rest<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    // Most keys differ in the first byte already.
    if path.as_bytes().first() != key.as_bytes().first() {
        return None;
    }
    let rest = path.strip_prefix(key)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix('.')
    }
}

/// A value from its JSON, which the parser has found valid.
fn value(json: &str) -> Option<Value<'_>> {
    match json.as_bytes().first()? {
        b'n' => None,
        b't' => Some(Value::Bool(true)),
        b'f' => Some(Value::Bool(false)),
        b'"' if json.contains('\\') => serde_json::from_str(json)
            .ok()
            .map(|text| Value::Text(Cow::Owned(text))),
        b'"' => json
            .strip_prefix('"')?
            .strip_suffix('"')
            .map(|text| Value::Text(Cow::Borrowed(text))),
        b'{' | b'[' => Some(Value::Nested),
        _ => Some(Value::Number(json)),
    }
}

/// A key, borrowed unless it holds escapes.
struct Key<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Key<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor).map(Key)
    }
}

struct KeyVisitor;

impl<'a> Visitor<'a> for KeyVisitor {
    type Value = Cow<'a, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::mutated;

    fn read<'a, const N: usize>(paths: [&str; N], line: &'a str) -> Result<[Option<Value<'a>>; N], Wrong> {
        FieldMap::new(paths).read(line.as_bytes())
    }

    fn number(text: &str) -> Option<Value<'_>> {
        Some(Value::Number(text))
    }

    #[test]
    fn values_come_in_the_order_of_the_paths() {
        let values = read(
            ["total", "time", "absent", ""],
            r#"{"time":"12:00","x":[1,{"total":2}],"total":19.99}"#,
        );
        assert_eq!(
            values,
            Ok([number("19.99"), Some(Value::Text("12:00".into())), None, None])
        );
    }

    #[test]
    fn a_path_goes_into_objects_and_finds_dotted_keys() {
        let paths = ["http.response.status", "http.method"];
        let expected = Ok([number("200"), Some(Value::Text("GET".into()))]);
        assert_eq!(
            read(paths, r#"{"http":{"response":{"status":200},"method":"GET"}}"#),
            expected
        );
        assert_eq!(
            read(paths, r#"{"http.response.status":200,"http":{"method":"GET"}}"#),
            expected
        );
        assert_eq!(
            read(paths, r#"{"http.response":{"status":200},"http.method":"GET"}"#),
            expected
        );
    }

    #[test]
    fn escapes_are_undone_and_null_is_absent() {
        let values = read(["a", "b", "c"], r#"{"\u0061":"x\"\u00e9","b":null,"c":false}"#);
        assert_eq!(
            values,
            Ok([Some(Value::Text("x\"é".into())), None, Some(Value::Bool(false))])
        );
    }

    #[test]
    fn of_a_repeated_key_the_last_counts() {
        assert_eq!(read(["a"], r#"{"a":1,"a":2}"#), Ok([number("2")]));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for line in [
            "",
            "12",
            "[1]",
            "{",
            r#"{"a":1"#,
            r#"{"a":1}{"a":2}"#,
            r#"{"a":}"#,
            r#"{"a":01}"#,
            "{a:1}",
        ] {
            assert_eq!(read(["a"], line), Err(Wrong::Syntax), "{line}");
        }
        assert_eq!(FieldMap::new(["a"]).read(b"{\"a\":\"\xff\"}"), Err(Wrong::Encoding));
    }

    #[test]
    fn deep_nesting_neither_panics_nor_overflows() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(["a"], &deep), Ok([Some(Value::Nested)]));
        let objects = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
        assert_eq!(read(["a.a.a"], &objects), Ok([Some(Value::Nested)]));
    }

    #[test]
    fn mutated_lines_never_panic() {
        let corpus: [&[u8]; 3] = [
            br#"{"time":"2026-11-23T06:38:47.25Z","a":{"b":19.99,"c":"x\n"},"d":[true,null]}"#,
            br#"{"time":1795415927,"a.b":"12","d":-1.5e3}"#,
            "{\"time\":\"23/Nov/2026:06:38:47 +0000\",\"a\":{\"b\":\"é\\u00e9\"}}".as_bytes(),
        ];
        let map = FieldMap::new(["time", "a.b", "d"]);
        let mut read_well = 0;
        for line in mutated(&corpus, 0x7117, 20_000) {
            let Ok([time, amount, _]) = map.read(&line) else {
                continue;
            };
            read_well += 1;
            std::hint::black_box(time.map(|time| time.time_ms(Zone::default())));
            std::hint::black_box(amount.map(|amount| amount.decimal().and_then(|amount| amount.units(2))));
        }
        assert!(read_well > 1_000, "only {read_well} mutated lines were still JSON");
    }
}
