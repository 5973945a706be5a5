//! Opens and closes findings: two windows beyond the bar open one, two quiet minutes close it.
//!
//! In: the evidence of each window. Out: changes of a finding to tell. Each finding raises the bar for the next one.

/// Beyond what is remembered by so much.
pub(crate) const MARGIN: f32 = 1.15;

/// Windows in a row beyond the bar that open a finding.
const OPEN_AFTER: u8 = 2;
/// Below half the bar for so long, and for so many windows, closes one.
const CLOSE_AFTER_MS: u64 = 120_000;
const CLOSE_AFTER: u8 = 2;

/// An open finding is told again when its severity has grown by so much.
const TOLD_AGAIN: f32 = 1.5;

/// Each finding raises the bar by this, up to the maximum; it sinks back within about a week of windows.
const HABITUATION: f32 = 1.1;
const HABITUATION_MAX: f32 = 2.0;
const HABITUATION_DECAY: f32 = 0.999_985;

/// What one window says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Evidence {
    pub(crate) start_ms: u64,
    pub(crate) window_ms: u32,
    /// 1 = at the bar.
    pub(crate) severity: f32,
    pub(crate) p: f32,
    pub(crate) effect: f32,
    pub(crate) expected: f64,
    pub(crate) actual: f64,
}

/// A finding that is open, or has just been closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenFinding {
    pub(crate) revision: u32,
    pub(crate) start_ms: u64,
    /// Start of the last window beyond half the bar.
    pub(crate) last_ms: u64,
    pub(crate) peak: Evidence,
    /// Severity when it was last told.
    pub(crate) told: f32,
}

/// The alarm of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Alarm {
    /// Factor on the bar, from findings before.
    pub(crate) habituation: f32,
    pub(crate) hot: u8,
    pub(crate) cool: u8,
    /// Start of the first of the windows that are hot now.
    pub(crate) hot_from_ms: u64,
    pub(crate) open: Option<OpenFinding>,
    /// What is to be told: the finding, and whether it is closed.
    pub(crate) news: Option<(OpenFinding, bool)>,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm {
            habituation: 1.0,
            hot: 0,
            cool: 0,
            hot_from_ms: 0,
            open: None,
            news: None,
        }
    }
}

impl Alarm {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What is to be told since the last call.
    pub(crate) fn take_news(&mut self) -> Option<(OpenFinding, bool)> {
        self.news.take()
    }

    pub(crate) fn step(&mut self, evidence: &Evidence) {
        self.habituation = 1.0 + (self.habituation - 1.0) * HABITUATION_DECAY;
        let evidence = Evidence {
            severity: evidence.severity / self.habituation,
            ..*evidence
        };
        match self.open {
            None => self.step_closed(&evidence),
            Some(open) => self.step_open(open, &evidence),
        }
    }

    /// There is no more data: an open finding ends where the data ended.
    pub(crate) fn give_up(&mut self) {
        self.hot = 0;
        if let Some(open) = self.open {
            self.close(open);
        }
    }

    fn step_closed(&mut self, evidence: &Evidence) {
        if evidence.severity < 1.0 {
            self.hot = 0;
            return;
        }
        if self.hot == 0 {
            self.hot_from_ms = evidence.start_ms;
        }
        self.hot += 1;
        if self.hot >= OPEN_AFTER {
            let (start_ms, last_ms) = (self.hot_from_ms, evidence.start_ms);
            let open = OpenFinding {
                revision: 1,
                start_ms,
                last_ms,
                peak: *evidence,
                told: evidence.severity,
            };
            self.open = Some(open);
            self.news = Some((open, false));
            self.cool = 0;
        }
    }

    fn step_open(&mut self, mut open: OpenFinding, evidence: &Evidence) {
        self.cool = if evidence.severity < 0.5 {
            self.cool.saturating_add(1)
        } else {
            0
        };
        if self.cool == 0 {
            open.last_ms = evidence.start_ms;
        }
        if evidence.severity > open.peak.severity {
            open.peak = *evidence;
        }
        let quiet_ms = evidence.start_ms.saturating_sub(open.last_ms);
        if self.cool >= CLOSE_AFTER && quiet_ms >= CLOSE_AFTER_MS {
            self.close(open);
            return;
        }
        if open.peak.severity >= open.told * TOLD_AGAIN {
            open.told = open.peak.severity;
            open.revision += 1;
            self.news = Some((open, false));
        }
        self.open = Some(open);
    }

    fn close(&mut self, mut open: OpenFinding) {
        open.revision += 1;
        self.news = Some((open, true));
        self.open = None;
        self.hot = 0;
        self.habituation = (self.habituation * HABITUATION).min(HABITUATION_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(alarm: &mut Alarm, severities: &[f32], from: u64) -> Vec<(u32, bool)> {
        let mut told = Vec::new();
        for (at, severity) in severities.iter().enumerate() {
            let start_ms = (from + at as u64) * 10_000;
            let evidence = Evidence {
                start_ms,
                window_ms: 10_000,
                severity: *severity,
                p: 1e-5,
                effect: -3.0,
                expected: 3.0,
                actual: 0.0,
            };
            alarm.step(&evidence);
            told.extend(alarm.take_news().map(|(open, closed)| (open.revision, closed)));
        }
        told
    }

    #[test]
    fn one_window_beyond_the_bar_is_no_finding_and_two_are() {
        let mut alarm = Alarm::default();
        assert_eq!(feed(&mut alarm, &[1.2, 0.9, 1.2, 0.2], 0), []);
        assert_eq!(feed(&mut alarm, &[1.1, 1.2], 4), [(1, false)]);
        assert_eq!(alarm.open.unwrap().start_ms, 40_000);
    }

    #[test]
    fn a_finding_closes_after_two_quiet_minutes_and_names_its_peak_and_end() {
        let mut alarm = Alarm::default();
        feed(&mut alarm, &[1.1, 1.2], 0);
        assert_eq!(feed(&mut alarm, &[1.7, 2.0, 0.7, 0.4, 0.6], 2), [(2, false)]);
        feed(&mut alarm, &[0.1; 11], 7);
        assert!(alarm.is_open());
        let last = Evidence {
            start_ms: 180_000,
            severity: 0.1,
            ..alarm.open.unwrap().peak
        };
        alarm.step(&last);
        let (closed, is_closed) = alarm.take_news().unwrap();
        assert!(is_closed && !alarm.is_open());
        assert_eq!(
            (closed.revision, closed.peak.start_ms, closed.last_ms),
            (3, 30_000, 60_000)
        );
    }

    #[test]
    fn who_cries_often_is_believed_less() {
        let mut alarm = Alarm::default();
        feed(&mut alarm, &[1.1, 1.1], 0);
        feed(&mut alarm, &[0.0; 12], 2);
        assert_eq!(feed(&mut alarm, &[1.05, 1.05, 1.05], 20), []);
        assert_eq!(feed(&mut alarm, &[1.2, 1.2], 23), [(1, false)]);
    }

    #[test]
    fn a_series_that_falls_silent_ends_its_finding() {
        let mut alarm = Alarm::default();
        feed(&mut alarm, &[1.1, 1.1], 0);
        alarm.give_up();
        assert!(matches!(
            alarm.take_news(),
            Some((OpenFinding { revision: 2, .. }, true))
        ));
    }
}
