//! One transaction of a row, whatever the row came from: a JSON line, a CSV record, a row of a query, an order of Odoo.
//!
//! In: the values of the fields that the settings name. Out: what the transaction counts as, or what is wrong with the row.

use std::borrow::Cow;

use tillwatch_sdk::parse::{Decimal, FieldMap, Value, Wrong, Zone, time_ms};

use crate::number::{self, DecimalMark};
use crate::seen::Key;
use crate::tender::Paid;
use crate::transaction::{Outcome, Sale};
use crate::when::{self, DateOrder};
use crate::{AmountUnit, Rules, Settings};

/// A row with more items is a broken one.
const ITEMS_MAX: i64 = 100_000;
/// Decimals that tell a fraction of an item.
const MICRO: u8 = 6;

/// What a row may hold, in the order of [`Row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Time,
    Clock,
    Total,
    Tax,
    Items,
    Tender,
    TenderAmount,
    Currency,
    Type,
    Transaction,
    Store,
    Lane,
    BusinessDay,
}

pub(crate) const FIELDS: usize = 13;
/// The values of a row, in the order of [`Field`].
pub(crate) type Row<'a> = [Option<Value<'a>>; FIELDS];

/// Reads rows as the settings say.
pub(crate) struct Mapping {
    pub(crate) names: [String; FIELDS],
    json: FieldMap<FIELDS>,
    amount_unit: AmountUnit,
    implied_decimals: u8,
    mark: DecimalMark,
    order: DateOrder,
    zone: Option<Zone>,
    /// None when every row is a sale.
    types: Option<Types>,
    /// Rows that follow each other with the same key are one transaction.
    pub(crate) is_parts: bool,
}

struct Types {
    sale: Vec<String>,
    void: Vec<String>,
}

/// What one row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What tells its transaction from all others, also when it is wrong.
    pub(crate) key: Option<Key>,
    pub(crate) outcome: Result<Outcome, Wrong>,
}

impl Reading {
    pub(crate) fn time_ms(&self) -> Option<u64> {
        self.outcome.as_ref().ok()?.time_ms()
    }

    /// Whether it counts: what does not may be a header.
    pub(crate) fn is_transaction(&self) -> bool {
        matches!(self.outcome, Ok(Outcome::Sale(_) | Outcome::Void { .. }))
    }
}

impl From<Wrong> for Reading {
    fn from(wrong: Wrong) -> Self {
        Self {
            key: None,
            outcome: Err(wrong),
        }
    }
}

impl Mapping {
    pub(crate) fn new(settings: &Settings) -> Self {
        let names = [
            &settings.field_time,
            &settings.field_clock,
            &settings.field_total,
            &settings.field_tax,
            &settings.field_items,
            &settings.field_tender,
            &settings.field_tender_amount,
            &settings.field_currency,
            &settings.field_type,
            &settings.field_transaction,
            &settings.field_store,
            &settings.field_lane,
            &settings.field_business_day,
        ];
        let types = Types {
            sale: settings.sale_types.clone(),
            void: settings.void_types.clone(),
        };
        Self {
            names: names.map(String::clone),
            json: FieldMap::new(names.map(String::as_str)),
            amount_unit: settings.amount_unit,
            implied_decimals: settings.implied_decimals,
            mark: settings.decimal_mark,
            order: settings.date_order,
            zone: settings.field_zones.get(&settings.field_time).copied(),
            types: (!settings.field_type.is_empty()).then_some(types),
            is_parts: settings.rows == crate::RowsAre::Parts,
        }
    }

    /// Reads one JSON line without its end.
    pub(crate) fn read_json(&self, line: &[u8], rules: &Rules) -> Reading {
        match self.json.read(line) {
            Ok(row) => self.read(&row, rules),
            Err(wrong) => wrong.into(),
        }
    }

