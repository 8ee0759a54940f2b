//! Publishing: the session's directory appears at the target.
//!
//! The order makes every step repeatable. Publish: the target is recorded, then mounted. Unpublish: unmounted and removed,
//! then struck off the record. So whatever is mounted is on record, and a target that is on record but not mounted is work
//! left over by a process that was killed.

use super::NodeService;
use crate::agent::blocking;
use crate::error::NodeError;
use crate::path::{PathError, TargetPath, Targets};
use holdfast_api::{PublishedTarget, VolumeSession, VolumeSessionSpec};
use holdfast_csi::Access;
use holdfast_proto::csi::v1 as csi;
use holdfast_store::Store;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Where kubelet names the pod, with `podInfoOnMount`.
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";

impl<S: Store> NodeService<S> {
    pub(super) async fn publish(
        &self,
        call: &csi::NodePublishVolumeRequest,
        access: Access,
    ) -> Result<(), NodeError> {
        let id = &call.volume_id;
        let path = TargetPath::parse(&call.target_path)?;
        self.volume(id).await?;
        let session = self.staged(id, &call.staging_target_path).await?;
        let session = self.without_leftovers(session, &path).await?;
        let mut wanted = PublishedTarget {
            path: path.text(),
            read_only: call.readonly || access.is_read_only(),
            access_mode: access.name().to_owned(),
            pod_uid: told(&call.volume_context, POD_UID),
            pod_name: told(&call.volume_context, POD_NAME),
            pod_namespace: told(&call.volume_context, POD_NAMESPACE),
            machine: String::new(),
        };
        self.wait_exported(id).await?;
        self.at_target(id, &path, Targets::check).await?;
        if !is_recorded(&session, &wanted, access)? {
            wanted.machine = self.admit(id, &wanted).await?;
            self.record(id, wanted).await?;
            self.wait_exported(id).await?;
        }
        self.at_target(id, &path, Targets::publish).await
    }

    pub(super) async fn unpublish(
        &self,
        call: &csi::NodeUnpublishVolumeRequest,
    ) -> Result<(), NodeError> {
        let path = TargetPath::parse(&call.target_path)?;
        let Some(session) = self.session(&call.volume_id).await? else {
            return self.retract(&call.volume_id, &path, false).await;
        };
        let recorded = |target: &PublishedTarget| target.path == path.text();
        let is_recorded = session.spec.targets.iter().any(recorded);
        self.retract(&call.volume_id, &path, is_recorded).await?;
        if is_recorded {
            let strike = |spec: &mut VolumeSessionSpec| {
                spec.targets.retain(|target| !recorded(target));
            };
            self.edit_session(&call.volume_id, strike).await?;
        }
        Ok(())
    }

    /// Whether the pod may have the volume, and which machine it runs. One that has it is not asked again: its machine runs.
    async fn admit(&self, id: &str, wanted: &PublishedTarget) -> Result<String, NodeError> {
        match &self.config.gate {
            Some(gate) if !wanted.pod_name.is_empty() => {
                let admitted = gate.admit(&wanted.pod_namespace, &wanted.pod_name, id);
                Ok(admitted.await?.unwrap_or_default())
            }
            _ => Ok(String::new()),
        }
    }

    /// The session, if the volume is staged where the call says.
    async fn staged(&self, id: &str, staging_path: &str) -> Result<VolumeSession, NodeError> {
        let not_staged = || NodeError::NotStaged {
            id: id.to_owned(),
            path: staging_path.to_owned(),
        };
        // The text decides only whether it is the recorded one, so what is malformed is simply not it.
        let path = TargetPath::parse(staging_path).map_err(|_| not_staged())?;
        let session = self.session(id).await?.ok_or_else(not_staged)?;
        if session.metadata.deletion_timestamp.is_some() {
            return Err(NodeError::BeingUnstaged { id: id.to_owned() });
        }
        if session.spec.staging_path != path.text() {
            return Err(not_staged());
        }
        Ok(session)
    }

