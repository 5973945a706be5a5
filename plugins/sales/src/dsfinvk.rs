//! DSFinV-K 2.x, the German export of tills: several files that belong together, known by their columns.
//!
//! The receipt's head (`transactions.csv`), its lines (`lines.csv`), their amounts (`lines_vat.csv`) and payments
//! (`datapayment.csv`) come as documents in any order and are joined in memory within bounds. A set is whole when all four
//! are there and no more documents wait; of one that stays in part, what is known without the rest counts after a while.
//! Revenue is what the lines of the settings' `revenue_types` come to: no deposit, voucher, or money put into the drawer.
//! Source: Bundeszentralamt für Steuern, DSFinV-K 2.4, chapters 3.1 and 3.2, appendices B to D.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tillwatch_sdk::parse::Wrong;

use crate::Rules;
use crate::csv::{Columns, Records};
use crate::lanes;
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
/// Of a set that waits, in the state: some two hundred receipts. What was read of a larger one ends with the instance,
/// and its receipts count as wrong.
const KEPT_BYTES_MAX: usize = 24 << 10;
/// The least of an entry, so that what is too large is not written first.
const KEPT_ENTRY_BYTES: usize = 10;
/// So long a set may stay in part.
const PATIENCE_MS: u64 = 10 * 60_000;
const ITEMS_MAX: i64 = 10_000;

const CLOSING: [&str; 2] = ["Z_KASSE_ID", "Z_NR"];
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
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Set {
    heads: BTreeMap<u64, Head>,
    lines: BTreeMap<(u64, u64), Line>,
    paid: BTreeMap<u64, Paid>,
    /// Receipts of which a line could not be read: they are wrong as a whole.
    wrong: BTreeMap<u64, Wrong>,
    /// Tills with their closings, by which exports are told apart, and which of their tables are there.
    closings: BTreeMap<u64, [bool; 4]>,
    /// Heads, lines, amounts, payments.
    has: [bool; 4],
    since_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    key: Key,
    lane: String,
    kind: Kind,
    time_ms: Result<u64, Wrong>,
    gross_minor: Result<i64, Wrong>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Receipt,
    Void,
    Other,
}

