//! The webhook that gives a machine its hook sidecar, so that nothing in the machine names Holdfast (KubeVirt before 1.9).
//!
//! The API server asks it about every machine that is created with a claim. It only ever adds: what it cannot decide in time,
//! or at all, it lets pass with a warning, and the machine's pod then waits at the gate, as with any machine without a hook.

mod certificate;
mod mounted;
mod owner;
mod review;
mod secret;
mod sidecars;

pub use certificate::CertificateError;
pub use sidecars::HookImage;

use crate::error::ClusterError;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use kube::Client;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionReview};
use mounted::MountedCertificate;
use owner::Owners;
use review::{Heard, Reviewer};
use rustls::ServerConfig;
use secret::SharedCertificate;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tower::limit::GlobalConcurrencyLimitLayer;

/// Name of the Service, of the Secret and of the MutatingWebhookConfiguration.
const NAME: &str = "holdfast-kubevirt-webhook";
/// Where the API server asks.
const PATH: &str = "/machines";
/// The API server takes no larger object.
const BODY_BYTES_MAX: usize = 3 << 20;
/// Bodies in memory at once: anybody in the cluster may send one.
const PARALLEL: usize = 32;
/// Until a body has come.
const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// Calls under way when the end is asked for are answered.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often the certificate is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// After a look that failed while there is nothing to serve: another replica may have written at the same time.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// Why the webhook does not serve.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is taken, not ours, or none.
    #[error("cannot listen on {address:?} for the API server: {cause}; choose another address")]
    Bind {
        /// What was given.
        address: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// Serving ended early.
    #[error("serving the webhook on {address} failed: {cause}")]
    Serve {
        /// Where it was served.
        address: SocketAddr,
        /// Why it failed.
        cause: io::Error,
    },
    /// A file of the certificate is not there, or not text.
    #[error("cannot read {path}: {cause}; the folder must hold tls.crt and tls.key")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The certificate cannot be made or served.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The cluster cannot be asked or told.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// Replicas make it, share it in a Secret of this namespace, and tell the API server to trust it.
    Shared {
        /// Where the Service and the Secret are.
        namespace: String,
    },
    /// Somebody else writes `tls.crt` and `tls.key` into this folder, and looks after the trust.
    Mounted(PathBuf),
}

/// What the webhook adds, and how it proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// What a machine's hook sidecar runs.
    pub hook: HookImage,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
}

/// A bound address; it answers once it is served.
pub struct Webhook {
    listener: TcpListener,
    address: SocketAddr,
    heard: Heard,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({})", self.address)
    }
}

impl Webhook {
    /// Binds an address such as `127.0.0.1:0` or `[::]:9443`.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub async fn bind(address: &str) -> Result<Webhook, WebhookError> {
        let failed = |cause| WebhookError::Bind {
            address: address.to_owned(),
            cause,
        };
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.and_then(tokio::net::TcpListener::into_std);
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Webhook {
            listener,
            address,
            heard: Arc::new(|_| ()),
        })
    }

    /// Lets `heard` hear what becomes of each request: `added` a hook, `left` as it was, `warned` in place of a hook that may be
    /// needed, `refused` for what is no review.
    #[must_use]
    pub fn on_answer(mut self, heard: impl Fn(&'static str) + Send + Sync + 'static) -> Webhook {
        self.heard = Arc::new(heard);
        self
    }

    /// Where it listens, with the port the kernel chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes, and calls `ready` when it begins to: once there is a certificate.
    ///
    /// `client` must be allowed to get claims, PersistentVolumes, StorageClasses and DataVolumes, to list StorageClasses, and
    /// with a shared certificate to get and patch its Secret and the MutatingWebhookConfiguration.
    ///
    /// # Errors
    /// When serving fails.
    pub async fn serve(
        self,
        client: Client,
        config: WebhookConfig,
        ready: impl FnOnce() + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), WebhookError> {
        let address = self.address;
        let failed = |cause| WebhookError::Serve { address, cause };
        let mut source = Source::new(&client, config.certificate);
        let reviewer = Reviewer {
            owners: Owners { client },
            hook: config.hook,
            heard: self.heard,
        };
        tokio::pin!(shutdown);
        let first = tokio::select! {
            first = source.next(LOOK_SOON) => first,
            () = &mut shutdown => return Ok(()),
        };
        let tls = RustlsConfig::from_config(first);
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(self.listener, tls.clone()).map_err(failed)?;
        let serving = server
            .handle(handle.clone())
            .serve(routes(reviewer).into_make_service());
        ready();
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return served.map_err(failed),
            () = renew(source, &tls) => {}
            () = shutdown => {}
        }
        handle.graceful_shutdown(Some(FAREWELL));
        serving.await.map_err(failed)
    }
}

/// Serves each new certificate as it comes. Never returns.
async fn renew(mut source: Source, tls: &RustlsConfig) {
    loop {
        tls.reload_from_config(source.next(LOOK_AGAIN).await);
        tracing::info!("Serving a new certificate");
    }
}

enum Source {
    Shared(Box<SharedCertificate>),
    Mounted(MountedCertificate),
}

impl Source {
    fn new(client: &Client, source: CertificateSource) -> Source {
        match source {
            CertificateSource::Shared { namespace } => {
                Source::Shared(Box::new(SharedCertificate::new(client, &namespace)))
            }
            CertificateSource::Mounted(folder) => Source::Mounted(MountedCertificate::new(&folder)),
        }
    }

    /// The next certificate to serve; looks until there is one, and waits for `after_error` where a look fails.
    async fn next(&mut self, after_error: Duration) -> Arc<ServerConfig> {
        loop {
            let looked = match self {
                Source::Shared(shared) => shared.look().await,
                Source::Mounted(mounted) => mounted.look().await,
            };
            let pause = match looked {
                Ok(Some(server)) => return server,
                Ok(None) => LOOK_AGAIN,
                Err(error) => {
                    tracing::warn!(%error, "Cannot look after the webhook's certificate yet");
                    after_error
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn routes(reviewer: Reviewer) -> Router {
    Router::new()
        .route(PATH, post(answer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(GlobalConcurrencyLimitLayer::new(PARALLEL))
        .with_state(Arc::new(reviewer))
}

/// What is no review is refused with the status that says why; the API server then creates the machine as it is.
async fn answer(
    State(reviewer): State<Arc<Reviewer>>,
    request: Request,
) -> Result<Response, Response> {
    let asked = read(request).await;
    let asked = asked.inspect_err(|_| (reviewer.heard)("refused"))?;
    let answer = reviewer.answer(&asked).await;
    Ok(Json(answer.into_review()).into_response())
}

async fn read(request: Request) -> Result<AdmissionRequest<DynamicObject>, Response> {
    let review = Json::<AdmissionReview<DynamicObject>>::from_request(request, &());
    let review = tokio::time::timeout(BODY_PATIENCE, review).await;
    let review = review.map_err(|_| StatusCode::REQUEST_TIMEOUT.into_response())?;
    let Json(review) = review.map_err(IntoResponse::into_response)?;
    let empty = |_| (StatusCode::BAD_REQUEST, "the review has no request\n").into_response();
    review.try_into().map_err(empty)
}
