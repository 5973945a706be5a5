//! What the store sells.
//!
//! In: documents (POSLog, CSV, JSON lines, DSFinV-K), tailed lines (JSON or CSV), the rows of a query, Odoo's orders.
//! Out: transactions, amounts, tax, items, returns, voids and tenders, and how old each lane's last sale is.
//! Every format has its reader, from bytes to [`row::Reading`]; the ledger counts them, none is special there.
//! Money is whole minor units from the first digit read.
//! No number of a card, customer, receipt or cashier leaves this plugin.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod settings;
mod poslog;
mod draft;
mod transaction;
mod csv;
mod dsfinvk;
mod sql;
mod odoo;
mod row;
mod number;
mod when;
mod tender;
mod currency;
mod ledger;
mod fold;
mod seen;
mod lanes;
mod kept;

use serde_json::value::RawValue;
use tillwatch_sdk::parse::{Problems, Wrong, Zone, document_text};
use tillwatch_sdk::{Batch, Collector, Cursor, Descriptor, Error, Fault, Host, Level, PeerFault};

use csv::{Columns, Records};
use currency::Currency;
use dsfinvk::Set;
use kept::{HEADER_BYTES_MAX, Kept};
use ledger::{Ledger, Parts};
use poslog::Poslog;
use row::{FIELDS, Field, Mapping, Reading};
use seen::{Key, Seen};
use settings::{AmountUnit, Format, RowsAre};
use tender::Tenders;
use transaction::Outcome;
use when::Hours;

pub use settings::Settings;

tillwatch_sdk::plugin!();

const TRANSACTIONS: &str = "transactions";
const LINES: &str = "lines";
const QUERY: &str = "query";
const ODOO: &str = "odoo";
/// Bytes of lines that one call asks for; the host may give less.
const READ_BYTES_MAX: u32 = 256 * 1024;
/// After so many documents or bytes a call ends, and the next goes on: a deadline holds for each call.
const DOCUMENTS_MAX: usize = 64;
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// So many records may stand before a header.
const HEADER_RECORDS_MAX: usize = 20;

/// What all formats are read by.
pub(crate) struct Rules {
    currency: Currency,
    local: Zone,
    hours: Hours,
    tenders: Tenders,
    revenue_types: Vec<String>,
}

/// The collector.
pub struct Sales {
    rules: Rules,
    reader: Reader,
    ledger: Ledger,
    /// Files of a DSFinV-K export that wait for the others.
    set: Set,
    /// As it stands in the state.
    set_kept: Vec<u8>,
}

/// How rows are read.
struct Reader {
    mapping: Mapping,
    format: Format,
    separator: Option<u8>,
    cursor: String,
    cursor_overlap: u32,
    odoo: odoo::Account,
    /// Of the lines' header.
    columns: Option<Columns<FIELDS>>,
    told_cursor: bool,
}

impl Collector for Sales {
    type Settings = Settings;

    fn new(settings: Settings, host: &mut dyn Host) -> Result<Self, Error> {
        let rules = Rules::new(&settings).map_err(Error::config)?;
        let reader = Reader::new(&settings).map_err(Error::config)?;
        let state = host.state();
        let (kept, set_kept, seen) = kept::decode(&state).unwrap_or_else(|| {
            host.log(
                Level::Warn,
                "the kept transaction numbers cannot be read: repeated transactions may count again",
            );
            (Kept::default(), &[], Seen::default())
        });
        let ledger = Ledger {
            seen,
            kept,
            problems: Problems::default(),
        };
        let mut sales = Self {
            rules,
            reader,
            ledger,
            set: Set::decode(set_kept),
            set_kept: set_kept.to_vec(),
        };
        sales.reader.columns = sales
            .ledger
            .kept
            .header
            .as_deref()
            .and_then(|header| sales.reader.header(header));
        Ok(sales)
    }

    fn collect(&mut self, host: &mut dyn Host) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let before = self.ledger.kept.clone();
        let granted = [
            self.collect_documents(&mut batch, host)?,
            self.collect_lines(&mut batch, host)?,
            self.collect_query(&mut batch, host),
            self.collect_odoo(&mut batch, host),
        ];
        if granted == [false; 4] {
            return Err(Error::config(
                "none of the sources transactions, lines, query and odoo is granted",
            ));
        }
        self.ledger.finish(&self.rules.hours, &mut batch, host);
        let set = self.set.encode();
        if self.ledger.seen.take_changed() || self.ledger.kept != before || self.set_kept != set {
            host.set_state(&kept::encode(&self.ledger.kept, &set, &self.ledger.seen))?;
            self.set_kept = set;
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

impl Rules {
    /// Checks the settings; the error says what to change.
    fn new(settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            currency: Currency::new(&settings.currency)?,
            local: settings.time_zone,
            hours: Hours::new(
                settings.time_zone,
                &settings.business_day_start,
                &settings.opening_hours,
                &settings.opening_days,
            )?,
            tenders: Tenders::new(settings.tenders.clone()),
            revenue_types: settings.revenue_types.clone(),
        })
    }
}

