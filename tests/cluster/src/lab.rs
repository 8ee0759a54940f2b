//! A small cluster with Holdfast in it: a control plane, the chart's objects, the controller with its sidecars, and nodes.
//!
//! Each part is a plain process with a token of its own service account, as its pod would have. What the chart says of
//! rights and admission holds here.

mod controller;
mod machine;
mod node;
mod wishes;

use crate::kubelet::ensure_node;
use crate::runner::Stage;
use crate::{Plane, kit};
use anyhow::{Context, ensure};
use futures::future::LocalBoxFuture;
use holdfast_guest::kit::workspace;
use serde_json::Value;
use std::process::Command;

pub use controller::Controller;
pub use machine::Machine;
pub use node::Node;
pub use wishes::{PATIENCE, Running};

/// Where Holdfast is installed.
pub const NAMESPACE: &str = "holdfast";
/// The size of each node's pool where tests ask for no other.
pub const POOL_BYTES: u64 = 256 << 20;
/// The nodes where tests ask for no others.
const NODES: [&str; 2] = ["n1", "n2"];
/// What the chart installs as pods, and the lab starts as processes.
const WORKLOADS: [&str; 4] = ["Deployment", "DaemonSet", "Job", "PodDisruptionBudget"];

/// A cluster with Holdfast. Dropped, all of it is gone.
pub struct Lab {
    /// The nodes: agent and kubelet's stand-in.
    pub nodes: Vec<Node>,
    controller: Controller,
    /// The control plane. Last, so that it outlives what talks to it.
    pub plane: Plane,
}

impl Lab {
    /// Brings all of it up, with a pool of `pool_bytes` on each of `names`.
    ///
    /// # Errors
    /// If a part does not come up; the message has its last words.
    pub async fn start(names: &[&str], pool_bytes: u64) -> anyhow::Result<Lab> {
        let plane = Plane::start().await?;
        install(&plane)?;
        for name in names {
            ensure_node(&plane.client(), name).await?;
        }
        let controller = Controller::start(&plane).await?;
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(Node::start(&plane, name, pool_bytes).await?);
        }
        let lab = Lab {
            nodes,
            controller,
            plane,
        };
        lab.until_capacity_is_known().await?;
        Ok(lab)
    }

    /// The node with this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.name() == name);
        node.with_context(|| format!("no node is called {name}"))
    }

    /// The controller, its provisioner and its resizer.
    pub fn controller(&mut self) -> &mut Controller {
        &mut self.controller
    }

    /// The controller's CSI socket.
    pub fn controller_endpoint(&self) -> String {
        controller::endpoint(&self.plane)
    }

    /// Starts the controller's pod again after it was killed.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart_controller(&mut self) -> anyhow::Result<()> {
        self.controller = Controller::start(&self.plane).await?;
        Ok(())
    }

    /// Starts the agent of a node again after it was killed, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn restart_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let (plane, nodes) = (&self.plane, &mut self.nodes);
        let node = nodes.iter_mut().find(|node| node.name() == name);
        let node = node.with_context(|| format!("no node is called {name}"))?;
        node.restart(plane).await
    }
}

impl Stage for Lab {
    const MOUNTS: bool = true;

    fn set() -> LocalBoxFuture<'static, anyhow::Result<Lab>> {
        Box::pin(Lab::start(&NODES, POOL_BYTES))
    }

    fn plane(&mut self) -> Option<&mut Plane> {
        Some(&mut self.plane)
    }

    fn explain(&self) -> String {
        let complaints = self.nodes.iter().map(Node::complaints);
        complaints.collect::<Vec<_>>().join("\n")
    }
}

/// Installs what the chart does, apart from pods: kinds, rights, admission, driver, classes.
///
/// # Errors
/// If the chart cannot be rendered, or the API server refuses; also when it is installed already.
pub fn install(plane: &Plane) -> anyhow::Result<()> {
    plane.kubectl(&["create", "namespace", NAMESPACE])?;
    let objects = rendered(plane)?;
    let (kinds, rest): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .filter(|object| !WORKLOADS.iter().any(|kind| object["kind"] == *kind))
        .partition(|object| object["kind"] == "CustomResourceDefinition");
    apply(plane, &kinds)?;
    plane.kubectl(&[
        "wait",
        "--for=condition=Established",
        "customresourcedefinitions",
        "--all",
        "--timeout=60s",
    ])?;
    apply(plane, &rest)
}

fn apply(plane: &Plane, objects: &[Value]) -> anyhow::Result<()> {
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    let words = [
        "apply",
        "--server-side",
        "--namespace",
        NAMESPACE,
        "-f",
        "-",
    ];
    plane.kubectl_with(&words, &list.to_string()).map(drop)
}

/// The chart with the values of these tests.
fn rendered(plane: &Plane) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(kit::program("helm")?)
        .args(["template", "holdfast", "--namespace", NAMESPACE])
        .args(["--kube-version", "1.36.0", "--no-hooks"])
        .args(["--set", "volumeAttributesClasses[0].name=slow"])
        .args([
            "--set-string",
            "volumeAttributesClasses[0].parameters.iops=100",
        ])
        .arg(workspace().join("charts/holdfast"))
        .env("HELM_CACHE_HOME", plane.folder().join("helm"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "helm cannot render the chart: {said}"
    );
    let text = String::from_utf8(output.stdout)?;
    let documents = serde_yaml::Deserializer::from_str(&text);
    let objects = documents.map(serde::Deserialize::deserialize);
    let objects = objects.collect::<Result<Vec<Value>, _>>()?;
    Ok(objects
        .into_iter()
        .filter(|object| !object.is_null())
        .collect())
}
