//! A store's own text made fit for a test case: its shape stays, what it says goes.
//!
//! In: lines or a document. Out: the same with other words and numbers, equal ones equal within one recording.
//! - Words become other letters of the same case, in one of six lengths. Kept are those that the plugin's manifest or
//!   settings name, keys of JSON, names of XML, and [`WORDS`].
//! - Digits become other digits; of up to three the first stays, so that a status or a count keeps its size.
//! - Runs of 13 digits and more, and what the guard takes for a card number, become zeros.
//! - Dates near today and times of day stay: without them a case says nothing.
//!
//! The key is made anew for each recording and kept nowhere, so nobody can try names against what came out.
//! It is no anonymization: a person must read what came out.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use ring::hmac;
use tillwatch_core::guard::Guard;

use super::structure;

/// Formats say these, not people.
const WORDS: [&str; 17] = [
    "true", "false", "null", "get", "post", "put", "delete", "head", "options", "patch", "http", "https", "utc", "amp",
    "lt", "gt", "quot",
];
/// A longer run of digits becomes zeros.
const DIGITS_MAX: usize = 12;
/// Up to so many digits the first one stays.
const SMALL_DIGITS: usize = 3;

pub(super) struct Redactor {
    key: hmac::Key,
    kept: BTreeSet<String>,
    years: RangeInclusive<u16>,
}

impl Redactor {
    /// `kept` are texts whose words stay; `year` is this one.
    pub(super) fn new<'a>(kept: impl Iterator<Item = &'a str>, year: u16, secret: &[u8; 32]) -> Self {
        let words = kept.flat_map(words_of).chain(WORDS.map(str::to_owned));
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            kept: words.collect(),
            years: year - 1..=year + 1,
        }
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let text = without_cards(&structure::decoded(text));
        let kept = structure::kept(&text, &self.years);
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for range in kept {
            self.push_tokens(&text[from..range.start], &mut out);
            out.push_str(&text[range.clone()]);
            from = range.end;
        }
        self.push_tokens(&text[from..], &mut out);
        out
    }

    fn push_tokens(&self, text: &str, out: &mut String) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let kind = Kind::of(first);
            let end = rest.find(|character| Kind::of(character) != kind).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            match kind {
                Kind::Word => out.push_str(&self.word(token)),
                Kind::Digits => out.push_str(&self.number(token)),
                Kind::Other => out.push_str(token),
            }
            rest = after;
        }
    }

    fn word(&self, word: &str) -> String {
        let plain = word.to_lowercase();
        if self.kept.contains(&plain) {
            return word.to_owned();
        }
        let letters = self.noise("word", &plain).map(|noise| char::from(b'a' + noise % 26));
        let other: String = letters.take(length_class(word.chars().count())).collect();
        let mut characters = word.chars();
        let is_capital = characters.next().is_some_and(char::is_uppercase);
        match (is_capital, characters.any(char::is_lowercase)) {
            (false, _) => other,
            (true, true) => other[..1].to_uppercase() + &other[1..],
            (true, false) => other.to_uppercase(),
        }
    }

    fn number(&self, digits: &str) -> String {
        if digits.len() > DIGITS_MAX || digits.bytes().all(|digit| digit == b'0') {
            return "0".repeat(digits.len());
        }
        let is_small = digits.len() <= SMALL_DIGITS;
        let mut other = String::new();
        for (at, (digit, noise)) in digits.chars().zip(self.noise("number", digits)).enumerate() {
            other.push(match (at, digit) {
                (0, '0') => '0',
                (0, first) if is_small => first,
                (0, _) => char::from(b'1' + noise % 9),
                _ => char::from(b'0' + noise % 10),
            });
        }
        other
    }

    /// The same bytes for the same value.
    fn noise(&self, what: &str, value: &str) -> impl Iterator<Item = u8> {
        let tag = hmac::sign(&self.key, format!("{what} {value}").as_bytes());
        let bytes: Vec<u8> = tag.as_ref().to_vec();
        bytes.into_iter().cycle()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Digits,
    Other,
}

