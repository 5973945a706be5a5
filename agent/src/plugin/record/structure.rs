//! What of a text is format and not content: keys of JSON, names of XML, dates and times.
//!
//! In: a text. Out: the ranges that a redaction leaves alone, and the text with letters in place of their escapes.

use std::ops::{Range, RangeInclusive};

/// A longer key is no key.
const KEY_BYTES_MAX: usize = 64;
/// More digits in a row are somebody's number.
const KEY_DIGITS_MAX: usize = 3;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Letters and digits in place of `\u0041`, `%41` and `&#65;`, which would hide a name.
pub(super) fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '%', '&']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let escape = escape(rest).filter(|(character, _length)| character.is_alphanumeric());
        if let Some((character, length)) = escape {
            out.push(character);
            rest = &rest[length..];
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out + rest
}

/// The character that an escape at the beginning stands for, and the escape's length.
fn escape(text: &str) -> Option<(char, usize)> {
    let hex = |from: usize, to: usize| u32::from_str_radix(text.get(from..to)?, 16).ok();
    if text.starts_with("\\u") {
        // Half of a pair is of a letter, too.
        return Some((char::from_u32(hex(2, 6)?).unwrap_or('x'), 6));
    }
    if text.starts_with('%') {
        return Some((char::from_u32(hex(1, 3)?)?, 3));
    }
    let end = text.find(';').filter(|end| *end < 12)?;
    let number = match text.get(2..3)? {
        "x" | "X" if text.starts_with("&#") => hex(3, end)?,
        _ => text.strip_prefix("&#")?.get(..end - 2)?.parse().ok()?,
    };
    Some((char::from_u32(number)?, end + 1))
}

/// Ranges that stay, in their order and without overlap.
pub(super) fn kept(text: &str, years: &RangeInclusive<u16>) -> Vec<Range<usize>> {
    let begin = text.trim().chars().next();
    let mut ranges = match begin {
        Some('{' | '[') if is_json(text) => json_keys(text),
        Some('<') if text.trim_end().ends_with('>') => xml_names(text),
        _ => Vec::new(),
    };
    ranges.extend(times(text, years));
    ranges.extend(http_versions(text));
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut end = 0;
    ranges.retain(|range| {
        let is_free = range.start >= end;
        end = if is_free { range.end } else { end };
        is_free
    });
    ranges
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Keys that look like names of fields, and the letter of each escape.
fn json_keys(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(start) = find(bytes, at, b'"') {
        let mut end = start + 1;
        while let Some(byte) = bytes.get(end).filter(|byte| **byte != b'"') {
            let is_escape = *byte == b'\\' && bytes.get(end + 1).is_some_and(u8::is_ascii);
            if is_escape {
                ranges.push(end..end + 2);
            }
            end += 1 + usize::from(is_escape);
        }
        let end = end.min(bytes.len());
        let after = text[end..].strip_prefix('"').map(str::trim_start);
        let key = start + 1..end;
        if after.is_some_and(|after| after.starts_with(':')) && is_name(&text[key.clone()]) {
            ranges.push(key);
        }
        at = end + 1;
    }
    ranges
}

/// Not an address, a phone or a customer's number: those are keys of maps.
fn is_name(key: &str) -> bool {
    let begins = key.starts_with(|first: char| first.is_ascii_alphabetic() || "_$@".contains(first));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:$-".contains(&byte);
    let is_plain = begins && key.len() <= KEY_BYTES_MAX && key.bytes().skip(1).all(fits);
    let mut runs = key.split(|character: char| !character.is_ascii_digit());
    is_plain && runs.all(|digits| digits.len() <= KEY_DIGITS_MAX)
}

/// Names of elements and attributes, namespaces, and the declaration; none when it is no XML after all.
fn xml_names(text: &str) -> Vec<Range<usize>> {
    balanced_names(text).unwrap_or_default()
}

/// None unless each element that begins also ends: angle brackets stand around addresses and priorities, too.
fn balanced_names(text: &str) -> Option<Vec<Range<usize>>> {
    let (mut ranges, mut at, mut open) = (Vec::new(), 0, Vec::new());
    while let Some(start) = find(text.as_bytes(), at, b'<') {
        let rest = &text[start..];
        let mark = ["<![CDATA[", "<!--", "<!", "<?"]
            .into_iter()
            .find(|mark| rest.starts_with(mark));
        let length = match mark {
            Some("<![CDATA[") => rest.find("]]>")?,
            Some("<!--") => rest.find("-->")?,
            Some("<?") => rest.find("?>")?,
            // A document type is content.
            Some(_) => rest.find('>')?,
            None => tag_length(rest)?,
        };
        at = start + length;
        let tag = &text[start..at];
        match mark {
            Some("<![CDATA[") => ranges.push(start..start + 9),
            Some("<?") if tag.starts_with("<?xml ") => ranges.push(start..at),
            Some("<?") => names_of_tag(tag, start, &mut ranges),
            Some(_) => {}
            None => {
                follow(tag, &mut open)?;
                names_of_tag(tag, start, &mut ranges);
            }
        }
    }
    open.is_empty().then_some(ranges)
}

/// Up to the `>` that is in no attribute's value.
fn tag_length(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(begun), _) if begun == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Keeps the names of open elements; None when a tag is none, or ends another element.
fn follow<'a>(tag: &'a str, open: &mut Vec<&'a str>) -> Option<()> {
    let is_end = tag.starts_with("</");
    let begin = 1 + usize::from(is_end);
    let end = name_end(tag, begin);
    let name = &tag[begin..end];
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let ends = tag[end..].starts_with(|next: char| next.is_ascii_whitespace() || next == '/') || end == tag.len();
    if !begins || !ends {
        return None;
    }
    if is_end {
        return (open.pop()? == name).then_some(());
    }
    if !tag.ends_with('/') {
        open.push(name);
    }
    Some(())
}

