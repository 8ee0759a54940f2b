//! Ways into a plane: kubeconfigs, tokens of service accounts, kubectl.

use super::Plane;
use crate::kit::program;
use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Longer than any test.
const TOKEN_SECONDS: i64 = 24 * 3600;

impl Plane {
    /// A token of a service account, as a pod of it would have. With `node`, it is bound to a pod on that node
    /// and names both. What is missing (namespace, account, pod) is created.
    ///
    /// # Errors
    /// If the API server refuses; for a token that names the node, the Node object has to exist.
    pub async fn token(
        &self,
        account: &str,
        namespace: &str,
        node: Option<&str>,
    ) -> anyhow::Result<String> {
        self.ensure_account(account, namespace).await?;
        let bound_object_ref = match node {
            None => None,
            Some(node) => Some(self.ensure_pod(account, namespace, node).await?),
        };
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Vec::new(),
                bound_object_ref,
                expiration_seconds: Some(TOKEN_SECONDS),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let granted = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for {namespace}/{account}"))?;
        Ok(granted
            .status
            .context("a granted request has a token")?
            .token)
    }

    /// Writes a kubeconfig named `name` with a token of this service account; see [`Plane::token`].
    ///
    /// # Errors
    /// As [`Plane::token`].
    pub async fn kubeconfig_of(
        &self,
        account: &str,
        namespace: &str,
        node: Option<&str>,
    ) -> anyhow::Result<PathBuf> {
        let token = self.token(account, namespace, node).await?;
        let name = [Some(account), node].into_iter().flatten();
        let name = name.collect::<Vec<_>>().join("-");
        self.site
            .write_kubeconfig(&name, &json!({ "token": token }))
    }

    /// Runs kubectl as the administrator and returns what it prints.
    ///
    /// # Errors
    /// If it fails; the message has what it said.
    pub fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(words, "")
    }

    /// Runs kubectl with `input` on its standard input, as in `["apply", "-f", "-"]`.
    ///
    /// # Errors
    /// As [`Plane::kubectl`].
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        let mut kubectl = Command::new(program("kubectl")?)
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg(format!(
                "--cache-dir={}",
                self.folder().join("kubectl").display()
            ))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // kubectl reads all of its input before it says anything, so the pipes cannot block each other.
        let written = kubectl
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = kubectl.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {}: {said}",
            words.join(" ")
        );
        written.transpose()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A client that uses the kubeconfig at `path`.
    ///
    /// # Errors
    /// If it is no kubeconfig.
    pub async fn client_of(path: &Path) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(path)?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }

    async fn ensure_account(&self, account: &str, namespace: &str) -> anyhow::Result<()> {
        let space = Namespace {
            metadata: named(namespace),
            ..Namespace::default()
        };
        create(&Api::all(self.client()), &space).await?;
        let account = ServiceAccount {
            metadata: named(account),
            ..ServiceAccount::default()
        };
        create(&Api::namespaced(self.client(), namespace), &account).await
    }

    async fn ensure_pod(
        &self,
        account: &str,
        namespace: &str,
        node: &str,
    ) -> anyhow::Result<BoundObjectReference> {
        let name = format!("{account}-{node}");
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": node,
                "serviceAccountName": account,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{ "name": "component", "image": "none" }],
            },
        }))?;
        create(&pods, &pod).await?;
        Ok(BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            uid: pods.get(&name).await?.uid(),
            name: Some(name),
        })
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

/// Creates `object`; one that is there already is left alone.
async fn create<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}
