//! What a process tells of itself: metrics as OpenMetrics text, health and readiness over HTTP, and the time CSI calls take.
//!
//! It knows no volumes and no Kubernetes: each room registers its own metrics under their full names, so that a name seen in a
//! dashboard is found in the code by searching for it.
//!
//! ```no_run
//! use holdfast_observe::{CallMetrics, Observer, new_registry};
//! # async fn run() -> Result<(), holdfast_observe::ObserveError> {
//! let mut registry = new_registry("1.0");
//! let calls = CallMetrics::register(&mut registry, "csi.example.com"); // tonic: Server::builder().layer(calls)
//! let observer = Observer::bind("127.0.0.1:0").await?;
//! observer.serve(registry, || Ok(()), std::future::pending()).await
//! # }
//! ```
//!
//! Invariants: reading metrics never waits for the work they tell of; a caller cannot make the number of series grow.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod calls;
mod registry;
mod server;

pub use calls::{CallMetrics, MeasuredCalls};
pub use registry::{metric_names, metrics_text, new_registry};
pub use server::{ObserveError, Observer};
