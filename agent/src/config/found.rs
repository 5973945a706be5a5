//! Where a plugin is: a folder with its `plugin.toml`, or a signed bundle.
//!
//! In: what `use` says, the plugin folder, whom the operator trusts. Out: manifest and component of the plugin, or the
//! problem with its place. With `[trust]` bundles come first, and of folders only what came with the agent's own
//! package; without it there are only folders.

use std::path::{Path, PathBuf};

use toml::Spanned;
use tracing::warn;

use super::written::{Problem, Problems, Reporter, Section, closest, parse};
use super::{PLUGIN_DIR, STATE_DIR};
use crate::bundle::commands::today;
use crate::bundle::ledger::Ledger;
use crate::bundle::trust::{Trust, TrustError, TrustFiles, Verified};
use crate::plugin::manifest::Manifest;

/// Bundles of one plugin that may lie in the plugin folder.
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
    /// What the settings say of sources is left out.
    pub(super) is_replay: bool,
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
            is_replay: false,
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

    /// For files that are named elsewhere; the plugin's folder may be where its settings lie.
    pub(super) fn for_replay(self) -> Self {
        Self {
            is_beside: true,
            is_replay: true,
            ..self
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
        let is_own = self.is_beside && self.base_is(name);
        let path = if is_own {
            self.base.to_owned()
        } else if name.contains('/') {
            self.base.join(name)
        } else {
            self.plugin_dir.join(name)
        };
        if path.extension().is_some_and(|extension| extension == "wasm") && path.is_file() {
            let found = self.newest(&[path], None);
            return found.map_err(|error| report(section, used, &error)).ok();
        }
        let bundles = if is_own {
            Vec::new()
        } else {
            bundles(self.plugin_dir, name)
        };
        let is_folder = path.join("plugin.toml").is_file();
        if is_folder && !bundles.is_empty() {
            let taken = if self.files.is_some() {
                "the bundle"
            } else {
                "the folder"
            };
            warn!(plugin = %name, taken, "a plugin is installed twice, as a folder and as a bundle");
        }
        if is_folder && (bundles.is_empty() || self.files.is_none()) {
            return self.folder(section, used, &path, elsewhere);
        }
        if bundles.is_empty() {
            let folder = path.parent().unwrap_or(self.plugin_dir).display();
            let hint = if self.is_beside && !self.is_replay && !name.contains('/') {
                let beside = self.base.join("plugin.toml");
                format!(
                    "{} is not of {name}: put the settings file into the plugin's folder, or write use = \"./FOLDER\"",
                    beside.display()
                )
            } else {
                not_found_hint(name, self.plugin_dir)
            };
            section.report(used.span(), format!("plugin {name:?} is not in {folder}"), hint);
            return None;
        }
        if bundles.len() > BUNDLES_MAX {
            let what = format!("plugin {name:?} has more than {BUNDLES_MAX} bundles in the plugin folder");
            section.report(used.span(), what, "remove the old ones");
            return None;
        }
        let found = self.newest(&bundles, Some(name));
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
        if self.files.is_some() && !is_below(folder, Path::new(PLUGIN_DIR)) {
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

    /// Of several bundles of a plugin the one with the highest sequence that is trusted; `wanted` is the plugin's name,
    /// where the file was found by it.
    fn newest(&mut self, bundles: &[PathBuf], wanted: Option<&str>) -> Result<Found, String> {
        let (trust, ledger) = self.trust()?;
        let verify = |path: &PathBuf| {
            let verified = trust.verify(path, wanted, ledger, today())?;
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
        for error in bad.into_iter().filter_map(Result::err) {
            warn!(%error, taken = %wasm.display(), "a bundle is refused, and another one of its plugin is taken");
        }
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

/// `[trust]` and the state folder alone, whatever the rest of agent.toml holds.
///
/// # Errors
/// What is wrong with them.
pub fn trusted(config: &Path) -> Result<(Option<TrustFiles>, PathBuf), Problems> {
    let text = std::fs::read_to_string(config).map_err(|error| {
        let (path, what) = (config.to_owned(), format!("cannot be read: {error}"));
        let (line, column, hint) = (0, 0, None);
        Problems(vec![Problem {
            path,
            line,
            column,
            what,
            hint,
        }])
    })?;
    let absolute = std::path::absolute(config).unwrap_or_else(|_no_current_folder| config.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/"));
    let reporter = Reporter::new(config, &text);
    let root = parse(&text, &reporter);
    let section = Section::root(&root, &reporter);
    let found = (
        super::trust(&section, base),
        super::folder(&section, "state_dir", base).unwrap_or_else(|| STATE_DIR.into()),
    );
    drop(section);
    let problems = reporter.into_problems();
    if problems.0.is_empty() {
        Ok(found)
    } else {
        Err(problems)
    }
}

fn report(section: &Section<'_>, used: &Spanned<String>, error: &str) {
    let (what, hint) = error.split_once("hint: ").unwrap_or((error, "install it again"));
    let what = format!("plugin {:?} is not trusted: {}", used.get_ref(), what.trim_end());
    section.report(used.span(), what, hint.to_owned());
}

/// The bundles of one plugin, by name.
fn bundles(plugin_dir: &Path, name: &str) -> Vec<PathBuf> {
    let all = installed_bundles(plugin_dir).into_iter();
    all.filter(|(plugin, _path)| plugin == name)
        .map(|(_plugin, path)| path)
        .collect()
}

/// The plugins that `NAME-VERSION.wasm` files of `plugin_dir` say to be, with their files; nothing is verified.
#[must_use]
pub fn installed_bundles(plugin_dir: &Path) -> Vec<(String, PathBuf)> {
    let mut bundles: Vec<(String, PathBuf)> = files(plugin_dir)
        .filter_map(|(file, path)| Some((plugin_of(&file)?.to_owned(), path)))
        .collect();
    bundles.sort();
    bundles
}

/// `sales` of `sales-0.1.0.wasm`.
fn plugin_of(file: &str) -> Option<&str> {
    let stem = file.strip_suffix(".wasm")?;
    let mut dashes = stem.match_indices('-').map(|(at, _dash)| at);
    dashes.find(|at| is_version(&stem[at + 1..])).map(|at| &stem[..at])
}

/// `1`, `0.1.0`, `0.1.0-rc.1`; not what follows the shorter name in `sales-2x-0.1.0` or `sales-2-0.1.0`.
fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let count = numbers.split('.').count();
    numbers.split('.').all(is_number) && (numbers.len() == text.len() || count == 3)
}

/// Where it really lies: a path may lead out again.
fn is_below(path: &Path, folder: &Path) -> bool {
    let real = std::fs::canonicalize(path).ok().zip(std::fs::canonicalize(folder).ok());
    real.is_some_and(|(path, folder)| path.starts_with(folder))
}

fn not_found_hint(name: &str, plugin_dir: &Path) -> String {
    let mut installed = installed(plugin_dir);
    installed.extend(installed_bundles(plugin_dir).into_iter().map(|(plugin, _path)| plugin));
    installed.sort();
    installed.dedup();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_found_by_the_whole_name_of_its_plugin() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "a-0.1.0",
            "a-2",
            "a-0.1.0-rc.1",
            "a-2x-0.1.0",
            "a-2-0.1.0",
            "a-b-0.1.0",
            "a-",
        ] {
            std::fs::write(folder.path().join(format!("{file}.wasm")), "").unwrap();
        }
        let names = |plugin: &str| -> Vec<String> {
            let found = bundles(folder.path(), plugin).into_iter();
            found
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names("a"), ["a-0.1.0-rc.1", "a-0.1.0", "a-2"]);
        assert_eq!(names("a-2"), ["a-2-0.1.0"]);
        assert_eq!(names("a-2x"), ["a-2x-0.1.0"]);
    }

    #[test]
    fn a_path_that_leads_out_of_a_folder_is_not_below_it() {
        let place = tempfile::tempdir().unwrap();
        let (plugins, other) = (place.path().join("plugins"), place.path().join("other"));
        for folder in [&plugins, &plugins.join("sales"), &other] {
            std::fs::create_dir(folder).unwrap();
        }
        assert!(is_below(&plugins.join("sales"), &plugins));
        assert!(!is_below(&plugins.join("../other"), &plugins));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&other, plugins.join("link")).unwrap();
            assert!(!is_below(&plugins.join("link"), &plugins));
        }
    }
}
