//! Volumes whose claim and persistent volume are gone.

use crate::stage::{
    NAMESPACE, PATIENCE, Replica, eager, event, gone, install, is_there, note, session, store,
    volume,
};
use anyhow::ensure;
use holdfast_api::{DRIVER_NAME, SplitVolume, VolumeSession};
use holdfast_cluster::{Plane, until};
use holdfast_store::Store;
use serde_json::json;

pub(crate) async fn dry_run_tells_of_garbage_and_deletes_none(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    // Without its node the volume would go for another reason.
    node(plane)?;
    store.create(volume("unwanted", "n1")).await?;
    let mut config = eager("dry");
    config.garbage.dry_run = true;
    let replica = Replica::start(plane, config);
    let note = note(plane, "GarbageFound", "unwanted").await?;
    ensure!(note.contains("dry run"), "{note}");
    replica.pass("garbage", 3).await?;
    ensure!(is_there(&store, "unwanted").await?, "a dry run deleted");
    let found = replica.metric("holdfast_controller_garbage_volumes");
    ensure!(found == 1, "{found} found");
    replica.end().await?;
    store.delete::<SplitVolume>("unwanted").await?;
    Ok(())
}

pub(crate) async fn garbage_is_deleted_and_nothing_else(plane: &mut Plane) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    node(plane)?;
    let mut by_hand = volume("by-hand", "n1");
    by_hand.spec.claim = None;
    store.create(by_hand).await?;
    for name in ["unwanted", "has-pv", "has-claim", "staged"] {
        store.create(volume(name, "n1")).await?;
    }
    store.create(session("staged", "n1")).await?;
    plane.kubectl_with(
        &["apply", "-f", "-"],
        &persistent_volume("restored", "has-pv"),
    )?;
    plane.kubectl_with(&["apply", "-f", "-"], &claim("claim-has-claim"))?;

    let replica = Replica::start(plane, eager("sweeper"));
    let note = note(plane, "GarbageFound", "unwanted").await?;
    ensure!(note.contains("claim-unwanted"), "{note}");
    gone(&store, "unwanted").await?;
    event(plane, "GarbageDeleted", "unwanted").await?;
    replica.pass("garbage", 3).await?;
    for kept in ["by-hand", "has-pv", "has-claim", "staged"] {
        ensure!(is_there(&store, kept).await?, "{kept} was deleted");
    }
    let deleted = replica.metric("holdfast_controller_garbage_deleted_total");
    ensure!(deleted == 1, "{deleted} deleted");

    // Whatever kept a volume is gone: now it is garbage too.
    plane.kubectl(&["delete", "pv", "restored", "--wait=false"])?;
    plane.kubectl(&["delete", "pvc", "claim-has-claim", "--wait=false"])?;
    for name in ["has-pv", "has-claim"] {
        gone(&store, name).await?;
    }
    replica.end().await?;
    clear(plane, &store).await
}

async fn clear(plane: &Plane, store: &impl Store) -> anyhow::Result<()> {
    store.delete::<VolumeSession>("staged").await?;
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    plane.kubectl(&[
        "patch",
        "volumesession",
        "staged",
        "--type=merge",
        "-p",
        patch,
    ])?;
    for name in ["by-hand", "staged"] {
        store.delete::<SplitVolume>(name).await?;
    }
    plane.kubectl(&["delete", "node", "n1"])?;
    let look = || async {
        let left: Vec<SplitVolume> = store.list().await?;
        Ok(left
            .is_empty()
            .then_some(())
            .ok_or("some are left".to_owned()))
    };
    until("nothing is left", PATIENCE, look).await
}

fn node(plane: &Plane) -> anyhow::Result<()> {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    plane.kubectl_with(&["apply", "-f", "-"], &node.to_string())?;
    Ok(())
}

fn persistent_volume(name: &str, handle: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
        "spec": {
            "capacity": { "storage": "64Mi" }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "none",
            "csi": { "driver": DRIVER_NAME, "volumeHandle": handle },
        },
    })
    .to_string()
}

fn claim(name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "resources": { "requests": { "storage": "64Mi" } }, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "unknown",
        },
    })
    .to_string()
}
