//! TLS towards the broker: the operator's authority, our certificate and key, nothing else trusted.
//!
//! In: three PEM files. Out: a client configuration for TLS 1.2 and 1.3, or an error that names the file; and another one
//! when the files have changed. Each file can be read by itself, so that all that is wrong is told at once.
//! The content of a key file never leaves this module and is in no message.

mod expiry;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) use expiry::ends_ms;

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

pub(crate) const DAY_MS: i64 = 86_400_000;
/// Long enough to have a certificate made and brought to a store.
pub(crate) const DAYS_LEFT_MIN: i64 = 30;
/// Of each file.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Where the three files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What the files said when they were last good.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// None: it stays as it is.
    files: Option<(TlsFiles, Sum)>,
}

/// Of the content of all files; none when one of them cannot be read.
type Sum = Option<[u8; 32]>;

impl Tls {
    /// One that stays as it is.
    #[must_use]
    pub fn of(config: Arc<ClientConfig>) -> Self {
        Self { config, files: None }
    }

    /// What was just read of the files; what changes in them from now on is seen.
    #[must_use]
    pub fn read_from(config: Arc<ClientConfig>, files: TlsFiles) -> Self {
        let sum = sum_of(&files);
        Self {
            config,
            files: Some((files, sum)),
        }
    }

    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Reads the files again when they hold something else than before; true when what they hold is used from now on.
    ///
    /// # Errors
    /// When what they hold cannot be used: what was good before stays in use.
    pub fn renew(&mut self) -> Result<bool, TlsError> {
        let Some((files, before)) = &mut self.files else {
            return Ok(false);
        };
        let now = sum_of(files);
        if now.is_some() && now == *before {
            return Ok(false);
        }
        let config = client_config(&files.ca, &files.certificate, &files.key)?;
        // Read while they were being written: then the next look finds another sum.
        *before = now;
        self.config = config;
        Ok(true)
    }

    /// The certificate that says who we are.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        let any = [
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ED25519,
        ];
        let ours = self.config.client_auth_cert_resolver.resolve(&[], &any)?;
        ours.cert.first().cloned()
    }

    /// Whole days until that ends; negative when it has.
    #[must_use]
    pub fn days_left(&self, now_ms: u64) -> Option<i64> {
        let end_ms = ends_ms(&self.certificate()?)?;
        Some((end_ms - i64::try_from(now_ms).unwrap_or(i64::MAX)).div_euclid(DAY_MS))
    }
}

fn sum_of(files: &TlsFiles) -> Sum {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for file in [&files.ca, &files.certificate, &files.key] {
        let bytes = crate::whole::read_bounded(file, PEM_BYTES_MAX).ok()?;
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    hash.finish().as_ref().try_into().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    /// 2026-03-02
    const NOW_MS: u64 = 1_772_409_600_000;

    /// A certificate that ends then, with its key, beside an authority that stays.
    fn write(files: &TlsFiles, year: i32, month: u8, day: u8) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["store-1".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.ca, certificate.pem()).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[test]
    fn files_that_changed_are_taken_and_broken_ones_leave_the_old_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["ca.pem", "store.pem", "key.pem"].map(|name| folder.path().join(name));
        let [ca, certificate, key] = files;
        let files = TlsFiles { ca, certificate, key };
        write(&files, 2026, 3, 12);
        let config = client_config(&files.ca, &files.certificate, &files.key).unwrap();
        let mut tls = Tls::read_from(config, files.clone());
        assert_eq!(tls.days_left(NOW_MS), Some(10));
        assert!(!tls.renew().unwrap());
        let good = std::fs::read(&files.key).unwrap();
        std::fs::write(&files.key, "-----BEGIN").unwrap();
        assert!(matches!(
            tls.renew(),
            Err(TlsError::NoKey { .. } | TlsError::NotPem { .. })
        ));
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(tls.renew(), Err(TlsError::Unreadable { .. })));
        assert_eq!(tls.days_left(NOW_MS), Some(10), "the old one is used");
        std::fs::write(&files.key, good).unwrap();
        assert!(!tls.renew().unwrap(), "nothing is new");
        write(&files, 2026, 6, 2);
        assert!(tls.renew().unwrap());
        assert_eq!(tls.days_left(NOW_MS), Some(92));
        write(&files, 2026, 3, 1);
        assert!(tls.renew().unwrap());
        assert_eq!(tls.days_left(NOW_MS), Some(-1));
    }
}
