//! Every public item of the SDK shows in its documentation how it is used; doc tests compile and run what it shows.
//!
//! In: the SDK's sources, as rustfmt leaves them: an item begins a line, its documentation stands right above. Out: each
//! public function, type, trait, method of a trait, macro and module without a block of code. Fields, variants and
//! constants are shown by what they belong to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const SDK: &str = "sdk/collector/src";
/// How public items begin; a trait's methods have no `pub` of their own.
const ITEMS: [&str; 9] = [
    "pub fn ",
    "pub const fn ",
    "pub struct ",
    "pub enum ",
    "pub trait ",
    "pub type ",
    "pub mod ",
    "macro_rules! ",
    "pub use tillwatch_sdk_macros::",
];

/// Every public item without an example.
pub(super) fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut folders = vec![root.join(SDK)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                faults.extend(of_file(root, &path)?);
            }
        }
    }
    Ok(faults)
}

fn of_file(root: &Path, path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    // What no author sees.
    if path.ends_with("guest.rs") {
        return Ok(Vec::new());
    }
    let shown = path.strip_prefix(root).unwrap_or(path).display();
    let missing = without_example(&text, |module| module_text(path, module));
    let fault = |(line, item)| {
        format!("{shown}:{line}: {item} has no example\nhint: show its use in a block of code, which a doc test runs")
    };
    Ok(missing.into_iter().map(fault).collect())
}

/// The text of `pub mod NAME;`, whose documentation stands in its own file.
fn module_text(path: &Path, module: &str) -> String {
    let folder = path.parent().unwrap_or(path);
    let files: [PathBuf; 2] = [folder.join(format!("{module}.rs")), folder.join(module).join("mod.rs")];
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.collect()
}

/// Lines, from 1, and names of the items.
fn without_example(text: &str, module_text: impl Fn(&str) -> String) -> Vec<(usize, String)> {
    let mut missing = Vec::new();
    let (mut has_example, mut is_hidden, mut is_in_trait) = (false, false, false);
    for (at, line) in text.lines().enumerate() {
        let code = line.trim_start();
        // Tests end each file.
        if code.starts_with("#[cfg(test)]") {
            break;
        }
        if code.starts_with("///") {
            has_example |= code.contains("```");
            continue;
        }
        is_hidden |= code.starts_with("#[doc(hidden)]");
        let is_method = is_in_trait && line.starts_with("    fn ");
        let item = ITEMS.iter().find(|item| code.starts_with(**item));
        if item.is_some() || is_method {
            let begin = item.map_or("fn ".len(), |item| item.len());
            let name: String = code[begin..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let is_shown = has_example || (code.starts_with("pub mod ") && has_module_example(&module_text(&name)));
            if !is_shown && !is_hidden {
                missing.push((at + 1, name));
            }
        }
        is_in_trait = (is_in_trait && line != "}") || line.starts_with("pub trait ");
        // Attributes stand between an item and its documentation, also over several lines.
        let is_attribute = code.starts_with("#[")
            || code.starts_with(")]")
            || line.starts_with("    reason = ")
            || line.starts_with("    clippy::");
        if !is_attribute {
            (has_example, is_hidden) = (false, false);
        }
    }
    missing
}

fn has_module_example(text: &str) -> bool {
    text.lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains("```"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_without_an_example_is_found_by_its_line() {
        let text = "/// Shown.\n///\n/// ```\n/// a();\n/// ```\n#[must_use]\npub fn a() {}\n/// Not shown.\npub struct B {\n    \
                    /// Of it.\n    pub field: u8,\n}\nimpl B {\n    /// Not shown.\n    pub const fn c() {}\n    fn own() {}\n}\n\
                    /// ```\n/// trait\n/// ```\npub trait D {\n    /// Not shown.\n    fn d();\n}\nfn own() {}\npub mod e;\npub mod f;\n\
                    #[cfg(test)]\nmod tests {\n    pub fn g() {}\n}\n";
        let module = |name: &str| {
            if name == "e" {
                "//! ```\n//! e();\n//! ```\n".to_owned()
            } else {
                String::new()
            }
        };
        let found = without_example(text, module);
        let found: Vec<(usize, &str)> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
        assert_eq!(found, [(9, "B"), (15, "c"), (23, "d"), (27, "f")]);
    }
}
