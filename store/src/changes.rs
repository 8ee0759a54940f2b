//! A level-triggered watch: it says that something changed, never what, so that nobody builds on having seen every event.

use tokio::sync::watch;

/// Tells of changes of one kind. See [`Store::watch`](crate::Store::watch).
#[derive(Debug)]
pub struct Changes {
    receiver: watch::Receiver<u64>,
}

impl Changes {
    pub(crate) fn new(mut receiver: watch::Receiver<u64>) -> Self {
        receiver.mark_changed();
        Self { receiver }
    }

    /// Returns once after any number of changes since the last call, and at once on the first call. Cancel-safe. Once the store
    /// is gone it never returns.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
