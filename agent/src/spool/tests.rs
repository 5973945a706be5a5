//! One promise of the spool each.

use std::sync::Arc;

use super::simulated::{Faults, SimulatedDisk};
use super::*;

const DAY_MS: u64 = 24 * 3_600_000;

fn settings() -> SpoolSettings {
    SpoolSettings {
        bytes_max: 1 << 20,
        age_max_ms: 14 * DAY_MS,
        segment_bytes: 1280,
    }
}

fn open(disk: &Arc<SimulatedDisk>, settings: &SpoolSettings, generation: u64) -> (Spool, Recovery) {
    Spool::open_on(disk.clone(), settings, generation, 0).unwrap()
}

fn disk() -> Arc<SimulatedDisk> {
    Arc::new(SimulatedDisk::new(1, Faults::default()))
}

/// A block of 300 bytes that begins with the number.
fn block(number: u64) -> NewRecord {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(300, 0);
    NewRecord {
        kind: RecordKind::Block,
        schema: 1,
        payload,
    }
}

/// One frame for each block, numbered like its seq; three of them fill a segment.
fn append(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        spool.append(&[block(number)], &number.to_le_bytes(), 0).unwrap();
    }
}

fn id(generation: u64, seq: u64) -> RecordId {
    RecordId { generation, seq }
}

fn seqs(recovery: &Recovery) -> Vec<(u64, u64, u64)> {
    recovery
        .runs
        .iter()
        .map(|run| (run.generation, run.seq_first, run.seq_last))
        .collect()
}

fn names(disk: &SimulatedDisk, ending: &str) -> Vec<String> {
    disk.list()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(ending))
        .collect()
}

fn sizes(disk: &SimulatedDisk, ending: &str) -> Vec<u64> {
    let files = disk.list().unwrap().into_iter();
    files
        .filter(|(name, _)| name.ends_with(ending))
        .map(|(_, size)| size)
        .collect()
}

/// Bytes that do not get smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

fn gap(generation: u64, seq_first: u64, seq_last: u64, reason: GapReason) -> HeldGap {
    HeldGap {
        generation,
        seq_first,
        seq_last,
        reason,
    }
}

#[test]
fn a_restart_finds_everything_that_is_held_and_the_newest_checkpoint() {
    let disk = disk();
    let (mut spool, nothing) = open(&disk, &settings(), 7);
    assert_eq!(nothing, Recovery::default());
    append(&mut spool, 1..=5);
    spool.append(&[], b"a checkpoint alone", 0).unwrap();
    spool.release(id(7, 2));
    let (mut spool, recovery) = open(&disk, &settings(), 8);
    assert_eq!(seqs(&recovery), [(7, 3, 5)]);
    assert_eq!(recovery.checkpoint.as_deref(), Some(b"a checkpoint alone".as_slice()));
    assert_eq!(recovery.previous, Some(id(7, 5)));
    assert_eq!((recovery.gaps, recovery.notes), (vec![], vec![]));
    assert_eq!((spool.records(), spool.next_id()), (3, id(8, 1)));
    let read = spool.read(id(7, 4), 60).unwrap();
    assert_eq!(read.iter().map(|record| record.payload[0]).collect::<Vec<_>>(), [4, 5]);
    assert!(
        matches!(spool.read(id(7, 2), 1), Err(SpoolError::NotHeld { .. })),
        "released"
    );
    assert!(
        matches!(spool.read(id(8, 1), 1), Err(SpoolError::NotHeld { .. })),
        "not yet written"
    );
}

#[test]
fn the_newest_frame_stays_when_everything_is_released() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=10);
    spool.release(id(7, 10));
    assert_eq!((spool.records(), names(&disk, ".seg").len()), (0, 1));
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!(
        (seqs(&recovery), recovery.checkpoint),
        (vec![], Some(10u64.to_le_bytes().to_vec()))
    );
    assert_eq!(recovery.previous, Some(id(7, 10)));
}

