//! Golden cases, the doors held against broken input, and what an agent does: stop, start, give a document again.

use std::hint::black_box;

use tillwatch_sdk::testing::{FileHost, golden, mutated, shown_settings};
use tillwatch_sdk::{MetricId, Values};

use super::*;

const NOW_MS: u64 = 1_772_451_000_000;
const REAL: &[u8] = include_bytes!("../testcases/poslog_2_1/transactions/ncr_acs_2.1_small.xml");
const LATE_HEADER: &[u8] = include_bytes!("../testcases/poslog_6_0/transactions/0001.xml");
const BASKETS: &[u8] = include_bytes!("../testcases/poslog_2_2/transactions/0001.xml");

pub(crate) fn rules(settings: Settings) -> Rules {
    Rules {
        currency: Currency::new(&settings.currency).unwrap(),
        local: settings.time_zone,
        tenders: Tenders::new(settings.tenders),
    }
}

/// What each transaction of a document counts as.
pub(crate) fn transactions(document: &str, rules: &Rules) -> Vec<Result<Outcome, Wrong>> {
    Poslog::new(document, rules)
        .map(|draft| draft?.outcome(rules))
        .collect()
}

fn sum(batch: &Batch, metric: MetricId) -> i64 {
    let values = batch
        .series()
        .iter()
        .filter(|series| series.metric == metric)
        .map(|series| match &series.values {
            Values::Integers(values) => values.iter().sum::<i64>(),
            Values::Reals(_) => panic!("{metric:?} is reported as integers"),
        });
    values.sum()
}

fn dollars() -> Settings {
    Settings {
        currency: "USD".to_owned(),
        ..Settings::default()
    }
}

#[test]
fn the_settings_shown_are_the_settings_taken() {
    let default = Settings::default();
    assert_eq!(shown_settings::<Settings>("."), [default.clone(), default]);
}

#[test]
fn golden_cases_come_out_as_written() {
    golden::<Sales>(&descriptor(), "testcases");
}

#[test]
fn the_metrics_are_in_the_configured_currency() {
    let settings = Settings {
        currency: "JPY".to_owned(),
        ..Settings::default()
    };
    let sales = Sales::new(settings, &mut FileHost::new(NOW_MS)).unwrap();
    let mut descriptor = descriptor();
    sales.describe(&mut descriptor);
    let money = |metric: MetricId| {
        let metric = descriptor.metrics.get(usize::from(metric.index())).unwrap();
        (metric.currency.as_deref(), metric.decimals)
    };
    assert_eq!(money(metric::SALES_AMOUNT), (Some("JPY"), 0));
    assert_eq!(money(metric::SALES_TENDER_AMOUNT), (Some("JPY"), 0));
    assert_eq!(money(metric::SALES_TRANSACTIONS), (None, 0));
}

#[test]
fn a_document_that_comes_again_counts_once_also_after_a_restart() {
    let mut host = FileHost::new(NOW_MS);
    for name in ["a.xml", "b.xml"] {
        host.add_file(TRANSACTIONS, name, NOW_MS, REAL);
        let mut sales = Sales::new(dollars(), &mut host).unwrap();
        let batch = sales.collect(&mut host).unwrap();
        host.commit();
        let (counted, again) = (
            sum(&batch, metric::SALES_TRANSACTIONS),
            sum(&batch, metric::SALES_DUPLICATES),
        );
        assert_eq!((counted, again), if name == "a.xml" { (1, 0) } else { (0, 2) });
    }
}

#[test]
fn a_document_that_was_cut_off_counts_up_to_the_cut() {
    let text = std::str::from_utf8(REAL).unwrap();
    let rules = rules(dollars());
    let whole = transactions(text, &rules);
    assert_eq!(
        (whole.len(), whole.iter().filter(|outcome| outcome.is_err()).count()),
        (2, 0)
    );
    let cut = transactions(&text[..text.len() - 200], &rules);
    assert_eq!(cut, [Ok(Outcome::Other), Err(Wrong::Syntax)]);
}

