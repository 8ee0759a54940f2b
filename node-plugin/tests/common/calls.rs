//! The CSI calls with the fields that a well-behaved caller sets.

use super::Node;
use holdfast_csi::Mode;
use holdfast_proto::csi::v1::node_server::Node as _;
use holdfast_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use holdfast_proto::csi::v1::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::{Code, Request, Status};

pub fn capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

pub fn staging_path(id: &str) -> String {
    format!("/plugins/csi/{}/globalmount", holdfast_api::short_id(id))
}

/// The code of an answer; an error without a message is none.
pub fn code<T>(answer: Result<T, Status>) -> Code {
    match answer {
        Ok(_) => Code::Ok,
        Err(status) => {
            assert!(!status.message().is_empty(), "{status:?} says nothing");
            assert!(status.details().is_empty());
            status.code()
        }
    }
}

impl Node {
    pub async fn stage_as(&self, id: &str, mode: Mode) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: staging_path(id),
            volume_capability: Some(capability(mode)),
            ..Default::default()
        };
        let answer = self.service.node_stage_volume(Request::new(request)).await;
        answer.map(drop)
    }

    pub async fn stage(&self, id: &str) -> Result<(), Status> {
        self.stage_as(id, Mode::SingleNodeWriter).await
    }

    pub async fn unstage(&self, id: &str) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: staging_path(id),
        };
        let answer = self
            .service
            .node_unstage_volume(Request::new(request))
            .await;
        answer.map(drop)
    }

    pub fn publish_request(&self, id: &str, target: &str, mode: Mode) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: id.into(),
            staging_target_path: staging_path(id),
            target_path: self.target(target),
            volume_capability: Some(capability(mode)),
            ..Default::default()
        }
    }

    pub async fn publish_call(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        let answer = self
            .service
            .node_publish_volume(Request::new(request))
            .await;
        answer.map(drop)
    }

    pub async fn publish(&self, id: &str, target: &str) -> Result<(), Status> {
        let request = self.publish_request(id, target, Mode::SingleNodeWriter);
        self.publish_call(request).await
    }

    pub async fn unpublish(&self, id: &str, target: &str) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.into(),
            target_path: self.target(target),
        };
        let answer = self
            .service
            .node_unpublish_volume(Request::new(request))
            .await;
        answer.map(drop)
    }

    pub async fn stats(&self, id: &str, path: &str) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.into(),
            volume_path: path.into(),
            ..Default::default()
        };
        let answer = self
            .service
            .node_get_volume_stats(Request::new(request))
            .await;
        answer.map(tonic::Response::into_inner)
    }

    pub async fn expand(&self, id: &str, path: &str, range: (i64, i64)) -> Result<i64, Status> {
        let request = NodeExpandVolumeRequest {
            volume_id: id.into(),
            volume_path: path.into(),
            capacity_range: Some(CapacityRange {
                required_bytes: range.0,
                limit_bytes: range.1,
            }),
            ..Default::default()
        };
        let answer = self.service.node_expand_volume(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().capacity_bytes)
    }
}
