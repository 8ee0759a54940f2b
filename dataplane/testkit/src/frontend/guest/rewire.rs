//! The event descriptors of a running queue, sent again or taken away: what QEMU does when an interrupt vector is masked,
//! and what a front end does that polls.

use super::Guest;
use crate::frontend::GuestError;
use crate::frontend::queue::borrow;
use crate::raw::{Message, request};
use rustix::net::{SendFlags, send};
use vhost::VhostBackend;

/// In place of a descriptor: none comes, and the queue is to be polled.
const NO_FD: u64 = 1 << 8;

impl Guest {
    /// SET_VRING_CALL with the descriptor that the queue waits on.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn send_call(&mut self, index: usize) -> Result<(), GuestError> {
        let wires = std::sync::Arc::clone(&self.wires[index]);
        self.ask("SET_VRING_CALL", |f| f.set_vring_call(index, &wires.call))
    }

    /// SET_VRING_KICK with the descriptor that the queue kicks.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn send_kick(&mut self, index: usize) -> Result<(), GuestError> {
        let wires = std::sync::Arc::clone(&self.wires[index]);
        self.ask("SET_VRING_KICK", |f| f.set_vring_kick(index, &wires.kick))
    }

    /// SET_VRING_KICK and SET_VRING_CALL without a descriptor: both sides poll. Set the queue to
    /// [`polling`](super::super::GuestQueue::set_polling). Nothing is acknowledged; a refusal shows in the next message.
    ///
    /// # Errors
    /// [`GuestError::System`] if the back end has hung up.
    pub fn unplug(&mut self, index: usize) -> Result<(), GuestError> {
        let connection = self.connection.as_ref().ok_or(GuestError::NotConnected)?;
        for code in [request::SET_VRING_KICK, request::SET_VRING_CALL] {
            let message = Message::new(code).words(&[index as u64 | NO_FD]);
            // Shorter than any socket buffer, so it goes whole.
            send(
                borrow(&connection.frontend),
                &message.bytes(),
                SendFlags::NOSIGNAL,
            )
            .map_err(GuestError::system("a message without a descriptor"))?;
        }
        Ok(())
    }
}
