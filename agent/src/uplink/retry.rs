//! When to try to connect again.
//!
//! In: bounds, a seed, what the center announces. Out: waiting times with full jitter, so that a fleet does not come back
//! all at once. It never waits by itself.

use std::time::Duration;

use tillwatch_feed::message::Config;

use super::UplinkSettings;

/// When to try again.
#[derive(Debug)]
pub(super) struct Retry {
    /// Of the settings.
    own_ms_max: u64,
    first_ms_max: u64,
    ms_max: u64,
    failures: u32,
    random: fastrand::Rng,
}

impl Retry {
    pub(super) fn new(settings: &UplinkSettings) -> Self {
        Self {
            own_ms_max: settings.first_retry_ms_max,
            first_ms_max: settings.first_retry_ms_max,
            ms_max: settings.retry_ms_max,
            failures: 0,
            random: fastrand::Rng::with_seed(settings.seed),
        }
    }

    /// Full jitter: anywhere between at once and the bound, which doubles with each failure.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = self.first_ms_max.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(self.random.u64(0..=doubled.min(self.ms_max.max(self.first_ms_max))))
    }

    /// The connection stands.
    pub(super) fn connected(&mut self) {
        self.failures = 0;
    }

    /// The center spreads the return of its fleet over a window of its own, which holds until it says otherwise: it is
    /// retained, so each connection hears it again.
    pub(super) fn announced(&mut self, config: &Config) {
        let window_ms = u64::from(config.spread_window_s) * 1000;
        self.first_ms_max = match window_ms {
            0 => self.own_ms_max,
            window_ms => window_ms.min(self.ms_max),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::BrokerAddress;

    fn settings(seed: u64) -> UplinkSettings {
        let broker = BrokerAddress {
            host: "::1".to_owned(),
            port: 1,
            is_secure: false,
        };
        UplinkSettings {
            seed,
            ..UplinkSettings::new(broker, None, "store-1".parse().unwrap(), "a".parse().unwrap())
        }
    }

    /// How many of these come in each of ten equal parts of the window, and whether none comes later.
    fn tenths(waits: impl Iterator<Item = Duration>, window_ms: u128) -> [usize; 10] {
        let mut counts = [0; 10];
        for wait in waits {
            assert!(wait.as_millis() <= window_ms, "{wait:?}");
            counts[usize::try_from(wait.as_millis() * 10 / (window_ms + 1)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn retries_are_spread_over_a_window_that_doubles_up_to_its_bound() {
        let mut settings = settings(7);
        settings.first_retry_ms_max = 1000;
        settings.retry_ms_max = 3000;
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

    /// Stores that differ in nothing but their seed.
    #[test]
    fn a_fleet_that_lost_its_broker_comes_back_evenly_within_a_minute_and_later_within_two() {
        let mut fleet: Vec<Retry> = (0..10_000).map(|seed| Retry::new(&settings(seed))).collect();
        for window_ms in [60_000, 120_000, 120_000] {
            let counts = tenths(fleet.iter_mut().map(Retry::next), window_ms);
            assert!(counts.iter().all(|count| (850..=1_150).contains(count)), "{counts:?}");
        }
        fleet.iter_mut().for_each(Retry::connected);
        tenths(fleet.iter_mut().map(Retry::next), 60_000);
    }

    #[test]
    fn an_announced_window_holds_for_the_next_return_until_the_center_says_otherwise() {
        let config = |spread_window_s| Config { spread_window_s };
        let mut fleet: Vec<Retry> = (0..10_000).map(|seed| Retry::new(&settings(seed))).collect();
        for (announced_s, window_ms) in [(15, 15_000), (3_600, 120_000), (0, 60_000)] {
            fleet.iter_mut().for_each(|retry| {
                retry.announced(&config(announced_s));
                retry.connected();
            });
            let counts = tenths(fleet.iter_mut().map(Retry::next), window_ms);
            assert!(counts.iter().all(|count| (850..=1_150).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn a_seed_replays() {
        let waits = |seed| {
            let mut retry = Retry::new(&settings(seed));
            (0..9).map(|_| retry.next()).collect::<Vec<_>>()
        };
        assert_eq!(waits(5), waits(5));
        assert_ne!(waits(5), waits(6));
    }
}
