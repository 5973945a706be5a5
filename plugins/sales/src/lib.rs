//! What the store sells.
//!
//! POSLog documents or JSON lines come in; transactions, amounts, items, returns, voids and tenders go out.
//! Money is whole minor units from the first digit read.
//! No number of a card, customer, receipt or cashier leaves this plugin.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod poslog;
mod draft;
mod transaction;
mod line;
mod tender;
mod currency;
mod seen;

use std::collections::BTreeMap;

use serde::Deserialize;
use tillwatch_sdk::parse::{Offset, Problems, Wrong};
use tillwatch_sdk::{Batch, Collector, Descriptor, Error, Fault, Host, Level};

use currency::Currency;
use line::Lines;
use poslog::Poslog;
use seen::{Key, Seen};
use tender::{Tender, Tenders};
use transaction::{Outcome, Sale};

tillwatch_sdk::plugin!();

const TRANSACTIONS: &str = "transactions";
const LINES: &str = "lines";
/// Bytes of lines that one call asks for; the host may give less.
const READ_BYTES_MAX: u32 = 256 * 1024;
/// After so many documents or bytes a call ends, and the next goes on: a deadline holds for each call.
const DOCUMENTS_MAX: usize = 64;
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// How totals of lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AmountUnit {
    /// 19.99
    Major,
    /// 1999
    Minor,
}

/// What the operator decides; see `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    currency: String,
    time_zone: Offset,
    tenders: BTreeMap<String, Tender>,
    amount_unit: AmountUnit,
    field_time: String,
    field_total: String,
    field_items: String,
    field_tender: String,
    field_currency: String,
    field_type: String,
    sale_types: Vec<String>,
    void_types: Vec<String>,
    field_transaction: String,
    field_store: String,
    field_lane: String,
}

impl Default for Settings {
    fn default() -> Self {
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        Self {
            currency: "EUR".to_owned(),
            time_zone: Offset::default(),
            tenders: BTreeMap::new(),
            amount_unit: AmountUnit::Major,
            field_time: "time".to_owned(),
            field_total: "total".to_owned(),
            field_items: "items".to_owned(),
            field_tender: "tender".to_owned(),
            field_currency: String::new(),
            field_type: String::new(),
            sale_types: texts(["sale", "return"]),
            void_types: texts(["void", "cancelled"]),
            field_transaction: String::new(),
            field_store: String::new(),
            field_lane: String::new(),
        }
    }
}

/// What both sources are read by.
pub(crate) struct Rules {
    currency: Currency,
    local: Offset,
    tenders: Tenders,
}

/// The collector.
pub struct Sales {
    rules: Rules,
    lines: Lines,
    ledger: Ledger,
}

/// Which transactions count, and what was wrong with the others.
#[derive(Default)]
struct Ledger {
    seen: Seen,
    problems: Problems,
}

impl Collector for Sales {
    type Settings = Settings;

    fn new(settings: Settings, host: &mut dyn Host) -> Result<Self, Error> {
        let currency = Currency::new(&settings.currency).map_err(Error::config)?;
        let lines = Lines::new(&settings);
        let rules = Rules {
            currency,
            local: settings.time_zone,
            tenders: Tenders::new(settings.tenders),
        };
        let seen = Seen::decode(&host.state()).unwrap_or_else(|| {
            host.log(
                Level::Warn,
                "the kept transaction numbers cannot be read: repeated transactions may count again",
            );
            Seen::default()
        });
        let ledger = Ledger {
            seen,
            problems: Problems::default(),
        };
        Ok(Self { rules, lines, ledger })
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let documents = self.collect_documents(&mut batch, host)?;
        let lines = self.collect_lines(&mut batch, host)?;
        if !documents && !lines {
            return Err(Error::config(
                "neither the source transactions nor the source lines is granted",
            ));
        }
        self.ledger
            .problems
            .report(metric::SOURCE_PARSE_ERRORS, &mut batch, host);
        if let Some(state) = self.ledger.seen.take_changes() {
            host.set_state(&state)?;
        }
        Ok(batch)
    }

