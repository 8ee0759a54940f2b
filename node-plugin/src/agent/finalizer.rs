//! The agent's hold on an object: while it is there, the object stays until the drive or socket side is undone.

use super::Agent;
use crate::error::NodeError;
use holdfast_api::NODE_FINALIZER;
use holdfast_store::{Object, Store};

impl<S: Store> Agent<S> {
    /// Takes hold of an object, before anything is done for it.
    pub(super) async fn hold<K: Object>(&self, mut object: K) -> Result<K, NodeError> {
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if finalizers.iter().any(|held| held == NODE_FINALIZER) {
            return Ok(object);
        }
        finalizers.push(NODE_FINALIZER.to_owned());
        Ok(self.store().update(object).await?)
    }

    /// Lets go of an object, after everything is undone. The last to let go removes it.
    pub(super) async fn let_go<K: Object>(&self, mut object: K) -> Result<(), NodeError> {
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        finalizers.retain(|held| held != NODE_FINALIZER);
        self.store().update(object).await?;
        Ok(())
    }
}
