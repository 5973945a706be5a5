//! `central.toml`: everything an operator decides, checked as a whole.
//!
//! In: the text of the file. Out: [`Config`], or every fault at once with file, line, column and what to do.
//! Certificates and the model are opened for `serve` and `check` alone, and what is wrong in them is told with the rest.
//!
//! ```toml
//! archive = "main"
//!
//! [broker]
//! url = "mqtts://broker.example.com:8883"     # mqtt:// only to this machine
//! ca = "/etc/tillwatch-central/ca.pem"
//! certificate = "/etc/tillwatch-central/central.pem"
//! key = "/etc/tillwatch-central/central.key"
//!
//! [embedded_broker]                           # used by `serve --embedded-broker`, instead of [broker]
//! listen = "0.0.0.0:8883"
//! client_ca = "/etc/tillwatch-central/ca.pem"
//! certificate = "/etc/tillwatch-central/broker.pem"
//! key = "/etc/tillwatch-central/broker.key"
//! archives = ["warehouse"]                    # certificates that may read every store and acknowledge
//!
//! [storage]
//! path = "/var/lib/tillwatch-central/archive.sqlite"
//! payloads = "8d"
//! rollups = "400d"
//!
//! [model]
//! path = "/etc/tillwatch-central/model.toml"
//!
//! [http]
//! listen = "127.0.0.1:8480"
//! names = ["tillwatch.example.com"]           # under which people reach it, when not by address
//! ```

use crate::archive::Retention;
use crate::document::{Document, Fault, Faults, Table, hint};
use crate::model::Model;
use crate::tls::{self, TlsError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tillwatch_feed::topic::ArchiveId;

/// Payloads younger than this must stay, since a start reads them again.
const PAYLOADS_MS_MIN: u64 = 2 * 24 * 60 * 60 * 1_000;
const PAYLOADS_DEFAULT: &str = "8d";
const ROLLUPS_DEFAULT: &str = "400d";
const HTTP_DEFAULT: &str = "127.0.0.1:8480";
/// More than that in a second is no limit.
const RECONNECTS_MAX: usize = 1_000_000;
const CONNECTIONS_MAX_DEFAULT: usize = 10_000;

/// All settings of central.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub archive: ArchiveId,
    /// The broker to connect to; `None` when only the embedded one is configured.
    pub broker: Option<BrokerConfig>,
    pub embedded_broker: Option<EmbeddedBrokerConfig>,
    pub storage: StorageConfig,
    pub model_path: PathBuf,
    pub http_listen: SocketAddr,
    /// Host names under which page and API are reached, besides addresses and `localhost`.
    pub http_names: Vec<String>,
    /// Connections that the broker can take in a second; none leaves the stores to their own settings.
    pub reconnects_per_second: Option<u32>,
}

/// Where the feed comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    pub host: String,
    pub port: u16,
    /// Equal to the certificate's CN where the broker asks for that; the archive id when not set.
    pub client_id: String,
    /// `None` on loopback without TLS.
    pub tls: Option<TlsFiles>,
}

/// Paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signed the other side's certificate.
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The broker inside central.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedBrokerConfig {
    /// For stores, with TLS and client certificates.
    pub listen: Option<(SocketAddr, TlsFiles)>,
    /// Without TLS, only on loopback; the client id is believed.
    pub listen_plain: Option<SocketAddr>,
    /// CNs of other archives: these read every store and write acknowledgements under their own name.
    pub archives: Vec<ArchiveId>,
    pub connections_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    pub path: PathBuf,
    pub payloads_ms: u64,
    pub rollups_ms: u64,
}

impl StorageConfig {
    pub fn retention(&self) -> Retention {
        Retention {
            payloads_ms: self.payloads_ms,
            rollups_ms: self.rollups_ms,
        }
    }
}

