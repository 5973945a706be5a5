//! Central's time: event time that the sites have reached.
//!
//! In: the end of each interval that a site sent, and two clocks of its arrival. Out: one time that never goes back.
//! It never asks a clock, so that live operation, a backlog and a replay are the same to it.
//!
//! Sites run ahead, fall silent and have wrong clocks. So central's time is that which a small share of the sites has
//! reached, less the lateness that is waited for: neither one fast clock nor many silent sites move or stop it.
//! What comes later than that still adds to its own interval; it only no longer delays anybody.
//! When nearly all are silent, the rest is that small share. So sites from which nothing has come for long leave the
//! quorum; what the others alone have reached counts up to the wall clock, so that a wrong clock among the few that are
//! left still moves nothing beyond the present. Silence is measured in time in which central heard anybody at all: after
//! a night of its own nobody is silent. Where nobody tells the clocks, all stay.
//! While fewer than three sites have ever been heard, the foremost is believed, but not that it is more than a day later
//! than the wall clock: then it is as late as that. A restart looks at all sites of the archive at once, so that it mends
//! what one fast clock did before there were others.

use std::collections::{BTreeMap, HashMap};
use tillwatch_feed::topic::SiteId;

/// How long an interval is waited for after it ended.
pub const LATENESS_MS: u64 = 30_000;
/// One site in this many may run ahead without being believed.
pub const AHEAD_ONE_IN: usize = 20;
/// Time advances in steps of this, so that a replay takes the same steps.
pub const STEP_MS: u64 = 10_000;
/// A site from which nothing has come for so long, while others were heard, is waited for no longer.
pub const SILENT_AFTER_MS: u64 = 15 * 60 * 1_000;
/// A pause in which nobody at all was heard counts as silence of the sites for this long at most; the rest of it was
/// central's own.
pub const PAUSE_COUNTS_MS: u64 = 60 * 1_000;
/// What is dated so far after central's time and after the wall clock comes from a wrong clock.
pub const AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1_000;
/// From so many sites on they check each other: what the quorum says is believed beyond the wall clock.
const QUORUM_MIN: usize = 3;
/// Time between two looks at who is silent.
const SWEEP_EVERY_MS: u64 = 60_000;

/// How far every site is.
#[derive(Debug)]
pub struct Watermark {
    sites: HashMap<SiteId, Progress>,
    all: Ranks,
    /// Those that are not silent.
    living: Ranks,
    now_ms: u64,
    /// What ends later is not believed.
    limit_ms: u64,
    /// As it was told last, right or wrong; 0 while nobody tells it.
    wall_ms: u64,
    /// A clock that nobody sets, as it was told last.
    monotonic_ms: u64,
    /// By that clock, when anybody was heard last.
    anybody_ms: u64,
    /// Time in which anybody was heard.
    listened_ms: u64,
    /// By that time.
    swept_ms: u64,
}

#[derive(Debug)]
struct Progress {
    end_ms: u64,
    /// When it was heard last, in time in which anybody was heard.
    heard_ms: u64,
    is_living: bool,
}

impl Default for Watermark {
    fn default() -> Self {
        Self::up_to(u64::MAX)
    }
}

impl Watermark {
    /// For a replay: what ends after `limit_ms` says nothing.
    pub fn up_to(limit_ms: u64) -> Self {
        let (sites, all, living) = Default::default();
        Self {
            sites,
            all,
            living,
            now_ms: 0,
            limit_ms,
            wall_ms: 0,
            monotonic_ms: 0,
            anybody_ms: 0,
            listened_ms: 0,
            swept_ms: 0,
        }
    }

    /// Both clocks, for what is heard next: the wall's, which may be set, and one that only goes on.
    pub fn tell_time(&mut self, wall_ms: u64, monotonic_ms: u64) {
        self.wall_ms = wall_ms;
        self.monotonic_ms = self.monotonic_ms.max(monotonic_ms);
    }

