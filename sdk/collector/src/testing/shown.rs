//! The settings that a plugin's files show, held against what its code takes.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// The defaults of `plugin.toml` and the settings of `sample.toml`, as the plugin would get them.
/// A test compares both: the sample shows what a store has without settings of its own.
///
/// ```no_run
/// #[derive(Debug, PartialEq, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     longest_ms: i64,
/// }
///
/// let [declared, sample] = tillwatch_sdk::testing::shown_settings::<Settings>(".");
/// assert_eq!(declared, sample);
/// ```
///
/// # Panics
/// When a file cannot be read, the plugin does not take its settings, or one file shows a setting that the other does not.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn shown_settings<S: DeserializeOwned>(folder: impl AsRef<Path>) -> [S; 2] {
    read(folder.as_ref()).unwrap_or_else(|message| panic!("{message}"))
}

fn read<S: DeserializeOwned>(folder: &Path) -> Result<[S; 2], String> {
    let declared = declared(&table(&folder.join("plugin.toml"))?);
    let sample = sample(&table(&folder.join("sample.toml"))?).ok_or("sample.toml has no [plugin.settings]")?;
    let names = |settings: &Table| settings.keys().cloned().collect::<Vec<_>>();
    if names(&declared) != names(&sample) {
        return Err(format!(
            "plugin.toml shows {:?}, sample.toml {:?}",
            names(&declared),
            names(&sample)
        ));
    }
    Ok([given("plugin.toml", &declared)?, given("sample.toml", &sample)?])
}

fn table(path: &Path) -> Result<Table, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Name and default of each `[[setting]]` that has one.
pub(super) fn declared(manifest: &Table) -> Table {
    let settings = manifest.get("setting").and_then(Value::as_array).into_iter().flatten();
    settings
        .filter_map(|setting| {
            Some((
                setting.get("name")?.as_str()?.to_owned(),
                setting.get("default")?.clone(),
            ))
        })
        .collect()
}

/// `[plugin.settings]` of the first `[[plugin]]`.
fn sample(sample: &Table) -> Option<Table> {
    sample
        .get("plugin")?
        .as_array()?
        .first()?
        .get("settings")?
        .as_table()
        .cloned()
}

/// By way of JSON, as the host gives them.
fn given<S: DeserializeOwned>(file: &str, settings: &Table) -> Result<S, String> {
    let json = serde_json::to_string(settings).map_err(|error| format!("{file}: {error}"))?;
    serde_json::from_str(&json).map_err(|error| format!("{file}: the plugin does not take its settings: {error}"))
}