impl Config {
    /// Reads and checks the file, and what it names: certificates and the service model.
    ///
    /// # Errors
    /// All faults of all files at once.
    pub fn load(path: &Path) -> Result<(Self, Model), Faults> {
        let text = read_text(path)?;
        let file = path.display().to_string();
        let document = Document::new(&file, &text);
        let root = Self::root(&document);
        let config = Self::read(&root, check_tls);
        let model = read_model(&root);
        let mut faults = document.faults();
        match (config, model) {
            (Some(config), Some(Ok(model))) if faults.0.is_empty() => return Ok((config, model)),
            (_, Some(Err(Faults(mut in_model)))) => faults.0.append(&mut in_model),
            _ => {}
        }
        Err(faults)
    }

    /// Reads and checks the file, without opening what it names.
    ///
    /// # Errors
    /// All its faults at once.
    pub fn load_alone(path: &Path) -> Result<Self, Faults> {
        Self::parse(&path.display().to_string(), &read_text(path)?)
    }

    /// Reads and checks the whole text; `file` is only named in messages.
    ///
    /// # Errors
    /// All faults at once.
    pub fn parse(file: &str, text: &str) -> Result<Self, Faults> {
        let document = Document::new(file, text);
        let config = Self::read(&Self::root(&document), |_section, _ca, _files| {});
        let faults = document.faults();
        match config {
            Some(config) if faults.0.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    fn root<'a>(document: &'a Document<'a>) -> Table<'a> {
        let keys = [
            "archive",
            "reconnects_per_second",
            "broker",
            "embedded_broker",
            "storage",
            "model",
            "http",
        ];
        document.root("the settings", &keys)
    }

    fn read(root: &Table<'_>, look: Look) -> Option<Self> {
        // All parts are read before any is missed, so that every fault is found.
        let archive = root.parsed("archive", "\"main\"", |text| text.parse().map_err(|e| format!("{e}")));
        let reconnects_per_second = root
            .number("reconnects_per_second", 1, RECONNECTS_MAX)
            .and_then(|number| u32::try_from(number).ok());
        let broker = root.table("broker", &["url", "ca", "certificate", "key", "client_id"]);
        let broker = broker.map(|section| read_broker(&section, archive.as_ref(), look));
        let keys = [
            "listen",
            "client_ca",
            "certificate",
            "key",
            "listen_plain",
            "archives",
            "connections_max",
        ];
        let embedded_broker = root
            .table("embedded_broker", &keys)
            .map(|section| read_embedded(&section, look));
        if broker.is_none() && embedded_broker.is_none() {
            root.fault(
                "broker",
                "neither [broker] nor [embedded_broker] is set",
                hint("add [broker] with url = \"mqtts://...\""),
            );
        }
        let storage = root.table("storage", &["path", "payloads", "rollups"]);
        let storage = root
            .required(storage, "storage", "[storage] with path = \"...\"")
            .and_then(|s| read_storage(&s));
        let model = root.table("model", &["path"]);
        let model_path = root
            .required(model, "model", "[model] with path = \"...\"")
            .and_then(|s| s.path("path"));
        let http = root.table("http", &["listen", "names"]);
        let http_listen = http.as_ref().and_then(|section| section.optional("listen", address));
        let http_names = http.map(|section| section.texts("names", host_name));
        Some(Self {
            archive: archive?,
            broker: transpose(broker)?,
            embedded_broker: transpose(embedded_broker)?,
            storage: storage?,
            model_path: model_path?,
            http_listen: http_listen.or_else(|| HTTP_DEFAULT.parse().ok())?,
            http_names: http_names.unwrap_or_default(),
            reconnects_per_second,
        })
    }
}

/// An absent part is fine, a faulty one is not.
fn transpose<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(None) => None,
        Some(Some(part)) => Some(Some(part)),
    }
}

