//! How long each route has been silent, while the store is open.
//!
//! A request that hangs is in no access log before it ends: what a till that is dead leaves is the age of the last one.

use tillwatch_sdk::Batch;
use tillwatch_sdk::parse::Offset;

use crate::metric;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// The last request of each route.
#[derive(Debug)]
pub(crate) struct Silence {
    hours: Hours,
    /// By route, none before its first request.
    last_ms: Vec<Option<u64>>,
}

/// When requests are expected, in local time; the whole day when both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hours {
    from_ms: i64,
    until_ms: i64,
    ahead_ms: i64,
}

impl Silence {
    pub(crate) fn new(routes: usize, hours: Hours) -> Self {
        Self {
            hours,
            last_ms: vec![None; routes],
        }
    }

    /// A request of a route. One of the future, by a clock that is wrong, is one of now.
    pub(crate) fn observe(&mut self, route: usize, time_ms: u64, now_ms: u64) {
        if let Some(last_ms) = self.last_ms.get_mut(route) {
            *last_ms = (*last_ms).max(Some(time_ms.min(now_ms)));
        }
    }

    pub(crate) fn last_ms(&self) -> &[Option<u64>] {
        &self.last_ms
    }

    /// The age of each route's last request, but no older than the hours in which requests are expected.
    pub(crate) fn report(&mut self, routes: &[String], now_ms: u64, batch: &mut Batch) {
        let Some(begun_ms) = self.hours.begun_ms(now_ms) else {
            return;
        };
        for (last_ms, route) in self.last_ms.iter_mut().zip(routes) {
            let Some(last_ms) = last_ms else { continue };
            // The clock was set back.
            *last_ms = (*last_ms).min(now_ms);
            let age_ms = now_ms.saturating_sub((*last_ms).max(begun_ms));
            let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
            batch.push_integer(metric::HTTP_SERVER_LAST_REQUEST_AGE, &[route], age_ms, now_ms);
        }
    }
}

impl Hours {
    /// Reads `08:00-20:30`; the error says what to change.
    pub(crate) fn parse(text: &str, local: Offset) -> Result<Self, String> {
        let wrong = || format!("expected_hours: {text:?} is not of the form 08:00-20:30");
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (from, until) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self {
            from_ms: clock_ms(from).ok_or_else(wrong)?,
            until_ms: clock_ms(until).ok_or_else(wrong)?,
            ahead_ms: local.ahead_ms(),
        })
    }

    /// Since when requests are expected; none when they are not.
    fn begun_ms(self, now_ms: u64) -> Option<u64> {
        if self.from_ms == self.until_ms {
            return Some(0);
        }
        let local_ms = i64::try_from(now_ms).ok()?.checked_add(self.ahead_ms)?;
        let open_ms = self.until_ms.checked_sub(self.from_ms)?.rem_euclid(DAY_MS);
        let since_ms = local_ms.checked_sub(self.from_ms)?.rem_euclid(DAY_MS);
        if since_ms >= open_ms {
            return None;
        }
        now_ms.checked_sub(u64::try_from(since_ms).ok()?)
    }
}

/// `08:00` to `24:00`, as milliseconds of the day.
fn clock_ms(text: &str) -> Option<i64> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str| {
        let is_clock = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| is_clock)
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|minute| *minute < 60)?);
    let minutes = hour.checked_mul(60)?.checked_add(minute)?;
    (minutes <= 24 * 60).then_some(minutes.checked_mul(MINUTE_MS)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillwatch_sdk::Values;

    /// 2026-11-23 00:00 UTC.
    const MIDNIGHT_MS: u64 = 1_795_392_000_000;
    const HOUR_MS: u64 = 3_600_000;

    fn ages(silence: &mut Silence, now_ms: u64) -> Vec<i64> {
        let mut batch = Batch::default();
        silence.report(&["_other".to_owned(), "/pay".to_owned()], now_ms, &mut batch);
        let ages = batch.series().iter().map(|series| match &series.values {
            Values::Integers(ages) => ages.iter().sum(),
            Values::Reals(_) => unreachable!("ages are integers"),
        });
        ages.collect()
    }

    #[test]
    fn the_age_counts_from_the_opening_and_only_while_the_store_is_open() {
        let hours = Hours::parse("08:00-20:00", Offset::parse("+01:00").unwrap()).unwrap();
        let mut silence = Silence::new(2, hours);
        let at = |hour: u64| MIDNIGHT_MS + hour * HOUR_MS;
        assert_eq!(ages(&mut silence, at(9)), Vec::<i64>::new(), "no request yet");
        silence.observe(1, at(9), at(9));
        silence.observe(1, at(8), at(9));
        assert_eq!(ages(&mut silence, at(12)), [3 * 3_600_000]);
        assert_eq!(ages(&mut silence, at(19)), Vec::<i64>::new(), "closed at 20:00 local");
        assert_eq!(ages(&mut silence, at(24 + 6)), Vec::<i64>::new());
        assert_eq!(ages(&mut silence, at(24 + 7)), [0]);
        assert_eq!(ages(&mut silence, at(24 + 8)), [3_600_000]);
    }

    #[test]
    fn hours_may_reach_beyond_midnight() {
        let hours = Hours::parse("22:00-02:00", Offset::default()).unwrap();
        for (hour, begun) in [(21, None), (22, Some(22)), (25, Some(22)), (26, None)] {
            let now_ms = MIDNIGHT_MS + hour * HOUR_MS;
            assert_eq!(
                hours.begun_ms(now_ms),
                begun.map(|begun| MIDNIGHT_MS + begun * HOUR_MS),
                "{hour}"
            );
        }
        for wrong in ["8-20", "08:00", "08:00-25:00", "08:60-09:00", "+8:00-09:00"] {
            assert!(Hours::parse(wrong, Offset::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_clock_that_was_wrong_neither_silences_nor_goes_below_zero() {
        let mut silence = Silence::new(2, Hours::default());
        silence.observe(0, MIDNIGHT_MS + 400 * 24 * HOUR_MS, MIDNIGHT_MS);
        assert_eq!(ages(&mut silence, MIDNIGHT_MS + 1_000), [1_000]);
        assert_eq!(ages(&mut silence, MIDNIGHT_MS - 5_000), [0]);
        assert_eq!(ages(&mut silence, MIDNIGHT_MS), [5_000]);
    }
}
