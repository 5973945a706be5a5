//! Response times of tills: lines of a log come in, one sample per request goes out.

use serde::Deserialize;
use tillwatch_sdk::{Batch, Collector, Error, Host, Level};

tillwatch_sdk::plugin!();

/// Bytes asked for in one call; the host may give fewer.
const READ_BYTES_MAX: u32 = 256 * 1024;

/// What an operator may set; the defaults stand in `plugin.toml`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    longest_ms: i64,
}

/// The collector.
pub struct Requests {
    settings: Settings,
}

impl Collector for Requests {
    type Settings = Settings;

    fn new(settings: Settings, host: &mut dyn Host) -> Result<Self, Error> {
        if settings.longest_ms <= 0 {
            return Err(Error::config(format!(
                "longest_ms must be positive, not {}",
                settings.longest_ms
            )));
        }
        host.log(Level::Debug, "ready");
        Ok(Self { settings })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let lines = host.read_lines("requests", READ_BYTES_MAX)?;
        let mut batch = Batch::default();
        batch.more = lines.more;
        let mut parse_errors = 0;
        for line in lines.iter() {
            match parse(line) {
                Some(request) if request.took_ms > self.settings.longest_ms => parse_errors += 1,
                Some(request) => batch.push_integer(
                    metric::TILL_REQUEST_DURATION,
                    &[request.till],
                    request.took_ms,
                    request.time_ms,
                ),
                None => parse_errors += 1,
            }
        }
        if parse_errors > 0 {
            batch.push_integer(
                metric::SOURCE_PARSE_ERRORS,
                &[],
                parse_errors,
                host.now_ms(),
            );
        }
        Ok(batch)
    }
}

struct Request<'a> {
    time_ms: u64,
    till: &'a str,
    took_ms: i64,
}

fn parse(line: &[u8]) -> Option<Request<'_>> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (time, till, took, rest) = (words.next()?, words.next()?, words.next()?, words.next());
    if rest.is_some() {
        return None;
    }
    Some(Request {
        time_ms: time.parse().ok()?,
        till,
        took_ms: took.parse().ok()?,
    })
}

tillwatch_sdk::export!(Requests);

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_sdk::testing;

    #[test]
    fn golden_cases_come_out_as_expected() {
        testing::golden::<Requests>(&descriptor(), "testcases");
    }

    #[test]
    fn the_sample_shows_the_defaults() {
        let [declared, sample] = testing::shown_settings::<Settings>(".");
        assert_eq!(declared, sample);
    }

    #[test]
    fn a_request_that_never_ended_is_refused_by_the_settings() {
        let settings = Settings { longest_ms: 0 };
        assert!(Requests::new(settings, &mut testing::FileHost::new(0)).is_err());
    }
}
