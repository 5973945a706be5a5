//! Which records of which site are settled: received, or accounted for as lost.
//!
//! In: the numbers that stand on each message, and the news that a batch was written durably.
//! Out: the part of a message that is fresh, what is lost for good, marks for the archive, and acknowledgements.
//! It never reads a payload, never asks for the time, and never acknowledges what is not durable yet.
//!
//! For each site and generation: settled = received + accounted, the two never overlap, and what lies below the highest
//! settled number without being settled is still missing.

use std::collections::{BTreeMap, BTreeSet};
use tillwatch_feed::message::{Ack, GenerationAck};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::topic::{ArchiveId, Shard, SiteId};

/// Least time between two acknowledgements to one site.
pub const ACK_INTERVAL_MS: u64 = 1_000;
/// Generations that one acknowledgement speaks of, those heard last.
pub const ACK_GENERATIONS_MAX: usize = 16;
/// Ranges beyond `through_seq` in one acknowledgement; the format's limit.
pub const ACK_RANGES_MAX: usize = 16;
/// Births asked of one site at a time, the format's limit; a block that needs one more is refused and comes again later.
pub const BIRTHS_WANTED_MAX: usize = 64;
/// Acknowledgements that ask for a birth, a second apart at least, before it counts as gone.
pub const BIRTH_ASKS_MAX: u32 = 900;

/// What one cursor holds in memory at most.
#[derive(Debug, Clone, Copy)]
pub struct CursorLimits {
    pub sites_max: usize,
    /// Generations of a site kept in memory; older ones stay in the archive and are loaded when they are heard again.
    pub generations_max: usize,
    /// Ranges of one generation. A message that would need one more is refused, and its agent sends it again later.
    pub ranges_max: usize,
}

impl Default for CursorLimits {
    fn default() -> Self {
        Self {
            sites_max: 50_000,
            generations_max: 32,
            ranges_max: 1_024,
        }
    }
}

/// What is settled of one generation, as the archive keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub site: SiteId,
    pub shard: Shard,
    pub generation: u64,
    pub settled: RangeSet,
    /// Records whose payload came.
    pub received: u64,
    /// Records that a gap or the agent's own oldest number says are gone.
    pub accounted: u64,
    /// Order of hearing: larger is later.
    pub heard: u64,
}

impl Mark {
    /// Records that the site must have made by now.
    pub fn produced(&self) -> u64 {
        self.settled.last().unwrap_or(0)
    }
}

/// The numbers on one message.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    pub generation: u64,
    pub seq_first: u64,
    pub seq_last: u64,
    pub oldest_seq_held: u64,
}

/// What a message brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Records of the message that were not settled before, ascending.
    pub fresh: Vec<(u64, u64)>,
    /// Records below `oldest_seq_held` that never came and no longer exist: lost at the center.
    pub lost: Vec<(u64, u64)>,
}

/// Why a message was not taken; its records stay unsettled, and its agent sends them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("records {seq_first}..={seq_last} are no range of numbers from 1")]
    Numbers { seq_first: u64, seq_last: u64 },
    #[error("more than {max} sites")]
    Sites { max: usize },
    #[error("more than {max} holes in one generation")]
    Ranges { max: usize },
}

/// Does a message bring records, or say that they are gone?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brings {
    Records,
    Gap,
}

/// All sites.
#[derive(Debug)]
pub struct Cursor {
    archive: ArchiveId,
    start: u64,
    limits: CursorLimits,
    sites: BTreeMap<SiteId, Site>,
    heard: u64,
    /// Changed or heard again since the last commit.
    touched: BTreeSet<(SiteId, u64)>,
    ack_due: BTreeSet<SiteId>,
    given_up: Vec<(SiteId, u64)>,
}

#[derive(Debug)]
struct Site {
    shard: Shard,
    generations: BTreeMap<u64, Generation>,
    /// With how often each was asked for.
    births_wanted: BTreeMap<u64, u32>,
    acked_ms: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Generation {
    settled: RangeSet,
    received: u64,
    accounted: u64,
    heard: u64,
}

impl Cursor {
    /// `start` is a random number of this connection of this archive: when it changes, agents send again what they hold.
    pub fn new(archive: ArchiveId, start: u64, limits: CursorLimits) -> Self {
        Self {
            archive,
            start,
            limits,
            sites: BTreeMap::new(),
            heard: 0,
            touched: BTreeSet::new(),
            ack_due: BTreeSet::new(),
            given_up: Vec::new(),
        }
    }

    /// Messages may have been lost on the way: every site gets an acknowledgement with a new start number.
    pub fn restarted(&mut self, start: u64) {
        self.start = start;
        self.ack_due = self.sites.keys().cloned().collect();
    }

    /// Is this generation in memory? When not, the caller looks in the archive and calls [`Cursor::load`] first.
    pub fn knows(&self, site: &SiteId, generation: u64) -> bool {
        self.sites
            .get(site)
            .is_some_and(|site| site.generations.contains_key(&generation))
    }

