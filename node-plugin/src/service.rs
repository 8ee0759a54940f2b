//! The CSI node service: takes calls, checks them, and hands each to its own file.
//!
//! One operation per volume at a time; work goes on when its caller hangs up. What a call wants is first written into the
//! VolumeSession, then done, so that a repeated call finds out from there and from the kernel what is left to do.

mod look;
mod publish;
mod stage;
mod wait;

use crate::agent::Agent;
use crate::error::NodeError;
use crate::path::Targets;
use holdfast_api::{SplitVolume, TOPOLOGY_KEY, check_object_name};
use holdfast_csi::{Access, Operations, check_capability};
use holdfast_kubevirt::PublishGate;
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::node_server::{Node, NodeServer};
use holdfast_proto::csi::v1::node_service_capability::rpc;
use holdfast_store::Store;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Settings of a [`NodeService`].
#[derive(Debug, Clone)]
pub struct NodeServiceConfig {
    /// Most volumes the scheduler may place on this node; 0 leaves it open.
    pub volumes_max: i64,
    /// Targets outside this directory are refused.
    pub target_root: PathBuf,
    /// How long a call waits for the agent before it is answered DEADLINE_EXCEEDED.
    pub patience: Duration,
    /// Asked whether a pod may have a volume, in clusters with KubeVirt.
    pub gate: Option<PublishGate>,
}

impl Default for NodeServiceConfig {
    fn default() -> NodeServiceConfig {
        NodeServiceConfig {
            volumes_max: 0,
            target_root: "/".into(),
            patience: Duration::from_secs(20),
            gate: None,
        }
    }
}

/// The CSI node service. Clones share the operations under way.
#[derive(Debug, Clone)]
pub struct NodeService<S> {
    agent: Agent<S>,
    config: NodeServiceConfig,
    targets: Arc<Targets>,
    operations: Operations,
}

impl<S: Store> NodeService<S> {
    /// The service beside an agent of the same process.
    ///
    /// # Errors
    /// When the root of targets cannot be opened.
    pub fn new(agent: Agent<S>, config: NodeServiceConfig) -> Result<NodeService<S>, NodeError> {
        let targets = Arc::new(Targets::below(&config.target_root)?);
        Ok(NodeService {
            agent,
            config,
            targets,
            operations: Operations::new(),
        })
    }

    /// The service as tonic routes it.
    #[must_use]
    pub fn into_server(self) -> NodeServer<NodeService<S>> {
        NodeServer::new(self)
    }

    fn store(&self) -> &S {
        self.agent.store()
    }

    /// The volume, if it exists and lives here. An id that no object can have is unknown, not malformed.
    async fn volume(&self, id: &str) -> Result<SplitVolume, NodeError> {
        let unknown = || NodeError::UnknownVolume { id: id.to_owned() };
        check_object_name(id).map_err(|_| unknown())?;
        let volume = self.store().get::<SplitVolume>(id).await?;
        let volume = volume.ok_or_else(unknown)?;
        if !self.agent.is_ours(&volume.spec.node_name) {
            return Err(NodeError::OtherNode {
                id: id.to_owned(),
                node: volume.spec.node_name,
            });
        }
        Ok(volume)
    }
}

/// Refuses an empty field.
pub(crate) fn required(value: &str, field: &'static str) -> Result<(), NodeError> {
    if value.is_empty() {
        return Err(NodeError::Missing { field });
    }
    Ok(())
}

/// The fields without which no call is looked at, and the capability.
fn checked(
    fields: &[(&str, &'static str)],
    capability: Option<&csi::VolumeCapability>,
) -> Result<Access, Status> {
    for (value, field) in fields {
        required(value, field)?;
    }
    check_capability(capability)
}

#[tonic::async_trait]
impl<S: Store> Node for NodeService<S> {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let call = request.into_inner();
        let fields = [
            (call.volume_id.as_str(), "volume_id"),
            (&call.staging_target_path, "staging_target_path"),
        ];
        let access = checked(&fields, call.volume_capability.as_ref())?;
        let (service, id) = (self.clone(), call.volume_id.clone());
        let work = async move { Ok(service.stage(&call, access).await?) };
        self.operations.run(&id, work).await?;
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let call = request.into_inner();
        required(&call.volume_id, "volume_id")?;
        required(&call.staging_target_path, "staging_target_path")?;
        let (service, id) = (self.clone(), call.volume_id.clone());
        let work = async move { Ok(service.unstage(&call).await?) };
        self.operations.run(&id, work).await?;
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let call = request.into_inner();
        let fields = [
            (call.volume_id.as_str(), "volume_id"),
            (&call.target_path, "target_path"),
        ];
        let access = checked(&fields, call.volume_capability.as_ref())?;
        let (service, id) = (self.clone(), call.volume_id.clone());
        let work = async move { Ok(service.publish(&call, access).await?) };
        self.operations.run(&id, work).await?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let call = request.into_inner();
        required(&call.volume_id, "volume_id")?;
        required(&call.target_path, "target_path")?;
        let (service, id) = (self.clone(), call.volume_id.clone());
        let work = async move { Ok(service.unpublish(&call).await?) };
        self.operations.run(&id, work).await?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        let call = request.into_inner();
        required(&call.volume_id, "volume_id")?;
        required(&call.volume_path, "volume_path")?;
        Ok(Response::new(self.stats(&call).await?))
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        let call = request.into_inner();
        required(&call.volume_id, "volume_id")?;
        required(&call.volume_path, "volume_path")?;
        if call.volume_capability.is_some() {
            check_capability(call.volume_capability.as_ref())?;
        }
        let range = holdfast_csi::check_capacity(call.capacity_range.as_ref())?;
        let capacity_bytes = self.expand(&call, range).await?;
        Ok(Response::new(csi::NodeExpandVolumeResponse {
            capacity_bytes,
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        use csi::node_service_capability::{Rpc, Type};
        let capabilities = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::VolumeCondition,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capability = |kind: rpc::Type| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: kind.into(),
            })),
        };
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities: capabilities.into_iter().map(capability).collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        let node_id = self.agent.config().node_name.clone();
        let segments = HashMap::from([(TOPOLOGY_KEY.to_owned(), node_id.clone())]);
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id,
            max_volumes_per_node: self.config.volumes_max,
            accessible_topology: Some(csi::Topology { segments }),
        }))
    }
}
