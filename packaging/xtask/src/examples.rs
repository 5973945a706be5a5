//! Does what the READMEs of the example collectors say: builds and tests them, word by word.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{Profile, output, target};
use crate::tools;

const EXAMPLES: [&str; 3] = ["batch-jobs", "exporter-queues", "self-checkout"];

/// All at the same time and after everything else: the runtime of a whole language is much to compile.
///
/// # Errors
/// When a tool is missing, or a command of a README fails.
pub(crate) fn test(root: &Path) -> Result<()> {
    let path = path(root)?;
    let tried = EXAMPLES.map(|name| {
        let (folder, path) = (root.join("sdk/examples").join(name), path.clone());
        std::thread::spawn(move || follow_readme(&folder, &path))
    });
    for tried in tried {
        print!(
            "{}",
            tried
                .join()
                .map_err(|_panic| anyhow::anyhow!("an example's thread ended"))??
        );
    }
    Ok(())
}

/// Where the READMEs' commands are found: pip of an environment of its own, npm, and the `tillwatch` that was built.
fn path(root: &Path) -> Result<std::ffi::OsString> {
    tools::program("npm", "npm")?;
    let python = tools::python_environment("examples")?.join("bin");
    let programs = target(root).join(Profile::Dev.folder());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [python, programs].into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("joining PATH")
}

fn follow_readme(folder: &Path, path: &std::ffi::OsStr) -> Result<String> {
    let readme: PathBuf = folder.join("README.md");
    let text = std::fs::read_to_string(&readme).with_context(|| format!("reading {}", readme.display()))?;
    let (_before, block) = text
        .split_once("```sh\n")
        .with_context(|| format!("{} has no commands", readme.display()))?;
    let (commands, _after) = block.split_once("```").unwrap_or((block, ""));
    let mut shell = Command::new("nice");
    shell
        .current_dir(folder)
        .env("PATH", path)
        .args(["-n", "5", "sh", "-ec", commands]);
    output(&mut shell).with_context(|| format!("the commands of {}", readme.display()))
}
