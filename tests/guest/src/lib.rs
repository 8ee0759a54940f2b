//! Real guests: QEMU boots a Debian kernel against our sockets, and a test talks to a shell inside.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod kit;

pub use kit::Kit;
