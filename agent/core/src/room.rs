//! Room that all sources share: each has a floor that no other can take, and a most that it may not pass.
//!
//! In: what sources take and give back. Out: whether one may take more, else whose room is full.

/// Whose room is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The source has its most.
    Source,
    /// What is not reserved for others is taken.
    Shared,
}

/// Half of it is divided among the sources, as their floors; the other half goes to whoever comes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    max: usize,
    source_max: usize,
    /// By the place of the source.
    used: Vec<usize>,
}

impl Room {
    pub(crate) fn new(max: usize, source_max: usize) -> Room {
        Room {
            max,
            source_max,
            used: Vec::new(),
        }
    }

    /// Whether a source, of so many, may take so much more.
    pub(crate) fn check(&self, source: u32, sources: usize, more: usize) -> Result<(), Full> {
        let used = self.used(source);
        let wanted = used.saturating_add(more);
        if wanted > self.source_max {
            return Err(Full::Source);
        }
        let floor = self.max / 2 / sources.max(1);
        if wanted <= floor {
            return Ok(());
        }
        let beyond = |used: usize| used.saturating_sub(floor);
        let shared: usize = self.used.iter().map(|used| beyond(*used)).sum();
        let shared_max = self.max - floor * sources.max(1);
        if shared - beyond(used) + beyond(wanted) > shared_max {
            return Err(Full::Shared);
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, source: u32, more: usize) {
        let at = place(source);
        if self.used.len() <= at {
            self.used.resize(at + 1, 0);
        }
        self.used[at] = self.used[at].saturating_add(more);
    }

    pub(crate) fn give_back(&mut self, source: u32, less: usize) {
        if let Some(used) = self.used.get_mut(place(source)) {
            *used = used.saturating_sub(less);
        }
    }

    pub(crate) fn used(&self, source: u32) -> usize {
        self.used.get(place(source)).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(crate) fn used_by_all(&self) -> usize {
        self.used.iter().sum()
    }
}

/// Sources are few: their bound is checked when they are declared.
fn place(source: u32) -> usize {
    usize::try_from(source).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &mut Room, source: u32, sources: usize) -> Full {
        loop {
            match room.check(source, sources, 1) {
                Ok(()) => room.take(source, 1),
                Err(full) => return full,
            }
        }
    }

    /// Two plugins took the room of all, and what the others saw first was dropped.
    #[test]
    fn whoever_takes_all_there_is_leaves_each_other_source_its_floor() {
        let mut room = Room::new(100, 50);
        assert_eq!(fill(&mut room, 0, 5), Full::Source);
        assert_eq!(fill(&mut room, 1, 5), Full::Shared);
        assert_eq!((room.used(0), room.used(1)), (50, 20));
        for source in 2..5 {
            assert_eq!(fill(&mut room, source, 5), Full::Shared);
            assert_eq!(room.used(source), 10);
        }
        assert_eq!(room.used_by_all(), 100);
        room.give_back(0, 15);
        assert_eq!(fill(&mut room, 4, 5), Full::Shared);
        assert_eq!(room.used(4), 25, "what one gives back another may take");
    }
}
