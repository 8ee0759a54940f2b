//! DeleteVolume: withdraw the intent, wait until the agent has quarantined the extents durably.

use crate::Controller;
use crate::error::ControllerError;
use crate::volume;
use crate::wait::Patience;
use holdfast_api::{SplitVolume, VolumeSession};
use holdfast_proto::csi::v1::{DeleteVolumeRequest, DeleteVolumeResponse};
use holdfast_store::Store;

pub(crate) async fn delete<S: Store>(
    controller: &Controller<S>,
    request: DeleteVolumeRequest,
) -> Result<DeleteVolumeResponse, tonic::Status> {
    let id = request.volume_id;
    if id.is_empty() {
        return Err(ControllerError::Missing { field: "volume_id" }.into());
    }
    let store = controller.store.clone();
    let patience = Patience::new(controller.config.wait);
    let name = id.clone();
    let work = async move {
        if volume::find(&store, &name).await?.is_some() {
            refuse_staged(&store, &name).await?;
            remove(&store, &name, patience).await?;
            tracing::info!(volume = name, "Volume deleted");
        }
        Ok(DeleteVolumeResponse {})
    };
    controller.operations.run(&id, work).await
}

/// A volume with a session may have a VM on it.
async fn refuse_staged<S: Store>(store: &S, id: &str) -> Result<(), ControllerError> {
    let sessions: Vec<VolumeSession> = store.list().await?;
    match sessions.iter().find(|session| session.spec.volume == id) {
        None => Ok(()),
        Some(session) => Err(ControllerError::InUse {
            volume: id.to_owned(),
            node: session.spec.node_name.clone(),
        }),
    }
}

/// Deletes the object and waits until nothing of the volume can be seen or used.
pub(crate) async fn remove<S: Store>(
    store: &S,
    id: &str,
    patience: Patience,
) -> Result<(), ControllerError> {
    store.delete::<SplitVolume>(id).await?;
    let is_gone = |seen: Option<SplitVolume>| {
        seen.is_none_or(|volume| volume::is_gone(&volume))
            .then_some(())
    };
    patience.volume(store, id, "deleted", is_gone).await
}
