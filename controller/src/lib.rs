//! The CSI controller service: it turns calls into intent and waits until the node agent has made it so.
//!
//! [`Controller`] writes [`SplitVolume`](holdfast_api::SplitVolume)s and reads what the agent reports in their status; the
//! agent is the only allocator. [`Loops`] do what no call asks for and only a cluster needs: they remove volumes whose claim
//! is gone and finish what a lost node cannot. It knows no drive, no socket and no virtual machine.
//!
//! ```no_run
//! use holdfast_controller::{Controller, ControllerConfig};
//! use holdfast_store::DirStore;
//! let store = DirStore::open("/var/lib/holdfast")?;
//! let router = tonic::transport::Server::builder()
//!     .add_service(Controller::new(store, ControllerConfig::default()).into_server());
//! # let _ = router;
//! # Ok::<(), holdfast_store::StoreError>(())
//! ```
//!
//! Invariants: a repeated call completes what an earlier one began, also after a kill between any two steps; RESOURCE_EXHAUSTED
//! is answered only when nothing is left of the attempt; a call whose outcome is open is answered DEADLINE_EXCEEDED or ABORTED,
//! which every caller repeats.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod capacity;
mod cluster;
mod create;
mod delete;
mod error;
mod expand;
mod limits;
mod list;
mod metrics;
mod modify;
mod parameters;
mod placement;
mod service;
mod validate;
mod volume;
mod wait;

pub use cluster::{GarbageConfig, LeaseTimes, Loops, LoopsConfig, NodeLossConfig};
pub use metrics::ControllerMetrics;

use holdfast_csi::Operations;
use holdfast_proto::csi::v1::controller_server::ControllerServer;
use holdfast_store::Store;
use std::time::Duration;

/// How the controller behaves.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// How long a call waits for the node agent before it answers DEADLINE_EXCEEDED.
    pub wait: Duration,
}

impl Default for ControllerConfig {
    /// Below the timeout of the CSI sidecars, so that callers hear why and not only that.
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(8),
        }
    }
}

/// The CSI controller service. Clones share the operations under way.
#[derive(Debug, Clone)]
pub struct Controller<S> {
    store: S,
    config: ControllerConfig,
    operations: Operations,
}

impl<S: Store> Controller<S> {
    /// A controller of the objects in `store`.
    pub fn new(store: S, config: ControllerConfig) -> Self {
        Self {
            store,
            config,
            operations: Operations::new(),
        }
    }

    /// For a tonic router.
    pub fn into_server(self) -> ControllerServer<Self> {
        ControllerServer::new(self)
    }
}
