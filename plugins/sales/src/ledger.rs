//! What counts, once: every reader's transactions become samples here, whatever format they came from.

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Batch, Host};

use crate::kept::Kept;
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

/// How a reader's transactions are told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// One that comes again is a duplicate, and said to be one.
    Count,
    /// The reader asks for the newest again: what comes again is nothing new.
    Expect,
}

/// What each row of a transaction says again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) amount_repeats: bool,
    pub(crate) tender_repeats: bool,
}

impl Ledger {
    pub(crate) fn push(&mut self, reading: Result<Reading, Wrong>, repeats: Repeats, batch: &mut Batch, now_ms: u64) {
        let reading = match reading {
            Ok(reading) => reading,
            Err(wrong) => return self.problems.count(wrong),
        };
        if reading.key.is_some_and(|key| !self.seen.insert(key)) {
            if repeats == Repeats::Count {
                batch.push_integer(metric::SALES_DUPLICATES, &[], 1, now_ms);
            }
            return;
        }
        self.count(&reading.outcome, batch);
    }

    /// Of rows that follow each other with one key the first counts as the transaction, the others add to it.
    pub(crate) fn push_part(&mut self, reading: Result<Reading, Wrong>, parts: Parts, batch: &mut Batch, now_ms: u64) {
        let key = reading.as_ref().ok().and_then(|reading| reading.key);
        let mark = key.map(|key| key.mark());
        if mark.is_none() || mark != self.kept.open.map(|open| open.mark) {
            let is_new = key.is_none_or(|key| !self.seen.contains(key));
            self.kept.open = mark.map(|mark| crate::kept::Open { mark, is_new });
            return self.push(reading, Repeats::Count, batch, now_ms);
        }
        let is_new = self.kept.open.is_some_and(|open| open.is_new);
        if let (
            true,
            Ok(Reading {
                outcome: Outcome::Sale(sale),
                ..
            }),
        ) = (is_new, reading)
        {
            if !parts.amount_repeats {
                batch.push_integer(metric::SALES_AMOUNT, &[], sale.amount_minor, sale.time_ms);
                push_tax(&sale, batch);
            }
            push_items(&sale, batch);
            if !parts.tender_repeats {
                push_tenders(&sale, batch);
            }
        }
    }

    fn count(&mut self, outcome: &Outcome, batch: &mut Batch) {
        match outcome {
            Outcome::Sale(sale) => {
                self.kept.lanes.sold(&sale.lane, sale.time_ms);
                push_sale(sale, batch);
            }
            Outcome::Void { time_ms } => batch.push_integer(metric::SALES_VOIDS, &[], 1, *time_ms),
            Outcome::Other => {}
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
    batch.push_integer(metric::SALES_AMOUNT, &[], sale.amount_minor, sale.time_ms);
    push_tax(sale, batch);
    if sale.is_return {
        batch.push_integer(metric::SALES_RETURNS, &[], 1, sale.time_ms);
    }
    push_items(sale, batch);
    push_tenders(sale, batch);
}

fn push_tax(sale: &Sale, batch: &mut Batch) {
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