#[derive(Default, Serialize, Deserialize)]
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

    /// Of what [`Set::encode`] gave.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).unwrap_or_default()
    }

    /// For the state; nothing of an empty one, and of one that is too large.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let entries = [self.heads.len(), self.lines.len(), self.paid.len()]
            .into_iter()
            .fold(0, usize::saturating_add);
        if self.is_empty() || entries > KEPT_BYTES_MAX / KEPT_ENTRY_BYTES {
            return Vec::new();
        }
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        if bytes.len() > KEPT_BYTES_MAX {
            Vec::new()
        } else {
            bytes
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.has == [true; 4]
    }

    /// Whether a file is of another export than those that are there, by its first row.
    pub(crate) fn begins_another(&self, text: &str) -> bool {
        let mut records = Records::new(text, None).filter_map(Result::ok);
        let columns = records
            .next()
            .and_then(|header| Columns::of_header(header, None, &CLOSING, &[0, 1]));
        let first = columns.and_then(|columns| Some(columns.read(records.next()?)));
        first.is_some_and(|row| !self.closings.contains_key(&closing(&row.each_ref().map(trimmed))))
    }

    /// Whether all is there for each of the closings: another export's files may lie among them.
    pub(crate) fn is_complete(&self) -> bool {
        !self.is_empty() && self.closings.values().all(|has| *has == [true; 4])
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
                let fields = fields.each_ref().map(trimmed);
                // All tables begin with the till and its closing.
                if let [till, number, ..] = fields.as_slice() {
                    let has = self.closings.entry(closing(&[till, number])).or_default();
                    has.get_mut(table).into_iter().for_each(|has| *has = true);
                }
                add(self, fields)
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
            lane: lanes::told(if terminal.is_empty() { till } else { terminal }),
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

    fn line(&mut self, receipt: u64, line: &str) -> Result<&mut Line, Wrong> {
        let place = (receipt, hash(&[line]));
        if self.lines.len() >= LINES_MAX && !self.lines.contains_key(&place) {
            return Err(Wrong::Limit);
        }
        Ok(self.lines.entry(place).or_default())
    }

    /// A line that cannot be taken in makes its receipt wrong, which is told when the receipt is read.
    fn mark(&mut self, receipt: u64, added: Result<(), Wrong>) -> Result<(), Wrong> {
        if let Err(wrong) = added {
            if self.wrong.len() >= RECEIPTS_MAX {
                return Err(Wrong::Limit);
            }
            self.wrong.insert(receipt, wrong);
        }
        Ok(())
    }

    fn add_line(&mut self, row: [&str; 6], rules: &Rules) -> Result<(), Wrong> {
        let [till, closing, id, place, kind, quantity] = row;
        let receipt = hash(&[till, closing, id]);
        let added = self.line(receipt, place).map(|line| {
            line.is_revenue = rules.revenue_types.iter().any(|revenue| revenue == kind);
            if line.is_revenue && kind == "Umsatz" {
                line.items = items(quantity, rules);
            }
        });
        self.mark(receipt, added)
    }

    fn add_amount(&mut self, row: [&str; 6], rules: &Rules) -> Result<(), Wrong> {
        let [till, closing, id, place, gross, tax] = row;
        let receipt = hash(&[till, closing, id]);
        let tax = minor(tax, rules).unwrap_or(0);
        let added = minor(gross, rules).and_then(|gross| {
            // A line may have several rates.
            let line = self.line(receipt, place)?;
            line.gross_minor = line.gross_minor.saturating_add(gross);
            line.tax_minor = line.tax_minor.saturating_add(tax);
            Ok(())
        });
        self.mark(receipt, added)
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

    /// What each receipt counts as, and what has no receipt; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<Reading> {
        let mut set = std::mem::take(self);
        let heads = std::mem::take(&mut set.heads);
        let parts = set.lines.keys().map(|(receipt, _)| receipt);
        let parts: BTreeSet<u64> = parts.chain(set.paid.keys()).chain(set.wrong.keys()).copied().collect();
        let headless = parts.iter().filter(|receipt| !heads.contains_key(receipt)).count();
        let mut readings: Vec<Reading> = heads
            .iter()
            .map(|(receipt, head)| set.reading(*receipt, head))
            .collect();
        readings.extend((0..headless).map(|_| Reading::from(Wrong::Missing)));
        readings
    }

    fn reading(&mut self, receipt: u64, head: &Head) -> Reading {
        let outcome = head.time_ms.and_then(|time_ms| match head.kind {
            Kind::Other => Ok(Outcome::Other),
            Kind::Void => {
                let taken_back = None;
                Ok(Outcome::Void { time_ms, taken_back })
            }
            Kind::Receipt => self.receipt(receipt, head, time_ms),
        });
        Reading {
            key: Some(head.key),
            outcome,
        }
    }

    /// Without its lines nobody knows what of a receipt is revenue; without their amounts, only when all of them are.
    fn receipt(&mut self, receipt: u64, head: &Head, time_ms: u64) -> Result<Outcome, Wrong> {
        let [_, has_lines, has_amounts, _] = self.has;
        if let Some(wrong) = self.wrong.get(&receipt) {
            return Err(*wrong);
        }
        if !has_lines {
            return Err(Wrong::Missing);
        }
        let lines = self
            .lines
            .range((receipt, 0)..=(receipt, u64::MAX))
            .map(|(_, line)| line);
        let (revenue, others): (Vec<&Line>, Vec<&Line>) = lines.partition(|line| line.is_revenue);
        if revenue.is_empty() {
            // Money was put in or taken out, or a voucher sold.
            return Ok(Outcome::Other);
        }
        let sum = |of: fn(&Line) -> i64| revenue.iter().map(|line| of(line)).fold(0, i64::saturating_add);
        let amount_minor = match (has_amounts, others.is_empty()) {
            (true, _) => sum(|line| line.gross_minor),
            (false, true) => head.gross_minor?,
            (false, false) => return Err(Wrong::Missing),
        };
        Ok(Outcome::Sale(Sale {
            time_ms,
            lane: head.lane.clone(),
            amount_minor,
            tax_minor: has_amounts.then(|| sum(|line| line.tax_minor)),
            items: Some(sum(|line| line.items)),
            is_return: amount_minor < 0,
            paid: self.paid.remove(&receipt).unwrap_or_default(),
            flaw: None,
        }))
    }
}

fn trimmed<'a>(field: &'a Option<std::borrow::Cow<'_, str>>) -> &'a str {
    field.as_deref().unwrap_or_default().trim_ascii()
}

fn closing(row: &[&str; 2]) -> u64 {
    hash(row)
}

/// A weighed item is one; what is taken back was not sold.
fn items(quantity: &str, rules: &Rules) -> i64 {
    match amount(quantity, rules).and_then(|quantity| quantity.whole()) {
        _ if quantity.starts_with('-') => 0,
        Ok(quantity) => quantity.min(ITEMS_MAX),
        Err(_weight) => 1,
    }
}

/// With a comma, as the standard asks for, or with a point, as some tills write; there are no thousands.
fn amount(text: &str, rules: &Rules) -> Result<tillwatch_sdk::parse::Decimal, Wrong> {
    let mark = if text.contains(',') {
        DecimalMark::Comma
    } else {
        DecimalMark::Point
    };
    number::amount(text, mark, &rules.currency)
}

fn minor(text: &str, rules: &Rules) -> Result<i64, Wrong> {
    amount(text, rules)?.units(rules.currency.decimals())
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
            set.add(&tillwatch_sdk::parse::document_text(file), &rules, 1_000, &mut |_| {
                wrong += 1
            });
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
            .map(|reading| match &reading.outcome {
                Ok(Outcome::Sale(sale)) => sale.amount_minor,
                _ => 0,
            })
            .sum();
        assert_eq!(sum, 7_100);
    }

    #[test]
    fn a_set_in_part_is_read_after_a_while() {
        let (mut set, _) = read(&[TRANSACTIONS]);
        assert!(!set.is_due(1_000 + PATIENCE_MS - 1) && set.is_due(1_000 + PATIENCE_MS));
        assert_eq!(set.take().len(), 7);
    }
}