    /// Reads the fields of a CSV record.
    pub(crate) fn read_texts(&self, texts: [Option<Cow<'_, str>>; FIELDS], rules: &Rules) -> Reading {
        self.read(&texts.map(|text| text.map(Value::Text)), rules)
    }

    /// Reads one row.
    pub(crate) fn read(&self, row: &Row<'_>, rules: &Rules) -> Reading {
        let time_ms = self.time_ms(row, rules);
        Reading {
            key: self.key(row, time_ms.ok(), rules),
            outcome: self.outcome(row, time_ms, rules),
        }
    }

    /// None when the row has no number, or no day.
    fn key(&self, row: &Row<'_>, time_ms: Option<u64>, rules: &Rules) -> Option<Key> {
        let number = get(row, Field::Transaction)?.as_text()?;
        let day = get(row, Field::BusinessDay).and_then(Value::as_text);
        let day = day.and_then(|day| when::day(day, self.order));
        let day = day.or_else(|| Some(rules.hours.business_day(time_ms?)))?;
        let lane = [text(row, Field::Store), text(row, Field::Lane)];
        Some(Key::new(day, &lane, number.trim_ascii()))
    }

    fn outcome(&self, row: &Row<'_>, time_ms: Result<u64, Wrong>, rules: &Rules) -> Result<Outcome, Wrong> {
        let Some(is_void) = self.is_void(get(row, Field::Type)) else {
            return Ok(Outcome::Other);
        };
        let time_ms = time_ms?;
        if is_void {
            let taken_back = None;
            return Ok(Outcome::Void { time_ms, taken_back });
        }
        let currency = get(row, Field::Currency).map(|currency| currency.as_text().unwrap_or("?").trim_ascii());
        if currency.is_some_and(|currency| !currency.is_empty() && !rules.currency.is(currency)) {
            return Err(Wrong::Currency);
        }
        self.sale(row, time_ms, rules).map(Outcome::Sale)
    }

    /// Only the amount must be right.
    fn sale(&self, row: &Row<'_>, time_ms: u64, rules: &Rules) -> Result<Sale, Wrong> {
        let minor = |field| get(row, field).map(|value| self.minor(value, rules)).transpose();
        let (tendered, tax) = (minor(Field::TenderAmount), minor(Field::Tax));
        let amount_minor = match minor(Field::Total)? {
            Some(total) => total,
            None => tendered?.ok_or(Wrong::Missing)?,
        };
        let mut paid = Paid::default();
        if let (Some(tender), Ok(tendered)) = (get(row, Field::Tender).and_then(Value::as_text), tendered) {
            paid.add(rules.tenders.of(tender.trim_ascii()), tendered.unwrap_or(amount_minor));
        }
        let is_return = amount_minor < 0;
        let items = get(row, Field::Items)
            .map(|items| self.items(items, is_return))
            .transpose();
        Ok(Sale {
            time_ms,
            lane: text(row, Field::Lane).to_owned(),
            amount_minor,
            tax_minor: tax.unwrap_or_default(),
            items: items.unwrap_or_default(),
            is_return,
            paid,
            flaw: tendered.err().or(tax.err()).or(items.err()),
        })
    }

    /// None when a row of this type does not count.
    fn is_void(&self, kind: Option<&Value<'_>>) -> Option<bool> {
        let Some(types) = &self.types else { return Some(false) };
        let kind = kind?.as_text()?.trim_ascii();
        let is_one_of = |names: &[String]| names.iter().any(|name| name == kind);
        if is_one_of(&types.sale) {
            Some(false)
        } else {
            is_one_of(&types.void).then_some(true)
        }
    }

    fn time_ms(&self, row: &Row<'_>, rules: &Rules) -> Result<u64, Wrong> {
        let zone = self.zone.unwrap_or(rules.local);
        match get(row, Field::Time).ok_or(Wrong::Missing)? {
            Value::Number(text) => {
                time_ms(text, zone).or_else(|_| when::parse(text, self::text(row, Field::Clock), self.order, zone))
            }
            value => when::parse(
                value.as_text().ok_or(Wrong::Time)?,
                text(row, Field::Clock),
                self.order,
                zone,
            ),
        }
    }

    fn minor(&self, value: &Value<'_>, rules: &Rules) -> Result<i64, Wrong> {
        let decimal = match value {
            Value::Number(number) => Decimal::parse(number)?,
            Value::Text(text) => number::amount(text, self.mark, &rules.currency)?,
            Value::Bool(_) | Value::Nested => return Err(Wrong::Number),
        };
        match self.amount_unit {
            AmountUnit::Major => decimal.units(rules.currency.decimals()),
            AmountUnit::Minor => decimal.whole(),
            AmountUnit::Implied => {
                number::implied(decimal.whole()?, self.implied_decimals)?.units(rules.currency.decimals())
            }
        }
    }

    /// What comes back is not sold. A weighed item counts as one, in a sum of items the next whole number.
    fn items(&self, items: &Value<'_>, is_return: bool) -> Result<i64, Wrong> {
        if is_return {
            return Ok(0);
        }
        let items = number::parse(items.as_text().ok_or(Wrong::Number)?, self.mark)?;
        let items = match items.whole() {
            Ok(items) => items.max(0),
            Err(_fraction) if items.units(MICRO)? < 0 => 0,
            Err(_fraction) if self.is_parts => 1,
            Err(_fraction) => items.units(MICRO)?.saturating_add(999_999).div_euclid(1_000_000),
        };
        if items <= ITEMS_MAX {
            Ok(items)
        } else {
            Err(Wrong::Number)
        }
    }
}

fn get<'a, 'v>(row: &'a Row<'v>, field: Field) -> Option<&'a Value<'v>> {
    row.get(field as usize)?.as_ref()
}

fn text<'a>(row: &'a Row<'_>, field: Field) -> &'a str {
    get(row, field)
        .and_then(Value::as_text)
        .unwrap_or_default()
        .trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tender::Tender;
    use crate::tests::rules;

    fn read(settings: Settings, line: &str) -> Reading {
        Mapping::new(&settings).read_json(line.as_bytes(), &rules(settings))
    }

    fn sale(settings: Settings, line: &str) -> Sale {
        match read(settings, line).outcome {
            Ok(Outcome::Sale(sale)) => sale,
            other => panic!("{other:?} is no sale"),
        }
    }

    #[test]
    fn a_line_is_a_sale() {
        let line = r#"{"time":"2026-03-02T11:30:00Z","total":19.99,"items":3,"tender":"cash"}"#;
        let sale = sale(Settings::default(), line);
        let paid = sale.paid.iter().collect::<Vec<_>>();
        assert_eq!(
            (sale.time_ms, sale.amount_minor, sale.items),
            (1_772_451_000_000, 1999, Some(3))
        );
        assert_eq!((sale.is_return, paid), (false, vec![(Tender::Cash, 1999)]));
    }

    #[test]
    fn minor_units_implied_decimals_and_returns_are_read() {
        let line = r#"{"time":1772451000,"total":-1999,"items":2}"#;
        let settings = |amount_unit, implied_decimals| Settings {
            amount_unit,
            implied_decimals,
            ..Settings::default()
        };
        let minor = sale(settings(AmountUnit::Minor, 0), line);
        assert_eq!(
            (minor.amount_minor, minor.items, minor.is_return),
            (-1999, Some(0), true)
        );
        assert_eq!(sale(settings(AmountUnit::Implied, 3), line).amount_minor, -200);
    }

    #[test]
    fn a_column_has_its_own_zone_and_marks() {
        let settings = Settings {
            decimal_mark: DecimalMark::Comma,
            field_time: "at".to_owned(),
            field_zones: std::collections::BTreeMap::from([("at".to_owned(), Zone::parse("+02:00").unwrap())]),
            field_tax: "tax".to_owned(),
            ..Settings::default()
        };
        let line = r#"{"at":"02.03.2026 13:30","total":"1.019,90","tax":"162,84"}"#;
        let sale = sale(settings, line);
        assert_eq!(
            (sale.time_ms, sale.amount_minor, sale.tax_minor),
            (1_772_451_000_000, 101_990, Some(16_284))
        );
    }

    #[test]
    fn the_type_tells_what_counts() {
        let settings = || Settings {
            field_type: "kind".to_owned(),
            ..Settings::default()
        };
        let outcome = |kind: &str| {
            let line = format!("{{\"time\":1772451000,\"kind\":{kind},\"total\":1}}");
            read(settings(), &line).outcome
        };
        assert!(matches!(outcome("\"sale\""), Ok(Outcome::Sale(_))));
        assert_eq!(
            outcome("\"void\""),
            Ok(Outcome::Void {
                time_ms: 1_772_451_000_000,
                taken_back: None,
            })
        );
        assert_eq!(outcome("\"training\""), Ok(Outcome::Other));
        assert_eq!(outcome("null"), Ok(Outcome::Other));
    }

    #[test]
    fn the_key_is_of_the_lane_and_the_business_day() {
        let settings = |business_day_start: &str| Settings {
            field_transaction: "number".to_owned(),
            field_store: "store".to_owned(),
            field_lane: "lane".to_owned(),
            field_business_day: "day".to_owned(),
            business_day_start: business_day_start.to_owned(),
            ..Settings::default()
        };
        let key = |line: &str| read(settings("00:00"), line).key;
        let first = key(r#"{"time":1772451000,"total":1,"number":7,"store":"9","lane":3}"#);
        assert!(first.is_some());
        assert_eq!(
            first,
            key(r#"{"time":1772451060,"total":1,"number":"7","store":9,"lane":"3"}"#)
        );
        for other in [
            r#"{"time":1772451000,"total":1,"number":7,"store":"9","lane":4}"#,
            r#"{"time":1772537400,"total":1,"number":7,"store":"9","lane":3}"#,
            r#"{"time":1772451000,"total":1,"number":7,"store":"9","lane":3,"day":"2026-03-01"}"#,
        ] {
            assert_ne!(first, key(other), "{other}");
        }
        assert_eq!(key(r#"{"time":1772451000,"total":1}"#), None);
        // Three in the morning belongs to the evening before, when the day begins at four.
        let evening = r#"{"time":"2026-03-02T23:00:00Z","total":1,"number":7}"#;
        let night = r#"{"time":"2026-03-03T03:00:00Z","total":1,"number":7}"#;
        let is_same = |start: &str| [evening, night].map(|line| read(settings(start), line).key);
        let (of_midnight, of_four) = (is_same("00:00"), is_same("04:00"));
        assert_ne!(of_midnight[0], of_midnight[1]);
        assert_eq!(of_four[0], of_four[1]);
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        let settings = || Settings {
            field_currency: "currency".to_owned(),
            ..Settings::default()
        };
        for (line, wrong) in [
            (r#"{"total":1}"#, Wrong::Missing),
            (r#"{"time":1772451000}"#, Wrong::Missing),
            (r#"{"time":"late","total":1}"#, Wrong::Time),
            (r#"{"time":1772451000,"total":"1,5"}"#, Wrong::Number),
            (r#"{"time":1772451000,"total":1,"currency":"USD"}"#, Wrong::Currency),
            (r#"{"time":1772451000,"total":1"#, Wrong::Syntax),
        ] {
            assert_eq!(read(settings(), line).outcome, Err(wrong), "{line}");
        }
    }
}
