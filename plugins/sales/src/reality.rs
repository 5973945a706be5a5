//! What real points of sale write, and what the store then sold: bytes in, sums out.
//!
//! Each test opens with what went wrong before.

use std::collections::BTreeMap;

use tillwatch_sdk::testing::{FileHost, collect_all};
use tillwatch_sdk::{Column, ColumnValues, HttpResponse, Table, Values};

use super::*;

const NOW_MS: u64 = 1_772_451_000_000;

fn settings(json: &str) -> Settings {
    serde_json::from_str(json).unwrap()
}

/// All sums but the ages and zeros: `amount=1999 tender.amount{cash}=999 transactions=1`.
fn sums(batches: &[Batch]) -> String {
    let descriptor = descriptor();
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for series in batches.iter().flat_map(Batch::series) {
        if series.metric == metric::SALES_LAST_TRANSACTION_AGE {
            continue;
        }
        let name = &descriptor.metrics[usize::from(series.metric.index())].name;
        let name = name.trim_start_matches("sales.").trim_start_matches("source.");
        let label = series
            .labels
            .first()
            .map_or(String::new(), |label| format!("{{{label}}}"));
        let Values::Integers(values) = &series.values else {
            panic!("{name} is reported as integers")
        };
        *sums.entry(format!("{name}{label}")).or_default() += values.iter().sum::<i64>();
    }
    let told = sums.into_iter().filter(|(_, sum)| *sum != 0);
    let told: Vec<String> = told.map(|(name, sum)| format!("{name}={sum}")).collect();
    told.join(" ")
}

/// The next calls of a new instance, as after a restart.
fn call(json: &str, host: &mut FileHost) -> Vec<Batch> {
    let mut sales = Sales::new(settings(json), host).unwrap();
    let batches = collect_all(&mut sales, host).unwrap();
    host.commit();
    batches
}

fn documents(json: &str, documents: &[(&str, &[u8])]) -> String {
    let mut host = FileHost::new(NOW_MS);
    for (name, bytes) in documents {
        host.add_file(TRANSACTIONS, name, NOW_MS, bytes);
    }
    sums(&call(json, &mut host))
}

fn document(json: &str, text: &str) -> String {
    documents(json, &[("a", text.as_bytes())])
}

fn lines(json: &str, bytes: &[u8]) -> String {
    let mut host = FileHost::new(NOW_MS);
    host.append_lines(LINES, bytes);
    sums(&call(json, &mut host))
}

/// A transaction of POSLog; the body stands in its retail transaction.
fn transaction(attributes: &str, header: &str, status: &str, body: &str) -> String {
    let end = if header.contains("DateTime") {
        ""
    } else {
        "<EndDateTime>2026-03-02T11:30:00</EndDateTime>"
    };
    format!(
        "<Transaction {attributes}><RetailStoreID>1</RetailStoreID><WorkstationID>2</WorkstationID>{header}{end}\
         <RetailTransaction {status}>{body}</RetailTransaction></Transaction>"
    )
}

fn poslog(transactions: &[String]) -> String {
    document("{}", &format!("<POSLog>{}</POSLog>", transactions.concat()))
}

/// One sale without anything but this.
fn basket(body: &str) -> String {
    poslog(&[transaction("", "", "", body)])
}

fn grand(amount: &str) -> String {
    format!("<Total TotalType=\"TransactionGrandAmount\">{amount}</Total>")
}

fn paid(tender: &str, amount: &str) -> String {
    format!("<LineItem><Tender TenderType=\"{tender}\"><Amount>{amount}</Amount></Tender></LineItem>")
}

/// The agent refuses a state in which a card number might stand: half of all marks looked like one, and a restart then
/// counted rows twice.
#[test]
fn no_state_holds_digits_as_long_as_a_card_number() {
    let json = r#"{"rows":"parts","field_transaction":"number"}"#;
    let mut sales = Sales::new(settings(json), &mut FileHost::new(NOW_MS)).unwrap();
    let mut batch = Batch::default();
    let longest = |bytes: &[u8]| {
        let runs = bytes.split(|byte| !byte.is_ascii_digit()).map(<[u8]>::len);
        runs.max().unwrap_or(0)
    };
    sales.ledger.kept.query_at = Some(kept::At::Integer(4_111_111_111_111_111_110));
    for number in 0..10_000 {
        let row = format!("{{\"time\":1772451000,\"total\":1,\"number\":{number}}}");
        sales.push_row(
            sales.reader.mapping.read_json(row.as_bytes(), &sales.rules),
            &mut batch,
            0,
        );
        let kept = kept::Kept {
            lanes: lanes::Lanes::default(),
            ..sales.ledger.kept.clone()
        };
        let state = kept::encode(&kept, &[], &Seen::default());
        assert!(longest(&state) < 13, "{}", String::from_utf8_lossy(&state));
        assert_eq!(kept::decode(&state).unwrap().0, kept);
    }
}

