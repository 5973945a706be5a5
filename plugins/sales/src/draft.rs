//! A transaction of a POSLog document while it is read: each known element has its field.
//!
//! Only what stands at its exact place counts: a sequence number of a line or a store of a linked transaction is another
//! thing than the transaction's own.

use quick_xml::events::BytesStart;
use tillwatch_sdk::parse::{Decimal, Wrong};

use crate::Rules;
use crate::poslog::Tag;
use crate::tender::{Paid, Tender};

/// A line with a larger quantity counts as this many items.
const QUANTITY_MAX: i64 = 10_000;
/// Lines beyond these cannot be voided by a later one.
const LINES_MAX: usize = 1_000;
/// Of UN/ECE recommendation 20, and as vendors write them; in all others things are weighed or measured.
const PIECES: [&str; 12] = [
    "EA", "EACH", "PCE", "PC", "PCS", "UN", "UNT", "C62", "H87", "ST", "STK", "NAR",
];

/// What was read of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) store: String,
    pub(crate) workstation: String,
    pub(crate) sequence: String,
    pub(crate) business_day: String,
    pub(crate) end_time: String,
    pub(crate) begin_time: String,
    pub(crate) receipt_time: String,
    pub(crate) log_time: String,
    /// When the transaction was sent, which may be days later.
    pub(crate) message_time: String,
    pub(crate) is_retail: bool,
    pub(crate) is_training: bool,
    pub(crate) is_cancelled: bool,
    pub(crate) is_suspended: bool,
    pub(crate) status: String,
    pub(crate) is_other_currency: bool,
    /// Something was paid in another currency, which counts for no tender.
    pub(crate) is_foreign_tender: bool,
    /// The totals have no sign: this is it.
    pub(crate) is_negative_total: bool,
    /// The number of the transaction that this one voids.
    pub(crate) voided_sequence: String,
    pub(crate) grand: Option<Result<i64, Wrong>>,
    pub(crate) net: Option<Result<i64, Wrong>>,
    pub(crate) tax: Option<Result<i64, Wrong>>,
    pub(crate) returned_items: i64,
    pub(crate) paid: Paid,
    /// What is wrong with the tenders.
    pub(crate) wrong_tender: Option<Wrong>,
    sold: Sold,
    line: Line,
    total: TotalKind,
    log_kind: LogKind,
    is_voiding_link: bool,
}

/// Sold items, by line as long as a later line may void one.
#[derive(Debug, Default)]
struct Sold {
    items: i64,
    lines: Vec<(u32, i64)>,
}

/// The line item that is being read.
#[derive(Debug, Default)]
struct Line {
    is_void: bool,
    is_sale: bool,
    is_return: bool,
    /// A sale of less than nothing is a return.
    is_negative: bool,
    quantity: Option<i64>,
    is_weighed: bool,
    /// The tender and, apart from it, the one that the change was given in.
    tender: Option<Tender>,
    change: Option<Tender>,
    is_refund: bool,
    is_foreign: bool,
    /// The amount is in the store's currency, whatever it says beside it.
    is_converted: bool,
    tendered_minor: i64,
    given_back_minor: i64,
    wrong: Option<Wrong>,
    number: Option<u32>,
    /// The line that a void one voids.
    link: Option<u32>,
}

/// What a `POSLogDateTime` is the time of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LogKind {
    Transaction,
    Message,
    #[default]
    Unsaid,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TotalKind {
    Grand,
    Net,
    Tax,
    #[default]
    Other,
}

/// The attributes of an element, by local name.
pub(crate) struct Attributes<'a>(pub(crate) &'a BytesStart<'a>);

