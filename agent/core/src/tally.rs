//! Why values were dropped, counted by reason.

/// Why a value does not count. What is dropped is never quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The source or the metric's index was never declared.
    Undeclared,
    /// Another number of times than of values, or of labels than of keys.
    Malformed,
    /// The label's shape or value is not what was declared.
    Label,
    /// One value more than the label may have.
    LabelValuesFull,
    /// One series more than the agent keeps.
    SeriesFull,
    /// Might be a card number.
    Card,
    /// Not a number, or infinite.
    NotFinite,
    /// Does not fit into whole numbers of the metric's resolution.
    OutOfRange,
    /// Money that was not reported as a whole number.
    MoneyFraction,
    /// Older than the limit.
    TooOld,
    /// Further in the future than the limit.
    TooNew,
    /// A counter that fell: the reading starts a new count.
    CounterReset,
    /// A reading that is not later than the one before.
    CounterOrder,
    /// One series more than a source may have.
    SourceSeriesFull,
    /// Its window or interval has no room: too much is open at once, or too much history came at once.
    OpenFull,
}

impl Reason {
    /// As in the agent's own metrics.
    pub fn name(self) -> &'static str {
        REASONS[self as usize].1
    }

    /// Whether it is the plugin's fault; a value's age and how a counter goes on are its source's.
    pub fn is_of_plugin(self) -> bool {
        !matches!(
            self,
            Self::TooOld | Self::TooNew | Self::CounterReset | Self::CounterOrder
        )
    }
}

/// All reasons with the names that they have in the agent's own metrics.
pub const REASONS: [(Reason, &str); 15] = [
    (Reason::Undeclared, "undeclared"),
    (Reason::Malformed, "malformed"),
    (Reason::Label, "label"),
    (Reason::LabelValuesFull, "label_values_full"),
    (Reason::SeriesFull, "series_full"),
    (Reason::Card, "card"),
    (Reason::NotFinite, "not_finite"),
    (Reason::OutOfRange, "out_of_range"),
    (Reason::MoneyFraction, "money_fraction"),
    (Reason::TooOld, "too_old"),
    (Reason::TooNew, "too_new"),
    (Reason::CounterReset, "counter_reset"),
    (Reason::CounterOrder, "counter_order"),
    (Reason::SourceSeriesFull, "source_series_full"),
    (Reason::OpenFull, "open_full"),
];

/// Dropped values by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; REASONS.len()]);

impl Tally {
    /// Counts `n` values.
    pub fn add(&mut self, reason: Reason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// Counts what another tally counted.
    pub fn add_all(&mut self, other: &Tally) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, more)| *mine += more);
    }

    /// How many were dropped for this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were dropped.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().map(|(reason, name)| (*name, self.of(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_the_order_of_their_numbers() {
        for (at, (reason, _)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
    }
}
