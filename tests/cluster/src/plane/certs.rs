//! The keys and certificates of one control plane, valid for this run only.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Certs {
    folder: PathBuf,
}

impl Certs {
    /// Makes all of them in `folder`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn make(folder: &Path) -> anyhow::Result<Certs> {
        let certs = Certs {
            folder: folder.to_owned(),
        };
        let authority = certs.authority()?;
        let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        certs.sign(
            "server",
            server,
            ExtendedKeyUsagePurpose::ServerAuth,
            &authority,
        )?;
        let mut admin = CertificateParams::default();
        admin.distinguished_name.push(DnType::CommonName, "admin");
        // The one group that no rule binds: it may do everything.
        admin
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        certs.sign(
            "admin",
            admin,
            ExtendedKeyUsagePurpose::ClientAuth,
            &authority,
        )?;
        let tokens = KeyPair::generate()?;
        certs.write("tokens.key", &tokens.serialize_pem())?;
        certs.write("tokens.pub", &tokens.public_key_pem())?;
        Ok(certs)
    }

    /// The path of one of them: `ca.crt`, `server.crt`, `server.key`, `admin.crt`, `admin.key`, `tokens.key`, `tokens.pub`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn authority(&self) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "holdfast-cluster");
        let key = KeyPair::generate()?;
        self.write("ca.crt", &params.self_signed(&key)?.pem())?;
        Ok(Issuer::new(params, key))
    }

    fn sign(
        &self,
        name: &str,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
        authority: &Issuer<'_, KeyPair>,
    ) -> anyhow::Result<()> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        self.write(&format!("{name}.crt"), &certificate.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, pem: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))
    }
}
