//! What a kubelet would make of the chart's pods: the controller's container as a process, with the arguments, the variables and the
//! account that stand in the cluster. Only places that exist in a pod alone are changed.

use crate::stage::PATIENCE;
use anyhow::{Context, ensure};
use holdfast_cluster::{Daemon, Plane, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;

const NAMESPACE: &str = "holdfast";
const WEBHOOK: &str = "holdfast-kubevirt-webhook";
const ADDRESS_OF_WEBHOOK: &str = "--kubevirt-webhook=";

/// A controller as the Deployment asks for; killed when dropped.
pub(crate) struct Deployed {
    process: Daemon,
    deployment: Value,
    health: u16,
}

impl Deployed {
    /// Starts it; waits until it is ready, and the rollout is over.
    pub(crate) async fn start(plane: &Plane, name: &str) -> anyhow::Result<Deployed> {
        let deployment = plane.kubectl(&[
            "--namespace",
            NAMESPACE,
            "get",
            "deployment/holdfast-controller",
            "--output=json",
        ])?;
        let deployment: Value = serde_json::from_str(&deployment)?;
        let (health, webhook) = (free_port()?, free_port()?);
        let command = command(
            plane,
            &deployment["spec"]["template"]["spec"],
            name,
            [health, webhook],
        );
        let process = Daemon::start(
            &format!("{name}-controller"),
            &command.await?,
            &plane.logs(),
        )?;
        let mut deployed = Deployed {
            process,
            deployment,
            health,
        };
        deployed.until_ready().await?;
        if deployed.argument(ADDRESS_OF_WEBHOOK).is_some() {
            deployed.lead_to(plane, webhook)?;
        }
        roll_out(plane).await?;
        Ok(deployed)
    }

    /// What the chart names as the image of Holdfast.
    pub(crate) fn image(&self) -> &str {
        self.container()["image"].as_str().unwrap_or_default()
    }

    /// What it tells of itself in numbers.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        told(self.health, "/metrics").await
    }

    /// The rest of the argument that begins so.
    pub(crate) fn argument(&self, begin: &str) -> Option<&str> {
        let words = self.container()["args"].as_array().into_iter().flatten();
        let mut words = words.filter_map(Value::as_str);
        words.find_map(|word| word.strip_prefix(begin))
    }

    fn container(&self) -> &Value {
        &self.deployment["spec"]["template"]["spec"]["containers"][0]
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let port = self.health;
        until("the controller is ready", PATIENCE, || {
            let alive = self.process.check();
            async move {
                alive?;
                let told = told(port, "/readyz").await;
                Ok(told.map(drop).map_err(|why| why.to_string()))
            }
        })
        .await
    }

    /// There is no pod network: the Service becomes a name for this machine, and its port that of the process.
    fn lead_to(&self, plane: &Plane, port: u16) -> anyhow::Result<()> {
        let of_chart = [
            "--namespace",
            NAMESPACE,
            "get",
            "service",
            WEBHOOK,
            "--output=json",
        ];
        let service: Value = serde_json::from_str(&plane.kubectl(&of_chart)?)?;
        let address = self.argument(ADDRESS_OF_WEBHOOK).unwrap_or_default();
        let opened = self.port_called(&service["spec"]["ports"][0]["targetPort"]);
        ensure!(
            opened.is_some_and(|opened| address.ends_with(&format!(":{opened}"))),
            "the Service leads to {opened:?}, the webhook is at {address}"
        );
        let local = json!({"spec": {
            "type": "ExternalName", "externalName": "localhost", "clusterIP": null, "clusterIPs": null, "selector": null
        }});
        let local = format!("--patch={local}");
        plane.kubectl(&[
            "--namespace",
            NAMESPACE,
            "patch",
            "service",
            WEBHOOK,
            "--type=merge",
            &local,
        ])?;
        let path = "/webhooks/0/clientConfig/service/port";
        let moved = json!([{"op": "replace", "path": path, "value": port}]);
        let moved = format!("--patch={moved}");
        plane.kubectl(&[
            "patch",
            "mutatingwebhookconfiguration",
            WEBHOOK,
            "--type=json",
            &moved,
        ])?;
        Ok(())
    }

    fn port_called(&self, name: &Value) -> Option<u64> {
        let mut ports = self.container()["ports"].as_array()?.iter();
        ports.find(|port| port["name"] == *name)?["containerPort"].as_u64()
    }
}

/// The container's command line and variables; `ports` are those of its health and its webhook.
async fn command(
    plane: &Plane,
    pod: &Value,
    name: &str,
    [health, webhook]: [u16; 2],
) -> anyhow::Result<Command> {
    let container = &pod["containers"][0];
    ensure!(container["name"] == "holdfast", "{container}");
    let account = pod["serviceAccountName"]
        .as_str()
        .context("it has an account")?;
    let kubeconfig = plane.kubeconfig_of(account, NAMESPACE, None).await?;
    let socket = plane.folder().join(format!("{name}.sock"));
    let mut command = Command::new(holdfast_guest::holdfast()?);
    for word in container["args"].as_array().context("it has arguments")? {
        let word = word.as_str().context("arguments are text")?;
        match word.split_once('=') {
            Some((key @ "--csi-endpoint", _)) => {
                command.arg(format!("{key}=unix://{}", socket.display()))
            }
            Some((key @ "--http-endpoint", _)) => command.arg(format!("{key}=127.0.0.1:{health}")),
            Some((key @ "--kubevirt-webhook", _)) => {
                command.arg(format!("{key}=127.0.0.1:{webhook}"))
            }
            _ => command.arg(word),
        };
    }
    command.arg(format!("--kubeconfig={}", kubeconfig.display()));
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.namespace") => NAMESPACE,
            Some(_) => name,
            None => variable["value"].as_str().unwrap_or_default(),
        };
        command.env(variable["name"].as_str().unwrap_or_default(), value);
    }
    Ok(command)
}

/// Kubelet's word that the controller's pods are ready, until no more come. Node pods have come by then, too.
async fn roll_out(plane: &Plane) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(plane.client(), NAMESPACE);
    let of =
        |part: &str| ListParams::default().labels(&format!("app.kubernetes.io/component={part}"));
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let ready = Patch::Strategic(ready);
    until("the release is rolled out", PATIENCE, || async {
        for pod in pods.list(&of("controller")).await?.items {
            let told = pods
                .patch_status(&pod.name_any(), &PatchParams::default(), &ready)
                .await;
            // One that has gone meanwhile needs no word.
            drop(told);
        }
        let asked = [
            "--namespace",
            NAMESPACE,
            "rollout",
            "status",
            "deployment/holdfast-controller",
            "--watch=false",
        ];
        let said = plane.kubectl(&asked)?;
        let nodes = pods.list(&of("node")).await?.items.len();
        let done = said.contains("successfully rolled out") && nodes > 0;
        Ok(done.then_some(()).ok_or(said))
    })
    .await
}

async fn told(port: u16, path: &str) -> anyhow::Result<String> {
    let address: http::Uri = format!("http://127.0.0.1:{port}").parse()?;
    let client = kube::Client::try_from(kube::Config::new(address))?;
    let asked = http::Request::get(path).body(Vec::new())?;
    Ok(client.request_text(asked).await?)
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
