//! Nodes that do not come back: the controller finishes in their place, and not a moment too early.

use crate::stage::{
    Replica, allocated, event, gone, held_volume, install, is_there, session, store,
    without_garbage,
};
use anyhow::ensure;
use holdfast_api::{SplitVolume, VolumeSession};
use holdfast_cluster::Plane;
use holdfast_store::{KubeStore, Store};
use serde_json::json;
use std::time::Duration;

/// On its node: `NODE-used` has a VM, `NODE-leaving` is being deleted, `NODE-unborn` has no space yet.
async fn furnish(plane: &Plane, store: &KubeStore, node: &str) -> anyhow::Result<()> {
    let manifest = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } });
    plane.kubectl_with(&["apply", "-f", "-"], &manifest.to_string())?;
    for name in ["used", "leaving", "unborn"] {
        store
            .create(held_volume(&format!("{node}-{name}"), node))
            .await?;
    }
    for name in ["used", "leaving"] {
        allocated(plane, &format!("{node}-{name}"))?;
    }
    let used = format!("{node}-used");
    store.create(session(&used, node)).await?;
    store
        .delete::<SplitVolume>(&format!("{node}-leaving"))
        .await?;
    Ok(())
}

async fn is_whole(store: &KubeStore, node: &str) -> anyhow::Result<bool> {
    for name in ["used", "leaving", "unborn"] {
        if !is_there(store, &format!("{node}-{name}")).await? {
            return Ok(false);
        }
    }
    let session: Option<VolumeSession> = store.get(&format!("{node}-used")).await?;
    Ok(session.is_some_and(|session| session.metadata.deletion_timestamp.is_none()))
}

async fn is_finished(plane: &Plane, store: &KubeStore, node: &str) -> anyhow::Result<()> {
    for name in ["leaving", "unborn"] {
        gone(store, &format!("{node}-{name}")).await?;
    }
    let told = event(plane, "NodeGone", &format!("{node}-leaving")).await?;
    let whom = told.related.as_ref();
    let concerns = whom.and_then(|whom| whom.name.as_deref()) == Some(node);
    ensure!(concerns, "the node is not named: {told:?}");
    let used = format!("{node}-used");
    event(plane, "NodeGone", &used).await?;
    let session: Option<VolumeSession> = store.get(&used).await?;
    ensure!(session.is_none(), "{session:?}");
    let volume: Option<SplitVolume> = store.get(&used).await?;
    let is_kept = volume.is_some_and(|v| v.metadata.deletion_timestamp.is_none());
    ensure!(
        is_kept,
        "a volume with data goes only if its deletion is asked for"
    );
    // Now it is asked for: the node's part is skipped.
    store.delete::<SplitVolume>(&used).await?;
    gone(store, &used).await
}

pub(crate) async fn node_that_is_not_ready_keeps_everything(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    furnish(plane, &store, "silent").await?;
    let condition =
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } });
    let words = ["patch", "node", "silent", "--subresource=status", "-p"];
    plane.kubectl(&[&words[..], &[&condition.to_string()]].concat())?;
    let taint = "node.kubernetes.io/unreachable:NoExecute";
    plane.kubectl(&["taint", "node", "silent", taint, "--overwrite"])?;
    let replica = Replica::start(plane, without_garbage("silent"));
    replica.pass("nodes", 4).await?;
    ensure!(is_whole(&store, "silent").await?, "something was let go");
    // What nobody may do for it, a person may declare.
    let word = "holdfast.dev/node-gone=true";
    plane.kubectl(&["annotate", "node", "silent", word])?;
    is_finished(plane, &store, "silent").await?;
    replica.end().await
}

pub(crate) async fn node_that_is_out_of_service_is_finished_at_once(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    furnish(plane, &store, "broken").await?;
    let mut config = without_garbage("broken");
    config.node_loss.grace = Duration::from_secs(3600);
    let replica = Replica::start(plane, config);
    replica.pass("nodes", 3).await?;
    ensure!(is_whole(&store, "broken").await?, "something was let go");
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    plane.kubectl(&["taint", "node", "broken", taint])?;
    is_finished(plane, &store, "broken").await?;
    replica.end().await
}

pub(crate) async fn node_that_is_gone_is_finished_after_a_grace(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    furnish(plane, &store, "sold").await?;
    plane.kubectl(&["delete", "node", "sold"])?;
    let mut config = without_garbage("patient");
    config.node_loss.grace = Duration::from_secs(3600);
    let patient = Replica::start(plane, config);
    patient.pass("nodes", 3).await?;
    ensure!(
        is_whole(&store, "sold").await?,
        "the grace was not waited for"
    );
    patient.end().await?;
    let replica = Replica::start(plane, without_garbage("eager"));
    is_finished(plane, &store, "sold").await?;
    replica.end().await
}
