//! `agent.toml`: as written, then as meant.
//!
//! In: the file and the `plugin.toml` of each plugin that it uses. Out: a [`Config`], or everything that is wrong, each
//! with file, line, column and what to do. There is no half of a configuration: one problem, and the agent does not start.
//! Paths that are not absolute begin at the folder of agent.toml.

mod calendar;
pub mod found;
pub mod units;
pub mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::tz::TimeZone;
use tillwatch_border::wire::PLUGINS_MAX;
use tillwatch_core::detect::calendar::Calendar;
use tillwatch_feed::topic::{ArchiveId, Shard, SiteId};
use toml::Spanned;

use crate::bundle::trust::TrustFiles;
use crate::health;
use crate::plugin::grant::{self, Grant};
use crate::plugin::manifest::Manifest;
use crate::source::system::NAME as SYSTEM_NAME;
use crate::tls::{self, Tls, TlsError, TlsFiles};
use crate::uplink::{BrokerAddress, Proxy, ProxyLogin};
use found::{Finder, Found, InstalledBundle};
use units::{broker_address, duration_ms, percent, proxy_address, size_bytes};
use written::{Mistake, Problem, Problems, Reporter, Section, closest};

/// Where packages put things.
pub const STATE_DIR: &str = "/var/lib/tillwatch";
pub const PLUGIN_DIR: &str = "/usr/lib/tillwatch/plugins";
/// Scored at the edge.
pub const WINDOW_MS: u64 = 10_000;
/// Sent to central.
pub const SUMMARY_MS: u64 = 60_000;
pub const SPOOL_BYTES_MAX: u64 = 64 << 20;
pub const SPOOL_AGE_MAX_MS: u64 = 14 * 86_400_000;
/// Of the built-in collector of the host's own metrics.
pub const SYSTEM_INTERVAL_MS: u64 = 10_000;
pub const PLUGIN_INTERVAL_MS: u64 = 10_000;
pub const PLUGIN_MEMORY_BYTES_MAX: u64 = 32 << 20;
pub const PLUGIN_DEADLINE_MS: u64 = 250;
/// Enough for each plugin without a language's runtime inside.
pub const COMPILER_BYTES_MAX: u64 = 256 << 20;
/// Of one processor core, over time.
pub const PLUGIN_CPU_SHARE_PERCENT: u64 = 5;

const WINDOW_RANGE_MS: (u64, u64) = (100, 600_000);
const SUMMARY_RANGE_MS: (u64, u64) = (100, 3_600_000);
const INTERVAL_RANGE_MS: (u64, u64) = (100, 86_400_000);
const MEMORY_RANGE_BYTES: (u64, u64) = (1 << 20, 512 << 20);
const COMPILER_RANGE_BYTES: (u64, u64) = (64 << 20, 4 << 30);
const DEADLINE_RANGE_MS: (u64, u64) = (10, 10_000);
const CPU_SHARE_RANGE_PERCENT: (u64, u64) = (1, 100);
const SPOOL_RANGE_BYTES: (u64, u64) = (1 << 20, 1 << 40);
/// A fleet that comes back all at once would be more than its broker can take.
const RECONNECT_WITHIN_MS: u64 = 60_000;
const RECONNECT_WITHIN_RANGE_MS: (u64, u64) = (100, 3_600_000);
/// Less would be spent on the connection alone.
const BYTES_PER_DAY_RANGE: (u64, u64) = (256 << 10, 1 << 40);
const SPOOL_AGE_RANGE_MS: (u64, u64) = (60_000, 400 * 86_400_000);

/// Everything that the operator decided.
#[derive(Clone, Debug)]
pub struct Config {
    pub site: SiteId,
    pub time_zone: TimeZone,
    /// Opening hours, holidays and promotions.
    pub calendar: Calendar,
    pub state_dir: PathBuf,
    pub plugin_dir: PathBuf,
    /// What the compiler of plugins may use, one plugin after the other.
    pub compiler_bytes_max: u64,
    pub window_ms: u32,
    pub summary_ms: u32,
    pub broker: Broker,
    pub spool: SpoolConfig,
    pub system: SystemConfig,
    pub plugins: Vec<PluginConfig>,
    /// Who may sign bundles; without it none is taken.
    pub trust: Option<TrustFiles>,
}

