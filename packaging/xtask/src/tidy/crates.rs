//! What our crates may depend on. Comes from `cargo metadata`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::{cargo, output};

/// The arrows: each crate with those of ours that it may use outside of tests.
const ARROWS: [(&str, &[&str]); 16] = [
    ("tillwatch-feed", &[]),
    ("tillwatch-log", &[]),
    ("tillwatch-sdk-macros", &[]),
    ("tillwatch-sdk", &["tillwatch-sdk-macros"]),
    ("pos-latency", &["tillwatch-sdk"]),
    ("probe", &["tillwatch-sdk"]),
    ("queue-depth", &["tillwatch-sdk"]),
    ("sales", &["tillwatch-sdk"]),
    ("hostile", &["tillwatch-sdk"]),
    ("tillwatch-core", &["tillwatch-feed"]),
    ("tillwatch-border", &["tillwatch-core"]),
    ("tillwatch-sandbox", &["tillwatch-border", "tillwatch-core"]),
    (
        "tillwatch-agent",
        &["tillwatch-border", "tillwatch-core", "tillwatch-feed", "tillwatch-log"],
    ),
    ("tillwatch-central", &["tillwatch-feed", "tillwatch-log"]),
    (
        "tillwatch-tests",
        &[
            "pos-latency",
            "queue-depth",
            "sales",
            "tillwatch-agent",
            "tillwatch-border",
            "tillwatch-central",
            "tillwatch-core",
            "tillwatch-feed",
            "tillwatch-sandbox",
            "tillwatch-sdk",
        ],
    ),
    ("xtask", &[]),
];

/// Heavy crates, each with the only crates of ours that may use it.
const DOORS: [(&str, &[&str]); 6] = [
    ("wasmtime", &["tillwatch-sandbox"]),
    // The tests are the stores of a benchmark, too.
    (
        "rumqttc-v5-next",
        &["tillwatch-agent", "tillwatch-central", "tillwatch-tests"],
    ),
    ("rusqlite", &["tillwatch-agent", "tillwatch-central"]),
    ("ureq", &["tillwatch-agent"]),
    ("axum", &["tillwatch-central"]),
    ("sysinfo", &["tillwatch-agent"]),
];

/// Licenses that may be linked; an expression passes when one of its alternatives consists of these.
const LICENSES: [&str; 12] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
];

/// What cargo says of the workspace.
#[derive(Deserialize)]
pub(super) struct Workspace {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    id: String,
    license: Option<String>,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
    kind: Option<String>,
}

/// Asks cargo.
pub(super) fn workspace(root: &Path) -> Result<Workspace> {
    let text = output(&mut cargo(root, &["metadata", "--format-version", "1", "--locked"]))?;
    serde_json::from_str(&text).context("reading what cargo metadata printed")
}

/// Every fault of the workspace's crates.
pub(super) fn faults(workspace: &Workspace) -> Vec<String> {
    let mut faults = unknown_licenses(workspace);
    for package in workspace.members() {
        faults.extend(wrong_arrows(package));
        faults.extend(wrong_doors(package));
        faults.extend(unused_dependencies(package));
    }
    faults
}

impl Workspace {
    fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }
}

fn wrong_arrows(package: &Package) -> Vec<String> {
    let arrows = BTreeMap::from(ARROWS);
    let Some(allowed) = arrows.get(package.name.as_str()) else {
        return vec![format!(
            "{} has no place in the house\nhint: add it to ARROWS in tidy and to ARCHITECTURE.md",
            package.name
        )];
    };
    package
        .normal_dependencies()
        .filter(|name| arrows.contains_key(name) && !allowed.contains(name))
        .map(|name| {
            format!(
                "{} must not depend on {name}: see the directions in ARCHITECTURE.md",
                package.name
            )
        })
        .collect()
}

fn wrong_doors(package: &Package) -> Vec<String> {
    DOORS
        .iter()
        .filter(|(heavy, doors)| {
            package.normal_dependencies().any(|name| name == *heavy) && !doors.contains(&package.name.as_str())
        })
        .map(|(heavy, doors)| {
            format!(
                "{} must not depend on {heavy}: its door is {}",
                package.name,
                doors.join(" and ")
            )
        })
        .collect()
}

fn unused_dependencies(package: &Package) -> Vec<String> {
    let Some(folder) = package.manifest_path.parent() else {
        return Vec::new();
    };
    let sources = super::files::rust_text(folder);
    package
        .dependencies
        .iter()
        .map(|dependency| dependency.rename.as_ref().unwrap_or(&dependency.name).replace('-', "_"))
        .filter(|name| !sources.contains(name.as_str()))
        .map(|name| format!("{} does not use its dependency {name}", package.name))
        .collect()
}

impl Package {
    fn normal_dependencies(&self) -> impl Iterator<Item = &str> {
        self.dependencies
            .iter()
            .filter(|dependency| dependency.kind.is_none())
            .map(|dependency| dependency.name.as_str())
    }
}

fn unknown_licenses(workspace: &Workspace) -> Vec<String> {
    workspace
        .packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(allowed_license))
        .map(|package| {
            format!(
                "the license of {} is not on the list: {:?}",
                package.name, package.license
            )
        })
        .collect()
}

/// `A OR B`, `A/B`, `(A OR B) AND C`: every part of an AND must have an alternative on the list.
fn allowed_license(expression: &str) -> bool {
    expression.replace(['(', ')'], "").split(" AND ").all(|part| {
        part.split(" OR ")
            .flat_map(|alternative| alternative.split('/'))
            .any(|name| LICENSES.contains(&name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            id: name.to_owned(),
            license: Some("MIT".to_owned()),
            manifest_path: PathBuf::from("/nowhere/Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|name| Dependency {
                    name: (*name).to_owned(),
                    rename: None,
                    kind: None,
                })
                .collect(),
        }
    }

    #[test]
    fn an_arrow_from_central_to_the_agent_is_noticed() {
        assert_eq!(
            wrong_arrows(&package("tillwatch-central", &["tillwatch-feed"])),
            Vec::<String>::new()
        );
        assert_eq!(
            wrong_arrows(&package("tillwatch-central", &["tillwatch-agent"])).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_place_is_noticed() {
        assert_eq!(wrong_arrows(&package("tillwatch-utils", &[])).len(), 1);
    }

    #[test]
    fn wasmtime_outside_the_sandbox_is_noticed() {
        assert_eq!(
            wrong_doors(&package("tillwatch-sandbox", &["wasmtime"])),
            Vec::<String>::new()
        );
        assert_eq!(wrong_doors(&package("tillwatch-agent", &["wasmtime"])).len(), 1);
    }

    #[test]
    fn a_dependency_that_no_source_names_is_noticed() {
        assert_eq!(unused_dependencies(&package("tillwatch-core", &["libm"])).len(), 1);
    }

    #[test]
    fn licenses_pass_by_one_alternative_of_each_part() {
        assert!(allowed_license("MIT OR GPL-3.0"));
        assert!(allowed_license("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!allowed_license("GPL-3.0"));
        assert!(!allowed_license("MIT AND GPL-3.0"));
    }
}