/// A row without an amount, or of a type that does not count, closed the transaction: its other rows were lost.
#[test]
fn a_wrong_or_uncounted_row_inside_a_transaction_costs_itself_only() {
    let rows = "time,number,paid,tender\n\
        2026-03-02T11:30:00Z,77,10.00,CARD\n2026-03-02T11:30:00Z,77,,\n2026-03-02T11:30:00Z,77,9.99,CASH\n";
    let json = r#"{"rows":"parts","field_total":"","field_tender_amount":"paid","field_transaction":"number"}"#;
    assert_eq!(
        document(json, rows),
        "amount=1999 parse_errors{missing}=1 tender.amount{card}=1000 tender.amount{cash}=999 transactions=1"
    );
    let rows = "time,number,total,items,kind\n\
        2026-03-02T11:30:00Z,77,19.99,1,sale\n2026-03-02T11:30:00Z,77,19.99,1,comment\n2026-03-02T11:30:00Z,77,19.99,2,sale\n";
    let json = r#"{"rows":"parts","field_type":"kind","field_transaction":"number"}"#;
    assert_eq!(document(json, rows), "amount=1999 items=3 transactions=1");
    let rows = "time,number,total,items\n\
        2026-03-02T11:30:00Z,77,broken,1\n2026-03-02T11:30:00Z,77,19.99,2\n";
    let json = r#"{"rows":"parts","field_transaction":"number"}"#;
    assert_eq!(
        document(json, rows),
        "amount=1999 items=2 parse_errors{number}=1 transactions=1"
    );
}

/// Tills count training with their own numbers, and finish a suspended basket under its number.
#[test]
fn what_does_not_count_takes_no_number() {
    let number = "<SequenceNumber>12</SequenceNumber>";
    let training = transaction("TrainingModeFlag=\"true\"", number, "", &grand("60.00"));
    let suspended = transaction("", number, "TransactionStatus=\"Suspended\"", &grand("60.00"));
    let sold = transaction("", number, "", &grand("60.00"));
    assert_eq!(
        poslog(&[training, suspended.clone(), suspended, sold.clone()]),
        "amount=6000 transactions=1"
    );
    assert_eq!(poslog(&[sold.clone(), sold]), "amount=6000 duplicates=1 transactions=1");
}

/// The Dutch, German and Swiss way to write that there are no cents was read as a minus.
#[test]
fn dashes_for_cents_are_no_minus() {
    let total = |mark: &str, total: &str| {
        let json = format!("{{\"decimal_mark\":\"{mark}\",\"separator\":\";\"}}");
        document(&json, &format!("time;total\n2026-03-02T11:30:00Z;{total}\n"))
    };
    for (mark, text) in [
        (",", "12,-"),
        (",", "12,--"),
        (".", "12.-"),
        (".", "12.--"),
        (",", "12,\u{2013}"),
    ] {
        assert_eq!(total(mark, text), "amount=1200 transactions=1", "{text}");
    }
    assert_eq!(total(",", "1.234,-"), "amount=123400 transactions=1");
    assert_eq!(total(",", "-12,-"), "amount=-1200 returns=1 transactions=1");
    assert_eq!(total(",", "12,50-"), "amount=-1250 returns=1 transactions=1");
}

/// The agent refuses a batch of more than 100,000 samples, and with it the whole document.
#[test]
fn a_document_of_many_rows_is_folded_to_what_a_batch_may_hold() {
    let rows = 60_000_u64;
    let mut text = "time,total,items,tender\n".to_owned();
    for row in 0..rows {
        text.push_str(&format!("{},12.50,2,cash\n", NOW_MS / 1000 - row * 61));
    }
    let mut host = FileHost::new(NOW_MS);
    host.add_file(TRANSACTIONS, "a.csv", NOW_MS, text.as_bytes());
    let batches = call("{}", &mut host);
    assert!(batches.iter().all(|batch| batch.samples() <= 100_000));
    assert_eq!(
        sums(&batches),
        "amount=75000000 items=120000 tender.amount{cash}=75000000 transactions=60000"
    );
}

