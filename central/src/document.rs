//! A TOML document with the place of every key and value: settings and the service model are read through it.
//!
//! In: text. Out: values asked for by name; every fault is kept with line, column and mostly a hint.
//! It never stops at the first fault, and knows nothing of what the values mean together.

use std::cell::RefCell;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One fault at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {what}{}", hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default())]
pub struct Fault {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
    pub hint: Option<String>,
}

/// All faults, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// The document and its faults so far.
pub(crate) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    faults: RefCell<Vec<(usize, Fault)>>,
}

/// One table: the document itself, a `[name]` or one `[[name]]`.
pub(crate) struct Table<'a> {
    document: &'a Document<'a>,
    table: DeTable<'a>,
    /// As messages call it.
    name: String,
    at: usize,
}

impl<'a> Document<'a> {
    /// `file` is only named in messages.
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            faults: RefCell::default(),
        }
    }

    /// The whole, with the keys that it may have.
    pub(crate) fn root(&'a self, name: &str, keys: &[&str]) -> Table<'a> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let what = error.message().trim().replace('\n', ", ");
            self.fault(at, what, hint("see https://toml.io for how TOML is written"));
        }
        let table = Table {
            document: self,
            table: root.into_inner(),
            name: name.to_owned(),
            at: 0,
        };
        table.only(keys);
        table
    }

    /// What was wrong so far.
    pub(crate) fn faults(&self) -> Faults {
        let mut faults = self.faults.take();
        faults.sort_by_key(|(at, _)| *at);
        Faults(faults.into_iter().map(|(_, fault)| fault).collect())
    }

    /// The line that first has this text in quotes.
    pub(crate) fn line_of(&self, text: &str) -> Option<usize> {
        self.text.find(&format!("\"{text}\"")).map(|at| self.place(at).0)
    }

    fn fault(&self, at: usize, what: impl Into<String>, hint: Option<String>) {
        let (line, column) = self.place(at);
        let fault = Fault {
            file: self.file.to_owned(),
            line,
            column,
            what: what.into(),
            hint,
        };
        self.faults.borrow_mut().push((at, fault));
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }
}