#[test]
fn a_full_spool_drops_the_oldest_and_leaves_a_gap_until_that_is_acknowledged() {
    let disk = disk();
    let small = SpoolSettings {
        bytes_max: 4096,
        ..settings()
    };
    let (mut spool, _) = open(&disk, &small, 7);
    append(&mut spool, 1..=20);
    let dropped = spool.take_dropped();
    let lost = dropped.last().unwrap().seq_last;
    assert_eq!(dropped, [gap(7, 1, lost, GapReason::QuotaBytes)]);
    assert!(spool.bytes() <= 4096);
    assert_eq!(spool.counters().records_dropped_bytes, lost);
    let (mut spool, recovery) = open(&disk, &small, 8);
    assert_eq!(recovery.gaps, [gap(7, 1, lost, GapReason::QuotaBytes)]);
    assert_eq!(seqs(&recovery), [(7, lost + 1, 20)]);
    spool.release(id(7, lost));
    assert_eq!((open(&disk, &small, 9).1.gaps, spool.records()), (vec![], 20 - lost));
}

#[test]
fn records_beyond_the_age_are_dropped_at_the_start_and_at_each_append() {
    const HALF_HOUR_MS: u64 = 1_800_000;
    let disk = disk();
    let settings = SpoolSettings {
        age_max_ms: 5 * HALF_HOUR_MS,
        ..settings()
    };
    let (mut spool, _) = open(&disk, &settings, 7);
    for number in 1..=6 {
        spool.append(&[block(number)], b"", number * HALF_HOUR_MS).unwrap();
    }
    let (mut spool, recovery) = Spool::open_on(disk.clone(), &settings, 8, 9 * HALF_HOUR_MS).unwrap();
    assert_eq!(recovery.gaps, [], "a pause counts for one hour");
    spool.append(&[block(1)], b"", 9 * HALF_HOUR_MS).unwrap();
    spool.append(&[block(2)], b"", 11 * HALF_HOUR_MS).unwrap();
    assert_eq!(spool.take_dropped(), [gap(7, 1, 3, GapReason::QuotaAge)]);
    let (spool, recovery) = Spool::open_on(disk.clone(), &settings, 9, 14 * HALF_HOUR_MS).unwrap();
    assert_eq!(recovery.gaps, [gap(7, 1, 6, GapReason::QuotaAge)]);
    assert_eq!(seqs(&recovery), [(8, 1, 2)]);
    assert_eq!(spool.counters().records_dropped_age, 3);
}

#[test]
fn a_jump_of_the_clock_ages_nothing() {
    // The battery of the clock was empty: the machine started in 1970, worked, and was then told the time.
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=6);
    spool.append(&[block(7)], b"", 56 * 365 * DAY_MS).unwrap();
    spool.append(&[block(8)], b"", 0).unwrap();
    assert_eq!((spool.take_dropped(), spool.records()), (vec![], 8));
    let (spool, _) = Spool::open_on(disk.clone(), &settings(), 8, 56 * 365 * DAY_MS).unwrap();
    assert_eq!(spool.records(), 8);
}

#[test]
fn a_full_disk_costs_nothing_that_is_held_and_acknowledgements_go_on() {
    // Somebody else filled the disk: to delete the backlog for that would lose it far below its own bounds.
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    disk.set_faults(Faults {
        full: 1000,
        ..Faults::default()
    });
    assert!(matches!(spool.append(&[block(8)], b"", 0), Err(SpoolError::Full)));
    assert_eq!((spool.take_dropped(), spool.records()), (vec![], 7));
    spool.release(id(7, 6));
    assert_eq!((spool.records(), spool.counters().cursor_failures), (1, 0));
    disk.set_faults(Faults::default());
    append(&mut spool, 8..=8);
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!((seqs(&recovery), recovery.gaps), (vec![(7, 7, 8)], vec![]));
}

