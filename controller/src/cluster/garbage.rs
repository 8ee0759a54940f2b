//! Volumes nobody wants: their PersistentVolume and their claim are both gone. A caller that gives a claim up while its volume is
//! being made leaves such a volume; nobody else would ever ask to delete it.
//!
//! Deleting is for ever, so every doubt is an answer in favour of the volume: it must be older than a grace, made for a claim that
//! we know, on no node in use, and be found so in two passes.

use super::{GarbageConfig, Loops, ask};
use crate::error::ControllerError;
use crate::metrics::ControllerMetrics;
use crate::volume;
use holdfast_api::{ClaimRef, DRIVER_NAME, SplitVolume, VolumeSession, events};
use holdfast_store::{Announcement, Store, StoreError};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::sleep;

/// PersistentVolumes read at a time.
const PAGE: u32 = 500;

pub(super) struct Sweeper<S> {
    store: S,
    client: Client,
    metrics: ControllerMetrics,
    config: GarbageConfig,
    /// UIDs of the volumes that the pass before found.
    suspects: HashSet<String>,
}

impl<S: Store> Sweeper<S> {
    pub(super) fn new(loops: &Loops<S>) -> Self {
        Self {
            store: loops.store.clone(),
            client: loops.client.clone(),
            metrics: loops.metrics.clone(),
            config: loops.config.garbage.clone(),
            suspects: HashSet::new(),
        }
    }

    /// Looks for garbage again and again.
    pub(super) async fn run(mut self) {
        loop {
            let outcome = self.pass().await;
            self.metrics.passed("garbage", outcome);
            sleep(self.config.interval).await;
        }
    }

    /// One look. An error ends it before anything is deleted: half a list is no proof that something is gone.
    async fn pass(&mut self) -> Result<(), ControllerError> {
        let garbage = self.find().await?;
        self.metrics.garbage_found(garbage.len());
        let mut suspects = HashSet::new();
        for volume in garbage {
            let uid = volume.metadata.uid.clone().unwrap_or_default();
            let is_known = self.suspects.contains(&uid);
            suspects.insert(uid);
            match (is_known, self.config.dry_run) {
                (false, _) => self.report(&volume).await,
                (true, true) => {}
                (true, false) => self.delete(&volume).await?,
            }
        }
        self.suspects = suspects;
        Ok(())
    }

    async fn find(&self) -> Result<Vec<SplitVolume>, ControllerError> {
        let volumes: Vec<SplitVolume> = self.store.list().await?;
        let sessions: Vec<VolumeSession> = self.store.list().await?;
        let staged: HashSet<String> = sessions.into_iter().map(|s| s.spec.volume).collect();
        let now = Timestamp::now();
        let mut left = volumes;
        left.retain(|v| may_be_garbage(v, now, self.config.grace) && !staged.contains(name(v)));
        if left.is_empty() {
            return Ok(left);
        }
        let wanted = self.persistent_volumes().await?;
        left.retain(|volume| !wanted.has(volume));
        let mut garbage = Vec::new();
        for volume in left {
            if !self.is_claimed(&volume).await? {
                garbage.push(volume);
            }
        }
        Ok(garbage)
    }

    async fn persistent_volumes(&self) -> Result<PersistentVolumes, ControllerError> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut page = ListParams::default().limit(PAGE);
        let mut seen = PersistentVolumes::default();
        // Ends with the last page, which names no next one.
        loop {
            let list = ask("list", "PersistentVolumes", api.list(&page)).await?;
            list.items.into_iter().for_each(|volume| seen.add(volume));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(seen),
            }
        }
    }

    async fn is_claimed(&self, volume: &SplitVolume) -> Result<bool, ControllerError> {
        let Some(claim) = &volume.spec.claim else {
            return Ok(true);
        };
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), &claim.namespace);
        let what = format!(
            "PersistentVolumeClaim \"{}/{}\"",
            claim.namespace, claim.name
        );
        let found = ask("read", &what, api.get_opt(&claim.name)).await?;
        Ok(found.is_some_and(|found| may_want(&found, claim)))
    }

    async fn report(&self, volume: &SplitVolume) {
        let next = if self.config.dry_run {
            "it stays, for this is a dry run".to_owned()
        } else {
            let seconds = self.config.interval.as_secs();
            format!("it is deleted unless one of them is back in {seconds} s")
        };
        let message = format!("{}: {next}", story(volume));
        tracing::warn!(volume = name(volume), %message, "Garbage found");
        let event = Announcement::warning(events::GARBAGE_FOUND, message);
        self.store.announce(volume, event).await;
    }

    async fn delete(&self, found: &SplitVolume) -> Result<(), ControllerError> {
        match self.store.delete_unchanged(found).await {
            Ok(true) => {}
            // Somebody wrote it since we looked, or made another volume of that name: the next pass judges anew.
            Ok(false) | Err(StoreError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.metrics.garbage_deleted();
        tracing::warn!(volume = name(found), "Garbage deleted");
        let event = Announcement::normal(events::GARBAGE_DELETED, story(found));
        self.store.announce(found, event).await;
        Ok(())
    }
}

/// What the cluster's PersistentVolumes refer to.
#[derive(Debug, Default)]
struct PersistentVolumes {
    names: HashSet<String>,
    handles: HashSet<String>,
}

impl PersistentVolumes {
    fn add(&mut self, volume: PersistentVolume) {
        self.names.extend(volume.metadata.name);
        let csi = volume.spec.and_then(|spec| spec.csi);
        if let Some(csi) = csi.filter(|csi| csi.driver == DRIVER_NAME) {
            self.handles.insert(csi.volume_handle);
        }
    }

    fn has(&self, volume: &SplitVolume) -> bool {
        let claim = volume.spec.claim.as_ref();
        self.handles.contains(name(volume))
            || claim.is_some_and(|claim| self.names.contains(&claim.persistent_volume))
    }
}

/// What can be said without asking the cluster. Without a claim nobody knows what the volume is for: a person made it.
fn may_be_garbage(volume: &SplitVolume, now: Timestamp, grace: Duration) -> bool {
    let made = volume.metadata.creation_timestamp.as_ref();
    let is_old = made.is_some_and(|made| {
        let age = Duration::try_from(now.duration_since(made.0)).unwrap_or_default();
        age >= grace
    });
    is_old && volume.spec.claim.is_some() && !volume::is_deleting(volume)
}

/// Whether a claim of the right name may be the one the volume was made for. One that is bound elsewhere is its successor.
fn may_want(found: &PersistentVolumeClaim, claim: &ClaimRef) -> bool {
    let bound_to = found.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    let bound_to = bound_to.unwrap_or_default();
    bound_to.is_empty() || claim.persistent_volume.is_empty() || bound_to == claim.persistent_volume
}

fn story(volume: &SplitVolume) -> String {
    match &volume.spec.claim {
        Some(claim) => format!(
            "claim {}/{} and persistent volume {:?} do not exist",
            claim.namespace, claim.name, claim.persistent_volume
        ),
        None => "nobody claims it".to_owned(),
    }
}

fn name(volume: &SplitVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
