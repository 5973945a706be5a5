//! Runs programs: cargo on the workspace, and what cargo built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// How the programs are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Tests, end-to-end runs and the demo.
    Dev,
    /// Packages and benchmarks.
    Release,
}

impl Profile {
    /// The folder below a target directory.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

/// A `cargo` command in `folder`.
pub(crate) fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).args(arguments);
    command
}

/// Runs to the end.
///
/// # Errors
/// When the program cannot start or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}

/// Runs to the end and returns its standard output.
///
/// # Errors
/// When the program cannot start or does not exit with 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("starting {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).with_context(|| format!("reading what {shown} printed"))
}

/// Builds the agent, the plugins' process and compiler, central and what the tests crate starts.
pub(crate) fn build_programs(root: &Path, profile: Profile) -> Result<()> {
    let mut build = cargo(root, &["build", "--quiet", "--bins", "-p", "tillwatch-agent"]);
    build.args([
        "-p",
        "tillwatch-sandbox",
        "-p",
        "tillwatch-central",
        "-p",
        "tillwatch-tests",
    ]);
    run(build.args(profile.flags()))?;
    build_compiler(root, profile)
}

/// Builds the agent, for its authors' commands, and the plugins' process.
pub(crate) fn build_agent(root: &Path, profile: Profile) -> Result<()> {
    let mut build = cargo(root, &["build", "--quiet", "--bins", "-p", "tillwatch-agent"]);
    build.args(["-p", "tillwatch-sandbox"]);
    run(build.args(profile.flags()))
}

/// Builds the plugin compiler, a workspace of its own, and puts it beside the agent.
pub(crate) fn build_compiler(root: &Path, profile: Profile) -> Result<()> {
    let folder = root.join("agent/compiler");
    let mut build = cargo(&folder, &["build", "--quiet", "--locked", "--target-dir"]);
    build.arg(target(root).join("compiler"));
    run(build.args(profile.flags()))?;
    let built = target(root)
        .join("compiler")
        .join(profile.folder())
        .join("tillwatch-compile");
    let beside = program(root, profile, "tillwatch-compile");
    if let Some(folder) = beside.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::copy(&built, &beside).with_context(|| format!("copying {} to {}", built.display(), beside.display()))?;
    Ok(())
}

/// Runs one of the workspace's programs in place of this one's remaining work, with the allocator as the service sets it:
/// a benchmark measures what a store has.
pub(crate) fn run_program(root: &Path, profile: Profile, name: &str, arguments: &[String]) -> Result<()> {
    let unit = root.join("packaging/systemd/tillwatch.service");
    let unit = std::fs::read_to_string(&unit).with_context(|| format!("reading {}", unit.display()))?;
    let set = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    let set = set.filter_map(|set| set.split_once('='));
    run(Command::new(program(root, profile, name)).args(arguments).envs(set))
}

/// Where cargo put a program.
pub(crate) fn program(root: &Path, profile: Profile, name: &str) -> PathBuf {
    target(root).join(profile.folder()).join(name)
}

/// The target directory that cargo uses here.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