    /// The site sent something that ended at `end_ms`; central's new time, if this moved it by a step or more.
    pub fn heard(&mut self, site: &SiteId, end_ms: u64) -> Option<u64> {
        if end_ms > self.limit_ms {
            return None;
        }
        self.listened_ms += (self.monotonic_ms - self.anybody_ms).min(PAUSE_COUNTS_MS);
        self.anybody_ms = self.monotonic_ms;
        self.reaches(site, end_ms);
        if self.listened_ms >= self.swept_ms + SWEEP_EVERY_MS {
            self.swept_ms = self.listened_ms;
            self.sweep();
        }
        self.advance(self.believed_ms())
    }

    /// How far all sites are, told at once and in any order: a single one that is heard first is not believed.
    pub fn set(&mut self, sites: impl IntoIterator<Item = (SiteId, u64)>) {
        for (site, end_ms) in sites {
            self.reaches(&site, end_ms);
        }
        self.advance(self.believed_ms());
    }

    /// Central's time before a restart, as far as the wall clock bears it out: few living sites may have moved it.
    pub fn resume(&mut self, now_ms: u64) {
        self.advance(now_ms.min(self.wall_ms).saturating_add(LATENESS_MS));
    }

    fn advance(&mut self, reached_ms: u64) -> Option<u64> {
        let reached_ms = reached_ms.saturating_sub(LATENESS_MS);
        let step = reached_ms - reached_ms % STEP_MS;
        (step > self.now_ms).then(|| {
            self.now_ms = step;
            step
        })
    }

    /// Moves one site, without moving central's time.
    fn reaches(&mut self, site: &SiteId, end_ms: u64) {
        let heard_ms = self.listened_ms;
        let Some(progress) = self.sites.get_mut(site) else {
            let is_living = true;
            self.sites.insert(
                site.clone(),
                Progress {
                    end_ms,
                    heard_ms,
                    is_living,
                },
            );
            self.all.add(end_ms);
            self.living.add(end_ms);
            return;
        };
        progress.heard_ms = heard_ms;
        let before_ms = progress.end_ms;
        if progress.is_living && end_ms <= before_ms {
            return;
        }
        progress.end_ms = before_ms.max(end_ms);
        self.all.remove(before_ms);
        self.all.add(progress.end_ms);
        if std::mem::replace(&mut progress.is_living, true) {
            self.living.remove(before_ms);
        }
        self.living.add(progress.end_ms);
    }

    /// Those that have been silent for long leave the living; each comes back when it is heard.
    fn sweep(&mut self) {
        let now_ms = self.listened_ms;
        let silent = |progress: &&mut Progress| progress.is_living && progress.heard_ms + SILENT_AFTER_MS < now_ms;
        for progress in self.sites.values_mut().filter(silent) {
            progress.is_living = false;
            self.living.remove(progress.end_ms);
        }
    }

    /// Central's time, UTC milliseconds; 0 when nothing has been heard.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The wall clock as it was told last; 0 while nobody tells it.
    pub fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// Does this lie so far ahead that only a wrong clock can say so?
    pub fn is_ahead(&self, at_ms: u64) -> bool {
        let latest_ms = self.latest_ms();
        latest_ms != 0 && at_ms > latest_ms.saturating_add(AHEAD_MAX_MS)
    }

    /// From when on something ages that ends at `end_ms`: from then on, or from now on when that is too far ahead.
    pub fn ages_ms(&self, end_ms: u64) -> u64 {
        match (self.is_ahead(end_ms), self.now_ms) {
            (false, _) => end_ms,
            (true, 0) => self.wall_ms,
            (true, now_ms) => now_ms,
        }
    }

    /// Central's time or the wall clock, whichever is later: what lies far beyond both comes from a wrong clock.
    pub fn latest_ms(&self) -> u64 {
        self.now_ms.max(self.wall_ms)
    }

