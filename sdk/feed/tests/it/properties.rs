//! What must hold for any input: merging, quantiles, ranges, round trips.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use tillwatch_feed::codec;
use tillwatch_feed::histogram::{BUCKETS_MAX, Histogram, RELATIVE_ERROR_MAX, SCALE_DEFAULT};
use tillwatch_feed::message::{Block, Body};
use tillwatch_feed::ranges::RangeSet;
use tillwatch_feed::summary::Summary;

use crate::arbitrary;

/// The same cases on each run; another number looks elsewhere.
const SEED: u64 = 20_260_601;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 256,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(SEED),
        ..ProptestConfig::default()
    }
}

fn histogram_of(values: &[f64]) -> Histogram {
    let mut histogram = Histogram::new();
    for value in values {
        histogram.record(*value);
    }
    histogram
}

/// Any finite number: of the size of things in a store, and now and then from the ends of the number line.
fn real() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -10.0..1e5,
        1 => prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
    ]
}

/// Latencies as stores have them: within the buckets of the default scale.
fn latency() -> impl Strategy<Value = f64> {
    (-7.0..6.0_f64).prop_map(|exponent| exponent.exp2())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn merging_in_any_order_is_the_histogram_of_the_union(
        parts in prop::collection::vec(prop::collection::vec(real(), 0..30), 1..8),
        order in prop::collection::vec(any::<Index>(), 8),
    ) {
        let union = histogram_of(&parts.concat());
        let mut left: Vec<Histogram> = parts.iter().map(|values| histogram_of(values)).collect();
        // A random tree: two at a time until one is left.
        let mut picks = order.iter().cycle();
        while left.len() > 1 {
            let one = left.swap_remove(picks.next().unwrap().index(left.len()));
            let other = picks.next().unwrap().index(left.len());
            left[other].merge(&one);
        }
        prop_assert_eq!(&left[0], &union);
        prop_assert!(union.positive().counts().len() <= BUCKETS_MAX && union.negative().counts().len() <= BUCKETS_MAX);
        prop_assert_eq!(union.count(), u64::try_from(parts.concat().len()).unwrap());
    }

    #[test]
    fn quantiles_are_within_their_error(
        mut values in prop::collection::vec(latency(), 1..400),
        q in 0.0..=1.0_f64,
    ) {
        let histogram = histogram_of(&values);
        prop_assert_eq!(histogram.scale(), SCALE_DEFAULT);
        values.sort_by(f64::total_cmp);
        let rank = (1..values.len()).find(|rank| (*rank as f64) >= q * values.len() as f64).unwrap_or(values.len());
        let exact = values[rank - 1];
        let error = (histogram.quantile(q).unwrap() / exact - 1.0).abs();
        prop_assert!(error <= RELATIVE_ERROR_MAX, "{error} at {q}");
    }

    #[test]
    fn summaries_merge_in_any_order(
        values in prop::collection::vec(-1_000_000_000_000..1_000_000_000_000_i64, 1..40),
        cut in any::<Index>(),
    ) {
        let of = |values: &[i64]| {
            let mut summary = Summary::with_histogram();
            for value in values {
                assert!(!summary.record(*value, *value as f64 / 100.0));
            }
            summary
        };
        let (front, back) = values.split_at(cut.index(values.len()));
        let (mut one, mut other) = (of(front), of(back));
        let union = of(&values);
        one.merge(&of(back));
        other.merge(&of(front));
        prop_assert_eq!(&one, &union);
        prop_assert_eq!(&other, &union);
    }

    #[test]
    fn a_range_set_agrees_with_a_set_of_numbers(
        inserts in prop::collection::vec((0..60_u64, 0..8_u64), 0..20),
        others in prop::collection::vec((0..60_u64, 0..8_u64), 0..6),
        (first, length) in (0..70_u64, 0..20_u64),
        through in 0..70_u64,
    ) {
        let build = |inserts: &[(u64, u64)]| {
            let set: RangeSet = inserts.iter().map(|(first, length)| (*first, first + length)).collect();
            let naive: BTreeSet<u64> = inserts.iter().flat_map(|(first, length)| *first..=first + length).collect();
            (set, naive)
        };
        let numbers = |set: &RangeSet| set.iter().flat_map(|(first, last)| first..=last).collect::<BTreeSet<u64>>();
        let (mut set, naive) = build(&inserts);
        let (other, other_naive) = build(&others);
        let last = first + length;

        prop_assert_eq!(numbers(&set), naive.clone());
        prop_assert!(set.iter().zip(set.iter().skip(1)).all(|(a, b)| a.1 + 1 < b.0), "ranges touch: {:?}", set);
        prop_assert_eq!(set.contains(first), naive.contains(&first));
        prop_assert_eq!(set.contains_all(first, last), (first..=last).all(|n| naive.contains(&n)));
        let missing: Vec<u64> = set.missing_in(first, last).into_iter().flat_map(|(a, b)| a..=b).collect();
        prop_assert_eq!(missing, (first..=last).filter(|n| !naive.contains(n)).collect::<Vec<_>>());
        prop_assert_eq!(set.through(), (1..).take_while(|n| naive.contains(n)).last().unwrap_or(0));
        prop_assert_eq!(set.count(), u64::try_from(naive.len()).unwrap());
        prop_assert_eq!((set.first(), set.last()), (naive.first().copied(), naive.last().copied()));
        prop_assert_eq!(numbers(&set.intersect(&other)), naive.intersection(&other_naive).copied().collect());
        set.remove_through(through);
        prop_assert_eq!(numbers(&set), naive.into_iter().filter(|n| *n > through).collect());
    }

    #[test]
    fn every_message_survives_the_wire(message in arbitrary::message()) {
        let payload = codec::encode(&message);
        prop_assert_eq!(codec::decode(&payload), Ok(message.clone()));
        let spooled = codec::encode_body(&message.body);
        prop_assert_eq!(codec::decode_body(&spooled), Ok(message.body));
    }

    #[test]
    fn joined_blocks_say_what_each_of_them_said(blocks in prop::collection::vec(arbitrary::block(), 1..6)) {
        let joined = Block::join(blocks.clone()).unwrap();
        let decoded = codec::decode_body(&codec::encode_body(&Body::Block(joined))).unwrap();
        let Body::Block(decoded) = decoded else { return Err(TestCaseError::fail("not a block")) };
        let said: Vec<_> = blocks.iter().flat_map(|block| block.intervals.clone()).collect();
        prop_assert_eq!(decoded.intervals, said);
        prop_assert_eq!(decoded.records, blocks.iter().flat_map(|block| block.records.clone()).collect::<Vec<_>>());
    }

    #[test]
    fn controls_survive_the_wire(
        (state, ack, config) in (arbitrary::state(), arbitrary::ack(), arbitrary::config()),
    ) {
        prop_assert_eq!(codec::decode_state(&codec::encode_state(&state)), Ok(state));
        prop_assert_eq!(codec::decode_ack(&codec::encode_ack(&ack)), Ok(ack));
        prop_assert_eq!(codec::decode_config(&codec::encode_config(&config)), Ok(config));
    }
}
