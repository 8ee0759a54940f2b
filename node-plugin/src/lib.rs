//! What runs on a node: an [`Agent`] that makes the node match its custom resources, the CSI [`NodeService`], and the
//! [`DeviceService`] through which people let go of drives and give them back.
//!
//! The two meet in the store only. The service writes intent (a VolumeSession) and waits for the agent's observation; the
//! agent reads intent, works on the drive and the sockets through the embedded engine, and writes status afterwards. The
//! truth is on the drive and in the kernel's mount table, never in a status; so the process may be killed between any two
//! steps, and repeating the call completes it.
//!
//! ```no_run
//! use holdfast_dataplane::{Engine, EngineConfig};
//! use holdfast_node::{Agent, AgentConfig, NodeService, NodeServiceConfig};
//! use holdfast_store::DirStore;
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = DirStore::open("/var/lib/holdfast/objects")?;
//! let engine = Engine::start(EngineConfig::default())?;
//! let agent = Agent::new(store, engine, AgentConfig::new("node-1", "/var/lib/holdfast"))?;
//! let service = NodeService::new(agent.clone(), NodeServiceConfig::default())?;
//! let ready = agent.clone(); // for the identity service: `move || ready.ready()`
//! agent.run(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await;
//! # drop((service, ready));
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: nothing is formatted, freed or unmounted because an object is missing; a status is never read as a command;
//! one object in trouble keeps no other waiting; a path from a caller is touched in `path.rs` only.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod devices;
mod drives;
mod error;
mod metrics;
mod path;
mod removals;
mod service;
mod session_dir;

pub use agent::{Agent, AgentConfig, Orphan};
pub use devices::DeviceService;
pub use error::NodeError;
pub use path::PathError;
pub use service::{NodeService, NodeServiceConfig};