    /// Takes up what the archive holds of a generation.
    pub fn load(&mut self, mark: Mark) {
        self.heard = self.heard.max(mark.heard);
        let site = self
            .sites
            .entry(mark.site.clone())
            .or_insert_with(|| Site::new(mark.shard.clone()));
        let Mark {
            settled,
            received,
            accounted,
            heard,
            ..
        } = mark;
        site.generations.insert(
            mark.generation,
            Generation {
                settled,
                received,
                accounted,
                heard,
            },
        );
        self.ack_due.insert(mark.site);
    }

    /// Takes the numbers of one message.
    ///
    /// # Errors
    /// When a limit is hit or the numbers are none; nothing is changed then.
    pub fn arrived(
        &mut self,
        shard: &Shard,
        site_id: &SiteId,
        numbers: Numbers,
        brings: Brings,
    ) -> Result<Arrival, Refusal> {
        let Numbers {
            generation,
            seq_first,
            seq_last,
            oldest_seq_held,
        } = numbers;
        if seq_first == 0 || seq_first > seq_last {
            return Err(Refusal::Numbers { seq_first, seq_last });
        }
        if self.sites.len() >= self.limits.sites_max && !self.sites.contains_key(site_id) {
            return Err(Refusal::Sites {
                max: self.limits.sites_max,
            });
        }
        let site = self
            .sites
            .entry(site_id.clone())
            .or_insert_with(|| Site::new(shard.clone()));
        site.shard = shard.clone();
        let entry = site.generations.entry(generation).or_default();
        let oldest = oldest_seq_held.min(seq_first);
        if entry.needs_ranges(oldest, seq_first, seq_last) > self.limits.ranges_max {
            return Err(Refusal::Ranges {
                max: self.limits.ranges_max,
            });
        }
        // The agent's own word first: it closes holes, so that the message itself needs fewer ranges.
        let lost = entry.settle_below(oldest);
        let fresh = entry.settle(seq_first, seq_last, brings);
        self.heard += 1;
        entry.heard = self.heard;
        self.touched.insert((site_id.clone(), generation));
        Ok(Arrival { fresh, lost })
    }

    /// May the site leave out this birth, too?
    pub fn may_want(&self, site: &SiteId, schema: u64) -> bool {
        self.sites.get(site).is_none_or(|entry| {
            entry.births_wanted.len() < BIRTHS_WANTED_MAX || entry.births_wanted.contains_key(&schema)
        })
    }

    /// Asks the site for a birth; false when as many as allowed are asked for already.
    pub fn want_birth(&mut self, site: &SiteId, schema: u64) -> bool {
        let Some(entry) = self.sites.get_mut(site) else {
            return false;
        };
        let has_room = entry.births_wanted.len() < BIRTHS_WANTED_MAX;
        if entry.births_wanted.contains_key(&schema) || !has_room {
            return entry.births_wanted.contains_key(&schema);
        }
        entry.births_wanted.insert(schema, 0);
        self.ack_due.insert(site.clone());
        true
    }

    /// The birth came; true when it had been asked for.
    pub fn birth_came(&mut self, site: &SiteId, schema: u64) -> bool {
        self.sites
            .get_mut(site)
            .is_some_and(|entry| entry.births_wanted.remove(&schema).is_some())
    }

    /// All births that are asked for.
    pub fn births_wanted(&self) -> impl Iterator<Item = (&SiteId, u64)> {
        self.sites
            .iter()
            .flat_map(|(site, entry)| entry.births_wanted.keys().map(move |schema| (site, *schema)))
    }

    /// Births that were asked for [`BIRTH_ASKS_MAX`] times in vain, each once: nobody asks for them any more, until
    /// something names them again.
    pub fn births_given_up(&mut self) -> Vec<(SiteId, u64)> {
        std::mem::take(&mut self.given_up)
    }

    /// The marks to write in the same transaction as the payloads that changed them.
    pub fn changed(&self) -> Vec<Mark> {
        self.touched
            .iter()
            .filter_map(|(site, generation)| self.mark(site, *generation))
            .collect()
    }

    /// What is settled of one generation.
    pub fn mark(&self, site: &SiteId, generation: u64) -> Option<Mark> {
        let entry = self.sites.get(site)?;
        let Generation {
            settled,
            received,
            accounted,
            heard,
        } = entry.generations.get(&generation)?.clone();
        Some(Mark {
            site: site.clone(),
            shard: entry.shard.clone(),
            generation,
            settled,
            received,
            accounted,
            heard,
        })
    }

    /// The marks from [`Cursor::changed`] are durable: acknowledgements for them are due, and memory is trimmed.
    pub fn committed(&mut self) {
        for (site, _) in std::mem::take(&mut self.touched) {
            if let Some(entry) = self.sites.get_mut(&site) {
                entry.trim(self.limits.generations_max);
            }
            self.ack_due.insert(site);
        }
    }