impl Attributes<'_> {
    /// None when it is empty.
    fn get(&self, local_name: &str) -> Option<String> {
        let mut attributes = self.0.attributes();
        // Looking for repeated attributes takes quadratic time.
        let mut known = attributes.with_checks(false).filter_map(Result::ok);
        let found = known.find(|attribute| attribute.key.local_name().as_ref() == local_name)?;
        Some(found.value.trim_ascii().to_owned()).filter(|value| !value.is_empty())
    }

    /// Of 2.1 and 6.0 by their own names.
    fn is_other_currency(&self, rules: &Rules) -> bool {
        let currency = self.get("CurrencyCode").or_else(|| self.get("Currency"));
        currency.is_some_and(|code| !rules.currency.is(&code))
    }

    fn is_true(&self, local_name: &str) -> bool {
        self.get(local_name).is_some_and(|value| is_true(&value))
    }

    fn is_any(&self, local_name: &str, words: &[&str]) -> bool {
        let value = self.get(local_name).unwrap_or_default();
        words.iter().any(|word| value.eq_ignore_ascii_case(word))
    }
}

impl Draft {
    /// An element begins; `path` goes from the transaction to it.
    pub(crate) fn enter(&mut self, path: &[Tag], attributes: &Attributes<'_>, rules: &Rules) {
        match path {
            [Tag::Transaction] => self.enter_transaction(attributes),
            [Tag::Transaction, Tag::PosLogDateTime] => {
                self.log_kind = match attributes.get("TypeCode") {
                    Some(code) if code.eq_ignore_ascii_case("Transaction") => LogKind::Transaction,
                    Some(code) if ["message", "created"].contains(&code.to_ascii_lowercase().as_str()) => {
                        LogKind::Message
                    }
                    _ => LogKind::Unsaid,
                };
            }
            [Tag::Transaction, Tag::RetailTransaction] => {
                self.is_retail = true;
                self.status = attributes.get("TransactionStatus").unwrap_or_default();
                self.is_cancelled |= attributes.is_true("CancelFlag");
            }
            [Tag::Transaction, Tag::RetailTransaction, Tag::TransactionLink] => {
                self.is_voiding_link = attributes.is_any("ReasonCode", &["Voided", "Void", "PostVoid", "PostVoided"]);
            }
            [Tag::Transaction, Tag::RetailTransaction, Tag::LineItem, below @ ..] => {
                self.enter_line(below, attributes, rules);
            }
            [Tag::Transaction, Tag::RetailTransaction, Tag::Total] => self.enter_total(attributes, rules),
            [Tag::Transaction, Tag::RetailTransaction, Tag::Total, Tag::Amount] if self.total != TotalKind::Other => {
                self.is_other_currency |= attributes.is_other_currency(rules);
            }
            _ => {}
        }
    }

    fn enter_transaction(&mut self, attributes: &Attributes<'_>) {
        let is_any = |names: &[&str]| names.iter().any(|name| attributes.is_true(name));
        self.is_cancelled = is_any(&["CancelFlag", "VoidedFlag", "VoidFlag"]);
        self.is_suspended = is_any(&["SuspendedFlag", "SuspendFlag"]);
        self.is_training = attributes.is_true("TrainingModeFlag");
    }

    /// `path` goes on from the line item.
    fn enter_line(&mut self, path: &[Tag], attributes: &Attributes<'_>, rules: &Rules) {
        match path {
            [] => {
                self.line = Line {
                    is_void: attributes.is_true("VoidFlag") || attributes.is_true("CancelFlag"),
                    is_weighed: attributes.is_true("weightItem"),
                    ..Line::default()
                };
            }
            [Tag::Sale] => self.line.is_sale = true,
            [Tag::Return] => self.line.is_return = true,
            [Tag::Sale, Tag::Quantity] => {
                let is_piece = |unit: String| PIECES.iter().any(|piece| piece.eq_ignore_ascii_case(&unit));
                let is_measured = attributes.get("UnitOfMeasureCode").is_some_and(|unit| !is_piece(unit));
                self.line.is_weighed |= is_measured;
            }
            [Tag::Tender] => self.enter_tender(attributes, rules),
            [Tag::Tender, Tag::ForeignCurrency] => self.line.is_converted = true,
            [Tag::Tender, Tag::Amount] => {
                self.line.is_foreign = attributes.is_other_currency(rules);
                self.line.is_converted |= attributes.get("ForeignAmount").is_some();
            }
            // 6.0 nests it in itself.
            [Tag::TenderChange] | [Tag::TenderChange | Tag::Tender, Tag::TenderChange] => {
                let change = attributes.get("TenderType").map(|name| rules.tenders.of(&name));
                self.line.change = change.or(self.line.change);
            }
            _ => {}
        }
    }

