//! From a message to its acknowledgement, with kills, duplicates, missing births and foreign bytes.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use crate::store::{
    MINUTE_MS, START_MS, arrives, birth, block, blocks, blocks_ahead, born, gap, message, open, open_at, raw, rollups,
    site, sold_through,
};
use std::sync::atomic::Ordering;
use tillwatch_central::archive::{self, Archive, BIRTHS_PER_SITE_MAX, Tally};
use tillwatch_central::books::{Day, balance};
use tillwatch_central::cursor::{BIRTH_ASKS_MAX, BIRTHS_WANTED_MAX};
use tillwatch_central::receive::{Arrived, REPLAY_MS, Receiver};
use tillwatch_central::watermark::LATENESS_MS;
use tillwatch_feed::codec;
use tillwatch_feed::message::{Birth, Block, Body, Config, Finding, Message, State};
use tillwatch_feed::topic::{Leaf, SiteId};

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.sqlite");
    (folder, path)
}

#[test]
fn a_record_counts_once_however_often_and_in_whatever_company_it_comes() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let store = site("store-1");
    let sent = [
        born(9),
        blocks(9, 4..=6),
        blocks(9, 2..=4),
        blocks(9, 2..=8),
        blocks(9, 5..=5),
        born(9),
    ];
    for message in &sent {
        receiver.take(arrives(&store, message)).unwrap();
        receiver.commit().unwrap();
    }
    assert_eq!(listener.told().sums, sold_through(&store, 8));
    let acks = receiver.acks(0);
    let ack = codec::decode_ack(&acks[0].payload).unwrap();
    assert_eq!(
        (acks[0].topic.as_str(), ack.generations[0].through_seq),
        ("tw1/a/store-1/ack/main", 8)
    );
    let tallies = archive::open_to_read(&path).unwrap().tallies(0).unwrap();
    assert_eq!(tallies.iter().map(|tally| tally.received).sum::<u64>(), 8);
}

/// The process dies after any number of messages, with or without a commit; the store sends again what was not
/// acknowledged. Nothing is lost and nothing counts twice, in the sums of the archive as in what the reckoner hears.
#[test]
fn a_kill_at_any_point_loses_nothing_and_counts_nothing_twice() {
    let store = site("store-1");
    let sent: Vec<_> = std::iter::once(born(9))
        .chain((2..=12).map(|seq| blocks(9, seq..=seq)))
        .collect();
    for killed_after in 0..sent.len() {
        for commits_every in [1, 3, 100] {
            let (_folder, path) = folder();
            let (mut receiver, _) = open(&path);
            for (number, message) in (1..).zip(&sent[..killed_after]) {
                receiver.take(arrives(&store, message)).unwrap();
                if number % commits_every == 0 {
                    receiver.commit().unwrap();
                }
            }
            let acked = receiver.acks(0).pop();
            let acked = acked.map_or(0, |ack| {
                codec::decode_ack(&ack.payload).unwrap().generations[0].through_seq
            });
            drop(receiver);
            let (mut receiver, listener) = open(&path);
            for message in sent.iter().filter(|message| message.seq_first > acked) {
                receiver.take(arrives(&store, message)).unwrap();
            }
            receiver.commit().unwrap();
            let told = listener.told();
            assert_eq!(
                told.sums,
                sold_through(&store, 12),
                "killed after {killed_after}, commits every {commits_every}"
            );
            drop(receiver);
            let sums = rollups(&archive::open_to_read(&path).unwrap(), 0..u64::MAX);
            assert_eq!(sums.iter().map(|rollup| rollup.sum).sum::<i64>(), (2..=12).sum::<i64>());
            assert_eq!(sums.iter().map(|rollup| rollup.covered_ms).sum::<u64>(), 11 * MINUTE_MS);
        }
    }
}

