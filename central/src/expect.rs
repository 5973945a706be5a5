//! How many transactions a site should make: its own past at the same local weekday and time.
//!
//! In: transactions, amounts and what was reported, by event time and in any order; all of it adds.
//! Out: per minute and per quarter of an hour what was sold, what was to be expected, and whether the site reported.
//! A site whose sales are not reported is unknown, never zero, whatever else it reports. It never looks at other sites (see `cost`) and never asks for the time.

pub mod columns;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub const MINUTE_MS: u64 = 60_000;
/// Length of a slot of the roll-up; 672 make a week.
pub const QUARTER_MS: u64 = 15 * MINUTE_MS;
/// Slots of a week.
pub const WEEK_QUARTERS: u64 = 672;
/// How long quarters are kept: six weeks, so that five whole ones are always there.
pub const QUARTERS_KEPT: u64 = 6 * WEEK_QUARTERS;
/// Quarters around the present whose baselines are kept ready.
const NEAR_KEPT: u64 = 64;
/// How long single minutes are kept.
pub const MINUTES_KEPT: u64 = 48 * 60;
/// Weeks of the past that an expectation looks at.
pub const WEEKS_USED: u64 = 5;
/// On both sides.
const VALUES_MAX: usize = 10;
/// Fewer same weekdays than this say nothing.
pub const WEEKS_MIN: usize = 2;
/// Minutes of a quarter that must have been reported for it to count as history.
pub const COVERED_MIN: u32 = 8;

const UNKNOWN: u16 = u16::MAX;

/// A quarter of an hour of one site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Quarter {
    transactions: u32,
    /// One bit per reported minute.
    covered: u16,
    amount_minor: i64,
}

/// What one site sold, bounded: about 70 KB.
#[derive(Debug)]
pub struct SiteSales {
    zone: TimeZone,
    /// Ring by local quarter since 1970.
    quarters: Vec<Quarter>,
    newest_quarter: u64,
    /// Ring by UTC minute since 1970.
    minutes: Vec<u16>,
    newest_minute: u64,
    /// Baselines of the last hours by local quarter, reckoned once; empty when history has changed.
    near: Vec<(u64, Option<f64>)>,
    /// Until when the site has reported anything, UTC.
    heard_ms: u64,
    /// Until when its sales were reported, UTC.
    covered_ms: u64,
    /// Reports sales at all.
    sells: bool,
    currency: Option<String>,
}

/// A sum over sites or time of what was sold and what was to be expected where both are known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub actual: f64,
    pub baseline: f64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.actual += other.actual;
        self.baseline += other.baseline;
    }
}

impl SiteSales {
    pub fn new(zone: TimeZone) -> SiteSales {
        SiteSales {
            zone,
            quarters: Vec::new(),
            newest_quarter: 0,
            minutes: Vec::new(),
            newest_minute: 0,
            near: Vec::new(),
            heard_ms: 0,
            covered_ms: 0,
            sells: false,
            currency: None,
        }
    }

    /// The site has reported something until then; that says nothing of its sales.
    pub fn hear(&mut self, end_ms: u64) {
        self.heard_ms = self.heard_ms.max(end_ms);
    }

    /// The site has reported its sales of this interval, whatever they were.
    pub fn cover(&mut self, start_ms: u64, length_ms: u64) {
        let end_ms = start_ms + length_ms.max(1);
        for minute in start_ms / MINUTE_MS..end_ms.div_ceil(MINUTE_MS) {
            let local = self.local_ms(minute * MINUTE_MS);
            if let Some(quarter) = self.quarter_mut(local / QUARTER_MS) {
                quarter.covered |= 1 << (local % QUARTER_MS / MINUTE_MS);
            }
            if let Some(count) = self.minute_mut(minute).filter(|count| **count == UNKNOWN) {
                *count = 0;
            }
        }
        self.covered_ms = self.covered_ms.max(end_ms);
        self.hear(end_ms);
    }

    /// Adds transactions to the interval that began then; false when it is too long ago.
    pub fn add_transactions(&mut self, start_ms: u64, transactions: u32) -> bool {
        self.sells = true;
        if let Some(count) = self.minute_mut(start_ms / MINUTE_MS) {
            let before = if *count == UNKNOWN { 0 } else { *count };
            *count = before
                .saturating_add(u16::try_from(transactions).unwrap_or(UNKNOWN))
                .min(UNKNOWN - 1);
        }
        let local = self.local_ms(start_ms) / QUARTER_MS;
        let quarter = self.quarter_mut(local);
        quarter
            .map(|quarter| quarter.transactions = quarter.transactions.saturating_add(transactions))
            .is_some()
    }

