//! What the operator decides; see `plugin.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tillwatch_sdk::parse::Zone;

use crate::number::DecimalMark;
use crate::odoo::Api;
use crate::tender::Tender;
use crate::when::DateOrder;

/// How totals of rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AmountUnit {
    /// 19.99
    Major,
    /// 1999
    Minor,
    /// 19990 with three decimals implied.
    Implied,
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RowsAre {
    Transactions,
    /// Items or tenders of a transaction, one after the other.
    Parts,
}

/// What documents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Each tells by its first signs.
    Auto,
    Poslog,
    Json,
    Csv,
    Dsfinvk,
}

/// The plugin's settings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub(crate) currency: String,
    pub(crate) time_zone: Zone,
    pub(crate) opening_hours: String,
    pub(crate) opening_days: Vec<String>,
    pub(crate) business_day_start: String,
    pub(crate) tenders: BTreeMap<String, Tender>,
    pub(crate) format: Format,
    pub(crate) revenue_types: Vec<String>,
    pub(crate) separator: String,
    pub(crate) decimal_mark: DecimalMark,
    pub(crate) amount_unit: AmountUnit,
    pub(crate) implied_decimals: u8,
    pub(crate) date_order: DateOrder,
    pub(crate) rows: RowsAre,
    pub(crate) field_time: String,
    pub(crate) field_clock: String,
    pub(crate) field_zones: BTreeMap<String, Zone>,
    pub(crate) field_total: String,
    pub(crate) field_tax: String,
    pub(crate) field_items: String,
    pub(crate) field_tender: String,
    pub(crate) field_tender_amount: String,
    pub(crate) field_currency: String,
    pub(crate) field_type: String,
    pub(crate) sale_types: Vec<String>,
    pub(crate) void_types: Vec<String>,
    pub(crate) field_transaction: String,
    pub(crate) field_store: String,
    pub(crate) field_lane: String,
    pub(crate) field_business_day: String,
    pub(crate) cursor: String,
    pub(crate) cursor_overlap: u32,
    pub(crate) odoo_api: Api,
    pub(crate) odoo_database: String,
    pub(crate) odoo_login: String,
}

impl Default for Settings {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            currency: "EUR".to_owned(),
            time_zone: Zone::default(),
            opening_hours: "00:00-24:00".to_owned(),
            opening_days: texts(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]),
            business_day_start: "00:00".to_owned(),
            tenders: BTreeMap::new(),
            format: Format::Auto,
            revenue_types: texts(&[
                "Umsatz",
                "Rabatt",
                "Aufschlag",
                "ZuschussEcht",
                "ZuschussUnecht",
                "TrinkgeldAG",
                "EinzweckgutscheinKauf",
                "EinzweckgutscheinEinloesung",
            ]),
            separator: "auto".to_owned(),
            decimal_mark: DecimalMark::Point,
            amount_unit: AmountUnit::Major,
            implied_decimals: 2,
            date_order: DateOrder::Dmy,
            rows: RowsAre::Transactions,
            field_time: "time".to_owned(),
            field_clock: String::new(),
            field_zones: BTreeMap::new(),
            field_total: "total".to_owned(),
            field_tax: String::new(),
            field_items: "items".to_owned(),
            field_tender: "tender".to_owned(),
            field_tender_amount: String::new(),
            field_currency: String::new(),
            field_type: String::new(),
            sale_types: texts(&["sale", "return"]),
            void_types: texts(&["void", "cancelled"]),
            field_transaction: String::new(),
            field_store: String::new(),
            field_lane: String::new(),
            field_business_day: String::new(),
            cursor: "id".to_owned(),
            cursor_overlap: 0,
            odoo_api: Api::CallKw,
            odoo_database: String::new(),
            odoo_login: String::new(),
        }
    }
}
