//! Readings by a field map of the operator's: Prometheus text, JSON by pointers, rows of a query.
//!
//! The settings `field_*` name a metric, a pointer or a column each.

use std::borrow::Cow;

use tillwatch_sdk::parse::{Problems, Wrong};
use tillwatch_sdk::{Error, Host, HttpRequest, Table};

use crate::broker::{Trouble, ask};
use crate::json::{Pointer, each, find, pointers, text, units, whole};
use crate::prometheus::{Sample, sample};
use crate::queues::key;
use crate::sheet::{Levels, Reading, Sheet};
use crate::{AgeUnit, Settings};

/// The source of kind `sql`.
pub(crate) const OUTBOX: &str = "outbox";
/// Conditions of `match`.
const MATCHES_MAX: usize = 16;

/// Which metric, pointer or column holds what.
pub(crate) struct Fields {
    queue: String,
    /// In the order of [`Values`]; empty when there is none.
    values: [String; 6],
    age_unit: AgeUnit,
    /// Labels that a sample must have.
    matches: Vec<(String, String)>,
    items: Pointer,
    /// The queue's name and the values.
    pointers: [Pointer; 7],
}

/// Depth, oldest age, unacknowledged, consumers, in, out.
type Values = [Option<i64>; 6];

const AGE: usize = 1;
const CAME: usize = 4;

