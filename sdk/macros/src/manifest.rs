//! What `plugin.toml` may say, and whether it makes sense.
//!
//! The agent reads the same file for what an operator may grant and set; here it is checked when the plugin is built,
//! so that its author hears of a mistake first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::{Spanned, Value};

/// Values are whole multiples of 10^-decimals.
const DECIMALS_MAX: u8 = 9;
const NAME_BYTES_MAX: usize = 64;
const METRICS_MAX: usize = 256;

/// A mistake and where it stands.
#[derive(Debug)]
pub(crate) struct Problem {
    message: String,
    span: Option<Range<usize>>,
}

impl Problem {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: Some(span),
        }
    }

    /// `plugin.toml:12: ...` with the line itself.
    pub(crate) fn display(&self, text: &str) -> String {
        let Some(span) = &self.span else {
            return format!("plugin.toml: {}", self.message);
        };
        let before = text.get(..span.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        format!("plugin.toml:{number}: {}\n  {line}", self.message)
    }
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) plugin: Plugin,
    #[serde(default, rename = "source")]
    sources: Vec<Source>,
    #[serde(default, rename = "setting")]
    settings: Vec<Setting>,
    #[serde(default, rename = "metric")]
    pub(crate) metrics: Vec<Metric>,
    #[serde(default, rename = "label")]
    labels: BTreeMap<Spanned<String>, Label>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plugin {
    pub(crate) name: Spanned<String>,
    pub(crate) version: Spanned<String>,
    #[serde(rename = "summary")]
    _summary: String,
    world: Spanned<String>,
    #[serde(default = "min_interval_ms")]
    pub(crate) min_interval_ms: u32,
}

/// As the agent takes it.
fn min_interval_ms() -> u32 {
    1_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: Spanned<String>,
    kind: Spanned<String>,
    #[serde(default, rename = "required")]
    _required: bool,
    #[serde(rename = "help")]
    _help: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    name: Spanned<String>,
    #[serde(rename = "type")]
    kind: Spanned<String>,
    default: Option<Spanned<Value>>,
    #[serde(default, rename = "required")]
    _required: bool,
    #[serde(rename = "help")]
    _help: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metric {
    pub(crate) name: Spanned<String>,
    pub(crate) unit: String,
    pub(crate) kind: Spanned<String>,
    #[serde(default)]
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) decimals: Option<Spanned<u8>>,
    pub(crate) currency: Option<Spanned<String>>,
    /// For the agent.
    #[serde(rename = "min")]
    _min: Option<f64>,
    #[serde(rename = "max")]
    _max: Option<f64>,
    #[serde(default)]
    pub(crate) labels: Vec<Spanned<String>>,
    pub(crate) help: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    pattern: Option<Spanned<String>>,
    values: Option<Vec<String>>,
    values_max: Option<u32>,
    #[serde(default, rename = "help")]
    _help: String,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let manifest: Self = toml::from_str(text).map_err(|error| Problem {
            message: error.message().to_owned(),
            span: error.span(),
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), Problem> {
        check_plugin(&self.plugin)?;
        check_unique("source", self.sources.iter().map(|source| &source.name))?;
        for source in &self.sources {
            check_name(&source.name, "a source's name")?;
            check_one_of(&source.kind, &["lines", "documents", "folder", "http", "tcp", "sql"])?;
            check_world(&self.plugin.world, &source.kind)?;
        }
        check_unique("setting", self.settings.iter().map(|setting| &setting.name))?;
        self.settings.iter().try_for_each(check_setting)?;
        check_unique("metric", self.metrics.iter().map(|metric| &metric.name))?;
        self.check_metrics()?;
        self.check_labels()
    }

    fn check_metrics(&self) -> Result<(), Problem> {
        if let Some(metric) = self.metrics.get(METRICS_MAX) {
            return Err(Problem::new(
                metric.name.span(),
                format!("more than {METRICS_MAX} metrics"),
            ));
        }
        let mut constants = BTreeSet::new();
        for metric in &self.metrics {
            check_metric(metric)?;
            if !constants.insert(metric.constant()) {
                let message = format!("another metric has the constant {} already", metric.constant());
                return Err(Problem::new(metric.name.span(), message));
            }
            for label in &metric.labels {
                if !self.labels.contains_key(label.get_ref().as_str()) {
                    let message = format!("no [label.\"{}\"] says which values it may have", label.get_ref());
                    return Err(Problem::new(label.span(), message));
                }
            }
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<(), Problem> {
        let used: BTreeSet<&String> = self
            .metrics
            .iter()
            .flat_map(|metric| &metric.labels)
            .map(Spanned::get_ref)
            .collect();
        for (key, label) in &self.labels {
            if !used.contains(key.get_ref()) {
                return Err(Problem::new(key.span(), "no metric has this label"));
            }
            match (&label.pattern, &label.values) {
                (Some(_), None) if label.values_max.is_none() => {
                    return Err(Problem::new(key.span(), "a label with a pattern needs values_max"));
                }
                (Some(_), None) | (None, Some(_)) => {}
                _ => return Err(Problem::new(key.span(), "a label has either a pattern or values")),
            }
        }
        Ok(())
    }
}

impl Metric {
    /// `queue.oldest_age` becomes `QUEUE_OLDEST_AGE`.
    pub(crate) fn constant(&self) -> String {
        let upper = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        self.name.get_ref().chars().map(upper).collect()
    }
}

fn check_plugin(plugin: &Plugin) -> Result<(), Problem> {
    check_name(&plugin.name, "the plugin's name")?;
    check_one_of(&plugin.world, &["collector", "prober"])?;
    let version = plugin.version.get_ref();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if version.split('.').count() != 3 || !version.split('.').all(is_number) {
        return Err(Problem::new(
            plugin.version.span(),
            "the version must be three numbers, such as 0.1.0",
        ));
    }
    Ok(())
}

/// A collector has no network.
fn check_world(world: &Spanned<String>, kind: &Spanned<String>) -> Result<(), Problem> {
    if world.get_ref() == "collector" && ["http", "tcp", "sql"].contains(&kind.get_ref().as_str()) {
        let message = format!(
            "a source of kind {} needs world = \"prober\" and export_prober!",
            kind.get_ref()
        );
        return Err(Problem::new(kind.span(), message));
    }
    Ok(())
}

fn check_metric(metric: &Metric) -> Result<(), Problem> {
    let name = metric.name.get_ref();
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_part) {
        let message = format!("a metric's name has parts of a-z, 0-9 and _ with dots between, not {name:?}");
        return Err(Problem::new(metric.name.span(), message));
    }
    check_one_of(&metric.kind, &["gauge", "counter", "sum", "distribution"])?;
    if let Some(decimals) = metric
        .decimals
        .as_ref()
        .filter(|decimals| *decimals.get_ref() > DECIMALS_MAX)
    {
        return Err(Problem::new(
            decimals.span(),
            format!("decimals go from 0 to {DECIMALS_MAX}"),
        ));
    }
    if let Some(currency) = &metric.currency {
        let code = currency.get_ref();
        if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Problem::new(
                currency.span(),
                "a currency is an ISO 4217 code, such as EUR",
            ));
        }
    }
    Ok(())
}