    fn describe(&self, descriptor: &mut Descriptor) {
        for metric in descriptor.metrics.iter_mut().filter(|metric| metric.currency.is_some()) {
            metric.currency = Some(self.rules.currency.code().to_owned());
            metric.decimals = self.rules.currency.decimals();
        }
    }
}

impl Sales {
    /// False when no documents are granted.
    fn collect_documents(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        let mut bytes = 0_usize;
        for _ in 0..DOCUMENTS_MAX {
            let document = match host.next_document(TRANSACTIONS) {
                Ok(Some(document)) => document,
                // The agent reports a missing folder as `source.up`.
                Ok(None) | Err(Fault::Unavailable) => return Ok(true),
                Err(Fault::Unknown) => return Ok(false),
                Err(Fault::Exhausted) => break,
            };
            bytes = bytes.saturating_add(document.bytes.len());
            self.push_document(&document.bytes, batch, host.now_ms());
            if bytes >= DOCUMENT_BYTES_MAX {
                break;
            }
        }
        batch.more = true;
        Ok(true)
    }

    /// What stands before a fault in a document counts.
    fn push_document(&mut self, document: &[u8], batch: &mut Batch, now_ms: u64) {
        for draft in Poslog::new(&String::from_utf8_lossy(document), &self.rules) {
            let outcome = draft.and_then(|draft| Ok((draft.key(), draft.outcome(&self.rules)?)));
            self.ledger.push(outcome, batch, now_ms);
        }
    }

    /// False when no lines are granted.
    fn collect_lines(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        let lines = match host.read_lines(LINES, READ_BYTES_MAX) {
            Ok(lines) => lines,
            Err(Fault::Unknown) => return Ok(false),
            Err(Fault::Unavailable) => return Ok(true),
            // The documents have used up what one call may read.
            Err(Fault::Exhausted) if batch.more => return Ok(true),
            Err(fault) => return Err(fault.into()),
        };
        let now_ms = host.now_ms();
        for line in lines.iter().filter(|line| !line.is_empty()) {
            let outcome = self.lines.read(line, &self.rules);
            self.ledger.push(outcome, batch, now_ms);
        }
        if lines.skipped_bytes > 0 {
            self.ledger.problems.count(Wrong::Limit);
        }
        batch.more |= lines.more;
        Ok(true)
    }
}

impl Ledger {
    fn push(&mut self, outcome: Result<(Option<Key>, Outcome), Wrong>, batch: &mut Batch, now_ms: u64) {
        match outcome {
            Err(wrong) => self.problems.count(wrong),
            Ok((Some(key), _)) if !self.seen.insert(key) => {
                batch.push_integer(metric::SALES_DUPLICATES, &[], 1, now_ms);
            }
            Ok((_, Outcome::Sale(sale))) => push_sale(&sale, batch),
            Ok((_, Outcome::Void { time_ms })) => batch.push_integer(metric::SALES_VOIDS, &[], 1, time_ms),
            Ok((_, Outcome::Other)) => {}
        }
    }
}

fn push_sale(sale: &Sale, batch: &mut Batch) {
    batch.push_integer(metric::SALES_TRANSACTIONS, &[], 1, sale.time_ms);
    batch.push_integer(metric::SALES_AMOUNT, &[], sale.amount_minor, sale.time_ms);
    if let Some(items) = sale.items {
        batch.push_integer(metric::SALES_ITEMS, &[], items, sale.time_ms);
    }
    if sale.is_return {
        batch.push_integer(metric::SALES_RETURNS, &[], 1, sale.time_ms);
    }
    for (tender, amount_minor) in sale.paid.iter() {
        batch.push_integer(
            metric::SALES_TENDER_AMOUNT,
            &[tender.name()],
            amount_minor,
            sale.time_ms,
        );
    }
}

tillwatch_sdk::export!(Sales);

#[cfg(test)]
mod tests;
