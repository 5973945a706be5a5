//! How central and the agents are: counters of central's parts, and what the state and the clock of each store say.
//!
//! In: states and clock readings as they arrive, with the wall clock that `run.rs` tells. Out: [`Health`] for the API, and
//! lines for people when something is wrong.
//! It never asks a clock, never changes what is received or priced, and holds few stores that the model does not have.

use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tillwatch_feed::message::{ClockReading, State};
use tillwatch_feed::topic::SiteId;
use tracing::warn;

/// Stores that are not in the model and are held here; more are counted.
pub const UNKNOWN_SITES_MAX: usize = 64;
/// A store's clock may differ from the median of all by so much. Messages under way make a clock look slow.
pub const CLOCK_OFF_MS_MAX: u64 = 120_000;
/// Stores named in one line for people.
const NAMES_MAX: usize = 5;

/// Names and values of one part's counters.
pub type Counts = Vec<(&'static str, u64)>;
type Source = Box<dyn Fn() -> Counts + Send + Sync>;

/// Written by the archive's thread, read by everybody.
#[derive(Default)]
pub struct Board {
    /// The model's sites.
    known: HashSet<SiteId>,
    /// Central's wall clock at the last arrival; 0 before it was told.
    wall_ms: AtomicU64,
    unknown_sites_refused: AtomicU64,
    sites: Mutex<BTreeMap<SiteId, Report>>,
    sources: Mutex<Vec<(&'static str, Source)>>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("sites", &self.sites)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Report {
    /// `None` until its state has come since the start.
    is_online: Option<bool>,
    state: Option<State>,
    clock_offset_ms: Option<i64>,
}

/// Answer of `/api/v1/health`.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// What a person should look at, in words; empty when all is well.
    pub problems: Vec<String>,
    pub counters: Vec<Counter>,
    pub sites: Vec<SiteHealth>,
}

/// What a part of central counted since it started.
#[derive(Clone, Debug, Serialize)]
pub struct Counter {
    pub part: &'static str,
    pub name: &'static str,
    pub value: u64,
}

/// What a store's agent says of itself, and what its clock shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiteHealth {
    pub id: String,
    pub in_model: bool,
    /// `None` until its state has come since central started.
    pub online: Option<bool>,
    pub agent_version: Option<String>,
    pub spool_records: Option<u64>,
    pub spool_bytes: Option<u64>,
    /// Payloads that its agent holds because the broker refused them.
    pub refused: Option<u64>,
    /// Records that wait for its next connection, as the broker refused them on this one.
    pub parked: Option<u64>,
    /// Of its connections, both ways, on its UTC day.
    pub bytes_today: Option<u64>,
    /// What its settings allow of that; none is no limit.
    pub bytes_per_day: Option<u64>,
    /// So many of its intervals are one now, to stay within the limit.
    pub intervals: Option<u32>,
    /// Its wall clock less central's when its last message came; the time under way makes it smaller.
    pub clock_offset_ms: Option<i64>,
}