/// `[broker]`
#[derive(Clone, Debug)]
pub struct Broker {
    pub address: BrokerAddress,
    /// Who opens the way to it.
    pub proxy: Option<Proxy>,
    /// Of the three PEM files; present exactly when the address is `mqtts://`.
    pub tls: Option<Tls>,
    pub shard: Shard,
    /// Whose acknowledgement is required before anything is deleted.
    pub archives: Vec<ArchiveId>,
    /// `delivery = "broker"`: what the broker took is deleted, and no archive is asked.
    pub is_broker_enough: bool,
    /// The first attempt after a lost connection comes at a random time within this.
    pub reconnect_within_ms: u64,
    /// Beyond it the feed gets coarser, and waits.
    pub bytes_per_day: Option<u64>,
}

/// `[spool]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    pub bytes_max: u64,
    pub age_max_ms: u64,
}

/// `[system]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemConfig {
    pub enabled: bool,
    pub interval_ms: u64,
}

/// `[[plugin]]`
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// Of this instance: its source in the checkpoint and in the agent's own metrics.
    pub name: String,
    pub manifest: Manifest,
    pub wasm: PathBuf,
    /// When it came as a bundle.
    pub bundle: Option<InstalledBundle>,
    pub interval_ms: u64,
    pub memory_bytes_max: u64,
    pub deadline_ms: u64,
    pub cpu_share_percent: u32,
    pub grants: BTreeMap<String, Grant>,
    /// A JSON object with all settings, the plugin's defaults filled in.
    pub settings: serde_json::Value,
    /// Where it stands in agent.toml, for problems that only show when it runs.
    pub place: Problem,
    /// Where the settings stand that agent.toml gives it.
    pub setting_places: BTreeMap<String, Problem>,
}

/// agent.toml as far as it can be read. Where something is wrong stands something else, so that the rest can be tried;
/// the agent never runs with it.
pub struct Draft {
    pub config: Config,
    pub problems: Problems,
}

impl Config {
    /// Reads agent.toml, the manifests of its plugins, and its certificates.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let draft = Draft::load(path)?;
        if draft.problems.0.is_empty() {
            Ok(draft.config)
        } else {
            Err(draft.problems)
        }
    }
}

impl Draft {
    /// Reads what [`Config::load`] reads.
    ///
    /// # Errors
    /// When there is no text.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(path, &text)),
            Err(error) => Err(Problems(vec![Problem {
                path: path.to_owned(),
                line: 0,
                column: 0,
                what: format!("cannot be read: {error}"),
                hint: Some("write one with `tillwatch init`, or name it with --config FILE".to_owned()),
            }])),
        }
    }

    /// Reads what stands in the text, and the files that it names.
    #[must_use]
    pub fn parse(path: &Path, text: &str) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_no_current_folder| path.to_owned());
        let base = absolute.parent().unwrap_or(Path::new("/"));
        let reporter = Reporter::new(path, text);
        let mut elsewhere = Vec::new();
        let root = written::parse(text, &reporter);
        let config = read(&Section::root(&root, &reporter), base, &mut elsewhere);
        let mut problems = reporter.into_problems();
        problems.0.append(&mut elsewhere);
        Self { config, problems }
    }
}

/// Reads a file with one `[[plugin]]` block, such as a plugin's `sample.toml`, for its author: `use` may name the plugin
/// whose plugin.toml lies beside the file, and nobody must have signed it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn one_plugin(path: &Path) -> Result<PluginConfig, Problems> {
    let whole = |what: String| {
        let (path, hint) = (path.to_owned(), None);
        let (line, column) = (0, 0);
        Problems(vec![Problem {
            path,
            line,
            column,
            what,
            hint,
        }])
    };
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let reporter = Reporter::new(path, &text);
    let mut elsewhere = Vec::new();
    let tree = written::parse(&text, &reporter);
    let root = Section::root(&tree, &reporter);
    let mut finder = Finder::beside(base);
    let mut plugins = plugins(&root, &mut finder, &mut elsewhere);
    root.report_unknown();
    let mut problems = reporter.into_problems();
    problems.0.append(&mut elsewhere);
    if !problems.0.is_empty() {
        return Err(problems);
    }
    match (plugins.pop(), plugins.is_empty()) {
        (Some(plugin), true) => Ok(plugin),
        _ => Err(whole("must hold one [[plugin]] block".to_owned())),
    }
}