#[test]
fn a_restart_hears_the_recent_past_in_full_and_the_rest_as_sums() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let store = site("store-1");
    let last = 2_001; // minutes, more than the 26 hours that are replayed
    receiver.take(arrives(&store, &born(9))).unwrap();
    for first in (2..last).step_by(50) {
        receiver.take(arrives(&store, &blocks(9, first..=first + 49))).unwrap();
        receiver.commit().unwrap();
    }
    let now_ms = receiver.now_ms();
    drop(receiver);
    let (receiver, listener) = open(&path);
    let told = listener.told();
    assert_eq!(receiver.now_ms(), now_ms);
    let replayed: i64 = told.sums.values().sum();
    assert_eq!(
        told.rollups + replayed,
        (2..=last).map(|seq| i64::try_from(seq).unwrap()).sum::<i64>()
    );
    let first_ms = told.sums.keys().map(|(_, start_ms)| *start_ms).min().unwrap();
    assert!(first_ms + REPLAY_MS + 2 * 3_600_000 > now_ms, "too much was replayed");
    assert!(
        first_ms + REPLAY_MS <= now_ms + 15 * MINUTE_MS,
        "too little was replayed"
    );
    assert!(told.rollups > 0);
}

#[test]
fn a_block_without_its_birth_is_kept_acknowledged_and_read_when_the_birth_comes() {
    let store = site("store-1");
    for restarts in [false, true] {
        let (_folder, path) = folder();
        let (mut receiver, mut listener) = open(&path);
        receiver.take(arrives(&store, &blocks(9, 2..=5))).unwrap();
        receiver.commit().unwrap();
        let ack = codec::decode_ack(&receiver.acks(0)[0].payload).unwrap();
        assert_eq!(
            (ack.generations[0].ranges[0], ack.births_wanted),
            ((2, 5), vec![birth().schema])
        );
        assert!(listener.told().sums.is_empty());
        if restarts {
            drop(receiver);
            (receiver, listener) = open(&path);
            let ack = codec::decode_ack(&receiver.acks(0)[0].payload).unwrap();
            assert_eq!(ack.births_wanted, [birth().schema]);
        }
        receiver.take(arrives(&store, &blocks(9, 6..=6))).unwrap();
        receiver.take(arrives(&store, &born(9))).unwrap();
        receiver.commit().unwrap();
        receiver.take(arrives(&store, &blocks(9, 2..=7))).unwrap();
        receiver.commit().unwrap();
        assert_eq!(listener.told().sums, sold_through(&store, 7));
        let ack = codec::decode_ack(&receiver.acks(9_000)[0].payload).unwrap();
        assert!(ack.births_wanted.is_empty());
        drop(receiver);
        let (_, listener) = open(&path);
        assert_eq!(listener.told().sums, sold_through(&store, 7), "after a restart");
    }
}

/// One store's clock was a month ahead. After a restart it was heard first, was believed, and everything that was
/// acknowledged to the others looked old enough to be removed.
#[test]
fn the_first_site_heard_after_a_restart_may_be_the_fast_one() {
    const MONTH_MS: u64 = 30 * 24 * 60 * MINUTE_MS;
    let honest = ["store-1", "store-2", "store-3"].map(site);
    let fast = site("store-9");
    for order in [[0, 1, 2, 3], [3, 0, 1, 2]] {
        let (_folder, path) = folder();
        let (mut receiver, _) = open(&path);
        for place in order {
            let (store, message) = match honest.get(place) {
                Some(store) => (store, blocks(9, 2..=9)),
                None => (&fast, blocks_ahead(9, 2..=9, MONTH_MS)),
            };
            receiver.take(arrives(store, &born(9))).unwrap();
            receiver.take(arrives(store, &message)).unwrap();
            receiver.commit().unwrap();
        }
        drop(receiver);
        let (mut receiver, listener) = open(&path);
        assert!(receiver.now_ms() < START_MS + 11 * MINUTE_MS, "{}", receiver.now_ms());
        for store in &honest {
            receiver.take(arrives(store, &blocks(9, 10..=10))).unwrap();
            receiver.commit().unwrap();
        }
        assert!(
            listener
                .told()
                .clock_ms
                .iter()
                .all(|now_ms| *now_ms < START_MS + 12 * MINUTE_MS)
        );
        assert_eq!(receiver.now_ms(), START_MS + 11 * MINUTE_MS - LATENESS_MS);
        let mut kept = 0;
        let archive = archive::open_to_read(&path).unwrap();
        archive.payloads_since(0, &mut |_| kept += 1).unwrap();
        assert_eq!(kept, 7);
    }
}