    /// The time that all but the foremost sites' share has reached, of all or of the living.
    pub fn believed_ms(&self) -> u64 {
        let of_living = self.living.reached_ms().min(self.wall_ms);
        let of_all = self.all.reached_ms();
        let is_told = self.wall_ms != 0 && self.all.sites < QUORUM_MIN;
        if is_told && of_all > self.wall_ms.saturating_add(AHEAD_MAX_MS) {
            return self.wall_ms;
        }
        of_all.max(of_living)
    }

    /// The time that half of the sites have reached, of all or of the living: nothing is removed that is not old to them,
    /// whatever they say of a future that the wall clock does not know.
    pub fn most_ms(&self) -> u64 {
        let of_living = self.living.middle_ms().min(self.wall_ms);
        let most_ms = self.all.middle_ms().max(of_living).min(self.now_ms);
        if self.wall_ms == 0 {
            return most_ms;
        }
        most_ms.min(self.wall_ms.saturating_add(AHEAD_MAX_MS))
    }
}

/// How many sites are at each time.
#[derive(Debug, Default)]
struct Ranks {
    counts: BTreeMap<u64, usize>,
    sites: usize,
}

impl Ranks {
    fn add(&mut self, at_ms: u64) {
        *self.counts.entry(at_ms).or_default() += 1;
        self.sites += 1;
    }

