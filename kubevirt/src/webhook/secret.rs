//! The certificate that the replicas make themselves and share in a Secret, and the trust in it.
//!
//! No replica leads. Each looks now and then: a certificate that is missing, old or broken is made anew and written at the
//! version that was read, so that one of several writers wins and the others find its work. The API server is told to trust
//! it before anybody serves it.

use super::certificate::Certificate;
use super::{NAME, WebhookError};
use crate::error::ClusterError;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rustls::ServerConfig;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Who wrote, in the objects' managedFields.
const FIELD_MANAGER: &str = "holdfast-controller";
/// The one webhook in the configuration.
const WEBHOOK: &str = "machines.kubevirt.holdfast.dev";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// Looks after the certificate in the Secret.
pub(super) struct SharedCertificate {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    /// As the API server calls the Service.
    names: Vec<String>,
    served: Option<Certificate>,
    /// Found in the Secret and trusted at the last look.
    trusted: Option<Certificate>,
}

impl SharedCertificate {
    pub(super) fn new(client: &Client, namespace: &str) -> SharedCertificate {
        SharedCertificate {
            secrets: Api::namespaced(client.clone(), namespace),
            configurations: Api::all(client.clone()),
            names: vec![format!("{NAME}.{namespace}.svc")],
            served: None,
            trusted: None,
        }
    }

    /// Makes the Secret and the trust what they must be. Returns what to serve from now on, if it is another than before.
    ///
    /// A certificate is served once two looks in a row found it trusted: by then every API server has heard. The first one
    /// of a process is served at once, for there is nothing else to serve.
    pub(super) async fn look(&mut self) -> Result<Option<Arc<ServerConfig>>, WebhookError> {
        let found = self.shared().await?;
        self.trust(&found.authorities).await?;
        let known = self.served.is_none() || self.trusted.as_ref() == Some(&found);
        let server = if known && self.served.as_ref() != Some(&found) {
            Some(found.server()?)
        } else {
            None
        };
        if server.is_some() {
            self.served = Some(found.clone());
        }
        self.trusted = Some(found);
        Ok(server)
    }

    /// The Secret's certificate; a new one if that is of no use.
    async fn shared(&self) -> Result<Certificate, WebhookError> {
        let secret = self.secrets.get(NAME).await;
        let secret = secret.map_err(ClusterError::on("read", secret_name()))?;
        let there = read(secret.data.unwrap_or_default());
        if let Some(there) = &there
            && !there.is_old(SystemTime::now())
            && there.server().is_ok()
        {
            return Ok(there.clone());
        }
        let made = Certificate::make(&self.names, there.as_ref())?;
        let data = [
            (CHAIN, &made.chain),
            (KEY, &made.key),
            (AUTHORITIES, &made.authorities),
        ];
        let data = BTreeMap::from(data.map(|(key, text)| (key, bytes(text))));
        let version = secret.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
        let (who, patch) = (writer(), Patch::Merge(patch));
        let patched = self.secrets.patch(NAME, &who, &patch).await;
        patched.map_err(ClusterError::on("write", secret_name()))?;
        tracing::info!("Made a certificate for the webhook");
        Ok(made)
    }

    async fn trust(&self, authorities: &str) -> Result<(), ClusterError> {
        let named = || format!("MutatingWebhookConfiguration {NAME}");
        let found = self.configurations.get(NAME).await;
        let found = found.map_err(ClusterError::on("read", named()))?;
        let wanted = bytes(authorities);
        let all = found.webhooks.unwrap_or_default();
        let ours = all.iter().find(|webhook| webhook.name == WEBHOOK);
        if ours.is_some_and(|ours| ours.client_config.ca_bundle.as_ref() == Some(&wanted)) {
            return Ok(());
        }
        // Webhooks of a configuration are merged by name.
        let patch = json!({"webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": wanted}}]});
        let (who, patch) = (writer(), Patch::Strategic(patch));
        let patched = self.configurations.patch(NAME, &who, &patch).await;
        patched.map_err(ClusterError::on("write", named()))?;
        tracing::info!("The API server is told to trust the webhook's certificate");
        Ok(())
    }
}

fn read(mut data: BTreeMap<String, ByteString>) -> Option<Certificate> {
    let mut text = |key| String::from_utf8(data.remove(key)?.0).ok();
    Some(Certificate {
        chain: text(CHAIN)?,
        key: text(KEY)?,
        authorities: text(AUTHORITIES)?,
    })
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

fn secret_name() -> String {
    format!("Secret {NAME}")
}

fn writer() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
