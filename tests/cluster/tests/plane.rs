//! The control plane itself: it is real, it schedules, it guards, and it survives its API server.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, until};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::time::Duration;

holdfast_cluster::tests!(
    pod_is_scheduled_to_the_one_node,
    bound_token_names_its_node,
    account_without_rights_is_refused,
    killed_api_server_comes_back_with_all_it_knew,
    frozen_api_server_answers_after_the_thaw,
);

const PATIENCE: Duration = Duration::from_secs(60);

/// A node that the scheduler takes: ready, with room.
async fn ensure_node(plane: &Plane, name: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(plane.client());
    if nodes.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    nodes.create(&PostParams::default(), &node).await?;
    let status = json!({ "status": {
        "allocatable": { "cpu": "8", "memory": "8Gi", "pods": "100" },
        "capacity": { "cpu": "8", "memory": "8Gi", "pods": "100" },
        "conditions": [{ "type": "Ready", "status": "True", "reason": "Test", "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    }});
    let patch = kube::api::Patch::Merge(&status);
    nodes
        .patch_status(name, &Default::default(), &patch)
        .await?;
    Ok(())
}

async fn pod_is_scheduled_to_the_one_node(plane: &mut Plane) -> anyhow::Result<()> {
    ensure_node(plane, "n1").await?;
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "none" }] },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let node = until("the pod has a node", PATIENCE, || async {
        let spec = pods.get("p").await?.spec.context("a pod has a spec")?;
        Ok(spec.node_name.ok_or_else(|| "none yet".to_owned()))
    });
    ensure!(node.await? == "n1");
    Ok(())
}

async fn bound_token_names_its_node(plane: &mut Plane) -> anyhow::Result<()> {
    ensure_node(plane, "n1").await?;
    let kubeconfig = plane.kubeconfig_of("agent", "holdfast", Some("n1")).await?;
    let reviews: Api<SelfSubjectReview> = Api::all(Plane::client_of(&kubeconfig).await?);
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|status| status.user_info);
    let user = user.context("a review names the user")?;
    ensure!(user.username.as_deref() == Some("system:serviceaccount:holdfast:agent"));
    let extra = user.extra.unwrap_or_default();
    let node = extra.get("authentication.kubernetes.io/node-name");
    ensure!(node == Some(&vec!["n1".to_owned()]), "{extra:?}");
    Ok(())
}

async fn account_without_rights_is_refused(plane: &mut Plane) -> anyhow::Result<()> {
    let kubeconfig = plane.kubeconfig_of("nobody", "holdfast", None).await?;
    let secrets: Api<Secret> = Api::default_namespaced(Plane::client_of(&kubeconfig).await?);
    match secrets.list(&ListParams::default()).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 403 => Ok(()),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}

async fn killed_api_server_comes_back_with_all_it_knew(plane: &mut Plane) -> anyhow::Result<()> {
    plane.kubectl(&["create", "configmap", "kept", "--from-literal=word=hello"])?;
    plane.stop_api()?;
    ensure!(plane.kubectl(&["get", "configmap", "kept"]).is_err());
    plane.start_api().await?;
    let word = plane.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.word}"])?;
    ensure!(word == "hello", "{word:?}");
    Ok(())
}

async fn frozen_api_server_answers_after_the_thaw(plane: &mut Plane) -> anyhow::Result<()> {
    plane.freeze_api()?;
    let refused = plane.kubectl(&["get", "--raw=/readyz", "--request-timeout=1s"]);
    plane.thaw_api()?;
    ensure!(refused.is_err(), "a frozen server said {refused:?}");
    ensure!(plane.kubectl(&["get", "--raw=/readyz"])? == "ok");
    Ok(())
}
