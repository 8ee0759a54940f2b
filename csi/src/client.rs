//! The caller's end of an endpoint.

use crate::endpoint::{EndpointError, socket_path};
use tonic::transport::{Channel, Endpoint};

/// Connects to a CSI endpoint, for the generated clients of `holdfast-proto`.
///
/// # Errors
/// When the endpoint is malformed or nobody serves it.
pub async fn connect(endpoint: &str) -> Result<Channel, EndpointError> {
    let path = socket_path(endpoint)?;
    let failed = |source| EndpointError::Serve {
        path: path.clone(),
        source,
    };
    Endpoint::from_shared(format!("unix://{}", path.display()))
        .map_err(failed)?
        .connect()
        .await
        .map_err(failed)
}