/// Words of vendors, in whatever case, counted as sales.
#[test]
fn statuses_and_flags_are_known_in_any_case() {
    let outcome = |attributes: &str, status: &str| {
        poslog(&[transaction(
            attributes,
            "",
            &format!("TransactionStatus=\"{status}\""),
            &grand("5.00"),
        )])
    };
    for attributes in [
        "CancelFlag=\"True\"",
        "CancelFlag=\"TRUE\"",
        "CancelFlag=\"Y\"",
        "VoidedFlag=\"yes\"",
        "VoidFlag=\"true\"",
    ] {
        assert_eq!(outcome(attributes, ""), "voids=1", "{attributes}");
    }
    for attributes in [
        "TrainingModeFlag=\"True\"",
        "SuspendedFlag=\"true\"",
        "SuspendFlag=\"1\"",
    ] {
        assert_eq!(outcome(attributes, ""), "", "{attributes}");
    }
    assert_eq!(
        outcome("SuspendedFlag=\"false\" VoidedFlag=\"False\"", "Finished"),
        "amount=500 transactions=1"
    );
    for status in ["VOIDED", "SES:LayawayPostVoided", "SES:ScalePostVoided"] {
        assert_eq!(outcome("", status), "voids=1", "{status}");
    }
    for status in [
        "SUSPENDED",
        "SES:ItemInfo",
        "SES:Scale",
        "SES:Moved",
        "SES:Ordered",
        "Parked",
        "NotStarted",
        "SuspendedCancelled",
    ] {
        assert_eq!(outcome("", status), "", "{status}");
    }
    let refund = "<LineItem><Tender TenderType=\"Cash\" TypeCode=\"REFUND\"><Amount>5.00</Amount></Tender></LineItem>";
    assert_eq!(
        basket(&format!("{refund}{}", grand("-5.00"))),
        "amount=-500 returns=1 tender.amount{cash}=-500 transactions=1"
    );
}

/// Bottles back for more than was bought: the total has no sign, a flag has it.
#[test]
fn a_negative_total_by_a_flag_is_negative() {
    let body = format!(
        "<LineItem><Return/></LineItem><LineItem><Sale/></LineItem>{}{}<SES:NegativeTotalFlag>true</SES:NegativeTotalFlag>",
        paid("Cash", "3.00"),
        grand("3.00")
    );
    assert_eq!(
        basket(&body),
        "amount=-300 items=1 returns=1 tender.amount{cash}=-300 transactions=1"
    );
    assert_eq!(
        basket(&body.replace(">true<", ">false<")),
        "amount=300 items=1 returns=1 tender.amount{cash}=300 transactions=1"
    );
}

#[test]
fn the_tenders_of_a_pure_return_are_turned_with_its_amount() {
    let body = format!(
        "<LineItem><Return><Quantity>1</Quantity></Return></LineItem>{}{}",
        paid("Cash", "9.99"),
        grand("9.99")
    );
    assert_eq!(
        basket(&body),
        "amount=-999 returns=1 tender.amount{cash}=-999 transactions=1"
    );
}

/// As POSLog 6.0 nests it.
#[test]
fn change_in_its_own_line_is_taken_off() {
    let body = format!(
        "{}<LineItem><TenderChange TypeCode=\"Refund\"><TenderChange TenderType=\"Cash\"><Amount Currency=\"EUR\">0.010</Amount>\
         </TenderChange></TenderChange></LineItem>",
        paid("Cash", "27.000")
    );
    for (body, amount) in [(format!("{body}{}", grand("26.990")), 2699), (body, 2699)] {
        assert_eq!(
            basket(&body),
            format!("amount={amount} tender.amount{{cash}}=2699 transactions=1")
        );
    }
}

#[test]
fn a_bare_ampersand_loses_nothing() {
    let sale = transaction("", "", "", &grand("5.00"));
    let broken = sale.replace(
        "<RetailTransaction >",
        "<RetailTransaction ><Description>Brot & Butter &c; 5 &#x;</Description>",
    );
    assert_eq!(poslog(&[sale.clone(), broken, sale]), "amount=1500 transactions=3");
}

