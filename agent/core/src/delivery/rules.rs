//! Each rule of delivery by itself.

use tillwatch_feed::message::{Ack, GenerationAck};

use super::*;

const MINUTE_MS: u64 = 60_000;

fn delivery() -> Delivery {
    Delivery::new(DeliverySettings {
        in_flight_max: 50,
        ..DeliverySettings::new(vec!["main".parse().unwrap()], 1)
    })
}

fn run(generation: u64, seq_first: u64, seq_last: u64, kind: RecordKind) -> Run {
    let schema = if kind == RecordKind::Finding { 0 } else { 7 };
    Run {
        generation,
        seq_first,
        seq_last,
        kind,
        schema,
    }
}

fn ack(archive: &str, start: u64, generation: u64, through_seq: u64, ranges: &[(u64, u64)]) -> Ack {
    let generations = vec![GenerationAck {
        generation,
        through_seq,
        ranges: ranges.to_vec(),
    }];
    Ack {
        archive: archive.parse().unwrap(),
        start,
        generations,
        births_wanted: Vec::new(),
    }
}

fn silence(archive: &str) -> Ack {
    Ack {
        archive: archive.parse().unwrap(),
        start: 1,
        generations: Vec::new(),
        births_wanted: Vec::new(),
    }
}

/// Connected and heard, with a birth and blocks up to `last`, all of it backlog but the newest.
fn with_backlog(last: u64) -> Delivery {
    let mut delivery = delivery();
    delivery.on_held(run(5, 1, 1, RecordKind::Birth));
    delivery.on_held(run(5, 2, last, RecordKind::Block));
    delivery.on_connected(0);
    delivery.on_ack(0, &silence("main"));
    delivery
}

fn all(delivery: &mut Delivery, now_ms: u64) -> Vec<Send> {
    std::iter::from_fn(|| delivery.poll(now_ms)).collect()
}

fn records(lane: Lane, seq_first: u64, seq_last: u64) -> Send {
    let (kind, schema) = (RecordKind::Block, 7);
    Send::Records {
        lane,
        kind,
        schema,
        generation: 5,
        seq_first,
        seq_last,
    }
}

fn birth_record() -> Send {
    let (lane, kind) = (Lane::Backlog, RecordKind::Birth);
    Send::Records {
        lane,
        kind,
        schema: 7,
        generation: 5,
        seq_first: 1,
        seq_last: 1,
    }
}

#[test]
fn findings_go_first_then_the_newest_then_the_backlog() {
    let mut delivery = with_backlog(10);
    delivery.on_held(run(5, 11, 11, RecordKind::Finding));
    delivery.on_held(run(5, 12, 12, RecordKind::Block));
    let sent = all(&mut delivery, 1);
    let finding = Send::Records {
        lane: Lane::Urgent,
        kind: RecordKind::Finding,
        schema: 0,
        generation: 5,
        seq_first: 11,
        seq_last: 11,
    };
    let live = [records(Lane::Live, 10, 10), records(Lane::Live, 12, 12)];
    assert_eq!(
        sent,
        [
            finding,
            Send::Births { schema: 7 },
            live[0],
            live[1],
            birth_record(),
            records(Lane::Backlog, 2, 9)
        ]
    );
}

#[test]
fn lanes_that_have_to_wait_are_not_sent_and_findings_and_losses_always_are() {
    let mut delivery = with_backlog(10);
    delivery.on_held(run(5, 11, 11, RecordKind::Finding));
    delivery.on_gap(HeldGap {
        generation: 5,
        seq_first: 1,
        seq_last: 2,
        reason: GapReason::QuotaAge,
    });
    delivery.set_last_lane(Lane::Urgent);
    let sent = all(&mut delivery, 1);
    assert!(
        matches!(sent[..], [Send::Gap { .. }, Send::Records { lane: Lane::Urgent, .. }]),
        "{sent:?}"
    );
    delivery.set_last_lane(Lane::Live);
    assert_eq!(
        all(&mut delivery, 2),
        [Send::Births { schema: 7 }, records(Lane::Live, 10, 10)]
    );
    delivery.set_last_lane(Lane::Backlog);
    assert_eq!(all(&mut delivery, 3), [records(Lane::Backlog, 3, 9)]);
}

