//! DSFinV-K 2.x, the German export of tills: several files that belong together, known by their columns.
//!
//! The receipt's head (`transactions.csv`), its lines (`lines.csv`), their amounts (`lines_vat.csv`) and payments
//! (`datapayment.csv`) come as documents in any order and are joined in memory within bounds. A set is whole when all four
//! are there; one that stays in part is read after a while by its heads alone.
//! Revenue is what the lines of the settings' `revenue_types` come to: no deposit, voucher, or money put into the drawer.
//! Source: Bundeszentralamt für Steuern, DSFinV-K 2.4, chapters 3.1 and 3.2, appendices B to D.

use std::collections::BTreeMap;

use tillwatch_sdk::parse::Wrong;

use crate::Rules;
use crate::csv::{Columns, Records};
use crate::number::{self, DecimalMark};
use crate::row::Reading;
use crate::seen::{Key, hash};
use crate::tender::Paid;
use crate::transaction::{Outcome, Sale};
use crate::when::{self, DateOrder};

/// Receipts and lines that wait for the rest of their set; more are wrong.
const RECEIPTS_MAX: usize = 20_000;
const LINES_MAX: usize = 100_000;
const FIELD_BYTES_MAX: usize = 64;
/// So long a set may stay in part.
const PATIENCE_MS: u64 = 10 * 60_000;
const ITEMS_MAX: i64 = 10_000;

const HEAD: [&str; 9] = [
    "Z_KASSE_ID",
    "Z_NR",
    "BON_ID",
    "BON_NR",
    "BON_TYP",
    "TERMINAL_ID",
    "BON_START",
    "BON_ENDE",
    "UMS_BRUTTO",
];
const LINE: [&str; 6] = ["Z_KASSE_ID", "Z_NR", "BON_ID", "POS_ZEILE", "GV_TYP", "MENGE"];
const LINE_AMOUNT: [&str; 6] = ["Z_KASSE_ID", "Z_NR", "BON_ID", "POS_ZEILE", "POS_BRUTTO", "POS_UST"];
const PAYMENT: [&str; 6] = [
    "Z_KASSE_ID",
    "Z_NR",
    "BON_ID",
    "ZAHLART_TYP",
    "ZAHLART_NAME",
    "BASISWAEH_BETRAG",
];

/// Whether a text is one of the set's files, also one that is not read.
pub(crate) fn is_one(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.contains("Z_KASSE_ID") && first.contains("Z_NR")
}

/// What was read and is not yet whole.
#[derive(Default)]
pub(crate) struct Set {
    heads: BTreeMap<u64, Head>,
    lines: BTreeMap<(u64, u32), Line>,
    paid: BTreeMap<u64, Paid>,
    /// Heads, lines, amounts, payments.
    has: [bool; 4],
    since_ms: u64,
}

struct Head {
    key: Key,
    lane: String,
    kind: Kind,
    time_ms: Result<u64, Wrong>,
    gross_minor: Result<i64, Wrong>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Receipt,
    Void,
    Other,
}