impl Fields {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let queue = settings.field_queue.clone();
        let values = [
            &settings.field_depth,
            &settings.field_oldest_age,
            &settings.field_unacked,
            &settings.field_consumers,
            &settings.field_in,
            &settings.field_out,
        ]
        .map(String::clone);
        if settings.matches.len() > MATCHES_MAX {
            return Err(Error::config(format!("match: at most {MATCHES_MAX} conditions")));
        }
        let matches = settings.matches.iter().map(|text| {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| Error::config("match: a condition is \"label=value\""))?;
            Ok((name.to_owned(), value.to_owned()))
        });
        let pointer = |text: &String| {
            Pointer::parse(text)
                .ok_or_else(|| Error::config(format!("{text:?} is no JSON pointer of at most 16 steps")))
        };
        let mut pointers = pointers([""; 7]);
        for (place, text) in pointers.iter_mut().zip([&queue].into_iter().chain(&values)) {
            *place = pointer(text)?;
        }
        Ok(Self {
            items: pointer(&settings.items)?,
            matches: matches.collect::<Result<_, Error>>()?,
            age_unit: settings.age_unit,
            pointers,
            queue,
            values,
        })
    }

    /// Prometheus text: each sample of a named metric.
    pub(crate) fn read_prometheus(
        &self,
        host: &mut dyn Host,
        sheet: &mut Sheet<'_>,
        problems: &mut Problems,
    ) -> Result<(), Trouble> {
        let body = ask(host, HttpRequest::get().header("accept", "text/plain;version=0.0.4"))?;
        for line in body.lines() {
            match sample(line) {
                Ok(Some(sample)) => self.add_sample(&sample, sheet),
                Ok(None) => {}
                Err(wrong) => problems.count(wrong),
            }
        }
        Ok(())
    }

    fn add_sample(&self, sample: &Sample<'_>, sheet: &mut Sheet<'_>) {
        let Some(place) = self.values.iter().position(|metric| *metric == sample.metric) else {
            return;
        };
        let is_wanted = |(name, value): &(String, String)| sample.label(name).unwrap_or_default() == value;
        if !self.matches.iter().all(is_wanted) {
            return;
        }
        let scale = match self.age_unit {
            AgeUnit::S if place == AGE => 1_000.0,
            _ => 1.0,
        };
        let value = from_real(sample.value * scale);
        let (mut levels, mut moved) = (Levels::default(), [None; 2]);
        // What counts up stands behind the levels.
        match levels.get_mut(place) {
            Some(level) => *level = value.into(),
            None if place == CAME => moved = [value, None],
            None => moved = [None, value],
        }
        let labels = sample
            .labels
            .iter()
            .flat_map(|(name, value)| [name.as_ref(), value.as_ref()]);
        let queue = sample.label(&self.queue);
        sheet.add_part(queue, key(&labels.collect::<Vec<_>>()), levels, moved);
    }

    /// JSON: each element of what `items` points at, or that itself.
    pub(crate) fn read_json(
        &self,
        host: &mut dyn Host,
        sheet: &mut Sheet<'_>,
        problems: &mut Problems,
    ) -> Result<(), Trouble> {
        let body = ask(host, HttpRequest::get().header("accept", "application/json"))?;
        let [items] = find(&body, std::array::from_ref(&self.items))?;
        let items = items.ok_or(Wrong::Missing)?;
        if self.add_item(None, items, sheet)? {
            return Ok(());
        }
        each(items, |name, item| match self.add_item(name, item, sheet) {
            Ok(true) => {}
            Ok(false) => self.add_unknown(name, item, sheet),
            Err(wrong) => problems.count(wrong),
        })?;
        Ok(())
    }

    /// False when it has no value at any pointer.
    fn add_item(&self, name: Option<&str>, item: &str, sheet: &mut Sheet<'_>) -> Result<bool, Wrong> {
        let [queue, found @ ..] = find(item, &self.pointers)?;
        let mut values = [None; 6];
        for (place, ((value, json), pointer)) in values.iter_mut().zip(found).zip(&self.values).enumerate() {
            *value = match self.age_unit {
                _ if pointer.is_empty() => None,
                AgeUnit::S if place == AGE => units(json, 3)?,
                _ => whole(json)?,
            };
        }
        if values == [None; 6] {
            return Ok(false);
        }
        let queue = self.name_in(queue);
        let queue = queue.as_deref().or(name);
        sheet.add(queue, key(&[queue.unwrap_or_default()]), &reading(values));
        Ok(true)
    }

    /// An element without a value, of which the name alone is known: what shares that name is unknown, too.
    fn add_unknown(&self, name: Option<&str>, item: &str, sheet: &mut Sheet<'_>) {
        let [pointer, ..] = &self.pointers;
        let [queue] = find(item, std::array::from_ref(pointer)).unwrap_or_default();
        if let Some(queue) = self.name_in(queue).as_deref().or(name) {
            sheet.add_unknown(queue);
        }
    }

    fn name_in<'a>(&self, queue: Option<&'a str>) -> Option<Cow<'a, str>> {
        queue.filter(|_json| !self.queue.is_empty()).and_then(text)
    }

    /// Rows of the operator's query: each is a queue.
    pub(crate) fn read_sql(
        &self,
        host: &mut dyn Host,
        sheet: &mut Sheet<'_>,
        problems: &mut Problems,
    ) -> Result<(), Trouble> {
        let table = host.sql(OUTBOX, None)?;
        if table.more {
            problems.count(Wrong::Limit);
        }
        if self.values.iter().all(|column| !has_numbers(&table, column)) {
            return Err(Trouble::Blind(
                "the query has no column of numbers that a field_* setting names",
            ));
        }
        for row in 0..table.rows() {
            let queue = table.texts(&self.queue).and_then(|texts| texts.get(row)?.as_deref());
            let mut values = [None; 6];
            for (place, (value, column)) in values.iter_mut().zip(&self.values).enumerate() {
                *value = self.cell(&table, column, row, place);
            }
            sheet.add(queue, key(&[queue.unwrap_or_default()]), &reading(values));
        }
        Ok(())
    }

    fn cell(&self, table: &Table, column: &str, row: usize, place: usize) -> Option<i64> {
        let scale: i16 = match self.age_unit {
            AgeUnit::S if place == AGE => 1_000,
            _ => 1,
        };
        if let Some(integers) = table.integers(column) {
            return (*integers.get(row)?)?
                .checked_mul(i64::from(scale))
                .filter(|value| *value >= 0);
        }
        from_real((*table.reals(column)?.get(row)?)? * f64::from(scale))
    }
}

fn has_numbers(table: &Table, column: &str) -> bool {
    table.integers(column).is_some() || table.reals(column).is_some()
}

fn reading([depth, oldest_age_ms, unacked, consumers, came, went]: Values) -> Reading {
    Reading {
        depth,
        unacked,
        consumers,
        oldest_age_ms,
        moved: [came, went],
    }
}

/// Nothing of what is not finite, negative, or larger than a real tells exactly.
fn from_real(value: f64) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if !(0.0..=EXACT_MAX).contains(&value) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is within 0 to 2^53")]
    let whole = value.round() as i64;
    Some(whole)
}
