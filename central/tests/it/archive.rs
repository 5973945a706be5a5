//! The archive: whole batches or nothing, and the same after a restart.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use crate::store::{START_MS, arrives, birth, blocks, born, open, rollups, site};
use std::sync::Arc;
use tillwatch_central::archive::{
    self, Archive, ArchiveError, BIRTHS_PER_SITE_MAX, Batch, BirthRow, IncidentChanges, IncidentRow, Lost, Payload,
    PurgeTimes, Retention, SiteState, Tally, UNDECODED_PER_SITE_MAX, Undecoded,
};
use tillwatch_central::cursor::Mark;
use tillwatch_central::decode::SeriesInfo;
use tillwatch_central::rollup::{Rollup, SLOT_MS};
use tillwatch_feed::message::Kind;
use tillwatch_feed::topic::ArchiveId;

fn id() -> ArchiveId {
    "main".parse().unwrap()
}

fn payload(seq: u64) -> Payload {
    let fresh = vec![(seq, seq)];
    let (start_ms, end_ms) = (START_MS, START_MS + seq);
    let site = site("store-1");
    Payload {
        site,
        generation: u64::MAX,
        seq_first: seq,
        seq_last: seq,
        fresh,
        start_ms,
        end_ms,
        ages_ms: end_ms,
        arrived_ms: 5,
        schema: Some(seq),
        is_waiting: false,
        bytes: vec![7; 40],
    }
}

fn all_at(now_ms: u64) -> PurgeTimes {
    PurgeTimes {
        most_ms: now_ms,
        latest_ms: now_ms,
    }
}

fn birth_row(schema: u64, came_ms: u64) -> BirthRow {
    BirthRow {
        site: site("store-1"),
        schema,
        came_ms,
        bytes: vec![1, 2],
    }
}

fn mark(seq: u64) -> Mark {
    Mark {
        site: site("store-1"),
        shard: "a".parse().unwrap(),
        generation: u64::MAX,
        settled: [(1, seq)].into_iter().collect(),
        received: seq,
        accounted: 0,
        heard: seq,
    }
}

fn rollup(sum: i64) -> Rollup {
    let series = SeriesInfo {
        metric: "sales.amount".into(),
        unit: "1".into(),
        kind: Kind::Sum,
        role: "sales.amount".into(),
        decimals: 2,
        currency: Some("EUR".into()),
        plugin: "sales".into(),
        labels: vec![("lane".into(), "1".into())],
    };
    Rollup {
        site: site("store-1"),
        series: Arc::new(series),
        slot_ms: SLOT_MS,
        covered_ms: 60_000,
        count: 1,
        sum,
    }
}

fn batch(seq: u64) -> Batch {
    Batch {
        payloads: vec![payload(seq)],
        marks: vec![mark(seq)],
        rollups: vec![rollup(5)],
        ..Batch::default()
    }
}

fn payloads(archive: &dyn Archive) -> Vec<u64> {
    let mut found = Vec::new();
    archive
        .payloads_since(0, &mut |stored| found.push(stored.payload.seq_first))
        .unwrap();
    found
}

#[test]
fn everything_in_a_batch_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.sqlite");
    let mut batch = batch(3);
    batch.births = vec![birth_row(u64::MAX - 1, START_MS)];
    batch.states = vec![SiteState {
        site: site("store-1"),
        bytes: vec![9],
    }];
    batch.tallies = vec![Tally {
        generation: 7,
        seq_first: 2,
        seq_last: 9,
        site: site("store-1"),
        day: 20_000,
        received: 1,
        accounted: 2,
    }];
    let reason = "spool full".to_owned();
    batch.lost = vec![Lost {
        site: site("store-1"),
        generation: 1,
        seq_first: 1,
        seq_last: 2,
        ages_ms: START_MS,
        reason,
    }];
    batch.watermark_ms = Some(START_MS);
    archive::open(&path, &id()).unwrap().commit(&batch).unwrap();

    let archive = archive::open(&path, &id()).unwrap();
    assert_eq!(payloads(&archive), [3]);
    assert_eq!(archive.marks(10).unwrap(), [mark(3)]);
    assert_eq!(archive.mark(&site("store-1"), u64::MAX).unwrap(), Some(mark(3)));
    assert_eq!(archive.mark(&site("store-1"), 1).unwrap(), None);
    assert_eq!(rollups(&archive, 0..SLOT_MS + 1), [rollup(5)]);
    assert_eq!(rollups(&archive, 0..SLOT_MS), []);
    assert_eq!(archive.birth(&site("store-1"), u64::MAX - 1).unwrap(), Some(vec![1, 2]));
    assert_eq!(archive.states().unwrap(), batch.states);
    assert_eq!(archive.tallies(0).unwrap(), batch.tallies);
    assert_eq!(archive.watermark_ms().unwrap(), Some(START_MS));
}

