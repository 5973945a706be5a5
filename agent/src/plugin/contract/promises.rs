//! What a plugin says of itself, and what it says of wrong settings.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tillwatch_border::{CallError, ErrorKind};

use super::Case;
use crate::plugin::collector::{check_configured, check_description};
use crate::plugin::golden::admission::Admission;
use crate::plugin::golden::host::CaseHost;
use crate::plugin::manifest::SettingKind;
use crate::plugin::outside::{Instance, Outside, patient_limits};

/// No plugin has a setting of this name.
const UNKNOWN: &str = "tillwatch_no_such_setting";
const CALLS_MAX: usize = 1000;
/// Of a text that is far too long.
const LONG_BYTES: usize = 10_000;
/// Of a setting in a message.
const WHAT_CHARS_MAX: usize = 80;

/// `describe` is plugin.toml's, and the same at each call.
pub(super) fn description(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let mut instance = plugin.instantiate(patient_limits(), Box::new(case.host(plugin)?))?;
    let before = described_twice(&mut instance, &mut breaches)?;
    if let Err(error) = check_description(&before, &plugin.manifest) {
        breaches.push(format!("{error:#}"));
    }
    instance.configure(&case.settings)?;
    let after = described_twice(&mut instance, &mut breaches)?;
    if let Err(error) = check_configured(&before, &after) {
        breaches.push(format!("{error:#}"));
    }
    Ok(breaches)
}

fn described_twice(
    instance: &mut Instance,
    breaches: &mut Vec<String>,
) -> Result<tillwatch_core::sample::Descriptor, CallError> {
    let described = instance.describe()?;
    if instance.describe()? != described {
        breaches.push("describe says something else the second time".to_owned());
    }
    Ok(described)
}

/// An unknown key, each setting with a value of another type, a required one that is missing, and what is no object are
/// refused as a config error. A number beyond any sense is refused or taken, and ends no plugin.
pub(super) fn bad_settings(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let good: Map<String, Value> = serde_json::from_str(&case.settings)?;
    let mut breaches = Vec::new();
    for (what, settings) in wrong_settings(plugin, &good) {
        let (answer, _instance) = configure(plugin, case, &settings)?;
        breaches.extend(config_breach(answer).map(|breach| format!("{what} {breach}")));
    }
    let extreme = if case.is_first {
        extreme_settings(plugin, &good)
    } else {
        Vec::new()
    };
    for (what, settings) in extreme {
        let (answer, mut instance) = configure(plugin, case, &settings)?;
        let breach = match answer {
            // What it takes it must live with.
            Ok(()) => instance
                .collect()
                .err()
                .filter(|error| !matches!(error, CallError::Plugin(_))),
            Err(CallError::Plugin(error)) if error.kind == ErrorKind::Config => None,
            Err(error) => Some(error),
        };
        breaches.extend(breach.map(|error| format!("{what} is no config error: {error}")));
    }
    Ok(breaches)
}

fn configure(plugin: &Outside, case: &Case, settings: &Value) -> Result<(Result<(), CallError>, Instance)> {
    let mut instance = plugin.instantiate(patient_limits(), Box::new(case.host(plugin)?))?;
    Ok((instance.configure(&settings.to_string()), instance))
}

fn wrong_settings(plugin: &Outside, good: &Map<String, Value>) -> Vec<(String, Value)> {
    let settings = &plugin.manifest.settings;
    let changed = settings
        .iter()
        .map(|setting| with(good, &setting.name, of_another_type(setting.kind)));
    let missing = settings.iter().filter(|setting| setting.required).map(|setting| {
        let mut without = good.clone();
        without.remove(&setting.name);
        (
            format!("settings without {}, which is required,", setting.name),
            Value::Object(without),
        )
    });
    let no_object = [json!(null), json!([]), json!("settings"), json!(17)].map(|value| {
        let what = format!("{value} in place of the settings' object");
        (what, value)
    });
    let unknown = with(good, UNKNOWN, json!(1));
    changed.chain(missing).chain(no_object).chain([unknown]).collect()
}

fn extreme_settings(plugin: &Outside, good: &Map<String, Value>) -> Vec<(String, Value)> {
    let settings = plugin.manifest.settings.iter();
    let extreme = settings.flat_map(|setting| {
        match setting.kind {
            SettingKind::Integer => vec![json!(i64::MIN), json!(-1), json!(0), json!(i64::MAX)],
            SettingKind::Number => vec![json!(f64::MIN), json!(-1.0), json!(0.0), json!(f64::MAX)],
            SettingKind::String => vec![json!(""), json!("x".repeat(LONG_BYTES))],
            _ => Vec::new(),
        }
        .into_iter()
        .map(|value| with(good, &setting.name, value))
    });
    extreme.collect()
}

fn with(good: &Map<String, Value>, name: &str, value: Value) -> (String, Value) {
    let what = shortened(&format!("{name} = {value}"));
    let mut settings = good.clone();
    settings.insert(name.to_owned(), value);
    (what, Value::Object(settings))
}

fn shortened(text: &str) -> String {
    text.char_indices()
        .nth(WHAT_CHARS_MAX)
        .map_or_else(|| text.to_owned(), |(end, _)| format!("{}...", &text[..end]))
}

fn config_breach(answer: Result<(), CallError>) -> Option<String> {
    match answer {
        Err(CallError::Plugin(error)) if error.kind == ErrorKind::Config => None,
        Err(CallError::Plugin(error)) => Some(format!("is refused as {:?}, not as a config error", error.kind)),
        Err(error) => Some(format!("ends the plugin: {error}")),
        Ok(()) => Some("is taken without a word".to_owned()),
    }
}

fn of_another_type(kind: SettingKind) -> Value {
    match kind {
        SettingKind::String => json!(17),
        SettingKind::Integer | SettingKind::Number | SettingKind::Boolean => json!("seventeen"),
        SettingKind::List | SettingKind::Table => json!(true),
    }
}

/// An agent takes every metric, and every value that is neither too old nor too new.
pub(super) fn admission(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let host: CaseHost = case.host(plugin)?;
    let mut instance = plugin.instantiate(patient_limits(), Box::new(host.clone()))?;
    instance.configure(&case.settings)?;
    let descriptor = instance.describe()?;
    let mut admission = Admission::of(&plugin.manifest);
    if let Err(error) = admission.declare(&descriptor) {
        return Ok(vec![format!("{error:#}")]);
    }
    for _ in 0..CALLS_MAX {
        let batch = instance.collect()?;
        admission.offer(host.now(), &descriptor, &batch);
        if !batch.more {
            break;
        }
    }
    Ok(admission.refused().iter().map(|line| line.trim().to_owned()).collect())
}
