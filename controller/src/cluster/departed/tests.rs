//! What is done in place of a node that is gone, and what only looks so.

use super::super::stand_in::{Cluster, failure};
use super::*;
use holdfast_api::SplitVolumeSpec;
use serde_json::json;

/// A volume that its node never made, held for that node.
async fn with_unborn_volume() -> Cluster {
    let cluster = Cluster::empty();
    let spec = SplitVolumeSpec {
        node_name: "n1".to_owned(),
        ..Default::default()
    };
    let mut volume = SplitVolume::new("v", spec);
    volume.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
    cluster.loops.store.create(volume).await.unwrap();
    cluster
}

async fn left(cluster: &Cluster) -> Option<SplitVolume> {
    cluster.loops.store.get("v").await.unwrap()
}

/// A watch that knows of no node.
fn blind() -> reflector::Store<Node> {
    reflector::store::<Node>().0
}

#[tokio::test]
async fn node_that_is_nowhere_is_finished() {
    let cluster = with_unborn_volume().await;
    Departed::new(&cluster.loops).pass(&blind()).await.unwrap();
    assert_eq!(left(&cluster).await, None);
}

#[tokio::test]
async fn node_that_only_the_watch_misses_keeps_everything() {
    let cluster = with_unborn_volume().await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    cluster.answer("/nodes/n1", 200, node);
    Departed::new(&cluster.loops).pass(&blind()).await.unwrap();
    let volume = left(&cluster).await.unwrap();
    assert_eq!(volume.metadata.deletion_timestamp, None);
}

#[tokio::test]
async fn node_that_nobody_can_ask_for_keeps_everything() {
    let cluster = with_unborn_volume().await;
    cluster.answer("/nodes/n1", 500, failure(500));
    let pass = Departed::new(&cluster.loops).pass(&blind()).await;
    assert!(pass.is_err());
    assert!(left(&cluster).await.is_some());
}

#[tokio::test]
async fn volume_that_changed_since_the_look_waits_for_the_next() {
    let cluster = with_unborn_volume().await;
    let seen = left(&cluster).await.unwrap();
    let mut written = seen.clone();
    written.metadata.labels = Some([("l".to_owned(), "v".to_owned())].into());
    cluster.loops.store.update(written).await.unwrap();
    let departed = Departed::new(&cluster.loops);
    departed.let_go(&seen, "n1").await.unwrap();
    let volume = left(&cluster).await.unwrap();
    assert_eq!(volume.metadata.deletion_timestamp, None);
}
