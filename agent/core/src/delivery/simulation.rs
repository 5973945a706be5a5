//! A site, a lossy network and an archive in one process, from one seed, with a checker of what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tillwatch_feed::message::{Ack, GapReason, GenerationAck, RecordId};
use tillwatch_feed::ranges::RangeSet;

use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

#[derive(Default)]
struct Archive {
    start: u64,
    volatile: BTreeMap<u64, RangeSet>,
    durable: BTreeMap<u64, RangeSet>,
    backup: BTreeMap<u64, RangeSet>,
    /// All that it ever wrote durably.
    ever: BTreeMap<u64, RangeSet>,
}

impl Archive {
    fn commit(&mut self) {
        self.durable = self.volatile.clone();
        for (generation, set) in &self.durable {
            let ever = self.ever.entry(*generation).or_default();
            set.iter().for_each(|(first, last)| ever.insert(first, last));
        }
    }

    fn ack(&self) -> Ack {
        let generations = self.durable.iter().map(|(generation, set)| GenerationAck {
            generation: *generation,
            through_seq: set.through(),
            ranges: set.iter().filter(|range| range.0 > 1).take(16).collect(),
        });
        let generations = generations.collect();
        Ack {
            archive: "main".parse().unwrap(),
            start: self.start,
            generations,
            births_wanted: Vec::new(),
        }
    }
}

struct World {
    random: Random,
    now_ms: u64,
    seed: u64,
    delivery: Delivery,
    generation: u64,
    seq: u64,
    schema: u64,
    connected: bool,
    /// All records ever, in order, and where each stands.
    produced: Vec<(RecordId, RecordKind, u64)>,
    order: HashMap<RecordId, usize>,
    /// The spool: everything before this is deleted.
    held_from: usize,
    gaps: Vec<HeldGap>,
    lost: BTreeMap<u64, RangeSet>,
    births_on_connection: BTreeSet<u64>,
    /// When it arrives, generation, first, last, oldest held.
    up: Vec<(u64, u64, u64, u64, u64)>,
    down: Vec<(u64, Ack)>,
    archive: Archive,
    sent: u64,
}

const IN_FLIGHT_MAX: u64 = 20;

impl World {
    fn new(seed: u64) -> World {
        World {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now_ms: 0,
            seed,
            delivery: delivery(seed),
            generation: 1000,
            seq: 0,
            schema: 1,
            connected: false,
            produced: Vec::new(),
            order: HashMap::new(),
            held_from: 0,
            gaps: Vec::new(),
            lost: BTreeMap::new(),
            births_on_connection: BTreeSet::new(),
            up: Vec::new(),
            down: Vec::new(),
            archive: Archive::default(),
            sent: 0,
        }
    }

    fn step(&mut self, hostile: bool) {
        self.now_ms += self.random.below(2_000);
        if hostile {
            self.harm();
        } else if !self.connected {
            self.connect();
        }
        self.send(hostile);
        self.arrive();
        if self.random.percent(60) {
            self.archive.commit();
            let delay = self.random.below(1_500);
            self.down.push((self.now_ms + delay, self.archive.ack()));
        }
    }

    fn harm(&mut self) {
        match self.random.below(40) {
            0 => self.restart_agent(),
            1 => self.archive.volatile = self.archive.durable.clone(),
            2 if self.random.percent(20) => self.restore_archive(),
            3 => self.archive.backup = self.archive.durable.clone(),
            4 | 5 if self.connected => self.disconnect(),
            6..=10 if !self.connected => self.connect(),
            11 if self.random.percent(30) => self.drop_oldest(),
            12..=25 => self.append(),
            _ => {}
        }
    }

    fn append(&mut self) {
        for _ in 0..=self.random.below(4) {
            let kind = match self.random.below(20) {
                0 => RecordKind::Birth,
                1..=3 => RecordKind::Finding,
                _ => RecordKind::Block,
            };
            if kind == RecordKind::Birth || self.seq == 0 {
                self.schema += 1;
            }
            self.seq += 1;
            let kind = if self.seq == 1 { RecordKind::Birth } else { kind };
            let schema = if kind == RecordKind::Finding { 0 } else { self.schema };
            let id = RecordId {
                generation: self.generation,
                seq: self.seq,
            };
            self.order.insert(id, self.produced.len());
            self.produced.push((id, kind, schema));
            self.delivery.on_held(run_of(&(id, kind, schema)));
        }
    }