/// `<name a="b"`, `</name`, `<?name`; `offset` is where the tag begins.
fn names_of_tag(tag: &str, offset: usize, ranges: &mut Vec<Range<usize>>) {
    let begin = 1 + usize::from(matches!(tag.as_bytes().get(1), Some(b'/' | b'?')));
    let mut at = name_end(tag, begin);
    if at == begin {
        return;
    }
    ranges.push(offset + begin..offset + at);
    while let Some((name, value)) = attribute(tag, at) {
        at = value.end + 1;
        let is_namespace = &tag[name.clone()] == "xmlns" || tag[name.clone()].starts_with("xmlns:");
        ranges.push(offset + name.start..offset + name.end);
        if is_namespace {
            ranges.push(offset + value.start..offset + value.end);
        }
    }
}

/// Where the next name and its value in quotes stand.
fn attribute(tag: &str, from: usize) -> Option<(Range<usize>, Range<usize>)> {
    let rest = tag.get(from..)?;
    let begin = from + (rest.len() - rest.trim_start().len());
    let end = name_end(tag, begin);
    let value = tag[end..].trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let value_begin = tag.len() - value.len() + 1;
    let value_end = value_begin + tag[value_begin..].find(quote)?;
    (end > begin).then_some((begin..end, value_begin..value_end))
}

fn name_end(tag: &str, begin: usize) -> usize {
    let fits = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(byte);
    begin + tag.as_bytes().iter().skip(begin).take_while(fits).count()
}

/// Dates of these years, and times of day with their zone.
fn times(text: &str, years: &RangeInclusive<u16>) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit());
        let date = if begins { date_length(&bytes[at..], years) } else { None };
        let follows_date = ranges.last().is_some_and(|range: &Range<usize>| range.end + 1 == at);
        let is_free = at == 0 || bytes[at - 1] != b':' || follows_date;
        let time = if begins && is_free {
            time_length(&bytes[at..])
        } else {
            None
        };
        match (date, time) {
            (Some(length), _) => {
                let is_joined = bytes.get(at + length) == Some(&b'T');
                ranges.push(at..at + length + usize::from(is_joined));
                // The T belongs to both: the time after it begins at once.
                at += length;
            }
            (None, Some(length)) => {
                ranges.push(at..at + length);
                at += length;
            }
            (None, None) => at += 1,
        }
    }
    ranges
}

