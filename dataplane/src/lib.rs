//! The engine: pools on devices, volumes cut from them, and exports that virtual machines connect to.
//!
//! [`Engine`] is the whole of it. It knows no Kubernetes, no CSI and no async runtime: calls block, and I/O runs on reactor
//! threads that meet the control plane only through messages.
//!
//! ```no_run
//! use holdfast_bdev::Malloc;
//! use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
//! use std::sync::Arc;
//! let engine = Engine::start(EngineConfig::default())?;
//! engine.add_device("scratch", Arc::new(Malloc::new(1 << 30, 512)?))?;
//! engine.export(&ExportSpec::new("scratch", Source::Device("scratch".into()), "/run/scratch.sock"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: a session thread owns what a front end said, a reactor owns rings, and a ring moves between them by value;
//! nobody holds a pointer to what another thread may free; no timeout turns "still running" into "stopped"; what a front
//! end or a guest sends ends its own session or parks its own ring, nothing else.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod bell;
mod clock;
mod engine;
mod error;
mod events;
mod limits;
mod mailbox;
mod reactor;
mod session;
mod spec;
mod stats;
mod sync;

pub use engine::Engine;
pub use error::{EngineError, ErrorKind};
pub use events::{ExportChange, ExportEvent};
pub use holdfast_bdev::{BdevError, DriverKind};
pub use holdfast_pool::{Extent, PoolError, Usage};
pub use limits::Limits;
pub use spec::{
    EngineConfig, ExportInfo, ExportSpec, OnDeviceLoss, Opener, PoolInfo, PoolSpec, Processors,
    Source, VolumeInfo,
};
pub use stats::{ExportStats, Latency, OpStats};