#[test]
fn an_empty_or_broken_element_beside_the_total_costs_no_sale() {
    let empty = transaction("", "<CurrencyCode/>", "", &grand("5.00"));
    assert_eq!(poslog(&[empty]), "amount=500 transactions=1");
    let lower = transaction("", "<CurrencyCode>eur</CurrencyCode>", "", &grand("5.00"));
    assert_eq!(poslog(&[lower]), "amount=500 transactions=1");
    let total = "<Total TotalType=\"TransactionGrandAmount\" CurrencyCode=\"\">5.00</Total>";
    assert_eq!(basket(total), "amount=500 transactions=1");
    let total = "<Total TotalType=\"TransactionGrandAmount\"><Amount Currency=\"eur\">5.00</Amount></Total>";
    assert_eq!(basket(total), "amount=500 transactions=1");
    assert_eq!(
        basket(&format!("{}{}", paid("Cash", ""), grand("5.00"))),
        "amount=500 transactions=1"
    );
    assert_eq!(
        basket(&format!(
            "{}{}{}",
            paid("Cash", "1,0"),
            paid("Card", "4.00"),
            grand("5.00")
        )),
        "amount=500 parse_errors{number}=1 tender.amount{card}=400 transactions=1"
    );
    let void = paid("Cash", "1,0").replace("<LineItem>", "<LineItem VoidFlag=\"true\">");
    assert_eq!(basket(&format!("{void}{}", grand("5.00"))), "amount=500 transactions=1");
    assert_eq!(basket(&paid("Cash", "1,0")), "parse_errors{number}=1");
}

fn table(columns: &[(&str, ColumnValues)]) -> Table {
    let columns = columns.iter().map(|(name, values)| Column {
        name: (*name).to_owned(),
        values: values.clone(),
    });
    Table {
        columns: columns.collect(),
        more: false,
        elapsed_us: 1,
    }
}

fn integers(values: &[i64]) -> ColumnValues {
    ColumnValues::Integers(values.iter().copied().map(Some).collect())
}

fn texts(values: &[&str]) -> ColumnValues {
    ColumnValues::Texts(values.iter().map(|value| Some((*value).to_owned())).collect())
}

/// What polls of these tables come to, with a restart between.
fn polls(json: &str, tables: &[Table]) -> String {
    let mut host = FileHost::new(NOW_MS);
    let mut batches = Vec::new();
    for table in tables {
        host.answer_sql(QUERY, Ok(table.clone()));
        batches.extend(call(json, &mut host));
    }
    sums(&batches)
}

