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
    pub(crate) is_retail: bool,
    pub(crate) is_training: bool,
    pub(crate) is_cancelled: bool,
    pub(crate) status: String,
    pub(crate) is_other_currency: bool,
    /// Something was paid in another currency, which counts for no tender.
    pub(crate) is_foreign_tender: bool,
    pub(crate) grand_minor: Option<i64>,
    pub(crate) net_minor: Option<i64>,
    pub(crate) tax_minor: Option<i64>,
    pub(crate) sold_items: i64,
    pub(crate) returned_items: i64,
    pub(crate) paid: Paid,
    /// The first thing that could not be read.
    pub(crate) wrong: Option<Wrong>,
    line: Line,
    total: TotalKind,
}

/// The line item that is being read.
#[derive(Debug, Default)]
struct Line {
    is_void: bool,
    is_sale: bool,
    is_return: bool,
    quantity: Option<i64>,
    is_weighed: bool,
    /// The tender and, apart from it, the one that the change was given in.
    tender: Option<Tender>,
    change: Option<Tender>,
    is_refund: bool,
    is_foreign: bool,
    tendered_minor: i64,
    given_back_minor: i64,
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
    fn get(&self, local_name: &str) -> Option<String> {
        let mut attributes = self.0.attributes();
        // Looking for repeated attributes takes quadratic time.
        let mut known = attributes.with_checks(false).filter_map(Result::ok);
        let found = known.find(|attribute| attribute.key.local_name().as_ref() == local_name)?;
        Some(found.value.trim_ascii().to_owned())
    }

    /// Of 2.1 and 6.0 by their own names.
    fn is_other_currency(&self, rules: &Rules) -> bool {
        let currency = self.get("CurrencyCode").or_else(|| self.get("Currency"));
        currency.is_some_and(|code| code != rules.currency.code())
    }

    fn is_true(&self, local_name: &str) -> bool {
        self.get(local_name)
            .is_some_and(|value| value == "true" || value == "1")
    }
}

impl Draft {
    /// An element begins; `path` goes from the transaction to it.
    pub(crate) fn enter(&mut self, path: &[Tag], attributes: &Attributes<'_>, rules: &Rules) {
        use Tag::{LineItem, Quantity, RetailTransaction, Return, Sale, TenderChange, Total, Transaction};
        match path {
            [Transaction] => {
                self.is_cancelled = attributes.is_true("CancelFlag");
                self.is_training = attributes.is_true("TrainingModeFlag");
            }
            [Transaction, RetailTransaction] => {
                self.is_retail = true;
                self.status = attributes.get("TransactionStatus").unwrap_or_default();
                self.is_cancelled |= attributes.is_true("CancelFlag");
            }
            [Transaction, RetailTransaction, LineItem] => {
                let is_void = attributes.is_true("VoidFlag") || attributes.is_true("CancelFlag");
                self.line = Line {
                    is_void,
                    ..Line::default()
                };
            }
            [Transaction, RetailTransaction, LineItem, Sale] => self.line.is_sale = true,
            [Transaction, RetailTransaction, LineItem, Return] => self.line.is_return = true,
            [Transaction, RetailTransaction, LineItem, Sale, Quantity] => {
                let unit = attributes.get("UnitOfMeasureCode");
                self.line.is_weighed = unit.is_some_and(|unit| !unit.eq_ignore_ascii_case("EA"));
            }
            [Transaction, RetailTransaction, LineItem, Tag::Tender] => self.enter_tender(attributes, rules),
            [Transaction, RetailTransaction, LineItem, TenderChange]
            | [Transaction, RetailTransaction, LineItem, Tag::Tender, TenderChange] => {
                self.line.change = attributes.get("TenderType").map(|name| rules.tenders.of(&name));
            }
            [Transaction, RetailTransaction, Total] => self.enter_total(attributes, rules),
            [Transaction, RetailTransaction, LineItem, Tag::Tender, Tag::Amount] => {
                self.line.is_foreign = attributes.is_other_currency(rules);
            }
            [Transaction, RetailTransaction, Total, Tag::Amount] if self.total != TotalKind::Other => {
                self.is_other_currency |= attributes.is_other_currency(rules);
            }
            _ => {}
        }
    }