const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Three stores each sell a minute that begins then, so that central's time follows.
fn days_pass(receiver: &mut Receiver, generation: u64, ahead_ms: u64) {
    for store in ["store-1", "store-2", "store-3"].map(site) {
        receiver.take(arrives(&store, &born(generation))).unwrap();
        receiver
            .take(arrives(&store, &blocks_ahead(generation, 2..=9, ahead_ms)))
            .unwrap();
    }
    receiver.commit().unwrap();
}

/// A store whose clock was years ahead held its rows for years longer than anybody else.
#[test]
fn what_a_fast_clock_dates_far_ahead_ages_from_its_arrival_on() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let fast = site("store-9");
    days_pass(&mut receiver, 9, 0);
    for message in [born(9), blocks_ahead(9, 2..=9, 500 * DAY_MS), gap(9, 10..=12)] {
        receiver.take(arrives(&fast, &message)).unwrap();
    }
    receiver.commit().unwrap();
    assert_eq!(receiver.counters.messages_ahead.load(Ordering::Relaxed), 1);
    // Two days are kept here.
    for half_days in 1..=6 {
        days_pass(&mut receiver, 9 + half_days, half_days * DAY_MS / 2);
    }
    let (mut kept, archive) = (Vec::new(), archive::open_to_read(&path).unwrap());
    archive
        .payloads_since(0, &mut |stored| kept.push(stored.payload.site))
        .unwrap();
    assert_eq!(kept.len(), 5 * 3, "{kept:?}");
    assert!(!kept.contains(&fast));
    let sums = rollups(&archive, 0..u64::MAX);
    assert!(!sums.is_empty() && sums.iter().all(|rollup| rollup.site != fast));
    let first_days = |tally: Tally| u64::from(tally.day) <= START_MS / DAY_MS + 3;
    assert!(archive.tallies(0).unwrap().into_iter().all(first_days));
}

/// Its dictionary was still in memory, so that nobody would have noticed before a restart.
#[test]
fn a_birth_that_was_removed_is_asked_for_when_it_is_named_again() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let store = site("store-9");
    days_pass(&mut receiver, 9, 0);
    receiver.take(arrives(&store, &born(9))).unwrap();
    receiver.commit().unwrap();
    days_pass(&mut receiver, 10, 3 * DAY_MS);
    assert_eq!(
        archive::open_to_read(&path)
            .unwrap()
            .birth(&store, birth().schema)
            .unwrap(),
        None
    );
    receiver
        .take(arrives(&store, &blocks_ahead(9, 2..=2, 3 * DAY_MS)))
        .unwrap();
    receiver.commit().unwrap();
    let ack = receiver.acks(0).into_iter().find(|ack| ack.site == store).unwrap();
    assert_eq!(codec::decode_ack(&ack.payload).unwrap().births_wanted, [birth().schema]);
}