    fn held(&self) -> &[(RecordId, RecordKind, u64)] {
        &self.produced[self.held_from..]
    }

    fn restart_agent(&mut self) {
        self.disconnect();
        self.generation += 1 + self.random.below(5);
        self.seq = 0;
        self.delivery = delivery(self.random.next());
        let runs: Vec<Run> = self.held().iter().map(run_of).collect();
        let gaps_first = self.random.percent(50);
        let gaps = self.gaps.clone();
        if gaps_first {
            gaps.iter().for_each(|gap| self.delivery.on_gap(*gap));
        }
        runs.into_iter().for_each(|run| self.delivery.on_held(run));
        if !gaps_first {
            gaps.iter().for_each(|gap| self.delivery.on_gap(*gap));
        }
    }

    fn restore_archive(&mut self) {
        self.archive.start += 1;
        self.archive.durable = self.archive.backup.clone();
        self.archive.volatile = self.archive.backup.clone();
        // What was on its way to the old archive is gone; what it said before may still arrive.
        self.up.clear();
    }

    fn drop_oldest(&mut self) {
        for _ in 0..=self.random.below(6) {
            let Some((id, ..)) = self.held().first().copied() else {
                return;
            };
            self.held_from += 1;
            let gap = HeldGap {
                generation: id.generation,
                seq_first: id.seq,
                seq_last: id.seq,
                reason: GapReason::QuotaBytes,
            };
            self.gaps.push(gap);
            self.lost.entry(id.generation).or_default().insert(id.seq, id.seq);
            self.delivery.on_gap(gap);
        }
    }

    fn connect(&mut self) {
        self.connected = true;
        self.births_on_connection.clear();
        self.delivery.on_connected(self.now_ms);
        self.down
            .push((self.now_ms + self.random.below(500), self.archive.ack()));
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.delivery.on_disconnected();
        let keep = self.random.below(100);
        self.up.retain(|message| message.2 % 100 < keep);
        self.down.clear();
    }

    fn send(&mut self, hostile: bool) {
        while let Some(send) = self.delivery.poll(self.now_ms) {
            assert!(self.connected, "seed {}: sent without a connection", self.seed);
            assert!(
                self.delivery.in_flight() <= IN_FLIGHT_MAX,
                "seed {}: too much in flight",
                self.seed
            );
            self.sent += 1;
            let (generation, first, last) = match send {
                Send::Births { schema } => {
                    self.births_on_connection.insert(schema);
                    continue;
                }
                Send::Gap {
                    generation,
                    seq_first,
                    seq_last,
                    ..
                } => (generation, seq_first, seq_last),
                Send::Records {
                    kind,
                    schema,
                    generation,
                    seq_first,
                    seq_last,
                    ..
                } => {
                    self.check_records(kind, schema, generation, seq_first, seq_last);
                    (generation, seq_first, seq_last)
                }
            };
            let oldest = self.delivery.oldest_held(generation).expect("what is sent is held");
            assert!(oldest <= first, "seed {}: older than the oldest", self.seed);
            if hostile && self.random.percent(3) {
                let refusal = if self.random.percent(50) {
                    Refusal::Denied
                } else {
                    Refusal::TooLarge
                };
                if let Some(gap) = self.delivery.on_refused(self.now_ms, &send, refusal) {
                    self.delivery.on_gap(gap);
                }
                continue;
            }
            let copies = if !hostile {
                1
            } else {
                self.random.below(20).min(1) + u64::from(self.random.percent(5))
            };
            for _ in 0..copies {
                self.up
                    .push((self.now_ms + self.random.below(3_000), generation, first, last, oldest));
            }
        }
    }

