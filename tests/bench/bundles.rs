//! Ten signed bundles in a store, from its settings to plugins that can be called: packed and signed by the commands that
//! an author types, verified, loaded and configured on the agent's own way.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use tillwatch_agent::clock::Clock;
use tillwatch_agent::collectors::try_out;
use tillwatch_agent::config::Config;
use tillwatch_tests::process::{plugin_dir, program};

pub(crate) const BUNDLES: usize = 10;

/// The shipped plugins, each with what it reads and what it must be told.
const SHIPPED: [(&str, &str, &str); 3] = [
    ("pos-latency", "access_log", ""),
    ("queue-depth", "events", ""),
    ("sales", "lines", "currency = \"EUR\"\n"),
];

const STORE: &str = "site = \"store-0412\"\ntime_zone = \"Europe/Berlin\"\nstate_dir = \"state\"\nplugin_dir = \"plugins\"\n\
    [broker]\nurl = \"mqtt://127.0.0.1:1\"\n[trust]\nroot = \"root.key.pub\"\nkeys = \"keys.toml\"\n";

/// A store whose plugins are signed bundles, each of another content.
pub(crate) struct Store {
    folder: tempfile::TempDir,
    settings: PathBuf,
}

impl Store {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let place = folder.path();
        for name in ["plugins", "state"] {
            std::fs::create_dir(place.join(name))?;
        }
        // The release key is made on the way; the list names its public half.
        std::fs::write(place.join("first.toml"), "sequence = 1\nexpires = \"2099-12-31\"\n")?;
        tillwatch(
            place,
            &[
                "plugin",
                "sign",
                "first.toml",
                "--key",
                "release.key",
                "--generate",
                "--no-password",
            ],
        )?;
        let public = std::fs::read_to_string(place.join("release.key.pub"))?;
        let public = public.lines().nth(1).context("a public key")?;
        let keys = format!(
            "sequence = 1\nexpires = \"2099-12-31\"\n[[key]]\nname = \"releases\"\npublic = \"{public}\"\nplugins = [\"*\"]\n"
        );
        std::fs::write(place.join("keys.toml"), keys)?;
        tillwatch(
            place,
            &[
                "plugin",
                "sign",
                "keys.toml",
                "--key",
                "root.key",
                "--generate",
                "--no-password",
            ],
        )?;
        let log = place.join("pos.jsonl");
        std::fs::write(&log, "")?;
        let mut text = STORE.to_owned();
        for (number, (name, source, settings)) in SHIPPED.iter().cycle().take(BUNDLES).enumerate() {
            let bundle = bundle(place, name, number)?;
            write!(
                text,
                "\n[[plugin]]\nname = \"{name}-{number}\"\nuse = {bundle:?}\n[plugin.sources.{source}]\nfile = {log:?}\n\
                 [plugin.settings]\n{settings}"
            )?;
        }
        let settings = place.join("agent.toml");
        std::fs::write(&settings, text)?;
        Ok(Self { folder, settings })
    }

    /// Everything up to the first call.
    pub(crate) fn start(&self) -> Result<()> {
        let config = Config::load(&self.settings).map_err(|problems| anyhow!("{problems:?}"))?;
        let is_verified = config.plugins.iter().all(|plugin| plugin.bundle.is_some());
        ensure!(
            is_verified && config.plugins.len() == BUNDLES,
            "not {BUNDLES} verified bundles"
        );
        let started = try_out(&config, &Clock::wall()).map_err(|problems| anyhow!("{problems:?}"))?;
        ensure!(started.len() > BUNDLES, "{} sources", started.len());
        Ok(())
    }

    /// How many bundles are compiled.
    pub(crate) fn compiled(&self) -> Result<usize> {
        Ok(std::fs::read_dir(self.folder.path().join("state/cache"))?.count())
    }
}

/// Packed and signed; each has another sequence, and so another content.
fn bundle(place: &Path, name: &str, number: usize) -> Result<PathBuf> {
    let out = place.join(format!("plugins/{number}"));
    std::fs::create_dir(&out)?;
    let (built, sequence) = (plugin_dir()?.join(name), (number + 1).to_string());
    let (built, folder) = (text(&built)?, text(&out)?);
    tillwatch(
        place,
        &["plugin", "pack", built, "--sequence", &sequence, "--out", folder],
    )?;
    let files = std::fs::read_dir(&out)?;
    let file = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .next()
        .context("a bundle")?;
    tillwatch(place, &["plugin", "sign", text(&file)?, "--key", "release.key"])?;
    Ok(file)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn tillwatch(place: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program("tillwatch")?);
    let output = command.current_dir(place).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "tillwatch {arguments:?}: {said}");
    Ok(())
}
