//! What a plugin's author is told: plugins that break one promise of the contract each, and their commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{Process, plugin_dir, program, wait_until};

/// A folder with the hostile plugin and one case for a behavior of it.
fn hostile(place: &Path, behavior: &str) -> Result<PathBuf> {
    let folder = place.join(behavior);
    let case = folder.join("testcases/lines");
    std::fs::create_dir_all(&case)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/sandbox/tests/hostile/plugin.toml");
    // As a good author would have it: what it does is bad enough.
    let manifest = std::fs::read_to_string(source)?.replace("pattern = \".*\"", "pattern = \"[a-z0-9]{1,40}\"");
    std::fs::write(folder.join("plugin.toml"), manifest)?;
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
        ("reliant", &["peers that are down"]),
        ("offended", &["peers that are down"]),
        ("versioned", &["restart with old state"]),
        ("lax", &["bad settings"]),
        ("narrow", &["bad settings"]),
        ("zero", &["no data"]),
        ("brittle", &["no data"]),
        ("open", &["labels"]),
        ("echo", &["echo"]),
        ("echo-last", &["echo"]),
        ("slow", &[]),
    ] {
        let folder = hostile(place.path(), behavior)?;
        declare_more(&folder, behavior)?;
        let told = text(&tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?);
        let failed: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("FAILED  contract: "))
            .collect();
        ensure!(failed == checks, "{behavior}: {told}");
        // On a loaded machine others may be slow, too.
        let warned = told
            .matches("warning contract: huge input: case lines: with 8 MiB of input a call took")
            .count();
        ensure!(warned > 0 || behavior != "slow", "{behavior}: {told}");
        ensure!(
            told.matches("to do: ").count() == checks.len() + warned,
            "{behavior}: {told}"
        );
    }
    Ok(())
}

/// What a behavior needs of plugin.toml.
fn declare_more(folder: &Path, behavior: &str) -> Result<()> {
    let setting = |name: &str, kind: &str, is_required: bool| {
        format!("[[setting]]\nname = {name:?}\ntype = {kind:?}\nrequired = {is_required}\nhelp = \"One more.\"\n")
    };
    let path = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&path)?;
    let text = match behavior {
        "lax" => text + &setting("till", "string", true),
        "narrow" => text + &setting("size", "integer", false),
        "open" => text.replace("[a-z0-9]{1,40}", ".*"),
        _ => text,
    };
    if behavior == "open" {
        std::fs::write(folder.join("testcases/lines/settings.toml"), "behavior = \"count\"\n")?;
    }
    Ok(std::fs::write(path, text)?)
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

/// An operator read that it asks nobody over the network, and its code could.
#[test]
fn a_component_that_can_ask_over_the_network_is_no_collector() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = hostile(place.path(), "count")?;
    let manifest = folder.join("plugin.toml");
    let prober = std::fs::read_to_string(&manifest)?;
    let (head, rest) = prober.split_once("[[source]]\nname = \"peer\"").context("its peer")?;
    let (_peer, rest) = rest.split_once("\n\n").context("what follows")?;
    std::fs::write(
        &manifest,
        format!("{head}{rest}").replace("\"prober\"", "\"collector\""),
    )?;
    let output = tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?;
    let told = text(&output);
    let expected = "plugin.toml says world = \"collector\", and the component imports tillwatch:collector/";
    ensure!(!output.status.success() && told.contains(expected), "{told}");
    Ok(())
}

/// The first case that trapped ended the command, and nobody saw the panic's text.
#[test]
fn a_trap_fails_its_case_with_what_the_plugin_said_and_the_next_case_is_run() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = hostile(place.path(), "panic")?;
    let case = folder.join("testcases/plain");
    std::fs::create_dir(&case)?;
    std::fs::write(case.join("settings.toml"), "behavior = \"count\"\n")?;
    std::fs::write(case.join("input.log"), "one\n")?;
    let output = tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?;
    let told = text(&output);
    ensure!(!output.status.success() && told.contains("FAILED  lines"), "{told}");
    ensure!(
        told.contains("it logged: ") && told.contains("the drawer is stuck"),
        "{told}"
    );
    ensure!(told.contains("FAILED  plain") && told.contains("--update"), "{told}");
    ensure!(told.contains("0 of 2 cases"), "{told}");
    let updated = tillwatch(&folder, &["plugin", "test", "--update", "--wasm", &guest()?])?;
    ensure!(text(&updated).contains("ok      plain"), "{}", text(&updated));
    ensure!(std::fs::read_to_string(case.join("expected.jsonl"))?.contains("\"value\""));
    Ok(())
}