/// A plugin as its settings say, for files that are named elsewhere.
pub struct Replayed {
    pub plugin: PluginConfig,
    pub window_ms: u32,
    pub summary_ms: u32,
    pub time_zone: TimeZone,
    pub calendar: Calendar,
}

/// Reads the plugin `name` of an agent.toml or another file with `[[plugin]]` blocks, or takes a file without any for the
/// plugin's settings; what else is in it, broker and certificates, is not looked at.
///
/// # Errors
/// Everything that is wrong with what is looked at.
pub fn replayed(path: &Path, name: &str, plugin_dir: Option<&Path>) -> Result<Replayed, Problems> {
    let whole = |what: String, hint: Option<String>| {
        let (path, line, column) = (path.to_owned(), 0, 0);
        Problems(vec![Problem {
            path,
            line,
            column,
            what,
            hint,
        }])
    };
    let mut text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}"), None))?;
    let bare = text
        .parse::<toml::Table>()
        .ok()
        .filter(|table| !table.contains_key("plugin"));
    let is_bare = bare.is_some();
    if let Some(settings) = bare {
        text = as_block(name, settings);
    }
    let base = path.parent().unwrap_or(Path::new("."));
    let reporter = Reporter::new(path, &text);
    let mut elsewhere = Vec::new();
    let tree = written::parse(&text, &reporter);
    let root = Section::root(&tree, &reporter);
    let installed = folder(&root, "plugin_dir", base).unwrap_or_else(|| PLUGIN_DIR.into());
    let state_dir = folder(&root, "state_dir", base).unwrap_or_else(|| STATE_DIR.into());
    let (window_ms, summary_ms) = times(&root);
    let time_zone = root.read("time_zone", time_zone).map(Spanned::into_inner);
    let calendar = calendar::calendar(&root);
    let trust = trust(&root, base);
    let plugin_dir = plugin_dir.unwrap_or(&installed);
    let mut finder = Finder::new(base, plugin_dir, &state_dir, trust.as_ref()).for_replay();
    let plugins = plugins(&root, &mut finder, &mut elsewhere);
    let mut problems = reporter.into_problems();
    problems.0.append(&mut elsewhere);
    if is_bare {
        // Nobody wrote the lines around them.
        problems.0.iter_mut().for_each(|problem| problem.line = 0);
    }
    if !problems.0.is_empty() {
        return Err(problems);
    }
    let is_meant = |plugin: &PluginConfig| plugin.name == name || plugin.manifest.name == name;
    let known: Vec<String> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
    let Some(plugin) = plugins.into_iter().find(is_meant) else {
        let hint = format!("known here: {}", known.join(", "));
        return Err(whole(format!("has no plugin {name:?}"), Some(hint)));
    };
    Ok(Replayed {
        plugin: PluginConfig {
            // A loaded machine gives no other output.
            deadline_ms: DEADLINE_RANGE_MS.1,
            ..plugin
        },
        window_ms,
        summary_ms,
        time_zone: time_zone.unwrap_or(TimeZone::UTC),
        calendar,
    })
}

/// The `[calendar]` of an agent.toml, or of a file with nothing else; the rest is not looked at.
///
/// # Errors
/// Everything that is wrong with it, or when there is none.
pub fn calendar_of(path: &Path) -> Result<Calendar, Problems> {
    let text = std::fs::read_to_string(path);
    let reporter = Reporter::new(path, text.as_deref().unwrap_or_default());
    if let Err(error) = &text {
        reporter.report(0..0, format!("cannot be read: {error}"), None);
    }
    let tree = written::parse(text.as_deref().unwrap_or_default(), &reporter);
    let root = Section::root(&tree, &reporter);
    if text.is_ok() && root.value("calendar").is_none() {
        root.report(0..0, "it has no [calendar]", "docs/OPERATIONS.md shows one");
    }
    let calendar = calendar::calendar(&root);
    let problems = reporter.into_problems();
    if problems.0.is_empty() {
        Ok(calendar)
    } else {
        Err(problems)
    }
}

