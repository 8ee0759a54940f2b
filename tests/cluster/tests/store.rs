//! The store on a real API server: it does what every store must, its kinds hold their rules, and no trouble of the server
//! loses anything or holds anybody up.
#![forbid(unsafe_code)]

#[allow(clippy::unwrap_used)]
#[path = "../../../store/tests/conformance/mod.rs"]
mod conformance;
#[path = "store/events.rs"]
mod events;
#[path = "store/newer.rs"]
mod newer;
#[path = "store/rules.rs"]
mod rules;
#[path = "store/trouble.rs"]
mod trouble;

use anyhow::{Context, ensure};
use events::{equal_events_are_counted_together, event_names_whom_else_it_concerns};
use holdfast_api::{
    BlockPool, OrphanExtent, SplitVolume, SplitVolumeSpec, VolumeSession, quantity,
};
use holdfast_cluster::{Plane, until};
use holdfast_store::{KubeStore, KubeStoreConfig, Object, Store};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{CustomResourceExt, ResourceExt};
use newer::field_of_a_newer_version_survives_our_writes;
use rules::{columns_read_well, each_rule_of_the_kinds_is_held, key_that_no_kind_has_is_refused};
use std::time::Duration;
use trouble::{
    frozen_api_server_holds_nobody_up, killed_api_server_is_unavailable_and_its_watch_comes_back,
    kind_that_is_not_installed_is_no_absence, list_is_whole_over_many_pages,
    watch_whose_past_is_forgotten_starts_over,
};

holdfast_cluster::tests!(
    kind_that_is_not_installed_is_no_absence,
    kinds_are_accepted,
    store_in_a_cluster_does_what_every_store_must,
    each_rule_of_the_kinds_is_held,
    key_that_no_kind_has_is_refused,
    columns_read_well,
    node_lists_and_watches_only_its_own,
    field_of_a_newer_version_survives_our_writes,
    equal_events_are_counted_together,
    event_names_whom_else_it_concerns,
    list_is_whole_over_many_pages,
    killed_api_server_is_unavailable_and_its_watch_comes_back,
    watch_whose_past_is_forgotten_starts_over,
    frozen_api_server_holds_nobody_up,
);

const PATIENCE: Duration = Duration::from_secs(60);
/// A watch of a real server tells what is over within this time.
const SETTLE: Duration = Duration::from_secs(1);

fn store(plane: &Plane) -> KubeStore {
    let config = KubeStoreConfig {
        field_manager: "holdfast-node",
        node: None,
    };
    KubeStore::new(plane.client(), config)
}

fn volume(name: &str, node: &str) -> SplitVolume {
    let spec = SplitVolumeSpec {
        node_name: node.to_owned(),
        pool: "p1".to_owned(),
        size: quantity(64 << 20),
        ..Default::default()
    };
    SplitVolume::new(name, spec)
}

/// Defines the kinds and waits until they are served.
async fn install(plane: &Plane) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client());
    let kinds = [
        BlockPool::crd(),
        SplitVolume::crd(),
        VolumeSession::crd(),
        OrphanExtent::crd(),
    ];
    for kind in kinds {
        let name = kind.name_any();
        if definitions.get_opt(&name).await?.is_none() {
            definitions.create(&PostParams::default(), &kind).await?;
        }
        let met = until("the kind is established", PATIENCE, async || {
            let found = definitions.get(&name).await?;
            let conditions = found.status.and_then(|status| status.conditions);
            let conditions = conditions.unwrap_or_default();
            let is_true = |condition: &&_| condition_is(condition, "Established");
            if conditions.iter().find(is_true).is_some() {
                return Ok(Ok(conditions));
            }
            Ok(Err(format!("{conditions:?}")))
        });
        let conditions = met.await?;
        let is_odd = |condition: &_| condition_is(condition, "NonStructuralSchema");
        ensure!(!conditions.iter().any(is_odd), "{name}: {conditions:?}");
    }
    Ok(())
}

fn condition_is(
    condition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition,
    kind: &str,
) -> bool {
    condition.type_ == kind && condition.status == "True"
}

/// Removes all objects of a kind, whatever holds them.
async fn clear<K: Object>(store: &KubeStore) -> anyhow::Result<()> {
    for mut object in store.list::<K>().await? {
        let name = object
            .meta()
            .name
            .clone()
            .context("a stored object has a name")?;
        if object.meta().finalizers.is_some() {
            object.meta_mut().finalizers = None;
            store.update(object).await?;
        }
        store.delete::<K>(&name).await?;
    }
    Ok(())
}

async fn empty_store(plane: &Plane) -> anyhow::Result<KubeStore> {
    install(plane).await?;
    let store = store(plane);
    clear::<BlockPool>(&store).await?;
    clear::<SplitVolume>(&store).await?;
    clear::<VolumeSession>(&store).await?;
    clear::<OrphanExtent>(&store).await?;
    Ok(store)
}

async fn kinds_are_accepted(plane: &mut Plane) -> anyhow::Result<()> {
    install(plane).await
}

async fn store_in_a_cluster_does_what_every_store_must(plane: &mut Plane) -> anyhow::Result<()> {
    let plane = &*plane;
    let fresh = async || empty_store(plane).await.expect("the server works");
    conformance::all(fresh, SETTLE).await;
    Ok(())
}

async fn node_lists_and_watches_only_its_own(plane: &mut Plane) -> anyhow::Result<()> {
    let all = empty_store(plane).await?;
    let config = KubeStoreConfig {
        field_manager: "holdfast-node",
        node: Some("n1".to_owned()),
    };
    let ours = KubeStore::new(plane.client(), config);
    let mut changes = ours.watch::<SplitVolume>();
    settle(&mut changes).await;
    all.create(volume("theirs", "n2")).await?;
    ensure!(
        tokio::time::timeout(SETTLE, changes.changed())
            .await
            .is_err()
    );
    all.create(volume("ours", "n1")).await?;
    tokio::time::timeout(PATIENCE, changes.changed()).await?;
    let names: Vec<_> = ours.list::<SplitVolume>().await?;
    let names: Vec<_> = names.iter().map(ResourceExt::name_any).collect();
    ensure!(names == ["ours"], "{names:?}");
    Ok(())
}

/// Takes what a watch has to tell until it rests.
async fn settle(changes: &mut holdfast_store::Changes) {
    while tokio::time::timeout(SETTLE, changes.changed())
        .await
        .is_ok()
    {}
}
