//! Beside a newer version: its kinds have fields that this version does not know, and this version's writes leave them alone.

use crate::{PATIENCE, empty_store, volume};
use anyhow::{Context, ensure};
use holdfast_api::{SplitVolume, SplitVolumeStatus};
use holdfast_cluster::{Plane, until};
use holdfast_store::{KubeStore, Store};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::CustomResourceExt;
use serde_json::{Value, json};

const FIELD: &str = "ofTheFuture";

pub(crate) async fn field_of_a_newer_version_survives_our_writes(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    define(plane, &newer()?).await?;
    let lived = live_beside_the_newer(plane, &store).await;
    // For the tests that follow, whatever became of this one.
    define(plane, &serde_json::to_value(SplitVolume::crd())?).await?;
    lived
}

/// The kind with one more field in spec, in status, and in a volume's limits.
fn newer() -> anyhow::Result<Value> {
    let mut kind = serde_json::to_value(SplitVolume::crd())?;
    let known = &mut kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for path in ["/spec", "/status", "/spec/properties/qos"] {
        let part = known.pointer_mut(path).context("the kind has this part")?;
        part["properties"][FIELD] = json!({ "type": "string" });
    }
    Ok(kind)
}

async fn define(plane: &Plane, kind: &Value) -> anyhow::Result<()> {
    let kinds: Api<CustomResourceDefinition> = Api::all(plane.client());
    let name = SplitVolume::crd_name();
    let mut wanted: CustomResourceDefinition = serde_json::from_value(kind.clone())?;
    wanted.metadata.resource_version = kinds.get(name).await?.resource_version();
    kinds.replace(name, &PostParams::default(), &wanted).await?;
    Ok(())
}

fn raw(plane: &Plane) -> Api<DynamicObject> {
    Api::all_with(plane.client(), &ApiResource::erase::<SplitVolume>(&()))
}

/// What a newer version writes. A server takes a moment to know a kind's new fields, and drops them until then.
async fn write_as_the_newer(plane: &Plane) -> anyhow::Result<()> {
    let volumes = raw(plane);
    let field = json!({ FIELD: "kept" });
    let spec = json!({ "spec": { FIELD: "kept", "qos": { "iops": 100, FIELD: "kept" } } });
    let params = PatchParams {
        field_manager: Some("newer".to_owned()),
        ..Default::default()
    };
    until("the server knows the new field", PATIENCE, async || {
        volumes.patch("a", &params, &Patch::Merge(&spec)).await?;
        let status = json!({ "status": field });
        let patch = Patch::Merge(&status);
        let found = volumes.patch_status("a", &params, &patch).await?;
        Ok(survived(&found.data).map_err(|why| why.to_string()))
    })
    .await
}

fn survived(object: &Value) -> anyhow::Result<()> {
    for path in ["/spec", "/status", "/spec/qos"] {
        let field = object.pointer(path).and_then(|part| part.get(FIELD));
        ensure!(field == Some(&json!("kept")), "{path} lost it: {object}");
    }
    Ok(())
}

/// Everything that we ever write of an object, and the field is there after each.
async fn live_beside_the_newer(plane: &Plane, store: &KubeStore) -> anyhow::Result<()> {
    let mut made = store.create(volume("a", "n1")).await?;
    made.status = Some(SplitVolumeStatus::default());
    store.update_status(made).await?;
    write_as_the_newer(plane).await?;

    let read = async || store.get::<SplitVolume>("a").await?.context("it is there");
    let mut ours = read().await?;
    let text = serde_json::to_string(&ours)?;
    ensure!(!text.contains(FIELD), "this version knows it: {text}");
    ours.metadata.finalizers = Some(vec!["holdfast.dev/test".to_owned()]);
    ours.spec.size = holdfast_api::quantity(128 << 20);
    let mut ours = store.update(ours).await?;
    ours.spec.qos.get_or_insert_default().iops = Some(200);
    let mut ours = store.update(ours).await?;
    let status = ours.status.get_or_insert_default();
    status.observed_generation = 7;
    status.conditions = serde_json::from_value(json!([{
        "type": "Ready", "status": "True", "reason": "Ok", "message": "said by the test",
        "observedGeneration": 7, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]))?;
    let mut ours = store.update_status(ours).await?;
    let found = raw(plane).get("a").await?;
    survived(&found.data)?;
    ensure!(found.data["spec"]["qos"]["iops"] == 200, "{:?}", found.data);
    only_ours_is_ours(&found)?;

    ours.metadata.finalizers = None;
    store.update(ours).await?;
    store.delete::<SplitVolume>("a").await.map(drop)?;
    Ok(())
}

/// Who writes only what changed owns nothing else.
fn only_ours_is_ours(found: &DynamicObject) -> anyhow::Result<()> {
    let of = |manager: &str| -> anyhow::Result<String> {
        let all = found.managed_fields().iter();
        let entries = all.filter(|entry| entry.manager.as_deref() == Some(manager));
        Ok(serde_json::to_string(&entries.collect::<Vec<_>>())?)
    };
    let (ours, theirs) = (of("holdfast-node")?, of("newer")?);
    ensure!(ours.contains("f:size") && !ours.contains(FIELD), "{ours}");
    ensure!(theirs.contains(FIELD), "{theirs}");
    Ok(())
}
