//! When a plugin is not called: it pauses after a failure, has used up its share of the processor or of the spool, or is in
//! quarantine.
//!
//! In: how long its calls took, what they brought, how they ended, and the time. Out: whether it may be called now. It asks no clock.
//! What waits meanwhile waits in its sources, so nothing is lost.

use std::time::{Duration, Instant};

/// Calls that are left out after a failure, doubled with each further one, up to so many.
const PAUSE_CALLS_MAX: u32 = 64;
/// So often a plugin may break its bounds before it comes into quarantine: in a row, with the pauses, hours.
pub const OFFENSES_MAX: u32 = 32;
/// So many good calls make up for one offense: who fails with each second call is an offender all the same.
pub const GOOD_CALLS_PER_OFFENSE: u32 = 64;
/// So long it is then not called; if its next call fails as well, so long again.
pub const QUARANTINE: Duration = Duration::from_secs(24 * 3600);
/// A plugin that was idle may use the share of so long at once.
const SHARE_BURST: Duration = Duration::from_secs(60);
/// Bytes of records about the past: a twentieth of the spool at once, for a day of a busy log, and then so much a minute,
/// so that what is not delivered yet of others stays.
const HISTORY_BYTES: u64 = 4 << 20;
const HISTORY_BYTES_PER_MINUTE: u64 = 64 << 10;
/// Who has used up its share waits at least so long, and then works for longer than a moment.
const SHARE_WAIT_MIN: Duration = Duration::from_secs(1);

/// Why a plugin is not called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// After a failure, for some calls.
    Pause,
    /// It had its share of the processor; more after so long.
    Share(Duration),
    /// It has told much of the past; more after so long.
    History(Duration),
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
    history: Option<Share>,
    /// In a row.
    failures: u32,
    /// Broken bounds, less those that good calls made up for.
    offenses: u32,
    /// Since the last offense that was made up for.
    good_calls: u32,
    pause_calls: u32,
    quarantined_until: Option<Instant>,
}

/// A bucket that fills as time passes; a call may overdraw it.
#[derive(Debug)]
struct Share {
    /// It fills with so much in this time.
    rate: (u64, Duration),
    left_max: i64,
    left: i64,
    at: Instant,
}

