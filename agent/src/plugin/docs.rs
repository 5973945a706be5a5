//! `tillwatch plugin docs`: the tables of a plugin's README from its plugin.toml, so that a metric is described once.
//!
//! In: a folder with both files. Out: the README, whose text around the tables is its author's.
//! `cargo xtask docs` includes this very file, for the plugins of the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const BEGIN: &str = "<!-- generated from plugin.toml by tillwatch plugin docs -->";
const END: &str = "<!-- end of generated -->";
/// Around the plugin's summary, for a README that wants it.
const SUMMARY_BEGIN: &str = "<!-- summary of plugin.toml -->";
const SUMMARY_END: &str = "<!-- end of summary -->";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    plugin: Plugin,
    #[serde(default)]
    source: Vec<Source>,
    #[serde(default)]
    setting: Vec<Setting>,
    metric: Vec<Metric>,
    #[serde(default)]
    label: std::collections::BTreeMap<String, Label>,
}

#[derive(Default, Deserialize)]
struct Plugin {
    #[serde(default)]
    summary: String,
}

#[derive(Deserialize)]
struct Source {
    name: String,
    kind: String,
    #[serde(default)]
    required: bool,
    help: String,
}

#[derive(Deserialize)]
struct Setting {
    name: String,
    r#type: String,
    default: Option<toml::Value>,
    #[serde(default)]
    required: bool,
    help: String,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
    unit: String,
    kind: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    labels: Vec<String>,
    min: Option<toml::Value>,
    max: Option<toml::Value>,
    help: String,
}

#[derive(Deserialize)]
struct Label {
    pattern: Option<String>,
    values: Option<Vec<String>>,
    #[serde(default)]
    help: String,
}

/// Rewrites the tables in a plugin's README; returns its path.
///
/// # Errors
/// When one of both files cannot be read or has no place for the tables.
pub(crate) fn write(folder: &Path) -> Result<PathBuf> {
    let (path, is, wanted) = readme(folder)?;
    if is != wanted {
        std::fs::write(&path, wanted).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

/// The README's path, what it is and what it should be.
///
/// # Errors
/// See `write`.
pub(crate) fn readme(folder: &Path) -> Result<(PathBuf, String, String)> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let manifest: Manifest = toml::from_str(&read("plugin.toml")?)
        .with_context(|| format!("reading {}", folder.join("plugin.toml").display()))?;
    let is = read("README.md")?;
    let wanted = replace_generated(&is, &tables(&manifest)).with_context(|| format!("in {}", folder.display()))?;
    let wanted = replace_summary(wanted, &manifest.plugin.summary);
    Ok((folder.join("README.md"), is, wanted))
}

fn replace_generated(readme: &str, tables: &str) -> Result<String> {
    let begin = readme
        .find(BEGIN)
        .with_context(|| format!("README.md has no line {BEGIN}\nhint: the tables stand between it and {END}"))?;
    let end = readme
        .find(END)
        .with_context(|| format!("README.md has no line {END}"))?;
    ensure!(begin < end, "README.md ends its generated part before it begins");
    Ok(format!("{}{BEGIN}\n\n{tables}\n{}", &readme[..begin], &readme[end..]))
}

/// Nothing where there is no place for it.
fn replace_summary(readme: String, summary: &str) -> String {
    let parts = readme.split_once(SUMMARY_BEGIN);
    let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once(SUMMARY_END)?.1)));
    match parts {
        Some((before, after)) => format!("{before}{SUMMARY_BEGIN}\n{summary}\n{SUMMARY_END}{after}"),
        None => readme,
    }
}

