//! ValidateVolumeCapabilities: what cannot be confirmed is an answer, not an error.

use crate::error::ControllerError;
use crate::parameters::Parameters;
use crate::{Controller, limits, volume};
use holdfast_api::SplitVolume;
use holdfast_csi::check_capabilities;
use holdfast_proto::csi::v1::validate_volume_capabilities_response::Confirmed;
use holdfast_proto::csi::v1::{
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
};
use holdfast_store::Store;

/// Keys that the external provisioner adds to the context it keeps.
const KUBERNETES_PREFIX: &str = "storage.kubernetes.io/";

pub(crate) async fn validate<S: Store>(
    controller: &Controller<S>,
    request: ValidateVolumeCapabilitiesRequest,
) -> Result<ValidateVolumeCapabilitiesResponse, ControllerError> {
    if request.volume_id.is_empty() {
        return Err(ControllerError::Missing { field: "volume_id" });
    }
    if request.volume_capabilities.is_empty() {
        return Err(ControllerError::Missing {
            field: "volume_capabilities",
        });
    }
    let volume = volume::require(&controller.store, &request.volume_id).await?;
    Ok(match objection(&volume, &request) {
        Some(message) => ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message,
        },
        None => ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: request.mutable_parameters,
            }),
            message: String::new(),
        },
    })
}

fn objection(volume: &SplitVolume, request: &ValidateVolumeCapabilitiesRequest) -> Option<String> {
    if let Err(status) = check_capabilities(&request.volume_capabilities) {
        return Some(status.message().to_owned());
    }
    let ours = volume::context(volume);
    let foreign = |(key, value): &(&String, &String)| {
        !key.starts_with(KUBERNETES_PREFIX) && ours.get(*key) != Some(*value)
    };
    if let Some((key, value)) = request.volume_context.iter().find(foreign) {
        return Some(format!("volume_context {key}={value} is not the volume's"));
    }
    difference(volume, request).unwrap_or_else(|error| Some(error.to_string()))
}

/// In what the volume differs from the parameters given; where none are given, nothing is asked.
fn difference(
    volume: &SplitVolume,
    request: &ValidateVolumeCapabilitiesRequest,
) -> Result<Option<String>, ControllerError> {
    if !request.parameters.is_empty() {
        let parameters = Parameters::parse(&request.parameters)?;
        if let Some(difference) = parameters.difference(&volume.spec) {
            return Ok(Some(difference));
        }
    }
    let qos = limits::parse(&request.mutable_parameters)?;
    Ok(match qos {
        None => None,
        asked => limits::difference(asked, volume.spec.qos),
    })
}
