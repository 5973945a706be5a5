//! The cursor under every order, loss and repetition that a network can produce.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use proptest::prelude::*;
use std::collections::BTreeSet;
use tillwatch_central::cursor::{ACK_RANGES_MAX, Brings, Cursor, CursorLimits, Numbers, Refusal};
use tillwatch_feed::message::{Ack, GenerationAck};
use tillwatch_feed::topic::{Shard, SiteId};

fn shard() -> Shard {
    "a".parse().unwrap()
}

fn site() -> SiteId {
    "store-1".parse().unwrap()
}

fn cursor(limits: CursorLimits) -> Cursor {
    Cursor::new("main".parse().unwrap(), 1, limits)
}

fn numbers(generation: u64, seq_first: u64, seq_last: u64) -> Numbers {
    Numbers {
        generation,
        seq_first,
        seq_last,
        oldest_seq_held: 1,
    }
}

fn take(cursor: &mut Cursor, numbers: Numbers) -> Vec<(u64, u64)> {
    cursor
        .arrived(&shard(), &site(), numbers, Brings::Records)
        .unwrap()
        .fresh
}

fn ack(cursor: &mut Cursor, now_ms: u64) -> Option<Ack> {
    cursor.acks_due(now_ms, 10).pop().map(|(_, _, ack)| ack)
}

fn covers(ack: &GenerationAck, seq: u64) -> bool {
    seq <= ack.through_seq || ack.ranges.iter().any(|(first, last)| (*first..=*last).contains(&seq))
}

