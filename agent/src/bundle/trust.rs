//! Who may sign: a root key that stays offline signs the list of release keys, and these sign bundles.
//!
//! In: the operator's root key, `keys.toml` and bundles with their signatures, what the [`Ledger`] remembers, today's
//! date. Out: a bundle to run, with the key that vouched for it, or the reason why not.
//! A stolen release key is ended by a new list; a stolen list or bundle of yesterday is ended by its sequence, and one
//! that somebody holds back by its expiry.
//!
//! ```toml
//! # keys.toml, signed by the root key in keys.toml.minisig
//! sequence = 3
//! expires = "2027-06-30"
//! [[key]]
//! name = "acme releases"
//! public = "RWQ…"
//! plugins = ["acme-*"]
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use minisign_verify::{PublicKey, Signature};
use serde::Deserialize;
use tillwatch_border::artifact::{WASM_BYTES_MAX, sha256};

use super::ledger::Ledger;
use super::{Bundle, BundleError, parse};
use crate::source::NamePattern;
use crate::whole::read_bounded;

/// Of `keys.toml`.
const KEYS_BYTES_MAX: u64 = 64 << 10;
/// Of a signature or a public key.
const SIGNATURE_BYTES_MAX: u64 = 4 << 10;
/// Release keys in the list.
const KEYS_MAX: usize = 64;

/// Where the operator put what is trusted: `[trust]` in agent.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFiles {
    /// The root's public key, as `minisign -G` writes it.
    pub root: PathBuf,
    /// The list of release keys; its signature lies beside it.
    pub keys: PathBuf,
}

/// The release keys of this day.
pub struct Trust {
    sequence: u64,
    expires: Date,
    keys: Vec<ReleaseKey>,
}

struct ReleaseKey {
    name: String,
    public: PublicKey,
    plugins: Vec<NamePattern>,
    /// These patterns, as written.
    written: Vec<String>,
}

/// A bundle that may run.
#[derive(Clone, Debug)]
pub struct Verified {
    pub bundle: Bundle,
    /// The name of the release key.
    pub key: String,
    /// Of the whole file: what was verified is what must be compiled.
    pub sha256: String,
    /// It, or the key list, would not be taken for the first time any more.
    pub is_expired: bool,
}

/// Why something is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{} cannot be read: {error}\nhint: {hint}", path.display())]
    Io {
        path: PathBuf,
        error: io::Error,
        hint: &'static str,
    },
    #[error("{} is no public key of minisign\nhint: copy the .pub file that `minisign -G` wrote", path.display())]
    Root { path: PathBuf },
    #[error("{} is no signature of minisign\nhint: sign again with `tillwatch plugin sign` or `minisign -S`", path.display())]
    Signature { path: PathBuf },
    #[error("{} is not signed by the root key\nhint: sign it again with the root key, or correct `root`", path.display())]
    KeysForged { path: PathBuf },
    #[error("{} cannot be used: {error}", path.display())]
    Keys { path: PathBuf, error: String },
    #[error(
        "the key list has sequence {sequence}, and {accepted} was accepted before: it is an old one\nhint: copy the newest keys.toml with its signature"
    )]
    KeysRolledBack { sequence: u64, accepted: u64 },
    #[error("{} is no bundle: {error}", path.display())]
    Bundle { path: PathBuf, error: BundleError },
    #[error("{} is signed by none of the keys in the key list, or was changed after signing", path.display())]
    Forged { path: PathBuf },
    #[error(
        "the key {key:?} may not sign plugin `{plugin}`\nhint: add the name to its `plugins` in keys.toml, and sign the list again"
    )]
    NotItsPlugin { key: String, plugin: String },
    #[error(
        "{} holds plugin `{plugin}`, not `{wanted}`\nhint: call it {plugin}-VERSION.wasm, or install a bundle of `{wanted}`",
        path.display()
    )]
    OtherPlugin {
        path: PathBuf,
        plugin: String,
        wanted: String,
    },
    #[error(
        "plugin `{plugin}` has sequence {sequence}, and {accepted} was accepted before: it is an old bundle\nhint: install the newest one; to go back on purpose, pack the old code with a higher sequence"
    )]
    RolledBack {
        plugin: String,
        sequence: u64,
        accepted: u64,
    },
    #[error(
        "plugin `{plugin}` has sequence {sequence}, under which another file was accepted before\nhint: install that one, or pack this one with a higher sequence"
    )]
    OtherFile { plugin: String, sequence: u64 },
    #[error(
        "plugin `{plugin}` expired on {expires} and was never accepted here\nhint: install a bundle that is still to be taken; `latest` in the state folder's accepted.toml is the latest day that this store's clock said, which is what counts"
    )]
    Expired { plugin: String, expires: Date },
    #[error(
        "the key list expired on {expires}: plugin `{plugin}` is not taken for the first time\nhint: copy the newest keys.toml with its signature"
    )]
    KeysExpired { plugin: String, expires: Date },
    #[error("plugin `{plugin}` needs tillwatch {agent_min} or later\nhint: update the agent first")]
    AgentTooOld { plugin: String, agent_min: String },
}

