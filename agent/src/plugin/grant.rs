//! The plugin asks AND the operator grants: `[plugin.sources.*]` and `[plugin.settings]` against `plugin.toml`.
//!
//! In: a section of agent.toml and the plugin's manifest. Out: grants and settings, or the problems with their places.
//! It opens nothing: a granted file may not be there yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tillwatch_border::Limits;
use tillwatch_border::wire::TO_SANDBOX_BYTES_MAX;
use toml::Spanned;

use super::manifest::{AskedSource, Manifest, Setting, SourceKind, to_json};
use super::peer_grant;
use crate::config::units::{duration_ms, size_bytes};
use crate::config::written::{Problem, Section, type_name, unknown_hint};
use crate::source::documents::{DOCUMENT_BYTES_MAX, SETTLE_MS};
use crate::source::logs::FILES_MAX;
use crate::source::peer::PeerGrant;
use crate::source::tail::LINE_BYTES_MAX;

/// The largest line or document that an operator may allow.
pub(crate) const READ_BYTES_CEILING: u64 = 16 << 20;
/// The most logs that one source may name: their offsets are in every checkpoint.
const FILES_CEILING: usize = 256;
const _: () = assert!(
    READ_BYTES_CEILING < TO_SANDBOX_BYTES_MAX as u64,
    "it is sent in one message"
);

/// A source that the plugin asked for and the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Lines {
        file: PathBuf,
        line_bytes_max: usize,
    },
    /// Of all files whose names match.
    Logs {
        folder: PathBuf,
        pattern: String,
        line_bytes_max: usize,
        files_max: usize,
    },
    Documents {
        folder: PathBuf,
        pattern: String,
        settle_ms: u64,
        document_bytes_max: u64,
    },
    Folder {
        folder: PathBuf,
        pattern: String,
    },
    Peer(Box<PeerGrant>),
}

/// Reads `[plugin.sources.*]`; a required source that is not granted is a problem.
#[must_use]
pub fn sources(plugin: &Section<'_>, manifest: &Manifest, base: &Path) -> BTreeMap<String, Grant> {
    let mut grants = BTreeMap::new();
    let sources = plugin.table("sources");
    for name in sources.iter().flat_map(Section::names) {
        let Some(asked) = manifest.source(name.get_ref()) else {
            report_not_asked(plugin, &name, manifest);
            continue;
        };
        let section = sources.as_ref().and_then(|sources| sources.table(name.get_ref()));
        if let Some(grant) = section.and_then(|section| grant(section, asked, base)) {
            grants.insert(name.into_inner(), grant);
        }
    }
    report_slow_peers(plugin, &grants);
    let is_named = |asked: &AskedSource| {
        sources
            .iter()
            .flat_map(Section::names)
            .any(|name| name.get_ref() == &asked.name)
    };
    for asked in manifest
        .sources
        .iter()
        .filter(|asked| asked.required && !is_named(asked))
    {
        let what = denial(&manifest.name, asked.kind, &asked.name, None);
        plugin.report(
            plugin.span(),
            what,
            format!("add [plugin.sources.{}] with {}", asked.name, example(asked.kind)),
        );
    }
    grants
}

/// A peer that hangs must leave time for the others of the same call: nobody can say then whether they are up.
fn report_slow_peers(plugin: &Section<'_>, grants: &BTreeMap<String, Grant>) {
    let timeouts = grants.values().filter_map(|grant| match grant {
        Grant::Peer(grant) => Some(grant.timeout()),
        _ => None,
    });
    let (together_ms, most_ms) = (timeouts.sum::<Duration>().as_millis(), Limits::default().peer_ms_max);
    if together_ms > u128::from(most_ms) {
        plugin.report(
            plugin.span(),
            format!("the timeouts of its peers add up to {together_ms} ms, and one call waits {most_ms} ms"),
            "write shorter ones under [plugin.sources.*]",
        );
    }
}

