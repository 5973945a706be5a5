//! What the spool promises, against random operations, failures and power cuts.

use std::sync::Arc;

use super::simulated::{Faults, SimulatedDisk};
use super::*;

const KIND: RecordKind = RecordKind::Block;

fn settings() -> SpoolSettings {
    SpoolSettings {
        bytes_max: 1 << 30,
        age_max_ms: u64::MAX,
        segment_bytes: 4096,
    }
}

/// Reads all records of the runs, in their order.
fn read_all(spool: &mut Spool, runs: &[Run]) -> Vec<(RecordId, Vec<u8>)> {
    let mut all = Vec::new();
    for run in runs {
        let mut seq = run.seq_first;
        while seq <= run.seq_last {
            let rest = u32::try_from(run.seq_last - seq + 1).unwrap();
            let records = spool
                .read(
                    RecordId {
                        generation: run.generation,
                        seq,
                    },
                    rest,
                )
                .unwrap();
            seq += records.len() as u64;
            all.extend(records.into_iter().map(|record| (record.id, record.payload)));
        }
    }
    all
}

/// Records with their payloads, and the checkpoint behind them.
type InDoubt = (Vec<(RecordId, Vec<u8>)>, Vec<u8>);

/// What must be true of the spool, kept by hand.
struct Story {
    disk: Arc<SimulatedDisk>,
    random: fastrand::Rng,
    spool: Option<Spool>,
    generation: u64,
    /// Everything that `append` acknowledged, with the checkpoint of its frame.
    kept: Vec<(RecordId, Vec<u8>)>,
    checkpoint: Option<Vec<u8>>,
    /// How many of `kept` were released for sure, and perhaps.
    released_min: usize,
    released_max: usize,
    /// An append that neither succeeded nor was undone for sure.
    in_doubt: Option<InDoubt>,
    frames: u64,
    /// How many of ten steps acknowledge something.
    releases: u32,
    /// Segments that were rewritten.
    compacted: u64,
    compactions_failed: u64,
    /// What was found at openings, but for torn tails.
    notes: Vec<Note>,
}

