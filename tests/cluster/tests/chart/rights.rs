//! What the two accounts may do on the installed release: asked of the API server, and tried with their tokens.

use crate::helm::NAMESPACE;
use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, until};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Account, verb, `resource[/subresource][.group]`, namespace (all of them if empty).
type Right = (&'static str, &'static str, &'static str, &'static str);

const MAY: &[Right] = &[
    ("controller", "create", "splitvolumes.holdfast.dev", ""),
    ("controller", "delete", "splitvolumes.holdfast.dev", ""),
    ("controller", "watch", "blockpools.holdfast.dev", ""),
    ("controller", "update", "volumesessions.holdfast.dev", ""),
    ("controller", "create", "persistentvolumes", ""),
    ("controller", "list", "persistentvolumeclaims", ""),
    ("controller", "patch", "persistentvolumeclaims/status", ""),
    ("controller", "get", "nodes", ""),
    ("controller", "list", "csinodes.storage.k8s.io", ""),
    (
        "controller",
        "get",
        "volumeattributesclasses.storage.k8s.io",
        "",
    ),
    (
        "controller",
        "create",
        "csistoragecapacities.storage.k8s.io",
        NAMESPACE,
    ),
    (
        "controller",
        "update",
        "leases.coordination.k8s.io",
        NAMESPACE,
    ),
    ("controller", "create", "events.events.k8s.io", ""),
    ("node", "watch", "splitvolumes.holdfast.dev", ""),
    ("node", "patch", "splitvolumes/status.holdfast.dev", ""),
    ("node", "update", "blockpools/status.holdfast.dev", ""),
    ("node", "create", "volumesessions.holdfast.dev", ""),
    ("node", "create", "orphanextents.holdfast.dev", ""),
    ("node", "create", "events.events.k8s.io", ""),
];

const MAY_NOT: &[Right] = &[
    ("node", "get", "secrets", NAMESPACE),
    ("node", "list", "secrets", ""),
    ("node", "get", "persistentvolumes", ""),
    ("node", "create", "persistentvolumes", ""),
    ("node", "delete", "persistentvolumes", ""),
    ("node", "update", "persistentvolumeclaims", ""),
    ("node", "create", "splitvolumes.holdfast.dev", ""),
    ("node", "delete", "splitvolumes.holdfast.dev", ""),
    ("node", "create", "blockpools.holdfast.dev", ""),
    ("node", "delete", "blockpools.holdfast.dev", ""),
    ("node", "patch", "nodes", ""),
    ("node", "create", "pods", NAMESPACE),
    ("node", "create", "pods/exec", NAMESPACE),
    ("node", "update", "leases.coordination.k8s.io", NAMESPACE),
    ("node", "create", "serviceaccounts/token", NAMESPACE),
    ("controller", "get", "secrets", NAMESPACE),
    ("controller", "list", "secrets", ""),
    ("controller", "patch", "blockpools/status.holdfast.dev", ""),
    (
        "controller",
        "patch",
        "splitvolumes/status.holdfast.dev",
        "",
    ),
    ("controller", "update", "blockpools.holdfast.dev", ""),
    ("controller", "delete", "blockpools.holdfast.dev", ""),
    ("controller", "delete", "orphanextents.holdfast.dev", ""),
    ("controller", "update", "nodes", ""),
    ("controller", "delete", "pods", NAMESPACE),
    (
        "controller",
        "update",
        "leases.coordination.k8s.io",
        "kube-system",
    ),
    ("controller", "create", "serviceaccounts/token", NAMESPACE),
    (
        "controller",
        "bind",
        "clusterroles.rbac.authorization.k8s.io",
        "",
    ),
    ("controller", "update", "storageclasses.storage.k8s.io", ""),
];

pub(crate) async fn accounts_may_what_they_must_and_nothing_else(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    for right in MAY {
        ensure!(allowed(plane, right).await?, "may not, but must: {right:?}");
    }
    for right in MAY_NOT {
        ensure!(
            !allowed(plane, right).await?,
            "may, but must not: {right:?}"
        );
    }
    Ok(())
}

async fn allowed(plane: &Plane, right: &Right) -> anyhow::Result<bool> {
    let (account, verb, what, namespace) = *right;
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let user = format!("system:serviceaccount:{NAMESPACE}:holdfast-{account}");
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(plane.client());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("a review has an answer")?.allowed)
}