#[test]
fn a_start_reads_only_the_sums_that_something_is_reckoned_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    let of = |role: &str, slot: u64, sum: i64| {
        let series = SeriesInfo {
            role: role.into(),
            ..(*rollup(0).series).clone()
        };
        Rollup {
            series: Arc::new(series),
            slot_ms: slot * SLOT_MS,
            ..rollup(sum)
        }
    };
    let mut all: Vec<_> = (1..=9).map(|slot| of("sales.count", slot, 1)).collect();
    all.extend([of("sales.amount", 4, 10), of("sales.items", 4, 100)]);
    archive
        .commit(&Batch {
            rollups: all,
            marks: vec![mark(1)],
            ..Batch::default()
        })
        .unwrap();
    let found = rollups(&archive, 3 * SLOT_MS..6 * SLOT_MS);
    assert_eq!(found.iter().map(|rollup| rollup.sum).collect::<Vec<_>>(), [1, 1, 1, 10]);
}

/// What became part of another incident stayed open for ever, and came back with each restart.
#[test]
fn an_incident_that_became_part_of_another_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    let row = |id: &str| IncidentRow {
        id: id.into(),
        json: "{}".into(),
    };
    let told = |ids: &[&str], absorbed: &[&str]| IncidentChanges {
        told: ids.iter().map(|id| row(id)).collect(),
        absorbed: absorbed.iter().map(|&id| id.to_owned()).collect(),
    };
    let mut commit = |incidents| {
        let batch = Batch {
            incidents,
            ..Batch::default()
        };
        archive.commit(&batch).unwrap();
        archive
            .incidents()
            .unwrap()
            .into_iter()
            .map(|row| row.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(commit(told(&["a", "b"], &[])), ["a", "b"]);
    assert_eq!(commit(told(&["a"], &["b"])), ["a"]);
    let mut twice = told(&["c", "d"], &[]);
    twice.add(told(&[], &["d"]));
    assert_eq!(commit(twice), ["a", "c"]);
}

#[test]
fn sums_add_up_and_never_become_fractions() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    for sum in [5, 7] {
        archive
            .commit(&Batch {
                rollups: vec![rollup(sum)],
                marks: vec![mark(1)],
                ..Batch::default()
            })
            .unwrap();
    }
    assert_eq!(rollups(&archive, 0..u64::MAX)[0].sum, 12);
    archive
        .commit(&Batch {
            rollups: vec![rollup(i64::MAX)],
            marks: vec![mark(1)],
            ..Batch::default()
        })
        .unwrap();
    assert_eq!(rollups(&archive, 0..u64::MAX)[0].sum, i64::MAX);
}