/// The plugin reads `input`, its plugin.toml asks for `inputs`: a store gives it nothing, and all cases passed.
#[test]
fn a_source_that_plugin_toml_does_not_declare_fails_the_case() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = hostile(place.path(), "count")?;
    let manifest = folder.join("plugin.toml");
    let declared = std::fs::read_to_string(&manifest)?.replace("name = \"input\"", "name = \"inputs\"");
    std::fs::write(manifest, declared)?;
    let told = text(&tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?);
    let expected = "input.log: plugin.toml declares no source `input`; did you mean `inputs`?";
    ensure!(told.contains(expected), "{told}");
    let case = folder.join("testcases/lines");
    std::fs::rename(case.join("input.log"), case.join("inputs.log"))?;
    let told = text(&tillwatch(&folder, &["plugin", "test", "--wasm", &guest()?])?);
    let expected = "it reads source `input`, which plugin.toml does not declare; did you mean `inputs`?";
    ensure!(told.contains("FAILED  lines") && told.contains(expected), "{told}");
    Ok(())
}

/// plugin.toml went on and the component did not: such a bundle was packed, signed, and started in no store.
#[test]
fn a_component_of_an_earlier_build_is_not_packed() -> Result<()> {
    let place = tempfile::tempdir()?;
    let built = plugin_dir()?.join("queue-depth");
    std::fs::copy(built.join("queue-depth.wasm"), place.path().join("queue-depth.wasm"))?;
    let manifest = std::fs::read_to_string(built.join("plugin.toml"))?;
    for (version, is_good) in [("0.2.0", false), ("0.1.0", true)] {
        let manifest = manifest.replace("version = \"0.1.0\"", &format!("version = {version:?}"));
        std::fs::write(place.path().join("plugin.toml"), manifest)?;
        for command in ["pack", "inspect"] {
            let output = tillwatch(place.path(), &["plugin", command])?;
            let told = text(&output);
            ensure!(output.status.success() == is_good, "{command}: {told}");
            let is_told = told.contains("it is version 0.1.0, plugin.toml says 0.2.0\nhint: the .wasm was built");
            ensure!(is_told != is_good, "{command}: {told}");
        }
    }
    ensure!(!place.path().join("queue-depth-0.2.0.wasm").exists());
    Ok(())
}

/// A store's operator read the pattern of no label, and `.*` let the cashiers' names through.
#[test]
fn a_plugin_whose_label_takes_anything_is_not_packed() -> Result<()> {
    let place = tempfile::tempdir()?;
    let built = plugin_dir()?.join("queue-depth");
    std::fs::copy(built.join("queue-depth.wasm"), place.path().join("queue-depth.wasm"))?;
    let manifest = std::fs::read_to_string(built.join("plugin.toml"))?;
    let open = manifest.replace("[a-z0-9._/-]{1,64}", ".*");
    ensure!(open != manifest, "{manifest}");
    std::fs::write(place.path().join("plugin.toml"), open)?;
    let output = tillwatch(place.path(), &["plugin", "pack"])?;
    let told = text(&output);
    ensure!(
        !output.status.success() && told.contains("lets a person's name through"),
        "{told}"
    );
    let told = text(&tillwatch(place.path(), &["plugin", "inspect"])?);
    ensure!(told.contains(": pattern .*, at most "), "{told}");
    Ok(())
}

