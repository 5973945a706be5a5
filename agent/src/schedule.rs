//! When each collector is called: every `interval_ms`, at an offset of its own.
//!
//! In: names and the time. Out: the next due time. It asks no clock.
//! The offset is a hash of site and collector, so that neither the stores of a chain nor the plugins of a store
//! all work in the same instant, and so that it is the same after a restart.

/// The due times of one collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval_ms: u64,
    offset_ms: u64,
}

impl Schedule {
    /// `interval_ms` is at least 1.
    #[must_use]
    pub fn new(interval_ms: u64, site: &str, collector: &str) -> Self {
        let interval_ms = interval_ms.max(1);
        let bytes = site.bytes().chain([0]).chain(collector.bytes());
        // FNV-1a: the same on every machine and in every version.
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self {
            interval_ms,
            offset_ms: (hash ^ (hash >> 32)) % interval_ms,
        }
    }

    /// The first due time after `now_ms`; times that were missed are not made up for.
    #[must_use]
    pub fn next_after(&self, now_ms: u64) -> u64 {
        let since_offset = now_ms.saturating_sub(self.offset_ms);
        let next = (since_offset / self.interval_ms + 1)
            .saturating_mul(self.interval_ms)
            .saturating_add(self.offset_ms);
        if now_ms < self.offset_ms { self.offset_ms } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_are_one_interval_apart_and_always_later() {
        let schedule = Schedule::new(10_000, "store-1", "sales");
        let mut now_ms = 1_700_000_000_123;
        let mut last = None;
        for _ in 0..5 {
            let next = schedule.next_after(now_ms);
            assert!(next > now_ms && next <= now_ms + 10_000);
            assert!(last.is_none_or(|last| next == last + 10_000));
            last = Some(next);
            now_ms = next;
        }
        assert!(Schedule::new(10_000, "s", "c").next_after(0) <= 10_000);
    }

    #[test]
    fn the_stores_of_a_chain_are_spread_over_the_interval() {
        let mut tenths = [0; 10];
        for site in 0..1_000 {
            let schedule = Schedule::new(10_000, &format!("store-{site:04}"), "sales");
            tenths[usize::try_from(schedule.offset_ms / 1_000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }
}
