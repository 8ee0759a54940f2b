//! The rules of the kinds, as the API server holds them: what is refused, with which words, and what must not be refused.

use crate::{clear, empty_store, volume};
use anyhow::{Context, bail, ensure};
use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, VolumeSession};
use holdfast_cluster::Plane;
use holdfast_store::{KubeStore, Object};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// A change of a good object, and a word of the refusal; without a word it must be taken.
type Case = (Value, Option<&'static str>);

fn sample<K: Object>() -> Value {
    let spec = match &*K::kind(&()) {
        "BlockPool" => json!({ "nodeName": "n1", "device": { "serial": "S1" } }),
        "SplitVolume" => json!({ "nodeName": "n1", "pool": "p1", "size": "1Gi" }),
        "VolumeSession" => json!({
            "nodeName": "n1", "volume": "a", "stagingPath": "/s", "accessMode": "SINGLE_NODE_WRITER"
        }),
        _ => json!({ "nodeName": "n1", "pool": "p1", "volumeId": "a", "size": "1Gi" }),
    };
    json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": { "name": "a" }, "spec": spec })
}

fn api<K: Object>(store: &KubeStore) -> Api<DynamicObject> {
    Api::all_with(store.client(), &ApiResource::erase::<K>(&()))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().map(|target| target.remove(key));
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn judge<T>(case: &Case, answer: Result<T, kube::Error>) -> anyhow::Result<()> {
    match (case, answer) {
        ((_, None), Ok(_)) => Ok(()),
        ((_, Some(word)), Err(kube::Error::Api(status))) if status.code == 422 => {
            let message = &status.message;
            ensure!(
                message.contains(word),
                "{}: {word:?} is not in {message:?}",
                case.0
            );
            Ok(())
        }
        (case, Ok(_)) => bail!("{} is taken", case.0),
        (case, Err(error)) => bail!("{}: {error}", case.0),
    }
}

/// Makes the changed object anew for each case.
async fn create<K: Object>(store: &KubeStore, cases: &[Case]) -> anyhow::Result<()> {
    for case in cases {
        let mut object = sample::<K>();
        merge(&mut object, &case.0);
        let object: DynamicObject = serde_json::from_value(object)?;
        judge(
            case,
            api::<K>(store)
                .create(&PostParams::default(), &object)
                .await,
        )?;
        clear::<K>(store).await?;
    }
    Ok(())
}

/// Changes the good object; the cases follow on each other.
async fn change<K: Object>(store: &KubeStore, cases: &[Case]) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(sample::<K>())?;
    api::<K>(store)
        .create(&PostParams::default(), &object)
        .await?;
    for case in cases {
        let patch = Patch::Merge(&case.0);
        let params = PatchParams::default();
        let answer = match case.0.get("status") {
            Some(_) => api::<K>(store).patch_status("a", &params, &patch).await,
            None => api::<K>(store).patch("a", &params, &patch).await,
        };
        judge(case, answer)?;
    }
    clear::<K>(store).await
}

pub(crate) async fn each_rule_of_the_kinds_is_held(plane: &mut Plane) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    create::<SplitVolume>(&store, &new_volumes()).await?;
    change::<SplitVolume>(&store, &changed_volumes()).await?;
    create::<BlockPool>(&store, &new_pools()).await?;
    change::<BlockPool>(&store, &changed_pools()).await?;
    create::<VolumeSession>(&store, &new_sessions()).await?;
    let other = |key: &str| json!({ "spec": { key: "other" } });
    let immutable = Some("immutable");
    change::<VolumeSession>(
        &store,
        &[(other("volume"), immutable), (other("nodeName"), immutable)],
    )
    .await?;
    let changes = ["nodeName", "pool", "volumeId"].map(|key| (other(key), Some("does not change")));
    change::<OrphanExtent>(&store, &changes).await
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn named(name: &str) -> Value {
    json!({ "metadata": { "name": name } })
}

fn new_volumes() -> Vec<Case> {
    let mut cases = vec![
        (spec(json!({})), None),
        (named(&"x".repeat(300)), Some("must be no more than 253")),
        (named(&"x".repeat(64)), Some("63 characters")),
        (named("a.b"), Some("no dot")),
        (
            spec(json!({ "nodeName": "n".repeat(300) })),
            Some("nodeName"),
        ),
        (spec(json!({ "nodeName": null })), Some("nodeName")),
        (spec(json!({ "pool": "Not_A_Name" })), Some("pool")),
        (
            spec(json!({ "onDeviceLoss": "explode" })),
            Some("Unsupported value"),
        ),
        (spec(json!({ "holdSeconds": -1 })), Some("holdSeconds")),
        (
            spec(json!({ "qos": { "iopsBurst": 1 } })),
            Some("iopsBurst needs iops"),
        ),
        (
            spec(json!({ "qos": { "bps": 1, "iopsBurst": 1 } })),
            Some("iopsBurst needs iops"),
        ),
        (
            spec(json!({ "qos": { "bpsBurst": 1 } })),
            Some("bpsBurst needs bps"),
        ),
        (
            spec(json!({ "qos": { "iops": 0 } })),
            Some("greater than or equal to 1"),
        ),
        (
            spec(json!({ "qos": { "iops": 1, "iopsBurst": 2, "bps": 3, "bpsBurst": 4 } })),
            None,
        ),
        (spec(json!({ "claim": { "name": "c" } })), Some("namespace")),
        (
            spec(json!({ "claim": { "namespace": "ns", "name": "c" } })),
            None,
        ),
        (
            spec(json!({ "claim": { "namespace": "ns", "name": "c".repeat(254) } })),
            Some("Too long"),
        ),
        (
            spec(json!({ "requestedName": "x".repeat(513) })),
            Some("Too long"),
        ),
    ];
    let sizes = [
        json!("banana"),
        json!("-1Gi"),
        json!("1.5Gi"),
        json!("0"),
        json!(0),
        json!(-1),
        json!("9Ei"),
        json!(""),
    ];
    cases.extend(sizes.map(|size| (spec(json!({ "size": size })), Some("size"))));
    cases.extend(
        [json!("1048576"), json!(1_048_576), json!("3G")]
            .map(|size| (spec(json!({ "size": size })), None)),
    );
    cases
}

fn changed_volumes() -> Vec<Case> {
    let ready = json!({ "type": "Ready", "status": "True", "reason": "Ok", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let mut odd = ready.clone();
    odd["status"] = json!("Maybe");
    vec![
        (spec(json!({ "size": "1073741823" })), Some("never shrink")),
        (spec(json!({ "size": "1000M" })), Some("never shrink")),
        (spec(json!({ "size": "2Gi" })), None),
        (spec(json!({ "size": 2_147_483_648_u64 })), None),
        (spec(json!({ "size": "1Gi" })), Some("never shrink")),
        (spec(json!({ "nodeName": "n2" })), Some("immutable")),
        (spec(json!({ "pool": "p2" })), Some("immutable")),
        (spec(json!({ "qos": { "iops": 5 } })), None),
        (spec(json!({ "qos": null })), None),
        (json!({ "status": { "conditions": [ready] } }), None),
        (
            json!({ "status": { "conditions": [ready, ready] } }),
            Some("Duplicate value"),
        ),
        (
            json!({ "status": { "conditions": [odd] } }),
            Some("Unsupported value"),
        ),
        (json!({ "status": { "size": "many" } }), Some("status.size")),
        (
            json!({ "status": { "extents": [{ "offsetBytes": -1, "lengthBytes": 1 }] } }),
            Some("offsetBytes"),
        ),
        // What was asked for in vain may be taken back, down to what is on the drive.
        (json!({ "status": { "size": "1Gi" } }), None),
        (spec(json!({ "size": "1Gi" })), None),
        (spec(json!({ "size": "1023Mi" })), Some("never shrink")),
    ]
}

fn device(device: Value) -> Value {
    json!({ "spec": { "device": device } })
}

fn new_pools() -> Vec<Case> {
    let path = |path: &str| device(json!({ "serial": null, "path": path }));
    let one = Some("exactly one");
    let kernel = Some("order of discovery");
    vec![
        (spec(json!({})), None),
        (device(json!({ "serial": null })), one),
        (device(json!({ "serial": "" })), one),
        (device(json!({ "wwid": "eui.1" })), one),
        (device(json!({ "path": "/a" })), one),
        (device(json!({ "serial": null, "wwid": "eui.1" })), None),
        (device(json!({ "namespaceId": 2 })), None),
        (device(json!({ "namespaceId": 0 })), Some("namespaceId")),
        (
            device(json!({ "serial": null, "wwid": "eui.1", "namespaceId": 1 })),
            Some("goes with serial"),
        ),
        (path("/dev/disk/by-id/nvme-x"), None),
        (path("/var/lib/pool.img"), None),
        (path("/dev/loop0"), None),
        (path("/dev/mapper/vg-lv"), None),
        (path("/dev/nvme0n1"), kernel),
        (path("/dev/sda"), kernel),
        (path("//dev//vdb"), kernel),
        (path("pool.img"), Some("path")),
        (spec(json!({ "size": "1.5Gi" })), Some("size")),
    ]
}

fn changed_pools() -> Vec<Case> {
    vec![
        (spec(json!({ "nodeName": "n2" })), Some("immutable")),
        (spec(json!({ "cordoned": true })), None),
        (device(json!({ "serial": "S2" })), None),
        (
            device(json!({ "path": "/dev/sda", "serial": null })),
            Some("order of discovery"),
        ),
        (
            json!({ "status": { "free": "1.5Gi" } }),
            Some("status.free"),
        ),
    ]
}

fn new_sessions() -> Vec<Case> {
    let target = json!({ "path": "/t" });
    vec![
        (spec(json!({ "targets": [target] })), None),
        (
            spec(json!({ "targets": vec![target; 257] })),
            Some("at most 256"),
        ),
        (spec(json!({ "queues": 0 })), Some("queues")),
        (spec(json!({ "accessMode": "rw" })), Some("accessMode")),
        (spec(json!({ "volume": "" })), Some("volume")),
    ]
}

pub(crate) async fn key_that_no_kind_has_is_refused(plane: &mut Plane) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    let mut odd = sample::<SplitVolume>();
    odd["spec"]["sizze"] = json!("1Gi");
    let refused = plane.kubectl_with(&["apply", "--validate=strict", "-f", "-"], &odd.to_string());
    let refused = refused
        .err()
        .context("a misspelt key is taken")?
        .to_string();
    ensure!(refused.contains("spec.sizze"), "{refused}");
    // Without strictness it is dropped, so that nobody keeps what no one reads.
    let made = api::<SplitVolume>(&store)
        .create(&PostParams::default(), &serde_json::from_value(odd)?)
        .await?;
    ensure!(made.data["spec"].get("sizze").is_none(), "{:?}", made.data);
    let foreign = json!({ "status": { "observedGeneration": 1, "phase": "Lost" } });
    let found = api::<SplitVolume>(&store)
        .patch_status("a", &PatchParams::default(), &Patch::Merge(foreign))
        .await?;
    ensure!(
        found.data["status"].get("phase").is_none(),
        "{:?}",
        found.data
    );
    ensure!(found.data["status"]["observedGeneration"] == 1);
    Ok(())
}

pub(crate) async fn columns_read_well(plane: &mut Plane) -> anyhow::Result<()> {
    use holdfast_store::Store;
    let store = empty_store(plane).await?;
    let pool: BlockPool = serde_json::from_value(sample::<BlockPool>())?;
    let mut pool = store.create(pool).await?;
    pool.status = Some(holdfast_api::BlockPoolStatus {
        identity: "S1".to_owned(),
        capacity_bytes: 100 << 30,
        free_bytes: 36 << 30,
        largest_free_extent_bytes: 512 << 20,
        volumes: 3,
        ..Default::default()
    });
    store.update_status(pool).await?;
    let mut claimed = volume("claimed", "n1");
    claimed.spec.claim = Some(holdfast_api::ClaimRef {
        namespace: "db".into(),
        name: "data".into(),
        persistent_volume: String::new(),
    });
    store.create(claimed).await?;
    let said = plane.kubectl(&["get", "bp"])?;
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(
        lines[0]
            == [
                "NAME", "NODE", "DEVICE", "CAPACITY", "FREE", "LARGEST", "VOLUMES", "READY", "AGE"
            ],
        "{said}"
    );
    ensure!(
        lines[1][..7] == ["a", "n1", "S1", "100Gi", "36Gi", "512Mi", "3"],
        "{said}"
    );
    let said = plane.kubectl(&["get", "sv"])?;
    ensure!(said.contains("64Mi") && said.contains("data"), "{said}");
    let listed = plane.kubectl(&[
        "get",
        "holdfast",
        "--field-selector",
        "spec.nodeName=n1",
        "-o",
        "name",
    ])?;
    ensure!(
        listed.contains("blockpool.holdfast.dev/a")
            && listed.contains("splitvolume.holdfast.dev/claimed"),
        "{listed}"
    );
    plane
        .kubectl(&["explain", "splitvolume.spec.qos.iopsBurst"])
        .map(drop)
}
