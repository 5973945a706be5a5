//! One series on its own, for those who have no store around it: a benchmark, a file of the past.
//!
//! In: values of windows in order, each with its half-hour. Out: verdicts, findings, the memory as bytes.
//! It does with them exactly what the store's mind does.

use super::alarm::{Alarm, OpenFinding};
use super::calendar::Occasion;
use super::slot::{Pace, Slot};
use super::transform::Shape;
use super::{Detector, Verdict, single};
use crate::checkpoint;
use crate::settings::RestoreError;

/// A detector, its alarm, and the length of its windows.
///
/// ```
/// use tillwatch_core::detect::{Judge, Shape, Slot};
///
/// let mut judge = Judge::new(Shape::Latency, 10_000);
/// for window in 0..360_u64 {
///     let start_ms = window * 10_000;
///     let slot = Slot::at(start_ms, &jiff::tz::TimeZone::UTC);
///     let verdict = judge.step(slot, start_ms, Some(80_000.0));
///     assert!(verdict.is_some_and(|verdict| !verdict.alarm));
/// }
/// let again = Judge::restore(&judge.snapshot(), 10_000).unwrap();
/// assert_eq!(again, judge);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Judge {
    pub(crate) pace: Pace,
    pub(crate) detector: Detector,
    pub(crate) alarm: Alarm,
}

/// What the alarm says of a finding: when it opens, when it has grown by half, when it closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// 1 when it opens.
    pub revision: u32,
    pub closed: bool,
    /// The first window beyond the bar.
    pub start_ms: u64,
    /// Start of the last window beyond half the bar.
    pub last_ms: u64,
    /// Start of the worst window.
    pub peak_ms: u64,
    /// At the peak, 1 = at the bar.
    pub severity: f32,
    pub log10_p: f32,
    /// In standard deviations; negative when there is less than expected.
    pub effect: f32,
    pub expected: f64,
    pub actual: f64,
}

impl Judge {
    /// A judge that knows nothing yet.
    #[must_use]
    pub fn new(shape: Shape, window_ms: u32) -> Judge {
        Judge {
            pace: Pace::new(window_ms),
            detector: Detector::new(shape, None),
            alarm: Alarm::default(),
        }
    }

    /// A judge of a level that was declared to lie between `low` and `high`, in the metric's smallest units.
    #[must_use]
    pub fn of_range(low: f64, high: f64, window_ms: u32) -> Judge {
        Judge {
            detector: Detector::new(Shape::Level, Some((low, high))),
            ..Judge::new(Shape::Level, window_ms)
        }
    }

    /// Judges the window that starts at `start_ms`, then learns from it; nothing is said of a window without a value.
    ///
    /// `value` is in the metric's smallest units: the microseconds of a latency, the cents of an amount.
    pub fn step(&mut self, slot: Slot, start_ms: u64, value: Option<f64>) -> Option<Verdict> {
        self.step_on((slot, Occasion::Usual), start_ms, value)
    }

    /// The same of a window of which a [`super::calendar::Calendar`] knows something.
    pub fn step_on(&mut self, place: (Slot, Occasion), start_ms: u64, value: Option<f64>) -> Option<Verdict> {
        match value {
            Some(value) => Some(
                self.detector
                    .step_on(&self.pace, place, start_ms, value, &mut self.alarm),
            ),
            None => {
                self.detector.skip(&mut self.alarm);
                None
            }
        }
    }

    /// What there is to tell of a finding since the last window. It is no part of the snapshot.
    pub fn take_finding(&mut self) -> Option<Finding> {
        self.alarm.take_news().map(|(open, closed)| Finding::new(&open, closed))
    }

    /// Everything that decides what the next windows are judged.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        checkpoint::judge_to(&self.detector, &self.alarm, self.pace.window_ms)
    }

    /// Goes on, to the bit, where the snapshot was taken.
    ///
    /// # Errors
    /// When it is no snapshot of this version, or one of windows of another length.
    pub fn restore(snapshot: &[u8], window_ms: u32) -> Result<Judge, RestoreError> {
        let (detector, alarm) = checkpoint::judge_from(snapshot, window_ms)?;
        Ok(Judge {
            pace: Pace::new(window_ms),
            detector,
            alarm,
        })
    }
}

impl Finding {
    fn new(open: &OpenFinding, closed: bool) -> Finding {
        Finding {
            revision: open.revision,
            closed,
            start_ms: open.start_ms,
            last_ms: open.last_ms,
            peak_ms: open.peak.start_ms,
            severity: open.peak.severity,
            log10_p: single(libm::log10(f64::from(open.peak.p))),
            effect: open.peak.effect,
            expected: open.peak.expected,
            actual: open.peak.actual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_MS: u32 = 300_000;

    /// Two weeks of an even latency, and then one that is five times as slow for an hour.
    fn told(judge: &mut Judge, windows: std::ops::Range<u64>) -> Vec<Finding> {
        let mut told = Vec::new();
        for window in windows {
            let start_ms = window * u64::from(WINDOW_MS);
            let slot = Slot::at(start_ms, &jiff::tz::TimeZone::UTC);
            let factor = if (5_000..5_012).contains(&window) { 5.0 } else { 1.0 };
            let noise = f64::from(u32::try_from(window * 7_919 % 101).unwrap());
            judge.step(slot, start_ms, Some((50_000.0 + noise * 200.0) * factor));
            told.extend(judge.take_finding());
        }
        told
    }

    #[test]
    fn a_finding_opens_and_closes_and_says_what_was_expected() {
        let mut judge = Judge::new(Shape::Latency, WINDOW_MS);
        let told = told(&mut judge, 0..5_100);
        let (first, last) = (told[0], told[told.len() - 1]);
        assert!(
            told.iter().filter(|finding| finding.revision == 1).count() == 1,
            "{told:?}"
        );
        assert!((5_000..5_012).contains(&(first.start_ms / u64::from(WINDOW_MS))));
        assert!(last.closed && last.effect > 4.0 && (50_000.0..71_000.0).contains(&last.expected));
    }

    #[test]
    fn a_judge_that_was_put_away_goes_on_to_the_bit_and_in_windows_of_its_length_only() {
        let mut judge = Judge::new(Shape::Latency, WINDOW_MS);
        told(&mut judge, 0..5_006);
        assert!(judge.alarm.is_open());
        let mut again = Judge::restore(&judge.snapshot(), WINDOW_MS).unwrap();
        assert_eq!(told(&mut again, 5_006..5_300), told(&mut judge, 5_006..5_300));
        assert_eq!(again, judge);
        assert!(Judge::restore(&judge.snapshot(), 10_000).is_err());
        assert!(Judge::restore(b"no snapshot", WINDOW_MS).is_err());
    }
}
