//! `holdfast controller`: the CSI controller service on a cluster's objects, and the loops that look after them. It keeps nothing
//! itself: it may run twice, and be killed at any time.

use crate::cluster::ClusterArgs;
use crate::signals;
use crate::webhook::{self, WebhookArgs};
use anyhow::Context;
use holdfast_api::BlockPool;
use holdfast_controller::{
    Controller, ControllerConfig, ControllerMetrics, GarbageConfig, LeaseTimes, Loops, LoopsConfig,
    NodeLossConfig,
};
use holdfast_csi::{BoundEndpoint, Identity, PluginCapabilities, Underway};
use holdfast_observe::{CallMetrics, Observer, new_registry};
use holdfast_store::{KubeStore, KubeStoreConfig, Store};
use kube::Client;
use prometheus_client::registry::Registry;
use std::future::Future;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tonic::transport::Server;

/// Where to serve, which cluster, and how to look after it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The CSI socket, as unix:///run/holdfast/csi.sock.
    #[arg(long, env = "CSI_ENDPOINT")]
    csi_endpoint: String,
    /// Where to tell metrics and health over HTTP, as [::]:9809. Nowhere if not given.
    #[arg(long, value_name = "ADDRESS")]
    http_endpoint: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Namespace of the Lease that elects one of several replicas; the kubeconfig's or the pod's own if not given.
    #[arg(long, env = "NAMESPACE")]
    namespace: Option<String>,
    /// Name of this replica; the host's name if not given.
    #[arg(long, env = "POD_NAME")]
    replica: Option<String>,
    /// How long a replica that leads may be silent before another takes over, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lease_seconds: u64,
    /// Tell which volumes nobody wants any more, and delete none.
    #[arg(long)]
    gc_dry_run: bool,
    /// Volumes younger than this are never taken for unwanted.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    gc_grace_seconds: u64,
    /// How often unwanted volumes are looked for. One is deleted when two looks find it unwanted.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    gc_interval_seconds: u64,
    /// How long a Node object must be absent before its node is taken for gone for good.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    node_loss_grace_seconds: u64,
    /// Mark KubeVirt machines whose volumes are ours.
    #[arg(long)]
    kubevirt: bool,
    #[command(flatten)]
    webhook: WebhookArgs,
}

/// Who writes what the controller wants.
const FIELD_MANAGER: &str = "holdfast-controller";
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    let client = args.cluster.client().await?;
    let config = KubeStoreConfig {
        field_manager: FIELD_MANAGER,
        node: None,
    };
    let store = KubeStore::new(client.clone(), config);
    let endpoint = BoundEndpoint::bind(&args.csi_endpoint)?;
    let webhook = args.webhook.bind(&args.namespace(&client)).await?;
    let observer = match &args.http_endpoint {
        Some(address) => Some(Observer::bind(address).await?),
        None => None,
    };
    let mut registry = new_registry(env!("CARGO_PKG_VERSION"));
    let calls = CallMetrics::register(&mut registry, holdfast_api::DRIVER_NAME);
    let metrics = ControllerMetrics::register(&mut registry);
    let counted = metrics.clone();
    store.on_watch_failure(move |kind| counted.watch_failed(kind));
    let loops = Loops {
        store: store.clone(),
        metrics: metrics.clone(),
        config: args.loops(&client)?,
        client: client.clone(),
    };
    let (end, ended) = watch::channel(false);
    let readiness = watch::Sender::new(Err("the custom resources were not read yet".to_owned()));
    let (answering, is_answering) = oneshot::channel();
    let served = async {
        tokio::try_join!(
            webhook::serve(webhook, &metrics, client.clone(), answering, asked(&ended)),
            answer_calls(endpoint, store.clone(), calls, &ended),
            async {
                let gate = || mark_machines(args.kubevirt.then(|| client.clone()), metrics.clone());
                Box::pin(loops.run(gate, asked(&ended))).await;
                Ok(())
            },
            async {
                let heard = signals::asked_to_end().await;
                end.send_replace(true);
                heard
            }
        )
    };
    tokio::select! {
        served = served => served.map(drop),
        // Whoever only looks on is not waited for.
        Err(error) = observe(observer, registry, readiness.subscribe(), asked(&ended)) => Err(error),
        () = reach(&store, is_answering, &readiness) => Ok(()),
    }
}

