//! What our files may hold.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::output;
use crate::docs::plugin_folders;
use crate::tools;

/// Crates whose names may stand in one place of the sources only.
const SOURCE_DOORS: [(&str, &[&str]); 5] = [
    (
        "rumqttc::",
        &[
            "agent/src/uplink",
            "central/src/intake",
            "central/src/broker",
            "central/tests/",
            "tests/",
        ],
    ),
    ("rusqlite::", &["central/src/archive/", "agent/src/source/peer/sql/"]),
    ("tokio_postgres::", &["agent/src/source/peer/sql/"]),
    ("ureq::", &["agent/src/source/peer/http.rs"]),
    ("wasmtime::", &["agent/sandbox/", "agent/compiler/"]),
];

/// Each piece with what is wrong with it. Split, so that this file does not hold them itself.
const FORBIDDEN: [(&str, &str, &str); 6] = [
    ("#[ign", "ore", "a test that does not run proves nothing"),
    ("#[should_", "panic", "assert on the error instead"),
    ("tod", "o!(", "finish it or leave it out"),
    ("unimple", "mented!(", "finish it or leave it out"),
    ("/ho", "me/", "a path of one developer's machine"),
    ("/ro", "ot/", "a path of one developer's machine"),
];

/// Files in these folders are promises: they are added, never changed.
const GOLDEN_LIST: &str = "packaging/xtask/golden.txt";
const GOLDEN: [&str; 3] = ["sdk/feed/dictionaries/", "sdk/feed/testdata/", "sdk/releases/"];
/// It grows with them.
const GOLDEN_README: &str = "sdk/releases/README.md";

/// Every fault of the tracked files.
pub(super) fn faults(root: &Path) -> Result<Vec<String>> {
    let files = tracked(root)?;
    let mut faults = incomplete_plugins(root)?;
    faults.extend(changed_golden_files(root, &files)?);
    for file in &files {
        if let Ok(text) = std::fs::read_to_string(root.join(file)) {
            faults.extend(text_faults(file, &text));
        }
    }
    Ok(faults)
}

/// All Rust sources of a crate as one text, for a search by name.
pub(super) fn rust_text(folder: &Path) -> String {
    let mut text = String::new();
    collect_rust(folder, &mut text);
    text
}

fn collect_rust(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let nested_crate = path.is_dir() && path.join("Cargo.toml").exists();
        if path.is_dir() && !nested_crate {
            collect_rust(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

fn text_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        for (head, tail, why) in FORBIDDEN {
            if content.contains(&format!("{head}{tail}")) {
                faults.push(format!("{file}:{line}: {head}{tail}: {why}"));
            }
        }
        if file.ends_with(".rs") && silent_matches(content) {
            faults.push(format!(
                "{file}:{line}: a statement of matches! alone passes silently\nhint: assert!(matches!(..))"
            ));
        }
    }
    if file.ends_with(".rs") {
        faults.extend(source_faults(file, text));
    }
    faults
}

fn silent_matches(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("matches!(") && line.ends_with(");")
}

fn source_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults: Vec<String> = SOURCE_DOORS
        .iter()
        .filter(|(name, doors)| text.contains(name) && !doors.iter().any(|door| file.starts_with(door)))
        .filter(|_| !file.starts_with("packaging/xtask/"))
        .map(|(name, doors)| format!("{file} uses {name} whose door is {}", doors.join(" or ")))
        .collect();
    let generated = text.starts_with("// @generated");
    if file.contains("/src/") && !text.starts_with("//!") && !generated {
        faults.push(format!(
            "{file} does not begin with its module doc\nhint: //! what comes in, what goes out, what it never does"
        ));
    }
    faults
}

fn incomplete_plugins(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for folder in plugin_folders(root)? {
        for wanted in ["plugin.toml", "README.md", "sample.toml", "src/lib.rs", "testcases"] {
            if !folder.join(wanted).exists() {
                faults.push(format!("{} has no {wanted}", folder.display()));
            }
        }
    }
    Ok(faults)
}

fn changed_golden_files(root: &Path, files: &[String]) -> Result<Vec<String>> {
    let list = root.join(GOLDEN_LIST);
    let listed = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let mut faults = Vec::new();
    for (hash, file) in listed.lines().filter_map(|line| line.split_once("  ")) {
        if !root.join(file).exists() {
            faults.push(format!("{file} is golden and gone"));
        } else if blob_hash(root, file)? != hash {
            faults.push(format!(
                "{file} is golden and was changed\nhint: add a new file for the new version"
            ));
        }
    }
    for file in files
        .iter()
        .filter(|file| *file != GOLDEN_README && GOLDEN.iter().any(|folder| file.starts_with(folder)))
    {
        if !listed
            .lines()
            .any(|line| line.split_once("  ").is_some_and(|(_, name)| name == file))
        {
            faults.push(format!(
                "{file} is golden and not on the list\nhint: add '{}  {file}' to {GOLDEN_LIST}",
                blob_hash(root, file)?
            ));
        }
    }
    Ok(faults)
}

fn blob_hash(root: &Path, file: &str) -> Result<String> {
    let mut git = Command::new(tools::program("git", "git")?);
    git.current_dir(root).args(["hash-object", "--no-filters", file]);
    Ok(output(&mut git)?.trim().to_owned())
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new(tools::program("git", "git")?);
    git.current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = output(&mut git)?;
    Ok(listed
        .lines()
        .filter(|file| root.join(PathBuf::from(file)).is_file())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_matches_is_noticed() {
        assert!(silent_matches("    matches!(value, Some(_));"));
        assert!(!silent_matches("    assert!(matches!(value, Some(_)));"));
    }

    #[test]
    fn a_heavy_crate_behind_another_door_is_noticed() {
        let text = "//! Doc.\nuse rusqlite::Connection;\n";
        assert_eq!(text_faults("central/src/archive/sqlite.rs", text), Vec::<String>::new());
        assert_eq!(text_faults("central/src/api.rs", text).len(), 1);
    }

    #[test]
    fn a_source_without_module_doc_is_noticed() {
        assert_eq!(text_faults("agent/src/run.rs", "fn main() {}\n").len(), 1);
    }
}
