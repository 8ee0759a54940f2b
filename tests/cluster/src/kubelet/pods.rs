//! All pods of one node: their volumes are mounted before they run, and unmounted before they are gone.

use super::Place;
use super::calls::{Driver, Mount};
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of the node's pods from one look to the next.
pub(super) struct Pods {
    client: Client,
    place: Place,
    complaints: Arc<Mutex<Vec<String>>>,
    /// By the pod's UID; begun counts, for a call whose answer got lost may have worked.
    mounts: HashMap<String, Vec<Mount>>,
}

impl Pods {
    pub(super) fn new(client: Client, place: Place, complaints: Arc<Mutex<Vec<String>>>) -> Pods {
        Pods {
            client,
            place,
            complaints,
            mounts: HashMap::new(),
        }
    }

    /// Does for every pod what is next. Returns whether nothing is left to do.
    pub(super) async fn sync(&mut self) -> bool {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let own = ListParams::default().fields(&format!("spec.nodeName={}", self.place.node));
        let mut done;
        match pods.list(&own).await {
            Err(why) => done = self.complain(&why.into()),
            Ok(pods) => {
                let here: Vec<_> = pods.iter().filter_map(ResourceExt::uid).collect();
                done = self.clean_up(&here).await;
                for pod in pods {
                    if let Err(why) = self.sync_one(&pod).await {
                        done = self.complain(&why.context(format!("pod {}", pod.name_any())));
                    }
                }
            }
        }
        done
    }

    /// Unmounts what pods used that are gone without waiting for it: deleted with no grace.
    async fn clean_up(&mut self, here: &[String]) -> bool {
        let known: Vec<_> = self.mounts.keys().cloned().collect();
        let mut done = true;
        for uid in known.into_iter().filter(|uid| !here.contains(uid)) {
            if let Err(why) = self.release(&uid).await {
                done = self.complain(&why.context(format!("pod {uid} that is gone")));
            }
        }
        done
    }

    /// Takes all volumes out of a pod.
    async fn release(&mut self, uid: &str) -> anyhow::Result<()> {
        let mounts = self.mounts.get(uid).cloned().unwrap_or_default();
        for mount in &mounts {
            Driver::connect(&self.place.endpoint)
                .await?
                .unmount(mount)
                .await?;
        }
        self.mounts.remove(uid);
        Ok(())
    }

    /// Notes what went wrong; never done then.
    fn complain(&self, why: &anyhow::Error) -> bool {
        let complaints = self.complaints.lock();
        complaints
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{why:#}"));
        false
    }

    async fn sync_one(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() {
            self.end(pod).await
        } else if phase != Some("Running") {
            self.begin(pod).await
        } else {
            Ok(())
        }
    }

    async fn begin(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let uid = pod.uid().context("a pod has a UID")?;
        let volumes = self.volumes_of(pod).await?;
        let mounts = volumes
            .iter()
            .map(|volume| Mount::new(&self.place, pod, volume));
        let mounts = mounts.collect::<anyhow::Result<Vec<_>>>()?;
        self.mounts.insert(uid, mounts.clone());
        for mount in &mounts {
            Driver::connect(&self.place.endpoint)
                .await?
                .mount(mount)
                .await?;
        }
        self.report_running(pod).await
    }

    async fn end(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let uid = pod.uid().context("a pod has a UID")?;
        self.release(&uid).await?;
        let only_this = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.pods_beside(pod)
            .delete(&pod.name_any(), &only_this)
            .await?;
        Ok(())
    }

    async fn volumes_of(&self, pod: &Pod) -> anyhow::Result<Vec<PersistentVolume>> {
        let namespace = pod.namespace().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut found = Vec::new();
        for name in claims_of(pod) {
            let claim = claims.get(&name).await?;
            let phase = claim.status.and_then(|status| status.phase);
            match claim.spec.and_then(|spec| spec.volume_name) {
                Some(volume) if phase.as_deref() == Some("Bound") => {
                    found.push(volumes.get(&volume).await?);
                }
                _ => bail!("claim {name} is not bound"),
            }
        }
        Ok(found)
    }

    async fn report_running(&self, pod: &Pod) -> anyhow::Result<()> {
        let now = "2026-01-01T00:00:00Z";
        let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": now });
        let status =
            json!({ "status": { "phase": "Running", "startTime": now, "conditions": [ready] } });
        let (pods, patch) = (self.pods_beside(pod), Patch::Merge(&status));
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    fn pods_beside(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

/// The claims that the pod's volumes name.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| &spec.volumes).flatten();
    let claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.map(|claim| claim.claim_name.clone()).collect()
}
