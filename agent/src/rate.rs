//! How often the same thing may be said: so many times in each minute, the rest is not.
//!
//! In: a time. Out: whether to say it. Whoever asks counts what is not said.

use std::collections::BTreeMap;

const MINUTE_MS: u64 = 60_000;

/// At most so many times in each minute.
#[derive(Debug)]
pub struct PerMinute {
    count_max: u32,
    minute: Option<u64>,
    count: u32,
}

impl PerMinute {
    #[must_use]
    pub fn new(count_max: u32) -> Self {
        Self {
            count_max,
            minute: None,
            count: 0,
        }
    }

    pub fn admits(&mut self, now_ms: u64) -> bool {
        let minute = Some(now_ms / MINUTE_MS);
        if minute != self.minute {
            (self.minute, self.count) = (minute, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.count_max
    }
}

/// Counts what is said at most once a minute.
#[derive(Debug)]
pub struct Said {
    limit: PerMinute,
    unsaid: u64,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            limit: PerMinute::new(1),
            unsaid: 0,
        }
    }
}

impl Said {
    /// When it is time to say so: how many there were since it was said last.
    pub fn count(&mut self, now_ms: u64) -> Option<u64> {
        self.unsaid += 1;
        self.limit.admits(now_ms).then(|| std::mem::take(&mut self.unsaid))
    }
}

/// The same for several kinds; as many as there are names in the program.
#[derive(Debug, Default)]
pub struct SaidByKind(BTreeMap<&'static str, Said>);

impl SaidByKind {
    pub fn count(&mut self, kind: &'static str, now_ms: u64) -> Option<u64> {
        self.0.entry(kind).or_default().count(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_too_often_is_cut_until_the_next_minute() {
        let mut limit = PerMinute::new(20);
        let admitted = (0..100).filter(|_| limit.admits(59_999)).count();
        assert_eq!(admitted, 20);
        assert!(limit.admits(60_000));
    }

    #[test]
    fn each_kind_is_said_once_a_minute_with_how_many_there_were() {
        let mut said = SaidByKind::default();
        let counts = [("a", 0), ("a", 1), ("b", 2), ("a", 60_000)].map(|(kind, now_ms)| said.count(kind, now_ms));
        assert_eq!(counts, [Some(1), None, Some(1), Some(2)]);
    }
}