/// `2026-03-02`, `02/Mar/2026`, `02.03.2026`, `02.03.26`.
fn date_length(bytes: &[u8], years: &RangeInclusive<u16>) -> Option<usize> {
    let (form, length): (Form, usize) = [
        ("9999-99-99", [0..4, 5..7, 8..10]),
        ("99/aaa/9999", [7..11, 3..6, 0..2]),
        ("99.99.9999", [6..10, 3..5, 0..2]),
        (SHORT_DATE, [6..8, 3..5, 0..2]),
    ]
    .into_iter()
    .find(|(form, _)| has_form(bytes, form))
    .filter(|(form, _)| *form != SHORT_DATE || ends_short_date(bytes.get(form.len()).copied()))
    .map(|(form, parts)| (parts, form.len()))?;
    let text = |part: &Range<usize>| std::str::from_utf8(bytes.get(part.clone())?).ok();
    let number = |part: &Range<usize>| text(part)?.parse::<u16>().ok();
    let [year, month, day] = &form;
    let month = match text(month)?.parse::<u16>() {
        Ok(month) => month,
        Err(_name) => u16::try_from(MONTHS.iter().position(|name| Some(*name) == text(month))? + 1).ok()?,
    };
    let year = match number(year)? {
        short if length == SHORT_DATE.len() => 2_000 + short,
        year => year,
    };
    let is_date = years.contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&number(day)?);
    is_date.then_some(length)
}

const SHORT_DATE: &str = "99.99.99";

/// An address or a version goes on.
fn ends_short_date(next: Option<u8>) -> bool {
    next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != b'.')
}

/// Where year, month and day stand.
type Form = [Range<usize>; 3];

/// `11:30`, `11:30:05`, `11:30:05.250`, each with ` +0100`, `+01:00` or `Z` behind it.
fn time_length(bytes: &[u8]) -> Option<usize> {
    let two = |from: usize| -> Option<u8> {
        let pair = std::str::from_utf8(bytes.get(from..from + 2)?).ok()?;
        pair.parse().ok()
    };
    if !has_form(bytes, "99:99") && !has_form(bytes, "99:99:99") {
        return None;
    }
    let has_seconds = has_form(bytes, "99:99:99");
    let is_time = two(0)? < 24 && two(3)? < 60 && (!has_seconds || two(6)? < 61);
    let mut length = if has_seconds { 8 } else { 5 };
    if bytes.get(length) == Some(&b':') {
        return None;
    }
    if has_seconds && matches!(bytes.get(length), Some(b'.' | b',')) {
        let digits = bytes[length + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        length += if (1..=9).contains(&digits) { 1 + digits } else { 0 };
    }
    let zone = bytes.get(length..).unwrap_or_default();
    let forms = ["+99:99", "-99:99", "+9999", "-9999", " +9999", " -9999", "Z"];
    length += forms
        .iter()
        .find(|form| has_form(zone, form))
        .map_or(0, |form| form.len());
    is_time.then_some(length)
}

/// 9 stands for a digit, a for a letter; no digit may follow.
fn has_form(bytes: &[u8], form: &str) -> bool {
    let fits = |(byte, form): (&u8, u8)| match form {
        b'9' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        other => *byte == other,
    };
    let is_long = bytes.len() >= form.len();
    let ends = !bytes.get(form.len()).is_some_and(u8::is_ascii_digit);
    is_long && ends && bytes.iter().zip(form.bytes()).all(fits)
}

/// `HTTP/1.1`
fn http_versions(text: &str) -> Vec<Range<usize>> {
    let found = text.match_indices("HTTP/");
    let versions = found.filter(|(at, _)| has_form(&text.as_bytes()[at + 5..], "9.9"));
    versions.map(|(at, _)| at..at + 8).collect()
}

fn find(bytes: &[u8], from: usize, byte: u8) -> Option<usize> {
    let at = memchr::memchr(byte, bytes.get(from..)?)?;
    Some(from + at)
}
