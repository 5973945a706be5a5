//! Signed plugins: packed and signed as an author does, installed as an operator does, refused as an attacker fears.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tillwatch_tests::process::{plugin_dir, program, wait_until};

const PLUGIN: &str = "queue-depth";

/// An author's keys, and a store that trusts them.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let place = Self {
            folder: tempfile::tempdir()?,
        };
        for folder in ["plugins", "state", "drop"] {
            std::fs::create_dir(place.path(folder))?;
        }
        std::fs::write(place.path("drop/1.msg"), "x")?;
        std::fs::write(place.path("agent.toml"), SETTINGS)?;
        // The release key is made on the way; the list names its public half.
        std::fs::write(place.path("first.toml"), "sequence = 1\nexpires = \"2099-12-31\"\n")?;
        place.run("plugin sign first.toml --key release.key --generate --no-password")?;
        let public = std::fs::read_to_string(place.path("release.key.pub"))?;
        let public = public.lines().nth(1).context("a public key")?;
        std::fs::write(place.path("keys.toml"), KEYS.replace("PUBLIC", public))?;
        place.run("plugin sign keys.toml --key root.key --generate --no-password")?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tillwatch(&self, arguments: &str) -> Result<Output> {
        let mut command = Command::new(program("tillwatch")?);
        command.current_dir(self.folder.path()).args(arguments.split(' '));
        command.output().context("starting tillwatch")
    }

    fn run(&self, arguments: &str) -> Result<String> {
        let output = self.tillwatch(arguments)?;
        ensure!(output.status.success(), "tillwatch {arguments}: {}", text(&output));
        Ok(text(&output))
    }

    /// What `check` says of settings that it must refuse.
    fn refused(&self) -> Result<String> {
        let output = self.tillwatch("check --config agent.toml")?;
        ensure!(!output.status.success(), "it went on: {}", text(&output));
        Ok(text(&output))
    }

    /// Packs and signs the built plugin, and installs it as the only one.
    fn install(&self, sequence: u64) -> Result<PathBuf> {
        let built = plugin_dir()?.join(PLUGIN);
        let built = built.to_str().context("a path in UTF-8")?;
        self.run(&format!("plugin pack {built} --sequence {sequence} --out plugins"))?;
        let bundle = std::fs::read_dir(self.path("plugins"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .context("a bundle")?;
        let name = bundle.to_str().context("a path in UTF-8")?;
        self.run(&format!("plugin sign {name} --key release.key"))?;
        Ok(bundle)
    }
}

const SETTINGS: &str = r#"site = "store-0412"
time_zone = "Europe/Berlin"
state_dir = "state"
plugin_dir = "plugins"
[broker]
url = "mqtt://127.0.0.1:1"
[trust]
root = "root.key.pub"
keys = "keys.toml"
[[plugin]]
use = "queue-depth"
[plugin.sources.folder]
folder = "drop"
"#;

const KEYS: &str = r#"sequence = 1
expires = "2099-12-31"
[[key]]
name = "releases"
public = "PUBLIC"
plugins = ["queue-*"]
"#;

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn flip_a_bit(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

#[test]
fn a_signed_bundle_runs_in_a_store_and_an_older_one_never_again() -> Result<()> {
    let place = Place::new()?;
    place.install(5)?;
    place.run("check --config agent.toml")?;
    place.run("backfill --no-delivery --config agent.toml")?;
    let accepted = std::fs::read_to_string(place.path("state/accepted.toml"))?;
    ensure!(accepted.contains("queue-depth = 5"), "{accepted}");

    place.install(4)?;
    let told = place.refused()?;
    ensure!(
        told.contains("agent.toml:11:") && told.contains("it is an old bundle"),
        "{told}"
    );
    place.install(6)?;
    place.run("backfill --no-delivery --config agent.toml")?;
    Ok(())
}

/// An agent that runs in the place; its broker is not there.
struct Running<'a> {
    place: &'a Place,
    agent: Child,
}

impl<'a> Running<'a> {
    fn start(place: &'a Place) -> Result<Self> {
        let mut command = Command::new(program("tillwatch")?);
        command.current_dir(place.folder.path());
        command.args(["run", "--config", "agent.toml"]);
        let log = File::create(place.path("log"))?;
        let agent = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { place, agent })
    }

    fn waits_for(&self, said: &str, times: usize) -> Result<()> {
        let log = || std::fs::read_to_string(self.place.path("log"));
        wait_until(said, Duration::from_secs(60), || {
            Ok(log()?.matches(said).count() == times)
        })
        .with_context(|| log().unwrap_or_default())
    }

    fn reload(&self) -> Result<()> {
        let process = Pid::from_raw(self.agent.id().cast_signed()).context("it has a number")?;
        Ok(kill_process(process, Signal::HUP)?)
    }

    fn accepted(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.place.path("state/accepted.toml"))?)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.agent.kill());
        drop(self.agent.wait());
    }
}

