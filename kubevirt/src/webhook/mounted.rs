//! A certificate that somebody else makes and renews: files in a folder, as a mounted Secret has them.

use super::WebhookError;
use super::certificate::Certificate;
use rustls::ServerConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the certificate in a folder.
pub(super) struct MountedCertificate {
    folder: PathBuf,
    served: Option<Certificate>,
}

impl MountedCertificate {
    pub(super) fn new(folder: &Path) -> MountedCertificate {
        MountedCertificate {
            folder: folder.to_owned(),
            served: None,
        }
    }

    /// Returns what to serve from now on, if it is another than before. Who replaces one file after the other is met
    /// between the two: the key does not fit then, and the next look finds both.
    pub(super) async fn look(&mut self) -> Result<Option<Arc<ServerConfig>>, WebhookError> {
        let found = Certificate {
            chain: self.read("tls.crt").await?,
            key: self.read("tls.key").await?,
            authorities: String::new(),
        };
        if self.served.as_ref() == Some(&found) {
            return Ok(None);
        }
        let server = found.server()?;
        self.served = Some(found);
        Ok(Some(server))
    }

    async fn read(&self, name: &str) -> Result<String, WebhookError> {
        let path = self.folder.join(name);
        let read = tokio::fs::read_to_string(&path).await;
        read.map_err(|cause| WebhookError::File { path, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::certificate::CertificateError;

    fn write(folder: &Path, chain: &str, key: &str) {
        std::fs::write(folder.join("tls.crt"), chain).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
    }

    #[tokio::test]
    async fn changed_files_are_served_and_unchanged_ones_are_not_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["webhook".to_owned()];
        let [first, second] = [(); 2].map(|()| Certificate::make(&names, None).unwrap());
        let mut mounted = MountedCertificate::new(folder.path());
        assert!(matches!(
            mounted.look().await,
            Err(WebhookError::File { .. })
        ));

        write(folder.path(), &first.chain, &first.key);
        assert!(mounted.look().await.unwrap().is_some());
        assert!(mounted.look().await.unwrap().is_none());

        write(folder.path(), &second.chain, &first.key);
        let half = mounted.look().await;
        assert!(matches!(
            half,
            Err(WebhookError::Certificate(CertificateError::Serve(_)))
        ));
        write(folder.path(), &second.chain, &second.key);
        assert!(mounted.look().await.unwrap().is_some());
    }
}
