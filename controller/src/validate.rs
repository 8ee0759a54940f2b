//! ValidateVolumeCapabilities: what cannot be confirmed is an answer, not an error.

use crate::Controller;
use crate::error::ControllerError;
use crate::parameters::Parameters;
use crate::volume;
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
    if !request.mutable_parameters.is_empty() {
        return Some(ControllerError::MutableParameters.to_string());
    }
    if request.parameters.is_empty() {
        return None;
    }
    match Parameters::parse(&request.parameters) {
        Err(error) => Some(error.to_string()),
        Ok(parameters) => parameters.difference(&volume.spec),
    }
}