#[test]
fn a_newer_bundle_is_accepted_while_the_agent_runs_and_an_older_one_changes_nothing() -> Result<()> {
    let place = Place::new()?;
    place.install(5)?;
    let agent = Running::start(&place)?;
    agent.waits_for("started", 1)?;
    place.install(6)?;
    agent.reload()?;
    agent.waits_for("the plugins were loaded again", 1)?;
    ensure!(agent.accepted()?.contains("queue-depth = 6"), "{}", agent.accepted()?);
    place.install(5)?;
    agent.reload()?;
    agent.waits_for("the plugins were not loaded again", 1)?;
    agent.waits_for("it is an old bundle", 1)?;
    ensure!(agent.accepted()?.contains("queue-depth = 6"), "{}", agent.accepted()?);
    Ok(())
}

#[test]
fn what_nobody_trusted_signed_does_not_run() -> Result<()> {
    let place = Place::new()?;
    let bundle = place.install(5)?;
    flip_a_bit(&bundle)?;
    let told = place.refused()?;
    ensure!(told.contains("signed by none of the keys"), "{told}");

    std::fs::remove_file(&bundle)?;
    let folder = place.path("plugins").join(PLUGIN);
    std::fs::create_dir(&folder)?;
    for file in ["plugin.toml", "queue-depth.wasm"] {
        std::fs::copy(plugin_dir()?.join(PLUGIN).join(file), folder.join(file))?;
    }
    let told = place.refused()?;
    ensure!(told.contains("is not signed"), "{told}");

    std::fs::remove_dir_all(&folder)?;
    place.install(5)?;
    let trusting_nobody = SETTINGS.replace("[trust]\nroot = \"root.key.pub\"\nkeys = \"keys.toml\"\n", "");
    std::fs::write(place.path("agent.toml"), trusting_nobody)?;
    let told = place.refused()?;
    ensure!(told.contains("the settings trust nobody"), "{told}");
    Ok(())
}

#[test]
fn a_bundle_runs_under_its_own_name_only_and_before_a_folder() -> Result<()> {
    let place = Place::new()?;
    let bundle = place.install(5)?;
    let signature = |path: &Path| PathBuf::from(format!("{}.minisig", path.display()));
    let other = place.path("plugins/sales-9.wasm");
    std::fs::copy(&bundle, &other)?;
    std::fs::copy(signature(&bundle), signature(&other))?;
    let of_sales = SETTINGS.replace("use = \"queue-depth\"", "use = \"sales\"");
    std::fs::write(place.path("agent.toml"), of_sales)?;
    let told = place.refused()?;
    ensure!(told.contains("holds plugin `queue-depth`, not `sales`"), "{told}");

    std::fs::write(place.path("agent.toml"), SETTINGS)?;
    let folder = place.path("plugins").join(PLUGIN);
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("plugin.toml"), "it is not even read")?;
    let told = place.run("check --config agent.toml")?;
    ensure!(told.contains("installed twice"), "{told}");

    let newer = place.path("plugins/queue-depth-0.2.0.wasm");
    std::fs::copy(&bundle, &newer)?;
    std::fs::copy(signature(&bundle), signature(&newer))?;
    flip_a_bit(&newer)?;
    let told = place.run("check --config agent.toml")?;
    ensure!(told.contains("a bundle is refused") && told.contains("0.2.0"), "{told}");

    for version in 3..19 {
        std::fs::copy(&bundle, place.path(&format!("plugins/queue-depth-0.{version}.0.wasm")))?;
    }
    let told = place.refused()?;
    ensure!(told.contains("more than 16 bundles"), "{told}");
    Ok(())
}