fn check_setting(setting: &Setting) -> Result<(), Problem> {
    check_one_of(
        &setting.kind,
        &["string", "integer", "number", "boolean", "list", "table"],
    )?;
    let Some(default) = &setting.default else { return Ok(()) };
    let fits = matches!(
        (setting.kind.get_ref().as_str(), default.get_ref()),
        ("string", Value::String(_))
            | ("integer", Value::Integer(_))
            | ("number", Value::Integer(_) | Value::Float(_))
            | ("boolean", Value::Boolean(_))
            | ("list", Value::Array(_))
            | ("table", Value::Table(_))
    );
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        default.span(),
        format!("the default is not of type {}", setting.kind.get_ref()),
    ))
}

fn check_name(name: &Spanned<String>, what: &str) -> Result<(), Problem> {
    let text = name.get_ref();
    let fits = text
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if fits && (1..=NAME_BYTES_MAX).contains(&text.len()) {
        return Ok(());
    }
    Err(Problem::new(
        name.span(),
        format!("{what} has a-z, 0-9, - and _, at most {NAME_BYTES_MAX}, not {text:?}"),
    ))
}

fn check_one_of(text: &Spanned<String>, allowed: &[&str]) -> Result<(), Problem> {
    if allowed.contains(&text.get_ref().as_str()) {
        return Ok(());
    }
    Err(Problem::new(
        text.span(),
        format!("{:?} is not one of {}", text.get_ref(), allowed.join(", ")),
    ))
}

