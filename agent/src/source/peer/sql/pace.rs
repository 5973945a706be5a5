//! When a query may run: once in an interval, and at once while a bound ends its tables and the cursor moves on.
//!
//! In: the time and the cursor of each question. Out: whether it may be asked. It asks nothing itself.
//! What was asked counts with the commit of its call; a call that failed is repeated, and then asks again.

use std::time::{Duration, Instant};

use tillwatch_border::Cursor;

/// Tables of one interval: the rest of what a till wrote while nobody asked comes with the next.
pub(super) const TABLES_MAX: u32 = 20;
/// Calls do not come to the millisecond: so large a part of the interval, one in so many, is not waited for.
const TOLERANCE: u32 = 10;

/// See the module.
pub(super) struct Pace {
    interval_min: Duration,
    asked: Asked,
    committed: Asked,
}

#[derive(Clone, Default)]
struct Asked {
    /// When the next interval begins.
    due: Option<Instant>,
    tables: u32,
    /// Where the last table went on from.
    after: Option<Cursor>,
    /// A bound ended it.
    is_cut: bool,
}

impl Pace {
    pub(super) fn new(interval_min: Duration) -> Self {
        Self {
            interval_min,
            asked: Asked::default(),
            committed: Asked::default(),
        }
    }

    /// # Errors
    /// Why the query may not run yet.
    pub(super) fn admit(&self, now: Instant, after: Option<&Cursor>) -> Result<(), String> {
        let asked = &self.asked;
        if asked.due.is_none_or(|due| now >= due) {
            return Ok(());
        }
        if !asked.is_cut || after.is_none() || asked.after.as_ref() == after {
            return Err("it was asked before interval_min was over".to_owned());
        }
        if asked.tables >= TABLES_MAX {
            return Err(format!(
                "it was asked for more than {TABLES_MAX} tables in interval_min"
            ));
        }
        Ok(())
    }

    pub(super) fn on_table(&mut self, now: Instant, after: Option<Cursor>, is_cut: bool) {
        let asked = &mut self.asked;
        if asked.due.is_none_or(|due| now >= due) {
            asked.due = Some(now + self.interval_min - self.interval_min / TOLERANCE);
            asked.tables = 0;
        }
        asked.tables += 1;
        (asked.after, asked.is_cut) = (after, is_cut);
    }

    /// There was no table: the next call may ask.
    pub(super) fn on_failure(&mut self) {
        self.asked = Asked::default();
    }

    pub(super) fn commit(&mut self) {
        self.committed = self.asked.clone();
    }

    pub(super) fn rollback(&mut self) {
        self.asked = self.committed.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(integer: i64) -> Option<Cursor> {
        Some(Cursor::Integer(integer))
    }

    #[test]
    fn a_query_runs_once_in_an_interval_a_little_early_at_most() {
        let (mut pace, begun) = (Pace::new(INTERVAL), Instant::now());
        assert!(pace.admit(begun, None).is_ok());
        pace.on_table(begun, None, false);
        pace.commit();
        for (after_ms, is_admitted) in [(0, false), (8_900, false), (9_000, true), (10_000, true)] {
            let now = begun + Duration::from_millis(after_ms);
            assert_eq!(pace.admit(now, None).is_ok(), is_admitted, "{after_ms}");
        }
    }

    /// A plugin that trapped was called again and told that it asked too soon.
    #[test]
    fn a_call_that_is_repeated_asks_again_and_so_does_one_after_a_failure() {
        let (mut pace, now) = (Pace::new(INTERVAL), Instant::now());
        pace.on_table(now, None, false);
        assert!(pace.admit(now, None).is_err(), "twice in one call");
        pace.rollback();
        assert!(pace.admit(now, None).is_ok());
        pace.on_failure();
        pace.commit();
        assert!(pace.admit(now, None).is_ok());
        pace.on_table(now, None, false);
        pace.commit();
        pace.rollback();
        assert!(pace.admit(now, None).is_err(), "what was committed stays asked");
    }

    /// A plugin that gave the same cursor again and again read the same rows without an interval.
    #[test]
    fn a_table_that_was_cut_is_followed_at_once_only_by_another_cursor_and_not_for_ever() {
        let (mut pace, now) = (Pace::new(INTERVAL), Instant::now());
        pace.on_table(now, at(0), true);
        assert!(pace.admit(now, at(0).as_ref()).is_err());
        assert!(pace.admit(now, None).is_err());
        for cursor in 1..i64::from(TABLES_MAX) {
            assert!(pace.admit(now, at(cursor).as_ref()).is_ok(), "{cursor}");
            pace.on_table(now, at(cursor), true);
            pace.commit();
        }
        assert!(pace.admit(now, at(100).as_ref()).is_err());
        let next = now + INTERVAL;
        assert!(pace.admit(next, at(100).as_ref()).is_ok());
        pace.on_table(next, at(100), true);
        assert!(pace.admit(next, at(101).as_ref()).is_ok(), "the count begins anew");
        pace.on_table(next, at(101), false);
        assert!(pace.admit(next, at(102).as_ref()).is_err(), "it was whole");
    }
}
