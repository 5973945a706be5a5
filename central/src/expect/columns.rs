//! Four weeks of quarters of a group of sites: sold, expected and paid, summed once so that many windows can be asked for.
//!
//! In: the sales of single sites. Out: sums over any window. Each quarter is expected from other weeks, never from itself.

use super::{QUARTER_MS, SiteSales, Tally};

/// Days of the past that are tabled: where placebo windows are taken from.
pub const DAYS_TABLED: u64 = 28;
const DAY_QUARTERS: u64 = 96;
/// Quarters that are summed again on each update, since late data corrects them.
const LATE_QUARTERS: u64 = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cell {
    tally: Tally,
    amount_minor: f64,
}

/// Consecutive quarters of a group.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    first: u64,
    cells: Vec<Cell>,
    /// Expectations look at what lies before this.
    before_ms: u64,
}

impl Columns {
    /// The quarters up to and with that of `now_ms`.
    pub fn of(sales: &[SiteSales], sites: &[usize], now_ms: u64) -> Columns {
        let mut columns = Columns::default();
        columns.update(sales, sites, now_ms);
        columns
    }

    /// Brings the quarters up to `now_ms`; once a day everything is summed again.
    pub fn update(&mut self, sales: &[SiteSales], sites: &[usize], now_ms: u64) {
        let now = now_ms / QUARTER_MS;
        let today = now - now % DAY_QUARTERS;
        if self.before_ms != today * QUARTER_MS || self.cells.is_empty() {
            self.before_ms = today * QUARTER_MS;
            self.first = today.saturating_sub((DAYS_TABLED + 1) * DAY_QUARTERS).max(1);
            self.cells.clear();
        }
        let done = self.end().saturating_sub(LATE_QUARTERS).max(self.first);
        self.cells.truncate(usize::try_from(done - self.first).unwrap_or(0));
        for quarter in done..=now {
            self.cells
                .push(cell(sales, sites, quarter * QUARTER_MS, self.before_ms));
        }
    }

    /// Number of the quarter behind the last one.
    pub fn end(&self) -> u64 {
        self.first + self.cells.len() as u64
    }

    /// Sum over `quarters` from number `from` on; what is not tabled adds nothing.
    pub fn tally(&self, from: u64, quarters: u64) -> Tally {
        let mut sum = Tally::default();
        self.window(from, quarters).iter().for_each(|cell| sum += cell.tally);
        sum
    }

    /// Money paid in those quarters, in minor units.
    pub fn amount_minor(&self, from: u64, quarters: u64) -> f64 {
        self.window(from, quarters).iter().map(|cell| cell.amount_minor).sum()
    }

    /// True when the whole window is tabled.
    pub fn holds(&self, from: u64, quarters: u64) -> bool {
        from >= self.first && from + quarters <= self.end()
    }

    /// The sum of several groups without another one.
    pub fn sum<'c>(groups: impl Iterator<Item = &'c Columns>, without: Option<&Columns>) -> Columns {
        let mut sum = Columns::default();
        for group in groups {
            if sum.cells.is_empty() {
                sum = group.clone();
            } else {
                sum.add(group, 1.0);
            }
        }
        if let Some(without) = without {
            sum.add(without, -1.0);
        }
        sum
    }

    fn add(&mut self, other: &Columns, sign: f64) {
        let from = self.first;
        for (offset, cell) in self.cells.iter_mut().enumerate() {
            let Some(theirs) = other.cell(from + offset as u64) else {
                continue;
            };
            cell.tally.actual += sign * theirs.tally.actual;
            cell.tally.baseline += sign * theirs.tally.baseline;
            cell.amount_minor += sign * theirs.amount_minor;
        }
    }

    fn cell(&self, quarter: u64) -> Option<&Cell> {
        self.cells.get(usize::try_from(quarter.checked_sub(self.first)?).ok()?)
    }

    fn window(&self, from: u64, quarters: u64) -> &[Cell] {
        let position = |quarter: u64| {
            usize::try_from(quarter.saturating_sub(self.first))
                .unwrap_or(usize::MAX)
                .min(self.cells.len())
        };
        &self.cells[position(from)..position(from + quarters)]
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a mean basket is a measure; sums of money stay whole"
)]
fn cell(sales: &[SiteSales], sites: &[usize], start_ms: u64, before_ms: u64) -> Cell {
    let mut cell = Cell::default();
    for &site in sites {
        let Some((transactions, amount_minor, share)) = sales[site].quarter(start_ms) else {
            continue;
        };
        let Some(baseline) = sales[site].baseline(start_ms, before_ms) else {
            continue;
        };
        cell.tally += Tally {
            actual: f64::from(transactions),
            baseline: baseline * share,
        };
        cell.amount_minor += amount_minor as f64;
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::{MINUTE_MS, WEEK_QUARTERS};
    use jiff::tz::TimeZone;

    const MONDAY: u64 = 1_767_571_200_000;

    fn site(weeks: u64, per_quarter: u32) -> SiteSales {
        let mut sales = SiteSales::new(TimeZone::UTC);
        for quarter in 0..weeks * WEEK_QUARTERS {
            sales.cover(MONDAY + quarter * QUARTER_MS, QUARTER_MS);
            sales.add_transactions(MONDAY + quarter * QUARTER_MS, per_quarter);
            sales.add_amount(MONDAY + quarter * QUARTER_MS, 100, Some("EUR"));
        }
        sales
    }

    #[test]
    fn windows_sum_what_was_sold_and_expected_over_the_sites_that_reported() {
        let now = MONDAY + 5 * WEEK_QUARTERS * QUARTER_MS;
        let mut sales = [site(5, 4), site(5, 6)];
        sales[0].cover(now, 3 * MINUTE_MS);
        sales[0].add_transactions(now, 1);
        let columns = Columns::of(&sales, &[0, 1], now);
        let today = now / QUARTER_MS;
        assert_eq!(
            columns.tally(today - 8, 8),
            Tally {
                actual: 80.0,
                baseline: 80.0
            }
        );
        assert!((columns.amount_minor(today - 8, 8) - 1600.0).abs() < 1e-6);
        assert_eq!(
            columns.tally(today, 1),
            Tally {
                actual: 1.0,
                baseline: 4.0 * 3.0 / 15.0
            }
        );
        let one = Columns::sum([&columns].into_iter(), Some(&Columns::of(&sales, &[1], now)));
        assert_eq!(
            one.tally(today - 8, 8),
            Tally {
                actual: 32.0,
                baseline: 32.0
            }
        );
    }

    #[test]
    fn an_update_takes_late_data_in() {
        let now = MONDAY + 5 * WEEK_QUARTERS * QUARTER_MS + 4 * QUARTER_MS;
        let mut sales = [site(5, 4)];
        let mut columns = Columns::of(&sales, &[0], now);
        sales[0].cover(now - 2 * QUARTER_MS, QUARTER_MS);
        sales[0].add_transactions(now - 2 * QUARTER_MS, 9);
        columns.update(&sales, &[0], now + QUARTER_MS);
        assert_eq!(
            columns.tally(now / QUARTER_MS - 2, 1),
            Tally {
                actual: 9.0,
                baseline: 4.0
            }
        );
        assert_eq!(columns.end(), now / QUARTER_MS + 2);
        assert!(columns.holds(now / QUARTER_MS, 2) && !columns.holds(now / QUARTER_MS, 3));
    }
}