    fn remove(&mut self, at_ms: u64) {
        let Some(count) = self.counts.get_mut(&at_ms) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&at_ms);
        }
        self.sites -= 1;
    }

    /// The time that all but the foremost share has reached; with three sites or more, one is never enough.
    fn reached_ms(&self) -> u64 {
        let ahead = if self.sites < QUORUM_MIN {
            0
        } else {
            self.sites.div_ceil(AHEAD_ONE_IN)
        };
        self.behind(ahead)
    }

    fn middle_ms(&self) -> u64 {
        self.behind(self.sites / 2)
    }

    /// The time of the foremost site but so many.
    fn behind(&self, ahead: usize) -> u64 {
        let mut passed = 0;
        let found = self.counts.iter().rev().find_map(|(at_ms, count)| {
            passed += count;
            (passed > ahead).then_some(*at_ms)
        });
        found.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_700_000_000_000;

    fn site(number: usize) -> SiteId {
        format!("store-{number}").parse().unwrap()
    }

    fn heard_all(watermark: &mut Watermark, numbers: std::ops::Range<usize>, end_ms: u64) {
        for number in numbers {
            watermark.heard(&site(number), end_ms);
        }
    }

    #[test]
    fn one_site_alone_sets_the_time_less_lateness() {
        let mut watermark = Watermark::default();
        assert_eq!(watermark.heard(&site(1), T), Some(T - LATENESS_MS));
        assert_eq!(watermark.heard(&site(1), T + 1), None);
        assert_eq!(watermark.heard(&site(1), T + 60_000), Some(T + 60_000 - LATENESS_MS));
    }

    #[test]
    fn one_fast_clock_among_three_moves_nothing() {
        let mut watermark = Watermark::default();
        for number in 1..=3 {
            watermark.heard(&site(number), T);
        }
        let before = watermark.now_ms();
        assert_eq!(watermark.heard(&site(2), T + 1_200_000), None);
        assert_eq!(watermark.now_ms(), before);
    }

    #[test]
    fn silent_sites_hold_nobody_back() {
        let mut watermark = Watermark::default();
        for number in 0..60 {
            watermark.heard(&site(number), T);
        }
        for minute in 1..=30 {
            for number in 40..60 {
                watermark.heard(&site(number), T + minute * 60_000);
            }
        }
        assert_eq!(watermark.now_ms(), T + 30 * 60_000 - LATENESS_MS);
    }

    #[test]
    fn sites_that_are_set_at_once_are_judged_together_and_most_of_them_must_agree_on_what_is_old() {
        let mut watermark = Watermark::default();
        watermark.set([(site(1), 2 * T), (site(2), T), (site(3), T), (site(4), T)]);
        assert_eq!(
            (watermark.now_ms(), watermark.most_ms()),
            (T - LATENESS_MS, T - LATENESS_MS)
        );
        let mut two = Watermark::default();
        two.heard(&site(1), 2 * T);
        two.heard(&site(2), T);
        assert_eq!((two.now_ms(), two.most_ms()), (2 * T - LATENESS_MS, T));
        let mut replay = Watermark::up_to(T);
        assert_eq!(replay.heard(&site(1), T + 1), None);
        assert_eq!(replay.heard(&site(2), T), Some(T - LATENESS_MS));
    }

    #[test]
    fn a_backlog_does_not_turn_time_back() {
        let mut watermark = Watermark::default();
        watermark.heard(&site(1), T);
        assert_eq!(watermark.heard(&site(1), T - 3_600_000), None);
        assert_eq!(watermark.now_ms(), T - LATENESS_MS);
    }

    /// Sixty stores are heard at `T`; `left` of them go on for an hour, and everybody else is silent.
    fn nearly_all_dead(left: usize) -> Watermark {
        let mut watermark = Watermark::default();
        watermark.tell_time(T, 0);
        for number in 0..60 {
            watermark.heard(&site(number), T);
        }
        for minute in 1..=60 {
            watermark.tell_time(T + minute * 60_000, minute * 60_000);
            for number in 0..left {
                watermark.heard(&site(number), T + minute * 60_000);
            }
        }
        watermark
    }

    /// The center's time stood still, and the stores that were left were judged no more.
    #[test]
    fn time_goes_on_for_the_few_that_are_left_when_nearly_all_are_silent() {
        for left in 1..=3 {
            let watermark = nearly_all_dead(left);
            assert_eq!(watermark.now_ms(), T + 60 * 60_000 - LATENESS_MS, "{left} left");
            assert_eq!(watermark.most_ms(), watermark.now_ms(), "{left} left");
        }
    }

    #[test]
    fn a_wrong_clock_among_the_few_that_are_left_moves_nothing_beyond_the_present() {
        const DAY_MS: u64 = 24 * 3_600_000;
        for left in 1..=3 {
            let mut watermark = nearly_all_dead(left);
            watermark.heard(&site(0), T + DAY_MS);
            assert!(watermark.now_ms() <= T + 60 * 60_000, "{left} left");
            assert!(watermark.most_ms() <= T + 60 * 60_000, "{left} left");
        }
        // Three agree: the one that is wrong is not believed at all.
        let mut watermark = nearly_all_dead(3);
        watermark.heard(&site(0), T + DAY_MS);
        assert_eq!(watermark.now_ms(), T + 60 * 60_000 - LATENESS_MS);
    }

    #[test]
    fn a_store_that_is_heard_again_counts_again() {
        let mut watermark = nearly_all_dead(1);
        for minute in 61..=120 {
            watermark.tell_time(T + minute * 60_000, minute * 60_000);
            for number in 0..60 {
                watermark.heard(&site(number), T + 59 * 60_000 + minute);
            }
        }
        // Alone it would be believed up to the wall clock; among sixty it runs ahead.
        watermark.heard(&site(0), T + 110 * 60_000);
        assert_eq!(watermark.now_ms(), T + 60 * 60_000 - LATENESS_MS);
    }

    #[test]
    fn a_restart_takes_time_up_where_it_was_but_not_beyond_the_present() {
        let dead = || (0..60).map(|number| (site(number), T));
        for (wall_ms, stored_ms, expected_ms) in [
            (T + 7_200_000, T + 3_600_000, T + 3_600_000),
            (T + 7_200_000, T + 90_000_000, T + 7_200_000),
            (0, T + 3_600_000, T - LATENESS_MS),
        ] {
            let mut watermark = Watermark::default();
            watermark.tell_time(wall_ms, 0);
            watermark.set(dead());
            watermark.resume(stored_ms);
            assert_eq!(watermark.now_ms(), expected_ms);
        }
    }

    #[test]
    fn what_is_dated_a_day_after_central_and_the_wall_clock_is_ahead() {
        let mut watermark = Watermark::default();
        assert!(!watermark.is_ahead(u64::MAX));
        watermark.heard(&site(1), T);
        assert!(!watermark.is_ahead(T + AHEAD_MAX_MS - LATENESS_MS) && watermark.is_ahead(T + AHEAD_MAX_MS));
        // After a long night of the center its own time is old, the wall clock is not.
        watermark.tell_time(T + 9 * AHEAD_MAX_MS, 0);
        assert!(!watermark.is_ahead(T + 10 * AHEAD_MAX_MS) && watermark.is_ahead(T + 11 * AHEAD_MAX_MS));
        // Before anybody is heard the wall clock alone says so.
        let mut first = Watermark::default();
        first.tell_time(T, 0);
        assert!(!first.is_ahead(T + AHEAD_MAX_MS) && first.is_ahead(T + AHEAD_MAX_MS + 1));
        assert_eq!((first.ages_ms(T + 1), first.ages_ms(2 * T)), (T + 1, T));
    }

    /// A chain of one or two stores: a clock in 2030 made everything that was kept look old.
    #[test]
    fn fewer_than_three_sites_move_nothing_beyond_the_wall_clock_when_one_is_a_day_ahead() {
        const YEARS_MS: u64 = 4 * 365 * AHEAD_MAX_MS;
        for sites in 1..=2 {
            let mut watermark = Watermark::default();
            watermark.tell_time(T, 0);
            heard_all(&mut watermark, 0..sites, T - 60_000);
            watermark.heard(&site(0), T + YEARS_MS);
            assert!(watermark.now_ms() <= T, "{sites} sites: {}", watermark.now_ms());
            assert!(watermark.most_ms() <= T, "{sites} sites: {}", watermark.most_ms());
            watermark.tell_time(T + 120_000, 120_000);
            watermark.heard(&site(0), T + YEARS_MS);
            assert_eq!(watermark.now_ms(), T + 120_000 - LATENESS_MS, "{sites} sites");
        }
        // A wrong wall clock of central holds up no three that agree, but nothing is removed for them.
        let mut three = Watermark::default();
        three.tell_time(T, 0);
        heard_all(&mut three, 0..3, T + YEARS_MS);
        assert_eq!(three.now_ms(), T + YEARS_MS - LATENESS_MS);
        assert_eq!(three.most_ms(), T + AHEAD_MAX_MS);
    }

    /// After a night of the center the first store that came back was all that was left, and the others came too late.
    #[test]
    fn a_silence_of_central_itself_makes_nobody_silent() {
        let mut watermark = Watermark::default();
        watermark.tell_time(T, 0);
        heard_all(&mut watermark, 0..60, T);
        for second in 0..600 {
            let later_ms = 8 * 3_600_000 + second * 1_000;
            watermark.tell_time(T + later_ms, later_ms);
            watermark.heard(&site(0), T + later_ms);
        }
        assert_eq!(watermark.now_ms(), T - LATENESS_MS);
    }

    /// One reading of 2036 held until the next restart.
    #[test]
    fn a_wall_clock_that_is_set_back_is_believed_and_makes_nobody_silent() {
        let mut watermark = Watermark::default();
        for (wall_ms, monotonic_ms) in [(T, 0), (10 * T, 1_000), (T + 2_000, 2_000)] {
            watermark.tell_time(wall_ms, monotonic_ms);
            heard_all(&mut watermark, 0..60, T);
        }
        assert_eq!(watermark.wall_ms(), T + 2_000);
        assert!(watermark.is_ahead(2 * T));
        for minute in 1..=60 {
            watermark.tell_time(T + minute * 60_000, minute * 60_000);
            watermark.heard(&site(0), 2 * T);
        }
        assert_eq!(watermark.now_ms(), T + 60 * 60_000 - LATENESS_MS);
    }
}
