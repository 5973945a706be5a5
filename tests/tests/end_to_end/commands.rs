//! The agent's commands, as an operator and as a plugin author types them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tillwatch_agent::spool::{NewRecord, RecordKind, Spool, SpoolSettings};
use tillwatch_feed::codec::{decode, encode_body};
use tillwatch_feed::message::Body;
use tillwatch_tests::pki::Authority;
use tillwatch_tests::process::{plugin_dir, program};

/// The repository's root.
fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn tillwatch(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("tillwatch")?);
    command.args(arguments).output().context("starting tillwatch")
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

#[test]
fn what_init_writes_is_good_once_the_certificates_are_there_and_is_never_overwritten() -> Result<()> {
    let place = tempfile::tempdir()?;
    let settings = place.path().join("agent.toml");
    let plugins = plugin_dir()?;
    let init = [
        "init",
        "--site",
        "store-0412",
        "--plugin-dir",
        path_text(&plugins)?,
        "--config",
        path_text(&settings)?,
    ];
    let written = tillwatch(&init)?;
    ensure!(written.status.success(), "{}", text(&written));

    let authority = Authority::new(&place.path().join("pki"))?;
    let identity = authority.client("store-0412")?;
    let filled = std::fs::read_to_string(&settings)?
        .replace("/etc/tillwatch/ca.pem", path_text(&identity.ca)?)
        .replace("/etc/tillwatch/certificate.pem", path_text(&identity.certificate)?)
        .replace("/etc/tillwatch/key.pem", path_text(&identity.key)?)
        .replace("/var/lib/tillwatch", path_text(&place.path().join("state"))?);
    std::fs::write(&settings, &filled)?;
    let checked = tillwatch(&["check", "--config", path_text(&settings)?])?;
    ensure!(checked.status.success(), "{filled}\n{}", text(&checked));

    let again = tillwatch(&init)?;
    ensure!(!again.status.success() && std::fs::read_to_string(&settings)? == filled);
    Ok(())
}

#[test]
fn wrong_settings_are_told_all_at_once_with_their_place_and_nothing_starts() -> Result<()> {
    let place = tempfile::tempdir()?;
    let settings = place.path().join("agent.toml");
    let state = place.path().join("state");
    std::fs::write(
        &settings,
        format!(
            "site = \"Store 412!\"\nstate_dir = \"{}\"\nsumary = \"60s\"\nwindow = \"soon\"\n[broker]\nurl = \"http://nowhere\"\n",
            state.display()
        ),
    )?;
    for command in ["check", "run"] {
        let refused = tillwatch(&[command, "--config", path_text(&settings)?])?;
        let told = text(&refused);
        ensure!(!refused.status.success(), "{command} went on: {told}");
        for place in ["agent.toml:1:", "agent.toml:3:", "agent.toml:4:", "agent.toml:6:"] {
            ensure!(told.contains(place), "{command} does not name {place}: {told}");
        }
        ensure!(told.contains("hint:"), "{command} does not say what to do: {told}");
    }
    ensure!(!state.exists(), "half an agent has started");
    Ok(())
}

/// A key that is written wrong hid what the plugin had to say, which told one of its settings, and no line.
#[test]
fn faults_of_the_file_of_a_certificate_and_of_a_plugin_are_told_together_before_anything_starts() -> Result<()> {
    let place = tempfile::tempdir()?;
    let identity = Authority::new(&place.path().join("pki"))?.client("store-0412")?;
    std::fs::write(&identity.ca, "no PEM")?;
    let settings = place.path().join("agent.toml");
    let text = format!(
        "site = \"store-0412\"\ntime_zone = \"UTC\"\nstate_dir = {:?}\nplugin_dir = {:?}\nsumary = \"60s\"\n\
         [broker]\nurl = \"mqtts://localhost\"\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\
         [[plugin]]\nuse = \"sales\"\n[plugin.sources.lines]\nfile = \"sales.jsonl\"\n\
         [plugin.settings]\ncurrency = \"EURO\"\namount_unit = \"cents\"\ntime_zone = \"Mars\"\nfield_time = 3\n",
        place.path().join("state"),
        plugin_dir()?,
        identity.ca,
        identity.certificate,
        identity.key,
    );
    std::fs::write(&settings, &text)?;
    for (command, fault) in [
        ("check", "sumary = \"60s\"\n"),
        ("run", "sumary = \"60s\"\n"),
        ("run", ""),
    ] {
        std::fs::write(&settings, text.replace("sumary = \"60s\"\n", fault))?;
        let refused = tillwatch(&[command, "--config", path_text(&settings)?])?;
        let told = self::text(&refused);
        ensure!(!refused.status.success(), "{command} went on: {told}");
        let first = if fault.is_empty() { 7 } else { 8 };
        for (line, column, about) in [
            (first, 6, "`ca`"),
            (first + 8, 12, "`currency`"),
            (first + 9, 15, "`amount_unit`"),
            (first + 10, 13, "`time_zone`"),
            (first + 11, 14, "`field_time`"),
        ] {
            let found = told
                .lines()
                .find(|told| told.contains(&format!("agent.toml:{line}:{column}: ")));
            ensure!(
                found.is_some_and(|found| found.contains(about)),
                "{command} does not tell {about}: {told}"
            );
        }
        ensure!(
            fault.is_empty() || told.contains("agent.toml:5:1: unknown key"),
            "{command}: {told}"
        );
        ensure!(
            !told.contains("at line"),
            "{command} tells a place that nobody wrote: {told}"
        );
        let problems = if fault.is_empty() { 5 } else { 6 };
        ensure!(told.matches("hint: ").count() == problems, "{command}: {told}");
        ensure!(told.contains(&format!("{problems} problems")), "{command}: {told}");
    }
    ensure!(!place.path().join("state/spool").exists(), "half an agent has started");
    Ok(())
}