#[test]
fn what_is_no_poslog_is_told() {
    let outcomes = |document: &str| transactions(document, &rules(Settings::default()));
    for document in [
        "",
        "hello",
        "<a><b></a>",
        "<POSLog>",
        "</POSLog>",
        "<?xml version=\"1.0\"?>",
    ] {
        assert_eq!(outcomes(document), [Err(Wrong::Syntax)], "{document}");
    }
    assert_eq!(outcomes("<html/>"), []);
    assert_eq!(outcomes(&"<a>".repeat(100)), [Err(Wrong::Limit)]);
    let long = format!(
        "<Transaction><SequenceNumber>{}</SequenceNumber></Transaction>",
        "1".repeat(300)
    );
    assert_eq!(outcomes(&long), [Err(Wrong::Limit)]);
}

#[test]
fn many_attributes_and_entities_take_no_quadratic_time() {
    let attributes: String = (0..100_000).map(|number| format!(" a{number}=\"1\"")).collect();
    let document = format!(
        "<Transaction><RetailTransaction{attributes}>{}</RetailTransaction></Transaction>",
        "&amp;".repeat(100)
    );
    assert_eq!(
        transactions(&document, &rules(Settings::default())),
        [Err(Wrong::Missing)]
    );
}

#[test]
fn documents_beyond_one_calls_bound_come_in_the_next() {
    let mut host = FileHost::new(NOW_MS);
    for number in 0..(DOCUMENTS_MAX + 1) {
        let document = String::from_utf8(REAL.to_vec())
            .unwrap()
            .replace(">161<", &format!(">{}<", 1000 + number));
        host.add_file(TRANSACTIONS, &format!("{number:03}.xml"), NOW_MS, document.as_bytes());
    }
    let mut sales = Sales::new(dollars(), &mut host).unwrap();
    let first = sales.collect(&mut host).unwrap();
    assert!(first.more);
    assert_eq!(sum(&first, metric::SALES_TRANSACTIONS), 64);
    let second = sales.collect(&mut host).unwrap();
    assert_eq!((sum(&second, metric::SALES_TRANSACTIONS), second.more), (1, false));
}

#[test]
fn a_damaged_state_is_told_and_forgotten() {
    let mut host = FileHost::new(NOW_MS);
    host.set_state(&[9, 9, 9]).unwrap();
    host.add_file(TRANSACTIONS, "a.xml", NOW_MS, REAL);
    let mut sales = Sales::new(dollars(), &mut host).unwrap();
    assert_eq!(host.take_logs().len(), 1);
    assert_eq!(sum(&sales.collect(&mut host).unwrap(), metric::SALES_TRANSACTIONS), 1);
}

#[test]
fn mutated_documents_never_panic() {
    let rules = rules(dollars());
    let mut read_well = 0;
    for document in mutated(&[REAL, LATE_HEADER, BASKETS], 0x0050_0510, 4_000) {
        for draft in Poslog::new(&String::from_utf8_lossy(&document), &rules) {
            let Ok(draft) = draft else { continue };
            black_box(draft.key());
            read_well += usize::from(draft.outcome(&rules).is_ok());
        }
    }
    assert!(
        read_well > 1_000,
        "only {read_well} transactions of mutated documents could still be read"
    );
}

#[test]
fn mutated_lines_never_panic() {
    let log = include_bytes!("../testcases/json_lines/lines.jsonl");
    let corpus: Vec<&[u8]> = log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let settings = || Settings {
        field_type: "kind".to_owned(),
        field_total: "amount.gross".to_owned(),
        field_currency: "amount.currency".to_owned(),
        field_transaction: "number".to_owned(),
        ..Settings::default()
    };
    let (lines, rules) = (Lines::new(&settings()), rules(settings()));
    let outcomes = mutated(&corpus, 0x11e5, 20_000).map(|line| lines.read(&line, &rules));
    let read_well = outcomes
        .filter(|outcome| matches!(outcome, Ok((_, Outcome::Sale(_)))))
        .count();
    assert!(read_well > 500, "only {read_well} mutated lines could still be read");
}