impl Story {
    fn begin(seed: u64, faults: Faults) -> Self {
        let disk = Arc::new(SimulatedDisk::new(seed, Faults::default()));
        let spool = Spool::open_on(disk.clone(), &settings(), 1, 0).unwrap().0;
        disk.set_faults(faults);
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        // Some stores are connected, in others much waits.
        let releases = random.u32(0..=3);
        Self {
            disk,
            random,
            spool: Some(spool),
            generation: 1,
            kept: Vec::new(),
            checkpoint: None,
            released_min: 0,
            released_max: 0,
            in_doubt: None,
            frames: 0,
            releases,
            compacted: 0,
            compactions_failed: 0,
            notes: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.u32(0..10) {
            9 => self.reopen(),
            8 => self.read(),
            step if step < self.releases => self.release(),
            _ => self.append(),
        }
        if self.disk.is_dead() || self.spool.as_ref().is_none_or(Spool::has_failed) {
            self.reopen();
        }
    }

    fn append(&mut self) {
        let Some(spool) = self.spool.as_mut() else { return };
        let first = spool.next_id();
        let payloads: Vec<Vec<u8>> = (0..self.random.usize(0..4))
            .map(|_| vec![self.random.u8(..); self.random.usize(0..1500)])
            .collect();
        let records: Vec<NewRecord> = payloads
            .iter()
            .map(|payload| NewRecord {
                kind: KIND,
                schema: 1,
                payload: payload.clone(),
            })
            .collect();
        let ids = (0..).map(|index| RecordId {
            generation: first.generation,
            seq: first.seq + index,
        });
        let named: Vec<(RecordId, Vec<u8>)> = ids.zip(payloads).collect();
        self.frames += 1;
        let checkpoint = self.frames.to_le_bytes().to_vec();
        let appended = spool.append(&records, &checkpoint, 0);
        assert_eq!(
            spool.take_dropped(),
            [],
            "only the bounds drop anything, never a full disk"
        );
        let has_failed = spool.has_failed();
        match appended {
            Ok(ids) => {
                assert_eq!(ids, named.iter().map(|(id, _)| *id).collect::<Vec<_>>());
                self.kept.extend(named);
                self.checkpoint = Some(checkpoint);
            }
            Err(_) if self.disk.is_dead() || has_failed => self.in_doubt = Some((named, checkpoint)),
            Err(_) => {}
        }
    }

    /// What is held can be read at any time, wherever it was moved to.
    fn read(&mut self) {
        let Some(spool) = self.spool.as_mut() else { return };
        if self.released_max == self.kept.len() {
            return;
        }
        let (id, payload) = &self.kept[self.random.usize(self.released_max..self.kept.len())];
        let faults = self.disk.set_faults(Faults::default());
        assert_eq!(spool.read(*id, 1).unwrap()[0].payload, *payload);
        self.disk.set_faults(faults);
    }

    fn release(&mut self) {
        let Some(spool) = self.spool.as_mut() else { return };
        if self.released_max == self.kept.len() {
            return;
        }
        let through = self.random.usize(self.released_max..self.kept.len());
        let failures = spool.counters().cursor_failures;
        spool.release(self.kept[through].0);
        self.released_max = through + 1;
        if spool.counters().cursor_failures == failures && !self.disk.is_dead() {
            self.released_min = self.released_max;
        }
    }

    fn reopen(&mut self) {
        if let Some(spool) = self.spool.take() {
            self.compacted += spool.counters().segments_compacted;
            // Those of an agent without power tell nothing.
            let is_dead = self.disk.is_dead();
            self.compactions_failed += if is_dead {
                0
            } else {
                spool.counters().compactions_failed
            };
        }
        loop {
            if self.disk.is_dead() {
                self.disk.restart();
            }
            self.generation += 1;
            let opened = Spool::open_on(self.disk.clone(), &settings(), self.generation, 0);
            let (Ok((spool, recovery)), false) = (opened, self.disk.is_dead()) else {
                continue;
            };
            self.spool = Some(spool);
            return self.check(&recovery);
        }
    }

    fn check(&mut self, recovery: &Recovery) {
        let is_damage = |note: &&Note| !matches!(note, Note::TornTail { .. });
        self.notes.extend(recovery.notes.iter().filter(is_damage).cloned());
        let Some(spool) = self.spool.as_mut() else { return };
        let faults = self.disk.set_faults(Faults::default());
        let held = read_all(spool, &recovery.runs);
        self.disk.set_faults(faults);
        if let Some((records, checkpoint)) = self.in_doubt.take()
            && recovery.checkpoint.as_ref() == Some(&checkpoint)
        {
            self.kept.extend(records);
            self.checkpoint = Some(checkpoint);
        }
        assert_eq!(recovery.checkpoint, self.checkpoint, "the newest checkpoint");
        let in_gaps: usize = recovery
            .gaps
            .iter()
            .map(|gap| usize::try_from(gap.seq_last - gap.seq_first + 1).unwrap())
            .sum();
        assert!(
            held.len() <= self.kept.len() - self.released_min,
            "released records came back, or unknown ones"
        );
        assert!(
            held.len() + in_gaps >= self.kept.len() - self.released_max,
            "{} held, {in_gaps} in gaps, {} appended, {} released",
            held.len(),
            self.kept.len(),
            self.released_max
        );
        assert_eq!(
            held,
            self.kept[self.kept.len() - held.len()..],
            "the newest records, in order"
        );
        self.released_min = self.kept.len() - held.len();
        self.released_max = self.released_min;
    }
}

fn run_stories(seeds: std::ops::Range<u64>, faults: Faults) -> Vec<Story> {
    seeds
        .map(|seed| {
            println!("seed {seed}");
            let mut story = Story::begin(seed, faults);
            for _ in 0..150 {
                story.step();
            }
            story
        })
        .collect()
}

#[test]
fn what_append_acknowledged_survives_power_cuts_at_any_operation() {
    let stories = run_stories(
        0..150,
        Faults {
            power_cut: 60,
            ..Faults::default()
        },
    );
    assert!(
        stories.iter().map(|story| story.generation).sum::<u64>() > 1000,
        "the power was cut often"
    );
    assert!(
        stories.iter().map(|story| story.compacted).sum::<u64>() > 1000,
        "segments were rewritten often"
    );
    for story in &stories {
        assert_eq!((&story.notes, story.compactions_failed), (&vec![], 0));
    }
}

#[test]
fn what_append_acknowledged_survives_full_disks_failed_reads_syncs_and_removals_and_power_cuts_together() {
    run_stories(
        1000..1600,
        Faults {
            full: 60,
            sync_fails: 30,
            power_cut: 30,
            read_fails: 30,
            change_fails: 30,
            read_only: 10,
        },
    );
}
