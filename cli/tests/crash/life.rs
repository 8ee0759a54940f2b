//! The life of one volume in CSI calls, and how each of them is known to have come true.

use crate::common::DEADLINE;
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::controller_client::ControllerClient;
use holdfast_proto::csi::v1::node_client::NodeClient;
use holdfast_proto::csi::v1::volume_capability::access_mode::Mode;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

const SIZE_BYTES: i64 = 16 << 20;
const GROWN_BYTES: i64 = 24 << 20;

/// A call in the life of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Stage,
    Publish,
    Expand,
    Unpublish,
    Unstage,
    Delete,
}

impl Step {
    pub(crate) const ALL: [Step; 7] = [
        Step::Create,
        Step::Stage,
        Step::Publish,
        Step::Expand,
        Step::Unpublish,
        Step::Unstage,
        Step::Delete,
    ];
}

/// One volume.
pub(crate) struct Life {
    id: String,
    staging: String,
    target: PathBuf,
}

impl Life {
    pub(crate) fn new(id: &str, dir: &Path) -> Self {
        let targets = dir.join("targets");
        std::fs::create_dir_all(&targets).expect("a directory for targets");
        Self {
            id: id.to_owned(),
            staging: dir.join("staging").join(id).display().to_string(),
            target: targets.join(id),
        }
    }

    /// Repeats the call as a CSI caller does, until it succeeds, and checks that it did.
    pub(crate) async fn complete(&self, step: Step, channel: &Channel) {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.call(step, channel).await {
                Ok(()) => break,
                Err(status) => {
                    let again = [Code::Aborted, Code::DeadlineExceeded, Code::Unavailable];
                    assert!(
                        again.contains(&status.code()) && Instant::now() < until,
                        "{step:?} of {}: {status}",
                        self.id
                    );
                }
            }
        }
        self.check(step, channel).await;
    }

    pub(crate) async fn call(&self, step: Step, channel: &Channel) -> Result<(), Status> {
        let mut controller = ControllerClient::new(channel.clone());
        let mut node = NodeClient::new(channel.clone());
        let (volume_id, target_path) = (self.id.clone(), self.target.display().to_string());
        let staging_target_path = self.staging.clone();
        match step {
            Step::Create => controller.create_volume(self.create()).await.map(drop),
            Step::Stage => {
                let request = csi::NodeStageVolumeRequest {
                    volume_id,
                    staging_target_path,
                    volume_capability: Some(capability()),
                    ..Default::default()
                };
                node.node_stage_volume(request).await.map(drop)
            }
            Step::Publish => {
                let request = csi::NodePublishVolumeRequest {
                    volume_id,
                    staging_target_path,
                    target_path,
                    volume_capability: Some(capability()),
                    ..Default::default()
                };
                node.node_publish_volume(request).await.map(drop)
            }
            Step::Expand => {
                let request = csi::ControllerExpandVolumeRequest {
                    volume_id,
                    capacity_range: Some(at_least(GROWN_BYTES)),
                    ..Default::default()
                };
                controller.controller_expand_volume(request).await.map(drop)
            }
            Step::Unpublish => {
                let request = csi::NodeUnpublishVolumeRequest {
                    volume_id,
                    target_path,
                };
                node.node_unpublish_volume(request).await.map(drop)
            }
            Step::Unstage => {
                let request = csi::NodeUnstageVolumeRequest {
                    volume_id,
                    staging_target_path,
                };
                node.node_unstage_volume(request).await.map(drop)
            }
            Step::Delete => {
                let request = csi::DeleteVolumeRequest {
                    volume_id,
                    ..Default::default()
                };
                controller.delete_volume(request).await.map(drop)
            }
        }
    }

    fn create(&self) -> csi::CreateVolumeRequest {
        csi::CreateVolumeRequest {
            name: self.id.clone(),
            capacity_range: Some(at_least(SIZE_BYTES)),
            volume_capabilities: vec![capability()],
            ..Default::default()
        }
    }

    /// Checks what must hold after a step.
    pub(crate) async fn check(&self, step: Step, channel: &Channel) {
        let size = self.size_bytes(channel).await;
        let published = self.socket_is_published();
        let (expected_size, expected_published) = match step {
            Step::Create | Step::Stage => (Some(SIZE_BYTES), false),
            Step::Publish => (Some(SIZE_BYTES), true),
            Step::Expand => (Some(GROWN_BYTES), true),
            Step::Unpublish | Step::Unstage => (Some(GROWN_BYTES), false),
            Step::Delete => (None, false),
        };
        // The bystander is never grown, and neither is what follows from it.
        let expected_size = expected_size.map(|bytes| match self.id.as_str() {
            "bystander" => SIZE_BYTES,
            _ => bytes,
        });
        assert_eq!(size, expected_size, "size of {} after {step:?}", self.id);
        assert_eq!(published, expected_published, "{} after {step:?}", self.id);
        if step == Step::Unpublish {
            assert!(!self.target.exists(), "{} is left", self.target.display());
        }
    }

    /// Whether somebody listens on the socket at the target.
    fn socket_is_published(&self) -> bool {
        let socket = self.target.join("v.sock");
        let is_socket = std::fs::symlink_metadata(&socket)
            .is_ok_and(|metadata| metadata.file_type().is_socket());
        is_socket && std::os::unix::net::UnixStream::connect(&socket).is_ok()
    }

    async fn size_bytes(&self, channel: &Channel) -> Option<i64> {
        let request = csi::ControllerGetVolumeRequest {
            volume_id: self.id.clone(),
        };
        let mut controller = ControllerClient::new(channel.clone());
        match controller.controller_get_volume(request).await {
            Ok(answer) => answer
                .into_inner()
                .volume
                .map(|volume| volume.capacity_bytes),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => panic!("{}: {status}", self.id),
        }
    }
}

fn at_least(required_bytes: i64) -> csi::CapacityRange {
    csi::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    }
}

fn capability() -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}