#[test]
fn inspect_tells_what_a_folder_a_component_and_a_bundle_are() -> Result<()> {
    let place = tempfile::tempdir()?;
    let sales = plugin_dir()?.join("sales").display().to_string();
    let said = tillwatch(place.path(), &["plugin", "inspect", &sales])?;
    let told = text(&said);
    ensure!(said.status.success(), "{told}");
    for expected in [
        "contract  0.1.0, supported until 2028-11",
        "import    tillwatch:collector/source@0.1.0",
        "export    collect",
        "source    transactions (files of a folder)",
        "setting   currency (a string)",
        "world     prober",
        "label     sales.tender: one of ",
        "metric    sales.tender.amount [EUR, sum] by sales.tender",
    ] {
        ensure!(told.contains(expected), "no {expected:?}: {told}");
    }

    let packed = [
        "plugin",
        "pack",
        &sales,
        "--out",
        ".",
        "--sequence",
        "7",
        "--expires",
        "2030-01-31",
    ];
    ensure!(tillwatch(place.path(), &packed)?.status.success());
    let said = tillwatch(place.path(), &["plugin", "inspect", "sales-0.1.0.wasm", "--json"])?;
    let told: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    ensure!(
        told["bundle"]["sequence"] == 7 && told["bundle"]["expires"] == "2030-01-31",
        "{told}"
    );
    ensure!(told["compiled_bytes"].as_u64() > told["wasm_bytes"].as_u64(), "{told}");
    ensure!(told["asks"]["sources"][0]["name"] == "transactions", "{told}");
    ensure!(
        told["asks"]["world"] == "prober" && told["asks"]["labels"][0]["values"].is_array(),
        "{told}"
    );
    let queue = plugin_dir()?.join("queue-depth").display().to_string();
    let told = text(&tillwatch(place.path(), &["plugin", "inspect", &queue])?);
    ensure!(told.contains(": pattern [a-z0-9._/-]{1,64}, at most "), "{told}");

    let said = tillwatch(place.path(), &["plugin", "inspect", &guest()?, "--json"])?;
    let told: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    ensure!(told["name"] == "hostile" && told["asks"].is_null(), "{told}");
    ensure!(told["metrics"][0]["labels"][0] == "case", "{told}");
    Ok(())
}

/// What linking said of it named no version.
#[test]
fn a_component_of_another_contract_is_refused_by_both_versions() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = hostile(place.path(), "count")?;
    let wasm = replaced(&std::fs::read(guest()?)?, b"@0.1.0", b"@0.2.0");
    std::fs::write(folder.join("hostile.wasm"), wasm)?;
    for command in ["inspect", "test"] {
        let said = tillwatch(&folder, &["plugin", command])?;
        let told = text(&said);
        ensure!(!said.status.success(), "{told}");
        ensure!(
            told.contains("plugin wants 0.2.0, this agent has 0.1.0"),
            "{command}: {told}"
        );
    }
    Ok(())
}

fn replaced(bytes: &[u8], from: &[u8; 6], to: &[u8; 6]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// The hostile plugin's folder with its component, its settings and a log beside it.
fn runnable(place: &Path, behavior: &str) -> Result<PathBuf> {
    let folder = hostile(place, behavior)?;
    std::fs::copy(guest()?, folder.join("hostile.wasm"))?;
    let settings = format!(
        "[[plugin]]\nname = \"tried\"\nuse = \"hostile\"\ninterval = \"100ms\"\n[plugin.sources.input]\nfile = \"in.log\"\n[plugin.settings]\nbehavior = {behavior:?}\n"
    );
    std::fs::write(folder.join("sample.toml"), settings)?;
    std::fs::write(folder.join("in.log"), "one\ntwo\n")?;
    Ok(folder)
}

#[test]
fn one_plugin_runs_without_an_agent_and_its_samples_pass_the_guard() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = runnable(place.path(), "count")?;
    let said = tillwatch(&folder, &["plugin", "run", "--once"])?;
    let told = text(&said);
    ensure!(
        said.status.success() && told.ends_with("Z  hostile.lines{}  2 {line}\n"),
        "{told}"
    );

    let folder = runnable(place.path(), "label")?;
    let settings = folder.join("sample.toml").display().to_string();
    let said = tillwatch(
        place.path(),
        &["plugin", "run", "--settings", &settings, "--once", "--json"],
    )?;
    let told = text(&said);
    ensure!(
        told.contains("\"metric\":\"hostile.lines\"") && told.contains("\"value\":2"),
        "{told}"
    );
    ensure!(
        !told.contains("411111") && told.contains("refuses 1 values of hostile.value: card `case`"),
        "{told}"
    );

    // It looked where agents have their plugins, and told of a setting that such a file has not.
    std::fs::copy(folder.join("sample.toml"), place.path().join("mine.toml"))?;
    let told = text(&tillwatch(
        &folder,
        &["plugin", "run", "--once", "--settings", "../mine.toml"],
    )?);
    ensure!(
        told.contains("hint: ../plugin.toml is not of hostile: put the settings file into the plugin's folder"),
        "{told}"
    );

    let folder = runnable(place.path(), "panic")?;
    let said = tillwatch(&folder, &["plugin", "run", "--once"])?;
    ensure!(
        !said.status.success() && text(&said).contains("trapped"),
        "{}",
        text(&said)
    );
    Ok(())
}