fn read_broker(section: &Table<'_>, archive: Option<&ArchiveId>, look: Look) -> Option<BrokerConfig> {
    let url = section.parsed("url", "\"mqtts://broker.example.com:8883\"", Url::parse);
    let client_id = section.optional("client_id", |text| Ok(text.to_owned()));
    let is_plain = url.as_ref().is_some_and(|url| !url.is_tls);
    let tls = (!is_plain).then(|| read_tls(section, "ca", look));
    let url = url?;
    Some(BrokerConfig {
        host: url.host,
        port: url.port,
        client_id: client_id.or_else(|| archive.map(ToString::to_string))?,
        tls: transpose(tls)?,
    })
}

fn read_embedded(section: &Table<'_>, look: Look) -> Option<EmbeddedBrokerConfig> {
    let listen = section.optional("listen", address);
    let tls = listen.is_some().then(|| read_tls(section, "client_ca", look));
    let listen_plain = section.optional("listen_plain", |text| match address(text)? {
        open if !open.ip().is_loopback() => Err(format!("{open} can be reached from outside and has no TLS")),
        loopback => Ok(loopback),
    });
    if !section.has("listen") && !section.has("listen_plain") {
        section.fault(
            "listen",
            "[embedded_broker] listens nowhere",
            hint("add: listen = \"0.0.0.0:8883\""),
        );
    }
    let archives = section.texts("archives", |text| text.parse().map_err(|e| format!("{e}")));
    let connections_max = section
        .number("connections_max", 1, 1_000_000)
        .unwrap_or(CONNECTIONS_MAX_DEFAULT);
    let listen = match (listen, transpose(tls)?) {
        (Some(listen), Some(tls)) => Some((listen, tls)),
        _ => None,
    };
    Some(EmbeddedBrokerConfig {
        listen,
        listen_plain,
        archives,
        connections_max,
    })
}

fn read_tls(section: &Table<'_>, ca_key: &str, look: Look) -> Option<TlsFiles> {
    let files = [ca_key, "certificate", "key"].map(|key| section.path(key));
    look(section, ca_key, &files);
    let [ca, certificate, key] = files;
    Some(TlsFiles {
        ca: ca?,
        certificate: certificate?,
        key: key?,
    })
}

/// What is done with the three files of a section, as far as they are named.
type Look = fn(&Table<'_>, &str, &[Option<PathBuf>; 3]);

/// Faults each file that does not hold what it should, or the key when only both together are wrong.
fn check_tls(section: &Table<'_>, ca_key: &str, files: &[Option<PathBuf>; 3]) {
    let readable = "put the PEM file there, readable by the user that runs central, or correct the path";
    let check = |key: &str, checked: Result<(), TlsError>, advice: &str| {
        let fault = |error| section.fault(key, format!("{:#}", anyhow::Error::from(error)), hint(advice));
        checked.map_err(fault).ok()
    };
    let [ca, certificate, key] = files;
    let is_ca_good = ca
        .as_ref()
        .map(|ca| check(ca_key, tls::authorities(ca).map(drop), readable));
    let chain = certificate.as_ref();
    let is_chain_good = chain.map(|chain| check("certificate", tls::certificates(chain).map(drop), readable));
    let is_key_good = key
        .as_ref()
        .map(|key| check("key", tls::private_key(key).map(drop), readable));
    let are_good = [is_ca_good, is_chain_good, is_key_good] == [Some(Some(())); 3];
    let (true, Some(ca), Some(certificate), Some(key)) = (are_good, ca.clone(), certificate.clone(), key.clone())
    else {
        return;
    };
    let files = TlsFiles { ca, certificate, key };
    let together = match ca_key {
        "ca" => tls::client(&files).map(drop),
        _ => tls::server(&files).map(drop),
    };
    check(
        "key",
        together,
        "the key must be the one that the certificate was made for",
    );
}

fn read_text(path: &Path) -> Result<String, Faults> {
    std::fs::read_to_string(path).map_err(|error| {
        Faults(vec![Fault {
            file: path.display().to_string(),
            line: 1,
            column: 1,
            what: format!("cannot be read: {error}"),
            hint: hint("write one as packaging/samples/central.toml shows, or name it with --config FILE"),
        }])
    })
}

/// The model that `[model]` names; none when the file cannot be read, which is a fault of its key.
fn read_model(root: &Table<'_>) -> Option<Result<Model, Faults>> {
    let section = root.part("model")?;
    let path = section.named("path")?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(Model::parse(&path, &text)),
        Err(error) => {
            let advice = "put the service model there, readable by the user that runs central, or correct the path";
            section.fault("path", format!("{path} cannot be read: {error}"), hint(advice));
            None
        }
    }
}

