//! A TOML file as written: each value with its place, and all problems of a file in one pass.
//!
//! In: the text. Out: values that were asked for, and a [`Problem`] with line and column for each that is wrong.
//! A key that nobody asked for is unknown, so the keys that exist stand in one place: where they are read.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong in a settings file, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    /// From 1; 0 when the file itself is the problem.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        write!(formatter, ": {}", self.what)?;
        match &self.hint {
            Some(hint) => write!(formatter, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(formatter, "{problem}")?;
        }
        match self.0.len() {
            1 => write!(formatter, "1 problem"),
            count => write!(formatter, "{count} problems"),
        }
    }
}

impl std::error::Error for Problems {}

/// The problem, and what to do about it when an error's text says so.
#[must_use]
pub fn split_hint(text: &str) -> (&str, Option<String>) {
    match text.split_once("hint: ") {
        Some((what, hint)) => (what.trim_end(), Some(hint.to_owned())),
        None => (text, None),
    }
}

/// Collects the problems of one file.
#[derive(Debug)]
pub struct Reporter<'a> {
    path: &'a Path,
    text: &'a str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Reporter<'a> {
    #[must_use]
    pub fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            problems: RefCell::default(),
        }
    }

    pub fn report(&self, span: Range<usize>, what: impl Into<String>, hint: Option<String>) {
        let start = span.start;
        let problem = self.problem(start, what.into(), hint);
        self.problems.borrow_mut().push((start, problem));
    }

    fn problem(&self, start: usize, what: String, hint: Option<String>) -> Problem {
        let before = self.text.get(..start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Problem {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what,
            hint,
        }
    }

    #[must_use]
    pub fn into_problems(self) -> Problems {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(start, _problem)| *start);
        Problems(problems.into_iter().map(|(_start, problem)| problem).collect())
    }
}

/// The tables of a text; what is no TOML is reported, the rest is still there.
#[must_use]
pub fn parse<'a>(text: &'a str, reporter: &Reporter<'_>) -> Spanned<DeTable<'a>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reporter.report(
            error.span().unwrap_or(0..0),
            error.message().trim_end().replace('\n', ", "),
            None,
        );
    }
    root
}

/// A table of the file, from which values are asked by name.
#[derive(Debug)]
pub struct Section<'a> {
    reporter: &'a Reporter<'a>,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    #[must_use]
    pub fn root(root: &'a Spanned<DeTable<'a>>, reporter: &'a Reporter<'a>) -> Self {
        Self::of(root.get_ref(), 0..0, reporter)
    }

    fn of(entries: &'a DeTable<'a>, span: Range<usize>, reporter: &'a Reporter<'a>) -> Self {
        Self {
            reporter,
            entries,
            span,
            asked: RefCell::default(),
        }
    }

    /// Where the table begins.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A problem of this table that only shows later.
    #[must_use]
    pub fn place(&self, what: String) -> Problem {
        self.place_of(&self.span, what)
    }

    /// A problem of a value that only shows later.
    #[must_use]
    pub fn place_of(&self, span: &Range<usize>, what: String) -> Problem {
        self.reporter.problem(span.start, what, None)
    }

    pub fn report(&self, span: Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        self.reporter.report(span, what, (!hint.is_empty()).then_some(hint));
    }

    /// At the value of a key that is there.
    pub fn report_at(&self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let place = self.value(key).map_or(self.span(), Spanned::span);
        self.report(place, what, hint);
    }

    /// The key is missing and must not be.
    pub fn report_missing(&self, key: &str, example: &str) {
        self.report(
            self.span(),
            format!("`{key}` is missing"),
            format!("add {key} = {example}"),
        );
    }

    pub fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key.to_owned());
        self.entries
            .iter()
            .find(|(name, _value)| name.get_ref() == key)
            .map(|(_name, value)| value)
    }

    /// All names of the table with their places, for tables whose keys are free.
    pub fn names(&self) -> impl Iterator<Item = Spanned<String>> {
        self.entries
            .keys()
            .map(|name| Spanned::new(name.span(), name.get_ref().clone().into_owned()))
    }

    pub fn string(&self, key: &str) -> Option<Spanned<String>> {
        self.typed(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub fn boolean(&self, key: &str) -> Option<Spanned<bool>> {
        self.typed(key, "true or false", DeValue::as_bool)
    }

    pub fn integer(&self, key: &str) -> Option<Spanned<i64>> {
        self.typed(key, "a whole number", |value| {
            let integer = value.as_integer()?;
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()
        })
    }

    pub fn strings(&self, key: &str) -> Option<Spanned<Vec<Spanned<String>>>> {
        self.typed(key, "a list of strings", |value| {
            let items = value.as_array()?.iter();
            items
                .map(|item| Some(Spanned::new(item.span(), item.get_ref().as_str()?.to_owned())))
                .collect()
        })
    }

    /// `[key]`.
    pub fn table(&self, key: &str) -> Option<Section<'a>> {
        let value = self.value(key)?;
        let DeValue::Table(entries) = value.get_ref() else {
            self.report_type(key, "a table", value);
            return None;
        };
        Some(Self::of(entries, value.span(), self.reporter))
    }

    /// `[[key]]`.
    pub fn tables(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let tables = value.get_ref().as_array().and_then(|items| {
            let section = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
                DeValue::Table(entries) => Some(Self::of(entries, item.span(), self.reporter)),
                _ => None,
            };
            items.iter().map(section).collect::<Option<Vec<_>>>()
        });
        tables.unwrap_or_else(|| {
            self.report(
                value.span(),
                format!("`{key}` must be a list of tables"),
                format!("write [[{key}]] above its keys"),
            );
            Vec::new()
        })
    }

    /// A string that means something: what `read` refuses is reported with its own words.
    pub fn read<T>(&self, key: &str, read: impl FnOnce(&str) -> Result<T, Mistake>) -> Option<Spanned<T>> {
        let text = self.string(key)?;
        match read(text.get_ref()) {
            Ok(value) => Some(Spanned::new(text.span(), value)),
            Err(mistake) => {
                self.report(text.span(), format!("`{key}` {}", mistake.what), mistake.hint);
                None
            }
        }
    }

    /// As `read`, of a key that must be there.
    pub fn required<T>(&self, key: &str, example: &str, read: impl FnOnce(&str) -> Result<T, Mistake>) -> Option<T> {
        if self.value(key).is_none() {
            self.report_missing(key, example);
        }
        self.read(key, read).map(Spanned::into_inner)
    }

    /// As `read`, of a number that is `default` when the key is missing or its value is outside the range.
    pub fn in_range(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<u64, Mistake>,
        default: u64,
        range: (u64, u64),
        unit: &str,
    ) -> u64 {
        let Some(value) = self.read(key, read) else {
            return default;
        };
        if (range.0..=range.1).contains(value.get_ref()) {
            return value.into_inner();
        }
        self.report(
            value.span(),
            format!("`{key}` is out of range"),
            format!("write {}{unit} to {}{unit}", range.0, range.1),
        );
        default
    }

    /// Reports the keys that nobody asked for; called last.
    pub fn finish(self) {
        self.report_unknown();
    }

    /// Reports the keys that nobody asked for so far.
    pub fn report_unknown(&self) {
        let asked = self.asked.borrow();
        for (name, _value) in self.entries {
            if !asked.iter().any(|asked| asked == name.get_ref()) {
                let hint = unknown_hint(name.get_ref(), asked.iter().map(String::as_str));
                self.report(name.span(), format!("unknown key `{}`", name.get_ref()), hint);
            }
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        let read = read(value.get_ref());
        if read.is_none() {
            self.report_type(key, expected, value);
        }
        read.map(|read| Spanned::new(value.span(), read))
    }

    fn report_type(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) {
        self.report(
            value.span(),
            format!("`{key}` must be {expected}, not {}", type_name(value.get_ref())),
            "",
        );
    }
}

