//! Asks one HTTP endpoint, one TCP peer, or both, whether they answer and how long that takes.
//!
//! In: the operator's grants `endpoint` and `peer`. Out: a duration for each answer, and 1 or 0 for each try.
//! It reports nothing where nothing was tried: without a grant, or while the past is replayed.

use serde::Deserialize;
use tillwatch_sdk::{Batch, Collector, Error, Host, HttpRequest, PeerFailure, PeerFault, TcpRequest};

tillwatch_sdk::plugin!();
tillwatch_sdk::export_prober!(Probe);

const ENDPOINT: &str = "endpoint";
const PEER: &str = "peer";
const NAME_BYTES_MAX: usize = 40;

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    name: String,
    status_min: u16,
    status_max: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "_other".to_owned(),
            status_min: 200,
            status_max: 399,
        }
    }
}

struct Probe(Settings);

/// What came of one try: whether it was well, and how long it took if there was an answer.
struct Tried {
    is_well: bool,
    elapsed_us: Option<u64>,
}

impl Collector for Probe {
    type Settings = Settings;

    fn new(settings: Settings, _host: &mut dyn Host) -> Result<Self, Error> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let length = settings.name.len();
        if !(1..=NAME_BYTES_MAX).contains(&length) || !settings.name.bytes().all(is_plain) {
            return Err(Error::config("name has 1 to 40 of a-z, 0-9, '.', '_' and '-'"));
        }
        if settings.status_min > settings.status_max {
            return Err(Error::config("status_min is higher than status_max"));
        }
        Ok(Self(settings))
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let now_ms = host.now_ms();
        let answered = host.http(ENDPOINT, HttpRequest::get());
        let answered = answered.map(|response| (self.is_well(response.status), response.elapsed_us));
        self.report(&mut batch, "http", self.tried(answered), now_ms);
        let connect = TcpRequest {
            bytes: Vec::new(),
            until: None,
            bytes_max: 0,
        };
        let answered = host.tcp(PEER, connect).map(|response| (true, response.connect_us));
        self.report(&mut batch, "tcp", self.tried(answered), now_ms);
        Ok(batch)
    }
}

impl Probe {
    fn is_well(&self, status: u16) -> bool {
        (self.0.status_min..=self.0.status_max).contains(&status)
    }

    /// None when nothing was tried.
    fn tried(&self, answered: Result<(bool, u64), PeerFailure>) -> Option<Tried> {
        match answered {
            Ok((is_well, elapsed_us)) => Some(Tried {
                is_well,
                elapsed_us: Some(elapsed_us),
            }),
            // It speaks, only more than the operator allows. An error's status comes without its body.
            Err(failure) if failure.fault == PeerFault::TooLarge => Some(Tried {
                is_well: self.is_well(200),
                elapsed_us: Some(failure.elapsed_us),
            }),
            Err(failure) if failure.fault.is_peers() => Some(Tried {
                is_well: false,
                elapsed_us: None,
            }),
            Err(_nothing_was_tried) => None,
        }
    }

    fn report(&self, batch: &mut Batch, protocol: &str, tried: Option<Tried>, now_ms: u64) {
        let Some(tried) = tried else { return };
        let labels = [self.0.name.as_str(), protocol];
        batch.push_integer(metric::POS_PROBE_SUCCESS, &labels, i64::from(tried.is_well), now_ms);
        if let Some(elapsed_us) = tried.elapsed_us {
            let micros = i64::try_from(elapsed_us).unwrap_or(i64::MAX);
            batch.push_integer(metric::POS_PROBE_DURATION, &labels, micros, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_sdk::testing::{golden, shown_settings};

    #[test]
    fn the_settings_shown_are_the_settings_taken() {
        let default = Settings::default();
        assert_eq!(shown_settings::<Settings>("."), [default.clone(), default]);
    }

    #[test]
    fn golden_cases_come_out_as_written() {
        golden::<Probe>(&descriptor(), "testcases");
    }
}
