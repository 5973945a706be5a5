//! What counts, once: every reader's transactions become samples here, whatever format they came from.

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Batch, Host};

use crate::fold;
use crate::kept::{Kept, Open};
use crate::lanes::Lanes;
use crate::metric;
use crate::row::Reading;
use crate::seen::Seen;
use crate::transaction::{Outcome, Sale};
use crate::when::Hours;

/// Which transactions count, and what was wrong with the others.
pub(crate) struct Ledger {
    pub(crate) seen: Seen,
    pub(crate) kept: Kept,
    pub(crate) problems: Problems,
}

/// What each row of a transaction says again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) amount_repeats: bool,
    pub(crate) tender_repeats: bool,
}

impl Ledger {
    /// What is no sale and no void takes no number: training has its own, and a suspended basket goes on under its own.
    pub(crate) fn push(&mut self, reading: Reading, batch: &mut Batch, now_ms: u64) {
        match reading.outcome {
            Err(wrong) => self.problems.count(wrong),
            Ok(Outcome::Other) => {}
            Ok(_) if reading.key.is_some_and(|key| !self.seen.insert(key)) => {
                batch.push_integer(metric::SALES_DUPLICATES, &[], 1, now_ms);
            }
            Ok(outcome) => self.count(&outcome, batch, now_ms),
        }
        fold::to_fit(batch);
    }

    /// Of rows that follow each other with one key the first counts as the transaction, the others add to it.
    /// One that is wrong, or does not count, stands for itself.
    pub(crate) fn push_part(&mut self, reading: Reading, parts: Parts, batch: &mut Batch, now_ms: u64) {
        let (Some(key), Ok(Outcome::Sale(_) | Outcome::Void { .. })) = (reading.key, &reading.outcome) else {
            return self.push(reading, batch, now_ms);
        };
        let mark = key.mark();
        match self.kept.open.filter(|open| open.mark == mark) {
            None => {
                let is_new = !self.seen.contains(key);
                self.kept.open = Some(Open { mark, is_new });
                self.push(reading, batch, now_ms);
            }
            Some(Open { is_new: true, .. }) => self.add_part(&reading.outcome, parts, batch),
            Some(_) => {}
        }
    }

    fn add_part(&mut self, outcome: &Result<Outcome, Wrong>, parts: Parts, batch: &mut Batch) {
        let Ok(Outcome::Sale(sale)) = outcome else { return };
        if !parts.amount_repeats {
            push_amount(sale, batch);
        }
        push_items(sale, batch);
        if !parts.tender_repeats {
            push_tenders(sale, batch);
        }
        self.tell_flaw(sale);
        fold::to_fit(batch);
    }

    fn count(&mut self, outcome: &Outcome, batch: &mut Batch, now_ms: u64) {
        match outcome {
            Outcome::Sale(sale) => {
                // A wrong clock must not keep its lane young.
                self.kept.lanes.sold(&sale.lane, sale.time_ms.min(now_ms));
                push_sale(sale, batch);
                self.tell_flaw(sale);
            }
            Outcome::Void { time_ms, taken_back } => {
                batch.push_integer(metric::SALES_VOIDS, &[], 1, *time_ms);
                if let Some(sale) = taken_back {
                    push_amount(sale, batch);
                    push_tenders(sale, batch);
                }
            }
            Outcome::Other => {}
        }
    }

    fn tell_flaw(&mut self, sale: &Sale) {
        if let Some(wrong) = sale.flaw {
            self.problems.count(wrong);
        }
    }

    /// What is reported at the end of a call: what was wrong and, when nothing more waits, how old the last sales are.
    pub(crate) fn finish(&mut self, hours: &Hours, batch: &mut Batch, host: &mut dyn Host) {
        let now_ms = host.now_ms();
        self.kept.lanes.forget(now_ms);
        if !batch.more && hours.is_open(now_ms) {
            push_ages(&self.kept.lanes, batch, now_ms);
        }
        self.problems.report(metric::SOURCE_PARSE_ERRORS, batch, host);
    }
}

fn push_sale(sale: &Sale, batch: &mut Batch) {
    batch.push_integer(metric::SALES_TRANSACTIONS, &[], 1, sale.time_ms);
    push_amount(sale, batch);
    if sale.is_return {
        batch.push_integer(metric::SALES_RETURNS, &[], 1, sale.time_ms);
    }
    push_items(sale, batch);
    push_tenders(sale, batch);
}

fn push_amount(sale: &Sale, batch: &mut Batch) {
    batch.push_integer(metric::SALES_AMOUNT, &[], sale.amount_minor, sale.time_ms);
    if let Some(tax_minor) = sale.tax_minor {
        batch.push_integer(metric::SALES_TAX, &[], tax_minor, sale.time_ms);
    }
}

fn push_items(sale: &Sale, batch: &mut Batch) {
    if let Some(items) = sale.items {
        batch.push_integer(metric::SALES_ITEMS, &[], items, sale.time_ms);
    }
}

fn push_tenders(sale: &Sale, batch: &mut Batch) {
    for (tender, amount_minor) in sale.paid.iter() {
        batch.push_integer(
            metric::SALES_TENDER_AMOUNT,
            &[tender.name()],
            amount_minor,
            sale.time_ms,
        );
    }
}

fn push_ages(lanes: &Lanes, batch: &mut Batch, now_ms: u64) {
    for (lane, age_ms) in lanes.ages(now_ms) {
        let age_s = age_ms.checked_div(1000).and_then(|age| i64::try_from(age).ok());
        batch.push_integer(
            metric::SALES_LAST_TRANSACTION_AGE,
            &[lane],
            age_s.unwrap_or(i64::MAX),
            now_ms,
        );
    }
}