    /// Strikes other targets off that are not mounted: after a reboot of the node their mounts are gone, and they would
    /// keep a volume that one place may have from ever being published again.
    async fn without_leftovers(
        &self,
        session: VolumeSession,
        wanted: &TargetPath,
    ) -> Result<VolumeSession, NodeError> {
        let id = session.spec.volume.clone();
        let mut gone = Vec::new();
        for target in &session.spec.targets {
            let path = TargetPath::parse(&target.path)?;
            if path != *wanted && !self.is_published(&id, &path).await? {
                tracing::info!(
                    volume = id,
                    target = target.path,
                    "Strikes off a target without a mount"
                );
                self.retract(&id, &path, true).await?;
                gone.push(target.path.clone());
            }
        }
        if gone.is_empty() {
            return Ok(session);
        }
        let strike = |spec: &mut VolumeSessionSpec| {
            spec.targets.retain(|target| !gone.contains(&target.path));
        };
        self.edit_session(&id, strike).await
    }

    /// Records the target. The first one decides whether the machine may write: the engine enforces it, not the mount, for
    /// KubeVirt must be able to change the directory's owner.
    async fn record(&self, id: &str, target: PublishedTarget) -> Result<(), NodeError> {
        let add = |spec: &mut VolumeSessionSpec| {
            spec.read_only = target.read_only;
            spec.targets.push(target.clone());
        };
        self.edit_session(id, add).await?;
        Ok(())
    }

    async fn at_target(
        &self,
        id: &str,
        path: &TargetPath,
        action: fn(&Targets, BorrowedFd<'_>, &TargetPath) -> Result<(), PathError>,
    ) -> Result<(), NodeError> {
        let (targets, path) = (Arc::clone(&self.targets), path.clone());
        let source = self.session_dir(id).await?;
        Ok(blocking(move || action(&targets, source.as_fd(), &path)).await?)
    }

    pub(super) async fn is_published(
        &self,
        id: &str,
        path: &TargetPath,
    ) -> Result<bool, NodeError> {
        let (targets, path) = (Arc::clone(&self.targets), path.clone());
        let Ok(source) = self.session_dir(id).await else {
            return Ok(false);
        };
        Ok(blocking(move || targets.shows(source.as_fd(), &path)).await?)
    }

    async fn retract(&self, id: &str, path: &TargetPath, recorded: bool) -> Result<(), NodeError> {
        let (targets, path) = (Arc::clone(&self.targets), path.clone());
        let source = self.session_dir(id).await.ok();
        let retract = move || {
            let source = source.as_ref().map(AsFd::as_fd);
            targets.retract(source, &path, recorded)
        };
        Ok(blocking(retract).await?)
    }

    async fn session_dir(&self, id: &str) -> Result<OwnedFd, NodeError> {
        let (dirs, name) = (self.agent.dirs().clone(), id.to_owned());
        let opened = blocking(move || dirs.open(&name)).await;
        opened.map_err(|source| NodeError::SessionDir {
            id: id.to_owned(),
            dir: self.agent.config().state_dir.clone(),
            source,
        })
    }
}

/// Whether exactly this target is on record; an error if another one stands in its way.
fn is_recorded(
    session: &VolumeSession,
    wanted: &PublishedTarget,
    access: Access,
) -> Result<bool, NodeError> {
    let id = || session.spec.volume.clone();
    let differs = |there: &PublishedTarget| NodeError::PublishedDifferently {
        id: id(),
        target: there.path.clone(),
        there: describe(there),
    };
    let same_arguments = |there: &PublishedTarget| {
        there.read_only == wanted.read_only && there.access_mode == wanted.access_mode
    };
    let targets = &session.spec.targets;
    if let Some(there) = targets.iter().find(|target| target.path == wanted.path) {
        return if same_arguments(there) {
            Ok(true)
        } else {
            Err(differs(there))
        };
    }
    match targets.first() {
        Some(there) if access.is_single_publisher() => Err(NodeError::PublishedElsewhere {
            id: id(),
            target: there.path.clone(),
        }),
        Some(there) if there.read_only != wanted.read_only => Err(differs(there)),
        _ => Ok(false),
    }
}

fn describe(target: &PublishedTarget) -> String {
    let access = if target.read_only {
        "read-only"
    } else {
        "writable"
    };
    format!("{} {access}", target.access_mode)
}

fn told(context: &HashMap<String, String>, key: &str) -> String {
    context.get(key).cloned().unwrap_or_default()
}
