//! What users ask of a cluster, and what they wait for: claims, pods, volumes.

use super::Lab;
use crate::until;
use anyhow::Context;
use holdfast_api::{BlockPool, SplitVolume, parse_quantity};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// Far more than any step needs on a busy machine: reached only by a defect.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A pod that runs, and the volume in it.
#[derive(Clone, Debug)]
pub struct Running {
    /// The pod's UID.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// The name of its PersistentVolume, and of the SplitVolume.
    pub volume: String,
}

impl Lab {
    /// Asks for a volume of `size`, as in `64Mi`.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn claim(&self, name: &str, size: &str) -> anyhow::Result<()> {
        let claim = json!({
            "metadata": { "name": name },
            "spec": {
                "storageClassName": "holdfast",
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": size } },
            },
        });
        let claim = serde_json::from_value(claim)?;
        self.claims().create(&PostParams::default(), &claim).await?;
        Ok(())
    }

    /// Makes a pod that uses the claim of the same name; on `node`, or where the scheduler wants it.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn pod(&self, name: &str, node: Option<&str>) -> anyhow::Result<()> {
        let selector = node.map(|node| json!({ "kubernetes.io/hostname": node }));
        let pod = json!({
            "metadata": { "name": name },
            "spec": {
                "nodeSelector": selector,
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "vm", "image": "none",
                    "volumeMounts": [{ "name": "disk", "mountPath": "/disk" }] }],
                "volumes": [{ "name": "disk", "persistentVolumeClaim": { "claimName": name } }],
            },
        });
        let pod = serde_json::from_value(pod)?;
        self.pods().create(&PostParams::default(), &pod).await?;
        Ok(())
    }

    /// A claim and its pod, running.
    ///
    /// # Errors
    /// If it does not run in time.
    pub async fn run(&self, name: &str, size: &str, node: Option<&str>) -> anyhow::Result<Running> {
        self.claim(name, size).await?;
        self.pod(name, node).await?;
        self.until_running(name).await
    }

    /// Waits until the pod runs, and so its volume is published.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn until_running(&self, name: &str) -> anyhow::Result<Running> {
        let pods = self.pods();
        let what = format!("pod {name} runs");
        let pod = until(&what, PATIENCE, || async {
            let pod = pods.get(name).await?;
            let status = pod.status.clone().unwrap_or_default();
            let runs = status.phase.as_deref() == Some("Running");
            Ok(runs.then_some(pod).ok_or_else(|| {
                format!(
                    "{:?}, {:?}; {}",
                    status.phase,
                    status.conditions,
                    self.hints()
                )
            }))
        })
        .await?;
        let claim = self.claims().get(name).await?;
        Ok(Running {
            uid: pod.uid().context("a pod has a UID")?,
            node: pod
                .spec
                .and_then(|spec| spec.node_name)
                .context("a running pod has a node")?,
            volume: claim
                .spec
                .and_then(|spec| spec.volume_name)
                .context("it is bound")?,
        })
    }

    /// Waits until the claim is bound to a volume.
    ///
    /// # Errors
    /// If it is not in time.
    pub async fn until_bound(&self, name: &str) -> anyhow::Result<()> {
        let claims = self.claims();
        let what = format!("claim {name} is bound");
        until(&what, PATIENCE, || async {
            let phase = claims
                .get(name)
                .await?
                .status
                .and_then(|status| status.phase);
            let bound = phase.as_deref() == Some("Bound");
            Ok(bound.then_some(()).ok_or_else(|| self.hints()))
        })
        .await
    }

    /// Deletes the pod and its claim, if they are there.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let words = [
            "pod,persistentvolumeclaim",
            name,
            "--ignore-not-found",
            "--wait=false",
        ];
        self.plane
            .kubectl(&[&["delete"], &words[..]].concat())
            .map(drop)
    }

    /// Deletes the pod alone and waits until it is gone.
    ///
    /// # Errors
    /// If it does not go in time.
    pub async fn remove_pod(&self, name: &str) -> anyhow::Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        let (pods, what) = (self.pods(), format!("pod {name} is gone"));
        until(&what, PATIENCE, || async {
            let left = pods.get_opt(name).await?;
            Ok(left.map_or(Ok(()), |_| Err(self.hints())))
        })
        .await
    }

    /// Waits until nothing is left of any volume: no object, and each pool as empty as when it was made.
    ///
    /// # Errors
    /// If something stays.
    pub async fn until_empty(&self) -> anyhow::Result<()> {
        let volumes: Api<SplitVolume> = Api::all(self.client());
        let pools: Api<BlockPool> = Api::all(self.client());
        until(
            "every volume is erased and its space is free",
            PATIENCE,
            || async {
                let left = volumes.list(&ListParams::default()).await?;
                let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
                if !left.is_empty() {
                    return Ok(Err(format!("{left:?} are left; {}", self.hints())));
                }
                let mut full = Vec::new();
                for pool in pools.list(&ListParams::default()).await? {
                    let status = pool.status.clone().unwrap_or_default();
                    if status.allocated_bytes != 0 || status.erase_pending_bytes != 0 {
                        full.push(format!("{}: {status:?}", pool.name_any()));
                    }
                }
                Ok(full.is_empty().then_some(()).ok_or_else(|| full.join("; ")))
            },
        )
        .await
    }

    /// Waits until an event of this reason is told of an object of this name.
    ///
    /// # Errors
    /// If none is in time; the message has the reasons that were told.
    pub async fn until_told(&self, reason: &str, name: &str) -> anyhow::Result<()> {
        let events: Api<Event> = Api::all(self.client());
        let what = format!("{reason} is told of {name}");
        until(&what, PATIENCE, || async {
            let all = events.list(&ListParams::default()).await?;
            let of_it = all.iter().filter(|event| {
                let about = event.regarding.as_ref();
                about.and_then(|about| about.name.as_deref()) == Some(name)
            });
            let told: Vec<_> = of_it.filter_map(|event| event.reason.clone()).collect();
            let is_told = told.iter().any(|told| told == reason);
            Ok(is_told.then_some(()).ok_or_else(|| format!("{told:?}")))
        })
        .await
    }

    /// All SplitVolumes there are.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn volumes(&self) -> anyhow::Result<Vec<SplitVolume>> {
        let volumes: Api<SplitVolume> = Api::all(self.client());
        Ok(volumes.list(&ListParams::default()).await?.items)
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.plane.client()
    }

    /// The claims of users.
    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::default_namespaced(self.client())
    }

    /// The pods of users.
    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client())
    }

    /// The scheduler places nothing before each node's free space is published.
    pub(super) async fn until_capacity_is_known(&self) -> anyhow::Result<()> {
        let figures: Api<CSIStorageCapacity> = Api::all(self.client());
        until(
            "free space is published for every node",
            PATIENCE,
            || async {
                let figures = figures.list(&ListParams::default()).await?;
                let known = figures.iter().filter_map(|figure| figure.capacity.as_ref());
                let known = known.filter(|free| parse_quantity(&free.0).is_ok_and(|free| free > 0));
                let enough = known.count() >= self.nodes.len();
                Ok(enough.then_some(()).ok_or_else(|| format!("{figures:?}")))
            },
        )
        .await
    }

    /// What may explain that nothing happens.
    fn hints(&self) -> String {
        let complaints: Vec<_> = self.nodes.iter().map(super::Node::complaints).collect();
        complaints.join("\n")
    }
}
