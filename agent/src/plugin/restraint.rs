//! When a plugin is not called: it pauses after a failure, has used up its share of the processor, or is in quarantine.
//!
//! In: how long its calls took, how they ended, and the time. Out: whether it may be called now. It asks no clock.
//! What waits meanwhile waits in its sources, so nothing is lost.

use std::time::{Duration, Instant};

/// Calls that are left out after a failure, doubled with each further one, up to so many.
const PAUSE_CALLS_MAX: u32 = 64;
/// So often in a row a plugin may break its bounds before it comes into quarantine: with the pauses, hours.
pub const OFFENSES_MAX: u32 = 32;
/// So long it is then not called; if its next call fails as well, so long again.
pub const QUARANTINE: Duration = Duration::from_secs(24 * 3600);
/// A plugin that was idle may use the share of so long at once.
const SHARE_BURST: Duration = Duration::from_secs(60);
/// Who has used up its share waits at least so long, and then works for longer than a moment.
const SHARE_WAIT_MIN: Duration = Duration::from_secs(1);

/// Why a plugin is not called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// After a failure, for some calls.
    Pause,
    /// It had its share of the processor; more after so long.
    Share(Duration),
    Quarantine,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It told a fault, or was not to blame.
    Told,
    /// It broke a bound: trapped, took too long, wanted too much, ended its process.
    Offense,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Restraint {
    share: Option<Share>,
    /// In a row.
    failures: u32,
    /// Of these, those that broke a bound.
    offenses: u32,
    pause_calls: u32,
    quarantined_until: Option<Instant>,
}

/// A bucket of processor time that fills as time passes; a call may overdraw it.
#[derive(Debug)]
struct Share {
    percent: u32,
    left_us: i64,
    at: Instant,
}

impl Restraint {
    /// `percent` of one processor core, or without a bound.
    #[must_use]
    pub fn new(share_percent: Option<u32>, now: Instant) -> Self {
        Self {
            share: share_percent.map(|percent| Share::new(percent, now)),
            ..Self::default()
        }
    }

    /// Why it may not be called now, if so; a pause is then one call shorter.
    pub fn held(&mut self, now: Instant) -> Option<Held> {
        if self.is_quarantined(now) {
            return Some(Held::Quarantine);
        }
        if self.pause_calls > 0 {
            self.pause_calls -= 1;
            return Some(Held::Pause);
        }
        let wait = self.share.as_mut()?.wait(now)?;
        Some(Held::Share(wait))
    }

    #[must_use]
    pub fn is_quarantined(&self, now: Instant) -> bool {
        self.quarantined_until.is_some_and(|until| now < until)
    }

    pub fn on_busy(&mut self, busy_us: u64, now: Instant) {
        if let Some(share) = &mut self.share {
            share.fill(now);
            share.left_us = share.left_us.saturating_sub_unsigned(busy_us);
        }
    }

    pub fn on_success(&mut self) {
        self.failures = 0;
        self.offenses = 0;
    }

    /// Whether quarantine begins with it.
    pub fn on_failure(&mut self, fault: Fault, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.offenses = self.offenses.saturating_add(u32::from(fault == Fault::Offense));
        // The first failure is tried again at once, at the next regular call.
        self.pause_calls = (1_u32 << (self.failures - 1).min(16)).min(PAUSE_CALLS_MAX) - 1;
        let is_enough = fault == Fault::Offense && self.offenses >= OFFENSES_MAX;
        if is_enough {
            self.pause_calls = 0;
            self.quarantined_until = now.checked_add(QUARANTINE);
        }
        is_enough
    }

    /// In a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// That are left out now.
    #[must_use]
    pub fn pause_calls(&self) -> u32 {
        self.pause_calls
    }

    /// A person has looked after it: pauses and quarantine end.
    pub fn pardon(&mut self) {
        self.on_success();
        self.pause_calls = 0;
        self.quarantined_until = None;
    }
}

