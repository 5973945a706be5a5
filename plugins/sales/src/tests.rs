//! Golden cases, the doors held against broken input, and what an agent does: stop, start, give a document again.

use std::collections::BTreeMap;
use std::hint::black_box;

use tillwatch_sdk::testing::{FileHost, golden, mutated, shown_settings};
use tillwatch_sdk::{MetricId, Values};

use super::*;

const NOW_MS: u64 = 1_772_451_000_000;
const REAL: &[u8] = include_bytes!("../testcases/poslog_2_1/transactions/ncr_acs_2.1_small.xml");
const LATE_HEADER: &[u8] = include_bytes!("../testcases/poslog_6_0/transactions/0001.xml");
const BASKETS: &[u8] = include_bytes!("../testcases/poslog_2_2/transactions/0001.xml");

pub(crate) fn rules(settings: Settings) -> Rules {
    Rules::new(&settings).unwrap()
}

/// What each transaction of a document counts as.
pub(crate) fn transactions(document: &str, rules: &Rules) -> Vec<Result<Outcome, Wrong>> {
    Poslog::new(document, rules)
        .map(|draft| draft?.read(rules).outcome)
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
        assert_eq!((counted, again), if name == "a.xml" { (1, 0) } else { (0, 1) });
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
            let reading = draft.read(&rules);
            black_box(reading.key);
            read_well += usize::from(reading.outcome.is_ok());
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
    let (mapping, rules) = (Mapping::new(&settings()), rules(settings()));
    let outcomes = mutated(&corpus, 0x11e5, 20_000).map(|line| mapping.read_json(&line, &rules).outcome);
    let read_well = outcomes
        .filter(|outcome| matches!(outcome, Ok(Outcome::Sale(_))))
        .count();
    assert!(read_well > 500, "only {read_well} mutated lines could still be read");
}

/// Sums of everything but the ages, by metric and labels.
fn sums(batches: &[Batch]) -> BTreeMap<(usize, Vec<String>), i64> {
    let mut sums = BTreeMap::new();
    for series in batches.iter().flat_map(Batch::series) {
        if series.metric == metric::SALES_LAST_TRANSACTION_AGE {
            continue;
        }
        let key = (usize::from(series.metric.index()), series.labels.clone());
        if let Values::Integers(values) = &series.values {
            *sums.entry(key).or_insert(0) += values.iter().sum::<i64>();
        }
    }
    sums
}

const ITEMS: &str = "time,till,number,total,item,tender\n\
    2026-03-02T11:30:00Z,3,1,\"1,019.99\",2,cash\n\
    2026-03-02T11:30:00Z,3,1,\"1,019.99\",1,cash\n\
    2026-03-02T11:31:00Z,4,1,5.00,1,card\n\
    broken\n\
    {\"time\":1772451120,\"till\":3,\"number\":2,\"total\":2.5,\"item\":4}\n\
    2026-03-02T11:33:00Z,3,2,2.50,1,card\n\
    2026-03-02T11:33:00Z,3,3,-7.77,1,card\n";

fn items_settings() -> Settings {
    Settings {
        rows: RowsAre::Parts,
        field_items: "item".to_owned(),
        field_lane: "till".to_owned(),
        field_transaction: "number".to_owned(),
        ..Settings::default()
    }
}

