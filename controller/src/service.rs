//! The controller service on the wire: each call goes to the file of its name.

use crate::error::ControllerError;
use crate::{Controller, capacity, create, delete, expand, list, modify, validate};
use holdfast_proto::csi::v1 as csi;
use holdfast_store::Store;
use tonic::{Request, Response, Status};

/// What the controller offers. Snapshots and clones are not among it.
fn capabilities() -> Vec<csi::ControllerServiceCapability> {
    use csi::controller_service_capability::{Rpc, Type, rpc};
    [
        rpc::Type::CreateDeleteVolume,
        rpc::Type::ListVolumes,
        rpc::Type::GetCapacity,
        rpc::Type::ExpandVolume,
        rpc::Type::ModifyVolume,
        rpc::Type::GetVolume,
        rpc::Type::VolumeCondition,
        rpc::Type::SingleNodeMultiWriter,
    ]
    .into_iter()
    .map(|kind| csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: kind.into(),
        })),
    })
    .collect()
}

fn not_served<T>(call: &'static str) -> Result<Response<T>, Status> {
    Err(ControllerError::NotServed { call }.into())
}

#[tonic::async_trait]
impl<S: Store> csi::controller_server::Controller for Controller<S> {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let answer = create::create(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let answer = delete::delete(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Result<Response<csi::ControllerExpandVolumeResponse>, Status> {
        let answer = expand::expand(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Result<Response<csi::ControllerGetVolumeResponse>, Status> {
        let answer = list::get(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        let answer = list::list(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Result<Response<csi::GetCapacityResponse>, Status> {
        let answer = capacity::capacity(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        let answer = validate::validate(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities: capabilities(),
        }))
    }

    async fn controller_publish_volume(
        &self,
        _request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerPublishVolumeResponse>, Status> {
        not_served("ControllerPublishVolume")
    }

    async fn controller_unpublish_volume(
        &self,
        _request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerUnpublishVolumeResponse>, Status> {
        not_served("ControllerUnpublishVolume")
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Result<Response<csi::ControllerModifyVolumeResponse>, Status> {
        let answer = modify::modify(self, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn create_snapshot(
        &self,
        _request: Request<csi::CreateSnapshotRequest>,
    ) -> Result<Response<csi::CreateSnapshotResponse>, Status> {
        not_served("CreateSnapshot")
    }

    async fn delete_snapshot(
        &self,
        _request: Request<csi::DeleteSnapshotRequest>,
    ) -> Result<Response<csi::DeleteSnapshotResponse>, Status> {
        not_served("DeleteSnapshot")
    }

    async fn list_snapshots(
        &self,
        _request: Request<csi::ListSnapshotsRequest>,
    ) -> Result<Response<csi::ListSnapshotsResponse>, Status> {
        not_served("ListSnapshots")
    }

    async fn get_snapshot(
        &self,
        _request: Request<csi::GetSnapshotRequest>,
    ) -> Result<Response<csi::GetSnapshotResponse>, Status> {
        not_served("GetSnapshot")
    }
}
