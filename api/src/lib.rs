//! The custom resources of Holdfast as Rust types: what controller, node and operator agree on.
//!
//! [`BlockPool`] is a drive (or file) on a node that volumes are cut from, [`SplitVolume`] a volume, [`VolumeSession`] a volume
//! exported on a node, [`OrphanExtent`] space on a drive that no volume speaks of. Spec is intent, status is observation; an actor never writes the other's half. The truth about where data
//! lies is on the drive; status mirrors it.
//!
//! This room knows no client and does no I/O.
//!
//! ```
//! use holdfast_api::{SplitVolume, SplitVolumeSpec, parse_quantity, quantity};
//! let spec = SplitVolumeSpec { node_name: "n1".into(), pool: "nvme0".into(), size: quantity(64 << 20), ..Default::default() };
//! let volume = SplitVolume::new("pvc-1", spec);
//! assert_eq!(parse_quantity(&volume.spec.size.0)?, 64 << 20);
//! # Ok::<(), holdfast_api::QuantityError>(())
//! ```
#![forbid(unsafe_code)]
// KubeSchema writes a private copy of each struct with the visibility of the original.
#![allow(unreachable_pub)]

mod block_pool;
mod condition;
pub mod events;
mod name;
mod orphan_extent;
mod quantity;
mod schema;
mod split_volume;
mod volume_session;

pub use block_pool::{BlockPool, BlockPoolSpec, BlockPoolStatus, DeviceMatch};
pub use condition::{Verdict, condition, is_true, set_condition};
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use name::{NameError, check_object_name, orphan_name, short_id, volume_id};
pub use orphan_extent::{OrphanExtent, OrphanExtentSpec, OrphanExtentStatus};
pub use quantity::{QuantityError, parse_quantity, quantity};
pub use split_volume::{
    ClaimRef, ExtentStatus, OnDeviceLoss, Qos, SplitVolume, SplitVolumeSpec, SplitVolumeStatus,
};
pub use volume_session::{PublishedTarget, VolumeSession, VolumeSessionSpec, VolumeSessionStatus};

/// API group of all kinds.
pub const GROUP: &str = "holdfast.dev";
/// Name of the CSI driver.
pub const DRIVER_NAME: &str = "csi.holdfast.dev";
/// Topology key: the node a volume lives on. Never changes after release.
pub const TOPOLOGY_KEY: &str = "topology.holdfast.dev/node";
/// Held by the node agent on volumes and sessions until the drive or socket side is undone.
pub const NODE_FINALIZER: &str = "holdfast.dev/node";
/// Every volume is a multiple of this many bytes.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;

/// Condition types, positive when all is well.
pub mod conditions {
    /// BlockPool: exactly one drive is known by the identity asked for.
    pub const DEVICE_FOUND: &str = "DeviceFound";
    /// BlockPool: the drive carries the pool recorded, and its table is valid.
    pub const METADATA_VALID: &str = "MetadataValid";
    /// BlockPool: the drive answers, and nothing on it is damaged.
    pub const HEALTHY: &str = "Healthy";
    /// BlockPool, SplitVolume: usable now.
    pub const READY: &str = "Ready";
    /// BlockPool, only while it is false: the drive takes no zeros where deleted volumes were. That space stays out of use.
    pub const ERASED: &str = "Erased";
    /// SplitVolume: extents are on the drive.
    pub const ALLOCATED: &str = "Allocated";
    /// SplitVolume that was asked to grow: it has. False says why not; the volume is usable as it was.
    pub const EXPANDED: &str = "Expanded";
    /// SplitVolume with limits: its machine is held to them. False says why not.
    pub const LIMITED: &str = "Limited";
    /// SplitVolume under deletion: extents are quarantined durably.
    pub const QUARANTINED: &str = "Quarantined";
    /// VolumeSession: the socket listens.
    pub const EXPORTED: &str = "Exported";
    /// VolumeSession: a VM is connected.
    pub const CONNECTED: &str = "Connected";
}

/// Labels of our objects, for people who look for the volumes of a claim: `kubectl get sv -l holdfast.dev/claim-namespace=db`.
pub mod labels {
    /// Namespace of the claim that a SplitVolume was made for.
    pub const CLAIM_NAMESPACE: &str = "holdfast.dev/claim-namespace";
    /// Name of that claim, if it is short enough for a label; `spec.claim` always has it.
    pub const CLAIM_NAME: &str = "holdfast.dev/claim-name";
}

/// Condition reasons that other actors act on.
pub mod reasons {
    /// Allocated=False for good: the pool has no room. The controller removes the volume and answers RESOURCE_EXHAUSTED.
    pub const NO_SPACE: &str = "NoSpace";
    /// Allocated=False for good: the volume named cannot exist as described.
    pub const INVALID: &str = "Invalid";
    /// The pool or volume named does not exist (yet) on this node.
    pub const NOT_FOUND: &str = "NotFound";
    /// Something failed and is tried again.
    pub const FAILED: &str = "Failed";
    /// Done.
    pub const OK: &str = "Ok";
}