#[test]
fn a_site_may_owe_so_many_births_and_what_needs_one_more_comes_again_later() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let store = site("store-1");
    let most = u64::try_from(BIRTHS_WANTED_MAX).unwrap();
    let unknown = |seq: u64| {
        let block = Block {
            schema: seq,
            ..block(seq..=seq)
        };
        message(9, seq..=seq, Body::Block(block))
    };
    for seq in 1..=most + 3 {
        receiver.take(arrives(&store, &unknown(seq))).unwrap();
    }
    receiver.commit().unwrap();
    let ack = codec::decode_ack(&receiver.acks(0)[0].payload).unwrap();
    assert_eq!(
        ack.generations[0].through_seq, most,
        "what is refused is not acknowledged"
    );
    assert_eq!(receiver.counters.births_missing_refused.load(Ordering::Relaxed), 3);
    // When the payloads are gone nobody waits any more.
    days_pass(&mut receiver, 10, 3 * DAY_MS);
    receiver.take(arrives(&store, &unknown(most + 1))).unwrap();
    receiver.commit().unwrap();
    let ack = receiver.acks(9_000).into_iter().find(|ack| ack.site == store).unwrap();
    let ack = codec::decode_ack(&ack.payload).unwrap();
    assert_eq!(ack.births_wanted, [most + 1]);
}

#[test]
fn a_gap_accounts_for_what_is_lost_and_moves_the_cursor() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let store = site("store-1");
    for message in [born(9), gap(9, 2..=40), blocks(9, 41..=41)] {
        receiver.take(arrives(&store, &message)).unwrap();
    }
    receiver.commit().unwrap();
    let ack = codec::decode_ack(&receiver.acks(0)[0].payload).unwrap();
    assert_eq!(ack.generations[0].through_seq, 41);
    assert_eq!(receiver.counters.records_lost.load(Ordering::Relaxed), 39);
    let archive = archive::open_to_read(&path).unwrap();
    let (mark, tallies) = (&archive.marks(1).unwrap()[0], archive.tallies(0).unwrap());
    assert_eq!((mark.received, mark.accounted, mark.produced()), (2, 39, 41));
    assert_eq!(
        tallies
            .iter()
            .map(|tally| (tally.received, tally.accounted))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (2, 39)
    );
}

/// The archive's disk died, and yesterday's copy takes its place. The store has deleted what was acknowledged since.
#[test]
fn a_center_restored_from_a_copy_says_what_is_lost_for_good_and_goes_on() {
    let (folder, path) = folder();
    let store = site("store-1");
    let copy = folder.path().join("copy.sqlite");
    let (mut receiver, _) = open(&path);
    for message in [born(9), blocks(9, 2..=5)] {
        receiver.take(arrives(&store, &message)).unwrap();
    }
    receiver.commit().unwrap();
    drop(receiver);
    std::fs::copy(&path, &copy).unwrap();
    let (mut receiver, _) = open(&path);
    receiver.take(arrives(&store, &blocks(9, 6..=9))).unwrap();
    receiver.commit().unwrap();
    drop(receiver);
    std::fs::rename(&copy, &path).unwrap();

    let (mut receiver, listener) = open(&path);
    receiver.take(Arrived::Connected { start: 42 }).unwrap();
    let ack = |receiver: &mut Receiver, now_ms| codec::decode_ack(&receiver.acks(now_ms)[0].payload).unwrap();
    let first = ack(&mut receiver, 0);
    assert_eq!(
        (first.start, first.generations[0].through_seq),
        (42, 5),
        "what the copy has"
    );
    // Live data first; it says that nothing before 10 is held.
    for (now_ms, seqs) in [(1_000, 12..=12), (2_000, 10..=11)] {
        let mut message = blocks(9, seqs);
        message.oldest_seq_held = 10;
        receiver.take(arrives(&store, &message)).unwrap();
        receiver.commit().unwrap();
        assert!(ack(&mut receiver, now_ms).generations[0].through_seq >= 9);
    }
    assert_eq!(receiver.counters.records_lost.load(Ordering::Relaxed), 4, "6 to 9");
    assert!(listener.told().sums.len() >= 3);
    let archive = archive::open_to_read(&path).unwrap();
    let books = balance(&archive.tallies(0).unwrap(), &archive.marks(9).unwrap());
    let sum = |of: fn(&Day) -> u64| books.lines.iter().map(|line| of(&line.figures)).sum::<u64>();
    let figures = [
        sum(|day| day.produced),
        sum(|day| day.received),
        sum(|day| day.accounted),
        sum(|day| day.missing),
    ];
    assert_eq!(figures, [12, 8, 4, 0]);
    assert!(books.contradictions.is_empty());
}