/// What a plugin asks for and what it is granted instead: the same words before a start and while it runs.
#[must_use]
pub fn denial(plugin: &str, kind: SourceKind, name: &str, granted: Option<SourceKind>) -> String {
    let granted = granted.map_or("none", SourceKind::name);
    let asked = kind.name();
    format!("plugin `{plugin}` asks for {asked} `{name}`, agent.toml grants {granted}")
}

fn report_not_asked(plugin: &Section<'_>, name: &Spanned<String>, manifest: &Manifest) {
    let known = manifest.sources.iter().map(|source| source.name.as_str());
    let what = format!(
        "agent.toml grants `{}`, plugin `{}` does not ask for it",
        name.get_ref(),
        manifest.name
    );
    plugin.report(name.span(), what, unknown_hint(name.get_ref(), known));
}

fn grant(section: Section<'_>, asked: &AskedSource, base: &Path) -> Option<Grant> {
    let grant = match asked.kind {
        SourceKind::Lines => lines(&section, base),
        SourceKind::Documents => {
            let pattern = pattern(&section);
            let settle_ms = section
                .read("settle", duration_ms)
                .map_or(SETTLE_MS, Spanned::into_inner);
            let document_bytes_max = size(&section, "document_max", DOCUMENT_BYTES_MAX);
            path(&section, "folder", base, asked.kind).map(|folder| Grant::Documents {
                folder,
                pattern,
                settle_ms,
                document_bytes_max,
            })
        }
        SourceKind::Folder => {
            let pattern = pattern(&section);
            path(&section, "folder", base, asked.kind).map(|folder| Grant::Folder { folder, pattern })
        }
        SourceKind::Http => peer_grant::http(&section, base).map(|grant| Grant::Peer(Box::new(PeerGrant::Http(grant)))),
        SourceKind::Tcp => peer_grant::tcp(&section, base).map(|grant| Grant::Peer(Box::new(PeerGrant::Tcp(grant)))),
        SourceKind::Sql => peer_grant::sql(&section, base).map(|grant| Grant::Peer(Box::new(PeerGrant::Sql(grant)))),
    };
    section.finish();
    grant
}

/// Of one file, or of all that a pattern names.
fn lines(section: &Section<'_>, base: &Path) -> Option<Grant> {
    let line_bytes_max = size(section, "line_max", LINE_BYTES_MAX as u64);
    let line_bytes_max = usize::try_from(line_bytes_max).unwrap_or(LINE_BYTES_MAX);
    let written = section.string("file").map(|file| file.span());
    let file = path(section, "file", base, SourceKind::Lines)?;
    let is_pattern = |path: &Path| path.to_string_lossy().contains(['*', '?']);
    let (folder, name) = (file.parent()?, Path::new(file.file_name()?));
    if is_pattern(folder) {
        section.report(
            written.unwrap_or_else(|| section.span()),
            "`file` has a pattern for a folder",
            "write * and ? in the name of the file only",
        );
        return None;
    }
    if !is_pattern(name) {
        return Some(Grant::Lines { file, line_bytes_max });
    }
    let files_max = section.integer("files_max").map_or(FILES_MAX, |files| {
        let count = usize::try_from(*files.get_ref()).unwrap_or(0);
        if !(1..=FILES_CEILING).contains(&count) {
            let hint = format!("write 1 to {FILES_CEILING}");
            section.report(files.span(), "`files_max` is out of range", hint);
        }
        count
    });
    Some(Grant::Logs {
        folder: folder.to_owned(),
        pattern: name.to_string_lossy().into_owned(),
        line_bytes_max,
        files_max,
    })
}

fn path(section: &Section<'_>, key: &str, base: &Path, kind: SourceKind) -> Option<PathBuf> {
    match section.string(key) {
        Some(path) if path.get_ref().is_empty() => {
            section.report(
                path.span(),
                format!("`{key}` is empty"),
                format!("write {}", example(kind)),
            );
            None
        }
        Some(path) => Some(base.join(path.get_ref())),
        None => {
            if section.value(key).is_none() {
                section.report_missing(
                    key,
                    example(kind).split_once("= ").map_or("\"...\"", |(_key, value)| value),
                );
            }
            None
        }
    }
}

