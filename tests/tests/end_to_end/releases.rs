//! Released contracts within their 24 months: their plugins run today, and today's contract holds each of their lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::program;

/// As docs/SPECIFICATION.md promises.
const SUPPORT_MONTHS: i32 = 24;

struct Release {
    folder: PathBuf,
    version: String,
    /// Months since the year 0.
    released: i32,
}

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk")
}

fn folders(of: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(of).with_context(|| of.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

fn releases() -> Result<Vec<Release>> {
    let read = |folder: PathBuf| {
        let about: toml::Table = std::fs::read_to_string(folder.join("release.toml"))?.parse()?;
        let text = |key: &str| about[key].as_str().context("a text");
        let (year, month) = text("released")?.split_once('-').context("year and month")?;
        let released = year.parse::<i32>()? * 12 + month.parse::<i32>()? - 1;
        let version = text("version")?.to_owned();
        Ok(Release {
            folder,
            version,
            released,
        })
    };
    folders(&sdk().join("releases"))?.into_iter().map(read).collect()
}

fn supported() -> Result<Vec<Release>> {
    let today = jiff::Zoned::now().date();
    let today = i32::from(today.year()) * 12 + i32::from(today.month()) - 1;
    let is_supported = |release: &Release| today <= release.released + SUPPORT_MONTHS;
    Ok(releases()?.into_iter().filter(is_supported).collect())
}

fn tillwatch(arguments: &[&str], folder: &Path) -> Result<String> {
    let mut command = Command::new(program("tillwatch")?);
    let output = command.args(arguments).arg(folder).output().context("tillwatch")?;
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    Ok(String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn the_plugins_of_every_supported_release_run_their_cases_today() -> Result<()> {
    let mut tried = 0;
    for release in supported()? {
        let last = release.released + SUPPORT_MONTHS;
        let until = format!("{}-{:02}", last / 12, last % 12 + 1);
        for plugin in folders(&release.folder.join("plugins"))? {
            // Checks of the contract that came later judge no plugin that came before.
            let told = tillwatch(&["plugin", "test"], &plugin)?;
            ensure!(told.contains("1 of 1 cases came out as expected"), "{told}");
            let told = tillwatch(&["plugin", "inspect"], &plugin)?;
            let expected = format!("contract  {}, supported until {until}", release.version);
            ensure!(told.contains(&expected), "no {expected:?}: {told}");
            tried += 1;
        }
    }
    ensure!(tried > 0, "no release is supported");
    Ok(())
}

/// What each interface and world holds, without comments; a type with all of its fields or cases is one item.
type Contract = BTreeMap<String, BTreeSet<String>>;

fn contract(wit: &str) -> Contract {
    let code = wit.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = code
        .filter(|line| !line.starts_with("package "))
        .collect::<Vec<_>>()
        .join("\n");
    let (mut contract, mut block, mut item, mut depth) = (Contract::new(), String::new(), String::new(), 0);
    for letter in code.chars() {
        match letter {
            '{' if depth == 0 => block = words(&std::mem::take(&mut item)),
            '}' if depth == 1 => item.clear(),
            _ => item.push(letter),
        }
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if depth == 1 && matches!(letter, ';' | '}') {
            let item = words(&std::mem::take(&mut item));
            contract.entry(block.clone()).or_default().insert(item);
        }
    }
    contract
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wit(folder: &Path) -> Result<String> {
    let texts = ["collector.wit", "prober.wit"].map(|file| std::fs::read_to_string(folder.join(file)));
    let [collector, prober] = texts;
    Ok(collector? + &prober?)
}

/// What was released and is no longer there, or may not be added.
fn breaches(released: &str, today: &str) -> Vec<String> {
    let (released, today) = (contract(released), contract(today));
    let empty = BTreeSet::new();
    let mut found = Vec::new();
    for (block, items) in &released {
        let now = today.get(block).unwrap_or(&empty);
        found.extend(items.difference(now).map(|item| format!("{block}: gone: {item}")));
        // A plugin of the released world has no more exports than it had.
        let added = now.difference(items).filter(|item| item.starts_with("export "));
        found.extend(added.map(|item| format!("{block}: added: {item}")));
    }
    found
}

#[test]
fn today_s_contract_holds_each_line_of_every_supported_release() -> Result<()> {
    let today = wit(&sdk().join("wit"))?;
    for release in supported()? {
        let released = wit(&release.folder.join("wit"))?;
        let found = breaches(&released, &today);
        ensure!(found.is_empty(), "{}: {found:#?}", release.version);
        // Comments may be mended; what is added comes with a version of its own.
        let is_same_version = today.contains(&format!("package tillwatch:collector@{};", release.version));
        let is_same = contract(&released) == contract(&today);
        ensure!(
            is_same || !is_same_version,
            "sdk/wit grew and is still {}: see sdk/releases/README.md",
            release.version
        );
    }
    Ok(())
}

#[test]
fn what_would_break_a_released_plugin_is_seen_and_what_would_not_is_allowed() -> Result<()> {
    let released = wit(&sdk().join("releases/0.1.0/wit"))?;
    for (from, to, is_allowed) in [
        ("distribution,", "distribution, histogram,", false),
        ("role: string,", "", false),
        ("now-ms: func() -> u64;", "now-ms: func() -> s64;", false),
        ("export collect:", "export stop: func();\n export collect:", false),
        ("import state;", "", false),
        ("interface clock {", "interface watch {", false),
        (
            "now-ms: func() -> u64;",
            "now-ms: func() -> u64;\n zone: func() -> string;",
            true,
        ),
        (
            "interface clock {",
            "interface printer { jam: func(); }\n interface clock {",
            true,
        ),
        ("import state;", "import state;\n import printer;", true),
        ("/// In the metric's unit; scaled", "/// Scaled", true),
    ] {
        let today = released.replacen(from, to, 1);
        ensure!(today != released, "{from:?} is not in the contract");
        let found = breaches(&released, &today);
        ensure!(found.is_empty() == is_allowed, "{from:?} to {to:?}: {found:?}");
    }
    Ok(())
}
