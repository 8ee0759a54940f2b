//! `holdfast node`: engine, agent and the node's CSI services, on the objects that a cluster keeps for this node.

use crate::cluster::ClusterArgs;
use crate::node_process::{self, Layers, NodeArgs};
use anyhow::Context;
use holdfast_csi::{Identity, PluginCapabilities};
use holdfast_kubevirt::PublishGate;
use holdfast_node::{Agent, DeviceService, NodeService, NodeServiceConfig};
use holdfast_store::{KeptStore, KubeStore, KubeStoreConfig, Store};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Server;
use tonic::transport::server::Router;

/// Where the state is, where to serve, and which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the sockets, and of a copy of this node's objects for a start without the API server. The same after every
    /// restart, and of one node only.
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Give volumes to KubeVirt's pods only when their machines are marked, as `holdfast controller --kubevirt` does.
    #[arg(long)]
    kubevirt: bool,
}

/// Who writes what the node sees.
const FIELD_MANAGER: &str = "holdfast-node";
/// How often it is looked whether another agent of this node has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Serves until asked to end.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    node_process::block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir).context("cannot resolve --dir")?;
    let node = args.node.name()?;
    let _alone = be_alone(&dir).await?;
    let config = KubeStoreConfig {
        field_manager: FIELD_MANAGER,
        node: Some(node),
    };
    let client = args.cluster.client().await?;
    let service = NodeServiceConfig {
        gate: args.kubevirt.then(|| PublishGate::new(client.clone())),
        ..NodeServiceConfig::default()
    };
    let store = KeptStore::open(KubeStore::new(client, config), &dir)?;
    let services = |server, agent: &_| services(server, agent, service);
    node_process::run(args.node, dir, store, services).await
}

fn services<S: Store>(
    mut server: Server<Layers>,
    agent: &Agent<S>,
    config: NodeServiceConfig,
) -> anyhow::Result<Router<Layers>> {
    let node = NodeService::new(agent.clone(), config)?;
    let ready = agent.clone();
    let identity = Identity::new(
        holdfast_api::DRIVER_NAME,
        env!("CARGO_PKG_VERSION"),
        // Of the plugin as a whole: CSI wants the same from every instance, whatever it serves itself.
        PluginCapabilities::all(),
        move || ready.ready(),
    );
    Ok(server
        .add_service(identity.into_server())
        .add_service(node.into_server())
        .add_service(DeviceService::new(agent.clone()).into_server()))
}

/// Waits until no other agent works from this directory. During an update two may overlap: the later one touches no drive, no
/// socket and no object before the earlier one has ended.
async fn be_alone(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("node.lock");
    let failed = || format!("cannot lock {}", path.display());
    std::fs::create_dir_all(dir).with_context(failed)?;
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    let file = options.open(&path).with_context(failed)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        if !told {
            let dir = dir.display();
            tracing::warn!(%dir, "Another agent of this node runs from this directory; waiting for its end, not ready before");
            told = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