/// Reads what is there, then what comes, at each interval; a signal ends it, and what was refused is told.
#[test]
fn one_plugin_runs_at_its_interval_until_it_is_stopped() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = runnable(place.path(), "label")?;
    let log = place.path().join("said");
    let mut command = Command::new(program("tillwatch")?);
    command
        .current_dir(&folder)
        .args(["--log", "warn", "plugin", "run", "--json"]);
    let mut process = Process::start("tillwatch", &mut command, &log)?;
    let said = |text: &str| std::fs::read_to_string(&log).is_ok_and(|said| said.contains(text));
    wait_until("the first lines", PATIENCE, || Ok(said("\"value\":2")))?;
    let mut input = std::fs::OpenOptions::new().append(true).open(folder.join("in.log"))?;
    std::io::Write::write_all(&mut input, b"three\nfour\nfive\n")?;
    wait_until("the next lines", PATIENCE, || Ok(said("\"value\":3")))?;
    process.stop(PATIENCE)?;
    ensure!(
        said("an agent refuses") && said("values of hostile.value: card"),
        "{}",
        std::fs::read_to_string(&log)?
    );
    Ok(())
}

/// Of a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs in an empty folder, with nothing but `tools` on the PATH.
fn tillwatch_with(tools: &Path, folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("tillwatch")?);
    command.current_dir(folder).args(arguments);
    command.env("PATH", tools).env_remove("RUSTC").env_remove("CARGO");
    command.output().context("starting tillwatch")
}

#[test]
fn build_names_what_is_missing_of_compiler_target_and_linker() -> Result<()> {
    let place = tempfile::tempdir()?;
    ensure!(tillwatch(place.path(), &["plugin", "new", "tried"])?.status.success());
    let (folder, tools) = (place.path().join("tried"), place.path().join("tools"));
    std::fs::create_dir(&tools)?;
    let told = text(&tillwatch_with(&tools, &folder, &["plugin", "build"])?);
    ensure!(
        told.contains("starting rustc") && told.contains("hint: install Rust with rustup"),
        "{told}"
    );

    // A compiler that says where its libraries and linkers are: in folders that are not there.
    let (sysroot, libraries) = (place.path().join("sysroot"), place.path().join("libraries"));
    let rustc = tools.join("rustc");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *target-libdir*) echo {};; *sysroot*) echo {};; *) echo some-host;; esac\n",
        libraries.display(),
        sysroot.display()
    );
    std::fs::write(&rustc, script)?;
    std::fs::set_permissions(&rustc, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let linker = sysroot.join("lib/rustlib/some-host/bin/wasm-component-ld");
    let no_linker = format!("{} is missing\nhint: a toolchain of rustup has it", linker.display());
    let has_debian = Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml").is_file();
    let no_target = "hint: rustup target add wasm32-unknown-unknown; where rustup cannot get it, apt-get install";
    let expected = if has_debian { no_linker.as_str() } else { no_target };
    let told = text(&tillwatch_with(&tools, &folder, &["plugin", "build"])?);
    ensure!(told.contains(expected), "no {expected:?}: {told}");

    std::fs::create_dir(&libraries)?;
    let told = text(&tillwatch_with(&tools, &folder, &["plugin", "build"])?);
    ensure!(told.contains(&no_linker), "no {no_linker:?}: {told}");
    Ok(())
}

