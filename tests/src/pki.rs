//! A certificate authority for one run: a server certificate for 127.0.0.1, a client certificate for each identity, and
//! the list of those that are revoked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};

/// A name of the broker that only a proxy can resolve.
pub const BROKER_NAME: &str = "broker.tillwatch.invalid";

/// Makes certificates and writes them as PEM files into one folder.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Beside the authority's own certificate.
const REVOKED: &str = "crl.pem";

/// Where the PEM files of one identity are.
#[derive(Clone, Debug)]
pub struct Identity {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority's list of revoked certificates.
    pub revoked: PathBuf,
}

impl Identity {
    /// The files of somebody whom the authority of this folder knows.
    pub fn of(folder: &Path, name: &str) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key.pem")),
            revoked: folder.join(REVOKED),
        }
    }
}

impl Authority {
    /// A new authority whose files go into `folder`.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Tillwatch test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        write(&folder.join("ca.pem"), &issuer.pem())?;
        let authority = Self {
            folder: folder.to_path_buf(),
            issuer,
        };
        authority.revoke(&[])?;
        Ok(authority)
    }

    /// Writes the list of revoked certificates anew, with those of these clients.
    ///
    /// # Errors
    /// When the list cannot be signed or written.
    pub fn revoke(&self, names: &[&str]) -> Result<()> {
        let revoked = |name: &&str| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(u64::try_from(names.len())?),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        write(&self.folder.join(REVOKED), &list.signed_by(&self.issuer)?.pem()?)
    }

    /// A certificate of a client that was good until 2026 began.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn expired_client(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(2026, 1, 1);
        self.issue(params, name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a broker on this machine.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn server(&self) -> Result<Identity> {
        let params = CertificateParams::new(["localhost", "127.0.0.1", BROKER_NAME].map(str::to_owned).to_vec())?;
        self.issue(params, "server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a site or an archive: its name is the CN.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.issue(CertificateParams::default(), name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<Identity> {
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial(name));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity::of(&self.folder, name);
        write(&identity.certificate, &certificate.pem())?;
        write(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}

/// The name itself, so that a certificate is known again by it; two of one name are revoked together.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from(
        [b"\x01", name.as_bytes()]
            .concat()
            .into_iter()
            .take(20)
            .collect::<Vec<u8>>(),
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
