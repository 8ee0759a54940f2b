//! From a claim to the volume behind it.

use crate::error::ClusterError;
use holdfast_api::DRIVER_NAME;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
};
use kube::{Api, Client};

/// What is behind a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behind {
    /// A volume of ours, by its id.
    Ours { volume_id: String },
    /// A volume of ours that is asked for as a block device.
    OursAsBlock,
    /// A volume of another driver.
    Foreign,
    /// Nothing yet.
    Unbound,
}

/// Looks a claim up.
///
/// # Errors
/// When the cluster cannot be asked. An object that is not there is no error.
pub(crate) async fn behind(
    client: &Client,
    namespace: &str,
    claim: &str,
) -> Result<Behind, ClusterError> {
    let spec = read(client, namespace, claim).await?;
    bound_to(client, &spec.unwrap_or_default()).await
}

/// What a claim asks for, if it is there.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn read(
    client: &Client,
    namespace: &str,
    claim: &str,
) -> Result<Option<PersistentVolumeClaimSpec>, ClusterError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let named = format!("claim {namespace}/{claim}");
    let found = claims
        .get_opt(claim)
        .await
        .map_err(ClusterError::on("read", named))?;
    Ok(found.map(|claim| claim.spec.unwrap_or_default()))
}

/// What is behind a claim that was read.
///
/// # Errors
/// As [`behind`].
pub(crate) async fn bound_to(
    client: &Client,
    spec: &PersistentVolumeClaimSpec,
) -> Result<Behind, ClusterError> {
    let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(Behind::Unbound);
    };
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let named = format!("PersistentVolume {name}");
    let found = volumes
        .get_opt(name)
        .await
        .map_err(ClusterError::on("read", named))?;
    let Some(volume) = found.and_then(|volume| volume.spec) else {
        return Ok(Behind::Unbound);
    };
    Ok(match volume.csi {
        Some(csi) if csi.driver == DRIVER_NAME => {
            if spec.volume_mode.as_deref() == Some("Block") {
                Behind::OursAsBlock
            } else {
                Behind::Ours {
                    volume_id: csi.volume_handle,
                }
            }
        }
        _ => Behind::Foreign,
    })
}
