//! Keeps cardholder data out of everything that leaves the host: the one choke point before spool, wire and logs.
//!
//! In: label values, numbers, texts. Out: a refusal, or a text without what might be a card number.
//! It never echoes what it refuses. Luhn alone is useless on store data, so labels are judged by shape first.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Longest label value.
pub const LABEL_BYTES_MAX: usize = 64;

/// A run of so many digits in a label is taken for a card number, whatever its check digit says.
pub const LABEL_DIGITS_MIN: usize = 13;

/// Lengths of card numbers. Source: ISO/IEC 7812-1.
const CARD_DIGITS: RangeInclusive<usize> = 13..=19;

/// Of a track behind its card number. Source: ISO/IEC 7813, track 1 has 79 characters.
const TRACK_CHARS_MAX: usize = 79;

/// What stands in a text for what was taken out.
pub const REDACTED: &str = "[redacted]";

/// Where the digits of other scripts start in Unicode; ten in a row each.
const DIGITS_OF_SCRIPTS: [u32; 12] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xE50, 0xED0, 0x1040, 0xFF10,
];

/// The guard; it has no state and no switch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guard;

/// Why a label or number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Empty, too long, or with a character outside of the allowed ones.
    #[error("not of the form [A-Za-z0-9_./:-]{{1,64}}")]
    Shape,
    /// Looks like a card number, as it is or encoded.
    #[error("looks like a card number")]
    Card,
}

impl Guard {
    /// May this label value leave?
    ///
    /// # Errors
    /// When it has another shape or might be a card number.
    pub fn label(&self, value: &str) -> Result<(), Refusal> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte);
        if !(1..=LABEL_BYTES_MAX).contains(&value.len()) || !value.bytes().all(allowed) {
            return Err(Refusal::Shape);
        }
        // Hexadecimal needs no decoding: the digits of a card number are 3x in ASCII and themselves in BCD.
        if longest_digit_run(value.bytes()) >= LABEL_DIGITS_MIN || decoded(value).any(|bytes| holds_digits(&bytes)) {
            return Err(Refusal::Card);
        }
        Ok(())
    }

    /// May this number leave?
    ///
    /// # Errors
    /// When it has the length, issuer and check digit of a card number.
    pub fn number(&self, value: i64) -> Result<(), Refusal> {
        let mut digits = [0_u8; 20];
        let mut left = value.unsigned_abs();
        let mut at = digits.len();
        while left > 0 {
            at -= 1;
            digits[at] = u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
        }
        if is_card(&digits[at..]) {
            Err(Refusal::Card)
        } else {
            Ok(())
        }
    }

    /// May these bytes lie on the disk? They are taken for a text, encodings included; whole numbers in them are not seen.
    ///
    /// # Errors
    /// When they hold what might be a card number.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if card_runs(&String::from_utf8_lossy(bytes)).is_empty() {
            Ok(())
        } else {
            Err(Refusal::Card)
        }
    }

    /// Byte ranges of a text that might be card numbers, separators and encodings included.
    #[must_use]
    pub fn card_spans(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        card_runs(text).into_iter().map(|(start, end)| start..end).collect()
    }

    /// The text for a log line or error, with what might be a card number replaced.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let runs = card_runs(text);
        if runs.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = String::with_capacity(text.len());
        let mut from = 0;
        for (start, end) in runs {
            clean.push_str(&text[from..start]);
            clean.push_str(REDACTED);
            from = end;
        }
        clean.push_str(&text[from..]);
        Cow::Owned(clean)
    }
}

/// The longest run of digits when separators are taken out; only letters end a run.
fn longest_digit_run(bytes: impl Iterator<Item = u8>) -> usize {
    let (mut longest, mut run) = (0, 0);
    for byte in bytes {
        if byte.is_ascii_digit() {
            run += 1;
            longest = longest.max(run);
        } else if !is_separator(char::from(byte)) {
            run = 0;
        }
    }
    longest
}

fn holds_digits(bytes: &[u8]) -> bool {
    longest_digit_run(bytes.iter().copied()) >= LABEL_DIGITS_MIN
}

fn is_separator(character: char) -> bool {
    matches!(
        character,
        ' ' | '\t' | '_' | '.' | '/' | ':' | '-' | '\u{a0}' | '\u{200b}' | '\u{2009}' | '\u{202f}'
    )
}

fn digit_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let offset = match character {
        '0'..='9' => code - 0x30,
        _ => DIGITS_OF_SCRIPTS
            .iter()
            .find_map(|start| code.checked_sub(*start).filter(|offset| *offset < 10))?,
    };
    u8::try_from(offset).ok()
}

