//! BlockPool: a base device on a node, cut into volumes.

use crate::{Condition, Quantity};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A base device on one node that volumes are cut from.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "BlockPool",
    plural = "blockpools",
    shortname = "bp",
    category = "holdfast",
    status = "BlockPoolStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
    printcolumn = r#"{"name":"Device","type":"string","jsonPath":".spec.device.path"}"#,
    printcolumn = r#"{"name":"Capacity","type":"integer","jsonPath":".status.capacityBytes"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.freeBytes"}"#,
    printcolumn = r#"{"name":"Largest","type":"integer","jsonPath":".status.largestFreeExtentBytes"}"#,
    printcolumn = r#"{"name":"Volumes","type":"integer","jsonPath":".status.volumes"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockPoolSpec {
    /// Name of the node that the device is attached to. Immutable.
    pub node_name: String,
    /// Which device, by identity.
    pub device: DeviceMatch,
    /// For a pool in a file that does not exist yet: make it with this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Take the device although it holds something that is not a pool. Its content is lost.
    #[serde(default)]
    pub force: bool,
}

/// How a device is recognised.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceMatch {
    /// An absolute path that names the device by identity: a link below /dev/disk/by-id, or a regular file.
    pub path: String,
}

/// What the node agent sees of the device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockPoolStatus {
    /// The generation of the spec that this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// UUID in the superblock: the pool is this and no other.
    #[serde(default)]
    pub pool_uuid: String,
    /// Identity of the device as recorded in the superblock.
    #[serde(default)]
    pub identity: String,
    /// Bytes that volumes can use in all.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// Bytes that belong to volumes.
    #[serde(default)]
    pub allocated_bytes: u64,
    /// Bytes that a new volume can have now.
    #[serde(default)]
    pub free_bytes: u64,
    /// Bytes of the largest piece of free space.
    #[serde(default)]
    pub largest_free_extent_bytes: u64,
    /// Bytes of deleted volumes that are still being erased.
    #[serde(default)]
    pub erase_pending_bytes: u64,
    /// Number of volumes.
    #[serde(default)]
    pub volumes: i64,
    /// Ready: the device is open and its table is valid.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
