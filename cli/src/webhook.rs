//! The KubeVirt webhook inside `holdfast controller`: its flags, and how it is served.

use holdfast_controller::ControllerMetrics;
use holdfast_kubevirt::{CertificateSource, HookImage, Webhook, WebhookConfig};
use kube::Client;
use std::future::Future;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// Whether to give machines their hook sidecar, and which.
#[derive(Debug, clap::Args)]
pub(crate) struct WebhookArgs {
    /// Where to answer the API server about new KubeVirt machines, as [::]:9443: those with a volume of ours get the hook
    /// sidecar. Nowhere if not given.
    #[arg(long, value_name = "ADDRESS", requires_all = ["kubevirt", "kubevirt_hook_image"])]
    kubevirt_webhook: Option<String>,
    /// The image of the hook sidecar: that of this program.
    #[arg(long, value_name = "IMAGE")]
    kubevirt_hook_image: Option<String>,
    /// When nodes pull that image: Always, IfNotPresent or Never.
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    kubevirt_hook_pull_policy: String,
    /// A folder with the webhook's tls.crt and tls.key, read again when they change. If not given, replicas make a certificate
    /// themselves and share it in a Secret.
    #[arg(long, value_name = "FOLDER")]
    kubevirt_webhook_certificate: Option<PathBuf>,
}

/// The bound webhook, or none.
pub(crate) type Bound = Option<(Webhook, WebhookConfig)>;

impl WebhookArgs {
    /// Binds the address, if one was given. `namespace` has the Service.
    pub(crate) async fn bind(&self, namespace: &str) -> anyhow::Result<Bound> {
        let (Some(address), Some(image)) = (&self.kubevirt_webhook, &self.kubevirt_hook_image)
        else {
            return Ok(None);
        };
        let config = WebhookConfig {
            hook: HookImage {
                image: image.clone(),
                pull_policy: self.kubevirt_hook_pull_policy.clone(),
            },
            certificate: match &self.kubevirt_webhook_certificate {
                Some(folder) => CertificateSource::Mounted(folder.clone()),
                None => CertificateSource::Shared {
                    namespace: namespace.to_owned(),
                },
            },
        };
        Ok(Some((Webhook::bind(address).await?, config)))
    }
}

/// Serves the webhook, if there is one, until `asked` completes. `ready` is told, or dropped, when there is nothing to wait for.
pub(crate) async fn serve(
    bound: Bound,
    metrics: &ControllerMetrics,
    client: Client,
    ready: oneshot::Sender<()>,
    asked: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let Some((webhook, config)) = bound else {
        return Ok(());
    };
    let address = webhook.address();
    let metrics = metrics.clone();
    let webhook = webhook.on_answer(move |outcome| metrics.webhook_answered(outcome));
    let ready = move || {
        tracing::info!(%address, "Answering the API server about new machines");
        // Whoever waits for it may have ended.
        let _ = ready.send(());
    };
    webhook.serve(client, config, ready, asked).await?;
    Ok(())
}