    /// Adds money to the interval that began then; false when it is too long ago.
    pub fn add_amount(&mut self, start_ms: u64, amount_minor: i64, currency: Option<&str>) -> bool {
        if self.currency.is_none() {
            self.currency = currency.map(str::to_owned);
        }
        let local = self.local_ms(start_ms) / QUARTER_MS;
        let quarter = self.quarter_mut(local);
        quarter
            .map(|quarter| quarter.amount_minor = quarter.amount_minor.saturating_add(amount_minor))
            .is_some()
    }

    /// Transactions of a quarter of the past as the archive kept it, and how much of it was reported; by which minutes is
    /// not known any more. Of several series the one that was reported longest counts.
    pub fn restore(&mut self, slot_ms: u64, transactions: u32, covered_ms: u64) {
        self.sells = true;
        let local = self.local_ms(slot_ms) / QUARTER_MS;
        if let Some(quarter) = self.quarter_mut(local) {
            quarter.transactions = quarter.transactions.saturating_add(transactions);
            let minutes = covered_ms.min(QUARTER_MS).div_ceil(MINUTE_MS);
            quarter.covered |= (1 << minutes) - 1;
        }
    }

    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    pub fn sells(&self) -> bool {
        self.sells
    }

    pub fn currency(&self) -> Option<&str> {
        self.currency.as_deref()
    }

    /// Transactions of a UTC minute; `None` when the site did not report all of it.
    pub fn minute(&self, minute: u64) -> Option<u32> {
        let kept = minute <= self.newest_minute && minute + MINUTES_KEPT > self.newest_minute;
        if !kept || self.minutes.is_empty() || (minute + 1) * MINUTE_MS > self.covered_ms {
            return None;
        }
        let count = self.minutes[index(minute, MINUTES_KEPT)];
        (count != UNKNOWN).then_some(u32::from(count))
    }

    /// Transactions, amount and covered share of the quarter that begins then; `None` when nothing of it was reported.
    pub fn quarter(&self, start_ms: u64) -> Option<(u32, i64, f64)> {
        let quarter = self.known(self.local_ms(start_ms) / QUARTER_MS)?;
        let share = f64::from(quarter.covered.count_ones()) / 15.0;
        (quarter.covered != 0).then_some((quarter.transactions, quarter.amount_minor, share))
    }

    /// Expected transactions of the quarter that begins then, from the same weekdays before `before_ms` without itself.
    pub fn baseline(&self, start_ms: u64, before_ms: u64) -> Option<f64> {
        let at = self.local_ms(start_ms) / QUARTER_MS;
        let before = self.local_ms(before_ms) / QUARTER_MS;
        match self.near.get(index(at, NEAR_KEPT)) {
            // Within the last week only the past is looked at, whatever `before` is.
            Some((quarter, baseline)) if *quarter == at && at + WEEK_QUARTERS > before + 1 => *baseline,
            _ => self.smoothed(at, before),
        }
    }

    /// Reckons the baselines around `now_ms` ahead, since many will ask for them.
    pub fn prepare(&mut self, now_ms: u64) {
        if !self.sells {
            return;
        }
        let now = self.local_ms(now_ms) / QUARTER_MS;
        self.near.resize(index(NEAR_KEPT - 1, u64::MAX) + 1, (0, None));
        for at in now.saturating_sub(NEAR_KEPT - 4)..now + 3 {
            if self.near[index(at, NEAR_KEPT)].0 != at {
                self.near[index(at, NEAR_KEPT)] = (at, self.smoothed(at, at));
            }
        }
    }

    /// Neighbors make it steadier, but nothing is smoothed over opening and closing.
    fn smoothed(&self, at: u64, before: u64) -> Option<f64> {
        let middle = self.same_weekdays(at, before)?;
        if middle <= 0.0 {
            return Some(0.0);
        }
        let neighbor = |at| {
            self.same_weekdays(at, before)
                .filter(|value| *value > 0.0)
                .unwrap_or(middle)
        };
        Some((neighbor(at - 1) + 2.0 * middle + neighbor(at + 1)) / 4.0)
    }

    /// Trimmed mean of this slot in other weeks.
    fn same_weekdays(&self, at: u64, before: u64) -> Option<f64> {
        let mut values = [0.0; VALUES_MAX];
        let mut found = 0;
        let weeks =
            (1..=WEEKS_USED).flat_map(|week| [at.checked_sub(week * WEEK_QUARTERS), Some(at + week * WEEK_QUARTERS)]);
        for other in weeks.flatten().filter(|&other| other < before) {
            let Some(quarter) = self
                .known(other)
                .filter(|quarter| quarter.covered.count_ones() >= COVERED_MIN)
            else {
                continue;
            };
            values[found] = f64::from(quarter.transactions) * 15.0 / f64::from(quarter.covered.count_ones());
            found += 1;
        }
        (found >= WEEKS_MIN).then(|| trimmed_mean(&mut values[..found]))
    }