fn pattern(section: &Section<'_>) -> String {
    section
        .string("pattern")
        .map_or_else(|| "*".to_owned(), Spanned::into_inner)
}

fn size(section: &Section<'_>, key: &str, default: u64) -> u64 {
    let Some(size) = section.read(key, size_bytes) else {
        return default;
    };
    if (1..=READ_BYTES_CEILING).contains(size.get_ref()) {
        return size.into_inner();
    }
    section.report(
        size.span(),
        format!("`{key}` is out of range"),
        "write at least 1B and at most 16MiB",
    );
    default
}

fn example(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Lines => "file = \"/var/log/nginx/access.log\"",
        SourceKind::Documents | SourceKind::Folder => "folder = \"/var/pos/out\"",
        SourceKind::Http => "url = \"https://pos.store.example/health\"",
        SourceKind::Tcp => "peer = \"printer.store.example:9100\"",
        SourceKind::Sql => "database = \"sqlite:/var/pos/pos.db\", query and columns",
    }
}

/// Reads `[plugin.settings]` and fills in the defaults of `plugin.toml`; the JSON object that `configure` gets, and where
/// the settings stand that were given.
#[must_use]
pub fn settings(plugin: &Section<'_>, manifest: &Manifest) -> (Value, BTreeMap<String, Problem>) {
    let given = plugin.table("settings");
    let mut places = BTreeMap::new();
    let mut settings = serde_json::Map::new();
    for setting in &manifest.settings {
        if let Some(value) = setting_value(plugin, given.as_ref(), setting, &manifest.name) {
            settings.insert(setting.name.clone(), value);
        }
        if let Some((given, value)) = given
            .as_ref()
            .and_then(|given| Some((given, given.value(&setting.name)?)))
        {
            let place = given.place_of(&value.span(), format!("`{}`", setting.name));
            places.insert(setting.name.clone(), place);
        }
    }
    if let Some(given) = given {
        given.finish();
    }
    (Value::Object(settings), places)
}

