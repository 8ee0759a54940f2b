//! `holdfast standalone`: store, engine, agent and all CSI services in one process, wired together.

mod pools;

use crate::cpus::CpuList;
use crate::signals;
use anyhow::Context;
use holdfast_controller::{Controller, ControllerConfig};
use holdfast_csi::{BoundEndpoint, Identity, PluginCapabilities};
use holdfast_dataplane::{Engine, EngineConfig};
use holdfast_node::{Agent, AgentConfig, DeviceService, NodeService, NodeServiceConfig};
use holdfast_store::DirStore;
use pools::PoolArg;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
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
    /// The CSI socket, as unix:///run/holdfast/csi.sock.
    #[arg(long, env = "CSI_ENDPOINT")]
    csi_endpoint: String,
    /// Name of this node; the host's name if not given. It must stay the same.
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// One reactor on each of these CPUs, as in 0,2-4. Without it the kernel places them.
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
}

/// Calls under way when the end is asked for may still be answered; a caller that keeps its connection open may not.
const FAREWELL: Duration = Duration::from_secs(10);

/// Serves until asked to end.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir).context("cannot resolve --dir")?;
    let node_name = args.node_name.map_or_else(host_name, Ok)?;
    let store = DirStore::open(&dir)?;
    for pool in &args.pools {
        pool.declare(&store, &node_name).await?;
    }
    let endpoint = BoundEndpoint::bind(&args.csi_endpoint)?;
    let engine = Engine::start(EngineConfig {
        cpus: args.cpus.unwrap_or_default().0,
        ..EngineConfig::default()
    })?;
    let config = AgentConfig::new(&node_name, &dir);
    let served = match Agent::new(store.clone(), engine.clone(), config) {
        Ok(agent) => Box::pin(serve_until_asked_to_end(endpoint, store, agent)).await,
        Err(error) => Err(error.into()),
    };
    let left = tokio::task::spawn_blocking(move || engine.stop()).await?;
    anyhow::ensure!(
        left.is_empty(),
        "still busy at the end: {}",
        left.join(", ")
    );
    served
}

/// The agent goes on until the last call is answered: calls wait for it.
async fn serve_until_asked_to_end(
    endpoint: BoundEndpoint,
    store: DirStore,
    agent: Agent<DirStore>,
) -> anyhow::Result<()> {
    let router = services(store, &agent)?;
    let (end, ended) = watch::channel(false);
    let asked = move || {
        let mut ended = ended.clone();
        // The sender outlives the wait, so it cannot fail.
        async move { drop(ended.wait_for(|ended| *ended).await) }
    };
    tracing::info!(socket = %endpoint.path().display(), "Listening");
    let serving = endpoint.serve(router, asked());
    let calls = async {
        tokio::select! {
            result = serving => result.map_err(anyhow::Error::from),
            () = async { asked().await; tokio::time::sleep(FAREWELL).await } => Ok(()),
        }
    };
    let signals = async {
        let heard = signals::asked_to_end().await;
        end.send_replace(true);
        heard
    };
    let announce = async {
        agent.wait_ready().await;
        tracing::info!("Ready");
        std::future::pending::<()>().await;
    };
    let all = async { tokio::try_join!(calls, signals).map(drop) };
    tokio::select! {
        result = all => result,
        () = agent.run(std::future::pending()) => Ok(()),
        () = announce => Ok(()),
    }
}

fn services(store: DirStore, agent: &Agent<DirStore>) -> anyhow::Result<Router> {
    let node = NodeService::new(agent.clone(), NodeServiceConfig::default())?;
    let ready = agent.clone();
    let identity = Identity::new(
        holdfast_api::DRIVER_NAME,
        env!("CARGO_PKG_VERSION"),
        PluginCapabilities::all(),
        move || ready.ready(),
    );
    let controller = Controller::new(store, ControllerConfig::default());
    Ok(Server::builder()
        .add_service(identity.into_server())
        .add_service(controller.into_server())
        .add_service(node.into_server())
        .add_service(DeviceService::new(agent.clone()).into_server()))
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host's name; give --node-name")?;
    Ok(name.trim().to_owned())
}
