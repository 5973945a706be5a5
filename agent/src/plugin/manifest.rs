//! `plugin.toml`: what a plugin measures, which sources it asks for and which settings it takes.
//!
//! In: the file in the plugin's folder. Out: a [`Manifest`], or every problem of the file with its place.
//! It grants nothing: what the operator grants is decided against it in `grant`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tillwatch_core::LabelPolicy;
use tillwatch_core::sample::{Kind, Metric};
use toml::Spanned;
use toml::de::DeValue;

use super::range::{Range, Ranges};
use crate::config::written::{Mistake, Problem, Problems, Reporter, Section, closest, parse};

/// The worlds that this agent offers.
const WORLDS: [(&str, World); 2] = [("collector", World::Collector), ("prober", World::Prober)];
/// Of a plugin that says nothing.
const MIN_INTERVAL_MS_DEFAULT: u32 = 1_000;
/// Decimals of a metric that says nothing.
const DECIMALS_DEFAULT: u8 = 0;
const DECIMALS_MAX: i64 = 9;
/// Each is open while the plugin runs.
pub(super) const SOURCES_MAX: usize = 16;

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub min_interval_ms: u32,
    pub world: World,
    pub sources: Vec<AskedSource>,
    pub settings: Vec<Setting>,
    pub metrics: Vec<Metric>,
    pub ranges: Ranges,
    pub labels: BTreeMap<String, LabelPolicy>,
}

/// What the plugin may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Files, and nothing else.
    Collector,
    /// Peers over the network, too.
    Prober,
}

impl World {
    /// As in plugin.toml.
    #[must_use]
    pub fn name(self) -> &'static str {
        WORLDS
            .iter()
            .find(|(_name, world)| *world == self)
            .map_or("", |(name, _world)| name)
    }
}

/// A source that the plugin wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedSource {
    pub name: String,
    pub kind: SourceKind,
    pub required: bool,
    pub help: String,
}

/// How a source is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The lines of one file.
    Lines,
    /// Whole files of a folder.
    Documents,
    /// A folder's listing, without opening a file.
    Folder,
    /// An endpoint.
    Http,
    /// A peer for bounded exchanges.
    Tcp,
    /// A query that the operator writes.
    Sql,
}

impl SourceKind {
    /// As a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines of a file",
            Self::Documents => "files of a folder",
            Self::Folder => "listing of a folder",
            Self::Http => "http endpoint",
            Self::Tcp => "tcp peer",
            Self::Sql => "sql query",
        }
    }

    /// Whether it is asked over the network, which takes the world `prober`.
    #[must_use]
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Http | Self::Tcp | Self::Sql)
    }
}

/// A setting that the operator may give.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub name: String,
    pub kind: SettingKind,
    pub default: Option<serde_json::Value>,
    pub required: bool,
    pub help: String,
}

/// What a setting's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    String,
    Integer,
    Number,
    Boolean,
    List,
    Table,
}

impl SettingKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Table => "a table",
        }
    }

    #[must_use]
    pub fn fits(self, value: &DeValue<'_>) -> bool {
        matches!(
            (self, value),
            (Self::String, DeValue::String(_))
                | (Self::Integer, DeValue::Integer(_))
                | (Self::Number, DeValue::Integer(_) | DeValue::Float(_))
                | (Self::Boolean, DeValue::Boolean(_))
                | (Self::List, DeValue::Array(_))
                | (Self::Table, DeValue::Table(_))
        )
    }
}

impl Manifest {
    /// Reads `plugin.toml` in a plugin's folder.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(folder: &Path) -> Result<Self, Problems> {
        let path = folder.join("plugin.toml");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Problems(vec![Problem {
                path: path.clone(),
                line: 0,
                column: 0,
                what: format!("cannot be read: {error}"),
                hint: None,
            }])
        })?;
        Self::parse(&path, &text)
    }

    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        let reporter = Reporter::new(path, text);
        let root = parse(text, &reporter);
        let section = Section::root(&root, &reporter);
        let manifest = read(&section);
        // A plugin that is not read must never look like one without faults.
        let unread = section.place("it cannot be read".to_owned());
        drop(section);
        let mut problems = reporter.into_problems();
        match manifest {
            Some(manifest) if problems.0.is_empty() => return Ok(manifest),
            None if problems.0.is_empty() => problems.0.push(unread),
            _ => {}
        }
        Err(problems)
    }

    #[must_use]
    pub fn source(&self, name: &str) -> Option<&AskedSource> {
        self.sources.iter().find(|source| source.name == name)
    }
}

