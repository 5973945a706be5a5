//! What is wrong with agent.toml is found all at once, each with its place and what to do.

use super::*;
use crate::plugin::manifest::tests::GOOD as MANIFEST;
use rcgen::{CertificateParams, KeyPair};

/// A folder with one plugin and the files that a good agent.toml names.
struct Host {
    folder: tempfile::TempDir,
}

const GOOD: &str = r#"site = "store-0412"
time_zone = "Europe/Berlin"
state_dir = "state"
plugin_dir = "plugins"

[broker]
url = "mqtts://central.example.com:8883"
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"

[spool]
bytes_max = "32MiB"

[[plugin]]
name = "queue"
use = "queue-depth"
interval = "5s"
[plugin.sources.events]
file = "/var/log/queue.log"
[plugin.settings]
limit = 3
"#;

/// Three files that belong together.
pub(crate) fn write_identity(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
    for (name, text) in [
        ("ca.pem", &certificate),
        ("certificate.pem", &certificate),
        ("key.pem", &key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("plugins/queue-depth");
        std::fs::create_dir_all(&plugin).unwrap();
        std::fs::write(plugin.join("plugin.toml"), MANIFEST).unwrap();
        std::fs::write(plugin.join("queue-depth.wasm"), "").unwrap();
        write_identity(folder.path());
        Self { folder }
    }

    fn load(&self, text: &str) -> Result<Config, Problems> {
        let path = self.folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    /// The problems of the good file with `from` replaced by `to`, without the folder's name.
    fn problems(&self, from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        let problems = self.load(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        problems.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn a_good_file_is_read_with_its_defaults() {
    let host = Host::new();
    let config = host.load(GOOD).unwrap();
    assert_eq!(config.site.to_string(), "store-0412");
    assert_eq!((config.window_ms, config.summary_ms), (10_000, 60_000));
    assert_eq!(
        config.spool,
        SpoolConfig {
            bytes_max: 32 << 20,
            age_max_ms: SPOOL_AGE_MAX_MS
        }
    );
    assert_eq!(config.state_dir, host.folder.path().join("state"));
    assert_eq!(config.broker.archives.len(), 1);
    assert!(config.system.enabled);
    let plugin = &config.plugins[0];
    assert_eq!(
        (
            plugin.name.as_str(),
            plugin.interval_ms,
            plugin.deadline_ms,
            plugin.cpu_share_percent
        ),
        ("queue", 5_000, 250, 5)
    );
    assert_eq!(plugin.settings, serde_json::json!({"format": "json", "limit": 3}));
}

#[test]
fn a_proxy_and_a_limit_of_bytes_are_read_and_what_is_wrong_with_them_is_told() {
    let host = Host::new();
    let key = "key = \"key.pem\"\n";
    let with = |lines: &str| GOOD.replacen(key, &format!("{key}{lines}"), 1);
    assert_eq!(host.load(GOOD).unwrap().broker.proxy, None);
    let login = "proxy_user = \"till\"\nproxy_secret_file = \"secret\"\n";
    let good = format!("proxy = \"socks5://proxy:1081\"\nbytes_per_day = \"2MiB\"\n{login}");
    let broker = host.load(&with(&good)).unwrap().broker;
    let secret_file = host.folder.path().join("secret");
    assert_eq!(broker.bytes_per_day, Some(2 << 20));
    let proxy = broker.proxy.unwrap();
    assert_eq!((proxy.address.host.as_str(), proxy.address.port), ("proxy", 1081));
    let user = "till".to_owned();
    assert_eq!(proxy.login, Some(ProxyLogin { user, secret_file }));
    for (lines, told) in [
        (
            "proxy = \"proxy:3128\"\n".to_owned(),
            "http://proxy.example.com:3128 or socks5://",
        ),
        (
            "proxy = \"http://till:sesame@proxy\"\n".to_owned(),
            "write proxy_user and proxy_secret_file",
        ),
        (login.to_owned(), "need each other and `proxy`"),
        (
            "proxy = \"http://a\"\nproxy_user = \"till\"\n".to_owned(),
            "need each other",
        ),
        (
            format!("proxy = \"http://a\"\n{}", login.replace("till", "t:l")),
            "without a colon",
        ),
        (
            "bytes_per_day = \"10KiB\"\n".to_owned(),
            "`bytes_per_day` is out of range",
        ),
    ] {
        let problems = host.load(&with(&lines)).unwrap_err().to_string();
        assert!(problems.contains(told) && !problems.contains("sesame"), "{problems}");
    }
}

#[test]
fn the_brokers_word_is_enough_only_where_no_archive_is_named() {
    let host = Host::new();
    assert!(!host.load(GOOD).unwrap().broker.is_broker_enough);
    let with = |line: &str| GOOD.replacen("[broker]\n", &format!("[broker]\n{line}\n"), 1);
    let config = host.load(&with("delivery = \"broker\"")).unwrap();
    assert!(config.broker.is_broker_enough);
    assert!(
        !host
            .load(&with("delivery = \"archives\""))
            .unwrap()
            .broker
            .is_broker_enough
    );
    for (line, expected) in [
        ("delivery = \"puback\"", "`delivery` cannot be \"puback\""),
        ("delivery = \"broker\"\narchives = [\"main\"]", "`archives` contradicts"),
    ] {
        let problems = host.load(&with(line)).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let problems = Config::load(Path::new("/nonexistent/agent.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        problems.contains("/nonexistent/agent.toml: cannot be read"),
        "{problems}"
    );
    assert!(problems.contains("tillwatch init"), "{problems}");
}

#[test]
fn every_mistake_has_its_place_and_its_hint() {
    let host = Host::new();
    for (from, to, expected) in [
        (
            "site = \"store-0412\"",
            "site = \"Store 412\"",
            "agent.toml:1:8: `site` cannot be \"Store 412\"\n  hint: use a-z",
        ),
        (
            "site = \"store-0412\"\n",
            "",
            "agent.toml:1:1: `site` is missing\n  hint: add site = \"store-0412\"",
        ),
        (
            "site =",
            "stie = 1\nsite =",
            "agent.toml:1:1: unknown key `stie`\n  hint: known here:",
        ),
        (
            "Europe/Berlin",
            "Europe/Brelin",
            "agent.toml:2:13: `time_zone` is not a time zone of this machine: \"Europe/Brelin\"\n  hint: did you mean \"Europe/Berlin\"?",
        ),
        (
            "mqtts://",
            "mqtt://",
            "agent.toml:7:7: `url` is wrong: \"mqtt://central.example.com:8883\" would send without TLS to another machine\n  hint: use mqtts://",
        ),
        ("[broker]", "[brokr]", "`[broker]` is missing"),
        (
            "[broker]",
            "[brokr]",
            "unknown key `brokr`\n  hint: did you mean `broker`?",
        ),
        (
            "\"key.pem\"",
            "\"nokey.pem\"",
            "agent.toml:10:7: `key`: nokey.pem cannot be read: No such file",
        ),
        (
            "ca = \"ca.pem\"\n",
            "",
            "agent.toml:6:1: `ca` is missing\n  hint: add ca = \"/etc/tillwatch/ca.pem\"",
        ),
        (
            "\"32MiB\"",
            "\"32 mb\"",
            "agent.toml:13:13: `bytes_max` is not a size: \"32 mb\"\n  hint: write a number and B, KiB",
        ),
        (
            "\"5s\"",
            "\"5\"",
            "agent.toml:18:12: `interval` is not a duration: \"5\"\n  hint: write a number and ms",
        ),
        (
            "\"5s\"",
            "\"500ms\"",
            "agent.toml:18:12: plugin `queue-depth` must not be asked so often\n  hint: write at least \"1000ms\"",
        ),
        (
            "interval = \"5s\"",
            "interval = \"5s\"\ncpu_share = \"5\"",
            "agent.toml:19:13: `cpu_share` is not a share: \"5\"\n  hint: write a number and %",
        ),
        (
            "interval = \"5s\"",
            "interval = \"5s\"\ncpu_share = \"101%\"",
            "agent.toml:19:13: `cpu_share` is out of range\n  hint: write 1% to 100%",
        ),
        (
            "use = \"queue-depth\"",
            "use = \"queue-dept\"",
            "agent.toml:17:7: plugin \"queue-dept\" is not in plugins\n  hint: did you mean \"queue-depth\"?",
        ),
        (
            "sources.events",
            "sources.drops",
            "does not ask for it\n  hint: did you mean `drop`?",
        ),
        (
            "sources.events",
            "sources.drops",
            "agent.toml:15:1: plugin `queue-depth` asks for lines of a file `events`, agent.toml grants none",
        ),
        (
            "limit = 3",
            "limit = true",
            "agent.toml:22:9: `limit` must be a whole number, not true or false",
        ),
        (
            "limit = 3",
            "limt = 3",
            "agent.toml:22:1: unknown key `limt`\n  hint: did you mean `limit`?",
        ),
        (
            "[spool]",
            "window = 5\n[spool]",
            "agent.toml:12:1: unknown key `window`",
        ),
        (
            "state_dir",
            "summary = \"15s\"\nstate_dir",
            "agent.toml:3:11: `summary` is not a whole number of windows\n  hint: make it a multiple of 10000ms",
        ),
    ] {
        let found = host.problems(from, to);
        assert!(found.contains(expected), "expected: {expected}\nfound: {found}");
    }
}

#[test]
fn all_mistakes_come_in_one_pass() {
    let host = Host::new();
    let text = GOOD
        .replace("Berlin", "Berln")
        .replace("\"5s\"", "\"5\"")
        .replace("limit = 3", "limt = 3")
        .replace("ca.pem", "x.pem");
    let problems = host.load(&text).unwrap_err();
    let lines: Vec<usize> = problems.0.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 8, 18, 22], "{problems}");
}

#[test]
fn a_wrong_manifest_is_reported_in_its_own_file() {
    let host = Host::new();
    let manifest = host.folder.path().join("plugins/queue-depth/plugin.toml");
    std::fs::write(&manifest, MANIFEST.replace("gauge", "gage")).unwrap();
    let found = host.problems("site", "site");
    assert!(
        found.contains(
            "plugins/queue-depth/plugin.toml:29:8: `kind` cannot be \"gage\"\n  hint: did you mean \"gauge\"?"
        ),
        "{found}"
    );
}

/// A plugin named `system` took the place of the host's own metrics.
#[test]
fn a_plugin_cannot_have_the_name_of_a_source_of_the_agent() {
    let host = Host::new();
    for name in ["system", "agent"] {
        let problems = host.problems("name = \"queue\"", &format!("name = \"{name}\""));
        assert!(problems.contains(&format!("`name` cannot be \"{name}\"")), "{problems}");
    }
}

#[test]
fn two_plugins_cannot_share_a_name() {
    let host = Host::new();
    let plugin = &GOOD[GOOD.find("[[plugin]]").unwrap()..];
    let problems = host.load(&format!("{GOOD}{plugin}")).unwrap_err().to_string();
    assert!(problems.contains("another plugin is named \"queue\""), "{problems}");
}

/// A broken authority hid a broken key, and neither had a line.
#[test]
fn what_is_wrong_in_a_certificate_file_is_told_at_its_key_also_beside_other_mistakes() {
    let host = Host::new();
    std::fs::write(host.folder.path().join("ca.pem"), "no PEM").unwrap();
    let key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(host.folder.path().join("key.pem"), key.split_at(60).0).unwrap();
    let problems = host.problems("interval =", "intervall =");
    for place in [
        "agent.toml:8:6: `ca`: ca.pem holds no certificate\n  hint: PEM",
        "agent.toml:10:7: `key`: key.pem is not valid PEM\n  hint: copy",
        "agent.toml:18:1: unknown key `intervall`",
    ] {
        assert!(problems.contains(place), "{problems}");
    }
    std::fs::write(
        host.folder.path().join("ca.pem"),
        std::fs::read(host.folder.path().join("certificate.pem")).unwrap(),
    )
    .unwrap();
    std::fs::write(host.folder.path().join("key.pem"), key).unwrap();
    let problems = host.load(GOOD).unwrap_err().to_string();
    assert!(
        problems.contains("agent.toml:10:7: `certificate` and `key` do not belong together"),
        "{problems}"
    );
}
