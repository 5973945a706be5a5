//! `tillwatch plugin pack`, `sign` and `verify`: from a built plugin to a file that stores accept.
//!
//! Keys and signatures are those of the program `minisign`, which may be used in place of `sign` and `verify`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use minisign::{ErrorKind, KeyPair, SecretKey, SecretKeyBox};
use minisign_verify::{PublicKey, Signature};
use tillwatch_border::artifact::WASM_BYTES_MAX;

use super::ledger::Ledger;
use super::trust::{Trust, signature_path};
use super::{Bundle, pack, parse};
use crate::config::found::trusted;
use crate::output;
use crate::plugin::manifest::Manifest;
use crate::plugin::open_label;
use crate::plugin::outside::Outside;
use crate::whole::read_bounded;

/// A bundle is taken for the first time within so many days, unless `--expires` says otherwise.
const TAKEN_DAYS: i32 = 365;
/// Of a secret key or a password.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// Arguments of `plugin pack`.
#[derive(Debug, Args)]
pub struct Pack {
    /// The folder with plugin.toml and the built .wasm.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Stores take no lower one afterwards; by default the seconds since 1970.
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// The last day on which a store takes it for the first time; by default in a year.
    #[arg(long, value_name = "DATE")]
    expires: Option<Date>,
    /// Where to write NAME-VERSION.wasm; by default the plugin's folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Arguments of `plugin sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// A bundle, or a list of release keys.
    file: PathBuf,
    /// The secret key, as `minisign -G` writes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Make the key first, with its public half beside it as FILE.pub.
    #[arg(long)]
    generate: bool,
    /// Where the key's password stands; without it the terminal is asked.
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    password_file: Option<PathBuf>,
    /// Leave a generated key without a password, such as for a build machine that guards it otherwise.
    #[arg(long)]
    no_password: bool,
}

/// Arguments of `plugin verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The bundle, or with --key a list of release keys; its signature lies beside it.
    file: PathBuf,
    /// The public key that must have signed it.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "config",
        required_unless_present = "config"
    )]
    key: Option<PathBuf>,
    /// Verify as the agent with these settings does: key list, sequence and expiry too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Writes NAME-VERSION.wasm.
///
/// # Errors
/// When plugin.toml or the component is wrong, or one is not of the other.
pub fn run_pack(arguments: &Pack) -> Result<()> {
    let folder = &arguments.folder;
    let path = folder.join("plugin.toml");
    let manifest = Manifest::load(folder)?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let wasm = folder.join(format!("{}.wasm", manifest.name));
    let component = read_bounded(&wasm, WASM_BYTES_MAX).with_context(|| {
        format!(
            "reading {}\nhint: build it with `tillwatch plugin build`",
            wasm.display()
        )
    })?;
    let open = open_label::faults(&manifest);
    ensure!(
        open.is_empty(),
        "{} cannot be packed: {}\nhint: {}",
        wasm.display(),
        open.join("; "),
        open_label::REMEDY
    );
    let sequence = arguments.sequence.map_or_else(now_s, Ok)?;
    let expires = match arguments.expires {
        Some(expires) => expires,
        None => today().checked_add(TAKEN_DAYS.days())?,
    };
    let bundle = pack(&component, &text, sequence, expires).with_context(|| wasm.display().to_string())?;
    let told = format!("{} cannot be packed", wasm.display());
    Outside::open(folder, None)?.check_description().context(told)?;
    let out = arguments.out.as_deref().unwrap_or(folder);
    let file = out.join(format!("{}-{}.wasm", manifest.name, manifest.version));
    std::fs::write(&file, &bundle).with_context(|| format!("writing {}", file.display()))?;
    let bytes = bundle.len();
    output::line(&format!(
        "packed {}: {bytes} bytes, sequence {sequence}, to be taken until {expires}",
        file.display()
    ))?;
    let signature = signature_path(&file);
    if signature.exists() {
        output::line(&format!("{} is of an earlier bundle: sign again", signature.display()))?;
    }
    Ok(())
}

/// Writes FILE.minisig.
///
/// # Errors
/// When the key cannot be used, or the file is neither a bundle nor a list of release keys.
pub fn run_sign(arguments: &Sign) -> Result<()> {
    let bytes = read_bounded(&arguments.file, WASM_BYTES_MAX)
        .with_context(|| format!("reading {}", arguments.file.display()))?;
    // What no store takes is not worth a signature, nor a key.
    let content = Content::read(&arguments.file, &bytes)?;
    let password = arguments.password_file.as_deref().map(password).transpose()?;
    if arguments.generate {
        generate(&arguments.key, password.clone(), arguments.no_password)?;
    }
    let secret = secret_key(&arguments.key, password)?;
    let comment = content.comment();
    let signature = minisign::sign(None, &secret, bytes.as_slice(), Some(&comment), None)?;
    let path = signature_path(&arguments.file);
    std::fs::write(&path, signature.into_string()).with_context(|| format!("writing {}", path.display()))?;
    output::line(&format!("signed {}", path.display()))?;
    Ok(())
}

/// What may be signed.
enum Content {
    Bundle(Box<Bundle>),
    Keys(Trust),
}

impl Content {
    /// A list of release keys is called something.toml.
    fn read(path: &Path, bytes: &[u8]) -> Result<Self> {
        let is_list = path.extension().is_some_and(|extension| extension == "toml");
        if is_list {
            let keys =
                Trust::read(bytes).map_err(|error| anyhow!("{} is no list of release keys: {error}", path.display()));
            return Ok(Self::Keys(keys?));
        }
        let bundle = parse(bytes).with_context(|| format!("{} is no bundle", path.display()))?;
        Ok(Self::Bundle(Box::new(bundle)))
    }

