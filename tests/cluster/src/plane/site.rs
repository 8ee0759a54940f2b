//! The folder, ports and keys of one plane, and the files that tell others how to reach it.

use super::certs::Certs;
use super::commands::Ports;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a plane lives. Dropped, the folder is removed.
#[derive(Debug)]
pub(super) struct Site {
    folder: TempDir,
    pub(super) ports: Ports,
    pub(super) certs: Certs,
}

impl Site {
    /// A folder with new keys, and ports that are free now.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn prepare() -> anyhow::Result<Site> {
        // Short, because sockets are made below it.
        let folder = TempDir::with_prefix("hf-")?;
        fs::create_dir(folder.path().join("logs"))?;
        Ok(Site {
            ports: Ports::pick(),
            certs: Certs::make(folder.path())?,
            folder,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder behind when all is over.
    pub(super) fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.folder().join("logs")
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    pub(super) fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    pub(super) fn admin_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let user = json!({
            "client-certificate": self.certs.path("admin.crt"),
            "client-key": self.certs.path("admin.key"),
        });
        self.write_kubeconfig("admin", &user)
    }

    /// Writes `NAME.kubeconfig`. JSON is YAML, too.
    pub(super) fn write_kubeconfig(&self, name: &str, user: &Value) -> anyhow::Result<PathBuf> {
        let cluster = json!({
            "server": self.url(),
            "certificate-authority": self.certs.path("ca.crt"),
        });
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "plane", "cluster": cluster }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": "plane", "context": { "cluster": "plane", "user": "user" } }],
            "current-context": "plane",
        });
        let path = self.folder().join(format!("{name}.kubeconfig"));
        fs::write(&path, text.to_string())?;
        Ok(path)
    }
}
