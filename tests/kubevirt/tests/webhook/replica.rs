//! A webhook under test, and a client that asks it without an API server in between.

use crate::install::{IMAGE, NAME, NAMESPACE};
use anyhow::{Context, ensure};
use holdfast_cluster::Plane;
use holdfast_kubevirt::{CertificateSource, HookImage, Webhook, WebhookConfig, WebhookError};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running webhook with the rights that the chart gives to the controller; left to itself when dropped.
pub(crate) struct Replica {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), WebhookError>>,
}

impl Replica {
    pub(crate) async fn start(plane: &Plane) -> anyhow::Result<Replica> {
        let account = plane.kubeconfig_of("holdfast-controller", NAMESPACE, None);
        let client = Plane::client_of(&account.await?).await?;
        let webhook = Webhook::bind("127.0.0.1:0").await?;
        let address = webhook.address();
        let config = WebhookConfig {
            hook: HookImage {
                image: IMAGE.to_owned(),
                pull_policy: "IfNotPresent".to_owned(),
            },
            certificate: CertificateSource::Shared {
                namespace: NAMESPACE.to_owned(),
            },
        };
        let (ready, is_ready) = oneshot::channel();
        let (end, asked) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let tell = move || {
                let _ = ready.send(());
            };
            // Dropped or told, the channel ends it.
            let end = async { drop::<Result<(), _>>(asked.await) };
            webhook.serve(client, config, tell, end).await
        });
        let replica = Replica {
            address,
            end,
            serving,
        };
        let waited = tokio::time::timeout(PATIENCE, is_ready).await;
        waited.context("the webhook has no certificate")??;
        Ok(replica)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends it as its process would end: connections are closed, too.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.end);
        let ended = tokio::time::timeout(PATIENCE, self.serving).await;
        Ok(ended.context("the webhook does not end")???)
    }

    /// A client that trusts whom the API server is told to trust.
    pub(crate) async fn client(&self, plane: &Plane) -> anyhow::Result<Client> {
        client_of(self.address.port(), &trusted(plane)?).await
    }
}

/// A client of the webhook on a port, that trusts these certificates: PEM in base64.
pub(crate) async fn client_of(port: u16, authorities: &str) -> anyhow::Result<Client> {
    let kubeconfig = json!({
        "clusters": [{"name": "webhook", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "tls-server-name": format!("{NAME}.{NAMESPACE}.svc"),
            "certificate-authority-data": authorities,
        }}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "webhook", "user": "nobody"}}],
        "current-context": "it",
    });
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

/// Whom the API server is told to trust: PEM in base64.
pub(crate) fn trusted(plane: &Plane) -> anyhow::Result<String> {
    let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
    let words = ["get", "mutatingwebhookconfiguration", NAME, "-o", path];
    let bundle = plane.kubectl(&words)?;
    ensure!(!bundle.is_empty(), "nobody is trusted");
    Ok(bundle)
}

/// What the API server would ask about a machine.
pub(crate) fn review(machine: &Value, namespace: &str) -> Value {
    let kind = json!({"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstance"});
    let resource =
        json!({"group": "kubevirt.io", "version": "v1", "resource": "virtualmachineinstances"});
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5", "kind": kind, "resource": resource, "operation": "CREATE",
            "namespace": namespace, "userInfo": {"username": "somebody"}, "object": machine,
        }
    })
}

/// Sends a body to the webhook; returns the status and what came back.
pub(crate) async fn post(
    client: &Client,
    content_type: &str,
    body: Vec<u8>,
) -> anyhow::Result<(u16, String)> {
    let request = http::Request::post("/machines")
        .header("content-type", content_type)
        .body(Body::from(body))?;
    let answer = client.send(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Asks about a machine; returns the response in the review.
pub(crate) async fn ask(client: &Client, review: &Value) -> anyhow::Result<Value> {
    let (status, body) = post(client, "application/json", serde_json::to_vec(review)?).await?;
    ensure!(status == 200, "{status}: {body}");
    let mut answer: Value = serde_json::from_str(&body)?;
    Ok(answer["response"].take())
}