#[test]
fn findings_states_and_new_starts_pass_through() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let store = site("store-1");
    let finding = Finding {
        id: 77,
        revision: 1,
        metric: "queue.depth".into(),
        unit: "1".into(),
        role: "queue".into(),
        decimals: 0,
        currency: None,
        plugin: "queue-depth".into(),
        labels: vec![],
        start_ms: START_MS,
        peak_ms: START_MS,
        end_ms: None,
        window_ms: 10_000,
        log10_p: -4.0,
        effect: 3.0,
        expected: 1,
        actual: 9,
    };
    let finding = message(9, 1..=1, Body::Finding(finding));
    receiver.take(arrives(&store, &finding)).unwrap();
    receiver.take(arrives(&store, &finding)).unwrap();
    let state = codec::encode_state(&State {
        online: true,
        birth_number: 3,
        ..State::default()
    });
    receiver.take(raw(&store, Leaf::State, state.clone())).unwrap();
    receiver.take(raw(&store, Leaf::State, Vec::new())).unwrap();
    receiver.take(Arrived::Connected { start: 42 }).unwrap();
    receiver.commit().unwrap();
    assert_eq!(listener.told().findings, [77]);
    assert_eq!(codec::decode_ack(&receiver.acks(0)[0].payload).unwrap().start, 42);
    assert_eq!(archive::open_to_read(&path).unwrap().states().unwrap()[0].bytes, state);
}

/// A fleet that comes back all at once is more than its broker can take.
#[test]
fn each_store_is_told_once_on_each_connection_how_wide_to_spread_its_return() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    receiver.announces = Some(Config::for_fleet(30_000, 2_000));
    let store = site("store-1");
    let cfg = |receiver: &mut Receiver, now_ms: u64| -> Vec<(String, u32)> {
        receiver.take(arrives(&store, &born(1))).unwrap();
        receiver.commit().unwrap();
        let outgoing = receiver.acks(now_ms).into_iter();
        let cfg = outgoing.filter(|outgoing| outgoing.topic.ends_with("/cfg"));
        cfg.map(|cfg| (cfg.topic, codec::decode_config(&cfg.payload).unwrap().spread_window_s))
            .collect()
    };
    let told = [("tw1/a/store-1/cfg".to_owned(), 15)];
    assert_eq!(cfg(&mut receiver, 0), told);
    assert_eq!(cfg(&mut receiver, 5_000), []);
    receiver.take(Arrived::Connected { start: 7 }).unwrap();
    assert_eq!(cfg(&mut receiver, 10_000), told, "the broker may have lost it");
    assert_eq!(Config::for_fleet(2_001, 2_000).spread_window_s, 2);
    assert_eq!(Config::for_fleet(usize::MAX, 0).spread_window_s, u32::MAX);
}

/// Every payload is damaged in every byte; none may stop its store or count wrongly.
#[test]
fn what_a_store_says_of_itself_and_its_clock_can_be_read_also_after_a_restart() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let store = site("store-1");
    let mut message = born(1);
    message.clock.wall_ms = START_MS + 5_000;
    let state = State {
        online: true,
        generation: 1,
        birth_number: 1,
        agent_version: "0.1.0".into(),
        clock: message.clock,
        spool_records: 5,
        spool_bytes: 500,
        ..State::default()
    };
    receiver.board.tell_time(START_MS);
    receiver.take(arrives(&store, &message)).unwrap();
    receiver
        .take(raw(&store, Leaf::State, codec::encode_state(&state)))
        .unwrap();
    receiver.commit().unwrap();
    let told = &receiver.board.health().sites[0];
    assert_eq!(
        (told.online, told.spool_bytes, told.clock_offset_ms),
        (Some(true), Some(500), Some(5_000))
    );
    drop(receiver);
    let (receiver, _) = open(&path);
    let told = &receiver.board.health().sites[0];
    assert_eq!(
        (told.online, told.spool_bytes, told.clock_offset_ms),
        (None, Some(500), None)
    );
}