#[test]
fn a_new_plugin_beside_a_checkout_depends_on_the_sdk_there() -> Result<()> {
    let place = tempfile::tempdir()?;
    let sdk = std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk"))?;
    let new = |sdk: &Path| {
        let sdk = sdk.display().to_string();
        tillwatch(place.path(), &["plugin", "new", "tried", "--sdk", &sdk])
    };
    for wrong in [&sdk, &sdk.join("gone")] {
        let output = new(wrong)?;
        ensure!(
            !output.status.success() && text(&output).contains("SDK"),
            "{}",
            text(&output)
        );
        ensure!(!place.path().join("tried").exists());
    }
    let output = new(&sdk.join("collector"))?;
    ensure!(output.status.success(), "{}", text(&output));
    // Cargo finds the SDK and all that it depends on, without a registry that would have it.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.current_dir(place.path().join("tried"));
    let output = metadata
        .args(["metadata", "--format-version", "1", "--offline"])
        .output()?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    let packages = told["packages"].as_array().context("packages")?;
    let found = packages.iter().find(|package| package["name"] == "tillwatch-sdk");
    let manifest = found
        .and_then(|package| package["manifest_path"].as_str())
        .map(PathBuf::from);
    ensure!(manifest == Some(sdk.join("collector/Cargo.toml")), "{manifest:?}");
    Ok(())
}

/// A plugin's README had its tables by hand, and they were of the version before.
#[test]
fn docs_writes_the_tables_of_a_readme_and_leaves_the_rest() -> Result<()> {
    let place = tempfile::tempdir()?;
    ensure!(tillwatch(place.path(), &["plugin", "new", "tried"])?.status.success());
    let folder = place.path().join("tried");
    let (readme, manifest) = (folder.join("README.md"), folder.join("plugin.toml"));
    let before = std::fs::read_to_string(&readme)?;
    ensure!(tillwatch(&folder, &["plugin", "docs"])?.status.success());
    ensure!(
        std::fs::read_to_string(&readme)? == before,
        "a new plugin's tables are in step"
    );
    let changed = std::fs::read_to_string(&manifest)?.replace(
        "values_max = 40\nhelp = \"The till's name.\"",
        "values_max = 40\nhelp = \"Which till.\"",
    );
    let summary = "Response times of tills from a log with one line per request.";
    let changed = changed.replace(summary, "Sales.");
    std::fs::write(&manifest, changed)?;
    ensure!(tillwatch(&folder, &["plugin", "docs"])?.status.success());
    let after = std::fs::read_to_string(&readme)?;
    ensure!(
        after
            == before
                .replace("The till's name.", "Which till.")
                .replace(summary, "Sales.")
            && after.matches("Which till.").count() + after.matches("Sales.").count() == 2,
        "{after}"
    );

    std::fs::write(&readme, "# tried\n")?;
    let output = tillwatch(&folder, &["plugin", "docs"])?;
    ensure!(
        !output.status.success() && text(&output).contains("hint: the tables stand between"),
        "{}",
        text(&output)
    );
    std::fs::write(&manifest, "[plugin]\nname = 3\n")?;
    let output = tillwatch(&folder, &["plugin", "docs"])?;
    ensure!(
        !output.status.success() && text(&output).contains("plugin.toml:2:"),
        "{}",
        text(&output)
    );
    Ok(())
}

