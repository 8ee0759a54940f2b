//! A SplitVolume as the controller sees it: is it there, how large, what did the agent say, how does CSI put it.

use crate::error::ControllerError;
use holdfast_api::{
    Condition, SplitVolume, TOPOLOGY_KEY, check_object_name, condition, conditions, is_true,
    parse_quantity, reasons,
};
use holdfast_proto::csi::v1::{Topology, Volume, VolumeCondition};
use holdfast_store::{Store, StoreError};
use std::collections::HashMap;

/// Key of the volume context that names the pool.
pub(crate) const POOL_CONTEXT: &str = "pool";

/// The volume of an id. An id that cannot be one of ours is an id we do not have.
pub(crate) async fn find<S: Store>(
    store: &S,
    id: &str,
) -> Result<Option<SplitVolume>, ControllerError> {
    if check_object_name(id).is_err() {
        return Ok(None);
    }
    let volume: Option<SplitVolume> = store.get(id).await?;
    Ok(volume.filter(|volume| !is_gone(volume)))
}

/// The volume of an id that must exist.
pub(crate) async fn require<S: Store>(store: &S, id: &str) -> Result<SplitVolume, ControllerError> {
    if id.is_empty() {
        return Err(ControllerError::Missing { field: "volume_id" });
    }
    find(store, id)
        .await?
        .ok_or_else(|| ControllerError::NotFound {
            volume: id.to_owned(),
        })
}

/// Changes a volume that must exist; returns what `change` answers and the generation that has it. The agent writes the same object, so a lost race is run again with what is there now; it
/// ends because each round lost was won by a write of the agent, which writes only when something changed.
pub(crate) async fn change<S: Store, T>(
    store: &S,
    id: &str,
    change: impl Fn(&mut SplitVolume) -> Result<T, ControllerError>,
) -> Result<(T, i64), ControllerError> {
    loop {
        let mut volume = require(store, id).await?;
        let answer = change(&mut volume)?;
        match store.update(volume).await {
            Ok(written) => return Ok((answer, written.metadata.generation.unwrap_or(0))),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deleted as far as callers can tell: its extents are quarantined, only tidying is left.
pub(crate) fn is_gone(volume: &SplitVolume) -> bool {
    is_deleting(volume) && is_true(conditions_of(volume), conditions::QUARANTINED)
}

pub(crate) fn is_deleting(volume: &SplitVolume) -> bool {
    volume.metadata.deletion_timestamp.is_some()
}

pub(crate) fn is_allocated(volume: &SplitVolume) -> bool {
    is_true(conditions_of(volume), conditions::ALLOCATED)
}

/// Its node has acted on this generation of the spec.
pub(crate) fn has_seen(volume: &SplitVolume, generation: i64) -> bool {
    let seen = volume
        .status
        .as_ref()
        .map(|status| status.observed_generation);
    seen.is_some_and(|seen| seen >= generation)
}

/// Bytes on the drive; before there are any, the bytes that were asked for.
pub(crate) fn size_bytes(volume: &SplitVolume) -> u64 {
    match &volume.status {
        Some(status) if status.size_bytes > 0 => status.size_bytes,
        _ => parse_quantity(&volume.spec.size.0).unwrap_or(0),
    }
}

/// The agent's word that what the spec asks for now will not come about by waiting.
pub(crate) fn refusal(volume: &SplitVolume) -> Option<&Condition> {
    conditions_of(volume).iter().find(|condition| {
        condition.status == "False"
            && condition.observed_generation >= volume.metadata.generation
            && [reasons::NO_SPACE, reasons::INVALID].contains(&condition.reason.as_str())
    })
}

pub(crate) fn conditions_of(volume: &SplitVolume) -> &[Condition] {
    volume
        .status
        .as_ref()
        .map_or(&[], |status| &status.conditions)
}

/// One word for where the volume stands, for people and their graphs.
pub(crate) fn phase(volume: &SplitVolume) -> &'static str {
    if is_deleting(volume) {
        "deleting"
    } else if is_allocated(volume) {
        "allocated"
    } else if refusal(volume).is_some() {
        "refused"
    } else {
        "pending"
    }
}

/// What a later caller needs to know of the volume without asking us.
pub(crate) fn context(volume: &SplitVolume) -> HashMap<String, String> {
    HashMap::from([(POOL_CONTEXT.to_owned(), volume.spec.pool.clone())])
}

pub(crate) fn to_csi(volume: &SplitVolume) -> Volume {
    let node = (TOPOLOGY_KEY.to_owned(), volume.spec.node_name.clone());
    Volume {
        capacity_bytes: i64::try_from(size_bytes(volume)).unwrap_or(i64::MAX),
        volume_id: volume.metadata.name.clone().unwrap_or_default(),
        volume_context: context(volume),
        content_source: None,
        accessible_topology: vec![Topology {
            segments: HashMap::from([node]),
        }],
    }
}

/// Whether the volume is usable now, and why not.
pub(crate) fn health(volume: &SplitVolume) -> VolumeCondition {
    match condition(conditions_of(volume), conditions::READY) {
        Some(ready) => VolumeCondition {
            abnormal: ready.status != "True",
            message: ready.message.clone(),
        },
        None => VolumeCondition {
            abnormal: true,
            message: format!("node {} has not reported yet", volume.spec.node_name),
        },
    }
}
