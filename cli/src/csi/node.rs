//! Calls of the node service.

use super::wish::{Access, at_least, size};
use crate::answer::Answer;
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::node_client::NodeClient;
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Call {
    /// Export a volume on this node.
    #[command(name = "node-stage")]
    Stage {
        id: String,
        /// A directory that names the staging; it is not touched.
        #[arg(long)]
        staging_path: String,
        #[command(flatten)]
        access: Access,
    },
    /// End the export of a volume.
    #[command(name = "node-unstage")]
    Unstage {
        id: String,
        #[arg(long)]
        staging_path: String,
    },
    /// Put the directory with a volume's socket at a path.
    #[command(name = "node-publish")]
    Publish(PublishArgs),
    /// Take it away from there.
    #[command(name = "node-unpublish")]
    Unpublish {
        id: String,
        #[arg(long)]
        target_path: String,
    },
    /// See to it that the node knows of a larger volume; prints its size in bytes.
    #[command(name = "node-expand")]
    Expand {
        id: String,
        /// Where the volume is published or staged.
        #[arg(long)]
        volume_path: String,
        /// At least this large, as in 2GiB.
        #[arg(long, value_parser = size)]
        size: Option<i64>,
    },
    /// Size and health of a volume at a path: total bytes, used bytes, health.
    #[command(name = "node-stats")]
    Stats {
        id: String,
        /// Where the volume is published or staged.
        #[arg(long)]
        volume_path: String,
    },
    /// Name and topology of the node.
    #[command(name = "node-info")]
    Info,
}

#[derive(Debug, clap::Args)]
pub(super) struct PublishArgs {
    id: String,
    /// The staging path that was given to node-stage.
    #[arg(long)]
    staging_path: String,
    /// Where to put the directory; it is made.
    #[arg(long)]
    target_path: String,
    /// The user of this path may not write.
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    access: Access,
}

impl Call {
    pub(super) async fn make(self, channel: Channel) -> Result<Answer, Status> {
        let mut client = NodeClient::new(channel);
        match self {
            Call::Stage {
                id,
                staging_path,
                access,
            } => {
                let request = csi::NodeStageVolumeRequest {
                    volume_id: id,
                    staging_target_path: staging_path,
                    volume_capability: Some(access.capability()),
                    ..Default::default()
                };
                client.node_stage_volume(request).await?;
                Ok(Answer::done())
            }
            Call::Unstage { id, staging_path } => {
                let request = csi::NodeUnstageVolumeRequest {
                    volume_id: id,
                    staging_target_path: staging_path,
                };
                client.node_unstage_volume(request).await?;
                Ok(Answer::done())
            }
            Call::Publish(args) => {
                client.node_publish_volume(args.request()).await?;
                Ok(Answer::done())
            }
            Call::Unpublish { id, target_path } => {
                let request = csi::NodeUnpublishVolumeRequest {
                    volume_id: id,
                    target_path,
                };
                client.node_unpublish_volume(request).await?;
                Ok(Answer::done())
            }
            Call::Expand {
                id,
                volume_path,
                size,
            } => expand(client, id, volume_path, size).await,
            Call::Stats { id, volume_path } => stats(client, id, volume_path).await,
            Call::Info => info(client).await,
        }
    }
}

impl PublishArgs {
    fn request(self) -> csi::NodePublishVolumeRequest {
        csi::NodePublishVolumeRequest {
            volume_id: self.id,
            staging_target_path: self.staging_path,
            target_path: self.target_path,
            volume_capability: Some(self.access.capability()),
            readonly: self.read_only,
            ..Default::default()
        }
    }
}

async fn expand(
    mut client: NodeClient<Channel>,
    volume_id: String,
    volume_path: String,
    size: Option<i64>,
) -> Result<Answer, Status> {
    let request = csi::NodeExpandVolumeRequest {
        volume_id,
        volume_path,
        capacity_range: size.map(at_least),
        ..Default::default()
    };
    let bytes = client
        .node_expand_volume(request)
        .await?
        .into_inner()
        .capacity_bytes;
    Ok(Answer::new(
        bytes.to_string(),
        json!({ "capacityBytes": bytes }),
    ))
}

async fn stats(
    mut client: NodeClient<Channel>,
    volume_id: String,
    volume_path: String,
) -> Result<Answer, Status> {
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id,
        volume_path,
        ..Default::default()
    };
    let stats = client.node_get_volume_stats(request).await?.into_inner();
    let bytes = |usage: &&csi::VolumeUsage| usage.unit() == csi::volume_usage::Unit::Bytes;
    let usage = stats.usage.iter().find(bytes).copied().unwrap_or_default();
    let health = stats.volume_condition.unwrap_or_default();
    let state = if health.abnormal {
        "abnormal"
    } else {
        "healthy"
    };
    Ok(Answer::new(
        format!("{}\t{}\t{state}", usage.total, usage.used),
        json!({
            "totalBytes": usage.total,
            "usedBytes": usage.used,
            "availableBytes": usage.available,
            "abnormal": health.abnormal,
            "message": health.message,
        }),
    ))
}

async fn info(mut client: NodeClient<Channel>) -> Result<Answer, Status> {
    let info = client
        .node_get_info(csi::NodeGetInfoRequest {})
        .await?
        .into_inner();
    let json = json!({
        "nodeId": info.node_id,
        "maxVolumes": info.max_volumes_per_node,
        "accessibleTopology": info.accessible_topology.map(|topology| topology.segments),
    });
    Ok(Answer::new(info.node_id, json))
}
