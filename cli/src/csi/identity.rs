//! Calls of the identity service, and the capabilities of all three.

use crate::answer::Answer;
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::controller_client::ControllerClient;
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use holdfast_proto::csi::v1::node_client::NodeClient;
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Call {
    /// Name and version of the driver.
    Info,
    /// Whether the driver is ready; ends with an error if not.
    Probe,
    /// What the driver offers: plugin, controller and node capabilities.
    Capabilities,
}

impl Call {
    pub(super) async fn make(self, channel: Channel) -> Result<Answer, Status> {
        match self {
            Call::Info => info(channel).await,
            Call::Probe => probe(channel).await,
            Call::Capabilities => capabilities(channel).await,
        }
    }
}

async fn info(channel: Channel) -> Result<Answer, Status> {
    let request = csi::GetPluginInfoRequest {};
    let info = IdentityClient::new(channel)
        .get_plugin_info(request)
        .await?
        .into_inner();
    Ok(Answer::new(
        format!("{} {}", info.name, info.vendor_version),
        json!({ "name": info.name, "version": info.vendor_version }),
    ))
}

async fn probe(channel: Channel) -> Result<Answer, Status> {
    let answer = IdentityClient::new(channel)
        .probe(csi::ProbeRequest {})
        .await?;
    // CSI: a driver that does not say is ready.
    let ready = answer.into_inner().ready.unwrap_or(true);
    let text = if ready { "ready" } else { "not ready" };
    let objection = (!ready).then(|| "the driver is not ready yet".to_owned());
    Ok(Answer::new(text, json!({ "ready": ready })).objecting(objection))
}

async fn capabilities(channel: Channel) -> Result<Answer, Status> {
    let plugin = plugin(channel.clone()).await?;
    let controller = controller(channel.clone()).await?;
    let node = node(channel).await?;
    let lines = [
        ("plugin", &plugin),
        ("controller", &controller),
        ("node", &node),
    ]
    .iter()
    .flat_map(|(service, names)| names.iter().map(move |name| format!("{service}\t{name}")))
    .collect::<Vec<_>>();
    Ok(Answer::new(
        lines.join("\n"),
        json!({ "plugin": plugin, "controller": controller, "node": node }),
    ))
}

async fn plugin(channel: Channel) -> Result<Vec<&'static str>, Status> {
    use csi::plugin_capability::{Type, service, volume_expansion};
    let request = csi::GetPluginCapabilitiesRequest {};
    let answer = IdentityClient::new(channel)
        .get_plugin_capabilities(request)
        .await?;
    let name = |capability: csi::PluginCapability| match capability.r#type? {
        Type::Service(kind) => service::Type::try_from(kind.r#type)
            .ok()
            .map(|kind| kind.as_str_name()),
        Type::VolumeExpansion(kind) => match volume_expansion::Type::try_from(kind.r#type).ok()? {
            volume_expansion::Type::Online => Some("EXPANSION_ONLINE"),
            volume_expansion::Type::Offline => Some("EXPANSION_OFFLINE"),
            volume_expansion::Type::Unknown => None,
        },
    };
    Ok(answer
        .into_inner()
        .capabilities
        .into_iter()
        .filter_map(name)
        .collect())
}

async fn controller(channel: Channel) -> Result<Vec<&'static str>, Status> {
    use csi::controller_service_capability::{Type, rpc};
    let request = csi::ControllerGetCapabilitiesRequest {};
    let answer = ControllerClient::new(channel)
        .controller_get_capabilities(request)
        .await?;
    let name = |capability: csi::ControllerServiceCapability| {
        let Type::Rpc(kind) = capability.r#type?;
        rpc::Type::try_from(kind.r#type)
            .ok()
            .map(|kind| kind.as_str_name())
    };
    Ok(answer
        .into_inner()
        .capabilities
        .into_iter()
        .filter_map(name)
        .collect())
}

async fn node(channel: Channel) -> Result<Vec<&'static str>, Status> {
    use csi::node_service_capability::{Type, rpc};
    let request = csi::NodeGetCapabilitiesRequest {};
    let answer = NodeClient::new(channel)
        .node_get_capabilities(request)
        .await?;
    let name = |capability: csi::NodeServiceCapability| {
        let Type::Rpc(kind) = capability.r#type?;
        rpc::Type::try_from(kind.r#type)
            .ok()
            .map(|kind| kind.as_str_name())
    };
    Ok(answer
        .into_inner()
        .capabilities
        .into_iter()
        .filter_map(name)
        .collect())
}
