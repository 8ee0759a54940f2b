//! Calls of the controller service.

use super::wish::{Access, at_least, pair, size};
use crate::answer::Answer;
use holdfast_api::TOPOLOGY_KEY;
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::controller_client::ControllerClient;
use serde_json::{Value, json};
use std::collections::HashMap;
use tonic::Status;
use tonic::transport::Channel;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Call {
    /// Make a volume, or find it made; prints its id.
    CreateVolume(CreateArgs),
    /// Delete a volume; one that is not there is deleted already.
    DeleteVolume { id: String },
    /// Make a volume larger, also while a VM uses it; prints its size in bytes.
    ExpandVolume {
        id: String,
        /// At least this large, as in 2GiB.
        #[arg(long, value_parser = size)]
        size: i64,
    },
    /// List volumes: id, size in bytes, node, health.
    ListVolumes,
    /// Show one volume: id, size in bytes, node, health.
    GetVolume { id: String },
    /// Bytes that new volumes can have.
    GetCapacity {
        /// In this pool only.
        #[arg(long)]
        pool: Option<String>,
        /// On this node only.
        #[arg(long)]
        node: Option<String>,
    },
    /// Ask whether a volume can be used in a way; ends with an error if not.
    ValidateVolume {
        id: String,
        #[command(flatten)]
        access: Access,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Name of the volume; the same name gives the same volume.
    name: String,
    /// At least this large, as in 512MiB.
    #[arg(long, value_parser = size)]
    size: i64,
    /// At most this large.
    #[arg(long, value_parser = size, default_value = "0")]
    limit: i64,
    /// The pool to take it from.
    #[arg(long)]
    pool: Option<String>,
    /// A parameter, as in onDeviceLoss=fail; may be repeated.
    #[arg(long = "param", value_parser = pair, value_name = "KEY=VALUE")]
    params: Vec<(String, String)>,
    /// The node it must be on.
    #[arg(long)]
    node: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Call {
    pub(super) async fn make(self, channel: Channel) -> Result<Answer, Status> {
        let mut client = ControllerClient::new(channel);
        match self {
            Call::CreateVolume(args) => {
                let answer = client.create_volume(args.request()).await?.into_inner();
                Ok(created(&answer.volume.unwrap_or_default()))
            }
            Call::DeleteVolume { id } => {
                let request = csi::DeleteVolumeRequest {
                    volume_id: id,
                    ..Default::default()
                };
                client.delete_volume(request).await?;
                Ok(Answer::done())
            }
            Call::ExpandVolume { id, size } => expand(client, id, size).await,
            Call::ListVolumes => list(client).await,
            Call::GetVolume { id } => get(client, id).await,
            Call::GetCapacity { pool, node } => capacity(client, pool, node).await,
            Call::ValidateVolume { id, access } => validate(client, id, &access).await,
        }
    }
}

impl CreateArgs {
    fn request(self) -> csi::CreateVolumeRequest {
        let mut parameters: HashMap<String, String> = self.params.into_iter().collect();
        parameters.extend(self.pool.map(|pool| ("pool".to_owned(), pool)));
        let required = self.node.map(|node| csi::TopologyRequirement {
            requisite: vec![on_node(node)],
            preferred: Vec::new(),
        });
        csi::CreateVolumeRequest {
            name: self.name,
            capacity_range: Some(csi::CapacityRange {
                required_bytes: self.size,
                limit_bytes: self.limit,
            }),
            volume_capabilities: vec![self.access.capability()],
            parameters,
            accessibility_requirements: required,
            ..Default::default()
        }
    }
}

fn on_node(node: String) -> csi::Topology {
    csi::Topology {
        segments: HashMap::from([(TOPOLOGY_KEY.to_owned(), node)]),
    }
}

fn created(volume: &csi::Volume) -> Answer {
    Answer::new(volume.volume_id.clone(), describe(volume))
}

fn describe(volume: &csi::Volume) -> Value {
    json!({
        "volumeId": volume.volume_id,
        "capacityBytes": volume.capacity_bytes,
        "volumeContext": volume.volume_context,
        "accessibleTopology": volume
            .accessible_topology
            .iter()
            .map(|topology| &topology.segments)
            .collect::<Vec<_>>(),
    })
}

async fn expand(
    mut client: ControllerClient<Channel>,
    volume_id: String,
    size: i64,
) -> Result<Answer, Status> {
    let request = csi::ControllerExpandVolumeRequest {
        volume_id,
        capacity_range: Some(at_least(size)),
        ..Default::default()
    };
    let grown = client.controller_expand_volume(request).await?.into_inner();
    let json = json!({
        "capacityBytes": grown.capacity_bytes,
        "nodeExpansionRequired": grown.node_expansion_required,
    });
    Ok(Answer::new(grown.capacity_bytes.to_string(), json))
}

async fn list(mut client: ControllerClient<Channel>) -> Result<Answer, Status> {
    let mut rows: Vec<(csi::Volume, csi::VolumeCondition)> = Vec::new();
    let mut request = csi::ListVolumesRequest::default();
    // Ends with the empty token of the last page.
    loop {
        let page = client.list_volumes(request.clone()).await?.into_inner();
        rows.extend(page.entries.into_iter().map(|entry| {
            let condition = entry.status.and_then(|status| status.volume_condition);
            (
                entry.volume.unwrap_or_default(),
                condition.unwrap_or_default(),
            )
        }));
        if page.next_token.is_empty() {
            break;
        }
        request.starting_token = page.next_token;
    }
    let lines: Vec<String> = rows
        .iter()
        .map(|(volume, health)| line(volume, health))
        .collect();
    let json = rows
        .iter()
        .map(|(volume, health)| with_health(volume, health));
    Ok(Answer::new(lines.join("\n"), json.collect()))
}

async fn get(mut client: ControllerClient<Channel>, volume_id: String) -> Result<Answer, Status> {
    let request = csi::ControllerGetVolumeRequest { volume_id };
    let answer = client.controller_get_volume(request).await?.into_inner();
    let volume = answer.volume.unwrap_or_default();
    let health = answer.status.and_then(|status| status.volume_condition);
    let health = health.unwrap_or_default();
    Ok(Answer::new(
        line(&volume, &health),
        with_health(&volume, &health),
    ))
}

fn line(volume: &csi::Volume, health: &csi::VolumeCondition) -> String {
    let nodes: Vec<&str> = volume
        .accessible_topology
        .iter()
        .filter_map(|topology| topology.segments.get(TOPOLOGY_KEY).map(String::as_str))
        .collect();
    let state = if health.abnormal {
        "abnormal"
    } else {
        "healthy"
    };
    format!(
        "{}\t{}\t{}\t{state}",
        volume.volume_id,
        volume.capacity_bytes,
        nodes.join(",")
    )
}

fn with_health(volume: &csi::Volume, health: &csi::VolumeCondition) -> Value {
    let mut value = describe(volume);
    value["abnormal"] = health.abnormal.into();
    value["message"] = health.message.clone().into();
    value
}

async fn capacity(
    mut client: ControllerClient<Channel>,
    pool: Option<String>,
    node: Option<String>,
) -> Result<Answer, Status> {
    let request = csi::GetCapacityRequest {
        parameters: pool
            .map(|pool| ("pool".to_owned(), pool))
            .into_iter()
            .collect(),
        accessible_topology: node.map(on_node),
        ..Default::default()
    };
    let room = client.get_capacity(request).await?.into_inner();
    let json = json!({
        "availableBytes": room.available_capacity,
        "maximumVolumeBytes": room.maximum_volume_size,
        "minimumVolumeBytes": room.minimum_volume_size,
    });
    Ok(Answer::new(room.available_capacity.to_string(), json))
}

async fn validate(
    mut client: ControllerClient<Channel>,
    volume_id: String,
    access: &Access,
) -> Result<Answer, Status> {
    let request = csi::ValidateVolumeCapabilitiesRequest {
        volume_id,
        volume_capabilities: vec![access.capability()],
        ..Default::default()
    };
    let answer = client
        .validate_volume_capabilities(request)
        .await?
        .into_inner();
    let confirmed = answer.confirmed.is_some();
    let text = if confirmed {
        "confirmed"
    } else {
        "not confirmed"
    };
    let json = json!({ "confirmed": confirmed, "message": answer.message });
    let objection = (!confirmed).then_some(answer.message);
    Ok(Answer::new(text, json).objecting(objection))
}
