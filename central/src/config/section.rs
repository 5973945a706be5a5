//! A TOML document with the place of every key and value.
//!
//! In: text. Out: values asked for by name; every fault is kept with line, column and hint.
//! It never stops at the first fault, and knows nothing of what the values mean together.

use std::cell::RefCell;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One fault at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {what}\n  hint: {hint}")]
pub struct ConfigError {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
    pub hint: String,
}

/// All faults, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// The document and its faults so far.
pub(super) struct Sections<'a> {
    file: &'a str,
    text: &'a str,
    faults: RefCell<Vec<(usize, ConfigError)>>,
}

/// One table of it.
pub(super) struct Section<'a> {
    sections: &'a Sections<'a>,
    table: DeTable<'a>,
    at: usize,
}

impl<'a> Sections<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            faults: RefCell::default(),
        }
    }

    pub(super) fn root(&'a self, keys: &[&str]) -> Section<'a> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.fault(
                at,
                error.message().trim().replace('\n', ", "),
                "see https://toml.io for how TOML is written",
            );
        }
        let section = Section {
            sections: self,
            table: root.into_inner(),
            at: 0,
        };
        section.only(keys);
        section
    }

    pub(super) fn into_errors(self) -> ConfigErrors {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|(at, _)| *at);
        ConfigErrors(faults.into_iter().map(|(_, error)| error).collect())
    }

    fn fault(&self, at: usize, what: impl Into<String>, hint: impl Into<String>) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        let error = ConfigError {
            file: self.file.to_owned(),
            line,
            column,
            what: what.into(),
            hint: hint.into(),
        };
        self.faults.borrow_mut().push((at, error));
    }
}

impl<'a> Section<'a> {
    /// A fault at the value of `key`, or at the table when there is none.
    pub(super) fn fault(&self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let at = self.value(key).map_or(self.at, |value| value.span().start);
        self.sections.fault(at, what, hint);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// `[key]`, which may be missing.
    pub(super) fn table(&self, key: &str, keys: &[&str]) -> Option<Section<'a>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, "a table", value);
            return None;
        };
        let section = Section {
            sections: self.sections,
            table: table.clone(),
            at: value.span().start,
        };
        section.only(keys);
        Some(section)
    }

    /// Faults what must be there and is not.
    pub(super) fn required<T>(&self, found: Option<T>, key: &str, example: &str) -> Option<T> {
        if !self.has(key) {
            self.fault(key, format!("{key} is missing"), format!("add: {example}"));
        }
        found
    }

    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        self.parsed(key, "\"...\"", |text| {
            if text.is_empty() {
                Err("the path is empty".into())
            } else {
                Ok(text.into())
            }
        })
    }

    /// A text that must be there.
    pub(super) fn parsed<T>(&self, key: &str, example: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let found = self.optional(key, parse);
        self.required(found, key, &format!("{key} = {example}"))
    }

    /// A text that may be missing.
    pub(super) fn optional<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        self.one(key, value, &parse)
    }

    /// A list of texts; empty when it is missing.
    pub(super) fn texts<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        match self.value(key).map(|value| (value, value.get_ref())) {
            None => Vec::new(),
            Some((_, DeValue::Array(items))) => items.iter().filter_map(|item| self.one(key, item, &parse)).collect(),
            Some((value, _)) => {
                self.wrong_type(key, "a list of texts in quotes", value);
                Vec::new()
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, key: &str, min: usize, max: usize) -> Option<usize> {
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
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, "a text in quotes", value);
            return None;
        };
        match parse(text) {
            Ok(found) => Some(found),
            Err(what) => {
                self.sections
                    .fault(value.span().start, what, format!("correct the value of {key}"));
                None
            }
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) {
        let what = format!("{key} must be {expected}; found {}", value.get_ref().type_str());
        self.sections
            .fault(value.span().start, what, format!("write {key} as {expected}"));
    }

    fn only(&self, keys: &[&str]) {
        for key in self.table.keys() {
            let name: &str = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let hint = format!("known here: {}", keys.join(", "));
                self.sections
                    .fault(key.span().start, format!("unknown key {name:?}"), hint);
            }
        }
    }

    fn value(&self, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        self.table
            .iter()
            .find(|(name, _)| AsRef::<str>::as_ref(name.get_ref()) == key)
            .map(|(_, value)| value)
    }
}