impl Reader {
    fn new(settings: &Settings) -> Result<Self, String> {
        if settings.implied_decimals > 9 {
            return Err("implied_decimals: at most 9".to_owned());
        }
        if settings.rows == RowsAre::Parts && settings.field_transaction.is_empty() {
            return Err("rows: parts of a transaction need field_transaction".to_owned());
        }
        if let Some(field) = settings.field_zones.keys().find(|field| **field != settings.field_time) {
            return Err(format!("field_zones: {field:?} is not field_time"));
        }
        Ok(Self {
            mapping: Mapping::new(settings),
            format: settings.format,
            separator: csv::separator(&settings.separator)?,
            cursor: settings.cursor.clone(),
            cursor_overlap: settings.cursor_overlap,
            odoo: odoo::Account::new(settings.odoo_api, &settings.odoo_database, &settings.odoo_login)?,
            columns: None,
            told_cursor: false,
        })
    }

    fn header(&self, line: &str) -> Option<Columns<FIELDS>> {
        self.columns_of(line, self.separator, false)
    }

    /// By a header or, for `numbers`, by a first record where the names are column numbers.
    fn columns_of(&self, line: &str, separator: Option<u8>, numbers: bool) -> Option<Columns<FIELDS>> {
        let names: [&str; FIELDS] = std::array::from_fn(|field| self.name(field));
        let amount = [Field::Total, Field::TenderAmount].map(|field| field as usize);
        let amount = amount.into_iter().find(|field| !self.name(*field).is_empty())?;
        let needed = [Field::Time as usize, amount];
        let by_header = Columns::of_header(line, separator, &names, &needed);
        by_header.or_else(|| Columns::of_numbers(line, separator, &names).filter(|_| numbers))
    }

    /// By the header, which may stand below a title; what follows it is left in `records`. Else by the first record.
    fn find_columns(&self, records: &mut Records<'_>) -> Option<Columns<FIELDS>> {
        let set = records.separator;
        let first = records.clone().next()?;
        let mut below = records.clone();
        let mut titles = below.by_ref().take(HEADER_RECORDS_MAX).filter_map(Result::ok);
        let by_header = titles.find_map(|record| self.columns_of(record, set, false));
        if by_header.is_some() {
            *records = below;
        }
        let columns = by_header.or_else(|| self.columns_of(first.ok()?, set, true))?;
        records.separator = Some(columns.separator);
        Some(columns)
    }

    fn name(&self, field: usize) -> &str {
        self.mapping.names.get(field).map_or("", String::as_str)
    }

    fn format_of(&self, text: &str) -> Format {
        if self.format != Format::Auto {
            return self.format;
        }
        match text.trim_ascii_start().as_bytes().first() {
            None | Some(b'<') => Format::Poslog,
            Some(b'{' | b'[') => Format::Json,
            Some(_) if dsfinvk::is_one(text) => Format::Dsfinvk,
            Some(_) => Format::Csv,
        }
    }
}

