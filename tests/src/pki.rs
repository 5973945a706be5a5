//! A certificate authority for one run: a server certificate for 127.0.0.1 and a client certificate for each identity.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A name of the broker that only a proxy can resolve.
pub const BROKER_NAME: &str = "broker.tillwatch.invalid";

/// Makes certificates and writes them as PEM files into one folder.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Where the PEM files of one identity are.
#[derive(Clone, Debug)]
pub struct Identity {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
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
        Ok(Self {
            folder: folder.to_path_buf(),
            issuer,
        })
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
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            ca: self.folder.join("ca.pem"),
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key.pem")),
        };
        write(&identity.certificate, &certificate.pem())?;
        write(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