fn check_unique<'a>(what: &str, names: impl Iterator<Item = &'a Spanned<String>>) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.get_ref()) {
            return Err(Problem::new(
                name.span(),
                format!("another {what} has the name {} already", name.get_ref()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    const GOOD: &str = r#"[plugin]
name = "queue-depth"
version = "0.1.0"
summary = "Depth of queues."
world = "collector"
min_interval_ms = 1000
[[source]]
name = "events"
kind = "lines"
help = "One line per reading."
[[setting]]
name = "format"
type = "string"
default = "json"
help = "How a line is read."
[[metric]]
name = "queue.depth"
unit = "{message}"
kind = "gauge"
labels = ["queue"]
help = "Messages that wait."
[label.queue]
pattern = "[a-z]+"
values_max = 50
"#;

    /// The message for a change of the good file.
    fn problem(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        Manifest::parse(&text).expect_err(to).display(&text)
    }

    #[test]
    fn a_good_file_is_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.metrics[0].constant(), "QUEUE_DEPTH");
    }

    #[test]
    fn a_mistake_names_its_line() {
        let message = problem("kind = \"gauge\"", "kind = \"gage\"");
        assert!(
            message.starts_with("plugin.toml:19: \"gage\" is not one of gauge,"),
            "{message}"
        );
        assert!(message.ends_with("\n  kind = \"gage\""), "{message}");
    }

    #[test]
    fn each_rule_is_kept() {
        for (from, to, expected) in [
            (
                "name = \"queue-depth\"",
                "name = \"Queue\"",
                "plugin.toml:2: the plugin's name",
            ),
            ("0.1.0", "0.1", "plugin.toml:3: the version"),
            (
                "\"collector\"",
                "\"probe\"",
                "plugin.toml:5: \"probe\" is not one of collector, prober",
            ),
            ("summary", "sumary", "plugin.toml:4: unknown field `sumary`"),
            (
                "kind = \"lines\"",
                "kind = \"line\"",
                "plugin.toml:9: \"line\" is not one of",
            ),
            (
                "kind = \"lines\"",
                "kind = \"http\"",
                "plugin.toml:9: a source of kind http needs world = \"prober\"",
            ),
            (
                "default = \"json\"",
                "default = 3",
                "plugin.toml:14: the default is not of type string",
            ),
            ("queue.depth", "queue depth", "plugin.toml:17: a metric's name"),
            ("unit = ", "decimals = 10\nunit = ", "plugin.toml:18: decimals go"),
            (
                "unit = ",
                "currency = \"euro\"\nunit = ",
                "plugin.toml:18: a currency is",
            ),
            (
                "[\"queue\"]",
                "[\"queue\", \"node\"]",
                "plugin.toml:20: no [label.\"node\"]",
            ),
            ("labels = [\"queue\"]\n", "", "plugin.toml:21: no metric has this label"),
            (
                "values_max = 50",
                "",
                "plugin.toml:22: a label with a pattern needs values_max",
            ),
            ("pattern = \"[a-z]+\"", "", "plugin.toml:22: a label has either"),
        ] {
            let message = problem(from, to);
            assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
        }
    }

    #[test]
    fn the_page_on_plugin_toml_says_what_is_required_and_what_the_defaults_are() {
        reference::check(true, |file| {
            let manifest = Manifest::parse(&file.to_string()).ok()?;
            Some(crate::generate::code(&manifest, "plugin.toml"))
        });
    }

    #[test]
    fn the_page_on_plugin_toml_has_every_key_and_no_other() {
        let words = |text: &str| -> BTreeSet<String> {
            let words = text.split('`').skip(1).step_by(2);
            words.map(str::to_owned).collect()
        };
        for section in ["plugin", "source", "setting", "metric", "label"] {
            let mut file = reference::example();
            let place = match &mut file[section] {
                Value::Array(tables) => &mut tables[0],
                Value::Table(labels) if section == "label" => &mut labels["terminal"],
                table => table,
            };
            place.as_table_mut().unwrap().insert("unknown".to_owned(), 1.into());
            let error = Manifest::parse(&file.to_string()).unwrap_err();
            let (_unknown, known) = error.message.split_once("expected one of").unwrap();
            let rows = reference::rows().into_iter().filter(|row| row.section == section);
            assert_eq!(
                rows.map(|row| row.key).collect::<BTreeSet<_>>(),
                words(known),
                "{section}"
            );
        }
    }

    #[test]
    fn a_name_stands_only_once() {
        let metric = "[[metric]]\nname = \"queue.depth\"\nunit = \"1\"\nkind = \"sum\"\nhelp = \"\"\n[[metric]]\n";
        let message = problem("[[metric]]\n", metric);
        assert!(
            message.contains("another metric has the name queue.depth already"),
            "{message}"
        );
    }
}
