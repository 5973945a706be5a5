//! What only a service model has in its tables: ids and references to them, time zones, scopes, selectors of series.
//!
//! In: tables of the document. Out: checked values; every fault stays with the document.

use super::Selector;
use crate::document::{Table, Wrong, did_you_mean, hint};
use crate::incident::Reach;
use jiff::tz::TimeZone;
use std::collections::HashMap;

/// Positions in the model's lists by id.
pub(super) type Ids = HashMap<String, usize>;

/// Selectors of one service.
const SELECTORS_MAX: usize = 100;

/// The entry's own id, new in `ids`, where it gets the next index.
pub(super) fn id(entry: &Table<'_>, kind: &str, ids: &mut Ids) -> Option<String> {
    let id = required(entry, "id")?;
    if id.is_empty() || id.len() > 64 {
        entry.fault("id", format!("the id of a {kind} has 1 to 64 bytes"), None);
        return None;
    }
    if ids.contains_key(&id) {
        let first = entry.document().line_of(&id);
        let hint = first.map(|line| format!("the first one is in line {line}"));
        entry.fault("id", format!("{kind} {id:?} is there twice"), hint);
        return None;
    }
    ids.insert(id.clone(), ids.len());
    Some(id)
}

/// The index of the thing that `key` names.
pub(super) fn reference(entry: &Table<'_>, key: &str, ids: &Ids) -> Option<usize> {
    let name = required(entry, key)?;
    let found = ids.get(&name).copied();
    if found.is_none() {
        let hint = did_you_mean(&name, ids.keys().map(String::as_str));
        entry.fault(key, format!("unknown {key} {name:?}"), hint);
    }
    found
}

/// The indices of the services that `key` names, ascending.
pub(super) fn references(entry: &Table<'_>, key: &str, ids: &Ids) -> Vec<usize> {
    let mut found = entry.known_texts(key, |name| {
        ids.get(name).copied().ok_or_else(|| Wrong {
            what: format!("unknown service {name:?} in {key}"),
            hint: did_you_mean(name, ids.keys().map(String::as_str)),
        })
    });
    found.sort_unstable();
    found.dedup();
    found
}

/// A name of the time zone database or a POSIX rule; UTC when there is none.
pub(super) fn time_zone(entry: &Table<'_>) -> TimeZone {
    let Some(name) = entry.text("time_zone") else {
        return TimeZone::UTC;
    };
    if name == "UTC" {
        return TimeZone::UTC;
    }
    if let Ok(zone) = TimeZone::get(&name).or_else(|_| TimeZone::posix(&name)) {
        return zone;
    }
    let hint = hint("use a name such as \"Europe/Berlin\"; the package tzdata must be installed");
    entry.fault("time_zone", format!("unknown time zone {name:?}"), hint);
    TimeZone::UTC
}

pub(super) fn currency(entry: &Table<'_>) -> Option<String> {
    let currency = entry.text("currency")?;
    if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some(currency);
    }
    let hint = hint("three capitals as in ISO 4217, such as \"EUR\"");
    entry.fault("currency", format!("currency {currency:?} is none"), hint);
    None
}

pub(super) fn scope(entry: &Table<'_>) -> Reach {
    match entry.text("scope").as_deref() {
        None | Some("site") => Reach::Site,
        Some("region") => Reach::Region,
        Some("chain") => Reach::Chain,
        Some(other) => {
            let near = did_you_mean(other, ["site", "region", "chain"].into_iter());
            let hint = near.or_else(|| hint("one of \"site\", \"region\" and \"chain\""));
            entry.fault("scope", format!("scope {other:?} is none"), hint);
            Reach::Site
        }
    }
}

pub(super) fn selectors(entry: &Table<'_>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for entry in entry.tables("metrics", SELECTORS_MAX) {
        entry.only(&["name", "labels"]);
        let labels = entry.pairs("labels");
        if let Some(metric) = required(&entry, "name") {
            selectors.push(Selector { metric, labels });
        }
    }
    selectors
}

fn required(entry: &Table<'_>, key: &str) -> Option<String> {
    entry.parsed(key, "\"...\"", |text| Ok(text.to_owned()))
}
