//! When each lane sold last, so that a till that hangs is seen by what it does not send.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// More lanes are all `_other`.
const LANES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 16;
/// So many digits might be a card's number: the agent refuses them in labels, and in what is kept.
const DIGITS_MAX: usize = 12;
const OTHER: &str = "_other";
/// A lane that sold nothing for so long is gone.
const FORGOTTEN_AFTER_MS: u64 = 7 * 24 * 3_600_000;

/// The time of the last sale by lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Lanes {
    sold_ms: BTreeMap<String, u64>,
}

impl Lanes {
    /// In lower case, so that no person's name looks like a lane.
    pub(crate) fn sold(&mut self, lane: &str, time_ms: u64) {
        // Most lanes are digits, and known.
        if let Some(last_ms) = self.sold_ms.get_mut(lane) {
            *last_ms = time_ms.max(*last_ms);
            return;
        }
        let lane = lane.to_ascii_lowercase();
        let is_known = self.sold_ms.contains_key(&lane);
        let is_told = is_known || (is_name(&lane) && self.sold_ms.len() < LANES_MAX);
        let lane = if is_told { lane } else { OTHER.to_owned() };
        let last_ms = self.sold_ms.entry(lane).or_default();
        *last_ms = time_ms.max(*last_ms);
    }

    /// Also those that were kept when names had another form.
    pub(crate) fn forget(&mut self, now_ms: u64) {
        self.sold_ms
            .retain(|lane, sold_ms| is_name(lane) && now_ms.saturating_sub(*sold_ms) <= FORGOTTEN_AFTER_MS);
    }

    /// By lane; a sale of the future is new.
    pub(crate) fn ages(&self, now_ms: u64) -> impl Iterator<Item = (&str, u64)> {
        self.sold_ms
            .iter()
            .map(move |(lane, sold_ms)| (lane.as_str(), now_ms.saturating_sub(*sold_ms)))
    }
}

/// A lane as it may be kept; nothing of what would be told as another one: it may be a card's number.
pub(crate) fn told(lane: &str) -> String {
    let lane = lane.to_ascii_lowercase();
    if is_name(&lane) { lane } else { String::new() }
}

fn is_name(lane: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let digits = lane.bytes().filter(u8::is_ascii_digit).count();
    (1..=NAME_BYTES_MAX).contains(&lane.len()) && lane.bytes().all(is_plain) && digits <= DIGITS_MAX
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sale_counts_and_lanes_are_bounded() {
        let mut lanes = Lanes::default();
        for (lane, time_ms) in [
            ("3", 5_000),
            ("3", 4_000),
            ("4", 9_000),
            ("a b", 1_000),
            ("", 2_000),
            ("T1", 5_500),
            ("4111111111111111", 1_000),
        ] {
            lanes.sold(lane, time_ms);
        }
        let ages: Vec<_> = lanes.ages(8_000).collect();
        assert_eq!(ages, [("3", 3_000), ("4", 0), ("_other", 6_000), ("t1", 2_500)]);
        for lane in 0..200 {
            lanes.sold(&format!("lane-{lane}"), 1_000);
        }
        assert_eq!(lanes.ages(0).count(), LANES_MAX);
        lanes.forget(FORGOTTEN_AFTER_MS + 6_000);
        assert_eq!(lanes.ages(8_000).map(|(lane, _)| lane).collect::<Vec<_>>(), ["4"]);
    }
}