impl Restraint {
    /// `percent` of one processor core and the share of the spool, or without bounds.
    #[must_use]
    pub fn new(share_percent: Option<u32>, now: Instant) -> Self {
        let second_us = |percent: u32| (u64::from(percent) * 10_000, Duration::from_secs(1));
        let share = |percent| {
            let rate = second_us(percent);
            Share::new(rate, rate.0 * SHARE_BURST.as_secs(), now)
        };
        let minute = (HISTORY_BYTES_PER_MINUTE, Duration::from_secs(60));
        Self {
            share: share_percent.map(share),
            history: share_percent.map(|_bounded| Share::new(minute, HISTORY_BYTES, now)),
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
        let wait = |share: &mut Option<Share>| share.as_mut()?.wait(now);
        let held = wait(&mut self.share).map(Held::Share);
        held.or_else(|| wait(&mut self.history).map(Held::History))
    }

    #[must_use]
    pub fn is_quarantined(&self, now: Instant) -> bool {
        self.quarantined_until.is_some_and(|until| now < until)
    }

    pub fn on_busy(&mut self, busy_us: u64, now: Instant) {
        if let Some(share) = &mut self.share {
            share.take(busy_us, now);
        }
    }

    /// A call brought so many bytes about the past.
    pub fn on_history(&mut self, bytes: u64, now: Instant) {
        if let Some(history) = &mut self.history {
            history.take(bytes, now);
        }
    }

    pub fn on_success(&mut self) {
        self.failures = 0;
        self.good_calls = self.good_calls.saturating_add(1);
        if self.good_calls >= GOOD_CALLS_PER_OFFENSE {
            self.good_calls = 0;
            self.offenses = self.offenses.saturating_sub(1);
        }
    }

    /// Whether quarantine begins with it.
    pub fn on_failure(&mut self, fault: Fault, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        // The first failure is tried again at once, at the next regular call.
        self.pause_calls = (1_u32 << (self.failures - 1).min(16)).min(PAUSE_CALLS_MAX) - 1;
        fault == Fault::Offense && self.on_offense(now)
    }

    /// It broke a bound, also without a failure. Whether quarantine begins with it.
    pub fn on_offense(&mut self, now: Instant) -> bool {
        self.offenses += 1;
        let is_enough = self.offenses >= OFFENSES_MAX;
        if is_enough {
            // After the day it has one try.
            self.offenses = OFFENSES_MAX - 1;
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

    #[cfg(test)]
    pub(super) fn share_left_us(&self) -> i64 {
        self.share.as_ref().map_or(0, |share| share.left)
    }

    /// A person has looked after it: pauses and quarantine end.
    pub fn pardon(&mut self) {
        self.failures = 0;
        self.offenses = 0;
        self.pause_calls = 0;
        self.quarantined_until = None;
    }
}

impl Share {
    fn new(rate: (u64, Duration), left_max: u64, now: Instant) -> Self {
        let left_max = i64::try_from(left_max).unwrap_or(i64::MAX);
        Self {
            rate,
            left_max,
            left: left_max,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let (much, time) = self.rate;
        let passed = now.saturating_duration_since(self.at);
        let more = passed.as_micros() * u128::from(much) / time.as_micros();
        // Less than one is not lost: it comes with the next.
        if more > 0 {
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(more).min(self.left_max);
            self.at = now;
        }
    }

    fn take(&mut self, much: u64, now: Instant) {
        self.fill(now);
        self.left = self.left.saturating_sub_unsigned(much);
    }

    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        if self.left > 0 {
            return None;
        }
        let (much, time) = self.rate;
        let missing = u128::from(self.left.unsigned_abs()) + 1;
        let wait_us = missing * time.as_micros() / u128::from(much.max(1));
        let wait = Duration::from_micros(u64::try_from(wait_us).unwrap_or(u64::MAX));
        Some(wait.max(SHARE_WAIT_MIN))
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
        assert!(restraint.on_failure(Fault::Offense, now), "one good call is no pardon");
        now += QUARANTINE;
        (0..GOOD_CALLS_PER_OFFENSE * OFFENSES_MAX).for_each(|_call| restraint.on_success());
        assert!(!restraint.on_failure(Fault::Offense, now));
        assert_eq!(restraint.held(now), None, "as if nothing had been");
    }

    /// A plugin that looped in each second call ended the process of all for ever: one good call made up for everything.
    #[test]
    fn who_breaks_its_bounds_with_each_second_call_comes_into_quarantine_and_with_each_hundredth_never() {
        let now = Instant::now();
        let calls_until_quarantine = |good_between: u32| {
            let mut restraint = Restraint::new(None, now);
            (0..10_000_u32).step_by(1 + good_between as usize).find(|_call| {
                (0..good_between).for_each(|_call| restraint.on_success());
                restraint.on_failure(Fault::Offense, now)
            })
        };
        assert_eq!(calls_until_quarantine(1), Some(62));
        assert_eq!(calls_until_quarantine(99), None);
    }

    /// One call may bring 100,000 minutes of the past: they drove out what others had not delivered yet.
    #[test]
    fn who_tells_much_of_the_past_is_put_off_until_it_has_its_share_of_the_spool() {
        let begun = Instant::now();
        let mut restraint = Restraint::new(Some(5), begun);
        restraint.on_history(HISTORY_BYTES - 1, begun);
        assert_eq!(restraint.held(begun), None);
        restraint.on_history(HISTORY_BYTES_PER_MINUTE, begun);
        let Some(Held::History(wait)) = restraint.held(begun) else {
            panic!("it goes on")
        };
        assert_eq!(wait.as_secs(), 60);
        assert_eq!(restraint.held(begun + wait), None);
        let mut backfill = Restraint::new(None, begun);
        backfill.on_history(u64::MAX, begun);
        assert_eq!(backfill.held(begun), None);
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
