//! GetCapacity: what the pools of a class have on a node.

use crate::Controller;
use crate::error::ControllerError;
use crate::parameters::Parameters;
use crate::placement::{self, Nodes};
use holdfast_api::ALIGNMENT_BYTES;
use holdfast_csi::check_capabilities;
use holdfast_proto::csi::v1::{GetCapacityRequest, GetCapacityResponse};
use holdfast_store::Store;

pub(crate) async fn capacity<S: Store>(
    controller: &Controller<S>,
    request: GetCapacityRequest,
) -> Result<GetCapacityResponse, ControllerError> {
    let parameters = Parameters::parse(&request.parameters)?;
    let nodes = Nodes::one(request.accessible_topology.as_ref())?;
    if !request.volume_capabilities.is_empty()
        && check_capabilities(&request.volume_capabilities).is_err()
    {
        // There is no room for volumes that cannot be made.
        return Ok(answer(&[]));
    }
    let pools = controller.store.list().await?;
    let pools = match placement::candidates(pools, &parameters, &nodes) {
        // A class may name a pool that is yet to come.
        Err(ControllerError::NoSuchPool { .. }) => Vec::new(),
        pools => pools?,
    };
    let free: Vec<u64> = pools.iter().map(placement::free_bytes).collect();
    Ok(answer(&free))
}

/// A volume may be gathered from several extents of one pool, so the largest one is what the emptiest pool has free.
fn answer(free: &[u64]) -> GetCapacityResponse {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let sum = free
        .iter()
        .fold(0_u64, |sum, free| sum.saturating_add(*free));
    GetCapacityResponse {
        available_capacity: bytes(sum),
        maximum_volume_size: Some(bytes(free.iter().copied().max().unwrap_or(0))),
        minimum_volume_size: Some(bytes(ALIGNMENT_BYTES)),
    }
}
