//! Rewrites the tables of the plugins' READMEs from plugin.toml, so that a metric is described once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const BEGIN: &str = "<!-- generated from plugin.toml by cargo xtask docs -->";
const END: &str = "<!-- end of generated -->";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    source: Vec<Source>,
    #[serde(default)]
    setting: Vec<Setting>,
    metric: Vec<Metric>,
    #[serde(default)]
    label: std::collections::BTreeMap<String, Label>,
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
    help: String,
}

#[derive(Deserialize)]
struct Label {
    pattern: Option<String>,
    values: Option<Vec<String>>,
    #[serde(default)]
    help: String,
}

/// Rewrites every plugin's README.
pub(crate) fn write(root: &Path) -> Result<()> {
    for folder in plugin_folders(root)? {
        let (path, _, wanted) = readme(&folder)?;
        std::fs::write(&path, wanted).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The READMEs that are not in step with plugin.toml.
pub(crate) fn stale(root: &Path) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for folder in plugin_folders(root)? {
        let (path, is, wanted) = readme(&folder)?;
        if is != wanted {
            stale.push(path);
        }
    }
    Ok(stale)
}

/// The shipped plugins.
pub(crate) fn plugin_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let plugins = root.join("plugins");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&plugins)
        .with_context(|| format!("reading {}", plugins.display()))?
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}

fn readme(folder: &Path) -> Result<(PathBuf, String, String)> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let manifest: Manifest = toml::from_str(&read("plugin.toml")?)
        .with_context(|| format!("reading {}", folder.join("plugin.toml").display()))?;
    let is = read("README.md")?;
    let wanted = replace_generated(&is, &tables(&manifest)?).with_context(|| format!("in {}", folder.display()))?;
    Ok((folder.join("README.md"), is, wanted))
}

fn replace_generated(readme: &str, tables: &str) -> Result<String> {
    let begin = readme
        .find(BEGIN)
        .with_context(|| format!("README.md has no line {BEGIN}"))?;
    let end = readme
        .find(END)
        .with_context(|| format!("README.md has no line {END}"))?;
    ensure!(begin < end, "README.md ends its generated part before it begins");
    Ok(format!("{}{BEGIN}\n\n{tables}\n{}", &readme[..begin], &readme[end..]))
}

fn tables(manifest: &Manifest) -> Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "### Sources\n\n| name | kind | required | meaning |\n| --- | --- | --- | --- |"
    )?;
    for source in &manifest.source {
        let required = if source.required { "yes" } else { "no" };
        writeln!(
            text,
            "| `{}` | {} | {required} | {} |",
            source.name,
            source.kind,
            cell(&source.help)
        )?;
    }
    writeln!(
        text,
        "\n### Settings\n\n| name | type | default | meaning |\n| --- | --- | --- | --- |"
    )?;
    for setting in &manifest.setting {
        let default = setting
            .default
            .as_ref()
            .map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            setting.name,
            setting.r#type,
            cell(&default),
            cell(&setting.help)
        )?;
    }
    writeln!(
        text,
        "\n### Metrics\n\n| name | unit | kind | role | labels | meaning |\n| --- | --- | --- | --- | --- | --- |"
    )?;
    for metric in &manifest.metric {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            text,
            "| `{}` | `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.unit,
            metric.kind,
            metric.role,
            labels.join(", "),
            cell(&metric.help)
        )?;
    }
    writeln!(text, "\n### Labels\n\n| name | values | meaning |\n| --- | --- | --- |")?;
    for (name, label) in &manifest.label {
        let values = match (&label.values, &label.pattern) {
            (Some(values), _) => values
                .iter()
                .map(|value| format!("`{value}`"))
                .collect::<Vec<_>>()
                .join(", "),
            (None, Some(pattern)) => format!("`{pattern}`"),
            (None, None) => String::new(),
        };
        writeln!(text, "| `{name}` | {} | {} |", cell(&values), cell(&label.help))?;
    }
    Ok(text)
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
    fn a_readme_without_the_generated_part_is_an_error() {
        assert!(replace_generated("# Name\n", "").is_err());
    }
}