impl Kind {
    fn of(character: char) -> Self {
        match character {
            '0'..='9' => Self::Digits,
            // Marks that join with letters, and digits of other scripts.
            _ if character.is_alphanumeric() || !character.is_ascii() => Self::Word,
            _ => Self::Other,
        }
    }
}

/// The words of a text, as tokens of a line are.
fn words_of(text: &str) -> Vec<String> {
    let words = text.split(|character| Kind::of(character) != Kind::Word);
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn length_class(letters: usize) -> usize {
    match letters {
        0..=2 => letters,
        3..=4 => 4,
        5..=8 => 7,
        9..=16 => 12,
        _ => 24,
    }
}

/// Zeros in place of what might be a card number, as the guard of the agent sees it.
fn without_cards(text: &str) -> String {
    let spans: Vec<Range<usize>> = Guard.card_spans(text);
    let zeroed = |(at, character): (usize, char)| {
        let is_card = spans.iter().any(|span| span.contains(&at));
        if is_card && character.is_alphanumeric() {
            '0'
        } else {
            character
        }
    };
    text.char_indices().map(zeroed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        let kept = ["sales.amount", "field_total", "card", "rt"];
        Redactor::new(kept.into_iter(), 2026, &[7; 32])
    }

    #[test]
    fn names_and_numbers_go_and_equal_ones_stay_equal() {
        let line = r#"{"customer":"Anna Schmidt","phone":"0171 5550123","by":"Anna","card":true,"total":19.99}"#;
        let out = redactor().redact(line);
        for secret in ["Anna", "Schmidt", "5550123", "171", ".99"] {
            assert!(!out.contains(secret), "{secret}: {out}");
        }
        for kept in [r#""customer":""#, r#""phone":"0"#, r#""card":true"#, r#""total":1"#] {
            assert!(out.contains(kept), "{kept}: {out}");
        }
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let customer = value["customer"].as_str().unwrap();
        assert_eq!(customer.split(' ').next(), value["by"].as_str(), "{out}");
        assert_eq!(customer.len(), "Anna".len() + 1 + 7, "{out}");
        assert_eq!(redactor().redact(line), out, "the same key gives the same");
        let other = Redactor::new(std::iter::empty(), 2026, &[8; 32]);
        assert_ne!(other.redact(line), out, "another key gives another");
    }

    #[test]
    fn long_runs_of_digits_and_card_numbers_become_zeros() {
        let out = redactor().redact("a 4111111111111111 b 4111 1111 1111 1111 c 1772451000000 d 9999999999999 e");
        let digits: BTreeSet<char> = out.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits, BTreeSet::from(['0']), "{out}");
        let card_in_escapes = r#"{"n":"\u0034111111111111111"}"#;
        assert!(redactor().redact(card_in_escapes).contains("\"0000000000000000\""));
    }

    #[test]
    fn names_that_are_written_in_escapes_are_names_as_well() {
        for text in [
            r#"{"name":"\u0418\u0432\u0430\u043d\u043e\u0432"}"#,
            "/hello/%41nna%53chmidt",
            "<a>&#65;nna</a>",
        ] {
            let out = redactor().redact(text);
            assert!(!out.contains("0418") && !out.contains("Иванов"), "{out}");
            assert!(!out.contains("nna") && !out.contains("chmidt"), "{out}");
        }
    }

    #[test]
    fn dates_near_today_and_times_stay_and_birthdays_go() {
        let kept = [
            "2026-03-02T11:30:05.250+01:00",
            "2026-03-02T11:30:05Z",
            "[02/Mar/2026:11:30:05 +0100]",
            "02.03.26 11:30:05",
        ];
        for time in kept {
            assert_eq!(redactor().redact(time), time);
        }
        for gone in [
            "1985-04-12",
            "12.04.1985",
            "12.04.85",
            "2026-99-99",
            "10.11.26.7",
            "12:34:56:78:9a:bc",
        ] {
            assert_ne!(redactor().redact(gone), gone);
        }
    }

    #[test]
    fn a_document_stays_well_formed_with_the_names_of_its_elements() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<POSLog xmlns=\"http://example.org/ns/\"><Cashier Id=\"K-4711\">M\u{fc}ller &amp; Sohn</Cashier></POSLog>";
        let out = redactor().redact(text);
        let head =
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<POSLog xmlns=\"http://example.org/ns/\"><Cashier Id=\"";
        assert!(out.starts_with(head) && out.ends_with("</Cashier></POSLog>"), "{out}");
        assert!(out.contains(" &amp; "), "{out}");
        for secret in ["4711", "ller", "Sohn"] {
            assert!(!out.contains(secret), "{secret}: {out}");
        }
    }

    #[test]
    fn a_key_that_is_a_name_goes() {
        let out = redactor().redact(r#"{"Anna Schmidt": 3, "total": 4}"#);
        assert!(
            !out.contains("Anna") && !out.contains("Schmidt") && out.contains("\"total\""),
            "{out}"
        );
    }

    #[test]
    fn a_key_that_is_an_address_or_a_number_goes() {
        for key in [
            "anna.schmidt@example.com",
            "0171-5550123",
            "c4711888",
            "4711",
            "K-90123",
            "a@b",
            "+49171",
        ] {
            let out = redactor().redact(&format!(r#"{{"{key}": 3, "@type": 4, "$ref": 5, "v12": 6}}"#));
            assert!(!out.contains(key), "{out}");
            for kept in ["\"@type\"", "\"$ref\"", "\"v12\""] {
                assert!(out.contains(kept), "{out}");
            }
        }
    }

    #[test]
    fn what_stands_between_angle_brackets_is_no_xml_unless_its_tags_balance() {
        for text in [
            "<134>Mar  2 11:30:05 till-3 mail from <anna.schmidt@example.com>",
            "<anna.schmidt@example.com>",
            "<schmidt> sent by <anna>",
            "<a>anna</b><schmidt></schmidt>",
            "<schmidt anna>",
        ] {
            let out = redactor().redact(text);
            assert!(!out.contains("anna") && !out.contains("schmidt"), "{out}");
        }
        let text = "<Note to='a>b'><!-- <anna>, <schmidt> --><![CDATA[<anna> & <schmidt>]]><Empty/></Note>";
        let out = redactor().redact(text);
        assert!(!out.contains("anna") && !out.contains("schmidt"), "{out}");
        assert!(
            out.starts_with("<Note to='") && out.ends_with("]]><Empty/></Note>"),
            "{out}"
        );
        assert!(out.contains("--><![CDATA[<"), "{out}");
    }

    proptest::proptest! {
        /// Whatever stands around it, no word of six letters and no number of five digits comes through.
        #[test]
        fn no_word_and_no_number_comes_through(
            word in "[b-df-hj-np-tv-z]{6,20}",
            number in "[1-9][0-9]{4,30}",
            around in "[ -~äé]{0,20}",
            form in 0..4,
        ) {
            let text = match form {
                0 => format!("{around}{word} {number}{around}"),
                1 => format!("{{\"total\":\"{word}\",\"card\":{number},\"x\":\"{}\"}}", around.replace(['"', '\\'], "")),
                2 => format!("<a b=\"{number}\">{}{word}</a>", around.replace(['<', '>'], "")),
                _ => format!("GET /{word}?id={number}&q={around} HTTP/1.1"),
            };
            let out = redactor().redact(&text);
            proptest::prop_assert!(!out.contains(&word), "{} in {}", word, out);
            proptest::prop_assert!(!out.contains(&number), "{} in {}", number, out);
        }
    }
}