/// Byte ranges of the text that hold a card number: digits with separators between, or a word in Base64 or hexadecimal.
fn card_runs(text: &str) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let mut digits: Vec<u8> = Vec::new();
    let (mut start, mut end) = (0, 0);
    for (at, character) in text.char_indices().chain([(text.len(), 'x')]) {
        if let Some(digit) = digit_of(character) {
            if digits.is_empty() {
                start = at;
            }
            digits.push(digit);
            end = at + character.len_utf8();
        } else if !is_separator(character) {
            if holds_card(&digits) {
                runs.push((start, end + track_rest(&text[end..])));
            }
            digits.clear();
        }
    }
    runs.extend(encoded_words(text));
    runs.sort_unstable();
    runs.dedup_by(|later, earlier| {
        let is_joined = later.0 < earlier.1;
        if is_joined {
            earlier.1 = earlier.1.max(later.1);
        }
        is_joined
    });
    runs
}

/// Bytes of a magnetic stripe's track that follow its card number: name, expiry, codes. Source: ISO/IEC 7813.
fn track_rest(after: &str) -> usize {
    if !after.starts_with(['^', '=']) {
        return 0;
    }
    let longest = after
        .char_indices()
        .map(|(at, _)| at)
        .nth(TRACK_CHARS_MAX)
        .unwrap_or(after.len());
    let track = after[..longest].lines().next().unwrap_or_default();
    track.find('?').map_or(track.len(), |end| end + 1)
}

fn encoded_words(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    text.split(move |character: char| !character.is_ascii() || !word(u8::try_from(character).unwrap_or(0)))
        .filter(|word| word.len() >= 18 && decoded(word).chain(unhexed(word)).any(|bytes| holds_ascii_card(&bytes)))
        .map(move |word| {
            let start = word.as_ptr().addr() - text.as_ptr().addr();
            (start, start + word.len())
        })
}

fn holds_ascii_card(bytes: &[u8]) -> bool {
    bytes
        .split(|byte| !byte.is_ascii_digit() && !is_separator(char::from(*byte)))
        .any(|run| {
            holds_card(
                &run.iter()
                    .filter(|byte| byte.is_ascii_digit())
                    .map(|byte| byte - b'0')
                    .collect::<Vec<_>>(),
            )
        })
}

/// The value read as Base64, in both alphabets, from each of the four possible positions.
fn decoded(value: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..4).map(move |skip| {
        let mut bytes = Vec::with_capacity(value.len());
        let (mut bits, mut held) = (0_u32, 0_u32);
        for sextet in value.bytes().skip(skip).filter_map(sextet_of) {
            bits = (bits << 6 | u32::from(sextet)) & 0x3FFF;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xFF).unwrap_or(0));
            }
        }
        bytes
    })
}

/// The value read as hexadecimal, from both possible positions; what is no pair of digits ends a run.
fn unhexed(value: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    let nibble = |digit: &u8| {
        char::from(*digit)
            .to_digit(16)
            .and_then(|nibble| u8::try_from(nibble).ok())
    };
    (0..2).map(move |skip| {
        let pairs = value.as_bytes().get(skip..).unwrap_or_default().chunks_exact(2);
        pairs
            .map(|pair| match (nibble(&pair[0]), nibble(&pair[1])) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => 0,
            })
            .collect()
    })
}

