//! Who is on the other end: TLS with certificates on both sides.
//!
//! In: paths of PEM files. Out: settings for rustls, and the name in a verified certificate.
//! It never accepts a certificate that the configured authority did not sign, and never offers less than TLS 1.2.

use crate::config::TlsFiles;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading {what} from {path}")]
    Pem {
        what: &'static str,
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("{path} holds an authority that cannot be used")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("{path} cannot be used to check clients")]
    Verifier {
        path: PathBuf,
        source: rustls::server::VerifierBuilderError,
    },
    #[error("certificate {certificate} and key {key} cannot be used")]
    Identity {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

/// For connecting: trusts `files.ca` alone, shows its own certificate.
///
/// # Errors
/// When a file cannot be read or does not fit the others.
pub fn client(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|source| identity(files, source))?;
    let (chain, key) = chain_and_key(files)?;
    let config = builder
        .with_root_certificates(authorities(&files.ca)?)
        .with_client_auth_cert(chain, key);
    config.map(Arc::new).map_err(|source| identity(files, source))
}

/// For listening: every client must show a certificate that `files.ca` signed.
///
/// # Errors
/// When a file cannot be read or does not fit the others.
pub fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(&files.ca)?), provider()).build();
    let verifier = verifier.map_err(|source| TlsError::Verifier {
        path: files.ca.clone(),
        source,
    })?;
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|source| identity(files, source))?;
    let (chain, key) = chain_and_key(files)?;
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    config.map(Arc::new).map_err(|source| identity(files, source))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn identity(files: &TlsFiles, source: rustls::Error) -> TlsError {
    TlsError::Identity {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    }
}

fn chain_and_key(files: &TlsFiles) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    Ok((certificates(&files.certificate)?, private_key(&files.key)?))
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
        what: "the key",
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        what: "certificates",
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(found)
}

/// The subject's last common name. The certificate must have been verified before; anything odd gives `None`.
///
/// Source: RFC 5280, section 4.1 (Certificate) and 4.1.2.6 (Subject); X.690 for the encoding.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const VERSION: u8 = 0xa0;
    const OBJECT: u8 = 0x06;
    const STRINGS: [u8; 2] = [0x0c, 0x13]; // UTF8String, PrintableString
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03]; // 2.5.4.3
    let certificate = element(certificate.as_ref(), SEQUENCE)?.0;
    let mut fields = element(certificate, SEQUENCE)?.0;
    if fields.first() == Some(&VERSION) {
        fields = element(fields, VERSION)?.1;
    }
    // Serial number, signature algorithm, issuer, validity; then the subject.
    for _ in 0..4 {
        fields = element(fields, *fields.first()?)?.1;
    }
    let mut names = element(fields, SEQUENCE)?.0;
    let mut found = None;
    while !names.is_empty() {
        let (set, rest) = element(names, SET)?;
        let (attribute, _) = element(set, SEQUENCE)?;
        let (object, value) = element(attribute, OBJECT)?;
        if object == COMMON_NAME {
            let tag = *value.first().filter(|tag| STRINGS.contains(tag))?;
            found = Some(std::str::from_utf8(element(value, tag)?.0).ok()?.to_owned());
        }
        names = rest;
    }
    found
}

/// The content of the first element, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *found != tag {
        return None;
    }
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (
                digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_common_name_is_found_among_others() {
        let names = [
            (DnType::OrganizationName, "A chain"),
            (DnType::CommonName, "store-0412"),
            (DnType::CountryName, "DE"),
        ];
        assert_eq!(common_name(&certificate(&names)).as_deref(), Some("store-0412"));
        assert_eq!(common_name(&certificate(&names[..1])), None);
    }

    #[test]
    fn a_cut_or_changed_certificate_is_no_reason_to_panic() {
        let whole = certificate(&[(DnType::CommonName, "store-0412")]);
        for at in 0..whole.len() {
            common_name(&CertificateDer::from(&whole[..at]));
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.to_vec();
                changed[at] = value;
                common_name(&CertificateDer::from(changed));
            }
        }
    }
}