#[derive(Debug, Clone)]
struct Sent {
    generation: u64,
    first: u64,
    length: u64,
    is_gap: bool,
    commits: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    (1..4_u64, 1..60_u64, 0..9_u64, prop::bool::weighted(0.1), any::<bool>()).prop_map(
        |(generation, first, length, is_gap, commits)| Sent {
            generation,
            first,
            length,
            is_gap,
            commits,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_record_is_fresh_exactly_once_and_only_durable_ones_are_acknowledged(messages in prop::collection::vec(sent(), 1..120)) {
        let mut cursor = cursor(CursorLimits { generations_max: 2, ..CursorLimits::default() });
        let (mut fresh, mut durable) = (BTreeSet::new(), BTreeSet::new());
        let mut archive = std::collections::BTreeMap::new();
        for (turn, message) in (0_u64..).zip(messages) {
            let Sent { generation, first, length, is_gap, commits } = message;
            if !cursor.knows(&site(), generation) && let Some(mark) = archive.get(&generation) {
                cursor.load(Clone::clone(mark));
            }
            let brings = if is_gap { Brings::Gap } else { Brings::Records };
            let arrival = cursor.arrived(&shard(), &site(), numbers(generation, first, first + length), brings).unwrap();
            for seq in arrival.fresh.iter().flat_map(|(first, last)| *first..=*last) {
                prop_assert!(fresh.insert((generation, seq)), "{seq} was fresh twice");
            }
            prop_assert!(ack(&mut cursor, turn * 2_000).is_none(), "acknowledged before the commit");
            if commits {
                for mark in cursor.changed() {
                    prop_assert_eq!(mark.settled.count(), mark.received + mark.accounted);
                    archive.insert(mark.generation, mark);
                }
                cursor.committed();
                durable.clone_from(&fresh);
                let ack = ack(&mut cursor, turn * 2_000 + 1_000).expect("a commit makes an acknowledgement due");
                for generation in &ack.generations {
                    for seq in 1..80 {
                        prop_assert_eq!(covers(generation, seq), durable.contains(&(generation.generation, seq)));
                    }
                }
            }
        }
    }
}

#[test]
fn at_most_one_acknowledgement_a_second_goes_to_a_site() {
    let mut cursor = cursor(CursorLimits::default());
    take(&mut cursor, numbers(1, 1, 1));
    cursor.committed();
    assert!(ack(&mut cursor, 5_000).is_some());
    take(&mut cursor, numbers(1, 2, 2));
    cursor.committed();
    assert_eq!(ack(&mut cursor, 5_999), None);
    assert_eq!(ack(&mut cursor, 6_000).unwrap().generations[0].through_seq, 2);
}

#[test]
fn a_duplicate_is_acknowledged_again() {
    let mut cursor = cursor(CursorLimits::default());
    for now_ms in [1_000, 3_000] {
        take(&mut cursor, numbers(1, 1, 1));
        cursor.committed();
        assert!(ack(&mut cursor, now_ms).is_some());
    }
}

#[test]
fn a_new_start_reaches_every_site_known() {
    let mut cursor = cursor(CursorLimits::default());
    take(&mut cursor, numbers(1, 1, 1));
    cursor.committed();
    assert_eq!(ack(&mut cursor, 0).unwrap().start, 1);
    cursor.restarted(99);
    assert_eq!(ack(&mut cursor, 2_000).unwrap().start, 99);
}

#[test]
fn what_the_agent_no_longer_holds_is_lost_at_the_center_once() {
    let mut cursor = cursor(CursorLimits::default());
    take(&mut cursor, numbers(1, 3, 4));
    let numbers = Numbers {
        generation: 1,
        seq_first: 9,
        seq_last: 9,
        oldest_seq_held: 8,
    };
    let arrival = cursor.arrived(&shard(), &site(), numbers, Brings::Records).unwrap();
    assert_eq!((arrival.fresh, arrival.lost), (vec![(9, 9)], vec![(1, 2), (5, 7)]));
    let again = cursor.arrived(&shard(), &site(), numbers, Brings::Records).unwrap();
    assert_eq!((again.fresh, again.lost), (vec![], vec![]));
    let mark = cursor.mark(&site(), 1).unwrap();
    // Received 3, 4 and 9; accounted for 1, 2, 5, 6 and 7; 8 is still missing.
    assert_eq!(
        (mark.received, mark.accounted, mark.produced(), mark.settled.through()),
        (3, 5, 9, 7)
    );
}

#[test]
fn numbers_that_are_none_change_nothing() {
    let mut cursor = cursor(CursorLimits::default());
    for (first, last) in [(0, 5), (6, 5)] {
        let refused = cursor.arrived(&shard(), &site(), numbers(1, first, last), Brings::Records);
        assert_eq!(
            refused,
            Err(Refusal::Numbers {
                seq_first: first,
                seq_last: last
            })
        );
    }
    assert!(cursor.changed().is_empty());
}

#[test]
fn too_many_holes_are_refused_until_some_are_filled() {
    let mut cursor = cursor(CursorLimits {
        ranges_max: 4,
        ..CursorLimits::default()
    });
    for seq in [1, 3, 5, 7] {
        take(&mut cursor, numbers(1, seq, seq));
    }
    let refused = cursor.arrived(&shard(), &site(), numbers(1, 9, 9), Brings::Records);
    assert_eq!(refused, Err(Refusal::Ranges { max: 4 }));
    assert_eq!(take(&mut cursor, numbers(1, 8, 8)), [(8, 8)]);
    assert_eq!(take(&mut cursor, numbers(1, 2, 2)), [(2, 2)]);
    assert_eq!(take(&mut cursor, numbers(1, 10, 10)), [(10, 10)]);
}

/// What the agent no longer held was settled although the message was refused, so that nobody ever wrote the loss down.
#[test]
fn a_refused_message_changes_nothing_and_says_the_loss_when_it_comes_again() {
    let mut cursor = cursor(CursorLimits {
        ranges_max: 4,
        ..CursorLimits::default()
    });
    for seq in [3, 7, 9, 11] {
        take(&mut cursor, numbers(1, seq, seq));
    }
    cursor.committed();
    let before = cursor.mark(&site(), 1);
    let numbers = |oldest_seq_held| Numbers {
        oldest_seq_held,
        ..numbers(1, 20, 20)
    };
    let refused = cursor.arrived(&shard(), &site(), numbers(4), Brings::Records);
    assert_eq!(refused, Err(Refusal::Ranges { max: 4 }));
    assert_eq!((cursor.mark(&site(), 1), cursor.changed().len()), (before, 0));
    let arrival = cursor.arrived(&shard(), &site(), numbers(8), Brings::Records).unwrap();
    assert_eq!((arrival.fresh, arrival.lost), (vec![(20, 20)], vec![(1, 2), (4, 6)]));
}

#[test]
fn more_sites_than_allowed_are_refused() {
    let mut cursor = cursor(CursorLimits {
        sites_max: 1,
        ..CursorLimits::default()
    });
    take(&mut cursor, numbers(1, 1, 1));
    let other = "store-2".parse().unwrap();
    let refused = cursor.arrived(&shard(), &other, numbers(1, 1, 1), Brings::Records);
    assert_eq!(refused, Err(Refusal::Sites { max: 1 }));
}

#[test]
fn an_acknowledgement_with_too_many_ranges_says_both_ends() {
    let mut cursor = cursor(CursorLimits::default());
    for number in 0..40 {
        take(&mut cursor, numbers(1, 3 + 2 * number, 3 + 2 * number));
    }
    cursor.committed();
    let ack = ack(&mut cursor, 0).unwrap();
    let ranges = &ack.generations[0].ranges;
    assert_eq!(ranges.len(), ACK_RANGES_MAX);
    assert_eq!((ranges[0], ranges[15]), ((3, 3), (81, 81)));
    assert!(ranges.is_sorted());
}

#[test]
fn births_are_asked_for_until_they_come() {
    let mut cursor = cursor(CursorLimits::default());
    take(&mut cursor, numbers(1, 1, 1));
    assert!(cursor.want_birth(&site(), 0xb));
    cursor.committed();
    assert_eq!(ack(&mut cursor, 0).unwrap().births_wanted, [0xb]);
    assert!(cursor.birth_came(&site(), 0xb));
    assert!(!cursor.birth_came(&site(), 0xb));
    take(&mut cursor, numbers(1, 2, 2));
    cursor.committed();
    assert!(ack(&mut cursor, 2_000).unwrap().births_wanted.is_empty());
}