impl<'a> Table<'a> {
    pub(crate) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    /// Faults every key that is none of `keys`.
    pub(crate) fn only(&self, keys: &[&str]) {
        for key in self.table.keys() {
            let name: &str = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let what = format!("unknown key {name:?} in {}", self.name);
                let near = did_you_mean(name, keys.iter().copied());
                let known = || format!("known here: {}", keys.join(", "));
                self.document
                    .fault(key.span().start, what, Some(near.unwrap_or_else(known)));
            }
        }
    }

    /// A fault at the value of `key`, or at the table when there is none.
    pub(crate) fn fault(&self, key: &str, what: impl Into<String>, hint: Option<String>) {
        let at = self.value(key).map_or(self.at, |value| value.span().start);
        self.document.fault(at, what, hint);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// `[key]`, which may be missing.
    pub(crate) fn table(&self, key: &str, keys: &[&str]) -> Option<Table<'a>> {
        let table = self.as_table(key, self.value(key)?, format!("[{key}]"))?;
        table.only(keys);
        Some(table)
    }

    /// `[key]` once more, when it is a table; its faults were told before.
    pub(crate) fn part(&self, key: &str) -> Option<Table<'a>> {
        let value = self.value(key).filter(|value| value.get_ref().is_table())?;
        self.as_table(key, value, format!("[{key}]"))
    }

    /// A text once more, when it is one and not empty; its faults were told before.
    pub(crate) fn named(&self, key: &str) -> Option<String> {
        let text = self.value(key)?.get_ref().as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The tables `[[key]]`; more than `max` are a fault.
    pub(crate) fn tables(&self, key: &str, max: usize) -> Vec<Table<'a>> {
        let values = self.list(key).iter();
        let tables: Vec<_> = values
            .filter_map(|value| self.as_table(key, value, format!("[[{key}]]")))
            .collect();
        if let Some(beyond) = tables.get(max) {
            self.document
                .fault(beyond.at, format!("more than {max} entries [[{key}]]"), None);
        }
        tables
    }

    /// Faults what must be there and is not.
    pub(crate) fn required<T>(&self, found: Option<T>, key: &str, example: &str) -> Option<T> {
        if !self.has(key) {
            let what = format!("{} has no {key}", self.name);
            self.fault(key, what, Some(format!("add: {example}")));
        }
        found
    }

    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.parsed(key, "\"...\"", |text| {
            if text.is_empty() {
                Err("the path is empty".into())
            } else {
                Ok(text.into())
            }
        })
    }

    /// A text that must be there.
    pub(crate) fn parsed<T>(&self, key: &str, example: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let found = self.optional(key, parse);
        self.required(found, key, &format!("{key} = {example}"))
    }

    /// A text that may be missing.
    pub(crate) fn optional<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.one(key, self.value(key)?, &parse)
    }

    /// A text as it is, that may be missing.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.optional(key, |text| Ok(text.to_owned()))
    }

    /// A list of texts; empty when it is missing.
    pub(crate) fn texts<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let items = self.list(key).iter();
        items.filter_map(|item| self.one(key, item, &parse)).collect()
    }

    /// A list of texts, each of which is one of `known`.
    pub(crate) fn known_texts<T>(&self, key: &str, find: impl Fn(&str) -> Result<T, Wrong>) -> Vec<T> {
        let known = |item: &Spanned<DeValue<'_>>| match find(&self.text_of(key, item)?) {
            Ok(found) => Some(found),
            Err(Wrong { what, hint }) => {
                self.document.fault(item.span().start, what, hint);
                None
            }
        };
        self.list(key).iter().filter_map(known).collect()
    }

    /// The texts of a table `key = { name = "text" }`; none when it is missing.
    pub(crate) fn pairs(&self, key: &str) -> Vec<(String, String)> {
        let table = self
            .value(key)
            .and_then(|value| self.as_table(key, value, key.to_owned()));
        let Some(table) = table else { return Vec::new() };
        let pairs = table.table.iter();
        pairs
            .filter_map(|(name, value)| Some((name.get_ref().to_string(), self.text_of(key, value)?)))
            .collect()
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, key: &str, min: usize, max: usize) -> Option<usize> {
        let value = self.value(key)?;
        let number = value.get_ref().as_integer();
        let number = number.and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok());
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.wrong_type(key, &format!("a whole number from {min} to {max}"), value);
        }
        number
    }

    fn one<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, parse: &impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(&self.text_of(key, value)?) {
            Ok(found) => Some(found),
            Err(what) => {
                let hint = Some(format!("correct the value of {key}"));
                self.document.fault(value.span().start, what, hint);
                None
            }
        }
    }

    fn text_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, "a text in quotes", value);
        }
        text.map(str::to_owned)
    }

    fn as_table(&self, key: &str, value: &Spanned<DeValue<'a>>, name: String) -> Option<Table<'a>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, "a table", value);
            return None;
        };
        Some(Table {
            document: self.document,
            table: table.clone(),
            name,
            at: value.span().start,
        })
    }

    fn list(&self, key: &str) -> &[Spanned<DeValue<'a>>] {
        match self.value(key).map(|value| (value, value.get_ref())) {
            None => &[],
            Some((_, DeValue::Array(items))) => items,
            Some((value, _)) => {
                self.wrong_type(key, "a list", value);
                &[]
            }
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) {
        let what = format!("{key} must be {expected}; found {}", value.get_ref().type_str());
        let hint = Some(format!("write {key} as {expected}"));
        self.document.fault(value.span().start, what, hint);
    }

    fn value(&self, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        self.table
            .iter()
            .find(|(name, _)| AsRef::<str>::as_ref(name.get_ref()) == key)
            .map(|(_, value)| value)
    }
}

/// What is wrong with a text, and perhaps what to write instead.
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

/// A hint that is always the same.
pub(crate) fn hint(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The nearest of `known` when it is near enough to be a slip of the keyboard.
pub(crate) fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
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
