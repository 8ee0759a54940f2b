//! The channel on which the back end speaks unasked: "your configuration changed".

use super::GuestError;
use super::queue::{borrow, wait_readable};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vhost::vhost_user::{FrontendReqHandler, HandlerResult, VhostUserFrontendReqHandlerMut};

/// The front end's end of the channel.
pub struct BackChannel {
    handler: FrontendReqHandler<Mutex<Changes>>,
    changes: Arc<Mutex<Changes>>,
}

#[derive(Default)]
struct Changes(u32);

impl VhostUserFrontendReqHandlerMut for Changes {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        self.0 += 1;
        Ok(0)
    }
}

impl BackChannel {
    pub(super) fn new(reply_ack: bool) -> Result<BackChannel, GuestError> {
        let changes = Arc::new(Mutex::new(Changes::default()));
        let mut handler = FrontendReqHandler::new(Arc::clone(&changes)).map_err(|e| {
            let source = vhost::Error::VhostUserProtocol(e);
            GuestError::Protocol {
                step: "making the back channel",
                source,
            }
        })?;
        handler.set_reply_ack_flag(reply_ack);
        Ok(BackChannel { handler, changes })
    }

    /// The end that the back end gets.
    pub(super) fn peer(&self) -> std::os::fd::RawFd {
        self.handler.get_tx_raw_fd()
    }

    /// Waits for the next CONFIG_CHANGE and answers it if an answer is asked for.
    ///
    /// # Errors
    /// [`GuestError::Timeout`]; [`GuestError::Protocol`] for any other message, or a closed channel.
    pub fn wait_config_change(&mut self, after: Duration) -> Result<(), GuestError> {
        let before = self.count();
        let until = Instant::now() + after;
        // Bound: the deadline.
        while self.count() == before {
            if !wait_readable(borrow(&self.handler), until)? {
                return Err(GuestError::Timeout {
                    what: "CONFIG_CHANGE".to_owned(),
                    after,
                });
            }
            self.handler
                .handle_request()
                .map_err(|e| GuestError::Protocol {
                    step: "a message of the back channel",
                    source: vhost::Error::VhostUserProtocol(e),
                })?;
        }
        Ok(())
    }

    fn count(&self) -> u32 {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl std::fmt::Debug for BackChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackChannel {{ changes: {} }}", self.count())
    }
}
