//! Wrong lines and documents: counted as a metric, logged once per kind and minute, without their content.

use super::Wrong;
use crate::{Batch, Host, Level, MetricId};

/// The least time between two log lines of one kind.
const LOG_INTERVAL_MS: u64 = 60_000;

/// What was wrong since the last report.
#[derive(Clone, Debug, Default)]
///
/// ```
/// use tillwatch_sdk::parse::{Problems, Wrong};
/// use tillwatch_sdk::testing::FileHost;
/// use tillwatch_sdk::{Batch, MetricId};
///
/// const PARSE_ERRORS: MetricId = MetricId::new(0);
///
/// let (mut problems, mut batch) = (Problems::default(), Batch::default());
/// problems.count(Wrong::Time);
/// problems.report(PARSE_ERRORS, &mut batch, &mut FileHost::new(60_000));
/// assert_eq!(batch.series()[0].labels, ["time"]);
/// ```
pub struct Problems {
    kinds: [Kind; Wrong::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    unreported: i64,
    unlogged: i64,
    logged_ms: Option<u64>,
}

impl Problems {
    /// Counts one wrong line or document.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Decimal, Problems};
    ///
    /// let mut problems = Problems::default();
    /// if let Err(wrong) = Decimal::parse("twelve") {
    ///     problems.count(wrong);
    /// }
    /// ```
    pub fn count(&mut self, wrong: Wrong) {
        if let Some(kind) = self.kinds.get_mut(wrong as usize) {
            kind.unreported = kind.unreported.saturating_add(1);
            kind.unlogged = kind.unlogged.saturating_add(1);
        }
    }

    /// Pushes what was counted to a sum with the one label `error.type`, and logs it when the minute is over.
    ///
    /// ```
    /// use tillwatch_sdk::parse::{Problems, Wrong};
    /// use tillwatch_sdk::testing::FileHost;
    /// use tillwatch_sdk::{Batch, MetricId};
    ///
    /// // Of a metric with `labels = ["error.type"]`, whose `values` are the names of what is counted.
    /// const PARSE_ERRORS: MetricId = MetricId::new(0);
    ///
    /// let (mut problems, mut batch, mut host) = (Problems::default(), Batch::default(), FileHost::new(60_000));
    /// problems.count(Wrong::Number);
    /// problems.report(PARSE_ERRORS, &mut batch, &mut host);
    /// assert_eq!(batch.series()[0].labels, ["number"]);
    /// assert_eq!(host.take_logs()[0].1, "skipped input: kind=number count=1");
    /// ```
    pub fn report(&mut self, metric: MetricId, batch: &mut Batch, host: &mut dyn Host) {
        let now_ms = host.now_ms();
        for (kind, wrong) in self.kinds.iter_mut().zip(Wrong::ALL) {
            if kind.unreported > 0 {
                batch.push_integer(metric, &[wrong.name()], kind.unreported, now_ms);
                kind.unreported = 0;
            }
            let silent = kind
                .logged_ms
                .is_some_and(|logged_ms| now_ms.abs_diff(logged_ms) < LOG_INTERVAL_MS);
            if kind.unlogged > 0 && !silent {
                host.log(
                    Level::Warn,
                    &format!("skipped input: kind={wrong} count={}", kind.unlogged),
                );
                kind.unlogged = 0;
                kind.logged_ms = Some(now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Error, Fault, Lines, Listing, Values};

    const ERRORS: MetricId = MetricId::new(0);

    /// A host that has a clock and a log.
    #[derive(Default)]
    struct Recorder {
        now_ms: u64,
        logged: Vec<String>,
    }

    impl Host for Recorder {
        fn now_ms(&mut self) -> u64 {
            self.now_ms
        }
        fn log(&mut self, _level: Level, message: &str) {
            self.logged.push(message.to_owned());
        }
        fn state(&mut self) -> Vec<u8> {
            Vec::new()
        }
        fn set_state(&mut self, _value: &[u8]) -> Result<(), Error> {
            Ok(())
        }
        fn read_lines(&mut self, _source: &str, _bytes_max: u32) -> Result<Lines, Fault> {
            Err(Fault::Unknown)
        }
        fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
            Err(Fault::Unknown)
        }
        fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
            Err(Fault::Unknown)
        }
    }

    #[test]
    fn each_kind_is_logged_once_a_minute_and_counted_always() {
        let (mut problems, mut host, mut batch) = (Problems::default(), Recorder::default(), Batch::default());
        for second in 0..90 {
            host.now_ms = 1_795_415_927_000 + second * 1000;
            problems.count(Wrong::Time);
            if second == 30 {
                problems.count(Wrong::Syntax);
            }
            problems.report(ERRORS, &mut batch, &mut host);
        }
        assert_eq!(
            host.logged,
            [
                "skipped input: kind=time count=1",
                "skipped input: kind=syntax count=1",
                "skipped input: kind=time count=60"
            ]
        );
        let sums = batch.series().iter().map(|series| match &series.values {
            Values::Integers(values) => (series.labels.join(","), values.iter().sum::<i64>()),
            Values::Reals(_) => unreachable!("counts are integers"),
        });
        assert_eq!(
            sums.collect::<Vec<_>>(),
            [("time".to_owned(), 90), ("syntax".to_owned(), 1)]
        );
    }

    #[test]
    fn all_kinds_have_their_place() {
        for (place, wrong) in Wrong::ALL.into_iter().enumerate() {
            assert_eq!(wrong as usize, place);
        }
    }
}
