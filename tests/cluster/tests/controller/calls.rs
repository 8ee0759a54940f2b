//! Calls against a real API server: its rules, and its absence.

use crate::stage::{MIB, PATIENCE, allocated, gone, install, is_there, report, store, volume};
use anyhow::{Context, ensure};
use holdfast_api::{BlockPool, BlockPoolSpec, DeviceMatch, SplitVolume, conditions, quantity};
use holdfast_cluster::{Plane, until};
use holdfast_controller::{Controller, ControllerConfig};
use holdfast_proto::csi::v1::controller_server::Controller as _;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use holdfast_proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, Volume, VolumeCapability,
};
use holdfast_store::{KubeStore, Store};
use serde_json::json;
use tonic::{Code, Request, Status};

fn controller(store: &KubeStore) -> Controller<KubeStore> {
    Controller::new(store.clone(), ControllerConfig { wait: PATIENCE })
}

fn bytes(bytes: u64) -> Option<CapacityRange> {
    Some(CapacityRange {
        required_bytes: i64::try_from(bytes).expect("a size of a test"),
        limit_bytes: 0,
    })
}

fn wish(name: &str, claim: &str) -> CreateVolumeRequest {
    let capability = VolumeCapability {
        access_mode: Some(AccessMode { mode: 1 }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    };
    let told = [
        ("csi.storage.k8s.io/pvc/name", claim),
        ("csi.storage.k8s.io/pvc/namespace", "default"),
        ("csi.storage.k8s.io/pv/name", name),
    ];
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: bytes(64 * MIB),
        volume_capabilities: vec![capability],
        parameters: told.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Default::default()
    }
}

async fn create(
    controller: &Controller<KubeStore>,
    request: CreateVolumeRequest,
) -> Result<Volume, Status> {
    let answer = controller.create_volume(Request::new(request)).await?;
    Ok(answer.into_inner().volume.expect("an answer has a volume"))
}

/// A pool that its node has opened.
async fn open_pool(plane: &Plane, store: &KubeStore) -> anyhow::Result<()> {
    let spec = BlockPoolSpec {
        node_name: "n1".to_owned(),
        device: DeviceMatch {
            serial: "s1".to_owned(),
            ..Default::default()
        },
        ..Default::default()
    };
    if store.get::<BlockPool>("p1").await?.is_none() {
        store.create(BlockPool::new("p1", spec)).await?;
    }
    let patch = json!({ "status": {
        "observedGeneration": 1, "capacity": "1Gi", "free": "1Gi", "largestFreeExtent": "1Gi",
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ok", "message": "said by the test",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    let words = [
        "patch",
        "blockpool",
        "p1",
        "--subresource=status",
        "--type=merge",
        "-p",
    ];
    plane.kubectl(&[&words[..], &[&patch.to_string()]].concat())?;
    Ok(())
}

pub(crate) async fn growth_that_is_refused_is_withdrawn(plane: &mut Plane) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    store.create(volume("full", "n1")).await?;
    allocated(plane, "full")?;
    let controller = controller(&store);
    let request = ControllerExpandVolumeRequest {
        volume_id: "full".to_owned(),
        capacity_range: bytes(128 * MIB),
        ..Default::default()
    };
    let refuse = async {
        asked_for(&store, "full", 128 * MIB).await?;
        report(
            plane,
            "full",
            "64Mi",
            (conditions::EXPANDED, "False", "NoSpace"),
        )
    };
    let call = controller.controller_expand_volume(Request::new(request));
    let (answer, refused) = tokio::join!(call, refuse);
    refused?;
    let status = answer.err().context("the volume cannot grow")?;
    ensure!(status.code() == Code::OutOfRange, "{status}");
    asked_for(&store, "full", 64 * MIB).await?;
    store.delete::<SplitVolume>("full").await?;
    Ok(())
}

async fn asked_for(store: &KubeStore, name: &str, bytes: u64) -> anyhow::Result<()> {
    let look = || async {
        let volume: SplitVolume = store.get(name).await?.context("the volume is there")?;
        let size = volume.spec.size;
        Ok((size == quantity(bytes)).then_some(()).ok_or(size.0))
    };
    until("the size is asked for", PATIENCE, look).await
}

pub(crate) async fn wish_that_breaks_a_rule_is_invalid_and_leaves_nothing(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    open_pool(plane, &store).await?;
    let answer = create(&controller(&store), wish("ruled", &"x".repeat(300))).await;
    let status = answer.err().context("no claim has a name of 300 letters")?;
    ensure!(status.code() == Code::InvalidArgument, "{status}");
    ensure!(status.message().contains("claim.name"), "{status}");
    ensure!(!is_there(&store, "ruled").await?, "it is there");
    Ok(())
}

pub(crate) async fn create_cut_short_by_a_killed_api_server_is_completed_by_its_repetition(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    install(plane)?;
    let store = store(plane);
    open_pool(plane, &store).await?;
    let first = controller(&store);
    let call = tokio::spawn(async move { create(&first, wish("cut", "claim")).await });
    let look = || async {
        let is_there = is_there(&store, "cut").await?;
        Ok(is_there.then_some(()).ok_or("not yet".to_owned()))
    };
    until("the volume is placed", PATIENCE, look).await?;
    plane.stop_api()?;
    // Nothing tells the call of the end: it looks when something changes, or at its deadline. A second one looks at once.
    let second = controller(&store);
    let status = create(&second, wish("cut", "claim"))
        .await
        .err()
        .context("there is no API server")?;
    ensure!(status.code() == Code::Unavailable, "{status}");
    plane.start_api().await?;
    allocated(plane, "cut")?;
    let made = create(&second, wish("cut", "claim")).await?;
    ensure!(made.volume_id == "cut", "{made:?}");
    // The first call may have been cut off or have waited; it never says that it failed for good.
    match call.await? {
        Ok(volume) => ensure!(volume == made, "{volume:?}"),
        Err(status) => ensure!(
            [Code::Unavailable, Code::Aborted, Code::DeadlineExceeded].contains(&status.code()),
            "{status}"
        ),
    }
    let all: Vec<SplitVolume> = store.list().await?;
    let named: Vec<_> = all.iter().filter_map(|v| v.metadata.name.clone()).collect();
    ensure!(named == ["cut"], "{named:?}");
    store.delete::<SplitVolume>("cut").await?;
    gone_if_held(plane, &store).await
}

/// Nobody plays the node here.
async fn gone_if_held(plane: &Plane, store: &KubeStore) -> anyhow::Result<()> {
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    plane.kubectl(&["patch", "splitvolume", "cut", "--type=merge", "-p", patch])?;
    gone(store, "cut").await
}