impl Trust {
    /// Reads the key list, when the root signed it and it is not older than one before.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn open(files: &TrustFiles, ledger: &Ledger) -> Result<Self, TrustError> {
        let root = read_text(&files.root, "copy the root's public key there, or correct `root`")?;
        let root = PublicKey::decode(root.trim()).map_err(|_no_key| TrustError::Root {
            path: files.root.clone(),
        })?;
        let path = &files.keys;
        let bytes = read(path, KEYS_BYTES_MAX, "copy keys.toml there, or correct `keys`")?;
        let signature = signature_of(path)?;
        let forged = |_refused| TrustError::KeysForged { path: path.clone() };
        root.verify(&bytes, &signature, false).map_err(forged)?;
        let trust = Self::read(&bytes).map_err(|error| TrustError::Keys {
            path: path.clone(),
            error,
        })?;
        if trust.sequence < ledger.keys() {
            return Err(TrustError::KeysRolledBack {
                sequence: trust.sequence,
                accepted: ledger.keys(),
            });
        }
        Ok(trust)
    }

    /// Of the key list.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Reads a bundle and everything that speaks for it; `wanted` is the plugin that it must be, where a name asks for it:
    /// a key for other plugins must not speak for this one.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn verify(
        &self,
        path: &Path,
        wanted: Option<&str>,
        ledger: &Ledger,
        today: Date,
    ) -> Result<Verified, TrustError> {
        let bytes = read(path, WASM_BYTES_MAX, "install the bundle again")?;
        let signature = signature_of(path)?;
        let signed = |key: &&ReleaseKey| key.public.verify(&bytes, &signature, false).is_ok();
        let Some(key) = self.keys.iter().find(signed) else {
            return Err(TrustError::Forged { path: path.to_owned() });
        };
        let bundle = parse(&bytes).map_err(|error| TrustError::Bundle {
            path: path.to_owned(),
            error,
        })?;
        let plugin = &bundle.manifest.name;
        if let Some(wanted) = wanted.filter(|wanted| wanted != plugin) {
            return Err(TrustError::OtherPlugin {
                path: path.to_owned(),
                plugin: plugin.clone(),
                wanted: wanted.to_owned(),
            });
        }
        let sha256 = sha256(&bytes);
        let is_expired = self.check(&bundle, &sha256, key, ledger, today)?;
        Ok(Verified {
            bundle,
            key: key.name.clone(),
            sha256,
            is_expired,
        })
    }

    /// Whether a bundle with a good signature may run here; true when it is over its time and known from before.
    fn check(
        &self,
        bundle: &Bundle,
        sha256: &str,
        key: &ReleaseKey,
        ledger: &Ledger,
        today: Date,
    ) -> Result<bool, TrustError> {
        let plugin = bundle.manifest.name.clone();
        let about = &bundle.about;
        if !key.plugins.iter().any(|pattern| pattern.matches(&plugin)) {
            let key = key.name.clone();
            return Err(TrustError::NotItsPlugin { key, plugin });
        }
        if version(&about.agent_min) > version(env!("CARGO_PKG_VERSION")) {
            let agent_min = about.agent_min.clone();
            return Err(TrustError::AgentTooOld { plugin, agent_min });
        }
        let accepted = ledger.plugin(&plugin);
        if let Some(accepted) = accepted.filter(|accepted| about.sequence < *accepted) {
            let sequence = about.sequence;
            return Err(TrustError::RolledBack {
                plugin,
                sequence,
                accepted,
            });
        }
        let is_new = accepted != Some(about.sequence);
        if !is_new && ledger.sha256(&plugin).is_some_and(|accepted| accepted != sha256) {
            let sequence = about.sequence;
            return Err(TrustError::OtherFile { plugin, sequence });
        }
        let today = ledger.no_earlier_than_before(today);
        let (expires, keys_expire) = (about.expires, self.expires);
        if is_new && expires < today {
            return Err(TrustError::Expired { plugin, expires });
        }
        if is_new && keys_expire < today {
            let expires = keys_expire;
            return Err(TrustError::KeysExpired { plugin, expires });
        }
        Ok(expires < today || keys_expire < today)
    }

    /// Bytes that the root signed, or is about to.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            sequence: u64,
            expires: Date,
            #[serde(default, rename = "key")]
            keys: Vec<WrittenKey>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct WrittenKey {
            name: String,
            public: String,
            plugins: Vec<String>,
        }
        let text = std::str::from_utf8(bytes).map_err(|_not_utf8| "it is no text".to_owned())?;
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        if written.keys.len() > KEYS_MAX {
            return Err(format!("it has more than {KEYS_MAX} keys"));
        }
        let mut publics = BTreeSet::new();
        if let Some(key) = written.keys.iter().find(|key| !publics.insert(key.public.trim())) {
            // The first of them would decide, and what the second may sign would never be read.
            return Err(format!("key {:?} has the same `public` as another", key.name));
        }
        let key = |key: WrittenKey| match PublicKey::from_base64(key.public.trim()) {
            Ok(public) => Ok(ReleaseKey {
                name: key.name,
                public,
                plugins: key.plugins.iter().map(|pattern| NamePattern::new(pattern)).collect(),
                written: key.plugins,
            }),
            Err(_no_key) => Err(format!("`public` of key {:?} is no public key of minisign", key.name)),
        };
        Ok(Self {
            sequence: written.sequence,
            expires: written.expires,
            keys: written.keys.into_iter().map(key).collect::<Result<_, _>>()?,
        })
    }
}

