//! The one door for JSON lines: bytes in, what the transaction counts as or what is wrong with the line out.

use tillwatch_sdk::parse::{FieldMap, Value, Wrong};

use crate::seen::Key;
use crate::tender::Paid;
use crate::transaction::{Outcome, Sale};
use crate::{AmountUnit, Rules, Settings};

/// A line with more items is a broken one.
const ITEMS_MAX: i64 = 100_000;
const DAY_MS: u64 = 86_400_000;

/// Reads the lines.
pub(crate) struct Lines {
    /// Time, total, items, tender, currency, type, transaction, store, lane.
    fields: FieldMap<9>,
    amount_unit: AmountUnit,
    /// None when every line is a sale.
    types: Option<Types>,
}

struct Types {
    sale: Vec<String>,
    void: Vec<String>,
}

impl Lines {
    pub(crate) fn new(settings: &Settings) -> Self {
        let paths = [
            &settings.field_time,
            &settings.field_total,
            &settings.field_items,
            &settings.field_tender,
            &settings.field_currency,
            &settings.field_type,
            &settings.field_transaction,
            &settings.field_store,
            &settings.field_lane,
        ];
        let types = Types {
            sale: settings.sale_types.clone(),
            void: settings.void_types.clone(),
        };
        Self {
            fields: FieldMap::new(paths.map(String::as_str)),
            amount_unit: settings.amount_unit,
            types: (!settings.field_type.is_empty()).then_some(types),
        }
    }

    /// Reads one line without its end.
    pub(crate) fn read(&self, line: &[u8], rules: &Rules) -> Result<(Option<Key>, Outcome), Wrong> {
        let [time, total, items, tender, currency, kind, number, store, lane] = self.fields.read(line)?;
        let is_void = match self.is_void(kind.as_ref()) {
            Some(is_void) => is_void,
            None => return Ok((None, Outcome::Other)),
        };
        let time_ms = time.ok_or(Wrong::Missing)?.time_ms(rules.local)?;
        let key = number.as_ref().and_then(Value::as_text).map(|number| {
            let day = u32::try_from(time_ms.checked_div(DAY_MS).unwrap_or(0)).unwrap_or(u32::MAX);
            Key::new(day, &[as_text(&store), as_text(&lane)], number)
        });
        if is_void {
            return Ok((key, Outcome::Void { time_ms }));
        }
        if currency.is_some_and(|currency| currency.as_text() != Some(rules.currency.code())) {
            return Err(Wrong::Currency);
        }
        let amount_minor = self.minor(&total.ok_or(Wrong::Missing)?, rules)?;
        let mut paid = Paid::default();
        if let Some(tender) = tender.as_ref().and_then(Value::as_text) {
            paid.add(rules.tenders.of(tender), amount_minor);
        }
        let is_return = amount_minor < 0;
        let items = items.map(|items| whole_items(&items)).transpose()?;
        // What comes back is not sold.
        let items = items.map(|items| if is_return { 0 } else { items });
        Ok((
            key,
            Outcome::Sale(Sale {
                time_ms,
                amount_minor,
                items,
                is_return,
                paid,
            }),
        ))
    }

    /// None when a line of this type does not count.
    fn is_void(&self, kind: Option<&Value<'_>>) -> Option<bool> {
        let Some(types) = &self.types else { return Some(false) };
        let kind = kind?.as_text()?;
        let is_one_of = |names: &[String]| names.iter().any(|name| name == kind);
        if is_one_of(&types.sale) {
            Some(false)
        } else {
            is_one_of(&types.void).then_some(true)
        }
    }

    fn minor(&self, total: &Value<'_>, rules: &Rules) -> Result<i64, Wrong> {
        match self.amount_unit {
            AmountUnit::Major => total.decimal()?.units(rules.currency.decimals()),
            AmountUnit::Minor => total.decimal()?.whole(),
        }
    }
}

fn as_text<'a>(value: &'a Option<Value<'a>>) -> &'a str {
    value.as_ref().and_then(Value::as_text).unwrap_or_default()
}

fn whole_items(items: &Value<'_>) -> Result<i64, Wrong> {
    let items = items.decimal()?.whole()?;
    if (0..=ITEMS_MAX).contains(&items) {
        Ok(items)
    } else {
        Err(Wrong::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tender::Tender;
    use crate::tests::rules;

    fn read(settings: Settings, line: &str) -> Result<(Option<Key>, Outcome), Wrong> {
        Lines::new(&settings).read(line.as_bytes(), &rules(settings))
    }

    fn sale(settings: Settings, line: &str) -> Sale {
        match read(settings, line) {
            Ok((_, Outcome::Sale(sale))) => sale,
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
    fn minor_units_and_returns_are_read() {
        let settings = Settings {
            amount_unit: AmountUnit::Minor,
            ..Settings::default()
        };
        let sale = sale(settings, r#"{"time":1772451000,"total":-1999,"items":2}"#);
        assert_eq!((sale.amount_minor, sale.items, sale.is_return), (-1999, Some(0), true));
    }

    #[test]
    fn the_type_tells_what_counts() {
        let settings = || Settings {
            field_type: "kind".to_owned(),
            ..Settings::default()
        };
        let outcome = |kind: &str| {
            let line = format!("{{\"time\":1772451000,\"kind\":{kind},\"total\":1}}");
            read(settings(), &line).map(|(_, outcome)| outcome)
        };
        assert!(matches!(outcome("\"sale\""), Ok(Outcome::Sale(_))));
        assert_eq!(
            outcome("\"void\""),
            Ok(Outcome::Void {
                time_ms: 1_772_451_000_000
            })
        );
        assert_eq!(outcome("\"training\""), Ok(Outcome::Other));
        assert_eq!(outcome("null"), Ok(Outcome::Other));
    }

    #[test]
    fn the_key_is_of_the_lane_and_day() {
        let settings = || Settings {
            field_transaction: "number".to_owned(),
            field_store: "store".to_owned(),
            field_lane: "lane".to_owned(),
            ..Settings::default()
        };
        let key = |line: &str| read(settings(), line).unwrap().0;
        let first = key(r#"{"time":1772451000,"total":1,"number":7,"store":"9","lane":3}"#);
        assert!(first.is_some());
        assert_eq!(
            first,
            key(r#"{"time":1772451060,"total":1,"number":"7","store":9,"lane":"3"}"#)
        );
        assert_ne!(
            first,
            key(r#"{"time":1772451000,"total":1,"number":7,"store":"9","lane":4}"#)
        );
        assert_ne!(
            first,
            key(r#"{"time":1772537400,"total":1,"number":7,"store":"9","lane":3}"#)
        );
        assert_eq!(key(r#"{"time":1772451000,"total":1}"#), None);
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
            (r#"{"time":1772451000,"total":1,"items":-1}"#, Wrong::Number),
            (r#"{"time":1772451000,"total":1,"items":1.5}"#, Wrong::Number),
            (r#"{"time":1772451000,"total":1,"currency":"USD"}"#, Wrong::Currency),
            (r#"{"time":1772451000,"total":1"#, Wrong::Syntax),
        ] {
            assert_eq!(read(settings(), line).map(|_| ()), Err(wrong), "{line}");
        }
    }
}
