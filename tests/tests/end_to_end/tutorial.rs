//! The SDK as its users get it: packed as for crates.io, and its tutorial typed word by word in an empty folder, up to an
//! agent that runs what was made.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::{plugin_dir, program};

const CRATES: [&str; 2] = ["tillwatch-sdk", "tillwatch-sdk-macros"];

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn good(output: &Output, what: &str) -> Result<String> {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    ensure!(output.status.success(), "{what}: {text}");
    Ok(text)
}

/// Packs both crates and unpacks what would be uploaded; returns the folder with both.
fn packed(place: &Path) -> Result<PathBuf> {
    let mut package = cargo();
    package
        .current_dir(repository())
        .args(["package", "--quiet", "--no-verify", "--allow-dirty", "--target-dir"])
        .arg(place.join("package"));
    for name in CRATES {
        package.args(["--package", name]);
    }
    good(&package.output().context("starting cargo")?, "packing")?;
    let sdk = place.join("sdk");
    std::fs::create_dir(&sdk)?;
    for name in CRATES {
        let file = place.join(format!("package/package/{name}-{}.crate", env!("CARGO_PKG_VERSION")));
        let mut unpack = Command::new("tar");
        unpack.arg("-xzf").arg(&file).arg("-C").arg(&sdk);
        good(&unpack.output().context("starting tar")?, "unpacking")?;
    }
    Ok(sdk)
}

/// Where crates.io would have both crates, cargo finds what was packed.
fn write_cargo_config(place: &Path, sdk: &Path) -> Result<()> {
    let mut config = "[patch.crates-io]\n".to_owned();
    for name in CRATES {
        let folder = sdk.join(format!("{name}-{}", env!("CARGO_PKG_VERSION")));
        config.push_str(&format!("{name} = {{ path = {:?} }}\n", folder.display().to_string()));
    }
    std::fs::create_dir(place.join(".cargo"))?;
    std::fs::write(place.join(".cargo/config.toml"), config).context("writing cargo's settings")
}

/// A fenced block: the words after the fence, and what it holds.
struct Block<'a> {
    language: &'a str,
    file: Option<&'a str>,
    text: String,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(words) if !is_open => {
                let (language, file) = words.split_once(' ').map_or((words, None), |(a, b)| (a, Some(b)));
                let text = String::new();
                blocks.push(Block { language, file, text });
                is_open = true;
            }
            Some(_end) => is_open = false,
            None if is_open => blocks
                .last_mut()
                .into_iter()
                .for_each(|block| block.text += &format!("{line}\n")),
            None => {}
        }
    }
    blocks
}

/// The commands as they stand there; a block that names a file becomes that file where the commands are by then.
fn typed(blocks: &[Block<'_>]) -> String {
    let command = |block: &Block<'_>| match (block.language, block.file) {
        ("sh", None) => block.text.clone(),
        (_, Some(file)) => format!("cat > {file} <<'END OF BLOCK'\n{}END OF BLOCK\n", block.text),
        _ => String::new(),
    };
    blocks.iter().map(command).collect()
}

/// What other blocks are for: code is quoted from the plugin, and messages are text.
fn check_others(blocks: &[Block<'_>], plugin: &Path) -> Result<()> {
    let code = std::fs::read_to_string(plugin.join("src/lib.rs"))?;
    let mut quoted = 0;
    for block in blocks.iter().filter(|block| block.file.is_none()) {
        match block.language {
            "sh" | "text" => {}
            "rust,ignore" => {
                ensure!(code.contains(&block.text), "src/lib.rs has no {}", block.text);
                quoted += 1;
            }
            other => anyhow::bail!("a block of {other} that nobody tries: {}", block.text),
        }
    }
    ensure!(quoted >= 2, "{quoted} blocks quote the plugin");
    Ok(())
}

/// The answers of peers, in a case of a plugin that asks such peers.
fn check_answers(plugin: &Path) -> Result<()> {
    let folder = plugin.join("asks");
    let case = folder.join("testcases/answers");
    std::fs::create_dir_all(&case)?;
    std::fs::copy(plugin.join("peers.toml"), case.join("peers.toml"))?;
    let probe = plugin_dir()?.join("probe");
    let manifest = std::fs::read_to_string(probe.join("plugin.toml"))?;
    let sources = [("checkout", "http"), ("printer", "tcp"), ("sales", "sql")];
    let sources =
        sources.map(|(name, kind)| format!("[[source]]\nname = {name:?}\nkind = {kind:?}\nhelp = \"A peer.\"\n"));
    let (head, _sources) = manifest.split_once("[[source]]").context("a source")?;
    let (_sources, rest) = manifest.split_once("[[metric]]").context("a metric")?;
    std::fs::write(
        folder.join("plugin.toml"),
        format!("{head}{}[[metric]]{rest}", sources.concat()),
    )?;
    let mut test = Command::new(program("tillwatch")?);
    test.args(["plugin", "test", "--update", "--wasm"])
        .arg(probe.join("probe.wasm"))
        .arg(&folder);
    let output = test.output().context("starting tillwatch")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    // The probe asks none of them; that all are understood is what is tried.
    ensure!(!told.contains("peers.toml"), "{told}");
    Ok(())
}

#[test]
fn the_tutorial_works_word_by_word_with_the_packed_sdk_in_an_empty_folder() -> Result<()> {
    let place = tempfile::tempdir()?;
    let sdk = packed(place.path())?;
    write_cargo_config(place.path(), &sdk)?;
    let packed = sdk.join(format!("tillwatch-sdk-{}", env!("CARGO_PKG_VERSION")));
    let text = std::fs::read_to_string(packed.join("README.md"))?;
    let blocks = blocks(&text);
    let commands = typed(&blocks);
    ensure!(
        commands.lines().count() >= 10,
        "the tutorial has hardly a command: {commands}"
    );

    let empty = place.path().join("empty");
    std::fs::create_dir(&empty)?;
    let programs = program("tillwatch")?.parent().context("a folder")?.to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(programs).chain(std::env::split_paths(&path));
    let mut shell = Command::new("sh");
    shell
        .current_dir(&empty)
        .args(["-eux", "-c", &commands])
        .env("PATH", std::env::join_paths(folders)?)
        .env_remove("CARGO_TARGET_DIR");
    let told = good(&shell.output().context("starting sh")?, "the tutorial")?;
    for expected in [
        "test result: ok. 3 passed",
        "2 of 2 cases came out as expected",
        "11 of 11 checks of the contract passed",
        "wrote ./README.md",
        "till.request.duration{till=till-1}",
        "contract  0.1.0, supported until 2028-11",
        "ms per MB of input",
        "signed by release.key.pub",
        "key releases may sign: till-requests",
        "signed by releases",
        // What the agent would send.
        "\"metric\":\"till.request.duration\"",
    ] {
        ensure!(told.contains(expected), "no {expected:?}: {told}");
    }
    let plugin = empty.join("till-requests");
    check_others(&blocks, &plugin)?;
    check_answers(&plugin)
}
