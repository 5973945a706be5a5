//! What a transaction counts as: the rules that make sales from what a point of sale logs.
//!
//! Sums of lines are wrong on every real format (deposits, rounding, discounts on the whole basket), so the amount is
//! the grand amount, else net and tax, else what was paid.

use tillwatch_sdk::parse::{Wrong, time_ms};

use crate::Rules;
use crate::draft::Draft;
use crate::row::Reading;
use crate::seen::Key;
use crate::tender::Paid;

/// What a transaction counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and most are sales")]
pub(crate) enum Outcome {
    Sale(Sale),
    /// Canceled or voided.
    Void {
        time_ms: u64,
        /// Of a later transaction that voids a sale: what is booked back, below zero.
        taken_back: Option<Sale>,
    },
    /// Control, training, suspended: not sold.
    Other,
}

/// A finished sale or return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sale {
    pub(crate) time_ms: u64,
    /// Empty when it is not known.
    pub(crate) lane: String,
    pub(crate) amount_minor: i64,
    pub(crate) tax_minor: Option<i64>,
    pub(crate) items: Option<i64>,
    pub(crate) is_return: bool,
    pub(crate) paid: Paid,
    /// What could not be read beside the amount; it is left out.
    pub(crate) flaw: Option<Wrong>,
}

/// What the status of a retail transaction means for us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Finished,
    Unfinished,
    Void,
    /// Voided by, or being, a later transaction.
    PostVoid,
}

impl Outcome {
    pub(crate) fn time_ms(&self) -> Option<u64> {
        match self {
            Self::Sale(sale) => Some(sale.time_ms),
            Self::Void { time_ms, .. } => Some(*time_ms),
            Self::Other => None,
        }
    }
}

impl Draft {
    /// What the ledger takes.
    pub(crate) fn read(&self, rules: &Rules) -> Reading {
        let time = self.time(rules);
        Reading {
            key: self.key(time.map_or("", |(day, _)| day)),
            outcome: self.outcome(time.map(|(_, time_ms)| time_ms)),
        }
    }

    /// What tells this transaction from all others; none when it has no number. `time` is for one that names no day.
    fn key(&self, time: &str) -> Option<Key> {
        if self.sequence.is_empty() || self.workstation.is_empty() {
            return None;
        }
        let day = if self.business_day.is_empty() {
            time
        } else {
            &self.business_day
        };
        let day: String = day
            .chars()
            .take_while(|c| *c != 'T')
            .filter(char::is_ascii_digit)
            .take(8)
            .collect();
        Some(Key::new(
            day.parse().unwrap_or(0),
            &[&self.store, &self.workstation],
            &self.sequence,
        ))
    }

    /// What it counts as.
    ///
    /// # Errors
    /// What is wrong when it should count and cannot.
    fn outcome(&self, time_ms: Result<u64, Wrong>) -> Result<Outcome, Wrong> {
        let status = if self.is_suspended {
            Status::Unfinished
        } else {
            status(&self.status)
        };
        if !self.is_retail || self.is_training || status == Status::Unfinished {
            return Ok(Outcome::Other);
        }
        let time_ms = time_ms?;
        if self.is_cancelled || matches!(status, Status::Void | Status::PostVoid) {
            let taken_back = self.taken_back(time_ms).filter(|_| status == Status::PostVoid);
            return Ok(Outcome::Void { time_ms, taken_back });
        }
        self.sale(time_ms, self.is_turned()).map(Outcome::Sale)
    }

    /// `is_turned` when it gives back, whatever the signs.
    fn sale(&self, time_ms: u64, is_turned: bool) -> Result<Sale, Wrong> {
        if self.is_other_currency {
            return Err(Wrong::Currency);
        }
        let turned = |minor: i64| {
            if is_turned {
                minor.saturating_abs().saturating_neg()
            } else {
                minor
            }
        };
        let amount_minor = turned(self.amount_minor()?);
        let paid_in = self.paid.total_minor().is_some_and(|paid| paid > 0);
        Ok(Sale {
            time_ms,
            lane: self.workstation.clone(),
            amount_minor,
            tax_minor: self.tax.and_then(Result::ok).map(turned),
            items: Some(self.sold_items()),
            is_return: self.returned_items > 0 || amount_minor < 0,
            paid: if is_turned && paid_in {
                self.paid.negated()
            } else {
                self.paid.clone()
            },
            flaw: self.tax.and_then(Result::err).or(self.wrong_tender),
        })
    }

