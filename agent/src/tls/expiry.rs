//! Until when a certificate is good.
//!
//! In: its DER. Out: the end in UTC milliseconds; none when it is not understood. Only what stands before the end is read.

use jiff::fmt::strtime;

/// `notAfter` of a certificate.
/// Source: RFC 5280, section 4.1: version, serial number, signature and issuer come before the validity.
pub(crate) fn ends_ms(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (tag, certificate, _rest) = element(certificate)?;
    let (inner, signed, _rest) = element(certificate)?;
    let (first, _version, after) = element(signed)?;
    let signed = if first == VERSION { after } else { signed };
    let (_tag, _serial, rest) = element(signed)?;
    let (_tag, _signature, rest) = element(rest)?;
    let (_tag, _issuer, rest) = element(rest)?;
    let (_tag, validity, _rest) = element(rest)?;
    let (_tag, _begin, rest) = element(validity)?;
    let (time, end, _rest) = element(rest)?;
    (tag == SEQUENCE && inner == SEQUENCE).then(|| time_ms(time, end))?
}

/// Two digits of a year are of 1950 to 2049.
fn time_ms(tag: u8, text: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        UTC_TIME if text < "5" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => text.to_owned(),
    };
    let time = strtime::parse("%Y%m%d%H%M%SZ", &text).ok()?.to_datetime().ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(time.timestamp().as_millisecond())
}

/// Tag, content and what follows of the first element.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