#[derive(Default)]
struct Line {
    is_revenue: bool,
    items: i64,
    gross_minor: i64,
    tax_minor: i64,
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        self.has == [false; 4]
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.has == [true; 4]
    }

    /// Whether all is there, or nobody waits for the rest any more.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.is_whole() || (!self.is_empty() && now_ms.saturating_sub(self.since_ms) >= PATIENCE_MS)
    }

    /// Takes a file in; says what was wrong with its rows.
    pub(crate) fn add(&mut self, text: &str, rules: &Rules, now_ms: u64, wrong: &mut impl FnMut(Wrong)) {
        let mut records = Records::new(text, None);
        let Some(Ok(header)) = records.next() else { return };
        let set = records.separator;
        // Lines have POS_ZEILE and GV_TYP, their amounts POS_ZEILE and POS_BRUTTO.
        if let Some(columns) = Columns::of_header(header, set, &HEAD, &[0, 1, 2, 4, 7]) {
            self.read(0, records, &columns, now_ms, wrong, |set, row| set.add_head(row, rules));
        } else if let Some(columns) = Columns::of_header(header, set, &LINE, &[0, 1, 2, 3, 4]) {
            self.read(1, records, &columns, now_ms, wrong, |set, row| set.add_line(row, rules));
        } else if let Some(columns) = Columns::of_header(header, set, &LINE_AMOUNT, &[0, 1, 2, 3, 4]) {
            self.read(2, records, &columns, now_ms, wrong, |set, row| {
                set.add_amount(row, rules)
            });
        } else if let Some(columns) = Columns::of_header(header, set, &PAYMENT, &[0, 1, 2, 3, 5]) {
            self.read(3, records, &columns, now_ms, wrong, |set, row| {
                set.add_payment(row, rules)
            });
        }
    }

    fn read<const N: usize>(
        &mut self,
        table: usize,
        mut records: Records<'_>,
        columns: &Columns<N>,
        now_ms: u64,
        wrong: &mut impl FnMut(Wrong),
        mut add: impl FnMut(&mut Self, [&str; N]) -> Result<(), Wrong>,
    ) {
        if let Some(has) = self.has.get_mut(table) {
            *has = true;
        }
        self.since_ms = now_ms;
        records.separator = Some(columns.separator);
        for record in records {
            let added = record.and_then(|record| {
                let fields = columns.read(record);
                add(
                    self,
                    fields
                        .each_ref()
                        .map(|field| field.as_deref().unwrap_or_default().trim_ascii()),
                )
            });
            added.unwrap_or_else(&mut *wrong);
        }
    }

    fn add_head(&mut self, row: [&str; 9], rules: &Rules) -> Result<(), Wrong> {
        let [till, closing, id, number, kind, terminal, start, end, gross] = row;
        if self.heads.len() >= RECEIPTS_MAX || row.iter().any(|field| field.len() > FIELD_BYTES_MAX) {
            return Err(Wrong::Limit);
        }
        let time = if end.is_empty() { start } else { end };
        let time_ms = when::parse(time, "", DateOrder::Dmy, rules.local);
        let day = time_ms.map_or(0, |time_ms| rules.hours.business_day(time_ms));
        let head = Head {
            key: Key::new(day, &[till, closing], if number.is_empty() { id } else { number }),
            lane: if terminal.is_empty() { till } else { terminal }.to_owned(),
            kind: match kind {
                "Beleg" => Kind::Receipt,
                "AVBelegabbruch" | "AVBelegstorno" => Kind::Void,
                _ => Kind::Other,
            },
            time_ms,
            gross_minor: minor(gross, rules),
        };
        self.heads.insert(hash(&[till, closing, id]), head);
        Ok(())
    }

    fn line(&mut self, till: &str, closing: &str, id: &str, line: &str) -> Result<&mut Line, Wrong> {
        let place = (hash(&[till, closing, id]), line.parse::<u32>().or(Err(Wrong::Number))?);
        if self.lines.len() >= LINES_MAX && !self.lines.contains_key(&place) {
            return Err(Wrong::Limit);
        }
        Ok(self.lines.entry(place).or_default())
    }

    fn add_line(&mut self, row: [&str; 6], rules: &Rules) -> Result<(), Wrong> {
        let [till, closing, id, place, kind, quantity] = row;
        let line = self.line(till, closing, id, place)?;
        line.is_revenue = rules.revenue_types.iter().any(|revenue| revenue == kind);
        if line.is_revenue && kind == "Umsatz" {
            // A weighed item is one; what is taken back was not sold.
            line.items = match amount(quantity).and_then(|quantity| quantity.whole()) {
                _ if quantity.starts_with('-') => 0,
                Ok(quantity) => quantity.min(ITEMS_MAX),
                Err(_weight) => 1,
            };
        }
        Ok(())
    }

    fn add_amount(&mut self, row: [&str; 6], rules: &Rules) -> Result<(), Wrong> {
        let [till, closing, id, place, gross, tax] = row;
        let (gross, tax) = (minor(gross, rules)?, minor(tax, rules).unwrap_or(0));
        // A line may have several rates.
        let line = self.line(till, closing, id, place)?;
        line.gross_minor = line.gross_minor.saturating_add(gross);
        line.tax_minor = line.tax_minor.saturating_add(tax);
        Ok(())
    }

    fn add_payment(&mut self, row: [&str; 6], rules: &Rules) -> Result<(), Wrong> {
        let [till, closing, id, kind, name, paid] = row;
        let receipt = hash(&[till, closing, id]);
        if self.paid.len() >= RECEIPTS_MAX && !self.paid.contains_key(&receipt) {
            return Err(Wrong::Limit);
        }
        let minor = minor(paid, rules)?;
        if kind != "Keine" {
            let tender = rules.tenders.own(name).unwrap_or_else(|| rules.tenders.of(kind));
            self.paid.entry(receipt).or_default().add(tender, minor);
        }
        Ok(())
    }

    /// What each receipt counts as; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<Result<Reading, Wrong>> {
        let set = std::mem::take(self);
        let has_lines = set.has.get(1..3) == Some(&[true, true]);
        let mut paid = set.paid;
        let lines = |receipt: u64| {
            set.lines
                .range((receipt, 0)..=(receipt, u32::MAX))
                .map(|(_, line)| line)
        };
        let readings = set.heads.into_iter().map(|(receipt, head)| {
            let outcome = match head.kind {
                Kind::Other => Outcome::Other,
                Kind::Void => Outcome::Void { time_ms: head.time_ms? },
                Kind::Receipt => {
                    let revenue = || lines(receipt).filter(|line| line.is_revenue);
                    if has_lines && revenue().next().is_none() {
                        // Money was put in or taken out, or a voucher sold.
                        Outcome::Other
                    } else {
                        let sum = |of: fn(&Line) -> i64| revenue().map(of).fold(0, i64::saturating_add);
                        let amount_minor = if has_lines {
                            sum(|line| line.gross_minor)
                        } else {
                            head.gross_minor?
                        };
                        Outcome::Sale(Sale {
                            time_ms: head.time_ms?,
                            lane: head.lane,
                            amount_minor,
                            tax_minor: has_lines.then(|| sum(|line| line.tax_minor)),
                            items: has_lines.then(|| sum(|line| line.items)),
                            is_return: amount_minor < 0,
                            paid: paid.remove(&receipt).unwrap_or_default(),
                        })
                    }
                }
            };
            Ok(Reading {
                key: Some(head.key),
                outcome,
            })
        });
        readings.collect()
    }
}