impl Share {
    fn new(percent: u32, now: Instant) -> Self {
        let mut share = Self {
            percent,
            left_us: 0,
            at: now,
        };
        share.left_us = share.burst_us();
        share
    }

    fn burst_us(&self) -> i64 {
        self.of(SHARE_BURST)
    }

    fn of(&self, time: Duration) -> i64 {
        i64::try_from(time.as_micros() * u128::from(self.percent) / 100).unwrap_or(i64::MAX)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.left_us = self.left_us.saturating_add(self.of(passed)).min(self.burst_us());
        self.at = now;
    }

    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        if self.left_us > 0 {
            return None;
        }
        let missing_us = self.left_us.unsigned_abs() + 1;
        let wait_us = missing_us.saturating_mul(100) / u64::from(self.percent.max(1));
        Some(Duration::from_micros(wait_us).max(SHARE_WAIT_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A backlog took a whole core until it was read, on the till's machine.
    #[test]
    fn a_plugin_that_always_has_work_gets_its_share_and_no_more() {
        let begun = Instant::now();
        let mut restraint = Restraint::new(Some(5), begun);
        let (mut now, mut busy) = (begun, Duration::ZERO);
        while now < begun + 600 * SECOND {
            match restraint.held(now) {
                Some(Held::Share(wait)) => now += wait,
                Some(other) => panic!("{other:?}"),
                None => {
                    let call = Duration::from_millis(40);
                    now += call;
                    busy += call;
                    restraint.on_busy(40_000, now);
                }
            }
        }
        // 5 % of ten minutes, and of the minute before.
        assert!((32.9..33.1).contains(&busy.as_secs_f64()), "{busy:?}");
    }

    #[test]
    fn an_idle_plugin_saves_up_a_minute_and_one_without_a_share_is_never_held() {
        let begun = Instant::now();
        let mut restraint = Restraint::new(Some(5), begun);
        let later = begun + 24 * 3600 * SECOND;
        restraint.on_busy(2_999_000, later);
        assert_eq!(restraint.held(later), None);
        restraint.on_busy(251_000, later);
        assert_eq!(
            restraint.held(later),
            Some(Held::Share(Duration::from_micros(5_000_020)))
        );
        let mut free = Restraint::new(None, begun);
        free.on_busy(u64::MAX, begun);
        assert_eq!(free.held(begun), None);
    }

    #[test]
    fn an_offender_pauses_longer_and_longer_and_then_for_a_day() {
        let mut now = Instant::now();
        let mut restraint = Restraint::new(None, now);
        let mut left_out = Vec::new();
        loop {
            if restraint.on_failure(Fault::Offense, now) {
                break;
            }
            let mut calls = 0;
            while restraint.held(now) == Some(Held::Pause) {
                calls += 1;
            }
            left_out.push(calls);
        }
        assert_eq!(left_out[..8], [0, 1, 3, 7, 15, 31, 63, 63]);
        assert_eq!(left_out.len() + 1, OFFENSES_MAX as usize);
        assert_eq!(restraint.held(now + QUARANTINE - SECOND), Some(Held::Quarantine));
        now += QUARANTINE;
        assert_eq!(restraint.held(now), None, "one try after the day");
        assert!(restraint.on_failure(Fault::Offense, now), "and another day");
        now += QUARANTINE;
        restraint.on_success();
        assert!(!restraint.on_failure(Fault::Offense, now));
        assert_eq!(restraint.held(now), None, "as if nothing had been");
    }

    #[test]
    fn who_tells_its_faults_pauses_and_never_comes_into_quarantine() {
        let now = Instant::now();
        let mut restraint = Restraint::new(None, now);
        let faults = (0..1_000).filter(|_| restraint.on_failure(Fault::Told, now)).count();
        assert_eq!((faults, restraint.held(now)), (0, Some(Held::Pause)));
        restraint.pardon();
        assert_eq!(restraint.held(now), None);
    }
}