/// Some file systems do so by themselves after an error.
#[test]
fn a_disk_that_becomes_read_only_still_gives_what_is_held_and_nothing_opens_on_it() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    disk.set_faults(Faults {
        read_only: 1000,
        ..Faults::default()
    });
    assert!(spool.append(&[block(8)], b"", 0).is_err());
    assert_eq!(spool.read(id(7, 7), 1).unwrap().len(), 1);
    spool.release(id(7, 4));
    assert_eq!((spool.records(), spool.counters().cursor_failures > 0), (3, true));
    let before = disk.list().unwrap();
    let refused = Spool::open_on(disk.clone(), &settings(), 8, 0).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(disk.list().unwrap(), before);
    disk.set_faults(Faults::default());
    let (_, recovery) = open(&disk, &settings(), 9);
    assert_eq!((seqs(&recovery), recovery.notes), (vec![(7, 1, 7)], vec![]));
}

/// The smallest that the settings allow, without a center: what is lost is exactly what the gaps name.
#[test]
fn a_spool_of_one_mebibyte_loses_only_what_its_gaps_name_and_stays_within_it() {
    const BYTES_MAX: u64 = 1 << 20;
    let disk = disk();
    let smallest = SpoolSettings {
        bytes_max: BYTES_MAX,
        ..SpoolSettings::default()
    };
    let mut random = fastrand::Rng::with_seed(1);
    let (mut generation, mut produced, mut dropped) = (7, std::collections::BTreeSet::new(), 0);
    let (mut spool, _) = open(&disk, &smallest, generation);
    for minute in 0..6_000_u64 {
        if random.u32(0..500) == 0 {
            generation += 1;
            spool = open(&disk, &smallest, generation).0;
        }
        let records: Vec<NewRecord> = (0..random.u64(1..4)).map(block).collect();
        let ids = spool
            .append(&records, &noise(random.usize(0..6_000)), minute * 60_000)
            .unwrap();
        produced.extend(ids.iter().map(|id| (id.generation, id.seq)));
        dropped += spool.take_dropped().len();
        assert!(spool.bytes() <= BYTES_MAX, "{} bytes in minute {minute}", spool.bytes());
    }
    let (_, recovery) = open(&disk, &smallest, generation + 1);
    let held = recovery
        .runs
        .iter()
        .map(|run| (run.generation, run.seq_first, run.seq_last));
    let lost = recovery
        .gaps
        .iter()
        .map(|gap| (gap.generation, gap.seq_first, gap.seq_last));
    let (mut accounted, mut numbers) = (std::collections::BTreeSet::new(), 0);
    for (generation, first, last) in held.chain(lost) {
        numbers += last - first + 1;
        accounted.extend((first..=last).map(|seq| (generation, seq)));
    }
    assert_eq!((&accounted, numbers), (&produced, produced.len() as u64));
    assert!(
        dropped > 5 && recovery.runs.len() > 1,
        "{dropped} segments were dropped"
    );
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_until_the_spool_is_opened_again() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=2);
    disk.set_faults(Faults {
        sync_fails: 1000,
        ..Faults::default()
    });
    assert!(matches!(spool.append(&[block(3)], b"lost", 0), Err(SpoolError::Failed)));
    disk.set_faults(Faults::default());
    assert!(spool.has_failed());
    assert!(matches!(spool.append(&[block(3)], b"", 0), Err(SpoolError::Failed)));
    let (mut spool, recovery) = open(&disk, &settings(), 8);
    assert_eq!((seqs(&recovery), recovery.previous), (vec![(7, 1, 2)], Some(id(7, 2))));
    assert_eq!(
        recovery.checkpoint,
        Some(2u64.to_le_bytes().to_vec()),
        "not the one that may be lost"
    );
    append(&mut spool, 1..=1);
}

