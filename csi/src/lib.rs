//! What both CSI services do alike: the socket, the identity service, one operation per volume at a time, and the checks of
//! capabilities and sizes.
//!
//! It refuses to know Kubernetes, volumes and drives. Controller and node service build on it; `holdfast csi` calls them
//! through [`connect`].
//!
//! ```no_run
//! use holdfast_csi::{Identity, PluginCapabilities, serve};
//! use tonic::transport::Server;
//! # async fn run() -> Result<(), holdfast_csi::EndpointError> {
//! let identity = Identity::new("csi.example.com", "1.0", PluginCapabilities::all(), || true);
//! let router = Server::builder().add_service(identity.into_server());
//! serve("unix:///run/csi.sock", router, async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await
//! # }
//! ```
//!
//! Invariants: a socket that somebody serves is never taken away; work that a caller started runs to its end although the
//! caller hangs up; no two pieces of work touch one volume at a time.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod capability;
mod capacity;
mod client;
mod endpoint;
mod identity;
mod operations;
mod underway;

pub use capability::{Access, Mode, check_capabilities, check_capability};
pub use capacity::{SizeRange, check_capacity};
pub use client::connect;
pub use endpoint::{BoundEndpoint, EndpointError, SocketFile, serve};
pub use identity::{Identity, PluginCapabilities};
pub use operations::{OperationGuard, Operations};
pub use underway::{Counted, Underway};