/// A birth and three of its blocks in the spool of a store that no agent runs for.
fn spool_with_payloads(folder: &Path) -> Result<Spool> {
    let payload = |name: &str| -> Result<_> {
        let bytes = std::fs::read(repository().join("sdk/feed/testdata/v1").join(name))?;
        Ok(decode(&bytes)?.body)
    };
    let (mut spool, _) = Spool::open(folder, &SpoolSettings::default(), 0x5eed, 0)?;
    for (name, kind, count) in [
        ("birth.bin", RecordKind::Birth, 1),
        ("sum_live.bin", RecordKind::Block, 3),
    ] {
        let body = payload(name)?;
        let schema = match &body {
            Body::Birth(birth) => birth.schema,
            Body::Block(block) => block.schema,
            _ => 0,
        };
        for _ in 0..count {
            let payload = encode_body(&body);
            if kind == RecordKind::Birth {
                spool.put_birth(schema, spool.next_id(), &payload)?;
            }
            spool.append(&[NewRecord { kind, schema, payload }], b"checkpoint", 0)?;
        }
    }
    Ok(spool)
}

#[test]
fn a_spool_is_listed_checked_and_exported_beside_a_running_agent_and_central_reads_the_payloads() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (settings, state) = (place.path().join("agent.toml"), place.path().join("state"));
    let told = format!(
        "site = \"store-0412\"\ntime_zone = \"UTC\"\nstate_dir = {state:?}\n[broker]\nurl = \"mqtt://localhost:1\"\n"
    );
    std::fs::write(&settings, told)?;
    // Its lock is held as an agent would.
    let spool = spool_with_payloads(&state.join("spool"))?;
    let run = |command: &str, more: &[&str]| {
        let arguments = [&["spool", command, "--config", path_text(&settings)?], more].concat();
        tillwatch(&arguments)
    };
    let listed = text(&run("ls", &[])?);
    ensure!(listed.contains("1 .. 1         birth"), "{listed}");
    ensure!(
        listed.contains("2 .. 4         block") && listed.contains("4 records, "),
        "{listed}"
    );
    let checked = run("check", &[])?;
    ensure!(
        checked.status.success() && text(&checked).contains("the spool is good: 4 records"),
        "{}",
        text(&checked)
    );
    let lines = text(&run("export", &[])?);
    ensure!(
        lines.contains("\"type\":\"birth\"") && lines.contains("\"type\":\"summary\""),
        "{lines}"
    );
    let payloads = place.path().join("payloads");
    let exported = run("export", &["--payloads", path_text(&payloads)?])?;
    ensure!(exported.status.success(), "{}", text(&exported));
    for (name, kind) in [
        ("0000000000005eed-00000001.birth", "birth"),
        ("0000000000005eed-00000003.sum", "block"),
    ] {
        let mut decode = Command::new(program("tillwatch-central")?);
        let decoded = decode.arg("decode").arg(payloads.join(name)).output()?;
        let told = text(&decoded);
        ensure!(
            decoded.status.success() && told.contains("\"0000000000005eed\"") && told.contains(kind),
            "{told}"
        );
    }
    drop(spool);
    std::fs::remove_file(state.join("spool/cursor"))?;
    let damaged = run("check", &[])?;
    ensure!(
        !damaged.status.success() && text(&damaged).contains("bad   the cursor is lost"),
        "{}",
        text(&damaged)
    );
    Ok(())
}

#[test]
fn the_sample_settings_of_central_are_good_once_the_certificates_are_there() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let identity = authority.client("main")?;
    let samples = repository().join("packaging/samples");
    let text = std::fs::read_to_string(samples.join("central.toml"))?
        .replace("/etc/tillwatch-central/ca.pem", path_text(&identity.ca)?)
        .replace("/etc/tillwatch-central/central.pem", path_text(&identity.certificate)?)
        .replace("/etc/tillwatch-central/central.key", path_text(&identity.key)?)
        .replace("/etc/tillwatch-central/broker.pem", path_text(&identity.certificate)?)
        .replace("/etc/tillwatch-central/broker.key", path_text(&identity.key)?)
        .replace(
            "/etc/tillwatch-central/model.toml",
            path_text(&samples.join("model.toml"))?,
        );
    let settings = place.path().join("central.toml");
    std::fs::write(&settings, text)?;
    let mut check = Command::new(program("tillwatch-central")?);
    let checked = check.arg("check").arg("--config").arg(&settings).output()?;
    ensure!(checked.status.success(), "{}", self::text(&checked));
    Ok(())
}