#[test]
fn a_flipped_bit_costs_its_frame_and_becomes_a_gap_with_exact_numbers() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    let second = &names(&disk, ".seg")[1];
    disk.flip_bit(second, 500);
    // While it runs: the record is a gap as soon as it is read.
    let lost = gap(7, 5, 5, GapReason::Corrupt);
    assert!(matches!(spool.read(id(7, 5), 1), Err(SpoolError::Corrupt { gap }) if gap == lost));
    assert_eq!(spool.read(id(7, 6), 1).unwrap()[0].payload[0], 6);
    // And the same after a restart, also without having been read before.
    let (mut spool, recovery) = open(&disk, &settings(), 8);
    assert_eq!(
        (seqs(&recovery), recovery.gaps),
        (vec![(7, 1, 4), (7, 6, 7)], vec![lost])
    );
    assert_eq!(recovery.notes, [Note::DamagedSegment { name: second.clone() }]);
    spool.release(id(7, 7));
    append(&mut spool, 1..=4);
    assert_eq!(
        names(&disk, ".bad").len(),
        1,
        "put aside for a person when it is no longer needed"
    );
}

#[test]
fn a_read_that_fails_for_now_costs_nothing() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=2);
    disk.set_faults(Faults {
        read_fails: 1000,
        ..Faults::default()
    });
    assert!(matches!(spool.read(id(7, 1), 2), Err(SpoolError::NotRead(_))));
    disk.set_faults(Faults::default());
    assert_eq!(spool.read(id(7, 1), 2).unwrap().len(), 2);
    assert_eq!(spool.counters().records_corrupt, 0);
}

/// Too many open files at the start: a segment was put aside, and the cursor written anew.
#[test]
fn a_read_that_fails_at_the_start_keeps_the_spool_closed_and_costs_nothing() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    spool.release(id(7, 1));
    let before = disk.list().unwrap();
    for generation in 8..60 {
        disk.set_faults(Faults {
            read_fails: if generation == 8 { 1000 } else { 300 },
            ..Faults::default()
        });
        match Spool::open_on(disk.clone(), &settings(), generation, 0) {
            Ok((_, recovery)) => assert_eq!((recovery.gaps, recovery.notes), (vec![], vec![])),
            Err(error) => assert!(error.to_string().contains("reading "), "{error}"),
        }
        assert_eq!(disk.list().unwrap(), before);
    }
    disk.set_faults(Faults::default());
    assert_eq!(seqs(&open(&disk, &settings(), 99).1), [(7, 2, 7)]);
}

/// The cursor was made anew and damaged segments put aside before the segment that could not be read.
#[test]
fn a_start_that_fails_has_changed_nothing() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    let all = names(&disk, ".seg");
    disk.write(&all[0], 0, &[0xaa; 16]).unwrap();
    disk.write(&all[0], 16, &vec![0xaa; disk.content(&all[0]).len() - 16])
        .unwrap();
    disk.write("compaction.tmp", 0, b"unfinished").unwrap();
    disk.remove("cursor").unwrap();
    let before = disk.list().unwrap();
    disk.break_sector(&all[2], 20);
    assert!(Spool::open_on(disk.clone(), &settings(), 8, 0).is_err());
    assert_eq!(disk.list().unwrap(), before);
}

/// One bad sector kept all newer records of its topic waiting until it was two weeks old.
#[test]
fn a_frame_that_alone_is_never_read_again_becomes_a_gap_after_a_few_tries() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    disk.break_sector(&names(&disk, ".seg")[1], 500);
    for _ in 1..READ_TRIES_MAX {
        assert!(matches!(spool.read(id(7, 5), 1), Err(SpoolError::NotRead(_))));
        assert_eq!(spool.read(id(7, 4), 9).unwrap().len(), 1);
    }
    let refused = Faults {
        read_fails: 1000,
        ..Faults::default()
    };
    disk.set_faults(refused);
    assert!(
        matches!(spool.read(id(7, 5), 1), Err(SpoolError::NotRead(_))),
        "the disk reads nothing at all"
    );
    disk.set_faults(Faults::default());
    let lost = gap(7, 5, 5, GapReason::Corrupt);
    assert!(matches!(spool.read(id(7, 5), 1), Err(SpoolError::Corrupt { gap }) if gap == lost));
    assert_eq!(spool.read(id(7, 6), 2).unwrap().len(), 2);
    let counters = spool.counters();
    assert_eq!(
        (counters.not_read, counters.records_corrupt),
        (u64::from(READ_TRIES_MAX) + 1, 1)
    );
}

