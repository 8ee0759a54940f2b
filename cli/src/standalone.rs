//! `holdfast standalone`: store, engine, agent and all CSI services in one process, wired together.

mod pools;

use crate::node_process::{self, Layers, NodeArgs};
use anyhow::Context;
use holdfast_controller::{Controller, ControllerConfig};
use holdfast_csi::{Identity, PluginCapabilities};
use holdfast_node::{Agent, DeviceService, NodeService, NodeServiceConfig};
use holdfast_store::DirStore;
use pools::PoolArg;
use std::path::PathBuf;
use tonic::transport::Server;
use tonic::transport::server::Router;

/// Where the state is, and where to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the state: a YAML manifest for each pool, volume and session, and the sockets.
    #[arg(long)]
    dir: PathBuf,
    /// A pool to have. Its manifest is written if it is not there; with a size, so is its file.
    #[arg(long = "pool", value_name = "NAME=PATH[,size=4GiB]")]
    pools: Vec<PoolArg>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Serves until asked to end.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    node_process::block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir).context("cannot resolve --dir")?;
    let node_name = args.node.name()?;
    let store = DirStore::open(&dir)?;
    for pool in &args.pools {
        pool.declare(&store, &node_name).await?;
    }
    node_process::run(args.node, dir, store, services).await
}

fn services(mut server: Server<Layers>, agent: &Agent<DirStore>) -> anyhow::Result<Router<Layers>> {
    let node = NodeService::new(agent.clone(), NodeServiceConfig::default())?;
    let ready = agent.clone();
    let identity = Identity::new(
        holdfast_api::DRIVER_NAME,
        env!("CARGO_PKG_VERSION"),
        PluginCapabilities::all(),
        move || ready.ready(),
    );
    let controller = Controller::new(agent.store().clone(), ControllerConfig::default());
    Ok(server
        .add_service(identity.into_server())
        .add_service(controller.into_server())
        .add_service(node.into_server())
        .add_service(DeviceService::new(agent.clone()).into_server()))
}
