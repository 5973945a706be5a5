//! The one source of time: wall time, time that starts anywhere and runs at any speed, or time that somebody tells.
//!
//! In: nothing, a start and a speed, or what the driver of a replay says. Out: UTC milliseconds, and waiting for them.
//! Live, backfill, replay and demo differ in this value alone. TLS and reconnecting stay on real time and never ask it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// Wall time may be set while we wait, so no single sleep is longer.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Cheap to clone; all clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Wall,
    Scaled { start_ms: u64, speed: f64, begun: Instant },
    Told(watch::Sender<u64>),
}

impl Clock {
    /// The machine's time.
    #[must_use]
    pub fn wall() -> Self {
        Self(Arc::new(Kind::Wall))
    }

    /// Starts now at `start_ms` and runs `speed` times as fast as the machine's time.
    #[must_use]
    pub fn scaled(start_ms: u64, speed: f64) -> Self {
        Self(Arc::new(Kind::Scaled {
            start_ms,
            speed,
            begun: Instant::now(),
        }))
    }

    /// Stands still at what it was told last.
    #[must_use]
    pub fn told(start_ms: u64) -> Self {
        Self(Arc::new(Kind::Told(watch::Sender::new(start_ms))))
    }

    /// UTC milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &*self.0 {
            Kind::Wall => to_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Kind::Scaled { start_ms, speed, begun } => start_ms.saturating_add(to_ms(begun.elapsed().mul_f64(*speed))),
            Kind::Told(now) => *now.borrow(),
        }
    }

    /// Moves a told clock, never back; other clocks are not told anything.
    pub fn tell(&self, now_ms: u64) {
        if let Kind::Told(now) = &*self.0 {
            now.send_if_modified(|old| {
                let is_later = now_ms > *old;
                *old = now_ms.max(*old);
                is_later
            });
        }
    }

    /// How long `ms` of this clock last in reality; a told clock gives no answer.
    #[must_use]
    pub fn real_duration(&self, ms: u64) -> Option<Duration> {
        match &*self.0 {
            Kind::Wall => Some(Duration::from_millis(ms)),
            Kind::Scaled { speed, .. } => Some(Duration::from_millis(ms).div_f64(*speed)),
            Kind::Told(_) => None,
        }
    }

    /// Waits until the clock shows `ms` or more.
    pub async fn sleep_until(&self, ms: u64) {
        if let Kind::Told(now) = &*self.0 {
            // The sender lives in `self`, so the only way on is being told.
            if now.subscribe().wait_for(|now| *now >= ms).await.is_ok() {
                return;
            }
        }
        loop {
            let missing_ms = ms.saturating_sub(self.now_ms());
            if missing_ms == 0 {
                return;
            }
            // A millisecond more than rounding takes away, so that the loop ends.
            let missing = self.real_duration(missing_ms).unwrap_or(SLEEP_MAX) + Duration::from_millis(1);
            tokio::time::sleep(missing.min(SLEEP_MAX)).await;
        }
    }
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fast_clock_reaches_a_late_time_soon() {
        let clock = Clock::scaled(1_000_000, 10_000.0);
        clock.sleep_until(1_050_000).await;
        assert!(clock.now_ms() >= 1_050_000);
        assert_eq!(clock.real_duration(10_000), Some(Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn a_told_clock_wakes_its_sleepers_and_never_goes_back() {
        let clock = Clock::told(5);
        let other = clock.clone();
        let sleeper = tokio::spawn(async move { other.sleep_until(7).await });
        clock.tell(6);
        clock.tell(8);
        clock.tell(3);
        sleeper.await.unwrap();
        assert_eq!(clock.now_ms(), 8);
    }
}