    /// A later transaction that voids a sale is written below zero, or names the sale; of one that voids a return and
    /// has no sign nobody knows the direction.
    fn taken_back(&self, time_ms: u64) -> Option<Sale> {
        let names_another = !self.voided_sequence.is_empty() && self.voided_sequence != self.sequence;
        let is_back = self.amount_minor().ok()? < 0 || (names_another && self.returned_items == 0);
        is_back.then(|| self.sale(time_ms, true).ok())?
    }

    /// Some systems write what was paid back as a positive amount.
    fn is_turned(&self) -> bool {
        self.is_negative_total || (self.returned_items > 0 && self.sold_items() == 0)
    }

    fn amount_minor(&self) -> Result<i64, Wrong> {
        if let Some(grand) = self.grand {
            return grand;
        }
        if let Some(net) = self.net {
            return Ok(net?.saturating_add(self.tax.unwrap_or(Ok(0))?));
        }
        if let Some(wrong) = self.wrong_tender {
            return Err(wrong);
        }
        // What was paid in another currency cannot be summed up.
        let paid = self.paid.total_minor().filter(|_| !self.is_foreign_tender);
        paid.ok_or(Wrong::Missing)
    }

    /// The first time that can be read, as text and in milliseconds: a till may write the year 1 for none.
    fn time(&self, rules: &Rules) -> Result<(&str, u64), Wrong> {
        let times = [
            &self.end_time,
            &self.begin_time,
            &self.receipt_time,
            &self.log_time,
            &self.message_time,
        ];
        let mut wrong = Wrong::Missing;
        for time in times.into_iter().filter(|time| !time.is_empty()) {
            match time_ms(time, rules.local) {
                Ok(time_ms) => return Ok((time, time_ms)),
                Err(other) => wrong = other,
            }
        }
        Err(wrong)
    }
}

