//! Holds the page on plugin.toml, `sdk/collector/plugin-toml.md`, against a reader of such files.
//!
//! In: what a reader makes of a text, none when it refuses it. Out: nothing, or a panic with what the page says otherwise.
//! The agent's tests include this file for their own reader.

use toml::{Table, Value};

const PAGE: &str = include_str!("../../collector/plugin-toml.md");

/// A key of the page's tables.
pub(crate) struct Row {
    /// `plugin`, `source`, `setting`, `metric` or `label`.
    pub(crate) section: String,
    pub(crate) key: String,
    /// What the third column says.
    need: String,
}

/// All keys, in the order of the page.
pub(crate) fn rows() -> Vec<Row> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## `") {
            section = heading.chars().filter(char::is_ascii_lowercase).collect();
        } else if line.starts_with("| `") {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            rows.push(Row {
                section: section.clone(),
                key: cells[1].trim_matches('`').to_owned(),
                need: cells[3].to_owned(),
            });
        }
    }
    assert!(rows.len() > 20, "the tables are not found");
    rows
}

/// The file at the end of the page, which has every key.
pub(crate) fn example() -> Table {
    let (_before, text) = PAGE.split_once("```toml\n").expect("an example");
    let (text, _after) = text.split_once("```").expect("its end");
    text.parse().expect("it is TOML")
}

/// Takes each key out of the example, and expects what the page says of it.
pub(crate) fn check(is_build: bool, read: impl Fn(&Table) -> Option<String>) {
    assert!(read(&example()).is_some(), "the example");
    for row in rows() {
        let mut without = example();
        holder(&mut without, &row).remove(&row.key);
        let (read_without, place) = (read(&without), format!("{} {}: {}", row.section, row.key, row.need));
        match row.need.as_str() {
            "required" | "with `pattern`" | "or `pattern`" | "or `values`" => assert_eq!(read_without, None, "{place}"),
            "to build" => assert_eq!(read_without.is_none(), is_build, "{place}"),
            "none" => assert!(read_without.is_some(), "{place}"),
            default => {
                let mut with = example();
                let default: Table = format!("it = {}", default.trim_matches('`')).parse().expect(default);
                holder(&mut with, &row).insert(row.key.clone(), default["it"].clone());
                assert!(read_without.is_some(), "{place}");
                assert_eq!(read_without, read(&with), "{place}");
            }
        }
    }
}

/// The first table of the example that has the key.
fn holder<'a>(file: &'a mut Table, row: &Row) -> &'a mut Table {
    let is_label = row.section == "label";
    let tables: Vec<&mut Table> = match &mut file[&row.section] {
        Value::Array(tables) => tables.iter_mut().filter_map(Value::as_table_mut).collect(),
        Value::Table(tables) => match is_label {
            true => tables
                .iter_mut()
                .filter_map(|(_, label)| label.as_table_mut())
                .collect(),
            false => vec![tables],
        },
        _ => Vec::new(),
    };
    let mut with_key = tables.into_iter().filter(|table| table.contains_key(&row.key));
    with_key.next().expect("the example has every key")
}
