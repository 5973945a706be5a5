//! A bundle: one file that carries a plugin to a store, with a signature beside it.
//!
//! It is the plugin's component with two custom sections at its end, so that every WebAssembly tool still reads it:
//!
//! ```text
//! ┌───────────┬─────────────────────────┬────────────────────┐
//! │ component │ tillwatch:plugin.toml   │ tillwatch:bundle   │   NAME-VERSION.wasm
//! └───────────┴─────────────────────────┴────────────────────┘
//!      │        the manifest as written   sequence, expiry, oldest agent,
//!      └───────────────────────────────── sha256 of the component
//! ```
//!
//! The signature is that of the program `minisign` over the whole file, in `NAME-VERSION.wasm.minisig`: a component and
//! a manifest of different bundles never come together. Who may sign is decided in [`trust`], what was seen before in
//! [`ledger`]; this module only reads and writes the file.

pub mod commands;
pub mod ledger;
pub mod sections;
pub mod trust;

use std::path::Path;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use tillwatch_border::artifact::{WASM_BYTES_MAX, sha256};

use crate::config::written::Problems;
use crate::plugin::manifest::Manifest;
use sections::{append, customs};

/// Of `plugin.toml` in a bundle.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;
/// Of the section that tells about the bundle.
const ABOUT_BYTES_MAX: usize = 4 << 10;
/// The format of that section.
const FORMAT: u32 = 1;
const MANIFEST_SECTION: &str = "tillwatch:plugin.toml";
const ABOUT_SECTION: &str = "tillwatch:bundle";

/// A bundle that was read; whether to trust it is another question.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub manifest: Manifest,
    pub about: About,
    /// The component without the bundle's sections.
    pub component_bytes: usize,
}

/// What a bundle says of itself beside its `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub format: u32,
    /// Grows with each bundle of a plugin: an agent takes no lower one than it has taken before.
    pub sequence: u64,
    /// The last day, in UTC, on which an agent takes this bundle for the first time.
    pub expires: Date,
    /// The oldest agent that it was made for.
    pub agent_min: String,
    /// Of the component without the bundle's sections, in hexadecimal digits.
    pub component_sha256: String,
}

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BundleError {
    #[error("it is no WebAssembly component\nhint: build it with `tillwatch plugin build`")]
    NoComponent,
    #[error("it is cut off or damaged\nhint: copy it again")]
    CutOff,
    #[error("it is larger than {WASM_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it is a component, but no bundle\nhint: make one with `tillwatch plugin pack`")]
    NoBundle,
    #[error("it is a bundle already\nhint: pack the component that `tillwatch plugin build` wrote")]
    PackedTwice,
    #[error("its section {0} is larger than allowed")]
    SectionTooLarge(&'static str),
    #[error("its sections are not the last two: something was added after packing")]
    Misplaced,
    #[error("its section {ABOUT_SECTION} cannot be read: {0}")]
    About(String),
    #[error("it was packed by a newer tillwatch (format {0})\nhint: update this one")]
    Newer(u32),
    #[error("its component is not the one that was packed")]
    Swapped,
    #[error("its plugin.toml is wrong:\n{0}")]
    Manifest(String),
}

/// Makes a bundle of a component and the text of its `plugin.toml`.
///
/// # Errors
/// When one of them is not what it should be.
pub fn pack(component: &[u8], manifest: &str, sequence: u64, expires: Date) -> Result<Vec<u8>, BundleError> {
    let is_ours = |custom: &sections::Custom<'_>| [MANIFEST_SECTION, ABOUT_SECTION].contains(&custom.name);
    if customs(component)?.iter().any(is_ours) {
        return Err(BundleError::PackedTwice);
    }
    let about = About {
        format: FORMAT,
        sequence,
        expires,
        agent_min: env!("CARGO_PKG_VERSION").to_owned(),
        component_sha256: sha256(component),
    };
    let about = toml::to_string(&about).map_err(|error| BundleError::About(error.to_string()))?;
    let mut bundle = component.to_vec();
    append(&mut bundle, MANIFEST_SECTION, manifest.as_bytes());
    append(&mut bundle, ABOUT_SECTION, about.as_bytes());
    parse(&bundle)?;
    Ok(bundle)
}

/// Reads a bundle; the door for bytes that came from elsewhere.
///
/// # Errors
/// Why it is none.
pub fn parse(bytes: &[u8]) -> Result<Bundle, BundleError> {
    if bytes.len() as u64 > WASM_BYTES_MAX {
        return Err(BundleError::TooLarge);
    }
    let customs = customs(bytes)?;
    let Some([manifest, about]) = customs.last_chunk::<2>() else {
        return Err(BundleError::NoBundle);
    };
    if (manifest.name, about.name) != (MANIFEST_SECTION, ABOUT_SECTION) {
        return Err(BundleError::NoBundle);
    }
    if manifest.end != about.start || about.end != bytes.len() {
        return Err(BundleError::Misplaced);
    }
    let manifest_text = text(manifest.body, MANIFEST_BYTES_MAX, MANIFEST_SECTION)?;
    let about = read_about(text(about.body, ABOUT_BYTES_MAX, ABOUT_SECTION)?)?;
    let component = &bytes[..manifest.start];
    if sha256(component) != about.component_sha256 {
        return Err(BundleError::Swapped);
    }
    let manifest = Manifest::parse(Path::new("plugin.toml"), manifest_text)
        .map_err(|problems: Problems| BundleError::Manifest(problems.to_string()))?;
    Ok(Bundle {
        manifest,
        about,
        component_bytes: component.len(),
    })
}

fn text<'a>(body: &'a [u8], bytes_max: usize, name: &'static str) -> Result<&'a str, BundleError> {
    if body.len() > bytes_max {
        return Err(BundleError::SectionTooLarge(name));
    }
    std::str::from_utf8(body).map_err(|_not_utf8| BundleError::CutOff)
}

/// The format comes first: a later one may have other keys.
fn read_about(text: &str) -> Result<About, BundleError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let wrong = |error: toml::de::Error| BundleError::About(error.message().to_owned());
    let Format { format } = toml::from_str(text).map_err(wrong)?;
    if format != FORMAT {
        return Err(BundleError::Newer(format));
    }
    toml::from_str(text).map_err(wrong)
}

#[cfg(test)]
pub(crate) mod tests;
