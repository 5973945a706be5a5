//! When to try to connect again.
//!
//! In: bounds and a seed. Out: waiting times with full jitter, so that a fleet does not come back all at once.
//! It never waits by itself.

use std::time::Duration;

use super::UplinkSettings;

/// When to try again.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) first_ms_max: u64,
    ms_max: u64,
    pub(super) failures: u32,
    random: fastrand::Rng,
}

impl Retry {
    pub(super) fn new(settings: &UplinkSettings) -> Self {
        Self {
            first_ms_max: settings.first_retry_ms_max,
            ms_max: settings.retry_ms_max,
            failures: 0,
            random: fastrand::Rng::with_seed(settings.seed),
        }
    }

    /// Full jitter: anywhere between at once and the bound, which doubles with each failure.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = self.first_ms_max.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        Duration::from_millis(self.random.u64(0..=doubled.min(self.ms_max.max(self.first_ms_max))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::BrokerAddress;

    #[test]
    fn retries_are_spread_over_a_window_that_doubles_up_to_its_bound() {
        let site = "store-1".parse().unwrap();
        let mut settings = UplinkSettings::new(
            BrokerAddress {
                host: "::1".to_owned(),
                port: 1,
                is_secure: false,
            },
            None,
            site,
            "a".parse().unwrap(),
        );
        settings.first_retry_ms_max = 1000;
        settings.retry_ms_max = 3000;
        settings.seed = 7;
        for (failures, bound) in [(0, 1000), (1, 2000), (2, 3000), (40, 3000)] {
            let mut retry = Retry::new(&settings);
            let waits: Vec<u128> = (0..400)
                .map(|_| {
                    retry.failures = failures;
                    retry.next().as_millis()
                })
                .collect();
            let most = waits.iter().copied().max().unwrap();
            assert!(most <= bound && most > bound * 9 / 10, "{failures} failures: {most}");
            assert!(waits.iter().copied().min().unwrap() < bound / 10);
        }
    }
}
