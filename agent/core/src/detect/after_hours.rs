//! Activity while the store is closed: its own test, as one sale at night is no great residual and still news.
//!
//! In: windows that the calendar says are closed, and whether there was anything in them. Out: 1 at the bar, which is
//! three windows with something, of which each hour without any takes one away.

use super::calendar::Occasion;
use super::slot::Pace;
use super::{Shape, to_f32};

/// One is a correction of the books.
const BAR: f32 = 3.0;
/// So that it can end.
const MOST: f32 = 6.0;
const HOUR_MS: u32 = 3_600_000;

/// Windows with something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct AfterHours(pub(crate) f32);

impl AfterHours {
    pub(crate) fn step(&mut self, pace: &Pace, shape: Shape, occasion: Occasion, actual: f64) {
        if shape != Shape::Count || !occasion.is_closed() {
            self.0 = 0.0;
        } else if actual.abs() > 0.0 {
            self.0 = (self.0 + 1.0).min(MOST);
        } else {
            self.0 = (self.0 - to_f32(pace.window_ms) / to_f32(HOUR_MS)).max(0.0);
        }
    }

    /// 1 = at the bar.
    pub(crate) fn severity(self) -> f32 {
        self.0 / BAR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(windows: &[(Occasion, f64)]) -> f32 {
        let pace = Pace::new(600_000);
        let mut activity = AfterHours::default();
        for (occasion, actual) in windows {
            activity.step(&pace, Shape::Count, *occasion, *actual);
        }
        activity.severity()
    }

    #[test]
    fn some_sales_while_closed_are_news_and_one_or_any_while_open_are_not() {
        let (closed, usual) = (Occasion::Closed, Occasion::Usual);
        assert!(after(&[(closed, 1.0); 3]) >= 1.0);
        assert!(after(&[(Occasion::Holiday, 1.0); 3]) >= 1.0);
        assert!(after(&[(closed, 1.0), (closed, 0.0), (closed, 1.0)]) < 1.0);
        assert!(after(&[(usual, 1.0); 9]) < 0.1);
        assert!(after(&[(closed, 1.0), (closed, 1.0), (usual, 4.0), (closed, 1.0)]) < 0.5);
    }

    #[test]
    fn what_was_hours_ago_is_forgotten() {
        let quiet = [(Occasion::Closed, 0.0); 6];
        let sale = (Occasion::Closed, 1.0);
        let with_pauses: Vec<_> = std::iter::once(sale)
            .chain(quiet)
            .chain([sale])
            .chain(quiet)
            .chain([sale])
            .collect();
        assert!(after(&with_pauses) < 0.5);
    }
}