/// A kill can fall between any two writes. The files as they are in the middle of a transaction are copied away, log and
/// all, which is what a dead process leaves behind, and opened again.
#[test]
fn a_batch_is_there_as_a_whole_or_not_at_all_wherever_the_process_dies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.sqlite");
    let mut archive = archive::open(&path, &id()).unwrap();
    archive.commit(&batch(1)).unwrap();
    // Payloads are written first, marks last, and much lies between them.
    let lost = |seq| Lost {
        site: site("store-1"),
        generation: 1,
        seq_first: seq,
        seq_last: seq,
        ages_ms: START_MS,
        reason: "x".repeat(50),
    };
    let mut large = Batch {
        marks: vec![mark(5_000)],
        ..Batch::default()
    };
    large.payloads = (2..=5_000).map(payload).collect();
    large.lost = (1..=20_000).map(lost).collect();
    // The archive is handed back, since closing it moves the log into the file, which no kill does.
    let writer = std::thread::spawn(move || archive.commit(&large).map(|_| archive));
    let mut copies = 0;
    while !writer.is_finished() {
        let copy = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("archive.sqlite{suffix}");
            std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
        }
        let reopened = archive::open(&copy.path().join("archive.sqlite"), &id()).unwrap();
        let (found, settled) = (payloads(&reopened), reopened.marks(1).unwrap()[0].settled.through());
        assert!(
            found.len() == 1 && settled == 1 || found.len() == 5_000 && settled == 5_000,
            "{} {settled}",
            found.len()
        );
        copies += 1;
    }
    drop(writer.join().unwrap().unwrap());
    assert!(copies > 0);
    assert_eq!(payloads(&archive::open(&path, &id()).unwrap()).len(), 5_000);
}

#[test]
fn a_batch_that_fails_leaves_nothing_behind_and_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.sqlite");
    let mut archive = archive::open(&path, &id()).unwrap();
    archive.commit(&batch(1)).unwrap();
    // A limit of pages is a full disk.
    archive.limit_pages(archive.pages().unwrap()).unwrap();
    let mut large = batch(2);
    large.payloads = (2..2_000).map(payload).collect();
    let failed = archive.commit(&large).unwrap_err();
    assert!(matches!(failed, ArchiveError::Full { .. }), "{failed:?}");
    assert_eq!(
        (payloads(&archive), rollups(&archive, 0..u64::MAX)[0].sum),
        (vec![1], 5)
    );
    archive.limit_pages(u32::MAX - 1).unwrap();
    archive.commit(&large).unwrap();
    assert_eq!(
        (payloads(&archive).len(), rollups(&archive, 0..u64::MAX)[0].sum),
        (1_999, 10)
    );
}

#[test]
fn what_is_older_than_the_retention_goes_in_small_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    archive
        .commit(&Batch {
            payloads: (1..=10).map(payload).collect(),
            ..Batch::default()
        })
        .unwrap();
    let retention = Retention {
        payloads_ms: 1_000,
        rollups_ms: START_MS,
    };
    let now_ms = START_MS + 1_000 + 9;
    assert_eq!(archive.purge(all_at(now_ms), retention, 6).unwrap().rows, 6);
    assert_eq!(archive.purge(all_at(now_ms), retention, 6).unwrap().rows, 2);
    assert_eq!(payloads(&archive), [9, 10]);
}

/// Both were kept for ever.
#[test]
fn lost_ranges_and_births_that_no_payload_names_go_with_the_payloads_of_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    let lost = |ages_ms| Lost {
        site: site("store-1"),
        generation: 1,
        seq_first: 1,
        seq_last: 2,
        ages_ms,
        reason: "spool full".into(),
    };
    let old_ms = START_MS - 1;
    let batch = Batch {
        payloads: vec![payload(2)],
        births: vec![birth_row(1, old_ms), birth_row(2, old_ms), birth_row(3, START_MS)],
        lost: vec![lost(old_ms), lost(START_MS)],
        ..Batch::default()
    };
    archive.commit(&batch).unwrap();
    let retention = Retention {
        payloads_ms: 1_000,
        rollups_ms: START_MS,
    };
    let purged = archive.purge(all_at(START_MS + 1_000), retention, 9).unwrap();
    assert_eq!((purged.rows, purged.births), (2, vec![(site("store-1"), 1)]));
    let purged = archive.purge(all_at(START_MS + 1_003), retention, 9).unwrap();
    assert_eq!(purged.rows, 4, "the payload, both births and the other lost range");
    assert_eq!(archive.birth(&site("store-1"), 2).unwrap(), None);
}