/// Vendors put a prefix before their own words, and write them in any case.
fn status(status: &str) -> Status {
    let word = status.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
    match word.as_str() {
        "suspended" | "suspendedretrieved" | "suspendeddeleted" | "suspendedcancelled" | "suspendedcanceled"
        | "inprocess" | "inprogress" | "notstarted" | "started" | "pending" | "parked" | "training" | "iteminfo"
        | "scale" | "moved" | "ordered" => Status::Unfinished,
        "voided" | "void" | "canceled" | "cancelled" | "aborted" | "failed" => Status::Void,
        word if word.ends_with("postvoided") || word.ends_with("postvoid") => Status::PostVoid,
        _ => Status::Finished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Settings,
        tender::Tender,
        tests::{rules, transactions},
    };

    /// The outcome of one transaction with this body and these attributes.
    fn outcome(attributes: &str, status: &str, body: &str) -> Result<Outcome, Wrong> {
        let document = format!(
            "<POSLog><Transaction {attributes}><EndDateTime>2026-03-02T12:30:00</EndDateTime>\
             <RetailTransaction TransactionStatus=\"{status}\">{body}</RetailTransaction></Transaction></POSLog>"
        );
        transactions(&document, &rules(Settings::default())).remove(0)
    }

    fn amount(body: &str) -> Option<i64> {
        match outcome("", "", body) {
            Ok(Outcome::Sale(sale)) => Some(sale.amount_minor),
            _ => None,
        }
    }

    fn total(kind: &str, amount: &str) -> String {
        format!("<Total TotalType=\"{kind}\">{amount}</Total>")
    }

    const SOLD: &str = "<LineItem><Sale><ExtendedAmount>99.99</ExtendedAmount><Quantity>2</Quantity></Sale></LineItem>";
    const CASH: &str = "<LineItem><Tender TenderType=\"Cash\"><Amount>20</Amount>\
        <TenderChange><Amount>4.52</Amount></TenderChange></Tender></LineItem>";

    #[test]
    fn the_amount_is_the_grand_amount_else_net_and_tax_else_what_was_paid() {
        let (grand, net) = (
            total("TransactionGrandAmount", "15.48"),
            total("TransactionNetAmount", "13.00"),
        );
        let tax = total("TransactionTaxAmount", "2.47");
        assert_eq!(amount(&format!("{SOLD}{CASH}{net}{tax}{grand}")), Some(1548));
        assert_eq!(amount(&format!("{SOLD}{CASH}{net}{tax}")), Some(1547));
        assert_eq!(amount(&format!("{SOLD}{CASH}{net}")), Some(1300));
        assert_eq!(amount(&format!("{SOLD}{CASH}{tax}")), Some(1548));
        assert_eq!(outcome("", "", SOLD), Err(Wrong::Missing));
    }

    #[test]
    fn what_is_not_sold_does_not_count() {
        let grand = total("TransactionGrandAmount", "15.48");
        let void = Ok(Outcome::Void {
            time_ms: 1_772_454_600_000,
            taken_back: None,
        });
        for (attributes, status, expected) in [
            ("CancelFlag=\"true\"", "", void.clone()),
            ("", "Voided", void.clone()),
            ("", "acs:PostVoided", void.clone()),
            ("TrainingModeFlag=\"1\"", "", Ok(Outcome::Other)),
            ("TrainingModeFlag=\"true\" CancelFlag=\"true\"", "", Ok(Outcome::Other)),
            ("", "Suspended", Ok(Outcome::Other)),
            ("", "SuspendedRetrieved", Ok(Outcome::Other)),
        ] {
            assert_eq!(outcome(attributes, status, &grand), expected, "{attributes} {status}");
        }
        assert!(matches!(
            outcome("CancelFlag=\"false\"", "Finished", &grand),
            Ok(Outcome::Sale(_))
        ));
    }

    #[test]
    fn what_only_gives_back_is_negative_whatever_its_sign() {
        let back = "<LineItem><Return><Quantity>1</Quantity></Return></LineItem>";
        assert_eq!(
            amount(&format!("{back}{}", total("TransactionGrandAmount", "5.00"))),
            Some(-500)
        );
        assert_eq!(
            amount(&format!("{back}{}", total("TransactionGrandAmount", "-5.00"))),
            Some(-500)
        );
        assert_eq!(
            amount(&format!("{back}{SOLD}{}", total("TransactionGrandAmount", "5.00"))),
            Some(500)
        );
    }

    #[test]
    fn tenders_are_less_change_and_cash_back_and_void_lines() {
        let body = format!(
            "{CASH}<LineItem><Tender TenderType=\"acs:CreditDebit\"><Amount>120</Amount><Cashback>20</Cashback></Tender></LineItem>\
             <LineItem VoidFlag=\"true\"><Tender TenderType=\"Check\"><Amount>7</Amount></Tender></LineItem>\
             <LineItem><Tender TenderType=\"Voucher\" TypeCode=\"Refund\"><Amount>3</Amount></Tender></LineItem>\
             <LineItem><TenderChange TenderType=\"Cash\"><Amount>0.48</Amount></TenderChange></LineItem>"
        );
        let Ok(Outcome::Sale(sale)) = outcome("", "", &body) else {
            panic!("no sale")
        };
        let paid: Vec<_> = sale.paid.iter().collect();
        assert_eq!(
            paid,
            [(Tender::Cash, 1500), (Tender::Card, 10_000), (Tender::Voucher, -300)]
        );
        assert_eq!(sale.amount_minor, 11_200);
    }

    #[test]
    fn a_weighed_item_is_one_and_void_lines_are_none() {
        let quantity = |attribute: &str, quantity: &str| {
            format!("<LineItem><Sale><Quantity {attribute}>{quantity}</Quantity></Sale></LineItem>")
        };
        let body = [
            total("TransactionGrandAmount", "1"),
            quantity("", "3"),
            quantity("", "0.42"),
            quantity("UnitOfMeasureCode=\"KGM\"", "2"),
            quantity("UnitOfMeasureCode=\"EA\"", "2.000"),
            quantity("", "many"),
            "<LineItem CancelFlag=\"true\"><Sale><Quantity>9</Quantity></Sale></LineItem>".to_owned(),
        ];
        let Ok(Outcome::Sale(sale)) = outcome("", "", &body.concat()) else {
            panic!("no sale")
        };
        assert_eq!(sale.items, Some(3 + 1 + 1 + 2 + 1));
    }

    #[test]
    fn another_currency_or_a_wrong_amount_is_told() {
        let grand = total("TransactionGrandAmount", "1,07");
        assert_eq!(outcome("", "", &grand), Err(Wrong::Number));
        let dollars = "<Total TotalType=\"TransactionGrandAmount\" CurrencyCode=\"USD\">1.07</Total>";
        assert_eq!(outcome("", "", dollars), Err(Wrong::Currency));
    }
}