#[test]
fn damaged_payloads_cost_themselves_and_nothing_else() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let good = site("store-1");
    receiver.take(arrives(&good, &born(9))).unwrap();
    let bad = site("store-2");
    for whole in [
        codec::encode(&born(1)),
        codec::encode(&blocks(1, 2..=4)),
        codec::encode(&gap(1, 5..=6)),
    ] {
        for at in 0..whole.len() {
            let mut cut = whole.clone();
            cut.truncate(at);
            receiver.take(raw(&bad, Leaf::Sum, cut)).unwrap();
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                receiver.take(raw(&bad, Leaf::Sum, changed)).unwrap();
            }
            if receiver.is_full() {
                receiver.commit().unwrap();
            }
        }
    }
    receiver.take(arrives(&good, &blocks(9, 2..=4))).unwrap();
    receiver.commit().unwrap();
    let mut sums = listener.told().sums;
    sums.retain(|(site, _), _| *site == good);
    assert_eq!(sums, sold_through(&good, 4));
    let undecoded = archive::open_to_read(&path).unwrap().undecoded().unwrap();
    assert!(undecoded.len() > 100 && undecoded.iter().all(|u| u.site == bad && !u.reason.is_empty()));
}

#[test]
fn a_block_that_contradicts_its_birth_is_kept_and_acknowledged() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let store = site("store-1");
    let mut odd = block(2..=2);
    odd.intervals[0].rows[0].series = 8;
    for message in [born(9), message(9, 2..=2, Body::Block(odd)), blocks(9, 3..=3)] {
        receiver.take(arrives(&store, &message)).unwrap();
    }
    receiver.commit().unwrap();
    assert_eq!(
        codec::decode_ack(&receiver.acks(0)[0].payload).unwrap().generations[0].through_seq,
        3
    );
    assert_eq!(listener.told().sums.len(), 1);
    let undecoded = archive::open_to_read(&path).unwrap().undecoded().unwrap();
    assert!(undecoded[0].reason.contains("series 8"), "{}", undecoded[0].reason);
}

/// Blocks as of a clock that was never set.
fn blocks_of_1970(generation: u64, seqs: std::ops::RangeInclusive<u64>) -> Message {
    let mut block = block(seqs.clone());
    for interval in &mut block.intervals {
        interval.start_ms -= START_MS;
    }
    message(generation, seqs, Body::Block(block))
}

fn payloads_of(path: &std::path::Path, store: &SiteId) -> usize {
    let mut kept = 0;
    let archive = archive::open_to_read(path).unwrap();
    archive
        .payloads_since(0, &mut |stored| kept += usize::from(stored.payload.site == *store))
        .unwrap();
    kept
}

/// To half of the stores it was 1970, and the sums of the others lay too far ahead of them.
#[test]
fn stores_whose_clocks_were_never_set_remove_nothing_of_the_others() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let (honest, dead) = (site("store-1"), site("store-9"));
    for message in [born(9), blocks(9, 2..=9)] {
        receiver.take(arrives(&honest, &message)).unwrap();
    }
    for message in [born(9), blocks_of_1970(9, 2..=9)] {
        receiver.take(arrives(&dead, &message)).unwrap();
    }
    receiver.commit().unwrap();
    receiver.take(arrives(&honest, &blocks(9, 10..=40))).unwrap();
    receiver.commit().unwrap();
    let archive = archive::open_to_read(&path).unwrap();
    let sold = |store: &SiteId| -> i64 {
        let sums = rollups(&archive, 0..u64::MAX);
        sums.iter()
            .filter(|rollup| rollup.site == *store)
            .map(|rollup| rollup.sum)
            .sum()
    };
    assert_eq!((sold(&honest), sold(&dead)), ((2..=40).sum(), (2..=9).sum()));
    let tallies = archive.tallies(0).unwrap();
    assert!(tallies.iter().any(|tally| tally.site == honest && tally.received == 40));
}