    /// What `minisign -V` shows after it verified the file.
    fn comment(&self) -> String {
        let at = Timestamp::now().as_second();
        match self {
            Self::Bundle(bundle) => {
                let (name, version) = (&bundle.manifest.name, &bundle.manifest.version);
                let comment = format!(
                    "timestamp:{at}\tplugin:{name}-{version}\tsequence:{}",
                    bundle.about.sequence
                );
                comment.replace(['\r', '\n'], " ")
            }
            Self::Keys(keys) => format!("timestamp:{at}\tkeys\tsequence:{}", keys.sequence()),
        }
    }
}

/// Prints what a bundle or a list of release keys is when its signature is good.
///
/// # Errors
/// Why it is not trusted.
pub fn run_verify(arguments: &Verify) -> Result<()> {
    let file = &arguments.file;
    let (content, signer) = match (&arguments.key, &arguments.config) {
        (Some(key), _) => verify_with_key(file, key)?,
        (None, Some(config)) => verify_as_agent(file, config)?,
        (None, None) => bail!("name a public key with --key, or the agent's settings with --config"),
    };
    output::line(&match content {
        Content::Bundle(bundle) => describe(&bundle, &signer),
        Content::Keys(keys) => format!("signed by {signer}\n{keys}"),
    })?;
    Ok(())
}

fn verify_with_key(file: &Path, key: &Path) -> Result<(Content, String)> {
    let public = PublicKey::from_file(key).with_context(|| format!("{} is no public key", key.display()))?;
    let path = signature_path(file);
    let signature = Signature::from_file(&path).with_context(|| format!("{} is no signature", path.display()))?;
    let bytes = read_bounded(file, WASM_BYTES_MAX).with_context(|| format!("reading {}", file.display()))?;
    let is_good = public.verify(&bytes, &signature, false).is_ok();
    ensure!(
        is_good,
        "{} is not signed by that key, or was changed after signing\nhint: a bundle that is packed again is signed again",
        file.display()
    );
    Ok((Content::read(file, &bytes)?, key.display().to_string()))
}

/// The rest of the settings may be wrong, or of another machine.
fn verify_as_agent(file: &Path, config: &Path) -> Result<(Content, String)> {
    let (files, state_dir) = trusted(config)?;
    let files = files.context("[trust] is missing in the settings\nhint: add root and keys, see docs/SECURITY.md")?;
    let ledger = Ledger::open(&state_dir)?;
    let verified = Trust::open(&files, &ledger)?.verify(file, None, &ledger, today())?;
    Ok((Content::Bundle(Box::new(verified.bundle)), verified.key))
}

fn describe(bundle: &Bundle, signer: &str) -> String {
    let (manifest, about) = (&bundle.manifest, &bundle.about);
    let sources: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
    format!(
        "{} {}: signed by {signer}\nsequence {}, to be taken until {}, for tillwatch {} and later\nasks for: {}\ncomponent: {} bytes, sha256 {}",
        manifest.name,
        manifest.version,
        about.sequence,
        about.expires,
        about.agent_min,
        sources.join(", "),
        bundle.component_bytes,
        about.component_sha256,
    )
}

fn generate(path: &Path, password: Option<String>, without: bool) -> Result<()> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    if let Some(there) = [path, &public].into_iter().find(|path| path.exists()) {
        bail!(
            "{} is there already\nhint: leave --generate out to use that key, or name another",
            there.display()
        );
    }
    let pair = if without {
        KeyPair::generate_unencrypted_keypair()?
    } else {
        KeyPair::generate_encrypted_keypair(password)?
    };
    private_file(path)?.write_all(&pair.sk.to_box(None)?.to_bytes())?;
    std::fs::write(&public, pair.pk.to_box()?.to_bytes()).with_context(|| format!("writing {}", public.display()))?;
    output::line(&format!(
        "made the key {} and its public half {}",
        path.display(),
        public.display()
    ))?;
    Ok(())
}

/// For its owner only.
fn private_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    crate::platform::for_owner_only(&mut options);
    options
        .open(path)
        .with_context(|| format!("writing {}", path.display()))
}

fn secret_key(path: &Path, password: Option<String>) -> Result<SecretKey> {
    let hint = "make one with --generate, or with `minisign -G`";
    let bytes = read_bounded(path, KEY_BYTES_MAX)
        .with_context(|| format!("reading the key {}\nhint: {hint}", path.display()))?;
    let written = SecretKeyBox::from_string(&String::from_utf8_lossy(&bytes))?;
    match written.clone().into_unencrypted_secret_key() {
        Ok(key) => Ok(key),
        // As `minisign -G -W` writes it, without the checksum of its own format.
        Err(error) if matches!(error.kind(), ErrorKind::Verify) => bail!(
            "the key {} has no password and no checksum, or is damaged\nhint: make one with --generate --no-password, or \
             give the key a password",
            path.display()
        ),
        Err(_has_a_password) => written
            .into_secret_key(password)
            .with_context(|| format!("the key {} cannot be used", path.display())),
    }
}

fn password(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, KEY_BYTES_MAX).with_context(|| format!("reading {}", path.display()))?;
    let text = String::from_utf8(bytes).ok().context("the password is no text")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn now_s() -> Result<u64> {
    u64::try_from(Timestamp::now().as_second()).context("this machine's clock is before 1970")
}

/// Of the machine's clock, in UTC: a replayed time says nothing about keys.
#[must_use]
pub fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}