fn as_block(name: &str, settings: toml::Table) -> String {
    let block = toml::Table::from_iter([
        ("use".to_owned(), name.into()),
        ("settings".to_owned(), settings.into()),
    ]);
    let blocks = toml::Value::Array(vec![block.into()]);
    toml::Table::from_iter([("plugin".to_owned(), blocks)]).to_string()
}

/// Reads everything before it gives up, so that all problems are found; `elsewhere` are those of other files.
fn read(root: &Section<'_>, base: &Path, elsewhere: &mut Vec<Problem>) -> Config {
    let site = root.required("site", "\"store-0412\"", name_of::<SiteId>);
    let time_zone = root.required("time_zone", "\"Europe/Berlin\"", time_zone);
    let calendar = calendar::calendar(root);
    let state_dir = folder(root, "state_dir", base);
    // No plugin is tried in a folder that nobody meant.
    let may_try_plugins = state_dir.is_some() || root.value("state_dir").is_none();
    let state_dir = state_dir.unwrap_or_else(|| STATE_DIR.into());
    let plugin_dir = folder(root, "plugin_dir", base).unwrap_or_else(|| PLUGIN_DIR.into());
    let compiler_bytes_max = size(root, "compiler_memory_max", COMPILER_BYTES_MAX, COMPILER_RANGE_BYTES);
    let (window_ms, summary_ms) = times(root);
    let broker = broker(root, base);
    let spool = spool(root);
    let system = system(root);
    let trust = trust(root, base);
    let mut finder = Finder::new(base, &plugin_dir, &state_dir, trust.as_ref());
    let mut plugins = plugins(root, &mut finder, elsewhere);
    plugins.retain(|plugin| may_try_plugins && plugin.has_what_it_needs());
    root.report_unknown();
    Config {
        site: site.unwrap_or_else(stand_in),
        time_zone: time_zone.unwrap_or(TimeZone::UTC),
        calendar,
        state_dir,
        plugin_dir,
        compiler_bytes_max,
        window_ms,
        summary_ms,
        broker: broker.unwrap_or_else(|| Broker {
            address: BrokerAddress {
                host: String::new(),
                port: 0,
                is_secure: false,
            },
            proxy: None,
            tls: None,
            shard: stand_in(),
            archives: Vec::new(),
            is_broker_enough: false,
            reconnect_within_ms: RECONNECT_WITHIN_MS,
            bytes_per_day: None,
        }),
        spool,
        system,
        plugins,
        trust,
    }
}

/// In a draft.
fn stand_in<T: FromStr<Err: Debug>>() -> T {
    "stand-in".parse().expect("a name of the letters that names have")
}

fn name_of<T: std::str::FromStr>(text: &str) -> Result<T, Mistake> {
    let mistake = |_refused| Mistake::new(format!("cannot be {text:?}"), "use a-z, 0-9 and -, 1 to 64 of them");
    text.parse().map_err(mistake)
}

fn time_zone(name: &str) -> Result<TimeZone, Mistake> {
    TimeZone::get(name).map_err(|_unknown| {
        let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = match closest(name, &known) {
            Some(closest) => format!("did you mean \"{closest}\"?"),
            None if known.is_empty() => "this machine has no time zones: install its tzdata package".to_owned(),
            None => "write a name such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them".to_owned(),
        };
        Mistake::new(format!("is not a time zone of this machine: {name:?}"), hint)
    })
}

/// None when it is not set, or is no path.
fn folder(section: &Section<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    section.string(key).map(|folder| base.join(folder.into_inner()))
}

/// Window and summary; the first must divide the second.
fn times(root: &Section<'_>) -> (u32, u32) {
    let window_ms = duration(root, "window", WINDOW_MS, WINDOW_RANGE_MS);
    let summary_ms = duration(root, "summary", SUMMARY_MS, SUMMARY_RANGE_MS);
    if !summary_ms.is_multiple_of(window_ms) {
        let place = root
            .value("summary")
            .or(root.value("window"))
            .map_or(0..0, Spanned::span);
        root.report(
            place,
            "`summary` is not a whole number of windows",
            format!("make it a multiple of {window_ms}ms"),
        );
    }
    (
        u32::try_from(window_ms).unwrap_or(u32::MAX),
        u32::try_from(summary_ms).unwrap_or(u32::MAX),
    )
}