/// A chain of one or two stores: a block dated 2030 emptied the archive.
#[test]
fn one_fast_clock_of_one_or_two_stores_removes_nothing_when_the_wall_clock_is_told() {
    for stores in [vec!["store-1"], vec!["store-1", "store-2"]] {
        let (_folder, path) = folder();
        let (mut receiver, listener) = open(&path);
        let wall_ms = START_MS + 10 * MINUTE_MS;
        receiver.tell_time(wall_ms, 0);
        let stores: Vec<_> = stores.into_iter().map(site).collect();
        for store in &stores {
            for message in [born(9), blocks(9, 2..=9)] {
                receiver.take(arrives(store, &message)).unwrap();
            }
        }
        receiver.commit().unwrap();
        let ahead = blocks_ahead(9, 10..=19, 4 * 365 * DAY_MS);
        receiver.take(arrives(&stores[0], &ahead)).unwrap();
        receiver.commit().unwrap();
        receiver.tell_time(wall_ms + 30 * MINUTE_MS, 30 * MINUTE_MS);
        receiver
            .take(arrives(stores.last().unwrap(), &blocks(9, 20..=40)))
            .unwrap();
        receiver.commit().unwrap();
        assert!(receiver.now_ms() <= wall_ms + 30 * MINUTE_MS, "{}", receiver.now_ms());
        let kept: usize = stores.iter().map(|store| payloads_of(&path, store)).sum();
        assert_eq!(kept, stores.len() + 2);
        let told = listener.told().sums;
        assert!(told.keys().all(|(_, start_ms)| *start_ms < wall_ms + DAY_MS));
        drop(receiver);
        let sums = rollups(&archive::open_to_read(&path).unwrap(), 0..START_MS + DAY_MS);
        let honest = (2..=9).sum::<i64>() * i64::try_from(stores.len()).unwrap() + (20..=40).sum::<i64>();
        assert_eq!(sums.iter().map(|rollup| rollup.sum).sum::<i64>(), honest);
    }
}

/// They were older than the retention when they came, and went before their birth.
#[test]
fn what_waits_for_a_birth_ages_from_its_arrival_on() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let store = site("store-9");
    days_pass(&mut receiver, 9, 3 * DAY_MS);
    receiver.take(arrives(&store, &blocks(9, 2..=5))).unwrap();
    receiver.commit().unwrap();
    days_pass(&mut receiver, 10, 4 * DAY_MS);
    receiver.take(arrives(&store, &born(9))).unwrap();
    receiver.commit().unwrap();
    let mut sums = listener.told().sums;
    sums.retain(|(site, _), _| *site == store);
    assert_eq!(sums, sold_through(&store, 5));
}

fn unknown(schema: u64, seq: u64) -> Message {
    let block = Block {
        schema,
        ..block(seq..=seq)
    };
    message(9, seq..=seq, Body::Block(block))
}

