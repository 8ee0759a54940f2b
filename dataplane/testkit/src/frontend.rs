//! A vhost-user front end: what QEMU is to the data plane, small enough to misbehave on purpose.
//!
//! [`Guest`] owns memory, connection and queues; [`GuestQueue`] is the driver's side of one ring. Rings and guest memory
//! survive [`Guest::disconnect`] and [`Guest::reconnect`], with requests outstanding, as they do in QEMU.

mod backchannel;
mod builder;
mod config;
mod connection;
mod error;
pub mod feature;
mod guest;
mod layout;
pub(crate) mod memory;
mod queue;
mod request;
pub(crate) mod ring;
pub(crate) mod wires;

pub use backchannel::BackChannel;
pub use builder::GuestBuilder;
pub use config::BlkConfig;
pub use error::GuestError;
pub use guest::Guest;
pub use layout::{Layout, RingPlace};
pub use memory::GuestMemory;
pub(crate) use queue::wait_fd;
pub use queue::{Done, GuestQueue, Ticket, wait_any};
pub use request::{Op, Range, status};
pub use ring::{Desc, DriverRing};
pub use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