/// What is asked for again was wrong again at each poll.
#[test]
fn a_wrong_row_that_is_asked_for_again_is_wrong_once() {
    let answer = table(&[
        ("id", integers(&[1, 2, 3])),
        ("time", integers(&[1_772_451_000, 1_772_451_000, 5])),
        ("total", texts(&["5", "broken", "5"])),
    ]);
    assert_eq!(
        polls(r#"{"cursor_overlap":10}"#, &[answer.clone(), answer.clone(), answer]),
        "amount=500 parse_errors{time}=1 parse_errors{number}=1 transactions=1"
            .split(' ')
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    );
    let order = r#"[{"id":7,"date_order":"2026-03-02 11:30:00","amount_total":5.0,"amount_tax":0,"state":"paid",
        "config_id":[1,"Till"],"currency_id":[2,"USD"]}]"#;
    let mut host = FileHost::new(NOW_MS);
    let mut batches = Vec::new();
    for _ in 0..3 {
        for body in [order, "[]"] {
            let response = HttpResponse {
                status: 200,
                headers: vec![],
                body: body.as_bytes().to_vec(),
                elapsed_us: 1,
            };
            host.answer_http(ODOO, Ok(response));
        }
        batches.extend(call(r#"{"odoo_api":"json2"}"#, &mut host));
    }
    assert_eq!(sums(&batches), "parse_errors{currency}=1");
}

#[test]
fn parts_that_are_asked_for_again_are_no_duplicates() {
    let answer = |ids: &[i64], numbers: &[i64]| {
        table(&[
            ("id", integers(ids)),
            ("time", integers(&vec![1_772_451_000; ids.len()])),
            ("total", integers(&vec![5; ids.len()])),
            ("items", integers(&vec![1; ids.len()])),
            ("number", integers(numbers)),
        ])
    };
    let json = r#"{"rows":"parts","field_transaction":"number","cursor_overlap":10}"#;
    let first = answer(&[1, 2, 3], &[7, 7, 8]);
    let second = answer(&[1, 2, 3, 4, 5], &[7, 7, 8, 8, 9]);
    assert_eq!(
        polls(json, &[first.clone(), first, second]),
        "amount=1500 items=5 transactions=3"
    );
    // A row that does not count yet.
    let row = |kind: &str| {
        table(&[
            ("id", integers(&[1])),
            ("time", integers(&[1_772_451_000])),
            ("total", integers(&[5])),
            ("kind", texts(&[kind])),
        ])
    };
    let typed = r#"{"field_type":"kind","cursor_overlap":10}"#;
    let rows = [row("open"), row("sale"), row("sale")];
    assert_eq!(polls(typed, &rows), "amount=500 transactions=1");
    // The only transaction, asked for again while it is open.
    let open = answer(&[1, 2], &[7, 7]);
    assert_eq!(polls(json, &[open.clone(), open]), "amount=500 items=2 transactions=1");
}

/// A database orders texts by its collation, not by their bytes.
#[test]
fn a_query_goes_on_from_the_last_text_key() {
    let answer = table(&[
        ("id", texts(&["a1", "B2"])),
        ("time", integers(&[1_772_451_000, 1_772_451_000])),
        ("total", integers(&[5, 5])),
    ]);
    let mut host = FileHost::new(NOW_MS);
    for _ in 0..2 {
        host.answer_sql(QUERY, Ok(answer.clone()));
        call("{}", &mut host);
    }
    let asked = host.take_sql_questions().pop().unwrap().1;
    assert_eq!(asked, Some(Cursor::Text("B2".to_owned())));
}

fn times(json: &str, text: &str) -> Vec<u64> {
    let mut host = FileHost::new(NOW_MS);
    host.add_file(TRANSACTIONS, "a", NOW_MS, text.as_bytes());
    let batches = call(json, &mut host);
    let series = batches.iter().flat_map(Batch::series);
    let sold = series.filter(|series| series.metric == metric::SALES_TRANSACTIONS);
    sold.flat_map(|series| series.times_ms.clone()).collect()
}

/// From the end of March to the end of October all local times were an hour off.
#[test]
fn local_times_follow_summer_time() {
    for zone in ["CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berlin"] {
        let json = format!("{{\"time_zone\":\"{zone}\"}}");
        let text = "time;total\n02.07.2026 12:30;1\n02.03.2026 12:30;1\n";
        assert_eq!(times(&json, text), [1_782_988_200_000, 1_772_451_000_000], "{zone}");
        let json = format!("{{\"field_zones\":{{\"time\":\"{zone}\"}}}}");
        assert_eq!(times(&json, text), [1_782_988_200_000, 1_772_451_000_000], "{zone}");
    }
    let wrong = settings(r#"{"field_zones":{"sold_utc":"UTC"}}"#);
    assert!(Sales::new(wrong, &mut FileHost::new(NOW_MS)).is_err());
}

const DSFINVK: [(&str, &[u8]); 4] = [
    (
        "datapayment",
        include_bytes!("../testcases/dsfinvk/transactions/datapayment.csv"),
    ),
    ("lines", include_bytes!("../testcases/dsfinvk/transactions/lines.csv")),
    (
        "lines_vat",
        include_bytes!("../testcases/dsfinvk/transactions/lines_vat.csv"),
    ),
    (
        "transactions",
        include_bytes!("../testcases/dsfinvk/transactions/transactions.csv"),
    ),
];

/// The files of one export, changed, with a mark behind their names.
fn export(mark: &str, change: impl Fn(&str, String) -> String) -> Vec<(String, Vec<u8>)> {
    let files = DSFINVK.iter().map(|(name, bytes)| {
        let text = change(name, document_text(bytes).into_owned());
        (format!("{name}{mark}"), text.into_bytes())
    });
    files.collect()
}

fn exports(files: &[(String, Vec<u8>)]) -> String {
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    documents("{}", &files)
}

const EXPORTED: &str = "amount=7100 items=6 returns=1 tax=1134 tender.amount{card}=0 tender.amount{cash}=4600 \
    tender.amount{other}=3525 transactions=4 voids=1";

#[test]
fn two_exports_in_one_folder_are_joined_each_with_its_own() {
    let once = EXPORTED.replace("tender.amount{card}=0 ", "");
    assert_eq!(exports(&export("_01", |_, text| text)), once);
    let mut both = export("_01", |_, text| text);
    both.extend(export("_02", |_, text| text.replace("\";7;\"", "\";8;\"")));
    assert_eq!(
        exports(&both),
        "amount=14200 items=12 returns=2 tax=2268 tender.amount{cash}=9200 tender.amount{other}=7050 transactions=8 voids=2"
    );
}

/// What was read of an export was lost with the instance: its receipts were missing for ever.
#[test]
fn an_export_goes_on_where_an_instance_ended_in_its_midst() {
    let files = export("", |_, text| text);
    for first in 1..=files.len() {
        let mut host = FileHost::new(NOW_MS);
        let mut batches = Vec::new();
        for part in [&files[..first], &files[first..]] {
            for (name, bytes) in part {
                host.add_file(TRANSACTIONS, name, NOW_MS, bytes);
            }
            let mut sales = Sales::new(settings("{}"), &mut host).unwrap();
            batches.extend(collect_all(&mut sales, &mut host).unwrap());
        }
        assert_eq!(
            sums(&batches),
            EXPORTED.replace("tender.amount{card}=0 ", ""),
            "after {first} files"
        );
        // Of a set that was taken nothing stays behind.
        let mut sales = Sales::new(settings("{}"), &mut host).unwrap();
        host.set_now(NOW_MS + 11 * 60_000);
        assert_eq!(
            sums(&collect_all(&mut sales, &mut host).unwrap()),
            "",
            "after {first} files"
        );
    }
}

/// Floats, vouchers and deposits counted as revenue.
#[test]
fn an_export_in_part_counts_nothing_that_it_does_not_know() {
    let patient = |files: &[(String, Vec<u8>)]| {
        let mut host = FileHost::new(NOW_MS);
        for (name, bytes) in files {
            host.add_file(TRANSACTIONS, name, NOW_MS, bytes);
        }
        let mut sales = Sales::new(settings("{}"), &mut host).unwrap();
        let mut batches = collect_all(&mut sales, &mut host).unwrap();
        host.set_now(NOW_MS + 11 * 60_000);
        batches.extend(collect_all(&mut sales, &mut host).unwrap());
        sums(&batches)
    };
    let mut files = export("", |_, text| text);
    let lines_only: Vec<_> = [files[1].clone()].to_vec();
    let without_lines: Vec<_> = [files[3].clone()].to_vec();
    assert_eq!(patient(&without_lines), "parse_errors{missing}=5 voids=1");
    assert_eq!(patient(&lines_only), "parse_errors{missing}=7");
    // Without the amounts of lines, a receipt of revenue alone is known by its head.
    files.remove(2);
    assert_eq!(
        patient(&files),
        "items=1 parse_errors{missing}=2 returns=1 transactions=2 voids=1"
    );
    // A receipt with a line that cannot be read is wrong as a whole.
    let broken = export("", |name, text| match name {
        "lines_vat" => text.replace("\"b-2\";\"2\";1;-4,00", "\"b-2\";\"2\";1;minus"),
        _ => text,
    });
    assert_eq!(
        exports(&broken),
        "amount=3500 items=4 parse_errors{number}=1 returns=1 tax=559 tender.amount{other}=3525 transactions=3 voids=1"
    );
}

/// The standard has it as a text of up to fifty signs.
#[test]
fn a_lines_place_is_any_text() {
    let named = export("", |name, text| match name {
        "lines" | "lines_vat" => text.replace(";\"1\";", ";\"1-a\";").replace(";\"2\";", ";\"1-b\";"),
        _ => text,
    });
    assert_eq!(exports(&named), EXPORTED.replace("tender.amount{card}=0 ", ""));
}

#[test]
fn amounts_are_read_with_units_brackets_and_any_minus() {
    let total = |currency: &str, mark: &str, total: &str| {
        let json = format!("{{\"currency\":\"{currency}\",\"decimal_mark\":\"{mark}\"}}");
        document(&json, &format!("time\ttotal\n2026-03-02T11:30:00Z\t{total}\n"))
    };
    for (currency, mark, text, cents) in [
        ("USD", ".", "$1,234.50", 123_450),
        ("USD", ".", "-$5.00", -500),
        ("USD", ".", "$-5.00", -500),
        ("USD", ".", "($5.00)", -500),
        ("USD", ".", "12.50CR", -1250),
        ("EUR", ",", "12,50 \u{20ac}", 1250),
        ("EUR", ",", "EUR 12,50", 1250),
        ("EUR", ",", "\u{2212}5,00", -500),
        ("EUR", ",", "- 5,00", -500),
        ("EUR", ",", "12,50-\u{a0}\u{20ac}", -1250),
        ("EUR", ",", "12,-\u{202f}\u{20ac}", 1200),
        ("DKK", ",", "12,50 kr.", 1250),
        ("CHF", ".", "Fr. 12.50", 1250),
    ] {
        let returns = if cents < 0 { "returns=1 " } else { "" };
        assert_eq!(
            total(currency, mark, text),
            format!("amount={cents} {returns}transactions=1"),
            "{text}"
        );
    }
    for text in ["--5", "-(5)", "EUR EUR 5", "five", "5 apples", "5 5", "-5-", "- -5"] {
        assert_eq!(total("EUR", ".", text), "parse_errors{number}=1", "{text}");
    }
    for text in ["USD 12.50", "12.50 $", "\u{a3}12.50"] {
        assert_eq!(total("EUR", ".", text), "parse_errors{currency}=1", "{text}");
    }
}

#[test]
fn a_header_is_found_below_other_lines_in_any_case_and_again() {
    let text = "Umsatzbericht Filiale 12;;\n# exported 2026-03-02\nTime;Total\n2026-03-02T11:30:00Z;5\n\
        total;time\n6;2026-03-02T11:30:00Z\n";
    assert_eq!(document("{}", text), "amount=1100 transactions=2");
    assert_eq!(document("{}", "a;b\n1;2\n"), "parse_errors{syntax}=1");
}

/// Tills write returns with a negative number of items, and weighed items into the sum.
#[test]
fn the_number_of_items_costs_no_row() {
    let items = |total: &str, items: &str| {
        let row = format!("{{\"time\":1772451000,\"total\":{total},\"items\":{items}}}\n");
        lines("{}", row.as_bytes())
    };
    assert_eq!(items("-5.00", "-1"), "amount=-500 returns=1 transactions=1");
    assert_eq!(items("5.00", "-1"), "amount=500 transactions=1");
    assert_eq!(items("5.00", "1.5"), "amount=500 items=2 transactions=1");
    assert_eq!(
        items("5.00", "\"many\""),
        "amount=500 parse_errors{number}=1 transactions=1"
    );
}

/// A web order without begin and end is sent again with the time of the message.
#[test]
fn the_time_of_the_sale_wins_over_that_of_the_message() {
    let header = "<SequenceNumber>1</SequenceNumber>\
        <POSLogDateTime TypeCode=\"Transaction\">2018-12-25T01:27:59+08:00</POSLogDateTime>\
        <POSLogDateTime TypeCode=\"Message\">2018-12-27T13:11:39+08:00</POSLogDateTime>";
    let first = transaction("", header, "", &grand("5.00"));
    let again = first.replace("2018-12-27", "2018-12-28");
    let text = format!("<POSLog>{first}{again}</POSLog>");
    assert_eq!(times("{}", &text), [1_545_672_479_000]);
    assert_eq!(document("{}", &text), "amount=500 duplicates=1 transactions=1");
    let none = "<EndDateTime>0001-01-01T00:00:00</EndDateTime><BeginDateTime>2026-03-02T11:30:00</BeginDateTime>";
    assert_eq!(times("{}", &transaction("", none, "", &grand("5.00"))), [NOW_MS]);
}

#[test]
fn what_was_paid_in_foreign_money_counts_in_the_stores_own() {
    let amount = |amount: &str| {
        basket(&format!(
            "<LineItem><Tender TenderType=\"Cash\">{amount}</Tender></LineItem>{}",
            grand("50.00")
        ))
    };
    let counted = "amount=5000 tender.amount{cash}=5000 transactions=1";
    assert_eq!(
        amount("<Amount Currency=\"USD\" ForeignAmount=\"54.00\">50.00</Amount>"),
        counted
    );
    assert_eq!(
        amount(
            "<Amount Currency=\"USD\">50.00</Amount><ForeignCurrency><OriginalFaceAmount>54.00</OriginalFaceAmount></ForeignCurrency>"
        ),
        counted
    );
    let dropped = "<Amount Currency=\"USD\">54.00</Amount><TenderChange><Amount>1.00</Amount></TenderChange>";
    assert_eq!(amount(dropped), "amount=5000 transactions=1");
}

#[test]
fn items_are_counted_as_tills_write_them() {
    let items = |lines: &str| basket(&format!("{lines}{}", grand("9.00")));
    let line = |unit: &str, quantity: &str| {
        format!("<LineItem><Sale><Quantity UnitOfMeasureCode=\"{unit}\">{quantity}</Quantity></Sale></LineItem>")
    };
    assert_eq!(items(&line("EA", "-1.0000")), "amount=-900 returns=1 transactions=1");
    assert_eq!(
        items(&format!("{}{}", line("EA", "-1.0000"), line("EA", "2"))),
        "amount=900 items=2 returns=1 transactions=1"
    );
    for unit in ["PCE", "UN", "C62", "H87", "ST", "each", "NAR"] {
        assert_eq!(items(&line(unit, "3")), "amount=900 items=3 transactions=1", "{unit}");
    }
    assert_eq!(items(&line("KGM", "3")), "amount=900 items=1 transactions=1");
    let weighed = "<LineItem acs:weightItem=\"true\"><Sale><Quantity>2.00</Quantity></Sale></LineItem>";
    assert_eq!(items(weighed), "amount=900 items=1 transactions=1");
    let linked = "<LineItem><SequenceNumber>2</SequenceNumber><Sale><Quantity>2</Quantity></Sale></LineItem>\
        <LineItem><SequenceNumber>3</SequenceNumber><Sale><Quantity>4</Quantity></Sale></LineItem>\
        <LineItem VoidFlag=\"true\"><SequenceNumber>4</SequenceNumber><Sale><ItemLink>3</ItemLink><Quantity>4</Quantity></Sale></LineItem>\
        <LineItem VoidFlag=\"true\"><SequenceNumber>5</SequenceNumber><Sale><ItemLink>4</ItemLink><Quantity>4</Quantity></Sale></LineItem>";
    assert_eq!(items(linked), "amount=900 items=2 transactions=1");
}

#[test]
fn times_of_integers_browsers_and_databases_are_read() {
    for (day, clock) in [
        ("20260302", "93005"),
        ("2.3.2026, 9:30:05", ""),
        ("2.3.2026, 9:30:05\u{202f}AM", ""),
        ("2026-03-02 09:30:05 UTC", ""),
        ("2026-03-02 09:30:05 GMT", ""),
        ("2.3.2026", "9:30:05\u{a0}AM"),
    ] {
        let text = format!("time\tclock\ttotal\n{day}\t{clock}\t5\n");
        let found = times(r#"{"field_clock":"clock"}"#, &text);
        assert_eq!(found, [1_772_443_805_000], "{day} {clock}");
    }
}

#[test]
fn json_is_read_as_tills_write_it() {
    let sale = r#"{"time":1772451000,"total":5}"#;
    let twice = "amount=1000 transactions=2";
    let marked = [b"\xef\xbb\xbf", sale.as_bytes(), b"\n", sale.as_bytes(), b"\n"].concat();
    assert_eq!(lines("{}", &marked), twice);
    let latin_1 = b"{\"time\":1772451000,\"total\":5,\"clerk\":\"J\xfcrgen\"}\n";
    assert_eq!(lines("{}", latin_1), "amount=500 transactions=1");
    for text in [
        format!("[{sale},{sale}]"),
        format!("[\n  {sale},\n  {sale}\n]\n"),
        format!("{sale}\r{sale}\r"),
        format!("{}\n{sale}", sale.replace(',', ",\n  ")),
    ] {
        assert_eq!(document("{}", &text), twice, "{text}");
    }
    assert_eq!(
        document("{}", &format!("{sale}\n{{broken\n{sale}\n")),
        "amount=1000 parse_errors{syntax}=1 transactions=2"
    );
}

/// A sale that is taken back by a later transaction stayed in the revenue.
#[test]
fn a_post_void_takes_its_sale_back() {
    let number = |number: u32| format!("<SequenceNumber>{number}</SequenceNumber>");
    let link = "<TransactionLink ReasonCode=\"Voided\"><SequenceNumber>100</SequenceNumber></TransactionLink>";
    let sold = transaction(
        "",
        &number(100),
        "",
        &format!("{}{}", paid("Cash", "35.00"), grand("35.00")),
    );
    let void = |body: &str| transaction("", &number(105), "TransactionStatus=\"PostVoided\"", body);
    let negative = void(&format!("{}{}", paid("Cash", "-35.00"), grand("-35.00")));
    assert_eq!(poslog(&[sold.clone(), negative]), "transactions=1 voids=1");
    let linked = void(&format!("{link}{}{}", paid("Cash", "35.00"), grand("35.00")));
    assert_eq!(poslog(&[sold.clone(), linked]), "transactions=1 voids=1");
    let of_itself = void(&format!("{}{}", link.replace("100", "105"), grand("35.00")));
    assert_eq!(
        poslog(&[sold, of_itself]),
        "amount=3500 tender.amount{cash}=3500 transactions=1 voids=1"
    );
}

/// One sale with a wrong clock kept its lane young until that date.
#[test]
fn a_sale_of_the_future_is_one_of_now() {
    let mut host = FileHost::new(NOW_MS);
    host.append_lines(LINES, b"{\"time\":1803987000,\"total\":1,\"till\":\"3\"}\n");
    let json = r#"{"field_lane":"till"}"#;
    call(json, &mut host);
    host.set_now(NOW_MS + 60_000);
    let batches = call(json, &mut host);
    let ages = batches.iter().flat_map(Batch::series);
    let ages: Vec<_> = ages
        .filter(|series| series.metric == metric::SALES_LAST_TRANSACTION_AGE)
        .map(|series| series.values.clone())
        .collect();
    assert_eq!(ages, [Values::Integers(vec![60])]);
}