const OBJECTS: &str = "
{apiVersion: v1, kind: Node, metadata: {name: mine}}
---
{apiVersion: v1, kind: Node, metadata: {name: other}}
---
apiVersion: holdfast.dev/v1alpha1
kind: SplitVolume
metadata: {name: at-mine}
spec: {nodeName: mine, pool: p, size: 1Gi}
---
apiVersion: holdfast.dev/v1alpha1
kind: SplitVolume
metadata: {name: at-other}
spec: {nodeName: other, pool: p, size: 1Gi}
";

pub(crate) async fn node_token_is_held_to_its_own_node(plane: &mut Plane) -> anyhow::Result<()> {
    plane.kubectl_with(&["apply", "-f", "-"], OBJECTS)?;
    let bound = Writer::of(plane, Some("mine")).await?;
    let unbound = Writer::of(plane, None).await?;

    // A policy takes effect a moment after it was made.
    until("the policy holds", PATIENCE, || async {
        let said = bound.edits("at-other", &finalizer()).await;
        Ok(said
            .err()
            .map(drop)
            .ok_or_else(|| "the write was let through".to_owned()))
    })
    .await?;
    let other = "may not write an object of node other";
    denied(bound.edits("at-other", &finalizer()).await, other)?;
    denied(bound.reports("at-other").await, other)?;
    denied(bound.makes_session("other").await, other)?;
    let bigger = json!({ "spec": { "size": "2Gi" } });
    denied(
        bound.edits("at-mine", &bigger).await,
        "intent of pools and volumes",
    )?;
    denied(unbound.reports("at-mine").await, "not bound to a node")?;

    bound.edits("at-mine", &finalizer()).await?;
    bound.reports("at-mine").await?;
    bound.makes_session("mine").await?;
    bound.drops_session("mine").await?;
    let held = ["patch", "splitvolume", "at-mine", "--type=merge", "-p"];
    plane.kubectl(&[&held[..], &[r#"{"metadata":{"finalizers":null}}"#]].concat())?;
    plane.kubectl(&["delete", "splitvolume/at-mine", "splitvolume/at-other"])?;
    plane.kubectl(&["delete", "node/mine", "node/other"])?;
    Ok(())
}

/// Somebody with the node agent's account.
struct Writer {
    volumes: Api<DynamicObject>,
    sessions: Api<DynamicObject>,
}

impl Writer {
    async fn of(plane: &Plane, node: Option<&str>) -> anyhow::Result<Writer> {
        let kubeconfig = plane
            .kubeconfig_of("holdfast-node", NAMESPACE, node)
            .await?;
        let client = Plane::client_of(&kubeconfig).await?;
        Ok(Writer {
            volumes: Api::all_with(client.clone(), &kind("SplitVolume")),
            sessions: Api::all_with(client, &kind("VolumeSession")),
        })
    }

    async fn edits(&self, volume: &str, change: &Value) -> kube::Result<()> {
        let (how, change) = (PatchParams::default(), Patch::Merge(change));
        self.volumes.patch(volume, &how, &change).await.map(drop)
    }

    async fn reports(&self, volume: &str) -> kube::Result<()> {
        let status = json!({ "status": { "observedGeneration": 1 } });
        let (how, status) = (PatchParams::default(), Patch::Merge(status));
        self.volumes
            .patch_status(volume, &how, &status)
            .await
            .map(drop)
    }

    async fn makes_session(&self, node: &str) -> kube::Result<()> {
        let session = DynamicObject::new(&format!("s-{node}"), &kind("VolumeSession")).data(json!({
            "spec": { "volume": "v", "nodeName": node, "stagingPath": "/s", "accessMode": "SINGLE_NODE_WRITER" }
        }));
        self.sessions
            .create(&PostParams::default(), &session)
            .await
            .map(drop)
    }

    async fn drops_session(&self, node: &str) -> kube::Result<()> {
        let name = format!("s-{node}");
        self.sessions
            .delete(&name, &DeleteParams::default())
            .await
            .map(drop)
    }
}

fn kind(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("holdfast.dev", "v1alpha1", kind))
}

fn finalizer() -> Value {
    json!({ "metadata": { "finalizers": ["holdfast.dev/node"] } })
}

pub(crate) fn denied(said: kube::Result<()>, why: &str) -> anyhow::Result<()> {
    let words = said
        .err()
        .with_context(|| format!("let through, though: {why}"))?;
    ensure!(
        words.to_string().contains(why),
        "refused for another reason: {words}"
    );
    Ok(())
}
