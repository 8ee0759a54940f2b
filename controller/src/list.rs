//! ListVolumes and ControllerGetVolume: read straight from the store, so that a caller sees its own writes.

use crate::Controller;
use crate::error::ControllerError;
use crate::volume;
use holdfast_api::{SplitVolume, check_object_name};
use holdfast_proto::csi::v1::list_volumes_response::{Entry, VolumeStatus};
use holdfast_proto::csi::v1::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ListVolumesRequest,
    ListVolumesResponse, controller_get_volume_response,
};
use holdfast_store::Store;

/// A token is this and the last name of the page before: it stays good when volumes come and go, and over a restart.
const TOKEN_PREFIX: &str = "after/";

pub(crate) async fn list<S: Store>(
    controller: &Controller<S>,
    request: ListVolumesRequest,
) -> Result<ListVolumesResponse, ControllerError> {
    let most = match usize::try_from(request.max_entries) {
        Ok(0) => usize::MAX,
        Ok(most) => most,
        Err(_) => return Err(ControllerError::NegativeEntries),
    };
    let after = parse_token(&request.starting_token)?;
    let volumes: Vec<SplitVolume> = controller.store.list().await?;
    let mut rest = volumes
        .into_iter()
        .filter(|volume| !volume::is_gone(volume))
        .filter(|volume| after.is_none_or(|after| name(volume) > after));
    let page: Vec<SplitVolume> = rest.by_ref().take(most).collect();
    let next_token = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => format!("{TOKEN_PREFIX}{}", name(last)),
        _ => String::new(),
    };
    Ok(ListVolumesResponse {
        entries: page.iter().map(entry).collect(),
        next_token,
    })
}

pub(crate) async fn get<S: Store>(
    controller: &Controller<S>,
    request: ControllerGetVolumeRequest,
) -> Result<ControllerGetVolumeResponse, ControllerError> {
    let volume = volume::require(&controller.store, &request.volume_id).await?;
    Ok(ControllerGetVolumeResponse {
        volume: Some(volume::to_csi(&volume)),
        status: Some(controller_get_volume_response::VolumeStatus {
            published_node_ids: Vec::new(),
            volume_condition: Some(volume::health(&volume)),
        }),
    })
}

fn parse_token(token: &str) -> Result<Option<&str>, ControllerError> {
    if token.is_empty() {
        return Ok(None);
    }
    token
        .strip_prefix(TOKEN_PREFIX)
        .filter(|name| check_object_name(name).is_ok())
        .map(Some)
        .ok_or_else(|| ControllerError::BadToken {
            token: token.to_owned(),
        })
}

fn name(volume: &SplitVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

fn entry(volume: &SplitVolume) -> Entry {
    Entry {
        volume: Some(volume::to_csi(volume)),
        status: Some(VolumeStatus {
            published_node_ids: Vec::new(),
            volume_condition: Some(volume::health(volume)),
        }),
    }
}
