//! Card numbers that belong to nobody, in the dresses that a log or a hostile plugin may give them.
//!
//! In: a seed. Out: carriers with the number that each holds, and a search for such numbers in any bytes.
//! Numbers are random within the networks' published ranges, with a good check digit (ISO/IEC 7812-1).

use std::collections::HashSet;

/// First digits, from and to, and lengths of the networks that stores take; finer than the guard's own list, and of
/// another source but for the last rows, so that what is missing there is found.
/// Source: the lists that payment forms of shops use (credit-card-type 10.1); the last rows are of the guard's article.
const NETWORKS: [(u32, u32, &[usize]); 46] = [
    (4, 4, &[13, 16, 18, 19]),
    (51, 55, &[16]),
    (2221, 2229, &[16]),
    (223, 229, &[16]),
    (23, 26, &[16]),
    (270, 271, &[16]),
    (2720, 2720, &[16]),
    (34, 34, &[15]),
    (37, 37, &[15]),
    (300, 305, &[14, 16, 19]),
    (36, 36, &[14, 16, 19]),
    (38, 39, &[14, 16, 19]),
    (6011, 6011, &[16, 19]),
    (644, 649, &[16, 19]),
    (65, 65, &[16, 19]),
    (3528, 3589, &[16, 17, 18, 19]),
    (620, 620, &[14, 15, 16, 17, 18, 19]),
    (62100, 62182, &[14, 15, 16, 17, 18, 19]),
    (623, 626, &[14, 15, 16, 17, 18, 19]),
    (6282, 6289, &[14, 15, 16, 17, 18, 19]),
    (810, 810, &[14, 15, 16, 17, 18, 19]),
    (8110, 8171, &[14, 15, 16, 17, 18, 19]),
    (500_000, 504_174, &[13, 14, 15, 16, 17, 18, 19]),
    (506_779, 508_999, &[13, 14, 15, 16, 17, 18, 19]),
    (56, 59, &[13, 14, 15, 16, 17, 18, 19]),
    (63, 63, &[13, 14, 15, 16, 17, 18, 19]),
    (67, 67, &[13, 14, 15, 16, 17, 18, 19]),
    (506_699, 506_778, &[16]),
    (509_000, 509_999, &[16]),
    (438_935, 438_935, &[16]),
    (636_297, 636_297, &[16]),
    (650_031, 650_598, &[16]),
    (2200, 2204, &[16, 17, 18, 19]),
    (637_095, 637_095, &[16]),
    (606_282, 606_282, &[16]),
    (506_099, 506_127, &[16, 18, 19]),
    // RuPay, Troy, UzCard, Humo, NAPAS, UATP, GPN, China T-Union.
    (508, 508, &[16]),
    (81, 82, &[16]),
    (353, 356, &[16]),
    (9792, 9792, &[16]),
    (8600, 8600, &[16]),
    (9860, 9860, &[16]),
    (9704, 9704, &[16, 19]),
    (1, 1, &[15]),
    (1946, 1946, &[16, 18, 19]),
    (31, 31, &[19]),
];
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SEPARATORS: [char; 6] = ['-', '.', '/', ':', '_', ' '];

/// A text or number with a card number in it.
#[derive(Clone, Debug)]
pub struct Carrier {
    pub number: String,
    pub text: String,
}

/// A random carrier.
pub fn carrier(random: &mut fastrand::Rng) -> Carrier {
    let number = card(random);
    let text = dressed(&number, random);
    Carrier { number, text }
}

/// A random card number.
pub fn card(random: &mut fastrand::Rng) -> String {
    let (first, last, lengths) = NETWORKS[random.usize(..NETWORKS.len())];
    let mut number = random.u32(first..=last).to_string();
    let length = lengths[random.usize(..lengths.len())];
    while number.len() + 1 < length {
        number.push(random.digit(10));
    }
    let check = (b'0'..=b'9').map(char::from).find(|check| {
        let whole = format!("{number}{check}");
        has_good_check_digit(whole.as_bytes())
    });
    number.push(check.unwrap_or('0'));
    number
}

fn has_good_check_digit(digits: &[u8]) -> bool {
    let value = |(at, digit): (usize, &u8)| match (at % 2, u32::from(digit - b'0')) {
        (0, digit) => digit,
        (_, digit) => digit * 2 / 10 + digit * 2 % 10,
    };
    digits
        .iter()
        .rev()
        .enumerate()
        .map(value)
        .sum::<u32>()
        .is_multiple_of(10)
}

fn dressed(number: &str, random: &mut fastrand::Rng) -> String {
    match random.u8(..10) {
        0 | 1 => number.to_owned(),
        2 => grouped(number, SEPARATORS[random.usize(..SEPARATORS.len())]),
        3 => format!("pan:{number}"),
        4 => format!("{number}.till-{}", random.u8(1..9)),
        5 => format!(";{number}={}{}?", random.u16(2401..3612), random.u16(100..999)),
        6 => format!("%B{number}^SMITH/JOHN^{}", random.u16(2401..3612)),
        7 => number
            .bytes()
            .map(|digit| char::from_u32(0xFF10 + u32::from(digit - b'0')).unwrap_or('x'))
            .collect(),
        8 => base64(format!("{}{number}", &"xyz"[..random.usize(..4)]).as_bytes()),
        _ => number.bytes().map(|digit| format!("{digit:02x}")).collect(),
    }
}

