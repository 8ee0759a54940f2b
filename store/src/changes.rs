//! A level-triggered watch: it says that something changed, never what, so that nobody builds on having seen every event.

use std::future::pending;
use tokio::sync::watch;

/// Tells of changes of one kind. See [`Store::watch`](crate::Store::watch).
#[derive(Debug)]
pub struct Changes {
    receiver: watch::Receiver<u64>,
    /// A second reason to look, for a store made of another one.
    also: Option<watch::Receiver<u64>>,
}

impl Changes {
    pub(crate) fn new(mut receiver: watch::Receiver<u64>) -> Self {
        receiver.mark_changed();
        Self {
            receiver,
            also: None,
        }
    }

    /// The same, told by `also` too.
    pub(crate) fn and(self, also: watch::Receiver<u64>) -> Self {
        Self {
            also: Some(also),
            ..self
        }
    }

    /// Returns once after any number of changes since the last call, and at once on the first call. Cancel-safe. Once the store
    /// is gone it never returns.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = next(Some(&mut self.receiver)) => {}
            () = next(self.also.as_mut()) => {}
        }
    }
}

async fn next(receiver: Option<&mut watch::Receiver<u64>>) {
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    pending::<()>().await;
}