impl Board {
    /// `known` are the model's sites.
    pub fn new(known: HashSet<SiteId>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Adds the counters of a part.
    pub fn count(&self, part: &'static str, counts: impl Fn() -> Counts + Send + Sync + 'static) {
        lock(&self.sources).push((part, Box::new(counts)));
    }

    /// Central's wall clock, for what arrives next.
    pub fn tell_time(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    /// A message of the site came.
    pub fn heard(&self, site: &SiteId, clock: &ClockReading) {
        let offset_ms = self.offset_ms(clock);
        self.report(site, |report| {
            report.clock_offset_ms = offset_ms.or(report.clock_offset_ms)
        });
    }

    /// The site's state came. One with a smaller birth number than another is old, whatever the order of arrival.
    pub fn state_came(&self, site: &SiteId, state: State) {
        self.report(site, |report| {
            let known = report.state.as_ref();
            if known.is_none_or(|known| known.birth_number <= state.birth_number) {
                report.is_online = Some(state.online);
                report.state = Some(state);
            }
        });
    }

    /// The site's state as the archive holds it: whether it is still online nobody knows.
    pub fn state_restored(&self, site: &SiteId, state: State) {
        self.report(site, |report| report.state = Some(state));
    }

    /// Everything, and what of it is wrong.
    pub fn health(&self) -> Health {
        let sites: Vec<SiteHealth> = lock(&self.sites)
            .iter()
            .map(|(site, report)| self.site_health(site, report))
            .collect();
        Health {
            problems: problems(&sites),
            counters: self.counters(),
            sites,
        }
    }

    fn counters(&self) -> Vec<Counter> {
        let own = (
            "unknown_sites_refused",
            self.unknown_sites_refused.load(Ordering::Relaxed),
        );
        let counter = |part| move |(name, value)| Counter { part, name, value };
        let sources = lock(&self.sources);
        let parts = sources
            .iter()
            .flat_map(|(part, counts)| counts().into_iter().map(counter(part)));
        parts.chain([own].map(counter("health"))).collect()
    }

    fn site_health(&self, site: &SiteId, report: &Report) -> SiteHealth {
        let state = report.state.as_ref();
        SiteHealth {
            id: site.to_string(),
            in_model: self.known.contains(site),
            online: report.is_online,
            agent_version: state.map(|state| state.agent_version.clone()),
            spool_records: state.map(|state| state.spool_records),
            spool_bytes: state.map(|state| state.spool_bytes),
            refused: state.map(|state| state.refused),
            parked: state.map(|state| state.parked),
            bytes_today: state.map(|state| state.bytes_today),
            bytes_per_day: state.map(|state| state.bytes_per_day).filter(|bytes| *bytes > 0),
            intervals: state.map(|state| state.intervals.max(1)),
            clock_offset_ms: report.clock_offset_ms,
        }
    }

    fn report(&self, site: &SiteId, change: impl FnOnce(&mut Report)) {
        let mut sites = lock(&self.sites);
        if let Some(report) = sites.get_mut(site) {
            return change(report);
        }
        if !self.known.contains(site) {
            if sites.keys().filter(|site| !self.known.contains(site)).count() >= UNKNOWN_SITES_MAX {
                self.unknown_sites_refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            warn!(%site, "store is not in the model: kept, never priced");
        }
        change(sites.entry(site.clone()).or_default());
    }

    fn offset_ms(&self, clock: &ClockReading) -> Option<i64> {
        let wall_ms = self.wall_ms.load(Ordering::Relaxed);
        if wall_ms == 0 || clock.wall_ms == 0 {
            return None;
        }
        Some(i64::try_from(clock.wall_ms).ok()? - i64::try_from(wall_ms).ok()?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn problems(sites: &[SiteHealth]) -> Vec<String> {
    let mut offsets: Vec<i64> = sites.iter().filter_map(|site| site.clock_offset_ms).collect();
    offsets.sort_unstable();
    // When all are off it is central's clock, or the time is told, as in a demo.
    let median = offsets.get(offsets.len() / 2).copied().unwrap_or(0);
    let is_off = |offset: i64| offset.abs_diff(median) > CLOCK_OFF_MS_MAX;
    let lines = [
        line(sites, "not in the model, so without a price", |site| !site.in_model),
        line(sites, "with payloads that the broker refuses", |site| {
            site.refused.is_some_and(|refused| refused > 0)
        }),
        line(
            sites,
            "whose feed is coarser, to stay within its bytes of the day",
            |site| site.intervals.is_some_and(|intervals| intervals > 1),
        ),
        line(sites, "whose clock differs from the others'", |site| {
            site.clock_offset_ms.is_some_and(is_off)
        }),
    ];
    lines.into_iter().flatten().collect()
}

/// `2 stores not in the model: a, b`; nothing when there is none.
fn line(sites: &[SiteHealth], what: &str, is_it: impl Fn(&SiteHealth) -> bool) -> Option<String> {
    let names: Vec<&str> = sites
        .iter()
        .filter(|site| is_it(site))
        .map(|site| site.id.as_str())
        .collect();
    let shown = names.get(..NAMES_MAX).unwrap_or(&names).join(", ");
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    let noun = if names.len() == 1 { "store" } else { "stores" };
    (!names.is_empty()).then(|| format!("{} {noun} {what}: {shown}{more}", names.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    fn board() -> Board {
        let board = Board::new(["a", "b", "c"].map(site).into());
        board.tell_time(1_000_000_000);
        board
    }

    fn state(birth_number: u64, online: bool, refused: u64) -> State {
        State {
            online,
            generation: 1,
            birth_number,
            agent_version: "0.1.0".to_owned(),
            clock: clock(0),
            spool_records: 7,
            spool_bytes: 700,
            refused,
            ..State::default()
        }
    }

    fn clock(off_ms: i64) -> ClockReading {
        ClockReading {
            wall_ms: 1_000_000_000_u64.saturating_add_signed(off_ms),
            ..ClockReading::default()
        }
    }

    #[test]
    fn nothing_is_said_when_all_is_well() {
        let board = board();
        for name in ["a", "b", "c"] {
            board.heard(&site(name), &clock(-300));
            board.state_came(&site(name), state(1, true, 0));
        }
        let health = board.health();
        assert_eq!(health.problems, Vec::<String>::new());
        assert_eq!(health.sites[0].spool_bytes, Some(700));
        assert_eq!(health.sites[0].clock_offset_ms, Some(-300));
    }

    #[test]
    fn a_store_without_model_one_that_is_refused_and_a_wrong_clock_are_said() {
        let board = board();
        board.heard(&site("a"), &clock(0));
        board.heard(&site("b"), &clock(3_600_000));
        board.heard(&site("stranger"), &clock(0));
        board.state_came(&site("c"), state(1, true, 2));
        assert_eq!(
            board.health().problems,
            [
                "1 store not in the model, so without a price: stranger",
                "1 store with payloads that the broker refuses: c",
                "1 store whose clock differs from the others': b",
            ]
        );
    }

    /// Central's own clock, or the told time of a demo.
    #[test]
    fn clocks_that_all_agree_are_no_problem() {
        let board = board();
        for name in ["a", "b", "c"] {
            board.heard(&site(name), &clock(-900_000_000));
        }
        assert_eq!(board.health().problems, Vec::<String>::new());
    }

    #[test]
    fn an_old_will_does_not_put_a_store_offline_and_the_archive_never_online() {
        let board = board();
        board.state_restored(&site("a"), state(4, true, 0));
        assert_eq!(board.health().sites[0].online, None);
        board.state_came(&site("a"), state(5, true, 0));
        board.state_came(&site("a"), state(4, false, 0));
        assert_eq!(board.health().sites[0].online, Some(true));
        board.state_came(&site("a"), state(5, false, 0));
        assert_eq!(board.health().sites[0].online, Some(false));
    }

    #[test]
    fn stores_without_model_are_bounded_and_counted() {
        let board = board();
        for number in 0..UNKNOWN_SITES_MAX + 3 {
            board.heard(&site(&format!("x{number}")), &clock(0));
        }
        board.heard(&site("a"), &clock(0));
        let health = board.health();
        assert_eq!(health.sites.len(), UNKNOWN_SITES_MAX + 1);
        let counter = health
            .counters
            .iter()
            .find(|counter| counter.name == "unknown_sites_refused");
        assert_eq!(counter.unwrap().value, 3);
    }
}