#[test]
fn a_dead_archive_does_not_drain_the_spool() {
    let mut delivery = with_backlog(1_000);
    let sent = all(&mut delivery, 1);
    assert_eq!(sent.last(), Some(&records(Lane::Backlog, 2, 45)));
    assert_eq!(delivery.in_flight(), 46);
    delivery.on_held(run(5, 1_001, 1_010, RecordKind::Block));
    assert_eq!(
        all(&mut delivery, 2),
        [records(Lane::Live, 1_001, 1_004)],
        "the rest is kept for live records"
    );
    assert_eq!(delivery.in_flight(), 50);
}

#[test]
fn what_is_not_acknowledged_in_time_goes_again_ever_more_slowly() {
    let mut delivery = with_backlog(2);
    assert_eq!(all(&mut delivery, 1).len(), 3);
    assert_eq!(delivery.next_wake(1), 1 + MINUTE_MS);
    assert_eq!(all(&mut delivery, MINUTE_MS), []);
    assert_eq!(all(&mut delivery, 1 + MINUTE_MS).len(), 2);
    assert_eq!(delivery.next_wake(1 + MINUTE_MS), 1 + 3 * MINUTE_MS);
    delivery.on_ack(2 * MINUTE_MS, &ack("main", 1, 5, 1, &[]));
    assert_eq!(
        delivery.next_wake(2 * MINUTE_MS),
        1 + 2 * MINUTE_MS,
        "an acknowledgement ends the doubling"
    );
}

#[test]
fn nothing_goes_before_the_retained_acknowledgement_or_a_second() {
    let mut delivery = delivery();
    delivery.on_held(run(5, 1, 3, RecordKind::Block));
    delivery.on_connected(1_000);
    assert_eq!(delivery.poll(1_500), None);
    assert_eq!(delivery.next_wake(1_500), 2_000);
    delivery.on_ack(1_500, &ack("main", 1, 5, 0, &[(2, 3)]));
    assert_eq!(
        all(&mut delivery, 1_500),
        [Send::Births { schema: 7 }, records(Lane::Backlog, 1, 1)]
    );
    delivery.on_connected(5_000);
    assert_eq!(all(&mut delivery, 6_000).len(), 2);
}

#[test]
fn every_required_archive_must_have_a_record_before_it_is_deleted() {
    let archives = vec!["main".parse().unwrap(), "second".parse().unwrap()];
    let mut delivery = Delivery::new(DeliverySettings::new(archives, 1));
    delivery.on_held(run(5, 1, 9, RecordKind::Block));
    assert_eq!(delivery.on_ack(0, &ack("main", 1, 5, 9, &[])).release, None);
    let release = delivery.on_ack(0, &ack("second", 1, 5, 4, &[(6, 9)])).release;
    assert_eq!(release, Some(RecordId { generation: 5, seq: 4 }));
}

#[test]
fn an_unknown_archive_is_told_once_and_ignored() {
    let mut delivery = with_backlog(9);
    let outcome = delivery.on_ack(1, &ack("stranger", 1, 5, 9, &[]));
    assert_eq!(outcome.release, None);
    assert_eq!(
        outcome.problems,
        [AckProblem::UnknownArchive {
            archive: "stranger".parse().unwrap()
        }]
    );
    assert_eq!(
        delivery.on_ack(2, &ack("stranger", 1, 5, 9, &[])),
        AckOutcome::default()
    );
}

#[test]
fn an_acknowledgement_of_what_was_never_written_is_told_and_never_obeyed() {
    let mut delivery = with_backlog(9);
    let outcome = delivery.on_ack(1, &ack("main", 1, 5, 12, &[]));
    let archive = "main".parse().unwrap();
    assert_eq!(outcome.release, None);
    assert_eq!(
        outcome.problems,
        [AckProblem::SpoolRewound {
            archive,
            generation: 5,
            acknowledged: 12,
            last: 9
        }]
    );
    delivery.on_held(run(5, 10, 20, RecordKind::Block));
    assert_eq!(
        delivery.on_ack(2, &ack("main", 1, 5, 12, &[])),
        AckOutcome::default(),
        "not even later"
    );
}

