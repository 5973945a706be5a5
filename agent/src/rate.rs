//! How often the same thing may be said: so many times in each minute, the rest is not.
//!
//! In: a time. Out: whether to say it. Whoever asks counts what is not said.

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
}
