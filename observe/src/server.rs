//! The HTTP server behind `/metrics`, `/healthz` and `/readyz`.
//!
//! axum, because it is hyper with routing and nothing else.

use crate::registry::metrics_text;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why a process cannot tell of itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The address is taken, not ours, or none.
    #[error("cannot listen on {address:?} for metrics and health: {cause}; choose another address")]
    Bind {
        /// What was given.
        address: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// Serving ended early.
    #[error("serving metrics and health on {address} failed: {cause}")]
    Serve {
        /// Where it was served.
        address: SocketAddr,
        /// Why it failed.
        cause: io::Error,
    },
}

/// A bound address; it answers once it is served.
#[derive(Debug)]
pub struct Observer {
    listener: TcpListener,
    address: SocketAddr,
}

impl Observer {
    /// Binds an address such as `127.0.0.1:0` or `[::]:9808`.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub async fn bind(address: &str) -> Result<Self, ObserveError> {
        let failed = |cause| ObserveError::Bind {
            address: address.to_owned(),
            cause,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens, with the port the kernel chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes: `/metrics`; `/healthz`, always 200 while the process runs; `/readyz`, 200 or 503 with
    /// the reason that `ready` gives.
    ///
    /// # Errors
    /// When serving fails.
    pub async fn serve(
        self,
        registry: Registry,
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ObserveError> {
        let address = self.address;
        axum::serve(self.listener, routes(registry, ready))
            .with_graceful_shutdown(shutdown)
            .await
            .map_err(|cause| ObserveError::Serve { address, cause })
    }
}

fn routes(
    registry: Registry,
    ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Router {
    let registry = Arc::new(registry);
    let ready = Arc::new(ready);
    let metrics = move || {
        let text = metrics_text(&registry);
        async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], text) }
    };
    let readiness = move || {
        let answer = match ready() {
            Ok(()) => "ready\n".into_response(),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        };
        async move { answer }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
}