/// A restart after each of the calls, too.
#[test]
fn splitting_lines_between_calls_and_restarts_changes_nothing() {
    let lines: Vec<&str> = ITEMS.split_inclusive('\n').collect();
    let read = |cuts: &[usize]| {
        let mut host = FileHost::new(NOW_MS);
        let mut batches = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([lines.len()]) {
            host.append_lines(super::LINES, lines[from..cut].concat().as_bytes());
            from = cut;
            let mut sales = Sales::new(items_settings(), &mut host).unwrap();
            batches.extend(tillwatch_sdk::testing::collect_all(&mut sales, &mut host).unwrap());
            host.commit();
        }
        sums(&batches)
    };
    let whole = read(&[]);
    assert_eq!(
        whole[&(usize::from(metric::SALES_AMOUNT.index()), vec![])],
        101_999 + 500 + 250 - 777
    );
    assert_eq!(
        whole[&(usize::from(metric::SALES_ITEMS.index()), vec![])],
        2 + 1 + 1 + 4 + 1
    );
    assert_eq!(whole[&(usize::from(metric::SALES_TRANSACTIONS.index()), vec![])], 4);
    for first in 0..lines.len() {
        for second in first..lines.len() {
            assert_eq!(read(&[first, second]), whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn the_age_of_the_last_sale_is_told_while_the_store_is_open() {
    let ages = |opening_hours: &str, opening_days: &[&str]| {
        let mut host = FileHost::new(NOW_MS);
        host.append_lines(super::LINES, b"{\"time\":1772450970,\"total\":1,\"till\":\"3\"}\n");
        let settings = Settings {
            field_lane: "till".to_owned(),
            opening_hours: opening_hours.to_owned(),
            opening_days: opening_days.iter().map(|day| (*day).to_owned()).collect(),
            ..Settings::default()
        };
        let batch = Sales::new(settings, &mut host).unwrap().collect(&mut host).unwrap();
        let ages = batch
            .series()
            .iter()
            .filter(|series| series.metric == metric::SALES_LAST_TRANSACTION_AGE);
        ages.map(|series| (series.labels.clone(), series.values.clone()))
            .collect::<Vec<_>>()
    };
    // 2026-03-02, a Monday, 11:30 UTC.
    let told = vec![(vec!["3".to_owned()], Values::Integers(vec![30]))];
    assert_eq!(ages("00:00-24:00", &["mon"]), told);
    assert_eq!(ages("11:30-12:00", &["mon"]), told);
    assert_eq!(ages("11:31-12:00", &["mon"]), []);
    assert_eq!(ages("00:00-24:00", &["tue"]), []);
}

/// A transaction that is committed late has a smaller key than the last one that was read.
#[test]
fn a_row_that_is_committed_late_is_found_and_the_others_count_once() {
    let mut host = FileHost::new(NOW_MS);
    let answer = |ids: &[i64]| {
        let column = |name: &str, values| tillwatch_sdk::Column {
            name: name.to_owned(),
            values,
        };
        let values = |value: i64| tillwatch_sdk::ColumnValues::Integers(vec![Some(value); ids.len()]);
        let ids = tillwatch_sdk::ColumnValues::Integers(ids.iter().copied().map(Some).collect());
        let (more, elapsed_us) = (false, 1);
        let columns = vec![
            column("id", ids),
            column("time", values(1_772_451_000)),
            column("total", values(5)),
        ];
        tillwatch_sdk::Table {
            columns,
            more,
            elapsed_us,
        }
    };
    let settings = Settings {
        cursor_overlap: 10,
        field_items: String::new(),
        field_tender: String::new(),
        ..Settings::default()
    };
    let mut count = 0;
    for ids in [&[1, 3, 4][..], &[1, 2, 3, 4], &[2, 3, 4]] {
        host.answer_sql(QUERY, Ok(answer(ids)));
        let mut sales = Sales::new(settings.clone(), &mut host).unwrap();
        let batch = sales.collect(&mut host).unwrap();
        host.commit();
        count += sum(&batch, metric::SALES_TRANSACTIONS);
        assert_eq!(sum(&batch, metric::SALES_DUPLICATES), 0);
        assert_eq!(sales.ledger.kept.query_at, Some(kept::At::Integer(4)));
    }
    assert_eq!(count, 4);
}

/// Whatever lies in the folder, whatever the settings say that it is.
#[test]
fn any_bytes_in_any_format_never_panic() {
    let csv = include_bytes!("../testcases/csv_items/transactions/0001.csv");
    let heads = include_bytes!("../testcases/dsfinvk/transactions/transactions.csv");
    let lines = include_bytes!("../testcases/dsfinvk/transactions/lines.csv");
    let utf_16 = include_bytes!("../testcases/poslog_reality/transactions/0001.xml");
    let corpus: [&[u8]; 6] = [csv, heads, lines, utf_16, BASKETS, ITEMS.as_bytes()];
    let mut counted = 0;
    for (index, bytes) in mutated(&corpus, 0x00c5_f00d, 3_000).enumerate() {
        let format = [Format::Auto, Format::Csv, Format::Dsfinvk, Format::Json, Format::Poslog];
        let format = format[if index % 2 == 0 { 0 } else { index % 5 }];
        let settings = Settings {
            format,
            ..items_settings()
        };
        let mut host = FileHost::new(NOW_MS);
        host.add_file(TRANSACTIONS, "a", NOW_MS, &bytes);
        host.append_lines(super::LINES, &bytes);
        let mut sales = Sales::new(settings, &mut host).unwrap();
        if let Ok(batch) = sales.collect(&mut host) {
            counted += sum(&batch, metric::SALES_TRANSACTIONS);
        }
        sales.set.take();
    }
    assert!(
        counted > 1_000,
        "only {counted} transactions of mutated input could still be read"
    );
}
