//! `tillwatch plugin new`: a crate that builds, tests and runs at once, for an author to change.
//!
//! In: a name and where the SDK is. Out: a folder with the template of `sdk/template` under that name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::output;

/// Of a plugin's name: it becomes a crate's name and a label.
const NAME_BYTES_MAX: usize = 40;
/// What the template is called, and how it finds the SDK beside it.
const TEMPLATE_NAME: &str = "my-plugin";
const TEMPLATE_SDK: &str = "{ path = \"../collector\" }";

/// The template, a working plugin.
const FILES: [(&str, &str); 11] = [
    (".gitignore", include_str!("../../../sdk/template/.gitignore")),
    ("Cargo.toml", include_str!("../../../sdk/template/Cargo.toml")),
    ("README.md", include_str!("../../../sdk/template/README.md")),
    ("clippy.toml", include_str!("../../../sdk/template/clippy.toml")),
    ("plugin.toml", include_str!("../../../sdk/template/plugin.toml")),
    ("sample.toml", include_str!("../../../sdk/template/sample.toml")),
    ("src/lib.rs", include_str!("../../../sdk/template/src/lib.rs")),
    (
        "testcases/two-tills/clock.toml",
        include_str!("../../../sdk/template/testcases/two-tills/clock.toml"),
    ),
    (
        "testcases/two-tills/expected.jsonl",
        include_str!("../../../sdk/template/testcases/two-tills/expected.jsonl"),
    ),
    (
        "testcases/two-tills/requests.log",
        include_str!("../../../sdk/template/testcases/two-tills/requests.log"),
    ),
    (
        "testcases/two-tills/settings.toml",
        include_str!("../../../sdk/template/testcases/two-tills/settings.toml"),
    ),
];

/// Arguments of `plugin new`.
#[derive(Debug, Args)]
pub struct New {
    /// a-z, 0-9 and -, beginning with a letter.
    name: String,
    /// The folder of the SDK's crate; without it, the released one from crates.io.
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
    /// Where to make the new folder.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Writes the crate.
///
/// # Errors
/// When the name is no plugin's name, the SDK is not there, or the folder exists.
pub fn run(arguments: &New) -> Result<()> {
    let name = &arguments.name;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(fits),
        "a plugin cannot be called {name:?}\nhint: use a-z, 0-9 and -, beginning with a letter, at most {NAME_BYTES_MAX}"
    );
    let folder = arguments.folder.join(name);
    let sdk = sdk(arguments.sdk.as_deref())?;
    ensure!(
        !folder.exists(),
        "{} is there already\nhint: choose another name or --folder",
        folder.display()
    );
    for (path, text) in FILES {
        let text = text.replace(TEMPLATE_NAME, name).replace(TEMPLATE_SDK, &sdk);
        write(&folder.join(path), &text)?;
    }
    let folder = folder.display();
    if arguments.sdk.is_none() {
        output::line(
            "the SDK comes from crates.io; when cargo finds no tillwatch-sdk there, as before its first release: \
             tillwatch plugin new NAME --sdk CHECKOUT/sdk/collector, with a checkout of Tillwatch's repository",
        )?;
    }
    output::line(&format!(
        "made {folder}\nnext: cd {folder} && cargo test && tillwatch plugin build && tillwatch plugin test"
    ))?;
    Ok(())
}

/// As a dependency in Cargo.toml.
fn sdk(folder: Option<&Path>) -> Result<String> {
    let Some(folder) = folder else {
        return Ok(format!("\"{}\"", env!("CARGO_PKG_VERSION")));
    };
    let absolute = std::fs::canonicalize(folder).with_context(|| format!("the SDK's folder {}", folder.display()))?;
    let manifest = std::fs::read_to_string(absolute.join("Cargo.toml")).unwrap_or_default();
    ensure!(
        manifest.contains("name = \"tillwatch-sdk\""),
        "{} is not the SDK's crate\nhint: name the folder with the Cargo.toml of tillwatch-sdk",
        absolute.display()
    );
    Ok(format!("{{ path = {:?} }}", absolute.display().to_string()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::manifest::Manifest;

    fn new(name: &str, folder: &Path) -> Result<()> {
        run(&New {
            name: name.to_owned(),
            sdk: None,
            folder: folder.to_owned(),
        })
    }

    #[test]
    fn a_new_plugin_has_its_name_everywhere_and_nothing_of_the_template() {
        let place = tempfile::tempdir().unwrap();
        new("till-times", place.path()).unwrap();
        let folder = place.path().join("till-times");
        assert_eq!(Manifest::load(&folder).unwrap().name, "till-times");
        for (path, _text) in FILES {
            let text = std::fs::read_to_string(folder.join(path)).unwrap();
            assert!(
                !text.contains(TEMPLATE_NAME) && !text.contains("../collector"),
                "{path}: {text}"
            );
        }
        let again = new("till-times", place.path()).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
    }

    #[test]
    fn a_name_that_no_crate_or_label_may_have_is_refused() {
        let place = tempfile::tempdir().unwrap();
        for name in ["", "Tills", "1till", "../x", "till_times", &"x".repeat(41)] {
            assert!(new(name, place.path()).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    /// Every file of the template is written: one that is added there is missed here.
    #[test]
    fn the_whole_template_is_written() {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/template");
        let mut found = Vec::new();
        let mut folders = vec![template.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&template).unwrap().display().to_string());
                }
            }
        }
        // The lock names the SDK in this repository, and the format is that of a crate outside of it; `target` and the
        // component are built.
        let is_ours = |path: &str| ["Cargo.lock", "rustfmt.toml"].contains(&path);
        found.retain(|path| !is_ours(path) && !path.starts_with("target") && !path.ends_with(".wasm"));
        found.sort();
        let mut written: Vec<&str> = FILES.iter().map(|(path, _text)| *path).collect();
        written.sort_unstable();
        assert_eq!(found, written);
    }
}
