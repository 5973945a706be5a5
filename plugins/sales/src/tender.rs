//! How it was paid: a closed list, so that no text of a receipt leaves the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is looked at of a name.
const WORD_BYTES_MAX: usize = 32;

/// The tenders that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tender {
    /// Notes and coins.
    Cash,
    /// Credit and debit cards.
    Card,
    /// A phone or an online wallet.
    Mobile,
    /// Checks.
    Check,
    /// Vouchers, coupons and certificates on paper.
    Voucher,
    /// Cards that hold money of the chain.
    GiftCard,
    /// On account of the customer or a company.
    Account,
    /// Points.
    Loyalty,
    /// Anything else.
    Other,
}

impl Tender {
    const COUNT: usize = 9;
    const ALL: [Self; Self::COUNT] = [
        Self::Cash,
        Self::Card,
        Self::Mobile,
        Self::Check,
        Self::Voucher,
        Self::GiftCard,
        Self::Account,
        Self::Loyalty,
        Self::Other,
    ];

    /// The label's value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cash => "cash",
            Self::Card => "card",
            Self::Mobile => "mobile",
            Self::Check => "check",
            Self::Voucher => "voucher",
            Self::GiftCard => "gift_card",
            Self::Account => "account",
            Self::Loyalty => "loyalty",
            Self::Other => "other",
        }
    }
}

/// From names to tenders: the operator's own first, then those of POSLog and common English ones.
pub(crate) struct Tenders {
    own: BTreeMap<String, Tender>,
}

impl Tenders {
    pub(crate) fn new(own: BTreeMap<String, Tender>) -> Self {
        Self { own }
    }

    /// What the operator says about a name.
    pub(crate) fn own(&self, name: &str) -> Option<Tender> {
        self.own.get(name).copied()
    }

    /// Case, blanks and a vendor's prefix do not matter.
    pub(crate) fn of(&self, name: &str) -> Tender {
        if let Some(tender) = self.own(name) {
            return tender;
        }
        let mut word = [0; WORD_BYTES_MAX];
        match plain(name.rsplit(':').next().unwrap_or_default(), &mut word) {
            "cash" | "bar" | "bargeld" => Tender::Cash,
            "card" | "creditdebit" | "credit" | "debit" | "creditcard" | "debitcard" | "bank" | "ec" | "eckarte"
            | "eccash" | "karte" | "kreditkarte" | "girocard" | "visa" | "mastercard" | "maestro" | "amex" | "ebt" => {
                Tender::Card
            }
            "mobile"
            | "mobilepayment"
            | "wallet"
            | "ewallet"
            | "applepay"
            | "googlepay"
            | "paypal"
            | "elzahlungsdienstleister" => Tender::Mobile,
            "check" | "cheque" | "travelerscheck" | "echeck" => Tender::Check,
            "voucher" | "gutschein" | "coupon" | "manufacturercoupon" | "giftcertificate" => Tender::Voucher,
            "giftcard" | "storedvalue" | "guthabenkarte" => Tender::GiftCard,
            "account" | "customeraccount" | "accountsreceivable" | "purchaseorder" | "housecharge" => Tender::Account,
            "loyalty" | "points" | "loyaltypoints" => Tender::Loyalty,
            _ => Tender::Other,
        }
    }
}

/// Letters and digits, in lower case.
fn plain<'w>(text: &str, word: &'w mut [u8; WORD_BYTES_MAX]) -> &'w str {
    let letters = text.bytes().filter(u8::is_ascii_alphanumeric);
    let count = word
        .iter_mut()
        .zip(letters)
        .map(|(place, letter)| *place = letter.to_ascii_lowercase())
        .count();
    std::str::from_utf8(word.get(..count).unwrap_or_default()).unwrap_or_default()
}

/// What was paid by each tender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paid {
    minor: [Option<i64>; Tender::COUNT],
}

impl Paid {
    /// All of them the other way round.
    pub(crate) fn negated(&self) -> Self {
        Self {
            minor: self.minor.map(|minor| minor.map(i64::saturating_neg)),
        }
    }

    /// Adds to a tender.
    pub(crate) fn add(&mut self, tender: Tender, minor: i64) {
        if let Some(sum) = self.minor.get_mut(tender as usize) {
            *sum = Some(sum.unwrap_or(0).saturating_add(minor));
        }
    }

    /// The tenders that were used.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tender, i64)> {
        Tender::ALL
            .into_iter()
            .zip(self.minor)
            .filter_map(|(tender, minor)| Some((tender, minor?)))
    }

    /// All of them together; none when none was used.
    pub(crate) fn total_minor(&self) -> Option<i64> {
        self.iter().map(|(_, minor)| minor).reduce(i64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_names_come_first() {
        let tenders = Tenders::new(BTreeMap::from([
            ("12".to_owned(), Tender::Card),
            ("Cash".to_owned(), Tender::Other),
        ]));
        for (name, tender) in [
            ("12", Tender::Card),
            ("Cash", Tender::Other),
            ("cash", Tender::Cash),
            ("acs:CreditDebit", Tender::Card),
            ("Gift Card", Tender::GiftCard),
            ("Gutschein", Tender::Voucher),
            ("EC-Cash", Tender::Card),
            ("VISA", Tender::Card),
            ("John Smith", Tender::Other),
            ("", Tender::Other),
        ] {
            assert_eq!(tenders.of(name), tender, "{name}");
        }
    }

    #[test]
    fn all_tenders_have_their_place() {
        for (place, tender) in Tender::ALL.into_iter().enumerate() {
            assert_eq!(tender as usize, place);
        }
    }
}
