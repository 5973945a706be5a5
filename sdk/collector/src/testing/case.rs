//! Reads the folder of a golden case: settings, clock and the input of each source.
//!
//! ```text
//! testcases/<case>/
//!   settings.toml      settings other than plugin.toml's defaults; may be missing
//!   clock.toml         now = 2026-03-02T11:30:00Z, and under [age_s] how old each input file is
//!   <source>.<any>     a source of kind lines
//!   <source>/          a source of kind documents or folder
//!   peers.toml         what peers over the network answer, see answers.rs; may be missing
//!   expected.jsonl     what must come out
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::value::{Datetime, Offset};

use super::{FileHost, answers, shown};
use crate::parse::time::{Date, days_since_epoch};

/// A case, ready to run.
pub(super) struct Case {
    /// As JSON, as the host would give them.
    pub(super) settings: String,
    pub(super) host: FileHost,
}

/// Files that are not input.
const OTHER_FILES: [&str; 5] = [
    "settings.toml",
    "clock.toml",
    "peers.toml",
    "expected.jsonl",
    "README.md",
];

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
    let declared = declared(folder)?;
    let mut host = FileHost::new(now_ms);
    let peers = folder.join("peers.toml");
    if peers.exists() {
        let text = fs::read_to_string(&peers).map_err(|error| format!("{}: {error}", peers.display()))?;
        host.set_answers(answers::parse(&text).map_err(|error| format!("{}: {error}", peers.display()))?);
    }
    for path in sorted(folder)? {
        let name = file_name(&path);
        // Such as an editor's.
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            check_declared(declared.as_ref(), &path, &name, true)?;
            read_folder(&mut host, &path, &name, now_ms, &clock.age_s)?;
        } else if !OTHER_FILES.contains(&name.as_str()) {
            let source = name.split('.').next().unwrap_or_default();
            check_declared(declared.as_ref(), &path, source, false)?;
            host.append_lines(source, &read_bytes(&path)?);
        }
    }
    if let Some(declared) = declared {
        host.declare(declared);
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

/// Over the defaults of plugin.toml, as in a store.
fn read_settings(folder: &Path) -> Result<String, String> {
    let mut settings = match manifest(folder)? {
        Some(manifest) => shown::declared(&read_toml(&manifest)?),
        None => toml::Table::new(),
    };
    let path = folder.join("settings.toml");
    if path.exists() {
        settings.extend(read_toml::<toml::Table>(&path)?);
    }
    serde_json::to_string(&settings).map_err(|error| format!("{}: {error}", path.display()))
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
    let days = days_since_epoch(&Date {
        year: i64::from(date.year),
        month: i64::from(date.month),
        day: i64::from(date.day),
    })?;
    let seconds = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let ms = i64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
    u64::try_from((days * 86_400 + seconds) * 1000 + ms).ok()
}

/// The plugin.toml beside the cases' folder, if there is one.
fn manifest(case: &Path) -> Result<Option<PathBuf>, String> {
    let case = std::path::absolute(case).map_err(|error| format!("{}: {error}", case.display()))?;
    let path = case.ancestors().nth(2).unwrap_or(&case).join("plugin.toml");
    Ok(path.exists().then_some(path))
}

/// What the plugin.toml beside the cases' folder declares: sources and their kinds. None without that file.
fn declared(case: &Path) -> Result<Option<BTreeMap<String, String>>, String> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(default)]
        source: Vec<Source>,
    }
    #[derive(Deserialize)]
    struct Source {
        name: String,
        kind: String,
    }
    let Some(path) = manifest(case)? else { return Ok(None) };
    let manifest: Manifest = read_toml(&path)?;
    let sources = manifest.source.into_iter();
    Ok(Some(sources.map(|source| (source.name, source.kind)).collect()))
}

/// Input that no store would give is a mistake of the case.
fn check_declared(
    declared: Option<&BTreeMap<String, String>>,
    path: &Path,
    source: &str,
    is_folder: bool,
) -> Result<(), String> {
    let Some(declared) = declared else { return Ok(()) };
    let path = path.display();
    match declared.get(source) {
        None => {
            let names: Vec<&str> = declared.keys().map(String::as_str).collect();
            Err(format!(
                "{path}: plugin.toml declares no source `{source}`, but {}",
                names.join(", ")
            ))
        }
        Some(kind) if ["http", "tcp", "sql"].contains(&kind.as_str()) => Err(format!(
            "{path}: plugin.toml declares `{source}` as of kind {kind}: write its answers into peers.toml"
        )),
        Some(kind) if is_folder == (kind == "lines") => {
            Err(format!("{path}: plugin.toml declares `{source}` as of kind {kind}"))
        }
        Some(_kind) => Ok(()),
    }
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

    /// A default stood in plugin.toml and in the code, and cases tried the code's, which no store ever takes.
    #[test]
    fn a_case_has_the_defaults_of_plugin_toml_below_its_own_settings() {
        let folder = std::env::temp_dir().join(format!("tillwatch-sdk-defaults-{}", std::process::id()));
        let case = folder.join("testcases/one");
        fs::create_dir_all(&case).unwrap();
        let setting = |name: &str, default: &str| format!("[[setting]]\nname = {name:?}\n{default}\n");
        let settings = setting("kept", "default = 1") + &setting("given", "default = 2") + &setting("none", "");
        fs::write(folder.join("plugin.toml"), settings).unwrap();
        assert_eq!(read_settings(&case).unwrap(), r#"{"given":2,"kept":1}"#);
        fs::write(case.join("settings.toml"), "given = 3").unwrap();
        assert_eq!(read_settings(&case).unwrap(), r#"{"given":3,"kept":1}"#);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn input_that_plugin_toml_does_not_declare_is_a_mistake_of_the_case() {
        let declared = BTreeMap::from([
            ("log".to_owned(), "lines".to_owned()),
            ("drop".to_owned(), "folder".to_owned()),
        ]);
        let check = |source: &str, is_folder| check_declared(Some(&declared), Path::new("case/x"), source, is_folder);
        assert_eq!((check("log", false), check("drop", true)), (Ok(()), Ok(())));
        assert_eq!(
            check("logs", false),
            Err("case/x: plugin.toml declares no source `logs`, but drop, log".to_owned())
        );
        assert!(check("log", true).unwrap_err().contains("as of kind lines"));
        assert!(check("drop", false).unwrap_err().contains("as of kind folder"));
    }
}