/// What is wrong with a value, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Follows the key: `is not a duration`.
    pub what: String,
    /// May be empty.
    pub hint: String,
}

impl Mistake {
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// `did you mean x?`, or the names that there are.
pub fn unknown_hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    match closest(name, &known) {
        Some(closest) => format!("did you mean `{closest}`?"),
        None if known.is_empty() => "nothing is known here: remove it".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The name that differs least, when it differs by at most a third of its letters.
#[must_use]
pub fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    let distances = known.iter().map(|known| (edit_distance(name, known), *known));
    distances
        .filter(|(distance, _known)| *distance <= limit)
        .min()
        .map(|(_distance, known)| known)
}

/// Levenshtein's, one row at a time.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right_char) in right.iter().enumerate() {
            let substitution = diagonal + usize::from(left_char != *right_char);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// As a person calls it.
#[must_use]
pub fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested_unless_nothing_is_close() {
        assert_eq!(closest("intervall", &["interval", "deadline"]), Some("interval"));
        assert_eq!(closest("stie", &["site", "url"]), None);
        assert_eq!(closest("sit", &["site", "url"]), Some("site"));
        assert_eq!(closest("colour", &["site", "url"]), None);
    }

    #[test]
    fn all_problems_of_a_file_come_at_once_with_their_places() {
        let text = "site = 3\nintervall = \"1s\"\n\n[broker]\nurl = \"x\"\n  ca = [1]\n";
        let path = Path::new("agent.toml");
        let reporter = Reporter::new(path, text);
        let root = parse(text, &reporter);
        let section = Section::root(&root, &reporter);
        assert!(section.string("site").is_none());
        assert!(section.string("interval").is_none());
        let broker = section.table("broker").unwrap();
        assert_eq!(broker.string("url").unwrap().get_ref(), "x");
        assert!(broker.string("ca").is_none());
        broker.finish();
        section.finish();
        let problems: Vec<String> = reporter.into_problems().0.iter().map(Problem::to_string).collect();
        assert_eq!(
            problems,
            [
                "agent.toml:1:8: `site` must be a string, not a whole number",
                "agent.toml:2:1: unknown key `intervall`\n  hint: did you mean `interval`?",
                "agent.toml:6:8: `ca` must be a string, not a list",
            ]
        );
    }

    #[test]
    fn broken_toml_is_reported_and_the_rest_is_still_read() {
        let text = "site = \nwindow = 1 2\nshard = \"a\"\n";
        let path = Path::new("agent.toml");
        let reporter = Reporter::new(path, text);
        let root = parse(text, &reporter);
        let section = Section::root(&root, &reporter);
        assert_eq!(section.string("shard").unwrap().get_ref(), "a");
        let lines: Vec<usize> = reporter
            .problems
            .borrow()
            .iter()
            .map(|(_start, problem)| problem.line)
            .collect();
        assert!(lines.contains(&1) && lines.contains(&2), "{lines:?}");
    }
}
