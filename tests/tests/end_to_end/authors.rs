//! What a plugin's author is told: plugins that break one promise of the contract each, and their commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{plugin_dir, program};

/// A folder with the hostile plugin and one case for a behavior of it.
fn hostile(place: &Path, behavior: &str) -> Result<PathBuf> {
    let folder = place.join(behavior);
    let case = folder.join("testcases/lines");
    std::fs::create_dir_all(&case)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/sandbox/tests/hostile/plugin.toml");
    std::fs::copy(source, folder.join("plugin.toml"))?;
    std::fs::write(case.join("settings.toml"), format!("behavior = {behavior:?}\n"))?;
    std::fs::write(case.join("input.log"), "one\ntwo\nthree\n")?;
    std::fs::write(case.join("expected.jsonl"), "")?;
    Ok(folder)
}

fn tillwatch(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("tillwatch")?);
    command.current_dir(folder).args(["--log", "warn"]).args(arguments);
    command.output().context("starting tillwatch")
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn guest() -> Result<String> {
    let plugins = plugin_dir()?;
    let target = plugins.parent().context("target/plugins has a parent")?;
    Ok(target.join("guests/hostile.wasm").display().to_string())
}

#[test]
fn each_broken_promise_is_found_by_its_check_and_by_no_other() -> Result<()> {
    let place = tempfile::tempdir()?;
    for (behavior, checks) in [
        ("count", &[][..]),
        ("lenient", &["bad settings"]),
        ("drift", &["description"]),
        ("label", &["registry and guard", "no data"]),
        ("invent", &["no data"]),
        ("read-once", &["slow source", "huge input"]),
        ("greedy", &["huge input"]),
        ("proud", &["clock jumps"]),
        ("twice", &["restart with old state"]),
        ("trustful", &["restart with old state"]),
    ] {
        let folder = hostile(place.path(), behavior)?;
        let told = text(&tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?);
        let failed: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("FAILED  contract: "))
            .collect();
        ensure!(failed == checks, "{behavior}: {told}");
        ensure!(told.matches("to do: ").count() == checks.len(), "{behavior}: {told}");
    }
    Ok(())
}

#[test]
fn a_broken_promise_fails_the_command_although_all_cases_pass() -> Result<()> {
    let place = tempfile::tempdir()?;
    for (behavior, is_good) in [("count", true), ("lenient", false)] {
        let folder = hostile(place.path(), behavior)?;
        let expected = "{\"metric\":\"hostile.lines\",\"labels\":{},\"value\":3,\"time_ms\":1772452800000}\n";
        std::fs::write(folder.join("testcases/lines/expected.jsonl"), expected)?;
        let output = tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?;
        let told = text(&output);
        ensure!(told.contains("1 of 1 cases came out as expected"), "{told}");
        ensure!(output.status.success() == is_good, "{behavior}: {told}");
    }
    Ok(())
}