#[test]
fn a_disputed_generation_does_not_block_the_next_one() {
    let mut delivery = with_backlog(100);
    delivery.on_ack(1, &ack("main", 1, 5, 1_000, &[]));
    delivery.on_held(run(6, 1, 1, RecordKind::Birth));
    delivery.on_held(run(6, 2, 60, RecordKind::Block));
    let mut now_ms = 1;
    let mut of_next = 0;
    for _ in 0..20 {
        for send in all(&mut delivery, now_ms) {
            if let Send::Records {
                generation: 6,
                seq_last,
                ..
            } = send
            {
                of_next = of_next.max(seq_last);
                delivery.on_ack(now_ms, &ack("main", 1, 6, of_next, &[]));
            }
        }
        now_ms += MINUTE_MS;
    }
    assert_eq!(of_next, 60);
}

/// After the image of a store's disk was restored the spool stayed full for good: the center had more of a generation
/// than the image, and nothing behind that was ever deleted.
#[test]
fn a_disputed_generation_that_the_spool_dropped_holds_back_nothing() {
    let mut delivery = with_backlog(100);
    delivery.on_held(run(6, 1, 9, RecordKind::Block));
    let of_both = |through_seq| {
        let mut both = ack("main", 1, 5, through_seq, &[]);
        both.generations.extend(ack("main", 1, 6, 9, &[]).generations);
        both
    };
    assert_eq!(delivery.on_ack(1, &of_both(1_000)).release, None);
    delivery.on_gap(HeldGap {
        generation: 5,
        seq_first: 1,
        seq_last: 100,
        reason: GapReason::QuotaAge,
    });
    let release = delivery.on_ack(2, &of_both(1_000)).release;
    assert_eq!(release, Some(RecordId { generation: 6, seq: 9 }));
    assert_eq!(delivery.poll(3), None);
}

/// A record that two connections refused was deleted on the word of an archive that claimed what was never written, and
/// no archive was told that it is lost.
#[test]
fn a_claim_on_what_is_being_written_settles_no_gap_either() {
    let mut delivery = with_backlog(9);
    delivery.on_gap(HeldGap {
        generation: 5,
        seq_first: 1,
        seq_last: 1,
        reason: GapReason::Refused,
    });
    assert_eq!(delivery.on_ack(1, &ack("main", 1, 5, 0, &[(2, 6)])).release, None);
    assert_eq!(delivery.on_ack(2, &ack("main", 1, 5, 12, &[])).release, None);
    delivery.on_held(run(6, 1, 1, RecordKind::Block));
    assert_eq!(delivery.on_ack(3, &ack("main", 1, 6, 1, &[])).release, None);
}

#[test]
fn a_restored_archive_gets_again_what_is_still_held() {
    let mut delivery = with_backlog(9);
    all(&mut delivery, 1);
    assert_eq!(
        delivery.on_ack(2, &ack("main", 1, 5, 2, &[(4, 9)])).release,
        Some(RecordId { generation: 5, seq: 2 })
    );
    let outcome = delivery.on_ack(10, &ack("main", 2, 5, 1, &[]));
    assert_eq!(
        outcome.problems,
        [AckProblem::Restarted {
            archive: "main".parse().unwrap()
        }]
    );
    assert_eq!(
        all(&mut delivery, 11),
        [Send::Births { schema: 7 }, records(Lane::Live, 9, 9)],
        "the backlog waits for its turn"
    );
    let at = delivery.next_wake(11);
    assert!((11..=10 + MINUTE_MS).contains(&at));
    assert_eq!(
        all(&mut delivery, at),
        [records(Lane::Backlog, 3, 8)],
        "what was sent after it began anew is not lost with what was before"
    );
}

/// Each cut of a link sent everything twice that was in flight, though it had arrived.
#[test]
fn what_was_in_flight_when_its_connection_ended_waits_for_its_acknowledgement_and_new_records_do_not() {
    let mut delivery = with_backlog(10);
    assert_eq!(all(&mut delivery, 1).len(), 4);
    delivery.on_disconnected();
    delivery.on_held(run(5, 11, 11, RecordKind::Block));
    delivery.on_connected(100);
    delivery.on_ack(100, &silence("main"));
    assert_eq!(
        all(&mut delivery, 100),
        [Send::Births { schema: 7 }, records(Lane::Live, 11, 11)]
    );
    delivery.on_ack(900, &ack("main", 1, 5, 7, &[(10, 11)]));
    assert_eq!(delivery.next_wake(900), 1 + ACK_DOUBT_MS);
    assert_eq!(all(&mut delivery, 1 + ACK_DOUBT_MS), [records(Lane::Backlog, 8, 9)]);
    assert_eq!(
        delivery.next_wake(1 + ACK_DOUBT_MS),
        1 + ACK_DOUBT_MS + MINUTE_MS,
        "a lost connection says nothing about the archive"
    );
}