    fn check_records(&mut self, kind: RecordKind, schema: u64, generation: u64, first: u64, last: u64) {
        for seq in first..=last {
            let at = self.order[&RecordId { generation, seq }];
            assert!(
                at >= self.held_from,
                "seed {}: a deleted record was to be sent",
                self.seed
            );
            assert_eq!(
                self.produced[at],
                (RecordId { generation, seq }, kind, schema),
                "seed {}",
                self.seed
            );
        }
        if kind == RecordKind::Birth {
            self.births_on_connection.insert(schema);
        }
        let known = kind != RecordKind::Block || self.births_on_connection.contains(&schema);
        assert!(known, "seed {}: a block went before its birth", self.seed);
    }

    fn arrive(&mut self) {
        let now_ms = self.now_ms;
        for (_, generation, first, last, oldest) in self.up.extract_if(.., |message| message.0 <= now_ms) {
            let set = self.archive.volatile.entry(generation).or_default();
            set.insert(first, last);
            // What is no longer held was lost by the archive itself: noted there, so that its cursor goes on.
            set.insert(1, oldest - 1);
        }
        let acks: Vec<Ack> = self
            .down
            .extract_if(.., |message| message.0 <= now_ms)
            .map(|message| message.1)
            .collect();
        for ack in acks.iter().filter(|_| self.connected).collect::<Vec<_>>() {
            let outcome = self.delivery.on_ack(now_ms, ack);
            if let Some(id) = outcome.release {
                self.release(id);
            }
        }
    }

    /// The promise: what is deleted was durable at the archive, and deletion only moves forward.
    fn release(&mut self, id: RecordId) {
        let through = self.order[&id];
        assert!(through >= self.held_from, "seed {}: the cursor moved back", self.seed);
        for (id, ..) in &self.produced[self.held_from..=through] {
            let written = self
                .archive
                .ever
                .get(&id.generation)
                .is_some_and(|set| set.contains(id.seq));
            assert!(
                written,
                "seed {}: {id:?} was deleted before the archive had it",
                self.seed
            );
        }
        self.held_from = through + 1;
        let order = &self.order;
        self.gaps.retain(|gap| {
            order[&RecordId {
                generation: gap.generation,
                seq: gap.seq_last,
            }] > through
        });
    }

    /// Everything produced is at the archive, was told as lost, or was there before the archive lost it.
    fn check_end(&self) {
        assert_eq!(self.held().len(), 0, "seed {}: something is still held", self.seed);
        for (id, ..) in &self.produced {
            let ever = self
                .archive
                .ever
                .get(&id.generation)
                .is_some_and(|set| set.contains(id.seq));
            assert!(ever, "seed {}: {id:?} was neither received nor told as lost", self.seed);
        }
    }
}

fn run_of(record: &(RecordId, RecordKind, u64)) -> Run {
    let (RecordId { generation, seq }, kind, schema) = *record;
    Run {
        generation,
        seq_first: seq,
        seq_last: seq,
        kind,
        schema,
    }
}

fn delivery(seed: u64) -> Delivery {
    let archives = vec!["main".parse().unwrap()];
    Delivery::new(DeliverySettings {
        in_flight_max: IN_FLIGHT_MAX,
        join_max: 8,
        ..DeliverySettings::new(archives, seed)
    })
}

#[test]
fn whatever_the_network_and_both_ends_do_nothing_is_deleted_early_and_nothing_is_lost() {
    let (mut produced, mut lost, mut restored) = (0, 0, 0);
    for seed in 1..=150 {
        let mut world = World::new(seed);
        for _ in 0..1_500 {
            world.step(true);
        }
        // What a broker refused as too large waits for the next connection.
        world.disconnect();
        for _ in 0..4_000 {
            world.step(false);
        }
        world.check_end();
        produced += world.produced.len();
        lost += world.lost.values().map(RangeSet::count).sum::<u64>();
        restored += world.archive.start;
    }
    println!("seeds 1..=150: {produced} records, {lost} told as lost, {restored} archives restored");
    assert!(
        produced > 50_000 && lost > 500 && restored > 100,
        "the simulation does too little"
    );
}