    /// Up to `max` acknowledgements that may go now. None while anything is not durable.
    pub fn acks_due(&mut self, now_ms: u64, max: usize) -> Vec<(Shard, SiteId, Ack)> {
        if !self.touched.is_empty() {
            return Vec::new();
        }
        let mut acks = Vec::new();
        for id in &self.ack_due {
            if acks.len() == max {
                break;
            }
            if let Some(site) = self.sites.get_mut(id)
                && site.acked_ms.is_none_or(|acked| now_ms >= acked + ACK_INTERVAL_MS)
            {
                site.acked_ms = Some(now_ms);
                acks.push((site.shard.clone(), id.clone(), site.ack(&self.archive, self.start)));
                self.given_up
                    .extend(site.asked().into_iter().map(|schema| (id.clone(), schema)));
            }
        }
        for (_, site, _) in &acks {
            self.ack_due.remove(site);
        }
        acks
    }

    /// An acknowledgement could not be sent: it is due again.
    pub fn ack_not_sent(&mut self, site: &SiteId) {
        self.ack_due.insert(site.clone());
    }

    pub fn sites(&self) -> usize {
        self.sites.len()
    }
}

impl Site {
    fn new(shard: Shard) -> Self {
        Self {
            shard,
            generations: BTreeMap::new(),
            births_wanted: BTreeMap::new(),
            acked_ms: None,
        }
    }

    fn ack(&self, archive: &ArchiveId, start: u64) -> Ack {
        let mut newest: Vec<_> = self.generations.iter().collect();
        newest.sort_by_key(|(_, generation)| std::cmp::Reverse(generation.heard));
        newest.truncate(ACK_GENERATIONS_MAX);
        Ack {
            archive: archive.clone(),
            start,
            generations: newest.into_iter().map(|(id, generation)| generation.ack(*id)).collect(),
            births_wanted: self.births_wanted.keys().copied().collect(),
        }
    }

    /// All that it wants was asked for once more; what that was in vain too often.
    fn asked(&mut self) -> Vec<u64> {
        self.births_wanted.values_mut().for_each(|asks| *asks += 1);
        let in_vain = |_: &u64, asks: &mut u32| *asks >= BIRTH_ASKS_MAX;
        self.births_wanted
            .extract_if(.., in_vain)
            .map(|(schema, _)| schema)
            .collect()
    }

    /// Forgets the generations heard longest ago; the archive still knows them.
    fn trim(&mut self, generations_max: usize) {
        while self.generations.len() > generations_max {
            let oldest = self.generations.iter().min_by_key(|(_, generation)| generation.heard);
            let Some(id) = oldest.map(|(id, _)| *id) else { return };
            self.generations.remove(&id);
        }
    }
}

impl Generation {
    /// Everything below `oldest` that never came is gone.
    fn settle_below(&mut self, oldest: u64) -> Vec<(u64, u64)> {
        let lost = if oldest > 1 {
            self.settled.missing_in(1, oldest - 1)
        } else {
            Vec::new()
        };
        for (first, last) in &lost {
            self.settled.insert(*first, *last);
            self.accounted = self.accounted.saturating_add(last - first + 1);
        }
        lost
    }

    /// Ranges after everything below `oldest` and a message are settled; what only grows a range needs no further one.
    fn needs_ranges(&self, oldest: u64, first: u64, last: u64) -> usize {
        let around = (first - 1, last.saturating_add(1));
        let adjoins_lost = oldest > 1 && oldest == first;
        let is_island = !adjoins_lost && self.settled.missing_in(around.0, around.1) == [around];
        if !is_island {
            return 0;
        }
        let beyond = self.settled.iter().filter(|(first, _)| oldest <= 1 || *first > oldest);
        beyond.count() + usize::from(oldest > 1) + 1
    }

    fn settle(&mut self, first: u64, last: u64, brings: Brings) -> Vec<(u64, u64)> {
        let fresh = self.settled.missing_in(first, last);
        self.settled.insert(first, last);
        let count = fresh
            .iter()
            .fold(0_u64, |sum, (first, last)| sum.saturating_add(last - first + 1));
        let total = match brings {
            Brings::Records => &mut self.received,
            Brings::Gap => &mut self.accounted,
        };
        *total = total.saturating_add(count);
        fresh
    }

    /// The lowest ranges let `through_seq` advance, the highest cover what is live: both ends are said.
    fn ack(&self, generation: u64) -> GenerationAck {
        let through_seq = self.settled.through();
        let beyond: Vec<_> = self.settled.iter().filter(|(first, _)| *first > through_seq).collect();
        let ranges = if beyond.len() <= ACK_RANGES_MAX {
            beyond
        } else {
            let half = ACK_RANGES_MAX / 2;
            let (low, high) = (beyond.iter().take(half), beyond.iter().skip(beyond.len() - half));
            low.chain(high).copied().collect()
        };
        GenerationAck {
            generation,
            through_seq,
            ranges,
        }
    }
}
