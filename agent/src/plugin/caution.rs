//! Finds the one document or line at which a plugin fails, so that it costs itself and not all that lies behind it.
//!
//! In: how much each call read and whether it failed. Out: how little the next call gets, and at last what is skipped.
//! After a failure calls get one document or a few lines each, fewer with each failure, until what the failed call had
//! read is behind them. What fails alone for [`STRIKES_MAX`] times is skipped.

/// So often one document or line alone may fail before it is skipped: a machine may be busy for a while.
const STRIKES_MAX: u32 = 3;
/// After a failure a call gets this part of the bytes that the failed one had read.
const SHRINK: u64 = 8;

/// What one call read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallRead {
    pub bytes: u64,
    /// Documents and lines.
    pub items: u64,
}

/// What becomes of what a failed call had read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes again.
    Again,
    /// It does not.
    Skip,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Caution {
    suspect: Option<Suspect>,
    strikes: u32,
}

#[derive(Debug)]
struct Suspect {
    /// Somewhere in so many bytes.
    bytes_left: u64,
    line_bytes_max: u64,
}

impl Caution {
    /// The bytes of lines that a call gets at most; it then reads one source only, and of documents one.
    #[must_use]
    pub fn line_bytes_max(&self) -> Option<usize> {
        let suspect = self.suspect.as_ref()?;
        Some(usize::try_from(suspect.line_bytes_max).unwrap_or(usize::MAX))
    }

    pub fn on_success(&mut self, read: CallRead) {
        self.strikes = 0;
        if let Some(suspect) = &mut self.suspect {
            suspect.bytes_left = suspect.bytes_left.saturating_sub(read.bytes);
            if suspect.bytes_left == 0 {
                self.suspect = None;
            }
        }
    }

    pub fn on_failure(&mut self, read: CallRead) -> Verdict {
        if read.items == 0 {
            return Verdict::Again;
        }
        self.strikes = if read.items == 1 { self.strikes + 1 } else { 0 };
        if self.strikes >= STRIKES_MAX {
            *self = Self::default();
            return Verdict::Skip;
        }
        self.suspect = Some(Suspect {
            bytes_left: read.bytes,
            line_bytes_max: (read.bytes / SHRINK).max(1),
        });
        Verdict::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of ten bytes, one of which nobody can read.
    #[test]
    fn one_bad_line_among_thousands_is_found_and_skipped_alone() {
        for bad in [0, 1, 777, 4_999] {
            let (mut caution, mut at, mut failures, mut skipped) = (Caution::default(), 0_u64, 0, Vec::new());
            while at < 5_000 {
                let bytes_max = caution.line_bytes_max().unwrap_or(20_000) as u64;
                let items = (bytes_max / 10).clamp(1, 5_000 - at);
                let read = CallRead {
                    bytes: items * 10,
                    items,
                };
                if !(at..at + items).contains(&bad) {
                    caution.on_success(read);
                    at += items;
                    continue;
                }
                failures += 1;
                if caution.on_failure(read) == Verdict::Skip {
                    skipped.push((at, items));
                    at += items;
                }
            }
            assert_eq!(skipped, [(bad, 1)]);
            assert!(failures <= 8, "{failures}");
            assert_eq!(caution.line_bytes_max(), None, "as usual again");
        }
    }

    #[test]
    fn a_plugin_that_fails_without_reading_skips_nothing() {
        let mut caution = Caution::default();
        for _ in 0..10 {
            assert_eq!(caution.on_failure(CallRead::default()), Verdict::Again);
        }
        assert_eq!(caution.line_bytes_max(), None);
    }
}
