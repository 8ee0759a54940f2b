//! The caller's end of an endpoint.

use crate::endpoint::{EndpointError, root, socket_path};
use tonic::transport::{Channel, Endpoint};

/// Connects to a CSI endpoint, for the generated clients of `holdfast-proto`.
///
/// # Errors
/// When the endpoint is malformed or nobody serves it.
pub async fn connect(endpoint: &str) -> Result<Channel, EndpointError> {
    let path = socket_path(endpoint)?;
    let unreachable = |error: tonic::transport::Error| EndpointError::Unreachable {
        path: path.clone(),
        cause: root(&error),
    };
    Endpoint::from_shared(format!("unix://{}", path.display()))
        .map_err(unreachable)?
        .connect()
        .await
        .map_err(unreachable)
}
