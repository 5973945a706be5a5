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
}

/// What the status of a retail transaction means for us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Finished,
    Unfinished,
    Void,
}

impl Outcome {
    pub(crate) fn time_ms(&self) -> Option<u64> {
        match self {
            Self::Sale(sale) => Some(sale.time_ms),
            Self::Void { time_ms } => Some(*time_ms),
            Self::Other => None,
        }
    }
}

impl Draft {
    /// What the ledger takes.
    pub(crate) fn read(&self, rules: &Rules) -> Result<Reading, Wrong> {
        let (key, outcome) = (self.key(), self.outcome(rules)?);
        Ok(Reading { key, outcome })
    }

    /// What tells this transaction from all others; none when it has no number.
    pub(crate) fn key(&self) -> Option<Key> {
        if self.sequence.is_empty() || self.workstation.is_empty() {
            return None;
        }
        let day = if self.business_day.is_empty() {
            self.time()
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
    pub(crate) fn outcome(&self, rules: &Rules) -> Result<Outcome, Wrong> {
        let status = status(&self.status);
        if !self.is_retail || self.is_training || status == Status::Unfinished {
            return Ok(Outcome::Other);
        }
        let time = self.time();
        if time.is_empty() {
            return Err(Wrong::Missing);
        }
        let time_ms = time_ms(time, rules.local)?;
        if self.is_cancelled || status == Status::Void {
            return Ok(Outcome::Void { time_ms });
        }
        if self.is_other_currency {
            return Err(Wrong::Currency);
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let amount_minor = self.amount_minor().ok_or(Wrong::Missing)?;
        Ok(Outcome::Sale(Sale {
            time_ms,
            lane: self.workstation.clone(),
            amount_minor,
            tax_minor: self.tax_minor.map(|tax_minor| self.given_back(tax_minor)),
            items: Some(self.sold_items),
            is_return: self.returned_items > 0 || amount_minor < 0,
            paid: self.paid.clone(),
        }))
    }

    /// Some systems write what was paid back as a positive amount.
    fn amount_minor(&self) -> Option<i64> {
        let net_and_tax = || Some(self.net_minor?.saturating_add(self.tax_minor.unwrap_or(0)));
        // What was paid in another currency cannot be summed up.
        let paid = || self.paid.total_minor().filter(|_| !self.is_foreign_tender);
        let amount = self.grand_minor.or_else(net_and_tax).or_else(paid)?;
        Some(self.given_back(amount))
    }

    fn given_back(&self, minor: i64) -> i64 {
        let only_returned = self.returned_items > 0 && self.sold_items == 0;
        if only_returned {
            minor.saturating_abs().saturating_neg()
        } else {
            minor
        }
    }

    fn time(&self) -> &str {
        let times = [&self.end_time, &self.begin_time, &self.receipt_time, &self.log_time];
        times
            .into_iter()
            .find(|time| !time.is_empty())
            .map_or("", String::as_str)
    }
}

/// Vendors put a prefix before their own words.
fn status(status: &str) -> Status {
    let word = status.rsplit(':').next().unwrap_or_default();
    match word {
        "Suspended" | "SuspendedRetrieved" | "SuspendedDeleted" | "InProcess" | "InProgress" | "Started"
        | "Pending" | "Training" => Status::Unfinished,
        "Voided" | "Void" | "PostVoided" | "PostVoid" | "Canceled" | "Cancelled" | "Aborted" | "Failed" => Status::Void,
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
