//! Walks a TOML document with the place of every key and value.
//!
//! In: text. Out: entries whose fields are asked for by name; every fault is kept with line, column and hint.
//! It never stops at the first fault and knows nothing of what the fields mean together.

use super::{Model, ModelError, ModelErrors, Selector};
use crate::incident::Reach;
use jiff::tz::TimeZone;
use std::collections::HashMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Collects the faults of one text.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    faults: Vec<(usize, ModelError)>,
}

/// One table: the document itself, or one `[[name]]`.
pub(super) struct Entry<'a> {
    table: DeTable<'a>,
    name: String,
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Reader<'a> {
        Reader {
            file,
            text,
            faults: Vec::new(),
        }
    }

    pub(super) fn root(&mut self, keys: &[&str]) -> Entry<'a> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.fault(
                error.span().map_or(0, |span| span.start),
                error.message().to_owned(),
                None,
            );
        }
        let entry = Entry {
            span: root.span(),
            table: root.into_inner(),
            name: "the model".to_owned(),
        };
        entry.only(self, keys);
        entry
    }

    /// The model if there was no fault.
    pub(super) fn finish(mut self, model: Model) -> Result<Model, ModelErrors> {
        if self.faults.is_empty() {
            return Ok(model);
        }
        self.faults.sort_by_key(|(at, _)| *at);
        Err(ModelErrors(self.faults.into_iter().map(|(_, error)| error).collect()))
    }

    fn fault(&mut self, at: usize, message: String, hint: Option<String>) {
        let (line, column) = self.place(at);
        self.faults.push((
            at,
            ModelError {
                file: self.file.to_owned(),
                line,
                column,
                message,
                hint,
            },
        ));
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

impl<'a> Entry<'a> {
    /// Faults every key that is none of `keys`.
    pub(super) fn only(&self, reader: &mut Reader<'_>, keys: &[&str]) {
        for key in self.table.keys() {
            let name: &str = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let message = format!("unknown key {name:?} in {}", self.name);
                reader.fault(key.span().start, message, did_you_mean(name, keys.iter().copied()));
            }
        }
    }

    /// A fault at the value of `key`, or at the entry when the key is missing.
    pub(super) fn fault(&self, reader: &mut Reader<'_>, key: &str, message: String, hint: Option<String>) {
        let at = self.value(key).map_or(self.span.start, |value| value.span().start);
        reader.fault(at, message, hint);
    }

    /// The tables `[[key]]`; more than `max` are a fault.
    pub(super) fn tables(&self, reader: &mut Reader<'_>, key: &str, max: usize) -> Vec<Entry<'a>> {
        let tables: Vec<Entry<'a>> = self
            .list(reader, key)
            .iter()
            .filter_map(|value| match value.get_ref() {
                DeValue::Table(table) => Some(Entry {
                    table: table.clone(),
                    name: format!("[[{key}]]"),
                    span: value.span(),
                }),
                other => {
                    reader.fault(
                        value.span().start,
                        format!("{key} must be a table; found {}", other.type_str()),
                        None,
                    );
                    None
                }
            })
            .collect();
        if tables.len() > max {
            reader.fault(
                tables[max].span.start,
                format!("more than {max} entries [[{key}]]"),
                None,
            );
        }
        tables
    }

    pub(super) fn text(&self, reader: &mut Reader<'_>, key: &str) -> Option<String> {
        let value = self.value(key)?;
        text_of(reader, value, key)
    }

    /// The entry's own id, new in `ids`, where it gets the next index.
    pub(super) fn id(&self, reader: &mut Reader<'_>, kind: &str, ids: &mut HashMap<String, usize>) -> Option<String> {
        let id = self.required(reader, "id")?;
        if id.is_empty() || id.len() > 64 {
            self.fault(reader, "id", format!("the id of a {kind} has 1 to 64 bytes"), None);
            return None;
        }
        if ids.contains_key(&id) {
            let message = format!("{kind} {id:?} is there twice");
            let first = reader.text.find(&format!("\"{id}\"")).map(|at| reader.place(at).0);
            self.fault(
                reader,
                "id",
                message,
                first.map(|line| format!("the first one is in line {line}")),
            );
            return None;
        }
        ids.insert(id.clone(), ids.len());
        Some(id)
    }

    /// The index of the thing that `key` names.
    pub(super) fn reference(&self, reader: &mut Reader<'_>, key: &str, ids: &HashMap<String, usize>) -> Option<usize> {
        let name = self.required(reader, key)?;
        let found = ids.get(&name).copied();
        if found.is_none() {
            let hint = did_you_mean(&name, ids.keys().map(String::as_str));
            self.fault(reader, key, format!("unknown {key} {name:?}"), hint);
        }
        found
    }

    pub(super) fn references(&self, reader: &mut Reader<'_>, key: &str, ids: &HashMap<String, usize>) -> Vec<usize> {
        let mut found = Vec::new();
        for value in self.list(reader, key) {
            let Some(name) = text_of(reader, &value, key) else {
                continue;
            };
            match ids.get(&name) {
                Some(&index) => found.push(index),
                None => {
                    let hint = did_you_mean(&name, ids.keys().map(String::as_str));
                    reader.fault(value.span().start, format!("unknown service {name:?} in {key}"), hint);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A name of the time zone database or a POSIX rule; UTC when there is none.
    pub(super) fn time_zone(&self, reader: &mut Reader<'_>) -> TimeZone {
        let Some(name) = self.text(reader, "time_zone") else {
            return TimeZone::UTC;
        };
        if name == "UTC" {
            return TimeZone::UTC;
        }
        if let Ok(zone) = TimeZone::get(&name).or_else(|_| TimeZone::posix(&name)) {
            return zone;
        }
        let hint = "use a name such as \"Europe/Berlin\"; the package tzdata must be installed".to_owned();
        self.fault(reader, "time_zone", format!("unknown time zone {name:?}"), Some(hint));
        TimeZone::UTC
    }

    pub(super) fn currency(&self, reader: &mut Reader<'_>) -> Option<String> {
        let currency = self.text(reader, "currency")?;
        if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Some(currency);
        }
        let hint = "three capitals as in ISO 4217, such as \"EUR\"".to_owned();
        self.fault(reader, "currency", format!("currency {currency:?} is none"), Some(hint));
        None
    }

    pub(super) fn scope(&self, reader: &mut Reader<'_>) -> Reach {
        match self.text(reader, "scope").as_deref() {
            None | Some("site") => Reach::Site,
            Some("region") => Reach::Region,
            Some("chain") => Reach::Chain,
            Some(other) => {
                let hint = did_you_mean(other, ["site", "region", "chain"].into_iter());
                let hint = hint.or_else(|| Some("one of \"site\", \"region\" and \"chain\"".to_owned()));
                self.fault(reader, "scope", format!("scope {other:?} is none"), hint);
                Reach::Site
            }
        }
    }

    pub(super) fn selectors(&self, reader: &mut Reader<'_>) -> Vec<Selector> {
        let mut selectors = Vec::new();
        for entry in self.tables(reader, "metrics", 100) {
            entry.only(reader, &["name", "labels"]);
            let labels = entry.labels(reader);
            if let Some(metric) = entry.required(reader, "name") {
                selectors.push(Selector { metric, labels });
            }
        }
        selectors
    }

    fn labels(&self, reader: &mut Reader<'_>) -> Vec<(String, String)> {
        let Some(value) = self.value("labels") else {
            return Vec::new();
        };
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("labels must be a table; found {}", value.get_ref().type_str());
            reader.fault(
                value.span().start,
                message,
                Some("labels = { \"http.route\" = \"/checkout\" }".to_owned()),
            );
            return Vec::new();
        };
        let pairs = table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), text_of(reader, value, "a label")));
        pairs.filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn required(&self, reader: &mut Reader<'_>, key: &str) -> Option<String> {
        if self.value(key).is_none() {
            reader.fault(
                self.span.start,
                format!("{} has no {key}", self.name),
                Some(format!("add: {key} = \"...\"")),
            );
        }
        self.text(reader, key)
    }

    fn value(&self, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        self.table
            .iter()
            .find(|(name, _)| name.get_ref().as_ref() as &str == key)
            .map(|(_, value)| value)
    }

    fn list(&self, reader: &mut Reader<'_>, key: &str) -> Vec<Spanned<DeValue<'a>>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        match value.get_ref() {
            DeValue::Array(array) => array.iter().cloned().collect(),
            other => {
                reader.fault(
                    value.span().start,
                    format!("{key} must be a list; found {}", other.type_str()),
                    None,
                );
                Vec::new()
            }
        }
    }
}

fn text_of(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>, what: &str) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        other => {
            let message = format!("{what} must be a text in quotes; found {}", other.type_str());
            reader.fault(value.span().start, message, None);
            None
        }
    }
}

/// The nearest of `known` when it is near enough to be a slip of the keyboard.
fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let near = known.map(|other| (distance(name, other), other)).min()?;
    (near.0 <= 1 + name.chars().count() / 4).then(|| format!("did you mean {:?}?", near.1))
}

/// Edit distance with neighbors swapped counting once.
/// Source: Damerau-Levenshtein distance, restricted form ("optimal string alignment").
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