#[test]
fn a_released_segment_that_cannot_be_read_does_not_keep_the_spool_closed() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    let first = names(&disk, ".seg").remove(0);
    let content = disk.content(&first);
    spool.release(id(7, 4));
    // The power went before the removal was durable.
    disk.write(&first, 0, &content).unwrap();
    disk.break_sector(&first, 500);
    let (spool, recovery) = open(&disk, &settings(), 8);
    assert_eq!((seqs(&recovery), recovery.gaps), (vec![(7, 5, 7)], vec![]));
    assert_eq!(recovery.notes, [Note::UnreadableSegment { name: first }]);
    assert_eq!((spool.records(), names(&disk, ".bad").len()), (3, 1));
}

#[test]
fn a_record_that_nobody_takes_becomes_a_gap_and_goes_with_its_neighbors() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    spool.append(&[block(1), block(2), block(3)], b"", 0).unwrap();
    append(&mut spool, 4..=5);
    let refused = gap(7, 2, 2, GapReason::Refused);
    spool.refuse(refused);
    assert_eq!(open(&disk, &settings(), 8).1.gaps, [refused], "also after a restart");
    let (mut spool, _) = open(&disk, &settings(), 9);
    spool.release(id(7, 1));
    assert_eq!(open(&disk, &settings(), 10).1.gaps, [refused]);
    let (mut spool, _) = open(&disk, &settings(), 11);
    spool.release(id(7, 3));
    assert_eq!(open(&disk, &settings(), 12).1.gaps, []);
}

#[test]
fn records_that_are_too_many_for_a_frame_become_a_gap_with_their_numbers() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=1);
    let large = NewRecord {
        payload: vec![0; FRAME_BYTES_MAX],
        ..block(2)
    };
    let records = [large, block(3)];
    assert!(matches!(
        spool.append(&records, b"", 0),
        Err(SpoolError::TooLarge { .. })
    ));
    let lost = gap(7, 2, 3, GapReason::Refused);
    assert_eq!(spool.append_without(2, b"went on", 0).unwrap(), lost);
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!((recovery.gaps, recovery.previous), (vec![lost], Some(id(7, 3))));
    assert_eq!(recovery.checkpoint.as_deref(), Some(b"went on".as_slice()));
    // The power went before the gap was written down: the frame itself names the records before it.
    disk.remove("cursor").unwrap();
    let (mut spool, recovery) = open(&disk, &settings(), 9);
    assert_eq!(recovery.gaps, [gap(7, 2, 3, GapReason::Corrupt)]);
    append(&mut spool, 1..=1);
    assert_eq!(seqs(&open(&disk, &settings(), 10).1), [(7, 1, 1), (9, 1, 1)]);
}

#[test]
fn a_segment_that_cannot_be_read_at_all_is_put_aside_and_becomes_a_gap() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    let all = names(&disk, ".seg");
    for (name, size) in disk
        .list()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name == all[0] || *name == all[1])
    {
        disk.write(name, 0, &vec![0xaa; usize::try_from(*size).unwrap()])
            .unwrap();
    }
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!(recovery.gaps, [gap(7, 1, 6, GapReason::Corrupt)]);
    assert_eq!((seqs(&recovery), names(&disk, ".bad").len()), (vec![(7, 7, 7)], 2));
}