fn sextet_of(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn holds_card(digits: &[u8]) -> bool {
    CARD_DIGITS.clone().any(|length| digits.windows(length).any(is_card))
}

fn is_card(digits: &[u8]) -> bool {
    CARD_DIGITS.contains(&digits.len()) && is_issuer(digits) && luhn(digits)
}

/// First four digits that issuers have, and how long their card numbers are.
/// Source: the article "Payment card number" of Wikipedia (2024-07-19) and credit-card-type 10.1, taken together where
/// they lie side by side.
const ISSUERS: [(RangeInclusive<u32>, RangeInclusive<usize>); 23] = [
    // UATP, the airlines' network.
    (1000..=1999, 15..=15),
    // GPN.
    (1946..=1946, 16..=19),
    // Mir; Borica and PayPak.
    (2200..=2205, 16..=19),
    // Mastercard.
    (2221..=2720, 16..=16),
    // JCB of old.
    (2131..=2131, 15..=15),
    // Diners Club.
    (3000..=3099, 14..=19),
    (3600..=3699, 14..=19),
    (3800..=3999, 14..=19),
    // China T-Union.
    (3100..=3199, 19..=19),
    // American Express.
    (3400..=3499, 15..=15),
    (3700..=3799, 15..=15),
    // JCB and RuPay.
    (3528..=3589, 16..=19),
    // Visa, Dankort, Elo.
    (4000..=4999, 13..=13),
    (4000..=4999, 16..=19),
    // Maestro, Verve, Elo, RuPay, Meeza.
    (5000..=5099, 13..=19),
    // Mastercard.
    (5100..=5599, 16..=16),
    // Maestro, Discover, UnionPay, RuPay, Hipercard, Elo, InterPayment, UkrCard, UzCard.
    (5600..=6999, 13..=19),
    // UnionPay and RuPay.
    (8100..=8299, 14..=19),
    // UzCard.
    (8600..=8600, 16..=16),
    // ArCa.
    (9051..=9051, 16..=16),
    // NAPAS.
    (9704..=9704, 16..=19),
    // Troy.
    (9792..=9792, 16..=16),
    // Humo.
    (9860..=9860, 16..=16),
];

fn is_issuer(digits: &[u8]) -> bool {
    let first = digits.iter().take(4);
    let first = first.fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    let is_of = |(first_of, lengths): &(RangeInclusive<u32>, RangeInclusive<usize>)| {
        first_of.contains(&first) && lengths.contains(&digits.len())
    };
    ISSUERS.iter().any(is_of)
}

/// Source: ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_labels_pass() {
        for label in [
            "checkout",
            "/api/v1/loyalty",
            "mainframe",
            "eth0",
            "10.0.0.1:8080",
            "store-0412",
            "a:b_c",
        ] {
            assert_eq!(Guard.label(label), Ok(()), "{label}");
        }
    }

    #[test]
    fn labels_of_another_shape_are_refused() {
        let long = "x".repeat(65);
        for label in [
            "",
            "John Smith",
            "a=b",
            ";4111",
            "%B41",
            "é",
            "a{b}",
            "\n",
            long.as_str(),
        ] {
            assert_eq!(Guard.label(label), Err(Refusal::Shape), "{label}");
        }
    }

    #[test]
    fn card_numbers_in_labels_are_refused_in_any_dress() {
        let labels = [
            "4111111111111111",
            "4111-1111-1111-1111",
            "4111.1111/1111_1111",
            "card:5500000000000004",
            "1234567890123",
            "NDExMTExMTExMTExMTExMQ",
            "xNDExMTExMTExMTExMTExMQ",
            "34313131313131313131313131313131",
        ];
        for label in labels {
            assert_eq!(Guard.label(label), Err(Refusal::Card), "{label}");
        }
    }

    #[test]
    fn card_numbers_as_numbers_are_refused_and_amounts_are_not() {
        for number in [
            4111111111111111,
            378282246310005,
            5500000000000004,
            6011000990139424,
            -4111111111111111,
            // Mir, UnionPay, Troy, RuPay, Elo, and Diners Club with nineteen digits.
            2200000000000004,
            8171999900000000021,
            9792000000000003,
            8201000000000000,
            6362970000457013,
            3600000000000000004,
            // UATP, GPN, China T-Union, Diners Club, JCB of old.
            100000000000009,
            1946000000000005,
            3100000000000000005,
            30900000000005,
            213100000000001,
        ] {
            assert_eq!(Guard.number(number), Err(Refusal::Card), "{number}");
        }
        for number in [
            0,
            1999,
            -5,
            4111111111111112,
            1732350000000,
            1111111111111117,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(Guard.number(number), Ok(()), "{number}");
        }
    }

    #[test]
    fn bytes_with_a_card_number_in_any_dress_are_refused_and_others_are_not() {
        for bytes in [
            &b"4111111111111111"[..],
            b"\x02\xff\xfe4111-1111-1111-1111\x00",
            b"\0NDExMTExMTExMTExMTExMQ==\0",
            b"\xc334313131313131313131313131313131\xc3",
        ] {
            assert_eq!(Guard.bytes(bytes), Err(Refusal::Card), "{bytes:?}");
        }
        for bytes in [
            &b""[..],
            b"\x02\0\0\0\x11\x22\x33",
            b"{\"till\":7,\"last\":1772451000000}",
        ] {
            assert_eq!(Guard.bytes(bytes), Ok(()), "{bytes:?}");
        }
    }

    #[test]
    fn texts_lose_card_numbers_and_nothing_else() {
        let text = |text: &'static str| Guard.text(text).into_owned();
        assert_eq!(
            text("line 17: till 3 at 2026-11-23 09:00:00.123 failed"),
            "line 17: till 3 at 2026-11-23 09:00:00.123 failed"
        );
        assert_eq!(text("paid by 4111 1111 1111 1111, ok"), "paid by [redacted], ok");
        assert_eq!(
            text("read %B4111111111111111^SMITH/JOHN A^25121010000? at till 3"),
            "read %B[redacted] at till 3"
        );
        assert_eq!(text(";4111111111111111=2512101\nok"), ";[redacted]\nok");
        assert_eq!(text("x４１１１１１１１１１１１１１１１y"), "x[redacted]y");
        assert_eq!(text("token=NDExMTExMTExMTExMTExMQ== end"), "[redacted] end");
        assert_eq!(text("raw 34313131313131313131313131313131, ok"), "raw [redacted], ok");
        assert_eq!(text("raw a34313131313131313131313131313131."), "raw [redacted].");
        assert_eq!(text("ids 378282246310005 5500000000000004"), "ids [redacted]");
    }
}