fn read_storage(section: &Table<'_>) -> Option<StorageConfig> {
    let payloads = |text: &str| match duration_ms(text)? {
        short if short < PAYLOADS_MS_MIN => {
            Err("payloads must be kept for at least 2d, since a start reads them".into())
        }
        enough => Ok(enough),
    };
    let path = section.path("path");
    let payloads_ms = section
        .optional("payloads", payloads)
        .or_else(|| duration_ms(PAYLOADS_DEFAULT).ok());
    let rollups_ms = section
        .optional("rollups", duration_ms)
        .or_else(|| duration_ms(ROLLUPS_DEFAULT).ok());
    Some(StorageConfig {
        path: path?,
        payloads_ms: payloads_ms?,
        rollups_ms: rollups_ms?,
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is no address with port ({error}), such as \"127.0.0.1:8480\""))
}

fn host_name(text: &str) -> Result<String, String> {
    let is_good = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let wrong = || format!("{text:?} is no host name such as \"tillwatch.example.com\", without port and path");
    is_good.then(|| text.to_owned()).ok_or_else(wrong)
}

/// `90s`, `15m`, `26h`, `8d`.
fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no duration such as \"90s\", \"15m\", \"26h\" or \"8d\"");
    let unit = text.strip_suffix(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let factor = match &text[unit.len()..] {
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        _ => return Err(wrong()),
    };
    let number: Option<u64> = unit.parse().ok();
    number.and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

struct Url {
    is_tls: bool,
    host: String,
    port: u16,
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let (is_tls, rest) = match (text.strip_prefix("mqtts://"), text.strip_prefix("mqtt://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => {
                return Err(format!(
                    "{text:?} does not start with mqtts:// (or mqtt:// on this machine)"
                ));
            }
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = port.map_or(Ok(if is_tls { 8883 } else { 1883 }), str::parse);
        let port = port.map_err(|error| format!("{text:?} has no valid port: {error}"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(format!("{text:?} names no host"));
        }
        if !is_tls && !is_loopback {
            return Err(format!(
                "{text:?} would send the feed unencrypted over the network; use mqtts://"
            ));
        }
        Ok(Self { is_tls, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
archive = "main"
[broker]
url = "mqtts://broker.example.com:8884"
ca = "ca.pem"
certificate = "central.pem"
key = "central.key"
[embedded_broker]
listen = "0.0.0.0:8883"
client_ca = "ca.pem"
certificate = "broker.pem"
key = "broker.key"
archives = ["warehouse"]
[storage]
path = "archive.sqlite"
payloads = "3d"
[model]
path = "model.toml"
"#;

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse("central.toml", GOOD).unwrap();
        let broker = config.broker.unwrap();
        assert_eq!(
            (broker.host.as_str(), broker.port, broker.client_id.as_str()),
            ("broker.example.com", 8884, "main")
        );
        assert_eq!(broker.tls.unwrap().key, PathBuf::from("central.key"));
        assert_eq!(config.embedded_broker.unwrap().archives.len(), 1);
        assert_eq!(config.storage.payloads_ms, 3 * 24 * 3_600_000);
        assert_eq!(config.http_listen.port(), 8480);
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_place() {
        let text =
            "archive = \"Main!\"\nbrokr = 1\n[broker]\nurl = \"http://x\"\nca = 5\n[storage]\npayloads = \"1h\"\n";
        let errors = Config::parse("central.toml", text).unwrap_err();
        let told: Vec<_> = errors.0.iter().map(|e| (e.line, e.column)).collect();
        assert_eq!(
            told,
            [(1, 1), (1, 11), (2, 1), (3, 1), (3, 1), (4, 7), (5, 6), (6, 1), (7, 12)],
            "{errors}"
        );
        let text = errors.to_string();
        assert!(text.contains("central.toml:4:7: "), "{text}");
        assert!(text.contains("hint: "), "{text}");
    }

    /// A wrong key in the settings hid one in the model, and certificates had neither line nor hint.
    #[test]
    fn faults_of_the_settings_of_certificates_and_of_the_model_are_told_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        for (name, text) in [
            ("ca.pem", "no PEM"),
            ("central.pem", &certificate),
            ("central.key", &key.serialize_pem()),
            ("broker-ca.pem", &certificate),
            ("broker.pem", &certificate),
            ("broker.key", &rcgen::KeyPair::generate().unwrap().serialize_pem()),
            ("model.toml", "[[regoin]]\nid = \"north\"\n"),
        ] {
            std::fs::write(file(name), text).unwrap();
        }
        let text = GOOD.replace("client_ca = \"ca.pem\"", "client_ca = \"broker-ca.pem\"") + "[htp]\n";
        let mut text = text.replace("[storage]", "[storage]\nrolups = \"9d\"");
        for name in [
            "ca.pem",
            "central.pem",
            "central.key",
            "broker-ca.pem",
            "broker.pem",
            "broker.key",
            "model.toml",
        ] {
            text = text.replace(&format!("\"{name}\""), &format!("{:?}", file(name)));
        }
        std::fs::write(file("central.toml"), text).unwrap();
        let told = Config::load(&file("central.toml")).unwrap_err().to_string();
        for part in [
            "central.toml:5:6: ",
            "central.toml:12:7: ",
            "central.toml:15:1: unknown key \"rolups\"",
            "central.toml:20:2: unknown key \"htp\"",
            "model.toml:1:3: unknown key \"regoin\"",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(told.matches("hint: ").count(), 5, "{told}");
        std::fs::remove_file(file("model.toml")).unwrap();
        let told = Config::load(&file("central.toml")).unwrap_err().to_string();
        assert!(
            told.contains("central.toml:19:8: ") && told.contains("model.toml cannot be read"),
            "{told}"
        );
    }

    #[test]
    fn the_feed_never_goes_unencrypted_over_the_network() {
        for (url, is_good) in [
            ("mqtt://127.0.0.1:1883", true),
            ("mqtt://[::1]:1883", true),
            ("mqtt://localhost", true),
            ("mqtt://10.0.0.1:1883", false),
            ("mqtts://10.0.0.1", true),
            ("mqtts://", false),
            ("mqtts://h:99999", false),
        ] {
            assert_eq!(Url::parse(url).is_ok(), is_good, "{url}");
        }
        let text = GOOD.replace("0.0.0.0:8883\"", "0.0.0.0:8883\"\nlisten_plain = \"0.0.0.0:1883\"");
        assert!(
            Config::parse("central.toml", &text)
                .unwrap_err()
                .to_string()
                .contains("no TLS")
        );
    }

    #[test]
    fn the_pages_names_are_hosts_without_port_and_path() {
        let named = |names: &str| Config::parse("central.toml", &format!("{GOOD}[http]\nnames = [{names}]\n"));
        assert_eq!(named("\"till.example.com\"").unwrap().http_names, ["till.example.com"]);
        for wrong in ["\"till.example.com:8480\"", "\"http://till.example.com\"", "\"\""] {
            assert!(
                named(wrong).unwrap_err().to_string().contains("no host name"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn broken_toml_is_told_with_its_place() {
        let errors = Config::parse("central.toml", "archive = \n").unwrap_err();
        assert_eq!(errors.0[0].line, 1, "{errors}");
    }
}