fn duration(section: &Section<'_>, key: &str, default: u64, range: (u64, u64)) -> u64 {
    section.in_range(key, duration_ms, default, range, "ms")
}

fn size(section: &Section<'_>, key: &str, default: u64, range: (u64, u64)) -> u64 {
    section.in_range(key, size_bytes, default, range, "B")
}

fn share(section: &Section<'_>, key: &str, default: u64, range: (u64, u64)) -> u32 {
    let percent = section.in_range(key, percent, default, range, "%");
    u32::try_from(percent).unwrap_or(100)
}

fn broker(root: &Section<'_>, base: &Path) -> Option<Broker> {
    let Some(section) = root.table("broker") else {
        if root.value("broker").is_none() {
            root.report(
                0..0,
                "`[broker]` is missing",
                "add [broker] with url, ca, certificate and key",
            );
        }
        return None;
    };
    let address = section.required("url", "\"mqtts://central.example.com:8883\"", broker_address);
    let needs_tls = address.as_ref().is_none_or(|address| address.is_secure);
    let proxy = proxy(&section, base);
    let tls = tls(&section, base, needs_tls);
    let shard = section
        .read("shard", name_of::<Shard>)
        .map_or_else(|| "a".parse().ok(), |shard| Some(shard.into_inner()));
    let is_broker_enough = section
        .string("delivery")
        .is_some_and(|rule| is_broker(&section, &rule));
    let archives = archives(&section, is_broker_enough);
    let reconnect_within_ms = duration(
        &section,
        "reconnect_within",
        RECONNECT_WITHIN_MS,
        RECONNECT_WITHIN_RANGE_MS,
    );
    let bytes_per_day = section
        .value("bytes_per_day")
        .map(|_written| size(&section, "bytes_per_day", BYTES_PER_DAY_RANGE.1, BYTES_PER_DAY_RANGE));
    section.finish();
    Some(Broker {
        address: address?,
        proxy,
        tls,
        shard: shard?,
        archives: archives?,
        is_broker_enough,
        reconnect_within_ms,
        bytes_per_day,
    })
}

/// A login needs both of its keys, and a proxy.
fn proxy(section: &Section<'_>, base: &Path) -> Option<Proxy> {
    let address = section.read("proxy", proxy_address);
    let user = section.string("proxy_user").map(Spanned::into_inner);
    let secret_file = folder(section, "proxy_secret_file", base);
    let is_set = section.value("proxy").is_some();
    let login = match (user, secret_file) {
        (None, None) => None,
        // A colon would end the name in the header of HTTP.
        (Some(user), Some(secret_file)) if is_set && !user.is_empty() && !user.contains([':', '\r', '\n']) => {
            Some(ProxyLogin { user, secret_file })
        }
        _ => {
            let what = "`proxy_user` and `proxy_secret_file` need each other and `proxy`, and a name without a colon";
            section.report(section.span(), what, "write all three, or neither name nor file");
            None
        }
    };
    let address = address?.into_inner();
    Some(Proxy { address, login })
}

/// Reads all three files before it gives up.
fn tls(section: &Section<'_>, base: &Path, is_needed: bool) -> Option<Tls> {
    let file = |key| folder(section, key, base);
    let files = file("ca").zip(file("certificate")).zip(file("key"));
    let roots = pem_file(section, "ca", base, is_needed, tls::authorities);
    let chain = pem_file(section, "certificate", base, is_needed, tls::certificates);
    let key = pem_file(section, "key", base, is_needed, tls::private_key);
    match tls::of_read(roots?, chain?, key?) {
        Ok(config) => {
            let ((ca, certificate), key) = files?;
            Some(Tls::read_from(config, TlsFiles { ca, certificate, key }))
        }
        Err(error) => {
            section.report_at(
                "key",
                format!("`certificate` and `key` do not belong together: {error}"),
                "the key must be the one that the certificate was made for",
            );
            None
        }
    }
}