    fn known(&self, quarter: u64) -> Option<Quarter> {
        let kept = quarter <= self.newest_quarter && quarter + QUARTERS_KEPT > self.newest_quarter;
        (kept && !self.quarters.is_empty()).then(|| self.quarters[index(quarter, QUARTERS_KEPT)])
    }

    fn quarter_mut(&mut self, quarter: u64) -> Option<&mut Quarter> {
        advance(
            &mut self.quarters,
            &mut self.newest_quarter,
            quarter,
            QUARTERS_KEPT,
            Quarter::default(),
        );
        let kept = quarter + QUARTERS_KEPT > self.newest_quarter;
        if quarter + WEEK_QUARTERS < self.newest_quarter + NEAR_KEPT {
            self.near.clear();
        }
        kept.then(|| &mut self.quarters[index(quarter, QUARTERS_KEPT)])
    }

    fn minute_mut(&mut self, minute: u64) -> Option<&mut u16> {
        advance(
            &mut self.minutes,
            &mut self.newest_minute,
            minute,
            MINUTES_KEPT,
            UNKNOWN,
        );
        let kept = minute + MINUTES_KEPT > self.newest_minute;
        kept.then(|| &mut self.minutes[index(minute, MINUTES_KEPT)])
    }

    /// Milliseconds of the local calendar; the hour that is there twice in autumn adds to the same slots.
    pub fn local_ms(&self, utc_ms: u64) -> u64 {
        let timestamp = i64::try_from(utc_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let Some(timestamp) = timestamp else { return utc_ms };
        utc_ms.saturating_add_signed(i64::from(self.zone.to_offset(timestamp).seconds()) * 1_000)
    }
}

/// Makes room for `at` in a ring, forgetting what falls out.
fn advance<T: Clone>(ring: &mut Vec<T>, newest: &mut u64, at: u64, kept: u64, empty: T) {
    if ring.is_empty() {
        *ring = vec![empty; index(kept - 1, u64::MAX) + 1];
        *newest = at;
        return;
    }
    for fresh in (*newest + 1..=at).take(ring.len()) {
        ring[index(fresh, kept)] = empty.clone();
    }
    if at > *newest + kept {
        ring.fill(empty);
    }
    *newest = at.max(*newest);
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "smaller than the ring, which is in memory"
)]
fn index(at: u64, kept: u64) -> usize {
    (at % kept) as usize
}

/// Mean without the smallest and the largest when there are four or more; one or two days off do no harm.
fn trimmed_mean(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let trim = if values.len() >= 7 {
        2
    } else {
        usize::from(values.len() >= 4)
    };
    let kept = &values[trim..values.len() - trim];
    kept.iter().sum::<f64>() / f64::from(u32::try_from(kept.len()).unwrap_or(u32::MAX))
}