    fn enter_tender(&mut self, attributes: &Attributes<'_>, rules: &Rules) {
        let name = attributes.get("TenderType").unwrap_or_default();
        self.line.tender = Some(rules.tenders.of(&name));
        self.line.is_refund = attributes.is_any("TypeCode", &["Refund", "Return", "Change"]);
    }

    fn enter_total(&mut self, attributes: &Attributes<'_>, rules: &Rules) {
        self.total = match attributes.get("TotalType").as_deref() {
            Some("TransactionGrandAmount") => TotalKind::Grand,
            Some("TransactionNetAmount") => TotalKind::Net,
            Some("TransactionTaxAmount") => TotalKind::Tax,
            _ => TotalKind::Other,
        };
        if self.total != TotalKind::Other {
            self.is_other_currency |= attributes.is_other_currency(rules);
        }
    }

    /// An element ends; `path` goes from the transaction to it, `text` is its own.
    pub(crate) fn leave(&mut self, path: &[Tag], text: &str, rules: &Rules) {
        match path {
            [Tag::Transaction, header] => self.leave_header(*header, text, rules),
            [Tag::Transaction, Tag::BusinessUnit, Tag::UnitId] => keep_first(&mut self.store, text),
            [Tag::Transaction, Tag::RetailTransaction, Tag::ReceiptDateTime] => {
                keep_first(&mut self.receipt_time, text)
            }
            [Tag::Transaction, Tag::RetailTransaction, Tag::NegativeTotalFlag] => {
                self.is_negative_total = is_true(text)
            }
            [
                Tag::Transaction,
                Tag::RetailTransaction,
                Tag::TransactionLink,
                Tag::SequenceNumber,
            ] if self.is_voiding_link => keep_first(&mut self.voided_sequence, text),
            [Tag::Transaction, Tag::RetailTransaction, Tag::LineItem] => self.leave_line(),
            // What is empty is not there.
            _ if text.is_empty() => {}
            [Tag::Transaction, Tag::RetailTransaction, Tag::Total]
            | [Tag::Transaction, Tag::RetailTransaction, Tag::Total, Tag::Amount] => self.leave_total(text, rules),
            [Tag::Transaction, Tag::RetailTransaction, Tag::LineItem, below @ ..] => {
                self.leave_in_line(below, text, rules);
            }
            _ => {}
        }
    }

    fn leave_header(&mut self, header: Tag, text: &str, rules: &Rules) {
        match header {
            Tag::RetailStoreId => text.clone_into(&mut self.store),
            Tag::WorkstationId => text.clone_into(&mut self.workstation),
            Tag::SequenceNumber => text.clone_into(&mut self.sequence),
            Tag::BusinessDayDate => text.clone_into(&mut self.business_day),
            Tag::EndDateTime => text.clone_into(&mut self.end_time),
            Tag::BeginDateTime => text.clone_into(&mut self.begin_time),
            Tag::PosLogDateTime => match self.log_kind {
                LogKind::Transaction => text.clone_into(&mut self.log_time),
                LogKind::Message => text.clone_into(&mut self.message_time),
                LogKind::Unsaid => keep_first(&mut self.log_time, text),
            },
            Tag::CurrencyCode => self.is_other_currency |= !text.is_empty() && !rules.currency.is(text),
            _ => {}
        }
    }

