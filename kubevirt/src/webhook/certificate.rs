//! A serving certificate: made here, or read from whoever made it.
//!
//! One that is made here comes with an authority of its own, whose key is thrown away: nothing else can ever be signed in its
//! name. The API server trusts the authority of the certificate and the one before it, so that replicas may change at
//! different times.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From the making to the end.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of a cluster differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// Authorities of former certificates that are trusted. A replica may still serve the last but one: it serves a new one only
/// at its second look, and that may have been replaced meanwhile.
const FORMER: usize = 2;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What was given is no PEM, or not what was expected in it.
    #[error("cannot read the certificate: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It cannot be served: a key that does not belong to it, mostly.
    #[error("cannot serve the certificate: {0}")]
    Serve(#[from] rustls::Error),
    /// When it ends cannot be read.
    #[error("cannot read how long the certificate is valid: {0}")]
    Validity(String),
}

/// A certificate with its key, as PEM. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) chain: String,
    pub(super) key: String,
    /// Whom to trust; the one of this certificate comes first.
    pub(super) authorities: String,
}

impl Certificate {
    /// A new one for these names. `former` is trusted, too, and what was trusted before that.
    pub(super) fn make(
        names: &[String],
        former: Option<&Certificate>,
    ) -> Result<Certificate, CertificateError> {
        let mut authority = lasting(CertificateParams::default());
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = "Holdfast's KubeVirt webhook";
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority_key = KeyPair::generate()?;
        let trusted = authority.self_signed(&authority_key)?.pem();

        let mut served = lasting(CertificateParams::new(names.to_vec())?);
        served.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        served.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let chain = served.signed_by(&key, &Issuer::new(authority, authority_key))?;
        let former = former.map_or("", |former| first_of(&former.authorities, FORMER));
        Ok(Certificate {
            chain: chain.pem(),
            key: key.serialize_pem(),
            authorities: trusted + former,
        })
    }

    /// Whether it is in the last third of its life, or not to be read.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match self.validity() {
            Ok((from, until)) => {
                let life = until.saturating_sub(from);
                i64::try_from(seconds).unwrap_or(i64::MAX) > until - life / 3
            }
            Err(_) => true,
        }
    }

    /// What a server needs to serve it.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        // The provider that the Kubernetes client links already.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(server))
    }

    /// Seconds since 1970.
    fn validity(&self) -> Result<(i64, i64), CertificateError> {
        let der = CertificateDer::from_pem_slice(self.chain.as_bytes())?;
        let (_, read) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| CertificateError::Validity(error.to_string()))?;
        let validity = read.validity();
        Ok((
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        ))
    }
}

fn lasting(mut params: CertificateParams) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + LIFE).into();
    params
}

/// The first certificates of a text, as text; nothing of a text that does not begin with one.
fn first_of(pem: &str, count: usize) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    if CertificateDer::from_pem_slice(pem.as_bytes()).is_err() {
        return "";
    }
    let ends = pem.match_indices(END).map(|(at, end)| at + end.len());
    &pem[..ends.take(count).last().unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["webhook.ns.svc".to_owned()]
    }

    fn after(days: u64) -> SystemTime {
        SystemTime::now() + Duration::from_secs(days * 24 * 3600)
    }

    fn count(pem: &str) -> usize {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .unwrap()
            .len()
    }

    #[test]
    fn made_certificate_is_served_and_renewed_in_its_last_third() {
        let made = Certificate::make(&names(), None).unwrap();
        made.server().unwrap();
        assert!(!made.is_old(after(0)) && !made.is_old(after(242)));
        assert!(made.is_old(after(245)) && made.is_old(after(400)));
    }

    #[test]
    fn successor_is_trusted_beside_its_two_predecessors_alone() {
        let mut all = vec![Certificate::make(&names(), None).unwrap()];
        for _ in 0..3 {
            all.push(Certificate::make(&names(), all.last()).unwrap());
        }
        let counts: Vec<_> = all.iter().map(|made| count(&made.authorities)).collect();
        assert_eq!(counts, [1, 2, 3, 3]);
        let trusts = |of: usize| {
            all[3]
                .authorities
                .contains(first_of(&all[of].authorities, 1))
        };
        assert_eq!([0, 1, 2, 3].map(trusts), [false, true, true, true]);
    }

    #[test]
    fn certificate_with_the_key_of_another_is_not_served() {
        let first = Certificate::make(&names(), None).unwrap();
        let key = Certificate::make(&names(), None).unwrap().key;
        let mixed = Certificate { key, ..first };
        assert!(matches!(mixed.server(), Err(CertificateError::Serve(_))));
    }

    #[test]
    fn text_that_is_no_certificate_is_old_and_not_served() {
        for text in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let text = text.to_owned();
            let none = Certificate {
                chain: text.clone(),
                key: text.clone(),
                authorities: text,
            };
            assert!(none.is_old(SystemTime::now()));
            assert!(none.server().is_err());
            assert!(Certificate::make(&names(), Some(&none)).is_ok());
        }
    }
}