fn read(root: &Section<'_>) -> Option<Manifest> {
    let plugin = root.table("plugin");
    if plugin.is_none() {
        root.report(0..0, "`[plugin]` is missing", "begin with [plugin] and its name");
    }
    let world = plugin
        .as_ref()
        .and_then(|plugin| plugin.required("world", "\"collector\"", |world| one_of(world, &WORLDS)));
    // What is wrong with the world is told once.
    let offered = world.unwrap_or(World::Prober);
    let sources = root.tables("source").into_iter();
    let sources: Vec<AskedSource> = sources.filter_map(|section| source(section, offered)).collect();
    if sources.len() > SOURCES_MAX {
        root.report(0..0, format!("more than {SOURCES_MAX} sources"), "split the plugin");
    }
    let settings = root.tables("setting").into_iter().filter_map(setting).collect();
    let labels = labels(root);
    let mut ranges = Ranges::new();
    let metrics = root
        .tables("metric")
        .into_iter()
        .filter_map(|section| {
            let range = range(&section);
            let metric = metric(section, &labels)?;
            ranges.extend(range.map(|range| (metric.name.clone(), range)));
            Some(metric)
        })
        .collect();
    root.report_unknown();
    let plugin = plugin?;
    let manifest = Manifest {
        name: required(&plugin, "name", "\"queue-depth\"")?,
        version: required(&plugin, "version", "\"0.1.0\"")?,
        summary: plugin.string("summary").map(Spanned::into_inner).unwrap_or_default(),
        min_interval_ms: whole(&plugin, "min_interval_ms").unwrap_or(MIN_INTERVAL_MS_DEFAULT),
        world: offered,
        sources,
        settings,
        metrics,
        ranges,
        labels,
    };
    plugin.finish();
    world.map(|_world| manifest)
}

fn source(section: Section<'_>, world: World) -> Option<AskedSource> {
    let kinds = [
        ("lines", SourceKind::Lines),
        ("documents", SourceKind::Documents),
        ("folder", SourceKind::Folder),
        ("http", SourceKind::Http),
        ("tcp", SourceKind::Tcp),
        ("sql", SourceKind::Sql),
    ];
    let kind = section.required("kind", "\"lines\"", |kind| one_of(kind, &kinds))?;
    if kind.is_peer() && world == World::Collector {
        section.report(
            section.value("kind").map_or(section.span(), Spanned::span),
            "`kind` needs the network, which a collector has not",
            "write world = \"prober\" under [plugin]",
        );
    }
    let source = AskedSource {
        name: required(&section, "name", "\"events\"")?,
        kind,
        required: section.boolean("required").is_some_and(Spanned::into_inner),
        help: help(&section),
    };
    section.finish();
    Some(source)
}

fn setting(section: Section<'_>) -> Option<Setting> {
    let kinds = [
        ("string", SettingKind::String),
        ("integer", SettingKind::Integer),
        ("number", SettingKind::Number),
        ("boolean", SettingKind::Boolean),
        ("list", SettingKind::List),
        ("table", SettingKind::Table),
    ];
    let setting = Setting {
        name: required(&section, "name", "\"format\"")?,
        kind: section.required("type", "\"string\"", |kind| one_of(kind, &kinds))?,
        default: section.value("default").map(|value| to_json(value.get_ref())),
        required: section.boolean("required").is_some_and(Spanned::into_inner),
        help: help(&section),
    };
    section.finish();
    Some(setting)
}

fn metric(section: Section<'_>, labels: &BTreeMap<String, LabelPolicy>) -> Option<Metric> {
    let kinds = [
        ("gauge", Kind::Gauge),
        ("counter", Kind::Counter),
        ("sum", Kind::Sum),
        ("distribution", Kind::Distribution),
    ];
    let keys = section.strings("labels").map(Spanned::into_inner).unwrap_or_default();
    for key in keys.iter().filter(|key| !labels.contains_key(key.get_ref())) {
        let hint = format!("add [label.\"{}\"] with a pattern or values", key.get_ref());
        section.report(key.span(), format!("label `{}` is not described", key.get_ref()), hint);
    }
    let metric = Metric {
        name: required(&section, "name", "\"queue.depth\"")?,
        unit: required(&section, "unit", "\"s\"")?,
        kind: section.required("kind", "\"gauge\"", |kind| one_of(kind, &kinds))?,
        help: help(&section),
        label_keys: keys.into_iter().map(Spanned::into_inner).collect(),
        role: section.string("role").map(Spanned::into_inner).unwrap_or_default(),
        decimals: decimals(&section),
        currency: section.string("currency").map(Spanned::into_inner),
    };
    section.finish();
    Some(metric)
}

