//! JSON answers without a tree: what pointers name is borrowed from the text, everything else is skipped.
//!
//! Memory does not grow with what an answer holds, and numbers stay text until they are asked for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tillwatch_sdk::parse::{Decimal, Wrong};

/// Steps of a pointer.
const STEPS_MAX: usize = 16;

/// Where a value stands in a document. Source: RFC 6901.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// `/a/0/b`, or one key without a slash; nothing for the whole document.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let steps: Vec<String> = match text.strip_prefix('/') {
            Some(steps) => steps.split('/').map(unescape).collect::<Option<_>>()?,
            None if text.is_empty() => Vec::new(),
            None => vec![text.to_owned()],
        };
        (steps.len() <= STEPS_MAX).then_some(Self(steps))
    }
}

fn unescape(step: &str) -> Option<String> {
    let is_whole = step
        .match_indices('~')
        .all(|(at, _tilde)| matches!(step.as_bytes().get(at.saturating_add(1)), Some(b'0' | b'1')));
    is_whole.then(|| step.replace("~1", "/").replace("~0", "~"))
}

/// Pointers known when the plugin is written.
pub(crate) fn pointers<const N: usize>(texts: [&str; N]) -> [Pointer; N] {
    texts.map(|text| Pointer::parse(text).unwrap_or(Pointer(Vec::new())))
}

/// The JSON at each pointer; `null` counts as absent, and of a repeated key the last counts.
pub(crate) fn find<'a, const N: usize>(json: &'a str, pointers: &[Pointer; N]) -> Result<[Option<&'a str>; N], Wrong> {
    let mut found = [None; N];
    let wanted: Vec<Wanted<'_>> = pointers
        .iter()
        .enumerate()
        .map(|(slot, pointer)| (slot, pointer.0.as_slice()))
        .collect();
    descend(json.trim_ascii(), &wanted, &mut found)?;
    Ok(found)
}

/// A slot and the steps that are left to it.
type Wanted<'w> = (usize, &'w [String]);

/// `json` has been read once already, but for the document itself.
fn descend<'a>(json: &'a str, wanted: &[Wanted<'_>], found: &mut [Option<&'a str>]) -> Result<(), Wrong> {
    for (slot, _steps) in wanted.iter().filter(|(_slot, steps)| steps.is_empty()) {
        if let Some(slot) = found.get_mut(*slot) {
            *slot = Some(json).filter(|json| *json != "null");
        }
    }
    let below: Vec<Wanted<'_>> = wanted
        .iter()
        .filter(|(_slot, steps)| !steps.is_empty())
        .copied()
        .collect();
    if below.is_empty() || !json.starts_with(['{', '[']) {
        return Ok(());
    }
    parse(json, Seek { wanted: &below, found })
}

fn parse<'a, V: Visitor<'a, Value = ()>>(json: &'a str, visitor: V) -> Result<(), Wrong> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_any(visitor).or(Err(Wrong::Syntax))?;
    deserializer.end().or(Err(Wrong::Syntax))
}

struct Seek<'w, 'o, 'a> {
    wanted: &'w [Wanted<'w>],
    found: &'o mut [Option<&'a str>],
}

/// What of the wanted lies behind a step.
fn behind<'w>(wanted: &[Wanted<'w>], is_step: impl Fn(&str) -> bool) -> Vec<Wanted<'w>> {
    let behind = wanted.iter().filter_map(|(slot, steps)| {
        let (first, rest) = steps.split_first()?;
        is_step(first).then_some((*slot, rest))
    });
    behind.collect()
}

impl<'a> Visitor<'a> for Seek<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            let behind = behind(self.wanted, |step| step == key);
            if behind.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                let json = map.next_value::<&'a RawValue>()?.get();
                descend(json, &behind, self.found).map_err(M::Error::custom)?;
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut seq: S) -> Result<(), S::Error> {
        for index in 0_usize.. {
            let behind = behind(self.wanted, |step| is_index(step, index));
            if behind.is_empty() {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
            } else {
                let Some(json) = seq.next_element::<&'a RawValue>()? else {
                    break;
                };
                descend(json.get(), &behind, self.found).map_err(S::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// Without leading zeros. Source: RFC 6901, section 4.
fn is_index(step: &str, index: usize) -> bool {
    let is_plain = step == "0" || !step.starts_with(['0', '+']);
    is_plain && step.parse() == Ok(index)
}

/// Gives each element of an array, or each value of an object with its key.
pub(crate) fn each<'a>(json: &'a str, mut give: impl FnMut(Option<&str>, &'a str)) -> Result<(), Wrong> {
    let json = json.trim_ascii();
    if !json.starts_with(['{', '[']) {
        return Err(Wrong::Syntax);
    }
    parse(json, Each(&mut give))
}

struct Each<'g, 'a>(&'g mut dyn FnMut(Option<&str>, &'a str));

impl<'a> Visitor<'a> for Each<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            (self.0)(Some(&key), map.next_value::<&'a RawValue>()?.get());
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut seq: S) -> Result<(), S::Error> {
        while let Some(json) = seq.next_element::<&'a RawValue>()? {
            (self.0)(None, json.get());
        }
        Ok(())
    }
}