/// Sixteen births that no agent had any more were asked for, and never another one.
#[test]
fn a_birth_that_is_asked_for_in_vain_gives_its_place_to_the_next_and_is_read_when_it_comes_after_all() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let store = site("store-1");
    let most = u64::try_from(BIRTHS_WANTED_MAX).unwrap();
    receiver.take(arrives(&store, &blocks(9, 1_000..=1_000))).unwrap();
    for seq in 2..=most {
        receiver.take(arrives(&store, &unknown(seq, seq))).unwrap();
    }
    receiver.commit().unwrap();
    for second in 0..BIRTH_ASKS_MAX {
        receiver.take(arrives(&store, &unknown(5_000, 5_000))).unwrap();
        receiver.take(arrives(&store, &unknown(2, 2))).unwrap();
        receiver.commit().unwrap();
        let ack = receiver.acks(u64::from(second) * 1_000).pop().unwrap();
        assert_eq!(
            codec::decode_ack(&ack.payload).unwrap().births_wanted.len(),
            BIRTHS_WANTED_MAX
        );
    }
    assert_eq!(receiver.counters.births_given_up.load(Ordering::Relaxed), most);
    receiver.take(arrives(&store, &unknown(5_000, 5_000))).unwrap();
    receiver.commit().unwrap();
    let ack = receiver.acks(10_000_000).pop().unwrap();
    assert_eq!(codec::decode_ack(&ack.payload).unwrap().births_wanted, [5_000]);
    receiver.take(arrives(&store, &born(9))).unwrap();
    receiver.commit().unwrap();
    assert_eq!(listener.told().sums.values().sum::<i64>(), 1_000);
}

/// It was taken for read, and nobody asked for it again.
#[test]
fn a_birth_that_is_displaced_as_soon_as_it_came_is_asked_for_again() {
    let (_folder, path) = folder();
    let (mut receiver, _) = open(&path);
    let store = site("store-1");
    let wanted = birth().schema;
    receiver.take(arrives(&store, &blocks(9, 2..=2))).unwrap();
    receiver.commit().unwrap();
    receiver.take(arrives(&store, &born(9))).unwrap();
    for number in 1..=u64::from(BIRTHS_PER_SITE_MAX) {
        let seq = 2 * number + 1;
        let mut other = birth();
        other.plugins[0].version = format!("0.1.{number}");
        other.schema = Birth::schema_hash(10_000, &other.plugins, &other.metrics, &other.series);
        let schema = other.schema;
        let birth = message(9, seq..=seq, Body::Birth(other));
        receiver.take(arrives(&store, &birth)).unwrap();
        receiver.take(arrives(&store, &unknown(schema, seq + 1))).unwrap();
    }
    receiver.commit().unwrap();
    assert_eq!(receiver.counters.births_displaced.load(Ordering::Relaxed), 1);
    let ack = codec::decode_ack(&receiver.acks(9_000)[0].payload).unwrap();
    assert_eq!(ack.births_wanted, [wanted]);
}

/// Time went on for the one store that was left; a restart heard it all at one moment.
#[test]
fn a_replay_takes_the_same_steps_when_few_stores_were_left() {
    let (_folder, path) = folder();
    let (mut receiver, listener) = open(&path);
    let stores = ["store-1", "store-2", "store-3", "store-4"].map(site);
    let wall_ms = |minute: u64| START_MS + (minute + 1) * MINUTE_MS;
    receiver.tell_time(wall_ms(2), 2 * MINUTE_MS);
    for store in &stores {
        receiver.take(arrives(store, &born(9))).unwrap();
        receiver.take(arrives(store, &blocks(9, 2..=2))).unwrap();
    }
    receiver.commit().unwrap();
    for minute in 3..=60 {
        receiver.tell_time(wall_ms(minute), minute * MINUTE_MS);
        receiver.take(arrives(&stores[0], &blocks(9, minute..=minute))).unwrap();
        receiver.commit().unwrap();
    }
    let steps = listener.told().clock_ms;
    assert!(steps.len() > 40, "{steps:?}");
    drop(receiver);
    let (_, listener) = open_at(&path, wall_ms(61));
    // The last step is heard after the commit that causes it; the next message makes it.
    assert_eq!(listener.told().clock_ms, steps[..steps.len() - 1]);
}
