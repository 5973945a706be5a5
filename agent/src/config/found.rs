//! Where a plugin is: a folder with its `plugin.toml`, or a signed bundle.
//!
//! In: what `use` says, the plugin folder, whom the operator trusts. Out: manifest and component of the plugin, or the
//! problem with its place. With `[trust]` only bundles run, and what came with the agent's own package.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::PLUGIN_DIR;
use super::written::{Problem, Section, closest};
use crate::bundle::commands::today;
use crate::bundle::ledger::Ledger;
use crate::bundle::trust::{Trust, TrustError, TrustFiles, Verified};
use crate::plugin::manifest::Manifest;

/// Bundles of one plugin that are looked at.
const BUNDLES_MAX: usize = 16;

/// A plugin that is installed.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) wasm: PathBuf,
    pub(super) bundle: Option<InstalledBundle>,
}

/// What a plugin's bundle was when it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledBundle {
    pub sequence: u64,
    /// Of the key list that vouched for it.
    pub keys_sequence: u64,
    /// Of the file: what was verified is what must be compiled.
    pub sha256: String,
    /// It would not be taken for the first time any more.
    pub is_expired: bool,
}

/// Finds plugins; the key list is read once.
pub(super) struct Finder<'a> {
    pub(super) base: &'a Path,
    plugin_dir: &'a Path,
    state_dir: &'a Path,
    files: Option<&'a TrustFiles>,
    trust: Option<(Trust, Ledger)>,
    /// The folder of the settings may itself be the plugin's.
    is_beside: bool,
}

impl<'a> Finder<'a> {
    pub(super) fn new(
        base: &'a Path,
        plugin_dir: &'a Path,
        state_dir: &'a Path,
        files: Option<&'a TrustFiles>,
    ) -> Self {
        Self {
            base,
            plugin_dir,
            state_dir,
            files,
            trust: None,
            is_beside: false,
        }
    }

    /// For an author: the plugin's folder is where its settings lie.
    pub(super) fn beside(base: &'a Path) -> Self {
        let nowhere = Path::new("");
        Self {
            is_beside: true,
            ..Self::new(base, Path::new(PLUGIN_DIR), nowhere, None)
        }
    }

    /// What `use` names: a path names a folder or bundle of its own; a name is looked for where plugins are installed.
    pub(super) fn find(
        &mut self,
        section: &Section<'_>,
        used: &Spanned<String>,
        elsewhere: &mut Vec<Problem>,
    ) -> Option<Found> {
        let name = used.get_ref();
        let path = if self.is_beside && self.base_is(name) {
            self.base.to_owned()
        } else if name.contains('/') {
            self.base.join(name)
        } else {
            self.plugin_dir.join(name)
        };
        if path.join("plugin.toml").is_file() {
            return self.folder(section, used, &path, elsewhere);
        }
        let is_file = path.extension().is_some_and(|extension| extension == "wasm") && path.is_file();
        let bundles = if is_file {
            vec![path.clone()]
        } else {
            bundles(self.plugin_dir, name)
        };
        if bundles.is_empty() {
            let folder = path.parent().unwrap_or(self.plugin_dir).display();
            let hint = not_found_hint(name, self.plugin_dir);
            section.report(used.span(), format!("plugin {name:?} is not in {folder}"), hint);
            return None;
        }
        let found = self.newest(&bundles);
        found.map_err(|error| report(section, used, &error)).ok()
    }

    /// Whether the folder of the settings is that of the plugin; what is wrong with its plugin.toml is told later.
    fn base_is(&self, name: &str) -> bool {
        let is_there = |_problems| self.base.join("plugin.toml").is_file();
        Manifest::load(self.base).map_or_else(is_there, |manifest| manifest.name == name)
    }

