//! A real Kubernetes control plane for tests: etcd, API server, controller-manager and scheduler as plain processes.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let plane = holdfast_cluster::Plane::start().await?;
//! let nodes = plane.kubectl(&["get", "nodes"])?;
//! # Ok(())
//! # }
//! ```
//!
//! There is no kubelet: it needs a container runtime. The programs are built from their Go modules by
//! `cargo xtask setup`; where Go is missing, tests say "skipped" and count it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chart;
mod daemon;
pub mod kit;
mod kubelet;
pub mod lab;
mod plane;
pub mod runner;
mod wait;

pub use daemon::Daemon;
pub use kubelet::{Kubelet, ensure_node};
pub use lab::Lab;
pub use plane::Plane;
pub use wait::until;