#[test]
fn losses_are_told_before_all_else_and_hold_until_acknowledged() {
    let mut delivery = with_backlog(9);
    delivery.on_gap(HeldGap {
        generation: 5,
        seq_first: 1,
        seq_last: 6,
        reason: GapReason::QuotaAge,
    });
    let gap = Send::Gap {
        generation: 5,
        seq_first: 1,
        seq_last: 6,
        reason: GapReason::QuotaAge,
    };
    assert_eq!(delivery.oldest_held(5), Some(1));
    assert_eq!(all(&mut delivery, 1)[0], gap);
    assert_eq!(delivery.on_ack(2, &ack("main", 1, 5, 0, &[(7, 9)])).release, None);
    assert_eq!(
        delivery.on_ack(2, &ack("main", 1, 5, 9, &[])).release,
        Some(RecordId { generation: 5, seq: 9 })
    );
}

#[test]
fn a_message_that_is_too_large_goes_in_halves_and_a_record_that_is_waits() {
    let mut delivery = with_backlog(10);
    let sent = all(&mut delivery, 1);
    assert_eq!(delivery.on_refused(2, sent.last().unwrap(), Refusal::TooLarge), None);
    assert_eq!(
        all(&mut delivery, 2),
        [records(Lane::Backlog, 2, 5), records(Lane::Backlog, 6, 9)]
    );
    assert_eq!(
        delivery.on_refused(3, &records(Lane::Live, 10, 10), Refusal::TooLarge),
        None
    );
    assert_eq!(all(&mut delivery, 3), []);
    assert_eq!(delivery.parked(), 1);
    delivery.on_connected(4);
    assert!(all(&mut delivery, 2_000).contains(&records(Lane::Live, 10, 10)));
}

#[test]
fn a_record_that_two_connections_refuse_becomes_a_gap_and_holds_the_spool_no_longer() {
    let mut delivery = with_backlog(10);
    let large = records(Lane::Backlog, 4, 4);
    assert_eq!(delivery.on_refused(1, &large, Refusal::TooLarge), None);
    delivery.on_connected(2);
    let gap = HeldGap {
        generation: 5,
        seq_first: 4,
        seq_last: 4,
        reason: GapReason::Refused,
    };
    assert_eq!(delivery.on_refused(3, &large, Refusal::TooLarge), Some(gap));
    delivery.on_gap(gap);
    let told = Send::Gap {
        generation: 5,
        seq_first: 4,
        seq_last: 4,
        reason: GapReason::Refused,
    };
    assert_eq!(all(&mut delivery, 2_000)[0], told);
    let release = delivery.on_ack(2_001, &ack("main", 1, 5, 10, &[])).release;
    assert_eq!(release, Some(RecordId { generation: 5, seq: 10 }));
}

/// The gap waited for the next connection, and all that was behind it.
#[test]
fn a_parked_record_that_the_spool_drops_is_told_at_once() {
    let mut delivery = with_backlog(3);
    all(&mut delivery, 1);
    assert_eq!(
        delivery.on_refused(2, &records(Lane::Live, 3, 3), Refusal::TooLarge),
        None
    );
    delivery.on_gap(HeldGap {
        generation: 5,
        seq_first: 3,
        seq_last: 3,
        reason: GapReason::QuotaBytes,
    });
    let told = Send::Gap {
        generation: 5,
        seq_first: 3,
        seq_last: 3,
        reason: GapReason::QuotaBytes,
    };
    assert_eq!(all(&mut delivery, 3), [told]);
}

