//! A peer that speaks vhost-user badly on purpose: any header, any body, any descriptors, cut anywhere.
//!
//! [`RawPeer`] sends what it is told; [`hostile::catalogue`] is a list of things no back end may stumble over.

mod fds;
pub mod hostile;
mod message;
mod peer;

pub use fds::{directory, eventfd, memfd, null, pipe_end};
pub use message::{Message, request};
pub use peer::{RawPeer, Reply};