fn setting_value(
    plugin: &Section<'_>,
    given: Option<&Section<'_>>,
    setting: &Setting,
    manifest: &str,
) -> Option<Value> {
    let Some((section, value)) = given.and_then(|given| Some((given, given.value(&setting.name)?))) else {
        if setting.required && setting.default.is_none() {
            let what = format!("plugin `{manifest}` needs setting `{}`", setting.name);
            plugin.report(
                plugin.span(),
                what,
                format!("add it under [plugin.settings]: {}", setting.help),
            );
        }
        return setting.default.clone();
    };
    if setting.kind.fits(value.get_ref()) {
        return Some(to_json(value.get_ref()));
    }
    let what = format!(
        "`{}` must be {}, not {}",
        setting.name,
        setting.kind.name(),
        type_name(value.get_ref())
    );
    section.report(value.span(), what, setting.help.clone());
    setting.default.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::written::{Reporter, parse};
    use crate::plugin::manifest::tests::GOOD;

    fn check(text: &str) -> (BTreeMap<String, Grant>, Value, Vec<String>) {
        let manifest = Manifest::parse(Path::new("plugin.toml"), GOOD).unwrap();
        let reporter = Reporter::new(Path::new("agent.toml"), text);
        let root = parse(text, &reporter);
        let section = Section::root(&root, &reporter);
        let grants = sources(&section, &manifest, Path::new("/base"));
        let (settings, _places) = settings(&section, &manifest);
        drop(section);
        (
            grants,
            settings,
            reporter.into_problems().0.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn what_is_asked_and_granted_is_granted_with_defaults_filled_in() {
        let (grants, settings, problems) = check("[sources.events]\nfile = \"x.log\"\n[settings]\nlimit = 3\n");
        assert_eq!(problems, Vec::<String>::new());
        let expected = Grant::Lines {
            file: PathBuf::from("/base/x.log"),
            line_bytes_max: LINE_BYTES_MAX,
        };
        assert_eq!(grants, BTreeMap::from([("events".to_owned(), expected)]));
        assert_eq!(settings, serde_json::json!({"format": "json", "limit": 3}));
    }

    #[test]
    fn a_pattern_in_the_name_of_a_file_grants_all_that_match() {
        let (grants, _settings, problems) =
            check("[sources.events]\nfile = \"/logs/*.access.log\"\nline_max = \"1KiB\"\nfiles_max = 7\n");
        assert_eq!(problems, Vec::<String>::new());
        let expected = Grant::Logs {
            folder: PathBuf::from("/logs"),
            pattern: "*.access.log".to_owned(),
            line_bytes_max: 1_024,
            files_max: 7,
        };
        assert_eq!(grants, BTreeMap::from([("events".to_owned(), expected)]));
        for (text, problem) in [
            (
                "file = \"/l*gs/x.log\"\n",
                "agent.toml:2:8: `file` has a pattern for a folder\n  hint: write * and ? in the name of the file only",
            ),
            (
                "file = \"/logs/*\"\nfiles_max = 257\n",
                "agent.toml:3:13: `files_max` is out of range\n  hint: write 1 to 256",
            ),
            (
                "file = \"/logs/x\"\nfiles_max = 2\n",
                "agent.toml:3:1: unknown key `files_max`\n  hint: did you mean `line_max`?",
            ),
        ] {
            let (_grants, _settings, problems) = check(&format!("[sources.events]\n{text}"));
            assert_eq!(problems.first().map(String::as_str), Some(problem));
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused_with_a_suggestion() {
        let (grants, _settings, problems) = check("[sources.event]\nfile = \"x\"\n");
        assert!(grants.is_empty());
        assert_eq!(
            problems,
            [
                "agent.toml:1:1: plugin `queue-depth` asks for lines of a file `events`, agent.toml grants none\n  hint: add [plugin.sources.events] with file = \"/var/log/nginx/access.log\"",
                "agent.toml:1:10: agent.toml grants `event`, plugin `queue-depth` does not ask for it\n  hint: did you mean `events`?",
            ]
        );
    }

    #[test]
    fn a_wrong_setting_names_its_type_and_an_unknown_one_its_neighbor() {
        let (_grants, _settings, problems) =
            check("[sources.events]\nfile = \"x\"\n[settings]\nlimit = \"3\"\nformatt = 1\n");
        assert_eq!(
            problems,
            [
                "agent.toml:4:9: `limit` must be a whole number, not a string\n  hint: A limit.",
                "agent.toml:5:1: unknown key `formatt`\n  hint: did you mean `format`?",
            ]
        );
    }

    /// A hanging endpoint took all the time of each call, and nothing was said of the other.
    #[test]
    fn peers_that_cannot_all_be_waited_for_in_one_call_are_a_problem() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/probe");
        let manifest = Manifest::load(&manifest).unwrap();
        let problems = |timeout: &str| {
            let text = format!(
                "[sources.endpoint]\nurl = \"https://a.example/\"\ntimeout = \"5s\"\n\
                 [sources.peer]\npeer = \"a.example:1\"\ntimeout = {timeout:?}\n"
            );
            let reporter = Reporter::new(Path::new("agent.toml"), &text);
            let root = parse(&text, &reporter);
            let section = Section::root(&root, &reporter);
            assert!(sources(&section, &manifest, Path::new("/base")).len() == 2);
            drop(section);
            reporter.into_problems().to_string()
        };
        assert_eq!(problems("5s"), "0 problems");
        let told = problems("5001ms");
        assert!(
            told.contains("add up to 10001 ms, and one call waits 10000 ms"),
            "{told}"
        );
    }

    #[test]
    fn a_source_of_another_kind_is_missing_its_key() {
        let (grants, _settings, problems) = check("[sources.events]\nfolder = \"x\"\n");
        assert!(grants.is_empty());
        assert!(
            problems.iter().any(|problem| problem.contains("`file` is missing")),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|problem| problem.contains("unknown key `folder`")),
            "{problems:?}"
        );
    }
}