#[test]
fn a_denied_topic_pauses_and_the_others_go_on() {
    let mut delivery = with_backlog(3);
    let sent = all(&mut delivery, 1);
    assert_eq!(delivery.on_refused(2, &sent[1], Refusal::Denied), None);
    delivery.on_held(run(5, 4, 4, RecordKind::Block));
    delivery.on_held(run(5, 5, 5, RecordKind::Finding));
    assert!(matches!(
        all(&mut delivery, 3)[..],
        [Send::Records {
            kind: RecordKind::Finding,
            ..
        }]
    ));
    assert_eq!(all(&mut delivery, 2 + DENIED_PAUSE_MS)[0], records(Lane::Live, 3, 4));
}

#[test]
fn a_birth_that_is_asked_for_goes_again_once_in_a_while() {
    let mut delivery = with_backlog(2);
    all(&mut delivery, 1);
    let wanting = Ack {
        births_wanted: vec![7, 8],
        ..ack("main", 1, 5, 2, &[])
    };
    assert_eq!(delivery.on_ack(2, &wanting).resend_births, [8], "7 has just been sent");
    assert_eq!(all(&mut delivery, 2), [Send::Births { schema: 8 }]);
    assert_eq!(delivery.on_ack(2 * MINUTE_MS, &wanting).resend_births, [7, 8]);
}

/// A center that lost its archive read nothing until the next connection.
#[test]
fn an_archive_that_begins_anew_gets_the_births_again_before_the_blocks() {
    let mut delivery = with_backlog(3);
    all(&mut delivery, 1);
    delivery.on_ack(2, &ack("main", 1, 5, 1, &[]));
    assert_eq!(delivery.on_ack(3, &ack("main", 2, 5, 1, &[])).problems.len(), 1);
    let later_ms = 3 + delivery.settings().rewind_jitter_ms;
    assert_eq!(
        all(&mut delivery, later_ms),
        [
            Send::Births { schema: 7 },
            records(Lane::Live, 3, 3),
            records(Lane::Backlog, 2, 2)
        ]
    );
}

fn with_broker_enough(last: u64) -> Delivery {
    let mut delivery = Delivery::new(DeliverySettings {
        is_broker_enough: true,
        ..DeliverySettings::new(vec!["main".parse().unwrap()], 1)
    });
    delivery.on_held(run(5, 1, 1, RecordKind::Birth));
    delivery.on_held(run(5, 2, last, RecordKind::Block));
    delivery.on_connected(0);
    delivery
}

/// What the broker took first may be behind what it took later: live data goes before the backlog.
#[test]
fn where_the_broker_is_enough_what_it_took_is_released_in_the_order_of_the_spool() {
    let mut delivery = with_broker_enough(9);
    // No archive is waited for.
    let sent = all(&mut delivery, 0);
    assert_eq!(sent.last(), Some(&records(Lane::Backlog, 2, 8)), "{sent:?}");
    let released: Vec<_> = sent.iter().map(|what| delivery.on_published(1, what)).collect();
    let through = |seq| Some(RecordId { generation: 5, seq });
    let record_of = |what: &Send| {
        matches!(
            what,
            Send::Records {
                kind: RecordKind::Birth,
                ..
            }
        )
    };
    for (what, released) in sent.iter().zip(&released) {
        let expected = match what {
            what if record_of(what) => through(1),
            Send::Records {
                lane: Lane::Backlog, ..
            } => through(9),
            _ => None,
        };
        assert_eq!(*released, expected, "{what:?}");
    }
    assert_eq!((delivery.in_flight(), delivery.poll(1)), (0, None));
}

#[test]
fn where_the_broker_is_enough_what_it_did_not_take_is_sent_again_and_no_archive_is_heard() {
    let mut delivery = with_broker_enough(4);
    let first = all(&mut delivery, 0);
    let outcome = delivery.on_ack(0, &ack("main", 1, 5, 4, &[]));
    assert_eq!(outcome, AckOutcome::default());
    delivery.on_connected(1);
    assert_eq!(all(&mut delivery, 1), first);
}

#[test]
fn where_archives_are_asked_the_brokers_word_releases_nothing() {
    let mut delivery = with_backlog(4);
    let sent = all(&mut delivery, 0);
    assert!(!sent.is_empty());
    for what in &sent {
        assert_eq!(delivery.on_published(1, what), None);
    }
    assert!(delivery.in_flight() > 0);
}
