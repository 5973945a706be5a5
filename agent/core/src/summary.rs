//! Intervals of event time that are not sent yet: merged windows with their worst score, by series.
//!
//! In: summaries of windows, late values, scores. Out: intervals, drained when closed.
//! A late value only ever adds: to an interval of its own start, which may be sent a second time.

use std::collections::BTreeMap;

use tillwatch_feed::message::{Interval, Row};
use tillwatch_feed::score::{Score, ScoreState};
use tillwatch_feed::summary::Summary;

use crate::detect::Verdict;
use crate::window::{ROW_BYTES, cost};

/// The worst window of an interval, and what is missing over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WorstScore {
    pub(crate) score: Score,
    /// Expected minus actual, summed.
    pub(crate) missing: f64,
    pub(crate) windows: u32,
    /// Levels have a mean difference, totals a sum.
    pub(crate) level: bool,
}

impl WorstScore {
    pub(crate) fn add(&mut self, verdict: &Verdict, level: bool) {
        let first = self.windows == 0;
        let worse = verdict.log10_p < self.score.log10_p;
        // A window that is too young to be judged says nothing beside one that is not.
        let better_known = self.score.state != ScoreState::Ok && verdict.state == ScoreState::Ok;
        let as_known = self.score.state == verdict.state;
        if first || better_known || (worse && as_known) {
            self.score.state = verdict.state;
            self.score.log10_p = verdict.log10_p;
            self.score.effect = verdict.effect;
        }
        self.score.alarm |= verdict.alarm;
        self.missing += verdict.expected - verdict.actual;
        self.level = level;
        self.windows += 1;
    }

    fn finish(self) -> Score {
        let per = if self.level {
            f64::from(self.windows.max(1))
        } else {
            1.0
        };
        let missing = crate::value::to_whole((self.missing / per).round()).unwrap_or(0);
        Score { missing, ..self.score }.quantized()
    }
}

/// One series in one interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OpenRow {
    pub(crate) summary: Summary,
    pub(crate) score: Option<WorstScore>,
}

impl OpenRow {
    /// Bytes that it takes in a checkpoint at most.
    pub(crate) fn cost(&self) -> usize {
        let is_empty = self.summary.count == 0 && self.score.is_some();
        if is_empty { ROW_BYTES } else { cost(&self.summary) }
    }
}

/// The open intervals by start and length.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Intervals {
    pub(crate) open: BTreeMap<(u64, u32), BTreeMap<u32, OpenRow>>,
}

impl Intervals {
    /// The row of a series in the interval that holds `time_ms`.
    pub(crate) fn row(&mut self, time_ms: u64, length_ms: u32, series: u32, histogram: bool) -> &mut OpenRow {
        let start_ms = time_ms - time_ms % u64::from(length_ms.max(1));
        let rows = self.open.entry((start_ms, length_ms)).or_default();
        rows.entry(series).or_insert_with(|| OpenRow {
            summary: crate::window::empty(histogram),
            score: None,
        })
    }

    /// Intervals that have ended by `end_ms`, oldest first.
    pub(crate) fn drain_closed(&mut self, end_ms: u64) -> Vec<Interval> {
        let closed: Vec<(u64, u32)> = self
            .open
            .keys()
            .filter(|(start, length)| start + u64::from(*length) <= end_ms)
            .copied()
            .collect();
        closed.into_iter().filter_map(|key| self.close(key)).collect()
    }

    /// The oldest intervals, whether closed or not.
    pub(crate) fn drain_oldest(&mut self, n: usize) -> Vec<Interval> {
        let oldest: Vec<(u64, u32)> = self.open.keys().take(n).copied().collect();
        oldest.into_iter().filter_map(|key| self.close(key)).collect()
    }

    /// All rows of some series, whether closed or not.
    pub(crate) fn drain_rows(&mut self, is_wanted: impl Fn(u32) -> bool) -> Vec<Interval> {
        let mut drained = Intervals::default();
        for (key, rows) in &mut self.open {
            let (wanted, others) = std::mem::take(rows)
                .into_iter()
                .partition(|(series, _row)| is_wanted(*series));
            *rows = others;
            drained.open.insert(*key, wanted);
        }
        for open in [&mut self.open, &mut drained.open] {
            open.retain(|_key, rows| !rows.is_empty());
        }
        drained.drain_oldest(usize::MAX)
    }

    pub(crate) fn uses(&self, series: u32) -> bool {
        self.open.values().any(|rows| rows.contains_key(&series))
    }

    fn close(&mut self, key: (u64, u32)) -> Option<Interval> {
        let rows = self.open.remove(&key)?;
        let row = |(series, row): (u32, OpenRow)| Row {
            series,
            summary: row.summary,
            score: row.score.map(WorstScore::finish),
        };
        Some(Interval {
            start_ms: key.0,
            length_ms: key.1,
            rows: rows.into_iter().map(row).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(state: ScoreState, log10_p: f32, missing: f64) -> Verdict {
        Verdict {
            state,
            log10_p,
            effect: -log10_p,
            expected: missing,
            actual: 0.0,
            severity: 0.0,
            alarm: false,
            mean: 0.0,
            sd: 1.0,
            anomaly_score: 0.0,
        }
    }

    #[test]
    fn an_interval_has_the_score_of_its_worst_window_and_all_that_is_missing() {
        let mut worst = WorstScore::default();
        for (log10_p, missing) in [(-1.0, 2.0), (-4.0, 3.0), (-2.0, -1.0)] {
            worst.add(&verdict(ScoreState::Ok, log10_p, missing), false);
        }
        let score = worst.finish();
        assert_eq!((score.log10_p, score.effect, score.missing), (-4.0, 4.0, 4));
        assert_eq!(
            WorstScore { level: true, ..worst }.finish().missing,
            1,
            "levels have a mean"
        );
    }

    #[test]
    fn a_window_that_was_judged_counts_more_than_one_that_was_not() {
        let mut worst = WorstScore::default();
        worst.add(&verdict(ScoreState::Warming, 0.0, 0.0), false);
        worst.add(&verdict(ScoreState::Ok, -0.3, 0.0), false);
        worst.add(&verdict(ScoreState::Warming, 0.0, 0.0), false);
        assert_eq!((worst.score.state, worst.score.log10_p), (ScoreState::Ok, -0.3));
    }

    #[test]
    fn closed_intervals_are_drained_oldest_first_and_a_late_value_opens_its_own_again() {
        let mut intervals = Intervals::default();
        for time_ms in [130_000, 65_000, 5_000] {
            intervals.row(time_ms, 60_000, 1, false).summary.record(7, 7.0);
        }
        let starts: Vec<u64> = intervals
            .drain_closed(120_000)
            .iter()
            .map(|interval| interval.start_ms)
            .collect();
        assert_eq!(starts, [0, 60_000]);
        intervals.row(61_000, 60_000, 1, false).summary.record(9, 9.0);
        let late = intervals.drain_closed(120_000);
        assert_eq!((late.len(), late[0].rows[0].summary.sum), (1, 9));
        assert_eq!(intervals.open.len(), 1);
    }
}
