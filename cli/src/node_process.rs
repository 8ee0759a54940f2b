//! What `standalone` and `node` have in common: an engine and its agent, the CSI socket, metrics, and an end that leaves
//! nothing half done.

use crate::cpus::CpuList;
use crate::signals;
use anyhow::Context;
use holdfast_csi::{BoundEndpoint, Underway};
use holdfast_dataplane::{Engine, EngineConfig, Opener};
use holdfast_node::{Agent, AgentConfig};
use holdfast_observe::{CallMetrics, Observer, new_registry};
use holdfast_store::Store;
use std::future::Future;
use std::path::PathBuf;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity as NoLayer, Stack};

/// The layers around the CSI services.
pub(crate) type Layers = Stack<Underway, Stack<CallMetrics, NoLayer>>;

/// Where a node serves, and as what.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The CSI socket, as unix:///run/holdfast/csi.sock.
    #[arg(long, env = "CSI_ENDPOINT")]
    pub(crate) csi_endpoint: String,
    /// Name of this node; the host's name if not given. It must stay the same.
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Where to tell metrics and health over HTTP, as [::]:9808. Nowhere if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http_endpoint: Option<String>,
    /// One reactor on each of these CPUs, as in 0,2-4. Without it the kernel places them.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<CpuList>,
    /// How long a reactor looks at an empty ring before it sleeps, in microseconds, where that pays. 0: always sleeps.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_spin_us: u64,
    /// Give NVMe drives of pools their commands past the block layer, from Linux 5.19 on; others are used as without it.
    #[arg(long)]
    pub(crate) nvme_passthrough: bool,
}

impl NodeArgs {
    /// The node's name.
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => host_name(),
        }
    }
}

/// A runtime for the control plane: reactors have threads of their own.
pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}

/// Runs an engine with an agent, and serves, until asked to end. `services` adds the CSI services to a server.
pub(crate) async fn run<S: Store>(
    args: NodeArgs,
    dir: PathBuf,
    store: S,
    services: impl FnOnce(Server<Layers>, &Agent<S>) -> anyhow::Result<Router<Layers>>,
) -> anyhow::Result<()> {
    let node_name = args.name()?;
    let endpoint = BoundEndpoint::bind(&args.csi_endpoint)?;
    let observer = match &args.http_endpoint {
        Some(address) => Some(Observer::bind(address).await?),
        None => None,
    };
    let opener = match args.nvme_passthrough {
        true => Opener::with_nvme_passthrough(),
        false => Opener::default(),
    };
    let engine = Engine::start(EngineConfig {
        opener,
        cpus: args.cpus.unwrap_or_default().0,
        max_spin: std::time::Duration::from_micros(args.max_spin_us),
        ..EngineConfig::default()
    })?;
    let config = AgentConfig::new(&node_name, &dir);
    let served = match Agent::new(store, engine.clone(), config) {
        Ok(agent) => Box::pin(serve(endpoint, observer, agent, services)).await,
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
async fn serve<S: Store>(
    endpoint: BoundEndpoint,
    observer: Option<Observer>,
    agent: Agent<S>,
    services: impl FnOnce(Server<Layers>, &Agent<S>) -> anyhow::Result<Router<Layers>>,
) -> anyhow::Result<()> {
    let mut registry = new_registry(env!("CARGO_PKG_VERSION"));
    let calls = CallMetrics::register(&mut registry, holdfast_api::DRIVER_NAME);
    agent.register_metrics(&mut registry);
    let underway = Underway::new();
    let server = Server::builder().layer(calls).layer(underway.clone());
    let router = services(server, &agent)?;
    let end = End::default();
    let answer = answer_calls(endpoint, router, &end, &underway);
    let observed = agent.clone();
    let observe = async {
        let Some(observer) = observer else {
            return Ok(());
        };
        tracing::info!(address = %observer.address(), "Telling metrics and health");
        let served = observer.serve(registry, move || readiness(&observed), end.asked());
        served.await.map_err(anyhow::Error::from)
    };
    let signals = async {
        let heard = signals::asked_to_end().await;
        end.ask();
        heard
    };
    let all = async { tokio::try_join!(answer, signals).map(drop) };
    tokio::select! {
        result = all => result,
        Err(error) = observe => Err(error),
        () = agent.run(std::future::pending()) => Ok(()),
        () = announce(&agent) => Ok(()),
    }
}

async fn answer_calls(
    endpoint: BoundEndpoint,
    router: Router<Layers>,
    end: &End,
    underway: &Underway,
) -> anyhow::Result<()> {
    tracing::info!(socket = %endpoint.path().display(), "Listening");
    let (_socket, incoming) = endpoint.into_incoming();
    let serving = router.serve_with_incoming_shutdown(incoming, end.asked());
    tokio::select! {
        result = serving => result.context("serving CSI calls failed"),
        () = underway.farewell(end.asked()) => Ok(()),
    }
}

fn readiness<S: Store>(agent: &Agent<S>) -> Result<(), String> {
    match agent.ready() {
        true => Ok(()),
        false => Err("the sessions of this node are being restored".to_owned()),
    }
}

/// Says once that the node is ready; never returns.
async fn announce<S: Store>(agent: &Agent<S>) {
    agent.wait_ready().await;
    tracing::info!("Ready");
    std::future::pending::<()>().await;
}

/// The wish to end, for everybody who waits for it.
#[derive(Debug)]
struct End {
    asked: watch::Sender<bool>,
}

impl Default for End {
    fn default() -> Self {
        Self {
            asked: watch::channel(false).0,
        }
    }
}

impl End {
    fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// Returns when the end was asked for.
    fn asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = self.asked.subscribe();
        async move {
            // Also ends when the sender is gone: then everything does.
            let _ = asked.wait_for(|asked| *asked).await;
        }
    }
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host's name; give --node-name")?;
    Ok(name.trim().to_owned())
}
