//! Durations, sizes, shares and addresses as people write them: a value or a [`Mistake`] with what to write instead.

use super::written::Mistake;
use crate::uplink::{BrokerAddress, ProxyAddress, UrlError, parse_proxy, parse_url};

const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SHARES: [(&str, u64); 1] = [("%", 1)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// `250ms`, `10s`, `5m`, `12h`, `14d` in milliseconds.
///
/// # Errors
/// When it is no whole number with one of these units.
pub fn duration_ms(text: &str) -> Result<u64, Mistake> {
    quantity(text, &DURATIONS).ok_or_else(|| {
        Mistake::new(
            format!("is not a duration: {text:?}"),
            "write a number and ms, s, m, h or d, such as \"10s\"",
        )
    })
}

/// `512B`, `64KiB`, `32MiB`, `1GiB` in bytes.
///
/// # Errors
/// When it is no whole number with one of these units.
pub fn size_bytes(text: &str) -> Result<u64, Mistake> {
    quantity(text, &SIZES).ok_or_else(|| {
        Mistake::new(
            format!("is not a size: {text:?}"),
            "write a number and B, KiB, MiB or GiB, such as \"64MiB\"",
        )
    })
}

/// `5%`
///
/// # Errors
/// When it is no whole number of percent.
pub fn percent(text: &str) -> Result<u64, Mistake> {
    quantity(text, &SHARES).ok_or_else(|| {
        Mistake::new(
            format!("is not a share: {text:?}"),
            "write a number and %, such as \"5%\"",
        )
    })
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let unit = text.get(digits..)?.trim_start();
    let (_unit, factor) = units.iter().find(|(name, _factor)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The broker's address, with the words of the uplink that will use it.
///
/// # Errors
/// When it is no address, or would send store data in the clear over a network.
pub fn broker_address(text: &str) -> Result<BrokerAddress, Mistake> {
    parse_url(text).map_err(|error| wrong(&error))
}

/// The proxy's address, in the same words.
///
/// # Errors
/// When it is none, or holds a password.
pub fn proxy_address(text: &str) -> Result<ProxyAddress, Mistake> {
    parse_proxy(text).map_err(|error| wrong(&error))
}

fn wrong(error: &UrlError) -> Mistake {
    let text = error.to_string();
    let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
    Mistake::new(format!("is wrong: {what}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_shares_need_a_unit() {
        for (text, expected) in [
            ("250ms", Some(250)),
            ("10 s", Some(10_000)),
            ("14d", Some(1_209_600_000)),
            ("10", None),
            ("1.5s", None),
            ("-1s", None),
            ("10x", None),
            ("99999999999999999999s", None),
            ("", None),
            ("ß", None),
        ] {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("64KiB", Some(65_536)),
            ("1GiB", Some(1 << 30)),
            ("5", None),
            ("5 kb", None),
        ] {
            assert_eq!(size_bytes(text).ok(), expected, "{text}");
        }
        let shares = ["5%", "5 %", "5", "0.5%"].map(|text| percent(text).ok());
        assert_eq!(shares, [Some(5), Some(5), None, None]);
    }
}