#[test]
fn only_a_few_damaged_segments_are_kept() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=30);
    for (name, size) in disk.list().unwrap().iter().filter(|(name, _)| name.ends_with(".seg")) {
        disk.write(name, 0, &vec![0xaa; usize::try_from(*size).unwrap()])
            .unwrap();
    }
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!(names(&disk, ".bad").len(), BAD_SEGMENTS_MAX);
    assert!(recovery.notes.contains(&Note::LostCheckpoint));
}

#[test]
fn without_its_cursor_everything_held_is_sent_again() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=3);
    spool.release(id(7, 2));
    disk.remove("cursor").unwrap();
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!(
        (seqs(&recovery), recovery.notes),
        (vec![(7, 1, 3)], vec![Note::LostCursor])
    );
}

/// The cursor that was made anew said that nothing was ever before the first record.
#[test]
fn a_lost_cursor_and_a_second_restart_invent_no_gap() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=7);
    spool.release(id(7, 5));
    disk.remove("cursor").unwrap();
    for generation in 8..=9 {
        let (_, recovery) = open(&disk, &settings(), generation);
        assert_eq!((seqs(&recovery), recovery.gaps), (vec![(7, 4, 7)], vec![]));
    }
    // What is lost afterwards is told.
    let first = names(&disk, ".seg").remove(0);
    disk.write(&first, 0, &vec![0xaa; disk.content(&first).len()]).unwrap();
    let (_, recovery) = open(&disk, &settings(), 10);
    assert_eq!(recovery.gaps, [gap(7, 4, 6, GapReason::Corrupt)]);
}

/// A kill with an empty backlog: the next frame skipped a position, and the start after that called it damage.
#[test]
fn a_restart_with_everything_released_leaves_no_hole_in_the_segment() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=1);
    spool.release(id(7, 1));
    for generation in 8..=10 {
        let (mut spool, recovery) = open(&disk, &settings(), generation);
        assert_eq!(recovery.notes, []);
        append(&mut spool, 1..=1);
    }
    let (_, recovery) = open(&disk, &settings(), 11);
    assert_eq!((seqs(&recovery).len(), names(&disk, ".seg").len()), (3, 2));
}

#[test]
fn a_dictionary_is_kept_while_any_record_needs_it() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    for schema in [1, 2] {
        let birth = NewRecord {
            kind: RecordKind::Birth,
            schema,
            payload: format!("birth {schema}").into_bytes(),
        };
        spool.put_birth(schema, spool.next_id(), &birth.payload).unwrap();
        spool.append(&[birth], b"", 0).unwrap();
        spool
            .append(&[NewRecord { schema, ..block(0) }, block(0)], b"", 0)
            .unwrap();
    }
    let first = spool.birth(1).unwrap().unwrap();
    assert_eq!((first.id, first.payload.as_slice()), (id(7, 1), b"birth 1".as_slice()));
    let needs_two = NewRecord { schema: 2, ..block(0) };
    for _ in 0..4 {
        spool.append(std::slice::from_ref(&needs_two), b"", 0).unwrap();
    }
    spool.release(id(7, 9));
    let (spool, _) = open(&disk, &settings(), 8);
    assert_eq!(
        (spool.birth(1).unwrap(), spool.birth(2).unwrap().unwrap().id),
        (None, id(7, 4))
    );
}

/// The center has blocks that it cannot read, and acknowledged them: its dictionary went with the last record that
/// needed it, before it could be sent.
#[test]
fn a_dictionary_is_kept_while_an_archive_asks_for_it_also_over_a_restart() {
    let (disk, main) = (disk(), "main".parse().unwrap());
    let (mut spool, _) = open(&disk, &settings(), 7);
    for schema in [1, 2] {
        spool.put_birth(schema, spool.next_id(), b"birth").unwrap();
        for _ in 0..6 {
            spool.append(&[NewRecord { schema, ..block(0) }], b"", 0).unwrap();
        }
    }
    spool.keep_births_for(&main, &[1]);
    spool.release(id(7, 12));
    assert!(spool.birth(1).unwrap().is_some());
    drop(spool);
    let (mut spool, _) = open(&disk, &settings(), 8);
    assert!(spool.birth(1).unwrap().is_some());
    spool.keep_births_for(&main, &[1]);
    spool.keep_births_for(&"second".parse().unwrap(), &[9]);
    assert!(spool.birth(1).unwrap().is_some());
    spool.keep_births_for(&main, &[]);
    assert_eq!(
        (spool.birth(1).unwrap(), spool.birth(2).unwrap().is_some()),
        (None, true)
    );
}