fn grouped(number: &str, separator: char) -> String {
    let mut text = String::new();
    for (at, digit) in number.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0_u8; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for at in 0..=chunk.len() {
            text.push(char::from(BASE64[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

/// Looks for known card numbers, plain or in any of the dresses.
#[derive(Debug, Default)]
pub struct Search {
    numbers: HashSet<Vec<u8>>,
    /// The first thirteen digits, which every card number has.
    heads: HashSet<[u8; 13]>,
    values: HashSet<u64>,
}

impl Search {
    /// Makes a number known.
    pub fn add(&mut self, number: &str) {
        let digits = number.as_bytes();
        if let Some(head) = digits.first_chunk() {
            self.heads.insert(*head);
        }
        self.numbers.insert(digits.to_vec());
        self.values.extend(number.parse::<u64>());
    }

    /// The first known number in `bytes`, if any: as digits of any script with anything that is no letter between, in
    /// hexadecimal or Base64, as a whole number of eight bytes or of variable length.
    #[must_use]
    pub fn first_in(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        self.in_digits(text.chars().map(digit))
            .or_else(|| self.in_digits(hexadecimal(bytes)))
            .or_else(|| (0..4).find_map(|skip| self.in_digits(decoded(bytes, skip).into_iter())))
            .or_else(|| self.in_whole_numbers(bytes))
    }

    fn in_digits(&self, digits: impl Iterator<Item = Shown>) -> Option<String> {
        let mut run = Vec::new();
        for shown in digits.chain([Shown::Other]) {
            match shown {
                Shown::Digit(digit) => run.push(digit),
                Shown::Separator => {}
                Shown::Other => {
                    if let Some(found) = self.in_run(&run) {
                        return Some(found);
                    }
                    run.clear();
                }
            }
        }
        None
    }

    fn in_run(&self, run: &[u8]) -> Option<String> {
        (0..run.len()).find_map(|at| {
            let rest = &run[at..];
            let head: &[u8; 13] = rest.first_chunk()?;
            if !self.heads.contains(head) {
                return None;
            }
            let number = (13..=19.min(rest.len())).map(|length| &rest[..length]);
            let known = number.into_iter().find(|number| self.numbers.contains(*number))?;
            Some(String::from_utf8_lossy(known).into_owned())
        })
    }

    fn in_whole_numbers(&self, bytes: &[u8]) -> Option<String> {
        (0..bytes.len()).find_map(|at| {
            let rest = &bytes[at..];
            let fixed = rest.first_chunk().map(|eight| u64::from_le_bytes(*eight));
            let varint = varint(rest);
            let zigzag = varint.map(|value| value >> 1);
            [fixed, varint, zigzag]
                .into_iter()
                .flatten()
                .find(|value| self.values.contains(value))
                .map(|value| value.to_string())
        })
    }
}

enum Shown {
    Digit(u8),
    Separator,
    Other,
}

fn digit(character: char) -> Shown {
    let code = u32::from(character);
    let digit = match character {
        '0'..='9' => Some(code - 0x30),
        '\u{ff10}'..='\u{ff19}' => Some(code - 0xff10),
        _ => None,
    };
    match digit.and_then(|digit| u8::try_from(digit).ok()) {
        Some(digit) => Shown::Digit(b'0' + digit),
        None if character.is_alphabetic() || character == '\u{fffd}' => Shown::Other,
        None if SEPARATORS.contains(&character) => Shown::Separator,
        None => Shown::Other,
    }
}

/// The digits that pairs `30` to `39` stand for; the pairs of a number lie side by side.
fn hexadecimal(bytes: &[u8]) -> impl Iterator<Item = Shown> + '_ {
    (0..2).flat_map(move |skip| {
        bytes[skip.min(bytes.len())..]
            .chunks(2)
            .map(|pair| match pair {
                [b'3', digit @ b'0'..=b'9'] => Shown::Digit(*digit),
                _ => Shown::Other,
            })
            .chain([Shown::Other])
    })
}

fn decoded(bytes: &[u8], skip: usize) -> Vec<Shown> {
    let mut shown = Vec::new();
    let (mut bits, mut held, mut skipped) = (0_u32, 0_u32, 0);
    for byte in bytes {
        let Some(sextet) = BASE64.iter().position(|letter| letter == byte) else {
            (bits, held, skipped) = (0, 0, 0);
            shown.push(Shown::Other);
            continue;
        };
        if skipped < skip {
            skipped += 1;
            continue;
        }
        bits = (bits << 6 | u32::try_from(sextet).unwrap_or(0)) & 0x3fff;
        held += 6;
        if held >= 8 {
            held -= 8;
            shown.push(digit(char::from(u8::try_from(bits >> held & 0xff).unwrap_or(0))));
        }
    }
    shown
}

fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * at).ok()?)?;
        if byte < &0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dress_of_every_number_is_found() {
        let seed = 7;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let carrier = carrier(&mut random);
            let mut search = Search::default();
            search.add(&carrier.number);
            let within = format!("till 3 said <{}> at noon", carrier.text);
            assert_eq!(
                search.first_in(within.as_bytes()),
                Some(carrier.number.clone()),
                "{within}"
            );
            let value: u64 = carrier.number.parse().unwrap_or_default();
            let whole = [&[1, 2, 3], value.to_le_bytes().as_slice(), &[4]].concat();
            if value > 0 {
                assert_eq!(search.first_in(&whole), Some(carrier.number.clone()));
            }
            let other = card(&mut random);
            assert_eq!(search.first_in(other.as_bytes()), None);
        }
    }
}