/// The baselines of the minutes of a quarter: lines between the middles of the quarters.
pub fn minute_baselines(sales: &SiteSales, quarter_ms: u64, before_ms: u64) -> [Option<f64>; 15] {
    let Some(here) = sales.baseline(quarter_ms, before_ms) else {
        return [None; 15];
    };
    let neighbor = |at_ms| {
        sales
            .baseline(at_ms, before_ms)
            .filter(|value| *value > 0.0 && here > 0.0)
            .unwrap_or(here)
    };
    let (left, right) = (neighbor(quarter_ms - QUARTER_MS), neighbor(quarter_ms + QUARTER_MS));
    std::array::from_fn(|minute| {
        #[expect(clippy::cast_precision_loss, reason = "0 to 14")]
        let within = minute as f64 + 0.5;
        let (other, weight) = if within < 7.5 {
            (left, 7.5 - within)
        } else {
            (right, within - 7.5)
        };
        Some((here + (other - here) * weight / 15.0) / 15.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday, 00:00 UTC.
    const MONDAY: u64 = 1_767_571_200_000;

    fn week_of(sales: &mut SiteSales, week: u64, per_quarter: impl Fn(u64) -> u32) {
        for quarter in 0..WEEK_QUARTERS {
            let start = MONDAY + (week * WEEK_QUARTERS + quarter) * QUARTER_MS;
            sales.cover(start, QUARTER_MS);
            sales.add_transactions(start, per_quarter(quarter));
        }
    }

    #[test]
    fn the_past_of_the_same_weekday_is_expected_and_one_odd_week_does_no_harm() {
        let mut sales = SiteSales::new(TimeZone::UTC);
        for week in 0..5 {
            week_of(&mut sales, week, |quarter| {
                if week == 2 {
                    0
                } else {
                    10 + u32::from(quarter / 96 == 1) * 5
                }
            });
        }
        let now = MONDAY + 5 * WEEK_QUARTERS * QUARTER_MS;
        assert_eq!(sales.baseline(now + 40 * QUARTER_MS, now), Some(10.0));
        assert_eq!(sales.baseline(now + (96 + 40) * QUARTER_MS, now), Some(15.0));
    }

    #[test]
    fn a_silent_minute_is_unknown_and_a_reported_one_without_sales_is_zero() {
        let mut sales = SiteSales::new(TimeZone::UTC);
        sales.cover(MONDAY, MINUTE_MS);
        sales.cover(MONDAY + 3 * MINUTE_MS, MINUTE_MS);
        let first = MONDAY / MINUTE_MS;
        assert_eq!(
            (sales.minute(first), sales.minute(first + 1), sales.minute(first + 4)),
            (Some(0), None, None)
        );
        sales.add_transactions(MONDAY + MINUTE_MS, 3);
        sales.cover(MONDAY + MINUTE_MS, MINUTE_MS);
        sales.add_transactions(MONDAY + MINUTE_MS, 2);
        assert_eq!(sales.minute(first + 1), Some(5));
        let (transactions, _, share) = sales.quarter(MONDAY).unwrap();
        assert_eq!((transactions, share), (5, 3.0 / 15.0));
    }

    /// The till's log could not be read any more, and what the host still said turned unknown sales into none.
    #[test]
    fn hearing_of_a_site_does_not_make_its_sales_known() {
        let mut sales = SiteSales::new(TimeZone::UTC);
        sales.cover(MONDAY, MINUTE_MS);
        sales.hear(MONDAY + 5 * MINUTE_MS);
        let first = MONDAY / MINUTE_MS;
        assert_eq!((sales.minute(first), sales.minute(first + 1)), (Some(0), None));
        assert_eq!(sales.heard_ms(), MONDAY + 5 * MINUTE_MS);
    }

    /// Five minutes of a quarter became fifteen at a restart, so that the quarter looked like one with few customers.
    #[test]
    fn a_quarter_that_was_reported_in_part_is_so_after_a_restart() {
        let mut sales = SiteSales::new(TimeZone::UTC);
        sales.restore(MONDAY, 4, 3 * MINUTE_MS);
        sales.restore(MONDAY, 2, 5 * MINUTE_MS);
        assert_eq!(sales.quarter(MONDAY), Some((6, 0, 5.0 / 15.0)));
        sales.restore(MONDAY + QUARTER_MS, 6, 4 * QUARTER_MS);
        assert_eq!(sales.quarter(MONDAY + QUARTER_MS), Some((6, 0, 1.0)));
    }

    #[test]
    fn two_weeks_are_too_few_for_leaving_one_out_and_silent_weeks_do_not_count() {
        let mut sales = SiteSales::new(TimeZone::UTC);
        week_of(&mut sales, 0, |_| 10);
        assert_eq!(
            sales.baseline(MONDAY + 700 * QUARTER_MS, MONDAY + 700 * QUARTER_MS),
            None
        );
        week_of(&mut sales, 3, |_| 20);
        let now = MONDAY + 4 * WEEK_QUARTERS * QUARTER_MS;
        assert_eq!(sales.baseline(now + 8 * QUARTER_MS, now), Some(15.0));
    }

    #[test]
    fn trading_hours_stay_local_when_the_clocks_change() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let mut sales = SiteSales::new(zone);
        // Five Wednesdays at 09:00 local before the change of 29 March 2026, so 08:00 UTC; one after it, at 07:00 UTC.
        let wednesday = 1_771_977_600_000 + 8 * 3_600_000;
        for week in 0..5 {
            let start = wednesday + week * WEEK_QUARTERS * QUARTER_MS;
            sales.cover(start, QUARTER_MS);
            sales.add_transactions(start, 40);
        }
        let after = wednesday + 5 * WEEK_QUARTERS * QUARTER_MS - 3_600_000;
        assert_eq!(sales.baseline(after, after), Some(40.0));
        assert_eq!(sales.baseline(after + 3_600_000, after), None);
    }

    #[test]
    fn what_fell_out_of_the_ring_is_forgotten() {
        let mut sales = SiteSales::new(TimeZone::UTC);
        sales.cover(MONDAY, MINUTE_MS);
        sales.add_transactions(MONDAY, 5);
        assert!(sales.add_transactions(MONDAY + (QUARTERS_KEPT - 1) * QUARTER_MS, 1));
        assert!(sales.quarter(MONDAY).is_some());
        sales.cover(MONDAY + QUARTERS_KEPT * QUARTER_MS, MINUTE_MS);
        assert_eq!((sales.quarter(MONDAY), sales.minute(MONDAY / MINUTE_MS)), (None, None));
        assert!(!sales.add_transactions(MONDAY, 5));
        assert_eq!(
            sales.quarter(MONDAY + QUARTERS_KEPT * QUARTER_MS),
            Some((0, 0, 1.0 / 15.0))
        );
    }
}