    fn enter_tender(&mut self, attributes: &Attributes<'_>, rules: &Rules) {
        let name = attributes.get("TenderType").unwrap_or_default();
        self.line.tender = Some(rules.tenders.of(&name));
        let code = attributes.get("TypeCode").unwrap_or_default();
        self.line.is_refund = ["Refund", "Return", "Change"].contains(&code.as_str());
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
        use Tag::{
            Amount, BusinessUnit, Cashback, LineItem, Quantity, RetailTransaction, Sale, TenderChange, Transaction,
        };
        match path {
            [Transaction, header] => self.leave_header(*header, text, rules),
            [Transaction, BusinessUnit, Tag::UnitId] => keep_first(&mut self.store, text),
            [Transaction, RetailTransaction, Tag::ReceiptDateTime] => keep_first(&mut self.receipt_time, text),
            [Transaction, RetailTransaction, Tag::Total] if text.is_empty() => {}
            [Transaction, RetailTransaction, Tag::Total] | [Transaction, RetailTransaction, Tag::Total, Amount] => {
                self.leave_total(text, rules);
            }
            [Transaction, RetailTransaction, LineItem] => self.leave_line(),
            [Transaction, RetailTransaction, LineItem, Sale, Quantity] => {
                self.line.quantity = Decimal::parse(text).and_then(Decimal::whole).ok();
            }
            [Transaction, RetailTransaction, LineItem, Tag::Tender, Amount] => {
                self.line.tendered_minor = self.minor(text, rules);
            }
            [Transaction, RetailTransaction, LineItem, Tag::Tender, Cashback] if text.is_empty() => {}
            [Transaction, RetailTransaction, LineItem, TenderChange, Amount]
            | [
                Transaction,
                RetailTransaction,
                LineItem,
                Tag::Tender,
                TenderChange,
                Amount,
            ]
            | [Transaction, RetailTransaction, LineItem, Tag::Tender, Cashback]
            | [Transaction, RetailTransaction, LineItem, Tag::Tender, Cashback, Amount] => {
                let given_back = self.minor(text, rules).saturating_abs();
                self.line.given_back_minor = self.line.given_back_minor.saturating_add(given_back);
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
            Tag::PosLogDateTime => text.clone_into(&mut self.log_time),
            Tag::CurrencyCode => self.is_other_currency |= text != rules.currency.code(),
            _ => {}
        }
    }

    fn leave_total(&mut self, text: &str, rules: &Rules) {
        if self.total == TotalKind::Other {
            return;
        }
        let minor = Some(self.minor(text, rules));
        match self.total {
            TotalKind::Grand => self.grand_minor = minor,
            TotalKind::Net => self.net_minor = minor,
            TotalKind::Tax => self.tax_minor = minor,
            TotalKind::Other => {}
        }
    }

    fn leave_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_void {
            return;
        }
        if line.is_sale {
            let quantity = line
                .quantity
                .filter(|_| !line.is_weighed)
                .unwrap_or(1)
                .clamp(1, QUANTITY_MAX);
            self.sold_items = self.sold_items.saturating_add(quantity);
        }
        if line.is_return {
            self.returned_items = self.returned_items.saturating_add(1);
        }
        self.is_foreign_tender |= line.is_foreign;
        if let Some(tender) = line.tender.filter(|_| !line.is_foreign) {
            let paid_back = line.tendered_minor.saturating_abs().saturating_neg();
            self.paid
                .add(tender, if line.is_refund { paid_back } else { line.tendered_minor });
        }
        if let Some(tender) = line
            .change
            .or(line.tender)
            .or(Some(Tender::Cash))
            .filter(|_| line.given_back_minor > 0)
        {
            self.paid.add(tender, line.given_back_minor.saturating_neg());
        }
    }

    /// An amount in minor units; a wrong one makes the transaction wrong.
    fn minor(&mut self, text: &str, rules: &Rules) -> i64 {
        let minor = Decimal::parse(text).and_then(|amount| amount.units(rules.currency.decimals()));
        minor.unwrap_or_else(|wrong| {
            self.wrong.get_or_insert(wrong);
            0
        })
    }
}

fn keep_first(field: &mut String, text: &str) {
    if field.is_empty() {
        text.clone_into(field);
    }
}
