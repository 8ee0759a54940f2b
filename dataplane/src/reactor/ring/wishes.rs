//! What guest and reactor tell each other without a request: whether there is more, and whether a kick is wanted.

use super::Ring;

impl Ring {
    /// Whether the guest has made more requests available.
    pub(in crate::reactor) fn asks(&mut self) -> bool {
        if self.is_parked() {
            return false;
        }
        match self.queue.has_more() {
            Ok(more) => more,
            Err(error) => {
                self.park(&error);
                false
            }
        }
    }

    /// Asks for a kick; true if there is something to do already.
    pub(in crate::reactor) fn arm(&mut self) -> bool {
        if self.is_parked() {
            return false;
        }
        match self.queue.arm() {
            Ok(more) => more,
            Err(error) => {
                self.park(&error);
                false
            }
        }
    }

    /// Tells the guest that it need not kick.
    pub(in crate::reactor) fn disarm(&mut self) {
        if !self.is_parked() {
            self.queue.disarm();
        }
    }
}