    fn folder(
        &self,
        section: &Section<'_>,
        used: &Spanned<String>,
        folder: &Path,
        elsewhere: &mut Vec<Problem>,
    ) -> Option<Found> {
        if self.files.is_some() && !folder.starts_with(PLUGIN_DIR) {
            section.report(
                used.span(),
                format!("{} is not signed", folder.display()),
                "with [trust], install a bundle: `tillwatch plugin pack` and `sign` make one",
            );
            return None;
        }
        let manifest = Manifest::load(folder)
            .map_err(|problems| elsewhere.extend(problems.0))
            .ok()?;
        let wasm = folder.join(format!("{}.wasm", manifest.name));
        if !wasm.is_file() {
            section.report(
                used.span(),
                format!("{} is missing", wasm.display()),
                "build it with `tillwatch plugin build`, or install it again",
            );
            return None;
        }
        Some(Found {
            manifest,
            wasm,
            bundle: None,
        })
    }

    /// Of several bundles of a plugin the one with the highest sequence that is trusted.
    fn newest(&mut self, bundles: &[PathBuf]) -> Result<Found, String> {
        let (trust, ledger) = self.trust()?;
        let verify = |path: &PathBuf| {
            let verified = trust.verify(path, ledger, today())?;
            Ok((path.clone(), verified))
        };
        let results: Vec<Result<(PathBuf, Verified), TrustError>> = bundles.iter().map(verify).collect();
        let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let newest = good
            .into_iter()
            .flatten()
            .max_by_key(|(_path, verified)| verified.bundle.about.sequence);
        let Some((wasm, verified)) = newest else {
            let errors: Vec<String> = bad.into_iter().filter_map(|bad| Some(bad.err()?.to_string())).collect();
            return Err(errors.join("; "));
        };
        let bundle = InstalledBundle {
            sequence: verified.bundle.about.sequence,
            keys_sequence: trust.sequence(),
            sha256: verified.sha256,
            is_expired: verified.is_expired,
        };
        Ok(Found {
            manifest: verified.bundle.manifest,
            wasm,
            bundle: Some(bundle),
        })
    }

    fn trust(&mut self) -> Result<&(Trust, Ledger), String> {
        if self.trust.is_none() {
            let files = self.files.ok_or(
                "it is a bundle, and the settings trust nobody\nhint: add [trust] with root and keys, see docs/SECURITY.md",
            )?;
            let ledger = Ledger::open(self.state_dir).map_err(|error| error.to_string())?;
            let trust = Trust::open(files, &ledger).map_err(|error| error.to_string())?;
            self.trust = Some((trust, ledger));
        }
        self.trust.as_ref().ok_or_else(|| "nobody is trusted".to_owned())
    }
}

fn report(section: &Section<'_>, used: &Spanned<String>, error: &str) {
    let (what, hint) = error.split_once("hint: ").unwrap_or((error, "install it again"));
    let what = format!("plugin {:?} is not trusted: {}", used.get_ref(), what.trim_end());
    section.report(used.span(), what, hint.to_owned());
}

/// `NAME-VERSION.wasm`, by name.
fn bundles(plugin_dir: &Path, name: &str) -> Vec<PathBuf> {
    let is_version = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    let is_bundle = |file: &str| {
        let rest = file.strip_suffix(".wasm").and_then(|file| file.strip_prefix(name));
        rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(is_version)
    };
    let mut bundles: Vec<PathBuf> = files(plugin_dir)
        .filter(|(file, _path)| is_bundle(file))
        .map(|(_file, path)| path)
        .collect();
    bundles.sort();
    bundles.truncate(BUNDLES_MAX);
    bundles
}

fn not_found_hint(name: &str, plugin_dir: &Path) -> String {
    let installed = installed(plugin_dir);
    let installed: Vec<&str> = installed.iter().map(String::as_str).collect();
    match closest(name, &installed) {
        Some(closest) => format!("did you mean {closest:?}?"),
        None if installed.is_empty() => "no plugin is installed there; correct `plugin_dir`".to_owned(),
        None => format!("installed are: {}", installed.join(", ")),
    }
}

/// The folders of `plugin_dir` that hold a plugin, by name.
#[must_use]
pub fn installed(plugin_dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = files(plugin_dir)
        .filter(|(_file, path)| path.join("plugin.toml").is_file())
        .map(|(file, _path)| file)
        .collect();
    names.sort();
    names
}

fn files(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}
