//! Waiting for the agent: looks again after every change of a session, until a deadline.

use super::NodeService;
use crate::error::NodeError;
use holdfast_api::{VolumeSession, condition, conditions};
use holdfast_store::Store;
use tokio::time::{Instant, timeout_at};

impl<S: Store> NodeService<S> {
    /// Waits until the agent has exported what the session asks for now. Before the agent is ready, a status may be that of
    /// an earlier process, whose sockets are dead.
    pub(super) async fn wait_exported(&self, id: &str) -> Result<(), NodeError> {
        let deadline = Instant::now() + self.config.patience;
        let mut changes = self.store().watch::<VolumeSession>();
        let mut why = "the node agent has not looked at it yet".to_owned();
        if timeout_at(deadline, self.agent.wait_ready()).await.is_err() {
            why = "the node agent is still restoring sessions after its start".to_owned();
        }
        while timeout_at(deadline, changes.changed()).await.is_ok() {
            let session = self.store().get::<VolumeSession>(id).await?;
            let session = session.ok_or_else(|| NodeError::BeingUnstaged { id: id.to_owned() })?;
            if session.metadata.deletion_timestamp.is_some() {
                return Err(NodeError::BeingUnstaged { id: id.to_owned() });
            }
            let conditions = session.status.as_ref().map(|status| &status.conditions);
            let exported =
                conditions.and_then(|conditions| condition(conditions, conditions::EXPORTED));
            if let Some(exported) = exported
                && exported.observed_generation == session.metadata.generation
            {
                if exported.status == "True" {
                    return Ok(());
                }
                why = exported.message.clone();
            }
        }
        Err(NodeError::TimedOut {
            what: format!("exporting volume {id:?}"),
            why,
        })
    }

    /// Waits until the agent has ended the session and let it go.
    pub(super) async fn wait_gone(&self, id: &str) -> Result<(), NodeError> {
        let deadline = Instant::now() + self.config.patience;
        let mut changes = self.store().watch::<VolumeSession>();
        let mut why = "the node agent has not looked at it yet".to_owned();
        while timeout_at(deadline, changes.changed()).await.is_ok() {
            let Some(session) = self.store().get::<VolumeSession>(id).await? else {
                return Ok(());
            };
            let conditions = session.status.as_ref().map(|status| &status.conditions);
            let exported =
                conditions.and_then(|conditions| condition(conditions, conditions::EXPORTED));
            if let Some(exported) = exported {
                why = exported.message.clone();
            }
        }
        Err(NodeError::TimedOut {
            what: format!("unstaging volume {id:?}"),
            why,
        })
    }
}