/// What a plugin does not have gets no table.
fn tables(manifest: &Manifest) -> String {
    let mut sections = Vec::new();
    let mut section = |title: &str, columns: &str, rows: Vec<String>| {
        if !rows.is_empty() {
            let line = " --- |".repeat(columns.matches('|').count() + 1);
            sections.push(format!("### {title}\n\n| {columns} |\n|{line}\n{}", rows.concat()));
        }
    };
    section(
        "Sources",
        "name | kind | required | meaning",
        manifest.source.iter().map(source).collect(),
    );
    section(
        "Settings",
        "name | type | default | meaning",
        manifest.setting.iter().map(setting).collect(),
    );
    section(
        "Metrics",
        "name | unit | kind | role | labels | meaning",
        manifest.metric.iter().map(metric).collect(),
    );
    section(
        "Labels",
        "name | values | meaning",
        manifest.label.iter().map(label).collect(),
    );
    sections.join("\n")
}

fn source(source: &Source) -> String {
    let required = if source.required { "yes" } else { "no" };
    let (name, kind, help) = (&source.name, &source.kind, cell(&source.help));
    format!("| `{name}` | {kind} | {required} | {help} |\n")
}

fn setting(setting: &Setting) -> String {
    let default = setting.default.as_ref().map(|value| format!("`{value}`"));
    let default = default.unwrap_or_else(|| if setting.required { "required" } else { "none" }.to_owned());
    let (name, kind, help) = (&setting.name, &setting.r#type, cell(&setting.help));
    format!("| `{name}` | {kind} | {} | {help} |\n", cell(&default))
}

fn metric(metric: &Metric) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    format!(
        "| `{}` | `{}` | {} | {} | {} | {} |\n",
        metric.name,
        metric.unit,
        metric.kind,
        metric.role,
        labels.join(", "),
        cell(&(metric.help.clone() + &range(metric)))
    )
}

fn range(metric: &Metric) -> String {
    match (&metric.min, &metric.max) {
        (None, None) => String::new(),
        (Some(min), None) => format!(" At least {min}."),
        (None, Some(max)) => format!(" At most {max}."),
        (Some(min), Some(max)) => format!(" From {min} to {max}."),
    }
}

fn label((name, label): (&String, &Label)) -> String {
    let quoted = |values: &Vec<String>| values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>();
    let values = match (&label.values, &label.pattern) {
        (Some(values), _) => quoted(values).join(", "),
        (None, Some(pattern)) => format!("`{pattern}`"),
        (None, None) => String::new(),
    };
    format!("| `{name}` | {} | {} |\n", cell(&values), cell(&label.help))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_generated_part_of_a_readme_is_replaced() {
        let readme = format!("# Name\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n");
        let replaced = replace_generated(&readme, "new\n").unwrap();
        assert_eq!(replaced, format!("# Name\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"));
    }

    #[test]
    fn the_summary_stands_where_a_readme_has_a_place_for_it() {
        let readme = format!("# Name\n\n{SUMMARY_BEGIN}\nold\n{SUMMARY_END}\n\nafter\n");
        assert_eq!(replace_summary(readme.clone(), "New."), readme.replace("old", "New."));
        assert_eq!(replace_summary("# Name\n".to_owned(), "New."), "# Name\n");
    }

    #[test]
    fn a_table_says_what_plugin_toml_says_and_what_is_not_there_has_none() {
        let manifest = "[[source]]\nname = \"jobs\"\nkind = \"lines\"\nrequired = true\nhelp = \"a|b\"\n\
            [[setting]]\nname = \"zone\"\ntype = \"string\"\nrequired = true\nhelp = \"Zone.\"\n\
            [[metric]]\nname = \"job\"\nunit = \"s\"\nmin = 0\nmax = 1.5\nkind = \"sum\"\nhelp = \"Jobs.\"\n";
        let tables = tables(&toml::from_str(manifest).unwrap());
        for expected in [
            "| name | kind | required | meaning |\n| --- | --- | --- | --- |\n| `jobs` | lines | yes | a\\|b |\n",
            "| `zone` | string | required | Zone. |\n",
            "| `job` | `s` | sum |  |  | Jobs. From 0 to 1.5. |\n",
        ] {
            assert!(tables.contains(expected), "no {expected}: {tables}");
        }
        assert!(!tables.contains("### Labels"), "{tables}");
    }

    #[test]
    fn a_readme_without_the_generated_part_is_an_error() {
        assert!(replace_generated("# Name\n", "").is_err());
    }
}