/// Returns when the end was asked for, or everything ended.
fn asked(ended: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut ended = ended.clone();
    async move { drop(ended.wait_for(|ended| *ended).await) }
}

async fn answer_calls(
    endpoint: BoundEndpoint,
    store: KubeStore,
    calls: CallMetrics,
    ended: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let identity = Identity::new(
        holdfast_api::DRIVER_NAME,
        env!("CARGO_PKG_VERSION"),
        PluginCapabilities::all(),
        // It keeps nothing that would have to be restored.
        || true,
    );
    let controller = Controller::new(store, ControllerConfig::default());
    let underway = Underway::new();
    let router = Server::builder()
        .layer(calls)
        .layer(underway.clone())
        .add_service(identity.into_server())
        .add_service(controller.into_server());
    tracing::info!(socket = %endpoint.path().display(), "Listening");
    let (_socket, incoming) = endpoint.into_incoming();
    let serving = router.serve_with_incoming_shutdown(incoming, asked(ended));
    tokio::select! {
        result = serving => result.context("serving CSI calls failed"),
        () = underway.farewell(asked(ended)) => Ok(()),
    }
}

async fn observe(
    observer: Option<Observer>,
    registry: Registry,
    readiness: watch::Receiver<Result<(), String>>,
    asked: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let Some(observer) = observer else {
        return Ok(());
    };
    tracing::info!(address = %observer.address(), "Telling metrics and health");
    let ready = move || readiness.borrow().clone();
    let serving = observer.serve(registry, ready, asked);
    serving.await.map_err(anyhow::Error::from)
}

/// Reads the custom resources until it succeeds once: before that, no call can. Then waits for the webhook: machines that the
/// API server asks about on a replica that cannot answer get no hook. Never returns.
async fn reach(
    store: &KubeStore,
    webhook: oneshot::Receiver<()>,
    readiness: &watch::Sender<Result<(), String>>,
) {
    while let Err(error) = store.list::<BlockPool>().await {
        tracing::warn!(%error, "Not ready");
        drop(readiness.send_replace(Err(error.to_string())));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let unsure = "the KubeVirt webhook has no certificate yet";
    drop(readiness.send_replace(Err(unsure.to_owned())));
    // Dropped where there is no webhook.
    let _: Result<(), _> = webhook.await;
    tracing::info!("Ready");
    drop(readiness.send_replace(Ok(())));
    std::future::pending::<()>().await;
}

async fn mark_machines(client: Option<Client>, metrics: ControllerMetrics) {
    let failed = |kind: &str| metrics.watch_failed(kind);
    match client {
        Some(client) => holdfast_kubevirt::run_gate(client, failed, std::future::pending()).await,
        None => std::future::pending().await,
    }
}

impl Args {
    fn loops(&self, client: &Client) -> anyhow::Result<LoopsConfig> {
        let lease = Duration::from_secs(self.lease_seconds);
        Ok(LoopsConfig {
            namespace: self.namespace(client),
            identity: self.identity()?,
            lease: LeaseTimes {
                duration: lease,
                renew_deadline: lease * 2 / 3,
                retry: lease * 2 / 15,
            },
            garbage: GarbageConfig {
                interval: Duration::from_secs(self.gc_interval_seconds),
                grace: Duration::from_secs(self.gc_grace_seconds),
                dry_run: self.gc_dry_run,
            },
            node_loss: NodeLossConfig {
                grace: Duration::from_secs(self.node_loss_grace_seconds),
                ..NodeLossConfig::default()
            },
        })
    }

    fn namespace(&self, client: &Client) -> String {
        let given = self.namespace.clone();
        given.unwrap_or_else(|| client.default_namespace().to_owned())
    }

    /// With the process's number, so that two replicas on one host differ.
    fn identity(&self) -> anyhow::Result<String> {
        let name = match &self.replica {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("cannot read the host's name; give --replica")?,
        };
        Ok(format!("{}-{}", name.trim(), std::process::id()))
    }
}
