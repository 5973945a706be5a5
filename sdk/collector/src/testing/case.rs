//! Reads the folder of a golden case: settings, clock and the input of each source.
//!
//! ```text
//! testcases/<case>/
//!   settings.toml      the plugin's settings; may be missing
//!   clock.toml         now = 2026-03-02T11:30:00Z, and under [age_s] how old each input file is
//!   <source>.<any>     a source of kind lines
//!   <source>/          a source of kind documents or folder
//!   expected.jsonl     what must come out
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::value::{Datetime, Offset};

use super::FileHost;

/// A case, ready to run.
pub(super) struct Case {
    /// As JSON, as the host would give them.
    pub(super) settings: String,
    pub(super) host: FileHost,
}

/// Files that are not input.
const OTHER_FILES: [&str; 4] = ["settings.toml", "clock.toml", "expected.jsonl", "README.md"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    now: Datetime,
    /// Seconds before `now`, by path within the case.
    #[serde(default)]
    age_s: BTreeMap<String, u64>,
}

/// Reads a case; the error is for people.
pub(super) fn read(folder: &Path) -> Result<Case, String> {
    let clock = read_clock(folder)?;
    let now_ms = unix_ms(&clock.now).ok_or("clock.toml: now must be a date and time in UTC, ending in Z")?;
    let mut host = FileHost::new(now_ms);
    for path in sorted(folder)? {
        let name = file_name(&path);
        if path.is_dir() {
            read_folder(&mut host, &path, &name, now_ms, &clock.age_s)?;
        } else if !OTHER_FILES.contains(&name.as_str()) {
            let source = name.split('.').next().unwrap_or_default();
            host.append_lines(source, &read_bytes(&path)?);
        }
    }
    Ok(Case {
        settings: read_settings(folder)?,
        host,
    })
}

fn read_folder(
    host: &mut FileHost,
    folder: &Path,
    source: &str,
    now_ms: u64,
    age_s: &BTreeMap<String, u64>,
) -> Result<(), String> {
    host.add_folder(source);
    for path in sorted(folder)? {
        let name = file_name(&path);
        // Git keeps no empty folders; this file makes one.
        if name == ".gitkeep" {
            continue;
        }
        let age_ms = age_s
            .get(&format!("{source}/{name}"))
            .copied()
            .unwrap_or(0)
            .saturating_mul(1000);
        host.add_file(source, &name, now_ms.saturating_sub(age_ms), &read_bytes(&path)?);
    }
    Ok(())
}

fn read_settings(folder: &Path) -> Result<String, String> {
    let path = folder.join("settings.toml");
    if !path.exists() {
        return Ok("{}".to_owned());
    }
    let table: toml::Table = read_toml(&path)?;
    serde_json::to_string(&table).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_clock(folder: &Path) -> Result<Clock, String> {
    let path = folder.join("clock.toml");
    if path.exists() {
        return read_toml(&path);
    }
    toml::from_str("now = 2026-03-02T12:00:00Z").map_err(|error| error.to_string())
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The entries of a folder by name.
pub(super) fn sorted(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The last part of a path.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// UTC milliseconds of a date and time in UTC.
fn unix_ms(datetime: &Datetime) -> Option<u64> {
    let (date, time) = (datetime.date?, datetime.time?);
    if !matches!(datetime.offset, Some(Offset::Z)) {
        return None;
    }
    let days = days_from_civil(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let seconds = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let ms = i64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
    u64::try_from((days * 86_400 + seconds) * 1000 + ms).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_as_utc() {
        let ms = |text: &str| unix_ms(&text.parse().unwrap());
        assert_eq!(ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(ms("2026-03-02T11:30:00.250Z"), Some(1_772_451_000_250));
        assert_eq!(ms("2024-02-29T23:59:59Z"), Some(1_709_251_199_000));
        assert_eq!(ms("2026-03-02T11:30:00+01:00"), None);
    }
}