impl Sales {
    /// False when no documents are granted.
    fn collect_documents(&mut self, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, Error> {
        let mut bytes = 0_usize;
        let mut waits = true;
        for _ in 0..DOCUMENTS_MAX {
            let document = match host.next_document(TRANSACTIONS) {
                Ok(Some(document)) => document,
                // The agent reports a missing folder as `source.up`.
                Ok(None) | Err(Fault::Unavailable) => {
                    waits = false;
                    break;
                }
                Err(Fault::Unknown) => return Ok(false),
                Err(Fault::Exhausted) => break,
            };
            bytes = bytes.saturating_add(document.bytes.len());
            self.push_document(&document_text(&document.bytes), batch, host.now_ms());
            // The files of a set are best taken by one call, so that a restart comes before or after it.
            if bytes >= DOCUMENT_BYTES_MAX && self.set.is_empty() {
                break;
            }
        }
        // While documents wait, the rest of a second export may be among them.
        if self.set.is_complete() || (!waits && self.set.is_due(host.now_ms())) {
            self.push_set(batch, host.now_ms());
        }
        batch.more |= waits;
        Ok(true)
    }

    fn push_document(&mut self, text: &str, batch: &mut Batch, now_ms: u64) {
        // A transaction stands in one document.
        self.ledger.kept.open = None;
        match self.reader.format_of(text) {
            // What stands before a fault in a document counts.
            Format::Auto | Format::Poslog => {
                for draft in Poslog::new(text, &self.rules) {
                    let reading = draft.map_or_else(Reading::from, |draft| draft.read(&self.rules));
                    self.ledger.push(reading, batch, now_ms);
                }
            }
            Format::Json => self.push_json(text, batch, now_ms),
            Format::Csv => self.push_csv(text, batch, now_ms),
            Format::Dsfinvk => {
                if self.set.is_whole() && self.set.begins_another(text) {
                    self.push_set(batch, now_ms);
                }
                let problems = &mut self.ledger.problems;
                self.set
                    .add(text, &self.rules, now_ms, &mut |wrong| problems.count(wrong));
            }
        }
    }

    fn push_set(&mut self, batch: &mut Batch, now_ms: u64) {
        for reading in self.set.take() {
            self.ledger.push(reading, batch, now_ms);
        }
    }

    /// Objects one after the other, whatever stands between: line ends of any kind, an array's brackets and commas.
    /// Behind a wrong one it goes on with the next line.
    fn push_json(&mut self, text: &str, batch: &mut Batch, now_ms: u64) {
        let is_between = |char: char| char.is_ascii_whitespace() || "[],".contains(char);
        let mut rest = text.trim_start_matches(is_between);
        while !rest.is_empty() {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
            let (reading, bytes) = match values.next() {
                Some(Ok(value)) => {
                    let json = value.get().as_bytes();
                    (self.reader.mapping.read_json(json, &self.rules), values.byte_offset())
                }
                _ => (Wrong::Syntax.into(), rest.find(['\n', '\r']).unwrap_or(rest.len())),
            };
            self.push_row(reading, batch, now_ms);
            rest = rest.get(bytes..).unwrap_or_default().trim_start_matches(is_between);
        }
    }

    fn push_csv(&mut self, text: &str, batch: &mut Batch, now_ms: u64) {
        let mut records = Records::new(text, self.reader.separator);
        if records.clone().next().is_none() {
            return;
        }
        let Some(mut columns) = self.reader.find_columns(&mut records) else {
            return self.ledger.problems.count(Wrong::Syntax);
        };
        for record in records {
            let reading = record.map_or_else(Reading::from, |record| {
                self.reader.mapping.read_texts(columns.read(record), &self.rules)
            });
            // Files that were put together have a header in their midst.
            let header = record.ok().filter(|_| !reading.is_transaction());
            match header.and_then(|record| self.reader.columns_of(record, Some(columns.separator), false)) {
                Some(others) => columns = others,
                None => self.push_row(reading, batch, now_ms),
            }
        }
    }

    fn push_row(&mut self, reading: Reading, batch: &mut Batch, now_ms: u64) {
        if self.reader.mapping.is_parts {
            let parts = Parts {
                amount_repeats: !self.reader.name(Field::Total as usize).is_empty(),
                tender_repeats: self.reader.name(Field::TenderAmount as usize).is_empty(),
            };
            self.ledger.push_part(reading, parts, batch, now_ms);
        } else {
            self.ledger.push(reading, batch, now_ms);
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
        for line in lines.iter().filter(|line| !line.trim_ascii().is_empty()) {
            let line = document_text(line);
            if line.trim_ascii_start().starts_with('{') {
                let reading = self.reader.mapping.read_json(line.as_bytes(), &self.rules);
                self.push_row(reading, batch, now_ms);
            } else {
                self.push_csv_line(&line, batch, now_ms);
            }
        }
        if lines.skipped_bytes > 0 {
            self.ledger.problems.count(Wrong::Limit);
        }
        batch.more |= lines.more;
        Ok(true)
    }

    /// Each file of a rotated log may begin with its header, and a restart may come after it.
    fn push_csv_line(&mut self, line: &str, batch: &mut Batch, now_ms: u64) {
        let read = |reader: &Reader, rules: &Rules| {
            let columns = reader.columns.as_ref()?;
            Some(reader.mapping.read_texts(columns.read(line), rules))
        };
        // To look for a header takes longer than to read a row.
        if let Some(reading) = read(&self.reader, &self.rules).filter(Reading::is_transaction) {
            return self.push_row(reading, batch, now_ms);
        }
        if let Some(columns) = self.reader.header(line) {
            self.ledger.kept.header = (line.len() <= HEADER_BYTES_MAX).then(|| line.to_owned());
            self.reader.columns = Some(columns);
            return;
        }
        if self.reader.columns.is_none() {
            self.reader.columns = self.reader.columns_of(line, self.reader.separator, true);
        }
        let reading = read(&self.reader, &self.rules).unwrap_or_else(|| Wrong::Syntax.into());
        self.push_row(reading, batch, now_ms);
    }

    /// False when no query is granted.
    fn collect_query(&mut self, batch: &mut Batch, host: &mut dyn Host) -> bool {
        let overlap = self.reader.cursor_overlap;
        let mut after = self.ledger.kept.query_at.clone().map(|at| at.before(overlap));
        for _ in 0..sql::PAGES_MAX {
            let table = match host.sql(QUERY, after.take().map(Cursor::from)) {
                Ok(table) => table,
                // The agent reports what a peer does as `source.up`.
                Err(failure) => return failure.fault != PeerFault::Unknown,
            };
            let page = sql::Page::new(&table, &self.reader.mapping.names, &self.reader.cursor);
            if page.len() == 0 {
                return true;
            }
            let Some(last) = page.last().filter(|_| page.has_cursor()) else {
                self.tell_cursor(host);
                return true;
            };
            self.push_page(&page, batch, host.now_ms());
            let at = self.ledger.kept.query_at.as_ref();
            if !at.is_some_and(|at| last.is_behind(at)) {
                self.ledger.kept.query_at = Some(last.clone());
            }
            if !table.more {
                return true;
            }
            after = Some(last);
        }
        batch.more = true;
        true
    }

    fn push_page(&mut self, page: &sql::Page<'_>, batch: &mut Batch, now_ms: u64) {
        let overlaps = self.reader.cursor_overlap > 0;
        for index in 0..page.len() {
            let reading = self.reader.mapping.read(&page.row(index), &self.rules);
            // It may become a sale.
            if reading.outcome == Ok(Outcome::Other) {
                continue;
            }
            let mut is_known = || {
                let day = reading
                    .time_ms()
                    .map_or(0, |time_ms| self.rules.hours.business_day(time_ms));
                let key = page.key(index).map(|id| Key::new(day, &["query"], &id));
                key.is_some_and(|key| !self.ledger.seen.insert(key))
            };
            // The newest are asked for again, each row by its own key.
            if !(overlaps && is_known()) {
                self.push_row(reading, batch, now_ms);
            }
        }
    }

    fn tell_cursor(&mut self, host: &mut dyn Host) {
        self.ledger.problems.count(Wrong::Missing);
        if !std::mem::replace(&mut self.reader.told_cursor, true) {
            host.log(
                Level::Warn,
                "the query has no column of the setting cursor, as integer or text: its rows are left",
            );
        }
    }

    /// False when no Odoo is granted.
    fn collect_odoo(&mut self, batch: &mut Batch, host: &mut dyn Host) -> bool {
        let after = self
            .ledger
            .kept
            .odoo_at
            .unwrap_or(0)
            .saturating_sub(odoo::OVERLAP)
            .max(0);
        match self.ask_odoo(after, batch, host) {
            Ok(is_granted) => is_granted,
            Err(why) => {
                self.reader.odoo.forget();
                self.ledger.problems.count(Wrong::Missing);
                host.log(Level::Warn, &why);
                true
            }
        }
    }

    fn ask_odoo(&mut self, after: i64, batch: &mut Batch, host: &mut dyn Host) -> Result<bool, String> {
        if let Some(request) = self.reader.odoo.authenticate() {
            match host.http(ODOO, request) {
                Ok(response) => self.reader.odoo.authenticated(&response)?,
                Err(failure) => return Ok(failure.fault != PeerFault::Unknown),
            }
        }
        let mut after = after;
        for _ in 0..odoo::PAGES_MAX {
            let response = match host.http(ODOO, self.reader.odoo.orders(after)) {
                Ok(response) => response,
                Err(failure) => return Ok(failure.fault != PeerFault::Unknown),
            };
            let orders = odoo::orders(&response)?;
            let Some(last) = orders.iter().map(|order| order.id).max() else {
                return Ok(true);
            };
            let response = match host.http(ODOO, self.reader.odoo.payments(&orders)) {
                Ok(response) => response,
                Err(_comes_again) => return Ok(true),
            };
            let mut paid = odoo::payments(&response, &self.rules)?;
            for order in &orders {
                let Reading { key, outcome } = order.read(paid.remove(&order.id), &self.rules);
                // The newest are asked for again.
                if key.is_none_or(|key| self.ledger.seen.insert(key)) {
                    let reading = Reading { key: None, outcome };
                    self.ledger.push(reading, batch, host.now_ms());
                }
            }
            self.ledger.kept.odoo_at = Some(last.max(self.ledger.kept.odoo_at.unwrap_or(0)));
            if orders.len() < odoo::ORDERS_MAX {
                return Ok(true);
            }
            after = last;
        }
        batch.more = true;
        Ok(true)
    }
}

tillwatch_sdk::export_prober!(Sales);

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
mod tests;
#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
mod reality;