/// What a program says it knows in each section, when it is given a key that nobody knows.
fn known_keys(name: &str, text: &str) -> Result<Vec<String>> {
    let place = tempfile::tempdir()?;
    let settings = place.path().join("settings.toml");
    std::fs::write(&settings, text)?;
    let told = Command::new(program(name)?)
        .arg("check")
        .arg("--config")
        .arg(&settings)
        .output()?;
    let told = self::text(&told);
    let known: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("known here: "))
        .map(|(_, keys)| keys)
        .collect();
    let sections = text.matches("qqqqqqqqqqqq").count();
    ensure!(
        known.len() == sections,
        "{} of {sections} sections: {told}",
        known.len()
    );
    Ok(known
        .iter()
        .flat_map(|keys| keys.split(", "))
        .map(str::to_owned)
        .collect())
}

#[test]
fn the_samples_show_every_key_that_the_programs_know() -> Result<()> {
    let sections = |names: &[&str]| -> String {
        let unknown = |name: &&str| format!("{name}\nqqqqqqqqqqqq = 1\n");
        names.iter().map(unknown).collect()
    };
    let agent = sections(&["", "[broker]", "[spool]", "[system]", "[trust]", "[[plugin]]"]);
    let central = sections(&["", "[broker]", "[embedded_broker]", "[storage]", "[model]", "[http]"]);
    for (name, sample, text) in [
        ("tillwatch", "agent.toml", agent),
        ("tillwatch-central", "central.toml", central),
    ] {
        let shown = std::fs::read_to_string(repository().join("packaging/samples").join(sample))?;
        for key in known_keys(name, &text)? {
            let forms = [
                format!("{key} = "),
                format!("[{key}]"),
                format!("[[{key}]]"),
                format!("[plugin.{key}"),
            ];
            let is_shown = shown.lines().any(|line| {
                let line = line.trim_start_matches('#');
                forms.iter().any(|form| line.starts_with(form))
            });
            ensure!(is_shown, "{sample} does not show {key}");
        }
    }
    Ok(())
}

#[test]
fn each_shipped_plugin_passes_its_cases_as_a_component_in_the_sandbox() -> Result<()> {
    let mut tested = 0;
    for plugin in std::fs::read_dir(plugin_dir()?)? {
        let built = plugin?.path();
        let name = built.file_name().context("a name")?.to_string_lossy().into_owned();
        let source = repository().join("plugins").join(&name);
        let wasm = built.join(format!("{name}.wasm"));
        let output = tillwatch(&["plugin", "test", path_text(&source)?, "--wasm", path_text(&wasm)?])?;
        ensure!(output.status.success(), "{name}: {}", text(&output));
        tested += 1;
    }
    ensure!(tested == 4, "{tested} plugins were built");
    Ok(())
}

/// It passed all of its cases, and each store refused its values.
#[test]
fn a_plugin_whose_values_no_agent_takes_fails_its_cases() -> Result<()> {
    let place = tempfile::tempdir()?;
    let manifest = repository().join("agent/sandbox/tests/hostile/plugin.toml");
    let wasm = plugin_dir()?.with_file_name("guests").join("hostile.wasm");
    let case = place.path().join("testcases/label");
    std::fs::create_dir_all(&case)?;
    std::fs::write(case.join("settings.toml"), "behavior = \"report\"\n")?;
    std::fs::write(case.join("input.log"), "main-frame\n")?;
    let label = "{\"metric\":\"hostile.value\",\"labels\":{\"case\":\"main-frame\"}";
    let time = "\"time_ms\":1772452800000}";
    let expected = format!("{label},\"value\":1,{time}\n{label},\"value\":0.5,{time}\n");
    std::fs::write(case.join("expected.jsonl"), expected)?;
    // Its real value is money, which is whole numbers only.
    for (pattern, refused) in [
        ("[a-z-]{1,40}", "1 values of hostile.value: money_fraction"),
        ("[a-z]{1,40}", "2 values of hostile.value: label"),
    ] {
        let text = std::fs::read_to_string(&manifest)?;
        let text = text.replace("pattern = \".*\"", &format!("pattern = \"{pattern}\""));
        std::fs::write(place.path().join("plugin.toml"), text)?;
        let output = tillwatch(&["plugin", "test", path_text(place.path())?, "--wasm", path_text(&wasm)?])?;
        let shown = self::text(&output);
        ensure!(
            !output.status.success() && shown.contains(refused),
            "{pattern}: {shown}"
        );
        ensure!(!shown.contains("from line"), "{pattern}: {shown}");
    }
    Ok(())
}