#[test]
fn only_bundles_and_key_lists_are_signed_and_both_can_be_verified() -> Result<()> {
    let place = Place::new()?;
    let bundle = place.install(5)?;
    let bundle = bundle.to_str().context("a path in UTF-8")?;
    std::fs::write(place.path("note.toml"), "sequence = 1\n")?;
    std::fs::copy(
        plugin_dir()?.join(PLUGIN).join("queue-depth.wasm"),
        place.path("plain.wasm"),
    )?;
    for (file, expected) in [
        ("note.toml", "note.toml is no list of release keys"),
        ("plain.wasm", "hint: make one with `tillwatch plugin pack`"),
    ] {
        let output = place.tillwatch(&format!("plugin sign {file} --key new.key --generate --no-password"))?;
        ensure!(
            !output.status.success() && text(&output).contains(expected),
            "{}",
            text(&output)
        );
        ensure!(!place.path("new.key").exists() && !place.path(&format!("{file}.minisig")).exists());
    }
    std::fs::write(place.path("new.key.pub"), "somebody else's")?;
    let output = place.tillwatch("plugin sign keys.toml --key new.key --generate --no-password")?;
    ensure!(
        text(&output).contains("new.key.pub is there already"),
        "{}",
        text(&output)
    );
    ensure!(std::fs::read_to_string(place.path("new.key.pub"))? == "somebody else's");

    let told = place.run("plugin verify keys.toml --key root.key.pub")?;
    ensure!(
        told.contains("sequence 1,") && told.contains("key releases may sign: queue-*"),
        "{told}"
    );
    let half = "site = 3\nstate_dir = \"state\"\n[trust]\nroot = \"root.key.pub\"\nkeys = \"keys.toml\"\n[[plugin]]\nuse = \"gone\"\n";
    std::fs::write(place.path("half.toml"), half)?;
    let told = place.run(&format!("plugin verify {bundle} --config half.toml"))?;
    ensure!(told.contains("signed by releases"), "{told}");

    let told = place.run("plugin list --config agent.toml")?;
    ensure!(
        told.contains("queue-depth 0.1.0") && told.contains("sequence 5;"),
        "{told}"
    );
    std::fs::write(
        place.path("agent.toml"),
        SETTINGS.replace("use = \"queue-depth\"", "use = \"queue-dept\""),
    )?;
    let told = place.refused()?;
    ensure!(told.contains("did you mean \"queue-depth\"?"), "{told}");
    Ok(())
}