#[test]
fn closed_segments_keep_their_records_without_their_checkpoints() {
    let disk = disk();
    let large = |number: u64| [number.to_le_bytes().to_vec(), noise(600)].concat();
    let (mut spool, _) = open(&disk, &settings(), 7);
    for number in 1..=9 {
        spool.append(&[block(number)], &large(number), 0).unwrap();
    }
    // One frame fills a segment; the newest two of nine and the one that the ninth began are whole.
    let frame_bytes = |checkpoint: u64| 16 + 8 + 56 + 13 + 300 + checkpoint;
    let sizes: Vec<u64> = sizes(&disk, ".seg");
    assert_eq!(sizes[..6], [frame_bytes(0); 6]);
    assert!(sizes[6..].iter().all(|size| *size > frame_bytes(600)), "{sizes:?}");
    assert_eq!(
        (sizes.iter().sum::<u64>(), spool.counters().segments_compacted),
        (spool.bytes(), 6)
    );
    assert_eq!(names(&disk, ".tmp"), [""; 0]);
    let (mut again, recovery) = open(&disk, &settings(), 8);
    assert_eq!(
        (seqs(&recovery), recovery.checkpoint, recovery.notes),
        (vec![(7, 1, 9)], Some(large(9)), vec![])
    );
    for spool in [&mut spool, &mut again] {
        let read = spool.read(id(7, 1), 9).unwrap();
        assert_eq!(
            read.iter().map(|record| record.payload[0]).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7, 8, 9]
        );
    }
}

#[test]
fn a_segment_that_cannot_be_rewritten_stays_as_it_is_until_there_is_room() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    // The third segment has begun: the first one is due.
    append(&mut spool, 1..=7);
    let before = sizes(&disk, ".seg");
    for (attempt, (full, sync_fails)) in (1u64..).zip([(1000, 0), (0, 1000)]) {
        disk.set_faults(Faults {
            full,
            sync_fails,
            ..Faults::default()
        });
        assert!(spool.append(&[block(8)], b"", 0).is_err());
        disk.set_faults(Faults::default());
        assert_eq!(spool.counters().compactions_failed, attempt);
        assert_eq!(
            (&sizes(&disk, ".seg")[..2], names(&disk, ".tmp")),
            (&before[..2], vec![])
        );
    }
    let (mut spool, recovery) = open(&disk, &settings(), 8);
    assert_eq!((seqs(&recovery), recovery.notes), (vec![(7, 1, 7)], vec![]));
    append(&mut spool, 1..=1);
    assert!(sizes(&disk, ".seg")[0] < before[0]);
}

#[test]
fn a_spool_without_its_newest_segments_says_that_the_checkpoint_is_lost() {
    let disk = disk();
    let (mut spool, _) = open(&disk, &settings(), 7);
    append(&mut spool, 1..=9);
    let lost_checkpoint = |recovery: &Recovery| recovery.notes.contains(&Note::LostCheckpoint);
    let newest = |disk: &SimulatedDisk| names(disk, ".seg").pop().unwrap();
    disk.remove(&newest(&disk)).unwrap();
    let (_, recovery) = open(&disk, &settings(), 8);
    assert_eq!(recovery.checkpoint, Some(6u64.to_le_bytes().to_vec()));
    assert!(!lost_checkpoint(&recovery));
    disk.remove(&newest(&disk)).unwrap();
    let (_, recovery) = open(&disk, &settings(), 9);
    assert_eq!((seqs(&recovery), recovery.checkpoint.as_ref()), (vec![(7, 1, 3)], None));
    assert!(lost_checkpoint(&recovery));
}

