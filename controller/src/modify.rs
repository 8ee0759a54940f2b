//! ControllerModifyVolume: change the limits of a volume, wait until its node has seen them. A VM that runs feels the change
//! without being stopped.

use crate::error::ControllerError;
use crate::wait::Patience;
use crate::{Controller, limits, volume};
use holdfast_api::{Qos, SplitVolume};
use holdfast_proto::csi::v1::{ControllerModifyVolumeRequest, ControllerModifyVolumeResponse};
use holdfast_store::Store;

pub(crate) async fn modify<S: Store>(
    controller: &Controller<S>,
    request: ControllerModifyVolumeRequest,
) -> Result<ControllerModifyVolumeResponse, tonic::Status> {
    let id = request.volume_id;
    if id.is_empty() {
        return Err(ControllerError::Missing { field: "volume_id" }.into());
    }
    let qos = limits::parse(&request.mutable_parameters)?;
    let store = controller.store.clone();
    let patience = Patience::new(controller.config.wait);
    let name = id.clone();
    let work = async move {
        limit(&store, &name, qos, patience).await?;
        tracing::info!(volume = name, ?qos, "Volume limited");
        Ok(ControllerModifyVolumeResponse {})
    };
    controller.operations.run(&id, work).await
}

async fn limit<S: Store>(
    store: &S,
    id: &str,
    qos: Option<Qos>,
    patience: Patience,
) -> Result<(), ControllerError> {
    let deleting = || ControllerError::Deleting {
        volume: id.to_owned(),
    };
    let ((), generation) = volume::change(store, id, |volume: &mut SplitVolume| {
        if volume::is_deleting(volume) {
            return Err(deleting());
        }
        volume.spec.qos = qos;
        Ok(())
    })
    .await?;
    let judge = |seen: Option<SplitVolume>| match seen {
        None => Some(Err(deleting())),
        Some(volume) => volume::has_seen(&volume, generation).then_some(Ok(())),
    };
    patience.volume(store, id, "limited", judge).await?
}
