//! Everything that a plugin has against its settings, though it tells one thing at a time.
//!
//! In: its first refusal, and a way to ask again. Out: each refusal with the setting that it is about, if that can be told.
//! A refused setting goes back to its default before the plugin is asked again, so each is told once and the asking ends.

use serde_json::{Map, Value};
use tillwatch_border::{CallError, ErrorKind};

use super::collector::guarded;
use crate::config::PluginConfig;
use crate::config::written::Problem;

/// All that a plugin refuses, at least one.
#[derive(Debug, thiserror::Error)]
#[error("its settings are refused: {}", .0.iter().map(|refusal| refusal.what.as_str()).collect::<Vec<_>>().join("; "))]
pub struct Refusals(pub Vec<Refusal>);

/// One thing that a plugin has against its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// None when the plugin did not say which.
    pub setting: Option<String>,
    pub what: String,
}

impl Refusal {
    /// At the setting when agent.toml gives it, otherwise at the plugin.
    #[must_use]
    pub fn problem(&self, plugin: &PluginConfig) -> Problem {
        let name = self.setting.as_deref();
        let place = name.and_then(|name| plugin.setting_places.get(name));
        let help = plugin
            .manifest
            .settings
            .iter()
            .find(|setting| Some(setting.name.as_str()) == name);
        let hint = help.map(|setting| setting.help.clone()).filter(|help| !help.is_empty());
        let (who, what) = (&plugin.place.what, &self.what);
        let what = match place {
            Some(place) => format!("{who} refuses {}: {what}", place.what),
            None => format!("{who} cannot run: its settings are refused: {what}"),
        };
        Problem {
            what,
            hint: Some(hint.unwrap_or_else(|| "correct [plugin.settings]".to_owned())),
            ..place.unwrap_or(&plugin.place).clone()
        }
    }
}

/// Asks again without what was refused, until nothing new comes; an error that is no refusal is handed back.
pub(super) fn find_all(
    first: anyhow::Error,
    plugin: &PluginConfig,
    mut ask: impl FnMut(&str) -> Result<(), CallError>,
) -> anyhow::Error {
    let mut message = match first.downcast_ref().and_then(refused) {
        Some(message) => message.to_owned(),
        None => return first,
    };
    let Value::Object(mut settings) = plugin.settings.clone() else {
        return first;
    };
    let mut refusals: Vec<Refusal> = Vec::new();
    loop {
        let (setting, what) = setting_of(&message, &settings);
        if setting.is_some() && refusals.iter().any(|refusal| refusal.setting == setting) {
            break;
        }
        refusals.push(Refusal {
            setting: setting.clone(),
            what: what.to_owned(),
        });
        let Some(name) = setting else { break };
        match plugin.manifest.settings.iter().find(|setting| setting.name == name) {
            Some(declared) if declared.default.is_some() => {
                settings.insert(name, declared.default.clone().unwrap_or_default())
            }
            _ => settings.remove(&name),
        };
        let Err(error) = ask(&Value::Object(settings.clone()).to_string()).map_err(guarded) else {
            break;
        };
        let Some(next) = refused(&error) else { break };
        next.clone_into(&mut message);
    }
    Refusals(refusals).into()
}

fn refused(error: &CallError) -> Option<&str> {
    match error {
        CallError::Plugin(error) if error.kind == ErrorKind::Config => Some(&error.message),
        _ => None,
    }
}

/// The setting that a message is about, and the message without the place in JSON that nobody wrote.
fn setting_of<'a>(message: &'a str, settings: &Map<String, Value>) -> (Option<String>, &'a str) {
    if let Some((what, place)) = message.rsplit_once(" at line 1 column ")
        && let Ok(column) = place.parse()
    {
        return (setting_at(column, settings), what);
    }
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    let mut words = message.split(|letter: char| !is_letter(letter));
    let named = words.find(|word| settings.contains_key(*word));
    (named.map(str::to_owned), message)
}

/// Which setting ends at this column, from 1, of the JSON that the plugin got, or has it within.
fn setting_at(column: usize, settings: &Map<String, Value>) -> Option<String> {
    let mut end = "{".len();
    for (name, value) in settings {
        end += Value::from(name.as_str()).to_string().len() + ":".len() + value.to_string().len();
        if column <= end {
            return Some(name.clone());
        }
        end += ",".len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn about(message: &str) -> (Option<String>, &str) {
        let settings = json!({"currency": "EURO", "städte": {"a": 1}, "zone": "Mars"});
        setting_of(message, settings.as_object().unwrap())
    }

    #[test]
    fn a_place_in_the_plugins_json_is_that_of_a_setting_and_is_not_told() {
        let text = json!({"currency": "EURO", "städte": {"a": 1}, "zone": "Mars"}).to_string();
        for (end, name) in [("\"EURO\"", "currency"), ("{\"a\":1", "städte"), ("\"Mars\"", "zone")] {
            let column = text.find(end).unwrap() + end.len();
            let message = format!("is wrong at line 1 column {column}");
            assert_eq!(about(&message).0.as_deref(), Some(name), "{message}");
        }
        let whole = format!("missing field `unit` at line 1 column {}", text.len());
        assert_eq!(about(&whole), (None, "missing field `unit`"));
    }

    #[test]
    fn a_setting_that_the_plugin_names_is_found_by_its_whole_name() {
        assert_eq!(about("zone: \"Mars\" is no offset").0.as_deref(), Some("zone"));
        assert_eq!(about("time_zone is wrong"), (None, "time_zone is wrong"));
    }
}
