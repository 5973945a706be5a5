//! The SDK as its users get it: packed as for crates.io, and its tutorial typed word by word in an empty folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tillwatch_tests::process::program;

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

/// The commands of all `sh` blocks, as they stand there.
fn typed(text: &str) -> String {
    let blocks = text.split("```sh\n").skip(1);
    blocks.filter_map(|block| block.split("```").next()).collect()
}

#[test]
fn the_tutorial_works_word_by_word_with_the_packed_sdk_in_an_empty_folder() -> Result<()> {
    let place = tempfile::tempdir()?;
    let sdk = packed(place.path())?;
    write_cargo_config(place.path(), &sdk)?;
    let packed = sdk.join(format!("tillwatch-sdk-{}", env!("CARGO_PKG_VERSION")));
    let commands = typed(&std::fs::read_to_string(packed.join("README.md"))?);
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
        "1 of 1 cases came out as expected",
        "8 of 8 checks of the contract passed",
        "till.request.duration{till=till-1}",
        "contract  0.1.0, supported until 2028-11",
        "ms per MB of input",
        "signed by release.key.pub",
    ] {
        ensure!(told.contains(expected), "no {expected:?}: {told}");
    }
    Ok(())
}