/// A key, borrowed unless it holds escapes.
struct Key;

impl<'a> serde::de::DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
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

/// The text of a string; of a number as written.
pub(crate) fn text(json: &str) -> Option<Cow<'_, str>> {
    if json.starts_with('"') {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        return deserializer.deserialize_str(Key).ok();
    }
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        .then_some(Cow::Borrowed(json))
}

/// A whole number, also in a string. Blank text and negative numbers are how programs write that they do not know.
pub(crate) fn whole(json: Option<&str>) -> Result<Option<i64>, Wrong> {
    units(json, 0)
}

/// A number in multiples of 10^-decimals, as [`whole`].
pub(crate) fn units(json: Option<&str>, decimals: u8) -> Result<Option<i64>, Wrong> {
    let Some(json) = json else { return Ok(None) };
    let text = text(json).ok_or(Wrong::Number)?;
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let number = Decimal::parse(&text)?.units(decimals)?;
    Ok(Some(number).filter(|number| *number >= 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillwatch_sdk::testing::mutated;

    fn at<'a>(pointer: &str, json: &'a str) -> Option<&'a str> {
        let [found] = find(json, &[Pointer::parse(pointer).unwrap()]).unwrap();
        found
    }

    /// The document and most answers. Source: RFC 6901, section 5.
    #[test]
    fn pointers_find_what_the_standard_says() {
        let json = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, expected) in [
            ("", json),
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(at(pointer, json), Some(expected), "{pointer}");
        }
        for absent in ["/foo/2", "/foo/00", "/foo/-", "/foo/+1", "/nope", "/foo/0/x"] {
            assert_eq!(at(absent, json), None, "{absent}");
        }
        assert_eq!(Pointer::parse("/a~2"), None);
        assert_eq!(Pointer::parse(&"/a".repeat(17)), None);
    }

    #[test]
    fn a_key_without_a_slash_is_a_key_and_null_is_absent() {
        assert_eq!(at("depth", r#"{"depth":3}"#), Some("3"));
        assert_eq!(at("depth", r#"{"depth":null}"#), None);
        assert_eq!(at("depth", r#"{"depth":1,"depth":2}"#), Some("2"));
    }

    #[test]
    fn numbers_are_exact_and_blanks_and_negatives_are_unknown() {
        for (json, expected) in [
            ("7", Ok(Some(7))),
            ("\"7\"", Ok(Some(7))),
            ("-1", Ok(None)),
            ("\" \"", Ok(None)),
            ("9007199254740993", Ok(Some(9_007_199_254_740_993))),
            ("18446744073709551615", Err(Wrong::Number)),
            ("true", Err(Wrong::Number)),
            ("[1]", Err(Wrong::Number)),
            ("\"many\"", Err(Wrong::Number)),
        ] {
            assert_eq!(whole(Some(json)), expected, "{json}");
        }
        assert_eq!(whole(None), Ok(None));
        assert_eq!(units(Some("1.25"), 3), Ok(Some(1_250)));
    }

    #[test]
    fn deep_and_wide_documents_cost_no_memory_of_their_own() {
        let deep = format!("{}1{}", "{\"a\":[".repeat(50_000), "]}".repeat(50_000));
        assert!(at("/a/0/a/0", &deep).is_some());
        let mut elements = 0_usize;
        let wide = format!("[{}0]", "[],".repeat(100_000));
        each(&wide, |_key, _json| elements += 1).unwrap();
        assert_eq!(elements, 100_001);
    }

    proptest! {
        /// Against the tree that we do not build.
        #[test]
        fn what_is_found_is_what_a_tree_has(json in tree(), pointer in "(/[ab01]){0,3}") {
            let text = json.to_string();
            let found = at(&pointer, &text).map(|found| serde_json::from_str::<serde_json::Value>(found).unwrap());
            prop_assert_eq!(found.as_ref(), json.pointer(&pointer).filter(|value| !value.is_null()));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,64}") {
            let _refused = find(&text, &pointers(["/a/b", "/0", ""])).is_err();
            let _refused = each(&text, |_key, json| assert!(whole(Some(json)) != Ok(Some(-1)))).is_err();
        }
    }

    fn tree() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i32>().prop_map(serde_json::Value::from),
            "[ab\"\\\\é]{0,3}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[ab01]", inner, 0..3)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn mutated_answers_never_panic() {
        let corpus: [&[u8]; 2] = [
            include_bytes!("../testcases/rabbitmq_all/peers.toml"),
            include_bytes!("../testcases/nats_kinds/peers.toml"),
        ];
        for bytes in mutated(&corpus, 0x9_1502, 2_000) {
            let text = String::from_utf8_lossy(&bytes);
            let _refused = find(&text, &pointers(["/items", "/account_details/0"])).is_err();
        }
    }
}