#[test]
fn births_of_a_site_are_bounded_and_what_no_payload_names_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    let most = u64::from(BIRTHS_PER_SITE_MAX);
    let mut commit = |births: Vec<BirthRow>, payloads: Vec<Payload>| {
        let batch = Batch {
            births,
            payloads,
            ..Batch::default()
        };
        let displaced = archive.commit(&batch).unwrap();
        displaced.into_iter().map(|(_, schema)| schema).collect::<Vec<_>>()
    };
    let births = (1..=most).map(|schema| birth_row(schema, START_MS + schema)).collect();
    assert_eq!(commit(births, vec![payload(1)]), Vec::<u64>::new());
    // The first is named; the second comes again, so that the third is the oldest.
    assert_eq!(
        commit(vec![birth_row(2, START_MS + most + 1)], vec![]),
        Vec::<u64>::new()
    );
    assert_eq!(commit(vec![birth_row(most + 1, START_MS + most + 2)], vec![]), [3]);
    // What has just come stays, even when all others are named.
    let named = (2..=most + 1).map(payload).collect();
    assert_eq!(commit(vec![birth_row(most + 2, 0)], named), [1]);
}

#[test]
fn incidents_go_when_the_sums_of_their_time_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    let row = |id: &str, json: String| IncidentRow { id: id.into(), json };
    let told = vec![
        row(
            "closed",
            format!("{{\"end_ms\": {}, \"updated_ms\": {START_MS}}}", START_MS - 11),
        ),
        row(
            "left open",
            format!("{{\"end_ms\": null, \"updated_ms\": {}}}", START_MS - 11),
        ),
        row("open", format!("{{\"end_ms\": null, \"updated_ms\": {START_MS}}}")),
    ];
    let incidents = IncidentChanges {
        told,
        ..IncidentChanges::default()
    };
    archive
        .commit(&Batch {
            incidents,
            ..Batch::default()
        })
        .unwrap();
    let retention = Retention {
        payloads_ms: 10,
        rollups_ms: 10,
    };
    assert_eq!(archive.purge(all_at(START_MS), retention, 9).unwrap().rows, 2);
    assert_eq!(archive.incidents().unwrap()[0].id, "open");
}

#[test]
fn undecodable_payloads_of_a_site_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = archive::open(&folder.path().join("a.sqlite"), &id()).unwrap();
    let undecoded = |number: u32| Undecoded {
        site: site("store-1"),
        leaf: "sum".into(),
        reason: "damaged".into(),
        bytes: number.to_be_bytes().to_vec(),
    };
    let all = (0..UNDECODED_PER_SITE_MAX + 3).map(undecoded).collect();
    archive
        .commit(&Batch {
            undecoded: all,
            ..Batch::default()
        })
        .unwrap();
    // What comes again displaces nothing.
    archive
        .commit(&Batch {
            undecoded: vec![undecoded(9); 3],
            ..Batch::default()
        })
        .unwrap();
    let kept = archive.undecoded().unwrap();
    assert_eq!(kept.len(), usize::try_from(UNDECODED_PER_SITE_MAX).unwrap());
    assert_eq!(kept[0], undecoded(3));
}

#[test]
fn another_archives_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.sqlite");
    archive::open(&path, &id()).unwrap();
    let refused = archive::open(&path, &"other".parse().unwrap()).unwrap_err();
    assert!(matches!(refused, ArchiveError::Identity { .. }), "{refused}");
}

#[test]
fn a_reader_sees_what_a_writer_committed_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.sqlite");
    let (mut receiver, _) = open(&path);
    for message in [born(5), blocks(5, 2..=4)] {
        receiver.take(arrives(&site("store-1"), &message)).unwrap();
    }
    receiver.commit().unwrap();
    let reader = archive::open_to_read(&path).unwrap();
    assert_eq!(reader.marks(1).unwrap()[0].settled.through(), 4);
    assert!(reader.birth(&site("store-1"), birth().schema).unwrap().is_some());
}
