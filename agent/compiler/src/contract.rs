//! The versions of the contract between agents and plugins: which one a component was built for, which this agent has.
//!
//! A component's imports carry the version: `tillwatch:collector/source@0.1.0`. A patch version adds interfaces and
//! functions and changes none, so a component of any patch version links that imports nothing newer. Each released minor
//! version is taken for 24 months, beside newer ones; `docs/SPECIFICATION.md` has the rules.

use anyhow::{Context, Result, bail, ensure};

/// As `sdk/wit/collector.wit` names it.
pub(crate) const PACKAGE: &str = "tillwatch:collector";
/// What this agent has.
pub(crate) const VERSION: &str = RELEASES[RELEASES.len() - 1].version;
const INTERFACES: [&str; 9] = ["types", "log", "clock", "state", "source", "peer", "http", "tcp", "sql"];
/// A contract is supported for so long after its release; `docs/SPECIFICATION.md` promises it.
/// No calendar stops a plugin that runs: what ends then is that a new agent must take it.
const SUPPORT_YEARS: u16 = 2;

/// All released versions that are supported, the oldest first; `sdk/releases` holds each.
const RELEASES: [Release; 1] = [Release {
    version: "0.1.0",
    released: (2026, 11),
}];

struct Release {
    version: &'static str,
    /// Year and month.
    released: (u16, u8),
}

/// The last month in which a version is supported, such as 2028-11; none when this agent does not know it.
pub(crate) fn supported_until(version: &str) -> Option<String> {
    let release = RELEASES.iter().find(|release| release.version == version)?;
    let (year, month) = release.released;
    Some(format!("{}-{month:02}", year + SUPPORT_YEARS))
}

/// The version of the contract that an import names; none when it is nothing of the contract.
pub(crate) fn version_of(import: &str) -> Option<&str> {
    let (_interface, version) = split(import)?;
    Some(version)
}

/// Refuses an import that this agent does not have.
pub(crate) fn check_import(import: &str) -> Result<()> {
    check_import_of(import, &RELEASES)
}

fn check_import_of(import: &str, releases: &[Release]) -> Result<()> {
    let (interface, version) = split(import).with_context(|| {
        format!("it wants {import}, but a plugin gets only {PACKAGE}\nhint: files, network, clock and environment of the standard library are out of reach")
    })?;
    let is_supported = releases.iter().any(|release| minor(release.version) == minor(version));
    ensure!(is_supported, "{}", other(version));
    if INTERFACES.contains(&interface) {
        return Ok(());
    }
    let is_released = releases.iter().any(|release| release.version == version);
    ensure!(is_released, "{}", other(version));
    bail!(
        "it wants {import}, but {PACKAGE} {VERSION} has only {}",
        INTERFACES.join(", ")
    )
}

fn other(version: &str) -> String {
    format!(
        "plugin wants {version}, this agent has {VERSION}\nhint: build it with the SDK of {VERSION}, or update the agent"
    )
}

/// `tillwatch:collector/log@0.1.0` is `log` and `0.1.0`.
fn split(import: &str) -> Option<(&str, &str)> {
    import.strip_prefix(PACKAGE)?.strip_prefix('/')?.split_once('@')
}

/// Major and minor version: patch versions link with each other.
fn minor(version: &str) -> Option<&str> {
    version.rsplit_once('.').map(|(minor, _patch)| minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(import: &str) -> String {
        check_import(import).unwrap_err().to_string()
    }

    #[test]
    fn any_patch_version_of_known_interfaces_passes_and_others_name_both_versions() {
        check_import("tillwatch:collector/source@0.1.0").unwrap();
        check_import("tillwatch:collector/source@0.1.9").unwrap();
        for (import, wanted) in [
            ("tillwatch:collector/source@0.2.0", "0.2.0"),
            ("tillwatch:collector/source@1.1.0", "1.1.0"),
            ("tillwatch:collector/source@0.10.0", "0.10.0"),
            ("tillwatch:collector/ftp@0.1.3", "0.1.3"),
        ] {
            let refused = refusal(import);
            let expected = format!("plugin wants {wanted}, this agent has 0.1.0\nhint");
            assert!(refused.starts_with(&expected), "{refused}");
        }
        assert!(refusal("tillwatch:collector/ftp@0.1.0").contains("has only types, log"));
        assert!(refusal("wasi:cli/environment@0.2.0").starts_with("it wants wasi:cli/environment@0.2.0, but"));
    }

    #[test]
    fn a_version_is_supported_for_two_years() {
        assert_eq!(supported_until("0.1.0").as_deref(), Some("2028-11"));
        assert_eq!(supported_until("0.2.0"), None);
    }

    /// A first 0.2.0 refused all plugins of 0.1.0, which were promised 24 months.
    #[test]
    fn a_new_minor_version_refuses_no_plugin_of_a_supported_older_one() {
        let release = |version| Release {
            version,
            released: (2026, 11),
        };
        let releases = ["0.1.0", "0.1.1", "0.2.0"].map(release);
        let is_taken = |version: &str| check_import_of(&format!("{PACKAGE}/source@{version}"), &releases).is_ok();
        for version in ["0.1.0", "0.1.1", "0.1.9", "0.2.0", "0.2.3"] {
            assert!(is_taken(version), "{version}");
        }
        for version in ["0.3.0", "0.10.0", "1.1.0", "0.1", ""] {
            assert!(!is_taken(version), "{version}");
        }
    }

    /// A release that was kept and is not on the list, or the other way round, would be tried by no test.
    #[test]
    fn the_list_and_the_kept_releases_are_the_same() {
        let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/releases");
        let folders = std::fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path());
        let mut kept: Vec<String> = folders
            .filter(|path| path.is_dir())
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        kept.sort();
        assert_eq!(kept, RELEASES.map(|release| release.version.to_owned()));
    }

    /// The newest release is the contract that this repository holds.
    #[test]
    fn the_newest_version_is_the_contract_s_own() {
        let wit = include_str!("../../../sdk/wit/collector.wit");
        assert!(wit.contains(&format!("package {PACKAGE}@{VERSION};")));
    }
}
