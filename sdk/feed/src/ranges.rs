//! Sets of sequence numbers as sorted, disjoint, inclusive ranges.
//!
//! Both sides keep one: the agent of what it holds or sent, an archive of what it has written durably.

/// A set of `u64`, small as long as it has few holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Ascending; between two ranges at least one number is missing.
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    /// Adds all of `first..=last`; nothing when `first > last`.
    pub fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // The ranges that overlap or touch the new one become one with it.
        let from = self
            .ranges
            .partition_point(|range| range.1 < first && first - range.1 > 1);
        let to = self
            .ranges
            .partition_point(|range| range.0 <= last || range.0 - last == 1);
        let merged = match self.ranges.get(from..to) {
            Some([start, .., end]) => (start.0.min(first), end.1.max(last)),
            Some([only]) => (only.0.min(first), only.1.max(last)),
            _ => (first, last),
        };
        self.ranges.splice(from..to, [merged]);
    }

    /// Is `number` in the set?
    pub fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < number);
        self.ranges.get(at).is_some_and(|range| range.0 <= number)
    }

    /// Are all of `first..=last` in the set? True when `first > last`.
    pub fn contains_all(&self, first: u64, last: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < first);
        first > last
            || self
                .ranges
                .get(at)
                .is_some_and(|range| range.0 <= first && last <= range.1)
    }

    /// What of `first..=last` is not in the set, ascending.
    pub fn missing_in(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = first;
        let at = self.ranges.partition_point(|range| range.1 < first);
        for &(start, end) in self.ranges.get(at..).unwrap_or_default() {
            if start > last {
                break;
            }
            if next < start {
                missing.push((next, start - 1));
            }
            match end.checked_add(1) {
                Some(after) => next = after,
                None => return missing,
            }
        }
        if next <= last {
            missing.push((next, last));
        }
        missing
    }

    /// The largest `t` such that all of `1..=t` are in the set; 0 when 1 is not.
    pub fn through(&self) -> u64 {
        let at = self.ranges.partition_point(|range| range.1 < 1);
        self.ranges
            .get(at)
            .filter(|range| range.0 <= 1)
            .map_or(0, |range| range.1)
    }

    /// The ranges, ascending, inclusive, never touching each other.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + ExactSizeIterator + '_ {
        self.ranges.iter().copied()
    }

    /// What is in both sets.
    pub fn intersect(&self, other: &RangeSet) -> RangeSet {
        let mut both = Vec::new();
        let (mut mine, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        while let (Some(&a), Some(&b)) = (mine.peek(), theirs.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            if a.1 <= b.1 {
                mine.next()
            } else {
                theirs.next()
            };
        }
        RangeSet { ranges: both }
    }

    /// Removes everything up to and including `through`.
    pub fn remove_through(&mut self, through: u64) {
        let at = self.ranges.partition_point(|range| range.1 <= through);
        self.ranges.drain(..at);
        if let (Some(first), Some(after)) = (self.ranges.first_mut(), through.checked_add(1)) {
            first.0 = first.0.max(after);
        }
    }

    /// The smallest number in the set.
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|range| range.0)
    }

    /// The largest number in the set.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.1)
    }

    /// How many numbers are in the set; cut to `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.ranges.iter().fold(0, |count: u64, range| {
            count.saturating_add(range.1 - range.0).saturating_add(1)
        })
    }

    /// Is the set empty?
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<(u64, u64)> for RangeSet {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> RangeSet {
        let mut set = RangeSet::new();
        for (first, last) in ranges {
            set.insert(first, last);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let set: RangeSet = [(1, 3), (7, 9), (4, 6)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 9)]);
    }

    #[test]
    fn a_hole_stops_through_and_shows_as_missing() {
        let set: RangeSet = [(1, 3), (5, 6)].into_iter().collect();
        assert_eq!(set.through(), 3);
        assert_eq!(set.missing_in(1, 8), [(4, 4), (7, 8)]);
        assert_eq!(RangeSet::from_iter([(2, 9)]).through(), 0);
    }

    #[test]
    fn the_ends_of_the_number_line_hold() {
        let mut set: RangeSet = [(u64::MAX, u64::MAX), (0, 0)].into_iter().collect();
        assert_eq!(set.through(), 0);
        assert_eq!(set.missing_in(u64::MAX - 1, u64::MAX), [(u64::MAX - 1, u64::MAX - 1)]);
        set.insert(0, u64::MAX);
        assert_eq!((set.through(), set.count()), (u64::MAX, u64::MAX));
        set.remove_through(u64::MAX);
        assert!(set.is_empty());
    }
}
