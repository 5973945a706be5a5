//! Looking: each damage is found, nothing is changed, also while somebody writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

const SMALL: u64 = 1280;

fn settings() -> SpoolSettings {
    SpoolSettings {
        bytes_max: 1 << 20,
        age_max_ms: u64::MAX,
        segment_bytes: SMALL,
    }
}

/// Nine blocks of schema 7 with their dictionary, the first of them released.
fn spool_in(dir: &Path) -> Spool {
    let (mut spool, _) = Spool::open(dir, &settings(), 5, 0).unwrap();
    spool.put_birth(7, spool.next_id(), b"birth").unwrap();
    for number in 1..=9 {
        append(&mut spool, number);
    }
    spool.release(RecordId { generation: 5, seq: 1 });
    spool
}

fn append(spool: &mut Spool, number: u64) {
    let block = NewRecord {
        kind: RecordKind::Block,
        schema: 7,
        payload: vec![1; 300],
    };
    spool.append(&[block], b"checkpoint", number * 1000).unwrap();
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

fn damage(dir: &Path) -> Vec<Damage> {
    let look = Look::open(dir).unwrap();
    look.damage(&look.held().unwrap()).unwrap()
}

/// Harms the spool, and says what a look finds; the look itself changes nothing.
fn damage_after(harm: impl FnOnce(&Path)) -> Vec<Damage> {
    let dir = tempfile::tempdir().unwrap();
    drop(spool_in(dir.path()));
    assert_eq!(damage(dir.path()), []);
    harm(dir.path());
    let before = contents(dir.path());
    let found = damage(dir.path());
    assert_eq!(contents(dir.path()), before);
    found
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let names = contents(dir).into_keys().filter(|name| name.ends_with(".seg"));
    names.map(|name| dir.join(name)).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_look_beside_a_writing_agent_sees_what_is_held_with_ages_and_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool_in(dir.path());
    let look = Look::open(dir.path()).unwrap();
    let run = HeldRun {
        generation: 5,
        seq_first: 2,
        seq_last: 9,
        kind: RecordKind::Block,
        schema: 7,
        first_ms: 2_000,
        last_ms: 9_000,
        bytes: 2_400,
    };
    assert_eq!(look.held().unwrap(), [run]);
    assert_eq!(
        (look.oldest(5), look.bytes(), look.gaps().count()),
        (Some(2), spool.bytes(), 0)
    );
    // The agent goes on: what it removes since is no damage of the look.
    spool.release(RecordId { generation: 5, seq: 8 });
    append(&mut spool, 10);
    assert_eq!(look.damage(&look.held().unwrap()).unwrap(), []);
    assert_eq!(Look::open(dir.path()).unwrap().held().unwrap().len(), 1);
}

#[test]
fn each_damage_is_found_and_left_as_it_is() {
    let at_start = |note| vec![Damage::AtStart(note)];
    let name = |at: u64| format!("{at:020}.seg");
    let torn = damage_after(|dir| {
        let newest = segments(dir).pop().unwrap();
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, [&bytes[..], b"unfinished"].concat()).unwrap();
    });
    assert_eq!(torn, at_start(Note::TornTail { bytes: 10 }));
    let flipped = damage_after(|dir| flip(&segments(dir)[1], 200));
    assert_eq!(flipped, at_start(Note::DamagedSegment { name: name(4) }));
    let nonsense = damage_after(|dir| fs::write(&segments(dir)[1], [0xaa; 1000]).unwrap());
    assert_eq!(nonsense, at_start(Note::UnreadableSegment { name: name(4) }));
    let no_cursor = damage_after(|dir| fs::remove_file(dir.join("cursor")).unwrap());
    assert_eq!(no_cursor, at_start(Note::LostCursor));
    let slot = damage_after(|dir| flip(&dir.join("cursor"), 20));
    assert_eq!(slot, [Damage::CursorSlot]);
    let no_newest = damage_after(|dir| {
        let newest = segments(dir).pop().unwrap();
        fs::write(newest, [0xaa; 1000]).unwrap();
    });
    assert!(
        no_newest.contains(&Damage::AtStart(Note::LostCheckpoint)),
        "{no_newest:?}"
    );
    let birth = "birth-0000000000000007";
    let gone = damage_after(|dir| fs::remove_file(dir.join(birth)).unwrap());
    assert_eq!(gone, [Damage::NoBirth { schema: 7 }]);
    assert_eq!(damage_after(|dir| flip(&dir.join(birth), 21)), gone);
    let bad = damage_after(|dir| fs::write(dir.join("1.bad"), b"x").unwrap());
    assert_eq!(
        bad,
        [Damage::PutAside {
            name: "1.bad".to_owned()
        }]
    );
}

#[test]
fn what_a_damaged_segment_lost_is_a_gap_of_the_look_too() {
    let dir = tempfile::tempdir().unwrap();
    drop(spool_in(dir.path()));
    flip(&segments(dir.path())[1], 200);
    let look = Look::open(dir.path()).unwrap();
    let gap = HeldGap {
        generation: 5,
        seq_first: 4,
        seq_last: 4,
        reason: GapReason::Corrupt,
    };
    assert_eq!(look.gaps().collect::<Vec<_>>(), [gap]);
    let held: u64 = look
        .held()
        .unwrap()
        .iter()
        .map(|run| run.seq_last - run.seq_first + 1)
        .sum();
    assert_eq!(held, 7);
}