#[test]
fn signatures_are_those_of_minisign_both_ways() -> Result<()> {
    let place = Place::new()?;
    let bundle = place.install(5)?;
    let minisign = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("minisign")
            .current_dir(place.folder.path())
            .args(arguments)
            .output()
            .context("starting minisign")?;
        ensure!(output.status.success(), "minisign {arguments:?}: {}", text(&output));
        Ok(text(&output))
    };
    let name = bundle.to_str().context("a path in UTF-8")?;
    let told = minisign(&["-V", "-m", name, "-p", "release.key.pub"])?;
    ensure!(
        told.contains("sequence:5"),
        "the trusted comment names the bundle: {told}"
    );

    minisign(&["-G", "-W", "-p", "other.pub", "-s", "other.key"])?;
    minisign(&["-S", "-m", name, "-s", "other.key"])?;
    let told = place.run(&format!("plugin verify {name} --key other.pub"))?;
    ensure!(told.contains("queue-depth 0.1.0: signed by other.pub"), "{told}");
    let refused = place.tillwatch(&format!("plugin verify {name} --key release.key.pub"))?;
    ensure!(!refused.status.success(), "{}", text(&refused));

    let refused = text(&place.tillwatch(&format!("plugin sign {name} --key other.key"))?);
    ensure!(refused.contains("no password and no checksum"), "{refused}");

    std::fs::write(place.path("password"), "three green tills\n")?;
    let made = "(cat password; cat password) | minisign -G -p guarded.pub -s guarded.key";
    let mut shell = Command::new("sh");
    let made = shell.current_dir(place.folder.path()).args(["-c", made]).output()?;
    ensure!(made.status.success(), "{}", text(&made));
    place.run(&format!(
        "plugin sign {name} --key guarded.key --password-file password"
    ))?;
    minisign(&["-V", "-m", name, "-p", "guarded.pub"])?;
    Ok(())
}

#[test]
fn a_key_with_a_password_signs_with_the_password_of_its_file_and_with_no_other() -> Result<()> {
    let place = Place::new()?;
    std::fs::write(place.path("password"), "three green tills\n")?;
    std::fs::write(place.path("wrong"), "three red tills\n")?;
    let sign = "plugin sign keys.toml --key guarded.key --password-file";
    place.run(&format!("{sign} password --generate"))?;
    let told = place.run("plugin verify keys.toml --key guarded.key.pub")?;
    ensure!(told.contains("signed by guarded.key.pub"), "{told}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.path("guarded.key"))?.permissions());
    ensure!(mode & 0o077 == 0, "others may read the key: {mode:o}");

    let signature = place.path("keys.toml.minisig");
    std::fs::remove_file(&signature)?;
    for wrong in ["wrong", "gone"] {
        let output = place.tillwatch(&format!("{sign} {wrong}"))?;
        ensure!(!output.status.success() && !signature.exists(), "{}", text(&output));
        ensure!(
            !text(&output).contains("tills"),
            "a password was printed: {}",
            text(&output)
        );
    }
    place.run(&format!("{sign} password"))?;
    place.run("plugin verify keys.toml --key guarded.key.pub")?;
    Ok(())
}

/// The second bundle: two messages contradicted each other, and its old signature said nothing.
#[test]
fn the_next_bundle_says_that_its_signature_is_old_and_is_signed_by_the_line_of_the_first() -> Result<()> {
    let place = Place::new()?;
    let bundle = place.install(1)?;
    let name = bundle.to_str().context("a path in UTF-8")?;
    let built = plugin_dir()?.join(PLUGIN);
    let pack = format!("plugin pack {} --out plugins --sequence 2", built.display());
    let told = place.run(&pack)?;
    ensure!(
        told.contains(".wasm.minisig is of an earlier bundle: sign again"),
        "{told}"
    );
    let verify = format!("plugin verify {name} --key release.key.pub");
    let told = text(&place.tillwatch(&verify)?);
    ensure!(
        told.contains("hint: a bundle that is packed again is signed again"),
        "{told}"
    );
    let again = text(&place.tillwatch(&format!(
        "plugin sign {name} --key release.key --generate --no-password"
    ))?);
    ensure!(again.contains("hint: leave --generate out to use that key"), "{again}");
    place.run(&format!("plugin sign {name} --key release.key --no-password"))?;
    ensure!(place.run(&verify)?.contains("sequence 2"));
    std::fs::remove_file(bundle.with_extension("wasm.minisig"))?;
    let told = place.run(&pack.replace(" 2", " 3"))?;
    ensure!(!told.contains("earlier bundle"), "{told}");
    Ok(())
}