    fn leave_total(&mut self, text: &str, rules: &Rules) {
        let minor = Some(minor(text, rules));
        match self.total {
            TotalKind::Grand => self.grand = minor,
            TotalKind::Net => self.net = minor,
            TotalKind::Tax => self.tax = minor,
            TotalKind::Other => {}
        }
    }

    /// `path` goes on from the line item.
    fn leave_in_line(&mut self, path: &[Tag], text: &str, rules: &Rules) {
        match path {
            [Tag::SequenceNumber] => self.line.number = text.parse().ok(),
            [Tag::ItemLink] | [Tag::Sale | Tag::Return, Tag::ItemLink] => self.line.link = text.parse().ok(),
            [Tag::Sale, Tag::Quantity] => {
                let quantity = Decimal::parse(text);
                self.line.is_negative = quantity.is_ok() && text.starts_with('-');
                self.line.quantity = quantity.and_then(Decimal::whole).ok();
            }
            [Tag::Tender, Tag::Amount] => self.line.tendered_minor = self.line.minor(text, rules),
            [Tag::TenderChange, Tag::Amount]
            | [Tag::TenderChange | Tag::Tender, Tag::TenderChange, Tag::Amount]
            | [Tag::Tender, Tag::Cashback]
            | [Tag::Tender, Tag::Cashback, Tag::Amount] => {
                let given_back = self.line.minor(text, rules).saturating_abs();
                self.line.given_back_minor = self.line.given_back_minor.saturating_add(given_back);
            }
            _ => {}
        }
    }

    fn leave_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_void {
            self.sold.void(line.link);
            return;
        }
        if line.is_return || line.is_negative {
            self.returned_items = self.returned_items.saturating_add(1);
        } else if line.is_sale {
            let quantity = line.quantity.filter(|_| !line.is_weighed).unwrap_or(1);
            self.sold.add(line.number, quantity.clamp(1, QUANTITY_MAX));
        }
        self.wrong_tender = self.wrong_tender.or(line.wrong);
        if line.is_foreign && !line.is_converted {
            self.is_foreign_tender = true;
            return;
        }
        if let Some(tender) = line.tender {
            let paid_back = line.tendered_minor.saturating_abs().saturating_neg();
            self.paid
                .add(tender, if line.is_refund { paid_back } else { line.tendered_minor });
        }
        if line.given_back_minor > 0 {
            let tender = line.change.or(line.tender).unwrap_or(Tender::Cash);
            self.paid.add(tender, line.given_back_minor.saturating_neg());
        }
    }

    pub(crate) fn sold_items(&self) -> i64 {
        self.sold.items
    }
}

impl Sold {
    fn add(&mut self, line: Option<u32>, items: i64) {
        self.items = self.items.saturating_add(items);
        self.lines
            .extend(line.filter(|_| self.lines.len() < LINES_MAX).map(|line| (line, items)));
    }

    /// A voiding line reverses the one that it links to, which is not marked itself.
    fn void(&mut self, line: Option<u32>) {
        if let Some(place) = self.lines.iter().position(|(sold, _)| Some(*sold) == line) {
            let (_, items) = self.lines.swap_remove(place);
            self.items = self.items.saturating_sub(items);
        }
    }
}

impl Line {
    /// An amount in minor units; a wrong one makes the line wrong.
    fn minor(&mut self, text: &str, rules: &Rules) -> i64 {
        minor(text, rules).unwrap_or_else(|wrong| {
            self.wrong.get_or_insert(wrong);
            0
        })
    }
}

fn minor(text: &str, rules: &Rules) -> Result<i64, Wrong> {
    Decimal::parse(text)?.units(rules.currency.decimals())
}

/// As XML and as programs write it.
fn is_true(text: &str) -> bool {
    ["true", "1", "y", "yes"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

fn keep_first(field: &mut String, text: &str) {
    if field.is_empty() {
        text.clone_into(field);
    }
}