/// A file that must be there and hold what it should when it is needed.
fn pem_file<T>(
    section: &Section<'_>,
    key: &str,
    base: &Path,
    is_needed: bool,
    read: impl FnOnce(&Path) -> Result<T, TlsError>,
) -> Option<T> {
    let Some(name) = section.string(key) else {
        if is_needed && section.value(key).is_none() {
            section.report_missing(key, &format!("\"/etc/tillwatch/{key}.pem\""));
        }
        return None;
    };
    if !is_needed {
        return None;
    }
    let report = |error: TlsError| {
        let text = error.to_string();
        let (what, hint) = written::split_hint(&text);
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        section.report(
            name.span(),
            format!("`{key}`: {what}{source}"),
            hint.unwrap_or_default(),
        );
    };
    read(&base.join(name.get_ref())).map_err(report).ok()
}

/// Whose word is enough before a record is deleted.
fn is_broker(section: &Section<'_>, rule: &Spanned<String>) -> bool {
    if !["archives", "broker"].contains(&rule.get_ref().as_str()) {
        section.report(
            rule.span(),
            format!("`delivery` cannot be {:?}", rule.get_ref()),
            "\"archives\" waits for their acknowledgement, \"broker\" for the broker's alone, which can lose data",
        );
    }
    rule.get_ref() == "broker"
}

fn archives(section: &Section<'_>, is_broker_enough: bool) -> Option<Vec<ArchiveId>> {
    if section.value("archives").is_none() {
        return Some(vec!["main".parse().ok()?]);
    }
    let names = section.strings("archives")?;
    if is_broker_enough {
        section.report(
            names.span(),
            "`archives` contradicts `delivery = \"broker\"`",
            "leave it out: nobody but the broker is asked before something is deleted",
        );
    }
    if names.get_ref().is_empty() {
        section.report(
            names.span(),
            "`archives` is empty",
            "name at least one: without an acknowledgement nothing is ever deleted",
        );
    }
    let mut archives = Vec::new();
    for name in names.into_inner() {
        match name_of::<ArchiveId>(name.get_ref()) {
            Ok(archive) => archives.push(archive),
            Err(mistake) => section.report(name.span(), format!("an archive {}", mistake.what), mistake.hint),
        }
    }
    Some(archives)
}

fn spool(root: &Section<'_>) -> SpoolConfig {
    let Some(section) = root.table("spool") else {
        return SpoolConfig {
            bytes_max: SPOOL_BYTES_MAX,
            age_max_ms: SPOOL_AGE_MAX_MS,
        };
    };
    let spool = SpoolConfig {
        bytes_max: size(&section, "bytes_max", SPOOL_BYTES_MAX, SPOOL_RANGE_BYTES),
        age_max_ms: duration(&section, "age_max", SPOOL_AGE_MAX_MS, SPOOL_AGE_RANGE_MS),
    };
    section.finish();
    spool
}

fn system(root: &Section<'_>) -> SystemConfig {
    let Some(section) = root.table("system") else {
        return SystemConfig {
            enabled: true,
            interval_ms: SYSTEM_INTERVAL_MS,
        };
    };
    let system = SystemConfig {
        enabled: section.boolean("enabled").is_none_or(Spanned::into_inner),
        interval_ms: duration(&section, "interval", SYSTEM_INTERVAL_MS, INTERVAL_RANGE_MS),
    };
    section.finish();
    system
}

/// Both files, or no trust.
fn trust(root: &Section<'_>, base: &Path) -> Option<TrustFiles> {
    let section = root.table("trust")?;
    let file = |key: &str, example: &str| {
        if section.value(key).is_none() {
            section.report_missing(key, example);
        }
        section.string(key).map(|path| base.join(path.into_inner()))
    };
    let root_key = file("root", "\"/etc/tillwatch/root.pub\"");
    let keys = file("keys", "\"/etc/tillwatch/keys.toml\"");
    section.finish();
    Some(TrustFiles {
        root: root_key?,
        keys: keys?,
    })
}