/// None without `min` and `max`; one of them leaves the other end open.
fn range(section: &Section<'_>) -> Option<Range> {
    let (min, max) = (end(section, "min"), end(section, "max"));
    let range = Range {
        min: min.unwrap_or(f64::NEG_INFINITY),
        max: max.unwrap_or(f64::INFINITY),
    };
    if range.min > range.max {
        section.report_at("min", "`min` is more than `max`", "exchange them");
    }
    (min.is_some() || max.is_some()).then_some(range)
}

fn end(section: &Section<'_>, key: &str) -> Option<f64> {
    let value = section.value(key)?;
    let number = to_json(value.get_ref()).as_f64();
    if number.is_none() {
        section.report(
            value.span(),
            format!("`{key}` is no number"),
            "write a number in the metric's unit",
        );
    }
    number
}

fn decimals(section: &Section<'_>) -> u8 {
    let Some(decimals) = section.integer("decimals") else {
        return DECIMALS_DEFAULT;
    };
    if !(0..=DECIMALS_MAX).contains(decimals.get_ref()) {
        section.report(
            decimals.span(),
            "`decimals` is out of range",
            format!("write 0 to {DECIMALS_MAX}"),
        );
    }
    u8::try_from(decimals.into_inner()).unwrap_or(DECIMALS_DEFAULT)
}

fn labels(root: &Section<'_>) -> BTreeMap<String, LabelPolicy> {
    let Some(section) = root.table("label") else {
        return BTreeMap::new();
    };
    let names: BTreeSet<String> = section.names().map(Spanned::into_inner).collect();
    let policies = names
        .into_iter()
        .filter_map(|name| Some((name.clone(), label(section.table(&name)?))));
    policies.collect()
}

fn label(section: Section<'_>) -> LabelPolicy {
    let pattern = section.string("pattern").map(Spanned::into_inner);
    let values = section.strings("values").map(Spanned::into_inner);
    let values = values.map(|values| values.into_iter().map(Spanned::into_inner).collect::<Vec<_>>());
    if pattern.is_some() == values.is_some() {
        section.report(
            section.span(),
            "a label has either `pattern` or `values`",
            "give one of them",
        );
    }
    let values_max = whole(&section, "values_max");
    if pattern.is_some() && section.value("values_max").is_none() {
        section.report_missing("values_max", "50");
    }
    help(&section);
    section.finish();
    let listed = values.as_ref().map_or(0, Vec::len);
    LabelPolicy {
        pattern,
        values,
        values_max: values_max.unwrap_or(u32::try_from(listed).unwrap_or(u32::MAX)),
    }
}

fn help(section: &Section<'_>) -> String {
    section.string("help").map(Spanned::into_inner).unwrap_or_default()
}

fn required(section: &Section<'_>, key: &str, example: &str) -> Option<String> {
    if section.value(key).is_none() {
        section.report_missing(key, example);
    }
    section.string(key).map(Spanned::into_inner)
}

/// A whole number that may be missing, but not negative.
fn whole(section: &Section<'_>, key: &str) -> Option<u32> {
    let value = section.integer(key)?;
    let number = u32::try_from(*value.get_ref()).ok();
    if number.is_none() {
        let hint = format!("write 0 to {}", u32::MAX);
        section.report(value.span(), format!("`{key}` is out of range"), hint);
    }
    number
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Mistake> {
    if let Some((_name, choice)) = choices.iter().find(|(name, _choice)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _choice)| *name).collect();
    let hint = closest(text, &names).map_or_else(
        || format!("one of {}", names.join(", ")),
        |name| format!("did you mean \"{name}\"?"),
    );
    Err(Mistake::new(format!("cannot be {text:?}"), hint))
}

/// As the plugin gets it; times become strings.
#[must_use]
pub fn to_json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(serde_json::Value::Null, Into::into)
        }
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or(serde_json::Value::Null, Into::into),
        DeValue::Boolean(value) => serde_json::Value::from(*value),
        DeValue::Datetime(time) => serde_json::Value::from(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(entries) => {
            let entries = entries
                .iter()
                .map(|(name, value)| (name.get_ref().clone().into_owned(), to_json(value.get_ref())));
            serde_json::Value::Object(entries.collect())
        }
    }
}

