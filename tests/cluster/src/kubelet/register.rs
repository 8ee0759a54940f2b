//! The node's own objects: Node, and CSINode with what the driver says of itself.

use super::Place;
use super::calls::Driver;
use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

/// Makes a node that the scheduler takes: ready, with room for pods.
///
/// # Errors
/// If the API server refuses.
pub async fn ensure_node(client: &Client, name: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    if nodes.get_opt(name).await?.is_none() {
        let node =
            json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } });
        let node: Node = serde_json::from_value(node)?;
        nodes.create(&PostParams::default(), &node).await?;
    }
    let room = json!({ "cpu": "64", "memory": "256Gi", "pods": "5000" });
    let status = json!({ "status": {
        "allocatable": room,
        "capacity": room,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Test", "message": "stands in for kubelet",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    let patch = Patch::Merge(&status);
    nodes
        .patch_status(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// Asks the driver who it is, and writes that where scheduler and provisioner look for it.
pub(super) async fn driver(client: &Client, place: &Place) -> anyhow::Result<()> {
    let told = Driver::connect(&place.endpoint).await?.info().await?;
    let topology = told
        .accessible_topology
        .context("the driver tells no topology")?;
    let keys: Vec<_> = topology.segments.keys().collect();
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = json!({ "metadata": { "labels": topology.segments } });
    let node = nodes
        .patch(&place.node, &PatchParams::default(), &Patch::Merge(&labels))
        .await?;
    let csi_node = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {
            "name": place.node,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": place.node, "uid": node.uid(),
            }],
        },
        "spec": { "drivers": [{
            "name": holdfast_api::DRIVER_NAME,
            "nodeID": told.node_id,
            "topologyKeys": keys,
        }]},
    });
    let nodes: Api<CSINode> = Api::all(client.clone());
    let mine = PatchParams::apply("kubelet").force();
    nodes
        .patch(&place.node, &mine, &Patch::Apply(&csi_node))
        .await?;
    Ok(())
}
