//! The node service's calls, with the arguments kubelet gives them.

use super::Place;
use anyhow::Context;
use holdfast_proto::csi::v1::node_client::NodeClient;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use holdfast_proto::csi::v1::{
    NodeGetInfoRequest, NodeGetInfoResponse, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::ResourceExt;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Request;
use tonic::transport::Channel;

/// Kubelet's limit for one call.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// A volume on its way into a pod.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    id: String,
    staging: PathBuf,
    target: PathBuf,
    context: HashMap<String, String>,
    pod: HashMap<String, String>,
    capability: VolumeCapability,
}

/// The driver at its socket.
pub(super) struct Driver {
    node: NodeClient<Channel>,
}

impl Mount {
    /// What kubelet takes out of the volume and the pod.
    pub(super) fn new(
        place: &Place,
        pod: &Pod,
        volume: &PersistentVolume,
    ) -> anyhow::Result<Mount> {
        let spec = volume.spec.as_ref().context("a volume has a spec")?;
        let csi = spec.csi.as_ref().context("the volume is not one of CSI")?;
        let (name, uid) = (volume.name_any(), pod.uid().context("a pod has a UID")?);
        Ok(Mount {
            id: csi.volume_handle.clone(),
            staging: place.staging(&name),
            target: place.target(&uid, &name),
            context: csi
                .volume_attributes
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            pod: pod_info(pod, uid),
            capability: capability(spec.access_modes.as_deref().unwrap_or_default()),
        })
    }
}

impl Driver {
    pub(super) async fn connect(endpoint: &str) -> anyhow::Result<Driver> {
        let channel = holdfast_csi::connect(endpoint).await?;
        let node = NodeClient::new(channel);
        Ok(Driver { node })
    }

    pub(super) async fn info(&mut self) -> anyhow::Result<NodeGetInfoResponse> {
        let answer = self
            .node
            .node_get_info(limited(NodeGetInfoRequest {}))
            .await?;
        Ok(answer.into_inner())
    }

    /// Kubelet makes the staging folder, and only the parent of the target.
    pub(super) async fn mount(&mut self, mount: &Mount) -> anyhow::Result<()> {
        fs::create_dir_all(&mount.staging)?;
        let stage = NodeStageVolumeRequest {
            volume_id: mount.id.clone(),
            staging_target_path: text(&mount.staging),
            volume_capability: Some(mount.capability.clone()),
            volume_context: mount.context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        self.node
            .node_stage_volume(limited(stage))
            .await
            .context("NodeStageVolume")?;
        fs::create_dir_all(mount.target.parent().context("a target has a parent")?)?;
        let context = mount.context.iter().chain(&mount.pod);
        let publish = NodePublishVolumeRequest {
            volume_id: mount.id.clone(),
            staging_target_path: text(&mount.staging),
            target_path: text(&mount.target),
            volume_capability: Some(mount.capability.clone()),
            volume_context: context.map(|(k, v)| (k.clone(), v.clone())).collect(),
            ..NodePublishVolumeRequest::default()
        };
        self.node
            .node_publish_volume(limited(publish))
            .await
            .context("NodePublishVolume")?;
        Ok(())
    }

    /// Takes the volume out of its pod, and unstages it: here no two pods share a volume.
    pub(super) async fn unmount(&mut self, mount: &Mount) -> anyhow::Result<()> {
        let unpublish = NodeUnpublishVolumeRequest {
            volume_id: mount.id.clone(),
            target_path: text(&mount.target),
        };
        self.node
            .node_unpublish_volume(limited(unpublish))
            .await
            .context("NodeUnpublishVolume")?;
        remove(mount.target.parent().unwrap_or(&mount.target))?;
        let unstage = NodeUnstageVolumeRequest {
            volume_id: mount.id.clone(),
            staging_target_path: text(&mount.staging),
        };
        self.node
            .node_unstage_volume(limited(unstage))
            .await
            .context("NodeUnstageVolume")?;
        remove(&mount.staging)
    }
}

/// What `podInfoOnMount` adds.
fn pod_info(pod: &Pod, uid: String) -> HashMap<String, String> {
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.clone());
    [
        ("csi.storage.k8s.io/pod.name", pod.name_any()),
        (
            "csi.storage.k8s.io/pod.namespace",
            pod.namespace().unwrap_or_default(),
        ),
        ("csi.storage.k8s.io/pod.uid", uid),
        (
            "csi.storage.k8s.io/serviceAccount.name",
            account.unwrap_or_default(),
        ),
        ("csi.storage.k8s.io/ephemeral", "false".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// As for a driver that knows SINGLE_NODE_MULTI_WRITER.
fn capability(modes: &[String]) -> VolumeCapability {
    let once_per_pod = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let mode = if once_per_pod {
        Mode::SingleNodeSingleWriter
    } else {
        Mode::SingleNodeMultiWriter
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn limited<T>(call: T) -> Request<T> {
    let mut request = Request::new(call);
    request.set_timeout(CALL_LIMIT);
    request
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Removes an empty folder; a full one is a mount that stayed, and an error.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
