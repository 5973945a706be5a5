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

/// An unknown key and each setting with a value of another type are refused as a config error.
pub(super) fn bad_settings(plugin: &Outside, case: &Case) -> Result<Vec<String>> {
    let good: Map<String, Value> = serde_json::from_str(&case.settings)?;
    let wrong = plugin
        .manifest
        .settings
        .iter()
        .map(|setting| (setting.name.as_str(), of_another_type(setting.kind)));
    let wrong = wrong.chain([(UNKNOWN, json!(1))]);
    let mut breaches = Vec::new();
    for (name, value) in wrong {
        let what = format!("{name} = {value}");
        let mut settings = good.clone();
        settings.insert(name.to_owned(), value);
        let mut instance = plugin.instantiate(patient_limits(), Box::new(case.host(plugin)?))?;
        let answer = instance.configure(&Value::Object(settings).to_string());
        breaches.extend(config_breach(answer).map(|breach| format!("{what} {breach}")));
    }
    Ok(breaches)
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
    let mut admission = Admission::new(&plugin.manifest.labels);
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