/// As `plugin verify` shows it.
impl fmt::Display for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "key list: sequence {}, to be taken until {}",
            self.sequence, self.expires
        )?;
        for key in &self.keys {
            let name = key.name.replace(char::is_control, "\u{fffd}");
            let plugins = key.written.join(", ").replace(char::is_control, "\u{fffd}");
            write!(formatter, "\nkey {name} may sign: {plugins}")?;
        }
        Ok(())
    }
}

/// Where the signature of a file lies.
#[must_use]
pub fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    PathBuf::from(name)
}

fn signature_of(path: &Path) -> Result<Signature, TrustError> {
    let path = signature_path(path);
    let text = read_text(
        &path,
        "copy the signature there, too, or sign with `tillwatch plugin sign`",
    )?;
    Signature::decode(&text).map_err(|_no_signature| TrustError::Signature { path })
}

fn read_text(path: &Path, hint: &'static str) -> Result<String, TrustError> {
    let bytes = read(path, SIGNATURE_BYTES_MAX, hint)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(path: &Path, bytes_max: u64, hint: &'static str) -> Result<Vec<u8>, TrustError> {
    read_bounded(path, bytes_max).map_err(|error| TrustError::Io {
        path: path.to_owned(),
        error,
        hint,
    })
}

/// Numbers between points; what is none counts as 0.
fn version(text: &str) -> [u64; 3] {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or_default());
    std::array::from_fn(|_index| numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests;
