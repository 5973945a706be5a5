//! Every warning and error of the programs is explained in docs/OPERATIONS.md, and nothing else is.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use super::files::rust_text;

const EXPLAINED: &str = "docs/OPERATIONS.md";
const PROGRAMS: [&str; 2] = ["agent/src", "central/src"];

pub(super) fn faults(root: &Path) -> Result<Vec<String>> {
    let path = root.join(EXPLAINED);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let said: BTreeSet<String> = PROGRAMS
        .iter()
        .flat_map(|folder| messages(&rust_text(&root.join(folder))))
        .collect();
    Ok(compare(&said, &explained(&text)))
}

fn compare(said: &BTreeSet<String>, explained: &BTreeSet<String>) -> Vec<String> {
    let missing = said
        .difference(explained)
        .map(|message| format!("{EXPLAINED} does not explain '{message}'"));
    let over = explained
        .difference(said)
        .map(|message| format!("{EXPLAINED} explains '{message}' that no program says"));
    missing.chain(over).collect()
}

/// The message is the last text of the macro's arguments.
fn messages(source: &str) -> BTreeSet<String> {
    ["warn!(", "error!("]
        .iter()
        .flat_map(|start| source.split(start).skip(1))
        .filter_map(|call| texts_until_close(call).pop())
        .map(|message| message.replace('`', ""))
        .collect()
}

fn texts_until_close(call: &str) -> Vec<String> {
    let (mut texts, mut open) = (Vec::new(), 1);
    let mut rest = call.chars();
    while let Some(next) = rest.next() {
        match next {
            '(' => open += 1,
            ')' => open -= 1,
            '"' => texts.push(rest.by_ref().take_while(|c| *c != '"').collect()),
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    texts
}

/// The first cells of the tables.
fn explained(text: &str) -> BTreeSet<String> {
    let cells = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_an_explanation_and_the_reverse_are_noticed() {
        let said = messages("warn!(%site, error = format!(\"{e:#}\"), \"it (really) fails\"); error!(\"worse\");");
        let explained = explained("| message | do |\n| `worse` (error) | mend |\n| `never said` | nothing |\n");
        let faults = compare(&said, &explained);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("it (really) fails") && faults[1].contains("never said"));
    }
}