#[test]
fn bench_gives_the_documented_figures_of_each_case_with_input() -> Result<()> {
    let place = tempfile::tempdir()?;
    let folder = runnable(place.path(), "count")?;
    let said = tillwatch(&folder, &["plugin", "bench", "--json"])?;
    let told: serde_json::Value = serde_json::from_slice(&said.stdout).with_context(|| text(&said))?;
    let keys = [
        "instantiate_us",
        "idle_call_us",
        "call_us",
        "call_us_max",
        "input_bytes",
        "calls",
        "samples",
        "ms_per_mb",
        "memory_bytes",
        "fuel_per_call",
        "fuel_per_byte",
    ];
    for key in keys {
        ensure!(told[key].as_f64().is_some_and(|figure| figure >= 0.0), "{key}: {told}");
    }
    ensure!(told["case"] == "lines" && told["plugin"] == "hostile", "{told}");
    // 8 MiB by at most 256 KiB.
    ensure!(
        told["calls"].as_u64() >= Some(32) && told["samples"] == told["calls"],
        "{told}"
    );
    ensure!(told["input_bytes"].as_u64() >= Some(8 << 20), "{told}");
    // Whatever else the machine does.
    let again = tillwatch(&folder, &["plugin", "bench", "--json"])?;
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).with_context(|| text(&again))?;
    ensure!(told["fuel_per_call"].as_u64() > Some(1_000), "{told}");
    for key in ["fuel_per_call", "fuel_per_byte"] {
        ensure!(told[key] == again[key], "{key}: {told} {again}");
    }
    Ok(())
}

/// A recording passes as a test case, and nothing of a customer is in it.
#[test]
fn a_recorded_case_says_nothing_of_the_store_and_passes_as_a_test_case() -> Result<()> {
    let place = tempfile::tempdir()?;
    let now = jiff::Timestamp::now();
    let line = |till: &str| {
        format!(
            "{{\"time\":\"{now}\",\"total\":19.99,\"items\":3,\"tender\":\"cash\",\"clerk\":\"{till}\",\"card\":\"4111 1111 1111 1111\"}}\n"
        )
    };
    let sales = [line("Anna Schmidt"), line("Boris Meier"), line("Anna Schmidt")].concat();
    std::fs::write(place.path().join("sales.jsonl"), &sales)?;
    let plugin = plugin_dir()?.join("sales").display().to_string();
    let settings = format!(
        "site = \"store-0412\"\ntime_zone = \"UTC\"\nstate_dir = \"state\"\n[broker]\nurl = \"mqtt://127.0.0.1:1883\"\narchives = [\"main\"]\n[[plugin]]\nname = \"tills\"\nuse = {plugin:?}\n[plugin.sources.lines]\nfile = \"sales.jsonl\"\n"
    );
    std::fs::write(place.path().join("agent.toml"), settings)?;
    let record = [
        "plugin",
        "record",
        "--config",
        "agent.toml",
        "tills",
        "--out",
        "cases/testcases/one",
        "--lines",
        "2",
    ];
    let said = tillwatch(place.path(), &record)?;
    let told = text(&said);
    ensure!(
        said.status.success() && told.contains("2 lines of source lines"),
        "{told}"
    );
    ensure!(told.contains("a person must read each of its files"), "{told}");
    ensure!(
        told.contains("the plugin makes of it: ") && told.contains(" of sales.amount, "),
        "{told}"
    );

    let case = place.path().join("cases/testcases/one");
    let recorded = std::fs::read_to_string(case.join("lines.log"))?;
    for secret in ["Anna", "Schmidt", "Boris", "Meier", "4111", "1111", "19.99"] {
        ensure!(!recorded.contains(secret), "{secret}: {recorded}");
    }
    ensure!(
        recorded.contains("\"tender\":\"cash\"") && recorded.contains("\"0000 0000 0000 0000\""),
        "{recorded}"
    );
    let expected = std::fs::read_to_string(case.join("expected.jsonl"))?;
    ensure!(
        expected.contains("\"metric\":\"sales.transactions\",\"labels\":{},\"value\":1"),
        "{expected}"
    );
    ensure!(!place.path().join("state").exists(), "the agent's state was touched");
    ensure!(std::fs::read_to_string(place.path().join("sales.jsonl"))? == sales);

    std::fs::copy(format!("{plugin}/plugin.toml"), place.path().join("cases/plugin.toml"))?;
    let wasm = format!("{plugin}/sales.wasm");
    let tested = tillwatch(place.path(), &["plugin", "test", "cases", "--wasm", &wasm])?;
    ensure!(tested.status.success(), "{}", text(&tested));
    let again = tillwatch(place.path(), &record)?;
    ensure!(
        !again.status.success() && text(&again).contains("is there already"),
        "{}",
        text(&again)
    );
    Ok(())
}
