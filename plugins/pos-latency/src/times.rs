//! Times of lines, quickly: lines of one minute differ in their seconds only.

use tillwatch_sdk::parse::{Offset, Wrong, text, time_ms};

/// No time that is read is longer.
pub(crate) const TIME_BYTES_MAX: usize = 48;
/// `23/Nov/2026:06:38:` and `2026-11-23T06:38:`, the part of which the seconds follow.
const COMMON_MINUTE_BYTES: usize = 18;
const RFC_MINUTE_BYTES: usize = 17;

/// Reads times; those without a zone are local ones.
#[derive(Debug)]
pub(crate) struct Times {
    local: Offset,
    minute: Minute,
}

/// The last time that was read, without its seconds.
#[derive(Debug, Default)]
struct Minute {
    text: [u8; COMMON_MINUTE_BYTES],
    text_bytes: usize,
    zone: Vec<u8>,
    start_ms: u64,
}

impl Times {
    pub(crate) fn new(local: Offset) -> Self {
        Self {
            local,
            minute: Minute::default(),
        }
    }

    /// The UTC millisecond of a time in any form that the SDK knows.
    pub(crate) fn read(&mut self, time: &[u8]) -> Result<u64, Wrong> {
        let Some(parts) = Parts::of(time) else {
            return self.slow(time);
        };
        let minute = &self.minute;
        if minute.text.get(..minute.text_bytes) == Some(parts.minute) && minute.zone == parts.zone {
            return Ok(minute.start_ms.saturating_add(parts.second_ms));
        }
        let ms = self.slow(time)?;
        if let Some(text) = self.minute.text.get_mut(..parts.minute.len()) {
            text.copy_from_slice(parts.minute);
            self.minute.text_bytes = parts.minute.len();
            self.minute.zone.clear();
            self.minute.zone.extend_from_slice(parts.zone);
            self.minute.start_ms = ms.saturating_sub(parts.second_ms);
        }
        Ok(ms)
    }

    fn slow(&self, time: &[u8]) -> Result<u64, Wrong> {
        if time.len() > TIME_BYTES_MAX {
            return Err(Wrong::Time);
        }
        time_ms(text(time).or(Err(Wrong::Time))?, self.local)
    }
}

/// A time with a date and a clock.
struct Parts<'a> {
    minute: &'a [u8],
    second_ms: u64,
    zone: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(time: &'a [u8]) -> Option<Self> {
        let minute_bytes = match time.get(2)? {
            b'/' => COMMON_MINUTE_BYTES,
            _ if time.get(4) == Some(&b'-') => RFC_MINUTE_BYTES,
            _ => return None,
        };
        let (minute, rest) = time.split_at_checked(minute_bytes)?;
        let [tens @ b'0'..=b'5', ones @ b'0'..=b'9', rest @ ..] = rest else {
            return None;
        };
        let seconds = u64::from(tens & 0x0f)
            .saturating_mul(10)
            .saturating_add(u64::from(ones & 0x0f));
        let (fraction_ms, zone) = match rest {
            [
                b'.' | b',',
                a @ b'0'..=b'9',
                b @ b'0'..=b'9',
                c @ b'0'..=b'9',
                zone @ ..,
            ] => {
                let digit = |byte: &u8, weight| u64::from(byte & 0x0f).saturating_mul(weight);
                let ms = digit(a, 100).saturating_add(digit(b, 10)).saturating_add(digit(c, 1));
                let digits = zone.iter().take_while(|byte| byte.is_ascii_digit()).count();
                (ms, zone.get(digits..)?)
            }
            [b'.' | b',', ..] => return None,
            zone => (0, zone),
        };
        Some(Self {
            minute,
            second_ms: seconds.saturating_mul(1000).saturating_add(fraction_ms),
            zone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_sdk::testing::mutated;

    const TIMES: [&str; 9] = [
        "23/Nov/2026:06:38:47 +0000",
        "23/Nov/2026:06:38:48 +0000",
        "23/Nov/2026:06:39:00 +0000",
        "23/Nov/2026:06:38:48 +0100",
        "2026-11-23T06:38:47.250999Z",
        "2026-11-23 06:38:48,5 +01:00",
        "2026-11-23T06:38:48",
        "1795415927.250",
        "2026-11-23T06:38:60Z",
    ];

    #[test]
    fn what_is_remembered_of_the_last_time_changes_nothing() {
        let corpus: Vec<&[u8]> = TIMES.iter().map(|time| time.as_bytes()).collect();
        let local = Offset::parse("+01:00").unwrap();
        let mut times = Times::new(local);
        let mut good = 0;
        for time in mutated(&corpus, 0x7173, 20_000) {
            let expected = text(&time).or(Err(Wrong::Time)).and_then(|text| time_ms(text, local));
            // White space around a time is not trimmed within lines; the SDK does.
            let found = times.read(&time);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(&time));
            good += u32::from(found.is_ok());
        }
        assert!(good > 500, "{good}");
    }
}