fn plugins(root: &Section<'_>, finder: &mut Finder<'_>, elsewhere: &mut Vec<Problem>) -> Vec<PluginConfig> {
    let mut names = BTreeSet::new();
    let mut plugins = Vec::new();
    for section in root.tables("plugin") {
        if let Some(name) = section.string("name")
            && !names.insert(name.get_ref().clone())
        {
            section.report(
                name.span(),
                format!("another plugin is named {:?}", name.get_ref()),
                "give each its own name",
            );
        }
        if names.len() > PLUGINS_MAX {
            section.report(section.span(), format!("more than {PLUGINS_MAX} plugins"), "run fewer");
        }
        plugins.extend(plugin(section, finder, elsewhere));
    }
    plugins
}

fn plugin(section: Section<'_>, finder: &mut Finder<'_>, elsewhere: &mut Vec<Problem>) -> Option<PluginConfig> {
    let used = section.string("use").or_else(|| section.string("name"));
    if used.is_none() && section.value("use").is_none() {
        section.report_missing("use", "\"sales\"");
    }
    let name = section.read("name", instance_name).or_else(|| used.clone());
    let found = used.and_then(|used| finder.find(&section, &used, elsewhere));
    let memory_bytes_max = size(&section, "memory_max", PLUGIN_MEMORY_BYTES_MAX, MEMORY_RANGE_BYTES);
    let deadline_ms = duration(&section, "deadline", PLUGIN_DEADLINE_MS, DEADLINE_RANGE_MS);
    let cpu_share_percent = share(&section, "cpu_share", PLUGIN_CPU_SHARE_PERCENT, CPU_SHARE_RANGE_PERCENT);
    let interval_ms = duration(&section, "interval", PLUGIN_INTERVAL_MS, INTERVAL_RANGE_MS);
    let Some(Found { manifest, wasm, bundle }) = found else {
        // Without its manifest nothing can be said about the rest.
        for key in ["sources", "settings"] {
            section.value(key);
        }
        section.finish();
        return None;
    };
    check_interval(&section, interval_ms, &manifest);
    let grants = if finder.is_replay {
        section.value("sources");
        BTreeMap::new()
    } else {
        grant::sources(&section, &manifest, finder.base)
    };
    let (settings, setting_places) = grant::settings(&section, &manifest);
    let place = section.place(format!("plugin `{}`", manifest.name));
    section.finish();
    Some(PluginConfig {
        name: name?.into_inner(),
        wasm,
        bundle,
        manifest,
        interval_ms,
        memory_bytes_max,
        deadline_ms,
        cpu_share_percent,
        grants,
        settings,
        place,
        setting_places,
    })
}

impl PluginConfig {
    /// Whether both say the same, wherever in agent.toml.
    #[must_use]
    pub fn says_what(&self, other: &Self) -> bool {
        let placed = Self {
            place: other.place.clone(),
            setting_places: other.setting_places.clone(),
            ..self.clone()
        };
        placed == *other
    }

    /// Whether it has every source and setting without which it cannot run; what it lacks was reported.
    fn has_what_it_needs(&self) -> bool {
        let sources = self.manifest.sources.iter().filter(|source| source.required);
        let settings = self.manifest.settings.iter().filter(|setting| setting.required);
        sources
            .map(|source| &source.name)
            .all(|name| self.grants.contains_key(name))
            && settings
                .map(|setting| &setting.name)
                .all(|name| self.settings.get(name).is_some())
    }
}

/// It becomes a label, so it has a label's letters.
fn instance_name(text: &str) -> Result<String, Mistake> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if [SYSTEM_NAME, health::NAME].contains(&text) {
        return Err(Mistake::new(
            format!("cannot be {text:?}: the agent's own source has that name"),
            "give it another one",
        ));
    }
    if (1..=40).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("cannot be {text:?}"),
        "use a-z, 0-9 and -, 1 to 40 of them",
    ))
}

fn check_interval(section: &Section<'_>, interval_ms: u64, manifest: &Manifest) {
    if interval_ms < u64::from(manifest.min_interval_ms) {
        let place = section.value("interval").map_or(section.span(), Spanned::span);
        let what = format!("plugin `{}` must not be asked so often", manifest.name);
        section.report(
            place,
            what,
            format!("write at least \"{}ms\"", manifest.min_interval_ms),
        );
    }
}

#[cfg(test)]
pub(crate) mod tests;
