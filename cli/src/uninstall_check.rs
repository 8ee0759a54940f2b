//! `holdfast uninstall-check`: would anybody miss the driver? Helm asks before it uninstalls, for without the driver nobody
//! serves its volumes, and pods that use them cannot even end.

use crate::cluster::ClusterArgs;
use anyhow::{Context, bail};
use holdfast_api::{DRIVER_NAME, SplitVolume};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Which cluster to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Named in full; the rest is counted.
const NAMED: usize = 20;

/// Succeeds if no volume of the driver exists.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.cluster.client().await?;
    let volumes = volumes(&client).await?;
    if volumes.is_empty() {
        println!("No volume of {DRIVER_NAME} exists.");
        return Ok(());
    }
    bail!(
        "{} still exist:\n{}\nWithout the driver nobody serves them. Delete their claims first; or set uninstall.force=true \
         with helm upgrade, and uninstall again: the volumes then stay on their drives",
        count(volumes.len()),
        name(&volumes)
    )
}

/// What is known of each volume, by its id: a volume may have lost its PersistentVolume, or the other way round.
async fn volumes(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for volume in list::<SplitVolume>(client).await? {
        let node = &volume.spec.node_name;
        found.insert(volume.name_any(), format!("SplitVolume on node {node}"));
    }
    for volume in list::<PersistentVolume>(client).await? {
        let name = volume.name_any();
        let spec = volume.spec.unwrap_or_default();
        if let Some(csi) = spec.csi.as_ref().filter(|csi| csi.driver == DRIVER_NAME) {
            let handle = csi.volume_handle.clone();
            found.insert(handle, format!("PersistentVolume {name}{}", claim(&spec)));
        }
    }
    Ok(found)
}

/// All objects of a kind; none where the cluster does not know the kind.
async fn list<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", K::plural(&()))),
    }
}

fn claim(spec: &PersistentVolumeSpec) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    spec.claim_ref.as_ref().map_or_else(String::new, |claim| {
        format!(" of claim {}/{}", part(&claim.namespace), part(&claim.name))
    })
}

fn count(volumes: usize) -> String {
    match volumes {
        1 => format!("1 volume of {DRIVER_NAME}"),
        many => format!("{many} volumes of {DRIVER_NAME}"),
    }
}

fn name(volumes: &BTreeMap<String, String>) -> String {
    let mut lines: Vec<String> = volumes
        .iter()
        .take(NAMED)
        .map(|(id, what)| format!("  {id}: {what}"))
        .collect();
    if let Some(more @ 1..) = volumes.len().checked_sub(NAMED) {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}
