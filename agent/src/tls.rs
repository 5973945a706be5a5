//! TLS towards the broker: the operator's authority, our certificate and key, nothing else trusted.
//!
//! In: three PEM files. Out: a client configuration for TLS 1.2 and 1.3, or an error that names the file. Each file can be
//! read by itself, so that all that is wrong is told at once.
//! The content of a key file never leaves this module and is in no message.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read\nhint: the file must exist and be readable by the user that runs the agent", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no certificate\nhint: PEM with BEGIN CERTIFICATE lines is expected", file.display())]
    NoCertificate { file: PathBuf },
    #[error("{} holds no private key\nhint: unencrypted PEM with a BEGIN PRIVATE KEY line is expected", file.display())]
    NoKey { file: PathBuf },
    /// The source is left out: it may quote the content.
    #[error("{} is not valid PEM\nhint: copy the file again, it may be cut short", file.display())]
    NotPem { file: PathBuf },
    #[error("{} holds a certificate that cannot be an authority\nhint: it must be the certificate that signed the broker's", file.display())]
    BadAuthority {
        file: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{} and {} do not belong together\nhint: the key must be the one that the certificate was made for", certificate.display(), key.display())]
    Mismatch {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// The client's side of TLS with a certificate of its own.
///
/// # Errors
/// See `TlsError`: each names the file and what to do.
pub fn client_config(ca: &Path, certificate: &Path, key: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let (roots, chain, private) = (authorities(ca)?, certificates(certificate)?, private_key(key)?);
    of_read(roots, chain, private).map_err(|source| TlsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// The client's side of TLS of what the three files hold.
///
/// # Errors
/// When certificate and key do not belong together.
pub(crate) fn of_read(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private)?;
    Ok(Arc::new(config))
}

/// Whom to trust, and nobody else.
pub(crate) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|source| TlsError::BadAuthority {
            file: file.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found.map_err(|error| pem_error(file, error)) {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { file: file.to_owned() }),
        other => other,
    }
}

pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::NoKey { file: file.to_owned() },
        other => pem_error(file, other),
    })
}

fn pem_error(file: &Path, error: PemError) -> TlsError {
    match error {
        PemError::Io(source) => TlsError::Unreadable {
            file: file.to_owned(),
            source,
        },
        _ => TlsError::NotPem { file: file.to_owned() },
    }
}