/// The cursor was ahead of all frames that were left, and lines counted twice in silence.
#[test]
fn newest_frames_that_are_gone_behind_the_cursor_are_told_once_and_leave_no_hole() {
    for (records, through) in [(1, 3), (2, 5)] {
        let disk = disk();
        let (mut spool, _) = open(&disk, &settings(), 7);
        for number in 0..3 {
            let records = vec![block(number); records];
            spool.append(&records, &number.to_le_bytes(), 0).unwrap();
        }
        spool.release(id(7, through));
        let newest = names(&disk, ".seg").pop().unwrap();
        let length = disk.content(&newest).len() as u64;
        disk.truncate(&newest, length - 1).unwrap();
        let (mut spool, recovery) = open(&disk, &settings(), 8);
        assert!(recovery.notes.contains(&Note::LostCheckpoint), "{:?}", recovery.notes);
        append(&mut spool, 1..=1);
        let (_, recovery) = open(&disk, &settings(), 9);
        assert_eq!((seqs(&recovery), recovery.notes), (vec![(8, 1, 1)], vec![]));
    }
}

#[test]
fn a_full_spool_leaves_checkpoints_out_before_it_drops_records() {
    let disk = disk();
    let small = SpoolSettings {
        bytes_max: 12 << 10,
        ..settings()
    };
    let (mut spool, _) = open(&disk, &small, 7);
    for number in 1..=20 {
        spool.append(&[block(number)], &noise(600), 0).unwrap();
    }
    assert_eq!((spool.take_dropped(), spool.records()), (vec![], 20));
}

#[test]
fn two_weeks_without_the_center_fit_into_the_default_bounds() {
    const MINUTES: u64 = 14 * 24 * 60;
    // One summary a minute, as an agent with three plugins writes it; the second checkpoint is of a busy store whose
    // lanes number their transactions out of order, and gets no smaller.
    for (summary_bytes, checkpoint_bytes) in [(400, 2_500), (450, 34_000)] {
        let (mut spool, _) = Spool::open_on(Arc::new(MemoryDisk::default()), &SpoolSettings::default(), 7, 0).unwrap();
        let summary = NewRecord {
            payload: vec![0; summary_bytes],
            ..block(0)
        };
        let checkpoint = noise(checkpoint_bytes);
        for minute in 0..MINUTES {
            let records = std::slice::from_ref(&summary);
            spool.append(records, &checkpoint, minute * 60_000).unwrap();
        }
        println!("{} B a minute", spool.bytes() / MINUTES);
        assert_eq!((spool.records(), spool.take_dropped()), (MINUTES, vec![]));
        assert!(spool.bytes() < SpoolSettings::default().bytes_max / 4);
    }
}

#[test]
fn two_agents_cannot_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Spool::open(dir.path(), &settings(), 1, 0).unwrap();
    assert!(matches!(
        Spool::open(dir.path(), &settings(), 2, 0),
        Err(SpoolError::Locked { .. })
    ));
    drop(first);
    Spool::open(dir.path(), &settings(), 3, 0).unwrap();
}

#[test]
fn the_files_of_a_real_folder_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(dir.path(), &settings(), 7, 0).unwrap();
    append(&mut spool, 1..=10);
    spool.release(id(7, 5));
    drop(spool);
    let (mut spool, recovery) = Spool::open(dir.path(), &settings(), 8, 0).unwrap();
    assert_eq!((seqs(&recovery), recovery.notes), (vec![(7, 6, 10)], vec![]));
    assert_eq!(spool.read(id(7, 6), 5).unwrap().len(), 5);
}