/// With a comma, as the standard asks for, or with a point, as some tills write; there are no thousands.
fn amount(text: &str) -> Result<tillwatch_sdk::parse::Decimal, Wrong> {
    let mark = if text.contains(',') {
        DecimalMark::Comma
    } else {
        DecimalMark::Point
    };
    number::parse(text, mark)
}

fn minor(text: &str, rules: &Rules) -> Result<i64, Wrong> {
    amount(text)?.units(rules.currency.decimals())
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::tests::rules;

    const TRANSACTIONS: &[u8] = include_bytes!("../testcases/dsfinvk/transactions/transactions.csv");
    const LINES: &[u8] = include_bytes!("../testcases/dsfinvk/transactions/lines.csv");
    const LINES_VAT: &[u8] = include_bytes!("../testcases/dsfinvk/transactions/lines_vat.csv");
    const PAYMENTS: &[u8] = include_bytes!("../testcases/dsfinvk/transactions/datapayment.csv");

    fn read(files: &[&[u8]]) -> (Set, usize) {
        let (rules, mut set, mut wrong) = (rules(Settings::default()), Set::default(), 0);
        for file in files {
            set.add(&crate::decode::text(file), &rules, 1_000, &mut |_| wrong += 1);
        }
        (set, wrong)
    }

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let (mut first, wrong) = read(&[TRANSACTIONS, LINES, LINES_VAT, PAYMENTS]);
        let (mut second, _) = read(&[PAYMENTS, LINES_VAT, LINES, TRANSACTIONS]);
        assert_eq!(wrong, 0);
        assert!(first.is_due(0));
        let readings = first.take();
        assert_eq!(readings, second.take());
        assert!(first.is_empty());
        let sum: i64 = readings
            .iter()
            .map(|reading| match reading.as_ref().unwrap().outcome {
                Outcome::Sale(ref sale) => sale.amount_minor,
                _ => 0,
            })
            .sum();
        assert_eq!(sum, 7_100);
    }

    #[test]
    fn a_set_in_part_is_read_by_its_heads_after_a_while() {
        let (mut set, _) = read(&[TRANSACTIONS]);
        assert!(!set.is_due(1_000 + PATIENCE_MS - 1) && set.is_due(1_000 + PATIENCE_MS));
        assert!(set.take().iter().all(|reading| reading.is_ok()));
    }
}