/// The page that both readers are held against.
#[cfg(test)]
#[path = "../../../sdk/macros/src/reference.rs"]
mod reference;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const GOOD: &str = r#"
[plugin]
name = "queue-depth"
version = "0.1.0"
summary = "Depth of queues."
world = "collector"
min_interval_ms = 1000
[[source]]
name = "events"
kind = "lines"
required = true
help = "One line per reading."
[[source]]
name = "drop"
kind = "folder"
help = "A drop folder."
[[setting]]
name = "format"
type = "string"
default = "json"
help = "How a line is read."
[[setting]]
name = "limit"
type = "integer"
help = "A limit."
[[metric]]
name = "queue.depth"
unit = "{message}"
kind = "gauge"
role = "queue"
decimals = 0
labels = ["queue"]
help = "Messages that wait."
[label.queue]
pattern = "[a-z]+"
values_max = 50
"#;

    fn problems(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        Manifest::parse(Path::new("plugin.toml"), &GOOD.replacen(from, to, 1))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_manifest_is_read_whole() {
        let manifest = Manifest::parse(Path::new("plugin.toml"), GOOD).unwrap();
        assert_eq!(manifest.metrics[0].label_keys, ["queue"]);
        assert_eq!(manifest.settings[0].default, Some("json".into()));
        assert_eq!(manifest.labels["queue"].values_max, 50);
        assert_eq!(manifest.source("drop").unwrap().kind, SourceKind::Folder);
        assert!(manifest.sources[0].required);
    }

    #[test]
    fn the_page_on_plugin_toml_says_what_is_required_and_what_the_defaults_are() {
        reference::check(false, |file| {
            let manifest = Manifest::parse(Path::new("plugin.toml"), &file.to_string()).ok()?;
            Some(format!("{manifest:?}"))
        });
    }

    /// Such a plugin was silently left out, and `check` said that all was good.
    #[test]
    fn whatever_is_missing_is_told() {
        for (from, missing) in [
            ("world = \"collector\"\n", "world"),
            ("kind = \"lines\"\n", "kind"),
            ("type = \"string\"\n", "type"),
            ("kind = \"gauge\"\n", "kind"),
            ("unit = \"{message}\"\n", "unit"),
        ] {
            let found = problems(from, "");
            assert!(found.contains(&format!("`{missing}` is missing")), "{from}: {found}");
        }
        for line in GOOD.lines().filter(|line| !line.is_empty()) {
            let without = GOOD.replacen(&format!("{line}\n"), "", 1);
            if let Err(problems) = Manifest::parse(Path::new("plugin.toml"), &without) {
                assert!(!problems.0.is_empty(), "{line}");
            }
        }
    }

    #[test]
    fn a_plugin_opens_so_many_sources_and_no_more() {
        let source = |number: usize| format!("[[source]]\nname = \"s{number}\"\nkind = \"folder\"\nhelp = \"One.\"\n");
        let given = GOOD.matches("[[source]]").count();
        let with = |count: usize| {
            let more: String = (given..count).map(source).collect();
            Manifest::parse(Path::new("plugin.toml"), &(GOOD.to_owned() + &more))
        };
        assert_eq!(with(SOURCES_MAX).unwrap().sources.len(), SOURCES_MAX);
        let problems = with(SOURCES_MAX + 1).unwrap_err().to_string();
        assert!(problems.contains("more than 16 sources"), "{problems}");
    }

    #[test]
    fn each_mistake_has_its_line_and_a_hint() {
        for (from, to, expected) in [
            (
                "kind = \"lines\"",
                "kind = \"line\"",
                "plugin.toml:10:8: `kind` cannot be \"line\"\n  hint: did you mean \"lines\"?",
            ),
            (
                "world = \"collector\"",
                "world = \"watcher\"",
                "`world` cannot be \"watcher\"\n  hint: one of collector, prober",
            ),
            (
                "labels = [\"queue\"]",
                "labels = [\"que\"]",
                "label `que` is not described",
            ),
            (
                "kind = \"lines\"",
                "kind = \"http\"",
                "`kind` needs the network, which a collector has not\n  hint: write world = \"prober\"",
            ),
            ("values_max = 50", "", "`values_max` is missing"),
            ("values_max = 50", "values_max = -1", "`values_max` is out of range"),
            (
                "min_interval_ms = 1000",
                "min_interval_ms = -5",
                "`min_interval_ms` is out of range",
            ),
            ("decimals = 0", "decimals = 12", "`decimals` is out of range"),
            ("decimals = 0", "min = 2\nmax = 1.5", "`min` is more than `max`"),
            ("decimals = 0", "max = \"1\"", "`max` is no number"),
            (
                "summary =",
                "sumary =",
                "unknown key `sumary`\n  hint: did you mean `summary`?",
            ),
            (
                "[[metric]]",
                "[[metrics]]",
                "unknown key `metrics`\n  hint: did you mean `metric`?",
            ),
        ] {
            let found = problems(from, to);
            assert!(found.contains(expected), "{found}");
        }
    }
}
