//! Where a volume may go: topology, and the order in which pools are tried.

use crate::error::ControllerError;
use crate::parameters::Parameters;
use holdfast_api::{BlockPool, Condition, TOPOLOGY_KEY, condition, conditions};
use holdfast_proto::csi::v1::{Topology, TopologyRequirement};
use std::cmp::Reverse;
use std::collections::HashSet;

/// The nodes a volume may be placed on, from a TopologyRequirement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nodes {
    /// It must be one of these; any if `None`.
    requisite: Option<HashSet<String>>,
    /// Tried first, in order.
    preferred: Vec<String>,
}

impl Nodes {
    pub(crate) fn parse(required: Option<&TopologyRequirement>) -> Result<Self, ControllerError> {
        let Some(required) = required else {
            return Ok(Self::default());
        };
        let requisite: Vec<Option<String>> = nodes(&required.requisite)?;
        // A topology without our key holds on every node.
        let anywhere = requisite.is_empty() || requisite.contains(&None);
        Ok(Self {
            requisite: (!anywhere).then(|| requisite.into_iter().flatten().collect()),
            preferred: nodes(&required.preferred)?.into_iter().flatten().collect(),
        })
    }

    pub(crate) fn one(topology: Option<&Topology>) -> Result<Self, ControllerError> {
        let node = topology.map(node).transpose()?.flatten();
        Ok(Self {
            requisite: node.map(|node| HashSet::from([node])),
            preferred: Vec::new(),
        })
    }

    pub(crate) fn allow(&self, node: &str) -> bool {
        self.requisite
            .as_ref()
            .is_none_or(|nodes| nodes.contains(node))
    }

    fn rank(&self, node: &str) -> usize {
        let position = self.preferred.iter().position(|name| name == node);
        position.unwrap_or(self.preferred.len())
    }
}

fn nodes(topologies: &[Topology]) -> Result<Vec<Option<String>>, ControllerError> {
    topologies.iter().map(node).collect()
}

fn node(topology: &Topology) -> Result<Option<String>, ControllerError> {
    if let Some(key) = topology.segments.keys().find(|key| *key != TOPOLOGY_KEY) {
        return Err(ControllerError::UnknownTopology {
            key: key.clone(),
            known: TOPOLOGY_KEY,
        });
    }
    Ok(topology.segments.get(TOPOLOGY_KEY).cloned())
}

/// Whether a pool can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Its node has not looked at it yet.
    Unknown,
    NotReady,
    /// It is to have no new volumes.
    Cordoned,
}

pub(crate) fn readiness(pool: &BlockPool) -> Readiness {
    if pool.spec.cordoned {
        return Readiness::Cordoned;
    }
    match ready(pool).map(|ready| ready.status.as_str()) {
        Some("True") => Readiness::Ready,
        Some(_) => Readiness::NotReady,
        None => Readiness::Unknown,
    }
}

fn ready(pool: &BlockPool) -> Option<&Condition> {
    let status = pool.status.as_ref()?;
    condition(&status.conditions, conditions::READY)
}

/// Bytes that volumes can have now; nothing while the pool cannot be used.
pub(crate) fn free_bytes(pool: &BlockPool) -> u64 {
    match &pool.status {
        Some(status) if readiness(pool) == Readiness::Ready => status.free_bytes,
        _ => 0,
    }
}

fn has_piece(pool: &BlockPool, bytes: u64) -> bool {
    pool.status
        .as_ref()
        .is_some_and(|status| status.largest_free_extent_bytes >= bytes)
}

pub(crate) fn name(pool: &BlockPool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}

/// The pools a volume may come from: of the right name, on a right node, not being removed.
pub(crate) fn candidates(
    pools: Vec<BlockPool>,
    parameters: &Parameters,
    nodes: &Nodes,
) -> Result<Vec<BlockPool>, ControllerError> {
    if let Some(wanted) = &parameters.pool
        && !pools.iter().any(|pool| name(pool) == wanted)
    {
        let names: Vec<&str> = pools.iter().map(name).collect();
        return Err(ControllerError::NoSuchPool {
            pool: wanted.clone(),
            known: if names.is_empty() {
                "there are no pools".to_owned()
            } else {
                format!("pools are {}", names.join(", "))
            },
        });
    }
    let matches = |pool: &BlockPool| {
        parameters
            .pool
            .as_deref()
            .is_none_or(|wanted| wanted == name(pool))
            && nodes.allow(&pool.spec.node_name)
            && pool.metadata.deletion_timestamp.is_none()
    };
    Ok(pools.into_iter().filter(matches).collect())
}

/// The ready pools with room, best first: on a preferred node, then with the volume in one piece, then with most space left.
pub(crate) fn with_room(pools: &[BlockPool], bytes: u64, nodes: &Nodes) -> Vec<BlockPool> {
    let mut fitting: Vec<&BlockPool> = pools
        .iter()
        .filter(|pool| readiness(pool) == Readiness::Ready && free_bytes(pool) >= bytes)
        .collect();
    fitting.sort_by_key(|pool| {
        (
            nodes.rank(&pool.spec.node_name),
            !has_piece(pool, bytes),
            Reverse(free_bytes(pool)),
        )
    });
    fitting.into_iter().cloned().collect()
}

/// What the pools have, for people who learn that it is not enough.
pub(crate) fn describe(pools: &[BlockPool]) -> String {
    if pools.is_empty() {
        return "no pool is on a node that the volume may be on".to_owned();
    }
    let told: Vec<String> = pools
        .iter()
        .map(|pool| match readiness(pool) {
            Readiness::Ready => format!("{} has {} bytes free", name(pool), free_bytes(pool)),
            Readiness::Unknown => format!("{} is not open yet", name(pool)),
            Readiness::Cordoned => format!("{} is cordoned", name(pool)),
            Readiness::NotReady => {
                let why = ready(pool).map_or("not ready", |ready| ready.message.as_str());
                format!("{}: {why}", name(pool))
            }
        })
        .collect();
    told.join("; ")
}
